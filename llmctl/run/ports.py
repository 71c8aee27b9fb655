"""What the engine needs from the world, as small protocols, so that tests and drills can stand in for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from llmctl.core.budget import Budgets
    from llmctl.core.caching import Asked, Entry, Flight, Found, Tier, Vector
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.core.scope import Key
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


class Cache(Protocol):
    """Answers kept for equal requests. Nothing here raises for its own trouble: that is a miss, or is not kept.

    The methods block for milliseconds and may be called from any thread; times are Unix seconds, given by the caller.
    `warnings` collects what a person must hear, each thing once; `blocks` says whether the methods wait for a disk or a
    network, so that they are kept off an event loop.
    """

    warnings: list[str]
    blocks: bool

    def find(self, keys: Sequence[Key], tiers: Sequence[Tier], asked: Asked, now: float, ttl_s: float) -> Found | None:
        """The newest live entry (`core.caching.is_live`) under the first of `tiers` that has one for any of `keys`.

        One query a tier. A pair that was forbidden is passed over. A hit is counted and leaves an audit row, unless
        `asked` has no call's id: then it is only looked.
        """

    def put(self, entry: Entry, now: float) -> bool:
        """Keep `entry` instead of what stands under its exact key; whether it is kept. A forbidden one is not."""

    def claim(
        self,
        flight: bytes,
        keys: Sequence[Key],
        tiers: Sequence[Tier],
        asked: Asked,
        now: float,
        *,
        ttl_s: float,
        lease_s: float,
        since: float,
    ) -> Flight:
        """Take off for all who ask the same (`flight` says what that is), or learn who has: one step, in all processes.

        First looks as `find` does. A lease lasts `lease_s` unless it is renewed; an expired one is taken over by
        whoever claims next. `alone` once a leader has landed without an answer to share, at or after `since`.
        """

    def renew(self, flight: bytes, call_id: str, now: float, lease_s: float) -> None:
        """Hold on to the lease that `call_id` has."""

    def land(self, flight: bytes, call_id: str, now: float, *, gave_up: bool) -> None:
        """Let go of the lease that `call_id` has; `gave_up` tells those who wait that nothing will come."""

    def vectors(self, keys: Sequence[bytes], now: float) -> dict[bytes, Vector]:
        """The kept vectors of those of `keys` that have one."""

    def put_vectors(self, rows: Mapping[bytes, Vector], model: str, now: float) -> None:
        """Keep vectors that `model` (`provider/model`) made."""


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
