"""The ledger's calls in the forms of others: JSON lines, one CSV table, a ledger file of the chosen calls.

Rows flow: a million of them need no more memory than a few hundred. Text comes out in short reads, each of one state of
the ledger, newest calls first; a file is one state of it all. Files are private, and there whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from llmctl.store.db import uri
from llmctl.store.files import size
from llmctl.store.history import new_file
from llmctl.store.rollup import catch_up_alone
from llmctl.store.schema import CALLS, STEPS, TABLES, columns_of, has_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.store.history import Filter, History

FORMATS = {"jsonl": (".jsonl", ".ndjson", ".json"), "csv": (".csv",), "sqlite": (".db", ".sqlite", ".sqlite3")}
"""How the names of their files end; any other is of JSON lines."""
_COLUMNS = (*CALLS, "interrupted", "tags")
_PIECE = 1 << 16


def form_of(name: str) -> str:
    """The format that the name of a file ends in, "jsonl" for any other."""
    return next((form for form, ends in FORMATS.items() if name.lower().endswith(ends)), "jsonl")


def lines(history: History, form: str, where: Filter, *, content: bool = False) -> Iterator[str]:
    """The calls as pieces of text, `form` "jsonl" (`ledger list --json`, a call a line) or "csv" (tags as JSON)."""
    out = io.StringIO()
    names = (*_COLUMNS, *(("prompt", "answer") if content else ()))
    table = csv.DictWriter(out, names, extrasaction="ignore")  # its lines end as RFC 4180, section 2, says
    if form == "csv":
        table.writeheader()
    for call in history.stream(where, content=content):
        if form == "csv":
            tags = json.dumps(call["tags"], ensure_ascii=False)
            table.writerow(call | {"tags": tags, "interrupted": int(call["interrupted"])})
        else:
            out.write(json.dumps(call, ensure_ascii=False) + "\n")
        if out.tell() > _PIECE:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def write_text(target: str, pieces: Iterator[str], *, force: bool, source: str) -> int:
    """The bytes of a new 0600 file that holds `pieces`. Raises UsageError for one that is there, unless `force`."""
    with new_file(target, source, force=force) as name, open(name, "w", encoding="utf-8", newline="") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    return size(target)


def write_ledger(history: History, target: str, where: Filter, *, content: bool, force: bool) -> int:
    """The bytes of a new ledger at `target` with the chosen calls, which any SQLite and llmctl can read.

    Raises UsageError for a file that is there, unless `force`.
    """
    with new_file(target, history.path, force=force) as temporary:
        _make(temporary)
        with history.open() as connection:
            if connection is not None:
                _fill(connection, temporary, *where.sql(connection, history.now), content=content)
        _finish(temporary)
    return size(target)


def _make(path: str) -> None:
    with _connected(path) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("BEGIN")
        for step in STEPS:
            step(connection)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")


def _fill(connection: sqlite3.Connection, path: str, condition: str, values: list[Any], *, content: bool) -> None:
    """Copy the chosen calls, as they are at one instant, by statements that need no memory for them."""
    connection.execute("ATTACH ? AS copy", (uri(path, "rw"),))
    connection.execute("PRAGMA copy.journal_mode = OFF")
    connection.execute("BEGIN")
    for table, columns in TABLES.items():
        there = [name for name in columns if name in columns_of(connection, table)]
        if there and (content or table != "content"):
            names = ", ".join(there)
            which, marks = (condition, values) if table == "calls" else ("call_id IN (SELECT id FROM copy.calls)", [])
            copied = f"INSERT INTO copy.{table} ({names}) SELECT {names} FROM main.{table} WHERE {which}"  # noqa: S608
            connection.execute(copied, marks)
    connection.execute("COMMIT")
    connection.execute("DETACH copy")


def _finish(path: str) -> None:
    """Make search and reports of the new ledger as quick as those of the old one, and have it written on the disk."""
    with _connected(path) as connection:
        if has_search(connection):
            connection.execute("INSERT INTO search (search) VALUES ('rebuild')")
            connection.execute("UPDATE content SET indexed = 1")
        catch_up_alone(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()


@contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # what is not whole is thrown away
        yield connection
