"""How a deployment fares: failures, ejection, recovery, cooldowns and speed, kept in the document of its quota.

`fails`, `failed_at`, `recent` [[at, 1 or 0], ...]; `cool` the end of a cooldown and `why`; `ejections` in a row;
`blocked` the end of a refusal for throughput; `back` when it came back; `probe` until when somebody tries it out;
`speed` [first_token_s, per_token_s, measured_at, asked_at]; `samples` [[at, seconds], ...] the last ten. Instants are
Unix seconds. Nothing here chooses: see `balance`.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Any

from llmctl.core.snapshot import RETRY_BUDGET_FULL
from llmctl.routing import demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmctl.core.errors import LlmctlError

IN_A_ROW = 3
IN_A_ROW_S = 60.0
LAST = 20
EJECTION_S, EJECTION_CAP_S, EJECTION_JITTER = 10.0, 300.0, 0.2
QUICK_S, QUICK_CAP_S = 1.0, 20.0
"""A deployment that fails at once costs whoever tries it next to nothing, so it is tried again this often at least."""
COOLDOWN_S = {"QuotaExhausted": 600.0, "Unauthorized": 300.0, "ModelNotFound": 600.0}
"""How long a deployment rests when the provider says nothing: for some, all that uses the credential."""
OF_THE_CREDENTIAL = ("QuotaExhausted", "Unauthorized")
THROTTLED_S = 10.0
PROBE_S = 15.0
FAR = (0.4, 2.5)
PREFILL_TOKENS_PER_S = 8000.0
PRIOR = (1.0, 0.02)
SAMPLES = 10
_TROUBLE = ("fails", "failed_at", "recent", "cool", "why", "ejections", "blocked", "back", "probe", "retries", "demand")
_KEPT = ("open", "at")
_SPEED_BOUNDS = (1e-4, 3600.0)


def is_out(quota: dict[str, Any], now: float) -> bool:
    """Whether it is ejected, or cooling for another reason."""
    return bool(quota.get("cool", 0.0) > now)


def is_half_open(quota: dict[str, Any], now: float) -> bool:
    """Whether its ejection has ended, and nobody has had an answer since."""
    return bool(quota.get("ejections")) and not is_out(quota, now)


def rest(quota: dict[str, Any], until: float, why: str) -> None:
    """Cool it until then; the longest deadline wins."""
    if until > quota.get("cool", 0.0):
        quota["cool"], quota["why"] = until, why


def failed(quota: dict[str, Any], error: LlmctlError, now: float, took_s: float, dice: Callable[[], float]) -> None:
    """Take in a failure of the kinds that eject (the matrix of `core/errors`)."""
    half_open = is_half_open(quota, now)
    in_a_row = quota.get("fails", 0) if now - quota.get("failed_at", 0.0) <= IN_A_ROW_S else 0
    quota["fails"], quota["failed_at"] = in_a_row + 1, now
    quota.pop("probe", None)
    _note(quota, now, ok=False)
    lately = [ok for at, ok in quota["recent"] if at > now - IN_A_ROW_S]
    if is_out(quota, now):
        return  # it was under way when the others failed: no news
    if half_open or in_a_row + 1 >= IN_A_ROW or lately.count(0) * 2 >= LAST:
        k = quota.get("ejections", 0)
        cap = QUICK_CAP_S if took_s < QUICK_S else EJECTION_CAP_S
        span = min(cap, EJECTION_S * 2.0 ** min(k, 10)) * (1 + EJECTION_JITTER * (2 * dice() - 1))
        quota["ejections"] = k + 1
        rest(quota, now + span, error.kind)


def refused(quota: dict[str, Any], error: LlmctlError, now: float) -> None:
    """Take in a refusal for throughput."""
    wait_s = THROTTLED_S if error.retry_after_s is None else error.retry_after_s
    quota["blocked"] = max(quota.get("blocked", 0.0), now + wait_s)
    quota.pop("probe", None)


def answered(quota: dict[str, Any], sent: float, now: float) -> None:
    """Take in a whole answer: it ends an ejection, unless it was asked for before the failure that caused it."""
    _note(quota, now, ok=True)
    if sent < quota.get("failed_at", 0.0) and is_out(quota, now):
        return
    if quota.get("ejections"):
        quota["back"] = now
    for key in ("fails", "ejections", "cool", "why", "probe"):
        quota.pop(key, None)


def _note(quota: dict[str, Any], now: float, *, ok: bool) -> None:
    quota["recent"] = [*quota.get("recent", ())[1 - LAST :], [round(now, 3), int(ok)]]


def clear(document: dict[str, Any], now: float, *, measured: bool = False) -> list[str]:
    """Forget cooldowns, ejections, refusals, overloads and spent retries in a shared document; what they were.

    Windows are law and latencies are knowledge: they go only with what was `measured`. What is in flight stays.
    """
    words = []
    if document.get("cool", 0.0) > now:
        words.append(f"cooldown of {document['cool'] - now:.0f} s after {document.get('why', 'a failure')}")
    elif document.get("ejections"):
        words.append("half-open after an ejection")
    elif document.get("fails"):
        words.append(f"{document['fails']} failures in a row")
    if document.get("blocked", 0.0) > now:
        words.append(f"refused for throughput, for {document['blocked'] - now:.0f} s")
    if document.get("retries", (RETRY_BUDGET_FULL,))[0] < RETRY_BUDGET_FULL:
        words.append("spent retries")
    if demand.is_overload(document, now):
        words.append("an overload")
    known = [key for key in document if key not in (*_TROUBLE, *_KEPT)] if measured else []
    if known:
        words.append("what was measured")
    for key in (*_TROUBLE, *known):
        document.pop(key, None)
    return words


# ---------------------------------------------------------------- speed


def whole_s(first_token_s: float, per_token_s: float, prompt: int, output: int) -> float:
    """How long a whole answer takes at this speed: first token, reading the prompt, and each token of the answer."""
    return first_token_s + prompt / PREFILL_TOKENS_PER_S + output * per_token_s


def measure(
    quota: dict[str, Any],
    now: float,
    sent: float,
    *,
    prompt: int,
    output: int,
    first_token_s: float,
    latency_s: float,
) -> None:
    """Take in how fast a whole answer was. An answer that came in one piece says only how fast it was over all."""
    first, each, _, asked_at = quota.get("speed", (*PRIOR, 0.0, 0.0))
    newer = sent >= asked_at
    streamed = latency_s - first_token_s > 0.1 * latency_s
    if streamed:
        seen = max(0.01, first_token_s - prompt / PREFILL_TOKENS_PER_S)
        first += _weight(seen / first, newer=newer) * (seen - first)
        if output > 5:
            pace = (latency_s - first_token_s) / output
            each += _weight(pace / each, newer=newer) * (pace - each)
    else:
        ratio = max(0.05, min(20.0, latency_s / whole_s(first, each, prompt, output)))
        factor = exp(_weight(ratio, newer=newer) * log(ratio))
        first, each = first * factor, each * factor
    least, most = _SPEED_BOUNDS
    quota["speed"] = [max(least, min(first, most)), max(least / 10, min(each, most)), now, max(sent, asked_at)]
    sample = round(first_token_s if streamed else latency_s / max(1, output), 4)
    quota["samples"] = [*quota.get("samples", ())[1 - SAMPLES :], [round(now, 3), sample]]


def _weight(ratio: float, *, newer: bool) -> float:
    """How much a sample counts against what is known. One far from it means that the deployment has changed.

    Unless it was asked for before the last: a slow answer to an old request says nothing of now.
    """
    if not FAR[0] < ratio < FAR[1]:
        return 1.0 if newer else 0.1
    return 0.35 if ratio > 1.8 else 0.2
