"""Opening and writing a file: private, migrated once, moved aside when damaged; the worker that owns it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

import llmctl
from llmctl.core.errors import LedgerUnusable
from llmctl.store.db import Database
from llmctl.store.files import on_network
from llmctl.store.patience import is_busy
from llmctl.store.worker import Worker

ROOT = str(Path(llmctl.__path__[0]).parent)


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t (a)")


def add_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE t ADD COLUMN b")


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t (a) VALUES (1)")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def rows(path: Path, table: str = "t") -> int:
    with sqlite3.connect(path) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Python 3.12 warns of any fork beside threads; that it goes well is what is tested here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_files_are_0600_and_directories_0700_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        database = Database(tmp_path / "a" / "b" / "x.db", [make_table])
        database.write(insert)
        modes = {path.name: mode(path) for path in (tmp_path / "a").rglob("*")}
    finally:
        os.umask(before)
        database.close()
    assert mode(tmp_path / "a") == 0o700
    assert modes == {"b": 0o700, "x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}


def test_a_file_that_others_may_read_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch(0o644)
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    database.close()
    assert mode(tmp_path / "x.db") == 0o600


def test_a_symbolic_link_is_refused_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    for name, target in (("x.db", "target"), ("dangling.db", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(LedgerUnusable, match="symbolic link"):
            Database(tmp_path / name, [make_table]).write(insert)
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch(0o600)
    os.chown(tmp_path / "x.db", 65534, 65534)
    with pytest.raises(LedgerUnusable, match="another user"):
        Database(tmp_path / "x.db", [make_table]).write(insert)


def test_a_new_file_is_in_wal_and_a_write_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])

    def breaks(connection: sqlite3.Connection) -> None:
        insert(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.write(breaks)
    database.write(insert)
    journal = database.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0])
    database.close()
    assert (rows(tmp_path / "x.db"), journal) == (1, "wal")


@pytest.mark.parametrize("how", [{}, {"disposable": True, "secure": True}])
def test_what_is_deleted_is_overwritten(tmp_path: Path, how: dict[str, bool]) -> None:
    database = Database(tmp_path / "x.db", [make_table], **how)  # type: ignore[arg-type]
    assert database.write(lambda c: c.execute("PRAGMA secure_delete").fetchone()[0]) == 1
    database.close()


def test_a_reader_sees_one_state_and_holds_nobody_up_who_writes(tmp_path: Path) -> None:
    database, other = (Database(tmp_path / "x.db", [make_table]) for _ in range(2))
    database.write(insert)

    def look(connection: sqlite3.Connection) -> list[int]:
        seen = []
        for _ in range(2):
            seen.append(connection.execute("SELECT count(*) FROM t").fetchone()[0])
            other.write(insert, deadline=monotonic() + 5)
        return seen

    assert database.read(look) == [1, 1]
    assert database.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]) == 3
    with pytest.raises(ZeroDivisionError):
        database.read(lambda _: 1 // 0)
    database.write(insert)
    other.close()
    database.close()


def test_a_reader_waits_for_a_commit_where_there_is_a_rollback_journal(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table], vfs="unix-dotfile")
    database.write(insert)
    begun = threading.Event()

    def look(connection: sqlite3.Connection) -> int:
        begun.set()
        found: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
        return found

    name = f"file:{tmp_path / 'x.db'}?vfs=unix-dotfile"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        insert(other)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.read(look, deadline=monotonic() + 0.02)
        begun.clear()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(database.read, look)
            assert begun.wait(10)
            other.execute("COMMIT")
            assert reading.result(10) == 2
    database.close()


@pytest.mark.parametrize("what", ["text", "tables", "mark"])
@pytest.mark.parametrize("first", ["read", "write"])
def test_what_does_not_bear_our_mark_is_moved_aside_and_gets_none_of_our_tables(
    tmp_path: Path, what: str, first: str
) -> None:
    def marked(connection: sqlite3.Connection) -> None:
        make_table(connection)
        connection.execute("PRAGMA application_id = 77")

    path = tmp_path / "x.db"
    if what == "text":
        path.write_bytes(b"some text " * 999)
    else:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE theirs (a)" if what == "tables" else "PRAGMA application_id = 5")
    before = path.read_bytes()
    database = Database(path, [marked], mark=77)
    getattr(database, first)(lambda c: c.execute("SELECT * FROM t").fetchall())
    database.write(insert)
    database.close()
    (aside,) = tmp_path.glob("x.db.corrupt-*")
    assert (aside.read_bytes(), len(database.notes), rows(path)) == (before, 1, 1)
    again = Database(path, [marked], mark=77)
    assert (again.read(lambda c: len(c.execute("SELECT * FROM t").fetchall())), again.notes) == (1, [])
    again.close()


@pytest.mark.parametrize(("disposable", "synchronous"), [(False, 1), (True, 0)])
def test_only_a_disposable_file_is_not_waited_for(tmp_path: Path, disposable: bool, synchronous: int) -> None:
    database = Database(tmp_path / "x.db", [make_table], disposable=disposable)
    assert database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == synchronous
    database.close()


def test_a_path_with_every_uri_character_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=ro#b%20&c.db"
    database = Database(path, [make_table])
    database.write(insert)
    database.close()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_older_file_gets_only_the_steps_it_lacks(tmp_path: Path) -> None:
    older = Database(tmp_path / "x.db", [make_table])
    older.write(insert)
    older.close()
    newer = Database(tmp_path / "x.db", [make_table, add_column])
    newer.write(lambda c: c.execute("INSERT INTO t (a, b) VALUES (1, 2)"))
    newer.close()
    assert (rows(tmp_path / "x.db"), newer.version) == (2, 2)


def test_a_newer_file_keeps_its_version_and_is_written(tmp_path: Path) -> None:
    newer = Database(tmp_path / "x.db", [make_table, add_column])
    newer.write(insert)
    newer.close()
    older = Database(tmp_path / "x.db", [make_table])
    older.write(insert)
    version = older.write(lambda c: c.execute("PRAGMA user_version").fetchone()[0])
    older.close()
    assert (rows(tmp_path / "x.db"), version, older.version) == (2, 2, 2)


def test_a_migration_that_fails_leaves_the_older_file_whole(tmp_path: Path) -> None:
    older = Database(tmp_path / "x.db", [make_table])
    older.write(insert)
    older.close()

    def breaks(connection: sqlite3.Connection) -> None:
        add_column(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Database(tmp_path / "x.db", [make_table, breaks]).write(insert)
    database = Database(tmp_path / "x.db", [make_table, add_column])
    database.write(insert)
    database.close()
    assert rows(tmp_path / "x.db") == 2


# Children wait for the end of a pipe, so that all of them begin at one instant; each appends to `t`.
RACE = """
import os, sys
from llmctl.store.db import Database
path, count, before = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def make(c):
    c.execute("CREATE TABLE t (a)")
    c.execute("CREATE TABLE migrations (step)")
