"""A call to be made, and what a caller hands in for it, checked and canonical: prompts, messages, parameters, tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from sys import float_info
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.caching import Use
from llmctl.core.catalog import MAX_RETRIES
from llmctl.core.errors import UsageError
from llmctl.core.money import nano
from llmctl.core.record import CallRecord, ulid
from llmctl.core.types import Message, Params, Request, ResponseFormat, Text, Tool
from llmctl.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.catalog import Settings
    from llmctl.routing.plan import Plan

T = TypeVar("T")
_MOST = 10**12
_MOST_USD = 1e9
RANGES: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0, 2),
    "max_tokens": (int, 1, _MOST),
    "top_p": (float, 0, 1),
    "top_k": (int, 1, _MOST),
    "seed": (int, -(2**63), 2**63 - 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "reasoning_tokens": (int, 0, _MOST),
}
"""The numbers among the parameters: their kind, the least and the most; a test compares them with the configuration."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TYPES: dict[str, tuple[type, str]] = {
    "parallel_tool_calls": (bool, "true or false"), "user": (str, "a text"), "extra": (Mapping, "an object"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """One call to be made: what is asked, of whom, within which bounds, and under which labels."""

    request: Request
    plan: Plan
    policy: Policy
    command: str = "library"
    tags: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None
    keep_text: bool = True
    buffered: bool = False
    fixed_deadline: bool = False
    """Whether the caller set the total deadline, so that it is not stretched for a slow local model."""
    strict_params: bool = False
    """Whether a parameter that a target cannot take is refused, instead of left out and said."""
    prompt_tokens: int | None = None
    """The input tokens as known by the caller; None: they are estimated."""
    max_cost: int | None = None
    """The most that the call may cost, in nano-dollars."""
    cache: Use = Use()  # noqa: RUF009 - frozen, so it may be shared
    """How the call uses the cache."""


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
    checked = {name: _checked(name, value) for name, value in parameters.items() if value is not None}
    return replace(params or Params(), **checked)


def _checked(name: str, value: Any) -> Any:
    """The value of a parameter, if it is one that can be sent. Raises UsageError."""
    if name == "stop":
        stops = (value,) if isinstance(value, str) else value
        if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) and stop for stop in stops):
            raise UsageError(f"stop: {value!r} is not a text, nor a list of texts", hint='such as "END"')
        return tuple(stops)
    if name == "reasoning_effort" and value not in EFFORTS:
        raise UsageError(f"reasoning_effort: {value!r} is not an effort", hint=f"one of {', '.join(EFFORTS)}")
    if name in RANGES:
        kind, least, most = RANGES[name]
        fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not fits or not isfinite(value) or not least <= value <= most:
            what = f"{name}: {value!r} is not a {'whole ' if kind is int else ''}number that can be sent"
            raise UsageError(what, hint=f"{least:g} to {most:g}")
    if name in _TYPES and not isinstance(value, _TYPES[name][0]):
        raise UsageError(f"{name}: {value!r} cannot be sent", hint=f"it takes {_TYPES[name][1]}")
    return value


def within(name: str, value: T, most: float = float_info.max) -> T:
    """`value`, if it is a number from 0 to `most`. Raises UsageError."""
    if not isinstance(value, (int, float)) or not 0 <= value <= most:
        allowed = "0 or more" if most == float_info.max else f"0 to {most:g}"
        raise UsageError(f"{name}: {value!r} is not a number of {allowed}", hint="times are seconds")
    return value


def with_defaults(request: Request, defaults: Params) -> Request:
    """`request` with the deployment's parameters where it gives none of its own."""
    if defaults == Params():
        return request
    own = request.params
    chosen = {
        name: getattr(own, name) if getattr(own, name) not in (None, ()) else getattr(defaults, name)
        for name in Params.__dataclass_fields__
        if name != "extra"
    }
    return replace(request, params=Params(**chosen, extra={**defaults.extra, **own.extra}))


def nanousd_of(max_cost: float | None) -> int | None:
    """The most that a call may cost, from USD. Raises UsageError."""
    if max_cost is None:
        return None
    if not isinstance(max_cost, (int, float)) or not 0 <= max_cost <= _MOST_USD:
        raise UsageError(f"max_cost {max_cost!r} is not an amount", hint="write USD, such as 0.05")
    return nano(max_cost)


