"""Reading the ledger: lists, one call, a search, a copy. Opened read-only, so that looking changes nothing.

A ledger that is not there is an empty one. Rows come out as the columns of the contract, whatever older or newer file
they are read from. Raises LedgerUnusable when the file cannot be read, UsageError for a reference that means nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.store.db import LENIENT, SIDE_FILES, uri
from llmctl.store.expiry import INTERRUPTED_S, OVER_AT
from llmctl.store.files import create_private, size
from llmctl.store.patience import damaged
from llmctl.store.schema import ATTEMPTS, CALLS, STATES, columns_of, has_search

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

_CHUNK = 500
# Scripts without spaces (Thai, Lao, Burmese, Khmer, CJK and beyond) are one "word" to the index: they are scanned for.
_UNSPACED = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u2e80", "\U0010ffff"))


CHOICES = (*STATES, "interrupted")
"""What calls are chosen by: those of the column, but that `started` ones which never ended are apart."""
_MANY = 20_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls: from `since` to before `until` (Unix seconds); the model as typed or as served; with all tags."""

    since: float | None = None
    until: float | None = None
    model: str | None = None
    state: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def sql(self, connection: sqlite3.Connection, now: float) -> tuple[str, list[Any]]:
        """The condition on `calls` of this file, and what fills its marks."""
        there = columns_of(connection, "calls")
        over = OVER_AT if "deadline_at" in there else f"started_at + {INTERRUPTED_S}"
        unended = "calls.state = 'started'" + (" AND calls.rolled = 0" if "rolled" in there else "")  # by a small index
        running = {"started": f"{unended} AND {over} >= ?", "interrupted": f"{unended} AND {over} < ?"}
        parts: list[str] = []
        values: list[Any] = []
        for condition, value in (
            ("calls.started_at >= ?", self.since),
            ("calls.started_at < ?", self.until),
            ("? IN (calls.model, calls.served_by)", self.model),
            (running.get(self.state or "", "calls.state = ?"), now if self.state in running else self.state),
        ):
            if value is not None:
                parts.append(condition)
                values.append(value)
        for pair in self.tags:
            parts.append(_tagged(connection, pair))
            values.extend(pair)
        return " AND ".join(parts) or "1", values


def _tagged(connection: sqlite3.Connection, pair: tuple[str, str]) -> str:
    """The condition for a tag: by its calls where they are few, else by a look at each call."""
    if _few(connection, "SELECT call_id FROM tags WHERE key = ? AND value = ?", *pair):
        return "calls.id IN (SELECT call_id FROM tags WHERE key = ? AND value = ?)"
    return "EXISTS (SELECT 1 FROM tags WHERE call_id = calls.id AND key = ? AND value = ?)"


def _few(connection: sqlite3.Connection, query: str, *values: str) -> bool:
    """Whether a query has so few rows that all of them are soon found, and put in order."""
    counted = connection.execute(f"SELECT count(*) FROM ({query} LIMIT ?)", (*values, _MANY))  # noqa: S608
    found: int = counted.fetchone()[0]
    return found < _MANY


EVERYTHING = Filter()
_TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "INTEGER": (int,), "REAL": (float, int)}
_NO_NUMBER = (float("inf"), float("-inf"))


