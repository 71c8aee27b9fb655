"""Batches of texts: every text once and in order, within the bounds, from a list or from a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.core.tokens import estimate
from llmctl.run.batches import at_once, batches, in_thread

TEXTS = st.lists(st.text(min_size=1, max_size=50), max_size=40)


@given(texts=TEXTS, most=st.integers(1, 10))
def test_every_text_is_in_one_batch_in_its_order(texts, most):
    cut = list(batches(texts, most, 100_000))
    assert [text for batch in cut for text in batch] == texts
    assert all(1 <= len(batch) <= most for batch in cut)
    assert all(len(batch) == most for batch in cut[:-1])  # they are small, so only the number cuts


@pytest.mark.parametrize(
    ("words", "cut"), [([40_000] * 5, [2, 2, 1]), ([150_000, 1, 1], [1, 2]), ([1, 150_000], [1, 1])]
)
def test_a_batch_is_within_the_tokens_unless_it_is_one_long_text(words, cut):
    got = list(batches(("a " * n for n in words), 256, 100_000))
    assert [len(batch) for batch in got] == cut
    assert all(len(batch) == 1 or sum(map(estimate, batch)) <= 100_000 for batch in got)


def test_a_full_batch_does_not_wait_for_the_next_text():
    texts = iter(["a", "b", 3])
    cut = batches(texts, 2, 100_000)  # type: ignore[arg-type]
    assert next(cut) == ("a", "b")
    with pytest.raises(UsageError, match=r"texts\[2\] is int, not text"):
        next(cut)


def test_a_text_of_many_megabytes_is_cut_off_at_once():
    assert [len(batch) for batch in batches(["x y " * 4_000_000, "z"], 256, 100_000)] == [1, 1]


async def _all(source):
    return [batch async for batch in source]


def test_a_thread_reads_the_same_as_a_list():
    cut = [("a",), ("b", "c")]
    assert asyncio.run(_all(at_once(iter(cut)))) == asyncio.run(_all(in_thread(iter(cut)))) == cut


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_awaited():
    with pytest.raises(UsageError, match="empty"):
        asyncio.run(_all(in_thread(batches(["a", ""], 1, 9))))


def test_a_thread_that_waits_for_ever_does_not_keep_the_loop():
    release, begun = threading.Event(), threading.Event()

    def endless():
        begun.set()
        release.wait(30)
        yield ("late",)

    async def stopped():
        reading = asyncio.create_task(_all(in_thread(endless())))
        await asyncio.to_thread(begun.wait, 30)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(stopped())
    release.set()  # what comes too late is nobody's
