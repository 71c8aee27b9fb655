"""One instant: who is free, and who may retry."""

from __future__ import annotations

import pytest

from llmctl.core.snapshot import RETRY_BUDGET_FLOOR, RETRY_BUDGET_FULL, DeploymentState, Snapshot


def test_a_deployment_without_history_is_free():
    assert Snapshot().of("d") == DeploymentState()


@pytest.mark.parametrize(
    ("tokens", "may"),
    [(RETRY_BUDGET_FULL, True), (RETRY_BUDGET_FLOOR, True), (RETRY_BUDGET_FLOOR - 0.1, False), (0.0, False)],
)
def test_a_credential_retries_while_its_budget_is_above_the_floor(tokens: float, may: bool):
    assert Snapshot(retry_budget={"c": tokens}).may_retry("c") is may


def test_a_credential_without_history_may_retry():
    assert Snapshot().may_retry("c")
