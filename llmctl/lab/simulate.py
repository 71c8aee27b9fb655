"""What a configuration would have done: the real call machine and book, driven by a trace on a virtual clock.

A discrete-event simulation: a heap of instants, no event loop, nothing sent, nothing written. Every decision is that of
`routing`; only the providers are models (`lab/providers`). Equal seeds give equal results, and a request has the same
luck under every strategy, so that two columns differ by their decisions alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import DeadlineExceeded
from llmctl.core.money import usd
from llmctl.core.sketch import percentile
from llmctl.core.types import Usage
from llmctl.lab.providers import Asked, Quota
from llmctl.routing.book import Book, Size, step
from llmctl.routing.call import Call, Ended, Fail, Failed, Send, Wait
from llmctl.routing.limits import LEASE_S, MINUTE_S
from llmctl.routing.settle import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmctl.core.catalog import Deployment, Settings
    from llmctl.lab.providers import Fault, Reply, Speed
    from llmctl.lab.traces import Row
    from llmctl.routing.book import Keys
    from llmctl.routing.call import Done
    from llmctl.routing.plan import Plan
    from llmctl.routing.policy import Policy

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z: where the trace's first request is put
ESTIMATE_SPREAD = 0.08
"""How far our estimate of a prompt's tokens is from the provider's count: one standard deviation."""
FIRST_TOKEN_SPREAD, PACE_SPREAD = 0.35, 0.1
"""Of the logarithm of both speeds."""
_RENEW_S = LEASE_S / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is the same under every strategy. `keys`, `speeds` are by deployment id; `max_tokens` caps each answer."""

    plan: Plan
    keys: Mapping[str, Keys]
    settings: Settings
    speeds: Mapping[str, Speed]
    faults: Sequence[Fault] = ()
    max_tokens: int | None = None
    seed: int = 0


