"""What is removed from the ledger is gone from every byte of it; what it cost stays; who runs is left alone."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import LedgerUnusable
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.checkup import check
from llmctl.store.db import Database
from llmctl.store.expiry import expire
from llmctl.store.history import Filter, History
from llmctl.store.ledger import SqliteLedger
from llmctl.store.report import Question, Reports
from llmctl.store.schema import STEPS
from llmctl.store.upkeep import prune

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
DAY = 86400.0


def word(n: int, what: str) -> str:
    """A word that is in one text only, also in its second half: the index keeps words without what they share."""
    dice = random.Random(f"{n} {what}")
    return "".join(dice.choices("bcdfghjklmnpqrstvwxz", k=30))


class Home:
    """A ledger with a call a day before `NOW`: number n began n days ago."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "ledger.db"
        self.spool = path / "spool"

    def ledger(self, **options: Any) -> SqliteLedger:
        return SqliteLedger(self.file, self.spool, now=lambda: NOW, **options)

    def call(self, n: int, **changes: Any) -> CallRecord:
        at = NOW - n * DAY
        record = CallRecord(
            id=ulid(at, n), started_at=at, command="ask", model="fast", tags={"job": f"j{n % 3}"}, deadline_at=at + 300
        )
        return replace(record, **changes)

    def fill(self, count: int, *, length: int = 40) -> None:
        """Calls overlap in threes, so that rows grow after others have come; a few are never ended."""
        ledger, open_calls = self.ledger(), []
        for n in range(count, 0, -1):
            ledger.begin_now(self.call(n), f"{word(n, 'prompt')} {'filler ' * (n % length)}")
            open_calls.append(n)
            if len(open_calls) == 3 or n == 1:
                for each in open_calls:
                    if each % 20:
                        self.end(ledger, each, length)
                open_calls.clear()
        ledger.close()

    def end(self, ledger: SqliteLedger, n: int, length: int = 40) -> None:
        ended = self.call(n, state="ok", cost_nanousd=n, latency_ms=float(n), input_tokens=5, attempt_count=1)
        tries = [Attempt(1, "d", "p", "m", "primary", "ok", NOW)]
        ledger.complete_now(ended, tries, f"{word(n, 'answer')} {'more ' * (n * 7 % length)}")

    def prune(self, days: float, **options: Any) -> dict[str, Any]:
        return prune(self.file, self.spool, NOW - days * DAY, NOW, **options)

    def left(self) -> list[int]:
        return [round((NOW - row["started_at"]) / DAY) for row in History(self.file, NOW).list_calls(0)]

    def found(self, *numbers: int) -> list[str]:
        """Which words of these calls, or halves of them, any file of this home still holds."""
        data = b"".join(each.read_bytes() for each in self.path.rglob("*") if each.is_file())
        words = [word(n, what) for n in numbers for what in ("prompt", "answer")]
        return [each for each in words if each.encode() in data or each[15:].encode() in data]

    def query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(sql).fetchall()

    def cost(self, since: float | None = None) -> Any:
        question = Question(by=("day", "tag:job"), since=since, until=None, zone="local")
        report = Reports(self.file).report(question, NOW)
        names = ("key", "ok", "cost_nanousd", "p50_ms")  # those that were killed cost nothing that anybody knows
        return [{name: row[name] for name in names} for row in report["rows"] if row["ok"]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["pages used again", "written anew"])
@pytest.mark.parametrize("length", [40, 4000], ids=["short", "long"])
@pytest.mark.parametrize("texts", [False, True], ids=["calls", "texts"])
def test_what_is_pruned_is_in_no_byte_of_any_file(home: Home, small: int, length: int, texts: bool) -> None:
    home.fill(200, length=length)
    done = home.prune(90.5, texts=texts, small=small)
    assert (done["matched"], done["deleted"], done["dry_run"]) == (110, 110, False)
    assert done["bytes_freed"] > 0
    assert home.found(*range(91, 201)) == []
    assert len(home.found(*range(1, 91))) == 90 + 86  # every twentieth was killed, and has no answer
    assert home.left() == list(range(1, 201 if texts else 91))
    assert len(History(home.file).search("filler", 0)) > 80
    assert home.query("SELECT count(*) FROM attempts UNION SELECT count(*) FROM tags ORDER BY 1") == (
        [(190,), (200,)] if texts else [(86,), (90,)]
    )
    assert check(home.file, home.spool, NOW)["problems"] == []
    again = home.prune(90.5, texts=texts, small=small)
    assert (again["matched"], again["deleted"], again["bytes_freed"]) == (0, 0, 0)


@pytest.mark.parametrize("seed", [8, 21, *(pytest.param(n, marks=pytest.mark.full) for n in range(100, 130))])
def test_copies_that_were_left_where_rows_moved_within_their_page_are_gone_too(home: Home, seed: int) -> None:
    dice = random.Random(seed)
    ledger, running = home.ledger(), []
    for n in range(160, 0, -1):
        ledger.begin_now(home.call(n), f"{word(n, 'prompt')} {'filler ' * dice.choice((0, 5, 60, 150, 300))}")
        running.append(n)
        while running and (len(running) > dice.randrange(1, 25) or n == 1):
            home.end(ledger, running.pop(dice.randrange(len(running))), dice.choice((3, 40, 500)))
    ledger.close()
    for days in (130.5, 90.5, 60.5, 30.5):
        home.prune(days, small=0)
        assert home.found(*range(int(days) + 1, 161)) == []


