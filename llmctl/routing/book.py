"""The shared documents of one call, opened for one step: what they say of each deployment, and what the call adds.

A step runs while nobody else can change the documents, so a decision and its reservation are one. The rules: headroom
is reserved before a request is sent and settled when it ends, however it ends; a call that waits may hold its place by
reserving ahead; what a dead process reserved expires with its lease.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.snapshot import RETRY_BUDGET_FULL, DeploymentState, Snapshot
from llmctl.routing import demand, health
from llmctl.routing.call import Send, Wait
from llmctl.routing.instants import follow_clock
from llmctl.routing.limits import GUESS, LEASE_S, METERS, MINUTE_S, Cost, Limited, cost_of
from llmctl.routing.plan import credential_key
from llmctl.routing.settle import note_answer, note_failure, note_use, tidy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.routing.balance import Dice
    from llmctl.routing.call import Call, Done, Fail
    from llmctl.routing.plan import Plan
    from llmctl.routing.settle import Outcome

_HELD_S = 5.0
"""How long a place is held for who does not come when its time has come."""
_OVERDUE = 2.0
"""How many times its expected length an attempt may last before it counts against the deployment."""
_OUTPUT_PRIOR = (300.0, 200.0)
BUDGET_PER_S, BUDGET_PER_SUCCESS = 1 / 30, 0.1
_NEXT_S = 1e-6
_HOSTED_WIDTH, _OWN_WIDTH = 100.0, 8.0


class Keys(NamedTuple):
    """Under which names the documents of a deployment are kept."""

    quota: str
    credential: str


class Size(NamedTuple):
    """How large a request is expected to be: tokens. `max_tokens` is the caller's own cap on the answer."""

    prompt: int
    max_tokens: int | None = None


def step(call: Call, book: Book) -> tuple[Send | Wait | Done | Fail, Snapshot]:
    """The next step of `call`, with its headroom reserved or its place held, and what it was decided on."""
    book.release()
    if not call.counted:
        call.counted = True
        book.count(call.plan)
    snapshot = book.snapshot(call.plan)
    decision = call.next(snapshot, book.now)
    match decision:
        case Send():
            book.reserve(decision.deployment, probe=decision.probe)
            if decision.retry:
                book.retried(decision.deployment)
        case Wait():
            book.hold(decision.target, decision.until, decision.firm_at)
    return decision, snapshot


