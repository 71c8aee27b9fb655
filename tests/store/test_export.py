"""The ledger in other forms: the same rows, no more memory for more of them, private, no texts unless asked."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import stat
import tracemalloc
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.checkup import check
from llmctl.store.export import lines, write_ledger, write_text
from llmctl.store.history import EVERYTHING, Filter, History
from llmctl.store.ledger import SqliteLedger
from llmctl.store.report import Question, Reports

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
ODD = 'a "b", c\r\nd\te\x00\x1b[2J =1+1 日本'


def fill(home: Path, count: int) -> History:
    ledger = SqliteLedger(home / "ledger.db", home / "spool", now=lambda: NOW)
    for n in range(1, count + 1):
        record = CallRecord(
            id=ulid(NOW + n, n), started_at=NOW + n // 3, command="ask", model=ODD if n == 2 else "fast",
            tags={"team": "web" if n % 2 else ODD}, deadline_at=NOW + 300,
        )  # fmt: skip
        ledger.begin_now(record, f"PROMPT {n} {ODD}")
        if n % 7:
            ended = replace(record, state="ok" if n % 5 else "failed", cost_nanousd=n, error=ODD, attempt_count=1)
            ledger.complete_now(ended, (Attempt(1, "d", "p", "m", "primary", "ok", NOW),), f"ANSWER {n}")
    ledger.close()
    return History(home / "ledger.db", NOW + 1000)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return fill(tmp_path / "home", 40)


@pytest.mark.parametrize("where", [EVERYTHING, Filter(state="failed"), Filter(tags=(("team", "web"),), since=NOW + 5)])
def test_json_lines_are_what_list_gives(history: History, where: Filter) -> None:
    got = [json.loads(line) for line in "".join(lines(history, "jsonl", where)).splitlines()]
    assert got == history.list_calls(0, where)
    assert got


def test_reads_of_a_few_rows_miss_none_and_repeat_none(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = history.list_calls(0)
    monkeypatch.setattr("llmctl.store.history._CHUNK", 3)  # several calls began at the same instant
    assert list(history.stream()) == whole


def test_the_table_has_a_row_for_each_call_whatever_its_text(history: History) -> None:
    rows = list(csv.DictReader(io.StringIO("".join(lines(history, "csv", EVERYTHING, content=True)), newline="")))
    calls = history.list_calls(0)
    assert [(row["id"], row["model"], json.loads(row["tags"])) for row in rows] == [
        (call["id"], call["model"], call["tags"]) for call in calls
    ]
    assert next((row["error"], row["cost_nanousd"]) for row in rows if row["state"] == "ok") == (ODD, "39")
    assert {row["interrupted"] for row in rows if row["state"] == "started"} == {"1"}
    assert rows[0]["prompt"] == f"PROMPT 40 {ODD}"


def test_a_ledger_of_the_chosen_calls_is_one_for_sqlite_and_for_llmctl(history: History, tmp_path: Path) -> None:
    home = tmp_path / "other"
    home.mkdir(0o700)
    where = Filter(tags=(("team", "web"),))
    assert write_ledger(history, str(home / "ledger.db"), where, content=True, force=False) > 4096
    assert os.listdir(home) == ["ledger.db"]
    other = History(home / "ledger.db", history.now)
    assert other.list_calls(0) == history.list_calls(0, where)
    assert other.search("prompt 39")[0]["prompt"] == history.search("prompt 39")[0]["prompt"]
    report = check(home / "ledger.db", home / "spool", NOW)
    assert (report["problems"], report["journal_mode"], report["counts"]["tags"]) == ([], "wal", 20)
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        found = connection.execute("SELECT sum(calls), sum(cost_nanousd) FROM rollup_days WHERE label = ''").fetchone()
        calls = [call for call in history.list_calls(0, where) if call["state"] != "started"]
        assert found == (len(calls), sum(call["cost_nanousd"] for call in calls))
    ledger = SqliteLedger(home / "ledger.db", home / "spool")
    ledger.begin_now(CallRecord(id=ulid(NOW, 1), started_at=NOW, command="ask", model="m"), None)
    ledger.close()
    assert len(other.list_calls(0)) == 21


@pytest.mark.parametrize("form", ["jsonl", "csv", "sqlite"])
def test_texts_are_left_out_unless_asked_for_and_files_are_private_and_whole(
    history: History, tmp_path: Path, form: str
) -> None:
    target = tmp_path / "out"

    def write(*, content: bool = False, force: bool = False) -> int:
        if form == "sqlite":
            return write_ledger(history, str(target), EVERYTHING, content=content, force=force)
        pieces = lines(history, form, EVERYTHING, content=content)
        return write_text(str(target), pieces, force=force, source=history.path)

    before = os.umask(0)
    try:
        assert write() == target.stat().st_size
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert b"PROMPT" not in target.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write()
    write(content=True, force=True)
    assert b"PROMPT 40" in target.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["home", "out"]
    os.mkfifo(fifo := tmp_path / "fifo")
    for other in (str(tmp_path), str(fifo), "/dev/null", ""):
        with pytest.raises(UsageError, match="cannot make"):
            write_text(other, iter(()), force=True, source=history.path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_no_force_replaces_the_ledger_or_its_journal(history: History, suffix: str) -> None:
    with History(history.path).open() as reading:  # so that the side files are there
        assert reading is not None
        reading.execute("SELECT 1 FROM calls").fetchone()
        with pytest.raises(UsageError, match="itself"):
            write_text(history.path + suffix, iter(()), force=True, source=history.path)


def test_values_of_another_type_than_their_column_s_are_none_and_hold_up_nothing(history: History) -> None:
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("UPDATE calls SET started_at = 'soon', model = x'ff' WHERE id = (SELECT min(id) FROM calls)")
        connection.execute("UPDATE calls SET latency_ms = 9e999, served_by = x'ff', cost_nanousd = 'much', rolled = 0")
        connection.commit()
    first = history.list_calls()[0]
    assert (first["started_at"], first["model"], first["latency_ms"], first["cost_nanousd"]) == (0.0, None, None, None)
    for form in ("jsonl", "csv"):
        assert "".join(lines(history, form, EVERYTHING)).count("\n") >= 40
    assert "Infinity" not in "".join(lines(history, "jsonl", EVERYTHING))
    document = Reports(history.path).report(Question(by=("model",)), NOW + 1000)
    assert json.loads(json.dumps(document)) == document


def test_what_breaks_half_way_leaves_no_file(history: History, tmp_path: Path) -> None:
    def broken() -> Any:
        yield "half"
        raise OSError(28, "No space left on device")

    with pytest.raises(LedgerUnusable, match="No space"):
        write_text(str(tmp_path / "out"), broken(), force=False, source=history.path)
    assert os.listdir(tmp_path) == ["home"]


def test_a_ledger_that_is_not_there_is_exported_as_an_empty_one(tmp_path: Path) -> None:
    nothing = History(tmp_path / "none" / "ledger.db", NOW)
    assert "".join(lines(nothing, "jsonl", EVERYTHING)) == ""
    assert "".join(lines(nothing, "csv", EVERYTHING)).count("\n") == 1
    write_ledger(nothing, str(tmp_path / "empty.db"), EVERYTHING, content=True, force=False)
    assert History(tmp_path / "empty.db").list_calls() == []


def test_more_rows_need_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmctl.store.history._CHUNK", 100)
    peaks = []
    for count in (300, 900):
        history = fill(tmp_path / str(count), count)
        for _ in lines(history, "jsonl", EVERYTHING, content=True):  # what is imported once is not counted
            break
        tracemalloc.start()
        read = sum(map(len, lines(history, "jsonl", EVERYTHING, content=True)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read > 800 * count
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (EVERYTHING, "calls_started_at"),
        (Filter(since=NOW, until=NOW + 10), "calls_started_at"),
        (Filter(state="interrupted"), "calls_not_rolled"),
        (Filter(state="started"), "calls_not_rolled"),
        (Filter(tags=(("team", "web"),)), "tags_key"),
    ],
)
def test_a_list_is_read_by_an_index(history: History, where: Filter, index: str) -> None:
    with history.open() as connection:
        assert connection is not None
        condition, values = where.sql(connection, NOW)
        plan = f"EXPLAIN QUERY PLAN SELECT id FROM calls WHERE {condition} ORDER BY started_at DESC, id DESC LIMIT 20"
        steps = " ".join(row[3] for row in connection.execute(plan, values))
        after = f"{condition} AND (started_at, id) < (?, ?)"
        onward = connection.execute(plan.replace(condition, after), [*values, NOW, "0"])
        assert index in steps
        assert "TEMP B-TREE" not in steps or where.tags
        assert where != EVERYTHING or "(started_at,id)<" in " ".join(row[3] for row in onward)
