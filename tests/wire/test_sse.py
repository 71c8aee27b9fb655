"""Server-sent events: what ends a line, what ends an event, and what is too much."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse
from llmctl.wire.sse import MAX_LINE, Reader, ServerEvent

PIECES = (
    b"data: a", b"data:b", b"data:  two blanks", b"data", b"data:", b"datax: no field", b"event: error", b"event",
    b"event:", b"id: 1", b"retry: 3", b": comment", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\xef\xbb\xbf",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\x0b", b"\x0c", b"\x1c", b" ", b"\x00",
)  # fmt: skip
streams = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=30).map(b"".join)


def reference(stream: bytes) -> list[ServerEvent]:
    """WHATWG HTML 9.2.6, literally, except that the end of the stream dispatches what is pending."""
    stream = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = stream.split(b"\n")
    lines = [*lines, b""] if lines[-1] else lines
    events, name, buffer = [], b"", None
    for line in lines:
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if buffer is not None:
                events.append(ServerEvent(name.strip().decode("utf-8", "replace"), buffer.removesuffix(b"\n")))
            name, buffer = b"", None
        elif not field and colon:
            continue
        elif field == b"event":
            name = value
        elif field == b"data":
            buffer = (buffer or b"") + value + b"\n"
    if buffer is not None:
        events.append(ServerEvent(name.strip().decode("utf-8", "replace"), buffer.removesuffix(b"\n")))
    return events


def read(*chunks: bytes) -> list[ServerEvent]:
    reader = Reader()
    return [event for chunk in chunks for event in reader.feed(chunk)] + list(reader.end())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


@given(streams, st.lists(st.integers(0, 1000), max_size=8))
def test_a_stream_reads_as_the_standard_says_however_it_is_split(stream: bytes, places: list[int]):
    assert read(*cut(stream, places)) == reference(stream)


@given(streams)
def test_a_stream_reads_the_same_one_byte_at_a_time(stream: bytes):
    assert read(*cut(stream, list(range(len(stream))))) == reference(stream)


def test_an_empty_chunk_between_cr_and_lf_changes_nothing():
    assert read(b"data: a\r", b"", b"\ndata: b\r", b"\n", b"\r", b"\n") == [ServerEvent("", b"a\nb")]


def test_a_byte_order_mark_counts_only_at_the_start():
    assert read(b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [ServerEvent("", b"a")]


def test_a_name_belongs_to_one_event():
    assert read(b"event: error\ndata: 1\n\ndata: 2\n\n") == [ServerEvent("error", b"1"), ServerEvent("", b"2")]


def test_an_event_without_data_is_none():
    assert read(b"event: ping\n\nid: 7\n\n") == []


def test_what_stands_unfinished_at_the_end_is_an_event():
    assert read(b"data: a\n\ndata: b") == [ServerEvent("", b"a"), ServerEvent("", b"b")]
    assert read(b"data: a\n") == [ServerEvent("", b"a")]


LONG = b"x" * MAX_LINE
TOO_MUCH = {
    "a line": [b"data: ", LONG, b"\n\n"],
    "a line in one chunk": [b"data: " + LONG + b"\n\n"],
    "a line without an end": [b"data: " + LONG],
    "a comment": [b": " + LONG + b"\n"],
    "an event of two lines": [b"data: " + LONG[6:] + b"\n", b"data: more than is left\n\n"],
    "an event of many lines": [b"data: x\n" * (MAX_LINE // 2 + 2)],
    "an event of empty lines": [b"data\n" * (MAX_LINE + 2)],
}


@pytest.mark.parametrize("chunks", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_more_than_a_mebibyte_is_refused(chunks: list[bytes]):
    with pytest.raises(BadResponse, match="1 MiB"):
        read(*chunks)


@pytest.mark.parametrize("chunks", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_came_before_too_much_is_not_lost(chunks: list[bytes]):
    stream = b"data: good\n\n" + b"".join(chunks)
    for pieces in ([stream], cut(stream, list(range(0, len(stream), 65_521)))):
        reader, events = Reader(), list[ServerEvent]()
        arriving = (event for piece in pieces for event in reader.feed(piece))
        with pytest.raises(BadResponse):
            events.extend(arriving)
        assert events == [ServerEvent("", b"good")]


def test_a_line_of_just_a_mebibyte_is_read():
    line = b"data:" + LONG[5:]
    assert read(line + b"\n\n") == read(line, b"\n\n") == [ServerEvent("", LONG[5:])]


def test_reading_takes_time_in_proportion_to_the_bytes():
    stream = b"data\n" * 200_000 + b"\n" + b"data: {}\n\n" * 50_000 + b"\r" * 500_000
    began = time.process_time()
    read(stream)
    read(*cut(stream, list(range(0, len(stream), 1000))))
    assert time.process_time() - began < 5.0
