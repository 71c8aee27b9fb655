"""The real client under a simulator of providers: each simulated deployment speaks its provider's own wire.

Run: python balance_sim.py --scenario steady --policy pyclient:benchmarks/balance_client.py:make

`make(deps, submit)` gives an object with `async complete(request)`. Configuration, engine, limits, strategy, encoding,
decoding and error mapping are the real ones; time is the event loop's own. The transport double asks
`await submit(index, request)` for a Result (ok, status, retry_after, headers, in_tokens, out_tokens) and says it as
that provider says it; `deps` and `request` are described at the head of the simulator.

What differs from a real provider: an answer comes whole, at its end, and its headers with it. A request that the
simulator gave up on (status 408) is one that nobody ever answers. Groq's header of requests is about the day, Bedrock
and Gemini say nothing in headers: what the simulator knows of these is left out.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from llmctl import Client
from llmctl.core.faults import Fault
from llmctl.run.shared import MemoryState
from llmctl.testing import VirtualClock
from llmctl.wire import PROTOCOLS
from llmctl.wire.scripted import Reply, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer, Attempt, CallRecord
    from llmctl.run.ports import State
    from llmctl.wire.base import HttpRequest

    Submit = Callable[[int, Any], Awaitable[Any]]

GROUP = "fleet"
SEED = 99
UNLIMITED = 1e8
FIRST_TOKEN_S = 60
"""As long as the simulator itself waits for a whole answer."""
PROVIDERS = {
    "azure": ("azure", "https://{}.openai.azure.com"),
    "openai": ("openai", "https://{}.example/v1"),
    "anthropic": ("anthropic", "https://{}.example"),
    "groq": ("groq", "https://{}.example/openai/v1"),
    "gemini": ("gemini", "https://{}.example"),
    "bedrock": ("bedrock", "https://{}.example"),
    "self": ("vllm", "http://127.0.0.1:8000/{}/v1"),
}
"""The simulator's kinds: by which provider of ours they are spoken to, and where."""

_PLAIN = {"tpm": "x-ratelimit-{}-tokens", "rpm": "x-ratelimit-{}-requests"}
HEADERS = {
    "azure": _PLAIN,
    "openai": _PLAIN,
    "groq": {"tpm": "x-ratelimit-{}-tokens"},
    "anthropic": {
        "rpm": "anthropic-ratelimit-requests-{}",
        "itpm": "anthropic-ratelimit-input-tokens-{}",
        "otpm": "anthropic-ratelimit-output-tokens-{}",
    },
}
"""The names of the headers in which a provider says a limit, what remains of it and when it is reset."""


class Response:
    """A whole response, headers and body heard at one instant."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in one piece."""
        yield self._body


class Forgetful:
    """A ledger that keeps nothing: an hour of simulated calls would fill the memory."""

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Forget it."""

    async def complete(self, record: CallRecord, attempts: tuple[Attempt, ...], answer: str | None) -> None:
        """Forget it."""


# ---------------------------------------------------------------------------- what a provider would say


def openai_answer(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def anthropic_answer(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    text = [{"type": "text", "text": "ok"}]
    rest = {"role": "assistant", "model": "m", "content": text, "stop_reason": "end_turn", "usage": usage}
    return {"id": "msg_1", "type": "message", **rest}


def gemini_answer(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    text = {"content": {"role": "model", "parts": [{"text": "ok"}]}, "finishReason": "STOP"}
    return {"candidates": [text], "usageMetadata": {"promptTokenCount": tokens_in, "candidatesTokenCount": tokens_out}}


def bedrock_answer(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    text = {"message": {"role": "assistant", "content": [{"text": "ok"}]}}
    return {"output": text, "stopReason": "end_turn", "usage": {"inputTokens": tokens_in, "outputTokens": tokens_out}}


ANSWERS = {"anthropic": anthropic_answer, "gemini": gemini_answer, "bedrock": bedrock_answer}


def said_by(kind: str, result: Any) -> Reply:
    """What a provider of this kind sends with a result, but for what it says of its limits."""
    if not result.ok:
        protocol = kind if kind in PROTOCOLS else "openai"
        return refusal(protocol, Fault(str(result.status)))
    document = ANSWERS.get(kind, openai_answer)(result.in_tokens, result.out_tokens)
    return Reply(200, {"content-type": "application/json"}, (json.dumps(document).encode(),))


def headers_of(kind: str, result: Any, elapsed_s: float, now: float) -> dict[str, str]:
    """What a provider of this kind says of its limits with a result, heard `now`, so long after the request."""
    headers = {} if result.retry_after is None else {"retry-after": f"{result.retry_after:g}"}
    for meter, name in HEADERS.get(kind, {}).items():
        for said in ("limit", "remaining"):
            if f"{said}_{meter}" in result.headers:
                headers[name.format(said)] = str(int(result.headers[f"{said}_{meter}"]))
        if f"reset_{meter}" in result.headers:
            left_s = max(0.0, result.headers[f"reset_{meter}"] - elapsed_s)
            date = datetime.fromtimestamp(now + left_s, UTC).isoformat().replace("+00:00", "Z")
            headers[name.format("reset")] = date if kind == "anthropic" else f"{left_s:.3f}s"
    return headers


class Simulated:
    """The transport double: the simulator's results as HTTP, and heard by it to the end though nobody waits."""

    def __init__(self, deps: Sequence[Any], submit: Submit) -> None:
        self.asking: ContextVar[Any] = ContextVar("asking")
        """The simulator's request that the current task is about."""
        self.under_way: set[asyncio.Future[Any]] = set()
        self._deps = {dep.name: dep for dep in deps}
        self._submit = submit
        self._clock = VirtualClock()

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Response]:
        """What the deployment answers, once it has wholly come."""
        del request, connect_s
        dep, began = self._deps[deployment.id], self._clock.monotonic()
        task = asyncio.ensure_future(self._submit(dep.idx, self.asking.get()))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        result = await asyncio.shield(task)
        if result.status == 408:
            await self._clock.sleep(inf)
        elapsed_s = self._clock.monotonic() - began
        said = said_by(dep.provider, result)
        headers = {**said.headers, **headers_of(dep.provider, result, elapsed_s, self._clock.now())}
        yield Response(result.status, headers, said.opening[0])

    async def aclose(self) -> None:
        """Wait until the simulator has heard the end of all that was sent."""
        await asyncio.gather(*self.under_way, return_exceptions=True)


