"""`llmctl fallback drill`: what is asked for on the line and in saved drills, played by `lab/drill`, and how it stops.

Everything that can be refused is refused before anything is sent. Reports and tables are `cli/drill_report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples, named_model
from llmctl.cli.output import one_line, say
from llmctl.core.errors import BudgetExceeded, UsageError
from llmctl.core.money import NANO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmctl.cli.drill_report import Course
    from llmctl.cli.output import Out
    from llmctl.client import Client
    from llmctl.core.catalog import Catalog
    from llmctl.lab.drill import Drill, Play
    from llmctl.lab.expectations import Expectations

EXAMPLES = examples(
    "llmctl fallback drill fast --offline",
    "llmctl fallback drill fast --offline --inject primary=429@2s*1",
    "llmctl fallback drill fast --offline --matrix --junit drill.xml",
    "llmctl fallback drill --offline --suite standard",
    "llmctl fallback drill fast --live --max-cost 0.05 --expect-regex reached",
)
EXIT_FAILED = 100
SUITE = "standard"


def drill(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The model group whose chain it is.")] = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Scripted providers answer: no key, no network.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Whom no fault strikes is really asked, and charged.")] = False,
    saved: Annotated[
        list[str] | None, typer.Option("--drill", metavar="NAME", help="One of [drills.NAME] (repeat).")
    ] = None,
    inject: Annotated[
        list[str] | None, typer.Option(metavar="TARGET=FAULT", help="Such as primary=503, 2=429@2s*1 (repeat).")
    ] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Every fault at every link.")] = False,
    suite: Annotated[str | None, typer.Option(metavar=SUITE, help="The standard shapes of trouble.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What is asked.")] = None,
    speed: Annotated[float | None, typer.Option(metavar="N", help="Time runs N times faster (50).")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Equal seeds draw the same.")] = None,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Show the answer as it is made, or whole (default).")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="Spend no more than that.")] = None,
    served_by: Annotated[str | None, typer.Option("--expect-served-by", metavar="TARGET", help="Who answers.")] = None,
    path: Annotated[str | None, typer.Option("--expect-path", metavar="A,B,C", help="Who is asked in turn.")] = None,
    max_seconds: Annotated[float | None, typer.Option(metavar="N", help="An answer within N seconds.")] = None,
    regex: Annotated[str | None, typer.Option("--expect-regex", metavar="RE", help="The answer has it (live).")] = None,
    schema: Annotated[
        str | None, typer.Option("--expect-json", metavar="SCHEMA", help="The answer is such JSON (live).")
    ] = None,
    min_chars: Annotated[int | None, typer.Option(min=1, metavar="N", help="The answer's length (live).")] = None,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="A model that judges answers (live).")] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit file.")] = None,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="The timeline of every scenario.")] = False,
) -> None:
    """Rehearse failures of a chain: who answers then, and after what; exit 100 when one is not survived."""
    context = of(ctx, json=as_json)
    if offline and live:
        raise UsageError("--offline and --live exclude each other", hint="give one of them")
    given = {
        "model": named_model("MODEL", model), "mode": "live" if live else "offline" if offline else None,
        "inject": tuple(inject or ()) or None, "matrix": matrix or None, "suite": suite, "prompt": prompt,
        "speed": speed, "seed": seed, "stream": stream, "max_cost": max_cost, "expect_served_by": served_by,
        "expect_path": path, "max_seconds": max_seconds, "expect_regex": regex, "expect_json": schema,
        "min_chars": min_chars, "judge": named_model("--judge", judge),
    }  # fmt: skip
    import asyncio

    from llmctl.cli.drill_report import Course, Report, show, tell_before
    from llmctl.cli.notes import Notes
    from llmctl.cli.output import Out
    from llmctl.client import Client

    out = Out()
    client = Client(context.config_flags or None, environ=context.environ)
    orders = _orders(client.catalog, saved or [], {key: value for key, value in given.items() if value is not None})
    ready = [_ready(client, each, context.environ) for each in orders]
    estimated = _estimate(ready)
    tell_before([each.order.drill for each in ready], estimated, _unpriced(ready), quiet=as_json)
    _refuse_what_is_too_dear(ready, max_cost)
    report = Report(junit)
    course = Course(sum(len(each.plays) for each in ready), quiet=as_json)
    try:
        stopped = asyncio.run(_play(client, ready, max_cost, course, out))
        if stopped:
            if not as_json:
                say(f"stopped after {course.done} of {course.total}")
            raise typer.Exit(stopped)
        try:
            report.write(course.played, context.environ, quiet=as_json)
        finally:  # what was played is shown, also where a report cannot be written
            left_out = [line for each in ready for line in each.left_out]
            show(course.played, estimated, left_out, as_json=as_json, verbose=verbose)
    finally:
        Notes(out, quiet=as_json, verbose=False).end(client)
    if any(not verdict.ok for each in course.played for verdict in each.verdicts):
        raise typer.Exit(EXIT_FAILED)


# ---------------------------------------------------------------- what is asked for


class Order(NamedTuple):
    """A drill as it is asked for; `name` is its saved name, else ""."""

    name: str
    drill: Drill
    expectations: Expectations
    suite: bool


class Ready(NamedTuple):
    """A drill that can begin; `left_out` says, in sentences, what cannot be played."""

    order: Order
    plays: list[Play]
    left_out: Sequence[str] = ()


def _orders(catalog: Catalog, names: Sequence[str], given: Mapping[str, Any]) -> list[Order]:
    """The drills that are asked for: each saved one, changed by what the line says. Raises UsageError."""
    from llmctl.core.catalog import near_name

    for name in names:
        if name not in catalog.drills:
            hint = near_name(name, catalog.drills).partition(" (")[0]
            known = f"saved: {', '.join(catalog.drills)}" if catalog.drills else "write [drills.NAME] first"
            raise UsageError(f"no drill {one_line(name)!r} is saved", hint=hint or known)
    rows = {name: {**catalog.drills[name], **given} for name in names} or {"": dict(given)}
    return [_order(catalog, name, row, many=len(rows) > 1) for name, row in rows.items()]


def _order(catalog: Catalog, name: str, row: Mapping[str, Any], *, many: bool) -> Order:
    """One drill. Raises UsageError for what cannot be meant."""
    from llmctl.cli.prompt import as_text
    from llmctl.core.faults import FASTEST
    from llmctl.lab.drill import PROMPT, Drill

    where = f"drill {name!r}: " if name else ""
    if "mode" not in row:
        raise UsageError(
            f"{where}say --offline or --live",
            hint="--offline needs no key and no network; --live really asks whom no fault strikes, and is charged",
        )
    if row.get("suite", SUITE) != SUITE:
        raise UsageError(f"{where}no suite {one_line(row['suite'])!r}", hint=f"there is one: --suite {SUITE}")
    chosen = bool(row.get("inject") or row.get("matrix"))
    model = row.get("model") or (catalog.default_model if chosen or "suite" not in row else "")
    if not model and (chosen or "suite" not in row):
        raise UsageError(f"{where}whose chain?", hint="name a model group: llmctl fallback drill fast --offline")
    prompt = as_text(row.get("prompt", PROMPT), "--prompt")
    if not prompt.strip():
        raise UsageError(f"{where}--prompt is empty", hint="leave it out, or say something")
    ordered = Drill(
        model=model or "",
        live=row["mode"] == "live",
        inject=tuple(row.get("inject", ())),
        matrix=bool(row.get("matrix")),
        prompt=prompt,
        speed=_within("--speed", row.get("speed", 50.0), 1, FASTEST),
        seed=row.get("seed", 0),
        streamed=bool(row.get("stream")),
        max_cost_usd=_within("--max-cost", row["max_cost"], 0, 1e9) if "max_cost" in row else None,
    )
    return Order(name if many else "", ordered, _expectations(row), "suite" in row)


def _within(option: str, value: float, least: float, most: float) -> float:
    """`value`, if it is in range; not a number is in none. Raises UsageError."""
    if not least <= value <= most:
        raise UsageError(f"{option} {value:g} is out of range", hint=f"{least:g} to {most:g}")
    return value


def _expectations(row: Mapping[str, Any]) -> Expectations:
    from llmctl.lab.expectations import Expectations

    path = row.get("expect_path", ())
    names = tuple(part.strip() for part in path.split(",")) if isinstance(path, str) else tuple(path)
    if not all(names):
        raise UsageError(f"--expect-path {one_line(str(path))!r} names nobody", hint="for instance primary,cheap")
    schema = None
    if "expect_json" in row:
        from llmctl.cli.request import schema_of

        schema = schema_of(row["expect_json"], "--expect-json")
    return Expectations(
        served_by=row.get("expect_served_by"),
        path=names,
        max_seconds=_within("--max-seconds", row["max_seconds"], 1e-3, 1e6) if "max_seconds" in row else None,
        regex=row.get("expect_regex"),
        schema=schema,
        min_chars=row.get("min_chars"),
        judge=row.get("judge"),
    )


def _ready(client: Client, order: Order, environ: Mapping[str, str]) -> Ready:
    """The order with all that it plays. Raises UsageError for what cannot be played, or expected of it."""
    from llmctl.lab.drill import scenarios, stage

    asked = order.drill
    plays: list[Play] = []
    left_out: list[str] = []
    if asked.inject or asked.matrix or not order.suite:
        on = stage(client, asked, environ)
        plays += [(on, each) for each in scenarios(asked, on)]
    if order.suite:
        from llmctl.lab import standard

        shapes, left_out = standard.plays(client, asked, environ)
        plays += shapes
    for each in {id(on): on for on, _ in plays}.values():
        order.expectations.check(each)
    if order.name:
        plays = [(on, each._replace(id=f"{order.name}: {each.id}")) for on, each in plays]
    return Ready(order, plays, left_out)


# ---------------------------------------------------------------- what it may cost


def _estimate(ready: Sequence[Ready]) -> int | None:
    """What it all costs at most, in nano-dollars: nothing offline, None when a price is unknown."""
    from llmctl.lab.drill import estimate_nanousd

    costs: list[int | None] = []
    for each in ready:
        if each.order.drill.live:  # on one chain, with one prompt: judging any of its answers costs the same
            judging = each.order.expectations.judging_nanousd(each.plays[0][0])
            costs += [estimate_nanousd(play, judging) for play in each.plays]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _unpriced(ready: Sequence[Ready]) -> list[str]:
    """Who may be asked at a price that nobody knows."""
    from llmctl.lab.drill import open_in

    plays = [play for each in ready if each.order.drill.live for play in each.plays]
    asked = [each for on, scenario in plays for each in open_in(on, scenario)]
    return list(dict.fromkeys(each.id for each in asked if each.price is None)) or ["the judge"]


def _refuse_what_is_too_dear(ready: Sequence[Ready], max_cost: float | None) -> None:
    """Raise BudgetExceeded where more may be spent than allowed: in all by the line, for each drill by its own word."""
    groups = [(max_cost, list(ready))] if max_cost is not None else [(r.order.drill.max_cost_usd, [r]) for r in ready]
    for cap, group in groups:
        estimated = 0 if cap is None else _estimate(group)
        if estimated is None:
            who = ", ".join(_unpriced(group))
            raise UsageError(
                f"--max-cost cannot be held: nobody knows the price of {who}", hint="say it: price = {...} in [models]"
            )
        if cap is not None and estimated > cap * NANO:
            raise BudgetExceeded(
                f"this drill may cost ${estimated / NANO:.6f}, more than --max-cost ${cap:g}; nothing was sent",
                hint="raise --max-cost, or rehearse less: --inject instead of --matrix",
            )


# ---------------------------------------------------------------- playing


async def _play(client: Client, ready: Sequence[Ready], max_cost: float | None, course: Course, out: Out) -> int:
    """Play it all; what becomes known is kept in `course`. The exit code of what stopped it, 0 for nothing."""
    import asyncio

    from llmctl.cli.running import Stop
    from llmctl.lab.drill import rehearse

    stop = Stop(None, out)
    left = max_cost
    try:
        try:
            for order, plays, _ in ready:
                course.begin(order.name, order.drill)
                cap = order.drill.max_cost_usd if left is None else left
                _, spent = await rehearse(
                    plays, order.expectations, max_cost_usd=cap, begun=stop.watch, done=course.add
                )
                left = None if left is None else left - spent / NANO
        finally:
            course.erase()
            await client.aclose()
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not stop.exit_code:
            raise
    finally:
        stop.end()
    return stop.exit_code
