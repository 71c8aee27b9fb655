"""The standard suite: sixteen shapes of failure that every chain should survive, and what is right in each.

It is judged from both sides: what the caller got, and what the provider saw. The shapes are those of a published crash
test of gateways (github.com/failoverbench/failoverbench, METHODOLOGY.md, read 2026-11-20), in our own words and code.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmctl.client import Client
from llmctl.core.errors import UsageError
from llmctl.core.faults import schedule
from llmctl.lab.drill import stage
from llmctl.lab.scenarios import Scenario, expected
from llmctl.lab.verdict import EARLY, MOST_ATTEMPTS, Assertion
from llmctl.run import extras
from llmctl.wire import PROTOCOLS
from llmctl.wire.scripted import has_prefill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment, Settings
    from llmctl.lab.chain import Chain, End
    from llmctl.lab.drill import Drill, Play
    from llmctl.lab.rehearsal import Rehearsal, Stage, Told
    from llmctl.lab.scenarios import Check

WINDOWS = {"small": 8_192, "large": 131_072}
"""Primary and fallback of a made-up chain: a model each, of which nobody has heard, and its window."""
TIMEOUTS = {"first_token": "5s", "idle": "10s"}
MARGIN_S = 5.0
"""How much later than its own limits allow a chain may come to its answer."""
BACK_S = 30.0
"""How long after an outage the primary may still be left out."""
DEAD_REQUESTS = 10
"""The most requests that a target gets in a minute in which it answers none."""
LATE = 1.05
"""How many times its Retry-After a target may be left waiting by plan."""
Ends = Literal["table", "answer", "primary", "anybody"]


class Shape(NamedTuple):
    """One row of the suite; `ends` is "table" where the error table says how, whatever it says.

    "answer": as it says, but with an answer, "primary": answered by link 1, "anybody": by whoever it is. A fault that
    passes strikes one target only, so that its peers stay well. `calls` are `every_s` apart.
    """

    id: str
    fault: str
    ends: Ends
    checks: tuple[Check, ...] = ()
    alone: bool = False
    streamed: bool = False
    calls: int = 1
    every_s: float = 0.0


def plays(client: Client, drill: Drill, environ: Mapping[str, str]) -> tuple[list[Play], list[str]]:
    """What the suite rehearses, and sentences about what had to be left out of it (an extra is not installed).

    With `drill.model` it is that chain; without, offline only, a made-up chain of two for each protocol. The shapes say
    what is injected and what is streamed: the rest of `drill` is for other drills. Raises UsageError as `stage` does.
    """
    if drill.model:
        on = stage(client, drill, environ)
        return _on(on if drill.live else _unpaced(on)), []
    if drill.live:
        raise UsageError("--suite standard --live needs a model", hint="the made-up chains are drilled with --offline")
    out = [name for name in PROTOCOLS if name in extras.EXTRAS and not extras.installed(name)]
    made = Client(_made_up(), environ={}, ledger=client.ledger)
    found: list[Play] = []
    for protocol in PROTOCOLS:
        if protocol not in out:
            found += _on(stage(made, replace(drill, model=f"standard-{protocol}"), {}))
    lacks = [(name, extras.missing(name, f"the protocol {name!r}")) for name in out]
    return found, [f"{name} was not drilled: {error.message} ({error.hint})" for name, error in lacks]


def _made_up() -> dict[str, Any]:
    """The configuration of the made-up chains. Each deployment has a key of its own."""
    models: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        names = (f"standard-{protocol}", f"standard-{protocol}-fallback")
        for name, (model, window) in zip(names, WINDOWS.items(), strict=True):
            models[name] = {"model": f"{protocol}/{model}", "context_window": window, "api_key": f"made-up-{name}"}
        models[names[0]]["fallbacks"] = [names[1]]
    return {"models": models, "timeout": TIMEOUTS}


def _unpaced(on: Stage) -> Stage:
    """`on` without the chain's own requests a minute: the pace of the shapes is ours, and no real quota is spent."""

    def changed(each: Deployment) -> Deployment:
        return replace(each, limits=each.limits._replace(rpm=None))

    members = [
        each._replace(
            group=replace(each.group, deployments=tuple(map(changed, each.group.deployments))),
            deployment=changed(each.deployment),
        )
        for each in on.chain.members
    ]
    return replace(on, chain=replace(on.chain, members=tuple(members)))


def _on(where: Stage) -> list[Play]:
    settings = where.client.catalog.settings
    return [(where, _scenario(each, where.chain, settings)) for each in shapes(where.chain, settings)]


