"""The OpenAI chat shape as an edge: what library callers hand in, turned into canonical messages and tools.

The shape of https://platform.openai.com/docs/api-reference/chat/create (read 2026-11-20), because everyone has it.
Whatever does not fit raises UsageError naming the place.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Message, Part, ResponseFormat, Role, Text, Thought, Tool, ToolCall
from llmctl.wire.values import obj

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
_THOUGHT = ("thinking", "signature", "data")
_HINT = "see the OpenAI chat shape"


def messages_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Canonical messages. Raises UsageError."""
    return tuple(_message(f"messages[{n}]", row) for n, row in enumerate(_rows("messages", rows)))


def tools_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Canonical tools from `{"type": "function", "function": {...}}`. Raises UsageError."""
    return tuple(_tool(f"tools[{n}]", row) for n, row in enumerate(_rows("tools", rows)))


def tool_choice_of(choice: str | Mapping[str, Any] | None) -> str | None:
    """The canonical tool choice: a word, or the named tool's name. Raises UsageError."""
    if choice is None or isinstance(choice, str):
        return choice
    if "name" in _object("tool_choice", choice):  # as function_call had it
        return _text("tool_choice.name", choice["name"])
    function = _object("tool_choice.function", choice.get("function"))
    return _text("tool_choice.function.name", function.get("name"))


def response_format_of(wanted: Any) -> ResponseFormat | None:
    """The canonical shape of an answer; None for plain text. Raises UsageError. The schema itself is not checked."""
    match _object("response_format", wanted).get("type"):
        case "text":
            return None
        case "json_object":
            return ResponseFormat("json")
        case "json_schema":
            where = "response_format.json_schema"
            row = _object(where, wanted.get("json_schema"))
            schema, strict = _object(f"{where}.schema", row.get("schema")), row.get("strict")
            name = _text(f"{where}.name", row.get("name"), "answer")
            return ResponseFormat("json_schema", schema, name, strict=strict is not False)
        case other:
            hint = "use text, json_object or json_schema"
            raise UsageError(f"response_format.type: {other!r} is not a shape", hint=hint)


def _rows(where: str, rows: Any) -> Iterable[Any]:
    if isinstance(rows, (str, bytes, dict)) or not hasattr(rows, "__iter__"):
        raise _misfit(where, "a list", rows)
    return cast("Iterable[Any]", rows)


def _message(where: str, row: Any) -> Message:
    row = _object(where, row)
    said = row.get("role")
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise UsageError(f"{where}.role: {said!r} is not a role", hint=f"use one of {', '.join(_ROLES)}")
    rows = _list(f"{where}.tool_calls", row.get("tool_calls"))
    calls = [_call(f"{where}.tool_calls[{n}]", call) for n, call in enumerate(rows)]
    if row.get("function_call") is not None:  # the shape before tools: one call, known by its name
        calls.append(_called(f"{where}.function_call", row["function_call"]))
    name = _text(f"{where}.name", row.get("name"), "")
    content = row.get("content")
    marked = [part for part in content if isinstance(part, dict)] if isinstance(content, (list, tuple)) else []
    return Message(
        role=cast("Role", role),
        parts=_parts(f"{where}.content", content),
        tool_calls=tuple(calls),
        tool_call_id=_text(f"{where}.tool_call_id", row.get("tool_call_id"), name if said == "function" else ""),
        thoughts=_thoughts(where, row) if role == "assistant" else (),
        name=name,
        is_error=role == "tool" and row.get("is_error") is True,
        cache=any(each.get("cache_control") is not None for each in (row, *marked)),
        maker=_text(f"{where}.maker", obj(row.get("provider_specific_fields")).get("maker"), ""),
    )


def _thoughts(where: str, row: dict[str, Any]) -> tuple[Thought, ...]:
    """What the model thought: Anthropic's blocks under LiteLLM's name, or else the bare text."""
    blocks = _list(f"{where}.thinking_blocks", row.get("thinking_blocks"))
    if not blocks:
        said = _text(f"{where}.reasoning_content", row.get("reasoning_content"), "")
        return (Thought(said),) if said else ()
    where = f"{where}.thinking_blocks"
    rows = [_object(f"{where}[{n}]", block) for n, block in enumerate(blocks)]
    words = [[_text(f"{where}.{key}", block.get(key), "") for key in _THOUGHT] for block in rows]
    return tuple(Thought(text, signature, redacted) for text, signature, redacted in words)


def _parts(where: str, content: Any) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_part(f"{where}[{n}]", part) for n, part in enumerate(_list(where, content)))


