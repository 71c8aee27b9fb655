"""Opening and writing a SQLite file the house way: private, WAL, short immediate transactions, migrated once.

A file that cannot be used is never a crash: a damaged one is moved aside and a new one begun, a directory without
shared memory is served with a rollback journal, and both are said once in `notes`. What the tables mean is not known
here. One thread at a time uses a `Database`; its connection is opened when first needed.

No connection crosses a fork: a child would believe in locks that only its parent holds, even on a connection of its own
(sqlite.org/howtocorrupt.html, 2.6). So a fork waits for the write that runs, and every connection is closed before it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from llmctl.store.files import (
    directory_lock,
    free_name,
    identity,
    mounts,
    on_network,
    private_directory,
    private_file,
    size,
)
from llmctl.store.patience import RETRY_S, damaged, immediate, is_busy, is_corrupt, patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Step = Callable[[sqlite3.Connection], None]

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
_SLICE_S = 1.0
LENIENT = partial(str, encoding="utf-8", errors="replace")
"""How text is read: a spoilt byte of a file that is otherwise whole costs one character, not all of its rows."""
_CHECKPOINT_BYTES = 1 << 20
SIDE_FILES = ("-wal", "-shm", "-journal")

# Extended: CANTOPEN, NOLFS, IOERR_SHMOPEN, _SHMLOCK, _SHMMAP. Not _SHMSIZE: that is a full disk.
_NO_SHARED_MEMORY = (14, 22, 4618, 5130, 5386)


def uri(path: str, mode: str) -> str:
    """The SQLite URI of a file; `mode` is "rw", "ro" or "ro&immutable=1"."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=" + mode


class _MovedAside(Exception):
    """Another process has moved the file aside."""


