"""One instant: who may start when, and who may retry."""

from __future__ import annotations

import pytest

from llmctl.core.snapshot import RETRY_BUDGET_FLOOR, RETRY_BUDGET_FULL, DeploymentState, Snapshot


def test_a_deployment_without_history_may_start_now():
    assert Snapshot().ready_at("d") == 0.0


@pytest.mark.parametrize(("cooldown", "headroom"), [(5.0, 9.0), (9.0, 5.0), (0.0, 0.0)])
def test_a_deployment_may_start_after_its_cooldown_and_with_headroom(cooldown: float, headroom: float):
    snapshot = Snapshot({"d": DeploymentState(cooldown, headroom)})
    assert snapshot.ready_at("d") == max(cooldown, headroom)
    assert snapshot.ready_at("d", despite_cooldown=True) == headroom
    assert snapshot.ready_at("other") == 0.0


def test_a_deployment_that_was_told_to_wait_starts_no_sooner_whatever_its_cooldown():
    snapshot = Snapshot({"d": DeploymentState(cooldown_until=5.0, headroom_at=2.0, blocked_until=7.0)})
    assert snapshot.ready_at("d") == snapshot.ready_at("d", despite_cooldown=True) == 7.0


@pytest.mark.parametrize(
    ("tokens", "may"),
    [(RETRY_BUDGET_FULL, True), (RETRY_BUDGET_FLOOR, True), (RETRY_BUDGET_FLOOR - 0.1, False), (0.0, False)],
)
def test_a_credential_retries_while_its_budget_is_above_the_floor(tokens: float, may: bool):
    assert Snapshot(retry_budget={"c": tokens}).may_retry("c") is may


def test_a_credential_without_history_may_retry():
    assert Snapshot().may_retry("c")
