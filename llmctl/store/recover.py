"""What the records of a damaged ledger are: rows of which table, and whether they can be believed.

A row is believed when every value is one that the ledger would store, unless nothing else in the file names the call
and an intact part of an index says that there was none. What was altered inside a value and is still one cannot be
told. Writing them anew is for `repair`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.store.cover import PERIODS
from llmctl.store.salvage import INDEX_LEAF, TABLE_LEAF, Pages
from llmctl.store.schema import ATTEMPTS, CALLS, ROLLUP_KEYS, SESSIONS, STATES, SUMS, TABLES, TAGS, TURNS, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmctl.store.salvage import Cell
    from llmctl.store.schema import Value

    Row = dict[str, Value]

_FLAGS = frozenset(("fallback", "tokens_estimated", "drill"))
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_OF_CALLS = len(CALLS) - 1  # the first version had no deadline_at
_TYPES = {"TEXT": (str,), "INTEGER": (int,), "REAL": (int, float)}


class Entry(NamedTuple):
    """What an index by time says of a call."""

    started_at: float
    id: str


class Finds:
    """The rows of one damaged file. `bad` counts the cells that could not be read, or not be believed.

    `named` are the ids of calls that indexes, attempts and texts speak of.
    """

    def __init__(self, path: str) -> None:
        """Reads every page once, to learn what stands where. Raises OSError when the file cannot be opened."""
        self._pages = Pages(path)
        self.bad = 0
        self._where: dict[str, list[int]] = {"calls": [], "attempts": [], "tags": [], "content": [], "index": []}
        self._where |= {"sessions": [], "turns": []}
        self._where |= {table: [] for table in (*PERIODS, "rollup_keys")}
        self.pruned_before = 0
        self.named: set[str] = set()
        roots: dict[str, int] = {}
        for number in range(1, self._pages.count + 1):
            kind, records, bad = self._pages.records(number)
            self.bad += bad
            for table in {_table(kind, record) for record in records} & self._where.keys():
                self._where[table].append(number)
            facts = {r[0]: r[1] for r in records if len(r) == 2}
            with suppress(TypeError, ValueError, KeyError):
                self.pruned_before = int(facts["pruned_before"])  # type: ignore[arg-type]
            self.named.update(filter(None, (_names(kind, record) for record in records)))
            roots |= {str(r[1]): r[3] for r in records if _of_schema(kind, r) and isinstance(r[3], int)}
        self._tags = self._pages.tree(roots.get("tags", 0))
        self._tag_index = self._pages.tree(roots.get("tags_key", 0))
        self._by_time = self._leaves(self._pages.tree(roots.get("calls_started_at", 0)))

    def close(self) -> None:
        """Let go of the file."""
        self._pages.close()

    def calls(self) -> Iterator[Row]:
        """The rows of `calls`."""
        for _, row in self._rows("calls", {**CALLS, "rolled": "INTEGER"}):
            # In the sums of time that was pruned it stays, and to all others it is added.
            row["rolled"] = int(bool(row["rolled"]) and float(row["started_at"] or 0) < self.pruned_before)
            if self._refuted(Entry(float(row["started_at"] or 0), str(row["id"]))):
                self.bad += 1
            else:
                yield row

    def details(self, table: str, known: Callable[[str], bool]) -> Iterator[Row]:
        """The rows of `attempts`, `tags` or `content` that are of calls `known`."""
        for number, row in self._rows(table, TABLES[table]):
            if not known(str(row["call_id"])):
                continue
            # An entry of the index (key, value, id) looks like a row where a key is an id: believed is neither then.
            if table != "tags" or number in self._tags or not (_is_id(row["value"]) and known(str(row["value"]))):
                yield row

    def talk(self, table: str) -> Iterator[Row]:
        """The rows of `sessions` or `turns`."""
        for _, row in self._rows(table, {"sessions": SESSIONS, "turns": TURNS}[table]):
            yield row

    def sums(self, table: str) -> Iterator[tuple[Sequence[Cell], Sequence[Cell]]]:
        """(key, rest) of the rows of a rollup whose calls were pruned, so that they cannot be made anew.

        The key is the values of `ROLLUP_KEYS`, the rest what its table holds without it.
        """
        keys: dict[Cell, Sequence[Cell]] = {}
        for number in self._where["rollup_keys"]:
            keys |= {r[0]: r[1:] for r in self._pages.records(number)[1] if _table(TABLE_LEAF, r) == "rollup_keys"}
        for number in self._where[table]:
            for record in self._pages.records(number)[1]:
                if _table(INDEX_LEAF, record) == table and record[3] in keys:
                    yield keys[record[3]], [*record[:3], *record[4:]]

    def _rows(self, table: str, columns: dict[str, str]) -> Iterator[tuple[int, Row]]:
        for number in self._where[table]:
            if table == "tags" and number in self._tag_index:
                continue
            kind, records, _ = self._pages.records(number)
            for record in records:
                if _table(kind, record) == table:
                    row = _row(columns, record[table in ("content", "turns") :])
                    if row is None:
                        self.bad += 1
                    else:
                        yield number, row

    def _leaves(self, pages: set[int]) -> list[tuple[Entry, Entry]]:
        """The first and the last entry of each intact leaf of the index by time, in order."""
        leaves = []
        for number in pages:
            kind, records, bad = self._pages.records(number)
            entries = self._entries(number)
            if kind == INDEX_LEAF and not bad and entries and len(entries) == len(records):
                leaves.append((entries[0], entries[-1]))
        return sorted(leaves)

    def _refuted(self, entry: Entry) -> bool:
        """Whether the index has an intact leaf where a call would be that nothing in the file names."""
        at = bisect_right(self._by_time, entry, key=lambda leaf: leaf[0]) - 1
        return entry.id not in self.named and at >= 0 and entry <= self._by_time[at][1]

    def _entries(self, number: int) -> list[Entry]:
        kind, records, _ = self._pages.records(number)
        return [Entry(float(r[0]), str(r[1])) for r in records if _table(kind, r) == "index"]  # type: ignore[arg-type]


def _table(kind: int, record: Sequence[Cell]) -> str:
    """Which table a record is likely of; "" for none of those that are recovered."""
    if kind == TABLE_LEAF:
        if len(record) == 1 + len(ROLLUP_KEYS) and all(isinstance(each, str) for each in record[1:-1]):
            return "rollup_keys" if record[-1] in (0, 1) else ""
        if len(record) == 1 + len(TURNS) and _fits(TURNS, record[1:]) and _is_id(record[2]):
            return "turns"
        flag = record[4] if len(record) > 4 else 0
        return (
            "content" if len(record) > 3 and isinstance(record[0], int) and _is_id(record[1]) and flag in (0, 1) else ""
        )
    if len(record) == 2 and isinstance(record[0], int | float) and _is_id(record[1]):
        return "index"
    if len(record) == 6 + len(SUMS) and isinstance(record[1], str):
        sums = all(isinstance(each, int) for each in record[3:-2])
        sketches = all(isinstance(each, bytes) for each in record[-2:])
        by = {str: "rollup_days", int: "rollup_quarters"}.get(type(record[2]), "")
        return by if sums and sketches and isinstance(record[0], str) else ""
    if len(record) == len(SESSIONS) and _fits(SESSIONS, record):
        return "sessions"
    if not record or not _is_id(record[0]):
        return ""
    if len(record) == len(TAGS):
        return "tags" if isinstance(record[1], str) and isinstance(record[2], str) else ""
    if len(ATTEMPTS) <= len(record) < _OF_CALLS:
        return "attempts"
    return "calls" if len(record) >= _OF_CALLS else ""


def _fits(columns: dict[str, str], record: Sequence[Cell]) -> bool:
    return all(
        isinstance(value, _TYPES[kind.split()[0]]) or (value is None and "NOT NULL" not in kind)
        for kind, value in zip(columns.values(), record, strict=True)
    )


def _names(kind: int, record: Sequence[Cell]) -> str:
    """The id of the call that a record of an index, of `attempts` or of `content` speaks of; "" for any other."""
    table = _table(kind, record)
    if not table and len(record) == 3 and isinstance(record[1], float | int) and _is_id(record[2]):
        return str(record[2])  # an index by model or session
    column = {"index": 1, "content": 1, "attempts": 0, "turns": 2}.get(table)
    return "" if column is None else str(record[column])


def _of_schema(kind: int, record: Sequence[Cell]) -> bool:
    return kind == TABLE_LEAF and len(record) == 5 and record[0] in ("index", "table")


def _row(columns: dict[str, str], record: Sequence[Cell]) -> Row | None:
    """The record as a row; None when it holds what was never stored. Columns that came later are NULL."""
    row: Row = {}
    for n, (name, kind) in enumerate(columns.items()):
        value: Any = record[n] if n < len(record) else None
        if value is None:
            if "NOT NULL" in kind:
                return None
        elif not isinstance(value, _TYPES[kind.split()[0]]) or stored(name, value) != value:
            return None
        row[name] = float(value) if kind.startswith("REAL") and value is not None else value
    if row.get("state", "ok") not in STATES or any(row.get(name, 0) not in (0, 1) for name in _FLAGS):
        return None
    return row


def _is_id(value: Cell) -> bool:
    return isinstance(value, str) and _ULID.fullmatch(value) is not None
