"""The doubles do what they say, so that tests which rest on them mean something."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import ConnectionFailed
from llmctl.core.record import CallRecord
from llmctl.testing import EPOCH, MemoryLedger, Reply, ScriptedTransport, VirtualClock, run_virtual, sse
from llmctl.wire.base import HttpRequest

DEPLOYMENT = Deployment("d", Provider("p"), "m")


async def ask(transport: ScriptedTransport) -> tuple[int, bytes]:
    async with transport.send(HttpRequest("POST", "u", {}, b'{"n": 1}'), DEPLOYMENT, connect_s=1) as response:
        return response.status, b"".join([chunk async for chunk in response.chunks()])


def test_replies_come_in_turn_and_the_last_for_ever() -> None:
    transport = ScriptedTransport(Reply.refusal(503), ConnectionFailed("no"), Reply(200, chunks=(b"a", b"b")))

    async def work() -> None:
        assert (await ask(transport))[0] == 503
        with pytest.raises(ConnectionFailed):
            await ask(transport)
        assert [await ask(transport) for _ in range(2)] == [(200, b"ab")] * 2
        await transport.aclose()

    asyncio.run(work())
    assert transport.bodies() == [{"n": 1}] * 4
    assert transport.deployments == ["d"] * 4
    assert transport.open == 0


def test_stream_reply_is_an_openai_stream() -> None:
    chunks = Reply.stream("a", "b").chunks
    assert chunks[-1] == b"data: [DONE]\n\n"
    documents = [json.loads(chunk[6:]) for chunk in chunks[:-1]]
    assert [d["choices"][0]["delta"].get("content") for d in documents[:2]] == ["a", "b"]
    assert documents[2]["choices"][0]["finish_reason"] == "stop"
    assert documents[3]["usage"] == {"prompt_tokens": 7, "completion_tokens": 2}
    assert len(Reply.stream("a", finish=None, done=False).chunks) == 1


def test_refusal_reply_is_an_openai_error() -> None:
    reply = Reply.refusal(429, "slow", {"retry-after": "1"}, code="rate_limit_exceeded")
    assert reply.headers["retry-after"] == "1"
    assert json.loads(reply.chunks[0])["error"] == {"message": "slow", "code": "rate_limit_exceeded"}


def test_reply_takes_its_time_and_then_breaks() -> None:
    reply = Reply(chunks=(b"a", b"b"), delay_s=5, gap_s=10, error=ConnectionFailed("cut"))

    async def work() -> float:
        with pytest.raises(ConnectionFailed):
            await ask(ScriptedTransport(reply))
        return VirtualClock().monotonic()

    assert run_virtual(work()) == 25


def test_virtual_hour_takes_no_time() -> None:
    async def work() -> tuple[float, float]:
        clock = VirtualClock()
        await asyncio.gather(clock.sleep(3600), clock.sleep(1800))
        with pytest.raises(TimeoutError):
            async with clock.timeout(10):
                await asyncio.Event().wait()
        return clock.now() - EPOCH, clock.monotonic()

    began = time.monotonic()
    assert run_virtual(work()) == (3610, 3610)
    assert time.monotonic() - began < 5


def test_waiting_for_what_never_comes_is_an_error_and_not_a_hang() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never come"):
        run_virtual(work())


def test_virtual_clock_outside_of_a_loop_stands_still() -> None:
    assert (VirtualClock().monotonic(), VirtualClock().now()) == (0.0, EPOCH)


def test_memory_ledger_keeps_rows_as_last_written() -> None:
    ledger = MemoryLedger()
    record = CallRecord("1", 0.0, "library", "m")
    asyncio.run(ledger.begin(record, "hi"))
    asyncio.run(ledger.complete(record, (), "there"))
    assert (ledger.states, ledger.texts) == (["started", "started"], {"1": ("hi", "there")})


def test_sse_is_one_event() -> None:
    assert sse({"a": "\n"}) == b'data: {"a": "\\n"}\n\n'
