"""The ledger write, alone and under storm, beside the way simonw/llm writes its log.

Run: python benchmarks/ledger.py [--quick]

The two writes of a call are told apart and together. Wall milliseconds are what a caller waits; CPU milliseconds are
user + system of the whole process, its worker thread included. "No rollups" is a ledger that says it is of a newer
llmctl: its rows are written, and all sums are left to that one. The peer is llm's manner in a few lines of
sqlite-utils: rollback journal, migrations without a lock, deferred BEGIN, the 5 s timeout of Python's sqlite3. It
writes once, at the end; llmctl writes before the first byte too.
Children wait for one pipe to close, so that all of them begin at one instant. Interpreter start is in no number.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.db import Database
from llmctl.store.ledger import SqliteLedger
from llmctl.store.schema import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Write = Callable[[int], float]  # the milliseconds of the write before the first byte; 0.0 where there is none

PROMPT = "Explain the difference between a mutex and a semaphore, with one example. " * 5
ANSWER = "A mutex is owned by whoever locked it; a semaphore counts permits and has no owner. " * 12


def llmctl_writer(home: Path, *, content: bool = True) -> Write:
    ledger = SqliteLedger(home / "ledger.db", home / "spool")
    prompt, answer = (PROMPT, ANSWER) if content else (None, None)

    def write(n: int) -> float:
        record = CallRecord(id=ulid(time.time(), n), started_at=time.time(), command="ask", model="fast")
        start = time.perf_counter()
        ledger.begin_now(record, prompt)
        begun_ms = 1000 * (time.perf_counter() - start)
        ended = replace(
            record, state="ok", served_by="groq/llama", input_tokens=90, output_tokens=210, attempt_count=1,
            cost_nanousd=219_000, latency_ms=800.0 + n % 500, first_token_ms=200.0 + n % 90,
        )  # fmt: skip
        ledger.complete_now(ended, (Attempt(1, "fast-1", "groq", "llama", "primary", "ok", time.time()),), answer)
        if ledger.trouble:
            raise RuntimeError(ledger.trouble)
        return begun_ms

    return write


def peer_writer(home: Path, *, content: bool = True) -> Write:
    from sqlite_utils import Database as Peer

    prompt, answer = (PROMPT, ANSWER) if content else (None, None)
    peer = Peer(str(home / "ledger.db"))
    peer_migrate(peer)

    def write(n: int) -> float:
        key = ulid(time.time(), n)
        with peer.atomic():
            peer["conversations"].insert({"id": key, "name": "n", "model": "m"}, ignore=True)
            row = {"id": key, "model": "m", "prompt": prompt, "response": answer, "conversation_id": key, "input": 90}
            peer["responses"].insert(row)
        return 0.0

    return write


def peer_migrate(peer: Any, upto: int = 2) -> None:
    """Migrations as a table of names that is read first, then each one applied: no lock around the two."""
    peer["_migrations"].create({"name": str, "at": str}, pk="name", if_not_exists=True)
    done = {row["name"] for row in peer["_migrations"].rows}
    for name, step in list({"m1": peer_tables, "m2": peer_search}.items())[:upto]:
        if name not in done:
            step(peer)
            peer["_migrations"].insert({"name": name, "at": "now"})


def peer_tables(peer: Any) -> None:
    peer["conversations"].create({"id": str, "name": str, "model": str}, pk="id")
    columns = {"id": str, "model": str, "prompt": str, "response": str, "conversation_id": str}
    peer["responses"].create(columns, pk="id")


def peer_search(peer: Any) -> None:
    peer["responses"].add_column("input", int)
    peer["responses"].enable_fts(["prompt", "response"], create_triggers=True)


def new(_home: Path) -> None:
    """Leave the directory empty."""


def older_llmctl(home: Path) -> None:
    database = Database(home / "ledger.db", STEPS[:1])
    database.write(lambda _: None)
    database.close()


def older_peer(home: Path) -> None:
    from sqlite_utils import Database as Peer

    peer = Peer(str(home / "ledger.db"))
    peer_migrate(peer, upto=1)
    peer.conn.close()


def apart(work: Callable[[], object]) -> None:
    """Do `work` in a process of its own: no connection of the parent may be open when the others are forked."""
    if os.fork() == 0:
        work()
        os._exit(0)
    os.wait()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def newer_llmctl(home: Path) -> None:
    """Leave a ledger that says it is of a newer llmctl."""
    database = Database(home / "ledger.db", STEPS)
    database.write(lambda connection: connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}"))
    database.close()


def alone(home: Path, make: Callable[..., Write], calls: int, *, content: bool) -> tuple[float, float, float, float]:
    """p50 of the first write, p50 and p99 of all of a call's, and their CPU, in ms, in a process that has written."""
    write = make(home, content=content)
    for n in range(50):
        write(n)
    took, begun = [], []
    cpu = time.process_time()
    for n in range(50, calls + 50):
        start = time.perf_counter()
        begun.append(write(n))
        took.append(1000 * (time.perf_counter() - start))
    cpu_ms = 1000 * (time.process_time() - cpu) / calls
    return percentile(begun, 0.5), percentile(took, 0.5), percentile(took, 0.99), cpu_ms


