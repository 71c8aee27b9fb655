"""Embedding: batches as calls, in order, none by halves, and refused beforehand where it cannot work."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import llmctl
from llmctl import Client
from llmctl.core.errors import BadResponse, BudgetExceeded, InvalidRequest, LlmctlError, UsageError
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport, VirtualClock, run_virtual

PRICE = {"input": 0.02, "output": 0.0}
CONFIG: dict[str, Any] = {
    "models": {
        "m": {"model": "openai/text-embedding-3-small", "price": PRICE, "fallbacks": ["openai/other"]},
        "embed": {"model": "openai/text-embedding-3-large"},
        "two": {"deployments": [{"model": "openai/a"}, {"model": "openai/b"}]},
        "same": {"deployments": [{"model": "openai/a"}, {"model": "openai/my-a", "base_model": "a"}]},
        "half": {"deployments": [{"model": "openai/a"}, {"model": "anthropic/a"}]},
        "small": {"model": "tiny/x"},
        "uncut": {"model": "uncut/x"},
    },
    "providers": {
        "tiny": {"api_base": "http://127.0.0.1:1", "dialect": {"embed_batch": 2, "embed_tokens": 50}},
        "uncut": {"api_base": "http://127.0.0.1:1", "dialect": {"drop": ["dimensions"]}},
        "without": {"api_base": "http://127.0.0.1:1", "dialect": {"embeddings": False}},
        "messages": {"protocol": "anthropic", "api_base": "http://127.0.0.1:1"},
    },
}
ENVIRON = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}


def doubled(*replies: Reply | LlmctlError, **config: Any) -> Client:
    """A client on doubles and virtual time."""
    transport = ScriptedTransport(*(replies or (Reply.vectors([1.0, 2.0]),)))
    return Client(
        {**CONFIG, **config}, environ=ENVIRON, transport=transport, clock=VirtualClock(), ledger=MemoryLedger()
    )


def embedded(client: Client, texts: Any, **options: Any) -> llmctl.Embeddings:
    return run_virtual(client.aembed(texts, **{"model": "m", **options}))


def bodies(client: Client) -> list[Any]:
    assert isinstance(client._double, ScriptedTransport)
    return client._double.bodies()


def rows(client: Client) -> list[Any]:
    assert isinstance(client.ledger, MemoryLedger)
    return list(client.ledger.rows.values())


def test_a_batch_is_a_call_with_its_row_and_all_is_summed_up():
    client = doubled(Reply.vectors([1.0, 0.5], [2.0, 0.1]), Reply.vectors([3.0, 0.0], tokens=3))
    got = embedded(client, ["a", "b", "c"], batch=2, parallel=1, tags={"team": "web"})
    assert [list(vector) for vector in got.vectors] == [[1.0, 0.5], [2.0, pytest.approx(0.1)], [3.0, 0.0]]
    assert (got.model, got.served_by, got.reported_model) == ("m", "openai/text-embedding-3-small", "scripted")
    assert (got.dimensions, got.usage.input_tokens, got.usage.output_tokens, got.usage.estimated) == (2, 10, 0, False)
    assert got.cost_usd == pytest.approx(10 * 0.02e-6)
    assert got.calls == tuple(row.id for row in rows(client))
    assert [body["input"] for body in bodies(client)] == [["a", "b"], ["c"]]
    first = rows(client)[0]
    assert (first.state, first.exit_code, first.command, first.model, dict(first.tags)) == (
        "ok", 0, "library", "m", {"team": "web"},
    )  # fmt: skip
    assert (first.input_tokens, first.output_tokens, first.first_token_ms) == (7, 0, None)


def test_no_text_is_no_call_and_an_empty_result():
    client = doubled()
    assert embedded(client, []) == llmctl.Embeddings((), "m")
    assert (bodies(client), rows(client)) == ([], [])


def test_missing_usage_is_estimated_and_an_unknown_price_makes_the_sum_unknown():
    got = embedded(doubled(Reply.vectors([1.0], tokens=None)), ["a text of some words"], model="openai/x")
    assert (got.usage.estimated, got.usage.input_tokens > 0, got.cost_usd) == (True, True, None)


def test_vectors_come_in_the_order_of_the_texts_whichever_batch_is_first():
    replies = [Reply.vectors([float(n)], delay_s=10.0 - n) for n in range(6)]
    client = doubled(*replies)
    got = embedded(client, list("abcdef"), batch=1, parallel=3)
    assert [vector[0] for vector in got.vectors] == [0, 1, 2, 3, 4, 5]


def test_no_more_than_parallel_requests_are_open_at_once():
    class Counting(ScriptedTransport):
        most = 0

        def send(self, *args: Any, **more: Any) -> Any:
            self.most = max(self.most, self.open + 1)
            return super().send(*args, **more)

    transport = Counting(Reply.vectors([1.0], gap_s=1.0))
    client = Client(CONFIG, environ=ENVIRON, transport=transport, clock=VirtualClock(), ledger=MemoryLedger())
    assert len(embedded(client, list("abcdefgh"), batch=1, parallel=3).vectors) == 8
    assert transport.most == 3


def test_texts_of_an_iterator_are_read_as_they_are_needed():
    read = []

    def texts():
        for n in range(1000):
            read.append(n)
            yield str(n)

    async def some():
        client = Client(
            CONFIG, environ=ENVIRON, transport=ScriptedTransport(Reply.vectors([1.0])), ledger=MemoryLedger()
        )
        vectors = client.embedding(texts(), model="m", batch=1, parallel=2).vectors()
        got = [await anext(vectors) for _ in range(3)]
        await vectors.aclose()
        return got

    assert len(asyncio.run(some())) == 3
    assert len(read) < 10


def test_the_first_failure_cancels_the_rest_and_nothing_comes_by_halves():
    slow, refused = Reply.vectors([1.0], delay_s=50), replace(Reply.refusal(400, "no"), delay_s=5)
    client = doubled(slow, refused, slow)
    with pytest.raises(InvalidRequest, match="no"):
        embedded(client, ["a", "b", "c"], batch=1)
    assert sorted((row.state, row.exit_code) for row in rows(client)) == [
        ("cancelled", 5), ("cancelled", 5), ("failed", 5),
    ]  # fmt: skip
    assert client._double.open == 0  # type: ignore[union-attr]


def test_what_a_caller_cancels_is_cancelled_in_every_row():
    async def cancelled(client: Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await client.aembed(["a", "b"], model="m", batch=1)

    client = doubled(Reply.vectors([1.0], delay_s=50))
    run_virtual(cancelled(client))
    assert [(row.state, row.exit_code) for row in rows(client)] == [("cancelled", 130)] * 2


def test_a_batch_is_retried_like_any_call_and_never_falls_back():
    client = doubled(Reply.refusal(503), Reply.vectors([1.0]), Reply.refusal(503))
    assert len(embedded(client, ["a"]).vectors) == 1
    assert rows(client)[0].attempt_count == 2
    with pytest.raises(LlmctlError) as caught:
        embedded(client, ["a"])
    assert {attempt.model for attempt in caught.value.attempts} == {"text-embedding-3-small"}
    assert caught.value.kind == "Unavailable"


def test_only_the_total_clock_runs():
    timeout = {"first_token": "1s", "idle": "1s", "total": "100s"}
    client = doubled(Reply.vectors([1.0], delay_s=50, gap_s=30), timeout=timeout)
    assert len(embedded(client, ["a"]).vectors) == 1
    with pytest.raises(LlmctlError) as caught:
        embedded(client, ["a"], timeout=60)
    assert (caught.value.kind, caught.value.exit_code) == ("DeadlineExceeded", 7)


@pytest.mark.parametrize("log", [True, False])
def test_the_ledger_keeps_how_the_texts_begin_and_no_more(log):
    client = doubled(Reply.vectors([1.0], [1.0]))
    embedded(client, ["first " * 1000, "second"], log=log)
    assert isinstance(client.ledger, MemoryLedger)
    ((prompt, answer),) = client.ledger.texts.values()
    if log:
        assert prompt is not None
        assert prompt.startswith("2 to embed: first first")
        assert len(prompt) < 250
    else:
        assert prompt is None
    assert not answer


@pytest.mark.parametrize(("given", "sent"), [(None, [2, 2, 1]), (3, [2, 2, 1]), (1, [1] * 5)])
def test_a_providers_own_limit_bounds_the_batch(given, sent):
    client = doubled(*(Reply.vectors(*[[1.0]] * n) for n in sent))
    embedded(client, list("abcde"), model="small", batch=given, parallel=1)
    assert [len(body["input"]) for body in bodies(client)] == sent


def test_a_providers_own_limit_of_tokens_bounds_it_too():
    client = doubled(Reply.vectors([1.0]))
    embedded(client, ["word " * 40, "word " * 40], model="small", parallel=1)
    assert [len(body["input"]) for body in bodies(client)] == [1, 1]


def test_the_group_embed_is_the_default_and_dimensions_and_extra_are_sent():
    client = doubled()
    got = embedded(client, ["a"], model=None, dimensions=2, extra={"input_type": "query"})
    assert got.model == "embed"
    (body,) = bodies(client)
    assert (body["model"], body["dimensions"], body["input_type"]) == ("text-embedding-3-large", 2, "query")
    del client.catalog.groups["embed"]  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no model was named") as caught:
        client.embed(["a"])
    assert "text-embedding-3-small" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "options", "what"),
    [
        ("anthropic/claude-x", {}, "Anthropic has no embeddings"),
        ("messages/x", {}, "has no embeddings"),
        ("local/smollm2-135m", {}, "has no embeddings"),
        ("without/x", {}, "without has no embeddings"),
        ("half", {}, "has no embeddings"),
        ("two", {}, "of several models: a, b"),
        ("uncut", {"dimensions": 5}, "cannot be cut to 5"),
        ("nowhere/x", {}, "unknown model"),
        ("m", {"dimensions": 0}, "dimensions: 0"),
        ("m", {"batch": True}, "batch: True"),
        ("m", {"parallel": 1.5}, "parallel: 1.5"),
        ("m", {"tags": {"a": 1}}, "tags are texts"),
        ("m", {"timeout": -1}, "timeout"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(model, options, what):
    client = doubled()
    with pytest.raises(UsageError, match=what) as caught:
        client.embed(["a"], model=model, **options)
    assert caught.value.hint
    assert (bodies(client), rows(client)) == ([], [])
    client.close()


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        ("abc", "a list, not str"),
        (7, "a list, not int"),
        (["a", ""], r"texts\[1\] is empty"),
        ([b"a"], r"texts\[0\] is"),
    ],
)
def test_texts_are_checked_before_anything_is_sent(texts, what):
    client = doubled()
    with pytest.raises(UsageError, match=what):
        embedded(client, texts, batch=1)
    assert bodies(client) == []


def test_deployments_of_one_base_model_stand_in_for_each_other():
    client = doubled(Reply.refusal(404), Reply.vectors([1.0]))
    got = embedded(client, ["a"], model="same")
    assert got.served_by in ("openai/a", "openai/my-a")


def test_a_budget_that_refuses_is_not_spent():
    client = doubled(budget={"daily": 1.0})
    with pytest.raises(BudgetExceeded, match="nobody knows its price"):
        embedded(client, ["a"], model="same")
    with pytest.raises(BudgetExceeded, match=r"may cost \$0\.000001.*more than the \$0\.000001"):
        embedded(client, ["a"], max_cost=1e-6)
    assert bodies(client) == []
    assert [row.state for row in rows(client)] == ["refused"]
    assert embedded(client, ["a"], max_cost=1e-5).vectors
    assert len(bodies(client)) == 1


@pytest.mark.parametrize(
    ("replies", "options"),
    [
        ([Reply.vectors([1.0, 2.0])], {"dimensions": 3}),
        ([Reply.vectors([1.0]), Reply.vectors([1.0, 2.0])], {}),
        ([Reply.vectors([1.0], [2.0])], {}),
        ([Reply.vectors()], {}),
    ],
)
def test_vectors_of_the_wrong_number_or_size_are_no_success(replies, options):
    with pytest.raises(BadResponse):
        embedded(doubled(*replies), ["a", "b"], batch=1, parallel=1, **options)


def test_it_works_the_same_synchronously_and_inside_a_running_loop():
    def client() -> Client:
        return Client(CONFIG, environ=ENVIRON, transport=ScriptedTransport(Reply.vectors([1.0])), ledger=MemoryLedger())

    async def inside():
        with client() as one:
            return one.embed(["a"], model="m").vectors, (await one.aembed(["a"], model="m")).vectors

    with client() as one:
        alone = one.embed(["a"], model="m").vectors
    assert asyncio.run(inside()) == (alone, alone)
