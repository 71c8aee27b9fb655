"""Names of models that may mean another model tomorrow, and the dated version to write instead.

A provider may move `gpt-4o` or `mistral-large-latest` to new weights without a word. Which version a name meant last is
told by the ledger (`reported_model`), else by a small table, `data/pins.toml`.
"""

from __future__ import annotations

import re
import sqlite3
import tomllib
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from llmctl.config.load import packaged_text
from llmctl.store.history import open_to_read
from llmctl.store.schema import columns_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmctl.core.catalog import Catalog

_LATEST = "-latest"
_NEWEST = 10_000
"""How many calls of the ledger are looked at, from the newest."""
_NAME = re.compile(r"[\w.:/@+-]{1,120}", re.ASCII)


class Unpinned(NamedTuple):
    """A name without a date, who asks it, and the version to pin ("" where nobody knows it)."""

    served_by: str
    groups: tuple[str, ...]
    version: str
    source: str


def unpinned(catalog: Catalog, seen: Mapping[str, str]) -> list[Unpinned]:
    """The undated names of configured groups, and of what was asked lately; `seen` is `reported(...)`.

    `groups` is empty for a name that no configured group asks.
    """
    asked: dict[str, list[str]] = {served_by: [] for served_by in seen}
    for group in catalog.groups.values():
        links = [catalog.deployment(link) for link in group.fallbacks if link not in catalog.groups]
        for deployment in () if group.built_in else (*group.deployments, *links):
            if not deployment.is_local:
                asked.setdefault(deployment.served_by, []).append(group.name)
    table = tomllib.loads(packaged_text("pins.toml"))
    found = []
    for served_by, groups in asked.items():
        provider, _, name = served_by.partition("/")
        version, source = _version(name, seen.get(served_by, "")), "ledger"
        if not version:
            version, source = table.get(provider, {}).get(name, ""), "table"
        if version or name.endswith(_LATEST):
            found.append(Unpinned(served_by, tuple(groups), version, source if version else ""))
    return found


def _version(name: str, reported: str) -> str:
    """What the server called `name`, where that is a version of it; the server's word is taken for nothing else."""
    stem = name.removesuffix(_LATEST)
    reported = reported.removeprefix("models/")
    if reported in (name, stem) or not _NAME.fullmatch(reported):
        return ""
    dated = re.fullmatch(re.escape(stem) + r"[-@]\d[\d-]{2,}", reported)
    return reported if dated or (stem != name and not reported.endswith(_LATEST)) else ""


def reported(ledger: Path) -> dict[str, str]:
    """`provider/model` -> what its server called itself last, of the newest calls; empty without a readable ledger."""
    query = (
        "SELECT served_by, reported_model FROM (SELECT * FROM calls ORDER BY started_at DESC LIMIT ?)"
        " WHERE drill = 0 AND served_by <> '' AND reported_model IS NOT NULL ORDER BY started_at"
    )
    try:
        with closing(open_to_read(str(ledger))) as connection:
            if {"served_by", "reported_model", "drill"} <= set(columns_of(connection, "calls")):
                return {str(name): str(said) for name, said in connection.execute(query, (_NEWEST,))}
    except (sqlite3.Error, OSError):
        pass
    return {}
