"""One call's way to the cache: look, wait for an equal call that is under way, keep what came.

The rules are in `core/caching`, the keys in `core/scope`, the store is behind the port `Cache`. Whatever fails here is
a miss: no call is stopped, or answered wrongly, because of the cache. A start that finds its answer has no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.caching import Asked, Entry, Flight, expires_at, packed, unfit, unpacked
from llmctl.core.errors import LlmctlError
from llmctl.core.record import Answer
from llmctl.core.scope import Key, digest, key_of, question_of, scope_of
from llmctl.core.screen import screen
from llmctl.core.types import Completion, Event, Image, Text, ToolCallDelta
from llmctl.routing.policy import Policy
from llmctl.run.accounts import prompt_of
from llmctl.run.asking import answered, record_of, with_defaults
from llmctl.run.observe import CallEnded, CallStarted, Recalled
from llmctl.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmctl.core.caching import Found, Use
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import CallRecord
    from llmctl.core.types import Request
    from llmctl.run.asking import Ask
    from llmctl.run.endpoint import Endpoints
    from llmctl.run.observe import Hooks
    from llmctl.run.ports import Cache, Clock
    from llmctl.store.ledger import SqliteLedger

T = TypeVar("T")
LEASE_S = 15.0
"""How long those who ask the same wait for a leader that says nothing more: it may be dead."""
_PAUSES_S = (0.02, 0.2)
_PIECE = 160


@dataclass(slots=True, eq=False)
class Caching:
    """What all calls of a client share of the cache."""

    cache: Cache
    endpoints: Endpoints
    clock: Clock
    dice: Callable[[], float]
    worker: Worker = field(default_factory=lambda: Worker("llmctl-cache"))
    warnings: list[str] = field(default_factory=list)

    def tried(self, work: Callable[[], T], default: T) -> T:
        """What `work()` returns; `default` where the cache, which may be anybody's, fails: that is said once."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever a cache does is a miss
            self.warnings[:] = [f"the cache is not used: {type(error).__name__} in {type(self.cache).__name__}"]
            return default

    async def do(self, work: Callable[[], T], default: T) -> T:
        """As `tried`, kept off the event loop; done even if the wait is cancelled."""
        if not self.cache.blocks:
            return self.tried(work, default)
        return await self.worker.run(lambda: self.tried(work, default), to_the_end=True)

    def scope(self, request: Request, deployment: Deployment, use: Use, *, strict: bool = False) -> bytes | None:
        """The scope of asking `deployment` as `use` says, in the environment of now; None where that cannot be said."""
        at = self.endpoints
        try:
            spoken = replace(deployment, api_version=at.api_version(deployment))
            address, headers = at.address(deployment), at.headers(deployment)[0]
            asked = with_defaults(request, deployment.params)
            return scope_of(asked, spoken, address, headers, use.documents, use.namespace, strict=strict)
        except (LlmctlError, ValueError, RecursionError):
            return None

    def of(self, ask: Ask, call_id: str) -> Recall:
        """The way of one call."""
        return Recall(self, ask, call_id)


