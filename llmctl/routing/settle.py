"""What an attempt leaves in the shared documents when it has ended: what it used, and what is learned from it.

Functions over the document of a quota (see `limits` and `health`) and of a group; nothing is decided here.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import ConnectionFailed
from llmctl.routing import health
from llmctl.routing.instants import SET_S
from llmctl.routing.limits import CONNECT_S, GUESS, HEADERS_S, LEASE_S, METERS, MINUTE_S, Cost, settled_cost
from llmctl.routing.words import learn

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.core.snapshot import Said
    from llmctl.routing.balance import Dice

FINEST_S = 1.0
_TOLD_S = 10.0
_MERGED_S = 0.15
_EXACT = 200
_LEARNS = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `heard` is when its headers came, None when none did; tokens are None when unknown.

    Not `reached` when nothing of it was ever sent. `latency_s` is the time to the whole answer.
    """

    sent: float
    ended: float
    heard: float | None = None
    reached: bool = True
    error: LlmctlError | None = None
    cancelled: bool = False
    first_token_s: float | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int | None = None
    said: tuple[Said, ...] = ()

    def as_of(self, now: float) -> Outcome:
        """The outcome by the clock as it is now: one that ended in the future, or long ago, was timed by another."""
        by_s = now - self.ended
        if -SET_S <= by_s <= _TOLD_S:
            return self
        heard = None if self.heard is None else self.heard + by_s
        return replace(self, sent=self.sent + by_s, ended=now, heard=heard)


def note_use(deployment: Deployment, quota: dict[str, Any], reserved: Cost, outcome: Outcome) -> None:
    """Put what it used into the windows, and keep what the provider said of its limits."""
    heard = outcome.heard if outcome.heard is not None else max(outcome.ended, outcome.sent + HEADERS_S)
    if outcome.reached:
        use = [outcome.sent, heard, *_used(deployment, reserved, outcome)]
        insort(quota.setdefault("uses", []), use, key=_heard)
    learn(deployment, quota, outcome.sent, heard, outcome.said)


def _used(deployment: Deployment, reserved: Cost, outcome: Outcome) -> Cost:
    error = outcome.error
    refused = error is not None and error.status is not None and 400 <= error.status < 500
    if refused or (outcome.heard is None and isinstance(error, ConnectionFailed)):
        return (1, 0, 0, 0)  # it counts as a request at some providers, and never as tokens
    if outcome.output_tokens is None or outcome.input_tokens is None:
        return reserved
    return settled_cost(deployment, reserved, outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens)


def note_failure(deployment: Deployment, quota: dict[str, Any], outcome: Outcome, tokens: int, dice: Dice) -> float:
    """Let the deployment rest as the matrix says; how long its whole credential rests instead, in seconds, else 0."""
    error, now = outcome.error, outcome.ended
    assert error is not None, "only a failure has failed"
    if error.kind == "RateLimited":
        health.refused(quota, error, now)
        _explain_refusal(deployment, quota, tokens)
    elif error.kind in health.COOLDOWN_S:
        rests_s = health.COOLDOWN_S[error.kind] if error.retry_after_s is None else error.retry_after_s
        if error.kind in health.OF_THE_CREDENTIAL:
            return rests_s
        health.rest(quota, now + rests_s, error.kind)
    elif error.rule.ejects:
        health.failed(quota, error, now, now - outcome.sent, dice)
    return 0.0


def _explain_refusal(deployment: Deployment, quota: dict[str, Any], tokens: int) -> None:
    """Learn from a refusal that nothing we knew explains.

    Where tokens are left, requests are counted over shorter spans than the provider says; where it says nothing of
    its limits, they are lower than declared, or somebody else uses them too.
    """
    said = quota.get("said", {})
    left = said.get("tpm", (0.0, None))[1]
    if "slice_s" in deployment.provider.dialect and left is not None and left > 1.2 * tokens:
        quota["slice"] = FINEST_S
    if not any(word in METERS for word in said):
        quota["share"] = min(0.6, quota.get("share", 0.0) + 0.05)


def note_answer(quota: dict[str, Any], group: dict[str, Any], outcome: Outcome, estimate: int) -> None:
    """Take in a whole answer: its speed, and how large prompt and answer really were. `estimate` is of the prompt."""
    health.answered(quota, outcome.sent, outcome.ended)
    quota["share"] = quota.get("share", 0.0) * 0.99
    if outcome.first_token_s is None or outcome.output_tokens is None:
        return
    prompt, output = outcome.input_tokens or estimate, outcome.output_tokens
    latency_s = outcome.latency_s or outcome.ended - outcome.sent
    health.measure(
        quota, outcome.ended, outcome.sent,
        prompt=prompt, output=output, first_token_s=outcome.first_token_s, latency_s=latency_s,
    )  # fmt: skip
    if estimate:
        real = max(0.2, min(5.0, prompt / estimate))
        mean, spread = quota.get("ratio", GUESS)
        quota["ratio"] = [mean + _LEARNS * (real - mean), spread + _LEARNS * (1.25 * abs(real - mean) - spread)]
    mean, spread = group.get("output", (output, output / 2))
    group["output"] = [mean + _LEARNS * (output - mean), spread + _LEARNS * (abs(output - mean) - spread)]


def tidy(quota: dict[str, Any], now: float) -> None:
    """Forget what no window holds any more, and put together what was heard at nearly the same time."""
    uses = [use for use in quota.get("uses", ()) if now - 2 * MINUTE_S < use[1] <= now + MINUTE_S]
    for key, row in list(quota.get("open", {}).items()):
        if row[1] <= now:
            del quota["open"][key]
            if not row[6]:  # its process died: it was sent no later than just after the lease was last renewed
                insort(uses, [row[0], row[1] - LEASE_S + CONNECT_S, *row[2:6]], key=_heard)
    quota["uses"] = _merged(uses) if len(uses) > _EXACT else uses


def _heard(use: list[float]) -> float:
    return use[1]


def _merged(uses: list[list[float]]) -> list[list[float]]:
    """Neighbours as one, which was heard when the last of them was: it frees no slot too early."""
    merged: list[list[float]] = []
    for use in uses:
        if merged and use[1] - merged[-1][1] < _MERGED_S:
            last = merged[-1]
            merged[-1] = [max(last[0], use[0]), use[1], *(a + b for a, b in zip(last[2:], use[2:], strict=True))]
        else:
            merged.append(use)
    return merged