def shapes(chain: Chain, settings: Settings) -> tuple[Shape, ...]:
    """The sixteen, with the bounds that the time limits of this chain allow; two of them are streamed as well."""
    first = [settings.first_token_of(each) for each in _primaries(chain)]
    late = f"slow@{max(first) + 2 * MARGIN_S:g}"
    silent = took(max(100.0, sum(first) + MARGIN_S))
    # It is told to go on at once: whoever answers is right.
    hasty = not (settings.retries and settings.patience_s and settings.max_wait_s)
    once: Ends = "anybody" if hasty else "primary"
    twice = () if hasty else (again,)
    stalled = took(max(45.0, len(first) * settings.idle_s + MARGIN_S))
    return (
        Shape("throttled-once", "429@2s*1", once, twice, alone=not hasty),
        Shape("throttled", "429", "answer", (asked(4, within_s=3.0),)),
        Shape("error-once", "500*1", once, twice, alone=not hasty and _needs_all_tries(chain, settings)),
        Shape("down", "503", "answer", (asked(MOST_ATTEMPTS),)),
        Shape("reset", "reset", "answer"),
        Shape("silent", "timeout", "answer", (asked(1), silent)),
        Shape("late", late, "answer", (asked(1), took(max(15.0, sum(first) + 2 * MARGIN_S)))),
        Shape("cut", "cut@40", "answer"),
        Shape("cut/streamed", "cut@40", "table", (broken_off,), streamed=True),
        Shape("stalled", "stall@20", "answer", (asked(1), stalled)),
        Shape("stalled/streamed", "stall@20", "table", (asked(1), broken_off, stalled), streamed=True),
        Shape("broken-event", "badjson", "primary", (asked(1, in_all=1), word_for_word)),
        Shape("no-terminator", "nodone", "primary", (asked(1, in_all=1), word_for_word, took(8.0), counted)),
        Shape("too-long", "context", "table", (asked(1),)),
        Shape("filtered", "filter", "table", (asked(1),)),
        Shape("cut-no-prefill", "cut@40", "answer", (no_prefill,)),
        Shape("outage", "down@60", "anybody", (back_again,), calls=26, every_s=4.0),
        Shape("named", "503", "answer", (named, counted)),
    )


def _scenario(shape: Shape, chain: Chain, settings: Settings) -> Scenario:
    what = schedule(shape.fault)
    target = _primaries(chain)[0].id if what.faults[0].times and len(chain.of_link(1)) > 1 else "primary"
    ends: dict[str, End | None] = {
        "primary": chain.served(1),
        "table": expected(chain, 1, what.faults[0], settings, streamed=shape.streamed),
        "anybody": None,
    }
    ends["answer"] = ends["table"] if ends["table"] and ends["table"].served else None
    checks = (*shape.checks, own_keys)
    end, injections = ends[shape.ends], ((target, what),)
    return Scenario(shape.id, injections, end, shape.calls, shape.every_s, shape.streamed, shape.alone, checks)


def _primaries(chain: Chain) -> list[Deployment]:
    """Those of link 1 that can be asked; all of them where nobody can."""
    members = chain.of_link(1)
    return [each.deployment for each in members if each.obstacle is None] or [each.deployment for each in members]


def _needs_all_tries(chain: Chain, settings: Settings) -> bool:
    """Whether the other links need the tries that are left after the first, so that it gets no second one."""
    return len({member.link for member in chain.able()}) >= settings.tries


# ---------------------------------------------------------------- what a shape is held to


def asked(most: int, *, within_s: float = inf, in_all: int = MOST_ATTEMPTS) -> Check:
    """Each target of link 1 has at most `most` requests in any `within_s` seconds, all together have `in_all`."""

    def check(rehearsal: Rehearsal) -> Assertion:
        busiest = 0
        for name in _ids(rehearsal):
            at = [sent.at for sent in rehearsal.sent if sent.deployment == name]
            busiest = max([busiest, *(sum(start <= each <= start + within_s for each in at) for start in at)])
        span = "" if within_s == inf else f" in {within_s:g} s"
        detail = f"{busiest} at one target of link 1{span} (at most {most}), {len(rehearsal.sent)} in all ({in_all})"
        return Assertion("requests", busiest <= most and len(rehearsal.sent) <= in_all, detail)

    return check


def took(most_s: float) -> Check:
    """Every call ends in time; what a real provider took is not counted."""

    def check(rehearsal: Rehearsal) -> Assertion:
        longest = max((_own_s(told) for told in rehearsal.calls), default=0.0)
        return Assertion("time", longest <= most_s, f"{longest:.1f} s, at most {most_s:g} s")

    return check


def again(rehearsal: Rehearsal) -> Assertion:
    """The struck target is asked once more, and when it said; a peer in its link that answers is as good."""
    ((_, what),) = rehearsal.scenario.injections
    struck = [sent for sent in rehearsal.sent if sent.deployment in _ids(rehearsal)]
    peers = {sent.deployment for sent in struck[1:]} - {sent.deployment for sent in struck[:1]}
    if peers:
        return Assertion("again", True, f"{min(peers)} of the same link was asked at once")
    if len(struck) != 2:
        return Assertion("again", False, f"the target was asked {len(struck)} times, not twice")
    gap_s, wait_s = struck[1].at - struck[0].at, what.faults[0].number
    planned_s = sum(pause.wait_s for told in rehearsal.calls for pause in told.pauses if pause.before == 2)
    detail = f"asked again after {gap_s:.2f} s, {planned_s:.2f} s of them planned"
    if wait_s is None:
        return Assertion("again", True, detail)
    # What is planned begins with the plan, a little after the answer: from the answer on, it is the gap that counts.
    ok = gap_s >= EARLY * wait_s and planned_s <= LATE * wait_s
    return Assertion("again", ok, f"{detail}; {wait_s:g} s were asked for")


