"""Where we deliberately send other JSON than a provider's SDK, each with its reason. Nothing else may differ."""

from __future__ import annotations

import re
from base64 import b32encode
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """`ours` makes, of the body that the SDK sends and the neutral call behind it, the body that we send."""

    why: str
    providers: tuple[str, ...]
    ours: Callable[[Json, Json], Json]


def without(row: Json, *keys: str) -> Json:
    """`row` without some keys."""
    return {key: value for key, value in row.items() if key not in keys}


def _each_message(change: Callable[[Json], Json]) -> Callable[[Json, Json], Json]:
    return lambda body, _: body | {"messages": [change(message) for message in body.get("messages", [])]}


def _in_chat(change: Callable[[Json, Json], Json]) -> Callable[[Json, Json], Json]:
    return lambda body, asked: change(body, asked) if "messages" in body else body


def _without_index(message: Json) -> Json:
    calls = message.get("tool_calls")
    return message | {"tool_calls": [without(call, "index") for call in calls]} if calls else message


def _with_our_max_tokens(body: Json, asked: Json) -> Json:
    if "messages" not in asked or "max_tokens" not in body:
        return body
    return body | {"max_tokens": 8192 + body.get("thinking", {}).get("budget_tokens", 0)}


def _documented(value: Any) -> Any:
    if isinstance(value, list):
        return [_documented(each) for each in value]
    if not isinstance(value, dict):
        return value
    spelt = {key: key if key in _FREE else re.sub("_([a-z])", lambda m: m[1].upper(), key) for key in value}
    return {spelt[key]: each if key in _FREE else _documented(each) for key, each in value.items()}


_FREE = ("args", "response", "parameters_json_schema", "responseJsonSchema", "responseSchema")
"""Fields of Gemini that hold a user's own names, or whose spelling we share with the SDK."""


def _continued(messages: list[Json]) -> list[Json]:
    messages = [without(message, "prefix", "name") for message in messages]
    last = messages[-1]
    prefix = last["role"] == "assistant" and not last.get("tool_calls")
    return [*messages[:-1], last | {"prefix": True}] if prefix else messages


def _short(said: str) -> str:
    return said if len(said) == 9 and said.isalnum() else b32encode(sha256(said.encode()).digest()).decode()[:9]


def _with_short_ids(message: Json) -> Json:
    if "tool_call_id" in message:
        return message | {"tool_call_id": _short(message["tool_call_id"])}
    calls = message.get("tool_calls")
    return message | {"tool_calls": [call | {"id": _short(call["id"])} for call in calls]} if calls else message


DIFFERENCES = (
    Difference(
        "usage is always asked for where it must be: a call without usage cannot be accounted",
        ("openai", "azure"),
        lambda body, _: body | {"stream_options": {"include_usage": True}} if body.get("stream") else body,
    ),
    Difference(
        "`stream` is sent only when it is true: false is every provider's default",
        ("mistral",),
        lambda body, _: body if body.get("stream") else without(body, "stream"),
    ),
    Difference(
        "stop is always a list: Together takes nothing else, and everybody takes a list",
        ("openai", "azure"),
        lambda body, _: body | {"stop": [body["stop"]]} if isinstance(body.get("stop"), str) else body,
    ),
    Difference(
        "texts to embed are always a list, also when there is one",
        ("openai", "azure", "mistral", "together"),
        lambda body, _: body | {"input": [body["input"]]} if isinstance(body.get("input"), str) else body,
    ),
    Difference(
        "a tool call's index is a streaming field: no API asks for it in a message",
        ("mistral", "together"),
        _in_chat(_each_message(_without_index)),
    ),
    Difference(
        "an assistant turn that only calls tools has no text: null, where this SDK writes an empty string",
        ("together",),
        _in_chat(_each_message(lambda m: m | {"content": m["content"] or None} if m.get("tool_calls") else m)),
    ),
    Difference(
        "the SDK writes out its defaults for a turn: not a prefix to continue, and the name of the tool beside its id; "
        "a last turn of the assistant is one to continue, which this API takes only when it says so",
        ("mistral",),
        _in_chat(
            lambda body, _: body | {"messages": _continued([without(m, "prefix", "name") for m in body["messages"]])}
        ),
    ),
    Difference(
        "a tool call's id has nine letters and digits, or this API refuses it: what another provider wrote is replaced",
        ("mistral",),
        _in_chat(_each_message(_with_short_ids)),
    ),
    Difference(
        "max_tokens must be sent: where the caller set none, ours is what every model of the family writes",
        ("anthropic",),
        lambda body, asked: body if "max_tokens" in asked.get("params", {}) else _with_our_max_tokens(body, asked),
    ),
    Difference(
        "an empty generationConfig says nothing: this SDK writes one wherever it was given any configuration",
        ("gemini",),
        lambda body, _: body if body.get("generationConfig", True) else without(body, "generationConfig"),
    ),
    Difference(
        "fields are spelt as the API documents them: its JSON takes both spellings, and this SDK mixes them",
        ("gemini",),
        lambda body, _: _documented(body),
    ),
)
