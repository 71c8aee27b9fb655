"""Which calls of the ledger a command is about: the options that choose them, the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.context import of
from llmctl.cli.options import tags_of
from llmctl.cli.prompt import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.store.history import Filter, History

Since = Annotated[str, typer.Option(metavar="WHEN", help="From then on: 24h, 7d ago, or an ISO date.")]
Until = Annotated[str, typer.Option(metavar="WHEN", help="Up to before then: 24h, 7d ago, or an ISO date.")]
Model = Annotated[str, typer.Option(help="The model as typed, or as served (provider/model).")]
State = Annotated[
    str,
    typer.Option(
        metavar="STATE",
        help="started, ok, failed, incomplete, cancelled, cached, refused, or interrupted (killed while started).",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="With this tag; repeat for more.")]


def history(ctx: typer.Context, *, json: bool | None = None) -> History:
    """The readers of the ledger, for a command that has learned whether it was asked for `--json`."""
    from llmctl.store.history import History

    return History(of(ctx, json=json).places.ledger)


def chosen(since: str, until: str, model: str, state: str, tags: Sequence[str] | None) -> Filter:
    """The calls that the options choose. Raises UsageError."""
    from time import time

    from llmctl.core.errors import UsageError
    from llmctl.core.when import parse_instant
    from llmctl.store.history import CHOICES, Filter

    if state and state not in CHOICES:
        raise UsageError(f"no state is called {state!r}", hint="states: " + ", ".join(CHOICES))
    now = time()
    return Filter(
        since=parse_instant(since, now, None) if since else None,
        until=parse_instant(until, now, None) if until else None,
        model=as_text(model, "--model") or None,
        state=state or None,
        tags=tuple(tags_of(list(tags or ()))),
    )
