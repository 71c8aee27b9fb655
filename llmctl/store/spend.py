"""What was spent and what running calls may still spend, in one transaction: the rule that makes budgets hold.

A call is charged to the day and month in which it began, whenever it ends; drills are charged too. Before each attempt
it reserves what its attempts have cost and the next one may cost; the reservation goes when the row is complete, in the
same transaction, or after the call's deadline. Nothing here begins or ends a transaction: `ledger` does.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core import days
from llmctl.core.budget import Allowance, Standing, dollars, of_one_call
from llmctl.core.errors import BudgetExceeded, LedgerUnusable
from llmctl.core.money import NANO
from llmctl.store.cover import cost_between
from llmctl.store.schema import CHARGED, STEPS, columns_of, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.core.budget import Budgets
    from llmctl.core.record import CallRecord
    from llmctl.store.spool import Entry

SLACK_S = 60.0
"""How long a reservation outlives its call's deadline: the row may have to wait for the ledger."""
_UNKNOWN_S = 3600.0
SHARES = (0.8, 0.5)
DAILY_USD = 5
RUSH_CALLS, RUSH_S = 200, 60.0
"""Of what is said without any budget: so many dollars in a day, so many calls in so many seconds; once a day each."""
_ASIDE = re.compile(r"\.corrupt-(\d+)(?:-\d+)?$")


class Warned(NamedTuple):
    """What a person must hear, and a key: of one key, once is enough."""

    key: str
    text: str


def standings(
    connection: sqlite3.Connection, budgets: Budgets, at: float, now: float, *, but: str = ""
) -> Iterator[Standing]:
    """How each daily and monthly allowance stands in the periods of `at`; without the reservation of the call `but`."""
    import json  # only under a budget

    reserved = connection.execute(
        "SELECT started_at, nanousd, model, tags FROM reservations WHERE expires_at > ? AND call_id != ?", (now, but)
    ).fetchall()
    live = [(started, amount, model, json.loads(tags)) for started, amount, model, tags in reserved]
    for allowance in budgets.allowances:
        for period, limit in limits(allowance):
            began, ends = days.bounds(period, at, budgets.zone)
            held = sum(
                amount
                for started, amount, model, tags in live
                if began <= started < ends and allowance.holds_for(model, tags)
            )
            yield Standing(allowance, period, limit, spent(connection, allowance, began, ends), held, began, ends)


def limits(allowance: Allowance) -> list[tuple[str, int]]:
    """The periods that an allowance limits, and what may be spent in each."""
    pairs = (("day", allowance.daily), ("month", allowance.monthly))
    return [(period, limit) for period, limit in pairs if limit is not None]


def spent(connection: sqlite3.Connection, allowance: Allowance, began: float, ends: float) -> int:
    """What the calls that are charged to an allowance, begun in such a time, have cost."""
    if allowance.tag is None:
        return cost_between(connection, began, ends, model=allowance.model)
    key, value = allowance.tag
    return cost_between(connection, began, ends, label=f"tag:{key}", value=value)


def reserve(
    connection: sqlite3.Connection, record: CallRecord, budgets: Budgets, nanousd: int, now: float
) -> list[Warned]:
    """Reserve `nanousd` for a call instead of what it had; what is said where an allowance that warns is exceeded.

    Raises BudgetExceeded where one that refuses would be.
    """
    import json

    warned = [Warned(f"call {each.scope}", of_one_call(each, nanousd)) for each in budgets.per_call_exceeded(nanousd)]
    for each in standings(connection, budgets, record.started_at, now, but=record.id):
        if each.holds(nanousd):
            continue
        text = each.exceeded(nanousd, anew(each.ends, budgets.zone))
        if each.allowance.refuses:
            key = "daily" if each.period == "day" else "monthly"
            hint = f"wait, ask for less (--max-tokens, a cheaper model), or raise {key} in {each.allowance.key}"
            raise BudgetExceeded(text, hint=f"{hint}; `llmctl cost budget` shows what is left")
        warned.append(Warned(f"over {each.allowance.scope} {each.period} {each.began}", text))
    connection.execute("DELETE FROM reservations WHERE expires_at <= ?", (now,))
    expires = (now + _UNKNOWN_S if record.deadline_at is None else record.deadline_at) + SLACK_S
    connection.execute(
        "INSERT OR REPLACE INTO reservations (call_id, started_at, expires_at, nanousd, model, tags) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            record.id,
            record.started_at,
            expires,
            stored("nanousd", nanousd),
            stored("model", record.model),
            json.dumps(dict(record.tags)),
        ),
    )
    return warned


def settle(connection: sqlite3.Connection, call_id: str) -> None:
    """Give back what a call had reserved: its row says what it cost."""
    connection.execute("DELETE FROM reservations WHERE call_id = ?", (call_id,))


def anew(instant: float, zone: str) -> str:
    """An instant for a message: "2026-11-21 00:00 (Europe/Berlin)"."""
    from datetime import datetime

    wall = datetime.fromtimestamp(instant, days.zone_info(zone))
    return f"{wall:%Y-%m-%d %H:%M}" + ("" if zone == days.LOCAL else f" {zone}")


# ---------------------------------------------------------------- what is said after a call


def booked(connection: sqlite3.Connection, call_id: str) -> int:
    """What is charged for a call, as its rows stand."""
    row = connection.execute(f"SELECT {CHARGED} FROM calls WHERE id = ?", (call_id,)).fetchone()  # noqa: S608 - ours
    return row[0] if row else 0


