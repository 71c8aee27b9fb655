"""`llmctl route`: who would be asked and why, how the deployments fare, what the rules are; and forgetting cooldowns.

Looking sends nothing, reserves nothing and makes no file. Only `reset` changes the shared state.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import route_simulate
from llmctl.cli.context import of
from llmctl.cli.options import (
    ByStrategy,
    Fallback,
    Json,
    MaxWait,
    Model,
    NoFallback,
    examples,
    fallbacks_of,
    named_model,
    seconds,
)  # fmt: skip
from llmctl.cli.output import print_json, safe, say, table, write
from llmctl.core.errors import LlmctlError, UsageError

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.client import Client
    from llmctl.core.catalog import Deployment, Group
    from llmctl.core.snapshot import Snapshot
    from llmctl.lab.preview import Preview
    from llmctl.routing.plan import Link, Plan

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
app.command("simulate", epilog=route_simulate.EXAMPLES)(route_simulate.simulate)

_STAND_IN = "hello"
"""What is asked where nothing was said: routing looks at a prompt's size only."""
_NUMBERS = ("rpm", "tpm", "latency_ms", "in_flight", "cooldown_s", "weight")
_LISTED = ("group", "deployment", "asks", "breaker", *_NUMBERS, "strategy")
_MOST_REPEATS = 100_000


@app.callback()
def route() -> None:
    """Show how targets are chosen and fare; clear their cooldowns."""


# ---------------------------------------------------------------- test


@app.command(
    "test",
    epilog=examples(
        'llmctl route test -m fast "summarise this"',
        "llmctl route test -m gpt-4o --strategy cost-based-routing --json",
        "llmctl route test -m gpt-4o -n 1000 --seed 1",
    ),
)
def try_out(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What would be asked; stdin is added after a blank line.")
    ] = None,
    model: Model = None,
    strategy: ByStrategy = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many output tokens.")] = None,
    fallback: Fallback = None,
    no_fallback: NoFallback = False,
    max_wait: MaxWait = None,
    repeat: Annotated[
        int, typer.Option("-n", "--repeat", min=0, max=_MOST_REPEATS, metavar="N", help="Decide N times; count whom.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Draw the same each time.")] = None,
    as_json: Json = False,
) -> None:
    """Show who would be asked, and why each other would not; nothing is sent or written."""
    context = of(ctx, json=as_json)
    from llmctl.cli.explaining import end, look, onlooker
    from llmctl.cli.prompt import compose

    options: dict[str, Any] = {
        "model": named_model("--model", model),
        "max_tokens": max_tokens,
        "fallbacks": fallbacks_of(fallback, none=no_fallback),
        "strategy": strategy and strategy.value,
        "max_wait": seconds("--max-wait", max_wait),
        "command": "route test",
    }
    message = compose(prompt, [], use_stdin=True, default=_STAND_IN).text
    found = look(onlooker(context, seed), message, options, repeat)
    if as_json:
        repeated = {"distribution": dict(found.distribution), "refused": found.refused} if repeat else {}
        print_json({**found.as_json(), **repeated})
        raise typer.Exit(found.exit)
    _print_test(found)
    end(found)


def _print_test(found: Preview) -> None:
    from llmctl.cli.explaining import print_candidates

    print_candidates(found.candidates)
    calls = sum(found.distribution.values()) + found.refused
    if calls:
        most = sorted(found.distribution.items(), key=lambda each: -each[1])
        counted = [{"deployment": name, "calls": n, "share": f"{n / calls:.1%}"} for name, n in most]
        table(("deployment", "calls", "share"), counted, right=("calls", "share"), keep=("deployment",))
    if found.refused:
        say(f"{found.refused} of {calls} calls would have been refused")
    cost = found.cost_usd(found.target) if found.target else None
    price = "" if cost is None else f", about ${cost:.6f}"
    wait = f", in {found.start_in_s:.1f} s" if found.start_in_s else ""
    say(f"about {found.snapshot.prompt_tokens} input tokens{price}{wait}; nothing was sent")


