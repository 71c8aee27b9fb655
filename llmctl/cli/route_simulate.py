"""`llmctl route simulate`: a trace, or the ledger's own past, through the call machine on a virtual clock.

Nothing is sent and nothing is written: the simulation is `lab/simulate`, its providers are models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import ByStrategy, Json, MaxWait, Model, Strategy, examples, named_model, seconds
from llmctl.cli.output import one_line, print_json, say, table, write
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmctl.client import Client
    from llmctl.core.catalog import Deployment
    from llmctl.lab.providers import Fault, Speed
    from llmctl.lab.simulate import World
    from llmctl.lab.traces import Row
    from llmctl.routing.book import Keys

EXAMPLES = examples(
    "llmctl route simulate -m fast --since 7d --compare ordered",
    "llmctl route simulate -m fast --trace day.csv --outage fast-1=10m+5m --json",
)
_SINCE = "7d"
_SPEEDS_SINCE_S, _SPEEDS_CALLS = 30 * 86_400.0, 2000
_RUNS = (
    "strategy", "calls", "failed", "refused", "waited_p50", "waited_p95", "p50_s", "p95_s", "p99_s", "makespan_s",
    "cost_usd",
)  # fmt: skip
_DEPLOYMENTS = ("strategy", "deployment", "calls", "share", "refused", "failed", "in", "out", "used", "cost_usd")


def simulate(
    ctx: typer.Context,
    *,
    model: Model = None,
    trace: Annotated[
        str, typer.Option(metavar="FILE", help="CSV (t,in_tokens,out_tokens) or JSON lines; default: the ledger.")
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="WHEN", help=f"The ledger from then on: {_SINCE} (default), a date.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="WHEN", help="The ledger up to before then.")] = "",
    all_models: Annotated[bool, typer.Option("--all-models", help="The ledger's calls of every model.")] = False,
    strategy: ByStrategy = None,
    compare: Annotated[
        list[Strategy] | None, typer.Option(metavar="STRATEGY", help="This one beside it; repeat for more.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The cap on each answer.")] = None,
    max_wait: MaxWait = None,
    outage: Annotated[
        list[str] | None, typer.Option(metavar="ID=START+LENGTH", help="A deployment is out: fast-1=10m+5m.")
    ] = None,
    slow: Annotated[
        list[str] | None, typer.Option(metavar="ID=START+LENGTH*FACTOR", help="It is slower: fast-1=10m+5m*8.")
    ] = None,
    speed_up: Annotated[float, typer.Option(metavar="N", help="N times as much traffic.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Equal seeds give equal results.")] = 0,
    as_json: Json = False,
) -> None:
    """Replay traffic on a virtual clock: what this configuration would have done."""
    context = of(ctx, json=as_json)
    from llmctl.cli.explaining import onlooker, warn
    from llmctl.lab.simulate import World
    from llmctl.lab.simulate import simulate as run
    from llmctl.lab.traces import denser
    from llmctl.routing.plan import make_plan
    from llmctl.run.asking import policy_of

    client = onlooker(context)
    name = named_model("--model", model) or client.default_model
    # Nothing is sent, so that a deployment without a credential is asked too.
    plan = make_plan(client.catalog, name, fallbacks=None, obstacle=lambda _: None)
    deployments = plan.deployments
    wait_s = seconds("--max-wait", max_wait)
    names = dict.fromkeys([strategy, *(compare or [])])
    policies = [policy_of(client.catalog.settings, None, None, wait_s, each and each.value) for each in names]
    if not 0.01 <= speed_up <= 1000:
        raise UsageError(f"--speed-up {speed_up:g} is out of range", hint="0.01 to 1000")
    faults = [fault("--outage", each, deployments) for each in outage or []]
    faults += [fault("--slow", each, deployments) for each in slow or []]
    rows, source = _requests(client, trace, since, until, "" if all_models else name)
    keys = client.shared.keys_of(deployments)
    speeds = _speeds(client, deployments, keys)
    world = World(
        plan=plan, keys=keys, settings=client.catalog.settings, speeds=speeds,
        faults=faults, max_tokens=max_tokens, seed=seed,
    )  # fmt: skip
    warn(client)
    rows = denser(rows, speed_up)
    _show(name, source, seed, world, [run(rows, world, policy).as_json() for policy in policies], as_json=as_json)


def _requests(client: Client, trace: str, since: str, until: str, model: str) -> tuple[list[Row], dict[str, Any]]:
    """The requests to be made, and where they are from."""
    from llmctl.lab.traces import past, read_trace

    guessed = 0
    if trace:
        if since or until or not model:
            raise UsageError("--trace has no --since, --until or --all-models", hint="those choose calls of the ledger")
        rows = read_trace(trace)
    else:
        rows, guessed = past(_calls(client, since or _SINCE, until, model))
    return rows, {
        "source": trace or "ledger",
        "requests": len(rows),
        "span_s": round(rows[-1].at, 3),
        "input_tokens": sum(row.input_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "guessed": guessed,
    }


def _calls(client: Client, since: str, until: str, model: str) -> list[dict[str, Any]]:
    from time import time

    from llmctl.core.when import parse_instant
    from llmctl.store.history import Filter, History

    now = time()
    before = parse_instant(until, now, None) if until else now
    found = History(client.places.ledger).list_calls(0, Filter(parse_instant(since, now, None), before, model or None))
    if not found:
        what = f"the ledger has no calls{f' of {one_line(model)}' if model else ''} since {since}"
        raise UsageError(what, hint="--since goes further back, --trace reads a file")
    return found


def _speeds(client: Client, deployments: Sequence[Deployment], keys: Mapping[str, Keys]) -> dict[str, Speed]:
    """How fast each deployment is: what the shared state knows, else what the ledger's last answers say."""
    import asyncio
    from time import time

    from llmctl.lab.traces import speeds_of
    from llmctl.store.history import Filter, History

    names = [key.quota for key in keys.values()]
    known = asyncio.run(
        client.shared.update(names, lambda documents: {n: d.get("speed") for n, d in documents.items()})
    )
    measured = {each: known[key.quota] for each, key in keys.items() if known.get(key.quota)}
    answers = History(client.places.ledger).list_calls(_SPEEDS_CALLS, Filter(since=time() - _SPEEDS_SINCE_S))
    return speeds_of(deployments, measured, answers)


