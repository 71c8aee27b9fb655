"""Other clients under the shapes of the standard suite: stand-ins that stay, the peers, and the verdict on each.

Each peer is driven as its documentation says, with 2 retries, 30 s (which both begin anew with each try), 10 s for a
first token and, where it can, one fallback. They have no faster clock: all shapes run at once. What is about a stream
is streamed to them.

pass: as the shape wants it. partial: rescued, but an advisory bound was broken. safe: a clean error within 100 s.
fail: no end within 100 s, anything but the whole answer given as the answer, or a retry that must not be.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
import re
import sys
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.faults import OK, Fault, schedule
from llmctl.lab import drill, standard
from llmctl.run.clock import SystemClock
from llmctl.run.faults import PLAYS, REFUSED, SENTENCE, WELL, Exchange, Play, Sent
from llmctl.wire.scripted import has_prefill

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmctl.lab.standard import Shape

    Ask = Callable[[bool], Awaitable[Any]]
    Peer = Callable[[str, str, bool], Ask]
    Cell = tuple[str, str]

WORDS = ("pass", "partial", "safe", "fail")
LONGEST_S = 100.0

# ---------------------------------------------------------------- the provider that stays

PIECES = tuple(re.findall(r"\S+ ?", SENTENCE))


async def _break_chunk(x: Exchange) -> None:
    reply = x.answer()
    await x.say(reply, (*reply.opening, *reply.events[:40]))
    x.writer.write(b"100\r\ndata: ")


VARIANTS: dict[str, tuple[str, Play | None]] = {
    "reset/once": ("reset*1", None),
    "cut/chunk": ("cut@40", Play(_break_chunk)),
    "no-terminator/closed": ("nodone", Play(lambda x: x.say(x.answer()._replace(terminator=())))),
    "cut/whole": ("cut@40", None),
    "stalled/whole": ("stall@20", None),
}
"""Shapes that are played to peers beside the sixteen: the fault, and how it is played where that is otherwise."""


class Target:
    """One listener: plays its faults to whoever comes, request after request, on connections that stay open.

    A request that ends in the beginning of an answer is refused where that is `refused`.
    """

    def __init__(self, model: str, faults: str, *, refused: bool = False, play: Play | None = None) -> None:
        self.model, self.refused, self.play = model, refused, play
        self.faults = schedule(faults)
        self.sent: list[Sent] = []

    async def listen(self) -> asyncio.Server:
        """Its listener; `url` is the base of its API."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.CancelledError):
            while not reader.at_eof() and not writer.is_closing():
                sent = Sent(self.model, None, 0.0)
                x = Exchange(sent, Fault(OK), "openai", self.model, PIECES, SystemClock(), reader, writer)
                await x.hear()
                await self._turn(x)
                if sent.fault and sent.fault.name == "cut":
                    break
        writer.close()

    async def _turn(self, x: Exchange) -> None:
        x.sent.at = time.time()
        self.sent.append(x.sent)
        fault = self.faults.at(len(self.sent) - 1, random.random, x.sent.at - self.sent[0].at)
        x.sent.fault = fault
        if self.refused and x.sent.heard and has_prefill("openai", x.sent.heard.body):
            await REFUSED.act(x._replace(fault=Fault("400")))
        elif fault is None:
            await WELL.act(x)
        else:
            await (self.play or PLAYS[fault.name]).act(x._replace(fault=fault))


# ---------------------------------------------------------------- the peers, as their documentation drives them

STREAMED = ("late", "cut", "stalled", "broken-event", "no-terminator", "cut-no-prefill")
PROMPT = [{"role": "user", "content": drill.PROMPT}]