class Lookout:
    """Finds what calls reach as they end, inside the transaction that completes the row: so one process alone says it.

    What it has read of a day holds until another connection writes. Drills do not warn.
    """

    def __init__(self, budgets: Budgets) -> None:
        """Without allowances, a dear day and a rush of calls are looked out for."""
        self._budgets = budgets
        self._seen: tuple[sqlite3.Connection, int, str] | None = None
        self._today = 0
        self._rushed = ""

    def crossed(self, connection: sqlite3.Connection, entry: Entry, before: int) -> list[Warned]:
        """What has just been reached by a call whose row is now complete, and cost `before` until then."""
        call, budgets = entry.call, self._budgets
        cost, at = booked(connection, entry.id), float(call.get("started_at") or 0.0)
        if call.get("drill"):
            return []
        if not budgets.allowances:
            day = days.day_of(at, budgets.zone)
            return [*self._dear_day(connection, at, day, cost - before), *self._rush(connection, at, day)]
        found = []
        tags = {key: str(value) for key, value in entry.tags.items()}
        for allowance in budgets.of_call(str(call["model"]), tags).allowances if cost > before else ():
            for period, limit in limits(allowance):
                began, ends = days.bounds(period, at, budgets.zone)
                after = spent(connection, allowance, began, ends)
                share = next((each for each in SHARES if after - cost + before < each * limit <= after), None)
                if share is not None:
                    what = f"{dollars(limit)} a {period} for {allowance.scope}"
                    text = f"{share:.0%} of {what} are spent: {dollars(after)} (begins anew {anew(ends, budgets.zone)})"
                    found.append(Warned(f"{share} {allowance.scope} {period} {began}", text))
        return found

    def _dear_day(self, connection: sqlite3.Connection, at: float, day: str, added: int) -> Iterator[Warned]:
        if added <= 0:
            return
        seen = (connection, connection.execute("PRAGMA data_version").fetchone()[0], day)
        if seen == self._seen:
            self._today += added
        else:
            self._today = cost_between(connection, *days.bounds("day", at, self._budgets.zone))
            self._seen = seen
        if self._today - added < DAILY_USD * NANO <= self._today:
            text = f"{dollars(self._today)} were spent today, and no budget is set"
            yield Warned(f"day {day}", f"{text}: `llmctl cost report` says on what, [budget] daily = ... sets a limit")

    def _rush(self, connection: sqlite3.Connection, at: float, day: str) -> Iterator[Warned]:
        if day <= self._rushed:
            return
        recent = "SELECT 1 FROM calls WHERE started_at > ? AND started_at <= ?"
        span, last = (at - RUSH_S, at), f"LIMIT 1 OFFSET {RUSH_CALLS - 1}"
        if connection.execute(f"{recent} {last}", span).fetchone() is None:
            return
        said = connection.execute("SELECT value FROM facts WHERE name = 'rush'").fetchone()
        if said and said[0] >= day:
            self._rushed = said[0]
        elif connection.execute(f"{recent} AND drill = 0 {last}", span).fetchone() is not None:
            connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES ('rush', ?)", (day,))
            yield Warned(f"rush {day}", f"{RUSH_CALLS} calls within a minute, and no budget is set: a loop, perhaps?")


# ---------------------------------------------------------------- what cannot be known


def check_known(path: str, budgets: Budgets, at: float) -> None:
    """Raise LedgerUnusable where an allowance that refuses depends on what is not known (`unknown`)."""
    refusing = budgets._replace(allowances=tuple(each for each in budgets.allowances if each.refuses))
    if aside := unknown(path, refusing, at):
        raise LedgerUnusable(
            f"a budget refuses, and what was spent is not known: the ledger was damaged, and is kept as {aside}",
            hint="`llmctl ledger check --repair` brings back what can be read of it; or move that file away",
        )


def unknown(path: str, budgets: Budgets, at: float) -> str:
    """The ledger that was moved aside as damaged and may hold what was spent in the periods of `at`; "" for none.

    A repair brings its rows back, and gives it another name.
    """
    watched = {period for each in budgets.allowances for period, _ in limits(each)}
    if not watched:
        return ""
    began = min(days.bounds(period, at, budgets.zone)[0] for period in watched)
    directory, name = os.path.split(path)
    try:
        beside = os.listdir(directory or ".")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise LedgerUnusable(f"{directory} cannot be read: {error}", hint="make it yours to read") from error
    for other in beside:
        aside = _ASIDE.search(other) if other.startswith(name) else None
        if aside is not None and int(aside[1]) >= began:
            return other
    return ""


# ---------------------------------------------------------------- reading

_OLDER = (
    "CREATE TEMP TABLE facts (name, value)",
    "CREATE TEMP TABLE reservations (call_id, started_at, expires_at, nanousd, model, tags)",
    "CREATE TEMP TABLE rollup_keys (id, model)",
    "CREATE TEMP TABLE rollup_quarters (label, value, quarter, key, charged_nanousd)",
    "CREATE TEMP VIEW calls AS SELECT *, 0 AS rolled FROM main.calls",
)
"""What an older file lacks, for one look at it."""


def read(path: str, budgets: Budgets, now: float) -> tuple[list[Standing], str]:
    """How each allowance stands now (without any: what this day and month have cost), and what is `unknown`.

    Opened read-only, so that looking changes nothing. Raises LedgerUnusable when the file cannot be read.
    """
    if not budgets.allowances:
        everything = budgets._replace(allowances=(Allowance(daily=0, monthly=0),))
        found, aside = read(path, everything, now)
        return [each._replace(allowance=Allowance(), limit=None) for each in found], aside
    from llmctl.store.history import opened

    with closing(sqlite3.connect(":memory:")) as empty, opened(path) as ledger:
        if ledger is None:
            for step in STEPS:
                step(empty)
        elif not columns_of(ledger, "reservations"):
            for statement in _OLDER:
                ledger.execute(statement)
        return list(standings(ledger or empty, budgets, now, now)), unknown(path, budgets, now)
