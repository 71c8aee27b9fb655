"""Percentiles from counts: within 5 %, and as if no sketch had ever been split, merged, stored or taken away."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.sketch import both, bucket, dump, merge, percentile, quantile, single

TIMES = st.lists(st.floats(0.011, 3e8, allow_nan=False), min_size=1, max_size=60)
COUNTS = st.dictionaries(st.integers(0, 255), st.integers(-(2**63) + 1, 2**63 - 1), max_size=30)
PERCENTS = st.integers(1, 100)


def sketch(values: list[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        merge(counts, single(value))
    return counts


@given(TIMES, PERCENTS)
def test_a_percentile_is_within_five_per_cent_of_the_exact_one(values: list[float], percent: int) -> None:
    exact = sorted(values)[max(1, ceil(percent * len(values) / 100)) - 1]
    assert percentile(values, percent, 9) == round(exact, 9)
    assert quantile(sketch(values), percent) == pytest.approx(exact, rel=0.05)


@given(st.lists(st.integers(0, 1000), min_size=1), PERCENTS)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    found = percentile(values, percent, 3)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(TIMES, TIMES)
def test_merging_is_adding_and_can_be_undone(some: list[float], more: list[float]) -> None:
    merged = both(dump(sketch(some)), dump(sketch(more)))
    assert merged == dump(sketch(some + more))
    one_by_one = dump(sketch(some))
    for value in more:
        one_by_one = both(one_by_one, single(value))
    assert one_by_one == merged
    counts: dict[int, int] = {}
    merge(counts, merged)
    merge(counts, dump(sketch(more)), -1)
    assert dump(counts) == dump(sketch(some))


@given(COUNTS)
def test_what_is_stored_comes_back(counts: dict[int, int]) -> None:
    read: dict[int, int] = {}
    merge(read, dump(counts))
    assert read == {index: count for index, count in counts.items() if count}


@given(COUNTS, COUNTS)
def test_a_count_that_outgrows_its_bytes_is_not_lost(one: dict[int, int], other: dict[int, int]) -> None:
    counts: dict[int, int] = {}
    merge(counts, dump(one))
    merge(counts, dump(other))
    assert both(dump(one), dump(other)) == dump(counts)
    for width in (7, 15, 31):
        full = dump({9: (1 << width) - 1})
        assert both(full, dump({9: 1})) == dump({9: 1 << width})


@given(st.binary(max_size=40), st.one_of(st.binary(max_size=4), st.none(), st.integers(), st.text()), PERCENTS)
def test_a_damaged_sketch_is_never_a_crash(blob: bytes, other: object, percent: int) -> None:
    counts: dict[int, int] = {}
    merge(counts, blob)
    merge(counts, both(blob, other))
    merge(counts, both(other, blob))
    told = quantile(counts, percent)
    assert told is None or told >= 0


def test_nothing_has_no_percentile_and_extremes_have_one() -> None:
    assert quantile({}, 50) is percentile([], 50, 3) is None
    assert dump({5: 0}) == b""
    assert [bucket(value) for value in (-1.0, 0.0, 0.01, float("nan"), 1e300, float("inf"))] == [0, 0, 0, 0, 255, 255]
    assert quantile({0: 3}, 95) == 0.0
    assert quantile({5: -3, 9: 2}, 50) == quantile({9: 2}, 50), "what damage made negative is none"


def test_a_sketch_is_small() -> None:
    latencies = dict.fromkeys(range(100, 160), 100)  # all that one model ever takes, and more
    assert len(dump(latencies)) == 1 + 2 * len(latencies)
