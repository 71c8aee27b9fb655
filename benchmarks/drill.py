"""The fallback drill: the standard shapes on every wire, what a drill costs, whether waits are kept; and peers.

    python benchmarks/drill.py [--quick] [--no-peers]

Peers (`drill_peers`) are judged on the same shapes on OpenAI's wire when they are installed (`pip install openai
litellm`), for about two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from drill_peers import PEERS, VARIANTS, WORDS, all_played, installed
from startup import once

from llmctl.client import Client
from llmctl.core.faults import schedule
from llmctl.lab import drill, standard
from llmctl.lab.expectations import Expectations
from llmctl.lab.scenarios import Scenario
from llmctl.testing import MemoryLedger

if TYPE_CHECKING:
    from llmctl.lab.rehearsal import Stage
    from llmctl.lab.verdict import Verdict


CHAIN = """
[models]
fast = { model = "groq/llama-3.3-70b", fallbacks = ["cheap", "home"] }
cheap = { model = "anthropic/claude-x" }
home = { model = "gemini/gemini-x" }
"""
PUBLISHED = {
    "the card's own reference": (16, 0, 0, 0),
    "DeepSeek Harness": (12, 3, 1, 0),
    "Portkey": (11, 2, 0, 3),
    "Bifrost 2.1.1": (9, 3, 3, 1),
    "LiteLLM Router": (9, 3, 4, 0),
    "LangChain": (9, 3, 4, 0),
    "the openai SDK": (6, 0, 10, 0),
    "no retries, no fallback": (4, 0, 12, 0),
}
"""Counts of WORDS: github.com/failoverbench/failoverbench, results/full/SCORECARD.md of 2026-09-12, read 2026-11-20."""
NOTE = """
llmctl's column is its own suite: `cut` and `stalled` are asked for whole there (streamed, they end in a clear error).
Some shapes are harder here than those of the published scores: `reset` never ends, `cut` (twice) ends with its
connection as good answers of no length do, `no-terminator` keeps its connection open, and `late` meets a limit of 10 s
for a first token. The last rows, not counted, are as there (`once`, `chunk`, `closed`), or no stream (`whole`)."""


# ---------------------------------------------------------------- llmctl


def made(config: str = "") -> Client:
    return Client(tomllib.loads(config), environ={}, ledger=MemoryLedger())


def rehearsed(plays: list[drill.Play]) -> tuple[list[Verdict], float, float]:
    """The verdicts, and the wall and CPU seconds that they took."""
    began, cpu = time.perf_counter(), time.process_time()
    verdicts, _ = asyncio.run(drill.rehearse(plays, Expectations()))
    return verdicts, time.perf_counter() - began, time.process_time() - cpu


def suite() -> tuple[Stage, dict[str, str]]:
    """Print the suite on every wire, and return the stage of OpenAI's with the verdict on each of its shapes."""
    plays, left_out = standard.plays(made(), drill.Drill("", live=False), {})
    print(f"{'llmctl, standard suite at --speed 50':44}{'shapes':>9}{'wall s':>9}{'CPU s':>9}   goal 16/16")
    stages = {on.chain.name: on for on, _ in plays}
    found: dict[str, dict[str, str]] = {}
    total = (0.0, 0.0)
    for name in stages:
        verdicts, wall, cpu = rehearsed([(on, each) for on, each in plays if on.chain.name == name])
        shapes = found[name] = {each.rehearsal.scenario.id.partition("/")[0]: "pass" for each in verdicts}
        shapes |= {each.rehearsal.scenario.id.partition("/")[0]: "fail" for each in verdicts if not each.ok}
        score = f"{list(shapes.values()).count('pass')}/{len(shapes)}"
        print(f"{name:44}{score:>9}{wall:9.2f}{cpu:9.2f}")
        for each in verdicts:
            if not each.ok:
                print(f"  {each.rehearsal.scenario.id}: {each.why}")
        total = total[0] + wall, total[1] + cpu
    print(f"{'all wires':53}{total[0]:9.2f}{total[1]:9.2f}", *left_out, sep="\n  " if left_out else "")
    return stages["standard-openai"], found["standard-openai"]


def matrix() -> None:
    asked = drill.Drill("fast", live=False, matrix=True)
    on = drill.stage(made(CHAIN), asked, {})
    verdicts, wall, cpu = rehearsed([(on, each) for each in drill.scenarios(asked, on)])
    counts = f"{sum(each.ok for each in verdicts)}/{len(verdicts)}"
    print(f"\n{'--offline --matrix, a chain of three':44}{counts:>9}{wall:9.2f}{cpu:9.2f}   goal about 10 s")


