"""The thirty conventions of a good command-line tool, each by a test: here, or named here where it is.

The list is that of a study of eleven tools; where llmctl does otherwise on purpose, its row says how.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forks import ROOT, Forks, Ran
from servers import BEHAVIOURS, FaultServer, status, stream
from tree import TREE

from llmctl.core import errors

KEY = "sk-planted-0123456789abcdef"


class Row(NamedTuple):
    """A convention in short words, the tests that prove it, and what llmctl does otherwise on purpose."""

    convention: str
    proofs: tuple[str, ...]
    otherwise: str = ""


CONVENTIONS: dict[int, Row] = {
    1: Row("stdout holds the answer and nothing else", ("test_stdout_is_the_answer_and_stderr_is_empty",)),
    2: Row(
        "-q silences stderr, and without a terminal success is silent",
        ("test_stdout_is_the_answer_and_stderr_is_empty", "test_a_retry_is_said_and_q_silences_it"),
    ),
    3: Row(
        "exit codes are a table that `help exit-codes` prints",
        (
            "test_help_exit_codes_knows_every_code_of_the_errors",
            "cli/test_ask.py::test_each_way_to_end_has_its_exit_code_its_text_and_its_row",
        ),
    ),
    4: Row("usage errors exit 2 in 3 lines, with what was meant", ("test_a_mistyped_option_says_what_was_meant",)),
    5: Row(
        "an error is `llmctl: error: ...` and `hint: ...`, four lines at most, no traceback",
        ("test_every_fault_of_a_provider_is_an_error_of_the_promised_shape",),
    ),
    6: Row(
        "with --json an error is one JSON object",
        ("test_with_json_an_error_is_one_json_object",),
        "the object is under `error`, with the attempts; the exit code is that of the process",
    ),
    7: Row(
        "Ctrl-C keeps the text, ends its line, exits 130; twice leaves at once",
        (
            "cli/test_signals.py::test_a_signal_in_the_middle_keeps_the_text_and_ends_the_line_fast",
            "cli/test_signals.py::test_the_second_signal_leaves_at_once_whatever_is_still_being_written",
        ),
    ),
    8: Row(
        "SIGTERM the same with 143; kill -9 leaves a started row",
        (
            "cli/test_signals.py::test_a_signal_in_the_middle_keeps_the_text_and_ends_the_line_fast",
            "cli/test_signals.py::test_kill_9_leaves_a_started_row_and_a_whole_ledger",
        ),
    ),
    9: Row("a closed stdout is silent, exit 141", ("cli/test_signals.py::test_a_closed_pipe_is_silent_and_exit_141",)),
    10: Row(
        "a stream without its end is incomplete: exit 8, its text kept",
        ("cli/test_ask.py::test_each_way_to_end_has_its_exit_code_its_text_and_its_row",),
    ),
    11: Row(
        "200 with garbage is an error",
        ("test_every_fault_of_a_provider_is_an_error_of_the_promised_shape",),
    ),
    12: Row(
        "everything times out, and every clock can be set",
        (
            "run/test_transport.py::test_server_that_hangs_is_left_by_the_clock",
            "run/test_transport.py::test_total_deadline_bounds_everything",
            "test_every_clock_is_a_setting",
        ),
    ),
    13: Row(
        "one status line after a second of waiting, on a terminal only",
        (
            "cli/test_terminal.py::test_the_status_line_comes_after_a_second_of_silence_and_goes_at_the_first_token",
            "cli/test_notes.py::test_without_a_terminal_there_is_no_status_line",
        ),
    ),
    14: Row(
        "retries and fallbacks are said, and who answered",
        (
            "test_a_retry_is_said_and_q_silences_it",
            "cli/test_ask.py::test_a_fallback_is_one_line_on_stderr_and_the_row_says_who_answered",
        ),
    ),
    15: Row(
        "no escape byte with NO_COLOR, TERM=dumb or no terminal",
        (
            "test_no_escape_byte_without_a_terminal",
            "cli/test_terminal.py::test_quiet_and_dumb_terminals_get_no_status_line",
        ),
    ),
    16: Row(
        "colour is decided for each stream",
        ("cli/test_terminal.py::test_the_status_line_is_on_stderr_alone_when_the_answer_goes_into_a_pipe",),
    ),
    17: Row("piped output is never wrapped", ("test_a_long_line_into_a_pipe_stays_one_line",)),
    18: Row(
        "every listing has --json, and lines for other programs",
        ("test_every_listing_has_json_and_is_tab_separated_in_a_pipe",),
        "in a pipe a table is tab-separated, so there is no --tsv; reports have --csv, `ledger export` JSON lines",
    ),
    19: Row(
        "- is stdin; nothing to ask is short help and exit 2",
        (
            "test_an_empty_stdin_is_no_prompt_and_a_dash_is_stdin",
            "cli/test_prompt.py::test_no_prompt_and_a_terminal_is_short_help",
        ),
    ),
    20: Row("a rule joins stdin and prompt", ("cli/test_prompt.py::test_the_message_is_composed_byte_for_byte",)),
    21: Row(
        "flag, variable, file, default: `config show --origin` says which",
        ("test_a_flag_wins_over_a_variable_over_a_file_over_what_is_built_in",),
        "there is no project file that is read unasked: --config names it",
    ),
    22: Row(
        "XDG places, LLMCTL_CONFIG and LLMCTL_HOME, 0600 in 0700",
        (
            "test_files_are_0600_in_0700_where_the_variables_say",
            "config/test_places.py::test_without_variables_the_platforms_own_directories_are_used",
        ),
    ),
    23: Row("no secret in anything that is written", ("test_a_planted_key_is_in_nothing_that_is_written",)),
    24: Row(
        "keys are read from a hidden prompt or stdin, never from an option",
        ("test_no_option_takes_a_key", "cli/test_keys.py::test_a_typed_key_is_not_echoed_nor_left_when_interrupted"),
    ),
    25: Row(
        "nothing needs a prompt; what destroys asks, or needs --yes, and has --dry-run",
        ("test_what_destroys_needs_a_yes_and_can_be_rehearsed",),
        "without a terminal nothing is ever asked, so there is no --no-input",
    ),
    26: Row(
        "--help has a sentence and examples that are run, in 80 columns",
        (
            "cli/test_help_examples.py::test_the_example_works_as_it_stands",
            "cli/test_help_examples.py::test_the_help_is_a_sentence_and_fits_eighty_columns",
        ),
        "no link: the pages are in docs/, and `llmctl help` has the topics",
    ),
    27: Row("-h is --help; both and --version always work", ("test_help_and_version_work_on_a_broken_machine",)),
    28: Row("no catch-all command, no guessed abbreviation", ("test_nothing_is_guessed",)),
    29: Row(
        "an empty result is a success",
        ("test_a_new_machine_has_empty_lists",),
        "`log list` is `ledger list` here",
    ),
    30: Row(
        "no network but the provider's",
        ("test_no_command_opens_a_socket_that_nobody_asked_for", "test_offline_refuses_the_network"),
        "--offline is LLMCTL_OFFLINE=1",
    ),
}  # fmt: skip


def test_every_convention_has_a_test_that_exists():
    assert list(CONVENTIONS) == list(range(1, 31))
    for row in CONVENTIONS.values():
        assert row.proofs
        for proof in row.proofs:
            file, _, name = proof.rpartition("::")
            text = Path(__file__).with_name("test_conventions.py") if not file else ROOT / "tests" / file
            assert f"\ndef {name}(" in text.read_text() or f"\nasync def {name}(" in text.read_text(), proof


# ---------------------------------------------------------------- the machine


class Machine:
    """A home, a directory, and a provider `openai` at a server."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.root = root
        self.home = root / "home"
        self.forks = forks
        self.environ = {"LLMCTL_HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"}

    def to(self, server: FaultServer) -> Machine:
        self.environ |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        return self

    def run(self, *words: str, stdin: bytes | None = None, **environ: str) -> Ran:
        return self.forks.run(list(words), self.environ | environ, self.root, stdin)

    def ask(self, *words: str, **how: Any) -> Ran:
        return self.run("ask", "-m", "openai/m", "--cache", "off", *words, **how)


