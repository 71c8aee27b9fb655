"""The ledger: written before the first byte and at the end, spooled when it cannot be, read without changing it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import llmctl
from llmctl.core.budget import Budgets
from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store import spend
from llmctl.store.checkup import check
from llmctl.store.comparison import records
from llmctl.store.db import Database
from llmctl.store.history import Filter, History
from llmctl.store.ledger import SqliteLedger
from llmctl.store.repair import repair
from llmctl.store.report import Question, Reports
from llmctl.store.rows import begun, ended
from llmctl.store.schema import ATTEMPTS, CALLS, STEPS
from llmctl.store.spool import Entry, Spool

ROOT = str(Path(llmctl.__path__[0]).parent)
NOW = 1_800_000_000.0

# The columns of the design, section 13, in its words.
DESIGN_CALLS = re.findall(
    r"\w+",
    """
    id started_at finished_at state command model served_by provider deployment session cache fallback attempt_count
    reported_model system_fingerprint input_tokens output_tokens cached_input_tokens cache_write_tokens reasoning_tokens
    tokens_estimated cost_nanousd saved_nanousd price_version latency_ms first_token_ms overhead_ms finish_reason error
    exit_code drill complexity
    """,
)
DESIGN_CALLS.append("deadline_at")  # which came later
DESIGN_ATTEMPTS = re.findall(
    r"\w+",
    """
    call_id n deployment provider model role outcome status started_at first_token_ms latency_ms input_tokens
    output_tokens cost_nanousd retry_after_s request_id error
    """,
)


def call(n: int = 1, **changes: Any) -> CallRecord:
    record = CallRecord(id=ulid(NOW + n, n), started_at=NOW + n, command="ask", model="fast")
    return replace(record, **changes)


def done(record: CallRecord, **changes: Any) -> CallRecord:
    whole: dict[str, Any] = {
        "state": "ok",
        "finished_at": record.started_at + 1,
        "input_tokens": 12,
        "attempt_count": 1,
    }
    return replace(record, **whole | changes)


def attempt(n: int = 1, **changes: Any) -> Attempt:
    one = Attempt(n, "fast-1", "groq", "llama", "primary", "ok", NOW, status=200, request_id="r1")
    return replace(one, **changes)


class Home:
    """A data directory, its ledger and its readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "ledger.db"
        self.spool = path / "spool"
        self.history = History(self.file)
        self._open: list[SqliteLedger] = []

    def ledger(self, wait_s: float = 5.0) -> SqliteLedger:
        self._open.append(SqliteLedger(self.file, self.spool, wait_s=wait_s))
        return self._open[-1]

    def lock(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        return connection

    def query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(sql).fetchall()

    def spooled(self) -> list[str]:
        return sorted(os.listdir(self.spool)) if self.spool.exists() else []

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


@pytest.fixture
def home(tmp_path: Path) -> Any:
    place = Home(tmp_path / "home")
    yield place
    place.close()


def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_columns_are_those_of_the_design() -> None:
    assert (list(CALLS), list(ATTEMPTS)) == (DESIGN_CALLS, DESIGN_ATTEMPTS)


def test_a_call_is_there_before_its_first_byte_and_whole_at_its_end(home: Home) -> None:
    ledger = home.ledger()
    record = call(tags={"team": "web", "job": "7"}, session="s1")
    ledger.begin_now(record, "what?")
    (started,) = home.history.list_calls()
    assert (started["state"], started["finished_at"], started["attempts"]) == ("started", None, [])
    served = done(record, served_by="groq/llama", fallback=True, cost_nanousd=34_100, complexity=-0.5)
    attempts = (attempt(1, outcome="RateLimited", status=429, retry_after_s=2.0), attempt(2, role="retry"))
    ledger.complete_now(served, attempts, "this.")
    whole = home.history.show("last")
    assert list(whole) == [*DESIGN_CALLS, "interrupted", "tags", "attempts", "prompt", "answer"]
    assert (whole["state"], whole["fallback"], whole["cost_nanousd"], whole["complexity"]) == ("ok", 1, 34_100, -0.5)
    assert whole["tags"] == {"team": "web", "job": "7"}
    assert [list(each) for each in whole["attempts"]] == [DESIGN_ATTEMPTS, DESIGN_ATTEMPTS]
    assert [(a["n"], a["outcome"], a["status"]) for a in whole["attempts"]] == [(1, "RateLimited", 429), (2, "ok", 200)]
    assert (whole["prompt"], whole["answer"]) == ("what?", "this.")
    assert (ledger.warnings, ledger.trouble) == ([], "")


def test_a_loop_is_not_blocked_while_the_ledger_waits(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()

    async def main() -> int:
        ledger = home.ledger(wait_s=20)
        waiting = asyncio.ensure_future(ledger.begin(call(2), None))
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0)
            ticks += 1
            if ticks == 1000:
                holder.execute("ROLLBACK")
        await ledger.complete(done(call(2)), (), None)
        return ticks

    assert asyncio.run(main()) >= 1000
    holder.close()
    assert [each["state"] for each in home.history.list_calls()] == ["ok", "started"]


def test_a_completion_alone_and_a_late_beginning_make_the_same_row(home: Home) -> None:
    ledger = home.ledger()
    ledger.complete_now(done(call()), (attempt(),), "answer text")
    ledger.begin_now(call(), "prompt text")
    whole = home.history.show("last")
    assert (whole["state"], whole["prompt"], whole["answer"]) == ("ok", "prompt text", "answer text")
    assert [len(home.history.search(word)) for word in ("prompt", "answer")] == [1, 1]
    with closing(sqlite3.connect(home.file)) as connection:  # raises when the index and the texts disagree
        connection.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")


def test_a_call_that_was_over_as_it_began_is_written_at_once_and_brings_in_what_waits(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    home.ledger(wait_s=0).record_now(done(call(2), state="cached"), "the question", "the answer")
    assert len(home.spooled()) == 1
    holder.close()
    home.ledger().record_now(done(call(3), state="cached"), "another question", None)
    assert (home.spooled(), [each["state"] for each in home.history.list_calls()]) == (
        [],
        ["cached", "cached", "started"],
    )
    whole = home.history.show(call(2).id)
    assert (whole["prompt"], whole["answer"]) == ("the question", "the answer")
    assert [len(home.history.search(word)) for word in ("question", "answer")] == [2, 1]


def test_without_content_not_one_byte_of_it_is_on_the_disk(home: Home) -> None:
    ledger = home.ledger()
    for n in range(20):
        ledger.begin_now(call(n), None)
        ledger.complete_now(done(call(n)), (attempt(),), None)
    ledger.begin_now(call(99), "SECRETPROMPT")  # and the search can fail: this one is there
    data = b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())
    assert b"SECRETPROMPT" in data
    assert home.query("SELECT count(*) FROM content") == [(1,)]
    assert "prompt" not in home.history.show(call(5).id)
    assert home.query("SELECT count(*) FROM search WHERE search MATCH 'fast'") == [(0,)]


@pytest.mark.parametrize("content", [None, "NEVERSTORED"])
def test_content_none_leaves_nothing_in_the_spool_either(tmp_path: Path, content: str | None) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.file.symlink_to(tmp_path / "elsewhere")
    ledger = home.ledger()
    ledger.begin_now(call(), content)
    data = b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())
    assert (b"NEVERSTORED" in data) == (content is not None)
    home.close()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -3.0])
