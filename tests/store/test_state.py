"""The shared state: one contract for every store of it, and what the file must survive."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmctl
from llmctl.core.errors import LlmctlError, StateUnusable
from llmctl.store.db import Database
from llmctl.store.state import KEEP_S, STEPS, SqliteState
from llmctl.testing import MemoryState, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

    Store = SqliteState | MemoryState

ROOT = str(Path(llmctl.__path__[0]).parent)
SECRET = "quota:sk-live-0123456789abcdef:openai/gpt-4o"


def add(documents: dict[str, Any], key: str = "k", n: int = 1) -> int:
    """The step most tests take: count."""
    document = documents.setdefault(key, {"n": 0})
    document["n"] += n
    return int(document["n"])


def look(store: Store, *keys: str) -> dict[str, Any]:
    return store.update_now(keys, dict)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.db"


@pytest.fixture
def sqlite(file: Path) -> Iterator[SqliteState]:
    store = SqliteState(file)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest) -> Store:
    """Every store of the contract; the one in memory as tests use it."""
    return request.getfixturevalue("sqlite") if request.param == "sqlite" else MemoryState(strict=True)


@pytest.fixture
def lock(sqlite: SqliteState, file: Path) -> Iterator[sqlite3.Connection]:
    """Another process that holds the whole file."""
    sqlite.update_now(["k"], add)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def run(script: str, *args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Python 3.12 warns of any fork beside threads; that it goes well is what is tested here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **how,
    )


def query(file: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(sql, values).fetchall()


# The contract.


def test_a_step_reads_what_the_last_one_left_and_only_what_it_named(store: Store) -> None:
    def first(documents: dict[str, Any]) -> str:
        assert documents == {}
        documents["a"] = {"n": 1, "text": "é\x00\ud800", "list": [0.1, None, True]}
        documents["b"] = {}
        return "done"

    assert store.update_now(["a", "b", "a"], first) == "done"
    assert look(store, "a", "c") == {"a": {"n": 1, "text": "é\x00\ud800", "list": [0.1, None, True]}}
    assert look(store, "b") == {"b": {}}
    assert look(store) == {}


def test_what_a_step_pops_is_gone_and_the_rest_stays(store: Store) -> None:
    store.update_now(["a", "b"], lambda documents: documents.update(a={"n": 1}, b={"n": 2}))
    assert store.update_now(["a", "b"], lambda documents: documents.pop("a")) == {"n": 1}
    assert look(store, "a", "b") == {"b": {"n": 2}}
    store.update_now(["a", "b"], lambda documents: documents.clear())
    assert look(store, "a", "b") == {}


def test_a_step_that_raises_leaves_everything_as_it_was(store: Store) -> None:
    store.update_now(["a", "b"], lambda documents: documents.update(a={"n": [1]}, b={"n": 2}))

    def breaks(documents: dict[str, Any]) -> None:
        documents["a"]["n"].append(2)
        documents["c"] = documents.pop("b")
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            store.update_now(["a", "b", "c"], breaks)
        assert look(store, "a", "b", "c") == {"a": {"n": [1]}, "b": {"n": 2}}


def test_the_fast_store_in_memory_at_least_keeps_its_keys_when_a_step_raises() -> None:
    store = MemoryState()
    store.update_now(["a", "b"], lambda documents: documents.update(a={"n": 1}))

    def breaks(documents: dict[str, Any]) -> None:
        documents["b"] = documents.pop("a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.update_now(["a", "b"], breaks)
    assert store.documents == {"a": {"n": 1}}


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_document_that_is_not_finite_is_a_bug_and_nothing_is_kept(store: Store, number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.update_now(["a", "b"], lambda documents: documents.update(a={"n": 1}, b={"n": number}))
    assert look(store, "a", "b") == {}


def test_a_step_may_add_only_what_it_named(store: Store) -> None:
    with pytest.raises(ValueError, match="named") as caught:
        store.update_now(["a"], lambda documents: documents.update({"a": {}, SECRET: {}}))
    assert SECRET not in str(caught.value)
    assert look(store, "a", SECRET) == {}


def test_what_a_step_carried_away_is_not_the_document(store: Store) -> None:
    shared: list[int] = []
    store.update_now(["a", "b"], lambda documents: documents.update(a={"n": shared}, b={"n": shared}))
    carried = look(store, "a", "b")
    shared.append(1)
    carried["a"]["n"].append(2)
    store.update_now(["a"], lambda documents: documents["a"]["n"].append(3))
    assert look(store, "a", "b") == {"a": {"n": [3]}, "b": {"n": []}}


@pytest.mark.parametrize("document", [{"n": (1, 2)}, {"n": {1: 2}}])
def test_the_strict_store_in_memory_refuses_what_json_would_change(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        MemoryState(strict=True).update_now(["a"], lambda documents: documents.update(a=document))


def test_no_count_of_eight_threads_is_lost(store: Store) -> None:
    def count() -> None:
        for _ in range(25):
            store.update_now(["k"], add, wait_s=60)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert look(store, "k") == {"k": {"n": 200}}


def test_no_count_of_a_hundred_tasks_is_lost_and_loops_may_change(store: Store) -> None:
    async def main() -> list[int]:
        return list(await asyncio.gather(*(store.update(["k"], add) for _ in range(50))))

    counts = asyncio.run(main()) + asyncio.run(main())
    assert sorted(counts) == list(range(1, 101))


def test_the_store_in_memory_serves_a_virtual_loop() -> None:
    store = MemoryState()

    async def main() -> list[int]:
        counts = []
        for _ in range(3):
            await asyncio.sleep(3600)
            counts.append(await store.update(["k"], add, wait_s=1, to_the_end=True))
        return counts

    assert run_virtual(main()) == [1, 2, 3]


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
VALUES = st.recursive(NUMBERS | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=8)
STEPS_TAKEN = st.tuples(
    st.integers(0, 1),  # which handle
    st.lists(st.sampled_from("abc"), max_size=3),  # its keys
    st.sampled_from(["set", "pop", "grow", "raise", "look"]),
    VALUES,
)


def step(how: str, value: Any, documents: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    found = json.loads(json.dumps(documents))
    for key in keys:
        if how == "pop":
            documents.pop(key, None)
        elif how != "look":
            documents.setdefault(key, {}).setdefault("list", []).append(value)
        if how == "set":
            documents[key] = {"v": value}
    if how == "raise":
        raise ZeroDivisionError
    assert isinstance(found, dict)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS_TAKEN, max_size=12))
def test_two_handles_of_a_file_are_one_store_in_memory(taken: list[tuple[int, list[str], str, Any]]) -> None:
    memory = MemoryState(strict=True)
    with TemporaryDirectory() as place:
        handles = [SqliteState(Path(place) / "state.db") for _ in range(2)]
        for which, keys, how, value in taken:
            seen: list[Any] = []
            for one in (memory, handles[which]):
                try:
                    seen.append(one.update_now(keys, lambda docs, h=how, v=value, k=keys: step(h, v, docs, k)))
                except ZeroDivisionError:
                    seen.append("raised")
            assert repr(seen[0]) == repr(seen[1]) or seen[0] == seen[1]
        assert look(handles[0], "a", "b", "c") == look(handles[1], "a", "b", "c") == look(memory, "a", "b", "c")
        for handle in handles:
            handle.close()


# Waiting.


def test_a_busy_file_is_given_up_in_time_and_used_again_when_it_is_free(
    sqlite: SqliteState, lock: sqlite3.Connection
) -> None:
    begun: list[int] = []
    start = monotonic()
    with pytest.raises(StateUnusable, match=r"not free within 0\.1 s|locked") as caught:
        sqlite.update_now(["k"], lambda _: begun.append(1), wait_s=0.1)
    with pytest.raises(StateUnusable):
        asyncio.run(sqlite.update(["k"], lambda _: begun.append(2), wait_s=0.1))
    assert 0.15 < monotonic() - start < 5
    assert "LLMCTL_HOME" in caught.value.hint
    lock.execute("ROLLBACK")
    assert sqlite.update_now(["k"], add) == 2
    assert begun == []


def test_the_wait_counts_the_steps_ahead_on_the_thread(sqlite: SqliteState, lock: sqlite3.Connection) -> None:
    async def main() -> list[int]:
        patient = asyncio.ensure_future(sqlite.update(["k"], add, wait_s=100))
        await asyncio.sleep(0)
        late: list[int] = []
        start = monotonic()
        with pytest.raises(StateUnusable, match="not free within"):
            await sqlite.update(["k"], late.append, wait_s=0.05)  # type: ignore[arg-type]
        with pytest.raises(StateUnusable, match="not free within"):
            await asyncio.to_thread(sqlite.update_now, ["k"], late.append, wait_s=0.05)  # type: ignore[arg-type]
        assert monotonic() - start < 5
        lock.execute("ROLLBACK")
        assert await patient == 2
        return late

    assert asyncio.run(main()) == []
    assert sqlite.update_now(["k"], add) == 3


def test_a_loop_is_not_blocked_while_the_state_waits(sqlite: SqliteState, lock: sqlite3.Connection) -> None:
    async def main() -> int:
        waiting = asyncio.ensure_future(sqlite.update(["k"], add, wait_s=100))
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0)
            ticks += 1
            if ticks == 1000:
                lock.execute("ROLLBACK")
        assert waiting.result() == 2
        return ticks

    assert asyncio.run(main()) >= 1000


def test_a_step_cancelled_before_it_begins_never_runs(sqlite: SqliteState, lock: sqlite3.Connection) -> None:
    begun: list[int] = []

    async def main() -> None:
        for _ in range(2):  # the first waits for the file, the second for the first
            waiting = asyncio.ensure_future(sqlite.update(["k"], lambda _: begun.append(1), wait_s=100))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())
    sqlite.close()  # their thread does not wait on for a file that nobody wants any more
    lock.execute("ROLLBACK")
    assert sqlite.update_now(["k"], add) == 2
    assert begun == []


def test_a_step_to_the_end_is_kept_though_cancelled(sqlite: SqliteState, lock: sqlite3.Connection) -> None:
    async def main() -> None:
        waiting = asyncio.ensure_future(sqlite.update(["k"], add, wait_s=100, to_the_end=True))
        await asyncio.sleep(0)
        waiting.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        lock.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert look(sqlite, "k") == {"k": {"n": 2}}


def test_to_the_end_waits_no_longer_than_allowed(sqlite: SqliteState, lock: sqlite3.Connection) -> None:
    async def main() -> None:
        start = monotonic()
        ahead = asyncio.ensure_future(sqlite.update(["other"], len, wait_s=100))
        waiting = asyncio.ensure_future(sqlite.update(["k"], add, wait_s=0.1, to_the_end=True))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert 0.05 < monotonic() - start < 5
        ahead.cancel()

    asyncio.run(main())
    lock.execute("ROLLBACK")
    assert look(sqlite, "k") == {"k": {"n": 1}}


def test_a_step_that_has_begun_is_answered_for_even_late(sqlite: SqliteState) -> None:
    began, go = threading.Event(), threading.Event()

    def slow(documents: dict[str, Any]) -> int:
        began.set()
        assert go.wait(60)
        return add(documents)

    async def main() -> int:
        waiting = asyncio.ensure_future(sqlite.update(["k"], slow, wait_s=0.5))
        assert await asyncio.to_thread(began.wait, 60)
        await asyncio.sleep(0.5)
        go.set()
        return await waiting

    sqlite.update_now(["other"], len)
    assert asyncio.run(main()) == 1
    assert look(sqlite, "k") == {"k": {"n": 1}}


def test_a_step_cancelled_late_is_waited_for_and_its_error_is_nobodys(sqlite: SqliteState) -> None:
    began, go = threading.Event(), threading.Event()
    unheard: list[object] = []

    def slow(documents: dict[str, Any]) -> None:
        began.set()
        assert go.wait(60)
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        waiting = asyncio.ensure_future(sqlite.update(["k"], slow, wait_s=0.5, to_the_end=True))
        assert await asyncio.to_thread(began.wait, 60)
        await asyncio.sleep(0.5)
        waiting.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
        gc.collect()

    asyncio.run(main())
    assert unheard == []


# Many processes. Children wait for the end of a pipe, so that all of them begin at one instant.

CROWD = """
import os, sys
from llmctl.store.state import SqliteState
path, count, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def add(documents):
    documents.setdefault("k", {"n": 0})["n"] += 1
