"""What the ledger's attempts say of each model: against arithmetic on the attempts themselves."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import LedgerUnusable
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.comparison import records
from llmctl.store.ledger import SqliteLedger

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0


def attempt(outcome: str = "ok", model: str = "llama", **what: Any) -> Attempt:
    known = {"first_token_ms": 200.0, "latency_ms": 1200.0, "input_tokens": 10, "output_tokens": 100}
    known = known | {"cost_nanousd": 5_000} if outcome == "ok" else {"latency_ms": 50.0}
    return Attempt(1, "d", "groq", model, "primary", outcome, NOW, **(known | what))


@pytest.fixture
def seeded(tmp_path: Path):
    """Writes calls, each a tuple of attempts; `how` changes the call. Gives the records of the file."""
    path, made = tmp_path / "ledger.db", iter(range(1, 1000))

    def seed(*calls: tuple[Attempt, ...], since: float = 0.0, **how: Any):
        ledger = SqliteLedger(path, tmp_path / "spool")
        for attempts in calls:
            n = next(made)
            record = replace(CallRecord(ulid(NOW + n, n), NOW + n, "ask", "fast", state="ok"), **how)
            ledger.complete_now(record, [replace(each, n=i) for i, each in enumerate(attempts, 1)], None)
        ledger.close()
        return {name: each.as_json() for name, each in records(path, since).items()}

    return seed


def test_each_model_is_told_by_its_own_attempts_and_paid_for_by_all_of_them(seeded):
    cut = attempt("StreamTruncated", input_tokens=10, output_tokens=5, cost_nanousd=700)
    found = seeded(
        (attempt("RateLimited"), cut, attempt()),
        (attempt("RateLimited"), attempt(model="opus", cost_nanousd=90_000, output_tokens=300)),
        (attempt("Cancelled"),),
    )
    assert found["groq/llama"] == {
        "model": "groq/llama",
        "provider": "groq",
        "calls": 3,
        "attempts": 5,
        "ok": 1,
        "cancelled": 1,
        "errors": {"RateLimited": 2, "StreamTruncated": 1},
        "error_rate": 0.75,  # who cancelled is not who failed
        "first_token_p50_ms": 200.0,
        "first_token_p95_ms": 200.0,
        "tokens_per_second_p50": 100.0,
        "latency_p50_ms": 1200.0,
        "input_tokens": 20,
        "output_tokens": 105,
        "cost_usd": 0.0000057,
        "cost_per_call_usd": 0.0000057,
        "cost_per_million_output_usd": pytest.approx(5_700 / 105 / 1000),
        "unpriced_attempts": 0,
        "last_used": NOW,
    }
    assert (found["groq/opus"]["calls"], found["groq/opus"]["tokens_per_second_p50"]) == (1, 300.0)


@pytest.mark.parametrize("how", [{"drill": True}, {"state": "cached"}, {"command": "models check"}], ids=str)
def test_drills_cached_answers_and_probes_say_nothing_of_a_model(seeded, how):
    assert seeded((attempt(),), **how) == {}


def test_only_calls_of_the_range_count(seeded):
    seeded((attempt(),), (attempt(),), (attempt(),))  # they begin at NOW + 1, + 2, + 3
    assert seeded(since=NOW + 2)["groq/llama"]["calls"] == 2


def test_an_attempt_of_unknown_price_is_counted_and_never_taken_for_free(seeded):
    row = seeded((attempt(),), (attempt(cost_nanousd=None, output_tokens=900),))["groq/llama"]
    assert (row["unpriced_attempts"], row["cost_per_call_usd"]) == (1, 0.000005)
    assert row["cost_per_million_output_usd"] == pytest.approx(0.05)
    row = seeded((attempt(model="free", cost_nanousd=0),), (attempt(model="new", cost_nanousd=None),))
    assert (row["groq/free"]["cost_per_call_usd"], row["groq/new"]["cost_per_call_usd"]) == (0.0, None)
    assert (row["groq/free"]["cost_usd"], row["groq/new"]["cost_usd"]) == (0.0, None)


@pytest.mark.parametrize(
    "what", [{"first_token_ms": None}, {"first_token_ms": 1195.0}, {"output_tokens": 0}, {"latency_ms": None}], ids=str
)
def test_a_speed_that_nobody_saw_is_not_told(seeded, what):
    assert seeded((attempt(**what),))["groq/llama"]["tokens_per_second_p50"] is None


def test_no_file_says_nothing_and_a_damaged_one_is_our_error(tmp_path):
    assert records(tmp_path / "none.db") == {}
    assert os.listdir(tmp_path) == []
    (tmp_path / "bad.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(LedgerUnusable, match="cannot read the ledger"):
        records(tmp_path / "bad.db")
