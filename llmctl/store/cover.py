"""Which rows answer for a span of time, and what it cost: whole days and quarters from the rollups, else `calls`.

`pieces` is pure and says it of all that is `rolled`: its pieces are disjoint and cover the span exactly. What is not
rolled (running, interrupted, written by an older llmctl) is read from `calls` besides, over the whole span.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core import days
from llmctl.store.schema import CHARGED, QUARTER_S

if TYPE_CHECKING:
    import sqlite3

ROLLED_FROM, ROLLED_UNTIL = 946_684_800, 7_258_118_400
"""2000 to 2200 (UTC): a call of a clock that is further off is never rolled up."""
PERIODS = {"rollup_days": "day", "rollup_quarters": "quarter"}
"""The rollups, and the column of each that says when."""
_CLOCK = "/etc/localtime"


class Piece(NamedTuple):
    """Rows of one table whose period (`calls`: whose beginning) is from `since` to before `until`."""

    table: str
    since: str | float
    until: str | float


def pieces(since: float, until: float, zone: str | None) -> list[Piece]:
    """What covers the calls begun from `since` to before `until`; with the days of `zone`, None: without days."""
    since, until = max(since, ROLLED_FROM), min(until, ROLLED_UNTIL)
    if not since < until:
        return []
    low, high = -int(-since // QUARTER_S) * QUARTER_S, int(until // QUARTER_S) * QUARTER_S
    if low >= high:
        return [Piece("calls", since, until)]
    cover = [Piece("calls", since, low), Piece("calls", high, until)]
    begin, end, whole = low, low, []
    if zone is not None:
        first, last = days.day_of(low, zone), days.day_of(high, zone)
        if days.start_of(first, zone) < low:
            first = days.shifted(first, 1)
        begin, end = days.start_of(first, zone), days.start_of(last, zone)
        if begin < end:
            whole.append(Piece("rollup_days", first, last))
        else:
            begin = end = low
    cover += [Piece("rollup_quarters", low, begin), *whole, Piece("rollup_quarters", end, high)]
    return [piece for piece in cover if piece.since < piece.until]  # type: ignore[operator]


def total(expression: str) -> str:
    """The SQL for the sum of `expression`: whole up to 2**53, and no error beyond it, as `sum` would raise."""
    return f"CAST(total({expression}) AS INTEGER)"


def machine_zone() -> str:
    """The IANA name of this computer's zone; "UTC" where it has none."""
    name = os.environ.get("TZ", "").removeprefix(":") or _clock()
    return days.UTC if name in ("", "Etc/UTC", "Etc/UCT", "Universal", "Zulu", "UTC0") else name


@cache
def _clock() -> str:
    return os.path.realpath(_CLOCK).partition("zoneinfo/")[2].removeprefix("posix/")


def ledger_zone(connection: sqlite3.Connection) -> str | None:
    """The zone of the days in `rollup_days`, "local" where it is this computer's; None: it cannot be known here."""
    found = connection.execute("SELECT value FROM facts WHERE name = 'zone'").fetchone()
    return None if found is None else known_zone(found[0])


def known_zone(name: str) -> str | None:
    """The zone by the shorter name that `days` is quicker with; None when nobody knows it here."""
    if name == days.UTC:
        return name
    if name == machine_zone():
        return days.LOCAL
    return name if days.is_zone(name) else None


def cost_between(
    connection: sqlite3.Connection,
    since: float,
    until: float,
    *,
    label: str = "",
    value: str = "",
    model: str | None = None,
) -> int:
    """What the calls begun from `since` to before `until` are charged, in nano-dollars (`CHARGED`): drills too.

    `label` "session" or "tag:KEY" with its `value` are those with it, `model` those asked for under this name.
    """
    cost, (has_label, marks) = 0, labelled(label)
    models = [] if model is None else [model]
    for table, low, high in [*pieces(since, until, ledger_zone(connection)), Piece("", since, until)]:
        values: list[Any] = [low, high, *marks, value, *models]
        amount = CHARGED
        if table in PERIODS:
            when, amount = PERIODS[table], "charged_nanousd"
            condition = f"{table} WHERE {when} >= ? AND {when} < ? AND label = ? AND value = ?"
            condition += " AND key IN (SELECT id FROM rollup_keys WHERE model = ?)" * len(models)
            values = [low, high, label, value, *models]
        else:
            rolled = f"rolled = {int(table == 'calls')}"
            condition = f"calls WHERE {rolled} AND started_at >= ? AND started_at < ? AND {has_label}"
            condition += " AND +model = ?" * len(models)
        found = connection.execute(f"SELECT {total(amount)} FROM {condition}", values)  # noqa: S608 - our own words
        cost += found.fetchone()[0]
    return cost


def labelled(label: str) -> tuple[str, list[str]]:
    """The condition for a row of `calls` to have a label with some value (the last mark), and what comes before it.

    The + keeps SQLite from the index by session, or by model: what is not rolled are few rows, found by time.
    """
    if not label:
        return "'' = ?", []
    if label == "session":
        return "+session = ?", []
    key = label.removeprefix("tag:")
    return "EXISTS (SELECT 1 FROM tags WHERE call_id = calls.id AND key = ? AND value = ?)", [key]
