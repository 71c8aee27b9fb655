"""What an error of a Google API means: its `details` first, then its message, then its status.

The envelope is google.rpc.Status: https://cloud.google.com/apis/design/errors (read 2026-11-20). A bad key is a 400
here, and the message of every 429 is the same: only `details` tell a day's quota from a minute's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.wire import refusal
from llmctl.wire.openai_errors import error_object, message_of
from llmctl.wire.values import loads, obj, objects, plain, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.errors import ProviderError

_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499, "UNKNOWN": 500, "INTERNAL": 500, "DATA_LOSS": 500, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""The HTTP status of a code: googleapis/googleapis:google/rpc/code.proto."""
_CANCELLED = 499  # by the server: it may be asked again, unlike a conflict
_BY_REASON = {"API_KEY_INVALID": "auth", "BILLING_DISABLED": "quota"}
_BY_MESSAGE = (
    ("permission", re.compile(r"location is not supported|not available in your (?:country|region)", re.IGNORECASE)),
    ("too_large", re.compile(r"payload size exceeds", re.IGNORECASE)),
)
_PER_DAY = re.compile(r"per ?day", re.IGNORECASE)
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")
_SAID_DELAY = re.compile(r"retry in (\d{1,6}(?:\.\d{1,20})?)s", re.IGNORECASE)


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error that a response of `status` with this body means."""
    found = error_object(loads(body)) or {}
    said = message_of(found)
    wire_class = _wire_class(status, found, said)
    # A day's quota comes with a RetryInfo of seconds too, and is not back by then.
    wait_s = None if wire_class == "quota" else _wait_s(found, said)
    return refusal.refused(wire_class, status, headers, said or plain(body), now, wait_s=wait_s)


def in_answer(found: Mapping[str, Any], unknown: str = "bad_response") -> ProviderError:
    """The error that an error object inside a 200 answer or stream means; `unknown` when it names no class."""
    said, code = message_of(found), found.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else _HTTP_STATUS.get(string(found.get("status")))
    wire_class = _wire_class(status, found, said) if status else refusal.by_message(said) or unknown
    error = refusal.in_answer(wire_class, said, status)
    error.retry_after_s = None if wire_class == "quota" else _wait_s(found, said)
    return error


def _wire_class(status: int, found: Mapping[str, Any], said: str) -> str:
    return "timeout" if status == _CANCELLED else refusal.meaning(status, _named(status, found, said), said)


def _named(status: int, found: Mapping[str, Any], said: str) -> str | None:
    details = objects(found.get("details"))
    if status == 429:
        limits = list(_limits(details))
        if any(_PER_DAY.search(limit) for limit in limits):
            return "quota"
        return "rate_limit" if limits or _wait_s(found, said) is not None else None
    reasons = (_BY_REASON.get(string(each.get("reason"))) for each in details)
    spoken = (wire_class for wire_class, pattern in _BY_MESSAGE if pattern.search(said))
    return next((each for each in (*reasons, *spoken) if each), None)


def _limits(details: list[dict[str, Any]]) -> Iterator[str]:
    """The names of the limits that were passed, as QuotaFailure and ErrorInfo write them."""
    for each in details:
        for violation in objects(each.get("violations")):
            yield string(violation.get("quotaId")) or string(violation.get("description"))
        limit = string(obj(each.get("metadata")).get("quota_limit"))
        if limit:
            yield limit


def _wait_s(found: Mapping[str, Any], said: str) -> float | None:
    """The wait that RetryInfo asks for ("17s", "1.5s"), or the message where a gateway took the details away."""
    delays = (_DELAY.fullmatch(string(each.get("retryDelay"))) for each in objects(found.get("details")))
    match = next((each for each in delays if each), None) or _SAID_DELAY.search(said)
    return float(match[1]) if match else None
