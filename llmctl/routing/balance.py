"""Strategies: which of the deployments that can start now is asked. A strategy is a load metric and a pick rule.

`STRATEGIES` is the table. A load says what asking a deployment costs, and the lowest is best; a pick says how the loads
are used. Limits, cooldowns and capabilities have been applied before: here everybody may start. Explicit probes are
beside the strategies: whom nobody has heard of lately is tried out by one call at a time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.types import Usage
from llmctl.routing.health import whole_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.core.snapshot import DeploymentState, Snapshot

    Dice = Callable[[], float]
    Load = Callable[[Deployment, Snapshot, float], float]
    Picked = tuple[Deployment, str]
    Pick = Callable[[Sequence[Deployment], Load, Snapshot, float, Dice], Picked]

EPSILON = 0.1
STALE_S = 60.0
PROBE_AFTER_S = 15.0
PROBE_EVERY = 8
"""At most one call in so many tries out a deployment for its own sake."""
SLOW_START_S = 30.0
IN_TURN = "its turn, while no answer of the last minute says who is fast"
DRAWN = "drawn: one call in ten goes to any"
NO_PRICE = "drawn: no price is known"
FILL = 0.25
"""How much slower a deployment counts when nothing is left of its limits: what is nearly full is kept for later."""


class Strategy(NamedTuple):
    """A row of the table; `words` say in what its pick is best, for people; `probes` whether it needs fresh estimates.

    A pick gives its own reason where it looked at something else than the load, "" where `words` are true.
    """

    load: Load
    pick: Pick
    words: str
    probes: bool = False


class Choice(NamedTuple):
    """Who is asked and why; `probe` when it is tried out."""

    deployment: Deployment
    reason: str
    probe: bool = False


def choose(name: str, ready: Sequence[Deployment], snapshot: Snapshot, now: float, dice: Dice) -> Choice:
    """Who of `ready` (not empty) is asked under the strategy `name`."""
    strategy = STRATEGIES[name]
    if len(ready) == 1:
        probe = snapshot.of(ready[0].id).half_open
        return Choice(
            ready[0], "half-open: one call tries it out" if probe else "the only one of its group that can start", probe
        )
    if strategy.probes:
        tried = _to_probe(ready, snapshot, now)
        if tried is not None:
            return tried
    picked, why = strategy.pick(ready, strategy.load, snapshot, now, dice)
    return Choice(picked, why or strategy.words, snapshot.of(picked.id).half_open)


def _to_probe(ready: Sequence[Deployment], snapshot: Snapshot, now: float) -> Choice | None:
    half_open = next((d for d in ready if snapshot.of(d.id).half_open), None)
    if half_open is not None:
        return Choice(half_open, "half-open: one call tries it out", probe=True)
    if snapshot.since_probe < PROBE_EVERY:
        return None
    silent = [d for d in ready if not snapshot.of(d.id).overdue_s]  # who has not answered yet is not asked again
    if not silent:
        return None
    stale = min(silent, key=lambda d: max(snapshot.of(d.id).measured_at, snapshot.of(d.id).probed_until))
    state = snapshot.of(stale.id)
    if max(state.measured_at + PROBE_AFTER_S, state.probed_until) > now:
        return None
    return Choice(stale, "nobody has heard of it lately: one call tries it out", probe=True)


def expected_s(state: DeploymentState, snapshot: Snapshot) -> float:
    """How long a whole answer to this request is expected to take, on an idle deployment."""
    return whole_s(state.first_token_s, state.per_token_s, snapshot.prompt_tokens, snapshot.output_tokens)


# ---------------------------------------------------------------- load metrics


def by_speed(deployment: Deployment, snapshot: Snapshot, now: float) -> float:
    """The expected seconds to a whole answer, more where many are under way, little is left, or something is wrong."""
    state = snapshot.of(deployment.id)
    seconds = max(expected_s(state, snapshot), state.overdue_s)
    seconds *= 1 + state.in_flight / state.width
    seconds *= 1 + FILL * min(1.0, state.fill) ** 2
    seconds *= 1 + state.fails
    back_s = now - state.back_at
    if back_s < SLOW_START_S:
        seconds *= 1 + (1 - back_s / SLOW_START_S) * state.in_flight
    return seconds


def by_place(deployment: Deployment, snapshot: Snapshot, now: float) -> float:  # noqa: ARG001 - a load metric
    """All alike."""
    return 0.0


def by_requests(deployment: Deployment, snapshot: Snapshot, now: float) -> float:  # noqa: ARG001
    """The requests under way."""
    return snapshot.of(deployment.id).in_flight


def by_latency(deployment: Deployment, snapshot: Snapshot, now: float) -> float:  # noqa: ARG001
    """The mean of the last samples: seconds to the first token, or per token of answers that came whole."""
    samples = snapshot.of(deployment.id).samples
    return sum(s for _, s in samples) / len(samples) if samples else 0.0


def by_usage(deployment: Deployment, snapshot: Snapshot, now: float) -> float:  # noqa: ARG001
    """The tokens of the last minute."""
    return snapshot.of(deployment.id).used_tokens


def by_cost(deployment: Deployment, snapshot: Snapshot, now: float) -> float:  # noqa: ARG001
    """What the request is expected to cost, in nano-dollars; an unknown price comes last."""
    if deployment.price is None:
        return inf
    return deployment.price.cost_nanousd(Usage(snapshot.prompt_tokens, snapshot.output_tokens))


# ---------------------------------------------------------------- pick rules


def first(ready: Sequence[Deployment], load: Load, snapshot: Snapshot, now: float, dice: Dice) -> Picked:
    """The first of the least load, as they are written."""
    del dice
    return min(ready, key=lambda d: load(d, snapshot, now)), ""


def least(ready: Sequence[Deployment], load: Load, snapshot: Snapshot, now: float, dice: Dice) -> Picked:
    """The least load; any of those that share it."""
    loads = [load(d, snapshot, now) for d in ready]
    best = [d for d, each in zip(ready, loads, strict=True) if each == min(loads)]
    return best[int(dice() * len(best))], "" if min(loads) < inf else NO_PRICE


def weighted(ready: Sequence[Deployment], load: Load, snapshot: Snapshot, now: float, dice: Dice) -> Picked:
    """At random, each by its weight."""
    del load, snapshot, now
    left = dice() * sum(d.weight for d in ready)
    for deployment in ready:
        left -= deployment.weight
        if left < 0:
            return deployment, ""
    return ready[-1], ""


def in_turn(ready: Sequence[Deployment], load: Load, snapshot: Snapshot, now: float, dice: Dice) -> Picked:
    """Each in its turn."""
    del load, now, dice
    return ready[snapshot.turn % len(ready)], ""


def epsilon_greedy(ready: Sequence[Deployment], load: Load, snapshot: Snapshot, now: float, dice: Dice) -> Picked:
    """The least load nine times in ten, else any; each in its turn while nothing is known of the last 60 s."""
    fresh = [d for d in ready if any(at > now - STALE_S for at, _ in snapshot.of(d.id).samples)]
    if not fresh:
        return in_turn(ready, load, snapshot, now, dice)[0], IN_TURN
    if dice() < EPSILON:
        return ready[int(dice() * len(ready))], DRAWN
    return least(fresh, load, snapshot, now, dice)


STRATEGIES: dict[str, Strategy] = {
    "adaptive": Strategy(by_speed, least, "the fastest whole answer is expected from it", probes=True),
    "ordered": Strategy(by_place, first, "the first that can start, as they are written"),
    "simple-shuffle": Strategy(by_place, weighted, "drawn at random, by weight"),
    "round-robin": Strategy(by_place, in_turn, "its turn"),
    "least-busy": Strategy(by_requests, least, "it has the fewest requests under way"),
    "latency-based-routing": Strategy(by_latency, epsilon_greedy, "its last answers were the fastest"),
    "usage-based-routing": Strategy(by_usage, least, "it has used the fewest tokens this minute"),
    "cost-based-routing": Strategy(by_cost, least, "it is the cheapest"),
}
