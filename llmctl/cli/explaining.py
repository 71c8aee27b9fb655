"""Who was chosen and why each other was not, for people: of a call that is made, or of one that is only tried out.

Looking leaves no trace: where there is no shared state yet, none is made.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from llmctl.cli.output import say, table
from llmctl.client import Client
from llmctl.lab.preview import preview
from llmctl.routing.call import Done, Fail
from llmctl.routing.explain import explain
from llmctl.run.observe import AttemptEnded, CallStarted, Decided
from llmctl.run.shared import MemoryState

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.lab.preview import Preview
    from llmctl.routing.explain import Candidate
    from llmctl.routing.plan import Plan
    from llmctl.run.observe import Notice

_COLUMNS = ("link", "deployment", "reason", "rpm", "tpm", "latency_ms", "in_flight", "cooldown_s")


class Explained:
    """A hook that keeps the candidates of each decision of a call, and says them as lines."""

    def __init__(self, strategy: str | None) -> None:
        """`strategy` is the call's own, if it has one."""
        self.candidates: list[Candidate] = []
        self._strategy = strategy
        self._plan: Plan | None = None
        self._failed: dict[str, str] = {}

    def __call__(self, notice: Notice) -> list[str]:
        """The lines that one notice of the engine gives rise to; none for most."""
        match notice:
            case CallStarted(plan=plan):
                self._plan = plan
            case AttemptEnded(attempt=attempt, error=error) if error is not None:
                self._failed[attempt.deployment] = error.kind
            case Decided(decision, snapshot, now) if self._plan is not None and not isinstance(decision, Done):
                found = explain(self._plan, snapshot, now, decision, self._strategy, self._failed)
                if any(each.chosen for each in found):
                    self.candidates = found
                return [f"{each.deployment.id}: {each.reason}" for each in found]
        return []


def onlooker(context: Context, seed: int | None = None) -> Client:
    """A client that only looks: it reads the shared state where there is one, and makes no file."""
    state = None if context.places.state.exists() else MemoryState()
    rng = None if seed is None else random.Random(seed)  # noqa: S311 - a strategy's dice
    return Client(context.config_flags or None, environ=context.environ, state=state, rng=rng)


def look(client: Client, message: str | None, options: dict[str, Any], repeat: int = 0) -> Preview:
    """What the call would do now. Raises what it would raise before anything is decided."""
    found = asyncio.run(preview(client.engine, client.call(message, **options), repeat))
    warn(client)
    return found


def warn(client: Client) -> None:
    """Say what trouble there was with the shared state, the prices and the kept keys."""
    for warning in client.warnings():
        say(f"warning: {warning}")


def print_candidates(candidates: list[Candidate]) -> None:
    """The candidates as a table."""
    rows = [{"link": each.link, **each.as_json(), **each.headroom} for each in candidates]
    table(_COLUMNS, rows, right=("link", *_COLUMNS[3:]), keep=("deployment",), spare=_COLUMNS[3:], wrap=("reason",))


def end(found: Preview) -> None:
    """Raise the error that the call would end in, if it would."""
    if isinstance(found.decision, Fail):
        found.decision.error.chain_exit = found.decision.exit
        raise found.decision.error
