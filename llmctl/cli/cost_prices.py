"""`llmctl cost prices`: what models cost by the table in force, where a price comes from, and a newer table.

Prices are shown in USD per million tokens. Nothing is fetched: a newer table comes from the installed genai-prices, or
from a file.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples
from llmctl.cli.output import one_line, print_json, safe, say, table, write
from llmctl.core.money import CONFIGURED, FREE, PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.cli.context import Context
    from llmctl.config.prices import PriceTable, Table
    from llmctl.core.catalog import Catalog, Deployment
    from llmctl.core.money import Price
    from llmctl.core.prices import Dated, Model

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
_SPARE = ("reasoning", "cache_write", "cached_input")  # where room is short
_SHOWN = 20  # disagreements told to a person
_OLD_DAYS = 180
_LAST = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()
Provider = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only what this provider sells.")]


@app.callback()
def prices() -> None:
    """Show, check and update the prices."""


@app.command(
    "list",
    epilog=examples(
        "llmctl cost prices list gpt-4o",
        "llmctl cost prices list --provider groq",
        "llmctl cost prices list sonnet --json",
    ),
)
def list_(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Part of a model's name, or provider/model.")
    ] = None,
    provider: Provider = None,
    as_json: Json = False,
) -> None:
    """List what models cost now, in USD per million tokens (in `tiers`: above so many input tokens)."""
    context = of(ctx, json=as_json)
    names = _names(context.catalog)
    wanted = (model or "").lower()
    only = _table_name(context.catalog, provider) if provider is not None else None
    rows = []
    for found in _table(context).models():
        name = names.get(found.provider, found.provider)
        if only in (None, found.provider) and wanted in f"{name}/{found.id}".lower():
            rows.append(_listed(name, found, time.time()))
    if as_json:
        print_json(rows)
    elif rows:
        cells = [{**row, **_cells(row), "model": f"{row['provider']}/{row['model']}"} for row in rows]
        columns = ["model", *PARTS, "tiers", "context_window", "valid_from", "version"]
        spare = ["version", "reasoning", "cache_write", "context_window", "valid_from", "tiers"]
        table(columns, cells, right=(*PARTS, "context_window"), keep=("model",), spare=spare)
    else:
        say("no such model in the price table: what it costs is unknown, unless the configuration has a `price`")


@app.command(
    epilog=examples(
        "llmctl cost prices show gpt-4o",
        "llmctl cost prices show fast --json",
        "llmctl cost prices show gpt-4o --at 2024-09-01",
    )
)
def show(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model group, or provider/model.")],
    at: Annotated[str | None, typer.Option(metavar="DATE", help="The prices of that day (UTC) or instant.")] = None,
    as_json: Json = False,
) -> None:
    """Show how a name comes to its price: the row of the table that it means, and all prices it ever had there."""
    from llmctl.core.when import parse_instant

    context = of(ctx, json=as_json)
    instant = time.time() if at is None else min(max(parse_instant(at, time.time(), UTC), 0.0), _LAST)
    prices_ = _table(context)
    found = [_resolved(prices_, each, instant) for each in context.catalog.resolve(model).deployments]
    if as_json:
        moment = datetime.fromtimestamp(instant, UTC).isoformat(timespec="seconds")
        print_json({"name": model, "at": moment, "table": prices_.table.version, "deployments": found})
        return
    for each in found:
        write(safe(f"{each['deployment']}: {each['why']}\n"))
        rows = [
            {**_cells(row), "valid_from": row["valid_from"], "in_force": "yes" if row["in_force"] else None}
            for row in each["prices"]
        ]
        if rows:
            whole = ("valid_from", "tiers", "in_force")
            table(["valid_from", *PARTS, "tiers", "in_force"], rows, right=PARTS, keep=whole, spare=_SPARE)


@app.command(
    epilog=examples(
        "llmctl cost prices update",
        "llmctl cost prices update --from prices.jsonl",
        "llmctl cost prices update --to llmctl/data/prices.jsonl",
    )
)
def update(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A table of llmctl's, or genai-prices' own JSON.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write the table there instead.")] = None,
    as_json: Json = False,
) -> None:
    """Put a newer price table in place, from the installed genai-prices or from a file; nothing is fetched."""
    from llmctl.config import prices_import
    from llmctl.config.prices import Table, save

    context = of(ctx, json=as_json)
    text = _new_table(file)
    new, path = Table(text.encode("utf-8"), file or Path(context.places.prices)), to or context.places.prices
    if to is None:
        prices_import.refuse_older(new, _table(context).table)
    save(path, text)
    facts = {"path": str(path), "source": new.source, "version": new.release, "date": new.date}
    count = sum(len(line.rows) for line in new.lines())
    if as_json:
        print_json({**facts, "models": count})
    else:
        write(safe(f"{path}: {count} models, {new.version}\n"))


@app.command(epilog=examples("llmctl cost prices check", "llmctl cost prices check --json"))
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Check which configured deployments have a known price, how old the table is, and what genai-prices says now."""
    context = of(ctx, json=as_json)
    prices_, now = _table(context), time.time()
    rows = [
        {"group": group.name, **_resolved(prices_, each, now)}
        for group in context.catalog.groups.values()
        if group.deployments
        for each in context.catalog.resolve(group.name).deployments
    ]
    used = prices_.table
    age = (datetime.now(UTC).date() - date.fromisoformat(used.date)).days
    facts = {"source": used.source, "version": used.release, "date": used.date, "age_days": age}
    unpriced = sorted({row["served_by"] for row in rows if row["price"] is None})
    installed = _installed(used)
    if as_json:
        document = {"table": {"path": str(used.path), **facts}, "deployments": rows, "unpriced": unpriced}
        print_json({**document, "installed": installed})
        return
    cells = [{**row, "price": row["version"] or "unknown", "deprecated": "yes" * row["deprecated"]} for row in rows]
    columns = ["group", "deployment", "served_by", "price", "deprecated"]
    table(columns, cells, keep=("price", "deprecated"), spare=("deployment",))
    old = f"; `{_UPDATE}` may know newer ones" if age > _OLD_DAYS else ""
    write(safe(f"table: {used.version}, {age} days old{old}\n"))
    write(safe(f"unpriced: {', '.join(unpriced) or 'none'}\n"))
    if installed is not None:
        changed = installed["disagreements"]
        write(safe(f"genai-prices {installed['version']} is installed: {len(changed)} rows differ\n"))
        for row in changed[:_SHOWN]:
            what = f"{row['what']}: {row['provider']}/{row['model']}: {row['ours']} -> {row['theirs']}"
            write(f"  {one_line(what)}\n")


