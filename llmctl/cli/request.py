"""The parts of a request that are more than text: `--schema`, `--option`, `--attach`, checked before anything is sent.

Only a command line that has one of them loads this module.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from llmctl.cli.output import one_line
from llmctl.cli.prompt import as_text, decoded, file_bytes
from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Params

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ATTACHMENT = 20 << 20
"""The most that is read of one attachment: no provider takes more in a request."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_PLAIN = ("user", "reasoning_effort", "stop")
_WHOLE = ("tools", "tool_choice", "functions", "function_call", "response_format")
"""Options that are JSON, or @FILE, and go into the canonical request."""
_FORBIDDEN = {
    "model": "-m names the model",
    "messages": "PROMPT, --file, --attach and --system make the messages",
    "contents": "PROMPT, --file, --attach and --system make the contents",
    "input": "PROMPT, --file, --attach and --system make the input",
    "inputs": "PROMPT, --file, --attach and --system make the input",
    "stream": "llmctl reads a stream wherever there is one; --no-stream shows the answer at its end",
    "stream_options": "llmctl asks for the usage by itself",
    "extra": "write its keys: -o KEY=VALUE",
}
"""Keys that would break the protocol under the hands of the reader, and what to use instead."""
_DEEPEST = 20


def schema_of(given: str, option: str = "--schema") -> dict[str, Any]:
    """The JSON Schema in a file, or in the argument itself when it begins with a brace. Raises UsageError."""
    inline = given.lstrip().startswith("{")
    where = option if inline else f"{option} {one_line(given)}"
    if inline:
        text = as_text(given, where)
    elif not given.strip() or given.strip() in ("true", "false"):
        raise UsageError(f"{option} is neither an object nor a file", hint='for instance \'{"type": "object"}\'')
    else:
        text = decoded(file_bytes(given, option), where)
    schema = _json(text, where)
    if not isinstance(schema, dict):
        raise UsageError(f"{where}: a schema is an object", hint='for instance {"type": "object"}')
    return schema


def options_of(words: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """What `-o KEY=VALUE` words say, as options of `Client.call`; `flags` are those that the command line has set.

    A parameter of ours is typed by its name; any other key goes to the provider as it is, with a dot for each level.
    Raises UsageError.
    """
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for word in words:
        key, equals, value = as_text(word, "--option").partition("=")
        if not equals or not key.strip("."):
            raise UsageError(f"--option {one_line(word)!r} is not KEY=VALUE", hint="for instance -o top_p=0.9")
        top = key.partition(".")[0]
        if top in _FORBIDDEN:
            raise UsageError(f"--option {top} would break the protocol", hint=_FORBIDDEN[top])
        if key in flags:
            raise UsageError(f"--option {key} and --{key.replace('_', '-')} are the same", hint="give one of them")
        if key in options:
            raise UsageError(f"--option {key} was given twice", hint="give it once")
        if key in Params.__dataclass_fields__:
            options[key] = _parameter(key, value)
        elif key in _WHOLE:
            options[key] = _whole(key, value)
        else:
            _nest(extra, key, value)
    return options | ({"extra": extra} if extra else {})


def _parameter(key: str, value: str) -> Any:
    if not value:
        raise UsageError(f"--option {key} is empty", hint="write a value after the =")
    if key == "stop" and value.startswith("["):
        return _json(value, "--option stop")
    return value if key in _PLAIN else _json_or_text(value)  # text where a number belongs is refused as such


def _whole(key: str, value: str) -> Any:
    where = f"--option {key}"
    if value.startswith("@"):
        return _json(decoded(file_bytes(value[1:], where), f"{where} {one_line(value[1:])}"), where)
    return value if key in ("tool_choice", "function_call") and value.isidentifier() else _json(value, where)


def _nest(extra: dict[str, Any], key: str, value: str) -> None:
    steps = key.split(".")
    if not all(steps) or len(steps) > _DEEPEST:
        raise UsageError(f"--option {one_line(key)!r} is not a key", hint="for instance generationConfig.seed=1")
    place: Any = extra
    for step in steps[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            break
    if not isinstance(place, dict) or steps[-1] in place:
        raise UsageError(f"--option {one_line(key)} was given twice", hint="give each key once")
    place[steps[-1]] = _json_or_text(value)


def _json_or_text(value: str) -> Any:
    try:
        return _json(value, "it")
    except UsageError:
        return value


def _json(text: str, where: str) -> Any:
    """The JSON document in `text`. Raises UsageError."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise UsageError(f"{where} is nested too deeply", hint="make it simpler") from error
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {one_line(str(error))}", hint="check the quotes and commas") from error


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def attachments_of(names: Sequence[str]) -> tuple[Image | Document, ...]:
    """The images and PDFs that `names` (files, or https addresses of images) stand for. Raises UsageError."""
    return tuple(_attachment(name) for name in names)


def _attachment(name: str) -> Image | Document:
    where = f"--attach {one_line(name)}"
    if re.match(r"https?://", name, re.IGNORECASE):
        return _linked(as_text(name, where), where)
    data = file_bytes(name, "--attach", MAX_ATTACHMENT)
    media_type = _media_type(data)
    if not media_type:
        raise _not_attachable(data, where)
    coded = b64encode(data).decode("ascii")
    if media_type.startswith("image/"):
        return Image(media_type, coded)
    plain = "".join(char if char.isalnum() or char in " .-()[]_" else "_" for char in os.path.basename(name))
    return Document(media_type, coded, plain[-100:] or "document.pdf")


def _linked(url: str, where: str) -> Image:
    """An image that the provider fetches itself."""
    if url[:5].lower() == "http:":
        raise UsageError(f"{where}: plain http is not asked for", hint="use an https address, or attach a file")
    host, _, path = url[8:].partition("/")
    if not host.strip() or any(char.isspace() or ord(char) < 0x20 for char in url):
        raise UsageError(f"{where} is not an address", hint="for instance https://host/cat.png")
    if path.partition("?")[0].lower().endswith(".pdf"):
        raise UsageError(f"{where}: a PDF cannot be linked", hint="fetch it, and attach the file")
    return Image(url=url)


def _media_type(data: bytes) -> str:
    """What the content itself says it is; "" for anything that cannot be attached."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")


def _not_attachable(data: bytes, where: str) -> UsageError:
    if not data:
        return UsageError(f"{where} is empty", hint="attach a PNG, JPEG, GIF, WebP or PDF")
    try:
        text = b"\x00" not in data and bool(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        text = False
    if text:
        return UsageError(f"{where} is text", hint="use --file for text")
    return UsageError(f"{where} is no image or PDF that models take", hint="attach a PNG, JPEG, GIF, WebP or PDF")
