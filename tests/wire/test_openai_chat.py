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
from llmctl.core.types import (
    Document,
    Image,
    Message,
    Params,
    Request,
    ResponseFormat,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from llmctl.wire.base import Encoded, Endpoint
from llmctl.wire.openai_chat import encode
from llmctl.wire.openai_shape import messages_of, tools_of
from tests.wire.fixtures import ASKED, providers

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


# --- what one row of the table says ---------------------------------------------------------------------------------


def at(name: str, request: Request, model: str = "m", **more: Any) -> Encoded:
    """`request` as it goes to a provider of the table."""
    return encode(request, Deployment("d", providers()[name], model, **more), Endpoint(BASE, Secret("k")))


SAMPLED = Params(temperature=0.5, top_p=0.5, presence_penalty=1.0, frequency_penalty=1.0, seed=1, stop=("x",))
SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


@pytest.mark.parametrize(
    ("model", "refused_at"),
    [
        ("gpt-4o", ()), ("gpt-4.1-mini", ()), ("gpt-5-chat-latest", ()), ("o10", ()), ("gpt-50", ()), ("gpt-5.9", ()),
        ("o1", (None, "none", "low")), ("o3-mini", (None, "none", "low")), ("o4-mini", (None, "none", "low")),
        ("gpt-5", (None, "none", "low")), ("gpt-5-mini-2025-08-07", (None, "none", "low")),
        ("gpt-5.1", ("low",)), ("gpt-5.4-mini", ("low",)), ("gpt-5.1-codex-max", (None, "none", "low")),
        ("gpt-5.3-chat-latest", (None, "none", "low")), ("gpt-5.4-pro", (None, "none", "low")),
        ("gpt-5.5", (None, "low")), ("gpt-5.6-sol", (None, "low")), ("gpt-5.5-pro", (None, "none", "low")),
    ],
)  # fmt: skip
def test_a_model_that_reasons_is_not_sent_what_it_refuses(model: str, refused_at: tuple[str | None, ...]):
    for effort in (None, "none", "low"):
        got = at("openai", Request(ASKED, replace(SAMPLED, reasoning_effort=effort)), model)
        sent = json.loads(got.http.body)
        assert got.dropped == (SAMPLING if effort in refused_at else ())
        assert sent.keys().isdisjoint(got.dropped)
        assert {"seed", "stop"} <= sent.keys()


@pytest.mark.parametrize(
    ("name", "params", "sent", "dropped"),
    [
        ("groq", {"top_k": 3}, {}, ("top_k",)),
        ("mistral", {"seed": 5, "top_k": 3, "user": "u"}, {"random_seed": 5, "top_k": 3}, ("user",)),
        ("cohere", {"parallel_tool_calls": False}, {}, ("parallel_tool_calls",)),
        ("deepseek", {"temperature": 0.5}, {"temperature": 0.5}, ()),
        ("dashscope", {"reasoning_tokens": 99}, {"thinking_budget": 99}, ()),
        ("together", {"top_k": 3, "reasoning_tokens": 9}, {"top_k": 3}, ("reasoning_tokens",)),
        ("ollama", {"reasoning_effort": "low", "extra": {"keep_alive": "5m", "think": True}},
         {"reasoning_effort": "low", "keep_alive": "5m", "think": True}, ()),
    ],
)  # fmt: skip
def test_a_parameter_goes_where_the_provider_has_it_or_is_said_to_be_dropped(
    name: str, params: dict[str, Any], sent: dict[str, Any], dropped: tuple[str, ...]
):
    got = at(name, with_params(**params))
    assert json.loads(got.http.body).items() >= sent.items()
    assert got.dropped == dropped
    assert at("deepseek", Request(ASKED, SAMPLED), "deepseek-reasoner").dropped == SAMPLING


def test_a_named_tool_goes_alone_and_required_where_a_name_is_not_understood():
    tools = (Tool("f"), Tool("g"))
    sent = json.loads(at("llamacpp", Request(ASKED, tools=tools, tool_choice="g")).http.body)
    assert ([tool["function"]["name"] for tool in sent["tools"]], sent["tool_choice"]) == (["g"], "required")
    for choice in ("auto", "none", "required"):
        sent = json.loads(at("llamacpp", Request(ASKED, tools=tools, tool_choice=choice)).http.body)
        assert (len(sent["tools"]), sent["tool_choice"]) == (2, choice)


def test_who_speaks_is_dropped_only_where_a_name_is_refused():
    named = Request((Message("user", (Text("hi"),), name="ann"),))
    assert body(named)["messages"][0]["name"] == "ann"
    for name in ("groq", "mistral"):
        got = at(name, named)
        assert "name" not in json.loads(got.http.body)["messages"][0]
        assert got.dropped == ("name",)


def test_an_answer_is_continued_by_the_word_of_the_provider():
    begun = (*ASKED, Message("assistant", (Text("The sky"),)))
    for name, field in (("mistral", "prefix"), ("moonshot", "partial")):
        sent = json.loads(at(name, Request(begun)).http.body)["messages"]
        assert sent[-1] == {"role": "assistant", "content": "The sky", field: True}
        assert field not in json.loads(at(name, Request((*begun, *ASKED))).http.body)["messages"][1]
    assert json.loads(at("openai", Request(begun)).http.body)["messages"][-1].keys() == {"role", "content"}


ids = st.sampled_from(["call_1", "toolu_01A", "", "abcdefghi", "abcdefgh", "caf\u00e9caf\u00e9c", "\ud800"]) | st.text()


@given(ids, ids)
def test_a_foreign_tool_call_id_becomes_nine_letters_and_digits_and_a_result_still_finds_its_call(one: str, two: str):
    called = Message("assistant", (), tool_calls=(ToolCall(one, "f", "{}"), ToolCall(two, "f", "{}")))
    asked = (*ASKED, called, Message("tool", (Text("1"),), tool_call_id=one), Message("tool", (), tool_call_id=two))
    _, assistant, first, second = json.loads(at("mistral", Request(asked)).http.body)["messages"]
    sent = [call["id"] for call in assistant["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == sent
    assert all(len(each) == 9 and each.isascii() and each.isalnum() for each in sent)
    assert (sent[0] == sent[1]) == (one == two)
    kept = {"abcdefghi"} & {one, two}
    assert kept <= set(sent)


def test_documents_go_as_the_provider_takes_them():
    asked = Request(
        (Message("user", (Document("application/pdf", "QQ==", "a.pdf"), Document("application/pdf", "QQ=="))),)
    )
    uri = "data:application/pdf;base64,QQ=="
    assert json.loads(at("mistral", asked).http.body)["messages"][0]["content"] == [
        {"type": "document_url", "document_url": uri, "document_name": "a.pdf"},
        {"type": "document_url", "document_url": uri},
    ]


def test_thoughts_go_back_only_where_there_is_a_field_for_them():
    asked = Request(
        (*ASKED, Message("assistant", (Text("4"),), thoughts=(Thought("2+"), Thought("2"), Thought("", "s"))))
    )
    for name, field in (("deepseek", "reasoning_content"), ("openrouter", "reasoning"), ("openai", None)):
        sent = json.loads(at(name, asked).http.body)["messages"][1]
        assert sent == {"role": "assistant", "content": "4"} | ({field: "2+2"} if field else {})
    sealed = Request((Message("assistant", (Text("4"),), thoughts=(Thought(redacted="x"),)),))
    assert "reasoning" not in json.loads(at("openrouter", sealed).http.body)["messages"][0]


MARK = {"cache_control": {"type": "ephemeral"}}
IMAGE = Image("image/png", "QQ==")


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (Message("system", (Text("a"), Text("b")), cache=True), [{"type": "text", "text": "ab"} | MARK]),
        (Message("user", (Text("a"), IMAGE), cache=True), [{"type": "text", "text": "a"} | MARK, ...]),
        (Message("tool", (Text("a"),), tool_call_id="c", cache=True), [{"type": "text", "text": "a"} | MARK]),
        (Message("user", (IMAGE,), cache=True), None),
        (Message("assistant", (), tool_calls=(ToolCall("c", "f", "{}"),), cache=True), None),
    ],
)
def test_a_cache_mark_goes_onto_the_last_text_or_is_said_to_be_dropped(message: Message, content: Any):
    got = at("openrouter", Request((message,)))
    sent = json.loads(got.http.body)["messages"][0]["content"]
    assert got.dropped == (("cache",) if content is None else ())
    assert MARK.keys().isdisjoint(got.http.body.decode().split('"')) == (content is None)
    assert content is None or [a for a, b in zip(sent, content, strict=True) if b is not ...] == [
        each for each in content if each is not ...
    ]


def test_a_cache_mark_is_needless_where_caching_is_automatic_and_dropped_where_there_is_none():
    marked = Request((Message("user", (Text("a"),), cache=True),))
    assert at("openai", marked).dropped == ()
    assert at("together", marked).dropped == ("cache",)
    for name in ("openai", "together"):
        assert json.loads(at(name, marked).http.body)["messages"] == [{"role": "user", "content": "a"}]


def test_texts_are_embedded_under_the_providers_own_words():
    asked = Request((), inputs=("a", "b"), dimensions=3)
    assert at("openai", asked).http.url == f"{BASE}/embeddings"
    for name, sent, dropped in (
        ("openai", {"dimensions": 3, "encoding_format": "base64"}, ()),
        ("mistral", {"output_dimension": 3}, ()),
        ("cohere", {}, ("dimensions",)),
    ):
        got = at(name, replace(asked, params=Params(extra={"user": "u"})))
        assert json.loads(got.http.body) == {"model": "m", "input": ["a", "b"], "user": "u"} | sent
        assert got.dropped == dropped


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
    """The same message as the wire can tell it: text parts that stand alone are one, no arguments an empty object."""
    calls = tuple(replace(call, arguments=call.arguments or "{}") for call in message.tool_calls)
    message = replace(message, tool_calls=calls)
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
