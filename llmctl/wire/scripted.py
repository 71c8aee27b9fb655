"""The provider's side of each wire: what its maker says, as bytes, so that a drill needs no provider.

Answers, refusals and broken answers, in the shape that the wires' fixtures show of the real ones. When each is said,
how slowly and how much of it is the business of `run/faults`.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from llmctl.wire.values import dump, loads, obj, objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.faults import Fault


class Script(NamedTuple):
    """What the model says: `pieces` of text, each of them an event of a stream, and one output token."""

    pieces: tuple[str, ...]
    model: str
    input_tokens: int


class Reply(NamedTuple):
    """One HTTP response; header names are lower-case. What is whole, not a stream, is one piece of `opening`.

    `opening` comes before the first token, `events` are one per piece of text, `closing` is the finish reason and the
    usage, `terminator` says that nothing follows: () where the protocol has nothing for it.
    """

    status: int
    headers: Mapping[str, str]
    opening: tuple[bytes, ...] = ()
    events: tuple[bytes, ...] = ()
    closing: tuple[bytes, ...] = ()
    terminator: tuple[bytes, ...] = ()


_JSON = {"content-type": "application/json"}
_HTML = {"content-type": "text/html"}
_SSE = {"content-type": "text/event-stream; charset=utf-8"}
_ASKED = {"promptTokenCount": 1, "totalTokenCount": 1}
_GATEWAY = {408: "Request Timeout", 502: "Bad Gateway", 503: "Service Unavailable", 529: "Site is overloaded"}
"""What is said by whatever stands before a provider that has no words of its own for it."""
_INVALID, _QUOTA = "invalid_request_error", "insufficient_quota"
_NO_ACCOUNT = "You exceeded your current quota, please check your plan and billing details."
_OPENAI: dict[str, tuple[str, ...]] = {
    "429": ("requests", "Rate limit reached for requests", "rate_limit_exceeded"),
    "quota": (_QUOTA, _NO_ACCOUNT, _QUOTA),
    "400": (_INVALID, "Invalid value for 'temperature': must be <= 2"),
    "401": (_INVALID, "Incorrect API key provided: sk-***.", "invalid_api_key"),
    "403": (_INVALID, "Project does not have access to model", "model_not_found"),
    "404": (_INVALID, "The model does not exist or you do not have access to it.", "model_not_found"),
    "413": (_INVALID, "Request too large", "request_too_large"),
    "500": ("server_error", "The server had an error while processing your request. Sorry about that!"),
    "503": ("service_unavailable", "The engine is currently overloaded, please try again later"),
    "context": (_INVALID, "This model's maximum context length is 128000 tokens.", "context_length_exceeded"),
    "filter": (_INVALID, "Your request was rejected by our safety system.", "content_policy_violation"),
}
_ERRORS: dict[str, dict[str, tuple[str, ...]]] = {
    "openai": _OPENAI,
    "azure": {
        **_OPENAI,
        "429": ("", "Requests have exceeded the token rate limit of your current S0 pricing tier.", "429"),
        "401": ("", "Access denied due to invalid subscription key or wrong API endpoint.", "401"),
        "403": ("", "Access denied due to Virtual Network/Firewall rules.", "403"),
        "404": ("", "The API deployment for this resource does not exist.", "DeploymentNotFound"),
        "filter": ("", "The response was filtered by Azure's content management policy.", "content_filter"),
    },
    "anthropic": {
        "429": ("rate_limit_error", "This request would exceed your organization's rate limit."),
        "quota": (_INVALID, "Your credit balance is too low to access the Anthropic API."),
        "400": (_INVALID, "max_tokens: Field required"),
        "401": ("authentication_error", "invalid x-api-key"),
        "403": ("permission_error", "Your API key does not have permission to use the specified resource."),
        "404": ("not_found_error", "model: scripted"),
        "413": ("request_too_large", "Request exceeds the maximum size"),
        "500": ("api_error", "Internal server error"),
        "529": ("overloaded_error", "Overloaded"),
        # https://github.com/anthropics/claude-code/issues/12186 and 58367, read 2026-11-20
        "context": (_INVALID, "prompt is too long: 208310 tokens > 200000 maximum"),
        "filter": (_INVALID, "Output blocked by content filtering policy"),
    },
    "gemini": {
        "429": ("RESOURCE_EXHAUSTED", _NO_ACCOUNT, "GenerateRequestsPerMinutePerProjectPerModel"),
        "quota": ("RESOURCE_EXHAUSTED", _NO_ACCOUNT, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        "400": ("INVALID_ARGUMENT", "Invalid value at 'generation_config.temperature'"),
        "401": ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
        "403": ("PERMISSION_DENIED", "The caller does not have permission"),
        "404": ("NOT_FOUND", "models/scripted is not found for API version v1beta"),
        "413": ("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."),
        "500": ("INTERNAL", "An internal error has occurred. Please retry."),
        "503": ("UNAVAILABLE", "The model is overloaded. Please try again later."),
        "context": ("INVALID_ARGUMENT", "The input token count exceeds the maximum number of tokens allowed."),
    },
    "bedrock": {
        "429": ("ThrottlingException", "Too many requests, please wait before trying again."),
        "quota": ("ThrottlingException", "Too many tokens per day, please wait before trying again."),
        "400": ("ValidationException", "The provided model identifier is invalid."),
        "401": ("NotAuthorized", "You do not have permission to perform this action."),
        "403": ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
        "404": ("ResourceNotFoundException", "This model version has reached the end of its life."),
        "408": ("ModelTimeoutException", "Model has timed out in processing the request."),
        "413": ("RequestEntityTooLargeException", "Request too large"),
        "500": ("InternalServerException", "The system encountered an unexpected error during processing."),
        "503": ("ServiceUnavailableException", "The service isn't currently available."),
        "context": ("ValidationException", "Input is too long for requested model."),
    },
}
"""Fault -> type, status or exception; message; code, or limit. What is missing is said by a gateway or an answer."""
_STATUS = {("anthropic", "quota"): 400}
"""Where the maker's own status is another than the fault's."""


def answer(protocol: str, script: Script, *, stream: bool) -> Reply:
    """The answer of a provider that says `script`."""
    makers = {"openai": _openai, "azure": _azure, "anthropic": _anthropic, "gemini": _gemini, "bedrock": _bedrock}
    return makers[protocol](script, stream)


def refusal(protocol: str, fault: Fault, *, stream: bool = False) -> Reply:
    """The error that `fault`, one with a status, is at this protocol's maker; some filter within an answer, of 200."""
    name = "503" if fault.name in ("flaky", "down") else fault.name
    said = _ERRORS[protocol].get(name)
    if name == "filter" and said is None:
        return _filtered(protocol, stream)
    wait_s = fault.number if name in ("429", "503") and name == fault.name else None
    status = _STATUS.get((protocol, name)) or fault.kind.status or 500
    if said is None:
        page = f"<html><body><h1>{status} {_GATEWAY[status]}</h1></body></html>\n"
        return Reply(status, _HTML | _waited(wait_s), (page.encode(),))
    named = {"x-amzn-errortype": f"{said[0]}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    headers = _JSON | (named if protocol == "bedrock" else {}) | _waited(wait_s)
    return Reply(status, headers, (dump(_error(protocol, status, wait_s, *said)),))


def _waited(wait_s: float | None) -> dict[str, str]:
    """The wait as a header: `Retry-After` holds whole seconds (RFC 9110, 10.2.3); parts of one are OpenAI's."""
    if wait_s is None:
        return {}
    return {"retry-after": f"{wait_s:.0f}"} if wait_s == int(wait_s) else {"retry-after-ms": f"{wait_s * 1000:.12g}"}


def _error(protocol: str, status: int, wait_s: float | None, named: str, said: str, code: str = "") -> dict[str, Any]:
    if protocol == "bedrock":
        return {"message": said}
    if protocol == "anthropic":
        return {"type": "error", "error": {"type": named, "message": said}}
    if protocol != "gemini":
        return {"error": {"message": said, "type": named or None, "param": None, "code": code or None}}
    found: dict[str, Any] = {
        "QuotaFailure": code and {"violations": [{"quotaId": code, "quotaValue": "10"}]},
        "RetryInfo": None if wait_s is None else {"retryDelay": f"{wait_s:.9g}s"},
    }
    details = [{"@type": f"type.googleapis.com/google.rpc.{kind}", **each} for kind, each in found.items() if each]
    return {"error": {"code": status, "message": said, "status": named} | ({"details": details} if details else {})}


def _filtered(protocol: str, stream: bool) -> Reply:
    """A prompt that was filtered, as the makers say it who answer with status 200."""
    if protocol == "bedrock":
        return _bedrock(Script((), "", 1), stream, "content_filtered")
    document = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": _ASKED}
    return Reply(200, _SSE, (_event(document),)) if stream else Reply(200, _JSON, (dump(document),))


def broken(protocol: str) -> bytes:
    """One event of a stream whose frame is right and whose JSON is not."""
    if protocol == "bedrock":
        return _frame("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"te')
    return (b"event: content_block_delta\n" if protocol == "anthropic" else b"") + b'data: {"broken":{"te\n\n'


def empty(protocol: str) -> Reply:
    """An answer of the protocol that holds none, whether a stream was asked for or not."""
    documents: dict[str, dict[str, Any]] = {
        "anthropic": {"type": "message", "role": "assistant", "content": None},
        "gemini": {"candidates": [], "usageMetadata": _ASKED},
        "bedrock": {"output": {}, "stopReason": "end_turn"},
    }
    return Reply(200, _JSON, (dump(documents.get(protocol, {"object": "chat.completion", "choices": []})),))


def garbage(protocol: str) -> Reply:  # noqa: ARG001 - what is none of a protocol is the same for all
    """The page of a login where an answer should be."""
    return Reply(200, _HTML, (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n",))


def wants_stream(protocol: str, path: str, body: bytes) -> bool:
    """Whether the request to `path` (with or without its query) asks for a stream; False for what is no request."""
    ending = {"gemini": ":streamGenerateContent", "bedrock": "/converse-stream"}.get(protocol)
    if ending:
        return path.partition("?")[0].endswith(ending)
    return obj(loads(body)).get("stream") is True


def has_prefill(protocol: str, body: bytes) -> bool:
    """Whether the last turn of the request is the assistant's, to be gone on with; False for what is no request."""
    turns, role = ("contents", "model") if protocol == "gemini" else ("messages", "assistant")
    return any(turn.get("role") == role for turn in objects(obj(loads(body)).get(turns))[-1:])


def _event(document: Mapping[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + dump(document) + b"\n\n"


def _openai(script: Script, stream: bool) -> Reply:
    given, made = script.input_tokens, len(script.pieces)
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    same = {"id": "chatcmpl-scripted", "object": "chat.completion", "created": 0, "model": script.model}
    if not stream:
        message = {"role": "assistant", "content": "".join(script.pieces), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return Reply(200, _JSON, (dump({**same, "choices": [choice], "usage": usage}),))
    same["object"] = "chat.completion.chunk"

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        return _event({**same, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    events = tuple(chunk({"content": piece}) for piece in script.pieces)
    closing = (chunk({}, "stop"), _event({**same, "choices": [], "usage": usage}))
    return Reply(200, _SSE, (chunk({"role": "assistant", "content": ""}),), events, closing, (b"data: [DONE]\n\n",))


def _azure(script: Script, stream: bool) -> Reply:
    """OpenAI's; a stream begins with what was made of the prompt."""
    said = _openai(script, stream)
    filtered = [{"prompt_index": 0, "content_filter_results": {}}]
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": filtered}
    return said._replace(opening=(_event(first), *said.opening)) if stream else said


def _anthropic(script: Script, stream: bool) -> Reply:
    given, made = script.input_tokens, len(script.pieces)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    message: dict[str, Any] = {"id": "msg_scripted", "type": "message", "role": "assistant", "model": script.model}
    if not stream:
        message |= {"content": [{"type": "text", "text": "".join(script.pieces)}], **end}
        return Reply(200, _JSON, (dump({**message, "usage": {"input_tokens": given, "output_tokens": made}}),))

    def event(kind: str, **more: Any) -> bytes:
        return _event({"type": kind, **more}, kind)

    message |= {"content": [], **dict.fromkeys(end), "usage": {"input_tokens": given, "output_tokens": 1}}
    block = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    opening = (event("message_start", message=message), block, event("ping"))
    finish = event("message_delta", delta=end, usage={"output_tokens": made})
    closing = (event("content_block_stop", index=0), finish)
    deltas = ({"type": "text_delta", "text": piece} for piece in script.pieces)
    events = tuple(event("content_block_delta", index=0, delta=delta) for delta in deltas)
    return Reply(200, _SSE, opening, events, closing, (event("message_stop"),))


def _gemini(script: Script, stream: bool) -> Reply:
    def document(text: str, made: int, **more: str) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, **more, "index": 0}
        given = script.input_tokens
        usage = {"promptTokenCount": given, "candidatesTokenCount": made, "totalTokenCount": given + made}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": script.model}

    made = len(script.pieces)
    if not stream:
        return Reply(200, _JSON, (dump(document("".join(script.pieces), made, finishReason="STOP")),))
    events = tuple(_event(document(piece, n)) for n, piece in enumerate(script.pieces, 1))
    return Reply(200, _SSE, events=events, closing=(_event(document("", made, finishReason="STOP")),))


def _bedrock(script: Script, stream: bool, reason: str = "end_turn") -> Reply:
    given, made = script.input_tokens, len(script.pieces)
    usage = {"inputTokens": given, "outputTokens": made, "totalTokens": given + made}
    counted = {"usage": usage, "metrics": {"latencyMs": 1}}
    if not stream:
        content = [{"text": "".join(script.pieces)}] if script.pieces else []
        output = {"message": {"role": "assistant", "content": content}}
        return Reply(200, _JSON, (dump({"output": output, "stopReason": reason, **counted}),))

    def event(name: str, **document: Any) -> bytes:
        return _frame(name, dump(document))

    opening = (event("messageStart", role="assistant"),)
    events = tuple(event("contentBlockDelta", contentBlockIndex=0, delta={"text": piece}) for piece in script.pieces)
    stop = (event("contentBlockStop", contentBlockIndex=0), event("messageStop", stopReason=reason))
    frames = {"content-type": "application/vnd.amazon.eventstream"}
    return Reply(200, frames, opening, events, (*stop, event("metadata", **counted)))


def _frame(name: str, payload: bytes) -> bytes:
    """One frame of Amazon's event stream: https://smithy.io/2.0/aws/amazon-eventstream.html, read 2026-11-20."""
    rows = b""
    for key, value in ((":event-type", name), (":content-type", "application/json"), (":message-type", "event")):
        rows += bytes([len(key)]) + key.encode() + pack("!BH", 7, len(value)) + value.encode()
    lengths = pack("!II", 16 + len(rows) + len(payload), len(rows))
    whole = lengths + pack("!I", crc32(lengths)) + rows + payload
    return whole + pack("!I", crc32(whole))
