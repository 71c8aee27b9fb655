"""How a call becomes rows: what is written of it at its start and its end, and the statements that write it.

Every statement names its columns and only those that the file has, so that a file of a newer version is still written.
All are safe to repeat and to swap: a late `begin` never undoes a `complete`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from llmctl.store.rollup import Rollups
from llmctl.store.schema import ATTEMPTS, CALLS, CONTENT, FORGET, TAGS, columns_of, has_search, stored
from llmctl.store.spool import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmctl.core.record import Attempt, CallRecord
    from llmctl.store.schema import Value

_SET_AT_THE_START = ("id", "started_at", "model")  # set again, an index is written anew
_SOME = 200
_OF_AN_ATTEMPT = tuple(ATTEMPTS)[1:]


def begun(record: CallRecord, prompt: str | None) -> Entry:
    """What is written before the first byte leaves."""
    return Entry(call=_call(record), tags=_tags(record), prompt=stored("prompt", prompt))


def ended(record: CallRecord, attempts: Sequence[Attempt], answer: str | None, prompt: str | None = None) -> Entry:
    """What is written at the end, whatever the end is; `prompt` where nothing was written before it."""
    rows = [{name: stored(name, getattr(attempt, name)) for name in _OF_AN_ATTEMPT} for attempt in attempts]
    texts = {"prompt": stored("prompt", prompt), "answer": stored("answer", answer)}
    return Entry(call=_call(record), tags=_tags(record), attempts=rows, **texts, final=True)


def _call(record: CallRecord) -> dict[str, Value]:
    return {name: None if (value := getattr(record, name)) is None else stored(name, value) for name in CALLS}


def _tags(record: CallRecord) -> dict[str, Value]:
    return {str(stored("key", key)): stored("value", value) for key, value in record.tags.items()}


class Rows:
    """The statements for one connection; `known` when the file's schema is the one of this version."""

    def __init__(self, connection: sqlite3.Connection, *, known: bool, zone: str = "local") -> None:
        """Looks at the file's tables, so it is made inside a transaction. A new ledger gets the days of `zone`."""
        self._connection = connection
        self._has_search = has_search(connection)
        self._rollups = Rollups(connection, zone) if known else None  # a newer llmctl rolls up what it finds

        def there(table: str, ours: Iterable[str]) -> tuple[str, ...]:
            if known:
                return tuple(ours)
            real = columns_of(connection, table)
            return tuple(name for name in ours if name in real)

        self._calls = there("calls", CALLS)
        self._attempts = there("attempts", ATTEMPTS)
        keeps_tags = there("tags", TAGS) == tuple(TAGS)
        content = there("content", (*CONTENT, "indexed"))
        self._keeps_content = len(content) == 4
        insert = _insert("calls", self._calls)
        self._begin = f"{insert} ON CONFLICT (id) DO NOTHING"
        at_the_end = (*self._calls, "rolled") if known else self._calls
        changed = ", ".join(f"{name} = excluded.{name}" for name in at_the_end if name not in _SET_AT_THE_START)
        self._complete = f"{_insert('calls', at_the_end)} ON CONFLICT (id) DO UPDATE SET {changed}"
        self._attempt = _insert("attempts", self._attempts, "OR REPLACE ") if self._attempts else ""
        self._tag = _insert("tags", tuple(TAGS), "OR REPLACE ") if keeps_tags else ""

    def put(self, entry: Entry) -> None:
        """Write `entry`; the transaction is the caller's."""
        values = [entry.call.get(name) for name in self._calls]
        if not entry.final:
            if self._connection.execute(self._begin, values).rowcount == 1:  # else its tags are counted with already
                self._put_tags(entry)
        elif self._rollups is None:
            self._put_end(entry, values)
        else:
            self._rollups.put(entry.id, lambda: self._put_end(entry, [*values, 1]))
            if self._rollups.wait():
                self._catch_up(self._rollups)
        if self._keeps_content and (entry.prompt is not None or entry.answer is not None):
            self._put_content(entry)

    def _put_end(self, entry: Entry, values: Sequence[Value]) -> None:
        self._connection.execute(self._complete, values)
        self._put_tags(entry)
        if entry.attempts and self._attempt:
            rows = [[entry.id, *(row.get(name) for name in self._attempts[1:])] for row in entry.attempts]
            self._connection.executemany(self._attempt, rows)

    def _put_tags(self, entry: Entry) -> None:
        if entry.tags and self._tag:
            self._connection.executemany(self._tag, [(entry.id, key, value) for key, value in entry.tags.items()])

    def _catch_up(self, rollups: Rollups) -> None:
        """Roll up a few rows that others left; should theirs be of no use, this one is written all the same."""
        execute = self._connection.execute
        execute("SAVEPOINT catch_up")
        try:
            rollups.catch_up(_SOME)
        except sqlite3.OperationalError:
            execute("ROLLBACK TO catch_up")
        execute("RELEASE catch_up")

    def _put_content(self, entry: Entry) -> None:
        """Keep the texts. They enter the index once, at the end, so that nothing is indexed before a byte has left."""
        execute = self._connection.execute
        old = execute("SELECT id, prompt, answer, indexed FROM content WHERE call_id = ?", (entry.id,)).fetchone()
        prompt, answer = entry.prompt, entry.answer
        enters = self._has_search and (entry.final or (old is not None and bool(old[3])))
        if old is None:
            insert = "INSERT INTO content (call_id, prompt, answer, indexed) VALUES (?, ?, ?, ?)"
            row = execute(insert, (entry.id, prompt, answer, enters)).lastrowid
        else:
            row, old_prompt, old_answer, indexed = old
            if indexed and not self._has_search:
                return
            if indexed:
                execute(FORGET, (row, old_prompt, old_answer))
            prompt = old_prompt if prompt is None else prompt
            answer = old_answer if answer is None else answer
            change = "UPDATE content SET prompt = ?, answer = ?, indexed = ? WHERE id = ?"
            execute(change, (prompt, answer, enters, row))
        if enters:
            execute("INSERT INTO search (rowid, prompt, answer) VALUES (?, ?, ?)", (row, prompt, answer))


def _insert(table: str, columns: Sequence[str], clause: str = "") -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT {clause}INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names are ours
