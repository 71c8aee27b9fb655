"""The cost report: every number equals what an independent reading of the rows makes of them, to the nano-dollar."""

from __future__ import annotations

import math
import random
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.db import Database
from llmctl.store.report import Question, Reports
from llmctl.store.rows import Rows, begun, ended
from llmctl.store.schema import CALLS, STEPS

if TYPE_CHECKING:
    from pathlib import Path

ZONES = ("Asia/Kathmandu", "America/St_Johns", "Europe/Berlin", "UTC")
# Around the night in which Berlin's clocks go back, a week before those of St John's do.
FIRST = datetime(2026, 10, 20, tzinfo=UTC).timestamp()
LAST = datetime(2026, 11, 4, tzinfo=UTC).timestamp()
NOW = LAST + 3600
STATES = ("ok", "ok", "ok", "failed", "incomplete", "cancelled", "cached", "refused")
SERVED = (("groq", "llama", "fast-1"), ("openai", "gpt-4o", "smart-1"), ("openai", "gpt-4o", "smart-2"))
TIMES = ("day", "week", "month")
BY = (*TIMES, "model", "provider", "group", "deployment", "session", "tag:team", "tag:job")


class Ledger:
    """A ledger of random calls, written in every way a ledger may be written."""

    def __init__(self, path: Path, seed: int, calls: int, *, zone: str = "UTC") -> None:
        self.path = path
        self.dice = random.Random(seed)
        self.zone = zone
        self._database = Database(path, STEPS)
        self._database.write(lambda _: None)
        finals = [self._write_call(n) for n in range(calls)]
        for record, attempts in self.dice.sample(finals, calls // 10):  # merged twice, and changed the second time
            self.complete(record, attempts)
            self.complete(replace(self.ending(record), started_at=record.started_at), attempts[:1])
        for n in range(calls, calls + calls // 5):
            self._write_by_hand(n)
        self._database.close()

    def put(self, entry: Any) -> None:
        self._database.write(lambda connection: Rows(connection, known=True, zone=self.zone).put(entry))

    def complete(self, record: CallRecord, attempts: tuple[Attempt, ...] = ()) -> None:
        self.put(ended(record, attempts, None))

    def call(self, n: int) -> CallRecord:
        dice = self.dice
        at = dice.uniform(FIRST, LAST)
        if dice.random() < 0.3:  # at an edge
            at = at // 900 * 900 + dice.choice((0.0, -1e-6, 1e-6))
        tags = {key: dice.choice(values) for key, values in (("team", "ab"), ("job", ("", "x"))) if dice.random() < 0.7}
        return CallRecord(
            id=ulid(at, n), started_at=at, command="ask", model=dice.choice(("fast", "smart")),
            session=dice.choice((None, "", "s1", "s2")), drill=dice.random() < 0.15, tags=tags,
            deadline_at=dice.choice((None, at + 300.0, NOW + 50.0)),
        )  # fmt: skip

    def ending(self, record: CallRecord) -> CallRecord:
        dice = self.dice
        provider, model, deployment = dice.choice(SERVED)
        served: dict[str, Any] = {"served_by": f"{provider}/{model}", "provider": provider, "deployment": deployment}
        told = dice.random() < 0.8
        return replace(
            record, state=dice.choice(STATES), fallback=dice.random() < 0.2, saved_nanousd=dice.choice((0, 7, 12_345)),
            cost_nanousd=dice.choice((None, 0, dice.randrange(1, 10**12))), tokens_estimated=dice.random() < 0.2,
            latency_ms=dice.choice((None, 0.0, dice.lognormvariate(6, 2))), **(served if dice.random() < 0.8 else {}),
            first_token_ms=dice.choice((None, dice.lognormvariate(4, 1))), input_tokens=12 if told else None,
            output_tokens=dice.randrange(2000) if told else None, cached_input_tokens=dice.choice((None, 3)),
            cache_write_tokens=dice.choice((None, 4)), reasoning_tokens=dice.choice((0, 5)),
        )  # fmt: skip

    def _write_call(self, n: int) -> tuple[CallRecord, tuple[Attempt, ...]]:
        dice = self.dice
        record = self.call(n)
        final = self.ending(record)
        attempts = tuple(
            Attempt(k, "d", "p", "m", dice.choice(("primary", "retry", "check")), dice.choice(("ok", "TimedOut")), 0.0,
                    cost_nanousd=dice.choice((None, dice.randrange(10**9))))
            for k in range(1, dice.randrange(1, 4))
        )  # fmt: skip
        writes = [lambda: self.put(begun(record, None)), lambda: self.complete(final, attempts)]
        how = dice.random()
        for write in writes[:1] if how < 0.1 else writes[::-1] if how < 0.3 else writes:
            write()
        return (final, attempts) if how >= 0.1 else (record, ())

    def _write_by_hand(self, n: int) -> None:
        """As an older llmctl or somebody's SQL does: nothing is rolled up."""
        record = self.ending(self.call(n))
        row = {name: value for name, value in begun(record, None).call.items() if name != "deadline_at"}
        with closing(sqlite3.connect(self.path)) as connection, connection:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO calls ({', '.join(row)}) VALUES ({marks})", list(row.values()))
            tags = [(record.id, key, value) for key, value in record.tags.items()]
            connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", tags)

    def calls(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            calls = [dict(row) for row in connection.execute(f"SELECT {', '.join(CALLS)} FROM calls")]
            for call in calls:
                call["tags"] = dict(connection.execute("SELECT key, value FROM tags WHERE call_id = ?", (call["id"],)))
                sql = "SELECT role, outcome, cost_nanousd FROM attempts WHERE call_id = ?"
                call["attempts"] = connection.execute(sql, (call["id"],)).fetchall()
        return calls


# ---------------------------------------------------------------- the same, read independently


def expected(calls: list[dict[str, Any]], question: Question) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for call in calls:
        kept = (
            (question.since is None or call["started_at"] >= question.since)
            and (question.until is None or call["started_at"] < question.until)
            and (question.model in (None, call["model"], call["served_by"]))
            and (question.session in (None, call["session"]))
            and (question.drills or not call["drill"])
            and all(call["tags"].get(key) == value for key, value in question.tags)
        )
        if kept:
            groups[tuple(key_of(call, name, question.zone) for name in question.by)].append(call)
    return groups


def key_of(call: dict[str, Any], name: str, zone: str) -> str | None:
    day = datetime.fromtimestamp(call["started_at"], ZoneInfo(zone))
    if name.startswith("tag:"):
        found: str | None = call["tags"].get(name[4:])
        return found
    times = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
    columns = {"model": "served_by", "group": "model"}
    return day.strftime(times[name]) if name in times else call[columns.get(name, name)]


def numbers(calls: list[dict[str, Any]], now: float) -> dict[str, Any]:
    def many(condition: Any) -> int:
        return sum(1 for call in calls if condition(call))

    def nano(name: str, condition: Any = lambda call: True) -> int:
        return sum(call[name] or 0 for call in calls if condition(call))

    used = ("ok", "incomplete")
    unpriced = many(
        lambda call: call["cost_nanousd"] is None and (call["input_tokens"] is not None or call["state"] in used)
    )
    known = not unpriced or any(call["cost_nanousd"] is not None for call in calls)
    started = [call for call in calls if call["state"] == "started"]
    running = sum(now <= (call["deadline_at"] or call["started_at"] + 86400) for call in started)
    wasted = sum(
        cost or 0 for call in calls for role, outcome, cost in call["attempts"] if role == "check" or outcome != "ok"
    )
    return {
        "calls": len(calls),
        **{
            name: many(lambda call, name=name: call["state"] == name)
            for name in ("ok", "failed", "incomplete", "cancelled", "refused")
        },
        "cache_hits": many(lambda call: call["state"] == "cached"),
        "running": running,
        "interrupted": len(started) - running,
        "fallbacks": nano("fallback"),
        "unpriced_calls": unpriced,
        "estimated_calls": nano("tokens_estimated"),
        **{name: nano(name) for name in CALLS if name.endswith("_tokens")},
        "cost_nanousd": nano("cost_nanousd") if known else None,
        "cost_usd": nano("cost_nanousd") / 1e9 if known else None,
        "fallback_cost_usd": nano("cost_nanousd", lambda call: call["fallback"]) / 1e9,
        "saved_by_cache_usd": nano("saved_nanousd", lambda call: call["state"] == "cached") / 1e9,
        "saved_by_routing_usd": nano("saved_nanousd", lambda call: call["state"] != "cached") / 1e9,
        "wasted_usd": wasted / 1e9,
    }


def percentiles(calls: list[dict[str, Any]]) -> dict[str, float | None]:
    told: dict[str, float | None] = {}
    for clock, prefix in (("latency_ms", ""), ("first_token_ms", "first_token_")):
        values = sorted(call[clock] for call in calls if call["state"] == "ok" and call[clock] is not None)
        for percent in (50, 95):
            place = max(1, math.ceil(percent * len(values) / 100)) - 1
            told[f"{prefix}p{percent}_ms"] = values[place] if values else None
    return told


def random_question(dice: random.Random) -> Question:
    edge = dice.choice((1.0, 900.0, 86400.0))

    def instant() -> float | None:
        at = dice.uniform(FIRST - 86400, LAST + 86400)
        return None if dice.random() < 0.2 else at // edge * edge

    return Question(
        by=tuple(dice.sample(BY, dice.randrange(4))),
        since=instant(),
        until=instant(),
        zone=dice.choice(ZONES),
        model=dice.choice((None, None, "fast", "openai/gpt-4o", "nobody")),
        session=dice.choice((None, None, None, "", "s1")),
        tags=dice.choice(((), (), (("team", "a"),), (("team", "a"), ("job", "x")), (("team", "a"), ("team", "b")))),
        drills=dice.random() < 0.3,
        exact=dice.random() < 0.3,
    )


def check_report(document: dict[str, Any], calls: list[dict[str, Any]], question: Question) -> None:
    groups = expected(calls, question)
    rows = {tuple(row["key"].values()): row for row in document["rows"]}
    assert set(rows) == set(groups)
    assert len(rows) == len(document["rows"])
    everything = [call for group in groups.values() for call in group]
    for row, group in [(document["total"], everything), *((rows[key], group) for key, group in groups.items())]:
        exact = numbers(group, NOW)
        assert {name: row[name] for name in exact} == exact
        for name, value in percentiles(group).items():
            error = 0.0005 if question.exact else 0.05 * (value or 0) if (value or 0) > 0.01 else 0.01
            assert row[name] == (None if value is None else pytest.approx(value, abs=error)), name
        assert set(row) - {"key"} == {*exact, *percentiles(group)}
    order = [
        (tuple(row["key"][k] for k in question.by if k in TIMES), -(row["cost_nanousd"] or 0)) for row in rows.values()
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.full) for n in range(6, 60))])
def test_every_number_is_what_the_rows_say(tmp_path: Path, seed: int) -> None:
    dice = random.Random(1000 + seed)
    ledger = Ledger(tmp_path / "ledger.db", seed, dice.choice((0, 3, 60, 120)), zone=dice.choice(ZONES))
    calls = ledger.calls()
    reports = Reports(ledger.path)
    for _ in range(60):
        question = random_question(dice)
        check_report(reports.report(question, NOW), calls, question)


