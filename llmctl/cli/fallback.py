"""`llmctl fallback`: the chain as it resolves now and where each error leads; `drill` is in `cli/drilling`.

Looking sends nothing, and makes no file. Credentials are told by where they are, never by value.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import drilling
from llmctl.cli.context import of
from llmctl.cli.options import Fallback, Json, NoFallback, examples, fallbacks_of, named_model
from llmctl.cli.output import print_json, say, table, write
from llmctl.core.errors import CLASSES, MATRIX, LlmctlError, MissingCredential

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.catalog import Deployment
    from llmctl.core.money import Price
    from llmctl.core.snapshot import Snapshot
    from llmctl.lab.chain import Chain, Member
    from llmctl.run.endpoint import Endpoints

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
app.command("drill", epilog=drilling.EXAMPLES)(drilling.drill)

_MEMBERS = ("link", "group", "deployment", "asks", "credential", "window", "price", "state")
_READY = {"closed": "ready", "half-open": "ready: the next call tries it out", "open": "ready"}


@app.callback()
def fallback() -> None:
    """Show what a chain does when its links fail, and rehearse it."""


@app.command(
    epilog=examples(
        "llmctl fallback show fast",
        "llmctl fallback show openai/gpt-4o --fallback cheap --json",
    )
)
def show(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model group, or provider/model; else the default.")
    ] = None,
    fallback: Fallback = None,
    no_fallback: NoFallback = False,
    as_json: Json = False,
) -> None:
    """Show the chain as it resolves now, and where each class of errors leads; nothing is sent or written.

    Prices are USD per million tokens of input/output. Below, for each class of errors: whether the same deployment is
    asked again first, and for each link where the call goes when all of that link fail so and those before it are down:
    to another link (with another key, or into a larger window), or to its end. Once text of a streamed answer was
    shown, nothing moves it on.

    --json: for each of "links", "on" has for each class "next" (a link, null for the end), "exit" (of the end), and
    "again" (no, once, backoff, patience); it is {} where nobody of the link can be asked.
    """
    context = of(ctx, json=as_json)
    import asyncio

    from llmctl.cli.explaining import onlooker, warn
    from llmctl.lab.chain import read_chain, weak_points
    from llmctl.lab.preview import survey

    fallbacks = fallbacks_of(fallback, none=no_fallback)
    client = onlooker(context)
    name = named_model("MODEL", model) or client.default_model
    endpoints = client.endpoints
    chain = read_chain(client.catalog, name, lambda each: _obstacle(client, name, each), fallbacks)
    ((_, snapshot, now),) = asyncio.run(survey(client.engine, [chain.plan]))
    warnings = weak_points(chain, endpoints.identity)
    rows = [_row(member, endpoints, snapshot, now) for member in chain.members]
    links = _links(chain, rows)
    if as_json:
        print_json({"model": name, "links": links, "warnings": warnings})
        return
    spare = ("group", "price", "window")
    table(_MEMBERS, map(_cells, rows), right=("link", "window"), keep=("deployment",), spare=spare, wrap=("state",))
    if chain.able():
        write("" if sys.stdout.isatty() else "\n")
        _print_ways([link["on"] for link in links])
    warn(client)
    for warning in warnings:
        say(f"warning: {warning}")


# ---------------------------------------------------------------- who is in it


def _obstacle(client: Client, name: str, deployment: Deployment) -> LlmctlError | None:
    """Why it cannot be asked; a key file that cannot be read among the reasons."""
    if (deployment.api_key or deployment.provider.api_key).startswith("file:"):
        try:
            client.endpoints.credential(deployment)
        except LlmctlError as error:
            return error
    return client.obstacle(name)(deployment)


def _row(member: Member, endpoints: Endpoints, snapshot: Snapshot, now: float) -> dict[str, Any]:
    from llmctl.routing.explain import breaker, candidate, kept_out

    deployment, obstacle = member.deployment, member.obstacle
    state = snapshot.of(deployment.id)
    words = kept_out(deployment, snapshot, now)
    if state.why in MATRIX and MATRIX[state.why].ejects:
        words = words.replace("cooling", "ejected", 1)
    known = candidate(deployment, member.link, snapshot, now, words)
    return {
        "link": member.link,
        "id": deployment.id,
        "provider": deployment.provider.name,
        "model": deployment.model,
        "served_by": deployment.served_by,
        "credential": _credential(endpoints, deployment, obstacle),
        "context_window": deployment.context_window,
        "price": deployment.price and _price(deployment.price),
        "obstacle": obstacle and {"type": obstacle.kind, "message": obstacle.message, "hint": obstacle.hint or None},
        "cooldown_s": known.cooldown_s,
        "breaker": None if obstacle else breaker(state, now),
        "why": words or None,
        "group": member.group.name,
    }


def _credential(endpoints: Endpoints, deployment: Deployment, obstacle: LlmctlError | None) -> dict[str, Any]:
    """Where its credential is or, when it is missing, would be: no secret, nor a command's arguments."""
    provider, reference = deployment.provider, deployment.api_key or deployment.provider.api_key
    chained = provider.protocol == "bedrock" and not reference  # then Amazon's credential chain will do
    variables, present, needed = endpoints.key_place(provider, reference)
    if chained and not present:
        source = "AWS credentials"
    elif present and present not in variables:
        source = present
    else:
        source = " or ".join(f"env:{each}" for each in ([present] if present else variables))
    return {
        "needed": needed or chained,
        "present": bool(present or chained)
        and endpoints.has_credential(deployment)
        and not isinstance(obstacle, MissingCredential),
        "source": source or None,
    }


