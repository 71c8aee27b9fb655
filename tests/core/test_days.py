"""Days of a zone: right over every change of its clocks, in zones of half and quarter hours, from 1970 to 2200."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core import days
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONES = (
    "UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo",
    "America/Havana", "America/Santiago", "America/Nuuk", "Pacific/Apia", "Pacific/Chatham", "Antarctica/Troll",
)  # fmt: skip
INSTANTS = st.floats(0, 7_258_118_400, allow_nan=False)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@given(INSTANTS, st.sampled_from(ZONES))
def test_an_instant_lies_in_the_day_that_it_is_said_to(instant: float, zone: str) -> None:
    day = days.day_of(instant, zone)
    assert days.start_of(day, zone) <= instant < days.start_of(days.shifted(day, 1), zone)
    wall = datetime.fromtimestamp(instant, ZoneInfo(zone))
    assert day == wall.date().isoformat() or (zone == "America/St_Johns" and wall.fold)


@given(st.dates(date(1970, 1, 2), date(2199, 12, 31)), st.sampled_from(ZONES))
def test_a_day_begins_with_its_first_instant(day: date, zone: str) -> None:
    start = days.start_of(day.isoformat(), zone)
    at, before = (datetime.fromtimestamp(each, ZoneInfo(zone)).date() for each in (start, start - 0.001))
    assert before < day <= at
    assert days.day_of(start - 0.001, zone) == before.isoformat()


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-04-05", "Australia/Lord_Howe", 24.5),
        ("2026-03-29", "Asia/Beirut", 23),  # its midnight is skipped
        ("2026-11-01", "America/Havana", 25),  # its midnight comes twice
        ("2006-10-29", "America/St_Johns", 25),  # its first minute comes twice, with an hour of the day before between
        ("2011-12-30", "Pacific/Apia", 0),  # there was no such day
    ],
)
def test_a_day_lasts_as_long_as_the_clocks_of_its_zone_make_it(day: str, zone: str, hours: float) -> None:
    assert days.start_of(days.shifted(day, 1), zone) - days.start_of(day, zone) == hours * 3600


@pytest.mark.full
@pytest.mark.parametrize("years", [1970, 1980, 1990, 2000, 2010, 2020, 2030, 2190])
def test_the_days_of_every_zone_follow_one_another(years: int) -> None:
    import zoneinfo

    for zone in zoneinfo.available_timezones():
        info, day = ZoneInfo(zone), date(years, 1, 2)
        while day < date(years + 10, 1, 2):
            start = days.start_of(day.isoformat(), zone)
            assert datetime.fromtimestamp(start - 1, info).date() < day <= datetime.fromtimestamp(start, info).date()
            day += timedelta(1)


@given(INSTANTS)
def test_local_is_the_zone_of_this_computer(instant: float) -> None:
    wall = datetime.fromtimestamp(instant)  # noqa: DTZ006 - this computer's zone is what is asked for
    assert days.day_of(instant, "local") == wall.date().isoformat()


def test_local_follows_the_machine(berlin: None) -> None:
    del berlin
    instant = datetime(2026, 10, 25, 23, 30, tzinfo=UTC).timestamp()
    for period in ("day", "month"):
        assert days.bounds(period, instant, "local") == days.bounds(period, instant, "Europe/Berlin")
    assert days.day_of(instant, "local") == "2026-10-26"


def test_months_and_weeks_begin_where_the_calendar_says() -> None:
    instant = datetime(2026, 12, 31, 22, 45, tzinfo=UTC).timestamp()
    december, january = (datetime(*month, 1, tzinfo=UTC).timestamp() for month in ((2026, 12), (2027, 1)))
    assert days.bounds("month", instant, "UTC") == (december, january)
    assert days.bounds("day", instant, "UTC") == (january - 86400, january)
    kathmandu = ZoneInfo("Asia/Kathmandu")
    assert days.bounds("month", instant, "Asia/Kathmandu")[0] == datetime(2027, 1, 1, tzinfo=kathmandu).timestamp()
    assert [days.week_of(day) for day in ("2026-12-31", "2027-01-03", "2027-01-04")] == ["2026-W53"] * 2 + ["2027-W01"]
    assert days.month_of("2026-12-31") == "2026-12"


@pytest.mark.parametrize("instant", [1e300, -1e300, 1e13, float("inf"), float("-inf"), float("nan")])
def test_an_instant_beyond_all_calendars_still_has_a_day(instant: float) -> None:
    assert days.day_of(instant, "Europe/Berlin") == ("0001-01-01" if instant < 0 else "9999-12-31")


@pytest.mark.parametrize(
    "zone", ["", "Europe", "Mars/Phobos", "../etc/passwd", "/etc/passwd", "a\0b", "é" * 9, "x" * 999]
)
def test_a_zone_that_nobody_knows_is_refused_by_name(zone: str) -> None:
    assert not days.is_zone(zone)
    with pytest.raises(UsageError, match="is no time zone"):
        days.day_of(0.0, zone)


def test_this_computers_days_need_no_database_of_zones() -> None:
    import subprocess
    import sys

    script = "import sys; from llmctl.core import days; [days.bounds('day', 1.8e9, each) for each in ('local', 'UTC')]"
    script += "; print('zoneinfo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "False\n"
