"""A verdict is never a silent pass: each thing that every scenario is held to fails when it alone is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.client import Client
from llmctl.core.errors import BudgetExceeded, MissingCredential, Unavailable
from llmctl.core.faults import FAULTS, Fault
from llmctl.core.record import Answer, Attempt, CallRecord
from llmctl.core.types import Completion
from llmctl.lab.chain import End, Member, read_chain
from llmctl.lab.rehearsal import Paused, Rehearsal, Told
from llmctl.lab.scenarios import injected
from llmctl.lab.verdict import MOST_ATTEMPTS, Assertion, Verdict, judge
from llmctl.run.faults import Sent
from llmctl.testing import MemoryLedger

MODELS = {"a": {"model": "openai/gpt-4o", "fallbacks": ["b"]}, "b": {"model": "anthropic/claude-x"}}
CHAIN = read_chain(Client({"models": MODELS}, environ={}, ledger=MemoryLedger()).catalog, "a", lambda _: None)
SAID = "all sixty words"
BEGAN = 1_800_000_000.0
DOWN = Fault("503")
SERVED_BY_B = End(frozenset({"b-1"}))


def attempt(n: int, at_s: float, deployment: str = "a-1", outcome: str = "Unavailable", **more: Any) -> Attempt:
    provider, model = ("openai", "gpt-4o") if deployment == "a-1" else ("anthropic", "claude-x")
    words = {} if outcome == "ok" else {"status": 503, "error": "it is down"}
    row = {"role": "primary" if n == 1 else "fallback", "latency_ms": 100.0, **words, **more}
    return Attempt(n, deployment, provider, model, outcome=outcome, started_at=BEGAN + at_s, **row)


def sent(attempts: tuple[Attempt, ...], fault: Fault | None = DOWN) -> tuple[Sent, ...]:
    """What was sent in them: those at the primary met `fault`."""
    return tuple(Sent(a.deployment, fault if a.deployment == "a-1" else None, a.started_at + 0.01) for a in attempts)


def answered(attempts: tuple[Attempt, ...], text: str = SAID, fault: Fault | None = DOWN, **record: Any) -> Told:
    """A call that the last of these attempts answered."""
    last = attempts[-1]
    row = CallRecord("01J", BEGAN, "fallback drill", "a", "ok", served_by=f"{last.provider}/{last.model}")
    row = replace(row, deployment=last.deployment, exit_code=0, drill=True, **record)
    return Told(0.0, row, attempts, sent(attempts, fault), (), None, Answer(row, Completion(text), attempts), text)


def failed(attempts: tuple[Attempt, ...], kind: str = "Unavailable", code: int = 6) -> Told:
    """A call that ended in an error."""
    row = CallRecord("01J", BEGAN, "fallback drill", "a", "failed", error=kind, exit_code=code, drill=True)
    return Told(0.0, row, attempts, sent(attempts), (), Unavailable("it is down"), None)


def rehearsal(told: Told, *inject: str, end: End | None = SERVED_BY_B, **more: Any) -> Rehearsal:
    scenario = injected(inject or ("primary=503",))._replace(end=end)
    seen = tuple(each for each in told.sent if each is not None)
    seen_by = {"live": False, "calls": (told,), "sent": seen, "scripted": SAID, **more}
    return Rehearsal(scenario, **{"chain": CHAIN, "prompt": "hi", **seen_by})


GOOD = answered((attempt(1, 0), attempt(2, 1), attempt(3, 2, "b-1", "ok")))


def broken(verdict: Verdict) -> dict[str, str]:
    """The assertions that do not hold."""
    return {each.name: each.detail for each in verdict.assertions if not each.ok}


def test_a_good_rehearsal_passes_and_says_what_was_found() -> None:
    verdict = judge(rehearsal(GOOD))
    assert (verdict.ok, verdict.why, verdict.served_by) == (True, "", "anthropic/claude-x")
    assert {each.name: each.detail for each in verdict.assertions} == {
        "fired": "primary=503 2 x",
        "end": "served by anthropic/claude-x",
        "bounds": "3 attempts, none too early, no wait in vain",
        "whole": "what counts as an answer is whole",
        "ledger": "3 requests sent, each noted as what it was",
    }


# ---------------------------------------------------------------- one thing broken


def test_a_fault_that_struck_nobody_fails() -> None:
    nobody = answered((attempt(1, 0, "a-1", "ok"),), fault=None)
    (name, detail), *_ = broken(judge(rehearsal(nobody, end=None))).items()
    assert (name, detail) == ("fired", "primary=503 never fired: it was asked 1 x, and met none")
    for inject, why in {"primary=401": "never fired: it was asked 2 x, and met 503", "2=503": "met none"}.items():
        assert why in broken(judge(rehearsal(GOOD, inject)))["fired"]


def test_a_fault_that_nobody_came_to_or_could_come_to_says_which() -> None:
    alone = answered((attempt(1, 0, "a-1", "ok"),), fault=None)
    why = broken(judge(rehearsal(alone, "2=503", end=None)))["fired"]
    assert why == "2=503 never fired: asked was only a-1"
    members = (CHAIN.members[0], Member(*CHAIN.members[1][:3], MissingCredential("no key for Anthropic")))
    lame = rehearsal(alone, "2=503", end=None, chain=replace(CHAIN, members=members))
    assert broken(judge(lame))["fired"] == "2=503 never fired: it cannot be asked: no key for Anthropic"


def test_a_small_window_that_was_asked_all_the_same_fails() -> None:
    assert "fired" in broken(judge(rehearsal(GOOD, "primary=small-window")))
    without = answered((attempt(1, 0, "b-1", "ok"),))
    assert judge(rehearsal(without, "primary=small-window")).ok
    keyless = CHAIN.members[0]._replace(obstacle=MissingCredential("no key for OpenAI"))
    never = rehearsal(without, "primary=small-window", chain=replace(CHAIN, members=(keyless, CHAIN.members[1])))
    assert "cannot be asked: no key for OpenAI" in broken(judge(never))["fired"]


@pytest.mark.parametrize(
    ("told", "end", "why"),
    [
        (GOOD, End(frozenset({"a-1"})), "served by b-1 instead of a-1"),
        (GOOD, End(error="ContextExceeded", exit=5), "served by b-1 instead of ContextExceeded, exit 5"),
        (failed((attempt(1, 0),)), SERVED_BY_B, "b-1 should have answered: attempt 1 at a-1: Unavailable (HTTP 503)"),
        (failed((attempt(1, 0),)), None, "nobody answered: attempt 1 at a-1: Unavailable (HTTP 503): it is down"),
        (failed((attempt(1, 0),), code=4), End(error="Unavailable", exit=6), "class Unavailable and exit 6 was exp"),
        (failed((attempt(1, 0),)), End(error="TimedOut", exit=6), "an error of class TimedOut and exit 6 was expected"),
    ],
)
def test_another_end_than_the_table_says_fails(told: Told, end: End | None, why: str) -> None:
    wrong = broken(judge(rehearsal(told, end=end)))
    assert why in wrong["answered" if end is None else "end"]


def test_one_bad_end_among_several_good_ones_fails() -> None:
    bad = failed((attempt(1, 0),))
    calls = (bad, GOOD)
    both = tuple(each for told in calls for each in told.sent if each)
    verdict = judge(rehearsal(GOOD, calls=calls, sent=both))
    assert list(broken(verdict)) == ["end"]
    assert (verdict.ok, verdict.served_by) == (False, "anthropic/claude-x")


def test_an_answer_that_is_incomplete_is_no_answer() -> None:
    cut = replace(GOOD, record=replace(GOOD.record, state="incomplete", exit_code=8, finish_reason="length"))
    why = "nobody answered: the answer of b-1 ended by length"
    assert broken(judge(rehearsal(cut, end=None))) == {"answered": why}, "and it is no attempt before it that is named"
    assert judge(rehearsal(cut, end=None)).served_by is None


@pytest.mark.parametrize(("outcome", "ok"), [("Unauthorized", False), ("ModelNotFound", False), ("Unavailable", True)])
def test_a_real_target_that_refuses_fails_the_drill_whoever_answers_then(outcome: str, ok: bool) -> None:
    told = answered((attempt(1, 0), attempt(2, 1, "a-1", outcome), attempt(3, 2, "b-1", "ok")))
    faults = (DOWN, None, None)
    told = replace(
        told,
        sent=tuple(Sent(a.deployment, f, a.started_at, real=not f) for a, f in zip(told.attempts, faults, strict=True)),
    )
    verdict = judge(rehearsal(told, live=True))
    assert verdict.ok is ok
    assert ok or f"attempt 2 at a-1 met no fault: {outcome}" in broken(verdict)["end"]


def test_an_attempt_too_many_fails() -> None:
    many = (*(attempt(n, n) for n in range(1, MOST_ATTEMPTS + 1)), attempt(MOST_ATTEMPTS + 1, 9, "b-1", "ok"))
    assert broken(judge(rehearsal(answered(many)))) == {"bounds": "7 attempts for one call"}
    assert judge(rehearsal(answered(many[1:]))).ok


def test_a_pause_after_the_last_attempt_fails() -> None:
    between, after = Paused(0.1, 0.5, "backoff", 2), Paused(2.2, 0.5, "backoff", 4)
    assert judge(rehearsal(replace(GOOD, pauses=(between,)))).ok
    wrong = broken(judge(rehearsal(replace(GOOD, pauses=(between, after)))))
    assert wrong == {"bounds": "a wait after attempt 3, the last"}


@pytest.mark.parametrize(("gap_s", "early"), [(1.0, True), (1.89, True), (1.91, False), (2.5, False)])
def test_an_attempt_before_its_retry_after_fails(gap_s: float, early: bool) -> None:
    limited = attempt(1, 0, outcome="RateLimited", retry_after_s=2.0, latency_ms=0.0, status=429)
    told = answered((limited, attempt(2, gap_s, "a-1", "ok")), fault=Fault("429", 2.0))
    told = replace(told, sent=(told.sent[0], replace_fault(told.sent[1])))
    wrong = broken(judge(rehearsal(told, "primary=429@2s*1,ok", end=None, sent=told.sent)))
    assert ("bounds" in wrong) == early
    assert not early or "attempt 2 at a-1 came" in wrong["bounds"]


def replace_fault(each: Sent | None) -> Sent:
    """A request that met no fault."""
    assert each is not None
    return Sent(each.deployment, None, each.at)


def test_another_target_need_not_wait_for_it() -> None:
    limited = attempt(1, 0, outcome="RateLimited", retry_after_s=20.0)
    told = answered((limited, attempt(2, 1, "b-1", "ok")), fault=Fault("429", 20.0))
    assert judge(rehearsal(told, "primary=429@20s")).ok


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SAID[:8], "an answer of 8 characters of 15 counts as whole"),
        (SAID + SAID, "an answer of 30 characters of 15 counts as whole"),
        (" \n", "an empty answer counts as one"),
    ],
)
def test_truncated_text_that_counts_as_whole_fails(text: str, why: str) -> None:
    told = answered(GOOD.attempts, text)
    assert broken(judge(rehearsal(told))) == {"whole": why}
    assert broken(judge(rehearsal(replace(told, shown=SAID)))) == {"whole": why}
    assert broken(judge(rehearsal(replace(GOOD, shown=text)))) == {"whole": why}, "what came out of the call counts too"
    real = replace(told, sent=(*told.sent[:-1], replace(told.sent[-1], real=True)))  # type: ignore[type-var]
    assert judge(rehearsal(real, live=True)).ok == bool(text.strip()), "live, nobody knows what is said"
    assert broken(judge(rehearsal(told, live=True))) == {"whole": why}, "of a stand-in it is known live, too"


def test_an_attempt_noted_as_another_class_than_its_fault_becomes_fails() -> None:
    for name, kind in FAULTS.items():
        told = answered((attempt(1, 0, outcome="ModelNotFound"), GOOD.attempts[-1]), fault=Fault(name))
        wrong = broken(judge(rehearsal(told, f"primary={kind.usual or name}")))
        lies = bool(kind.becomes) and kind.becomes != "ModelNotFound"
        assert ("ledger" in wrong) == lies
        assert not lies or wrong["ledger"] == f"attempt 1 at a-1: {name} was noted as ModelNotFound, not {kind.becomes}"


@pytest.mark.parametrize("outcome", ["DeadlineExceeded", "Cancelled"])
def test_an_attempt_whose_time_was_over_before_its_fault_was_told_is_no_lie(outcome: str) -> None:
    told = answered((attempt(1, 0, outcome=outcome), GOOD.attempts[-1]), fault=Fault("503"))
    assert "ledger" not in broken(judge(rehearsal(told)))


def test_a_request_that_was_sent_and_not_noted_fails() -> None:
    seen = tuple(each for each in GOOD.sent if each)
    twice = rehearsal(GOOD, sent=(*seen, seen[0]))
    assert broken(judge(twice)) == {"ledger": "4 requests were sent, 3 are noted"}
    unsent = replace(GOOD, sent=(None, *GOOD.sent[1:]))
    assert broken(judge(rehearsal(unsent, sent=seen))) == {"ledger": "3 requests were sent, 2 are noted"}


def test_a_good_answer_that_is_noted_as_a_failure_fails_offline() -> None:
    told = answered((attempt(1, 0), attempt(2, 1, outcome="BadResponse"), GOOD.attempts[-1]))
    first, second, third = told.sent
    told = replace(told, sent=(first, replace_fault(second), third))
    wrong = broken(judge(rehearsal(told)))
    assert wrong == {"ledger": "attempt 2 at a-1: a good answer was noted as BadResponse, not ok"}
    assert judge(rehearsal(told, live=True)).ok


def test_an_attempt_noted_at_another_target_than_was_asked_fails() -> None:
    first, *others = GOOD.sent
    assert first is not None
    elsewhere = replace(GOOD, sent=(Sent("b-1", first.fault, first.at), *others))
    assert "ledger" in broken(judge(rehearsal(elsewhere)))


def test_a_call_that_could_not_begin_and_what_is_asked_besides_fail() -> None:
    unplayed = Rehearsal(injected(["primary=503"]), CHAIN, "hi", live=True, error=BudgetExceeded("too dear"))
    assert judge(unplayed, [Assertion("path", True, "")]).why == "begins: no call could be made: too dear"
    no = Assertion("path", False, "it was a, not b")
    assert judge(rehearsal(GOOD), [no]).why == "path: it was a, not b"
    checked = rehearsal(GOOD)
    own = checked.scenario._replace(checks=(lambda found: Assertion("own", False, found.prompt),))
    assert judge(replace(checked, scenario=own)).why == "own: hi"


# ---------------------------------------------------------------- as a document


def test_a_row_has_what_the_contract_says_and_each_attempt_its_time_its_wait_and_its_fault() -> None:
    told = replace(GOOD, pauses=(Paused(0.2, 0.5, "backoff", 2), Paused(0.7, 0.25, "limits", 2)))
    row = judge(rehearsal(told, elapsed_s=2.5)).as_json()
    assert set(row) == {
        "id", "model", "faults", "outcome", "served_by", "elapsed_ms", "attempts", "assertions"
    }  # fmt: skip
    assert (row["id"], row["model"], row["outcome"], row["elapsed_ms"]) == ("primary=503", "a", "pass", 2500.0)
    assert (row["faults"], row["served_by"]) == (["primary=503"], "anthropic/claude-x")
    assert [(each["at_ms"], each["waited_ms"], each["fault"]) for each in row["attempts"]] == [
        (0.0, 0.0, "503"),
        (1000.0, 750.0, "503"),
        (2000.0, 0.0, None),
    ]
    assert {"n", "deployment", "outcome", "status", "error", "cost_usd", "call"} <= set(row["attempts"][0])
    assert set(row["assertions"][0]) == {"name", "ok", "detail"}
    bad = judge(rehearsal(failed((attempt(1, 0),)))).as_json()
    assert (bad["outcome"], bad["served_by"]) == ("fail", None)
