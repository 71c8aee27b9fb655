"""One scenario played: what it leaves behind, what it lends from real calls and what it never touches."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from servers import FaultServer

from llmctl.client import Client
from llmctl.core.errors import ConfigInvalid
from llmctl.core.faults import FAULTS, schedule
from llmctl.core.record import Attempt, CallRecord
from llmctl.lab import drill
from llmctl.lab.drill import Drill
from llmctl.lab.rehearsal import NOWHERE, Paused, _Watch, arranged, scripted
from llmctl.lab.scenarios import injected
from llmctl.routing.plan import credential_key
from llmctl.run import extras
from llmctl.run.clock import SystemClock
from llmctl.run.faults import Sent
from llmctl.testing import DrillClock, FaultTransport, MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmctl.lab.rehearsal import Rehearsal, Stage
    from llmctl.lab.scenarios import Scenario

TWO = {"a": {"model": "openai/gpt-4o", "fallbacks": ["b"]}, "b": {"model": "anthropic/claude-x"}}
SECRETS = {
    "OPENAI_API_KEY": "sk-canary-openai-0123456789",
    "ANTHROPIC_API_KEY": "sk-canary-anthropic-0123456789",
    "OPENAI_ORG_ID": "org-canary-0123456789",
    "CORP_TOKEN": "tok-canary-0123456789",
}


def stage_for(client: Client, environ: dict[str, str] | None = None, **how: Any) -> Stage:
    return drill.stage(client, Drill("a", **{"live": False, "speed": 200.0, **how}), environ or {})


def played(models: dict[str, Any], *inject: str, scenario: Scenario | None = None, **how: Any) -> Rehearsal:
    """The rehearsal of one scenario on the chain of `a`."""
    ledger, environ = how.pop("ledger", None) or MemoryLedger(), how.pop("environ", {})
    with Client({"models": models}, environ=environ, ledger=ledger) as client:
        stage = stage_for(client, environ, **how)
        return asyncio.run(stage.play(scenario or injected(inject)))


def path(rehearsal: Rehearsal) -> list[tuple[str, str]]:
    """Who was asked, and what came of it."""
    return [(each.deployment, each.outcome) for told in rehearsal.calls for each in told.attempts]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    where = tmp_path / "temporary"
    where.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(where))
    return where


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{each}").startswith("socket:")
        except OSError:  # the directory's own, which is closed by now
            continue
    return found


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors where Linux shows them")


# ---------------------------------------------------------------- what a scenario leaves behind


def test_the_ledger_has_each_call_marked_and_its_attempts_and_nothing_was_spent() -> None:
    price = {"price": {"input": 3.0, "output": 15.0}}
    ledger = MemoryLedger()
    models = {**TWO, "a": {**TWO["a"], **price}}
    rehearsal = played(models, "primary=503*1,nodone,503", scenario=None, ledger=ledger)
    (told,) = rehearsal.calls
    (row,) = ledger.rows.values()
    assert (row.drill, row.command, row.model, row.state, row.exit_code) == (True, "fallback drill", "a", "ok", 0)
    assert ledger.states == ["started", "ok"]
    moved_s = row.started_at - told.record.started_at  # the row has the world's instants, and the drill's durations
    instants = {name: getattr(row, name) for name in ("started_at", "finished_at", "deadline_at")}
    assert row == replace(told.record, drill=True, **instants)
    assert instants["deadline_at"] - instants["started_at"] == pytest.approx(300)
    assert row.started_at <= time.time() < told.record.started_at + moved_s + 60
    assert row.finished_at == pytest.approx((told.record.finished_at or 0.0) + moved_s)
    moved = [replace(each, started_at=each.started_at + moved_s) for each in told.attempts]
    assert [each.started_at for each in ledger.attempts[row.id]] == pytest.approx([each.started_at for each in moved])
    assert [replace(each, started_at=0.0) for each in ledger.attempts[row.id]] == [
        replace(each, started_at=0.0) for each in told.attempts
    ]
    assert [(each.outcome, each.cost_nanousd) for each in told.attempts] == [("Unavailable", 0), ("ok", 0)]
    assert row.cost_nanousd == 0
    assert row.output_tokens
    assert ledger.texts[row.id] == (drill.PROMPT, rehearsal.scripted)
    assert told.text == rehearsal.scripted


def test_a_call_that_nobody_answered_costs_nothing_either() -> None:
    ledger = MemoryLedger()
    played(TWO, "*=401", ledger=ledger)
    assert [(row.state, row.drill, row.cost_nanousd) for row in ledger.rows.values()] == [("failed", True, 0)]


def test_where_no_temporary_file_can_be_made_the_scenario_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(ConfigInvalid, match="no temporary directory can be made") as refused:
        played(TWO, "primary=503")
    assert "TMPDIR" in (refused.value.hint or "")


def test_the_row_is_marked_from_its_beginning() -> None:
    class Beginnings(MemoryLedger):
        async def begin(self, record: CallRecord, prompt: str | None) -> None:
            marked.append(record.drill)
            await super().begin(record, prompt)

    marked: list[bool] = []
    played(TWO, "primary=503", ledger=Beginnings())
    assert marked == [True]


def test_the_real_state_is_not_made_and_not_touched(tmp_path: Path, temporary: Path) -> None:
    environ = {"LLMCTL_HOME": str(tmp_path / "home")}
    with FaultServer("ok") as server:
        models = {**TWO, "a": {**TWO["a"], "api_base": server.url, "api_key": "k"}}
        with Client({"models": models}, environ=environ) as client:
            stage = stage_for(client, environ)
            asyncio.run(stage.play(injected(["primary=401"])))
            assert not client.places.state.exists()
            assert client.complete("hi", model="a").text
            before = {each.name: each.read_bytes() for each in client.places.home.glob("state.db*")}
            assert before
            asyncio.run(stage.play(injected(["primary=429@9s"])))
            assert {each.name: each.read_bytes() for each in client.places.home.glob("state.db*")} == before
            assert client.complete("hi", model="a").served_by == "openai/gpt-4o", "what was drilled cools nobody down"
    assert list(temporary.iterdir()) == []
    with sqlite3.connect(tmp_path / "home" / "ledger.db") as database:
        rows = database.execute("select drill, state, attempt_count from calls order by drill, started_at").fetchall()
        kept = database.execute("select outcome from attempts join calls on id = call_id where drill order by n")
        assert rows == [(0, "ok", 1), (0, "ok", 1), (1, "ok", 2), (1, "ok", 2)]
        assert sorted(outcome for (outcome,) in kept) == ["RateLimited", "Unauthorized", "ok", "ok"]
    database.close()


@needs_proc
def test_many_scenarios_leave_no_descriptor_no_thread_and_no_file_open(temporary: Path) -> None:
    with Client({"models": TWO}, environ={}, ledger=MemoryLedger()) as client:
        stage = stage_for(client)
        names = ("503*1,ok", "reset", "cut@3", "refused", "tls", "garbage", "empty", "ok*1,401")
        some = [injected([f"primary={name}"]) for name in names]

        async def many() -> None:
            await stage.play(some[0])
            await asyncio.sleep(0)
            before = sockets(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())
            for _ in range(5):
                for each in some:
                    await stage.play(each)
            await asyncio.sleep(0)
            after = sockets(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())
            assert after == before

        asyncio.run(many())
    assert list(temporary.iterdir()) == []


@needs_proc
def test_a_drill_that_is_cancelled_completes_its_row_and_lets_go_of_everything(temporary: Path) -> None:
    ledger = MemoryLedger()

    async def stopped(server: FaultServer, stage: Stage) -> None:
        before = sockets()
        task = asyncio.create_task(stage.play(injected(["primary=404"])))
        await asyncio.to_thread(server.wait_for)  # the faulted target has failed, and the real one is silent
        assert [(each / "state.db").exists() for each in temporary.iterdir()] == [True]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stage.client.aclose()
        await asyncio.to_thread(server.wait_for, 1, "closed")
        await asyncio.sleep(0)
        assert sockets() <= before

    with FaultServer("silent") as server:
        where = {"api_base": server.url, "api_key": "k"}
        models = {"a": {**TWO["a"], **where}, "b": {"model": "groq/l", **where}}
        with Client({"models": models}, environ={}, ledger=ledger) as client:
            asyncio.run(stopped(server, stage_for(client, live=True)))
    (row,) = ledger.rows.values()
    assert (row.state, row.exit_code, row.drill, row.attempt_count) == ("cancelled", 130, True, 2)
    assert [each.outcome for each in ledger.attempts[row.id]] == ["ModelNotFound", "Cancelled"]
    assert list(temporary.iterdir()) == []


def test_a_ledger_that_cannot_be_written_fails_the_scenario_with_its_own_words() -> None:
    class Full(MemoryLedger):
        async def begin(self, record: CallRecord, prompt: str | None) -> None:
            raise ConfigInvalid("the ledger cannot be written")

        async def complete(self, record: CallRecord, attempts: Sequence[Attempt], answer: str | None) -> None:
            pass

    (told,) = played(TWO, "primary=503", ledger=Full()).calls
    assert (told.attempts, told.answer) == ((), None)
    assert told.error is not None
    assert "the ledger cannot be written" in told.error.message


# ---------------------------------------------------------------- what happens in it


def test_waits_are_told_with_their_reason_and_the_attempt_they_lead_to() -> None:
    scenario = injected(["primary=429@50s*1"])._replace(alone=True)
    (told,) = played(TWO, scenario=scenario, speed=100.0).calls
    assert [each.outcome for each in told.attempts] == ["RateLimited", "ok"]
    (pause,) = told.pauses
    assert isinstance(pause, Paused)
    assert (pause.before, pause.why != "") == (2, True)
    failed, answered = told.attempts
    assert failed.retry_after_s == 50.0
    assert answered.started_at - failed.started_at >= 0.95 * 50
    assert 0 < pause.wait_s <= 50.0
    assert pause.at_s > 0


def test_several_calls_begin_as_far_apart_as_they_are_to() -> None:
    rehearsal = played(TWO, scenario=injected(["primary=503*1"])._replace(calls=3, every_s=20.0))
    first, second, third = rehearsal.calls
    assert second.at_s >= 20.0
    assert third.at_s >= 40.0
    assert path(rehearsal) == [("a-1", "Unavailable"), ("a-1", "ok"), ("a-1", "ok"), ("a-1", "ok")]
    assert first.at_s < second.at_s < third.at_s <= rehearsal.elapsed_s
    assert [sent.deployment for told in rehearsal.calls for sent in told.sent if sent] == ["a-1"] * 4


def test_the_same_seed_is_the_same_drill_and_another_may_be_another() -> None:
    def fates(seed: int) -> list[bool]:
        """Which of the first requests to the flaky target failed; who is asked besides is a matter of time."""
        sent = played(TWO, "2=flaky@0.5", seed=seed).sent
        return [each.fault is not None for each in sent if each.deployment == "b-1"][:5]

    assert fates(3) == fates(3)
    assert len({tuple(fates(seed)) for seed in range(3, 7)}) > 1


def test_only_a_flaky_target_throws_dice_and_the_first_throw_strikes() -> None:
    def never() -> float:
        raise AssertionError("nobody asked for chance")

    for name, kind in FAULTS.items():
        if name != "flaky":
            schedule(kind.usual or name).at(0, never)
    for models in (TWO, {**TWO, "a": {**TWO["a"], "rpm": 1}}):  # one that is asked once in a drill, too
        fates = [struck for name, struck in met(played(models, "primary=flaky@0.000001")) if name == "a-1"]
        assert fates[0]
        assert not any(fates[1:])


def met(rehearsal: Rehearsal) -> list[tuple[str, bool]]:
    """Who was asked, and whether by the flaky fault."""
    return [(each.deployment, each.fault is not None and each.fault.name == "flaky") for each in rehearsal.sent]


def test_a_request_belongs_to_its_attempt_even_if_the_clock_was_read_late() -> None:
    clock = DrillClock(1.0)
    transport = FaultTransport({}, clock=clock)
    watch = _Watch(MemoryLedger(), transport, clock, SystemClock())
    row = CallRecord("01J", 0.0, "fallback drill", "a")
    one = Attempt(1, "a-1", "openai", "m", "primary", "Unavailable", 100.0, latency_ms=1.0)  # it took longer than that
    unsent = replace(one, n=2, started_at=102.0, outcome="MissingCredential")
    last = replace(one, n=3, started_at=103.0)
    transport.sent += [Sent("a-1", None, 101.0), Sent("a-1", None, 104.0)]

    async def ended() -> None:
        await watch.begin(row, None)
        await watch.complete(row, (one, unsent, last), None)

    asyncio.run(ended())
    assert [each and each.at for each in watch.told(0.0, None, None).sent] == [101.0, None, 104.0]


def test_without_fallbacks_the_first_link_is_alone() -> None:
    rehearsal = played(TWO, scenario=injected(["primary=401"])._replace(alone=True))
    assert path(rehearsal) == [("a-1", "Unauthorized")]


def test_a_call_that_cannot_begin_is_said_and_is_in_no_calls() -> None:
    rehearsal = played(TWO, "*=small-window")
    assert (rehearsal.calls, rehearsal.sent) == ((), ())
    assert rehearsal.error is not None
    assert rehearsal.error.kind == "ContextExceeded"


# ---------------------------------------------------------------- the configuration of a scenario


def test_offline_no_secret_of_the_user_reaches_even_a_stand_in(tmp_path: Path) -> None:
    corp = {
        "model": "vllm/l",
        "api_base": "https://llm.corp.example/v1",
        "api_key": "env:CORP_TOKEN",
        "headers": {"x-trace": "env:CORP_TOKEN", "x-team": "web", "x-api-key": "written-canary-0123"},
    }
    models: dict[str, Any] = {"a": {"model": "openai/gpt-4o", "fallbacks": ["b", "c"]}, "b": TWO["b"]}
    ran = tmp_path / "ran"
    by_command = {"model": "mistral/m", "api_key": f"cmd:touch {ran}"}
    models["c"] = {"deployments": [corp], "fallbacks": []}
    models["d"] = {"deployments": [by_command]}
    models["a"]["fallbacks"].insert(0, "d")
    rehearsal = played(models, "4=503", environ=SECRETS)
    assert not ran.exists()
    heard = [each.heard for each in rehearsal.sent if each.heard]
    assert len(heard) >= 3
    assert {each.deployment for each in rehearsal.sent} == {"a-1", "b-1", "c-1", "d-1"}
    assert "canary" not in str(heard)
    assert "drill-key-1" in str(heard[0].headers)
    assert heard[-1].headers["x-team"] == "web"
    assert heard[-1].path == "/v1/chat/completions"
    assert "x-trace" not in heard[-1].headers


def test_deployments_that_share_a_key_still_do_offline() -> None:
    models = {
        "a": {"deployments": [{"model": "openai/x"}, {"model": "openai/y"}], "fallbacks": ["b"]},
        "b": {"deployments": [{"model": "openai/z", "api_key": "env:OTHER"}, {"model": "azure/z"}]},
    }
    with Client({"models": models}, environ={}, ledger=MemoryLedger()) as client:
        chain = stage_for(client).chain
        made = scripted(client.catalog, chain)
    before = [each.deployment for each in chain.members]
    after = [each for name in ("a", "b") for each in made.groups[name].deployments]
    assert [each.id for each in after] == [each.id for each in before]
    keys = [credential_key(each) for each in after]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert after[3].api_base == NOWHERE
    assert made.groups["fast"] == client.catalog.groups["fast"], "other groups stay as they are"
    assert path(played(models, "primary=401"))[-1][0] in {"b-1", "b-2"}


def test_a_window_that_is_to_be_small_and_a_faulted_deployment_that_is_to_be_first() -> None:
    group = [{"model": f"openai/{name}", "id": name} for name in ("x", "y", "z")]
    models = {"a": {"deployments": group, "strategy": "round-robin", "fallbacks": ["b"]}, "b": TWO["b"]}
    with Client({"models": models}, environ={}, ledger=MemoryLedger()) as client:
        stage = stage_for(client)

    def group_of(*inject: str) -> tuple[list[str], str, list[int | None]]:
        made = arranged(stage.client.catalog, stage.chain, injected(inject)).groups["a"]
        return [each.id for each in made.deployments], made.strategy, [each.context_window for each in made.deployments]

    assert group_of("z=503") == (["z", "x", "y"], "ordered", [None] * 3)
    assert group_of("1=503") == (["x", "y", "z"], "round-robin", [None] * 3)
    assert group_of("2=503") == (["x", "y", "z"], "round-robin", [None] * 3)
    assert group_of("1=small-window") == (["x", "y", "z"], "round-robin", [1] * 3)
    assert group_of("y=small-window") == (["y", "x", "z"], "ordered", [1, None, None])


@pytest.mark.skipif(not extras.installed("bedrock"), reason="needs the extra for Amazon Bedrock")
def test_amazon_needs_no_credentials_of_its_own_offline() -> None:
    rehearsal = played({**TWO, "b": {"model": "bedrock/anthropic.claude-x"}}, "primary=503")
    assert path(rehearsal)[-1] == ("b-1", "ok")
    last = rehearsal.sent[-1].heard
    assert last is not None
    assert last.headers["authorization"] == "Bearer drill-key-2"