def test_two_reports_of_the_days_add_up_to_that_of_the_month(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 77, 60, zone="Europe/Berlin")
    reports = Reports(ledger.path)
    by_day = reports.report(Question(by=("day",), zone="Europe/Berlin"), NOW)
    by_month = reports.report(Question(by=("month",), zone="Europe/Berlin"), NOW)
    assert by_day["total"] == by_month["total"]
    assert sum(row["cost_nanousd"] for row in by_day["rows"]) == by_month["total"]["cost_nanousd"]


def test_the_document_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 5, 20)
    asked = Question(by=("day", "tag:team"), since=FIRST, until=LAST, zone="Asia/Kathmandu")
    document = Reports(ledger.path).report(asked, NOW)
    assert list(document) == ["since", "until", "zone", "currency", "total", "rows"]
    assert (document["since"], document["until"]) == ("2026-10-20T05:45:00+05:45", "2026-11-04T05:45:00+05:45")
    assert document["currency"] == "USD"
    row = document["rows"][0]
    assert list(row["key"]) == ["day", "tag:team"]
    design = (
        "calls ok failed fallbacks cache_hits input_tokens output_tokens cached_input_tokens cost_usd "
        "saved_by_cache_usd saved_by_routing_usd wasted_usd unpriced_calls p50_ms p95_ms first_token_p50_ms"
    )
    assert set(design.split()) <= set(row)
    assert set(row) - {"key"} == set(document["total"])


