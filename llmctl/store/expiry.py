"""Letting go of prompts, answers and turns: the statements that remove them, and the bit of it that every writer does.

`[log] retain` is kept to by the writers themselves, a few texts a call, so that nobody has to prune. On the path of
every call: nothing heavy is imported here. Removing for good is `upkeep`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.record import ulid
from llmctl.store.schema import FORGET, columns_of, has_search

if TYPE_CHECKING:
    import sqlite3

INTERRUPTED_S = 86400.0
OVER_AT = f"coalesce(deadline_at, started_at + {INTERRUPTED_S})"
"""When a call is over at the latest: one that is `started` after it was interrupted, as when its process was killed."""
_RUNNING = f"SELECT 1 FROM calls WHERE id = call_id AND state = 'started' AND {OVER_AT} >= :now"  # noqa: S608 - ours
OLD_TEXT = f"call_id < :bound AND NOT EXISTS ({_RUNNING})"
"""Texts of calls that began before the instant of the ULID `:bound`, found by their ids, which begin with the time."""


def expire(connection: sqlite3.Connection, before: float, now: float, most: int = 20) -> int:
    """How many calls begun before `before` lost their prompt and answer just now: at most `most`, the oldest first.

    For writers, once a call, in a transaction of its own: it costs some microseconds when there is nothing to do.
    Words stay in the search index until it is next merged, which `upkeep.prune` sees to.
    """
    return forget_old(connection, {"bound": ulid(max(0.0, before), 0), "now": now, "most": most}) or 0


def forget_old(connection: sqlite3.Connection, span: dict[str, Any]) -> int | None:
    """How many texts of `OLD_TEXT` are gone, at most `:most`, and so many turns; None when there are no more."""
    old = f"{OLD_TEXT} ORDER BY call_id LIMIT :most"
    texts, turns = forget_texts(connection, old, span), forget_turns(connection, old, span)
    return texts if texts or turns else None


def forget_texts(connection: sqlite3.Connection, which: str, values: Any) -> int:
    """How many rows of `content` are gone, from the index too. Without FTS5 those that are in it stay."""
    rows = connection.execute(f"SELECT id, prompt, answer, indexed FROM content WHERE {which}", values).fetchall()  # noqa: S608
    if any(row[3] for row in rows) and not has_search(connection):
        rows = [row for row in rows if not row[3]]
    connection.executemany(FORGET, [row[:3] for row in rows if row[3]])
    connection.executemany("DELETE FROM content WHERE id = ?", [row[:1] for row in rows])
    return len(rows)


def forget_turns(connection: sqlite3.Connection, which: str, values: Any) -> int:
    """How many turns are gone, and with its last one the session."""
    if not columns_of(connection, "turns"):
        return 0
    rows = connection.execute(f"SELECT id, session FROM turns WHERE {which}", values).fetchall()  # noqa: S608 - ours
    connection.executemany("DELETE FROM turns WHERE id = ?", [row[:1] for row in rows])
    empty = "DELETE FROM sessions WHERE name = ? AND NOT EXISTS (SELECT 1 FROM turns WHERE session = name)"
    connection.executemany(empty, [(name,) for name in {row[1] for row in rows}])
    return len(rows)
