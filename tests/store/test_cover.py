"""Which rows answer for a span of time: disjoint pieces that cover it exactly, and what the calls in it cost."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core import days
from llmctl.store.cover import ROLLED_FROM, ROLLED_UNTIL, Piece, cost_between, machine_zone, pieces
from llmctl.store.schema import QUARTER_S
from tests.store.test_report import FIRST, LAST, ZONES, Ledger

if TYPE_CHECKING:
    from pathlib import Path

NEAR = st.floats(FIRST, LAST, allow_nan=False).flatmap(
    lambda at: st.sampled_from((at, at // 900 * 900, at // 86400 * 86400))
)
INSTANTS = st.one_of(NEAR, NEAR, st.floats(allow_nan=False))


def span(piece: Piece, zone: str | None) -> tuple[float, float]:
    if piece.table != "rollup_days":
        return piece.since, piece.until  # type: ignore[return-value]
    assert zone is not None
    return days.start_of(str(piece.since), zone), days.start_of(str(piece.until), zone)


@example(1_793_000_000.0, 1_793_000_060.0, "UTC")  # within a quarter of an hour
@given(INSTANTS, INSTANTS, st.one_of(st.none(), st.sampled_from((*ZONES, "Pacific/Apia", "Asia/Beirut", "local"))))
def test_the_pieces_are_disjoint_and_cover_the_span_exactly(since: float, until: float, zone: str | None) -> None:
    cover = pieces(since, until, zone)
    spans = sorted(span(piece, zone) for piece in cover)
    since, until = max(since, ROLLED_FROM), min(until, ROLLED_UNTIL)
    if since >= until:
        assert spans == []
        return
    edges = [since, *(end for _, end in spans)]
    assert [start for start, _ in spans] == edges[:-1]
    assert edges[-1] == until
    for piece in cover:
        low, high = span(piece, zone)
        if piece.table == "calls":
            assert high - low < QUARTER_S or (
                not any(each.table != "calls" for each in cover) and high - low < 2 * QUARTER_S
            )
        else:
            assert low % QUARTER_S == high % QUARTER_S == 0
        if piece.table == "rollup_quarters" and zone is not None:
            assert high - low < 2 * 90000  # no whole day is read in quarters, except around a single one


def test_a_span_of_whole_days_is_read_as_days() -> None:
    low, high = (days.start_of(day, "Asia/Kathmandu") for day in ("2026-10-01", "2026-11-01"))
    assert pieces(low, high, "Asia/Kathmandu") == [Piece("rollup_days", "2026-10-01", "2026-11-01")]
    assert pieces(low, high, "UTC") == [
        Piece("rollup_quarters", low, days.start_of("2026-10-01", "UTC")),
        Piece("rollup_days", "2026-10-01", "2026-10-31"),
        Piece("rollup_quarters", days.start_of("2026-10-31", "UTC"), high),
    ]
    assert pieces(low, high, None) == [Piece("rollup_quarters", low, high)]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_spent_is_what_the_rows_say(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    ledger = Ledger(tmp_path / "ledger.db", 100 + seed, 80, zone=ZONES[seed])
    calls = ledger.calls()
    with closing(sqlite3.connect(ledger.path)) as connection:
        for _ in range(200):
            edge = dice.choice((1.0, 900.0, 86400.0))
            since, until = (dice.uniform(FIRST, LAST) // edge * edge for _ in range(2))
            label, value = dice.choice(
                (("", ""), ("session", "s1"), ("session", ""), ("tag:team", "a"), ("tag:job", ""))
            )
            model = dice.choice((None, "fast", "nobody"))
            spent = sum(
                sum(cost or 0 for _, _, cost in call["attempts"]) if (paid := call["cost_nanousd"]) is None else paid
                for call in calls
                if since <= call["started_at"] < until
                and model in (None, call["model"])
                and (not label or value == (call["session"] if label == "session" else call["tags"].get(label[4:])))
            )
            assert cost_between(connection, since, until, label=label, value=value, model=model) == spent


def test_the_zone_of_this_computer_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (("Asia/Kathmandu", "Asia/Kathmandu"), (":Europe/Berlin", "Europe/Berlin"), ("Etc/UTC", "UTC")):
        monkeypatch.setenv("TZ", name)
        time.tzset()
        assert machine_zone() == told
    monkeypatch.undo()
    time.tzset()
    assert days.is_zone(machine_zone())
