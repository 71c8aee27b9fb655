"""The events of one call as the library hands them out: for `async for`, and for a plain `for`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from llmctl.run.background import BackgroundLoop, Pulled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmctl.core.record import Answer
    from llmctl.core.types import Event
    from llmctl.run.engine import CallRun


class AsyncStream:
    """The events of one call, for `async for`; leaving early cancels it. `answer` is set when they have ended well."""

    def __init__(self, run: CallRun) -> None:
        self._run = run
        self._pulled: Pulled | None = None

    @property
    def answer(self) -> Answer | None:
        """The answer, once the events have ended."""
        return self._run.answer

    def __aiter__(self) -> AsyncIterator[Event]:
        self._pulled = Pulled(self._run.events())
        return self._pulled

    async def aclose(self) -> None:
        """Cancel the call if it still runs, and wait until its row is complete."""
        if self._pulled is not None:
            await self._pulled.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class Stream:
    """The events of one call, for a plain `for`; `answer` is set when they have ended well."""

    def __init__(self, run: CallRun, loop: BackgroundLoop) -> None:
        self._run = run
        self._loop = loop

    @property
    def answer(self) -> Answer | None:
        """The answer, once the events have ended."""
        return self._run.answer

    def __iter__(self) -> Iterator[Event]:
        return self._loop.iterate(self._run.events())
