"""Requests that a fixture gives only as the arguments of its provider's SDK, as our own request.

Some things have no neutral form (a signed thought, a safety setting), so those fixtures hold no canonical call. What an
SDK's argument means is read here by its documented shape, and whatever has no name in our request goes into `extra`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmctl.core.types import (
    Document,
    Image,
    Message,
    Params,
    Part,
    Request,
    ResponseFormat,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from llmctl.wire.openai_shape import messages_of, response_format_of, tool_choice_of, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def plain(value: Any) -> Any:
    """`value` with the bytes that JSON cannot hold as base64 text, as they travel."""
    if isinstance(value, dict):
        return value.get("__bytes_b64__") or {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def camel(value: Any) -> Any:
    """`value` with its keys in camel case, as Google's wire has them and its SDK has not."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {_camel(key): camel(each) for key, each in value.items()}


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


# --- Anthropic -----------------------------------------------------------------------------------------------------


_ANTHROPIC_TOOL = {"name", "description", "input_schema", "strict"}


def anthropic(given: dict[str, Any]) -> Request:
    """The request of `messages.create(**given)`."""
    rest = dict(given)
    turns = rest.pop("messages")
    # A mark that says how long to keep is passed through too.
    longer = any(each["cache_control"].keys() != {"type"} for each in _marked(rest.get("system", [])))
    system = [] if longer else rest.pop("system", [])
    thinking, form = rest.pop("thinking", {}), rest.pop("output_config", {})
    choice = rest.pop("tool_choice", {})
    names = {"any": "required", "tool": choice.get("name")}
    rest.pop("model")
    if thinking and thinking.get("type") != "enabled":
        rest["thinking"] = thinking
    # Tools that are no functions, or that say more than a function does, are passed through.
    tools = () if any(not each.keys() <= _ANTHROPIC_TOOL for each in rest.get("tools", ())) else rest.pop("tools", ())
    schema = form.get("format", {}).get("schema")
    return Request(
        messages=(*_anthropic_system(system), *(each for turn in turns for each in _anthropic_turn(turn))),
        params=Params(
            max_tokens=rest.pop("max_tokens", None),
            temperature=rest.pop("temperature", None),
            top_p=rest.pop("top_p", None),
            top_k=rest.pop("top_k", None),
            stop=tuple(rest.pop("stop_sequences", ())),
            user=rest.pop("metadata", {}).get("user_id"),
            reasoning_tokens=thinking.get("budget_tokens"),
            reasoning_effort=form.get("effort"),
            parallel_tool_calls=False if choice.get("disable_parallel_tool_use") else None,
            extra={key: value for key, value in rest.items() if key != "stream"},
        ),
        tools=tuple(
            Tool(each["name"], each.get("description", ""), each["input_schema"], each.get("strict")) for each in tools
        ),
        tool_choice=names.get(choice["type"], choice["type"]) if choice else None,
        response_format=ResponseFormat("json_schema", schema) if schema else None,
        stream=rest.get("stream", False),
    )


def _marked(system: Any) -> list[dict[str, Any]]:
    return [each for each in system if isinstance(each, dict) and "cache_control" in each]


def _anthropic_system(system: Any) -> Iterable[Message]:
    if isinstance(system, str):
        system = [{"text": system}]
    return [Message("system", (Text(each["text"]),), cache="cache_control" in each) for each in system]


