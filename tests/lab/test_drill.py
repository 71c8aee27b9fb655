"""A whole drill: which scenarios there are, that a good chain passes all of them, and why a bad one fails."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from servers import BEHAVIOURS, FaultServer

from llmctl.client import Client
from llmctl.core.budget import Allowance, Budgets
from llmctl.core.errors import ConfigInvalid, UsageError
from llmctl.core.faults import FAULTS
from llmctl.lab import drill
from llmctl.lab.drill import Drill
from llmctl.lab.expectations import Expectations
from llmctl.lab.scenarios import NOT_IN_MATRIX
from llmctl.run import extras
from llmctl.store import spend
from llmctl.store.history import History
from llmctl.store.ledger import SqliteLedger
from llmctl.testing import MemoryLedger

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Exchange

    from llmctl.lab.rehearsal import Stage
    from llmctl.lab.verdict import Verdict

HOME = {"model": "vllm/llama", "api_base": "http://127.0.0.1:8000/v1"}
THREE_WIRES = {
    "a": {"model": "groq/l", "fallbacks": ["b", "c"]},
    "b": {"deployments": [{"model": "anthropic/claude-x"}, {"model": "gemini/gemini-x"}]},
    "c": {"model": "bedrock/anthropic.claude-x" if extras.installed("bedrock") else "azure/gpt-x"},
}
TWO = {"a": {"model": "openai/gpt-4o", "fallbacks": ["b"]}, "b": {"model": "anthropic/claude-x"}}
PRICE = {"input": 1.0, "output": 10.0}
KEY = "sk-real-0123456789"


def rehearsed(
    models: dict[str, Any],
    *inject: str,
    environ: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    ledger: MemoryLedger | SqliteLedger | None = None,
    max_cost_usd: float | None = None,
    **how: Any,
) -> list[Verdict]:
    """The verdicts of a drill on the chain of `a`, offline where nothing else is said."""
    environ = environ or {}
    wanted = Drill("a", **{"live": False, "inject": inject, "speed": 200.0, **how})
    with Client({"models": models, **(config or {})}, environ=environ, ledger=ledger or MemoryLedger()) as client:

        async def all_of_them() -> list[Verdict]:
            on = drill.stage(client, wanted, environ)
            plays = [(on, each) for each in drill.scenarios(wanted, on)]
            try:
                return (await drill.rehearse(plays, Expectations(), max_cost_usd=max_cost_usd))[0]
            finally:
                await client.aclose()

        return asyncio.run(all_of_them())


def staged(models: dict[str, Any], *inject: str, **how: Any) -> tuple[Drill, Stage]:
    """A drill on the chain of `a`, and its stage."""
    wanted = Drill("a", **{"live": False, "inject": inject, **how})
    return wanted, drill.stage(Client({"models": models}, environ={}, ledger=MemoryLedger()), wanted, {})


def failures(verdicts: list[Verdict]) -> dict[str, str]:
    return {each.rehearsal.scenario.id: each.why for each in verdicts if not each.ok}


# ---------------------------------------------------------------- offline


@pytest.mark.parametrize("streamed", [False, True])
def test_a_good_chain_of_three_wires_passes_its_whole_matrix(streamed: bool) -> None:
    verdicts = rehearsed(THREE_WIRES, matrix=True, streamed=streamed, speed=100.0)
    assert failures(verdicts) == {}
    assert len(verdicts) == 3 * (len(FAULTS) - len(NOT_IN_MATRIX))
    ends = {each.rehearsal.scenario.id: each.rehearsal.scenario.end for each in verdicts}
    broken = ends["1=cut@5"], ends["2=cut@5"], ends["1=stall@5"]
    if streamed:
        assert [end and (end.error, end.exit) for end in broken] == [
            ("StreamTruncated", 8), ("StreamTruncated", 8), ("TimedOut", 8)
        ]  # fmt: skip
    else:
        assert [end and end.served for end in broken] == [{"b-1", "b-2"}, {"c-1"}, {"b-1", "b-2"}]
    assert [end and end.exit for end in (ends["1=400"], ends["3=401"], ends["3=503"])] == [5, 6, 6]
    served = {each.rehearsal.scenario.id: each.served_by for each in verdicts}
    assert served["1=slow@5s"] == served["1=nodone"] == "groq/l"
    assert served["1=filter"] is None


def test_without_a_word_the_primary_is_down() -> None:
    (verdict,) = rehearsed(TWO)
    assert (verdict.ok, verdict.rehearsal.scenario.faults) == (True, ["primary=503"])
    assert verdict.served_by == "anthropic/claude-x"


@pytest.mark.parametrize(
    ("inject", "why"),
    [
        (["2=401"], ["attempt 4 at b-1: Unauthorized (HTTP 401)", "exit 6"]),
        (["2=garbage"], ["attempt 4 at b-1: BadResponse (HTTP 200)", "exit 6"]),
        (["*=503"], ["attempt 6 at b-1: Unavailable (HTTP 503)", "exit 6"]),
        (["primary=400"], ["attempt 1 at a-1: InvalidRequest (HTTP 400)", "exit 5"]),
        (["2=small-window"], ["attempt 3 at a-1: Unavailable (HTTP 503)", "b-1 is left out: its window is too small"]),
        (["*=small-window"], ["begins: no call could be made", "window"]),
        (["primary=ok*5,503"], ["primary=ok*5,503 never fired"]),
        (["primary=slow@1", "2=503"], ["2=503 never fired: asked was only a-1"]),
        (["primary=503", "1=401"], ["primary=503 never fired: it was asked 1 x, and met 401"]),
        (["2=401", "*=503"], ["attempt 4 at b-1: Unauthorized (HTTP 401)"]),
    ],
    ids=" ".join,
)
def test_what_is_not_survived_fails_with_the_attempt_and_the_reason(inject: list[str], why: list[str]) -> None:
    (verdict,) = rehearsed(TWO, *inject)
    assert not verdict.ok
    assert [part for part in why if part not in verdict.why] == [], verdict.why


@pytest.mark.parametrize("inject", ["primary=503", "primary=context", "2=401"])
def test_a_fallback_with_too_small_a_window_fails_and_is_named(inject: str) -> None:
    (verdict,) = rehearsed({**TWO, "b": {"deployments": [{"model": "gemini/g", "context_window": 5}]}}, inject)
    assert not verdict.ok
    assert "gemini/g: its window of 5 tokens is too small" in verdict.why


@pytest.mark.parametrize(
    ("inject", "outcomes"),
    [
        ("primary=timeout", [("a-1", "TimedOut"), ("b-1", "ok")]),
        ("primary=slow@60", [("a-1", "ok")]),
    ],
)
def test_a_model_that_reasons_has_its_longer_patience(inject: str, outcomes: list[tuple[str, str]]) -> None:
    models = {**TWO, "a": {"deployments": [{"model": "openai/o9", "reasoning": True}], "fallbacks": ["b"]}}
    (verdict,) = rehearsed(models, inject, speed=400.0)
    assert verdict.ok, verdict.why
    (told,) = verdict.rehearsal.calls
    assert [(each.deployment, each.outcome) for each in told.attempts] == outcomes
    took_s = (told.attempts[0].latency_ms or 0) / 1000
    assert took_s >= (180 if inject == "primary=timeout" else 60)


@pytest.mark.parametrize(("fault", "by"), [("503", "openai/l"), ("401", "vllm/llama")])
def test_a_fault_for_one_of_three_deployments_strikes_first_and_a_sibling_on_another_key_serves(
    fault: str, by: str
) -> None:
    group = [{"model": f"openai/l{n}", "id": f"g-{n}"} for n in range(3)]
    models = {"a": {"deployments": group, "fallbacks": ["home"]}, "home": HOME}
    for name in ("g-0", "g-1", "g-2"):
        (verdict,) = rehearsed(models, f"{name}={fault}")
        assert verdict.ok, verdict.why
        assert verdict.rehearsal.calls[0].attempts[0].deployment == name
        assert (verdict.served_by or "").startswith(by)


def test_a_sibling_that_stands_before_a_later_fault_is_down_so_that_it_fires() -> None:
    group = [{"model": f"openai/l{n}", "id": f"g-{n}"} for n in range(2)]
    models = {"a": {"deployments": group, "fallbacks": ["b", "home"]}, "b": {"model": "groq/l"}, "home": HOME}
    (verdict,) = rehearsed(models, "g-0=404", "2=garbage")
    assert verdict.ok, verdict.why
    met = {(each.deployment, each.fault and each.fault.name) for each in verdict.rehearsal.sent}
    assert met == {("g-0", "404"), ("g-1", "503"), ("b-1", "garbage"), ("home-1", None)}


def test_links_that_are_bare_models_or_have_a_dot_or_are_the_embedded_model_are_drilled_too() -> None:
    toy = {"deployments": [{"model": "local/smollm2-135m", "allow_toy": True}]}
    models = {"a": {"model": "openai/gpt-4o", "fallbacks": ["gpt-4.1", "claude-x", "toy"]}, "toy": toy}
    models["gpt-4.1"] = {"model": "groq/l", "fallbacks": ["a"]}  # a circle: a chain has its first group's links only
    for inject, by in {"primary=503": "groq/l", "2=503": "anthropic/claude-x", "3=503": "local/smollm2-135m"}.items():
        if by.startswith("local") and not extras.installed("local"):
            continue
        (verdict,) = rehearsed(models, inject)
        assert (verdict.ok, verdict.served_by) == (True, by), verdict.why


def test_a_refusing_budget_and_the_word_that_nothing_may_leave_do_not_stop_what_never_leaves() -> None:
    budget = {"budget": {"daily": 1.0, "on_exceed": "refuse"}}
    environ = {"LLMCTL_OFFLINE": "1"}
    (verdict,) = rehearsed(TWO, environ=environ, config=budget)
    assert verdict.ok, verdict.why
    (verdict,) = rehearsed(TWO, environ={**environ, "OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}, live=True)
    assert "begins: no call could be made: openai/gpt-4o: LLMCTL_OFFLINE=1" in verdict.why


@pytest.mark.parametrize(
    "prompt", ["grüße 🜁 \u202e\x00", "\ud800 alone", "word " * 200_000], ids=["odd", "half", "1 MB"]
)
def test_any_prompt_is_drilled(prompt: str) -> None:
    (verdict,) = rehearsed(TWO, prompt=prompt)
    assert verdict.ok, verdict.why


# ---------------------------------------------------------------- what is asked for


def test_a_chain_of_one_and_unknown_words_are_refused() -> None:
    with pytest.raises(UsageError, match="has one member") as refused:
        staged({"a": {"model": "openai/gpt-4o"}})
    assert "add fallbacks" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="no-such-group"):
        drill.stage(Client({}, environ={}, ledger=MemoryLedger()), Drill("no-such-group", live=False), {})
    for inject in ("3=503", "0=503", "-1=503", "٢=503", "b-2=503", "=503", "1=nonsense", "1=cut", "503"):
        wanted, on = staged(TWO, inject)
        with pytest.raises(UsageError):
            drill.scenarios(wanted, on)
    with pytest.raises(UsageError, match="two faults for '2'"):
        drill.scenarios(*staged(TWO, "2=503", "2=401"))
    with pytest.raises(ConfigInvalid, match="a second deployment of the chain with the id 'x'"):
        staged({"a": {"model": "openai/a", "id": "x", "fallbacks": ["b"]}, "b": {"model": "openai/b", "id": "x"}})


def test_injections_are_one_scenario_before_those_of_the_matrix() -> None:
    wanted, on = staged(TWO, "primary=503", "2=slow@1", matrix=True)
    first, *others = drill.scenarios(wanted, on)
    assert (first.id, first.end) == ("primary=503 2=slow@1s", None)
    assert len(others) == 2 * (len(FAULTS) - len(NOT_IN_MATRIX))
    assert len({each.id for each in others}) == len(others)


# ---------------------------------------------------------------- live


def live(first: FaultServer, second: FaultServer, **more: Any) -> dict[str, Any]:
    """A chain over two servers, both with the real key."""
    return {
        "a": {"model": "openai/m", "api_base": first.url, "api_key": KEY, "fallbacks": ["b"], **more},
        "b": {"model": "groq/n", "api_base": second.url, "api_key": KEY, **more},
    }


def test_live_only_what_no_fault_strikes_is_asked_and_charged() -> None:
    ledger = MemoryLedger()
    with FaultServer("ok") as first, FaultServer("ok") as second:
        (verdict,) = rehearsed(live(first, second, price=PRICE), "primary=503", live=True, ledger=ledger)
    assert (verdict.ok, verdict.served_by) == (True, "groq/n"), verdict.why
    assert first.requests == []
    (asked,) = second.requests
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    (told,) = verdict.rehearsal.calls
    assert [sent and sent.real for sent in told.sent] == [False, False, False, True]
    heard = [sent.heard for sent in told.sent if sent and sent.heard]
    assert len(heard) == 3
    assert KEY not in str(heard)
    (row,) = ledger.rows.values()
    attempts = ledger.attempts[row.id]
    assert (row.drill, row.command, row.state, row.attempt_count) == (True, "fallback drill", "ok", 4)
    assert [each.cost_nanousd or 0 for each in attempts[:3]] == [0, 0, 0]
    assert row.cost_nanousd == attempts[3].cost_nanousd
    assert row.cost_nanousd is not None
    assert row.cost_nanousd > 0


def test_live_an_answer_that_a_stand_in_gave_costs_nothing() -> None:
    ledger = MemoryLedger()
    with FaultServer("ok") as first, FaultServer("ok") as second:
        (verdict,) = rehearsed(live(first, second, price=PRICE), "primary=nodone", live=True, ledger=ledger)
        assert first.requests == second.requests == []
    assert (verdict.ok, verdict.served_by) == (True, "openai/m"), verdict.why
    assert [row.cost_nanousd for row in ledger.rows.values()] == [0]


def test_live_a_refused_key_and_a_missing_one_fail_with_their_reason() -> None:
    with FaultServer("ok") as first, FaultServer("echo") as second:
        (verdict,) = rehearsed(live(first, second), "primary=503", live=True)
    assert "attempt 4 at b-1: Unauthorized (HTTP 401)" in verdict.why
    assert KEY not in json.dumps(verdict.as_json())
    for inject, why in {
        "primary=503": "b-1 cannot be asked: no key",
        "2=503": "never fired: it cannot be asked",
    }.items():
        (verdict,) = rehearsed(TWO, inject, live=True, environ={"OPENAI_API_KEY": KEY})
        assert why in verdict.why


def test_live_a_real_provider_has_real_time() -> None:
    async def after_a_while(x: Exchange) -> None:
        await asyncio.sleep(0.4)  # 20 s of the drill's time, were it to run on
        await BEHAVIOURS["ok"](x)

    with FaultServer("ok") as first, FaultServer(after_a_while) as second:
        timeout = {"timeout": {"first_token": "5s"}}
        (verdict,) = rehearsed(live(first, second), "primary=timeout", live=True, speed=50.0, config=timeout)
    assert verdict.ok, verdict.why
    failed, answered = verdict.rehearsal.calls[0].attempts
    assert failed.latency_ms is not None
    assert failed.latency_ms >= 5000
    assert answered.latency_ms is not None
    assert 400 <= answered.latency_ms < 5000


def test_live_a_drill_is_charged_to_the_budgets_and_stopped_by_them(tmp_path: Path) -> None:
    config = {"budget": {"daily": 0.002, "timezone": "UTC"}}
    verdicts = []
    with FaultServer("ok") as first, FaultServer("ok") as second:
        models = live(first, second, price=PRICE, max_tokens=100)
        for _ in range(2):
            ledger = SqliteLedger(tmp_path / "ledger.db", tmp_path / "spool")
            verdicts += rehearsed(models, "primary=503*1", live=True, ledger=ledger, config=config, speed=50.0)
            config["budget"]["daily"] = 0.0
        assert len(first.requests) == 1
    ((standing,), _) = spend.read(str(tmp_path / "ledger.db"), Budgets((Allowance(daily=1),), "UTC"), time.time())
    assert (verdicts[0].ok, standing.reserved, standing.spent > 0) == (True, 0, True), verdicts[0].why
    (told,) = verdicts[1].rehearsal.calls
    assert told.error is not None
    assert (told.error.kind, told.attempts, verdicts[1].ok) == ("BudgetExceeded", (), False)
    rows = History(tmp_path / "ledger.db").list_calls()
    assert [(row["state"], row["drill"]) for row in rows] == [("refused", 1), ("ok", 1)]


def test_a_scenario_that_might_pass_the_cap_is_not_played_and_fails() -> None:
    with FaultServer("ok") as first, FaultServer("ok") as second:
        models = live(first, second, price=PRICE, max_tokens=100)
        dear = rehearsed(models, "primary=503", live=True, max_cost_usd=0.0001)
        assert second.requests == []
        enough = rehearsed(models, "primary=503", live=True, max_cost_usd=0.01)
        asked = len(second.requests)
        unpriced = rehearsed(live(first, second), "primary=503", live=True, max_cost_usd=100.0)
        assert (asked, len(second.requests)) == (1, 1)
    assert [each.ok for each in (*dear, *enough, *unpriced)] == [False, True, False]
    assert "not played: $0.000000 of --max-cost $0.0001 are spent, and it may cost $0.001" in dear[0].why
    assert "nobody knows what it costs" in unpriced[0].why
    assert dear[0].as_json()["attempts"] == []
    assert rehearsed(TWO, max_cost_usd=0.0)[0].ok, "offline nothing is spent"


def test_what_one_scenario_has_spent_is_no_longer_there_for_the_next() -> None:
    # An answer may cost the whole cap, as far as is known before; the one that is given costs something.
    dear = {"input": 0.0, "output": 10.0}
    with FaultServer("ok") as first, FaultServer("ok") as second:
        models = live(first, second, price=dear)
        wanted = Drill("a", live=True, inject=("primary=503",), speed=200.0)
        with Client({"models": models}, environ={}, ledger=MemoryLedger()) as client:
            on = drill.stage(client, wanted, {})
            plays = [(on, each) for each in drill.scenarios(wanted, on)] * 2

            (played, left), spent = asyncio.run(drill.rehearse(plays, Expectations(), max_cost_usd=0.002))
        assert len(second.requests) == 1
    assert spent == played.rehearsal.calls[0].record.cost_nanousd
    assert (played.ok, left.ok) == (True, False)
    assert spent
    assert f"not played: ${spent / 1e9:.6f} of --max-cost $0.002 are spent" in left.why


def test_one_link_of_two_deployments_is_something_to_fall_back_to() -> None:
    (verdict,) = rehearsed({"a": {"deployments": [{"model": "openai/x", "id": "x"}, {"model": "groq/y"}]}}, "x=401")
    assert (verdict.ok, verdict.served_by) == (True, "groq/y"), verdict.why


def test_the_estimate_is_the_dearest_answer_that_no_fault_keeps_away() -> None:
    dear, cheap = {"input": 0.0, "output": 100.0}, {"input": 0.0, "output": 1.0}
    models: dict[str, Any] = {
        "a": {"model": "openai/m", "price": dear, "max_tokens": 10, "fallbacks": ["b"], "api_key": KEY},
        "b": {"model": "groq/n", "price": cheap, "api_key": KEY},
    }

    def estimate(*inject: str, judging: int | None = 0) -> int | None:
        wanted, on = staged(models, *inject, live=True)
        (scenario,) = drill.scenarios(wanted, on)
        return drill.estimate_nanousd((on, scenario), judging)

    assert estimate("primary=503") == drill.EXPECTED_OUTPUT * 1000
    assert estimate("primary=429*1") == 10 * 100_000
    assert estimate("primary=flaky@0.5") == 5 * 10 * 100_000
    assert estimate("*=503") == 0
    assert estimate("primary=503", judging=7) == drill.EXPECTED_OUTPUT * 1000 + 7
    assert estimate("primary=503", judging=None) is None
    del models["b"]["price"]
    assert estimate("primary=503") is None
    assert estimate("2=503") == 0, "the links in the way are down"


def test_verdicts_are_told_as_they_come() -> None:
    told: list[str] = []
    wanted, on = staged(TWO, speed=200.0)
    plays = [(on, each) for each in drill.scenarios(wanted, on)] * 2

    def done(verdict: Verdict) -> None:
        told.append(f"{verdict.rehearsal.scenario.id} {verdict.ok}")

    asyncio.run(drill.rehearse(plays, Expectations(), done=done))
    assert told == ["primary=503 True"] * 2
