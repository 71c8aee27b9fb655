"""`chat` without a terminal: each line is a message, stdout holds the answers, and the first failure ends it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import stat
import subprocess
import weakref
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, cut, stall, status, stream

from llmctl.cli.chat_input import Left, Pipe, message, unraised
from llmctl.store.sessions import Sessions

from .conftest import KEY, Done
from .test_signals import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Cli


def chat(cli: Cli, said: str | bytes, *words: str, **how) -> Done:
    stdin = said if isinstance(said, bytes) else said.encode()
    return cli.run("chat", "-m", "openai/m", *words, stdin=stdin, **how)


def sent(server: FaultServer, n: int = -1) -> list[tuple[str, str]]:
    """The messages of request number n, as (role, text)."""
    return [(each["role"], each["content"]) for each in server.requests[n].json["messages"]]


# ---------------------------------------------------------------- messages


def test_each_line_is_a_message_and_stdout_holds_the_answers_alone(cli):
    with FaultServer(stream("one"), stream("two\n"), stream("three")) as server:
        done = chat(cli.to(server), "a\n\n  \nb\r\nc")
        assert (done.code, done.out, done.err) == (0, b"one\ntwo\nthree\n", "")
        assert sent(server) == [
            ("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two\n"), ("user", "c")
        ]  # fmt: skip
    assert {(call["command"], call["state"], call["session"]) for call in cli.calls()} == {
        ("chat", "ok", cli.calls()[0]["session"])
    }


JOINED = {
    "one \\\ntwo": "one \ntwo",
    "kept \\\\": "kept \\\\",
    '"""\na\n\n  b\n"""': "a\n\n  b",
    '"""a\n/exit\nb"""': "a\n/exit\nb",
    '"""alone"""': "alone",
    "//etc/passwd?": "/etc/passwd?",
    "żółć 😀": "żółć 😀",
}


def test_lines_are_joined_into_messages(cli):
    with FaultServer(stream("ok")) as server:
        assert chat(cli.to(server), "\n".join(JOINED), "-q").code == 0
        assert [text for role, text in sent(server) if role == "user"] == list(JOINED.values())


@pytest.mark.parametrize("said", ["a \\", '"""\nnever closed'])
def test_a_message_that_has_no_end_is_not_sent(cli, said):
    with FaultServer() as server:
        assert "has no end" in chat(cli.to(server), said).refused(2)
        assert server.requests == []


@pytest.mark.parametrize("said", [b"\xff\xfe", b"a\x00b"])
def test_what_is_not_text_is_refused_with_its_line(cli, said):
    with FaultServer(stream("ok")) as server:
        done = chat(cli.to(server), b"fine\n" + said)
        assert (done.code, done.out) == (2, b"ok\n")
        assert "line 2 of stdin" in done.err


def test_a_stdin_without_a_message_is_a_usage_error(cli):
    assert chat(cli, "", env={"OPENAI_API_KEY": KEY}).refused(2) == "stdin held no message"


def test_pasted_lines_and_blocks_are_text_whatever_they_begin_with():
    pieces = iter(["/exit\n/cost\n", '"""', "/exit", '"""'])
    assert message(lambda _: next(pieces), "> ") == ("/exit\n/cost\n", False)
    assert message(lambda _: next(pieces), "> ") == ("/exit", False)


