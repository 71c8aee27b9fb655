"""Encoding for OpenAI-shaped providers: dialects, what is dropped, what cannot be written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import UsageError
from llmctl.core.redact import Secret
from llmctl.core.types import Document, Image, Message, Params, Request, ResponseFormat, Text, Tool, ToolCall
from llmctl.wire.base import Encoded, Endpoint
from llmctl.wire.openai_chat import encode
from llmctl.wire.openai_shape import messages_of, tools_of
from tests.wire.fixtures import ASKED

BASE = "https://api.example.com/v1"


def encoded(request: Request, dialect: dict[str, Any] | None = None, *, base: str = BASE, key: str = "k") -> Encoded:
    provider = Provider("example", api_base=BASE, dialect=dialect or {})
    return encode(request, Deployment("d", provider, "m"), Endpoint(base, Secret(key)))


def body(request: Request, dialect: dict[str, Any] | None = None) -> Any:
    return json.loads(encoded(request, dialect).http.body)


def with_params(**params: Any) -> Request:
    return Request(ASKED, Params(**params))


def test_a_request_without_a_key_carries_no_authorization():
    assert "authorization" not in encoded(Request(ASKED), key="").http.headers
    assert encoded(Request(ASKED)).http.headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (BASE, "https://chat.example.com/v2/chat/completions"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions"),
    ],
)
def test_the_providers_other_address_for_chat_gives_way_to_a_users_own(base: str, url: str):
    assert encoded(Request(ASKED), {"chat_base": "https://chat.example.com/v2"}, base=base).http.url == url


def test_a_dialect_renames_drops_and_adds():
    dialect = {
        "rename": {"seed": "random_seed"}, "drop": ["top_k", "stop"], "max_tokens": "max_completion_tokens",
        "headers": {"x-app": "a"}, "chat_path": "/c", "stream_usage": "always", "tool_choice_required": "any",
    }  # fmt: skip
    params = Params(seed=1, top_k=2, stop=("x",), max_tokens=3, reasoning_tokens=9)
    request = Request(ASKED, params, tool_choice="required")
    got = encoded(request, dialect)
    assert json.loads(got.http.body) == {
        "model": "m", "messages": [{"role": "user", "content": "Say hello."}], "random_seed": 1,
        "max_completion_tokens": 3, "stream": True, "tool_choice": "any",
    }  # fmt: skip
    assert set(got.dropped) == {"top_k", "stop", "reasoning_tokens"}
    assert got.http.headers["x-app"] == "a"
    assert got.http.url == f"{BASE}/c"


@pytest.mark.parametrize("zero", [{"temperature": 0.0}, {"seed": 0}, {"parallel_tool_calls": False}, {"max_tokens": 0}])
def test_a_parameter_of_zero_is_sent(zero: dict[str, Any]):
    assert body(with_params(**zero)).items() >= zero.items()


def test_stop_is_a_list_however_many_there_are():
    assert body(with_params(stop=("a",)))["stop"] == ["a"]
    assert body(with_params(stop=("a", "b")))["stop"] == ["a", "b"]
    assert "stop" not in body(with_params())


def test_what_the_user_passes_through_wins():
    got = body(with_params(temperature=1.0, extra={"temperature": 0.5, "logit_bias": {"1": 2}}))
    assert (got["temperature"], got["logit_bias"]) == (0.5, {"1": 2})


@pytest.mark.parametrize("extra", [{"x": {1}}, {"x": float("nan")}, {"x": float("inf")}, {("a",): 1}, {"x": b"y"}])
def test_what_is_not_json_is_a_usage_error(extra: dict[Any, Any]):
    with pytest.raises(UsageError, match="JSON"):
        encoded(with_params(extra=extra))


def test_a_loop_in_what_is_passed_through_is_a_usage_error():
    loop: dict[str, Any] = {}
    loop["x"] = loop
    with pytest.raises(UsageError, match="JSON"):
        encoded(with_params(extra=loop))


def test_any_text_can_be_sent():
    sent = encoded(Request((Message("user", (Text("lone \ud83d and \u2028"),)),))).http.body
    assert sent.isascii()
    assert json.loads(sent)["messages"][0]["content"] == "lone \ud83d and \u2028"


def test_a_document_has_a_file_name_with_an_ending():
    names = [Document("application/pdf", "QQ==", name) for name in ("", "a", "b.txt")]
    parts = body(Request((Message("user", tuple(names)),)))["messages"][0]["content"]
    assert [part["file"]["filename"] for part in parts] == ["document.pdf", "a.pdf", "b.txt"]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat("json"), {"type": "json_object"}),
        (
            ResponseFormat("json_schema", {"type": "object"}, "n", strict=False),
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": False}},
        ),
    ],
)
def test_a_response_format_is_sent(wanted: ResponseFormat, sent: dict[str, Any]):
    assert body(replace(Request(ASKED), response_format=wanted))["response_format"] == sent


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "function": {"name": "f"}}])
def test_a_tool_choice_is_a_word_or_a_name(choice: Any):
    canonical = choice if isinstance(choice, str) else "f"
    assert body(replace(Request(ASKED), tool_choice=canonical))["tool_choice"] == choice


# --- nothing is lost ------------------------------------------------------------------------------------------------

text = st.text(max_size=8)
base64 = st.sampled_from(["QQ==", "QUJD"])
parts = (
    st.builds(Text, text)
    | st.builds(Image, media_type=st.sampled_from(["image/png", ""]), data=base64)
    | st.builds(Image, url=st.sampled_from(["https://e.com/a,b.png", "data:image/svg+xml,<svg/>"]))
    | st.builds(Document, st.just("application/pdf"), base64, st.sampled_from(["a.pdf", "b.c.txt"]))
)
calls = st.builds(ToolCall, text, text, text)
texts = st.lists(st.builds(Text, text), max_size=2).map(tuple)
messages = (
    st.builds(Message, st.sampled_from(["system", "user"]), st.lists(parts, max_size=3).map(tuple))
    | st.builds(Message, st.just("assistant"), texts, st.lists(calls, max_size=2).map(tuple))
    | st.builds(Message, st.just("tool"), texts, tool_call_id=text)
)


def plain(message: Message) -> Message:
    """The same message as the wire can tell it: text parts that stand alone are one."""
    if all(isinstance(part, Text) for part in message.parts):
        empty = not message.text and message.tool_calls
        return replace(message, parts=() if empty else (Text(message.text),))
    return message


@given(st.lists(messages, max_size=4))
def test_encoding_loses_no_message(asked: list[Message]):
    sent = body(Request(tuple(asked)))["messages"]
    assert messages_of(sent) == tuple(plain(message) for message in asked)


@given(st.lists(st.builds(Tool, text, text, st.dictionaries(text, text, max_size=2)), min_size=1, max_size=3))
def test_encoding_loses_no_tool(tools: list[Tool]):
    assert tools_of(body(replace(Request(ASKED), tools=tuple(tools)))["tools"]) == tuple(tools)
