"""The cost report over a large ledger, beside the same question answered with plain SQL over the rows.

Run: python benchmarks/report.py [--rows 1000000] [--growth]

Each number is that of a fresh process, best of five: CPU is user + system of the whole process less that of one which
only starts Python, wall is the question alone. The peer's way is what tools do that keep a log and no sums: a GROUP BY
over the rows, and percentiles by window functions, exact. `--growth` asks the same of ten times the rows in the same
90 days. Seeding writes the rows a call leaves, in order of time, and rolls them up as those of a migrated ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.record import Attempt, CallRecord
from llmctl.store import rollup
from llmctl.store.db import Database
from llmctl.store.rows import begun, ended
from llmctl.store.schema import ATTEMPTS, CALLS, STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = float(int(time.time()))
DAYS = 90
SERVED = (
    ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-3-5-sonnet-20241022"),
    ("groq", "llama-3.3-70b-versatile"), ("gemini", "gemini-1.5-pro"), ("azure", "gpt-4o"),
)  # fmt: skip
TEAMS = ("web", "search", "mobile", "data")
GOALS = {"90 days": 300, "7 days": 60, "growth": 1.3}

QUESTIONS = {
    "90 days by day and model": ("('day', 'model')", 90),
    "7 days by day and model": ("('day', 'model')", 7),
    "90 days by tag:team": ("('tag:team',)", 90),
    "90 days by day, another zone": ("('day',), zone='Asia/Kathmandu'", 90),
}
COMMANDS = (
    "--version", "cost report --by day --by model --since 90d", "cost report --by day --by model --since 7d",
    "cost report", "cost budget", "models compare", "ledger list", "ledger list --state failed", "ledger search word",
    "ledger show last",
)  # fmt: skip
OURS = """
from llmctl.store.report import Question, Reports
document = Reports({file!r}).report(Question(by={by}, since={now} - {days} * 86400 - 1234, until={now}), {now})
count = len(document["rows"])
"""
PEER = """
import sqlite3
connection = sqlite3.connect({file!r})
since = {now} - {days} * 86400 - 1234
sums = connection.execute(
    "SELECT date(started_at, 'unixepoch') AS day, served_by, count(*), sum(cost_nanousd), sum(input_tokens), "
    "sum(output_tokens) FROM calls WHERE started_at >= ? AND started_at < ? GROUP BY 1, 2", (since, {now})
).fetchall()
ranked = connection.execute(
    "SELECT day, served_by, max(CASE WHEN r = (n + 1) / 2 THEN latency_ms END), "
    "max(CASE WHEN r = (95 * n + 99) / 100 THEN latency_ms END) FROM (SELECT date(started_at, 'unixepoch') AS day, "
    "served_by, latency_ms, row_number() OVER w AS r, count(*) OVER (PARTITION BY date(started_at, 'unixepoch'), "
    "served_by) AS n FROM calls WHERE started_at >= ? AND started_at < ? AND state = 'ok' WINDOW w AS (PARTITION BY "
    "date(started_at, 'unixepoch'), served_by ORDER BY latency_ms)) GROUP BY 1, 2", (since, {now})
).fetchall()
count = len(sums)
"""
TIMED = """
import json, resource, time
began = time.perf_counter()
{work}
wall = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([1000 * wall, 1000 * (used.ru_utime + used.ru_stime), count]))
"""


def calls(count: int) -> Iterator[tuple[list[Any], list[Any], str | None]]:
    """The rows of `count` calls spread evenly over the days, in order of time: `calls`, `attempts`, the team."""
    dice = random.Random(7)
    shapes = [_shape(dice) for _ in range(5000)]
    step = DAYS * 86400 / count
    called, tried = list(CALLS), list(ATTEMPTS)
    at, when, tried_at = called.index("started_at"), called.index("finished_at"), tried.index("started_at")
    for n in range(count):
        call, attempt, team = shapes[n * 7919 % 5000]
        began = NOW - DAYS * 86400 + n * step
        row, tries = call.copy(), attempt.copy()
        row[0] = tries[0] = f"01J{n:023d}"
        row[at] = tries[tried_at] = began
        row[when] = began + 1.0
        yield row, tries, team


def _shape(dice: random.Random) -> tuple[list[Any], list[Any], str | None]:
    provider, model = dice.choices(SERVED, (3, 6, 3, 4, 2, 1))[0]
    ms, state = dice.lognormvariate(7, 0.8), dice.choices(("ok", "failed", "cached"), (93, 4, 3))[0]
    cost = None if dice.random() < 0.01 else dice.randrange(10**4, 10**8)
    record = CallRecord(
        id="", started_at=0.0, command="ask", model=model, state=state, finished_at=1.0, provider=provider,
        served_by=f"{provider}/{model}", deployment=f"{model}-{dice.randrange(2)}", attempt_count=1,
        input_tokens=dice.randrange(4000), output_tokens=dice.randrange(1000), cost_nanousd=cost, latency_ms=ms,
        first_token_ms=ms / 4, exit_code=0, finish_reason="stop", price_version="2026-11-20", deadline_at=1.0,
    )  # fmt: skip
    attempt = Attempt(
        1, f"{model}-0", provider, model, "primary", "ok", 0.0, 200, ms / 4, ms, record.input_tokens,
        record.output_tokens, cost, request_id=f"req_{dice.getrandbits(64):x}",
    )  # fmt: skip
    call, (tries,) = begun(record, None).call, ended(record, [attempt], None).attempts
    return list(call.values()), ["", *tries.values()], dice.choice((*TEAMS, None))


def seed(file: Path, count: int) -> tuple[float, float]:
    """Write the ledger; the seconds of writing and of rolling up."""
    database = Database(file, STEPS)
    rows, began = calls(count), time.perf_counter()
    insert = [
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for table, names in (("calls", CALLS), ("attempts", ATTEMPTS), ("tags", ("call_id", "key", "value")))
    ]
    while some := list(islice(rows, 50_000)):

        def put(connection: sqlite3.Connection, some: list[Any] = some) -> None:
            connection.executemany(insert[0], (row for row, _, _ in some))
            connection.executemany(insert[1], (tries for _, tries, _ in some))
            connection.executemany(insert[2], ((row[0], "team", team) for row, _, team in some if team))

        database.write(put)
    written = time.perf_counter()
    rollup.catch_up(database)
    database.close()
    return written - began, time.perf_counter() - written


def fresh(work: str) -> tuple[float, float, int]:
    """Wall and CPU milliseconds and the count of rows that a fresh process tells, the best of five."""
    told = []
    for _ in range(5):
        script = TIMED.format(work=work)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        told.append(tuple(json.loads(done.stdout)))
    return min(wall for wall, _, _ in told), min(cpu for _, cpu, _ in told), told[0][2]


def ask(file: Path, what: str) -> tuple[float, float, int]:
    by, days = QUESTIONS[what]
    return fresh(OURS.format(file=str(file), by=by, days=days, now=NOW))


def command_line(file: Path, arguments: list[str], *, terminal: bool = False) -> tuple[float, float]:
    """Wall and CPU milliseconds of a whole `llmctl` command, with stdout on a terminal if asked; the best of five."""
    told = []
    environment = {**os.environ, "LLMCTL_HOME": str(file.parent), "TERM": "xterm", "COLUMNS": "80"}
    for _ in range(5):
        master, out = os.openpty() if terminal else (-1, os.open(os.devnull, os.O_WRONLY))
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "llmctl", *arguments], stdout=out, env=environment)
        os.close(out)
        with suppress(OSError):  # a terminal nobody writes to any more
            while terminal and os.read(master, 1 << 16):
                pass
        if process.wait():
            sys.exit(f"llmctl {' '.join(arguments)} failed")
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        told.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        if terminal:
            os.close(master)
    return 1000 * min(wall for wall, _ in told), 1000 * min(cpu for _, cpu in told)


def show(what: str, got: tuple[float, float, int], start: float, goal: str = "") -> None:
    print(f"{what:56}{got[0]:9.1f}{got[1] - start:9.1f}{got[2]:7}   {goal}")


def writes(file: Path) -> None:
    """What rolling up adds to a ledger write: beside the rows alone, as a ledger of a newer schema gets them."""
    from llmctl.store.rows import Rows

    for known, what in ((False, "one call written, rows alone"), (True, "one call written, with rollups")):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            rows, took = Rows(connection, known=known), []
            for n in range(2000):
                record = CallRecord(id=f"02{known}{n}", started_at=NOW + n / 100, command="ask", model="fast")
                final = CallRecord(**{**_fields(record), "state": "ok", "latency_ms": 900.0 + n, "cost_nanousd": 5})
                began = time.process_time()
                for entry in (begun(record, None), ended(final, (), None)):
                    connection.execute("BEGIN IMMEDIATE")
                    rows.put(entry)
                    connection.execute("COMMIT")
                took.append(1000 * (time.process_time() - began))
            print(f"{what:56}{'':9}{sorted(took)[1000]:9.3f}          p50 CPU ms; goal of the whole write 0.3")
            connection.execute("DELETE FROM calls WHERE id >= '02'")


def _fields(record: CallRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in CallRecord.__dataclass_fields__}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="report-benchmark-") as home:
        file = Path(home) / "ledger.db"
        took = seed(file, options.rows)
        size = file.stat().st_size / 1e6
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, SQLite {sqlite3.sqlite_version}")
        print(f"{options.rows:,} calls in {DAYS} days, {size:.0f} MB; written in {took[0]:.0f} s, ", end="")
        print(f"rolled up in {took[1]:.1f} s\n\n{'':56}{'wall ms':>9}{'CPU ms':>9}{'rows':>7}")
        start = fresh("count = 0")[1]
        first = {}
        for what in QUESTIONS:
            first[what] = ask(file, what)
            goal = next((f"goal {ms}" for part, ms in GOALS.items() if what.startswith(f"{part} by day and")), "")
            show(f"report, {what}", first[what], start, goal)
        for words in COMMANDS:
            for terminal in (False, True) if words.startswith("cost report") else (False,):
                wall, cpu = command_line(file, words.split(), terminal=terminal)
                print(f"{f'llmctl {words}' + ', terminal' * terminal:56}{wall:9.1f}{cpu:9.1f}")
        for days in (90, 7):
            peer = fresh(PEER.format(file=str(file), days=days, now=NOW))
            show(f"plain SQL over the rows, {days} days by day and model", peer, start)
        writes(file)
        if options.growth:
            file.unlink()
            big = Path(home) / "big" / "ledger.db"
            seed(big, 10 * options.rows)
            print(f"\nten times as many calls, {big.stat().st_size / 1e6:.0f} MB")
            for what in QUESTIONS:
                got = ask(big, what)
                show(f"report, {what}", got, start, f"{got[0] / first[what][0]:.2f} x; goal {GOALS['growth']} x")


if __name__ == "__main__":
    main()
