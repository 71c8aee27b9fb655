"""One answer of the embedded model, from the start of a process to its end, three ways: `python benchmarks/local.py`.

The bare way is xllamacpp with the same settings and nothing of llmctl; the transport adds the worker thread, the event
loop and the wire; the command is all of `llmctl ask`. Needs the extra `local` and `llmctl models pull local`.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from llmctl.config.places import places
from llmctl.run import weights

ROOT = Path(__file__).resolve().parents[1]
MODEL = weights.DEFAULT

BARE = """
import os, tempfile, xllamacpp as x
p = x.CommonParams(); p.model.path = {path!r}; p.n_ctx = 768; p.n_parallel = 1
p.warmup = False; p.fit_params = False; p.verbosity = -1
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
s = x.Server(p)
body = {{"messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 64, "temperature": 0}}
print(s.handle_chat_completions(body)["choices"][0]["message"]["content"], flush=True)
os._exit(0)
"""

TRANSPORT = """
import asyncio, json, os, sys
from pathlib import Path
from llmctl.core.catalog import Deployment, Provider
from llmctl.run.local import LocalTransport
from llmctl.wire.base import HttpRequest
async def main():
    request, deployment = HttpRequest("POST", "", {{}}, {body!r}), Deployment("l", Provider("local"), {model!r})
    async with LocalTransport(Path({directory!r})).send(request, deployment, connect_s=1) as response:
        async for chunk in response.chunks():
            if chunk.startswith(b'data: {{"choices":[{{'):
                sys.stdout.write(json.loads(chunk[6:])["choices"][0]["delta"].get("content") or "")
asyncio.run(main()); sys.stdout.flush(); os._exit(0)
"""


def once(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of one process."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environ, file_actions=nowhere)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"exit status {os.waitstatus_to_exitcode(status)}: {command[:3]}")
    peak = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return wall, used.ru_utime + used.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="runs of each (one more is made first, and not counted)")
    runs = parser.parse_args().n
    home = places(os.environ)
    path = weights.require(MODEL, home.weights)
    body = b'{"messages": [{"role": "user", "content": "hello"}], "stream": true}'
    facts = {"body": body, "path": str(path), "directory": str(path.parent), "model": MODEL}
    ways = {
        "bare xllamacpp": [sys.executable, "-c", BARE.format(**facts)],
        "our transport": [sys.executable, "-c", TRANSPORT.format(**facts)],
        "llmctl ask hello": [sys.executable, "-m", "llmctl", "ask", "--no-log", "-m", "local", "hello"],
    }
    sys.stdout.write(f"{'':18}{'wall s: best':>14}{'median':>9}{'CPU s':>9}{'peak MB':>9}\n")
    for name, command in ways.items():
        once(command)
        walls, cpus, peaks = zip(*(once(command) for _ in range(runs)), strict=True)
        row = (min(walls), statistics.median(walls), min(cpus), max(peaks))
        sys.stdout.write(f"{name:18}{row[0]:14.3f}{row[1]:9.3f}{row[2]:9.3f}{row[3]:9.0f}\n")


if __name__ == "__main__":
    main()
