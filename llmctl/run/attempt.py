"""One attempt: encode, send, decode, under the clocks. It yields events and ends well, or raises one of our errors.

The first-token clock runs from before the connection until the first event that shows something; then the idle clock
runs from one such event to the next, so that comments and empty events do not keep a silent model alive. Both run only
while we wait for the provider: time that the consumer takes between events does not count, except for the deadline.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import (
    BadResponse,
    ConnectionFailed,
    ContentFiltered,
    DeadlineExceeded,
    InvalidRequest,
    LlmctlError,
    ProviderError,
    StreamTruncated,
    TimedOut,
    Unavailable,
)
from llmctl.core.redact import MASK, StreamMask, redact
from llmctl.core.types import Event, Fold, ToolCallDelta, readable_by
from llmctl.wire import emulate
from llmctl.wire.base import load
from llmctl.wire.call_ids import paired
from llmctl.wire.headers import request_id
from llmctl.wire.quota import limits_said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llmctl.core.catalog import Deployment, Settings
    from llmctl.core.snapshot import Said
    from llmctl.core.types import Completion, Request
    from llmctl.run.ports import Clock, Response, Transport
    from llmctl.wire.base import Endpoint, Wire

MAX_ERROR_BODY = 64 << 10
LINGER_S = 2.0
"""How long a finished answer is listened to for its usage and its terminator, which some servers leave out."""
_SHORTEST_CUT = 8
"""How much of a key at least must show before what is left of it after a cut is masked."""


class Limits(NamedTuple):
    """The time limits of one attempt, in seconds; `total_s` is what is left of the call's deadline."""

    connect_s: float
    first_token_s: float
    idle_s: float
    total_s: float


def limits_of(
    settings: Settings, deployment: Deployment, remaining_s: float, prompt_tokens: int, *, streams: bool
) -> Limits:
    """The time limits of one attempt: a longer first token where the model reasons, or reads slowly.

    What comes whole, such as vectors, has the total only.
    """
    if not streams:
        return Limits(settings.connect_s, inf, inf, remaining_s)
    wait_s = settings.first_token_of(deployment)
    if deployment.is_local:
        from llmctl.run.local import first_token_s

        wait_s = max(wait_s, first_token_s(prompt_tokens))
    return Limits(settings.connect_s, wait_s, settings.idle_s, remaining_s)


