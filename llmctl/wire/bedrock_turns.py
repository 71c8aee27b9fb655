"""Conversations in Converse's form: system blocks, and turns of content blocks by user and assistant in alternation.

The rules are those of https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html (read
2026-11-20): image and document formats, the characters of document names and of tool identifiers, no blank text.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Text
from llmctl.wire.values import json_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.core.types import Message, Part, Thought

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_CACHE_POINT = {"cachePoint": {"type": "default"}}
_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


def turns_of(
    messages: tuple[Message, ...], dropped: list[str], *, sealed: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System blocks and turns. Tool results are the user's, and what one side says in a row is one turn.

    `sealed` says that the model takes back only thoughts which its maker has sealed. What cannot be sent goes into
    `dropped`. Raises UsageError for what has no form.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names: set[str] = set()
    for message in messages:
        if message.role == "system" and not all(isinstance(part, Text) for part in message.parts):
            raise UsageError("Amazon Bedrock takes text alone as system prompt", hint="attach files to the prompt")
        blocks = list(_blocks(message, names, dropped, sealed=sealed))
        if blocks and message.cache:
            blocks.append(_CACHE_POINT)
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "system":
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:  # a model that said nothing has no turn: empty ones are refused
            turns.append({"role": role, "content": blocks})
        if message.name and message.role != "tool":
            dropped.append("name")
    return system, turns


def _blocks(message: Message, names: set[str], dropped: list[str], *, sealed: bool) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {"toolResult": _result(message, names, dropped)}
        return
    # A text of nothing but white space is refused, and so is a turn that ends in a thought.
    parts = [part for part in message.parts if not (isinstance(part, Text) and not part.text.strip())]
    for thought in message.thoughts if parts or message.tool_calls else ():
        if thought.redacted or thought.signature or not sealed:
            yield {"reasoningContent": _thought(thought)}
        else:
            dropped.append("thoughts")
    for part in parts:
        yield _part(part, names, dropped)
    for call in message.tool_calls:
        value = json_object(call.arguments)
        if value is None:
            value = {"invalid_arguments": call.arguments} if call.arguments.strip() else {}
        yield {"toolUse": {"toolUseId": _call_id(call.id), "name": call.name, "input": value}}
    if not parts and message.role == "user":
        yield {"text": message.text}


def _thought(thought: Thought) -> dict[str, Any]:
    if thought.redacted:
        return {"redactedContent": thought.redacted}
    return {"reasoningText": {"text": thought.text} | ({"signature": thought.signature} if thought.signature else {})}


def _result(message: Message, names: set[str], dropped: list[str]) -> dict[str, Any]:
    if all(isinstance(part, Text) for part in message.parts):
        value = json_object(message.text)
        content = [{"text": message.text} if value is None else {"json": value}]
    else:
        content = [_part(part, names, dropped) for part in message.parts]
    status = "error" if message.is_error else "success"
    return {"toolUseId": _call_id(message.tool_call_id), "content": content, "status": status}


def _part(part: Part, names: set[str], dropped: list[str]) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"text": text}
        case Image(media_type, data, url, detail):
            if detail not in ("", "auto"):
                dropped.append("detail")
            source = {"s3Location": {"uri": url}} if url else {"bytes": data}
            return {"image": {"format": _image_format(media_type, url), "source": source}}
        case Document(media_type, data, name):
            kind = _DOCUMENTS.get(media_type)
            if kind is None:
                raise UsageError(
                    f"Amazon Bedrock takes no document of type {media_type!r}", hint=f"it takes {_named(_DOCUMENTS)}"
                )
            return {"document": {"format": kind, "name": _document_name(name, kind, names), "source": {"bytes": data}}}


def _image_format(media_type: str, url: str) -> str:
    if url and not media_type:
        media_type = "image/" + url.rpartition(".")[2].lower()
    if url and not url.startswith("s3://"):
        raise UsageError("Amazon Bedrock fetches no images: a URL cannot be sent", hint="attach the image as a file")
    if media_type not in _IMAGES:
        raise UsageError(f"Amazon Bedrock takes no image of type {media_type!r}", hint=f"it takes {_named(_IMAGES)}")
    return _IMAGES[media_type]


def _named(formats: dict[str, str]) -> str:
    return ", ".join(dict.fromkeys(formats.values()))


def _document_name(name: str, kind: str, names: set[str]) -> str:
    """`name` in the characters that are allowed, without its ending, and no two alike: what Converse asks for."""
    name = re.sub(r"[^a-zA-Z0-9\s()\[\]-]+", "-", name.removesuffix(f".{kind}"))
    name = " ".join(name.split())[:190].strip(" -") or "document"
    unique, n = name, 1
    while unique in names:
        n += 1
        unique = f"{name} {n}"
    names.add(unique)
    return unique


def _call_id(name: str) -> str:
    """`name`, or a stand-in that is always the same where another provider's identifier has a form refused here."""
    if _CALL_ID.fullmatch(name):
        return name
    return "call_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
