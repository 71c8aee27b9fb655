"""`llmctl fallback drill`: what it refuses, plays, shows and writes; offline, and live against servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import junitparser
import pytest
from servers import FaultServer, status, stream, tokens

from llmctl.cli.main import run as run_here

from .conftest import Done, needs_dev_full
from .test_terminal import ERASE, Screen

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

KEYS = {"KEY_ONE": "first-planted-credential-1", "KEY_TWO": "other-planted-credential-2"}
CONFIG = """
[models.fast]
model = "groq/llama-3.3-70b"
fallbacks = ["cheap"]
[models.cheap]
model = "anthropic/claude-x"
[models.tight]
model = "groq/llama-3.3-70b"
fallbacks = ["tiny"]
[models.tiny]
model = "anthropic/claude-x"
context_window = 500
[models.alone]
model = "openai/m"
[models.three]
model = "openai/m"
fallbacks = ["fast", "gemini/gemini-2"]
[drills.ci]
model = "fast"
mode = "offline"
inject = ["primary=429@2s*1"]
speed = 100
expect_served_by = "cheap"
[drills.nightly]
model = "three"
inject = { 2 = "401" }
expect_path = ["primary", "2", "3"]
"""


@pytest.fixture
def drill(cli: Cli, capfdbinary):
    """Runs it in this process, without a key anywhere."""
    (cli.root / "c.toml").write_text(CONFIG)

    def run(*words: str, config: str = "c.toml", **env: str) -> Done:
        argv = ["--config", str(cli.root / config), "fallback", "drill", *words]
        code = run_here(argv, cli.environ | env)
        out, err = capfdbinary.readouterr()
        return Done(code, out, err.decode())

    return run


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("fast", "say --offline or --live"),
        ("--drill nightly", "drill 'nightly': say --offline or --live"),
        ("fast --offline --live", "exclude each other"),
        ("--offline", "whose chain?"),
        ("nobody --offline", "nobody"),
        ("alone --offline", "one member"),
        ("--drill cii", "no drill 'cii' is saved"),
        ("fast --offline --suite other", "no suite 'other'"),
        ("fast --offline --inject primary=504x", "no fault '504x'"),
        ("fast --offline --inject 3=503", "no target '3'"),
        ("fast --offline --inject 503", "not TARGET=FAULT"),
        ("fast --offline --speed nan", "--speed nan"),
        ("fast --offline --speed 0.5", "--speed 0.5"),
        ("fast --offline --speed 1001", "--speed 1001"),
        ("fast --live --max-cost nan", "--max-cost nan"),
        ("fast --offline --prompt=", "--prompt is empty"),
        ("fast --offline --expect-path a,,b", "--expect-path 'a,,b'"),
        ("fast --offline --expect-served-by somebody", "somebody"),
        ("fast --offline --max-seconds 0", "--max-seconds 0"),
        ("fast --offline --expect-regex ok", "--expect-regex"),
        ("fast --offline --min-chars 5", "--min-chars"),
        ("fast --offline --judge cheap", "--judge"),
        ("fast --live --expect-json {", "--expect-json"),
        ("fast --live --expect-json gone.json", "gone.json"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_played(drill, cli, words, what):
    assert what in drill(*words.split(), "--junit", str(cli.root / "j.xml")).refused(2)
    assert not (cli.home / "ledger.db").exists()
    assert not (cli.root / "j.xml").exists()


def test_an_unknown_saved_drill_is_told_its_near_miss(drill):
    assert drill("--drill", "nightlyy").lines[-1] == "hint: did you mean 'nightly'?"
    assert drill("--drill", "zzz").lines[-1] == "hint: saved: ci, nightly"


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_played(drill, cli):
    for path in ("gone/j.xml", "."):
        assert f"--junit {cli.root / path}" in drill("fast", "--offline", "--junit", str(cli.root / path)).refused(1)
    assert not (cli.home / "ledger.db").exists()


# ---------------------------------------------------------------- offline


def test_a_drill_of_nothing_in_particular_takes_the_primary_down(drill, cli):
    done = drill("fast", "--offline")
    table, verdict, tally = done.out.decode().split("\n\n")
    assert (done.code, done.err, tally) == (0, "", "1 passed, 0 failed\n")
    heading, row = (line.split("\t") for line in table.splitlines())
    assert heading == ["scenario", "outcome", "served_by", "attempts", "seconds", "path"]
    assert float(row.pop(4)) > 0
    assert row == ["primary=503", "pass", "anthropic/claude-x", "4", "fast-1 503 x3 > cheap-1 ok"]
    first, *timeline = verdict.splitlines()
    assert first == "pass primary=503 (fast)"
    attempts = [line.split(" s  ")[1].split("  ")[0] for line in timeline if " wait " not in line][:-1]
    assert attempts == [f"attempt {n}" for n in (1, 2, 3, 4)]
    assert timeline[-1].endswith("served by cheap-1 (anthropic/claude-x), exit 0")
    assert not (cli.home / "state.db").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["fast", "--inject", "2=401"], "attempt 4 at cheap-1: Unauthorized (HTTP 401)"),
        (["fast", "--inject", "2=garbage"], "attempt 4 at cheap-1: BadResponse"),
        (
            ["tight", "--prompt", "word " * 2000],
            "tiny-1 cannot be asked: anthropic/claude-x: its window of 500 tokens is too small",
        ),
        (["fast", "--expect-served-by", "primary"], "served_by: answered by cheap-1 instead of primary"),
        (["fast", "--expect-path", "2"], "path: asked: fast-1, fast-1, fast-1, cheap-1; instead of 2"),
        (["fast", "--max-seconds", "0.01"], "max_seconds: "),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_broken_chain_fails_with_exit_100_and_the_reason_everywhere(drill, cli, words, why):
    report, summary = cli.root / "j.xml", cli.root / "summary.md"
    done = drill(*words, "--offline", "--junit", str(report), GITHUB_STEP_SUMMARY=str(summary))
    assert (done.code, done.err) == (100, "")
    assert why in done.out.decode()
    assert done.out.endswith(b"\n\n0 passed, 1 failed\n")
    ((case,),) = junitparser.JUnitXml.fromfile(str(report))
    assert why in case.result[0].text
    assert "FAIL" in summary.read_text()


def test_a_document_tells_of_all_that_was_played_also_when_something_failed(drill, cli):
    done = drill("fast", "--offline", "--inject", "2=401", "--speed", "100", "--json")
    document = done.json
    assert (done.code, done.err) == (100, "")
    assert {key: document[key] for key in ("passed", "failed", "speed", "estimated_cost_usd", "left_out")} == {
        "passed": 0, "failed": 1, "speed": 100, "estimated_cost_usd": 0.0, "left_out": [],
    }  # fmt: skip
    (scenario,) = document["scenarios"]
    assert (scenario["id"], scenario["model"], scenario["outcome"]) == ("2=401", "fast", "fail")
    assert [each["outcome"] for each in scenario["attempts"]] == ["Unavailable"] * 3 + ["Unauthorized"]
    rows = json.loads(cli.run("ledger", "list", "--json").out)
    assert [(row["drill"], row["cost_nanousd"], row["command"]) for row in rows] == [(1, 0, "fallback drill")]


def test_a_matrix_passes_on_a_good_chain_and_only_its_failures_get_a_timeline(drill, cli):
    report = cli.root / "j.xml"
    done = drill("fast", "--offline", "--matrix", "--inject", "*=503", "--speed", "100", "--junit", str(report))
    *table, _ = done.out.decode().split("\n\n")[0].splitlines()
    read = junitparser.JUnitXml.fromfile(str(report))
    assert (done.code, read.failures) == (100, 1), done
    assert len(table) == read.tests > 50
    assert done.out.decode().count("attempt 1  ") == 1
    assert done.out.decode().splitlines()[-1] == f"{read.tests - 1} passed, 1 failed"
    assert {each.name: each.value for each in next(iter(read)).properties()} == {
        "mode": "offline", "speed": "100", "seed": "0",
    }  # fmt: skip
    assert stat.S_IMODE(report.stat().st_mode) == 0o644 & ~_umask()


def _umask() -> int:
    os.umask(mask := os.umask(0o22))
    return mask


def test_saved_drills_are_played_together_and_the_line_wins_over_them(drill, cli):
    report = cli.root / "j.xml"
    done = drill("--drill", "ci", "--drill", "nightly", "--offline", "--json", "--junit", str(report))
    assert done.code == 0, done
    assert [each["id"] for each in done.json["scenarios"]] == ["ci: primary=429@2s*1", "nightly: 2=401"]
    assert done.json["speed"] is None
    assert [(suite.name, suite.tests) for suite in junitparser.JUnitXml.fromfile(str(report))] == [
        ("ci", 1), ("nightly", 1),
    ]  # fmt: skip
    alone = drill("--drill", "ci", "--inject", "primary=500", "--expect-served-by", "primary", "--json")
    (scenario,) = alone.json["scenarios"]
    assert (alone.code, scenario["id"], alone.json["speed"]) == (100, "primary=500", 100)


def test_the_standard_suite_is_played_on_a_chain_and_verbose_shows_every_timeline(drill):
    done = drill("fast", "--offline", "--suite", "standard", "-v", "--speed", "200")  # too fast for all to pass, always
    table, *timelines, tally = done.out.decode().split("\n\n")
    names = [line.split("\t")[0] for line in table.splitlines()[1:]]
    assert (done.err, len(names)) == ("", 18), done
    assert [each.split(" (")[0][5:] for each in timelines] == names
    assert sum(int(word) for word in tally.split() if word.isdecimal()) == 18


def test_equal_seeds_draw_the_same(drill):
    def outcomes(seed: str) -> list[str]:
        done = drill("fast", "--offline", "--inject", "primary=flaky@0.5", "--seed", seed, "--json", "--speed", "200")
        return [each["outcome"] for each in done.json["scenarios"][0]["attempts"] if each["call"] == 1]

    assert outcomes("3") == outcomes("3")
    assert len({tuple(outcomes(str(seed))) for seed in range(4)}) > 1


def test_a_streamed_drill_never_takes_a_broken_answer_for_whole(drill):
    words = ("fast", "--offline", "--inject", "primary=cut@5", "--json")
    assert drill(*words).code == 0
    streamed = drill(*words, "--stream")
    assert streamed.code == 100
    assert "StreamTruncated" in streamed.out.decode()


def test_a_summary_that_cannot_be_written_is_a_warning(drill, cli):
    done = drill("fast", "--offline", GITHUB_STEP_SUMMARY=str(cli.root))
    assert (done.code, done.lines) == (0, [f"llmctl: warning: GITHUB_STEP_SUMMARY {cli.root}: Is a directory"])
    quiet = drill("fast", "--offline", "--json", GITHUB_STEP_SUMMARY=str(cli.root))
    assert (quiet.code, quiet.err) == (0, "")


@needs_dev_full
def test_a_report_that_fails_at_the_end_does_not_hide_what_was_played(drill):
    done = drill("fast", "--offline", "--junit", "/dev/full")
    assert (done.code, done.lines[0]) == (1, "llmctl: error: --junit /dev/full: No space left on device")
    assert done.out.endswith(b"\n1 passed, 0 failed\n")


def test_a_ledger_that_cannot_be_written_is_said_once_and_fails_no_drill(drill, cli):
    done = drill("fast", "--offline", "--inject", "primary=flaky@0.5", LLMCTL_HOME=str(cli.root / "c.toml"))
    assert (done.code, len(done.lines)) == (0, 1)
    assert done.err.startswith("llmctl: warning: this call is not recorded")
    assert drill("fast", "--offline", "--json", LLMCTL_HOME=str(cli.root / "c.toml")).err == ""


def test_a_summary_is_added_to_what_is_there(drill, cli):
    (cli.root / "s.md").write_text("before\n")
    drill("fast", "--offline", GITHUB_STEP_SUMMARY=str(cli.root / "s.md"))
    assert (cli.root / "s.md").read_text().startswith("before\n### Fallback drill: 1 passed, 0 failed\n")


# ---------------------------------------------------------------- live


PRICE = "price = { input = 1.0, output = 2.0 }"


def _live(cli: Cli, one: FaultServer, two: FaultServer, price: str = PRICE) -> None:
    """A chain of `one` and `two`, each with a key of its own; `price` is that of the second."""
    both = (("fast", one, "KEY_ONE", f'{PRICE}\nfallbacks = ["cheap"]'), ("cheap", two, "KEY_TWO", price))
    models = (
        f'[models.{name}]\nmodel = "openai/{name}"\napi_base = "{server.url}"\napi_key = "env:{key}"\n{more}\n'
        for name, server, key, more in both
    )
    (cli.root / "live.toml").write_text("".join(models))


def test_a_good_chain_passes_live_and_is_charged(drill, cli):
    with FaultServer("ok") as one, FaultServer(stream("all ", "well")) as two:
        _live(cli, one, two)
        words = ("fast", "--live", "--max-cost", "1", "--expect-regex", "^all well$", "--json")
        done = drill(*words, config="live.toml", **KEYS)
        assert (done.code, done.err) == (0, ""), done
        assert (len(one.requests), len(two.requests)) == (0, 1)
    assert 0 < done.json["estimated_cost_usd"] < 1
    (row,) = json.loads(cli.run("ledger", "list", "--json").out)
    assert (row["drill"], row["state"], row["cost_nanousd"]) == (1, "ok", 7 * 1000 + 2 * 2000)


HOSTILE = "\x1b[31mred\x9b1m ]]> | `x` <b>\u202e\x00 Bearer " + KEYS["KEY_TWO"]


def test_a_refused_key_fails_live_and_nothing_hostile_or_secret_comes_out_anywhere(drill, cli):
    report, summary = cli.root / "j.xml", cli.root / "s.md"
    with FaultServer("ok") as one, FaultServer(status(401, HOSTILE)) as two:
        _live(cli, one, two)
        words = ("fast", "--live", "--inject", "primary=503", "--junit", str(report))
        done = drill(*words, config="live.toml", **KEYS, GITHUB_STEP_SUMMARY=str(summary))
        assert done.err.startswith("llmctl: cost: about $0.0"), "what is charged is said to everybody, and first"
        document = drill(*words, "--json", config="live.toml", **KEYS)
        assert two.requests
    assert (done.code, document.code, document.err) == (100, 100, "")
    assert document.json["failed"] == 1
    text = done.out.decode()
    assert "attempt 4 at cheap-1: Unauthorized (HTTP 401)" in text
    assert "red" in text
    assert "***" in text
    ((case,),) = junitparser.JUnitXml.fromfile(str(report))
    assert "Unauthorized" in case.result[0].message
    said = summary.read_text()
    assert "<b>" not in said
    assert all(line.count("|") == 8 for line in said.splitlines() if line.startswith("|"))
    for shown in (text, report.read_text(), said):
        assert not {"\x1b", "\x9b", "\x00", "\u202e"} & set(shown)
    with closing(sqlite3.connect(cli.home / "ledger.db")) as ledger:
        kept = "\n".join(ledger.iterdump())
    everything = (done.err, text, report.read_text(), said, document.out.decode(), kept)
    assert not [key for key in KEYS.values() for shown in everything if key in shown]


def test_what_may_cost_too_much_is_refused_before_anything_is_sent(drill, cli):
    report = cli.root / "j.xml"
    with FaultServer("ok") as one, FaultServer("ok") as two:
        _live(cli, one, two)
        words = ("fast", "--live", "--max-cost", "0.000001", "--junit", str(report))
        assert "more than --max-cost" in drill(*words, config="live.toml", **KEYS).refused(9)
        _live(cli, one, two, price="")
        assert "price of cheap-1" in drill(*words, config="live.toml", **KEYS).refused(2)
        assert (one.requests, two.requests) == ([], [])
    assert not report.exists()


def test_the_cap_of_the_line_holds_for_all_drills_together(drill, cli):
    with FaultServer("ok") as one, FaultServer(tokens(500)) as two:  # 200 are expected of an answer
        _live(cli, one, two)
        with (cli.root / "live.toml").open("a") as config:
            config.write("".join(f'[drills.{name}]\nmodel = "fast"\nmode = "live"\n' for name in "ab"))
        words = ("--drill", "a", "--drill", "b", "--max-cost", "0.001")
        done = drill(*words, config="live.toml", **KEYS)
        assert (done.code, len(two.requests)) == (100, 1), done
    assert "FAIL b: primary=503 (fast)\n  begins: " in done.out.decode()
    assert "of --max-cost" in done.out.decode()


def test_real_cooldowns_are_neither_seen_nor_touched(drill, cli):
    def remembered() -> list[str]:
        with closing(sqlite3.connect(cli.home / "state.db")) as state:
            return list(state.iterdump())

    with FaultServer(status(429, "slow down", {"retry-after": "600"}), stream("well")) as one, FaultServer() as two:
        _live(cli, one, two)
        asked = cli.run(
            "--config", "live.toml", "ask", "-m", "fast", "--no-fallback", "--max-wait", "0", "hi", env=KEYS
        )
        before = remembered()
        assert asked.code == 6, asked
        done = drill("fast", "--live", "--inject", "2=503", config="live.toml", **KEYS)
        offline = drill("fast", "--offline", config="live.toml", **KEYS)
    assert (done.code, offline.code) == (100, 0), (done, offline)
    assert "fast-1 503" in done.out.decode()
    assert remembered() == before


# ---------------------------------------------------------------- how it stops, and terminals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["", "json"])
def test_a_signal_in_the_middle_leaves_a_true_row_and_no_report(cli, number, code, more):
    with FaultServer("ok") as one, FaultServer([stream("well"), "silent"]) as two:
        _live(cli, one, two)
        words = ("fallback", "drill", "fast", "--live", "--matrix", "--junit", "j.xml", *more)
        process = cli.start("--config", "live.toml", *words, env=KEYS)
        two.wait_for(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, b""), err
    assert err == b"" if more else b" at most\nllmctl: stopped after 1 of " in err
    ends = sorted((row["state"], row["exit_code"], row["drill"]) for row in cli.calls())
    assert ends == [("cancelled", code, 1), ("ok", 0, 1)]
    assert (cli.root / "j.xml").read_bytes() == b""


def test_a_signal_while_a_judge_is_asked_is_in_the_row_of_the_judge(cli):
    with FaultServer() as one, FaultServer(stream("well")) as two, FaultServer("silent") as judge:
        _live(cli, one, two)
        with (cli.root / "live.toml").open("a") as config:
            config.write(f'[models.judge]\nmodel = "openai/j"\napi_base = "{judge.url}"\napi_key = "env:KEY_ONE"\n')
        words = ("fallback", "drill", "fast", "--live", "--judge", "judge")
        process = cli.start("--config", "live.toml", *words, env=KEYS)
        judge.wait_for(1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert sorted((row["model"], row["state"], row["exit_code"]) for row in cli.calls()) == [
        ("fast", "ok", 0), ("judge", "cancelled", 143)
    ]  # fmt: skip


def test_a_closed_pipe_ends_it_after_its_reports_are_written(cli):
    (cli.root / "c.toml").write_text(CONFIG)
    process = cli.start("--config", "c.toml", "fallback", "drill", "fast", "--offline", "--junit", "j.xml")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), err) == (141, b"")
    assert junitparser.JUnitXml.fromfile(str(cli.root / "j.xml")).tests == 1


def test_a_person_is_told_the_speed_the_cost_and_how_far_it_is(cli):
    with FaultServer("ok") as one, FaultServer("ok") as two:
        _live(cli, one, two)
        primary, secondary = os.openpty()
        words = ("fallback", "drill", "fast", "--live", "--inject", "2=refused")
        streams = dict.fromkeys(("stdin", "stderr"), secondary)
        process = cli.start("--config", "live.toml", *words, env={"TERM": "xterm", **KEYS}, **streams)
        os.close(secondary)
        with process:
            code, drawn = Screen(process, primary).end()
        os.close(primary)
    assert code == 100, drawn
    assert drawn.startswith(b"llmctl: cost: about $0.000")
    assert b"\nllmctl: time runs 50 times faster; --speed 1 is real time\n" in drawn
    assert ERASE + b"1 of 1  2=refused" + ERASE in drawn
