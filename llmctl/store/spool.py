"""Ledger rows that wait as files, one per call, while the ledger cannot be written.

A file is written whole by the process whose call it is. Whoever merges claims it first, by a rename, so that a fuller
version written meanwhile is a file of its own; a claim left by a killed merger is taken up by the next. Merging is
idempotent, so a row merged twice is there once.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmctl.store.files import directory_lock, private_directory, size, write_private
from llmctl.store.schema import Value, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WAITING = ".json"
_CLAIMED = ".merging"
_BAD = ".bad"
_MAX_FILES = 50
_MAX_BYTES = 8 << 20
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_UNFIT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written of one call at one of its two instants. `final` when the call has ended; values are storable."""

    call: Mapping[str, Value]
    tags: Mapping[str, Value] = field(default_factory=dict)
    attempts: Sequence[Mapping[str, Value]] = ()
    prompt: Value = None
    answer: Value = None
    final: bool = False

    @property
    def id(self) -> str:
        """The call's id."""
        return str(self.call["id"])


class Spool:
    """The directory of waiting rows; made when first written."""

    def __init__(self, directory: str) -> None:
        """Touches nothing."""
        self.directory = directory

    def add(self, entry: Entry) -> None:
        """Keep `entry` until it can be merged, with the prompt that an earlier one of the same call holds.

        Raises OSError when it cannot be written.
        """
        private_directory(self.directory)
        path = os.path.join(self.directory, entry.id + _WAITING)
        if entry.final and entry.prompt is None:
            with suppress(OSError, *_UNREADABLE):
                entry = replace(entry, prompt=_read(path).prompt)
        write_private(path, _dump(entry))

    def count(self) -> tuple[int, int]:
        """How many rows wait, and how many files are of no use."""
        names = self._names()
        return sum(name.endswith((_WAITING, _CLAIMED)) for name in names), sum(name.endswith(_BAD) for name in names)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except OSError:
            return []

    def merge(self, store: Callable[[Entry], None]) -> int:
        """How many waiting rows were handed to `store` and let go; at most 50 files, one merger at a time.

        What `store` raises comes through, and what has not been stored keeps waiting; a row that no ledger could take
        is kept under another name.
        """
        if not any(name.endswith((_WAITING, _CLAIMED)) for name in self._names()):
            return 0
        merged = 0
        with directory_lock(self.directory, wait=False) as held:
            for claim in self._claim() if held else ():
                try:
                    entry = _read(claim)
                    store(entry)
                except FileNotFoundError:
                    continue
                except (*_UNREADABLE, PermissionError, *_UNFIT):
                    with suppress(OSError):
                        os.rename(claim, claim.removesuffix(_CLAIMED) + _BAD)
                    continue
                merged += 1
                with suppress(FileNotFoundError):
                    os.unlink(claim)
        return merged

    def _claim(self) -> list[str]:
        """The files that are ours to merge: claims nobody finished, then waiting ones, within the bounds."""
        names = sorted(self._names(), key=lambda name: (not name.endswith(_CLAIMED), name))
        claims: list[str] = []
        total = 0
        for name in names:
            if not name.endswith((_WAITING, _CLAIMED)) or len(claims) >= _MAX_FILES or total >= _MAX_BYTES:
                continue
            path = os.path.join(self.directory, name)
            total += size(path)
            if name.endswith(_WAITING):
                claim = f"{path.removesuffix(_WAITING)}.{os.urandom(4).hex()}{_CLAIMED}"
                try:
                    os.rename(path, claim)
                except OSError:
                    continue
                path = claim
            claims.append(path)
        return claims


def _read(path: str) -> Entry:
    import json

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, encoding="utf-8") as file:
        document = json.load(file)
    return Entry(
        call=_row(document["call"]),
        tags=_row(document["tags"]),
        attempts=[_row(attempt) for attempt in document["attempts"]],
        prompt=stored("prompt", document["prompt"]),
        answer=stored("answer", document["answer"]),
        final=bool(document["final"]),
    )


def _row(document: Mapping[str, Any]) -> dict[str, Value]:
    return {name: stored(name, value) for name, value in document.items()}


def _dump(entry: Entry) -> bytes:
    import json

    return json.dumps(asdict(entry), ensure_ascii=False).encode("utf-8")
