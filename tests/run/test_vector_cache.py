"""Vectors from the cache: an unchanged corpus asks for nothing, and whatever could be another vector is asked for."""

from __future__ import annotations

import asyncio
import json
import threading
from array import array
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmctl
from llmctl import Client
from llmctl.core.caching import Vector
from llmctl.core.errors import BadResponse, InvalidRequest, MissingCredential, UsageError
from llmctl.run.embedding import AHEAD
from llmctl.run.vector_cache import Kept, Tally, readable, shares
from llmctl.testing import MemoryCache, MemoryLedger, Reply, ScriptedTransport

PRICE = {"input": 20.0, "output": 0.0}
HERE, THERE = {"api_base": "http://127.0.0.1:1"}, {"api_base": "http://127.0.0.1:2"}
CONFIG: dict[str, Any] = {
    "models": {
        "m": {"model": "openai/e", "price": PRICE, **HERE},
        "elsewhere": {"model": "openai/e", "price": PRICE, **THERE},
        "other": {"model": "openai/f", **HERE},
        "both": {"deployments": [{"model": "openai/e", **THERE}, {"model": "openai/e", **HERE}]},
        "warm": {"model": "openai/e", **HERE, "temperature": 0.5},
        "cached": {"model": "openai/e", "cache": "exact", **HERE},
        "semantic": {"model": "openai/e", "cache": "semantic", **HERE},
        "corp": {"model": "corp/e", **HERE},
        "headed": {"model": "headed/e", **HERE},
    },
    "providers": {
        "corp": {"protocol": "openai", "api_base": "http://127.0.0.1:1"},
        "headed": {"protocol": "openai", "api_base": "http://127.0.0.1:1", "dialect": {"headers": {"x-route": "a"}}},
    },
}


def vector(text: str, size: int = 3) -> list[float]:
    """The vector that the provider has for `text`."""
    return [byte / 256 for byte in sha256(text.encode()).digest()[:size]]


class Provider(ScriptedTransport):
    """Has a vector of `size` for every text, a token each; the requests in `refuses` are refused."""

    size = 3
    refuses: tuple[int, ...] = ()
    delay_s = 0.0

    @asynccontextmanager
    async def send(self, request, deployment, *, connect_s):
        texts = json.loads(request.body)["input"]
        reply = Reply.vectors(*(vector(text, self.size) for text in texts), tokens=len(texts), delay_s=self.delay_s)
        if len(self.requests) in self.refuses:
            reply = Reply.refusal(400)
        self.requests.append(request)
        async with ScriptedTransport(reply).send(request, deployment, connect_s=connect_s) as response:
            yield response

    @property
    def asked(self) -> list[int]:
        """How many texts each request had."""
        return [len(body["input"]) for body in self.bodies()]


class World:
    """Clients that share a cache, each with a provider and a ledger of its own."""

    def __init__(self, cache: MemoryCache | None = None) -> None:
        self.cache = cache or MemoryCache()
        self.provider = Provider()
        self.ledger = MemoryLedger()
        self.environ = {"OPENAI_API_KEY": "k"}

    def client(self, **config: Any) -> Client:
        self.provider, self.ledger = Provider(), MemoryLedger()
        return Client(
            CONFIG | config, environ=self.environ, transport=self.provider, ledger=self.ledger, cache=self.cache
        )

    def embed(self, texts: Any, config: dict[str, Any] | None = None, **options: Any) -> llmctl.Embeddings:
        with self.client(**(config or {})) as client:
            return client.embed(texts, **{"model": "m", "cache": "exact", "parallel": 1, **options})

    @property
    def rows(self) -> list[Any]:
        return list(self.ledger.rows.values())


@pytest.fixture
def world() -> World:
    return World()


TEXTS = [f"text {n}" for n in range(10)]


def test_an_unchanged_corpus_asks_for_nothing_and_books_one_row(world):
    first = world.embed(TEXTS, batch=4)
    assert (world.provider.asked, first.cached, first.saved_usd) == ([4, 4, 2], 0, 0.0)
    assert first.cost_usd == pytest.approx(200e-6)
    again = world.embed(TEXTS, batch=4, tags={"team": "web"}, command="embed")
    assert (again.vectors, world.provider.asked) == (first.vectors, [])
    assert (again.cached, again.cost_usd, again.saved_usd) == (10, 0.0, first.cost_usd)
    assert (again.served_by, again.usage) == ("openai/e", llmctl.Embeddings((), "m").usage)
    (row,) = world.rows
    assert again.calls == (row.id,)
    assert (row.state, row.cache, row.command, row.served_by, row.deployment) == (
        "cached", "exact", "embed", "openai/e", "m-1",
    )  # fmt: skip
    assert (row.cost_nanousd, row.saved_nanousd, row.exit_code, dict(row.tags)) == (0, 200_000, 0, {"team": "web"})
    assert world.ledger.texts[row.id][0].startswith("10 from the cache: text 0 | text 1")


