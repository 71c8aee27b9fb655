"""A clock that is set, by an hour or by a day, leaves nothing stuck and makes no cooldown longer."""

from __future__ import annotations

import pytest

from llmctl.core.errors import RateLimited, Unauthorized, Unavailable
from llmctl.core.snapshot import Said
from llmctl.routing.call import credential_key
from llmctl.routing.settle import Outcome
from tests.routing.test_book import A, Desk
from tests.routing.town import T0, deployment


def troubled() -> Desk:
    """Everything that has an instant: ejected, refused, cooling by credential, in flight, said, measured."""
    desk = Desk(deployment("a", shape="window", rpm=3, tpm=10_000))
    for n in range(3):
        desk.attempt(n - 20, took_s=0.5, said=(Said("tpm", 9000, 8000 - n, 30.0),))
    for n in range(3):
        desk.attempt(n - 10, took_s=0.5, error=Unavailable("m", status=503))
    desk.attempt(-2, took_s=0.5, error=RateLimited("m", status=429, retry_after_s=20.0))
    desk.attempt(-1, took_s=0.5, error=Unauthorized("m", status=401))
    desk.book(-1).retried(desk.deployments[0])
    desk.book(0, "in flight").reserve(desk.deployments[0])
    desk.book(0, "waiting").hold(desk.deployments[0], T0 + 50, T0 + 20)
    return desk


@pytest.mark.parametrize("set_s", [-3600.0, -86400.0 * 400, -5.0])
def test_after_a_clock_is_set_back_everything_is_as_it_was_a_moment_before(set_s: float):
    before, after = troubled().state(0.5), troubled().state(set_s + 0.5)
    for name in ("cooldown_until", "headroom_at", "blocked_until", "probed_until", "back_at", "measured_at"):
        was, now = getattr(before, name), getattr(after, name)
        assert now in (was, pytest.approx(was + set_s, abs=0.6)), name
    assert (after.half_open, after.fails, after.in_flight, after.why) == (
        before.half_open,
        before.fails,
        before.in_flight,
        before.why,
    )
    assert after.headroom == before.headroom
    assert [at - set_s for at, _ in after.samples] == pytest.approx([at for at, _ in before.samples], abs=0.6)


@pytest.mark.parametrize("set_s", [-3600.0, 86400.0])
def test_after_a_clock_was_set_nothing_is_stuck_and_no_cooldown_is_longer(set_s: float):
    desk = troubled()
    desk.attempt(set_s + 1, took_s=0.5)
    state = desk.state(set_s + 2)
    assert state.cooldown_until <= T0 + set_s + 301
    assert desk.documents["quota a"]["blocked"] <= T0 + set_s + 21
    assert state.headroom_at <= T0 + set_s + 125
    later = desk.state(set_s + 400)
    assert max(later.cooldown_until, later.blocked_until, later.headroom_at) == T0 + set_s + 400
    assert later.in_flight == 0
    assert later.headroom["rpm"] == 3
    assert desk.snapshot(set_s + 400).retry_budget[credential_key(A)] == 10


@pytest.mark.parametrize("set_s", [-3600.0, 86400.0])
def test_what_was_under_way_when_the_clock_was_set_is_settled_as_of_now(set_s: float):
    desk = Desk(deployment("a", shape="window", rpm=1, tpm=10_000))
    target = desk.deployments[0]
    desk.book(0).reserve(target)
    outcome = Outcome(T0, T0 + 2, heard=T0 + 1, first_token_s=1, latency_s=2, input_tokens=10, output_tokens=10,
        said=(Said("tpm", 10_000, 9000, 30.0),))  # fmt: skip
    desk.book(set_s + 2).settle(target, outcome, lambda: 0.5)
    assert desk.state(set_s + 2).headroom_at == pytest.approx(T0 + set_s + 61, abs=2)
    desk.attempt(set_s + 90, said=(Said("tpm", 10_000, 5000, 30.0),))
    assert desk.documents["quota a"]["said"]["tpm"][1] == 5000
