"""A contract probe: does a model at its provider still do what our wire believes of it?

Every step is a real call of the engine (encode, HTTP, decode, clocks, error classes, ledger row) to one deployment,
once, without fallback, keeping no text. What a provider does makes a step fail; it never makes it raise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import LlmctlError
from llmctl.core.money import usd
from llmctl.lab.steps import REQUESTS, STEPS, Outcome, Target
from llmctl.run.accounts import estimate_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmctl.client import Client
    from llmctl.core.catalog import Deployment

FREE = "listed"
"""The step that says nothing of the credential, because many lists are public."""
_ENDS = ("Unauthorized", "MissingCredential", "ConfigInvalid", "ConnectionFailed", "TimedOut", "QuotaExhausted")
"""Failures of the first step after which the others would only fail alike."""
_MOST_TEXT = 200
_ANSWER_TOKENS = 25


@dataclass(frozen=True, slots=True)
class Probe:
    """One step and how it ended. `cost_usd` is None when nothing was spent, or nobody knows how much."""

    name: str
    outcome: Outcome
    detail: str
    latency_ms: float | None = None
    cost_usd: float | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The step as `models check --json` shows it."""
        return asdict(self) | {"latency_ms": None if self.latency_ms is None else round(self.latency_ms, 1)}


@dataclass(frozen=True, slots=True)
class Check:
    """All steps of one deployment; `refused` is why none of them could be tried, where that lies with us."""

    deployment: Deployment
    probes: tuple[Probe, ...]
    refused: LlmctlError | None = None

    def as_json(self) -> dict[str, Any]:
        """The check as `models check --json` shows it."""
        deployment = self.deployment
        return {
            "deployment": deployment.id,
            "provider": deployment.provider.name,
            "model": deployment.model,
            "served_by": deployment.served_by,
            "probes": [probe.as_json() for probe in self.probes],
        }


def about_tokens(deployments: int) -> int:
    """About how many tokens checking so many deployments takes, in and out together."""
    return deployments * sum(estimate_prompt(request) + _ANSWER_TOKENS for request in REQUESTS.values())


async def check(client: Client, name: str, deployment: Deployment) -> Check:
    """The steps of one deployment, in order; `name` is what the user called it."""
    obstacle = client.endpoints.obstacle(deployment)
    if obstacle is not None:
        return Check(deployment, _not_tried(STEPS, obstacle.message), obstacle)
    probes: list[Probe] = []
    for n, step in enumerate(STEPS):
        target = Target(client, name, deployment, step)
        probes.append(await _probed(target))
        error = target.error
        first = all(probe.name == FREE or probe.outcome == "skipped" for probe in probes[:-1])
        if first and error is not None and error.kind in _ENDS:
            rest = _not_tried(list(STEPS)[n + 1 :], f"{step} failed with {error.kind}")
            return Check(deployment, (*probes, *rest), error if error.rule.exit in (3, 4) else None)
    return Check(deployment, tuple(probes))


def _not_tried(steps: Iterable[str], why: str) -> tuple[Probe, ...]:
    return tuple(Probe(name, "skipped", f"not tried: {_short(why)}") for name in steps)


async def _probed(target: Target) -> Probe:
    """The step's probe. Whatever is one of our errors makes it fail."""
    clock = target.client.engine.clock
    began = clock.monotonic()
    try:
        outcome, detail = await STEPS[target.step](target)
    except LlmctlError as error:
        target.error = error
        outcome, detail = "failed", error.message.removeprefix(f"{target.deployment.served_by}: ")
    tried = outcome != "skipped" or target.run is not None
    return Probe(
        target.step,
        outcome,
        _short(detail),
        latency_ms=(clock.monotonic() - began) * 1000 if tried else None,
        cost_usd=usd(target.run.record.cost_nanousd) if target.run else None,
        error=target.error.kind if target.error else None,
    )


def _short(text: str) -> str:
    """`text` as one harmless line."""
    line = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 1]}…"
