"""The OpenAI chat shape as an edge: what library callers hand in, turned into canonical messages and tools.

The shape of https://platform.openai.com/docs/api-reference/chat/create (read 2026-11-20), because everyone has it.
Whatever does not fit raises UsageError naming the place.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Message, Part, Role, Text, Tool, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
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
    function = _object("tool_choice.function", _object("tool_choice", choice).get("function"))
    return _text("tool_choice.function.name", function.get("name"))


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
    calls = _list(f"{where}.tool_calls", row.get("tool_calls"))
    return Message(
        role=cast("Role", role),
        parts=_parts(f"{where}.content", row.get("content")),
        tool_calls=tuple(_call(f"{where}.tool_calls[{n}]", call) for n, call in enumerate(calls)),
        tool_call_id=_text(f"{where}.tool_call_id", row.get("tool_call_id"), ""),
    )


def _parts(where: str, content: Any) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_part(f"{where}[{n}]", part) for n, part in enumerate(_list(where, content)))


def _part(where: str, part: Any) -> Part:
    part = _object(where, part)
    match part.get("type"):
        case "text":
            return Text(_text(f"{where}.text", part.get("text")))
        case "image_url":
            image = part.get("image_url")
            url = _text(f"{where}.image_url", image.get("url") if isinstance(image, dict) else image)
            media_type, data = _data_url(url)
            return Image(media_type, data) if data else Image(url=url)
        case "file":
            file = _object(f"{where}.file", part.get("file"))
            media_type, data = _data_url(_text(f"{where}.file.file_data", file.get("file_data")))
            if not data:
                hint = 'write "data:application/pdf;base64,..."'
                raise UsageError(f"{where}.file.file_data: a base64 data URL is needed", hint=hint)
            return Document(media_type, data, _text(f"{where}.file.filename", file.get("filename"), ""))
        case other:
            raise UsageError(f"{where}.type: {other!r} is not a content type", hint="use text, image_url or file")


def _data_url(url: str) -> tuple[str, str]:
    """Media type and base64 data of a `data:` URL (RFC 2397), two empty strings for any other."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return "", ""
    return head[5:-7], data


def _call(where: str, row: Any) -> ToolCall:
    row = _object(where, row)
    function = _object(f"{where}.function", row.get("function"))
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else json.dumps(arguments)
    return ToolCall(
        _text(f"{where}.id", row.get("id")), _text(f"{where}.function.name", function.get("name")), arguments
    )


def _tool(where: str, row: Any) -> Tool:
    row = _object(where, row)
    where = f"{where}.function"
    function = _object(where, row.get("function"))
    parameters = function.get("parameters")
    return Tool(
        _text(f"{where}.name", function.get("name")),
        _text(f"{where}.description", function.get("description"), ""),
        {} if parameters is None else _object(f"{where}.parameters", parameters),
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
