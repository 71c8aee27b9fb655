"""What an error of the Anthropic protocol means: its message, its type, then its status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import ProviderError
from llmctl.wire.anthropic_errors import classify, in_answer

NOW = 1_767_322_800.0


def kind(status: int, type_: str, said: str = "no", headers: dict[str, str] | None = None) -> str:
    body = {"type": "error", "error": {"type": type_, "message": said}}
    return classify(status, headers or {}, json.dumps(body).encode(), NOW).kind


@pytest.mark.parametrize(
    ("status", "type_", "said", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: Field required", "InvalidRequest"),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "ContextExceeded"),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 9", "ContextExceeded"),
        (400, "invalid_request_error", "Output blocked by content filtering policy", "ContentFiltered"),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", "QuotaExhausted"),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", "QuotaExhausted"),
        (400, "exceed_context_size_error", "the request exceeds the available context size", "ContextExceeded"),
        (401, "authentication_error", "invalid x-api-key", "Unauthorized"),
        (402, "billing_error", "Payment required", "QuotaExhausted"),
        (403, "permission_error", "no access to model: claude-x", "Unauthorized"),
        (404, "not_found_error", "model: claude-nope", "ModelNotFound"),
        (409, "conflict_error", "changed meanwhile", "InvalidRequest"),
        (413, "request_too_large", "Request exceeds the maximum size", "ContextExceeded"),
        (429, "rate_limit_error", "would exceed your organization's rate limit of 50 requests", "RateLimited"),
        (429, "rate_limit_error", "Number of request tokens has exceeded your per-minute rate limit", "RateLimited"),
        (429, "rate_limit_error", "You have reached the monthly spend limit of your tier", "QuotaExhausted"),
        (500, "api_error", "Internal server error", "Unavailable"),
        (500, "overloaded_error", "Overloaded", "Unavailable"),
        (504, "timeout_error", "Request timed out", "Unavailable"),
        (529, "overloaded_error", "Overloaded", "Unavailable"),
        (418, "new_error", "?", "InvalidRequest"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_class_of_its_meaning(status: int, type_: str, said: str, expected: str):
    assert kind(status, type_, said) == expected


def test_a_conflict_passes_when_the_provider_says_so():
    assert kind(409, "conflict_error", headers={"x-should-retry": "true"}) == "Unavailable"


def test_the_request_is_named_by_the_header_else_by_the_body():
    body = b'{"type":"error","error":{"type":"api_error","message":"m"},"request_id":"req_body"}'
    assert classify(500, {}, body, NOW).request_id == "req_body"
    assert classify(500, {"request-id": "req_head"}, body, NOW).request_id == "req_head"
    assert classify(500, {"cf-ray": "edge"}, body, NOW).request_id == "req_body"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "Unavailable"),
        ({"type": "rate_limit_error", "message": "slow down"}, "RateLimited"),
        ({"type": "invalid_request_error", "message": "odd"}, "InvalidRequest"),
        ({"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}, "ContentFiltered"),
        ({"type": "news", "message": "odd"}, "Unavailable"),
        ("in words", "Unavailable"),
        (None, "Unavailable"),
    ],
)
def test_an_error_within_a_stream_has_the_class_of_its_type(error: Any, expected: str):
    assert in_answer({"type": "error", "error": error}, "server_error").kind == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("type", "message", "x")), inner),
    max_leaves=5,
)


@given(st.integers(100, 599), _JSON, _JSON)
def test_any_body_is_an_error_of_ours(status: int, error: Any, request_id: Any):
    body = json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()
    assert isinstance(classify(status, {}, body, NOW), ProviderError)
    assert isinstance(in_answer({"error": error}, "bad_response"), ProviderError)