def _price(price: Price) -> dict[str, float]:
    from llmctl.core.money import ATTO

    return {"input": price.input / ATTO, "output": price.output / ATTO}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    key, price, obstacle = row["credential"], row["price"], row["obstacle"]
    missing = f"missing: {key['source'].replace('env:', '')}" if key["needed"] else "none needed"
    return {
        **row,
        "deployment": row["id"],
        "asks": row["served_by"],
        "credential": key["source"] if key["present"] else missing,
        "window": row["context_window"],
        "price": price and f"{price['input']:g}/{price['output']:g}",
        "state": f"cannot be asked: {obstacle['message']}" if obstacle else row["why"] or _READY[row["breaker"]],
    }


# ---------------------------------------------------------------- where an error leads


def _links(chain: Chain, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "link": n,
            "group": group.name,
            "strategy": group.strategy,
            "deployments": [
                {key: value for key, value in row.items() if key not in ("link", "group")}
                for row in rows
                if row["link"] == n
            ],
            "on": {kind: _way(chain, n, kind) for kind in CLASSES} if chain.is_able(n) else {},
        }
        for n, group in enumerate(chain.groups, 1)
    ]


def _way(chain: Chain, link: int, kind: str) -> dict[str, Any]:
    """Where a call goes from that link with that class of errors."""
    to, again = chain.next_link(link, kind), MATRIX[kind].again
    return {
        "next": to if isinstance(to, int) else None,
        "again": again,
        "exit": None if isinstance(to, int) else to.exit,
    }


def _going(way: dict[str, Any] | None, note: str) -> str:
    if way is None:
        return "never asked"
    return f"to {way['next']}{note}" if way["next"] else f"stops, exit {way['exit']}"


def _print_ways(links: list[dict[str, Any]]) -> None:
    """The same as a table: classes that are treated alike in one row."""
    from llmctl.cli.rules import AGAIN, ONWARD

    rows: dict[tuple[str, ...], list[str]] = {}
    for kind in CLASSES:
        rule = MATRIX[kind]
        note = "" if rule.onward == "yes" else f" ({ONWARD[rule.onward]})"
        ways = [_going(on.get(kind), note) for on in links]
        rows.setdefault((AGAIN[rule.again], *ways), []).append(kind)
    columns = ("after", "again", *(f"link {n}" for n in range(1, len(links) + 1)))
    shown = [dict(zip(columns, (", ".join(kinds), *cells), strict=True)) for cells, kinds in rows.items()]
    table(columns, shown, wrap=columns)
