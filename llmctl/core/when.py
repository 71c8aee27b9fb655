"""Durations and instants as people write them: `30s`, `5m`, `24h`, `7d`, `1h30m`, and ISO 8601 dates.

Seconds and Unix seconds come out; `now` and the time zone are arguments. Everything that takes a time on a command
line or in the configuration reads it here.
"""

from __future__ import annotations

import re
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING

from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PIECE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d|w)")
_LONGEST = 40
_HINT = "write a number and a unit, such as 30s, 5m, 24h or 7d"


def parse_duration(text: str) -> float:
    """The seconds that `text` means. Raises UsageError for anything that is not numbers with units."""
    seconds = _duration(text)
    if seconds is None:
        raise UsageError(f"{_shown(text)} is not a duration", hint=_HINT)
    return seconds


def parse_instant(text: str, now: float, tz: tzinfo | None) -> float:
    """The Unix seconds that `text` means: a duration is that long before `now`, a date its midnight in `tz`.

    A date and time may carry its own offset; one that does not is in `tz` (None: the zone of this computer). Raises
    UsageError.
    """
    seconds = _duration(text)
    if seconds is not None:
        return now - seconds
    try:
        read = datetime.fromisoformat(text.strip())
        instant = (read if read.tzinfo else read.replace(tzinfo=tz)).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        hint = "write how long ago (30s, 5m, 24h, 7d) or an ISO date (2026-01-31, 2026-01-31T12:00)"
        raise UsageError(f"{_shown(text)} is neither a duration nor a date", hint=hint) from error
    return instant


def _duration(text: str) -> float | None:
    """The seconds of a duration; None when `text` is none."""
    rest, total = text.strip(), 0.0
    if not rest or len(rest) > _LONGEST:
        return None
    while rest:
        piece = _PIECE.match(rest)
        if piece is None:
            return None
        total += float(piece[1]) * _SECONDS[piece[2]]
        rest = rest[piece.end() :]
    return total if isfinite(total) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
