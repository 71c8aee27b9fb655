"""Calls that share a state: whole clients on one real SQLite file, each as if in a process of its own, on virtual time.

What counts is what the provider sees: when requests arrive, how many at once, with which key.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.core.errors import LlmctlError, StateUnusable
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.call import Send, Wait
from llmctl.routing.limits import LEASE_S
from llmctl.run.endpoint import Endpoints
from llmctl.store.state import SqliteState
from llmctl.testing import EPOCH, MemoryLedger, MemoryState, Reply, ScriptedTransport, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer
    from llmctl.run.ports import State
    from llmctl.wire.base import Endpoint

OK = Reply.stream("Hel", "lo", delay_s=0.3)
SIZED = {"prompt": "count to three", "max_tokens": 2}


class LoopClock(VirtualClock):
    """Virtual time that can be read from the state's thread too."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()


class Steps:
    """A real SQLite state where time is virtual: each step is done at once, wherever it runs."""

    def __init__(self, path: Path) -> None:
        self.state = SqliteState(path)

    async def update(self, keys: Sequence[str], work: Any, *, wait_s: float = 5.0, to_the_end: bool = False) -> Any:
        del to_the_end
        return self.state.update_now(keys, work, wait_s=wait_s)


class Provider(ScriptedTransport):
    """Answers by model, else in turn. `seen` is (instant, model, key) of each request, `most` how many at once."""

    def __init__(self, *replies: Reply | LlmctlError, **models: Reply) -> None:
        super().__init__(*replies or (OK,))
        self._models = models
        self.seen: list[tuple[float, str, str]] = []
        self.here = self.most = 0

    @asynccontextmanager
    async def send(self, request: Any, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Any]:
        self.seen.append((asyncio.get_running_loop().time(), deployment.model, request.headers["authorization"][7:]))
        self.here += 1
        self.most = max(self.most, self.here)
        answers = self
        if deployment.model in self._models:
            answers = ScriptedTransport(self._models[deployment.model])  # type: ignore[assignment]
        try:
            async with ScriptedTransport.send(answers, request, deployment, connect_s=connect_s) as response:
                yield response
        finally:
            self.here -= 1

    def times(self, *models: str) -> list[float]:
        """When requests for these models (or any) arrived."""
        return [at for at, model, _ in self.seen if not models or model in models]


def densest(times: Sequence[float]) -> int:
    """How many of these instants the fullest sliding 60 s holds."""
    return max(sum(1 for t in times if start <= t < start + 60.0) for start in times)


class Town:
    """Many clients, each with a state of its own on the one file."""

    def __init__(self, path: Path, provider: Provider, config: dict[str, Any], **how: Any) -> None:
        self.path, self.provider, self.config, self.how = path, provider, config, how
        self.opened: list[SqliteState] = []

    def client(self, state: State | None = None, **how: Any) -> Client:
        if state is None:
            state = Steps(self.path)
            self.opened.append(state.state)
        how = {"environ": {"OPENAI_API_KEY": "k1", "OTHER": "k2"}, "clock": LoopClock()} | self.how | how
        return Client(
            self.config, transport=self.provider, ledger=MemoryLedger(), state=state,
            rng=random.Random(len(self.opened)), **how,
        )  # fmt: skip

    async def ask(self, model: str = "m", client: Client | None = None, **options: Any) -> Answer | LlmctlError:
        """The answer or the error of a call by a new process."""
        try:
            return await (client or self.client()).acomplete(**SIZED | {"model": model} | options)
        except LlmctlError as error:
            return error

    async def crowd(self, count: int, *models: str, **options: Any) -> list[Answer | LlmctlError]:
        """The answers to so many callers at once, in processes of their own."""
        models = models or ("m",)
        return await asyncio.gather(*(self.ask(models[n % len(models)], **options) for n in range(count)))


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def make(config: dict[str, Any], provider: Provider | None = None, **how: Any) -> Town:
        towns.append(Town(tmp_path / "state.db", provider or Provider(), config, **how))
        return towns[-1]

    yield make
    for each in towns:
        for state in each.opened:
            state.close()


def kinds(results: Sequence[Any]) -> list[str]:
    return sorted(each.kind if isinstance(each, LlmctlError) else "ok" for each in results)


def group(*models: str, **limits: Any) -> dict[str, Any]:
    return {"deployments": [{"model": f"openai/{model}", **limits} for model in models]}


