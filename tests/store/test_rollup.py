"""Rollups: written with the row, once, and made anew from the rows with the same result."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.core.sketch import merge
from llmctl.store import rollup
from llmctl.store.db import Database
from llmctl.store.ledger import SqliteLedger
from llmctl.store.report import Question, Reports
from llmctl.store.rows import Rows, begun, ended
from llmctl.store.schema import STEPS, SUMS
from tests.store.test_report import FIRST, NOW, ZONES, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = 1_793_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def call(n: int = 1, **changes: Any) -> CallRecord:
    record = CallRecord(id=ulid(AT + n, n), started_at=AT + n, command="ask", model="fast", state="ok")
    return replace(record, **{"cost_nanousd": 10, "latency_ms": 100.0, **changes})


def write(path: Path, *records: CallRecord, zone: str = "UTC", steps: Any = STEPS) -> None:
    database = Database(path, steps)
    database.write(lambda _: None)
    for record in records:
        entry = begun(record, None) if record.state == "started" else ended(record, (), None)
        database.write(lambda c, e=entry: Rows(c, known=database.version == len(STEPS), zone=zone).put(e))
    database.close()


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def dump(path: Path) -> list[list[Any]]:
    """All rollups that hold something, whatever the numbers of their keys."""
    told = []
    for table, when in (("rollup_days", "day"), ("rollup_quarters", "quarter")):
        sql = (
            f"SELECT label, value, {when}, model, served_by, provider, deployment, drill, {', '.join(SUMS)}, "
            f"hex(latency), hex(first_token) FROM {table} JOIN rollup_keys ON id = key WHERE calls <> 0 "
            "ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"
        )
        told.append(query(path, sql))
    return told


def test_a_call_is_summed_up_by_day_and_by_quarter_for_itself_and_each_label(path: Path) -> None:
    write(path, call(session="s", tags={"team": "web", "job": ""}))
    for table in ("rollup_days", "rollup_quarters"):
        labels = query(path, f"SELECT label, value, calls, ok, cost_nanousd FROM {table} ORDER BY 1, 2")
        assert labels == [
            (*each, 1, 1, 10) for each in (("", ""), ("session", "s"), ("tag:job", ""), ("tag:team", "web"))
        ]
    assert query(path, "SELECT rolled FROM calls") == [(1,)]


@pytest.mark.parametrize(
    "writes",
    [
        [call()] * 3,
        [call(state="started"), call(), call(state="started", tags={"late": "1"}), call()],
        [call(), call(state="started")],
        [call(cost_nanousd=99, state="failed", session="other", served_by="a/b", latency_ms=9.9), call(session=None)],
    ],
)
def test_a_completion_repeated_swapped_or_replaced_counts_once(
    path: Path, tmp_path: Path, writes: list[CallRecord]
) -> None:
    write(path, *writes)
    write(tmp_path / "once.db", call())
    assert dump(path) == dump(tmp_path / "once.db")


def test_a_row_that_an_older_llmctl_completed_counts_once_when_completed_again(path: Path, tmp_path: Path) -> None:
    write(path, call(cost_nanousd=9), steps=STEPS[:2])
    write(path, call())
    write(tmp_path / "once.db", call())
    assert dump(path) == dump(tmp_path / "once.db")


def test_the_days_of_a_zone_that_nobody_knows_are_those_of_utc(path: Path) -> None:
    write(path, call(), zone="Mars/Phobos")
    assert query(path, "SELECT value FROM facts WHERE name = 'zone'") == [("UTC",)]


def test_nothing_is_summed_up_of_a_call_that_has_not_ended(path: Path) -> None:
    write(path, call(state="started"))
    assert dump(path) == [[], []]
    assert query(path, "SELECT rolled FROM calls") == [(0,)]


def test_a_write_that_fails_leaves_neither_row_nor_sum(path: Path) -> None:
    write(path)
    database = Database(path, STEPS)

    def fail(connection: sqlite3.Connection) -> None:
        Rows(connection, known=True).put(ended(call(), (), None))
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - which one says nothing more
        database.write(fail)
    database.close()
    assert dump(path) == [[], []]
    assert query(path, "SELECT count(*) FROM facts") == [(0,)]


@pytest.mark.parametrize("seed", range(3))
def test_made_anew_the_rollups_are_the_same(tmp_path: Path, seed: int) -> None:
    ledger = Ledger(tmp_path / "ledger.db", seed, 60, zone=ZONES[seed])
    database = Database(ledger.path, STEPS)
    rollup.catch_up(database)
    before = dump(ledger.path)
    query(ledger.path, "UPDATE rollup_days SET calls = calls + 7, latency = x'00'")
    query(ledger.path, "DELETE FROM rollup_quarters WHERE label = ''")
    finished = query(ledger.path, "SELECT count(*) FROM calls WHERE state <> 'started'")[0][0]
    assert rollup.rebuild(database) == finished
    assert dump(ledger.path) == before
    assert rollup.catch_up(database) == 0
    database.close()


def test_a_writer_catches_up_a_bounded_part_of_what_an_older_llmctl_left(path: Path) -> None:
    write(path, *(call(n) for n in range(250)))
    query(path, "UPDATE calls SET rolled = 0")
    for table in ("rollup_days", "rollup_quarters"):
        query(path, f"DELETE FROM {table}")
    write(path, call(1000))
    assert query(path, "SELECT sum(rolled), count(*) FROM calls") == [(201, 251)]
    write(path, call(1001))
    assert query(path, "SELECT sum(calls), sum(cost_nanousd) FROM rollup_days") == [(252, 2520)]


def test_rows_of_no_use_to_anybody_hold_up_no_writer(path: Path) -> None:
    write(path)
    names = (
        "id, started_at, state, command, model, cache, fallback, attempt_count, tokens_estimated, saved_nanousd, drill"
    )
    for n, at in enumerate(("1e300", "-5.0", "0.0", "'noon'", "x'ff'", f"{AT}", f"{AT}")):
        session = "CAST(x'ff' AS TEXT)" if n == 6 else "NULL"
        odd = f"'{n}', {at}, 'ok', 'c', 'm', 'off', 0, 0, 0, 9e18, 0, {session}, {2**63 - 1}, 'slow'"
        query(path, f"INSERT INTO calls ({names}, session, cost_nanousd, latency_ms) VALUES ({odd})")
    write(path, call(1), call(2))
    assert query(path, f"SELECT sum(rolled) FROM calls WHERE id IN ('{call(1).id}', '{call(2).id}')") == [(2,)]
    for by in ("day", "session"):
        document = Reports(path).report(Question(by=(by, "model"), exact=True), NOW)
        assert document["total"]["calls"] == 7  # two began at no time


def test_a_call_of_a_clock_that_is_centuries_off_is_told_from_its_row(path: Path) -> None:
    write(path, call(started_at=0.0), call(2, started_at=1e13), call(3), call(3, started_at=5.0))
    assert query(path, "SELECT sum(calls) FROM rollup_days") == [(1,)]
    total = Reports(path).report(Question(by=("day",)), NOW)
    assert [(row["key"]["day"], row["calls"]) for row in total["rows"]] == [
        ("1970-01-01", 1), ("2026-10-26", 1), ("9999-12-31", 1)
    ]  # fmt: skip


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_days_of_a_ledger_are_those_of_where_it_was_begun(path: Path, kathmandu: None) -> None:
    del kathmandu
    write(path, call(started_at=1_793_040_000.0), zone="local")  # 2026-10-26 18:40 UTC
    write(path, call(2, started_at=1_793_040_000.0), zone="UTC")
    assert query(path, "SELECT * FROM facts") == [("zone", "Asia/Kathmandu")]
    assert query(path, "SELECT day, calls FROM rollup_days") == [("2026-10-27", 2)]


def test_a_zone_that_is_unknown_here_costs_the_rollup_and_nothing_else(path: Path) -> None:
    write(path, call(1))
    query(path, "UPDATE facts SET value = 'Mars/Phobos' WHERE name = 'zone'")
    write(path, call(2), call(1, cost_nanousd=50))
    assert query(path, "SELECT rolled FROM calls ORDER BY id") == [(1,), (0,)]
    query(path, "UPDATE facts SET value = 'UTC' WHERE name = 'zone'")
    write(path, call(3))
    assert Reports(path).report(Question(), NOW)["total"]["calls"] == 3


def test_a_file_of_a_newer_llmctl_is_written_without_rollups(path: Path) -> None:
    write(path, call(1))
    query(path, f"PRAGMA user_version = {len(STEPS) + 1}")
    write(path, call(2))
    assert query(path, "SELECT rolled FROM calls ORDER BY id") == [(1,), (0,)]
    assert query(path, "SELECT sum(calls) FROM rollup_days") == [(1,)]


def test_a_file_of_an_older_llmctl_is_migrated_and_caught_up(path: Path) -> None:
    database = Database(path, STEPS[:2])
    database.write(lambda c: Rows(c, known=False).put(ended(call(1, tags={"team": "a"}), (), None)))
    database.close()
    raw = Reports(path).report(Question(by=("day", "tag:team")), NOW)
    write(path, call(2, tags={"team": "a"}))
    assert query(path, "SELECT label, calls FROM rollup_days ORDER BY 1") == [("", 2), ("tag:team", 2)]
    assert [row["calls"] for row in raw["rows"]] == [1]


def test_pruned_calls_stay_in_the_sums_and_out_of_what_is_made_anew(path: Path) -> None:
    day = 86_400
    bound = int(AT + 5 * day) // day * day
    kept, first = call(20, started_at=bound - 60.0), call(21, started_at=float(bound))
    write(path, *(call(n, started_at=AT + n * day) for n in range(10)), kept, first)
    database = Database(path, STEPS)
    database.write(lambda connection: rollup.note_pruned(connection, bound))
    query(path, f"DELETE FROM calls WHERE started_at < {bound - 60}")
    before = dump(path)
    assert rollup.rebuild(database) == 6
    database.close()
    assert dump(path) == before
    assert Reports(path).report(Question(), NOW)["total"]["calls"] == 12


def test_the_ledger_rolls_up_what_it_writes(path: Path, tmp_path: Path) -> None:
    ledger = SqliteLedger(path, tmp_path / "spool")
    record = call(state="started")
    ledger.begin_now(record, "why?")
    tries = (Attempt(1, "d", "p", "m", "primary", "TimedOut", AT, cost_nanousd=3),
             Attempt(2, "d", "p", "m", "check", "ok", AT, cost_nanousd=4))  # fmt: skip
    ledger.complete_now(replace(record, state="ok"), tries, "because.")
    ledger.close()
    assert query(path, "SELECT calls, cost_nanousd, wasted_nanousd FROM rollup_quarters") == [(1, 10, 7)]
    counts: dict[int, int] = {}
    merge(counts, query(path, "SELECT latency FROM rollup_days")[0][0])
    assert sum(counts.values()) == 1


def test_random_order_of_writers_changes_nothing(tmp_path: Path) -> None:
    dice = random.Random(3)
    records = [call(n, started_at=FIRST + n * 400, tags={"team": dice.choice("ab")}) for n in range(40)]
    told = []
    for name in ("one.db", "two.db"):
        dice.shuffle(records)
        write(tmp_path / name, *records)
        told.append(dump(tmp_path / name))
    assert told[0] == told[1]
