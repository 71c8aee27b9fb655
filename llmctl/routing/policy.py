"""The bounds of one call, apart from the machine that keeps to them: whoever only states them need not load it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds of one call; seconds. `restart` allows another target after the answer had begun to be shown.

    `strategy` stands in for that of every group.
    """

    retries: int = 2
    tries: int = 6
    patience_s: float = 5.0
    max_wait_s: float = 60.0
    total_s: float = 300.0
    restart: bool = False
    strategy: str | None = None
