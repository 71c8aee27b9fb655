"""Reading the ledger: lists, one call, a search, a check, a copy. Opened read-only, so that looking changes nothing.

A ledger that is not there is an empty one. Rows come out as the columns of the contract, whatever older or newer file
they are read from. Raises LedgerUnusable when the file cannot be read, UsageError for a reference that means nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.store.db import uri
from llmctl.store.files import create_private, size
from llmctl.store.schema import ATTEMPTS, CALLS, columns_of, has_search

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_CHUNK = 500
# Scripts without spaces (Thai, Lao, Burmese, Khmer, CJK and beyond) are one "word" to the index: they are scanned for.
_UNSPACED = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u2e80", "\U0010ffff"))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls: from `since` to before `until` (Unix seconds); the model as typed or as served; with all tags."""

    since: float | None = None
    until: float | None = None
    model: str | None = None
    state: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def sql(self) -> tuple[str, list[Any]]:
        """The condition on `calls`, and what fills its marks."""
        parts: list[str] = []
        values: list[Any] = []
        for condition, value in (
            ("calls.started_at >= ?", self.since),
            ("calls.started_at < ?", self.until),
            ("? IN (calls.model, calls.served_by)", self.model),
            ("calls.state = ?", self.state),
        ):
            if value is not None:
                parts.append(condition)
                values.append(value)
        for pair in self.tags:
            parts.append("calls.id IN (SELECT call_id FROM tags WHERE key = ? AND value = ?)")
            values.extend(pair)
        return " AND ".join(parts) or "1", values


EVERYTHING = Filter()


class History:
    """The readers of one ledger file."""

    def __init__(self, path: Path | str) -> None:
        """Touches nothing."""
        self.path = os.fspath(path)

    def list_calls(self, limit: int = 20, where: Filter = EVERYTHING) -> list[dict[str, Any]]:
        """The newest calls first, each with its `tags` and `attempts`; `limit` 0 is all of them."""
        with self._open() as connection:
            if connection is None:
                return []
            condition, values = where.sql()
            return _calls(connection, condition, values, limit)

    def show(self, reference: str) -> dict[str, Any]:
        """One call with the `prompt` and `answer` that were kept: by id, by a prefix of one, or `last`."""
        with self._open() as connection:
            if connection is None:
                raise UsageError("the ledger has no calls yet", hint='`llmctl ask "..."` makes one')
            call = _one(connection, reference)
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
        with self._open() as connection:
            if connection is None or not columns_of(connection, "content"):
                return []
            found, marks = _matching(connection, text)
            condition, values = where.sql()
            calls = _calls(connection, f"calls.id IN ({found}) AND {condition}", [*marks, *values], limit)
            for call in calls:
                call["prompt"], call["answer"] = _texts(connection, call["id"])
            return calls

    def backup(self, target: Path | str, *, force: bool = False) -> int:
        """The bytes of a whole copy of the ledger, made at `target` (0600) at once or not at all.

        Writers are not held up. Raises UsageError for a target that is there already, unless `force`.
        """
        goal = os.fspath(target)
        _check_target(goal, self.path, force=force)
        with self._open() as connection:
            if connection is None:
                raise LedgerUnusable(f"there is no ledger at {self.path}", hint='`llmctl ask "..."` begins one')
            temporary = f"{goal}.{os.urandom(4).hex()}.tmp"
            try:
                os.close(create_private(temporary))
                _copy(connection, temporary)
                _publish(temporary, goal, force=force)
            except (OSError, sqlite3.Error) as error:
                raise LedgerUnusable(f"cannot write {goal}: {error}", hint="choose another place") from error
            finally:
                with suppress(OSError):
                    os.unlink(temporary)
        return size(goal)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """A read-only connection, None when there is no ledger (or one that has no table yet)."""
        if not os.path.exists(self.path):
            yield None
            return
        try:
            with closing(open_to_read(self.path)) as connection:
                yield connection if columns_of(connection, "calls") else None
        except sqlite3.Error as error:
            hint = "`llmctl ledger check` says more; the next call moves a damaged ledger aside and begins a new one"
            raise LedgerUnusable(f"cannot read the ledger {self.path}: {error}", hint=hint) from error


