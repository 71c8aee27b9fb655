"""The shape of an answer asked through a tool: who needs it, what is sent, and that any way of cutting reads alike."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.config.load import catalog_of
from llmctl.core.types import Event, Message, Params, Request, ResponseFormat, Text, Tool, ToolCallDelta, fold
from llmctl.run.conform import conformed
from llmctl.wire.emulate import Reading, emulated, needed

CLOSED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
LIST = {"type": "array", "items": {"type": "integer"}}
LOOK = Tool("look", "look it up", {"type": "object"})
CATALOG = catalog_of({}, {})
OLD = CATALOG.deployment("anthropic/claude-3-haiku-20240307")
NEW = CATALOG.deployment("anthropic/claude-sonnet-4-5")


def wanting(schema: Any = CLOSED, kind: Any = "json_schema", **more: Any) -> Request:
    return Request((Message("user", (Text("hi"),)),), response_format=ResponseFormat(kind, schema), **more)


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        ("anthropic/claude-3-5-sonnet-20241022", True), ("anthropic/claude-2.1", True),
        ("anthropic/claude-sonnet-4-20250514", True), ("anthropic/claude-opus-4-0", True),
        ("anthropic/claude-sonnet-4-5", False), ("anthropic/claude-opus-4-6", False),
        ("anthropic/claude-sonnet-5-5", False), ("anthropic/qwen3-coder", True),
        ("bedrock/anthropic.claude-3-sonnet-20240229-v1:0", True),
        ("bedrock/us.anthropic.claude-3-5-haiku-20241022-v1:0", True),
        ("bedrock/global.anthropic.claude-sonnet-4-20250514-v1:0", True),
        ("bedrock/eu.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        ("bedrock/us.amazon.nova-pro-v1:0", True), ("bedrock/qwen.qwen3-32b-v1:0", False),
        ("deepseek/deepseek-chat", True), ("openai/gpt-4o", False), ("gemini/gemini-2.5-flash", False),
    ],
)  # fmt: skip
def test_the_provider_table_says_which_models_lack_structured_output(model: str, lacks: bool):
    assert needed(wanting(), CATALOG.deployment(model)) is lacks
    assert not needed(replace(wanting(), response_format=None), CATALOG.deployment(model))


def test_a_server_of_anthropics_protocol_that_is_said_to_have_structured_output_is_asked_natively():
    row: dict[str, Any] = {"protocol": "anthropic", "api_base": "https://mine.test"}
    for dialect, lacks in ({}, True), ({"json_schema": False}, True), ({"json_schema": True}, False):
        catalog = catalog_of({"providers": {"mine": {**row, "dialect": dialect}}}, {})
        assert needed(wanting(), catalog.deployment("mine/qwen3-coder")) is lacks


@pytest.mark.parametrize(("model", "lacks"), [("anthropic/claude-sonnet-4-5", True), ("openai/gpt-4o", False)])
def test_any_json_object_is_asked_through_a_tool_where_there_is_no_json_mode(model: str, lacks: bool):
    assert needed(wanting(None, "json"), CATALOG.deployment(model)) is lacks


def test_the_capabilities_of_a_deployment_have_the_last_word_against_it_and_base_model_names_it():
    listed = replace(CATALOG.deployment("openai/x"), capabilities=("tools",))
    assert needed(wanting(), listed)
    assert not needed(wanting(), replace(listed, capabilities=("tools", "schema")))
    arn = CATALOG.deployment("bedrock/arn:aws:bedrock:us-east-1:1:application-inference-profile/x")
    assert not needed(wanting(), arn)
    assert needed(wanting(), replace(arn, base_model="anthropic.claude-3-haiku-20240307-v1:0"))


@pytest.mark.parametrize(
    ("schema", "native"),
    [
        (CLOSED, True),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"type": "object"}, False),
        ({}, False),
        ({**CLOSED, "properties": {"n": {"type": "integer", "minimum": 1}}}, False),
        ({**CLOSED, "properties": {"n": True}}, False),
        ({**CLOSED, "properties": {"minimum": {"type": "integer"}}}, True),
        ({**CLOSED, "properties": {"n": {"$ref": "#"}}}, False),
        ({**CLOSED, "properties": {"n": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}}, False),
        (LIST, True),
        ({"type": ["object", "null"]}, False),
    ],
)
def test_a_native_form_that_takes_closed_schemas_only_is_left_alone_with_others(schema: dict[str, Any], native: bool):
    assert needed(wanting(schema), NEW) is not native


@pytest.mark.parametrize(
    ("tools", "said", "params", "choice"),
    [
        ((), None, {}, "answer"),
        ((), "none", {}, "answer"),
        ((), "auto", {}, "answer"),
        ((LOOK,), None, {}, "required"),
        ((LOOK,), "auto", {}, "auto"),
        ((LOOK,), "look", {}, "look"),
        ((LOOK,), "none", {}, "answer"),
        ((), None, {"reasoning_tokens": 2048}, "auto"),
        ((), None, {"reasoning_effort": "low"}, "auto"),
        ((), None, {"reasoning_effort": "none"}, "answer"),
    ],
)
def test_the_answer_tool_stands_beside_the_others_and_is_forced_where_it_can_be(tools, said, params, choice):
    sent = emulated(wanting(tools=tools, tool_choice=said, params=Params(**params)), OLD)
    assert sent.tools == (*tools, Tool("answer", sent.tools[-1].description, CLOSED))
    assert (sent.tool_choice, sent.response_format) == (choice, None)


def test_a_model_that_cannot_be_forced_is_offered_the_tool_and_a_taken_name_is_not_taken_again():
    assert emulated(wanting(), CATALOG.deployment("bedrock/us.meta.llama3-3-70b-instruct-v1:0")).tool_choice == "auto"
    sent = emulated(wanting(tools=(Tool("answer"), Tool("answer_"))), OLD)
    assert [tool.name for tool in sent.tools] == ["answer", "answer_", "answer__"]


def test_a_schema_that_is_no_object_is_wrapped_and_its_references_still_lead_where_they_led():
    tree = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#"}, {"$ref": "#/$defs/s"}]}}
    sent = emulated(wanting({**tree, "$defs": {"s": {"type": "string"}}}), OLD).tools[-1].parameters
    conformed('{"value": [1, [2, "x"]]}', sent)
    with pytest.raises(Exception, match="does not meet"):
        conformed('{"value": [1, [2, null]]}', sent)
    assert emulated(wanting(None, "json"), OLD).tools[-1].parameters == {"type": "object"}


def call(arguments: str, index: int = 0, name: str = "answer", **more: Any) -> Event:
    return Event(tool_calls=(ToolCallDelta(index, f"c{index}", name, arguments),), **more)


def read(request: Request, *events: Event, last: bool = False) -> Any:
    reading = Reading(request)
    made = [reading.read(event, last=last and event is events[-1]) for event in events]
    return fold(made)


DONE = Event(finish_reason="tool_calls")


def test_the_tools_arguments_are_the_text_and_the_call_is_an_ordinary_stop():
    got = read(wanting(), Event(text="Sure: "), call('{"n": 1}'), DONE, Event(reported_model="m"))
    assert (got.text, got.tool_calls, got.finish_reason, got.reported_model) == ('{"n": 1}', (), "stop", "m")


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "pause"])
def test_another_end_stays_what_it_is(finish: Any):
    assert read(wanting(), call('{"n"'), Event(finish_reason=finish)).finish_reason == finish


def test_a_model_that_answers_in_text_has_its_text():
    got = read(wanting(), Event(text='{"n"'), Event(text=": 1}", reasoning="hm"), Event(finish_reason="stop"))
    assert (got.text, got.reasoning, got.finish_reason) == ('{"n": 1}', "hm", "stop")


def test_other_calls_pass_through_beside_the_answer_and_without_it():
    request = wanting(tools=(LOOK,))
    got = read(request, call("{}", 0, "look"), call('{"n": 1}', 1), DONE)
    assert ([c.name for c in got.tool_calls], got.text, got.finish_reason) == (["look"], '{"n": 1}', "tool_calls")
    got = read(request, Event(text="I look"), call("{}", 0, "look", finish_reason="tool_calls"))
    assert ([c.name for c in got.tool_calls], got.text) == (["look"], "I look")


def test_what_was_held_when_the_answer_broke_off_is_given_out():
    assert read(wanting(), call('{"n":'), Event(), last=True).text == '{"n":'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"value": [1, 2]}', "[1, 2]"),
        (' { "value" :[1.10,2]\n} ', "[1.10,2]"),
        ('{"value": "a}"}', '"a}"'),
        ("[1]", "[1]"),
        ('{"value": [1], "more": 2}', '{"value": [1], "more": 2}'),
        ('{"value": [1', '{"value": [1'),
        ('{"value": ' + "[" * 100_000, '{"value": ' + "[" * 100_000),
        ("", ""),
    ],
    ids=range(8),
)
def test_a_wrapped_value_is_unwrapped_as_it_was_written_and_a_broken_wrapper_stays(arguments: str, text: str):
    assert read(wanting(LIST), call(arguments), DONE).text == text


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)), st.data()
)
def test_however_the_arguments_are_cut_the_text_is_the_same(value: Any, data: st.DataObject):
    arguments = json.dumps({"value": value}, ensure_ascii=data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=5)))
    pieces = [arguments[a:b] for a, b in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    events = [call(piece, name="answer" if n == 0 else "") for n, piece in enumerate(pieces)]
    assert json.loads(read(wanting(LIST), *events, DONE).text) == json.loads(arguments)["value"]