# ---------------------------------------------------------------- limits are law


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_sliding_minute_holds_more_than_rpm_and_nobody_is_lost(town: Any, strategy: str) -> None:
    here = town({"models": {"m": group("a", "b", rpm=3)}}, Provider(a=Reply.stream("x", delay_s=2.0)))
    assert kinds(run_virtual(here.crowd(18, strategy=strategy, max_wait=1000))) == ["ok"] * 18
    assert densest(here.provider.times("a")) == densest(here.provider.times("b")) == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_callers_one_after_another_have_exactly_rpm_a_minute(town: Any, strategy: str) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})

    async def work() -> list[Any]:
        return [await here.ask(strategy=strategy) for _ in range(7)]

    assert kinds(run_virtual(work())) == ["ok"] * 7
    times = here.provider.times()
    assert densest(times) == 3
    assert times[3] - times[0] == pytest.approx(60.3, abs=0.1)  # as soon as the first slot is free


def test_slots_that_free_later_than_was_planned_cost_nobody_a_window(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}}, Provider(Reply.stream("x", delay_s=2.0)))
    assert kinds(run_virtual(here.crowd(9, max_wait=300))) == ["ok"] * 9
    assert max(here.provider.times()) < 2 * (60 + 2.0) + 5


def test_nobody_is_refused_who_can_be_served_within_his_wait(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})
    results = run_virtual(here.crowd(50, max_wait=3000, timeout=3000))
    assert kinds(results) == ["ok"] * 50


def test_a_crowd_that_was_refused_at_once_stands_in_nobodys_way(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})

    async def work() -> None:
        assert kinds([await here.ask(max_wait=0) for _ in range(10)]) == ["NoCapacity"] * 7 + ["ok"] * 3
        assert kinds([await here.ask(max_tokens=500, max_wait=70)]) == ["ok"]

    run_virtual(work())
    assert densest(here.provider.times()) == 3


def test_who_may_not_wait_is_refused_at_once_with_the_instant(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})

    async def work() -> tuple[list[Any], float]:
        return await here.crowd(50, max_wait=0), asyncio.get_running_loop().time()

    results, took_s = run_virtual(work())
    assert kinds(results) == ["NoCapacity"] * 47 + ["ok"] * 3
    assert took_s < 1
    refused = [each for each in results if isinstance(each, LlmctlError)]
    assert {each.exit_code for each in refused} == {6}
    assert "no target can start before 2026-01-01T00:01:0" in refused[0].message


@pytest.mark.parametrize(
    ("two", "admitted"),
    [
        ({"model": "openai/a"}, 3),
        ({"model": "openai/a", "api_key": "file:KEY"}, 3),
        ({"model": "openai/a", "api_key": "k1"}, 3),
        ({"model": "openai/a", "api_key": "env:OTHER"}, 6),
        ({"model": "openai/b"}, 6),
        ({"model": "openai/a", "api_base": "https://eu.example/v1"}, 6),
    ],
    ids=str,
)
def test_groups_share_a_limit_where_key_and_model_are_one(town: Any, tmp_path: Path, two: Any, admitted: int) -> None:
    (tmp_path / "key").write_text("k1\n")
    two = {name: value.replace("KEY", str(tmp_path / "key")) for name, value in two.items()} | {"rpm": 3}
    here = town({"models": {"one": {"model": "openai/a", "rpm": 3}, "two": two}})
    assert kinds(run_virtual(here.crowd(12, "one", "two", max_wait=0))).count("ok") == admitted


@pytest.mark.parametrize("max_wait", [0, 200])
def test_tokens_of_a_minute_are_reserved_before_they_are_used(town: Any, max_wait: float) -> None:
    here = town({"models": {"m": group("a", tpm=100)}}, Provider(Reply.stream(*["x"] * 14, delay_s=1.0)))
    results = run_virtual(here.crowd(50, max_wait=max_wait, max_tokens=14))
    used = {each.usage.input_tokens + each.usage.output_tokens for each in results if not isinstance(each, LlmctlError)}
    assert used == {21}
    assert densest(here.provider.times()) == 4
    assert len(here.provider.seen) >= (4 if max_wait == 0 else 8)


def test_what_an_answer_really_took_is_what_counts(town: Any) -> None:
    here = town({"models": {"m": {"model": "mistral/a", "api_key": "k", "tpm": 1000}}})

    async def work() -> list[Any]:
        return [await here.ask(max_tokens=600, max_wait=0) for _ in range(4)]

    assert kinds(run_virtual(work())) == ["ok"] * 4  # each takes 9 of 1000 in the end
    assert kinds(run_virtual(here.crowd(4, max_tokens=600, max_wait=0))) == ["NoCapacity"] * 3 + ["ok"]


