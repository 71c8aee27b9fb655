"""What a cold start costs: each line is a process of its own, beside bare scripts that do the same.

    python benchmarks/startup.py [--runs 20]

CPU is user + system of the process, the best of the runs (wall time of a busy host says little); memory is its peak,
`-` where that is less than this script's own, below which the system's count does not go.
`ask` streams 20 tokens from a server on loopback, in a process of its own, with the ledger on and the catalog warm; a
cache hit asks nobody, and is booked all the same.
Uses the console script `llmctl` beside this interpreter when there is one, else `python -m llmctl`. Peers are measured
when they are installed: simonw/llm, and the embedded model when its weights are here. Exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 20

HTTPX = """
import json, sys, httpx
body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
with httpx.stream("POST", sys.argv[1] + "/chat/completions", json=body, headers={"authorization": "k"}) as answer:
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            sys.stdout.write(json.loads(line[6:])["choices"][0]["delta"].get("content", ""))
            sys.stdout.flush()
"""
TYPER = """
import json, sqlite3, sys, httpx, typer
app = typer.Typer(rich_markup_mode=None, add_completion=False)
@app.command()
def main(url: str, file: str) -> None:
    ledger = sqlite3.connect(file, isolation_level=None)
    ledger.execute("pragma journal_mode = wal")
    ledger.execute("create table if not exists calls (id integer primary key, text)")
    text = ""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", url + "/chat/completions", json=body, headers={"authorization": "k"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                piece = json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                text += piece
                sys.stdout.write(piece)
                sys.stdout.flush()
    ledger.execute("insert into calls (text) values (?)", [text])
app()
"""


@dataclass(frozen=True)
class Run:
    """Seconds of wall and CPU time, and MiB."""

    wall: float
    cpu: float
    peak: float


def once(command: list[str], environ: dict[str, str]) -> Run:
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environ, file_actions=nowhere)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    if status:
        sys.exit(f"exit status {os.waitstatus_to_exitcode(status)}: {' '.join(command)[:200]}")
    return Run(wall, used.ru_utime + used.ru_stime, _mib(used.ru_maxrss))


def _mib(peak: int) -> float:
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measured(commands: dict[str, list[str]], environ: dict[str, str], runs: int) -> dict[str, Run]:
    """The best of each command, in turn, so that a busy moment of the host hits them all."""
    seen: dict[str, list[Run]] = {name: [] for name in commands}
    for command in commands.values():
        once(command, environ)
    for _ in range(runs):
        for name, command in commands.items():
            seen[name].append(once(command, environ))
    return {
        name: Run(min(r.wall for r in all_), min(r.cpu for r in all_), max(r.peak for r in all_))
        for name, all_ in seen.items()
    }


def first_byte_ms(command: list[str], environ: dict[str, str], runs: int) -> list[float]:
    """From just before the server writes its first token until it is read from the command's stdout."""
    delays = []
    for _ in range(runs):
        with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            text = os.read(process.stdout.fileno(), 65536)
            now = time.monotonic_ns()
            text += process.stdout.read()
        delays.append((now - int(text.split()[0])) / 1e6)
    return sorted(delays)


def prompt_cpu_ms(command: list[str], environ: dict[str, str], runs: int) -> float:
    """The CPU of a chat whose prompt has come on a terminal, and which is left by Ctrl-D: the best of the runs."""
    used = []
    for _ in range(runs):
        primary, secondary = os.openpty()
        ends = [(os.POSIX_SPAWN_DUP2, secondary, fd) for fd in (0, 1, 2)]
        pid = os.posix_spawn(command[0], command, environ | {"TERM": "xterm", "NO_COLOR": "1"}, file_actions=ends)
        os.close(secondary)
        drawn = b""
        while b"m> " not in drawn:
            drawn += os.read(primary, 65536)
        os.write(primary, b"\x04")
        _, _, spent = os.wait4(pid, 0)
        os.close(primary)
        used.append((spent.ru_utime + spent.ru_stime) * 1e3)
    return min(used)


# ---------------------------------------------------------------- the provider


