"""How a deployment fares: ejection, coming back, cooldowns, and how fast it is believed to be."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.core.errors import MATRIX, BadResponse, RateLimited, TimedOut, Unavailable
from llmctl.routing import health
from tests.routing.town import T0

MIDDLE = 0.5
Quota = dict[str, Any]


def fail(quota: Quota, at: float, *, dice: float = MIDDLE, took_s: float = 5.0) -> None:
    health.failed(quota, Unavailable("m"), T0 + at, took_s, lambda: dice)


def answer(quota: Quota, at: float, *, sent: float | None = None) -> None:
    health.answered(quota, T0 + (at if sent is None else sent), T0 + at)


def out_for(quota: Quota, at: float) -> float:
    return max(0.0, quota.get("cool", 0.0) - T0 - at)


def test_a_cooldown_without_the_providers_word_is_ten_or_five_minutes():
    assert health.COOLDOWN_S == {"QuotaExhausted": 600.0, "Unauthorized": 300.0, "ModelNotFound": 600.0}


# --- ejection ------------------------------------------------------------------------------------------------------


def test_three_failures_in_a_row_eject_for_ten_seconds():
    quota: Quota = {}
    for at in (0, 1):
        fail(quota, at)
        assert not health.is_out(quota, T0 + at)
    fail(quota, 2)
    assert out_for(quota, 2) == pytest.approx(10)
    assert quota["why"] == "Unavailable"
    assert health.is_out(quota, T0 + 11.9)
    assert not health.is_out(quota, T0 + 12)


@pytest.mark.parametrize("between", [60.1, 1000.0])
def test_failures_further_apart_than_a_minute_are_not_in_a_row(between: float):
    quota: Quota = {}
    for n in range(9):
        fail(quota, n * between)
    assert not quota.get("ejections")


def test_an_answer_between_them_ends_the_row():
    quota: Quota = {}
    for n in range(6):
        fail(quota, 2 * n)
        if n % 2:
            answer(quota, 2 * n + 1)
    assert not quota.get("ejections")


def test_half_of_the_last_twenty_within_a_minute_ejects():
    for fresh, ejected in ((True, True), (False, False)):
        quota: Quota = {}
        for n in range(10):
            fail(quota, n if fresh else n * 7)  # never two in a row
            assert not health.is_out(quota, T0 + 7 * n) or n == 9
            answer(quota, (n if fresh else n * 7) + 0.5) if n < 9 else None
        assert bool(quota.get("ejections")) is ejected


@pytest.mark.parametrize("k", range(8))
def test_each_ejection_in_a_row_lasts_twice_as_long_up_to_five_minutes(k: int):
    for dice, share in ((0.0, 0.8), (MIDDLE, 1.0), (0.999999, 1.2)):
        quota: Quota = {"ejections": k, "fails": 2, "failed_at": T0}
        fail(quota, 0, dice=dice)
        assert out_for(quota, 0) == pytest.approx(min(300, 10 * 2**k) * share, rel=1e-3)
        assert quota["ejections"] == k + 1


def test_what_fails_at_once_is_tried_again_sooner():
    quota: Quota = {"ejections": 9}
    fail(quota, 0, took_s=0.01)
    assert 0 < out_for(quota, 0) < 30


def test_requests_that_were_under_way_when_it_was_ejected_make_it_no_longer():
    quota: Quota = {}
    for _ in range(40):
        fail(quota, 0)
    assert out_for(quota, 0) <= 12
    assert quota["ejections"] == 1


def test_a_half_open_deployment_is_out_again_after_one_failure():
    quota: Quota = {"ejections": 1, "cool": T0 + 10, "probe": T0 + 30}
    assert not health.is_half_open(quota, T0 + 9)
    assert health.is_half_open(quota, T0 + 10)
    fail(quota, 100)
    assert out_for(quota, 100) == pytest.approx(20)
    assert "probe" not in quota


def test_an_answer_closes_it_and_begins_its_return():
    quota: Quota = {"ejections": 3, "cool": T0, "fails": 2, "probe": T0 + 15}
    answer(quota, 5)
    assert quota["back"] == T0 + 5
    assert not quota.keys() & {"ejections", "fails", "cool", "probe"}
    assert not health.is_half_open(quota, T0 + 5)


def test_a_late_answer_closes_it_once_its_time_is_over_and_not_before():
    quota: Quota = {}
    for at in (1, 2, 3):
        fail(quota, at)
    answer(quota, 4, sent=0)  # asked before it failed: no news of how it is now
    assert health.is_out(quota, T0 + 4)
    answer(quota, 14, sent=0)
    assert not health.is_half_open(quota, T0 + 14)
    asked_anyway: Quota = {"ejections": 1, "cool": T0 + 300, "failed_at": T0}
    answer(asked_anyway, 20, sent=10)  # asked after it failed, as a sole target is
    assert not health.is_out(asked_anyway, T0 + 20)


def test_an_answer_of_one_that_was_never_ejected_is_no_return():
    quota: Quota = {}
    answer(quota, 0)
    assert "back" not in quota


def test_the_longest_cooldown_wins():
    quota: Quota = {}
    for until, cool in ((5, 5), (9, 9), (7, 9)):
        health.rest(quota, T0 + until, f"until {until}")
        assert (quota["cool"], quota["why"]) == (T0 + cool, f"until {cool}")


@pytest.mark.parametrize(("said", "wait_s"), [(3.0, 3.0), (0.0, 0.0), (120.0, 120.0), (None, health.THROTTLED_S)])
def test_a_refusal_for_throughput_lasts_as_long_as_was_said(said: float | None, wait_s: float):
    quota: Quota = {}
    health.refused(quota, RateLimited("m", retry_after_s=said), T0)
    assert quota["blocked"] == T0 + wait_s
    health.refused(quota, RateLimited("m", retry_after_s=0.0), T0)
    assert quota["blocked"] == T0 + wait_s
    assert not health.is_out(quota, T0)


@pytest.mark.parametrize("kind", [TimedOut, BadResponse])
def test_why_it_is_out_is_the_kind_of_the_last_failure(kind: type[TimedOut | BadResponse]):
    quota: Quota = {"fails": 2, "failed_at": T0}
    health.failed(quota, kind("m"), T0, 30.0, lambda: MIDDLE)
    assert quota["why"] == kind.__name__


def test_no_more_is_kept_than_the_last_of_what_happened():
    quota: Quota = {}
    for n in range(200):
        answer(quota, n)
        measured(quota, n)
    assert len(quota["recent"]) == health.LAST
    assert len(quota["samples"]) == health.SAMPLES


# --- speed ---------------------------------------------------------------------------------------------------------


def measured(
    quota: Quota, at: float, first: float = 0.5, each: float = 0.01, output: int = 100, prompt: int = 0
) -> None:
    first += prompt / health.PREFILL_TOKENS_PER_S
    health.measure(
        quota, T0 + at, T0 + at - 1, prompt=prompt, output=output, first_token_s=first, latency_s=first + output * each
    )


@pytest.mark.parametrize("prompt", [0, 20_000])
@pytest.mark.parametrize(("first", "each"), [(0.2, 0.005), (0.5, 0.05), (8.0, 0.3)])
def test_the_estimate_comes_to_what_is_measured(first: float, each: float, prompt: int):
    quota: Quota = {}
    for n in range(40):
        measured(quota, 20 * n, first, each, prompt=prompt)
    assert quota["speed"][:2] == [pytest.approx(first, rel=0.05), pytest.approx(each, rel=0.05)]
    assert quota["speed"][2] == T0 + 780


@pytest.mark.parametrize(("was", "has_become"), [(0.5, 5.0), (5.0, 0.5)])
def test_a_change_is_believed_from_new_requests_more_than_from_those_asked_before_it(was: float, has_become: float):
    moved = []
    for asked_s in (1.0, 60.0):
        quota: Quota = {}
        for n in range(40):
            measured(quota, n, was)
        health.measure(
            quota, T0 + 41, T0 + 41 - asked_s, prompt=0, output=100, first_token_s=has_become, latency_s=has_become + 1
        )
        moved.append(abs(quota["speed"][0] - was))
    assert moved[0] > 2 * moved[1] > 0


def test_an_answer_in_one_piece_says_only_how_fast_it_was_over_all():
    quota: Quota = {}
    for n in range(60):
        health.measure(quota, T0 + n, T0 + n - 6, prompt=0, output=100, first_token_s=6.0, latency_s=6.0)
    first, each = quota["speed"][:2]
    assert first + 100 * each == pytest.approx(6.0, rel=0.1)
    assert first / each == pytest.approx(health.PRIOR[0] / health.PRIOR[1], rel=0.01)
    assert quota["samples"][-1][1] == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("first", "latency", "output"), [(0.0, 0.0, 0), (0.0, 1e9, 1), (1e9, 1e9, 0), (0.0, 1e-9, 10**9)]
)
def test_no_measurement_makes_an_estimate_that_cannot_be_used(first: float, latency: float, output: int):
    quota: Quota = {}
    for n in range(50):
        health.measure(quota, T0 + n, T0 + n, prompt=0, output=output, first_token_s=first, latency_s=latency)
    assert all(0 < value <= 3600 for value in quota["speed"][:2])


def test_a_sample_is_the_first_token_of_a_stream():
    quota: Quota = {}
    measured(quota, 0, first=0.4)
    assert quota["samples"] == [[T0, 0.4]]


# --- forgetting ----------------------------------------------------------------------------------------------------


def test_a_reset_forgets_trouble_and_says_what_it_was_and_keeps_what_is_law_or_knowledge():
    quota: Quota = {"uses": [[T0, T0, 1, 5, 5, 0]], "open": {"x": []}}
    measured(quota, 0)
    for at in (0, 1, 2):
        fail(quota, at)
    quota |= {"blocked": T0 + 30, "ratio": [1.2, 0.3], "slice": 1.0, "turn": 7}
    words = health.clear(quota, T0 + 3, measured=False)
    assert len(words) == 2
    assert words[0].endswith("after Unavailable")
    assert quota.keys() >= {"uses", "open", "speed", "samples"}
    assert not health.is_out(quota, T0 + 3)
    assert "blocked" not in quota
    assert health.clear(quota, T0 + 3, measured=True) == ["what was measured"]
    assert quota.keys() == {"open"}
    assert health.clear(quota, T0 + 3, measured=True) == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"ejections": 2, "cool": T0}, ["half-open after an ejection"]),
        ({"fails": 2, "failed_at": T0}, ["2 failures in a row"]),
        ({"retries": [4.0, T0]}, ["spent retries"]),
        ({"demand": [T0, {"32": 0.9, "40": 0.7}]}, ["an overload"]),
        ({"demand": [T0 - 60, {"32": 0.9, "40": 0.7}]}, []),
        ({"cool": T0 - 1, "why": "ModelNotFound", "blocked": T0 - 1}, []),
    ],
)
def test_a_reset_says_what_it_forgets(trouble: Quota, words: list[str]):
    assert health.clear(trouble, T0) == words
    assert trouble == {}


def test_the_matrix_says_of_ejections_what_happens():
    assert MATRIX["Unavailable"].cooldown == (
        f"after {health.IN_A_ROW} failures in a row, or half of the last {health.LAST} within {health.IN_A_ROW_S:g} s: "
        f"{health.EJECTION_S:g} s x 2^k, at most {health.EJECTION_CAP_S:g} s, or {health.QUICK_CAP_S:g} s if it failed "
        f"within {health.QUICK_S:g} s; +-{health.EJECTION_JITTER * 100:g} %"
    )
