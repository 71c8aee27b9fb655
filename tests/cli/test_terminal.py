"""`ask` on a terminal: the status line, notes on lines of their own, and a model that tries to drive the screen."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from servers import FaultServer, stream, token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from servers import Behaviour, Exchange

    from .conftest import Cli

ERASE = b"\r\x1b[2K"
TOLD = b"calls and their text are kept in"


class Screen:
    """A process whose stdin, stdout and stderr are one terminal, and all that it has drawn."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.drawn = b""
        self._terminal = terminal

    def wait_for(self, what: bytes) -> None:
        until = monotonic() + 30
        while what not in self.drawn:
            assert monotonic() < until, self.drawn
            assert self._read(), self.drawn

    def end(self) -> tuple[int, bytes]:
        """The exit code and everything drawn, with plain line ends."""
        while self._read():
            pass
        return self.process.wait(30), self.drawn.replace(b"\r\n", b"\n")

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], 30)
        assert ready, self.drawn
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux: EIO when the last process has let go of it
            return False
        self.drawn += data
        return bool(data)


@contextmanager
def at_terminal(
    kind: type[Screen], cli: Cli, *words: str, columns: int, env: dict[str, str], **how: Any
) -> Iterator[Screen]:
    """`llmctl WORDS` on a terminal; `how` puts another stream in the place of one, or says how the process starts."""
    primary, secondary = os.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    how = {"stdin": secondary, "stdout": secondary, "stderr": secondary} | how
    process = cli.start(*words, env={"TERM": "xterm"} | env, **how)
    os.close(secondary)
    try:
        yield kind(process, primary)
    finally:
        process.kill()
        process.wait()
        os.close(primary)


def screen(
    cli: Cli, *words: str, columns: int = 80, env: dict[str, str] | None = None, **how: int
) -> AbstractContextManager[Screen]:
    """`llmctl ask WORDS` on a terminal."""
    words = ("ask", "-m", "openai/m", "--retries", "0", *words)
    return at_terminal(Screen, cli, *words, columns=columns, env=env or {}, **how)


def held(*pieces: str) -> tuple[Behaviour, list[Exchange]]:
    """A behaviour that answers `pieces` when a word comes down its connection, and never by itself."""
    import asyncio

    waiting: list[asyncio.Event] = []

    async def behave(x: Exchange) -> None:
        go = asyncio.Event()
        waiting.append((asyncio.get_running_loop(), go))
        await go.wait()
        await stream(*pieces)(x)

    return behave, waiting


def release(waiting) -> None:
    loop, go = waiting[0]
    loop.call_soon_threadsafe(go.set)


def test_the_status_line_comes_after_a_second_of_silence_and_goes_at_the_first_token(cli):
    behave, waiting = held("Hello")
    with FaultServer(behave) as server, screen(cli.to(server), "hi") as shown:
        began = monotonic()
        shown.wait_for(b"asking openai/m 1 s")
        assert monotonic() - began >= 1.0
        release(waiting)
        code, drawn = shown.end()
    before, answer = drawn.split(b"Hello\n")
    assert code == 0
    assert before.startswith(ERASE + b"asking openai/m 1 s")
    assert before.endswith(ERASE)
    assert TOLD in answer


def test_a_narrow_terminal_gets_a_status_line_that_does_not_wrap(cli):
    behave, waiting = held("Hello")
    with FaultServer(behave) as server, screen(cli.to(server), "hi", columns=12) as shown:
        shown.wait_for(b" 1 s")
        release(waiting)
        _, drawn = shown.end()
    statuses = drawn.split(b"Hello")[0].split(ERASE)
    assert statuses[1] == b"asking  1 s"
    assert max(map(len, statuses)) < 12


def test_a_status_line_in_wide_characters_does_not_wrap_and_without_colour_has_no_escape_byte(cli):
    behave, waiting = held("Hello")
    words, how = ("hi", "-m", "openai/模型模型"), {"columns": 21, "env": {"NO_COLOR": "1"}}
    with FaultServer(behave) as server, screen(cli.to(server), *words, **how) as shown:
        shown.wait_for(b" 1 s")
        release(waiting)
        _, drawn = shown.end()
    blank = f"\r{' ' * 20}\r"
    assert drawn.startswith(f"{blank}asking openai/模 1 s{blank}".encode())
    assert b"\x1b" not in drawn


