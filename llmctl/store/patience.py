"""Waiting for other processes at a SQLite file: one transaction at a time, and what the errors of SQLite say."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from time import monotonic, monotonic_ns, sleep
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SLICE_S = 1.0
RETRY_S = 0.01
_LONGEST_RETRY_S = 0.032

# Primary result codes, sqlite.org/rescode.html.
_BUSY = (5, 6, 15)  # BUSY, LOCKED, PROTOCOL (a race for the wal-index that lasted)
_CORRUPT = (11, 26)  # CORRUPT, NOTADB


def is_busy(error: BaseException) -> bool:
    """Whether `error` says that another process holds the file."""
    return _code(error) in _BUSY


def is_corrupt(error: BaseException) -> bool:
    """Whether `error` says that the file is damaged, or no database."""
    return _code(error) in _CORRUPT


def damaged(why: str) -> sqlite3.DatabaseError:
    """The error that SQLite would raise had it noticed: raised within a write, it has the file moved aside."""
    error = sqlite3.DatabaseError(why)
    error.sqlite_errorcode = _CORRUPT[0]
    return error


def _code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def immediate(connection: sqlite3.Connection, work: Callable[[], T], deadline: float, hurry: Callable[[], bool]) -> T:
    """What `work()` returns, inside BEGIN IMMEDIATE: a deferred one that reads first is refused despite any timeout.

    SQLite itself would look again each 100 ms, so that 50 processes at once need twice the time that their work takes.
    """
    patient_until, pause_s = monotonic() + _SLICE_S, RETRY_S / 8
    while True:
        left = deadline - monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or left <= 0 or (monotonic() > patient_until and hurry()):
                raise
        pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
        sleep(min(left, pause_s * (1 + monotonic_ns() // 1000 % 100 / 100) / 2))  # apart from those who wait alike
    try:
        result = work()
        patiently(connection, "COMMIT", deadline)  # with a rollback journal it waits for readers
    except BaseException:
        with suppress(sqlite3.Error):  # a broken disk may refuse even this; what broke first is what is said
            connection.execute("ROLLBACK")
        raise
    return result


def patiently(connection: sqlite3.Connection, sql: str, deadline: float) -> Any:
    """The first value that `sql` answers; retried while busy, since not every lock calls the busy handler."""
    while True:
        try:
            return (connection.execute(sql).fetchone() or (None,))[0]
        except sqlite3.OperationalError as error:
            if not is_busy(error) or monotonic() >= deadline:
                raise
        sleep(RETRY_S)
