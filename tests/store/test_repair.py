"""`ledger check --repair`: every row that can still be read is back, none is that never was, nothing is deleted."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from llmctl.core.errors import LedgerUnusable
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.checkup import check
from llmctl.store.db import Database
from llmctl.store.history import History
from llmctl.store.ledger import SqliteLedger
from llmctl.store.repair import repair
from llmctl.store.schema import STEPS

NOW = 1_800_000_000.0
PAGE = 4096
TABLES = ("calls", "attempts", "tags", "content")
QUERIES = {table: f"SELECT * FROM {table}" for table in TABLES} | {
    "calls": "SELECT * FROM calls",
    "content": "SELECT call_id, prompt, answer FROM content",
}


class Home:
    """A ledger's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "ledger.db"
        self.spool = path / "spool"

    def ledger(self) -> SqliteLedger:
        return SqliteLedger(self.file, self.spool, now=lambda: NOW)

    def fill(self, first: int, last: int, *, close: bool = True) -> SqliteLedger:
        """Calls by number: every fifth failed after two attempts, every tenth was killed, every ninth is long."""
        ledger = self.ledger()
        for n in range(first, last):
            at = NOW - 1e6 + 60 * n
            tags = {"team": "web" if n % 3 else "ops", "ref": ulid(NOW + n, n * 7919)} if n % 2 else {}
            record = CallRecord(
                id=ulid(at, n * 7919), started_at=at, command="ask", model=f"m{n % 4}", tags=tags, deadline_at=at + 300
            )
            ledger.begin_now(record, f"prompt {n} " * (700 if n % 9 == 0 else 12))
            if n % 10 == 0:
                continue
            tries = [Attempt(k, f"d{n}", "p", "m", "primary", "ok", at, status=200) for k in range(1, 2 + (n % 5 == 0))]
            ended = replace(
                record, state="failed" if n % 5 == 0 else "ok", finished_at=at + 2, cost_nanousd=1000 + n,
                latency_ms=float(n), attempt_count=len(tries), input_tokens=n,
                error="x" * 1500 if n % 25 == 0 else None,
            )  # fmt: skip
            ledger.complete_now(ended, tries, f"answer {n} " * 12)
        if close:
            ledger.close()
        return ledger

    def rows(self, table: str, file: Path | None = None) -> set[tuple[Any, ...]]:
        with closing(sqlite3.connect(file or self.file)) as connection:
            connection.text_factory = partial(str, encoding="utf-8", errors="replace")
            return set(connection.execute(QUERIES[table]).fetchall())

    def repair(self) -> dict[str, Any]:
        return repair(self.file, self.spool, NOW)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A ledger of 300 calls whose last 60 are in the journal only."""
    place = Home(tmp_path_factory.mktemp("template") / "home")
    place.fill(1, 240)
    place.open = place.fill(240, 300, close=False)  # type: ignore[attr-defined]
    assert (place.path / "ledger.db-wal").stat().st_size > 0
    return place


def pages_of(file: Path) -> dict[str, set[int]]:
    """Which pages a table lives on, by SQLite's own account; those of long values under `NAME+`."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            found = connection.execute("SELECT name, pageno, pagetype FROM dbstat").fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")
    pages: dict[str, set[int]] = {}
    for name, page, kind in found:
        pages.setdefault(name + ("+" if kind == "overflow" else ""), set()).add(page)
    return pages


def in_journal(file: Path) -> set[int]:
    journal = Path(f"{file}-wal").read_bytes()
    return {int.from_bytes(journal[at : at + 4], "big") for at in range(32, len(journal), PAGE + 24)}


def trace(table: str, row: tuple[Any, ...]) -> bytes:
    """Bytes that stand where the row does, and nowhere else in its table."""
    if table == "tags":
        return "".join(row).encode()
    if table == "attempts":  # 1 is stored without a byte of its own: sqlite.org/fileformat2.html, 2.1
        return row[0].encode() + (b"" if row[1] == 1 else bytes([row[1]])) + row[2].encode()
    return bytes(row[0], "ascii")


def readable(home: Home, table: str, bad: set[int], pages: dict[str, set[int]]) -> set[tuple[Any, ...]]:
    """The rows that stand on no page of `bad`."""
    data = home.file.read_bytes()
    there = b"".join(data[(page - 1) * PAGE : page * PAGE] for page in sorted(pages.get(table, set()) - bad))
    rows = {row for row in home.rows(table) if trace(table, row) in there}
    if pages.get(table + "+", set()) & bad:  # a long value may be on any of them
        rows = {row for row in rows if sum(len(str(value)) for value in row) < 900}
    return rows