def broken_off(rehearsal: Rehearsal) -> Assertion:
    """What was shown of an answer that broke is its beginning, and is never called whole."""
    told = rehearsal.calls[-1]
    begins = bool(told.shown) and rehearsal.scripted.startswith(told.shown) and told.shown != rehearsal.scripted
    much = f"{len(told.shown)} of {len(rehearsal.scripted)} characters"
    detail = f"{much} were shown, and the call is {told.record.state}"
    return Assertion("broken off", begins and told.record.state != "ok", detail)


def word_for_word(rehearsal: Rehearsal) -> Assertion:
    """The answer is what the stand-in said, also live."""
    ok = all(told.text == rehearsal.scripted for told in rehearsal.calls)
    return Assertion("words", ok, "word for word what was said" if ok else "not what was said")


def counted(rehearsal: Rehearsal) -> Assertion:
    """The answer's tokens are those that the provider reported."""
    record = rehearsal.calls[-1].record
    detail = f"{record.input_tokens} in, {record.output_tokens} out{', estimated' * record.tokens_estimated}"
    ok = bool(record.input_tokens and record.output_tokens) and not record.tokens_estimated
    return Assertion("usage", ok, detail)


def no_prefill(rehearsal: Rehearsal) -> Assertion:
    """Nobody is given the beginning of an answer to go on with: many models refuse that."""
    wires = {member.deployment.id: member.deployment.provider.protocol for member in rehearsal.chain.members}
    heard = [(sent.deployment, sent.heard) for sent in rehearsal.sent if sent.heard is not None]
    given = [name for name, each in heard if has_prefill(wires[name], each.body)]
    unseen = f", {len(rehearsal.sent) - len(heard)} that no stand-in saw" if len(heard) < len(rehearsal.sent) else ""
    detail = f"{given[0]} was given the beginning of an answer" if given else f"{len(heard)} requests without{unseen}"
    return Assertion("no prefill", not given, detail)


def back_again(rehearsal: Rehearsal) -> Assertion:
    """Link 1 is left alone while it is down, and serves again soon after."""
    ((_, what),) = rehearsal.scenario.injections
    mine = [sent for sent in rehearsal.sent if sent.deployment in _ids(rehearsal)]
    dead = sum(sent.fault is not None for sent in mine)
    if dead > DEAD_REQUESTS * len(_ids(rehearsal)):
        return Assertion("back again", False, f"{dead} requests went to it while it was down")
    due = (mine[0].at if mine else inf) + (what.faults[0].number or 0.0) + BACK_S
    late = [told.record for told in rehearsal.calls if told.record.started_at >= due]
    missed = [record for record in late if record.deployment not in _ids(rehearsal)]
    if missed or not late:
        who = f"served by {missed[0].deployment}" if missed else "nobody asked"
        return Assertion("back again", False, f"{BACK_S:g} s after its return: {who}")
    return Assertion("back again", True, f"{dead} requests while it was down; it served the last {len(late)} calls")


def named(rehearsal: Rehearsal) -> Assertion:
    """The record names the fallback that served, down to the model that the wire reports."""
    told = rehearsal.calls[-1]
    record = told.record
    later = {member.deployment.id: member.deployment for member in rehearsal.chain.members if member.link > 1}
    by = later.get(record.deployment or "")
    if by is None or (record.served_by, record.provider, record.fallback) != (by.served_by, by.provider.name, True):
        return Assertion("named", False, f"{record.served_by} ({record.deployment}) is no fallback of this chain")
    right = {by.base_model or by.model} | ({None} if by.provider.protocol == "bedrock" else set())
    ok = not told.stood_in or record.reported_model in right
    return Assertion("named", ok, f"{record.served_by}, which reports {record.reported_model or 'no model'}")


def own_keys(rehearsal: Rehearsal) -> Assertion:
    """Offline, each request carries the key of its own target, and nobody else's; live, no stand-in is shown one."""
    keys = {member.deployment.id: member.deployment.api_key for member in rehearsal.chain.members}
    said = [(sent.deployment, sent.heard.headers.values()) for sent in rehearsal.sent if sent.heard]
    heard = [] if rehearsal.live else [(name, set(" ".join(values).split())) for name, values in said]
    wrong = [name for name, words in heard if words & set(keys.values()) != {keys[name]}]
    detail = f"{wrong[0]} was shown another key" if wrong else f"{len(heard)} requests with the key of their target"
    return Assertion("keys", not wrong, detail)


def _ids(rehearsal: Rehearsal) -> set[str]:
    return {member.deployment.id for member in rehearsal.chain.of_link(1)}


def _own_s(told: Told) -> float:
    """How long a call took, without the attempts at real providers."""
    real = sum(a.latency_ms or 0.0 for a, sent in zip(told.attempts, told.sent, strict=True) if sent and sent.real)
    return ((told.record.latency_ms or 0.0) - real) / 1000