def test_a_quick_answer_draws_no_status_line_and_no_escape_byte(cli):
    with FaultServer(stream("Hello")) as server, screen(cli.to(server), "hi", "-q") as shown:
        assert shown.end() == (0, b"Hello\n")


@pytest.mark.full
def test_quiet_and_dumb_terminals_get_no_status_line(cli):
    for words, env in ((["-q"], {}), ([], {"TERM": "dumb"}), (["--json"], {})):
        behave, waiting = held("Hello")
        with FaultServer(behave) as server, screen(cli.to(server), "hi", *words, env=env) as shown:
            server.wait_for(1)
            select.select([shown._terminal], [], [], 1.3)  # longer than the silence that draws it
            release(waiting)
            code, drawn = shown.end()
        assert code == 0
        assert b"\x1b" not in drawn


def test_the_status_line_is_on_stderr_alone_when_the_answer_goes_into_a_pipe(cli):
    behave, waiting = held("Hello\x1b[31m")
    reader, writer = os.pipe()
    with FaultServer(behave) as server, screen(cli.to(server), "hi", stdout=writer) as shown:
        os.close(writer)
        shown.wait_for(b"asking openai/m 1 s")
        release(waiting)
        _, drawn = shown.end()
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"Hello\x1b[31m\n"
    assert b"Hello" not in drawn
    assert drawn.split(TOLD)[0].endswith(ERASE + b"llmctl: ")


@pytest.mark.full
def test_no_escape_byte_reaches_a_stderr_that_is_no_terminal(cli):
    behave, waiting = held("Hello")
    reader, writer = os.pipe()
    with FaultServer(behave) as server, screen(cli.to(server), "hi", stderr=writer) as shown:
        os.close(writer)
        server.wait_for(1)
        select.select([shown._terminal], [], [], 1.3)
        release(waiting)
        assert shown.end() == (0, b"Hello\n")
    with open(reader, "rb") as pipe:
        assert pipe.read() == b""


def test_what_the_model_writes_cannot_drive_the_terminal_also_when_it_comes_in_pieces(cli):
    hostile = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\rover\b\x00\u202eevil\u2066x\x7f tab\there żółć 😀"
    neutral = r"\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\x0dover\x08\x00\u202eevil\u2066x\x7f" + " tab\there żółć 😀\n"
    for pieces in ([hostile], list(hostile)):
        for words in ((), ("--no-stream",)):
            with FaultServer(stream(*pieces)) as server, screen(cli.to(server), "hi", "-q", *words) as shown:
                assert shown.end() == (0, neutral.encode())


def test_an_error_text_of_the_provider_cannot_drive_the_terminal(cli):
    from servers import status

    with FaultServer(status(400, "\x1b[2Jno\r\nhint: run rm")) as server, screen(cli.to(server), "hi") as shown:
        code, drawn = shown.end()
    assert code == 5
    assert b"\x1b" not in drawn.split(TOLD)[-1]
    assert rb"\x1b[2Jno hint: run rm" in drawn


def test_notes_begin_on_a_line_of_their_own(cli):
    with FaultServer(stream("Hello")) as server, screen(cli.to(server), "hi", "-v") as shown:
        _, drawn = shown.end()
    assert drawn.startswith(b"Hello\nllmctl: ok openai/m: ")


def test_what_is_kept_is_said_once(cli):
    with FaultServer(stream("Hello")) as server:
        for times in (1, 0):
            with screen(cli.to(server), "hi") as shown:
                assert shown.end()[1].count(TOLD) == times


def test_what_is_kept_is_not_said_when_nothing_is(cli):
    env = {"LLMCTL_LOG_CONTENT": "none"}
    with FaultServer(stream("Hello")) as server, screen(cli.to(server), "hi", env=env) as shown:
        assert shown.end() == (0, b"Hello\n")


