"""The ledger's tables: their columns as data, the steps that make them, and how a value becomes fit to be stored.

Columns are only ever added, by a new step at the end of `STEPS`. `calls`, `attempts` and `tags` may be queried by
anyone; `content` holds what people and models said, apart, so that it need not be kept; `search` is an index over it.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

Value = str | int | float | None

CALLS = {
    "id": "TEXT PRIMARY KEY NOT NULL",
    "started_at": "REAL NOT NULL",
    "finished_at": "REAL",
    "state": "TEXT NOT NULL",
    "command": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "served_by": "TEXT",
    "provider": "TEXT",
    "deployment": "TEXT",
    "session": "TEXT",
    "cache": "TEXT NOT NULL",
    "fallback": "INTEGER NOT NULL",
    "attempt_count": "INTEGER NOT NULL",
    "reported_model": "TEXT",
    "system_fingerprint": "TEXT",
    "input_tokens": "INTEGER",
    "output_tokens": "INTEGER",
    "cached_input_tokens": "INTEGER",
    "cache_write_tokens": "INTEGER",
    "reasoning_tokens": "INTEGER",
    "tokens_estimated": "INTEGER NOT NULL",
    "cost_nanousd": "INTEGER",
    "saved_nanousd": "INTEGER NOT NULL",
    "price_version": "TEXT",
    "latency_ms": "REAL",
    "first_token_ms": "REAL",
    "overhead_ms": "REAL",
    "finish_reason": "TEXT",
    "error": "TEXT",
    "exit_code": "INTEGER",
    "drill": "INTEGER NOT NULL",
    "complexity": "REAL",
}
ATTEMPTS = {
    "call_id": "TEXT NOT NULL",
    "n": "INTEGER NOT NULL",
    "deployment": "TEXT NOT NULL",
    "provider": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "role": "TEXT NOT NULL",
    "outcome": "TEXT NOT NULL",
    "status": "INTEGER",
    "started_at": "REAL NOT NULL",
    "first_token_ms": "REAL",
    "latency_ms": "REAL",
    "input_tokens": "INTEGER",
    "output_tokens": "INTEGER",
    "cost_nanousd": "INTEGER",
    "retry_after_s": "REAL",
    "request_id": "TEXT",
    "error": "TEXT",
}
TAGS = {"call_id": "TEXT NOT NULL", "key": "TEXT NOT NULL", "value": "TEXT NOT NULL"}

_SIGNED = frozenset(("complexity", "exit_code"))
_INT64 = 2**63 - 1


def stored(column: str, value: Any) -> Value:
    """`value` as the ledger keeps it: 0/1 for booleans, no NaN or infinity, no negative amount, no lone surrogate."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not isfinite(value):
        return None if column != "started_at" else 0.0
    number: int | float = int(value) if isinstance(value, bool) else value
    if number < 0 and column not in _SIGNED:
        return 0
    return max(-_INT64, min(number, _INT64)) if isinstance(number, int) else number


def _tables(connection: sqlite3.Connection) -> None:
    for table, columns, key in (
        ("calls", CALLS, ""),
        ("attempts", ATTEMPTS, ", PRIMARY KEY (call_id, n)"),
        ("tags", TAGS, ", PRIMARY KEY (call_id, key)"),
    ):
        body = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        connection.execute(f"CREATE TABLE {table} ({body}{key}) WITHOUT ROWID")
    connection.execute("CREATE INDEX calls_started_at ON calls (started_at)")
    connection.execute("CREATE INDEX calls_model ON calls (model, started_at)")
    connection.execute("CREATE INDEX calls_session ON calls (session, started_at) WHERE session IS NOT NULL")
    connection.execute("CREATE INDEX tags_key ON tags (key, value)")
    connection.execute(
        "CREATE TABLE content (id INTEGER PRIMARY KEY, call_id TEXT NOT NULL UNIQUE, prompt TEXT, answer TEXT)"
    )


def _search(connection: sqlite3.Connection) -> None:
    """The full-text index. The writer keeps it: `content.indexed` says what is in it, so that nothing else is missed.

    A Python without FTS5 leaves it out; its rows, and those of killed calls, are found by a scan.
    """
    connection.execute("ALTER TABLE content ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0")
    connection.execute("CREATE INDEX content_unindexed ON content (call_id) WHERE indexed = 0")
    if has_fts5(connection):
        connection.execute(
            "CREATE VIRTUAL TABLE search USING fts5(prompt, answer, content='content', content_rowid='id')"
        )


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tables, _search)


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with full-text search."""
    return connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def has_search(connection: sqlite3.Connection) -> bool:
    """Whether the full-text index is there and can be used."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'search'").fetchone()
    return found is not None and has_fts5(connection)


def columns_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The columns that a table of this file really has; none when there is no such table."""
    return tuple(row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))
