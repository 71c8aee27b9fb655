"""What is done about the instants in shared documents when the clock is set back.

A document keeps `at`, the instant of its last change. One that is opened before that was written by another clock: all
its instants move with the clock, so that nothing lasts longer than it was meant to. A clock that is set forward needs
nothing: what was to come has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SET_S = 1.0
"""By how much a clock must go back to have been set."""
_PLAIN = ("at", "cool", "failed_at", "blocked", "back", "probe")
_ROW = {"speed": (2, 3), "retries": (1,), "demand": (0,)}
_ROWS = {"recent": (0,), "samples": (0,), "uses": (0, 1), "open": (0, 1, 6, 8), "said": (0, 3), "phase": (0, 1)}
"""The places of the instants in a row, in each row of a list, or in each of an object; 0 and null are none."""


def follow_clock(documents: Iterable[dict[str, Any]], now: float) -> None:
    """Move every instant of the documents that were changed later than `now`, as if the last change were now."""
    ahead = [document for document in documents if document.get("at", now) > now + SET_S]
    by_s = now - max((document["at"] for document in ahead), default=now)
    for document in ahead:
        for name in document.keys() & set(_PLAIN):
            document[name] += by_s
        for name in document.keys() & _ROW.keys():
            _move([document[name]], _ROW[name], by_s)
        for name in document.keys() & _ROWS.keys():
            rows = document[name]
            _move(rows.values() if isinstance(rows, dict) else rows, _ROWS[name], by_s)


def _move(rows: Iterable[list[Any]], places: tuple[int, ...], by_s: float) -> None:
    for row in rows:
        for place in places:
            if place < len(row) and row[place]:
                row[place] += by_s
