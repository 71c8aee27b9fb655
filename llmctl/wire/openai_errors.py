"""What an OpenAI-shaped error means, as tables: the code or type it names, then its message, then its status.

Sources, read 2026-11-20: https://developers.openai.com/docs/guides/error-codes, https://console.groq.com/docs/errors,
https://docs.together.ai/docs/error-codes, https://platform.kimi.ai/docs/api/errors, https://openrouter.ai/docs/errors,
https://docs.fireworks.ai/troubleshooting/status_error_codes/inference_error_code,
https://help.aliyun.com/en/model-studio/error-code, https://docs.bigmodel.cn/cn/api/api-code,
and the bodies of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.wire import refusal
from llmctl.wire.headers import should_retry
from llmctl.wire.values import loads, obj, objects, one_line, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.errors import ProviderError

_CODES = {
    "context_length": ("context_length_exceeded", "exceed_context_size_error", "token_limit_exceeded"),
    "too_large": ("request_too_large",),
    "content_filter": (
        "content_policy_violation", "content_filter", "responsibleaipolicyviolation", "datainspectionfailed",
        "data_inspection_failed",
    ),
    "quota": (
        "insufficient_quota", "billing_hard_limit_reached", "exceeded_current_quota_error", "insufficient_balance",
        "insufficient_credits", "payment_required", "arrearage",
    ),
    "not_found": (
        "model_not_found", "invalid_model", "model_not_available", "model_not_supported", "model_decommissioned",
        "resource_not_found_error", "not_found_error", "modelnotfound", "deploymentnotfound",
    ),
    "auth": (
        "invalid_api_key", "authentication_error", "invalid_authentication_error", "incorrect_api_key_error",
        "invalidapikey",
    ),
    "permission": ("permission_error", "permission_denied_error"),
    "rate_limit": (
        "rate_limit_exceeded", "rate_limit_error", "rate_limit_reached_error", "rate_limited", "throttling.ratequota",
    ),
    "overloaded": ("overloaded_error", "engine_overloaded_error", "capacity_exceeded"),
    "unavailable": ("service_unavailable", "unavailable_error"),
    "server_error": ("server_error", "internal_server_error"),
    "timeout": ("timeout", "request_timeout"),
}  # fmt: skip
_BY_CODE = {code: wire_class for wire_class, codes in _CODES.items() for code in codes}


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error that a response of `status` with this body means."""
    found = error_object(loads(body))
    wire_class = _wire_class(status, found)
    if wire_class == "conflict" and should_retry(headers):
        wire_class = "unavailable"
    return refusal.refused(wire_class, status, headers, message_of(found) or plain(body), now)


def in_answer(found: Mapping[str, Any], unknown: str = "bad_response") -> ProviderError:
    """The error that an error object inside a 200 answer or stream means; `unknown` when it names no class."""
    status = _status_in(found)
    wire_class = (
        _wire_class(status, found) if status else _named(found) or refusal.by_message(message_of(found)) or unknown
    )
    return refusal.in_answer(wire_class, message_of(found), status)


def error_object(document: Any) -> dict[str, Any] | None:
    """The error object of a JSON answer, whatever its shape.

    `{"error": {...}}`, `{"error": "text"}` (which may be JSON again), `{"error": [{...}]}`, `{"errors": [{...}]}`
    (Cloudflare), a list of any of these, or a bare object.
    """
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return None
    error = document.get("error") or document.get("errors")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        nested = error_object(loads(error.encode("utf-8", "replace"))) if error.startswith(("{", "[")) else None
        return nested or {"message": error, "code": document.get("code"), "type": document.get("type")}
    if isinstance(error, dict):
        return error
    if found := minimax_error(document):
        return found
    if (
        document.get("object") == "error"
        or "detail" in document
        or ("message" in document and "choices" not in document)
    ):
        return document
    return None


def minimax_error(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error that MiniMax reports under status 200, beside an answer that is null.

    https://platform.minimax.io/docs/api-reference/errorcode (read 2026-11-20).
    """
    said = obj(document.get("base_resp"))
    return {"message": said.get("status_msg")} if said.get("status_code") else None


def message_of(found: Mapping[str, Any] | None) -> str:
    """What the error says, in one line of at most 1,000 characters; "" when it says nothing.

    A gateway adds what the provider behind it said (OpenRouter: `metadata.raw`). Of a list of complaints (FastAPI) only
    the complaints are taken: it also quotes the request, whose words say nothing about the error.
    """
    found = found or {}
    said = found.get("message") or found.get("detail")
    if isinstance(said, dict):
        said = said.get("message") or said.get("error") or said
    complaints = [each["msg"] for each in objects(said) if isinstance(each.get("msg"), str)]
    raw = obj(found.get("metadata")).get("raw")
    if isinstance(said, str) and isinstance(raw, str):
        said = f"{said}: {raw}"
    return one_line("; ".join(complaints) or said)


def _wire_class(status: int, found: Mapping[str, Any] | None) -> str:
    return refusal.meaning(status, _named(found or {}), message_of(found))


def _named(found: Mapping[str, Any]) -> str | None:
    metadata = obj(found.get("metadata"))
    if metadata.get("flagged_input"):  # OpenRouter's word for a prompt that moderation has stopped
        return "content_filter"
    names = (obj(found.get("innererror")).get("code"), found.get("code"), found.get("type"), metadata.get("error_type"))
    classes = (_BY_CODE.get(name.lower()) for name in names if isinstance(name, str))
    return next((wire_class for wire_class in classes if wire_class), None)


def _status_in(found: Mapping[str, Any]) -> int | None:
    for key in ("status", "status_code", "code"):
        value = found.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None