@pytest.fixture
def machine(tmp_path: Path, forks: Forks) -> Machine:
    return Machine(tmp_path, forks)


def options_of(path: str) -> set[str]:
    return {word for param in TREE[tuple(path.split())].params for word in param.opts}


# ---------------------------------------------------------------- what is written, and where


def test_stdout_is_the_answer_and_stderr_is_empty(machine):
    with FaultServer(stream("Hel", "lo \x1b[31m")) as server:
        assert machine.to(server).ask("hi") == Ran(0, "Hello \x1b[31m\n", "")
        assert machine.ask("hi", "-q") == Ran(0, "Hello \x1b[31m\n", "")


def test_a_retry_is_said_and_q_silences_it(machine):
    with FaultServer([status(503), stream("a"), status(503), stream("a")]) as server:
        said = machine.to(server).ask("hi", "--json")
        assert [attempt["role"] for attempt in said.json["attempts"]] == ["primary", "retry"]
        assert said.json["served_by"] == "openai/m"
        assert machine.ask("hi", "-q") == Ran(0, "a\n", "")
    with FaultServer([status(503), stream("a")]) as server:
        (line,) = machine.to(server).ask("hi").err.splitlines()
    assert line.startswith("llmctl: retry: asking openai/m after Unavailable")


def test_no_escape_byte_without_a_terminal(machine):
    with FaultServer([status(503), stream("# a **b**\n")]) as server:
        for done in (machine.to(server).ask("hi"), machine.run("ledger", "list"), machine.run("route", "explain")):
            assert (done.code, "\x1b" in done.out + done.err) == (0, False)


