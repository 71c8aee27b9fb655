"""Budgets through the command line: what is refused and how it is said, what is left, and a race for the last of it."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from servers import DONE, FINISH, FaultServer, stream, usage

from llmctl.cli import cost_budget

if TYPE_CHECKING:
    from .conftest import Cli

pytestmark = pytest.mark.usefixtures("uncached")

HELD = 74_000 + 100 * 10_000
"""The worst case in nano-dollars of "hi" with at most 100 tokens of answer, as the server here counts it."""
WORST = stream("Hel", then=(FINISH, usage(74, 100), DONE))
MODEL = '[models.m]\nmodel = "openai/m"\nprice = { input = 1.0, output = 10.0 }\nmax_tokens = 100\n'
ASK = ("ask", "hi", "-m", "m", "--retries", "0", "--no-stdin")


def configure(cli: Cli, budget: str) -> None:
    cli.home.mkdir(mode=0o700, exist_ok=True)
    (cli.home / "config.toml").write_text(f'{MODEL}[budget]\ntimezone = "UTC"\n{budget}\n')


def dollars(nanousd: int) -> str:
    return f"{nanousd / 1e9:.9f}"


@pytest.mark.parametrize("processes", [4, pytest.param(50, marks=pytest.mark.full)])
def test_processes_that_race_for_the_last_dollar_never_spend_more_and_as_many_as_fit_are_served(
    cli: Cli, processes: int
) -> None:
    fit = processes // 2
    configure(cli, f"daily = {dollars(fit * HELD + HELD - 1)}")
    with FaultServer(WORST) as server:
        cli.to(server)
        running = [cli.start(*ASK) for _ in range(processes)]
        codes = [process.wait(120) for process in running]
        for process in running:
            process.communicate()
        assert len(server.requests) == fit
    assert sorted(codes) == [0] * fit + [9] * (processes - fit)
    rows = cli.calls()
    assert sorted(row["state"] for row in rows) == ["ok"] * fit + ["refused"] * (processes - fit)
    assert sum(row["cost_nanousd"] or 0 for row in rows) == fit * HELD
    (left,) = cli.run("cost", "budget", "--json").json
    assert (left["spent_usd"], left["reserved_usd"]) == (fit * HELD / 1e9, 0.0)


def test_a_refused_call_exits_9_with_what_to_do_and_nothing_is_sent(cli: Cli) -> None:
    configure(cli, "monthly = 0.001")
    with FaultServer(WORST) as server:
        said = cli.to(server).run(*ASK).refused(9)
        assert said.startswith("of $0.001 a month for all calls, $0.00 are spent; this call may cost $0.001074 (")
        assert "one call may" in cli.run(*ASK, "--max-cost", "0.0001").refused(9)
        error = cli.run(*ASK, "--json")
        document = json.loads(error.err)["error"]
        assert (error.code, error.out, document["type"]) == (9, b"", "BudgetExceeded")
        assert document["hint"]
        assert server.requests == []
    assert [row["state"] for row in cli.calls()] == ["refused"] * 3


@pytest.mark.parametrize("cap", ["nan", "-1", "x", "inf"])
def test_a_cap_that_is_no_amount_is_a_usage_error(cli: Cli, cap: str) -> None:
    configure(cli, "")
    cli.environ["OPENAI_API_KEY"] = "k"
    assert cli.run(*ASK, "--max-cost", cap).code == 2


def test_an_answer_within_its_cap_comes_as_ever(cli: Cli) -> None:
    configure(cli, "")
    with FaultServer(WORST) as server:
        done = cli.to(server).run(*ASK, "--max-cost", "0.01")
    assert (done.code, done.out, done.err) == (0, b"Hel\n", "")


def test_an_unknown_price_is_refused_under_a_budget_unless_it_is_allowed(cli: Cli) -> None:
    configure(cli, "daily = 5")
    words = ("ask", "hi", "-m", "openai/nobody-knows", "--retries", "0")
    with FaultServer(WORST) as server:
        assert "nobody knows its price" in cli.to(server).run(*words).refused(9)
        assert "nobody knows its price" in cli.run("route", "list", "openai/nobody-knows").err
        configure(cli, 'daily = 5\nallow_unpriced = ["openai/nobody-knows"]')
        done = cli.run(*words)
        assert (done.code, done.err) == (0, "")
    assert [row["cost_nanousd"] for row in cli.calls()] == [None]


def test_half_of_an_allowance_is_said_on_one_line(cli: Cli) -> None:
    configure(cli, f'[budget.tags."team=web"]\ndaily = {dollars(2 * HELD)}')
    with FaultServer(WORST) as server:
        (line,) = cli.to(server).run(*ASK, "--tag", "team=web").lines
        assert line.startswith("llmctl: warning: 50% of $0.002148 a day for tag team=web are spent: $0.001074 (")
        assert cli.run(*ASK, "--tag", "team=app").err == ""


@pytest.mark.parametrize("trouble", [pytest.param("locked", marks=pytest.mark.full), "full", "a link", "newer"])
def test_where_nothing_can_be_booked_a_budget_that_refuses_sends_nothing_and_one_that_warns_answers(
    cli: Cli, trouble: str
) -> None:
    ask = partial(cli.run, *ASK) if trouble != "full" else partial(cli.shell, f"ulimit -f 1; llmctl {' '.join(ASK)}")
    configure(cli, "daily = 5.0")
    with FaultServer(WORST) as server:
        assert cli.to(server).run(*ASK).code == 0
        file = cli.home / "ledger.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            if trouble == "locked":
                holder.execute("BEGIN EXCLUSIVE")
            elif trouble == "a link":
                file.rename(cli.home / "elsewhere.db")
                file.symlink_to(cli.home / "elsewhere.db")
            elif trouble == "newer":
                holder.execute("DROP TABLE reservations")
                holder.execute("PRAGMA user_version = 99")
            refused = ask()
            assert (refused.code, refused.out, len(server.requests)) == (3, b"", 1)
            assert "llmctl: error: " in refused.err
            configure(cli, 'daily = 5.0\non_exceed = "warn"')
            answered = ask()
            assert (answered.code, answered.out) == (0, b"Hel\n")


# ---------------------------------------------------------------- cost budget

TAGS = '[budget.tags."team=web"]\nmonthly = 20.0\non_exceed = "warn"'


def test_what_is_left_is_a_row_for_each_allowance(cli: Cli) -> None:
    configure(cli, f"per_call = 0.5\ndaily = 5.0\nmonthly = 50.0\n{TAGS}")
    with FaultServer(WORST) as server:
        cli.to(server).run(*ASK, "--tag", "team=web")
    rows = cli.run("cost", "budget", "--json").json
    assert [(row["scope"], row["period"], row["limit_usd"], row["on_exceed"]) for row in rows] == [
        ("all calls", "call", 0.5, "refuse"),
        ("all calls", "day", 5.0, "refuse"),
        ("all calls", "month", 50.0, "refuse"),
        ("tag team=web", "month", 20.0, "warn"),
    ]
    assert rows[1]["spent_usd"] == HELD / 1e9
    assert rows[1]["left_usd"] == pytest.approx(5 - HELD / 1e9)
    assert rows[1]["resets_at"].endswith("T00:00+00:00")
    plain = cli.run("cost", "budget").out.decode().splitlines()
    assert plain[0].split("\t")[:4] == ["scope", "period", "limit_usd", "spent_usd"]
    assert plain[2].split("\t")[:4] == ["all calls", "day", "5", "0.001074"]


def test_without_a_budget_it_says_so_and_what_was_spent(cli: Cli) -> None:
    done = cli.run("cost", "budget")
    assert [line.split("\t")[1] for line in done.out.decode().splitlines()[1:]] == ["day", "month"]
    assert done.err.startswith("llmctl: no budget is set: nothing is refused")
    assert "at $5, and at 200 calls within a minute" in done.err
    assert not (cli.home / "ledger.db").exists()
    assert [row["limit_usd"] for row in cli.run("cost", "budget", "--json").json] == [None, None]


def test_a_damaged_ledger_is_told_where_it_hides_what_was_spent_and_in_the_document_of_json(cli: Cli) -> None:
    configure(cli, "daily = 5.0")
    assert [row["damaged"] for row in cli.run("cost", "budget", "--json").json] == [None]
    (aside := cli.home / f"ledger.db.corrupt-{2**32}").touch()
    assert f"{aside.name} was damaged" in cli.run("cost", "budget").err
    done = cli.run("cost", "budget", "--json")
    assert ([row["damaged"] for row in done.json], done.err) == ([aside.name], "")


def test_an_older_ledger_is_read_as_it_is(cli: Cli) -> None:
    from llmctl.store.db import Database
    from llmctl.store.schema import STEPS

    configure(cli, "monthly = 5.0")
    database = Database(cli.home / "ledger.db", STEPS[:2])
    database.write(
        lambda connection: connection.execute(
            "INSERT INTO calls (id, started_at, state, command, model, cache, fallback, attempt_count, "
            "tokens_estimated, cost_nanousd, saved_nanousd, drill) "
            "VALUES ('a', unixepoch(), 'ok', 'ask', 'm', 'off', 0, 1, 0, 7, 0, 0)"
        )
    )
    database.close()
    (row,) = cli.run("cost", "budget", "--json").json
    assert row["spent_usd"] == 7e-9
    with closing(sqlite3.connect(cli.home / "ledger.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_on_a_terminal_it_is_a_table_that_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    def row(scope: str, period: str, limit: float, **more: Any) -> dict[str, Any]:
        anew = {"resets_at": "2026-12-01T00:00+00:00", "on_exceed": "refuse", "left_usd": 1.79}
        return {"scope": scope, "period": period, "limit_usd": limit, "spent_usd": 3.21, "share": 0.64, **anew, **more}

    hostile = "tag team=a-rather-long-name-for-a-team-\x1b[2J"
    nothing = dict.fromkeys(("spent_usd", "left_usd", "share", "resets_at", "reserved_usd"))
    rows = [
        row("all calls", "call", 0.5, **nothing),
        row("all calls", "day", 5.0, reserved_usd=0.0),
        row("all calls", "month", 50.0, reserved_usd=0.12),
        row(hostile, "month", 20.0, reserved_usd=0.0, on_exceed="warn"),
    ]
    cost_budget._draw(Console(width=width, force_terminal=True, color_system=None, file=io.StringIO()), rows)
    drawn = capsys.readouterr().out
    assert max(map(len, drawn.splitlines())) <= width, drawn
    assert "\x1b" not in drawn
    assert "$50.00" in drawn
    assert ("12-01 00:00" in drawn) is (width == 80)
