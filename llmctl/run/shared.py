"""The state that all calls share, as one call uses it: decide and reserve in one step, hold on, settle at the end.

Where the shared state cannot be used, this process goes on from what it knew of it last, alone, and says so once.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.errors import LlmctlError, StateUnusable
from llmctl.core.snapshot import Snapshot
from llmctl.routing.book import Book, Keys, Size, step
from llmctl.routing.call import Send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.routing.call import Call, Done, Fail, Wait
    from llmctl.routing.plan import Plan
    from llmctl.routing.settle import Outcome
    from llmctl.run.endpoint import Endpoints
    from llmctl.run.ports import Clock, State

T = TypeVar("T")
WAIT_S = 4.0
ALONE_S = 30.0
"""How long the shared state is waited for; how long it is then left alone, so that a call waits for it once."""
_BETWEEN = "\x1f"
_SHAPE = "1"
"""Of the documents; it stands in their names, so that a release which gives them another begins with new ones."""
_SET_S = 1.0
"""By how much the wall clock must disagree with the monotonic one before it counts as having been set."""


class MemoryState:
    """A state (`run.ports.State`) that this process alone sees. `work` runs at once, where it is called.

    A `work` that raises adds and removes no document, but what it changed inside one of `documents` stays changed:
    copies would cost a simulation its speed. `strict` makes them: a step then leaves exactly what a store on disk would
    leave, and one that leaves what JSON would change or refuse (a tuple, a number as key, an infinity) raises
    ValueError.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.documents: dict[str, Any] = {}
        self._strict = strict
        self._lock = Lock()

    async def update(
        self, keys: Sequence[str], work: Callable[[dict[str, Any]], T], *, wait_s: float = 5.0, to_the_end: bool = False
    ) -> T:
        """What `work(documents)` returns."""
        del to_the_end
        return self.update_now(keys, work, wait_s=wait_s)

    def update_now(self, keys: Sequence[str], work: Callable[[dict[str, Any]], T], *, wait_s: float = 5.0) -> T:
        """`update`, for callers without an event loop."""
        del wait_s
        with self._lock:
            found = {key: self.documents[key] for key in keys if key in self.documents}
            if self._strict:
                found = json.loads(json.dumps(found))
            result = work(found)
            if not found.keys() <= set(keys):
                raise ValueError("a step may only add documents under the keys it named")
            if self._strict:
                left, found = found, json.loads(json.dumps(found, allow_nan=False))
                if left != found:
                    raise ValueError("a document holds what JSON would change")
            for key in keys:
                self.documents.pop(key, None)
            self.documents.update(found)
        return result


@dataclass(slots=True, eq=False)
class Shared:
    """The shared state with what it takes to find a deployment's documents in it."""

    state: State
    clock: Clock
    endpoints: Endpoints
    dice: Callable[[], float]
    warnings: list[str] = field(default_factory=list)
    _own: MemoryState = field(default_factory=MemoryState)
    _alone_until: float = 0.0

    def place(self, plan: Plan, call_id: str, size: Size) -> Place:
        """Where one call works in it."""
        return Place(self, self.keys_of(plan.deployments), self.group_key(plan.name), call_id, size)

    def group_key(self, name: str) -> str:
        """The name of the document of a group."""
        return _BETWEEN.join((_SHAPE, "group", name))

    def keys_of(self, deployments: Iterable[Deployment]) -> dict[str, Keys]:
        """The names of the documents of each deployment: two groups on one credential and model share them.

        They hold the credential: stores keep nothing of them but a salted hash.
        """
        keys: dict[str, Keys] = {}
        for each in deployments:
            credential = _BETWEEN.join((_SHAPE, "credential", each.provider.name, self.endpoints.identity(each)))
            try:
                address = self.endpoints.address(each)
            except LlmctlError:
                address = each.api_base
            keys[each.id] = Keys(_BETWEEN.join(("quota", credential, address, each.model)), credential)
        return keys

    async def update(self, keys: Sequence[str], work: Callable[[dict[str, Any]], T], *, to_the_end: bool = False) -> T:
        """What `work` returns on the shared documents; on this process's own where those cannot be used."""
        wanted = list(dict.fromkeys(keys))
        seen: dict[str, Any] = {}

        def seeing(documents: dict[str, Any]) -> T:
            result = work(documents)
            seen.update(documents)
            return result

        if self.clock.monotonic() >= self._alone_until:
            try:
                result = await self.state.update(wanted, seeing, wait_s=WAIT_S, to_the_end=to_the_end)
            except StateUnusable as error:
                self._alone_until = self.clock.monotonic() + ALONE_S
                if not self.warnings:
                    self.warnings.append(f"limits and cooldowns are not shared with other processes: {error.message}")
            else:
                self._own.documents.update(seen)  # where to go on from, should the shared state break
                return result
        return await self._own.update(wanted, work)