def test_amounts_that_cannot_be_are_not_stored(home: Home, bad: float) -> None:
    ledger = home.ledger()
    record = done(call(), input_tokens=-5, cost_nanousd=-1, latency_ms=bad, output_tokens=2**80, complexity=bad)
    ledger.complete_now(record, (attempt(latency_ms=bad, retry_after_s=bad),), None)
    row = home.history.show("last")
    amount = 0 if bad == -3.0 else None
    assert (row["input_tokens"], row["cost_nanousd"], row["output_tokens"]) == (0, 0, 2**63 - 1)
    assert (row["latency_ms"], row["attempts"][0]["latency_ms"]) == (amount, amount)
    assert row["complexity"] == (-3.0 if bad == -3.0 else None)
    json.dumps(row, allow_nan=False)


def test_text_no_encoding_has_is_kept_as_near_as_it_can_be(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(tags={"k\ud800": "v\udfff"}), "a\ud800b\x00c")
    ledger.complete_now(done(call(), error="\udcff"), (), "é\x1b[31m")
    whole = home.history.show("last")
    assert (whole["prompt"], whole["answer"], whole["error"]) == ("a?b\x00c", "é\x1b[31m", "?")
    assert ledger.warnings == []


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    before = os.umask(0)
    try:
        home.ledger().begin_now(call(1), "p")
        home.spool.mkdir(mode=0o700)
        locked = home.lock()
        home.ledger(wait_s=0).begin_now(call(2), "p")
        locked.close()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in home.path.rglob("*") if path.is_file()}
    finally:
        os.umask(before)
    assert len(home.spooled()) == 1
    assert modes == {0o600}
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    home.close()


