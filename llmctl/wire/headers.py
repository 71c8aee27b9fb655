"""What every provider says in response headers: how long to wait, whether to retry, which request it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MILLISECOND_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "cf-ray")
LONGEST_WAIT_S = 31 * 86400.0  # a month: what is longer is a mistake, and would overflow somebody's clock


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """The wait the provider asks for, in seconds, 0 or more; None when it says nothing that can be understood.

    Reads `retry-after-ms` and `x-ms-retry-after-ms` (OpenAI, Azure), then `Retry-After` in seconds or as an HTTP date
    (RFC 9110, 10.2.3).
    """
    for name in _MILLISECOND_HEADERS:
        wait = _number(headers.get(name))
        if wait is not None:
            return min(wait / 1000, LONGEST_WAIT_S)
    value = headers.get("retry-after")
    if value is None:
        return None
    wait = _number(value)
    if wait is None:
        wait = _until(value, now)
    return None if wait is None else min(wait, LONGEST_WAIT_S)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """The provider's own word (`x-should-retry`), None when it gives none."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


def request_id(headers: Mapping[str, str]) -> str:
    """The provider's name for the request, for support tickets; "" when it gives none."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), "")


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _until(value: str, now: float) -> float | None:
    from datetime import UTC  # only dates need them, and they are slow to load
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
