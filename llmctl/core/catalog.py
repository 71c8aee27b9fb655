"""What can be asked: providers, deployments, model groups, and the resolution of the name a user types.

It is put together by `core/build`. Credentials are not here: a deployment holds a reference (`env:NAME`, `file:PATH`,
`cmd:...`), never the secret, except for a literal the user wrote into a 0600 file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core import caching
from llmctl.core.budget import Budgets
from llmctl.core.errors import UsageError
from llmctl.core.money import Price
from llmctl.core.types import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

KeyPath = tuple[str | int, ...]
"""The way to a key of the configuration: `("models", "fast", "deployments", 0, "rpm")`."""
LOCAL_PROVIDER = "local"
REFERENCES = ("env:", "file:", "cmd:")
"""How a credential that is not written out begins: where it is instead."""
MAX_LINKS = 6
MAX_RETRIES = 2  # of one target
RESERVED = {"auto": "cost-aware routing comes with a later release: name a group, such as `fast` or `smart`"}
"""Names that will mean something, and what to say of them until then."""
CLOSED = {
    "perplexity": "its chat completions ended on 2026-09-27: its Agent API speaks another protocol",
    "github": "GitHub Models ended on 2026-07-30: ask the model's own provider",
    "lambda": "Lambda's inference API has closed: ask another host of the model",
}
"""Providers that many still know and nobody can ask any more; the sources are at the head of `data/providers.toml`."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A company or host: one row of the provider table, or one `[providers.NAME]` of the configuration.

    `headers` are sent with every request; a value `env:NAME` is left out where the variable is not set. `auth` is
    "bearer" where the key is a token for `Authorization`, whatever header the protocol has for keys. `prices` is its
    name in the price table, "" where no table knows what it costs.
    """

    name: str
    title: str = ""
    protocol: str = "openai"
    api_base: str = ""
    key: tuple[str, ...] = ()
    key_optional: bool = False
    aliases: tuple[str, ...] = ()
    address: tuple[str, ...] = ()
    infer: tuple[str, ...] = ()
    loopback: bool = False
    dialect: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    api_key: str = ""
    auth: str = ""
    api_base_set: bool = False
    source: str = ""
    prices: str = ""

    @property
    def address_names(self) -> tuple[str, ...]:
        """The environment variables that may hold this provider's address, first wins."""
        return (*self.address, f"{self.name.upper().replace('-', '_')}_API_BASE")


class Limits(NamedTuple):
    """What it admits a minute: requests, tokens, input and output tokens; and calls in flight. None is unlimited."""

    rpm: int | None = None
    tpm: int | None = None
    itpm: int | None = None
    otpm: int | None = None
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One provider + model + credential + limits. `model` is the name sent; `id` is stable and unique in its group."""

    id: str
    provider: Provider
    model: str
    api_base: str = ""
    api_key: str = ""
    auth: str = ""
    api_version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Params = Params()  # noqa: RUF009 - frozen, so it may be shared
    limits: Limits = Limits()  # noqa: RUF009
    weight: float = 1.0
    price: Price | None = None
    base_model: str = ""
    context_window: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    reasoning: bool = False
    allow_http: bool = False
    allow_toy: bool = False

    @property
    def served_by(self) -> str:
        """`provider/model` as configured: what the ledger and `--json` call `served_by`."""
        return f"{self.provider.name}/{self.model}"

    @property
    def maker(self) -> str:
        """Whose seals on thoughts it can read: Claude's are the same wherever it is served.

        https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "compatible across platforms", read
        2026-11-20.
        """
        protocol = self.provider.protocol
        if protocol == "bedrock" and "anthropic." in (self.base_model or self.model):
            return "anthropic"
        return self.provider.name if protocol == "openai" else protocol

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded model, which needs no network."""
        return self.provider.name == LOCAL_PROVIDER


@dataclass(frozen=True, slots=True)
class Group:
    """Deployments that may stand in for each other, under the name a user types, with the chain after them."""

    name: str
    deployments: tuple[Deployment, ...]
    strategy: str = "adaptive"
    fallbacks: tuple[str, ...] = ()
    cache: str | None = None
    cache_ttl_s: float | None = None
    on_content_filter: str = "fail"
    route: Mapping[str, str] = field(default_factory=dict)
    built_in: bool = False


