"""Running one call for a person or a pipe: the answer to stdout as it comes, notes to stderr, and how it all stops.

Ctrl-C, SIGTERM, a closed terminal and a stdout that fails cancel the call: its row says `cancelled`, with the exit code
of the cause.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llmctl.cli.fetching import offer
from llmctl.cli.notes import Notes
from llmctl.cli.output import Out, print_json, say
from llmctl.client import Client
from llmctl.core.errors import AnswerIncomplete, OutputFailed

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.cli.tracing import Trace
    from llmctl.core.record import Answer
    from llmctl.run.engine import CallRun
    from llmctl.run.observe import Hook

EXIT_PIPE = 141
EXIT_STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Show(NamedTuple):
    """How an answer is shown."""

    streams: bool
    as_json: bool
    quiet: bool
    verbose: bool
    explain: bool = False
    trace: str | None = None


def answer(context: Context, message: str | None, options: dict[str, Any], show: Show) -> int:
    """The exit code of one call whose answer has been written. Raises the error the call ended in."""
    if show.trace is None:
        return _answer(context, message, options, show, None)
    from llmctl.cli.tracing import Trace

    trace = Trace(show.trace, options["strategy"])
    try:
        with trace:
            return _answer(context, message, options, show, trace)
    finally:
        if trace.failure and not show.quiet:
            say(f"warning: {trace.failure}")


def _answer(context: Context, message: str | None, options: dict[str, Any], show: Show, trace: Trace | None) -> int:
    out = Out()
    notes = Notes(out, quiet=show.quiet, verbose=show.verbose)
    if show.explain:
        from llmctl.cli.explaining import Explained

        notes.explained = Explained(options["strategy"])
    hooks: list[Hook] = [notes] if trace is None else [notes, trace]
    client = Client(context.config_flags or None, environ=context.environ, hooks=hooks)
    if client.teller is not None:
        client.teller.complain = notes.complain
    if options["model"] is None:
        options["model"] = name = client.default_model
        notes.chosen(name, configured=bool(client.catalog.default_model))
    run = client.call(message, buffered=not show.streams, **options)
    if not show.as_json:
        offer(context, run.ask.plan)
    try:
        return asyncio.run(_run(run, show, notes, out))
    finally:
        notes.end(client)


async def _run(run: CallRun, show: Show, notes: Notes, out: Out) -> int:
    stop = Stop(run, out)
    notes.watch()
    try:
        async with aclosing(run.events()) as events:
            async for event in events:
                text = event.text or event.refusal
                if show.streams and text:
                    notes.erase()
                    _write(out, text, run)
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not stop.exit_code:
            raise
        return stop.exit_code
    finally:
        notes.erase()
        out.end_line()
    assert run.answer is not None, "a call that raised nothing has an answer"
    return _shown(run.answer, show, notes, out)


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
        for number in EXIT_STOPPED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        heard, bell = os.pipe()
        os.set_blocking(bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        self._loop.add_reader(heard, os.read, heard, 4096)

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
        """Let signals do again what they do to any process: there is nothing left to cancel."""
        for number in EXIT_STOPPED:
            if signal.getsignal(number) is self:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _shown(answer: Answer, show: Show, notes: Notes, out: Out) -> int:
    """Write what was held back until the end; the exit code of the answer."""
    if show.as_json:
        document = answer.as_json()
        if notes.explained is not None:
            document["route"]["candidates"] = [each.as_json() for each in notes.explained.candidates]
        print_json(document)
        return answer.record.exit_code or 0
    if not show.streams:
        out.write(answer.text)
        out.end_line()
    if answer.record.exit_code:
        by = "the length limit" if answer.finish_reason == "length" else "something other than a stop"
        raise AnswerIncomplete(
            f"{answer.served_by}: the answer is incomplete: it was ended by {by}",
            hint="allow more with --max-tokens" if answer.finish_reason == "length" else "",
        )
    notes.whole(answer)
    return 0
