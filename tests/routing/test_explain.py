"""Every candidate has a reason that a person understands, whatever was decided and under every strategy."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.build import build
from llmctl.core.errors import MissingCredential, NoCapacity
from llmctl.core.snapshot import DeploymentState, Snapshot
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.call import Call, Fail, Send, Wait
from llmctl.routing.explain import LATER, OTHERS, breaker, explain, span
from llmctl.routing.plan import make_plan
from llmctl.routing.policy import Policy

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.routing.plan import Plan

NOW = 1_000_000.0
FREE = DeploymentState(measured_at=NOW - 1)
PROVIDERS = {
    "openai": {"api_base": "https://o.test/v1", "key": ["O"]},
    "groq": {"api_base": "https://g.test/v1", "key": ["G"]},
}
MODELS: dict[str, Any] = {
    "g": {
        "fallbacks": ["openai/last", "groq/none"],
        "deployments": [
            {"id": "a", "model": "openai/a", "rpm": 3, "tpm": 1000, "price": {"input": 1.0, "output": 1.0}},
            {"id": "b", "model": "openai/b", "max_parallel": 2, "weight": 2},
            {"id": "c", "model": "openai/c", "price": {"input": 2.0, "output": 2.0}},
        ],
    }
}


def no_groq(deployment: Deployment) -> LlmctlError | None:
    return MissingCredential("no key for groq") if deployment.provider.name == "groq" else None


def made() -> Plan:
    return make_plan(build(PROVIDERS, {}, {"models": MODELS}), "g", fallbacks=None, obstacle=no_groq)


def reasons(dice: float = 0.0, strategy: str | None = None, **states: DeploymentState) -> dict[str, str]:
    """What is said of each deployment once the machine itself has decided; those not named are free."""
    plan = made()
    deployments = {d.id: states.get(d.id, FREE) for link in plan.links for d in link.deployments}
    snapshot = Snapshot(deployments, prompt_tokens=100, output_tokens=50)
    decision = Call(plan, Policy(strategy=strategy), started=NOW, dice=lambda: dice).next(snapshot, NOW)
    found = explain(plan, snapshot, NOW, decision, strategy)
    assert [each.deployment.id for each in found] == ["a", "b", "c", "openai/last", "groq/none"]
    assert sum(each.chosen for each in found) == (not isinstance(decision, Fail))
    assert all(each.chosen == each.reason.startswith("chosen: ") for each in found)
    return {each.deployment.id: each.reason for each in found}


def test_the_one_chosen_and_those_passed_over_say_what_is_expected_of_them():
    slow = DeploymentState(first_token_s=3.0, measured_at=NOW - 1)
    assert reasons(b=slow, c=slow) == {
        "a": "chosen: the fastest whole answer is expected from it (2.0 s)",
        "b": "slower: 4.0 s expected",
        "c": "slower: 4.0 s expected",
        "openai/last": LATER,
        "groq/none": "left out: no key for groq",
    }


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (DeploymentState(cooldown_until=NOW + 12, why="Unavailable"), "cooling for 12 s after Unavailable"),
        (DeploymentState(cooldown_until=NOW + 400), "cooling for 7 min"),
        (
            DeploymentState(blocked_until=NOW + 9, headroom_at=NOW + 9),
            "it refused a call for throughput: free in 9.0 s",
        ),
        (
            DeploymentState(headroom_at=NOW + 41, headroom={"rpm": 0.0, "tpm": 900.0}),
            "at its limit: rpm 3/3, free in 41 s",
        ),
        (
            DeploymentState(headroom_at=NOW + 5, headroom={"rpm": 2.0, "tpm": 99.5}),
            "at its limit: tpm 99 left of 1,000, free in 5.0 s",
        ),
        (DeploymentState(headroom_at=NOW + 5, headroom={"otpm": 3.0}), "at its limit: otpm 3 left, free in 5.0 s"),
        (DeploymentState(headroom_at=NOW + 0.01), "at its limit, free in 0.1 s"),
        (DeploymentState(headroom_at=inf), "the request is larger than its limit: rpm 3, tpm 1,000"),
        (DeploymentState(half_open=True, probed_until=NOW + 3), "half-open: another call is trying it out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_cannot_start_says_why_and_for_how_long(state, reason):
    assert reasons(a=state)["a"] == reason


def test_calls_in_flight_are_a_limit_too():
    full = DeploymentState(headroom_at=NOW + 0.3, in_flight=2)
    assert reasons(b=full)["b"] == "at its limit: 2/2 in flight, free in 0.3 s"
    assert reasons(c=DeploymentState(headroom_at=inf))["c"].endswith("what the provider last said of it")


def test_a_call_that_waits_says_for_whom_and_of_the_others_when_they_are_free():
    states = {name: DeploymentState(headroom_at=NOW + 30 + n) for n, name in enumerate(("a", "b", "c", "openai/last"))}
    found = reasons(**states)
    assert found["a"] == "chosen: its answer is expected first; at its limit, free in 30 s"
    assert found["openai/last"] == "at its limit, free in 33 s"


def test_a_sole_target_is_asked_though_it_cools():
    plan = make_plan(build(PROVIDERS, {}, {}), "openai/x", fallbacks=None, obstacle=no_groq)
    snapshot = Snapshot({"openai/x": DeploymentState(cooldown_until=NOW + 60, why="TimedOut")})
    decision = Call(plan, Policy(), started=NOW, dice=lambda: 0.0).next(snapshot, NOW)
    (found,) = explain(plan, snapshot, NOW, decision)
    assert found.reason == "chosen: no other can be asked, so it is, though cooling for 60 s after TimedOut"
    assert (found.cooldown_s, found.latency_ms) == (60.0, None)


def test_who_comes_back_is_tried_out_and_the_others_say_that_they_were_passed_over():
    found = reasons(b=DeploymentState(half_open=True))
    assert found["b"] == "chosen: half-open: one call tries it out"
    assert found["a"] == "passed over: b is tried out by this call"


def test_what_failed_before_says_so_and_a_link_that_was_passed_too():
    plan = made()
    snapshot = Snapshot({}, prompt_tokens=100, output_tokens=50)
    target = plan.links[1].deployments[0]
    found = explain(plan, snapshot, NOW, Send(target, "fallback", 2, 9.0, "the only one"), None, {"a": "Unavailable"})
    assert [each.reason for each in found[:4]] == [
        "asked before: Unavailable",
        "ruled out by the failures before",
        "ruled out by the failures before",
        "chosen: the only one",
    ]


def test_a_call_that_ends_has_nobody_chosen_and_every_reason():
    error = NoCapacity("none")
    found = explain(made(), Snapshot(), NOW, Fail(error, 6))
    assert {each.reason for each in found} == {"the call ends before it is asked", "left out: no key for groq"}
    found = explain(made(), Snapshot(), NOW, Fail(error, 6), None, {"b": "TimedOut"})
    assert found[0].reason == "ruled out by the failures before"


def test_a_backoff_names_its_pause():
    plan = made()
    target = plan.links[0].deployments[0]
    found = explain(plan, Snapshot(), NOW, Wait(NOW + 0.25, "again", target, NOW))
    assert found[0].reason == "chosen: it is asked again after a pause of 0.2 s"


@pytest.mark.parametrize(
    ("strategy", "states", "expected"),
    [
        ("adaptive", {}, ("no faster: 2.0 s expected",)),
        (
            "ordered",
            {},
            ("chosen: the first that can start, as they are written", "written after it", "written after it"),
        ),
        ("simple-shuffle", {}, ("chosen: drawn at random, by weight", "not drawn this time (weight 2)")),
        ("round-robin", {}, ("chosen: its turn", "not its turn", "not its turn")),
        (
            "least-busy",
            {"b": DeploymentState(in_flight=4)},
            (
                "chosen: it has the fewest requests under way (0 under way)",
                "busier: 4 under way",
                "as busy: 0 under way",
            ),
        ),
        (
            "usage-based-routing",
            {"b": DeploymentState(used_tokens=1200)},
            (
                "chosen: it has used the fewest tokens this minute (0 tokens)",
                "it has used more tokens this minute: 1,200",
                "it has used as many tokens this minute: 0",
            ),
        ),
        (
            "cost-based-routing",
            {},
            ("chosen: it is the cheapest ($0.000150)", "its price is unknown", "dearer: $0.000300"),
        ),
        (
            "latency-based-routing",
            {},
            (
                "chosen: its turn, while no answer of the last minute says who is fast",
                "not its turn",
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_strategy_says_its_own_reasons(strategy, states, expected):
    found = list(reasons(strategy=strategy, **states).values())
    assert set(expected) <= set(found[:3])


def test_latency_based_routing_says_when_it_picked_the_fastest_and_when_it_drew_one():
    states = {n: DeploymentState(samples=((NOW - 5, s),)) for n, s in {"a": 0.8, "b": 0.4}.items()}
    fastest, drawn = reasons(0.5, "latency-based-routing", **states), reasons(0.05, "latency-based-routing", **states)
    assert fastest["b"] == "chosen: its last answers were the fastest (0.4 s)"
    assert (fastest["a"], fastest["c"]) == ("slower: 0.8 s lately", "no answer of the last minute: asked when drawn")
    assert (drawn["a"], drawn["b"]) == ("chosen: drawn: one call in ten goes to any", "not drawn this time")


def test_every_strategy_of_the_table_has_words_for_those_it_does_not_pick():
    assert OTHERS.keys() == STRATEGIES.keys()


def test_numbers_are_what_is_left_what_is_expected_and_what_runs():
    state = DeploymentState(headroom={"rpm": 2.0, "tpm": 940.5}, in_flight=3, measured_at=NOW, blocked_until=NOW + 2)
    plan = made()
    snapshot = Snapshot({"a": state}, prompt_tokens=8000, output_tokens=50)
    row = explain(plan, snapshot, NOW, Fail(NoCapacity("none"), 6))[0].as_json()
    assert {key: row[key] for key in ("headroom", "latency_ms", "in_flight", "cooldown_s")} == {
        "headroom": {"rpm": 2, "tpm": 940}, "latency_ms": 3000.0, "in_flight": 3, "cooldown_s": 2.0,
    }  # fmt: skip


def test_the_breaker_is_open_while_it_rests_and_half_open_after_it():
    assert breaker(DeploymentState(cooldown_until=NOW + 1, half_open=True), NOW) == "open"
    assert breaker(DeploymentState(half_open=True), NOW) == "half-open"
    assert breaker(DeploymentState(), NOW) == "closed"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0.1 s"), (2.14, "2.1 s"), (11.2, "12 s"), (120.0, "2 min"), (3599.0, "60 min")]
)
def test_a_span_is_as_fine_as_a_person_needs(seconds, words):
    assert span(seconds) == words
