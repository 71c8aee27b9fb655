"""One event loop in a thread of its own: how the synchronous face runs the asynchronous core.

It works the same in a script, inside a running event loop (a notebook), from several threads and after a fork.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from llmctl.core.errors import Cancelled
from llmctl.core.types import Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator


T = TypeVar("T")

_MOST_WAITING = 1024
CLEAN_UP_S = 5.0
"""How long an interrupted caller waits for the ledger row of its call to be completed."""


class BackgroundLoop:
    """One event loop in a daemon thread, started when it is first needed, ended with its owner or its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: weakref.finalize[..., Any] | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether the loop has been started, by this process: a forked child has no such thread."""
        return self._loop is not None and self._pid == os.getpid()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or not self.running:
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                thread = threading.Thread(target=_serve, args=(self._loop,), name="llmctl", daemon=True)
                thread.start()
                # A process that leaves in the middle of a call still completes the call's row.
                self._end = weakref.finalize(self, _end, self._loop, thread, self._pid)
            return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; an interrupt cancels it and waits until it has cleaned up."""
        ended = threading.Event()

        async def guarded() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(guarded(), self._started())
        try:
            return future.result()
        except FutureCancelled:
            raise _closed() from None
        except BaseException:
            future.cancel()
            ended.wait(CLEAN_UP_S)
            raise

    def iterate(self, events: AsyncGenerator[Event, None]) -> Iterator[Event]:
        """The events, pulled by the loop and handed over through a queue; leaving early cancels the call."""
        handed: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        ended = threading.Event()

        async def pull() -> None:
            try:
                async for event in events:
                    handed.put(event)
            except asyncio.CancelledError:
                handed.put(_closed())
                raise
            except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
                handed.put(error)
            finally:
                ended.set()
                handed.put(None)

        future = asyncio.run_coroutine_threadsafe(pull(), self._started())
        try:
            while (item := handed.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            future.cancel()
            ended.wait(CLEAN_UP_S)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, do `last`, and end the loop and its thread."""
        loop = self._started()

        async def wind_up() -> None:
            await _cancel_all()
            await last

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(wind_up(), loop).result(CLEAN_UP_S)
        if self._end is not None:
            self._end()
        self._loop = None


class Pulled:
    """Events pulled by a task of their own, so that whoever iterates may stop anywhere: then the call is cancelled.

    An async generator that is left by `break` is closed at the end of its loop together with the generators below it,
    and each of those complains that it is being closed already.
    """

    _task: asyncio.Task[None] | None = None

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        """Begins at once, so it needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._handed = _Handed()
        self._task = self._loop.create_task(_pull(events, self._handed))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            item = await self._handed.take()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if isinstance(item, Event):
            return item
        raise StopAsyncIteration if item is None else item

    async def aclose(self) -> None:
        """Cancel the call, and wait until its row is complete."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._handed.end(None)

    def __del__(self) -> None:
        if self._task is not None and not self._task.done():
            with suppress(RuntimeError):  # the loop has closed, and the task with it
                self._loop.call_soon_threadsafe(self._task.cancel)


class _Handed:
    """Events on their way between two tasks, at most `_MOST_WAITING` of them, and at last what ended them."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._ended = False
        self._end: BaseException | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def give(self, event: Event) -> None:
        """Hand over an event, when there is room."""
        while len(self._waiting) >= _MOST_WAITING:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(event)
        self._news.set()

    def end(self, error: BaseException | None) -> None:
        """Nothing more comes, because of `error` or well; the first word counts."""
        if not self._ended:
            self._ended, self._end = True, error
        self._news.set()

    async def take(self) -> Event | BaseException | None:
        """The next event; after the last one the error, once, and then None for ever."""
        while not self._waiting:
            if self._ended:
                error, self._end = self._end, None
                return error
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._waiting.popleft()


async def _pull(events: AsyncGenerator[Event, None], handed: _Handed) -> None:
    """Hand over every event, then what ended them."""
    try:
        async with aclosing(events):
            async for event in events:
                await handed.give(event)
    except asyncio.CancelledError:
        handed.end(_closed())
        raise
    except Exception as error:  # noqa: BLE001 - raised again where the events are awaited
        handed.end(error)
    else:
        handed.end(None)


async def unattended(work: Callable[[], T]) -> T:
    """What `work` gives, in a thread that is left behind when the caller is cancelled: nothing waits for its end."""
    result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_give, args=(work, result), name="llmctl-unattended", daemon=True).start()
    return await result


def _give(work: Callable[[], T], result: asyncio.Future[T]) -> None:
    """Hand over what `work` gives, or the error that came instead, to whoever still waits for it."""
    try:
        give = partial(result.set_result, work())
    except Exception as error:  # noqa: BLE001 - raised again where the result is awaited
        give = partial(result.set_exception, error)
    with suppress(RuntimeError):  # the loop has closed
        result.get_loop().call_soon_threadsafe(lambda: result.done() or give())


def _closed() -> Cancelled:
    return Cancelled("the client was closed during the call")


async def _cancel_all() -> None:
    """Cancel every other task of this loop, until there is none."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run `loop` until it is stopped, then leave nothing of it behind."""
    loop.run_forever()
    loop.run_until_complete(_cancel_all())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    """End `loop` and its thread; in a forked child there is neither."""
    if pid == os.getpid() and thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(CLEAN_UP_S)
