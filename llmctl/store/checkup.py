"""Is the ledger whole? A read-only look at file, schema, journal and what waits beside it; a glance at any database."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core import days
from llmctl.store.cover import ledger_zone
from llmctl.store.db import SIDE_FILES
from llmctl.store.files import size
from llmctl.store.history import Filter, open_to_read
from llmctl.store.patience import is_corrupt
from llmctl.store.rollup import pruned_before
from llmctl.store.schema import STEPS, SUMS, TABLES, columns_of, has_search
from llmctl.store.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MOST = 20
_COMPARED = ("calls", "cost_nanousd", "input_tokens", "output_tokens")
"""Which sums are compared with the rows: those that anybody would notice."""


def check(path: Path | str, spool: Path | str, now: float) -> dict[str, Any]:
    """What was found; `ok` is False exactly when `problems` says something. A missing ledger is whole.

    `orphans` are calls that were interrupted: their process was killed. They are the truth, as rows waiting in the
    spool are, and no problem; nor are damaged ledgers that were `set_aside`, or are kept as `salvaged` since their rows
    were brought back. `damaged` says that the file itself is of no use as it is.
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
        "damaged": False,
        "counts": {},
        "search": None,
        "orphans": 0,
        "spool": {"path": os.fspath(spool), "waiting": waiting, "unreadable": bad},
        "set_aside": beside(path, ".corrupt-"),
        "salvaged": beside(path, ".salvaged-"),
        "problems": [],
    }
    problems: list[str] = report["problems"]
    if bad:
        problems.append(f"{bad} files in {os.fspath(spool)} are not ledger rows")
    if report["exists"]:
        try:
            problems += _look_at_file(path, report)
            with closing(open_to_read(path)) as connection:
                problems += _look_inside(connection, report, now)
        except FileNotFoundError:  # moved aside just now: whoever does that begins a new one
            report["exists"] = False
        except sqlite3.Error as error:
            report["integrity"] = report["integrity"] or str(error)
            report["damaged"] = is_corrupt(error)
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

    connection.execute("BEGIN")  # one state of the ledger, whoever writes meanwhile
    report["schema"] = value("PRAGMA user_version")
    report["journal_mode"] = value("PRAGMA journal_mode")
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST})")]
    report["integrity"] = "; ".join(found)
    problems = [] if found == ["ok"] else [f"damaged: {line}" for line in found]
    for table in TABLES:
        if columns_of(connection, table):
            report["counts"][table] = value(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        elif report["schema"]:
            problems.append(f"the table {table} is missing")
    report["damaged"] = bool(problems)
    if "calls" in report["counts"]:
        interrupted, values = Filter(state="interrupted").sql(connection, now)
        report["orphans"] = value(f"SELECT count(*) FROM calls WHERE {interrupted}", *values)  # noqa: S608
    if not problems and report["schema"] >= len(STEPS) and rollups_differ(connection):
        problems.append("the sums that reports are made of disagree with the calls")
    report["search"] = "index" if has_search(connection) else "scan"
    return problems


class Glance(NamedTuple):
    """What a quick look at a database file found: `unusable` as it is, `whole` where all of it was looked at."""

    exists: bool = False
    problems: tuple[str, ...] = ()
    unusable: bool = False
    whole: bool = True
    newest: float | None = None


def glance(path: Path | str, limit_s: float = 0.5) -> Glance:
    """A look at any of our databases that takes no longer than about `limit_s`; `newest` is the last call's beginning.

    Opened read-only. A missing file is a good one.
    """
    path, until = os.fspath(path), monotonic() + limit_s
    if not os.path.lexists(path):
        return Glance()
    problems = _look_at_file(path, {})
    unusable = any("nothing is written" in each for each in problems)
    whole, newest = True, None
    try:
        with closing(open_to_read(path)) as connection:
            connection.execute("BEGIN")
            if columns_of(connection, "calls"):
                newest = connection.execute("SELECT max(started_at) FROM calls").fetchone()[0]
            connection.set_progress_handler(lambda: monotonic() > until, 5_000)
            try:
                found = [row[0] for row in connection.execute(f"PRAGMA quick_check({_MOST})")]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_INTERRUPT:
                    raise
                found, whole = ["ok"], False
            problems += [] if found == ["ok"] else [f"damaged: {found[0]}"]
            unusable = unusable or found != ["ok"]
    except FileNotFoundError:  # moved aside just now
        return Glance()
    except (sqlite3.Error, OSError) as error:
        problems, unusable = [*problems, f"cannot be read: {error}"], True
    return Glance(True, tuple(problems), unusable, whole, newest if isinstance(newest, float) else None)


def rollups_differ(connection: sqlite3.Connection) -> bool:
    """Whether the rollups hold something else than the calls that are rolled up, since those were last pruned."""
    since, zone = pruned_before(connection), ledger_zone(connection)

    def sums(columns: Iterable[str], table: str, *values: object) -> Any:
        query = f"SELECT {', '.join(f'total({each})' for each in columns)} FROM {table}"  # noqa: S608 - our own names
        return connection.execute(query, values).fetchone()

    said = sums((SUMS[name] for name in _COMPARED), "calls WHERE rolled = 1 AND started_at >= ?", since)
    held = [sums(_COMPARED, "rollup_quarters WHERE label = '' AND quarter >= ?", since)]
    if zone is not None:
        held.append(sums(_COMPARED, "rollup_days WHERE label = '' AND day >= ?", days.day_of(since, zone)))
    return any(each != said for each in held)


def beside(path: str, mark: str) -> list[str]:
    """Ledgers that were moved aside and are kept next to this one, by what their names have after its own."""
    directory, name = os.path.split(path)
    try:
        found = os.listdir(directory or ".")
    except OSError:
        return []
    ours = (each for each in found if each.startswith(name + mark))
    return sorted(os.path.join(directory, each) for each in ours if not each.endswith(SIDE_FILES))
