"""`chat` at a terminal: the prompt, editing, pastes, Ctrl-C, odd terminals; each step waits for what it must see."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, stall, status, stream

from .test_terminal import Screen, at_terminal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .conftest import Cli

PROMPT = b"m> "
CTRL_C, CTRL_D = b"\x03", b"\x04"


class Talk(Screen):
    """A chat on a terminal of its own, which signals go through as they do for a person."""

    def type(self, keys: bytes | str) -> None:
        os.write(self._terminal, keys if isinstance(keys, bytes) else keys.encode())

    def see(self, what: bytes | str) -> bytes:
        """Wait for `what`; all that was drawn up to its end, which is then forgotten."""
        what = what if isinstance(what, bytes) else what.encode()
        self.wait_for(what)
        seen, _, rest = self.drawn.partition(what)
        self.drawn = rest
        return seen + what

    def say(self, text: str) -> None:
        """Type a line at the prompt."""
        self.see(PROMPT)
        self.type(f"{text}\r")

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def leave(self) -> tuple[int, bytes]:
        self.see(PROMPT)
        self.type(CTRL_D)
        return self.end()


def talk(
    cli: Cli, *words: str, columns: int = 80, env: dict[str, str] | None = None, **how: int
) -> AbstractContextManager[Talk]:
    """`llmctl chat WORDS` at a terminal that controls it."""
    return at_terminal(
        Talk, cli, "chat", "-m", "openai/m", *words, columns=columns, env={"LC_ALL": "C.UTF-8"} | (env or {}),
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **how,
    )  # fmt: skip


def kept(cli: Cli) -> int:
    """How many exchanges are kept of the newest session."""
    found = json.loads(cli.run("chat", "--list", "--json").out)
    return found[0]["turns"] if found else 0


def test_a_person_talks_leaves_and_resumes_by_the_name_that_was_told(cli):
    with FaultServer(stream("one"), stream("two")) as server:
        with talk(cli.to(server), "--raw") as shown:
            assert b"/help shows the commands" in shown.see(PROMPT)
            shown.type("hello\r")
            shown.see("one\r\n")
            shown.see("7+1 tokens, price unknown")
            code, drawn = shown.leave()
        assert code == 0
        command = drawn.split(b"`llmctl ")[1].split(b"`")[0].decode().split()
        with talk(cli, *command[1:]) as shown:
            assert b"1 turn, last" in shown.see(PROMPT)
            shown.type("more\r")
            shown.see("two\r\n")
            shown.see("so far 14+2 tokens")
            assert shown.leave()[0] == 0
        assert [each["content"] for each in server.requests[-1].json["messages"]] == ["hello", "one", "more"]


def test_a_paste_is_one_message_and_a_block_and_a_backslash_are_too(cli):
    with FaultServer(stream("ok")) as server, talk(cli.to(server), "-q") as shown:
        shown.see(PROMPT)
        shown.type(b"\x1b[200~one\r/exit\r\rthree\x1b[201~")
        shown.see("three")
        shown.type("\r")
        shown.say('"""')
        shown.see("... ")
        shown.type("a\r")
        shown.see("... ")
        shown.type('b"""\r')
        shown.say("x \\")
        shown.see("... ")
        shown.type("y\r")
        shown.leave()
        said = [request.json["messages"][-1]["content"] for request in server.requests]
    assert said == ["one\n/exit\n\nthree", "a\nb", "x \ny"]


def test_a_paste_into_a_terminal_that_does_not_mark_it_is_one_message_as_well(cli):
    with FaultServer(stream("ok")) as server, talk(cli.to(server), "-q", env={"TERM": "dumb"}) as shown:
        shown.see(PROMPT)
        shown.type("one\rtwo\rthree\r")
        code, drawn = shown.leave()
        assert [request.json["messages"][-1]["content"] for request in server.requests] == ["one\ntwo\nthree"]
    assert code == 0
    assert b"\x1b" not in drawn


