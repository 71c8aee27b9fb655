"""What an OpenAI-shaped error means, whatever its shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import ProviderError
from llmctl.wire.openai_errors import classify, error_object, in_answer, message_of

NOW = 1_767_322_800.0


def kind(status: int, document: Any = None, headers: dict[str, str] | None = None) -> str:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return classify(status, headers or {}, body, NOW).kind


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "InvalidRequest"), (401, "Unauthorized"), (402, "QuotaExhausted"), (403, "Unauthorized"),
        (404, "ModelNotFound"), (405, "InvalidRequest"), (408, "Unavailable"), (409, "InvalidRequest"),
        (413, "ContextExceeded"), (418, "InvalidRequest"), (422, "InvalidRequest"), (424, "InvalidRequest"),
        (429, "RateLimited"), (498, "InvalidRequest"), (499, "InvalidRequest"), (500, "Unavailable"),
        (502, "Unavailable"), (503, "Unavailable"), (504, "Unavailable"), (529, "Unavailable"), (599, "Unavailable"),
        (204, "BadResponse"), (302, "BadResponse"),
    ],
)  # fmt: skip
def test_a_status_alone_has_a_class(status: int, expected: str):
    for body in (b"", b"{}", b"null", b"<html>no</html>", b"\xff\xfe", b"[]", b'""'):
        assert kind(status, body) == expected


@pytest.mark.parametrize("status", [409, 424, 498, 499])
def test_a_conflict_is_passing_only_when_the_provider_says_so(status: int):
    assert kind(status, {}, {"x-should-retry": "true"}) == "Unavailable"
    assert kind(status, {}, {"x-should-retry": "false"}) == "InvalidRequest"


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"code": "context_length_exceeded"}, "ContextExceeded"),
        (400, {"message": "prompt is too long: 9 tokens"}, "ContextExceeded"),
        (400, {"message": "wrapped: context_length_exceeded"}, "ContextExceeded"),
        (500, {"message": "the context size is exceeded"}, "ContextExceeded"),
        (400, {"code": "content_filter"}, "ContentFiltered"),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, "ContentFiltered"),
        (400, {"code": "invalid_api_key"}, "Unauthorized"),
        (400, {"message": "API key not valid. Please pass a valid API key."}, "Unauthorized"),
        (400, {"message": "Incorrect API key provided"}, "Unauthorized"),
        (400, {"code": "model_not_found"}, "ModelNotFound"),
        (400, {"type": "invalid_model", "message": "Invalid model: nope"}, "ModelNotFound"),
        (400, {"message": "nope/nope is not a valid model ID"}, "ModelNotFound"),
        (403, {"code": "model_not_found"}, "Unauthorized"),
        (401, {"message": "context length"}, "Unauthorized"),
        (413, {"code": "rate_limit_exceeded", "message": "too large for your tokens per minute"}, "ContextExceeded"),
        (429, {"code": "insufficient_quota"}, "QuotaExhausted"),
        (429, {"message": "wrapped: insufficient_quota"}, "QuotaExhausted"),
        (429, {"message": "Insufficient balance"}, "QuotaExhausted"),
        (429, {"message": "Too many tokens, please wait before trying again."}, "RateLimited"),
        (429, {"message": "invalid api key used too often"}, "RateLimited"),
        (400, {"code": 1301, "message": "no"}, "InvalidRequest"),
        (400, {"code": True, "type": ["x"], "innererror": 7}, "InvalidRequest"),
        (500, {"type": "timeout"}, "Unavailable"),
    ],
)  # fmt: skip
def test_a_code_or_a_message_refines_a_status_that_hides_several_meanings(status: int, error: Any, expected: str):
    assert kind(status, {"error": error}) == expected


SHAPES = {
    "an object": {"error": {"message": "the words", "code": "insufficient_quota"}},
    "a string": {"error": "the words", "code": "insufficient_quota"},
    "a list in it": {"error": [{"message": "the words", "code": "insufficient_quota"}]},
    "a list of it": [{"error": {"message": "the words", "code": "insufficient_quota"}}],
    "bare": {"object": "error", "message": "the words", "type": "insufficient_quota"},
    "a detail": {"detail": "the words", "code": "insufficient_quota"},
    "JSON in a string": {"error": '{"error": {"message": "the words", "code": "insufficient_quota"}}'},
    "bare JSON in a string": {"error": '{"message": "the words", "code": "insufficient_quota"}'},
}


@pytest.mark.parametrize("document", SHAPES.values(), ids=SHAPES.keys())
def test_an_error_is_found_in_any_shape(document: Any):
    error = classify(429, {}, json.dumps(document).encode(), NOW)
    assert error.kind == "QuotaExhausted"
    assert error.message == "HTTP 429: the words"


def test_an_error_that_says_nothing_shows_its_body():
    assert classify(400, {}, b'{"error": {"param": "x"}}', NOW).message == 'HTTP 400: {"error": {"param": "x"}}'
    page = b"<html><script>var x</script><h1>502 Bad Gateway</h1></html>"
    assert classify(502, {}, page, NOW).message == "HTTP 502: 502 Bad Gateway"
    assert classify(504, {}, b"", NOW).message == "HTTP 504"


def test_a_detail_that_is_no_text_is_shown_as_json():
    assert classify(422, {}, b'{"detail": [{"loc": ["x"]}]}', NOW).message == 'HTTP 422: [{"loc": ["x"]}]'


def test_a_message_is_one_line_that_can_be_written_and_is_not_endless():
    said = "a\nb\ud83d\ude00c\ud800" + "x" * 5000
    message = classify(400, {}, json.dumps({"error": {"message": said}}).encode(), NOW).message
    assert message.startswith("HTTP 400: a b\U0001f600c\ufffdxxx")
    assert len(message.encode()) < 1100


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "rate_limit_exceeded"}, "RateLimited"),
        ({"code": 429}, "RateLimited"),
        ({"code": "503"}, "Unavailable"),
        ({"status": 401, "message": "no"}, "Unauthorized"),
        ({"code": 400, "message": "maximum context length"}, "ContextExceeded"),
        ({"code": 200}, "BadResponse"),
        ({"code": 99999999999999999999}, "BadResponse"),
        ({"message": "insufficient quota"}, "QuotaExhausted"),
        ({}, "BadResponse"),
    ],
)
def test_an_error_inside_an_answer_is_of_the_class_it_names(error: dict[str, Any], expected: str):
    assert in_answer(error).kind == expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["error", "429", "{", "["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "type", "detail", "innererror", "object", "status", "x"]), inner
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.integers(100, 999), anything)
def test_no_document_makes_classification_fail(status: int, document: Any):
    error = classify(status, {}, json.dumps(document).encode(), NOW)
    assert isinstance(error, ProviderError)
    error.message.encode()
    found = error_object(document)
    if found is not None:
        message_of(found).encode()
        assert isinstance(in_answer(found), ProviderError)


@given(st.integers(400, 599), st.binary())
def test_no_bytes_make_classification_fail(status: int, body: bytes):
    assert isinstance(classify(status, {}, body, NOW), ProviderError)


@pytest.mark.parametrize("depth", [10, 400, *range(900, 1000, 5), 100_000])
def test_a_depth_bomb_is_only_an_error(depth: int):
    for body in (b"[" * depth, b'{"error":' * depth, b'{"detail":' + b"[" * depth + b"]" * depth + b"}"):
        assert isinstance(classify(400, {}, body, NOW), ProviderError)
