"""Answers from the cache on virtual time: who may be answered from what, what it is booked as, who waits for whom."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.core.caching import Flight, Found
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.run.observe import CallEnded, Recalled, Waiting
from llmctl.run.recall import LEASE_S
from llmctl.testing import EPOCH, MemoryCache, MemoryLedger, Reply, ScriptedTransport, VirtualClock, run_virtual

if TYPE_CHECKING:
    from llmctl.core.record import Answer
    from llmctl.run.observe import Notice

DOWN = Reply.refusal(503)
CONFIG: dict[str, Any] = {
    "models": {
        "solo": {"model": "openai/a", "price": {"input": 1.0, "output": 10.0}},
        "chain": {"model": "openai/a", "fallbacks": ["second"]},
        "second": {"model": "groq/b"},
        "here": {"model": "openai/a", "api_base": "https://here.example/v1"},
        "there": {"model": "openai/a", "api_base": "https://there.example/v1"},
        "warm": {"model": "openai/a", "temperature": 0.7},
        "asked": {"model": "openai/a", "cache": "canonical", "ttl": "1h"},
        "several": {"strategy": "ordered", "deployments": [{"model": "openai/a"}, {"model": "groq/b"}]},
    },
    "providers": {name: {"api_key": "k"} for name in ("openai", "groq")},
    "retry": {"retries": 0},
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


class World:
    """A client on doubles with a cache that several clients may share."""

    def __init__(
        self, *replies: Reply, cache: MemoryCache | None = None, config: dict[str, Any] | None = None,
        environ: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.cache = MemoryCache() if cache is None else cache
        self.transport = ScriptedTransport(*replies)
        self.ledger = MemoryLedger()
        self.notices: list[Notice] = []
        self.client = Client(
            config or CONFIG, environ=environ or {}, transport=self.transport, ledger=self.ledger, cache=self.cache,
            clock=VirtualClock(), rng=random.Random(7), hooks=[self.notices.append],
        )  # fmt: skip

    @property
    def sent(self) -> int:
        return len(self.transport.requests)

    def ask(self, prompt: str | None = "why is the sky blue?", model: str = "solo", **options: Any) -> Answer:
        options = {"command": "ask", **options}
        answer: Answer = run_virtual(self.client.acomplete(prompt, model=model, **options))
        return answer


def reply(*pieces: str, **more: Any) -> Reply:
    return Reply.stream(*pieces, **more)


def test_a_question_asked_again_costs_nothing_and_is_booked_with_what_it_saved() -> None:
    world = World(reply("Hel", "lo"))
    first, again = world.ask(), world.ask()
    assert (first.text, again.text, world.sent) == ("Hello", "Hello", 1)
    assert (first.cache, again.cache, again.cost_usd, again.attempts) == ("miss", "exact", 0.0, ())
    row = world.ledger.rows[again.id]
    assert (row.state, row.cost_nanousd, row.input_tokens, row.output_tokens, row.exit_code) == ("cached", 0, 0, 0, 0)
    assert row.saved_nanousd == first.record.cost_nanousd
    assert row.saved_nanousd > 0
    assert (again.served_by, again.as_json()["saved_usd"]) == (first.served_by, first.cost_usd)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": "here"}, {"model": "there"}),
        ({"extra": {"num_ctx": 1}}, {"extra": {"num_ctx": 2}}),
        ({"system": "Be brief."}, {"system": "Be long."}),
        ({"documents": ["the old text"]}, {"documents": ["the new text"]}),
        ({"max_tokens": 5}, {"max_tokens": 50}),
        ({"tools": [TOOL]}, {}),
        ({"prompt": "is 1 prime?"}, {"prompt": "is 7 prime?"}),
    ],
)
def test_what_can_change_the_answer_is_never_answered_from_the_others(one: Any, other: Any) -> None:
    world = World(reply("one"), reply("other"))
    assert [world.ask(**one).text, world.ask(**other).text] == ["one", "other"]
    assert [world.ask(**one).text, world.ask(**other).text, world.sent] == ["one", "other", 2]


def test_an_alias_that_points_elsewhere_now_is_asked_again() -> None:
    world = World(reply("of a"))
    world.ask()
    elsewhere = World(reply("of b"), cache=world.cache, config={**CONFIG, "models": {"solo": {"model": "groq/b"}}})
    assert elsewhere.ask().text == "of b"


@pytest.mark.parametrize("name", ["AZURE_API_VERSION", "AZURE_API_BASE"])
def test_an_environment_that_says_otherwise_now_is_asked_again(name: str) -> None:
    models = {"az": {"model": "azure/mine"}}
    config = {"models": models, "providers": {"azure": {"api_key": "k"}}}
    cache, values = MemoryCache(), ("https://one.example", "https://other.example")
    for said in values:
        base = {"AZURE_API_BASE": "https://mine.example", name: said}
        world = World(reply(said), cache=cache, config=config, environ=base)
        assert world.ask(model="az").text == said


def test_an_answer_made_without_a_parameter_is_none_for_a_call_that_insists_on_it() -> None:
    world = World(reply("all alike"), reply("strict"))
    assert world.ask(top_k=3).dropped == ("top_k",)
    with pytest.raises(LlmctlError, match="takes no top_k"):
        world.ask(top_k=3, strict_params=True)
    assert [world.ask(strict_params=True).cache for _ in range(2)] == ["miss", "exact"]


def test_the_order_of_words_that_mean_the_same_changes_nothing() -> None:
    world = World(reply("four"))
    world.ask(None, messages=[{"role": "user", "content": "2+2?"}], temperature=1, seed=3, extra={"a": 1, "b": 2.0})
    again = world.ask(
        None, messages=[{"content": "2+2?", "role": "user"}], seed=3, extra={"b": 2, "a": 1.0}, temperature=1.0
    )
    assert (again.cache, world.sent) == ("exact", 1)


def test_two_names_of_one_deployment_share_an_answer_and_two_deployments_of_a_group_serve_each_other() -> None:
    world = World(reply("by a"))
    world.ask(model="solo")
    assert world.ask(model="openai/a").cache == "exact"
    assert world.ask(model="several").cache == "exact"


def test_an_answer_of_a_fallback_belongs_to_the_fallback() -> None:
    world = World(DOWN, reply("of the second"), DOWN, reply("again"))
    assert world.ask(model="chain").fallback
    assert world.ask(model="chain").cache == "miss"
    assert world.ask(model="second").cache == "exact"


def test_a_chain_whose_first_link_has_no_key_is_answered_from_what_the_first_that_has_one_gave() -> None:
    config = {**CONFIG, "models": {**CONFIG["models"], "chain": {"model": "mistral/c", "fallbacks": ["second"]}}}
    world = World(reply("of the second"), config=config)
    assert [world.ask(model="chain").cache for _ in range(2)] == ["miss", "exact"]


@pytest.mark.parametrize(
    "made",
    [reply("cut", finish="length"), reply("no", finish="content_filter"), reply("", finish="stop")],
    ids=["truncated", "filtered", "empty"],
)
def test_what_is_no_whole_answer_is_not_kept(made: Reply) -> None:
    world = World(made, reply("whole"))
    with suppress(LlmctlError):
        assert world.ask(max_tokens=1).cache == "miss"
    assert world.ask(max_tokens=1).text == "whole"


def test_the_library_caches_only_when_asked_and_a_groups_own_key_asks() -> None:
    world = World(*[reply("x")] * 8)
    assert [world.ask(command="library").cache for _ in range(2)] == ["off", "off"]
    assert [world.ask(command="library", cache="exact").cache for _ in range(2)] == ["miss", "exact"]
    assert [world.ask("who invented tea?", "asked", command="library").cache for _ in range(2)] == ["miss", "exact"]


@pytest.mark.parametrize(
    ("command", "said", "variable", "group", "table", "mode"),
    [
        ("ask", None, None, None, None, "exact"),
        ("ask", None, None, None, "canonical", "canonical"),
        ("ask", None, None, "off", "canonical", "off"),
        ("ask", None, "exact", "off", "canonical", "exact"),
        ("ask", "refresh", "exact", "off", "canonical", "refresh"),
        ("ask", None, "off", "exact", "exact", "off"),
        ("ask", None, "semantic", None, None, "canonical"),
        ("library", None, None, None, "exact", "off"),
        ("library", None, "exact", None, None, "off"),
        ("library", None, None, "exact", "off", "exact"),
        ("library", None, "canonical", "exact", "off", "canonical"),
        ("library", None, "off", "exact", "exact", "off"),
        ("library", "exact", "off", None, "off", "exact"),
    ],
)
def test_the_caller_is_above_the_environment_and_that_above_the_group_and_that_above_the_table(
    command: str, said: str | None, variable: str | None, group: str | None, table: str | None, mode: str
) -> None:
    config = {"models": {"solo": {"model": "openai/a", **({"cache": group} if group else {})}}}
    config |= {"cache": {"mode": table}} if table else {}
    environ = {"OPENAI_API_KEY": "k" * 20} | ({"LLMCTL_CACHE": variable} if variable else {})
    client = Client(config, environ=environ, ledger=MemoryLedger())
    assert client.ask("why?", model="solo", command=command, cache=said).cache.mode == mode


def test_chance_that_was_asked_for_is_not_cached_unless_the_caller_insists() -> None:
    world = World(*[reply("x")] * 10)
    assert [world.ask(temperature=0.9).cache for _ in range(2)] == ["off", "off"]
    assert [world.ask(extra={"temperature": 0.9}).cache for _ in range(2)] == ["off", "off"]
    assert [world.ask(temperature=0.9, seed=1).cache for _ in range(2)] == ["miss", "exact"]
    assert [world.ask(temperature=0.9, cache="exact").cache for _ in range(2)] == ["miss", "exact"]
    assert [world.ask(model="warm").cache for _ in range(2)] == ["miss", "exact"]


def test_a_prompt_about_now_is_not_cached_unless_the_caller_insists() -> None:
    world = World(*[reply("x")] * 8)
    now = "What is the weather in Berlin today?"
    assert [world.ask(now).cache for _ in range(2)] == ["off", "off"]
    assert [world.ask(now, cache="canonical").cache for _ in range(2)] == ["off", "off"]
    assert [world.ask(now, cache="exact").cache for _ in range(2)] == ["miss", "exact"]
    assert world.ask(now).cache == "off"


@pytest.mark.parametrize(
    ("url", "caches"), [("https://cam.example/now.png", "off"), ("data:image/png;base64,AAAA", "exact")]
)
def test_an_image_that_only_its_address_tells_is_not_cached_unless_the_caller_insists(url: str, caches: str) -> None:
    world = World(*[reply("x")] * 3)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is a sea?"}]
    again = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "what is a lake?"},
    ]
    for messages in (again[:1], again):
        assert [world.ask(None, messages=messages).cache for _ in range(2)][1] == caches
    assert world.ask(None, messages=again[:1], cache="exact").cache in ("miss", "exact")
    assert world.ask(None, messages=again[:1], cache="exact").cache == "exact"


def test_another_wording_is_answered_where_canonical_is_asked_for() -> None:
    world = World(reply("Paris"), reply("Paris!"))
    world.ask("What is the capital of France?", cache="canonical")
    alike = "Please, what's the capital of France"
    assert world.ask(alike).cache == "miss"
    assert world.ask("  what is the capital of France? thanks", cache="canonical").cache == "canonical"


def test_a_call_that_keeps_no_text_leaves_none_and_may_still_be_answered() -> None:
    world = World(reply("one"), reply("two"))
    assert [world.ask(log=False).text, world.ask().text, world.ask(log=False).text] == ["one", "two", "two"]

    assert [asked.prompt for asked, _ in world.cache.hits] == [None]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
TEXT = {"type": "text", "text": "What is the capital of France?"}


@pytest.mark.parametrize(
    ("said", "alike"),
    [
        ("What is the capital of France?", True),
        ("What is the weather in Berlin today?", False),
        ([TEXT, IMAGE], False),
        ([{"type": "text", "text": half} for half in ("What is the capital", "of France?")], False),
    ],
)
def test_only_a_lone_text_that_may_be_asked_in_other_words_has_a_canonical_key(said: Any, alike: bool) -> None:
    world = World(reply("x"))
    world.ask(None, messages=[{"role": "user", "content": said}], cache="exact")
    (entry,) = world.cache.entries.values()
    assert (entry.key.canonical is not None) is alike


def test_refresh_asks_and_replaces_and_off_does_neither() -> None:
    world = World(reply("old"), reply("new"), reply("aside"))
    world.ask()
    assert [world.ask(cache="refresh").text, world.ask().text] == ["new", "new"]
    assert [world.ask(cache="off").text, world.ask().text] == ["aside", "new"]


def test_an_answer_is_forgotten_with_its_time_and_one_from_the_future_is_none() -> None:
    world = World(reply("first"), reply("second"), reply("third"))

    async def over(seconds: float) -> list[str]:
        said = [(await world.client.acomplete("why is grass green?", model="asked")).text]
        await asyncio.sleep(seconds)
        return [*said, (await world.client.acomplete("why is grass green?", model="asked")).text]

    assert run_virtual(over(3000)) == ["first", "first"]  # from here on the entry is as old as the clock has gone
    assert run_virtual(over(3601)) == ["first", "second"]
    assert world.ask("why is grass green?", "asked").text == "third"  # a clock that begins again: from the future


def test_a_kept_answer_streams_again_with_its_tools_and_its_document() -> None:
    long = "word " * 200
    world = World(reply(long), reply('{"n": 1}'))
    world.ask()

    async def pieces() -> list[str]:
        stream = world.client.astream("why is the sky blue?", model="solo", command="ask")
        return [event.text async for event in stream if event.text]

    again = run_virtual(pieces())
    assert "".join(again) == long
    assert len(again) > 3
    asked = {"prompt": "count", "schema": {"type": "object"}}
    assert [world.ask(**asked).parsed, world.ask(**asked).parsed, world.sent] == [{"n": 1}, {"n": 1}, 2]


def test_a_hit_is_told_with_its_age() -> None:
    world = World(reply("x"))

    async def later() -> None:
        for _ in range(2):
            await world.client.acomplete("why?", model="solo", cache="exact")
            await asyncio.sleep(60)

    run_virtual(later())
    (told,) = [each for each in world.notices if isinstance(each, Recalled)]
    assert (told.tier, told.served_by, round(told.age_s)) == ("exact", "openai/a", 60)
    assert [each.record.state for each in world.notices if isinstance(each, CallEnded)] == ["ok", "cached"]


def gathered(world: World, n: int, **options: Any) -> list[Any]:
    async def all_at_once() -> list[Any]:
        calls = (world.client.acomplete("why?", model="solo", **{"cache": "exact", **options}) for _ in range(n))
        return await asyncio.gather(*calls, return_exceptions=True)

    return run_virtual(all_at_once())


def test_equal_calls_at_once_ask_once_and_nobody_is_lost() -> None:
    world = World(replace(reply("one for all"), delay_s=3.0))
    answers = gathered(world, 50)
    assert ([each.text for each in answers], world.sent) == (["one for all"] * 50, 1)
    assert sorted(each.cache for each in answers) == ["exact"] * 49 + ["miss"]
    assert any(isinstance(each, Waiting) and each.wait_s == 0 for each in world.notices)
    rows = [each.record for each in answers if each.cache == "exact"]
    assert {round(row.finished_at - row.started_at - row.latency_ms / 1000, 6) for row in rows} == {0.0}
    assert min(row.latency_ms for row in rows) >= 3000


@pytest.mark.parametrize("options", [{"log": False}, {"cache": "refresh"}])
def test_calls_that_can_share_no_answer_wait_for_none(options: dict[str, Any]) -> None:
    world = World(replace(reply("mine"), delay_s=3.0))
    answers = gathered(world, 5, **options)
    assert ([each.cache for each in answers], world.sent) == (["miss"] * 5, 5)
    assert not any(isinstance(each, Waiting) for each in world.notices)


def test_an_answer_that_is_kept_for_another_frees_those_who_wait_all_at_once() -> None:
    world = World(DOWN, replace(reply("of the fallback"), delay_s=5.0))

    async def took() -> float:
        calls = (world.client.acomplete("why?", model="chain", cache="exact") for _ in range(6))
        await asyncio.gather(*calls)
        return asyncio.get_running_loop().time()

    assert run_virtual(took()) < 12
    assert world.sent == 2 + 5, "each asks for itself"


class Busy(MemoryCache):
    """Somebody else is asking, for ever."""

    def claim(self, *_: Any, **__: Any) -> Flight:
        return Flight()


def test_an_equal_call_that_never_ends_leaves_a_call_half_of_its_time() -> None:
    answer = World(reply("x"), cache=Busy()).ask(timeout=30)
    assert answer.text == "x"
    assert 14_000 < answer.waited_ms < 16_000


def test_an_entry_of_a_clock_that_is_a_little_ahead_is_not_older_than_nothing() -> None:
    world = World(reply("x"))

    async def after(seconds: float) -> Answer:
        await asyncio.sleep(seconds)
        return await world.client.acomplete("why?", model="solo", cache="exact")

    run_virtual(after(3))
    answer = run_virtual(after(0))
    assert (answer.cache, answer.cache_age_s) == ("exact", 0.0)


def test_when_the_leader_has_no_answer_the_others_ask_for_themselves_all_at_once() -> None:
    world = World(replace(DOWN, delay_s=1.0), *[replace(reply("mine"), delay_s=10.0)] * 9)
    answers = gathered(world, 10)
    assert sum(isinstance(each, LlmctlError) for each in answers) == 1
    assert [each.text for each in answers if not isinstance(each, LlmctlError)] == ["mine"] * 9
    ended = [each.record.finished_at for each in world.notices if isinstance(each, CallEnded)]
    assert world.sent == 10
    assert max(ended) - EPOCH < 12


def test_a_leader_that_is_stopped_leaves_its_lead_to_one_of_those_who_wait() -> None:
    world = World(replace(reply("never heard"), delay_s=60.0), replace(reply("second"), delay_s=1.0))

    async def stopped() -> list[str]:
        calls = [asyncio.create_task(world.client.acomplete("why?", model="solo", cache="exact")) for _ in range(5)]
        await asyncio.sleep(1)
        leader = next(n for n, call in enumerate(calls) if not call.done() and n == 0)
        calls[leader].cancel()
        return [answer.text for answer in await asyncio.gather(*calls[1:])]

    assert (run_virtual(stopped()), world.sent) == (["second"] * 4, 2)


def test_a_leader_that_died_is_waited_for_no_longer_than_its_lease() -> None:
    cache = MemoryCache()
    world = World(reply("mine"), cache=cache)
    dead = World(replace(reply("never"), delay_s=1e6), cache=cache)

    async def both() -> float:
        lost = dead.client.call("why?", model="solo", cache="exact", timeout=1e7)
        recall = lost._recall
        assert recall is not None
        assert await recall.awaited(lambda: None) is None  # it leads, and nothing more is ever heard of it
        began = asyncio.get_running_loop().time()
        await world.client.acomplete("why?", model="solo", cache="exact")
        return asyncio.get_running_loop().time() - began

    assert LEASE_S - 1 <= run_virtual(both()) <= LEASE_S + 1


class Foreign(MemoryCache):
    """Somebody's cache of which one method has a fault: it raises, or says what no cache may say."""

    def __init__(self, method: str, fault: Any) -> None:
        super().__init__()

        def faulty(*_: Any, **__: Any) -> Any:
            if isinstance(fault, Exception):
                raise fault
            return fault

        setattr(self, method, faulty)


