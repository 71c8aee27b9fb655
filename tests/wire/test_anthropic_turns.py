"""A conversation as Anthropic takes it: nothing of it is lost, and nothing is in it that the API is known to refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.types import Document, Image, Message, Text, Thought, ToolCall
from llmctl.wire.anthropic_turns import turns
from llmctl.wire.values import dump

EPHEMERAL = {"type": "ephemeral"}


def user(text: str, **more: Any) -> Message:
    return Message("user", (Text(text),), **more)


def result(call: str, text: str, **more: Any) -> Message:
    return Message("tool", (Text(text),), tool_call_id=call, **more)


def calls(*ids: str, arguments: str = "{}") -> Message:
    return Message("assistant", (Text(""),), tuple(ToolCall(each, "ping", arguments) for each in ids))


def made(*messages: Message) -> Any:
    return turns(messages, [])


def test_system_messages_go_to_the_front_wherever_they_were():
    system = Message("system", (Text("A"),))
    assert made(system, user("Hi")) == ("A", [{"role": "user", "content": "Hi"}])
    later = Message("system", (Text("B"),))
    both = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert made(system, user("1"), later, user("2"))[0] == both


def test_results_of_parallel_calls_and_the_text_after_them_are_one_turn():
    _, out = made(user("?"), calls("a", "b"), result("a", "1"), result("b", "2"), user("So?"), user("And?"))
    assert [turn["role"] for turn in out] == ["user", "assistant", "user", "user"]
    assert out[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "content": "2"},
        {"type": "text", "text": "So?"},
    ]
    assert out[3]["content"] == "And?"


def test_a_result_may_be_an_error_and_may_be_a_picture():
    picture = Message("tool", (Text("see"), Image("image/png", "aGk=")), tool_call_id="b")
    _, out = made(calls("a", "b"), result("a", "no", is_error=True), picture)
    first, second = out[1]["content"]
    assert first == {"type": "tool_result", "tool_use_id": "a", "content": "no", "is_error": True}
    assert [block["type"] for block in second["content"]] == ["text", "image"]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" ", {}),
        ('{"a": ', {"invalid_json": '{"a": '}),
        ("[1]", {"invalid_json": "[1]"}),
        ('{"a": NaN}', {"invalid_json": '{"a": NaN}'}),
        ('{"a": 1e999}', {"invalid_json": '{"a": 1e999}'}),
        ("[" * 100_000, {"invalid_json": "[" * 100_000}),
    ],
    ids=range(8),
)
def test_arguments_are_an_object_whatever_the_model_wrote(arguments: str, sent: dict[str, Any]):
    _, out = made(calls("a", arguments=arguments))
    assert out[0]["content"] == [{"type": "tool_use", "id": "a", "name": "ping", "input": sent}]


def test_ids_of_another_provider_are_made_to_fit_on_both_ends():
    _, out = made(calls("call:1/x"), result("call:1/x", "1"))
    assert out[0]["content"][0]["id"] == out[1]["content"][0]["tool_use_id"] == "call_1_x"


def test_thoughts_go_back_sealed_and_before_all_else():
    thoughts = (Thought("hm", "sig"), Thought(redacted="x"), Thought("somebody else's"), Thought("", "bare"))
    said = Message("assistant", (Text("42"),), thoughts=thoughts)
    _, out = made(said, user("?"))
    assert out[0]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "", "signature": "bare"},
        {"type": "text", "text": "42"},
    ]


def test_pictures_come_by_data_by_address_or_as_a_data_address():
    dropped: list[str] = []
    images = (
        Image("image/png", "aGk=", detail="high"),
        Image(url="https://x/y.png"),
        Image(url="data:a/b;base64,eA=="),
    )
    _, out = turns((Message("user", images),), dropped)
    assert [block["source"] for block in out[0]["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": "aGk="},
        {"type": "url", "url": "https://x/y.png"},
        {"type": "base64", "media_type": "a/b", "data": "eA=="},
    ]
    assert dropped == ["detail"]


@pytest.mark.parametrize(("said", "sent"), [("{ ", "{"), (" \n", ""), ("a", "a")])
def test_a_prefill_ends_without_white_space(said: str, sent: str):
    _, out = made(user("?"), Message("assistant", (Text(said),)))
    assert out[1:] == ([{"role": "assistant", "content": sent}] if sent else [])
    assert made(Message("assistant", (Text(said),)), user("?"))[1][0]["content"] == (said if sent else "?")
    two = made(user("?"), Message("assistant", (Text("x "), Text(f"y{said}"))))[1][-1]["content"]
    assert "".join(block["text"] for block in two) == f"x y{said}".rstrip()


@pytest.mark.parametrize("signature", ["", "sealed"])
def test_a_turn_in_which_the_model_said_nothing_is_none(signature: str):
    _, out = made(user("1"), Message("assistant", (Text(""),), thoughts=(Thought("hm", signature),)), user("2"))
    assert [turn["content"] for turn in out] == ["1", "2"]


def test_a_blank_text_beside_calls_is_left_out():
    """OpenAI-shaped models often write a line break before they call; the API refuses a block of white space."""
    _, out = made(user("1"), replace(calls("a"), parts=(Text("\n\n"),)), result("a", " "))
    assert [block["type"] for block in out[1]["content"]] == ["tool_use"]
    assert out[2]["content"][0]["content"] == ""


def test_a_cache_mark_is_on_the_last_block_that_can_have_it():
    system, out = made(
        Message("system", (Text("A"),), cache=True),
        user("Q", cache=True),
        Message("assistant", (Text("B"),), thoughts=(Thought("t", "s"),), cache=True),
        calls("c"),
        result("c", "1", cache=True),
    )
    assert system == [{"type": "text", "text": "A", "cache_control": EPHEMERAL}]
    assert out[0]["content"] == [{"type": "text", "text": "Q", "cache_control": EPHEMERAL}]
    assert ["cache_control" in block for block in out[1]["content"]] == [False, True]
    assert out[3]["content"][0]["cache_control"] == EPHEMERAL


def test_more_marks_than_four_and_a_mark_on_nothing_are_announced():
    dropped: list[str] = []
    _, out = turns([user(str(n), cache=True) for n in range(6)], dropped)
    assert [isinstance(turn["content"], list) for turn in out] == [False, False, True, True, True, True]
    assert dropped == ["cache"]
    dropped = []
    turns([user("", cache=True)], dropped)
    assert dropped == ["cache"]


def test_a_participants_name_and_a_picture_for_the_system_are_announced():
    dropped: list[str] = []
    system, _ = turns([Message("system", (Text("A"), Image(url="u"))), user("Hi", name="ada")], dropped)
    assert (system, dropped) == ("A", ["image", "name"])
    dropped = []
    turns([calls("a"), result("a", "1", name="ping")], dropped)
    assert dropped == []


_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
_PARTS = st.lists(st.builds(Text, _TEXTS) | st.builds(Document, st.just("application/pdf"), _TEXTS), max_size=3)
_CALLS = st.lists(st.builds(ToolCall, st.just("c"), _TEXTS, _TEXTS), max_size=2)
_MESSAGES = st.lists(
    st.builds(lambda role, parts: Message(role, tuple(parts)), st.sampled_from(("system", "user")), _PARTS)
    | st.builds(lambda parts, made: Message("assistant", tuple(parts), tuple(made)), _PARTS, _CALLS)
    | st.builds(lambda parts: Message("tool", tuple(parts), tool_call_id="c"), _PARTS),
    max_size=6,
)


@given(_MESSAGES)
def test_nothing_that_was_said_is_lost_and_every_turn_is_whole(messages: list[Message]):
    dropped: list[str] = []
    system, out = turns(messages, dropped)
    sent = json.loads(dump({"system": system, "turns": out}))
    written = json.dumps(sent, ensure_ascii=False)
    for n, message in enumerate(messages):
        for part in message.parts:
            if isinstance(part, Text) and (n + 1 < len(messages) or message.role != "assistant"):
                assert json.dumps(part.text, ensure_ascii=False) in written or not part.text.strip()
            elif isinstance(part, Document):
                assert json.dumps(part.data, ensure_ascii=False) in written or "document" in dropped
        for call in message.tool_calls:
            assert json.dumps(call.name, ensure_ascii=False) in written
    assert all(turn["role"] in ("user", "assistant") and turn["content"] is not None for turn in sent["turns"])
