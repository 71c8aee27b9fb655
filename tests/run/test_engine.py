"""Whole calls on virtual time: who is asked when, what is shown, what it cost, and the row that every end leaves."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.core.errors import ConnectionFailed, LlmctlError, TimedOut, UsageError
from llmctl.routing.call import Done, Send, Wait
from llmctl.run.observe import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Decided, Waiting
from llmctl.testing import EPOCH, MemoryLedger, Reply, ScriptedTransport, VirtualClock, run_virtual, sse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmctl.core.record import Answer, CallRecord
    from llmctl.run.observe import Notice

KEY = "canary-7f3a9c2e51d84b06"
OK = Reply.stream("Hel", "lo")
CUT = Reply.stream("par", "tial", finish=None, done=False)
CONFIG: dict[str, Any] = {
    "models": {
        "solo": {"model": "openai/a", "price": {"input": 1.0, "output": 10.0}},
        "pair": {"model": "openai/a", "fallbacks": ["second"]},
        "second": {"model": "groq/b"},
        "triple": {"model": "openai/a", "fallbacks": ["second", "third"]},
        "third": {"model": "mistral/c"},
    },
    "providers": {name: {"api_key": KEY} for name in ("openai", "groq", "mistral")},
}


class World:
    """A client on doubles, and everything that they saw."""

    def __init__(self, *replies: Reply | LlmctlError, config: dict[str, Any] | None = None, hooks: Any = ()) -> None:
        self.transport = ScriptedTransport(*replies)
        self.ledger = MemoryLedger()
        self.notices: list[Notice] = []
        self.client = Client(
            config or CONFIG, environ={}, transport=self.transport, ledger=self.ledger, clock=VirtualClock(),
            rng=random.Random(7), hooks=[*hooks, self.notices.append],
        )  # fmt: skip

    def complete(self, model: str = "solo", **options: Any) -> Answer:
        answer: Answer = self.run(lambda: self.client.acomplete("hi", model=model, **options))
        return answer

    def fail(self, model: str = "solo", **options: Any) -> LlmctlError:
        with pytest.raises(LlmctlError) as caught:
            self.complete(model, **options)
        return caught.value

    def stream(self, model: str = "solo", **options: Any) -> tuple[str, LlmctlError | None]:
        """The text that was shown, and how it failed."""

        async def consume() -> tuple[str, LlmctlError | None]:
            shown = ""
            try:
                async for event in self.client.astream("hi", model=model, **options):
                    shown += event.text
            except LlmctlError as error:
                return shown, error
            return shown, None

        result: tuple[str, LlmctlError | None] = self.run(consume)
        return result

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of `work` on virtual time; afterwards nothing is open or held, and every row complete, once."""

        async def timed() -> Any:
            try:
                return await work()
            finally:
                self.ended = asyncio.get_running_loop().time()

        try:
            return run_virtual(timed())
        finally:
            gc.collect()
            assert self.transport.open == 0
            assert self.ledger.states.count("started") == len(self.ledger.rows)
            assert len(self.ledger.states) == 2 * len(self.ledger.rows)
            assert all(row.state != "started" for row in self.ledger.rows.values())
            documents = self.client.state.documents.values()  # type: ignore[attr-defined]
            assert not any(document.get("open") for document in documents), "something is still reserved"

    @property
    def row(self) -> CallRecord:
        (row,) = self.ledger.rows.values()
        return row

    def told(self, kind: type) -> list[Any]:
        return [notice for notice in self.notices if isinstance(notice, kind)]

    @property
    def attempts(self) -> list[tuple[str, str, str]]:
        """(deployment, role, outcome) of each attempt, as the row has them."""
        (attempts,) = self.ledger.attempts.values()
        assert [a.n for a in attempts] == list(range(1, len(attempts) + 1))
        assert self.row.attempt_count == len(attempts)
        return [(a.deployment, a.role, a.outcome) for a in attempts]


# ---------------------------------------------------------------- a plain success


def test_success_is_one_row_with_all_that_was_measured() -> None:
    world = World(Reply.stream("Hel", "lo", delay_s=2.0, gap_s=0.5))
    answer = world.complete(tags={"team": "web"}, session="s")
    row = world.row
    assert (answer.text, answer.served_by, answer.finish_reason) == ("Hello", "openai/a", "stop")
    assert (row.state, row.exit_code, row.command, row.model, row.session) == ("ok", 0, "library", "solo", "s")
    assert (row.provider, row.deployment, row.fallback, row.error) == ("openai", "solo-1", False, None)
    assert (row.started_at, row.finished_at) == (EPOCH, pytest.approx(EPOCH + 4.5))
    assert row.latency_ms == pytest.approx(4500)
    assert row.first_token_ms == pytest.approx(2500)
    assert row.overhead_ms == pytest.approx(0)
    assert (row.reported_model, dict(row.tags)) == ("scripted", {"team": "web"})
    assert world.attempts == [("solo-1", "primary", "ok")]
    assert answer.record == row
    assert world.ledger.texts[row.id] == ("hi", "Hello")
    assert len(row.id) == 26