def damage(data: bytes, dice: random.Random) -> tuple[bytes, set[int]]:
    """Bytes, pages or the end of the file spoilt, and the pages that are not what they were."""
    copy = bytearray(data)
    how = dice.choice(("byte", "bytes", "pages", "pages", "zeros", "cut", "first"))
    if how == "cut":
        copy = copy[: dice.randrange(len(copy))]
    elif how in ("byte", "bytes"):
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(copy))
            for n in range(at, min(len(copy), at + (1 if how == "byte" else dice.randrange(1, 513)))):
                copy[n] ^= dice.randrange(1, 256)
    else:
        count = len(copy) // PAGE
        for page in [0] if how == "first" else dice.sample(range(count), dice.randrange(1, count // 2)):
            copy[page * PAGE : (page + 1) * PAGE] = bytes(PAGE) if how == "zeros" else dice.randbytes(PAGE)
    pages = -(-len(data) // PAGE)
    spoilt = {n + 1 for n in range(pages) if copy[n * PAGE : n * PAGE + PAGE] != data[n * PAGE : n * PAGE + PAGE]}
    return bytes(copy), spoilt


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 10), *(pytest.param(seed, 100, marks=pytest.mark.full) for seed in range(1, 11))]
)
def test_every_row_on_a_whole_page_comes_back_and_none_that_never_was(
    template: Home, tmp_path: Path, seed: int, count: int
) -> None:
    dice = random.Random(seed)
    whole = Home(tmp_path / "whole")  # the same, with its journal brought in
    shutil.copytree(template.path, whole.path)
    with closing(sqlite3.connect(whole.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data, pages = whole.file.read_bytes(), pages_of(whole.file)
    ids = {row[0] for row in whole.rows("calls")}
    repaired = 0
    for n in range(count):
        home = Home(tmp_path / str(n))
        home.path.mkdir(0o700)
        spoilt_data, bad = damage(data, dice)
        home.file.write_bytes(spoilt_data)
        report = home.repair()
        assert (report["ok"], report["integrity"]) == (True, "ok"), report["problems"]
        for source in report["repair"]["sources"]:
            assert Path(source["kept_as"]).read_bytes()[:PAGE] == spoilt_data[:PAGE] or not spoilt_data
        repaired += bool(report["repair"]["sources"])
        back = {row[0] for row in home.rows("calls")}
        for table in TABLES if report["repair"]["sources"] else ():
            rows = home.rows(table)
            assert {row[0] for row in rows} <= ids & back, table
            assert {row for row in readable(whole, table, bad, pages) if row[0] in back} <= rows, (n, table)
            lost = {row[0] for row in readable(whole, table, bad, pages)} - back
            assert table != "calls" or not lost, (n, len(lost), len(bad), report["repair"])
        shutil.rmtree(home.path)
    assert repaired > count // 3


def set_aside(home: Home, name: str = "ledger.db.corrupt-1700000000") -> Path:
    """Move the ledger aside as a writer that finds it damaged does, journal and all."""
    for suffix in ("-wal", "-shm", ""):
        if (home.path / f"ledger.db{suffix}").exists():
            (home.path / f"ledger.db{suffix}").rename(home.path / f"{name}{suffix}")
    return home.path / name


def test_rows_that_are_in_the_journal_only_come_back_too_even_where_its_header_is_lost(
    template: Home, tmp_path: Path
) -> None:
    for spoilt in (slice(0, 0), slice(0, 32), slice(8, 12)):
        home = Home(tmp_path / str(spoilt.stop))
        home.path.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{template.file}{suffix}", f"{home.file}{suffix}")
        aside = set_aside(home)
        with open(f"{aside}-wal", "r+b") as journal:
            journal.seek(spoilt.start)
            journal.write(bytes(spoilt.stop - spoilt.start))
        assert home.repair()["repair"]["recovered"]["calls"] == 299
        assert len(History(home.file).search("prompt", 0)) == 299
        assert home.rows("attempts") == template.rows("attempts")


def test_what_was_never_committed_does_not_come_back(home: Home) -> None:
    home.fill(1, 40, close=True)
    writer = sqlite3.connect(home.file, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # so that pages reach the journal before the end
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE calls SET cost_nanousd = 666, error = ?", ("x" * 900,))
    journal = Path(f"{home.file}-wal").read_bytes()
    assert b"x" * 900 in journal
    aside = set_aside(home)
    shutil.copy(aside, f"{aside}.copy")
    Path(f"{aside}-wal.copy").write_bytes(journal)
    writer.execute("ROLLBACK")
    writer.close()
    os.rename(f"{aside}.copy", aside)
    os.rename(f"{aside}-wal.copy", f"{aside}-wal")
    assert home.repair()["repair"]["recovered"]["calls"] == 39
    assert not [row for row in home.rows("calls") if 666 in row]


def test_what_is_there_in_a_fuller_state_stays_and_a_second_repair_changes_nothing(home: Home) -> None:
    home.fill(1, 31)
    ended = home.rows("calls")
    set_aside(home)
    began = home.ledger()
    at = NOW - 1e6 + 60 * 7
    same = CallRecord(id=ulid(at, 7 * 7919), started_at=at, command="ask", model="m3", deadline_at=at + 300)
    began.begin_now(same, None)  # a late beginning of a call that the old file holds whole
    at = NOW - 1e6 + 60 * 10
    killed = CallRecord(id=ulid(at, 10 * 7919), started_at=at, command="ask", model="m2", deadline_at=at + 300)
    began.complete_now(replace(killed, state="ok", cost_nanousd=5), (), "it ended here")
    began.close()
    report = home.repair()
    assert report["repair"]["recovered"]["calls"] == 29
    now_there = {row[0]: row for row in home.rows("calls")}
    assert [row for row in ended if now_there[row[0]] != row and row[0] != killed.id] == []
    assert History(home.file, NOW).show(killed.id) | {"prompt": ""} == History(home.file, NOW).show(killed.id) | {
        "prompt": "", "state": "ok", "cost_nanousd": 5, "answer": "it ended here",
    }  # fmt: skip
    assert (report["set_aside"], len(report["salvaged"]), report["orphans"]) == ([], 1, 2)
    before = {table: home.rows(table) for table in TABLES}
    again = home.repair()
    assert (again["repair"]["sources"], again["repair"]["mended"]) == ([], [])
    assert {table: home.rows(table) for table in TABLES} == before


def test_what_was_lost_is_counted(home: Home) -> None:
    home.fill(1, 200)
    pages = pages_of(home.file)
    data = bytearray(home.file.read_bytes())
    victim = sorted(pages["calls"])[3]
    data[(victim - 1) * PAGE : victim * PAGE] = bytes(PAGE)
    home.file.write_bytes(data)
    with pytest.raises(LedgerUnusable) as unreadable:
        History(home.file).list_calls(0)
    assert "--repair" in unreadable.value.hint
    done = home.repair()["repair"]
    assert done["recovered"]["calls"] + done["lost"]["calls"] == 199
    assert done["lost"]["calls"] > 1


def test_sums_of_pruned_time_come_back_with_the_file_that_held_them(home: Home) -> None:
    from llmctl.store.upkeep import prune

    home.fill(1, 200)
    before = home_sums(home)
    deleted = prune(home.file, home.spool, NOW - 1e6 + 60 * 100.5, NOW)["deleted"]
    assert (deleted, home_sums(home)) == (100, before)
    set_aside(home)
    assert home.repair()["ok"]
    assert (home_sums(home), len(home.rows("calls"))) == (before, 99)
    assert home.repair()["repair"]["mended"] == []


def home_sums(home: Home) -> list[Any]:
    with closing(sqlite3.connect(home.file)) as connection:
        return [
            connection.execute(f"SELECT sum(calls), sum(cost_nanousd) FROM {table} WHERE label = ''").fetchall()
            for table in ("rollup_days", "rollup_quarters")
        ]


@pytest.mark.parametrize(
    ("spoil", "problem", "mended"),
    [
        ("DROP TABLE search", None, "full-text"),
        ("DELETE FROM search_data WHERE id > 10", None, "full-text"),
        ("UPDATE rollup_days SET cost_nanousd = cost_nanousd + 1", "sums", "rollups"),
        ("DELETE FROM rollup_quarters WHERE label = ''", "sums", "rollups"),
        ("DROP TABLE tags", "missing", None),
        ("DROP TABLE content", "missing", None),
    ],
)
def test_what_check_complains_of_is_mended(home: Home, spoil: str, problem: str | None, mended: str | None) -> None:
    home.fill(1, 60)
    calls, sums = home.rows("calls"), home_sums(home)
    with closing(sqlite3.connect(home.file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(spoil)
        connection.commit()
    found = check(home.file, home.spool, NOW)
    assert problem is None or problem in found["problems"][0]
    report = home.repair()
    assert (report["ok"], home.rows("calls"), home_sums(home)) == (True, calls, sums)
    assert mended is None or [each for each in report["repair"]["mended"] if mended in each]
    assert len(History(home.file).search("prompt", 0)) == (0 if "content" in spoil else 59)
    assert home.repair()["repair"]["mended"] == []


def test_waiting_rows_are_merged_and_the_mode_is_set(home: Home) -> None:
    home.fill(1, 3)
    holder = sqlite3.connect(home.file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for n in range(70):
        SqliteLedger(home.file, home.spool, wait_s=0).begin_now(
            CallRecord(id=ulid(NOW, n), started_at=NOW, command="ask", model="m"), "late"
        )
    holder.close()
    home.file.chmod(0o644)
    report = home.repair()
    assert (report["ok"], report["spool"]["waiting"], report["mode"], report["counts"]["calls"]) == (
        True,
        0,
        "0600",
        72,
    )
    assert len(report["repair"]["mended"]) == 2


def test_looking_changes_nothing_and_a_repair_deletes_no_file(home: Home) -> None:
    home.fill(1, 30)
    home.file.write_bytes(home.file.read_bytes()[: 3 * PAGE])
    before = home.file.read_bytes()
    assert not check(home.file, home.spool, NOW)["ok"]
    assert (home.file.read_bytes(), list(home.path.glob("*db.*"))) == (before, [])
    kept = Path(home.repair()["repair"]["sources"][0]["kept_as"])
    assert kept.read_bytes() == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_file_that_another_repair_has_brought_back_meanwhile_is_no_failure(home: Home) -> None:
    home.fill(1, 60)
    before = home.rows("calls")
    set_aside(home)
    (home.path / "ledger.db.corrupt-1").symlink_to("gone")  # what was listed, and is no longer there to be read
    assert len(home.repair()["repair"]["sources"]) == 1
    assert home.rows("calls") == before


def test_nothing_to_repair_is_made_of_nothing(home: Home) -> None:
    assert home.repair()["ok"]
    assert not home.path.exists()


def test_a_ledger_of_a_newer_version_is_left_to_it(home: Home) -> None:
    home.path.mkdir(0o700)
    database = Database(home.file, (*STEPS, lambda _: None))
    database.write(lambda _: None)
    database.close()
    with pytest.raises(LedgerUnusable, match="newer"):
        home.repair()


def test_a_writer_that_waits_while_the_file_is_moved_aside_writes_into_the_new_one(home: Home) -> None:
    home.fill(1, 3)
    ledger = home.ledger()
    ledger.begin_now(CallRecord(id=ulid(NOW, 1), started_at=NOW, command="ask", model="m"), None)  # opens the file
    holder = sqlite3.connect(home.file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    waiting = Thread(
        target=lambda: ledger.begin_now(CallRecord(id=ulid(NOW, 2), started_at=NOW, command="ask", model="m"), None)
    )
    waiting.start()
    while not ledger._database._using.locked():
        pass
    os.rename(home.file, home.path / "ledger.db.corrupt-1")
    holder.execute("COMMIT")
    waiting.join()
    holder.close()
    assert {row[0] for row in home.rows("calls")} == {ulid(NOW, 2)}
    ledger.close()


RACE = """
import os, sys
from llmctl.core.errors import LedgerUnusable
from llmctl.store.repair import repair
home, now = sys.argv[1], float(sys.argv[2])
gun, pull = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        try:
            repair(home + "/ledger.db", home + "/spool", now)
        except LedgerUnusable:  # it met a file whose journal was just being moved
            pass
        os._exit(0)
os.close(pull)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)))
"""


def test_repairs_at_once_move_the_damaged_file_aside_and_nothing_else(home: Home, tmp_path: Path) -> None:
    home.fill(1, 60)
    for n in range(4):
        place = Home(tmp_path / str(n))
        shutil.copytree(home.path, place.path)
        with place.file.open("r+b") as file:
            file.seek(PAGE * (min(pages_of(home.file)["calls_model"]) - 1))
            file.write(bytes(range(256)) * 16)
        command = [sys.executable, "-c", RACE, place.path, str(NOW)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("0\n", "")
        assert place.repair()["ok"]
        assert len(list(place.path.glob("ledger.db.*-*[0-9]"))) == 1
        assert len(place.rows("calls")) > 40


def test_a_page_of_zeros_is_no_part_of_a_text(home: Home) -> None:
    home.fill(0, 20)
    texts, pages = home.rows("content"), pages_of(home.file)
    file = set_aside(home)
    data = file.read_bytes()
    for page in pages["content+"]:
        data = data[: (page - 1) * PAGE] + bytes(PAGE) + data[page * PAGE :]
    file.write_bytes(data)
    home.repair()
    assert 0 < len(home.rows("content")) < 20
    assert home.rows("content") <= texts
