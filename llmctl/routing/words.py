"""What a provider's headers say of its limits, kept in the document of a quota (see `limits` for its fields).

Requests overlap, so words come in another order than they were meant: the request that was sent last counts.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any

from llmctl.routing.limits import METERS, MINUTE_S, SHAPES, SURE_S

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.snapshot import Said

_APART_S = (0.05, 20.0)
_ROSE = 0.2
"""By what share of the limit what remains must rise from one word to the next to mean a reset."""


def learn(deployment: Deployment, quota: dict[str, Any], sent: float, heard: float, said: tuple[Said, ...]) -> None:
    """Keep what a response said of the limits: it was sent and its headers were heard at these instants."""
    kind, full_s = SHAPES[deployment.provider.dialect.get("shape", "")]
    words = quota.setdefault("said", {})
    for word in said:
        before = words.get(word.meter)
        if before and _is_older(word, sent, before):
            continue
        reset_at = None if word.reset_s is None else heard + word.reset_s
        if word.meter in METERS:
            if kind == "window":
                _narrow(quota, word, before, sent, heard)
            if word.meter in ("tpm", "itpm") and before:
                _watch_others(quota, word, before, sent, kind, full_s)
        limit = word.limit if word.limit is not None else before[2] if before else None
        words[word.meter] = [sent, word.remaining, limit, reset_at]


def _is_older(word: Said, sent: float, before: list[Any]) -> bool:
    """Whether a later request was answered already; of two sent together, the one that saw less remain is the later."""
    if sent != before[0] or word.remaining is None or before[1] is None:
        return bool(sent < before[0])
    return bool(word.remaining > before[1])


def _narrow(quota: dict[str, Any], word: Said, before: list[Any] | None, sent: float, heard: float) -> None:
    """Narrow down when the counter is reset: from the reset that was said, or from a rise of what remains."""
    phases = quota.setdefault("phase", {})
    if word.reset_s is not None:
        lo, hi = sent + word.reset_s - 0.01, heard + word.reset_s + 0.01
    elif before and word.remaining is not None and word.limit is not None and before[1] is not None:
        # Two requests of nearly the same time may have been counted in the other order: that is no reset.
        least, most = _APART_S
        if not least <= sent - before[0] < most or word.remaining < before[1] + _ROSE * word.limit:
            return
        lo, hi = before[0], sent
    else:
        return
    known = phases.get(word.meter)
    if known:
        k = round((lo - known[0]) / MINUTE_S) * MINUTE_S
        both = max(known[0] + k, lo), min(known[1] + k, hi)
        if both[0] <= both[1]:
            lo, hi = both
    phases[word.meter] = [lo, hi]


def _watch_others(quota: dict[str, Any], word: Said, before: list[Any], sent: float, kind: str, full_s: float) -> None:
    """Learn what others take of the same quota: what is missing between two words beyond our own requests."""
    elapsed, remaining = sent - before[0], word.remaining
    if elapsed < 2.0 or word.limit is None or remaining is None or before[1] is None:
        return
    at = 2 + METERS.index(word.meter)
    rows = [(u[0], u[at]) for u in quota.get("uses", ())] + [(o[0], o[at]) for o in quota.get("open", {}).values()]
    own = sum(n for s, n in rows if before[0] < s <= sent)
    expected = before[1] - own
    if kind == "bucket":
        expected = min(word.limit * full_s / MINUTE_S, before[1] + elapsed * word.limit / MINUTE_S) - own
    elif _was_reset(quota, word.meter, before[0], sent):
        return
    most = word.limit / MINUTE_S
    pace = max(-most, min(most, (expected - remaining) / elapsed))
    quota["others"] = quota.get("others", 0.0) + 0.2 * (pace - quota.get("others", 0.0))


def _was_reset(quota: dict[str, Any], meter: str, before: float, after: float) -> bool:
    """Whether the counter was, or may have been, reset between two instants."""
    phase = quota.get("phase", {}).get(meter)
    if not phase or phase[1] - phase[0] >= SURE_S:
        return True
    return bool(floor((before - phase[1]) / MINUTE_S) != floor((after - phase[0]) / MINUTE_S))