def test_an_interrupt_on_the_terminal_takes_the_status_line_away(cli):
    with FaultServer("silent") as server, screen(cli.to(server), "hi") as shown:
        shown.wait_for(b"asking openai/m 1 s")
        shown.process.send_signal(signal.SIGINT)
        code, drawn = shown.end()
    assert code == 130
    assert drawn.split(TOLD)[0].removesuffix(b"llmctl: ").endswith(ERASE)


def test_an_answer_that_breaks_off_ends_its_line_before_the_error(cli):
    async def breaks(x):
        await x.stream_head()
        await x.write(token("part"))

    with FaultServer(breaks) as server, screen(cli.to(server), "hi") as shown:
        code, drawn = shown.end()
    assert code == 8
    assert drawn.startswith(b"part\nllmctl: ")


def test_missing_weights_are_offered_and_a_no_fetches_nothing(cli):
    with screen(cli, "hi", "-m", "local") as shown:
        shown.wait_for(b"Fetch them? [Y/n]")
        os.write(shown._terminal, b"n\n")
        code, drawn = shown.end()
    assert code == 3
    assert b"hint: run: llmctl models pull local" in drawn
    assert not (cli.home / "weights").exists()


def test_an_interrupt_at_the_offer_asks_nothing_and_leaves_no_row(cli):
    with screen(cli, "hi", "-m", "local") as shown:
        shown.wait_for(b"Fetch them? [Y/n]")
        shown.process.send_signal(signal.SIGINT)
        code, _ = shown.end()
    assert code == 130
    assert not (cli.home / "ledger.db").exists()


def test_an_offer_needs_a_person_at_stdin(cli):
    with screen(cli, "hi", "-m", "local", stdin=subprocess.DEVNULL) as shown:
        code, drawn = shown.end()
    assert (code, b"Fetch" in drawn) == (3, False)


# ---------------------------------------------------------------- Markdown

ANSWER = "# Title\n\nSome **bold** and `code`, 字 żółć 👩\u200d👧 x_y.\n- one\n```py\na = '*b*'\n```\n"
DRAWN = (
    "\x1b[1;4mTitle\x1b[0m\n\nSome \x1b[1mbold\x1b[0m and \x1b[36mcode\x1b[0m, 字 żółć 👩\u200d👧 x_y.\n"
    "• one\n\x1b[2m```py\x1b[0m\na = '*b*'\n\x1b[2m```\x1b[0m\n"
).encode()


def in_parts(*parts: str) -> tuple[Behaviour, list[Exchange]]:
    """A behaviour that sends the next part only when it is told to, and ends its answer after the last."""
    import asyncio

    waiting: list[asyncio.Event] = []

    async def behave(x: Exchange) -> None:
        await x.stream_head()
        for part in parts[:-1]:
            waiting[:] = [(asyncio.get_running_loop(), go := asyncio.Event())]
            await x.write(token(part))
            await go.wait()
        await x.write(token(parts[-1], "stop") + b"data: [DONE]\n\n")

    return behave, waiting


@pytest.mark.parametrize("columns", [20, 80])
def test_markdown_is_drawn_as_it_streams_and_a_resize_harms_nothing(cli, columns):
    behave, waiting = in_parts(ANSWER[:30], ANSWER[30:60], ANSWER[60:])
    with FaultServer(behave) as server, screen(cli.to(server), "hi", "-q", columns=columns) as shown:
        for part, wider in ((b"\x1b[1mbold", 9), (b"\xc5\xbc\xc3\xb3", 200)):
            shown.wait_for(part)  # before more of the answer has come
            fcntl.ioctl(shown._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, wider, 0, 0))
            shown.process.send_signal(signal.SIGWINCH)
            release(waiting)
        assert shown.end() == (0, DRAWN)


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--raw"], {}),
        (["--color", "never"], {"FORCE_COLOR": "1"}),
        (["--render"], {"NO_COLOR": "1"}),
        ([], {"TERM": "dumb"}),
    ],
    ids=str,
)
def test_where_there_is_to_be_no_colour_an_answer_is_as_it_was_made(cli, words, env):
    with FaultServer(stream(*ANSWER)) as server, screen(cli.to(server), "hi", "-q", *words, env=env) as shown:
        assert shown.end() == (0, ANSWER.encode())


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--color", "always"], {"NO_COLOR": "1", "TERM": "dumb"}),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
        (["--no-stream"], {"NO_COLOR": ""}),
        ([], {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ([], {"LC_ALL": "POSIX"}),
        ([], {"PYTHONIOENCODING": "latin-1"}),
    ],
    ids=str,
)
def test_where_there_is_colour_an_answer_is_drawn_whatever_the_locale(cli, words, env):
    with FaultServer(stream(ANSWER)) as server, screen(cli.to(server), "hi", "-q", *words, env=env) as shown:
        assert shown.end() == (0, DRAWN)