def test_no_more_than_max_parallel_are_under_way_and_the_rest_follow_soon(town: Any) -> None:
    here = town({"models": {"m": group("a", max_parallel=2)}}, Provider(Reply.stream("x", delay_s=0.2)))

    async def work() -> tuple[list[Any], float]:
        return await here.crowd(6), asyncio.get_running_loop().time()

    results, took_s = run_virtual(work())
    assert kinds(results) == ["ok"] * 6
    assert here.provider.most == 2
    assert took_s <= 0.8


def test_a_request_larger_than_its_limit_is_refused_before_it_is_sent(town: Any) -> None:
    here = town({"models": {"m": group("a", tpm=100)}})
    refused = run_virtual(here.ask(prompt="word " * 300, max_wait=1000))
    assert (refused.kind, refused.exit_code, here.provider.seen) == ("NoCapacity", 6, [])
    assert "tpm 100" in refused.message


# ---------------------------------------------------------------- what one process learned, the next one knows

DOWN = Reply.refusal(503)
LIMITED = Reply.refusal(429, headers={"retry-after": "40"})
CHAIN: dict[str, Any] = {
    "models": {
        "m": {"model": "openai/a", "fallbacks": ["other"]},
        "twin": {"model": "openai/a2", "fallbacks": ["other"]},
        "other": {"model": "openai/b", "api_key": "env:OTHER"},
        "alone": {"model": "openai/a"},
    }
}


@pytest.mark.parametrize(
    ("reply", "tries", "until_s", "twin"),
    [
        (LIMITED, 1, 40, "a2"),
        (DOWN, 3, 12, "a2"),  # three in a row eject it for 10 s, give or take 2
        (Reply.refusal(401), 1, 300, "b"),  # and with it all that the key opens
        (Reply.refusal(429, code="insufficient_quota"), 1, 600, "b"),
        (Reply.refusal(404), 1, 600, "a2"),
    ],
    ids=["429", "503", "401", "quota", "404"],
)
def test_a_cooldown_is_kept_by_the_next_process(town: Any, reply: Reply, tries: int, until_s: float, twin: str) -> None:
    here = town(CHAIN, Provider(a=reply))

    async def asked(**options: Any) -> list[str]:
        here.provider.seen.clear()
        assert kinds([await here.ask(**options)]) == ["ok"]
        return [model for _, model, _ in here.provider.seen]

    async def work() -> None:
        assert await asked() == ["a"] * tries + ["b"]
        cooled = asyncio.get_running_loop().time()
        assert await asked() == ["b"]
        assert await asked(model="twin") == [twin]
        await asyncio.sleep(until_s - 6)
        assert await asked() == ["b"]
        await asyncio.sleep(cooled + until_s + 0.1 - asyncio.get_running_loop().time())
        assert (await asked(retries=0))[0] == "a"

    run_virtual(work())


def test_a_sole_target_is_asked_despite_its_cooldown_but_waits_for_the_time_it_named(town: Any) -> None:
    here = town(CHAIN, Provider(a=Reply.refusal(401)))
    assert kinds(run_virtual(here.crowd(3, "alone"))) == ["Unauthorized"] * 3
    here = town({"models": {"m": group("c")}}, Provider(LIMITED, OK))
    run_virtual(here.crowd(1, retries=0))

    async def work() -> None:
        assert kinds([await here.ask(max_wait=60)]) == ["ok"]

    run_virtual(work())
    assert here.provider.times()[1] == pytest.approx(40, abs=0.1)


def test_the_file_may_be_deleted_at_any_time(town: Any) -> None:
    here = town(CHAIN, Provider(a=LIMITED))

    async def work() -> list[str]:
        client = here.client()
        for _ in range(2):
            await here.ask(client=client)
            here.path.unlink()
        await here.ask()
        return [model for _, model, _ in here.provider.seen]

    assert run_virtual(work()) == ["a", "b"] * 3


def test_what_a_provider_says_of_its_limit_holds_back_the_next_process(town: Any) -> None:
    headers = {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "30s",
    }
    said = Reply.stream("x")
    here = town(CHAIN, Provider(a=Reply(200, {**said.headers, **headers}, said.chunks)))

    async def work() -> None:
        assert kinds([await here.ask("alone", max_wait=0)]) == ["ok"]
        assert kinds([await here.ask("alone", max_wait=0)]) == ["NoCapacity"]
        assert kinds([await here.ask(max_wait=0)]) == ["ok"]
        assert kinds([await here.ask("alone")]) == ["ok"]

    run_virtual(work())
    assert [model for _, model, _ in here.provider.seen] == ["a", "b", "a"]