def test_a_locked_ledger_delays_a_call_no_longer_than_its_limit_and_loses_nothing(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    ledger = home.ledger(wait_s=0.1)
    start = monotonic()
    for n in (2, 3, 4):
        ledger.begin_now(call(n, tags={"n": str(n)}), f"prompt {n}")
        ledger.complete_now(done(call(n, tags={"n": str(n)})), (attempt(),), f"answer {n}")
    assert monotonic() - start < 10
    assert len(home.spooled()) == 3
    assert len(ledger.warnings) == 1
    assert "locked" in ledger.warnings[0]
    assert ledger.trouble
    assert check(home.file, home.spool, NOW)["spool"]["waiting"] == 3
    holder.close()
    ledger.begin_now(call(5), None)
    assert (home.spooled(), ledger.trouble, len(ledger.warnings)) == ([], "", 1)
    calls = home.history.list_calls()
    assert [each["state"] for each in calls] == ["started", "ok", "ok", "ok", "started"]
    whole = home.history.show(call(3).id)
    assert (whole["prompt"], whole["answer"], whole["tags"]) == ("prompt 3", "answer 3", {"n": "3"})
    assert len(whole["attempts"]) == 1
    assert len(home.history.search("prompt")) == 3


def test_calls_that_wait_together_do_not_add_up_their_waits(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    ledger = home.ledger(wait_s=30)

    async def many() -> None:
        await asyncio.gather(*(ledger.begin(call(n), None) for n in range(2, 40)))

    start = monotonic()
    asyncio.run(many())
    assert monotonic() - start < 15
    holder.close()
    ledger.begin_now(call(40), None)
    assert len(home.history.list_calls(0)) == 40


def test_a_beginning_that_waits_in_the_spool_never_undoes_the_completion(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    ledger = home.ledger(wait_s=0)
    ledger.begin_now(call(2), "kept prompt")
    holder.close()
    assert len(home.spooled()) == 1
    ledger.complete_now(done(call(2)), (), "kept answer")
    whole = home.history.show(call(2).id)
    assert (whole["state"], whole["prompt"], whole["answer"]) == ("ok", "kept prompt", "kept answer")
    assert home.spooled() == []


def test_merging_is_bounded_and_what_is_no_row_is_kept_and_said(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    for n in range(2, 72):
        home.ledger(wait_s=0).begin_now(call(n), None)
    holder.close()
    good = json.loads((home.spool / home.spooled()[0]).read_text())
    bad = ["", "{}", "[1]", "null", "\udcff", json.dumps(good | {"call": {"id": "x"}}), '{"call": 5}', "[" * 100_000]
    bad.append(json.dumps(good | {"attempts": [{"n": {}}]}))
    for n, text in enumerate(bad):
        (home.spool / f"0bad{n}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    ledger = home.ledger()
    ledger.begin_now(call(100), None)
    assert len(home.spooled()) == 70 + len(bad) - 50
    ledger.begin_now(call(101), None)
    assert all(name.endswith(".bad") for name in home.spooled())
    assert home.query("SELECT count(*) FROM calls") == [(73,)]
    report = check(home.file, home.spool, NOW)
    assert (report["ok"], report["spool"]["waiting"], report["spool"]["unreadable"]) == (False, 0, len(bad))


def test_a_row_written_while_its_earlier_one_is_merged_still_waits(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.add(begun(call(1), "p"))
    merged: list[bool] = []

    def store(entry: Entry) -> None:
        merged.append(entry.final)
        if not entry.final:
            spool.add(ended(done(call(1)), (), "a"))

    assert (spool.merge(store), spool.count()) == (1, (1, 0))
    assert (spool.merge(store), spool.count()) == (1, (0, 0))
    assert merged == [False, True]


def test_what_cannot_be_stored_now_keeps_waiting(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.add(begun(call(1), "p"))

    def refuse(_: Entry) -> None:
        raise sqlite3.OperationalError("database is locked")

    with pytest.raises(sqlite3.OperationalError):
        spool.merge(refuse)
    assert spool.count() == (1, 0)
    assert spool.merge(lambda _: None) == 1


def test_only_a_completion_spends_time_on_a_checkpoint(home: Home) -> None:
    ledger = home.ledger()
    for n in range(30):
        ledger.begin_now(call(n), "x" * 50_000)
    journal = home.path / "ledger.db-wal"
    assert journal.stat().st_size > 1_300_000
    ledger.complete_now(done(call(1)), (), "a")
    assert journal.stat().st_size == 0


# Each child begins three calls from the same instant on: the first to write also finds the spool.
MERGERS = """
import os, sys
from llmctl.core.record import CallRecord, ulid
from llmctl.store.ledger import SqliteLedger
home, count = sys.argv[1], int(sys.argv[2])
gun, pull = os.pipe()
for n in range(count):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        ledger = SqliteLedger(home + "/ledger.db", home + "/spool")
        for k in range(3):
            record = CallRecord(id=ulid(9e8, n * 10 + k), started_at=9e8, command="ask", model="fast")
            ledger.begin_now(record, None)
        os._exit(len(ledger.warnings))
os.close(pull)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count)))
"""


def test_racing_mergers_bring_in_every_waiting_row_exactly_once(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    holder = home.lock()
    ledger = home.ledger(wait_s=0)
    for n in range(2, 122):
        ledger.begin_now(call(n), f"p{n}")
        ledger.complete_now(done(call(n)), (attempt(1), attempt(2)), f"a{n}")
    (home.spool / f"{call(2).id}.json").rename(home.spool / f"{call(2).id}.0badf00d.merging")  # a merger was killed
    holder.close()
    merged = run(MERGERS, home.path, 12)
    assert (merged.stdout.strip(), merged.stderr) == ("0", "")
    assert home.spooled() == []
    assert home.query("SELECT count(*), count(DISTINCT id) FROM calls WHERE state = 'ok'") == [(120, 120)]
    assert home.query("SELECT count(*) FROM attempts") == [(240,)]
    assert home.query("SELECT count(*) FROM content WHERE prompt = 'p' || substr(answer, 2)") == [(120,)]


STORM = """
import os, sys
from dataclasses import replace
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.db import Database
from llmctl.store.ledger import SqliteLedger
from llmctl.store.schema import STEPS
home, count, before = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if before:
    os.mkdir(home, 0o700)
    old = Database(home + "/ledger.db", STEPS[:before])
    old.write(lambda c: None)
    old.close()
gun, pull = os.pipe()
for n in range(count):
    if os.fork() == 0:
        os.close(pull)
        os.read(gun, 1)
        ledger = SqliteLedger(home + "/ledger.db", home + "/spool")
        record = CallRecord(id=ulid(9e8, n), started_at=9e8 + n, command="ask", model="fast")
        ledger.begin_now(record, f"prompt {n}")
        attempt = Attempt(1, "d", "p", "m", "primary", "ok", 9e8)
        ledger.complete_now(replace(record, state="ok"), (attempt,), f"answer {n}")
        os._exit(len(ledger.warnings))
os.close(pull)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count)))
"""


@pytest.mark.parametrize("older", [0, 1], ids=["new file", "older schema"])
@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.full)])
def test_a_storm_of_processes_loses_no_row_and_says_no_error(home: Home, count: int, older: int) -> None:
    storm = run(STORM, home.path, count, older)
    assert (storm.stdout.strip(), storm.stderr) == ("0", "")
    assert home.query("SELECT count(*), sum(state = 'ok') FROM calls") == [(count, count)]
    assert home.query("SELECT count(*) FROM attempts") == [(count,)]
    assert home.query("SELECT count(*) FROM search WHERE search MATCH 'prompt AND answer'") == [(count,)]
    assert check(home.file, home.spool, NOW)["problems"] == []


# Prints `begun N` and `done N` only after the ledger has answered.
WRITER = """
import os, sys
from dataclasses import replace
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.ledger import SqliteLedger
home, who = sys.argv[1], int(sys.argv[2])
ledger = SqliteLedger(home + "/ledger.db", home + "/spool")
for n in range(10**9):
    record = CallRecord(id=ulid(9e8, who << 40 | n), started_at=9e8, command="ask", model="fast")
    ledger.begin_now(record, "prompt " * 50)
    os.write(1, f"begun {record.id}\\n".encode())
    ledger.complete_now(replace(record, state="ok"), (Attempt(1, "d", "p", "m", "primary", "ok", 9e8),), "answer " * 50)
    os.write(1, f"done {record.id}\\n".encode())
"""


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.full)])
def test_what_was_acknowledged_survives_a_kill(home: Home, rounds: int) -> None:
    dice = random.Random(rounds)
    acknowledged: list[bytes] = []
    for who in range(rounds):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(home.path), str(who * 3 + k)],
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
            )
            for k in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            for _ in range(dice.randrange(1, 60)):
                acknowledged.append(writer.stdout.readline())
        for writer in writers:
            writer.kill()
            out, _ = writer.communicate()
            acknowledged += out.splitlines(keepends=True)
    lines = [line.decode().split() for line in acknowledged if line.endswith(b"\n")]
    states = dict(home.query("SELECT id, state FROM calls"))
    assert [key for _, key in lines if key not in states] == []
    assert [key for word, key in lines if word == "done" and states[key] != "ok"] == []
    assert any(word == "done" for word, _ in lines)
    report = check(home.file, home.spool, NOW)
    assert (report["ok"], report["integrity"]) == (True, "ok")