class Recall:
    """The way of one call. `why` says what keeps it out of the cache, "" where nothing does."""

    def __init__(self, caching: Caching, ask: Ask, call_id: str) -> None:
        self._caching = caching
        self._ask = ask
        self._call_id = call_id
        self._question = question_of(ask.request)
        self._screened = ""
        self._text = "\n".join(self._question)
        self._flight: bytes | None = None
        self._claims = False
        use = ask.cache
        self.why = use.why or "the cache is off" if use.off else self._kept_out()
        self._keys = () if self.why or not use.tiers else tuple(filter(None, map(self._key, ask.plan.own)))
        self._asked = Asked(call_id, self._text if ask.keep_text else None)

    def _kept_out(self) -> str:
        """Why a prompt that is asked is not for the cache."""
        if not self._question:
            return "the last turn is not the user's"
        self._screened, messages = screen(self._text), self._ask.request.messages
        if self._ask.cache.screened:
            if self._screened:
                return f"the prompt is {self._screened}"
            if any(isinstance(part, Image) and part.url for message in messages for part in message.parts):
                return "what is at the address of an image may change"
        return ""

    @cached_property
    def _canonical(self) -> str | None:
        """The canonical text, of a prompt that has one; an exact hit needs none."""
        parts = self._ask.request.messages[-1].parts
        if self._screened or len(self._question) != 1 or not all(isinstance(part, Text) for part in parts):
            return None
        from llmctl.core.canonical import canonical

        return canonical(self._text)

    def _key(self, deployment: Deployment, *, wholly: bool = False) -> Key | None:
        """Where the answer of `deployment` is, `wholly` by all tiers, else by those that are looked into.

        None where that cannot be said.
        """
        use = self._ask.cache
        scope = self._caching.scope(self._ask.request, deployment, use, strict=self._ask.strict_params)
        if scope is None:
            return None
        return key_of(scope, self._question, self._canonical if wholly or "canonical" in use.tiers else None)

    @property
    def column(self) -> str:
        """What the ledger says of the cache before anything is found."""
        return "off" if self.why else "miss"

    # ---------------------------------------------------------------- looking

    def find(self) -> Found | None:
        """The kept answer, if there is one. Blocks for a query."""
        if not self._keys:
            return None
        use, cache, now = self._ask.cache, self._caching.cache, self._caching.clock.now()
        return self._caching.tried(
            lambda: self._sound(cache.find(self._keys, use.tiers, self._asked, now, use.ttl_s)), None
        )

    def _sound(self, found: Found | None) -> Found | None:
        """`found`, which answers this very request. Raises ValueError where a cache says so of another."""
        if found is not None:
            unpacked(found.entry.answer)
            mine = {getattr(key, found.tier) for key in self._keys} - {None}
            if found.tier not in self._ask.cache.tiers or getattr(found.entry.key, found.tier) not in mine:
                raise ValueError("the entry of another request")
        return found

    async def awaited(self, waiting: Callable[[], object]) -> Found | None:
        """The kept answer, also of an equal call that is under way: `waiting` is told when it is waited for.

        None when this call is to ask; then the others wait until it `landed`.
        """
        if not self._keys:
            return None
        if not self._ask.cache.keeps:
            return await self._caching.do(self.find, None)
        clock, flight = self._caching.clock, digest(sorted(key.exact.hex() for key in self._keys))
        self._claims, since, pause_s = True, clock.now(), _PAUSES_S[0]
        patient_until = clock.monotonic() + self._patience_s()
        while True:
            answer = await self._caching.do(lambda: self._claim(flight, since), Flight(alone=True))
            if answer.found is not None or answer.alone:
                return answer.found
            if answer.leads or clock.monotonic() >= patient_until:
                return None
            if pause_s == _PAUSES_S[0]:
                waiting()
            await clock.sleep(pause_s * (1 + self._caching.dice()) / 2)
            pause_s = min(2 * pause_s, _PAUSES_S[1])

    def _patience_s(self) -> float:
        """How long an equal call is waited for: what is left of the deadline must do for an answer of its own.

        A minute (`max_wait`, if nobody says less) is no bound: an equal call that thinks for so long is nearly there.
        """
        policy = self._ask.policy
        half_s = policy.total_s / 2
        return min(half_s, policy.max_wait_s) if policy.max_wait_s < Policy().max_wait_s else half_s

    def _claim(self, flight: bytes, since: float) -> Flight:
        use = self._ask.cache
        answer = self._caching.cache.claim(
            flight,
            self._keys,
            use.tiers,
            self._asked,
            self._caching.clock.now(),
            ttl_s=use.ttl_s,
            lease_s=LEASE_S,
            since=since,
        )
        if answer.leads:
            self._flight = flight
        self._sound(answer.found)
        return answer

    async def renew(self) -> None:
        """Hold on to the lead, if this call has it."""
        flight, now = self._flight, self._caching.clock.now()
        if flight is not None:
            await self._caching.do(lambda: self._caching.cache.renew(flight, self._call_id, now, LEASE_S), None)

    # ---------------------------------------------------------------- keeping

    async def landed(
        self, served: Deployment | None, record: CallRecord, completion: Completion, parsed: Any = None
    ) -> None:
        """The call has ended: keep its answer under the one who gave it, if it may be kept, and let the others know.

        `served` is None where the call did not end well. One that was stopped leaves its lead to whoever waits.
        """
        entry = self._entry(served, record, completion, parsed) if served is not None else None
        if entry is None and not self._claims:
            return
        cache, now = self._caching.cache, self._caching.clock.now()

        def land() -> None:
            flight, self._flight = self._flight, None  # here, after a claim that the call did not wait for
            kept = entry is not None and cache.put(entry, now)
            if flight is not None:
                own = kept and entry is not None and any(entry.key.exact == key.exact for key in self._keys)
                cache.land(flight, self._call_id, now, gave_up=not own and record.state != "cancelled")

        await self._caching.do(land, None)

    def _entry(self, served: Deployment, record: CallRecord, made: Completion, parsed: Any) -> Entry | None:
        use = self._ask.cache
        if self.why or not use.keeps or unfit(made):
            return None
        key = self._key(served, wholly=True)
        if key is None:
            return None
        now = self._caching.clock.now()
        return Entry(
            id=self._call_id,
            key=key,
            created_at=now,
            expires_at=expires_at(now, use.ttl_s, self._caching.dice()),
            group=self._ask.plan.name,
            served_by=served.served_by,
            provider=served.provider.name,
            deployment=served.id,
            prompt=self._text,
            answer=packed(made, parsed, served.maker),
            cost_nanousd=record.cost_nanousd,
            documents=use.documents,
        )