@dataclass(slots=True)
class Result:
    """What would have happened under one strategy; seconds. `sent` are (instant since the beginning, deployment id).

    `tallies` count what came of the attempts at each deployment: calls (answered), refused, failed, and tokens.
    """

    strategy: str
    world: World
    quotas: dict[str, Quota]
    tallies: dict[str, Counter[str]]
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    waited: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    makespan_s: float = 0.0
    sent: list[tuple[float, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The result as `route simulate --json` shows it."""
        rows = [self._of(deployment) for deployment in self.world.plan.deployments]
        costs = [row["cost_usd"] for row in rows if row["calls"]]
        return {
            "strategy": self.strategy,
            "calls": self.calls,
            "failed": self.failures.total(),
            "failed_by": dict(self.failures.most_common()),
            "attempts": len(self.sent),
            "refused": sum(row["refused"] for row in rows),
            "waited_s": {f"p{p}": percentile(self.waited, p, 3) for p in (50, 95)},
            "latency_s": {f"p{p}": percentile(self.latencies, p, 3) for p in (50, 95, 99)},
            "makespan_s": round(self.makespan_s, 3),
            "cost_usd": None if None in costs else round(sum(costs), 9),
            "deployments": rows,
        }

    def _of(self, deployment: Deployment) -> dict[str, Any]:
        tally, speed = self.tallies[deployment.id], self.world.speeds[deployment.id]
        quota = self.quotas[self.world.keys[deployment.id].quota]
        usage = Usage(tally["input_tokens"], tally["output_tokens"])
        return {
            "deployment": deployment.id,
            "served_by": deployment.served_by,
            "calls": tally["calls"],
            "share": round(tally["calls"] / max(1, self.calls), 4),
            **{each: tally[each] for each in ("refused", "failed", "input_tokens", "output_tokens")},
            "utilisation": quota.utilisation(self.makespan_s),
            "cost_usd": usd(deployment.price.cost_nanousd(usage)) if deployment.price else None,
            "speed": {
                "first_token_s": round(speed.first_token_s, 4), "per_token_s": round(speed.per_token_s, 5),
                "from": speed.source,
            },
        }  # fmt: skip


def simulate(trace: Sequence[Row], world: World, policy: Policy) -> Result:
    """What would have happened to the requests of `trace` (not empty, in order) under `policy`."""
    simulation = _Simulation(trace, world, policy)
    simulation.run()
    return simulation.result


@dataclass(slots=True, eq=False)
class _Run:
    """One call on its way. `reply` is that of the attempt under way."""

    id: str
    call: Call
    asked: Asked
    size: Size
    started: float
    reply: Reply | None = None


class _Simulation:
    """One strategy's run: the shared documents, the providers, and what is going to happen."""

    def __init__(self, trace: Sequence[Row], world: World, policy: Policy) -> None:
        self._trace, self._world, self._policy = trace, world, policy
        self._luck, phases = Random(world.seed), Random(world.seed + 1)  # noqa: S311 - no secret depends on them
        self._dice = Random(world.seed + 2).random  # noqa: S311
        self._documents: dict[str, Any] = {}
        self._coming: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        sharing: dict[str, list[Deployment]] = {}
        for each in world.plan.deployments:
            sharing.setdefault(world.keys[each.id].quota, []).append(each)
        quotas = {key: Quota(those, phases.random() * MINUTE_S) for key, those in sharing.items()}
        strategy = policy.strategy or world.plan.links[0].group.strategy
        self.result = Result(strategy, world, quotas, {each.id: Counter() for each in world.plan.deployments})

    def run(self) -> None:
        """Let everything happen, in order."""
        self._at(START + self._trace[0].at, partial(self._begin, 0))
        while self._coming:
            now, _, do = heappop(self._coming)
            do(now)

    def _at(self, instant: float, do: Callable[[float], None]) -> None:
        heappush(self._coming, (instant, next(self._numbers), do))

    def _begin(self, n: int, now: float) -> None:
        """The n-th call is made; the next one is on its way."""
        world, row, luck = self._world, self._trace[n], self._luck
        if n + 1 < len(self._trace):
            self._at(START + self._trace[n + 1].at, partial(self._begin, n + 1))
        estimated = max(1, round(row.input_tokens * max(0.1, luck.gauss(1, ESTIMATE_SPREAD))))
        speeds = luck.lognormvariate(0, FIRST_TOKEN_SPREAD), luck.lognormvariate(0, PACE_SPREAD)
        call = Call(world.plan, self._policy, started=now, dice=self._dice)
        asked = Asked(row.input_tokens, row.output_tokens, luck=speeds)
        self.result.calls += 1
        self._step(_Run(str(n), call, asked, Size(estimated, world.max_tokens), now), now)

    def _step(self, run: _Run, now: float) -> None:
        decision, _ = step(run.call, self._book(run, now))
        match decision:
            case Send():
                self._send(run, decision, now)
            case Wait():
                for n in range(1, int((decision.until - now) / _RENEW_S) + 1):
                    self._at(now + n * _RENEW_S, lambda at: self._book(run, at).renew(decision.target))
                self._at(decision.until, partial(self._step, run))
            case _:
                self._finish(run, decision, now)

    def _send(self, run: _Run, send: Send, now: float) -> None:
        """The provider is asked; what comes of it is known, and happens at its time."""
        world, deployment = self._world, send.deployment
        caps = (world.max_tokens, deployment.params.max_tokens)
        asked = replace(run.asked, cap=next((cap for cap in caps if cap is not None), None))
        patience_s = world.settings.first_token_of(deployment)
        fault = next((each for each in world.faults if each.holds(deployment, now - START)), None)
        quota = self.result.quotas[world.keys[deployment.id].quota]
        reply = quota.ask(deployment, asked, world.speeds[deployment.id], now, fault, patience_s)
        if reply.ended > now + send.remaining_s:
            error = DeadlineExceeded("out of time")
            reply = replace(reply, ended=now + send.remaining_s, error=error, first_token_s=None, output=0)
        run.reply = reply
        self.result.sent.append((now - START, deployment.id))
        self._at(reply.ended, partial(self._end, run, deployment, asked))
        self._at(now + _RENEW_S, partial(self._renew, run, deployment, reply))

    def _renew(self, run: _Run, deployment: Deployment, reply: Reply, now: float) -> None:
        """Its reservation is held on to, as the engine does, while the attempt is under way."""
        if run.reply is reply:
            self._book(run, now).renew(deployment)
            self._at(now + _RENEW_S, partial(self._renew, run, deployment, reply))

    def _end(self, run: _Run, deployment: Deployment, asked: Asked, now: float) -> None:
        """The attempt has ended: the provider counts it, the book settles it, the call goes on."""
        reply, run.reply = run.reply, None
        assert reply is not None, "an attempt that ends was under way"
        self.result.quotas[self._world.keys[deployment.id].quota].settle(deployment, asked, reply)
        self._book(run, now).settle(deployment, _outcome(asked, reply), self._dice)
        run.call.heard(Ended() if reply.error is None else Failed(reply.error, now))
        tally = self.result.tallies[deployment.id]
        if reply.error is None:
            tally.update(calls=1, input_tokens=asked.prompt, output_tokens=reply.output)
        else:
            tally["refused" if reply.error.kind == "RateLimited" else "failed"] += 1
        self._step(run, now)

    def _finish(self, run: _Run, end: Done | Fail, now: float) -> None:
        result = self.result
        result.makespan_s = max(result.makespan_s, now - START)
        result.waited.append(run.call.waited_s)
        if isinstance(end, Fail):
            result.failures[end.error.kind] += 1
        else:
            result.latencies.append(now - run.started)

    def _book(self, run: _Run, now: float) -> Book:
        return Book(self._documents, self._world.keys, self._world.plan.name, run.id, now, run.size)


def _outcome(asked: Asked, reply: Reply) -> Outcome:
    """The end of an attempt as the engine tells it: tokens are known of whole answers only."""
    whole, throttled = reply.error is None, reply.error is not None and reply.error.status is not None
    heard_s = reply.first_token_s if whole else reply.ended - reply.sent if throttled else None
    return Outcome(
        reply.sent,
        reply.ended,
        heard=None if heard_s is None else reply.sent + heard_s,
        error=reply.error,
        first_token_s=reply.first_token_s,
        latency_s=reply.ended - reply.sent if whole else None,
        input_tokens=asked.prompt if whole else None,
        output_tokens=reply.output if whole else None,
        said=reply.said,
    )