class History:
    """The readers of one ledger file."""

    def __init__(self, path: Path | str, now: float | None = None) -> None:
        """Touches nothing. `now` (the system's clock by default) decides which calls were interrupted."""
        self.path = os.fspath(path)
        self.now = time() if now is None else now

    def list_calls(self, limit: int = 20, where: Filter = EVERYTHING) -> list[dict[str, Any]]:
        """The newest calls first, each with its `tags` and `attempts`; `limit` 0 is all of them."""
        with self.open() as connection:
            if connection is None:
                return []
            return _calls(connection, *where.sql(connection, self.now), limit, self.now)

    def show(self, reference: str) -> dict[str, Any]:
        """One call with the `prompt` and `answer` that were kept: by id, by a prefix of one, or `last`."""
        with self.open() as connection:
            if connection is None:
                raise UsageError("the ledger has no calls yet", hint='`llmctl ask "..."` makes one')
            call = _one(connection, reference, self.now)
            prompt, answer = _texts(connection, call["id"])
            kept = {"prompt": prompt, "answer": answer}
            return call | {key: text for key, text in kept.items() if text is not None}

    def search(self, text: str, limit: int = 20, where: Filter = EVERYTHING) -> list[dict[str, Any]]:
        """The newest calls whose prompt or answer holds every word of `text` (its beginning suffices), with both texts.

        Without a full-text index, and in scripts that put no spaces between words, `text` is looked for as it stands.
        """
        text = text.replace("\x00", " ").strip()
        if not text:
            raise UsageError("nothing to search for", hint="say a word of the prompt or the answer")
        with self.open() as connection:
            if connection is None or not columns_of(connection, "content"):
                return []
            found, marks = _matching(connection, text)
            condition, values = where.sql(connection, self.now)
            condition = f"{found} AND {condition}"
            calls = _calls(connection, condition, [*marks, *values], limit, self.now)
            for call in calls:
                call["prompt"], call["answer"] = _texts(connection, call["id"])
            return calls

    def stream(self, where: Filter = EVERYTHING, *, content: bool = False) -> Iterator[dict[str, Any]]:
        """The calls of `list_calls`, all of them, read a few at a time; with `content`, the texts that were kept."""
        with self.open() as connection:
            if connection is None:
                return
            condition, values = where.sql(connection, self.now)
            after = ""
            bound: list[Any] = []
            while calls := _calls(connection, condition + after, [*values, *bound], _CHUNK, self.now):
                for call in calls:
                    kept = zip(("prompt", "answer"), _texts(connection, call["id"]) if content else (), strict=False)
                    yield call | {key: text for key, text in kept if text is not None}
                after, bound = " AND (started_at, id) < (?, ?)", [calls[-1]["started_at"], calls[-1]["id"]]

    def backup(self, target: Path | str, *, force: bool = False) -> int:
        """The bytes of a whole copy of the ledger, made at `target` (0600) at once or not at all.

        Writers are not held up. Raises UsageError for a target that is there already, unless `force`.
        """
        goal = os.fspath(target)
        check_target(goal, self.path, force=force)
        with self.open() as connection:
            if connection is None:
                raise LedgerUnusable(f"there is no ledger at {self.path}", hint='`llmctl ask "..."` begins one')
            with new_file(goal, self.path, force=force) as temporary:
                _copy(connection, temporary)
        return size(goal)

    def open(self) -> AbstractContextManager[sqlite3.Connection | None]:
        """The ledger as `opened` has it."""
        return opened(self.path)


@contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection | None]:
    """A read-only connection, None when there is no ledger (or one that has no table yet). Raises LedgerUnusable."""
    if not os.path.exists(path):
        yield None
        return
    try:
        with closing(open_to_read(path)) as connection:
            yield connection if columns_of(connection, "calls") else None
    except sqlite3.Error as error:
        hint = "`llmctl ledger check` says more, and with --repair it brings back every readable row"
        raise LedgerUnusable(f"cannot read the ledger {path}: {error}", hint=hint) from error


def open_to_read(path: str) -> sqlite3.Connection:
    """A read-only connection. Where its directory admits no side files, and none are needed, it is read without."""
    if not os.path.isfile(path):  # a FIFO would be waited for
        raise sqlite3.OperationalError("it is not a file")
    connection = sqlite3.connect(uri(path, "ro"), uri=True, isolation_level=None, timeout=30.0)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:  # what SQLite says of a damaged schema quotes it
        connection.close()
        raise damaged("malformed database schema") from error
    except sqlite3.Error as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError) or size(path + "-wal"):
            raise
        connection = sqlite3.connect(uri(path, "ro&immutable=1"), uri=True, isolation_level=None)
    connection.text_factory = LENIENT
    return connection


def _calls(
    connection: sqlite3.Connection, condition: str, values: Sequence[Any], limit: int, now: float
) -> list[dict[str, Any]]:
    there = columns_of(connection, "calls")
    names = [name if name in there else f"NULL AS {name}" for name in CALLS]
    query = f"SELECT {', '.join(names)} FROM calls WHERE {condition} ORDER BY started_at DESC, id DESC LIMIT ?"  # noqa: S608
    rows = connection.execute(query, [*values, limit or -1]).fetchall()
    calls = [_call(_typed(CALLS, row), now) for row in rows]
    by_id = {call["id"]: call for call in calls}
    for start in range(0, len(calls), _CHUNK):
        ids = [call["id"] for call in calls[start : start + _CHUNK]]
        _add_details(connection, ids, by_id)
    return calls


def _typed(columns: Mapping[str, str], row: Sequence[Any]) -> dict[str, Any]:
    """A row by the names of its columns. What damage or a stranger's hand left there of another type is none."""
    return {
        name: value if isinstance(value, _TYPES[kind.partition(" ")[0]]) and value not in _NO_NUMBER else None
        for (name, kind), value in zip(columns.items(), row, strict=True)
    }


def _call(row: dict[str, Any], now: float) -> dict[str, Any]:
    row["started_at"] = row["started_at"] or 0.0
    ends = row["started_at"] + INTERRUPTED_S if row["deadline_at"] is None else row["deadline_at"]
    return row | {"interrupted": row["state"] == "started" and ends < now, "tags": {}, "attempts": []}


