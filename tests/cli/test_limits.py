"""Limits over real processes, real sockets and the real file: what counts is what the server sees."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from servers import FaultServer, stall, status, tokens

from llmctl import Client
from llmctl.core.errors import NoCapacity
from llmctl.routing.balance import STRATEGIES
from llmctl.routing.limits import LEASE_S
from llmctl.run.clock import SystemClock

pytestmark = pytest.mark.usefixtures("uncached")

MINUTE_S = 60.0
CROWD = """
import json, os, sys
import anyio._backends._asyncio, h11, httpcore, httpx, llmctl.run.transport, llmctl.wire.openai_chat
from llmctl import Client
from llmctl.core.errors import LlmctlError

Client()  # what all of them import is imported once
count, calls = int(sys.argv[1]), json.loads(sys.argv[2])
gate, open_gate = os.pipe()
pipes = []
for _ in range(count):
    heard, tell = os.pipe()
    if os.fork() == 0:
        os.close(open_gate)
        os.read(gate, 1)  # ends for all of them at once
        said = []
        with Client() as client:
            for call in calls:
                try:
                    said.append(["ok", client.complete("count to three", max_tokens=14, **call).record.id])
                except LlmctlError as error:
                    said.append([error.kind, error.message])
        os.write(tell, json.dumps(said).encode())
        os._exit(0)
    os.close(tell)
    pipes.append(heard)
