"""The real clock, and how it runs faster than the world for drills."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmctl.run.clock import SystemClock


def test_real_clock_is_the_worlds() -> None:
    clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=0.5)


def test_fast_clock_counts_more_seconds_than_pass() -> None:
    async def run() -> tuple[float, float, float]:
        clock = SystemClock(speed=1000)
        began, wall, real = clock.monotonic(), clock.now(), time.monotonic()
        await clock.sleep(20)
        return clock.monotonic() - began, clock.now() - wall, time.monotonic() - real

    mono, wall, real = asyncio.run(run())
    assert mono >= 20
    assert wall == pytest.approx(mono, abs=5)
    assert real < 2


def test_fast_clock_begins_at_the_worlds_time() -> None:
    assert SystemClock(speed=50).now() == pytest.approx(time.time(), abs=60)


def test_timeout_strikes_in_seconds_of_the_clock() -> None:
    async def run() -> float:
        clock = SystemClock(speed=1000)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with clock.timeout(20):
                await asyncio.Event().wait()
        return time.monotonic() - began

    assert asyncio.run(run()) < 2


def test_timeout_that_has_passed_strikes_at_the_first_wait() -> None:
    async def run() -> str:
        async with SystemClock().timeout(-1):
            reached = "work that does not wait is done"
        with pytest.raises(TimeoutError):
            async with SystemClock().timeout(-1):
                await asyncio.sleep(60)
        return reached

    assert asyncio.run(run())
