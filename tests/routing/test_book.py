"""The shared documents of a call: what is reserved, settled and held, what a credential shares, what is learned."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import (
    BadResponse,
    ConnectionFailed,
    InvalidRequest,
    LlmctlError,
    ModelNotFound,
    QuotaExhausted,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from llmctl.core.snapshot import RETRY_BUDGET_FLOOR, RETRY_BUDGET_FULL, DeploymentState, Said, Snapshot
from llmctl.core.types import Params
from llmctl.routing.book import Book, Keys, Size, step
from llmctl.routing.call import Call, Fail, Failed, Send, Wait, credential_key
from llmctl.routing.limits import CONNECT_S, LEASE_S, MINUTE_S
from llmctl.routing.policy import Policy
from llmctl.routing.settle import Outcome, _merged
from tests.routing.town import T0, Strict, Town, deployment, keys_of, plan_of

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment

A = deployment("a", rpm=100, tpm=10_000)


class Desk:
    """One set of documents, opened by calls at instants after T0."""

    def __init__(self, *deployments: Deployment) -> None:
        self.deployments = deployments or (A,)
        self.plan = plan_of(*self.deployments)
        self.keys = keys_of(*self.deployments)
        self.documents: dict[str, Any] = {}

    def book(self, at: float = 0.0, call: str = "x", prompt: int = 10, cap: int | None = 10) -> Book:
        self.documents = json.loads(json.dumps(self.documents))  # nothing but plain JSON is kept
        return Book(self.documents, self.keys, "group", call, T0 + at, Size(prompt, cap))

    def snapshot(self, at: float = 0.0, **size: Any) -> Snapshot:
        return self.book(at, "looking on", **size).snapshot(self.plan)

    def state(self, at: float = 0.0, name: str = "a", **size: Any) -> DeploymentState:
        return self.snapshot(at, **size).of(name)

    def attempt(
        self,
        at: float,
        took_s: float = 1.0,
        error: LlmctlError | None = None,
        *,
        of: Deployment | None = None,
        **how: Any,
    ) -> None:
        """One that was sent then, and has ended."""
        target = of or self.deployments[0]
        self.book(at, "it").reserve(target)
        tokens = {"input_tokens": None, "output_tokens": None} if error else {"input_tokens": 10, "output_tokens": 10}
        timing = {} if error else {"first_token_s": took_s / 2, "latency_s": took_s}
        outcome = Outcome(
            T0 + at, T0 + at + took_s, **({"heard": T0 + at + took_s / 2, "error": error} | tokens | timing | how)
        )
        self.book(at + took_s, "it").settle(target, outcome, lambda: 0.5)


def used(desk: Desk, at: float) -> float:
    return 10_000 * 0.99 - desk.state(at).headroom["tpm"]


# --- reserve, settle, expire, renew --------------------------------------------------------------------------------


def test_what_is_reserved_is_taken_at_once_and_corrected_when_the_call_ends():
    desk = Desk()
    desk.book(0, prompt=500, cap=1000).reserve(A)
    assert used(desk, 0) == pytest.approx(1500, rel=0.01)
    assert desk.state(0).headroom["rpm"] == 99
    assert desk.state(0).in_flight == 1
    outcome = Outcome(T0, T0 + 3, heard=T0 + 1, first_token_s=1, latency_s=3, input_tokens=400, output_tokens=50)
    desk.book(3, prompt=500, cap=1000).settle(A, outcome, lambda: 0.5)
    assert used(desk, 3) == pytest.approx(450, rel=0.01)
    assert desk.state(3).in_flight == 0
    assert used(desk, 60.9) == pytest.approx(450, rel=0.01)  # until 60 s after its headers
    assert used(desk, 61.1) == pytest.approx(0)
    assert desk.state(61.1).headroom["rpm"] == 100


@pytest.mark.parametrize(
    ("how", "tokens"),
    [
        ({"reached": False, "cancelled": True}, None),  # nothing was sent
        ({"cancelled": True}, 1500),  # how much it was is not known
        ({"cancelled": True, "heard": T0 + 1, "input_tokens": 400, "output_tokens": 7}, 407),
        ({"error": Unavailable("m", status=503)}, 1500),
        ({"error": ConnectionFailed("m")}, 0),
        ({"error": RateLimited("m", status=429)}, 0),
        ({"error": InvalidRequest("m", status=400)}, 0),
    ],
)  # fmt: skip
def test_every_end_of_an_attempt_is_settled(how: dict[str, Any], tokens: int | None):
    desk = Desk()
    desk.book(0, prompt=500, cap=1000).reserve(A)
    desk.book(2, prompt=500, cap=1000).settle(A, Outcome(T0, T0 + 2, **how), lambda: 0.5)
    assert desk.state(2).in_flight == 0
    assert desk.state(2).headroom["rpm"] == (100 if tokens is None else 99)
    limit = desk.state(2).headroom["tpm"] + (tokens or 0)
    assert limit == pytest.approx(desk.state(200).headroom["tpm"], rel=0.01)


def test_what_a_dead_process_reserved_expires_and_counts_as_sent():
    desk = Desk()
    desk.book(0).reserve(A)
    assert desk.state(LEASE_S - 1).in_flight == 1
    assert desk.state(LEASE_S + 1).in_flight == 0
    assert desk.state(LEASE_S + 1).headroom["rpm"] == 99
    assert desk.state(CONNECT_S + MINUTE_S - 1).headroom["rpm"] == 99
    assert desk.state(CONNECT_S + MINUTE_S + 1).headroom["rpm"] == 100


def test_what_is_renewed_stays_reserved():
    desk = Desk()
    desk.book(0).reserve(A)
    for at in range(10, 300, 10):
        desk.book(at).renew(A)
    desk.attempt(299)
    assert desk.state(300).in_flight == 1
    assert desk.state(290 + LEASE_S + 1).in_flight == 0


def test_renewing_or_settling_what_is_not_there_does_no_harm():
    desk = Desk()
    desk.book(0).renew(A)
    desk.book(0).settle(A, Outcome(T0, T0, heard=T0), lambda: 0.5)
    desk.book(0).release()
    assert desk.state(0).in_flight == 0


def test_a_place_that_is_held_is_given_up_by_its_next_step_and_when_its_owner_stays_away():
    desk = Desk(deployment("a", rpm=1))
    call = Call(desk.plan, Policy(), started=T0, dice=lambda: 0.5)
    desk.attempt(-30)
    step(call, desk.book(0))
    (place,) = desk.documents["quota a"]["open"].values()
    assert place[0] == pytest.approx(T0 + 30.5, abs=0.1)
    assert desk.state(1).headroom_at > T0 + 90
    assert desk.state(40).headroom_at == T0 + 40
    desk.book(1).release()
    assert desk.state(1).headroom_at == place[0]


def test_two_groups_on_one_key_share_its_limits():
    desk = Desk(deployment("a", rpm=1))
    other = replace(deployment("b", rpm=1), api_key="env:a")
    desk.attempt(0)
    both = Book(desk.documents, {"b": desk.keys["a"]}, "another group", "y", T0 + 2, Size(10, 10))
    assert both.snapshot(plan_of(other)).of("b").headroom_at == pytest.approx(T0 + 60.5)


def test_what_was_heard_at_nearly_the_same_time_is_put_together_and_frees_nothing_too_early():
    for seed in range(50):
        rng = random.Random(seed)
        heard = sorted(rng.uniform(0, 20) for _ in range(300))
        uses = [[at - rng.random(), at, 1, n := rng.randrange(9), 0, n] for at in heard]
        merged = _merged([list(use) for use in uses])
        assert len(merged) < len(uses)
        for at in [rng.uniform(0, 21) for _ in range(50)]:
            for meter in (2, 3):
                assert sum(m[meter] for m in merged if m[1] > at) >= sum(u[meter] for u in uses if u[1] > at)
            left = [use for use in merged if use[1] > at]
            assert sum(m[2] for m in left) <= sum(u[2] for u in uses if u[1] > at - 20)


def test_many_uses_beside_those_of_a_dead_process_free_nothing_too_early():
    desk = Desk(deployment("a", rpm=1000))
    desk.book(0, "dead").reserve(desk.deployments[0])
    for n in range(300):
        desk.attempt(20 + n * 0.05, took_s=0.0)
    for at in (LEASE_S + 6, LEASE_S + 7):
        desk.attempt(at, took_s=0.0)
    assert len(desk.documents["quota a"]["uses"]) < 300
    assert desk.state(CONNECT_S + MINUTE_S + 1).headroom["rpm"] == 1000 - 302
    assert desk.state(20 + MINUTE_S - 1).headroom["rpm"] == 1000 - 302


def test_a_request_that_was_cancelled_while_it_was_leaving_counts_as_if_it_arrived_after_that():
    desk = Desk(deployment("a", rpm=1))
    desk.book(0).reserve(desk.deployments[0])
    desk.book(0.01).settle(desk.deployments[0], Outcome(T0, T0 + 0.01, cancelled=True), lambda: 0.5)
    assert desk.state(1).headroom_at >= T0 + MINUTE_S + 0.5


# --- how large a request is ----------------------------------------------------------------------------------------


def test_the_size_of_answers_is_learned_and_reserved_with_something_to_spare():
    desk = Desk(deployment("a", tpm=100_000))
    for n in range(200):
        desk.attempt(n, output_tokens=100 if n % 2 else 60)
    book = desk.book(300, "later", cap=None)
    assert book.expected_output == pytest.approx(80, abs=8)
    book.reserve(desk.deployments[0])
    assert 90 < desk.documents["quota a"]["open"]["later"][5] < 180
    assert desk.book(300, cap=50).expected_output == 50


@pytest.mark.parametrize("cap", [None, 77])
def test_a_cap_of_the_caller_or_of_the_group_is_reserved_whole(cap: int | None):
    capped = replace(A, params=Params(max_tokens=33))
    desk = Desk(capped)
    desk.book(0, cap=cap).reserve(capped)
    assert desk.documents["quota a"]["open"]["x"][5] == (cap or 33)


def test_a_learned_size_never_makes_a_request_too_large_and_a_cap_does():
    desk = Desk(deployment("a", tpm=100, otpm=60))
    assert desk.state(0, prompt=20, cap=None).headroom_at == T0
    assert desk.state(0, prompt=20, cap=61).headroom_at == float("inf")
    assert desk.state(0, prompt=101, cap=None).headroom_at == float("inf")


def test_what_prompts_really_take_is_learned():
    desk = Desk()
    for n in range(100):
        desk.attempt(n, input_tokens=20)  # twice what was estimated
    desk.book(200, "later").reserve(A)
    assert desk.documents["quota a"]["open"]["later"][4] == pytest.approx(20, abs=2)


# --- retries -------------------------------------------------------------------------------------------------------


def budget(desk: Desk, at: float) -> float:
    return desk.snapshot(at).retry_budget[credential_key(A)]


def test_the_retry_budget_is_the_contracts():
    desk = Desk()
    assert budget(desk, 0) == RETRY_BUDGET_FULL == 10
    for _ in range(5):
        desk.book(0).retried(A)
    assert budget(desk, 0) == RETRY_BUDGET_FLOOR == 5
    assert desk.snapshot(0).may_retry(credential_key(A))
    desk.book(0).retried(A)
    assert not desk.snapshot(0).may_retry(credential_key(A))
    assert budget(desk, 30) == pytest.approx(5)  # one more in 30 s
    desk.attempt(30, took_s=0.0)
    assert budget(desk, 30) == pytest.approx(5.1)  # and a tenth for an answer
    assert budget(desk, 1e6) == 10
    for _ in range(50):
        desk.book(1e6).retried(A)
    assert budget(desk, 1e6) == 0


def test_a_failure_gives_no_retries_back():
    desk = Desk()
    desk.book(0).retried(A)
    desk.attempt(0, took_s=0.0, error=Unavailable("m"))
    assert budget(desk, 0) == 9


def test_a_retry_that_is_sent_is_taken_from_the_budget_and_a_fallback_is_not():
    desk = Desk(A, deployment("b"))
    for path, error, left in ((("a", "b"), BadResponse("m"), 10), (("a", "a"), Unavailable("m"), 9)):
        desk.documents = {}
        call = Call(
            plan_of(A) if path == ("a", "a") else desk.plan, Policy(strategy="ordered"), started=T0, dice=lambda: 0.5
        )
        for n, name in enumerate(path):
            decision, _ = step(call, desk.book(n))
            assert isinstance(decision, Send)
            assert decision.deployment.id == name
            call.heard(Failed(error, T0 + n))
        assert budget(desk, 0) == left


# --- cooldowns -----------------------------------------------------------------------------------------------------

TWIN = replace(deployment("b"), api_key="env:a")
OTHER = deployment("c")


@pytest.mark.parametrize(
    ("error", "out_s", "shared"),
    [
        (Unauthorized("m", status=401), 300, True),
        (QuotaExhausted("m", status=402), 600, True),
        (QuotaExhausted("m", retry_after_s=7.0), 7, True),
        (ModelNotFound("m", status=404), 600, False),
        (InvalidRequest("m", status=400), 0, False),
    ],
)  # fmt: skip
def test_a_cooldown_is_of_the_deployment_or_of_all_that_share_its_credential(
    error: LlmctlError, out_s: float, shared: bool
):
    desk = Desk(A, TWIN, OTHER)
    desk.keys["b"] = Keys("quota b", desk.keys["a"].credential)
    desk.attempt(0, took_s=0.0, error=error)
    assert max(0.0, desk.state(0).cooldown_until - T0) == out_s
    assert desk.state(0).why == (error.kind if out_s else "")
    assert max(0.0, desk.state(0, "b").cooldown_until - T0) == (out_s if shared else 0)
    assert desk.state(0, "c").cooldown_until == 0


def test_a_refusal_is_waited_out_and_what_nothing_explains_makes_careful_for_a_while():
    desk = Desk()
    desk.attempt(0, took_s=0.0, error=RateLimited("m", status=429, retry_after_s=7.0))
    assert desk.state(1).blocked_until == T0 + 7
    careful = desk.state(100).headroom["tpm"]
    assert careful < 9900
    for n in range(200):
        desk.attempt(100 + n, took_s=0.0)
    assert desk.state(900).headroom["tpm"] > careful
    explained = Desk()
    word = (Said("rpm", 100, 0, 7.0),)
    explained.attempt(0, took_s=0.0, error=RateLimited("m", status=429, retry_after_s=7.0), said=word)
    assert explained.state(100).headroom["tpm"] == pytest.approx(9900)


@pytest.mark.parametrize("wait_s", [5.0, 3000.0])
def test_a_sole_target_is_asked_when_its_refusal_cannot_be_waited_out(wait_s: float):
    desk = Desk()
    desk.attempt(0, took_s=0.0, error=RateLimited("m", status=429, retry_after_s=wait_s))
    decision, _ = step(Call(desk.plan, Policy(), started=T0 + 1, dice=lambda: 0.5), desk.book(1))
    assert isinstance(decision, Wait if wait_s < 60 else Send)


def test_three_failures_eject_for_every_process_and_one_call_tries_it_out():
    desk = Desk(A, OTHER)
    for n in range(3):
        desk.attempt(n, error=Unavailable("m", status=503))
    assert desk.state(4).cooldown_until == pytest.approx(T0 + 13)
    assert not desk.state(4).half_open
    assert desk.state(14).half_open
    policy = Policy(strategy="adaptive")
    decision, _ = step(Call(desk.plan, policy, started=T0 + 14, dice=lambda: 0.5), desk.book(14, "first"))
    assert isinstance(decision, Send)
    assert (decision.deployment.id, decision.probe) == ("a", True)
    for n in range(5):
        decision, _ = step(Call(desk.plan, policy, started=T0 + 14, dice=lambda: 0.5), desk.book(14, f"other {n}"))
        assert isinstance(decision, Send)
        assert decision.deployment.id == "c"
    outcome = Outcome(T0 + 14, T0 + 15, heard=T0 + 15, first_token_s=1, latency_s=1, input_tokens=1, output_tokens=1)
    desk.book(15, "first").settle(A, outcome, lambda: 0.5)
    assert not desk.state(15).half_open
    assert desk.state(15).back_at == T0 + 15


def test_who_nobody_has_asked_is_believed_to_be_as_fast_as_its_peers():
    desk = Desk(A, OTHER)
    for n in range(30):
        desk.attempt(n, took_s=8.0)
    assert desk.state(60, "c").first_token_s == pytest.approx(desk.state(60, "a").first_token_s)
    assert desk.state(60, "c").measured_at == 0


def test_an_attempt_that_lasts_far_too_long_counts_before_it_ends():
    desk = Desk()
    desk.book(0).reserve(A)
    assert desk.state(1).overdue_s == 0
    desk.book(20).renew(A)
    assert desk.state(40).overdue_s == pytest.approx(40)


# --- overload ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "refused"), [(0.6, False), (1.6, True)])
def test_in_a_long_overload_the_large_are_refused_at_once_and_the_small_are_served(load: float, refused: bool):
    policy = Policy(max_wait_s=120.0, total_s=300.0)
    strict = Strict()
    town = Town(plan_of(deployment("a", tpm=6000)), {"a": strict}, 3)
    at = T0
    for n in range(300):
        cap = 500 if n % 3 == 0 else 50
        at += town.rng.expovariate(load * 6000 / 200 / 60)
        town.ask(at, 0, cap, policy=policy)
    town.run()
    failed = [ask for ask in town.asks if isinstance(ask.end, Fail)]
    assert bool(failed) is refused
    assert {ask.output for ask in failed} <= {500}
    at_once = [ask for ask in failed if not ask.places]
    assert len(at_once) > len(failed) / 2 or not refused
    served = sum(ask.output for ask in town.asks if ask.sent)
    assert served / (town.now - T0) * 60 > 0.8 * min(1.0, load) * 6000
    assert strict.most(lambda prompt, output: output) <= 6000
