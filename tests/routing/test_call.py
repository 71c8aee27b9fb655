"""The call machine: each rule at the head of `routing/call` as a fact, the matrix row by row, and random lives."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core import errors
from llmctl.core.catalog import Deployment, Group, Limits, Provider
from llmctl.core.errors import (
    CLASSES,
    MATRIX,
    BadResponse,
    Cancelled,
    ConnectionFailed,
    ContentFiltered,
    ContextExceeded,
    DeadlineExceeded,
    InvalidRequest,
    LlmctlError,
    MissingCredential,
    ModelNotFound,
    NoCapacity,
    QuotaExhausted,
    RateLimited,
    StreamTruncated,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from llmctl.core.snapshot import RETRY_BUDGET_FLOOR, DeploymentState, Snapshot
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.call import (
    BACKOFF_CAP_S,
    Call,
    Done,
    Ended,
    Fail,
    Failed,
    Send,
    Shown,
    Wait,
    credential_key,
)
from llmctl.routing.plan import Link, Plan
from llmctl.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T0 = 1_767_322_800.0
PROVIDER = Provider("p")
FREE = Snapshot()


def deployment(name: str, **how: Any) -> Deployment:
    """A deployment with a credential of its own."""
    return Deployment(name, PROVIDER, name, **{"api_key": f"env:{name}"} | how)


def chain(*links: str | Sequence[Deployment], strategy: str = "ordered", on_content_filter: str = "fail") -> Plan:
    """A plan: "ab" is a link with the deployments a and b."""
    rows = [tuple(deployment(d) if isinstance(d, str) else d for d in link) for link in links]
    groups = [Group(f"g{n}", row, strategy, on_content_filter=on_content_filter) for n, row in enumerate(rows)]
    return Plan("g0", tuple(Link(group, row) for group, row in zip(groups, rows, strict=True)))


def limits(**ready: tuple[float, float]) -> Snapshot:
    """Per deployment: out for so many seconds, short of headroom for so many, counted from T0."""
    return Snapshot({name: DeploymentState(T0 + cool, T0 + room) for name, (cool, room) in ready.items()})


@dataclass
class Life:
    """What a call did: whom it asked and when, how long it waited, how it ended."""

    asked: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    end: Done | Fail | None = None

    @property
    def path(self) -> str:
        return "".join(self.asked)

    @property
    def exit(self) -> int:
        return self.end.exit if isinstance(self.end, Fail) else 0

    @property
    def error(self) -> LlmctlError:
        assert isinstance(self.end, Fail)
        return self.end.error


Outcome = LlmctlError | None
OK = None


def live(
    plan: Plan,
    *outcomes: Outcome,
    policy: Policy | None = None,
    snapshot: Snapshot | Callable[[float], Snapshot] = FREE,
    dice: float = 0.5,
    shown: int = 0,
) -> Life:
    """The whole life of a call whose attempts end as `outcomes`, the last one for ever; attempt `shown` shows first."""
    call = Call(plan, policy or Policy(), started=T0, dice=lambda: dice)
    life, now = Life(), T0
    for _ in range(100):
        match call.next(snapshot(now) if callable(snapshot) else snapshot, now):
            case Send(target, role, n, remaining_s):
                assert n == len(life.asked) + 1
                assert remaining_s == pytest.approx(T0 + call.policy.total_s - now)
                life.asked.append(target.id)
                life.at.append(now - T0)
                life.roles.append(role)
                if n == shown:
                    call.heard(Shown())
                outcome = outcomes[min(n, len(outcomes)) - 1]
                call.heard(Failed(outcome, now) if outcome else Ended())
            case Wait(until=until, why=why):
                assert until > now
                life.waits.append(until - now)
                life.why.append(why)
                now = until
            case end:
                life.end = end
                assert call.end is end
                assert call.waited_s == pytest.approx(sum(life.waits))
                return life
    raise AssertionError("the call does not end")


def make(kind: str, **how: Any) -> LlmctlError:
    error: LlmctlError = getattr(errors, kind)(kind, **how)
    return error


# --- the ordinary life ----------------------------------------------------------------------------------------------


def test_an_answer_at_once_is_one_attempt_at_the_primary():
    life = live(chain("a", "b"), OK)
    assert (life.path, life.roles, life.waits) == ("a", ["primary"], [])
    assert life.end == Done(deployment("a"), fallback=False)


def test_an_answer_of_a_later_link_is_a_fallback():
    life = live(chain("a", "b"), BadResponse("m"), OK)
    assert (life.path, life.roles) == ("ab", ["primary", "fallback"])
    assert life.end == Done(deployment("b"), fallback=True)


def test_another_deployment_of_the_primary_link_is_a_retry_and_no_fallback():
    life = live(chain("ab", "c"), BadResponse("m"), OK)
    assert (life.path, life.roles) == ("ab", ["primary", "retry"])
    assert life.end == Done(deployment("b"), fallback=False)


def test_a_link_is_left_only_when_none_of_its_deployments_is_left():
    assert live(chain("abc", "d"), BadResponse("m")).path == "abcd"


@pytest.mark.parametrize(("own", "said", "asked"), [("ordered", None, "b"), ("round-robin", None, "c"),
    ("ordered", "round-robin", "c"), ("round-robin", "ordered", "b")])  # fmt: skip
def test_the_strategy_of_the_link_or_the_callers_own_chooses_among_those_of_the_link_that_can_start(
    own: str, said: str | None, asked: str
):
    call = Call(chain("abc", "d", strategy=own), Policy(strategy=said), started=T0, dice=lambda: 0.5)
    snapshot = replace(limits(a=(9, 0)), turn=1)
    step = call.next(snapshot, T0)
    assert isinstance(step, Send)
    assert step.deployment.id == asked
    assert step.reason


# --- rule 1: tries, deadline, the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", [1, 2, 3, 6])
def test_a_call_makes_at_most_its_tries(tries: int):
    life = live(chain("a", "b", "c"), Unavailable("m"), policy=Policy(tries=tries))
    assert len(life.asked) == tries
    assert live(chain("abcdef", "g"), BadResponse("m"), policy=Policy(tries=tries)).path == "abcdefg"[: tries - 1] + (
        "g" if tries <= 6 and tries > 1 else "a"
    )


def test_links_not_yet_asked_keep_their_tries():
    assert live(chain("abc", "d", "e"), BadResponse("m"), policy=Policy(tries=3)).path == "ade"
    assert live(chain("a", "b", "c"), Unavailable("m"), policy=Policy(tries=4)).path == "aabc"
    assert live(chain("a", "b", "c"), RateLimited("m"), Unavailable("m"), policy=Policy(tries=4)).path == "abbc"


def test_a_call_that_is_out_of_time_fails_with_the_last_thing_it_heard():
    call = Call(chain("a", "b"), Policy(total_s=10), started=T0, dice=lambda: 0.5)
    assert isinstance(call.next(FREE, T0), Send)
    call.heard(Failed(TimedOut("was silent"), T0 + 5))
    assert isinstance(call.next(FREE, T0 + 5), Send)
    call.heard(Failed(BadResponse("was broken"), T0 + 10))
    end = call.next(FREE, T0 + 10)
    assert isinstance(end, Fail)
    assert (end.exit, end.error.kind) == (7, "DeadlineExceeded")
    assert "10 s" in end.error.message
    assert "was broken" in end.error.message
    assert "--timeout" in end.error.hint


def test_a_call_that_never_began_in_time_says_so():
    end = Call(chain("a"), Policy(total_s=10), started=T0, dice=lambda: 0.5).next(FREE, T0 + 11)
    assert isinstance(end, Fail)
    assert end.error.message == "no whole answer within 10 s"


@pytest.mark.parametrize("outcome", [OK, InvalidRequest("m")])
def test_an_end_is_final(outcome: Outcome):
    call = Call(chain("a", "b"), Policy(), started=T0, dice=lambda: 0.5)
    call.next(FREE, T0)
    call.heard(Failed(outcome, T0) if outcome else Ended())
    end = call.next(FREE, T0)
    assert isinstance(end, (Done, Fail))
    assert all(call.next(FREE, T0 + later) is end for later in (0, 1, 1e6))
    for event in (Shown(), Ended(), Failed(Unavailable("late"), T0)):
        with pytest.raises(AssertionError):
            call.heard(event)
    assert call.next(FREE, T0) is end


def test_nothing_can_be_heard_before_something_was_sent_and_nothing_sent_before_its_end_was_heard():
    call = Call(chain("a"), Policy(), started=T0, dice=lambda: 0.5)
    with pytest.raises(AssertionError, match="nothing was sent"):
        call.heard(Ended())
    call.next(FREE, T0)
    with pytest.raises(AssertionError, match="has not ended"):
        call.next(FREE, T0)


# --- rule 2: the matrix ---------------------------------------------------------------------------------------------

# Class; whom a lone link is asked; whom a chain of two (another credential, a larger window) is; the exit code.
ROWS = [
    ("RateLimited", "aaa", "ababab", 6),
    ("QuotaExhausted", "a", "ab", 6),
    ("Unavailable", "aaa", "aaabbb", 6),
    ("ConnectionFailed", "aa", "aabb", 6),
    ("TimedOut", "a", "ab", 7),
    ("BadResponse", "a", "ab", 6),
    ("StreamTruncated", "aaa", "aaabbb", 8),
    ("Unauthorized", "a", "ab", 4),
    ("ModelNotFound", "a", "ab", 5),
    ("ContextExceeded", "a", "ab", 5),
    ("ContentFiltered", "a", "a", 5),
    ("InvalidRequest", "a", "a", 5),
    ("MissingCredential", "a", "ab", 4),
    ("BudgetExceeded", "a", "a", 9),
    ("DeadlineExceeded", "a", "a", 7),
    ("Cancelled", "a", "a", 130),
    ("ConfigInvalid", "a", "a", 3),
    ("LedgerUnusable", "a", "a", 3),
    ("StateUnusable", "a", "a", 3),
    ("NoCapacity", "a", "a", 6),
    ("AnswerRejected", "a", "a", 10),
    ("AnswerIncomplete", "a", "a", 8),
    ("OutputFailed", "a", "a", 1),
    ("UsageError", "a", "ab", 2),
]


def test_every_row_of_the_matrix_is_walked():
    assert {row[0] for row in ROWS} == MATRIX.keys()


@pytest.mark.parametrize(("kind", "alone", "chained", "code"), ROWS)
def test_a_class_of_error_is_answered_as_its_row_says(kind: str, alone: str, chained: str, code: int):
    for plan, path in ((chain("a"), alone), (chain("a", "b"), chained)):
        life = live(plan, make(kind))
        assert (life.path, life.exit) == (path, code)
        assert life.error.kind == kind
    rule = MATRIX[kind]
    assert (rule.again != "no") == (len(alone) > 1)
    assert ("b" in chained) == (rule.onward in ("yes", "other_credential", "fitting_window"))


@pytest.mark.parametrize(("kind", "chained"), [(row[0], row[2]) for row in ROWS if "b" in row[2]])
def test_after_such_an_error_the_next_link_can_answer(kind: str, chained: str):
    path = chained[: chained.index("b") + 1]
    life = live(chain("a", "b"), *[make(kind)] * (len(path) - 1), OK)
    assert life.path == path
    assert life.end == Done(deployment("b"), fallback=True)


@pytest.mark.parametrize("kind", ["Unauthorized", "QuotaExhausted"])
def test_a_refused_credential_is_not_tried_elsewhere(kind: str):
    twin = deployment("b", api_key="env:a")
    assert live(chain("a", [twin], "c"), make(kind)).path == "ac"
    assert live(chain(["a", twin]), make(kind)).path == "a"


def test_two_deployments_share_a_credential_when_provider_and_reference_agree():
    plain, other = replace(deployment("a"), api_key=""), replace(deployment("b"), api_key="")
    assert credential_key(plain) == credential_key(other)
    assert credential_key(plain) != credential_key(replace(other, provider=Provider("q")))
    assert credential_key(plain) != credential_key(deployment("a"))
    own = Provider("p", api_key="env:X")
    assert credential_key(replace(plain, provider=own)) == credential_key(replace(other, api_key="env:X"))


@pytest.mark.parametrize(
    ("refusing", "other", "may"),
    [(8, 16, True), (8, 8, False), (16, 8, False), (8, None, True), (None, 8, True), (None, None, True)],
)
def test_a_prompt_too_long_goes_only_where_the_window_may_be_larger(refusing: int | None, other: int | None, may: bool):
    plan = chain([deployment("a", context_window=refusing)], [deployment("b", context_window=other)])
    assert live(plan, ContextExceeded("m")).path == ("ab" if may else "a")


def test_windows_that_are_too_small_are_passed_over():
    sizes = {"a": 8, "b": 8, "c": 4, "d": 32, "e": 16}
    plan = chain(*([deployment(name, context_window=size)] for name, size in sizes.items()))
    assert live(plan, ContextExceeded("m")).path == "ad"


def test_a_filtered_prompt_goes_on_only_where_its_own_group_says_so():
    assert live(chain("a", "b"), ContentFiltered("m")).path == "a"
    assert live(chain("a", "b", on_content_filter="fallback"), ContentFiltered("m")).path == "ab"
    assert live(chain("a", "b", on_content_filter="fallback"), ContentFiltered("m"), OK).exit == 0


# --- rule 3: the same target again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_a_target_is_asked_again_at_most_retries_times(retries: int):
    policy = Policy(retries=retries)
    assert live(chain("a"), Unavailable("m"), policy=policy).path == "a" * (retries + 1)
    assert live(chain("a"), RateLimited("m"), policy=policy).path == "a" * (retries + 1)
    assert live(chain("a"), ConnectionFailed("m"), policy=policy).path == "a" * (min(retries, 1) + 1)


def test_retries_of_one_target_are_counted_over_all_classes():
    assert live(chain("a"), Unavailable("m"), ConnectionFailed("m")).path == "aa"
    assert live(chain("a"), RateLimited("m"), Unavailable("m")).path == "aaa"


@pytest.mark.parametrize("error", [Unavailable("m", should_retry=False), RateLimited("m", should_retry=False)])
def test_a_provider_that_says_not_to_retry_is_not_retried(error: LlmctlError):
    assert live(chain("a", "b"), error).path == "ab"


def test_a_provider_that_says_to_retry_does_not_overrule_the_matrix():
    assert live(chain("a"), BadResponse("m", should_retry=True)).path == "a"


@pytest.mark.parametrize("error", [Unavailable("m"), RateLimited("m"), ConnectionFailed("m")])
def test_an_empty_retry_budget_forbids_every_retry_and_no_first_try(error: LlmctlError):
    broke = Snapshot(retry_budget={"p:env:a": RETRY_BUDGET_FLOOR - 0.1})
    assert live(chain("a", "b"), error, OK, snapshot=broke).path == "ab"
    assert live(chain("a"), error, snapshot=broke).path == "a"
    enough = Snapshot(retry_budget={"p:env:a": RETRY_BUDGET_FLOOR})
    assert live(chain("a"), error, OK, snapshot=enough).path == "aa"


@pytest.mark.parametrize(
    ("error", "dice", "waits"),
    [
        (Unavailable("m"), 1.0, [0.25, 0.5, 1.0, 2.0, 4.0]),
        (Unavailable("m"), 0.5, [0.125, 0.25, 0.5, 1.0, 2.0]),
        (RateLimited("m"), 1.0, [1.0, 2.0, 4.0, 8.0, 16.0]),
        (Unavailable("m", retry_after_s=3.0), 1.0, [3.0, 3.0, 3.0, 3.0, 4.0]),
        (RateLimited("m", retry_after_s=3.0), 1.0, [3.0] * 5),
        (RateLimited("m", retry_after_s=0.0), 1.0, []),
        (RateLimited("m", retry_after_s=-5.0), 1.0, []),
        (Unavailable("m"), 0.0, []),
    ],
)
def test_the_backoff_is_full_jitter_and_a_longer_retry_after_counts_instead(
    error: LlmctlError, dice: float, waits: list[float]
):
    life = live(chain("a"), error, policy=Policy(retries=5), dice=dice)
    assert life.path == "aaaaaa"
    assert life.waits == pytest.approx(waits)


def test_the_backoff_has_a_cap():
    policy = Policy(retries=9, tries=10, max_wait_s=1e6, total_s=1e6)
    assert max(live(chain("a"), RateLimited("m"), policy=policy, dice=1.0).waits) == pytest.approx(BACKOFF_CAP_S)


def test_a_backoff_is_waited_for_even_when_another_link_could_start():
    assert live(chain("a", "b"), Unavailable("m"), OK).path == "aa"


def test_a_backoff_gives_way_to_another_deployment_of_the_link_that_can_start():
    assert live(chain("ab", "c"), Unavailable("m"), OK).path == "ab"
    life = live(chain("ab", "c"), Unavailable("m"), OK, snapshot=limits(b=(0, 9)))
    assert (life.path, life.waits) == ("aa", [0.125])
    assert live(chain("ab", "c"), Unavailable("m"), OK, snapshot=limits(b=(9, 0))).path == "aa"


def test_a_wait_beyond_the_patience_gives_way_to_another_link_and_is_waited_for_when_there_is_none():
    assert live(chain("a", "b"), Unavailable("m", retry_after_s=5.0), OK).path == "aa"
    slow = Unavailable("m", retry_after_s=8.0)
    assert live(chain("a", "b"), slow, OK).path == "ab"
    alone = live(chain("a"), slow, OK)
    assert (alone.path, alone.waits) == ("aa", [8.0])


def test_a_target_in_its_cooldown_is_not_retried_while_another_can_start():
    call = Call(chain("a", "b"), Policy(), started=T0, dice=lambda: 0.5)
    call.next(FREE, T0)
    call.heard(Failed(Unavailable("m"), T0))
    step = call.next(limits(a=(10, 0)), T0)
    assert isinstance(step, Send)
    assert step.deployment.id == "b"


def test_a_retry_waits_for_headroom_too():
    call = Call(chain("a"), Policy(), started=T0, dice=lambda: 0.5)
    call.next(FREE, T0)
    call.heard(Failed(Unavailable("m"), T0))
    step = call.next(limits(a=(0, 7)), T0)
    assert isinstance(step, Wait)
    assert step.until == T0 + 7


def test_a_retry_that_would_pass_the_deadline_is_not_made():
    life = live(chain("a", "b"), RateLimited("m", retry_after_s=5.0), OK, policy=Policy(total_s=5))
    assert life.path == "ab"
    assert live(chain("a"), Unavailable("m"), dice=1.0, policy=Policy(total_s=0.25)).path == "a"


# --- rule 4: throttling ---------------------------------------------------------------------------------------------


def test_a_throttled_target_gives_way_to_one_that_can_start_sooner():
    throttled = RateLimited("m", retry_after_s=2.0)
    assert live(chain("a", "b"), throttled, OK).path == "ab"
    assert live(chain("ab"), throttled, OK).path == "ab"
    soon = live(chain("a", "b"), throttled, OK, snapshot=limits(b=(0, 1)))
    assert (soon.path, soon.waits) == ("ab", [1.0])


def test_a_throttled_target_is_asked_again_when_nothing_can_start_sooner():
    life = live(chain("a", "b"), RateLimited("m", retry_after_s=2.0), OK, snapshot=limits(b=(0, 3)))
    assert (life.path, life.waits) == ("aa", [2.0])
    assert life.why == ["p/a: RateLimited"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (DeploymentState(headroom_at=T0 + 3), "is at its limit"),
        (DeploymentState(cooldown_until=T0 + 3, why="Unavailable"), "is cooling after Unavailable"),
        (DeploymentState(cooldown_until=T0 + 3), "is cooling"),
        (DeploymentState(half_open=True, probed_until=T0 + 3), "is being tried out by another call"),
    ],
)
def test_a_wait_names_the_target_it_is_for_and_what_keeps_it_out(state: DeploymentState, words: str):
    busy = Snapshot({"a": DeploymentState(headroom_at=T0 + 9), "b": state})
    step = Call(chain("a", "b"), Policy(), started=T0, dice=lambda: 0.5).next(busy, T0)
    assert isinstance(step, Wait)
    assert (step.until, step.why) == (T0 + 3, f"p/b {words}")


@pytest.mark.parametrize("kind", ["RateLimited", "Unavailable", "ConnectionFailed", "StreamTruncated"])
@pytest.mark.parametrize("tries", [1, 2, 3])
def test_nobody_sleeps_after_the_last_attempt(kind: str, tries: int):
    life = live(chain("a"), make(kind), policy=Policy(tries=tries, retries=5))
    assert len(life.waits) == len(life.asked) - 1


# --- rule 5: when nothing can start ---------------------------------------------------------------------------------


def test_the_first_link_that_can_start_now_is_used():
    assert live(chain("a", "b", "c"), OK, snapshot=limits(a=(0, 9), b=(9, 0))).path == "c"
    assert live(chain("a", "b"), OK, snapshot=limits(a=(0, 0))).path == "a"


def test_when_none_can_start_the_call_waits_for_the_earliest():
    life = live(chain("a", "b", "c"), OK, snapshot=limits(a=(0, 9), b=(0, 4), c=(5, 0)))
    assert (life.path, life.waits, life.roles) == ("b", [4.0], ["fallback"])


def test_a_sole_target_is_asked_whatever_its_cooldown_but_not_without_headroom():
    assert live(chain("a"), OK, snapshot=limits(a=(900, 0))).waits == []
    assert live(chain("a"), OK, snapshot=limits(a=(900, 5))).waits == [5.0]
    assert live(chain("a", "b"), BadResponse("m"), OK, snapshot=limits(b=(900, 0))).path == "ab"


@pytest.mark.parametrize("too_long", [120.0, 400.0])
def test_a_target_beside_one_that_asks_for_too_long_a_wait_is_a_sole_one(too_long: float):
    throttled = RateLimited("m", retry_after_s=too_long)
    assert live(chain("a", "b"), throttled, OK, snapshot=limits(b=(100, 0))).path == "ab"


@pytest.mark.parametrize(("room", "asked"), [(60, "a"), (60.1, "")])
def test_a_wait_beyond_max_wait_is_not_begun(room: float, asked: str):
    life = live(chain("a"), OK, snapshot=limits(a=(0, room)))
    assert life.path == asked
    if not asked:
        assert (life.error.kind, life.exit, life.waits) == ("NoCapacity", 6, [])
        assert "2026-01-02T03:01:00Z (in 61 s): p/a is at its limit" in life.error.message
        assert life.error.retry_after_s == 60.1
        assert "--max-wait" in life.error.hint


def test_all_waits_together_stay_within_max_wait():
    life = live(chain("a"), RateLimited("m", retry_after_s=20.0), snapshot=limits(a=(0, 30)))
    assert (life.path, life.waits) == ("aa", [30.0, 20.0])
    assert (life.exit, life.error.kind) == (6, "RateLimited")
    assert life.error.hint.endswith("; the earliest next start is 2026-01-02T03:01:10Z")


def test_backoffs_count_as_waits():
    life = live(chain("a"), Unavailable("m"), dice=1.0, policy=Policy(max_wait_s=0.5))
    assert (life.path, life.waits) == ("aa", [0.25])
    never = live(chain("a", "b"), Unavailable("m"), policy=Policy(max_wait_s=0))
    assert (never.path, never.waits) == ("ab", [])


def test_a_start_after_the_deadline_is_not_waited_for():
    life = live(chain("a"), OK, snapshot=limits(a=(0, 20)), policy=Policy(total_s=20))
    assert (life.error.kind, life.waits) == ("NoCapacity", [])
    assert "--timeout" in life.error.hint


@pytest.mark.parametrize("never", [float("inf"), 1e18])
def test_a_start_that_never_comes_is_no_capacity(never: float):
    life = live(chain("a"), OK, snapshot=Snapshot({"a": DeploymentState(headroom_at=never)}))
    assert (life.error.kind, life.exit) == ("NoCapacity", 6)


@pytest.mark.parametrize(
    ("declared", "named"),
    [({}, ""), ({"rpm": 3}, ""), ({"tpm": 9000}, " (the largest is tpm 9,000 of p/a)"),
     ({"itpm": 500, "tpm": 70}, " (the largest is itpm 500 of p/a)")],
)  # fmt: skip
def test_a_request_larger_than_every_limit_is_told_the_largest(declared: dict[str, int], named: str):
    plan = chain([deployment("a", limits=Limits(**declared))])
    life = live(plan, OK, snapshot=Snapshot({"a": DeploymentState(headroom_at=float("inf"))}))
    assert life.error.message == f"the request is larger than any limit{named}: no target can ever start"
    assert "limit" in life.error.hint


def test_a_call_that_is_crowded_out_is_refused_at_once_and_told_when_it_could_start_unless_it_was_sent_before():
    crowded = replace(limits(a=(0, 20)), demand=1.3, overtaking=0.7)  # its turn comes after 20 / 0.3 of its 60 seconds
    life = live(chain("a"), OK, snapshot=crowded)
    assert (life.path, life.waits, life.error.kind, life.error.retry_after_s) == ("", [], "NoCapacity", 20.0)
    assert life.error.message == (
        "overload: 130% of what the limits allow is asked of 'g0', and smaller requests come first; "
        "come back after 2026-01-02T03:00:20Z (in 20 s)"
    )
    assert live(chain("a"), OK, snapshot=replace(crowded, demand=2.4)).error.retry_after_s == pytest.approx(83.178)
    assert live(chain("a"), OK, snapshot=replace(FREE, demand=2.0, overtaking=1.5)).path == "a"
    assert live(chain("a"), Unavailable("m"), OK, snapshot=replace(FREE, demand=2.0, overtaking=1.5)).path == "aa"


@pytest.mark.parametrize(
    ("demand", "overtaking", "max_wait_s"),
    [(1.2, 0.6, 60.0), (2.0, 0.0, 60.0), (1.19, 1.1, 60.0), (3.0, 2.0, 301.0)],
)
def test_a_call_waits_whose_turn_will_come_or_that_outlasts_an_overload(
    demand: float, overtaking: float, max_wait_s: float
):
    busy = replace(limits(a=(0, 20)), demand=demand, overtaking=overtaking)
    life = live(chain("a"), OK, snapshot=busy, policy=Policy(max_wait_s=max_wait_s, total_s=1000.0))
    assert life.waits[:1] == [20]


@pytest.mark.parametrize(("demand", "firm_s"), [(1.0, 0.0), (1.2, 0.0), (1.5, 35.0)])
def test_a_place_near_the_deadline_is_firm_at_once_unless_all_are_in_a_deep_overload(demand: float, firm_s: float):
    busy = replace(limits(a=(0, 20)), demand=demand)
    call = Call(chain("a"), Policy(max_wait_s=70.0, total_s=70.0), started=T0, dice=lambda: 0.5)
    held = call.next(busy, T0)
    assert isinstance(held, Wait)
    assert held.firm_at == T0 + firm_s


def test_a_refusal_that_asks_for_too_long_a_wait_names_the_instant():
    life = live(chain("a"), RateLimited("m", retry_after_s=120.0, hint="slow down"))
    assert (life.path, life.exit, life.error.kind) == ("a", 6, "RateLimited")
    assert life.error.hint == "slow down; the earliest next start is 2026-01-02T03:02:00Z"


def test_a_chain_that_ends_for_want_of_capacity_may_succeed_later():
    life = live(chain("a", "b"), Unauthorized("no key"), snapshot=limits(b=(0, 120)))
    assert (life.path, life.exit, life.error.kind) == ("a", 6, "NoCapacity")
    assert "no key" in life.error.message


def test_next_may_be_asked_again_during_a_wait():
    call = Call(chain("a"), Policy(), started=T0, dice=lambda: 0.5)
    busy = limits(a=(0, 10))
    step = call.next(busy, T0)
    assert isinstance(step, Wait)
    assert (step.until, step.why, step.target.id) == (T0 + 10, "p/a is at its limit", "a")
    assert call.next(busy, T0 + 5) == step
    assert isinstance(call.next(FREE, T0 + 6), Send)
    assert call.waited_s == 6.0


def test_a_place_that_is_held_becomes_firm_during_the_patience_and_at_once_near_the_deadline():
    def firm_in(busy_s: float, total_s: float, demand: float = 0.0) -> float:
        busy = replace(limits(a=(0, busy_s)), demand=demand)
        step = Call(chain("a"), Policy(total_s=total_s), started=T0, dice=lambda: 0.5).next(busy, T0)
        assert isinstance(step, Wait)
        return step.firm_at - T0

    assert 0 < firm_in(10, 300) < Policy().max_wait_s
    assert firm_in(10, 20) == 0
    assert firm_in(10, 50, demand=1.5) == 25  # in a deep overload every place is near the deadline


def test_a_link_with_a_target_that_may_start_soon_is_waited_for_where_the_whole_answer_comes_first():
    slow, quick = DeploymentState(headroom_at=T0 + 2, per_token_s=0.5), DeploymentState(headroom_at=T0 + 3)
    step = Call(chain("ab"), Policy(), started=T0, dice=lambda: 0.5).next(
        Snapshot({"a": slow, "b": quick}, output_tokens=100), T0
    )
    assert isinstance(step, Wait)
    assert (step.target.id, step.until) == ("b", T0 + 3)


def test_a_deployment_that_was_told_to_come_back_later_is_not_asked_before():
    told = Snapshot({"a": DeploymentState(blocked_until=T0 + 4)})
    assert live(chain("a", "b"), OK, snapshot=told).path == "b"
    assert live(chain("a"), OK, snapshot=told).waits == [4.0]
    for_long = Snapshot({"a": DeploymentState(blocked_until=T0 + 400)})
    assert live(chain("a"), OK, snapshot=for_long).waits == []  # a sole target is asked, whatever it said


def test_a_half_open_deployment_that_somebody_tries_out_is_left_alone_unless_it_is_the_only_one():
    tried = Snapshot({"a": DeploymentState(half_open=True, probed_until=T0 + 9)})
    assert live(chain("ab"), OK, snapshot=tried).path == "b"
    alone = live(chain("a"), OK, snapshot=tried)
    assert (alone.path, alone.waits) == ("a", [])
    free = Snapshot({"a": DeploymentState(half_open=True, probed_until=T0)})
    step = Call(chain("ab"), Policy(strategy="adaptive"), started=T0, dice=lambda: 0.5).next(free, T0)
    assert isinstance(step, Send)
    assert (step.deployment.id, step.probe) == ("a", True)


def test_a_clock_that_was_set_moves_all_that_was_planned():
    call = Call(chain("a"), Policy(total_s=50), started=T0 - 100, dice=lambda: 0.5)
    call.shift(100.0)
    call.next(FREE, T0)
    call.heard(Failed(RateLimited("m", retry_after_s=10), T0))
    assert isinstance(call.next(FREE, T0 + 1), Wait)
    call.shift(3600.0)
    step = call.next(FREE, T0 + 3602)
    assert isinstance(step, Wait)
    assert step.until == T0 + 3610
    assert isinstance(call.next(FREE, T0 + 3610), Send)
    assert call.waited_s == pytest.approx(9)
    call.heard(Failed(Unavailable("m"), T0 + 3649))
    assert isinstance(call.next(FREE, T0 + 3650), Fail)


def test_a_clock_that_is_set_back_makes_no_negative_wait():
    call = Call(chain("a"), Policy(), started=T0, dice=lambda: 0.5)
    call.next(limits(a=(0, 10)), T0)
    assert isinstance(call.next(FREE, T0 - 100), Send)
    assert call.waited_s == 0.0


# --- rule 6: committed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("StreamTruncated", 8), ("TimedOut", 8), ("Unavailable", 8), ("RateLimited", 8), ("DeadlineExceeded", 8),
        ("Unauthorized", 4), ("ContentFiltered", 5), ("Cancelled", 130),
    ],
)  # fmt: skip
def test_an_answer_that_was_shown_fails_where_it_breaks(kind: str, code: int):
    life = live(chain("a", "b"), make(kind), OK, shown=1)
    assert (life.path, life.exit, life.error.kind) == ("a", code, kind)


def test_an_answer_that_was_not_shown_falls_back():
    assert live(chain("a", "b"), StreamTruncated("m"), TimedOut("m"), OK, shown=9).path == "aab"


@pytest.mark.parametrize("kind", ["StreamTruncated", "TimedOut", "Unavailable", "RateLimited"])
def test_a_restart_begins_again_at_another_target(kind: str):
    life = live(chain("a", "b"), make(kind), OK, shown=1, policy=Policy(restart=True))
    assert (life.path, life.exit) == ("ab", 0)
    assert live(chain("a"), make(kind), OK, shown=1, policy=Policy(restart=True)).path == "a"


def test_an_attempt_after_a_restart_may_be_retried_while_it_shows_nothing():
    life = live(chain("a", "b"), StreamTruncated("m"), Unavailable("m"), OK, shown=1, policy=Policy(restart=True))
    assert life.path == "abb"


def test_a_shown_answer_that_ends_well_is_done():
    assert live(chain("a"), OK, shown=1).end == Done(deployment("a"), fallback=False)


# --- rule 7: how a chain fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "code", "told"),
    [
        ([TimedOut("m"), TimedOut("m")], 7, "TimedOut"),
        ([TimedOut("m"), BadResponse("m")], 6, "BadResponse"),
        ([BadResponse("m"), QuotaExhausted("m")], 6, "QuotaExhausted"),
        ([TimedOut("m"), Unauthorized("m")], 6, "TimedOut"),
        ([Unauthorized("m"), ModelNotFound("m")], 4, "Unauthorized"),
        ([ModelNotFound("m"), Unauthorized("m")], 5, "ModelNotFound"),
        ([BadResponse("m"), InvalidRequest("m")], 6, "BadResponse"),
        ([Unauthorized("m"), InvalidRequest("m")], 4, "Unauthorized"),
        ([BadResponse("m"), ContentFiltered("m")], 6, "BadResponse"),
        ([BadResponse("m"), DeadlineExceeded("m")], 7, "DeadlineExceeded"),
        ([BadResponse("m"), Cancelled("m")], 130, "Cancelled"),
        ([MissingCredential("m"), QuotaExhausted("m")], 6, "QuotaExhausted"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tries", [2, 6])
def test_a_chain_that_failed_in_several_ways_exits_6_if_any_may_pass(
    outcomes: list[LlmctlError], code: int, told: str, tries: int
):
    life = live(chain("a", "b"), *outcomes, policy=Policy(tries=tries))
    assert (life.exit, life.error.kind) == (code, told)


# --- random lives ---------------------------------------------------------------------------------------------------

KINDS = [*CLASSES, "MissingCredential", "DeadlineExceeded", "Cancelled"]


@dataclass
class World:
    """A random plan, policy and state of the world; everything follows from the seed."""

    seed: int

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        names = iter("abcdefghijklmnopqrstuvwxyz")
        links = [
            [
                deployment(next(names), api_key=f"env:{rng.randrange(4)}", context_window=rng.choice([None, 8, 16, 32]))
                for _ in range(rng.choice([1, 1, 1, 2, 3]))
            ]
            for _ in range(rng.randrange(1, 7))
        ]
        strategy, filtered = rng.choice(list(STRATEGIES)), rng.choice(["fail", "fallback"])
        self.plan = chain(*links, strategy=strategy, on_content_filter=filtered)
        self.all = [d for link in links for d in link]
        self.link_of = {d.id: n for n, link in enumerate(links) for d in link}
        self.policy = Policy(
            retries=rng.randrange(4),
            tries=rng.randrange(1, 8),
            patience_s=rng.choice([0.0, 0.3, 5.0]),
            max_wait_s=rng.choice([0.0, 1.0, 10.0, 60.0]),
            total_s=rng.choice([1.0, 20.0, 300.0]),
            restart=rng.random() < 0.3,
            strategy=rng.choice([None, *STRATEGIES]),
        )
        self.states = {d.id: DeploymentState() for d in self.all}
        self.budget: dict[str, float] = {}

    def snapshot(self, now: float) -> Snapshot:
        """The world as it is now: some cool, some are full, some are tried out, some credentials retried too much."""
        rng = self.rng
        for d in self.all:
            if rng.random() < 0.15:
                cool, room, blocked, probed = (now + rng.choice([0, 0, 0.5, 5, 80, 1e18]) for _ in range(4))
                self.states[d.id] = DeploymentState(
                    cooldown_until=cool,
                    headroom_at=room,
                    blocked_until=blocked if rng.random() < 0.3 else 0.0,
                    half_open=rng.random() < 0.3,
                    probed_until=probed,
                    in_flight=rng.randrange(3),
                    first_token_s=rng.choice([0.1, 1.0, 30.0]),
                )
            if rng.random() < 0.05:
                self.budget[credential_key(d)] = rng.choice([0.0, 4.9, 5.0, 10.0])
        return Snapshot(dict(self.states), dict(self.budget), turn=rng.randrange(9), since_probe=rng.randrange(9))

    def error(self) -> LlmctlError:
        """A failure of any class, with or without a wait and the provider's word."""
        rng = self.rng
        how = {
            "retry_after_s": rng.choice([None, None, 0.0, 0.4, 3.0, 7.0, 90.0]),
            "should_retry": rng.choice([None, None, True, False]),
        }
        return make(rng.choice(KINDS), **how)


