"""Running one `embed`: texts in, vectors out as they come, notes to stderr; it stops as a call in `running` does."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llmctl.cli.notes import Notes
from llmctl.cli.output import Out, say
from llmctl.cli.running import EXIT_PIPE, Stop
from llmctl.cli.vectors import WRITERS, Lines, Target
from llmctl.client import Client
from llmctl.core.errors import LlmctlError, OutputFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmctl.cli.context import Context
    from llmctl.cli.texts import Item
    from llmctl.cli.vectors import Row, Writer
    from llmctl.run.embedding import EmbedRun

    Ids = deque[str | int]


def write_vectors(
    context: Context, items: Iterator[Item], options: dict[str, Any], shape: str, output: str | None, *, quiet: bool
) -> int:
    """The exit code of a run whose vectors have been written. Raises the error it ended in."""
    out = Out()
    if shape == "npy" and output is None and out.terminal:
        raise UsageError("a NumPy file is nothing for a terminal", hint="name a file with -o, or redirect stdout")
    notes = Notes(out, quiet=quiet, verbose=False)
    client = Client(context.config_flags or None, environ=context.environ, hooks=[notes])
    if client.teller is not None:
        client.teller.complain = notes.complain
    ids: Ids = deque()
    try:
        run = client.embedding(_noted(items, ids), **options)
        with Target(output, out) as target:
            code = asyncio.run(_run(run, ids, lambda: WRITERS[shape](target), notes, out))
    except LlmctlError as error:
        hint = error.hint.partition(" or try the embedded model")[0].rstrip(",;")
        error.hint = hint.replace(" with --fallback", " with -m")
        raise
    else:
        if run.tally.count and not (quiet or code):
            say(f"cache hit: {run.tally.count} of {run.done} vectors")
        return code
    finally:
        notes.end(client)


def _noted(items: Iterator[Item], ids: Ids) -> Iterator[str]:
    """The texts, whose ids are kept until their vectors have come: their own, else their number, from 0."""
    for n, (key, text) in enumerate(items):
        ids.append(n if key is None else key)
        yield text


async def _run(run: EmbedRun, ids: Ids, writing: Callable[[], Writer], notes: Notes, out: Out) -> int:
    stop = Stop(run, out)
    notes.watch()
    writer: Writer | None = None
    written = 0
    try:
        async with aclosing(run.vectors()) as several:
            async for vectors in several:
                notes.erase()
                writer = writer or writing()
                _add(writer, [(ids.popleft(), vector) for vector in vectors], run)
                written += len(vectors)
        (writer or writing()).end(run.result())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not stop.exit_code:
            raise
        return stop.exit_code
    except LlmctlError as error:
        if written and isinstance(writer, Lines):
            error.message += f" ({written} vectors were written before it)"
        raise
    finally:
        notes.erase()
    return 0


def _add(writer: Writer, rows: list[Row], run: EmbedRun) -> None:
    try:
        writer.add(rows)
    except BrokenPipeError:
        run.exit_if_stopped = EXIT_PIPE
        raise
    except (OSError, OutputFailed) as error:
        failed = error if isinstance(error, OutputFailed) else OutputFailed(f"the vectors cannot be written: {error}")
        run.exit_if_stopped = failed.exit_code
        raise failed from error
