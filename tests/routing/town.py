"""Callers and providers on one virtual clock: real calls and real documents, and providers as small models of theirs.

The laws of `routing/limits` and `routing/book` are judged by what the provider sees, not by what we believe.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from llmctl.core.catalog import Deployment, Group, Limits, Provider
from llmctl.core.errors import RateLimited
from llmctl.core.snapshot import Said
from llmctl.routing.book import Book, Keys, Size, step
from llmctl.routing.call import Call, Done, Ended, Fail, Failed, Send, Wait
from llmctl.routing.limits import LEASE_S
from llmctl.routing.plan import Link, Plan
from llmctl.routing.policy import Policy
from llmctl.routing.settle import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.errors import LlmctlError

T0 = 1_767_322_800.0
PATIENT = Policy(max_wait_s=3600.0, total_s=36000.0)


def deployment(
    name: str = "a", shape: str = "", charge: str = "settled", slice_s: float = 0.0, **limits: Any
) -> Deployment:
    """A deployment with declared limits, of a provider that refills them so."""
    provider = Provider("p", dialect={"shape": shape, "charge": charge, "slice_s": slice_s})
    return Deployment(name, provider, name, api_key=f"env:{name}", limits=Limits(**limits))


def keys_of(*deployments: Deployment) -> dict[str, Keys]:
    return {d.id: Keys(f"quota {d.id}", f"credential {d.api_key}") for d in deployments}


def plan_of(*deployments: Deployment, strategy: str = "adaptive") -> Plan:
    return Plan("g", (Link(Group("g", deployments, strategy), deployments),))


class Seen(Protocol):
    """A provider: what it answers to a request of so many tokens that arrives now."""

    def ask(self, now: float, prompt: int, output: int) -> tuple[LlmctlError | None, tuple[Said, ...]]:
        """Its refusal or None, and what its headers say."""


@dataclass
class Strict:
    """Counts what it sees, refuses nothing and says nothing."""

    seen: list[tuple[float, int, int]] = field(default_factory=list)

    def ask(self, now: float, prompt: int, output: int) -> tuple[LlmctlError | None, tuple[Said, ...]]:
        self.seen.append((now, prompt, output))
        return None, ()

    def most(self, amount: Callable[[int, int], int], span_s: float = 60.0) -> int:
        """The largest sum of `amount` in any sliding span."""
        found, first, total = 0, 0, 0
        for at, prompt, output in self.seen:
            total += amount(prompt, output)
            while self.seen[first][0] <= at - span_s:
                total -= amount(*self.seen[first][1:])
                first += 1
            found = max(found, total)
        return found


class Metered:
    """A provider that refuses what is over its limits, and says in every answer what remains.

    "bucket" refills all the time, "window" starts anew every minute at a phase of its own. `others` is the share of
    the tokens that somebody else takes, evenly.
    """

    def __init__(self, kind: str, *, rpm: int, tpm: int, phase: float = 0.0, others: float = 0.0, talks: bool = True):
        self.kind, self.limits, self.phase, self.others, self.talks = kind, (rpm, tpm), phase, others, talks
        self.level, self.at = [float(rpm), float(tpm)], T0
        self.refusals = self.answers = 0

    def _pass(self, now: float) -> None:
        for meter, limit in enumerate(self.limits):
            gone = now - self.at
            taken = self.others * limit * gone / 60 if meter else 0.0
            if self.kind == "bucket":
                self.level[meter] = min(limit, self.level[meter] + gone * limit / 60)
            elif (now - self.phase) // 60 != (self.at - self.phase) // 60:
                self.level[meter], taken = limit, self.others * limit * ((now - self.phase) % 60) / 60 if meter else 0.0
            self.level[meter] = max(0.0, self.level[meter] - taken)
        self.at = now

    def ask(self, now: float, prompt: int, output: int) -> tuple[LlmctlError | None, tuple[Said, ...]]:
        self._pass(now)
        cost = (1, prompt + output)
        fits = all(n <= left + 1e-6 for n, left in zip(cost, self.level, strict=True))
        if fits:
            self.answers += 1
            self.level = [left - n for left, n in zip(self.level, cost, strict=True)]
        else:
            self.refusals += 1
        return None if fits else RateLimited("over the limit", status=429, retry_after_s=1.0), self.said(now)

    def said(self, now: float) -> tuple[Said, ...]:
        if not self.talks:
            return ()
        reset_s = 60 - (now - self.phase) % 60 if self.kind == "window" else None
        rows = zip(("rpm", "tpm"), self.limits, self.level, strict=True)
        return tuple(Said(meter, limit, int(left), reset_s) for meter, limit, left in rows)


@dataclass
class Ask:
    """One call in the town: how large, when it began, and how it went."""

    id: str
    call: Call
    prompt: int
    output: int
    size: Size
    begun: float
    sent: list[float] = field(default_factory=list)
    places: list[float] = field(default_factory=list)
    end: Done | Fail | str | None = None


class Town:
    """Calls that share documents, each a process of its own, and providers by deployment id."""

    def __init__(self, plan: Plan, providers: dict[str, Seen], seed: int = 0) -> None:
        self.plan, self.providers, self.rng = plan, providers, random.Random(seed)
        self.keys = keys_of(*(d for link in plan.links for d in link.deployments))
        self.documents: dict[str, Any] = {}
        self.now = T0
        self.asks: list[Ask] = []
        self.in_flight = self.most_in_flight = 0
        self.latency: Callable[[random.Random], float] = lambda rng: rng.choice([0.05, 0.4, 2.0])
        self.delay: Callable[[random.Random, float], float] = lambda rng, latency: rng.random() * latency
        self.fate: Callable[[random.Random], str] = lambda rng: "ends"
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._n = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something done at an instant."""
        heapq.heappush(self._events, (when, next(self._n), what))

    def book(self, ask: Ask) -> Book:
        return Book(self.documents, self.keys, "group", ask.id, self.now, ask.size)

    def ask(self, when: float, prompt: int, cap: int, *, output: int | None = None, policy: Policy = PATIENT) -> Ask:
        """A call that begins then, and answers in `output` tokens (all of `cap`, if not said)."""
        call = Call(self.plan, policy, started=when, dice=self.rng.random)
        name = f"call {next(self._n)}"
        ask = Ask(name, call, prompt, cap if output is None else output, Size(prompt, cap), when)
        self.asks.append(ask)
        self.at(when, lambda: self._next(ask))
        return ask

    def run(self, until: float = float("inf"), most: int = 200_000) -> None:
        """Let it happen; at most so many events."""
        for _ in range(most):
            if not self._events or self._events[0][0] > until:
                return
            self.now, _, what = heapq.heappop(self._events)
            what()
        raise AssertionError("it does not end")

    def _next(self, ask: Ask) -> None:
        decision, _ = step(ask.call, self.book(ask))
        match decision:
            case Send():
                ask.sent.append(self.now)
                self._send(ask, decision.deployment)
            case Wait():
                ask.places.append(decision.until)
                for n in range(1, int((decision.until - self.now) / (LEASE_S / 3)) + 1):
                    self.at(self.now + n * LEASE_S / 3, lambda: self.book(ask).renew(decision.target))
                self.at(decision.until, lambda: self._next(ask))
            case _:
                ask.end = decision

    def _send(self, ask: Ask, target: Deployment) -> None:
        sent, latency = self.now, self.latency(self.rng)
        arrival, heard = sent + min(self.delay(self.rng, latency), latency), sent + latency
        ended = heard + self.latency(self.rng)
        fate = self.fate(self.rng)
        answer: list[Any] = [None, ()]

        def reach() -> None:
            answer[:] = self.providers[target.id].ask(self.now, ask.prompt, ask.output)

        def arrive() -> None:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            reach()

        def renew() -> None:
            self.book(ask).renew(target)

        def end() -> None:
            self.in_flight -= 1
            error, said = answer
            outcome = Outcome(
                sent, self.now, heard=heard, error=error, said=said, first_token_s=latency, latency_s=self.now - sent,
                input_tokens=None if error else ask.prompt, output_tokens=None if error else ask.output,
            )  # fmt: skip
            self.book(ask).settle(target, outcome, self.rng.random)
            ask.call.heard(Failed(error, self.now) if error else Ended())
            self._next(ask)

        def cancel() -> None:
            self.in_flight -= self.now >= arrival
            known = heard if self.now >= heard else None
            self.book(ask).settle(target, Outcome(sent, self.now, heard=known, cancelled=True), self.rng.random)
            ask.end = "cancelled"

        if fate == "never leaves":
            outcome = Outcome(sent, sent, reached=False, cancelled=True)
            self.at(sent, lambda: self.book(ask).settle(target, outcome, self.rng.random))
            ask.end = fate
            return
        if fate == "dies":
            ask.end = fate
            self.at(min(arrival, sent + 4.9), reach)
            return
        stop = sent + self.rng.random() * (ended - sent) if fate == "is cancelled" else ended
        for n in range(1, int((stop - sent) / (LEASE_S / 3)) + 1):
            self.at(sent + n * LEASE_S / 3, renew)
        if arrival <= stop:
            self.at(arrival, arrive)
        else:  # its bytes were on their way when it was cancelled
            self.at(min(arrival, sent + 0.9), reach)
        self.at(stop, cancel if fate == "is cancelled" else end)


def starts(asks: Sequence[Ask]) -> list[float]:
    """When each was sent first, in the order given."""
    return [ask.sent[0] for ask in asks if ask.sent]
