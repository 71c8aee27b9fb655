"""Vectors for texts: batches of them as calls of the engine, several at once, their vectors in the order of the texts.

Each batch is a call with a row, retries and cooldowns of its own, and with the total clock only. It never falls back:
vectors of two models cannot be compared, so the deployments that may answer must be of one model. The first batch that
fails ends them all. At most `parallel` batches are in memory, however many texts there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse, LlmctlError, UsageError
from llmctl.core.money import usd
from llmctl.core.support import supports
from llmctl.core.types import Params, Request, Usage
from llmctl.routing.plan import make_plan
from llmctl.run import asking
from llmctl.run.batches import at_once, batches, checked, in_thread
from llmctl.run.engine import Ask

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncGenerator, Mapping

    from llmctl.core.catalog import Catalog, Deployment
    from llmctl.core.record import Answer
    from llmctl.routing.plan import Obstacle, Plan
    from llmctl.run.engine import CallRun, Engine

    Texts = tuple[str, ...]
    Vectors = tuple[array[float], ...]

GROUP = "embed"
"""The model group that embeds when no model is named; a chat model is no default for vectors."""
_ABLE = (
    "ask one that has: openai/text-embedding-3-small, gemini/gemini-embedding-001, mistral/mistral-embed, ollama/..."
)
BATCH, BATCH_TOKENS = 256, 100_000
"""The most texts and estimated tokens of one request; a provider's own limits are `embed_batch` and `embed_tokens`."""
MOST_PARALLEL = 256


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of some texts, in their order: 32-bit floats. `calls` are the ids of the ledger's rows.

    `served_by` and `reported_model` name everyone who answered. `cost_usd` is None when any price is unknown.
    """

    vectors: Vectors
    model: str
    served_by: str | None = None
    reported_model: str | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen, so it may be shared
    cost_usd: float | None = 0.0
    calls: tuple[str, ...] = ()

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
    command: str = "library",
) -> EmbedRun:
    """The run that embeds `texts`, not yet begun; an iterator is read as it is needed, in a thread of its own.

    `batch` is the most texts of a request, `parallel` the most requests at once; times are seconds, of each request,
    and `max_cost` is USD, of each request: what may cost more is not sent;
    `extra` holds fields of the provider's own, such as an input type. Raises UsageError, MissingCredential and
    ConfigInvalid before anything is sent.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise UsageError(f"the texts are a list, not {type(texts).__name__}", hint='embed(["..."])')
    _positive(dimensions=dimensions, batch=batch, parallel=parallel)
    name, settings = GROUP if model is None else model, catalog.settings
    labels, cap = asking.tags_of(tags), asking.nanousd_of(max_cost)
    budgets = settings.budgets.of_call(name, labels, cap)

    def obstacle(deployment: Deployment) -> LlmctlError | None:
        return engine.endpoints.obstacle(deployment) or budgets.unpriced(deployment, catalog)

    plan = _plan(catalog, name, dimensions, obstacle)
    ask = Ask(
        request=Request((), Params(extra=extra or {}), stream=False, dimensions=dimensions),
        plan=plan,
        policy=asking.policy_of(settings, retries, timeout, max_wait, strategy),
        command=command,
        tags=labels,
        session=session,
        keep_text=log and settings.log_content == "full",
        buffered=True,
        fixed_deadline=timeout is not None,
        strict_params=dimensions is not None,  # vectors of another size are no use
        max_cost=cap,
    )
    dialects = [deployment.provider.dialect for deployment in plan.links[0].deployments]
    most = min([batch or BATCH, *(each["embed_batch"] for each in dialects if "embed_batch" in each)])
    tokens = min(each.get("embed_tokens", BATCH_TOKENS) for each in dialects)
    return EmbedRun(engine, ask, texts, most=most, most_tokens=tokens, parallel=min(parallel, MOST_PARALLEL))


def _positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise UsageError(f"{name}: {number!r} is not a whole number of 1 or more", hint="leave it out")


def _plan(catalog: Catalog, name: str, dimensions: int | None, obstacle: Obstacle) -> Plan:
    """The plan for embedding by `name`: one link, of one model, that has vectors. Raises UsageError."""
    if name == GROUP and GROUP not in catalog.groups:
        raise UsageError(
            "no model was named to embed with",
            hint=f"name one, such as text-embedding-3-small or gemini-embedding-001, or configure [models.{GROUP}]",
        )
    group = catalog.resolve(name)
    for each in group.deployments:
        _must_embed(each, dimensions)
    models = {each.base_model or each.model for each in group.deployments}
    if len(models) > 1:
        raise UsageError(
            f"the deployments of {name!r} are of several models: {', '.join(sorted(models))}",
            hint="vectors of two models cannot be compared: name one, or say with base_model that they are the same",
        )
    return make_plan(catalog, name, fallbacks=(), obstacle=obstacle)