def test_a_killed_call_stays_as_started_and_is_counted_after_a_day(home: Home) -> None:
    home.ledger().begin_now(call(1), None)
    assert [each["state"] for each in home.history.list_calls()] == ["started"]
    assert check(home.file, home.spool, NOW + 80_000)["orphans"] == 0
    report = check(home.file, home.spool, NOW + 90_000)
    assert (report["orphans"], report["ok"]) == (1, True)


def damaged_copies(data: bytes, count: int, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    copies = [b"", data[:1], data[:99], data[:100], data[: len(data) // 2], data[:-1], b"not a database at all" * 400]
    for _ in range(count):
        copy = bytearray(data)
        at = dice.randrange(len(copy))
        for n in range(at, min(len(copy), at + dice.randrange(1, 513))):
            copy[n] ^= dice.randrange(1, 256)
        copies.append(bytes(copy))
    return copies


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.full)])
def test_a_damaged_ledger_is_never_a_crash_and_never_deleted(tmp_path: Path, count: int) -> None:
    template = Home(tmp_path / "template")
    ledger = template.ledger()
    for n in range(60):
        ledger.begin_now(call(n), f"prompt {n} " * 20)
        ledger.complete_now(done(call(n)), (attempt(),), f"answer {n} " * 20)
    template.close()
    moved = 0
    for n, data in enumerate(damaged_copies(template.file.read_bytes(), count, count)):
        home = Home(tmp_path / str(n))
        home.path.mkdir(0o700)
        home.file.write_bytes(data)
        for look in (lambda home=home: home.history.list_calls(), lambda home=home: home.history.search("prompt")):
            with suppress(LedgerUnusable):
                look()
        assert home.file.read_bytes() == data
        check(home.file, home.spool, NOW)
        ledger = home.ledger()
        ledger.begin_now(call(1000), "after")
        ledger.complete_now(done(call(1000)), (), "after")
        home.close()
        aside = list(home.path.glob("ledger.db.corrupt-*[0-9]"))
        moved += len(aside)
        # The row is in the ledger, whichever file that is now; a spool would mean that damage was taken for a lock.
        assert home.query(f"SELECT state FROM calls WHERE id = '{call(1000).id}'") == [("ok",)]
        assert home.spooled() == []
        assert len(ledger.warnings) == len(aside)
        assert all(path.stat().st_size for path in aside)
        shutil.rmtree(home.path)
    assert moved > 5


