"""Whether a rehearsal was good: assertions, each with its reason. Nothing here is ever a silent pass.

Every scenario is held to the same: its faults fired, its calls ended as they should, within the bounds of any call, and
both sides tell the same story. Others are asked for (`lab/expectations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.lab.scenarios import schedules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmctl.core.record import Attempt
    from llmctl.lab.chain import End, Member
    from llmctl.lab.rehearsal import Rehearsal, Told
    from llmctl.run.faults import Sent

MOST_ATTEMPTS = 6
REFUSED = ("Unauthorized", "ModelNotFound", "QuotaExhausted")
"""What a real target that no fault strikes says every time: it is not there to fall back to."""
EARLY = 0.95
"""The share of a Retry-After that must have passed before the target is asked again."""


class Assertion(NamedTuple):
    """One thing that was checked; `detail` says what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rehearsal and what was found of it."""

    rehearsal: Rehearsal
    assertions: tuple[Assertion, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was checked holds."""
        return all(each.ok for each in self.assertions)

    @property
    def served_by(self) -> str | None:
        """`provider/model` of whoever answered the last call whole."""
        last = self.rehearsal.calls[-1].record if self.rehearsal.calls else None
        return last.served_by if last and last.state == "ok" else None

    @property
    def why(self) -> str:
        """What failed, in words; "" for a pass."""
        return "; ".join(f"{each.name}: {each.detail}" for each in self.assertions if not each.ok)

    def as_json(self) -> dict[str, Any]:
        """The scenario's row of `fallback drill --json` (contract, section 12)."""
        rehearsal = self.rehearsal
        return {
            "id": rehearsal.scenario.id,
            "model": rehearsal.chain.name,
            "faults": rehearsal.scenario.faults,
            "outcome": "pass" if self.ok else "fail",
            "served_by": self.served_by,
            "elapsed_ms": round(rehearsal.elapsed_s * 1000, 1),
            "attempts": [row for n, told in enumerate(rehearsal.calls, 1) for row in attempt_rows(n, told)],
            "assertions": [each._asdict() for each in self.assertions],
        }


def attempt_rows(call: int, told: Told) -> Iterator[dict[str, Any]]:
    """The attempts of call number `call`: as `ask --json` shows them, with when, after what wait, and which fault."""
    for attempt, sent in zip(told.attempts, told.sent, strict=True):
        waited_s = sum(pause.wait_s for pause in told.pauses if pause.before == attempt.n)
        yield {
            **attempt.as_json(),
            "call": call,
            "at_ms": round((attempt.started_at - told.record.started_at) * 1000, 1),
            "waited_ms": round(waited_s * 1000, 1),
            "fault": str(sent.fault._replace(times=None)) if sent and sent.fault else None,
        }


def judge(rehearsal: Rehearsal, more: Iterable[Assertion] = ()) -> Verdict:
    """The verdict: what every scenario is held to, its own checks, and `more`."""
    if rehearsal.error is not None:
        begun = Assertion("begins", False, f"no call could be made: {rehearsal.error.message}")
        return Verdict(rehearsal, (begun,))
    always = (_fired(rehearsal), _ends(rehearsal), _bounds(rehearsal), _whole(rehearsal), _both_sides(rehearsal))
    own = (check(rehearsal) for check in rehearsal.scenario.checks)
    return Verdict(rehearsal, (*always, *own, *more))


# ---------------------------------------------------------------- what every scenario is held to


def _fired(rehearsal: Rehearsal) -> Assertion:
    """Whether each injected fault struck somebody."""
    counts, missing = [], []
    for target, what in rehearsal.scenario.injections:
        members = rehearsal.chain.targets(target)
        ids = {member.deployment.id for member in members}
        if what.shrinks_window:
            able = any(member.obstacle is None for member in members)  # else nobody asks it anyway
            struck = able and not any(sent.deployment in ids for sent in rehearsal.sent)
            times = struck * len(rehearsal.calls)
        else:
            times = sum(sent.deployment in ids and sent.fault in what.faults for sent in rehearsal.sent)
        counts.append(f"{target}={what} {times} x")
        if not times:
            missing.append(f"{target}={what} never fired: {_why_unasked(rehearsal, members)}")
    return Assertion("fired", not missing, "; ".join(missing or counts))


def _why_unasked(rehearsal: Rehearsal, members: Iterable[Member]) -> str:
    obstacles = [member.obstacle.message for member in members if member.obstacle is not None]
    if obstacles:
        return f"it cannot be asked: {obstacles[0]}"
    ids = {member.deployment.id for member in members}
    met = [str(sent.fault or "none") for sent in rehearsal.sent if sent.deployment in ids]
    if met:
        return f"it was asked {len(met)} x, and met {', '.join(dict.fromkeys(met))}"
    asked = ", ".join(dict.fromkeys(each.deployment for told in rehearsal.calls for each in told.attempts))
    return f"asked was only {asked or 'nobody'}"


def _ends(rehearsal: Rehearsal) -> Assertion:
    """Whether each call ended as the error table says or, where nothing is said, in a whole answer."""
    end, name = rehearsal.scenario.end, "answered" if rehearsal.scenario.end is None else "end"
    for told in rehearsal.calls:
        wrong = _wrong_end(rehearsal, told, end)
        if wrong:
            return Assertion(name, False, wrong)
    last = rehearsal.calls[-1]
    served = last.record.state == "ok"
    return Assertion(name, True, f"served by {last.record.served_by}" if served else _failure(last))


