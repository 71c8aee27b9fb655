"""A call on an event loop, for a person or a pipe: the answer as it comes, notes to stderr, and how it all stops.

Ctrl-C, SIGTERM, a closed terminal and a stdout that fails cancel the call: its row says `cancelled`, with the exit code
of the cause.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Protocol

from llmctl.core.errors import OutputFailed

if TYPE_CHECKING:
    from llmctl.cli.notes import Notes
    from llmctl.cli.output import Out
    from llmctl.core.record import Answer
    from llmctl.run.engine import CallRun

EXIT_PIPE = 141
EXIT_STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


async def run_to_end(run: CallRun, notes: Notes, out: Out, *, streams: bool, goes_on: bool = False) -> Answer | int:
    """The answer, whose text has been written where it `streams`; the exit code where a signal stopped the call.

    `goes_on` is whether the process does afterwards, and takes signals as it did before.
    """
    stop = Stop(run, out)
    notes.watch()
    try:
        async with aclosing(run.events()) as events:
            async for event in events:
                text = event.text or event.refusal
                if streams and text:
                    notes.erase()
                    _write(out, text, run)
        out.end()
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not stop.exit_code:
            raise
        return stop.exit_code
    finally:
        notes.erase()
        with suppress(KeyboardInterrupt):  # of a signal that comes too late to cancel anything
            out.end_line()
        if goes_on:
            stop.end()
    assert run.answer is not None, "a call that raised nothing has an answer"
    return run.answer


def _write(out: Out, text: str, run: CallRun) -> None:
    try:
        out.write(text)
    except BrokenPipeError:
        run.exit_if_stopped = EXIT_PIPE
        raise
    except OutputFailed as error:
        run.exit_if_stopped = error.exit_code
        raise


class Stoppable(Protocol):
    """What can be stopped from outside: it is told with which exit code, before it is cancelled."""

    exit_if_stopped: int


class Stop:
    """SIGINT, SIGTERM, SIGHUP: the first cancels the call, the second leaves at once. What is ignored stays ignored.

    A write to a pipe that nobody empties would be taken up again after the signal (PEP 475), so there it raises. A
    signal also rings a bell that the loop listens to: between its last look for signals and its sleep one would else
    wait until something else wakes it.
    """

    def __init__(self, run: Stoppable | None, out: Out) -> None:
        """`run` is what is stopped, None for what `watch` will name."""
        self.exit_code = 0
        self._run = run
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        taken = [number for number in EXIT_STOPPED if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self) for number in taken}
        self._heard, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        self._loop.add_reader(self._heard, os.read, self._heard, 4096)

    def __call__(self, number: int, frame: object) -> None:  # noqa: ARG002 - a signal handler
        """Take a signal."""
        if self.exit_code:
            os._exit(self.exit_code)
        self.exit_code = EXIT_STOPPED[signal.Signals(number)]
        if self._run is not None:
            self.watch(self._run)
        if self._out.writing:
            raise KeyboardInterrupt
        assert self._task is not None, "signals are taken inside a task"
        self._loop.call_soon_threadsafe(self._task.cancel)

    def watch(self, run: Stoppable) -> None:
        """From now on it is `run` that is stopped."""
        self._run = run
        if self.exit_code:
            run.exit_if_stopped = self.exit_code

    def end(self) -> None:
        """Let signals do again what they did before: there is nothing left to cancel."""
        for number, handler in self._before.items():
            # The event loop's own handler would cancel what has ended, and say nothing.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else handler)
        signal.set_wakeup_fd(-1)
        self._loop.remove_reader(self._heard)
        for descriptor in (self._heard, self._bell):
            os.close(descriptor)
