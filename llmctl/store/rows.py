"""How a call becomes rows: what is written of it at its start and its end, and the statements that write it.

Every statement names its columns and only those that the file has, so that a file of a newer version is still written.
All are safe to repeat and to swap: a late `begin` never undoes a `complete`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.store.schema import ATTEMPTS, CALLS, TAGS, columns_of, has_search, stored
from llmctl.store.spool import Entry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from llmctl.core.record import Attempt, CallRecord
    from llmctl.store.schema import Value

_SET_AT_THE_START = ("id", "started_at")
_OF_AN_ATTEMPT = tuple(ATTEMPTS)[1:]


def begun(record: CallRecord, prompt: str | None) -> Entry:
    """What is written before the first byte leaves."""
    return Entry(call=_call(record), tags=_tags(record), prompt=stored("prompt", prompt))


def ended(record: CallRecord, attempts: Sequence[Attempt], answer: str | None) -> Entry:
    """What is written at the end, whatever the end is."""
    rows = [{name: stored(name, getattr(attempt, name)) for name in _OF_AN_ATTEMPT} for attempt in attempts]
    return Entry(call=_call(record), tags=_tags(record), attempts=rows, answer=stored("answer", answer), final=True)


def _call(record: CallRecord) -> dict[str, Value]:
    return {name: stored(name, getattr(record, name)) for name in CALLS}


def _tags(record: CallRecord) -> dict[str, Value]:
    return {str(stored("key", key)): stored("value", value) for key, value in record.tags.items()}


class Rows:
    """The statements for one connection; `known` when the file's schema is the one of this version."""

    def __init__(self, connection: sqlite3.Connection, *, known: bool) -> None:
        """Looks at the file's tables, so it is made inside a transaction."""
        self._connection = connection
        self._has_search = has_search(connection)

        def there(table: str, ours: Iterable[str]) -> tuple[str, ...]:
            if known:
                return tuple(ours)
            real = columns_of(connection, table)
            return tuple(name for name in ours if name in real)

        self._calls = there("calls", CALLS)
        self._attempts = there("attempts", ATTEMPTS)
        keeps_tags = there("tags", TAGS) == tuple(TAGS)
        content = there("content", ("call_id", "prompt", "answer", "indexed"))
        self._keeps_content = len(content) == 4
        insert = _insert("calls", self._calls)
        changed = ", ".join(f"{name} = excluded.{name}" for name in self._calls if name not in _SET_AT_THE_START)
        self._begin = f"{insert} ON CONFLICT (id) DO NOTHING"
        self._complete = f"{insert} ON CONFLICT (id) DO UPDATE SET {changed}"
        self._attempt = _insert("attempts", self._attempts, "OR REPLACE ") if self._attempts else ""
        self._tag = _insert("tags", tuple(TAGS), "OR REPLACE ") if keeps_tags else ""

    def put(self, entry: Entry) -> None:
        """Write `entry`; the transaction is the caller's."""
        execute, call = self._connection.execute, entry.call
        execute(self._complete if entry.final else self._begin, [call.get(name) for name in self._calls])
        if entry.tags and self._tag:
            self._connection.executemany(self._tag, [(entry.id, key, value) for key, value in entry.tags.items()])
        if entry.attempts and self._attempt:
            rows = [[entry.id, *(row.get(name) for name in self._attempts[1:])] for row in entry.attempts]
            self._connection.executemany(self._attempt, rows)
        if self._keeps_content and (entry.prompt is not None or entry.answer is not None):
            self._put_content(entry)

    def _put_content(self, entry: Entry) -> None:
        """Keep the texts. They enter the index once, at the end, so that nothing is indexed before a byte has left."""
        execute = self._connection.execute
        old = execute("SELECT id, prompt, answer, indexed FROM content WHERE call_id = ?", (entry.id,)).fetchone()
        prompt, answer = entry.prompt, entry.answer
        if old is None:
            insert = "INSERT INTO content (call_id, prompt, answer) VALUES (?, ?, ?)"
            row = execute(insert, (entry.id, prompt, answer)).lastrowid
        else:
            row, old_prompt, old_answer, indexed = old
            if indexed and not self._has_search:
                return
            if indexed:  # the index keeps no text of its own: it must be told what it forgets
                forget = "INSERT INTO search (search, rowid, prompt, answer) VALUES ('delete', ?, ?, ?)"
                execute(forget, (row, old_prompt, old_answer))
            prompt = old_prompt if prompt is None else prompt
            answer = old_answer if answer is None else answer
            execute("UPDATE content SET prompt = ?, answer = ?, indexed = 0 WHERE id = ?", (prompt, answer, row))
            entry_is_late = bool(indexed)
        if self._has_search and (entry.final or (old is not None and entry_is_late)):
            execute("INSERT INTO search (rowid, prompt, answer) VALUES (?, ?, ?)", (row, prompt, answer))
            execute("UPDATE content SET indexed = 1 WHERE id = ?", (row,))


def _insert(table: str, columns: Sequence[str], clause: str = "") -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT {clause}INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names are ours