def _part(where: str, part: Any) -> Part:
    part = _object(where, part)
    match part.get("type"):
        case "text" | "input_text":
            return Text(_text(f"{where}.text", part.get("text")))
        case "image_url":
            image = part.get("image_url")
            url = _text(f"{where}.image_url", image.get("url") if isinstance(image, dict) else image)
            detail = _text(f"{where}.image_url.detail", image.get("detail"), "") if isinstance(image, dict) else ""
            return _image(url, detail)
        case "input_image":
            return _image(_text(f"{where}.image_url", part.get("image_url")), _text(where, part.get("detail"), ""))
        case "image" | "document":
            return _block(where, part)
        case "file":
            file = _object(f"{where}.file", part.get("file"))
            media_type, data = _data_url(_text(f"{where}.file.file_data", file.get("file_data")))
            if not data:
                hint = 'write "data:application/pdf;base64,..."'
                raise UsageError(f"{where}.file.file_data: a base64 data URL is needed", hint=hint)
            return Document(media_type, data, _text(f"{where}.file.filename", file.get("filename"), ""))
        case other:
            raise UsageError(f"{where}.type: {other!r} is not a content type", hint="use text, image_url or file")


def _image(url: str, detail: str) -> Image:
    media_type, data = _data_url(url)
    return Image(media_type, data, detail=detail) if data else Image(url=url, detail=detail)


def _block(where: str, part: dict[str, Any]) -> Part:
    """An image or a document as Anthropic writes it: `source` is base64 with its media type, or for an image a URL."""
    source = _object(f"{where}.source", part.get("source"))
    if source.get("type") == "url" and part["type"] == "image":
        return Image(url=_text(f"{where}.source.url", source.get("url")))
    if source.get("type") != "base64":
        raise UsageError(f"{where}.source.type: {source.get('type')!r} cannot be sent", hint="use base64")
    media_type, data = (_text(f"{where}.source.{key}", source.get(key)) for key in ("media_type", "data"))
    if part["type"] == "image":
        return Image(media_type, data)
    return Document(media_type, data, _text(f"{where}.title", part.get("title"), ""))


def _data_url(url: str) -> tuple[str, str]:
    """Media type and base64 data of a `data:` URL (RFC 2397), two empty strings for any other."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return "", ""
    return head[5:-7], data


def _call(where: str, row: Any) -> ToolCall:
    row = _object(where, row)
    called = _called(f"{where}.function", row.get("function"))
    return replace(called, id=_text(f"{where}.id", row.get("id")), signature=_signature(row))


def _called(where: str, function: Any) -> ToolCall:
    function = _object(where, function)
    arguments, name = function.get("arguments"), _text(f"{where}.name", function.get("name"))
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else json.dumps(arguments)
    return ToolCall(name, name, arguments)


def _signature(row: dict[str, Any]) -> str:
    """The seal of a call's thought, where LiteLLM keeps it, or where Gemini's own OpenAI endpoint does.

    docs.litellm.ai/blog/gemini_3 and ai.google.dev/gemini-api/docs/thought-signatures (read 2026-11-20).
    """
    function, google = row.get("function"), row.get("extra_content")
    kept = [row.get("provider_specific_fields"), google.get("google") if isinstance(google, dict) else None]
    kept.append(function.get("provider_specific_fields") if isinstance(function, dict) else None)
    found = (each.get("thought_signature") for each in kept if isinstance(each, dict))
    return next((seal for seal in found if isinstance(seal, str)), "")


def _tool(where: str, row: Any) -> Tool:
    row = _object(where, row)
    where = f"{where}.function"
    function = _object(where, row.get("function"))
    parameters, strict = function.get("parameters"), function.get("strict")
    return Tool(
        _text(f"{where}.name", function.get("name")),
        _text(f"{where}.description", function.get("description"), ""),
        {} if parameters is None else _object(f"{where}.parameters", parameters),
        strict if isinstance(strict, bool) else None,
    )


def _text(where: str, value: Any, default: str | None = None) -> str:
    """The string; None is `default` where there is one."""
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _misfit(where, "a string", value)
    return value


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misfit(where, "an object", value)
    return value


def _list(where: str, value: Any) -> Sequence[Any]:
    """The list; None is an empty one."""
    if value is not None and not isinstance(value, (list, tuple)):
        raise _misfit(where, "a list", value)
    return value or ()


def _misfit(where: str, needed: str, value: Any) -> UsageError:
    return UsageError(f"{where}: {needed} is needed, not {type(value).__name__}", hint=_HINT)
