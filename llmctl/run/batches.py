"""Texts in batches for one request each: read from a list at once or in a thread, piled up, cut by number and size."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.tokens import estimate
from llmctl.run.background import unattended

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from llmctl.run.vector_cache import Kept

    Texts = tuple[str, ...]
    Batch = list["Place"]

_ESTIMATED_CHARS = 1 << 20  # what is longer fills any batch
_READ_CHARS = 1 << 20


@dataclass(slots=True, eq=False)
class Place:
    """A text, and its vector once there is one; `kept` where that is from the cache. `tokens` are estimated."""

    text: str
    vector: array[float] | None = None
    kept: Kept | None = None
    tokens: int = 0


class Pile:
    """Places that are to be asked, in their order: at most `most` in a batch, and at most about `most_tokens`.

    A text that is longer is a batch by itself.
    """

    def __init__(self, most: int, most_tokens: int) -> None:
        self._most = most
        self._most_tokens = most_tokens
        self._whole: deque[Batch] = deque()
        self._rest: Batch = []
        self._tokens = 0

    def __len__(self) -> int:
        """How many batches there are, a part of one counted too."""
        return len(self._whole) + bool(self._rest)

    def add(self, place: Place) -> None:
        """Put `place` behind the others."""
        place.tokens = estimate(place.text[:_ESTIMATED_CHARS])
        if self._rest and self._tokens + place.tokens > self._most_tokens:
            self._cut()
        self._rest.append(place)
        self._tokens += place.tokens
        if len(self._rest) == self._most:  # at once: the next text may be long in coming, or be none
            self._cut()

    def take(self, *, rest: bool) -> Batch:
        """The next batch that is full, with `rest` also one that is not; empty where there is none."""
        if rest and self._rest and not self._whole:
            self._cut()
        return self._whole.popleft() if self._whole else []

    def _cut(self) -> None:
        self._whole.append(self._rest)
        self._rest, self._tokens = [], 0


def windows(texts: Iterable[str], most: int) -> Iterator[Texts]:
    """The texts in their order, at most `most` together, fewer where they are long. Raises UsageError."""
    window: list[str] = []
    chars = 0
    for n, given in enumerate(texts):
        window.append(checked(given, n))
        chars += len(given)
        if len(window) == most or chars > _READ_CHARS:
            yield tuple(window)
            window, chars = [], 0
    if window:
        yield tuple(window)


def checked(text: Any, n: int) -> str:
    """`text`, number `n` of them, if it can be embedded. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"texts[{n}] is {type(text).__name__}, not text", hint="every text is a str")
    if not text:
        raise UsageError(f"texts[{n}] is empty", hint="providers refuse an empty text: leave it out")
    return text


async def at_once(texts: Iterator[Texts]) -> AsyncGenerator[Texts, None]:
    """The windows of what is in memory."""
    for window in texts:
        yield window


async def in_thread(texts: Iterator[Texts]) -> AsyncGenerator[Texts, None]:
    """The windows of what may block. A thread that still waits for a text when the run is stopped is left behind."""
    while (window := await unattended(lambda: next(texts, None))) is not None:
        yield window
