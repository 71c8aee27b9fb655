"""Which Claude takes which parameters, wherever it is served.

Whatever is not in these tables (a budget for a model that thinks as it likes, a prefill for one that takes none) is
sent, and the API's own refusal says what to do.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Params, Request

SAMPLING = ("temperature", "top_p", "top_k")
HOTTEST = 1
"""The highest temperature that Anthropic and Bedrock take; OpenAI and Gemini take 2."""

# Generations of Claude, as their names say them: (4, 5) for claude-sonnet-4-5-20250929.
_NAMED = re.compile(r"claude-(?:[a-z]+-)*v?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_UNNUMBERED = (99, 0)  # claude-mythos-preview: newer than the habit of numbering
_SAMPLES_BEFORE = (4, 7)  # from there on sampling parameters are refused
_EFFORT_SINCE = (4, 6)  # and Claude Opus 4.5: https://platform.claude.com/docs/en/build-with-claude/effort
_SHORT_UNTIL = (3, 5)  # Claude 3 and older write 4,096 tokens at most; asking for more is refused
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_NEVER = ("seed", "presence_penalty", "frequency_penalty")


def samples(deployment: Deployment) -> bool:
    """Whether the model takes sampling parameters; what is no Claude does."""
    return (_generation(deployment) or (0, 0)) < _SAMPLES_BEFORE


def writes_little(deployment: Deployment) -> bool:
    """Whether the model writes 4,096 tokens at most."""
    return (_generation(deployment) or _UNNUMBERED) < _SHORT_UNTIL


def taken(request: Request, deployment: Deployment, dropped: list[str], *, sampled: bool) -> Params:
    """The parameters of `request` that the model takes; the names of the others go into `dropped`.

    `sampled` says whether sampling parameters are taken at all where it is asked.
    A tool that must be called excludes thinking, and is worth more: somebody waits for that call. Beside a budget for
    thoughts no temperature but 1 is taken, no top_k, and top_p from 0.95 to 1
    (https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "Feature compatibility"). An older model
    knows no effort, and a budget in its place would be a guess at the caller's money. A stop of white space is refused.
    """
    params = request.params
    refused = [name for name in _NEVER if getattr(params, name) is not None]
    forced = bool(request.tools) and request.tool_choice not in (None, "auto", "none")
    if forced and params.reasoning_tokens is not None:
        refused.append("reasoning_tokens")
    thinks = bool(params.reasoning_tokens) and not forced
    for name in SAMPLING:
        value = getattr(params, name)
        fits = not thinks or (name == "temperature" and value == 1) or (name == "top_p" and value and value >= 0.95)
        if value is not None and (not (sampled and fits) or (name == "temperature" and value > HOTTEST)):
            refused.append(name)
    if params.reasoning_effort is not None and not _knows(params.reasoning_effort, deployment):
        refused.append("reasoning_effort")
    stop = tuple(each for each in params.stop if each.strip())
    dropped += refused + ["stop"] * (stop != params.stop)
    nothing: dict[str, Any] = dict.fromkeys(refused)
    return replace(params, stop=stop, **nothing)


def thinking(params: Params) -> dict[str, Any]:
    """How to think, as Anthropic writes it; empty where nothing is said of it."""
    budget = params.reasoning_tokens
    if budget is None:
        return {}
    return {"type": "enabled", "budget_tokens": budget} if budget > 0 else {"type": "disabled"}


def _knows(effort: str, deployment: Deployment) -> bool:
    made = _generation(deployment) or _UNNUMBERED
    return effort in _EFFORTS and (made >= _EFFORT_SINCE or (made == (4, 5) and "opus" in _name(deployment)))


def _generation(deployment: Deployment) -> tuple[int, int] | None:
    """The generation that the name of a Claude says, the newest where it says none; None for any other model."""
    name = _name(deployment)
    if found := _NAMED.search(name):
        return int(found[1]), int(found[2] or 0)
    return _UNNUMBERED if "claude" in name else None


def _name(deployment: Deployment) -> str:
    return (deployment.base_model or deployment.model).lower()
