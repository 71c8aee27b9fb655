"""Every fault really happens, on every wire: the real client, real HTTP, the class of errors that the table says."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import pytest
from servers import FaultServer

from llmctl import Client
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import LlmctlError, Unavailable, UsageError
from llmctl.core.faults import FAULTS, OK, SMALL_WINDOW
from llmctl.core.types import Message, Request, Text
from llmctl.run import extras
from llmctl.run.attempt import AttemptRun, Limits
from llmctl.run.faults import PLAYS, FaultTransport
from llmctl.run.transport import HttpTransport
from llmctl.testing import DrillClock, MemoryLedger, Reply, ScriptedTransport
from llmctl.wire import PROTOCOLS
from llmctl.wire.base import HttpRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "canary-7f3a9c2e51d84b06"
WIRES: dict[str, dict[str, Any]] = {
    "openai": {"model": "openai/gpt-4o"},
    "azure": {"model": "azure/gpt-4o", "api_base": "https://somebody.openai.azure.com"},
    "anthropic": {"model": "anthropic/claude-sonnet-4-5"},
    "gemini": {"model": "gemini/gemini-2.5-flash"},
    "bedrock": {
        "model": "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0",
        "api_base": "https://bedrock-runtime.us-east-1.amazonaws.com",
    },
}
NO_AMAZON = pytest.mark.skipif(not extras.installed("bedrock"), reason="needs the extra for Amazon Bedrock")
each_wire = pytest.mark.parametrize(
    "wire", [pytest.param(name, marks=NO_AMAZON if name == "bedrock" else ()) for name in WIRES]
)
UNHEARD = ("refused", "dns", "tls")
SENDING = Deployment("m-1", Provider("p"), "m")
ASKING = HttpRequest("POST", "https://p.example/v1/chat?a=b", {"authorization": KEY}, b'{"stream": true}')


def usual(name: str) -> str:
    """How to write the fault `name` so that it happens."""
    return "flaky@1" if name == "flaky" else FAULTS[name].usual or name


def client_for(transport: FaultTransport, clock: DrillClock, wire: str = "openai", **config: Any) -> Client:
    """A client of one deployment, m-1, whose clock and transport are the drill's."""
    models = {"m": {**WIRES[wire], "api_key": KEY}}
    limits = {"timeout": {"first_token": "10s", "idle": "10s"}} if "limits" in config else {}
    return Client({"models": models, **limits}, environ={}, transport=transport, clock=clock, ledger=MemoryLedger())


def asked(fault: str, wire: str = "openai", **options: Any) -> tuple[str, LlmctlError | None, FaultTransport]:
    """Text and error of one call at a deployment with `fault`, and the transport."""
    clock = DrillClock(50)
    transport = FaultTransport({"m-1": fault}, clock=clock)
    hangs = {"limits": "short"} if fault.startswith(("timeout", "stall")) else {}
    with client_for(transport, clock, wire, **hangs) as client:
        try:
            return client.complete("hi", model="m", **{"retries": 0, **options}).text, None, transport
        except LlmctlError as error:
            return "", error, transport


async def body_of(transport: FaultTransport, deployment: Deployment = SENDING) -> tuple[int, bytes]:
    async with transport.send(ASKING, deployment, connect_s=5.0) as response:
        return response.status, b"".join([chunk async for chunk in response.chunks()])


async def status_of(transport: FaultTransport, deployment: Deployment = SENDING) -> int:
    return (await body_of(transport, deployment))[0]


def test_every_fault_has_its_play_and_every_wire_its_drill() -> None:
    assert set(PLAYS) == set(FAULTS) - {OK, SMALL_WINDOW}
    assert set(WIRES) == set(PROTOCOLS)


# ---------------------------------------------------------------- what the caller gets


@each_wire
@pytest.mark.parametrize("name", PLAYS)
def test_fault_is_its_class_or_is_survived(wire: str, name: str) -> None:
    text, error, transport = asked(usual(name), wire)
    assert (error.kind if error else "") == FAULTS[name].becomes, error
    assert text == ("" if error else transport.text)
    (sent,) = transport.sent
    assert (sent.deployment, sent.fault and sent.fault.name, sent.real) == ("m-1", name, False)
    assert (sent.heard is None) == (name in UNHEARD)
    if error is not None:
        assert KEY not in f"{error.message} {error.hint}"
        assert error.message.startswith(f"{WIRES[wire]['model']}: ")


