"""Making a price table: from genai-prices' own JSON, from a table of ours, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data import providers as theirs

from llmctl.config.prices import SHIPPED, Table, save
from llmctl.config.prices_import import _plain, differences, installed_table, refuse_older, table_in
from llmctl.core.errors import ConfigInvalid

MODEL: dict[str, Any] = {"id": "M", "match": {"equals": "M"}, "prices": {"input_mtok": 1, "output_mtok": 2.5}}


def given(path: Path, *models: Any, **provider: Any) -> Path:
    rows = [{"id": "p", "models": list(models), **provider}]
    (file := path / "data.json").write_text(json.dumps(rows))
    return file


def row(path: Path, **changes: Any) -> dict[str, Any]:
    text = table_in(given(path, MODEL | changes), "2026-11-20")
    return dict(Table(text.encode(), path).line("p").rows[0])


def test_their_own_json_makes_the_table_that_the_package_makes(tmp_path: Path):
    keys = ("id", "fallback_model_providers", "models")
    document = [{key: each.get(key) for key in keys} for each in map(_plain, theirs)]
    (file := tmp_path / "data.json").write_text(
        json.dumps(document, default=lambda each: str(each) if hasattr(each, "isoformat") else float(each))
    )
    header, *lines = table_in(file, "2026-11-20").splitlines()
    assert lines == installed_table("2026-11-20").splitlines()[1:]
    assert json.loads(header)["version"].startswith("sha256:")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"id": "M", "price": "1 2.5"}),
        ({"match": {"or": [{"equals": "A"}, {"and": [{"starts_with": "B"}, {"regex": "C$"}]}]}},
         {"match": ["=a", {"and": ["^b", "/C$"]}]}),
        ({"context_window": 5, "deprecated": True}, {"window": 5, "old": 1}),
        ({"prices": {"output_mtok": 0.1, "requests_kcount": 5}}, {"price": "0 0.1 - - - 0.005"}),
        ({"prices": {"audio_hours": 1}}, {"price": None}),
        ({"prices": {}}, {"price": None}),
        ({"prices": {}, "id": "m:free"}, {"price": "0 0"}),
        ({"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 9, "price": 3}, {"start": 5, "price": 2}]},
                     "output_mtok": {"base": 4, "tiers": [{"start": 7, "price": 5}]}}},
         {"price": {"": "1 4", "5": "2 4", "7": "2 5", "9": "3 5"}}),
        ({"prices": [{"prices": {}}, {"constraint": {"start_date": "2025-01-31"}, "prices": {"input_mtok": 1}},
                     {"constraint": {"start_time": "23:30:00Z", "end_time": "02:00:30+01:00"},
                      "prices": {"input_mtok": 2}}]},
         {"price": [["", ""], ["2025-01-31", "1 0"], ["23:30-01:00:30", "2 0"]]}),
    ],
)  # fmt: skip
def test_a_row_of_theirs_becomes_a_row_of_ours(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]):
    made = row(tmp_path, **changes)
    assert {key: made.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "[]", '[{"id": "p", "models": []}]',
        "[", "[1]", '[{"id": "p"}]', '[{"id": "p", "models": [{}]}]', "[" * 100_000, "", "{}", '{"format": 9}\n',
        json.dumps([{"id": "p", "models": [MODEL | {"prices": {"input_mtok": "1"}}]}]),
        json.dumps([{"id": "p", "models": [MODEL | {"prices": {"input_mtok": -1}}]}]),
        *(json.dumps([{"id": "p", "models": [MODEL | {"prices": {"input_mtok": 0.5}}]}]).replace("0.5", amount)
          for amount in ("1e999999999", "1e-999999999", "NaN", "1e25")),
        json.dumps([{"id": "p", "models": [MODEL | {"context_window": 1.5}]}]),
        json.dumps([{"id": "p", "models": [MODEL | {"match": {"sounds_like": "x"}}]}]),
        json.dumps([{"id": "p", "models": [MODEL | {"match": {"regex": "("}}]}]),
        json.dumps([{"id": "p", "models": [MODEL | {"prices": [{"constraint": {"moon": "full"}, "prices": {}}]}]}]),
        '{"format":1,"source":"s","version":"1","date":"2026-01-01"}\n{"provider":"p","models":[{"id":"m","price":"x"}]}\n',
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_before_anything_is_replaced(tmp_path: Path, text: str):
    (file := tmp_path / "f").write_text(text)
    with pytest.raises(ConfigInvalid) as refused:
        table_in(file, "2026-11-20")
    assert len(str(refused.value.message)) < 500
    assert refused.value.hint


def test_bytes_that_are_no_text_and_a_file_that_is_not_there_are_refused(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"\xff\xfe{}")
    for name in ("f", "g"):
        with pytest.raises(ConfigInvalid):
            table_in(tmp_path / name, "2026-11-20")


def test_a_table_of_ours_is_taken_as_it_is(tmp_path: Path):
    save(tmp_path / "copy", SHIPPED.read_text())
    assert table_in(tmp_path / "copy", "2099-01-01") == SHIPPED.read_text()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def table(version: str = "0.2.3", date: str = "2026-11-20", rows: str = "") -> Table:
    header = json.dumps({"format": 1, "source": "genai-prices", "version": version, "date": date})
    return Table(f'{header}\n{{"provider":"p","models":[{rows}]}}\n'.encode(), Path("t"))


def test_a_step_back_is_refused_and_a_step_aside_is_not():
    for older in (table(version="0.2.2"), table(date="2026-11-19"), table(version="0.1.10")):
        with pytest.raises(ConfigInvalid, match="older"):
            refuse_older(older, table())
    for newer in (
        table(),
        table(version="0.2.10"),
        table(version="0.10.0"),
        table(version="sha256:0a"),
        table(date="2027-01-01"),
    ):
        refuse_older(newer, table())
    refuse_older(table(), table(version="sha256:0a"))


def test_differences_are_told_once_each():
    ours = table(rows='{"id":"a","price":"1 1"},{"id":"b","price":"1 1"},{"id":"c"}')
    other = table(rows='{"id":"a","price":"1 2"},{"id":"c"},{"id":"d","price":"3 3"}')
    assert differences(ours, other) == [
        ("changed", "p", "a", "1 1", "1 2"), ("gone", "p", "b", "1 1", None), ("new", "p", "d", None, "3 3"),
    ]  # fmt: skip