def _wrong_end(rehearsal: Rehearsal, told: Told, end: End | None) -> str:
    """What is wrong with how the call ended; "" for nothing. A real refusal is, whoever answers after it."""
    state, served = told.record.state, told.record.deployment
    met = zip(told.attempts, told.sent, strict=True)
    refused = next((a for a, sent in met if sent and sent.real and a.outcome in REFUSED), None)
    if refused is not None and state == "ok":
        return f"attempt {refused.n} at {refused.deployment} met no fault: {refused.outcome}: {refused.error}"
    if end is None:
        return "" if state == "ok" else f"nobody answered: {_failure(told)}{_left_out(rehearsal)}"
    if state == "ok":
        if served in end.served:
            return ""
        wanted = " or ".join(sorted(end.served)) or f"{end.error}, exit {end.exit}"
        return f"served by {served} instead of {wanted}"
    if not end.error:
        return f"{' or '.join(sorted(end.served))} should have answered: {_failure(told)}{_left_out(rehearsal)}"
    kinds = {attempt.outcome for attempt in told.attempts}
    if told.record.exit_code != end.exit or (told.attempts and end.error not in kinds):
        wanted = f"an error of class {end.error} and exit {end.exit} was expected"
        return f"{wanted}: {_failure(told)}"
    return ""


def _failure(told: Told) -> str:
    """The attempt that failed last, and the error that the call ended in."""
    error = told.error
    if error is None:
        return f"the answer of {told.record.deployment} ended by {told.record.finish_reason}"
    failed = next((each for each in reversed(told.attempts) if each.outcome != "ok"), None)
    if failed is None:
        return f"{error.kind}: {error.message}"
    status = f" (HTTP {failed.status})" if failed.status else ""
    ended = f"; the call ended in {error.kind}, exit {told.record.exit_code}"
    return f"attempt {failed.n} at {failed.deployment}: {failed.outcome}{status}: {failed.error}{ended}"


def _left_out(rehearsal: Rehearsal) -> str:
    """Who of the chain could not be asked, and why, as the end of a sentence."""
    out = [f"{m.deployment.id} cannot be asked: {m.obstacle.message}" for m in rehearsal.chain.members if m.obstacle]
    what = schedules(rehearsal.chain, rehearsal.scenario)
    out += [f"{name} is left out: its window is too small" for name, each in what.items() if each.shrinks_window]
    return "".join(f"; {each}" for each in out)


def _bounds(rehearsal: Rehearsal) -> Assertion:
    """Whether no call made too many attempts, slept after its last one, or came back before it was asked to."""
    for told in rehearsal.calls:
        if len(told.attempts) > MOST_ATTEMPTS:
            return Assertion("bounds", False, f"{len(told.attempts)} attempts for one call")
        if any(pause.before > len(told.attempts) for pause in told.pauses):
            return Assertion("bounds", False, f"a wait after attempt {len(told.attempts)}, the last")
        early = next(_too_early(told), "")
        if early:
            return Assertion("bounds", False, early)
    most = max(len(told.attempts) for told in rehearsal.calls)
    return Assertion("bounds", True, f"{most} attempt{'s' * (most != 1)}, none too early, no wait in vain")


def _too_early(told: Told) -> Iterator[str]:
    """Attempts at a target that had asked for a longer pause."""
    back: dict[str, float] = {}
    for attempt in told.attempts:
        ready = back.get(attempt.deployment, 0.0)
        if attempt.started_at < ready:
            yield f"attempt {attempt.n} at {attempt.deployment} came {ready - attempt.started_at:.2f} s too early"
        if attempt.retry_after_s and attempt.latency_ms is not None:
            heard = attempt.started_at + attempt.latency_ms / 1000
            back[attempt.deployment] = heard + EARLY * attempt.retry_after_s


def _whole(rehearsal: Rehearsal) -> Assertion:
    """Whether what counts as an answer is one: of a stand-in exactly what was scripted, and never a truncated one."""
    for told in rehearsal.calls:
        for text in (told.text, told.shown) if told.record.state == "ok" else ():
            if not text.strip():
                return Assertion("whole", False, "an empty answer counts as one")
            if (told.stood_in or not rehearsal.live) and text != rehearsal.scripted:
                many = f"{len(text)} characters of {len(rehearsal.scripted)}"
                return Assertion("whole", False, f"an answer of {many} counts as whole")
    return Assertion("whole", True, "what counts as an answer is whole")


def _both_sides(rehearsal: Rehearsal) -> Assertion:
    """Whether the ledger's attempts are what was really sent: as many, and failed by what was injected."""
    for told in rehearsal.calls:
        for attempt, sent in zip(told.attempts, told.sent, strict=True):
            wrong = _untrue(attempt, sent, rehearsal.live) if sent else ""
            if wrong:
                return Assertion("ledger", False, wrong)
    noted = sum(sent is not None for told in rehearsal.calls for sent in told.sent)
    if noted != len(rehearsal.sent):
        return Assertion("ledger", False, f"{len(rehearsal.sent)} requests were sent, {noted} are noted")
    return Assertion("ledger", True, f"{noted} requests sent, each noted as what it was")


def _untrue(attempt: Attempt, sent: Sent, live: bool) -> str:
    """How the attempt is not what was sent; "" where it is. What a real provider answered, nobody here knows."""
    what = f"attempt {attempt.n} at {attempt.deployment}"
    if sent.deployment != attempt.deployment:
        return f"{what} was sent to {sent.deployment}"
    becomes = sent.fault.kind.becomes if sent.fault else "" if live else "ok"
    if becomes and attempt.outcome not in (becomes, "DeadlineExceeded", "Cancelled"):
        met = sent.fault.name if sent.fault else "a good answer"
        return f"{what}: {met} was noted as {attempt.outcome}, not {becomes}"
    return ""
