from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import sys
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import RateLimited, TimedOut, Unavailable
from llmctl.core.snapshot import Said
from llmctl.run import extras
from llmctl.testing import EPOCH, run_virtual
from llmctl.wire.quota import limits_said

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def loaded(path: Path, *, known: bool = False) -> Any:
    """The module of a file, as the simulator loads it: nobody can look it up."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    if known:
        sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


balance_client = loaded(BENCHMARKS / "balance_client.py")
KINDS = [kind for kind in balance_client.PROVIDERS if kind != "bedrock" or extras.installed("bedrock")]


@dataclass
class View:
    idx: int
    provider: str
    rpm: float = 60.0
    tpm: float = 10_000.0
    itpm: float = 10_000.0
    otpm: float = 10_000.0
    weight: float = 1

    @property
    def name(self) -> str:
        return f"dep{self.idx}"


@dataclass
class Asked:
    rid: int
    est_in: int = 200
    max_tokens: int = 100
    t: float = 0.0
    deadline: float = 120.0
    scratch: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    ok: bool = True
    status: int = 200
    retry_after: float | None = None
    headers: dict[str, float] = field(default_factory=dict)
    in_tokens: int = 190
    out_tokens: int = 7


class Stub:
    """The simulator's `submit`: each result in its turn, the last one for ever after, a second after it was asked."""

    def __init__(self, *results: Result, takes_s: float = 1.0) -> None:
        self.sent: list[tuple[int, int]] = []
        self.ended = 0
        self._results = list(results)
        self._takes_s = takes_s

    async def __call__(self, i: int, request: Asked) -> Result:
        self.sent.append((i, request.rid))
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        await asyncio.sleep(self._takes_s)
        self.ended += 1
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_each_provider_answers_in_its_own_wire(kind):
    stub = Stub(Result())

    async def work():
        return await balance_client.make([View(0, kind)], stub).complete(Asked(5))

    answer = run_virtual(work())
    assert (answer.text, answer.usage.input_tokens, answer.usage.output_tokens) == ("ok", 190, 7)
    assert stub.sent == [(0, 5)]


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), *((each, Unavailable) for each in (500, 502, 503))])
@pytest.mark.parametrize("kind", KINDS)
def test_each_provider_refuses_in_its_own_wire(kind, status, error):
    stub = Stub(Result(ok=False, status=status, retry_after=300.0))

    async def work():
        return await balance_client.make([View(0, kind)], stub).complete(Asked(5))

    with pytest.raises(error) as refused:
        run_virtual(work())
    assert (refused.value.status, refused.value.retry_after_s) == (status, 300.0)


def test_headers_say_a_reset_from_when_they_are_heard():
    headers = {"limit_tpm": 6000.0, "remaining_tpm": 12.7, "reset_tpm": 40.0}
    said = balance_client.headers_of("groq", Result(headers=headers), 15.5, EPOCH)
    assert limits_said(said, EPOCH, {}) == (Said("tpm", 6000.0, 12.0, 24.5),)
    said = balance_client.headers_of(
        "anthropic", Result(headers={**headers, "limit_itpm": 9.0, "reset_itpm": 5.0}), 2.0, EPOCH
    )
    assert limits_said(said, EPOCH, {}) == (Said("itpm", 9.0, None, 3.0),)


def test_what_nobody_answers_is_given_up_and_still_heard_to_its_end():
    stub = Stub(Result(ok=False, status=408), takes_s=90.0)

    async def work():
        fleet = balance_client.make([View(0, "openai")], stub)
        try:
            await fleet.complete(Asked(0))
        finally:
            await fleet.aclose()

    with pytest.raises(TimedOut):
        run_virtual(work())
    assert len(stub.sent) == stub.ended == 1


def test_processes_share_what_is_reserved_though_each_has_a_client_of_its_own():
    stub = Stub(Result())
    started: list[float] = []

    async def work():
        fleet = balance_client.Processes([View(0, "self", rpm=2, tpm=inf)], stub)

        async def one(rid: int) -> None:
            await fleet.complete(Asked(rid, deadline=300.0))
            started.append(asyncio.get_running_loop().time() - 1.0)

        await asyncio.gather(*(one(rid) for rid in range(4)))

    run_virtual(work())
    assert [round(at) for at in sorted(started)] == [0, 0, 61, 61]


def test_the_simulator_drives_the_client_through_a_light_hour_without_a_refusal():
    path = os.environ.get("LLMCTL_BALANCE_SIM")
    if not path:
        pytest.skip("LLMCTL_BALANCE_SIM names no simulator")
    rules = loaded(Path(path), known=True)
    fleet, requests = rules.scenario("light", rules.synth(random.Random(7), 2000), [], 1)
    sim = rules.Sim(fleet, requests[:100], 60.0, 1)
    rules.run_async(sim, balance_client.make, after=lambda client: client.aclose())
    metrics = sim.metrics()
    assert (metrics["failed_pct"], metrics["n429"]) == (0, 0)