def test_a_damaged_schema_is_an_error_of_ours_to_every_reader_and_repaired(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(1), "kept")
    ledger.complete_now(done(call(1)), (attempt(),), "kept")
    home.close()
    data = home.file.read_bytes().replace(b"CREATE TABLE calls", b"CREATE TAB\x8aE calls")
    home.file.write_bytes(data)
    for look in (
        home.history.list_calls,
        lambda: records(home.file),
        lambda: Reports(home.file).report(Question(by=("model",)), NOW),
        lambda: spend.read(str(home.file), Budgets(), NOW),
    ):
        with pytest.raises(LedgerUnusable):
            look()
    assert check(home.file, home.spool, NOW)["damaged"]
    assert repair(home.file, home.spool, NOW)["ok"]
    assert [each["state"] for each in home.history.list_calls()] == ["ok"]


def test_where_neither_ledger_nor_spool_can_be_written_there_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    home = Home(tmp_path / "file" / "home")
    ledger = home.ledger()
    for n in range(3):
        ledger.begin_now(call(n), "p")
        ledger.complete_now(done(call(n)), (), "a")
    assert [("not recorded" in warning, "neither" in warning or "nor" in warning) for warning in ledger.warnings] == [
        (True, True)
    ]
    assert home.history.list_calls() == []
    home.close()


