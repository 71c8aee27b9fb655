"""What can be asked: providers, deployments, model groups, and the resolution of the name a user types.

The catalog is built from plain data (the provider table and the validated configuration), so that a cached copy of that
data gives the same catalog without validating again. Credentials are not here: a deployment holds a reference
(`env:NAME`, `file:PATH`, `cmd:...`), never the secret, except for a literal the user wrote into a 0600 file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import ConfigInvalid, UsageError
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
PARAM_KEYS = (
    "temperature", "max_tokens", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort",
    "reasoning_tokens", "parallel_tool_calls", "user", "extra",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Provider:
    """A company or host: one row of the provider table, or one `[providers.NAME]` of the configuration."""

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
    api_key: str = ""
    api_base_set: bool = False
    source: str = ""

    @property
    def address_names(self) -> tuple[str, ...]:
        """The environment variables that may hold this provider's address, first wins."""
        return (*self.address, f"{self.name.upper().replace('-', '_')}_API_BASE")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a deployment admits: requests and tokens per rolling minute, calls in flight. None is unlimited."""

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One provider + model + credential + limits. `model` is the name sent; `id` is stable and unique in its group."""

    id: str
    provider: Provider
    model: str
    api_base: str = ""
    api_key: str = ""
    api_version: str = ""
    params: Params = Params()  # noqa: RUF009 - frozen, so it may be shared
    limits: Limits = Limits()
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
    budget_refuses: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that a name may resolve to, and the settings beside it."""

    providers: Mapping[str, Provider]
    groups: Mapping[str, Group]
    settings: Settings = Settings()
    default_model: str = ""

    def resolve(self, name: str) -> Group:
        """The group for `name`: a group's own name, `provider/model`, or a bare well-known model name.

        Raises UsageError with a suggestion for an unknown name.
        """
        group = self.groups.get(name)
        if group is not None and group.deployments:
            return group
        if group is not None or name in RESERVED:
            raise UsageError(f"{name!r} cannot be asked yet", hint=RESERVED["auto"])
        return _single(self.deployment(name))

    def deployment(self, model: str, **overrides: Any) -> Deployment:
        """The deployment that `provider/model` (or a bare well-known name) means; never a group's name."""
        provider, bare = self._split(model)
        deployment = Deployment(id=f"{provider.name}/{bare}", provider=provider, model=bare)
        if provider.name == LOCAL_PROVIDER:
            deployment = replace(deployment, price=Price.free())
        return replace(deployment, **overrides) if overrides else deployment

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
        near = _near(prefix, self.providers, rest) if slash else _near(model, self.groups)
        return near or "write provider/model, or a group's name: `llmctl models list` shows what there is"


def _near(word: str, known: Iterable[str], rest: str = "") -> str:
    import difflib  # only errors need it, and it is slow to load

    near = difflib.get_close_matches(word, list(known), n=1)
    name = f"{near[0]}/{rest}" if near and rest else near[0] if near else ""
    return name and f"did you mean {name!r}? (`llmctl models list` shows what there is)"


def _single(deployment: Deployment) -> Group:
    return Group(name=deployment.id, deployments=(deployment,))


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


def build(
    providers: Mapping[str, Mapping[str, Any]],
    built_in: Mapping[str, Any],
    config: Mapping[str, Any],
    where: Callable[[KeyPath], str] = dotted,
) -> Catalog:
    """The catalog of the provider table, the built-in groups and a validated configuration, all as plain data.

    `where` says how an error names a key path (with its file and line, for one that was read from a file).
    Raises ConfigInvalid for a chain that names itself, a chain that is too long, or a name that means nothing.
    """
    table = {name: provider(name, row) for name, row in providers.items()}
    for name, row in config.get("providers", {}).items():
        known = table.get(name) or next((each for each in table.values() if name in each.aliases), None)
        if known is None and "api_base" not in row:
            hint = _near(name, table) or 'add api_base = "https://..."'
            raise ConfigInvalid(f"{where(('providers', name))}: an unknown provider, and no api_base", hint=hint)
        changed = _overridden(known, name, row)
        table[changed.name] = changed
    catalog = Catalog(table, {}, settings(config), config.get("default_model", ""))
    groups: dict[str, Group] = {}
    for name, row in built_in.items():
        groups[name] = replace(group(catalog, name, row), built_in=True)
    for name, row in config.get("models", {}).items():
        groups[name] = group(catalog, name, row, where)
    catalog = replace(catalog, groups=groups)
    for name in config.get("models", {}):
        _check_chain(catalog, name, where)
        _check_route(catalog, name, where)
    if catalog.default_model:
        _must_mean(catalog, catalog.default_model, ("default_model",), where)
    return catalog


