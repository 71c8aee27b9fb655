"""What an OpenAI-shaped error means, as tables: the code or type it names, then its message, then its status.

Sources: https://platform.openai.com/docs/guides/error-codes and the error bodies of compatible servers (llama.cpp says
`exceed_context_size_error`; OpenRouter puts the HTTP status into `code`), read 2026-11-20.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import from_wire
from llmctl.core.types import well_formed
from llmctl.wire.headers import request_id, retry_after_s, should_retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.errors import ProviderError

_BY_CODE = {
    "context_length_exceeded": "context_length",
    "exceed_context_size_error": "context_length",
    "string_above_max_length": "context_length",
    "request_too_large": "too_large",
    "content_policy_violation": "content_filter",
    "content_filter": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "model_not_found": "not_found",
    "invalid_model": "not_found",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
    "service_unavailable": "unavailable",
    "server_error": "server_error",
    "internal_server_error": "server_error",
    "timeout": "timeout",
}
_BY_STATUS = {
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    424: "conflict",
    429: "rate_limit",
    498: "conflict",
    499: "conflict",
    503: "unavailable",
    504: "timeout",
    529: "overloaded",
}
_MESSAGE = 1000
# Read only where the code says nothing: 400, 422 and 500 hide several meanings, and 429 hides an empty account.
_BY_MESSAGE = tuple(
    (wire_class, re.compile(pattern, re.IGNORECASE))
    for wire_class, pattern in (
        ("context_length", "context[ _](?:length|window|size)|maximum context|prompt is too long|too many tokens"),
        ("content_filter", "content[ _](?:filter|management|policy)|safety system"),
        ("quota", "insufficient[ _](?:balance|quota|credits?|funds)|exceeded your current quota"),
        ("auth", "(?:invalid|incorrect) api.?key|api.?key not valid"),
        ("not_found", "not a valid model|invalid model:|model .{0,200}does not exist"),
    )
)


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error that a response of `status` with this body means."""
    found = error_object(_loads(body))
    wire_class = _wire_class(status, found)
    if wire_class == "conflict" and should_retry(headers):
        wire_class = "unavailable"
    said = message_of(found) or plain(body)
    return from_wire(wire_class)(
        f"HTTP {status}" + (f": {said}" if said else ""),
        status=status,
        retry_after_s=retry_after_s(headers, now),
        request_id=request_id(headers),
        should_retry=should_retry(headers),
    )


def in_answer(found: Mapping[str, Any], unknown: str = "bad_response") -> ProviderError:
    """The error that an error object inside a 200 answer or stream means; `unknown` when it names no class."""
    status = _status_in(found)
    wire_class = _wire_class(status, found) if status else _by_code(found) or _by_message(found) or unknown
    return from_wire(wire_class)(
        f"the provider reported an error in its answer: {message_of(found) or 'no message'}",
        status=status or 200,
    )


def error_object(document: Any) -> dict[str, Any] | None:
    """The error object of a JSON answer, whatever its shape.

    `{"error": {...}}`, `{"error": "text"}` (which may be JSON again), `{"error": [{...}]}`, a list of any of these, or
    a bare object.
    """
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return None
    error = document.get("error")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        nested = error_object(_loads(error.encode("utf-8", "replace"))) if error.startswith(("{", "[")) else None
        return nested or {"message": error, "code": document.get("code"), "type": document.get("type")}
    if isinstance(error, dict):
        return error
    if (
        document.get("object") == "error"
        or "detail" in document
        or ("message" in document and "choices" not in document)
    ):
        return document
    return None


def message_of(found: Mapping[str, Any] | None) -> str:
    """What the error says, in one line of at most 1,000 characters; "" when it says nothing."""
    said = (found.get("message") or found.get("detail") or "") if found else ""
    if not isinstance(said, str):
        said = as_json(said)
    return " ".join(well_formed(said[: 4 * _MESSAGE]).split())[:_MESSAGE]


def as_json(value: Any) -> str:
    """`value`, which came out of JSON, as JSON again; "" where it is nested too deep to be written."""
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def _wire_class(status: int, found: Mapping[str, Any] | None) -> str:
    if status < 400:  # neither an answer nor a refusal
        return "bad_response"
    by_status = _BY_STATUS.get(status) or ("server_error" if status >= 500 else "bad_request")
    if found is None:
        return by_status
    if status in (400, 422, 500):
        return _by_code(found) or _by_message(found) or by_status
    if status == 429:  # "too many tokens" is no long prompt here
        return _by_code(found) or ("quota" if _by_message(found) == "quota" else by_status)
    return by_status  # a 403 that names a missing model is still a refusal, a 413 that names a rate a too long prompt


def _by_code(found: Mapping[str, Any]) -> str | None:
    inner = found.get("innererror")
    names = (inner.get("code") if isinstance(inner, dict) else None, found.get("code"), found.get("type"))
    for name in names:
        if isinstance(name, str) and name.lower() in _BY_CODE:
            return _BY_CODE[name.lower()]
    return None


def _by_message(found: Mapping[str, Any]) -> str | None:
    said = message_of(found)
    return next((name for name, pattern in _BY_MESSAGE if pattern.search(said)), None)


def _status_in(found: Mapping[str, Any]) -> int | None:
    for key in ("status", "status_code", "code"):
        value = found.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def plain(body: bytes) -> str:
    """A short readable remainder of a body that is not JSON: an HTML page without its tags."""
    text = re.sub(
        r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", " ", body[:4000].decode("utf-8", "replace"), flags=re.DOTALL
    )
    return " ".join(text.split())[:200]