_UPDATE = "llmctl cost prices update"


def _table(context: Context) -> PriceTable:
    """The table in force; what ails the user's own is said, unless one document was asked for."""
    from llmctl.config.prices import price_table

    found = price_table(context.places)
    found.models()  # a line that nobody looks up may be damaged too
    for warning in () if context.json_errors else found.warnings:
        say(f"warning: {warning}")
    return found


def _names(catalog: Catalog) -> dict[str, str]:
    """A provider's name in the table -> the name that it is asked by."""
    names: dict[str, str] = {}
    for each in catalog.providers.values():
        names.setdefault(each.prices, each.name)
    return names


def _table_name(catalog: Catalog, name: str) -> str:
    """The name in the table of the provider that is called `name` there or here."""
    for each in catalog.providers.values():
        if name == each.name or name in each.aliases:
            return each.prices
    return name


def _listed(provider: str, found: Model, at: float) -> dict[str, Any]:
    dated = found.in_force(at)
    return {
        "provider": provider,
        "model": found.id,
        **_priced(dated.price if dated else None),
        "context_window": found.context_window,
        "deprecated": found.deprecated,
        "valid_from": (dated.when if dated else "") or None,
        "source": found.source or None,
        "version": found.version,
    }


def _priced(price: Price | None) -> dict[str, Any]:
    return price.as_json() if price else {**dict.fromkeys((*PARTS, "request")), "tiers": []}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """The amounts of a row as a person reads them."""
    amounts = {key: None if row[key] is None else format(row[key], ".10g") for key in PARTS}
    tiers = ", ".join(f">{each['above_tokens']}: {each['input']:.10g}/{each['output']:.10g}" for each in row["tiers"])
    return {**amounts, "tiers": tiers or None}


def _resolved(prices_: PriceTable, deployment: Deployment, at: float) -> dict[str, Any]:
    """How a deployment comes to its price at `at`."""
    from llmctl.config.prices import sought

    key, found = sought(deployment), prices_.find(deployment)
    by_hand = deployment.price if deployment.price and deployment.price.version in (CONFIGURED, FREE) else None
    dated = found.in_force(at) if found else None
    price = by_hand or (dated.price if dated else None)
    return {
        "deployment": deployment.id,
        "served_by": deployment.served_by,
        "why": _why(deployment, found, by_hand, price),
        "version": price.version if price else None,
        "price": price.as_json() if price else None,
        "looked_up": key and key._asdict(),
        "row": found and f"{found.provider}/{found.id}",
        "context_window": found.context_window if found else None,
        "deprecated": found.deprecated if found else False,
        "source": (found.source or None) if found else None,
        "prices": list(_dated(found, None if by_hand else dated)) if found else [],
    }


def _dated(found: Model, current: Dated | None) -> Iterator[dict[str, Any]]:
    for each in found.prices:
        yield {"valid_from": each.when or None, "in_force": each is current, **_priced(each.price)}


def _why(deployment: Deployment, found: Model | None, by_hand: Price | None, price: Price | None) -> str:
    """The sentence that says where the price comes from, or why it is unknown."""
    if by_hand:
        return "nobody bills it" if by_hand.version == FREE else "the configuration's own price wins"
    name = deployment.base_model or deployment.model
    if found is not None:
        gone = ", deprecated" if found.deprecated else ""
        known = found.version if price else "price unknown"
        return f"{name!r} is {found.provider}/{found.id} of the table ({known}{gone})"
    if not deployment.provider.prices:
        return "price unknown: no table knows what this server costs; `price` may say it"
    if deployment.provider.protocol == "azure" and not deployment.base_model:
        return f"price unknown: {name!r} is a deployment's name; `base_model` says what it is"
    return f"price unknown: the table has no {name!r} of {deployment.provider.prices}; `price` may say it"


def _new_table(file: Path | None) -> str:
    from llmctl.config import prices_import
    from llmctl.run import extras

    today = datetime.now(UTC).date().isoformat()
    if file is None:
        if not extras.installed("prices"):
            raise extras.missing("prices", "`cost prices update` without --from FILE")
        return prices_import.installed_table(today)
    return prices_import.table_in(file, today)


def _installed(current: Table) -> dict[str, Any] | None:
    """What the installed genai-prices says otherwise; None where it is not installed."""
    from llmctl.config import prices_import
    from llmctl.config.prices import Table
    from llmctl.run import extras

    if not extras.installed("prices"):
        return None
    other = Table(prices_import.installed_table(current.date).encode("utf-8"), current.path)
    keys = ("what", "provider", "model", "ours", "theirs")
    found = [dict(zip(keys, each, strict=True)) for each in prices_import.differences(current, other)]
    return {"version": other.release, "disagreements": found}
