"""How an answer arrives: which form it has, where it ends, what is broken in it; the same for every protocol."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse, ProviderError, RateLimited, StreamTruncated
from llmctl.core.types import Event
from llmctl.wire.framing import Surrogates, decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmctl.core.types import FinishReason

BOM = b"\xef\xbb\xbf"


class Words:
    """A protocol of its own: `{"say": text}`, `{"end": true}`, `{"error": text}`, `{"over": true}` as a last word."""

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        self.done = False
        self.heard: list[str] = []

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        self.heard.append(name)
        if "error" in document:
            raise RateLimited(str(document["error"]))
        if document.get("bad"):
            raise BadResponse("bad")
        self.done = bool(document.get("over"))
        if document.get("end"):
            self.finish = "stop"
        return Event(text=document["say"], finish_reason=self.finish) if "say" in document else None

    def rest(self) -> Event:
        return Event(finish_reason="stop")

    def whole(self, document: Any) -> Iterator[Event]:
        said = document[0] if isinstance(document, list) and document else document
        if not isinstance(said, dict) or "say" not in said:
            raise BadResponse("no answer")
        yield Event(text=said["say"], finish_reason="stop")


def read(*chunks: bytes, stream: bool = True) -> tuple[str, int, ProviderError | None]:
    """The text, how many pieces were passed over, and the error that ended it."""
    reading = decoder(Words(), stream=stream)
    events: list[Event] = []
    error = None
    try:
        for chunk in chunks:
            events += reading.feed(chunk)
        events += reading.end()
    except ProviderError as raised:
        error = raised
    return "".join(event.text for event in events), sum(event.skipped for event in events), error


def data(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


def split(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(places)]


WHOLE = b'{"say": "hi"}'
STREAM = data({"say": "h"}, {"say": "i", "end": True})
FORMS = [
    lead + body
    for body in (
        WHOLE,
        b"[" + WHOLE + b"]",
        STREAM,
        b": ping\n\n" + STREAM,
        b"event: x\n" + STREAM,
        b"id: 1\n" + STREAM,
    )
    for lead in (b"", BOM, b" \r\n\t", BOM + b"\n", b"\n" + BOM)
]


@given(st.sampled_from(FORMS), st.booleans(), st.lists(st.integers(0, 200), max_size=6))
def test_what_comes_is_read_as_what_it_is_however_it_is_cut(body: bytes, stream: bool, cuts: list[int]):
    if body.startswith(b"\n" + BOM) and b"data:" in body:  # the mark is no part of a line but at the very beginning
        return
    assert read(*split(body, cuts), stream=stream) == ("hi", 0, None)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "body", [b"<html>busy</html>", b"busy", b"null", b"7", b'"say"', b"\xff", b"{", b"[]x", b"x" * 9000]
)
def test_what_is_no_answer_in_any_form_is_a_bad_response(body: bytes, stream: bool):
    assert isinstance(read(body, stream=stream)[2], BadResponse)


def test_nothing_at_all_is_a_stream_cut_short_or_no_document():
    for chunks in ((), (b"",), (b"", b" \n"), (BOM,), (BOM[:2],)):
        assert isinstance(read(*chunks)[2], StreamTruncated)
        assert isinstance(read(*chunks, stream=False)[2], BadResponse)


@pytest.mark.parametrize("ending", [b"", b"data: {", b"data:", b": ping\n\n", b"\n\n\n"])
def test_a_stream_without_finish_or_terminator_is_truncated_and_keeps_what_it_said(ending: bytes):
    text, _, error = read(data({"say": "h"}) + ending)
    assert text == "h"
    assert isinstance(error, StreamTruncated)


@pytest.mark.parametrize(
    "word", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \r\n\r\n", data({"over": True})]
)
def test_a_terminator_ends_a_stream_that_gave_no_reason_and_nothing_after_it_counts(word: bytes):
    reading = decoder(Words(), stream=True)
    events = [*reading.feed(data({"say": "h"}) + word + data({"say": "x"}, {"error": "late"})), *reading.end()]
    assert ("".join(event.text for event in events), events[-1].finish_reason, reading.done) == ("h", "stop", True)


def test_a_broken_piece_is_passed_over_and_counted_until_the_finish():
    for broken in (b"data: {\n\n", b"data: 7\n\n", b"data: [1]\n\n", b"data: \xff\xfe\n\n"):
        assert read(broken + STREAM + broken) == ("hi", 1, None)


def test_an_error_event_is_an_error_even_when_it_is_plain_text():
    for said in (b"slow down", b'"slow down"', b"[]"):
        text, _, error = read(data({"say": "h"}) + b"event: error\ndata: " + said + b"\n\n")
        assert text == "h"
        assert isinstance(error, RateLimited)


def test_what_is_wrong_after_the_finish_does_no_harm():
    reading = decoder(Words(), stream=True)
    events = [*reading.feed(STREAM), *reading.feed(data({"bad": True}, {"say": "x"})), *reading.end()]
    assert "".join(event.text for event in events) == "hi"
    assert reading.done
    assert isinstance(read(data({"bad": True}) + STREAM)[2], BadResponse)


def test_the_name_of_an_event_reaches_the_protocol():
    words = Words()
    list(decoder(words, stream=True).feed(b"event: start\n" + data({}) + data({})))
    assert words.heard == ["start", ""]


@given(st.binary(), st.booleans(), st.lists(st.integers(0, 50), max_size=3))
def test_arbitrary_bytes_raise_nothing_but_our_errors(body: bytes, stream: bool, cuts: list[int]):
    read(*split(body, cuts), stream=stream)
    read(*split(STREAM[:20] + body, cuts), stream=stream)


@given(
    st.text(st.characters(codec="utf-16") | st.sampled_from("\U0001f600\ud83d\ude00a")), st.lists(st.integers(0, 30))
)
def test_pairs_that_were_cut_are_joined_and_the_rest_is_well_formed(text: str, cuts: list[int]):
    halves = "".join(chr(unit) for unit in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"))
    places = [0, *sorted(cut % (len(halves) + 1) for cut in cuts), len(halves)]
    surrogates = Surrogates()
    joined = "".join(surrogates.join(halves[a:b]) for a, b in itertools.pairwise(places)) + surrogates.rest()
    assert joined == halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
