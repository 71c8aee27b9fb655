"""Budgets in the ledger: nothing is spent twice, whoever asks at once, and what cannot be counted is not spent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import llmctl
from llmctl.core.budget import Allowance, Budgets
from llmctl.core.errors import BudgetExceeded, LedgerUnusable
from llmctl.core.money import NANO
from llmctl.core.record import CallRecord, ulid
from llmctl.store import spend
from llmctl.store.files import directory_lock
from llmctl.store.ledger import SqliteLedger
from llmctl.store.repair import repair
from llmctl.store.rows import ended
from llmctl.store.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = str(Path(llmctl.__path__[0]).parent)
NOON = datetime(2026, 11, 20, 12, tzinfo=ZoneInfo("UTC")).timestamp()
DAY = Budgets((Allowance(daily=100),), "UTC")


def call(n: int = 1, at: float = NOON, **changes: Any) -> CallRecord:
    record = CallRecord(id=ulid(at, n), started_at=at, command="ask", model="fast", deadline_at=at + 300)
    return replace(record, **changes)


class Money:
    """A ledger whose time is `now`, and what is asked of it."""

    def __init__(self, path: Path, budgets: Budgets = DAY, wait_s: float = 5.0) -> None:
        self.path, self.budgets, self.now = path, budgets, NOON
        self.ledger = SqliteLedger(
            path / "ledger.db", path / "spool", wait_s=wait_s, budgets=budgets, now=lambda: self.now
        )

    def begin(self, record: CallRecord) -> None:
        self.ledger.begin_now(record, None)

    def reserve(self, record: CallRecord, amount: int, budgets: Budgets | None = None, unpriced: str = "") -> None:
        budgets = self.budgets if budgets is None else budgets
        charged = budgets.of_call(record.model, record.tags)
        asyncio.run(self.ledger.reserve(record, charged, amount, unpriced))

    def ask(self, record: CallRecord, amount: int) -> bool:
        """Whether it may be sent; its row is there either way."""
        self.begin(record)
        try:
            self.reserve(record, amount)
        except BudgetExceeded:
            return False
        return True

    def end(self, record: CallRecord, cost: int | None, **changes: Any) -> None:
        ended: dict[str, Any] = {"state": "ok", "cost_nanousd": cost, "finished_at": self.now}
        self.ledger.complete_now(replace(record, **ended | changes), (), None)

    def reservations(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path / "ledger.db")) as connection:
            return connection.execute("SELECT call_id, nanousd FROM reservations").fetchall()


@pytest.fixture
def money(tmp_path: Path) -> Iterator[Money]:
    place = Money(tmp_path)
    yield place
    place.ledger.close()


def test_what_is_spent_and_what_running_calls_may_spend_both_count(money: Money) -> None:
    first, second = call(1), call(2)
    assert money.ask(first, 60)
    assert not money.ask(second, 41)
    assert money.ask(second, 40)
    money.end(first, 10)
    assert money.reservations() == [(second.id, 40)]
    assert not money.ask(call(3), 51)
    assert money.ask(call(3), 50)


def test_a_refusal_says_what_is_spent_reserved_and_asked_for_and_when_it_begins_anew(money: Money) -> None:
    money.ask(call(1), 30 * NANO)
    money.budgets = Budgets((Allowance(tag=("team", "web"), monthly=5 * NANO),), "Europe/Berlin")
    spent, running, asked = (call(n, tags={"team": "web"}) for n in (2, 3, 4))
    money.begin(spent)
    money.end(spent, 2 * NANO)
    assert money.ask(running, NANO)
    with pytest.raises(BudgetExceeded) as caught:
        money.reserve(asked, 2 * NANO + 1000)
    assert caught.value.message == (
        "of $5.00 a month for tag team=web, $2.00 are spent and $1.00 reserved by running calls; "
        "this call may cost $2.000001 (begins anew 2026-12-01 00:00 Europe/Berlin)"
    )
    assert 'raise monthly in [budget.tags."team=web"]' in caught.value.hint
    assert caught.value.exit_code == 9


def test_a_reservation_outlives_its_deadline_as_long_as_a_row_may_be_late(money: Money) -> None:
    assert money.ask(call(1, deadline_at=NOON + 10), 100)
    money.now = NOON + 10 + spend.SLACK_S - 1
    assert not money.ask(call(2), 1)
    money.now += 1
    assert money.ask(call(2), 1)


def test_an_attempt_more_replaces_what_the_call_had_reserved(money: Money) -> None:
    record = call()
    assert money.ask(record, 60)
    money.reserve(record, 90)
    assert money.reservations() == [(record.id, 90)]
    with pytest.raises(BudgetExceeded):
        money.reserve(record, 101)
    assert money.reservations() == [(record.id, 90)], "what was taken for the attempts before stays until the row ends"


@pytest.mark.parametrize(
    ("scope", "charged", "free"),
    [
        ({"model": "fast"}, {"model": "fast"}, {"model": "smart"}),
        ({"tag": ("team", "web")}, {"tags": {"team": "web", "job": "x"}}, {"tags": {"team": "app"}}),
    ],
)
def test_an_allowance_holds_for_the_calls_of_its_scope_alone(
    tmp_path: Path, scope: dict[str, Any], charged: dict[str, Any], free: dict[str, Any]
) -> None:
    money = Money(tmp_path, Budgets((Allowance(**scope, daily=100),), "UTC"))
    assert money.ask(call(1, **free), 1000)
    money.end(call(1, **free), 1000)
    assert money.ask(call(2, **charged), 100)
    assert not money.ask(call(3, **charged), 1)
    money.end(call(2, **charged), 99)
    assert money.ask(call(3, **charged), 1)
    assert money.ask(call(4, **free), 1000)


@pytest.mark.parametrize("period", ["daily", "monthly"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
def test_a_call_counts_for_the_day_and_month_it_began_in_whenever_it_ends(
    tmp_path: Path, zone: str, period: str
) -> None:
    money = Money(tmp_path, Budgets((Allowance(**{period: 100}),), zone))  # type: ignore[arg-type]
    anew = datetime(2026, 12, 1, tzinfo=ZoneInfo(zone)).timestamp()
    late, early = call(1, anew - 1), call(2, anew)
    money.now = anew - 1
    assert money.ask(late, 100)
    money.now = anew + 30
    assert money.ask(early, 100), "what is reserved by a call of yesterday is not of today"
    money.end(late, 100)
    money.end(early, 40)
    assert money.ask(call(3, anew + 60), 60)
    assert not money.ask(call(4, anew - 0.5), 1), "yesterday is full"


def test_a_day_of_25_hours_is_one_day(tmp_path: Path) -> None:
    zone = ZoneInfo("Europe/Berlin")
    money = Money(tmp_path, Budgets((Allowance(daily=100),), "Europe/Berlin"))
    first, last = (datetime(2026, 10, 25, hour, 30, tzinfo=zone).timestamp() for hour in (0, 23))
    assert last - first == 24 * 3600
    for n, at, fits in ((1, first, True), (2, last, False), (3, last + 3600, True)):
        money.now = at
        assert money.ask(call(n, at), 100) is fits
        if fits:
            money.end(call(n, at), 100)


def test_what_a_killed_call_had_reserved_is_free_again_after_its_deadline(money: Money) -> None:
    assert money.ask(call(1), 100)
    money.now = NOON + 300 + spend.SLACK_S
    assert money.ask(call(2, money.now), 100)
    assert [row[0] for row in money.reservations()] == [call(2, money.now).id]


KILLED = """
import asyncio, os, sys, time
from llmctl.core.budget import Allowance, Budgets
from llmctl.core.record import CallRecord, ulid
from llmctl.store.ledger import SqliteLedger
from llmctl.store.repair import repair
ledger = SqliteLedger(sys.argv[1] + "/ledger.db", sys.argv[1] + "/spool")
now = float(sys.argv[2])
record = CallRecord(id=ulid(now, 7), started_at=now, command="ask", model="fast", deadline_at=time.time() + 300)
ledger.begin_now(record, None)
asyncio.run(ledger.reserve(record, Budgets((Allowance(daily=100),), "UTC"), 80))
print("reserved", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_holds_what_it_took_until_its_deadline_and_blocks_nobody(money: Money) -> None:
    script = [sys.executable, "-c", KILLED, str(money.path), str(NOON)]
    with subprocess.Popen(script, env={**os.environ, "PYTHONPATH": ROOT}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reserved\n"
        process.send_signal(signal.SIGKILL)
    assert not money.ask(call(1), 21)
    assert money.ask(call(1), 20)
    money.now = datetime.now(tz=ZoneInfo("UTC")).timestamp() + 3600
    assert money.ask(call(2), 80)


def test_an_allowance_that_warns_is_passed_with_one_line(tmp_path: Path) -> None:
    money = Money(tmp_path, Budgets((Allowance(daily=100, per_call=90, refuses=False),), "UTC"))
    assert all(money.ask(call(n), 95) for n in (1, 2, 3))
    one, over = money.ledger.warnings
    assert one == "this call may cost $0.000000095, more than the $0.00000009 that one call may"
    assert over.startswith("of $0.0000001 a day for all calls, $0.00 are spent and $0.000000095 reserved")


def test_who_is_asked_at_an_unknown_price_under_an_allowance_that_warns_is_named_once(tmp_path: Path) -> None:
    money = Money(tmp_path, Budgets((Allowance(daily=100, refuses=False),), "UTC"))
    for n in (1, 2):
        money.reserve(call(n), 0, unpriced="ollama/x")
    assert money.ledger.warnings == ["nobody knows the price of ollama/x: no budget counts what it costs"]


# ---------------------------------------------------------------- warnings at the end of a call


def test_half_and_four_fifths_of_an_allowance_are_said_by_the_call_that_passes_them(tmp_path: Path) -> None:
    money = Money(tmp_path, Budgets((Allowance(daily=100, monthly=1000),), "UTC"))
    other = Money(tmp_path, money.budgets)
    for n, cost in enumerate((49, 1, 29, 1, 5)):
        asker = (money, other)[n % 2]
        asker.begin(call(n))
        asker.end(call(n), cost)
    assert sorted([*money.ledger.warnings, *other.ledger.warnings]) == [
        "50% of $0.0000001 a day for all calls are spent: $0.00000005 (begins anew 2026-11-21 00:00 UTC)",
        "80% of $0.0000001 a day for all calls are spent: $0.00000008 (begins anew 2026-11-21 00:00 UTC)",
    ]


def test_a_call_that_passes_both_shares_says_the_larger_one_and_a_row_written_twice_says_nothing(money: Money) -> None:
    for _ in range(2):
        money.begin(call())
        money.end(call(), 90)
        money.ledger.close()
    assert [text[:3] for text in money.ledger.warnings] == ["80%"]
    again = Money(money.path)
    for cost in (90, 91):
        again.end(call(), cost)
    assert again.ledger.warnings == []


def test_without_a_budget_a_dear_day_is_said_once_and_refused_to_nobody(tmp_path: Path) -> None:
    money = Money(tmp_path, Budgets(zone="UTC"))
    for n, dollars in enumerate((4.9, 0.1, 3, 9)):
        money.begin(call(n))
        money.end(call(n), round(dollars * NANO))
    (said,) = money.ledger.warnings
    assert said.startswith("$5.00 were spent today, and no budget is set")


def test_without_a_budget_a_rush_of_calls_is_said_once_a_day_over_all_processes(tmp_path: Path) -> None:
    money, other = Money(tmp_path, Budgets(zone="UTC")), Money(tmp_path, Budgets(zone="UTC"))
    for n in range(spend.RUSH_CALLS + 5):
        record = call(n, NOON + n * 0.29)  # the 200th within a minute
        asker = (money, other)[n % 2]
        asker.begin(record)
        asker.end(record, None)
        assert bool(money.ledger.warnings or other.ledger.warnings) is (n >= spend.RUSH_CALLS - 1)
    (said,) = money.ledger.warnings + other.ledger.warnings
    assert said.startswith("200 calls within a minute")


def test_drills_are_charged_and_never_warn(tmp_path: Path) -> None:
    for budgets in (Budgets(zone="UTC"), Budgets((Allowance(daily=8 * NANO),), "UTC")):
        money = Money(tmp_path, budgets)
        drill = call(1, drill=True)
        money.begin(drill)
        money.end(drill, 6 * NANO)
        assert money.ledger.warnings == []
    assert not money.ask(call(2), 2 * NANO + 1)


def test_drills_are_no_rush(tmp_path: Path) -> None:
    money = Money(tmp_path, Budgets(zone="UTC"))
    for n in range(spend.RUSH_CALLS):
        money.begin(call(n, drill=True))
    money.end(call(spend.RUSH_CALLS), None)
    assert money.ledger.warnings == []


# ---------------------------------------------------------------- a ledger that cannot be counted on


def test_what_waits_in_the_spool_is_counted_before_anything_is_sent(money: Money) -> None:
    spool = Spool(str(money.path / "spool"))
    for n in range(60):  # more than one merge brings in
        spool.add(ended(call(n, state="ok", cost_nanousd=1), (), None))
    money.reserve(call(99), 40)
    with pytest.raises(BudgetExceeded, match=r"\$0\.00000006 are spent"):
        money.reserve(call(99), 41)


def test_while_something_goes_on_waiting_nothing_is_sent(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.add(ended(call(1, state="ok", cost_nanousd=1), (), None))
    with directory_lock(spool.directory), pytest.raises(LedgerUnusable, match="wait to be counted"):
        Money(tmp_path, wait_s=0.01).reserve(call(2), 1)


def test_a_lock_is_waited_for_as_long_where_something_waits_to_be_merged(money: Money) -> None:
    money.end(call(1), 0)
    Spool(str(money.path / "spool")).add(ended(call(2, state="ok", cost_nanousd=60), (), None))
    holder = sqlite3.connect(money.path / "ledger.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, holder.close).start()
    with pytest.raises(BudgetExceeded, match=r"\$0\.00000006 are spent"):
        money.reserve(call(3), 41)


@pytest.mark.full
def test_a_lock_is_waited_for_as_long_where_several_calls_wait(money: Money) -> None:
    money.end(call(1), 0)
    holder = sqlite3.connect(money.path / "ledger.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.5, holder.close).start()

    async def ask(record: CallRecord) -> None:
        await money.ledger.begin(record, None)
        await money.ledger.reserve(record, money.budgets, 1)

    async def both() -> None:
        await asyncio.gather(ask(call(2)), ask(call(3)))

    asyncio.run(both())
    assert len(money.reservations()) == 2


@pytest.mark.parametrize("refuses", [True, False])
def test_where_the_ledger_cannot_be_written_a_budget_that_refuses_sends_nothing(
    tmp_path: Path, *, refuses: bool
) -> None:
    budgets = Budgets((Allowance(daily=100, refuses=refuses),), "UTC")
    Money(tmp_path, budgets).end(call(1), 0)
    money = Money(tmp_path, budgets, wait_s=0.05)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        if refuses:
            with pytest.raises(LedgerUnusable, match=r"database is locked\): nothing is sent") as caught:
                money.reserve(call(2), 1)
            assert (caught.value.exit_code, bool(caught.value.hint)) == (3, True)
        else:
            money.reserve(call(2), 1)


def test_what_only_a_warning_depends_on_need_not_be_known(tmp_path: Path) -> None:
    (tmp_path / f"ledger.db.corrupt-{int(NOON) - 2 * 86_400}").touch()
    both = (Allowance(daily=100), Allowance(monthly=100, refuses=False))
    Money(tmp_path, Budgets(both, "UTC")).reserve(call(), 1)
    with pytest.raises(LedgerUnusable, match="what was spent is not known"):
        Money(tmp_path, Budgets((Allowance(monthly=100),), "UTC")).reserve(call(), 1)


@pytest.mark.parametrize("damage", [(0, 16), (100, 4096)], ids=["no database", "no schema"])
def test_a_ledger_that_was_damaged_leaves_unknown_what_was_spent_until_it_is_repaired(
    tmp_path: Path, damage: tuple[int, int]
) -> None:
    file = tmp_path / "ledger.db"
    before = Money(tmp_path)
    before.end(call(1), 90)
    before.ledger.close()
    data = bytearray(file.read_bytes())
    begin, end = damage
    data[begin:end] = b"x" * (end - begin)
    file.write_bytes(data)
    money = Money(tmp_path)
    for asker in (money, Money(tmp_path)):
        asker.begin(call(2))
        with pytest.raises(LedgerUnusable, match="what was spent is not known") as caught:
            asker.reserve(call(2), 1)
        assert "ledger check --repair" in caught.value.hint
    (aside,) = (each.name for each in tmp_path.glob("ledger.db.corrupt-*") if not each.name.endswith(("-wal", "-shm")))
    moved = int(aside.rpartition("-")[2])
    assert spend.read(str(file), DAY, NOON)[1] == aside
    money.reserve(call(3, moved + 90_000.0), 1)  # another day: nothing of it was in that file
    money.reserve(call(4), 1, Budgets((Allowance(daily=100, refuses=False),), "UTC"))
    money.reserve(call(5), 1, Budgets((Allowance(per_call=100),), "UTC"))
    assert repair(file, tmp_path / "spool", NOON)["set_aside"] == []
    with pytest.raises(BudgetExceeded, match=r"\$0\.00000009 are spent"):
        money.reserve(call(2), 9)
    money.reserve(call(2), 8)  # besides the two of calls 4 and 5


def test_a_newer_ledger_without_our_tables_is_written_and_never_spent_on(tmp_path: Path) -> None:
    Money(tmp_path).end(call(1), 5)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("DROP TABLE reservations")
        connection.execute("PRAGMA user_version = 99")
    money = Money(tmp_path)
    with pytest.raises(LedgerUnusable):
        money.reserve(call(2), 1)
    money.end(call(2), 90)
    assert money.ledger.warnings == []
    assert not (tmp_path / "spool").exists()


def test_an_empty_file_is_a_ledger_of_which_nothing_is_spent(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    ((standing,), _) = spend.read(str(tmp_path / "ledger.db"), DAY, NOON)
    assert (standing.spent, standing.left) == (0, 100)


def test_looking_at_what_is_left_makes_no_ledger_and_sees_what_is_reserved(money: Money) -> None:
    file = str(money.path / "ledger.db")
    ((fresh,), _) = spend.read(file, DAY, NOON)
    assert (fresh.spent, fresh.reserved, fresh.left, os.path.exists(file)) == (0, 0, 100, False)
    money.ask(call(1), 30)
    money.ask(call(2), 60)
    money.end(call(2), 20)
    ((seen,), _) = spend.read(file, DAY, NOON)
    assert (seen.spent, seen.reserved, seen.left, seen.ends - seen.began) == (20, 30, 50, 86400)
    (day, month), aside = spend.read(file, Budgets(zone="UTC"), NOON)
    assert aside == ""
    assert [(each.period, each.limit, each.spent) for each in (day, month)] == [("day", None, 20), ("month", None, 20)]


# ---------------------------------------------------------------- against a model of it

LIMITS = Budgets(
    (
        Allowance(daily=100, monthly=250),
        Allowance(tag=("team", "web"), daily=60),
        Allowance(model="smart", monthly=120),
    ),
    "Asia/Kathmandu",
)


class Spending(RuleBasedStateMachine):
    """Calls that begin, reserve, reserve again, end or die, on a clock that goes over days; beside plain arithmetic."""

    @initialize()
    def begin_anew(self) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.money = Money(Path(self.directory.name), LIMITS)
        self.live: dict[str, tuple[CallRecord, int]] = {}
        self.paid: list[tuple[CallRecord, int]] = []
        self.count = 0

    def allowed(self, record: CallRecord, amount: int) -> bool:
        zone = ZoneInfo(LIMITS.zone)

        def name(at: float, period: str) -> str:
            return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")

        held = [(other, cost) for key, (other, cost) in self.live.items() if key != record.id]
        for each in LIMITS.allowances:
            for period, limit in (("day", each.daily), ("month", each.monthly)):
                if limit is None or not each.holds_for(record.model, record.tags):
                    continue
                total = sum(
                    cost
                    for other, cost in [*held, *self.paid]
                    if each.holds_for(other.model, other.tags)
                    and name(other.started_at, period) == name(record.started_at, period)
                )
                if total + amount > limit:
                    return False
        return True

    @rule(amount=st.integers(0, 70), model=st.sampled_from(["fast", "smart"]), tagged=st.booleans())
    def ask(self, amount: int, model: str, *, tagged: bool) -> None:
        self.count += 1
        record = call(self.count, self.money.now, model=model, tags={"team": "web"} if tagged else {"team": "x"})
        expected = self.allowed(record, amount)
        assert self.money.ask(record, amount) is expected
        if expected:
            self.live[record.id] = record, amount
        else:
            self.money.end(record, None, state="refused")

    @rule(more=st.integers(0, 40), which=st.randoms())
    def try_again(self, more: int, which: Any) -> None:
        if not self.live:
            return
        record, amount = self.live[which.choice(sorted(self.live))]
        try:
            self.money.reserve(record, amount + more)
        except BudgetExceeded:
            assert not self.allowed(record, amount + more)
        else:
            assert self.allowed(record, amount + more)
            self.live[record.id] = record, amount + more

    @rule(share=st.floats(0, 1), which=st.randoms())
    def end(self, share: float, which: Any) -> None:
        if self.live:
            record, amount = self.live.pop(which.choice(sorted(self.live)))
            self.money.end(record, round(share * amount))
            self.paid.append((record, round(share * amount)))

    @rule(seconds=st.sampled_from([1.0, 100.0, 361.0, 40_000.0, 86_400.0, 11 * 86_400.0]))
    def pass_time(self, seconds: float) -> None:
        self.money.now += seconds
        over = [key for key, (record, _) in self.live.items() if (record.deadline_at or 0) + 60 <= self.money.now]
        for key in over:  # its process was killed: a call does not outlive its deadline
            del self.live[key]

    @invariant()
    def nothing_is_overspent(self) -> None:
        if not hasattr(self, "money"):
            return
        file = str(self.money.path / "ledger.db")
        for each in spend.read(file, LIMITS, self.money.now)[0]:
            assert each.limit is not None
            assert each.spent <= each.limit

    def teardown(self) -> None:
        if hasattr(self, "money"):
            self.money.ledger.close()
            self.directory.cleanup()


@pytest.mark.parametrize("examples", [15, pytest.param(400, marks=pytest.mark.full)])
def test_reserving_settling_and_expiring_are_plain_arithmetic(examples: int) -> None:
    checks = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Spending, settings=checks)


def test_tags_that_are_odd_are_told_apart(tmp_path: Path) -> None:
    odd = 'a"b\\ \u202e'
    money = Money(tmp_path, Budgets((Allowance(tag=("k", odd), daily=10),), "UTC"))
    assert money.ask(call(1, tags={"k": odd}), 10)
    assert not money.ask(call(2, tags={"k": odd}), 1)
    assert money.ask(call(3, tags={"k": json.dumps(odd)}), 1)


MOST = 2**63 - 1


@pytest.mark.parametrize("rolled", [True, False])
def test_costs_that_add_up_to_more_than_a_number_of_sqlite_are_still_an_amount(tmp_path: Path, *, rolled: bool) -> None:
    money = Money(tmp_path, Budgets((Allowance(daily=10, refuses=False),), "UTC"))
    for n in range(3):
        money.end(call(n), MOST)
        if not rolled:
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
                connection.execute("DELETE FROM rollup_quarters")
                connection.execute("DELETE FROM rollup_days")
                connection.execute("UPDATE calls SET rolled = 0")
    assert money.ask(call(9), 1)
    assert money.ledger.trouble == ""
    assert [line for line in money.ledger.warnings if "$9,223,372,036.854775807 are spent; this call" in line]


@pytest.mark.parametrize(("amount", "model"), [(10 * MOST, "fast"), (1, "openai/gpt\udcff")])
def test_what_sqlite_cannot_hold_is_reserved_as_the_ledger_keeps_it(tmp_path: Path, amount: int, model: str) -> None:
    money = Money(tmp_path, Budgets((Allowance(daily=10, refuses=False),), "UTC"))
    assert money.ask(call(1, model=model), amount)
    assert money.reservations() == [(call(1).id, min(amount, MOST))]