def sse(document: object) -> bytes:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def token(text: str, finish: str | None = None) -> bytes:
    return sse({"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


async def serve() -> None:
    """Answers everything with a stream whose first token is the instant at which it was written."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                await asyncio.sleep(0.01)
                writer.write(token(f"{time.monotonic_ns()} "))
                await asyncio.sleep(0.002)
                for n in range(TOKENS - 1):
                    writer.write(token(f"t{n} "))
                writer.write(token("", "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# ---------------------------------------------------------------- the report


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--runs", type=int, default=20)
    words.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.serve:
        asyncio.run(serve())
        return
    with (
        subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as home,
    ):
        try:
            assert server.stdout is not None
            met = report(f"http://127.0.0.1:{int(server.stdout.readline())}", Path(home), given.runs)
        finally:
            server.kill()
    sys.exit(not met)


def report(url: str, home: Path, runs: int) -> bool:
    """Print the table; whether every goal is met."""
    python = sys.executable
    script = Path(python).with_name("llmctl")
    ours = [str(script)] if script.exists() else [python, "-m", "llmctl"]
    environ = {
        "PATH": os.environ["PATH"],
        "LLMCTL_HOME": str(home),
        "OPENAI_API_KEY": "benchmark",
        "OPENAI_BASE_URL": url,
        **({} if script.exists() else {"PYTHONPATH": str(ROOT)}),
    }
    ask = [*ours, "ask", "-m", "openai/m", "--cache", "off", "hi"]
    commands = {
        "python -c pass": [python, "-c", "pass"],
        "llmctl --version": [*ours, "--version"],
        "llmctl --help": [*ours, "--help"],
        "httpx script": [python, "-c", HTTPX, url],
        "typer + httpx + sqlite script": [python, "-c", TYPER, url, str(home / "bare.db")],
        "llmctl ask": ask,
        "llmctl ask, its answer kept": [*ours, "ask", "-m", "openai/m", "--cache", "refresh", "hi"],
        "llmctl ask, cache hit": [*ours, "ask", "-m", "openai/m", "hello"],
    }
    if importlib.util.find_spec("llm"):
        commands |= {f"llm {word}": [python, "-m", "llm", word] for word in ("--version", "--help")}
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}: {' '.join(ours[-2:])}\n"
    )
    best = measured(commands, environ, runs)
    base, bare = best["python -c pass"].cpu, best["httpx script"].cpu
    goals = {
        "llmctl --version": (best["llmctl --version"].cpu / base, 2.0, "x python"),
        "llmctl --help": (best["llmctl --help"].cpu / base, 7.0, "x python"),
        "llmctl ask": (best["llmctl ask"].cpu / bare, 1.5, "x httpx script"),
        "llmctl ask, cache hit": (best["llmctl ask, cache hit"].cpu * 1e3, 100.0, "ms CPU"),
        "llmctl ask, memory": (best["llmctl ask"].peak, 45.0, "MiB"),
    }
    goals["chat, CPU to the first prompt"] = (
        prompt_cpu_ms([*ours, "chat", "-m", "openai/m"], environ, runs),
        400.0,
        "ms",
    )
    delays = first_byte_ms(ask, environ, runs)
    goals["first byte, median"] = (statistics.median(delays), 5.0, "ms after the provider's")
    local = embedded(ours, environ, home, max(runs // 4, 3))
    if local is not None:
        goals["llmctl ask -m local hello, wall"] = (local, 1.0, "s")
    own = _mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(f"{'':32} {'CPU ms':>8} {'x python':>9} {'x httpx':>8} {'MiB':>6} {'wall ms':>8}   best of {runs}")
    for name, run in best.items():
        peak = f"{run.peak:6.1f}" if run.peak > own else f"{'-':>6}"
        cpu = f"{run.cpu * 1e3:8.1f} {run.cpu / base:9.2f} {run.cpu / bare:8.2f}"
        print(f"{name:32} {cpu} {peak} {run.wall * 1e3:8.1f}")
    print(f"\n{'goal':32} {'measured':>9} {'at most':>8}")
    for name, (value, limit, unit) in goals.items():
        print(f"{name:32} {value:9.2f} {limit:8.2f} {unit:24} {'met' if value <= limit else 'MISSED'}")
    print(f"{'first byte, slowest':32} {delays[-1]:9.2f} {'':8} ms after the provider's")
    return all(value <= limit for value, limit, _ in goals.values())


def embedded(ours: list[str], environ: dict[str, str], home: Path, runs: int) -> float | None:
    """The best wall seconds of an answer of the embedded model; None where it cannot be asked."""
    from llmctl.config.places import places

    weights = places(os.environ).weights
    if not importlib.util.find_spec("xllamacpp") or not any(weights.glob("*.gguf")):
        return None
    (home / "weights").symlink_to(weights)
    command = [*ours, "ask", "-m", "local", "hello"]
    return measured({"local": command}, environ, runs)["local"].wall


if __name__ == "__main__":
    main()
