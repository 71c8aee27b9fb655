"""`llmctl cache`: what is kept, why a call got it, and how it goes. What is read here was written by strangers.

Looking never creates or changes the cache; `cache_upkeep` has the commands that do.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llmctl.cli import cache_upkeep, output
from llmctl.cli.context import of
from llmctl.cli.ledger import local
from llmctl.cli.ledger_choice import Since, history
from llmctl.cli.options import Json, examples
from llmctl.cli.prompt import as_text
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LATER = ("good", "eval")
"""Commands of the design that come with the semantic tier."""
EXIT_DISAGREES = 1
_COLUMNS = ("id", "age", "expires", "model", "found", "hits", "size", "saved", "prompt")
_NUMBERS = ("age", "expires", "hits", "size", "saved")
_SPARE = ("saved", "size", "found", "model")
_WINDOW = "30d"
_BAR, _LEAST_FACTS = 10, 60


class Commands(TyperGroup):
    """The group. It knows of commands that are not in this version yet."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run. Raises UsageError."""
        if args and args[0] in LATER:
            raise UsageError(
                f"`llmctl cache {args[0]}` is not in this version: it comes with the semantic tier",
                hint="`llmctl cache bad ID` corrects an answer; `llmctl cache why ID` says why a call got it",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Answers that are kept: look at them, ask why they were given, remove them.",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="An id of `cache list`, or of a call; its beginning; or: last.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=0, help="At most so many, last used first; 0 is all.")]
Model = Annotated[str, typer.Option(help="The model as typed, or as served (provider/model).")]

app.command("purge", epilog=cache_upkeep.PURGE)(cache_upkeep.purge)


@app.command(epilog=examples("llmctl cache stats", "llmctl cache stats --since 7d --json"))
def stats(ctx: typer.Context, *, since: Since = _WINDOW, json: Json = False) -> None:
    """Show how much is kept, how often it answered, and what that saved.

    Hits, misses and savings are those of calls in the ledger since then; the rest is of the cache as it is now.
    """
    from llmctl.core.errors import LedgerUnusable
    from llmctl.core.when import parse_instant
    from llmctl.store import cache_reading

    context, now = of(ctx, json=json), time()
    limits = context.catalog.settings.caching
    told = cache_reading.stats(context.places.cache, now)
    told |= {"max_entries": limits.max_entries, "max_bytes": limits.max_bytes, "ttl_s": limits.ttl_s}
    try:
        told["calls"] = cache_reading.asked(context.places.ledger, parse_instant(since, now, None))
    except LedgerUnusable as error:
        told["calls"] = None
        output.say(f"warning: hits and savings are not known: {error.message}")
    if json:
        output.print_json(told)
    else:
        _draw_stats(list(_facts(told, since, now)))


@app.command("list", epilog=examples("llmctl cache list -n 5", "llmctl cache list --model fast --json"))
def list_(ctx: typer.Context, *, limit: Limit = 20, model: Model = "", json: Json = False) -> None:
    """List kept answers, last used first."""
    from llmctl.store.cache_reading import list_entries

    now = time()
    rows = list_entries(of(ctx, json=json).places.cache, now, limit, as_text(model, "--model") or None)
    if json:
        output.print_json(rows)
    else:
        output.table(_COLUMNS, map(_row, rows), right=_NUMBERS, keep=("id",), spare=_SPARE)
        if not rows:
            output.say("no answer is kept")


@app.command(epilog=examples("llmctl cache show last", "llmctl cache show 01J9ZK --json"))
def show(ctx: typer.Context, id: Id, json: Json = False) -> None:  # noqa: A002
    """Show a kept answer wholly: what was asked, its keys, its documents, and whom it answered."""
    from llmctl.store.cache_reading import show_entry

    entry = show_entry(of(ctx, json=json).places.cache, as_text(id, "ID"), time())
    if json:
        output.print_json(entry)
        return
    answer = entry.pop("answer") or {}
    texts = {"prompt": entry.pop("prompt"), "answer": answer.get("text")}
    hits = entry.pop("answered")
    _print_lines(entry)
    for hit in hits:
        output.write(f"answered: {output.one_line(_words(hit | {'at': local(hit['at'])}))}\n")
    for call in answer.get("tool_calls") or ():
        output.write(f"tool call: {output.one_line(_words(call))}\n")
    for name, text in texts.items():
        output.write(f"\n--- {name} ---\n{output.safe(str(text))}\n" if text else "")


