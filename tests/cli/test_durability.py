"""What a call leaves behind when its process, its disk or its ledger fails: the answer, and a row for what was sent."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, tokens, words

from llmctl.store.checkup import check
from llmctl.store.history import Filter, History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Cli

ANSWER = "".join(words(6)).encode() + b"\n"
_AT_ONCE = 3


@pytest.mark.parametrize(
    ("seed", "runs"), [(0, 12), *(pytest.param(seed, 100, marks=pytest.mark.full) for seed in range(1, 11))]
)
def test_a_call_killed_at_any_instant_has_a_row_if_its_answer_or_its_question_left(
    cli: Cli, seed: int, runs: int
) -> None:
    dice = random.Random(seed)
    with FaultServer(tokens(6)) as server:
        cli.to(server).ask("warm up")
        usual_s = [1.0]

        def run(n: int) -> bytes:
            """What reached stdout. Every sixth is let go to its end, which says how long that takes just now."""
            began = monotonic()
            process = cli.start("ask", "-m", "openai/m", f"question <{n}>", "--tag", f"run={n}", "--retries", "0")
            with process:
                try:  # most of it is the interpreter's start, where nothing can be lost
                    out, _ = process.communicate(timeout=usual_s[-1] * dice.uniform(0.4, 1.3) if n % 6 else 60)
                    usual_s.append(monotonic() - began)
                except subprocess.TimeoutExpired:
                    process.kill()
                    out, _ = process.communicate()
            return out

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = dict(enumerate(pool.map(run, range(runs))))
        asked = {int(n) for each in server.requests for n in re.findall(rb"question <(\d+)>", each.body)}
    file, spool = cli.home / "ledger.db", cli.home / "spool"
    later = time() + 3600
    rows = {int(row["tags"]["run"]): row for row in History(file, later).list_calls(0) if row["tags"]}
    whole = {n for n, out in answers.items() if out == ANSWER}
    assert whole | asked <= rows.keys()
    ended = {n for n, row in rows.items() if row["state"] == "ok"}
    killed = {n for n, row in rows.items() if row["interrupted"]}
    assert (ended | killed, ended <= whole | killed | asked) == (rows.keys(), True)
    assert {
        int(row["tags"]["run"]) for row in History(file, later).list_calls(0, Filter(state="interrupted"))
    } == killed
    report = check(file, spool, later)
    assert (report["integrity"], report["ok"], report["orphans"]) == ("ok", True, len(killed))
    assert ended
    assert len(ended) < runs


@contextmanager
def locked(cli: Cli) -> Iterator[None]:
    with closing(sqlite3.connect(cli.home / "ledger.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.full
def test_a_ledger_that_is_locked_all_the_time_costs_a_wait_one_warning_and_no_row(cli: Cli) -> None:
    with FaultServer(tokens(6)) as server:
        cli.to(server).ask("one")
        with locked(cli):
            began = monotonic()
            done = cli.ask("two")
            took = monotonic() - began
        assert (done.code, done.out) == (0, ANSWER)
        assert len([line for line in done.lines if "waits in" in line]) == 1
        assert took < 20  # 5 s before the answer; the end no longer waits
        assert [row["state"] for row in cli.calls()] == ["ok"]
        cli.ask("three")
    assert [(row["state"], row["prompt"]) for row in cli.calls()] == [("ok", "one"), ("ok", "two"), ("ok", "three")]
    assert os.listdir(cli.home / "spool") == []


def test_a_disk_that_is_full_costs_one_warning_and_the_answer_is_delivered(cli: Cli) -> None:
    if subprocess.run(["mount", "--version"], capture_output=True, check=False).returncode or os.geteuid():
        pytest.skip("needs the right to mount a small disk")
    cli.home.mkdir(mode=0o700)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1500k,mode=700", "none", str(cli.home)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with FaultServer(tokens(6)) as server:
            cli.to(server)
            assert cli.ask("one", "--no-log").code == 0
            filler = cli.home / "filler"
            with suppress_full(), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            for _ in range(2):
                done = cli.ask("two " * 2000)
                assert (done.code, done.out) == (0, ANSWER)
                assert 1 <= len([line for line in done.lines if "cannot be written" in line]) <= 2, done.err
                assert "Traceback" not in done.err
            filler.unlink()
            done = cli.ask("three")
            assert (done.code, "cannot" in done.err) == (0, False), done.err
        rows = cli.calls()
        assert {"one", "three"} <= {row["prompt"] or "one" for row in rows}
        assert all(row["state"] in ("ok", "started") for row in rows)
        assert check(cli.home / "ledger.db", cli.home / "spool", time())["integrity"] == "ok"
    finally:
        subprocess.run(["umount", "-l", str(cli.home)], check=True)


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.errno == 28  # noqa: PT017 - the point is that the disk is full, not how it is said


def test_a_corrupt_ledger_costs_one_warning_and_its_rows_come_back(cli: Cli) -> None:
    with FaultServer(tokens(6)) as server:
        cli.to(server)
        for n in range(3):
            cli.ask(f"old {n}")
        with closing(sqlite3.connect(cli.home / "ledger.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(cli.home / "ledger.db", "r+b") as file:
            file.write(b"rubbish " * 12)  # the header: SQLite reads nothing of such a file
        done = cli.ask("new")
    assert (done.code, done.out, len([line for line in done.lines if "damaged" in line])) == (0, ANSWER, 1)
    assert [row["prompt"] for row in cli.calls()] == ["new"]
    assert cli.run("ledger", "check").code == 0
    report = json.loads(cli.run("ledger", "check", "--repair", "--json").out)
    assert (report["ok"], report["repair"]["recovered"]["calls"], report["repair"]["lost"]["calls"]) == (True, 3, 0)
    assert [row["prompt"] for row in cli.calls()] == ["old 0", "old 1", "old 2", "new"]


def test_a_ledger_of_a_newer_version_is_written_without_a_word(cli: Cli) -> None:
    with FaultServer(tokens(6)) as server:
        cli.to(server).ask("one")
        with closing(sqlite3.connect(cli.home / "ledger.db")) as connection:
            connection.execute("ALTER TABLE calls ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
            connection.execute("PRAGMA user_version = 99")
        done = cli.ask("two")
    assert (done.code, done.out, done.err) == (0, ANSWER, "")
    assert [(row["state"], row["mood"]) for row in cli.calls()] == [("ok", "calm")] * 2


def test_an_export_whose_reader_leaves_ends_without_a_word(cli: Cli) -> None:
    with FaultServer(tokens(6)) as server:
        cli.to(server)
        for n in range(2):
            cli.ask(f"{n} " * 40_000)
    done = cli.shell("llmctl ledger export --content | head -c 10; echo _ ${PIPESTATUS[0]}")
    assert (done.out.split()[-1], done.err) == (b"141", "")
