"""Which calls Sentry is told of: those that failed for another reason than what their caller did."""

from __future__ import annotations

import pytest

from llmctl.core.errors import MATRIX
from llmctl.core.record import CallRecord
from llmctl.run.observe import CallEnded
from llmctl.run.sentry import Errors, is_trouble

NOT_TOLD = {
    *("ContextExceeded", "ContentFiltered", "InvalidRequest", "UsageError", "BudgetExceeded", "Cancelled"),
    *("ConfigInvalid", "LedgerUnusable", "StateUnusable", "OutputFailed"),
}


def ended(**row: object) -> CallEnded:
    return CallEnded(CallRecord("01J", 1.0, "ask", "fast", **row))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", MATRIX)
def test_trouble_is_told_and_what_a_person_did_is_not(kind):
    assert is_trouble(ended(state="failed", error=kind)) == (kind not in NOT_TOLD)


@pytest.mark.parametrize(
    "row",
    [
        {"state": "ok"},
        {"state": "cancelled", "error": "Cancelled"},
        {"state": "refused", "error": "BudgetExceeded"},
        {"state": "incomplete"},  # ended by the length limit
        {"state": "failed", "error": "Unavailable", "drill": True},
    ],
    ids=str,
)
def test_what_is_no_failure_is_not_told(row):
    assert not is_trouble(ended(**row))


def test_without_an_address_nothing_can_be_told():
    with pytest.raises(LookupError, match="SENTRY_DSN"):
        Errors({})
