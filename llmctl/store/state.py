"""What all processes of one user share (`run.ports.State`): small JSON documents in one disposable SQLite file.

A step (`update`) is one immediate transaction on the store's thread, so nobody else changes a document between its
reading and its writing. Keys hold credentials: only a salted hash of them is kept, with a salt made once in the file.
What the documents mean is not known here; `routing` says it. They hold what JSON holds, finite numbers only: anything
else raises ValueError or TypeError at the step that would have written it, and is a bug of that step.

The file is never waited for to reach the disk. A process that dies mid-way damages nothing; after a power loss the file
may be damaged, and is then set aside: what it held is measured again within minutes.
"""

from __future__ import annotations

import json
import marshal
import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from llmctl.core.errors import ConfigInvalid, LedgerUnusable, StateUnusable
from llmctl.store.db import Database
from llmctl.store.patience import damaged
from llmctl.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

KEEP_S = 7 * 86_400.0
"""A document that nobody wrote for so long is forgotten."""
_PRUNE_S = 3600.0
_PRUNE_ROWS = 100
_REMEMBERED = 128
_HINT = "the file is disposable: delete it, or point LLMCTL_HOME at a directory that can be written"
_TROUBLE = (sqlite3.Error, OSError, LedgerUnusable)


def _tables(connection: sqlite3.Connection) -> None:
    """`updated_at` stands before `body`, so that looking for old rows need not read through long bodies."""
    connection.execute(
        "CREATE TABLE state (key TEXT PRIMARY KEY, updated_at REAL NOT NULL, body TEXT NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
    rows = (("salt", os.urandom(16)), ("pruned_at", 0.0))
    connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", rows)


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tables,)


@dataclass(slots=True, eq=False)
class _Step:
    """One update on its way. `turn` is taken by the thread just before `work`, or by the caller who gives up."""

    keys: Sequence[str] | None
    work: Callable[[dict[str, Any]], Any]
    deadline: float
    turn: threading.Lock = field(default_factory=threading.Lock)


