"""`llmctl doctor`: what is set up here and what keeps it from working, as a table, with what to do below each finding.

The checks are in `lab/doctor`. Nobody is asked without `--live`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples
from llmctl.cli.output import one_line, print_json, safe, say, table, write

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.lab.doctor import Machine
    from llmctl.lab.files import Finding

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_NARROW = 50
"""Below so many columns, a check has none of its own."""


@app.command("doctor", epilog=examples("llmctl doctor", "llmctl doctor --live", "llmctl doctor --json"))
def doctor(
    ctx: typer.Context,
    live: Annotated[
        bool, typer.Option("--live", help="Ask each provider that has a key for its models: free.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what is set up here, and what keeps it from working.

    Exit code 0 when nothing failed, 3 when the configuration or the ledger cannot be used; with --live, that of what
    failed there. Warnings fail nothing.
    """
    from llmctl.lab.doctor import Machine, examine, exit_code

    context = of(ctx, json=as_json)
    machine = Machine(context.places, context.environ)
    findings = list(examine(machine))
    if live and machine.trouble is None:
        findings += _live(context, machine, quiet=as_json)
    failed = sum(each.status == "fail" for each in findings)
    warned = sum(each.status == "warn" for each in findings)
    if as_json:
        rows = [{key: value or None for key, value in each._asdict().items() if key != "exit"} for each in findings]
        print_json({"ok": not failed, "failed": failed, "warned": warned, "checks": rows})
    else:
        _shown(findings)
        words = [f"{n} {word}" for n, word in ((failed, "failed"), (warned, f"warning{'s' * (warned != 1)}")) if n]
        say(", ".join(words) or "all is well")
    raise typer.Exit(exit_code(findings))


def _live(context: Context, machine: Machine, *, quiet: bool) -> list[Finding]:
    import asyncio

    from llmctl.client import Client
    from llmctl.lab.reach import reach, targets

    client = Client(context.config_flags or None, environ=context.environ)
    deployments = targets(client, machine.present)
    if not quiet:
        say(f"asking {len(deployments)} provider{'s' * (len(deployments) != 1)} for a list of models: it costs nothing")
    return asyncio.run(reach(client, deployments))


def _shown(findings: list[Finding]) -> None:
    """The findings as a table: on a terminal with what to do below each, elsewhere in a column of its own."""
    if sys.stdout is None or not sys.stdout.isatty():
        columns = ["status", "check", "what", "hint"]
        table(columns, [dict(zip(columns, (f.status, f.check, f.what, f.hint), strict=True)) for f in findings])
        return
    from rich.table import Table
    from rich.text import Text

    from llmctl.cli.colour import console as terminal

    console = terminal(sys.stdout, os.environ)
    wide = console.width >= _NARROW
    drawn = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(1 + wide):
        drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for each in findings:
        check, what = safe(each.check), one_line(each.what, 600)
        said = Text(what if wide else f"{check}: {what}")
        said.append(f"\nhint: {one_line(each.hint, 400)}" if each.hint and each.status != "ok" else "")
        drawn.add_row(Text(each.status, style=_STYLES[each.status]), *([Text(check)] if wide else []), said)
    with console.capture() as captured:
        console.print(drawn)
    write(captured.get())