def provider(name: str, row: Mapping[str, Any]) -> Provider:
    """A provider of one table row."""
    lists: dict[str, Any] = {key: tuple(row[key]) for key in ("key", "aliases", "address", "infer") if key in row}
    plain = {key: row[key] for key in ("protocol", "api_base", "key_optional", "loopback", "source") if key in row}
    title = row.get("title", name.capitalize())
    return Provider(name=name, title=title, dialect=row.get("dialect", {}), **lists, **plain)


def _overridden(known: Provider | None, name: str, row: Mapping[str, Any]) -> Provider:
    base = known or Provider(name=name, title=name, key=(f"{name.upper().replace('-', '_')}_API_KEY",))
    changes: dict[str, Any] = {key: row[key] for key in ("protocol", "api_base", "api_key", "dialect") if key in row}
    if "api_base" in row:
        changes["api_base_set"] = True
    if known is None and "api_key" not in row:
        changes["key_optional"] = True  # a user's own server may well ask for no key
    return replace(base, **changes)


def group(catalog: Catalog, name: str, row: Mapping[str, Any], where: Callable[[KeyPath], str] = dotted) -> Group:
    """A model group of one `[models.NAME]` table; its deployments inherit the keys of the group."""
    many = row.get("deployments")
    rows = [dict(row) | dict(each) for each in many] if many else [row] if "model" in row else []
    deployments: dict[str, Deployment] = {}
    for i, each in enumerate(rows):
        path = ("models", name, "deployments", i) if many else ("models", name)
        deployment = _deployment(catalog, each, f"{name}-{i + 1}", path, where)
        if deployment.id in deployments:
            what = f"{where((*path, 'id'))}: a second deployment with the id {deployment.id!r}"
            raise ConfigInvalid(what, hint="give it an id of its own")
        deployments[deployment.id] = deployment
    return Group(
        name=name,
        deployments=tuple(deployments.values()),
        strategy=row.get("strategy", "adaptive"),
        fallbacks=tuple(row.get("fallbacks", ())),
        cache=row.get("cache"),
        cache_ttl_s=row.get("ttl"),
        on_content_filter=row.get("on_content_filter", "fail"),
        route=row.get("route", {}),
    )


_DEPLOYMENT_KEYS = (
    "api_base", "api_key", "api_version", "weight", "base_model", "context_window", "max_output", "reasoning",
    "allow_http", "allow_toy",
)  # fmt: skip


def _deployment(
    catalog: Catalog, row: Mapping[str, Any], derived_id: str, path: KeyPath, where: Callable[[KeyPath], str]
) -> Deployment:
    try:
        plain = catalog.deployment(row["model"])
    except UsageError as error:
        raise ConfigInvalid(f"{where((*path, 'model'))}: {error.message}", hint=error.hint) from error
    changes: dict[str, Any] = {key: row[key] for key in _DEPLOYMENT_KEYS if key in row}
    if "price" in row:
        changes["price"] = Price.per_million(**row["price"])
    return replace(
        plain,
        id=row.get("id", derived_id),
        params=params(row),
        limits=Limits(row.get("rpm"), row.get("tpm"), row.get("max_parallel")),
        capabilities=tuple(row.get("capabilities", ())),
        **changes,
    )