if len(sys.argv) > 4:
    before = SqliteState(path)  # its thread and what it remembers are there before the forks
    before.update_now(["k"], add)
gun, pull = os.pipe()
for n in range(count):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        state = before if len(sys.argv) > 4 else SqliteState(path)
        for _ in range(each):
            state.update_now(["k"], add, wait_s=200)
        os._exit(len(state.warnings))
os.close(pull)
bad = sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(count))
if len(sys.argv) > 4:
    before.update_now(["k"], add)
print(bad)
"""


@pytest.mark.parametrize("each", [50, pytest.param(1000, marks=pytest.mark.full)])
def test_no_count_of_twenty_processes_is_lost_on_a_new_file(file: Path, sqlite: SqliteState, each: int) -> None:
    done = run(CROWD, file, 20, each)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert look(sqlite, "k") == {"k": {"n": 20 * each}}


def test_a_store_in_use_may_be_forked(file: Path, sqlite: SqliteState) -> None:
    done = run(CROWD, file, 5, 5, "forked")
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert look(sqlite, "k") == {"k": {"n": 27}}


WRITER = """
import sys
from llmctl.store.state import SqliteState
path, key = sys.argv[1:]
def add(documents):
    for each in ("all", key):
        document = documents.setdefault(each, {"n": 0, "uses": [[0.5, 1, 900, 500, 400]] * 100})
        document["n"] += 1
    return documents[key]["n"]