def test_retries_are_paid_from_one_budget_by_all_processes(town: Any) -> None:
    here = town({"models": {"m": group("a")}}, Provider(DOWN))

    async def work() -> list[int]:
        tries = []
        for _ in range(5):
            here.provider.seen.clear()
            await here.ask(max_tokens=1)
            tries.append(len(here.provider.seen))
        return tries

    assert run_virtual(work()) == [3, 3, 3, 1, 1]  # 10 tokens, one for each retry, none below 5


# ---------------------------------------------------------------- a process that dies, and a state that breaks


def test_what_a_dead_process_reserved_is_free_after_its_lease_and_counts_as_used(town: Any) -> None:
    here = town({"models": {"m": group("a", max_parallel=1), "n": group("c", rpm=1)}})

    async def dies(name: str) -> None:
        call = here.client().call("hi", model=name)
        decision, *_ = await call._place.next(call.call)
        assert isinstance(decision, Send)

    async def work() -> None:
        await dies("m")
        await dies("n")
        assert kinds(await here.crowd(3, "m", "n", max_wait=LEASE_S - 5)) == ["NoCapacity"] * 3
        assert kinds([await here.ask("m")]) == ["ok"]
        assert here.provider.times()[0] == pytest.approx(LEASE_S, abs=1)
        assert kinds([await here.ask("n")]) == ["ok"]
        assert 60 < here.provider.times()[1] < 70

    run_virtual(work())


def test_the_places_of_dead_processes_that_waited_are_free_after_a_lease(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=1)}})

    async def work() -> None:
        assert kinds([await here.ask()]) == ["ok"]
        for n in range(1, 5):
            call = here.client().call(model="m", max_wait=600, timeout=600, **SIZED)
            decision, *_ = await call._place.next(call.call)
            assert isinstance(decision, Wait)
            assert decision.until == pytest.approx(EPOCH + 60 * n, abs=5)
        assert kinds([await here.ask(max_wait=70)]) == ["NoCapacity"]
        await asyncio.sleep(LEASE_S + 1)
        assert kinds([await here.ask()]) == ["ok"]

    run_virtual(work())
    assert here.provider.times()[1] == pytest.approx(60, abs=1)


def test_the_place_of_a_process_that_waits_is_kept_for_longer_than_a_lease(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=1)}})

    async def work() -> list[Any]:
        assert kinds([await here.ask()]) == ["ok"]
        waits = asyncio.gather(*(here.ask(max_wait=200) for _ in range(3)))
        await asyncio.sleep(LEASE_S + 15)
        assert kinds([await here.ask(max_wait=190)]) == ["NoCapacity"]
        return await waits

    assert kinds(run_virtual(work())) == ["ok"] * 3
    assert len(here.provider.seen) == 4


class Ahead(LoopClock):
    """A clock that is four years ahead."""

    def now(self) -> float:
        return super().now() + 4 * 365 * 86_400


def test_what_was_written_by_a_clock_years_ahead_holds_nobody_up_for_years(town: Any) -> None:
    here = town(CHAIN | {"models": CHAIN["models"] | {"n": group("c", max_parallel=1)}}, Provider(a=LIMITED))

    async def work() -> None:
        await here.ask(client=here.client(clock=Ahead()))
        dies = here.client(clock=Ahead()).call("hi", model="n")
        await dies._place.next(dies.call)
        assert kinds([await here.ask("n")]) == ["ok"]
        await here.ask()
        await asyncio.sleep(41)
        await here.ask(retries=0)

    run_virtual(work())
    assert [model for _, model, _ in here.provider.seen] == ["a", "b", "c", "b", "a", "b"]


class Breaks:
    """A state whose disk is full: it does the work, and cannot keep it."""

    def __init__(self) -> None:
        self.asked = 0
        self.warnings = ["said by the store"]

    async def update(self, keys: Sequence[str], work: Any, *, wait_s: float = 5.0, to_the_end: bool = False) -> Any:
        del keys, wait_s, to_the_end
        self.asked += 1
        work({})
        raise StateUnusable("disk full")


def test_where_the_state_breaks_a_process_goes_on_with_one_of_its_own_and_looks_again_later(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})
    broken = Breaks()

    async def work() -> None:
        client = here.client(broken)
        results = await asyncio.gather(*(here.ask(client=client, max_wait=0) for _ in range(5)))
        assert kinds(results) == ["NoCapacity"] * 2 + ["ok"] * 3
        asked = broken.asked
        await here.ask(client=client, max_wait=0)
        assert broken.asked == asked  # not waited for again so soon
        await asyncio.sleep(60)
        assert kinds([await here.ask(client=client, max_wait=0)]) == ["ok"]
        assert broken.asked > asked
        (warning,) = client.shared.warnings
        assert warning == "limits and cooldowns are not shared with other processes: disk full"

    run_virtual(work())