def process(runs: int) -> None:
    """One default drill as a process, beside a bare one: the best of the runs."""
    with tempfile.TemporaryDirectory(prefix="drill-benchmark-") as home:
        (Path(home) / "config.toml").write_text(CHAIN, encoding="utf-8")
        root = str(Path(__file__).resolve().parents[1])
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "LLMCTL_HOME": home}
        ours = [sys.executable, "-m", "llmctl", "fallback", "drill", "fast", "--offline"]
        told = subprocess.run(ours, env=environ, capture_output=True, text=True, check=False)
        if told.returncode or "pass" not in told.stdout:
            sys.exit(f"the default drill failed: {told.stdout}{told.stderr}")
        print(f"\n{f'one process, best of {runs}':53}{'wall s':>9}{'CPU s':>9}")
        bare = [sys.executable, "-c", "import httpx"]
        for name, command in (("fallback drill fast --offline", ours), ("python -c 'import httpx'", bare)):
            seen = [once(command, environ) for _ in range(runs)]
            print(f"{name:53}{min(r.wall for r in seen):9.2f}{min(r.cpu for r in seen):9.2f}")


def retry_after(runs: dict[int, int]) -> None:
    """The gap at the provider after a 429, divided by its Retry-After of 2 s, both of the drill's clock."""
    head = f"{'429@2s*1, gap at the provider / 2 s':44}{'runs':>9}{'median':>9}{'worst':>9}{'planned':>9}"
    print(f"\n{head}   goal 1.00 to 1.05")
    scenario = Scenario("again", (("primary", schedule("429@2s*1")),), alone=True)
    for speed, times in runs.items():
        gaps, plans = [], []
        for seed in range(times):
            on = drill.stage(made(CHAIN), drill.Drill("fast", live=False, speed=speed, seed=seed), {})
            played = asyncio.run(on.play(scenario))
            first, second = (sent.heard for sent in played.sent)
            gaps.append((second.at - first.at) / 2 if first and second else inf)
            plans.append(sum(pause.wait_s for pause in played.calls[0].pauses) / 2)
        worst = max(gaps, key=lambda gap: abs(gap - 1))
        planned = statistics.median(plans)
        print(f"{f'--speed {speed}':44}{times:9}{statistics.median(gaps):9.3f}{worst:9.3f}{planned:9.3f}")


def beside(on: Stage, ours: dict[str, str]) -> None:
    """Print the verdicts on the peers beside ours."""
    by_id = {each.id: each for each in standard.shapes(on.chain, on.client.catalog.settings) if "/" not in each.id}
    counted = len(by_id)
    shapes = list(by_id.values())
    shapes += [by_id[name.partition("/")[0]]._replace(id=name, fault=VARIANTS[name][0]) for name in VARIANTS]
    began, peers = time.perf_counter(), installed()
    found = asyncio.run(all_played(peers, shapes)) if peers else {}
    names = [f"{each} {importlib.metadata.version(each)}" for each in found]
    print(f"\n{f'OpenAI wire, peers in real time ({time.perf_counter() - began:.0f} s)':40}", end="")
    print("".join(f"{each:18}" for each in ("llmctl", *names)).rstrip())
    for n, shape in enumerate(shapes):
        row = [ours.get(shape.id, "-"), *(cells[n][0] for cells in found.values())]
        print(f"{f'{shape.id} ({shape.fault})':40}" + "".join(f"{each:18}" for each in row).rstrip())
    scores = [list(ours.values()), *([verdict for verdict, _ in cells[:counted]] for cells in found.values())]
    counts = ["/".join(str(score.count(word)) for word in WORDS) for score in scores]
    print(f"{'/'.join(WORDS):40}" + "".join(f"{each:18}" for each in counts).rstrip() + f"\n{NOTE}")
    for name in PEERS:
        print(f"\n{name}: " + ("what was seen (primary + fallback)" if name in found else "not installed"))
        for shape, (verdict, why) in zip(shapes, found.get(name, ()), strict=False):
            print(f"  {shape.id:22}{verdict:9}{why}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}\n")
    on, ours = suite()
    matrix()
    process(3 if options.quick else 10)
    retry_after({1: 2, 10: 5, 50: 10} if options.quick else {1: 5, 10: 20, 50: 40})
    if not options.no_peers:
        beside(on, ours)
    print(f"\n{'published by FailoverBench, not measured here':50}{'/'.join(WORDS)}")
    for name, score in PUBLISHED.items():
        print(f"{f'published: {name}':50}{'/'.join(map(str, score))}")
    print("source: failoverbench/failoverbench on GitHub, its SCORECARD.md of 2026-09-12; its own servers and limits")


if __name__ == "__main__":
    main()
