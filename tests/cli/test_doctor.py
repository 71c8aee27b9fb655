"""`llmctl doctor` as a command: what it prints, its exit code, and that it asks nobody unless told to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer, raw, status

from llmctl.cli import doctor

from .drawn import Desk

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-planted-0123456789abcdef"
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()
LONG_AGO = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(doctor.app, tmp_path / "home", monkeypatch)


def test_a_pipe_gets_one_line_for_each_finding_and_the_sum_on_stderr(cli):
    done = cli.run("doctor")
    lines = done.out.decode().splitlines()
    assert done.code == 0
    assert lines[0] == "status\tcheck\twhat\thint"
    assert all(len(line.split("\t")) == 4 for line in lines)
    assert done.err == "llmctl: 2 warnings\n"
    assert not cli.home.exists()


def test_json_is_one_document_and_stderr_is_silent(cli):
    done = cli.run("doctor", "--json")
    document = done.json
    assert (done.err, document["ok"], document["failed"], document["warned"]) == ("", True, 0, 2)
    assert all(set(row) == {"check", "status", "what", "hint"} for row in document["checks"])


def test_a_broken_configuration_is_one_of_its_findings_and_exit_3(cli):
    cli.home.mkdir(mode=0o700)
    (cli.home / "config.toml").write_text("[retry]\ntrys = 3\n")
    for words in ((), ("--live",), ("--json",)):
        done = cli.run("doctor", *words)
        assert done.code == 3
        assert "config.toml:2: retry.trys: unknown key" in done.out.decode()
        assert "Traceback" not in done.err


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_terminal_gets_a_table_that_fits_with_what_to_do_below_a_warning(desk, columns):
    drawn = desk.run(columns=columns)
    assert drawn.width <= columns
    assert "warn" in drawn.screen
    assert "orrun`llmctlkeyssetgroq`" in "".join(drawn.screen.split())
    assert drawn.code == 0


def test_colour_is_left_out_where_it_is_not_wanted(desk):
    assert "\x1b[" in desk.run(columns=80).out
    assert "\x1b[" not in desk.run(columns=80, NO_COLOR="1").out
    assert "\x1b[" not in desk.run(columns=80, TERM="dumb").out


def rows(done) -> dict[str, tuple[str, str]]:
    return {row["check"]: (row["status"], row["what"]) for row in done.json["checks"]}


def test_nobody_is_asked_without_live(cli):
    with FaultServer("ok") as server:
        cli.to(server).run("doctor")
    assert server.requests == []


def test_live_says_that_a_provider_is_there_takes_the_key_and_what_its_clock_says(cli):
    behaviours = [raw(MODELS, headers={"date": LONG_AGO}), status(401, "no key")]
    with FaultServer(behaviours) as server:
        done = cli.to(server).run("doctor", "--live", "--json")
        sent = [(each.method, each.path, "authorization" in each.headers) for each in server.requests]
    found = rows(done)
    assert done.code == 0
    assert found["openai live"][0] == "ok"
    assert "the key is accepted" in found["openai live"][1]
    assert found["clock"][0] == "warn"
    assert "ahead of openai's" in found["clock"][1]
    assert sent == [("GET", "/models", True), ("GET", "/models", False)]


LIVE = {
    "a public list": ([raw(MODELS)], 0, "ok", "its list is public"),
    "no list": ([status(404, "no such page")], 0, "ok", "no list of models"),
    "a refused key": ([status(401, f"bad key {KEY}")], 4, "fail", "bad key ***"),
    "an outage": ([status(503, "down")], 6, "fail", "down"),
    "nobody there": (["refuse"], 6, "fail", "refused"),
    "garbage": ([raw(b"<html>")], 6, "fail", "not a JSON document"),
}


@pytest.mark.parametrize(("behaviours", "code", "outcome", "what"), LIVE.values(), ids=LIVE.keys())
def test_live_tells_how_a_provider_answers_and_shows_no_key(cli, behaviours, code, outcome, what):
    with FaultServer(behaviours) as server:
        done = cli.to(server).run("doctor", "--live", "--json")
    assert done.code == code
    assert rows(done)["openai live"][0] == outcome
    assert what in rows(done)["openai live"][1]
    assert KEY[8:16] not in done.out.decode() + done.err


def test_live_asks_nobody_beyond_this_machine_when_offline(cli):
    done = cli.run("doctor", "--live", "--json", env={"OPENAI_API_KEY": KEY, "LLMCTL_OFFLINE": "1"})
    assert rows(done)["openai live"][0] == "warn"
    assert done.code == 0


def test_live_without_any_key_asks_nobody_and_says_so(cli):
    done = cli.run("doctor", "--live")
    assert done.code == 0
    assert "asking 0 providers" in done.err
