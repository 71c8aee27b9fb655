"""Making a ledger whole again: what can be read of damaged files goes into the one in use, which is mended as it lies.

A damaged ledger is moved aside first, as any writer would do, so that calls go on meanwhile; its rows come back in
short transactions, and may come back again: whatever is there already in a fuller state stays. No file is deleted: one
whose rows are back is kept as `ledger.db.salvaged-...`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import LedgerUnusable
from llmctl.store.checkup import beside, check, rollups_differ
from llmctl.store.cover import PERIODS
from llmctl.store.db import SIDE_FILES, Database
from llmctl.store.files import free_name, identity
from llmctl.store.history import open_to_read
from llmctl.store.patience import damaged, is_corrupt
from llmctl.store.recover import Finds
from llmctl.store.rollup import CLOCKS, catch_up, note_pruned, rebuild
from llmctl.store.schema import (
    CALLS,
    ROLLUP_KEYS,
    SESSION_VERSION,
    SESSIONS,
    STEPS,
    SUMS,
    TABLES,
    TURNS,
    has_fts5,
    has_search,
    make_search,
)
from llmctl.store.spool import Spool
from llmctl.store.upkeep import merge_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmctl.store.recover import Row

_AT_ONCE = 200
_COLUMNS = {**TABLES, "sessions": SESSIONS, "turns": TURNS}
_FULLER = {
    "calls": f"(id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CALLS)} "
    "WHERE calls.state = 'started' AND excluded.state <> 'started'",
    "attempts": "DO NOTHING",
    "tags": "DO NOTHING",
    "content": "(call_id) DO UPDATE SET prompt = coalesce(content.prompt, excluded.prompt), "
    "answer = excluded.answer WHERE content.indexed = 0 AND content.answer IS NULL AND excluded.answer IS NOT NULL",
    "sessions": "DO NOTHING",
    "turns": "DO NOTHING",
}
"""What becomes of a row that is there already, by table."""


def repair(path: Path | str, spool: Path | str, now: float) -> dict[str, Any]:
    """What `check` finds afterwards, with what was done under `repair`. Raises LedgerUnusable when nothing can be."""
    path = os.fspath(path)
    found = identity(path)
    before = check(path, spool, now)
    newer = before["schema"] is not None and before["schema"] > len(STEPS)
    if newer:
        raise LedgerUnusable(f"{path} is of a newer llmctl", hint="repair it with that one")
    database = Database(path, STEPS)
    done: dict[str, Any] = {"sources": [], "recovered": {}, "lost": {"calls": 0, "cells": 0}, "mended": []}
    try:
        if before["damaged"]:
            _move_aside(database, found)
        for source in beside(path, ".corrupt-"):
            with suppress(FileNotFoundError):  # another repair has brought its rows back meanwhile
                _bring_back(database, source, done)
        if before["exists"] or done["sources"] or before["spool"]["waiting"]:
            _mend(database, Spool(os.fspath(spool)), before, done)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnusable(f"cannot repair {path}: {error}", hint="free the disk, or end what holds it") from error
    finally:
        database.close()
    return check(path, spool, now) | {"repair": done}


def _move_aside(database: Database, found: tuple[int, int] | None) -> None:
    """Have the file that was `found` moved aside under its lock, as when a writer had noticed the damage itself."""

    def notice(_: sqlite3.Connection) -> None:
        if identity(database.path) == found:
            raise damaged("found by a check")

    database.write(notice)


def _bring_back(database: Database, source: str, done: dict[str, Any]) -> None:
    """Write the rows of one damaged file, and keep it under another name."""
    database.write(lambda _: None)  # there is one to write to
    with closing(Finds(source)) as finds, closing(open_to_read(database.path)) as reader:
        ids = {row["id"] for row in finds.calls()}

        def known(call_id: str) -> bool:
            return call_id in ids or bool(reader.execute("SELECT 1 FROM calls WHERE id = ?", (call_id,)).fetchone())

        # Calls come last: whoever rolls them up meanwhile needs their attempts and tags.
        details = ("attempts", "tags", "content")
        counts = {table: _put(database, table, finds.details(table, known)) for table in details}
        done["lost"]["cells"] += finds.bad
        counts["calls"] = _put(database, "calls", finds.calls())
        counts |= {table: _put(database, table, finds.talk(table)) for table in ("sessions", "turns")}
        database.write(_name_sessions)
        _put_sums(database, finds)
        done["lost"]["calls"] += sum(not known(each) for each in finds.named)
    for table, count in counts.items():
        done["recovered"][table] = done["recovered"].get(table, 0) + count
    kept = free_name(source.replace(".corrupt-", ".salvaged-"))
    for suffix in (*SIDE_FILES, ""):
        with suppress(FileNotFoundError):
            os.rename(source + suffix, kept + suffix)
    done["sources"].append({"path": source, "kept_as": kept})


def _put(database: Database, table: str, rows: Iterator[Row]) -> int:
    """How many rows were new, or fuller than what is there."""
    columns = (*_COLUMNS[table], *["rolled"] * (table == "calls"))
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT {_FULLER[table]}"  # noqa: S608
    written = 0
    while some := [list(row.values()) for row in islice(rows, _AT_ONCE)]:
        written += database.write(partial(_execute, statement=insert, rows=some))
    return written


def _execute(connection: sqlite3.Connection, statement: str, rows: list[Any]) -> int:
    return connection.executemany(statement, rows).rowcount


def _name_sessions(connection: sqlite3.Connection) -> None:
    """Give turns whose session was lost one again: its model and its system prompt are not known any more."""
    connection.execute(
        "INSERT INTO sessions (name, created_at, updated_at, version) SELECT session, min(at), max(at), ? FROM turns "
        "WHERE session NOT IN (SELECT name FROM sessions) GROUP BY session",
        (SESSION_VERSION,),
    )
    connection.execute("DELETE FROM sessions WHERE name NOT IN (SELECT session FROM turns)")


def _put_sums(database: Database, finds: Finds) -> None:
    """Bring back the sums of time whose calls were pruned, and since when all calls are there."""
    if not finds.pruned_before:
        return
    marks = ", ".join("?" * len(ROLLUP_KEYS))
    new_key = f"INSERT OR IGNORE INTO rollup_keys ({', '.join(ROLLUP_KEYS)}) VALUES ({marks})"  # noqa: S608
    key = f"(SELECT id FROM rollup_keys WHERE ({', '.join(ROLLUP_KEYS)}) = ({marks}))"  # noqa: S608
    for table, period in PERIODS.items():
        names = ("label", "value", period, "key", *SUMS, *CLOCKS)
        insert = (
            f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) "  # noqa: S608
            f"VALUES (?, ?, ?, {key}, {', '.join('?' * (len(names) - 4))})"
        )
        rows = finds.sums(table)
        while some := list(islice(rows, _AT_ONCE)):
            whole = [[*rest[:3], *key, *rest[3:]] for key, rest in some]
            database.write(partial(_execute, statement=new_key, rows=[key for key, _ in some]))
            database.write(partial(_execute, statement=insert, rows=whole))
    database.write(lambda connection: note_pruned(connection, finds.pruned_before))


def _mend(database: Database, spool: Spool, before: dict[str, Any], done: dict[str, Any]) -> None:
    """The spool brought in, the search index and the rollups made to agree with the rows, the file's mode set."""
    mended: list[str] = done["mended"]
    if merged := merge_waiting(database, spool):
        mended.append(f"{merged} waiting rows were merged")
    if before["mode"] not in (None, "0600"):
        database.write(lambda _: None)
        mended.append("its mode is 0600")
    if database.write(_make_searchable):
        mended.append("the full-text index was made anew")
    index_texts(database)
    if database.write(rollups_differ):
        rebuild(database)
        mended.append("the rollups were made anew")
    catch_up(database)


