"""`ask --dry-run`: whom it would ask, with how many tokens, at what cost. Nothing is sent and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.cli.output import print_json, say, table
from llmctl.client import Client
from llmctl.core.money import usd
from llmctl.core.types import Usage
from llmctl.run.accounts import estimate_prompt

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.core.catalog import Deployment


def show_plan(context: Context, message: str | None, options: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print the plan of the call. Raises what `ask` would raise before sending."""
    client = Client(context.config_flags or None, environ=context.environ)
    ask = client.call(message, **options).ask
    tokens = estimate_prompt(ask.request)
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
        print_json({**document, "left_out": left_out, "sent": False})
        return
    table(("link", "deployment", "provider", "model", "est_cost_usd"), rows, right=("link", "est_cost_usd"))
    if not quiet:
        say(f"about {tokens} input tokens; nothing was sent")


def _cost(deployment: Deployment, prompt_tokens: int, max_tokens: int | None) -> float | None:
    """What the prompt costs, with the answer when its length is capped; None when the price is unknown."""
    cap = max_tokens or deployment.params.max_tokens or 0
    return usd(deployment.price.cost_nanousd(Usage(prompt_tokens, cap))) if deployment.price else None