def _anthropic_turn(turn: dict[str, Any]) -> list[Message]:
    content = turn["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    cached = any("cache_control" in block for block in blocks)
    if turn["role"] == "assistant":
        return [_assistant(blocks, _anthropic_thought, _anthropic_call, _anthropic_part, cached=cached)]
    results = [
        Message(
            "tool",
            tuple(_anthropic_part(each) for each in _as_blocks(block.get("content", ""))),
            tool_call_id=block["tool_use_id"],
            is_error=block.get("is_error", False),
        )
        for block in blocks
        if block["type"] == "tool_result"
    ]
    parts = tuple(_anthropic_part(block) for block in blocks if block["type"] != "tool_result")
    return results + ([Message("user", parts, cache=cached)] if parts else [])


def _as_blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _anthropic_part(block: dict[str, Any]) -> Part:
    if block["type"] == "text":
        return Text(block["text"])
    source = block["source"]
    if block["type"] == "image":
        return Image(source.get("media_type", ""), source.get("data", ""), source.get("url", ""))
    return Document(source["media_type"], source["data"], block.get("title", ""))


def _anthropic_thought(block: dict[str, Any]) -> Thought | None:
    if block["type"] == "thinking":
        return Thought(block["thinking"], block.get("signature", ""))
    return Thought(redacted=block["data"]) if block["type"] == "redacted_thinking" else None


def _anthropic_call(block: dict[str, Any]) -> ToolCall | None:
    if block["type"] != "tool_use":
        return None
    return ToolCall(block["id"], block["name"], json.dumps(block["input"]))


def _assistant(
    blocks: list[dict[str, Any]],
    thought_of: Callable[[dict[str, Any]], Thought | None],
    call_of: Callable[[dict[str, Any]], ToolCall | None],
    part_of: Callable[[dict[str, Any]], Part],
    *,
    cached: bool = False,
) -> Message:
    thoughts = [thought_of(block) for block in blocks]
    calls = [call_of(block) for block in blocks]
    spoken = [b for b, thought, call in zip(blocks, thoughts, calls, strict=True) if thought is None and call is None]
    return Message(
        "assistant",
        tuple(part_of(block) for block in spoken),
        tool_calls=tuple(call for call in calls if call),
        thoughts=tuple(thought for thought in thoughts if thought),
        cache=cached,
    )


# --- Gemini --------------------------------------------------------------------------------------------------------

_GEMINI_PARAMS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_output_tokens": "max_tokens", "seed": "seed",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}  # fmt: skip
_GEMINI_OWN = ("automatic_function_calling", "http_options")
"""What only tells the SDK something."""
_GEMINI_TOP = ("safety_settings", "tool_config", "cached_content", "labels")


def gemini(given: dict[str, Any]) -> Request:
    """The request of `models.generate_content(**given)`."""
    config = plain(given.get("config") or {})
    for key in _GEMINI_OWN:
        config.pop(key, None)
    system = config.pop("system_instruction", ())
    system = [{"text": system}] if isinstance(system, str) else system["parts"] if system else ()
    contents = plain(given["contents"])
    if isinstance(contents, (str, dict)):
        contents = [contents]
    params = {ours: config.pop(theirs) for theirs, ours in _GEMINI_PARAMS.items() if theirs in config}
    schema = config.pop("response_json_schema", None)
    if schema is not None:
        config.pop("response_mime_type", None)
    tools = config.pop("tools", ())
    declared = [each for tool in tools for each in tool.get("function_declarations", ({},))]
    if any(not each or "parameters" in each for each in declared):  # no functions, or with a schema of Google's own
        declared = []
    extra = {_camel(key): camel(config.pop(key)) for key in _GEMINI_TOP if key in config}
    if tools and not declared:
        extra["tools"] = [{_camel(key): value for key, value in tool.items()} for tool in tools]
    stop = tuple(config.pop("stop_sequences", ()))
    budget = config.get("thinking_config", {}).get("thinking_budget")
    if config:
        extra["generationConfig"] = {_camel(k): v if k == "response_schema" else camel(v) for k, v in config.items()}
    return Request(
        messages=(
            *(Message("system", (_gemini_part(part),)) for part in system),
            *(each for content in contents for each in _gemini_turn(content)),
        ),
        params=Params(**params, stop=stop, reasoning_tokens=budget, extra=extra),
        tools=tuple(
            Tool(each["name"], each.get("description", ""), each.get("parameters_json_schema", {})) for each in declared
        ),
        response_format=ResponseFormat("json_schema", schema) if schema else None,
        stream=False,
    )


def _gemini_turn(content: Any) -> list[Message]:
    if isinstance(content, str):
        return [Message("user", (Text(content),))]
    blocks = content["parts"]
    if content.get("role") == "model":
        return [_assistant(blocks, _gemini_thought, _gemini_call, _gemini_part)]
    answers = [block["function_response"] for block in blocks if "function_response" in block]
    results = [
        Message("tool", (Text(json.dumps(each["response"])),), tool_call_id=each.get("id", ""), name=each["name"])
        for each in answers
    ]
    parts = tuple(_gemini_part(block) for block in blocks if "function_response" not in block)
    return results + ([Message("user", parts)] if parts else [])


def _gemini_part(block: dict[str, Any]) -> Part:
    if "text" in block:
        return Text(block["text"])
    if "file_data" in block:
        return Image(block["file_data"].get("mime_type", ""), url=block["file_data"]["file_uri"])
    inline = block["inline_data"]
    kind = Image if inline["mime_type"].startswith("image/") else Document
    return kind(inline["mime_type"], inline["data"])


def _gemini_thought(block: dict[str, Any]) -> Thought | None:
    return Thought(block.get("text", ""), block.get("thought_signature", "")) if block.get("thought") else None


def _gemini_call(block: dict[str, Any]) -> ToolCall | None:
    call = block.get("function_call")
    if call is None:
        return None
    return ToolCall(call.get("id", ""), call["name"], json.dumps(call["args"]), block.get("thought_signature", ""))


# --- OpenAI's chat ---------------------------------------------------------------------------------------------------

_CHAT_PARAMS = {
    "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "max_completion_tokens": "max_tokens",
    "seed": "seed", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty", "user": "user",
    "reasoning_effort": "reasoning_effort", "parallel_tool_calls": "parallel_tool_calls",
}  # fmt: skip


def chat(given: dict[str, Any]) -> Request:
    """The request of `chat.completions.create(**given)`."""
    rest = {key: value for key, value in given.items() if key not in ("model", "stream_options")}
    params = {ours: rest.pop(theirs) for theirs, ours in _CHAT_PARAMS.items() if theirs in rest}
    stop, form = rest.pop("stop", ()), rest.pop("response_format", None)
    return Request(
        messages=messages_of(rest.pop("messages")),
        tools=tools_of(rest.pop("tools", ())),
        tool_choice=tool_choice_of(rest.pop("tool_choice", None)),
        response_format=response_format_of(form) if form else None,
        stream=rest.pop("stream", False),
        params=Params(**params, stop=(stop,) if isinstance(stop, str) else tuple(stop), extra=rest),
    )


# --- Bedrock -------------------------------------------------------------------------------------------------------


def converse(given: dict[str, Any]) -> Request:
    """The request of `converse(**given)`: what it asks for is passed through, only the conversation is read."""
    rest = {key: value for key, value in plain(given).items() if key not in ("modelId", "messages", "system")}
    system = [Message("system", (Text(each["text"]),)) for each in given.get("system", ())]
    turns = [each for turn in plain(given["messages"]) for each in _turn(turn)]
    return Request((*system, *turns), Params(extra=rest), stream=False)


def _turn(turn: dict[str, Any]) -> list[Message]:
    blocks = turn["content"]
    if turn["role"] == "assistant":
        return [_assistant(blocks, _converse_thought, _converse_call, lambda block: Text(block["text"]))]
    results = [
        Message(
            "tool",
            tuple(Text(each["text"] if "text" in each else json.dumps(each["json"])) for each in result["content"]),
            tool_call_id=result["toolUseId"],
            is_error=result.get("status") == "error",
        )
        for result in (block["toolResult"] for block in blocks if "toolResult" in block)
    ]
    parts = tuple(_converse_part(block) for block in blocks if "toolResult" not in block)
    return results + ([Message("user", parts)] if parts else [])


def _converse_part(block: dict[str, Any]) -> Part:
    if "text" in block:
        return Text(block["text"])
    kind = "image" if "image" in block else "document"
    data = block[kind]["source"]["bytes"]
    if kind == "image":
        return Image(f"image/{block[kind]['format']}", data)
    return Document(f"application/{block[kind]['format']}", data, block[kind]["name"])


def _converse_thought(block: dict[str, Any]) -> Thought | None:
    thought = block.get("reasoningContent")
    if thought is None:
        return None
    said = thought.get("reasoningText", {})
    return Thought(said.get("text", ""), said.get("signature", ""), thought.get("redactedContent", ""))


def _converse_call(block: dict[str, Any]) -> ToolCall | None:
    call = block.get("toolUse")
    return None if call is None else ToolCall(call["toolUseId"], call["name"], json.dumps(call["input"]))


_BY_CALL: dict[str, Callable[[dict[str, Any]], Request]] = {
    "messages.create": anthropic,
    "models.generate_content": gemini,
    "chat.completions.create": chat,
    "converse": converse,
}


def reader_of(sdk_call: str) -> Callable[[dict[str, Any]], Request] | None:
    """What reads the arguments of a call of an SDK ("converse|converse_stream" names two), None where nothing does."""
    return _BY_CALL.get(sdk_call.partition("|")[0])
