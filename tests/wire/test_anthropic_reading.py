"""Anthropic's messages and streams, read: what a block says, what is counted, and what else may come."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse, ProviderError, StreamTruncated, Unavailable
from llmctl.core.types import Completion, Event, Request, Thought, ToolCall, Usage, fold
from llmctl.wire.anthropic_reading import FINISH_REASONS, MessageReading, decoder, usage_of

START = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 12, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def begin(index: Any, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}


def more(index: Any, kind: str, **what: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **what}}


def end(index: Any) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    return [begin(index, "text", text=""), *(more(index, "text_delta", text=each) for each in pieces), end(index)]


def stopped(reason: Any = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5, **usage}}


def events_of(*documents: Any, raw: bytes = b"") -> list[Event]:
    body = raw or b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in documents)
    made = decoder(Request(()), 200, {})
    return [*made.feed(body), *made.end()]


def read(*documents: Any) -> Completion:
    return fold(events_of(*documents))


def whole(document: Any) -> Completion:
    return fold(list(MessageReading().whole(document)))


def test_blocks_of_text_are_joined_and_the_counts_are_the_last_ones():
    got = read(START, *text(0, "Hel", "lo "), {"type": "ping"}, *text(1, "world"), stopped(), STOP)
    assert (got.text, got.finish_reason, got.reported_model) == ("Hello world", "stop", "claude-x")
    assert got.usage == Usage(12, 5)


@pytest.mark.parametrize(("said", "reason"), [*FINISH_REASONS.items(), ("brand_new", "pause")])
def test_every_stop_reason_has_a_finish_reason(said: str, reason: str):
    assert read(START, *text(0, "a"), stopped(said), STOP).finish_reason == reason
    assert whole({"content": [], "stop_reason": said}).finish_reason == reason


def test_thoughts_come_back_sealed_and_in_their_order():
    got = read(
        START,
        begin(0, "thinking", thinking="", signature=""),
        more(0, "thinking_delta", thinking="six times "),
        more(0, "thinking_delta", thinking="seven"),
        more(0, "signature_delta", signature="c2ln"),
        end(0),
        begin(1, "redacted_thinking", data="x"), end(1),
        begin(2, "thinking", thinking=""), more(2, "signature_delta", signature="s2"), end(2),
        *text(3, "42"), stopped(), STOP,
    )  # fmt: skip
    assert (got.reasoning, got.text) == ("six times seven", "42")
    assert got.thoughts == (Thought("six times seven", "c2ln"), Thought(redacted="x"), Thought("", "s2"))


def test_a_whole_message_is_read_like_its_stream():
    document = {
        "type": "message", "model": "m", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "a"}, {"type": "server_tool_use", "id": "s", "input": {"q": 1}},
            {"type": "tool_use", "id": "t", "name": "ping", "input": {}},
            {"type": "tool_use", "id": "u", "name": "add", "input": {"a": [1, "é"]}},
        ],
        "usage": {"input_tokens": 50, "output_tokens": 300, "cache_read_input_tokens": 8000,
                  "cache_creation_input_tokens": 1000, "output_tokens_details": {"thinking_tokens": 192}},
    }  # fmt: skip
    got = whole(document)
    assert (got.text, got.reasoning, got.finish_reason, got.reported_model) == ("a", "hm", "tool_calls", "m")
    assert got.thoughts == (Thought("hm", "s"), Thought(redacted="x"))
    assert [(call.id, json.loads(call.arguments)) for call in got.tool_calls] == [("t", {}), ("u", {"a": [1, "é"]})]
    assert got.usage == Usage(9050, 300, 8000, 1000, 192)


def test_arguments_are_routed_by_block_and_not_by_order():
    got = read(
        START,
        begin(0, "tool_use", id="a", name="one", input={}), begin(1, "tool_use", id="b", name="two", input={}),
        more(1, "input_json_delta", partial_json='{"n": '), more(0, "input_json_delta", partial_json='{"m"'),
        more(1, "input_json_delta", partial_json="2}"), more(0, "input_json_delta", partial_json=": 1}"),
        end(1), end(0), stopped("tool_use"), STOP,
    )  # fmt: skip
    assert got.tool_calls == (ToolCall("a", "one", '{"m": 1}'), ToolCall("b", "two", '{"n": 2}'))


@pytest.mark.parametrize("ended", [[end(0)], []], ids=["ended", "left open"])
@pytest.mark.parametrize(("given_", "expected"), [({}, "{}"), ({"a": 1}, '{"a": 1}'), (None, "{}"), ([1], "{}")])
def test_a_call_without_deltas_has_the_arguments_of_its_beginning(ended: list[Any], given_: Any, expected: str):
    call = begin(0, "tool_use", id="a", name="ping", input=given_)
    got = read(START, call, more(0, "input_json_delta", partial_json=""), *ended, stopped("tool_use"), STOP)
    assert got.tool_calls == (ToolCall("a", "ping", expected),)


def test_what_belongs_to_no_block_of_ours_is_passed_over():
    got = read(
        START,
        begin(0, "server_tool_use", id="s", name="web_search", input={}),
        more(0, "input_json_delta", partial_json='{"query": "x"}'), end(0),
        begin(1, "web_search_tool_result", content=[{"type": "text", "text": "not ours"}]), end(1),
        begin(2, "brand_new", text="no"), more(2, "text_delta", text="no"), end(2),
        begin(3, "text", text=""), more(3, "citations_delta", citation={}), more(3, "thinking_delta", thinking="no"),
        more(3, "text_delta", text="yes"), more(3, "brand_new_delta", text="no"), end(3),
        {"type": "brand_new"}, stopped(), STOP,
    )  # fmt: skip
    assert (got.text, got.reasoning, got.tool_calls, got.skipped) == ("yes", "", (), 0)


def test_of_a_block_whose_beginning_was_lost_only_arguments_say_nothing():
    got = read(
        START, more(4, "text_delta", text="a"), more(5, "thinking_delta", thinking="b"),
        more(6, "input_json_delta", partial_json="{}"), end(9), stopped(), STOP,
    )  # fmt: skip
    assert (got.text, got.reasoning, got.tool_calls, got.skipped) == ("a", "b", (), 1)


def test_what_is_said_twice_is_heard_once():
    call = begin(0, "tool_use", id="a", name="ping", input={})
    piece = more(0, "input_json_delta", partial_json="{}")
    got = read(
        START, START, call, call, piece, end(0), end(0), call, piece, end(0), stopped("tool_use"), stopped(), STOP
    )
    assert got.tool_calls == (ToolCall("a", "ping", "{}"),)
    assert (got.finish_reason, got.usage) == ("tool_calls", Usage(12, 5))


def test_a_stream_that_breaks_off_leaves_the_counts_of_its_beginning_as_an_estimate():
    body = b"".join(f"data: {json.dumps(each)}\n\n".encode() for each in (START, *text(0, "Hello")))
    made = decoder(Request(()), 200, {})
    got = fold(list(made.feed(body)))
    assert (got.text, got.usage) == ("Hello", Usage(12, 1, estimated=True))
    with pytest.raises(StreamTruncated):
        list(made.end())


def test_an_error_within_a_stream_keeps_what_came_before_it():
    body = f"data: {json.dumps(START)}\n\ndata: {json.dumps(more(0, 'text_delta', text='Hi'))}\n\n"
    body += 'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    got: list[Event] = []
    with pytest.raises(Unavailable, match="Overloaded"):
        got.extend(decoder(Request(()), 200, {}).feed(body.encode()))  # extend keeps what came before
    assert fold(got).text == "Hi"


def test_nothing_after_the_finish_changes_the_answer():
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "late"}}
    got = read(START, *text(0, "a"), stopped(), error, *text(1, "b"), stopped("max_tokens", input_tokens=20), STOP)
    assert (got.text, got.finish_reason, got.usage) == ("a", "stop", Usage(20, 5))


def test_a_stop_without_a_reason_is_what_it_looks_like():
    assert read(START, *text(0, "a"), STOP).finish_reason == "stop"
    assert read(START, begin(0, "tool_use", id="a", name="p"), STOP).tool_calls[0].arguments == "{}"
    with pytest.raises(BadResponse):
        read(START, STOP)


def test_a_pair_of_surrogates_that_was_cut_is_one_character():
    got = read(START, *text(0, "a\ud83d", "\ude80b\ud83d"), stopped(), STOP)
    assert got.text == "a🚀b\ufffd"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, None),
        ({"output_tokens": 3}, None),
        ({"input_tokens": -1, "output_tokens": 3}, None),
        ({"input_tokens": 1, "output_tokens": -3}, None),
        ({"input_tokens": 1e300, "output_tokens": 3}, None),
        ({"input_tokens": "1", "output_tokens": 3}, None),
        ({"input_tokens": 1}, Usage(1)),
        ({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": -5}, Usage(1, 2)),
        ({"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 9}},
         Usage(1, 2, reasoning_tokens=2)),
    ],
)  # fmt: skip
def test_only_counts_that_can_be_believed_count(raw: dict[str, Any], expected: Usage | None):
    assert usage_of(raw) == expected


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "Unavailable"),
        ({"error": {"type": "invalid_request_error", "message": "m"}}, "InvalidRequest"),
        ({"error": "m"}, "BadResponse"), ({}, "BadResponse"), ([], "BadResponse"), ({"content": "a"}, "BadResponse"),
        ({"content": None, "stop_reason": "end_turn"}, "BadResponse"), ({"choices": []}, "BadResponse"),
    ],
)  # fmt: skip
def test_a_document_that_is_no_message_is_an_error(document: Any, kind: str):
    with pytest.raises(ProviderError) as caught:
        whole(document)
    assert caught.value.kind == kind


_KEYS = ("type", "index", "content_block", "delta", "text", "usage", "message", "content", "id", "input", "error")
_WORDS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "text",
    "tool_use", "thinking", "text_delta", "input_json_delta", "signature_delta", "message_stop", "\ud83d",
)  # fmt: skip
_VALUES = st.recursive(
    st.sampled_from(_WORDS) | st.none() | st.integers(-1, 2) | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5), max_size=6))
def test_whatever_the_documents_hold_they_are_an_answer_or_an_error_of_ours(documents: list[dict[str, Any]]):
    raw = b"".join(f"data: {json.dumps(each)}\n\n".encode() for each in documents) or b"data: x\n\n"
    for read_ in (
        lambda: events_of(raw=raw),
        lambda: list(MessageReading().whole(documents[0] if documents else None)),
    ):
        with suppress(ProviderError):
            fold(read_())


_EVENTS = [
    START, *text(0, "a"), begin(1, "tool_use", id="t", name="n", input={}),
    more(1, "input_json_delta", partial_json='{"a":1}'), end(1), stopped(), STOP,
]  # fmt: skip


@given(st.lists(st.sampled_from(_EVENTS)))
def test_events_in_any_order_never_finish_what_had_no_end(documents: list[dict[str, Any]]):
    try:
        got = read(*documents or [STOP])
    except ProviderError:
        return
    assert got.finish_reason in ("stop", "tool_calls")
    assert any(each["type"] in ("message_delta", "message_stop") for each in documents)
