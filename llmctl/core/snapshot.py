"""What is known of every deployment at one instant. The call machine reads it; stores make it.

All instants are Unix seconds. A deployment that is absent has no history: free to start now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_BUDGET_FULL = 10.0
RETRY_BUDGET_FLOOR = 5.0


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment now: out until `cooldown_until`, and short of headroom until `headroom_at`."""

    cooldown_until: float = 0.0
    headroom_at: float = 0.0


_FREE = DeploymentState()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Limits, cooldowns and retry budgets at one instant, by deployment id and by credential key."""

    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)
    retry_budget: Mapping[str, float] = field(default_factory=dict)

    def ready_at(self, deployment_id: str, *, despite_cooldown: bool = False) -> float:
        """The earliest instant at which the deployment may start."""
        state = self.deployments.get(deployment_id, _FREE)
        return state.headroom_at if despite_cooldown else max(state.headroom_at, state.cooldown_until)

    def may_retry(self, credential: str) -> bool:
        """Whether the retry budget of a credential still allows a retry."""
        return self.retry_budget.get(credential, RETRY_BUDGET_FULL) >= RETRY_BUDGET_FLOOR
