"""Reading what calls sum up to, for one question: pieces of rollups and rows, added up by key.

A question about one label at most is answered from the rollups where they cover it; one about two (tags, the session)
from the rows alone. What the sums mean is `schema`'s, which rows cover a span of time `cover`'s.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from llmctl.core import days
from llmctl.core.sketch import dump, merge
from llmctl.store.cover import PERIODS, Piece, known_zone, labelled, ledger_zone, machine_zone, pieces, total
from llmctl.store.expiry import OVER_AT
from llmctl.store.rollup import CLOCKS, QUARTER, aggregate, teach
from llmctl.store.schema import QUARTER_S, SUMS, columns_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator

    from llmctl.store.report import Question

TIMES: dict[str, Callable[[str], str]] = {"day": str, "week": days.week_of, "month": days.month_of}
COLUMNS = {"model": "served_by", "provider": "provider", "group": "model", "deployment": "deployment"}
_RUNS = f"{OVER_AT} >= :now"
_NOW = {
    "running": f"state = 'started' AND {_RUNS}",
    "interrupted": f"state = 'started' AND NOT {_RUNS}",
}
"""What only rows can tell: calls that have not ended."""
COUNTS = (*SUMS, *_NOW)


@dataclass(slots=True)
class Group:
    """What is told of the calls of one key: sums, a sketch of each clock, and when asked for the clocks themselves."""

    sums: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    sketches: tuple[dict[int, int], ...] = field(default_factory=lambda: tuple({} for _ in CLOCKS))
    values: tuple[array[float], ...] = field(default_factory=lambda: tuple(array("d") for _ in CLOCKS))

    def add(self, sums: Iterable[int], blobs: Iterable[object], sign: int = 1) -> None:
        """Add, or with -1 take away, what some calls sum up to."""
        self.sums = [held + sign * more for held, more in zip(self.sums, sums, strict=True)]
        for sketch, blob in zip(self.sketches, blobs, strict=True):
            merge(sketch, blob, sign)

    def include(self, other: Group) -> None:
        """Add all that another group tells."""
        self.add(other.sums, map(dump, other.sketches))
        for held, more in zip(self.values, other.values, strict=True):
            held.extend(more)


class Reading:
    """One question put to one connection, inside a transaction."""

    def __init__(self, connection: sqlite3.Connection, question: Question, now: float) -> None:
        self._connection = connection
        self._question = question
        self._zone = known_zone(machine_zone() if question.zone == days.LOCAL else question.zone) or question.zone
        self._now = now
        self._since = float("-inf") if question.since is None else question.since
        self._until = float("inf") if question.until is None else question.until
        self._groups: dict[tuple[str | None, ...], Group] = {}
        self._has = frozenset(columns_of(connection, "calls"))
        teach(connection)
        connection.create_function("day_of", 1, cache(partial(days.day_of, zone=self._zone)), deterministic=True)
        connection.create_aggregate("merged", 1, aggregate(dict[int, int], merge, dump))
        connection.create_aggregate("collected", 1, aggregate(lambda: array("d"), _collect, array.tobytes))

    def groups(self) -> dict[tuple[str | None, ...], Group]:
        """What is told of the calls of each key."""
        question, labels = self._question, self._question.labels
        whole = Piece("calls", self._since, self._until)
        if "rolled" not in self._has or len(labels) > 1 or len(question.filters) > 1:
            self._read_calls(whole, "1")
        else:
            zone = ledger_zone(self._connection)
            if zone != self._zone and any(name in TIMES for name in question.by):
                zone = None
            for piece in pieces(self._since, self._until, zone):
                if piece.table == "calls":
                    self._read_calls(piece, "rolled = 1")
                else:
                    self._read_rollup(piece, labels[0] if labels else "")
            self._read_calls(whole, "rolled = 0")
        if question.exact:
            self._collect(whole)
        return {key: group for key, group in self._groups.items() if group.sums[0]}

    def begin(self) -> float | None:
        """From when on it is told: as asked, or since the first call."""
        if self._question.since is not None:
            return self._question.since
        first: float | None = self._connection.execute("SELECT min(started_at) FROM calls").fetchone()[0]
        if "rolled" in self._has:
            oldest = "SELECT min(quarter) FROM rollup_quarters WHERE label = '' AND value = ''"
            quarter: int | None = self._connection.execute(oldest).fetchone()[0]
            if quarter is not None and (first is None or quarter + QUARTER_S <= first):  # its rows were pruned
                return quarter
        return first

    def _key(self, found: Iterable[str | None]) -> tuple[str | None, ...]:
        """The key of a group, from what a query answered for each word of `by`: of any time, the day."""
        pairs = zip(self._question.by, found, strict=True)
        return tuple(TIMES[name](value) if name in TIMES and value else value for name, value in pairs)

    def _add(self, row: tuple[Any, ...], start: int, sign: int = 1) -> None:
        group = self._groups.setdefault(self._key(row[:start]), Group())
        group.add(row[start : -len(CLOCKS)], row[-len(CLOCKS) :], sign)

    def _read_rollup(self, piece: Piece, label: str) -> None:
        """Add what a rollup holds. Calls without the label that is grouped by are all calls without those that have it.

        A call has one value of a label at most, so both are sums of disjoint calls.
        """
        by, filters = self._question.by, self._question.filters
        count = len(by)
        for row in self._rollup_rows(piece, label, filters[0][1] if filters else None):
            self._add(row, count)
            if label and not filters:
                self._add((*self._unlabelled(row[:count]), *row[count:]), count, -1)
        if label and not filters:
            for row in self._rollup_rows(piece, "", None):
                self._add((*self._unlabelled(row[:count]), *row[count:]), count)

    def _unlabelled(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(None if is_label(name) else value for name, value in zip(self._question.by, key, strict=True))

    def _rollup_rows(self, piece: Piece, label: str, value: str | None) -> Iterator[tuple[Any, ...]]:
        when, question = PERIODS[piece.table], self._question
        day = "day" if when == "day" else "day_of(quarter)"

        def column(name: str) -> str:
            if name in TIMES:
                return day
            return "value" if is_label(name) else f"nullif({COLUMNS[name]}, '')"

        sums = [*(total(f"r.{name}") for name in SUMS), *("0" for _ in _NOW), *(f"merged(r.{name})" for name in CLOCKS)]
        where, values = [f"label = ? AND {when} >= ? AND {when} < ?"], [label, piece.since, piece.until]
        if value is not None or not label:
            where.append("value = ?")
            values.append(value or "")
        rest = f"{piece.table} AS r JOIN rollup_keys AS k ON k.id = r.key WHERE {self._chosen(where, values)}"
        return self._select([column(name) for name in question.by], sums, rest, values)

    def _chosen(self, where: list[str], values: list[Any]) -> str:
        """The condition that is `where`, and what is asked of the model and of drills."""
        if self._question.model is not None:
            where.append("? IN (model, served_by)")
            values.append(self._question.model)
        return " AND ".join([*where, *["drill = 0"] * (not self._question.drills)])

    def _read_calls(self, piece: Piece, rolled: str) -> None:
        sums = [total(each) for each in (*SUMS.values(), *_NOW.values())]
        for row in self._call_rows(piece, rolled, [*sums, *(f"sketch({each})" for each in CLOCKS.values())]):
            self._add(row, len(self._question.by))

    def _collect(self, piece: Piece) -> None:
        """Keep every value of the clocks, of calls whose rows are there still."""
        for row in self._call_rows(piece, "1", [f"collected({each})" for each in CLOCKS.values()]):
            group = self._groups.get(self._key(row[: -len(CLOCKS)]))
            for held, blob in zip(group.values if group else (), row[-len(CLOCKS) :], strict=False):
                held.frombytes(blob or b"")

    def _call_rows(self, piece: Piece, rolled: str, sums: list[str]) -> Iterator[tuple[Any, ...]]:
        question, columns = self._question, []
        values: list[Any] = []
        for name in question.by:
            if name.startswith("tag:"):
                columns.append("(SELECT value FROM tags WHERE call_id = calls.id AND key = ?)")
                values.append(name.removeprefix("tag:"))
            else:
                time = f"day_of({QUARTER})" if name in TIMES else "session"
                columns.append(f"nullif({COLUMNS[name]}, '')" if name in COLUMNS else time)
        where, marks = [f"{rolled} AND started_at >= ? AND started_at < ?"], [piece.since, piece.until]
        for name, value in question.filters:
            condition, before = labelled(name)
            where.append(condition)
            marks += [*before, value]
        chosen = self._chosen(where, marks)
        deadline = "deadline_at" if "deadline_at" in self._has else "NULL"
        sums = [each.replace("deadline_at", deadline).replace(":now", repr(float(self._now))) for each in sums]
        return self._select(columns, sums, f"calls WHERE {chosen}", [*values, *marks])

    def _select(self, keys: list[str], sums: list[str], rest: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        group = f" GROUP BY {', '.join(str(n + 1) for n in range(len(keys)))}" if keys else ""
        sql = f"SELECT {', '.join([*keys, *sums])} FROM {rest}{group}"  # noqa: S608 - our own words
        return self._connection.execute(sql, values)


def _collect(values: array[float], value: object) -> None:
    if isinstance(value, int | float):
        values.append(value)


def is_label(name: str) -> bool:
    """Whether a word of `by` is a label of calls, and no column."""
    return name == "session" or name.startswith("tag:")