state = SqliteState(path)
while True:
    print(state.update_now(["all", key], add, wait_s=200), flush=True)
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.full)])
def test_killed_writers_lose_nothing_they_were_told_is_kept(file: Path, sqlite: SqliteState, rounds: int) -> None:
    dice = random.Random(rounds)
    told: dict[str, int] = {}
    for n in range(rounds):
        writers = {
            f"{n}-{who}": subprocess.Popen(
                [sys.executable, "-c", WRITER, str(file), f"{n}-{who}"],
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
            )
            for who in range(2)
        }
        for key, writer in writers.items():
            assert writer.stdout is not None
            for _ in range(dice.randrange(1, 60)):
                told[key] = int(writer.stdout.readline())
        for key, writer in writers.items():
            writer.kill()
            lines = [line for line in writer.communicate()[0].splitlines(keepends=True) if line.endswith(b"\n")]
            told[key] = int(lines[-1]) if lines else told[key]
        assert sqlite.update_now(["after"], lambda docs: add(docs, "after"), wait_s=5) == n + 1
    kept = {key: document["n"] for key, document in look(sqlite, "all", *told).items()}
    assert kept.pop("all") == sum(kept.values())
    assert all(told[key] <= n <= told[key] + 1 for key, n in kept.items())
    assert len(kept) == len(told)
    assert (query(file, "PRAGMA integrity_check"), sqlite.warnings) == ([("ok",)], [])


