"""Batches of texts: every text once and in order, within the bounds, from a list or from a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.core.tokens import estimate
from llmctl.run.batches import Pile, Place, at_once, in_thread, windows

TEXTS = st.lists(st.text(min_size=1, max_size=50), max_size=40)


def piled(texts, most: int, most_tokens: int) -> list[list[str]]:
    """The texts of each batch, taken as soon as it is whole, and the rest."""
    pile, cut = Pile(most, most_tokens), []
    for text in texts:
        pile.add(Place(text))
        while batch := pile.take(rest=False):
            cut.append(batch)
    while batch := pile.take(rest=True):
        cut.append(batch)
    assert not len(pile)
    return [[place.text for place in batch] for batch in cut]


@given(texts=TEXTS, most=st.integers(1, 10))
def test_every_text_is_in_one_batch_in_its_order(texts, most):
    for cut in (piled(texts, most, 100_000), list(windows(texts, most))):
        assert [text for batch in cut for text in batch] == texts
        assert all(1 <= len(batch) <= most for batch in cut)
        assert all(len(batch) == most for batch in cut[:-1])  # they are small, so only the number cuts


@pytest.mark.parametrize(
    ("words", "cut"), [([40_000] * 5, [2, 2, 1]), ([150_000, 1, 1], [1, 2]), ([1, 150_000], [1, 1])]
)
def test_a_batch_is_within_the_tokens_unless_it_is_one_long_text(words, cut):
    got = piled(("a " * n for n in words), 256, 100_000)
    assert [len(batch) for batch in got] == cut
    assert all(len(batch) == 1 or sum(map(estimate, batch)) <= 100_000 for batch in got)


def test_a_full_window_does_not_wait_for_the_next_text():
    texts = iter(["a", "b", 3])
    cut = windows(texts, 2)  # type: ignore[arg-type]
    assert next(cut) == ("a", "b")
    with pytest.raises(UsageError, match=r"texts\[2\] is int, not text"):
        next(cut)


def test_a_text_of_many_megabytes_is_cut_off_at_once():
    assert [len(window) for window in windows(["x y " * 4_000_000, "z"], 256)] == [1, 1]
    assert [len(batch) for batch in piled(["x y " * 4_000_000, "z"], 256, 100_000)] == [1, 1]


async def _all(source):
    return [batch async for batch in source]


def test_a_thread_reads_the_same_as_a_list():
    cut = [("a",), ("b", "c")]
    assert asyncio.run(_all(at_once(iter(cut)))) == asyncio.run(_all(in_thread(iter(cut)))) == cut


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_awaited():
    with pytest.raises(UsageError, match="empty"):
        asyncio.run(_all(in_thread(windows(["a", ""], 1))))


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