def test_a_long_line_into_a_pipe_stays_one_line(machine):
    long = "word " * 100
    with FaultServer(stream(long)) as server:
        assert machine.to(server).ask("hi", COLUMNS="40").out == f"{long}\n"
    shown = machine.run("ledger", "show", "last", COLUMNS="40").out
    assert long in shown


LISTINGS = [
    "ledger list", "ledger search", "route list", "route explain", "models list", "models compare", "cost report",
    "cost budget", "cost prices list", "keys list", "cache list", "cache stats",
]  # fmt: skip


def test_every_listing_has_json_and_is_tab_separated_in_a_pipe(machine):
    known = [path for path in LISTINGS if tuple(path.split()) in TREE]
    assert len(known) >= 10
    for path in known:
        assert "--json" in options_of(path), path
    assert {"--csv"} <= options_of("cost report") & options_of("models compare")
    assert "json" in machine.run("ledger", "export", "--help").out.lower()
    header, *rows = machine.run("models", "list").out.splitlines()
    assert header.count("\t") >= 3
    assert {row.count("\t") for row in rows} == {header.count("\t")}


# ---------------------------------------------------------------- errors


def test_help_exit_codes_knows_every_code_of_the_errors(machine):
    lines = machine.run("help", "exit-codes").out.splitlines()
    printed = {int(words[0]) for words in map(str.split, lines) if words and words[0].isdigit()}
    assert {rule.exit for rule in errors.MATRIX.values()} | {0, 1, 2, 100, 130, 141, 143} <= printed


def test_a_mistyped_option_says_what_was_meant(machine):
    done = machine.run("ask", "--modle", "x", "hi")
    assert (done.code, done.out) == (2, "")
    assert "--model" in done.err
    assert len(done.err.splitlines()) <= 3


