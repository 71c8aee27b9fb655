"""A conversation as Anthropic's Messages hold it: a system prompt apart, and turns of blocks.

Consecutive turns of one role stay apart, as they were said; only the results of tools are one user turn, with the
user's text that directly follows, because the API wants all results of a turn's calls in the very next one. A system
message in mid-conversation goes to the others at the beginning.
https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (read 2026-11-20).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.core.types import Document, Image, Text
from llmctl.wire.values import json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmctl.core.types import Message, Part, Thought

Block = dict[str, Any]

MARKS = 4
"""How many cache marks a request may hold: https://platform.claude.com/docs/en/build-with-claude/prompt-caching."""
INVALID = "invalid_json"
"""The key under which arguments that are no JSON object are sent back: a tool's input must be an object."""
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")  # ids of other providers' calls may hold characters that this API refuses
_UNMARKED = ("thinking", "redacted_thinking")


def turns(messages: Sequence[Message], dropped: list[str]) -> tuple[str | list[Block], list[Block]]:
    """The system prompt ("" for none) and the turns; the names of what could not be kept go into `dropped`."""
    marked = [n for n, message in enumerate(messages) if message.cache]
    if len(marked) > MARKS:  # the last ones reach furthest
        dropped.append("cache")
    system: list[Block] = []
    out: list[Block] = []
    for n, message in enumerate(messages):
        blocks = _blocks(message, dropped)
        if n in marked[-MARKS:]:
            _mark(blocks, dropped)
        if message.role == "system":
            system += blocks
        elif message.role in ("tool", "user") and out and _ends_in_result(out[-1]):
            out[-1]["content"] += blocks
        elif message.role == "tool":
            out.append({"role": "user", "content": blocks})
        elif blocks or message.role == "user":  # a model that said nothing has no turn: the API refuses empty ones
            out.append({"role": message.role, "content": _content(blocks)})
    if out and out[-1]["role"] == "assistant" and not _prefill(out[-1]):
        out.pop()
    return _content(system), out


def _content(blocks: list[Block]) -> str | list[Block]:
    """The blocks, or just the text where that is all there is."""
    if not blocks:
        return ""
    first, *rest = blocks
    return blocks if rest or first.keys() != {"type", "text"} else str(first["text"])


def _ends_in_result(turn: Block) -> bool:
    content = turn["content"]
    return isinstance(content, list) and content[-1]["type"] == "tool_result"


def _prefill(turn: Block) -> bool:
    """Take white space, which the API refuses, off the end of a begun answer; say whether anything is left."""
    content = turn["content"]
    if isinstance(content, str):
        turn["content"] = content.rstrip()
    elif content[-1]["type"] == "text":
        text = content[-1]["text"].rstrip()
        turn["content"] = [*content[:-1], content[-1] | {"text": text}] if text else content[:-1]
    return bool(turn["content"])


def _mark(blocks: list[Block], dropped: list[str]) -> None:
    """Mark the last block that can be: the API refuses the mark on thoughts, and there may be no block at all."""
    block = next((block for block in reversed(blocks) if block["type"] not in _UNMARKED), None)
    if block is None:
        dropped.append("cache")
    else:
        block["cache_control"] = {"type": "ephemeral"}


def _blocks(message: Message, dropped: list[str]) -> list[Block]:
    """The blocks of one message. A text of nothing but white space is none: the API refuses it."""
    if message.name and message.role != "tool":
        dropped.append("name")
    parts = list(_parts(message.parts, dropped))
    if message.role == "system":
        dropped += [block["type"] for block in parts if block["type"] != "text"]
        return [block for block in parts if block["type"] == "text"]
    if message.role == "tool":
        result: Block = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": _content(parts)}
        return [result | {"is_error": True} if message.is_error else result]
    calls = [
        {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": _input(call.arguments)}
        for call in message.tool_calls
    ]
    spoken = [*parts, *calls]
    return [*_thoughts(message.thoughts), *spoken] if spoken else []  # no turn may end in a thought


def _thoughts(thoughts: Iterable[Thought]) -> Iterable[Block]:
    """The thoughts that Anthropic made: one without its seal is another's, and would be refused."""
    for thought in thoughts:
        if thought.redacted:
            yield {"type": "redacted_thinking", "data": thought.redacted}
        elif thought.signature:
            yield {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _parts(parts: Iterable[Part], dropped: list[str]) -> Iterable[Block]:
    for part in parts:
        match part:
            case Text(text):
                if text.strip():
                    yield {"type": "text", "text": text}
            case Image():
                if part.detail not in ("", "auto"):
                    dropped.append("detail")
                yield {"type": "image", "source": _source(part)}
            case Document(media_type, data, _):
                yield {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _source(image: Image) -> Block:
    """Where an image is; a `data:` address holds it, and is no address to Anthropic."""
    head, _, data = image.url.partition(";base64,")
    if data and head.startswith("data:"):
        return {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _id(given: str) -> str:
    return _NO_ID.sub("_", given)


def _input(arguments: str) -> Block:
    """The arguments as the object they must be; text that is none (a model wrote it) is kept whole, under one key."""
    if not arguments.strip():
        return {}
    value = json_object(arguments)
    return {INVALID: arguments} if value is None else value
