"""Reading OpenAI-shaped answers: what counts as an answer, as its end, as an error, and what is passed over."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse, ProviderError, QuotaExhausted, RateLimited, StreamTruncated, Unavailable
from llmctl.core.types import Completion, Request, ToolCall, ToolCallDelta, Usage, well_formed
from llmctl.wire.framing import Surrogates
from llmctl.wire.openai_reading import CallNumbers, decoder, usage_of
from llmctl.wire.values import loads
from tests.wire.fixtures import ASKED, bytewise, cases, read

if TYPE_CHECKING:
    from llmctl.wire.base import Decoder

DONE = b"data: [DONE]\n\n"


def sse(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


def delta(content: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}]}


def usage(given: Any, made: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": made, **more}}


def reader(*, streamed: bool = True) -> Decoder:
    return decoder(Request(ASKED, stream=streamed), 200, {})


def stream(*chunks: bytes) -> Completion:
    got, error = read(reader(), chunks)
    assert error is None, error
    return got


def broken(*chunks: bytes) -> Exception:
    got, error = read(reader(), chunks)
    assert error is not None, got
    return error


def document(**body: Any) -> tuple[Completion, Exception | None]:
    return read(reader(streamed=False), [json.dumps(body).encode()])


def answer(message: Any, finish: Any = "stop", **more: Any) -> tuple[Completion, Exception | None]:
    return document(choices=[{"message": message, "finish_reason": finish}], **more)


# --- which decoder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("label", ["text/event-stream; charset=utf-8", "application/json", "text/plain", ""])
def test_what_arrives_is_read_as_what_it_is_whatever_was_asked_and_however_it_is_labelled(streamed: bool, label: str):
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    for sent in (
        b"\n " + body,
        b"\xef\xbb\xbf" + body,
        sse(delta("hi", "stop")),
        b": ping\n\n" + sse(delta("hi", "stop")),
    ):
        for chunks in ([sent], bytewise(sent)):
            reading = decoder(Request(ASKED, stream=streamed), 200, {"content-type": label})
            assert read(reading, chunks) == (Completion("hi", finish_reason="stop"), None)


# --- the end of a stream --------------------------------------------------------------------------------------------


def test_a_finish_reason_without_done_is_complete():
    assert stream(sse(delta("hi"), delta(None, "stop"))) == Completion("hi", finish_reason="stop")


def test_done_without_a_finish_reason_is_complete():
    assert stream(sse(delta("hi")), DONE) == Completion("hi", finish_reason="stop")


@pytest.mark.parametrize(
    "body", [sse(delta("hi")), sse(usage(1, 2)), sse({}), b": processing\n\n", b"data: {", b"\xef\xbb\xbfda", b""]
)
def test_neither_a_finish_reason_nor_done_is_a_truncated_stream(body: bytes):
    assert isinstance(broken(body), StreamTruncated)


@pytest.mark.parametrize("chunks", [(DONE,), (sse(usage(1, 2)), DONE), (sse({"choices": []}), DONE), (sse(7), DONE)])
def test_done_without_a_single_choice_is_no_answer(chunks: tuple[bytes, ...]):
    assert isinstance(broken(*chunks), BadResponse)


@pytest.mark.parametrize("body", [b"<html>502</html>", b"Service down", b"\xff\xff", b"{}"])
def test_what_is_no_event_stream_is_a_bad_response(body: bytes):
    assert isinstance(broken(body), BadResponse)


def test_an_error_document_where_a_stream_was_asked_for_is_that_error():
    said = {"error": {"message": "m" * 1000, "code": "insufficient_quota"}}
    error = broken(*bytewise(json.dumps(said).encode()))
    assert isinstance(error, QuotaExhausted)


def test_the_last_event_may_lack_its_blank_line():
    assert stream(sse(delta("hi", "length")).rstrip()).finish_reason == "length"


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("length", "length"), ("max_tokens", "length"),
        ("tool_calls", "tool_calls"), ("function_call", "tool_calls"), ("content_filter", "content_filter"),
        ("error", "error"), ("abort", "error"), ("a word of tomorrow", "pause"),
    ],
)  # fmt: skip
def test_finish_reasons_have_one_spelling(said: str, means: str):
    assert stream(sse(delta("hi", said))).finish_reason == means


@pytest.mark.parametrize("none", [None, "", 7, [], {}])
def test_what_is_no_finish_reason_ends_nothing(none: Any):
    assert isinstance(broken(sse(delta("hi", none))), StreamTruncated)


# --- after the end --------------------------------------------------------------------------------------------------


def test_usage_after_the_finish_is_read_and_the_last_one_wins():
    got = stream(sse(usage(1, 1), delta("hi", "stop"), usage(5, 6), usage(7, 8)), DONE, sse(usage(9, 9)))
    assert got.usage == Usage(7, 8)


def test_usage_that_cannot_be_believed_does_not_replace_one_that_can():
    got = stream(sse(delta("hi", "stop"), usage(5, 6), usage(None, 6), usage(-1, 6), {"usage": 7}))
    assert got.usage == Usage(5, 6)


AFTER = {
    "text": sse(delta("more")),
    "a second finish": sse(delta("more", "length")),
    "an error": sse({"error": {"message": "late"}}),
    "an error event": b'event: error\ndata: {"message": "late"}\n\n',
    "broken events": b"data: {\n\ndata: 7\n\n",
    "a line without end": b"data: " + b"x" * (1 << 20),
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER.keys())
def test_what_follows_the_finish_is_ignored(after: bytes):
    whole = sse(delta("hi", "stop"))
    assert stream(whole + after) == stream(whole, after) == Completion("hi", finish_reason="stop")


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER.keys())
def test_what_follows_done_is_ignored(after: bytes):
    reading = reader()
    events = [*reading.feed(sse(delta("hi")) + DONE + after), *reading.feed(after), *reading.end()]
    assert reading.done
    assert "".join(event.text for event in events) == "hi"


def test_a_broken_event_is_skipped_and_counted():
    got = stream(sse(delta("a")) + b"data: {broken\n\ndata: 7\n\n" + sse(delta("b", "stop")))
    assert (got.text, got.skipped) == ("ab", 2)


def test_a_choice_of_a_stream_may_hold_a_message_in_place_of_a_delta():
    whole = {"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}
    assert stream(sse({"choices": [whole]}), DONE).text == "ab"
    both = {"index": 0, "delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}
    assert stream(sse(delta("ab"), {"choices": [both]}), DONE).text == "ab"


def test_an_event_without_data_is_not_a_broken_one():
    got = stream(sse(delta("a")) + b"event: ping\ndata: \n\n" + sse(delta("b", "stop")))
    assert (got.text, got.skipped) == ("ab", 0)


# --- errors in a stream ---------------------------------------------------------------------------------------------

ERRORS = {
    "an object": (sse({"error": {"code": "rate_limit_exceeded"}}), RateLimited),
    "beside empty choices": (sse({"choices": [], "error": {"code": 429}}), RateLimited),
    "a string": (sse({"error": "overloaded"}), Unavailable),
    "a list": (sse({"error": [{"code": "insufficient_quota"}]}), QuotaExhausted),
    "a number": (sse({"error": 7}), Unavailable),
    "a bare object": (sse({"object": "error", "message": "m", "code": 503}), Unavailable),
    "a named event": (b'event: error\ndata: {"message": "m", "code": 429}\n\n', RateLimited),
    "a named event of text": (b"event: error\ndata: overloaded\n\n", Unavailable),
    "a named event of nothing": (b"event: error\ndata: {}\n\n", Unavailable),
}


@pytest.mark.parametrize(("event", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_event_is_raised_after_what_came_before_it(event: bytes, expected: type[ProviderError]):
    for chunks in ([sse(delta("hi")) + event], bytewise(sse(delta("hi")) + event)):
        got, error = read(reader(), chunks)
        assert type(error) is expected
        assert (got.text, got.finish_reason) == ("hi", None)


@pytest.mark.parametrize("nothing", [None, {}, [], "", False])
def test_an_empty_error_field_is_no_error(nothing: Any):
    assert stream(sse(delta("hi") | {"error": nothing}, delta(None, "stop") | {"error": nothing})).text == "hi"
    assert document(choices=[{"message": {"content": "hi"}}], error=nothing)[0].text == "hi"


def test_too_long_a_line_loses_nothing_of_what_came_before():
    got, error = read(reader(), [sse(delta("hi")) + b"data: " + b"x" * (1 << 20)])
    assert isinstance(error, BadResponse)
    assert got.text == "hi"


# --- whole documents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"7", b"null", b"[]", b'{"choices": [', b"{}"])
def test_a_body_that_is_no_answer_is_a_bad_response(body: bytes):
    assert isinstance(read(reader(streamed=False), [body])[1], BadResponse)


@pytest.mark.parametrize(
    "choices", [[], None, 7, {}, [7], [{}], [{"message": None}], [{"message": "hi"}], [{"index": 1, "message": {}}]]
)
def test_an_answer_without_a_choice_keeps_its_usage(choices: Any):
    got, error = document(choices=choices, usage={"prompt_tokens": 1, "completion_tokens": 2})
    assert isinstance(error, BadResponse)
    assert got.usage == Usage(1, 2)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_quota"}},
        {"error": "insufficient quota", "choices": []},
        {"error": [{"code": "insufficient_quota"}]},
        [{"error": {"code": "insufficient_quota"}}],
        {"object": "error", "message": "m", "code": 402},
    ],
)
def test_an_error_in_a_200_is_that_error(body: Any):
    assert isinstance(read(reader(streamed=False), [json.dumps(body).encode()])[1], QuotaExhausted)


def test_a_document_has_ended_even_when_it_does_not_say_why():
    assert answer({"content": "hi"}, None)[0].finish_reason == "stop"


def test_content_may_be_parts_with_thinking_among_them():
    said, thought = {"type": "text", "text": "hi"}, {"type": "text", "text": "hm"}
    assert answer({"content": [{"type": "thinking", "thinking": 7}, said]})[0].reasoning == ""
    for thinking in ([thought], "hm"):
        got, _ = answer({"content": [{"type": "thinking", "thinking": thinking}, said, 7, {"type": "text"}]})
        assert (got.text, got.reasoning) == ("hi", "hm")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(field: str):
    assert answer({"content": "hi", field: "hm"})[0].reasoning == "hm"
    assert stream(sse(delta(None, **{field: "hm"}), delta("hi", "stop"))).reasoning == "hm"


# --- tool calls -----------------------------------------------------------------------------------------------------


def call(index: Any = None, ident: Any = None, name: Any = None, arguments: Any = "") -> dict[str, Any]:
    row: dict[str, Any] = {"id": ident, "function": {"name": name, "arguments": arguments}}
    return row if index is None else row | {"index": index}


def test_fragments_of_tool_calls_are_joined_by_index():
    got = stream(sse(
        delta(tool_calls=[call(0, "a", "f", "{"), call(1, "b", "g", "[")]),
        delta(tool_calls=[call(1, arguments="]")]),
        delta(tool_calls=[call(0, arguments="}")]),
        delta(None, "tool_calls"),
    ))  # fmt: skip
    assert got.tool_calls == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "[]"))


@pytest.mark.parametrize("index", [0, None])
def test_calls_that_share_an_index_are_told_apart_by_their_ids(index: int | None):
    begun = [call(index, "a", "f", "{}"), call(index, "b", "f", "{")]
    rows = [*begun, call(index, None, None, "}"), call(index, "c", "g", "{}")]
    expected = (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"), ToolCall("c", "g", "{}"))
    assert stream(sse(*(delta(tool_calls=[row]) for row in rows), delta(None, "tool_calls"))).tool_calls == expected


def test_an_id_that_is_repeated_or_changes_without_a_name_is_the_same_call():
    rows = [call(0, "a", "f", "{"), call(0, "a", "f", "1"), call(0, "other", None, "}")]
    got = stream(sse(*(delta(tool_calls=[row]) for row in rows), delta(None, "tool_calls")))
    assert got.tool_calls == (ToolCall("a", "f", "{1}"),)


def test_a_new_call_never_takes_a_number_that_is_in_use():
    rows = [call(0, "a", "f"), call(0, "b", "f"), call(1, "c", "f"), call(1, None, None, "x")]
    got = stream(sse(*(delta(tool_calls=[row]) for row in rows), delta(None, "tool_calls")))
    assert [(c.id, c.arguments) for c in got.tool_calls] == [("a", "{}"), ("b", "{}"), ("c", "x")]


def test_calls_of_a_document_are_as_many_as_it_lists():
    got, _ = answer({"tool_calls": [call(0, "a", "f", "{}"), call(0, "a", "f", "{}"), 7]}, "tool_calls")
    assert got.tool_calls == (ToolCall("a", "f", "{}"), ToolCall("a", "f", "{}"))


def test_arguments_are_kept_as_the_model_wrote_them():
    assert answer({"tool_calls": [call(0, "a", "f", '{"x": ')]})[0].tool_calls[0].arguments == '{"x": '
    assert answer({"tool_calls": [call(0, "a", "f", {"x": 1})]})[0].tool_calls[0].arguments == '{"x": 1}'


def test_many_fragments_are_joined_in_proportional_time():
    rows = sse(delta(tool_calls=[call(0, "a", "f", "x" * 50)])) * 20_000
    assert len(stream(rows, DONE).tool_calls[0].arguments) == 1_000_000


def test_many_calls_are_numbered_in_proportional_time():
    numbers = CallNumbers()
    begun = [numbers.of((ToolCallDelta(n, f"c{n}", "f"),))[0] for n in range(50_000)]
    assert [each.index for each in begun] == list(range(50_000))


# --- usage ----------------------------------------------------------------------------------------------------------


SMALL = {"prompt_tokens": 5, "completion_tokens": 3}
THOUGHT = {"completion_tokens_details": {"reasoning_tokens": 2}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (SMALL, Usage(5, 3)),
        ({"prompt_tokens": 5.0, "completion_tokens": 3}, Usage(5, 3)),
        ({"prompt_tokens": 5}, Usage(5, 0)),
        (SMALL | {"prompt_tokens_details": {"cached_tokens": 4}}, Usage(5, 3, 4)),
        (SMALL | {"prompt_tokens_details": {"cached_tokens": 9}}, Usage(5, 3, 5)),
        (SMALL | {"prompt_cache_hit_tokens": 2}, Usage(5, 3, 2)),
        (SMALL | {"cached_tokens": 2}, Usage(5, 3, 2)),
        (SMALL | THOUGHT | {"total_tokens": 8}, Usage(5, 3, reasoning_tokens=2)),
        (SMALL | THOUGHT | {"total_tokens": 10}, Usage(5, 5, reasoning_tokens=2)),
        (SMALL | {"reasoning_tokens": 2}, Usage(5, 3, reasoning_tokens=2)),
        (SMALL | {"prompt_tokens_details": 7, "completion_tokens_details": []}, Usage(5, 3)),
    ],
)
def test_usage_is_normalised(raw: dict[str, Any], expected: Usage):
    assert usage_of({"usage": raw}) == expected
    assert usage_of({"x_groq": {"usage": raw}}) == expected
    assert usage_of({}, {"usage": raw}) == expected


@pytest.mark.parametrize("name", ["cache_write_tokens", "cache_creation_input_tokens"])
@pytest.mark.parametrize(("written", "expected"), [(5, 5), (20, 6), (-1, 0), ("7", 0), (None, 0)])
def test_tokens_that_a_cache_mark_kept_are_a_part_of_the_prompt_beside_the_cached(
    name: str, written: Any, expected: int
):
    raw = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4, name: written}}
    assert usage_of({"usage": raw}) == Usage(10, 1, 4, expected)


@pytest.mark.parametrize(
    "count", [None, -1, True, "5", 1.5, float("nan"), float("inf"), 1e300, 1 << 53, 10**400, [], {}]
)
def test_a_count_that_cannot_be_believed_makes_no_usage(count: Any):
    assert usage_of({"usage": {"prompt_tokens": count, "completion_tokens": 3}}) is None
    assert usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": count}}) is None


# --- text that is not text ------------------------------------------------------------------------------------------

EMOJI = "a\U0001f600b\U0001f1e9\U0001f1ea"


def utf16_pieces(text: str) -> list[str]:
    raw = text.encode("utf-16-be")
    return [raw[i : i + 2].decode("utf-16-be", "surrogatepass") for i in range(0, len(raw), 2)]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_surrogate_pair_split_between_deltas_is_one_character(field: str):
    rows = [delta(**{field: piece}) for piece in utf16_pieces(EMOJI)]
    events = list(reader().feed(sse(*rows)))
    assert "".join(event.text + event.reasoning for event in events) == EMOJI
    for event in events:
        (event.text + event.reasoning).encode()


def test_a_surrogate_pair_split_in_a_tool_call_is_one_character():
    rows = [delta(tool_calls=[call(0, "a", "f", piece)]) for piece in utf16_pieces(EMOJI)]
    assert stream(sse(*rows, delta(None, "tool_calls"))).tool_calls[0].arguments == EMOJI


LONE = "x\ud83d"


def test_a_lone_surrogate_becomes_a_replacement_character_wherever_it_stands():
    head = {"model": LONE, "system_fingerprint": LONE}
    calls = [call(0, LONE, LONE, LONE)]
    rows = [delta(LONE, tool_calls=calls, reasoning=LONE, refusal=LONE) | head, delta(None, "stop")]
    for end in (rows, rows[:1]):
        got = stream(sse(*end), DONE)
        called = got.tool_calls[0]
        said = [got.text, got.reasoning, got.refusal, called.id, called.name, called.arguments]
        assert [*said, got.reported_model, got.system_fingerprint] == ["x\ufffd"] * 8
    message = {"content": LONE, "reasoning": LONE, "refusal": LONE, "tool_calls": [call(0, LONE, LONE, LONE)]}
    got, _ = answer(message, **head)
    assert got.text == got.reasoning == got.refusal == got.reported_model == got.tool_calls[0].arguments == "x\ufffd"


@given(st.lists(st.text(st.characters() | st.characters(categories=["Cs"]))))
def test_joined_pieces_equal_the_joined_text(pieces: list[str]):
    surrogates = Surrogates()
    joined = "".join(surrogates.join(piece) for piece in pieces) + surrogates.rest()
    assert joined == well_formed("".join(pieces))


# --- hostile bytes --------------------------------------------------------------------------------------------------

BOMBS = [
    b"[" * 100_000, b'{"a":' * 100_000, b'{"choices":' + b"[" * 5000, b'{"choices":[{"delta":' * 400,
    b"9" * 5000, b"-", b"NaN", b'{"usage":{"prompt_tokens":NaN,"completion_tokens":Infinity}}',
    b'{"usage":{"prompt_tokens":' + b"9" * 4000 + b"}}", b'{"choices":[{"index":1e999,"delta":{"content":1}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"index":' + b"9" * 4000 + b"}]}}]}",
    b'{"choices":[{"delta":{"tool_calls":[{"index":-1},{"index":true},{"index":null},{"function":[]}]}}]}',
    b'{"choices":[{"message":{"content":"\\ud800"}}]}', b'{"error":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"choices":[{"message":{"tool_calls":[{"function":{"arguments":' + b"[" * 900 + b"]" * 900 + b"}}]}}]}",
    b'{"choices":[{"delta":{"content":' + b"[" * 900 + b"]" * 900 + b"}}]}",
    b'{"choices":[{"message":{"content":' + b'[{"type":"thinking","thinking":' * 300 + b'"x"' + b"}]" * 300 + b"}}]}",
    b"\x00", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}",
]  # fmt: skip


def _only_our_errors(chunks: list[bytes]) -> None:
    for reading in (reader(), reader(streamed=False)):
        got, error = read(reading, chunks)
        assert error is None or isinstance(error, ProviderError), repr(error)
        if error is None:
            assert got.finish_reason is not None
        got.text.encode()
        str(error).encode()


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: repr(bomb[:40]))
def test_a_bomb_does_no_harm(bomb: bytes):
    _only_our_errors([bomb])
    _only_our_errors([b"data: " + bomb + b"\n\n" + sse(delta("hi", "stop"))])
    _only_our_errors([b"event: error\ndata: " + bomb + b"\n\n"])


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_nesting_near_the_interpreters_limit_does_no_harm(depth: int):
    nest = b"[" * depth + b"]" * depth
    thinking = b'[{"type":"thinking","thinking":' * (depth // 3) + b'"x"' + b"}]" * (depth // 3)
    for inner in (b'{"message":' + nest + b"}", b'{"content":' + thinking + b"}"):
        for body in (b'{"error":' + inner + b"}", b'{"choices":[{"message":' + inner + b',"delta":' + inner + b"}]}"):
            _only_our_errors([body])
            _only_our_errors([b"data: " + body + b"\n\n"])
    arguments = b'{"tool_calls":[{"function":{"arguments":' + nest + b"}}]}"
    _only_our_errors([b'{"choices":[{"message":' + arguments + b"}]}"])
    _only_our_errors([b'data: {"choices":[{"delta":' + arguments + b"}]}\n\n"])


SCRAPS = st.sampled_from([b"data: ", b"\n\n", b"{", b'"error":', b'"choices":[', b"[DONE]", b"}"])


@given(st.lists(st.binary() | SCRAPS))
def test_no_bytes_raise_anything_but_ours(chunks: list[bytes]):
    _only_our_errors(chunks)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "choices", "delta", "message", "content", "tool_calls", "function", "arguments", "index", "finish_reason", "usage",
    "prompt_tokens", "completion_tokens", "error", "code", "x_groq", "type", "text", "thinking", "reasoning", "model",
]  # fmt: skip
shaped = st.recursive(
    json_values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@given(st.lists(shaped, max_size=4))
def test_no_document_raises_anything_but_ours(documents: list[Any]):
    _only_our_errors([sse(*documents)])
    _only_our_errors([json.dumps(documents[0]).encode() if documents else b""])


@pytest.mark.parametrize("case", cases("responses"), ids=repr)
def test_a_mutated_reply_raises_nothing_but_ours(case: Any):
    rng = random.Random(case.id)
    for _ in range(40):
        body = bytearray(case.body or b"\n")
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(body))
            match rng.randrange(4):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    del body[at : at + rng.randrange(1, 30)]
                case 2:
                    body[at:at] = body[rng.randrange(len(body)) :][: rng.randrange(60)]
                case _:
                    body[at:at] = rng.choice([b"null", b"\n", b"[", b"\\ud83d", b"1e999", b"-1", b'"', b"}"])
            if not body:
                break
        _only_our_errors([bytes(body)])
        _only_our_errors(bytewise(bytes(body)))


def test_a_document_is_read_or_is_none():
    assert loads(b'{"a": 1}') == {"a": 1}
    assert loads(b"[" * 100_000) is None
    assert loads(b"\xff") is None


# --- MiniMax reports errors beside an answer, under status 200 -------------------------------------------------------


@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
def test_an_error_beside_a_null_answer_is_that_error(choices: dict[str, Any]):
    said = {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, **choices}
    assert isinstance(document(**said)[1], QuotaExhausted)
    assert isinstance(broken(sse(said)), QuotaExhausted)


def test_a_status_of_zero_beside_an_answer_is_no_error():
    fine = {"base_resp": {"status_code": 0, "status_msg": ""}}
    assert answer({"content": "hi"}, **fine)[1] is None
    assert stream(sse(delta("hi") | fine, delta(None, "stop") | fine)).text == "hi"
