"""Call ids, the ledger's row, and the document that `ask --json` prints."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.record import Answer, Attempt, CallRecord, ulid
from llmctl.core.types import Completion, ToolCall, Usage

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
instants = st.floats(0, 253_402_300_799)
randomness = st.integers(0, (1 << 80) - 1)


@given(instants, randomness)
def test_a_ulid_is_26_characters_of_crockfords_alphabet_that_give_back_what_they_hold(now: float, dice: int):
    made = ulid(now, dice)
    assert len(made) == 26
    assert set(made) <= set(ALPHABET)
    value = 0
    for character in made:
        value = value << 5 | ALPHABET.index(character)
    assert (value >> 80, value & ((1 << 80) - 1)) == (int(now * 1000), dice)


@given(instants, instants, randomness, randomness)
def test_ulids_sort_by_time(early: float, late: float, a: int, b: int):
    if int(early * 1000) < int(late * 1000):
        assert ulid(early, a) < ulid(late, b)


def test_a_ulid_is_the_specifications_own():
    assert ulid(1469918176.385, 0)[:10] == "01ARYZ6S41"  # github.com/ulid/spec, "01ARYZ6S41TSV4RRFFQ69G5FAV"
    assert ulid(0, 0) == "0" * 26
    assert ulid(((1 << 48) - 1) / 1000, (1 << 80) - 1) == "7" + "Z" * 25


def test_randomness_beyond_80_bits_does_not_reach_the_time():
    assert ulid(1.0, 1 << 80) == ulid(1.0, 0)


RECORD = CallRecord(
    id=ulid(1.0, 1), started_at=1.0, command="ask", model="fast", state="ok", served_by="groq/l", provider="groq",
    deployment="fast-1", cache="miss", cost_nanousd=34_100, latency_ms=812.44, first_token_ms=210.96, overhead_ms=2.06,
    reported_model="l",
)  # fmt: skip
ATTEMPT = Attempt(
    n=1, deployment="fast-1", provider="groq", model="l", role="primary", outcome="ok", started_at=1.0, status=200,
    latency_ms=810.24, input_tokens=12, output_tokens=34, cost_nanousd=34_100,
)  # fmt: skip
ANSWER = Answer(
    RECORD,
    Completion("hi", tool_calls=(ToolCall("c", "f", "{}"),), finish_reason="stop", usage=Usage(12, 34)),
    (ATTEMPT,),
    route={"strategy": "adaptive", "reason": "the only target", "complexity": None},
)


def test_the_document_has_exactly_the_keys_of_the_contract():
    document = ANSWER.as_json()
    assert list(document) == [
        "id", "text", "model", "served_by", "reported_model", "provider", "deployment", "finish_reason", "tool_calls",
        "parsed", "usage", "cost_usd", "saved_usd", "latency_ms", "first_token_ms", "overhead_ms", "waited_ms", "cache",
        "fallback", "attempts", "route",
    ]  # fmt: skip
    assert list(document["usage"]) == [
        "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "estimated",
    ]  # fmt: skip
    assert list(document["attempts"][0]) == [
        "n", "deployment", "provider", "model", "role", "outcome", "status", "latency_ms", "input_tokens",
        "output_tokens", "cost_usd", "error",
    ]  # fmt: skip
    assert list(document["route"]) == ["strategy", "reason", "complexity"]
    assert list(document["tool_calls"][0]) == ["id", "name", "arguments"]


def test_the_document_is_json_with_dollars_and_tenths_of_milliseconds():
    document = json.loads(json.dumps(ANSWER.as_json(), allow_nan=False))
    assert (document["cost_usd"], document["saved_usd"]) == (0.0000341, 0.0)
    assert (document["latency_ms"], document["first_token_ms"], document["overhead_ms"]) == (812.4, 211.0, 2.1)
    assert document["attempts"][0]["cost_usd"] == 0.0000341


def test_an_unknown_cost_is_null():
    unknown = replace(
        ANSWER, record=replace(RECORD, cost_nanousd=None), attempts=(replace(ATTEMPT, cost_nanousd=None),)
    )
    assert unknown.cost_usd is None
    assert unknown.as_json()["cost_usd"] is None
    assert unknown.as_json()["attempts"][0]["cost_usd"] is None


def test_the_answer_tells_in_short_what_record_and_completion_hold():
    assert (ANSWER.id, ANSWER.text, ANSWER.finish_reason, ANSWER.served_by) == (RECORD.id, "hi", "stop", "groq/l")
    assert (ANSWER.reported_model, ANSWER.cost_usd, ANSWER.cache, ANSWER.fallback) == ("l", 0.0000341, "miss", False)
    assert (ANSWER.usage, ANSWER.tool_calls) == (Usage(12, 34), (ToolCall("c", "f", "{}"),))


def test_an_answer_without_usage_has_zeros():
    assert Answer(RECORD, Completion("hi"), ()).usage == Usage()


@pytest.mark.parametrize("usage", [Usage(12, 34, 5, 6, 7, estimated=True), Usage()])
def test_a_record_takes_all_of_a_usage(usage: Usage):
    got = RECORD.with_usage(usage)
    assert usage == Usage(
        got.input_tokens or 0, got.output_tokens or 0, got.cached_input_tokens or 0, got.cache_write_tokens or 0,
        got.reasoning_tokens or 0, got.tokens_estimated,
    )  # fmt: skip
    assert None not in (got.input_tokens, got.output_tokens, got.cached_input_tokens)


def test_a_record_without_usage_keeps_its_nulls():
    assert RECORD.with_usage(None) is RECORD
    assert RECORD.input_tokens is None