def found_of(**changes: Any) -> Found:
    world = World(reply("of another"))
    world.ask("what is another?")
    (entry,) = world.cache.entries.values()
    return Found(replace(entry, **changes), "exact")


@pytest.mark.parametrize("method", ["find", "claim", "put", "renew", "land"])
@pytest.mark.parametrize(
    "fault",
    [
        ZeroDivisionError("redis://:secret@host"),
        "nonsense",
        found_of(),
        found_of(answer={}),
        found_of()._replace(tier="scope"),
    ],
)
def test_whatever_is_wrong_with_a_cache_of_somebody_else_is_a_miss_said_once(method: str, fault: Any) -> None:
    fault = Flight(found=fault) if method == "claim" and isinstance(fault, Found) else fault
    world = World(*[replace(reply("right"), delay_s=25.0)] * 2, cache=Foreign(method, fault))

    async def twice() -> list[str]:
        options = {"model": "solo", "command": "ask", "log": method != "find"}
        return [(await world.client.acomplete("why is the sky blue?", **options)).text for _ in range(2)]

    assert run_virtual(twice()) == ["right", "right"]
    assert world.sent == (1 if method in ("renew", "land") else 2)
    assert {row.state for row in world.ledger.rows.values()} <= {"ok", "cached"}
    spoken = world.client.warnings()
    assert len(spoken) == (method in ("find", "claim") or isinstance(fault, Exception))
    assert all("the cache is not used" in each and "secret" not in each for each in spoken)