@each_wire
@pytest.mark.parametrize("fault", [OK, SMALL_WINDOW, "429*1,ok"])
def test_no_fault_is_a_whole_answer(wire: str, fault: str) -> None:
    text, error, transport = asked(fault, wire, retries=1)
    assert (text, error) == (transport.text, None)
    assert transport.sent[-1].fault is None


WHOLE_BODY = {
    **{name: kind.becomes for name, kind in FAULTS.items()},
    "cut": "ConnectionFailed",
    "badjson": "BadResponse",
}
"""What a fault becomes where no stream was asked for: a body with a length cannot be cut unnoticed."""


@each_wire
@pytest.mark.parametrize("name", sorted(set(FAULTS) - {SMALL_WINDOW}))
def test_fault_of_an_answer_that_is_no_stream(wire: str, name: str) -> None:
    async def ask() -> str:
        deployment = client.catalog.groups["m"].deployments[0]
        request = Request((Message("user", (Text("hi"),)),), stream=False)
        limits = Limits(connect_s=5, first_token_s=10, idle_s=10, total_s=60)
        run = AttemptRun(deployment, request, client.endpoints.resolve(deployment), limits)
        async for _ in run.events(transport, clock):
            pass
        return run.completion().text

    clock = DrillClock(50)
    transport = FaultTransport({"m-1": usual(name)}, clock=clock)
    with client_for(transport, clock, wire) as client:
        if not WHOLE_BODY[name]:
            assert asyncio.run(ask()) == transport.text
            return
        with pytest.raises(LlmctlError) as caught:
            asyncio.run(ask())
    assert caught.value.kind == WHOLE_BODY[name], caught.value


@each_wire
@pytest.mark.parametrize("events", [0, 1, 40, 60, 130])
def test_cut_is_truncated_after_any_number_of_events(wire: str, events: int) -> None:
    _, error, transport = asked(f"cut@{events}", wire)
    assert error is not None
    assert error.kind == "StreamTruncated", error
    words = transport.text.replace(" ", " \n").split("\n")
    assert len(words) == 60
    assert error.partial_text == "".join(islice(cycle(words), events))


@pytest.mark.parametrize("events", [0, 61])
def test_stall_shows_as_many_events_as_it_says(events: int) -> None:
    _, error, transport = asked(f"stall@{events}")
    assert error is not None
    assert error.kind == "TimedOut", error
    assert error.partial_text.startswith(transport.text) == (events > 60)


def test_reset_is_no_mere_end_of_the_connection() -> None:
    assert "the connection was reset" in str(asked("reset")[1])


def test_no_proxy_stands_between_a_caller_and_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "the host name cannot be resolved" in str(asked("dns")[1])


def test_stream_without_its_terminator_has_no_end_either() -> None:
    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(60):
                await body_of(transport)

    clock = DrillClock(1000)
    transport = FaultTransport({"*": "nodone"}, clock=clock)
    asyncio.run(run())


def test_slower_than_the_patience_is_no_answer() -> None:
    _, error, _ = asked("slow@40")
    assert error is not None
    assert error.kind == "TimedOut"


def test_answer_says_its_model_and_its_tokens() -> None:
    clock = DrillClock(50)
    transport = FaultTransport(clock=clock, pieces=["one ", "two"])
    with client_for(transport, clock) as client:
        answer = client.complete("hi", model="m")
    assert (answer.text, answer.reported_model, answer.usage.output_tokens) == ("one two", "gpt-4o", 2)
    heard = transport.sent[0].heard
    assert heard is not None
    assert answer.usage.input_tokens == len(heard.body) // 4


# ---------------------------------------------------------------- what the provider saw, and when


def test_stand_in_hears_what_the_provider_would() -> None:
    _, _, transport = asked("503")
    heard = transport.sent[0].heard
    assert heard is not None
    assert (heard.method, heard.path) == ("POST", "/v1/chat/completions")
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["host"].startswith("127.0.0.1:")
    assert json.loads(heard.body)["messages"] == [{"role": "user", "content": "hi"}]
    assert heard.at >= transport.sent[0].at


def test_a_fault_of_tls_is_one_whatever_certificates_the_process_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    _, error, _ = asked("tls")
    assert error is not None
    assert (error.kind, "TLS failed" in error.message) == ("ConnectionFailed", True), error.message


def test_query_of_the_request_is_kept() -> None:
    transport = FaultTransport()
    asyncio.run(body_of(transport))
    assert transport.sent[0].heard is not None
    assert transport.sent[0].heard.path == "/v1/chat?a=b"


