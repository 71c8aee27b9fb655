"""Conversations are kept whole, in order, by many at once; forgotten with the texts of their time; never guessed."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.core.record import CallRecord, ulid
from llmctl.store.db import Database
from llmctl.store.history import History
from llmctl.store.ledger import SqliteLedger
from llmctl.store.repair import repair
from llmctl.store.schema import STEPS
from llmctl.store.sessions import MAX_NAME, Exchange, Sessions, checked_name
from llmctl.store.upkeep import prune

NOW, DAY = 1_800_000_000.0, 86400.0


def said(n: int, text: str = "") -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"question {n}{text}"}, {"role": "assistant", "content": f"answer {n}"}]


def call_id(n: float, days_ago: float = 0.0) -> str:
    return ulid(NOW - days_ago * DAY, int(n))


class Kept(Sessions):
    """The sessions of a ledger in a directory of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "ledger.db")
        self.spool = path / "spool"

    def add(self, name: str, n: int, at: float = NOW, **facts: Any) -> None:
        self.append(name, facts.pop("messages", said(n)), facts.pop("id", call_id(n)), at, **facts)

    def texts(self, name: str) -> list[str]:
        session = self.open(name)
        return [] if session is None else [each.messages[0]["content"] for each in session.exchanges]

    def query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    def call(self, n: int, *, days_ago: float = 0.0, **facts: Any) -> CallRecord:
        """A call in the ledger that has ended, with its texts."""
        texts = facts.pop("texts", (f"prompt {n}", f"reply {n}"))
        record = CallRecord(
            id=call_id(n, days_ago), started_at=NOW - days_ago * DAY, command="ask", model="fast", deadline_at=NOW
        )
        ledger = SqliteLedger(self.path, self.spool, now=lambda: NOW, retain_s=facts.pop("retain_s", None))
        ledger.begin_now(record, texts[0])
        ended = replace(record, **({"state": "ok", "cost_nanousd": 10, "input_tokens": 1} | facts))
        ledger.complete_now(ended, [], texts[1])
        ledger.close()
        return ended


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_session_comes_back_as_it_was_kept(kept: Kept) -> None:
    assert (kept.open("w"), kept.names(), kept.latest_call()) == (None, [], None)
    assert not list(kept.spool.parent.iterdir()), "looking makes no file"
    kept.add("w", 1, model="fast", system="be brief", options={"temperature": 0.5})
    kept.add("w", 2)
    session = kept.open("w")
    assert session is not None
    assert (session.model, session.system, session.options) == ("fast", "be brief", {"temperature": 0.5})
    assert [(each.call_id, each.messages) for each in session.exchanges] == [(call_id(n), said(n)) for n in (1, 2)]
    kept.add("w", 3, model="smart", system="", options={})
    assert kept.open("w")[1:4] == ("smart", "", {})  # type: ignore[index]


def test_exchanges_keep_the_order_of_their_completion_though_the_clock_is_set_back(kept: Kept) -> None:
    for n, at in enumerate((NOW, NOW - 500, NOW - 900, NOW + 5)):
        kept.add("w", n, at)
    assert kept.texts("w") == [f"question {n}" for n in range(4)]


def test_the_same_answer_is_kept_once_and_what_comes_before_only_where_it_is_missing(kept: Kept) -> None:
    before = [Exchange(call_id(1), NOW, said(1))]
    kept.add("w", 2, before=before)
    kept.add("w", 2)
    kept.add("w", 3, before=before)
    assert kept.texts("w") == ["question 1", "question 2", "question 3"]


def test_an_answer_takes_the_place_of_another_in_one_step(kept: Kept) -> None:
    kept.add("w", 1)
    kept.add("w", 2)
    kept.add("w", 3, instead_of=[call_id(2)])
    assert kept.texts("w") == ["question 1", "question 3"]


def test_the_last_exchange_is_undone_whole_and_with_the_only_one_the_session_is_gone(kept: Kept) -> None:
    kept.add("w", 1, system="secret")
    kept.add("w", 2)
    assert kept.undo("w") == said(2)
    assert kept.texts("w") == ["question 1"]
    assert kept.undo("w") == said(1)
    assert (kept.open("w"), kept.undo("w"), kept.query("SELECT * FROM sessions")) == (None, [], [])


