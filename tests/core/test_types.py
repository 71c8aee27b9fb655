"""The fold of events, and text that can be written."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.types import (
    Completion,
    Event,
    FinishReason,
    Fold,
    Image,
    Message,
    Text,
    Thought,
    ToolCall,
    ToolCallDelta,
    Usage,
    fold,
    well_formed,
)

text = st.text(max_size=5)
usages = st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
deltas = st.builds(ToolCallDelta, st.integers(0, 2), st.sampled_from(["", "a", "b"]), st.sampled_from(["", "f"]), text)
events = st.builds(
    Event,
    text=text,
    reasoning=text,
    tool_calls=st.lists(deltas, max_size=3).map(tuple),
    usage=st.none() | usages,
    finish_reason=st.sampled_from([None, None, "stop", "length"]),
    reported_model=st.sampled_from(["", "m", "n"]),
    system_fingerprint=st.sampled_from(["", "f"]),
    refusal=text,
    skipped=st.integers(0, 2),
)


def split(event: Event, at: int) -> list[Event]:
    """The same event in pieces: its text cut at `at`, its tool calls one by one, the rest in the last."""
    calls = [Event(tool_calls=(call,)) for call in event.tool_calls]
    first = Event(text=event.text[:at], reasoning=event.reasoning[:at], refusal=event.refusal[:at])
    last = Event(
        text=event.text[at:],
        reasoning=event.reasoning[at:],
        refusal=event.refusal[at:],
        usage=event.usage,
        finish_reason=event.finish_reason,
        reported_model=event.reported_model,
        system_fingerprint=event.system_fingerprint,
        skipped=event.skipped,
    )
    return [first, *calls, last]


@given(st.lists(events, max_size=6), st.integers(0, 5))
def test_the_fold_of_any_split_of_the_same_events_is_the_same(whole: list[Event], at: int):
    assert fold([piece for event in whole for piece in split(event, at)]) == fold(whole)


@given(st.lists(events, max_size=6))
def test_text_is_the_join_and_the_last_word_wins(whole: list[Event]):
    got = fold(whole)
    assert got.text == "".join(event.text for event in whole)
    assert got.usage == next((e.usage for e in reversed(whole) if e.usage), None)
    assert got.finish_reason == next((e.finish_reason for e in reversed(whole) if e.finish_reason), None)
    assert got.skipped == sum(event.skipped for event in whole)


@given(st.lists(events, max_size=6))
def test_what_is_folded_so_far_can_be_asked_at_any_time(whole: list[Event]):
    folder = Fold()
    for n, event in enumerate(whole):
        folder.add(event)
        assert folder.completion() == fold(whole[: n + 1])
        assert folder.text == folder.completion().text


def test_nothing_folds_to_nothing():
    assert fold([]) == Completion()


def test_a_tool_call_takes_the_first_id_and_name_it_hears_and_all_its_arguments():
    pieces = [
        ToolCallDelta(1, arguments="{"),
        ToolCallDelta(0, "b", "g", "[]"),
        ToolCallDelta(1, name="f"),
        ToolCallDelta(1, "a", "other", "}"),
        ToolCallDelta(1, "z"),
    ]
    got = fold([Event(tool_calls=(piece,)) for piece in pieces])
    assert got.tool_calls == (ToolCall("b", "g", "[]"), ToolCall("a", "f", "{}"))


@pytest.mark.parametrize(("finish", "expected"), [("tool_calls", "{}"), ("stop", "{}"), ("length", ""), (None, "")])
def test_a_whole_call_without_arguments_has_an_empty_object(finish: FinishReason | None, expected: str):
    made = fold([Event(tool_calls=(ToolCallDelta(0, "a", "f"),)), Event(finish_reason=finish)])
    assert made.tool_calls == (ToolCall("a", "f", expected),)


def test_a_surrogate_pair_split_between_fragments_of_arguments_is_joined():
    halves = [ToolCallDelta(0, "a", "f", "\ud83d"), ToolCallDelta(0, arguments="\ude00")]
    assert fold([Event(tool_calls=(half,)) for half in halves]).tool_calls[0].arguments == "\U0001f600"


def test_each_thought_has_the_reasoning_since_the_seal_before_it():
    pieces = [Event(reasoning="a"), Event(reasoning="b", signature="1"), Event(signature="2"), Event(reasoning="c")]
    assert fold(pieces).thoughts == (Thought("ab", "1"), Thought("", "2"), Thought("c"))


def test_many_sealed_thoughts_are_told_apart_in_proportional_time():
    pieces = [Event(reasoning="x" * 1000), Event(signature="s")] * 50_000
    assert len(fold(pieces).thoughts) == 50_000


@pytest.mark.parametrize(
    ("event", "shows"),
    [
        (Event(), False),
        (Event(usage=Usage(1, 1), finish_reason="stop", reported_model="m", skipped=1), False),
        (Event(text="a"), True),
        (Event(reasoning="a"), True),
        (Event(refusal="a"), True),
        (Event(tool_calls=(ToolCallDelta(0),)), True),
    ],
)
def test_only_a_piece_of_the_answer_itself_shows(event: Event, shows: bool):
    assert event.shows is shows


def test_a_messages_text_is_its_text_parts():
    assert Message("user", (Text("a"), Image(url="u"), Text("b"))).text == "ab"


def test_values_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Event().text = "b"  # type: ignore[misc]


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_well_formed_text_can_be_written_and_is_left_alone(any_text: str):
    once = well_formed(any_text)
    once.encode()
    assert well_formed(once) == once
    assert any_text.isascii() <= (once == any_text)


@given(st.text())
def test_text_without_lone_surrogates_is_untouched_even_when_its_pairs_are_split(good: str):
    raw = good.encode("utf-16-be")
    halves = "".join(raw[i : i + 2].decode("utf-16-be", "surrogatepass") for i in range(0, len(raw), 2))
    assert well_formed(halves) == good
