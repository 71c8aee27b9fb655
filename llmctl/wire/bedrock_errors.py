"""What Amazon's refusals mean: the exception is named in a header, in the body, or in a frame of a stream.

The exceptions and their statuses are those of the service description (boto/botocore: bedrock-runtime 2023-09-30) and
of https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html, both read 2026-11-20.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse
from llmctl.wire import refusal
from llmctl.wire.headers import should_retry
from llmctl.wire.values import loads, obj, one_line, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.errors import ProviderError

_NAMES = {
    "permission": ("accessdenied", "optinrequired"),
    "auth": (
        "expiredtoken", "incompletesignature", "invalidclienttokenid", "invalidsignature", "missingauthenticationtoken",
        "notauthorized", "requestexpired", "signaturedoesnotmatch", "unrecognizedclient",
    ),
    "rate_limit": ("throttling", "throttled", "toomanyrequests", "limitexceeded", "requestlimitexceeded"),
    "quota": ("servicequotaexceeded",),
    "bad_request": ("validation", "serialization"),
    "conflict": ("conflict",),
    "not_found": ("resourcenotfound", "unknownoperation"),
    "too_large": ("requestentitytoolarge", "payloadtoolarge"),
    "timeout": ("modeltimeout", "requesttimeout"),
    "unavailable": ("modelnotready", "serviceunavailable"),
    "server_error": ("internalserver", "internalfailure", "internalservererror", "modelerror", "modelstreamerror"),
}  # fmt: skip
"""Neutral class -> the names of exceptions, in small letters and without their ending "Exception"."""
_BY_NAME = {name: wire_class for wire_class, names in _NAMES.items() for name in names}

_TOO_LONG = (
    r"\b(?:input|prompt|context|message)s? (?:is|are) too (?:long|large)"
    r"|too many (?:input |total )?(?:tokens?|text bytes)|input tokens? (?:count )?exceed"
    r"|context (?:length|window|limit|size)|expected max_?length"
)
_SAID = tuple(
    (wire_classes, meant, re.compile(pattern, re.IGNORECASE))
    for wire_classes, meant, pattern in (
        (("rate_limit",), "quota", r"\bper[ -](?:day|month)\b|\bdaily\b|\bmonthly\b"),
        (("permission",), "auth", r"api.?key|bearer token|security token|signature|token\b.{0,40}\bexpired"),
        (("bad_request", "server_error"), "context_length", _TOO_LONG),
        (("bad_request",), "content_filter", r"content.filter|content policy|responsible ai|safety system"),
    )
)
"""Where a name says little, its message says more."""

_SEALED = re.compile(r"(?i)(x-amz-security-token\W{1,4})[^\s'\"\\]+")


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error that a response of `status` with this body means."""
    document = obj(loads(body))
    names = (headers.get("x-amzn-errortype"), document.get("__type"), document.get("code"), document.get("Code"))
    named = next((name for name in names if isinstance(name, str) and name), "")
    said = said_in(document) or _unsealed(plain(body))
    wire_class = _meaning(named, said) or _by_status(status, said)
    if wire_class == "conflict" and should_retry(headers):
        wire_class = "unavailable"
    return refusal.refused(wire_class, status, headers, said, now)


def in_frame(named: str, said: str) -> ProviderError:
    """The error that an exception frame of a stream means."""
    return refusal.in_answer(_meaning(named, said) or refusal.by_message(said) or "server_error", said or named)


def in_document(document: Mapping[str, Any]) -> ProviderError:
    """The error that a document means which came under 200 and holds no answer."""
    said = said_in(document)
    if not said:
        return BadResponse("the answer holds no message", status=200)
    named = document.get("__type") or document.get("code")
    named = named if isinstance(named, str) else ""
    return refusal.in_answer(_meaning(named, said) or refusal.by_message(said) or "bad_response", said)


def said_in(document: Mapping[str, Any]) -> str:
    """What the error says, in one line; a session token that it repeats is left out, however much of it is cut off."""
    words = [document.get(key) for key in ("message", "Message", "originalMessage", "error")]
    said = next((word for word in words if isinstance(word, str) and word), "")
    return one_line(_unsealed(said[:16_384]))


def _unsealed(said: str) -> str:
    return _SEALED.sub(r"\1***", said)


def _meaning(named: str, said: str) -> str | None:
    """The class of a named exception, made finer by what it says; None for a name that is not known."""
    name = named.rpartition("#")[2].partition(":")[0].strip().lower()
    found = _BY_NAME.get(name) or _BY_NAME.get(name.removesuffix("exception"))
    return found and _finer(found, said)


def _finer(wire_class: str, said: str) -> str:
    return next((meant for those, meant, found in _SAID if wire_class in those and found.search(said)), wire_class)


def _by_status(status: int, said: str) -> str:
    if status == 424:  # what the model did, not what the caller did: the status of ModelErrorException
        return "server_error"
    return _finer(refusal.meaning(status, None, said), said)