def add(c):
    c.execute("ALTER TABLE t ADD COLUMN b")
    c.execute("INSERT INTO migrations VALUES (2)")
if before:
    old = Database(path, [make])
    old.write(lambda c: None)
    old.close()
gun, pull = os.pipe()
for n in range(count):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        Database(path, [make, add]).write(lambda c: c.execute("INSERT INTO t (a, b) VALUES (?, 2)", (n,)))
        os._exit(0)
os.close(pull)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(count)))
"""


@pytest.mark.parametrize("older", [0, 1], ids=["new file", "older file"])
@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.full)])
def test_racing_processes_migrate_once_and_lose_nothing(tmp_path: Path, count: int, older: int) -> None:
    done = run(RACE, tmp_path / "x.db", count, older)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert rows(tmp_path / "x.db") == count
    assert rows(tmp_path / "x.db", "migrations") == 1


def test_where_wal_does_not_work_a_rollback_journal_serves_and_is_said_once(tmp_path: Path) -> None:
    # The dotfile layer has no shared memory, as some network file systems have none.
    first = Database(tmp_path / "x.db", [make_table], vfs="unix-dotfile")
    first.write(insert)
    journal = first.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0])
    first.close()
    second = Database(tmp_path / "x.db", [make_table], vfs="unix-dotfile")
    second.write(insert)
    second.close()
    assert journal == "delete"
    assert ["rollback" in note or "journal" in note for note in first.notes] == [True]
    assert second.notes == []
    assert rows(tmp_path / "x.db") == 2


def test_a_wal_file_carried_to_such_a_directory_is_taken_back(tmp_path: Path) -> None:
    at_home = Database(tmp_path / "x.db", [make_table])
    at_home.write(insert)
    at_home.close()
    carried = Database(tmp_path / "x.db", [make_table], vfs="unix-dotfile")
    carried.write(insert)
    carried.close()
    assert len(carried.notes) == 1
    assert rows(tmp_path / "x.db") == 2


def test_where_readers_hold_up_a_commit_it_is_waited_for_and_undone_at_the_deadline(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        make_table(connection)
        connection.execute("PRAGMA user_version = 1")
    database, reading = Database(tmp_path / "x.db", [make_table]), threading.Event()
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.write(insert, deadline=monotonic() + 0.02)

        def insert_and_say(connection: sqlite3.Connection) -> None:
            insert(connection)
            reading.set()

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(database.write, insert_and_say)
            assert reading.wait(10)
            reader.execute("COMMIT")
            written.result(10)
    database.close()
    assert rows(tmp_path / "x.db") == 1


def test_a_network_file_system_is_known_by_the_longest_mount_point() -> None:
    table = ["/dev/sda1 / ext4 rw 0 0", "srv:/home /home nfs4 rw 0 0", "/dev/sdb /mnt/me\\040too ext4 rw 0 0", "odd"]
    assert on_network("/home/.local", table) == "nfs4"
    assert on_network("/mnt/me too/x", table) == ""
    assert on_network("/homely", table) == ""
    assert on_network("/", table) == ""


@pytest.mark.parametrize("text", [b"this is no database, but it is long enough to be read as one" * 9, b"\x00" * 5000])
def test_what_is_no_database_is_moved_aside_and_a_new_one_begun(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.db").write_bytes(text)
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    database.close()
    (aside,) = tmp_path.glob("x.db.corrupt-*")
    assert aside.read_bytes() == text
    assert rows(tmp_path / "x.db") == 1
    assert [str(aside) in note for note in database.notes] == [True]


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_a_file_cut_to_nothing_keeps_its_journal_aside(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    shutil.copy(tmp_path / "x.db-wal", tmp_path / "journal")
    database.close()
    (tmp_path / "x.db").write_bytes(b"")
    (tmp_path / "journal").rename(tmp_path / "x.db-wal")
    journal = (tmp_path / "x.db-wal").read_bytes()
    again = Database(tmp_path / "x.db", [make_table])
    again.write(insert)
    again.close()
    (aside,) = tmp_path.glob("x.db.corrupt-*-wal")
    assert aside.read_bytes() == journal


DAMAGED = """
import os, sys
from llmctl.store.db import Database
path, count = sys.argv[1], int(sys.argv[2])
gun, pull = os.pipe()
for n in range(count):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        step = lambda c: c.execute("CREATE TABLE t (a)")
        Database(path, [step]).write(lambda c: c.execute("INSERT INTO t VALUES (?)", (n,)))
        os._exit(0)
