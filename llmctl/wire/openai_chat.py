"""The OpenAI chat completions protocol, as OpenAI and everybody compatible with it speaks it.

https://platform.openai.com/docs/api-reference/chat (read 2026-11-20). Where a provider deviates, its row of the
provider table says so in `dialect`; this module interprets those keys and knows no provider by name. Reading is in
`openai_reading`; errors are in `openai_errors`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Text
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.openai_errors import classify
from llmctl.wire.openai_reading import decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Message, Params, Part, Request, ResponseFormat, Tool
    from llmctl.wire.base import Endpoint

__all__ = ["classify", "decoder", "encode"]

# Our parameter -> the field on the wire; a dialect may rename a field or drop a parameter.
_FIELDS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "reasoning_effort": "reasoning_effort",
    "reasoning_tokens": None,  # the protocol has an effort, no budget
    "parallel_tool_calls": "parallel_tool_calls",
    "user": "user",
}
_TOOL_CHOICE_WORDS = ("auto", "none", "required")


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that this provider's dialect cannot take.

    Raises UsageError for what JSON cannot hold.
    """
    dialect = deployment.provider.dialect
    body: dict[str, Any] = {
        "model": deployment.model,
        "messages": [_message(message) for message in request.messages],
    }
    dropped = _add_params(body, request.params, dialect)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, dialect)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.stream:
        body["stream"] = True
        if dialect.get("stream_usage", "option") == "option":
            body["stream_options"] = {"include_usage": True}
    body.update(request.params.extra)
    headers = {"content-type": "application/json", "accept": "application/json", **dialect.get("headers", {})}
    if endpoint.key:
        headers["authorization"] = f"Bearer {endpoint.key.reveal()}"
    base = endpoint.api_base
    if base == deployment.provider.api_base:  # a user's own address holds everything
        base = dialect.get("chat_base", base)
    url = base.rstrip("/") + dialect.get("chat_path", "/chat/completions")
    return Encoded(HttpRequest("POST", url, headers, _dump(body)), dropped)


def _dump(body: Mapping[str, Any]) -> bytes:
    # ASCII escapes: a lone surrogate in a user's text still makes valid JSON.
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        hint = "check the parameters, the tools and the schema"
        raise UsageError(f"the request cannot be written as JSON: {error}", hint=hint) from error


def _add_params(body: dict[str, Any], params: Params, dialect: Mapping[str, Any]) -> tuple[str, ...]:
    """Put the parameters into `body`; the names of those that could not be put."""
    rename: Mapping[str, str] = dialect.get("rename", {})
    drop = dialect.get("drop", ())
    dropped: list[str] = []
    for name, field in _FIELDS.items():
        value = getattr(params, name)
        if value is None:
            continue
        if field is None or name in drop:
            dropped.append(name)
        else:
            body[rename.get(name, field)] = value
    if params.max_tokens is not None:
        body[dialect.get("max_tokens", "max_tokens")] = params.max_tokens
    if params.stop:
        if "stop" in drop:
            dropped.append("stop")
        else:
            body["stop"] = list(params.stop)  # never a lone string: not everybody takes one
    return tuple(dropped)


def _message(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": _content(message.parts)}
    if message.tool_calls:
        out["content"] = out["content"] or None
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        out["tool_call_id"] = message.tool_call_id
    return out


def _content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data, url):
            return {"type": "image_url", "image_url": {"url": url or f"data:{media_type};base64,{data}"}}
        case Document(media_type, data, name):
            filename = name if "." in name else f"{name or 'document'}.pdf"
            return {"type": "file", "file": {"filename": filename, "file_data": f"data:{media_type};base64,{data}"}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _tool_choice(choice: str, dialect: Mapping[str, Any]) -> str | dict[str, Any]:
    if choice == "required":
        return str(dialect.get("tool_choice_required", choice))
    if choice in _TOOL_CHOICE_WORDS:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind == "json":
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}
