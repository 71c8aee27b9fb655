"""Public test doubles: a scripted transport, a transport of faults, clocks, a ledger, a cache and a state in memory.

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
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.caching import SKEW_S, Flight, Found, is_live
from llmctl.run.clock import DrillClock, SystemClock
from llmctl.run.faults import FaultTransport
from llmctl.run.shared import MemoryState
from llmctl.store.cache_rows import OVERHEAD_OF_A_VECTOR, SPARED_S, SWEPT, entry_size, row_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence

    from llmctl.core.budget import Budgets
    from llmctl.core.caching import Asked, Entry, Tier, Vector
    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.core.scope import Key
    from llmctl.wire.base import HttpRequest

__all__ = [
    "EPOCH", "DrillClock", "FaultTransport", "MemoryCache", "MemoryLedger", "MemoryState", "Reply", "ScriptedTransport",
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


class MemoryCache:
    """A cache (`run.ports.Cache`) that forgets at the end of the process.

    `entries` are what it keeps, by exact key, `hits` what was found for whom, `forbidden` the pairs of exact keys that
    never answer each other.
    """

    blocks = False

    def __init__(self, *, max_entries: int = 100_000, max_bytes: int = 512 << 20) -> None:
        self.warnings: list[str] = []
        self.entries: dict[bytes, Entry] = {}
        self.hits: list[tuple[Asked, Found]] = []
        self.forbidden: set[tuple[bytes, bytes]] = set()
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._used: dict[bytes, tuple[float, int]] = {}
        self._vectors: dict[bytes, tuple[float, Vector]] = {}
        self._leases: dict[bytes, tuple[str | None, float, float, float | None]] = {}
        self._lock = threading.RLock()

    def find(self, keys: Sequence[Key], tiers: Sequence[Tier], asked: Asked, now: float, ttl_s: float) -> Found | None:
        """The newest live entry."""
        with self._lock:
            for tier in tiers:
                digests = {getattr(key, tier) for key in keys} - {None}
                found = [
                    entry
                    for exact, entry in reversed(self.entries.items())
                    if getattr(entry.key, tier) in digests
                    and is_live(entry, now, ttl_s)
                    and not any((key.exact, exact) in self.forbidden for key in keys)
                ]
                if found:
                    newest = max(found, key=lambda entry: entry.created_at)
                    if not asked.call_id:
                        return Found(newest, tier)
                    self._used[newest.key.exact] = now, self._used[newest.key.exact][1]
                    self.hits.append((asked, Found(newest, tier)))
                    return self.hits[-1][1]
        return None

    def put(self, entry: Entry, now: float) -> bool:
        """Keep `entry`."""
        row, exact = row_of(entry), entry.key.exact
        if row is None or (exact, exact) in self.forbidden:
            return False
        size = entry_size(*row[1:], set(entry.documents))
        with self._lock:
            most = self._max_bytes - self._vector_bytes()
            if size > most or self._max_entries < 1:
                return False
            for old in [each for each, kept in self.entries.items() if each == exact or kept.id == entry.id]:
                self._drop(old)
            dead = [each for each, kept in self.entries.items() if kept.expires_at <= now]
            for n, old in enumerate(sorted(dead, key=lambda each: self.entries[each].expires_at)):
                if n < SWEPT or self._lacks(size, most):
                    self._drop(old)
            while self._lacks(size, most):
                self._drop(min(self._used, key=lambda each: self._used[each][0]))
            self.entries[exact], self._used[exact] = entry, (now, size)
        return True

    def claim(
        self,
        flight: bytes,
        keys: Sequence[Key],
        tiers: Sequence[Tier],
        asked: Asked,
        now: float,
        *,
        ttl_s: float,
        lease_s: float,
        since: float,
    ) -> Flight:
        """Take off, or learn who has."""
        with self._lock:
            found = self.find(keys, tiers, asked, now, ttl_s)
            owner, renewed_at, until, gave_up_at = self._leases.get(flight, (None, 0.0, 0.0, None))
            if found is not None:
                return Flight(found=found)
            if gave_up_at is not None and since <= gave_up_at <= now + SKEW_S:
                return Flight(alone=True)
            if owner is not None and renewed_at <= now + SKEW_S and now < until:
                return Flight()
            self._leases[flight] = asked.call_id, now, now + lease_s, gave_up_at
            return Flight(leads=True)

    def renew(self, flight: bytes, call_id: str, now: float, lease_s: float) -> None:
        """Hold on to a lease."""
        with self._lock:
            owner, *_, gave_up_at = self._leases.get(flight, (None, None))
            if owner == call_id:
                self._leases[flight] = owner, now, now + lease_s, gave_up_at

    def land(self, flight: bytes, call_id: str, now: float, *, gave_up: bool) -> None:
        """Let go of a lease."""
        with self._lock:
            owner, *_, gave_up_at = self._leases.get(flight, (None, None))
            if owner == call_id:
                self._leases[flight] = None, now, now, now if gave_up else gave_up_at

    def vectors(self, keys: Sequence[bytes], now: float) -> dict[bytes, Vector]:
        """The kept vectors of `keys`."""
        with self._lock:
            found = {key: self._vectors[key][1] for key in keys if key in self._vectors}
            self._vectors |= {key: (now, each) for key, each in found.items()}
        return found

    def put_vectors(self, rows: Mapping[bytes, Vector], model: str, now: float) -> None:
        """Keep vectors."""
        del model
        with self._lock:
            for key in rows:
                self._vectors.pop(key, None)
            more = sum(map(_vector_size, rows.values()))
            for key, (used, _) in sorted(self._vectors.items(), key=lambda each: each[1][0]):
                if self._vector_bytes() + more > self._max_bytes // 2 and not now - SPARED_S <= used <= now + SKEW_S:
                    del self._vectors[key]
            if self._vector_bytes() + more <= self._max_bytes // 2:
                self._vectors |= {key: (now, each) for key, each in rows.items()}

    def _drop(self, exact: bytes) -> None:
        del self.entries[exact], self._used[exact]

    def _lacks(self, size: int, most: int) -> bool:
        used = sum(held for _, held in self._used.values())
        return len(self.entries) >= self._max_entries or used + size > most

    def _vector_bytes(self) -> int:
        return sum(_vector_size(each) for _, each in self._vectors.values())


def _vector_size(vector: Vector) -> int:
    return len(vector.data) + OVERHEAD_OF_A_VECTOR


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