def _add_details(connection: sqlite3.Connection, ids: Sequence[str], calls: Mapping[str, dict[str, Any]]) -> None:
    marks = ", ".join("?" * len(ids))
    there = columns_of(connection, "attempts")
    names = [name if name in there else f"NULL AS {name}" for name in ATTEMPTS]
    query = f"SELECT {', '.join(names)} FROM attempts WHERE call_id IN ({marks}) ORDER BY call_id, n"  # noqa: S608
    for row in connection.execute(query, ids):
        calls[row[0]]["attempts"].append(_typed(ATTEMPTS, row))
    query = f"SELECT call_id, key, value FROM tags WHERE call_id IN ({marks}) ORDER BY call_id, key"  # noqa: S608
    for call_id, key, value in connection.execute(query, ids):
        calls[call_id]["tags"][key] = value


def _one(connection: sqlite3.Connection, reference: str, now: float) -> dict[str, Any]:
    if reference == "last":
        found = _calls(connection, "1", [], 1, now)
    else:
        found = _calls(connection, "id = ?", [reference], 1, now)
        prefix = reference.upper()
        if not found and prefix:
            # A range, so that no character of the reference is a pattern; "~" sorts after every character of an id.
            found = _calls(connection, "id >= ? AND id < ?", [prefix, prefix + "~"], 3, now)
    if not found:
        raise UsageError(f"no call {reference!r} in the ledger", hint="`llmctl ledger list` shows their ids")
    if len(found) > 1:
        hint = "write more of it: " + ", ".join(call["id"] for call in found)
        raise UsageError(f"{reference!r} begins the ids of several calls", hint=hint)
    return found[0]


def _texts(connection: sqlite3.Connection, call_id: str) -> tuple[str | None, str | None]:
    """The prompt and the answer that were kept of a call."""
    if not columns_of(connection, "content"):
        return None, None
    found = connection.execute("SELECT prompt, answer FROM content WHERE call_id = ?", (call_id,)).fetchone()
    return found or (None, None)


def _matching(connection: sqlite3.Connection, text: str) -> tuple[str, list[Any]]:
    """The condition for calls whose texts match, and what fills its marks."""
    pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    scan = "(prompt LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\')"
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    unspaced = any(low <= char <= high for char in text for low, high in _UNSPACED)
    if not words or unspaced or not has_search(connection):
        return f"calls.id IN (SELECT call_id FROM content WHERE {scan})", [pattern, pattern]  # noqa: S608
    phrases = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("CREATE TEMP TABLE hits (id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO hits SELECT rowid FROM search WHERE search MATCH ?", (phrases,))
    unindexed = f"SELECT call_id FROM content WHERE indexed = 0 AND {scan}"  # noqa: S608
    if _few(connection, "SELECT 1 FROM hits"):
        indexed = "SELECT call_id FROM content WHERE id IN hits"
        return f"calls.id IN ({indexed} UNION {unindexed})", [pattern, pattern]
    indexed = "EXISTS (SELECT 1 FROM content WHERE call_id = calls.id AND id IN hits)"
    return f"({indexed} OR calls.id IN ({unindexed}))", [pattern, pattern]


@contextmanager
def new_file(goal: str, source: str, *, force: bool) -> Iterator[str]:
    """The name of a new private file, which becomes `goal` when all went well. Raises UsageError, LedgerUnusable."""
    check_target(goal, source, force=force)
    temporary = f"{goal}.{os.urandom(4).hex()}.tmp"
    try:
        os.close(create_private(temporary))
        yield temporary
        if force:
            os.replace(temporary, goal)
        else:
            os.link(temporary, goal)  # unlike a rename, refuses when somebody was faster
    except (OSError, sqlite3.Error) as error:
        raise LedgerUnusable(f"cannot write {goal}: {error}", hint="choose another place") from error
    finally:
        for suffix in ("", *SIDE_FILES):
            with suppress(OSError):
                os.unlink(temporary + suffix)


def check_target(goal: str, source: str, *, force: bool) -> None:
    """Raise UsageError where a copy of the ledger `source` cannot be made."""
    other = os.path.lexists(goal) and not os.path.isfile(goal) and not os.path.islink(goal)  # a device, a directory
    if other or not os.path.basename(goal) or not os.path.isdir(os.path.dirname(goal) or "."):
        raise UsageError(f"cannot make a file at {goal!r}", hint="name a file in a directory that exists")
    if not os.path.lexists(goal):
        return
    for own in (source, f"{source}-wal", f"{source}-shm", f"{source}-journal"):
        if os.path.exists(own) and os.path.exists(goal) and os.path.samefile(goal, own):
            raise UsageError("a copy cannot replace the ledger itself", hint="name another file")
    if not force:
        raise UsageError(f"{goal} exists already", hint="--force replaces it")


def _copy(connection: sqlite3.Connection, path: str) -> None:
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = FULL")
        connection.backup(copy, pages=-1)
