"""Ids that hold a conversation's tool calls and their results together, wherever each turn was made.

Some servers give calls no id, and some count them anew in each turn; Anthropic and Bedrock refuse a request in which
two calls share one (github.com/anomalyco/opencode/issues/1279, read 2026-11-20).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.core.types import Message


def paired(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """`messages` with an id of its own for every call, and the same for its result; ids that are so stay as they are.

    Where calls of one turn share an id, their results are taken in the order of the calls.
    """
    used: dict[str, int] = {}
    ours: dict[str, list[str]] = {}
    out: list[Message] = []
    for message in messages:
        if message.tool_calls:
            ours, calls = defaultdict(list), []
            for call in message.tool_calls:
                unique = _unused(call.id or "call", used)
                ours[call.id].append(unique)
                calls.append(replace(call, id=unique))
            message = replace(message, tool_calls=tuple(calls))  # noqa: PLW2901 - the same turn
        elif message.role == "tool" and (ids := ours.get(message.tool_call_id)):
            answered = ids.pop(0) if len(ids) > 1 else ids[0]
            message = replace(message, tool_call_id=answered)  # noqa: PLW2901 - the same turn
        out.append(message)
    return tuple(out)


def _unused(name: str, used: dict[str, int]) -> str:
    """`name`, with the first number after it that makes it new; `used` holds where the search goes on."""
    n, unique = used.get(name, 1), name
    while unique in used:
        n += 1
        unique = f"{name}_{n}"
    used[unique] = 1
    used[name] = n
    return unique