def test_log_off_keeps_the_row_and_no_text() -> None:
    world = World(OK)
    world.complete(log=False)
    assert world.ledger.texts[world.row.id] == (None, None)


def test_content_none_keeps_no_text() -> None:
    world = World(OK, config={**CONFIG, "log": {"content": "none"}})
    world.complete()
    assert world.ledger.texts[world.row.id] == (None, None)


def test_events_add_up_to_the_answer_of_the_stream() -> None:
    world = World(OK)

    async def consume() -> None:
        stream = world.client.astream("hi", model="solo")
        assert stream.answer is None
        assert "".join([event.text async for event in stream]) == "Hello"
        assert stream.answer is not None
        assert stream.answer.text == "Hello"

    world.run(consume)


def test_events_of_a_call_are_read_once() -> None:
    world = World(OK)

    async def consume() -> None:
        stream = world.client.astream("hi", model="solo")
        assert [event.text async for event in stream][:2] == ["Hel", "lo"]
        with pytest.raises(UsageError):
            [event async for event in stream]

    world.run(consume)
    assert len(world.transport.requests) == 1


# ---------------------------------------------------------------- usage and cost


def test_price_of_the_configuration_is_exact() -> None:
    answer = World(OK).complete()
    assert answer.record.cost_nanousd == 7 * 1000 + 2 * 10_000
    assert answer.cost_usd == pytest.approx(27e-6)


def test_unknown_price_is_no_cost() -> None:
    answer = World(OK).complete("second")
    assert answer.usage.input_tokens == 7
    assert (answer.cost_usd, answer.record.cost_nanousd, answer.attempts[0].cost_nanousd) == (None, None, None)


def test_usage_is_estimated_and_marked_when_the_provider_gives_none() -> None:
    reply = Reply(headers={"content-type": "text/event-stream"}, chunks=OK.chunks[:3])
    answer = World(reply).complete()
    assert answer.usage.estimated
    assert answer.record.tokens_estimated
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.cost_usd is not None


def test_a_count_that_was_only_a_start_is_no_less_than_what_has_come() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}}
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 500}}
    broken = Reply(headers={"content-type": "text/event-stream"}, chunks=(sse(start), sse(said)))
    config = CONFIG | {"models": {"solo": {"model": "anthropic/claude-sonnet-4-5"}}}
    world = World(broken, config={**config, "providers": {"anthropic": {"api_key": KEY}}})
    (attempt,) = world.fail(retries=0).attempts
    assert attempt.input_tokens == 12
    assert attempt.output_tokens == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize(("model", "kept"), [("gemini/gemini-3-pro", False), ("anthropic/claude-sonnet-4-5", True)])
def test_a_thought_goes_back_only_to_whoever_made_it(model: str, kept: bool) -> None:
    turn = {
        "role": "assistant",
        "content": "x",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        "provider_specific_fields": {"maker": "anthropic"},
    }
    asked = [{"role": "user", "content": "a"}, turn, {"role": "user", "content": "b"}]
    keys = {name: {"api_key": KEY} for name in ("gemini", "anthropic")}
    world = World(Reply.refusal(400), config={"providers": keys})
    with pytest.raises(LlmctlError):
        world.run(lambda: world.client.acomplete(messages=asked, model=model))
    assert (b"hm" in world.transport.requests[0].body) is kept


def test_enormous_answer_is_estimated_in_proportion() -> None:
    rows = [sse({"choices": [{"index": 0, "delta": {"content": "word " * 100_000}}]})] * 2
    reply = Reply(headers={"content-type": "text/event-stream"}, chunks=(*rows, *Reply.stream().chunks[:1]))
    answer = World(reply).complete()
    assert answer.usage.output_tokens == pytest.approx(200_000, rel=0.1)


def test_attempt_that_cost_nothing_does_not_hide_the_cost() -> None:
    answer = World(Reply.refusal(503), OK).complete()
    assert answer.cost_usd == pytest.approx(27e-6)


def test_broken_attempts_are_counted_with_what_they_cost() -> None:
    world = World(CUT, OK)
    answer = world.complete()
    first, second = answer.attempts
    assert first.output_tokens
    assert answer.record.cost_nanousd == (first.cost_nanousd or 0) + (second.cost_nanousd or 0)
    assert (first.cost_nanousd or 0) > 0


def test_one_unpriced_attempt_makes_the_cost_unknown() -> None:
    config = {**CONFIG, "models": {**CONFIG["models"], "mixed": {**CONFIG["models"]["solo"], "fallbacks": ["second"]}}}
    answer = World(CUT, OK, config=config).complete("mixed", retries=0)
    assert answer.attempts[0].cost_nanousd
    assert answer.cost_usd is None


# ---------------------------------------------------------------- attempts and roles


