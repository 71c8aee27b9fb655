"""The simulation drives the real machine: its limits hold, its outages are survived, its results can be repeated."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from llmctl.config.load import catalog_of
from llmctl.lab.providers import Fault, Speed
from llmctl.lab.simulate import Result, World, simulate
from llmctl.lab.traces import Row, denser
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.book import Keys
from llmctl.routing.plan import make_plan
from llmctl.routing.policy import Policy

PRICE = {"input": 1.0, "output": 2.0}


def one(name: str, model: str = "mistral/m", **more: Any) -> dict[str, Any]:
    return {"id": name, "model": model, **more}


def world(*deployments: dict[str, Any], chain: tuple[dict[str, Any], ...] = (), shared: bool = False, **more: Any):
    models = {"g": {"deployments": list(deployments), "fallbacks": ["h"] if chain else []}}
    catalog = catalog_of({"models": models | ({"h": {"deployments": list(chain)}} if chain else {})}, {})
    plan = make_plan(catalog, "g", fallbacks=None, obstacle=lambda _: None)
    ids = [each.id for link in plan.links for each in link.deployments]
    speeds = dict.fromkeys(ids, Speed(0.5, 0.01)) | more.pop("speeds", {})
    keys = {each: Keys("q" if shared else f"q-{each}", "c") for each in ids}
    return World(plan=plan, keys=keys, settings=catalog.settings, speeds=speeds, **more)


def steady(n: int, gap_s: float, prompt: int = 100, output: int = 50) -> list[Row]:
    return [Row(i * gap_s, prompt, output) for i in range(n)]


def answered(result: Result) -> int:
    return sum(tally["calls"] for tally in result.tallies.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_of_requests_holds_in_any_sliding_minute_under_every_strategy(strategy):
    """Bursts of what a minute admits, so that nearly every call waits."""
    bursts = [Row(60.0 * (i // 7), 100, 50) for i in range(35)]
    patient = Policy(max_wait_s=1e5, total_s=1e6, strategy=strategy)
    result = simulate(bursts, world(one("a", rpm=3), one("b", rpm=4)), patient)
    assert answered(result) == result.calls == 35
    assert result.as_json()["refused"] == 0
    for name, rpm in (("a", 3), ("b", 4)):
        sent = [at for at, each in result.sent if each == name]
        assert all(later - at >= 60 for at, later in zip(sent, sent[rpm:], strict=False))
        assert len(sent) == 5 * rpm
    assert sum(result.waited) > 10


def test_two_deployments_on_one_quota_share_its_limit():
    fleet = world(one("a", rpm=5), one("b", rpm=5), shared=True)
    result = simulate(steady(10, 0.1), fleet, Policy(max_wait_s=1e5, total_s=1e6))
    assert (answered(result), result.as_json()["refused"]) == (10, 0)
    assert result.sent[5][0] - result.sent[0][0] >= 60


def test_equal_seeds_give_equal_results_and_others_do_not():
    documents = []
    for seed in (1, 1, 2):
        fleet = world(one("a", rpm=30, price=PRICE), one("b", rpm=20, price=PRICE), seed=seed)
        documents.append(simulate(steady(80, 0.7), fleet, Policy(strategy="simple-shuffle")).as_json())
    assert documents[0] == documents[1] != documents[2]


def test_a_request_has_the_same_luck_under_every_strategy_and_another_with_another_seed():
    runs = [("ordered", 1), ("round-robin", 1), ("ordered", 2)]
    lucks = [
        simulate(steady(20, 5.0), world(one("a"), one("b"), seed=seed), Policy(strategy=strategy)).latencies
        for strategy, seed in runs
    ]
    assert lucks[0] == pytest.approx(lucks[1])
    assert lucks[0] != pytest.approx(lucks[2])
    assert 0.7 < sum(lucks[0]) / 20 < 1.5, "about 0.5 s and 50 tokens of 10 ms"


def test_what_an_answer_did_not_use_is_free_again():
    fleet = world(one("a", tpm=1100), max_tokens=100)
    assert max(simulate(steady(6, 5.0), fleet, Policy()).waited) == 0


def test_a_slot_is_free_a_minute_after_the_first_token():
    fleet = world(one("a", rpm=1), speeds={"a": Speed(0.5, 1.0)})
    result = simulate(steady(2, 1.0), fleet, Policy(max_wait_s=300))
    assert 60 < result.sent[1][0] < 70


def test_what_a_provider_says_of_its_bucket_is_made_use_of():
    bursts = [Row(at, 100, 50) for at in (*[0.0] * 6, *[40.0] * 3)]
    waits = [
        max(simulate(bursts, world(one("a", model, rpm=6)), Policy()).waited) for model in ("openai/m", "mistral/m")
    ]
    assert waits[0] == 0 < 20 < waits[1]


def test_a_trace_twice_as_dense_waits_more():
    fleet, rows = world(one("a", rpm=30)), steady(60, 2.1)
    once, twice = (simulate(denser(rows, n), fleet, Policy(max_wait_s=600, total_s=900)) for n in (1, 2))
    assert not once.failures + twice.failures
    assert sum(once.waited) < 1 < 100 < sum(twice.waited)


@pytest.mark.parametrize("chain", [False, True], ids=["the other deployment", "the chain"])
def test_an_outage_is_survived(chain):
    out = Fault("a", 60, 120)
    fleet = world(one("a"), chain=(one("b"),), faults=[out]) if chain else world(one("a"), one("b"), faults=[out])
    result = simulate(steady(300, 1.0), fleet, Policy())
    assert not result.failures
    assert result.tallies["a"]["failed"] <= 20
    assert not any(each == "a" and out.start + 40 < at < out.start + 45 for at, each in result.sent)
    assert any(each == "a" and at > out.start + out.length + 60 for at, each in result.sent), "it came back"


def test_without_anybody_else_an_outage_fails_calls_by_class():
    document = simulate(steady(10, 1.0), world(one("a"), faults=[Fault("a", 0, 1e4)]), Policy(max_wait_s=1)).as_json()
    assert document["failed"] == 10 == sum(document["failed_by"].values())
    assert set(document["failed_by"]) == {"Unavailable"}
    assert document["latency_s"] == {"p50": None, "p95": None, "p99": None}


def test_one_that_is_too_slow_times_out_and_another_answers():
    fleet = world(one("a"), one("b"), faults=[Fault("a", 0, 1e4, factor=200)])
    result = simulate(steady(40, 1.0), fleet, Policy())
    assert not result.failures
    assert result.tallies["a"]["failed"] > 0
    assert result.tallies["b"]["calls"] == 40


def test_an_answer_longer_than_a_lease_keeps_its_place():
    fleet = world(one("a", max_parallel=1), speeds={"a": Speed(1.0, 1.0)})
    result = simulate(steady(4, 1.0, output=100), fleet, Policy(max_wait_s=1e5, total_s=1e6))
    assert (answered(result), result.as_json()["refused"]) == (4, 0)
    assert result.makespan_s > 4 * 70


def test_a_call_ends_with_its_deadline():
    fleet = world(one("a"), speeds={"a": Speed(1.0, 1.0)})
    document = simulate(steady(3, 1.0, output=500), fleet, Policy(total_s=60)).as_json()
    assert document["failed_by"] == {"DeadlineExceeded": 3}
    assert document["makespan_s"] == pytest.approx(62)


def test_max_tokens_caps_answers_and_what_is_reserved():
    policy, fleet = Policy(max_wait_s=1e5, total_s=1e6), [one("a", "openai/m", tpm=1000, price=PRICE)]
    tight, wide = (simulate(steady(5, 0.1), world(*fleet, max_tokens=n), policy).as_json() for n in (10, 500))
    assert [run["deployments"][0]["output_tokens"] for run in (tight, wide)] == [50, 250]
    assert tight["cost_usd"] == pytest.approx((5 * 100 + 2 * 50) / 1e6)
    assert tight["makespan_s"] < 10 < 120 < wide["makespan_s"]


def test_a_request_larger_than_every_limit_is_refused_before_it_is_sent():
    result = simulate(steady(2, 1.0, prompt=9999), world(one("a", tpm=1000)), Policy())
    assert (result.failures, result.sent) == ({"NoCapacity": 2}, [])


def test_the_document_adds_up_and_an_unknown_price_is_no_zero():
    document = simulate(
        steady(30, 1.0), world(one("a", rpm=600, price=PRICE), one("b", rpm=600)), Policy(strategy="round-robin")
    ).as_json()
    rows = document["deployments"]
    assert (document["strategy"], document["calls"], document["attempts"], document["failed"]) == (
        "round-robin",
        30,
        30,
        0,
    )
    assert [row["calls"] for row in rows] == [15, 15]
    assert [row["share"] for row in rows] == [0.5, 0.5]
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(1500, 750)] * 2
    assert [row["utilisation"]["rpm"]["peak"] for row in rows] == [15 / 600] * 2
    assert [row["cost_usd"] for row in rows] == [pytest.approx(0.003), None]
    assert document["cost_usd"] is None
    assert 0.5 < document["latency_s"]["p50"] < document["latency_s"]["p99"] < 4


@pytest.mark.full
def test_twenty_thousand_requests_take_seconds():
    draw = Random(3)
    rows, at = [], 0.0
    for _ in range(20_000):
        at += draw.expovariate(1.5)
        rows.append(Row(at, int(draw.lognormvariate(6.8, 1.0)) + 1, min(2000, int(draw.lognormvariate(4.6, 1.1)) + 1)))
    fleet = world(*(one(name, "openai/m", rpm=500, tpm=150_000) for name in "abc"))
    began = time.process_time()
    assert simulate(rows, fleet, Policy()).failures.total() < 200
    assert time.process_time() - began < 30
