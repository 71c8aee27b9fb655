"""How well calls are spread over limited deployments, beside the field's recipe, a prototype and a clairvoyant.

Run: python benchmarks/balance.py [--sim FILE] [--traces DIR] [--seeds 1-3] [--scenario steady,peak] [--jobs N]

BalanceSim simulates providers on virtual time: their limits as they really count them, their headers, outages, slow and
hanging deployments. `ours` is the real client (`balance_client.py`); the others are policies of the simulator: the
recipe of tutorials (`seedrecipe`), the best prototype (`reserve`), and the clairvoyant, which knows all limits, faults
and answers and stands for what is possible. Seeds are put together: refusals, failures, p95 and the herd as the mean of
them, calls into bad deployments and the time until they are back as the worst.

- back: seconds until a deployment that was down or slow gets half of its former calls in 15 s again (at most 600 are
  looked at); herd: its calls in the first 10 s beside the rate before, a handful at best, so one seed says nothing.
- told: when a call that fails in the end has failed. The simulator counts what a policy's answers bring after their
  120 s as answers; a client is cut off there, so under overload it fails more.
- processes: 2,000 calls through 50 slots, each call a client of its own that shares only the state. Quota floor: the
  makespan of the clairvoyant in the same slots, since the quota of the fleet is what binds both.
- decision: one step of the call machine on the shared documents of a busy fleet, reservation included: in
  memory, and through SQLite in one directory with a ledger of a million calls (10,000 with `--quick`), where a call is
  recorded between any two steps. A loaded machine shows in the wall time.

The simulator and its traces are not part of this repository: without them the command says what it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import random
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import inf, isnan, nan
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from balance_client import Fleet, Processes, Simulated, make
from ledger import Fresh, llmctl_writer, percentile
from state import fill

from llmctl.store.state import SqliteState
from llmctl.testing import MemoryState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.record import Answer

    Metrics = dict[str, Any]
    Runs = list[tuple[Metrics, Metrics]]  # of each seed: its own, and the clairvoyant's

PROCESSES = "processes"
SLOTS, CALLS, PAUSE_S = 50, 2000, 0.05
PATIENCE_S = 600.0
"""How long a command waits in the closed loop: 50 of them want a quota that serves far fewer at once."""
TIMEOUT_S = 60.0
POLICIES = ("seedrecipe", "reserve", "oracle", "ours")
WHERE = """
--sim or LLMCTL_BALANCE_SIM names BalanceSim's balance_sim.py; --traces or LLMCTL_BALANCE_TRACES the directory of
azure2023_conv.csv and azure2023_code.csv: the Azure LLM inference trace 2023, conversation and code (CC-BY-4.0,
https://github.com/Azure/AzurePublicDataset), with the columns t,in_tokens,out_tokens (t in seconds from the first)."""


# ---------------------------------------------------------------------------- one run


@cache
def simulator(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("balance_sim", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["balance_sim"] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    return module


@cache
def traces(path: str, folder: str) -> tuple[Any, Any]:
    load = simulator(path).load
    return load(f"{folder}/azure2023_conv.csv"), load(f"{folder}/azure2023_code.csv")


class Slots(Processes):
    """So many commands at a time, as by `xargs -P 50`: the next begins when one has ended."""

    def __init__(self, deps: Sequence[Any], submit: Any) -> None:
        super().__init__(deps, submit)
        self._free = asyncio.Semaphore(SLOTS)

    async def complete(self, request: Any) -> Answer:
        """The answer, from when a slot is free."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        request.t, request.deadline = loop.time(), loop.time() + PATIENCE_S
        try:
            return await super().complete(request)
        finally:
            loop.call_later(PAUSE_S, self._free.release)


def run(task: tuple[str, str, str, str, int]) -> Metrics:
    """The simulator's metrics of one policy in one scenario, with the CPU it took and when its failures were told."""
    path, folder, scenario, policy, seed = task
    sim, requests, rules = simulated(path, folder, scenario, policy, seed)
    began = time.process_time()
    if policy == "ours":
        rules.run_async(sim, Slots if scenario == PROCESSES else make, after=lambda client: client.aclose())
    else:
        made = rules.POLICIES[policy](sim.views, random.Random(9 if scenario == PROCESSES else seed + 99))
        made.provs = sim.provs
        sim.run(noting(made))
    metrics: Metrics = sim.metrics()
    metrics["cpu_ms"] = 1000 * (time.process_time() - began) / len(requests)
    told = [request.scratch["failed_s"] for request in requests if sim.done[request.rid][0] is None]
    metrics["told"] = percentile(told, 0.95) if told else nan
    return metrics


def simulated(path: str, folder: str, scenario: str, policy: str, seed: int) -> tuple[Any, list[Any], Any]:
    """The simulator of a scenario, its requests, and its module."""
    rules, (conversation, code) = simulator(path), traces(path, folder)
    if scenario != PROCESSES:
        fleet, requests = rules.scenario(scenario, conversation, code, seed)
        return rules.Sim(fleet, requests, TIMEOUT_S, seed), requests, rules
    fleet = rules.seed_fleet()
    requests = rules.mk(conversation, 1.0, random.Random(seed), 1024, span=3400)[:CALLS]
    if policy == "ours":
        for request in requests:
            request.t, request.deadline = 0.0, 1e9
    return rules.Sim(fleet, requests, TIMEOUT_S, seed, closed=None if policy == "ours" else SLOTS), requests, rules


def noting(policy: Any) -> Any:
    """The policy, which notes when it was last asked what to do with a request: nearly when that failed, if it does."""
    choose = policy.choose

    def noted(now: float, request: Any, views: Any) -> Any:
        request.scratch["failed_s"] = now - request.t
        return choose(now, request, views)

    policy.choose = noted
    return policy


# ---------------------------------------------------------------------------- the numbers


def mean_of(key: str) -> Callable[[Runs], float]:
    return lambda runs: mean(own[key] for own, _ in runs)


def beside(key: str) -> Callable[[Runs], float]:
    return lambda runs: sum(own[key] for own, _ in runs) / sum(best[key] for _, best in runs)


def faults(runs: Runs, key: str, *modes: str) -> list[float]:
    """What the seeds' faults of these modes say; those that the deployment hardly felt say nothing."""
    all_ = [fault for own, _ in runs for fault in own["faults"] if fault["mode"] in modes and key in fault]
    return [inf if fault[key] is None else fault[key] for fault in all_]


def worst(key: str, *modes: str) -> Callable[[Runs], float]:
    return lambda runs: max(faults(runs, key, *modes), default=nan)


def herd(runs: Runs) -> float:
    found = faults(runs, "herd5", "down", "slow")
    return mean(found) if found else nan


@dataclass(frozen=True, slots=True)
class Number:
    """A line of the table: the goal is met by what is not above it."""

    scenario: str
    what: str
    goal: float
    of: Callable[[Runs], float]


COMMON = (
    ("429s per 100,000 calls", mean_of("per100k")),
    ("failed %", mean_of("failed_pct")),
    ("p95 / clairvoyant", beside("p95")),
)
GOALS: dict[str, tuple[float, ...]] = {
    "steady": (10, 0, 1.15),
    "shared": (100, 0),
    "burst": (100, 0, 1.5),
    "peak": (50, 0, 1.25),
    "outage": (20, 0, 1.15),
    "wide": (30, 0, 1.15),
    "overload": (),
    PROCESSES: (100, 0),
}
"""The goals of `COMMON`, as far as a scenario has them."""
NUMBERS = (
    *(Number(s, what, goal, of) for s, goals in GOALS.items() for (what, of), goal in zip(COMMON, goals, strict=False)),
    Number("outage", "calls into a dead deployment (5 min)", 20, worst("during", "down")),
    Number("outage", "calls into a hanging one (2 min)", 5, worst("during", "hang")),
    Number("outage", "back to half its share, s", 30, worst("recover_s", "down", "slow")),
    Number("outage", "herd", 1.5, herd),
    Number("wide", "calls into a dead deployment (5 min)", 20, worst("during", "down")),
    Number("wide", "back to half its share, s", 30, worst("recover_s", "down", "slow")),
    Number("wide", "herd", 1.5, herd),
    Number("overload", "failed %", 12, mean_of("failed_pct")),
    Number("overload", "told so after, p95 s", 1, mean_of("told")),
    Number(PROCESSES, "makespan / quota floor", 1.03, beside("span")),
)


# ---------------------------------------------------------------------------- the cost of a decision


class Timed:
    """A state that takes the ms of each step that decides; `between` is done before it, and not counted."""

    def __init__(self, inner: MemoryState | SqliteState, between: Callable[[int], None] = lambda _: None) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._inner = inner
        self._between = between

    async def update(self, keys: Any, work: Any, *, wait_s: float = 5.0, to_the_end: bool = False) -> Any:
        """The result of `work`. The loop stands still meanwhile, or its virtual clock would run away."""
        del to_the_end
        self._between(len(self.wall))
        wall, cpu = time.perf_counter(), time.process_time()
        result = self._inner.update_now(keys, work, wait_s=wait_s)
        if isinstance(result, tuple):  # a decision, its snapshot and its instant; other steps return nothing
            self.wall.append(1000 * (time.perf_counter() - wall))
            self.cpu.append(1000 * (time.process_time() - cpu))
        return result


def cost(path: str, folder: str, seed: int, state: Timed, calls: int) -> tuple[float, float]:
    """The p99 of a decision in ms, wall and CPU, while so many calls are made at peak."""
    sim, requests, rules = simulated(path, folder, "peak", "ours", seed)
    sim.reqs = requests[:calls]
    rules.run_async(sim, lambda deps, submit: Fleet(deps, Simulated(deps, submit), state))
    return percentile(state.wall, 0.99), percentile(state.cpu, 0.99)


def decisions(path: str, folder: str, seed: int, *, quick: bool) -> None:
    """The lines about the cost of a decision."""
    calls, rows = (300, 10_000) if quick else (3000, 1_000_000)
    in_memory = cost(path, folder, seed, Timed(MemoryState()), calls)
    with Fresh() as home:
        fill(home, rows)
        store = SqliteState(home / "state.db")
        through = cost(path, folder, seed, Timed(store, llmctl_writer(home)), calls)
        store.close()
    for where, goal, both in (("in process", 1, in_memory), (f"SQLite, {rows:,} ledger rows", 5, through)):
        for what, ours in zip(("wall", "CPU"), both, strict=True):
            line("decision", f"{where}, p99 {what} ms", nan, nan, goal, ours)


# ---------------------------------------------------------------------------- the table


def cell(value: float) -> str:
    if isnan(value):
        return "-"
    if value == inf:
        return "never"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def line(scenario: str, what: str, recipe: float, prototype: float, goal: float, ours: float) -> None:
    met = "" if isnan(ours) else "met" if ours <= goal else "missed"
    cells = "".join(f"{cell(value):>11}" for value in (recipe, prototype, goal, ours))
    print(f"{scenario:10}{what:46}{cells}  {met}", flush=True)


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def found(name: str | None, variable: str, *files: str) -> str:
    """The path that was given, if all of it is there. Leaves with words when not."""
    given = name or os.environ.get(variable, "")
    wanted = [Path(given) / file for file in files] or [Path(given)]
    missing = [str(path) for path in wanted if not path.is_file()]
    if not given or missing:
        sys.exit(f"there is no {', no '.join(missing)}\n{WHERE}" if given else f"{variable} is not set\n{WHERE}")
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sim", help="balance_sim.py")
    parser.add_argument("--traces", help="the directory of the traces")
    parser.add_argument("--seeds", default="1-3", help="such as 1-5")
    parser.add_argument("--scenario", default=",".join((*GOALS, "decision")), help="some of %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="fewer decisions, beside a small ledger")
    options = parser.parse_args()
    path = found(options.sim, "LLMCTL_BALANCE_SIM")
    folder = found(options.traces, "LLMCTL_BALANCE_TRACES", "azure2023_conv.csv", "azure2023_code.csv")
    wanted, seeds = options.scenario.split(","), seeds_of(options.seeds)
    tasks = [(path, folder, s, p, seed) for s in GOALS if s in wanted for seed in seeds for p in POLICIES]
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, seeds {options.seeds}\n")
    print(f"{'scenario':10}{'number':46}" + "".join(f"{name:>11}" for name in ("recipe", "prototype", "goal", "ours")))
    results: defaultdict[tuple[str, str], list[Metrics]] = defaultdict(list)
    with ProcessPoolExecutor(options.jobs) as pool:
        for task, metrics in zip(tasks, pool.map(run, tasks), strict=True):
            scenario, policy, seed = task[2:]
            results[scenario, policy].append(metrics)
            if (policy, seed) == ("ours", seeds[-1]):
                report(scenario, results)
    if "decision" in wanted:
        decisions(path, folder, seeds[0], quick=options.quick)
    details(results)


def report(scenario: str, results: dict[tuple[str, str], list[Metrics]]) -> None:
    """The lines of one scenario."""
    best = results[scenario, "oracle"]
    runs = {policy: list(zip(results[scenario, policy], best, strict=True)) for policy in POLICIES}
    for number in (each for each in NUMBERS if each.scenario == scenario):
        recipe, prototype, ours = (number.of(runs[policy]) for policy in ("seedrecipe", "reserve", "ours"))
        line(scenario, number.what, recipe, prototype, number.goal, ours)


def details(results: dict[tuple[str, str], list[Metrics]]) -> None:
    """What is behind the numbers of ours: seconds, attempts, CPU, and each fault of each seed."""
    print(f"\n{'ours':10}{'p50 s':>8}{'p95 s':>8}{'p99 s':>8}{'attempts':>10}{'ms CPU a call':>15}   failures")
    for (scenario, policy), of in results.items():
        if policy == "ours":
            cells = "".join(f"{mean(each[key] for each in of):8.2f}" for key in ("p50", "p95", "p99"))
            rest = f"{mean(each['attempts'] for each in of):10.3f}{mean(each['cpu_ms'] for each in of):15.2f}"
            print(f"{scenario:10}{cells}{rest}   " + " ".join(str(each["fails"]) for each in of if each["fails"]))
            for fault in (fault for each in of for fault in each["faults"]):
                back = (
                    f"back after {fault['recover_s']} s, herd {fault['herd5']}" if "herd5" in fault else fault["note"]
                )
                print(f"{'':10}{fault['dep']} {fault['mode']}: {fault['during']} calls into it, {back}")


if __name__ == "__main__":
    main()
