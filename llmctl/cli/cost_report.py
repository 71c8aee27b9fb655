"""`llmctl cost report`: what calls cost and where it went, as a table, one document, or comma-separated values.

All numbers are of `store/report`; here is the question that is put to it, and the look of the answer.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.ledger_choice import Since, Until  # noqa: TC001 - typer reads the annotations
from llmctl.cli.money_table import (
    BARS,
    Column,
    Fact,
    count,
    decimals,
    draw,
    draw_facts,
    draw_line,
    money,
    print_csv,
    print_plain,
    seconds,
    short,
    terminal,
)  # fmt: skip
from llmctl.cli.options import Csv, Json, examples, not_both, tags_of
from llmctl.cli.output import one_line, print_json, say, write
from llmctl.cli.prompt import as_text
from llmctl.core.errors import UsageError
from llmctl.core.money import nano, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmctl.store.report import Question, Reports

EXAMPLES = examples(
    "llmctl cost report --by day --since 30d",
    "llmctl cost report --by tag:team --by model --since 2026-11-01 --csv",
    "llmctl cost report --since 24h --fail-over 5",
)
EXIT_OVER = 100
_LONGEST_DAYS = 3660
"""What a sparkline looks back on: one call of a clock that was wrong does not make it ages long."""
_BY = "day, week, month, model, provider, group, session, deployment, tag:KEY (repeat); default: model."


def report(
    ctx: typer.Context,
    *,
    by: Annotated[list[str] | None, typer.Option(metavar="KEY", help=_BY)] = None,
    since: Since = "",
    until: Until = "",
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Whose days and dates: local, UTC, or such as Europe/Berlin.")
    ] = "local",
    model: Annotated[str, typer.Option(help="Calls of this model, as typed or as served (provider/model).")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Calls with this tag; repeat for more.")
    ] = None,
    session: Annotated[str, typer.Option(metavar="NAME", help="Calls of this session.")] = "",
    drills: Annotated[bool, typer.Option("--drills", help="Count the calls of drills too.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Percentiles from every row, not within 5 %.")] = False,
    fail_over: Annotated[
        float | None, typer.Option(metavar="USD", help=f"Exit {EXIT_OVER} when the total is above.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Report what calls cost, and where it went."""
    from time import time

    context = of(ctx, json=as_json)
    not_both(as_json, as_csv)
    if fail_over is not None and not 0 <= fail_over < 1e9:
        raise UsageError(f"--fail-over {fail_over:g} is no amount", hint="USD, such as --fail-over 5")
    from llmctl.store.report import Question, Reports

    now = time()
    since_at, until_at = _range(since, until, timezone, now)
    question = Question(
        by=tuple(dict.fromkeys(as_text(word, "--by") for word in by or ["model"])),
        since=since_at, until=until_at, zone=timezone,
        model=as_text(model, "--model") or None, session=as_text(session, "--session") or None,
        tags=tuple(tags_of(tag or [])), drills=drills, exact=exact,
    )  # fmt: skip
    past = _Past(Reports(context.places.ledger), question, now)
    if as_json:
        print_json(past.document)
    elif as_csv:
        names = [name for name in past.document["total"] if name != "key"]
        print_csv([*question.by, *names], [row | row["key"] for row in past.document["rows"]])
    else:
        _show(past)
    _judge(past, fail_over, quiet=as_json)


def _range(since: str, until: str, zone: str, now: float) -> tuple[float | None, float | None]:
    """The instants that `--since` and `--until` mean, dates in `zone`. Raises UsageError."""
    from llmctl.core.days import zone_info
    from llmctl.core.when import parse_instant

    tz = zone_info(zone)
    start, end = (parse_instant(word, now, tz) if word else None for word in (since, until))
    if start is not None and end is not None and start >= end:
        raise UsageError(
            f"--since {one_line(since)} is not before --until {one_line(until)}", hint="swap them, or leave one out"
        )
    return start, end


class _Past:
    """The report that was asked for, and the two more that its look in a terminal needs."""

    def __init__(self, reports: Reports, question: Question, now: float) -> None:
        self._reports, self.question, self._now = reports, question, now
        self.document = reports.report(question, now)
        self.total: dict[str, Any] = self.document["total"]
        self.rows: list[dict[str, Any]] = self.document["rows"]

    def _rows_by(self, key: str) -> list[dict[str, Any]]:
        if key in self.question.by:
            return self.rows
        return list(self._reports.report(replace(self.question, by=(key,), exact=False), self._now)["rows"])

    def days(self) -> list[tuple[date, int]]:
        """What each day cost, from the first with a call to the last, in nano-dollars."""
        costs: dict[int, int] = {}
        for row in self._rows_by("day"):
            day = date.fromisoformat(row["key"]["day"]).toordinal()
            costs[day] = costs.get(day, 0) + (row["cost_nanousd"] or 0)
        last = max(costs, default=0)
        span = range(max(min(costs, default=1), last - _LONGEST_DAYS), last + 1)
        return [(date.fromordinal(day), costs.get(day, 0)) for day in span]

    def unpriced(self) -> list[str]:
        """The models that answered calls of unknown cost, fit to be shown."""
        if not self.total["unpriced_calls"]:
            return []
        rows = self._rows_by("model")
        return list(dict.fromkeys(_text(row["key"]["model"]) for row in rows if row["unpriced_calls"]))