def test_a_pipe_that_comes_in_pieces_gives_whole_lines(monkeypatch):
    process = subprocess.Popen(["printf", "ab"], stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr("sys.stdin", process.stdout)
    lines = Pipe()
    assert lines("") == "ab"
    with pytest.raises(EOFError):
        lines("")
    process.stdout.close()
    process.wait()


# ---------------------------------------------------------------- answers and errors


@pytest.mark.parametrize(
    ("behaviour", "code", "kind"),
    [(status(429), 6, "RateLimited"), (status(401), 4, "Unauthorized"), (cut(2), 8, "StreamTruncated")],
)
def test_the_first_call_that_fails_ends_a_script_with_its_exit_code(cli, behaviour, code, kind):
    with FaultServer(stream("one"), behaviour) as server:
        done = chat(
            cli.to(server), "a\nb\nc\n", "--no-fallback", "--session", "s", env={"LLMCTL_CONFIG": _no_retries(cli)}
        )
        assert done.code == code
        assert done.lines[-2].startswith("llmctl: error: ")
        assert done.out.startswith(b"one\n")
        assert len(server.requests) == 2
    assert cli.calls()[-1]["error"] == kind
    assert json.loads(cli.run("chat", "--list", "--json").out)[0]["turns"] == 1


def _no_retries(cli: Cli) -> str:
    (file := cli.root / "c.toml").write_text("[retry]\nretries = 0\n")
    return str(file)


def test_json_is_one_document_a_line_and_an_error_is_one_line_of_stderr(cli):
    with FaultServer(stream("one\nline"), stream("two"), status(400, "no")) as server:
        done = chat(cli.to(server), "a\n/cost\nb\nc\n", "--json", "--session", "s")
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert [each["text"] for each in documents] == ["one\nline", "two"]
    assert [each["session"] for each in documents] == ["s", "s"]
    assert documents[0].keys() == json.loads(_asked(cli)).keys()
    assert done.code == 5
    assert json.loads(done.err)["error"]["type"] == "InvalidRequest"


def _asked(cli: Cli) -> bytes:
    with FaultServer(stream("one")) as server:
        return cli.to(server).ask("hi", "--json", "--session", "other").out


def test_an_answer_that_was_cut_is_shown_ends_a_script_and_is_no_part_of_the_session(cli):
    with FaultServer(stream("one"), "length") as server:
        done = chat(cli.to(server), "a\nb\nc", "--session", "s")
        assert (done.code, done.out) == (8, b"one\na\n")
        assert len(server.requests) == 2
    assert json.loads(cli.run("chat", "--list", "--json").out)[0]["turns"] == 1


def test_no_key_ends_it_before_anything_is_read(cli):
    done = cli.run("chat", "-m", "openai/m", stdin=b"hi\n")
    assert done.refused(4)


@pytest.mark.parametrize(
    "words",
    [("-m", "nobody"), ("--timeout", "soon"), ("-f", "-"), ("--session", "s", "-c"), ("--no-log", "-c"), ("-c",)],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(cli, words):
    with FaultServer() as server:
        assert chat(cli.to(server), "hi\n", *words).refused(2)
        assert server.requests == []


# ---------------------------------------------------------------- slash commands


def test_an_unknown_command_sends_nothing_and_names_the_nearest(cli):
    with FaultServer() as server:
        done = chat(cli.to(server), "/modle x\n")
        assert done.refused(2) == "no command /modle; nothing was sent"
        assert "did you mean /model?" in done.err
        assert server.requests == []


def test_parameters_are_set_shown_unset_and_checked(cli):
    said = "/set temperature 0.5\n/set\n/set top_p=0.9\n/set a.b 1\nx\n/set top_p\n/set a\ny\n/set temperature hot\n"
    with FaultServer(stream("ok")) as server:
        done = chat(cli.to(server), said, "--max-tokens", "7")
        first, second = (server.requests[n].json for n in (0, 1))
    assert (first["temperature"], first["top_p"], first["a"]) == (0.5, 0.9, {"b": 1})
    assert second["temperature"] == 0.5
    assert not {"top_p", "a"} & second.keys()
    assert "max_tokens=7, temperature=0.5" in done.err
    assert done.code == 2
    assert "temperature" in done.lines[-2]


def test_the_system_prompt_is_set_shown_and_taken_away(cli):
    with FaultServer(stream("ok")) as server:
        done = chat(cli.to(server), "a\n/system Speak Polish\nb\n/system -\nc\n/system\n", "-s", "Be brief")
        systems = [sent(server, n)[0] for n in range(3)]
    assert systems == [("system", "Be brief"), ("system", "Speak Polish"), ("user", "a")]
    assert done.lines == [
        "the system prompt is: Speak Polish", "there is no system prompt", "there is no system prompt"
    ]  # fmt: skip


def test_another_model_is_asked_from_then_on_and_one_that_is_none_is_not_taken(cli):
    with FaultServer(stream("ok")) as server:
        done = chat(cli.to(server), "a\n/model openai/other\nb\n/model nobody\nc\n")
        assert [request.json["model"] for request in server.requests] == ["m", "other"]
    assert done.code == 2


def test_files_join_the_next_message_as_blocks_and_only_that(cli):
    (cli.root / "a b.txt").write_text("text\n")
    with FaultServer(stream("ok")) as server:
        done = chat(cli.to(server), "one\n/file 'a b.txt'\ntwo\nthree\n", "-f", "a b.txt")
        users = [text for role, text in sent(server) if role == "user"]
    block = "--- a b.txt ---\ntext\n\n"
    assert users == [f"{block}one", f"{block}two", "three"]
    assert done.lines == ["with the next message goes: a b.txt"]


def test_retry_replaces_the_answer_and_undo_takes_the_exchange_back(cli):
    with FaultServer(stream("first"), stream("second"), stream("third"), stream("fourth")) as server:
        done = chat(cli.to(server), "a\n/retry openai/other\nb\n/undo\nc\n", "--session", "s", "--cache", "exact")
        assert (done.code, done.out) == (0, b"first\nsecond\nthird\nfourth\n")
        assert sent(server, 1) == [("user", "a")]
        assert [request.json["model"] for request in server.requests] == ["m", "other", "m", "m"]
        assert sent(server) == [("user", "a"), ("assistant", "second"), ("user", "c")]
    assert "taken back: b" in done.err
    assert json.loads(cli.run("chat", "--list", "--json").out)[0]["turns"] == 2


def test_a_retry_that_fails_keeps_the_answer_that_was_there(cli):
    with FaultServer(stream("first"), status(400)) as server:
        assert chat(cli.to(server), "a\n/retry\n", "--session", "s").code == 5
    with FaultServer(stream("second")) as server:
        assert chat(cli.to(server), "b\n", "--session", "s").code == 0
        assert sent(server) == [("user", "a"), ("assistant", "first"), ("user", "b")]


def test_cost_counts_all_calls_of_the_session_and_says_what_has_no_price(cli):
    words = ("-m", "openai/gpt-4o", "--session", "s")
    with FaultServer(stream("one")) as server:
        cli.to(server).run("chat", *words, stdin=b"a\n")
        done = cli.run("chat", *words, stdin=b"b\n/model openai/m\nc\n/cost\n")
    assert done.lines[-3:] == [
        "openai/gpt-4o: 2 calls, 14+2 tokens, $0.000055",
        "openai/m: 1 call, 7+1 tokens, price unknown",
        "this session: 21+3 tokens, $0.000055 + 1 of unknown price",
    ]


def test_route_says_who_answered_and_who_would_be_asked(cli):
    (cli.root / "c.toml").write_text('[models.x]\nmodel = "openai/m"\nfallbacks = ["openai/n", "groq/o"]\n')
    with FaultServer(stream("ok")) as server:
        done = cli.to(server).run("chat", "--config", "c.toml", "-m", "x", stdin=b"a\n/route\n")
    assert done.lines[0].startswith("openai/m answered: ")
    assert done.lines[1] == "next: openai/m -> openai/n"
    assert done.lines[2].startswith("left out groq/o: ")


def test_help_and_exit(cli):
    with FaultServer() as server:
        done = chat(cli.to(server), "/help\n/exit\nhi\n", env={"COLUMNS": "20"})
        assert (done.code, done.out, server.requests) == (0, b"", [])
    assert "/retry [MODEL]" in done.err


# ---------------------------------------------------------------- sessions


def test_a_named_session_goes_on_with_its_model_system_and_parameters(cli):
    with FaultServer(stream("one"), stream("two")) as server:
        chat(cli.to(server), "a\n/system Be brief\n/set seed 3\n/retry\n", "--session", "my talk")
        done = cli.run("chat", "--session", "my talk", stdin=b"b\n")
        assert (done.code, done.out) == (0, b"two\n")
        assert sent(server) == [("system", "Be brief"), ("user", "a"), ("assistant", "two"), ("user", "b")]
        assert server.requests[-1].json["seed"] == 3
        assert server.requests[-1].json["model"] == "m"


def test_continue_goes_on_with_the_newest_and_ask_shares_it(cli):
    with FaultServer(stream("one"), stream("two"), stream("three")) as server:
        chat(cli.to(server), "a\n")
        assert cli.run("ask", "-c", "b").out == b"two\n"
        assert cli.run("chat", "-c", stdin=b"c\n").out == b"three\n"
        assert [text for _, text in sent(server)] == ["a", "one", "b", "two", "c"]


def test_the_list_shows_what_is_kept(cli):
    assert json.loads(cli.run("chat", "--list", "--json").out) == []
    with FaultServer(stream("one")) as server:
        chat(cli.to(server), "what is\ta \x1b[2J?\n", "--session", "s")
    (row,) = json.loads(cli.run("chat", "--list", "--json").out)
    assert (row["name"], row["turns"], row["model"], row["cost_usd"]) == ("s", 1, "openai/m", None)
    header, line = cli.run("chat", "--list").out.decode().splitlines()
    assert header.split("\t") == ["name", "turns", "last", "model", "cost_usd", "begins"]
    assert re.match(r"s\t1\t\d+ s ago\topenai/m\t-\twhat is a", line)
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "how", [{"env": {"LLMCTL_LOG_CONTENT": "none"}}, {"words": ("--no-log",)}], ids=["none", "no-log"]
)
def test_where_no_text_is_kept_the_chat_works_and_leaves_none(cli, how):
    with FaultServer(stream("one"), stream("two")) as server:
        done = chat(cli.to(server), "a\nb\n", *how.get("words", ()), env=how.get("env"))
        assert (done.code, done.out) == (0, b"one\ntwo\n")
        assert [text for _, text in sent(server)] == ["a", "one", "b"]
    assert json.loads(cli.run("chat", "--list", "--json").out) == []
    assert [call["prompt"] for call in cli.calls()] == [None, None]
    assert " is not kept" in cli.run("ask", "-c", "go on").refused(2)


def test_a_session_of_another_version_is_refused_and_nothing_of_it_is_lost(cli):
    with FaultServer(stream("one")) as server:
        chat(cli.to(server), "a\n", "--session", "s")
        ledger = sqlite3.connect(cli.home / "ledger.db")
        with ledger:
            ledger.execute("update sessions set version = 99")
        assert "another version" in chat(cli, "b\n", "--session", "s").refused(3)
        assert ledger.execute("select count(*) from turns").fetchone() == (1,)
        ledger.close()
        assert chat(cli, "b\n").code == 0


def test_what_outgrows_the_window_is_left_out_and_said(cli):
    (cli.root / "c.toml").write_text('[models.x]\nmodel = "openai/m"\ncontext_window = 3000\nmax_tokens = 10\n')
    long = "word " * 1000
    with FaultServer(stream("ok")) as server:
        done = cli.to(server).run(
            "chat", "--config", "c.toml", "-m", "x", stdin=f"{long}\n{long}\n{long}\n{long}\n".encode()
        )
        assert done.out == b"ok\n" * 4
        assert len(sent(server)) < 7
    assert any("left out the oldest turn: " in line for line in done.lines)


@contextmanager
def refusing(cli: Cli) -> Iterator[Callable[[str], None]]:
    """A ledger that keeps no turn, while this lasts, and takes what SQL is given to it."""
    with closing(sqlite3.connect(cli.home / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("CREATE TRIGGER full BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'no room'); END")
        yield ledger.execute
        ledger.execute("DROP TRIGGER IF EXISTS full")


def kept(cli: Cli, name: str) -> list[str]:
    session = Sessions(cli.home / "ledger.db").open(name)
    return [each["content"] for exchange in session.exchanges for each in exchange.messages] if session else []


def test_undo_takes_back_the_turn_of_its_own_chat_and_not_what_another_said_since(cli):
    mine = ("chat", "-m", "openai/m", "--session", "s", "--json")
    with FaultServer(stream("one"), stream("two")) as server:
        with cli.to(server).start(*mine, stdin=subprocess.PIPE) as process:
            process.stdin.write(b"mine\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["session"] == "s"
            chat(cli, "another's\n", "--session", "s")
            process.communicate(b"/undo\n", 60)
        assert server.requests
    assert kept(cli, "s") == ["another's", "two"]


def test_turns_that_could_not_be_kept_are_kept_later_and_what_was_taken_back_or_replaced_is_not(cli):
    with FaultServer(*map(stream, "abcdef")) as server:
        chat(cli.to(server), "1\n2\n3\n", "--session", "s")
        with (
            refusing(cli) as ledger,
            cli.start("chat", "-m", "openai/m", "--session", "s", stdin=subprocess.PIPE) as process,
        ):
            process.stdin.write(b"/retry\n4\n/undo\n/undo\n/undo\n5\n")
            process.stdin.flush()
            assert [process.stdout.readline() for _ in range(3)] == [b"d\n", b"e\n", b"f\n"]
            said = b""
            while said.count(b"not kept yet") < 3:
                said += process.stderr.readline()
            ledger("DROP TRIGGER full")
            process.communicate(None, 60)
    assert kept(cli, "s") == ["1", "a", "5", "f"]


def test_what_could_never_be_kept_is_said_at_the_end_and_no_session_is_told(cli):
    with FaultServer(stream("one")) as server:
        chat(cli.to(server), "a\n", "--session", "s")
        with refusing(cli):
            done = chat(cli, "b\n", "--session", "s", "--json")
        assert (done.code, done.json["session"]) == (0, None)
        assert "the last of this chat is not kept: " in done.lines[-1]
    assert kept(cli, "s") == ["a", "one"]


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("stop", [Left(143), KeyboardInterrupt()])
def test_what_a_signal_raises_where_python_would_only_print_it_is_not_lost(stop, capfd):
    def interrupted(_):
        raise stop

    with unraised() as missed:
        gone = {1}
        watched = weakref.ref(gone, interrupted)
        del gone
    assert (missed, watched()) == ([stop], None)
    assert capfd.readouterr().err == ""


OFTEN = [("answering", signal.SIGINT, 130), ("reading", signal.SIGTERM, 143)]
SELDOM = [(where, *stop) for stop in STOPPED.items() for where in ("answering", "reading")]


@pytest.mark.parametrize(
    ("where", "number", "code"), [*OFTEN, *(pytest.param(*each, marks=pytest.mark.full) for each in SELDOM)]
)
def test_a_signal_ends_a_script_and_completes_its_row(cli, where, number, code):
    behaviour = stall(2) if where == "answering" else stream("t0 ", "t1 ")
    with FaultServer(behaviour) as server:
        process = cli.to(server).start("chat", "-m", "openai/m", stdin=subprocess.PIPE)
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.read(6) == b"t0 t1 "
        if where == "reading":
            assert process.stdout.read(1) == b"\n"
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr.read() == b""
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
    assert cli.calls()[0]["state"] == ("cancelled" if where == "answering" else "ok")


def test_a_closed_pipe_ends_it_silently(cli):
    with FaultServer(stream("one")) as server:
        done = cli.to(server).shell(
            'yes hi | llmctl chat -m openai/m -q | head -c 4; echo "${PIPESTATUS[1]}" >&2', PYTHONWARNINGS=""
        )
    assert (done.out, done.err) == (b"one\n", "141\n")


def test_the_history_of_a_script_is_not_written(cli):
    with FaultServer(stream("one")) as server:
        chat(cli.to(server), "secret\n")
    assert not (cli.home / "chat_history").exists()
    assert stat.S_IMODE(cli.home.stat().st_mode) == 0o700
