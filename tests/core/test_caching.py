from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.caching import (
    JITTER,
    MODES,
    SKEW_S,
    TIERS,
    Entry,
    Settings,
    Use,
    expires_at,
    is_live,
    mode_of,
    packed,
    unfit,
    unpacked,
    use_of,
)
from llmctl.core.errors import UsageError
from llmctl.core.scope import Key
from llmctl.core.types import Completion, Params, Request, Thought, ToolCall, Usage

NOW = 1_800_000_000.0


def request(**params: object) -> Request:
    return Request((), params=Params(**params))


def entry(created_at: float = NOW, expires: float = NOW + 100) -> Entry:
    return Entry("id", Key(b"s", b"e"), created_at, expires, "fast", "p/m", "p", "d", "hi", {})


# ---------------------------------------------------------------- the mode


@pytest.mark.parametrize(
    ("given_", "configured", "table", "command", "mode"),
    [
        (None, None, None, "ask", "exact"),
        (None, None, None, "batch", "exact"),
        (None, None, None, "embed", "exact"),
        (None, None, None, "chat", "off"),
        (None, None, None, "compare", "off"),
        (None, None, None, "serve", "off"),
        (None, None, None, "library", "off"),
        (None, None, "canonical", "ask", "canonical"),
        (None, None, "off", "ask", "off"),
        (None, None, "canonical", "chat", "off"),
        (None, "canonical", "off", "ask", "canonical"),
        (None, "exact", None, "chat", "exact"),
        ("off", "canonical", "exact", "ask", "off"),
        ("refresh", None, None, "chat", "refresh"),
        ("canonical", "off", "off", "serve", "canonical"),
    ],
)
def test_the_mode_is_the_callers_word_then_the_groups_then_the_tables_then_the_commands(
    given_, configured, table, command, mode
):
    assert mode_of(given_, configured, table, command) == (mode, given_ is not None)


def test_the_semantic_tier_says_that_it_is_not_set_up_and_a_configuration_has_what_it_includes():
    with pytest.raises(UsageError, match="not set up"):
        mode_of("semantic", None, None, "ask")
    assert mode_of(None, "semantic", None, "chat") == mode_of(None, None, "semantic", "ask") == ("canonical", False)


@pytest.mark.parametrize("word", ["on", "", "EXACT", "exact "])
def test_an_unknown_mode_is_refused(word):
    with pytest.raises(UsageError, match="unknown cache mode"):
        mode_of(word, None, None, "ask")


def test_each_mode_looks_into_those_before_it_and_refresh_into_none():
    assert TIERS == {"off": (), "exact": ("exact",), "canonical": ("exact", "canonical"), "refresh": ()}
    assert set(MODES) - set(TIERS) == {"semantic"}


# ---------------------------------------------------------------- how a call uses it


def use(mode="exact", params=None, *, said=False, keeps_text=True, **more) -> Use:
    return use_of(mode, request(**(params or {})), Settings(), said=said, keeps_text=keeps_text, **more)


@pytest.mark.parametrize("mode", ["exact", "canonical", "refresh"])
def test_a_plain_call_looks_and_keeps(mode):
    made = use(mode)
    assert (made.mode, made.tiers, made.keeps, made.screened, made.why) == (mode, TIERS[mode], True, True, "")
    assert not made.off


def test_off_is_off():
    assert use("off").off
    assert use("off", said=True).off
    assert use("off").why


@pytest.mark.parametrize(
    ("mode", "said", "params", "used"),
    [
        ("exact", False, {"temperature": 0.7}, False),
        ("exact", True, {"temperature": 0.7}, True),
        ("refresh", True, {"temperature": 0.7}, True),
        ("canonical", True, {"temperature": 0.7}, False),
        ("exact", False, {"temperature": 0.7, "seed": 0}, True),
        ("exact", False, {"temperature": 0}, True),
        ("exact", False, {"temperature": 0.0, "top_p": 0.9}, True),
        ("exact", False, {}, True),
    ],
)
def test_a_temperature_without_a_seed_asks_for_chance_unless_exact_is_said(mode, said, params, used):
    made = use(mode, params, said=said)
    assert made.off is not used
    assert bool(made.why) is not used


@pytest.mark.parametrize(("mode", "said", "screened"), [("exact", True, False), ("refresh", True, False),
                                                        ("canonical", True, True), ("exact", False, True)])  # fmt: skip
def test_only_exact_said_is_not_screened(mode, said, screened):
    assert use(mode, said=said).screened is screened


@pytest.mark.parametrize("mode", ["exact", "canonical"])
def test_a_call_whose_text_is_kept_nowhere_looks_and_keeps_nothing(mode):
    made = use(mode, said=True, keeps_text=False)
    assert made.tiers
    assert not made.keeps
    assert made.why
    assert use("refresh", keeps_text=False).off


def test_the_groups_time_to_live_and_the_settings_are_passed_on():
    settings = Settings(ttl_s=5.0, namespace="me")
    made = use_of("exact", request(), settings, said=False, keeps_text=True, documents=("d",))
    assert (made.ttl_s, made.namespace, made.documents) == (5.0, "me", ("d",))
    assert use(ttl_s=0.0).ttl_s == 0.0


# ---------------------------------------------------------------- what may be kept

GOOD = Completion(text="yes", finish_reason="stop")