# ---------------------------------------------------------------------------- the client


def config_of(deps: Sequence[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration of a fleet, and the environment with its keys: each deployment is an account of its own."""
    deployments, environ = [], {}
    for dep in deps:
        provider, address = PROVIDERS[dep.provider]
        key = f"KEY_{dep.idx}"
        environ[key] = f"sk-{dep.name}-of-the-simulator"
        meters = ("rpm", "itpm", "otpm") if dep.provider == "anthropic" else ("rpm", "tpm")
        limits = {meter: int(getattr(dep, meter)) for meter in meters if getattr(dep, meter) < UNLIMITED}
        own = {"api_base": address.format(dep.name), "api_key": f"env:{key}", "weight": float(dep.weight)}
        deployments.append({"id": dep.name, "model": f"{provider}/model", **own, **limits})
    timeout = {"first_token": f"{FIRST_TOKEN_S}s", "idle": f"{FIRST_TOKEN_S}s"}
    return {"models": {GROUP: {"deployments": deployments}}, "timeout": timeout}, environ


class Fleet:
    """A client over a simulated fleet."""

    def __init__(self, deps: Sequence[Any], transport: Simulated, state: State, seed: int = SEED) -> None:
        config, environ = config_of(deps)
        self.transport = transport
        self.client = Client(
            config,
            environ=environ,
            transport=transport,
            clock=VirtualClock(),
            rng=random.Random(seed),
            ledger=Forgetful(),
            state=state,
        )

    async def complete(self, request: Any) -> Answer:
        """The answer to one simulated request. Raises the error that the call ended in.

        The prompt is short, because a real one of 50,000 tokens would only cost time; how long it is said to be is
        the simulator's own estimate, as a router has it.
        """
        patience_s = request.deadline - request.t
        call = self.client.call(
            f"request {request.rid}",
            model=GROUP,
            max_tokens=request.max_tokens,
            timeout=patience_s,
            max_wait=patience_s,
            buffered=True,
            log=False,
        )
        self.transport.asking.set(request)
        try:
            return await self.client.engine.call(replace(call.ask, prompt_tokens=request.est_in)).whole()
        except BaseException:
            request.scratch["failed_s"] = asyncio.get_running_loop().time() - request.t
            raise

    async def aclose(self) -> None:
        """Let the simulator hear the end of what is under way."""
        await self.transport.aclose()


def make(deps: Sequence[Any], submit: Submit) -> Fleet:
    """One client for all calls, as the simulator asks for it."""
    return Fleet(deps, Simulated(deps, submit), MemoryState())


class Processes:
    """Each call by a client of its own, as a command that is run once; all of them share one state."""

    def __init__(self, deps: Sequence[Any], submit: Submit) -> None:
        self._deps = deps
        self._transport = Simulated(deps, submit)
        self._state = MemoryState()

    async def complete(self, request: Any) -> Answer:
        """The answer to one simulated request. Raises the error that the call ended in."""
        return await Fleet(self._deps, self._transport, self._state, seed=SEED + request.rid).complete(request)

    async def aclose(self) -> None:
        """Let the simulator hear the end of what is under way."""
        await self._transport.aclose()
