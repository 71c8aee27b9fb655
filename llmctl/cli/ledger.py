"""`llmctl ledger`: the calls that were made, found and copied. What is read here was written by strangers.

Every command here opens the ledger read-only: looking never creates or changes it. `ledger_upkeep` has those that do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import ledger_upkeep, output
from llmctl.cli.context import of
from llmctl.cli.ledger_choice import Model, Since, State, Tags, Until, chosen, history
from llmctl.cli.ledger_upkeep import plain
from llmctl.cli.options import Json, examples
from llmctl.cli.prompt import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="The durable record of every call."
)

Limit = Annotated[int, typer.Option("-n", "--limit", min=0, help="At most this many calls, newest first; 0 is all.")]
_COLUMNS = ("started", "id", "state", "model", "served_by", "in", "out", "cost_usd", "ms", "error")
_NUMBERS = ("in", "out", "cost_usd", "ms")
_WHOLE = ("id", "started", "state")
_SPARE = ("served_by", "started", "error", "cost_usd", "in", "out")


@app.command(
    epilog=examples(
        "llmctl ledger path", "sqlite3 $(llmctl ledger path) 'select model, count(*) from calls group by 1'"
    )
)
def path(ctx: typer.Context) -> None:
    """Print where the ledger file is."""
    output.write(f"{of(ctx).places.ledger}\n")


@app.command("list", epilog=examples("llmctl ledger list -n 5", "llmctl ledger list --since 24h --state failed --json"))
def list_(
    ctx: typer.Context,
    *,
    limit: Limit = 20,
    since: Since = "",
    until: Until = "",
    model: Model = "",
    state: State = "",
    tag: Tags = None,
    json: Json = False,
) -> None:
    """List calls, newest first."""
    _print(history(ctx, json=json).list_calls(limit, chosen(since, until, model, state, tag)), json=json)


@app.command(epilog=examples("llmctl ledger show last", "llmctl ledger show 01J9ZK --json"))
def show(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="An id, the beginning of one, or: last.")],  # noqa: A002
    json: Json = False,
) -> None:
    """Show one call: its attempts, and its texts when kept."""
    call = history(ctx, json=json).show(as_text(id, "ID"))
    if json:
        output.print_json(call)
    else:
        _print_call(call)


@app.command(
    epilog=examples("llmctl ledger search refund", 'llmctl ledger search "quarterly report" --since 30d --json')
)
def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words; the beginning of each suffices.")],
    *,
    limit: Limit = 20,
    since: Since = "",
    until: Until = "",
    model: Model = "",
    state: State = "",
    tag: Tags = None,
    json: Json = False,
) -> None:
    """Find calls by the words of their prompt or answer."""
    where = chosen(since, until, model, state, tag)
    _print(history(ctx, json=json).search(as_text(text, "TEXT"), limit, where), json=json)


app.command("export", epilog=ledger_upkeep.EXPORT)(ledger_upkeep.export)
app.command("prune", epilog=ledger_upkeep.PRUNE)(ledger_upkeep.prune)
app.command("check", epilog=ledger_upkeep.CHECK)(ledger_upkeep.check)


@app.command(epilog=examples("llmctl ledger backup calls.db", "llmctl ledger backup /mnt/backup/calls.db --force"))
def backup(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where the copy goes.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Make a whole copy of the ledger while others may write it."""
    output.say(f"{history(ctx).backup(file, force=force)} bytes in {file}")


def _print(calls: Sequence[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.print_json(calls)
    else:
        rows = (_row(call) for call in calls)
        output.table(_COLUMNS, rows, right=_NUMBERS, keep=_WHOLE, spare=_SPARE)


def _row(call: dict[str, Any]) -> dict[str, Any]:
    from llmctl.core.money import usd

    cost, took = usd(call["cost_nanousd"]), call["latency_ms"]
    return {
        "started": local(call["started_at"]),
        "in": call["input_tokens"],
        "out": call["output_tokens"],
        "cost_usd": None if cost is None else f"{cost:.6f}",
        "ms": None if took is None else round(took),
        "state": "interrupted" if call["interrupted"] else call["state"],
        **{name: call[name] for name in ("id", "model", "served_by", "error")},
    }


def _print_call(call: dict[str, Any]) -> None:
    for name, value in call.items():
        if name in ("attempts", "prompt", "answer") or value is None or value == {}:
            continue
        shown = f"{value} ({local(value)})" if name in ("started_at", "finished_at") else plain(value)
        output.write(f"{name}: {shown}\n")
    for attempt in call["attempts"]:
        facts = ", ".join(f"{key} {value}" for key, value in attempt.items() if value not in (None, "", call["id"]))
        output.write(f"attempt: {output.one_line(facts)}\n")
    for name in ("prompt", "answer"):
        if name in call:
            output.write(f"\n--- {name} ---\n{output.safe(call[name])}\n")


def local(instant: float) -> str:
    """An instant by this computer's clock."""
    from datetime import datetime

    try:
        return datetime.fromtimestamp(instant).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(instant)