FAULTS = [
    "garbage", "html", "bad_gateway", "empty", "empty_stream", "nothing", "no_content", "error_in_200", "depth", "echo",
    "reset", "close", "reset_body", "bad_chunks", "huge_chunk", "bad_status", "not_http", "switching", "header_bomb",
    "endless_error", "cut", "cut_reset",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_provider_is_an_error_of_the_promised_shape(machine, fault):
    assert fault in BEHAVIOURS
    with FaultServer(fault) as server:
        done = machine.to(server).ask("hi", "--retries", "0")
    assert done.code in (4, 5, 6, 8)
    what, hint = done.err.splitlines()[-2:]
    assert what.startswith("llmctl: error: openai/m: ")
    assert hint.startswith("hint: ")
    assert len(done.err.splitlines()) <= 4
    assert KEY not in done.err


@pytest.mark.parametrize("fault", ["garbage", "empty", "reset", "cut"])
def test_with_json_an_error_is_one_json_object(machine, fault):
    with FaultServer(fault) as server:
        told = machine.to(server).ask("hi", "--retries", "0", "--json")
    assert (told.code, told.out) == (8 if fault == "cut" else 6, "")
    error = json.loads(told.err)["error"]
    assert len(told.err.splitlines()) == 1
    assert {"type", "message", "hint", "provider", "model", "status", "retry_after", "partial_text"} < set(error)
    assert [attempt["outcome"] for attempt in error["attempts"]] == [error["type"]]


def test_every_clock_is_a_setting(machine):
    for clock, value in {"connect": "1s", "first_token": "2s", "idle": "3s", "total": "4s"}.items():
        assert machine.run("config", "set", f"timeout.{clock}", value).code == 0
    assert "--timeout" in options_of("ask") & options_of("embed")
    assert machine.run("config", "check").code == 0


# ---------------------------------------------------------------- what is read


def test_an_empty_stdin_is_no_prompt_and_a_dash_is_stdin(machine):
    assert machine.ask(OPENAI_API_KEY=KEY).code == 2
    with FaultServer(stream("a")) as server:
        assert machine.to(server).ask("about it:", "-f", "-", stdin=b"read\n").code == 0
    (message,) = server.requests[0].json["messages"]
    assert "read\n" in message["content"]


def test_a_flag_wins_over_a_variable_over_a_file_over_what_is_built_in(machine):
    machine.home.mkdir(mode=0o700)
    file = machine.home / "config.toml"
    with FaultServer(stream("a")) as server:
        machine.to(server).environ["GROQ_API_KEY"] = ""
        for written, variable, flag, asked in (
            ("", "", (), None), ('default_model = "openai/file"', "", (), "file"),
            ('default_model = "openai/file"', "openai/variable", (), "variable"),
            ('default_model = "openai/file"', "openai/variable", ("-m", "openai/flag"), "flag"),
        ):  # fmt: skip
            file.write_text(written)
            environ = {"LLMCTL_MODEL": variable} if variable else {}
            assert machine.run("ask", "hi", *flag, **environ).code == 0
            assert asked is None or server.requests[-1].json["model"] == asked
    assert len(server.requests) == 4
    assert server.requests[0].json["model"] not in ("file", "variable", "flag")
    shown = machine.run("config", "show", "--origin", LLMCTL_MODEL="openai/variable").out
    assert "LLMCTL_MODEL" in shown


# ---------------------------------------------------------------- files and secrets


def test_files_are_0600_in_0700_where_the_variables_say(machine):
    assert machine.run("config", "init").code == 0
    with FaultServer(stream("a")) as server:
        assert machine.to(server).run("ask", "-m", "openai/m", "hi").code == 0
    assert machine.run("keys", "set", "groq", stdin=KEY.encode()).code == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (machine.home, *machine.home.rglob("*"))}
    assert {"ledger.db", "cache.db", "state.db", "config.toml"} <= {path.name for path in modes}
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
    other = machine.root / "other.toml"
    assert str(other) in machine.run("config", "path", LLMCTL_CONFIG=str(other)).out


def test_a_planted_key_is_in_nothing_that_is_written(machine):
    outputs: list[Ran] = []
    with FaultServer(["echo", stream("an answer"), "reset"]) as server:
        machine.to(server)
        outputs += [machine.ask("hi", "--debug", "--retries", "0"), machine.ask("hi", "-v")]
        outputs += [machine.ask("hi", "--json", "--retries", "0")]
    for words in (
        ["config", "show", "--origin"], ["models", "show", "openai/m", "--json"], ["ledger", "show", "last", "--json"],
        ["ledger", "export"], ["route", "list", "--json"], ["keys", "list", "--all", "--json"], ["doctor", "--json"],
        ["fallback", "drill", "openai/m", "--offline", "--json"],
    ):  # fmt: skip
        outputs.append(machine.run(*words))
    assert [done.code for done in outputs[:3]] == [4, 0, 6]
    for done in outputs:
        assert KEY not in done.out + done.err
        assert KEY[3:] not in done.out + done.err
    for path in machine.home.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_no_option_takes_a_key():
    for path, command in TREE.items():
        for param in command.params:
            assert not {"--value", "--key", "--api-key", "--token", "--password"} & set(param.opts), path


