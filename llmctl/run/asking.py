"""What a caller of the library hands in, checked and made canonical: prompts, messages, parameters, tools."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from sys import float_info
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.errors import UsageError
from llmctl.core.types import Message, Params, Text, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")
_NO_NUMBERS = ("stop", "reasoning_effort", "parallel_tool_calls", "user", "extra")


def messages_of(
    prompt: str | None, messages: Sequence[Message | Mapping[str, Any]] | None, system: str | None
) -> tuple[Message, ...]:
    """The turns of a prompt, or of messages (ours or OpenAI-shaped), after the system prompt. Raises UsageError."""
    if (prompt is None) == (messages is None):
        raise UsageError("give either a prompt or messages", hint='complete("hello") or complete(messages=[...])')
    given: tuple[Message, ...]
    if messages is None:
        if not isinstance(prompt, str):
            raise UsageError(f"the prompt is text, not {type(prompt).__name__}", hint="messages=[...] takes turns")
        given = (Message("user", (Text(prompt),)),)
    elif all(isinstance(message, Message) for message in messages):
        given = tuple(message for message in messages if isinstance(message, Message))
    else:
        from llmctl.wire import openai_shape

        mixed = next((n for n, message in enumerate(messages) if isinstance(message, Message)), None)
        if mixed is not None:
            raise UsageError(f"messages[{mixed}]: Message objects and dicts are mixed", hint="give all in one shape")
        given = openai_shape.messages_of(message for message in messages if not isinstance(message, Message))
    if not any(message.parts or message.tool_calls for message in given) or prompt == "":
        raise UsageError("the prompt is empty", hint="say what to ask")
    return (Message("system", (Text(system),)), *given) if system else given


def params_of(params: Params | None, parameters: Mapping[str, Any]) -> Params:
    """`params` with the `parameters` given by name. Raises UsageError for an unknown one, or no finite number."""
    unknown = [name for name in parameters if name not in Params.__dataclass_fields__]
    if unknown:
        known = ", ".join(Params.__dataclass_fields__)
        raise UsageError(f"unknown option {unknown[0]!r}", hint=f"request parameters are: {known}")
    stop = parameters.get("stop")
    if stop is not None:
        parameters = {**parameters, "stop": (stop,) if isinstance(stop, str) else tuple(stop)}
    for name, value in parameters.items():
        number = name not in _NO_NUMBERS and value is not None
        if number and (not isinstance(value, (int, float)) or not isfinite(value)):
            raise UsageError(f"{name}: {value!r} is not a number that can be sent", hint="give a finite number")
    return replace(params or Params(), **{name: value for name, value in parameters.items() if value is not None})


def within(name: str, value: T, most: float = float_info.max) -> T:
    """`value`, if it is a number from 0 to `most`. Raises UsageError."""
    if not isinstance(value, (int, float)) or not 0 <= value <= most:
        allowed = "0 or more" if most == float_info.max else f"0 to {most:g}"
        raise UsageError(f"{name}: {value!r} is not a number of {allowed}", hint="times are seconds")
    return value


def tools_of(tools: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Canonical tools from the OpenAI shape. Raises UsageError."""
    if not tools:
        return ()
    from llmctl.wire import openai_shape

    return openai_shape.tools_of(tools)


def tool_choice_of(choice: str | Mapping[str, Any] | None) -> str | None:
    """The canonical tool choice from the OpenAI shape. Raises UsageError."""
    if choice is None or isinstance(choice, str):
        return choice
    from llmctl.wire import openai_shape

    return openai_shape.tool_choice_of(choice)
