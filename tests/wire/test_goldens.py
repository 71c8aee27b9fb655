"""What official SDKs send and accept, and what we send and read: every fixture, whole and in pieces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llmctl.core.errors import ProviderError, StreamTruncated, Unavailable
from llmctl.wire import PROTOCOLS
from llmctl.wire.headers import retry_after_s, should_retry
from llmctl.wire.values import one_line
from tests.wire.differences import DIFFERENCES, Difference
from tests.wire.fixtures import NOW, Case, bytewise, cases, encoded, read, why_not
from tests.wire.judge import expected_body, refusal_problems, reply_problems, request_problems, signature_problems

if TYPE_CHECKING:
    from llmctl.core.types import Completion

ASKS = cases("requests")
SENT = [case for case in ASKS if not why_not(case)]
REPLIES = cases("responses")
STREAMS = [case for case in REPLIES if case.data["stream"]]
WHOLE = [case for case in REPLIES if not case.data["delivery"].startswith("connection cut")]
CUT = [case for case in REPLIES if case.data["delivery"].startswith("connection cut")]
REFUSALS = cases("errors")
here = pytest.mark.skipif("LLMCTL_WIRE_FIXTURES" in os.environ, reason="another folder need not hold every kind")


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SENT, ids=repr)
def test_a_request_is_what_the_providers_own_sdk_sends(case: Case):
    assert request_problems(case) == []


@pytest.mark.parametrize("case", [case for case in ASKS if "sigv4" in case.data], ids=repr)
def test_a_signature_is_the_one_of_the_providers_own_sdk(case: Case):
    assert signature_problems(case) == []


@here
@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why)
def test_every_stated_difference_is_met_with_at_every_provider_it_names(difference: Difference):
    earlier = DIFFERENCES[: DIFFERENCES.index(difference)]
    met = set()
    for case in SENT:
        asked, name, body = case.data["canonical"], case.provider.name, expected_body(case, earlier)
        if body is not None and name in difference.providers and difference.ours(body, asked) != body:
            met.add(name)
    assert met == set(difference.providers)


@here
def test_what_cannot_be_sent_is_said():
    dropped = {case.id: encoded(case).dropped for case in SENT if encoded(case).dropped}
    assert dropped == {"requests/anthropic@0.x/effort_not_known": ("reasoning_effort",)}


@here
def test_only_what_is_another_protocol_is_left_unsent():
    left_out = {case.id: why_not(case) for case in ASKS if why_not(case)}
    assert len(left_out) <= 2, left_out


# --- replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_reply_means_what_it_says(case: Case):
    assert reply_problems(case, *read(case.decoder(), [case.body])) == []


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_reply_means_the_same_one_byte_at_a_time(case: Case):
    assert reply_problems(case, *read(case.decoder(), bytewise(case.body))) == []


@pytest.mark.parametrize("case", CUT, ids=repr)
def test_a_broken_connection_leaves_what_came_and_claims_no_finish(case: Case):
    got, error = read(case.decoder(), bytewise(case.body), to_end=False)
    assert error is None  # the transport raises ConnectionFailed
    assert got.finish_reason is None
    assert got.text == (case.data.get("expected") or {"text": ""})["text"]


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


@pytest.mark.parametrize("case", REFUSALS, ids=repr)
def test_a_refusal_is_of_the_class_that_its_wire_name_stands_for(case: Case):
    assert refusal_problems(case) == []


@pytest.mark.parametrize("case", REFUSALS, ids=repr)
def test_a_refusal_carries_what_its_headers_say(case: Case):
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    if any("retry-after" in name for name in case.headers):
        assert error.retry_after_s == retry_after_s(case.headers, NOW) is not None
    assert error.should_retry is should_retry(case.headers)
    if "x-request-id" in case.headers:
        assert error.request_id == case.headers["x-request-id"]


@pytest.mark.parametrize("case", [c for c in REFUSALS if isinstance(c.data.get("body"), dict)], ids=repr)
def test_a_refusal_repeats_what_the_provider_said(case: Case):
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    said = case.data["body"].get("error", case.data["body"])
    said = (
        next((said[key] for key in ("message", "Message", "detail") if key in said), "")
        if isinstance(said, dict)
        else said
    )
    assert not isinstance(said, str) or one_line(said) in error.message


@here
def test_the_default_fixtures_hold_every_protocol():
    for kind in (SENT, REPLIES, REFUSALS):
        assert {case.provider.protocol for case in kind} == PROTOCOLS.keys()
