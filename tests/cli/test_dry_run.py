"""`ask --dry-run`: the plan, and nothing else."""

from __future__ import annotations

from servers import FaultServer

CONFIG = """
[models.m]
model = "openai/gpt-4o"
price = { input = 2.0, output = 10.0 }
max_tokens = 100
fallbacks = ["openai/other"]
"""


def test_a_dry_run_sends_nothing_and_leaves_no_row(cli):
    with FaultServer("ok") as server:
        done = cli.to(server).run("ask", "--dry-run", "-m", "openai/m", "hi")
        assert server.connections == 0
    assert done.code == 0
    assert done.out.decode().splitlines()[0].split("\t") == ["link", "deployment", "provider", "model", "est_cost_usd"]
    assert done.lines == [
        "llmctl: openai/m: chosen: the only one of its group that can start",
        "llmctl: about 5 input tokens; nothing was sent",
    ]
    assert not [name for name in ("ledger.db", "state.db") if (cli.home / name).exists()]


def test_q_silences_the_note(cli):
    done = cli.run("ask", "--dry-run", "-q", "-m", "openai/m", "hi", env={"OPENAI_API_KEY": "k" * 20})
    assert (done.code, done.err) == (0, "")


def test_the_json_has_the_chain_in_order_with_its_costs(cli):
    (cli.root / "c.toml").write_text(CONFIG)
    env = {"OPENAI_API_KEY": "k" * 20}
    done = cli.run("--config", "c.toml", "ask", "--dry-run", "--json", "-m", "m", "hi", env=env)
    assert (done.code, done.err) == (0, "")
    document = done.json
    decision, candidates = document.pop("decision"), document.pop("candidates")
    assert (decision["deployment"], decision["start_in_ms"]) == ("m-1", 0.0)
    assert [(each["deployment"], each["chosen"]) for each in candidates] == [("m-1", True), ("openai/other", False)]
    assert document == {
        "model": "m",
        "prompt_tokens": 5,
        "max_tokens": None,
        "chain": [
            {
                "link": 1,
                "deployment": "m-1",
                "provider": "openai",
                "model": "gpt-4o",
                "est_cost_usd": 5 * 2e-6 + 100 * 10e-6,
            },
            {
                "link": 2,
                "deployment": "openai/other",
                "provider": "openai",
                "model": "other",
                "est_cost_usd": None,
            },
        ],
        "left_out": [],
        "cache": "miss",
        "sent": False,
    }


def test_it_says_that_the_cache_would_answer_and_leaves_no_trace_of_looking(cli):
    (cli.root / "c.toml").write_text(CONFIG)
    with FaultServer("ok") as server:
        ask = ("--config", "c.toml", "ask", "-m", "m", "why is the sky blue?")
        assert cli.to(server).run(*ask).code == 0
        sent = server.connections
        done, document = cli.run(*ask, "--dry-run"), cli.run(*ask, "--dry-run", "--json").json
        assert server.connections == sent
    assert (done.code, document["cache"], document["sent"]) == (0, "exact", False)
    assert 0 <= document["cache_age_s"] < 60
    assert any(line.startswith("llmctl: the cache would answer (exact), at no cost: ") for line in done.lines)
    assert cli.run("cache", "list", "--json").json[0]["hits"] == 0
    assert cli.run(*ask, "--cache", "off", "--dry-run", "--json").json["cache"] == "off"


def test_it_raises_what_the_call_would_raise_before_sending(cli):
    assert cli.run("ask", "--dry-run", "-m", "openai/m", "hi").refused(4) == "no key for OpenAI"
    assert cli.run("ask", "--dry-run", "-m", "nope", "hi").refused(2) == "unknown model 'nope'"
    assert cli.run("ask", "--dry-run", "-m", "openai/m").refused(2)


def test_a_target_without_a_key_is_named_as_left_out(cli):
    words = ("ask", "--dry-run", "--json", "-m", "openai/m", "--fallback", "mistral/n", "hi")
    done = cli.run(*words, env={"OPENAI_API_KEY": "k" * 20})
    (left_out,) = done.json["left_out"]
    assert left_out["deployment"] == "mistral/n"
    assert left_out["reason"].startswith("no key for ")
