"""Each setting in force, with its value as written and the place it comes from: what `config show --origin` prints.

Nothing here decides what is in force: the catalog is built the usual way first, and this only tells where things stand.
No secret leaves this module; a reference to one (`env:NAME`) is not a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.config.files import sources
from llmctl.config.keys import KEPT, Keys
from llmctl.config.load import VARIABLES, assembled, fresh, packaged
from llmctl.config.source import is_secret, locate, written
from llmctl.core.build import SETTINGS
from llmctl.core.catalog import Settings, dotted
from llmctl.core.redact import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmctl.config.files import Source
    from llmctl.config.places import Places
    from llmctl.core.catalog import Catalog, KeyPath

BUILT_IN = "built-in"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key in force. `origin` is `built-in`, `FILE:LINE`, `keys` or a variable; a secret value is masked."""

    path: KeyPath
    value: Any
    origin: str

    @property
    def key(self) -> str:
        """The path as it is written in the file."""
        return dotted(self.path)


def origins(places: Places, environ: Mapping[str, str]) -> list[Setting]:
    """Every setting in force: plain settings first, then model groups, then providers. Raises ConfigInvalid."""
    found = sources(places)
    plain, _ = fresh(found)
    catalog = assembled(plain, environ, found)
    tree = written(found)
    plain_keys = {key: value for key, value in tree.items() if key not in {"models", "providers"}}
    groups = {name: row for name, row in packaged()["groups"].items() if name not in tree.get("models", {})}
    return [
        *_settings(plain_keys, environ, found),
        *(Setting(path, value, BUILT_IN) for path, value in _leaves({"models": groups})),
        *(_under_cache_mode(each, environ) for each in _from_files({"models": tree.get("models", {})}, found)),
        *_from_files({"providers": tree.get("providers", {})}, found),
        *_from_outside(catalog, environ, Keys(places.keys)),
    ]


def _under_cache_mode(setting: Setting, environ: Mapping[str, str]) -> Setting:
    """`setting` of a group, or what LLMCTL_CACHE says instead (`load.in_force`)."""
    mode = environ.get("LLMCTL_CACHE")
    return Setting(setting.path, mode, "LLMCTL_CACHE") if mode and setting.path[2:] == ("cache",) else setting


def _settings(tree: Mapping[str, Any], environ: Mapping[str, str], found: Sequence[Source]) -> Iterator[Setting]:
    variables = {path: name for name, path in VARIABLES.items() if environ.get(name)}
    said = {setting.path: setting for setting in _from_files(tree, found)}
    defaults = dict(built_in())
    for path in dict.fromkeys([("version",), *VARIABLES.values(), *defaults, *said]):
        if path in variables:
            yield Setting(path, environ[variables[path]], variables[path])
        elif path in said:
            yield said[path]
        elif path in defaults:
            yield Setting(path, defaults[path], BUILT_IN)


def built_in() -> Iterator[tuple[KeyPath, Any]]:
    """The settings that hold where nothing is said."""
    settings = Settings()
    rows = [(path, name, getattr(settings, name)) for path, name in SETTINGS.items()]
    rows += [(("cache", name.removesuffix("_s")), name, value) for name, value in settings.caching._asdict().items()]
    for path, name, value in rows:
        if value not in (None, ""):
            yield path, in_words(name, value)


def in_words(name: str, value: Any) -> Any:
    """The value of a field as the file would have it: one of seconds (its name ends in `_s`) as a duration."""
    if not name.endswith("_s"):
        return value
    return f"{value / 3600:g}h" if value % 3600 == 0 else f"{value:g}s"


def _from_files(tree: Mapping[str, Any], found: Sequence[Source]) -> Iterator[Setting]:
    for path, value in _leaves(tree):
        at = locate(found, path)
        yield Setting(path, masked(path, value), f"{found[at[0]].path}:{at[1]}" if at else BUILT_IN)


def _from_outside(catalog: Catalog, environ: Mapping[str, str], keys: Keys) -> Iterator[Setting]:
    """Keys and addresses of providers that variables or `keys set` give, where the file gives none."""
    for name, provider in catalog.providers.items():
        key = next((each for each in provider.key if environ.get(each, "").strip()), None)
        key = key or (KEPT if keys.of(provider, environ) else None)
        if key and not provider.api_key:
            yield Setting(("providers", name, "api_key"), MASK, key)
        address = next((each for each in provider.address_names if environ.get(each)), None)
        if address and not provider.api_base_set:
            path = ("providers", name, "api_base")
            yield Setting(path, masked(path, environ[address]), address)


def _leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that is not a table, with its path; a list of tables is gone into, another list is one value."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(tree, list) and any(isinstance(each, dict) for each in tree):
        for i, value in enumerate(tree):
            yield from _leaves(value, (*path, i))
    else:
        yield path, tree


def masked(path: KeyPath, value: Any) -> Any:
    """`value`, with a mask where it is or holds a secret."""
    if isinstance(value, dict):
        return {name: masked((*path, name), each) for name, each in value.items()}
    if isinstance(value, list):
        return [masked(path, each) for each in value]
    if not isinstance(value, str):
        return value
    if value.startswith("cmd:"):  # its arguments may hold the secret
        return f"cmd:{MASK}"
    if "://" in value and "?" in value:  # so may the query of an address
        return f"{value.partition('?')[0]}?{MASK}"
    return MASK if is_secret(path, value) else value
