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


def _joined(message: Json) -> Json:
    parts = message["content"]
    if not isinstance(parts, list) or any(part.get("type") != "text" for part in parts):
        return message
    return message | {"content": "".join(part["text"] for part in parts)}


def _with_document_names(body: Json, asked: Json) -> Json:
    contents = [message["content"] for message in asked.get("messages", ()) if isinstance(message["content"], list)]
    names = iter([part["name"] for content in contents for part in content if part["type"] == "document"])

    def named(message: Json) -> Json:
        parts = message["content"] if isinstance(message["content"], list) else ()
        given = [p | {"document_name": next(names)} if p.get("type") == "document_url" else p for p in parts]
        return message | {"content": given} if parts else message

    return _each_message(named)(body, asked)


def _with_results_in_one_turn(body: Json, _: Json) -> Json:
    turns: list[Json] = []
    for turn in body.get("messages", ()):
        before = turns[-1]["content"] if turns and turns[-1]["role"] == turn["role"] == "user" else ()
        if before and isinstance(before[0], dict) and before[0]["type"] == "tool_result":
            said = turn["content"]
            blocks = [{"type": "text", "text": said}] if isinstance(said, str) else said
            turns[-1] = turns[-1] | {"content": [*before, *blocks]}
        else:
            turns.append(turn)
    return body | {"messages": turns} if turns else body


def _without_closed_tools(body: Json, asked: Json) -> Json:
    used = any(message.get("tool_calls") for message in asked.get("messages", ()))
    return body if used or asked.get("tool_choice") != "none" else without(body, "toolConfig")


def _with_thoughts_told(body: Json, _: Json) -> Json:
    config = body.get("generationConfig", {})
    thinking = config.get("thinkingConfig", {})
    if not thinking.get("thinkingBudget"):
        return body
    return body | {"generationConfig": config | {"thinkingConfig": {"includeThoughts": True} | thinking}}


def _with_budget(body: Json, asked: Json) -> Json:
    config = body.get("generationConfig", {})
    level = config.get("thinkingConfig", {}).get("thinkingLevel")
    if not level or "effort" not in asked.get("reasoning", {}):
        return body
    return body | {"generationConfig": config | {"thinkingConfig": {"thinkingBudget": _BUDGETS[level]}}}


_BUDGETS = {"MINIMAL": 1024, "LOW": 1024, "MEDIUM": 8192, "HIGH": 24576}


def _without_unknown_effort(body: Json, asked: Json) -> Json:
    if "sonnet-4-5" not in asked.get("model", "") or "effort" not in body.get("output_config", {}):
        return body
    rest = without(body["output_config"], "effort")
    return without(body, "output_config") | ({"output_config": rest} if rest else {})


def _each_part(change: Callable[[Json], Json]) -> Callable[[Json, Json], Json]:
    def changed(body: Json, _: Json) -> Json:
        turns = [turn | {"parts": [change(part) for part in turn["parts"]]} for turn in body.get("contents", ())]
        return body | {"contents": turns} if turns else body

    return changed


def _with_plain_base64(part: Json) -> Json:
    data = part.get("inlineData")
    return part | {"inlineData": data | {"data": data["data"].translate(_PLAIN)}} if data else part


_PLAIN = str.maketrans("-_", "+/")


def _with_result(part: Json) -> Json:
    answer = part.get("functionResponse", {})
    said = answer.get("response", {})
    if said.keys() != {"output"} or not isinstance(said["output"], str):
        return part
    return part | {"functionResponse": answer | {"response": {"result": said["output"]}}}


def _with_media_type(part: Json) -> Json:
    file = part.get("fileData", {})
    if not file.get("fileUri", "").endswith(".png") or "mimeType" in file:
        return part
    return part | {"fileData": file | {"mimeType": "image/png"}}


def _without_role(body: Json, _: Json) -> Json:
    return (
        body | {"systemInstruction": without(body["systemInstruction"], "role")}
        if "systemInstruction" in body
        else body
    )


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
        ("openai", "azure", "groq"),
        lambda body, _: body | {"stop": [body["stop"]]} if isinstance(body.get("stop"), str) else body,
    ),
    Difference(
        "texts to embed are always a list, also when there is one",
        ("openai", "azure", "groq", "mistral", "together"),
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
    Difference(
        "texts that stand alone are one text: not everybody takes a list of them, least of all from a tool",
        ("openai", "azure", "groq", "together", "mistral"),
        _in_chat(_each_message(_joined)),
    ),
    Difference(
        "a document keeps its name, so that the model can call it by it", ("mistral",), _in_chat(_with_document_names)
    ),
    Difference(
        "the results of one turn's calls, and what the user says to them, are one turn, as this API asks for it",
        ("anthropic",),
        _with_results_in_one_turn,
    ),
    Difference(
        "tools that must not be called are not sent: Converse has no such choice, and would let them be called",
        ("bedrock",),
        _without_closed_tools,
    ),
    Difference(
        "the user is told, in the only place there is for it",
        ("bedrock",),
        lambda body, asked: body | {"requestMetadata": {"user": asked["user"]}} if "user" in asked else body,
    ),
    Difference(
        "an effort that this model does not know is left out, and said to be", ("anthropic",), _without_unknown_effort
    ),
    Difference(
        "the default type of a vector is not said",
        ("bedrock",),
        lambda body, _: without(body, "embedding_types") if body.get("embedding_types") == ["float"] else body,
    ),
    Difference(
        "an effort is the budget that Google itself makes of it: the generation asked knows no level",
        ("gemini",),
        _with_budget,
    ),
    Difference("what was thought is asked for: it is paid for", ("gemini",), _with_thoughts_told),
    Difference(
        "bytes are in the usual base64, of which protocol buffers' JSON takes both and this SDK writes the other",
        ("gemini",),
        _each_part(_with_plain_base64),
    ),
    Difference(
        "a result that is no object is one under `result`: the API says that its name may be that as well as `output`",
        ("gemini",),
        _each_part(_with_result),
    ),
    Difference("an image's type is told where its address shows it", ("gemini",), _each_part(_with_media_type)),
    Difference("a system instruction has no role", ("gemini",), _without_role),
)
