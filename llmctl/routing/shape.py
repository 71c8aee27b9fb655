"""Which documents are such as this version writes: a step on any other would fail, so it is to count as absent.

Others come from a build of another day, or from a file that was damaged without anybody noticing. Fields that are not
known here are left alone: nobody reads them.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_MOST = 1e18
"""No instant, count or share is larger, of either sign."""
_NUMBER = {int, float}
_SIZE = re.compile("[0-9]{1,4}")


def is_whole(document: dict[str, Any]) -> bool:
    """Whether every field of a shared document that is known has its shape."""
    return all(_FIELDS[name](document[name]) for name in document.keys() & _FIELDS.keys())


def _numbers(values: Collection[Any]) -> bool:
    return _NUMBER.issuperset(map(type, values)) and (not values or -_MOST < min(values) <= max(values) < _MOST)


def _rows(rows: Iterable[Any], length: int) -> bool:
    rows = list(rows)
    return {list}.issuperset(map(type, rows)) and {length}.issuperset(map(len, rows)) and _numbers([*chain(*rows)])


def _number(value: Any) -> bool:
    return _numbers([value])


def _count(value: Any) -> bool:
    return type(value) is int and _numbers([value])


def _row(length: int) -> Callable[[Any], bool]:
    return lambda row: _rows([row], length)


def _list(length: int) -> Callable[[Any], bool]:
    return lambda rows: type(rows) is list and _rows(rows, length)


def _object(length: int) -> Callable[[Any], bool]:
    return lambda rows: type(rows) is dict and _rows(rows.values(), length)


def _said(rows: Any) -> bool:
    """Of what a provider said, all but the instant may be null."""
    if type(rows) is not dict or not all(type(row) is list for row in rows.values()):
        return False
    return _rows(([*row[:1], *(0 if each is None else each for each in row[1:])] for row in rows.values()), 4)


def _demand(row: Any) -> bool:
    if type(row) is not list or len(row) != 2 or type(row[1]) is not dict:
        return False
    return _numbers([row[0], *row[1].values()]) and all(_SIZE.fullmatch(size) for size in row[1])


_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("at", "cool", "failed_at", "blocked", "back", "probe", "others", "share", "slice"), _number),
    **dict.fromkeys(("fails", "ejections", "turn", "since_probe"), _count),
    **dict.fromkeys(("retries", "output", "ratio"), _row(2)),
    **dict.fromkeys(("recent", "samples"), _list(2)),
    "uses": _list(6),
    "open": _object(9),
    "phase": _object(2),
    "said": _said,
    "demand": _demand,
    "speed": lambda row: _rows([row], 4) and min(row[:2]) > 0,
    "why": lambda value: type(value) is str,
}