# ---------------------------------------------------------------- list


@app.command("list", epilog=examples("llmctl route list", "llmctl route list gpt-4o --json"))
def list_(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="This group and its chain only.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what cannot be asked, and why.")] = False,
    as_json: Json = False,
) -> None:
    """List deployments: headroom of this minute, expected latency, cooldown, breaker, calls in flight."""
    context = of(ctx, json=as_json)
    import asyncio

    from llmctl.cli.explaining import onlooker, warn
    from llmctl.lab.preview import survey

    client = onlooker(context)
    names = [name for name, group in client.catalog.groups.items() if group.deployments] if model is None else [model]
    plans = [plan for name in names if (plan := _plan(client, name, chain=model is not None))]
    rows: list[dict[str, Any]] = []
    for plan, snapshot, now in asyncio.run(survey(client.engine, plans)):
        rows += [
            _row(link, n, each, snapshot, now) for n, link in enumerate(plan.links, 1) for each in link.deployments
        ]
    if everything or model is not None:
        rows += [row for name in names for row in _unusable(client, name, chain=model is not None)]
    warn(client)
    if as_json:
        print_json(rows)
        return
    cells = [{**row, **row["headroom"], "asks": row["served_by"]} for row in rows]
    table(_LISTED, cells, right=_NUMBERS, keep=("deployment", "breaker"), spare=("asks", "weight", "strategy", "tpm"))
    for row in rows:
        if row["obstacle"]:
            say(f"{row['deployment']} cannot be asked: {row['obstacle']}")
    if not rows:
        say("no group can be asked: --all shows why")


def _plan(client: Client, name: str, *, chain: bool) -> Plan | None:
    """What can be asked by `name`; None for nothing."""
    from llmctl.routing.plan import make_plan

    client.catalog.resolve(name)
    try:
        return make_plan(client.catalog, name, fallbacks=None if chain else (), obstacle=client.obstacle(name))
    except UsageError:
        raise
    except LlmctlError:
        return None


def _row(link: Link, n: int, deployment: Deployment, snapshot: Snapshot, now: float) -> dict[str, Any]:
    from llmctl.routing.explain import breaker, candidate, kept_out

    state = snapshot.of(deployment.id)
    known = candidate(deployment, n, snapshot, now, kept_out(deployment, snapshot, now)).as_json()
    return {
        **_who(link.group, deployment),
        "breaker": breaker(state, now),
        **{key: known[key] for key in ("headroom", "latency_ms", "in_flight", "cooldown_s")},
        "why": known["reason"] or None,
        "obstacle": None,
    }


def _who(group: Group, deployment: Deployment) -> dict[str, Any]:
    return {
        "group": group.name,
        "deployment": deployment.id,
        "provider": deployment.provider.name,
        "model": deployment.model,
        "served_by": deployment.served_by,
        "strategy": group.strategy,
        "weight": deployment.weight,
    }


def _unusable(client: Client, name: str, *, chain: bool) -> list[dict[str, Any]]:
    """Rows of what cannot be asked by `name`, with the reason."""
    group = client.catalog.resolve(name)
    nothing = {"headroom": {"rpm": None, "tpm": None}, "latency_ms": None, "in_flight": 0, "cooldown_s": 0.0}
    return [
        {**_who(link, each), "breaker": None, **nothing, "why": None, "obstacle": found.message}
        for link in (group, *(map(client.catalog.resolve, group.fallbacks) if chain else ()))
        for each in link.deployments
        if (found := client.obstacle(name)(each)) is not None
    ]


# ---------------------------------------------------------------- explain


