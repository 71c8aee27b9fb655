"""Providers as a simulation needs them: limits as declared, speed as measured, failures as ordered.

What a configuration does not tell is left out: neighbours on the same account, queues, limits that differ from the
declared ones. A limit is a rolling minute, unless the dialect's `shape` says how the provider refills it; those that
tell their limits in headers tell them here. What a request takes is the arithmetic of `routing/limits`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

from llmctl.core.errors import LlmctlError, RateLimited, TimedOut, Unavailable
from llmctl.core.snapshot import Said
from llmctl.routing.health import PREFILL_TOKENS_PER_S
from llmctl.routing.limits import METERS, MINUTE_S, SHAPES, Cost, cost_of, settled_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.catalog import Deployment

_SILENT = ("gemini", "bedrock")
"""Protocols whose answers have no headers about limits (see `wire/quota`)."""
_REFUSAL_S = 0.1
_TICK = 1e-6


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds to the first token and for each token, and where that is known from: state, ledger or assumed."""

    first_token_s: float
    per_token_s: float
    source: str = "assumed"


@dataclass(frozen=True, slots=True)
class Fault:
    """From `start` for `length` seconds of the trace a deployment is out or, with a factor, slower by it."""

    deployment: str
    start: float
    length: float
    factor: float | None = None

    def holds(self, deployment: Deployment, at: float) -> bool:
        """Whether it strikes a request that is sent to `deployment` then."""
        return self.deployment == deployment.id and self.start <= at < self.start + self.length