class Book:
    """The documents of a call's deployments, credentials and group, as they are at `now`."""

    def __init__(
        self, documents: dict[str, Any], keys: Mapping[str, Keys], group: str, call_id: str, now: float, size: Size
    ) -> None:
        """`documents` are changed in place; `keys` are those of each deployment id."""
        self.now = now
        follow_clock(documents.values(), now)
        self._documents = documents
        self._keys = keys
        self._group: dict[str, Any] = documents.setdefault(group, {})
        self._id = call_id
        self._size = size
        self._held = (inf, False)
        """Since when it has held a place, and whether that was firm."""

    # ---------------------------------------------------------------- what is known

    def snapshot(self, plan: Plan) -> Snapshot:
        """What is known of each deployment of the plan, for a request of this size."""
        deployments = plan.deployments
        known = [q["speed"] for d in deployments if "speed" in (q := self._quota(d))]
        typical = tuple(sorted(s[i] for s in known)[len(known) // 2] for i in (0, 1)) if known else health.PRIOR
        return Snapshot(
            {d.id: self._state(d, typical) for d in deployments},
            {credential_key(d): self._budget(self._keys[d.id].credential) for d in deployments},
            prompt_tokens=self._size.prompt,
            output_tokens=self.expected_output,
            turn=self._group.get("turn", 0),
            since_probe=self._group.get("since_probe", 0),
            demand=demand.share(self._group),
            overtaking=demand.overtaking(self._group, self._tokens) if self._somebody_waits() else 0.0,
        )

    def _state(self, deployment: Deployment, typical: tuple[float, float]) -> DeploymentState:
        quota, now = self._quota(deployment), self.now
        limited = self._limited(deployment, quota)
        cost = self._cost(deployment, limited)
        first, each, measured_at = quota.get("speed", (*typical, 0.0))[:3]
        credential = self._documents.get(self._keys[deployment.id].credential, {})
        cooling = max((quota, credential), key=lambda d: d.get("cool", 0.0))
        due_s = _OVERDUE * health.whole_s(first, each, self._size.prompt, self.expected_output)
        ages = [now - row[0] for row in limited.open if row[0] <= now - due_s]
        fills = [limited.used(m) / limit for m in range(len(METERS)) if (limit := limited.limit(m))]
        limits, blocked = deployment.limits, quota.get("blocked", 0.0)
        return DeploymentState(
            cooldown_until=cooling.get("cool", 0.0),
            headroom_at=limited.earliest(cost),
            blocked_until=limited.earliest(cost, blocked) if blocked > now else blocked,
            why=cooling.get("why", ""),
            half_open=health.is_half_open(quota, now),
            probed_until=quota.get("probe", 0.0),
            back_at=quota.get("back", 0.0),
            fails=quota.get("fails", 0) if now - quota.get("failed_at", 0.0) < MINUTE_S else 0,
            in_flight=limited.in_flight,
            overdue_s=max(ages, default=0.0),
            first_token_s=first,
            per_token_s=each,
            measured_at=measured_at,
            samples=tuple((at, s) for at, s in quota.get("samples", ())),
            fill=max(fills, default=0.0),
            used_tokens=limited.used(1),
            width=limits.max_parallel or (_HOSTED_WIDTH if fills else _OWN_WIDTH),
            headroom={METERS[m]: room for m in range(len(METERS)) if (room := limited.headroom(m)) is not None},
        )

    def _somebody_waits(self) -> bool:
        """Whether a place is held by another: what was asked for and refused at once stands in nobody's way."""
        opened = (self._documents.get(keys.quota, {}).get("open", {}) for keys in self._keys.values())
        return any(row[6] and row[1] > self.now for rows in opened for row in rows.values())

    def _quota(self, deployment: Deployment) -> dict[str, Any]:
        found: dict[str, Any] = self._documents.setdefault(self._keys[deployment.id].quota, {})
        return found

    def _limited(self, deployment: Deployment, quota: dict[str, Any]) -> Limited:
        """The limits as they are for this request: one that held a place keeps its turn."""
        since, firm = self._held
        respects = 1 / demand.PASSES if demand.share(self._group) >= demand.DEEP else 0.0
        return Limited(deployment, quota, self.now, self._tokens, since, firm=firm, respects=respects)

    def _cost(self, deployment: Deployment, limited: Limited) -> Cost:
        """What the request is to reserve. A learned output size is only a guess: it never makes a request too large."""
        capped = self._size.max_tokens if self._size.max_tokens is not None else deployment.params.max_tokens
        prompt = round(self._size.prompt * self._quota(deployment).get("ratio", GUESS)[0])
        output = self._learned_output if capped is None else capped
        cost = cost_of(deployment, prompt, output)
        if capped is None:
            limits = [limited.limit(m) for m in range(len(METERS))]
            output = min([output, *(max(0, int(limit - prompt)) for limit in limits[1:2] if limit is not None)])
            output = min([output, *(int(limit) for limit in limits[3:] if limit is not None)])
            cost = cost_of(deployment, prompt, output)
        return cost

    @property
    def _tokens(self) -> int:
        """How large the request is beside others."""
        capped = self._size.max_tokens
        return self._size.prompt + (self._learned_output if capped is None else capped)

    @property
    def _learned_output(self) -> int:
        """Above what most answers of this group take."""
        mean, spread = self._group.get("output", _OUTPUT_PRIOR)
        return int(mean + 2 * spread)

    @property
    def expected_output(self) -> int:
        """What an answer of this group takes on average."""
        mean = int(self._group.get("output", _OUTPUT_PRIOR)[0])
        return mean if self._size.max_tokens is None else min(mean, self._size.max_tokens)

    def _budget(self, credential: str) -> float:
        tokens, at = self._documents.get(credential, {}).get("retries", (RETRY_BUDGET_FULL, self.now))
        return float(min(RETRY_BUDGET_FULL, tokens + max(0.0, self.now - at) * BUDGET_PER_S))

    # ---------------------------------------------------------------- demand

    def count(self, plan: Plan) -> None:
        """Take in that a request of this size was asked for: how many minutes of all deployments together it takes."""
        per_minute = 0.0
        for deployment in plan.deployments:
            limited = Limited(deployment, self._quota(deployment), self.now)
            cost = self._cost(deployment, limited)
            if limited.fits_ever(cost):
                rates = [limit / n for m, n in enumerate(cost) if n and (limit := limited.limit(m)) is not None]
                per_minute += max(1.0, min(rates, default=inf))
        demand.count(self._group, self.now, self._tokens, 1 / per_minute if per_minute else 0.0)
        self._group["at"] = self.now

    # ---------------------------------------------------------------- what a call does

    def release(self) -> None:
        """Give back what this call holds; nothing of it was sent, or it has been settled."""
        for keys in self._keys.values():
            row = self._documents.get(keys.quota, {}).get("open", {}).pop(self._id, None)
            if row is not None and row[6]:
                self._held = (row[8], row[6] <= self.now)

    def reserve(self, deployment: Deployment, *, probe: bool = False) -> None:
        """Take headroom for a request that is sent now."""
        quota = self._open(deployment, self.now, self.now + LEASE_S, firm_at=0.0)
        self._group["turn"], self._group["at"] = self._group.get("turn", 0) + 1, self.now
        self._group["since_probe"] = 0 if probe else self._group.get("since_probe", 0) + 1
        if probe:
            quota["probe"] = self.now + health.PROBE_S

    def hold(self, deployment: Deployment, start: float, firm_at: float) -> None:
        """Hold a place for a request that may start then; smaller ones may take it until `firm_at`.

        Who waits renews it: a place must not block others for as long as a dead process would have waited.
        """
        self._open(deployment, start, self._held_until(start), firm_at=max(firm_at, self.now))

    def _held_until(self, start: float) -> float:
        return min(start + _HELD_S, self.now + LEASE_S)

    def _open(self, deployment: Deployment, start: float, lease: float, *, firm_at: float) -> dict[str, Any]:
        quota = self._changed(self._keys[deployment.id].quota)
        tidy(quota, self.now)
        limited = Limited(deployment, quota, self.now)
        cost = self._cost(deployment, limited)
        taken = limited.held(cost) if firm_at else cost
        rows = quota.setdefault("open", {})
        since = self._held[0]
        if since == inf:  # of those that begin to wait at one instant, the first to ask is the first in the queue
            since = max([self.now, *(row[8] + _NEXT_S for row in rows.values() if row[6])])
        rows[self._id] = [start, lease, *taken, firm_at, self._tokens, since]
        return quota

    def retried(self, deployment: Deployment) -> None:
        """Take a retry from the budget of the deployment's credential."""
        self._spend(self._keys[deployment.id].credential, -1.0)

    def renew(self, deployment: Deployment) -> None:
        """Hold on to a request under way, or to a place."""
        row = self._changed(self._keys[deployment.id].quota).get("open", {}).get(self._id)
        if row is not None:
            row[1] = self._held_until(row[0]) if row[6] else self.now + LEASE_S

    def settle(self, deployment: Deployment, outcome: Outcome, dice: Dice) -> None:
        """Correct what was reserved by what was really used, and learn from how it went."""
        quota, outcome = self._changed(self._keys[deployment.id].quota), outcome.as_of(self.now)
        row = quota.get("open", {}).pop(self._id, None)
        tidy(quota, self.now)
        note_use(deployment, quota, tuple(row[2:6]) if row else (1, 0, 0, 0), outcome)
        if outcome.error is not None:
            rests_s = note_failure(deployment, quota, outcome, self._tokens, dice)
            if rests_s:
                credential = self._changed(self._keys[deployment.id].credential)
                health.rest(credential, self.now + rests_s, outcome.error.kind)
        elif not outcome.cancelled:
            note_answer(quota, self._group, outcome, self._size.prompt)
            self._spend(self._keys[deployment.id].credential, BUDGET_PER_SUCCESS)

    def _spend(self, credential: str, tokens: float) -> None:
        left = min(RETRY_BUDGET_FULL, max(0.0, self._budget(credential) + tokens))
        self._changed(credential)["retries"] = [left, self.now]

    def _changed(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self._documents.setdefault(name, {})
        document["at"] = self.now
        return document
