"""Public test doubles: a scripted transport, a transport of faults, clocks, a ledger and a state in memory.

They plug in where the real parts do (`Client(transport=..., clock=..., ledger=...)`), below the engine: encoding,
decoding, error mapping and the call machine stay the real ones.

    transport = ScriptedTransport(Reply.refusal(503), Reply.stream("Hel", "lo"))
    client = llmctl.Client({"models": {"m": {"model": "openai/gpt-4o"}}}, environ={"OPENAI_API_KEY": "k"},
                           transport=transport, ledger=MemoryLedger())
    assert client.complete("hi", model="m", retries=1).text == "Hello"
"""

from __future__ import annotations

import asyncio
import json
import selectors
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.run.clock import DrillClock, SystemClock
from llmctl.run.faults import FaultTransport
from llmctl.run.shared import MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence

    from llmctl.core.budget import Budgets
    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.wire.base import HttpRequest

__all__ = [
    "EPOCH", "DrillClock", "FaultTransport", "MemoryLedger", "MemoryState", "Reply", "ScriptedTransport",
    "VirtualClock", "run_virtual", "sse",
]  # fmt: skip
T = TypeVar("T")
EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z: where virtual time begins


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted response. `delay_s` passes before the headers, `gap_s` before each chunk; `error` ends the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] = ()
    delay_s: float = 0.0
    gap_s: float = 0.0
    error: LlmctlError | None = None

    @classmethod
    def stream(cls, *pieces: str, finish: str | None = "stop", done: bool = True, **how: Any) -> Reply:
        """An OpenAI-shaped event stream of text `pieces`; without `finish` and `done` it is a truncated one."""
        rows: list[dict[str, Any]] = [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        if finish is not None:
            rows.append({"delta": {}, "finish_reason": finish})
        chunks = [sse({"model": "scripted", "choices": [{"index": 0, **row}]}) for row in rows]
        if finish is not None:
            tokens = {"prompt_tokens": 7, "completion_tokens": len(pieces)}
            chunks.append(sse({"model": "scripted", "choices": [], "usage": tokens}))
        if done:
            chunks.append(b"data: [DONE]\n\n")
        return cls(headers={"content-type": "text/event-stream"}, chunks=tuple(chunks), **how)

    @classmethod
    def vectors(cls, *vectors: Sequence[float], tokens: int | None = 7, **how: Any) -> Reply:
        """An OpenAI-shaped embeddings answer; without `tokens` it does not say how many there were."""
        rows = [{"index": n, "embedding": list(vector)} for n, vector in enumerate(vectors)]
        used = {} if tokens is None else {"usage": {"prompt_tokens": tokens}}
        body = json.dumps({"model": "scripted", "data": rows, **used}).encode()
        return cls(headers={"content-type": "application/json"}, chunks=(body,), **how)

    @classmethod
    def refusal(cls, status: int, message: str = "no", headers: Mapping[str, str] | None = None, **error: Any) -> Reply:
        """An OpenAI-shaped error of `status`; `error` adds fields such as `code`."""
        body = json.dumps({"error": {"message": message, **error}}).encode()
        return cls(status, {"content-type": "application/json", **(headers or {})}, (body,))


def sse(document: Mapping[str, Any]) -> bytes:
    """One server-sent event with a JSON document."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class ScriptedTransport:
    """Answers request number n with reply number n, and the last reply for ever after; keeps what was sent."""

    def __init__(self, *replies: Reply | LlmctlError) -> None:
        """A reply that is an error is raised instead of answered."""
        self.requests: list[HttpRequest] = []
        self.deployments: list[str] = []
        self.open = 0
        self._replies = replies

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[_Response]:
        """The next scripted reply."""
        del connect_s
        reply = self._replies[min(len(self.requests), len(self._replies) - 1)]
        self.requests.append(request)
        self.deployments.append(deployment.id)
        if not isinstance(reply, Reply):
            raise reply
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        self.open += 1
        try:
            yield _Response(reply)
        finally:
            self.open -= 1

    def bodies(self) -> list[Any]:
        """The JSON bodies that were sent."""
        return [json.loads(request.body) for request in self.requests]

    async def aclose(self) -> None:
        """Nothing is held."""


class _Response:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._reply.chunks:
            if self._reply.gap_s:
                await asyncio.sleep(self._reply.gap_s)
            yield chunk
        if self._reply.error is not None:
            raise self._reply.error


class MemoryLedger:
    """A ledger that forgets at the end of the process. `rows` are the records as last written, by call id."""

    def __init__(self) -> None:
        self.rows: dict[str, CallRecord] = {}
        self.states: list[str] = []
        self.attempts: dict[str, tuple[Attempt, ...]] = {}
        self.texts: dict[str, tuple[str | None, str | None]] = {}
        self.reserved: dict[str, int] = {}

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Keep the row as it begins."""
        self.rows[record.id] = record
        self.states.append(record.state)
        self.texts[record.id] = (prompt, None)

    async def reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str = "") -> None:
        """Keep what was reserved; every day and month has enough left."""
        del budgets, unpriced
        self.reserved[record.id] = nanousd

    async def complete(self, record: CallRecord, attempts: Sequence[Attempt], answer: str | None) -> None:
        """Keep the row as it ends."""
        self.rows[record.id] = record
        self.states.append(record.state)
        self.attempts[record.id] = tuple(attempts)
        self.texts[record.id] = (self.texts[record.id][0], answer)


class VirtualClock(SystemClock):
    """The clock of a virtual event loop: time passes only when everything waits. Use inside `run_virtual`."""

    def now(self) -> float:
        """Unix seconds, from 2026-01-01."""
        return EPOCH + self.monotonic()

    def monotonic(self) -> float:
        """Virtual seconds since the loop began; 0 outside of one."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0


class _VirtualSelector(selectors.SelectSelector):
    """Never waits: what would be waited for is added to the loop's clock instead."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that will never come")
        if not ready and timeout:
            self.passed += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on an event loop whose time is virtual: sleeping an hour takes no time. No sockets, no threads."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)