class AttemptRun:
    """One try at one deployment. When `events()` has ended, the measurements say how it went."""

    def __init__(
        self, deployment: Deployment, request: Request, endpoint: Endpoint, limits: Limits, wire: Wire | None = None
    ) -> None:
        """`wire` stands in for that of the provider's protocol."""
        self.deployment = deployment
        self.fold = Fold()
        self.status: int | None = None
        self.request_id = ""
        self.first_token_s: float | None = None
        self.sent_at: float | None = None
        self.heard_s: float | None = None
        self.finished_s: float | None = None
        self.said: tuple[Said, ...] = ()
        """When it was sent (Unix seconds), heard and finished (since the start); what its headers say of the limits."""
        self.finish_said = self.terminated = self.left_open = False
        """Of a stream: whether it gave its finish reason, said that nothing follows, and stayed open after its end."""
        request = replace(request, messages=paired(readable_by(deployment.maker, request.messages)))
        self._shape: emulate.Reading | None = None
        if emulate.needed(request, deployment):
            self._shape, request = emulate.Reading(request), emulate.emulated(request, deployment)
        self._request = request
        self._endpoint = endpoint
        self._limits = limits
        self._wire = wire or load(deployment.provider.protocol)
        self._encoded = self._wire.encode(request, deployment, endpoint)
        self._masks: defaultdict[str | int, StreamMask] = defaultdict(lambda: StreamMask(endpoint.secrets))
        self._started = 0.0
        self._patience_s = limits.first_token_s

    @property
    def dropped(self) -> tuple[str, ...]:
        """The parameters that this provider cannot take."""
        return self._encoded.dropped

    def check_strictly(self) -> None:
        """Raises InvalidRequest where this provider cannot take some of the parameters."""
        if self.dropped:
            error = InvalidRequest(
                f"{self.deployment.served_by} takes no {', '.join(self.dropped)}",
                hint="leave it out, or ask without --strict-params",
            )
            error.provider, error.model = self.deployment.provider.name, self.deployment.model
            raise error

    def completion(self) -> Completion:
        """What has come so far; what the server says of itself is masked."""
        made = self.fold.completion()
        return replace(
            made,
            reported_model=self._masked(made.reported_model),
            system_fingerprint=self._masked(made.system_fingerprint),
        )

    async def events(self, transport: Transport, clock: Clock) -> AsyncGenerator[Event, None]:
        """The events of the answer. Raises the error that ended it otherwise, with secrets masked."""
        self._started = clock.monotonic()
        try:
            async with AsyncExitStack() as stack:
                response = await self._open(stack, transport, clock)
                decoder = self._wire.decoder(self._request, response.status, response.headers)
                chunks = await stack.enter_async_context(aclosing(self._chunks(response, clock)))
                async for chunk in chunks:
                    for event in decoder.feed(chunk):
                        yield self._noted(event, clock)
                    if decoder.done:
                        break
                self.finish_said, self.terminated = self.fold.finish_reason is not None, decoder.done
                for event in decoder.end():
                    yield self._noted(event, clock)
            self._check_finish()
        except LlmctlError as error:
            if (rest := self._shaped(self._rest(), last=True)).shows:
                self.fold.add(rest)
                yield rest
            self._present(error)
            raise
        except BaseException:
            self.fold.add(self._shaped(self._rest(), last=True))
            raise

    async def _open(self, stack: AsyncExitStack, transport: Transport, clock: Clock) -> Response:
        http = self._encoded.http
        if self._endpoint.aws:
            from llmctl.run.sign import signed

            http = signed(http, self._endpoint.aws, clock.now())
        sending = transport.send(http, self.deployment, connect_s=self._limits.connect_s)
        now = clock.monotonic()
        self.sent_at = clock.now()
        try:
            async with clock.timeout(self._left(now)):
                response = await stack.enter_async_context(sending)
        except TimeoutError as error:
            raise self._timed_out(now) from error
        self._patience_s -= clock.monotonic() - now
        self.heard_s = clock.monotonic() - self._started
        self.said = limits_said(response.headers, clock.now(), self.deployment.provider.dialect)
        self.status, self.request_id = response.status, self._masked(request_id(response.headers))
        if not 200 <= response.status < 300:
            raise await self._refusal(response, clock)
        return response

    async def _chunks(self, response: Response, clock: Clock) -> AsyncGenerator[bytes, None]:
        """The body until its end, a struck clock, or a break; the last two hurt before the finish only."""
        async with aclosing(response.chunks()) as chunks:
            while True:
                now = clock.monotonic()
                try:
                    async with clock.timeout(self._left(now)):
                        chunk = await anext(chunks, None)
                except TimeoutError as error:
                    if self.fold.finish_reason:
                        self.left_open = True
                        return
                    raise self._timed_out(now) from error
                except ProviderError as error:
                    if self.fold.finish_reason:
                        return
                    if self.first_token_s is None or not isinstance(error, ConnectionFailed):
                        raise
                    raise StreamTruncated(
                        f"the connection broke in the middle of the answer: {error.message}"
                    ) from error
                if chunk is None:
                    return
                self._patience_s -= clock.monotonic() - now
                yield chunk

    def _noted(self, event: Event, clock: Clock) -> Event:
        """The event with secrets masked, after the clocks and the fold have taken it in."""
        event = self._without_secrets(event, last=False)
        if event.finish_reason:
            rest = self._rest()
            event = replace(
                event,
                text=event.text + rest.text,
                reasoning=event.reasoning + rest.reasoning,
                refusal=event.refusal + rest.refusal,
                tool_calls=event.tool_calls + rest.tool_calls,
            )
        shows = event.shows
        event = self._shaped(event)
        self.fold.add(event)
        if shows:
            self._patience_s = self._limits.idle_s
            if self.first_token_s is None:
                self.first_token_s = clock.monotonic() - self._started
        if event.finish_reason:
            self.finished_s = clock.monotonic() - self._started
            self._patience_s = min(self._patience_s, LINGER_S)
        return event

    def _without_secrets(self, event: Event, *, last: bool) -> Event:
        """A provider may say a secret back: it is masked in all it makes, also when it is split over events.

        What is held back of one kind goes out with the next event that shows another: nothing changes its place.
        """
        text, reasoning, refusal = (
            self._masks[kind].feed(piece, last=last or (not piece and event.shows))
            for kind, piece in (("text", event.text), ("reasoning", event.reasoning), ("refusal", event.refusal))
        )
        calls = tuple(
            replace(
                call,
                id=call.id and self._masked(call.id),
                name=call.name and self._masked(call.name),
                arguments=self._masks[call.index].feed(call.arguments, last=last),
            )
            for call in event.tool_calls
        )
        if (text, reasoning, refusal, calls) == (event.text, event.reasoning, event.refusal, event.tool_calls):
            return event
        return replace(event, text=text, reasoning=reasoning, refusal=refusal, tool_calls=calls)

    def _shaped(self, event: Event, *, last: bool = False) -> Event:
        """What `event` is to the caller, where the answer's shape was asked for through a tool."""
        return self._shape.read(event, last=last) if self._shape else event

    def _rest(self) -> Event:
        """What is still held back when the answer ends."""
        held = [index for index in self._masks if isinstance(index, int)]
        calls = (ToolCallDelta(index, arguments=self._masks[index].feed("", last=True)) for index in held)
        return self._without_secrets(Event(tool_calls=tuple(call for call in calls if call.arguments)), last=True)

    def _left(self, now: float) -> float:
        """The seconds until a clock strikes: that of the provider's silence, or the deadline of the call."""
        return min(self._patience_s, self._started + self._limits.total_s - now)

    def _timed_out(self, now: float) -> LlmctlError:
        """The error of the clock that struck in the wait that began at `now`."""
        limits = self._limits
        if self._started + limits.total_s - now <= self._patience_s:
            return DeadlineExceeded("no whole answer before the call's deadline", hint="allow more time with --timeout")
        if self.first_token_s is None:
            return TimedOut(f"no first token within {limits.first_token_s:g} s", hint="raise [timeout] first_token")
        return TimedOut(f"nothing more came for {limits.idle_s:g} s", hint="raise [timeout] idle")

    async def _refusal(self, response: Response, clock: Clock) -> ProviderError:
        """The error that a response without an answer means."""
        if response.status < 400:
            to = self._masked(response.headers.get("location", "nowhere").partition("?")[0])[:200]
            return BadResponse(
                f"HTTP {response.status} points to {to}; redirects are never followed",
                hint="set api_base to that address if you trust it",
                status=response.status,
            )
        body = bytearray()
        try:
            async with clock.timeout(self._left(clock.monotonic())), aclosing(response.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_ERROR_BODY:
                        break
        except (TimeoutError, LlmctlError):
            pass  # the status has been heard: what is missing of its explanation does not change the class
        return self._wire.classify(response.status, response.headers, bytes(body[:MAX_ERROR_BODY]), clock.now())

    def _check_finish(self) -> None:
        if self.fold.finish_reason == "content_filter":
            raise ContentFiltered("the provider's content filter stopped the answer")
        if self.fold.finish_reason == "error":
            raise Unavailable("the provider ended the answer with an error of its own")
        if self.fold.finish_reason in ("stop", "tool_calls"):
            self._check_calls()

    def _check_calls(self) -> None:
        """Raises BadResponse for calls that nobody can make: arguments with a piece missing may still be valid JSON."""
        made = self.fold.completion()
        if made.skipped and (made.tool_calls or self._shape):
            raise BadResponse("an event of the stream was broken, so the arguments of its tool calls may not be whole")
        if not all(call.name for call in made.tool_calls):
            raise BadResponse("the answer holds a tool call without a name")
        if made.finish_reason == "tool_calls" and not (made.tool_calls or made.text):
            raise BadResponse("the answer says that it calls tools, and holds no call")

    def _present(self, error: LlmctlError) -> None:
        """Say where it happened, and mask what must not be shown, in the causes too: a traceback prints them."""
        served_by = self.deployment.served_by
        message = self._masked(error.message)
        error.message = message if message.startswith(served_by) else f"{served_by}: {message}"
        error.hint = self._masked(error.hint)
        error.request_id = self._masked(error.request_id)
        error.provider, error.model = self.deployment.provider.name, self.deployment.model
        error.status = error.status or self.status
        error.partial_text = self.fold.text
        cause: BaseException | None = error
        while cause is not None:
            cause.args = tuple(self._masked(arg) if isinstance(arg, str) else arg for arg in cause.args)
            cause = cause.__cause__ or cause.__context__
        error.args = (error.message,)

    def _masked(self, text: str) -> str:
        """`text` without any secret, nor what is left of one where a body or a header was cut to a snippet."""
        text = redact(text, self._endpoint.secrets)
        for value in (secret.reveal() for secret in self._endpoint.secrets):
            cut = next((n for n in range(len(value) - 1, _SHORTEST_CUT - 1, -1) if value[:n] in text), 0)
            text = text.replace(value[:cut], MASK) if cut else text
        return text
