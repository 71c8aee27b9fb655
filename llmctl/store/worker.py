"""One daemon thread that does a store's work in order, so that no event loop ever waits for a disk.

Plain thread and queue: `concurrent.futures` would cost a start-up what the whole ledger write takes. Jobs run first in,
first out, and a job once given is done even if nobody waits for it any more (a cancelled call is still recorded),
unless it has a `turn`: a lock that whoever is first takes, the job before it does anything or the caller who gives up.
Nothing crosses a fork: a child that calls gets a thread of its own.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Outcome = tuple[Any, BaseException | None]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Lane:
    """The queue of one process; `unstarted` is taken once, by whoever starts its thread."""

    jobs: SimpleQueue[Callable[[], object] | None] = field(default_factory=SimpleQueue)
    unstarted: threading.Lock = field(default_factory=threading.Lock)


def _outcome(work: Callable[[], Any]) -> Outcome:
    """What `work()` returned, or the error it raised."""
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - carried to whoever asked, and raised there
        return None, error


class Worker:
    """A thread, begun with the first job. `holds` lives as long as the thread does: while the process, unless closed.

    What a daemon thread holds is never finalised, so a connection in `holds` is not closed (with a checkpoint and two
    fsyncs) only because a short-lived process leaves.
    """

    def __init__(self, name: str, holds: object = None) -> None:
        """`name` is the thread's name."""
        self._name = name
        self._holds = holds
        self._lanes: dict[int, _Lane] = {}

    @property
    def waiting(self) -> bool:
        """Whether a job waits behind the one that runs now."""
        lane = self._lanes.get(os.getpid())
        return lane is not None and not lane.jobs.empty()

    def call(self, work: Callable[[], T], *, deadline: float | None = None, turn: threading.Lock | None = None) -> T:
        """What `work()` returns or raises, waited for by a thread that has no event loop.

        Raises TimeoutError at `deadline` (monotonic seconds) when it could take `turn`.
        """
        outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._give(lambda: outcomes.put(_outcome(work)))
        try:
            value, error = outcomes.get(timeout=_left(deadline))
        except Empty:
            if _gave_up(turn):
                raise TimeoutError from None
            value, error = outcomes.get()
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    async def run(
        self,
        work: Callable[[], T],
        *,
        to_the_end: bool = False,
        deadline: float | None = None,
        turn: threading.Lock | None = None,
    ) -> T:
        """What `work()` returns or raises, awaited from any event loop. Cancelling the wait does not stop begun work.

        `to_the_end` lets the first cancellation wait for it too, because whoever cancels may be about to leave.
        Raises TimeoutError at `deadline` (monotonic seconds) when it could take `turn`.
        """
        from asyncio import CancelledError, get_running_loop, shield, wait

        loop = get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            outcome = _outcome(work)
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, outcome)

        self._give(job)
        try:
            await wait((future,), timeout=_left(deadline))
            if future.done() or not _gave_up(turn):
                return await shield(future)
        except CancelledError:
            if to_the_end:
                await wait((future,), timeout=_left(deadline))
            if not _gave_up(turn) and to_the_end:
                await wait((future,))
            raise
        finally:
            if not future.cancel():
                future.exception()  # nobody may be left to hear of it
        raise TimeoutError

    def close(self) -> None:
        """Finish the jobs given so far and end the thread; a later job begins a new one."""
        lane = self._lanes.pop(os.getpid(), None)
        if lane is None or lane.unstarted.acquire(blocking=False):
            return
        done: SimpleQueue[Any] = SimpleQueue()
        lane.jobs.put(lambda: done.put(None))
        lane.jobs.put(None)
        done.get()

    def _give(self, job: Callable[[], object]) -> None:
        pid = os.getpid()
        lane = self._lanes.get(pid)
        if lane is None:
            lane = self._lanes.setdefault(pid, _Lane())
        lane.jobs.put(job)
        if lane.unstarted.acquire(blocking=False):
            threading.Thread(target=_work, args=(lane, self._holds), name=self._name, daemon=True).start()


def _left(deadline: float | None) -> float | None:
    """The seconds until `deadline`."""
    return None if deadline is None else max(0.0, deadline - monotonic())


def _gave_up(turn: threading.Lock | None) -> bool:
    """Whether the caller was first to take `turn`, so that the job will do nothing."""
    return turn is not None and turn.acquire(blocking=False)


def _work(lane: _Lane, _holds: object) -> None:
    while (job := lane.jobs.get()) is not None:
        job()
        del job


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():  # cancelled meanwhile
        return
    value, error = outcome
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