FULL_DISK = """
import json, os, resource, sys
from dataclasses import replace
from llmctl.core.record import CallRecord, ulid
from llmctl.store.ledger import SqliteLedger
home, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
ledger = SqliteLedger(home + "/ledger.db", home + "/spool")
for n in range(200, 240):
    record = CallRecord(id=ulid(9e8, n), started_at=9e8, command="ask", model="fast")
    ledger.begin_now(record, "new prompt " * 1000)
    ledger.complete_now(replace(record, state="ok"), (), "new answer " * 1000)
print(json.dumps(ledger.warnings))
"""


@pytest.mark.parametrize("limit", [0, 100, 40_000, 300_000])
def test_a_full_disk_costs_one_warning_of_a_kind_and_no_older_row(home: Home, limit: int) -> None:
    ledger = home.ledger()
    for n in range(50):
        ledger.complete_now(done(call(n)), (attempt(),), "old answer")
    ledger.close()
    full = run(FULL_DISK, home.path, limit)
    assert full.stderr == ""
    warnings = json.loads(full.stdout)
    assert 1 <= len(warnings) <= 2
    assert len({warning.split("(")[0] for warning in warnings}) == len(warnings)
    assert not list(home.path.glob("*.corrupt-*"))
    assert home.query("PRAGMA integrity_check") == [("ok",)]
    assert len(home.history.search("old")) == 20
    room_again = home.ledger()
    room_again.begin_now(call(999), None)
    states = [state for (state,) in home.query("SELECT state FROM calls WHERE started_at = 9e8")]
    assert limit < 1000 or states == ["ok"] * 40
    assert home.spooled() == []


def test_a_file_of_a_newer_version_is_written_through_the_columns_it_has(home: Home) -> None:
    home.path.mkdir(0o700)

    def newer(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE calls ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
        connection.execute("ALTER TABLE attempts DROP COLUMN request_id")

    database = Database(home.file, (*STEPS, newer))
    database.write(lambda _: None)
    database.close()
    ledger = home.ledger()
    ledger.begin_now(call(1), "p")
    ledger.complete_now(done(call(1)), (attempt(),), "a")
    assert home.query("SELECT state, mood FROM calls") == [("ok", "calm")]
    row = home.history.show("last")
    assert list(row)[: len(DESIGN_CALLS)] == DESIGN_CALLS
    assert row["attempts"][0]["request_id"] is None
    assert home.query("PRAGMA user_version") == [(len(STEPS) + 1,)]
    assert ledger.warnings == []


def test_an_older_file_is_read_before_it_is_migrated(home: Home) -> None:
    home.path.mkdir(0o700)
    database = Database(home.file, STEPS[:1])
    database.write(lambda c: c.execute("ALTER TABLE calls DROP COLUMN complexity"))
    database.write(
        lambda c: c.execute(
            "INSERT INTO calls (id, started_at, state, command, model, cache, fallback, attempt_count,"
            " tokens_estimated, saved_nanousd, drill) VALUES ('01A', 1, 'ok', 'ask', 'm', 'off', 0, 0, 0, 0, 0)"
        )
    )
    database.write(lambda c: c.execute("INSERT INTO content (call_id, prompt) VALUES ('01A', 'old words')"))
    database.close()
    assert [list(row)[: len(DESIGN_CALLS)] for row in home.history.list_calls()] == [DESIGN_CALLS]
    assert home.query("PRAGMA user_version") == [(1,)]


def test_texts_of_before_the_index_and_of_killed_calls_are_found_too(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(1), "a killed Question")
    ledger.begin_now(call(2), "an answered question")
    ledger.complete_now(done(call(2)), (), "so it is")
    assert [row["id"] for row in home.history.search("question")] == [call(2).id, call(1).id]
    assert [row["prompt"] for row in home.history.search("kill quest")] == []
    assert [row["prompt"] for row in home.history.search("killed quest")] == ["a killed Question"]


def test_without_a_full_text_index_search_scans(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(1), "x")
    ledger.close()
    with closing(sqlite3.connect(home.file)) as connection:
        connection.execute("DROP TABLE search")
    ledger.complete_now(done(call(1)), (), "100% of foo_bar")
    assert ledger.warnings == []
    assert [len(home.history.search(text)) for text in ("100%", "O_B", "0_of", "foo.bar")] == [1, 1, 0, 0]
    assert check(home.file, home.spool, NOW)["search"] == "scan"


@pytest.mark.parametrize("text", ['"', "a AND", "NEAR(", "*", "x' OR 1=1 --", "prompt:", "(", "-", "%", "日本"])
def test_any_text_may_be_searched_for(home: Home, text: str) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(1), f"before {text} after")
    ledger.complete_now(done(call(1)), (), "nothing")
    ledger.complete_now(done(call(2)), (), "something else")
    assert [row["id"] for row in home.history.search(text)] == [call(1).id]


