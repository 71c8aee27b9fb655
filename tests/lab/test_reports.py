"""What a drill tells others: paths, timelines, a JUnit file that readers take, a summary that nothing breaks out of."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core.errors import Unavailable
from llmctl.core.faults import Fault
from llmctl.core.record import Attempt, CallRecord
from llmctl.lab.chain import Chain
from llmctl.lab.drill import Drill
from llmctl.lab.rehearsal import Paused, Rehearsal, Told
from llmctl.lab.reports import MOST_ROWS, Played, junit, path_of, summary, tally, timeline
from llmctl.lab.scenarios import Scenario
from llmctl.lab.verdict import Assertion, Verdict
from llmctl.run.faults import Sent

DOWN = Sent("fast-1", Fault("503"), 100.0)
NASTY = "\x1b[31m]]>\x00|`<b>&\r\n\x9b1m\u202e\ud800\ufffe![x](y)"
ANYTHING = st.text(st.characters(exclude_categories=()))


def attempt(n: int, deployment: str, outcome: str, *, at_s: float = 0.0, status: int | None = 200, error: str = ""):
    return Attempt(n, deployment, "p", "m", "primary", outcome, 100 + at_s, status, None, 20.0, error=error or None)


def told(*attempts: Attempt, at_s: float = 0.0, pauses: tuple[Paused, ...] = (), why: str = "") -> Told:
    ok = attempts[-1].outcome == "ok"
    served = {"served_by": "p/m", "deployment": attempts[-1].deployment} if ok else {"exit_code": 6}
    record = CallRecord("id", 100.0, "fallback drill", "fast", "ok" if ok else "failed", latency_ms=400.0, **served)
    sent = tuple(DOWN if each.outcome != "ok" else None for each in attempts)
    return Told(at_s, record, attempts, sent, pauses, None if ok else Unavailable(why), None)


def verdict(name: str = "primary=503", *calls: Told, why: str = "", model: str = "fast") -> Verdict:
    rehearsal = Rehearsal(Scenario(name, ()), Chain(model, ()), "hi", live=False, calls=calls, elapsed_s=1.25)
    return Verdict(rehearsal, (Assertion("ends", not why, why),))


SURVIVED = told(
    attempt(1, "fast-1", "Unavailable", status=503, error="p/m: HTTP 503:\n overloaded"),
    attempt(2, "fast-1", "Unavailable", at_s=0.3, status=503),
    attempt(3, "cheap-1", "ok", at_s=0.35),
    pauses=(Paused(0.05, 0.25, "p/m: Unavailable", 2),),
)
BROKEN = told(attempt(1, "fast-1", "BadResponse"), at_s=2.0, why="no JSON")


def test_a_path_names_whom_and_what_came_and_counts_what_repeats():
    assert path_of(verdict("x", SURVIVED).rehearsal) == "fast-1 503 x2 > cheap-1 ok"
    assert path_of(verdict("x", SURVIVED, BROKEN, BROKEN).rehearsal) == (
        "fast-1 503 x2 > cheap-1 ok; 2 times (fast-1 BadResponse)"
    )
    assert path_of(verdict("x").rehearsal) == ""


def test_a_timeline_is_in_order_and_says_attempts_waits_and_the_end():
    lines = timeline(verdict("x", SURVIVED, BROKEN).rehearsal)
    assert lines == [
        "    0.00 s  call 1",
        "    0.00 s  attempt 1  fast-1 (p/m)  503 Unavailable  20 ms  injected: 503",
        "    0.05 s  wait 0.25 s  p/m: Unavailable",
        "    0.30 s  attempt 2  fast-1 (p/m)  503 Unavailable  20 ms  injected: 503",
        "    0.35 s  attempt 3  cheap-1 (p/m)  ok  20 ms",
        "    0.40 s  served by cheap-1 (p/m), exit 0",
        "    2.00 s  call 2",
        "    2.00 s  attempt 1  fast-1 (p/m)  200 BadResponse  20 ms  injected: 503",
        "    2.40 s  Unavailable: no JSON, exit 6",
    ]
    assert len(timeline(verdict("x", SURVIVED).rehearsal)) == 5


def test_a_junit_reader_finds_each_drill_each_scenario_and_why_it_failed():
    drills = [Drill("fast", live=True, speed=2.5, seed=7), Drill("slow", live=False)]
    one = Played("ci", drills[0], [verdict("a", SURVIVED), verdict("b", BROKEN, why="nobody answered")])
    read = junitparser.JUnitXml.fromstring(junit([one, Played("", drills[1], [verdict("c", SURVIVED, model="slow")])]))
    assert (read.tests, read.failures, read.errors, read.skipped, read.time) == (3, 1, 0, 0, 3.75)
    first, second = read
    assert (first.name, first.tests, first.failures, second.name, second.failures) == ("ci", 2, 1, "slow", 0)
    assert {each.name: each.value for each in first.properties()} == {"mode": "live", "speed": "2.5", "seed": "7"}
    good, bad = first
    assert (good.classname, good.name, good.time, good.is_passed) == ("fast", "a", 1.25, True)
    (failure,) = bad.result
    assert (failure.message, failure.type) == ("ends: nobody answered", "drill")
    assert failure.text.splitlines()[0] == "ends: nobody answered"
    assert "attempt 1  fast-1 (p/m)  200 BadResponse" in failure.text


@given(ANYTHING, ANYTHING)
@example(NASTY, NASTY)
def test_no_text_breaks_the_junit_file_or_drives_a_terminal_that_shows_it(name, error):
    call = told(attempt(1, name, "BadResponse", error=error), why=error)
    data = junit([Played(name, Drill(name, live=False), [verdict(name, call, why=error or "x", model=name)])])
    (suite,) = junitparser.JUnitXml.fromstring(data)
    (case,) = suite
    assert case.result
    assert ET.fromstring(data).find("testsuite/testcase/failure") is not None
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", data.decode())


@given(ANYTHING, ANYTHING)
@example(NASTY, NASTY)
def test_no_text_breaks_out_of_its_cell_of_the_summary(name, error):
    call = told(attempt(1, name, "BadResponse", error=error), why=error)
    text = summary([Played("", Drill("fast", live=False), [verdict(name, call, why=error or "x", model=name)])])
    text.encode()
    heading, *table, last = text[:-1].split("\n")
    assert (heading, last, len(table)) == ("### Fallback drill: 0 passed, 1 failed", "", 4)
    assert [line.count("|") for line in table[1:]] == [8, 8, 8]
    assert not re.search(r"[<>`*_\[\]!\\~\x00-\x1f\x7f-\x9f\u202e]", table[-1])


@pytest.mark.parametrize(("many", "more"), [(MOST_ROWS, []), (MOST_ROWS + 3, ["and 3 more"])])
def test_a_summary_shows_the_failed_ones_first_and_is_not_endless(many, more):
    verdicts = [verdict(f"good-{n}", SURVIVED) for n in range(many - 1)] + [verdict("bad", BROKEN, why="down")]
    lines = summary([Played("", Drill("fast", live=False), verdicts)]).rstrip("\n").split("\n")
    assert lines[0] == f"### Fallback drill: {many - 1} passed, 1 failed"
    assert lines[4] == "| bad | fast | FAIL | - | 1 | 1.25 | ends: down (fast-1 BadResponse) |"
    assert lines[5] == "| good-0 | fast | pass | p/m | 3 | 1.25 | fast-1 503 x2 &gt; cheap-1 ok |".replace(
        "&gt;", "&#62;"
    )
    assert [line for line in lines[4 + MOST_ROWS :] if line] == more
    assert tally(verdicts) == f"{many - 1} passed, 1 failed"


def test_the_longest_summary_fits_into_what_a_step_may_say():
    long = "|" * 10_000
    call = told(attempt(1, long, "BadResponse", error=long), why=long)
    text = summary([Played("", Drill("x", live=False), [verdict(long, call, why=long, model=long)] * 500)])
    assert len(text.encode()) < 1 << 20
