"""Reading a damaged SQLite file without SQLite: page by page, so that one bad page costs only what stood on it.

Pure reading: nothing is written, and no page is believed because another points to it. A cell counts when its record
adds up to the last byte. Which table a record belongs to is for `recover` to tell. Pages of rollback journals are not
looked at. Format: sqlite.org/fileformat2.html (2026-11-20), cited below by section.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Cell = str | int | float | bytes | None

INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF = 0x02, 0x0A, 0x0D
_SHAPES = {INDEX_INTERIOR: (12, 4), INDEX_LEAF: (8, 0), TABLE_LEAF: (8, 0)}
"""Page types that hold records (1.6): bytes of the page's header, and of the child pointer before each payload."""
_INTEGERS = (0, 1, 2, 3, 4, 6, 8)  # bytes by serial type (2.1)
_SIZES = tuple(1 << bits for bits in range(9, 17))
_SAMPLE = 256
_FRAME = 24
_MAGIC = (0x377F0682, 0x377F0683)


class _Damaged(ValueError):
    """What is written here is no record."""


class Shape(NamedTuple):
    """How long a page is, and how much of it SQLite uses."""

    size: int
    usable: int

    def local(self, length: int, *, table: bool) -> int:
        """How many bytes of a payload of `length` stand on its page (1.6, "Cell Payload Overflow Pages")."""
        most = self.usable - 35 if table else (self.usable - 12) * 64 // 255 - 23
        if length <= most:
            return length
        least = (self.usable - 12) * 32 // 255 - 23
        kept = least + (length - least) % (self.usable - 4)
        return kept if kept <= most else least


class Pages:
    """The newest committed state of a database file and its write-ahead journal, as far as it can be read.

    `count` is the number of its last page. Opens plain descriptors: SQLite's locks on this file, should this process
    hold any, are gone when they are closed.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError when the file cannot be opened."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._journal: int | None = None
        with suppress(OSError):
            self._journal = os.open(path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._frames: dict[int, int] = {}
        size = os.fstat(self._file).st_size
        header, journal = os.pread(self._file, 100, 0), self._journal_header()
        self.shape = self._guess(header, journal, size)
        self.count = size // self.shape.size
        if self._journal is not None:
            self._read_journal(journal)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._file, self._journal):
            if descriptor is not None:
                os.close(descriptor)

    def page(self, number: int) -> bytes:
        """The page; empty where there is none, or not all of it."""
        size = self.shape.size
        if not 0 < number <= self.count:
            return b""
        at = self._frames.get(number)
        if at is not None and self._journal is not None:
            return os.pread(self._journal, size, at)
        data = os.pread(self._file, size, (number - 1) * size)
        return data if len(data) == size else b""

    def records(self, number: int) -> tuple[int, list[list[Cell]], int]:
        """(type, records, cells that are none) of a page; type 0 when it holds no records."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        kind = page[start] if len(page) > start else 0
        if kind not in _SHAPES:
            return 0, [], 0
        found: list[list[Cell]] = []
        bad = 0
        for at in _cells(page, start, self.shape.usable):
            if not at:
                bad += 1
                continue
            try:
                found.append(self._record(page, at, kind))
            except (_Damaged, IndexError, struct.error, UnicodeDecodeError):
                bad += 1
        return kind, found, bad

    def tree(self, root: int) -> set[int]:
        """The pages of an index (or WITHOUT ROWID table) that can be reached from its root."""
        seen: set[int] = set()
        ahead = [root]
        while ahead:
            number = ahead.pop()
            page = self.page(number)
            if number in seen or not page:
                continue
            seen.add(number)
            if page[0] == INDEX_INTERIOR:
                ahead += [_u32(page, 8), *(_u32(page, at) for at in _cells(page, 0, self.shape.usable) if at)]
        return seen

    def _record(self, page: bytes, at: int, kind: int) -> list[Cell]:
        """The record whose cell begins at `at`; the rowid stands for a first value that is NULL, as its alias would."""
        table = kind == TABLE_LEAF
        rowid = 0
        length, at = _varint(page, at + _SHAPES[kind][1])
        if table:
            rowid, at = _varint(page, at)
        if not 2 <= length <= self.count * self.shape.usable:
            raise _Damaged
        local = self.shape.local(length, table=table)
        if at + local > self.shape.usable:
            raise _Damaged
        payload = page[at : at + local]
        if local < length:
            payload += self._overflow(_u32(page, at + local), length - local)
        values = _decode(payload)
        if table and values and values[0] is None:
            values[0] = rowid
        return values

    def _overflow(self, number: int, missing: int) -> bytes:
        """The rest of a payload: a list of pages, each beginning with the number of the next, the last with 0.

        A page of zeros was never written: SQLite brings a journal into a file that was cut, and leaves such holes.
        """
        parts: list[bytes] = []
        room = self.shape.usable - 4
        while missing > 0:
            page = self.page(number)
            if not any(page):
                raise _Damaged
            parts.append(page[4 : 4 + min(room, missing)])
            missing -= room
            number = _u32(page, 0)
        if number:
            raise _Damaged
        return b"".join(parts)

    def _guess(self, header: bytes, journal: bytes, size: int) -> Shape:
        """The page size by which most records are on pages that are whole: what the header says may be damaged too.

        Read as half of it, hardly a page is whole; as twice of it, every other one is not looked at.
        """
        said = int.from_bytes(header[16:18], "big")
        told = [65536 if said == 1 else said, _u32(journal, 8) if journal else 0]
        spare = header[20] if len(header) > 20 else 0
        sizes = [each for each in told if each in _SIZES] + [4096, *_SIZES]
        best, most = Shape(sizes[0], sizes[0]), 0
        for bytes_ in dict.fromkeys(sizes):
            for unused in {0, spare if spare <= 32 else 0}:
                self.shape = Shape(bytes_, bytes_ - unused)
                self.count = pages = size // bytes_
                step = pages // _SAMPLE | 1  # odd, or halves of pages could be taken for all there is
                looks = (self.records(n) for n in range(1, pages + 1, step))
                read = step * sum(len(records) for _, records, bad in looks if not bad)
                if 2 * read > 3 * most:
                    best, most = self.shape, read
        return best

    def _journal_header(self) -> bytes:
        return b"" if self._journal is None else os.pread(self._journal, 32, 0).ljust(32, b"\0")

    def _read_journal(self, header: bytes) -> None:
        """Note the frames that were committed (4.2, "Checksum Algorithm" and "Reader Algorithm").

        Each is judged by itself, from the checksum that the one before ends with: one that is damaged costs at most
        the next. Whatever follows the last commit that can be read was never promised to anybody.
        """
        assert self._journal is not None
        step = self.shape.size + _FRAME
        magic, salts, before = _u32(header, 0), header[16:24], header[24:32]
        order = "<" if magic & 1 == 0 else ">"
        if magic not in _MAGIC or _checksum(header[:24], b"\0" * 8, order) != before:
            salts, order = os.pread(self._journal, 8, 32 + 8), "<"
        pending: dict[int, int] = {}
        at = 32
        while len(frame := os.pread(self._journal, step, at)) == step:
            sound = frame[8:16] == salts and _checksum(frame[:8] + frame[_FRAME:], before, order) == frame[16:24]
            if sound:
                pending[_u32(frame, 0)] = at + _FRAME
                if pages := _u32(frame, 4):
                    self._frames |= pending
                    self.count = pages
                    pending.clear()
            before = frame[16:24]
            at += step


