"""The composition root and the library face: joins configuration, stores and engine into one `Client`.

The core is asynchronous. The synchronous face runs it on one background event loop of its own, so it works the same in
a script, inside a running event loop (a notebook), and from several threads.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmctl.config.keys import Keys
from llmctl.config.load import catalog_of, load_catalog
from llmctl.config.places import places as find_places
from llmctl.core.catalog import Catalog
from llmctl.run.clock import SystemClock
from llmctl.run.endpoint import Endpoints
from llmctl.run.observe import Hooks
from llmctl.run.prepare import default_model, obstacle_of, prepare
from llmctl.store.ledger import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmctl.config.places import Places
    from llmctl.core.caching import Found
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer
    from llmctl.routing.plan import Obstacle
    from llmctl.run.asking import Ask
    from llmctl.run.background import BackgroundLoop
    from llmctl.run.embedding import Embeddings, EmbedRun
    from llmctl.run.engine import CallRun, Engine
    from llmctl.run.observe import Hook
    from llmctl.run.ports import Cache, Clock, Ledger, State, Transport
    from llmctl.run.recall import Caching
    from llmctl.run.shared import Shared
    from llmctl.run.streams import AsyncStream, Stream
    from llmctl.run.telling import Teller


class Client:
    """Asks models. One client may be used from several threads and event loops; close it, or use it as a context."""

    def __init__(
        self,
        config: Catalog | Mapping[str, Any] | str | Path | Sequence[str | Path] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        endpoints: Endpoints | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        ledger: Ledger | None = None,
        state: State | None = None,
        cache: Cache | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        """`config` is a dict of the configuration's shape, one path or several, or None for the user's own files.

        A catalog is taken as it is, and so are the `endpoints` of another client. `transport`, `clock`, `rng`,
        `ledger`, `state` and `cache` take test doubles (`llmctl.testing`). A client that is given a ledger and no state
        shares none, nor a cache: it writes no file. Raises ConfigInvalid.
        """
        environ = os.environ if environ is None else environ
        named = [] if not config or isinstance(config, (Mapping, Catalog)) else config
        paths = [named] if isinstance(named, (str, Path)) else named
        self.places: Places = find_places(environ, [str(path) for path in paths])
        clock = clock or SystemClock()
        if isinstance(config, Catalog):
            self.catalog = config
        elif isinstance(config, Mapping):
            self.catalog = catalog_of(dict(config), environ, self.places, clock.now)
        else:
            self.catalog = load_catalog(self.places, environ, clock.now)
        self.endpoints = endpoints or Endpoints(environ, keys=Keys(self.places.keys))
        self.ledger: Ledger = _own_ledger(self.places, self.catalog) if ledger is None else ledger
        self._dice = (rng or random.SystemRandom()).random
        self._alone = ledger is not None
        if state is not None:
            self.state = state
        self.cache = _own_cache(self.places, self.catalog) if cache is None and ledger is None else cache
        """Where answers are kept, None where nowhere."""
        self._clock = clock
        self._environ = environ
        self._double = transport
        self._transports: dict[str, Transport] = {}
        self.teller: Teller | None = None
        if self.catalog.settings.observers.anyone:
            from llmctl.run.telling import Teller

            self.teller = Teller(self.catalog.settings.observers, environ)
        self._hooks = Hooks([*hooks, *filter(None, [self.teller])])

    @cached_property
    def state(self) -> State:
        """What this client's calls share with those of other processes; made when a call is, like all that follows."""
        if self._alone:
            from llmctl.run.shared import MemoryState

            return MemoryState()
        from llmctl.routing.shape import is_whole
        from llmctl.store.state import SqliteState

        return SqliteState(self.places.state, is_whole)

    @cached_property
    def shared(self) -> Shared:
        """The state, with what it takes to find a deployment in it."""
        from llmctl.run.shared import Shared

        return Shared(self.state, self._clock, self.endpoints, self._dice)

    @cached_property
    def engine(self) -> Engine:
        """What makes this client's calls, for whoever rehearses them below `call`."""
        from llmctl.run.engine import Engine

        return Engine(
            settings=self.catalog.settings,
            endpoints=self.endpoints,
            transport=self.transport,
            ledger=self.ledger,
            shared=self.shared,
            clock=self._clock,
            dice=self._dice,
            hooks=self._hooks,
            caching=self._caching,
        )

    @cached_property
    def _caching(self) -> Caching | None:
        from llmctl.run.recall import Caching

        return Caching(self.cache, self.endpoints, self._clock, self._dice) if self.cache is not None else None

    @cached_property
    def _loop(self) -> BackgroundLoop:
        from llmctl.run.background import BackgroundLoop

        return BackgroundLoop()

    # ---------------------------------------------------------------- asking

    def call(self, prompt: str | None = None, **options: Any) -> CallRun:
        """A call, not yet begun: iterate over its `events()`, then read its `answer`; the options are `ask`'s."""
        return self.engine.call(self.ask(prompt, **options))

    def recalled(self, ask: Ask) -> Answer | None:
        """The answer that the cache has for `ask`, booked as a call; None where there is none, or the cache is off."""
        if self._caching is None or not ask.cache.tiers or not isinstance(self.ledger, SqliteLedger):
            return None
        from llmctl.run.recall import answered_now

        return answered_now(self._caching, ask, self.ledger, self._hooks)

    def kept(self, ask: Ask) -> tuple[str, Found | None]:
        """What the cache is to `ask` now: "off", "miss" or a tier, and the answer that it has. Nothing is written."""
        if self._caching is None or ask.cache.off:
            return "off", None
        recall = self._caching.of(ask, "")
        found = recall.find()
        return found.tier if found else recall.column, found

    def ask(self, prompt: str | None = None, **options: Any) -> Ask:
        """A call to be made; the options, and the errors, are those of `run.prepare.prepare`."""
        return prepare(self.catalog, self.endpoints, prompt, **options)

    def obstacle(self, model: str, tags: Mapping[str, str] | None = None, max_cost: int | None = None) -> Obstacle:
        """What says why a call of `model` cannot ask a deployment: no key, no address, or no price under a budget."""
        return obstacle_of(self.catalog, self.endpoints, model, tags, max_cost)

    @property
    def default_model(self) -> str:
        """The model asked when none is named. Raises MissingCredential when there is nothing to ask."""
        return default_model(self.catalog, self.endpoints)

    def complete(self, prompt: str | None = None, **options: Any) -> Answer:
        """One whole answer; the options are those of `call`. Raises the error the call ended in."""
        return self._loop.run(self.acomplete(prompt, **options))

    async def acomplete(self, prompt: str | None = None, **options: Any) -> Answer:
        """As `complete`, on the caller's own event loop."""
        return await self.call(prompt, buffered=True, **options).whole()

    def embedding(self, texts: Iterable[str], **options: Any) -> EmbedRun:
        """Texts on their way to become vectors, not yet begun; the options are those of `run.embedding.start`.

        An iterator is read as it is needed, so that any number of texts can pass. Raises as `call` does.
        """
        from llmctl.run.embedding import start

        return start(self.engine, self.catalog, texts, **options)

    def embed(self, texts: Iterable[str], **options: Any) -> Embeddings:
        """One vector for each text; the options are those of `embedding`. Raises the first error of any batch."""
        return self._loop.run(self.aembed(texts, **options))

    async def aembed(self, texts: Iterable[str], **options: Any) -> Embeddings:
        """As `embed`, on the caller's own event loop."""
        return await self.embedding(texts, **options).whole()

    def stream(self, prompt: str | None = None, **options: Any) -> Stream:
        """The answer's events as they are made; afterwards the stream's `answer` is set."""
        from llmctl.run.streams import Stream

        return Stream(self.call(prompt, **options), self._loop)

    def astream(self, prompt: str | None = None, **options: Any) -> AsyncStream:
        """As `stream`, on the caller's own event loop."""
        from llmctl.run.streams import AsyncStream

        return AsyncStream(self.call(prompt, **options))

    # ---------------------------------------------------------------- parts

    def _made(self, *names: str) -> list[Any]:
        """Those of this client's parts that were made: a call that found its answer needs few."""
        return [vars(self)[name] for name in names if name in vars(self)]

    def warnings(self) -> list[str]:
        """What a person must hear of the stores, the prices and the keys."""
        parts = self._made("ledger", "state", "shared", "cache", "_caching")
        stores = (list(getattr(part, "warnings", ())) for part in parts)
        one = next(filter(None, stores), [])  # what ails one of them ails the others: once is enough
        return [*one, *getattr(self.catalog.quote, "warnings", ()), *self.endpoints.warnings]

    def transport(self, deployment: Deployment) -> Transport:
        """The way to `deployment`."""
        if self._double is not None:
            return self._double
        kind = "local" if deployment.is_local else "http"
        if kind not in self._transports:
            if kind == "local":
                from llmctl.run.local import LocalTransport

                made: Transport = LocalTransport(self.places.weights)
            else:
                from llmctl.run.transport import HttpTransport

                made = HttpTransport(self._environ)
            self._transports.setdefault(kind, made)
        return self._transports[kind]

    async def aclose(self) -> None:
        """Let go of what this event loop's calls held open."""
        for transport in self._transports.values():
            await transport.aclose()

    def close(self) -> None:
        """Stop the calls of the synchronous face that still run, and let go of everything."""
        if self._transports or ("_loop" in vars(self) and self._loop.running):
            self._loop.stop(self.aclose())
        for store in self._made("ledger", "state", "cache"):
            close = getattr(store, "close", None)
            if close is not None:
                close()
        if self.teller is not None:
            self.teller.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _own_ledger(places: Places, catalog: Catalog) -> SqliteLedger:
    settings = catalog.settings
    return SqliteLedger(places.ledger, places.spool, budgets=settings.budgets, retain_s=settings.log_retain_s)


def _own_cache(places: Places, catalog: Catalog) -> Cache:
    from llmctl.store.cache import SqliteCache

    limits = catalog.settings.caching
    return SqliteCache(places.cache, max_entries=limits.max_entries, max_bytes=limits.max_bytes)


_shared: Client | None = None


def _client() -> Client:
    global _shared  # noqa: PLW0603 - one client behind the module-level functions
    if _shared is None:
        _shared = Client()
    return _shared


def complete(prompt: str | None = None, **options: Any) -> Answer:
    """`Client().complete`, on a client shared by the process."""
    return _client().complete(prompt, **options)


def embed(texts: Iterable[str], **options: Any) -> Embeddings:
    """`Client().embed`, on a client shared by the process."""
    return _client().embed(texts, **options)


def stream(prompt: str | None = None, **options: Any) -> Stream:
    """`Client().stream`, on a client shared by the process."""
    return _client().stream(prompt, **options)
