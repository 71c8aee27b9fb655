"""What is removed from the cache is gone from every byte of it; who runs goes on; what was called bad never answers."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.caching import Asked, Entry, Vector, packed
from llmctl.core.canonical import canonical
from llmctl.core.errors import StateUnusable, UsageError
from llmctl.core.scope import content_hash, digest, key_of
from llmctl.core.types import Completion
from llmctl.store.cache import SqliteCache
from llmctl.store.cache_audit import why
from llmctl.store.cache_reading import list_entries, show_entry, stats
from llmctl.store.cache_upkeep import Choice, forbid, purge

if TYPE_CHECKING:
    from pathlib import Path

NOW, DAY = 1_800_000_000.0, 86400.0
SCOPE = digest("scope")
BOTH = ("exact", "canonical")
ALL = Choice(everything=True)
DOC = content_hash("the handbook")


def word(name: object) -> str:
    """A word that is in one text only."""
    return "".join(random.Random(str(name)).choices("bcdfghjklmnpqrstvwxz", k=30))


class Home:
    """A cache file, filled and asked through the store itself."""

    def __init__(self, path: Path) -> None:
        path.mkdir(0o700, exist_ok=True)
        self.path, self.file = path, path / "cache.db"
        self.cache = SqliteCache(self.file)

    def put(self, name: str, prompt: str = "", answer: str = "", **changes: Any) -> Entry:
        prompt = prompt or f"what is {name}?"
        made = Completion(text=answer or f"{name} it is", finish_reason="stop")
        values: dict[str, Any] = {
            "id": name.upper(), "key": key_of(SCOPE, (prompt,), canonical(prompt)), "created_at": NOW,
            "expires_at": NOW + DAY, "group": "fast", "served_by": "groq/llama", "provider": "groq", "deployment": "d",
            "prompt": prompt, "answer": packed(made), "cost_nanousd": 1000,
        }  # fmt: skip
        entry = Entry(**values | changes)
        assert self.cache.put(entry, NOW)
        return entry

    def ask(self, prompt: str, call: str, *, tiers: Any = BOTH, now: float = NOW + 60, text: bool = True) -> str | None:
        """The tier that answers, if one does."""
        key = key_of(SCOPE, (prompt,), canonical(prompt))
        found = self.cache.find([key], tiers, Asked(call, prompt if text else None), now, 9 * DAY)
        return found and found.tier

    def purge(self, choice: Choice = Choice(), *, now: float = NOW, **options: Any) -> dict[str, Any]:  # noqa: B008
        return purge(self.file, choice, now, **options)

    def why(self, reference: str, call_of: Any = None, now: float = NOW + 120) -> dict[str, Any]:
        return why(self.file, reference, call_of or (lambda _: {}), now)

    def left(self) -> set[str]:
        return {row["id"] for row in list_entries(self.file, NOW, 0)}

    def bytes(self) -> bytes:
        return b"".join(each.read_bytes() for each in self.path.iterdir())

    def change(self, sql: str) -> None:
        self.cache.close()
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute(sql)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def fill(home: Home) -> None:
    home.put("mine", group="mine", served_by="openai/gpt")
    home.put("read", documents=(DOC,), answer="see § 12 of the HANDBOOK, “straße”")
    home.put("only", key=key_of(SCOPE, ("only",)))
    home.cache.put_vectors({b"k" * 32: Vector(b"\0" * 64, 5)}, "openai/gpt", NOW - 2 * DAY)
    home.put("old", created_at=NOW - 8 * DAY, expires_at=NOW - DAY)  # last: the next one would let it go


@pytest.mark.parametrize(
    ("choice", "gone", "vectors"),
    [
        (Choice(), {"OLD"}, 0),
        (Choice(before=NOW - 7 * DAY), {"OLD"}, 0),
        (Choice(before=NOW - DAY), {"OLD"}, 1),
        (Choice(model="mine"), {"MINE"}, 0),
        (Choice(model="openai/gpt"), {"MINE"}, 1),
        (Choice(kind="exact"), {"OLD", "MINE", "READ", "ONLY"}, 0),
        (Choice(kind="canonical"), {"OLD", "MINE", "READ"}, 0),
        (Choice(kind="semantic"), set(), 0),
        (Choice(kind="vectors"), set(), 1),
        (Choice(documents=(DOC, "0" * 64)), {"READ"}, 0),
        (Choice(documents=("0" * 64,)), set(), 0),
        (Choice(text="handbook, “STRASSE”"), {"READ"}, 0),
        (Choice(text="WHAT is mine"), {"MINE"}, 0),
        (Choice(text="finish_reason"), set(), 0),
        (Choice(kind="canonical", before=NOW - DAY, model="mine"), set(), 0),
        (ALL, {"OLD", "MINE", "READ", "ONLY"}, 1),
    ],
)
def test_a_purge_removes_what_all_filters_fit_and_a_dry_run_counts_the_same(
    home: Home, choice: Choice, gone: set[str], vectors: int
) -> None:
    fill(home)
    before = home.left()
    counted, still = home.purge(choice, dry_run=True), home.left()
    done = home.purge(choice)
    size = len(gone) + vectors
    assert (still, home.left()) == (before, before - gone)
    assert (counted["matched"], counted["deleted"], counted["bytes_freed"], counted["dry_run"]) == (size, 0, 0, True)
    assert (done["matched"], done["deleted"], done["bytes_freed"] > 0, done["dry_run"]) == (size, size, size > 0, False)
    assert (done["kinds"]["exact"], done["kinds"]["vectors"], done["also_in"]) == (len(gone), vectors, [])
    told = stats(home.file, NOW)
    assert (told["entries"], told["vectors"], told["health"]) == (4 - len(gone), 1 - vectors, "ok")


def fill_with_secrets(home: Home, count: int, dice: random.Random) -> list[str]:
    """Prompts of all lengths, each of one of five documents; a third is made anew, short ones are found reworded."""
    lengths = dice.choices((0, 3, 40, 90, 300, 900), k=count)
    for n in [*range(count), *range(0, count, 3)]:
        prompt = f"what is {word(n)} {'filler ' * lengths[n]}"
        home.put(f"e{n}-{dice.random()}", prompt, "blah " * dice.randrange(200), documents=(content_hash(str(n % 5)),))
        assert home.ask(f"please {prompt}", f"call-{n}") == (None if lengths[n] > 90 else "canonical")
    return [word(n) for n in range(count)]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a process that has it open"])
@pytest.mark.parametrize("seed", [103, *(pytest.param(n, marks=pytest.mark.full) for n in range(104, 110))])
def test_what_is_purged_is_in_no_byte_of_any_file(home: Home, beside: bool, seed: int) -> None:
    words = fill_with_secrets(home, 75, random.Random(seed))
    other = SqliteCache(home.file)
    if beside:
        assert other.find([key_of(SCOPE, ("nobody",))], ("exact",), Asked("x", None), NOW, DAY) is None
    for gone in range(-1, 5):  # pages are joined by one purge, and emptied of what was moved by the next
        done = home.purge(Choice(documents=(content_hash(str(gone)),)))
        assert (done["deleted"], done["also_in"]) == (15 * (gone >= 0), [])
        data = home.bytes()
        assert [n for n, each in enumerate(words) if each.encode() in data] == [n for n in range(75) if n % 5 > gone]
        assert home.cache.warnings == []
    other.close()


def test_where_a_reader_stays_it_is_said_and_the_next_purge_makes_up_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.store.cache_upkeep._PATIENCE_S", 0.05)
    home.put("kept", f"what is {word(1)}")
    with closing(sqlite3.connect(home.file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        done = home.purge(ALL)
        assert (done["deleted"], done["also_in"]) == (1, [str(home.file)])
        assert home.left() == set()
    assert home.purge()["also_in"] == []
    assert word(1).encode() not in home.bytes()


def test_a_purge_of_everything_forgets_also_who_was_answered(home: Home) -> None:
    home.put("kept")
    assert home.ask("what is kept?", "call") == "exact"
    home.purge(ALL)
    home.put("kept")
    assert show_entry(home.file, "kept", NOW)["answered"] == []


def test_of_a_question_in_several_parts_the_key_is_not_derived_again(home: Home) -> None:
    key = key_of(SCOPE, ("one", "two"))
    home.put("parts", "one\ntwo", key=key)
    assert home.cache.find([key], BOTH, Asked("CALL", None), NOW + 60, DAY)
    told = home.why("CALL")
    assert ({each["name"]: each["ok"] for each in told["checks"]}["request"], told["agrees"]) == (None, None)


def test_a_dry_run_and_a_look_at_no_cache_make_none(home: Home) -> None:
    zeros = {"matched": 0, "deleted": 0, "bytes_freed": 0, "dry_run": False}
    assert zeros.items() <= home.purge(ALL).items()
    assert home.purge(dry_run=True)["dry_run"]
    told = stats(home.file, NOW)
    assert (told["exists"], told["entries"], told["bytes"], told["health"], home.left()) == (False, 0, 0, "ok", set())
    assert not list(home.path.iterdir())
    fill(home)
    home.cache.close()
    before = home.file.read_bytes()
    home.purge(ALL, dry_run=True)
    assert home.file.read_bytes() == before


def test_a_purge_leaves_calls_that_are_under_way_their_lead_and_their_answer(home: Home) -> None:
    key = key_of(SCOPE, ("what is q?",), canonical("what is q?"))
    options = {"ttl_s": DAY, "lease_s": 15.0, "since": NOW}
    assert home.cache.claim(b"f" * 32, [key], BOTH, Asked("a", None), NOW, **options).leads
    fill(home)
    assert home.purge(ALL)["deleted"] == 5
    waiting = home.cache.claim(b"f" * 32, [key], BOTH, Asked("b", None), NOW, **options)
    assert (waiting.leads, waiting.alone, waiting.found) == (False, False, None)
    home.put("q")
    home.cache.land(b"f" * 32, "a", NOW, gave_up=False)
    assert home.cache.claim(b"f" * 32, [key], BOTH, Asked("b", None), NOW, **options).found is not None
    assert home.cache.warnings == []


# ---------------------------------------------------------------- a wrong answer


def test_what_was_called_bad_is_gone_and_never_kept_again_even_after_a_purge_of_everything(home: Home) -> None:
    """No way to delete or correct one bad answer: zilliztech/GPTCache#548, BerriAI/litellm#2838."""
    entry = home.put("bad", f"what is {word(1)}?")
    home.put("good")
    assert home.ask(entry.prompt, "CALL") == "exact"
    told = forbid(home.file, "CALL", NOW)
    assert told == {"id": "CALL", "entry": "BAD", "tier": "exact", "removed": 1, "forbidden": True, "also_in": []}
    assert word(1).encode() not in home.bytes()
    again = forbid(home.file, "BAD", NOW)
    assert (again["removed"], again["forbidden"]) == (0, False)
    for choice in (Choice(), ALL):
        home.purge(choice)
        assert not home.cache.put(entry, NOW)
        assert home.ask(entry.prompt, "C2") is None
    assert stats(home.file, NOW)["forbidden"] == 1


