"""`llmctl models compare`: models side by side, by what the ledger saw of them and what the price table says of them.

The seen is `store/comparison`; price and window are of the configuration, else of the table. Nothing is sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.money_table import Column, dollars, draw, print_csv, print_plain, seconds, short, terminal
from llmctl.cli.options import Csv, Json, examples, not_both
from llmctl.cli.output import one_line, print_json, write
from llmctl.core.errors import UsageError
from llmctl.core.money import ATTO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from llmctl.cli.context import Context
    from llmctl.core.catalog import Deployment
    from llmctl.store.comparison import Record

EXAMPLES = examples("llmctl models compare", "llmctl models compare fast smart --since 30d --sort cost --json")
SINCE = "30d"


class Sort(StrEnum):
    """What the rows are sorted by; see `_SORTS`."""

    calls = "calls"
    errors = "errors"
    first = "first"
    speed = "speed"
    latency = "latency"
    cost = "cost"
    price = "price"
    window = "window"
    used = "used"
    name = "name"


_SORTS: dict[Sort, tuple[str, bool]] = {
    Sort.calls: ("calls", True),
    Sort.errors: ("error_rate", False),
    Sort.first: ("first_token_p50_ms", False),
    Sort.speed: ("tokens_per_second_p50", True),
    Sort.latency: ("latency_p50_ms", False),
    Sort.cost: ("cost_per_million_output_usd", False),
    Sort.price: ("price_output_usd", False),
    Sort.window: ("context_window", True),
    Sort.used: ("last_used", True),
    Sort.name: ("model", False),
}
"""The key, and whether its greatest comes first: the best, as far as there is one. What has none comes last."""
_PRICES = ("price_input_usd", "price_output_usd", "context_window")


def compare(
    ctx: typer.Context,
    *,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Groups or provider/model; default: all that were asked."),
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help=f"What was seen from then on: {SINCE} (default), or a date.")
    ] = SINCE,
    sort: Annotated[Sort, typer.Option(metavar="BY", help="Or: " + ", ".join(Sort) + ".")] = Sort.calls,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare models: speed, errors, what was really paid, prices and context windows."""
    from time import time

    from llmctl.core.when import parse_instant
    from llmctl.store.comparison import Record, records

    context = of(ctx, json=as_json)
    not_both(as_json, as_csv)
    seen = records(context.places.ledger, parse_instant(since, time(), None))
    facts = _Facts(context)
    names = dict.fromkeys(each for name in models or [] for each in facts.served_by(name, seen)) if models else seen
    rows = [(seen.get(name) or Record(name)).as_json() | facts.of(name) for name in names]
    rows.sort(key=lambda row: _place(row, sort))
    keys = (*Record("").as_json(), *_PRICES)
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(keys, map(_flat, rows))
    else:
        _show(rows, keys)


def _place(row: Mapping[str, Any], sort: Sort) -> tuple[bool, Any, str]:
    key, greatest = _SORTS[sort]
    value = row[key]
    return value is None, -value if value is not None and greatest else value or 0, row["model"]


class _Facts:
    """What the configuration and the price table say of `provider/model`."""

    def __init__(self, context: Context) -> None:
        from llmctl.config.prices import price_table

        self._catalog = context.catalog
        self._table = price_table(context.places)
        self._configured: dict[str, Deployment] = {}
        for name, group in self._catalog.groups.items():
            for each in self._catalog.resolve(name).deployments if group.deployments else ():
                self._configured.setdefault(each.served_by, each)

    def served_by(self, name: str, seen: Mapping[str, Record]) -> list[str]:
        """Who answers to `name`: a group's deployments, or what the ledger has seen. Raises UsageError."""
        if name in seen:
            return [name]
        return [each.served_by for each in self._catalog.resolve(name).deployments]

    def of(self, served_by: str) -> dict[str, Any]:
        """Price (USD per million tokens) and context window; null where nobody knows."""
        try:
            deployment = self._configured.get(served_by) or self._catalog.resolve(served_by).deployments[0]
        except UsageError:  # of a provider that the configuration no longer has
            return dict.fromkeys(_PRICES)
        price, model = deployment.price, self._table.find(deployment)
        return {
            "price_input_usd": price and price.input / ATTO,
            "price_output_usd": price and price.output / ATTO,
            "context_window": deployment.context_window or (model and model.context_window),
        }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as words of one line: an instant is ISO 8601, to the second."""
    errors = ", ".join(f"{kind} {n}" for kind, n in row["errors"].items())
    used = None if row["last_used"] is None else _moment(row["last_used"]).isoformat(timespec="seconds")
    return {**row, "errors": errors, "last_used": used}


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}" if 0 < rate < 0.0995 else f"{rate:.0%}"


def _day(instant: float | None) -> str:
    return "-" if instant is None else f"{_moment(instant):%Y-%m-%d}"


def _moment(instant: float) -> datetime:
    from datetime import datetime

    return datetime.fromtimestamp(instant).astimezone()


_MODEL = Column("model", lambda row: one_line(row["model"]), key=True)
_SEEN = (
    Column("calls", lambda row: short(row["calls"])),
    Column("errors", lambda row: _share(row["error_rate"])),
    Column("first", lambda row: seconds(row["first_token_p50_ms"])),
    Column("p95", lambda row: seconds(row["first_token_p95_ms"])),
    Column("tok/s", lambda row: short(row["tokens_per_second_p50"])),
    Column("whole", lambda row: seconds(row["latency_p50_ms"])),
    Column("a call", lambda row: dollars(row["cost_per_call_usd"])),
    Column("1M out", lambda row: dollars(row["cost_per_million_output_usd"])),
)
_TOLD = (
    Column("price in", lambda row: dollars(row["price_input_usd"])),
    Column("price out", lambda row: dollars(row["price_output_usd"])),
    Column("window", lambda row: short(row["context_window"])),
    Column("last used", lambda row: _day(row["last_used"])),
)
_ONE_TABLE = 132
"""A terminal of so many columns has room for both tables beside each other."""


def _show(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """A table on a terminal, two where it is narrow; elsewhere lines of values as they are in the document."""
    console = terminal()
    if console is None:
        print_plain(keys, map(_flat, rows))
    elif not rows:
        write("no model was asked in this range\n")
    elif console.width >= _ONE_TABLE:
        draw(console, (_MODEL, *_SEEN, *_TOLD), rows, spare=())
    else:
        draw(console, (_MODEL, *_SEEN), rows, spare=("p95", "whole", "calls", "a call", "errors", "tok/s", "first"))
        write("\n")
        draw(console, (_MODEL, *_TOLD), rows, spare=("last used", "window", "price in"))
