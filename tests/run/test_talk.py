"""A conversation goes on with as much of it as fits, and never with half of an exchange."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import ContextExceeded, UsageError
from llmctl.core.types import Document, Image, Message, Request, Text
from llmctl.run.accounts import transcript_of
from llmctl.run.talk import MAX_TURN, fitted, more_left_out, parted, replayed, user_row
from llmctl.wire.openai_shape import messages_of

TURN = [user_row("and now?")]


def exchange(*texts: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]


def in_a_window(size: int, tried: list[int] | None = None) -> Any:
    """What refuses messages of more than `size` characters, and notes each try."""

    def make(rows: list[Any]) -> tuple[Any, ...]:
        if tried is not None:
            tried.append(len(rows))
        if sum(len(row["content"]) for row in rows) > size:
            raise ContextExceeded("too long")
        return tuple(row["content"] for row in rows)

    return make


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(8, 900), st.integers(0, 3))
def test_the_fewest_and_oldest_exchanges_are_left_out_whole(sizes: list[int], window: int, least: int) -> None:
    exchanges = [exchange("q" * size, "a" * size) for size in sizes]
    least, tried = min(least, len(exchanges)), []
    said, left_out = fitted(in_a_window(window, tried), exchanges, TURN, least)
    fits = [n for n in range(least, len(sizes) + 1) if 2 * sum(sizes[n:]) + len("and now?") <= window]
    assert left_out == fits[0]
    assert said == (*(row["content"] for each in exchanges[left_out:] for row in each), "and now?")
    assert len(tried) <= 2 + len(sizes).bit_length()


def test_a_turn_that_fits_no_window_by_itself_is_refused() -> None:
    with pytest.raises(ContextExceeded):
        fitted(in_a_window(3), [exchange("hi", "ho")] * 5, TURN)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_after_a_providers_refusals_ever_more_is_left_out_until_the_refusal_stands(count: int) -> None:
    refusal, left_out, tries = ContextExceeded("no"), 0, 0
    while left_out < count:
        before, left_out, tries = left_out, more_left_out(count, left_out, refusal), tries + 1
        assert before < left_out <= count
    assert tries <= count.bit_length() + 1
    with pytest.raises(ContextExceeded) as raised:
        more_left_out(count, left_out, refusal)
    assert raised.value is refusal


def test_an_answer_that_was_shown_in_part_is_not_asked_for_again() -> None:
    refusal = ContextExceeded("no")
    refusal.partial_text = "It is"
    with pytest.raises(ContextExceeded):
        more_left_out(9, 0, refusal)


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}


def test_a_tool_call_that_nobody_ran_is_sent_again_as_words_and_one_with_its_result_as_it_is() -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    whole = [*exchange("hi", "ho"), asked, RESULT]
    assert replayed([whole]) == whole
    (twice, _) = replayed([[{**asked, "tool_calls": [CALL, {**CALL, "id": "lost"}]}, RESULT]])
    assert str(twice["content"]).count("it was not run") == 2, "one of two results is none"
    (said,) = replayed([[asked]])
    assert said == {"role": "assistant", "content": '(I called weather with {"city": "Rome"}; it was not run.)'}
    assert messages_of([said])[0].tool_calls == ()


@pytest.mark.parametrize(
    "row",
    [{"role": "tool", "tool_call_id": []}, {"tool_calls": 3}, {"tool_calls": [1, {"id": []}, {"function": "x"}]}, {}],
)
def test_rows_that_somebody_spoiled_are_for_the_shape_to_refuse(row: dict[str, Any]) -> None:
    assert len(replayed([[row]])) == 1


@pytest.mark.parametrize(
    "parts",
    [
        (Text("one"),),
        (Text("a file\n"), Image("image/png", "aGk="), Document("application/pdf", "aGk=", "a.pdf"), Text("look")),
        (Image(url="https://example.com/a.png", detail="low"), Text("look")),
    ],
)
def test_a_turn_is_kept_as_the_same_parts_that_were_said(parts: Any) -> None:
    row = user_row(Message("user", parts))
    assert messages_of([row]) == (Message("user", parts),)


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("a" * MAX_TURN, True),
        ("a" * (MAX_TURN + 1), False),
        ("\u00e9" * (MAX_TURN // 2 + 1), False),
        (Message("user", (Image("image/png", "a" * MAX_TURN), Text("look"))), False),
    ],
    ids=["just", "over", "in bytes", "attached"],
)
def test_a_turn_that_is_too_large_to_be_kept_is_refused(said: Any, fits: bool) -> None:
    if fits:
        assert user_row(said)["content"] == said
    else:
        with pytest.raises(UsageError, match="16 MiB"):
            user_row(said)


pieces = st.lists(st.sampled_from(["[system]\n", "[user]\n", "\n\n[user]\n", "[assistant]\n", "\n", "hi", "x"])).map(
    "".join
)


@given(st.none() | pieces.filter(bool), pieces)
def test_what_the_ledger_keeps_of_a_call_comes_apart_as_it_was_or_not_at_all(system: str | None, said: str) -> None:
    messages = [Message("system", (Text(system),))] if system else []
    kept = transcript_of(Request((*messages, Message("user", (Text(said),)))))
    try:
        assert parted(kept) == (system, said)
    except UsageError:
        assert "\n\n[user]\n" in f"{system}\n\n{said}"
        assert system
