"""The entry point: global options, the outermost wall, and streams that are closed or full."""

from __future__ import annotations

import json

import pytest

from llmctl._version import __version__
from llmctl.cli import main
from llmctl.core.errors import MATRIX, UsageError

from .conftest import needs_dev_full


@pytest.mark.parametrize("words", [["--version"], ["--version", "--debug"], ["--config", "nowhere.toml", "--version"]])
def test_version_is_one_line(cli, words):
    done = cli.run(*words)
    assert (done.code, done.out, done.err) == (0, f"llmctl {__version__}\n".encode(), "")


@pytest.mark.parametrize("words", [["--help"], ["ask", "--help"], ["ledger", "list", "--help"], ["completion", "-h"]])
def test_help_goes_to_stdout_and_h_is_the_same(cli, words):
    long, short = cli.run(*words[:-1], "--help"), cli.run(*words[:-1], "-h")
    assert long == short
    assert (long.code, long.err) == (0, "")
    assert long.out.startswith(b"Usage: llmctl")


def test_version_and_help_need_neither_a_home_nor_a_readable_configuration(cli):
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("models = [\n")
    (cli.root / "file").touch()
    for home in (str(cli.home), str(cli.root / "file" / "below"), "/dev/null/x", ""):
        for words in (["--version"], ["--help"], ["ask", "--help"]):
            assert cli.run(*words, env={"LLMCTL_HOME": home, "HOME": "/dev/null"}).code == 0
    assert [path.name for path in cli.home.iterdir()] == ["config.toml"]


def test_the_overview_names_the_version_option_and_the_global_ones(cli):
    text = cli.run("--help").out.decode()
    assert all(word in text for word in ("--version", "--config FILE", "--debug"))


def test_no_command_shows_the_overview_on_stderr_and_is_a_usage_error(cli):
    done = cli.run()
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("Usage: llmctl")


@pytest.mark.parametrize("group", ["ledger", "models", "config"])
def test_a_group_without_a_command_shows_its_help_as_it_is(cli, group):
    done = cli.run(group)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(f"Usage: llmctl {group}")
    assert "error" not in done.lines[0]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["why is the sky blue?"], "no command 'why is the sky blue?'", 'to ask a model, write: llmctl ask "..."'),
        (["as"], "no command 'as'", "did you mean `llmctl ask`?"),
        (["legder", "list"], "no command 'legder'", "did you mean `llmctl ledger`?"),
        (["ask", "--modle", "x"], "No such option: --modle", "`llmctl ask --help`"),
        (["ask", "--mod", "x"], "No such option: --mod ", "`llmctl ask --help`"),
        (["ledger", "lis"], "No such command 'lis'", "`llmctl ledger --help`"),
        (["ask", "-m"], "Option '-m' requires an argument", "`llmctl ask --help`"),
        (["ask", "why", "not"], "Got unexpected extra argument", 'put the prompt in quotes: llmctl ask "..."'),
        (["--nope"], "No such option: --nope", "`llmctl --help`"),
        (["ask", "hi", "--config"], "--config needs a file", "for instance"),
        (["--config=", "ask", "hi"], "--config needs a file", "for instance"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_with_a_hint_and_nothing_is_guessed(cli, words, message, hint):
    done = cli.run(*words)
    assert done.refused(2).startswith(message)
    assert done.lines[-1].startswith(f"hint: {hint}")
    assert len(done.lines) <= 3


@pytest.mark.parametrize("words", [["ask", "--nope", "--json"], ["nope", "--json"], ["--json", "ledger", "nope"]])
def test_with_json_a_usage_error_is_one_json_line_too(cli, words):
    done = cli.run(*words)
    assert (done.code, done.out, len(done.lines)) == (2, b"", 1)
    assert json.loads(done.err)["error"]["type"] == "UsageError"


def test_words_after_two_dashes_are_no_options(cli):
    done = cli.run("nope", "--", "--json")
    assert done.refused(2)


def test_debug_shows_the_traceback_above_the_error(cli):
    done = cli.run("ask", "hi", "-m", "no-such-model", "--debug")
    assert done.err.startswith("Traceback")
    assert done.lines[-2].startswith("llmctl: error: unknown model")


def test_what_is_no_error_of_ours_is_called_a_bug(capfd):
    assert main.failed(ValueError("two\nlines"), as_json=False) == 1
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "llmctl: error: this is a bug in llmctl: ValueError: two lines",
        "hint: run it again with --debug and report what it prints",
    ]


def test_what_the_system_refuses_is_not_called_a_bug(capfd):
    assert main.failed(OSError(28, "No space left on device"), as_json=False) == 1
    assert capfd.readouterr().err.startswith("llmctl: error: stdout: No space left on device\nhint: ")


def test_exit_codes_of_the_matrix_are_the_promised_ones():
    assert {rule.exit for rule in MATRIX.values()} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130}
    assert UsageError("x").exit_code == 2


@needs_dev_full
@pytest.mark.parametrize(
    "words", ["--version", "--help", "ask --help", "ledger list", "models list", "completion bash"]
)
def test_a_full_stdout_is_an_error_of_the_promised_shape(cli, words):
    done = cli.shell(f"llmctl {words} >/dev/full")
    assert "No space left on device" in done.refused(1)


@pytest.mark.parametrize("words", ["ledger list", "ledger list --json", "models list", "config show"])
def test_a_closed_stdout_is_an_error_of_the_promised_shape(cli, words):
    done = cli.shell(f"llmctl {words} >&-")
    assert (done.code, done.out) == (1, b"")
    assert "stdout is closed" in done.err


@pytest.mark.parametrize("words", ["--version", "--help", "ask --help"])
def test_version_and_help_with_a_closed_stdout_say_nothing(cli, words):
    done = cli.shell(f"llmctl {words} >&-")
    assert (done.code, done.out, done.err) == (0, b"", "")


@pytest.mark.parametrize("words", ["completion bash", "config schema"])
def test_a_pipe_that_closes_early_is_silent(cli, words):
    done = cli.shell(f'llmctl {words} | true; exit "${{PIPESTATUS[0]}}"')
    assert (done.code in (0, 141), done.err) == (True, "")


def test_a_closed_pipe_is_exit_141(cli):
    process = cli.start("config", "schema")
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param("2>/dev/full", marks=needs_dev_full)])
def test_an_error_that_cannot_be_told_keeps_its_exit_code_and_leaves_stdout_alone(cli, redirect):
    done = cli.shell(f"llmctl nope {redirect}")
    assert (done.code, done.out) == (2, b"")


def test_everything_closed_is_survived(cli):
    done = cli.shell("llmctl nope <&- >&- 2>&-")
    assert (done.code, done.out, done.err) == (2, b"", "")


def test_the_shape_of_an_error_is_the_commands_own_word(cli):
    plain = cli.run("ask", "-s", "--json", "-m", "nobody/x", "hi", "--no-stdin")
    assert plain.refused(2) == "unknown model 'nobody/x'"
    shaped = cli.run("ask", "--json", "-m", "nobody/x", "hi", "--no-stdin")
    assert (shaped.code, json.loads(shaped.err)["error"]["type"]) == (2, "UsageError")
    unparsed = cli.run("ask", "--json", "--nonsense")
    assert (unparsed.code, json.loads(unparsed.err)["error"]["type"]) == (2, "UsageError")
