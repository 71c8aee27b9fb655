"""Vectors for texts: batches of them as calls of the engine, several at once, their vectors in the order of the texts.

Each batch is a call with a row, retries and cooldowns of its own, and with the total clock only. It never falls back:
vectors of two models cannot be compared, so the deployments that may answer must be of one model. The first batch that
fails ends them all. Texts whose vectors the cache has are not asked for, and equal ones near each other once: batches
are filled with what is left. However many texts there are, some batches and `AHEAD` kept vectors are in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from llmctl.core import caching
from llmctl.core.errors import BadResponse, LlmctlError, UsageError
from llmctl.core.money import usd
from llmctl.core.types import Params, Request, Usage
from llmctl.run import asking
from llmctl.run.asking import Ask
from llmctl.run.batches import Pile, Place, at_once, checked, in_thread, windows
from llmctl.run.embeddable import GROUP, group_of, plan_of
from llmctl.run.prepare import obstacle_of
from llmctl.run.vector_cache import Tally, VectorCache, booked, common_size

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncGenerator, Mapping

    from llmctl.core.catalog import Catalog
    from llmctl.core.record import Answer
    from llmctl.run.batches import Batch
    from llmctl.run.engine import CallRun, Engine

    Texts = tuple[str, ...]
    Vectors = tuple[array[float], ...]

BATCH, BATCH_TOKENS = 256, 100_000
"""The most texts and estimated tokens of one request; a provider's own limits are `embed_batch` and `embed_tokens`."""
MOST_PARALLEL = 256
AHEAD = 4096
"""How many kept vectors may wait for one before them: so far texts are read to fill a batch with those to be asked."""
SILENCE_S = 0.1
"""How long a batch that is not full waits for a text that is not yet there."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of some texts, in their order: 32-bit floats. `calls` are the ids of the ledger's rows.

    `served_by` and `reported_model` name everyone who answered. `cost_usd` is None when any price is unknown. `cached`
    is how many are from the cache, and `saved_usd` what those had cost, as far as that is known.
    """

    vectors: Vectors
    model: str
    served_by: str | None = None
    reported_model: str | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen, so it may be shared
    cost_usd: float | None = 0.0
    calls: tuple[str, ...] = ()
    cached: int = 0
    saved_usd: float = 0.0

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has; 0 without any."""
        return len(self.vectors[0]) if self.vectors else 0


def start(
    engine: Engine,
    catalog: Catalog,
    texts: Iterable[str],
    *,
    model: str | None = None,
    dimensions: int | None = None,
    batch: int | None = None,
    parallel: int = 4,
    extra: Mapping[str, Any] | None = None,
    retries: int | None = None,
    timeout: float | None = None,
    max_wait: float | None = None,
    max_cost: float | None = None,
    strategy: str | None = None,
    tags: Mapping[str, str] | None = None,
    session: str | None = None,
    log: bool = True,
    cache: str | None = None,
    command: str = "library",
) -> EmbedRun:
    """The run that embeds `texts`, not yet begun; an iterator is read as it is needed, in a thread of its own.

    `batch` is the most texts of a request, `parallel` the most requests at once; times are seconds, of each request,
    and `max_cost` is USD, of each request: what may cost more is not sent; `extra` holds fields of the provider's own,
    such as an input type. `cache` is off, exact or refresh: where it is looked into, a missing key is raised when a
    text is to be asked. Raises UsageError, MissingCredential and ConfigInvalid before anything is sent.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise UsageError(f"the texts are a list, not {type(texts).__name__}", hint='embed(["..."])')
    _positive(dimensions=dimensions, batch=batch, parallel=parallel)
    name, settings = GROUP if model is None else model, catalog.settings
    labels, cap = asking.tags_of(tags), asking.nanousd_of(max_cost)
    obstacle = obstacle_of(catalog, engine.endpoints, name, labels, cap)
    group = group_of(catalog, name, dimensions)
    mode, said = caching.mode_of(cache, group.cache, settings.caching.mode, command)
    request = Request((), Params(extra=extra or {}), stream=False, dimensions=dimensions)
    keeps = log and settings.log_content == "full"
    use = caching.use_of(mode, request, settings.caching, said=said, keeps_text=keeps)
    known = VectorCache(engine.caching, use, request, group.deployments) if engine.caching and not use.off else None
    plan, closed = plan_of(catalog, name, obstacle, anyway=known is not None and bool(use.tiers))
    ask = Ask(
        request=request,
        plan=plan,
        policy=asking.policy_of(settings, retries, timeout, max_wait, strategy),
        command=command,
        tags=labels,
        session=session,
        keep_text=keeps,
        buffered=True,
        fixed_deadline=timeout is not None,
        strict_params=dimensions is not None,  # vectors of another size are no use
        max_cost=cap,
    )
    dialects = [deployment.provider.dialect for deployment in plan.links[0].deployments]
    most = min([batch or BATCH, *(each["embed_batch"] for each in dialects if "embed_batch" in each)])
    tokens = min(each.get("embed_tokens", BATCH_TOKENS) for each in dialects)
    run = EmbedRun(engine, ask, texts, Pile(most, tokens), window=batch or BATCH, parallel=min(parallel, MOST_PARALLEL))
    run.known, run.closed = known, closed
    return run


