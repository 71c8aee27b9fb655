"""Vectors kept by the hash of what they are of: looked up a window at a time, kept as they come, booked once a run.

A vector serves whoever asks a group with a deployment in whose scope it was made (`core/scope`): those of
a group are of one model. What cannot be read is a miss. A vector has cost its share of its batch, by estimated tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.caching import Vector
from llmctl.core.scope import vector_key
from llmctl.core.types import Request
from llmctl.run.accounts import transcript_of
from llmctl.run.asking import answered, record_of
from llmctl.run.observe import CallEnded, CallStarted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmctl.core.caching import Use
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer, CallRecord
    from llmctl.run.asking import Ask
    from llmctl.run.batches import Batch
    from llmctl.run.engine import Engine
    from llmctl.run.recall import Caching


class Kept(NamedTuple):
    """A vector from the cache, what it had cost (None: unknown), and who makes such ones."""

    vector: array[float]
    cost_nanousd: int | None
    deployment: Deployment


class VectorCache:
    """The vectors of one run's model, as `use` says: what is looked for, and what is kept."""

    def __init__(self, caching: Caching, use: Use, request: Request, deployments: Sequence[Deployment]) -> None:
        """`deployments` are of one model, and all of a group, whether they can be asked now or not."""
        self._caching = caching
        self._use = use
        self._scopes = {scope: each for each in deployments if (scope := caching.scope(request, each, use)) is not None}
        self.looked_s = 0.0

    async def found(self, texts: Iterable[str]) -> dict[str, Kept]:
        """The kept vectors of those of `texts` that have one: one query."""
        if not self._use.tiers:
            return {}
        clock = self._caching.clock
        began = clock.monotonic()
        nothing: dict[str, Kept] = {}
        kept = await self._caching.do(lambda: self._look(texts), nothing)
        self.looked_s += clock.monotonic() - began
        return kept

    def _look(self, texts: Iterable[str]) -> dict[str, Kept]:
        keys = {vector_key(scope, text): (text, each) for text in texts for scope, each in self._scopes.items()}
        if not keys:
            return {}
        rows = self._caching.cache.vectors(list(keys), self._caching.clock.now())
        kept: dict[str, Kept] = {}
        for key, (text, deployment) in keys.items():
            vector = readable(rows[key].data) if key in rows else None
            if vector is not None:
                kept[text] = Kept(vector, rows[key].cost_nanousd, deployment)
        return kept

    async def keep(self, batch: Batch, answer: Answer) -> None:
        """Keep the vectors that came for `batch`, if they may be kept."""
        served = {each.id: scope for scope, each in self._scopes.items()}.get(answer.record.deployment or "")
        if not self._use.keeps or served is None:
            return
        costs = shares(answer.record.cost_nanousd, [place.tokens for place in batch])
        made = zip(batch, answer.completion.vectors, costs, strict=True)
        rows = {vector_key(served, place.text): Vector(vector.tobytes(), cost) for place, vector, cost in made}
        cache, now, model = self._caching.cache, self._caching.clock.now(), answer.served_by or ""
        await self._caching.do(lambda: cache.put_vectors(rows, model, now), None)


def readable(data: bytes) -> array[float] | None:
    """The vector of kept bytes; None where they are none: empty, cut, or with a number that is not finite."""
    vector = array("f")
    if not data or len(data) % vector.itemsize:
        return None
    vector.frombytes(data)
    return vector if isfinite(sum(vector)) else None  # a double holds the sum of any finite 32-bit floats


def common_size(kept: Iterable[Kept]) -> int:
    """How many numbers most of the vectors have; 0 without any."""
    sizes = Counter(len(each.vector) for each in kept)
    return sizes.most_common(1)[0][0] if sizes else 0


def shares(total: int | None, weights: Sequence[int]) -> list[int | None]:
    """`total` in whole parts that are as `weights`, and add up to it; all None for None."""
    if total is None:
        return [None] * len(weights)
    whole, upto, given = max(1, sum(weights)), 0, 0
    parts: list[int | None] = []
    for weight in weights[:-1]:
        upto += weight
        parts.append(total * upto // whole - given)
        given = total * upto // whole
    return [*parts, total - given] if weights else []


@dataclass(slots=True)
class Tally:
    """What a run had from the cache: how many vectors, what they had cost, whose they are, and the first texts."""

    count: int = 0
    saved_nanousd: int = 0
    served: Deployment | None = None
    beginning: tuple[str, ...] = ()

    def add(self, text: str, kept: Kept) -> None:
        """Count one more."""
        self.count += 1
        self.saved_nanousd += kept.cost_nanousd or 0
        self.served = kept.deployment
        if len(self.beginning) < _NAMED:
            self.beginning += (text,)


_NAMED = 20
"""How many texts the row's own text is made of, at most."""


async def booked(engine: Engine, ask: Ask, tally: Tally, looked_s: float) -> CallRecord:
    """The row of all that a run had from the cache, written down: it cost nothing, and saved what those had cost."""
    now, served = engine.clock.now(), tally.served
    record = replace(record_of(ask, now, engine.dice, 0.0), started_at=now - looked_s, cache="exact")
    text = f"{tally.count} from the cache{transcript_of(Request((), inputs=tally.beginning)).partition(' to embed')[2]}"
    await engine.ledger.begin(record, text if ask.keep_text else None)
    engine.hooks.tell(CallStarted(record, None))
    who = {"served_by": served.served_by, "provider": served.provider.name, "deployment": served.id} if served else {}
    record = answered(record, "exact", tally.saved_nanousd, looked_s * 1000, finish_reason="stop", **who)
    await engine.ledger.complete(record, (), "" if ask.keep_text else None)
    engine.hooks.tell(CallEnded(record, None, (), "embeddings"))
    return record