@app.command(epilog=examples("llmctl cache why last", "llmctl cache why 01J9ZK --json"))
def why(ctx: typer.Context, id: Id, json: Json = False) -> None:  # noqa: A002
    """Say why a call was answered from the cache, or why not.

    A hit is decided once more, from the texts and keys that were kept: exit 1 when the rules that made it decide
    otherwise now. Of a call that missed it says what the ledger knows.
    """
    from llmctl.store.cache_audit import why as decide

    calls = history(ctx, json=json)
    told = decide(of(ctx, json=json).places.cache, as_text(id, "ID"), calls.show, time())
    if json:
        output.print_json(told)
    else:
        _print_decision(told)
    if told["agrees"] is False:
        raise typer.Exit(EXIT_DISAGREES)


app.command("bad", epilog=cache_upkeep.BAD)(cache_upkeep.bad)


# ---------------------------------------------------------------- what is shown


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    from llmctl.cli.money_table import dollars, short

    left = (entry["expires_at"] or 0.0) - (entry["created_at"] or 0.0) - (entry["age_s"] or 0.0)
    return {
        "id": entry["id"],
        "age": output.ago(entry["age_s"] or 0.0),
        "expires": "expired" if entry["expired"] else output.ago(left),
        "model": entry["model"],
        "found": entry["tiers"][-1],
        "hits": entry["hits"],
        "size": short(entry["bytes"]),
        "saved": dollars(entry["saved_usd"]),
        "prompt": entry["preview"],
    }


def _print_lines(values: Mapping[str, Any]) -> None:
    """Values as lines of name and value; what is not there is left out."""
    for name, value in values.items():
        if value not in (None, "", [], {}):
            told = f"{value:.0f} ({local(value)})" if name.endswith("_at") else _words(value)
            output.write(f"{name}: {output.one_line(told, 2000)}\n")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items() if each not in (None, "", []))
    return ", ".join(map(_words, value)) if isinstance(value, (list, tuple)) else str(value)


_HEADS = {
    "hit": "was answered from the cache ({tier}, {age} old)",
    "miss": "was not answered from the cache",
    "off": "did without the cache",
}
_MARKS = {True: "yes", False: "NO", None: "?"}
_AGREES = {
    True: "today's rules decide the same",
    False: "today's rules decide otherwise",
    None: "whether today's rules decide the same cannot be known",
}


def _print_decision(told: Mapping[str, Any]) -> None:
    age = output.ago(told.get("age_s") or 0.0)
    output.write(f"{told['id']} {_HEADS[told['decision']].format(tier=told['tier'], age=age)}\n")
    entry = told["entry"] or {}
    for name, text in (("asked", told.get("asked")), ("kept", entry.get("prompt")), ("means", entry.get("canonical"))):
        output.write(f"{name}: {output.one_line(text)}\n" if text else "")
    if entry.get("served_by"):
        output.write(f"entry: {output.one_line(entry['id'])}, by {output.one_line(entry['served_by'])}\n")
    for reason in told.get("reasons", ()):
        output.write(f"- {output.one_line(reason)}\n")
    for other in told.get("others", ()):
        who = output.one_line(f"{other['id']}, by {other['served_by']}")
        output.write(f"- the same text is kept in another scope: {who}\n")
    for check in told.get("checks", ()):
        output.write(f"{_MARKS[check['ok']]:>3} {check['name']}: {output.one_line(check['detail'], 600)}\n")
    if told["decision"] == "hit" and "checks" in told:
        rules = told["rules"]
        output.write(f"{_AGREES[told['agrees']]}\n")
        if rules["then"] != rules["now"]:
            output.write(f"it was decided by rules {rules['then']}, and today's are {rules['now']}\n")
    if today := told.get("today"):
        output.write(f"today: {'it would be found' if today['answers'] else today['reason']}\n")