class HeldUp(MemoryCache):
    """Waits in `step` until it is let go, on a thread of its own, as a disk would."""

    blocks = True

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step, self.reached, self.may_pass = step, threading.Event(), threading.Event()

    def _pass(self, step: str) -> None:
        if step == self.step:
            self.reached.set()
            assert self.may_pass.wait(30)

    def claim(self, *words: Any, **more: Any) -> Any:
        self._pass("claim")
        return super().claim(*words, **more)

    def land(self, *words: Any, **more: Any) -> None:
        self._pass("land")
        super().land(*words, **more)


@pytest.mark.parametrize("step", ["claim", "land"])
def test_a_call_that_is_cancelled_twice_at_the_cache_completes_its_row_and_lets_go_of_its_lead(step: str) -> None:
    cache = HeldUp(step)
    world = World(reply("x"), cache=cache)

    async def stopped() -> None:
        call = asyncio.create_task(world.client.acomplete("why?", model="solo", cache="exact"))
        await asyncio.to_thread(cache.reached.wait, 30)
        for _ in range(2):
            call.cancel()
            await asyncio.wait([call], timeout=0.01)
        cache.may_pass.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        await world.client.engine.caching.worker.run(lambda: None)

    asyncio.run(stopped())
    assert [row.state for row in world.ledger.rows.values()] == ["ok" if step == "land" else "cancelled"]
    assert [lease[0] for lease in cache._leases.values()] == [None]


