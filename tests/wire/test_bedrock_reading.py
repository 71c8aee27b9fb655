"""What Bedrock answers, where no fixture shows it: frames whole, cut, broken and hostile, bodies, refusals."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core.errors import (
    BadResponse,
    ContextExceeded,
    InvalidRequest,
    ModelNotFound,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    StreamTruncated,
    Unauthorized,
    Unavailable,
)
from llmctl.core.types import Completion, Request, Thought, ToolCall, Usage
from llmctl.wire import bedrock
from llmctl.wire.bedrock_reading import MAX_FRAME
from tests.wire.fixtures import ASKED, NOW, bytewise
from tests.wire.fixtures import read as read_all
from tests.wire.frames import START, begin_call, delta, event, exception, frame, framed, prelude, stop, usage

HELLO = START + delta({"text": "Hello"})


def read(body: bytes, *, stream: bool = True, chunks: list[bytes] | None = None) -> tuple[Completion, Exception | None]:
    decoder = bedrock.decoder(Request(ASKED, stream=stream), 200, {})
    return read_all(decoder, [body] if chunks is None else chunks)


def whole(*blocks: Any, stop: str | None = "end_turn", **more: Any) -> bytes:
    message = {"role": "assistant", "content": list(blocks)}
    return json.dumps({"output": {"message": message}, "stopReason": stop, **more}).encode()


# --- streams --------------------------------------------------------------------------------------------------------


def test_parallel_calls_and_thoughts_are_told_apart_by_their_blocks():
    body = (
        START
        + delta({"reasoningContent": {"text": "first"}}, 0)
        + delta({"reasoningContent": {"signature": "c2ln"}}, 0)
        + delta({"reasoningContent": {"redactedContent": "cmVk"}}, 1)
        + delta({"text": "ok"}, 2)
        + begin_call(3, "look", "a")
        + begin_call(4, "find", "b")
        + delta({"toolUse": {"input": '{"x"'}}, 3)
        + delta({"toolUse": {"input": "{}"}}, 4)
        + delta({"toolUse": {"input": ": 1}"}}, 3)
        + stop("tool_use")
        + usage(3, 4, cacheReadInputTokens=20, cacheWriteInputTokens=100)
    )
    expected = Completion(
        text="ok",
        reasoning="first",
        tool_calls=(ToolCall("a", "look", '{"x": 1}'), ToolCall("b", "find", "{}")),
        finish_reason="tool_calls",
        usage=Usage(123, 4, 20, 100),
        thoughts=(Thought("first", "c2ln"), Thought(redacted="cmVk")),
    )
    for chunks in ([body], bytewise(body)):
        assert read(b"", chunks=chunks) == (expected, None)


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "error"),
        ("malformed_tool_use", "error"),
        ("something_new", "pause"),
        ("tool_use", "pause"),  # and no call came
    ],
)
def test_a_stop_reason_means_the_same_in_a_stream_and_in_a_body(said: str, finish: str):
    assert read(HELLO + stop(said))[0].finish_reason == finish
    assert read(whole({"text": "Hello"}, stop=said))[0].finish_reason == finish


def test_a_stream_cut_in_or_between_frames_is_whole_only_after_its_stop():
    body = HELLO + stop() + usage(1, 1)
    for n in range(len(body)):
        got, error = read(body[:n])
        stopped = n >= len(HELLO + stop())
        assert type(error) is (type(None) if stopped else StreamTruncated), n
        assert got.finish_reason == ("stop" if stopped else None), n
        assert "Hello".startswith(got.text), n


@pytest.mark.parametrize(
    ("name", "said", "kind"),
    [
        ("throttlingException", "Too many requests", RateLimited),
        ("throttlingException", "Too many tokens per day", QuotaExhausted),
        ("modelStreamErrorException", "oops", Unavailable),
        ("modelTimeoutException", "slow", Unavailable),
        ("serviceUnavailableException", "down", Unavailable),
        ("internalServerException", "", Unavailable),
        ("validationException", "bad field", InvalidRequest),
        ("validationException", "prompt is too long: 9 tokens > 8 maximum", ContextExceeded),
        ("somethingNewException", "what", Unavailable),
    ],
)
def test_an_exception_in_a_stream_is_the_error_of_its_name(name: str, said: str, kind: type[ProviderError]):
    got, error = read(HELLO + exception(name, message=said) + stop())
    assert (got.text, got.finish_reason, type(error)) == ("Hello", None, kind)
    assert (said or name) in str(error)
    assert type(read(exception(name, originalMessage=said, originalStatusCode=400))[1]) is kind


def test_an_error_frame_says_all_in_its_headers():
    named = {":message-type": "error", ":error-code": "ThrottlingException", ":error-message": "slow down"}
    error = read(HELLO + frame(named, b""))[1]
    assert isinstance(error, RateLimited)
    assert "slow down" in str(error)


def test_what_is_wrong_after_the_stop_does_no_harm():
    for after in (exception("internalServerException", message="x"), b"\0" * 40, event("metadata", b"{"), HELLO):
        got, error = read(HELLO + stop() + after)
        assert (got.text, got.finish_reason, error) == ("Hello", "stop", None)


def test_a_broken_event_is_skipped_and_counted():
    got, error = read(HELLO + event("contentBlockDelta", b'{"delta') + delta({"text": "!"}) + stop())
    assert (got.text, got.skipped, error) == ("Hello!", 1, None)


def test_arguments_for_a_block_that_never_began_are_skipped_and_begin_no_call():
    got, error = read(HELLO + delta({"toolUse": {"input": "{}"}}, 7) + stop("tool_use"))
    assert (got.tool_calls, got.skipped, got.finish_reason, error) == ((), 1, "pause", None)


def test_a_repeated_beginning_is_one_call_and_another_id_at_its_index_another():
    look = begin_call(0, "look", "a") + delta({"toolUse": {"input": "{}"}}, 0)
    got, _ = read(START + begin_call(0, "look", "a") + look + begin_call(0, "find", "b") + stop("tool_use"))
    assert got.tool_calls == (ToolCall("a", "look", "{}"), ToolCall("b", "find", "{}"))


def test_a_tool_that_the_server_calls_itself_is_none_of_the_callers():
    theirs = begin_call(0, "search", "s", type="server_tool_use") + delta({"toolUse": {"input": "{}"}}, 0)
    got, error = read(START + theirs + delta({"text": "found"}, 2) + stop())
    assert (got.tool_calls, got.text, got.skipped, error) == ((), "found", 0, None)


def test_a_surrogate_pair_cut_by_two_deltas_is_joined():
    body = START + event("contentBlockDelta", b'{"delta": {"text": "a\\ud83d"}}')
    assert read(body + event("contentBlockDelta", b'{"delta": {"text": "\\ude80"}}') + stop())[0].text == "a🚀"
    assert read(body + stop())[0].text == "a�"


@pytest.mark.parametrize(
    "broken",
    [
        prelude(15),  # shorter than any frame
        prelude(MAX_FRAME + 1),
        b"\0\0\1\0" + b"\0\0\0\0" + b"\xff\xff\xff\xff",  # the prelude's own checksum
        START[:-1] + bytes([START[-1] ^ 1]),
        framed(b"\x05abc", b""),  # a header cut in its name
        framed(b"\x01a\x63", b""),  # a type that there is not
        framed(b"\x01a\x04\0", b""),
        framed(b"\x02\xff\xfe\x00", b""),  # a name that is not UTF-8
        framed(b"\x01a\x00\x01a\x01", b""),  # twice
        framed(b"", b"", headers_length=200_000),
        framed(b"\x01a\x00", b"", headers_length=9),
    ],
)
def test_a_frame_that_is_broken_is_a_bad_response_at_once(broken: bytes):
    decoder = bedrock.decoder(Request(ASKED), 200, {})
    list(decoder.feed(HELLO))
    with pytest.raises(BadResponse):
        list(decoder.feed(broken))


@pytest.mark.parametrize("kind", range(10))
def test_headers_of_every_type_can_be_passed_over(kind: int):
    size = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    value = b"\0\1x" if kind in (6, 7) else b"\0" * size[kind]
    odd = framed(b"\x0d:message-type" + bytes([kind]) + value + b"\x0b:event-type" + bytes([kind]) + value, b"{}")
    got, error = read(HELLO + odd + stop())
    assert (got.text, error) == ("Hello", None)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)
WORDS = (
    "delta start toolUse text input reasoningContent contentBlockIndex stopReason usage signature output message "
    "content inputTokens citationsContent reasoningText toolUseId embedding embeddings"
)
KEYS = st.sampled_from(WORDS.split())
SHAPED = st.recursive(JSON, lambda inner: st.dictionaries(KEYS, inner), max_leaves=12)
NAMES = st.sampled_from(["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "new"])
FRAMES = st.one_of(
    st.builds(lambda name, document: event(name, json.dumps(document).encode()), NAMES, SHAPED),
    st.builds(frame, st.dictionaries(st.sampled_from([":message-type", ":event-type"]), st.text()), st.binary()),
    st.builds(framed, st.binary(max_size=30), st.binary(max_size=30), st.none() | st.integers(0, 1 << 32 - 1)),
    st.binary(max_size=40),
)


@given(st.lists(FRAMES, max_size=6).map(b"".join), st.booleans(), st.booleans())
@example(b"\0", True, False)
def test_whatever_arrives_is_read_or_is_one_of_our_errors(body: bytes, stream: bool, in_pieces: bool):
    got, error = read(body, stream=stream, chunks=bytewise(body) if in_pieces else None)
    assert error is None or isinstance(error, ProviderError), error
    assert (got.finish_reason is None) or error is None


@given(SHAPED)
def test_whatever_body_comes_is_read_or_is_one_of_our_errors(document: Any):
    for said in (document, {"output": document}, {"output": {"message": document}, "usage": document}):
        for asked in (Request(ASKED), Request((), inputs=("a",))):
            _, error = read_all(bedrock.decoder(asked, 200, {}), [json.dumps(said).encode()])
            assert error is None or isinstance(error, ProviderError), error
    assert isinstance(bedrock.classify(400, {}, json.dumps(document).encode(), NOW), ProviderError)


# --- bodies ---------------------------------------------------------------------------------------------------------


def test_what_comes_decides_and_not_what_was_asked_for():
    body, stream = whole({"text": "Hello"}), HELLO + stop()
    for asked in (True, False):
        for each in (body, stream, b"\n " + body):
            got, error = read(each, stream=asked)
            assert (got.text, got.finish_reason, error) == ("Hello", "stop", None)


def test_a_body_keeps_each_thought_with_its_own_seal_and_reads_cited_text():
    got, error = read(
        whole(
            {"reasoningContent": {"reasoningText": {"text": "a", "signature": "1"}}},
            {"reasoningContent": {"reasoningText": {"text": "b", "signature": "2"}}},
            {"reasoningContent": {"redactedContent": "cg=="}},
            {"toolUse": {"toolUseId": "s", "name": "search", "input": {}, "type": "server_tool_use"}},
            {"citationsContent": {"content": [{"text": "It"}, {"text": " is"}], "citations": []}},
            {"text": "."},
        ),
        stream=False,
    )
    assert got.thoughts == (Thought("a", "1"), Thought("b", "2"), Thought(redacted="cg=="))
    assert (got.text, got.tool_calls, error) == ("It is.", (), None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>hello</html>", BadResponse),
        (b"", BadResponse),
        (b"{}", BadResponse),
        (b'{"output": {}}', BadResponse),
        (b'{"output": {"message": null}, "usage": {"inputTokens": 1}}', BadResponse),
        (b'{"message": "nobody knows"}', BadResponse),
        (b'{"__type": "ThrottlingException", "message": "slow"}', RateLimited),
        (b'{"__type": "com.amazon.x#ServiceUnavailableException", "Message": "down"}', Unavailable),
        (b'{"message": "Input is too long for requested model."}', ContextExceeded),
        (b"[" * 100_000, BadResponse),
    ],
)
def test_a_body_without_a_message_is_an_error(body: bytes, kind: type[ProviderError]):
    assert type(read(body, stream=False)[1]) is kind


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"inputTokens": 1, "outputTokens": 2}, Usage(1, 2)),
        ({"inputTokens": -1, "outputTokens": 2}, None),
        ({"outputTokens": 2}, None),
        ({"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": -5, "cacheWriteInputTokens": "x"}, Usage(1, 2)),
        ({"inputTokens": 1e300}, None),
        (None, None),
    ],
)
def test_usage_that_cannot_be_believed_is_none(counts: Any, expected: Usage | None):
    assert read(whole({"text": "a"}, usage=counts))[0].usage == expected


@pytest.mark.parametrize(
    ("document", "headers", "tokens"),
    [
        ({"embedding": [0.5, 1], "inputTextTokenCount": 3}, {}, 3),
        ({"embeddings": [[0.5, 1]]}, {"x-amzn-bedrock-input-token-count": "4"}, 4),
        ({"embeddings": {"float": [[0.5, 1]]}, "response_type": "embeddings_by_type"}, {}, None),
        (
            {"embeddings": [{"embeddingType": "TEXT", "embedding": [0.5, 1]}]},
            {"x-amzn-bedrock-input-token-count": "²"},
            None,
        ),
    ],
)
def test_vectors_of_every_form_are_read(document: Any, headers: dict[str, str], tokens: int | None):
    decoder = partial(bedrock.decoder, Request((), inputs=("a",)), 200)
    got, error = read_all(decoder(headers), [json.dumps(document).encode()])
    assert error is None
    assert [list(vector) for vector in got.vectors] == [[0.5, 1.0]]
    assert (got.usage and got.usage.input_tokens) == tokens


@pytest.mark.parametrize("document", [{}, {"embeddings": 5}, {"embeddings": {"int8": [[1]]}}, {"embedding": ["a"]}])
def test_an_answer_without_its_vectors_is_a_bad_response(document: Any):
    _, error = read_all(bedrock.decoder(Request((), inputs=("a",)), 200, {}), [json.dumps(document).encode()])
    assert type(error) is BadResponse


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "said", "kind"),
    [
        (400, "ValidationException", "Too many input tokens. Max input tokens: 8192", ContextExceeded),
        (400, "ValidationException", "input length and `max_tokens` exceed context limit: 9 + 9 > 8", ContextExceeded),
        (400, "ValidationException", "This model's maximum context length is 8192 tokens.", ContextExceeded),
        (
            400,
            "ValidationException",
            "The maximum tokens you requested exceeds the model limit of 4096.",
            InvalidRequest,
        ),
        (400, "ServiceQuotaExceededException", "You have exceeded your quota.", QuotaExhausted),
        (400, "ThrottlingException", "Rate exceeded", RateLimited),
        (403, "ExpiredTokenException", "The security token included in the request is expired", Unauthorized),
        (403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.", Unauthorized),
        (403, "", "Missing Authentication Token", Unauthorized),
        (404, "ResourceNotFoundException", "Could not resolve the foundation model", ModelNotFound),
        (404, "com.amazon.coral.service#UnknownOperationException", "", ModelNotFound),
        (408, "ModelTimeoutException", "took too long", Unavailable),
        (424, "", "the model failed", Unavailable),
        (429, "", "Too many tokens per day", QuotaExhausted),
        (500, "InternalServerException", "oops", Unavailable),
        (503, "ThrottlingException", "slow down", RateLimited),
        (418, "NobodyKnows", "teapot", InvalidRequest),
    ],
)
def test_a_refusal_is_named_in_a_header_or_in_the_body(status: int, name: str, said: str, kind: type[ProviderError]):
    body = json.dumps({"message": said}).encode()
    error = bedrock.classify(
        status, {"x-amzn-errortype": f"{name}:http://internal.amazon.com/"} if name else {}, body, NOW
    )
    assert (type(error), error.status) == (kind, status)
    assert said in error.message
    for key in ("__type", "code"):
        assert type(bedrock.classify(status, {}, json.dumps({key: name, "Message": said}).encode(), NOW)) is kind


def test_a_session_token_that_a_refusal_repeats_is_not_shown_however_long_it_is():
    token = "FwoGZXIvYXdz/" + "a+=/" * 600
    said = f"The Canonical String should have been\n'POST\nx-amz-date:2026\nx-amz-security-token:{token}\n\nhost'"
    body = json.dumps({"message": said}).encode()
    for each in (body, b"no JSON: " + body):
        error = bedrock.classify(403, {"x-amzn-errortype": "InvalidSignatureException"}, each, NOW)
        assert type(error) is Unauthorized
        assert token[:10] not in error.message
