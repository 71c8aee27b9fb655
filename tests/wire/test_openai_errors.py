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


BODIES: tuple[tuple[str, int, Any, str], ...] = (
    ("groq", 400, {"error": {"message": "Failed", "type": "invalid_request_error", "code": "tool_use_failed"}},
     "InvalidRequest"),
    ("groq", 413, {"error": {"message": "Request too large for model", "code": "rate_limit_exceeded"}},
     "ContextExceeded"),
    ("groq", 498, {"error": {"message": "Flex tier", "code": "capacity_exceeded"}}, "Unavailable"),
    ("together", 403, {"error": {"message": "Input token count + max_tokens must be less than the context length"}},
     "ContextExceeded"),
    ("mistral", 400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
     "ModelNotFound"),
    ("mistral", 422, {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]},
     "InvalidRequest"),
    ("mistral", 429, {"message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
     "RateLimited"),
    ("fireworks", 412, {"error": {"message": "Account x is suspended: monthly spending limit", "code": "x"}},
     "QuotaExhausted"),
    ("fireworks", 404, {"error": {"message": "Model not found, inaccessible, and/or not deployed"}}, "ModelNotFound"),
    ("deepinfra", 400, {"detail": {"error": "maximum context length is 8192"}}, "ContextExceeded"),
    ("xai", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***ey."},
     "Unauthorized"),
    ("xai", 403, {"code": "x", "error": "Your team has either used all available credits or"}, "QuotaExhausted"),
    ("deepseek", 402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}},
     "QuotaExhausted"),
    ("deepseek", 400, {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}}, "ModelNotFound"),
    ("openrouter", 403, {"error": {"code": 403, "message": "m", "metadata": {"reasons": ["x"], "flagged_input": "y"}}},
     "ContentFiltered"),
    ("openrouter", 400, {"error": {"code": 400, "message": "Provider returned error",
                                   "metadata": {"raw": '{"error": "maximum context length is 5"}'}}},
     "ContextExceeded"),
    ("openrouter", 400, {"error": {"code": 400, "message": "x", "metadata": {"error_type": "token_limit_exceeded"}}},
     "ContextExceeded"),
    ("cohere", 429, {"id": "e", "message": "You are using a Trial key, which is limited to 10 API calls / minute."},
     "RateLimited"),
    ("cohere", 498, {"id": "e", "message": "blocked: invalid token"}, "ContentFiltered"),
    ("huggingface", 402, {"error": "You have exceeded your monthly included credits"}, "QuotaExhausted"),
    ("huggingface", 400, {"error": ["Error in `model`: The requested model 'x' does not exist"]}, "ModelNotFound"),
    ("moonshot", 403, {"error": {"type": "permission_denied_error", "message": "insufficient balance"}},
     "QuotaExhausted"),
    ("moonshot", 429, {"error": {"type": "engine_overloaded_error", "message": "overloaded"}}, "Unavailable"),
    ("moonshot", 429, {"error": {"type": "exceeded_current_quota_error", "message": "m"}}, "QuotaExhausted"),
    ("dashscope", 400, {"error": {"code": "data_inspection_failed", "message": "m"}}, "ContentFiltered"),
    ("dashscope", 400, {"error": {"code": "Arrearage", "message": "m"}}, "QuotaExhausted"),
    ("zhipu", 429, {"error": {"code": "1113", "message": "您的账户已欠费,请充值后重试"}}, "QuotaExhausted"),
    ("vllm", 404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, "ModelNotFound"),
    ("ollama", 404, {"error": {"message": "model 'x' not found", "type": "not_found_error"}}, "ModelNotFound"),
    ("llamacpp", 400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "m"}},
     "ContextExceeded"),
    ("llamacpp", 503, {"error": {"code": 503, "type": "unavailable_error", "message": "Loading model"}}, "Unavailable"),
    ("cloudflare", 400, {"success": False, "errors": [{"code": 5007, "message": "No such model @cf/x"}]},
     "ModelNotFound"),
    ("azure", 401, {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid"}, "Unauthorized"),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, "ModelNotFound"),
    ("openai", 400, {"error": {"code": "string_above_max_length", "message": "Invalid 'user': string too long."}},
     "InvalidRequest"),
)  # fmt: skip


@pytest.mark.parametrize(("provider", "status", "body", "expected"), BODIES)
def test_each_providers_own_shape_is_read(provider: str, status: int, body: Any, expected: str):
    assert kind(status, body) == expected


def test_a_list_of_complaints_is_shown_without_the_request_that_it_quotes():
    quoted = {"type": "x", "loc": ["body", "messages"], "msg": "Input should be a list", "input": "content policy"}
    error = classify(422, {}, json.dumps({"detail": [quoted, quoted | {"msg": "Field required"}]}).encode(), NOW)
    assert (error.kind, error.message) == ("InvalidRequest", "HTTP 422: Input should be a list; Field required")


def test_a_gateway_shows_what_the_provider_behind_it_said():
    body = {"error": {"message": "Provider returned error", "metadata": {"raw": "upstream\nis tired"}}}
    error = classify(502, {}, json.dumps(body).encode(), NOW)
    assert error.message == "HTTP 502: Provider returned error: upstream is tired"


SHAPES = {
    "an object": {"error": {"message": "the words", "code": "insufficient_quota"}},
    "a string": {"error": "the words", "code": "insufficient_quota"},
    "a list in it": {"error": [{"message": "the words", "code": "insufficient_quota"}]},
    "errors": {"errors": [{"message": "the words", "code": "insufficient_quota"}]},
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
