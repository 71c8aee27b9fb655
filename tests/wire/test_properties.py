"""What holds for every wire, whatever is asked and whatever arrives."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.catalog import Deployment
from llmctl.core.errors import ProviderError
from llmctl.core.redact import Secret
from llmctl.core.types import Message, Params, Request, Text, Thought, Tool, ToolCall
from llmctl.wire import PROTOCOLS
from llmctl.wire.base import Endpoint, Wire, load
from tests.wire.fixtures import ASKED, NOW, cases, providers, read

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = {
    "openai": "gpt-4o", "azure": "gpt-4o", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash",
    "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0",
}  # fmt: skip
HEADERS = {"bedrock": {"content-type": "application/vnd.amazon.eventstream"}}
each_wire = pytest.mark.parametrize("protocol", sorted(PROTOCOLS))


def wire_and_target(protocol: str) -> tuple[Wire, Deployment, Endpoint]:
    deployment = Deployment("d", providers()[protocol], MODELS[protocol])
    return load(protocol), deployment, Endpoint("https://host.example", Secret("k" * 20))


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON document, keys too, and in JSON within it."""
    if isinstance(value, str):
        yield value
        if value.startswith("{"):
            with suppress(ValueError):
                yield from strings(json.loads(value))
    elif isinstance(value, dict):
        yield from value
        yield from (word for each in value.values() for word in strings(each))
    elif isinstance(value, list):
        yield from (word for each in value for word in strings(each))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Request, list[str]]:
    """A conversation in any order of turns, and the marks that stand in it, one in each thing that was said."""
    marks: list[str] = []

    def mark() -> str:
        marks.append(f"mark{len(marks)}x")
        return marks[-1]

    def texts() -> tuple[Text, ...]:
        return tuple(Text(draw(st.text(max_size=5)) + mark()) for _ in range(draw(st.integers(1, 3))))

    messages: list[Message] = []
    for role in draw(st.lists(st.sampled_from(["system", "user", "assistant", "tools"]), min_size=1, max_size=7)):
        if role == "tools":
            calls = tuple(
                ToolCall(f"c{len(messages)}{n}", "f", f'{{"a": "{mark()}"}}') for n in range(draw(st.integers(1, 3)))
            )
            thoughts = (Thought(mark(), "c2ln"),) if draw(st.booleans()) else ()
            messages.append(Message("assistant", texts() if draw(st.booleans()) else (), calls, thoughts=thoughts))
            messages += [Message("tool", texts(), tool_call_id=call.id, name="f") for call in calls]
        else:
            messages.append(Message(role, texts()))
    return Request((*messages, Message("user", texts())), tools=(Tool("f", "", {"type": "object"}),)), marks


@each_wire
@given(asked=conversations(), stream=st.booleans())
def test_encoding_never_loses_what_was_said(protocol: str, asked: tuple[Request, list[str]], stream: bool):
    wire, deployment, endpoint = wire_and_target(protocol)
    request, marks = asked
    body = json.loads(wire.encode(request, deployment, endpoint).http.body)
    said = "\n".join(strings(body))
    # OpenAI's chat has no way to send a thought back: the turn is whole without it.
    silent = {t.text for m in request.messages for t in m.thoughts} if protocol in ("openai", "azure") else set()
    assert [mark for mark in marks if mark not in said and mark not in silent] == []


PARAMS: dict[str, Any] = {
    "temperature": 0.5, "max_tokens": 4000, "top_p": 0.5, "top_k": 3, "stop": ("X",), "seed": 7,
    "presence_penalty": 0.25, "frequency_penalty": 0.75, "reasoning_effort": "high", "reasoning_tokens": 1024,
    "parallel_tool_calls": False, "user": "somebody",
}  # fmt: skip


@each_wire
@pytest.mark.parametrize("model", ["", "claude-sonnet-5-5", "gemini-3-pro", "o3-mini"])
@pytest.mark.parametrize("name", PARAMS)
def test_a_parameter_is_sent_or_said_to_be_dropped(protocol: str, name: str, model: str):
    wire, deployment, endpoint = wire_and_target(protocol)
    deployment = Deployment("d", deployment.provider, model or deployment.model)
    tools = (Tool("f", "", {"type": "object"}),) if name == "parallel_tool_calls" else ()
    plain, given_one = (
        wire.encode(Request(ASKED, params, tools=tools), deployment, endpoint)
        for params in (Params(), Params(**{name: PARAMS[name]}))
    )
    assert (name in given_one.dropped) is (json.loads(given_one.http.body) == json.loads(plain.http.body))


@each_wire
def test_extras_are_passed_through_and_into_objects(protocol: str):
    wire, deployment, endpoint = wire_and_target(protocol)
    extra = {"x_new": {"a": [1]}, "x_flag": True}
    body = json.loads(wire.encode(Request(ASKED, Params(extra=extra)), deployment, endpoint).http.body)
    assert {key: body.get(key) for key in extra} == extra


def mangled(data: st.DataObject, body: bytes) -> bytes:
    """`body` with bytes changed, cut out or said twice."""
    out = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at, size = data.draw(st.integers(0, len(out))), data.draw(st.integers(0, 40))
        out[at : at + size] = data.draw(
            st.sampled_from([b"", bytes(out[at : at + size]) * 2, b"\xff\x00", b'{"', b"1e999"])
        )
    return bytes(out)


@each_wire
@given(data=st.data())
def test_a_reply_with_broken_bytes_is_read_or_is_an_error_of_ours(protocol: str, data: st.DataObject):
    case = data.draw(st.sampled_from([case for case in cases("responses") if case.provider.protocol == protocol]))
    got, error = read(case.decoder(), [mangled(data, case.body)])
    assert error is None or isinstance(error, ProviderError), repr(error)
    assert error is not None or got.finish_reason is not None
    assert got.usage is None or min(got.usage.input_tokens, got.usage.output_tokens, got.usage.cached_input_tokens) >= 0


@each_wire
@given(body=st.binary(max_size=300), stream=st.booleans())
def test_arbitrary_bytes_are_never_an_answer(protocol: str, body: bytes, stream: bool):
    wire, *_ = wire_and_target(protocol)
    got, error = read(wire.decoder(Request(ASKED, stream=stream), 200, HEADERS.get(protocol, {})), [body])
    assert isinstance(error, ProviderError), repr(error)
    assert (got.text, got.finish_reason) == ("", None)


WORDS = """
    choices delta message content text type index error code status usage tool_calls finish_reason id name candidates
    parts functionCall args finishReason usageMetadata promptFeedback output stopReason toolUse details reason
    content_block stop_reason input_tokens promptTokenCount data embedding embeddings values
"""
KEYS = st.text(max_size=3) | st.sampled_from(WORDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, JSON, max_size=6)


@each_wire
@given(document=DOCUMENTS, status=st.sampled_from([400, 401, 403, 404, 429, 500, 503, 529]))
def test_any_document_is_an_answer_an_error_or_a_refusal(protocol: str, document: Any, status: int):
    wire, *_ = wire_and_target(protocol)
    body = json.dumps(document).encode()
    for sent, request in (
        (body, Request(ASKED, stream=False)),
        (b"event: x\ndata: " + body + b"\n\n", Request(ASKED)),
        (body, Request((), inputs=("a",), stream=False)),
    ):
        _, error = read(wire.decoder(request, 200, {}), [sent])
        assert error is None or isinstance(error, ProviderError), repr(error)
    refusal = wire.classify(status, {}, body, NOW)
    assert isinstance(refusal, ProviderError)
    assert refusal.status == status