class _Foreign(sqlite3.DatabaseError):
    """The file is a database of another program."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


class Database:
    """One SQLite file with the migrations that make its schema: `steps[n]` takes version n to n + 1.

    `notes` is what a person should hear of, `version` the schema found (more than `len(steps)` for a file of a newer
    llmctl, which is left as it is).
    """

    def __init__(
        self,
        path: Path | str,
        steps: Sequence[Step],
        *,
        vfs: str = "",
        disposable: bool = False,
        secure: bool = False,
        mark: int = 0,
    ) -> None:
        """Touches nothing yet. `vfs` names another file layer of SQLite (sqlite.org/vfs.html).

        A `disposable` file is never waited for to reach the disk: a power loss may damage it, a dying process may not.
        What is deleted is overwritten, unless it is disposable and not `secure`. With a `mark` (an `application_id`,
        which the first step is to set) a database of another program is moved aside instead of being given our tables.
        """
        self.path = os.fspath(path)
        self._uri = uri(self.path, "rw") + (f"&vfs={vfs}" if vfs else "")
        self.notes: list[str] = []
        self.version = 0
        self._steps = steps
        self._disposable = disposable
        self._secure = secure or not disposable
        self._mark = mark
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._using = threading.Lock()
        _databases.add(self)

    def write(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        deadline: float | None = None,
        hurry: Callable[[], bool] = lambda: False,
        checkpoint: bool = True,
    ) -> T:
        """What `work(connection)` returns, run in one immediate transaction.

        Waits for other writers until `deadline` (monotonic seconds; default 30 s from now), or gives up sooner, within
        a second, once `hurry()` says so. `checkpoint` False never spends time on a checkpoint after it. Raises
        LedgerUnusable for a file that is not ours, sqlite3.Error or OSError when it cannot be written.
        """
        if deadline is None:
            deadline = monotonic() + BUSY_TIMEOUT_S
        with self._using:
            result = self._on_a_whole_file(lambda: self._write(work, deadline, hurry))
            if checkpoint and size(self.path + "-wal") > _CHECKPOINT_BYTES:
                self._checkpoint()
            return result

    def read(self, work: Callable[[sqlite3.Connection], T], *, deadline: float | None = None) -> T:
        """What `work(connection)` returns: it sees one state of the file, and holds nobody up who writes.

        With a rollback journal it waits until `deadline` for a commit, and `work` may run again. Raises as `write`.
        """
        until = monotonic() + BUSY_TIMEOUT_S if deadline is None else deadline
        with self._using:
            return self._on_a_whole_file(lambda: self._read(work, until))

    def close(self) -> None:
        """Close the connection, with a checkpoint if it is the last one; a later write opens another."""
        with self._using:
            self._let_go()

    def _on_a_whole_file(self, work: Callable[[], T]) -> T:
        """What `work()` returns; again on a new file when this one is damaged, or not ours."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                if not is_busy(error):
                    self._let_go()
                raise
            self._set_aside("another program's database" if isinstance(error, _Foreign) else "damaged")
            return work()

    def _read(self, work: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        while True:
            try:
                connection = self._connect(deadline, lambda: False)
                connection.execute("BEGIN")
                try:
                    return work(connection)
                finally:
                    with suppress(sqlite3.Error):  # what broke the work is what is said
                        connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                if not is_busy(error) or monotonic() >= deadline:
                    raise
            sleep(RETRY_S)

    def _write(self, work: Callable[[sqlite3.Connection], T], deadline: float, hurry: Callable[[], bool]) -> T:
        def work_here(connection: sqlite3.Connection) -> T:
            if identity(self.path) != self._inode:
                raise _MovedAside  # while its lock was waited for: what is written into it would not be found
            return work(connection)

        while True:
            connection = self._connect(deadline, hurry)
            with suppress(_MovedAside):
                return immediate(connection, partial(work_here, connection), deadline, hurry)

    def _checkpoint(self) -> None:
        """Bring the journal in and cut it, as far as that holds nobody up.

        The passive one does the work beside readers and writers. The cut needs an instant without them: without it a
        process that comes alone finds the whole journal again, since what was brought in is noted in memory only.
        """
        assert self._connection is not None
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self, deadline: float, hurry: Callable[[], bool]) -> sqlite3.Connection:
        if self._connection is not None:
            if identity(self.path) == self._inode:
                return self._connection
            self._let_go()
        private_directory(os.path.dirname(self.path) or ".")
        if _orphan_journal(self.path):
            self._inode = identity(self.path)
            self._set_aside("damaged")
        connection = self._open()
        try:
            self._prepare(connection, deadline, hurry)
        except UnicodeDecodeError as error:  # what SQLite says of a damaged schema quotes it
            connection.close()
            raise damaged("malformed database schema") from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _open(self) -> sqlite3.Connection:
        """A connection to the file, made if need be; again when a racing process has just moved it aside."""
        while True:
            private_file(self.path)
            self._inode = identity(self.path)
            try:
                # Whoever forks closes it, so it is not bound to a thread; `_using` keeps it to one at a time.
                return sqlite3.connect(
                    self._uri, uri=True, isolation_level=None, timeout=_SLICE_S, check_same_thread=False
                )
            except sqlite3.OperationalError:
                if os.path.lexists(self.path):
                    raise

    def _prepare(self, connection: sqlite3.Connection, deadline: float, hurry: Callable[[], bool]) -> None:
        try:
            self.version = patiently(connection, "PRAGMA user_version", deadline)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _NO_SHARED_MEMORY:
                raise
            self._use_rollback_journal(connection, str(error))
            self.version = patiently(connection, "PRAGMA user_version", deadline)
        if self._mark and not self._ours(connection, deadline):
            raise _Foreign("the file is another program's database")
        if self.version == 0:
            self._begin_journal(connection, deadline)
        wal = patiently(connection, "PRAGMA journal_mode", deadline) == "wal"
        # NORMAL is safe in WAL; a rollback journal it may corrupt at power loss (sqlite.org/pragma.html, synchronous).
        connection.execute(f"PRAGMA synchronous = {'OFF' if self._disposable else 'NORMAL' if wal else 'FULL'}")
        # Checkpoints are ours to time; a journal begun again is cut to what it holds, so that its size says when.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA journal_size_limit = 0")
        connection.text_factory = LENIENT
        if self._secure:  # what is deleted is overwritten, as some builds of SQLite do anyway
            connection.execute("PRAGMA secure_delete = ON").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")  # from here on waiting is ours: set anew, it costs each write
        if self.version < len(self._steps):
            immediate(connection, lambda: self._migrate(connection), deadline, hurry)

    def _ours(self, connection: sqlite3.Connection, deadline: float) -> bool:
        """Whether the file bears our mark, or nothing at all yet; in this order, since others may be making it now."""
        tables = patiently(connection, "SELECT count(*) FROM sqlite_master", deadline)
        found = patiently(connection, "PRAGMA application_id", deadline)
        return found == self._mark or not (tables or found)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Run the steps that the file lacks, by the version found under the lock: others may have been first."""
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        for step in self._steps[found:]:
            step(connection)
        if found < len(self._steps):
            connection.execute(f"PRAGMA user_version = {len(self._steps)}")
        self.version = max(found, len(self._steps))

    def _begin_journal(self, connection: sqlite3.Connection, deadline: float) -> None:
        """WAL for a new file, where it works. Only here: setting it on every start costs more than the write."""
        directory = os.path.dirname(os.path.abspath(self.path))
        network = on_network(directory, mounts())
        if network:
            self._use_rollback_journal(connection, network)
            return
        try:
            answer = patiently(connection, "PRAGMA journal_mode = WAL", deadline)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _NO_SHARED_MEMORY:
                raise
            answer = str(error)
        if answer != "wal":
            self._use_rollback_journal(connection, f"journal_mode answers {answer}")

    def _use_rollback_journal(self, connection: sqlite3.Connection, why: str) -> None:
        # Exclusive locking needs no shared memory, so that even a file already in WAL can be taken back.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        connection.execute("PRAGMA locking_mode = NORMAL")
        connection.execute("PRAGMA user_version").fetchone()  # the lock is let go by the next read
        self.notes.append(f"{self.path}: no shared journal in this directory ({why}); writes are slower here")

    def _set_aside(self, what: str) -> None:
        """Move the file away with its journals, because it was `what`, unless another process has done so already."""
        found = self._inode
        self._let_go()
        with directory_lock(os.path.dirname(self.path) or "."):
            if found is None or identity(self.path) != found:
                return
            aside = free_name(f"{self.path}.corrupt-{int(time())}")
            for suffix in (*SIDE_FILES, ""):  # the file itself last: whoever opens it meanwhile still finds it damaged
                with suppress(FileNotFoundError):  # not there, or deleted by whoever closed it last
                    os.rename(self.path + suffix, aside + suffix)
        self.notes.append(f"{self.path} was {what}: it is kept as {aside}, and a new one was begun")


_databases: WeakSet[Database] = WeakSet()
_held: list[Database] = []


def _before_fork() -> None:
    for database in list(_databases):
        database._using.acquire()  # noqa: SLF001 - this module's own
        database._let_go()  # noqa: SLF001
        _held.append(database)


def _after_fork() -> None:
    while _held:
        _held.pop()._using.release()  # noqa: SLF001


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _orphan_journal(path: str) -> bool:
    """Whether an empty file has a journal with content: a truncation, since a new file gets its header first."""
    return size(path + "-wal") > 0 and os.path.lexists(path) and size(path) == 0
