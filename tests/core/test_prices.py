"""Rows of the price table: which one a name means, which price holds at an instant, and damage that is noticed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.money import Price
from llmctl.core.prices import Line, Model, find, model, names, parsed
from llmctl.core.types import Usage

USD = 10**18


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def priced(price: Any, **more: Any) -> Model:
    return model({"id": "m", "price": price, **more}, "p", "v1")


def found(rows: list[dict[str, Any]], name: str, *, exact: bool = False, **lines: list[dict[str, Any]]) -> str | None:
    table = {each: Line(each, (), tuple(more)) for each, more in lines.items()}
    table["p"] = Line("p", tuple(lines), tuple(rows))
    row = find(table.get, "p", name, "v1", exact=exact)
    return row and f"{row.provider}/{row.id}"


@pytest.mark.parametrize(
    ("match", "name", "means"),
    [
        (None, "Gpt-4O", True),
        (None, "gpt-4o-mini", False),
        ("=gpt-4", "GPT-4", True),
        ("^gpt", "gpt-4", True),
        ("^gpt", "a-gpt", False),
        ("$gpt", "a-gpt", True),
        ("~gp", "a-gpt", True),
        (r"/^gpt-\d$", "gpt-4", True),
        (r"/^gpt-\d$", "gpt-44", False),
        (["=a", "^b"], "bc", True),
        (["=a", "^b"], "ac", False),
        ({"and": ["^a", "$c"]}, "abc", True),
        ({"and": ["^a", "$c"]}, "ab", False),
        ([{"and": ["^a", "~b"]}, "=z"], "ab", True),
    ],
)
def test_a_clause_compares_as_its_first_character_says(match: Any, name: str, means: bool):
    row = {"id": "gpt-4o"} if match is None else {"id": "x", "match": match}
    assert (found([row], name) is not None) is means


def test_the_first_row_that_means_the_name_is_the_one():
    assert found([{"id": "a", "match": "^gpt"}, {"id": "gpt-4"}], "gpt-4") == "p/a"


def test_a_name_written_with_a_compact_date_is_also_sought_with_dashes_but_only_when_there_is_such_a_day():
    rows = [{"id": "m-2025-12-11"}]
    assert found(rows, "m-20251211") == "p/m-2025-12-11"
    assert found([{"id": "m-2019-01-31-x"}], "M-20190131-x") == "p/m-2019-01-31-x"
    assert found([{"id": "m-2025-13-11"}], "m-20251311") is None
    assert found([{"id": "m-20251211"}, *rows], "m-20251211") == "p/m-20251211"


def test_a_provider_that_hosts_others_models_has_their_prices_after_its_own():
    assert found([{"id": "a"}], "b", other=[{"id": "b"}]) == "other/b"
    assert found([{"id": "b"}], "b", other=[{"id": "b"}]) == "p/b"
    assert found([{"id": "a"}], "c", other=[{"id": "b"}]) is None
    assert find({}.get, "p", "a", "v1", exact=False) is None


def test_an_exact_name_is_never_met_by_a_beginning():
    rows = [{"id": "a", "match": ["^gpt", "=gpt-4o", {"and": ["=no", "^n"]}]}]
    assert found(rows, "GPT-4o", exact=True) == "p/a"
    assert found(rows, "gpt-4o-eu", exact=True) is None
    assert names(rows[0]) == ["gpt-4o"]
    assert found([{"id": "B"}], "b", exact=True) == "p/B"


def test_the_last_price_that_holds_wins_and_before_all_of_them_the_first():
    dated = priced([["2024-06-01", "2 2"], ["2025-01-01", "3 3"], ["2024-12-01", "4 4"]])
    cost = [dated.price(at(day)).input // USD for day in ("2024-01-01", "2024-06-01", "2024-12-31", "2025-02-01")]
    assert cost == [2, 2, 4, 4]
    assert dated.price(at("2024-05-31T23:59:59.9")) == dated.prices[0].price


def test_a_price_of_some_hours_holds_from_the_first_second_to_before_the_last_also_over_midnight():
    day = priced([["", "9 9"], ["08:00-16:30:30", "1 1"]])
    night = priced([["", "9 9"], ["16:30-00:30", "1 1"]])

    def hours(dated: Model, *times: str) -> list[int]:
        return [dated.price(at(f"2026-03-01T{each}")).input // USD for each in times]

    assert hours(day, "07:59:59.999", "08:00:00", "16:30:29", "16:30:30") == [9, 1, 1, 9]
    assert hours(night, "16:29", "16:30", "23:59:59", "00:29:59", "00:30") == [9, 1, 1, 1, 9]


def test_amounts_stand_in_the_order_of_the_text_and_tiers_hold_for_the_whole_request():
    full = priced({"": "1 2 - 4 5 0.25", "200000": "2 4", "100000": "1.5 3"})
    price = full.price(0)
    assert price == Price(USD, 2 * USD, None, 4 * USD, 5 * USD, 250_000_000, price.tiers, "v1")
    assert [(start, tier.input * 2 // USD) for start, tier in price.tiers] == [(100_000, 3), (200_000, 4)]
    assert price.cost_nanousd(Usage(200_000)) == 300_000_000 + 250_000_000
    assert price.as_json()["tiers"][1] == {"above_tokens": 200_000, **Price(2 * USD, 4 * USD).as_json()}


@given(st.decimals(0, 10**9, places=18))
def test_an_amount_is_exact_to_its_eighteenth_digit(amount):
    assert priced(f"{amount:f} 0").price(0).input == int(amount * USD)


def test_what_nobody_knows_has_no_price_and_is_not_free():
    assert priced(None).price(0) is None
    assert priced("").price(0) is None
    assert priced([["", ""], ["2025-01-01", "1 1"]]).price(0) is None
    assert priced("0 0").price(0) == Price(0, 0, version="v1")


def test_a_row_of_our_own_says_its_own_version():
    ours = priced("1 1", source="https://example.com", date="2026-07-02", window=8, old=1)
    assert (ours.version, ours.price(0).version, ours.context_window, ours.deprecated) == (
        "llmctl 2026-07-02", "llmctl 2026-07-02", 8, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {}, 5, None, [], {"id": "m", "window": "many"}, {"id": "m", "window": True}, {"id": "m", "source": "undated"},
        *({"id": "m", "price": price} for price in (
            1, "1", "- 1", "1 -1", "1 nan", "1 1e9", f"{10**13} 1", f"0.{'1' * 19} 1", "1. 1",
            "1 1 1 1 1 1 1", "1 \u0661", {"5": "1 1"},
            {"": "1 1", "x": "1 1"}, [1], [["2025-99-01", "1 1"]], [["1:2:3:4:x", "1 1"]],
        )),
    ],
)  # fmt: skip
def test_a_damaged_row_is_refused(row: Any):
    with pytest.raises(ValueError, match="a damaged row"):
        model(row, "p", "v1")


@pytest.mark.parametrize("match", ["?x", "", 5, {"or": []}, {}, [5], "/(", [None]])
def test_a_damaged_clause_is_refused(match: Any):
    with pytest.raises(ValueError, match="damaged"):
        found([{"id": "m", "match": match}], "name")


@pytest.mark.parametrize("text", ["", "x", "[]", "5", "{}", '{"provider": "p"}', "null", "[" * 100_000])
def test_a_damaged_line_is_refused(text: str):
    with pytest.raises(ValueError, match="a damaged line"):
        parsed(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
        max_leaves=8,
    )
)
def test_no_line_whatever_ends_in_another_error(value: Any):
    document = {"provider": "p", "models": [value, {"id": "m", "match": value}, {"id": "m", "price": value}]}
    line = parsed(json.dumps(document))
    for exact in (True, False):
        try:
            find({"p": line}.get, "p", "name", "v1", exact=exact)
            for row in line.rows:
                model(row, "p", "v1").price(0)
        except ValueError:
            pass