def test_retry_then_fallback_then_success() -> None:
    world = World(Reply.refusal(503), Reply.refusal(503), OK)
    answer = world.complete("pair", retries=1)
    assert world.attempts == [
        ("pair-1", "primary", "Unavailable"), ("pair-1", "retry", "Unavailable"), ("second-1", "fallback", "ok"),
    ]  # fmt: skip
    assert (answer.fallback, answer.served_by) == (True, "groq/b")
    assert [a.status for a in answer.attempts] == [503, 503, 200]


def test_silent_target_is_not_asked_twice() -> None:
    world = World(Reply(delay_s=1000), OK)
    world.complete("pair")
    assert world.attempts == [("pair-1", "primary", "TimedOut"), ("second-1", "fallback", "ok")]
    assert world.ended == pytest.approx(30)


def test_failed_connection_is_tried_once_more() -> None:
    world = World(ConnectionFailed("refused"))
    error = world.fail()
    assert world.attempts == [("solo-1", "primary", "ConnectionFailed"), ("solo-1", "retry", "ConnectionFailed")]
    assert (error.kind, error.exit_code) == ("ConnectionFailed", 6)


def test_at_most_six_tries() -> None:
    world = World(Reply.refusal(503))
    world.fail("triple", retries=2)
    assert len(world.attempts) == 6
    assert {deployment for deployment, _, _ in world.attempts} == {"triple-1", "second-1", "third-1"}


PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}]


@pytest.mark.parametrize(("last", "served"), [(OK, "mistral/c"), (ConnectionFailed("down"), None)])
def test_a_link_that_cannot_be_told_the_request_is_passed_over(last: Reply | LlmctlError, served: str | None) -> None:
    pytest.importorskip("botocore")
    bedrock = {"model": "bedrock/b", "api_key": KEY, "api_base": "https://b.example"}
    config = {**CONFIG, "models": {**CONFIG["models"], "second": bedrock}}
    # On a real clock: Amazon's credentials are looked for on a thread, which virtual time does not wait for.
    client = Client(config, environ={}, transport=ScriptedTransport(Reply(503), last), ledger=MemoryLedger())
    with client:
        if served:
            assert client.complete(messages=PICTURE, model="triple", retries=0).served_by == served
        else:
            with pytest.raises(ConnectionFailed) as caught:
                client.complete(messages=PICTURE, model="triple", retries=0)
            assert caught.value.exit_code == 6
            assert [each.outcome for each in caught.value.attempts][:2] == ["Unavailable", "UsageError"]


@pytest.mark.parametrize(
    ("status", "exit_code"), [(400, 5), (401, 4), (403, 4), (404, 5), (413, 5), (422, 5), (402, 6)]
)
def test_refusal_for_good_is_asked_once(status: int, exit_code: int) -> None:
    world = World(Reply.refusal(status))
    error = world.fail()
    assert len(world.attempts) == 1
    assert (error.exit_code, world.row.exit_code, world.row.state) == (exit_code, exit_code, "failed")
    assert world.row.error == error.kind
    assert world.ended == 0


def test_chain_that_failed_in_several_ways_may_succeed_later() -> None:
    world = World(Reply.refusal(401), Reply.refusal(503))
    error = world.fail("pair", retries=0)
    assert (error.exit_code, world.row.exit_code) == (6, 6)
    assert [a.outcome for a in error.attempts] == ["Unauthorized", "Unavailable"]


def test_nothing_sleeps_after_the_last_attempt() -> None:
    world = World(Reply.refusal(503, headers={"retry-after": "2"}))
    world.fail(retries=2)
    assert len(world.attempts) == 3
    assert isinstance(world.notices[-1], CallEnded)
    assert world.ended == pytest.approx(4)  # two waits between three attempts, none after them
    assert sum(notice.wait_s for notice in world.told(Waiting)) == pytest.approx(4)


@pytest.mark.parametrize(
    ("header", "value", "at"),
    [
        ("retry-after", "3", 3.0),
        ("retry-after-ms", "1500", 1.5),
        ("x-ms-retry-after-ms", "250", 0.25),
        ("retry-after", "Thu, 01 Jan 2026 00:00:04 GMT", 4.0),
    ],
)
def test_retry_after_is_kept_to_the_instant(header: str, value: str, at: float) -> None:
    world = World(Reply.refusal(429, headers={header: value}), OK)
    answer = world.complete()
    assert world.ended == pytest.approx(at, abs=1e-6)
    assert answer.waited_ms == pytest.approx(at * 1000, abs=1e-3)
    assert answer.attempts[0].retry_after_s == pytest.approx(at)
    assert world.row.overhead_ms == pytest.approx(0, abs=1e-3)


def test_fallback_is_asked_at_once_instead_of_waiting() -> None:
    world = World(Reply.refusal(429, headers={"retry-after": "3"}), OK)
    world.complete("pair")
    assert world.attempts == [("pair-1", "primary", "RateLimited"), ("second-1", "fallback", "ok")]
    assert world.ended == 0


