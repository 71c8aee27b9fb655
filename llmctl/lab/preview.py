"""A decision without its call: whom the machine would ask now, and why, on copies of what all calls share.

Nothing is sent, reserved or kept. It is the call machine itself that decides, so what is shown here is what `ask` does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.money import usd
from llmctl.core.types import Usage
from llmctl.routing.balance import expected_s
from llmctl.routing.book import Size, step
from llmctl.routing.call import Call, Fail, Send, Wait
from llmctl.routing.explain import explain
from llmctl.routing.settle import Outcome
from llmctl.run.accounts import estimate_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.snapshot import Snapshot
    from llmctl.routing.call import Done
    from llmctl.routing.explain import Candidate
    from llmctl.routing.plan import Plan
    from llmctl.run.asking import Ask
    from llmctl.run.engine import CallRun, Engine
    from llmctl.run.shared import Place

_SPREAD = 0.2
"""By how much the made-up answers of `distribution` vary around their expected length."""
_NEXT_S = 1.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a call would do next. `target` is whom it would ask, None when it would fail with `decision.error`.

    `distribution` counts the targets of repeated decisions, by id; `refused` those that would have failed.
    """

    ask: Ask
    decision: Send | Wait | Done | Fail
    candidates: list[Candidate]
    snapshot: Snapshot
    now: float
    distribution: Mapping[str, int]
    refused: int = 0

    @property
    def target(self) -> Deployment | None:
        """Whom it would ask."""
        return next((each.deployment for each in self.candidates if each.chosen), None)

    @property
    def exit(self) -> int:
        """The exit code of a call that would fail, else 0."""
        return self.decision.exit if isinstance(self.decision, Fail) else 0

    @property
    def start_in_s(self) -> float:
        """In how many seconds it would be asked."""
        return max(0.0, self.decision.until - self.now) if isinstance(self.decision, Wait) else 0.0

    def as_json(self) -> dict[str, Any]:
        """The document of `route test --json` (contract, section 12)."""
        return {
            "model": self.ask.plan.name,
            "prompt_tokens": self.snapshot.prompt_tokens,
            "decision": self._decision(),
            "candidates": [each.as_json() for each in self.candidates],
            "chain": [
                {"link": n, "model": link.group.name, "deployments": [each.id for each in link.deployments]}
                for n, link in enumerate(self.ask.plan.links, 1)
            ],
            "complexity": None,
        }

    def _decision(self) -> dict[str, Any]:
        target, plan = self.target, self.ask.plan
        link = plan.link(target) if target else plan.links[0]
        row: dict[str, Any] = {
            "deployment": target.id if target else None,
            "provider": target.provider.name if target else None,
            "model": target.model if target else None,
            "strategy": self.ask.policy.strategy or link.group.strategy,
            "start_in_ms": round(1000 * self.start_in_s, 1) if target else None,
            "est_cost_usd": self.cost_usd(target) if target else None,
        }
        if isinstance(self.decision, Fail):
            error = self.decision.error
            row["error"] = {"type": error.kind, "message": error.message, "hint": error.hint or None}
        return row

    def cost_usd(self, deployment: Deployment) -> float | None:
        """What the answer of its expected length would cost; None when the price is unknown."""
        used = Usage(self.snapshot.prompt_tokens, self.snapshot.output_tokens)
        return usd(deployment.price.cost_nanousd(used)) if deployment.price else None


async def preview(engine: Engine, run: CallRun, repeat: int = 0) -> Preview:
    """What `run`, which has not begun, would do now; and what `repeat` calls like it would, one after the other."""
    ask, now = run.ask, engine.clock.now()
    prompt = estimate_prompt(ask.request) if ask.prompt_tokens is None else ask.prompt_tokens
    place = engine.shared.place(ask.plan, run.record.id, Size(prompt, ask.request.params.max_tokens))
    documents = await place.copy()
    again = await place.copy() if repeat else {}
    decision, snapshot = step(run.call, place.open(documents, now))
    candidates = explain(ask.plan, snapshot, now, decision, ask.policy.strategy)
    counted, refused = _repeated(engine, ask, place, again, repeat) if repeat else (Counter[str](), 0)
    return Preview(ask, decision, candidates, snapshot, now, counted, refused)


def _repeated(
    engine: Engine, ask: Ask, place: Place, documents: dict[str, Any], times: int
) -> tuple[Counter[str], int]:
    """Whom so many calls would ask, each begun when the one before it has its answer; how many would be refused.

    Time is simulated: waits take none, and each answer comes whole after about its expected length.
    """
    now, dice = engine.clock.now(), engine.shared.dice
    counted = Counter({each.id: 0 for each in ask.plan.deployments})
    refused = 0
    for n in range(times):
        name = f"preview-{n}"
        call = Call(ask.plan, ask.policy, started=now, dice=dice)
        decision, snapshot = step(call, place.open(documents, now, name))
        while isinstance(decision, Wait):
            now = max(now, decision.until)
            decision, snapshot = step(call, place.open(documents, now, name))
        if not isinstance(decision, Send):
            refused += 1
            now += _NEXT_S
            continue
        outcome = _answered(decision.deployment, snapshot, now, 1 + _SPREAD * (2 * dice() - 1))
        now = outcome.ended
        place.open(documents, now, name).settle(decision.deployment, outcome, dice)
        counted[decision.deployment.id] += 1
    return counted, refused


def _answered(deployment: Deployment, snapshot: Snapshot, now: float, factor: float) -> Outcome:
    """A whole answer after `factor` times its expected length."""
    state, output = snapshot.of(deployment.id), snapshot.output_tokens
    took_s = factor * expected_s(state, snapshot)
    first_s = took_s - factor * output * state.per_token_s
    return Outcome(
        now,
        now + took_s,
        heard=now + first_s,
        first_token_s=first_s,
        latency_s=took_s,
        input_tokens=snapshot.prompt_tokens,
        output_tokens=output,
    )


async def survey(engine: Engine, plans: Iterable[Plan]) -> list[tuple[Plan, Snapshot, float]]:
    """What is known now of the deployments of each plan, for a call of average length; and the instant."""
    known = []
    for plan in plans:
        place = engine.shared.place(plan, "survey", Size(0))
        documents, now = await place.copy(), engine.clock.now()
        known.append((plan, place.open(documents, now).snapshot(plan), now))
    return known
