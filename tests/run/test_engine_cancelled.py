"""A call cancelled at every step of its event loop, once and again: nothing stays reserved, and its row is complete."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.testing import MemoryLedger, MemoryState, Reply, ScriptedTransport, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence


class Late:
    """Does one piece of work after another, each a step of the loop after it was asked for, as a store's thread does.

    What has begun is done even when nobody waits for it any more, and all that is asked for `to_the_end`.
    """

    def __init__(self) -> None:
        self._busy = asyncio.Lock()

    async def do(self, work: Coroutine[Any, Any, Any], *, to_the_end: bool = False) -> Any:
        begun = given_up = False

        async def job() -> Any:
            nonlocal begun
            async with self._busy:
                await asyncio.sleep(0)
                if given_up:
                    work.close()
                    return None
                begun = True
                return await work

        task = asyncio.create_task(job())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if to_the_end:
                await asyncio.wait({task})
            elif not begun:
                given_up = True
            raise


class LateState(MemoryState):
    def __init__(self) -> None:
        super().__init__(strict=True)
        self._late = Late()

    async def update(self, keys: Sequence[str], work: Any, *, wait_s: float = 5.0, to_the_end: bool = False) -> Any:
        return await self._late.do(super().update(keys, work, wait_s=wait_s), to_the_end=to_the_end)


class LateLedger(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self._late = Late()

    async def begin(self, *row: Any) -> None:
        await self._late.do(super().begin(*row), to_the_end=True)

    async def complete(self, *row: Any) -> None:
        await self._late.do(super().complete(*row), to_the_end=True)


class Stopper:
    """Cancels a task at its loop's steps `at`, counted from when it is given the task."""

    def __init__(self, at: Sequence[int]) -> None:
        self._at = at
        self.steps = 0

    async def watch(self, task: asyncio.Task[Any]) -> None:
        loop: Any = asyncio.get_running_loop()
        run_once = loop._run_once

        def step() -> None:
            if not task.done():
                self.steps += 1
                if self.steps in self._at:
                    task.cancel()
            run_once()

        loop._run_once = step
        await asyncio.wait({task})


ONE: dict[str, Any] = {"m": {"deployments": [{"model": "openai/a", "rpm": 1, "max_parallel": 2}]}}
TWO: dict[str, Any] = {"m": {"model": "openai/a", "fallbacks": ["n"]}, "n": {"model": "groq/b"}}
OK = Reply.stream("Hel", "lo", delay_s=0.3, gap_s=0.1)
LATER = Reply.refusal(429, headers={"retry-after": "2"})


def ends(
    at: Sequence[int], models: dict[str, Any], replies: Sequence[Reply], before: int, options: dict[str, Any]
) -> int:
    """The steps of a call that was cancelled at those of `at`, once all that it leaves was looked at."""
    transport, stopper = ScriptedTransport(*replies), Stopper(at)

    async def work() -> None:
        state, ledger = LateState(), LateLedger()
        client = Client(
            {"models": models}, environ={"OPENAI_API_KEY": "k", "GROQ_API_KEY": "g"}, transport=transport,
            ledger=ledger, state=state, clock=VirtualClock(), rng=random.Random(1),
        )  # fmt: skip
        for _ in range(before):
            await client.acomplete("hi", model="m")
        task = asyncio.create_task(client.call("hi", model="m", **options).whole())
        await stopper.watch(task)
        assert task.cancelled() or task.exception() or task.result()
        for _ in range(12):  # what was cancelled twice is done a moment later
            await asyncio.sleep(0)
        assert not any(document.get("open") for document in state.documents.values()), "something is still reserved"
        assert ledger.states.count("started") == len(ledger.rows)
        assert len(ledger.states) == 2 * len(ledger.rows), "a row is not complete"
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert transport.open == 0

    run_virtual(work())
    return stopper.steps


def moments(steps: int) -> Iterator[tuple[int, ...]]:
    for first in range(1, steps + 1):
        yield from ((first,), (first, first + 1), (first, first + 3), tuple(range(first, first + 30)))


@pytest.mark.parametrize(
    ("models", "replies", "before", "options"),
    [
        (ONE, (OK,), 0, {}),
        (ONE, (OK,), 0, {"buffered": True}),
        (ONE, (OK,), 1, {}),
        (ONE, (OK,), 1, {"max_wait": 1}),
        (TWO, (Reply.refusal(503), LATER, OK), 0, {}),
        (TWO, (Reply.refusal(401), LATER), 0, {"retries": 0}),
    ],
    ids=["answered", "buffered", "waits", "refused", "retried", "failed"],
)
def test_cancelled_at_any_step_a_call_leaves_nothing_reserved_and_a_complete_row(
    models: dict[str, Any], replies: Sequence[Reply], before: int, options: dict[str, Any]
) -> None:
    steps = ends((), models, replies, before, options)
    assert steps > 10
    for at in moments(steps):
        ends(at, models, replies, before, options)
