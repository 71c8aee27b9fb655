"""What a configuration may already say, and this version does not do yet: a table that gets shorter with each release.

The whole contract is validated, so that a file which is good today stays good. Nobody may be misled by that: `config
check` names what is set without effect, and a budget that must refuse is not ignored but refused (`client`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.build import settings
from llmctl.core.catalog import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = ("budget", "cache", "state", "observe", "serve")
LOG_KEYS = ("retain",)
MODEL_KEYS = ("base_model", "cache", "max_output", "route", "ttl")


def pending(config: Mapping[str, Any]) -> list[str]:
    """The keys that a validated configuration sets without effect, as they are written in the file."""
    return [
        *(name for name in TABLES if config.get(name) and not (name == "budget" and refuses(config))),
        *(dotted(("log", key)) for key in LOG_KEYS if key in config.get("log", {})),
        *(dotted(("models", name, key)) for name, row in config.get("models", {}).items() for key in _of_model(row)),
    ]


def refuses(config: Mapping[str, Any]) -> bool:
    """Whether the configuration has a budget that must refuse: then this version asks nothing."""
    return settings(config).budget_refuses


def _of_model(row: Mapping[str, Any]) -> Iterator[str]:
    rows = (row, *row.get("deployments", ()))
    yield from (key for key in MODEL_KEYS if any(key in each for each in rows))
