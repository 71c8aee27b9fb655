"""What one rehearsal injects, and the end that the error table says it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.build import build
from llmctl.core.catalog import Settings
from llmctl.core.errors import MATRIX, MissingCredential, UsageError
from llmctl.core.faults import DOWN, FAULTS, SMALL_WINDOW, schedule
from llmctl.lab.chain import Chain, End, read_chain
from llmctl.lab.scenarios import FLAKY_CALLS, NOT_IN_MATRIX, class_of, expected, injected, matrix, schedules

MODELS: dict[str, Any] = {
    "g": {
        "fallbacks": ["mid", "p/c"],
        "deployments": [
            {"id": "a1", "model": "p/a", "api_key": "env:A1"},
            {"id": "a2", "model": "p/a", "api_key": "env:A2", "reasoning": True},
        ],
    },
    "mid": {"id": "b", "model": "p/b", "api_key": "env:B"},
}
SETTINGS = Settings()
ABLE = ["a1", "a2", "b", "p/c"]


def chain(*able: str, **changes: Any) -> Chain:
    """Links: 1 is a1 and a2, 2 is b, 3 is p/c; only `able` can be asked, all where none is named."""
    catalog = build({"p": {"api_base": "https://p.example", "key": ["P"]}}, {}, {"models": MODELS | changes})
    wanted = able or ABLE
    return read_chain(catalog, "g", lambda each: None if each.id in wanted else MissingCredential("no key"))


def ends(found: Chain, *, streamed: bool = False) -> dict[str, End | None]:
    return {each.id: each.end for each in matrix(found, SETTINGS, streamed=streamed)}


def served(*ids: str) -> End:
    return End(frozenset(ids))


# ---------------------------------------------------------------- injections


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["primary=500"], {"a1": "500", "a2": "500"}),
        (["1=500*1,ok"], {"a1": "500*1,ok", "a2": "500*1,ok"}),
        (["a2=401"], {"a2": "401"}),
        (["2=500"], {"a1": "503", "a2": "503", "b": "500"}),
        (["b=500"], {"a1": "503", "a2": "503", "b": "500"}),
        (["3=500"], {"a1": "503", "a2": "503", "b": "503", "p/c": "500"}),
        (["p/c=500", "2=reset"], {"a1": "503", "a2": "503", "b": "reset", "p/c": "500"}),
        (["2=500", "a1=reset"], {"a1": "reset", "a2": "503", "b": "500"}),  # a peer of a faulted one is in the way too
        (["*=500"], dict.fromkeys(ABLE, "500")),
        (["*=500", "2=reset"], {"a1": "500", "a2": "500", "b": "reset", "p/c": "500"}),
        (["2=small-window"], {"a1": "503", "a2": "503", "b": "small-window"}),
    ],
    ids=" ".join,
)
def test_an_injected_fault_is_its_targets_and_links_before_it_are_down(words, expected):
    scenario = injected(words)
    assert {name: str(what) for name, what in schedules(chain(), scenario).items()} == expected
    assert scenario.faults == words
    assert scenario.id == " ".join(words)
    assert (scenario.end, scenario.calls, scenario.streamed) == (None, 1, False)


def test_what_is_in_the_way_is_down_for_ever():
    assert schedules(chain(), injected(["2=500*1"]))["a1"] is DOWN


def test_a_flaky_target_is_called_more_than_once():
    assert injected(["2=429*1,flaky@0.5"], streamed=True)[3:6] == (FLAKY_CALLS, 0.0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1=500", "1=429"], "two faults for '1'"),
        (["1=500", "2=500", "1 =429"], "two faults for '1'"),
        (["1=50"], "no fault '50'"),
        (["500"], "is not TARGET=FAULT"),
    ],
    ids=" ".join,
)
def test_two_faults_for_one_target_and_what_is_no_fault_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        injected(words)


def test_a_target_that_is_not_in_the_chain_is_refused():
    with pytest.raises(UsageError, match="no target '4'"):
        schedules(chain(), injected(["4=500"]))


# ---------------------------------------------------------------- the matrix


def test_the_matrix_has_each_fault_at_each_link_once():
    names = [name for name in FAULTS if name not in NOT_IN_MATRIX]
    found = matrix(chain(), SETTINGS)
    assert [(each.injections[0][0], each.injections[0][1].faults[0].name) for each in found] == [
        (str(link), name) for link in (1, 2, 3) for name in names
    ]
    assert len({each.id for each in found}) == len(found)
    assert all(each.calls == (FLAKY_CALLS if "flaky" in each.id else 1) for each in found)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in (*NOT_IN_MATRIX, "flaky", SMALL_WINDOW)])
def test_a_fault_of_the_matrix_ends_as_its_class_does(name):
    found = ends(chain())
    kind = FAULTS[name]
    first, second, third = (found[f"{link}={schedule(kind.usual or name)}"] for link in (1, 2, 3))
    if not kind.becomes:
        assert (first, second, third) == (served("a1", "a2"), served("b"), served("p/c"))
        return
    rule = MATRIX[kind.becomes]
    stops = rule.onward in ("no", "if_configured")
    assert first == (End(error=kind.becomes, exit=rule.exit) if stops else served("b"))
    assert second == (End(error=kind.becomes, exit=6) if stops else served("p/c"))
    assert third == End(error=kind.becomes, exit=6)


def test_a_flaky_link_or_any_after_it_answers_and_the_last_may_fail():
    found = ends(chain())
    assert found["1=flaky@0.5"] == served("a1", "a2", "b", "p/c")
    assert found["3=flaky@0.5"] == End(frozenset({"p/c"}), "Unavailable", 6)


def test_a_link_with_a_small_window_is_left_out():
    found = ends(chain())
    assert found["1=small-window"] == served("b")
    assert found["3=small-window"] == End(error="Unavailable", exit=6)
    alone = ends(chain("b"))
    assert alone["2=small-window"] == End(error="ContextExceeded", exit=5)


def test_links_of_which_nobody_can_be_asked_are_passed_over_and_their_own_faults_have_no_end():
    found = ends(chain("a1", "p/c"))
    assert found["1=503"] == served("p/c")
    assert found["2=503"] is None
    assert found["2=small-window"] is None
    assert found["3=nodone"] == served("p/c")
    assert ends(chain("p/c"))["3=timeout"] == End(error="TimedOut", exit=7)


def test_a_shared_credential_is_refused_with_all_that_use_it():
    found = ends(chain("a1", "b", "p/c", mid={"id": "b", "model": "p/b", "api_key": "env:A1"}))
    assert found["1=401"] == served("p/c")
    assert found["1=503"] == served("b")


def test_an_answer_that_broke_while_it_was_shown_is_incomplete():
    found = ends(chain(), streamed=True)
    assert found["1=cut@5"] == End(error="StreamTruncated", exit=8)
    assert found["2=stall@5"] == End(error="TimedOut", exit=8)
    assert found["1=503"] == served("b")
    assert all(each.streamed for each in matrix(chain(), SETTINGS, streamed=True))
    assert expected(chain(), 1, schedule("cut@0").faults[0], SETTINGS, streamed=True) == served("b")


def test_slow_is_too_slow_where_the_first_token_comes_after_the_patience():
    first, second = [member.deployment for member in chain().of_link(1)]
    slow = [schedule(f"slow@{seconds}").faults[0] for seconds in (29, 30, 179, 180)]
    assert [class_of(fault, first, SETTINGS) for fault in slow] == ["", "TimedOut", "TimedOut", "TimedOut"]
    assert [class_of(fault, second, SETTINGS) for fault in slow] == ["", "", "", "TimedOut"]
    hurried = {each.id: each.end for each in matrix(chain(), replace(SETTINGS, first_token_s=2.0))}
    assert hurried["2=slow@5s"] == served("p/c")
    assert hurried["1=slow@5s"] == served("a2"), "its patience is longer than that of its peer"