def _facts(told: Mapping[str, Any], since: str, now: float) -> Iterator[tuple[str, str, float | None, str]]:
    """The lines of `cache stats`: what, how much, the share of what there may be, and what it means."""
    from llmctl.cli.money_table import count, dollars

    limit, room = told["max_entries"], told["max_bytes"]
    used = told["bytes"] + told["vector_bytes"]
    yield "answers", count(told["entries"]), told["entries"] / limit if limit else None, f"of {count(limit)} at most"
    yield "size", _bytes(used), used / room if room else None, f"of {_bytes(room)} at most, vectors included"
    yield "other wordings", count(told["canonical"]), None, "answers that the canonical tier finds too"
    yield "expired", count(told["expired"]), None, "answer nobody; `llmctl cache purge` removes them"
    yield "vectors", count(told["vectors"]), None, f"of texts that were embedded: {_bytes(told['vector_bytes'])}"
    if told["oldest_at"] is not None:
        newest, oldest = (output.ago(now - told[name]) for name in ("newest_at", "oldest_at"))
        yield "newest", newest, None, f"old; the oldest {oldest}; they live for {output.ago(told['ttl_s'])}"
    calls = told["calls"]
    if calls is not None:
        rate = "-" if calls["hit_rate"] is None else f"{calls['hit_rate']:.1%}"
        tiers = ", ".join(f"{number:,} {tier}" for tier, number in calls["hits"].items() if number)
        yield "hits", count(sum(calls["hits"].values())), None, f"since {since}{tiers and ': '}{tiers}"
        yield "hit rate", rate, calls["hit_rate"], f"of {count(calls['asked'])} calls that asked the cache"
        yield "saved", dollars(calls["saved_usd"]), None, "what the hits would have cost"
    yield "forbidden", count(told["forbidden"]), None, "pairs, by `llmctl cache bad`"
    if told["in_flight"]:
        yield "under way", count(told["in_flight"]), None, "calls that equal ones wait for"
    journal = f" and {_bytes(told['journal_bytes'])} of journal" if told["journal_bytes"] else ""
    yield "file", _bytes(told["file_bytes"]) if told["exists"] else "none", None, f"{told['path']}{journal}"
    yield "health", "ok" if told["health"] == "ok" else "-", None, "" if told["health"] == "ok" else told["health"]


def _bytes(number: int) -> str:
    """A size with its unit: 0 B, 34 kB, 512 MB."""
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GB"


def _draw_stats(facts: Sequence[tuple[str, str, float | None, str]]) -> None:
    """Facts and numbers: aligned on a terminal, lines with tabs elsewhere."""
    from llmctl.cli.money_table import GAP, bar, is_plain, paint, terminal

    console = terminal()
    if console is None:
        output.table(("what", "value", "note"), [{"what": f[0], "value": f[1], "note": f[3]} for f in facts])
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, GAP, 0, 0))
    for style, justify in (("", "left"), ("bold", "right"), ("magenta", "left"), ("dim", "left")):
        drawn.add_column(style=style, justify=justify, no_wrap=style != "dim", overflow="fold")  # type: ignore[arg-type]
    for what, value, share, note in facts:
        line = "" if share is None else bar(share, _BAR, plain=is_plain(console))
        drawn.add_row(what, output.one_line(value), line, Text(output.one_line(note)))
    if console.width < _LEAST_FACTS:
        lines = (f"{what}: {value}" + (f" ({output.one_line(note)})" if note else "") for what, value, _, note in facts)
        paint(console, *map(Text, lines))
    else:
        paint(console, drawn)