def test_what_is_new_is_asked_in_full_batches_and_all_comes_in_order(world):
    world.embed([str(n) for n in range(0, 1000, 2)])
    got = world.embed([str(n) for n in range(1000)], batch=100, parallel=3)
    assert world.provider.asked == [100] * 5
    assert [list(each) for each in got.vectors] == [vector(str(n)) for n in range(1000)]
    assert (got.cached, len(world.rows)) == (500, 6)


@pytest.mark.parametrize(
    ("mode", "batch", "asked"), [("exact", 2, [2, 1]), ("refresh", 7, [3]), ("off", 2, [2, 2, 2, 1])]
)
def test_equal_texts_are_asked_once(world, mode, batch, asked):
    got = world.embed(["a", "b", "a", "a", "b", "c", "c"], cache=mode, batch=batch)
    assert world.provider.asked == asked
    assert [list(each) for each in got.vectors] == [vector(text) for text in "abaabcc"]


@pytest.mark.parametrize(
    "options",
    [
        {"model": "elsewhere"}, {"model": "other"}, {"model": "corp"}, {"model": "headed"}, {"model": "warm"},
        {"dimensions": 3}, {"extra": {"input_type": "query"}}, {"config": {"cache": {"namespace": "b"}}},
        {"cache": "refresh"}, {"cache": "off"}, {"cache": None},
    ],
)  # fmt: skip
def test_whatever_could_be_another_vector_is_asked_for(world, options):
    world.embed(["a"])
    assert world.embed(["a"], **options).cached == 0
    assert world.provider.asked == [1]


@pytest.mark.parametrize(
    "options", [{"model": "both"}, {"model": "cached", "cache": None}, {"model": "semantic", "cache": None}]
)
def test_a_vector_of_any_of_the_groups_own_deployments_serves(world, options):
    world.embed(["a"])
    assert world.embed(["a"], **options).cached == 1
    assert world.provider.asked == []


@pytest.mark.parametrize(
    ("command", "config", "cached"),
    [
        ("library", {}, 0),
        ("library", {"cache": {"mode": "exact"}}, 0),
        ("embed", {}, 1),
        ("embed", {"cache": {"mode": "off"}}, 0),
    ],
)
def test_the_command_caches_by_itself_and_the_library_when_asked(world, command, config, cached):
    world.embed(["a"])
    assert world.embed(["a"], config, cache=None, command=command).cached == cached


@pytest.mark.parametrize(("config", "log"), [({}, False), ({"log": {"content": "none"}}, True)])
def test_where_no_text_is_kept_nothing_is_written_and_what_is_there_is_read(world, config, log):
    world.embed(["a"])
    assert world.embed(["a", "b"], config, log=log).cached == 1
    assert not any(prompt or answer for prompt, answer in world.ledger.texts.values())
    assert world.embed(["b"]).cached == 0


def test_refresh_replaces_what_is_kept(world):
    world.embed(["a"])
    Provider.size = 2
    try:
        with pytest.raises(BadResponse, match="2 numbers, not 3") as caught:
            world.embed(["a", "b"])
        assert "--cache refresh" in caught.value.hint
        world.embed(["a"], cache="refresh")
    finally:
        Provider.size = 3
    assert world.embed(["a"]).dimensions == 2


@pytest.mark.parametrize("name", ["maybe", "semantic"])
def test_a_mode_that_is_none_is_refused(world, name):
    with pytest.raises(UsageError, match="cache"):
        world.embed(["a"], cache=name)


class Damaged(MemoryCache):
    """Gives the first vector it finds as `bad`."""

    bad = b""

    def vectors(self, keys, now):
        found = super().vectors(keys, now)
        for key in list(found)[:1]:
            found[key] = Vector(self.bad, 1)
        return found


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"abcde", array("f", [1.0, 2.0]).tobytes(), array("f", [1.0, float("nan"), 3.0]).tobytes(),
        array("f", [float("inf"), float("-inf"), 1.0]).tobytes(),
    ],
)  # fmt: skip
def test_a_kept_vector_that_is_damaged_or_of_another_size_than_its_siblings_is_a_miss(bad):
    world = World(Damaged())
    world.embed(TEXTS)
    world.cache.bad = bad
    got = world.embed(TEXTS)
    assert (got.cached, world.provider.asked) == (9, [1])
    assert [list(each) for each in got.vectors] == [vector(text) for text in TEXTS]


def test_kept_bytes_are_a_vector_or_none():
    most = array("f", [3.4028235e38] * 4096)
    assert readable(most.tobytes()) == most
    assert readable(b"\0" * 8) == array("f", [0.0, 0.0])


