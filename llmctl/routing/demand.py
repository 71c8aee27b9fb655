"""How much is asked of a group, by size, as a share of what all its limits allow: kept in the document of the group.

`demand` [at, {size class: share}], each share fading with `FADES_S`. In a lasting overload the largest requests are
hopeless: what waits ahead of them, and much smaller ones that will come, take all there is for as long as they can
wait. They are better told so at once than after their patience.
"""

from __future__ import annotations

from math import exp, log, log2
from typing import Any

FADES_S = 120.0
"""Bursts of a minute or two are waited out; what lasts longer is an overload."""
OVERLOAD = 1.2
"""From this share on, lastingly, not everybody can be served."""
DEEP = 1.35
"""From here on even a firm place yields to much smaller requests; a rush of some minutes does not come so far."""
OVERTAKES = 1.6
"""How many times smaller a request is that is sure to overtake a waiting one; those of nearly its size take turns."""
PASSES = 3.0
"""How many times smaller it must be to pass even a firm place, in a deep overload: only the largest are refused."""
_FORGOTTEN = 1e-4


def count(group: dict[str, Any], now: float, tokens: int, minutes: float) -> None:
    """Take in a request of so many tokens, which takes so many minutes of all deployments together."""
    at, shares = group.get("demand", (now, {}))
    fades = exp(-max(0.0, now - at) / FADES_S)
    shares = {size: share * fades for size, share in shares.items() if share * fades > _FORGOTTEN}
    size = str(_class(tokens))
    shares[size] = shares.get(size, 0.0) + minutes * 60.0 / FADES_S
    group["demand"] = [now, shares]


def share(group: dict[str, Any]) -> float:
    """What was asked for lately, as a share of what all limits allow."""
    return float(sum(group["demand"][1].values())) if "demand" in group else 0.0


def is_overload(group: dict[str, Any], now: float) -> bool:
    """Whether there is too much demand now."""
    return "demand" in group and share(group) * exp(-max(0.0, now - group["demand"][0]) / FADES_S) >= OVERLOAD


def overtaking(group: dict[str, Any], tokens: int) -> float:
    """The part of that share that is asked for by requests so much smaller that they overtake one of so many tokens."""
    shares = group["demand"][1] if "demand" in group else {}
    return float(sum(n for size, n in shares.items() if int(size) < _class(int(tokens / OVERTAKES))))


def lasts_s(demand: float) -> float:
    """How long an overload lasts at least: until this share has faded, if nothing more is asked."""
    return FADES_S * log(max(1.0, demand / OVERLOAD))


def _class(tokens: int) -> int:
    """Four classes to each doubling."""
    return int(4 * log2(tokens + 1))