def test_wait_beyond_max_wait_is_not_begun() -> None:
    world = World(Reply.refusal(429, headers={"retry-after": "100"}))
    error = world.fail(max_wait=10)
    assert (error.kind, error.exit_code, world.ended) == ("RateLimited", 6, 0)


def test_deadline_bounds_attempts_and_waits_together() -> None:
    world = World(Reply(delay_s=4, chunks=(b"",)), config={**CONFIG, "timeout": {"first_token": "10s"}})
    error = world.fail(timeout=3)
    assert (error.kind, error.exit_code) == ("DeadlineExceeded", 7)
    assert world.ended == pytest.approx(3)
    assert (world.row.state, world.row.exit_code) == ("failed", 7)


def test_deadline_in_the_middle_of_a_shown_answer_is_incomplete() -> None:
    world = World(Reply.stream(*"abcdefgh", gap_s=1.0))
    shown, error = world.stream(timeout=3.5)
    assert error is not None
    assert (shown, error.kind, error.exit_code, error.partial_text) == ("abc", "DeadlineExceeded", 8, "abc")
    assert (world.row.state, world.row.served_by) == ("incomplete", "openai/a")
    assert world.ended == pytest.approx(3.5)


def test_deadline_of_zero_sends_nothing() -> None:
    world = World(OK)
    assert world.fail(timeout=0).kind == "DeadlineExceeded"
    assert world.transport.requests == []
    assert world.row.attempt_count == 0


def test_reasoning_model_has_longer_for_its_first_token_and_only_it() -> None:
    config = {**CONFIG, "models": {**CONFIG["models"], "mixed": {"model": "groq/b", "fallbacks": ["thinker"]},
                                   "thinker": {"model": "openai/o", "reasoning": True}}}  # fmt: skip
    world = World(Reply(delay_s=100), Reply.stream("deep", delay_s=100), config=config)
    assert world.complete("mixed").text == "deep"
    assert world.attempts == [("mixed-1", "primary", "TimedOut"), ("thinker-1", "fallback", "ok")]
    assert world.ended == pytest.approx(130)


# ---------------------------------------------------------------- streams that break


def test_buffered_call_falls_back_whole() -> None:
    world = World(CUT, OK)
    assert world.complete("pair", retries=0).text == "Hello"
    assert world.attempts == [("pair-1", "primary", "StreamTruncated"), ("second-1", "fallback", "ok")]


def test_shown_stream_is_committed() -> None:
    world = World(CUT, OK)
    shown, error = world.stream("pair")
    assert error is not None
    assert (shown, error.kind, error.exit_code, error.partial_text) == ("partial", "StreamTruncated", 8, "partial")
    assert len(world.transport.requests) == 1
    assert (world.row.state, world.row.exit_code, world.row.served_by) == ("incomplete", 8, "openai/a")
    assert world.ledger.texts[world.row.id] == ("hi", "partial")


def test_idle_stream_that_was_shown_is_incomplete() -> None:
    world = World(Reply.stream("a", "b", gap_s=31.0), OK, config={**CONFIG, "timeout": {"first_token": "60s"}})
    shown, error = world.stream("pair")
    assert error is not None
    assert (shown, error.kind, error.exit_code) == ("a", "TimedOut", 8)


def test_stream_with_nothing_shown_falls_back() -> None:
    world = World(Reply.stream("", finish=None, done=False), OK)
    assert world.stream("pair", retries=0) == ("Hello", None)


def test_restart_shows_the_whole_answer_again_after_a_notice() -> None:
    world = World(CUT, OK)
    assert world.stream("pair", retries=0, on_break="restart") == ("partialHello", None)
    assert [notice.restarts for notice in world.told(AttemptStarted)] == [False, True]
    assert (world.row.state, world.row.fallback) == ("ok", True)


def test_fallback_before_anything_was_shown_restarts_nothing() -> None:
    world = World(Reply.refusal(503), OK)
    world.stream("pair", retries=0, on_break="restart")
    assert [notice.restarts for notice in world.told(AttemptStarted)] == [False, False]


def test_length_is_incomplete_unless_the_caller_asked_for_it() -> None:
    short = Reply.stream("a", finish="length")
    world = World(short)
    answer = world.complete()
    assert (answer.finish_reason, answer.record.state, answer.record.exit_code) == ("length", "incomplete", 8)
    world = World(short)
    answer = world.complete(max_tokens=1)
    assert (answer.record.state, answer.record.exit_code) == ("ok", 0)


# ---------------------------------------------------------------- hooks


def test_hooks_are_told_everything_in_order() -> None:
    world = World(Reply.refusal(429, headers={"retry-after": "1"}), OK)
    world.complete()
    kinds = [type(notice) for notice in world.notices]
    attempt = [Decided, AttemptStarted, AttemptEnded]
    assert kinds == [CallStarted, *attempt, Decided, Waiting, *attempt, Decided, CallEnded]
    assert [type(notice.decision) for notice in world.told(Decided)] == [Send, Wait, Send, Done]
    first, second = world.told(AttemptEnded)
    assert (first.error.kind, second.error) == ("RateLimited", None)
    assert world.told(CallEnded)[0].record == world.row


