"""The composition root and the library face: joins configuration, stores and engine into one `Client`.

The core is asynchronous. The synchronous face runs it on one background event loop of its own, so it works the same in
a script, inside a running event loop (a notebook), and from several threads.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmctl.config.load import catalog_of, load_catalog
from llmctl.config.places import places as find_places
from llmctl.core.catalog import Catalog
from llmctl.core.errors import LlmctlError, MissingCredential, UsageError
from llmctl.core.support import lacking, too_long
from llmctl.core.types import Request
from llmctl.routing.plan import make_plan
from llmctl.routing.shape import is_whole
from llmctl.run import asking, extras
from llmctl.run.accounts import estimate_prompt
from llmctl.run.background import BackgroundLoop
from llmctl.run.clock import SystemClock
from llmctl.run.endpoint import Endpoints
from llmctl.run.engine import Ask, CallRun, Engine
from llmctl.run.observe import Hooks
from llmctl.run.shared import MemoryState, Shared
from llmctl.run.streams import AsyncStream, Stream
from llmctl.store.ledger import SqliteLedger
from llmctl.store.state import SqliteState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmctl.config.places import Places
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer
    from llmctl.core.types import Message, Params
    from llmctl.routing.plan import Obstacle
    from llmctl.run.embedding import Embeddings, EmbedRun
    from llmctl.run.observe import Hook
    from llmctl.run.ports import Clock, Ledger, State, Transport
    from llmctl.run.telling import Teller

DEFAULT_GROUP = "fast"
LOCAL_GROUP = "local"


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
        hooks: Sequence[Hook] = (),
    ) -> None:
        """`config` is a dict of the configuration's shape, one path or several, or None for the user's own files.

        A catalog is taken as it is, and so are the `endpoints` of another client. `transport`, `clock`, `rng`, `ledger`
        and `state` take test doubles (`llmctl.testing`). A client that is given a ledger and no state shares none: it
        writes no file. Raises ConfigInvalid.
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
        self.endpoints = endpoints or Endpoints(environ)
        self.ledger: Ledger = _own_ledger(self.places, self.catalog) if ledger is None else ledger
        dice = (rng or random.SystemRandom()).random
        if state is not None:
            self.state: State = state
        elif ledger is None:
            self.state = SqliteState(self.places.state, is_whole)
        else:
            self.state = MemoryState()
        self.shared = Shared(self.state, clock, self.endpoints, dice)
        self._environ = environ
        self._double = transport
        self._transports: dict[str, Transport] = {}
        self._loop = BackgroundLoop()
        self.teller: Teller | None = None
        if self.catalog.settings.observers.anyone:
            from llmctl.run.telling import Teller

            self.teller = Teller(self.catalog.settings.observers, environ)
        self.engine = Engine(
            settings=self.catalog.settings,
            endpoints=self.endpoints,
            transport=self.transport,
            ledger=self.ledger,
            shared=self.shared,
            clock=clock,
            dice=dice,
            hooks=Hooks([*hooks, *filter(None, [self.teller])]),
        )
        """What makes this client's calls, for whoever rehearses them below `call`."""

    # ---------------------------------------------------------------- asking

    def call(
        self,
        prompt: str | None = None,
        *,
        model: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        functions: Sequence[Mapping[str, Any]] = (),
        function_call: str | Mapping[str, Any] | None = None,
        params: Params | None = None,
        fallbacks: Sequence[str] | None = None,
        retries: int | None = None,
        timeout: float | None = None,
        max_wait: float | None = None,
        max_cost: float | None = None,
        strategy: str | None = None,
        on_break: str = "fail",
        tags: Mapping[str, str] | None = None,
        session: str | None = None,
        log: bool = True,
        strict_params: bool = False,
        command: str = "library",
        buffered: bool = False,
        **parameters: Any,
    ) -> CallRun:
        """A call, not yet begun: iterate over its `events()`, then read its `answer`.

        `parameters` are those of `Params` (temperature, max_tokens, seed, ...); times are seconds; `fallbacks` replaces
        the group's chain. An answer under `schema` (or an OpenAI-shaped `response_format`) comes whole and is checked;
        its document is in `parsed`. `log=False` keeps no text; the row stays. `strict_params` refuses what a target
        cannot take instead of leaving it out. `max_cost` is USD: what may cost more is not sent. `functions` and
        `function_call` are the old names of tools and choice. Raises UsageError, MissingCredential, BudgetExceeded and
        ConfigInvalid, before anything is sent.
        """
        if on_break not in ("fail", "restart"):
            raise UsageError(f"on_break {on_break!r}", hint="use fail or restart")
        if isinstance(fallbacks, str):
            raise UsageError("fallbacks is a list of names, not one text", hint=f"fallbacks=[{fallbacks!r}]")
        request = Request(
            messages=asking.messages_of(prompt, messages, system),
            params=asking.params_of(params, parameters),
            tools=asking.tools_of(tools, functions),
            tool_choice=asking.tool_choice_of(function_call if tool_choice is None else tool_choice),
            response_format=asking.shape_of(schema, response_format),
        )
        settings = self.catalog.settings
        policy = asking.policy_of(settings, retries, timeout, max_wait, strategy, restart=on_break == "restart")

        prompt_tokens = cache(lambda: estimate_prompt(request))
        name, labels, cap = model or self.default_model, asking.tags_of(tags), asking.nanousd_of(max_cost)
        closed = self.obstacle(name, labels, cap)

        def obstacle(deployment: Deployment) -> LlmctlError | None:
            found = closed(deployment) or lacking(request, deployment)
            if found is None and deployment.context_window is not None:
                found = too_long(prompt_tokens(), deployment)
            return found

        ask = Ask(
            request=request,
            plan=make_plan(self.catalog, name, fallbacks=fallbacks, obstacle=obstacle),
            policy=policy,
            command=command,
            tags=labels,
            session=session,
            keep_text=log and settings.log_content == "full",
            buffered=buffered or request.response_format is not None,
            fixed_deadline=timeout is not None,
            strict_params=strict_params,
            prompt_tokens=prompt_tokens(),
            max_cost=cap,
        )
        return self.engine.call(ask)

    def obstacle(self, model: str, tags: Mapping[str, str] | None = None, max_cost: int | None = None) -> Obstacle:
        """What says why a call of `model` cannot ask a deployment: no key, no address, or no price under a budget."""
        budgets = self.catalog.settings.budgets.of_call(model, tags or {}, max_cost)
        return lambda each: self.endpoints.obstacle(each) or budgets.unpriced(each, self.catalog)

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
        return Stream(self.call(prompt, **options), self._loop)

    def astream(self, prompt: str | None = None, **options: Any) -> AsyncStream:
        """As `stream`, on the caller's own event loop."""
        return AsyncStream(self.call(prompt, **options))

    @property
    def default_model(self) -> str:
        """The model asked when none is named: configured, else the first group with a key, else the embedded one.

        Raises MissingCredential when there is nothing to ask.
        """
        if self.catalog.default_model:
            return self.catalog.default_model
        for name in (DEFAULT_GROUP, *self.catalog.groups):
            if self._reaches_a_provider(name):
                return name
        if extras.installed("local"):
            return LOCAL_GROUP
        install = extras.missing("local", "the embedded model").hint
        raise MissingCredential(
            "no key for any provider was found",
            hint=f"set one (OPENAI_API_KEY, GROQ_API_KEY, ...), or install the embedded model: {install}",
        )

    def _reaches_a_provider(self, name: str) -> bool:
        """Whether something beyond the embedded model can be asked by `name`."""
        try:
            plan = make_plan(self.catalog, name, fallbacks=None, obstacle=self.endpoints.obstacle)
        except LlmctlError:
            return False
        return any(not deployment.is_local for deployment in plan.deployments)

    # ---------------------------------------------------------------- parts

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
        if self._transports or self._loop.running:
            self._loop.stop(self.aclose())
        for store in (self.ledger, self.state):
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
