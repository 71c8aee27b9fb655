"""One step of the shared state: three documents of 10 kB read, changed and written, beside the same step in memory.

Run: python benchmarks/state.py [--quick] [--rows N]

Wall milliseconds are what a caller waits on its event loop; CPU milliseconds are user + system of the whole process,
its worker thread included. `--rows` builds a ledger of that many calls in the same directory and records one call
between the steps, as a real call does (a million by default, 10,000 with `--quick`). Interpreter start is in no number.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from ledger import Fresh, apart, llmctl_writer, percentile, together

from llmctl.store.ledger import SqliteLedger
from llmctl.store.state import SqliteState
from llmctl.testing import MemoryState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = ("quota", "credential", "group")
FILL = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
INSERT INTO calls (id, started_at, finished_at, state, command, model, cache, fallback, attempt_count,
                   tokens_estimated, saved_nanousd, drill)
SELECT printf('%026d', n), n, n + 1, 'ok', 'ask', 'fast', 'off', 0, 1, 0, 0, 0 FROM n
"""


def use(documents: dict[str, Any]) -> int:
    """A step such as a reservation makes: one use more in each window of 300, the oldest one out."""
    now = round(time.time(), 3)
    for key in KEYS:
        uses = documents.setdefault(key, {"uses": [[now + n / 8, 1, 900, 500, 400] for n in range(300)]})["uses"]
        del uses[0]
        uses.append([now, 1, 900, 500, 400])
    return len(documents)


def state_writer(home: Path, **_: object) -> Callable[[int], None]:
    store = SqliteState(home / "state.db")

    def write(_: int) -> None:
        store.update_now(KEYS, use, wait_s=60)

    return write


def fill(home: Path, rows: int) -> None:
    ledger = SqliteLedger(home / "ledger.db", home / "spool")
    llmctl_writer(home)(0)
    ledger.close()
    connection = sqlite3.connect(home / "ledger.db")
    connection.execute(FILL, (rows,))
    connection.commit()
    connection.close()


async def steps(store: SqliteState | MemoryState, count: int, between: Callable[[int], None]) -> list[float]:
    """Wall p50 and p99, and CPU, in ms of a step; of the CPU, what comes `between` is taken out."""
    for _ in range(50):
        await store.update(KEYS, use)
    took, cpu = [], 0.0
    for n in range(count):
        between(n)
        start, before = time.perf_counter(), time.process_time()
        await store.update(KEYS, use)
        took.append(1000 * (time.perf_counter() - start))
        cpu += time.process_time() - before
    return [percentile(took, 0.5), percentile(took, 0.99), 1000 * cpu / count]


def first(home: Path) -> list[float]:
    """The same of the first step of a process, which opens the file."""
    store, start, before = SqliteState(home / "state.db"), time.perf_counter(), time.process_time()
    store.update_now(KEYS, use)
    wall, cpu = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - before)
    store.close()
    return [wall, wall, cpu]


def line(name: str, numbers: list[float], tail: str = "") -> None:
    print(f"{name:52}" + "".join(f"{number:9.3f}" for number in numbers) + tail)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    count = 300 if options.quick else 3000
    rows = options.rows if options.rows is not None else 10_000 if options.quick else 1_000_000
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, SQLite {sqlite3.sqlite_version}\n")
    print(f"{'one process (ms)':52}{'p50':>9}{'p99':>9}{'CPU':>9}   goal p99 <= 5")
    line("in memory", asyncio.run(steps(MemoryState(), count, lambda _: None)))
    with Fresh() as home:
        store = SqliteState(home / "state.db")
        line("SQLite", asyncio.run(steps(store, count, lambda _: None)))
        store.close()
        firsts = sorted(first(home) for _ in range(50))
        line("SQLite, the first step of a process", [firsts[25][0], firsts[-1][0], firsts[25][2]])
    with Fresh() as home:
        fill(home, rows)
        store = SqliteState(home / "state.db")
        line(f"SQLite, beside a ledger of {rows:,} calls", asyncio.run(steps(store, count, llmctl_writer(home))))
        store.close()
    print(f"\n{'50 processes, 20 steps each (ms)':52}{'p50':>9}{'p99':>9}{'max':>9}{'CPU':>9}{'errors':>8}")
    for pause_s, how in ((0.25, "a step each 0.25 s"), (0.0, "without pause")):
        with Fresh() as home:
            apart(lambda home=home: state_writer(home)(0))  # type: ignore[misc]
            got = together(home, state_writer, 50, 20, pause_s)
        line(f"SQLite, {how}", [got["p50"], got["p99"], got["max"], got["cpu_ms"]], f"{got['errors']:8}")


if __name__ == "__main__":
    main()
