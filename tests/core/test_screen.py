from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.screen import SHORT, screen

OWN = Path(__file__).parent / "data" / "prompts.jsonl"
POLICY = Path(__file__).parents[3] / "shared" / "data" / "semcache" / "dev" / "own_policy.jsonl"
REASONS = {"live", "personal", "back-referring", "random"}
LOG = "2026-11-20 10:00:01 today is my birthday, roll a dice, what is the weather now?\n" * 1_300


@cache
def prompts(path: Path) -> list[dict]:
    if not path.is_file():
        pytest.skip("the labelled prompts are not on this machine")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("path", "served", "refused"), [(POLICY, 0, 1 / 30), (OWN, 0.005, 0.02)], ids=["policy", "own"]
)
def test_hardly_an_unsafe_prompt_is_kept_and_hardly_a_safe_one_refused(path, served, refused):
    """Not a measure of what nobody has looked at: what that is, `benchmarks/canonical.py` says."""
    rows = prompts(path)
    unsafe, safe = [row for row in rows if not row["cacheable"]], [row for row in rows if row["cacheable"]]
    assert len(unsafe) > 30
    assert len(safe) >= 30
    assert sum(not screen(row["t"]) for row in unsafe) <= served * len(unsafe)
    assert sum(bool(screen(row["t"])) for row in safe) <= refused * len(safe)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("What is the weather in Berlin today?", "live"),
        ("WHAT TIME IS IT IN TOKYO", "live"),
        ("Wie ist das Wetter heute?", "live"),
        ("今天天气怎么样", "live"),
        ("What is my account balance?", "personal"),
        ("Draft a reply to jo.smith@example.com about the invoice", "personal"),
        ("Is 4111 1111 1111 1111 a valid card?", "personal"),
        ("Continue", "back-referring"),
        ("Explain that again, shorter", "back-referring"),
        ("", "back-referring"),
        ("?!", "back-referring"),
        ("Could you please", "back-referring"),
        ("put it in a table", "back-referring"),
        ("Flip a coin for me", "random"),
        ("Generate a UUID", "random"),
        ("write a slogan for soap, a different one each time", "random"),
    ],
)
def test_the_reason_is_one_of_four(text, reason):
    assert screen(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "What is a weather front?",
        "who wrote The Day After Tomorrow",
        "What does 'as of now' mean in legal English?",
        "What does my_account mean as a variable name convention?",
        "How do I get today's date in bash?",
        "How do I delete my Facebook account?",
        "Why is my code giving a NullPointerException in Java?",
        "Who was prime minister of the UK in 1950?",
        "write a python script that rolls a die 100 times",
        "what is 2026-11-20 minus 2026-11-01",
    ],
)
def test_what_asks_how_or_what_something_is_may_be_kept(text):
    assert screen(text) == ""


INSTRUCTIONS = [
    "summarise this log",
    "write a commit message for this diff",
    "what's wrong with this code",
    "review this diff",
    "explain this error",
    "extract all names:",
    "Make it shorter",
    "What is my balance?",
    "Reply to this email",
]


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_of_a_piped_text_the_instruction_decides_and_not_a_word_in_it(instruction):
    assert screen(f"{instruction}\n\n{LOG}") == ""
    assert screen(f"--- app.log ---\n{LOG}\n\n{instruction}") == ""
    assert screen(f"{instruction}\n{LOG}") == ""


@pytest.mark.parametrize("instruction", ["what is the weather in this city today", "pick one of these at random"])
def test_an_instruction_that_asks_for_the_hour_or_for_chance_is_refused_with_any_text(instruction):
    assert screen(f"{instruction}\n\n{LOG}") in ("live", "random")
    assert screen(f"--- app.log ---\n{LOG}\n\n{instruction}") in ("live", "random")


def test_a_question_after_a_text_decides_too():
    assert screen(f"Here is the timetable of this line.\n\n{LOG}\n\nWhen is the next train?") == "live"
    assert screen(f"Here is the timetable of this line.\n\n{LOG}\n\nWhich train is the fastest?") == ""


@pytest.mark.parametrize(("asked", "reason"), [("summarise", ""), ("what is the weather today?", "live")])
def test_of_a_short_file_too_the_question_after_it_decides(asked, reason):
    assert screen(f"--- notes.txt ---\nMeeting today: my team said now.\n\n{asked}") == reason


def test_short_paragraphs_without_a_text_are_all_the_prompt():
    assert screen("Hello!\n\nWhat is my account balance?") == "personal"
    assert screen("What is the weather\nin Berlin today?") == "live"


def test_a_long_prompt_in_one_piece_is_judged_by_its_ends():
    story = "There was a king who had a daughter and a horse. " * (SHORT // 20)
    assert screen(story + "Why did the king laugh?") == ""
    assert screen(story + "What is the weather in Berlin today?") == "live"


PIECES = """what is my 'now " ` ( ) --- x today roll i'm 5 can you please that it direct current"""


@given(st.text(max_size=80) | st.lists(st.sampled_from(["\n\n", *PIECES.split()])).map(" ".join))
def test_every_text_is_judged_and_space_around_it_or_straight_quotes_change_nothing(text):
    told = screen(text)
    assert told in REASONS | {""}
    assert screen(f"\n {text} \n") == told
    assert screen(text.replace("'", "’")) == told or "’" in text or "'" in text
