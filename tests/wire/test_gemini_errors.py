"""What an error of a Google API means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import ProviderError
from llmctl.wire.gemini_errors import classify, in_answer

NOW = 1_767_322_800.0
RPC = "type.googleapis.com/google.rpc."
QUOTA = "You exceeded your current quota, please check your plan and billing details."


def error(
    status: int, message: str = "", *details: dict[str, Any], headers: dict[str, str] | None = None
) -> ProviderError:
    said = {"error": {"code": status, "message": message, "details": list(details)}}
    return classify(status, headers or {}, json.dumps(said).encode(), NOW)


def limit(name: str) -> dict[str, Any]:
    return {"@type": RPC + "QuotaFailure", "violations": [{"quotaId": name}]}


def retry(delay: Any) -> dict[str, Any]:
    return {"@type": RPC + "RetryInfo", "retryDelay": delay}


def reason(word: str, **metadata: str) -> dict[str, Any]:
    return {"@type": RPC + "ErrorInfo", "reason": word, "metadata": metadata}


@pytest.mark.parametrize(
    ("status", "message", "details", "expected"),
    [
        (400, "API Key not found. Please pass a valid API key.", [reason("API_KEY_INVALID")], "Unauthorized"),
        (400, "API key expired. Please renew the API key.", [reason("API_KEY_INVALID")], "Unauthorized"),
        (400, "API key not valid. Please pass a valid API key.", [], "Unauthorized"),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", [], "ContextExceeded"),
        (400, "The input token count exceeds the maximum number of tokens allowed 1048576.", [], "ContextExceeded"),
        (400, "Request payload size exceeds the limit: 20971520 bytes.", [], "ContextExceeded"),
        (400, "User location is not supported for the API use.", [], "Unauthorized"),
        (400, "Gemini API free tier is not available in your country. Please enable billing.", [], "Unauthorized"),
        (400, "Invalid value at 'contents' (TYPE), x", [{"fieldViolations": [{}]}], "InvalidRequest"),
        (400, "Function call is missing a thought_signature in functionCall parts.", [], "InvalidRequest"),
        (403, "Requests from referer <empty> are blocked.", [reason("API_KEY_HTTP_REFERRER_BLOCKED")], "Unauthorized"),
        (403, "This API method requires billing to be enabled.", [reason("BILLING_DISABLED")], "QuotaExhausted"),
        (404, "models/x is not found for API version v1, or is not supported.", [], "ModelNotFound"),
        (429, QUOTA, [limit("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), retry("17s")], "QuotaExhausted"),
        (429, QUOTA, [limit("GenerateContentInputTokensPerModelPerMinute-FreeTier"), retry("17s")], "RateLimited"),
        (429, QUOTA, [limit("PerMinute"), limit("InputTokensPerDay")], "QuotaExhausted"),
        (429, QUOTA, [retry("17s")], "RateLimited"),
        (429, f"{QUOTA} Please retry in 17.5s.", [], "RateLimited"),
        (429, QUOTA, [], "QuotaExhausted"),
        (429, "Quota exceeded.", [reason("RATE_LIMIT_EXCEEDED", quota_limit="ProRequestsPerDay")], "QuotaExhausted"),
        (429, "Resource has been exhausted (e.g. check quota).", [], "RateLimited"),
        (429, "Your project has exceeded its monthly spending cap.", [], "QuotaExhausted"),
        (499, "The operation was cancelled.", [], "Unavailable"),
        (500, "An internal error has occurred.", [], "Unavailable"),
        (501, "", [], "Unavailable"),
        (503, "The model is overloaded. Please try again later.", [], "Unavailable"),
        (504, "Deadline expired before operation could complete.", [], "Unavailable"),
    ],
)  # fmt: skip
def test_a_refusal_has_a_class(status: int, message: str, details: list[dict[str, Any]], expected: str):
    got = error(status, message, *details)
    assert got.kind == expected
    assert message in got.message


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>x</html>", b"\xff", b'{"error": 7}', b'{"error": {"details": 1}}']
)
def test_a_body_that_says_nothing_leaves_the_status(body: bytes):
    assert [classify(s, {}, body, NOW).kind for s in (400, 401, 403, 429, 500)] == [
        "InvalidRequest", "Unauthorized", "Unauthorized", "RateLimited", "Unavailable",
    ]  # fmt: skip


def test_a_list_of_errors_is_its_first():
    said = [{"error": {"code": 400, "message": "no", "details": [reason("API_KEY_INVALID")]}}]
    got = classify(400, {}, json.dumps(said).encode(), NOW)
    assert (got.kind, got.message) == ("Unauthorized", "HTTP 400: no")


@pytest.mark.parametrize(
    ("delay", "wait_s"),
    [
        ("17s", 17.0), ("1.5s", 1.5), ("0s", 0.0), ("0.000000001s", 1e-9), ("17", None), ("-1s", None), (17, None),
        ("9999999s", None), ("NaNs", None),
    ],
)  # fmt: skip
def test_the_wait_is_the_one_of_retry_info(delay: Any, wait_s: float | None):
    assert error(429, "", retry(delay)).retry_after_s == wait_s
    assert error(503, "", {"@type": RPC + "Help"}, retry(delay)).retry_after_s == wait_s


def test_a_header_goes_before_the_body_and_the_message_after_it():
    assert error(429, "", retry("17s"), headers={"retry-after": "3"}).retry_after_s == 3
    assert error(429, "Please retry in 36.195s.", retry("17s")).retry_after_s == 17
    assert error(429, "Please retry in 36.195s.").retry_after_s == 36.195


def test_a_days_quota_is_not_back_after_its_retry_info():
    assert error(429, QUOTA, limit("RequestsPerDay"), retry("17s")).retry_after_s is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"code": 503, "status": "UNAVAILABLE"}, ("Unavailable", 503)),
        ({"code": "503", "status": "RESOURCE_EXHAUSTED"}, ("RateLimited", 429)),
        ({"status": "INVALID_ARGUMENT", "details": [reason("API_KEY_INVALID")]}, ("Unauthorized", 400)),
        ({"code": True, "status": "CANCELLED"}, ("Unavailable", 499)),
        ({"code": 13, "status": "a word of tomorrow"}, ("BadResponse", 200)),
        ({"message": "The model is overloaded."}, ("Unavailable", 200)),
        ({}, ("BadResponse", 200)),
    ],
)
def test_an_error_in_an_answer_is_read_by_its_code_then_its_status(found: dict[str, Any], expected: tuple[str, int]):
    got = in_answer(found)
    assert (got.kind, got.status) == expected


def test_an_error_in_an_answer_may_say_how_long_to_wait():
    assert in_answer({"code": 429, "details": [retry("2s")]}).retry_after_s == 2


KEYS = st.sampled_from(
    ["error", "code", "status", "message", "details", "violations", "quotaId", "retryDelay", "reason"]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1s", "PerDay"])
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(document=ANYTHING, status=st.sampled_from([400, 429, 499, 500]))
def test_nothing_in_an_error_makes_it_a_traceback(document: Any, status: int):
    assert isinstance(classify(status, {}, json.dumps(document).encode(), NOW), ProviderError)
    if isinstance(document, dict):
        assert isinstance(in_answer(document), ProviderError)