def test_the_costs_of_pruned_time_stay_right(home: Home) -> None:
    home.fill(100)
    before = home.cost()
    assert len(before) == 95
    home.prune(39.5)
    assert home.left() == list(range(1, 40))
    assert home.cost() == before
    ledger = home.ledger()
    home.end(ledger, 200)  # a late one, of pruned time
    ledger.close()
    assert sum(row["cost_nanousd"] for row in home.cost()) == sum(row["cost_nanousd"] for row in before) + 200
    assert check(home.file, home.spool, NOW)["ok"]


def test_a_running_call_is_never_pruned_and_an_interrupted_one_is(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(home.call(100, deadline_at=NOW + 1), "still running")
    ledger.begin_now(home.call(101, deadline_at=NOW - 1), "killed")
    ledger.begin_now(home.call(102, deadline_at=None), "killed, by an older llmctl")
    assert home.prune(10, texts=True)["deleted"] == 2
    assert home.prune(10)["deleted"] == 2
    assert home.left() == [100]
    home.end(ledger, 100)
    assert History(home.file).search(word(100, "answer"))[0]["prompt"] == "still running"
    ledger.close()


def test_a_dry_run_counts_and_changes_nothing(home: Home) -> None:
    home.fill(30)
    before = home.file.read_bytes()
    found = home.prune(10.5, dry_run=True)
    assert found == {"matched": 20, "deleted": 0, "bytes_freed": 0, "dry_run": True, "also_in": []}
    assert home.file.read_bytes() == before
    assert Home(home.path / "none").prune(1)["matched"] == 0


def test_what_waits_in_the_spool_is_pruned_too_and_other_copies_are_named(home: Home) -> None:
    home.fill(3)
    with closing(sqlite3.connect(home.file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        late = home.ledger(wait_s=0)
        late.begin_now(home.call(50), word(50, "prompt"))
    assert home.found(50) == [word(50, "prompt")]
    (home.path / "ledger.db.corrupt-1700000000").write_bytes(b"old")
    done = home.prune(10)
    assert (done["deleted"], home.found(50)) == (1, [])
    assert done["also_in"] == [str(home.path / "ledger.db.corrupt-1700000000")]


def test_writers_are_not_held_up_by_a_prune(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill(450)
    ledger = home.ledger(wait_s=0.0)  # one that does not wait at all
    waits: list[float] = []

    write = Database.write

    def between(self: Database, work: Any, **options: Any) -> Any:
        done = write(self, work, **options)
        if not options:
            began = monotonic()
            ledger.begin_now(CallRecord(id=ulid(NOW, len(waits)), started_at=NOW, command="ask", model="m"), None)
            waits.append(monotonic() - began)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", between)
        home.prune(1)
    assert len(waits) > 4
    assert not home.spool.exists()
    ledger.close()


def test_a_reader_that_stays_keeps_the_journal_and_nothing_else(home: Home) -> None:
    home.fill(50)
    with closing(sqlite3.connect(home.file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM calls").fetchone()
        import llmctl.store.upkeep as module

        patience, module._PATIENCE_S = module._PATIENCE_S, 0.1
        try:
            assert home.prune(9.5)["deleted"] == 41
        finally:
            module._PATIENCE_S = patience
    assert home.left() == list(range(1, 10))


def test_a_ledger_that_cannot_be_pruned_says_so(home: Home) -> None:
    home.path.mkdir(0o700)
    database = Database(home.file, (*STEPS, lambda _: None))
    database.write(lambda _: None)
    database.close()
    with pytest.raises(LedgerUnusable, match="newer"):
        home.prune(1)


def test_texts_expire_a_bounded_part_at_a_time_and_cost_nothing_when_there_are_none(home: Home) -> None:
    home.fill(60)
    database = Database(home.file, STEPS)
    assert database.write(lambda connection: expire(connection, NOW - 10.5 * DAY, NOW)) == 20
    assert len(home.query("SELECT 1 FROM content")) == 40
    assert database.write(lambda connection: expire(connection, NOW - 10.5 * DAY, NOW, 100)) == 30
    assert database.write(lambda connection: expire(connection, NOW - 10.5 * DAY, NOW)) == 0
    plan = " ".join(str(row) for row in home.query(
        f"EXPLAIN QUERY PLAN SELECT id FROM content WHERE call_id < '{ulid(NOW, 0)}' ORDER BY call_id LIMIT 20"
    ))  # fmt: skip
    assert "SEARCH content USING" in plan
    database.close()
    assert home.left() == list(range(1, 61))
    assert [row["started_at"] for row in History(home.file).search("filler")][-1] >= NOW - 10.5 * DAY
    assert check(home.file, home.spool, NOW)["ok"]
    assert len(History(home.file, NOW).list_calls(0, Filter(state="interrupted"))) == 3


def test_writers_remove_texts_that_are_older_than_they_are_kept_for_and_never_fail_for_it(home: Home) -> None:
    home.fill(90)
    ledger = home.ledger(retain_s=50.5 * DAY)
    for n in range(3):
        home.end(ledger, 100 + n)
    assert home.query("SELECT count(*) FROM content") == [(50,)]  # the three new ones were old already
    assert len(home.left()) == 93
    assert home.prune(50.5, texts=True)["deleted"] == 0
    assert home.found(*range(51, 103)) == []
    with closing(sqlite3.connect(home.file)) as connection:
        connection.execute("DROP TABLE content")
    ledger.complete_now(home.call(1, state="failed"), (), None)
    assert (ledger.warnings, home.query("SELECT count(*) FROM calls WHERE state = 'failed'")) == ([], [(1,)])
    ledger.close()
