"""Percentiles from counts: milliseconds in buckets that grow by a tenth, so that no value is told more than 5 % wrong.

The idea is DDSketch's (Masson, Rim, Lee: "DDSketch", PVLDB 12, 2019, section 2): bucket i holds what lies above
least * growth^(i - 1) and up to least * growth^i, and answers with the value that is equally far from both in ratio, so
an answer errs by (growth - 1) / (growth + 1) = 4.8 % at most. Sketches add up, and take away again, without any loss.
What took 0.01 ms or less counts as 0; beyond four days all is alike.
"""

from __future__ import annotations

import struct
from math import ceil, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GROWTH = 1.1
_LEAST_MS = 0.01
_LAST = 255
_PER_LOG = 1 / log(_GROWTH)
_WIDTHS = {1: "b", 2: "h", 4: "i", 8: "q"}
_MOST = 2**63 - 1

Sketch = dict[int, int]
"""Counts by bucket."""


def bucket(value_ms: float) -> int:
    """The bucket of a value: 0 to 255."""
    if not value_ms > _LEAST_MS:
        return 0
    return min(_LAST, ceil(log(min(value_ms, 1e12) / _LEAST_MS) * _PER_LOG))


def single(value_ms: float) -> bytes:
    """The sketch of one value."""
    return bytes((1, bucket(value_ms), 1))


def merge(into: Sketch, blob: object, sign: int = 1) -> None:
    """Add what `blob` holds; with `sign` -1 take it away. A damaged one holds nothing."""
    buckets, counts = _read(blob)
    if not into and sign == 1:
        into.update(zip(buckets, counts, strict=True))
        return
    for index, count in zip(buckets, counts, strict=True):
        into[index] = into.get(index, 0) + sign * count


def both(one: object, other: object) -> bytes:
    """The sketch of all that two sketches hold; quick where `other` holds a single value."""
    if isinstance(one, bytes) and isinstance(other, bytes) and len(other) == 3:
        found = _in_place(one, other)
        if found:
            return found
    counts: Sketch = {}
    merge(counts, one)
    merge(counts, other)
    return dump(counts)


def _in_place(one: bytes, other: bytes) -> bytes:
    """`one` with the count of one bucket raised; nothing where that takes more than to change its bytes."""
    width = one[0] if one else 0
    held, rest = divmod(len(one) - 1, 1 + width)
    place = one.find(other[1], 1, held + 1)
    if width not in _WIDTHS or rest or place < 0 or other[0] != 1 or not 0 < other[2] < 1 << 7:
        return b""
    start = 1 + held + width * (place - 1)
    count = int.from_bytes(one[start : start + width], "little", signed=True) + other[2]
    if not 0 < count < 1 << 8 * width - 1:
        return b""
    return one[:start] + count.to_bytes(width, "little") + one[start + width :]


def dump(sketch: Sketch) -> bytes:
    """The sketch as bytes: the width of a count, the buckets that hold something, their counts (little-endian)."""
    buckets = sorted([index for index, count in sketch.items() if count])
    if not buckets:
        return b""
    counts = [sketch[index] for index in buckets]
    largest = max(*counts, -min(counts))
    if largest > _MOST:
        counts = [max(-_MOST, min(count, _MOST)) for count in counts]
    width = 1 if largest < 1 << 7 else 2 if largest < 1 << 15 else 4 if largest < 1 << 31 else 8
    return bytes((width, *buckets)) + struct.pack(f"<{len(counts)}{_WIDTHS[width]}", *counts)


def _read(blob: object) -> tuple[Sequence[int], Sequence[int]]:
    """The buckets and their counts."""
    if not isinstance(blob, bytes) or not blob or blob[0] not in _WIDTHS:
        return (), ()
    held, rest = divmod(len(blob) - 1, 1 + blob[0])
    if rest:
        return (), ()
    return blob[1 : held + 1], struct.unpack_from(f"<{held}{_WIDTHS[blob[0]]}", blob, held + 1)


def quantile(sketch: Sketch, percent: int) -> float | None:
    """The value at `percent` in ms, as `percentile` has it; None of none."""
    held = sorted((index, count) for index, count in sketch.items() if count > 0)
    left = _rank(sum(count for _, count in held), percent)
    for index, count in held:
        left -= count
        if left <= 0:
            return 2 * _LEAST_MS * _GROWTH**index / (_GROWTH + 1) if index else 0.0
    return None


def percentile(values: Iterable[float], percent: int, digits: int) -> float | None:
    """The value at `percent` by nearest rank, the ceil(percent / 100 * n)-th smallest of n, rounded; None of none."""
    ordered = sorted(values)
    return round(ordered[_rank(len(ordered), percent) - 1], digits) if ordered else None


def _rank(count: int, percent: int) -> int:
    """Which of `count` values in order is the one at `percent`, the smallest being the first."""
    return max(1, -(-percent * count // 100))