class Locked(Breaks):
    """A state that somebody else holds: nothing is done."""

    async def update(self, keys: Sequence[str], work: Any, *, wait_s: float = 5.0, to_the_end: bool = False) -> Any:
        return await super().update(keys, lambda _: None)


def test_who_goes_on_alone_keeps_to_the_windows_it_knew(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=3)}})

    async def work() -> None:
        client, locked = here.client(), Locked()
        assert kinds(await here.crowd(2)) == ["ok"] * 2
        assert kinds([await here.ask(client=client)]) == ["ok"]
        client.shared.state = locked
        assert kinds([await here.ask(client=client, max_wait=0)]) == ["NoCapacity"]
        assert kinds([await here.ask(client=client, max_wait=61)]) == ["ok"]
        assert locked.asked

    run_virtual(work())
    assert densest(here.provider.times()) == 3


class SlowKeys(Endpoints):
    """A key command that takes its time."""

    async def resolve_async(self, deployment: Deployment) -> Endpoint:
        await asyncio.sleep(70)
        return await super().resolve_async(deployment)


def test_a_slot_counts_from_when_the_request_was_really_sent(town: Any) -> None:
    here = town({"models": {"m": group("a", rpm=1)}})

    async def work() -> None:
        slow = here.client()
        slow.engine.endpoints = SlowKeys({"OPENAI_API_KEY": "k1"})
        first = asyncio.create_task(here.ask(client=slow))
        await asyncio.sleep(65)
        assert kinds([await here.ask(max_wait=20)]) == ["NoCapacity"]  # renewed, though nothing was sent yet
        assert kinds([await first]) == ["ok"]
        assert kinds([await here.ask(max_wait=50)]) == ["NoCapacity"]
        assert kinds([await here.ask(max_wait=61)]) == ["ok"]

    run_virtual(work())
    assert densest(here.provider.times()) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_caller_sees_an_error_while_one_of_three_is_dead(town: Any, strategy: str) -> None:
    here = town({"models": {"m": group("a", "b", "c")}}, Provider(b=Reply.refusal(500)))
    state = MemoryState()

    async def work() -> list[Any]:
        client = here.client(state)
        return [await here.ask(client=client, strategy=strategy) for _ in range(100)]

    assert kinds(run_virtual(work())) == ["ok"] * 100
    assert len(here.provider.times("b")) <= 6  # three eject it, and each probe that fails doubles its rest


def test_the_state_serves_threads_loops_and_forks(tmp_path: Path) -> None:
    config = {"models": {"m": group("a", rpm=6)}}
    provider = ScriptedTransport(Reply.stream("x"))
    kind: list[str] = []
    with Client(
        config,
        environ={"OPENAI_API_KEY": "k", "LLMCTL_HOME": str(tmp_path)},
        transport=provider,
        ledger=MemoryLedger(),
        state=SqliteState(tmp_path / "state.db"),
    ) as client:

        def ask() -> None:
            try:
                kind.append(client.complete("hi", model="m", max_wait=0).text)
            except LlmctlError as error:
                kind.append(error.kind)

        async def inside() -> None:
            ask()
            kind.append((await client.acomplete("hi", model="m", max_wait=0)).text)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(inside())
        assert kind == ["x"] * 5
        ask()
        ask()
        assert kind[5:] == ["x", "NoCapacity"]


@pytest.mark.parametrize("body", ['{"uses":5,"open":[],"turn":null,"retries":{}}', '{"at":"1"}', '{"uses":[[1e999]]}'])
def test_a_state_file_whose_documents_have_another_shape_counts_as_empty(tmp_path: Path, body: str) -> None:
    config = {"models": {"m": group("a", rpm=6)}}
    environ = {"OPENAI_API_KEY": "k", "LLMCTL_HOME": str(tmp_path)}
    with Client(config, environ=environ, transport=ScriptedTransport(Reply.stream("x"))) as client:
        for _ in range(2):
            assert client.complete("hi", model="m").text == "x"
            with closing(sqlite3.connect(client.places.state)) as connection:
                assert connection.execute("UPDATE state SET body = ?", (body,)).rowcount == 3
                connection.commit()
        assert client.shared.warnings == []
