"""The child process that tells: OTLP, Sentry and hooks, each on a thread of its own, so that none waits for another.

It reads JSON lines until the pipe ends, gives everyone what is left, and leaves, after `GIVE_UP_S` in any case. Nobody
hears what it prints; its stdout carries complaints back (`run/telling`), one line each, and each once.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from llmctl.core.redact import redact
from llmctl.run.telling import BROKEN, ENTRY_POINTS, FAILING, MOST_WAITING, UNHEARD, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO, NoReturn

    from llmctl.run.telling import Told

    Say = Callable[[str, str], None]

GIVE_UP_S = 10.0
_MOST_COMPLAINTS = 20
_AT_ONCE = 1 << 16
_LOOK_S = 2


class Sink(Protocol):
    """One who is told."""

    def __call__(self, event: Told, /) -> object:
        """Take an event."""

    def close(self) -> object:
        """Pass on what was held back."""


class Hook:
    """The function of a user's hook."""

    def __init__(self, name: str) -> None:
        """`name` is `module:function`, or that of an entry point in the group `llmctl.hooks`. Raises what it raises."""
        self._call = _function(name)

    def __call__(self, event: Told) -> None:
        """Call it."""
        self._call(event)

    def close(self) -> None:
        """There is nothing to pass on."""


class Line(threading.Thread):
    """One who is told, on a thread of its own. What it raises is said, and changes nothing."""

    def __init__(self, name: str, make: Callable[[], Sink], say: Say) -> None:
        super().__init__(name=name, daemon=True)
        self.events: SimpleQueue[Told | None] = SimpleQueue()
        self._make = make
        self._say = say

    def put(self, event: Told) -> None:
        """Take an event, if there is room."""
        if self.events.qsize() < MOST_WAITING:
            self.events.put(event)

    def run(self) -> None:
        """Tell until the end."""
        try:
            sink = self._make()
        except BaseException as error:  # noqa: BLE001 - a module that is imported may do anything
            self._say(BROKEN, f"{self.name}: {type(error).__name__}: {error}")
            return
        while (event := self.events.get()) is not None:
            self._try(sink, event)
        self._try(sink.close)

    def _try(self, work: Callable[..., object], *given: object) -> None:
        try:
            work(*given)
        except BaseException as error:  # noqa: BLE001 - a user's hook may do anything
            self._say(FAILING, f"{self.name}: {type(error).__name__}: {error}")


def main(news: BinaryIO, otel: str, sentry: bool, hooks: list[str]) -> NoReturn:
    """Tell those who are named all that comes, and leave."""
    say = _complaints()
    _hear_libraries(say)
    lines = [Line(name, make, say) for name, make in sinks(otel, sentry=sentry, hooks=hooks)]
    for each in lines:
        each.start()
    for row in _rows(news):
        event = decoded(row)
        for each in lines:
            each.put(event)
    until = monotonic() + GIVE_UP_S
    for each in lines:
        each.events.put(None)
    for each in lines:
        each.join(max(0.0, until - monotonic()))
    os._exit(0)


def _rows(news: BinaryIO) -> Iterator[bytes]:
    """The lines that come, until the end; what has none was written by one who was killed over it.

    While this is not called again, an alarm is set that ends the process: a hook that never lets go of the interpreter
    (a regular expression without end) would keep it for ever, whoever is to give up.
    """
    import signal
    from select import select

    held = b""
    while True:
        signal.alarm(int(GIVE_UP_S) + 2 * _LOOK_S)
        if select([news], [], [], _LOOK_S)[0]:
            if not (more := os.read(news.fileno(), _AT_ONCE)):
                return
            *rows, held = (held + more).split(b"\n")
            yield from rows


def sinks(otel: str, *, sentry: bool, hooks: list[str]) -> Iterable[tuple[str, Callable[[], Sink]]]:
    """Everyone who is to be told, by name, and how each is made: slowly, and perhaps not at all."""
    if otel:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = otel
        # Two, for one of them may have to wait: Langfuse takes traces only.
        yield "otel traces", lambda: import_module("llmctl.run.otel").Spans(os.environ)
        yield "otel metrics", lambda: import_module("llmctl.run.otel").Metrics(os.environ)
    if sentry:
        yield "sentry", lambda: import_module("llmctl.run.sentry").Errors(os.environ)
    for name in hooks:
        yield f"hook {name}", partial(Hook, name)


def _function(name: str) -> Callable[[Told], object]:
    from importlib.metadata import entry_points

    module, colon, attribute = name.partition(":")
    if not colon:
        found = tuple(entry_points(group=ENTRY_POINTS, name=name))
        if not found:
            raise LookupError(f"no installed package has an entry point of this name in {ENTRY_POINTS}")
        function = found[0].load()
    else:
        function = getattr(import_module(module), attribute)
    if not callable(function):
        raise TypeError("it cannot be called")
    return function  # type: ignore[no-any-return]


def _complaints() -> Say:
    """How complaints go back: through what was stdout. From now on nobody hears what this process prints."""
    back = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    said: set[str] = set()

    def say(kind: str, words: str) -> None:
        line = f"{kind}{redact(' '.join(words.split()))[:300]}\n"
        if line not in said and len(said) < _MOST_COMPLAINTS:
            said.add(line)
            with suppress(OSError):  # nobody is there to hear it
                os.write(back, line.encode("utf-8", "replace"))

    return say


def _hear_libraries(say: Say) -> None:
    """What the exporters log as a warning is a complaint: they raise nothing."""

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(UNHEARD, f"{record.name.partition('.')[0]}: {record.getMessage()}")

    for name in ("opentelemetry", "sentry_sdk"):
        logging.getLogger(name).addHandler(Heard(logging.WARNING))
