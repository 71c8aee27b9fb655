"""What one attempt may cost at most, and taking that from the budgets before anything is sent.

A budget reserves the worst case: what is settled afterwards can only be less, as far as anybody can know beforehand.
The bounds and where they come from are the constants below; what they miss is booked as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.money import NANO
from llmctl.core.types import Document, Image
from llmctl.run.asking import with_defaults

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Request
    from llmctl.routing.call import Send
    from llmctl.run.engine import CallRun
    from llmctl.run.ports import Ledger

MOST_OUTPUT, MOST_REASONED = 16_384, 65_536
"""The output tokens that a call without any cap is expected to stay within, and one to a model that reasons."""
_PER_MESSAGE, _PER_REQUEST, _FOR_TOOLS = 8, 64, 1_024
"""What chat templates add: to each message, a request (Llama's preamble has some 40), and one with tools.

Claude's own instruction for tools has up to 530 (docs.anthropic.com, "Tool use pricing and tokens"; read 2026-11-20).
"""
_PER_IMAGE = (("gpt-4o-mini", 48_169), ("", 7_000))
"""The most tokens an image is billed as, by the model's name. The large one is 2,833 + 8 tiles of 5,667.

Else 6,404 at Together (docs.together.ai, "Vision") is the most that was found; read 2026-11-20.
"""
_PER_BASE64_CHAR = 2
"""The most tokens a PDF is billed as: a page is 1,500 to 3,000 of text and an image, and seldom less than 5 KB."""


async def reserve(ledger: Ledger, call: CallRun, send: Send) -> None:
    """Take from the budgets of `call` what it has cost until now, and what the attempt that `send` asks for may cost.

    Raises BudgetExceeded, and LedgerUnusable where a budget refuses and what was spent cannot be known.
    """
    deployment, budgets = send.deployment, call.budgets
    group = call.ask.plan.link(deployment).group.name
    if (refused := budgets.unpriced(deployment, group=group)) is not None:
        raise refused
    worst = worst_case(with_defaults(call.ask.request, deployment.params), deployment, call.prompt_tokens)
    amount = (worst or 0) + sum(attempt.cost_nanousd or 0 for attempt in call.attempts)
    budgets.check_call(amount)
    is_news = worst is None and budgets.allow_unpriced.isdisjoint((deployment.id, deployment.served_by, group))
    await ledger.reserve(call.record, budgets, amount, deployment.served_by if is_news else "")


def worst_case(request: Request, deployment: Deployment, prompt_tokens: int) -> int | None:
    """The most that one attempt may cost in nano-dollars; None when nobody knows the price.

    Whatever the provider counts, it is billed at the dearest that it could be: none of the input cached, all of it
    written to a cache where that costs more, all of the output reasoned, at the dearest tier within reach.
    """
    price = deployment.price
    if price is None:
        return None
    given, made = most_input(request, deployment, prompt_tokens), most_output(request, deployment)
    reachable = (price, *(tier for start, tier in price.tiers if given > start))
    atto = max(
        given * max(each.input, each.cached_input or 0, each.cache_write or 0)
        + made * max(each.output, each.reasoning or 0)
        for each in reachable
    )
    return price.request - -atto // (1_000_000 * NANO)


def most_input(request: Request, deployment: Deployment, prompt_tokens: int) -> int:
    """The input tokens that no provider should count more of; `prompt_tokens` is the estimate.

    A tokenizer that falls back to bytes, as all of today's do, makes no more tokens of a text than it has UTF-8 bytes.
    That is four or five times too many for English, so where it is less, three times the estimate and a constant count:
    OpenAI's two vocabularies make no more than 0.85 of the bound of 8,000 pieces of prose, code, JSON, base64 and
    random letters, whose estimate is the worst that was found (texts of `benchmarks/tokens.py`; measured 2026-11-20).
    """
    texts = request.inputs or [
        *(text for m in request.messages for text in (m.text, *(call.arguments for call in m.tool_calls))),
        *(f"{t.name}{t.description}{t.parameters}" for t in request.tools),
    ]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    said = min(size, 3 * prompt_tokens + _PER_REQUEST)
    if request.response_format is not None:  # some wires write the schema into the prompt
        said += len(str(request.response_format.schema)) + _PER_REQUEST
    around = _PER_REQUEST + _PER_MESSAGE * (len(request.messages) + len(request.inputs))
    parts = [part for message in request.messages for part in message.parts]
    images = sum(isinstance(part, Image) for part in parts)
    name = deployment.base_model or deployment.model
    per_image = next(tokens for known, tokens in _PER_IMAGE if known in name)
    documents = sum(_PER_BASE64_CHAR * len(part.data) for part in parts if isinstance(part, Document))
    found = said + around + (_FOR_TOOLS if request.tools else 0) + images * per_image + documents
    return found if deployment.context_window is None else min(found, max(deployment.context_window, prompt_tokens))


def most_output(request: Request, deployment: Deployment) -> int:
    """The output tokens that an attempt may make: its own cap, else the deployment's, else what is usual at most."""
    if request.inputs:
        return 0
    params, extra = request.params, request.params.extra
    capped = None if "max_tokens" in deployment.provider.dialect.get("drop", ()) else params.max_tokens
    caps = [capped, *(extra.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))]
    known = [cap for cap in caps if isinstance(cap, int)]
    if known:
        most = max(known)
    elif deployment.max_output is not None:
        most = deployment.max_output
    else:
        reasons = deployment.reasoning or params.reasoning_effort not in (None, "none") or params.reasoning_tokens
        most = max(MOST_REASONED, MOST_OUTPUT + (params.reasoning_tokens or 0)) if reasons else MOST_OUTPUT
    choices = extra.get("n")
    if deployment.context_window is not None:
        most = min(most, deployment.context_window)
    return most * choices if isinstance(choices, int) and choices > 1 else most
