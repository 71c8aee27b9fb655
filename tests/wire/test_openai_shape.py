"""The OpenAI chat shape at our own edge: what fits becomes canonical, what does not is named in a usage error."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.config.load import catalog_of
from llmctl.core.errors import UsageError
from llmctl.core.record import Answer, CallRecord
from llmctl.core.types import (
    Completion,
    Document,
    Image,
    Message,
    Request,
    ResponseFormat,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from llmctl.wire.openai_chat import body_of
from llmctl.wire.openai_shape import messages_of, response_format_of, tool_choice_of, tools_of

PDF = "data:application/pdf;base64,QQ=="


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"role": "user", "content": "hi"}, Message("user", (Text("hi"),))),
        ({"role": "developer", "content": "be terse"}, Message("system", (Text("be terse"),))),
        ({"role": "assistant", "content": None}, Message("assistant", ())),
        ({"role": "assistant", "content": "a", "tool_calls": None, "refusal": None, "tool_call_id": None},
         Message("assistant", (Text("a"),))),
        ({"role": "tool", "content": "42", "tool_call_id": "c"}, Message("tool", (Text("42"),), tool_call_id="c")),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}]},
         Message("assistant", (), (ToolCall("c", "f", '{"x": 1}'),))),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": None}}]},
         Message("assistant", (), (ToolCall("c", "f", ""),))),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "https://e/x"}]},
         Message("user", (Text("a"), Image(url="https://e/x")))),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]},
         Message("user", (Image("image/png", "QQ=="),))),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg>"}}]},
         Message("user", (Image(url="data:image/svg+xml,<svg>"),))),
        ({"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}]},
         Message("user", (Document("application/pdf", "QQ==", "a.pdf"),))),
        ({"role": "user", "content": [{"type": "file", "file": {"file_data": PDF}}]},
         Message("user", (Document("application/pdf", "QQ=="),))),
    ],
)  # fmt: skip
def test_a_row_that_fits_becomes_a_message(row: dict[str, Any], message: Message):
    assert messages_of([row]) == (message,)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (7, "messages[0]"),
        ({}, "messages[0].role"),
        ({"role": "nobody"}, "messages[0].role"),
        ({"role": ["user"]}, "messages[0].role"),
        ({"role": "user", "content": 7}, "messages[0].content"),
        ({"role": "user", "content": {"type": "text"}}, "messages[0].content"),
        ({"role": "user", "content": ["a"]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "sound"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": ["text"]}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0].image_url"),
        ({"role": "user", "content": [{"type": "file"}]}, "messages[0].content[0].file"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
         "messages[0].content[0].file.file_data"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_data": "QQ=="}}]},
         "messages[0].content[0].file.file_data"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_data": PDF, "filename": 7}}]},
         "messages[0].content[0].file.filename"),
        ({"role": "assistant", "tool_calls": 7}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": {"id": "c"}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [7]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "messages[0].tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}, "messages[0].tool_calls[0].function.name"),
        ({"role": "tool", "tool_call_id": 7}, "messages[0].tool_call_id"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(row: Any, place: str):
    with pytest.raises(UsageError) as caught:
        messages_of([row])
    assert caught.value.message.startswith(f"{place}:")
    assert caught.value.hint


@pytest.mark.parametrize("rows", [None, 7, "hi", {"role": "user", "content": "hi"}, True, 1.5])
def test_what_is_no_list_is_named(rows: Any):
    with pytest.raises(UsageError, match=r"^messages: "):
        messages_of(rows)
    with pytest.raises(UsageError, match=r"^tools: "):
        tools_of(rows)


def test_any_iterable_of_rows_will_do():
    assert messages_of(iter([{"role": "user", "content": "hi"}])) == (Message("user", (Text("hi"),)),)


def test_a_tool_is_a_function_with_a_schema():
    row = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    assert tools_of([row]) == (Tool("f", "d", {"type": "object"}),)
    bare = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}
    assert tools_of([bare]) == (Tool("f"),)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("f", "tools[0]"),
        ({"type": "web_search"}, "tools[0].function"),
        ({"function": {"name": 7}}, "tools[0].function.name"),
        ({"function": {"name": "f", "description": 7}}, "tools[0].function.description"),
        ({"function": {"name": "f", "parameters": [1]}}, "tools[0].function.parameters"),
    ],
)
def test_a_tool_that_does_not_fit_is_named(row: Any, place: str):
    with pytest.raises(UsageError) as caught:
        tools_of([row])
    assert caught.value.message.startswith(f"{place}:")


@pytest.mark.parametrize(
    ("choice", "canonical"),
    [(None, None), ("auto", "auto"), ({"type": "function", "function": {"name": "f"}}, "f")],
)
def test_a_tool_choice_is_a_word_or_a_functions_name(choice: Any, canonical: str | None):
    assert tool_choice_of(choice) == canonical


@pytest.mark.parametrize("choice", [7, [], ["auto"], {}, {"function": "f"}, {"function": {"name": None}}, True])
def test_a_tool_choice_that_does_not_fit_is_a_usage_error(choice: Any):
    with pytest.raises(UsageError, match="tool_choice"):
        tool_choice_of(choice)


WORDS = [
    "role", "user", "assistant", "tool", "content", "type", "text", "image_url", "url", "file", "file_data", "filename",
    "tool_calls", "id", "function", "name", "arguments", "tool_call_id", "parameters", "description", PDF,
]  # fmt: skip
words = st.sampled_from(WORDS)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | words
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5), max_leaves=20
)
rows = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"])},
    optional={"content": documents, "tool_calls": documents, "tool_call_id": documents},
)


@given(documents | st.lists(rows, max_size=2))
def test_any_json_is_canonical_or_a_usage_error(document: Any):
    for reading in (messages_of, tools_of, tool_choice_of):
        with suppress(UsageError):
            reading(document)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"role": "user", "content": "hi", "name": "ann"}, Message("user", (Text("hi"),), name="ann")),
        ({"role": "user", "content": "hi", "cache_control": {"type": "ephemeral"}},
         Message("user", (Text("hi"),), cache=True)),
        ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
         Message("user", (Text("a"),), cache=True)),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e/x", "detail": "low"}}]},
         Message("user", (Image(url="https://e/x", detail="low"),))),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"},
                                      {"type": "input_image", "image_url": "data:image/png;base64,QQ=="}]},
         Message("user", (Text("a"), Image("image/png", "QQ==")))),
        ({"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://e/x"}}]},
         Message("user", (Image(url="https://e/x"),))),
        ({"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
            {"type": "document", "title": "t", "source": {"type": "base64", "media_type": "application/pdf",
                                                          "data": "QQ=="}}]},
         Message("user", (Image("image/png", "QQ=="), Document("application/pdf", "QQ==", "t")))),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
         Message("assistant", (), (ToolCall("f", "f", "{}"),))),
        ({"role": "function", "name": "f", "content": "42"},
         Message("tool", (Text("42"),), tool_call_id="f", name="f")),
        ({"role": "tool", "tool_call_id": "c", "content": "no", "is_error": True},
         Message("tool", (Text("no"),), tool_call_id="c", is_error=True)),
        ({"role": "assistant", "content": "a", "reasoning_content": "hm"},
         Message("assistant", (Text("a"),), thoughts=(Thought("hm"),))),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""},
                                               "extra_content": {"google": {"thought_signature": "s"}}}]},
         Message("assistant", (), (ToolCall("c", "f", "", "s"),))),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {
            "name": "f", "arguments": "", "provider_specific_fields": {"thought_signature": "s"}}}]},
         Message("assistant", (), (ToolCall("c", "f", "", "s"),))),
    ],
)  # fmt: skip
def test_what_others_add_to_the_shape_is_read_too(row: dict[str, Any], message: Message):
    assert messages_of([row]) == (message,)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}, "content[0].source.type"),
        ({"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "u"}}]}, "source.type"),
        ({"role": "user", "content": [{"type": "document"}]}, "content[0].source"),
        ({"role": "assistant", "thinking_blocks": [7]}, "thinking_blocks[0]"),
        ({"role": "assistant", "thinking_blocks": [{"thinking": 7}]}, "thinking_blocks.thinking"),
        ({"role": "assistant", "function_call": {}}, "function_call.name"),
    ],
)
def test_what_is_added_and_does_not_fit_is_named_too(row: Any, place: str):
    with pytest.raises(UsageError) as caught:
        messages_of([row])
    assert place in caught.value.message


@pytest.mark.parametrize(
    ("wanted", "shape"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ResponseFormat("json")),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": False}},
         ResponseFormat("json_schema", {}, "n", strict=False)),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, ResponseFormat("json_schema", {})),
    ],
)  # fmt: skip
def test_a_response_format_is_a_shape(wanted: Any, shape: ResponseFormat | None):
    assert response_format_of(wanted) == shape


@pytest.mark.parametrize(
    "wanted", [7, {}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}]
)
def test_a_response_format_that_does_not_fit_is_a_usage_error(wanted: Any):
    with pytest.raises(UsageError, match="response_format"):
        response_format_of(wanted)


words = st.text(min_size=1)
calls = st.builds(ToolCall, words, words, st.text(), st.text())
thoughts = st.one_of(st.builds(Thought, words, st.text()), st.builds(Thought, redacted=words))
images = st.builds(Image, st.just("image/png"), st.just("QQ=="), detail=st.sampled_from(["", "low"]))
documents = st.builds(Document, st.just("application/pdf"), st.just("QQ=="), st.just("a.pdf"))
texts = st.builds(Text, words)


@given(st.text(), st.lists(calls).map(tuple), st.lists(thoughts).map(tuple), st.sampled_from(["", "gemini"]))
def test_an_answer_goes_back_as_a_message_with_all_it_had(text, tool_calls, thought, maker):
    made = Completion(text, tool_calls=tool_calls, thoughts=thought)
    answer = Answer(CallRecord("i", 0.0, "ask", "m"), made, (), maker=maker)
    parts = (Text(text),) if text or not tool_calls else ()
    assert messages_of([json.loads(json.dumps(answer.as_message()))]) == (
        Message("assistant", parts, tool_calls, thoughts=thought, maker=maker),
    )


@given(
    st.lists(
        st.one_of(
            st.builds(Message, st.just("system"), st.tuples(texts)),
            st.builds(Message, st.just("user"), st.lists(st.one_of(texts, images, documents), min_size=2).map(tuple),
                      name=st.text()),
            st.builds(Message, st.just("tool"), st.tuples(texts), tool_call_id=words),
        )
    ),
    st.lists(st.builds(Tool, words, st.text(), st.just({"type": "object"}), st.sampled_from([None, True, False]))),
    st.sampled_from([None, "auto", "f"]),
)  # fmt: skip
def test_what_the_openai_wire_writes_is_read_back_as_it_was(messages, tools, choice):
    messages = [m for m in messages if any(not isinstance(part, Text) for part in m.parts) or len(m.parts) == 1]
    deployment = catalog_of({}, {}).deployment("openai/m")
    body, _ = body_of(Request(tuple(messages), tools=tuple(tools), tool_choice=choice), deployment)
    assert messages_of(body["messages"]) == tuple(messages)
    assert tools_of(body.get("tools", ())) == tuple(tools)
    assert tool_choice_of(body.get("tool_choice")) == choice
