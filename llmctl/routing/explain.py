"""Why each deployment is asked, or not: a decision of the call machine in words that a person understands.

Nothing is decided here. It reads what the machine read (plan, snapshot, strategy) and what it decided, and says of
every candidate which rule it met first: cooldown, limits, a probe under way, its place in the chain, its load. A reason
has no subject, because it stands beside the deployment's id: "slower: 3.4 s expected".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from llmctl.routing.balance import DRAWN, IN_TURN, NO_PRICE, STRATEGIES, expected_s
from llmctl.routing.call import Send, Wait
from llmctl.routing.limits import METERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import Deployment, Limits
    from llmctl.core.snapshot import DeploymentState, Snapshot
    from llmctl.routing.call import Done, Fail
    from llmctl.routing.plan import Plan

LATER = "later in the chain: asked when the ones before it cannot be"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployment of a plan at one decision. `link` counts from 1; None for one that was left out of the chain.

    `latency_ms` is the expected time to the whole answer to this request, None where nothing was measured yet.
    `headroom` has the requests and tokens that are left of this minute, None where there is no limit.
    """

    deployment: Deployment
    link: int | None
    chosen: bool
    reason: str
    headroom: Mapping[str, int | None]
    latency_ms: float | None = None
    in_flight: int = 0
    cooldown_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The row that `route test --json` prints."""
        row = {name: getattr(self, name) for name in self.__slots__ if name != "link"}
        return row | {"deployment": self.deployment.id, "headroom": dict(self.headroom)}


def explain(
    plan: Plan,
    snapshot: Snapshot,
    now: float,
    decision: Send | Wait | Done | Fail,
    strategy: str | None = None,
    failed: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """All candidates of `plan` with their reasons, in the order of the chain; those left out come last.

    `strategy` is the call's own, if it has one; `failed` names the error classes of the attempts before, by id.
    """
    asked = decision.deployment if isinstance(decision, Send) else None
    target = decision.target if isinstance(decision, Wait) else asked
    looked = _Look(plan, snapshot, now, decision, target, strategy, failed or {})
    rows = [
        candidate(each, n, snapshot, now, looked.reason(each, n - 1), chosen=each is target)
        for n, link in enumerate(plan.links, 1)
        for each in link.deployments
    ]
    none = dict.fromkeys(("rpm", "tpm"), None)
    left_out = (
        Candidate(out.deployment, None, False, f"left out: {out.reason.message}", none) for out in plan.left_out
    )
    return [*rows, *left_out]


def candidate(
    deployment: Deployment, link: int, snapshot: Snapshot, now: float, reason: str, *, chosen: bool = False
) -> Candidate:
    """What is known of `deployment`, with the reason that was found."""
    state = snapshot.of(deployment.id)
    return Candidate(
        deployment,
        link,
        chosen,
        reason,
        {meter: int(state.headroom[meter]) if meter in state.headroom else None for meter in ("rpm", "tpm")},
        round(1000 * expected_s(state, snapshot), 1) if state.measured_at else None,
        state.in_flight,
        round(max(0.0, state.cooldown_until - now, state.blocked_until - now), 3),
    )


def kept_out(deployment: Deployment, snapshot: Snapshot, now: float) -> str:
    """Why it cannot start at once; "" when it can."""
    state = snapshot.of(deployment.id)
    if state.cooldown_until > now:
        return f"cooling for {span(state.cooldown_until - now)}" + (f" after {state.why}" if state.why else "")
    if state.headroom_at == inf:
        return f"the request is larger than its limit: {_declared(deployment.limits)}"
    if state.blocked_until > now and state.blocked_until >= state.headroom_at:
        return f"it refused a call for throughput: free in {span(state.blocked_until - now)}"
    if state.headroom_at > now:
        full = ", ".join(_full(deployment.limits, state, snapshot))
        return f"at its limit{full and ': '}{full}, free in {span(state.headroom_at - now)}"
    if state.half_open and state.probed_until > now:
        return "half-open: another call is trying it out"
    return ""


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    return f"{ceil(seconds)} s" if seconds < 120 else f"{ceil(seconds / 60)} min"


def _declared(limits: Limits) -> str:
    words = [f"{meter} {n:,}" for meter in METERS if (n := getattr(limits, meter)) is not None]
    return ", ".join(words) or "what the provider last said of it"


def _full(limits: Limits, state: DeploymentState, snapshot: Snapshot) -> list[str]:
    """The limits that have too little left for this request."""
    needs = dict(zip(METERS, (1, snapshot.prompt_tokens + snapshot.output_tokens), strict=False))
    needs |= {"itpm": snapshot.prompt_tokens, "otpm": snapshot.output_tokens}
    words: list[str] = []
    for meter in METERS:
        room, limit = state.headroom.get(meter), getattr(limits, meter)
        if room is None or room >= max(1, needs[meter]):
            continue
        if limit is None:
            words.append(f"{meter} {int(room):,} left")
        elif meter == "rpm":
            words.append(f"rpm {int(limit - room)}/{limit}")
        else:
            words.append(f"{meter} {int(room):,} left of {limit:,}")
    if limits.max_parallel is not None and state.in_flight >= limits.max_parallel:
        words.append(f"{state.in_flight}/{limits.max_parallel} in flight")
    return words


@dataclass(frozen=True, slots=True)
class _Look:
    """One decision, to be told: what it was made on, and whom it is for (None at the end of a call)."""

    plan: Plan
    snapshot: Snapshot
    now: float
    decision: Send | Wait | Done | Fail
    target: Deployment | None
    strategy: str | None
    failed: Mapping[str, str]

    def reason(self, deployment: Deployment, link: int) -> str:
        """Why `deployment`, of this link, is asked or is not."""
        name = self.strategy or self.plan.links[link].group.strategy
        if deployment is self.target:
            return f"chosen: {self._why_chosen(deployment, name)}"
        return self._why_not(deployment, link, name)

    def _why_chosen(self, deployment: Deployment, name: str) -> str:
        snapshot, now, decision = self.snapshot, self.now, self.decision
        if isinstance(decision, Wait):
            obstacle = kept_out(deployment, snapshot, now)
            first = f"its answer is expected first; {obstacle}"
            return first if obstacle else f"it is asked again after a pause of {span(decision.until - now)}"
        assert isinstance(decision, Send), "nobody is chosen at the end of a call"
        if snapshot.of(deployment.id).cooldown_until > now:
            return f"no other can be asked, so it is, though {kept_out(deployment, snapshot, now)}"
        strategy = STRATEGIES[name]
        if decision.reason != strategy.words:
            return decision.reason
        load = strategy.load(deployment, snapshot, now)
        unit, unknown = UNITS.get(name), not snapshot.of(deployment.id).measured_at
        guess = ", a guess: nothing was measured yet" if name == "adaptive" and unknown else ""
        return strategy.words + (f" ({unit(load)}{guess})" if unit else "")

    def _why_not(self, deployment: Deployment, link: int, name: str) -> str:
        target, decision = self.target, self.decision
        if deployment.id in self.failed:
            return f"asked before: {self.failed[deployment.id]}"
        obstacle = kept_out(deployment, self.snapshot, self.now)
        if obstacle:
            return obstacle
        if target is None:
            return "ruled out by the failures before" if self.failed else "the call ends before it is asked"
        chosen_link = self.plan.link_of(target)
        if link > chosen_link:
            return LATER
        if link < chosen_link or not isinstance(decision, Send):
            return "ruled out by the failures before"
        if decision.probe and decision.reason != STRATEGIES[name].words:
            return f"passed over: {target.id} is tried out by this call"
        if decision.reason in NOT_PICKED:
            return NOT_PICKED[decision.reason]
        own, best = (STRATEGIES[name].load(each, self.snapshot, self.now) for each in (deployment, target))
        return OTHERS[name](deployment, own, best)


def _dollars(nanousd: float) -> str:
    return "its price is unknown" if nanousd == inf else f"${nanousd / 1e9:.6f}"


UNITS: dict[str, Callable[[float], str]] = {
    "adaptive": span,
    "least-busy": lambda load: f"{load:.0f} under way",
    "latency-based-routing": lambda load: f"{load:.3g} s",
    "usage-based-routing": lambda load: f"{load:,.0f} tokens",
    "cost-based-routing": _dollars,
}
"""How the load of a strategy is told."""

OTHERS: dict[str, Callable[[Deployment, float, float], str]] = {
    "adaptive": lambda _, own, best: f"{'slower' if own > best else 'no faster'}: {span(own)} expected",
    "ordered": lambda *_: "written after it",
    "simple-shuffle": lambda d, *_: f"not drawn this time (weight {d.weight:g})",
    "round-robin": lambda *_: "not its turn",
    "least-busy": lambda _, own, best: f"{'busier' if own > best else 'as busy'}: {own:.0f} under way",
    "latency-based-routing": lambda _, own, best: (
        f"{'slower' if own > best else 'as fast'}: {own:.3g} s lately"
        if own >= best
        else "no answer of the last minute: asked when drawn"
    ),
    "usage-based-routing": lambda _, own, best: (
        f"it has used {'more' if own > best else 'as many'} tokens this minute: {own:,.0f}"
    ),
    "cost-based-routing": lambda _, own, best: (
        f"{'dearer' if own > best else 'as dear'}: {_dollars(own)}" if own < inf else _dollars(own)
    ),
}
"""Strategy -> what is said of one that could start and was not picked, from its load and that of the one picked."""
NOT_PICKED = {IN_TURN: "not its turn", DRAWN: "not drawn this time", NO_PRICE: "its price is unknown"}
"""The same where the pick did not look at the load, by its reason."""


def breaker(state: DeploymentState, now: float) -> str:
    """closed: it is asked; open: it rests; half-open: one call at a time tries it out."""
    if state.cooldown_until > now:
        return "open"
    return "half-open" if state.half_open else "closed"
