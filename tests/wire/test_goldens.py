"""What official SDKs send and accept, and what we send and read: every fixture, whole and in pieces."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import WIRE_CLASSES, ProviderError, StreamTruncated, Unavailable, from_wire
from llmctl.wire.headers import should_retry
from tests.wire.fixtures import (
    NOW,
    Case,
    bytewise,
    cases,
    deployment_of,
    endpoint_of,
    is_chat,
    providers,
    read,
    request_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmctl.core.types import Completion

CHATS = [case for case in cases("requests") if is_chat(case)]
REPLIES = cases("responses")
STREAMS = [case for case in REPLIES if case.data["stream"]]
WHOLE = [case for case in REPLIES if not case.data["delivery"].startswith("connection cut")]
CUT = [case for case in REPLIES if case.data["delivery"].startswith("connection cut")]
REFUSALS = cases("errors")


# --- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Where we deliberately send other JSON than a provider's SDK: `ours` makes of its body what we send."""

    why: str
    providers: tuple[str, ...]
    ours: Callable[[dict[str, Any]], dict[str, Any]]


def _with_messages(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: body | {"messages": [change(message) for message in body["messages"]]}


def _without_index(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return message | {"tool_calls": [without(call, "index") for call in calls]} if calls else message


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


DIFFERENCES = (
    Difference(
        "usage is always asked for where it must be: a call without usage cannot be accounted",
        ("openai",),
        lambda body: body | {"stream_options": {"include_usage": True}} if body.get("stream") else body,
    ),
    Difference(
        "`stream` is sent only when it is true: false is every provider's default",
        ("mistral",),
        lambda body: body if body.get("stream") else without(body, "stream"),
    ),
    Difference(
        "stop is always a list: Together takes nothing else, and everybody takes a list",
        ("openai",),
        lambda body: body | {"stop": [body["stop"]]} if isinstance(body.get("stop"), str) else body,
    ),
    Difference(
        "a tool call's index is a streaming field: no API asks for it in a message",
        ("mistral", "together"),
        _with_messages(_without_index),
    ),
    Difference(
        "an assistant turn that only calls tools has no text: null, where this SDK writes an empty string",
        ("together",),
        _with_messages(lambda m: m | {"content": m["content"] or None} if m.get("tool_calls") else m),
    ),
    Difference(
        "the SDK writes out its defaults for a turn: not a prefix to continue, and the name of the tool beside its id",
        ("mistral",),
        _with_messages(lambda m: without(m, "prefix", "name")),
    ),
)
ACCEPT_STREAM = ("mistral",)
"""SDKs that ask for `text/event-stream`: we ask for JSON like the others, and read what comes."""


def _expected_body(case: Case) -> Any:
    body = case.data["request"]["body"]
    for difference in DIFFERENCES:
        if case.provider.name in difference.providers:
            body = difference.ours(body)
    return body


def _sent(case: Case) -> Any:
    return case.wire.encode(request_of(case.data["canonical"]), deployment_of(case), endpoint_of(case))


@pytest.mark.parametrize("case", CHATS, ids=repr)
def test_a_request_is_what_the_providers_own_sdk_sends(case: Case):
    sent, theirs = _sent(case).http, case.data["request"]
    assert (sent.method, sent.url) == (theirs["method"], theirs["url"])
    expected = dict(theirs["headers"])
    if case.provider.name in ACCEPT_STREAM and case.data["canonical"].get("stream"):
        expected["accept"] = "application/json"
    assert dict(sent.headers) == expected
    assert json.loads(sent.body) == _expected_body(case)


@pytest.mark.parametrize("case", CHATS, ids=repr)
def test_nothing_that_a_provider_takes_is_dropped(case: Case):
    assert _sent(case).dropped == ()


@pytest.mark.skipif("LLMCTL_WIRE_FIXTURES" in os.environ, reason="another folder need not show every difference")
@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why)
def test_every_stated_difference_is_met_with_at_every_provider_it_names(difference: Difference):
    met = {c.provider.name for c in CHATS if difference.ours(body := c.data["request"]["body"]) != body}
    assert met >= set(difference.providers)


# --- replies --------------------------------------------------------------------------------------------------------


def _as_expected(got: Completion) -> dict[str, Any]:
    calls = [{"id": c.id, "name": c.name, "arguments": _arguments(c.arguments)} for c in got.tool_calls]
    usage = got.usage and {
        "input_tokens": got.usage.input_tokens,
        "output_tokens": got.usage.output_tokens,
        "cached_input_tokens": got.usage.cached_input_tokens,
        "cache_write_tokens": got.usage.cache_write_tokens,
        "reasoning_tokens": got.usage.reasoning_tokens,
    }
    return {
        "text": got.text,
        "reasoning": got.reasoning,
        "tool_calls": calls,
        "finish_reason": got.finish_reason,
        "usage": usage,
    }


def _arguments(raw: str) -> Any:
    try:
        return json.loads(raw or "{}")
    except ValueError:
        return {"__invalid_json__": raw}


def _check(case: Case, got: Completion, error: Exception | None) -> None:
    name = case.data.get("expected_error")
    assert type(error) is (from_wire(name) if name else type(None)), error
    expected = dict(case.data.get("expected") or _as_expected(got))
    assert got.refusal == expected.pop("refusal", "")
    if expected["usage"]:
        expected["usage"] = without(expected["usage"], "total_tokens")
    assert _as_expected(got) == expected


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_reply_means_what_it_says(case: Case):
    _check(case, *read(case.decoder(), [case.body]))


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_reply_means_the_same_one_byte_at_a_time(case: Case):
    _check(case, *read(case.decoder(), bytewise(case.body)))


@pytest.mark.parametrize("case", CUT, ids=repr)
def test_a_broken_connection_leaves_what_came_and_claims_no_finish(case: Case):
    got, error = read(case.decoder(), bytewise(case.body), to_end=False)
    assert error is None  # the transport raises ConnectionFailed
    assert got.finish_reason is None
    assert got.text == case.data.get("expected", {"text": ""})["text"]


def _is_prefix(got: Completion, full: Completion) -> bool:
    pairs = zip(got.tool_calls, full.tool_calls, strict=False)
    return (
        full.text.startswith(got.text)
        and full.reasoning.startswith(got.reasoning)
        and full.refusal.startswith(got.refusal)
        and len(got.tool_calls) <= len(full.tool_calls)
        and all(whole.arguments.startswith(part.arguments) for part, whole in pairs)
    )


def _is_whole(got: Completion, full: Completion) -> bool:
    return (got.text, got.reasoning, got.refusal, got.tool_calls, got.finish_reason) == (
        full.text,
        full.reasoning,
        full.refusal,
        full.tool_calls,
        full.finish_reason,
    )


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_that_ends_at_any_byte_is_whole_or_an_error(case: Case):
    full, why = read(case.decoder(), [case.body])
    for n in range(len(case.body)):
        got, error = read(case.decoder(), [case.body[:n]])
        if error is None:
            assert full.finish_reason is not None, n
            assert _is_whole(got, full), n
        else:
            # An error event that is itself cut still says that there was an error.
            assert type(error) in ((StreamTruncated, Unavailable, type(why)) if why else (StreamTruncated,)), (n, error)
            assert _is_prefix(got, full), n
            assert got.finish_reason is None, n


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_whose_connection_breaks_at_any_byte_claims_a_finish_only_when_it_is_whole(case: Case):
    full, why = read(case.decoder(), [case.body])
    for n in range(len(case.body)):
        got, error = read(case.decoder(), [case.body[:n]], to_end=False)
        assert error is None or type(error) is type(why), n
        assert _is_prefix(got, full), n
        assert got.finish_reason is None or _is_whole(got, full), n


@pytest.mark.parametrize("case", [case for case in WHOLE if not case.data["stream"]], ids=repr)
def test_a_document_that_ends_early_is_an_error_and_says_nothing(case: Case):
    for n in range(len(case.body.rstrip())):
        got, error = read(case.decoder(), [case.body[:n]])
        assert isinstance(error, ProviderError), n
        assert (got.text, got.tool_calls, got.finish_reason) == ("", (), None), n


# --- refusals -------------------------------------------------------------------------------------------------------

RETRY_AFTER_S = {
    "429_retry_after_s": 20.0,
    "429_retry_after_ms": 0.35,
    "429_retry_after_date_near": 7.0,
    "429_retry_after_date_far": 31 * 86400.0,  # in 2032: held to a month
    "429_retry_after_huge": 3600.0,
    "503": 3.0,
}


@pytest.mark.parametrize("case", REFUSALS, ids=repr)
def test_a_refusal_is_of_the_class_that_its_wire_name_stands_for(case: Case):
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    assert error.kind == WIRE_CLASSES[case.data["expected"]["class"]]
    assert error.status == case.data["status"]


@pytest.mark.parametrize("case", REFUSALS, ids=repr)
def test_a_refusal_carries_what_its_headers_say(case: Case):
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    assert error.retry_after_s == RETRY_AFTER_S.get(case.id.rpartition("/")[2])
    assert error.should_retry is should_retry(case.headers)
    if "x-request-id" in case.headers:
        assert error.request_id == case.headers["x-request-id"]


@pytest.mark.parametrize("case", [c for c in REFUSALS if isinstance(c.data.get("body"), dict)], ids=repr)
def test_a_refusal_repeats_what_the_provider_said(case: Case):
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    said = case.data["body"].get("error", case.data["body"])
    assert (said["message"] if isinstance(said, dict) else said) in error.message


def test_the_default_fixtures_hold_every_openai_shaped_provider():
    seen = {case.provider.name for case in (*CHATS, *REPLIES, *REFUSALS)}
    assert seen <= providers().keys()
    assert seen
