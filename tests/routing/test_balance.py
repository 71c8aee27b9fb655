"""Each strategy's row: whom it asks, how often, and what it does with what it does not know."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.money import Price
from llmctl.core.snapshot import DeploymentState, Snapshot
from llmctl.routing.balance import (
    EPSILON,
    PROBE_AFTER_S,
    PROBE_EVERY,
    SLOW_START_S,
    STALE_S,
    STRATEGIES,
    Choice,
    choose,
    expected_s,
)
from tests.routing.town import T0

if TYPE_CHECKING:
    from collections.abc import Sequence

PROVIDER = Provider("p")


def fleet(*weights: float, prices: Sequence[Price | None] = ()) -> list[Deployment]:
    prices = prices or [None] * len(weights)
    return [Deployment(n, PROVIDER, n, weight=w, price=p) for n, w, p in zip("abcdef", weights, prices, strict=False)]


def states(*each: dict[str, Any], **snapshot: Any) -> Snapshot:
    """What is known of a, b, c in turn; all of them were measured just now, if nothing else is said."""
    known = {n: DeploymentState(**{"measured_at": T0} | how) for n, how in zip("abcdef", each, strict=False)}
    return Snapshot(known, **snapshot)


def drawn(name: str, ready: Sequence[Deployment], snapshot: Snapshot, times: int = 2000) -> Counter[str]:
    """How often each is asked, by the same dice on every run."""
    dice = random.Random(7).random
    return Counter(choose(name, ready, snapshot, T0, dice).deployment.id for _ in range(times))


EVEN = fleet(1, 1, 1)
IDLE = states({}, {}, {})


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_choice_has_its_reason_and_one_of_those_that_can_start(name: str):
    for ready in (EVEN, EVEN[1:], EVEN[:1]):
        choice = choose(name, ready, IDLE, T0, lambda: 0.99)
        assert isinstance(choice, Choice)
        assert choice.deployment in ready
        assert choice.reason
        assert not choice.probe


@pytest.mark.parametrize(
    "name", ["adaptive", "simple-shuffle", "least-busy", "usage-based-routing", "cost-based-routing"]
)
def test_those_that_are_alike_are_asked_alike(name: str):
    assert min(drawn(name, EVEN, IDLE).values()) > 2000 / 3 * 0.9


@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_dice_make_equal_choices(name: str):
    assert drawn(name, EVEN, IDLE, 50) == drawn(name, EVEN, IDLE, 50)


def test_ordered_asks_the_first_as_they_are_written():
    assert drawn("ordered", EVEN, IDLE, 100) == {"a": 100}
    assert drawn("ordered", EVEN[1:], IDLE, 100) == {"b": 100}


@pytest.mark.parametrize(("weights", "shares"), [((1, 1, 2), (0.25, 0.25, 0.5)), ((9, 1, 0), (0.9, 0.1, 0.0))])
def test_shuffle_draws_by_weight(weights: tuple[float, ...], shares: tuple[float, ...]):
    asked = drawn("simple-shuffle", fleet(*weights), IDLE)
    assert [asked[n] / 2000 for n in "abc"] == pytest.approx(shares, abs=0.04)


def test_shuffle_asks_somebody_though_all_weights_are_zero():
    assert sum(drawn("simple-shuffle", fleet(0, 0), IDLE, 10).values()) == 10


def test_round_robin_asks_each_in_its_turn():
    path = [choose("round-robin", EVEN, states(turn=turn), T0, lambda: 0.0).deployment.id for turn in range(6)]
    assert path == ["a", "b", "c", "a", "b", "c"]


def test_least_busy_asks_who_has_the_fewest_under_way_and_any_of_those():
    asked = drawn("least-busy", EVEN, states({"in_flight": 2}, {"in_flight": 1}, {"in_flight": 1}))
    assert asked["a"] == 0
    assert min(asked["b"], asked["c"]) > 900


def test_usage_based_asks_who_has_used_the_fewest_tokens():
    used = states({"used_tokens": 300}, {"used_tokens": 100}, {"used_tokens": 200})
    assert drawn("usage-based-routing", EVEN, used, 50) == {"b": 50}


def test_cost_based_asks_the_cheapest_for_this_request_and_an_unknown_price_last():
    dear_answers, dear_prompts = Price.per_million(1, 10), Price.per_million(5, 1)
    ready = fleet(1, 1, 1, prices=[None, dear_answers, dear_prompts])
    assert drawn("cost-based-routing", ready, states(prompt_tokens=1000, output_tokens=10), 50) == {"b": 50}
    assert drawn("cost-based-routing", ready, states(prompt_tokens=10, output_tokens=1000), 50) == {"c": 50}
    free = fleet(1, 1, prices=[dear_answers, Price.free()])
    assert drawn("cost-based-routing", free, states(prompt_tokens=1), 50) == {"b": 50}
    assert set(drawn("cost-based-routing", fleet(1, 1), IDLE)) == {"a", "b"}


def samples(seconds: float, age_s: float = 1.0) -> dict[str, Any]:
    return {"samples": ((T0 - age_s, seconds),) * 3}


def test_latency_based_asks_the_fastest_and_one_in_ten_anybody():
    asked = drawn("latency-based-routing", EVEN, states(samples(3.0), samples(1.0), samples(2.0)), 6000)
    assert asked["b"] / 6000 == pytest.approx(1 - EPSILON * 2 / 3, abs=0.02)
    assert min(asked["a"], asked["c"]) / 6000 == pytest.approx(EPSILON / 3, abs=0.02)


def test_latency_based_asks_in_turn_while_nothing_is_known_of_the_last_minute():
    old = states(samples(3.0, STALE_S), samples(1.0, STALE_S + 1), turn=5)
    assert choose("latency-based-routing", EVEN, old, T0, lambda: 0.5).deployment.id == "c"
    one = states(samples(9.0, STALE_S - 1), samples(1.0, STALE_S + 1))
    assert choose("latency-based-routing", EVEN, one, T0, lambda: 0.5).deployment.id == "a"


FASTEST, DREW, TURN = (
    "its last answers were the fastest", "drawn: one call in ten goes to any",
    "its turn, while no answer of the last minute says who is fast",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "snapshot", "dice", "reason"),
    [
        ("latency-based-routing", states(samples(3.0), samples(1.0), {}), 0.5, FASTEST),
        ("latency-based-routing", states(samples(3.0), samples(1.0), {}), 0.05, DREW),
        ("latency-based-routing", states(samples(3.0, STALE_S), {}, {}), 0.05, TURN),
        ("cost-based-routing", IDLE, 0.5, "drawn: no price is known"),
        ("round-robin", IDLE, 0.5, "its turn"),
        ("simple-shuffle", IDLE, 0.5, "drawn at random, by weight"),
    ],
)
def test_the_reason_of_a_choice_is_how_it_was_picked(name: str, snapshot: Snapshot, dice: float, reason: str):
    assert choose(name, EVEN, snapshot, T0, lambda: dice).reason == reason


@pytest.mark.parametrize(
    "worse",
    [
        {"first_token_s": 3.0}, {"per_token_s": 0.2}, {"in_flight": 3}, {"fill": 0.9}, {"fails": 1},
        {"overdue_s": 60.0}, {"back_at": T0 - SLOW_START_S / 2, "in_flight": 1},
    ],
)  # fmt: skip
def test_adaptive_asks_whose_whole_answer_is_expected_first(worse: dict[str, Any]):
    assert drawn("adaptive", EVEN[:2], states(worse, {}, output_tokens=100), 50) == {"b": 50}


def test_the_whole_answer_takes_reading_beginning_and_every_token():
    state = DeploymentState(first_token_s=1.0, per_token_s=0.02)
    assert expected_s(state, Snapshot(prompt_tokens=0, output_tokens=100)) == pytest.approx(3.0)
    assert expected_s(state, Snapshot(prompt_tokens=50_000, output_tokens=100)) > 4.0


def test_one_that_has_come_back_takes_its_share_again_slowly():
    def load(back_s: float) -> float:
        state = states({"back_at": T0 - back_s, "in_flight": 2})
        return STRATEGIES["adaptive"].load(EVEN[0], state, T0)

    assert load(0) > load(SLOW_START_S / 2) > load(SLOW_START_S) == load(1e9)


# --- trying out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_whoever_is_asked_while_half_open_is_tried_out(name: str):
    half = states({"half_open": True}, {"half_open": True}, {"half_open": True})
    for ready in (EVEN, EVEN[:1]):
        assert choose(name, ready, half, T0, lambda: 0.3).probe


def test_a_strategy_that_needs_fresh_estimates_tries_out_the_half_open_first():
    half = states({}, {"half_open": True, "first_token_s": 99.0}, {})
    assert drawn("adaptive", EVEN, half, 20) == {"b": 20}
    assert choose("adaptive", EVEN, half, T0, lambda: 0.3).probe


def stale(**how: Any) -> Snapshot:
    """b is far too slow, as it was when it was last heard of."""
    slow = {"first_token_s": 99.0, "measured_at": T0 - PROBE_AFTER_S - 1} | how
    return states({}, slow, {}, since_probe=PROBE_EVERY)


def test_who_was_not_heard_of_lately_is_tried_out_by_one_call_in_so_many():
    choice = choose("adaptive", EVEN, stale(), T0, lambda: 0.3)
    assert (choice.deployment.id, choice.probe) == ("b", True)
    too_soon = states(*({"first_token_s": 99.0 * n, "measured_at": 0.0} for n in range(3)), since_probe=PROBE_EVERY - 1)
    assert not choose("adaptive", EVEN, too_soon, T0, lambda: 0.3).probe


def test_who_has_not_answered_yet_is_not_tried_out_again():
    waited_for = states(*({"measured_at": 0.0, "overdue_s": 9.0} for _ in range(3)), since_probe=PROBE_EVERY)
    assert not choose("adaptive", EVEN, waited_for, T0, lambda: 0.3).probe


def test_nobody_is_tried_out_while_somebody_else_does_or_while_it_is_fresh():
    for snapshot in (stale(probed_until=T0 + 1), stale(measured_at=T0 - PROBE_AFTER_S + 1)):
        choice = choose("adaptive", EVEN, snapshot, T0, lambda: 0.3)
        assert (choice.deployment.id == "b", choice.probe) == (False, False)


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.probes])
def test_other_strategies_try_out_nobody_for_its_own_sake(name: str):
    assert not choose(name, EVEN, stale(), T0, lambda: 0.3).probe
