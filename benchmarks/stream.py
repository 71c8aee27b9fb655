"""What a streamed event costs, and how long a first token takes to reach the caller.

    python benchmarks/stream.py [--events 5000] [--rounds 5] [--requests 200]

A server in a process of its own streams OpenAI-shaped events over loopback. Beside ours: httpx alone, doing the same
work by hand (`aiter_lines` and `json.loads`). CPU is that of the client's process, all threads. "burst": the server
writes as fast as it can, so that many events share a read; "apart": every event is a read of its own, as from a real
provider. The first-byte delay is from just before the server's write to the caller's hands, on one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Seen = tuple[int, float]  # how many events, and the delay of the first

APART_S = 0.0005
MODEL = "openai/bench"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def sse(document: dict[str, Any]) -> bytes:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def token(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "bench"}
    return sse({**head, "system_fingerprint": "fp_0123456789", "choices": [choice]})


async def serve() -> None:
    """Streams what the `user` field of a request says: "burst 5000", "apart 500" or "first"."""
    pieces = {n: token(f"word{n} ") for n in range(100)}
    end = token("", "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
                kind, _, count = body["user"].partition(" ")
                writer.write(HEAD)
                if kind == "first":
                    await asyncio.sleep(0.002)
                    writer.write(token(str(time.monotonic_ns())))
                for n in range(int(count or 0)):
                    writer.write(pieces[n % 100])
                    if kind == "apart":
                        await asyncio.sleep(APART_S)
                    elif n % 50 == 0:
                        await writer.drain()
                writer.write(end)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def delay_ms(text: str) -> float:
    """How long ago the server wrote the instant that `text` is."""
    return (time.monotonic_ns() - int(text)) / 1e6 if text.isdecimal() else 0.0


def measured(rounds: int, count: int, work: Callable[[], int]) -> str:
    """CPU microseconds an event: the best round and the median."""
    costs = []
    for _ in range(rounds):
        began = time.process_time()
        events = work()
        costs.append((time.process_time() - began) / events * 1e6)
        assert events >= count, f"{events} events came"
    return f"{min(costs):6.1f} {statistics.median(costs):6.1f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--events", type=int, default=5000)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--requests", type=int, default=200)
    words.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.serve:
        asyncio.run(serve())
        return
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            report(f"http://127.0.0.1:{int(server.stdout.readline())}", given)
        finally:
            server.kill()


def report(url: str, given: argparse.Namespace) -> None:
    import httpx

    from llmctl import Client
    from llmctl.testing import MemoryLedger

    config = {"providers": {"openai": {"api_base": url, "api_key": "bench"}}, "log": {"content": "none"}}
    client = Client(config, environ={}, ledger=MemoryLedger())
    runner = asyncio.Runner()

    async def ours(task: str) -> Seen:
        count, delay = 0, 0.0
        async for event in client.astream("hi", model=MODEL, user=task):
            delay = delay or delay_ms(event.text)
            count += 1
        return count, delay

    def ours_sync(task: str) -> Seen:
        count, delay = 0, 0.0
        for event in client.stream("hi", model=MODEL, user=task):
            delay = delay or delay_ms(event.text)
            count += 1
        return count, delay

    bare = httpx.AsyncClient(trust_env=False)

    async def httpx_alone(task: str) -> Seen:
        count, delay = 0, 0.0
        body = {"model": "bench", "messages": [{"role": "user", "content": "hi"}], "stream": True, "user": task}
        async with bare.stream("POST", f"{url}/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    text = json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                    delay = delay or delay_ms(text)
                    count += 1
        return count, delay

    def on_loop(work: Callable[[str], Coroutine[Any, Any, Seen]]) -> Callable[[str], Seen]:
        return lambda task: runner.run(work(task))

    ways = {"httpx alone": on_loop(httpx_alone), "Client.astream": on_loop(ours), "Client.stream": ours_sync}
    print(f"{platform.python_implementation()} {platform.python_version()}, httpx {httpx.__version__}")
    print(
        f"\nCPU us an event        burst: best median   apart: best median   ({given.events} events, {given.rounds} x)"
    )
    for name, way in ways.items():
        way("burst 100")
        burst = measured(given.rounds, given.events, lambda way=way: way(f"burst {given.events}")[0])
        apart = measured(given.rounds, given.events // 5, lambda way=way: way(f"apart {given.events // 5}")[0])
        print(f"{name:20}         {burst}         {apart}")
    print(f"\nfirst-byte delay, ms      p50    p99    max   ({given.requests} requests)")
    for name, way in ways.items():
        delays = sorted(way("first")[1] for _ in range(given.requests))
        p99 = delays[min(len(delays) - 1, int(len(delays) * 0.99))]
        print(f"{name:20}   {statistics.median(delays):6.2f} {p99:6.2f} {delays[-1]:6.2f}")
    runner.run(bare.aclose())
    runner.run(client.aclose())
    runner.close()
    client.close()


if __name__ == "__main__":
    main()
