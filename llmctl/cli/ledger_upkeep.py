"""`llmctl ledger export | prune | check`: the ledger taken elsewhere, made smaller, made whole again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmctl.cli import output
from llmctl.cli.context import of
from llmctl.cli.ledger_choice import Model, Since, State, Tags, Until, chosen, history
from llmctl.cli.options import Json, examples, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPORT = examples(
    "llmctl ledger export --since 7d | jq -s 'map(.input_tokens) | add'",
    "llmctl ledger export calls.csv --tag team=web",
    "llmctl ledger export web.db --tag team=web --content",
)
PRUNE = examples(
    "llmctl ledger prune --older-than 90d --dry-run",
    "llmctl ledger prune --older-than 90d",
    "llmctl ledger prune --older-than 30d --texts --yes --json",
)
CHECK = examples("llmctl ledger check", "llmctl ledger check --repair", "llmctl ledger check --json")
_STILL_KNOWN = "`cost report` still knows what that time cost, by day, model, tag and session; single calls are gone"


def export(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Where it goes (0600); stdout otherwise.")
    ] = None,
    *,
    form: Annotated[
        Literal["jsonl", "csv", "sqlite"] | None,
        typer.Option("--format", help="By default as FILE ends: .csv, .db or .sqlite; else jsonl."),
    ] = None,
    since: Since = "",
    until: Until = "",
    model: Model = "",
    state: State = "",
    tag: Tags = None,
    content: Annotated[bool, typer.Option("--content", help="With prompts and answers, where they were kept.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write calls as JSON lines, as a CSV table or as a ledger file, newest first.

    Prompts and answers are left out unless asked for: what leaves the ledger is no longer private to its owner. The
    lines are what `ledger list --json` has; the table is of calls, without attempts, tags as JSON; the ledger file can
    be queried, or used by llmctl with a home of its own.
    """
    from llmctl.core.errors import UsageError
    from llmctl.store import export as exports

    source, where = history(ctx), chosen(since, until, model, state, tag)
    name: str = form or exports.form_of(file or "")
    if file is None:
        if name == "sqlite":
            raise UsageError("a ledger file cannot go to stdout", hint="llmctl ledger export calls.db")
        for piece in exports.lines(source, name, where, content=content):
            output.write(piece)
        return
    if name == "sqlite":
        written = exports.write_ledger(source, file, where, content=content, force=force)
    else:
        pieces = exports.lines(source, name, where, content=content)
        written = exports.write_text(file, pieces, force=force, source=source.path)
    output.say(f"{written} bytes in {file}")


def prune(
    ctx: typer.Context,
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="How long ago they began: 90d, 12h.")],
    texts: Annotated[bool, typer.Option("--texts", help="Only prompts and answers; the calls stay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove old calls for ever: their rows, attempts, tags, prompts and answers.

    What they cost stays in reports. Running calls stay; ones that were interrupted go. The text is overwritten in the
    file, its index and its journal, not in copies made of it.
    """
    from time import time

    from llmctl.store.upkeep import prune as remove

    places, age = of(ctx, json=json).places, seconds("--older-than", older_than)
    now = time()

    def run(*, dry: bool) -> dict[str, Any]:
        return remove(places.ledger, places.spool, now - (age or 0), now, texts=texts, dry_run=dry)

    found = run(dry=True)
    what = f"{found['matched']} call{'s' * (found['matched'] != 1)} older than {older_than}"
    what = f"the prompts and answers of {what}" if texts else what
    if not dry_run and (not found["matched"] or agreed(what, yes=yes)):
        found = run(dry=False)
    elif not dry_run:
        found["dry_run"] = False
    if json:
        output.print_json(found)
        return
    done = f"{found['deleted']} removed, {found['bytes_freed']} bytes freed" if found["deleted"] else "nothing removed"
    output.say(f"{what}: {done}")
    if found["deleted"] and not texts:
        output.say(_STILL_KNOWN)
    if found["deleted"] and found["also_in"]:
        output.say(f"these may hold old prompts too, and were left alone: {', '.join(found['also_in'])}")


def agreed(what: str, *, yes: bool) -> bool:
    """Whether it may be done. Raises UsageError where nobody can be asked."""
    from llmctl.cli.fetching import confirmed
    from llmctl.core.errors import UsageError

    if yes:
        return True
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError(f"{what} would be removed for ever", hint="--yes does it, --dry-run only counts")
    return confirmed(f"Remove {what} for ever?", unsaid=False)


def check(
    ctx: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Bring back every readable row of damaged files; mend what is found.")
    ] = False,
    json: Json = False,
) -> None:
    """Check that the ledger is whole, exit 3 when not; nothing is changed without --repair.

    A repair moves a damaged ledger aside, begins a new one and brings back what can be read, also of those that were
    moved aside before; no file is deleted. Calls may go on meanwhile.
    """
    from time import time

    from llmctl.core.errors import LedgerUnusable

    places = of(ctx, json=json).places
    if repair:
        from llmctl.store.repair import repair as look
    else:
        from llmctl.store.checkup import check as look
    report = look(places.ledger, places.spool, time())
    if json:
        output.print_json(report)
        if not report["ok"]:
            raise typer.Exit(3)
        return
    for name, value in report.items():
        if name not in ("problems", "ok", "repair"):
            output.write(f"{name}: {plain(value)}\n")
    if repair:
        _tell(report["repair"])
    if report["set_aside"]:
        output.say("a damaged ledger was set aside: `llmctl ledger check --repair` brings back its rows")
    if not report["ok"]:
        problems = "; ".join(report["problems"][:3])
        hint = "a file of another llmctl, or that is not yours, cannot be mended here" if repair else _REPAIR
        raise LedgerUnusable(f"{places.ledger}: {problems}", hint=hint)


_REPAIR = "`llmctl ledger check --repair` brings back every readable row"


def _tell(done: Mapping[str, Any]) -> None:
    """What was repaired, on stderr."""
    for each in done["sources"]:
        output.say(f"the rows of {each['path']} are back; it is kept as {each['kept_as']}")
    for each in done["mended"]:
        output.say(each)
    if done["sources"]:
        output.say(f"recovered: {plain(done['recovered'])}")
        lost = done["lost"]
        output.say(f"lost: {lost['calls']} calls that are known of; {lost['cells']} rows or parts could not be read")
    elif not done["mended"]:
        output.say("nothing to repair")


def plain(value: Any) -> str:
    """A value on one safe line; a mapping as `key=value` pairs."""
    if isinstance(value, dict):
        value = ", ".join(f"{key}={each}" for key, each in value.items())
    elif isinstance(value, list):
        value = ", ".join(map(str, value))
    return output.one_line("-" if value in (None, "") else str(value))
