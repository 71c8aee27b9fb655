"""What a call is booked as: its tokens where nobody counted them, its cost, its text, its state and exit code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmctl.core.errors import MATRIX, LlmctlError
from llmctl.core.tokens import estimate

if TYPE_CHECKING:
    from llmctl.core.record import Attempt, State
    from llmctl.core.types import Completion, Request

INCOMPLETE = MATRIX["AnswerIncomplete"].exit
_ESTIMATED_CHARS = 1 << 18
_KEPT_CHARS = 200
"""How much of the texts to embed the ledger keeps: enough to know them again, where a corpus would swell it."""


def estimate_prompt(request: Request) -> int:
    """The estimated input tokens of a request: its text, its tools, and four tokens a message for the roles."""
    if request.inputs:
        return sum(map(estimate_answer, request.inputs))
    text = sum(estimate(m.text) + sum(estimate(c.arguments) for c in m.tool_calls) + 4 for m in request.messages)
    return text + sum(estimate(f"{t.name} {t.description} {t.parameters}") for t in request.tools)


def estimate_answer(text: str) -> int:
    """The estimated tokens of an answer's text; of an enormous one from its beginning, so that nobody waits for it."""
    beginning = text[:_ESTIMATED_CHARS]
    return estimate(beginning) * len(text) // max(1, len(beginning))


def state_of(
    error: BaseException | None, completion: Completion, request: Request, exit_if_stopped: int
) -> tuple[State, int]:
    """How the row ends: its state and exit code."""
    if isinstance(error, LlmctlError):
        if error.kind == "BudgetExceeded":
            return "refused", error.exit_code
        return ("incomplete" if error.exit_code == INCOMPLETE else "failed"), error.exit_code
    if error is not None:
        stopped = isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt))
        return ("cancelled", exit_if_stopped) if stopped else ("failed", 1)
    if is_whole(completion.finish_reason, request):
        return "ok", 0
    return "incomplete", INCOMPLETE


def is_whole(finish_reason: str | None, request: Request) -> bool:
    """Whether an answer that ended so is whole: also a text that was cut by the caller's own `max_tokens`."""
    return finish_reason in ("stop", "tool_calls") or (
        finish_reason == "length" and request.params.max_tokens is not None and request.response_format is None
    )


def cost_of(attempts: list[Attempt]) -> int | None:
    """What all attempts cost together; None when any that used tokens has no known price."""
    costs = [attempt.cost_nanousd for attempt in attempts if attempt.input_tokens is not None]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


def transcript_of(request: Request) -> str:
    """The prompt as the ledger keeps it: a lone user message as it is, a conversation with its roles.

    Of texts to embed it is how many they are, and how they begin.
    """
    if request.inputs:
        heads = " | ".join(text[:_KEPT_CHARS] for text in request.inputs[:_KEPT_CHARS])
        return f"{len(request.inputs)} to embed: {heads[:_KEPT_CHARS]}"
    messages = request.messages
    if len(messages) == 1:
        return messages[0].text
    return "\n\n".join(f"[{message.role}]\n{message.text}" for message in messages)
