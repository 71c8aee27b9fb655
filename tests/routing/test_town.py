"""Random lives of many calls on shared documents: whatever providers do, the laws hold and nothing is left behind."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core import errors
from llmctl.core.catalog import Group
from llmctl.core.errors import CLASSES, LlmctlError
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.call import Done, Fail
from llmctl.routing.plan import Link, Plan
from llmctl.routing.policy import Policy
from tests.routing.town import T0, Strict, Town, deployment

if TYPE_CHECKING:
    from llmctl.core.snapshot import Said
    from tests.routing.town import Seen


@dataclass
class Moody:
    """Counts what it sees; fails in every way, in spells, and says anything about its limits."""

    rng: random.Random
    seen: Strict = field(default_factory=Strict)
    bad: float = 0.0

    def ask(self, now: float, prompt: int, output: int) -> tuple[LlmctlError | None, tuple[Said, ...]]:
        self.seen.ask(now, prompt, output)
        rng = self.rng
        if rng.random() < 0.1:
            self.bad = rng.choice([0.0, 0.0, 0.3, 1.0])
        if rng.random() >= self.bad:
            return None, ()
        kind = rng.choice([*CLASSES, *["Unavailable"] * 5])
        error: LlmctlError = getattr(errors, kind)(kind, retry_after_s=rng.choice([None, None, 0.0, 3.0, 90.0, 1e9]))
        return error, ()


def random_town(seed: int) -> tuple[Town, dict[str, Any]]:
    rng = random.Random(seed)
    deployments = [
        replace(
            deployment(
                name,
                slice_s=rng.choice([0, 0, 10]),
                rpm=rng.choice([None, 5, 40]),
                tpm=rng.choice([None, 500, 5000]),
                max_parallel=rng.choice([None, None, 1, 3]),
            ),
            api_key=f"env:{rng.choice('xy')}",
            context_window=rng.choice([None, 100, 1000]),
        )
        for name in "abcde"
    ]
    cut = rng.randrange(1, 5)
    links = [
        Link(Group(f"g{n}", tuple(row), rng.choice(list(STRATEGIES))), tuple(row))
        for n, row in enumerate((deployments[:cut], deployments[cut:]))
    ]
    providers: dict[str, Seen] = {d.id: Moody(rng) for d in deployments}
    town = Town(Plan("g", tuple(links)), providers, seed)
    town.latency = lambda rng: rng.choice([0.0, 0.1, 1.0, 7.0, 45.0])
    town.fate = lambda rng: rng.choice(["ends"] * 9 + ["is cancelled", "dies", "never leaves"])
    for _ in range(60):
        policy = Policy(max_wait_s=rng.choice([0.0, 5.0, 60.0, 600.0]), total_s=rng.choice([20.0, 300.0, 900.0]))
        cap = rng.randrange(1, 60)
        town.ask(T0 + rng.uniform(0, 200), rng.randrange(1, 60), cap, output=rng.randrange(cap + 1), policy=policy)
    return town, providers


def live(seed: int) -> dict[str, Any]:
    town, providers = random_town(seed)
    town.run()
    for link in town.plan.links:
        for each in link.deployments:
            seen = providers[each.id].seen
            assert each.limits.rpm is None or seen.most(lambda prompt, output: 1) <= each.limits.rpm, seed
            assert each.limits.tpm is None or seen.most(lambda prompt, output: prompt + output) <= each.limits.tpm, seed
    for ask in town.asks:
        assert ask.end is not None, seed
        if isinstance(ask.end, (Done, Fail)):
            assert ask.call.attempts == len(ask.sent) <= ask.call.policy.tries
            assert ask.call.waited_s <= ask.call.policy.max_wait_s + 1e-6
    town.now += 3600
    calm = town.book(town.ask(town.now, 1, 1)).snapshot(town.plan)
    assert all(calm.of(d.id).in_flight == 0 for link in town.plan.links for d in link.deployments)
    kept = json.dumps(town.documents)
    assert json.loads(kept) == town.documents
    return town.documents


@pytest.mark.parametrize("part", range(4))
def test_whatever_providers_do_the_limits_hold_and_every_call_ends(part: int):
    for seed in range(part * 6, (part + 1) * 6):
        live(seed)


def test_equal_seeds_leave_equal_documents():
    for seed in range(3):
        assert live(seed) == live(seed)


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_the_limits_hold_in_many_towns(part: int):
    for seed in range(1000 + part * 100, 1000 + (part + 1) * 100):
        live(seed)