def test_an_interrupt_cancels_the_answer_and_the_chat_goes_on(cli):
    with FaultServer(stall(2), stream("fine")) as server, talk(cli.to(server)) as shown:
        shown.say("hi")
        shown.see("t0 t1 ")
        shown.resize(30)
        shown.type(CTRL_C)
        shown.see("not kept, and /retry asks it again")
        shown.say("/retry")
        shown.see("fine\r\n")
        assert shown.leave()[0] == 0
        assert [request.json["messages"] for request in server.requests] == [[{"role": "user", "content": "hi"}]] * 2
    assert [(call["state"], call["exit_code"]) for call in cli.calls()] == [("cancelled", 130), ("ok", 0)]
    assert kept(cli) == 1


def test_an_interrupt_at_the_prompt_clears_the_line_and_twice_on_an_empty_one_leaves(cli):
    with FaultServer() as server, talk(cli.to(server)) as shown:
        shown.see(PROMPT)
        shown.type("abc")
        shown.see("abc")
        shown.type(CTRL_C)
        shown.say('"""')
        shown.see("... ")
        shown.type(CTRL_C)
        shown.see(PROMPT)
        shown.type(CTRL_C)
        shown.see("Ctrl-C once more")
        shown.see(PROMPT)
        shown.type(CTRL_C)
        assert shown.end()[0] == 0
        assert server.requests == []


def test_an_error_is_said_and_the_message_waits_for_another_model(cli):
    with FaultServer(status(400, "bad\x1b[2J"), stream("fine")) as server, talk(cli.to(server)) as shown:
        shown.say("hi")
        said = shown.see("/retry asks it again")
        assert b"llmctl: error: openai/m: HTTP 400" in said
        assert b"\x1b[2J" not in said
        shown.say("/retry openai/other")
        shown.see("fine\r\n")
        shown.leave()
        assert [request.json["model"] for request in server.requests] == ["m", "other"]
    assert kept(cli) == 1


OFTEN = [("prompt", signal.SIGTERM, 143), ("answer", signal.SIGHUP, 129)]
SELDOM = [("prompt", signal.SIGHUP, 129), ("answer", signal.SIGTERM, 143)]


