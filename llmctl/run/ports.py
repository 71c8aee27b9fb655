"""What the engine needs from the world, as small protocols, so that tests and drills can stand in for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from llmctl.core.budget import Budgets
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.wire.base import HttpRequest

T = TypeVar("T")


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
    """Durable calls. A row that cannot be written is spooled with one warning; only `reserve` raises for it."""

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Write the row before the first byte leaves; `prompt` None keeps no text."""

    async def reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str = "") -> None:
        """Take `nanousd` for a call of every allowance of `budgets`, instead of what it had taken before.

        It is given back when the row is complete, or after its deadline. Raises BudgetExceeded where an allowance that
        refuses has not so much left, and LedgerUnusable where one does and nothing can be written. `unpriced` is who is
        asked next although nobody knows the price, where that is to be said.
        """

    async def complete(self, record: CallRecord, attempts: tuple[Attempt, ...], answer: str | None) -> None:
        """Complete the row at the end of the call, whatever the end is."""


class State(Protocol):
    """What all calls of one user share, in all processes: small JSON documents, changed one step at a time."""

    async def update(
        self, keys: Sequence[str], work: Callable[[dict[str, Any]], T], *, wait_s: float = 5.0, to_the_end: bool = False
    ) -> T:
        """What `work(documents)` returns: the known documents of `keys`, which nobody else changes meanwhile.

        What `work` leaves in them (changed, added, popped) is kept. It runs once, perhaps on another thread, and must
        be quick. `to_the_end` lets it finish even when the wait is cancelled. Raises StateUnusable when it cannot be
        done within `wait_s`: then nothing was kept, though `work` may have run.
        """
