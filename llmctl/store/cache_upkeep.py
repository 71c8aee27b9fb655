"""What is removed from the cache: answers and vectors that were chosen, and an answer that somebody found to be wrong.

Removing is final: the file is written anew without what was removed, and the journal cut. It is done a few rows at a
time, beside running calls, which at worst do without the cache meanwhile. Forbidden pairs outlive every purge.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.errors import LedgerUnusable, StateUnusable, UsageError
from llmctl.store.cache import SqliteCache
from llmctl.store.cache_reading import DISPOSABLE, NONE_KEPT, opened, resolve
from llmctl.store.cache_rows import inflated
from llmctl.store.cache_schema import STEPS
from llmctl.store.checkup import beside
from llmctl.store.db import uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llmctl.store.db import Database

KINDS = ("exact", "canonical", "semantic", "vectors")
_AT_ONCE = 200
_PATIENCE_S = 5.0
_DEPENDS = "n IN (SELECT entry FROM documents WHERE hash IN (SELECT value FROM json_each(:documents)))"
_HOLDS = (
    "(EXISTS (SELECT 1 FROM texts WHERE entry = n AND (holds(:text, prompt) OR holds(:text, answer)))"
    " OR EXISTS (SELECT 1 FROM hits WHERE hits.entry = entries.id AND holds(:text, hits.prompt)))"
)
"""Also what was asked in other words, and answered by the entry."""


class Choice(NamedTuple):
    """What is to go: what has all that is given here; with nothing given, what has expired; or all there is.

    Made before `before` (Unix seconds); asked as, or answered by, `model`; depending on one of `documents` (content
    hashes); with `text` in a prompt or the answer, whatever its case; of a `kind`: what that tier can answer from, so
    that every answer is `exact` and those that other wordings find too are also `canonical`.
    """

    before: float | None = None
    model: str | None = None
    kind: str | None = None
    documents: tuple[str, ...] = ()
    text: str | None = None
    everything: bool = False

    @property
    def expired_only(self) -> bool:
        """Whether nothing was chosen."""
        return self == Choice()


class _Row(NamedTuple):
    kind: str
    name: Any
    bytes: int


def purge(path: Path | str, choice: Choice, now: float, *, dry_run: bool = False) -> dict[str, Any]:
    """How much was `matched` and `deleted`, the `bytes_freed` of it, and how much each of `kinds` can find of it.

    `also_in` names files that may hold the same still: copies moved aside, or the cache itself where another process
    was reading it all the time. Raises StateUnusable where it cannot be changed.
    """
    path = os.fspath(path)
    done: dict[str, Any] = {"matched": 0, "deleted": 0, "bytes_freed": 0, "dry_run": dry_run}
    done |= {"kinds": dict.fromkeys(KINDS, 0), "also_in": []}
    if dry_run:
        with opened(path) as connection:
            if connection is not None:
                _count(done, _chosen(connection, choice, now))
    elif os.path.lexists(path):
        with _writing(path) as database:
            rows = database.read(lambda connection: _chosen(connection, choice, now))
            _count(done, rows)
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                count, size = database.write(lambda connection, some=some: _delete(connection, some))  # type: ignore[misc]
                done["deleted"] += count
                done["bytes_freed"] += size
            if choice == Choice(everything=True):
                database.write(lambda connection: connection.execute("DELETE FROM hits"))
            database.close()
            if not _scrub(path):
                done["also_in"].append(path)
    done["also_in"] += beside(path, ".corrupt-")
    return done


def knows_document(path: Path | str, document: str) -> bool:
    """Whether an answer depends on a document of this hash."""
    with opened(path) as connection:
        return connection is not None and bool(
            connection.execute("SELECT 1 FROM documents WHERE hash = ?", (document,)).fetchone()
        )


def forbid(path: Path | str, reference: str, now: float) -> dict[str, Any]:
    """Remove a wrong answer, and forbid it for ever to who got it: of an entry, or of a call that it answered.

    What an entry's own call asked is never answered from the cache again; what another call asked is never again
    answered by what that entry was kept for, nor the other way round. Raises UsageError, StateUnusable.
    """
    path = os.fspath(path)
    if not os.path.lexists(path):
        raise UsageError("nothing is kept in the cache yet", hint=NONE_KEPT)
    with _writing(path) as database:
        told = database.write(lambda connection: _forbid(connection, reference, now))
        database.close()
        told["also_in"] = [] if _scrub(path) else [path]
    return told


def _forbid(connection: sqlite3.Connection, reference: str, now: float) -> dict[str, Any]:
    found = resolve(connection, reference, "SELECT id FROM hits ORDER BY n DESC LIMIT 1") or reference.upper()
    hit = "SELECT entry, {} FROM hits WHERE {} = ? ORDER BY n DESC LIMIT 1"
    row = (
        connection.execute(hit.format("tier, asked, answered", "id"), (found,)).fetchone()
        or connection.execute("SELECT id, 'exact', exact, exact FROM entries WHERE id = ?", (found,)).fetchone()
        # an entry that is gone may have answered somebody
        or connection.execute(hit.format("'exact', answered, answered", "entry"), (found,)).fetchone()
    )
    if not row:
        hint = "`llmctl ledger list` shows calls; those that the cache answered have the state cached"
        raise UsageError(f"{reference!r} is neither an entry of the cache nor a call that it answered", hint=hint)
    entry, tier, asked, answered = row
    pairs = [(asked, answered, now), (answered, asked, now)]
    before = connection.execute("SELECT count(*) FROM forbidden").fetchone()[0]
    connection.executemany("INSERT OR IGNORE INTO forbidden (asked, entry, at) VALUES (?, ?, ?)", pairs)
    after = connection.execute("SELECT count(*) FROM forbidden").fetchone()[0]
    gone = connection.execute("DELETE FROM entries WHERE id = ? OR exact = ?", (entry, answered)).rowcount
    return {"id": found, "entry": entry, "tier": tier, "removed": gone, "forbidden": after > before}


@contextmanager
def _writing(path: str) -> Iterator[Database]:
    """The cache, to be changed; what becomes of it is said as StateUnusable."""
    cache = SqliteCache(path)
    try:
        cache.database.write(lambda _: _ours(cache.database))
        yield cache.database
    except (sqlite3.Error, OSError, LedgerUnusable) as error:
        raise StateUnusable(f"cannot change the cache {path}: {error}", hint=DISPOSABLE) from error
    finally:
        cache.close()


def _ours(database: Database) -> None:
    if database.version > len(STEPS):
        raise StateUnusable(f"{database.path} is of a newer llmctl", hint="change it with that one")


def _count(done: dict[str, Any], rows: Sequence[_Row]) -> None:
    done["matched"] = len(rows)
    for row in rows:
        done["kinds"][row.kind] += 1
    done["kinds"]["exact"] += done["kinds"]["canonical"]


def _chosen(connection: sqlite3.Connection, choice: Choice, now: float) -> list[_Row]:
    """The answers and vectors that are to go. Text is looked for last, since answers are packed."""
    vectors = choice.kind in (None, "vectors") and not choice.documents and choice.text is None
    found: list[_Row] = []
    if choice.kind not in ("semantic", "vectors"):
        connection.create_function("holds", 2, _holds, deterministic=True)
        conditions = {
            "expires_at <= :now": choice.expired_only,
            "created_at < :before": choice.before is not None,
            ":model IN (model, served_by)": choice.model is not None,
            "canonical IS NOT NULL": choice.kind == "canonical",
            _DEPENDS: choice.documents,
            _HOLDS: choice.text is not None,
        }
        where = " AND ".join(sql for sql, wanted in conditions.items() if wanted) or "1"
        query = f"SELECT iif(canonical IS NULL, 'exact', 'canonical'), id, bytes FROM entries WHERE {where}"  # noqa: S608
        text, documents = (choice.text or "").casefold(), json.dumps(choice.documents)
        values = {"now": now, "before": choice.before, "model": choice.model, "text": text, "documents": documents}
        found += map(_Row._make, connection.execute(query, values))
    if vectors and not choice.expired_only:
        query = (
            "SELECT 'vectors', key, bytes FROM vectors"
            " WHERE (:before IS NULL OR created_at < :before) AND (:model IS NULL OR model = :model)"
        )
        found += map(_Row._make, connection.execute(query, {"before": choice.before, "model": choice.model}))
    return found


def _holds(text: str, value: object) -> bool:
    """Whether a prompt, or an answer as it is kept, holds `text`, which is folded."""
    if isinstance(value, bytes):
        try:
            answer = json.loads(inflated(value))
        except (ValueError, RecursionError):
            return False  # damaged: it answers nobody
        return any(text in each.casefold() for each in _said(answer))
    return isinstance(value, str) and text in value.casefold()


def _said(value: Any) -> Iterator[str]:
    """All texts of an answer, at any depth; none of the names they have in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _said(each)
    elif isinstance(value, list):
        for each in value:
            yield from _said(each)


def _delete(connection: sqlite3.Connection, rows: Sequence[_Row]) -> tuple[int, int]:
    """How many of `rows` went, and their bytes; others may have let go of some meanwhile."""
    count = size = 0
    for row in rows:
        table, name = ("vectors", "key") if row.kind == "vectors" else ("entries", "id")
        gone = connection.execute(f"DELETE FROM {table} WHERE {name} = ?", (row.name,)).rowcount  # noqa: S608
        count, size = count + gone, size + gone * row.bytes
    return count, size


def _scrub(path: str) -> bool:
    """Write the file anew and cut the journal; whether nothing of what was removed is left in them.

    SQLite overwrites what is deleted, but not where it stood before it moved within its page: only a new file knows
    nothing of that. A process that reads all the time keeps the journal from being cut.
    """
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None, timeout=_PATIENCE_S)) as connection:
        written = False
        with suppress(sqlite3.OperationalError):  # a full disk, or somebody who writes for ever
            connection.execute("VACUUM")
            written = True
        connection.execute("PRAGMA busy_timeout = 200")
        deadline = monotonic() + _PATIENCE_S
        while (busy := connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]) and monotonic() < deadline:
            pass
        return written and not busy
