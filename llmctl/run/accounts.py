"""What a call is booked as: its tokens where nobody counted them, its cost, its text, its state and exit code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.core.errors import MATRIX, LlmctlError
from llmctl.core.record import Attempt
from llmctl.core.tokens import estimate
from llmctl.core.types import Usage

if TYPE_CHECKING:
    from llmctl.core.record import State
    from llmctl.core.types import Completion, Request
    from llmctl.routing.call import Send
    from llmctl.routing.settle import Outcome
    from llmctl.run.asking import Ask
    from llmctl.run.attempt import AttemptRun

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
        import asyncio

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


def usage_of(run: AttemptRun, prompt_tokens: int) -> Usage | None:
    """The usage the provider reported; an estimate where it began to answer and never said; else None."""
    said = run.fold.usage
    if said is not None and not said.estimated:
        return said
    completion = run.fold.completion()
    texts = [completion.text, completion.reasoning, completion.refusal]
    texts += [call.arguments for call in completion.tool_calls]
    made = sum(map(estimate_answer, texts))
    if not made and run.fold.finish_reason is None:
        return said
    if said is not None:  # of an answer that broke off: what was counted until then
        return replace(said, output_tokens=max(made, said.output_tokens))
    return Usage(prompt_tokens, made, estimated=True)


def attempt_of(
    send: Send,
    run: AttemptRun | None,
    usage: Usage | None,
    error: BaseException | None,
    started_at: float,
    latency_s: float,
) -> Attempt:
    """The row of an attempt; `run` is None when it did not come to be."""
    deployment, known = send.deployment, error if isinstance(error, LlmctlError) else None
    return Attempt(
        n=send.n,
        deployment=deployment.id,
        provider=deployment.provider.name,
        model=deployment.model,
        role=send.role,
        outcome="ok" if error is None else known.kind if known else "Cancelled",
        started_at=started_at,
        status=(known.status if known else None) or (run.status if run else None),
        first_token_ms=run.first_token_s * 1000 if run and run.first_token_s is not None else None,
        latency_ms=latency_s * 1000,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cost_nanousd=deployment.price.cost_nanousd(usage) if usage and deployment.price else None,
        retry_after_s=known.retry_after_s if known else None,
        request_id=(known.request_id if known else "") or (run.request_id if run else ""),
        error=known.message if known else None,
    )


def outcome_of(run: AttemptRun | None, usage: Usage | None, error: BaseException | None, ended: float) -> Outcome:
    """How an attempt went, for the shared state."""
    from llmctl.routing.settle import Outcome  # an answer from the cache had no attempt

    if run is None or run.sent_at is None:
        return Outcome(ended, ended, reached=False, cancelled=True)
    known = error if isinstance(error, LlmctlError) else None
    counted = usage if usage and (error is None or not usage.estimated) else None
    return Outcome(
        run.sent_at,
        ended,
        heard=None if run.heard_s is None else run.sent_at + run.heard_s,
        error=known,
        cancelled=error is not None and known is None,
        first_token_s=run.first_token_s,
        latency_s=run.finished_s,
        input_tokens=counted.input_tokens if counted else None,
        cached_tokens=counted.cached_input_tokens if counted else 0,
        output_tokens=counted.output_tokens if counted else None,
        said=run.said,
    )


def cost_of(attempts: list[Attempt]) -> int | None:
    """What all attempts cost together; None when any that used tokens has no known price."""
    costs = [attempt.cost_nanousd for attempt in attempts if attempt.input_tokens is not None]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


def prompt_of(ask: Ask) -> str | None:
    """The prompt that the ledger keeps of a call, None for none: in a session the last turn, which has the rest."""
    if not ask.keep_text:
        return None
    request = ask.request
    if ask.session is not None and ask.command in ("ask", "chat"):
        request = replace(request, messages=request.messages[-1:])
    return transcript_of(request)


def transcript_of(request: Request) -> str:
    """The prompt as the ledger keeps it: a lone user message as it is, a conversation with its roles.

    A lone message that looks like one has its role too, so that the two can be told apart (`talk.parted`).
    Of texts to embed it is how many they are, and how they begin.
    """
    if request.inputs:
        heads = " | ".join(text[:_KEPT_CHARS] for text in request.inputs[:_KEPT_CHARS])
        return f"{len(request.inputs)} to embed: {heads[:_KEPT_CHARS]}"
    messages = request.messages
    if len(messages) == 1 and not messages[0].text.startswith(("[system]\n", "[user]\n")):
        return messages[0].text
    return "\n\n".join(f"[{message.role}]\n{message.text}" for message in messages)
