"""From plain data to the catalog: the provider table, the built-in groups and a validated configuration put together.

A cached copy of that data gives the same catalog without validating again. What a name means is `core/catalog`'s
business; here it is only checked that every name in a chain or a route means something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmctl.core import caching
from llmctl.core.budget import Allowance, Budgets
from llmctl.core.catalog import (
    MAX_LINKS,
    RESERVED,
    Catalog,
    Deployment,
    Group,
    Limits,
    Observers,
    Provider,
    Settings,
    dotted,
    near_name,
)
from llmctl.core.errors import ConfigInvalid, UsageError
from llmctl.core.money import Price, nano
from llmctl.core.types import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import KeyPath

SETTINGS: dict[tuple[str, str], str] = {
    ("retry", "retries"): "retries",
    ("retry", "tries"): "tries",
    ("retry", "patience"): "patience_s",
    ("retry", "max_wait"): "max_wait_s",
    ("timeout", "connect"): "connect_s",
    ("timeout", "first_token"): "first_token_s",
    ("timeout", "idle"): "idle_s",
    ("timeout", "total"): "total_s",
    ("log", "content"): "log_content",
}
"""Key of the configuration -> the field of `Settings` that it sets."""


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
            hint = near_name(name, table) or 'add api_base = "https://..."'
            raise ConfigInvalid(f"{where(('providers', name))}: an unknown provider, and no api_base", hint=hint)
        changed = _overridden(known, name, row, table)
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
    catalog = _with_named_budgets(catalog, config.get("budget", {}), where)
    if catalog.default_model:
        _must_mean(catalog, catalog.default_model, ("default_model",), where)
    drills = config.get("drills", {})
    return replace(catalog, drills={name: _drill(catalog, name, row, where) for name, row in drills.items()})


_PROVIDER_KEYS = ("protocol", "api_base", "key_optional", "loopback", "source", "dialect", "headers", "auth", "prices")


def provider(name: str, row: Mapping[str, Any]) -> Provider:
    """A provider of one table row."""
    lists: dict[str, Any] = {key: tuple(row[key]) for key in ("aliases", "address", "infer") if key in row}
    lists["key"] = tuple(row.get("key", (f"{name.upper()}_API_KEY",)))
    plain = {key: row[key] for key in _PROVIDER_KEYS if key in row}
    plain.setdefault("key_optional", row.get("loopback", False))
    plain.setdefault("prices", "" if row.get("loopback") else name)
    plain.setdefault("headers", row.get("dialect", {}).get("headers", {}))
    title = row.get("title", name.capitalize())
    return Provider(name=name, title=title, **lists, **plain)


def _overridden(known: Provider | None, name: str, row: Mapping[str, Any], table: Mapping[str, Provider]) -> Provider:
    """A provider of the table as the user has it, or a new one: with the dialect of the protocol's own maker.

    OpenAI's own dialect is nobody else's: a compatible server has none unless the user says so.
    """
    base = known or Provider(name=name, title=name, key=(f"{name.upper().replace('-', '_')}_API_KEY",))
    maker = table.get(row.get("protocol", "openai"))
    dialect = maker.dialect if known is None and maker is not None and maker.name != "openai" else base.dialect
    keys = ("protocol", "api_base", "api_key", "auth", "prices")
    changes: dict[str, Any] = {key: row[key] for key in keys if key in row}
    changes["dialect"] = {**dialect, **row.get("dialect", {})}
    changes["headers"] = {**base.headers, **row.get("dialect", {}).get("headers", {}), **row.get("headers", {})}
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
    "api_base", "api_key", "auth", "api_version", "headers", "weight", "base_model", "context_window", "max_output",
    "reasoning", "allow_http", "allow_toy",
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
        limits=Limits(**{key: row.get(key) for key in ("rpm", "tpm", "itpm", "otpm", "max_parallel")}),
        capabilities=tuple(row.get("capabilities", ())),
        **changes,
    )


def params(row: Mapping[str, Any]) -> Params:
    """The request parameters among the keys of `row`."""
    changes = {key: row[key] for key in Params.__dataclass_fields__ if row.get(key) is not None}
    stop = row.get("stop") or ()
    return Params(**changes | {"stop": (stop,) if isinstance(stop, str) else tuple(stop)})


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a validated configuration (durations already in seconds)."""
    values: dict[str, Any] = {
        name: config[table][key] for (table, key), name in SETTINGS.items() if key in config.get(table, {})
    }
    if "first_token_s" in values:  # the user's word holds for reasoning models too
        values["first_token_reasoning_s"] = values["first_token_s"]
    observe = config.get("observe", {})
    return Settings(
        **values,
        log_retain_s=config.get("log", {}).get("retain"),
        budgets=budgets(config.get("budget", {})),
        observers=Observers(
            observe.get("otel", ""),
            observe.get("sentry", False),
            tuple(observe.get("hooks", ())),
            observe.get("wait", 1.0),
        ),
        caching=_caching(config.get("cache", {})),
    )


