"""What is removed from the ledger: whole calls that are old enough, or only what was said in them; what it cost stays.

Removing is final: freed space is overwritten, the index of words and the journal let go of them. Everything is done in
transactions of a few rows, so that a call never waits long. Only what lies in the ledger is reached: not its copies.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmctl.core import days
from llmctl.core.errors import LedgerUnusable
from llmctl.core.record import ulid
from llmctl.store.checkup import beside
from llmctl.store.cover import ROLLED_FROM, ROLLED_UNTIL, ledger_zone
from llmctl.store.db import Database
from llmctl.store.expiry import OLD_TEXT, OVER_AT, forget_old, forget_texts, forget_turns
from llmctl.store.rollup import Rollups, note_pruned
from llmctl.store.rows import Rows
from llmctl.store.schema import SESSIONS, STEPS, columns_of, has_search
from llmctl.store.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.store.spool import Entry

_AT_ONCE = 200
_MERGE_PAGES = 200
_SMALL = 64 << 20
"""A ledger of so many bytes is written anew in about a second, which gives the room back to the disk."""
_NEIGHBOURS = 100
_PATIENCE_S, _SLICE_S = 5.0, 0.2
_OVER = f"started_at < :before AND (state <> 'started' OR {OVER_AT} < :now)"
_SUMMED = f"(rolled = 1 OR state = 'started' OR NOT (started_at >= {ROLLED_FROM} AND started_at < {ROLLED_UNTIL}))"


def prune(
    path: Path | str,
    spool: Path | str,
    before: float,
    now: float,
    *,
    texts: bool = False,
    dry_run: bool = False,
    small: int = _SMALL,
) -> dict[str, Any]:
    """What was `matched` and `deleted`: calls begun before `before` (running ones never), or only their `texts`.

    What calls cost is kept: they are rolled up first, and one that cannot be stays whole. `bytes_freed` are what the
    disk got back, and what the file will use again; `also_in` names files beside it that may hold the same. A ledger of
    up to `small` bytes is written anew. Raises LedgerUnusable when it cannot be changed.
    """
    path, waiting = os.fspath(path), Spool(os.fspath(spool))
    found: dict[str, Any] = {"matched": 0, "deleted": 0, "bytes_freed": 0, "dry_run": dry_run}
    found["also_in"] = [*beside(path, ".corrupt-"), *beside(path, ".salvaged-")]
    if not os.path.exists(path):
        return found
    database = Database(path, STEPS)
    span = {"before": before, "now": now, "bound": ulid(max(0.0, before), 0), "most": _AT_ONCE}
    what = f"content WHERE {OLD_TEXT}" if texts else f"calls WHERE {_OVER}"
    try:
        database.write(lambda connection: _check(connection, database))
        if not dry_run:
            merge_waiting(database, waiting)
        found["matched"] = database.write(lambda c: _value(c, f"SELECT count(*) FROM {what}", span))  # noqa: S608
        if not dry_run:
            used = database.write(_used)
            while (some := database.write(lambda c: forget_old(c, span) if texts else _delete(c, span))) is not None:
                found["deleted"] += some
            _scrub(database, small)
            found["bytes_freed"] = max(0, used - database.write(_used))
        found["also_in"] += [waiting.directory] * any(waiting.count())
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnusable(f"cannot prune {path}: {error}", hint="`llmctl ledger check` says more") from error
    finally:
        database.close()
    return found


def merge_waiting(database: Database, spool: Spool) -> int:
    """How many rows that waited in the spool are in the ledger now."""
    merged = 0

    def put(entry: Entry) -> None:
        known = database.version == len(STEPS)
        database.write(lambda connection: Rows(connection, known=known).put(entry), checkpoint=False)

    while some := spool.merge(put):
        merged += some
    return merged


def _check(connection: sqlite3.Connection, database: Database) -> None:
    if database.version > len(STEPS):
        raise LedgerUnusable(f"{database.path} is of a newer llmctl", hint="prune it with that one")
    if columns_of(connection, "search") and not has_search(connection):
        hint = "prune it with a Python whose SQLite has FTS5"
        raise LedgerUnusable("this SQLite cannot take words out of the ledger's full-text index", hint=hint)


def _delete(connection: sqlite3.Connection, span: dict[str, Any]) -> int | None:
    """How many calls are gone with all that belongs to them; None when there are no more."""
    rolled = Rollups(connection).catch_up(_AT_ONCE)
    query = f"SELECT id FROM calls WHERE {_OVER} AND {_SUMMED} ORDER BY started_at LIMIT :most"  # noqa: S608
    ids = [row[0] for row in connection.execute(query, span)]
    if not ids:
        return 0 if rolled else None
    zone = ledger_zone(connection) or days.UTC
    last = days.day_of(span["before"], zone)
    begins = days.start_of(last, zone)
    note_pruned(connection, begins if begins == span["before"] else days.start_of(days.shifted(last, 1), zone))
    marks = ", ".join("?" * len(ids))
    forget_texts(connection, f"call_id IN ({marks})", ids)
    forget_turns(connection, f"call_id IN ({marks})", ids)
    for table, key in (("attempts", "call_id"), ("tags", "call_id"), ("calls", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {key} IN ({marks})", ids)  # noqa: S608 - our own names
    return len(ids)


def _scrub(database: Database, small: int) -> None:
    """Let the index, the file and its journal forget what was deleted.

    FTS5 keeps deleted words until all of its segments are merged: sqlite.org/fts5.html, 6.8 and 6.9 (2026-11-20).
    """
    pages = -_MERGE_PAGES
    while database.write(partial(_merge, pages=pages)):
        pages = _MERGE_PAGES
    database.write(_rewrite_neighbours)
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=_PATIENCE_S)) as connection:
        if _used(connection) <= small:
            with suppress(sqlite3.OperationalError):  # a full disk, or somebody who writes for ever
                connection.execute("VACUUM")
        connection.execute(f"PRAGMA busy_timeout = {int(1000 * _SLICE_S)}")
        deadline = monotonic() + _PATIENCE_S
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and monotonic() < deadline:
            pass


def _merge(connection: sqlite3.Connection, pages: int) -> bool:
    """Whether a part of the index was merged and more may be: a change of one row says that there was nothing to do."""
    if not has_search(connection):
        return False
    before = connection.total_changes
    connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
    return connection.total_changes - before > 1


def _rewrite_neighbours(connection: sqlite3.Connection) -> None:
    """Move what may share a page with what was deleted to other pages: its own may still have a copy.

    SQLite overwrites a deleted row and a freed page, but not where a row stood before it moved within its page. In the
    index those are the two rows that it keeps for ever, its totals and its structure, with ids below those of segments.
    """
    tables = [("content", "id, call_id, prompt, answer, indexed", f"1 ORDER BY id LIMIT {_NEIGHBOURS}")]
    if has_search(connection):
        tables.append(("search_data", "id, block", "id < 1 << 37"))
    if columns_of(connection, "turns"):
        tables.append(("turns", "id, session, call_id, at, messages", f"1 ORDER BY id LIMIT {_NEIGHBOURS}"))
        rows = connection.execute(f"SELECT {', '.join(SESSIONS)} FROM sessions").fetchall()  # noqa: S608 - our own words
        connection.execute("DELETE FROM sessions")
        marks = ", ".join("?" * len(SESSIONS))
        connection.executemany(f"INSERT INTO sessions ({', '.join(SESSIONS)}) VALUES ({marks})", rows)  # noqa: S608
    for table, names, which in tables:
        rows = connection.execute(f"SELECT {names} FROM {table} WHERE {which}").fetchall()  # noqa: S608 - our own words
        connection.executemany(f"DELETE FROM {table} WHERE id = ?", [row[:1] for row in rows])  # noqa: S608
        marks = ", ".join("?" * (names.count(",") + 1))
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608


def _used(connection: sqlite3.Connection) -> int:
    """The bytes of the file that hold something."""
    pages, free, size = (_value(connection, f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def _value(connection: sqlite3.Connection, query: str, values: Any = ()) -> int:
    found: int = connection.execute(query, values).fetchone()[0]
    return found
