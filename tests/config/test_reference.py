"""The reference of the configuration says everything, and the page is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.config import reference, schema
from llmctl.core.catalog import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
TABLES = [each for each in vars(schema).values() if isinstance(each, type) and issubclass(each, schema.Table)]


@pytest.mark.parametrize("table", [each for each in TABLES if each is not schema.Table], ids=lambda each: each.__name__)
def test_every_key_of_every_table_has_a_meaning_and_no_meaning_is_of_a_key_that_is_not(table):
    own = [key for key in table.__annotations__ if key in table.model_fields]
    said = reference.meanings().get(table.__name__, {})
    assert set(said) == set(own)
    assert all(text.endswith(".") and len(text) <= 110 and "\n" not in text for text in said.values())
    assert table.__name__ in reference.HEADERS


def test_the_page_is_fresh():
    assert PAGE.read_text() == reference.markdown(), "llmctl config schema --markdown > docs/reference.md"


def test_the_defaults_are_those_of_the_values_that_are_built():
    rows = {(page.header, row.key): row for page in reference.tables() for row in page.rows}
    assert rows["[retry]", "tries"].default == f"`{Settings().tries}`"
    assert rows["[timeout]", "total"].default == "`300s`"
    assert rows["[cache]", "ttl"].default == "`24h`"
    assert rows["[models.NAME]", "strategy"].default == "`adaptive`"
    assert rows["[log]", "retain"].default == ""
    assert rows["[log]", "content"] == ("content", "`full`, `none`", "`full`", rows["[log]", "content"].meaning)


def test_the_json_schema_says_what_each_key_means_inherited_ones_too():
    document = reference.json_schema()
    shapes = {"Config": document, **document["$defs"]}
    for name, shape in shapes.items():
        for key, field in shape.get("properties", {}).items():
            assert field.get("description"), (name, key)
    assert shapes["Group"]["properties"]["rpm"]["description"] == reference.meanings()["Deployment"]["rpm"]