def test_without_a_range_the_report_says_from_when_it_tells(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 5, 20)
    document = Reports(ledger.path).report(Question(zone="UTC"), NOW)
    first = min(call["started_at"] for call in ledger.calls())
    assert datetime.fromisoformat(document["since"]).timestamp() == pytest.approx(first, abs=1e-3)
    assert datetime.fromisoformat(document["until"]).timestamp() == NOW


def test_a_ledger_that_is_missing_or_empty_is_an_empty_report(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("missing.db", "empty.db"):
        document = Reports(tmp_path / name).report(Question(by=("day",), exact=True), NOW)
        assert document["rows"] == []
        assert (document["since"], document["until"]) == (None, None)
        assert (document["total"]["calls"], document["total"]["cost_usd"], document["total"]["p50_ms"]) == (
            0,
            0.0,
            None,
        )
    assert not (tmp_path / "missing.db").exists()


def test_a_newer_or_damaged_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = Ledger(tmp_path / "ledger.db", 5, 20).path
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    with pytest.raises(LedgerUnusable, match="newer"):
        Reports(path).report(Question(), NOW)
    path.write_bytes(b"not a database, whatever it says" * 200)
    before = path.read_bytes()
    with pytest.raises(LedgerUnusable):
        Reports(path).report(Question(), NOW)
    assert path.read_bytes() == before


@pytest.mark.parametrize("by", ["", "hour", "tag:", "model; DROP TABLE calls", "served_by"])
def test_what_nobody_can_group_by_is_refused_by_name(tmp_path: Path, by: str) -> None:
    with pytest.raises(UsageError, match="nothing to group by"):
        Reports(tmp_path / "ledger.db").report(Question(by=(by,)), NOW)


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_of_an_older_llmctl_is_read_as_it_is(tmp_path: Path, version: int) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 9, 40)
    old = Database(tmp_path / "old.db", STEPS[:version])
    old.write(lambda _: None)
    old.close()
    names = ", ".join(name for name in CALLS if name != "deadline_at")
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
        connection.execute("ATTACH ? AS new", (str(ledger.path),))
        connection.execute(f"INSERT INTO main.calls ({names}) SELECT {names} FROM new.calls")
        for table in ("attempts", "tags"):
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
    before = (tmp_path / "old.db").read_bytes()
    calls = [call | {"deadline_at": None} for call in ledger.calls()]
    for seed in range(20):
        question = random_question(random.Random(seed))
        check_report(Reports(tmp_path / "old.db").report(question, NOW), calls, question)
    assert (tmp_path / "old.db").read_bytes() == before