def test_words_inside_unspaced_scripts_are_found(home: Home) -> None:
    home.ledger().complete_now(done(call(1)), (), "東京都に住んでいます")
    assert len(home.history.search("京都に")) == 1
    assert home.history.search("大阪") == []
    for nothing in ("", "  ", "\x00"):
        with pytest.raises(UsageError):
            home.history.search(nothing)


def test_calls_are_listed_newest_first_and_chosen_by_every_filter(home: Home) -> None:
    ledger = home.ledger()
    for n in range(1, 31):
        model, team = ("fast" if n % 2 else "smart"), ("web" if n % 3 else "ops")
        record = call(n, model=model, tags={"team": team, "n": str(n)})
        ledger.complete_now(done(record, served_by=f"p/{model}", state="ok" if n % 5 else "failed"), (attempt(),), None)

    def found(limit: int = 0, **wanted: Any) -> list[int]:
        return [round(row["started_at"] - NOW) for row in home.history.list_calls(limit, Filter(**wanted))]

    assert found() == list(range(30, 0, -1))
    assert found(limit=2) == [30, 29]
    assert len(home.history.list_calls()) == 20
    assert found(since=NOW + 28, until=NOW + 30) == [29, 28]
    assert found(model="smart", since=NOW + 27) == [30, 28]
    assert found(model="p/fast", since=NOW + 27) == [29, 27]
    assert found(state="failed") == [30, 25, 20, 15, 10, 5]
    assert found(tags=(("team", "ops"),), since=NOW + 20) == [30, 27, 24, 21]
    assert found(tags=(("team", "ops"), ("n", "9"))) == [9]
    assert found(tags=(("team", "' OR 1"),)) == []


def test_a_call_is_shown_by_id_prefix_or_last(home: Home) -> None:
    ledger = home.ledger()
    ledger.begin_now(call(1), None)
    ledger.begin_now(call(2), None)
    first = call(1).id
    assert home.history.show(first.lower())["id"] == first
    common = first[:7]
    assert (call(2).id[:7] == common, call(2).id[7] == first[7]) == (True, False)
    assert home.history.show(first[:8])["id"] == first
    assert home.history.show("last")["id"] == call(2).id
    with pytest.raises(UsageError, match="several"):
        home.history.show(common)
    for nothing in ("zzz", "", "%", "_" * 26):
        with pytest.raises(UsageError, match="no call"):
            home.history.show(nothing)


