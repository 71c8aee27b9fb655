"""One call as a state machine without I/O: what to send, how long to wait, when to give up.

Drive it with `next(snapshot, now)`, do what it says, and tell it what was heard. The rules:

1. A call makes at most `tries` attempts under one deadline. It ends in `Done` or in `Fail`, and stays there.
2. What happens after an error is the matrix of `core/errors`: the same target again, the next one, or the end.
3. The same target again: at most `retries` times, only while the credential's retry budget lasts, never when the
   provider said not to, never past the deadline. Links not yet asked keep their tries: a link is asked twice only
   while the tries left exceed them. Full-jitter backoff (AWS Architecture Blog, "Exponential Backoff And Jitter",
   2015): up to 0.25 s x 2^k, for throttling 1 s x 2^k, at most 20 s; a longer Retry-After counts instead of it.
4. A backoff within the patience is waited for, unless another deployment of the same link can start now, or the target
   may not start after it. A throttled target, or one that asks for more than the patience, is asked again when its
   wait is over, unless another can start sooner. Nobody sleeps after the last attempt.
5. The first link with a target that can start now is used, and of its targets the one that the strategy chooses. A
   half-open target is tried out by one call at a time. When none can start, the call holds a place where it may start
   earliest and comes back then, as long as all its waits stay within `max_wait`. Smaller requests may overtake a place
   that is held, until it is firm. A sole usable target is asked whatever its cooldown.
6. Once something of the answer was shown, the call is committed: it fails where it breaks, unless `restart`, which asks
   another target.
7. A chain that failed in several ways exits 6 if any of them may pass, else as the first failure says; so does one
   that waits in vain. What the caller did (a deadline, a cancellation) exits as itself.
8. All instants are of one clock that may be set: `shift` moves what was planned with it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from llmctl.routing import ending
from llmctl.routing.balance import Choice, choose, expected_s
from llmctl.routing.demand import DEEP, OVERLOAD
from llmctl.routing.plan import credential_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import LlmctlError
    from llmctl.core.record import AttemptRole
    from llmctl.core.snapshot import Snapshot
    from llmctl.routing.plan import Link, Plan
    from llmctl.routing.policy import Policy

    Dice = Callable[[], float]

BACKOFF_S = {"upstream": 0.25, "throttling": 1.0}
BACKOFF_CAP_S = 20.0
HURRIED = 1.5
"""How many times its expected length an answer is given before the deadline: one that is cut off helps nobody."""
OVERTAKEN = 0.5
"""For how much of its patience a waiting call may be overtaken by smaller ones."""
LASTING_S = 300.0
"""Who is willing to wait longer than this is not refused for an overload: it may well be over by then."""
FIRM_S = 60.0
"""A place so near the deadline is firm at once: the next one may be a window away."""


class Send(NamedTuple):
    """Ask this deployment now; `remaining_s` is what is left of the deadline, `reason` why this one.

    `probe` when it is tried out; `retry` when it was asked before.
    """

    deployment: Deployment
    role: AttemptRole
    n: int
    remaining_s: float
    reason: str = ""
    probe: bool = False
    retry: bool = False


class Wait(NamedTuple):
    """Come back at `until` (Unix seconds) to ask `target`; its place is held, firmly from `firm_at`. `why` is words."""

    until: float
    why: str
    target: Deployment
    firm_at: float


class Done(NamedTuple):
    """The call has its answer, from `deployment`; `fallback` when that is not of the first link."""

    deployment: Deployment
    fallback: bool


class Fail(NamedTuple):
    """The call has no answer."""

    error: LlmctlError
    exit: int


class Shown:
    """Something of the answer reached the user."""


class Ended:
    """The attempt gave a whole answer."""


class Failed(NamedTuple):
    """The attempt failed at `now`."""

    error: LlmctlError
    now: float


class Call:
    """One user's ask from start to end. Not reusable."""

    def __init__(self, plan: Plan, policy: Policy, *, started: float, dice: Dice) -> None:
        """`started` is the instant the total deadline counts from; `dice` gives a number in [0, 1)."""
        self.plan = plan
        self.policy = policy
        self.attempts = 0
        self.counted = False
        """Whether the demand for it was taken in."""
        self.waited_s = 0.0
        self.failures: list[LlmctlError] = []
        self._deadline = started + policy.total_s
        self._dice = dice
        self._current: Deployment | None = None
        self._asked: set[str] = set()
        self._excluded: set[str] = set()
        self._retries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._again: Deployment | None = None
        self._waiting_since: float | None = None
        self._firm_at = inf
        self._shown = False
        self._end: Done | Fail | None = None

    # ---------------------------------------------------------------- what was heard

    @property
    def end(self) -> Done | Fail | None:
        """How it ended; None while it goes on."""
        return self._end

    def heard(self, event: Shown | Ended | Failed) -> None:
        """Take in what the current attempt did; nothing can follow its end."""
        target = self._current
        assert target is not None, "nothing was sent, or its end was heard"
        if isinstance(event, Shown):
            self._shown = True
            return
        self._current = None
        if isinstance(event, Ended):
            self._end = Done(target, self.plan.link_of(target) > 0)
            return
        self.failures.append(event.error)
        self._after(target, event.error, event.now)

    def _after(self, target: Deployment, error: LlmctlError, now: float) -> None:
        """Apply the matrix: set a retry, rule targets out, or end the call."""
        rule = error.rule
        if self._shown and not self.policy.restart:
            self._end = Fail(*ending.broken(error))
            return
        if rule.onward == "no" or self.attempts >= self.policy.tries:
            self._end = Fail(*ending.chain_failed(self.failures))
            return
        if rule.again != "no" and not self._shown and self._set_retry(target, error, now):
            return
        if rule.onward == "if_configured" and self.plan.link(target).group.on_content_filter != "fallback":
            self._end = Fail(*ending.chain_failed(self.failures))
        self._excluded |= self.plan.ruled_out_with(target, rule.onward)

    def _set_retry(self, target: Deployment, error: LlmctlError, now: float) -> bool:
        """Note when `target` may be asked again; False when it may not."""
        done = self._retries.get(target.id, 0)
        allowed = min(self.policy.retries, 1) if error.rule.again == "once" else self.policy.retries
        if done >= allowed or error.should_retry is False or not self._spare_tries():
            return False
        throttled = error.rule.again == "patience"
        base = BACKOFF_S["throttling" if throttled else "upstream"]
        jittered = self._dice() * min(BACKOFF_CAP_S, base * 2**done)
        wait = jittered if error.retry_after_s is None else max(error.retry_after_s, 0.0 if throttled else jittered)
        if now + wait >= self._deadline:
            return False
        self._retries[target.id] = done + 1
        self._not_before[target.id] = now + wait
        self._why[target.id] = f": {error.kind}"
        self._again = None if throttled or wait > self.policy.patience_s else target
        return True

    # ---------------------------------------------------------------- what to do next

    def next(self, snapshot: Snapshot, now: float) -> Send | Wait | Done | Fail:
        """What to do now. Calling it again at another time without having been heard is allowed after a `Wait`."""
        assert self._current is None, "the current attempt has not ended"
        if self._end is not None:
            return self._end
        if now >= self._deadline:
            return self._stop(ending.out_of_time(self.policy.total_s, self.failures), now)
        usable = self._usable(snapshot)
        if not usable:
            return self._stop(ending.chain_failed(self.failures), now)
        ready_at = self._all_ready_at(usable, snapshot, now)
        takes_s = {d.id: expected_s(snapshot.of(d.id), snapshot) for d in usable}
        target = self._held(ready_at, takes_s, now)
        if target is not None and ready_at[target.id] <= now:
            return self._send(Choice(target, "again, after a pause"), now)
        if target is None:
            for link in self.plan.links:
                ready = [d for d in link.deployments if ready_at.get(d.id, inf) <= now]
                if ready:
                    strategy = self.policy.strategy or link.group.strategy
                    return self._send(choose(strategy, ready, snapshot, now, self._dice), now)
            target = min(usable, key=lambda d: ready_at[d.id] + takes_s[d.id])
        until = ready_at[target.id]
        if until <= ending.LAST_DATE and self._is_hopeless(snapshot, until, now):
            return self._stop(ending.crowded_out(self.plan.name, min(ready_at.values()), now, snapshot.demand), now)
        if not self._may_wait(until, now, takes_s[target.id]):
            first = min(usable, key=lambda d: ready_at[d.id])
            until, why = ready_at[first.id], self._kept_out(first, ready_at[first.id], snapshot)
            option = "--timeout" if until >= self._deadline else "--max-wait"
            return self._stop(ending.no_start(until, now, why, option, self.failures, self.plan.deployments), now)
        return self._wait(target, until, now, snapshot)

    def _is_hopeless(self, snapshot: Snapshot, until: float, now: float) -> bool:
        """Whether it is refused at its first look, in a lasting overload: what is ahead of it until then outlasts it.

        While it waits, smaller requests take their share, so its turn comes that much more slowly. One that is willing
        to wait longer than overloads last is never hopeless.
        """
        waits = self.attempts or self._waiting_since is not None
        if waits or snapshot.demand < OVERLOAD or not snapshot.overtaking or self.policy.max_wait_s > LASTING_S:
            return False
        patience_s = min(self.policy.max_wait_s, self._deadline - now)
        return until - now > (1 - snapshot.overtaking) * patience_s

    def shift(self, by_s: float) -> None:
        """Move everything planned: the clock was set by so much (rule 8)."""
        self._deadline += by_s
        self._not_before = {target: at + by_s for target, at in self._not_before.items()}
        if self._waiting_since is not None:
            self._waiting_since += by_s
            self._firm_at += by_s

    def _usable(self, snapshot: Snapshot) -> list[Deployment]:
        """Who may still be asked, now or later."""
        spare = self._spare_tries()
        usable: list[Deployment] = []
        for link in self.plan.links:
            if spare or not self._was_asked(link):
                usable += [d for d in link.deployments if d.id not in self._excluded]
        return [d for d in usable if d.id not in self._asked or snapshot.may_retry(credential_key(d))]

    def _spare_tries(self) -> bool:
        """Whether more tries are left than there are links that were not asked and still can be."""
        waiting = sum(
            1
            for link in self.plan.links
            if not self._was_asked(link) and any(d.id not in self._excluded for d in link.deployments)
        )
        return self.policy.tries - self.attempts > waiting

    def _was_asked(self, link: Link) -> bool:
        return any(d.id in self._asked for d in link.deployments)

    def _held(self, ready_at: Mapping[str, float], takes_s: Mapping[str, float], now: float) -> Deployment | None:
        """The target whose backoff is waited for; None when another of its link can start, or it may not."""
        held = self._again
        if held is not None:
            link = self.plan.link(held)
            if any(ready_at.get(d.id, inf) <= now for d in link.deployments if d.id != held.id):
                return None
            not_before = self._not_before[held.id]
            until = ready_at.get(held.id, inf)
            if until > max(now, not_before) or not self._may_wait(until, now, takes_s.get(held.id, 0.0)):
                held = self._again = None
        return held

    def _may_wait(self, until: float, now: float, takes_s: float = 0.0) -> bool:
        """Whether there is time to begin then, and for an answer that takes so long."""
        waits = self._waited(now) + max(0.0, until - now)
        return until + HURRIED * takes_s < self._deadline and waits <= self.policy.max_wait_s

    def _wait(self, target: Deployment, until: float, now: float, snapshot: Snapshot) -> Wait:
        if self._waiting_since is None:
            self._waiting_since = now
        overtaken_s = OVERTAKEN * min(self.policy.max_wait_s, self._deadline - self._waiting_since)
        late = self._deadline - until < FIRM_S and snapshot.demand < DEEP  # there, all places are late ones
        firm_at = now if late else self._waiting_since + overtaken_s
        self._firm_at = firm_at = min(firm_at, self._firm_at)
        return Wait(until, self._kept_out(target, until, snapshot), target, firm_at)

    def _kept_out(self, target: Deployment, until: float, snapshot: Snapshot) -> str:
        return target.served_by + (self._why.get(target.id) or ending.obstacle(snapshot.of(target.id), until))

    def _send(self, choice: Choice, now: float) -> Send:
        target = choice.deployment
        self._end_wait(now)
        self.attempts += 1
        retry = target.id in self._asked
        role: AttemptRole = "primary" if self.attempts == 1 else "retry"
        if self.plan.link_of(target) > 0 and not retry:
            role = "fallback"
        self._current = target
        self._asked.add(target.id)
        self._again = None
        self._shown = False
        return Send(target, role, self.attempts, self._deadline - now, choice.reason, choice.probe, retry)

    def _waited(self, now: float) -> float:
        return self.waited_s + (max(0.0, now - self._waiting_since) if self._waiting_since is not None else 0.0)

    def _end_wait(self, now: float) -> None:
        self.waited_s = self._waited(now)
        self._waiting_since, self._firm_at = None, inf

    def _stop(self, end: tuple[LlmctlError, int], now: float) -> Fail:
        self._end_wait(now)
        self._end = failed = Fail(*end)
        return failed

    def _all_ready_at(self, usable: list[Deployment], snapshot: Snapshot, now: float) -> dict[str, float]:
        """When each may start. A sole one may despite its cooldown, and despite a refusal it cannot wait out."""
        sole = sum(1 for d in usable if self._may_wait(self._not_before.get(d.id, now), now)) == 1
        ready_at: dict[str, float] = {}
        for each in usable:
            state = snapshot.of(each.id)
            until = [state.headroom_at, self._not_before.get(each.id, 0.0)]
            if not sole:
                until += [state.blocked_until, state.cooldown_until, state.probed_until if state.half_open else 0.0]
            elif self._may_wait(state.blocked_until, now):
                until.append(state.blocked_until)
            ready_at[each.id] = max(until)
        return ready_at
