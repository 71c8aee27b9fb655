"""The tree, the table, and the exit code of a chain."""

from __future__ import annotations

import itertools

import pytest

from llmctl.core import errors
from llmctl.core.errors import (
    CLASSES,
    MATRIX,
    WIRE_CLASSES,
    InvalidRequest,
    LlmctlError,
    ProviderError,
    RateLimited,
    exit_of_chain,
    from_wire,
)

EXITS = {
    "RateLimited": 6, "QuotaExhausted": 6, "Unavailable": 6, "ConnectionFailed": 6, "TimedOut": 7, "BadResponse": 6,
    "StreamTruncated": 8, "Unauthorized": 4, "ModelNotFound": 5, "ContextExceeded": 5, "ContentFiltered": 5,
    "InvalidRequest": 5, "BudgetExceeded": 9, "DeadlineExceeded": 7, "Cancelled": 130, "MissingCredential": 4,
    "ConfigInvalid": 3, "LedgerUnusable": 3, "StateUnusable": 3, "NoCapacity": 6, "AnswerRejected": 10,
    "AnswerIncomplete": 8, "OutputFailed": 1, "UsageError": 2,
}  # fmt: skip
AGAIN = {"RateLimited": "patience", "Unavailable": "backoff", "StreamTruncated": "backoff", "ConnectionFailed": "once"}
ONWARD = {
    "QuotaExhausted": "other_credential",
    "Unauthorized": "other_credential",
    "ContextExceeded": "fitting_window",
    "ContentFiltered": "if_configured",
    "InvalidRequest": "no",
}
NEVER_COOLS = {"ContextExceeded", "ContentFiltered", "InvalidRequest"}


def tree(root: type[LlmctlError]) -> set[type[LlmctlError]]:
    below = set(root.__subclasses__())
    return below.union(*(tree(each) for each in below))


ALL = {cls.__name__: cls for cls in tree(LlmctlError)}
LEAVES = {name: cls for name, cls in ALL.items() if cls is not ProviderError}


def test_every_class_that_can_be_raised_has_a_row_and_every_row_a_class():
    assert MATRIX.keys() == LEAVES.keys() == EXITS.keys()
    assert CLASSES.keys() == {cls.__name__ for cls in tree(ProviderError)}


@pytest.mark.parametrize("kind", EXITS)
def test_a_class_has_its_exit_code(kind: str):
    assert MATRIX[kind].exit == EXITS[kind]
    assert LEAVES[kind]("m").exit_code == EXITS[kind]


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_a_provider_error_is_retried_and_passed_on_as_the_matrix_says(kind: str):
    assert MATRIX[kind].again == AGAIN.get(kind, "no")
    assert MATRIX[kind].onward == ONWARD.get(kind, "yes")
    assert (MATRIX[kind].cooldown == "none") == (kind in NEVER_COOLS)


@pytest.mark.parametrize("kind", sorted(set(EXITS) - set(CLASSES) - {"MissingCredential", "UsageError"}))
def test_an_error_of_ours_ends_the_call(kind: str):
    assert (MATRIX[kind].again, MATRIX[kind].onward, MATRIX[kind].cooldown) == ("no", "no", "none")


def test_what_may_succeed_later_is_what_waiting_can_help():
    later = {kind for kind, rule in MATRIX.items() if rule.may_succeed_later}
    assert later == {
        "RateLimited", "QuotaExhausted", "Unavailable", "ConnectionFailed", "TimedOut", "BadResponse",
        "StreamTruncated", "DeadlineExceeded", "NoCapacity",
    }  # fmt: skip


@pytest.mark.parametrize("wire_class", WIRE_CLASSES)
def test_every_wire_class_is_a_class_of_the_tree(wire_class: str):
    assert from_wire(wire_class).__name__ == WIRE_CLASSES[wire_class]
    assert issubclass(from_wire(wire_class), ProviderError)


def test_an_unknown_wire_class_is_a_bug():
    with pytest.raises(KeyError):
        from_wire("telex")


def test_an_error_says_what_it_was_told():
    error = RateLimited("m", hint="h", status=429, retry_after_s=1.5, request_id="r", should_retry=False)
    assert (str(error), error.message, error.hint, error.status) == ("m", "m", "h", 429)
    assert (error.retry_after_s, error.request_id, error.should_retry, error.kind) == (1.5, "r", False, "RateLimited")
    assert (error.provider, error.model, error.partial_text, error.attempts) == ("", "", "", ())


def test_the_chains_exit_code_is_the_errors_once_it_is_known():
    error = errors.Unauthorized("m")
    error.chain_exit = 6
    assert error.exit_code == 6


@pytest.mark.parametrize("kind", EXITS)
def test_a_chain_that_failed_in_one_way_exits_as_that_way_does(kind: str):
    assert exit_of_chain(LEAVES[kind]("m"), []) == EXITS[kind]
    assert exit_of_chain(LEAVES[kind]("m"), [LEAVES[kind]("n")]) == EXITS[kind]


@pytest.mark.parametrize(("primary", "other"), list(itertools.permutations(EXITS, 2)))
def test_a_chain_that_failed_in_several_ways_exits_6_if_any_may_pass_else_as_the_primary(primary: str, other: str):
    may_pass = MATRIX[primary].may_succeed_later or MATRIX[other].may_succeed_later
    expected = 6 if may_pass else EXITS[primary]
    assert exit_of_chain(LEAVES[primary]("m"), [LEAVES[other]("m")]) == expected


def test_every_error_of_a_provider_says_what_to_do_next():
    assert [cls.__name__ for cls in ProviderError.__subclasses__() if not cls("m").hint] == []
    assert InvalidRequest("m", hint="mine").hint == "mine"