def test_an_exchange_is_undone_by_its_call_though_another_was_said_since(kept: Kept) -> None:
    kept.add("w", 1)
    kept.add("w", 2)
    assert (kept.undo("w", call_id(1)), kept.undo("w", call_id(1)), kept.texts("w")) == (said(1), [], ["question 2"])


def test_processes_that_talk_in_one_session_at_once_lose_no_turn(kept: Kept) -> None:
    def talk(first: int) -> None:
        own = Sessions(kept.path)
        for n in range(first, first + 20):
            own.append("w", said(n), call_id(n), NOW + n)
        own.close()

    threads = [threading.Thread(target=talk, args=(first,)) for first in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = kept.texts("w")
    assert len(texts) == len(set(texts)) == 80
    for first in (0, 100, 200, 300):
        own = [text for text in texts if first <= int(text.split()[1]) < first + 20]
        assert own == [f"question {n}" for n in range(first, first + 20)]


def test_a_list_says_who_talked_last_how_it_began_and_what_it_cost(kept: Kept) -> None:
    kept.call(1, session="a")
    kept.call(2, session="a")
    kept.call(3, session="b", cost_nanousd=None)
    kept.call(4, session="b")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    kept.add("a", 1, NOW, model="fast")
    kept.add("b", 3, NOW + 2, messages=[{"role": "user", "content": [image, {"type": "text", "text": "what\nis it?"}]}])
    kept.add("a", 2, NOW + 1)
    assert [tuple(each) for each in kept.names()] == [
        ("b", NOW + 2, 1, None, "what is it?", None), ("a", NOW + 1, 2, "fast", "question 1", 20),
    ]  # fmt: skip
    assert [each.name for each in kept.names(1)] == ["b"]


def test_exchanges_are_in_the_order_of_their_answers_whatever_their_calls_are_called(kept: Kept) -> None:
    kept.add("w", 2, NOW)
    kept.add("w", 1, NOW + 1)
    assert kept.texts("w") == ["question 2", "question 1"]
    assert kept.names()[0].begins == "question 2"


def test_a_list_is_sorted_before_its_texts_are_read(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.add("s", 1)
    said_to_sqlite: list[str] = []
    connect = sqlite3.connect

    def heard(*words: Any, **options: Any) -> sqlite3.Connection:
        made = connect(*words, **options)
        made.set_trace_callback(said_to_sqlite.append)
        return made

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", heard)
        assert len(kept.names()) == 1
    (query,) = (each for each in said_to_sqlite if "messages" in each)
    plan = kept.query(f"EXPLAIN QUERY PLAN {query}")
    assert any("CORRELATED" in step[3] for step in plan), "the texts are read for each row"
    assert [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step[3] and step[1] == 0] == []


def test_the_newest_whole_answer_of_ask_or_chat_is_the_latest_call(kept: Kept) -> None:
    kept.call(1, days_ago=3, session="old", command="chat")
    kept.call(2, days_ago=2)
    for n, facts in enumerate(
        ({"state": "failed"}, {"state": "incomplete"}, {"command": "library"}, {"command": "embed"}, {"drill": True}), 3
    ):
        kept.call(n, days_ago=1, **facts)
    assert tuple(kept.latest_call() or ()) == (call_id(2, 2), NOW - 2 * DAY, "fast", None, "prompt 2", "reply 2")
    kept.call(9, session="s", state="cached", texts=(None, None))
    assert kept.latest_call()[3:] == ("s", None, None)  # type: ignore[index]


@given(st.text(max_size=MAX_NAME + 5))
def test_a_name_is_what_stands_on_one_line_and_nothing_else(name: str) -> None:
    try:
        checked = checked_name(name)
    except UsageError:
        return
    assert checked == name.encode().decode()
    assert len(name.splitlines()) == 1
    assert len(name) <= MAX_NAME


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[31m", "\u202egnp", "x" * 201, " a", "\ud800"])
def test_what_is_no_name_is_refused_before_anything_is_kept(kept: Kept, name: str) -> None:
    for use in (kept.open, kept.undo, lambda name: kept.add(name, 1)):
        with pytest.raises(UsageError):
            use(name)  # type: ignore[operator]
    assert not list(kept.spool.parent.iterdir())


@pytest.mark.parametrize(
    "name", ["work", "a b", "\U0001f468\u200d\U0001f469 caf\u00e9", "'; DROP TABLE turns; --", "../x", "-c"]
)
def test_any_text_may_be_a_name(kept: Kept, name: str) -> None:
    kept.add(name, 1)
    assert kept.texts(name) == ["question 1"]


SPOILS = {
    "another version": "UPDATE sessions SET version = 2",
    "no json": "UPDATE turns SET messages = substr(messages, 1, 9)",
    "another shape": "UPDATE turns SET messages = '{\"role\": 1}'",
    "no objects": "UPDATE turns SET messages = '[1]'",
    "no messages": "UPDATE turns SET messages = '[]'",
    "a nesting bomb": f"UPDATE turns SET messages = '{'[' * 100_000}'",
    "a blob": "UPDATE turns SET messages = x'ff'",
    "options": "UPDATE sessions SET options = '[1]'",
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_session_that_cannot_be_read_says_so_and_loses_nothing(kept: Kept, spoil: str) -> None:
    kept.add("w", 1, options={"seed": 1})
    kept.query(spoil)
    before = kept.query("SELECT * FROM turns"), kept.query("SELECT * FROM sessions")
    for use in (kept.open, kept.undo):
        with pytest.raises(LedgerUnusable, match="the session 'w'") as raised:
            use("w")
        assert raised.value.hint
    assert (kept.query("SELECT * FROM turns"), kept.query("SELECT * FROM sessions")) == before
    assert len(kept.names()) == 1


def test_a_session_of_another_version_is_not_written_either(kept: Kept) -> None:
    kept.add("w", 1)
    kept.query("UPDATE sessions SET version = 7")
    with pytest.raises(LedgerUnusable, match="another version"):
        kept.add("w", 2)
    assert kept.query("SELECT count(*), max(version) FROM turns, sessions") == [(1, 7)]


def test_an_older_ledger_gets_its_sessions_once_and_a_newer_one_is_written_by_the_names_of_its_columns(
    kept: Kept,
) -> None:
    old = Database(kept.path, STEPS[:3])
    old.write(lambda _: None)
    old.close()
    assert (kept.open("w"), kept.names(), kept.latest_call()) == (None, [], None)
    kept.add("w", 1)
    kept.close()
    newer = Database(kept.path, (*STEPS, lambda c: c.execute("ALTER TABLE turns ADD COLUMN mood TEXT")))  # type: ignore[list-item,arg-type]
    newer.write(lambda _: None)
    newer.close()
    kept.add("w", 2)
    assert kept.texts("w") == ["question 1", "question 2"]
    for table, column in (("turns", "messages"), ("sessions", "options")):
        kept.query(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
        with pytest.raises(LedgerUnusable, match="newer"):
            kept.add("w", 3)
        kept.query(f"ALTER TABLE {table} RENAME COLUMN other TO {column}")


def test_a_ledger_that_cannot_be_written_says_so(kept: Kept) -> None:
    kept.add("w", 1)
    kept.close()
    kept.query("CREATE TRIGGER full BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(LedgerUnusable, match="disk full"):
        kept.add("w", 2)
    assert kept.texts("w") == ["question 1"]


# ---------------------------------------------------------------- forgetting and repairing


def talked(kept: Kept, *, length: int = 1) -> None:
    """A session that is old, one that is new, and one that is both, with words that stand nowhere else."""
    for name, n, days in (("old", 1, 50), ("both", 2, 40), ("both", 3, 1), ("new", 4, 0.5)):
        word = f"{'wvut'[n - 1] * 12}"
        kept.call(n, days_ago=days, session=name, texts=(word, word))
        filler = " filler" * length
        kept.add(
            name,
            n,
            NOW - days * DAY,
            id=call_id(n, days),
            system=f"{name} {word}",
            messages=said(n, f" {word}{filler}"),
        )


@pytest.mark.parametrize("texts", [True, False], ids=["texts", "calls"])
@pytest.mark.parametrize("small", [0, 1 << 30], ids=["pages used again", "written anew"])
@pytest.mark.parametrize("length", [1, 3000], ids=["short", "long"])
def test_pruned_turns_and_the_sessions_they_leave_empty_are_in_no_byte_of_any_file(
    kept: Kept, texts: bool, small: int, length: int
) -> None:
    talked(kept, length=length)
    kept.close()
    found = prune(kept.path, kept.spool, NOW - 30 * DAY, NOW, texts=texts, small=small)
    assert (found["matched"], found["deleted"]) == (2, 2)
    assert [each.name for each in kept.names()] == ["new", "both"]
    assert [text.split()[1] for text in kept.texts("both")] == ["3"]
    kept.close()
    data = b"".join(each.read_bytes() for each in kept.spool.parent.iterdir() if each.is_file())
    assert b"w" * 12 not in data
    assert b"v" * 12 not in data
    assert b"u" * 12 in data


def test_a_dry_run_forgets_nothing(kept: Kept) -> None:
    talked(kept)
    prune(kept.path, kept.spool, NOW - 30 * DAY, NOW, dry_run=True)
    assert kept.query("SELECT count(*) FROM turns") == [(4,)]


def test_writers_forget_turns_that_are_older_than_texts_are_kept_for(kept: Kept) -> None:
    talked(kept)
    kept.call(9, retain_s=30 * DAY)
    assert [each.name for each in kept.names()] == ["new", "both"]
    assert [row["prompt"] for row in History(kept.path, NOW).search("uuuuuuuuuuuu")] == ["u" * 12]


def test_turns_of_a_damaged_ledger_come_back_among_those_that_were_said_since(kept: Kept) -> None:
    for n in range(1, 60):
        kept.add(
            "w" if n % 2 else "v",
            n,
            NOW + n,
            model="fast",
            options={"seed": n},
            messages=said(n, " long" * (n % 7 * 300)),
        )
    kept.close()
    file = Path(kept.path)
    data = bytearray(file.read_bytes())
    with closing(sqlite3.connect(kept.path)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    at = (pages["sessions"] - 1) * 4096
    data[at : at + 4096] = b"\xff" * 4096  # all that was known of sessions but their turns
    file.write_bytes(data)
    kept.add("new", 1, NOW + 100)
    kept.add("w", 99, NOW + 100)
    done = repair(kept.path, kept.spool, NOW)
    assert done["repair"]["recovered"]["turns"] == 59
    assert kept.texts("w") == [said(n, " long" * (n % 7 * 300))[0]["content"] for n in range(1, 60, 2)] + [
        "question 99"
    ]
    assert len(kept.texts("v")) == 29
    assert {each.name for each in kept.names()} == {"v", "w", "new"}
    assert json.loads(json.dumps(kept.open("v").exchanges[0].messages)) == said(2, " long" * 600)  # type: ignore[union-attr]


def test_a_session_comes_back_with_its_model_and_what_it_was_told_to_be(kept: Kept) -> None:
    for n in range(1, 40):
        kept.add(f"s{n}", n, model=None if n % 2 else "fast", system="be brief", options={"seed": n})
    kept.close()
    file = Path(kept.path)
    file.write_bytes(b"not a database.." + file.read_bytes()[16:])
    repair(kept.path, kept.spool, NOW)
    assert [kept.open(f"s{n}")[1:4] for n in (1, 2)] == [  # type: ignore[index]
        (None, "be brief", {"seed": 1}), ("fast", "be brief", {"seed": 2}),
    ]  # fmt: skip
    assert len(kept.names(0)) == 39


@pytest.mark.parametrize("seed", [2, *(pytest.param(n, marks=pytest.mark.full) for n in range(100, 120))])
def test_copies_that_were_left_where_sessions_and_turns_moved_within_their_page_are_gone_too(
    kept: Kept, seed: int
) -> None:
    dice = random.Random(seed)
    names = [(f"s{n}", "".join(dice.choices("bcdfghjklmnpqrstvwxz", k=24)), 60 if n % 2 else 1) for n in range(24)]
    for n in range(120):
        name, word, days = dice.choice(names)
        text = word * dice.randint(1, 12)
        kept.call(n, days_ago=days, session=name, texts=("p", "a"))
        kept.add(name, n, NOW + n, id=call_id(n, days), system=text, messages=said(n, text))
        if dice.random() < 0.3:
            kept.undo(name)
    kept.close()
    prune(kept.path, kept.spool, NOW - 30 * DAY, NOW, small=0)
    data = b"".join(each.read_bytes() for each in kept.spool.parent.iterdir() if each.is_file())
    assert [word for _, word, days in names if days > 30 and word.encode() in data] == []
    assert [word for _, word, days in names if days < 30 and word.encode() in data]