def test_a_wording_that_got_a_wrong_answer_never_gets_it_again_and_the_question_itself_may(home: Home) -> None:
    entry = home.put("first", "What is the capital of France?")
    other = "please tell me, what is the capital of france"
    if home.ask(other, "CALL") is None:
        other = "what's the capital of france"
        assert home.ask(other, "CALL") == "canonical"
    assert forbid(home.file, "call", NOW)["tier"] == "canonical"
    assert home.left() == set()
    assert home.cache.put(entry, NOW)
    assert (home.ask(entry.prompt, "A"), home.ask(other, "B")) == ("exact", None)
    home.put("second", other)
    assert (home.ask(entry.prompt, "A"), home.ask(other, "B")) == ("exact", "exact")
    home.purge(Choice(text=entry.prompt))
    assert (home.ask(entry.prompt, "A"), home.ask(other, "B")) == (None, "exact"), "nor the other way round"


def test_only_what_is_known_can_be_called_bad(home: Home) -> None:
    with pytest.raises(UsageError, match="nothing is kept"):
        forbid(home.file, "X", NOW)
    home.put("one1")
    home.put("one2")
    for reference, words in (("X", "neither"), ("last", "neither"), ("one", "several"), ("", "neither")):
        with pytest.raises(UsageError, match=words):
            forbid(home.file, reference, NOW)
    assert home.left() == {"ONE1", "ONE2"}