@pytest.mark.parametrize("replies", [(OK,), (CUT,), (Reply.refusal(400),)])
def test_hook_that_raises_never_changes_a_call(replies: tuple[Reply, ...]) -> None:
    def broken(_notice: Notice) -> None:
        raise RuntimeError("mine")

    def outcome(world: World) -> tuple[Any, ...]:
        try:
            return (world.complete().text,)
        except LlmctlError as error:
            return (error.kind, error.message)

    plain, hooked = World(*replies), World(*replies, hooks=[broken])
    assert outcome(plain) == outcome(hooked)
    assert plain.attempts == hooked.attempts


def test_dropped_parameters_are_announced() -> None:
    world = World(OK)
    answer = world.complete(top_k=5)
    assert answer.dropped == ("top_k",)
    assert world.told(AttemptStarted)[0].dropped == ("top_k",)
    assert "top_k" not in world.transport.bodies()[0]


# ---------------------------------------------------------------- every end of a call


def consume_then(
    world: World, end: Callable[[Any], Coroutine[Any, Any, None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def work() -> None:
        await end(world.client.astream("hi", model="pair"))
        await asyncio.sleep(1)  # what is left to the event loop happens now

    return work


async def _break(stream: Any) -> None:
    async for _ in stream:
        break


async def _aclose(stream: Any) -> None:
    async with aclosing(aiter(stream)) as events:
        await anext(events)


async def _consumer_raises(stream: Any) -> None:
    try:
        async for _ in stream:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


async def _collected(stream: Any) -> None:
    events = aiter(stream)
    await anext(events)
    del events
    gc.collect()


async def _task_cancelled(stream: Any) -> None:
    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _timed_out_by_the_caller(stream: Any) -> None:
    try:
        async with asyncio.timeout(1.5):
            async for _ in stream:
                pass
    except TimeoutError:
        return
    raise AssertionError("the timeout did not come through")


@pytest.mark.parametrize(
    "end", [_break, _aclose, _consumer_raises, _collected, _task_cancelled, _timed_out_by_the_caller]
)
def test_call_that_is_left_is_cancelled_with_its_partial_text(end: Any) -> None:
    world = World(Reply.stream("a", "b", "c", gap_s=1.0))
    world.run(consume_then(world, end))
    row = world.row
    assert (row.state, row.exit_code, row.error, row.served_by) == ("cancelled", 130, "Cancelled", "openai/a")
    assert world.attempts == [("pair-1", "primary", "Cancelled")]
    assert world.ledger.texts[row.id] == ("hi", "a")
    assert row.tokens_estimated
    assert len(world.told(CallEnded)) == 1


@pytest.mark.parametrize("at", [0.0, 0.5, 2.5, 2.7, 5.0])
def test_cancellation_at_any_time_leaves_one_true_row(at: float) -> None:
    """While connecting, between chunks, in a wait before a retry, in the second attempt."""
    world = World(Reply.refusal(429, headers={"retry-after": "2"}), Reply.stream("a", "b", "c", delay_s=0.5, gap_s=1.0))

    async def work() -> None:
        task = asyncio.create_task(world.client.acomplete("hi", model="solo"))
        await asyncio.sleep(at)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.run(work)
    assert (world.row.state, world.row.exit_code) == ("cancelled", 130)
    assert world.row.latency_ms == pytest.approx(at * 1000)
    assert world.row.overhead_ms == pytest.approx(0, abs=1)


def test_stopper_says_which_exit_code_the_row_gets() -> None:
    world = World(Reply(delay_s=10))

    async def work() -> None:
        run = world.client.call("hi", model="solo")
        task = asyncio.ensure_future(anext(run.events()))
        await asyncio.sleep(1)
        run.exit_if_stopped = 143
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    world.run(work)
    assert (world.row.state, world.row.exit_code) == ("cancelled", 143)


class SlowLedger(MemoryLedger):
    """Takes a second for each write, which is done even when the wait for it is cancelled (as with a real one)."""

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        await super().begin(record, prompt)
        await asyncio.sleep(1)

    async def complete(self, record: CallRecord, attempts: Any, answer: str | None) -> None:
        await super().complete(record, attempts, answer)
        await asyncio.sleep(1)


@pytest.mark.parametrize("at", [0.5, 1.5])
def test_cancellation_while_the_row_is_being_written_leaves_a_complete_row(at: float) -> None:
    world = World(Reply.stream("a"))
    world.client.engine.ledger = world.ledger = SlowLedger()

    async def work() -> None:
        task = asyncio.create_task(world.client.acomplete("hi", model="solo"))
        await asyncio.sleep(at)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    world.run(work)
    assert world.row.state == ("cancelled" if at < 1 else "ok")


def test_exception_that_is_no_error_of_ours_is_a_bug_in_the_row() -> None:
    class Broken(ScriptedTransport):
        def send(self, request: Any, deployment: Any, *, connect_s: float) -> Any:
            raise ZeroDivisionError("a bug")

    world = World(OK)
    world.client._double = Broken()
    with pytest.raises(ZeroDivisionError):
        world.complete()
    assert (world.row.state, world.row.exit_code) == ("failed", 1)


def test_calls_at_once_have_rows_of_their_own() -> None:
    world = World(Reply.stream("a", gap_s=1.0))

    async def work() -> list[Answer]:
        return await asyncio.gather(*(world.client.acomplete("hi", model="solo") for _ in range(50)))

    answers = world.run(work)
    assert len({answer.id for answer in answers}) == len(world.ledger.rows) == 50
    assert {row.state for row in world.ledger.rows.values()} == {"ok"}


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.refusal(400, f"bad key {KEY}"),
        Reply.refusal(401, f"Bearer {KEY}", headers={"x-request-id": KEY}),
        Reply.refusal(500, KEY, code=KEY, type=KEY),
        Reply(302, {"location": f"https://{KEY}.evil.example/{KEY}"}),
        Reply(200, {"content-type": "text/html"}, (f"<p>{KEY}</p>".encode(),)),
        Reply(200, {"content-type": "text/event-stream"}, (sse({"error": {"message": KEY}}),)),
        ConnectionFailed(f"proxy says {KEY}", hint=KEY),
        TimedOut(KEY),
        Reply.stream("a", error=ConnectionFailed(KEY), finish=None, done=False),
    ],
)
def test_key_that_is_echoed_is_masked_everywhere(reply: Reply | LlmctlError, stream: bool) -> None:
    world = World(reply)
    error = world.stream(retries=0)[1] if stream else world.fail(retries=0)
    assert error is not None
    told = (error.message, error.hint, error.args, error.request_id, error.attempts, error.__cause__, error.__context__)
    rows = [(notice.attempt, notice.error and notice.error.message) for notice in world.told(AttemptEnded)]
    assert KEY not in f"{told!r} {world.row} {world.ledger.attempts} {rows}"


@pytest.mark.parametrize("how", ["env", "file", "cmd", "literal"])
def test_key_is_masked_wherever_it_came_from(how: str, tmp_path: Any) -> None:
    (tmp_path / "key").write_text(KEY)
    reference = {
        "env": "env:MY_KEY", "file": f"file:{tmp_path / 'key'}", "cmd": f"cmd:cat {tmp_path / 'key'}", "literal": KEY,
    }[how]  # fmt: skip
    transport, ledger = ScriptedTransport(Reply.refusal(401, f"no such key: {KEY}")), MemoryLedger()
    config = {"models": {"m": {"model": "openai/a", "api_key": reference}}}
    client = Client(config, environ={"MY_KEY": KEY}, transport=transport, ledger=ledger)
    with client, pytest.raises(LlmctlError) as caught:
        client.complete("hi", model="m")
    assert transport.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "no such key: ***" in caught.value.message
    assert KEY not in f"{caught.value!r} {ledger.rows} {ledger.attempts}"


# ---------------------------------------------------------------- what must not be kept, lost or said


def test_an_answer_that_ended_by_an_unknown_word_is_incomplete() -> None:
    answer = World(Reply.stream("Hel", finish="a word of tomorrow")).complete()
    assert (answer.record.state, answer.record.exit_code, answer.text) == ("incomplete", 8, "Hel")


def test_without_text_not_even_a_providers_message_is_kept() -> None:
    world = World(Reply.refusal(400, "I will not say CANARY"))
    error = world.fail(log=False)
    (row,) = world.ledger.rows
    assert "CANARY" in error.attempts[0].error
    assert [attempt.error for attempt in world.ledger.attempts[row]] == [None]
    assert world.ledger.attempts[row][0].outcome == "InvalidRequest"
    assert world.ledger.texts[row] == (None, None)


def test_a_refusal_is_the_answers_text_and_is_kept_and_counted() -> None:
    choice = {"index": 0, "delta": {"refusal": "I cannot do that"}, "finish_reason": "stop"}
    reply = Reply(headers={"content-type": "text/event-stream"}, chunks=(sse({"choices": [choice]}),))
    world = World(reply)
    answer = world.complete()
    assert answer.text == answer.as_json()["text"] == "I cannot do that"
    assert world.ledger.texts[answer.id][1] == "I cannot do that"
    assert answer.usage.output_tokens > 0


SAID = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize("cut", range(1, len(SAID)))
@pytest.mark.parametrize("buffered", [True, False])
def test_a_key_that_the_provider_says_back_is_masked_however_it_is_cut(cut: int, buffered: bool) -> None:
    config = {"models": {"solo": {"model": "openai/m", "api_key": SAID}}}
    world = World(Reply.stream(f"it is {SAID[:cut]}", f"{SAID[cut:]}, is it", " not? sk"), config=config)
    text = world.complete().text if buffered else world.stream()[0]
    assert text == "it is ***, is it not? sk"
    assert SAID not in str(world.ledger.texts)


def test_a_short_key_is_a_word_like_any_other() -> None:
    config = {"models": {"solo": {"model": "openai/m", "api_key": "EMPTY"}}}
    assert World(Reply.stream("the list is EMPTY"), config=config).complete().text == "the list is EMPTY"


def test_leaving_an_async_stream_early_says_nothing_and_completes_the_row(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Reply.stream("a", "b", gap_s=5))

    async def leave() -> None:
        async for _ in world.client.astream("hi", model="solo"):
            break

    run_virtual(leave())
    assert world.ledger.states == ["started", "cancelled"]
    assert not caplog.records
    assert world.transport.open == 0


def test_an_answer_under_a_schema_is_parsed_and_one_that_is_no_json_is_rejected() -> None:
    good = World(Reply.stream('{"n": ', "1}"))
    assert good.complete(schema={"type": "object"}).parsed == {"n": 1}
    bad = World(Reply.stream("n is 1"))
    error = bad.fail(schema={"type": "object"})
    assert (error.kind, error.exit_code) == ("AnswerRejected", 10)
    assert [record.state for record in bad.ledger.rows.values()] == ["failed"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def test_an_answer_is_checked_against_the_schema_and_only_a_good_one_is_shown() -> None:
    fenced = World(Reply.stream("```json\n", '{"n": 1}\n```'))
    assert fenced.stream(schema=SCHEMA) == ('{"n": 1}', None)
    shown, error = World(Reply.stream('{"n": ', '"x"}')).stream(schema=SCHEMA)
    assert error is not None
    assert (shown, error.kind, error.partial_text) == ("", "AnswerRejected", '{"n": "x"}')
    assert error.message.startswith("openai/a: the answer does not meet the schema at $.n")
    assert [attempt.outcome for attempt in error.attempts] == ["ok"]


def test_an_answer_that_does_not_meet_the_schema_is_not_asked_for_again() -> None:
    world = World(Reply.stream("no"), OK)
    assert world.fail("pair", schema=SCHEMA).exit_code == 10
    assert len(world.transport.requests) == 1


def test_a_cut_answer_under_a_schema_is_incomplete_whoever_set_the_limit() -> None:
    world = World(Reply.stream('{"n":', finish="length"))
    answer = world.complete(schema=SCHEMA, max_tokens=1)
    assert (answer.record.state, answer.record.exit_code, answer.parsed) == ("incomplete", 8, None)


def test_any_json_object_may_be_asked_for() -> None:
    world = World(Reply.stream('{"a": 1}'))
    assert world.complete(response_format={"type": "json_object"}).parsed == {"a": 1}
    assert world.transport.bodies()[0]["response_format"] == {"type": "json_object"}
    assert World(Reply.stream("[1]")).fail(response_format={"type": "json_object"}).kind == "AnswerRejected"


def test_a_provider_is_held_to_the_schema_only_where_the_schema_is_closed() -> None:
    world = World(Reply.stream('{"n": 1}'))
    world.complete(schema=SCHEMA)
    world.complete(schema={"type": "object"})
    assert [b["response_format"]["json_schema"]["strict"] for b in world.transport.bodies()] == [True, False]


def called(*pieces: str, name: str = "answer", finish: str = "tool_calls") -> Reply:
    """A stream of one tool call whose arguments come in pieces, slowly."""
    rows = [{"index": 0, "id": "c", "function": {"name": name, "arguments": ""}}]
    rows += [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    events = [chunk({"tool_calls": [row]}) for row in rows]
    return replace(spoken(*events, chunk({}, finish)), gap_s=20.0)


TOOLED = {**CONFIG, "models": {"solo": {"model": "openai/a", "capabilities": ["tools"]}}}


def test_a_schema_is_asked_through_a_tool_where_the_model_has_none_and_its_pieces_keep_the_clocks_still() -> None:
    world = World(called('{"va', 'lue": [1,', " 2]", "}"), config=TOOLED)
    answer = world.complete(schema={"type": "array", "items": {"type": "integer"}})
    assert (answer.text, answer.parsed, answer.finish_reason, answer.tool_calls) == ("[1, 2]", [1, 2], "stop", ())
    (body,) = world.transport.bodies()
    assert "response_format" not in body
    assert body["tool_choice"]["function"]["name"] == body["tools"][0]["function"]["name"] == "answer"


def test_what_had_come_of_an_answer_through_a_tool_is_its_partial_text() -> None:
    reply = replace(called('{"n": '), chunks=called('{"n": ').chunks[:-1])
    error = World(reply, config=TOOLED).fail(schema=SCHEMA, retries=0)
    assert (error.kind, error.partial_text) == ("StreamTruncated", '{"n": ')


def test_a_call_of_a_tool_that_nobody_offered_is_no_answer_under_a_schema() -> None:
    reply = called("{}", name="made_up")
    assert World(reply).fail(schema=SCHEMA).kind == "AnswerRejected"
    offered = {"type": "function", "function": {"name": "made_up", "parameters": {"type": "object"}}}
    for ends in reply, called("{}", name="made_up", finish="stop"):
        answer = World(ends).complete(schema=SCHEMA, tools=[offered], tool_choice="made_up")
        assert (answer.parsed, answer.tool_calls[0].name) == (None, "made_up")


def test_strict_parameters_refuse_what_a_target_cannot_take() -> None:
    world = World(OK)
    assert world.complete(top_k=3).dropped == ("top_k",)
    error = world.fail(top_k=3, strict_params=True)
    assert (error.kind, error.exit_code, error.provider, error.model) == ("InvalidRequest", 5, "openai", "a")
    assert "openai/a takes no top_k" in error.message
    assert len(world.transport.requests) == 1


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def spoken(*chunks: bytes, **how: Any) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, chunks=chunks, **how)


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}]}


