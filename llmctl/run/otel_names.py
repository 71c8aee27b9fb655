"""What OpenTelemetry is told of a call, as tables: the name of every attribute and metric, and how its value is found.

This is the only place where such a name is written. Names and units are those of the GenAI semantic conventions (all of
status Development: github.com/open-telemetry/semantic-conventions-genai, read 2026-11-20); what they have no word for
is called `llmctl.*`. Attempts have `llmctl.*` names for their model, tokens and cost, because a backend that adds up
`gen_ai.usage.*` over spans would count a call twice. A value of None is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.money import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmctl.core.record import Attempt, CallRecord
    from llmctl.run.observe import CallEnded

PROVIDERS: dict[str, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshot_cn": "moonshot_ai",
    "xai": "x_ai",
}
"""Providers whose well-known name in the conventions is not ours; all others are called what we call them."""


def provider(event: CallEnded) -> str:
    """Who answered, or failed to; where nobody was asked, ourselves."""
    name = event.record.provider or (event.attempts[-1].provider if event.attempts else "llmctl")
    return PROVIDERS.get(name, name)


def model(event: CallEnded) -> str:
    """The model that was asked last; where none was, the name that was typed."""
    return event.attempts[-1].model if event.attempts else event.record.model


def error_type(record: CallRecord) -> str | None:
    """The class of the error; the state of an answer that is not whole and ended in none."""
    return record.error or (None if record.state in ("ok", "cached") else record.state)


def _s(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _tags(record: CallRecord) -> list[str] | None:
    return [f"{key}={value}" for key, value in sorted(record.tags.items())] or None


CALL: dict[str, Callable[[CallEnded], Any]] = {
    "gen_ai.operation.name": lambda e: e.operation,
    "gen_ai.provider.name": provider,
    "gen_ai.request.model": model,
    "gen_ai.conversation.id": lambda e: e.record.session,
    "gen_ai.response.model": lambda e: e.record.reported_model,
    "gen_ai.response.finish_reasons": lambda e: [e.record.finish_reason] if e.record.finish_reason else None,
    "gen_ai.response.time_to_first_chunk": lambda e: _s(e.record.first_token_ms),
    "gen_ai.usage.input_tokens": lambda e: e.record.input_tokens,
    "gen_ai.usage.output_tokens": lambda e: e.record.output_tokens,
    "gen_ai.usage.cache_read.input_tokens": lambda e: e.record.cached_input_tokens or None,
    "gen_ai.usage.cache_write.input_tokens": lambda e: e.record.cache_write_tokens or None,
    "gen_ai.usage.reasoning.output_tokens": lambda e: e.record.reasoning_tokens or None,
    # No name of the conventions: Langfuse reads it (langfuse.com/integrations/native/opentelemetry, 2026-11-20).
    "gen_ai.usage.cost": lambda e: usd(e.record.cost_nanousd),
    "langfuse.trace.tags": lambda e: _tags(e.record),
    "error.type": lambda e: error_type(e.record),
    "llmctl.call.id": lambda e: e.record.id,
    "llmctl.command": lambda e: e.record.command,
    "llmctl.group": lambda e: e.record.model,
    "llmctl.state": lambda e: e.record.state,
    "llmctl.exit_code": lambda e: e.record.exit_code,
    "llmctl.served_by": lambda e: e.record.served_by,
    "llmctl.deployment": lambda e: e.record.deployment,
    "llmctl.fallback": lambda e: e.record.fallback,
    "llmctl.attempts": lambda e: e.record.attempt_count,
    "llmctl.cache": lambda e: e.record.cache,
    "llmctl.cost_usd": lambda e: usd(e.record.cost_nanousd),
    "llmctl.saved_usd": lambda e: usd(e.record.saved_nanousd),
    "llmctl.price_version": lambda e: e.record.price_version,
    "llmctl.tokens_estimated": lambda e: e.record.tokens_estimated,
    "llmctl.overhead": lambda e: _s(e.record.overhead_ms),
    "llmctl.drill": lambda e: e.record.drill,
    "llmctl.complexity": lambda e: e.record.complexity,
}
"""The span of a call, `chat MODEL` or `embeddings MODEL`; seconds and USD."""
TAG = "llmctl.tag."
"""Before the key of each tag of the call."""

ATTEMPT: dict[str, Callable[[Attempt], Any]] = {
    "llmctl.attempt.n": lambda a: a.n,
    "llmctl.attempt.role": lambda a: a.role,
    "llmctl.attempt.outcome": lambda a: a.outcome,
    "llmctl.attempt.deployment": lambda a: a.deployment,
    "llmctl.attempt.provider": lambda a: a.provider,
    "llmctl.attempt.model": lambda a: a.model,
    "llmctl.attempt.time_to_first_chunk": lambda a: _s(a.first_token_ms),
    "llmctl.attempt.input_tokens": lambda a: a.input_tokens,
    "llmctl.attempt.output_tokens": lambda a: a.output_tokens,
    "llmctl.attempt.cost_usd": lambda a: usd(a.cost_nanousd),
    "llmctl.attempt.retry_after": lambda a: a.retry_after_s,
    "llmctl.attempt.request_id": lambda a: a.request_id or None,
    "http.response.status_code": lambda a: a.status,
    "error.type": lambda a: None if a.outcome == "ok" else a.outcome,
}
"""The span of an attempt, `attempt PROVIDER/MODEL`, below that of its call."""
FALLBACK = "llmctl.fallback"
"""The event of a call's span when another link of the chain was asked, with the attempt's attributes."""


class Metric(NamedTuple):
    """A histogram where it has buckets, else a counter; `values` gives (value, further attributes)."""

    unit: str
    description: str
    values: Callable[[CallEnded], Iterable[tuple[float | None, dict[str, Any]]]]
    buckets: tuple[float, ...] = ()


_TIMES = tuple(0.01 * 2**n for n in range(14))
_TOKENS = tuple(float(4**n) for n in range(14))
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - of a language model
METRICS: dict[str, Metric] = {
    "gen_ai.client.operation.duration": Metric(
        "s", "How long calls took", lambda e: [(_s(e.record.latency_ms), {})], _TIMES
    ),
    "gen_ai.client.operation.time_to_first_chunk": Metric(
        "s", "How long calls waited for their first token", lambda e: [(_s(e.record.first_token_ms), {})], _TIMES
    ),
    "gen_ai.client.token.usage": Metric(
        "{token}",
        "The tokens of calls",
        lambda e: [
            (e.record.input_tokens, {TOKEN_TYPE: "input"}),
            (e.record.output_tokens, {TOKEN_TYPE: "output"}),
        ],
        _TOKENS,
    ),
    "llmctl.calls": Metric(
        "{call}",
        "Calls, by how they ended",
        lambda e: [(1, _of(CALL, e, "llmctl.state", "llmctl.fallback", "llmctl.cache"))],
    ),
    "llmctl.attempts": Metric(
        "{attempt}",
        "Attempts, by how they ended",
        lambda e: [(1, _of(ATTEMPT, a, "llmctl.attempt.role", "llmctl.attempt.outcome")) for a in e.attempts],
    ),
    "llmctl.cost": Metric("USD", "What calls cost, if it is known", lambda e: [(usd(e.record.cost_nanousd), {})]),
    "llmctl.saved": Metric("USD", "What the cache saved", lambda e: [(usd(e.record.saved_nanousd) or None, {})]),
}
COMMON = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "error.type",
    "llmctl.group",
)
"""The attributes of a call that every metric has."""


def of_call(event: CallEnded) -> dict[str, Any]:
    """The attributes of a call's span."""
    return _of(CALL, event) | {f"{TAG}{key}": value for key, value in event.record.tags.items()}


def of_attempt(attempt: Attempt) -> dict[str, Any]:
    """The attributes of an attempt's span."""
    return _of(ATTEMPT, attempt)


def common(event: CallEnded) -> dict[str, Any]:
    """The attributes of each metric of a call."""
    return _of(CALL, event, *COMMON)


def _of(table: dict[str, Callable[[Any], Any]], what: Any, *names: str) -> dict[str, Any]:
    found = {name: table[name](what) for name in names or table}
    return {name: value for name, value in found.items() if value is not None}