def _judge(past: _Past, limit: float | None, *, quiet: bool) -> None:
    """Say it and leave with 100 when the total is over `limit`; what nobody priced may hide more."""
    if limit is None:
        return
    cost, unpriced = past.total["cost_nanousd"] or 0, past.total["unpriced_calls"]
    whom = f"{unpriced} call{'s' * (unpriced > 1)} of unknown price {'are' if unpriced > 1 else 'is'} not in it"
    hidden = f"{whom} ({', '.join(past.unpriced())})" if unpriced else ""
    allowed = nano(limit)
    if cost > allowed:
        what = f"{money(cost)} is over --fail-over {money(allowed)} by {money(cost - allowed)}"
        if not quiet:
            say(f"{what}; {hidden}" if hidden else what)
        raise typer.Exit(EXIT_OVER)
    if hidden and not quiet:
        say(f"warning: {money(cost)} is not over --fail-over {money(allowed)}, but {hidden}")


# ---------------------------------------------------------------- what is shown


def _key(name: str) -> Column:
    return Column(name, lambda row: _text(row["key"][name]), key=True)


def _text(value: Any) -> str:
    return "-" if value is None else one_line(str(value), 200)


def _cost(rows: Iterable[Mapping[str, Any]]) -> Column:
    """What each cost: at least so much where the cost of some calls is not known, "?" where that of all is not."""
    places = decimals(row["cost_nanousd"] for row in rows)

    def cell(row: Mapping[str, Any]) -> str:
        told = money(row["cost_nanousd"], missing="?", decimals=places)
        if told == "?" or not row["unpriced_calls"]:
            return told
        return "≥" + (money(0, decimals=places) if told.startswith("<") else told)

    return Column("cost", cell)


_TOKENS = (
    Column("calls", lambda row: count(row["calls"])),
    Column("in", lambda row: short(row["input_tokens"])),
    Column("out", lambda row: short(row["output_tokens"])),
)
_TIMES = (
    Column("p50", lambda row: seconds(row["p50_ms"])),
    Column("p95", lambda row: seconds(row["p95_ms"])),
    Column("first", lambda row: seconds(row["first_token_p50_ms"])),
)
_SPARE = ("first", "p95", "out", "in", "p50", BARS, "calls")
_PLAIN = (
    "calls", "ok", "failed", "fallbacks", "cache_hits", "input_tokens", "output_tokens", "cost_usd", "unpriced_calls",
    "p50_ms", "p95_ms", "first_token_p50_ms",
)  # fmt: skip
_FACTS = (
    ("failed", "failed", None, "without an answer; their cost is in the total"),
    ("incomplete", "incomplete", None, "broke off; what came was paid"),
    ("cancelled", "cancelled", None, "what came until then was paid"),
    ("refused", "refused", None, "nothing was sent"),
    ("fallback", "fallbacks", "fallback_cost_usd", ""),
    ("saved by cache", "cache_hits", "saved_by_cache_usd", "nobody was asked"),
    ("saved by routing", None, "saved_by_routing_usd", "against the first in line"),
    ("wasted", None, "wasted_usd", "by attempts that failed or were cancelled"),
    ("estimated", "estimated_calls", None, "their tokens, since the provider told none"),
    ("running", "running", None, "in the total when they end"),
    ("interrupted", "interrupted", None, "killed: what they cost is not known"),
    ("unpriced", "unpriced_calls", None, ""),
)
"""Below the table: the word, its count and its amount in the document, and what it means."""


def _facts(past: _Past) -> list[Fact]:
    """What the total is made of, saved and lacks: only what there is."""
    total, facts = past.total, []
    for what, calls, cost, note in _FACTS:
        count = total[calls] if calls else None
        nanousd = (cost and nano(total[cost])) or None  # 0 may be what nobody priced
        if count or nanousd:
            facts.append(Fact(what, count, nanousd, note or _note(what, past)))
    return facts


def _note(what: str, past: _Past) -> str:
    total = past.total
    if what == "fallback":
        rest = (total["cost_nanousd"] or 0) - nano(total["fallback_cost_usd"])
        others = total["calls"] - total["fallbacks"]
        return f"against {money(rest)} of the other {count(others)}" if others else "every call"
    return f"{', '.join(past.unpriced())}: set `price`, or `cost prices update`"


_LINE = ("what", "calls", "cost_usd", "note")


def _show(past: _Past) -> None:
    """Everything on stdout: drawn on a terminal, lines with tabs elsewhere."""
    console, facts = terminal(), _facts(past)
    if console is None:
        print_plain((*past.question.by, *_PLAIN), [row | row["key"] for row in past.rows])
        write("\n")
        lines = [Fact("total", past.total["calls"], past.total["cost_nanousd"]), *facts]
        print_plain(_LINE, [{**each._asdict(), "cost_usd": usd(each.nanousd)} for each in lines])
    elif not past.total["calls"]:
        write("no such calls in the ledger\n")
    else:
        days = past.days()
        most, best = max((cost, day) for day, cost in days)
        draw_line(console, [cost for _, cost in days], f"from {days[0][0]}; most on {best}: {money(most)}")
        write("\n")
        columns = (*map(_key, past.question.by), *_TOKENS, _cost([*past.rows, past.total]), *_TIMES)
        shares = [row["cost_nanousd"] or 0 for row in past.rows]
        draw(console, columns, past.rows, spare=_SPARE, total=past.total, shares=shares)
        if facts:
            write("\n")
            draw_facts(console, facts)
