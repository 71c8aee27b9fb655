"""The spans and metrics of a call: every name from the one table, and the table as the conventions have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes

from llmctl.core.record import Attempt, CallRecord
from llmctl.run.observe import CallEnded
from llmctl.run.otel_names import ATTEMPT, CALL, COMMON, FALLBACK, METRICS, PROVIDERS, TAG, TOKEN_TYPE, common, of_call

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
KNOWN = {
    value
    for module in (gen_ai_attributes, http_attributes, error_attributes, gen_ai_metrics)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
# In the conventions since the release that the Python package is made of; and what Langfuse reads besides.
NEWER = {"gen_ai.usage.cache_write.input_tokens"}
LANGFUSE = {"gen_ai.usage.cost", "langfuse.trace.tags"}
RECORD = CallRecord("01J", 1.0, "ask", "fast", "ok", tags={"team": "web", "a": "b"}, latency_ms=1500.0)
ATTEMPTS = (
    Attempt(1, "d1", "groq", "m1", "primary", "Unavailable", 1.0, 503),
    Attempt(2, "d2", "xai", "m2", "fallback", "ok", 1.2, 200),
)


@pytest.mark.parametrize("name", [*CALL, *ATTEMPT, *METRICS, TOKEN_TYPE])
def test_every_name_is_of_the_conventions_or_plainly_ours(name):
    assert name.startswith("llmctl.") or name in KNOWN | NEWER | LANGFUSE
    assert name in PAGE, "docs/observability.md names it"


def test_providers_are_called_as_the_conventions_call_them():
    known = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    assert {name for name in PROVIDERS.values() if name not in known} <= {"moonshot_ai"}


def test_a_backend_that_adds_up_usage_over_spans_counts_no_call_twice():
    assert not [name for name in ATTEMPT if name.startswith("gen_ai.")]


def test_what_is_unknown_has_no_attribute():
    found = of_call(CallEnded(RECORD))
    assert "gen_ai.usage.cost" not in found
    assert "llmctl.cost_usd" not in found
    assert None not in found.values()
    assert found[f"{TAG}team"] == "web"
    assert found["langfuse.trace.tags"] == ["a=b", "team=web"]


@pytest.mark.parametrize(
    ("attempts", "provider", "model"), [((), "llmctl", "fast"), (ATTEMPTS[:1], "groq", "m1"), (ATTEMPTS, "x_ai", "m2")]
)
def test_a_call_is_told_with_who_was_asked_last(attempts, provider, model):
    found = of_call(CallEnded(RECORD, None, attempts))
    assert (found["gen_ai.provider.name"], found["gen_ai.request.model"]) == (provider, model)
    assert found["llmctl.group"] == "fast"


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("ok", None, None),
        ("cached", None, None),
        ("incomplete", None, "incomplete"),
        ("failed", "TimedOut", "TimedOut"),
    ],
)
def test_whatever_is_not_a_whole_answer_is_an_error(state, error, told):
    record = CallRecord("01J", 1.0, "ask", "fast", state, error=error)
    assert common(CallEnded(record)).get("error.type") == told


def test_every_metric_has_few_enough_attributes_to_be_a_series():
    assert set(COMMON) <= set(CALL)
    assert not {"llmctl.call.id", "gen_ai.conversation.id", "llmctl.attempt.request_id"} & set(COMMON)


def test_the_buckets_are_those_of_the_conventions():
    times, tokens = METRICS["gen_ai.client.operation.duration"], METRICS["gen_ai.client.token.usage"]
    assert (times.buckets[0], times.buckets[-1], times.unit) == (0.01, 81.92, "s")
    assert (tokens.buckets[0], tokens.buckets[-1], tokens.unit) == (1.0, 67108864.0, "{token}")


def test_a_fallback_is_an_event_of_the_call():
    assert FALLBACK in PAGE
