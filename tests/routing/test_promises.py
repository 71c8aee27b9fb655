"""What users of other routers are missing, each as a fact. `benchmarks/` measures the same against those routers.

Two of them need sockets and processes: 6, an answer that is cut is recovered or declared (`--on-break` in
`tests/cli/test_ask.py`), and 12, the state survives processes (`tests/cli/test_limits.py`, where 7 to 9 are held by
real processes too).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from llmctl.core.errors import ContextExceeded, InvalidRequest, LlmctlError, RateLimited, Unavailable
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.call import Done, Fail
from llmctl.routing.policy import Policy
from tests.routing.town import PATIENT, T0, Strict, Town, deployment, plan_of, starts

if TYPE_CHECKING:
    from llmctl.core.snapshot import Said
    from tests.routing.town import Ask


@dataclass
class Failing:
    """A provider that answers every request with this."""

    error: LlmctlError | None = None
    seen: list[float] = field(default_factory=list)

    def ask(self, now: float, prompt: int, output: int) -> tuple[LlmctlError | None, tuple[Said, ...]]:
        self.seen.append(now)
        return self.error, ()


DEAD = Unavailable("m", status=503)


def town(*errors: LlmctlError | None, strategy: str = "ordered", latency_s: float = 0.05) -> Town:
    """Providers a, b, c in one group, each with its answer."""
    names = "abc"[: len(errors)]
    made = Town(
        plan_of(*map(deployment, names), strategy=strategy), {n: Failing(e) for n, e in zip(names, errors, strict=True)}
    )
    made.latency = lambda rng: latency_s
    return made


def calls(of: Town) -> dict[str, int]:
    """How many requests each provider has seen."""
    return {name: len(provider.seen) for name, provider in of.providers.items()}  # type: ignore[attr-defined]


def told(ask: Ask) -> LlmctlError:
    assert isinstance(ask.end, Fail)
    return ask.end.error


def test_1_an_ordered_group_is_asked_in_its_order():
    for _ in range(100):
        here = town(DEAD, None, None)
        ask = here.ask(T0, 10, 10)
        here.run()
        assert isinstance(ask.end, Done)
        assert calls(here) == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_2_no_call_fails_while_a_healthy_target_exists(strategy: str):
    here = town(DEAD, None, None, strategy=strategy)
    asks = [here.ask(T0 + n / 5, 10, 10) for n in range(1000)]
    here.run()
    assert {type(ask.end) for ask in asks} == {Done}


@pytest.mark.parametrize("status", [400, 422])
def test_3_a_request_that_is_refused_as_malformed_is_sent_once_and_its_error_is_told(status: int):
    error = InvalidRequest("no such parameter", status=status)
    here = town(error, None, None)
    ask = here.ask(T0, 10, 10)
    here.run()
    assert calls(here) == {"a": 1, "b": 0, "c": 0}
    assert told(ask) is error


def test_4_nobody_sleeps_after_the_last_attempt():
    here = town(RateLimited("m", status=429, retry_after_s=7.0))
    ask = here.ask(T0, 10, 10, policy=Policy(retries=2))
    here.run()
    assert (calls(here)["a"], told(ask).kind) == (3, "RateLimited")
    assert 14 <= here.now - T0 < 16
    here = town(DEAD, DEAD, DEAD)
    ask = here.ask(T0, 10, 10)
    here.run()
    assert told(ask).kind == "Unavailable"
    assert here.now - T0 < 5


def test_5_a_prompt_too_long_goes_to_the_first_window_that_may_take_it():
    error = ContextExceeded("m", status=400)
    windows = {"a": 8_000, "b": 4_000, "c": 32_000}
    here = town(error, None, None)
    here.plan = plan_of(
        *(replace(deployment(n), context_window=size) for n, size in windows.items()), strategy="ordered"
    )
    ask = here.ask(T0, 10, 10, policy=PATIENT)
    here.run()
    assert calls(here) == {"a": 1, "b": 0, "c": 1}
    assert isinstance(ask.end, Done)


def limited(strategy: str = "adaptive", policy: Policy = PATIENT, **limits: int) -> tuple[Town, Strict]:
    strict = Strict()
    here = Town(plan_of(deployment(**limits), strategy=strategy), {"a": strict})
    here.latency = lambda rng: 0.1
    return here, strict


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_7_rpm_3_admits_3_in_any_sliding_minute_and_no_fewer(strategy: str):
    for gap_s in (0.0, 5.0):
        here, strict = limited(strategy, rpm=3)
        for n in range(50):
            here.ask(T0 + n * gap_s, 5, 5, policy=Policy(total_s=150, max_wait_s=150))
        here.run()
        assert strict.most(lambda prompt, output: 1) == 3
        assert len(strict.seen) >= 6


def test_8_tpm_100_holds_at_most_4_calls_of_21_tokens():
    here, strict = limited(tpm=100)
    for _ in range(50):
        here.ask(T0, 11, 10, policy=Policy(total_s=150, max_wait_s=150))
    here.run()
    assert strict.most(lambda prompt, output: prompt + output) <= 84
    assert len([at for at, _, _ in strict.seen if at < T0 + 60]) in (3, 4)


def test_9_callers_wait_for_a_slot_and_are_not_refused():
    here, _ = limited(max_parallel=2)
    asks = [here.ask(T0, 5, 5) for _ in range(6)]
    here.run()
    assert {type(ask.end) for ask in asks} == {Done}
    assert here.most_in_flight == 2
    assert here.now - T0 < 1.0
    impatient, _ = limited(max_parallel=1)
    asks = [impatient.ask(T0, 5, 5, policy=Policy(max_wait_s=0)) for _ in range(2)]
    impatient.run()
    assert [type(ask.end) for ask in asks] == [Done, Fail]


def test_10_there_is_no_burst_at_the_boundary_of_a_minute():
    minute = T0 - T0 % 60 + 120
    here, strict = limited(rpm=10)
    first = [here.ask(minute - 1, 5, 5) for _ in range(10)]
    then = [here.ask(minute + 1, 5, 5) for _ in range(8)]
    here.run()
    assert strict.most(lambda prompt, output: 1) == 10
    assert set(starts(first)) == {minute - 1}
    assert min(starts(then)) >= minute + 59


def test_11_the_longer_of_two_cooldowns_counts():
    here = town(RateLimited("m", status=429, retry_after_s=30.0), None)
    here.ask(T0, 5, 5)
    here.ask(T0 + 0.01, 5, 5)
    here.run()
    here.providers["a"] = Failing(RateLimited("m", status=429, retry_after_s=1.0))
    assert calls(here) == {"a": 0, "b": 2}
    for at in (5, 15, 29):
        here.ask(T0 + at, 5, 5)
    here.run()
    assert calls(here) == {"a": 0, "b": 5}
    here.ask(T0 + 31, 5, 5)
    here.run()
    assert calls(here) == {"a": 1, "b": 6}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_11_a_dead_target_gets_three_calls_before_it_is_left_alone_and_none_of_them_fails(strategy: str):
    here = town(DEAD, None, strategy=strategy)
    asks = [here.ask(T0 + n / 5, 5, 5) for n in range(40)]
    here.run()
    assert calls(here)["a"] <= 3
    assert {type(ask.end) for ask in asks} == {Done}
