"""What the engine needs from the world, as small protocols, so that tests and drills can stand in for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager

    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.wire.base import HttpRequest


class Clock(Protocol):
    """Time. All durations are seconds."""

    def now(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that cancels its body after `seconds` and raises TimeoutError."""


class Response(Protocol):
    """An HTTP response whose headers have arrived. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The decoded body as it arrives. Raises ConnectionFailed, or BadResponse over a cap."""


class Transport(Protocol):
    """Sends one HTTP request. The caller holds the clocks for everything but `connect_s`."""

    def send(
        self, request: HttpRequest, deployment: Deployment, *, connect_s: float
    ) -> AbstractAsyncContextManager[Response]:
        """The response, closed at the end of the context. Raises ConnectionFailed or TimedOut (connect)."""

    async def aclose(self) -> None:
        """Let go of everything held open."""


class Ledger(Protocol):
    """Durable calls. Neither method raises when the ledger cannot be written: the row is spooled, one warning given."""

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Write the row before the first byte leaves; `prompt` None keeps no text."""

    async def complete(self, record: CallRecord, attempts: tuple[Attempt, ...], answer: str | None) -> None:
        """Complete the row at the end of the call, whatever the end is."""
