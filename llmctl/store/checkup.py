"""Is the ledger whole? One read-only look at the file, its schema, its journal and what waits beside it."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

from llmctl.store.files import size
from llmctl.store.history import open_to_read
from llmctl.store.schema import STEPS, columns_of, has_search
from llmctl.store.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

_ORPHAN_S = 86400.0
_MOST = 20


def check(path: Path | str, spool: Path | str, now: float) -> dict[str, Any]:
    """What was found; `ok` is False exactly when `problems` says something. A missing ledger is whole.

    `orphans` are calls that started more than a day before `now` and never ended: their process was killed. They are
    the truth, as rows waiting in the spool are, and no problem.
    """
    path = os.fspath(path)
    waiting, bad = Spool(os.fspath(spool)).count()
    report: dict[str, Any] = {
        "ok": True,
        "path": path,
        "exists": os.path.lexists(path),
        "size_bytes": size(path),
        "journal_bytes": size(path + "-wal"),
        "mode": None,
        "schema": None,
        "schema_of_llmctl": len(STEPS),
        "journal_mode": None,
        "integrity": None,
        "counts": {},
        "search": None,
        "orphans": 0,
        "spool": {"path": os.fspath(spool), "waiting": waiting, "unreadable": bad},
        "set_aside": _set_aside(path),
        "problems": [],
    }
    problems: list[str] = report["problems"]
    if bad:
        problems.append(f"{bad} files in {os.fspath(spool)} are not ledger rows")
    if report["exists"]:
        problems += _look_at_file(path, report)
        try:
            with closing(open_to_read(path)) as connection:
                problems += _look_inside(connection, report, now)
        except sqlite3.Error as error:
            report["integrity"] = report["integrity"] or str(error)
            problems.append(f"cannot be read: {error}")
    report["ok"] = not problems
    return report


def _look_at_file(path: str, report: dict[str, Any]) -> list[str]:
    found = os.lstat(path)
    mode = stat.S_IMODE(found.st_mode)
    report["mode"] = f"{mode:04o}"
    problems = []
    if not stat.S_ISREG(found.st_mode):
        problems.append("the path is a link or no file: nothing is written through it")
    elif mode & 0o077:
        problems.append(f"others may read it (mode {mode:04o}): the next call makes it 0600")
    if found.st_uid != os.geteuid():
        problems.append("it belongs to another user: nothing is written to it")
    return problems


def _look_inside(connection: sqlite3.Connection, report: dict[str, Any], now: float) -> list[str]:
    def value(query: str, *values: object) -> Any:
        return connection.execute(query, values).fetchone()[0]

    report["schema"] = value("PRAGMA user_version")
    report["journal_mode"] = value("PRAGMA journal_mode")
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST})")]
    report["integrity"] = "; ".join(found)
    problems = [] if found == ["ok"] else [f"damaged: {line}" for line in found]
    for table in ("calls", "attempts", "tags", "content"):
        if columns_of(connection, table):
            report["counts"][table] = value(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        elif report["schema"]:
            problems.append(f"the table {table} is missing")
    if "calls" in report["counts"]:
        report["orphans"] = value(
            "SELECT count(*) FROM calls WHERE state = 'started' AND started_at < ?", now - _ORPHAN_S
        )
    report["search"] = "index" if has_search(connection) else "scan"
    return problems


def _set_aside(path: str) -> list[str]:
    """Damaged ledgers kept beside this one."""
    directory, name = os.path.split(path)
    try:
        beside = os.listdir(directory or ".")
    except OSError:
        return []
    ours = (each for each in beside if each.startswith(name + ".corrupt-"))
    return sorted(os.path.join(directory, each) for each in ours if not each.endswith(("-wal", "-shm", "-journal")))
