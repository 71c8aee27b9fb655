"""`ask --trace FILE`: the timeline of a call, whichever way it ended, in a private file that is whole or is not."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from servers import FaultServer, stall, status, stream

from .conftest import KEY
from .test_observe import BIG, PROMPT, SECOND

pytestmark = pytest.mark.usefixtures("uncached")

DOCUMENT = [
    *("version", "id", "command", "model", "session", "state", "served_by", "provider", "deployment", "fallback"),
    *("cache", "reported_model", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "tokens_estimated", "price_version", "latency_ms", "first_token_ms", "overhead_ms"),
    *("finish_reason", "error", "exit_code", "started_at", "finished_at", "cost_usd", "saved_usd", "tags"),
    *("timeline", "attempts"),
]


def traced(cli, name: str = "call.json") -> dict[str, Any]:
    path = cli.root / name
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert not [word for word in (PROMPT, "nobody", KEY) if word in text]
    found = json.loads(text)
    assert list(found) == DOCUMENT
    times = [step["at_ms"] for step in found["timeline"]]
    assert times == sorted(times)
    return found


def steps(found: dict[str, Any]) -> list[str]:
    return [step["event"] for step in found["timeline"]]


def test_a_good_call_leaves_its_whole_timeline(cli):
    with FaultServer(stream("x")) as server:
        done = cli.to(server).ask(PROMPT, "--trace", "call.json", "--tag", "a=b")
    assert (done.code, done.out, done.err) == (0, b"x\n", "")
    found, (row,) = traced(cli), cli.calls()
    assert steps(found) == ["decided", "sent", "attempt_ended", "decided", "ended"]
    assert {name: found[name] for name in DOCUMENT if name in row} == {
        name: bool(row[name]) if isinstance(found[name], bool) else row[name] for name in DOCUMENT if name in row
    }
    first = found["timeline"][0]
    assert (first["decision"], first["deployment"], first["role"]) == ("send", "openai/m", "primary")
    (candidate,) = first["candidates"]
    assert candidate["chosen"]
    assert set(candidate) >= {"reason", "headroom", "latency_ms", "in_flight", "cooldown_s", "link"}
    (attempt,) = found["attempts"]
    assert (attempt["outcome"], attempt["status"]) == ("ok", 200)
    assert attempt["started_ms"] >= 0
    assert 0 < attempt["first_token_ms"] <= attempt["latency_ms"]
    assert found["tags"] == {"a": "b"}


def test_a_fallback_shows_why_each_was_asked_and_what_it_cost(cli):
    with FaultServer(status(503, PROMPT)) as first, FaultServer(stream("x")) as second:
        (cli.root / "c.toml").write_text(f"{BIG}{SECOND}api_base = '{second.url}'\napi_key = 'env:CORP'\n")
        words = ("--config", "c.toml", "ask", "-m", "m", "--retries", "0", PROMPT, "--trace", "call.json")
        done = cli.to(first).run(*words, env={"CORP": "another-key-012345"})
    assert done.code == 0, done.err
    found = traced(cli)
    assert found["fallback"] is True
    assert found["cost_usd"] == 8e-6
    assert [each["role"] for each in found["attempts"]] == ["primary", "fallback"]
    reasons = [each["reason"] for each in found["timeline"][3]["candidates"]]
    assert reasons[0] == "asked before: Unavailable"
    assert reasons[1].startswith("chosen: ")


@pytest.mark.parametrize(
    ("behaviour", "code", "error"), [(status(400), 5, "InvalidRequest"), ("refuse", 6, "ConnectionFailed")]
)
def test_a_failed_call_leaves_one_too(cli, behaviour, code, error):
    with FaultServer(behaviour) as server:
        assert cli.to(server).ask(PROMPT, "--trace", "call.json").code == code
    found = traced(cli)
    assert (found["state"], found["error"], found["exit_code"]) == ("failed", error, code)
    assert steps(found)[-2:] == ["decided", "ended"]
    assert found["timeline"][-2]["error"] == error


def test_so_does_one_that_is_stopped(cli):
    with FaultServer(stall(1)) as server:
        process = cli.to(server).start("ask", "-m", "openai/m", PROMPT, "--trace", "call.json")
        assert process.stdout.read(3) == b"t0 "
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    found = traced(cli)
    assert (found["state"], found["exit_code"]) == ("cancelled", 130)
    assert [each["outcome"] for each in found["attempts"]] == ["Cancelled"]


def test_a_wait_is_in_it(cli):
    with FaultServer(status(429, headers={"retry-after-ms": "500"}), stream("x")) as server:
        done = cli.to(server).ask(PROMPT, "--trace", "call.json", "--retries", "1")
    assert done.code == 0, done.err
    assert [step["why"] for step in traced(cli)["timeline"] if step["event"] == "waiting"]


@pytest.mark.parametrize("target", ["-", "/dev/null", ".", "no/such/dir/call.json"])
def test_where_no_file_can_be_is_refused_before_anything_is_sent(cli, target):
    with FaultServer("ok") as server:
        assert cli.to(server).ask("hi", "--trace", target).refused(2).startswith("--trace ")
        assert server.requests == []


@pytest.mark.parametrize("name", ["answer.txt", "/dev/stdout", "/dev/stderr"])
def test_the_file_that_the_answer_goes_to_is_not_replaced_by_a_trace(cli, name):
    with FaultServer("ok") as server, open(cli.root / "answer.txt", "wb") as out:
        cli.to(server)
        command = cli.start("ask", "-m", "openai/m", "hi", "--trace", name, stdout=out, stderr=out)
        assert command.wait(30) == 2
        assert server.requests == []
    assert "holds what this command prints" in (cli.root / "answer.txt").read_text()


def test_a_call_that_never_began_leaves_the_file_that_was_there(cli):
    (cli.root / "call.json").write_text("before")
    assert cli.run("ask", "-m", "openai/m", "hi", "--trace", "call.json").code == 4
    assert (cli.root / "call.json").read_text() == "before"


def test_with_dry_run_there_is_no_call_to_trace(cli):
    with FaultServer("ok") as server:
        assert "--dry-run" in cli.to(server).ask("hi", "--dry-run", "--trace", "call.json").refused(2)


def test_a_file_that_can_no_longer_be_written_is_a_warning_and_the_answer_stands(cli):
    (folder := cli.root / "folder").mkdir()
    with FaultServer(stall(1)) as server:
        process = cli.to(server).start("ask", "-m", "openai/m", "hi", "--trace", "folder/call.json", "--timeout", "1s")
        assert process.stdout.read(3) == b"t0 "
        folder.rmdir()
        folder.write_text("a file now")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, b"\n")
    assert err.startswith(b"llmctl: warning: --trace folder/call.json: ")