def answered_now(caching: Caching, ask: Ask, ledger: SqliteLedger, hooks: Hooks) -> Answer | None:
    """The kept answer, booked, for a caller without an event loop; None where there is none: nothing was written."""
    began, now = caching.clock.monotonic(), caching.clock.now()
    record = record_of(ask, now, caching.dice, ask.policy.total_s)
    found = caching.of(ask, record.id).find()
    if found is None:
        return None
    answer = recalled(found, ask, record, now, (caching.clock.monotonic() - began) * 1000)
    hooks.tell(CallStarted(answer.record, ask.plan))
    hooks.tell(Recalled(found.tier, now - found.entry.created_at, found.entry.served_by))
    ledger.record_now(answer.record, prompt_of(ask), answer.text if ask.keep_text else None)
    hooks.tell(CallEnded(answer.record))
    return answer


def recalled(found: Found, ask: Ask, record: CallRecord, now: float, latency_ms: float) -> Answer:
    """The answer that `found` gives to the call of `record`: it costs nothing, and saves what the entry had cost."""
    entry, strategy = found.entry, ask.policy.strategy or ask.plan.links[0].group.strategy
    made = unpacked(entry.answer)
    booked = answered(
        record,
        found.tier,
        entry.cost_nanousd or 0,
        latency_ms,
        served_by=entry.served_by,
        provider=entry.provider,
        deployment=entry.deployment,
        reported_model=made.reported_model or None,
        system_fingerprint=made.system_fingerprint or None,
        finish_reason=made.finish_reason,
    )
    return Answer(
        record=booked,
        completion=made,
        attempts=(),
        route={"strategy": strategy, "reason": f"answered from the cache ({found.tier})", "complexity": None},
        parsed=entry.answer.get("parsed"),
        maker=str(entry.answer.get("maker", "")),
        cache_age_s=max(0.0, now - entry.created_at),
    )


def replayed(made: Completion) -> Iterator[Event]:
    """The events of a kept answer: what was streamed once is streamed again, without the waiting."""
    if made.reasoning:
        yield Event(reasoning=made.reasoning)
    for begin in range(0, len(made.text), _PIECE):
        yield Event(text=made.text[begin : begin + _PIECE])
    calls = tuple(ToolCallDelta(n, c.id, c.name, c.arguments, c.signature) for n, c in enumerate(made.tool_calls))
    yield Event(
        tool_calls=calls,
        finish_reason=made.finish_reason,
        reported_model=made.reported_model,
        system_fingerprint=made.system_fingerprint,
    )
