"""Answers kept for equal requests (`run.ports.Cache`), in one disposable SQLite file: found, kept, and waited for.

Whatever is wrong with the file is a miss, or is not kept, and is said once: nobody's call fails or waits for it. What
the tables hold is said in `cache_schema`, what is done to their rows in `cache_steps`. Times come from the callers;
only how long another process is waited for is measured here.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.caching import LARGEST, Flight, Vector
from llmctl.core.errors import LedgerUnusable
from llmctl.core.scope import VERSION
from llmctl.store.cache_rows import ADD_VECTOR, COLUMNS, DAY_S, entry_size, row_of, seal_of, vector_row
from llmctl.store.cache_schema import MARK, STEPS
from llmctl.store.cache_steps import find, make_room, standing, take, totals, vectors
from llmctl.store.db import Database
from llmctl.store.patience import damaged, is_busy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llmctl.core.caching import Asked, Entry, Found, Tier
    from llmctl.core.scope import Key

T = TypeVar("T")
_TROUBLE = (sqlite3.Error, OSError, LedgerUnusable, UnicodeDecodeError, OverflowError)
_WAIT_S = 2.0
_BRIEFLY_S = 0.2
"""How long another writer is waited for: to keep something, and to note a hit, which is one even unnoted."""
_ALONE_S = 30.0
"""How long nothing is waited for but briefly, after a wait in vain."""
_LONGEST = 2 * LARGEST
"""The most bytes of a row that SQLite reads: damage, or malice, may claim a gigabyte."""


class SqliteCache:
    """The cache of one file; any thread may use it. `database` is for commands, which hear of its trouble."""

    blocks = True

    def __init__(
        self, path: Path | str, *, max_entries: int = 100_000, max_bytes: int = 512 << 20, wait_s: float = _WAIT_S
    ) -> None:
        """Touches nothing yet. Vectors take at most half of `max_bytes`, entries what those leave.

        Another process that writes is waited for `wait_s`.
        """
        self.database = Database(path, STEPS, disposable=True, secure=True, mark=MARK)
        self.warnings: list[str] = []
        self._max_entries, self._max_bytes, self._wait_s = max_entries, max_bytes, wait_s
        self._said: set[str] = set()
        self._alone_until = 0.0

    def find(self, keys: Sequence[Key], tiers: Sequence[Tier], asked: Asked, now: float, ttl_s: float) -> Found | None:
        """The newest live entry; see the port. A hit counts even where it cannot be noted."""

        def look(connection: sqlite3.Connection) -> tuple[Found | None, int]:
            return find(connection, keys, tiers, now, ttl_s)

        nothing: tuple[Found | None, int] = (None, 0)
        found, spoilt = self._read(look, nothing)
        self._after(found, spoilt, keys, asked, now)
        return found

    def put(self, entry: Entry, now: float) -> bool:
        """Keep `entry`; see the port. It is not kept where room cannot be made by letting go of a few."""
        row = row_of(entry)
        return row is not None and self._write(lambda connection: self._put(connection, entry, row, now), False)

    def claim(
        self,
        flight: bytes,
        keys: Sequence[Key],
        tiers: Sequence[Tier],
        asked: Asked,
        now: float,
        *,
        ttl_s: float,
        lease_s: float,
        since: float,
    ) -> Flight:
        """Take off, or learn who has; see the port. Where nothing can be written, everybody leads."""

        def look(connection: sqlite3.Connection) -> tuple[Flight | None, int]:
            found, spoilt = find(connection, keys, tiers, now, ttl_s)
            if found is not None:
                return Flight(found=found), spoilt
            return standing(connection, flight, now, since), spoilt

        def lead(connection: sqlite3.Connection) -> Flight:
            seen, spoilt = look(connection)
            if spoilt:
                connection.execute("DELETE FROM entries WHERE n = ?", (spoilt,))
            if seen is None:
                take(connection, flight, asked.call_id, now, lease_s)
            elif seen.found is not None:
                self._note(connection, seen.found, keys, asked, now)
            return seen or Flight(leads=True)

        nothing: tuple[Flight | None, int] = (None, 0)
        seen, spoilt = self._read(look, nothing)
        if seen is None or spoilt:
            return self._write(lead, Flight(leads=True))
        self._after(seen.found, 0, keys, asked, now)
        return seen

    def renew(self, flight: bytes, call_id: str, now: float, lease_s: float) -> None:
        """Hold on to a lease."""
        sql = "UPDATE leases SET renewed_at = ?, expires_at = ? WHERE flight = ? AND owner = ?"
        self._write(lambda connection: connection.execute(sql, (now, now + lease_s, flight, call_id)), None)

    def land(self, flight: bytes, call_id: str, now: float, *, gave_up: bool) -> None:
        """Let go of a lease; see the port."""
        sql = "UPDATE leases SET owner = NULL, expires_at = :now, gave_up_at = iif(:gave_up, :now, gave_up_at)"
        sql += " WHERE flight = :flight AND owner = :owner"  # the row stays: those who waited hear of it
        values = {"now": now, "gave_up": gave_up, "flight": flight, "owner": call_id}
        self._write(lambda connection: connection.execute(sql, values), None)

    def vectors(self, keys: Sequence[bytes], now: float) -> dict[bytes, Vector]:
        """The kept vectors of `keys`; see the port."""
        nothing: tuple[dict[bytes, Vector], list[int]] = ({}, [])
        found, stale = self._read(lambda connection: vectors(connection, keys, now - DAY_S, now), nothing)
        if stale:
            sql = "UPDATE vectors SET used_at = ? WHERE n = ?"
            self._write(lambda connection: connection.executemany(sql, [(now, n) for n in stale]), None, _BRIEFLY_S)
        return found

    def put_vectors(self, rows: Mapping[bytes, Vector], model: str, now: float) -> None:
        """Keep vectors; see the port. Those make room that were not used for days; else these are not kept."""
        if rows:
            self._write(lambda connection: self._put_vectors(connection, rows, model, now), None)

    def close(self) -> None:
        """Let the file go, with a checkpoint; a later call opens it again. A short-lived process may leave without."""
        self.database.close()

    def _put(self, connection: sqlite3.Connection, entry: Entry, row: tuple[Any, str, bytes], now: float) -> bool:
        values, prompt, answer = row
        exact, hashes, was = entry.key.exact, sorted(set(entry.documents)), totals(connection)
        size = entry_size(prompt, answer, hashes)
        limits = self._max_entries, self._max_bytes - min(was["vectors"][1], self._max_bytes // 2)
        if size > limits[1] or limits[0] < 1:
            return False
        if connection.execute("SELECT 1 FROM forbidden WHERE asked = ? AND entry = ?", (exact, exact)).fetchone():
            return False
        connection.execute("DELETE FROM entries WHERE exact = ? OR id = ?", (exact, entry.id))
        if not make_room(connection, "entries", (1, size), limits, was["entries"], now):
            return False
        marks = ", ".join("?" * (len(COLUMNS) + 4))
        sql = f"INSERT INTO entries ({', '.join(COLUMNS)}, used_at, hits, bytes, seal) VALUES ({marks})"  # noqa: S608
        n = connection.execute(sql, (*values, now, 0, size, seal_of(*values, prompt, answer))).lastrowid
        connection.execute("INSERT INTO texts (entry, prompt, answer) VALUES (?, ?, ?)", (n, prompt, answer))
        connection.executemany("INSERT INTO documents (hash, entry) VALUES (?, ?)", [(each, n) for each in hashes])
        return True

    def _put_vectors(
        self, connection: sqlite3.Connection, rows: Mapping[bytes, Vector], model: str, now: float
    ) -> None:
        was = totals(connection)["vectors"]
        connection.executemany("DELETE FROM vectors WHERE key = ?", [(key,) for key in rows])
        made = [vector_row(key, vector, model, now) for key, vector in rows.items()]
        more = len(made), sum(row[0] for row in made)
        if make_room(connection, "vectors", more, (sys.maxsize, self._max_bytes // 2), was, now):
            connection.executemany(ADD_VECTOR, made)

    def _after(self, found: Found | None, spoilt: int, keys: Sequence[Key], asked: Asked, now: float) -> None:
        if not asked.call_id:
            return
        if found is not None:
            self._write(lambda connection: self._note(connection, found, keys, asked, now), None, _BRIEFLY_S)
        elif spoilt:
            sql = "DELETE FROM entries WHERE n = ?"
            self._write(lambda connection: connection.execute(sql, (spoilt,)), None, _BRIEFLY_S)

    def _note(
        self, connection: sqlite3.Connection, found: Found, keys: Sequence[Key], asked: Asked, now: float
    ) -> None:
        """Count a hit and leave its audit row."""
        entry = found.entry
        connection.execute("UPDATE entries SET hits = hits + 1, used_at = ? WHERE id = ?", (now, entry.id))
        same = getattr(entry.key, found.tier)
        exact = next(key.exact for key in keys if getattr(key, found.tier) == same)
        prompt = asked.prompt.encode("utf-8", "replace").decode() if asked.prompt and found.tier != "exact" else None
        row = (asked.call_id, entry.id, found.tier, now, now - entry.created_at, exact, entry.key.exact, prompt)
        sql = (
            "INSERT INTO hits (id, entry, tier, at, age_s, asked, answered, prompt, version) VALUES (?,?,?,?,?,?,?,?,?)"
        )
        connection.execute(sql, (*row, VERSION))

    def _read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        if not os.path.lexists(self.database.path):
            return default
        return self._try(lambda until: self.database.read(self._known(work), deadline=until), default, _BRIEFLY_S)

    def _write(self, work: Callable[[sqlite3.Connection], T], default: T, wait_s: float | None = None) -> T:
        wait_s = self._wait_s if wait_s is None else wait_s
        return self._try(lambda until: self.database.write(self._known(work), deadline=until), default, wait_s)

    def _try(self, attempt: Callable[[float], T], default: T, wait_s: float) -> T:
        start = monotonic()
        if start < self._alone_until:
            wait_s = min(wait_s, _BRIEFLY_S)
        try:
            return attempt(start + wait_s)
        except _TROUBLE as error:
            if not is_busy(error):
                self._say(f"the cache {self.database.path} is not used: {error}")
            elif wait_s >= self._wait_s:
                self._alone_until = monotonic() + _ALONE_S
            return default
        finally:
            notes, self.database.notes = self.database.notes, []
            for note in notes:
                self._say(note)

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.warnings.append(what)

    def _known(self, work: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        """`work` on tables that are ours: without them the file is damaged, unless a newer llmctl has others."""

        def run(connection: sqlite3.Connection) -> T:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            try:
                return work(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise
                if self.database.version > len(STEPS):
                    raise LedgerUnusable("it is of a newer llmctl, and nothing here knows its tables") from error
                raise damaged("its tables are not what they were") from error

        return run