def openai_sdk(primary: str, _fallback: str, _alone: bool) -> Ask:
    """The SDK alone. Its timeout is one of each read: for a stream it bounds the first token too."""
    import httpx
    import openai

    client: Any = openai.AsyncOpenAI(api_key="made-up", base_url=primary, max_retries=2, timeout=30)
    streamed = {"stream_options": {"include_usage": True}, "timeout": httpx.Timeout(30, read=10)}
    create = client.chat.completions.create
    return lambda stream: create(model="small", messages=PROMPT, stream=stream, **(streamed if stream else {}))


def litellm_router(primary: str, fallback: str, alone: bool) -> Ask:
    """The Router with one fallback, also for prompts that are too long; `stream_timeout` is its first-token limit."""
    import litellm

    rows = [
        {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": url, "api_key": "made-up"}}
        for name, model, url in (("primary", "small", primary), ("fallback", "large", fallback))
    ]
    ways: Any = [] if alone else [{"primary": ["fallback"]}]
    limits = {"num_retries": 2, "timeout": 30, "stream_timeout": 10}
    router: Any = litellm.Router(model_list=rows, fallbacks=ways, context_window_fallbacks=ways, **limits)
    streamed = {"stream_options": {"include_usage": True}}
    create = router.acompletion
    return lambda stream: create(model="primary", messages=PROMPT, stream=stream, **(streamed if stream else {}))


PEERS: dict[str, Peer] = {"openai": openai_sdk, "litellm": litellm_router}


def installed() -> dict[str, Peer]:
    """The peers that are here, imported: what a first import takes is in no number."""
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    for package in PEERS:
        with suppress(ImportError):
            importlib.import_module(package).suppress_debug_info = True  # type: ignore[attr-defined]
    for name in ("LiteLLM", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return {package: peer for package, peer in PEERS.items() if package in sys.modules}


class Got(NamedTuple):
    """What one call came to; `by` is the model that the answer names, `status` that of an error."""

    text: str
    seconds: float
    error: str = ""
    status: int | None = None
    by: str = ""
    usage: bool = False
    finish: str = ""


async def call(ask: Ask, *, stream: bool) -> Got:
    """One call, read to its end as a user reads it."""
    began, text, by, finish, usage = time.monotonic(), "", "", "", False
    try:
        async with asyncio.timeout(LONGEST_S):
            answer = await ask(stream)
            if not stream:
                text, by, usage = answer.choices[0].message.content or "", answer.model, bool(answer.usage)
                return Got(text, time.monotonic() - began, "", None, by, usage, answer.choices[0].finish_reason)
            async for chunk in answer:
                by, usage = chunk.model or by, usage or bool(getattr(chunk, "usage", None))
                for choice in chunk.choices[:1]:
                    text, finish = text + (choice.delta.content or ""), choice.finish_reason or finish
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user would have got
        took, status = time.monotonic() - began, getattr(error, "status_code", None)
        return Got(text, took, "no end" if took >= LONGEST_S else type(error).__name__, status)
    return Got(text, time.monotonic() - began, "", None, by, usage, finish)


# ---------------------------------------------------------------- the verdicts


class Rule(NamedTuple):
    """What a shape asks for beside a whole answer. Time is advisory, and so is all that is no `must`.

    `primary`: it has to answer itself. `most`: requests to it in any `within_s` seconds; `in_all` counts the
    fallback's too. `gap_s`: the least time between its first two requests, advisory. `error`: a 400 is the right end.
    """

    primary: bool = False
    most: float = inf
    within_s: float = inf
    in_all: float = inf
    must: bool = True
    gap_s: float = 0.0
    longest_s: float = inf
    error: bool = False


RULES = {
    "throttled-once": Rule(primary=True, gap_s=1.8),
    "throttled": Rule(most=4, within_s=3, in_all=6),
    "error-once": Rule(primary=True),
    "down": Rule(in_all=6),
    "silent": Rule(most=1, must=False),
    "late": Rule(longest_s=15),
    "stalled": Rule(longest_s=45),
    "broken-event": Rule(primary=True),
    "no-terminator": Rule(primary=True, longest_s=8),
    "too-long": Rule(most=1),
    "filtered": Rule(most=1, error=True),
}


def judged(name: str, got: Got, primary: Target, fallback: Target) -> Cell:
    """The verdict on one call, and what was seen."""
    name = name.partition("/")[0]
    rule, at = RULES.get(name, Rule()), [sent.at for sent in primary.sent]
    busiest = max(sum(start <= each <= start + rule.within_s for each in at) for start in at)
    seen = f"{len(at)} + {len(fallback.sent)} requests, {got.seconds:.1f} s"
    given = f"{len(got.text)} of {len(SENTENCE)} characters"
    many = busiest > rule.most or len(at) + len(fallback.sent) > rule.in_all
    wrong = {
        "no end": got.error == "no end",
        "asked too often": many and rule.must,
        "the refused prefill hides the cut": name == "cut-no-prefill" and got.status == 400,
        f"{given} as the answer, finish reason {got.finish or None}": not got.error and got.text != SENTENCE,
    }
    advisory = {
        "asked too often": many,
        "asked again too soon": len(at) > 1 and at[1] - at[0] < rule.gap_s,
        "late": got.seconds > rule.longest_s,
        "answered by the fallback": rule.primary and bool(fallback.sent),
        "answered elsewhere": name == "filtered",
        f"names {got.by}": name == "named" and got.by.removeprefix("openai/") != fallback.model,
        "no usage": name in ("named", "no-terminator") and not got.usage,
    }
    if any(wrong.values()):
        return "fail", f"{_words(wrong)}; {seen}"
    if got.error:
        return "pass" if rule.error and got.status == 400 else "safe", f"{got.error} after {given}; {seen}"
    return ("partial", f"{_words(advisory)}; {seen}") if any(advisory.values()) else ("pass", seen)


def _words(true: dict[str, bool]) -> str:
    return ", ".join(word for word, is_so in true.items() if is_so)


def judged_outage(gots: list[tuple[float, Got]], primary: Target) -> Cell:
    """The verdict on many calls, each with its seconds since the first; the primary is down for 60 s."""
    failed = [got.error for _, got in gots if got.error]
    wrong = sum(got.text != SENTENCE for _, got in gots if not got.error) + failed.count("no end")
    late = [got.by.removeprefix("openai/") for at, got in gots if at >= 60 + standard.BACK_S]
    away = len(late) - late.count(primary.model)
    dead = sum(sent.fault is not None for sent in primary.sent)
    seen = (
        f"{len(failed)} of {len(gots)} calls failed; {dead} requests while it was down; of the last {len(late)} calls"
    )
    verdict = "fail" if wrong else "safe" if failed else "partial" if away else "pass"
    return verdict, f"{seen} it served {len(late) - away}"


async def played(peer: Peer, shape: Shape) -> Cell:
    """The verdict on one peer in one shape, with two listeners of its own."""
    name, _, variant = shape.id.partition("/")
    primary = Target("small", shape.fault, play=VARIANTS.get(shape.id, ("", None))[1])
    fallback = Target("large", OK, refused=shape.id == "cut-no-prefill")
    servers = [await target.listen() for target in (primary, fallback)]
    ask, gots, began = peer(primary.url, fallback.url, shape.alone), [], time.monotonic()
    for n in range(shape.calls):
        await asyncio.sleep(max(0.0, began + n * shape.every_s - time.monotonic()))
        at = time.monotonic() - began
        gots.append((at, await call(ask, stream=name in STREAMED and variant != "whole")))
    for server in servers:
        server.close()
    return judged(shape.id, gots[0][1], primary, fallback) if len(gots) == 1 else judged_outage(gots, primary)


async def all_played(peers: dict[str, Peer], shapes: list[Shape]) -> dict[str, list[Cell]]:
    cells = await asyncio.gather(*(played(peer, shape) for peer in peers.values() for shape in shapes))
    return {name: cells[n * len(shapes) :][: len(shapes)] for n, name in enumerate(peers)}