def open_to_read(path: str) -> sqlite3.Connection:
    """A read-only connection. Where its directory admits no side files, and none are needed, it is read without."""
    connection = sqlite3.connect(uri(path, "ro"), uri=True, isolation_level=None, timeout=30.0)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError) or size(path + "-wal"):
            raise
        connection = sqlite3.connect(uri(path, "ro&immutable=1"), uri=True, isolation_level=None)
    return connection


def _calls(connection: sqlite3.Connection, condition: str, values: Sequence[Any], limit: int) -> list[dict[str, Any]]:
    there = columns_of(connection, "calls")
    names = [name if name in there else f"NULL AS {name}" for name in CALLS]
    query = f"SELECT {', '.join(names)} FROM calls WHERE {condition} ORDER BY started_at DESC, id DESC LIMIT ?"  # noqa: S608
    rows = connection.execute(query, [*values, limit or -1]).fetchall()
    calls = [dict(zip(CALLS, row, strict=True)) | {"tags": {}, "attempts": []} for row in rows]
    by_id = {call["id"]: call for call in calls}
    for start in range(0, len(calls), _CHUNK):
        ids = [call["id"] for call in calls[start : start + _CHUNK]]
        _add_details(connection, ids, by_id)
    return calls


def _add_details(connection: sqlite3.Connection, ids: Sequence[str], calls: Mapping[str, dict[str, Any]]) -> None:
    marks = ", ".join("?" * len(ids))
    there = columns_of(connection, "attempts")
    names = [name if name in there else f"NULL AS {name}" for name in ATTEMPTS]
    query = f"SELECT {', '.join(names)} FROM attempts WHERE call_id IN ({marks}) ORDER BY call_id, n"  # noqa: S608
    for row in connection.execute(query, ids):
        calls[row[0]]["attempts"].append(dict(zip(ATTEMPTS, row, strict=True)))
    query = f"SELECT call_id, key, value FROM tags WHERE call_id IN ({marks}) ORDER BY call_id, key"  # noqa: S608
    for call_id, key, value in connection.execute(query, ids):
        calls[call_id]["tags"][key] = value


def _one(connection: sqlite3.Connection, reference: str) -> dict[str, Any]:
    if reference == "last":
        found = _calls(connection, "1", [], 1)
    else:
        found = _calls(connection, "id = ?", [reference], 1)
        prefix = reference.upper()
        if not found and prefix:
            # A range, so that no character of the reference is a pattern; "~" sorts after every character of an id.
            found = _calls(connection, "id >= ? AND id < ?", [prefix, prefix + "~"], 3)
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


def _matching(connection: sqlite3.Connection, text: str) -> tuple[str, list[str]]:
    """The query for the ids of calls whose texts match, and what fills its marks."""
    pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    scan = "SELECT call_id FROM content WHERE (prompt LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\')"
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    unspaced = any(low <= char <= high for char in text for low, high in _UNSPACED)
    if not words or unspaced or not has_search(connection):
        return scan, [pattern, pattern]
    phrases = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
    indexed = "SELECT call_id FROM content WHERE id IN (SELECT rowid FROM search WHERE search MATCH ?)"
    return f"{indexed} UNION {scan} AND indexed = 0", [phrases, pattern, pattern]


def _check_target(goal: str, source: str, *, force: bool) -> None:
    if os.path.isdir(goal) or not os.path.isdir(os.path.dirname(goal) or "."):
        raise UsageError(f"cannot make a backup at {goal}", hint="name a file in a directory that exists")
    if not os.path.lexists(goal):
        return
    if os.path.exists(source) and os.path.exists(goal) and os.path.samefile(goal, source):
        raise UsageError("a backup cannot replace the ledger itself", hint="name another file")
    if not force:
        raise UsageError(f"{goal} exists already", hint="--force replaces it")


def _copy(connection: sqlite3.Connection, path: str) -> None:
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = FULL")
        connection.backup(copy, pages=-1)


def _publish(temporary: str, goal: str, *, force: bool) -> None:
    if force:
        os.replace(temporary, goal)
    else:
        os.link(temporary, goal)  # unlike a rename, refuses when somebody was faster
