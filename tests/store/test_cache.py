"""The cache of answers: one contract for every store of it, and what the file must survive."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import llmctl
from llmctl.core.caching import LARGEST, SKEW_S, Asked, Entry, Flight, Vector, packed
from llmctl.core.scope import Key
from llmctl.core.types import Completion, Thought, ToolCall
from llmctl.store.cache import SqliteCache
from llmctl.store.cache_rows import EVICTED, SWEPT, inflated, seal_of
from llmctl.store.cache_schema import STEPS
from llmctl.store.db import Database
from llmctl.testing import MemoryCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmctl.core.caching import Found, Tier

    Store = SqliteCache | MemoryCache

ROOT = str(Path(llmctl.__path__[0]).parent)
NOW = 1_000_000.25
TTL = 1000.0
BOTH: tuple[Tier, ...] = ("exact", "canonical")
EXACT: tuple[Tier, ...] = ("exact",)
FLIGHT = b"f" * 32
SECRET = "the-launch-code-is-0451"


def key(n: int, like: int | None = None) -> Key:
    """A key of one scope; those with an equal `like` have one canonical text."""
    return Key(b"s" * 32, b"e%031d" % n, None if like is None else b"c%031d" % like)


def entry(n: int, like: int | None = None, at: float = NOW, ttl_s: float = TTL, text: str = "", **fields: Any) -> Entry:
    answer = packed(Completion(text=text or f"answer {n}", finish_reason="stop"))
    made = Entry(
        f"{n}@{at}", key(n, like), at, at + ttl_s, "fast", "groq/llama", "groq", "fast-1", f"question {n}?", answer, n
    )
    return replace(made, **fields)


def ask(store: Store, *keys: Key, tiers: Sequence[Tier] = BOTH, at: float = NOW, ttl_s: float = TTL) -> Found | None:
    return store.find(keys, tiers, Asked("call", "asked"), at, ttl_s)


def answer(store: Store, *keys: Key, **how: Any) -> str | None:
    """The text that is found."""
    found = ask(store, *keys, **how)
    return None if found is None else found.entry.answer["text"]


def claim(
    store: Store, who: str, at: float = NOW, since: float | None = None, n: int = 1, lease_s: float = 10
) -> Flight:
    since = at if since is None else since
    return store.claim(FLIGHT, [key(n)], EXACT, Asked(who, None), at, ttl_s=TTL, lease_s=lease_s, since=since)


def forbid(store: Store, asked: Key, kept: Key) -> None:
    pairs = {(asked.exact, kept.exact), (kept.exact, asked.exact)}
    if isinstance(store, MemoryCache):
        store.forbidden |= pairs
    else:
        rows = [(*pair, NOW) for pair in pairs]
        sql = "INSERT OR IGNORE INTO forbidden (asked, entry, at) VALUES (?, ?, ?)"
        store.database.write(lambda connection: connection.executemany(sql, rows))


def query(file: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def make(kind: str, directory: Path, **limits: int) -> Store:
    return MemoryCache(**limits) if kind == "memory" else SqliteCache(directory / "home" / "cache.db", **limits)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache.db"


@pytest.fixture
def sqlite(file: Path) -> Iterator[SqliteCache]:
    store = SqliteCache(file, wait_s=0.05)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[Store]:
    """Every store of the contract."""
    store = make(kind, tmp_path)
    yield store
    assert store.warnings == []
    if isinstance(store, SqliteCache):
        store.close()


# The contract: finding and keeping.


def test_what_was_kept_is_found_as_it_was(store: Store) -> None:
    made = Completion(
        text="é\x00\ud800 \U0001f600",
        tool_calls=(ToolCall("1", "f", "{}", "s"),),
        thoughts=(Thought("t", "s"),),
        finish_reason="tool_calls",
    )
    kept = entry(
        1,
        7,
        prompt="\x00é日本",
        answer=packed(made, {"a": [1, None]}, "x"),
        cost_nanousd=None,
        documents=("a" * 64, "b" * 64),
    )
    assert ask(store, key(1)) is None
    assert store.put(kept, NOW)
    assert store.put(entry(3, at=1_000_000), NOW)  # an int
    assert answer(store, key(3)) == "answer 3"
    for _ in range(2):
        found = ask(store, key(2), key(1))
        assert found is not None
        assert (found.entry, found.tier) == (kept, "exact")


def test_each_tier_finds_by_its_own_key_and_the_first_that_does_wins(store: Store) -> None:
    assert store.put(entry(1, like=7, at=NOW + 1), NOW)
    assert store.put(entry(2), NOW)
    found = ask(store, key(3, like=7))
    assert found is not None
    assert (found.tier, found.entry.id) == ("canonical", entry(1, at=NOW + 1).id)
    assert answer(store, key(3, like=7), tiers=EXACT) is None
    assert answer(store, key(1), tiers=("canonical",)) is None
    assert answer(store, key(2, like=7)) == "answer 2"  # though an older one, and alike
    assert answer(store, key(3)) is None
    assert answer(store, key(2), tiers=()) is answer(store) is None


def test_the_newest_live_one_wins(store: Store) -> None:
    for n, at in ((1, NOW), (2, NOW + 2), (3, NOW + 1), (4, NOW + 2)):
        assert store.put(entry(n, like=7, at=at, ttl_s=9 if n == 2 else TTL), at)
    every = [key(n) for n in (1, 2, 3)]
    assert [answer(store, *every, at=NOW + t) for t in (3, 11)] == ["answer 2", "answer 3"]
    assert answer(store, key(9, like=7), at=NOW + 3) == "answer 4"  # of two that are as new, the later
    assert store.put(entry(5, like=7, at=NOW + 500), NOW + 500)
    assert answer(store, key(9, like=7), at=NOW + 3) == "answer 4"  # nor what comes from the future


@pytest.mark.parametrize(
    ("at", "ttl_s", "live"),
    [
        (NOW, TTL, True),
        (NOW + TTL - 0.01, TTL, True),
        (NOW + TTL, 9 * TTL, False),
        (NOW + 10, 10, False),  # the time to live was lowered since
        (NOW - SKEW_S, TTL, True),
        (NOW - SKEW_S - 0.01, TTL, False),  # the clock was set back
        (NOW, 0, False),
    ],
)
def test_an_entry_answers_in_its_time_only(store: Store, at: float, ttl_s: float, live: bool) -> None:
    assert store.put(entry(1, like=7), NOW)
    assert (answer(store, key(1), at=at, ttl_s=ttl_s) is not None) == live
    assert (answer(store, key(2, like=7), at=at, ttl_s=ttl_s) is not None) == live


def test_an_answer_stands_instead_of_the_one_before_it(store: Store) -> None:
    assert store.put(entry(1, like=7, at=NOW + 1), NOW)
    assert store.put(entry(1, like=8, text="other"), NOW)
    assert answer(store, key(1)) == "other"
    assert answer(store, key(2, like=7)) is None
    moved = entry(1, text="elsewhere", key=key(5))  # the same call
    assert store.put(moved, NOW)
    assert (answer(store, key(5)), answer(store, key(1))) == ("elsewhere", None)


def test_a_forbidden_pair_never_answers_nor_is_kept(store: Store) -> None:
    assert store.put(entry(1, like=7), NOW)
    assert store.put(entry(2, like=7, at=NOW - 1), NOW)
    forbid(store, key(3, like=7), key(1))
    assert answer(store, key(3, like=7)) == "answer 2"
    assert answer(store, key(4, like=7)) == answer(store, key(1)) == "answer 1"
    assert store.put(entry(3, like=7, at=NOW + 1), NOW)
    assert answer(store, key(1, like=7), tiers=("canonical",)) == "answer 1"  # the other way round neither
    forbid(store, key(4, like=7), key(4))
    assert not store.put(entry(4, like=7), NOW)
    forbid(store, key(1), key(1))
    assert answer(store, key(1)) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "x" * (LARGEST + 1)},
        {"answer": packed(Completion(text="é" * (LARGEST // 2), finish_reason="stop"))},
        {"answer": {"text": object()}},
        {"answer": {"text": json.loads("[" * 900 + "]" * 900), ("a",): 1}},
    ],
    ids=["prompt", "answer", "object", "key"],
)
def test_what_is_too_large_or_no_json_is_not_kept(store: Store, bad: dict[str, Any]) -> None:
    assert store.put(entry(1), NOW)
    assert not store.put(replace(entry(1), **bad), NOW)
    assert answer(store, key(1)) == "answer 1"


def test_what_was_used_longest_ago_makes_room_and_what_has_expired_before_it(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path, max_entries=3)
    for n in (1, 2, 3):
        assert store.put(entry(n), NOW + n)
    assert answer(store, key(1), at=NOW + 4)
    assert store.put(entry(4, ttl_s=9), NOW + 5)
    assert [bool(answer(store, key(n), at=NOW + 6)) for n in (1, 2, 3, 4)] == [True, False, True, True]
    assert store.put(entry(5, at=NOW + 9), NOW + 9)
    assert [bool(answer(store, key(n), at=NOW + 9)) for n in (1, 3, 4, 5)] == [True, True, False, True]
    none = make(kind, tmp_path / "none", max_entries=0)
    assert not none.put(entry(1), NOW)


def test_a_prompt_that_is_no_utf8_is_not_kept_since_no_key_could_be_derived_from_what_would_be(store: Store) -> None:
    assert not store.put(entry(1, prompt="why \ud800?"), NOW)
    assert ask(store, key(1)) is None


def test_bytes_are_limited_too_and_what_never_fits_takes_nobodys_place(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path, max_bytes=100_000)
    noise = [random.Random(n).randbytes(15_000).hex() for n in range(7)]  # it cannot be compressed below its half
    for n in range(5):
        assert store.put(entry(n, text=noise[n]), NOW + n)
    assert not store.put(entry(9, prompt="x" * 100_000), NOW + 5)
    assert all(answer(store, key(n), at=NOW + 6) for n in range(5))
    assert store.put(entry(5, text=noise[5]), NOW + 7)
    assert store.put(entry(6, text=noise[6] * 2), NOW + 8)
    held = [n for n in range(7) if answer(store, key(n), at=NOW + 9)]
    assert held[-2:] == [5, 6]
    assert 3 <= len(held) <= 5


# The contract: one call for all who ask the same.


def test_one_leads_and_the_others_get_its_answer(store: Store) -> None:
    assert claim(store, "a") == Flight(leads=True)
    assert [claim(store, who) for who in "bc"] == [Flight(), Flight()]
    assert store.claim(b"g" * 32, [key(1)], EXACT, Asked("b", None), NOW, ttl_s=TTL, lease_s=9, since=NOW).leads
    store.put(entry(1), NOW + 1)
    store.land(FLIGHT, "a", NOW + 1, gave_up=False)
    for who in "bd":
        found = claim(store, who, NOW + 2, since=NOW).found
        assert found is not None
        assert found.entry == entry(1)


def test_without_an_answer_to_share_those_who_waited_are_alone_and_who_comes_later_leads(store: Store) -> None:
    assert claim(store, "a").leads
    assert claim(store, "b") == Flight()
    store.land(FLIGHT, "a", NOW + 1, gave_up=True)
    assert claim(store, "c", NOW + 2) == Flight(leads=True)
    assert [claim(store, who, NOW + 3, since=NOW) for who in "bb"] == [
        Flight(alone=True)
    ] * 2  # also while another asks
    assert claim(store, "d", NOW + 3) == Flight()
    store.land(FLIGHT, "c", NOW + 4, gave_up=False)  # it was stopped: whoever waits goes on
    assert claim(store, "b", NOW + 5, since=NOW).alone
    assert claim(store, "d", NOW + 5, since=NOW + 3).leads


def test_a_lease_ends_unless_it_is_renewed_and_one_alone_takes_it_over(store: Store) -> None:
    assert claim(store, "a").leads
    store.renew(FLIGHT, "a", NOW + 8, 10)
    assert claim(store, "b", NOW + 17.9) == Flight()
    assert [claim(store, who, NOW + 18).leads for who in "bcd"] == [True, False, False]
    store.renew(FLIGHT, "a", NOW + 19, 1000)  # it is too late for that
    store.land(FLIGHT, "a", NOW + 19, gave_up=True)
    assert claim(store, "c", NOW + 20, since=NOW) == Flight()
    assert claim(store, "c", NOW + 28).leads


def test_a_lease_from_the_future_is_none(store: Store) -> None:
    assert claim(store, "a").leads
    assert claim(store, "b", NOW - SKEW_S) == Flight()
    assert claim(store, "b", NOW - SKEW_S - 1).leads
    store.land(FLIGHT, "b", NOW, gave_up=True)
    assert claim(store, "c", NOW - 100).leads


# The contract: vectors.


def test_vectors_are_kept_by_key_many_at_once(store: Store) -> None:
    rows = {b"k%031d" % n: Vector(b"%08d" % n, n or None) for n in range(1300)}
    store.put_vectors(rows, "openai/small", NOW)
    assert store.vectors([*rows, b"none", *list(rows)[:9]], NOW + 9e9) == rows
    first = next(iter(rows))
    store.put_vectors({first: Vector(b"other", 1)}, "openai/small", NOW)
    assert store.vectors([first], NOW) == {first: Vector(b"other", 1)}
    store.put_vectors({}, "openai/small", NOW)
    assert store.vectors([], NOW) == {}


def test_vectors_have_half_of_the_bytes_and_those_not_used_for_longest_make_room(kind: str, tmp_path: Path) -> None:
    store, day = make(kind, tmp_path, max_bytes=10_000), 86_400
    rows = {bytes([n]) * 32: Vector(bytes(850), None) for n in range(7)}
    for n, (name, vector) in enumerate(rows.items()):
        store.put_vectors({name: vector}, "m", NOW + n * day)
        store.vectors([bytes(32)], NOW + (n + 1) * day)  # the first is in use
    assert [name[0] for name in store.vectors(list(rows), NOW + 7 * day)] == [0, 3, 4, 5, 6]
    assert not store.put(entry(1, prompt="x" * 5000), NOW)
    assert store.put(entry(1, prompt="x" * 3000), NOW)


@pytest.mark.parametrize("pause_s", [60, 80_000, 86_400, 90_000])
def test_of_a_corpus_that_is_larger_than_their_share_as_much_as_fits_is_found_every_time(
    kind: str, tmp_path: Path, pause_s: float
) -> None:
    store, corpus = make(kind, tmp_path, max_bytes=40_000), [b"%032d" % n for n in range(40)]
    found = []
    for run in range(5):
        found.append(0)
        for at in range(0, 40, 4):
            now, some = NOW + run * pause_s + at, corpus[at : at + 4]
            kept = store.vectors(some, now)
            found[-1] += len(kept)
            store.put_vectors({key: Vector(bytes(850), None) for key in some if key not in kept}, "m", now)
    assert found == [0, 20, 20, 20, 20]


@pytest.mark.parametrize("examples", [25, pytest.param(2000, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ["sqlite"])
def test_every_store_agrees_with_the_one_in_memory(kind: str, examples: int) -> None:
    class Agreement(RuleBasedStateMachine):
        """Two stores told the same; time goes back too."""

        def __init__(self) -> None:
            super().__init__()
            self.now, self.n = NOW, 0
            self.directory = TemporaryDirectory()
            limits = {"max_entries": 4, "max_bytes": 40_000}
            self.stores = [make(each, Path(self.directory.name), **limits) for each in (kind, "memory")]

        def both(self, work: Any) -> Any:
            one, other = map(work, self.stores)
            assert one == other
            return one

        numbers = st.integers(0, 5)
        likes = st.none() | st.integers(0, 2)

        @rule(by=st.sampled_from([0.0, 0.25, 3.0, 40.0, -3.0, -30.0]))
        def passes(self, by: float) -> None:
            self.now += by

        @rule(n=numbers, like=likes, ttl_s=st.sampled_from([2.0, 50.0, 500.0]), size=st.sampled_from([1, 9000]))
        def keeps(self, n: int, like: int | None, ttl_s: float, size: int) -> None:
            self.n += 1
            made = entry(n, like, self.now, ttl_s, prompt="x" * size, id=str(self.n))
            self.both(lambda store: store.put(made, self.now))

        @rule(ns=st.lists(numbers, max_size=3), like=likes, tiers=st.sampled_from([BOTH, EXACT, ("canonical",)]))
        def finds(self, ns: list[int], like: int | None, tiers: Sequence[Tier]) -> None:
            keys = [key(n, like) for n in ns]
            self.both(lambda store: ask(store, *keys, tiers=tiers, at=self.now, ttl_s=100))

        @rule(one=numbers, other=numbers)
        def forbids(self, one: int, other: int) -> None:
            self.both(lambda store: forbid(store, key(one), key(other)))

        @rule(who=st.sampled_from("ab"), n=numbers, since=st.sampled_from([0.0, -2.0, -40.0]))
        def claims(self, who: str, n: int, since: float) -> None:
            self.both(lambda store: claim(store, who, self.now, self.now + since, n))

        @rule(who=st.sampled_from("ab"), gave_up=st.booleans())
        def lands(self, who: str, gave_up: bool) -> None:
            self.both(lambda store: store.land(FLIGHT, who, self.now, gave_up=gave_up))

        @rule(who=st.sampled_from("ab"))
        def renews(self, who: str) -> None:
            self.both(lambda store: store.renew(FLIGHT, who, self.now, 10))

        @invariant()
        def nobody_was_told_of_trouble(self) -> None:
            assert self.stores[0].warnings == []

        def teardown(self) -> None:
            store = self.stores[0]
            assert isinstance(store, SqliteCache)
            store.close()
            counted = "SELECT count(*), total(bytes) FROM entries"
            if os.path.exists(store.database.path):
                path = Path(store.database.path)
                assert query(path, counted) == query(path, "SELECT count, bytes FROM totals WHERE name = 'entries'")
                orphans = "SELECT count(*) FROM texts WHERE entry NOT IN (SELECT n FROM entries)"
                assert query(path, orphans) == [(0,)]
            self.directory.cleanup()

    run_state_machine_as_test(Agreement, settings=settings(max_examples=examples, stateful_step_count=30))


# The file.


def filled(file: Path, count: int = 3, **limits: int) -> SqliteCache:
    store = SqliteCache(file, wait_s=0.05, **limits)
    for n in range(count):
        assert store.put(entry(n, like=n, at=NOW + n, documents=("d" * 64,)), NOW + n)
    return store


def test_a_seal_knows_where_one_value_ends_and_what_kind_it_is() -> None:
    seals = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), ("x", None), (b"'x'", None), (1, 2), (12,), (1.0, 2)]
    assert len({seal_of(*values) for values in seals}) == len(seals)


def test_where_no_more_entries_are_wanted_none_is_kept_and_none_let_go(file: Path) -> None:
    filled(file, 2).close()
    assert not SqliteCache(file, max_entries=0).put(entry(9), NOW)
    assert query(file, "SELECT count(*) FROM entries") == [(2,)]


def test_looking_touches_nothing_and_what_is_made_is_private(file: Path, sqlite: SqliteCache) -> None:
    assert ask(sqlite, key(1)) is None
    assert sqlite.vectors([b"k"], NOW) == {}
    assert not file.parent.exists()
    before = os.umask(0)
    try:
        sqlite.put(entry(1), NOW)
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}


def test_a_hit_is_counted_and_leaves_an_audit_row_whose_text_lives_as_long_as_the_entry(file: Path) -> None:
    store = filled(file)
    for call, asked, text in (("x1", key(1), "Q1"), ("x2", key(9, like=1), "q one"), ("x3", key(9, like=1), None)):
        assert store.find([key(8), asked], BOTH, Asked(call, text), NOW + 5, TTL)
    assert claim(store, "x4", NOW + 6, n=1).found
    rows = query(file, "SELECT id, entry, tier, at, age_s, asked, answered, prompt FROM hits")
    one, other, name = key(1).exact, key(9).exact, entry(1, at=NOW + 1).id
    assert rows == [
        ("x1", name, "exact", NOW + 5, 4.0, one, one, None),
        ("x2", name, "canonical", NOW + 5, 4.0, other, one, "q one"),
        ("x3", name, "canonical", NOW + 5, 4.0, other, one, None),
        ("x4", name, "exact", NOW + 6, 5.0, one, one, None),
    ]
    assert query(file, "SELECT hits, used_at FROM entries WHERE id = ?", name) == [(4, NOW + 6)]
    assert store.put(entry(1), NOW + 7)
    assert query(file, "SELECT id, prompt FROM hits") == [(f"x{n}", None) for n in (1, 2, 3, 4)]


def test_a_look_without_a_call_finds_the_same_and_leaves_no_trace(store: Store) -> None:
    found = store.put(entry(1), NOW) and store.find([key(1)], BOTH, Asked("", None), NOW + 1, TTL)
    assert found
    assert found.entry.id == entry(1).id
    if isinstance(store, MemoryCache):
        assert store.hits == []
    else:
        look = "SELECT hits, used_at, (SELECT count(*) FROM hits) FROM entries"
        assert store.database.read(lambda connection: connection.execute(look).fetchall()) == [(0, NOW, 0)]


def test_the_newest_ten_thousand_audit_rows_are_kept(file: Path) -> None:
    store = filled(file)
    numbers = "WITH RECURSIVE i (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 10100)"
    query(file, f"{numbers} INSERT INTO hits SELECT n, 'c', 'e', 'exact', 0, 0, x'00', x'00', NULL, 1 FROM i")
    assert ask(store, key(1), at=NOW + 5)
    assert query(file, "SELECT count(*), min(n), max(n) FROM hits") == [(10_000, 102, 10_101)]


def test_what_has_expired_goes_a_few_with_each_that_is_kept_and_so_does_what_is_too_much(file: Path) -> None:
    store = filled(file, 0)
    for n in range(30):
        assert store.put(entry(n, ttl_s=TTL - n, documents=("d" * 64,)), NOW + n)
    assert store.put(entry(99, at=NOW + 2 * TTL), NOW + 2 * TTL)
    left = query(file, "SELECT cost_nanousd FROM entries ORDER BY n")
    assert left == [*((n,) for n in range(30 - SWEPT)), (99,)]  # what had expired first is gone
    small = SqliteCache(file, max_entries=5)
    assert small.put(entry(98, at=NOW + 2 * TTL), NOW + 2 * TTL)
    assert query(file, "SELECT count(*) FROM entries") == [(5,)]
    assert query(file, "SELECT count(*) FROM documents") == [(3,)]


def test_no_call_removes_more_than_it_has_time_for_and_the_cache_does_not_grow_meanwhile(file: Path) -> None:
    store = filled(file, EVICTED + 60)
    store.close()
    small = SqliteCache(file, max_entries=5)
    counts = []
    for n in (9000, 9001, 9002):
        assert small.put(entry(n), NOW + 999)
        counts.append(query(file, "SELECT count(*) FROM entries")[0][0])
    assert counts == [61, 5, 5]


def test_what_is_replaced_is_overwritten_in_the_file_and_its_journal(file: Path, sqlite: SqliteCache) -> None:
    def found() -> bool:
        return any(SECRET.encode() in path.read_bytes() for path in file.parent.iterdir())

    assert sqlite.put(entry(1, prompt=SECRET), NOW)
    sqlite.close()
    assert found()
    assert sqlite.put(entry(1), NOW)
    sqlite.close()
    assert not found()


def test_a_file_in_use_by_a_writer_still_answers_and_nobody_waits_long(file: Path) -> None:
    store = filled(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert answer(store, key(1), at=NOW + 5) == "answer 1"
        assert claim(store, "a", NOW + 5, n=7) == Flight(leads=True)
        assert claim(store, "a", NOW + 5).found
        assert not store.put(entry(9), NOW + 5)
        store.renew(FLIGHT, "a", NOW, 9)
        store.land(FLIGHT, "a", NOW, gave_up=True)
    assert store.warnings == []
    assert query(file, "SELECT count(*) FROM hits") == [(0,)]
    assert store.put(entry(9), NOW + 5)


def test_threads_may_use_one_store(file: Path) -> None:
    store = filled(file)

    def work(n: int) -> bool:
        return store.put(entry(n, at=NOW + 3), NOW + 3) and answer(store, key(n), at=NOW + 4) == f"answer {n}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(10, 90)))
    assert store.warnings == []


SWAPPED = """
UPDATE entries SET exact = x'00' WHERE n = 2;
UPDATE entries SET exact = 'e0000000000000000000000000000001' WHERE n = 3;
UPDATE entries SET exact = CAST(exact AS BLOB)
"""


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("UPDATE texts SET answer = (SELECT answer FROM texts WHERE entry = 1) WHERE entry = 2", ()),
        (SWAPPED, ()),
        ("UPDATE entries SET created_at = created_at + 1", ()),
        ("UPDATE entries SET served_by = 'openai/other'", ()),
        ("UPDATE entries SET cost_nanousd = 7.5", ()),
        ("UPDATE texts SET answer = ?", (zlib.compress(bytes(1 << 26)),)),
        ("UPDATE texts SET answer = zeroblob(0)", ()),
        ("UPDATE texts SET answer = 'text'", ()),
        ("DELETE FROM texts", ()),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_row_that_others_changed_answers_nobody(file: Path, sql: str, values: tuple[object, ...]) -> None:
    store = filled(file)
    with closing(sqlite3.connect(file)) as other, other:
        for statement in sql.split(";"):
            other.execute(statement, values)
    assert answer(store, key(1), at=NOW + 5) is None
    assert answer(store, key(9, like=1), at=NOW + 5) is None
    assert store.put(entry(1, like=1, at=NOW + 6), NOW + 6)
    assert answer(store, key(1), at=NOW + 6) == "answer 1"


def test_a_row_larger_than_any_is_not_read_and_the_file_is_moved_aside(file: Path) -> None:
    store = filled(file)
    query(file, "UPDATE texts SET prompt = ?", "x" * (3 * LARGEST))
    assert answer(store, key(1), at=NOW + 5) is None
    assert (usable(store), len(store.warnings)) == (True, 1)


def test_a_few_bytes_that_stand_for_gigabytes_are_not_inflated() -> None:
    text = b"{}" + b" " * (LARGEST - 2)
    assert inflated(zlib.compress(text)) == text
    for bad in (zlib.compress(text + b" "), zlib.compress(bytes(1 << 26)), zlib.compress(text)[:-1], b"", b"x" * 99):
        with pytest.raises(ValueError, match="entry"):
            inflated(bad)


def test_leases_that_nobody_can_wait_for_any_more_are_cleared_away(file: Path, sqlite: SqliteCache) -> None:
    def take(n: int, at: float) -> None:
        assert sqlite.claim(b"%032d" % n, [key(n)], EXACT, Asked("a", None), at, ttl_s=1, lease_s=9, since=at).leads

    for n in range(9):
        take(n, NOW)
    take(10, NOW + 3600)
    assert query(file, "SELECT count(*) FROM leases") == [(10,)]
    take(11, NOW + 3610)
    assert query(file, "SELECT count(*) FROM leases") == [(2,)]


@pytest.mark.parametrize("bad", ["stop", "refused", "list"])
def test_an_entry_of_another_shape_is_a_miss_and_is_removed(file: Path, sqlite: SqliteCache, bad: str) -> None:
    whole = entry(1, like=1).answer
    shapes: dict[str, Any] = {"stop": {**whole, "finish_reason": "length"}, "refused": {"text": "x"}, "list": [1]}
    assert sqlite.put(entry(1, like=1, answer=shapes[bad]), NOW)
    assert claim(sqlite, "a").leads
    assert query(file, "SELECT count(*) FROM entries") == [(0,)]
    assert sqlite.put(entry(1, like=1, answer=shapes[bad]), NOW)
    assert (ask(sqlite, key(1)), query(file, "SELECT count(*) FROM texts")) == (None, [(0,)])


def test_totals_that_are_wrong_are_counted_anew(file: Path) -> None:
    store = filled(file)
    right = query(file, "SELECT name, count, bytes FROM totals")
    for sql in ("UPDATE totals SET count = -5", "UPDATE totals SET bytes = 'x'", "DELETE FROM totals"):
        query(file, sql)
        assert store.put(entry(1, like=1, at=NOW + 5, documents=("d" * 64,)), NOW + 5)
        assert query(file, "SELECT name, count, bytes FROM totals") == right
    query(file, "UPDATE totals SET count = 4000000, bytes = 1 << 60")
    assert store.put(entry(1), NOW + 5)
    assert store.put(entry(2), NOW + 5)
    assert query(file, "SELECT count FROM totals") == [(2,), (0,)]


# A file that is not, or no longer, a cache.


def usable(store: SqliteCache) -> bool:
    """Whether it keeps and finds; everything else must go without an error all the same."""
    kept = store.put(entry(1), NOW)
    assert answer(store, key(1)) == ("answer 1" if kept else None)
    vector = {b"k": Vector(b"v", None)}
    store.put_vectors(vector, "m", NOW)
    assert store.vectors([b"k"], NOW) == (vector if kept else {})
    assert claim(store, "a", n=5).leads
    assert claim(store, "b", n=5) == Flight(leads=not kept)
    store.renew(FLIGHT, "a", NOW, 9)
    store.land(FLIGHT, "a", NOW, gave_up=True)
    store.close()
    return kept


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE entries (id, mine)")
        other.execute("INSERT INTO entries VALUES (1, 'precious')")


@pytest.mark.parametrize("how", ["text", "foreign", "foreign of a version", "no tables", "truncated"])
def test_what_is_no_cache_is_moved_aside_whole_and_said_once(file: Path, how: str) -> None:
    filled(file).close()
    if how.startswith("foreign"):
        file.unlink()
        foreign(file)
        query(file, f"PRAGMA user_version = {1 if 'version' in how else 0}")
    elif how == "no tables":
        query(file, "DROP TABLE texts")
    else:
        file.write_bytes(b"not a database " * 999 if how == "text" else file.read_bytes()[:5000])
    before = file.read_bytes()
    store = SqliteCache(file)
    assert ask(store, key(1)) is None
    assert usable(store)
    (aside,) = [path for path in file.parent.iterdir() if ".corrupt-" in path.name]
    assert (aside.read_bytes(), len(store.warnings)) == (before, 1)
    assert str(aside) in store.warnings[0]
    assert ("another program" in store.warnings[0]) == how.startswith("foreign")


@pytest.mark.parametrize("how", ["directory", "link", "newer tables"])
def test_what_is_in_the_way_is_said_once_and_left_alone(file: Path, tmp_path: Path, how: str) -> None:
    file.parent.mkdir()
    if how == "directory":
        file.mkdir()
    elif how == "link":
        foreign(tmp_path / "target")
        file.symlink_to(tmp_path / "target")
    else:
        tables = ("totals", "leases")
        database = Database(file, (*STEPS, lambda c: [c.execute(f"DROP TABLE {each}") for each in tables]))  # type: ignore[list-item,arg-type,return-value]
        database.write(lambda _: None)
        database.close()
    store = SqliteCache(file)
    for _ in range(2):
        assert not usable(store)
    assert (len(store.warnings), str(file) in store.warnings[0]) == (1, True)
    assert [path.name for path in file.parent.iterdir() if "corrupt" in path.name] == []


def test_a_file_of_a_newer_version_is_used(file: Path) -> None:
    def newer(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE entries ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")

    database = Database(file, (*STEPS, newer))
    database.write(lambda _: None)
    database.close()
    store = SqliteCache(file)
    assert (usable(store), store.warnings) == (True, [])
    assert query(file, "PRAGMA user_version") == [(len(STEPS) + 1,)]


def run(script: str, *args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Python 3.12 warns of any fork beside threads; that it goes well is what is tested here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PARTS + script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **how,
    )


PARTS = """
import os, resource, signal, sys, time
from llmctl.core.caching import Asked, Entry
from llmctl.core.scope import Key
from llmctl.store.cache import SqliteCache
KEY = Key(b"s" * 32, b"e" * 32, b"c" * 32)
ANSWER = {"text": "yes", "reasoning": "", "reported_model": "", "system_fingerprint": "", "finish_reason": "stop",
          "tool_calls": [], "thoughts": []}