def _caching(row: Mapping[str, Any]) -> caching.Settings:
    plain = {name: row[name] for name in ("mode", "namespace", "backend", "max_entries", "max_bytes") if name in row}
    return caching.Settings(**plain, **({"ttl_s": row["ttl"]} if "ttl" in row else {}))


def budgets(row: Mapping[str, Any]) -> Budgets:
    """The allowances of the `[budget]` table; those of tags and models refuse or warn as it does, unless they say."""
    scopes: list[tuple[dict[str, Any], Mapping[str, Any]]] = [({}, row)]
    scopes += [({"tag": tuple(tag.split("=", 1))}, each) for tag, each in row.get("tags", {}).items()]
    scopes += [({"model": model}, each) for model, each in row.get("models", {}).items()]
    default = row.get("on_exceed", "refuse")
    allowances = []
    for scope, each in scopes:
        limits: dict[str, Any] = {key: nano(each[key]) for key in ("per_call", "daily", "monthly") if key in each}
        if limits:
            allowances.append(Allowance(**scope, **limits, refuses=each.get("on_exceed", default) == "refuse"))
    return Budgets(tuple(allowances), row.get("timezone", "local"), frozenset(row.get("allow_unpriced", ())))


def _with_named_budgets(catalog: Catalog, row: Mapping[str, Any], where: Callable[[KeyPath], str]) -> Catalog:
    """`catalog`, whose budgets name groups, deployments and models that mean something: a slip would limit nothing."""
    for name in row.get("models", {}):
        _must_mean(catalog, name, ("budget", "models", name), where)
    ids = {deployment.id for group in catalog.groups.values() for deployment in group.deployments}
    allowed = set()
    for i, name in enumerate(row.get("allow_unpriced", ())):
        found = None if name in ids else _must_mean(catalog, name, ("budget", "allow_unpriced", i), where)
        allowed.add(name if found is None else found.name)
    budgets = catalog.settings.budgets._replace(allow_unpriced=frozenset(allowed))
    return replace(catalog, settings=replace(catalog.settings, budgets=budgets))


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


def _drill(catalog: Catalog, name: str, row: Mapping[str, Any], where: Callable[[KeyPath], str]) -> Mapping[str, Any]:
    """A saved drill whose models mean something, and whose faults are understood."""
    from llmctl.core.faults import injection  # few configurations have drills

    for key in ("model", "judge"):
        if key in row:
            _must_mean(catalog, row[key], ("drills", name, key), where)
    if "inject" not in row:
        return row
    given = row["inject"]
    is_table = isinstance(given, dict)
    words = tuple(f"{target}={fault}" for target, fault in given.items()) if is_table else tuple(given)
    for key, word in zip(given if is_table else range(len(words)), words, strict=True):
        try:
            injection(word)
        except UsageError as error:
            named = where(("drills", name, "inject", key))
            raise ConfigInvalid(f"{named}: {error.message}", hint=error.hint) from error
    return {**row, "inject": words}


def _must_mean(catalog: Catalog, name: str, path: KeyPath, where: Callable[[KeyPath], str]) -> Group | None:
    """What `name` resolves to; None for a name that is known and cannot be asked yet."""
    try:
        return catalog.resolve(name)
    except UsageError as error:
        if name in catalog.groups or name in RESERVED:
            return None
        raise ConfigInvalid(f"{where(path)}: {error.message}", hint=error.hint) from error