@pytest.mark.parametrize(
    ("where", "number", "code"), [*OFTEN, *(pytest.param(*each, marks=pytest.mark.full) for each in SELDOM)]
)
def test_a_signal_to_leave_is_obeyed_and_the_terminal_is_as_it_was(cli, where, number, code):
    with FaultServer(stall(2)) as server, talk(cli.to(server), "-q") as shown:
        before = termios.tcgetattr(shown._terminal)
        shown.see(PROMPT)
        if where == "answer":
            shown.type("hi\r")
            shown.see("t0 t1 ")
        shown.process.send_signal(number)
        while shown._read():
            pass
        assert shown.process.wait(30) == code
        assert termios.tcgetattr(shown._terminal)[3] == before[3]
    if where == "answer":
        assert cli.calls()[0]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("columns", "env"),
    [
        (20, {}),
        (80, {"TERM": "dumb"}),
        (80, {"LC_ALL": "C"}),
        pytest.param(80, {"TERM": ""}, marks=pytest.mark.full),
        pytest.param(80, {"LC_ALL": "", "LANG": "C"}, marks=pytest.mark.full),
        pytest.param(80, {"NO_COLOR": "1"}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_odd_terminals_take_wide_characters_and_lose_nothing(cli, columns, env):
    text = "日本語のテスト żółć 😀 and on and on"
    with FaultServer(stream("answer ", text)) as server, talk(cli.to(server), columns=columns, env=env) as shown:
        shown.say(text)
        shown.see(f"answer {text}\r\n")
        shown.say("/help")
        code, drawn = shown.leave()
        assert server.requests[0].json["messages"] == [{"role": "user", "content": text}]
    assert code == 0
    assert b"Traceback" not in drawn
    if env.get("TERM") == "dumb":
        assert b"\x1b" not in drawn


def test_bytes_that_are_no_text_are_refused_and_the_chat_goes_on(cli):
    with FaultServer(stream("fine")) as server, talk(cli.to(server)) as shown:
        shown.see(PROMPT)
        shown.type(b"\xff\xfe\r")
        shown.see("not valid UTF-8")
        shown.say("hi")
        shown.see("fine\r\n")
        assert shown.leave()[0] == 0


def test_the_arrow_keys_find_what_was_said_in_another_chat_and_the_file_is_private(cli):
    with FaultServer(stream("one")) as server:
        with talk(cli.to(server), "-q") as shown:
            shown.see(PROMPT)
            shown.type(b"\x1b[200~two\rlines\x1b[201~\r")
            shown.see("one\r\n")
            shown.leave()
        with talk(cli, "-q") as shown:
            shown.see(PROMPT)
            shown.type(b"\x1b[A\r")
            shown.see("one\r\n")
            shown.leave()
        assert [request.json["messages"][-1]["content"] for request in server.requests] == ["two\nlines"] * 2
    assert stat.S_IMODE((cli.home / "chat_history").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "how", [{"env": {"LLMCTL_LOG_CONTENT": "none"}}, {"words": ["--no-log"]}], ids=["none", "no-log"]
)
def test_where_no_text_is_kept_that_is_said_and_no_history_is_written(cli, how):
    words, env = how.get("words", []), how.get("env")
    with FaultServer(stream("one")) as server, talk(cli.to(server), *words, env=env) as shown:
        assert b"this chat is not kept" in shown.see(PROMPT)
        shown.type("hi\r")
        shown.see("one\r\n")
        assert b"resumes it" not in shown.leave()[1]
    assert not (cli.home / "chat_history").exists()


def test_tab_completes_commands_keys_models_and_files(cli):
    (cli.root / "nótes").mkdir()
    (cli.root / "nótes" / "a.txt").write_text("text")
    typed = {"/mod\t": "/model ", "/set temp\t": "/set temperature ", "/model sma\t": "/model smart "}
    with FaultServer() as server, talk(cli.to(server), env={"LC_ALL": "C"}) as shown:
        for keys, seen in typed.items():
            shown.see(PROMPT)
            shown.type(keys)
            shown.see(seen)
            shown.type(CTRL_C)
        shown.see(PROMPT)
        shown.type("/file n\ta\t\r")
        shown.see("with the next message goes: nótes/a.txt")
        assert shown.leave()[0] == 0


def test_a_stdout_that_is_a_pipe_gets_the_answers_alone(cli):
    reader, writer = os.pipe()
    with FaultServer(stream("# one")) as server, talk(cli.to(server), stdout=writer) as shown:
        os.close(writer)
        shown.say("hi")
        shown.see("7+1 tokens")
        assert shown.leave()[0] == 0
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"# one\n"


def test_without_readline_there_are_plain_lines(cli):
    (blocker := cli.root / "blocker").mkdir()
    (blocker / "readline.py").write_text("raise ImportError('no readline here')\n")
    env = {"PYTHONPATH": f"{blocker}{os.pathsep}{cli.environ['PYTHONPATH']}"}
    with FaultServer(stream("ok")) as server, talk(cli.to(server), env=env) as shown:
        shown.say("żółć")
        shown.see("ok\r\n")
        assert shown.leave()[0] == 0
        assert server.requests[0].json["messages"][0]["content"] == "żółć"


def test_markdown_is_drawn_and_raw_leaves_it_alone(cli):
    for words, seen in (((), b"\x1b["), (("--raw",), b"**bold**")):
        with FaultServer(stream("**bold**")) as server, talk(cli.to(server), "-q", *words) as shown:
            shown.say("hi")
            assert seen in shown.see("bold")[-12:] + shown.see("\r\n")
            shown.leave()


def test_a_terminal_at_stdin_with_json_gets_documents(cli):
    behaviours = (stream("one"), status(400))
    with FaultServer(*behaviours) as server, talk(cli.to(server), "--json", stdout=subprocess.PIPE) as shown:
        shown.say("hi")
        shown.say("more")
        shown.see('{"error": ')
        assert shown.leave()[0] == 0
        assert json.loads(shown.process.stdout.read())["text"] == "one"
        shown.process.stdout.close()