def _must_embed(deployment: Deployment, dimensions: int | None) -> None:
    """Raises UsageError where it is known beforehand that `deployment` cannot give such vectors."""
    provider = deployment.provider
    if supports(provider)["embeddings"] is False:
        raise UsageError(f"{deployment.served_by}: {provider.title or provider.name} has no embeddings", hint=_ABLE)
    if dimensions is not None and "dimensions" in provider.dialect.get("drop", ()):
        raise UsageError(
            f"{deployment.served_by}: its vectors cannot be cut to {dimensions} numbers", hint="leave dimensions out"
        )


class EmbedRun:
    """Texts becoming vectors. Iterate over `vectors()`, once; `result` sums up what has come. Not reusable."""

    def __init__(
        self, engine: Engine, ask: Ask, texts: Iterable[str], *, most: int, most_tokens: int, parallel: int
    ) -> None:
        """`ask` is what every batch is asked like; a batch has at most `most` texts and `most_tokens`."""
        self.ask = ask
        self.done = 0
        self._engine = engine
        self._texts = texts
        self._most = most, most_tokens
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
        )

    async def vectors(self) -> AsyncGenerator[Vectors, None]:
        """The vectors of each batch, in the order of the texts. Raises the first error, and cancels the rest."""
        texts = batches(self._texts, *self._most)
        source = in_thread(texts) if isinstance(self._texts, Iterator) else at_once(texts)
        running: deque[asyncio.Task[Answer]] = deque()
        reading: asyncio.Task[Texts | None] | None = None
        ended, failure = False, None
        try:
            while not ended or running:
                if not ended and reading is None and len(running) < self._parallel:
                    reading = asyncio.create_task(_next(source))
                if reading is not None and reading.done():
                    failure = reading.exception()
                    batch, reading = None if failure else reading.result(), None
                    ended = batch is None
                    if batch is not None:
                        running.append(asyncio.create_task(self._asked(batch)))
                elif running and running[0].done():
                    yield self._taken(running.popleft().result())
                else:
                    for task in running:
                        if task.done():
                            task.result()  # raises what a batch behind the first has failed with
                    pending = {task for task in (reading, *running) if task is not None and not task.done()}
                    await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if failure is not None:  # a text that cannot be read: what was sent before it has come
                raise failure
        except LlmctlError as error:
            self.exit_if_stopped = error.exit_code
            raise
        finally:
            await _cancelled(*running, *([reading] if reading else []))
            await source.aclose()

    async def _asked(self, batch: Texts) -> Answer:
        call = self._engine.call(replace(self.ask, request=replace(self.ask.request, inputs=batch)))
        call.exit_if_stopped = self._exit_if_stopped
        self._open.add(call)
        try:
            return await call.whole()
        finally:
            self._open.discard(call)

    def _taken(self, answer: Answer) -> Vectors:
        """The vectors of a batch, whose bill is added up. Raises BadResponse when they do not fit what was asked."""
        vectors, record, used = answer.completion.vectors, answer.record, answer.usage
        wanted = self.ask.request.dimensions or self._size or len(vectors[0])
        if len(vectors[0]) != wanted:
            raise BadResponse(
                f"{answer.served_by}: a vector has {len(vectors[0])} numbers, not {wanted}",
                hint="ask for no dimensions, or another model" if self.ask.request.dimensions else "",
            )
        self._size = wanted
        self.done += len(vectors)
        self._served[answer.served_by or ""] = None
        if answer.reported_model:
            self._reported[answer.reported_model] = None
        self._calls.append(answer.id)
        self._usage = _sum(self._usage, used)
        known = self._cost is not None and record.cost_nanousd is not None
        self._cost = (self._cost or 0) + (record.cost_nanousd or 0) if known else None
        return vectors


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_input_tokens + other.cached_input_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
        one.estimated or other.estimated,
    )


async def _next(source: AsyncGenerator[Texts, None]) -> Texts | None:
    return await anext(source, None)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks`, and wait until their rows are complete."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