def test_a_whole_answer_may_be_kept_and_so_may_calls_of_tools():
    assert unfit(GOOD) == ""
    assert unfit(Completion(finish_reason="tool_calls", tool_calls=(ToolCall("1", "f", "{}"),))) == ""


@pytest.mark.parametrize(
    "completion",
    [
        Completion(),
        Completion(text="yes"),
        *(Completion(text="yes", finish_reason=reason) for reason in ("length", "content_filter", "pause", "error")),
        Completion(text="", finish_reason="stop"),
        Completion(text=" \n\t", finish_reason="stop"),
        Completion(reasoning="hm", finish_reason="stop"),
        Completion(text="no", refusal="I cannot", finish_reason="stop"),
        Completion(text="yes", skipped=1, finish_reason="stop"),
    ],
)
def test_what_is_cut_refused_empty_or_broken_is_not(completion):
    assert unfit(completion)
    with pytest.raises(ValueError, match="no whole answer"):
        # What was not counted when it was kept cannot be known to the reader; the writer asks `unfit` first.
        unpacked({**packed(completion), "text": "" if completion.refusal or completion.skipped else completion.text})


# ---------------------------------------------------------------- for how long


@pytest.mark.parametrize(
    ("now", "ttl_s", "live"),
    [
        (NOW, 100, True),
        (NOW + 99.9, 100, True),
        (NOW + 100, 100, False),
        (NOW + 100, 1e9, False),  # it was made under a shorter one
        (NOW + 50, 10, False),  # a shorter one holds today
        (NOW, 0, False),
        (NOW - SKEW_S, 100, True),
        (NOW - SKEW_S - 1, 100, False),  # the clock was set back: nobody knows how old it is
        (0.0, 100, False),
        (float("nan"), 100, False),
        (float("inf"), 100, False),
    ],
)
def test_an_entry_lives_as_long_as_then_and_now_allow_and_not_before_it_was_made(now, ttl_s, live):
    assert is_live(entry(), now, ttl_s) is live


@pytest.mark.parametrize("times", [(float("nan"), NOW + 9), (NOW, float("nan")), (NOW + 9, NOW), (float("inf"), NOW)])
def test_an_entry_with_times_that_make_no_sense_is_dead(times):
    assert not is_live(entry(*times), NOW, 100)


@given(st.floats(0, 4e9), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_chance_takes_away_at_most_a_tenth_of_a_life(now, ttl_s, chance):
    until = expires_at(now, ttl_s, chance)
    assert now + ttl_s * (1 - JITTER) - 1e-3 <= until <= now + ttl_s
    assert expires_at(0.0, 100.0, 0.5) == 95.0


# ---------------------------------------------------------------- plain data and back

WORDS = st.text(max_size=8)
CALLS = st.builds(ToolCall, WORDS, WORDS, WORDS, WORDS)
THOUGHTS = st.builds(Thought, WORDS, WORDS, WORDS)
COMPLETIONS = st.builds(
    Completion,
    text=WORDS,
    reasoning=WORDS,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    finish_reason=st.sampled_from(["stop", "tool_calls"]),
    usage=st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    reported_model=WORDS,
    system_fingerprint=WORDS,
    thoughts=st.lists(THOUGHTS, max_size=2).map(tuple),
).filter(lambda made: not unfit(made))


@given(COMPLETIONS)
def test_an_answer_comes_back_as_it_was_but_for_its_tokens(completion):
    plain = json.loads(json.dumps(packed(completion, parsed={"a": [1]}, maker="openai")))
    back = unpacked(plain)
    assert back.usage is None
    assert packed(back, {"a": [1]}, "openai") == {**plain, "usage": None}
    assert (back.text, back.tool_calls, back.thoughts) == (completion.text, completion.tool_calls, completion.thoughts)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = list(packed(GOOD))
FULL = packed(
    Completion(text="a", finish_reason="stop", tool_calls=(ToolCall("1", "f", "{}"),), thoughts=(Thought("t", "s"),))
)
READ = [name for name in FIELDS if name not in ("usage", "parsed", "maker")]


@given(st.sampled_from(READ), JUNK)
def test_an_entry_with_anything_in_a_field_is_an_answer_or_a_value_error(name, junk):
    try:
        made = unpacked({**FULL, name: junk})
    except ValueError:
        return
    assert unfit(made) == ""
    assert json.loads(json.dumps(packed(made))) == packed(made)


@pytest.mark.parametrize("name", READ)
def test_an_entry_without_a_field_is_no_answer(name):
    with pytest.raises(ValueError, match="another shape"):
        unpacked({key: value for key, value in FULL.items() if key != name})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        "text",
        [],
        [1],
        {**FULL, "tool_calls": [{"id": "1"}]},
        {**FULL, "tool_calls": [{"id": 1, "name": "f", "arguments": "{}"}]},
        {**FULL, "tool_calls": [{"id": "1", "name": "f", "arguments": "{}", "more": ""}]},
        {**FULL, "tool_calls": [{1: 2}]},
        {**FULL, "tool_calls": "ab"},
        {**FULL, "tool_calls": None},
        {**FULL, "thoughts": [None]},
        {**FULL, "text": b"a"},
        {**FULL, "text": {}},
        {**FULL, "finish_reason": ["stop"]},
        {**FULL, "finish_reason": "length"},
        {**FULL, "text": " ", "tool_calls": []},
    ],
)
def test_a_hostile_entry_is_a_value_error(answer):
    with pytest.raises(ValueError, match="an entry"):
        unpacked(answer)