def _cells(page: bytes, start: int, usable: int) -> Iterator[int]:
    """Where the cells of a page begin; 0 for one that begins nowhere on it."""
    first = start + _SHAPES[page[start]][0]
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for n in range(min(count, (usable - first) // 6)):
        at = int.from_bytes(page[first + 2 * n : first + 2 * n + 2], "big")
        yield at if first < at < usable else 0


def _decode(payload: bytes) -> list[Cell]:
    """The values of a record (2, "Record Format"), which must fill `payload` exactly."""
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise _Damaged
    values: list[Cell] = []
    body = end
    while at < end:
        kind, at = _varint(payload, at)
        value, body = _value(payload, body, kind)
        values.append(value)
    if at != end or body != len(payload):
        raise _Damaged
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[Cell, int]:
    """The value of serial type `kind` at `at`, and where the next one begins."""
    if kind < len(_INTEGERS):
        end = at + _INTEGERS[kind]
        return (int.from_bytes(payload[at:end], "big", signed=True) if kind else None), end
    if kind == 7:
        return struct.unpack_from(">d", payload, at)[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind < 12:
        raise _Damaged
    end = at + (kind - 12) // 2
    if end > len(payload):
        raise _Damaged
    return (payload[at:end].decode("utf-8") if kind & 1 else payload[at:end]), end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (1.6) and where the next thing begins; none of ours is negative."""
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    return value << 8 | data[at + 8], at + 9


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _checksum(data: bytes, before: bytes, order: str) -> bytes:
    first, second = struct.unpack(">II", before)
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & 0xFFFFFFFF
        second = (second + words[n + 1] + first) & 0xFFFFFFFF
    return struct.pack(">II", first, second)
