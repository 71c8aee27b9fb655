"""The modelled providers: what each way of refilling admits, and how a request ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.catalog import Deployment, Limits, Provider
from llmctl.lab.providers import Asked, Fault, Quota, Speed

SPEED = Speed(1.0, 0.1)


def deployment(shape: str = "", charge: str = "settled", **limits: int) -> Deployment:
    return Deployment("d", Provider("p", dialect={"shape": shape, "charge": charge}), "m", limits=Limits(**limits))


def ask(quota: Quota, target: Deployment, now: float, asked: Asked, fault: Fault | None = None, patience_s: float = 30):
    return quota.ask(target, asked, SPEED, now, fault, patience_s)


gaps = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 50)), min_size=1, max_size=60)


@given(gaps, st.sampled_from(["", "bucket", "bucket:30", "window"]))
def test_no_more_is_admitted_than_the_way_of_refilling_allows(gaps, shape):
    target = deployment(shape, rpm=6, tpm=100)
    quota, now, admitted = Quota([target], phase=7.0), 1000.0, []
    for gap, tokens in gaps:
        now += gap
        reply = ask(quota, target, now, Asked(tokens, 0))
        if reply.error is None:
            admitted.append((now, 1, tokens))
        else:
            assert reply.error.retry_after_s >= 1
            later = now + reply.error.retry_after_s
            assert ask(quota, target, later, Asked(tokens, 0)).error is None, "what is said to help helps"
            admitted.append((now := later, 1, tokens))
    for which, limit in ((1, 6), (2, 100)):
        for start, *_ in admitted:
            held = sum(row[which] for row in admitted if start <= row[0] < start + 60)
            window = sum(row[which] for row in admitted if (start - 7) // 60 == (row[0] - 7) // 60)
            most = {"": held, "bucket": held - limit, "bucket:30": held - limit / 2, "window": window}[shape]
            assert most <= limit + 1e-3


@pytest.mark.parametrize(("charge", "kept"), [("settled", 30), ("reserved", 60), ("input", 10), ("apart", 30)])
def test_at_the_end_a_request_has_taken_what_its_provider_charges(charge, kept):
    target = deployment(charge=charge, tpm=1000)
    quota, asked = Quota([target], 0.0), Asked(10, 20, cap=50)
    quota.settle(target, asked, ask(quota, target, 0.0, asked))
    assert quota.utilisation(60.0) == {"tpm": {"mean": kept / 1000, "peak": kept / 1000}}
    assert ask(quota, target, 1.0, Asked(1000 - kept, 0)).error is None
    assert ask(quota, target, 2.0, Asked(1, 0)).error is not None


@pytest.mark.parametrize("shape", ["", "bucket", "window"])
def test_what_is_given_back_counts_at_once(shape):
    target, asked = deployment(shape, tpm=100), Asked(10, 0, cap=80)
    quota = Quota([target], 0.0)
    quota.settle(target, asked, ask(quota, target, 10.0, asked))
    assert ask(quota, target, 10.0, Asked(91, 0)).error is not None
    assert ask(quota, target, 10.0, Asked(90, 0)).error is None


@pytest.mark.parametrize("shape", ["", "window"])
def test_what_is_given_back_late_is_of_no_use(shape):
    target, asked = deployment(shape, tpm=100), Asked(10, 0, cap=80)
    quota = Quota([target], 0.0)
    first = ask(quota, target, 10.0, asked)
    assert ask(quota, target, 71.0, Asked(100, 0)).error is None
    quota.settle(target, asked, first)
    assert ask(quota, target, 72.0, Asked(1, 0)).error is not None


def test_utilisation_is_the_mean_and_the_fullest_minute():
    target, asked = deployment(rpm=10), Asked(1, 1)
    quota = Quota([target], 0.0)
    for at in (0.0, 30.0, 59.0, 60.0, 200.0):
        quota.settle(target, asked, ask(quota, target, at, asked))
    assert quota.utilisation(300.0) == {"rpm": {"mean": 0.1, "peak": 0.3}}
    assert quota.utilisation(6.0)["rpm"]["mean"] == 0.5


def test_a_place_is_free_again_when_its_request_has_ended():
    target = deployment(max_parallel=1)
    quota, asked = Quota([target], 0.0), Asked(1, 1)
    first = ask(quota, target, 0.0, asked)
    refused = ask(quota, target, 0.1, asked)
    assert refused.error.kind == "RateLimited"
    quota.settle(target, asked, refused)
    assert ask(quota, target, 0.2, asked).error is not None
    quota.settle(target, asked, first)
    assert ask(quota, target, 2.0, asked).error is None


def test_of_several_declared_limits_the_lowest_is_true():
    assert Quota([deployment(rpm=9, tpm=5), deployment(rpm=3)], 0.0).limits == (3, 5, None, None)


@pytest.mark.parametrize(
    ("fault", "error", "took_s"),
    [
        (None, None, 3.0),
        (Fault("d", 0, 60), "Unavailable", 0.1),
        (Fault("d", 0, 60, factor=4), None, 12.0),
        (Fault("d", 0, 60, factor=40), "TimedOut", 30.0),
    ],
    ids=["well", "out", "slow", "too slow"],
)
def test_a_fault_decides_how_a_request_ends(fault, error, took_s):
    target = deployment()
    reply = ask(Quota([target], 0.0), target, 5.0, Asked(0, 20), fault)
    assert (reply.error and reply.error.kind, reply.ended - reply.sent) == (error, pytest.approx(took_s))


def test_a_fault_holds_for_its_deployment_and_its_time():
    fault = Fault("d", 10, 5)
    assert [fault.holds(deployment(), at) for at in (9.9, 10, 14.9, 15)] == [False, True, True, False]
    assert not Fault("other", 10, 5).holds(deployment(), 12)


def test_headers_tell_what_remains_where_the_provider_is_known_to_send_them():
    for shape, said in (("", ()), ("window", (("rpm", 6, 5, 50.0),)), ("bucket", (("rpm", 6, 5, 10.0),))):
        target = deployment(shape, rpm=6)
        reply = ask(Quota([target], 0.0), target, 10.0, Asked(1, 1))
        assert tuple((word.meter, word.limit, word.remaining, word.reset_s) for word in reply.said) == said