def test_many_rows_that_were_left_are_rolled_up_by_the_reader_if_it_may_write(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 3, 20)
    with closing(sqlite3.connect(ledger.path)) as connection, connection:
        names = ", ".join(name for name in CALLS if name != "id")
        connection.execute(
            f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2200) INSERT INTO calls (id, {names}) "
            f"SELECT 'x' || i, {names} FROM n, (SELECT * FROM calls WHERE state = 'ok' AND drill = 0 LIMIT 1)"
        )
    question = Question(by=("day", "model"), zone="UTC")
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = Reports(ledger.path).report(question, NOW)
        assert other.execute("SELECT count(*) FROM calls WHERE rolled = 0").fetchone()[0] > 2200
        other.execute("ROLLBACK")
        assert Reports(ledger.path).report(question, NOW) == locked
        assert other.execute("SELECT count(*) FROM calls WHERE rolled = 0 AND state <> 'started'").fetchone()[0] == 0
    check_report(locked, ledger.calls(), question)


def test_sums_beyond_all_numbers_are_no_crash(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 3, 20)
    with closing(sqlite3.connect(ledger.path)) as connection, connection:
        connection.execute(f"UPDATE calls SET rolled = 0, cost_nanousd = {2**63 - 1}, latency_ms = 'slow'")
        connection.execute(f"UPDATE rollup_days SET cost_nanousd = {2**63 - 1}, latency = x'0102'")
        connection.execute(f"UPDATE rollup_quarters SET cost_nanousd = {2**63 - 1}, first_token = 'x'")
    for by in ((), ("day", "tag:team"), ("session",)):
        assert Reports(ledger.path).report(Question(by=by, exact=True), NOW)["total"]["cost_usd"] > 9e9