def test_headers_of_more_than_a_mebibyte_are_heard() -> None:
    transport = FaultTransport({"m-1": "503"})
    long = ASKING._replace(headers={f"x-{n}": "a" * 10_000 for n in range(120)})

    async def sent() -> int:
        async with transport.send(long, SENDING, connect_s=5.0) as response:
            return response.status

    assert asyncio.run(sent()) == 503


def test_wait_that_is_asked_for_passes_on_the_clock() -> None:
    text, error, transport = asked("429@2s*1", retries=1)
    assert (text, error) == (transport.text, None)
    first, second = transport.sent
    assert (str(first.fault), second.fault) == ("429@2s*1", None)
    assert second.at - first.at >= 2


def test_sequence_is_played_in_its_order() -> None:
    transport = FaultTransport({"m-1": "500*2,429,ok*1,401"})
    assert [asyncio.run(status_of(transport)) for _ in range(6)] == [500, 500, 429, 200, 401, 401]


def test_each_deployment_counts_its_own_requests_and_the_star_is_for_the_others() -> None:
    transport = FaultTransport({"m-1": "500*1", "*": "503*1"})
    others = [Deployment(name, Provider("p"), "m") for name in ("a", "b")]
    seen = [asyncio.run(status_of(transport, each)) for each in (SENDING, *others, SENDING, *others)]
    assert seen == [500, 503, 503, 200, 200, 200]
    assert [sent.deployment for sent in transport.sent] == ["m-1", "a", "b"] * 2


def test_who_is_down_is_back_after_so_long_from_the_first_request() -> None:
    async def run() -> list[int]:
        seen = [await status_of(transport) for _ in range(2)]
        await clock.sleep(3600)
        return [*seen, await status_of(transport)]

    clock = DrillClock(100_000)
    transport = FaultTransport({"*": "down@3600s"}, clock=clock)
    assert asyncio.run(run()) == [503, 503, 200]


def test_flaky_is_as_the_dice_fall() -> None:
    async def run() -> list[int]:
        return [await status_of(transport) for _ in range(30)]

    transport = FaultTransport({"*": "flaky@0.5"}, dice=random.Random(7).random)
    dice = random.Random(7)
    assert asyncio.run(run()) == [503 if dice.random() < 0.5 else 200 for _ in range(30)]


def test_fault_that_is_not_known_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no fault 'nonsense'"):
        FaultTransport({"*": "nonsense"})


def test_bug_of_a_stand_in_is_no_fault_of_a_provider() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        asyncio.run(status_of(FaultTransport({"*": "503"}), Deployment("d", Provider("p", protocol="nonsense"), "m")))


# ---------------------------------------------------------------- live


def test_only_what_meets_no_fault_goes_beyond_and_only_there_the_key_is_shown() -> None:
    clock, real = DrillClock(50), ScriptedTransport(Reply.stream("re", "al"))
    transport = FaultTransport({"m-1": "503*1"}, clock=clock, beyond=lambda _: real)
    with client_for(transport, clock) as client:
        assert client.complete("hi", model="m", retries=1).text == "real"
    first, second = transport.sent
    assert (first.real, second.real, second.heard) == (False, True, None)
    assert first.heard is not None
    assert set(first.heard.headers) == {
        "host", "accept", "accept-encoding", "user-agent", "content-type", "content-length",
    }  # fmt: skip
    assert KEY not in str(first.heard)
    (request,) = real.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_beyond_is_a_real_server_over_the_real_transport() -> None:
    async def run() -> tuple[int, bytes]:
        async with real:
            request = HttpRequest("POST", server.url, {}, b"{}")
            async with transport.send(request, SENDING, connect_s=5) as response:
                return response.status, b"".join([chunk async for chunk in response.chunks()])

    with FaultServer("json") as server:
        real = ClosingTransport({})
        transport = FaultTransport(clock=DrillClock(50), beyond=lambda _: real)
        status, body = asyncio.run(run())
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "whole")
    assert len(server.requests) == 1


class ClosingTransport(HttpTransport):
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class Paced:
    """A real provider that tells how fast the drill's clock runs, at its head and in its body."""

    def __init__(self, clock: DrillClock) -> None:
        self.clock = clock
        self.seen: list[float] = []
        self.status, self.headers = 200, {}

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Any]:
        self.seen.append(connect_s)
        await self._look()
        yield self
        await self._look()

    async def chunks(self) -> AsyncIterator[bytes]:
        await self._look()
        yield b""

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        world, began = loop.time(), self.clock.monotonic()
        await asyncio.sleep(0.01)
        passed, world = self.clock.monotonic() - began, loop.time() - world
        self.seen.append(passed / world)

    async def aclose(self) -> None:
        raise AssertionError("it belongs to somebody else")


