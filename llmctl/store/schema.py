"""The ledger's tables: their columns as data, the steps that make them, and how a value becomes fit to be stored.

Columns are only ever added, by a new step at the end of `STEPS`. `calls`, `attempts` and `tags` may be queried by
anyone; `content` holds what people and models said, apart, so that it need not be kept; `search` is an index over it.
Rollups are sums of what `calls` hold, and can be made anew from them; `reservations` are what running calls may cost;
`sessions` and their `turns` are conversations that go on.
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
    "deadline_at": "REAL",
}
_LATER = ("deadline_at",)  # columns that came with a later step
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
CONTENT = {"call_id": "TEXT NOT NULL", "prompt": "TEXT", "answer": "TEXT"}
SESSIONS = {
    "name": "TEXT PRIMARY KEY NOT NULL",
    "created_at": "REAL NOT NULL",
    "updated_at": "REAL NOT NULL",
    "model": "TEXT",
    "system": "TEXT",
    "options": "TEXT",
    "version": "INTEGER NOT NULL",
}
TURNS = {"session": "TEXT NOT NULL", "call_id": "TEXT NOT NULL", "at": "REAL NOT NULL", "messages": "TEXT NOT NULL"}
SESSION_VERSION = 1
"""What the messages and options of a session look like."""
TABLES = {"calls": CALLS, "attempts": ATTEMPTS, "tags": TAGS, "content": CONTENT}
STATES = ("started", "ok", "failed", "incomplete", "cancelled", "cached", "refused")

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
        body = ", ".join(f"{name} {kind}" for name, kind in columns.items() if name not in _LATER)
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
        make_search(connection)


def make_search(connection: sqlite3.Connection) -> None:
    """Make the full-text index, with nothing in it."""
    connection.execute("CREATE VIRTUAL TABLE search USING fts5(prompt, answer, content='content', content_rowid='id')")


_ATTEMPTED = "(SELECT CAST(total(cost_nanousd) AS INTEGER) FROM attempts WHERE call_id = calls.id{})"
_WASTED = _ATTEMPTED.format(" AND (outcome <> 'ok' OR role = 'check')")
CHARGED = f"coalesce(cost_nanousd, {_ATTEMPTED.format('')})"
"""What a budget counts of a call: of one whose cost is unknown, what those of its attempts cost that have a price."""
SUMS = {
    "calls": "1",
    **{state: f"state = '{state}'" for state in STATES[1:]},
    "fallbacks": "fallback = 1",
    "priced_calls": "cost_nanousd IS NOT NULL",
    "unpriced_calls": "cost_nanousd IS NULL AND (input_tokens IS NOT NULL OR state IN ('ok', 'incomplete'))",
    "estimated_calls": "tokens_estimated = 1",
    "input_tokens": "coalesce(input_tokens, 0)",
    "output_tokens": "coalesce(output_tokens, 0)",
    "cached_input_tokens": "coalesce(cached_input_tokens, 0)",
    "cache_write_tokens": "coalesce(cache_write_tokens, 0)",
    "reasoning_tokens": "coalesce(reasoning_tokens, 0)",
    "cost_nanousd": "coalesce(cost_nanousd, 0)",
    "fallback_cost_nanousd": "CASE WHEN fallback = 1 THEN coalesce(cost_nanousd, 0) ELSE 0 END",
    "saved_by_cache_nanousd": "CASE WHEN state = 'cached' THEN saved_nanousd ELSE 0 END",
    "saved_by_routing_nanousd": "CASE WHEN state = 'cached' THEN 0 ELSE saved_nanousd END",
    "wasted_nanousd": _WASTED,
    "charged_nanousd": CHARGED,
}
"""What a rollup adds up, and what one row of `calls` adds to it: the one place that says it."""
ROLLUP_KEYS = ("model", "served_by", "provider", "deployment", "drill")
"""What a rollup is by, with the columns of `calls`; "" stands for NULL."""
QUARTER_S = 900
"""A quarter of an hour: every zone's days begin at the beginning of one."""


def _rollups(connection: sqlite3.Connection) -> None:
    """Sums by day and by quarter of an hour, written with the row that they add up (`rolled` 1).

    A label is "" for all calls, else "session" or "tag:KEY", with its value: a call is in one row for each of its own.
    Days are those of the zone in `facts`, quarters their first Unix second. `latency` and `first_token` are sketches.
    What is not `rolled` (running, interrupted, written by an older llmctl) is read from `calls`.
    """
    connection.execute("ALTER TABLE calls ADD COLUMN deadline_at REAL")
    connection.execute("ALTER TABLE calls ADD COLUMN rolled INTEGER NOT NULL DEFAULT 0")
    connection.execute("CREATE INDEX calls_not_rolled ON calls (started_at) WHERE rolled = 0")
    connection.execute("CREATE INDEX calls_to_roll ON calls (started_at) WHERE rolled = 0 AND state <> 'started'")
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID")
    keys = ", ".join(f"{name} {'INTEGER' if name == 'drill' else 'TEXT'} NOT NULL" for name in ROLLUP_KEYS)
    connection.execute(f"CREATE TABLE rollup_keys (id INTEGER PRIMARY KEY, {keys}, UNIQUE ({', '.join(ROLLUP_KEYS)}))")
    sums = ", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)
    for table, period in (("rollup_days", "day TEXT"), ("rollup_quarters", "quarter INTEGER")):
        name = period.split()[0]
        connection.execute(
            f"CREATE TABLE {table} (label TEXT NOT NULL, value TEXT NOT NULL, {period} NOT NULL, key INTEGER NOT NULL, "
            f"{sums}, latency BLOB NOT NULL, first_token BLOB NOT NULL, PRIMARY KEY (label, value, {name}, key)) "
            "WITHOUT ROWID"
        )
    connection.execute(
        "CREATE TABLE reservations (call_id TEXT PRIMARY KEY NOT NULL, started_at REAL NOT NULL, "
        "expires_at REAL NOT NULL, nanousd INTEGER NOT NULL, model TEXT NOT NULL, tags TEXT NOT NULL) WITHOUT ROWID"
    )


def _sessions(connection: sqlite3.Connection) -> None:
    """Conversations: a row of `turns` is one exchange, its messages a JSON list; their order is by `at`."""
    body = ", ".join(f"{name} {kind}" for name, kind in SESSIONS.items())
    connection.execute(f"CREATE TABLE sessions ({body}) WITHOUT ROWID")
    body = ", ".join(f"{name} {kind}" for name, kind in TURNS.items())
    connection.execute(f"CREATE TABLE turns (id INTEGER PRIMARY KEY, {body}, UNIQUE (session, call_id))")
    connection.execute("CREATE INDEX turns_call ON turns (call_id)")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tables, _search, _rollups, _sessions)


FORGET = "INSERT INTO search (search, rowid, prompt, answer) VALUES ('delete', ?, ?, ?)"
"""Takes the texts of a row out of the index, which keeps none of its own: it must be told what it forgets."""


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
