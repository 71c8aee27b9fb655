"""The scripted provider is read by our own wires as the real ones are: answers, every refusal, every broken answer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.catalog import Deployment
from llmctl.core.errors import BadResponse, StreamTruncated
from llmctl.core.faults import FAULTS, Fault, schedule
from llmctl.core.redact import Secret
from llmctl.core.types import Message, Request, Text
from llmctl.wire import PROTOCOLS, scripted
from llmctl.wire.base import Endpoint, load
from llmctl.wire.scripted import Reply, Script
from tests.wire.fixtures import ASKED, NOW, bytewise, providers, read

if TYPE_CHECKING:
    from llmctl.core.types import Completion

pytest.importorskip("botocore")

PIECES = ("Hel", "lo", " \N{SNOWMAN}", "\n\nworld", "!")
SCRIPT = Script(PIECES, "the-model", 12)
REFUSALS = [(protocol, name) for protocol in PROTOCOLS for name, kind in FAULTS.items() if kind.status and kind.becomes]
each_wire = pytest.mark.parametrize("protocol", PROTOCOLS)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_refusal = pytest.mark.parametrize(("protocol", "name"), REFUSALS)


def fault(name: str) -> Fault:
    return schedule(FAULTS[name].usual or name).faults[0]


def heard(
    protocol: str, reply: Reply, *, stream: bool, chunks: list[bytes] | None = None
) -> tuple[Completion, Exception | None]:
    """What our wire makes of a reply: of all of it, or of these chunks."""
    decoder = load(protocol).decoder(Request(ASKED, stream=stream), reply.status, reply.headers)
    return read(decoder, chunks if chunks is not None else [b"".join(sum(reply[2:], ()))])


def becomes(protocol: str, reply: Reply, *, stream: bool) -> str:
    """The class of errors that a call ends in; "" for none."""
    if reply.status >= 400:
        return load(protocol).classify(reply.status, reply.headers, b"".join(reply.opening), NOW).kind
    completion, error = heard(protocol, reply, stream=stream)
    return "ContentFiltered" if error is None and completion.finish_reason == "content_filter" else type(error).__name__


def asked(protocol: str, *roles: str, stream: bool = False) -> tuple[str, bytes]:
    """Path and body of a request, as we send it."""
    messages = tuple(Message(role, (Text("words"),)) for role in roles)  # type: ignore[arg-type]
    deployment = Deployment("d", providers()[protocol], "model")
    endpoint = Endpoint("https://host.example", Secret("k" * 20))
    request = load(protocol).encode(Request(messages, stream=stream), deployment, endpoint).http
    return request.url.removeprefix("https://host.example"), request.body


# --- answers --------------------------------------------------------------------------------------------------------


@each_wire
@both_ways
@given(data=st.data(), pieces=st.lists(st.text(max_size=8), max_size=6))
def test_any_text_comes_out_as_it_went_in_however_it_is_cut_into_chunks(
    protocol: str, stream: bool, data: st.DataObject, pieces: list[str]
):
    reply = scripted.answer(protocol, Script(tuple(pieces), "the-model", 12), stream=stream)
    body = b"".join(sum(reply[2:], ()))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=8)) | {0, len(body)})
    chunks = [body[a:b] for a, b in pairwise(cuts)]
    said, error = heard(protocol, reply, stream=stream, chunks=chunks)
    assert error is None
    assert (said.text, said.finish_reason, said.skipped) == ("".join(pieces), "stop", 0)
    assert said.usage is not None
    assert (said.usage.input_tokens, said.usage.output_tokens, said.usage.estimated) == (12, len(pieces), False)
    assert said.reported_model == ("" if protocol == "bedrock" else "the-model")  # Converse does not say it


@each_wire
def test_each_piece_of_text_is_one_event_that_is_heard_as_soon_as_it_is_whole(protocol: str):
    reply = scripted.answer(protocol, SCRIPT, stream=True)
    decoder = load(protocol).decoder(Request(ASKED, stream=True), 200, reply.headers)
    before = [event.text for part in reply.opening for event in decoder.feed(part)]
    assert "".join(before) == ""
    assert tuple("".join(event.text for event in decoder.feed(part)) for part in reply.events) == PIECES


@each_wire
def test_an_answer_is_read_byte_for_byte(protocol: str):
    reply = scripted.answer(protocol, SCRIPT, stream=True)
    said, error = heard(protocol, reply, stream=True, chunks=bytewise(b"".join(sum(reply[2:], ()))))
    assert (said.text, error) == ("".join(PIECES), None)


@each_wire
def test_a_stream_without_its_terminator_is_complete(protocol: str):
    reply = scripted.answer(protocol, SCRIPT, stream=True)
    said, error = heard(protocol, reply._replace(terminator=()), stream=True)
    assert (said.text, said.finish_reason, error) == ("".join(PIECES), "stop", None)
    assert said.usage is not None
    assert said.usage.output_tokens == len(PIECES)


@each_wire
@pytest.mark.parametrize("n", range(len(PIECES) + 1))
def test_a_stream_that_is_cut_before_its_finish_is_truncated(protocol: str, n: int):
    reply = scripted.answer(protocol, SCRIPT, stream=True)
    said, error = heard(protocol, reply, stream=True, chunks=[*reply.opening, *reply.events[:n]])
    assert type(error) is StreamTruncated
    assert said.text == "".join(PIECES[:n])


@each_wire
@pytest.mark.parametrize("n", range(len(PIECES) + 1))
def test_a_broken_event_costs_no_text(protocol: str, n: int):
    reply = scripted.answer(protocol, SCRIPT, stream=True)
    events = (*reply.events[:n], scripted.broken(protocol), *reply.events[n:])
    said, error = heard(protocol, reply._replace(events=events), stream=True)
    assert (said.text, said.skipped, error) == ("".join(PIECES), 1, None)


@each_wire
@both_ways
@pytest.mark.parametrize("says", [scripted.empty, scripted.garbage], ids=["empty", "garbage"])
def test_an_answer_that_is_none_is_a_bad_response(protocol: str, stream: bool, says):
    said, error = heard(protocol, says(protocol), stream=stream)
    assert (type(error), said.text) == (BadResponse, "")


# --- refusals -------------------------------------------------------------------------------------------------------


@each_refusal
@both_ways
def test_a_refusal_becomes_what_the_table_of_faults_says(protocol: str, name: str, stream: bool):
    reply = scripted.refusal(protocol, fault(name), stream=stream)
    assert becomes(protocol, reply, stream=stream) == FAULTS[name].becomes
    # Whoever does not tell whether a stream was asked for is understood as well.
    assert becomes(protocol, scripted.refusal(protocol, fault(name)), stream=stream) == FAULTS[name].becomes


@each_refusal
def test_a_fault_that_is_a_number_has_that_status(protocol: str, name: str):
    status = scripted.refusal(protocol, fault(name)).status
    assert status == FAULTS[name].status or (name in ("quota", "filter") and status in (200, 400))


@each_wire
@pytest.mark.parametrize("name", ["429", "503"])
@pytest.mark.parametrize(
    ("number", "header"),
    [("2", ("retry-after", "2")), ("0", ("retry-after", "0")), ("0.5", ("retry-after-ms", "500"))],
)
def test_the_wait_is_said_as_it_was_written(protocol: str, name: str, number: str, header: tuple[str, str]):
    reply = scripted.refusal(protocol, schedule(f"{name}@{number}").faults[0])
    assert header in reply.headers.items()
    error = load(protocol).classify(reply.status, reply.headers, reply.opening[0], NOW)
    assert (error.kind, error.retry_after_s) == (FAULTS[name].becomes, float(number))


@each_refusal
def test_nobody_is_asked_to_wait_where_no_seconds_were_given(protocol: str, name: str):
    reply = scripted.refusal(protocol, fault(name))
    assert not {header for header in reply.headers if "retry" in header}
    if reply.status >= 400:
        assert load(protocol).classify(reply.status, reply.headers, reply.opening[0], NOW).retry_after_s is None


# --- requests -------------------------------------------------------------------------------------------------------


@each_wire
@both_ways
def test_a_request_of_ours_tells_whether_it_wants_a_stream(protocol: str, stream: bool):
    path, body = asked(protocol, "user", stream=stream)
    assert scripted.wants_stream(protocol, path, body) is stream


@each_wire
@pytest.mark.parametrize(("roles", "goes_on"), [(("user",), False), (("user", "assistant"), True)])
def test_a_request_of_ours_tells_whether_its_answer_was_begun(protocol: str, roles: tuple[str, ...], goes_on: bool):
    assert scripted.has_prefill(protocol, asked(protocol, *roles)[1]) is goes_on


@each_wire
@given(body=st.binary() | st.sampled_from([b"[" * 100_000, b'{"messages": [1], "contents": [[]], "stream": "true"}']))
def test_what_is_no_request_wants_nothing(protocol: str, body: bytes):
    assert not scripted.wants_stream(protocol, "/v1/chat", body)
    assert not scripted.has_prefill(protocol, body)
