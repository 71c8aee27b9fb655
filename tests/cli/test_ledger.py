"""`llmctl ledger`: what its commands print, and how they refuse."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from llmctl.cli.context import Context
from llmctl.cli.ledger import app
from llmctl.core.errors import LedgerUnusable, LlmctlError, UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.ledger import SqliteLedger

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Cli

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202etxt.exe"


class Shell:
    """Runs the command group in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *args: str) -> Any:
        context = Context(environ={"LLMCTL_HOME": str(self.home)})
        result = CliRunner().invoke(app, args, obj=context, catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit | LlmctlError):
            raise result.exception
        return result

    def json(self, *args: str) -> Any:
        result = self.run(*args, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    def refused(self, *args: str) -> LlmctlError:
        result = self.run(*args)
        assert isinstance(result.exception, LlmctlError)
        assert result.stdout == ""
        return result.exception


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def filled(shell: Shell) -> Shell:
    ledger = SqliteLedger(shell.home / "ledger.db", shell.home / "spool")
    for n in range(1, 31):
        record = CallRecord(
            id=ulid(1.8e9 + n, n),
            started_at=1.8e9 + n,
            command="ask",
            model="fast" if n % 2 else "smart",
            tags={"team": "web" if n % 3 else "ops"},
        )
        ledger.begin_now(record, f"question {n} {HOSTILE}")
        error = HOSTILE if n == 30 else None
        ended = replace(record, state="ok" if n % 5 else "failed", cost_nanousd=34_100, latency_ms=812.4, error=error)
        ledger.complete_now(
            ended, (Attempt(1, "fast-1", "groq", "llama", "primary", "ok", 1.8e9),), f"answer {HOSTILE}"
        )
    ledger.close()
    return shell


def test_path_prints_the_file_and_makes_nothing(shell: Shell) -> None:
    assert shell.run("path").stdout == f"{shell.home / 'ledger.db'}\n"
    assert not shell.home.exists()


def test_a_missing_ledger_is_an_empty_list(shell: Shell) -> None:
    assert shell.json("list") == []
    assert shell.json("search", "word") == []
    assert shell.run("list").stdout.count("\n") == 1
    assert shell.json("check")["ok"] is True
    assert isinstance(shell.refused("show", "last"), UsageError)
    assert not shell.home.exists()


def test_list_prints_the_newest_calls_first(filled: Shell) -> None:
    assert [row["started_at"] for row in filled.json("list", "-n", "3")] == [1.8e9 + 30, 1.8e9 + 29, 1.8e9 + 28]
    assert len(filled.json("list")) == 20
    assert len(filled.json("list", "--limit", "0")) == 30
    lines = filled.run("list", "-n", "2").stdout.splitlines()
    assert lines[0].split("\t") == [
        "started",
        "id",
        "state",
        "model",
        "served_by",
        "in",
        "out",
        "cost_usd",
        "ms",
        "error",
    ]
    assert len(lines) == 3
    assert "0.000034" in lines[1]


def test_list_chooses_by_time_model_state_and_tag(filled: Shell) -> None:
    def found(*args: str) -> list[int]:
        return [round(row["started_at"] - 1.8e9) for row in filled.json("list", "-n", "0", *args)]

    assert found("--state", "failed", "--model", "smart") == [30, 20, 10]
    assert found("--tag", "team=ops", "--model", "fast") == [27, 21, 15, 9, 3]
    assert found("--tag", "team=ops", "--tag", "team=web") == []
    assert found("--since", "2027-01-15T08:00:28+00:00", "--until", "2027-01-15T08:00:30Z") == [29, 28]
    assert found("--until", "2020-01-01") == []


@pytest.mark.parametrize(
    "args", [("--since", "soon"), ("--until", "5"), ("--tag", "team"), ("--tag", "=x"), ("--state", "fine")]
)
def test_a_choice_that_cannot_be_meant_is_a_usage_error_with_a_hint(filled: Shell, args: tuple[str, str]) -> None:
    error = filled.refused("list", *args)
    assert (error.exit_code, bool(error.hint)) == (2, True)


def test_show_prints_one_call_with_its_texts(filled: Shell) -> None:
    whole = filled.json("show", "last")
    assert (whole["prompt"], whole["answer"]) == (f"question 30 {HOSTILE}", f"answer {HOSTILE}")
    assert whole["tags"] == {"team": "ops"}
    shown = filled.run("show", whole["id"].lower()).stdout
    assert "question 30 " in shown
    assert "state: failed" in shown
    assert "attempt: n 1, deployment fast-1" in shown
    assert filled.refused("show", "zzz").exit_code == 2


@pytest.mark.parametrize("args", [("list",), ("show", "last"), ("search", "question")])
def test_text_of_strangers_cannot_drive_the_terminal(filled: Shell, args: tuple[str, ...]) -> None:
    shown = filled.run(*args).stdout
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}
    assert "\\x1b" in shown


