"""`llmctl models compare`: what was seen and what is known of models, as tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.cli.models import app
from llmctl.cli.models_compare import Sort
from llmctl.core.errors import UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.ledger import SqliteLedger

from .drawn import Desk

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[models.team]
[[models.team.deployments]]
id = "one"
model = "groq/tiny"
context_window = 32_000
price = { input = 0.1, output = 0.2 }
[[models.team.deployments]]
id = "two"
model = "openai/gpt-4o"
"""
SEEN = {  # provider, model: attempts of one call each
    ("groq", "tiny"): [("ok", 100.0, 1100.0, 50, 40_000), ("RateLimited", None, 30.0, None, None)],
    ("gone", "\x1b[31mred"): [("ok", 300.0, 800.0, 10, None)],
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (home := tmp_path / "home").mkdir(mode=0o700)
    (home / "config.toml").write_text(CONFIG)
    (home / "config.toml").chmod(0o600)
    return Desk(app, home, monkeypatch)


@pytest.fixture
def used(desk: Desk) -> Desk:
    ledger, n, now = SqliteLedger(desk.home / "ledger.db", desk.home / "spool"), 0, time() - 60
    for (provider, model), attempts in SEEN.items():
        for outcome, first, latency, spoken, cost in attempts:
            n += 1
            told: dict[str, Any] = {"first_token_ms": first, "latency_ms": latency, "cost_nanousd": cost}
            told |= {"input_tokens": spoken, "output_tokens": spoken}
            attempt = Attempt(1, "d", provider, model, "primary", outcome, now, **told)
            ledger.complete_now(replace(CallRecord(ulid(now, n), now, "ask", "team"), state="ok"), [attempt], None)
    ledger.close()
    return desk


def rows(desk: Desk, *words: str) -> list[dict[str, Any]]:
    done = desk.run("compare", *words, "--json")
    assert (done.code, done.err) == (0, "")
    return list(json.loads(done.out))


def test_what_was_seen_stands_beside_what_is_configured(used):
    tiny, red = rows(used)
    assert tiny["model"] == "groq/tiny"
    assert (tiny["calls"], tiny["error_rate"], tiny["errors"]) == (2, 0.5, {"RateLimited": 1})
    assert (tiny["first_token_p50_ms"], tiny["tokens_per_second_p50"], tiny["cost_per_call_usd"]) == (100, 50, 0.00004)
    assert (tiny["price_input_usd"], tiny["price_output_usd"], tiny["context_window"]) == (0.1, 0.2, 32_000)
    assert red["model"] == "gone/\x1b[31mred"  # of a provider that nobody knows any more
    assert (red["price_input_usd"], red["context_window"], red["cost_per_call_usd"]) == (None, None, None)


def test_models_that_are_named_show_price_and_window_without_any_call(desk):
    tiny, gpt = rows(desk, "team")
    assert (tiny["calls"], tiny["error_rate"], tiny["price_output_usd"]) == (0, None, 0.2)
    assert gpt["model"] == "openai/gpt-4o"
    assert (gpt["price_input_usd"], gpt["price_output_usd"], gpt["context_window"]) == (2.5, 10.0, 128_000)
    assert rows(desk) == []
    assert isinstance(desk.refused("compare", "nosuch/model"), UsageError)


def test_a_name_that_only_the_ledger_knows_can_be_compared(used):
    assert [row["model"] for row in rows(used, "gone/\x1b[31mred", "groq/tiny")] == ["groq/tiny", "gone/\x1b[31mred"]


def test_a_range_leaves_older_calls_out(used):
    assert rows(used, "--since", "30s") == []


ORDERS = {
    "calls": "groq gone openai",
    "errors": "gone groq openai",
    "first": "groq gone openai",
    "speed": "groq gone openai",
    "latency": "gone groq openai",
    "cost": "groq gone openai",
    "price": "groq openai gone",
    "window": "openai groq gone",
    "used": "gone groq openai",
    "name": "gone groq openai",
}


def test_every_order_puts_the_best_first_and_what_has_no_value_last(used):
    orders = {sort.value: rows(used, "team", "gone/\x1b[31mred", "--sort", sort) for sort in Sort}
    assert {sort: " ".join(row["provider"] for row in got) for sort, got in orders.items()} == ORDERS


def test_a_narrow_terminal_gets_two_tables_and_a_wide_one_gets_one(used):
    screen = used.run("compare", "team", "gone/\x1b[31mred", columns=80).screen
    assert re.sub(r"\d{4}-\d\d-\d\d", "the day it is", screen) == NARROW
    wide = used.run("compare", "team", columns=140)
    assert wide.screen.startswith("model ")
    assert wide.screen.splitlines()[0].endswith("1M out  price in  price out  window   last used")
    for columns in (20, 40, 80, 140, 200):
        assert used.run("compare", columns=columns).width <= columns


NARROW = """\
model             calls  errors  first    p95  tok/s  whole    a call  1M out
─────────────────────────────────────────────────────────────────────────────
groq/tiny             2     50%  0.10s  0.10s     50  1.10s  $0.00004   $0.80
gone/\\x1b[31mred      1      0%  0.30s  0.30s     20  0.80s         -       -
openai/gpt-4o         0       -      -      -      -      -         -       -

model             price in  price out  window   last used
─────────────────────────────────────────────────────────
groq/tiny            $0.10      $0.20     32k  the day it is
gone/\\x1b[31mred         -          -       -  the day it is
openai/gpt-4o        $2.50     $10.00    128k           -"""


def test_in_a_pipe_there_are_lines_with_tabs_and_values_in_full(used):
    header, tiny, red = (line.split("\t") for line in used.run("compare").out.splitlines())
    cells = dict(zip(header, tiny, strict=True))
    assert (cells["cost_per_call_usd"], cells["errors"], cells["context_window"]) == (
        "0.00004",
        "RateLimited 1",
        "32000",
    )
    assert red[0] == "gone/\\x1b[31mred"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", cells["last_used"])


def test_csv_says_the_same_and_excludes_json(used):
    header, *lines = csv.reader(io.StringIO(used.run("compare", "--csv").out))
    assert header == list(rows(used)[0])
    assert dict(zip(header, lines[0], strict=True))["price_output_usd"] == "0.2"
    assert used.refused("compare", "--csv", "--json").exit_code == 2


def test_an_empty_ledger_says_so_on_a_terminal(desk):
    assert desk.run("compare", columns=80).out == "no model was asked in this range\n"
