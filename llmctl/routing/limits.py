"""Limits as law: the earliest instant at which one more request fits all limits of a quota.

A quota is what a provider counts together: one credential, provider and model. Its document is plain JSON:
`uses` [[sent, heard, requests, tokens, input, output], ...] of ended attempts, in the order they were heard;
`open` {id: [start, lease_until, requests, tokens, input, output, firm_at, size, since]} in flight (firm_at 0) or held;
`said` {meter: [sent, remaining, limit, reset_at or None]} the provider's last word; `phase` [lo, hi] one instant at
which its counter was reset; `others` the tokens a second that somebody else uses; `share` what is held back after
refusals that nothing explains; `ratio` [mean, spread] what prompts really are of their estimates; `slice` the seconds
of a window finer than the provider says. All instants are Unix seconds.

Without a word from the provider a limit is a rolling minute: no sliding 60 s holds more than it. A slot frees 60 s
after the response headers, because until then nobody knows when the provider counted the request. Where the provider's
own headers state the declared limit, or a lower one, and its way of refilling is known, what it says is believed:
a bucket that refills, or a counter that is reset. A declared limit below the provider's stays the law.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from math import floor, inf, sqrt
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.core.catalog import Deployment

MINUTE_S = 60.0
METERS = ("rpm", "tpm", "itpm", "otpm")
Cost = tuple[float, float, float, float]
"""What one request takes of each meter of `METERS`: 1, and tokens."""
MARGIN = 0.99
"""The share of a token limit that is used: the provider counts tokens otherwise than we estimate them."""
HEADERS_S = 1.0
"""How long after its start a request is taken to be counted, until its response says so."""
CONNECT_S = 5.0
LEASE_S = 30.0
"""How long a reservation outlives its process; the engine renews it well before."""
_ALONE = 0.04
"""Below this share of a limit, what seems to be used by somebody else is the error of our estimates."""
_TOGETHER_S = 0.05
"""Requests sent so close to each other may be counted in either order."""
SURE_S = 4.0
"""How well the instant of a reset must be known before it is relied upon."""
_FEW = 5
"""A slice that admits fewer requests than this is not kept: a limit is declared for a minute."""
_LOOK_S = 0.05
_UNSURE = ("tpm", "itpm")
DOUBTS = 3.5
GUESS = (1.0, 0.1)
"""What real prompts are of their estimates, and how far they spread, until it is learned."""
_TICK_S = 1e-6
_STEPS = 64
_heard = itemgetter(1)
_Charges = list[tuple[float, float]]

SHAPES: dict[str, tuple[str, float]] = {
    "bucket": ("bucket", MINUTE_S),
    "bucket:30": ("bucket", 30.0),
    "window": ("window", MINUTE_S),
    "": ("rolling", MINUTE_S),
}
"""The dialect's word for how a minute's limit is refilled -> the kind, and the seconds that its capacity is worth."""


def cost_of(deployment: Deployment, prompt: int, output: int) -> Cost:
    """What a request takes up front, as its provider charges it (`charge` of the dialect). Tokens, both estimated."""
    charge = deployment.provider.dialect.get("charge", "settled")
    return (1, prompt if charge == "input" else prompt + output, prompt, output)


def settled_cost(deployment: Deployment, reserved: Cost, prompt: int, cached: int, output: int) -> Cost:
    """What a request has taken in the end, given the tokens it really used."""
    charge = deployment.provider.dialect.get("charge", "settled")
    if charge == "reserved":  # counted at arrival, and never given back
        return (1, max(reserved[1], prompt), prompt, output)
    fresh = max(0, prompt - cached)
    return (1, {"input": prompt, "apart": fresh + output}.get(charge, prompt + output), fresh, output)


class Limited:
    """The limits of one deployment over the document of its quota."""

    def __init__(
        self,
        deployment: Deployment,
        quota: dict[str, Any],
        now: float,
        size: float = inf,
        since: float = inf,
        *,
        firm: bool = False,
        respects: float = 0.0,
    ) -> None:
        """Looks at the document as it is `now`; changes nothing. `size` is what the request takes, in tokens.

        `since` is when it began to wait, if it has, and `firm` whether its place is. A place that is only held is no
        obstacle to a smaller request, until it is firm, and even then to one of less than the share `respects` of
        its size; nor to one that has waited longer, if that one is no larger, or firm itself.
        """
        self.now = now
        self.quota = quota
        limits, dialect = deployment.limits, deployment.provider.dialect
        self._declared = (limits.rpm, limits.tpm, limits.itpm, limits.otpm)
        self._parallel = limits.max_parallel
        self._kind, self._full_s = SHAPES[dialect.get("shape", "")]
        self._slice_s = float(quota.get("slice", dialect.get("slice_s", 0.0)))
        rows = quota.get("open", {}).values()
        live = [
            row for row in rows
            if row[1] > now and (not row[6] or row[7] <= size or (row[6] <= now and row[7] * respects <= size))
        ]  # fmt: skip
        self.open = [
            row for row in live
            if not (row[6] and row[8] > since and (row[7] >= size or (firm and size * respects <= row[7])))
        ]  # fmt: skip
        self._ahead = sum(1 for row in live if not row[6] or row[8] < since)
        dead = [(row[0], row[1] - LEASE_S + CONNECT_S, *row[2:]) for row in rows if row[1] <= now and not row[6]]
        self.uses = sorted([*quota.get("uses", ()), *dead], key=_heard) if dead else quota.get("uses", [])
        self._said = quota.get("said", {})
        self._doubt = DOUBTS * max(0.03, min(0.5, quota.get("ratio", GUESS)[1]))
        self._kept: float = 1.0 - quota.get("share", 0.0)
        self._limits = [self._believed(meter, -inf) for meter in range(len(METERS))]
        self._used: list[float] | None = None
        self._heard: list[float] = []
        self._sums: dict[int, list[float]] = {}

    def held(self, cost: Cost) -> Cost:
        """What a place held for a request of `cost` takes: its own doubt too, so that it will still fit."""
        requests, tokens, prompt, output = cost
        doubt = self._doubt * prompt
        return (requests, self._at_most(1, tokens + doubt), self._at_most(2, prompt + doubt), output)

    def _at_most(self, meter: int, n: float) -> float:
        limit = self.limit(meter)
        return n if limit is None else min(n, limit)

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return sum(1 for row in self.open if row[0] <= self.now)

    def limit(self, meter: int) -> float | None:
        """The limit of a meter as it is believed now; None for none."""
        return self._limits[meter]

    def _believed(self, meter: int, heard_after: float) -> float | None:
        """The limit of a meter, by a word that was heard after then, or as it is declared."""
        declared, said = self._declared[meter], self._said.get(METERS[meter])
        limit: float | None = declared
        if said and said[2] is not None and said[0] > heard_after and (declared is None or said[2] < declared):
            limit = said[2]
        return limit if limit is None or meter == 0 else limit * MARGIN * self._kept

    def used(self, meter: int) -> float:
        """What the last 60 s hold of a meter, with what is reserved."""
        if self._used is None:
            since = self.now - MINUTE_S
            taken = [use[2:6] for use in self.uses if use[1] > since] + [row[2:6] for row in self.open]
            self._used = [float(sum(each)) for each in zip(*taken, strict=True)] or [0.0] * len(METERS)
        return self._used[meter]

    def headroom(self, meter: int) -> float | None:
        """What is left of a meter in this minute; None where it has no limit."""
        limit = self.limit(meter)
        if limit is None:
            return None
        said = self._said.get(METERS[meter])
        left = limit - self.used(meter)
        if said and said[1] is not None and said[0] > self.now - MINUTE_S:
            left = min(left, said[1] - sum(n for _, n in self._since(meter, said[0])))
        return max(0.0, left)

    def fits_ever(self, cost: Cost) -> bool:
        """Whether a request is no larger than every limit: one that was said lately, where it is not declared.

        What is asked of nobody is never heard of again, so a word that is wrong, or was overtaken, must not last.
        """
        limits = (self._believed(meter, self.now - MINUTE_S) for meter in range(len(METERS)))
        return self._parallel != 0 and all(limit is None or n <= limit for n, limit in zip(cost, limits, strict=True))

    def earliest(self, cost: Cost, after: float = 0.0) -> float:
        """The first instant from now on, and not before `after`, at which a request of `cost` may start.

        Infinity if it never may.
        """
        if not self.fits_ever(cost):
            return inf
        requests, tokens, prompt, output = (self._at_most(meter, n) for meter, n in enumerate(cost))
        cost = (requests, tokens, prompt, output)
        start = max(self.now, after)
        for _ in range(_STEPS + 2 * len(self.open)):
            later = max([start, *self._delays(start, cost)])
            if later <= start:
                break
            start = later
        return start

    def _delays(self, t: float, cost: Cost) -> Iterator[float]:
        """For each limit the first instant from `t` on that it allows, taken alone."""
        if self._parallel is not None:
            yield self._parallel_start(t, self._parallel)
        for meter, n in enumerate(cost):
            limit = self.limit(meter)
            if limit is None or not n:
                continue
            if not self._word_suffices(meter):
                yield self._rolling(t, meter, n + self._doubts(meter, cost, -inf, limit), limit, MINUTE_S)
            word = self._said.get(METERS[meter])
            if word:
                yield self._by_word(t, meter, n + self._doubts(meter, cost, word[0], limit), limit)
        rpm = self._declared[0]
        if rpm and self._slice_s and rpm * self._slice_s / MINUTE_S >= _FEW:
            yield self._rolling(t, 0, 1, floor(rpm * self._slice_s / MINUTE_S), self._slice_s)

    def _parallel_start(self, t: float, most: int) -> float:
        """When fewer than `most` are in flight, or waited before; when that is is a guess, so it is looked at soon."""
        look_s: float = max(_LOOK_S, self.quota.get("speed", [1.0])[0] / 4)
        return t if self._ahead < most or t > self.now else t + look_s

    def _doubts(self, meter: int, cost: Cost, since: float, limit: float) -> float:
        """By how many tokens this estimate, and those that nobody has confirmed yet, may be too low together.

        Nobody has confirmed what is in flight, nor, where the provider counts, what was sent after its last word
        (`since`). The errors are independent, so they add up as squares do. Alone a request always fits, if it does at
        all: then its own doubt does not count.
        """
        if METERS[meter] not in _UNSURE:
            return 0.0
        prompts = [row[4] for row in self.open if not row[6] and row[0] > since - _TOGETHER_S]
        if since > 0:
            prompts += [use[4] for use in self.uses if use[0] > since]
        doubt = self._doubt * sqrt(cost[2] * cost[2] + sum(p * p for p in prompts))
        return float(max(0.0, min(doubt, limit - cost[meter])))

    # ---------------------------------------------------------------- a rolling minute

    def _rolling(self, t: float, meter: int, n: float, limit: float, span: float) -> float:
        if t == self.now and span == MINUTE_S and self.used(meter) + n <= limit + _TICK_S:
            return t  # beside all that is or will be under way
        heard, sums = self._past(meter)
        gone = bisect_right(heard, t - span)
        held: list[tuple[float, float]] = []
        later: list[tuple[float, float]] = []
        for row in self.open:
            if row[0] <= t:
                end = max(self.now, row[0] + HEADERS_S) + span
                held += [(end, row[2 + meter])] if end > t else []
            elif row[0] < t + span + HEADERS_S:
                later.append((row[0], row[2 + meter]))
        over = sums[-1] - sums[gone] + sum([m for _, m in held]) + n - limit
        if over > _TICK_S:  # what was heard goes before what is under way
            freed = bisect_left(sums, sums[gone] + over - _TICK_S, gone + 1)
            if freed < len(sums):
                return heard[freed - 1] + span + _TICK_S
            over -= sums[-1] - sums[gone]
            for end, m in sorted(held):
                over -= m
                if over <= _TICK_S:
                    return end + _TICK_S
        for start, m in sorted(later):  # what was reserved for later must still fit when its time comes
            held.append((start + HEADERS_S + span, m))
            past = sums[-1] - sums[bisect_right(heard, start - span)]
            if past + sum([x for end, x in held if end > start]) + n > limit + _TICK_S:
                return start + _TICK_S
        return t

    def _past(self, meter: int) -> tuple[list[float], list[float]]:
        """When each use was heard, and what was used before each and in all."""
        if not self._heard:
            self._heard = [use[1] for use in self.uses]
        if meter not in self._sums:
            self._sums[meter] = [0.0, *accumulate([use[2 + meter] for use in self.uses])]
        return self._heard, self._sums[meter]

    # ---------------------------------------------------------------- the provider's own word

    def _word_suffices(self, meter: int) -> bool:
        """Whether the provider's word stands for the rolling minute: of the limit declared, or of a lower one."""
        said, declared = self._said.get(METERS[meter]), self._declared[meter]
        if not said or said[2] is None or self._kind == "rolling":
            return False
        if self._kind == "window" and self._phase(meter) is None:
            return False
        return declared is None or said[2] <= declared

    def _charges(self, meter: int) -> _Charges:
        """Own requests by the instant they were, or will be, sent."""
        at = 2 + meter
        return [(u[0], u[at]) for u in self.uses] + [(row[0], row[at]) for row in self.open]

    def _since(self, meter: int, sent: float) -> _Charges:
        """Own requests that a word did not count, by the instant they were, or will be, sent.

        One of nearly the same instant that is not answered yet may have come later, so it was not counted either.
        """
        at = 2 + meter
        uses = [(use[0], use[at]) for use in self.uses if use[0] > sent]
        return uses + [(max(row[0], sent), row[at]) for row in self.open if row[0] > sent - _TOGETHER_S]

    def _by_word(self, t: float, meter: int, n: float, limit: float) -> float:
        sent, remaining, _, reset_at = self._said[METERS[meter]]
        phase = self._phase(meter)
        if self._kind == "window" and phase is not None:
            return self._window(t, meter, n, limit, phase)
        if self._kind == "bucket":
            return self._bucket(t, meter, n, limit)
        until: float = min(sent + MINUTE_S, inf if reset_at is None else reset_at)
        if remaining is None or t >= until:
            return t
        since = sum(m for s, m in self._since(meter, sent) if s <= t)
        return t if remaining - since >= n else until

    def _bucket(self, t: float, meter: int, n: float, limit: float) -> float:
        """A bucket that refills all the time: its level at the last word, less what was taken since."""
        sent, remaining, _, _ = self._said[METERS[meter]]
        rate, full = limit / MINUTE_S, limit * self._full_s / MINUTE_S
        others = self._others(limit) if meter else 0.0
        rate = max(rate * 0.1, rate - others)
        n = min(n, full)
        level, last = (full if remaining is None else min(full, remaining * (MARGIN if meter else 1.0))), sent
        charges = sorted(self._since(meter, sent))
        for at, m in charges:
            if at > t:
                break
            level, last = min(full, level + (at - last) * rate) - m, at
        level, last = min(full, level + (t - last) * rate), t
        if level < n - _TICK_S:
            return t + float(n - level) / rate + _TICK_S
        level -= n
        for at, m in charges:
            if at <= t:
                continue
            level, last = min(full, level + (at - last) * rate) - m, at
            if level < -_TICK_S:
                return at + _TICK_S
        return t

    def _others(self, limit: float) -> float:
        """The tokens a second that somebody else takes; a little is only our estimates."""
        pace: float = self.quota.get("others", 0.0)
        return pace if pace > _ALONE * limit / MINUTE_S else 0.0

    def _phase(self, meter: int) -> tuple[float, float] | None:
        """Two bounds on an instant at which the counter was reset, if they are close enough to be relied upon."""
        phase = self.quota.get("phase", {}).get(METERS[meter])
        return (phase[0], phase[1]) if phase and phase[1] - phase[0] < SURE_S else None

    def _window(self, t: float, meter: int, n: float, limit: float, phase: tuple[float, float]) -> float:
        """A counter that is reset every minute: what it had left at the last word, or a whole limit since."""
        lo, hi = phase
        sent, remaining, _, _ = self._said[METERS[meter]]
        begin = lo + MINUTE_S * floor((t - hi) / MINUTE_S)  # the window that surely holds t, as wide as it may be
        sure, end = begin + hi - lo, begin + MINUTE_S + hi - lo
        others = self._others(limit) if meter else 0.0
        if remaining is not None and sure <= sent < end:
            left = remaining - sum(m for s, m in self._since(meter, sent) if s < end) - others * max(0.0, t - sent)
        else:
            left = limit - sum(m for s, m in self._charges(meter) if begin <= s < end) - others * max(0.0, t - sure)
        return t if left >= n else end + 0.02
