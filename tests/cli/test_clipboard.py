"""`ask --copy` and `ask --extract`: what is taken out of an answer, and where it goes."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, stream

from .test_terminal import screen

if TYPE_CHECKING:
    from .conftest import Cli

BLOCK = "a = '*'\r\n\n字\x1b[31m\n"
ANSWER = f"So **this**:\n```py\n{BLOCK}```\nor\n```\nb\n```\n"


@pytest.fixture
def path(cli: Cli) -> str:
    """A PATH with nothing on it but what `program` puts there."""
    folder = cli.root / "bin"
    folder.mkdir()
    cli.environ["PATH"] = str(folder)
    return str(folder)


def program(path: str, name: str, does: str = '/bin/cat > "$0.got"; echo "$@" > "$0.args"') -> None:
    file = os.path.join(path, name)
    with open(file, "w") as script:
        script.write(f"#!/bin/sh\n{does}\n")
    os.chmod(file, 0o755)


def got(path: str, name: str) -> tuple[bytes, str]:
    with open(os.path.join(path, f"{name}.got"), "rb") as data, open(os.path.join(path, f"{name}.args")) as args:
        return data.read(), args.read().strip()


@pytest.mark.parametrize(
    ("name", "env", "args"),
    [
        ("pbcopy", {}, ""),
        ("wl-copy", {"WAYLAND_DISPLAY": "w"}, ""),
        ("xclip", {"DISPLAY": ":0"}, "-selection clipboard"),
        ("xsel", {"DISPLAY": ":0"}, "--clipboard --input"),
    ],
)
def test_what_was_printed_is_given_to_the_program_for_it(cli, path, name, env, args):
    program(path, name)
    with FaultServer(stream(*ANSWER)) as server:
        done = cli.to(server).ask("hi", "--copy", env=env)
        assert (done.code, done.out.decode(), done.err) == (0, ANSWER, "")
        assert got(path, name) == (ANSWER.encode(), args)
        done = cli.ask("hi", "--copy", "-x", "--cache", "off", env=env)
        assert (done.code, done.out.decode(), done.err) == (0, BLOCK, "")
        assert got(path, name) == (BLOCK.encode(), args)


def test_a_program_that_fails_gives_way_to_the_next_one(cli, path):
    program(path, "xclip", "exit 1")
    program(path, "xsel")
    program(path, "wl-copy", "exit 1")  # without WAYLAND_DISPLAY it is not run
    with FaultServer(stream("Hello")) as server:
        assert cli.to(server).ask("hi", "--copy", "--json", env={"DISPLAY": ":0"}).err == ""
    assert got(path, "xsel")[0] == b"Hello"


@pytest.mark.parametrize(
    ("does", "words", "said"),
    [
        ("exit 3", [], "xclip ended with exit code 3"),
        ("exec /no/such", ["-q"], None),
        (None, [], "there is no pbcopy, wl-copy, xclip or xsel with a clipboard, and no terminal"),
        pytest.param("exec /bin/sleep 60", [], "xclip took longer than 3 s", marks=pytest.mark.full),
    ],
)
def test_what_cannot_be_copied_is_one_warning_and_no_failure(cli, path, does, words, said):
    if does is not None:
        program(path, "xclip", does)
    with FaultServer(stream("Hello")) as server:
        done = cli.to(server).ask("hi", "--copy", *words, env={"DISPLAY": ":0"})
    warning = f"llmctl: warning: the answer was not copied: {said}\n" if said else ""
    assert (done.code, done.out, done.err) == (0, b"Hello\n", warning)


def test_without_a_program_the_terminal_is_asked_to_copy_it_and_that_is_said(cli, path):
    text = "é*x*"
    with FaultServer(stream(text)) as server, screen(cli.to(server), "hi", "--copy", "--raw") as shown:
        code, drawn = shown.end()
    asked = b"\x1b]52;c;" + base64.b64encode(text.encode()) + b"\x07"
    assert code == 0
    assert drawn.startswith(text.encode() + b"\n" + asked + b"llmctl: the terminal was asked to copy it")


def test_a_terminal_is_not_asked_to_take_more_than_terminals_take_nor_is_a_dumb_one(cli, path):
    for text, env in (("x" * 74_995, {}), ("x", {"TERM": "dumb"})):
        with FaultServer(stream(text)) as server, screen(cli.to(server), "hi", "--copy", env=env) as shown:
            code, drawn = shown.end()
        assert (code, b"\x1b]52" in drawn) == (0, False)
        assert b"warning: the answer was not copied: " in drawn


def test_an_answer_that_is_not_whole_is_not_copied(cli, path):
    program(path, "pbcopy")
    with FaultServer("length") as server:
        assert cli.to(server).ask("hi", "--copy").code == 8
    assert os.listdir(path) == ["pbcopy"]


# ---------------------------------------------------------------- extract


def test_a_code_block_on_a_terminal_is_harmless_and_not_drawn(cli):
    with FaultServer(stream(*ANSWER)) as server, screen(cli.to(server), "hi", "-x", "-q") as shown:
        assert shown.end() == (0, "a = '*'\\x0d\n\n字\\x1b[31m\n".encode())


def test_an_answer_without_a_code_block_is_printed_whole_and_that_is_said(cli):
    with FaultServer(stream("Just `x`.")) as server:
        done = cli.to(server).ask("hi", "-x")
        assert (done.code, done.out) == (0, b"Just `x`.\n")
        assert done.err == "llmctl: the answer has no code block: this is all of it\n"
        assert cli.ask("hi", "-x", "-q").err == ""


def test_an_extract_waits_for_its_end_and_falls_back_whole(cli):
    async def breaks(x):
        from servers import token

        await x.stream_head()
        await x.write(token("```\nbroken"))

    with FaultServer([breaks, stream(ANSWER)]) as server:
        done = cli.to(server).ask("hi", "-x", "--fallback", "openai/n", "-q")
    assert (done.code, done.out.decode()) == (0, BLOCK)


def test_an_extract_of_json_is_refused(cli):
    assert cli.run("ask", "hi", "-x").code != 2
    done = cli.run("ask", "hi", "-x", "--json")
    assert (done.code, b"exclude each other" in done.err.encode()) == (2, True)
