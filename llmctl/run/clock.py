"""The real clocks: that of the world, and that of a drill, which runs faster than the world.

A drill's clock keeps to the world's pace while something real is waited for, so that a real provider has the time that
it has in production; sleeps and timeouts that are under way follow the change. It never runs past the instant that
somebody waits for: that a timer of this machine strikes a millisecond late is no time of the drill.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING

from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator


class SystemClock:
    """Wall and monotonic time, sleeping and timeouts in the seconds of the running event loop."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        import asyncio  # not for those who never wait: a start that finds its answer in the cache

        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A context that cancels its body after `seconds` and raises TimeoutError."""
        import asyncio

        return asyncio.timeout(seconds)


class DrillClock:
    """A clock that runs `speed` times as fast as the world, except inside `real()`.

    It can be read from anywhere; all that waits on it must run on one event loop.
    """

    def __init__(self, speed: float) -> None:
        """At `speed` 50, `sleep(5)` takes 0.1 s, and `monotonic` says that 5 s have passed. Raises UsageError."""
        if not 0 < speed < inf:
            raise UsageError(f"a clock cannot run at {speed} times the world's pace", hint="give a number above 0")
        self.speed = speed
        self._began = time.time()
        self._mark = (0.0, time.monotonic(), speed)
        """Its time, and that of the world, when the pace last changed; and the pace. Replaced as one."""
        self._in_real = 0
        self._waiting: dict[asyncio.Timeout, float] = {}

    def now(self) -> float:
        """Unix seconds: the world's when the clock was made, and its own from then on."""
        return self._began + self.monotonic()

    def monotonic(self) -> float:
        """Its seconds since it was made."""
        passed, since, pace = self._mark
        return min(passed + (time.monotonic() - since) * pace, *self._waiting.values(), inf)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock."""
        import asyncio

        with suppress(TimeoutError):
            async with self.timeout(seconds):
                await asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """A context that cancels its body after `seconds` of this clock and raises TimeoutError."""
        import asyncio

        async with asyncio.timeout(None) as timeout:
            self._waiting[timeout] = self.monotonic() + max(0.0, seconds)
            self._set(timeout)
            try:
                yield timeout
            finally:
                self._mark_now()
                del self._waiting[timeout]
                for other in self._waiting:
                    self._set(other)

    @contextmanager
    def real(self) -> Iterator[None]:
        """A context in which time passes as in the world; several may overlap."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, more: int) -> None:
        self._in_real += more
        self._mark_now()
        for timeout in self._waiting:
            self._set(timeout)

    def _mark_now(self) -> None:
        self._mark = (self.monotonic(), time.monotonic(), 1.0 if self._in_real else self.speed)

    def _set(self, timeout: asyncio.Timeout) -> None:
        """Let `timeout` strike when its time has come at the pace of now; one that has struck is left alone."""
        if not timeout.expired():
            import asyncio

            left_s = (self._waiting[timeout] - self.monotonic()) / self._mark[2]
            timeout.reschedule(asyncio.get_running_loop().time() + left_s)
