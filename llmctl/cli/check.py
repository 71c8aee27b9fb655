"""`llmctl models check MODEL --live`: the contract probe of `lab.probe`, as a table or as JSON.

Real calls at real cost, so `--live` must be said. stdout holds the result; exit code 100 says that a step failed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples
from llmctl.cli.output import print_json, say, table
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.client import Client
    from llmctl.core.catalog import Deployment
    from llmctl.lab.probe import Check

EXIT_FAILED, EXIT_TERMINATED = 100, 143
EXAMPLES = examples("llmctl models check fast --live", "llmctl models check openai/gpt-4o --live --json")


def check(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model group (all its deployments), or provider/model.")
    ],
    live: Annotated[bool, typer.Option("--live", help="Really call the provider, which costs some tokens.")] = False,
    as_json: Json = False,
) -> None:
    """Probe what a model really does at its provider: list, text, stream, tools, schema, one error, token count."""
    from llmctl.client import Client
    from llmctl.lab import probe

    context = of(ctx, json=as_json)
    deployments = context.catalog.resolve(model).deployments
    if not live:
        many = f", for each of its {len(deployments)} deployments" if len(deployments) > 1 else ""
        raise UsageError(
            f"`models check` calls the provider of {model!r}{many}",
            hint=f"add --live: it costs about {probe.about_tokens(len(deployments))} tokens",
        )
    client = Client(context.config_flags or None, environ=context.environ)
    try:
        checks = asyncio.run(_checked(client, model, deployments))
    except asyncio.CancelledError:
        raise typer.Exit(EXIT_TERMINATED) from None
    finally:
        for warning in () if as_json else (*getattr(client.ledger, "warnings", ()), *client.endpoints.warnings):
            say(f"warning: {warning}")
    refused = [each.refused for each in checks if each.refused is not None]
    if refused and len(refused) == len(checks):
        raise refused[0]
    raise typer.Exit(_shown(model, checks, as_json=as_json))


async def _checked(client: Client, model: str, deployments: Sequence[Deployment]) -> list[Check]:
    """Check one deployment after the other. SIGTERM cancels the call that runs, as Ctrl-C does: its row is whole."""
    from llmctl.lab import probe

    task = asyncio.current_task()
    assert task is not None, "there is a task to cancel"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    checks = []
    for deployment in deployments:
        if sys.stderr is not None and sys.stderr.isatty():
            say(f"checking {deployment.served_by}")
        checks.append(await probe.check(client, model, deployment))
    await client.aclose()
    return checks


def _shown(model: str, checks: Sequence[Check], *, as_json: bool) -> int:
    """Print the checks; the exit code."""
    outcomes = Counter(probe.outcome for check in checks for probe in check.probes)
    if as_json:
        totals = {"passed": outcomes["ok"], "failed": outcomes["failed"], "skipped": outcomes["skipped"]}
        print_json({"model": model, "checks": [each.as_json() for each in checks], **totals})
    else:
        table(
            ["deployment", "asks", "probe", "outcome", "ms", "cost_usd", "detail"],
            [_cells(check, row) for check in checks for row in check.as_json()["probes"]],
            right=["ms", "cost_usd"],
            keep=["asks", "probe", "outcome"],
            spare=["deployment", "cost_usd"],
        )
        if outcomes["failed"]:
            say(f"{outcomes['failed']} of {sum(outcomes.values())} probes failed")
    return EXIT_FAILED if outcomes["failed"] else 0


def _cells(check: Check, row: dict[str, Any]) -> dict[str, Any]:
    cost = row["cost_usd"]
    return {
        **row,
        "deployment": check.deployment.id,
        "asks": check.deployment.served_by,
        "probe": row["name"],
        "ms": None if row["latency_ms"] is None else round(row["latency_ms"]),
        "cost_usd": None if cost is None else f"{cost:.6f}",
    }
