"""Where the messages of a chat come from: what a person types, or the lines of a pipe, joined into whole messages.

A line that ends in one backslash goes on in the next one; what begins with three quotes goes on until three quotes end
it; what is pasted is one message. A person's lines are edited by the standard library's `readline` (GNU or libedit),
because it costs nothing to import; a Python without it, or a stdout that is no terminal, gets plain lines.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from llmctl.cli.output import tell
from llmctl.cli.prompt import MAX_INPUT, as_text, decoded
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Lines = Callable[[str], str]
    """The next line, prompted for by a text. Raises EOFError, UsageError, KeyboardInterrupt, Cleared."""

QUOTES = '"""'
MORE = "... "
_PASTE_S = 0.02
"""How soon the next line of a paste is there, where the terminal does not say that it pastes."""
_TICK_S = 1.0
_KEYS = (
    "set enable-bracketed-paste {brackets}",
    "set convert-meta off",  # else letters beyond ASCII are commands under LANG=C
    "set input-meta on",
    "set output-meta on",
    "tab: complete",
)


class Said(NamedTuple):
    """What was said. Only what was typed on a line can be a command: a block or a paste is text, whatever it holds."""

    text: str
    typed: bool


class Cleared(Exception):
    """A person took back what was being typed."""


class Left(BaseException):
    """The chat is over, with an exit code. No `except` on the way is meant for it."""

    def __init__(self, code: int = 0) -> None:
        self.code = code


def message(lines: Lines, prompt: str) -> Said:
    """The next message. Raises as `lines` does; EOFError in the middle of a message is UsageError."""
    text = lines(prompt)
    if "\n" in text.strip():
        return Said(text, typed=False)
    try:
        if text.startswith(QUOTES):
            return Said(_block(text.removeprefix(QUOTES), lines), typed=False)
        while text.endswith("\\") and not text.endswith("\\\\"):
            text = f"{text[:-1]}\n{lines(MORE)}"
    except EOFError:
        raise UsageError(
            "the message has no end, so it was not sent",
            hint=f"a block ends with a line of {QUOTES}; a line that ends in a backslash goes on in the next",
        ) from None
    return Said(text, typed=True)


def _block(line: str, lines: Lines) -> str:
    found: list[str] = []
    while not line.rstrip().endswith(QUOTES):
        found.append(line)
        line = lines(MORE)
    return "\n".join([*found, line.rstrip().removesuffix(QUOTES)]).strip("\n")


class Pipe:
    """The lines of a stdin that is no terminal: UTF-8, without their ends."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._ended = sys.stdin is None
        self.number = 0
        """How many lines have been read."""

    def __call__(self, prompt: str) -> str:  # noqa: ARG002 - nobody is prompted
        """The next line."""
        while (end := self._held.find(b"\n")) < 0 and not self._ended:
            select.select([sys.stdin], [], [])
            piece = os.read(sys.stdin.fileno(), 1 << 20)
            self._ended = not piece
            self._held += piece
            if len(self._held) > MAX_INPUT:
                raise UsageError(f"a line of stdin is over {MAX_INPUT >> 20} MiB", hint="no model's window holds that")
        if end < 0 and not self._held:
            raise EOFError
        line = bytes(self._held[: end if end >= 0 else None])
        del self._held[: len(line) + 1]
        self.number += 1
        return decoded(line.removesuffix(b"\r"), f"line {self.number} of stdin")


class Editor:
    """The lines of a person at a terminal, with a history and completion where there is `readline`.

    `complete` gives the words that may stand at the end of a line so far.
    """

    def __init__(
        self, complete: Callable[[str], Sequence[str]], terminal: str, before: Sequence[str], *, colour: bool
    ) -> None:
        """`terminal` is TERM; the arrow keys find what was said `before`, oldest first; `colour` for a bold prompt."""
        self._colour = colour
        self._complete = complete
        self._readline = None
        self._brackets = False
        self._matches: list[str] = []
        self._edits = sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
        if not self._edits:
            return
        try:
            import readline
        except ImportError:
            return
        self._readline = readline
        readline.set_auto_history(False)
        readline.set_completer(self._completion)
        readline.set_completer_delims(" \t\n")
        if "libedit" in (readline.__doc__ or ""):
            readline.parse_and_bind("bind ^I rl_complete")
        else:
            self._brackets = terminal not in ("", "dumb")
            for line in _KEYS:
                readline.parse_and_bind(line.format(brackets="on" if self._brackets else "off"))
        for text in before:
            self.remember(text)

    def remember(self, text: str) -> None:
        """Let the arrow keys find `text`."""
        if self._readline is not None:
            self._readline.add_history(_raw(text))

    def __call__(self, prompt: str) -> str:
        """The next line, or all lines of a paste."""
        try:
            text = self._line(self._bold(prompt))
            while not self._brackets and select.select([sys.stdin], [], [], _PASTE_S)[0]:
                try:
                    text += "\n" + self._line("")
                except EOFError:
                    break
        except KeyboardInterrupt:
            tell("\n")
            if prompt == MORE or (self._readline and self._readline.get_line_buffer()):
                raise Cleared from None
            raise
        except EOFError:
            tell("" if self._brackets else "\n")  # GNU readline ends the line where it marks pastes
            raise
        except UnicodeDecodeError as error:
            raise UsageError("the message is not UTF-8", hint="check the locale of the terminal") from error
        return as_text(text, "the message")

    def _bold(self, prompt: str) -> str:
        """The prompt as it is drawn; readline is told which of its characters take no room."""
        return f"\x01\x1b[1m\x02{prompt}\x01\x1b[0m\x02" if self._brackets and self._colour else prompt

    def _line(self, prompt: str) -> str:
        if self._edits:
            return input(prompt)
        tell(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _completion(self, word: str, state: int) -> str | None:
        """As `readline` asks for it: the matches of `word` one by one."""
        if state == 0 and self._readline:
            line = _read(self._readline.get_line_buffer()[: self._readline.get_endidx()])
            self._matches = [_raw(match) for match in self._complete(line) if match.startswith(_read(word))]
        return self._matches[state] if state < len(self._matches) else None


def _raw(text: str) -> str:
    """`text` as `readline` takes it whatever the locale is: under C it refuses what is not ASCII."""
    return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")


def _read(text: str) -> str:
    """What `readline` has, as text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def ticking() -> Iterator[None]:
    """Let a signal end a read that was about to block when it came, which would else wait for a key (PEP 475)."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def unraised() -> Iterator[list[BaseException]]:
    """What signals raise while Python runs a destructor or a weak reference's callback: it would only be printed."""
    before, missed = sys.unraisablehook, list[BaseException]()

    def hook(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, (Left, KeyboardInterrupt)):
            missed.append(what.exc_value)
        else:
            before(what)

    sys.unraisablehook = hook
    try:
        yield missed
    finally:
        sys.unraisablehook = before