def policy_of(
    settings: Settings,
    retries: int | None,
    timeout: float | None,
    max_wait: float | None,
    strategy: str | None = None,
    *,
    restart: bool = False,
) -> Policy:
    """The bounds of a call: the caller's own, else the configured ones. Raises UsageError."""
    if strategy is not None:
        from llmctl.routing.balance import STRATEGIES  # few name one

        if strategy not in STRATEGIES:
            raise UsageError(f"unknown strategy {strategy!r}", hint=f"one of {', '.join(STRATEGIES)}")
    return Policy(
        strategy=strategy,
        retries=settings.retries if retries is None else within("retries", retries, MAX_RETRIES),
        tries=settings.tries,
        patience_s=settings.patience_s,
        max_wait_s=settings.max_wait_s if max_wait is None else within("max_wait", max_wait),
        total_s=settings.total_s if timeout is None else within("timeout", timeout),
        restart=restart,
    )


def tags_of(tags: Mapping[str, str] | None) -> dict[str, str]:
    """The tags of a call. Raises UsageError."""
    if any(not isinstance(word, str) for pair in (tags or {}).items() for word in pair):
        raise UsageError("tags are texts", hint='tags={"team": "web"}')
    return dict(tags or {})


def tools_of(tools: Sequence[Mapping[str, Any]], functions: Sequence[Mapping[str, Any]] = ()) -> tuple[Tool, ...]:
    """Canonical tools from the OpenAI shape, and from `functions`, as it had them before. Raises UsageError."""
    if not tools and not functions:
        return ()
    from llmctl.wire import openai_shape

    return (*openai_shape.tools_of(tools), *openai_shape.tools_of([{"function": each} for each in functions]))


def tool_choice_of(choice: str | Mapping[str, Any] | None) -> str | None:
    """The canonical tool choice from the OpenAI shape. Raises UsageError."""
    if choice is None or isinstance(choice, str):
        return choice
    from llmctl.wire import openai_shape

    return openai_shape.tool_choice_of(choice)


def shape_of(schema: Any, response_format: Mapping[str, Any] | None) -> ResponseFormat | None:
    """The shape that the answer must have, with a schema that can be checked. Raises UsageError."""
    if schema is None and response_format is None:
        return None
    if schema is not None and response_format is not None:
        raise UsageError("schema and response_format exclude each other", hint="give one of them")
    from llmctl.run.conform import check_schema, is_strict
    from llmctl.wire import openai_shape

    wanted = ResponseFormat("json_schema", schema)
    if response_format is not None:
        shape = openai_shape.response_format_of(response_format)
        if shape is None or shape.kind == "json":
            return shape
        wanted = shape
    checked = check_schema(wanted.schema)
    return replace(wanted, schema=checked, strict=wanted.strict and is_strict(checked))


def record_of(ask: Ask, now: float, dice: Callable[[], float], total_s: float) -> CallRecord:
    """The row that the call begins with."""
    return CallRecord(
        id=ulid(now, int(dice() * (1 << 40)) << 40 | int(dice() * (1 << 40))),
        started_at=now,
        command=ask.command,
        model=ask.plan.name,
        session=ask.session,
        tags=ask.tags,
        deadline_at=now + total_s,
    )


def answered(record: CallRecord, tier: str, saved_nanousd: int, took_ms: float, **facts: Any) -> CallRecord:
    """`record` of a call that the cache answered: it cost nothing, whoever had answered (`facts`)."""
    return replace(
        record,
        state="cached",
        cache=tier,
        finished_at=record.started_at + took_ms / 1000,
        input_tokens=0,
        output_tokens=0,
        cost_nanousd=0,
        saved_nanousd=saved_nanousd,
        latency_ms=took_ms,
        overhead_ms=took_ms,
        exit_code=0,
        **facts,
    )


def total_s_of(ask: Ask, prompt_tokens: int) -> float:
    """The total deadline of the call: longer for the embedded model's slow reading, unless the caller set it."""
    total_s = ask.policy.total_s
    if ask.fixed_deadline or not any(deployment.is_local for deployment in ask.plan.deployments):
        return total_s
    from llmctl.run.local import first_token_s

    return total_s + first_token_s(prompt_tokens)
