"""Texts in batches for one request each: cut by number and size, taken from a list at once or read in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.tokens import estimate
from llmctl.run.background import unattended

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    Texts = tuple[str, ...]

_ESTIMATED_CHARS = 1 << 20  # what is longer fills any batch


def batches(texts: Iterable[str], most: int, most_tokens: int) -> Iterator[Texts]:
    """The texts in their order, at most `most` together, and at most about `most_tokens`. Raises UsageError.

    A text that is longer is a batch by itself.
    """
    batch: list[str] = []
    tokens = 0
    for n, given in enumerate(texts):
        text = checked(given, n)
        size = estimate(text[:_ESTIMATED_CHARS])
        if batch and tokens + size > most_tokens:
            yield tuple(batch)
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
        if len(batch) == most:  # at once: the next text may be long in coming, or be none
            yield tuple(batch)
            batch, tokens = [], 0
    if batch:
        yield tuple(batch)


def checked(text: Any, n: int) -> str:
    """`text`, number `n` of them, if it can be embedded. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"texts[{n}] is {type(text).__name__}, not text", hint="every text is a str")
    if not text:
        raise UsageError(f"texts[{n}] is empty", hint="providers refuse an empty text: leave it out")
    return text


async def at_once(texts: Iterator[Texts]) -> AsyncGenerator[Texts, None]:
    """The batches of what is in memory."""
    for batch in texts:
        yield batch


async def in_thread(texts: Iterator[Texts]) -> AsyncGenerator[Texts, None]:
    """The batches of what may block. A thread that still waits for a text when the run is stopped is left behind."""
    while (batch := await unattended(lambda: next(texts, None))) is not None:
        yield batch