def _positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise UsageError(f"{name}: {number!r} is not a whole number of 1 or more", hint="leave it out")


class EmbedRun:
    """Texts becoming vectors. Iterate over `vectors()`, once; `result` sums up what has come. Not reusable."""

    def __init__(
        self, engine: Engine, ask: Ask, texts: Iterable[str], pile: Pile, *, window: int, parallel: int
    ) -> None:
        """`ask` is what every batch is asked like, `pile` makes them; `window` texts are read together."""
        self.ask = ask
        self.done = 0
        self.known: VectorCache | None = None
        self.closed: LlmctlError | None = None
        """Why nobody can be asked, where only the cache is left."""
        self._engine = engine
        self._texts = texts
        self._pile = pile
        self._window = window
        self._line: deque[Place] = deque()
        self._asking: dict[str, Place] = {}
        self._held = 0
        self.tally = Tally()
        """What came from the cache."""
        self._parallel = parallel
        self._exit_if_stopped = 130
        self._open: set[CallRun] = set()
        self._served: dict[str, None] = {}
        self._reported: dict[str, None] = {}
        self._calls: list[str] = []
        self._usage = Usage()
        self._cost: int | None = 0
        self._size = 0

    @property
    def exit_if_stopped(self) -> int:
        """The exit code in the rows of batches that are stopped from outside."""
        return self._exit_if_stopped

    @exit_if_stopped.setter
    def exit_if_stopped(self, exit_code: int) -> None:
        self._exit_if_stopped = exit_code
        for call in self._open:
            call.exit_if_stopped = exit_code

    async def whole(self) -> Embeddings:
        """All vectors, or the first error: nothing by halves."""
        self._texts = tuple(checked(text, n) for n, text in enumerate(self._texts))
        got: list[array[float]] = []
        async with aclosing(self.vectors()) as several:
            async for vectors in several:
                got += vectors
        return self.result(tuple(got))

    def result(self, vectors: Vectors = ()) -> Embeddings:
        """What has come so far: who gave it, its tokens and its cost, with `vectors`."""
        return Embeddings(
            vectors=vectors,
            model=self.ask.plan.name,
            served_by=", ".join(self._served) or None,
            reported_model=", ".join(self._reported) or None,
            usage=self._usage,
            cost_usd=usd(self._cost),
            calls=tuple(self._calls),
            cached=self.tally.count,
            saved_usd=usd(self.tally.saved_nanousd) or 0.0,
        )

    async def vectors(self) -> AsyncGenerator[Vectors, None]:
        """The vectors in the order of the texts, some at once. Raises the first error, and cancels the rest."""
        texts = windows(self._texts, self._window)
        source = in_thread(texts) if isinstance(self._texts, Iterator) else at_once(texts)
        running: deque[tuple[Batch, asyncio.Task[Answer]]] = deque()
        reading: asyncio.Task[Batch | None] | None = None
        ended, silent, failure = False, False, None
        try:
            while not ended or self._line:
                free = len(running) < self._parallel
                if self._line and self._line[0].vector is not None:
                    yield self._first_vectors()
                elif running and running[0][1].done():
                    batch, task = running.popleft()
                    self._taken(batch, task.result())
                elif free and (batch := self._pile.take(rest=ended or silent or self._held >= AHEAD)):
                    running.append((batch, asyncio.create_task(self._asked(batch))))
                elif reading is not None and reading.done():
                    failure = reading.exception()
                    places, reading, silent = None if failure else reading.result(), None, False
                    ended = places is None
                    self._line.extend(places or ())
                elif free and reading is None and not ended and self._held < AHEAD:
                    reading = asyncio.create_task(self._read(source))
                else:
                    silent = not await self._news(reading, *(task for _, task in running), free=free)
            if failure is not None:  # a text that cannot be read: what was sent before it has come
                raise failure
        except LlmctlError as error:
            self.exit_if_stopped = error.exit_code
            raise
        finally:
            await _cancelled(*(task for _, task in running), *([reading] if reading else []))
            await source.aclose()
            if self.known is not None and self.tally.count:
                self._calls.append((await booked(self._engine, self.ask, self.tally, self.known.looked_s)).id)

    async def _news(self, *tasks: asyncio.Task[Any] | None, free: bool) -> bool:
        """Whether something came before a batch that is not full has waited long enough. Raises what a task has met."""
        begun = [task for task in tasks if task is not None]
        for task in begun:
            if task.done():  # it waits for those before it; what it has met is raised now
                task.result()
        pending = [task for task in begun if not task.done()]
        patience = SILENCE_S if free and len(self._pile) else None
        return bool((await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED))[0])

    async def _read(self, source: AsyncGenerator[Texts, None]) -> Batch | None:
        """The places of the next texts, None after the last; those that nobody has a vector for are on the pile.

        Where there is a cache, equal texts have one place: what is asked already when this begins is not looked for.
        """
        texts = await anext(source, None)
        if texts is None:
            return None
        if self.known is None:
            return [self._wanted(text) for text in texts]
        places = {text: self._asking[text] for text in texts if text in self._asking}
        found = await self.known.found([text for text in dict.fromkeys(texts) if text not in places])
        self._size = self._size or self.ask.request.dimensions or common_size(found.values())
        for text in texts:
            if text not in places:
                kept = found.get(text)
                fits = kept if kept is not None and len(kept.vector) == self._size else None
                places[text] = self._wanted(text) if fits is None else Place(text, fits.vector, fits)
        self._held += sum(places[text].kept is not None for text in texts)
        return [places[text] for text in texts]

    def _wanted(self, text: str) -> Place:
        """The place of a text that is to be asked."""
        place = self._asking[text] = Place(text)
        self._pile.add(place)
        return place

    def _first_vectors(self) -> Vectors:
        """The vectors that are next in line and there."""
        ready: list[array[float]] = []
        while self._line and len(ready) < self._window and (vector := self._line[0].vector) is not None:
            place = self._line.popleft()
            ready.append(vector)
            if place.kept is not None:
                self._held -= 1
                self.tally.add(place.text, place.kept)
                self._served[place.kept.deployment.served_by] = None
        self.done += len(ready)
        return tuple(ready)

    async def _asked(self, batch: Batch) -> Answer:
        if self.closed is not None:
            raise self.closed
        request = replace(self.ask.request, inputs=tuple(place.text for place in batch))
        call = self._engine.call(replace(self.ask, request=request))
        call.exit_if_stopped = self._exit_if_stopped
        self._open.add(call)
        try:
            answer = await call.whole()
        finally:
            self._open.discard(call)
        self._check(answer, request.dimensions)
        if self.known is not None:  # at once: it is paid for, whatever becomes of the others
            await self.known.keep(batch, answer)
        return answer

    def _check(self, answer: Answer, wanted: int | None) -> None:
        """Raises BadResponse when the vectors of a batch are not of the size that is wanted."""
        came = len(answer.completion.vectors[0])
        if not wanted or came == wanted:
            return
        again = "if the cache keeps older vectors of another size, ask all again: --cache refresh" if self.known else ""
        hint = "ask for no dimensions, or another model" if self.ask.request.dimensions else again
        raise BadResponse(f"{answer.served_by}: a vector has {came} numbers, not {wanted}", hint=hint)

    def _taken(self, batch: Batch, answer: Answer) -> None:
        """Give the places of a batch their vectors, and add up its bill. Raises BadResponse for another size."""
        vectors, record, used = answer.completion.vectors, answer.record, answer.usage
        self._check(answer, self._size)
        self._size = len(vectors[0])
        for place, vector in zip(batch, vectors, strict=True):
            place.vector = vector
            self._asking.pop(place.text, None)
        self._served[answer.served_by or ""] = None
        if answer.reported_model:
            self._reported[answer.reported_model] = None
        self._calls.append(answer.id)
        self._usage = _sum(self._usage, used)
        known = self._cost is not None and record.cost_nanousd is not None
        self._cost = (self._cost or 0) + (record.cost_nanousd or 0) if known else None


def _sum(one: Usage, other: Usage) -> Usage:
    both = zip(astuple(one), astuple(other), strict=True)
    return replace(Usage(*(a + b for a, b in both)), estimated=one.estimated or other.estimated)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks`, and wait until their rows are complete."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
