"""How a call ends that has no answer: the failure that tells it, and the exit code (rule 7 of `routing/call`).

Each function gives both, or the words of one; nothing else is decided here.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from llmctl.core.errors import MATRIX, DeadlineExceeded, NoCapacity, exit_of_chain
from llmctl.routing.demand import lasts_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.core.snapshot import DeploymentState

    End = tuple[LlmctlError, int]

LAST_DATE = 253_402_300_799.0  # 9999-12-31T23:59:59Z


def chain_failed(failures: Sequence[LlmctlError]) -> End:
    """The end of a chain of failures (not empty), told by the failure that its exit code stands for."""
    last = failures[-1]
    if last.rule.blame == "caller":
        return last, last.exit_code
    exit_code = exit_of_chain(failures[0], list(failures[1:]))
    return _told_by(failures, exit_code) or failures[0], exit_code


def broken(error: LlmctlError) -> End:
    """The end of an answer that broke while it was being shown: incomplete, unless it was refused for good."""
    return error, MATRIX["AnswerIncomplete"].exit if error.rule.may_succeed_later else error.exit_code


def crowded_out(name: str, until: float, now: float, demand: float) -> End:
    """The end of a call that an overload leaves no room for: not before that has faded is it worth coming back."""
    back = max(until, now + lasts_s(demand))
    what = (
        f"overload: {demand:.0%} of what the limits allow is asked of {name!r}, and smaller requests "
        f"come first; come back after {_date(back)} (in {ceil(back - now)} s)"
    )
    hint = "ask for less at once (a shorter prompt, a lower --max-tokens), or add a fallback"
    return NoCapacity(what, hint=hint, retry_after_s=round(back - now, 3)), MATRIX["NoCapacity"].exit


def no_start(
    until: float,
    now: float,
    why: str,
    option: str,
    failures: Sequence[LlmctlError],
    deployments: Sequence[Deployment],
) -> End:
    """The end of a call that cannot wait until `until`: told by a failure that may pass, where there is one.

    `why` says what keeps the first target out, `option` which one allows a longer wait.
    """
    when = _date(until)
    code = MATRIX["NoCapacity"].exit
    told = _told_by(failures, code)
    if told is not None:
        told.hint = f"{told.hint}{told.hint and '; '}the earliest next start is {when or 'never'}"
        return told, code
    if not when:
        what = f"the request is larger than any limit{_largest_limit(deployments)}: no target can ever start"
        hint = "shorten the prompt, lower --max-tokens, or raise the limit"
        return NoCapacity(what + _last_words(failures), hint=hint), code
    what = f"no target can start before {when} (in {ceil(until - now)} s): {why}{_last_words(failures)}"
    hint = f"allow a longer {option}, or add a fallback"
    return NoCapacity(what, hint=hint, retry_after_s=round(until - now, 3)), code


def out_of_time(total_s: float, failures: Sequence[LlmctlError]) -> End:
    """The end of a call whose deadline of `total_s` seconds has passed."""
    what = f"no whole answer within {total_s:g} s{_last_words(failures)}"
    error = DeadlineExceeded(what, hint="allow more time with --timeout")
    return error, error.exit_code


def obstacle(state: DeploymentState, until: float) -> str:
    """Why a target may not start until then, in words that follow its name."""
    if state.cooldown_until >= until:
        return " is cooling" + (f" after {state.why}" if state.why else "")
    return (
        " is being tried out by another call" if state.half_open and state.probed_until >= until else " is at its limit"
    )


def _told_by(failures: Sequence[LlmctlError], exit_code: int) -> LlmctlError | None:
    return next((error for error in reversed(failures) if error.exit_code == exit_code), None)


def _last_words(failures: Sequence[LlmctlError]) -> str:
    return f" (last: {failures[-1].message})" if failures else ""


def _date(instant: float) -> str:
    """The instant as an ISO date in UTC; "" for one that no calendar holds."""
    if instant > LAST_DATE:
        return ""
    from datetime import UTC, datetime  # only failures need them

    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _largest_limit(deployments: Sequence[Deployment]) -> str:
    """The most tokens that any of them declares to take at once, for a message; "" where none declares any."""
    meters = [(m, d) for d in deployments for m in ("tpm", "itpm") if getattr(d.limits, m) is not None]
    if not meters:
        return ""
    meter, largest = max(meters, key=lambda each: getattr(each[1].limits, each[0]))
    return f" (the largest is {meter} {getattr(largest.limits, meter):,} of {largest.served_by})"
