"""The real clock, which may run faster than the world: drills scale every wait and timeout by `speed`."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall and monotonic time, sleeping and timeouts on the running event loop."""

    def __init__(self, speed: float = 1.0) -> None:
        """At `speed` 50, `sleep(5)` takes 0.1 s, and `monotonic` says that 5 s have passed."""
        self.speed = speed
        self._wall = time.time()
        self._mono = time.monotonic()

    def now(self) -> float:
        """Unix seconds."""
        return time.time() if self.speed == 1.0 else self._wall + (time.monotonic() - self._mono) * self.speed

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock."""
        await asyncio.sleep(seconds / self.speed)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A context that cancels its body after `seconds` of this clock and raises TimeoutError."""
        return asyncio.timeout(seconds / self.speed)
