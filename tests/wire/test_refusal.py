"""What a refusal means by its code, its words and its status: the words that providers use, and those like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import WIRE_CLASSES
from llmctl.wire.refusal import by_message, by_status, in_answer, meaning, refused

# Each as its provider words it: documentation and reported bodies, read 2026-11-20.
SAID = {
    "context_length": (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "Please reduce the length of the messages or completion.",  # Groq
        "Input token count + max_tokens parameter must be less than the context length of the model being queried.",
        "Prompt contains 45000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",  # Together, TGI
        "`inputs` must have less than 1024 tokens. Given: 2000",
        "Input token length too long",  # Moonshot
        "Your request exceeded model token limit : 8192",
        "prompt is too long: 202609 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 184915 + 20000 > 204648",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.",  # Cohere
        "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",  # xAI
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",  # vLLM
        "the request exceeds the available context size, try increasing it",  # llama.cpp
        "the input length exceeds the context length",  # Ollama
        "Range of input length should be [1, 30720]",  # Alibaba
        "Requested token count exceeds the model's maximum context length of 32768 tokens.",  # SGLang
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576",
        "Prompt 超长",  # Zhipu
    ),
    "content_filter": (
        "Your request was rejected as a result of our safety system.",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "The request was rejected because it was considered high risk",  # Moonshot
        "Content Exists Risk",  # DeepSeek
        "Input data may contain inappropriate content.",  # Alibaba
        "Your input was flagged by moderation for violence",
        "This request violates our usage policies.",
        "blocked: invalid token",  # Cohere, 498
        "input new_sensitive",  # MiniMax
        "This request has been flagged for potentially high-risk cyber activity.",  # OpenAI
        "系统检测到输入或生成内容可能包含不安全或敏感内容",
    ),
    "quota": (
        "You exceeded your current quota, please check your plan and billing details.",
        "Your credit balance is too low to access the API.",
        "Insufficient Balance",
        "You have reached your specified API usage limits. You will regain access on 2026-12-01",
        "Your team has either used all available credits or reached its monthly spending limit.",  # xAI
        "You have exceeded your monthly included credits for Inference Providers.",  # Hugging Face
        "Account acme is suspended, possibly due to reaching the monthly spending limit",  # Fireworks, 412
        "Access denied, please make sure your account is in good standing.",  # Alibaba
        "Billing hard limit has been reached",
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",  # Gemini
        "Your account is not active, please check your billing details on our website.",
        "You are using a Trial key, which is limited to 1000 API calls / month.",  # Cohere
        "您的账户已欠费,请充值后重试",
    ),
    "auth": (
        "Incorrect API key provided: sk-***.", "invalid api token", "API key not valid. Please pass a valid API key.",
        "no api key supplied", "Invalid Authentication", "Your API key has expired.", "Authentication Fails",
    ),
    "not_found": (
        "The model `nope` does not exist or you do not have access to it.", "Invalid model: nope",
        "nope/nope is not a valid model ID", "Model Not Exist", "model 'nope' not found, try pulling it first",
        "The model `llama3-8b` has been decommissioned and is no longer supported.",
        "The supported API model names are deepseek-flash or deepseek-v4-pro, but you passed nope.",
        "The requested model 'nope' is not supported by any provider you have enabled.",
    ),
    "rate_limit": ("Rate limit reached for requests", "Requests rate limit exceeded", "Too many requests"),
    "overloaded": ("The engine is currently overloaded, please try again later", "Service tier capacity exceeded"),
}  # fmt: skip

SAYS_NOTHING = (
    "Invalid value for 'temperature': must be <= 2",
    "max_tokens is too large: 200000. This model supports at most 16384 completion tokens.",
    "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model",
    "Invalid 'user': string too long. Expected a string with maximum length 64",
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64",
    "Invalid value: 'moderation'. Supported values are: 'auto' and 'low'.",
    "This model does not support tools",
    "`tool_choice` is not supported with this model.",
    "Failed to call a function. Please adjust your prompt.",
    "Unexpected token } in JSON at position 5",
    "invalid request: message must be at least 1 token long",
    "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.",
    "Function tools with reasoning_effort are not supported for gpt-5.6-luna",
    "stop: too many stop sequences",
    "Unsupported parameter: 'top_k'",
    "The image is too large: at most 20 MB",
    "Request blocked by network policy",
    "No endpoints found matching your data policy",
    "The address violates an access policy of your organization",
    "",
)


@pytest.mark.parametrize(("name", "said"), [(name, said) for name, rows in SAID.items() for said in rows])
def test_the_words_of_a_message_give_its_meaning_away(name: str, said: str):
    assert by_message(said) == name
    assert by_message(f"{said.upper()} (request id: 7)") == name
    assert meaning(400, None, said) == name


@pytest.mark.parametrize("said", SAYS_NOTHING)
def test_words_that_are_only_alike_mean_a_bad_request(said: str):
    assert by_message(said) is None
    assert meaning(400, None, said) == meaning(422, None, said) == "bad_request"
    assert meaning(500, None, said) == "server_error"


CONTEXT, FILTER, QUOTA, AUTH, MISSING, *_ = (rows[0] for rows in SAID.values())


@pytest.mark.parametrize(
    ("status", "named", "said", "expected"),
    [
        (403, None, CONTEXT, "context_length"), (403, None, FILTER, "content_filter"), (403, None, QUOTA, "quota"),
        (403, "content_filter", "", "content_filter"), (403, "not_found", MISSING, "permission"),
        (403, None, AUTH, "permission"), (403, None, "", "permission"),
        (401, None, QUOTA, "auth"), (401, "rate_limit", "", "auth"), (402, None, CONTEXT, "quota"),
        (404, None, FILTER, "not_found"), (413, "rate_limit", QUOTA, "too_large"), (503, None, CONTEXT, "unavailable"),
        (429, None, QUOTA, "quota"), (429, "overloaded", "", "overloaded"), (429, "rate_limit", QUOTA, "rate_limit"),
        (429, None, CONTEXT, "rate_limit"), (429, None, "tokens per day (TPD): Limit 100000", "rate_limit"),
        (498, None, "blocked: invalid token", "content_filter"), (498, "overloaded", "", "overloaded"),
        (498, None, "", "conflict"), (412, None, "Account suspended: spending limit", "quota"),
        (400, "auth", CONTEXT, "auth"), (500, None, CONTEXT, "context_length"), (520, None, CONTEXT, "server_error"),
        (418, None, CONTEXT, "bad_request"), (307, None, "", "bad_response"),
    ],
)  # fmt: skip
def test_a_status_decides_unless_several_meanings_hide_behind_it(
    status: int, named: str | None, said: str, expected: str
):
    assert meaning(status, named, said) == expected


@given(st.integers(100, 999), st.none() | st.sampled_from(sorted(WIRE_CLASSES)), st.text())
def test_every_meaning_is_a_class_of_ours(status: int, named: str | None, said: str):
    assert meaning(status, named, said) in WIRE_CLASSES
    assert by_status(status) in WIRE_CLASSES


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("Please try again in 20s.", 20), ("Please try again in 7m12.5s. Visit", 432.5), ("try again in 864ms", 0.864),
        ("try again in 1h2m3s", 3723), ("Please retry after 9 seconds.", 9), ("Try again in 2 minutes 5 seconds", 125),
        ("Retry in 500 milliseconds", 0.5), ("try again in 1 hour", 3600), ("Please try again in 6m", 360),
        ("try again in 999999999h", 31 * 86400), ("retry after 10", None), ("try again in a while", None), ("", None),
    ],
)  # fmt: skip
def test_a_wait_that_only_the_message_says_is_kept(said: str, wait_s: float | None):
    assert refused("rate_limit", 429, {}, said, 0.0).retry_after_s == wait_s
    assert refused("rate_limit", 429, {"retry-after": "3"}, said, 0.0).retry_after_s == 3
    assert refused("quota", 429, {}, said, 0.0).retry_after_s is None


def test_without_a_word_about_waiting_an_exhausted_limit_is_waited_for():
    spent = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12s"}
    assert refused("rate_limit", 429, spent, "too many", 0.0).retry_after_s == 12
    assert refused("rate_limit", 429, spent, "try again in 2s", 0.0).retry_after_s == 2
    assert refused("rate_limit", 429, spent, "too many", 0.0, wait_s=3.0).retry_after_s == 3
    assert refused("rate_limit", 429, {**spent, "retry-after": "0"}, "too many", 0.0).retry_after_s == 0
    assert refused("rate_limit", 429, {**spent, "x-ratelimit-remaining-tokens": "1"}, "", 0.0).retry_after_s is None
    assert refused("quota", 429, spent, "", 0.0).retry_after_s is None


def test_an_error_in_an_answer_says_so_and_what_it_said():
    error = in_answer("overloaded", "busy", 529)
    assert (error.kind, error.status) == ("Unavailable", 529)
    assert error.message == "the provider reported an error in its answer: busy"
    assert in_answer("bad_response", "").status == 200
