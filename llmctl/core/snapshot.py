"""What is known of every deployment at one instant: `routing/book` makes it, call machine and strategies read it.

All instants are Unix seconds, all durations seconds. A deployment that is absent has no history: free to start now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_BUDGET_FULL = 10.0
RETRY_BUDGET_FLOOR = 5.0


class Said(NamedTuple):
    """What a provider said of one limit: how much it is, what remains of it, and in how many seconds it is whole again.

    `meter` is "rpm", "tpm", "itpm" or "otpm" (a minute's requests, tokens, input tokens, output tokens), or "rpd" or
    "tpd" (a day's). What it did not say is None.
    """

    meter: str
    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment now, for a request of this size.

    Out until `cooldown_until` and `blocked_until`, short of headroom until `headroom_at` (infinity: the request is
    larger than a limit). `half_open` after an ejection; `probed_until` while somebody tries it out; `back_at` when it
    came back. `first_token_s` and `per_token_s` are measured, at `measured_at`, or taken from its peers.
    `samples` are (instant, seconds) of the last answers; `fill` is the used share of its fullest limit; `width` how
    many requests it serves side by side without slowing down, as far as is known.
    """

    cooldown_until: float = 0.0
    headroom_at: float = 0.0
    blocked_until: float = 0.0
    why: str = ""
    half_open: bool = False
    probed_until: float = 0.0
    back_at: float = 0.0
    fails: int = 0
    in_flight: int = 0
    overdue_s: float = 0.0
    first_token_s: float = 1.0
    per_token_s: float = 0.02
    measured_at: float = 0.0
    samples: tuple[tuple[float, float], ...] = ()
    fill: float = 0.0
    used_tokens: float = 0.0
    width: float = 1.0
    headroom: Mapping[str, float] = field(default_factory=dict)


FREE = DeploymentState()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Limits, cooldowns and retry budgets at one instant, by deployment id and by credential key.

    `prompt_tokens` and `output_tokens` are what the request is expected to take; `turn` counts the group's decisions.
    `demand` is what was asked of the group lately, as a share of what its limits allow; `overtaking` the part of it
    that was asked for by requests much smaller than this one.
    """

    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)
    retry_budget: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0
    turn: int = 0
    since_probe: int = 0
    demand: float = 0.0
    overtaking: float = 0.0

    def of(self, deployment_id: str) -> DeploymentState:
        """The state of one deployment."""
        return self.deployments.get(deployment_id, FREE)

    def may_retry(self, credential: str) -> bool:
        """Whether the retry budget of a credential still allows a retry."""
        return self.retry_budget.get(credential, RETRY_BUDGET_FULL) >= RETRY_BUDGET_FLOOR
