"""What a configuration may already say, and this version does not do yet: a table that gets shorter with each release.

The whole contract is validated, so that a file which is good today stays good. Nobody may be misled by that: `config
check` names what is set without effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.catalog import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = ("state", "serve")
CACHE_KEYS = ("backend", "semantic")
MODEL_KEYS = ("route",)


def pending(config: Mapping[str, Any]) -> list[str]:
    """The keys that a validated configuration sets without effect, as they are written in the file."""
    return [
        *(name for name in TABLES if config.get(name)),
        *(f"cache.{key}" for key in CACHE_KEYS if config.get("cache", {}).get(key, "sqlite") != "sqlite"),
        *(["cache.mode"] if config.get("cache", {}).get("mode") == "semantic" else []),  # canonical is done
        *(dotted(("models", name, key)) for name, row in config.get("models", {}).items() for key in _of_model(row)),
    ]


def _of_model(row: Mapping[str, Any]) -> Iterator[str]:
    rows = (row, *row.get("deployments", ()))
    yield from (key for key in MODEL_KEYS if any(key in each for each in rows))
    if row.get("cache") == "semantic":
        yield "cache"