# ---------------------------------------------------------------- what destroys


@pytest.mark.parametrize("words", [["ledger", "prune", "--older-than", "1ms"], ["cache", "purge", "--all"]])
def test_what_destroys_needs_a_yes_and_can_be_rehearsed(machine, words):
    if tuple(words[:2]) not in TREE:
        pytest.skip(f"{words[0]} is not in this version")
    with FaultServer(stream("a")) as server:
        machine.to(server).run("ask", "-m", "openai/m", "hi")
    refused = machine.run(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert machine.run(*words, "--dry-run").code == 0
    assert len(machine.run("ledger", "list", "--json").json) == 1
    assert machine.run(*words, "--yes").code == 0


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("broken", ["config", "home", "nothing", "read-only"])
def test_help_and_version_work_on_a_broken_machine(machine, broken):
    if broken == "config":
        machine.home.mkdir()
        (machine.home / "config.toml").write_text("= broken")
    elif broken == "home":
        machine.home.write_text("a file")
    elif broken == "read-only":
        machine.home.mkdir(mode=0o500)
    assert machine.run("--version").out.count("\n") == 1
    for path in ([], ["ask"], ["ledger"], ["cost", "prices", "list"]):
        long, short = machine.run(*path, "--help"), machine.run(*path, "-h")
        assert long == short
        assert (long.code, long.err) == (0, "")
    assert broken == "home" or not list(machine.home.glob("*.db"))


def test_nothing_is_guessed(machine):
    prompt = machine.run("why is the sky blue?")
    assert prompt.code == 2
    assert "llmctl ask" in prompt.err
    for words in (["led", "list"], ["ask", "--mod", "x", "hi"], ["ledger", "lis"]):
        assert machine.run(*words).code == 2


def test_a_new_machine_has_empty_lists(machine):
    for words, empty in (
        (["ledger", "list", "--json"], []), (["ledger", "search", "x", "--json"], []),
        (["cache", "list", "--json"], []), (["keys", "list", "--json"], []),
    ):  # fmt: skip
        if tuple(words[:2]) in TREE:
            done = machine.run(*words)
            assert (done.code, done.json) == (0, empty), words
    assert machine.run("cost", "report", "--json").json["rows"] == []


# ---------------------------------------------------------------- the network

GUARDED = """
import os, sys
def guard(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        os.write(2, f"SOCKET {event} {args[-1]}".encode())
        os._exit(99)
sys.addaudithook(guard)
from llmctl.cli.main import run
for words in sys.argv[1:]:
    code = run(words.split(), os.environ)
    if code:
        os._exit(code)
"""
QUIET = [
    "config init", "config check", "ledger list", "models list", "models show fast", "route list", "route test hi",
    "cost report", "cost prices list gpt-4o", "cost prices check", "ask --dry-run -m openai/gpt-4o hi", "keys list",
    "fallback show fast", "help exit-codes", "completion bash", "doctor",
]  # fmt: skip


def test_no_command_opens_a_socket_that_nobody_asked_for(machine):
    machine.environ |= {"OPENAI_API_KEY": KEY, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, *QUIET], env=machine.environ, cwd=machine.root, capture_output=True, check=False
    )
    assert (done.returncode, b"SOCKET" in done.stderr) == (0, False), done.stderr
    asked = subprocess.run(
        [sys.executable, "-c", GUARDED, "ask -m openai/gpt-4o hi"],
        env=machine.environ,
        capture_output=True,
        check=False,
    )
    assert asked.returncode == 99  # the guard sees what a call does


def test_offline_refuses_the_network(machine):
    done = machine.run("ask", "-m", "openai/gpt-4o", "hi", OPENAI_API_KEY=KEY, LLMCTL_OFFLINE="1")
    assert (done.code, done.out) == (6, "")
    assert "LLMCTL_OFFLINE" in done.err


# ---------------------------------------------------------------- of the parser's own traps


def test_an_exit_is_raised_and_never_returned():
    """One that is returned is a success: github.com/daily-co/pipecat-cloud/issues/188, read 2026-11-20."""
    for file in (ROOT / "llmctl").rglob("*.py"):
        assert "return typer.Exit" not in file.read_text(), file