def test_an_answer_from_the_cache_is_drawn_like_the_first_one(cli):
    with FaultServer(stream(*ANSWER)) as server:
        for hits in (0, 1):
            with screen(cli.to(server), "hi", env={"LLMCTL_LOG_CONTENT": "full"}) as shown:
                code, drawn = shown.end()
            assert (code, drawn.count(b"cache hit")) == (0, hits)
            assert DRAWN in drawn


@pytest.mark.parametrize(
    ("words", "env", "out"),
    [
        ([], {"FORCE_COLOR": "1"}, ANSWER.encode()),
        (["--color", "always"], {}, ANSWER.encode()),
        (["--render"], {}, DRAWN),
        (["--render"], {"NO_COLOR": "1"}, ANSWER.encode()),
        (["--render", "--color", "never"], {}, ANSWER.encode()),
    ],
    ids=str,
)
def test_into_a_pipe_an_answer_is_drawn_only_when_that_is_asked_for(cli, words, env, out):
    with FaultServer(stream(*ANSWER)) as server:
        done = cli.to(server).ask("hi", *words, env=env)
    assert (done.code, done.out, done.err) == (0, out, "")


def test_an_answer_that_is_data_is_never_drawn(cli):
    data = '{"a": "*x*"}'
    with FaultServer(stream(data)) as server, screen(cli.to(server), "hi", "-q", "--schema", "{}") as shown:
        assert shown.end() == (0, f"{data}\n".encode())


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("so **bo", b"so **bo\n"), ("# Ti", b"\x1b[1;4mTi\x1b[0m\n"), ("a\n``", b"a\n``\n"), ("a\n", b"a\n")],
    ids=repr,
)
def test_an_interrupt_loses_nothing_that_was_held_back_and_ends_every_style(cli, text, drawn):
    behave, _ = in_parts(text, "")
    with FaultServer(behave) as server, screen(cli.to(server), "hi", "-q") as shown:
        shown.wait_for(drawn[:1])  # what is shown came with what is held back
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == (130, drawn)


def test_an_answer_that_begins_again_is_drawn_from_its_beginning(cli):
    async def breaks(x):
        await x.stream_head()
        await x.write(token("# Ti `x"))

    with (
        FaultServer([breaks, stream("a *b*\n")]) as server,
        screen(cli.to(server), "hi", "--fallback", "openai/n", "--on-break", "restart") as shown,
    ):
        code, drawn = shown.end()
    assert code == 0
    assert drawn.startswith(b"\x1b[1;4mTi `x\x1b[0m\nllmctl: fallback: asking openai/n")
    assert b"\na \x1b[3mb\x1b[0m\n" in drawn


def test_a_pipe_that_is_closed_while_an_answer_is_drawn_is_silent(cli):
    behave, waiting = in_parts("**one** two", "**three**\n")
    with (
        FaultServer(behave) as server,
        cli.to(server).start("ask", "-m", "openai/m", "--render", "hi") as process,
    ):
        assert process.stdout.read(1) == b"\x1b"
        process.stdout.close()
        release(waiting)
        assert (process.stderr.read(), process.wait(30)) == (b"", 141)