# ---------------------------------------------------------------- why


def test_every_hit_is_derived_again_and_says_what_both_sides_asked(home: Home) -> None:
    """Similarity is invisible: vllm-project/semantic-router#1616."""
    home.put("entry", "What is the capital of France?")
    for prompt, tier in (("What is the capital of France?", "exact"), ("what's the capital of france", "canonical")):
        assert home.ask(prompt, tier) == tier
        told = home.why(tier)
        assert (told["agrees"], told["tier"], told["asked"], told["age_s"]) == (True, tier, prompt, 60.0)
        assert (told["entry"]["prompt"], told["today"]["answers"]) == ("What is the capital of France?", True)
        assert [check["ok"] for check in told["checks"]] == [True] * 6
    assert home.why("last")["id"] == "canonical"


@pytest.mark.parametrize(
    ("sql", "failed"),
    [
        ("UPDATE hits SET prompt = 'what is the capital of Italy'", {"request", "canonical"}),
        ("UPDATE hits SET asked = zeroblob(32)", {"request"}),
        ("UPDATE hits SET age_s = age_s + 1", {"age"}),
        ("UPDATE hits SET at = at + 86400, age_s = age_s + 86400", {"age"}),
        ("UPDATE texts SET prompt = 'What is the capital of Spain?'", {"entry"}),
        ("INSERT INTO forbidden SELECT asked, answered, at - 1 FROM hits", {"allowed"}),
    ],
)
def test_a_hit_that_todays_rules_would_not_make_is_told_so(home: Home, sql: str, failed: set[str]) -> None:
    home.put("entry", "What is the capital of France?")
    assert home.ask("what's the capital of france", "CALL") == "canonical"
    home.change(sql)
    told = home.why("CALL")
    assert told["agrees"] is False
    assert {check["name"] for check in told["checks"] if check["ok"] is False} == failed


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("UPDATE hits SET version = version + 1", ""),
        ("DELETE FROM entries", "the entry is gone"),
        ("UPDATE hits SET prompt = NULL", ""),
    ],
)
def test_what_cannot_be_derived_any_more_is_not_claimed_either_way(home: Home, sql: str, reason: str) -> None:
    home.put("entry", "What is the capital of France?")
    assert home.ask("what's the capital of france", "CALL") == "canonical"
    home.change(sql)
    told = home.why("CALL")
    assert (told["agrees"], told["today"]["reason"]) == (None, reason)


