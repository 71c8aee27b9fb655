"""`llmctl cache`: what its commands print, ask and refuse, on answers that a client has kept.

At the end, what users of other caches complain of (the issue threads are named): each a test of its fact.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.cli.cache import app
from llmctl.core.errors import StateUnusable, UsageError
from llmctl.core.scope import content_hash
from llmctl.testing import Reply, ScriptedTransport

from .drawn import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmctl.core.record import Answer

    from .conftest import Cli

CAPITAL = "What is the capital of France?"
REWORDED = "what's the capital of France"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
CONFIG: dict[str, Any] = {
    "models": {"fast": {"model": "openai/a", "price": {"input": 1.0, "output": 10.0}}},
    "providers": {"openai": {"api_key": "k"}},
    "retry": {"retries": 0},
}


class Home(Desk):
    """The commands, and a client of the same home whose provider says another word each time."""

    def start(self, **config: Any) -> Client:
        replies = [Reply.stream(f"answer {n}") for n in range(40)]
        self.sent = ScriptedTransport(*replies)
        return Client({**CONFIG, **config}, environ={"LLMCTL_HOME": str(self.home)}, transport=self.sent)

    def ask(self, prompt: str | None = CAPITAL, **options: Any) -> Answer:
        return self.client.complete(prompt, **{"model": "fast", "cache": "canonical", "command": "ask", **options})

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    home = Home(app, tmp_path / "home", monkeypatch)
    home.client = home.start()
    yield home
    home.client.close()


# ---------------------------------------------------------------- looking


def test_stats_tell_what_is_kept_how_often_it_answered_and_what_that_saved(home: Home) -> None:
    for prompt in (CAPITAL, CAPITAL, REWORDED, f"{HOSTILE} hello"):
        home.ask(prompt)
    told = home.json("stats")
    assert (told["entries"], told["canonical"] >= 1, told["health"], told["mode"]) == (2, True, "ok", "0600")
    calls = told["calls"]
    assert (calls["asked"], calls["misses"], calls["hit_rate"]) == (4, 2, 0.5)
    assert calls["hits"] == {"exact": 1, "canonical": 1, "semantic": 0}
    assert calls["saved_usd"] == pytest.approx(2 * home.ask("new").cost_usd)
    for columns in (80, 20):
        drawn = home.run("stats", columns=columns)
        assert "hit rate" in drawn.screen
        assert drawn.width <= columns
    assert "hits\t2\t" in home.run("stats").out
    assert "\x1b" not in home.run("stats", columns=80, NO_COLOR="1").out


def test_a_rehearsed_call_is_not_among_those_that_asked_the_cache(home: Home) -> None:
    home.ask()
    with closing(sqlite3.connect(home.home / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("UPDATE calls SET drill = 1")
    home.ask()
    calls = home.json("stats")["calls"]
    assert (calls["asked"], calls["hits"]["exact"]) == (1, 1)


def test_list_and_show_print_what_is_kept_and_no_text_of_strangers_drives_the_terminal(home: Home) -> None:
    first, again, other = home.ask(), home.ask(REWORDED), home.ask(f"{HOSTILE} {'wide 漢字 ' * 40}", documents=["a"])
    rows = home.json("list")
    assert [row["id"] for row in rows] == [other.id, first.id]
    assert (rows[1]["hits"], rows[1]["tiers"], rows[1]["preview"]) == (1, ["exact", "canonical"], CAPITAL)
    assert rows[1]["saved_usd"] == rows[1]["cost_usd"] == first.cost_usd
    assert [row["id"] for row in home.json("list", "-n", "1")] == [other.id]
    assert [len(home.json("list", "--model", name)) for name in ("fast", "openai/a", "nobody")] == [2, 2, 0]
    for command in (("list",), ("show", "last"), ("why", other.id)):
        for columns in (0, 80):
            drawn = home.run(*command, columns=columns)
            assert not set(drawn.screen) & {"\x1b", "\x07", "\u202e"}, command
    assert home.run("list", columns=80).width <= 80
    shown = home.json("show", first.id[:-3].lower())
    assert (shown["prompt"], shown["answer"]["text"]) == (CAPITAL, "answer 0")
    assert all(len(key) == 64 for key in shown["keys"].values())
    assert [hit["id"] for hit in shown["answered"]] == [again.id]
    assert home.json("show", again.id)["id"] == first.id
    assert home.json("show", other.id)["documents"] == [content_hash("a")]
    assert "--- answer ---\nanswer 0" in home.run("show", first.id).out


def test_a_home_without_a_cache_is_an_empty_list_and_gets_none_by_looking(tmp_path: Path, monkeypatch: Any) -> None:
    desk = Home(app, tmp_path / "none", monkeypatch)
    assert desk.json("list") == []
    assert desk.json("stats")["entries"] == 0
    assert desk.json("purge", "--all") == desk.json("purge", "--all", "--yes")
    for words in (("show", "last"), ("why", "last"), ("why", "X"), ("bad", "X"), ("show", "")):
        assert isinstance(desk.refused(*words), UsageError)
    assert not (tmp_path / "none" / "cache.db").exists()


@pytest.mark.parametrize("command", ["good", "eval"])
def test_a_command_of_the_semantic_tier_says_with_what_it_comes(home: Home, command: str) -> None:
    assert "semantic" in home.refused(command, "X").message


# ---------------------------------------------------------------- why


def test_why_tells_a_hit_a_miss_and_a_call_that_did_without_the_cache_apart(home: Home) -> None:
    first, hit, off = home.ask(), home.ask(REWORDED), home.ask("hello", cache="off")
    live = home.ask("What time is it now?", system="Be brief.")
    other = home.ask(system="Be brief.")
    told = home.json("why", "last")
    assert (told["id"], told["decision"], told["tier"], told["agrees"]) == (hit.id, "hit", "canonical", True)
    assert home.json("why", hit.id) == told | {"today": home.json("why", hit.id)["today"]}
    miss = home.json("why", first.id)
    assert (miss["decision"], miss["entry"]["id"]) == ("miss", first.id)
    assert [each["id"] for each in miss["others"]] == [other.id]
    assert "which of them is not kept" in home.json("why", off.id)["reasons"][0]
    assert (live.cache, "the prompt is live" in home.json("why", live.id)["reasons"][0]) == ("off", True)
    printed = home.run("why", hit.id)
    assert (printed.code, "today's rules decide the same" in printed.out) == (0, True)
    assert f"asked: {REWORDED}\nkept: {CAPITAL}" in printed.out
    assert "another scope" in home.run("why", first.id).out


def test_a_hit_that_todays_rules_would_not_make_exits_1(home: Home) -> None:
    import sqlite3

    home.ask()
    home.ask()
    home.client.cache.close()  # type: ignore[union-attr]
    with sqlite3.connect(home.home / "cache.db") as connection:
        connection.execute("UPDATE hits SET asked = zeroblob(32)")
    connection.close()
    done = home.run("why", "last")
    assert (done.code, "today's rules decide otherwise" in done.out) == (1, True)
    assert home.run("why", "last", "--json").code == 1


# ---------------------------------------------------------------- removing


def test_purge_prints_the_document_of_the_contract(home: Home) -> None:
    home.ask()
    counted = home.json("purge", "--all", "--dry-run")
    done = home.json("purge", "--all", "--yes")
    names = ["matched", "deleted", "bytes_freed", "dry_run"]
    assert list(done)[:4] == names
    assert [counted[name] for name in names] == [1, 0, 0, True]
    assert [done["matched"], done["deleted"], done["bytes_freed"] > 500, done["dry_run"]] == [1, 1, True, False]
    assert home.run("purge").err == "llmctl: 0 answers: nothing removed\n"
    assert home.json("list") == []


def test_a_document_is_named_by_its_file_its_hash_or_the_word_it_was_given_as(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "handbook.md"
    file.write_bytes(b"\xef\xbb\xbfthe handbook\r\n")
    held = [content_hash("the handbook\r\n"), "v7", content_hash(b"\x00\xff")]
    for document in held:
        home.ask(documents=[document])
    (binary := tmp_path / "scan.pdf").write_bytes(b"\x00\xff")
    for named in (str(file), "v7", str(binary)):
        assert home.json("purge", "--document", named, "--yes")["deleted"] == 1
    assert home.json("purge", "--document", held[0].upper())["matched"] == 0
    for wrong in ("handbook.md", "v7", str(tmp_path), ""):
        error = home.refused("purge", "--document", wrong, "--yes")
        assert (error.exit_code, bool(error.hint)) == (2, True), wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--all",), "1 answer would be removed for ever"),
        (("--match", "France", "--json"), "1 answer would"),
        (("--match", "", "--yes"), "--match is empty"),
        (("--model", " ", "--yes"), "--model is empty"),
        (("--older-than", "soon", "--yes"), "--older-than"),
        (("--kind", "vectors", "--match", "x", "--yes"), "neither text nor documents"),
    ],
)
def test_what_is_destructive_and_cannot_be_asked_about_or_cannot_be_meant_is_refused(
    home: Home, words: tuple[str, ...], message: str
) -> None:
    home.ask()
    error = home.refused("purge", *words)
    assert (error.exit_code, message in error.message, bool(error.hint)) == (2, True, True)
    assert len(home.json("list")) == 1


@pytest.mark.parametrize(("said", "code", "left"), [(b"y\n", 0, 0), (b"\n", 0, 1), (None, 130, 1)])
def test_on_a_terminal_it_is_asked_first_and_ctrl_c_removes_nothing(
    home: Home, cli: Cli, said: bytes | None, code: int, left: int
) -> None:
    home.ask()
    primary, secondary = os.openpty()
    with cli.start("cache", "purge", "--all", stdin=secondary, stderr=secondary) as process:
        os.close(secondary)
        drawn = b""
        while b"[y/N]: " not in drawn:
            drawn += os.read(primary, 1000)
        if said is None:
            process.send_signal(signal.SIGINT)
        else:
            os.write(primary, said)
        assert process.wait(60) == code
    os.close(primary)
    assert b"Remove 1 answer for ever?" in drawn
    assert len(home.json("list")) == left


def test_bad_removes_the_answer_says_so_once_and_the_question_is_asked_anew_ever_after(home: Home) -> None:
    first = home.ask()
    hit = home.ask()
    done = home.run("bad", hit.id)
    assert (
        done.err
        == f"llmctl: the answer of {first.id} is removed; to answer this question by it is forbidden for ever\n"
    )
    assert [home.ask().text, home.ask().text] == ["answer 1", "answer 2"]
    assert home.json("bad", first.id) == {
        "id": first.id, "entry": first.id, "tier": "exact", "removed": 0, "forbidden": False, "also_in": []
    }  # fmt: skip
    assert home.json("purge", "--all", "--yes")["matched"] == 0
    assert (home.ask().cache, home.json("stats")["forbidden"]) == ("miss", 1)


def test_a_file_that_is_no_cache_is_told_in_clear_words(home: Home) -> None:
    home.home.mkdir(0o700, exist_ok=True)
    (home.home / "cache.db").write_bytes(b"not a database, and long enough to be looked at" * 30)
    for words in (("stats",), ("list",), ("show", "last"), ("why", "last"), ("purge", "--all", "--dry-run")):
        error = home.refused(*words)
        assert (type(error), error.exit_code, bool(error.hint)) == (StateUnusable, 3, True)
    assert home.ask().cache == "miss"  # the call is answered, and a new one begun
    assert home.json("stats")["entries"] == 1


# ---------------------------------------------------------------- what users complain of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I enable dark mode?", "How do I disable dark mode?"),  # vllm-project/semantic-router#2691
        ("How do I move a file from A to B?", "How do I move a file from B to A?"),  # zilliztech/GPTCache#694
        ("What is 2+2?", "What is 2+3?"),  # vllm-project/semantic-router#1616
        ("Is aspirin safe for dogs?", "Is aspirin not safe for dogs?"),  # vllm-project/semantic-router#36
    ],
)
def test_the_opposite_is_never_served(home: Home, one: str, other: str) -> None:
    assert [home.ask(one).text, home.ask(other).text, home.ask(one).text] == ["answer 0", "answer 1", "answer 0"]


def test_different_questions_never_hit_one_entry(home: Home) -> None:
    """BerriAI/litellm#12234 (all hits one entry), #6954 (answers of each other's)."""
    asked = [f"what is item {n}?" for n in range(12)]
    assert len({home.ask(prompt).text for prompt in asked}) == 12
    assert [home.ask(prompt).text for prompt in asked] == [f"answer {n}" for n in range(12)]