class Observers(NamedTuple):
    """Who is told about calls: an OTLP endpoint, Sentry, and hooks (`module:function`, or an entry point's name).

    `wait_s` is how long a process that has done its work waits until they are.
    """

    otel: str = ""
    sentry: bool = False
    hooks: tuple[str, ...] = ()
    wait_s: float = 1.0

    @property
    def anyone(self) -> bool:
        """Whether there is anyone to be told."""
        return bool(self.otel or self.sentry or self.hooks)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything of the configuration that is not a model or a provider; seconds, and USD as written."""

    retries: int = 2
    tries: int = 6
    patience_s: float = 5.0
    max_wait_s: float = 60.0
    connect_s: float = 5.0
    first_token_s: float = 30.0
    first_token_reasoning_s: float = 180.0
    idle_s: float = 30.0
    total_s: float = 300.0
    log_content: str = "full"
    log_retain_s: float | None = None
    budgets: Budgets = Budgets()  # noqa: RUF009 - frozen, so it may be shared
    observers: Observers = Observers()  # noqa: RUF009
    caching: caching.Settings = caching.Settings()  # noqa: RUF009

    def first_token_of(self, deployment: Deployment) -> float:
        """How long its first token is waited for, in seconds: longer where the model reasons."""
        return self.first_token_reasoning_s if deployment.reasoning else self.first_token_s


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that a name may resolve to, and the settings beside it.

    `drills` are saved drills: the keys of `[drills.NAME]`, with `inject` as a tuple of TARGET=FAULT. `quote` tells what
    a deployment costs now, where the configuration does not.
    """

    providers: Mapping[str, Provider]
    groups: Mapping[str, Group]
    settings: Settings = Settings()
    default_model: str = ""
    drills: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quote: Callable[[Deployment], Price | None] | None = field(default=None, compare=False)

    def resolve(self, name: str) -> Group:
        """The group for `name`: a group's own name, `provider/model`, or a bare well-known model name.

        Its deployments have the prices of this moment. Raises UsageError with a suggestion for an unknown name.
        """
        group = self.groups.get(name)
        if group is not None and group.deployments:
            return replace(group, deployments=tuple(map(self._priced, group.deployments)))
        if group is not None or name in RESERVED:
            raise UsageError(f"{name!r} cannot be asked yet", hint=RESERVED["auto"])
        deployment = self._priced(self.deployment(name))
        return Group(name=deployment.id, deployments=(deployment,))

    def _priced(self, deployment: Deployment) -> Deployment:
        if deployment.price is not None or self.quote is None:
            return deployment
        price = self.quote(deployment)
        return deployment if price is None else replace(deployment, price=price)

    def deployment(self, model: str) -> Deployment:
        """The deployment that `provider/model` (or a bare well-known name) means; never a group's name."""
        provider, bare = self._split(model)
        price = Price.free() if provider.name == LOCAL_PROVIDER else None
        return Deployment(id=f"{provider.name}/{bare}", provider=provider, model=bare, price=price)

    def _split(self, model: str) -> tuple[Provider, str]:
        prefix, slash, rest = model.partition("/")
        if slash and rest:
            for provider in self.providers.values():
                if prefix == provider.name or prefix in provider.aliases:
                    return provider, rest
        elif not slash:
            for provider in self.providers.values():
                if model.startswith(provider.infer):
                    return provider, model
        raise UsageError(f"unknown model {model!r}", hint=self._suggest(model))

    def _suggest(self, model: str) -> str:
        prefix, slash, rest = model.partition("/")
        if prefix in CLOSED:
            return CLOSED[prefix]
        near = near_name(prefix, self.providers, rest) if slash else near_name(model, self.groups)
        return near or "write provider/model, or a group's name: `llmctl models list` shows what there is"


def near_name(word: str, known: Iterable[str], rest: str = "") -> str:
    """The question whether a name of `known` like `word` was meant, "" when none is like it."""
    import difflib  # only errors need it, and it is slow to load

    near = difflib.get_close_matches(word, list(known), n=1)
    name = f"{near[0]}/{rest}" if near and rest else near[0] if near else ""
    return name and f"did you mean {name!r}? (`llmctl models list` shows what there is)"


def dotted(path: KeyPath) -> str:
    """A key path as it is written in TOML: `models."gpt-4.1".deployments[0].rpm`."""
    words = ""
    for step in path:
        if isinstance(step, int):
            words += f"[{step}]"
            continue
        bare = step.isascii() and step.replace("-", "").replace("_", "").isalnum()
        quoted = step if bare else '"' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
        words += f".{quoted}" if words else quoted
    return words