LEAVER = """
import sys
from llmctl.store.state import SqliteState
SqliteState(sys.argv[1]).update_now(["k"], lambda documents: documents.update(k={"n": 1}))
"""


def test_a_short_lived_process_leaves_without_closing(file: Path, sqlite: SqliteState) -> None:
    left = run(LEAVER, file)
    assert (left.returncode, left.stderr) == (0, "")
    assert Path(f"{file}-wal").stat().st_size > 0
    assert look(sqlite, "k") == {"k": {"n": 1}}


# The file.


def test_no_key_is_on_the_disk_and_no_two_files_hash_alike(file: Path, tmp_path: Path, sqlite: SqliteState) -> None:
    sqlite.update_now([SECRET], lambda documents: documents.update({SECRET: {"said": "FINDME"}}))
    other = SqliteState(tmp_path / "other.db")
    other.update_now([SECRET], lambda documents: documents.update({SECRET: {"n": 1}}))
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    other.close()
    assert b"FINDME" in data  # so the search can fail
    assert not any(part.encode() in data for part in (SECRET, "sk-live", "0123456789abcdef", "gpt-4o"))
    hashes = [query(each, "SELECT key FROM state") for each in (file, tmp_path / "other.db")]
    assert hashes[0] != hashes[1]


def test_files_are_private_and_nothing_is_touched_before_the_first_step(file: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteState(file)
        assert not file.parent.exists()
        store.update_now(["k"], add)
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
        store.close()
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_a_step_that_changes_nothing_writes_nothing(file: Path, sqlite: SqliteState) -> None:
    sqlite.update_now(["a", "b"], lambda documents: documents.update(a={"n": 1}, b={"n": 1}))
    query(file, "UPDATE state SET updated_at = 4e9")
    sqlite.update_now(["a", "b"], lambda documents: documents["a"].update(n=2))
    assert sorted(at == 4e9 for (at,) in query(file, "SELECT updated_at FROM state")) == [False, True]


@pytest.mark.parametrize(
    "body",
    ["", "{", "[1]", "null", '{"n": NaN}', '{"n": -Infinity}', "[" * 9999, '{"n": ' + "9" * 5000 + "}", b"\xff\xfe{}"],
    ids=lambda body: repr(body[:9]),
)
def test_an_unreadable_document_counts_as_absent(file: Path, sqlite: SqliteState, body: str | bytes) -> None:
    sqlite.update_now(["k"], add)
    query(file, "UPDATE state SET body = CAST(? AS TEXT)", body)
    assert look(sqlite, "k") == {}
    assert sqlite.update_now(["k"], add) == 1
    assert sqlite.warnings == []


def test_a_document_of_others_that_is_not_whole_counts_as_absent(file: Path, sqlite: SqliteState) -> None:
    sqlite.update_now(["k"], add)
    picky = SqliteState(file, lambda document: document.get("n") != 1)
    assert look(picky, "k") == {}
    assert [picky.update_now(["k"], add) for _ in range(2)] == [1, 2]  # what it writes itself is whole
    picky.close()


def test_another_handle_is_believed_over_what_is_remembered(file: Path, sqlite: SqliteState) -> None:
    other = SqliteState(file)
    for n in range(1, 7, 2):
        assert (sqlite.update_now(["k"], add), other.update_now(["k"], add)) == (n, n + 1)
    other.close()
    sqlite.update_now([f"k{n}" for n in range(300)], lambda docs: [add(docs, f"k{n}") for n in range(300)])
    assert sqlite.update_now([f"k{n}" for n in range(300)], len) == 300


def test_what_nobody_wrote_for_a_week_is_forgotten(file: Path) -> None:
    def store(pruned_at: float) -> None:
        query(file, "UPDATE meta SET value = ? WHERE name = 'pruned_at'", pruned_at)
        again = SqliteState(file)
        again.update_now(["k"], add)
        again.close()

    first = SqliteState(file)
    first.update_now([f"k{n}" for n in range(150)], lambda docs: [add(docs, f"k{n}") for n in range(150)])
    first.close()
    (newest,) = query(file, "SELECT max(updated_at) FROM state")[0]
    query(file, "UPDATE state SET updated_at = ?", newest - KEEP_S - 1)
    store(newest)  # an hour has not passed
    assert query(file, "SELECT count(*) FROM state") == [(151,)]
    store(newest - 3601)  # a hundred at a time
    assert query(file, "SELECT count(*) FROM state") == [(51,)]
    store(newest + 9e9)  # the clock was wrong then
    assert query(file, "SELECT key FROM state") == query(file, "SELECT key FROM state WHERE updated_at >= ?", newest)


def test_a_file_of_a_newer_version_is_used(file: Path, sqlite: SqliteState) -> None:
    def newer(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE state ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
        connection.execute("INSERT INTO meta (name, value) VALUES ('more', 'x')")

    database = Database(file, (*STEPS, newer))
    database.write(lambda _: None)
    database.close()
    assert [sqlite.update_now(["k"], add) for _ in range(2)] == [1, 2]
    assert query(file, "SELECT mood FROM state") == [("calm",)]
    assert query(file, "PRAGMA user_version") == [(len(STEPS) + 1,)]
    assert sqlite.warnings == []


def test_a_newer_file_with_other_tables_is_left_alone(file: Path, sqlite: SqliteState) -> None:
    database = Database(file, (*STEPS, lambda c: c.execute("DROP TABLE state")))  # type: ignore[list-item,arg-type]
    database.write(lambda _: None)
    database.close()
    for _ in range(2):
        with pytest.raises(StateUnusable, match="newer"):
            sqlite.update_now(["k"], add)
    assert [path.name for path in file.parent.glob("*corrupt*")] == []


@pytest.mark.parametrize("count", [80, pytest.param(2000, marks=pytest.mark.full)])
def test_a_damaged_file_is_set_aside_or_still_serves(tmp_path: Path, count: int) -> None:
    template = SqliteState(tmp_path / "template.db")
    keys = "abcd"
    template.update_now(keys, lambda docs: docs.update({k: {"n": [1.5] * 400 * n} for n, k in enumerate(keys)}))
    template.close()
    data = (tmp_path / "template.db").read_bytes()
    dice = random.Random(count)
    copies = [b"", data[:99], data[:5000], data[:-1], b"not a database at all" * 400]
    for _ in range(count):
        copy = bytearray(data)
        at = dice.randrange(len(copy))
        for n in range(at, min(len(copy), at + dice.choice((1, 4, 64, 512)))):
            copy[n] ^= dice.randrange(1, 256)
        copies.append(bytes(copy))
    moved = refused = 0
    for n, damaged in enumerate(copies):
        place = tmp_path / str(n)
        place.mkdir()
        (place / "state.db").write_bytes(damaged)
        store = SqliteState(place / "state.db")
        try:
            store.update_now(keys, lambda docs: docs.update(a={"n": 7}, d={"n": 8}))
            assert look(store, "a", "d") == {"a": {"n": 7}, "d": {"n": 8}}
        except StateUnusable:  # a header byte may say "read-only" or "made by a later SQLite"
            refused += 1
        store.close()
        aside = list(place.glob("state.db.corrupt-*[0-9]"))
        assert [str(each) in warning for each, warning in zip(aside, store.warnings, strict=True)] == [True] * len(
            aside
        )
        moved += len(aside)
        shutil.rmtree(place)
    assert moved > 2
    assert refused <= count / 200


@pytest.mark.parametrize("sql", ["DROP TABLE state", "DROP TABLE meta", "DELETE FROM meta WHERE name = 'salt'"])
def test_a_file_without_its_tables_or_salt_is_set_aside(file: Path, sqlite: SqliteState, sql: str) -> None:
    sqlite.update_now(["k"], add)
    sqlite.close()
    query(file, sql)
    assert [sqlite.update_now(["k"], add) for _ in range(2)] == [1, 2]
    assert ["damaged" in warning for warning in sqlite.warnings] == [True]


def test_a_step_never_runs_twice_though_the_file_breaks_under_it(file: Path, sqlite: SqliteState) -> None:
    sqlite.update_now(["k"], add)
    ran: list[int] = []

    def breaks(_: dict[str, Any]) -> None:
        ran.append(1)
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StateUnusable):
        sqlite.update_now(["k"], breaks)
    assert ran == [1]
    assert len(list(file.parent.glob("*.corrupt-*"))) > 0
    assert sqlite.update_now(["k"], add) == 1


UNWRITABLE = """
import os, sys
from llmctl.core.errors import StateUnusable
from llmctl.store.state import SqliteState
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
store = SqliteState(sys.argv[1])
for _ in range(2):
    try:
        store.update_now(["k"], lambda documents: print("ran"))
    except StateUnusable as error:
        print(type(error).__name__, error.hint)
"""


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    done = run(UNWRITABLE, "state.db", cwd=closed)  # from within: who is no longer root may not come from outside
    assert done.stderr == ""
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["StateUnusable"] * 2
    assert "LLMCTL_HOME" in done.stdout


def test_what_is_in_the_way_is_said_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link.db").symlink_to(tmp_path / "target")
    for path in (tmp_path / "link.db", tmp_path / "target" / "state.db", tmp_path):
        store = SqliteState(path)
        with pytest.raises(LlmctlError) as caught:
            store.update_now([SECRET], add)
        assert (caught.value.kind, SECRET in str(caught.value)) == ("StateUnusable", False)
    assert (tmp_path / "target").read_bytes() == b"precious"


FULL_DISK = """
import resource, sys
from llmctl.core.errors import StateUnusable
from llmctl.store.state import SqliteState
store = SqliteState(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
def grow(documents):
    documents.setdefault("k", {"n": []})["n"].extend(range(1000))
for _ in range(60):
    try:
        store.update_now(["k"], grow)
    except StateUnusable:
        print("full")
"""


@pytest.mark.parametrize("limit", [0, 5000, 60_000])
def test_a_full_disk_is_said_and_damages_nothing(file: Path, sqlite: SqliteState, limit: int) -> None:
    sqlite.update_now(["old"], lambda documents: add(documents, "old"))
    sqlite.close()
    done = run(FULL_DISK, file, limit)
    assert (done.stderr, set(done.stdout.split())) == ("", {"full"})
    assert look(sqlite, "old") == {"old": {"n": 1}}
    assert sqlite.warnings == []
    assert not list(file.parent.glob("*.corrupt-*"))


def test_a_step_without_keys_is_on_every_document_and_nobody_learns_their_names(sqlite: SqliteState):
    sqlite.update_now(["a", "b"], lambda documents: documents.update(a={"n": 1}, b={"n": 2}))

    def clear(documents: dict[str, Any]) -> list[str]:
        for document in documents.values():
            document["n"] += 10
        return list(documents)

    names = sqlite.update_now(None, clear)
    assert len(names) == 2
    assert not {"a", "b"} & set(names)
    assert look(sqlite, "a", "b") == {"a": {"n": 11}, "b": {"n": 12}}
