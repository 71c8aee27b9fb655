"""One attempt under its clocks, on virtual time: when each strikes, what it forgives, and what an error says."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import ConnectionFailed, LlmctlError, Unavailable
from llmctl.core.redact import Secret
from llmctl.core.types import Event, Message, Params, Request, Text, ToolCall
from llmctl.run.attempt import AttemptRun, Limits
from llmctl.testing import Reply, ScriptedTransport, VirtualClock, run_virtual, sse
from llmctl.wire.base import Endpoint, HttpRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

KEY = "canary-7f3a9c2e51d84b06"
DEPLOYMENT = Deployment("d", Provider("p", api_base="https://p.example"), "m")
REQUEST = Request((Message("user", (Text("hi"),)),))
LIMITS = Limits(connect_s=5, first_token_s=10, idle_s=4, total_s=60)
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def piece(text: str = "", finish: str | None = None) -> bytes:
    delta = {"content": text} if text else {}
    return sse({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


FINISH = piece(finish="stop")


class Timed:
    """A transport whose body is a script: a number waits that many seconds, bytes arrive, an error is raised."""

    def __init__(self, *script: float | bytes | LlmctlError, head_s: float = 0.0, status: int = 200) -> None:
        self.script = script
        self.head_s = head_s
        self.status = status
        self.headers = {"content-type": "text/event-stream"}
        self.open = 0

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Any]:
        await asyncio.sleep(self.head_s)
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for step in self.script:
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
            elif isinstance(step, bytes):
                yield step
            else:
                raise step

    async def aclose(self) -> None:
        assert self.open == 0


def attempt(limits: Limits = LIMITS, request: Request = REQUEST) -> AttemptRun:
    return AttemptRun(DEPLOYMENT, request, Endpoint("https://p.example", Secret(KEY)), limits)


def go(
    transport: Any, limits: Limits = LIMITS, consumer_s: float = 0.0
) -> tuple[AttemptRun, LlmctlError | None, float]:
    """The attempt, how it failed, and at which second it ended."""
    run = attempt(limits)

    async def consume() -> tuple[LlmctlError | None, float]:
        clock = VirtualClock()
        try:
            async with aclosing(run.events(transport, clock)) as events:
                async for _ in events:
                    await asyncio.sleep(consumer_s)
        except LlmctlError as error:
            return error, clock.monotonic()
        return None, clock.monotonic()

    error, ended = run_virtual(consume())
    assert transport.open == 0
    return run, error, ended


# ---------------------------------------------------------------- the clocks


@pytest.mark.parametrize(
    ("transport", "kind", "at"),
    [
        (Timed(FINISH, head_s=100), "TimedOut", 10),
        (Timed(100), "TimedOut", 10),
        (Timed(*[PING, 1] * 100), "TimedOut", 10),
        (Timed(*[piece(), 1] * 100), "TimedOut", 10),  # events that show nothing
        (Timed(6, piece(), 6, piece("a"), FINISH), "TimedOut", 10),
        (Timed(6, head_s=6), "TimedOut", 10),  # headers and silence share one clock
        (Timed(9, piece("a"), 100), "TimedOut", 13),
        (Timed(piece("a"), *[1, PING] * 100), "TimedOut", 4),
        (Timed(piece("a"), *[1, piece()] * 100), "TimedOut", 4),
        (Timed(*[piece("a"), 3] * 100), "DeadlineExceeded", 60),
        (Timed(9, *[piece("a"), 3] * 100), "DeadlineExceeded", 60),
        (Timed(9.9, piece("a"), 3.9, piece("b"), 3.9, FINISH), None, 17.7),
    ],
)
def test_which_clock_strikes_and_when(transport: Timed, kind: str | None, at: float) -> None:
    _, error, ended = go(transport)
    assert (error and error.kind, ended) == (kind, pytest.approx(at, abs=1e-6))


@pytest.mark.parametrize("total_s", [10, 4, 0.5, 0])
def test_deadline_within_the_first_token_time_is_the_deadline(total_s: float) -> None:
    limits = Limits(connect_s=5, first_token_s=10, idle_s=4, total_s=total_s)
    for transport in (Timed(100), Timed(head_s=100), Timed(100, status=503)):
        _, error, ended = go(transport, limits)
        if transport.status == 200:
            assert (error and error.kind) == "DeadlineExceeded"
        assert ended == pytest.approx(total_s, abs=1e-6)


@pytest.mark.parametrize("gap_s", [0.0, 1.0, 3.9])
def test_slow_consumer_is_not_timed_out(gap_s: float) -> None:
    transport = Timed(*(step for n in range(5) for step in (gap_s, piece(f"{n}"))), gap_s, FINISH, DONE)
    run, error, _ = go(transport, Limits(5, 10, 4, 6000), consumer_s=100)
    assert error is None
    assert run.fold.text == "01234"


def test_time_of_the_consumer_counts_for_the_deadline() -> None:
    _, error, ended = go(Timed(*[piece("a"), 1] * 10), LIMITS, consumer_s=25)
    assert (error and error.kind) == "DeadlineExceeded"
    assert 60 <= ended <= 80


def test_silence_is_counted_apart_from_the_consumers_time() -> None:
    _, error, ended = go(Timed(piece("a"), 3, PING, 3), consumer_s=10)
    assert (error and error.kind, ended) == ("TimedOut", pytest.approx(14))


def test_reasoning_and_tool_calls_stop_the_first_token_clock() -> None:
    thought = sse({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    call = sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]})
    run, error, _ = go(Timed(9, thought, 3, call, 3, FINISH))
    assert error is None
    assert run.first_token_s == pytest.approx(9)


@pytest.mark.parametrize(
    "after", [(100,), (*[1, PING] * 100,), (ConnectionFailed("reset"),), (b'data: {"error": 1}\n\n',)]
)
def test_after_the_finish_reason_nothing_hurts(after: Any) -> None:
    run, error, ended = go(Timed(piece("a"), FINISH, *after))
    assert error is None
    assert run.fold.text == "a"
    assert ended <= 2.001


def test_usage_after_the_finish_reason_is_still_heard() -> None:
    usage = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    run, _, _ = go(Timed(piece("a"), FINISH, 1, usage, DONE))
    assert run.fold.usage is not None
    assert run.fold.usage.input_tokens == 3


def test_done_ends_it_at_once() -> None:
    _, error, ended = go(Timed(piece("a"), FINISH, DONE, 100))
    assert (error, ended) == (None, 0)


def test_done_without_a_finish_reason_is_whole() -> None:
    run, error, _ = go(Timed(piece("a"), DONE, 100))
    assert error is None
    assert run.fold.finish_reason == "stop"


def test_refusal_whose_body_hangs_is_still_that_refusal() -> None:
    _, error, ended = go(Timed(b'{"error"', 100, status=429))
    assert (error and error.kind, ended) == ("RateLimited", pytest.approx(10))


def test_refusal_whose_body_breaks_is_still_that_refusal() -> None:
    _, error, _ = go(Timed(b'{"error"', ConnectionFailed("reset"), status=503))
    assert error is not None
    assert (error.kind, error.status) == ("Unavailable", 503)


# ---------------------------------------------------------------- how it breaks


def test_break_before_the_first_token_is_a_failed_connection() -> None:
    _, error, _ = go(Timed(piece(), ConnectionFailed("reset")))
    assert (error and error.kind) == "ConnectionFailed"


def test_break_after_the_first_token_is_a_truncated_stream() -> None:
    _, error, _ = go(Timed(piece("a"), ConnectionFailed("reset")))
    assert error is not None
    assert (error.kind, error.partial_text) == ("StreamTruncated", "a")


@pytest.mark.parametrize(("finish", "kind"), [("content_filter", "ContentFiltered"), ("error", "Unavailable")])
def test_finish_reason_that_is_a_failure(finish: str, kind: str) -> None:
    _, error, _ = go(Timed(piece("a"), piece(finish=finish), DONE))
    assert (error and error.kind) == kind


@pytest.mark.parametrize("status", [201, 202, 206])
def test_any_success_status_may_hold_an_answer(status: int) -> None:
    run, error, _ = go(Timed(piece("a"), FINISH, DONE, status=status))
    assert (error, run.status) == (None, status)


@pytest.mark.parametrize("status", [300, 304, 399])
def test_redirect_without_an_address_is_a_bad_response(status: int) -> None:
    _, error, _ = go(Timed(status=status))
    assert error is not None
    assert error.kind == "BadResponse"
    assert "nowhere" in error.message


# ---------------------------------------------------------------- what an error says


def test_error_says_where_and_holds_the_partial_text() -> None:
    _, error, _ = go(ScriptedTransport(Reply.stream("par", "tial", finish=None, done=False)))
    assert error is not None
    assert error.message.startswith("p/m: ")
    assert (error.provider, error.model, error.status, error.partial_text) == ("p", "m", 200, "partial")
    assert error.args == (error.message,)


def test_place_is_said_once() -> None:
    _, error, _ = go(ScriptedTransport(ConnectionFailed("p/m: the connection was refused")))
    assert error is not None
    assert error.message == "p/m: the connection was refused"


@pytest.mark.parametrize("size", [len(KEY), len(KEY) - 1, 12, 8])
def test_key_is_masked_in_all_that_an_error_holds(size: int) -> None:
    said = KEY[:size]
    inner = ValueError(f"inner {said}", 3)
    raised = Unavailable(f"message {said}", hint=f"hint {said}", request_id=f"id {said}")
    raised.__cause__ = inner
    _, error, _ = go(ScriptedTransport(raised))
    assert error is not None
    assert (error.message, error.hint, error.request_id) == ("p/m: message ***", "hint ***", "id ***")
    assert inner.args == ("inner ***", 3)


def test_every_secret_is_masked_in_all_that_an_answer_holds() -> None:
    hidden = ("a-token-of-a-session/7f3a9c2e", "the-value-of-a-header-51d84b06")
    endpoint = Endpoint("https://p.example", Secret(KEY), hidden=tuple(map(Secret, hidden)))
    run = AttemptRun(DEPLOYMENT, REQUEST, endpoint, LIMITS)
    said = [text[at : at + 10] for text in (KEY, *hidden) for at in range(0, 40, 10)]
    deltas: list[dict[str, Any]] = [{key: each} for key in ("content", "reasoning", "refusal") for each in said]
    deltas += [{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": each}}]} for each in said]
    rows = [sse({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]

    async def consume() -> list[Event]:
        return [event async for event in run.events(Timed(*rows, FINISH), VirtualClock())]

    assert "".join(event.text for event in run_virtual(consume())) == "*********"
    made = run.completion()
    assert (made.text, made.reasoning, made.refusal, made.tool_calls[0].arguments) == ("*********",) * 4


def test_location_of_a_redirect_is_masked_and_without_its_query() -> None:
    reply = Reply(302, {"location": f"https://evil.example/{KEY}?prompt=secret"})
    _, error, _ = go(ScriptedTransport(reply))
    assert error is not None
    assert "https://evil.example/***;" in error.message
    assert "secret" not in error.message


def called(arguments: str, name: str | None = None, index: int = 0) -> bytes:
    function = {"name": name, "arguments": arguments}
    row = {"index": index, "id": name and f"id-{name}", "function": function}
    return sse({"choices": [{"index": 0, "delta": {"tool_calls": [row]}, "finish_reason": None}]})


CALLS = piece(finish="tool_calls")
BROKEN = b"data: {broken\n\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((called('{"eur": 1', "pay"), BROKEN, called("0}"), CALLS), "may not be whole"),
        ((called('{"eur": 1', "pay"), BROKEN, called("0}"), FINISH), "may not be whole"),
        ((called('{"eur":', "pay"), called(" 10}", index=3), CALLS), "without a name"),
        ((CALLS,), "holds no call"),
        ((piece("a"), BROKEN, piece("b"), FINISH), None),
        ((piece("a"), CALLS), None),
        ((called("{}", "pay"), called("", "get", 1), CALLS), None),
    ],
)
def test_a_call_that_cannot_be_made_is_no_answer(rows: tuple[bytes, ...], said: str | None) -> None:
    _, error, _ = go(Timed(*rows, DONE))
    assert (error and error.kind) == (said and "BadResponse")
    assert error is None or (said and said in error.message)


def test_calls_that_share_an_id_are_told_apart() -> None:
    turn = (
        Message("assistant", (), (ToolCall("call_0", "f", "{}"),)),
        Message("tool", (Text("1"),), tool_call_id="call_0"),
    )
    transport = ScriptedTransport(Reply.stream("a"))
    run = attempt(request=Request((*REQUEST.messages, *turn, *turn)))

    async def consume() -> None:
        async for _ in run.events(transport, VirtualClock()):
            pass

    run_virtual(consume())
    sent = json.loads(transport.requests[0].body)["messages"]
    assert sent[3]["tool_calls"][0]["id"] == sent[4]["tool_call_id"] == "call_0_2"


def test_dropped_parameters_are_named() -> None:
    provider = Provider("p", api_base="https://p.example", dialect={"drop": ["top_k"]})
    request = Request(REQUEST.messages, Params(top_k=3, temperature=1.0))
    run = AttemptRun(Deployment("d", provider, "m"), request, Endpoint("https://p.example", Secret("")), LIMITS)
    assert run.dropped == ("top_k",)


@pytest.mark.parametrize("leave_after", [0, 1, 3])
def test_leaving_early_closes_the_response(leave_after: int) -> None:
    transport = Timed(*[piece("a"), 1] * 100)
    run = attempt()

    async def leave() -> list[Event]:
        seen: list[Event] = []
        async with aclosing(run.events(transport, VirtualClock())) as events:
            async for event in events:
                seen.append(event)
                if len(seen) > leave_after:
                    break
        assert transport.open == 0
        return seen

    assert len(run_virtual(leave())) == leave_after + 1


def test_cancellation_closes_the_response() -> None:
    transport = Timed(piece("a"), 3, piece("b"), 3)

    async def cancel() -> None:
        async def consume() -> None:
            async for _ in attempt().events(transport, VirtualClock()):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(2)
        assert transport.open == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert transport.open == 0

    run_virtual(cancel())
