"""`llmctl keys`: kept, listed, used and forgotten, and never shown."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess

import pytest
from servers import FaultServer
from typer.testing import CliRunner

from llmctl.cli.context import Context
from llmctl.cli.keys import app
from llmctl.core.errors import UsageError

KEY = "sk-planted-0123456789abcdef"


def kept(cli):
    return json.loads((cli.home / "keys.json").read_text())["keys"]


def test_a_piped_key_is_kept_listed_and_forgotten_and_no_part_of_it_is_shown(cli):
    said = [
        cli.run("keys", "set", "groq", stdin=f"{KEY}\nsecond line\n".encode()),
        cli.run("keys", "set", "groq", stdin=f"{KEY}2\r\n".encode()),
        cli.run("keys", "list"),
        cli.run("keys", "list", "--json"),
        cli.run("config", "show", "--origin"),
        cli.run("models", "show", "groq/x"),
        cli.run("doctor", "--json"),
    ]
    assert [done.code for done in said] == [0] * len(said)
    assert kept(cli) == {"groq": f"{KEY}2"}
    assert "groq: kept in " in said[0].out.decode()
    assert "groq: replaced in " in said[1].out.decode()
    assert said[2].out.decode() == "provider\tkey from\tvariables\ngroq\tkeys set\tGROQ_API_KEY\n"
    (row,) = said[3].json
    assert (row["provider"], row["source"], row["kept"]) == ("groq", "keys", True)
    assert 'providers.groq.api_key = "***"  # keys\n' in said[4].out.decode()
    assert "\tkeys\t" in said[5].out.decode()
    assert "groq (keys set)" in said[6].out.decode()
    assert stat.S_IMODE((cli.home / "keys.json").stat().st_mode) == 0o600
    gone = cli.run("keys", "rm", "groq")
    assert (gone.code, kept(cli)) == (0, {})
    assert cli.run("keys", "list", "--json").json == []
    for done in (*said, gone):
        assert KEY[8:16] not in done.out.decode() + done.err


def test_a_kept_key_is_sent_and_a_variable_stands_above_it(cli):
    cli.run("keys", "set", "openai", stdin=KEY.encode())
    with FaultServer("ok") as server:
        for env in ({}, {"OPENAI_API_KEY": "sk-of-the-environment"}):
            assert cli.ask("hi", "--cache", "off", env={"OPENAI_BASE_URL": server.url} | env).code == 0
        sent = [request.headers["authorization"] for request in server.requests]
    assert sent == [f"Bearer {KEY}", "Bearer sk-of-the-environment"]
    done = cli.run("keys", "set", "openai", stdin=KEY.encode(), env={"OPENAI_API_KEY": "k"})
    assert done.lines == ["llmctl: OPENAI_API_KEY has a key of openai too, and stands above it"]


def test_a_provider_that_echoes_a_kept_key_does_not_get_it_shown(cli):
    cli.run("keys", "set", "openai", stdin=KEY.encode())
    with FaultServer("echo") as server:
        done = cli.ask("hi", "--json", env={"OPENAI_BASE_URL": server.url})
    assert KEY not in done.out.decode() + done.err
    assert done.code != 1


@pytest.mark.parametrize(
    ("words", "stdin", "what"),
    [
        (["grok"], KEY, "no provider is called 'grok'"),
        (["local"], KEY, "needs no key"),
        (["groq"], "", "no key was given"),
        (["groq"], "\n\n", "no key was given"),
        (["groq"], "two words", "characters no key has"),
        (["groq"], "\x1b[31mred", "characters no key has"),
        (["groq"], "ключ", "characters no key has"),
        (["groq", KEY], "", "a key is no argument"),
        ([KEY], "", "no provider is called that"),
    ],
)
def test_what_is_no_key_of_a_provider_is_a_usage_error_that_quotes_no_key(tmp_path, words, stdin, what):
    context = Context({"LLMCTL_HOME": str(tmp_path)})
    error = CliRunner().invoke(app, ["set", *words], obj=context, input=stdin).exception
    assert isinstance(error, UsageError)
    assert what in error.message
    assert KEY[8:16] not in error.message + error.hint
    assert not (tmp_path / "keys.json").exists()


def test_there_is_no_option_for_a_key_and_what_is_given_with_one_is_not_quoted(cli):
    done = cli.run("keys", "set", "groq", f"--value={KEY}")
    assert "No such option" in done.refused(2)
    assert KEY[8:16] not in done.err


def test_a_key_is_kept_under_the_providers_own_name_whatever_it_was_called(cli):
    assert cli.run("keys", "set", "together_ai", stdin=KEY.encode()).code == 0
    assert kept(cli) == {"together": KEY}
    assert cli.run("keys", "rm", "together_ai").code == 0
    assert cli.run("keys", "rm", "together_ai").refused(2)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_typed_key_is_not_echoed_nor_left_when_interrupted(cli, interrupted):
    ours, theirs = pty.openpty()
    with cli.start("keys", "set", "groq", stdin=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        while b"(not shown)" not in shown:
            shown += os.read(ours, 1024)
        if interrupted:
            process.send_signal(signal.SIGINT)
        else:
            os.write(ours, f"{KEY}\n".encode())
        out, _ = process.communicate(timeout=60)
        assert process.returncode == (130 if interrupted else 0)
    while True:
        try:
            piece = os.read(ours, 1024)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert shown.endswith(b": \r\n")
    assert KEY.encode()[8:16] not in shown
    if not interrupted:
        assert b"groq: kept" in out
        assert kept(cli) == {"groq": KEY}


def test_several_at_once_lose_no_key(cli):
    names = ["groq", "openai", "anthropic", "mistral", "xai", "gemini"]
    running = [cli.start("keys", "set", name, stdin=subprocess.PIPE) for name in names]
    for process in running:
        process.communicate(KEY.encode(), timeout=60)
    assert [process.returncode for process in running] == [0] * len(names)
    assert sorted(kept(cli)) == sorted(names)


def test_a_loose_key_file_never_fails_an_ask_and_is_said_once(cli):
    cli.run("keys", "set", "openai", stdin=KEY.encode())
    (cli.home / "keys.json").chmod(0o644)
    with FaultServer("ok") as server:
        first, second = (cli.ask("hi", env={"OPENAI_BASE_URL": server.url}) for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert "mode 0644" in first.err
    assert "0644" not in second.err
    assert stat.S_IMODE((cli.home / "keys.json").stat().st_mode) == 0o600


def test_a_damaged_key_file_is_told_and_not_written_over(cli):
    cli.home.mkdir()
    (cli.home / "keys.json").write_text('{"keys": {"groq": "' + KEY)
    (cli.home / "keys.json").chmod(0o600)
    done = cli.ask("hi")
    assert done.code == 4
    assert "is damaged" in done.lines[-1]
    assert "is damaged" in cli.run("keys", "set", "groq", stdin=b"k").refused(3)
    listed = cli.run("keys", "list")
    assert (listed.code, "is damaged" in listed.err) == (0, True)
    assert KEY[8:16] not in done.err + listed.err
