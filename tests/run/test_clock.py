"""The clock of the world, and the drill's, which runs faster except while something real is waited for."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest

from llmctl.core.errors import UsageError
from llmctl.run.clock import DrillClock, SystemClock

FAST = 1000.0
NEARLY = 0.999
"""A loop wakes up a nanosecond early, which is a microsecond of a fast clock."""


def test_real_clock_is_the_worlds() -> None:
    clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=0.5)


def test_real_clock_sleeps_and_strikes_in_seconds_of_the_world() -> None:
    async def run() -> float:
        clock = SystemClock()
        began = time.monotonic()
        await clock.sleep(0.02)
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.02):
                await asyncio.Event().wait()
        return time.monotonic() - began

    assert asyncio.run(run()) >= 0.04 * NEARLY


def test_fast_clock_counts_more_seconds_than_pass() -> None:
    async def run() -> tuple[float, float, float]:
        clock = DrillClock(FAST)
        real, mono, wall = time.monotonic(), clock.monotonic(), clock.now()
        await clock.sleep(20)
        return clock.now() - wall, clock.monotonic() - mono, time.monotonic() - real

    wall, mono, real = asyncio.run(run())
    assert 20 * NEARLY <= wall <= mono / NEARLY
    assert real < mono


def test_fast_clock_begins_at_the_worlds_time() -> None:
    assert DrillClock(50).now() == pytest.approx(time.time(), abs=60)


def test_fast_clock_is_read_without_an_event_loop() -> None:
    clock = DrillClock(FAST)
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
    with clock.real():
        pass
    assert clock.monotonic() >= readings[-1]


def test_timeout_strikes_in_seconds_of_the_clock() -> None:
    async def run() -> tuple[float, float]:
        clock = DrillClock(FAST)
        real, began = time.monotonic(), clock.monotonic()
        with pytest.raises(TimeoutError):
            async with clock.timeout(20):
                await asyncio.Event().wait()
        return time.monotonic() - real, clock.monotonic() - began

    real, passed = asyncio.run(run())
    assert 0.02 * NEARLY <= real < 20 * NEARLY <= passed


@pytest.mark.parametrize("clock", [SystemClock(), DrillClock(FAST)])
def test_timeout_that_has_passed_strikes_at_the_first_wait(clock: SystemClock | DrillClock) -> None:
    async def run() -> str:
        async with clock.timeout(-1):
            reached = "work that does not wait is done"
        with pytest.raises(TimeoutError):
            async with clock.timeout(-1):
                await asyncio.sleep(60)
        return reached

    assert asyncio.run(run())


def test_timeout_that_has_passed_does_not_turn_the_clock_back() -> None:
    async def run() -> list[float]:
        clock = DrillClock(FAST)
        before = clock.monotonic()
        async with clock.timeout(-60):
            return [before, clock.monotonic()]

    assert (read := asyncio.run(run())) == sorted(read)


def test_sleep_of_no_time_lets_others_run() -> None:
    async def run() -> list[str]:
        done: list[str] = []
        asyncio.get_running_loop().call_soon(done.append, "other")
        await DrillClock(FAST).sleep(0)
        return done

    assert asyncio.run(run()) == ["other"]


def test_time_passes_as_in_the_world_while_something_real_is_waited_for() -> None:
    async def run() -> None:
        clock = DrillClock(FAST)
        with clock.real():
            world, began = time.monotonic(), clock.monotonic()
            await clock.sleep(0.05)
            passed = clock.monotonic() - began
            assert 0.05 * NEARLY <= passed <= (time.monotonic() - world) / NEARLY
        assert clock.monotonic() >= began + passed

    asyncio.run(run())


@pytest.mark.parametrize("waits_by", ["sleep", "timeout"])
def test_wait_under_way_slows_down_and_speeds_up_with_the_clock(waits_by: str) -> None:
    """What would take a minute at the world's pace ends soon after the real wait; what would end at once does not."""

    async def wait(clock: DrillClock) -> float:
        if waits_by == "sleep":
            await clock.sleep(200)
        else:
            with pytest.raises(TimeoutError):
                async with clock.timeout(200):
                    await asyncio.Event().wait()
        return clock.monotonic()

    async def run() -> None:
        clock = DrillClock(FAST)
        waiting = asyncio.create_task(wait(clock))
        await asyncio.sleep(0)
        with clock.real():
            await asyncio.sleep(0.25)  # longer than the wait takes at the fast pace
            assert not waiting.done()
        async with asyncio.timeout(20):
            assert await waiting >= 200 * NEARLY

    asyncio.run(run())


def test_real_waits_of_several_tasks_overlap() -> None:
    async def run() -> None:
        clock = DrillClock(FAST)
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(clock.real())
            second.enter_context(clock.real())
            first.close()
            world, began = time.monotonic(), clock.monotonic()
            await asyncio.sleep(0.02)
            assert clock.monotonic() - began <= (time.monotonic() - world) / NEARLY
        await asyncio.sleep(0.02)
        assert clock.monotonic() - began >= 20 * NEARLY

    asyncio.run(run())


def test_change_of_pace_leaves_a_timeout_alone_that_has_struck() -> None:
    async def outlast(clock: DrillClock) -> None:
        async with clock.timeout(1):
            try:
                await asyncio.Event().wait()
            finally:
                with clock.real():
                    ended.append("in peace")

    ended: list[str] = []
    with pytest.raises(TimeoutError):
        asyncio.run(outlast(DrillClock(FAST)))
    assert ended == ["in peace"]


def test_error_of_the_body_comes_out_and_nothing_is_remembered() -> None:
    async def fail(clock: DrillClock) -> None:
        async with clock.timeout(60):
            raise ValueError("its own")

    async def run() -> None:
        clock = DrillClock(FAST)
        with pytest.raises(ValueError, match="own"):
            await fail(clock)
        sleeping = asyncio.create_task(clock.sleep(1e6))
        await asyncio.sleep(0)
        assert len(clock._waiting) == 1
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert not clock._waiting

    asyncio.run(run())


def test_the_clock_never_runs_past_an_instant_that_somebody_waits_for() -> None:
    """However late this machine is: here it is late by 0.05 s, which would be 50 s of the drill."""

    async def run() -> None:
        async def sleep() -> float:
            await clock.sleep(10)
            return clock.monotonic()

        clock = DrillClock(1000)
        sleeping = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        began = clock.monotonic()
        time.sleep(0.05)
        assert clock.monotonic() <= began + 10
        assert began + 10 * NEARLY <= await sleeping < began + 30

    asyncio.run(run())


def test_a_wait_that_was_late_does_not_make_the_next_one_early() -> None:
    async def run() -> None:
        clock = DrillClock(100)
        longer = asyncio.create_task(clock.sleep(20))
        shorter = asyncio.create_task(clock.sleep(10))
        await asyncio.sleep(0)
        began = clock.monotonic()
        time.sleep(0.15)
        await shorter
        assert not longer.done() or clock.monotonic() >= began + 20 * NEARLY
        await longer
        assert clock.monotonic() >= began + 20 * NEARLY

    asyncio.run(run())


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clock_that_stands_still_or_cannot_be_read_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="pace"):
        DrillClock(speed)