def test_without_a_key_what_is_kept_still_comes_and_what_is_not_is_the_error(world):
    world.embed(["a", "b"])
    world.environ = {"LLMCTL_OFFLINE": "1"}
    assert world.embed(["b", "a"]).cached == 2
    with pytest.raises(MissingCredential, match="no key"):
        world.embed(["a", "new"])
    assert world.provider.asked == []
    assert [row.state for row in world.rows] in ([], ["cached"])
    for mode in ("off", "refresh"):
        with pytest.raises(MissingCredential):
            world.client().embedding(["a"], model="m", cache=mode)


def test_what_was_paid_for_before_a_failure_is_kept(world):
    with world.client() as client:
        world.provider.refuses = (2,)
        with pytest.raises(InvalidRequest):
            client.embed(TEXTS, model="m", cache="exact", batch=2, parallel=1)
    assert world.embed(TEXTS).cached == 4
    assert world.provider.asked == [6]


def test_a_long_run_remembers_the_beginning_of_what_it_had():
    tally = Tally()
    for n in range(100):
        tally.add(str(n), Kept(array("f"), 1, None))
    assert (tally.count, tally.saved_nanousd, len(tally.beginning)) == (100, 100, 20)


def test_a_deployment_without_an_address_keeps_no_other_from_the_cache(world):
    config = {**CONFIG, "models": {"m": {"deployments": [{"model": "openai/e", **HERE}, {"model": "azure/e"}]}}}
    world.embed(["a"], config=config)
    assert world.provider.asked == [1]
    world.embed(["a"], config=config)
    assert world.provider.asked == []


def test_far_behind_a_text_that_is_asked_no_more_is_read(world):
    corpus = [str(n) for n in range(AHEAD + 2000)]
    world.embed(corpus[1:])
    read = 0

    def texts():
        nonlocal read
        for read, text in enumerate(corpus, 1):  # noqa: B007 - how far it came
            yield text

    async def until_the_first() -> int:
        run = world.client().embedding(texts(), model="m", cache="exact")
        world.provider.delay_s = 0.2  # in which all could be read
        async for _ in run.vectors():
            return read
        raise AssertionError

    assert asyncio.run(until_the_first()) < AHEAD + 1000


def test_a_batch_that_is_not_full_does_not_wait_for_a_text_that_does_not_come(world):
    world.embed(["a"])
    come = threading.Event()

    def texts():
        yield from "ab"
        assert come.wait(30)
        yield "c"

    async def all_of_them() -> list[int]:
        sizes = []
        async for vectors in world.client().embedding(texts(), model="m", cache="exact", batch=2).vectors():
            sizes.append(len(vectors))
            if sum(sizes) == 2:
                come.set()
        return sizes

    assert sum(asyncio.run(all_of_them())) == 3
    assert world.provider.asked == [1, 1]


def test_a_vector_costs_its_share_of_the_batch_by_its_tokens(world):
    world.embed(["word " * 30, "a"])
    world.embed(["word " * 30])
    (long,) = world.rows
    world.embed(["a"])
    (short,) = world.rows
    assert long.saved_nanousd + short.saved_nanousd == 40_000
    assert long.saved_nanousd > 10 * short.saved_nanousd


@given(total=st.integers(0, 10**12), weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_shares_add_up_and_follow_the_weights(total, weights):
    parts = shares(total, weights)
    assert sum(parts) == total  # type: ignore[arg-type]
    exact = [total * weight / max(1, sum(weights)) for weight in weights]
    assert all(abs(part - share) <= 1 + share * 1e-9 for part, share in zip(parts[:-1], exact, strict=False))  # type: ignore[operator]
    assert shares(None, weights) == [None] * len(weights)


def test_a_price_that_nobody_knows_saves_nothing_that_is_known(world):
    world.embed(["a"], model="other")
    got = world.embed(["a"], model="other")
    assert (got.cached, got.saved_usd, got.cost_usd) == (1, 0.0, 0.0)


@pytest.mark.parametrize("method", ["vectors", "put_vectors"])
@pytest.mark.parametrize("fault", [ZeroDivisionError("redis://:secret@host"), "nonsense"])
def test_a_cache_of_somebody_else_that_fails_is_a_miss_said_once(world, method, fault):
    def faulty(*_):
        if isinstance(fault, Exception):
            raise fault
        return fault

    setattr(world.cache, method, faulty)
    with world.client() as client:
        got = [client.embed(TEXTS, model="m", cache="exact", batch=4) for _ in range(2)]
        assert [list(each) for each in got[1].vectors] == [vector(text) for text in TEXTS]
        assert got[1].cached == 0
        assert len(client.warnings()) == (method == "vectors" or isinstance(fault, Exception))