os.close(pull)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(count)))
"""


def test_racing_processes_move_a_damaged_file_aside_once(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    done = run(DAMAGED, tmp_path / "x.db", 30)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert len(list(tmp_path.glob("x.db.corrupt-*"))) == 1
    assert rows(tmp_path / "x.db") == 30


def test_a_file_replaced_under_an_open_connection_is_opened_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    for path in tmp_path.iterdir():
        path.rename(tmp_path / path.name.replace("x.db", "moved.db"))
    database.write(insert)
    database.write(insert)
    database.close()
    assert rows(tmp_path / "x.db") == 2


def test_letting_a_replaced_file_go_leaves_the_journal_of_the_new_one(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    (tmp_path / "x.db").rename(tmp_path / "moved.db")
    for path in tmp_path.glob("x.db-*"):
        path.unlink()
    other = Database(tmp_path / "x.db", [make_table])
    other.write(insert)
    database.close()
    del database
    gc.collect()
    assert (tmp_path / "x.db-wal").stat().st_size > 0
    other.close()
    assert rows(tmp_path / "x.db") == 1


def test_a_lock_is_waited_for_until_the_deadline_and_no_longer(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    start = monotonic()
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.write(insert, deadline=start + 0.1)
    assert is_busy(caught.value)
    assert 0.05 < monotonic() - start < 5
    holder.execute("ROLLBACK")
    holder.close()
    database.write(insert)
    database.close()
    assert rows(tmp_path / "x.db") == 2


def test_a_write_in_a_hurry_gives_up_before_its_deadline(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    database.write(insert)
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    start = monotonic()
    with pytest.raises(sqlite3.OperationalError):
        database.write(insert, deadline=start + 60, hurry=lambda: True)
    assert monotonic() - start < 20
    holder.close()
    database.close()


def test_the_journal_stays_near_a_megabyte_when_writes_may_checkpoint(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", [make_table])
    for _ in range(400):
        database.write(lambda c: c.execute("INSERT INTO t VALUES (zeroblob(20000))"))
    size = (tmp_path / "x.db-wal").stat().st_size
    database.close()
    assert size < 1_300_000


FORKS = """
import os, sys, threading
from llmctl.store.db import Database
path, count = sys.argv[1], int(sys.argv[2])
database = Database(path, [lambda c: c.execute("CREATE TABLE t (a)")])
over = threading.Event()
written = 0
def writes():
    global written
    while not over.is_set():
        database.write(lambda c: c.execute("INSERT INTO t VALUES ('parent')"))
        written += 1
