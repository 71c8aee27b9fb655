"""Faults as they are written: what is understood, what is refused with a hint, and what a schedule does in turn."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import CLASSES, UsageError
from llmctl.core.faults import DOWN, FAULTS, OK, SMALL_WINDOW, Fault, Schedule, injection, schedule

NUMBERS: dict[str, st.SearchStrategy[float | None]] = {
    "": st.none(),
    "seconds": st.integers(0, 86_400_000_000).map(lambda n: n / 1_000_000),
    "events": st.integers(0, 10_000).map(float),
    "probability": st.integers(1, 1_000_000).map(lambda n: n / 1_000_000),
}


@st.composite
def faults(draw: Any, names: list[str], times: st.SearchStrategy[int | None]) -> Fault:
    name = draw(st.sampled_from(names))
    kind = FAULTS[name]
    number = NUMBERS[kind.number] if kind.usual else st.none() | NUMBERS[kind.number]
    return Fault(name, draw(number), draw(times))


IN_TURN = [name for name in FAULTS if name != SMALL_WINDOW]
TIMES = st.integers(1, 10_000)
SCHEDULES = st.builds(
    lambda first, last: Schedule((*first, last)),
    st.lists(faults(IN_TURN, TIMES), max_size=4),
    faults(IN_TURN, st.none() | TIMES),
)


def sure() -> float:
    return 0.0


def played(text: str, times: int = 6, dice: float = 0.0, since_s: float = 0.0) -> list[str]:
    """What the first requests meet, "-" for a good answer."""
    found = (schedule(text).at(n, lambda: dice, since_s) for n in range(times))
    return [fault.name if fault else "-" for fault in found]


# ---------------------------------------------------------------- the table


def test_each_fault_becomes_a_class_of_errors_or_none_and_says_what_it_is():
    for name, kind in FAULTS.items():
        assert kind.becomes in ("", *CLASSES), name
        assert kind.words, name
        assert not kind.usual or kind.usual.startswith(f"{name}@"), name
        assert schedule(kind.usual or name).faults[0].kind is kind


@pytest.mark.parametrize("name", [name for name in FAULTS if name.isdecimal()])
def test_a_fault_that_is_a_number_is_that_status(name):
    assert FAULTS[name].status == int(name)


# ---------------------------------------------------------------- what is understood


@given(SCHEDULES)
def test_a_schedule_is_written_as_it_is_read(found):
    assert schedule(str(found)) == found


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("503", [Fault("503")]),
        ("429@2s*1", [Fault("429", 2.0, 1)]),
        ("429@0.5", [Fault("429", 0.5)]),
        (" 429 , 500*2,ok ", [Fault("429", None, 1), Fault("500", None, 2), Fault(OK)]),
        ("cut@40", [Fault("cut", 40.0)]),
        ("flaky@0.3*9", [Fault("flaky", 0.3, 9)]),
        ("small-window", [Fault(SMALL_WINDOW)]),
    ],
)
def test_words_are_faults_with_numbers_and_times_and_all_but_the_last_are_once_at_least(text, faults):
    assert list(schedule(text).faults) == faults


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "no fault ''", "one of 429, quota"),
        ("503,,ok", "no fault ''", "one of"),
        ("50x", "no fault '50x'", "did you mean 50"),
        ("Timeout", "no fault 'Timeout'", "did you mean timeout?"),
        ("slo@5", "no fault 'slo'", "did you mean slow?"),
        ("503*", "is not NAME, NAME@NUMBER or NAME*TIMES", "429@2s*1"),
        ("503*-1", "is not NAME", "429@2s*1"),
        ("429@x", "is not NAME", "429@2s*1"),
        ("429*1@2s", "is not NAME", "429@2s*1"),
        ("429@1e3", "is not NAME", "429@2s*1"),
        ("500@2", "500 takes no number", "write 500"),
        ("slow", "slow needs its seconds", "slow@5"),
        ("cut", "cut needs its events", "cut@5"),
        ("flaky", "flaky needs its probability", "flaky@0.5"),
        ("429@1.2.3", "no number of seconds", "for instance"),
        ("429@.", "no number of seconds", "for instance"),
        ("down@86401", "no number of seconds", "down@30"),
        ("cut@1.5", "no number of events", "cut@5"),
        ("cut@5s", "no number of events", "cut@5"),
        ("stall@10001", "no number of events", "stall@5"),
        ("flaky@0.0000001", "no number of probability", "flaky@0.5"),
        ("flaky@0", "no number of probability", "flaky@0.5"),
        ("flaky@1.1", "no number of probability", "flaky@0.5"),
        (f"slow@{'9' * 400}", "no number of seconds", "slow@5"),
        (f"cut@{'9' * 400}", "no number of events", "cut@5"),
        ("503*0", "cannot happen 0 times", "1 to 10000"),
        ("503*10001", "cannot happen 10001 times", "1 to 10000"),
        ("small-window*2", "cannot happen 2 times", "without a number"),
        ("small-window,ok", "a window does not change", "write it alone"),
        ("429*1,small-window", "a window does not change", "write it alone"),
        ("５03", "no fault", "did you mean 503?"),
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_fault_is_refused_with_what_was_meant(text, said, hint):
    with pytest.raises(UsageError) as caught:
        schedule(text)
    assert said in caught.value.message
    assert hint in caught.value.hint


@given(st.text(max_size=40) | st.text("0123456789.@*s,=-okcutflaky", max_size=20))
def test_whatever_is_written_is_a_schedule_or_a_usage_error(text):
    with suppress(UsageError):  # nothing else
        found = schedule(text)
        assert schedule(str(found)) == found


def test_an_injection_is_a_target_and_a_fault():
    assert injection("primary=503") == ("primary", schedule("503"))
    assert injection(" a=b = 429@2s*1,ok") == ("a=b", schedule("429@2s*1,ok"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("503", "not TARGET=FAULT"), ("=503", "not TARGET=FAULT"), ("", "not TARGET"), ("a=", "no fault")],
)
def test_an_injection_without_target_or_fault_is_refused(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        injection(text)
    assert caught.value.hint


# ---------------------------------------------------------------- what it does, request after request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("503", "503 503 503 503 503 503"),
        ("503*2", "503 503 - - - -"),
        ("429*1,500*2,ok", "429 500 500 - - -"),
        ("429,500", "429 500 500 500 500 500"),
        ("ok*2,reset", "- - reset reset reset reset"),
        ("429,ok*2,500*1", "429 - - 500 - -"),
        ("ok", "- - - - - -"),
    ],
)
def test_a_schedule_is_played_in_turn_and_ends_well_after_a_last_number(text, expected):
    assert " ".join(played(text)) == expected


def test_a_flaky_target_fails_with_its_probability():
    assert played("flaky@0.5", dice=0.49) == ["flaky"] * 6
    assert played("flaky@0.5", dice=0.5) == ["-"] * 6
    assert played("flaky@1", dice=0.999999) == ["flaky"] * 6
    assert played("flaky@0.5*2,429*1", dice=0.9) == ["-", "-", "429", "-", "-", "-"]


def test_a_target_that_is_down_is_so_from_its_first_request_for_so_long():
    assert played("down@30", since_s=29.9) == ["down"] * 6
    assert played("down@30", since_s=30.0) == ["-"] * 6


@given(SCHEDULES, st.integers(0, 60_000))
def test_a_fault_that_is_met_is_one_of_its_schedule_and_what_it_does_for_ever_is_its_last(found, n):
    met = found.at(n, sure)
    assert met is None or met in found.faults
    far = found.at(100_000, sure)
    if found.last is not None:
        assert far == found.last == found.faults[-1]
    else:
        assert far is None or far.name in ("flaky", "down")


def test_a_link_in_the_way_is_down_for_ever():
    assert str(DOWN) == "503"
    assert DOWN.last == Fault("503")
    assert {schedule(text).last for text in ("503*3", "ok", "flaky@0.5", "down@30")} == {None}
    assert (DOWN.shrinks_window, schedule(SMALL_WINDOW).shrinks_window) == (False, True)
