"""One scenario, played: the real engine on a clock, a transport and a state file of its own, and what was seen of it.

What is drilled is the production path: encoding, HTTP, decoding, error mapping, cooldowns and the ledger are the real
ones. Nothing is judged here.
"""

from __future__ import annotations

import itertools
import random
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import inf
from secrets import randbits
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.client import Client
from llmctl.core.budget import Budgets
from llmctl.core.catalog import Observers
from llmctl.core.errors import LlmctlError
from llmctl.core.record import ulid
from llmctl.core.redact import names_secret
from llmctl.lab.chain import with_chain
from llmctl.lab.scenarios import schedules
from llmctl.routing.plan import credential_key
from llmctl.routing.shape import is_whole
from llmctl.run.accounts import cost_of
from llmctl.run.clock import DrillClock
from llmctl.run.faults import FaultTransport
from llmctl.run.observe import AttemptEnded, Waiting
from llmctl.store.state import passing_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import Catalog, Deployment, Group
    from llmctl.core.record import Answer, Attempt, CallRecord
    from llmctl.lab.chain import Chain
    from llmctl.lab.scenarios import Scenario
    from llmctl.run.engine import CallRun
    from llmctl.run.faults import Sent
    from llmctl.run.observe import Notice
    from llmctl.run.ports import Clock, Ledger, State

COMMAND = "fallback drill"
NOWHERE = "https://stand-in.invalid"
"""Where a provider is believed to be whose address is not known: offline, nobody goes there."""


class Paused(NamedTuple):
    """A wait of a call: when it began (seconds since the call did), how long it was to be, why, and for which attempt.

    `before` is the number of the attempt that followed, one more than there are where none did.
    """

    at_s: float
    wait_s: float
    why: str
    before: int


@dataclass(frozen=True, slots=True)
class Told:
    """One call, from both sides: what the caller got, and what was sent. Seconds are those of the drill's clock.

    `sent` belongs to the attempts in order, None for one that never left. `at_s` is since the scenario began; `shown`
    is the text that came out of the call, whatever became of it.
    """

    at_s: float
    record: CallRecord
    attempts: tuple[Attempt, ...]
    sent: tuple[Sent | None, ...]
    pauses: tuple[Paused, ...]
    error: LlmctlError | None
    answer: Answer | None
    shown: str = ""

    @property
    def text(self) -> str:
        """What was answered; "" for nothing."""
        return self.answer.text if self.answer else ""

    @property
    def stood_in(self) -> bool:
        """Whether whoever was asked last was a stand-in: its words are our own script."""
        last = self.sent[-1] if self.sent else None
        return last is not None and not last.real


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A scenario that was played. `scripted` is what the scripted provider answers.

    `error` says why a call could not even begin: then it is in no `calls`.
    """

    scenario: Scenario
    chain: Chain
    prompt: str
    live: bool
    calls: tuple[Told, ...] = ()
    sent: tuple[Sent, ...] = ()
    scripted: str = ""
    elapsed_s: float = 0.0
    error: LlmctlError | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Where scenarios are played: the client whose configuration, ledger and, live, transports are used.

    `prompt_tokens` are an estimate. `speed` is how much faster than the world time runs, while nothing real is waited
    for.
    """

    client: Client
    chain: Chain
    prompt: str
    prompt_tokens: int
    live: bool = False
    speed: float = 50.0
    seed: int = 0

    async def play(self, scenario: Scenario, begun: Callable[[CallRun], object] = lambda _: None) -> Rehearsal:
        """What happens in `scenario`; `begun` is told before each call. Raises UsageError for an unknown target."""
        clock = DrillClock(self.speed)
        transport = FaultTransport(
            {name: what for name, what in schedules(self.chain, scenario).items() if not what.shrinks_window},
            clock=clock,
            beyond=self.client.transport if self.live else None,
            # The first throw strikes: what is flaky is to be seen to fail, however rarely it does.
            dice=itertools.chain((0.0,), iter(self._rng(f"fault {scenario.id}").random, None)).__next__,
        )
        watch = _Watch(Marked(self.client.ledger), transport, clock, self.client.engine.clock)
        calls: list[Told] = []
        error: LlmctlError | None = None
        async with aclosing(transport):
            with passing_state(is_whole) as state:
                client = Client(
                    arranged(self.client.catalog, self.chain, scenario),
                    endpoints=self.client.endpoints,
                    transport=transport,
                    clock=clock,
                    rng=self._rng(f"pause {scenario.id}"),
                    ledger=watch,
                    state=_Paced(state, clock),
                    hooks=[watch],
                )
                began = clock.monotonic()
                for n in range(scenario.calls):
                    await clock.sleep(max(0.0, began + n * scenario.every_s - clock.monotonic()))
                    at_s = clock.monotonic() - began
                    watch.anew()
                    run = self._call(client, scenario)
                    if isinstance(run, LlmctlError):
                        error = run
                        break
                    begun(run)
                    shown, failed = await _come_out(run)
                    calls.append(replace(watch.told(at_s, failed, run.answer), shown=shown))
                took_s = clock.monotonic() - began
        played = self.unplayed(scenario, error)
        return replace(
            played, calls=tuple(calls), sent=tuple(transport.sent), scripted=transport.text, elapsed_s=took_s
        )

    def unplayed(self, scenario: Scenario, error: LlmctlError | None) -> Rehearsal:
        """A rehearsal of `scenario` in which nothing has happened yet, and, with an error, nothing will."""
        return Rehearsal(scenario, self.chain, self.prompt, self.live, error=error)

    def _call(self, client: Client, scenario: Scenario) -> CallRun | LlmctlError:
        """A call of `scenario`, not yet begun, or why there can be none."""
        try:
            run = client.call(
                self.prompt,
                model=self.chain.name,
                fallbacks=[] if scenario.alone else None,
                buffered=not scenario.streamed,
                command=COMMAND,
            )
        except LlmctlError as error:
            return error
        # Its own id comes from dice that fall the same in every process.
        run.record = replace(run.record, id=ulid(self.client.engine.clock.now(), randbits(80)))
        return run

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.seed}")  # noqa: S311 - nothing secret hangs on it