def entry(n, size=1):
    key = KEY._replace(exact=b"%032d" % n) if n else KEY
    return Entry(f"{n}", key, 1e6, 2e9, "fast", "o/m", "o", "d", os.urandom(size).hex(), ANSWER)
def found(cache):
    return cache.find([KEY], ("exact",), Asked("c", "q"), 1e6, 1e9) is not None
"""
UNWRITABLE = """
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
cache = SqliteCache(sys.argv[1])
print(found(cache), cache.put(entry(0), 1e6), cache.put(entry(0), 1e6), found(cache), len(cache.warnings))
"""
FULL = """
cache = SqliteCache(sys.argv[1])
assert cache.put(entry(0), 1e6)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
kept = [cache.put(entry(n, 4000), 1e6) for n in range(1, 60)]
print(all(kept), found(cache) or not int(sys.argv[2]), len(cache.warnings) <= 2)
"""


def test_a_directory_that_cannot_be_written_is_a_miss_and_said_once(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    done = run(UNWRITABLE, "cache.db", cwd=closed)  # from within: who is no longer root may not come from outside
    assert (done.stdout, done.stderr) == ("False False False False 1\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_another_user_is_not_used(file: Path) -> None:
    filled(file).close()
    os.chown(file, 1234, 1234)
    store = SqliteCache(file)
    assert not usable(store)
    assert (len(store.warnings), "another user" in store.warnings[0]) == (1, True)


@pytest.mark.parametrize("limit", [0, 200_000])
def test_a_full_disk_keeps_no_more_and_damages_nothing(file: Path, limit: int) -> None:
    done = run(FULL, file, limit)
    assert (done.stdout, done.stderr) == ("False True True\n", "")
    store = SqliteCache(file)
    assert store.put(entry(1), NOW)
    assert (store.warnings, query(file, "PRAGMA integrity_check")) == ([], [("ok",)])


@pytest.mark.parametrize("count", [30, pytest.param(3000, marks=pytest.mark.full)])
def test_a_damaged_file_never_fails_and_never_answers_with_anything_else(tmp_path: Path, count: int) -> None:
    whole = tmp_path / "whole.db"
    dice = random.Random(count)
    store = filled(whole, 40)
    vectors = {b"k%d" % n: Vector(dice.randbytes(400), n) for n in range(20)}
    store.put_vectors(vectors, "m", NOW)
    assert claim(store, "a", n=900).leads
    store.close()
    data = whole.read_bytes()
    pages, right, moved = (
        len(data) // 4096,
        {n: entry(n, like=n, at=NOW + n, documents=("d" * 64,)) for n in range(40)},
        0,
    )
    for n in range(count):
        copy = bytearray(data[: dice.randrange(len(data))] if n % 10 == 9 else data)
        for page in range(pages) if n % 2 else [dice.randrange(pages)]:
            for at in range(dice.choice((1, 1, 8))):
                where = page * 4096 + dice.choice(
                    (dice.randrange(4096), dice.randrange(100), 4095 - dice.randrange(900))
                )
                if where + at < len(copy):
                    copy[where + at] ^= dice.randrange(1, 256)
        place = tmp_path / "copy"
        place.mkdir()
        (place / "cache.db").write_bytes(copy)
        store = SqliteCache(place / "cache.db")
        for k in dice.sample(range(40), 8):
            for found in (ask(store, key(k), at=NOW + 50), ask(store, key(99, like=k), at=NOW + 50)):
                assert found is None or found.entry == replace(right[k], documents=found.entry.documents)
        for name, vector in store.vectors(list(vectors), NOW + 50).items():
            assert vector == vectors[name]
        claim(store, "b", NOW + 50, n=901)
        if store.put(entry(77), NOW + 50):
            assert answer(store, key(77), at=NOW + 50) in ("answer 77", None)
        store.close()
        moved += any("corrupt" in path.name for path in place.iterdir())
        shutil.rmtree(place)
    assert moved > count / 10


# Many processes. Children wait for the end of a pipe, so that all of them begin at one instant.

SINGLE_FLIGHT = """
path, count, killed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if killed < 0:
    before = SqliteCache(path)  # in use before the forks
    before.put(entry(5), 1e6)