def test_a_hit_stays_right_when_its_entry_expires_or_is_forbidden_later(home: Home) -> None:
    entry = home.put("entry")
    assert home.ask(entry.prompt, "CALL") == "exact"
    told = home.why("CALL", now=NOW + 2 * DAY)
    assert (told["agrees"], told["today"]["reason"]) == (True, "the entry has expired")
    home.change(f"INSERT INTO forbidden SELECT asked, answered, {NOW + 90} FROM hits")
    told = home.why("CALL")
    assert (told["agrees"], told["today"]["reason"]) == (True, "it has been forbidden")


def test_a_miss_says_what_is_kept_of_it_and_where_the_same_text_is_kept_otherwise(home: Home) -> None:
    home.put("mine")
    home.put("theirs", "what is mine?", key=key_of(digest("another"), ("what is mine?",)), served_by="openai/gpt")
    told = home.why("MINE")
    assert (told["decision"], told["entry"]["id"], told["today"]["answers"]) == ("miss", "MINE", True)
    assert [other["id"] for other in told["others"]] == ["THEIRS"]
    row = {"id": "C", "cache": "miss", "state": "ok", "prompt": "what is mine?"}
    for changes, word_ in (({}, "not kept now"), ({"state": "failed"}, "failed"), ({"prompt": None}, "no-log")):
        found = home.why("C", lambda _, row=row | changes: row)
        assert word_ in found["reasons"][1]
    assert len(home.why("C", lambda _: row)["others"]) == 2
    off = home.why("C", lambda _: row | {"cache": "off", "prompt": "what time is it now?"})
    assert (off["decision"], "live" in off["reasons"][0]) == ("off", True)
    assert "not kept" in home.why("C", lambda _: row | {"cache": "off"})["reasons"][0]
    assert "audit row is gone" in home.why("C", lambda _: row | {"cache": "exact"})["reasons"][0]


# ---------------------------------------------------------------- files that are no cache


LOOKS = [
    lambda home: stats(home.file, NOW),
    lambda home: list_entries(home.file, NOW),
    lambda home: show_entry(home.file, "last", NOW),
    lambda home: home.why("last"),
    lambda home: home.purge(ALL, dry_run=True),
]


@pytest.mark.parametrize("look", LOOKS, ids=["stats", "list", "show", "why", "dry run"])
@pytest.mark.parametrize("what", ["damaged", "foreign", "fifo"])
def test_a_file_that_is_no_cache_is_told_so_and_left_alone(home: Home, look: Any, what: str) -> None:
    import os

    if what == "damaged":
        home.file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    elif what == "foreign":
        home.change("CREATE TABLE theirs (x)")
    else:
        os.mkfifo(home.file)
    with pytest.raises(StateUnusable, match=r"cache\.db") as refused:
        look(home)
    assert refused.value.exit_code == 3
    assert os.listdir(home.path) == ["cache.db"]


def test_a_real_purge_moves_a_damaged_file_aside_and_names_it(home: Home) -> None:
    home.file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    done = home.purge(ALL)
    assert (done["matched"], [".corrupt-" in each for each in done["also_in"]]) == (0, [True])


def test_a_cache_of_a_newer_llmctl_is_read_and_not_changed(home: Home) -> None:
    home.put("kept")
    home.change("PRAGMA user_version = 99")
    assert (stats(home.file, NOW)["health"], home.left()) == ("of a newer llmctl", {"KEPT"})
    for change in (lambda: home.purge(ALL), lambda: forbid(home.file, "KEPT", NOW)):
        with pytest.raises(StateUnusable, match="newer"):
            change()


def test_values_that_damage_left_are_shown_as_unknown(home: Home) -> None:
    home.put("kept")
    home.change("UPDATE entries SET created_at = 'x', expires_at = 9e999, model = x'ff', hits = 'many'")
    (row,) = list_entries(home.file, NOW)
    assert [row[name] for name in ("created_at", "age_s", "model", "hits")] == [None] * 4
    assert row["expired"]
    shown = show_entry(home.file, "last", NOW)
    assert (shown["damaged"], shown["answer"]) == (True, None)