@pytest.mark.parametrize(
    ("bounds", "waited_s"),
    [
        ({"timeout": 10.0}, 5.0),
        ({"max_wait": 3.0}, 3.0),
        ({"max_wait": 0.0}, 0.0),
        ({"max_wait": 60.0}, 24.0),
        ({"timeout": 100.0}, 24.0),
    ],
)
def test_an_equal_call_is_waited_for_only_as_long_as_its_own_can_still_be_made(bounds: Any, waited_s: float) -> None:
    world = World(replace(reply("theirs"), delay_s=25.0), replace(reply("mine"), delay_s=2.0))

    async def both() -> tuple[str, float]:
        theirs = asyncio.create_task(world.client.acomplete("why?", model="solo", cache="exact"))
        await asyncio.sleep(1)
        mine = await world.client.acomplete("why?", model="solo", cache="exact", **bounds)
        assert (await theirs).text == "theirs"
        return mine.text, (mine.record.latency_ms or 0.0) / 1000

    text, took_s = run_virtual(both())
    own_s = 0.0 if waited_s == 24.0 else 2.0
    assert text == ("mine" if own_s else "theirs")
    assert waited_s + own_s <= took_s <= waited_s + own_s + 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": "semantic"}, "not set up"),
        ({"cache": "fuzzy"}, "unknown cache mode"),
        ({"documents": "one text"}, "documents is a list"),
        ({"documents": [b"x"]}, "documents is a list"),
    ],
)
def test_what_no_cache_can_do_is_refused_before_anything_is_sent(options: Any, words: str) -> None:
    world = World()
    with pytest.raises(UsageError, match=words):
        world.ask(**options)


def test_a_client_with_a_ledger_of_its_own_writes_no_file(tmp_path: Any) -> None:
    client = Client(CONFIG, environ={"LLMCTL_HOME": str(tmp_path)}, ledger=MemoryLedger())
    assert client.cache is None
    assert not list(tmp_path.iterdir())
