"""`llmctl fallback show`: the chain as it resolves now, where each error leads, and what is weak; real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from servers import FaultServer, status

from llmctl.core.errors import CLASSES, MATRIX

if TYPE_CHECKING:
    from .conftest import Cli, Done

SECRET = "sk-0123456789abcdef"
CONFIG = f"""
[models.g]
fallbacks = ["both", "gpt-x", "groq/none"]
model = "openai/a"
context_window = 9_000
price = {{ input = 0.5, output = 1.25 }}
[models.both]
strategy = "ordered"
deployments = [
  {{ id = "b1", model = "anthropic/b", context_window = 200_000, api_key = "file:key" }},
  {{ id = "b2", model = "vllm/b", context_window = 8_000 }},
]
[models.wide]
model = "openai/w"
api_key = "{SECRET}"
[models.small]
model = "vllm/s"
context_window = 8_000
[models.alone]
model = "openai/z"
[models.kept]
deployments = [
  {{ id = "k1", model = "openai/k", api_key = "cmd:echo {SECRET}" }},
  {{ id = "k2", model = "openai/k", api_key = "file:nowhere" }},
  {{ id = "k3", model = "azure/k", api_key = "env:NO_SUCH" }},
  {{ id = "k4", model = "openai/k", api_base = "http://abroad.example" }},
  {{ id = "k5", model = "bedrock/k" }},
]
"""
SHARED = " share one credential: a refused key or an empty account takes both down"
NOBODY = ("--fallback", "groq/x", "--fallback", "mistral/y")


@pytest.fixture
def run(cli: Cli):
    """Runs `llmctl fallback show` with `CONFIG`; nothing listens where it would ask, unless a server is given."""
    (cli.root / "c.toml").write_text(CONFIG)
    (cli.root / "c.toml").chmod(0o600)
    (cli.root / "key").write_text(SECRET + "2")
    (cli.root / "key").chmod(0o600)
    cli.environ |= {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://127.0.0.1:9"}

    def run(*words: str, **how: Any) -> Done:
        done = cli.run("--config", "c.toml", "fallback", "show", *words, **how)
        assert SECRET not in f"{done.out!r} {done.err}"
        return done

    return run


def tables(done: Done) -> list[list[list[str]]]:
    """The rows of each table, without the header."""
    blocks = done.out.decode().removesuffix("\n").split("\n\n")
    return [[line.split("\t") for line in block.splitlines()[1:]] for block in blocks]


def test_the_chain_is_shown_with_credentials_windows_prices_and_states_and_leaves_no_file(cli, run):
    with FaultServer("ok") as server:
        done = run("g", env={"OPENAI_BASE_URL": server.url})
        assert server.connections == 0
    assert done.code == 0
    assert not [name for name in ("ledger.db", "state.db") if (cli.home / name).exists()]
    members, ways = tables(done)
    assert members == [
        ["1", "g", "g-1", "openai/a", "env:OPENAI_API_KEY", "9000", "0.5/1.25", "ready"],
        ["2", "both", "b1", "anthropic/b", "file:key", "200000", "-", "ready"],
        ["2", "both", "b2", "vllm/b", "none needed", "8000", "-", "ready"],
        ["3", "openai/gpt-x", "openai/gpt-x", "openai/gpt-x", "env:OPENAI_API_KEY", "-", "-", "ready"],
        ["4", "groq/none", "groq/none", "groq/none", "missing: GROQ_API_KEY", "-", "-",
         "cannot be asked: no key for Groq"],
    ]  # fmt: skip
    assert ways == [
        ["RateLimited", "after its wait", "to 2", "to 3", "stops, exit 6", "never asked"],
        ["QuotaExhausted, Unauthorized", "no", "to 2 (other key)", "to 3 (other key)", "stops, exit 6",
         "never asked"],
        ["Unavailable, StreamTruncated", "after a pause", "to 2", "to 3", "stops, exit 6", "never asked"],
        ["ConnectionFailed", "once", "to 2", "to 3", "stops, exit 6", "never asked"],
        ["TimedOut, BadResponse, ModelNotFound", "no", "to 2", "to 3", "stops, exit 6", "never asked"],
        ["ContextExceeded", "no", "to 2 (larger window)", "to 3 (larger window)", "stops, exit 6", "never asked"],
        ["ContentFiltered, InvalidRequest", "no", "stops, exit 5", "stops, exit 6", "stops, exit 6", "never asked"],
    ]  # fmt: skip
    (warning,) = done.lines
    assert warning == f"llmctl: warning: g-1 (link 1) and openai/gpt-x (link 3){SHARED}"


def test_the_document_says_the_same(run):
    done = run("g", "--json")
    assert (done.code, done.err) == (0, "")
    document = done.json
    assert list(document) == ["model", "links", "warnings"]
    assert (document["model"], len(document["warnings"])) == ("g", 1)
    first, second, third, fourth = document["links"]
    assert {key: first[key] for key in ("link", "group", "strategy")} == {
        "link": 1, "group": "g", "strategy": "adaptive",
    }  # fmt: skip
    assert first["deployments"] == [{
        "id": "g-1", "provider": "openai", "model": "a", "served_by": "openai/a",
        "credential": {"needed": True, "present": True, "source": "env:OPENAI_API_KEY"},
        "context_window": 9000, "price": {"input": 0.5, "output": 1.25}, "obstacle": None,
        "cooldown_s": 0.0, "breaker": "closed", "why": None,
    }]  # fmt: skip
    assert second["strategy"] == "ordered"
    assert list(first["on"]) == list(second["on"]) == list(third["on"]) == list(CLASSES)
    assert {kind: way["again"] for kind, way in first["on"].items()} == {kind: MATRIX[kind].again for kind in CLASSES}
    assert first["on"]["RateLimited"] == {"next": 2, "again": "patience", "exit": None}
    assert first["on"]["InvalidRequest"] == {"next": None, "again": "no", "exit": 5}
    assert third["on"]["TimedOut"] == {"next": None, "again": "no", "exit": 6}
    (none,) = fourth["deployments"]
    assert none["credential"] == {"needed": True, "present": False, "source": "env:GROQ_API_KEY"}
    assert (none["obstacle"]["type"], none["breaker"], fourth["on"]) == ("MissingCredential", None, {})
    assert none["obstacle"]["hint"]


def test_where_each_credential_is_and_whether_it_is_there(run):
    done = run("kept", "--json")
    found = {each["id"]: (each["credential"], each["obstacle"]) for each in done.json["links"][0]["deployments"]}
    assert {name: key["source"] for name, (key, _) in found.items()} == {
        "k1": "cmd", "k2": "file:nowhere", "k3": "env:NO_SUCH", "k4": "env:OPENAI_API_KEY", "k5": "AWS credentials",
    }  # fmt: skip
    assert [key["present"] for key, _ in found.values()] == [True, False, False, True, False]
    assert "cannot be read" in found["k2"][1]["message"]
    assert found["k4"][1]["type"] == "ConfigInvalid"
    cells = {row[2]: row[4] for row in tables(run("kept"))[0]}
    assert list(cells.values()) == [
        "cmd", "missing: file:nowhere", "missing: NO_SUCH", "env:OPENAI_API_KEY", "missing: AWS credentials",
    ]  # fmt: skip
    assert tables(run("wide"))[0][0][4] == "configuration"
    assert tables(run("vllm/x"))[0][0][4] == "none needed"


def test_given_fallbacks_replace_the_chain_and_windows_and_keys_are_compared(run):
    done = run("g", "--fallback", "both", "--fallback", "alone")
    assert [row[2] for row in tables(done)[0]] == ["g-1", "b1", "b2", "alone-1"]
    # the same key by another name is the same key
    assert run("g", "--fallback", "wide", "--json").json["warnings"] == [f"g-1 (link 1) and wide-1 (link 2){SHARED}"]
    (small,) = run("g", "--fallback", "small").lines
    assert small.startswith(
        "llmctl: warning: small-1 (link 2) has a window of 8,000 tokens, smaller than the 9,000 of g"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alone",), "only alone-1 can be asked: there is nothing to fall back to"),
        (("g", "--no-fallback"), "only g-1 can be asked: there is nothing to fall back to"),
        (("alone", *NOBODY), "only alone-1 can be asked: there is nothing to fall back to"),
        (("groq/z", *NOBODY), "nobody of this chain can be asked: there is nothing to fall back to"),
    ],
)
def test_a_chain_of_one_is_said_to_be_one(run, words, said):
    done = run(*words)
    assert (done.code, done.lines) == (0, [f"llmctl: warning: {said}"])
    assert len(tables(done)) == (1 if words[0] == "groq/z" else 2)
    assert run(*words, "--json").json["warnings"] == [said]


def test_the_default_model_is_shown_where_none_is_named(cli, run):
    (cli.root / "c.toml").write_text('default_model = "g"\n' + CONFIG)
    assert run("--json").json["model"] == "g"


def test_a_deployment_that_is_ejected_or_cooling_is_said_to_be(cli, run):
    with FaultServer(status(503)) as down, FaultServer(status(401)) as closed:
        for _ in range(3):
            cli.run("ask", "-m", "openai/q", "--retries", "0", "hi", env={"OPENAI_BASE_URL": down.url})
        env = {"OPENAI_BASE_URL": closed.url, "OPENAI_API_KEY": "another-key"}
        assert cli.run("ask", "-m", "openai/q", "hi", env=env).code == 4
        ejected, cooling = run("openai/q", env={"OPENAI_BASE_URL": down.url}), run("openai/q", env=env)
    assert tables(ejected)[0][0][-1].startswith("ejected for ")
    assert tables(ejected)[0][0][-1].endswith(" s after Unavailable")
    assert tables(cooling)[0][0][-1] == "cooling for 5 min after Unauthorized"
    (row,) = run("openai/q", "--json", env=env).json["links"][0]["deployments"]
    assert (row["breaker"], 290 < row["cooldown_s"] <= 300) == ("open", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "unknown model 'nope'"),
        (("",), "MODEL is empty"),
        (("g", "--fallback", "g"), "the chain names 'g' twice"),
        (("g", "--fallback", "local"), "no fallback"),
        (("g", "--fallback", "both", "--no-fallback"), "exclude each other"),
        (("auto",), "cannot be asked yet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused(run, words, said):
    assert said in run(*words).refused(2)


def test_a_state_that_cannot_be_used_is_said(cli, run):
    (cli.home / "state.db").mkdir(parents=True)
    assert "limits and cooldowns are not shared" in run("g").err