def together(home: Path, make: Callable[..., Write], processes: int, calls: int, pause_s: float) -> dict[str, Any]:
    """What `processes` writers see, each writing `calls` times with a random pause of `pause_s` on average between."""
    start_gun, pull = os.pipe()
    results, result = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for who in range(processes):
        if os.fork() == 0:
            os.close(pull)
            os.read(start_gun, 1)
            os._exit(_child(home, make, who, calls, pause_s, result))
    began = time.perf_counter()
    os.close(pull)
    os.close(result)
    os.close(start_gun)
    with os.fdopen(results, encoding="utf-8") as lines:
        words = [line.strip().split(" ", 1) for line in lines]
    for _ in range(processes):
        os.wait()
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = [float(word) for kind, word in words if kind == "ok"] or [float("nan")]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "errors": sum(kind == "error" for kind, _ in words),
        "said": Counter(word for kind, word in words if kind == "error").most_common(2),
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "max": max(took),
        "wall_s": wall,
        "cpu_ms": 1000 * cpu / (processes * calls),
    }


def _child(home: Path, make: Callable[..., Write], who: int, calls: int, pause_s: float, result: int) -> int:
    import random

    dice = random.Random(who)
    write: Write | None = None
    for n in range(calls):
        if pause_s:
            time.sleep(dice.uniform(0, 2 * pause_s))
        start = time.perf_counter()
        try:
            write = write or make(home)
            write(who * 1000 + n)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is an error a user would have seen
            os.write(result, f"error {error}\n".encode())
        else:
            os.write(result, f"ok {1000 * (time.perf_counter() - start):.3f}\n".encode())
    return 0


def rows(home: Path, table: str) -> int:
    try:
        connection = sqlite3.connect(home / "ledger.db")
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        connection.close()
    except sqlite3.Error:
        return 0
    return count


class Fresh:
    """A directory of its own for each measurement, taken away after it."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="ledger-benchmark-"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


def main() -> None:
    quick = "--quick" in sys.argv
    calls, many = (300, 50) if quick else (3000, 200)
    peers = (("llmctl", llmctl_writer, older_llmctl, "calls"), ("llm's way", peer_writer, older_peer, "responses"))
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, SQLite {sqlite3.sqlite_version}\n")
    title = "one call, one process (ms, p50)"
    print(f"{title:44}{'begin':>9}{'end':>9}{'both':>9}{'both p99':>10}{'CPU':>9}   goal of a write <= 0.3")
    for name, make, before in (
        ("llmctl", llmctl_writer, new),
        ("llmctl, no rollups", llmctl_writer, newer_llmctl),
        ("llm's way", peer_writer, new),
    ):
        for content in (True, False):
            with Fresh() as home:
                apart(lambda before=before, home=home: before(home))
                begin, p50, p99, cpu = alone(home, make, calls, content=content)
            label = f"{name}, {'with' if content else 'no'} content"
            print(f"{label:44}{begin:9.3f}{p50 - begin:9.3f}{p50:9.3f}{p99:10.3f}{cpu:9.3f}")
    print(f"\n{'50 processes, 20 calls each (ms)':44}{'p50':>9}{'p99':>9}{'max':>9}{'CPU':>9}{'errors':>8}{'lost':>6}")
    for pause_s, how in ((0.25, "a call each 0.25 s, goal p99 <= 50"), (0.0, "without pause")):
        for name, make, _, table in peers:
            with Fresh() as home:
                apart(lambda make=make, home=home: make(home)(10**9))
                got = together(home, make, 50, 20, pause_s)
                lost = 1001 - rows(home, table)
            line = f"{name + ', ' + how:44}{got['p50']:9.2f}{got['p99']:9.1f}{got['max']:9.0f}{got['cpu_ms']:9.2f}"
            print(line + f"{got['errors']:8.0f}{lost:6}{said(got)}")
    title = f"{many} processes at once, one call each"
    print(f"\n{title:44}{'p50 ms':>9}{'p99 ms':>9}{'wall s':>9}{'errors':>8}{'lost':>6}")
    for name, make, older, table in peers:
        for what, before in (("a new file", new), ("an older schema", older)):
            with Fresh() as home:
                apart(lambda before=before, home=home: before(home))
                got = together(home, make, many, 1, 0.0)
                lost = many - rows(home, table)
            line = f"{name + ', ' + what:44}{got['p50']:9.1f}{got['p99']:9.1f}{got['wall_s']:9.2f}"
            print(line + f"{got['errors']:8.0f}{lost:6}{said(got)}")


def said(got: dict[str, Any]) -> str:
    return "".join(f"   {count} x {text}" for text, count in got["said"])


if __name__ == "__main__":
    main()