def params(row: Mapping[str, Any]) -> Params:
    """The request parameters among the keys of `row`."""
    changes = {key: row[key] for key in PARAM_KEYS if row.get(key) is not None}
    stop = row.get("stop") or ()
    return Params(stop=(stop,) if isinstance(stop, str) else tuple(stop), **changes)


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a validated configuration (durations already in seconds)."""
    retry, timeout, log = (config.get(key, {}) for key in ("retry", "timeout", "log"))
    values: dict[str, Any] = {key: retry[key] for key in ("retries", "tries") if key in retry}
    values |= {f"{key}_s": retry[key] for key in ("patience", "max_wait") if key in retry}
    values |= {f"{key}_s": timeout[key] for key in ("connect", "first_token", "idle", "total") if key in timeout}
    if "first_token" in timeout:  # the user's word holds for reasoning models too
        values["first_token_reasoning_s"] = timeout["first_token"]
    if "content" in log:
        values["log_content"] = log["content"]
    if config.get("budget", {}).get("on_exceed", "refuse" if config.get("budget") else "warn") == "refuse":
        values["budget_refuses"] = True
    if "retain" in log:
        values["log_retain_s"] = log["retain"]
    return Settings(**values)


def _check_chain(catalog: Catalog, name: str, where: Callable[[KeyPath], str]) -> None:
    own = catalog.groups[name]
    if len(own.deployments) > 1:
        _no_toy(own, ("models", name, "deployments"), where)
    path = ("models", name, "fallbacks")
    if len(own.fallbacks) >= MAX_LINKS:
        raise ConfigInvalid(
            f"{where(path)}: {len(own.fallbacks)} fallbacks are too many",
            hint=f"a chain has at most {MAX_LINKS} links, the group itself included",
        )
    seen = {name}
    ids = {deployment.id for deployment in own.deployments}
    for i, link in enumerate(own.fallbacks):
        if link == name:
            raise ConfigInvalid(f"{where((*path, i))}: the chain names itself ({link!r})", hint="remove that link")
        target = _must_mean(catalog, link, (*path, i), where)
        if target is None:
            raise ConfigInvalid(f"{where((*path, i))}: {link!r} cannot be a link yet", hint=RESERVED["auto"])
        if target.name in seen:
            raise ConfigInvalid(f"{where((*path, i))}: the chain names {link!r} twice", hint="remove the repeated link")
        seen.add(target.name)
        twice = next((deployment.id for deployment in target.deployments if deployment.id in ids), None)
        if twice is not None:
            what = f"{where((*path, i))}: a second deployment of the chain with the id {twice!r}"
            raise ConfigInvalid(what, hint="give one of them another id")
        ids.update(deployment.id for deployment in target.deployments)
        _no_toy(target, (*path, i), where)


def _no_toy(target: Group, path: KeyPath, where: Callable[[KeyPath], str]) -> None:
    if any(deployment.is_local and not deployment.allow_toy for deployment in target.deployments):
        raise ConfigInvalid(
            f"{where(path)}: {target.name!r} is the small embedded model",
            hint="an outage must not end in nonsense: use a self-hosted model, or set allow_toy = true on it",
        )


def _check_route(catalog: Catalog, name: str, where: Callable[[KeyPath], str]) -> None:
    for key, target in catalog.groups[name].route.items():
        path = ("models", name, "route", key)
        if target == name or _must_mean(catalog, target, path, where) is None:
            hint = "name a group with models of its own"
            raise ConfigInvalid(f"{where(path)}: a route cannot lead to a route", hint=hint)


def _must_mean(catalog: Catalog, name: str, path: KeyPath, where: Callable[[KeyPath], str]) -> Group | None:
    """What `name` resolves to; None for a name that is known and cannot be asked yet."""
    try:
        return catalog.resolve(name)
    except UsageError as error:
        if name in catalog.groups or name in RESERVED:
            return None
        raise ConfigInvalid(f"{where(path)}: {error.message}", hint=error.hint) from error
