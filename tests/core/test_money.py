"""Prices and costs: exact, in whole nano-dollars, and never a zero for the unknown."""

from __future__ import annotations

import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.money import Price, usd
from llmctl.core.types import Usage

NANO, ATTO = Decimal(10**9), Decimal(10**18)
published = st.decimals(0, 1000, places=6)
tokens = st.integers(0, 10_000_000)


@given(published, published)
def test_a_published_price_is_exact(given_price: Decimal, made_price: Decimal):
    price = Price.per_million(float(given_price), float(made_price))
    assert (price.input, price.output) == (given_price * ATTO, made_price * ATTO)


def test_a_price_that_arithmetic_left_a_hair_off_is_the_nearest_one():
    assert Price.per_million(0.7 * 3, 0.1 + 0.2).input == 2_100_000_000 * 10**9
    assert Price.per_million(0.7 * 3, 0.1 + 0.2).output == 300_000_000 * 10**9


def test_an_absent_part_is_none_and_a_free_one_is_zero():
    assert Price.per_million(2.5, 10.0) == Price(25 * 10**17, 10 * 10**18, None, None)
    assert Price.per_million(2.5, 10.0, 0.0, 0) == Price(25 * 10**17, 10 * 10**18, 0, 0)
    assert Price.free().cost_nanousd(Usage(10, 10, 5, 5)) == 0


def exact(price: Price, usage: Usage) -> Decimal:
    cached = price.input if price.cached_input is None else price.cached_input
    written = price.input if price.cache_write is None else price.cache_write
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    parts = (
        (plain, price.input),
        (usage.cached_input_tokens, cached),
        (usage.cache_write_tokens, written),
        (usage.output_tokens, price.output),
    )
    return sum((Decimal(count) * rate / 10**15 for count, rate in parts), Decimal(0))


@given(
    published, published, st.none() | published, st.none() | published, tokens, tokens, st.integers(0), st.integers(0)
)
def test_a_cost_is_exact_to_the_nano_dollar_rounded_half_up(
    given_price: Decimal,
    made_price: Decimal,
    cached_price: Decimal | None,
    written_price: Decimal | None,
    given_tokens: int,
    made_tokens: int,
    cached: int,
    written: int,
):
    price = Price.per_million(
        float(given_price),
        float(made_price),
        None if cached_price is None else float(cached_price),
        None if written_price is None else float(written_price),
    )
    cached %= given_tokens + 1
    written %= given_tokens - cached + 1
    usage = Usage(given_tokens, made_tokens, cached, written)
    assert price.cost_nanousd(usage) == exact(price, usage).quantize(Decimal(1), ROUND_HALF_UP)


def test_half_a_nano_dollar_is_rounded_up():
    assert Price(5 * 10**14, 0).cost_nanousd(Usage(1)) == 1
    assert Price(5 * 10**14 - 1, 0).cost_nanousd(Usage(1)) == 0


def test_an_embedding_costs_something():
    assert Price.per_million(0.02, 0.0).cost_nanousd(Usage(10)) == 200


def test_reasoning_is_not_charged_twice():
    price = Price.per_million(1.0, 10.0)
    assert price.cost_nanousd(Usage(0, 100, reasoning_tokens=80)) == price.cost_nanousd(Usage(0, 100))


def test_parts_larger_than_the_whole_do_not_make_a_negative_cost():
    assert Price(10**15, 0, 5 * 10**14).cost_nanousd(Usage(1, 0, 5)) == 3
    assert Price(0, 10**15, reasoning=2 * 10**15).cost_nanousd(Usage(0, 1, reasoning_tokens=5)) == 2


def test_a_part_that_is_free_costs_nothing():
    price = Price(10**15, 10**15, cached_input=0, cache_write=0, reasoning=0)
    assert price.cost_nanousd(Usage(3, 2, cached_input_tokens=1, cache_write_tokens=2, reasoning_tokens=2)) == 0


def test_reasoning_and_the_request_itself_may_have_prices_of_their_own():
    price = Price(0, 10**15, reasoning=3 * 10**15, request=5)
    assert price.cost_nanousd(Usage(0, 10, reasoning_tokens=4)) == 6 + 12 + 5


def test_above_a_tier_the_whole_request_costs_that_of_the_tier():
    price = Price(10**15, 0, request=7, tiers=((100, Price(2 * 10**15, 0)), (200, Price(3 * 10**15, 0))))
    assert [price.cost_nanousd(Usage(n)) for n in (100, 101, 200, 201)] == [107, 209, 407, 610]


def test_an_unknown_cost_is_unknown_in_dollars_too():
    assert usd(None) is None
    assert usd(0) == 0.0
    assert usd(34_100) == 0.0000341


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_is_refused(price: float):
    with pytest.raises((ValueError, OverflowError)):
        Price.per_million(price, 1.0)


def test_prices_load_no_decimal_arithmetic():
    code = "import sys, llmctl.core.money; sys.exit('decimal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