KEYED = {"models": {"solo": {"model": "openai/m", "api_key": SAID}}}


def test_only_the_key_itself_is_masked_in_tool_arguments_and_the_events_add_up_to_the_answer() -> None:
    harmless = '{"q": "bearer bonds, sk-your-key-here"}'
    assert (
        World(spoken(chunk(call(harmless), "tool_calls")), config=KEYED).complete().tool_calls[0].arguments == harmless
    )
    world = World(
        spoken(chunk(call('{"k": "sk-can')), chunk(call('ary-0123456789abcdef"}')), chunk({}, "tool_calls")),
        config=KEYED,
    )
    events: list[Any] = []

    async def read() -> Any:
        stream = world.client.astream("hi", model="solo")
        events.extend([event async for event in stream])
        return stream.answer

    answer = run_virtual(read())
    assert answer.tool_calls[0].arguments == '{"k": "***"}'
    assert "".join(delta.arguments for event in events for delta in event.tool_calls) == '{"k": "***"}'


def test_what_is_held_back_of_one_kind_comes_before_another_kind() -> None:
    world = World(
        spoken(chunk({"reasoning_content": "it is yes"}), chunk({"content": "Yes"}), chunk({"content": "."}, "stop")),
        config=KEYED,
    )
    seen: list[tuple[str, str]] = []

    async def read() -> None:
        seen.extend([(event.reasoning, event.text) async for event in world.client.astream("hi", model="solo")])

    run_virtual(read())
    assert seen == [("it is ye", ""), ("s", "Ye"), ("", "s.")]


