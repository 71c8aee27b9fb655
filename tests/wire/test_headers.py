"""What response headers say: waits, retries, request ids; and that nothing in them can do harm."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.wire.headers import request_id, retry_after_s, seconds_until, should_retry

NOW = 1_767_322_800.0
MONTH_S = 31 * 86400.0
NAMES = ("retry-after", "retry-after-ms", "x-ms-retry-after-ms", "x-should-retry", "x-request-id")


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0.0),
        ("20", 20.0),
        (" 1.5 ", 1.5),
        ("Fri, 02 Jan 2026 03:00:07 GMT", 7.0),
        ("Fri, 02 Jan 2026 02:59:00 GMT", 0.0),
        ("Friday, 02-Jan-26 03:00:07 GMT", 7.0),
        ("Fri Jan  2 03:00:07 2026", 7.0),
        ("Fri, 02 Jan 2026 03:00:07 -0000", 7.0),
        ("Fri, 02 Jan 2032 03:04:15 GMT", MONTH_S),
        ("2026-01-02T03:00:07Z", 7.0),
        ("2026-01-02 04:00:07.5+01:00", 7.5),
        ("2026-01-02T02:00:00Z", 0.0),
        ("1767322807", 7.0),
        ("1767322807500", 7.5),
        ("1767322799", 0.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("999999999999h", MONTH_S),
        ("1e300", MONTH_S),
        ("99999999999999999999", MONTH_S),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("1_000", None),
        ("30,000", None),
        ("5 bananas", None),
        ("1s2", None),
        ("9" * 101 + "s", None),
        ("2026-13-02T03:00:07Z", None),
        ("0001-01-01T00:00:00+23:59", 0.0),
        ("Fri, 02 Jan 99999 03:00:07 GMT", None),
        ("Fri, 99 Jan 2026 03:00:07 GMT", None),
    ],
)
def test_a_retry_after_is_a_wait_or_an_instant_or_nothing(value: str, wait: float | None):
    assert retry_after_s({"retry-after": value}, NOW) == wait


@pytest.fixture
def far_from_greenwich():
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Pacific/Auckland"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("value", ["Fri Jan  2 03:00:07 2026", "Fri, 02 Jan 2026 03:00:07 -0000"])
def test_a_date_without_a_zone_is_greenwich_time_wherever_we_are(value: str):
    assert retry_after_s({"retry-after": value}, NOW) == 7.0


def test_milliseconds_are_believed_before_seconds():
    assert retry_after_s({"retry-after-ms": "350", "retry-after": "1"}, NOW) == 0.35
    assert retry_after_s({"x-ms-retry-after-ms": "1200", "retry-after": "9"}, NOW) == 1.2
    assert retry_after_s({"retry-after-ms": "-1", "retry-after": "9"}, NOW) == 9.0


@given(st.integers(0, 86400 * 30))
def test_any_date_within_a_month_is_that_many_seconds_away(seconds: int):
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert retry_after_s({"retry-after": date}, NOW) == seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_any_duration_of_go_is_read_back(h: int, m: int, s: int, ms: int):
    written = (f"{h}h" if h else "") + (f"{m}m" if h or m else "") + f"{s}.{ms:03}s"
    wait = seconds_until(written, NOW)
    assert wait is not None
    assert math.isclose(wait, h * 3600 + m * 60 + s + ms / 1000)


dates = st.lists(
    st.sampled_from(["Fri,", "02", "Jan", "2026", "03:00:07", "GMT", "-0000", "+9999", ":", "", "0", ",", "99:99", "-"])
).map(" ".join)


@given(st.dictionaries(st.sampled_from(NAMES), st.text() | dates | st.from_regex(r"[0-9eE.+_-]{0,9}", fullmatch=True)))
def test_no_header_makes_us_fail(headers: dict[str, str]):
    wait = retry_after_s(headers, NOW)
    assert wait is None or (math.isfinite(wait) and 0 <= wait <= MONTH_S)
    assert should_retry(headers) in (True, False, None)
    assert isinstance(request_id(headers), str)


def test_should_retry_is_the_providers_own_word_or_nothing():
    assert [should_retry({"x-should-retry": word}) for word in ("true", "False", "maybe", "")] == [
        True,
        False,
        None,
        None,
    ]
    assert should_retry({}) is None


def test_the_first_name_of_a_request_wins():
    assert request_id({"cf-ray": "c", "x-request-id": "", "request-id": "r"}) == "r"
    assert request_id({}) == ""
