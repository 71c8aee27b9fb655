"""Days, weeks and months of a time zone: their names and the instants at which they begin.

A zone is "local" (this computer's), "UTC" or an IANA name; instants are Unix seconds, days "YYYY-MM-DD". A day lasts
from its first instant to that of the next one, so that days never overlap, whatever the clocks do: where a clock goes
back over midnight, the hour that is repeated belongs to the day that had begun. Only a zone by name loads `zoneinfo`.
"""

from __future__ import annotations

from datetime import UTC as _UTC
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

LOCAL = "local"
UTC = "UTC"
_DAY = timedelta(days=1)
_FIRST, _LAST = "0001-01-01", "9999-12-31"


def zone_info(zone: str) -> tzinfo | None:
    """The zone that goes by this name; None for this computer's own. Raises UsageError for one that nobody knows."""
    if zone == LOCAL:
        return None
    return _UTC if zone == UTC else _named(zone)


@lru_cache(maxsize=8)
def _named(zone: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:
        hint = 'write "local", "UTC" or an IANA name such as Europe/Berlin'
        raise UsageError(f"{zone[:40]!r} is no time zone", hint=hint) from error


def day_of(instant: float, zone: str) -> str:
    """The day in which `instant` lies; the first or last one there is for an instant beyond all calendars."""
    info = zone_info(zone)
    try:
        wall = datetime.fromtimestamp(instant, info)
        day = wall.date()
        if wall.fold and _start(day + _DAY, info) <= instant:  # repeated, after its midnight
            day += _DAY
    except (ValueError, OverflowError, OSError):
        return _FIRST if instant < 0 else _LAST
    return day.isoformat()


def start_of(day: str, zone: str) -> int:
    """When `day` begins: where a clock skips midnight, at the end of the gap."""
    return _start(date.fromisoformat(day), zone_info(zone))


def _start(day: date, info: tzinfo | None) -> int:
    # The first of two midnights; for one that is skipped, fold=0 reckons with the offset before the gap (PEP 495),
    # which is right since no zone has had a gap that began before midnight and ended after it since 1970.
    return int(datetime(day.year, day.month, day.day, tzinfo=info).timestamp())


def shifted(day: str, days: int) -> str:
    """The day so many days after `day`."""
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def month_of(day: str) -> str:
    """The month of a day, as "2026-11"."""
    return day[:7]


def week_of(day: str) -> str:
    """The week of a day, Monday to Sunday, as ISO 8601 counts them: "2026-W47"."""
    year, week, _ = date.fromisoformat(day).isocalendar()
    return f"{year:04}-W{week:02}"


def bounds(period: str, instant: float, zone: str) -> tuple[int, int]:
    """When the day or month (`period`) of `instant` began, and when the next one begins."""
    first = day_of(instant, zone)
    after = shifted(first, 1)
    if period == "month":
        first = month_of(first) + "-01"
        after = month_of(shifted(first, 31)) + "-01"
    return start_of(first, zone), start_of(after, zone)


def is_zone(zone: str) -> bool:
    """Whether somebody knows this zone."""
    try:
        zone_info(zone)
    except UsageError:
        return False
    return True