class SqliteState:
    """The shared documents of one file; any thread or event loop may use it.

    `work` gets documents of its own: it may change them at will, and what it keeps of them is a copy. `warnings`
    collects what a person must hear.
    """

    def __init__(self, path: Path | str, is_whole: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        """Touches nothing yet. A document that others wrote and that is not whole counts as absent."""
        self._database = Database(path, STEPS, disposable=True)
        self._worker = Worker("llmctl-state", holds=self._database)
        self._connection: sqlite3.Connection | None = None
        self._is_whole = is_whole
        self._salt = b""
        self._prune_at = 0.0
        self._known: dict[str, tuple[bytes, bytes]] = {}
        self.warnings: list[str] = []

    async def update(
        self, keys: Sequence[str], work: Callable[[dict[str, Any]], T], *, wait_s: float = 5.0, to_the_end: bool = False
    ) -> T:
        """What `work(documents)` returns; see the port. Cancelled or late before `work` has begun, it never runs."""
        step = _Step(tuple(keys), work, monotonic() + wait_s)
        try:
            return await self._worker.run(
                lambda: cast("T", self._do(step)), to_the_end=to_the_end, deadline=step.deadline, turn=step.turn
            )
        except TimeoutError:
            raise self._unusable(f"not free within {wait_s:g} s") from None

    def update_now(self, keys: Sequence[str] | None, work: Callable[[dict[str, Any]], T], *, wait_s: float = 5.0) -> T:
        """`update`, for callers without an event loop. Without `keys` it is on all documents, under their hashes."""
        step = _Step(None if keys is None else tuple(keys), work, monotonic() + wait_s)
        try:
            return self._worker.call(lambda: cast("T", self._do(step)), deadline=step.deadline, turn=step.turn)
        except TimeoutError:
            raise self._unusable(f"not free within {wait_s:g} s") from None

    def close(self) -> None:
        """Finish what was given, checkpoint and let go. A short-lived process may leave without."""
        self._worker.call(self._database.close)
        self._worker.close()

    def _unusable(self, why: object) -> StateUnusable:
        return StateUnusable(f"the shared state {self._database.path} cannot be used: {why}", hint=_HINT)

    def _do(self, step: _Step) -> Any:
        try:
            return self._database.write(
                lambda connection: self._apply(connection, step), deadline=step.deadline, hurry=step.turn.locked
            )
        except _TROUBLE as error:
            raise self._unusable(error) from error
        finally:
            self.warnings += self._database.notes
            self._database.notes.clear()

    def _apply(self, connection: sqlite3.Connection, step: _Step) -> Any:
        if self._connection is not connection:
            self._begin(connection)
        if step.keys is None:
            digests = {digest: digest for (digest,) in connection.execute("SELECT key FROM state")}
        else:
            digests = {key: self._digest(key) for key in step.keys}
        before = self._read(connection, digests)
        documents = {key: marshal.loads(image) for key, image in before.items()}  # noqa: S302 - images are made here
        if not step.turn.acquire(blocking=False):  # or a file found damaged after `work` brings it here again
            raise self._unusable("the step was given up")
        result = step.work(documents)
        if not documents.keys() <= digests.keys():
            raise ValueError("a step may only add documents under the keys it named")
        now = time()
        for key, digest in digests.items():
            if key in documents:
                self._put(connection, digest, documents[key], before.get(key), now)
            elif key in before:
                connection.execute("DELETE FROM state WHERE key = ?", (digest,))
        if now >= self._prune_at:
            self._prune(connection, now)
        return result

    def _begin(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("SELECT key, updated_at, body FROM state LIMIT 0")
            meta = dict(connection.execute("SELECT name, CAST(value AS BLOB) FROM meta"))
            salt, pruned_at = meta["salt"], float(meta["pruned_at"])
        except (sqlite3.OperationalError, KeyError, ValueError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
                raise
            if self._database.version > len(STEPS):
                raise self._unusable("it is of a newer llmctl, and nothing here knows its tables") from error
            raise damaged("its tables are not what they were") from error
        # A clock that was wrong once does not put it off for ever.
        self._prune_at = pruned_at + _PRUNE_S if pruned_at <= time() else 0.0
        self._salt, self._connection = salt, connection

    def _digest(self, key: str) -> str:
        return blake2b(self._salt + key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _read(self, connection: sqlite3.Connection, digests: Mapping[str, str]) -> dict[str, bytes]:
        """The image of each document that is there and whole. As bytes, since damaged text may be no UTF-8."""
        marks = ", ".join("?" * len(digests))
        found = dict(
            connection.execute(
                f"SELECT key, CAST(body AS BLOB) FROM state WHERE key IN ({marks})",  # noqa: S608 - marks only
                tuple(digests.values()),
            )
        )
        images = {key: self._image(digest, found[digest]) for key, digest in digests.items() if digest in found}
        return {key: image for key, image in images.items() if image is not None}

    def _image(self, digest: str, body: bytes) -> bytes | None:
        """The document of `body` in a form that is quick to make anew: remembered while nobody else writes it."""
        known = self._known.get(digest)
        if known is not None and known[0] == body:
            return known[1]
        try:
            document = _decode(body.decode())
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or not self._is_whole(document):
            return None
        return self._remember(digest, body, document)

    def _put(
        self, connection: sqlite3.Connection, digest: str, document: Any, before: bytes | None, now: float
    ) -> None:
        if before is not None and marshal.dumps(document, _PLAIN) == before:
            return
        body = _encode(document)
        connection.execute(
            "INSERT INTO state (key, updated_at, body) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET updated_at = excluded.updated_at, body = excluded.body",
            (digest, now, body),
        )
        self._remember(digest, body.encode(), document)

    def _remember(self, digest: str, body: bytes, document: Any) -> bytes:
        image = marshal.dumps(document, _PLAIN)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[digest] = body, image
        return image

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute(
            "DELETE FROM state WHERE key IN (SELECT key FROM state WHERE updated_at < ? LIMIT ?)",
            (now - KEEP_S, _PRUNE_ROWS),
        )
        connection.execute("UPDATE meta SET value = ? WHERE name = 'pruned_at'", (now,))
        self._prune_at = now + _PRUNE_S


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_PLAIN = 2  # the last format of marshal without references: equal documents have equal images
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_no_number).decode


@contextmanager
def passing_state(is_whole: Callable[[dict[str, Any]], bool] = lambda _: True) -> Iterator[SqliteState]:
    """A state of its own file, which is deleted at the end: for who must not touch the one of real calls.

    Raises ConfigInvalid where no file can be made.
    """
    from tempfile import TemporaryDirectory  # slow to load, and no call of a user's needs it

    try:
        made = TemporaryDirectory(prefix="llmctl-", ignore_cleanup_errors=True)
    except OSError as error:
        what = f"no temporary directory can be made: {error.strerror}"
        raise ConfigInvalid(what, hint="let TMPDIR name one that can be written") from error
    with made as home:
        state = SqliteState(os.path.join(home, "state.db"), is_whole)
        try:
            yield state
        finally:
            state.close()
