"""The rules of routing as rows for people: the error matrix, the strategies, the bounds of a call.

They are read from where the machine reads them (`core/errors`, `routing/balance`, the settings), so they cannot be old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core import errors
from llmctl.core.catalog import MAX_LINKS, near_name
from llmctl.core.errors import MATRIX, UsageError
from llmctl.core.snapshot import RETRY_BUDGET_FLOOR, RETRY_BUDGET_FULL
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.book import BUDGET_PER_S, BUDGET_PER_SUCCESS
from llmctl.routing.call import BACKOFF_CAP_S, BACKOFF_S, LASTING_S
from llmctl.routing.demand import OVERLOAD

if TYPE_CHECKING:
    from llmctl.core.catalog import Settings

AGAIN = {"no": "no", "once": "once", "backoff": "after a pause", "patience": "after its wait"}
ONWARD = {
    "yes": "yes",
    "other_credential": "other key",
    "fitting_window": "larger window",
    "if_configured": "if configured",
    "no": "no",
}


def classes(name: str | None = None) -> list[dict[str, Any]]:
    """The rows of the error matrix, or the one of `name`. Raises UsageError for a class that is none."""
    if name is not None and name not in MATRIX:
        near = next((each for each in MATRIX if each.lower() == name.lower()), None)
        hint = f"did you mean {near!r}?" if near else near_name(name, MATRIX).partition(" (")[0]
        raise UsageError(f"no class of errors {name!r}", hint=hint or f"one of {', '.join(MATRIX)}")
    return [
        {
            "class": each,
            "again": AGAIN[rule.again],
            "next": ONWARD[rule.onward],
            "cooldown": rule.cooldown,
            "ejects": rule.ejects,
            "exit": rule.exit,
            "means": str(getattr(errors, each).__doc__),
        }
        for each, rule in MATRIX.items()
        if name in (None, each)
    ]


def strategies() -> list[dict[str, Any]]:
    """How each strategy chooses."""
    return [{"strategy": name, "reason": strategy.words} for name, strategy in STRATEGIES.items()]


def bounds(settings: Settings) -> list[dict[str, Any]]:
    """What bounds a call, as configured."""
    pauses = f"up to {BACKOFF_S['upstream']:g} s x 2^k, for throttling {BACKOFF_S['throttling']:g} s x 2^k"
    budget = (
        f"{RETRY_BUDGET_FULL:g} tokens a credential, over all processes: a retry takes 1 and needs "
        f"{RETRY_BUDGET_FLOOR:g}, a success gives {BUDGET_PER_SUCCESS:g}, {1 / BUDGET_PER_S:g} s give 1"
    )
    rows = {
        "tries": f"{settings.tries} a call",
        "links": f"at most {MAX_LINKS} a chain",
        "again": f"the same target: at most {settings.retries} retries, while more tries than unasked links are left",
        "pause": f"{pauses}, at most {BACKOFF_CAP_S:g} s, drawn at random; a longer Retry-After counts instead",
        "patience": (
            f"a pause of up to {settings.patience_s:g} s is waited for, unless another deployment of the group can "
            "start; after a longer one, or a refusal for throughput, whoever can start sooner is asked"
        ),
        "sole target": "the last one that can be asked is asked whatever its cooldown",
        "budget": budget,
        "next": 'the next target; after ContentFiltered only with on_content_filter = "fallback"',
        "ejection": MATRIX["Unavailable"].cooldown,
        "longest wait": f"{settings.max_wait_s:g} s until any target may start, then NoCapacity",
        "overload": (
            f"while {OVERLOAD:.0%} of what the limits allow is asked, the smallest go first; what smaller ones "
            f"crowd out is refused at once (NoCapacity), unless it may wait for more than {LASTING_S:g} s"
        ),
        "deadline": f"{settings.total_s:g} s over all",
    }
    return [{"bound": name, "value": value} for name, value in rows.items()]
