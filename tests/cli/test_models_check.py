"""`llmctl models check` as a process: what must be said first, what is printed, how it exits, how it is stopped."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, raw, status

from tests.lab.test_probe import HONEST, KEY, called, provider

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

STEPS = ["listed", "text", "stream", "tools", "schema", "error", "count"]


def test_without_live_nothing_is_sent_and_the_hint_says_what_it_costs(cli: Cli) -> None:
    with FaultServer(provider()) as server:
        done = cli.to(server).run("models", "check", "openai/m")
        assert server.requests == []
    assert "calls the provider" in done.refused(2)
    assert "--live" in done.lines[-1]
    assert "tokens" in done.lines[-1]


def test_a_table_has_a_line_for_each_step(cli: Cli) -> None:
    with FaultServer(provider()) as server:
        done = cli.to(server).run("models", "check", "openai/m", "--live")
    assert (done.code, done.err) == (0, ""), done
    lines = [line.split("\t") for line in done.out.decode().splitlines()]
    assert lines[0] == ["deployment", "asks", "probe", "outcome", "ms", "cost_usd", "detail"]
    assert [line[2] for line in lines[1:]] == STEPS
    assert {line[3] for line in lines[1:-1]} == {"ok"}


def test_a_failed_step_is_exit_100_and_the_document_says_which(cli: Cli) -> None:
    with FaultServer(provider(tools=called("rm_rf"))) as server:
        done = cli.to(server).run("models", "check", "openai/m", "--live", "--json")
    assert (done.code, done.err) == (100, ""), done
    assert {key: done.json[key] for key in ("model", "passed", "failed", "skipped")} == {
        "model": "openai/m",
        "passed": 5,
        "failed": 1,
        "skipped": 1,
    }
    (check,) = done.json["checks"]
    assert (check["deployment"], check["provider"], check["model"]) == ("openai/m", "openai", "m")
    assert [row["name"] for row in check["probes"]] == STEPS
    assert set(check["probes"][0]) == {"name", "outcome", "detail", "latency_ms", "cost_usd", "error"}
    assert {row["command"] for row in cli.calls()} == {"models check"}
    assert {row["prompt"] for row in cli.calls()} == {None}


def test_every_deployment_of_a_group_is_checked_and_its_chain_is_not(cli: Cli) -> None:
    with FaultServer(provider()) as good, FaultServer("refuse") as bad:
        (cli.root / "c.toml").write_text(
            f"""
[models.g]
fallbacks = ["groq/other"]
[[models.g.deployments]]
id = "one"
model = "openai/m"
api_base = "{good.url}"
[[models.g.deployments]]
id = "two"
model = "openai/m"
api_base = "{bad.url}"
[[models.g.deployments]]
id = "three"
model = "openai/m"
api_key = "env:NOBODY_SET_IT"
"""
        )
        done = cli.run("--config", "c.toml", "models", "check", "g", "--live", "--json", env={"OPENAI_API_KEY": KEY})
    assert (done.code, done.err) == (100, ""), done
    seen = {check["deployment"]: [row["outcome"] for row in check["probes"]] for check in done.json["checks"]}
    assert seen == {
        "one": ["ok"] * 6 + ["skipped"],
        "two": ["failed"] + ["skipped"] * 6,
        "three": ["skipped"] * 7,
    }


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["table", "json"])
def test_a_credential_that_opens_nothing_is_exit_4_and_no_document(cli: Cli, words: tuple[str, ...]) -> None:
    with FaultServer(status(401, "no")) as server:
        refused = cli.to(server).run("models", "check", "openai/m", "--live", *words)
    missing = cli.run("models", "check", "openai/m", "--live", *words, env={"OPENAI_API_KEY": ""})
    for done in (refused, missing):
        assert (done.code, done.out, len(done.lines)) == (4, b"", 1 if words else 2), done


def test_an_unknown_model_is_a_usage_error(cli: Cli) -> None:
    cli.run("models", "check", "opanai/m", "--live").refused(2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_check_that_is_stopped_completes_the_row_of_its_call(cli: Cli, number: signal.Signals, code: int) -> None:
    with (
        FaultServer(HONEST["listed"], "silent") as server,
        cli.to(server).start("models", "check", "openai/m", "--live", "--json") as process,
    ):
        server.wait_for(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, b"", b"")
    (row,) = cli.calls()
    assert row["state"] == "cancelled"


def test_markup_and_control_characters_of_a_provider_are_not_obeyed(cli: Cli) -> None:
    listed = raw(b'{"data": [{"id": "[red]\\u001b[2J\\u202e"}]}')
    with FaultServer(provider(listed=listed)) as server:
        done = cli.to(server).run("models", "check", "openai/m", "--live")
    assert done.code == 100
    assert b"\x1b" not in done.out
    assert "[red]" in done.out.decode()