os.close(open_gate)
print(json.dumps([json.loads(os.read(pipe, 1 << 16) or '["died"]') for pipe in pipes]))
"""


class Seen:
    """A behaviour that answers after `takes_s`, and keeps who came when, and how many were there at once."""

    def __init__(self, takes_s=0.0, answer=None):
        self.came = []
        self.here = self.most = 0
        self._takes_s, self._answer = takes_s, answer or tokens(3)

    async def __call__(self, exchange):
        self.came.append((time.monotonic(), exchange.request.json["model"]))
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            await asyncio.sleep(self._takes_s)
            await self._answer(exchange)
        finally:
            self.here -= 1

    def densest(self, model="m"):
        """How many requests the fullest sliding minute held."""
        times = [at for at, asked in self.came if asked == model]
        return max(sum(1 for t in times if start <= t < start + MINUTE_S) for start in times)


def configure(cli, **models):
    cli.home.mkdir(exist_ok=True)
    rows = [
        f'[[models.{name}.deployments]]\nmodel = "openai/{model}"\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in limits.items())
        for name, (model, limits) in models.items()
    ]
    (cli.home / "config.toml").write_text("\n".join(rows))
    return cli


def crowd(cli, count, *calls):
    """What each of `count` processes was told of each of its `calls`, one list for each process. All begin at once."""
    words = [sys.executable, "-c", CROWD, str(count), json.dumps(calls)]
    done = subprocess.run(words, env=cli.environ, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def quota(cli, model="m"):
    """The document of a deployment as the file has it now."""
    with Client(environ=cli.environ) as client:
        group = client.catalog.groups[model]
        names = [keys.quota for keys in client.shared.keys_of(group.deployments).values()]
        return client.state.update_now(names, lambda documents: documents[names[0]])


def test_processes_share_rpm_and_whoever_may_not_wait_is_told_when(cli):
    seen = Seen()
    with FaultServer(seen) as server:
        configure(cli.to(server), m=("m", {"rpm": 3}), again=("m", {"rpm": 3}))
        words = ("ask", "count to three", "--max-wait", "0", "-m")
        processes = [cli.start(*words, ("m", "again")[n % 2]) for n in range(6)]
        ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert sorted(code for _, code in ends) == [0] * 3 + [6] * 3
    assert len(seen.came) == 3
    for (out, err), code in ends:
        if code:
            assert (out, err.count(b"\n")) == (b"", 2)
            when = rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \(in \d\d s\)"
            assert re.match(rb"llmctl: error: no target can start before %s: openai/m is at its limit\n" % when, err)
    rows = {row["error"] for row in cli.calls() if row["exit_code"] == 6}
    assert rows == {"NoCapacity"}


def test_fifty_processes_at_once_take_exactly_what_the_limits_allow_whatever_the_strategy(cli):
    names = [name.replace("-", "_") for name in STRATEGIES]
    seen = Seen(answer=tokens(14))
    with FaultServer(seen) as server:
        limits = {name: (name, {"rpm": 3}) for name in names}
        configure(cli.to(server), **limits, tokens=("tokens", {"tpm": 100}))  # of calls of 7 + 14
        calls = [{"model": name, "strategy": row, "max_wait": 0} for name, row in zip(names, STRATEGIES, strict=True)]
        told = crowd(cli, 50, *calls, {"model": "tokens", "max_wait": 0})
    for n, (name, admitted) in enumerate([*((name, 3) for name in names), ("tokens", 4)]):
        assert sorted(process[n][0] for process in told) == ["NoCapacity"] * (50 - admitted) + ["ok"] * admitted, name
        assert seen.densest(name) == admitted


def test_six_processes_on_two_slots_all_succeed_two_at_a_time(cli):
    seen = Seen(takes_s=0.2)
    with FaultServer(seen) as server:
        configure(cli.to(server), m=("m", {"max_parallel": 2}))
        told = crowd(cli, 6, {"model": "m"})
    assert [process[0][0] for process in told] == ["ok"] * 6
    assert seen.most == 2


def test_six_tasks_on_two_slots_all_succeed_two_at_a_time(cli):
    seen = Seen(takes_s=0.2)
    with FaultServer(seen) as server:
        configure(cli.to(server), m=("m", {"max_parallel": 2}))

        async def work():
            with Client(environ=cli.environ) as client:
                answers = await asyncio.gather(*(client.acomplete("hi", model="m") for _ in range(6)))
                await client.aclose()
                return answers

        answers = asyncio.run(work())
    assert [len(answer.text) for answer in answers] == [9] * 6
    assert seen.most == 2


@pytest.mark.parametrize(
    ("reply", "first", "calls"),
    [(status(429, headers={"retry-after": "50"}), 1, 1), (status(503), 3, 3), (status(401), 1, 1)],
    ids=["429", "503", "401"],
)
def test_the_next_process_spares_what_the_last_one_found_limited_or_down(cli, reply, first, calls):
    bad = Seen(answer=reply)
    with FaultServer(bad) as down, FaultServer("ok") as up:
        cli.to(down)
        cli.home.mkdir()
        (cli.home / "config.toml").write_text(
            '[models.m]\nmodel = "openai/m"\nfallbacks = ["other"]\n'
            f'[models.other]\nmodel = "openai/o"\napi_base = "{up.url}"\napi_key = "env:OTHER"\n'
        )
        cli.environ["OTHER"] = "k2"
        words = ("ask", "-m", "m", "hi", "-q")
        assert cli.run(*words).code == 0
        assert len(bad.came) == first
        assert cli.run(*words).code == 0
        assert len(bad.came) == calls
        (cli.home / "state.db").unlink()
        assert cli.run(*words, "--retries", "0").code == 0
        assert len(bad.came) == calls + 1


def test_a_call_that_begins_at_a_fallback_says_so_and_why(cli):
    with FaultServer(status(401)) as refusing, FaultServer("ok") as up:
        cli.to(refusing).home.mkdir()
        (cli.home / "config.toml").write_text(
            '[models.m]\nmodel = "openai/m"\nfallbacks = ["other"]\n'
            f'[models.other]\nmodel = "openai/o"\napi_base = "{up.url}"\napi_key = "env:OTHER"\n'
        )
        cli.environ["OTHER"] = "k2"
        assert cli.run("ask", "-m", "m", "hi", "-q").code == 0
        done = cli.run("ask", "-m", "m", "hi")
        line = "llmctl: fallback: asking openai/o (openai/m: cooling for 5 min after Unauthorized)"
        assert (done.code, done.lines) == (0, [line])
        document = cli.run("ask", "-m", "m", "hi", "--json").json
        assert (document["fallback"], [each["role"] for each in document["attempts"]]) == (True, ["fallback"])
        assert len(refusing.requests) == 1


class Later(SystemClock):
    """The real clock, some seconds ahead."""

    def __init__(self, ahead_s):
        super().__init__()
        self._ahead_s = ahead_s

    def now(self):
        return super().now() + self._ahead_s


def test_what_a_killed_process_reserved_is_the_law_for_a_minute_and_its_slot_free_after_the_lease(cli):
    with FaultServer(["silent", "silent", "ok"]) as server:
        configure(cli.to(server), slot=("a", {"max_parallel": 1}), m=("b", {"rpm": 1}))
        for n, name in enumerate(("slot", "m")):
            process = cli.start("ask", "-m", name, "hi")
            server.wait_for(n + 1)
            process.kill()
            process.communicate()
            assert "start before" in cli.run("ask", "-m", name, "hi", "--max-wait", "0").refused(6)

        def later(seconds, name):
            with Client(environ=cli.environ, clock=Later(seconds)) as client:
                return client.complete("hi", model=name, max_wait=0).text

        assert later(LEASE_S + 1, "slot")
        with pytest.raises(NoCapacity):
            later(LEASE_S + 1, "m")
        assert later(MINUTE_S + 10, "m")


def test_an_interrupt_while_waiting_gives_the_place_back(cli):
    with FaultServer("ok") as server:
        configure(cli.to(server), m=("m", {"rpm": 1}))
        assert cli.run("ask", "-m", "m", "hi").code == 0
        with cli.start("ask", "-m", "m", "hi", "--max-wait", "100s") as process:
            assert b"waiting" in process.stderr.readline()
            assert len(quota(cli)["open"]) == 1
            process.send_signal(signal.SIGINT)
            assert (process.communicate(timeout=30), process.returncode) == ((b"", b""), 130)
    assert [(row["state"], row["exit_code"]) for row in cli.calls()] == [("ok", 0), ("cancelled", 130)]
    assert quota(cli)["open"] == {}
    assert len(quota(cli)["uses"]) == 1


def test_an_interrupt_in_the_middle_settles_what_was_reserved(cli):
    with FaultServer(stall(2)) as server:
        configure(cli.to(server), m=("m", {"rpm": 1, "tpm": 5000}))
        process = cli.start("ask", "-m", "m", "hi")
        assert process.stdout.read(6) == b"t0 t1 "
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    document = quota(cli)
    assert document["open"] == {}
    assert [use[2] for use in document["uses"]] == [1]


@contextmanager
def _locked(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin immediate")
    yield
    holder.close()


@contextmanager
def _garbage(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no database at all, " * 1000)
    yield


@contextmanager
def _newer(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 999")
    database.close()
    yield


@contextmanager
def _directory(path):
    path.mkdir(parents=True)
    yield


@pytest.mark.parametrize("breaks", [_locked, _garbage, _newer, _directory], ids=lambda each: each.__name__)
def test_a_state_that_cannot_be_used_costs_one_warning_and_no_answer(cli, breaks):
    with FaultServer("ok") as server, breaks(cli.home / "state.db"):
        configure(cli.to(server), m=("m", {"rpm": 1}))
        began = time.monotonic()
        done = cli.run("ask", "-m", "m", "hi")
        took_s = time.monotonic() - began
    assert (done.code, done.out) == (0, b"t0 t1 t2 t3 t4 \n")
    (line,) = done.lines
    assert line.startswith("llmctl: warning: "), line
    assert str(cli.home / "state.db") in line
    assert took_s < 15  # 5 on an idle machine: the file is waited for once


FORKS = """
import os
from llmctl import Client

