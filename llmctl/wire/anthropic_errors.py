"""What an error of the Anthropic protocol means, as tables: what its message says, the type it names, its status.

https://platform.claude.com/docs/en/api/errors (read 2026-11-20). `invalid_request_error` hides several meanings, an
empty account and a spend limit among them, so the message comes first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.wire import refusal
from llmctl.wire.headers import should_retry
from llmctl.wire.openai_errors import error_object, message_of
from llmctl.wire.values import loads, obj, plain, string

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.errors import ProviderError

_BY_TYPE = {
    "authentication_error": "auth",
    "permission_error": "permission",
    "billing_error": "quota",
    "not_found_error": "not_found",
    "conflict_error": "conflict",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout",
    "api_error": "server_error",
    "overloaded_error": "overloaded",
    "exceed_context_size_error": "context_length",  # llama.cpp
}
_BY_MESSAGE = tuple(
    (wire_class, re.compile(pattern, re.IGNORECASE))
    for wire_class, pattern in (
        ("quota", "credit balance|usage limits?\\b|spend(?:ing)? (?:limit|cap)"),
        ("context_length", "context limit"),
    )
)


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error that a response of `status` with this body means."""
    document = loads(body)
    found = error_object(document) or {}
    said = message_of(found)
    wire_class = refusal.meaning(status, _named(found, said), said)
    if wire_class == "conflict" and should_retry(headers):
        wire_class = "unavailable"
    named = string(obj(document).get("request_id"))[:200]
    if named:
        headers = {"request-id": named, **headers}
    return refusal.refused(wire_class, status, headers, said or plain(body), now)


def in_answer(document: Mapping[str, Any], unknown: str) -> ProviderError:
    """The error that an error object inside a 200 answer or stream means; `unknown` when it names no class."""
    found = error_object(document) or {}
    said = message_of(found)
    if found.get("type") == "invalid_request_error":
        unknown = "bad_request"
    return refusal.in_answer(_named(found, said) or refusal.by_message(said) or unknown, said)


def _named(found: Mapping[str, Any], said: str) -> str | None:
    by_message = next((name for name, pattern in _BY_MESSAGE if pattern.search(said)), None)
    return by_message or _BY_TYPE.get(string(found.get("type")))