async def _come_out(run: CallRun) -> tuple[str, LlmctlError | None]:
    """The text that the call gives out, and the error that it ends in; None for an answer."""
    shown = []
    try:
        async with aclosing(run.events()) as events:
            async for event in events:
                shown.append(event.text)  # noqa: PERF401 - what came before an error would be lost
    except LlmctlError as error:
        return "".join(shown), error
    return "".join(shown), None


class Marked:
    """A ledger whose rows are a drill's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Write the row, marked."""
        await self._ledger.begin(replace(record, drill=True), prompt)

    async def reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str = "") -> None:
        """Reserve: a drill is charged as any call."""
        await self._ledger.reserve(replace(record, drill=True), budgets, nanousd, unpriced)

    async def complete(self, record: CallRecord, attempts: tuple[Attempt, ...], answer: str | None) -> None:
        """Complete the row, marked."""
        await self._ledger.complete(replace(record, drill=True), attempts, answer)


class _Paced:
    """A state in whose steps time passes as in the world: what this machine needs for them counts once."""

    def __init__(self, state: State, clock: DrillClock) -> None:
        self._state = state
        self._clock = clock

    async def update(self, *given: Any, **how: Any) -> Any:
        """As `run.ports.State.update`."""
        with self._clock.real():
            return await self._state.update(*given, **how)