def test_looking_neither_makes_nor_changes_a_ledger(home: Home, tmp_path: Path) -> None:
    assert (home.history.list_calls(), home.history.search("x")) == ([], [])
    with pytest.raises(UsageError, match="no calls yet"):
        home.history.show("last")
    with pytest.raises(LedgerUnusable, match="no ledger"):
        home.history.backup(tmp_path / "copy.db")
    assert check(home.file, home.spool, NOW)["ok"]
    assert not home.path.exists()
    ledger = home.ledger()
    ledger.begin_now(call(1), "p")
    ledger.close()
    before = (home.file.read_bytes(), home.file.stat().st_mtime_ns)
    home.history.list_calls()
    home.history.search("p")
    home.history.show("last")
    check(home.file, home.spool, NOW)
    home.history.backup(tmp_path / "copy.db")
    assert (home.file.read_bytes(), home.file.stat().st_mtime_ns) == before


def test_an_empty_file_is_an_empty_ledger(home: Home) -> None:
    home.path.mkdir(0o700)
    home.file.touch(0o600)
    assert home.history.list_calls() == []
    assert check(home.file, home.spool, NOW)["ok"]


def test_a_backup_is_whole_private_and_never_replaces_unasked(home: Home, tmp_path: Path) -> None:
    ledger = home.ledger()
    for n in range(100):
        ledger.begin_now(call(n), "p")
    goal = tmp_path / "copies" / "copy.db"
    goal.parent.mkdir()
    before = os.umask(0)
    try:
        written = home.history.backup(goal)
    finally:
        os.umask(before)
    assert (written, stat.S_IMODE(goal.stat().st_mode)) == (goal.stat().st_size, 0o600)
    assert os.listdir(goal.parent) == ["copy.db"]
    assert len(History(goal).list_calls(0)) == 100
    assert check(goal, home.spool, NOW)["integrity"] == "ok"
    with pytest.raises(UsageError, match="exists already"):
        home.history.backup(goal)
    ledger.begin_now(call(100), "p")
    home.history.backup(goal, force=True)
    assert len(History(goal).list_calls(0)) == 101
    with pytest.raises(UsageError, match="itself"):
        home.history.backup(home.file, force=True)
    for nowhere in (tmp_path / "nowhere" / "x", tmp_path):
        with pytest.raises(UsageError, match="cannot make"):
            home.history.backup(nowhere)


def test_a_backup_of_a_ledger_restores_to_one_that_is_written_again(home: Home, tmp_path: Path) -> None:
    home.ledger().begin_now(call(1), "p")
    home.history.backup(tmp_path / "copy.db")
    restored = Home(tmp_path / "restored")
    restored.path.mkdir(0o700)
    shutil.copy(tmp_path / "copy.db", restored.file)
    restored.ledger().begin_now(call(2), "p")
    assert restored.query("PRAGMA journal_mode") == [("wal",)]
    assert len(restored.history.list_calls()) == 2
    restored.close()


def test_check_says_what_is_wrong_with_the_file(home: Home, tmp_path: Path) -> None:
    home.ledger().complete_now(done(call(1)), (attempt(),), "a")
    report = check(home.file, home.spool, NOW)
    assert (report["ok"], report["problems"], report["search"]) == (True, [], "index")
    assert report["counts"] == {"calls": 1, "attempts": 1, "tags": 0, "content": 1}
    assert (report["schema"], report["journal_mode"], report["mode"]) == (len(STEPS), "wal", "0600")
    home.close()
    home.file.chmod(0o644)
    assert "0644" in check(home.file, home.spool, NOW)["problems"][0]
    home.file.write_bytes(b"rubbish" * 1000)
    report = check(home.file, home.spool, NOW)
    assert not report["ok"]
    assert "not a database" in report["integrity"]
    (tmp_path / "link").symlink_to(home.file)
    assert "link" in check(tmp_path / "link", home.spool, NOW)["problems"][0]


LEAVER = """
import os, sys
from llmctl.core.record import CallRecord, ulid
from llmctl.store.ledger import SqliteLedger
ledger = SqliteLedger(sys.argv[1] + "/ledger.db", sys.argv[1] + "/spool")
ledger.begin_now(CallRecord(id=ulid(9e8, 1), started_at=9e8, command="ask", model="fast"), None)
"""


def test_a_short_lived_process_leaves_without_closing(home: Home) -> None:
    left = run(LEAVER, home.path)
    assert (left.returncode, left.stderr) == (0, "")
    assert (home.path / "ledger.db-wal").stat().st_size > 0
    assert len(home.history.list_calls()) == 1
