"""What `doctor` looks at on the disk: the home, its databases, the spool, the room that is left, and the clocks.

Only reads, but for one empty file that is gone at once: the file system's own time is told by nothing else.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from llmctl.store.checkup import beside, glance
from llmctl.store.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmctl.config.places import Places

_ROOM_WARN, _ROOM_FAIL = 500 << 20, 5 << 20
_SKEW_S = 5.0
_SLIP_S = 1.0
_HOME = "point LLMCTL_HOME at a directory of your own that can be written"


Status = Literal["ok", "warn", "fail"]
UNUSABLE = 3


class Finding(NamedTuple):
    """What a check found; `exit` is the exit code where that is a failure."""

    check: str
    status: Status
    what: str
    hint: str = ""
    exit: int = UNUSABLE


def findings(places: Places, now: float, began: float) -> Iterator[Finding]:
    """What is found at `places`; `now` and `began` are what the wall clock and the monotonic one said a moment ago."""
    yield from _home(places.home)
    yield from _ledger(places)
    yield from _disposable("state", places.state)
    yield from _disposable("cache", places.cache)
    yield from _room(places.home)
    yield from _clock(places, now, began)


def looseness(path: Path) -> str:
    """What is wrong with the mode of a file that decides which commands run, "" when nothing is."""
    try:
        found = path.stat()
    except OSError:
        return ""
    if found.st_mode & 0o022 and stat.S_ISREG(found.st_mode):
        return f"others may change it (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _home(home: Path) -> Iterator[Finding]:
    existing = _nearest(home)
    writable = os.access(existing, os.W_OK | os.X_OK) and not os.statvfs(existing).f_flag & os.ST_RDONLY
    if existing != home.absolute():
        if existing.is_dir() and writable:
            yield Finding("home", "ok", f"{home}: not there yet, the first call makes it")
        else:
            yield Finding("home", "fail", f"{home} cannot be made: {existing} cannot be written", _HOME)
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if not home.is_dir():
        yield Finding("home", "fail", f"{home} is no directory", _HOME)
    elif not writable:
        yield Finding("home", "fail", f"{home} cannot be written: no call would be kept", _HOME)
    elif mode & 0o077:
        yield Finding("home", "warn", f"{home}: others may look into it (mode {mode:04o})", f"chmod 700 {home}")
    else:
        yield Finding("home", "ok", f"{home}, yours alone")


def _ledger(places: Places) -> Iterator[Finding]:
    found = glance(places.ledger)
    if not found.exists:
        yield Finding("ledger", "ok", "none yet")
    for problem in found.problems:
        fails = found.unusable and not problem.startswith("others")
        status: Status = "fail" if fails else "warn"
        hint = "`llmctl ledger check --repair` brings back every readable row" if fails else ""
        yield Finding("ledger", status, f"{places.ledger}: {problem}", hint)
    if found.exists and not found.problems:
        rest = "" if found.whole else "; it is large: `llmctl ledger check` looks at all of it"
        yield Finding("ledger", "ok", f"{places.ledger}: {_size(places.ledger)}, whole{rest}")
    waiting, bad = Spool(os.fspath(places.spool)).count()
    if waiting:
        yield Finding("spool", "warn", f"{waiting} calls wait to be written into the ledger", "the next call does it")
    if bad:
        yield Finding("spool", "warn", f"{bad} files in {places.spool} are no ledger rows", "move them away")
    aside = beside(os.fspath(places.ledger), ".corrupt-")
    if aside:
        hint = "`llmctl ledger check --repair` brings back their rows"
        yield Finding("ledger", "warn", f"damaged ledgers were set aside: {len(aside)}", hint)


def _disposable(name: str, path: Path) -> Iterator[Finding]:
    found = glance(path)
    for problem in found.problems:
        hint = "the next call moves it aside and begins a new one" if "damaged" in problem else ""
        yield Finding(name, "warn", f"{path}: {problem}", hint)
    if not found.problems:
        yield Finding(name, "ok", f"{_size(path)}, whole" if found.exists else "none yet")


def _room(home: Path) -> Iterator[Finding]:
    system = os.statvfs(_nearest(home))
    free = system.f_bavail * system.f_frsize
    status: Status = "fail" if free < _ROOM_FAIL else "warn" if free < _ROOM_WARN else "ok"
    room = f"{free / 1e9:.1f} GB" if free >= 10**9 else f"{free / 1e6:.0f} MB"
    yield Finding("disk", status, f"{room} free", "" if status == "ok" else "make room: calls are kept there")


def _clock(places: Places, now: float, began: float) -> Iterator[Finding]:
    wrong = []
    newest = glance(places.ledger, limit_s=0.0).newest
    if newest is not None and newest > now + 60:
        wrong.append(f"the newest call of the ledger is {(newest - now) / 60:.0f} minutes in the future")
    if places.home.is_dir() and os.access(places.home, os.W_OK):
        try:
            with tempfile.TemporaryFile(dir=places.home) as file:
                file.write(b".")
                file.flush()
                skew = os.fstat(file.fileno()).st_mtime - time.time()
            if abs(skew) > _SKEW_S:
                ahead = "ahead of" if skew > 0 else "behind"
                wrong.append(f"the file system's clock is {abs(skew):.0f} s {ahead} this machine's")
        except OSError:
            pass  # no room, or read-only: that is said elsewhere
    slip = (time.time() - now) - (time.monotonic() - began)
    if abs(slip) > _SLIP_S:
        wrong.append(f"the clock was set by {slip:+.0f} s just now")
    for each in wrong:
        yield Finding("clock", "warn", each, "set the clock: budgets, caches and limits go by it")
    if not wrong:
        yield Finding("clock", "ok", "agrees with the ledger and the file system")


def _nearest(path: Path) -> Path:
    """`path`, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size / 1e6:.1f} MB"
    except OSError:
        return "0 MB"