@dataclass(frozen=True, slots=True)
class Asked:
    """What reaches a provider: its true tokens, the cap on the answer, and its luck (1 is average) with both speeds."""

    prompt: int
    output: int
    cap: int | None = None
    luck: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What comes of a request, known at once: how it ends, when, and what `Quota.settle` needs then."""

    sent: float
    ended: float
    first_token_s: float | None = None
    error: LlmctlError | None = None
    output: int = 0
    taken: tuple[list[float] | None, ...] = ()
    said: tuple[Said, ...] = ()


class _Meter:
    """One limit as its kind refills it: no sliding minute holds more; a bucket; a counter that is reset each minute."""

    def __init__(self, kind: str, limit: float, full_s: float, phase: float) -> None:
        self._kind, self._rate, self._full, self._phase = kind, limit / MINUTE_S, limit * full_s / MINUTE_S, phase
        self._used = self._at = 0.0
        self._rows: deque[list[float]] = deque()
        """What the minute holds, from the oldest: instant and size."""

    def wait_s(self, now: float, n: float) -> float:
        """How long until it has room for `n`, or for as much as it ever has."""
        if self._kind == "bucket":
            self._used, self._at = max(0.0, self._used - (now - self._at) * self._rate), now
        begun = now - MINUTE_S if self._kind == "rolling" else self._end(now) - MINUTE_S - _TICK
        while self._rows and self._rows[0][0] <= begun:
            self._used -= self._rows.popleft()[1]
        over = self._used + min(n, self._full) - self._full
        if over <= _TICK:
            return 0.0
        if self._kind != "rolling":
            return over / self._rate if self._kind == "bucket" else self._end(now) - now
        for at, m in self._rows:
            over -= m
            if over <= _TICK:
                return at + MINUTE_S - now
        return 0.0

    def take(self, now: float, n: float) -> list[float]:
        """Count `n`; the row is for `correct`."""
        row = [now, n]
        self._used += n
        if self._kind != "bucket":
            self._rows.append(row)
        return row

    def correct(self, row: list[float], n: float) -> None:
        """Let `n` have been taken, unless that is over and forgotten."""
        if self._kind == "bucket" or (self._rows and row[0] >= self._rows[0][0]):
            self._used += n - row[1]
        row[1] = n

    def left(self, now: float) -> tuple[float, float]:
        """What remains, and in how many seconds it is whole again."""
        whole_s = self._end(now) - now if self._kind == "window" else self.wait_s(now, self._full)
        return max(0.0, self._full - self._used), whole_s

    def _end(self, now: float) -> float:
        return (floor((now - self._phase) / MINUTE_S) + 1) * MINUTE_S + self._phase


class Quota:
    """What one provider counts together, and how it answers. `uses` are (instant, cost) of all that it admitted."""

    def __init__(self, deployments: Sequence[Deployment], phase: float) -> None:
        """Where its deployments declare different limits, the lowest are true. `phase` is that of a window, seconds."""
        *limits, self._parallel = (
            min((n for d in deployments if (n := getattr(d.limits, name)) is not None), default=None)
            for name in (*METERS, "max_parallel")
        )
        self.limits: tuple[int | None, ...] = tuple(limits)
        provider = deployments[0].provider
        kind, full_s = SHAPES[provider.dialect.get("shape", "")]
        self._meters = [None if limit is None else _Meter(kind, limit, full_s, phase) for limit in limits]
        self._speaks = kind != "rolling" and provider.protocol not in _SILENT
        self._in_flight = 0
        self.uses: list[tuple[float, Cost]] = []

    def ask(
        self, deployment: Deployment, asked: Asked, speed: Speed, now: float, fault: Fault | None, patience_s: float
    ) -> Reply:
        """What comes of a request that is sent now; `patience_s` is how long its first token is waited for."""
        if fault is not None and fault.factor is None:
            return Reply(now, now + _REFUSAL_S, error=Unavailable("out", status=503))
        cost = cost_of(deployment, asked.prompt, asked.cap or 0)
        full = self._parallel is not None and self._in_flight >= self._parallel
        waits = [meter.wait_s(now, n) for meter, n in zip(self._meters, cost, strict=True) if meter and n]
        wait_s = max([1.0 if full else 0.0, *waits])
        if wait_s > 0:
            error = RateLimited("at its limit", status=429, retry_after_s=float(ceil(wait_s)))
            return Reply(now, now + _REFUSAL_S, error=error, said=self._said(now))
        self._in_flight += 1
        taken = tuple(meter.take(now, n) if meter else None for meter, n in zip(self._meters, cost, strict=True))
        factor = fault.factor if fault and fault.factor else 1.0
        first_s = factor * (speed.first_token_s * asked.luck[0] + asked.prompt / PREFILL_TOKENS_PER_S)
        said = self._said(now)
        if first_s > patience_s:
            return Reply(now, now + patience_s, error=TimedOut("no first token"), taken=taken)
        output = asked.output if asked.cap is None else min(asked.output, asked.cap)
        ended = now + first_s + factor * output * speed.per_token_s * asked.luck[1]
        return Reply(now, ended, first_s, output=output, taken=taken, said=said)

    def settle(self, deployment: Deployment, asked: Asked, reply: Reply) -> None:
        """The request has ended: its tokens are counted as they really were."""
        if not reply.taken:
            return
        self._in_flight -= 1
        reserved = cost_of(deployment, asked.prompt, asked.cap or 0)
        used = settled_cost(deployment, reserved, asked.prompt, 0, reply.output)
        for meter, row, n in zip(self._meters, reply.taken, used, strict=True):
            if meter and row:
                meter.correct(row, n)
        self.uses.append((reply.sent, used))

    def utilisation(self, span_s: float) -> dict[str, dict[str, float]]:
        """The used share of each limit: the mean over `span_s`, or a minute if that is longer, and the fullest 60 s."""
        shares = {}
        uses = sorted(self.uses)
        for meter, (name, limit) in enumerate(zip(METERS, self.limits, strict=True)):
            if limit:
                held, peak, first = 0.0, 0.0, 0
                for at, cost in uses:
                    held += cost[meter]
                    while uses[first][0] <= at - MINUTE_S:
                        held -= uses[first][1][meter]
                        first += 1
                    peak = max(peak, held)
                mean = sum(cost[meter] for _, cost in uses) * MINUTE_S / max(MINUTE_S, span_s)
                shares[name] = {"mean": round(mean / limit, 4), "peak": round(peak / limit, 4)}
        return shares

    def _said(self, now: float) -> tuple[Said, ...]:
        """What its headers tell of every limit."""
        if not self._speaks:
            return ()
        told = [(*row[:2], *row[2].left(now)) for row in zip(METERS, self.limits, self._meters, strict=True) if row[2]]
        return tuple(Said(name, limit, floor(left), reset_s) for name, limit, left, reset_s in told)
