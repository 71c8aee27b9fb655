"""Who gets escape sequences: each stream by itself, by one function."""

from __future__ import annotations

import io

import pytest

from llmctl.cli.colour import Choice, colour, console, markdown

ENVIRONS = {
    "": {},
    "empty": {"NO_COLOR": "", "FORCE_COLOR": ""},
    "no": {"NO_COLOR": "0"},
    "dumb": {"TERM": "dumb"},
    "force": {"FORCE_COLOR": "1"},
    "force 0": {"FORCE_COLOR": "0"},
    "both": {"NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "dumb"},
}


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


PIPE, TERMINAL = Stream(terminal=False), Stream(terminal=True)


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("name", ENVIRONS)
def test_what_is_asked_for_goes_before_the_variables_and_forcing_before_forbidding(name, choice):
    given = ENVIRONS[name], choice
    forced = name in ("force", "both")
    terminal = {"always": True, "never": False}.get(choice, forced or name in ("", "empty", "force 0"))
    pipe = {"always": True, "never": False}.get(choice, forced)
    assert (colour(TERMINAL, *given), colour(PIPE, *given), colour(None, *given)) == (terminal, pipe, pipe)


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("name", ENVIRONS)
def test_an_answer_is_drawn_for_a_person_and_elsewhere_when_told_but_never_without_colour(name, choice):
    for render in (None, True, False):
        allowed = render is not False and colour(TERMINAL, ENVIRONS[name], choice)
        for stream in (TERMINAL, PIPE, None):
            drawn = markdown(stream, ENVIRONS[name], choice, render=render) is not None
            assert drawn == (allowed and (stream is TERMINAL or render is True))


@pytest.mark.parametrize("name", ENVIRONS)
def test_what_rich_draws_has_escapes_where_there_is_colour_and_else_not_one(name):
    stream = Stream(terminal=True)
    from rich.text import Text

    console(stream, ENVIRONS[name]).print(Text("x", style="bold magenta"))
    assert stream.getvalue() == ("\x1b[1;35mx\x1b[0m\n" if colour(stream, ENVIRONS[name]) else "x\n")