def test_real_provider_has_real_time_until_its_answer_is_read() -> None:
    async def run() -> float:
        await body_of(transport)
        await transport.aclose()
        began = clock.monotonic()
        await asyncio.sleep(0.001)
        return clock.monotonic() - began

    clock = DrillClock(10_000)
    real = Paced(clock)
    transport = FaultTransport(clock=clock, beyond=lambda _: real)  # type: ignore[arg-type]
    assert asyncio.run(run()) >= 9
    assert real.seen[0] == 5.0
    assert len(real.seen) == 4
    assert max(real.seen[1:]) < 1.001


@pytest.mark.parametrize("fault", ["ok", "503", "cut@5", "badjson"])
def test_what_this_machine_needs_to_answer_counts_once_at_any_speed(fault: str) -> None:
    async def run() -> float:
        await body_of(transport)
        await transport.aclose()
        (sent,) = transport.sent
        assert sent.heard is not None
        return sent.heard.at - sent.at

    transport = FaultTransport({SENDING.id: fault}, clock=DrillClock(1_000_000))
    assert asyncio.run(run()) < 60


# ---------------------------------------------------------------- nothing is left


def descriptors() -> int:
    """How many files and sockets this process holds open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


counts = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
ENDINGS = [OK, "503", "cut@5", "stall@5", "timeout", "slow@3600", "reset", "refused", "tls", "nodone", "dns"]


async def ends(transport: FaultTransport, deadline_s: float = 0.05) -> None:
    """One request, with any end that one can have."""
    try:
        async with asyncio.timeout(deadline_s):
            await body_of(transport)
    except (LlmctlError, TimeoutError):
        pass


@counts
def test_hundreds_of_exchanges_leave_nothing_open() -> None:
    async def run() -> None:
        transports = [FaultTransport({"*": fault}) for fault in ENDINGS]
        for transport in transports:
            await ends(transport)  # the resolver's thread and the certificates are there from now on
        before = descriptors()
        for transport in transports:
            for _ in range(5):
                await ends(transport, 0.02)
        for _ in range(300):
            assert await status_of(transports[0]) == 200
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for transport in transports:
            await transport.aclose()
        assert descriptors() <= before

    asyncio.run(run())


@counts
def test_exchanges_at_the_same_time_keep_apart() -> None:
    async def ask(n: int) -> None:
        statuses = {0: 200, 1: 503, 2: 429}
        for _ in range(10):
            assert await status_of(transport, Deployment(str(n % 3), Provider("p"), "m")) == statuses[n % 3]

    async def run() -> None:
        before = descriptors()
        await asyncio.gather(*map(ask, range(8)))
        await transport.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descriptors() <= before

    transport = FaultTransport({"1": "503", "2": "429"})
    asyncio.run(run())
    assert len(transport.sent) == 80
    assert all(sent.heard for sent in transport.sent)


@counts
@pytest.mark.parametrize("fault", sorted(set(ENDINGS) - {"dns", "tls"}))  # httpcore drops a cancelled TLS handshake
def test_exchange_cancelled_at_any_step_leaves_nothing(fault: str) -> None:
    async def run() -> int:
        transport, done = FaultTransport({"*": fault}), 0
        before = descriptors()
        for turns in range(60):
            task = asyncio.create_task(body_of(transport))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                done += 1
                assert isinstance(task.exception(), LlmctlError | None)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await transport.aclose()
        assert descriptors() <= before
        return done

    assert asyncio.run(run()) < 60


def test_stream_that_is_left_in_the_middle_ends_the_stand_in() -> None:
    async def run() -> str:
        async with client.astream("hi", model="m") as events:
            async for event in events:
                if event.text:
                    break
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return event.text

    clock = DrillClock(50)
    transport = FaultTransport({"m-1": "stall@1"}, clock=clock)
    with client_for(transport, clock) as client:
        assert transport.text.startswith(asyncio.run(run()))


def test_refusal_of_the_clock_in_the_middle_of_a_play_is_the_callers_alone() -> None:
    """The engine's timeout cancels the exchange; the next call on the same transport is none the worse."""
    clock = DrillClock(50)
    transport = FaultTransport({"m-1": "timeout*1"}, clock=clock)
    with client_for(transport, clock, limits="short") as client:
        with pytest.raises(LlmctlError, match="no first token"):
            client.complete("hi", model="m", retries=0)
        assert client.complete("hi", model="m", retries=0).text == transport.text


def test_unavailable_keeps_the_wait_it_was_told() -> None:
    _, error, _ = asked("503@7s")
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 7
