"""One answer for a person or a pipe: from the cache at once, else by a call; the answer to stdout, notes to stderr.

An answer that is kept is found, booked and written without an event loop: most of a cold start is imports.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.cli.colour import markdown
from llmctl.cli.notes import Notes
from llmctl.cli.output import Out, print_json, say
from llmctl.client import Client
from llmctl.core.errors import AnswerIncomplete

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.cli.sessions import Going
    from llmctl.cli.tracing import Trace
    from llmctl.core.record import Answer
    from llmctl.run.observe import Hook


class Show(NamedTuple):
    """How an answer is shown."""

    streams: bool
    as_json: bool
    quiet: bool
    verbose: bool
    explain: bool = False
    trace: str | None = None
    going: Going | None = None
    """The session that the call is a turn of."""
    render: bool | None = None
    color: str = "auto"
    extract: bool = False
    copy: bool = False


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
    out = Out(markdown(sys.stdout, os.environ, show.color, render=show.render))
    notes = Notes(out, quiet=show.quiet, verbose=show.verbose, color=show.color)
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
    options["buffered"] = not show.streams
    ask = client.ask(message, **options) if show.going is None else show.going.ask(client, options)
    try:
        kept = client.recalled(ask)
        if kept is not None:
            return shown(kept, show._replace(streams=False), notes, out)
        import asyncio

        from llmctl.cli.fetching import offer
        from llmctl.cli.running import run_to_end

        if not show.as_json:
            offer(context, ask.plan)
        run = client.engine.call(ask)
        notes.uncached(run.uncached if ask.cache.mode != "off" else "")
        made = asyncio.run(run_to_end(run, notes, out, streams=show.streams))
        return made if isinstance(made, int) else shown(made, show, notes, out)
    finally:
        notes.end(client)


def shown(answer: Answer, show: Show, notes: Notes, out: Out) -> int:
    """Write what was held back until the end; the exit code of the answer."""
    session = show.going.keep(answer) if show.going is not None else {}
    if show.as_json:
        document = answer.as_json()
        if notes.explained is not None:
            document["route"]["candidates"] = [each.as_json() for each in notes.explained.candidates]
        print_json(document | session)
        if show.copy and not answer.record.exit_code:
            _copy(answer.text, notes)
        return answer.record.exit_code or 0
    text = _taken(answer.text, notes) if show.extract else answer.text
    if not show.streams:
        out.write(text)
        out.end()
        out.end_line()
    if answer.record.exit_code:
        by = "the length limit" if answer.finish_reason == "length" else "something other than a stop"
        raise AnswerIncomplete(
            f"{answer.served_by}: the answer is incomplete: it was ended by {by}",
            hint="allow more with --max-tokens" if answer.finish_reason == "length" else "",
        )
    notes.whole(answer)
    if show.copy:
        _copy(text, notes)
    return 0


def _taken(text: str, notes: Notes) -> str:
    from llmctl.cli.marks import code_block

    code = code_block(text)
    if code is None:
        notes.remark("the answer has no code block: this is all of it")
    return text if code is None else code


def _copy(text: str, notes: Notes) -> None:
    from llmctl.cli.clipboard import copy

    done, said = copy(text)
    if said:
        notes.remark(said if done else f"warning: the answer was not copied: {said}")