def fault(option: str, text: str, deployments: Sequence[Deployment]) -> Fault:
    """The failure that `ID=START+LENGTH`, for `--slow` with `*FACTOR`, orders. Raises UsageError."""
    from llmctl.core.catalog import near_name
    from llmctl.core.when import parse_duration
    from llmctl.lab.providers import Fault

    deployment, _, when = text.rpartition("=")
    span, star, factor = when.partition("*")
    start, plus, length = span.partition("+")
    shape = "ID=START+LENGTH" + ("*FACTOR" if option == "--slow" else "")
    ids = [each.id for each in deployments]
    if not deployment or not plus or bool(star) != (option == "--slow"):
        like = f"{option} {ids[0]}=10m+5m{'*8' if option == '--slow' else ''}"
        raise UsageError(f"{option} {one_line(text)!r} is not {shape}", hint=f"for instance {like}")
    if deployment not in ids:
        hint = near_name(deployment, ids) or f"its deployments: {', '.join(ids)}"
        what = f"no deployment of this group or its chain is called {one_line(deployment)!r}"
        raise UsageError(f"{option}: {what}", hint=hint)
    return Fault(deployment, parse_duration(start), parse_duration(length), _factor(factor) if star else None)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 1000:
        raise UsageError(f"--slow: {one_line(text)!r} is no factor", hint="1 to 1000 times as slow, such as *8")
    return factor


def _show(
    model: str, source: dict[str, Any], seed: int, world: World, runs: Sequence[dict[str, Any]], *, as_json: bool
) -> None:
    if as_json:
        print_json({"model": model, "trace": source, "seed": seed, "runs": runs})
        return
    table(_RUNS, map(_run_cells, runs), right=_RUNS[1:2] + _RUNS[3:], keep=_RUNS[:3], spare=("makespan_s", "p50_s"))
    write("\n")
    rows = [_deployment_cells(run["strategy"], row) for run in runs for row in run["deployments"]]
    table(_DEPLOYMENTS, rows, right=_DEPLOYMENTS[2:8], keep=_DEPLOYMENTS[:2], spare=("in", "out", "strategy"))
    if source["guessed"]:
        say(f"of {source['guessed']} calls the tokens are not known: taken to be the median of the others")
    assumed = [each for each, speed in world.speeds.items() if speed.source == "assumed"]
    if assumed:
        say(f"speed assumed, since no answer of theirs is known: {', '.join(assumed)}")


def _run_cells(run: Mapping[str, Any]) -> dict[str, Any]:
    kinds = ", ".join(f"{kind} {n}" for kind, n in run["failed_by"].items())
    waited, latency = run["waited_s"], run["latency_s"]
    cells = {"failed": f"{run['failed']} ({kinds})" if kinds else "0", "cost_usd": _usd(run["cost_usd"])}
    times = {f"waited_{p}": waited[p] for p in waited} | {f"{p}_s": latency[p] for p in latency}
    return {**run, **cells, **times}


def _deployment_cells(strategy: str, row: Mapping[str, Any]) -> dict[str, Any]:
    used = [f"{meter} {u['mean']:.0%} (peak {u['peak']:.0%})" for meter, u in row["utilisation"].items()]
    cells = {"strategy": strategy, "share": f"{row['share']:.1%}", "used": ", ".join(used)}
    tokens = {"in": row["input_tokens"], "out": row["output_tokens"]}
    return {**row, **cells, **tokens, "cost_usd": _usd(row["cost_usd"])}


def _usd(cost: float | None) -> str | None:
    return None if cost is None else f"{cost:.4f}"
