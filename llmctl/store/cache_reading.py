"""Reading the cache for people: what it holds and what that saves. Opened read-only, so that looking changes nothing.

A cache that is not there is an empty one. Raises StateUnusable for a file that cannot be read or is no cache of ours,
UsageError for a reference that means nothing. What a row says is believed only as far as its types go.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import StateUnusable, UsageError
from llmctl.core.money import usd
from llmctl.store.cache_rows import ENTRY, entry_of
from llmctl.store.cache_schema import MARK, STEPS
from llmctl.store.checkup import glance
from llmctl.store.files import size
from llmctl.store.history import open_to_read
from llmctl.store.history import opened as opened_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmctl.core.caching import Entry

DISPOSABLE = "the cache is disposable: move the file away, and the next call begins a new one"
NONE_KEPT = "`llmctl cache list` shows what is kept"
HITS = ("exact", "canonical", "semantic")
_PREVIEW = 200
_LONGEST = 16 << 20
"""The most bytes of a value that are read: damage may claim a gigabyte."""
_COLUMNS: dict[str, type] = {
    "id": str, "model": str, "served_by": str, "provider": str, "deployment": str, "created_at": float,
    "expires_at": float, "used_at": float, "hits": int, "bytes": int, "cost_nanousd": int,
}  # fmt: skip
_ROW = (
    f"SELECT n, canonical IS NULL, substr(prompt, 1, {_PREVIEW}), {', '.join(_COLUMNS)}"  # noqa: S608 - our own names
    " FROM entries LEFT JOIN texts ON entry = n"
)


@contextmanager
def opened(path: Path | str) -> Iterator[sqlite3.Connection | None]:
    """One state of the cache, to be read; None where there is none yet."""
    path = os.fspath(path)
    if not os.path.lexists(path):
        yield None
        return
    try:
        with closing(open_to_read(path)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            connection.execute("BEGIN")
            begun = connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            if begun and connection.execute("PRAGMA application_id").fetchone()[0] != MARK:
                raise StateUnusable(f"{path} is another program's database, not a cache", hint=DISPOSABLE)
            yield connection if begun else None
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StateUnusable(f"cannot read the cache {path}: {error}", hint=DISPOSABLE) from error


def list_entries(path: Path | str, now: float, limit: int = 20, model: str | None = None) -> list[dict[str, Any]]:
    """What is kept, last used first; `model` as it was asked or as it answered, `limit` 0 is all of it."""
    with opened(path) as connection:
        if connection is None:
            return []
        which = "WHERE ? IN (model, served_by)" if model else "WHERE ? IS NULL"
        query = f"{_ROW} {which} ORDER BY used_at DESC, n DESC LIMIT ?"
        rows = connection.execute(query, (model or None, limit or -1)).fetchall()
        return [_listed(connection, row, now) for row in rows]


def show_entry(path: Path | str, reference: str, now: float) -> dict[str, Any]:
    """An entry wholly: by its id, that of a call it answered, the beginning of one, or `last` (the last one used)."""
    with opened(path) as connection:
        if connection is None:
            raise UsageError("nothing is kept in the cache yet", hint='`llmctl ask "..."` keeps its answer')
        row = _row_of(connection, reference)
        if row is None:
            raise UsageError(f"no entry {reference!r} in the cache", hint=NONE_KEPT)
        listed = _listed(connection, row, now)
        entry = read_entry(connection, listed["id"])
        found = connection.execute("SELECT scope, exact, canonical FROM entries WHERE n = ?", row[:1]).fetchone()
        keys = [each.hex() if isinstance(each, bytes) else None for each in found]
        served = connection.execute(
            "SELECT id, tier, at, age_s, prompt FROM hits WHERE entry = ? ORDER BY n DESC LIMIT 20", (listed["id"],)
        )
        del listed["preview"]
        return listed | {
            "keys": dict(zip(("scope", "exact", "canonical"), keys, strict=True)),
            "answered": [dict(zip(("id", "tier", "at", "age_s", "prompt"), each, strict=True)) for each in served],
            "damaged": entry is None,
            "prompt": entry and entry.prompt,
            "answer": entry and entry.answer,
        }


def read_entry(connection: sqlite3.Connection, call_id: str) -> Entry | None:
    """The entry of this id as a call would read it; None where there is none, or one that answers nobody."""
    row = connection.execute(f"{ENTRY} WHERE id = ?", (call_id,)).fetchone()
    if row is None:
        return None
    try:
        return entry_of(row, _documents(connection, row[-1]))
    except (ValueError, TypeError, RecursionError):
        return None


def resolve(connection: sqlite3.Connection, reference: str, newest: str) -> str | None:
    """The id in `entries` or `hits` that `reference` is, or begins; `last` is what `newest` selects."""
    if reference == "last":
        found = connection.execute(newest).fetchone()
        return found and str(found[0])
    both = "SELECT id FROM entries WHERE id {0} UNION SELECT id FROM hits WHERE id {0} LIMIT 3"
    found = connection.execute(both.format("= :id"), {"id": reference}).fetchall()
    prefix = reference.upper()
    if not found and prefix:  # a range, so that no character is a pattern; "~" sorts after every character of an id
        found = connection.execute(both.format("BETWEEN :a AND :b"), {"a": prefix, "b": prefix + "~"}).fetchall()
    if len(found) > 1:
        hint = "write more of it: " + ", ".join(str(each) for (each,) in found)
        raise UsageError(f"{reference!r} begins several ids", hint=hint)
    return str(found[0][0]) if found else None


def stats(path: Path | str, now: float) -> dict[str, Any]:
    """What the cache holds now, and how whole its file is: zeros where there is none."""
    path = os.fspath(path)
    told: dict[str, Any] = {
        "path": path, "exists": os.path.lexists(path), "health": "ok", "mode": None, "schema": None,
        "file_bytes": size(path), "journal_bytes": size(path + "-wal"), "entries": 0, "bytes": 0, "canonical": 0,
        "expired": 0, "oldest_at": None, "newest_at": None, "vectors": 0, "vector_bytes": 0, "forbidden": 0,
        "in_flight": 0,
    }  # fmt: skip
    with opened(path) as connection:
        if connection is None:
            return told
        for name, count, amount in connection.execute("SELECT name, count, bytes FROM totals"):
            keys = {"entries": ("entries", "bytes"), "vectors": ("vectors", "vector_bytes")}.get(name)
            told |= dict(zip(keys or (), (count, amount), strict=False))
        for name, query, *values in (
            ("canonical", "SELECT count(*) FROM entries WHERE canonical IS NOT NULL"),
            ("expired", "SELECT count(*) FROM entries WHERE expires_at <= ?", now),
            ("oldest_at", "SELECT min(created_at) FROM entries"),
            ("newest_at", "SELECT max(created_at) FROM entries"),
            ("forbidden", "SELECT count(*) FROM forbidden WHERE asked <= entry"),
            ("in_flight", "SELECT count(*) FROM leases WHERE owner IS NOT NULL AND expires_at > ?", now),
        ):
            told[name] = connection.execute(query, values).fetchone()[0]
        told["schema"] = connection.execute("PRAGMA user_version").fetchone()[0]
        told["mode"] = f"{stat.S_IMODE(os.lstat(path).st_mode):04o}"
        told["health"] = "; ".join(_complaints(connection, told)) or "ok"
    return told


def _complaints(connection: sqlite3.Connection, told: dict[str, Any]) -> Iterator[str]:
    if told["schema"] > len(STEPS):
        yield "of a newer llmctl"
    yield from glance(told["path"]).problems
    counted = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    if counted != told["entries"]:
        yield f"damaged: it counts {told['entries']} entries and has {counted}"


def asked(ledger: Path | str, since: float) -> dict[str, Any]:
    """What calls since then got of the cache: how many asked it, were answered by each tier, and what that saved."""
    told: dict[str, Any] = {"asked": 0, "hits": dict.fromkeys(HITS, 0), "misses": 0, "hit_rate": None, "saved_usd": 0.0}
    with opened_ledger(os.fspath(ledger)) as connection:
        if connection is None:
            return told
        query = (
            "SELECT cache, count(*), total(saved_nanousd) FROM calls"
            " WHERE started_at >= ? AND cache <> 'off' AND drill = 0 GROUP BY cache"
        )
        saved = 0.0
        for tier, count, amount in connection.execute(query, (since,)):
            told["asked"] += count
            if tier in told["hits"]:
                told["hits"][tier] = count
                saved += amount
    told["saved_usd"] = usd(round(saved))
    told["misses"] = told["asked"] - sum(told["hits"].values())
    told["hit_rate"] = round(1 - told["misses"] / told["asked"], 4) if told["asked"] else None
    return told


def _row_of(connection: sqlite3.Connection, reference: str) -> Any:
    """The row of `_ROW` that is meant."""
    last = "SELECT id FROM entries ORDER BY used_at DESC, n DESC LIMIT 1"
    found = resolve(connection, reference, last)
    answered = "SELECT entry FROM hits WHERE id = :id ORDER BY n DESC LIMIT 1"
    query = f"{_ROW} WHERE id = :id OR id = ({answered})"  # an entry's id is that of the call it was made by
    return found and connection.execute(query, {"id": found}).fetchone()


def _listed(connection: sqlite3.Connection, row: Any, now: float) -> dict[str, Any]:
    n, only_exact, preview, *values = row
    told: dict[str, Any] = {
        name: value if isinstance(value, kind) and (not isinstance(value, float) or isfinite(value)) else None
        for (name, kind), value in zip(_COLUMNS.items(), values, strict=True)
    }
    cost = told.pop("cost_nanousd")
    expires_at, created_at = told["expires_at"], told["created_at"]
    return told | {
        "tiers": list(HITS[: 1 if only_exact else 2]),
        "age_s": None if created_at is None else max(0.0, round(now - created_at, 3)),
        "expired": expires_at is None or expires_at <= now,
        "cost_usd": usd(cost),
        "saved_usd": usd(None if cost is None else cost * (told["hits"] or 0)),
        "documents": _documents(connection, n),
        "preview": preview if isinstance(preview, str) else None,
    }


def _documents(connection: sqlite3.Connection, n: int) -> list[str]:
    return [
        str(each) for (each,) in connection.execute("SELECT hash FROM documents WHERE entry = ? ORDER BY hash", (n,))
    ]