class Place:
    """The part of the shared state that one call uses."""

    def __init__(self, shared: Shared, keys: dict[str, Keys], group: str, call_id: str, size: Size) -> None:
        self._shared = shared
        self._keys = keys
        self._group = group
        self._id = call_id
        self._size = size
        self._seen = (shared.clock.now(), shared.clock.monotonic())
        self.holds = False
        """Whether something is reserved, or may be."""

    async def next(self, call: Call) -> tuple[Send | Wait | Done | Fail, Snapshot, float]:
        """The next step of `call`, with what it needs reserved; what it was decided on, and when."""
        if call.end is not None:
            return call.end, Snapshot(), self._shared.clock.now()
        self.holds = True
        decided: list[tuple[Send | Wait | Done | Fail, Snapshot, float]] = []

        def work(documents: dict[str, Any]) -> tuple[Send | Wait | Done | Fail, Snapshot, float]:
            book = self._book(documents, call)
            if not decided:
                decided.append((*step(call, book), book.now))
            elif isinstance(send := decided[0][0], Send):  # the shared state broke after the decision
                book.reserve(send.deployment, probe=send.probe)
            return decided[0]

        return await self._shared.update(self._names(), work)

    async def copy(self) -> dict[str, Any]:
        """What all calls share of these deployments now, as a copy for `open`: nothing is changed or reserved."""
        return await self._shared.update(self._names(), deepcopy)

    def open(self, documents: dict[str, Any], now: float, call_id: str = "") -> Book:
        """A copy, opened for one step of a call (this one, or another of the same size) at `now`."""
        return Book(documents, self._keys, self._group, call_id or self._id, now, self._size)

    async def renew(self, deployment: Deployment) -> None:
        """Hold on to the request under way, or to the place that is waited for."""
        await self._shared.update(self._names(deployment), lambda documents: self._book(documents).renew(deployment))

    async def settle(self, deployment: Deployment, outcome: Outcome) -> None:
        """Correct what was reserved for the attempt that has ended, and learn from it; also when cancelled."""
        dice = self._shared.dice
        await self._shared.update(
            self._names(deployment),
            lambda documents: self._book(documents).settle(deployment, outcome, dice),
            to_the_end=True,
        )
        self.holds = False

    async def release(self) -> None:
        """Give back what is reserved, if anything may be; nothing of it was sent."""
        if self.holds:
            self.holds = False
            await self._shared.update(self._names(), lambda documents: self._book(documents).release(), to_the_end=True)

    def _names(self, deployment: Deployment | None = None) -> list[str]:
        keys = [self._keys[deployment.id]] if deployment else self._keys.values()
        return [self._group, *(name for each in keys for name in (each.quota, each.credential))]

    def _book(self, documents: dict[str, Any], call: Call | None = None) -> Book:
        now, mono = self._shared.clock.now(), self._shared.clock.monotonic()
        was_set = (now - self._seen[0]) - (mono - self._seen[1])
        if call is not None and abs(was_set) > _SET_S:
            call.shift(was_set)
            self._seen = (now, mono)
        return Book(documents, self._keys, self._group, self._id, now, self._size)
