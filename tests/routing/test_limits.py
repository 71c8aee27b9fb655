"""Limits as law, judged by providers that count for themselves."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest

from llmctl.core.snapshot import Said
from llmctl.routing.call import Done, Fail
from llmctl.routing.limits import HEADERS_S, MINUTE_S, Limited, cost_of, settled_cost
from llmctl.routing.words import learn
from tests.routing.town import T0, Metered, Strict, Town, deployment, plan_of, starts

# --- the law: a provider that counts strictly ----------------------------------------------------------------------


def life_of_a_quota(seed: int) -> None:
    """Random limits and callers of all fates; the provider counts what arrives, whenever it does."""
    rng = random.Random(seed)
    limits = {
        "rpm": rng.choice([None, 1, 3, 10]),
        "tpm": rng.choice([None, 100, 1000]),
        "itpm": rng.choice([None, None, 400]),
        "otpm": rng.choice([None, None, 300]),
    }
    limited = deployment(charge=rng.choice(["settled", "reserved", "input", "apart"]), **limits)
    strict = Strict()
    town = Town(plan_of(limited), {"a": strict}, seed)
    town.latency = lambda rng: rng.choice([0.0, 0.1, 1.0, 7.0, 45.0])
    town.fate = lambda rng: rng.choice(["ends"] * 5 + ["is cancelled", "dies", "never leaves"])
    for _ in range(40):
        prompt, cap = rng.randrange(1, 60), rng.randrange(0, 40)
        town.ask(T0 + rng.random() * rng.choice([1, 100]), prompt, cap, output=rng.randrange(cap + 1))
    town.run()
    assert all(ask.end is not None for ask in town.asks)
    crowded = [ask for ask in town.asks if not ask.sent]  # refused for the overload, and never for anything else
    assert all(isinstance(ask.end, Fail) and ask.end.error.kind == "NoCapacity" for ask in crowded)
    declared = limited.limits
    charges_output = limited.provider.dialect["charge"] != "input"
    for limit, amount in (
        (declared.rpm, lambda prompt, output: 1),
        (declared.tpm, lambda prompt, output: prompt + output * charges_output),
        (declared.itpm, lambda prompt, output: prompt),
        (declared.otpm, lambda prompt, output: output),
    ):
        assert limit is None or strict.most(amount) <= limit, seed


@pytest.mark.parametrize("part", range(8))
def test_no_sliding_minute_holds_more_than_its_limits_whenever_the_provider_counts(part: int):
    for seed in range(part * 15, (part + 1) * 15):
        life_of_a_quota(seed)


@pytest.mark.full
@pytest.mark.parametrize("part", range(8))
def test_no_sliding_minute_of_many_holds_more_than_its_limits(part: int):
    for seed in range(1000 + part * 500, 1000 + (part + 1) * 500):
        life_of_a_quota(seed)


# --- the earliest start --------------------------------------------------------------------------------------------


def first_fit(limits: tuple[float | None, ...], quota: dict[str, Any], cost: tuple[float, ...]) -> float:
    """The first instant from T0 on at which a request fits, found by trying them all: it is the law, written out."""
    spans = [(-inf, use[1] + MINUTE_S, use[2:]) for use in quota["uses"]]
    for row in quota["open"].values():
        begin, end = row[0] if row[0] > T0 else -inf, max(T0, row[0] + HEADERS_S) + MINUTE_S
        spans.append((begin, end, row[2:6]))

    def fits(t: float) -> bool:
        looked_at = [t, *(begin for begin, _, _ in spans if t < begin < t + MINUTE_S + HEADERS_S)]
        return all(
            limit is None or sum(n[m] for begin, end, n in spans if begin <= x < end) + cost[m] <= limit + 1e-6
            for x in looked_at
            for m, limit in enumerate(limits)
        )

    tried = sorted({T0, *(end for _, end, _ in spans), *(begin + 2e-6 for begin, _, _ in spans)})
    return next(t for t in tried if t >= T0 and fits(t))


def random_quota(rng: random.Random, used: int, places: int) -> dict[str, Any]:
    """Uses of the last minute, requests under way, and places held in the next minutes: no prompt is guessed."""

    def cost(prompt: int) -> list[int]:
        output = rng.randrange(50)
        return [1, prompt + output, prompt, output]

    heard = sorted(T0 - 70 * rng.random() for _ in range(used))
    starts = [T0 + rng.uniform(-20, 100) for _ in range(places)]
    return {
        "uses": [[at - rng.random(), at, *cost(rng.randrange(50))] for at in heard],
        "open": {
            f"call {n}": [start, start + 130, *cost(0), T0 if start > T0 else 0.0, 0, T0]
            for n, start in enumerate(starts)
        },
    }


@pytest.mark.parametrize("places", [0, 3, 12, 150])
def test_the_earliest_start_is_the_first_instant_at_which_a_request_fits(places: int):
    crowd = 1 + places // 6
    for seed in range(60):
        rng = random.Random(seed)
        limits = {"rpm": rng.choice([4, 6]), "tpm": rng.choice([None, 300]), "otpm": rng.choice([None, 150])}
        quota = random_quota(rng, rng.randrange(12 * crowd), places)
        limited = Limited(deployment(**{meter: n and n * crowd for meter, n in limits.items()}), quota, T0)
        output = rng.randrange(1, 50)
        cost = (1, output, 0, output)
        believed = tuple(limited.limit(meter) for meter in range(4))
        assert limited.earliest(cost) == pytest.approx(first_fit(believed, quota, cost), abs=1e-5), seed


@pytest.mark.parametrize("places", [2, 40, 200])
def test_a_request_comes_after_all_the_places_that_leave_no_room_between_them(places: int):
    opened = {f"call {n}": [T0 + 1 + 61.5 * n, T0 + 1e6, 1, 0, 0, 0, T0, 0, T0] for n in range(places)}
    last = T0 + 1 + 61.5 * (places - 1) + HEADERS_S + MINUTE_S
    limited = Limited(deployment(rpm=1), {"open": opened}, T0)
    assert limited.earliest((1, 0, 0, 0)) == pytest.approx(last, abs=1e-5)


# --- places that are held ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_calls_of_one_size_start_in_the_order_they_came(seed: int):
    town = Town(plan_of(deployment(rpm=6)), {"a": Strict()}, seed)
    town.latency = lambda rng: 0.0
    asks = [town.ask(T0 + 40 * (n + town.rng.random()) / 18, 5, 5) for n in range(18)]
    town.run()
    began = starts(asks)
    assert began == sorted(began)
    assert len(began) == 18
    assert all(len(set(ask.places)) <= 2 for ask in asks)  # one place, but for what headers change: nobody is put off


def test_a_place_that_is_held_may_be_overtaken_by_smaller_requests_until_it_is_firm():
    held = [T0 + 30, T0 + 35, 1, 80, 0, 80, T0 + 20, 80, T0]
    quota = {"uses": [[T0 - 30, T0 - 30, 1, 60, 0, 60]], "open": {"large": held}}

    def start(now: float, output: int) -> float:
        limited = Limited(deployment(tpm=100), quota, T0 + now, output)
        return limited.earliest((1, output, 0, output)) - T0

    assert start(0, 15) == 0  # there is room for it beside the place
    assert start(0, 30) == 0  # there is none, but it is smaller
    assert start(19, 30) == 19
    assert start(20, 30) > 60
    assert start(20, 15) == 20
    assert start(0, 80) > 60  # as large, and later
    assert start(36, 30) == 36  # whoever held it did not come


def test_a_request_under_way_is_no_place_that_can_be_overtaken():
    quota = {"open": {"large": [T0 - 5, T0 + 25, 1, 80, 0, 80, 0.0, 80, T0]}}
    assert Limited(deployment(tpm=100), quota, T0, 30).earliest((1, 30, 0, 30)) > T0 + 50


# --- what a request is, and whether it ever fits -------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [{"tpm": 100}, {"itpm": 100}, {"otpm": 100}, {"rpm": 0}, {"tpm": 0}, {"max_parallel": 0}]
)
def test_a_request_larger_than_a_limit_never_starts(limits: dict[str, int]):
    assert Limited(deployment(**limits), {}, T0).earliest((1, 202, 101, 101)) == inf


@pytest.mark.parametrize("limits", [{}, {"rpm": 1, "tpm": 100, "itpm": 100, "otpm": 100, "max_parallel": 1}])
def test_a_request_that_fits_starts_at_once_where_nothing_is_used(limits: dict[str, int]):
    assert Limited(deployment(**limits), {}, T0).earliest((1, 90, 45, 45)) == T0


@pytest.mark.parametrize(
    ("charge", "up_front", "in_the_end"),
    [
        ("settled", (1, 150, 100, 50), (1, 100, 70, 10)),
        ("reserved", (1, 150, 100, 50), (1, 150, 90, 10)),
        ("input", (1, 100, 100, 50), (1, 90, 70, 10)),
        ("apart", (1, 150, 100, 50), (1, 80, 70, 10)),
    ],
)  # fmt: skip
def test_a_request_costs_what_its_provider_charges(charge: str, up_front: tuple[int, ...], in_the_end: tuple[int, ...]):
    charged = deployment(charge=charge)
    assert cost_of(charged, 100, 50) == up_front
    assert settled_cost(charged, up_front, 90, 20, 10) == in_the_end


def test_a_finer_window_of_the_provider_is_kept_as_the_minute_is():
    strict = Strict()
    town = Town(plan_of(deployment(rpm=60, slice_s=10)), {"a": strict}, 1)
    asks = [town.ask(T0 + town.rng.random(), 5, 5) for _ in range(40)]
    town.run()
    assert len(starts(asks)) == 40
    assert strict.most(lambda prompt, output: 1, 10.0) == 10


def test_a_slice_too_fine_to_hold_a_few_requests_is_left_to_the_minute():
    assert Limited(deployment(rpm=6, slice_s=10), {"uses": [[T0, T0, 1, 5, 5, 0]]}, T0).earliest((1, 5, 5, 0)) == T0


# --- what the provider says ----------------------------------------------------------------------------------------


def asked(
    kind: str, shape: str, declared: dict[str, int], seed: int, *, others: float = 0.0, talks: bool = True
) -> tuple[Metered, Town]:
    """A town whose provider admits 60 requests and 6,000 tokens a minute, asked for about three quarters of it."""
    rng = random.Random(seed)
    provider = Metered(kind, rpm=60, tpm=6000, phase=T0 + 60 * rng.random(), others=others, talks=talks)
    town = Town(plan_of(deployment(shape=shape, charge="reserved", **declared)), {"a": provider}, seed)
    town.latency, town.delay = lambda rng: 0.3, lambda rng, latency: 0.05
    at = T0
    for _ in range(120):
        at += rng.expovariate(1 / 2.8) if rng.random() < 0.8 else 0.0
        town.ask(at, rng.randrange(10, 200), rng.randrange(10, 200))
    town.run()
    return provider, town


@pytest.mark.parametrize(
    "declared", [{"rpm": 60, "tpm": 6000}, {}, {"rpm": 80, "tpm": 8000}], ids=["as it is", "not", "too high"]
)
@pytest.mark.parametrize(
    ("kind", "shape"), [("bucket", "bucket"), ("window", "window"), ("bucket", ""), ("window", "")]
)
def test_who_believes_what_the_provider_says_is_not_refused(kind: str, shape: str, declared: dict[str, int]):
    for seed in range(2):
        provider, town = asked(kind, shape, declared, seed)
        assert (provider.refusals, provider.answers) == (0, 120)
        assert town.now - max(ask.begun for ask in town.asks) < 60


@pytest.mark.parametrize("talks", [True, False])
@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_a_declared_limit_below_the_providers_stays_the_law(kind: str, talks: bool):
    provider, town = asked(kind, kind, {"rpm": 40, "tpm": 3500}, 1, talks=talks)
    assert provider.refusals == 0
    strict = Strict(sorted((ask.sent[0], ask.prompt, ask.output) for ask in town.asks if ask.sent))
    assert strict.most(lambda prompt, output: prompt + output) <= 3500
    assert strict.most(lambda prompt, output: 1) <= 40
    assert len(strict.seen) > 80


def test_a_declared_limit_is_the_law_where_the_provider_says_nothing():
    provider, _ = asked("bucket", "bucket", {"rpm": 60, "tpm": 6000}, 2, talks=False)
    assert provider.refusals == 0


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_what_somebody_else_takes_of_the_quota_is_learned(kind: str):
    provider, town = asked(kind, kind, {"rpm": 60, "tpm": 6000}, 3, others=0.3)
    assert town.documents["quota a"]["others"] == pytest.approx(0.3 * 100, rel=0.3)  # tokens a second
    assert provider.answers == 120
    assert provider.refusals <= 3


def test_the_phase_of_a_window_is_learned_from_its_resets_or_from_its_rises():
    provider, town = asked("window", "window", {"rpm": 60, "tpm": 6000}, 4)
    low, high = town.documents["quota a"]["phase"]["tpm"]
    assert high - low < 1.0
    assert min((provider.phase - low) % 60, (low - provider.phase) % 60) < 1.0
    rises: dict[str, Any] = {}
    for at, left in ((0, 3000), (5, 1000), (10, 5800)):
        learn(deployment(shape="window", tpm=6000), rises, T0 + at, T0 + at + 0.2, (Said("tpm", 6000, left),))
    assert rises["phase"]["tpm"] == [T0 + 5, T0 + 10]


def test_a_limit_that_shrinks_is_believed_and_one_that_grows_beyond_the_declared_is_not():
    for shape in ("bucket", "window", ""):
        declared, quota = deployment(shape=shape, tpm=1000), {"open": {}}
        learn(declared, quota, T0, T0, (Said("tpm", 100, 100, 30.0),))
        assert Limited(declared, quota, T0).earliest((1, 101, 0, 101)) == inf
        learn(declared, quota, T0 + 1, T0 + 1, (Said("tpm", 9000, 9000, 30.0),))
        assert Limited(declared, quota, T0 + 1).earliest((1, 1001, 0, 1001)) == inf
        assert Limited(declared, quota, T0 + 1).earliest((1, 900, 0, 900)) == T0 + 1


@pytest.mark.parametrize("shape", ["", "bucket", "window"])
@pytest.mark.parametrize(("meter", "declared"), [("tpm", {"tpm": 5000}), ("tpm", {}), ("rpm", {"rpm": 5})])
def test_a_limit_that_is_too_small_for_a_request_refuses_it_only_while_the_word_is_fresh(
    shape: str, meter: str, declared: dict[str, int]
):
    asked, quota, cost = deployment(shape=shape, **declared), {}, (1, 300, 100, 200)
    learn(asked, quota, T0, T0, (Said(meter, 0.5, 0.0, 1.0),))
    assert Limited(asked, quota, T0 + 59).earliest(cost) == inf
    assert T0 + 61 <= Limited(asked, quota, T0 + 61).earliest(cost) <= T0 + 180
    too_large = deployment(shape=shape, tpm=299)
    assert Limited(too_large, quota, T0 + 61).earliest(cost) == inf


def test_the_word_of_an_earlier_request_does_not_undo_that_of_a_later_one():
    quota: dict[str, Any] = {}
    learn(deployment(tpm=100), quota, T0 + 5, T0 + 6, (Said("tpm", 100, 10, 30.0),))
    learn(deployment(tpm=100), quota, T0, T0 + 7, (Said("tpm", 100, 90, 30.0),))
    assert quota["said"]["tpm"][:2] == [T0 + 5, 10]


def test_what_remains_of_an_unknown_kind_of_limit_is_not_exceeded_until_it_is_whole_again():
    quota: dict[str, Any] = {}
    learn(deployment(), quota, T0, T0 + 1, (Said("rpm", None, 0, 20.0), Said("tpm", 1000, 500)))
    limited = Limited(deployment(rpm=50), quota, T0 + 2)
    assert limited.earliest((1, 5, 0, 5)) == pytest.approx(T0 + 21)
    assert limited.headroom(0) == 0


def test_no_word_about_a_minute_holds_longer_than_a_minute():
    quota: dict[str, Any] = {}
    learn(deployment(), quota, T0, T0, (Said("rpm", 50, 0, 1e9),))
    assert Limited(deployment(rpm=50), quota, T0 + 1).earliest((1, 5, 0, 5)) <= T0 + MINUTE_S


def test_words_are_learned_where_nothing_is_under_way():
    quota: dict[str, Any] = {}
    for at in (0.0, 5.0, 10.0):
        learn(deployment(shape="bucket", tpm=100), quota, T0 + at, T0 + at, (Said("tpm", 100, 10, 30.0),))
    assert quota["said"]["tpm"][0] == T0 + 10


# --- how many at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_are_under_way_at_once_than_max_parallel(most: int):
    for seed in range(5):
        town = Town(plan_of(deployment(max_parallel=most)), {"a": Strict()}, seed)
        asks = [town.ask(T0 + n / 4, 5, 5) for n in range(20)]
        town.run()
        late = [abs(at - turn) for at, turn in zip(starts(asks), sorted(starts(asks)), strict=True)]
        assert max(late) < (0.5 if most > 1 else 1e-9)  # in turn, as far as they look at the same time
        assert town.most_in_flight == most
        assert all(isinstance(ask.end, Done) for ask in asks)
