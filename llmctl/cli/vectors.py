"""Vectors on their way out: one JSON document, JSON lines, base64 lines, or a NumPy file written without NumPy."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
import tempfile
from array import array
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, cast

from llmctl.core.errors import OutputFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.cli.output import Out
    from llmctl.run.embedding import Embeddings

    Row = tuple[str | int, array[float]]

_HEADER = 128  # bytes: whole 64s, as NumPy aligns them


class Writer(Protocol):
    """What turns rows into a format: `add` as they come, `end` with what is known when all have come."""

    def add(self, rows: Sequence[Row]) -> None:
        """Take some rows."""

    def end(self, total: Embeddings) -> None:
        """Write what is left."""


class Target:
    """Where vectors go: stdout, or the file of `-o`, opened before anything is sent, emptied with the first ones."""

    def __init__(self, path: str | None, out: Out) -> None:
        """Raises UsageError when there can be no such file."""
        self._out = out
        self._files = ExitStack()
        self._emptied = False
        try:
            self.file = None if path is None else self._files.enter_context(open(path, "wb", opener=_as_it_is))  # noqa: SIM115 - it is one
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            raise UsageError(f"--output {path}: {what}", hint="check the path") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # all was flushed, or the error has been raised
            self._files.close()

    def spool(self) -> BinaryIO:
        """A file to write in any order: the target itself where it can be, else a temporary one."""
        if self.file is not None and self.file.seekable():
            self._empty()
            return self.file
        return cast("BinaryIO", self._files.enter_context(tempfile.TemporaryFile()))

    def write(self, data: str | bytes) -> None:
        """Write, and flush. Raises BrokenPipeError when nobody reads, OutputFailed when it cannot be written."""
        if self.file is None:
            self._out.write(data)
            return
        try:
            self._empty()
            self.file.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
            self.file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(
                f"--output cannot be written: {error.strerror}", hint="check where it points to"
            ) from error

    def _empty(self) -> None:
        """Take away what the file held: a run that ends before its first vectors leaves it alone."""
        if self.file is not None and not self._emptied and stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
            self.file.truncate(0)
        self._emptied = True


def _as_it_is(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def shortest(vector: array[float]) -> list[str]:
    """The numbers of 32 bits in the fewest digits that give them back: 6 at most, else 7, 8 or 9 (IEEE 754, 5.12.2)."""
    texts = ("%.6g " * len(vector) % tuple(vector)).split()
    wrong = list(range(len(vector)))
    for digits in (7, 8, 9):
        back = array("f", [float(texts[i]) for i in wrong])
        wrong = [i for i, number in zip(wrong, back, strict=True) if number != vector[i]]
        again = (f"%.{digits}g " * len(wrong) % tuple([vector[i] for i in wrong])).split()
        for i, text in zip(wrong, again, strict=True):
            texts[i] = text
    return texts


def _json_row(row: Row) -> str:
    return f'{{"id": {json.dumps(row[0])}, "vector": [{", ".join(shortest(row[1]))}]}}'


def _base64_row(row: Row) -> str:
    return base64.b64encode(_bytes(row[1])).decode("ascii")


def _bytes(vector: array[float]) -> bytes:
    """32-bit floats, little-endian."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return vector.tobytes()


class Lines:
    """One line a vector, written as they come."""

    def __init__(self, target: Target, line: Callable[[Row], str]) -> None:
        self._target = target
        self._line = line

    def add(self, rows: Sequence[Row]) -> None:
        """Write a line for each row."""
        self._target.write("".join(f"{self._line(row)}\n" for row in rows))

    def end(self, total: Embeddings) -> None:
        """Nothing is left."""


class Document:
    """One JSON document, written at the end; the vectors are in memory until then."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows."""
        self._rows += rows

    def end(self, total: Embeddings) -> None:
        """Write the document, a vector a line."""
        said = {
            "model": total.model,
            "served_by": total.served_by,
            "reported_model": total.reported_model,
            "dimensions": len(self._rows[0][1]) if self._rows else 0,
            "usage": asdict(total.usage),
            "cost_usd": total.cost_usd,
            "saved_usd": total.saved_usd,
            "cached": total.cached,
            "calls": total.calls,
        }
        self._target.write(json.dumps(said, indent=2)[:-2] + ',\n  "vectors": [')
        for n, row in enumerate(self._rows):
            self._target.write(f"{',' if n else ''}\n    {_json_row(row)}")
        self._target.write("\n  ]\n}\n" if self._rows else "]\n}\n")


class Npy:
    """A NumPy file, version 1.0: float32, C order (numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

    Its header needs the number of rows, so the header is filled in at the end: until then it is zeros, which no reader
    takes. To a pipe everything goes through a temporary file.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._file = target.spool()
        self._file.write(bytes(_HEADER))
        self._rows = self._columns = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Write the numbers of the rows."""
        self._file.write(b"".join(_bytes(vector) for _, vector in rows))
        self._rows += len(rows)
        self._columns = len(rows[0][1])

    def end(self, total: Embeddings) -> None:  # noqa: ARG002 - a writer's signature
        """Write the header, and to a pipe all."""
        said = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._columns}), }}"
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
        self._file.write(said.ljust(_HEADER - 11).encode("ascii") + b"\n")
        self._file.flush()
        if self._file is not self._target.file:
            self._file.seek(0)
            shutil.copyfileobj(self._file, self._target, 1 << 20)


WRITERS: dict[str, Callable[[Target], Writer]] = {
    "json": Document,
    "jsonl": lambda target: Lines(target, _json_row),
    "base64": lambda target: Lines(target, _base64_row),
    "npy": Npy,
}
"""Format -> what writes it."""
