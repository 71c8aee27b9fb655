"""`llmctl route`: what would be asked and why, how deployments fare, and what a reset forgets; real processes."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from servers import FaultServer, status

from llmctl import Client
from llmctl.cli.options import Strategy
from llmctl.core.errors import MATRIX
from llmctl.routing.balance import STRATEGIES

if TYPE_CHECKING:
    from .conftest import Cli, Done

pytestmark = pytest.mark.usefixtures("uncached")
CONFIG = """
[models.g]
strategy = "ordered"
fallbacks = ["openai/last", "groq/none"]
[[models.g.deployments]]
id = "a"
model = "openai/a"
rpm = 2
price = { input = 1.0, output = 2.0 }
[[models.g.deployments]]
id = "b"
model = "openai/b"
weight = 3
[models.small]
fallbacks = ["larger"]
deployments = [{ id = "s1", model = "openai/s", context_window = 100 }]
[models.larger]
model = "openai/l"
context_window = 1_000
[models.narrow]
deployments = [{ model = "openai/n", tpm = 100 }, { model = "openai/n2", tpm = 300 }]
[models.keyless]
model = "groq/x"
"""
KEYS = {"OPENAI_API_KEY": "sk-0123456789abcdef"}


@pytest.fixture
def run(cli: Cli):
    """Runs llmctl with `CONFIG`; nothing listens where it would ask, unless a server is given."""
    (cli.root / "c.toml").write_text(CONFIG)
    cli.environ |= KEYS | {"OPENAI_BASE_URL": "http://127.0.0.1:9"}

    def run(*words: str, **how: Any) -> Done:
        return cli.run("--config", "c.toml", *words, **how)

    return run


def state(cli: Cli) -> list[Any]:
    file = sqlite3.connect(cli.home / "state.db")
    try:
        return file.execute("SELECT key, body FROM state ORDER BY key").fetchall()
    finally:
        file.close()


def reasons(done: Done) -> dict[str, str]:
    return {each["deployment"]: each["reason"] for each in done.json["candidates"]}


def test_route_test_sends_nothing_writes_nothing_and_explains_everybody(cli, run):
    with FaultServer("ok") as server:
        done = run("route", "test", "-m", "g", "hi", "--json", env={"OPENAI_BASE_URL": server.url})
        assert server.connections == 0
    assert (done.code, done.err) == (0, "")
    assert not [name for name in ("ledger.db", "state.db") if (cli.home / name).exists()]
    document = done.json
    assert list(document) == ["model", "prompt_tokens", "decision", "candidates", "chain", "complexity"]
    assert (document["model"], document["prompt_tokens"], document["complexity"]) == ("g", 5, None)
    assert document["decision"] == {
        "deployment": "a", "provider": "openai", "model": "a", "strategy": "ordered", "start_in_ms": 0.0,
        "est_cost_usd": pytest.approx(5e-6 + 300 * 2e-6, rel=0.5),
    }  # fmt: skip
    assert document["candidates"][0] == {
        "deployment": "a", "chosen": True, "reason": "chosen: the first that can start, as they are written",
        "headroom": {"rpm": 2, "tpm": None}, "latency_ms": None, "in_flight": 0, "cooldown_s": 0.0,
    }  # fmt: skip
    assert reasons(done) == {
        "a": "chosen: the first that can start, as they are written",
        "b": "written after it",
        "openai/last": "later in the chain: asked when the ones before it cannot be",
        "groq/none": "left out: no key for Groq",
    }
    assert document["chain"][1] == {"link": 2, "model": "openai/last", "deployments": ["openai/last"]}


def test_what_is_typed_is_joined_as_in_ask_and_nothing_at_all_is_a_short_prompt(run):
    words = ("route", "test", "-m", "g", "--json")
    sizes = [run(*words, *prompt, stdin=piped).json["prompt_tokens"] for prompt, piped in (
        ((), b""), (("one two three four",), b""), (("one two three four",), b"five six seven eight nine"),
    )]  # fmt: skip
    assert sizes == sorted(set(sizes))


def test_limits_used_by_ask_are_seen_by_test_and_list_which_change_nothing(cli, run):
    with FaultServer("ok") as server:
        for _ in range(2):
            env = {"OPENAI_BASE_URL": server.url}
            assert run("ask", "-m", "g", "hi", "--no-fallback", env=env).code == 0
        before = state(cli)
        done = run("route", "test", "-m", "g", "--json", "-n", "5", env=env)
        rows = run("route", "list", "g", "--json", env=env).json
        waits = run("route", "test", "-m", "openai/a", "--json", env=env)
        lost = run("route", "list", "--json", env=env).json
    assert state(cli) == before
    assert done.json["decision"]["deployment"] == "b"
    assert reasons(done)["a"].startswith("at its limit: rpm 2/2, free in ")
    a = next(row for row in rows if row["deployment"] == "a")
    assert (a["headroom"]["rpm"], a["breaker"], a["in_flight"]) == (0, "closed", 0)
    assert a["latency_ms"] > 0
    assert a["why"].startswith("at its limit")
    assert [row["deployment"] for row in rows] == ["a", "b", "openai/last", "groq/none"]
    assert (rows[3]["obstacle"], rows[3]["breaker"]) == ("no key for Groq", None)
    assert waits.json["decision"]["start_in_ms"] == 0.0  # a model named outright has no declared limit
    assert "x-1" not in [row["deployment"] for row in lost]


def test_a_call_that_would_fail_is_told_with_its_exit_code(run):
    words = ("route", "test", "-m", "narrow", "x " * 500)
    done = run(*words, "--json")
    assert (done.code, done.err) == (6, "")
    assert done.json["decision"]["deployment"] is None
    assert done.json["decision"]["error"]["type"] == "NoCapacity"
    assert "(the largest is tpm 300 of openai/n2)" in done.json["decision"]["error"]["message"]
    assert set(reasons(done).values()) == {f"the request is larger than its limit: tpm {limit}" for limit in (100, 300)}
    shown = run(*words)
    assert (shown.code, shown.out.count(b"larger than its limit")) == (6, 2)
    assert shown.lines[-2].startswith("llmctl: error: the request is larger than any limit")


def test_a_request_larger_than_every_limit_is_refused_before_it_is_sent(run):
    with FaultServer("ok") as server:
        env = {"OPENAI_BASE_URL": server.url}
        assert "tpm 300 of openai/n2" in run("ask", "-m", "narrow", "x " * 500, env=env).refused(6)
        said = run("ask", "-m", "small", "x " * 3000, env=env).refused(5)
        assert server.connections == 0
    assert said.startswith("openai/l: its window of 1,000 tokens is too small for about 2,9")


def test_a_prompt_too_long_for_the_first_window_goes_to_the_next(run):
    done = run("route", "test", "-m", "small", "x " * 500, "--json")
    assert done.json["decision"]["deployment"] == "larger-1"
    assert reasons(done)["s1"].startswith("left out: openai/s: its window of 100 tokens is too small for about 50")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("test", "-m", "keyless"), 4, "no key for Groq"),
        (("test", "-m", "nope"), 2, "unknown model 'nope'"),
        (("test", "-m", "g", "--fallback", "g"), 2, "the chain names 'g' twice"),
        (("test", "-m", "g", "--strategy", "best"), 2, "'latency-based-routing'"),
        (("list", "nope"), 2, "unknown model 'nope'"),
        (("reset", "nope"), 2, "unknown model 'nope'"),
        (("explain", "Timeout"), 2, "no class of errors 'Timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused(run, words, code, said):
    assert said in run("route", *words, stdin=b"").refused(code)


def test_many_decisions_are_counted_and_drawn_alike_with_a_seed(run):
    words = ("route", "test", "-m", "g", "--strategy", "simple-shuffle", "-n", "200", "--seed", "7")
    first, second = run(*words, "--json").json, run(*words, "--json").json
    assert first["distribution"] == second["distribution"]
    assert sum(first["distribution"].values()) == 200
    assert first["distribution"]["b"] > 2 * first["distribution"]["a"] > 0
    assert (first["distribution"]["openai/last"], first["refused"]) == (0, 0)
    shown = run(*words).out.decode().splitlines()
    assert [line.split("\t")[:2] for line in shown if line.startswith("b\t")] == [
        ["b", str(first["distribution"]["b"])]
    ]


def test_ejected_deployments_are_told_and_a_reset_forgets_the_ejection_and_keeps_the_window(cli, run):
    with FaultServer(status(503)) as server:
        env = {"OPENAI_BASE_URL": server.url}
        for _ in range(3):
            assert run("ask", "-m", "openai/q", "--retries", "0", "hi", env=env).code == 6
        for _ in range(3):  # two of them find that `a` may be asked
            run("ask", "-m", "g", "--retries", "0", "--no-fallback", "--max-wait", "0.1s", "hi", env=env)
    (row,) = run("route", "list", "openai/q", "--json", env=env).json
    assert row["breaker"] == "open"
    assert 0 < row["cooldown_s"] <= 12
    assert row["why"].endswith("after Unavailable")
    cleared = run("route", "reset", "openai/q", "--json", env=env).json
    (what,) = cleared["cleared"]
    assert (what["deployment"], cleared["others"]) == ("openai/q", 0)
    assert what["what"][0].startswith("cooldown of ")
    assert run("route", "list", "openai/q", "--json", env=env).json[0]["breaker"] == "closed"
    assert "b: " in run("route", "reset", "b", env=env).out.decode()
    limited = run("route", "list", "g", "--json", env=env).json[0]["headroom"]["rpm"]
    assert limited == 0
    assert "what was measured" in run("route", "reset", "a", "--all", env=env).out.decode()
    assert run("route", "list", "g", "--json", env=env).json[0]["headroom"]["rpm"] == 2
    assert run("route", "reset", env=env).code == 0
    assert run("route", "reset", env=env).out == b"nothing to clear\n"


def test_a_reset_of_a_group_ends_its_overload(cli, run):
    with FaultServer("ok") as server:
        env = {"OPENAI_BASE_URL": server.url}
        assert run("ask", "-m", "g", "hi", env=env).code == 0
        with Client(cli.root / "c.toml", environ=cli.environ | env) as client:
            name = client.shared.group_key("g")
            client.state.update_now([name], lambda documents: documents[name].update(demand=[time.time(), {"32": 9.0}]))
        assert run("route", "reset", "g", env=env).out == b"g: an overload\n"
        (row,) = [row for row in run("route", "reset", "g", "--all", "--json", env=env).json["cleared"] if row["group"]]
        assert (row["group"], row["deployment"], row["what"]) == ("g", None, ["what was measured"])


def test_a_reset_without_a_name_also_clears_what_no_group_names(cli, run):
    with FaultServer(status(404), status(401)) as server:
        env = {"OPENAI_BASE_URL": server.url}
        assert [run("ask", "-m", f"openai/{name}", "hi", env=env).code for name in "qr"] == [5, 4]
    *shared, last = run("route", "reset", env=env).out.decode().splitlines()
    assert last == "1 more, of what no group names"
    assert "a: cooldown of 300 s after Unauthorized" in shared  # of the credential, which it shares
    assert not [body for _, body in state(cli) if "cool" in json.loads(body)]


def test_a_state_that_cannot_be_used_is_said_and_a_reset_fails(cli, run):
    (cli.home / "state.db").mkdir(parents=True)
    done = run("route", "test", "-m", "g", "hi")
    assert done.code == 0
    assert "limits and cooldowns are not shared" in done.err
    assert "cannot be used" in run("route", "reset").refused(3)


def test_the_rules_are_printed_as_they_are(run):
    document = run("route", "explain", "--json").json
    assert [row["class"] for row in document["classes"]] == list(MATRIX)
    assert [row["exit"] for row in document["classes"]] == [rule.exit for rule in MATRIX.values()]
    assert [row["strategy"] for row in document["strategies"]] == list(STRATEGIES)
    lines = run("route", "explain").out.decode().splitlines()
    assert lines[0].split("\t") == ["class", "again", "next", "cooldown", "exit"]
    assert "TimedOut\tno\tyes\tejection\t7" in lines
    assert run("route", "explain", "TimedOut").out.decode().startswith("class: TimedOut\nagain: no\nnext: yes\n")
    assert "'RateLimited'" in run("route", "explain", "ratelimited").err


def test_list_shows_all_groups_that_can_be_asked_and_with_all_the_others_too(run):
    shown = run("route", "list")
    groups = [line.split("\t")[0] for line in shown.out.decode().splitlines()]
    assert "g" in groups
    assert "keyless" not in groups
    assert "llmctl: keyless-1 cannot be asked: no key for Groq" in run("route", "list", "--all").lines


def test_ask_explain_says_who_was_chosen_before_the_answer_and_why_others_were_not(run):
    with FaultServer(status(503), "ok") as server:
        env = {"OPENAI_BASE_URL": server.url}
        done = run("ask", "-m", "g", "--retries", "0", "--explain", "hi", env=env)
        told = run("ask", "-m", "g", "--strategy", "least-busy", "--explain", "--json", "hi", env=env)
    assert done.code == 0
    assert done.lines[0] == "llmctl: a: chosen: the first that can start, as they are written"
    assert done.lines[1] == "llmctl: b: written after it"
    assert "llmctl: a: asked before: Unavailable" in done.lines
    assert [line.split(":")[1] for line in done.lines if ": chosen: " in line] == [" a", " b"]
    assert "llmctl: b: chosen: the only one of its group that can start" in done.lines
    assert (told.code, told.err) == (0, "")
    assert told.json["route"]["strategy"] == "least-busy"
    assert [each["deployment"] for each in told.json["route"]["candidates"]] == ["a", "b", "openai/last", "groq/none"]


def test_the_strategies_of_the_option_are_those_there_are():
    assert [each.value for each in Strategy] == list(STRATEGIES)