def test_search_finds_words_and_takes_the_same_choices(filled: Shell) -> None:
    assert len(filled.json("search", "question", "-n", "0")) == 30
    (row,) = filled.json("search", "quest 17")
    assert row["prompt"].startswith("question 17")
    assert len(filled.json("search", "answer", "--state", "failed")) == 6
    assert len(filled.run("search", "question 17").stdout.splitlines()) == 2
    assert filled.refused("search", " ").exit_code == 2


def test_check_exits_0_for_a_whole_ledger_and_3_for_a_damaged_one(filled: Shell) -> None:
    assert filled.json("check")["counts"]["calls"] == 30
    assert "integrity: ok" in filled.run("check").stdout
    (filled.home / "ledger.db").write_bytes(b"rubbish" * 999)
    as_json = filled.run("check", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["ok"]) == (3, False)
    in_words = filled.run("check")
    assert isinstance(in_words.exception, LedgerUnusable)
    assert in_words.exception.exit_code == 3
    for args in (("list",), ("show", "last"), ("search", "x"), ("backup", str(filled.home / "copy"))):
        assert filled.refused(*args).exit_code == 3


def test_backup_copies_and_replaces_only_when_told(filled: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    result = filled.run("backup", str(copy))
    assert (result.exit_code, result.stdout, str(copy) in result.stderr) == (0, "", True)
    assert filled.refused("backup", str(copy)).exit_code == 2
    assert filled.run("backup", str(copy), "--force").exit_code == 0


def test_a_killed_call_is_shown_as_interrupted_and_a_running_one_as_started(shell: Shell) -> None:
    ledger = SqliteLedger(shell.home / "ledger.db", shell.home / "spool")
    for n, deadline in enumerate((9e9, 1.8e8, None), 1):
        record = CallRecord(
            id=ulid(1.7e8 + n, n), started_at=1.7e8 + n, command="ask", model=f"m{n}", deadline_at=deadline
        )
        ledger.begin_now(record, None)
    ledger.close()
    assert [line.split("\t")[2] for line in shell.run("list").stdout.splitlines()[1:]] == [
        "interrupted", "interrupted", "started",
    ]  # fmt: skip
    assert [(row["model"], row["state"], row["interrupted"]) for row in shell.json("list")] == [
        ("m3", "started", True), ("m2", "started", True), ("m1", "started", False),
    ]  # fmt: skip
    assert [row["model"] for row in shell.json("list", "--state", "interrupted")] == ["m3", "m2"]
    assert [row["model"] for row in shell.json("list", "--state", "started")] == ["m1"]
    assert shell.json("check")["orphans"] == 2
    assert not any("rolled" in row for row in shell.json("list"))


def test_export_guesses_the_format_by_the_name_and_prints_what_list_gives(filled: Shell, tmp_path: Path) -> None:
    lines = filled.run("export", "--state", "failed").stdout.splitlines()
    assert [json.loads(line) for line in lines] == filled.json("list", "-n", "0", "--state", "failed")
    assert filled.run("export", "--format", "csv").stdout.count("fast") == 15
    for name, begins in (("a.jsonl", b'{"id"'), ("a.csv", b"id,"), ("a.DB", b"SQLite format 3"), ("a.out", b'{"id"')):
        result = filled.run("export", str(tmp_path / name), "--since", "2020-01-01")
        assert (result.exit_code, result.stdout, name in result.stderr) == (0, "", True)
        written = (tmp_path / name).read_bytes()
        assert (written.startswith(begins), b"question" in written) == (True, False)
        assert filled.refused("export", str(tmp_path / name)).exit_code == 2
    assert filled.run("export", str(tmp_path / "a.csv"), "--content", "--force").exit_code == 0
    assert b"question 30" in (tmp_path / "a.csv").read_bytes()
    assert filled.refused("export", "--format", "sqlite").exit_code == 2


def test_prune_needs_a_yes_where_nobody_can_be_asked_and_says_what_it_did(shell: Shell) -> None:
    ledger = SqliteLedger(shell.home / "ledger.db", shell.home / "spool")
    for n in range(3):
        record = CallRecord(id=ulid(1.7e9 + n, n), started_at=1.7e9 + n, command="ask", model="fast", state="ok")
        ledger.begin_now(record, "what?")
        ledger.complete_now(record, (), "this.")
    ledger.close()
    old = ("prune", "--older-than", "30d")
    assert "--yes" in shell.refused(*old).hint
    assert shell.refused("prune", "--older-than", "soon").exit_code == 2
    assert shell.json(*old, "--dry-run") == {
        "matched": 3, "deleted": 0, "bytes_freed": 0, "dry_run": True, "also_in": [],
    }  # fmt: skip
    assert shell.json(*old, "--texts", "--yes")["deleted"] == 3
    assert "prompt" not in shell.json("show", "last")
    done = shell.run(*old, "--yes")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "3 removed" in done.stderr
    assert "cost report" in done.stderr
    assert shell.json("list") == []
    assert shell.json(*old) == {"matched": 0, "deleted": 0, "bytes_freed": 0, "dry_run": False, "also_in": []}


@pytest.mark.parametrize(("said", "left"), [(b"y\n", 0), (b"\n", 2)])
def test_prune_asks_on_a_terminal_and_takes_silence_for_a_no(cli: Cli, said: bytes, left: int) -> None:
    ledger = SqliteLedger(cli.home / "ledger.db", cli.home / "spool")
    for n in range(2):
        ledger.begin_now(CallRecord(id=ulid(1.7e9, n), started_at=1.7e9, command="ask", model="fast"), "what?")
    ledger.close()
    primary, secondary = os.openpty()
    os.write(primary, said)
    with cli.start("ledger", "prune", "--older-than", "1d", stdin=secondary, stderr=secondary) as process:
        code = process.wait(60)
    drawn = os.read(primary, 65536)
    os.close(primary)
    os.close(secondary)
    assert (code, b"Remove 2 calls older than 1d for ever? [y/N]" in drawn) == (0, True)
    assert len(cli.calls()) == left


def test_check_repairs_only_when_told(filled: Shell) -> None:
    file = filled.home / "ledger.db"
    data = bytearray(file.read_bytes())
    data[:64] = b"rubbish!" * 8
    file.write_bytes(data)
    assert "--repair" in filled.run("check").exception.hint
    assert file.read_bytes() == bytes(data)
    report = filled.json("check", "--repair")
    assert (report["ok"], report["repair"]["recovered"]["calls"], report["repair"]["lost"]["calls"]) == (True, 30, 0)
    assert len(filled.json("list", "-n", "0")) == 30
    again = filled.run("check", "--repair")
    assert (again.exit_code, "nothing to repair" in again.stderr) == (0, True)
    assert "salvaged" in again.stdout


def test_every_help_is_a_sentence_and_examples(shell: Shell) -> None:
    names = ("path", "list", "show", "search", "export", "prune", "check", "backup")
    top = shell.run("--help").stdout
    assert [name for name in names if f"  {name} " not in top] == []
    for name in names:
        text = shell.run(name, "--help").stdout
        assert "Example" in text
        assert "llmctl ledger" in " ".join(text.split())
