"""`llmctl route simulate` as a process: a trace and the ledger's past, tables and the document, and what is refused."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from llmctl.cli.route_simulate import fault
from llmctl.client import Client
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import UsageError
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.lab.providers import Fault
from llmctl.store.ledger import SqliteLedger
from llmctl.store.state import SqliteState

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Done

CONFIG = """
[models.g]
fallbacks = ["mistral/spare"]
[[models.g.deployments]]
id = "one"
model = "mistral/m"
rpm = 6
price = { input = 1.0, output = 2.0 }
[[models.g.deployments]]
id = "two"
model = "groq/m"
rpm = 6
price = { input = 1.0, output = 2.0 }
[models.h]
deployments = [{ id = "few", model = "mistral/m", rpm = 1 }]
"""


@pytest.fixture
def simulate(cli: Cli):
    """Runs it on a trace of 20 requests within 20 s, without a key anywhere."""
    (cli.root / "c.toml").write_text(CONFIG)
    (cli.root / "t.csv").write_text("t,in_tokens,out_tokens\n" + "".join(f"{n},100,{50 + n}\n" for n in range(20)))

    def run(*words: str) -> Done:
        return cli.run("--config", "c.toml", "route", "simulate", *words)

    return run


def test_a_trace_gives_one_document_with_a_run_for_each_strategy(simulate, cli):
    words = (
        "-m",
        "g",
        "--trace",
        "t.csv",
        "--strategy",
        "ordered",
        "--compare",
        "round-robin",
        "--seed",
        "7",
        "--json",
    )
    done = simulate(*words, "--outage", "one=0s+10s", "--slow", "two=1m+1m*3")
    assert (done.code, done.err) == (0, ""), done
    document = done.json
    assert (document["model"], document["seed"]) == ("g", 7)
    assert document["trace"] == {
        "source": "t.csv",
        "requests": 20,
        "span_s": 19.0,
        "input_tokens": 2000,
        "output_tokens": 1190,
        "guessed": 0,
    }
    assert [run["strategy"] for run in document["runs"]] == ["ordered", "round-robin"]
    for run in document["runs"]:
        assert [row["deployment"] for row in run["deployments"]] == ["one", "two", "mistral/spare"]
        assert sum(row["calls"] for row in run["deployments"]) == run["calls"] - run["failed"] == 20
        assert run["deployments"][0]["failed"] > 0
        assert run["deployments"][0]["speed"]["from"] == "assumed"
    assert simulate(*words, "--outage", "one=0s+10s", "--slow", "two=1m+1m*3").out == done.out
    assert not (cli.home / "state.db").exists()
    assert not (cli.home / "ledger.db").exists()


def test_people_get_a_table_of_runs_and_one_of_deployments(simulate):
    done = simulate("-m", "g", "--trace", "t.csv", "--compare", "ordered", "--speed-up", "4", "--max-tokens", "9")
    runs, deployments = (
        [line.split("\t") for line in part.splitlines()] for part in done.out.decode().split("\n\n", 1)
    )
    assert done.code == 0
    assert sum(int(line[deployments[0].index("out")]) for line in deployments[1:]) == 2 * 20 * 9
    assert all(4 < float(line[runs[0].index("makespan_s")]) < 15 for line in runs[1:])
    assert [line[:2] for line in runs] == [["strategy", "calls"], ["adaptive", "20"], ["ordered", "20"]]
    assert [line[:2] for line in deployments[1:]] == [
        [strategy, name] for strategy in ("adaptive", "ordered") for name in ("one", "two", "mistral/spare")
    ]
    assert done.lines == ["llmctl: speed assumed, since no answer of theirs is known: one, two, mistral/spare"]


def test_who_may_not_wait_fails(simulate):
    done = simulate("-m", "h", "--trace", "t.csv", "--max-wait", "1s")
    assert done.out.decode().splitlines()[1].split("\t")[2] == "19 (NoCapacity 19)"


def remember(cli: Cli, ago_s: float, model: str = "g", *, ok: bool = True) -> None:
    """One call in the ledger: 1 s to the first token of 100, 10 ms for each of them, by deployment `two`."""
    now = time.time() - ago_s
    cli.home.mkdir(mode=0o700, exist_ok=True)
    ledger = SqliteLedger(cli.home / "ledger.db", cli.home / "spool")
    tokens = {"input_tokens": 80, "output_tokens": 100} if ok else {}
    record = CallRecord(
        id=ulid(now, 1), started_at=now, command="ask", model=model, state="ok" if ok else "failed", **tokens
    )
    served = Attempt(1, "two", "groq", "m", "primary", "ok" if ok else "TimedOut", now, 200, 1010.0, 2010.0, **tokens)
    ledger.begin_now(record, None)
    ledger.complete_now(record, (served,), None)
    ledger.close()


def test_the_ledgers_own_past_is_replayed_with_the_speeds_that_were_measured(simulate, cli):
    for ago_s, model, ok in (
        (3e6, "g", True),
        (900, "other", True),
        (700, "g", True),
        (650, "g", False),
        (600, "g", True),
    ):
        remember(cli, ago_s, model, ok=ok)
    done = simulate("-m", "g", "--json")
    assert (done.code, done.err) == (0, ""), done
    trace = done.json["trace"]
    assert trace["span_s"] == pytest.approx(100, abs=5)
    assert {key: trace[key] for key in ("source", "requests", "input_tokens", "output_tokens", "guessed")} == {
        "source": "ledger",
        "requests": 3,
        "input_tokens": 240,
        "output_tokens": 300,
        "guessed": 1,
    }
    speeds = {row["deployment"]: row["speed"] for row in done.json["runs"][0]["deployments"]}
    assert speeds["two"] == {"first_token_s": 1.0, "per_token_s": 0.01, "from": "ledger"}
    assert simulate("-m", "g", "--json", "--all-models").json["trace"]["requests"] == 4
    assert simulate("-m", "g", "--json", "--since", "60d").json["trace"]["requests"] == 4
    assert simulate("-m", "g", "--json", "--until", "660s").json["trace"]["requests"] == 1
    assert "median of the others" in simulate("-m", "g").err


def test_the_speed_that_all_processes_share_comes_first(simulate, cli):
    client = Client(cli.root / "c.toml", environ=cli.environ)
    quota = client.shared.keys_of(client.catalog.resolve("g").deployments)["two"].quota
    assert isinstance(client.state, SqliteState)
    client.state.update_now([quota], lambda documents: documents.update({quota: {"speed": [0.25, 0.005, 1e9, 1e9]}}))
    client.close()
    (run,) = simulate("-m", "g", "--trace", "t.csv", "--json").json["runs"]
    assert run["deployments"][1]["speed"] == {"first_token_s": 0.25, "per_token_s": 0.005, "from": "state"}
    assert run["deployments"][0]["speed"]["from"] == "assumed"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["-m", "g"], "no calls of g"),
        (["-m", "nobody/x"], "nobody"),
        (["-m", "g", "--trace", "c.toml"], "c.toml:1"),
        (["-m", "g", "--trace", "t.csv", "--since", "1d"], "--since"),
        (["-m", "g", "--trace", "t.csv", "--speed-up", "nan"], "--speed-up"),
        (["-m", "g", "--trace", "t.csv", "--outage", "one=10m"], "ID=START+LENGTH"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else None,
)
def test_what_cannot_be_meant_is_refused(simulate, words, word):
    assert word in simulate(*words).refused(2)


DEPLOYMENTS = [Deployment(name, Provider("p"), "m") for name in ("one", "a=b")]


def test_a_fault_names_its_deployment_its_time_and_how_much_slower():
    assert fault("--outage", "a=b=10m+1m30s", DEPLOYMENTS) == Fault("a=b", 600, 90)
    assert fault("--slow", "one=0s+1d*1.5", DEPLOYMENTS) == Fault("one", 0, 86400, factor=1.5)


@pytest.mark.parametrize(
    ("option", "text", "word"),
    [
        ("--outage", "", "ID=START+LENGTH"),
        ("--outage", "=1m+1m", "ID=START+LENGTH"),
        ("--outage", "one=10m+5m*2", "ID=START+LENGTH"),
        ("--outage", "three=10m+5m", "'three'"),
        ("--outage", "one=soon+5m", "'soon'"),
        ("--slow", "one=10m+5m", "*FACTOR"),
        ("--slow", "one=10m+5m*", "no factor"),
        ("--slow", "one=10m+5m*nan", "no factor"),
        ("--slow", "one=10m+5m*0.5", "no factor"),
    ],
)
def test_a_fault_that_cannot_be_meant_is_refused(option, text, word):
    with pytest.raises(UsageError, match=re.escape(word)) as caught:
        fault(option, text, DEPLOYMENTS)
    assert option in caught.value.message or "duration" in caught.value.message
    assert caught.value.hint
