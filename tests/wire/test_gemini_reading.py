"""Reading Gemini's answers: what counts as an answer, as its end, as an error, and what is passed over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse, ProviderError, RateLimited, StreamTruncated, Unauthorized, Unavailable
from llmctl.core.types import Completion, Request, Thought, ToolCall, Usage
from llmctl.wire.gemini_reading import decoder, usage_of
from tests.wire.fixtures import ASKED, bytewise, read

if TYPE_CHECKING:
    from collections.abc import Callable


def sse(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


def said(*parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    """A document whose candidate holds `parts`; a string is a part of text."""
    content = [{"text": part} if isinstance(part, str) else part for part in parts]
    ended = {} if finish is None else {"finishReason": finish}
    return {"candidates": [{"content": {"role": "model", "parts": content}, **ended}], **more}


def call(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **more}}


def stream(*documents: Any) -> tuple[Completion, Exception | None]:
    return read(decoder(Request(ASKED), 200, {}), [sse(*documents)])


def whole(document: Any) -> tuple[Completion, Exception | None]:
    return read(decoder(Request(ASKED, stream=False), 200, {}), [json.dumps(document).encode()])


def good(answer: tuple[Completion, Exception | None]) -> Completion:
    got, error = answer
    assert error is None, error
    return got


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "means"),
    [
        ("STOP", "stop"), ("stop", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"),
        ("LANGUAGE", "content_filter"), ("BLOCKLIST", "content_filter"), ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"), ("OTHER", "error"), ("UNEXPECTED_TOOL_CALL", "error"),
        ("TOO_MANY_TOOL_CALLS", "error"), ("A_WORD_OF_TOMORROW", "pause"),
    ],
)  # fmt: skip
def test_finish_reasons_have_one_spelling(word: str, means: str):
    assert good(stream(said("hi", finish=word))).finish_reason == means
    assert good(whole(said("hi", finish=word))).finish_reason == means


@pytest.mark.parametrize("none", [None, "", 7, [], "FINISH_REASON_UNSPECIFIED"])
def test_what_is_no_finish_reason_ends_no_stream(none: Any):
    got, error = stream(said("hi", finish=none))
    assert (got.text, got.finish_reason, type(error)) == ("hi", None, StreamTruncated)


def test_a_terminator_of_another_protocol_ends_nothing():
    assert isinstance(
        read(decoder(Request(ASKED), 200, {}), [sse(said("hi")), b"data: [DONE]\n\n"])[1], StreamTruncated
    )


def test_a_whole_answer_that_gives_no_reason_ended_plainly_if_it_said_anything():
    assert good(whole(said("hi"))).finish_reason == "stop"
    assert good(whole(said(call()))).finish_reason == "tool_calls"
    assert isinstance(whole(said())[1], BadResponse)


def test_a_stop_with_calls_anywhere_before_it_is_for_the_tools():
    assert good(stream(said(call()), said("", finish="STOP"))).finish_reason == "tool_calls"
    assert good(stream(said(call(), finish="MAX_TOKENS"))).finish_reason == "length"
    assert good(stream(said(call(), finish="MALFORMED_FUNCTION_CALL"))).finish_reason == "error"


def test_after_the_end_only_usage_is_heard():
    late = [said("more", finish="SAFETY"), {"error": {"code": 500}}, {"usageMetadata": {"promptTokenCount": 7}}, 7]
    for answer in (stream(said("hi", finish="STOP"), *late), whole([said("hi", finish="STOP"), *late])):
        assert good(answer) == Completion("hi", finish_reason="stop", usage=Usage(7))


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "A_WORD_OF_TOMORROW"])
def test_a_blocked_prompt_is_a_filtered_answer(reason: str):
    blocked = {"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 4}}
    for answer in (stream(blocked), whole(blocked), whole([blocked])):
        assert good(answer) == Completion(finish_reason="content_filter", usage=Usage(4))


def test_feedback_beside_a_candidate_blocks_nothing():
    assert good(whole(said("hi", finish="STOP", promptFeedback={"blockReason": "OTHER"}))).finish_reason == "stop"


# --- no answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {}, {"candidates": []}, {"candidates": [7]}, {"candidates": {}}, {"promptFeedback": {}}, {"modelVersion": "m"},
        {"candidates": [{"index": 1, "finishReason": "STOP"}]}, [], [7], [{}], "hi", 7, None,
    ],
)  # fmt: skip
def test_a_document_without_a_candidate_is_no_answer(document: Any):
    got, error = whole(document)
    assert isinstance(error, BadResponse)
    assert got.finish_reason is None
    assert isinstance(stream(document)[1], StreamTruncated)


@pytest.mark.parametrize(
    "part", [{"inlineData": {"data": "QQ=="}}, {"executableCode": {"code": "1"}}, {"\ud800new": 1}]
)
def test_an_answer_of_what_cannot_be_shown_is_no_success(part: Any):
    for answer in (stream(said(part), said("", finish="STOP")), whole(said(part, finish="STOP")), whole(said(part))):
        got, error = answer
        assert isinstance(error, BadResponse)
        assert got.finish_reason is None
        str(error).encode()


def test_what_cannot_be_shown_is_passed_over_beside_what_can():
    code = {"executableCode": {"code": "1"}}
    assert good(stream(said(code, "42", {"codeExecutionResult": {}}, finish="STOP"))).text == "42"
    assert good(stream(said(code, call(), finish="STOP"))).finish_reason == "tool_calls"
    assert good(stream(said(code, finish="MAX_TOKENS"))).finish_reason == "length"


ERROR = {
    "error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down", "details": [{"retryDelay": "2s"}]}
}


@pytest.mark.parametrize("read_as", [stream, whole, lambda document: whole([document])])
@pytest.mark.parametrize("document", [ERROR, {"candidates": [], **ERROR}])
def test_an_error_object_under_status_200_is_that_error(read_as: Callable[[Any], Any], document: Any):
    got, error = read_as(document)
    assert got == Completion()
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 2


def test_an_error_in_a_stream_keeps_what_came_before_it():
    for late, kind in ((ERROR, RateLimited), ({"error": {"code": 401}}, Unauthorized), ({"error": "no"}, Unavailable)):
        got, error = stream(said("hi"), late)
        assert (got.text, type(error)) == ("hi", kind)


# --- an array where events were asked for ---------------------------------------------------------------------------


def test_an_array_of_documents_is_the_stream_it_stands_for():
    documents = [said("a", modelVersion="m"), said("b"), said(finish="STOP", usageMetadata={"promptTokenCount": 1})]
    body = json.dumps(documents, indent=1).encode()
    for chunks in ([body], bytewise(body)):
        got = good(read(decoder(Request(ASKED), 200, {}), chunks))
        assert got == Completion("ab", finish_reason="stop", usage=Usage(1), reported_model="m")
    for n in range(len(body)):
        assert isinstance(read(decoder(Request(ASKED), 200, {}), [body[:n]])[1], ProviderError)


def test_an_array_that_ends_before_the_answer_is_truncated():
    got, error = whole([said("a"), said("b")])
    assert (got.text, type(error)) == ("ab", StreamTruncated)


# --- what is said ---------------------------------------------------------------------------------------------------


def test_calls_without_an_id_are_numbered_through_the_whole_answer():
    got = good(stream(said(call("f", args={"a": 1}), call("g", id="x")), said(call("f"), finish="STOP")))
    assert got.tool_calls == (
        ToolCall("call_0", "f", '{"a": 1}'),
        ToolCall("x", "g", "{}"),
        ToolCall("call_2", "f", "{}"),
    )


def test_a_seal_belongs_to_its_call_or_else_to_the_thought():
    parts = ({"text": "hm", "thought": True}, call() | {"thoughtSignature": "QQ=="})
    got = good(stream(said(*parts, finish="STOP")))
    assert (got.reasoning, got.thoughts, got.tool_calls[0].signature) == ("hm", (Thought("hm"),), "QQ==")
    got = good(stream(said("hi"), said({"text": "", "thoughtSignature": "Qg=="}, finish="STOP")))
    assert (got.text, got.thoughts) == ("hi", (Thought("", "Qg=="),))
    two = ({"text": "a", "thoughtSignature": "QQ=="}, {"text": "b", "thoughtSignature": "Qg=="})
    assert good(whole(said(*two, finish="STOP"))).thoughts == (Thought("", "Qg=="),)


def test_only_the_first_candidate_is_read():
    both = {
        "candidates": [
            {"index": 1, "content": {"parts": [{"text": "no"}]}, "finishReason": "STOP"},
            said("yes")["candidates"][0],
        ]
    }
    assert good(stream(both, said(finish="STOP"))).text == "yes"
    assert stream(both)[0].finish_reason is None


def test_a_surrogate_pair_that_was_cut_in_two_is_joined():
    assert good(stream(said("\ud83d"), said("\ude80", finish="STOP"))).text == "\U0001f680"
    assert good(stream(said("a\ud83d", finish="STOP"))).text == "a\ufffd"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "toolUsePromptTokenCount": 4,
          "cachedContentTokenCount": 1}, Usage(9, 5, 1, reasoning_tokens=3)),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 50}, Usage(5, 0, 5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": None}, Usage(5, 0)),
        ({"promptTokenCount": -5}, None), ({"promptTokenCount": 5, "candidatesTokenCount": -1}, None),
        ({"promptTokenCount": 1 << 60}, None), ({"promptTokenCount": float("nan")}, None), ({}, None), (7, None),
        ({"candidatesTokenCount": 3}, None),
    ],
)  # fmt: skip
def test_usage_counts_all_input_and_all_output_or_is_not_believed(raw: Any, expected: Usage | None):
    assert usage_of({"usageMetadata": raw}) == expected


# --- vectors --------------------------------------------------------------------------------------------------------


def vectors(document: Any, inputs: int = 2) -> tuple[Completion, Exception | None]:
    reading = decoder(Request((), inputs=("x",) * inputs), 200, {})
    return read(reading, bytewise(json.dumps(document).encode()))


def test_vectors_come_in_the_order_of_their_texts():
    got = good(
        vectors({"embeddings": [{"values": [1, 0.5]}, {"values": [0, -2]}], "usageMetadata": {"promptTokenCount": 4}})
    )
    assert [list(vector) for vector in got.vectors] == [[1, 0.5], [0, -2]]
    assert (got.usage, got.finish_reason) == (Usage(4), "stop")


@pytest.mark.parametrize(
    "document",
    [{}, [], {"embeddings": 7}, {"embeddings": [{"values": [1]}]}]
    + [{"embeddings": [{"values": [1]}, second]} for second in ({}, {"values": [1, 2]}, {"values": ["x"]})]
    + [{"embeddings": [{"values": [1]}, {"values": [float("nan")]}]}],
)
def test_vectors_that_are_not_what_was_asked_for_are_refused(document: Any):
    assert isinstance(vectors(document)[1], BadResponse)


def test_an_error_where_vectors_were_asked_for_is_that_error():
    assert isinstance(vectors(ERROR)[1], RateLimited)
    assert isinstance(vectors([ERROR])[1], RateLimited)


# --- hostile ---------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        "candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "id",
        "finishReason", "index", "error", "code", "status", "usageMetadata", "promptTokenCount", "promptFeedback",
        "blockReason", "modelVersion", "embeddings", "values",
    ]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["STOP", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
PARTS = st.lists(st.dictionaries(KEYS, ANYTHING, max_size=3), max_size=3)


@given(documents=st.lists(ANYTHING | PARTS.map(lambda parts: said(*parts, finish="STOP")), max_size=3))
def test_whatever_a_document_holds_it_is_read_or_is_an_error_of_ours(documents: list[Any]):
    for answer in (stream(*documents), whole(documents), vectors(documents), *(whole(each) for each in documents)):
        got, error = answer
        assert isinstance(error, ProviderError) if error is not None else got.finish_reason is not None
        json.dumps([got.text, got.reasoning, [call.arguments for call in got.tool_calls]]).encode()
        got.text.encode()
