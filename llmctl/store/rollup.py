"""Rollups: what a finished call adds to the sums of its day and quarter of an hour, once, in its own transaction.

`schema.SUMS` says what is added; a call is in the rows of "" and of each of its labels ("session", "tag:KEY"). A row
that is `rolled` is in the sums as it stands; a completion that is repeated changes them by the difference. What others
wrote is caught up with later, in bulk. `Rollups` works inside a transaction of its caller's; reading is in `reading`.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core import days
from llmctl.core.sketch import Sketch, both, bucket, dump, merge, single
from llmctl.store.cover import PERIODS, ROLLED_FROM, ROLLED_UNTIL, known_zone, ledger_zone, machine_zone, total
from llmctl.store.schema import QUARTER_S, ROLLUP_KEYS, SUMS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from llmctl.store.db import Database

T = TypeVar("T")

QUARTER = f"CAST(started_at AS INTEGER) - CAST(started_at AS INTEGER) % {QUARTER_S}"
KEYS = {name: name if name in ("model", "drill") else f"coalesce({name}, '')" for name in ROLLUP_KEYS}
CLOCKS = {name: f"CASE WHEN state = 'ok' THEN {name}_ms END" for name in ("latency", "first_token")}
"""Whose time is told: of answers that came whole, and not from the cache."""
_ROLLABLE = f"started_at >= {ROLLED_FROM} AND started_at < {ROLLED_UNTIL} AND state <> 'started'"
_MEASURE = ", ".join((QUARTER, "session", *KEYS.values(), *SUMS.values(), *CLOCKS.values()))
_ONE = f"SELECT {_MEASURE} FROM calls WHERE id = ? AND {_ROLLABLE}"  # noqa: S608 - our own words
_SOME = f"SELECT id FROM calls WHERE rolled = 0 AND {_ROLLABLE} ORDER BY started_at LIMIT ?"  # noqa: S608
_LABELLED = {
    "'', ''": "calls",
    "'session', session": "calls",
    "'tag:' || key, value": "calls JOIN tags ON tags.call_id = calls.id",
}
_AT_ONCE = 5_000
_MANY = 100
_FIRST_SUM = 4  # after label, value, period and key
_FIRST_CLOCK = _FIRST_SUM + len(SUMS)


def aggregate(start: Callable[[], T], step: Callable[[T, Any], object], end: Callable[[T], bytes]) -> Any:
    """An aggregate for SQLite: what `start` made is given each value by `step`, and is the bytes of `end`."""

    class Aggregate:
        def __init__(self) -> None:
            self._held = start()

        def step(self, value: object) -> None:
            step(self._held, value)

        def finalize(self) -> bytes:
            return end(self._held)

    return Aggregate


def _count(counts: Sketch, value: object) -> None:
    if isinstance(value, int | float):
        index = bucket(value)
        counts[index] = counts.get(index, 0) + 1


def teach(connection: sqlite3.Connection) -> None:
    """Make the functions known to `connection` that the statements here use."""
    connection.create_function("both_sketches", 2, both, deterministic=True)
    connection.create_aggregate("sketch", 1, aggregate(dict[int, int], _count, dump))


class Rollups:
    """The rollups of one connection. `zone` is whose days they get if the ledger has none yet ("local" or a name)."""

    def __init__(self, connection: sqlite3.Connection, zone: str = days.LOCAL) -> None:
        """Writes nothing yet."""
        self._connection = connection
        self._given = zone
        teach(connection)

    def put(self, call_id: str, write: Callable[[], None]) -> None:
        """Let `write` complete the row as `rolled`; the sums follow, by all of it or by the difference to before."""
        execute, zone = self._connection.execute, self._zone()
        was = execute("SELECT rolled FROM calls WHERE id = ?", (call_id,)).fetchone()
        if zone is None:  # somebody else may know it, and catch up
            write()
            execute("UPDATE calls SET rolled = ? WHERE id = ?", (was[0] if was else 0, call_id))
            return
        before = self._measured(call_id) if was is not None and was[0] else []
        write()
        after = self._measured(call_id)
        if before != after:
            self._add(zone, [_negative(row) for row in before] + after)
        if not after:  # begun by a clock that is centuries off
            execute("UPDATE calls SET rolled = 0 WHERE id = ?", (call_id,))

    def wait(self) -> bool:
        """Whether finished rows wait to be rolled up."""
        return self._connection.execute(_SOME, (1,)).fetchone() is not None

    def catch_up(self, most: int) -> int:
        """How many finished rows were rolled up that were not: the oldest ones, at most so many."""
        execute = self._connection.execute
        zone = self._zone()
        if zone is None or not self.wait():
            return 0
        rows: list[tuple[Any, ...]] = []
        keys: dict[tuple[Any, ...], int] = {}
        for label, source in _LABELLED.items():
            sums = ", ".join((*map(total, SUMS.values()), *(f"sketch({clock})" for clock in CLOCKS.values())))
            sql = (
                f"SELECT {label}, {QUARTER}, {', '.join(KEYS.values())}, {sums} FROM {source} "  # noqa: S608
                f"WHERE id IN ({_SOME}) {'AND session IS NOT NULL' if 'session' in label else ''} "
                f"GROUP BY 1, 2, 3, {', '.join(str(4 + n) for n in range(len(KEYS)))}"
            )
            end = 3 + len(KEYS)
            for row in execute(sql, (most,)):
                if row[3:end] not in keys:
                    keys[row[3:end]] = self._key(row[3:end])
                rows.append((*row[:3], keys[row[3:end]], *row[end:]))
        self._add(zone, rows)
        return execute(f"UPDATE calls SET rolled = 1 WHERE id IN ({_SOME})", (most,)).rowcount  # noqa: S608

    def forget(self) -> None:
        """Take every sum away that can be made anew, so that all calls wait to be caught up with."""
        execute = self._connection.execute
        since, zone = pruned_before(self._connection), self._zone()
        execute("DELETE FROM rollup_quarters WHERE quarter >= ?", (since,))
        if not since:
            execute("DELETE FROM rollup_days")
        elif zone is not None:
            execute("DELETE FROM rollup_days WHERE day >= ?", (days.day_of(since, zone),))
        execute("UPDATE calls SET rolled = 0 WHERE rolled <> 0 AND started_at >= ?", (since,))

    def _zone(self) -> str | None:
        """The zone of the ledger's days, settled with the first call; None when it cannot be known here."""
        zone = ledger_zone(self._connection)
        if zone is not None or self._connection.execute("SELECT 1 FROM facts WHERE name = 'zone'").fetchone():
            return zone
        name = machine_zone() if self._given == days.LOCAL else self._given
        if not days.is_zone(name):
            name = days.UTC
        self._connection.execute("INSERT INTO facts (name, value) VALUES ('zone', ?)", (name,))
        return known_zone(name)

    def _measured(self, call_id: str) -> list[tuple[Any, ...]]:
        """What a call adds, a row for each label; nothing when it has not ended."""
        execute = self._connection.execute
        found = execute(_ONE, (call_id,)).fetchone()
        if found is None:
            return []
        quarter, session, *rest = found
        labels: list[tuple[str, Any]] = [("", "")] if session is None else [("", ""), ("session", session)]
        labels += execute("SELECT 'tag:' || key, value FROM tags WHERE call_id = ?", (call_id,)).fetchall()
        key = self._key(rest[: len(KEYS)])
        clocks = [single(ms) if isinstance(ms, int | float) else b"" for ms in rest[-len(CLOCKS) :]]
        return [(*label, quarter, key, *rest[len(KEYS) : -len(CLOCKS)], *clocks) for label in labels]

    def _key(self, values: Sequence[Any]) -> int:
        execute = self._connection.execute
        found = execute(_FIND_KEY, values).fetchone()
        return found[0] if found else execute(_NEW_KEY, values).lastrowid  # type: ignore[return-value]

    def _add(self, zone: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of (label, value, quarter, key, sums, sketches) to both rollups."""
        rows = list(rows)
        self._connection.executemany(_ADD["rollup_quarters"], rows)
        daily = [(*row[:2], days.day_of(row[2], zone), *row[3:]) for row in rows]
        self._connection.executemany(_ADD["rollup_days"], _summed(daily) if len(daily) > _MANY else daily)


def _summed(rows: Iterable[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
    """The rows with those of one label, value, day and key added up."""
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        key, ours = row[:_FIRST_SUM], row[_FIRST_SUM:_FIRST_CLOCK]
        held = sums.get(key)
        if held is None:
            held = sums[key] = [list(ours), *({} for _ in CLOCKS)]
        else:
            held[0] = [one + other for one, other in zip(held[0], ours, strict=True)]
        for counts, blob in zip(held[1:], row[_FIRST_CLOCK:], strict=True):
            merge(counts, blob)
    return ((*key, *held[0], *map(dump, held[1:])) for key, held in sums.items())


def _negative(row: tuple[Any, ...]) -> tuple[Any, ...]:
    clocks = []
    for blob in row[_FIRST_CLOCK:]:
        counts: dict[int, int] = {}
        merge(counts, blob, -1)
        clocks.append(dump(counts))
    return (*row[:_FIRST_SUM], *(-amount for amount in row[_FIRST_SUM:_FIRST_CLOCK]), *clocks)


def catch_up(database: Database) -> int:
    """How many calls were rolled up that were not, in transactions short enough for others to write between."""
    done = 0
    while some := database.write(lambda connection: Rollups(connection).catch_up(_AT_ONCE)):
        done += some
    return done


def catch_up_alone(connection: sqlite3.Connection, *, until: float = inf) -> None:
    """The same over a connection of one's own, beginning nothing after `until` (monotonic). Raises sqlite3.Error."""
    rollups, done = Rollups(connection), 1
    while done and monotonic() < until:
        connection.execute("BEGIN IMMEDIATE")
        done = rollups.catch_up(_AT_ONCE)
        connection.execute("COMMIT")


def rebuild(database: Database) -> int:
    """How many calls were rolled up anew: all whose time was never pruned. Killed half-way, the rest is for later."""
    database.write(lambda connection: Rollups(connection).forget())
    return catch_up(database)


def pruned_before(connection: sqlite3.Connection) -> int:
    """From when on no call was ever pruned, where a day of the ledger begins; 0: none was. Older sums stay for good."""
    found = connection.execute("SELECT value FROM facts WHERE name = 'pruned_before'").fetchone()
    return int(found[0]) if found else 0


def note_pruned(connection: sqlite3.Connection, instant: int) -> None:
    """Note that calls begun before `instant`, where a day begins, need not be there: rollups alone know of them."""
    if instant > pruned_before(connection):
        noted = "INSERT OR REPLACE INTO facts (name, value) VALUES ('pruned_before', ?)"
        connection.execute(noted, (str(instant),))


def _adding(table: str) -> str:
    names = ("label", "value", PERIODS[table], "key", *SUMS, *CLOCKS)
    sums = [f"{name} = {name} + excluded.{name}" for name in SUMS]
    sums += [f"{name} = both_sketches({name}, excluded.{name})" for name in CLOCKS]
    return (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - our names
        f"ON CONFLICT (label, value, {PERIODS[table]}, key) DO UPDATE SET {', '.join(sums)}"
    )


_ADD = {table: _adding(table) for table in PERIODS}
_FIND_KEY = f"SELECT id FROM rollup_keys WHERE {' AND '.join(f'{name} = ?' for name in ROLLUP_KEYS)}"  # noqa: S608
_NEW_KEY = f"INSERT INTO rollup_keys ({', '.join(ROLLUP_KEYS)}) VALUES ({', '.join('?' * len(ROLLUP_KEYS))})"  # noqa: S608
