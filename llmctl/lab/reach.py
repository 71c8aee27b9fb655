"""Asking every provider that has a key for the list of its models, which costs nothing.

Is it there, does it take the key, how long does it take, and what time does it think it is?
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.core.catalog import Deployment
from llmctl.core.errors import LlmctlError, TimedOut
from llmctl.core.redact import Secret
from llmctl.lab.files import Finding
from llmctl.run import aside
from llmctl.wire.base import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.client import Client
    from llmctl.run.aside import Question
    from llmctl.wire.base import Endpoint, HttpRequest

LIVE_S = 10.0
"""How long one provider is waited for; all are asked at once."""
_SKEW_S = 30.0
_NO_LIST = ("ModelNotFound", "InvalidRequest")


def targets(client: Client, present: Mapping[str, str]) -> list[Deployment]:
    """One deployment for each place and key that could be asked: providers with a key, and configured groups."""
    catalog, endpoints = client.catalog, client.endpoints
    found = [Deployment(id=name, provider=catalog.providers[name], model="-") for name in present]
    for group in catalog.groups.values():
        found += [each for each in group.deployments if not group.built_in and not each.is_local]
    chosen: dict[tuple[str, str, str], Deployment] = {}
    for each in found:
        address = each.api_base or each.provider.api_base
        if endpoints.has_credential(each):
            chosen.setdefault((each.provider.name, address, endpoints.identity(each)), each)
    return list(chosen.values())


async def reach(client: Client, deployments: list[Deployment]) -> list[Finding]:
    """What was found at each of them, and of the clock."""
    skews: dict[str, float] = {}
    try:
        found = list(await asyncio.gather(*(_one(client, each, skews) for each in deployments)))
    finally:
        await client.aclose()
    if skews:
        name, skew = sorted(skews.items(), key=lambda row: row[1])[len(skews) // 2]
        off = abs(skew) > _SKEW_S
        what = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {name}'s" if off else f"agrees with {name}'s"
        hint = "set the clock: signatures, budgets and caches go by it" if off else ""
        found.append(Finding("clock", "warn" if off else "ok", what, hint))
    return found


async def _one(client: Client, deployment: Deployment, skews: dict[str, float]) -> Finding:
    name, clock = deployment.provider.name, client.engine.clock
    check = f"{deployment.id} live"

    def heard(headers: Mapping[str, str]) -> None:
        theirs = _date(headers.get("date", ""))
        if theirs is not None:
            skews[name] = clock.now() - theirs

    obstacle = client.endpoints.obstacle(deployment)
    if obstacle is not None:
        return Finding(check, "warn", f"not asked: {obstacle.message}", obstacle.hint)
    listing = load(deployment.provider.protocol).listing
    began = clock.monotonic()
    try:
        async with asyncio.timeout(LIVE_S):
            await aside.document(client.engine, deployment, listing, heard)
    except TimeoutError:
        return Finding(check, "fail", f"no answer within {LIVE_S:g} s", exit=TimedOut("").exit_code)
    except LlmctlError as error:
        if error.kind in _NO_LIST and error.status:
            what = f"there, in {(clock.monotonic() - began) * 1000:.0f} ms; it has no list of models to try the key on"
            return Finding(check, "ok", what)
        return Finding(
            check, "fail", error.message.removeprefix(f"{deployment.served_by}: "), error.hint, error.exit_code
        )
    took = f"there, in {(clock.monotonic() - began) * 1000:.0f} ms"
    return Finding(check, "ok", f"{took}; {await _word_on_key(client, deployment, listing)}")


async def _word_on_key(client: Client, deployment: Deployment, listing: Question) -> str:
    """Whether the list proves the key: some are told to anybody."""

    def keyless(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
        return listing(deployment, replace(endpoint, key=Secret(""), headers={}))

    if not client.endpoints.key_place(deployment.provider, deployment.api_key or deployment.provider.api_key).present:
        return "no key is set"
    with suppress(TimeoutError, LlmctlError):
        async with asyncio.timeout(LIVE_S):
            await aside.document(client.engine, deployment, keyless)
        return "its list is public: `llmctl models check MODEL --live` tries the key"
    return "the key is accepted"


def _date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