thread = threading.Thread(target=writes)
thread.start()
bad = 0
for n in range(count):
    if os.fork() == 0:
        database.write(lambda c: c.execute("INSERT INTO t VALUES ('child')"))
        os._exit(0)
    bad += os.wait()[1] != 0
over.set()
thread.join()
print(bad, written + count - database.write(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]))
"""


def test_a_process_forks_while_it_writes_and_both_go_on(tmp_path: Path) -> None:
    done = run(FORKS, tmp_path / "x.db", 60)
    assert (done.stdout.split(), done.stderr) == (["0", "0"], "")


def test_the_worker_does_jobs_in_order_and_carries_errors() -> None:
    worker = Worker("test")
    seen: list[int] = []
    for n in range(5):
        worker.call(lambda n=n: seen.append(n))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0)
    assert worker.call(lambda: threading.current_thread().name) == "test"
    worker.close()
    assert seen == [0, 1, 2, 3, 4]
    assert worker.call(lambda: 7) == 7
    worker.close()


def test_the_loop_runs_while_the_worker_works_and_any_loop_may_ask() -> None:
    worker = Worker("test")

    async def ask() -> int:
        gate = threading.Event()
        task = asyncio.ensure_future(worker.run(lambda: gate.wait(30)))
        ticks = 0
        for _ in range(100):
            await asyncio.sleep(0)
            ticks += 1
        assert not task.done()
        gate.set()
        assert await task
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 / 0)
        return ticks

    assert [asyncio.run(ask()), asyncio.run(ask())] == [100, 100]
    worker.close()


def test_a_job_is_done_even_if_nobody_waits_for_it_any_more() -> None:
    worker = Worker("test")
    gate, done = threading.Event(), threading.Event()

    async def ask_and_leave() -> None:
        first = asyncio.ensure_future(worker.run(lambda: gate.wait(30)))
        second = asyncio.ensure_future(worker.run(done.set))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(ask_and_leave())
    gate.set()
    worker.close()
    assert done.is_set()


def test_a_process_leaves_while_its_worker_is_busy() -> None:
    script = "import threading; from llmctl.store.worker import Worker; import asyncio\n"
    script += "w = Worker('w'); started = threading.Event()\n"
    script += "def forever():\n    started.set(); threading.Event().wait()\n"
    script += "async def main():\n    asyncio.ensure_future(w.run(forever)); await asyncio.sleep(0); started.wait()\n"
    script += "asyncio.run(main()); print('left')"
    assert run(script).stdout == "left\n"


def test_opening_a_store_imports_nothing_heavy() -> None:
    script = "import sys, llmctl.store.db, llmctl.store.ledger\n"
    script += (
        "print([n for n in ('asyncio', 'sqlite_utils', 'concurrent', 'json', 'pydantic', 'httpx') if n in sys.modules])"
    )
    assert run(script).stdout == "[]\n"


LONE = """
import os, sys
from llmctl.store.db import Database
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        database = Database(sys.argv[1], [lambda c: c.execute("CREATE TABLE t (a)")])
        database.write(lambda c: c.execute("INSERT INTO t VALUES (zeroblob(20000))"))
        os._exit(0)
    assert os.wait()[1] == 0
    print(os.stat(sys.argv[1] + "-wal").st_size)
"""


def test_processes_that_leave_without_closing_do_not_let_the_journal_grow(tmp_path: Path) -> None:
    done = run(LONE, tmp_path / "x.db", 200)
    sizes = [int(line) for line in done.stdout.split()]
    assert (len(sizes), done.stderr) == (200, "")
    assert max(sizes) < 1_200_000
    assert rows(tmp_path / "x.db") == 200


def test_whoever_is_cancelled_while_a_job_runs_to_the_end_waits_for_it() -> None:
    """A cancelled command leaves the process next: its row would stay as it was begun."""
    worker, begun, release, done = Worker("test"), threading.Event(), threading.Event(), []

    def job() -> None:
        begun.set()
        release.wait(30)
        done.append(1)

    async def cancelled() -> list[int]:
        waiting = asyncio.create_task(worker.run(job, to_the_end=True))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        release.set()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        return list(done)

    assert asyncio.run(cancelled()) == [1]
    worker.close()