@app.command(epilog=examples("llmctl route explain", "llmctl route explain RateLimited --json"))
def explain(
    ctx: typer.Context,
    error: Annotated[str | None, typer.Argument(metavar="[CLASS]", help="This class of errors only.")] = None,
    as_json: Json = False,
) -> None:
    """Print the rules: what is done about each class of errors, how strategies choose, what bounds a call."""
    context = of(ctx, json=as_json)
    from llmctl.cli import rules

    classes = rules.classes(error)
    document = {"classes": classes}
    if error is None:
        document |= {"strategies": rules.strategies(), "bounds": rules.bounds(context.catalog.settings)}
    if as_json:
        print_json(document)
        return
    if error is not None:
        rule = classes[0] | {"ejects": "yes" if classes[0]["ejects"] else "no"}
        write("".join(f"{name}: {value}\n" for name, value in rule.items()))
        return
    columns = ("class", "again", "next", "cooldown", "exit")
    shown = [row | {"cooldown": "ejection" if row["ejects"] else row["cooldown"]} for row in classes]
    table(columns, shown, right=("exit",), keep=("class", "again", "next"), wrap=("cooldown",))
    for name in ("strategies", "bounds"):
        write("" if sys.stdout.isatty() else "\n")
        name_of, words = document[name][0]
        table((name_of, words), document[name], keep=(name_of,), wrap=(words,))


# ---------------------------------------------------------------- reset


@app.command(epilog=examples("llmctl route reset", "llmctl route reset gpt-4o", "llmctl route reset azure-eu --all"))
def reset(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A group, a deployment, or provider/model; else all.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the windows and what was measured, as if nothing was ever asked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Clear cooldowns, ejections, refusals, overloads and retry budgets; windows and latencies stay."""
    context = of(ctx, json=as_json)
    rows, others = _reset(context, name, everything=everything)
    if as_json:
        print_json({"cleared": rows, "others": others})
        return
    for row in rows:
        write(safe(f"{row['deployment'] or row['group']}: {', '.join(row['what'])}") + "\n")
    if others:
        write(f"{others} more, of what no group names\n")
    if not rows and not others:
        write("nothing to clear\n")


def _reset(context: Context, name: str | None, *, everything: bool) -> tuple[list[dict[str, Any]], int]:
    """What was cleared of each named deployment and group, and how many other documents were cleared."""
    from llmctl.client import Client
    from llmctl.routing.health import clear
    from llmctl.routing.shape import is_whole
    from llmctl.store.state import SqliteState

    client = Client(context.config_flags or None, environ=context.environ)
    deployments = _named(client, name)
    if not client.places.state.exists():
        return [], 0
    now = client.engine.clock.now()
    keys = client.shared.keys_of(deployments.values())
    of_groups = {each: client.shared.group_key(each) for each in (client.catalog.groups if name is None else [name])}
    state = SqliteState(client.places.state, is_whole)

    def cleared(documents: dict[str, Any]) -> dict[str, list[str]]:
        words = {key: clear(document, now, measured=everything) for key, document in documents.items()}
        return {key: what for key, what in words.items() if what}

    named = [each for key in keys.values() for each in (key.quota, key.credential)]
    what = state.update_now(list(dict.fromkeys([*named, *of_groups.values()])), cleared)
    rows: list[dict[str, Any]] = [
        {"group": None, "deployment": each, "served_by": deployments[each].served_by, "what": words}
        for each, key in keys.items()
        if (words := [*what.get(key.quota, ()), *what.get(key.credential, ())])
    ]
    rows += [
        {"group": each, "deployment": None, "served_by": None, "what": what[key]}
        for each, key in of_groups.items()
        if key in what
    ]
    return rows, len(state.update_now(None, cleared)) if name is None else 0


def _named(client: Client, name: str | None) -> dict[str, Deployment]:
    """The deployments that `name` means, by id: a group's, one with that id, or `provider/model`. Raises UsageError."""
    groups = client.catalog.groups
    all_of_them = {each.id: each for group in groups.values() for each in group.deployments}
    if name is None:
        return all_of_them
    if name in groups or name not in all_of_them:
        return {each.id: each for each in client.catalog.resolve(name).deployments}
    return {name: all_of_them[name]}