def _make_searchable(connection: sqlite3.Connection) -> bool:
    """Whether the full-text index was missing or damaged, and is new."""
    if not has_fts5(connection):
        return False
    if not has_search(connection):
        make_search(connection)
    else:
        try:
            connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
        else:
            return False
    connection.execute("INSERT INTO search (search) VALUES ('rebuild')")
    connection.execute("UPDATE content SET indexed = 1 WHERE indexed = 0")
    return True


def index_texts(database: Database) -> None:
    """Let search find the texts of all calls that have ended, a bounded part at a time."""
    after: str | None = ""
    while after is not None:
        after = database.write(partial(_index_some, after=after))


def _index_some(connection: sqlite3.Connection, after: str) -> str | None:
    """The call up to which texts were looked at; None when there are no more."""
    if not has_search(connection):
        return None
    rows = connection.execute(
        "SELECT content.id, call_id, prompt, answer, state <> 'started' FROM content JOIN calls ON calls.id = call_id "
        "WHERE indexed = 0 AND call_id > ? ORDER BY call_id LIMIT ?",
        (after, _AT_ONCE),
    ).fetchall()
    ended = [row for row in rows if row[4]]
    texts = [(row[0], row[2], row[3]) for row in ended]
    connection.executemany("INSERT INTO search (rowid, prompt, answer) VALUES (?, ?, ?)", texts)
    connection.executemany("UPDATE content SET indexed = 1 WHERE id = ?", [(row[0],) for row in ended])
    return rows[-1][1] if rows else None
