"""Every call has an id of its own, and its result the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.types import Message, Text, ToolCall
from llmctl.wire.call_ids import paired


def turn(*ids: str) -> list[Message]:
    """A turn that calls under these ids, and the results in the same order."""
    calls = Message("assistant", (), tuple(ToolCall(each, "f", str(n)) for n, each in enumerate(ids)))
    return [calls, *(Message("tool", (Text(str(n)),), tool_call_id=each) for n, each in enumerate(ids))]


def ids_of(messages: tuple[Message, ...]) -> list[list[str]]:
    return [[call.id for call in each.tool_calls] or [each.tool_call_id] for each in messages]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([["a", "b"], ["c"]], [["a", "b"], ["c"]]),
        ([["call_0"], ["call_0"], ["call_0"]], [["call_0"], ["call_0_2"], ["call_0_3"]]),
        ([["", ""], [""]], [["call", "call_2"], ["call_3"]]),
        ([["a", "a"], ["a_2"]], [["a", "a_2"], ["a_2_2"]]),
    ],
)
def test_an_id_that_was_used_gets_a_number_and_its_result_with_it(said: list[list[str]], expected: list[list[str]]):
    messages = paired(tuple(message for each in said for message in turn(*each)))
    assert ids_of(messages) == [ids for each in expected for ids in (each, *([one] for one in each))]


def test_a_conversation_without_such_ids_stays_as_it_is():
    said = (Message("user", (Text("hi"),)), *turn("a"), Message("tool", (Text("stray"),), tool_call_id="z"))
    assert paired(said) == said


@given(st.lists(st.lists(st.sampled_from(["", "a", "a_2", "call"]), min_size=1, max_size=3), max_size=4))
def test_every_result_finds_its_call(said: list[list[str]]):
    messages = paired(tuple(message for each in said for message in turn(*each)))
    calls = [call for message in messages for call in message.tool_calls]
    assert len({call.id for call in calls}) == len(calls)
    results = [(message.tool_call_id, message.text) for message in messages if message.role == "tool"]
    assert results == [(call.id, call.arguments) for call in calls]


def test_many_calls_of_one_id_are_told_apart_in_proportional_time():
    turn = Message("assistant", (), tool_calls=(ToolCall("c", "f", "{}"),) * 50_000)
    assert len({call.id for call in paired((turn,))[0].tool_calls}) == 50_000
