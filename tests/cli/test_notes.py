"""What the notes say and when, without a process around: stderr is a terminal that the test reads."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest

from llmctl.cli.notes import Notes, summary
from llmctl.cli.output import Out
from llmctl.core.errors import Unavailable
from llmctl.core.record import Attempt, CallRecord
from llmctl.run.observe import AttemptEnded, AttemptStarted, CallEnded, Waiting

RECORD = CallRecord(
    "01J", 0.0, "ask", "m", state="ok", served_by="p/m", input_tokens=7, output_tokens=2, latency_ms=12.4
)
ATTEMPT = Attempt(1, "d", "p", "m", "primary", "Unavailable", 0.0)


class Terminal(io.TextIOWrapper):
    """A stderr that says it is a terminal and keeps what is drawn."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    @property
    def drawn(self) -> str:
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal on stderr from now on: pytest puts its own stderr back after a fixture."""
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    return stderr


def notes(**how) -> Notes:
    return Notes(Out(), **{"quiet": False, "verbose": False, "silence_s": 0.0} | how)


def draw_once(told: Notes, *notices) -> None:
    async def first_tick() -> None:
        told.watch()
        for notice in notices:
            told(notice)
        await asyncio.sleep(0)
        told.erase()

    asyncio.run(first_tick())


def test_the_status_says_who_is_asked_and_the_attempt(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes(), AttemptStarted(1, "primary", "p/m"))
    assert terminal.drawn == "\r\x1b[2Kasking p/m 0 s\r\x1b[2K"


def test_a_later_attempt_has_its_number_in_the_status(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes(), AttemptStarted(2, "retry", "p/m"))
    assert "\r\x1b[2Kasking p/m (attempt 2) 0 s" in terminal.drawn


def test_a_model_name_cannot_drive_the_terminal(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes(), AttemptStarted(1, "primary", "p/\x1b[2Jm"))
    assert "\\x1b[2Jm" in terminal.drawn


def test_while_waiting_the_status_says_so_and_a_short_wait_has_no_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes(), Waiting(0.4, "p/m: RateLimited"))
    assert terminal.drawn == "\r\x1b[2Kwaiting 0 s (p/m: RateLimited): 0 s\r\x1b[2K"


def test_a_wait_of_unknown_length_has_a_status_and_no_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes(), Waiting(0.0, "an equal call is under way"))
    assert terminal.drawn == "\r\x1b[2Kwaiting (an equal call is under way): 0 s\r\x1b[2K"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {}], ids=str)
def test_without_colour_the_status_is_taken_away_without_an_escape_byte(monkeypatch, environ):
    terminal = on_terminal(monkeypatch)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    draw_once(notes(**{} if environ else {"color": "never"}), AttemptStarted(1, "primary", "p/m"))
    blank = f"\r{' ' * 79}\r"
    assert terminal.drawn == f"{blank}asking p/m 0 s{blank}"


def test_a_long_wait_has_a_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    notes()(Waiting(3.21, "p/m: RateLimited"))
    assert terminal.drawn == "llmctl: waiting 3.2 s: p/m: RateLimited\n"


def test_a_wait_that_is_taken_up_again_has_no_second_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    told = notes()
    for notice in (*[Waiting(1.0, "p/m is at its limit")] * 3, AttemptStarted(1, "primary", "p/m")) * 2:
        told(notice)
    assert terminal.drawn == "llmctl: waiting 1.0 s: p/m is at its limit\n" * 2


def test_before_anything_is_done_and_before_the_silence_nothing_is_drawn(monkeypatch):
    terminal = on_terminal(monkeypatch)
    draw_once(notes())
    draw_once(notes(silence_s=60.0), AttemptStarted(1, "primary", "p/m"))
    assert terminal.drawn == ""


def test_quiet_says_nothing_at_all(monkeypatch):
    terminal = on_terminal(monkeypatch)
    told = notes(quiet=True, verbose=True)
    told.chosen("local", configured=False)
    draw_once(told, AttemptStarted(2, "retry", "p/m", ("seed",)), Waiting(9.0, "x"), CallEnded(RECORD))
    assert terminal.drawn == ""


def test_a_retry_says_after_what(monkeypatch):
    terminal = on_terminal(monkeypatch)
    told = notes()
    told(AttemptEnded(ATTEMPT, Unavailable("p/m: HTTP 503")))
    told(AttemptStarted(2, "fallback", "q/n"))
    assert terminal.drawn == "llmctl: fallback: asking q/n after Unavailable: p/m: HTTP 503\n"


def test_a_parameter_that_is_left_out_is_said(monkeypatch):
    terminal = on_terminal(monkeypatch)
    notes()(AttemptStarted(1, "primary", "p/m", ("seed", "top_p")))
    assert terminal.drawn == "llmctl: p/m takes no seed, top_p: left out\n"


def test_the_embedded_model_is_named_only_when_nobody_chose_it(monkeypatch):
    terminal = on_terminal(monkeypatch)
    notes().chosen("local", configured=True)
    notes().chosen("fast", configured=False)
    assert terminal.drawn == ""
    notes().chosen("local", configured=False)
    assert terminal.drawn == (
        "llmctl: no key was found: asking the small embedded model, which is for trying things out\n"
    )


def test_the_summary_tells_an_unknown_price_and_an_estimate():
    assert summary(RECORD) == "ok p/m: 7+2 tokens, price unknown, 12 ms [01J]"
    failed = CallRecord("01J", 0.0, "ask", "m", state="failed")
    assert summary(failed) == "failed -: no tokens, price unknown, 0 ms [01J]"
    guessed = CallRecord(
        "1", 0.0, "ask", "m", "ok", input_tokens=1, output_tokens=1, tokens_estimated=True, cost_nanousd=1500
    )
    assert summary(guessed) == "ok -: 1+1 tokens (estimated), $0.000002, 0 ms [1]"


def test_a_dumb_terminal_gets_no_status_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    draw_once(notes(), AttemptStarted(1, "primary", "p/m"))
    assert terminal.drawn == ""


def test_without_a_terminal_there_is_no_status_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    monkeypatch.setattr(stderr, "isatty", lambda: False)
    draw_once(notes(), AttemptStarted(1, "primary", "p/m"))
    assert stderr.drawn == ""
