"""What is told, after the fact, about a call: to the terminal, to hooks, to exporters.

A hook is called and never awaited, and cannot fail a call: what it raises is counted, not spread. Durations are
milliseconds, as in the ledger. What is told is a named tuple: a dataclass takes six times as long to make, at each
start of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.errors import LlmctlError
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.core.snapshot import Snapshot
    from llmctl.routing.call import Done, Fail, Send, Wait
    from llmctl.routing.plan import Plan

    Hook = Callable[["Notice"], object]


class CallStarted(NamedTuple):
    """The row is written; nothing has been sent. `plan` is None where it is told outside of the process."""

    record: CallRecord
    plan: Plan | None


class Decided(NamedTuple):
    """What the call does next, and the snapshot that it was decided on at `now`; headroom is reserved."""

    decision: Send | Wait | Done | Fail
    snapshot: Snapshot
    now: float


class AttemptStarted(NamedTuple):
    """An attempt is about to be sent; `restarts` when text already shown will be shown again, from its beginning."""

    n: int
    role: str
    served_by: str
    dropped: tuple[str, ...] = ()
    restarts: bool = False


class Waiting(NamedTuple):
    """The call waits `wait_s` seconds before its next attempt."""

    wait_s: float
    why: str


class AttemptEnded(NamedTuple):
    """An attempt ended, in `error` or well. One that is cancelled is told with the end of its call only."""

    attempt: Attempt
    error: LlmctlError | None
    call_id: str = ""


class Recalled(NamedTuple):
    """The answer was kept: found in `tier`, `age_s` old, first given by `served_by`."""

    tier: str
    age_s: float
    served_by: str


class CallEnded(NamedTuple):
    """The call ended, whatever the end was; the row is complete. `operation` is as OpenTelemetry calls it."""

    record: CallRecord
    error: BaseException | None = None
    attempts: tuple[Attempt, ...] = ()
    operation: Literal["chat", "embeddings"] = "chat"


Notice = CallStarted | Decided | AttemptStarted | Waiting | AttemptEnded | Recalled | CallEnded


class Hooks:
    """Tells each hook; `failures` counts those that raised."""

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = tuple(hooks)
        self.failures = 0

    def tell(self, notice: Notice) -> None:
        """Tell every hook."""
        for hook in self._hooks:
            try:
                hook(notice)
            except Exception:  # noqa: BLE001 - a user's hook may do anything, and must not fail a call
                self.failures += 1