def test_a_cancelled_answer_keeps_what_was_held_back() -> None:
    world = World(spoken(chunk({"content": "I like cats"}), chunk({"content": "!"}), gap_s=3), config=KEYED)

    async def leave() -> None:
        async with world.client.astream("hi", model="solo") as stream:
            async for _ in stream:
                break

    run_virtual(leave())
    assert [texts[1] for texts in world.ledger.texts.values()] == ["I like cats"]


def test_a_refusal_under_a_schema_is_said_to_be_one() -> None:
    error = World(spoken(chunk({"refusal": "I will not"}, "stop"))).fail(schema={})
    assert (error.kind, error.provider) == ("AnswerRejected", "openai")
    assert "the model refused: I will not" in error.message
    assert World(Reply.stream("NaN")).fail(schema={}).partial_text == "NaN"


def test_a_prompt_whose_tokens_the_caller_knows_is_not_estimated() -> None:
    world = World(OK)
    ask = replace(world.client.call("hi", model="solo").ask, prompt_tokens=50_000)
    world.run(lambda: world.client.engine.call(ask).whole())
    assert next(n.snapshot.prompt_tokens for n in world.notices if isinstance(n, Decided)) == 50_000


def test_a_stream_that_nobody_reads_is_not_pulled_without_end() -> None:
    world = World(Reply.stream(*["x"] * 5000))
    read: list[int] = []

    async def slowly() -> None:
        iterator = aiter(world.client.astream("hi", model="solo"))
        await anext(iterator)
        await asyncio.sleep(1000)
        read.append(len(iterator._handed._waiting))
        read.append(1 + len([event async for event in iterator]))

    run_virtual(slowly())
    assert read[0] <= 1024
    assert read[1] >= 5000


def test_two_readers_of_one_stream_both_come_to_an_end() -> None:
    world = World(Reply.stream("a", "b", gap_s=1))

    async def read() -> list[list[str]]:
        iterator = aiter(world.client.astream("hi", model="solo"))

        async def one() -> list[str]:
            return [event.text async for event in iterator if event.text]

        return await asyncio.gather(one(), one())

    assert sorted(text for texts in run_virtual(read()) for text in texts) == ["a", "b"]
