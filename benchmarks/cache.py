"""The cache of answers: looking up, keeping, and single flight, beside the same in a plain key-value table.

Run: python benchmarks/cache.py [--quick] [--rows N]

Milliseconds of the caller, by the clock and of its CPU, over 100,000 entries (`--rows`; 10,000 with `--quick`) of 128
+ 1,200 bytes of text. A peer row is diskcache where it is installed, else a bare `SELECT` from a table of keys and
values in SQLite (WAL, no sync): neither looks at the age, checks what it read, counts a hit, nor leaves an audit row.
"New process" forks and looks once; "disk" has first asked the kernel to forget the file. Interpreter start is in no
number.
In single flight 50 processes ask the same at one instant, and the model takes 0.4 s; they look again each 20 to 30 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ledger import Fresh, apart, percentile

from llmctl.core.caching import Asked, Entry, packed
from llmctl.core.scope import Key
from llmctl.core.types import Completion
from llmctl.store.cache import SqliteCache
from llmctl.store.cache_steps import find

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Took = tuple[float, float]  # milliseconds by the clock, and of CPU

ASKED = Asked("01J00000000000000000000000", None)
TTL = 1e9
GOAL = "   goal <= 1"


def key(n: int) -> Key:
    return Key(*(random.Random(f"{n}/{part}").randbytes(32) for part in range(3)))


def entry(n: int) -> Entry:
    dice = random.Random(n)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(200)]
    made = packed(Completion(text=" ".join(words), finish_reason="stop", reported_model="llama-3.3-70b-versatile"))
    at = time.time()
    names = ("fast", "groq/llama-3.3-70b-versatile", "groq", "fast-1")
    return Entry(f"01J{n:023d}", key(n), at, at + TTL, *names, " ".join(words[:20]), made, 1234)


class Peer:
    """Keys and values, nothing else."""

    def __init__(self, path: Path) -> None:
        try:
            from diskcache import Cache
        except ImportError:
            self.name, self._disk = "bare SQLite table", None
            self._table = sqlite3.connect(path / "peer.db", isolation_level=None)
            self._table.execute("PRAGMA journal_mode = WAL")
            self._table.execute("PRAGMA synchronous = OFF")
            self._table.execute("CREATE TABLE IF NOT EXISTS cache (key BLOB PRIMARY KEY, value BLOB)")
        else:
            self.name, self._disk = "diskcache", Cache(str(path / "peer"), size_limit=1 << 40)

    def put(self, made: Entry) -> None:
        """Keep an answer."""
        value = json.dumps(made.answer)
        if self._disk is not None:
            self._disk.set(made.key.exact, value)
        else:
            self._table.execute("INSERT OR REPLACE INTO cache VALUES (?, ?)", (made.key.exact, value.encode()))

    def find(self, wanted: Key) -> object:
        """The answer of a key that is there."""
        if self._disk is not None:
            return json.loads(self._disk.get(wanted.exact))
        row = self._table.execute("SELECT value FROM cache WHERE key = ?", (wanted.exact,)).fetchone()
        return json.loads(row[0])


def look(cache: SqliteCache, wanted: Key) -> object:
    """The query of a lookup alone."""
    now = time.time()
    found, _ = cache.database.read(lambda connection: find(connection, [wanted], ("exact", "canonical"), now, TTL))
    return found


def hit(cache: SqliteCache, wanted: Key) -> object:
    return cache.find([wanted], ("exact", "canonical"), ASKED, time.time(), TTL)


def timed(work: Callable[[], object], *, finds: bool = True) -> Took:
    start, before = time.perf_counter(), time.thread_time()
    found = work()
    took = 1000 * (time.perf_counter() - start), 1000 * (time.thread_time() - before)
    if (found is not None) != finds:
        raise RuntimeError("the cache answered what it should not")
    return took


def line(name: str, took: list[Took], tail: str = "") -> None:
    wall, cpu = ([each[n] for each in took] for n in (0, 1))
    numbers = [percentile(wall, 0.5), percentile(wall, 0.99), percentile(cpu, 0.5), percentile(cpu, 0.99)]
    print(f"{name:48}" + "".join(f"{number:9.3f}" for number in numbers) + tail)


def anew(home: Path, work: Callable[[], Took], count: int, *, forget: bool = False) -> list[Took]:
    """What `work` says in each of `count` new processes."""
    told = []
    for _ in range(count):
        if forget:
            for path in home.iterdir():
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        said, say = os.pipe()
        apart(lambda say=say: os.write(say, json.dumps(work()).encode()))  # type: ignore[misc]
        os.close(say)
        wall, cpu = json.loads(os.read(said, 100))
        told.append((wall, cpu))
        os.close(said)
    return told


def fill(home: Path, rows: int) -> None:
    """Both files, in a process of their own: no connection may be open where others are forked."""
    cache, peer = SqliteCache(home / "cache.db", max_bytes=1 << 40), Peer(home)
    took: dict[str, list[Took]] = {"llmctl": [], peer.name: []}
    for n in range(rows):
        made = entry(n)
        took["llmctl"].append(timed(lambda made=made: cache.put(made, made.created_at) or None))  # type: ignore[misc]
        took[peer.name].append(timed(lambda made=made: peer.put(made), finds=False))  # type: ignore[misc]
    cache.close()
    for name, times in took.items():
        line(f"keep an answer, {name}", times)


def lookups(home: Path, rows: int, count: int) -> None:
    def some() -> Key:
        return key(random.SystemRandom().randrange(rows))

    def first(work: Callable[[SqliteCache, Key], object], *, opened: bool = True) -> Took:
        wanted, cache = some(), SqliteCache(home / "cache.db")
        if opened:
            cache.database.read(lambda _: None)
        return timed(lambda: work(cache, wanted))

    def peers() -> Took:
        wanted = some()
        return timed(lambda: Peer(home).find(wanted))

    line("new process: look up", anew(home, lambda: first(look), count), GOAL)
    line("new process: open, look up, leave an audit row", anew(home, lambda: first(hit, opened=False), count))
    line("new process: the peer opens and looks up", anew(home, peers, count))
    line("new process, disk: look up", anew(home, lambda: first(look), count // 4, forget=True))
    cache, peer = SqliteCache(home / "cache.db"), Peer(home)
    keys = [some() for _ in range(10 * count)]
    line("warm: look up", [timed(lambda k=k: look(cache, k)) for k in keys], GOAL)  # type: ignore[misc]
    misses = [timed(lambda n=n: look(cache, key(-n)), finds=False) for n in range(1, 10 * count)]  # type: ignore[misc]
    line("warm: look up in vain, both tiers", misses, GOAL)
    line("warm: hit, with its audit row", [timed(lambda k=k: hit(cache, k)) for k in keys])  # type: ignore[misc]
    line(f"warm: {peer.name}", [timed(lambda k=k: peer.find(k)) for k in keys])  # type: ignore[misc]
    cache.close()


def flight(home: Path, count: int, *, killed: bool) -> tuple[int, int, float]:
    """How many led, how many got the answer, and after how many seconds the last one did."""
    gun, pull = os.pipe()
    said, say = os.pipe()
    children = []
    for n in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(pull)
            os.read(gun, 1)
            with suppress(BaseException):
                ask(home, n, say, killed=killed)
            os._exit(0)
    os.close(say)
    start = time.perf_counter()
    os.close(pull)
    for child in children:
        os.waitpid(child, 0)
    took, words = time.perf_counter() - start, b""
    while piece := os.read(said, 4096):
        words += piece
    os.close(said)
    os.close(gun)
    return words.count(b"L"), words.count(b"."), took


def ask(home: Path, n: int, say: int, *, killed: bool) -> None:
    """One process: claim until the answer is there; `killed` is what happens to the first that leads."""
    cache, since, asked = SqliteCache(home / "cache.db"), time.time(), Asked(str(n), None)
    while True:
        got: Any = cache.claim(b"f" * 32, [key(0)], ("exact",), asked, time.time(), ttl_s=TTL, lease_s=15, since=since)
        if got.leads:
            os.write(say, b"L")
            if killed and not (home / "killed").exists():
                (home / "killed").touch()
                cache.renew(b"f" * 32, str(n), time.time(), 1.0)
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.4)
            cache.put(entry(0), time.time())
            cache.land(b"f" * 32, str(n), time.time(), gave_up=False)
        if got.leads or got.found:
            os.write(say, b".")
            return
        time.sleep(random.uniform(0.02, 0.03))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    rows = options.rows if options.rows is not None else 10_000 if options.quick else 100_000
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, SQLite {sqlite3.sqlite_version}\n")
    print(f"{f'{rows:,} entries (ms)':48}{'p50':>9}{'p99':>9}{'CPU p50':>9}{'CPU p99':>9}")
    with Fresh() as home:
        apart(lambda: fill(home, rows))
        sizes = {path.name: path.stat().st_size for path in home.iterdir()}
        lookups(home, rows, 100 if options.quick else 400)
        print(f"\nbytes for each entry: {sizes['cache.db'] / rows:,.0f}", end="")
        print(f", the peer {sum(n for name, n in sizes.items() if name.startswith('peer')) / rows:,.0f}")
    print(f"\n{'50 processes that ask the same, 0.4 s upstream':48}{'calls':>9}{'served':>9}{'s':>9}")
    for name, killed, goal in (("nobody dies", False, "1 call, 50 served"), ("the first is killed", True, "2, 49")):
        with Fresh() as home:
            leaders, served, took = flight(home, 50, killed=killed)
        print(f"{name:48}{leaders:9}{served:9}{took:9.2f}   goal {goal}")


if __name__ == "__main__":
    main()
