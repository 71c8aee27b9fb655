"""`ask --dry-run`: whom it would ask, with how many tokens, at what cost. Nothing is sent and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.cli.explaining import end, look, onlooker
from llmctl.cli.output import ago, print_json, say, table
from llmctl.core.money import usd
from llmctl.core.types import Usage

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.core.catalog import Deployment


def show_plan(context: Context, message: str | None, options: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print the plan of the call, whom it would ask now, and whether it need not.

    Raises what `ask` would raise before sending.
    """
    client = onlooker(context)
    found = look(client, message, options)
    ask, tokens = found.ask, found.snapshot.prompt_tokens
    cache, kept = client.kept(ask)
    age_s = None if kept is None else max(0.0, found.now - kept.entry.created_at)
    if age_s is None:  # who is answered from the cache needs nobody
        end(found)
    capped = ask.request.params.max_tokens
    rows = [
        {
            "link": n,
            "deployment": deployment.id,
            "provider": deployment.provider.name,
            "model": deployment.model,
            "est_cost_usd": _cost(deployment, tokens, capped),
        }
        for n, link in enumerate(ask.plan.links, 1)
        for deployment in link.deployments
    ]
    if as_json:
        left_out = [{"deployment": x.deployment.id, "reason": x.reason.message} for x in ask.plan.left_out]
        document = {"model": ask.plan.name, "prompt_tokens": tokens, "max_tokens": capped, "chain": rows}
        decided = found.as_json()
        more = {"decision": decided["decision"], "candidates": decided["candidates"]}
        more |= {"cache": cache} | ({} if age_s is None else {"cache_age_s": round(age_s, 1)})
        print_json({**document, "left_out": left_out, **more, "sent": False})
        return
    table(("link", "deployment", "provider", "model", "est_cost_usd"), rows, right=("link", "est_cost_usd"))
    if not quiet:
        for each in found.candidates:
            say(f"{each.deployment.id}: {each.reason}")
        if age_s is not None:
            say(f"the cache would answer ({cache}), at no cost: its answer is {ago(age_s)} old")
        say(f"about {tokens} input tokens; nothing was sent")


def _cost(deployment: Deployment, prompt_tokens: int, max_tokens: int | None) -> float | None:
    """What the prompt costs, with the answer when its length is capped; None when the price is unknown."""
    cap = max_tokens or deployment.params.max_tokens or 0
    return usd(deployment.price.cost_nanousd(Usage(prompt_tokens, cap))) if deployment.price else None