def test_a_namespace_keeps_others_out_also_where_one_begins_like_another(home: Home) -> None:
    """BerriAI/litellm#19575, #26992, #29955, vllm-project/semantic-router#1448, #2134."""
    home.ask()
    texts = []
    for namespace in ("a", "ab"):
        home.client.close()
        home.client = home.start(cache={"namespace": namespace})
        texts.append([home.ask().cache, home.ask(REWORDED).cache])
    assert texts == [["miss", "canonical"]] * 2


def test_isolation_does_not_keep_the_question_itself_out(home: Home) -> None:
    """BerriAI/litellm#29086: a filter that held the whole request, so that nothing ever hit."""
    options = {"system": "Be brief.", "documents": ["d"], "max_tokens": 9}
    assert [home.ask(prompt, **options).cache for prompt in (CAPITAL, REWORDED)] == ["miss", "canonical"]


@pytest.mark.parametrize(
    "changed",
    [
        {"system": "Answer in French."},
        {"messages": [{"role": who, "content": CAPITAL} for who in ("user", "assistant", "user")]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    ],
    ids=["system", "history", "tools"],
)  # fmt: skip
def test_system_history_and_tools_are_part_of_the_question(home: Home, changed: dict[str, Any]) -> None:
    """vllm-project/semantic-router#3423."""
    home.ask()
    assert home.ask(None if "messages" in changed else CAPITAL, **changed).cache == "miss"


def test_one_bad_answer_is_found_by_its_text_and_deleted_alone(home: Home) -> None:
    """zilliztech/GPTCache#548, BerriAI/litellm#2838, vllm-project/semantic-router#1581."""
    home.ask()
    home.ask("What is the capital of Spain?")
    assert home.json("purge", "--match", "ANSWER 0", "--yes")["deleted"] == 1
    assert [home.ask().cache, home.ask("What is the capital of Spain?").cache] == ["miss", "exact"]