class _Watch:
    """The ledger of the drilled client, and its hook: keeps what is told, and writes down what it has cost.

    What never left this machine cost nothing. While a row is written, time passes as in the world.
    """

    def __init__(self, ledger: Ledger, transport: FaultTransport, clock: DrillClock, wall: Clock) -> None:
        """A row's instants are those of `wall`; how long things took, `clock` says."""
        self._ledger = ledger
        self._transport = transport
        self._clock = clock
        self._wall = wall
        self._ahead_s = 0.0
        self.anew()

    def anew(self) -> None:
        """Another call begins."""
        self._began, self._sent_before = self._clock.now(), len(self._transport.sent)
        self._pauses: list[Paused] = []
        self._ended = 0
        self._row: tuple[CallRecord, tuple[Attempt, ...], tuple[Sent | None, ...]] | None = None

    def __call__(self, notice: Notice) -> None:
        """Take in what the engine tells."""
        match notice:
            case AttemptEnded(attempt=attempt):
                self._ended = attempt.n
            case Waiting(wait_s, why):
                at_s = self._clock.now() - self._began
                self._pauses.append(Paused(at_s, wait_s, why, self._ended + 1))

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Write the row."""
        self._began = record.started_at  # what the attempts' times count from too
        self._ahead_s = record.started_at - self._wall.now()
        with self._clock.real():
            await self._ledger.begin(self._on_the_wall(record), prompt)

    async def reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str = "") -> None:
        with self._clock.real():
            await self._ledger.reserve(self._on_the_wall(record), budgets, nanousd, unpriced)

    def _on_the_wall(self, record: CallRecord) -> CallRecord:
        instants = {name: getattr(record, name) for name in ("started_at", "finished_at", "deadline_at")}
        return replace(record, **{name: at - self._ahead_s for name, at in instants.items() if at is not None})

    async def complete(self, record: CallRecord, attempts: tuple[Attempt, ...], answer: str | None) -> None:
        """Complete the row, with what was really spent."""
        sent = self._sent_in(attempts)
        charged = [s is None or s.real for s in sent]
        attempts = tuple(a if c else replace(a, cost_nanousd=0) for a, c in zip(attempts, charged, strict=True))
        really = any(each.real for each in sent if each)
        record = replace(record, cost_nanousd=cost_of(list(attempts)) if really else 0)
        self._row = record, attempts, sent
        rows = tuple(replace(each, started_at=each.started_at - self._ahead_s) for each in attempts)
        with self._clock.real():
            await self._ledger.complete(self._on_the_wall(record), rows, answer)

    def told(self, at_s: float, error: LlmctlError | None, answer: Answer | None) -> Told:
        """The call that has ended."""
        assert self._row is not None, "a call that has ended has a complete row"
        record, attempts, sent = self._row
        return Told(at_s, record, attempts, sent, tuple(self._pauses), error, answer)

    def _sent_in(self, attempts: tuple[Attempt, ...]) -> tuple[Sent | None, ...]:
        """What was sent in each of a call's attempts: it has one at a time, and each ends before the next begins."""
        mine = self._transport.sent[self._sent_before :]
        begins = [each.started_at for each in attempts]
        spans = zip(begins, [*begins, inf][1:], strict=True)
        return tuple(next((each for each in mine if begin <= each.at < end), None) for begin, end in spans)


# ---------------------------------------------------------------- the configuration of a scenario


def arranged(catalog: Catalog, chain: Chain, scenario: Scenario) -> Catalog:
    """`catalog` as a scenario needs it: windows that are to be small, and faulted deployments asked before their peers.

    Of a link with a fault for some of its deployments those come first: else whether it fires would be up to chance.
    """
    what = schedules(chain, scenario)

    def changed(group: Group) -> Group:
        by_fault = sorted(group.deployments, key=lambda each: each.id not in what)
        small = {each.id for each in by_fault if each.id in what and what[each.id].shrinks_window}
        made = tuple(replace(each, context_window=1) if each.id in small else each for each in by_fault)
        some = 0 < sum(each.id in what for each in made) < len(made)
        return replace(group, deployments=made, strategy="ordered" if some else group.strategy)

    return with_chain(catalog, chain, changed)


def scripted(catalog: Catalog, chain: Chain) -> Catalog:
    """`catalog` with the chain's deployments as they are offline: a key of ours for each credential, and an address.

    Those that share a credential still do. No secret header leaves its place.
    """
    keys: dict[str, str] = {}

    def stand_in(each: Deployment) -> Deployment:
        key = keys.setdefault(credential_key(each), f"drill-key-{len(keys) + 1}")
        provider = replace(each.provider, headers=_public(each.provider.headers))
        base = each.api_base or each.provider.api_base or NOWHERE
        return replace(each, provider=provider, api_key=key, api_base=base, headers=_public(each.headers))

    def changed(group: Group) -> Group:
        return replace(group, deployments=tuple(map(stand_in, group.deployments)))

    # What a budget refuses is spending, and offline nothing is spent; nor does anything happen that others are told of.
    settings = replace(catalog.settings, budgets=Budgets(), observers=Observers())
    return replace(with_chain(catalog, chain, changed), settings=settings)


def _public(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not value.startswith("env:") and not names_secret(name)}
