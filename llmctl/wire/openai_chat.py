"""The OpenAI chat completions protocol, as OpenAI and everybody compatible with it speaks it.

https://platform.openai.com/docs/api-reference/chat (read 2026-11-20). Where a provider deviates, its row of the
provider table says so in `dialect`; this module interprets those keys and knows no provider by name. Reading is in
`openai_reading`; errors are in `openai_errors`.
"""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from llmctl.core.types import Document, Image, Text
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.openai_errors import classify
from llmctl.wire.openai_reading import decoder
from llmctl.wire.values import dump, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Message, Params, Part, Request, ResponseFormat, Tool
    from llmctl.wire.base import Endpoint

__all__ = ["body_of", "classify", "decoder", "encode", "listing"]

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
    "stop": "stop",
}
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_SAMPLES_AT: dict[str, tuple[str | None, ...]] = {"always": (), "by_default": ("none",), "with_effort": (None, "none")}
"""Which models of `fixed_sampling` sample as they are told, by their reasoning effort: those that do not reason."""
_TOOL_CHOICE_WORDS = ("auto", "none", "required")


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that this provider's dialect cannot take."""
    dialect = deployment.provider.dialect
    base = endpoint.api_base
    if request.inputs:
        path = "/embeddings"
    else:
        path = dialect.get("chat_path", "/chat/completions")
        if base == deployment.provider.api_base:  # a user's own address holds everything
            base = dialect.get("chat_base", base)
    body, dropped = body_of(request, deployment)
    headers = endpoint.headed(endpoint.authorization)
    return Encoded(HttpRequest("POST", base.rstrip("/") + path, headers, dump(body)), dropped)


def listing(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:  # noqa: ARG001 - a wire's signature
    """The request that lists the models."""
    return HttpRequest("GET", endpoint.api_base.rstrip("/") + "/models", endpoint.headed(endpoint.authorization), b"")


def body_of(request: Request, deployment: Deployment) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `request`, and the parameters that could not be put into it."""
    dialect = deployment.provider.dialect
    if request.inputs:
        return _vectors_body(request, deployment.model, dialect)
    dropped: list[str] = []
    messages = [_message(message, dialect, dropped) for message in request.messages]
    last = request.messages[-1] if request.messages else None
    if "prefill" in dialect and last and last.role == "assistant" and not last.tool_calls:
        messages[-1][dialect["prefill"]] = True
    body: dict[str, Any] = {"model": deployment.model, "messages": messages}
    _add_params(body, request.params, deployment, dropped)
    tools, choice = request.tools, request.tool_choice
    if choice not in (None, *_TOOL_CHOICE_WORDS) and dialect.get("named_tools") is False:
        tools, choice = tuple(tool for tool in tools if tool.name == choice), "required"
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
    if choice is not None:
        if choice != "auto" and "tool_choice" in dialect.get("drop", ()):
            dropped.append("tool_choice")
        else:
            body["tool_choice"] = _tool_choice(choice, dialect)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.stream:
        body["stream"] = True
        if dialect.get("stream_usage", "option") == "option":
            body["stream_options"] = {"include_usage": True}
    return merged(body, request.params.extra), tuple(dict.fromkeys(dropped))


def _vectors_body(request: Request, model: str, dialect: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    body: dict[str, Any] = {"model": model, "input": list(request.inputs)}
    dropped = []
    if request.dimensions is not None:
        if "dimensions" in dialect.get("drop", ()):
            dropped.append("dimensions")
        else:
            body[dialect.get("rename", {}).get("dimensions", "dimensions")] = request.dimensions
    if dialect.get("vectors") == "base64":
        body["encoding_format"] = "base64"
    return merged(body, request.params.extra), tuple(dropped)


def _add_params(body: dict[str, Any], params: Params, deployment: Deployment, dropped: list[str]) -> None:
    """Put the parameters into `body`, and the names of those that cannot be put into `dropped`."""
    dialect = deployment.provider.dialect
    rename: Mapping[str, str] = dialect.get("rename", {})
    drop = (*dialect.get("drop", ()), *_fixed(params, deployment))
    for name, known_as in _FIELDS.items():
        value, field = getattr(params, name), rename.get(name, known_as)
        if value is None or value == ():
            continue
        if field is None or name in drop:
            dropped.append(name)
        else:
            # A list of stops, never a lone string: not everybody takes one.
            body[field] = list(value) if name == "stop" else value
    if params.max_tokens is not None:
        body[dialect.get("max_tokens", "max_tokens")] = params.max_tokens


def _fixed(params: Params, deployment: Deployment) -> tuple[str, ...]:
    """The sampling parameters that this model refuses, or ignores, because it reasons.

    `fixed_sampling` names models up to a hyphen, the longest name wins: gpt-5 is gpt-5-mini and not gpt-5.1.
    """
    name = f"{deployment.base_model or deployment.model}-"
    rules: Mapping[str, Any] = deployment.provider.dialect.get("fixed_sampling", {})
    found = [(len(each), kind) for kind, models in rules.items() for each in models if name.startswith(f"{each}-")]
    samples_at = _SAMPLES_AT.get(max(found, default=(0, ""))[1])
    return () if samples_at is None or params.reasoning_effort in samples_at else _SAMPLING


def _message(message: Message, dialect: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": content_of(message.parts, dialect)}
    if message.cache:
        _mark(out, dialect, dropped)
    if message.tool_calls:
        out["content"] = out["content"] or None
        out["tool_calls"] = [
            {
                "id": _call_id(call.id, dialect),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        out["tool_call_id"] = _call_id(message.tool_call_id, dialect)
    elif message.name:
        if "name" in dialect.get("drop", ()):
            dropped.append("name")
        else:
            out["name"] = message.name
    thought = "".join(each.text for each in message.thoughts)
    if thought and "thoughts" in dialect:
        out[dialect["thoughts"]] = thought
    return out


def _call_id(said: str, dialect: Mapping[str, Any]) -> str:
    """A tool call's id as this provider takes it: where it wants so many letters and digits, another becomes a digest.

    The same id always becomes the same one, so that a result still finds its call.
    """
    size = dialect.get("tool_call_ids")
    if size is None or re.fullmatch(f"[A-Za-z0-9]{{{size}}}", said):
        return said
    return b32encode(sha256(said.encode("utf-8", "surrogatepass")).digest()).decode()[:size]


def _mark(out: dict[str, Any], dialect: Mapping[str, Any], dropped: list[str]) -> None:
    """Mark the last text of a message as the end of what the provider is asked to keep."""
    caching = dialect.get("prompt_cache")
    if caching == "automatic":
        return
    content = out["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = next((part for part in reversed(parts) if part.get("text")), None)
    if caching != "marker" or text is None:
        dropped.append("cache")
        return
    text["cache_control"] = {"type": "ephemeral"}
    out["content"] = parts


def content_of(parts: tuple[Part, ...], dialect: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    """The content of a message: a text where it is nothing else."""
    if all(isinstance(part, Text) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_part(part, dialect) for part in parts]


def _part(part: Part, dialect: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data, url, detail):
            image = {"url": url or f"data:{media_type};base64,{data}"} | ({"detail": detail} if detail else {})
            return {"type": "image_url", "image_url": image}
        case Document(media_type, data, name) if dialect.get("documents") == "document_url":
            named = {"document_name": name} if name else {}
            return {"type": "document_url", "document_url": f"data:{media_type};base64,{data}"} | named
        case Document(media_type, data, name):
            filename = name if "." in name else f"{name or 'document'}.pdf"
            return {"type": "file", "file": {"filename": filename, "file_data": f"data:{media_type};base64,{data}"}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
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
