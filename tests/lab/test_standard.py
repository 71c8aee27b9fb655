"""The standard suite: sixteen of sixteen on every wire, from both sides; and each thing that it checks can fail."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.client import Client
from llmctl.core.errors import UsageError
from llmctl.lab import drill, standard
from llmctl.lab.drill import Drill
from llmctl.lab.expectations import Expectations
from llmctl.lab.verdict import judge
from llmctl.run import extras
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport
from llmctl.wire import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmctl.lab.rehearsal import Rehearsal
    from llmctl.lab.verdict import Verdict

NO_AMAZON = pytest.mark.skipif(not extras.installed("bedrock"), reason="needs the extra for Amazon Bedrock")
each_other_wire = pytest.mark.parametrize(
    "wire", [pytest.param(name, marks=NO_AMAZON if name == "bedrock" else ()) for name in PROTOCOLS if name != "openai"]
)
LIVE_KEY = "canary-51d84b067f3a9c2e"
LIVE = {
    "a": {"model": "openai/first", "api_key": LIVE_KEY, "fallbacks": ["b"]},
    "b": {"model": "groq/second", "api_key": LIVE_KEY},
}


def suite(
    model: str = "",
    config: dict[str, Any] | None = None,
    *,
    chain: str = "",
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    transport: ScriptedTransport | None = None,
    **how: Any,
) -> list[Verdict]:
    """The verdicts of the suite, or of these of its shapes, or on that one of the made-up chains."""
    with Client(config or {}, environ={}, ledger=MemoryLedger(), transport=transport) as client:
        plays, _ = standard.plays(client, Drill(model, **{"live": False, **how}), {})
        asked = [
            (on, each)
            for on, each in plays
            if (not chain or on.chain.name == chain) and (not only or each.id in only) and each.id not in without
        ]
        return asyncio.run(drill.rehearse(asked, Expectations()))[0]


def bad(verdicts: list[Verdict]) -> dict[str, str]:
    """Why which shape failed."""
    return {each.rehearsal.scenario.id: each.why for each in verdicts if not each.ok}


def outcomes(verdict: Verdict) -> list[str]:
    """Of each attempt of all calls, whom it asked and what came of it."""
    return [f"{each.deployment} {each.outcome}" for told in verdict.rehearsal.calls for each in told.attempts]


@pytest.fixture(scope="module")
def played() -> dict[str, Rehearsal]:
    """What came of each shape on the made-up chain of one protocol."""
    return {each.rehearsal.scenario.id: each.rehearsal for each in suite(chain="standard-openai")}


# ---------------------------------------------------------------- that everything passes


def test_sixteen_of_sixteen_pass_where_the_wire_is_openais(played: dict[str, Rehearsal]) -> None:
    shapes = {name.removesuffix("/streamed") for name in played}
    assert (len(shapes), len(played)) == (16, 18)
    assert bad([judge(each) for each in played.values()]) == {}


@each_other_wire
def test_every_shape_of_one_call_passes_on_the_other_wires(wire: str) -> None:
    verdicts = suite(chain=f"standard-{wire}", without=("outage",))
    assert len(verdicts) == 17
    assert bad(verdicts) == {}


@NO_AMAZON
def test_without_a_model_there_is_a_chain_for_each_protocol_with_the_same_shapes() -> None:
    with Client({}, environ={}, ledger=MemoryLedger()) as client:
        plays, out = standard.plays(client, Drill("", live=False), {})
    ids = [tuple(each.id for on, each in plays if on.chain.name == f"standard-{name}") for name in PROTOCOLS]
    assert (len(set(ids)), len(plays), out) == (1, 18 * len(PROTOCOLS), [])
    assert {m.deployment.provider.protocol for on, _ in plays for m in on.chain.members} == set(PROTOCOLS)


def test_a_protocol_whose_extra_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with Client({}, environ={}, ledger=MemoryLedger()) as client:
        plays, (out,) = standard.plays(client, Drill("", live=False), {})
    assert {on.chain.name for on, _ in plays} == {f"standard-{each}" for each in PROTOCOLS if each != "bedrock"}
    assert out.startswith("bedrock was not drilled: ")
    assert "[bedrock]" in out


def test_a_chain_with_few_requests_a_minute_passes_at_the_pace_of_the_shapes() -> None:
    config = {"models": {"a": {"model": "openai/m", "rpm": 1, "fallbacks": ["b"]}, "b": {"model": "groq/n", "rpm": 1}}}
    assert bad(suite("a", config, only=("throttled-once", "error-once", "outage"))) == {}


@pytest.mark.parametrize("retry", [{"retries": 0}, {"patience": "0s"}, {"max_wait": "0s"}])
def test_a_chain_that_is_told_not_to_wait_passes_by_its_fallback(retry: dict[str, Any]) -> None:
    config = {"models": {"a": {"model": "openai/m", "fallbacks": ["b"]}, "b": {"model": "groq/n"}}, "retry": retry}
    verdicts = suite("a", config, only=("throttled-once", "error-once"))
    assert bad(verdicts) == {}
    assert {each.served_by for each in verdicts} == {"groq/n"}


def test_a_live_suite_needs_a_model_and_a_chain_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a model"):
        suite(live=True)
    with pytest.raises(UsageError, match="one member"):
        suite("openai/gpt-4o")


def test_a_link_of_several_passes_too_and_a_peer_answers_for_whom_a_passing_fault_struck() -> None:
    models = {
        "a": {"deployments": [{"model": "openai/x"}, {"model": "anthropic/y"}], "fallbacks": ["b"]},
        "b": {"model": "gemini/z"},
    }
    timeouts = {"first_token": "10s", "idle": "10s"}
    verdicts = suite("a", {"models": models, "timeout": timeouts}, without=("outage",))
    assert bad(verdicts) == {}
    assert outcomes(verdicts[0]) == ["a-1 RateLimited", "a-2 ok"]


def test_a_chain_of_six_links_has_no_second_try_to_spare_so_an_error_that_passes_strikes_it_alone() -> None:
    models: dict[str, Any] = {name: {"model": f"openai/{name}"} for name in "abcdef"}
    models["a"]["fallbacks"] = list("bcdef")
    (verdict,) = suite("a", {"models": models}, only=("error-once",))
    assert (outcomes(verdict), verdict.why) == (["a-1 Unavailable", "a-1 ok"], "")


def test_live_the_faults_strike_link_one_and_the_rest_is_really_asked() -> None:
    real = ScriptedTransport(Reply.stream("Here I am, the real one."))
    verdicts = suite("a", {"models": LIVE}, without=("outage",), transport=real, live=True)
    assert bad(verdicts) == {}
    assert {"a-1", "b-1"} == set(real.deployments)
    sent = [sent for each in verdicts for sent in each.rehearsal.sent]
    assert {each.deployment for each in sent if each.real and each.fault} == set()
    assert LIVE_KEY not in str([each.heard for each in sent])


# ---------------------------------------------------------------- what a worse configuration comes to


def test_an_error_that_passes_and_is_not_survived_by_its_target_fails() -> None:
    models = {**LIVE, "a": {**LIVE["a"], "tpm": 300}}  # too few tokens to be asked twice in a minute
    (verdict,) = suite("a", {"models": models}, only=("error-once",))
    assert "again: the target was asked 1 times, not twice" in verdict.why
    assert "served by b-1 instead of a-1" in verdict.why


@pytest.mark.parametrize(("window", "end"), [(4_000, "a-1 ContextExceeded"), (64_000, "b-1 ok")])
def test_a_prompt_too_long_goes_to_a_larger_window_or_ends_in_the_clean_error(window: int, end: str) -> None:
    models = {"a": {**LIVE["a"], "context_window": 8_000}, "b": {**LIVE["b"], "context_window": window}}
    (verdict,) = suite("a", {"models": models}, only=("too-long",))
    assert (outcomes(verdict)[-1], verdict.why) == (end, "")


@pytest.mark.parametrize(("rule", "end"), [("fail", "a-1 ContentFiltered"), ("fallback", "b-1 ok")])
def test_a_filtered_prompt_goes_on_only_where_the_group_says_so(rule: str, end: str) -> None:
    models = {**LIVE, "a": {**LIVE["a"], "on_content_filter": rule}}
    (verdict,) = suite("a", {"models": models}, only=("filtered",))
    assert (outcomes(verdict)[-1], verdict.why) == (end, "")


def test_a_fallback_that_cannot_be_asked_is_no_fallback_and_the_reason_says_so() -> None:
    models = {"a": LIVE["a"], "b": {"model": "groq/second"}}
    real = ScriptedTransport(Reply.stream("Here."))
    failed = bad(suite("a", {"models": models}, only=("down", "cut", "named"), transport=real, live=True))
    assert set(failed) == {"down", "cut", "named"}
    assert "b-1 cannot be asked: " in failed["down"]


# ---------------------------------------------------------------- that each check can fail


def call(played: Rehearsal, **changes: Any) -> Rehearsal:
    """With its last call changed."""
    *before, last = played.calls
    return replace(played, calls=(*before, replace(last, **changes)))


def record(played: Rehearsal, **changes: Any) -> Rehearsal:
    """With the record of its last call changed."""
    return call(played, record=replace(played.calls[-1].record, **changes))


def again(played: Rehearsal, times: int, n: int = 0, **changes: Any) -> Rehearsal:
    """With request number `n` sent so many times more."""
    return replace(played, sent=(*played.sent, *[replace(played.sent[n], **changes)] * times))


def heard(played: Rehearsal, n: int, **changes: Any) -> Rehearsal:
    """With request number `n` heard otherwise."""
    sent = list(played.sent)
    was = sent[n].heard
    assert was is not None
    sent[n] = replace(sent[n], heard=was._replace(**changes))
    return replace(played, sent=tuple(sent))


def hasty(played: Rehearsal) -> Rehearsal:
    """With the second request sent 1.8 s after the first."""
    first, second = played.sent
    return replace(played, sent=(first, replace(second, at=first.at + 1.8)))


def never_back(played: Rehearsal) -> Rehearsal:
    """With the last call served by the fallback."""
    return record(played, deployment="standard-openai-fallback-1")


KEY_OF_THE_PRIMARY = {"authorization": "Bearer drill-key-1"}
PREFILL = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "No model"}]}'
WORSE: dict[str, tuple[str, Callable[[Rehearsal], Rehearsal], str]] = {
    "asked too soon": ("throttled-once", hasty, "again: asked again after 1.80 s"),
    "planned too late": (
        "throttled-once",
        lambda r: call(r, pauses=(r.calls[0].pauses[0]._replace(wait_s=2.2),)),
        "2.20 s of them planned",
    ),
    "never asked again": ("throttled-once", lambda r: replace(r, sent=r.sent[:1]), "again: the target was asked 1 "),
    "asked a third time": ("error-once", lambda r: again(r, 1), "again: the target was asked 3 times"),
    "hammered": ("throttled", lambda r: again(r, 4), "requests: 5 at one target of link 1 in 3 s (at most 4)"),
    "asked seven times": (
        "down",
        lambda r: again(r, 3, -1),
        "requests: 3 at one target of link 1 (at most 6), 7 in all",
    ),
    "silent twice": ("silent", lambda r: again(r, 1), "requests: 2 at one target"),
    "silent long": ("silent", lambda r: record(r, latency_ms=100_100.0), "time: 100.1 s, at most 100 s"),
    "late": ("late", lambda r: record(r, latency_ms=15_200.0), "time: 15.2 s, at most 15 s"),
    "late twice": ("late", lambda r: again(r, 1), "requests: 2 at one target"),
    "stalled long": ("stalled", lambda r: record(r, latency_ms=45_100.0), "time: 45.1 s, at most 45 s"),
    "stalled twice": ("stalled", lambda r: again(r, 1), "requests: 2 at one target"),
    "a part as the whole": ("cut/streamed", lambda r: record(r, state="ok"), "and the call is ok"),
    "all and an error": ("cut/streamed", lambda r: call(r, shown=r.scripted), "broken off: 291 of 291"),
    "nothing": ("cut/streamed", lambda r: call(r, shown=""), "broken off: 0 of 291"),
    "other words": ("stalled/streamed", lambda r: call(r, shown="Other words"), "broken off: 11 of 291"),
    "stalled twice, shown": ("stalled/streamed", lambda r: again(r, 1), "requests: 2 at one target"),
    "stalled long, shown": ("stalled/streamed", lambda r: record(r, latency_ms=46_000.0), "time: 46.0 s"),
    "two for one": ("broken-event", lambda r: again(r, 1), "requests: 2 at one target of link 1 (at most 1), 2 in all"),
    "a word lost": ("broken-event", lambda r: replace(r, scripted="One more."), "words: not what was said"),
    "a word lost at the end": ("no-terminator", lambda r: replace(r, scripted="More."), "words: not what was said"),
    "no hurry": ("no-terminator", lambda r: record(r, latency_ms=8_100.0), "time: 8.1 s, at most 8 s"),
    "two for no end": ("no-terminator", lambda r: again(r, 1), "requests: 2 at one target"),
    "no usage": ("no-terminator", lambda r: record(r, output_tokens=None), "usage: "),
    "estimated": ("no-terminator", lambda r: record(r, tokens_estimated=True), "out, estimated"),
    "too long twice": ("too-long", lambda r: again(r, 1), "requests: 2 at one target"),
    "filtered twice": ("filtered", lambda r: again(r, 1), "requests: 2 at one target"),
    "prefilled": ("cut-no-prefill", lambda r: heard(r, -1, body=PREFILL), "fallback-1 was given the beginning"),
    "the dead asked": ("outage", lambda r: again(r, 11), "requests went to it while it was down"),
    "never back": ("outage", never_back, "back again: 30 s after its return: served by standard-openai-fallback-1"),
    "not asked": ("outage", lambda r: replace(r, calls=r.calls[:20]), "30 s after its return: nobody asked"),
    "the primary named": ("named", lambda r: record(r, served_by="openai/small"), "is no fallback of this chain"),
    "no fallback": ("named", lambda r: record(r, fallback=False), "is no fallback of this chain"),
    "its model": ("named", lambda r: record(r, reported_model="small"), "openai/large, which reports small"),
    "free": ("named", lambda r: record(r, input_tokens=0), "usage: 0 in"),
    "another's key": ("down", lambda r: heard(r, -1, headers=KEY_OF_THE_PRIMARY), "fallback-1 was shown another key"),
    "no key": ("reset", lambda r: heard(r, 0, headers={}), "standard-openai-1 was shown another key"),
}
"""What is seen, the shape in which it is wrong, and the reason."""


@pytest.mark.parametrize("name", WORSE)
def test_what_is_seen_to_be_wrong_fails_with_its_reason(played: dict[str, Rehearsal], name: str) -> None:
    shape, worse, why = WORSE[name]
    verdict = judge(worse(played[shape]))
    assert why in verdict.why


def test_each_check_of_each_shape_was_made_to_fail(played: dict[str, Rehearsal]) -> None:
    verdicts = [(shape, judge(worse(played[shape]))) for shape, worse, _ in WORSE.values()]
    failed = {(shape, each.name) for shape, verdict in verdicts for each in verdict.assertions if not each.ok}
    own = {(name, check(each).name) for name, each in played.items() for check in each.scenario.checks}
    assert {pair for pair in own if pair[1] != "keys"} <= failed
