"""`llmctl cost budget`: what each allowance has left, and what goes without one."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - typer reads the annotations

from llmctl.cli.context import of
from llmctl.cli.money_table import Column, bar, dollars, draw, is_plain, print_plain, terminal
from llmctl.cli.options import Json, examples
from llmctl.cli.output import one_line, print_json, say
from llmctl.core.days import zone_info
from llmctl.core.money import usd
from llmctl.store import spend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from llmctl.core.budget import Allowance, Budgets, Standing

EXAMPLES = examples(
    "llmctl cost budget",
    "llmctl cost budget --json",
    "llmctl cost budget --json | jq -r '.[] | select(.share > 0.8) | .scope'",
)
_COLUMNS = ("scope", "period", "limit_usd", "spent_usd", "reserved_usd", "left_usd", "share", "resets_at", "on_exceed")
_BAR = 6


def budget(ctx: typer.Context, json: Json = False) -> None:
    """Show what each budget has left, what running calls have reserved of it, and when it begins anew.

    Without a budget: what this day and month have cost. --json is an array; `share` is of what is spent and reserved,
    `period` is call, day or month, and what does not apply is null. `damaged` names the ledger that was moved aside
    as damaged, so that what was spent is not known.
    """
    context = of(ctx, json=json)
    budgets = context.catalog.settings.budgets
    now = time.time()
    found, damaged = spend.read(os.fspath(context.places.ledger), budgets, now)
    rows = [*(_cap(each) for each in budgets.allowances if each.per_call is not None)]
    rows += [_row(each, budgets) for each in found]
    if json:
        print_json([{**row, "damaged": damaged or None} for row in rows])
        return
    if (console := terminal()) is not None:
        _draw(console, rows)
    else:
        print_plain(_COLUMNS, rows)
    if damaged:
        say(f"warning: what was spent is not known: {damaged} was damaged (`llmctl ledger check --repair`)")
    if not budgets.allowances:
        say("no budget is set: nothing is refused ([budget] daily = 5.0 in the configuration sets one)")
        say(f"a warning is given once a day at ${spend.DAILY_USD}, and at {spend.RUSH_CALLS} calls within a minute")


def _row(standing: Standing, budgets: Budgets) -> dict[str, Any]:
    limit, taken = standing.limit, standing.spent + standing.reserved
    zone = zone_info(budgets.zone)
    return {
        **_whose(standing.allowance),
        "period": standing.period,
        "limit_usd": usd(limit),
        "spent_usd": usd(standing.spent),
        "reserved_usd": usd(standing.reserved),
        "left_usd": usd(standing.left),
        "share": round(taken / limit, 4) if limit else None if limit is None else 1.0,
        "resets_at": datetime.fromtimestamp(standing.ends, zone).astimezone(zone).isoformat(timespec="minutes"),
        "on_exceed": None if limit is None else _on_exceed(standing.allowance),
    }


def _cap(allowance: Allowance) -> dict[str, Any]:
    nothing = dict.fromkeys(("spent_usd", "reserved_usd", "left_usd", "share", "resets_at"))
    cap = {"period": "call", "limit_usd": usd(allowance.per_call)}
    return {**_whose(allowance), **cap, **nothing, "on_exceed": _on_exceed(allowance)}


def _whose(allowance: Allowance) -> dict[str, Any]:
    return {
        "scope": allowance.scope,
        "tag": "=".join(allowance.tag) if allowance.tag else None,
        "model": allowance.model,
    }


def _on_exceed(allowance: Allowance) -> str:
    return "refuse" if allowance.refuses else "warn"


# ---------------------------------------------------------------- on a terminal

_SPARE = ("", "begins anew", "reserved")


def _draw(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table, without what is empty in every row."""
    plain = is_plain(console)
    columns = (
        Column("budget", lambda row: one_line(row["scope"]) + " (warns)" * (row["on_exceed"] == "warn"), key=True),
        Column("per", lambda row: row["period"]),
        Column("limit", lambda row: dollars(row["limit_usd"], missing="")),
        Column("spent", lambda row: dollars(row["spent_usd"], missing="")),
        Column("reserved", lambda row: dollars(row["reserved_usd"] or None, missing="")),
        Column("left", lambda row: dollars(row["left_usd"], missing="")),
        Column("", lambda row: _taken(row["share"], plain=plain), style="magenta"),
        Column("begins anew", lambda row: (row["resets_at"] or "")[5:16].replace("T", " ")),
    )
    draw(console, [each for each in columns if any(map(each.cell, rows))], rows, spare=_SPARE)


def _taken(share: float | None, *, plain: bool) -> str:
    return "" if share is None else f"{share:4.0%} {bar(share, _BAR, plain=plain)}".ljust(_BAR + 5)
