"""What an attempt may cost at most, and whole calls under a budget: what is asked, refused, booked and given back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl import Client
from llmctl.core.budget import Allowance, Budgets
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import BudgetExceeded, LlmctlError, MissingCredential, UsageError
from llmctl.core.money import NANO, Price
from llmctl.core.types import Document, Image, Message, Params, Request, ResponseFormat, Text, Tool, Usage
from llmctl.run.accounts import estimate_prompt
from llmctl.run.purse import MOST_OUTPUT, MOST_REASONED, most_input, most_output, worst_case
from llmctl.store import spend
from llmctl.store.ledger import SqliteLedger
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport, sse

if TYPE_CHECKING:
    from pathlib import Path

WHO = Deployment("d", Provider("openai"), "m", price=Price.per_million(1.0, 10.0))
HI = Request((Message("user", (Text("hi"),)),))


def asked(text: str = "hi", **params: Any) -> Request:
    return replace(HI, messages=(Message("user", (Text(text),)),), params=Params(**params))


# ---------------------------------------------------------------- the bound

PRICES = st.integers(0, 10**13)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    def one(tiers: tuple[tuple[int, Price], ...] = ()) -> Price:
        some = st.none() | PRICES
        rest = [draw(some) for _ in range(3)]
        return Price(draw(PRICES), draw(PRICES), *rest, request=draw(st.integers(0, 10**9)), tiers=tiers)

    starts = sorted(draw(st.sets(st.integers(0, 500), max_size=2)))
    # A request costs its fee in every tier: `Price.cost_nanousd` takes that of the first.
    return one(tuple((start, one()) for start in starts))


@given(price=prices(), shares=st.tuples(*[st.floats(0, 1)] * 5), cap=st.integers(1, 900))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    price: Price, shares: tuple[float, ...], cap: int
) -> None:
    deployment, request = replace(WHO, price=price), asked("hello " * 60, max_tokens=cap)
    tokens = estimate_prompt(request)
    most, made = most_input(request, deployment, tokens), most_output(request, deployment)
    given_, cached, written, spoken, reasoned = shares
    usage = Usage(
        int(given_ * most),
        int(spoken * made),
        int(cached * int(given_ * most) / 2),
        int(written * int(given_ * most) / 2),
        int(reasoned * int(spoken * made)),
    )
    worst = worst_case(request, deployment, tokens)
    assert worst is not None
    assert price.cost_nanousd(usage) <= worst


NANO_A_TOKEN = 10**15
GIVEN, MADE = 2 + 64 + 8, 7
"""The bounds of "hi" with a cap of 7."""


@pytest.mark.parametrize(
    ("price", "worst"),
    [
        (Price(NANO_A_TOKEN, 0), GIVEN),
        (Price(NANO_A_TOKEN, 0, cached_input=2 * NANO_A_TOKEN), 2 * GIVEN),
        (Price(NANO_A_TOKEN, 0, cache_write=3 * NANO_A_TOKEN), 3 * GIVEN),
        (Price(0, NANO_A_TOKEN), MADE),
        (Price(0, NANO_A_TOKEN, reasoning=2 * NANO_A_TOKEN), 2 * MADE),
        (Price(1, 0), 1),
        (Price(0, 0, tiers=((GIVEN - 1, Price(NANO_A_TOKEN, 0)),)), GIVEN),
        (Price(0, 0, tiers=((GIVEN, Price(NANO_A_TOKEN, 0)),)), 0),
    ],
)
def test_the_worst_case_is_the_dearest_way_to_bill_the_bounds_rounded_up(price: Price, worst: int) -> None:
    assert worst_case(asked(max_tokens=MADE), replace(WHO, price=price), 1) == worst


@given(st.text(max_size=300))
def test_the_input_of_a_text_is_bound_by_its_bytes_and_by_three_times_its_estimate(text: str) -> None:
    request = asked(text)
    estimate = estimate_prompt(request)
    bound = most_input(request, WHO, estimate)
    size = len(text.encode("utf-8", "replace"))
    assert min(size, 3 * estimate) <= bound <= min(size, 3 * estimate + 64) + 100
    assert bound >= estimate or size < estimate
    assert most_input(asked("a" * 1000), WHO, 10) == 3 * 10 + 64 + 64 + 8
    assert most_input(HI, replace(WHO, context_window=5), 50) == 50, "a window that is set too small is none"


@pytest.mark.parametrize(
    ("changes", "who", "tokens"),
    [
        ({"max_tokens": 7}, {}, 7),
        ({}, {"max_output": 99}, 99),
        ({"max_tokens": 7}, {"max_output": 99}, 7),
        ({}, {}, MOST_OUTPUT),
        ({}, {"reasoning": True}, MOST_REASONED),
        ({"reasoning_effort": "high"}, {}, MOST_REASONED),
        ({"reasoning_effort": "none"}, {}, MOST_OUTPUT),
        ({"reasoning_tokens": 90_000}, {}, 90_000 + MOST_OUTPUT),  # Claude is asked for 8,192 beside its thoughts
        ({}, {"context_window": 500}, 500),
        ({"max_tokens": 7, "extra": {"n": 2}}, {}, 14),
        ({"max_tokens": 7, "extra": {"max_completion_tokens": 70}}, {}, 70),
        ({"max_tokens": 7}, {"provider": Provider("x", dialect={"drop": ["max_tokens"]})}, MOST_OUTPUT),
    ],
)
def test_the_output_is_bound_by_the_first_cap_there_is(
    changes: dict[str, Any], who: dict[str, Any], tokens: int
) -> None:
    assert most_output(asked(**changes), replace(WHO, **who)) == tokens


def test_what_is_no_text_counts_too_and_vectors_have_no_output() -> None:
    plain = most_input(HI, WHO, 1)

    def more(part: Any = None, who: Deployment = WHO, **changes: Any) -> int:
        messages = (Message("user", (Text("hi"), part)),) if part else HI.messages
        return most_input(replace(HI, messages=messages, **changes), who, 1) - plain

    image, document = Image("image/png", "AAAA"), Document("application/pdf", "A" * 9000)
    assert more(image) == 7_000
    assert more(image, replace(WHO, model="gpt-4o-mini")) == 48_169
    assert more(document) == 18_000
    assert more(document, replace(WHO, context_window=5_000)) == 5_000 - plain
    assert more(tools=(Tool("f"),)) >= 1_024
    assert more(response_format=ResponseFormat("json_schema", {"type": "object"})) > 64
    vectors = Request((), inputs=("some text", "more"))
    assert (most_output(vectors, WHO), most_input(vectors, WHO, 4)) == (0, 13 + 64 + 16)


def test_an_unknown_price_has_no_worst_case_and_a_fee_is_part_of_one() -> None:
    assert worst_case(HI, replace(WHO, price=None), 1) is None
    assert worst_case(HI, replace(WHO, price=Price(0, 0, request=5)), 1) == 5


# ---------------------------------------------------------------- whole calls

PRICE = {"input": 1.0, "output": 10.0}
HELD = 74_000 + 100 * 10_000
"""The worst case in nano-dollars of "hi" with at most 100 tokens of answer: 74 tokens of input are its bound."""
MODELS: dict[str, Any] = {
    "models": {
        "m": {"model": "openai/a", "price": PRICE, "max_tokens": 100},
        "chain": {"model": "openai/a", "price": PRICE, "max_tokens": 100, "fallbacks": ["second"]},
        "second": {"model": "groq/nobody-knows-b", "max_tokens": 100},
        "priced": {"model": "openai/a", "price": PRICE, "max_tokens": 100, "fallbacks": ["m2"]},
        "m2": {"model": "groq/b", "price": PRICE, "max_tokens": 100},
        "unknown": {"model": "openai/nobody-knows-a"},
    },
    "providers": {name: {"api_key": "k"} for name in ("openai", "groq")},
}


def used(given: int, made: int) -> Reply:
    """An answer with such a usage."""
    chunk = {"model": "x", "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
    tokens = {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": made}}
    return Reply(headers={"content-type": "text/event-stream"}, chunks=(sse(chunk), sse(tokens), b"data: [DONE]\n\n"))


class World:
    """A client with a real ledger and a scripted provider."""

    def __init__(self, path: Path, *replies: Reply, budget: dict[str, Any] | None = None) -> None:
        self.transport = ScriptedTransport(*(replies or (used(7, 2),)))
        config = {**MODELS, **({"budget": {"timezone": "UTC", **budget}} if budget else {})}
        self.file = path / "ledger.db"
        self.client = Client(config, environ={}, transport=self.transport, ledger=MemoryLedger())
        budgets = self.client.catalog.settings.budgets
        ledger = SqliteLedger(self.file, path / "spool", budgets=budgets)
        self.client = Client(config, environ={}, transport=self.transport, ledger=ledger)
        self.warnings = ledger.warnings

    def ask(self, model: str = "m", **options: Any) -> Any:
        return self.client.complete("hi", model=model, retries=0, **options)

    def refused(self, model: str = "m", **options: Any) -> LlmctlError:
        sent = len(self.transport.requests)
        with pytest.raises(BudgetExceeded) as caught:
            self.ask(model, **options)
        assert caught.value.exit_code == 9
        assert len(self.transport.requests) == sent, "nothing was sent"
        return caught.value

    @property
    def held(self) -> int:
        everything = Budgets((Allowance(daily=1),), "UTC")
        ((standing,), _) = spend.read(str(self.file), everything, self.client.engine.clock.now())
        return standing.reserved

    def rows(self) -> list[dict[str, Any]]:
        from llmctl.store.history import History

        return History(self.file).list_calls()


def dollars(nanousd: int) -> float:
    return nanousd / NANO


def test_a_call_is_sent_where_its_worst_case_fits_to_the_nano_dollar_and_else_refused(tmp_path: Path) -> None:
    world = World(tmp_path, used(74, 100), budget={"daily": dollars(2 * HELD)})
    world.ask()
    assert world.rows()[0]["cost_nanousd"] == HELD, "the provider counted the worst there is"
    world.ask()
    error = world.refused()
    assert f"${2 * HELD / NANO:.6f} a day for all calls, ${2 * HELD / NANO:.6f} are spent" in error.message
    assert [row["state"] for row in world.rows()] == ["refused", "ok", "ok"]
    assert (world.rows()[0]["exit_code"], world.rows()[0]["error"]) == (9, "BudgetExceeded")
    assert world.held == 0


def test_a_refused_call_gives_its_headroom_back(tmp_path: Path) -> None:
    world = World(tmp_path, budget={"daily": 0.0})
    world.refused()
    documents = world.client.state.documents.values()  # type: ignore[attr-defined]
    assert not any(document.get("open") for document in documents)


def test_the_attempts_of_a_call_add_up_and_the_one_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    cut = used(74, 60)
    cut = replace(cut, chunks=cut.chunks[1:2])  # it says what it used, and nothing else
    for daily, sent in ((HELD + 674_000, 2), (HELD + 673_000, 1)):
        world = World(tmp_path / str(sent), cut, used(7, 2), budget={"daily": dollars(daily)})
        if sent == 2:
            assert world.ask("priced").cost_usd == dollars(674_000 + 27_000)
        else:
            with pytest.raises(BudgetExceeded) as caught:
                world.ask("priced")
            assert [attempt.cost_nanousd for attempt in caught.value.attempts] == [674_000]
        (row,) = world.rows()
        assert (len(row["attempts"]), len(world.transport.requests)) == (sent, sent)
        assert row["cost_nanousd"] == (701_000 if sent == 2 else 674_000)
        assert world.held == 0


@pytest.mark.parametrize("where", ["per_call", "max_cost", "tag", "model"])
def test_one_call_may_not_cost_more_than_the_lowest_cap(tmp_path: Path, where: str) -> None:
    low, high = dollars(HELD - 1), dollars(HELD)
    budgets: dict[str, Any] = {
        "per_call": {"per_call": low},
        "max_cost": {"per_call": 1.0},
        "tag": {"per_call": 1.0, "tags": {"team=web": {"per_call": low}}},
        "model": {"per_call": 1.0, "models": {"m": {"per_call": low}}},
    }
    options: dict[str, Any] = {"max_cost": {"max_cost": low}, "tag": {"tags": {"team": "web"}}}.get(where, {})
    error = World(tmp_path / "a", budget=budgets[where]).refused(**options)
    assert error.message == "this call may cost $0.001074, more than the $0.001073999 that one call may"
    assert "--max-tokens" in error.hint
    world = World(tmp_path / "b", budget={"per_call": high})
    assert world.ask(max_cost=high).text == "Hello"
    with pytest.raises(UsageError):
        world.ask(max_cost=-1)


def test_a_cap_of_one_call_needs_no_budget(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.refused(max_cost=1e-9)
    assert world.ask(max_cost=1).text == "Hello"


def test_who_has_no_known_price_is_left_out_under_a_budget_that_refuses(tmp_path: Path) -> None:
    world = World(tmp_path, Reply.refusal(503), used(7, 2), budget={"daily": 5.0})
    with pytest.raises(LlmctlError) as caught:
        world.ask("chain")
    assert caught.value.kind == "Unavailable", "its fallback was not asked"
    error = world.refused("unknown")
    assert error.message == "openai/nobody-knows-a: nobody knows its price, and a budget refuses what it cannot reckon"
    assert "price = {" in error.hint
    assert "allow_unpriced" in error.hint


@pytest.mark.parametrize("name", ["second", "second-1", "groq/nobody-knows-b"])
def test_who_is_allowed_by_name_is_asked_and_counted_as_unpriced(tmp_path: Path, name: str) -> None:
    world = World(tmp_path, Reply.refusal(503), used(7, 2), budget={"daily": 5.0, "allow_unpriced": [name]})
    answer = world.ask("chain")
    assert (answer.served_by, answer.cost_usd) == ("groq/nobody-knows-b", None)
    assert world.warnings == []
    assert World(tmp_path / "again", budget={"daily": 5.0, "allow_unpriced": [name]}).ask("second").cost_usd is None


def test_under_a_budget_that_warns_everyone_is_asked_with_a_line(tmp_path: Path) -> None:
    world = World(tmp_path, budget={"daily": dollars(HELD - 1), "on_exceed": "warn"})
    assert world.ask().text == world.ask("unknown").text == "Hello"
    over, unpriced = world.warnings
    assert over.startswith("of $0.001073999 a day for all calls")
    assert unpriced == "nobody knows the price of openai/nobody-knows-a: no budget counts what it costs"


def test_a_budget_of_another_tag_or_model_asks_nothing_of_this_call(tmp_path: Path) -> None:
    other = {"daily": 0.0}
    world = World(tmp_path, budget={"tags": {"team=web": other}, "models": {"second": other}})
    assert world.ask("unknown", tags={"team": "app"}).text == "Hello"
    assert "nobody knows its price" in world.refused("unknown", tags={"team": "web"}).message


def test_without_a_budget_nothing_is_reserved() -> None:
    ledger = MemoryLedger()
    client = Client(MODELS, environ={}, transport=ScriptedTransport(used(7, 2)), ledger=ledger)
    answer = client.complete("hi", model="m")
    assert ledger.reserved == {}
    assert ledger.rows[answer.id].deadline_at == pytest.approx(ledger.rows[answer.id].started_at + 300)


def test_a_missing_key_is_said_before_a_missing_price() -> None:
    client = Client({"models": {"m": {"model": "openai/x"}}, "budget": {"daily": 1.0}}, environ={})
    with pytest.raises(MissingCredential):
        client.call("hi", model="m")


def test_a_cancelled_call_gives_back_what_it_had_reserved(tmp_path: Path) -> None:
    world = World(tmp_path, replace(used(74, 100), delay_s=30.0), budget={"daily": 1.0})

    async def stopped() -> None:
        run = world.client.call("hi", model="m")
        task = asyncio.create_task(run.whole())
        while not world.transport.requests:
            await asyncio.sleep(0.001)
        assert world.held == HELD
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert (world.held, world.rows()[0]["state"]) == (0, "cancelled")


def test_what_a_call_spent_before_an_unpriced_target_answered_is_charged(tmp_path: Path) -> None:
    cut = replace(used(74, 60), chunks=used(74, 60).chunks[1:2])  # it says what it used, and nothing else
    budget = {"daily": dollars(HELD + 100_000), "allow_unpriced": ["second"]}
    world = World(tmp_path, cut, used(7, 2), budget=budget)
    assert world.ask("chain").cost_usd is None
    assert [attempt["cost_nanousd"] for attempt in world.rows()[0]["attempts"]] == [674_000, None]
    assert any(line.startswith("50% of") for line in world.warnings)
    assert "$0.000674 are spent" in world.refused("chain").message
    with closing(sqlite3.connect(world.file)) as connection, connection:
        connection.executescript("DELETE FROM rollup_quarters; DELETE FROM rollup_days; UPDATE calls SET rolled = 0")
    assert "$0.000674 are spent" in world.refused("chain").message