class Walk:
    """One random call, step by step; each step is checked against what the rules forbid."""

    def __init__(self, seed: int) -> None:
        self.world = world = World(seed)
        self.call = Call(world.plan, world.policy, started=T0, dice=world.rng.random)
        self.now, self.waited, self.committed = T0, 0.0, False
        self.trace: list[Any] = []
        self.ruled_out: set[str] = set()
        self.not_before: dict[str, float] = {}
        self.sends: dict[str, int] = {}
        self.last: LlmctlError | None = None

    def run(self) -> list[str]:
        """What it did. Its waits are sometimes broken off early."""
        for _ in range(60):
            snapshot = self.world.snapshot(self.now)
            step = self.call.next(snapshot, self.now)
            if isinstance(step, Wait):
                self.wait(step, snapshot)
            elif isinstance(step, Send):
                self.send(step, snapshot)
            else:
                self.trace.append(step)
                self.check_end(step, snapshot)
                assert self.call.waited_s == pytest.approx(self.waited)
                assert self.call.next(snapshot, self.now + 1) is step
                return [repr(each) for each in self.trace]
        raise AssertionError("the call does not end")

    def others(self, than: Deployment | None = None) -> list[Deployment]:
        """Who besides could be asked for the first time, now or later."""
        link_of, asked = self.world.link_of, {self.world.link_of[each] for each in self.sends}
        able = [d for d in self.world.all if d.id not in self.ruled_out]
        spare = self.world.policy.tries - sum(self.sends.values()) > len({link_of[d.id] for d in able} - asked)
        return [d for d in able if d.id not in self.sends and d != than and (spare or link_of[d.id] not in asked)]

    def wait(self, step: Wait, snapshot: Snapshot) -> None:
        policy, rng = self.world.policy, self.world.rng
        self.trace.append(("wait", step.until, step.target.id, step.firm_at))
        assert not self.committed
        assert self.now < step.until < T0 + policy.total_s
        assert sum(self.sends.values()) < policy.tries
        assert step.target.id not in self.ruled_out
        for other in self.others(step.target):  # nobody waits while another can start, but for a backoff
            if is_free(snapshot, other, self.now):
                assert step.target.id in self.sends
                assert self.world.link_of[other.id] != self.world.link_of[step.target.id]
                assert step.until <= self.now + policy.patience_s
        early = step.until if rng.random() < 0.7 else self.now + (step.until - self.now) * rng.random()
        self.waited += early - self.now
        assert self.waited + (step.until - early) <= policy.max_wait_s + 1e-6
        self.now = early

    def send(self, step: Send, snapshot: Snapshot) -> None:
        target, policy, now, rng = step.deployment, self.world.policy, self.now, self.world.rng
        self.trace.append(("send", target.id, step.role, now, step.reason, step.probe))
        assert not self.committed
        assert target.id not in self.ruled_out
        assert now < T0 + policy.total_s
        assert step.remaining_s == T0 + policy.total_s - now
        assert snapshot.of(target.id).headroom_at <= now
        assert now >= self.not_before.get(target.id, 0.0)
        if not is_free(snapshot, target, now):  # only where there is no other choice
            assert self.others(target) == []
        assert step.retry == (target.id in self.sends)
        if step.retry:
            assert snapshot.may_retry(credential_key(target))
        link_of = self.world.link_of
        unasked = {link_of[d.id] for d in self.world.all if d.id not in self.ruled_out}
        unasked -= {link_of[each] for each in self.sends}
        if link_of[target.id] not in unasked:
            assert policy.tries - sum(self.sends.values()) > len(unasked)
        self.sends[target.id] = self.sends.get(target.id, 0) + 1
        assert sum(self.sends.values()) == step.n == self.call.attempts <= policy.tries
        assert self.sends[target.id] <= 1 + policy.retries
        shown = rng.random() < 0.2
        if shown:
            self.call.heard(Shown())
            self.committed = not policy.restart
        self.now += rng.choice([0.0, 0.1, 4.0])
        self.last = self.world.error() if rng.random() < 0.85 else None
        self.trace.append(self.last.kind if self.last else "ok")
        self.call.heard(Failed(self.last, self.now) if self.last else Ended())
        if self.last is not None:
            self.rule_out(target, self.last, shown=shown)

    def rule_out(self, target: Deployment, error: LlmctlError, *, shown: bool) -> None:
        """Whom the matrix forbids to be asked after this failure, and until when."""
        rule, out, every = error.rule, self.ruled_out, self.world.all
        if rule.again == "no" or error.should_retry is False or shown:
            out.add(target.id)
        if rule.again == "once" and self.sends[target.id] > 1:
            out.add(target.id)
        if rule.onward == "no" or (rule.onward == "if_configured" and self.on_content_filter == "fail"):
            out |= {d.id for d in every}
        if rule.onward == "other_credential":
            out |= {d.id for d in every if credential_key(d) == credential_key(target)}
        if rule.onward == "fitting_window" and target.context_window:
            out |= {d.id for d in every if d.context_window and d.context_window <= target.context_window}
        self.not_before[target.id] = self.now + (error.retry_after_s or 0.0)

    @property
    def on_content_filter(self) -> str:
        return self.world.plan.links[0].group.on_content_filter

    def check_end(self, end: Done | Fail, snapshot: Snapshot) -> None:
        call, last = self.call, self.last
        if isinstance(end, Done):
            assert last is None
            assert call.attempts
            assert end.fallback == (call.plan.link_of(end.deployment) > 0)
            return
        kinds = {error.kind for error in call.failures}
        in_time = self.now < T0 + self.world.policy.total_s
        if not self.committed and in_time and sum(self.sends.values()) < self.world.policy.tries:
            assert not [d for d in self.others() if is_free(snapshot, d, self.now)]  # nobody was left who could start
        if self.committed:
            assert end.error is last
            assert end.exit == (8 if last and last.rule.may_succeed_later else end.error.exit_code)
        elif end.error in call.failures and last and last.rule.blame == "caller":
            assert (end.error, end.exit) == (last, last.rule.exit)
        elif isinstance(end.error, DeadlineExceeded):
            assert end.exit == 7
        elif isinstance(end.error, NoCapacity):
            assert end.exit == 6
        else:
            may_pass = any(MATRIX[kind].may_succeed_later for kind in kinds)
            assert end.error in call.failures
            assert end.exit == 6 if len(kinds) > 1 and may_pass else end.exit in (6, call.failures[0].rule.exit)


def is_free(snapshot: Snapshot, deployment: Deployment, now: float) -> bool:
    """Whether it has headroom, and neither cools nor was told to wait nor is tried out by somebody."""
    state = snapshot.of(deployment.id)
    ready_at = max(state.headroom_at, state.blocked_until, state.cooldown_until)
    return ready_at <= now and not (state.half_open and state.probed_until > now)


@pytest.mark.parametrize("part", range(10))
def test_any_life_keeps_the_rules_and_equal_seeds_give_equal_lives(part: int):
    for seed in range(part * 200, (part + 1) * 200):
        assert Walk(seed).run() == Walk(seed).run(), seed


@pytest.mark.full
@pytest.mark.parametrize("part", range(20))
def test_a_hundred_thousand_lives_keep_the_rules(part: int):
    for seed in range(10_000 + part * 5_000, 10_000 + (part + 1) * 5_000):
        Walk(seed).run()
