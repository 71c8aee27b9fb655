"""Budgets as configured: whom an allowance is for, what it says, and names that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.config.load import catalog_of
from llmctl.core.budget import Allowance, Budgets, Standing, dollars
from llmctl.core.errors import BudgetExceeded, ConfigInvalid
from llmctl.core.money import NANO


def budgets(**table: Any) -> Budgets:
    return catalog_of({"models": {"m": {"model": "openai/x"}}, "budget": table}, {}).settings.budgets


def test_scopes_refuse_or_warn_as_the_table_does_unless_they_say() -> None:
    scopes = {"team=web": {"daily": 1}, "team=app": {"monthly": 2, "on_exceed": "refuse"}}
    made = budgets(on_exceed="warn", daily=5, tags=scopes, models={"m": {"per_call": 0.5}})
    assert [(each.scope, each.refuses) for each in made.allowances] == [
        ("all calls", False), ("tag team=web", False), ("tag team=app", True), ("model m", False),
    ]  # fmt: skip
    assert [each.key for each in made.allowances] == [
        "[budget]", '[budget.tags."team=web"]', '[budget.tags."team=app"]', '[budget.models."m"]',
    ]  # fmt: skip
    assert made.refuses
    assert not made.of_call("m", {"team": "web"}).refuses
    assert not budgets().allowances


@pytest.mark.parametrize(
    ("table", "key"),
    [({"models": {"fsat": {"daily": 1.0}}}, "budget.models.fsat"), ({"allow_unpriced": ["m", "x"]}, "unpriced[1]")],
)
def test_a_budget_for_what_nobody_knows_is_refused_for_it_would_limit_nothing(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        budgets(**table)
    assert key in caught.value.message


def test_who_may_be_unpriced_is_named_by_group_deployment_or_model() -> None:
    assert budgets(allow_unpriced=["m", "m-1", "gpt-4o"]).allow_unpriced == {"m", "m-1", "openai/gpt-4o"}


def test_of_several_caps_of_one_call_the_lowest_that_refuses_counts() -> None:
    both = Budgets((Allowance(per_call=30), Allowance(per_call=10, refuses=False))).of_call("m", {}, max_cost=20)
    both.check_call(20)
    with pytest.raises(BudgetExceeded, match=r"more than the \$0\.00000002 that one call may"):
        both.check_call(31)


def test_what_is_left_is_what_is_neither_spent_nor_reserved_and_never_less_than_nothing() -> None:
    some = Standing(Allowance(), "day", 100, spent=60, reserved=30, began=0, ends=1)
    assert [some.left, some._replace(spent=90).left, some._replace(limit=None).left] == [10, 0, None]


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [(0, "$0.00"), (5 * NANO, "$5.00"), (12_340_000_000, "$12.34"), (1_074_000, "$0.001074"), (7, "$0.000000007")],
)
def test_an_amount_is_said_as_fine_as_it_must_be(nanousd: int, text: str) -> None:
    assert dollars(nanousd) == text
