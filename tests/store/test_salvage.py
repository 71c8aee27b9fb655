"""Pages read without SQLite give the records that SQLite wrote, whatever their size, and damage never raises."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.store.salvage import Pages

if TYPE_CHECKING:
    from pathlib import Path

INT64 = 2**63
VALUES = st.one_of(
    st.none(),
    st.integers(-INT64, INT64 - 1),
    st.sampled_from([0, 1, -1, 127, 128, 32767, 32768, 2**23, 2**31, 2**47, 2**48]),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=40),
    st.builds(lambda word, n: word * n, st.sampled_from(["é", "x", "ab\n"]), st.integers(0, 3000)),
)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=25)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(file: Path, page_size: int, rows: list[tuple[Any, Any]]) -> None:
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, one, two, mark)")
        connection.execute("CREATE TABLE b (id TEXT PRIMARY KEY, one, two, mark) WITHOUT ROWID")
        connection.executemany("INSERT INTO a VALUES (?, ?, ?, 'row')", [(7 * n, *row) for n, row in enumerate(rows)])
        connection.executemany("INSERT INTO b VALUES (?, ?, ?, 'row')", [(f"k{n}", *row) for n, row in enumerate(rows)])


def read(file: Path) -> list[tuple[Any, ...]]:
    with closing(Pages(str(file))) as pages:
        found = [tuple(row) for n in range(1, pages.count + 1) for row in pages.records(n)[1]]
    return [row for row in found if row[-1] == "row"]


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@SLOW
@given(rows=ROWS)
def test_every_record_is_read_as_sqlite_wrote_it(tmp_path: Path, page_size: int, rows: list[tuple[Any, Any]]) -> None:
    write(tmp_path / "x.db", page_size, rows)
    expected = [(7 * n, *row, "row") for n, row in enumerate(rows)] + [
        (f"k{n}", *row, "row") for n, row in enumerate(rows)
    ]
    assert sorted(map(repr, read(tmp_path / "x.db"))) == sorted(map(repr, expected))


@SLOW
@given(rows=ROWS, data=st.data())
def test_damage_is_never_an_error(tmp_path: Path, rows: list[tuple[Any, Any]], data: st.DataObject) -> None:
    write(tmp_path / "x.db", 512, rows)
    spoilt = bytearray((tmp_path / "x.db").read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.db").write_bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))])
    read(tmp_path / "x.db")
    (tmp_path / "x.db-wal").write_bytes(bytes(spoilt))
    read(tmp_path / "x.db")
