"""What it costs to embed an unchanged corpus again: requests and CPU time of `llmctl embed`, first and second run.

    python benchmarks/embed_cache.py [TEXTS]

A server in this process gives each text a vector of 1536 numbers, as text-embedding-3-small does. The CPU time is that
of the command alone, its start included; `off` is the run that looks into no cache and fills none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from array import array
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).parent.parent
SIZE = 1536
requests = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests for vectors until the connection ends."""
    global requests  # noqa: PLW0603 - what this script counts
    dice = random.Random(1)
    made = [
        base64.b64encode(array("f", [dice.gauss(0, 0.02) for _ in range(SIZE)]).tobytes()).decode() for _ in range(64)
    ]
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            texts = json.loads(await reader.readexactly(length))["input"]
            rows = [{"index": n, "embedding": made[len(text) % 64]} for n, text in enumerate(texts)]
            body = json.dumps({"model": "served", "data": rows, "usage": {"prompt_tokens": 9 * len(texts)}}).encode()
            kind = b"content-type: application/json"
            writer.write(b"HTTP/1.1 200 OK\r\n%s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body)) + body)
            requests += 1
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


def serving() -> int:
    """The port of a server in a thread of its own."""
    ready: list[int] = []
    begun = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
        ready.append(server.sockets[0].getsockname()[1])
        begun.set()
        await server.serve_forever()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()
    begun.wait()
    return ready[0]


def main() -> None:
    """Print the table."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    port = serving()
    with tempfile.TemporaryDirectory() as home:
        corpus = Path(home) / "corpus.txt"
        corpus.write_text("".join(f"text number {n} of the corpus, which says something\n" for n in range(number)))
        environ = os.environ | {
            "LLMCTL_HOME": f"{home}/llmctl", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip
        words = [
            "embed",
            "-m",
            "text-embedding-3-small",
            "--lines",
            "-f",
            str(corpus),
            "--format",
            "npy",
            "-o",
            f"{home}/v",
        ]
        print(f"{number} texts, vectors of {SIZE} numbers, --format npy")
        print(f"{'':8} {'requests':>8} {'CPU s':>7}")
        for name, more in (("off", ["--cache", "off"]), ("first", []), ("again", [])):
            before, sent = getrusage(RUSAGE_CHILDREN), requests
            subprocess.run([sys.executable, "-m", "llmctl", *words, *more, "-q"], env=environ, check=True)
            after = getrusage(RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{name:8} {requests - sent:8} {cpu_s:7.2f}")
        size = sum(file.stat().st_size for file in Path(home, "llmctl").glob("cache.db*"))
        print(f"cache: {size / 1e6:.1f} MB, {size / number:.0f} bytes a vector")


if __name__ == "__main__":
    main()
