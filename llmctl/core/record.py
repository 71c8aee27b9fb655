"""What one call leaves behind: the answer with its attempts, as the library returns it and the ledger keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from llmctl.core.money import usd
from llmctl.core.types import Completion, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["started", "ok", "failed", "incomplete", "cancelled", "cached", "refused"]
AttemptRole = Literal["primary", "retry", "fallback", "check"]
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(now: float, randomness: int) -> str:
    """A ULID: 48 bits of milliseconds, then 80 bits of `randomness`, in Crockford base 32 (github.com/ulid/spec)."""
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | (randomness & ((1 << 80) - 1))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one deployment; one row of `attempts`. `outcome` is "ok" or an error class."""

    n: int
    deployment: str
    provider: str
    model: str
    role: AttemptRole
    outcome: str
    started_at: float
    status: int | None = None
    first_token_ms: float | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_nanousd: int | None = None
    retry_after_s: float | None = None
    request_id: str = ""
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The attempt as `ask --json` shows it."""
        return {
            "n": self.n,
            "deployment": self.deployment,
            "provider": self.provider,
            "model": self.model,
            "role": self.role,
            "outcome": self.outcome,
            "status": self.status,
            "latency_ms": _ms(self.latency_ms),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": usd(self.cost_nanousd),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One row of `calls`: complete as soon as it exists, and replaced by a fuller one when the call ends."""

    id: str
    started_at: float
    command: str
    model: str
    state: State = "started"
    finished_at: float | None = None
    served_by: str | None = None
    provider: str | None = None
    deployment: str | None = None
    session: str | None = None
    cache: str = "off"
    fallback: bool = False
    attempt_count: int = 0
    reported_model: str | None = None
    system_fingerprint: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_estimated: bool = False
    cost_nanousd: int | None = None
    saved_nanousd: int = 0
    price_version: str | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    exit_code: int | None = None
    drill: bool = False
    complexity: float | None = None
    deadline_at: float | None = None
    """When the call is over at the latest (Unix seconds): a row that is `started` after it was interrupted."""
    tags: Mapping[str, str] = field(default_factory=dict)

    def with_usage(self, usage: Usage | None) -> CallRecord:
        """This record with the tokens of `usage`; unchanged for None."""
        if usage is None:
            return self
        tokens = asdict(usage)  # under the names that the record has for them, but for one
        return replace(self, tokens_estimated=tokens.pop("estimated"), **tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returns: the completion, who really gave it, what it cost, and every attempt on the way."""

    record: CallRecord
    completion: Completion
    attempts: tuple[Attempt, ...]
    waited_ms: float = 0.0
    dropped: tuple[str, ...] = ()
    route: Mapping[str, Any] = field(default_factory=dict)
    parsed: Any = None
    maker: str = ""
    cache_age_s: float | None = None
    """How old the kept answer was, in seconds; None where it is not from the cache."""

    @property
    def id(self) -> str:
        """The call's id in the ledger (a ULID)."""
        return self.record.id

    @property
    def text(self) -> str:
        """The answer's text; where the model refused instead, its refusal."""
        return self.completion.text or self.completion.refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls the model asked for."""
        return self.completion.tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; None when the provider never said."""
        return self.completion.finish_reason

    @property
    def usage(self) -> Usage:
        """The tokens of the answer."""
        return self.completion.usage or Usage()

    @property
    def served_by(self) -> str | None:
        """`provider/model` of the deployment that answered."""
        return self.record.served_by

    @property
    def reported_model(self) -> str | None:
        """The model name the server itself reported."""
        return self.record.reported_model

    @property
    def cost_usd(self) -> float | None:
        """The cost in USD, None when a price is unknown."""
        return usd(self.record.cost_nanousd)

    @property
    def cache(self) -> str:
        """How the cache took part: off, miss, exact, canonical or semantic."""
        return self.record.cache

    @property
    def fallback(self) -> bool:
        """Whether another than the primary answered."""
        return self.record.fallback

    def as_message(self) -> dict[str, Any]:
        """The OpenAI-shaped assistant turn, to be appended to `messages`, with all that the next turn needs.

        What a model thought goes back to it in `thinking_blocks`, and the seal of a call's thought in its
        `provider_specific_fields`, where LiteLLM keeps them too (docs.litellm.ai/docs/reasoning_content, 2026-11-20).
        """
        made = self.completion
        message: dict[str, Any] = {"role": "assistant", "content": self.text or (None if made.tool_calls else "")}
        if made.tool_calls:
            message["tool_calls"] = [_call_row(call) for call in made.tool_calls]
        if made.thoughts:
            message["thinking_blocks"] = [
                {"type": "redacted_thinking", "data": thought.redacted}
                if thought.redacted
                else {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
                for thought in made.thoughts
            ]
        if self.maker:
            message["provider_specific_fields"] = {"maker": self.maker}
        return message

    def as_json(self) -> dict[str, Any]:
        """The document that `ask --json` prints."""
        record = self.record
        return {
            "id": record.id,
            "text": self.text,
            "model": record.model,
            "served_by": record.served_by,
            "reported_model": record.reported_model,
            "provider": record.provider,
            "deployment": record.deployment,
            "finish_reason": self.completion.finish_reason,
            "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in self.completion.tool_calls],
            "parsed": self.parsed,
            **({"dropped": list(self.dropped)} if self.dropped else {}),
            "usage": asdict(self.usage),
            "cost_usd": usd(record.cost_nanousd),
            "saved_usd": usd(record.saved_nanousd),
            "latency_ms": _ms(record.latency_ms),
            "first_token_ms": _ms(record.first_token_ms),
            "overhead_ms": _ms(record.overhead_ms),
            "waited_ms": _ms(self.waited_ms),
            "cache": record.cache,
            **({} if self.cache_age_s is None else {"cache_age_s": round(self.cache_age_s, 1)}),
            "fallback": record.fallback,
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "route": dict(self.route),
        }


def _call_row(call: ToolCall) -> dict[str, Any]:
    row = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return {**row, "provider_specific_fields": {"thought_signature": call.signature}} if call.signature else row


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
