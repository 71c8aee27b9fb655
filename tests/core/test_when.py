"""Durations and dates as people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.core.when import parse_duration, parse_instant

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC).timestamp()
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("2w", 1209600.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("0s", 0.0),
        (" 5m ", 300.0),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "m",
        "-5m",
        "+5m",
        "5 m",
        "5M",
        "5min",
        ".5h",
        "5.h",
        "1e3s",
        "nan",
        "infs",
        "5m!",
        "٥m",
        "9" * 99 + "d",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert "30s" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("24h", datetime(2026, 3, 9, 12, 0, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=TOKYO)),
        ("2026-03-01T08:30", datetime(2026, 3, 1, 8, 30, tzinfo=TOKYO)),
        ("2026-03-01 08:30:15", datetime(2026, 3, 1, 8, 30, 15, tzinfo=TOKYO)),
        ("2026-03-01T08:30Z", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01T08:30-05:00", datetime(2026, 3, 1, 13, 30, tzinfo=UTC)),
        ("20260301", datetime(2026, 3, 1, tzinfo=TOKYO)),
    ],
)
def test_an_instant_is_a_time_ago_or_an_iso_date_in_the_given_zone(text: str, instant: datetime) -> None:
    assert parse_instant(text, NOW, TOKYO) == instant.timestamp()


def test_without_a_zone_a_date_is_midnight_here() -> None:
    assert parse_instant("2026-03-01", NOW, None) == datetime(2026, 3, 1).astimezone().timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-30", "03/01/2026", "1"])
def test_anything_else_is_no_instant(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_instant(text, NOW, TOKYO)
    assert "7d" in caught.value.hint


@given(st.text(max_size=60))
def test_hostile_text_is_a_number_or_a_usage_error(text: str) -> None:
    for read in (parse_duration, lambda each: parse_instant(each, NOW, TOKYO)):
        with suppress(UsageError):
            assert isfinite(read(text))


@given(st.integers(0, 10**12), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_later_means_longer(n: int, unit: str) -> None:
    assert parse_duration(f"{n}{unit}") < parse_duration(f"{n + 1}{unit}")
