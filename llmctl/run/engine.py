"""The engine: drives the call machine against the world, and writes down what happened.

One `CallRun` is one call. Its events come out as they are made; its answer, or its error, comes at the end. The row is
written before the first byte leaves and completed at the end, whatever the end is: success, failure, cancellation.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import DeadlineExceeded, LlmctlError, Unauthorized, UsageError
from llmctl.core.record import Answer, Attempt
from llmctl.core.types import Completion, Event, Usage
from llmctl.routing.book import Size
from llmctl.routing.call import Call, Ended, Fail, Failed, Send, Shown, Wait
from llmctl.routing.limits import LEASE_S
from llmctl.run.accounts import attempt_of, cost_of, estimate_prompt, outcome_of, prompt_of, state_of, usage_of
from llmctl.run.asking import Ask, record_of, total_s_of, with_defaults
from llmctl.run.attempt import AttemptRun, limits_of
from llmctl.run.observe import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Decided, Hooks, Recalled, Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from llmctl.core.catalog import Deployment, Settings
    from llmctl.run.conform import Conformed
    from llmctl.run.endpoint import Endpoints
    from llmctl.run.ports import Clock, Ledger, Transport
    from llmctl.run.recall import Caching, Recall
    from llmctl.run.shared import Shared
    from llmctl.wire.base import Endpoint


@dataclass(slots=True, kw_only=True, eq=False)
class Engine:
    """What all calls of a client share: the world they happen in.

    `transport` gives the way to a deployment; `dice` gives numbers in [0, 1).
    """

    settings: Settings
    endpoints: Endpoints
    transport: Callable[[Deployment], Transport]
    ledger: Ledger
    shared: Shared
    clock: Clock
    dice: Callable[[], float]
    hooks: Hooks = field(default_factory=Hooks)
    caching: Caching | None = None

    def call(self, ask: Ask) -> CallRun:
        """A call, not yet begun."""
        return CallRun(self, ask)


class CallRun:
    """One call. Iterate over `events()`; then `answer` is set, or an error was raised. Not reusable."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self.answer: Answer | None = None
        self.attempts: list[Attempt] = []
        self.exit_if_stopped = 130
        """The exit code of the row if the call is stopped from outside; whoever stops it otherwise says so here."""
        self._engine = engine
        self.ask = ask
        self._began = engine.clock.monotonic()
        now = engine.clock.now()
        self.prompt_tokens = estimate_prompt(ask.request) if ask.prompt_tokens is None else ask.prompt_tokens
        policy = replace(ask.policy, total_s=total_s_of(ask, self.prompt_tokens))
        self.call = Call(ask.plan, policy, started=now, dice=engine.dice)
        self.record = record_of(ask, now, engine.dice, policy.total_s)
        self._recall: Recall | None = None
        if engine.caching is not None and not ask.cache.off:
            self._recall = engine.caching.of(ask, self.record.id)
            self.record = replace(self.record, cache=self._recall.column)
        self.budgets = engine.settings.budgets.of_call(ask.plan.name, ask.tags, ask.max_cost)
        cap = 0 if ask.request.inputs else ask.request.params.max_tokens
        self._place = engine.shared.place(ask.plan, self.record.id, Size(self.prompt_tokens, cap))
        self.last: AttemptRun | None = None
        """The last attempt, as far as it came."""
        self._used: Usage | None = None
        self._first_token_ms: float | None = None
        self._waited_s = 0.0
        self._reason = ""
        self._shown = False
        self._begun = False
        self._conformed: Conformed | None = None
        self._kept: Answer | None = None

    @property
    def uncached(self) -> str:
        """What keeps the call out of the cache that it was meant to use, "" where nothing does."""
        return self._recall.why if self._recall is not None else self.ask.cache.why

    async def whole(self) -> Answer:
        """The answer, once all its events have passed. Raises the error the call ended in."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        assert self.answer is not None, "a call that raised nothing has an answer"
        return self.answer

    async def events(self) -> AsyncGenerator[Event, None]:
        """The answer's events. Raises the error the call ended in; then `answer` stays None."""
        if self._begun:
            raise UsageError("the events of a call can be read once", hint="ask again for another answer")
        self._begun = True
        engine = self._engine
        error: BaseException | None = None
        try:
            # Inside, so that a call which is stopped while its row is being written still completes it.
            await engine.ledger.begin(self.record, prompt_of(self.ask))
            engine.hooks.tell(CallStarted(self.record, self.ask.plan))
            self._kept = await self._recalled()
            if self._kept is not None:
                from llmctl.run.recall import replayed

                for event in replayed(self._kept.completion):
                    yield event
                return
            async with aclosing(self._steps()) as steps:
                async for event in steps:
                    yield event
        except LlmctlError as raised:
            error = raised
            raised.attempts = tuple(self.attempts)
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                await self._place.release()
            finally:  # also when it is cancelled here, perhaps once more: the row is to be complete
                await self._finish(error)

    async def _recalled(self) -> Answer | None:
        """The answer that is kept, or that an equal call is making; None where this call is to make it."""
        if self._recall is None:
            return None
        from llmctl.run.recall import recalled

        clock, hooks = self._engine.clock, self._engine.hooks
        found = await self._recall.awaited(lambda: hooks.tell(Waiting(0.0, "an equal call is under way")))
        took_s = clock.monotonic() - self._began
        if found is None:
            self._waited_s += took_s
            return None
        hooks.tell(Recalled(found.tier, clock.now() - found.entry.created_at, found.entry.served_by))
        return recalled(found, self.ask, self.record, clock.now(), took_s * 1000)

    async def _steps(self) -> AsyncGenerator[Event, None]:
        clock, hooks = self._engine.clock, self._engine.hooks
        while True:
            decision, snapshot, now = await self._place.next(self.call)
            hooks.tell(Decided(decision, snapshot, now))
            match decision:
                case Send() as send:
                    self._reason = send.reason
                    if self.budgets.allowances:
                        from llmctl.run.purse import reserve

                        await reserve(self._engine.ledger, self, send)
                    async with aclosing(self._attempt(send)) as events:
                        async for event in events:
                            yield event
                case Wait(until, why, target):
                    wait_s, began = max(0.0, until - now), clock.monotonic()
                    hooks.tell(Waiting(wait_s, why))
                    try:
                        async with self._held_on_to(target):
                            await clock.sleep(wait_s)
                    finally:
                        self._waited_s += clock.monotonic() - began
                case Fail(error, exit_code):
                    error.chain_exit = exit_code
                    raise error
                case _:
                    return

    async def _attempt(self, send: Send) -> AsyncGenerator[Event, None]:
        """One attempt, its outcome told to the machine. Buffered, only an attempt that ends well gives its events."""
        engine = self._engine
        started_at, began = engine.clock.now(), engine.clock.monotonic()
        held: list[Event] = []
        error: BaseException | None = None
        self.last = None
        try:
            async with self._held_on_to(send.deployment):
                run = self.last = AttemptRun(
                    send.deployment,
                    with_defaults(self.ask.request, send.deployment.params),
                    await self._endpoint(send),
                    limits_of(
                        engine.settings,
                        send.deployment,
                        send.remaining_s,
                        self.prompt_tokens,
                        streams=self.ask.request.stream,
                    ),
                )
                if self.ask.strict_params:
                    run.check_strictly()
                engine.hooks.tell(
                    AttemptStarted(send.n, send.role, send.deployment.served_by, run.dropped, restarts=self._shown)
                )
                transport = engine.transport(send.deployment)
                async with aclosing(run.events(transport, engine.clock)) as events:
                    async for event in events:
                        if self.ask.buffered:
                            held.append(event)
                            continue
                        if not self._shown and (event.text or event.tool_calls or event.refusal):
                            self._shown = True
                            self.call.heard(Shown())
                        yield event
        except LlmctlError as raised:
            error = raised
        except BaseException as raised:
            error = raised
            raise
        finally:
            latency_s = engine.clock.monotonic() - began
            self._used = usage_of(self.last, self.prompt_tokens) if self.last else None
            attempt = attempt_of(send, self.last, self._used, error, started_at, latency_s)
            self.attempts.append(attempt)
            outcome = outcome_of(self.last, self._used, error, started_at + latency_s)
            await self._place.settle(send.deployment, outcome)
            if self.last and self.last.first_token_s is not None:
                self._first_token_ms = (began - self._began + self.last.first_token_s) * 1000
        failed = error if isinstance(error, LlmctlError) else None
        if isinstance(failed, Unauthorized):
            engine.endpoints.forget(send.deployment)
        self.call.heard(Failed(failed, engine.clock.now()) if failed else Ended())
        engine.hooks.tell(AttemptEnded(attempt, failed, self.record.id))
        if failed is None and self.last is not None:
            self._conformed = self._shaped(self.last)
            if self._conformed is not None and self.ask.buffered:
                yield Event(text=self._conformed.text)
                held = [replace(event, text="") for event in held]
            for event in held:
                yield event

    async def _endpoint(self, send: Send) -> Endpoint:
        """Where the attempt goes. Raises DeadlineExceeded when a key command or Amazon's chain outlasts the call."""
        try:
            async with self._engine.clock.timeout(send.remaining_s):
                return await self._engine.endpoints.resolve_async(send.deployment)
        except TimeoutError as error:
            what = f"{send.deployment.served_by}: no credential came before the call's deadline"
            raise DeadlineExceeded(what, hint="run what gives the credential by hand") from error

    @asynccontextmanager
    async def _held_on_to(self, deployment: Deployment) -> AsyncIterator[None]:
        """What is reserved stays so while the body runs, and no longer than its process lives."""

        async def renew() -> None:
            while True:
                await self._engine.clock.sleep(LEASE_S / 6)  # a third of the lease at the cache, which is the shorter
                await self._place.renew(deployment)
                if self._recall is not None:
                    await self._recall.renew()

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()

    async def _finish(self, error: BaseException | None) -> None:
        """Complete the row, and the answer where there is one."""
        engine, run = self._engine, self.last
        latency_s = engine.clock.monotonic() - self._began
        if self._kept is not None:
            self.record = self._kept.record
            if error is not None:
                state, exit_code = state_of(error, Completion(), self.ask.request, self.exit_if_stopped)
                self.record = replace(self.record, state=state, exit_code=exit_code, error="Cancelled")
            self.answer = replace(self._kept, record=self.record) if error is None else None
            await self._write_down(self._kept.text, error)
            return
        completion = replace(run.completion(), usage=self._used) if run else Completion()
        parsed = None
        if self._conformed is not None:
            completion, parsed = replace(completion, text=self._conformed.text), self._conformed.document
        spent_s = sum(attempt.latency_ms or 0.0 for attempt in self.attempts) / 1000 + self._waited_s
        state, exit_code = state_of(error, completion, self.ask.request, self.exit_if_stopped)
        served = run.deployment if run and (error is None or completion.text) else None
        cost, price = cost_of(self.attempts), run.deployment.price if run else None
        self.record = replace(
            self.record.with_usage(completion.usage),
            state=state,
            finished_at=self.record.started_at + latency_s,
            served_by=served.served_by if served else None,
            provider=served.provider.name if served else None,
            deployment=served.id if served else None,
            fallback=served is not None and self.ask.plan.link_of(served) > 0,
            attempt_count=len(self.attempts),
            reported_model=completion.reported_model or None,
            system_fingerprint=completion.system_fingerprint or None,
            cost_nanousd=cost,
            price_version=price.version if price and cost is not None else None,
            latency_ms=latency_s * 1000,
            first_token_ms=self._first_token_ms,
            overhead_ms=max(0.0, latency_s - spent_s) * 1000,
            finish_reason=completion.finish_reason,
            error=error.kind if isinstance(error, LlmctlError) else "Cancelled" if error else None,
            exit_code=exit_code,
        )
        attempts = tuple(self.attempts)
        if error is None:
            self.answer = Answer(
                record=self.record,
                completion=completion,
                attempts=attempts,
                waited_ms=self._waited_s * 1000,
                dropped=run.dropped if run else (),
                route=self._route(),
                parsed=parsed,
                maker=run.deployment.maker if run else "",
            )
        try:
            if self._recall is not None:
                await self._recall.landed(served if state == "ok" else None, self.record, completion, parsed)
        finally:  # also when it is cancelled here
            await self._write_down(completion.text or completion.refusal, error)

    async def _write_down(self, text: str | None, error: BaseException | None) -> None:
        """Complete the row, and tell that the call has ended."""
        engine, attempts = self._engine, tuple(self.attempts)
        if not self.ask.keep_text:  # a provider's message may quote the prompt or the answer: the class says enough
            text, attempts = None, tuple(replace(attempt, error=None) for attempt in attempts)
        await engine.ledger.complete(self.record, attempts, text)
        engine.hooks.tell(CallEnded(self.record, error, attempts, "embeddings" if self.ask.request.inputs else "chat"))

    def _shaped(self, run: AttemptRun) -> Conformed | None:
        if self.ask.request.response_format is None:
            return None
        from llmctl.run.conform import shaped

        return shaped(run.completion(), self.ask.request, run.deployment)

    def _route(self) -> dict[str, Any]:
        """How the one who answered was chosen."""
        link = self.ask.plan.link(self.last.deployment) if self.last else self.ask.plan.links[0]
        before = ", ".join(f"{a.outcome} at {a.deployment}" for a in self.attempts[:-1])
        reason = f"after {before}: {self._reason}" if before else self._reason
        return {"strategy": self.ask.policy.strategy or link.group.strategy, "reason": reason, "complexity": None}
