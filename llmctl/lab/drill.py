"""A drill: which scenarios are rehearsed on which chain, what they may cost, and what came of each.

Offline, every target is answered by a scripted provider that speaks its own wire: no key and no network is needed.
Live, only what a fault strikes stays on this machine; the rest is really asked, and charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.client import Client
from llmctl.core.errors import BudgetExceeded, LlmctlError, UsageError
from llmctl.core.money import NANO
from llmctl.core.support import too_long
from llmctl.core.types import Message, Request, Text, Usage
from llmctl.lab.chain import read_chain
from llmctl.lab.rehearsal import Stage, scripted
from llmctl.lab.scenarios import DEFAULT, Scenario, injected, matrix, schedules
from llmctl.lab.verdict import Verdict, judge
from llmctl.run.accounts import estimate_prompt
from llmctl.run.endpoint import Endpoints
from llmctl.wire.base import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.lab.expectations import Expectations
    from llmctl.run.engine import CallRun

PROMPT = "This is a fallback drill. Say in one short sentence that you can be reached."
EXPECTED_OUTPUT = 200
"""The output tokens that an answer is expected to have at most, where no max_tokens says it."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What is asked for. `inject` holds TARGET=FAULT words; `speed` is how much faster than the world time runs.

    `max_cost_usd` caps what a live drill may spend, None does not.
    """

    model: str
    live: bool
    inject: tuple[str, ...] = ()
    matrix: bool = False
    prompt: str = PROMPT
    speed: float = 50.0
    seed: int = 0
    streamed: bool = False
    max_cost_usd: float | None = None


Play = tuple[Stage, Scenario]
"""A scenario, and where it is played."""


def stage(client: Client, drill: Drill, environ: Mapping[str, str]) -> Stage:
    """Where the drill's scenarios are played. Raises UsageError for a chain of one: it has nothing to fall back to."""
    prompt_tokens = tokens_of(drill.prompt)
    if not drill.live:
        client = offline(client, drill.model, environ)

    closed = client.obstacle(drill.model)

    def obstacle(deployment: Deployment) -> LlmctlError | None:
        return closed(deployment) or too_long(prompt_tokens, deployment)

    chain = read_chain(client.catalog, drill.model, obstacle)
    if len(chain.members) == 1:
        raise UsageError(
            f"the chain of {drill.model!r} has one member: there is nothing to fall back to",
            hint=f"add fallbacks to [models.{drill.model}], or name a group that has some: `llmctl route list`",
        )
    for protocol in {member.deployment.provider.protocol for member in chain.able()}:
        load(protocol)  # while a scenario is played, the time that takes would count `speed` times
    return Stage(client, chain, drill.prompt, prompt_tokens, drill.live, drill.speed, drill.seed)


def offline(client: Client, model: str, environ: Mapping[str, str]) -> Client:
    """`client` with a chain that needs no key and no network; its calls go to the same ledger, and cost nothing."""
    chain = read_chain(client.catalog, model, lambda _: None)
    unbounded = {name: value for name, value in environ.items() if name != "LLMCTL_OFFLINE"}  # nothing leaves anyway
    catalog = scripted(client.catalog, chain)
    return Client(catalog, environ=environ, endpoints=Endpoints(unbounded), ledger=client.ledger)


def scenarios(drill: Drill, on: Stage) -> list[Scenario]:
    """What is rehearsed: the injections as one scenario, the matrix; the primary down where nothing is said.

    Raises UsageError for an unknown fault or target.
    """
    found: list[Scenario] = []
    if drill.inject or not drill.matrix:
        found.append(injected(drill.inject or (DEFAULT,), streamed=drill.streamed))
    if drill.matrix:
        found += matrix(on.chain, on.client.catalog.settings, streamed=drill.streamed)
    for each in found:
        schedules(on.chain, each)
    return found


def estimate_nanousd(play: Play, judge_nanousd: int | None = 0) -> int | None:
    """What a live scenario may cost: each call answered by the dearest that no fault keeps from it; None when unknown.

    `judge_nanousd` is what judging one answer costs.
    """
    on, scenario = play
    costs = [cost_of_answer(each, on.prompt_tokens) for each in open_in(on, scenario)]
    if judge_nanousd is None or None in costs:
        return None
    return scenario.calls * (judge_nanousd + max((cost for cost in costs if cost is not None), default=0))


def open_in(on: Stage, scenario: Scenario) -> list[Deployment]:
    """Who may come to answer in `scenario`: no fault keeps them from it for ever."""
    what = schedules(on.chain, scenario)
    return [m.deployment for m in on.chain.able() if (s := what.get(m.deployment.id)) is None or s.last is None]


def tokens_of(prompt: str) -> int:
    """The estimated input tokens of a call that asks just this."""
    return estimate_prompt(Request(messages=(Message("user", (Text(prompt),)),)))


def cost_of_answer(deployment: Deployment, prompt_tokens: int) -> int | None:
    """What one answer is expected to cost at most, in nano-dollars; None when the price is unknown."""
    if deployment.price is None:
        return None
    return deployment.price.cost_nanousd(Usage(prompt_tokens, deployment.params.max_tokens or EXPECTED_OUTPUT))


async def rehearse(
    plays: Sequence[Play],
    expectations: Expectations,
    *,
    max_cost_usd: float | None = None,
    begun: Callable[[CallRun], object] = lambda _: None,
    done: Callable[[Verdict], object] = lambda _: None,
) -> tuple[list[Verdict], int]:
    """The verdict of each scenario, in order, and what was spent in nano-dollars.

    `begun` is told before each call, `done` as each scenario ends. They are played one after the other: at once they
    would make each other's clocks late. A live one that might pass `max_cost_usd` is not played: it fails.
    """
    verdicts = []
    spent = 0
    for on, scenario in plays:
        capped = on.live and max_cost_usd is not None
        ahead = estimate_nanousd((on, scenario), expectations.judging_nanousd(on)) if capped else 0
        if max_cost_usd is not None and (ahead is None or spent + ahead > max_cost_usd * NANO):
            verdict = judge(on.unplayed(scenario, _too_dear(spent, ahead, max_cost_usd)))
        else:
            rehearsal = await on.play(scenario, begun)
            more, judging = await expectations.of(rehearsal, on, begun)
            spent += judging + sum(told.record.cost_nanousd or 0 for told in rehearsal.calls)
            verdict = judge(rehearsal, more)
        verdicts.append(verdict)
        done(verdict)
    return verdicts, spent


def _too_dear(spent: int, ahead: int | None, max_cost_usd: float) -> BudgetExceeded:
    what = "nobody knows what it costs" if ahead is None else f"it may cost ${ahead / NANO:.6f}"
    return BudgetExceeded(
        f"not played: ${spent / NANO:.6f} of --max-cost ${max_cost_usd:g} are spent, and {what}",
        hint="raise --max-cost, or say the price of each model of the chain",
    )
