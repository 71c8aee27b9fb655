"""The configuration as a reference: each key with its type, its default and its meaning, table by table.

Types are those of `config/schema`, defaults those of the values that are built from it, meanings stand in
`data/meanings.toml`. docs/reference.md is `markdown()`, and a test says when it is stale.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.config import schema
from llmctl.config.load import packaged_text
from llmctl.config.origin import built_in, in_words
from llmctl.core.catalog import Deployment, Group, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEPLOYMENT = "[models.NAME], [[models.NAME.deployments]]"
HEADERS: dict[str, str] = {
    "Config": "",
    "Group": "[models.NAME]",
    "Deployment": _DEPLOYMENT,
    "Params": f"{_DEPLOYMENT}: parameters",
    "Price": "price = { ... }",
    "Route": "route = { ... }",
    "Provider": "[providers.NAME]",
    "Dialect": "[providers.NAME.dialect]",
    "Retry": "[retry]",
    "Timeout": "[timeout]",
    "Allowance": '[budget], [budget.tags."KEY=VALUE"], [budget.models.NAME]',
    "Budget": "[budget]",
    "Cache": "[cache]",
    "Semantic": "[cache.semantic]",
    "State": "[state]",
    "Log": "[log]",
    "Observe": "[observe]",
    "Drill": "[drills.NAME]",
    "Serve": "[serve]",
}
"""Table of the schema -> how it is written in the file; in this order they are shown."""
_WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "object": "table",
}
_TITLE = """\
# The configuration, key by key

Written by `llmctl config schema --markdown`: change `llmctl/data/meanings.toml` or `llmctl/config/schema.py`, not this
page. [Configuration](configuration.md) says how they are used; `llmctl config set KEY VALUE` changes one of them, and
`llmctl config show --origin` says which are in force. A duration is `"30s"`, `"5m"`, `"24h"` or `"7d"`.
"""


class Row(NamedTuple):
    """One key; `default` is "" where it has none."""

    key: str
    type: str
    default: str
    meaning: str


class Page(NamedTuple):
    """One table of the configuration: how it is written, what it is about, its keys."""

    header: str
    about: str
    rows: tuple[Row, ...]


def meanings() -> Mapping[str, Mapping[str, str]]:
    """Table of the schema -> key -> what it means."""
    return tomllib.loads(packaged_text("meanings.toml"))


def tables() -> Iterator[Page]:
    """Every table with its keys."""
    said, known, shapes = meanings(), _defaults(), schema.Config.model_json_schema()["$defs"]
    for name, header in HEADERS.items():
        table = getattr(schema, name)
        shape = shapes.get(name) or table.model_json_schema()
        rows = [
            Row(key, _type(shape["properties"][key]), known.get((name, key), ""), said[name][key])
            for key in table.__annotations__
            if key in table.model_fields
        ]
        yield Page(header, (table.__doc__ or "").partition("\n\n")[0], tuple(rows))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, in which every key says what it means."""
    said, document = meanings(), schema.Config.model_json_schema()
    for name, shape in [("Config", document), *document["$defs"].items()]:
        kinds = getattr(getattr(schema, name, None), "__mro__", ())  # what every type has
        bases = [kind.__name__ for kind in kinds if kind.__name__ in said]
        for key, field in shape.get("properties", {}).items():
            field["description"] = next(said[base][key] for base in bases if key in said[base])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def markdown() -> str:
    """The reference as a page."""
    parts = [_TITLE]
    for page in tables():
        parts.append(f"\n## {f'`{page.header}`' if page.header else 'At the top'}\n\n{page.about}\n\n")
        parts.append("| key | type | default | meaning |\n| --- | --- | --- | --- |\n")
        parts += [f"| `{row.key}` | {row.type} | {row.default} | {row.meaning} |\n" for row in page.rows]
    return "".join(parts)


def _defaults() -> dict[tuple[str, str], str]:
    """What holds where the file says nothing, as far as it is one value."""
    settings = Settings()
    observers = settings.observers._asdict().items()
    found: dict[tuple[str, str], Any] = {(str(path[0]).capitalize(), str(path[1])): value for path, value in built_in()}
    found |= {("Observe", name.removesuffix("_s")): in_words(name, value) for name, value in observers}
    found |= {("Budget", "timezone"): settings.budgets.zone}
    for name, kind in (("Group", Group), ("Deployment", Deployment)):
        plain = {each.name: each.default for each in fields(kind) if each.default is not MISSING}
        found |= {(name, key): value for key, value in plain.items() if isinstance(value, (str, float, bool)) and value}
    return {path: f"`{value}`" for path, value in found.items() if value not in (None, "", False, ())}


def _type(shape: Mapping[str, Any]) -> str:
    """A type in words, out of its JSON Schema."""
    if "anyOf" in shape:
        return " or ".join(dict.fromkeys(_type(each) for each in shape["anyOf"] if each.get("type") != "null"))
    if "enum" in shape:
        return ", ".join(f"`{each}`" for each in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}" if "$ref" not in shape["items"] else "list of tables"
    if shape.get("description") == "a duration":
        return "duration"
    return "table" if "$ref" in shape else _WORDS.get(shape.get("type", ""), "anything")