def ask(client):
    try:
        client.complete("hi", model="m", max_wait=0)
    except Exception as error:
        return error.kind
    return "ok"

with Client() as client:
    told = [ask(client)]
    for _ in range(3):
        heard, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, ask(client).encode())
            os._exit(0)
        os.close(tell)
        os.waitpid(child, 0)
        told.append(os.read(heard, 100).decode())
    told.append(ask(client))
print(*told)
"""


def test_a_client_goes_on_after_a_fork_on_both_sides_of_it(cli):
    with FaultServer("ok") as server:
        configure(cli.to(server), m=("m", {"rpm": 3}))
        words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS]
        done = subprocess.run(words, env=cli.environ, capture_output=True, timeout=60, check=False, text=True)
    assert (done.stdout, done.stderr) == ("ok ok ok NoCapacity NoCapacity\n", "")


@pytest.mark.full
def test_in_real_time_no_sliding_minute_holds_more_than_rpm(cli):
    seen = Seen(takes_s=1.5)
    with FaultServer(seen) as server:
        configure(cli.to(server), m=("m", {"rpm": 40}))
        told = crowd(cli, 50, {"model": "m", "max_wait": 100})
    assert [process[0][0] for process in told] == ["ok"] * 50
    assert seen.densest() == 40
    assert seen.came[-1][0] - seen.came[0][0] < MINUTE_S + 25
