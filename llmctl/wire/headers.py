"""What every provider says in response headers: how long to wait, whether to retry, which request it was.

Limits are the business of `wire/quota`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MILLISECOND_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "cf-ray")
LONGEST_WAIT_S = 31 * 86400.0  # a month: what is longer is a mistake, and would overflow somebody's clock
_UNIX_TIME = 1e9  # no wait is so long (31 years), no instant of today so early (2001)
_LONGEST_TEXT = 100
_PART = r"(\d{1,12}(?:\.\d{0,20})?)(ns|us|\xb5s|ms|s|m|h|d)"
_UNITS = {"ns": 1e-9, "us": 1e-6, "\xb5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """The wait the provider asks for, in seconds, 0 or more; None when it says nothing that can be understood.

    Reads `retry-after-ms` and `x-ms-retry-after-ms` (OpenAI, Azure), then `Retry-After` in seconds or as an HTTP date
    (RFC 9110, 10.2.3), or in whatever other way it is written.
    """
    for name in _MILLISECOND_HEADERS:
        wait = number(headers.get(name))
        if wait is not None:
            return min(wait / 1000, LONGEST_WAIT_S)
    return seconds_until(headers.get("retry-after", ""), now)


def seconds_until(value: str, now: float) -> float | None:
    """The wait that a header's value means, at most a month, 0 for an instant in the past; None for anything else.

    Seconds, a Go duration ("6m0s", "120ms"), Unix time in seconds or milliseconds, an RFC 3339 or an HTTP date.
    """
    wait = number(value)
    if wait is None:
        wait = _duration(value)
    elif wait >= _UNIX_TIME:
        wait = (wait / 1000 if wait >= _UNIX_TIME * 1000 else wait) - now
    if wait is None:
        wait = _until(value, now)
    return None if wait is None else min(max(0.0, wait), LONGEST_WAIT_S)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """The provider's own word (`x-should-retry`), None when it gives none."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


def request_id(headers: Mapping[str, str]) -> str:
    """The provider's name for the request, for support tickets; "" when it gives none."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), "")


def number(value: str | None) -> float | None:
    """The plain number that `value` is, 0 or more; None for anything else."""
    try:
        found = float(value or "") if "_" not in (value or "") else -1.0
    except ValueError:
        return None
    return found if 0 <= found < float("inf") else None


def _duration(value: str) -> float | None:
    if len(value) > _LONGEST_TEXT or not re.fullmatch(rf"(?:{_PART})+", value, re.ASCII):
        return None
    return sum(float(part) * _UNITS[unit] for part, unit in re.findall(_PART, value, re.ASCII))


def _until(value: str, now: float) -> float | None:
    if not any(each.isdigit() for each in value) or len(value) > _LONGEST_TEXT:
        return None
    from datetime import UTC, datetime  # only dates need them, and they are slow to load
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(value)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            continue
    return None