gun, pull = os.pipe()
said, say = os.pipe()
children = set()
for n in range(count):
    child = os.fork()
    if child:
        children.add(child)
        continue
    os.close(pull)
    os.read(gun, 1)
    cache = before if killed < 0 else SqliteCache(path, wait_s=60)
    since, asked = time.time(), Asked(str(n), None)
    for _ in range(3000):
        got = cache.claim(b"f" * 32, [KEY], ("exact",), asked, time.time(), ttl_s=1e12, lease_s=60, since=since)
        if got.leads:
            os.write(say, b"L")
            if killed > 0 and os.path.exists(path + ".kill"):
                os.unlink(path + ".kill")
                cache.renew(b"f" * 32, str(n), time.time(), 0.3)
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
            assert cache.put(entry(0), time.time())
            cache.land(b"f" * 32, str(n), time.time(), gave_up=False)
        if got.leads or got.found:
            os.write(say, b"." if not cache.warnings else b"W")
            break
        time.sleep(0.02)
    os._exit(0)
os.close(pull)
os.close(say)
for child in children:
    os.waitpid(child, 0)
words = b""
while piece := os.read(said, 4096):
    words += piece
print(words.count(b"L"), words.count(b"."), len(words))
"""


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.full)])
@pytest.mark.parametrize(("killed", "leaders"), [(0, 1), (1, 2), (-1, 1)], ids=["new file", "killed", "forked"])
def test_processes_that_ask_the_same_have_one_leader_and_none_is_lost(
    file: Path, count: int, killed: int, leaders: int
) -> None:
    if killed > 0:
        file.parent.mkdir()
        Path(f"{file}.kill").touch()
    done = run(SINGLE_FLIGHT, file, count, killed)
    served = count - (killed > 0)
    assert (done.stdout.split(), done.stderr) == ([str(leaders), str(served), str(leaders + served)], "")
    assert query(file, "PRAGMA integrity_check") == [("ok",)]


def test_an_exact_hit_imports_nothing_heavy(file: Path) -> None:
    script = "cache = SqliteCache(sys.argv[1]); cache.put(entry(0), 1e6); assert found(cache)\n"
    script += "names = ('asyncio', 'concurrent', 'httpx', 'pydantic', 'sqlite_utils', 'tempfile', 'logging')\n"
    assert run(script + "print([n for n in names if n in sys.modules])", file).stdout == "[]\n"
