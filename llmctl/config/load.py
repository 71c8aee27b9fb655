"""The catalog of the configuration in force: the provider table, the built-in groups and the user's files.

What was validated is kept as plain data beside the exact texts it came from. A start whose texts are byte for byte the
same parses no TOML and validates nothing; anything else (a changed byte, another llmctl, a damaged copy) goes the slow
way through `config/source`. Times of files are not looked at: they lie.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl._version import __version__
from llmctl.config.files import read, sources, write_private
from llmctl.config.prices import Quotes
from llmctl.core.build import build
from llmctl.core.caching import MODES
from llmctl.core.catalog import dotted
from llmctl.core.errors import ConfigInvalid, LlmctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmctl.config.files import Source
    from llmctl.config.places import Places
    from llmctl.core.catalog import Catalog, KeyPath

DATA = Path(__file__).parent.parent / "data"
VARIABLES: dict[str, KeyPath] = {
    "LLMCTL_MODEL": ("default_model",),
    "LLMCTL_LOG_CONTENT": ("log", "content"),
    "LLMCTL_CACHE": ("cache", "mode"),
}
"""The environment variables that stand above the configuration, and the key that each of them sets."""
_PACKAGED = ("providers.toml", "groups.toml")
_CHOICES = {"LLMCTL_LOG_CONTENT": ("full", "none"), "LLMCTL_CACHE": MODES}
_Plain = dict[str, Any]


def load_catalog(places: Places, environ: Mapping[str, str], now: Callable[[], float] = time.time) -> Catalog:
    """The catalog that the files of `places` and the environment make, priced at the time that `now` tells.

    Raises ConfigInvalid.
    """
    return replace(_loaded(places, environ), quote=Quotes(places, now))


def _loaded(places: Places, environ: Mapping[str, str]) -> Catalog:
    found = sources(places)
    texts = [source.text for source in found] + [packaged_text(name) for name in _PACKAGED]
    kept = _kept(places.catalog, texts)
    if kept is not None:
        try:
            return assembled(kept, environ, found)
        except (LlmctlError, TypeError, KeyError, ValueError, AttributeError):
            pass  # a damaged copy; and if the environment is at fault, the slow way says the same again
    plain, may_keep = fresh(found)
    catalog = assembled(plain, environ, found)
    if may_keep:
        _keep(places.catalog, texts, plain)
    return catalog


def catalog_of(
    config: Mapping[str, Any],
    environ: Mapping[str, str],
    places: Places | None = None,
    now: Callable[[], float] = time.time,
) -> Catalog:
    """The catalog of a configuration given as a dict of the same shape as the file, priced as in `load_catalog`.

    Without places it is priced by the table that llmctl ships. Raises ConfigInvalid.
    """
    from llmctl.config.source import checked

    return replace(assembled({**packaged(), "config": checked(config)}, environ, ()), quote=Quotes(places, now))


def fresh(found: Sequence[Source]) -> tuple[_Plain, bool]:
    """All plain data, read and validated anew, and whether it may be kept. Raises ConfigInvalid."""
    from llmctl.config.source import validated

    config, may_keep = validated(found)
    return {**packaged(), "config": config}, may_keep


def packaged() -> _Plain:
    """The provider table and the built-in groups as plain data."""
    import tomllib

    return {name.removesuffix(".toml"): tomllib.loads(packaged_text(name)) for name in _PACKAGED}


def packaged_text(name: str) -> str:
    """The text of a file of `llmctl/data`."""
    data = read(DATA / name)
    assert data is not None, f"{name} is part of the package"
    return data.decode()


def in_force(config: _Plain, environ: Mapping[str, str]) -> _Plain:
    """`config` under the environment variables that stand above it. Raises ConfigInvalid for a value that cannot be."""
    for name, choices in _CHOICES.items():
        if environ.get(name) and environ[name] not in choices:
            known = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise ConfigInvalid(f"{name}: {environ[name]!r} is not {known}", hint=f"set it to {known}, or unset it")
    for name, (*above, key) in VARIABLES.items():
        value = environ.get(name)
        if value:
            changed: _Plain = {str(key): value}
            for table in map(str, above):
                changed = {table: config.get(table, {}) | changed}
            config = config | changed
    mode = environ.get("LLMCTL_CACHE")
    if mode and "models" in config:  # it stands above what a group says, too
        groups = {name: row | ({"cache": mode} if "cache" in row else {}) for name, row in config["models"].items()}
        config = config | {"models": groups}
    return config


def assembled(plain: _Plain, environ: Mapping[str, str], found: Sequence[Source]) -> Catalog:
    """The catalog of all plain data under the environment; `found` are the files that errors name."""

    def where(path: KeyPath) -> str:
        variable = next((name for name, key in VARIABLES.items() if key == path and environ.get(name)), "")
        if variable or not found:
            return variable or dotted(path)
        from llmctl.config import source

        return source.where(found, path)

    return build(plain["providers"], plain["groups"], in_force(plain["config"], environ), where)


def _kept(path: Path, texts: list[str]) -> _Plain | None:
    try:
        document = json.loads(read(path) or b"null")
    except (LlmctlError, ValueError, RecursionError):
        return None
    same = isinstance(document, dict) and document.get("version") == __version__ and document.get("texts") == texts
    plain = document.get("plain") if same else None
    return plain if isinstance(plain, dict) else None


def _keep(path: Path, texts: list[str], plain: _Plain) -> None:
    # Silent: a full disk, or a home that cannot be written, costs the next start some time and nothing else.
    with suppress(OSError):
        write_private(path, json.dumps({"version": __version__, "texts": texts, "plain": plain}))
