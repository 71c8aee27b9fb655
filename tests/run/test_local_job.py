"""A request to the embedded model without the model: what it is asked, and what is made of what it says."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmctl.core.errors import BadResponse
from llmctl.core.types import Request, ToolCall, Usage, fold
from llmctl.run.local_job import DEFAULT_MAX_TOKENS, Job, TooLong
from llmctl.wire import openai_chat

USER = [{"role": "user", "content": "hello"}]


def asked(**body: Any) -> dict[str, Any]:
    """The body the model gets for a request."""
    loop = asyncio.new_event_loop()
    try:
        return json.loads(Job(json.dumps({"messages": USER, **body}).encode(), loop, 1024).body)
    finally:
        loop.close()


def answered(say: Callable[[Job], None], **body: Any) -> tuple[int, list[bytes]]:
    """The status and body when the model says what `say` tells it to, from its own thread."""

    def said(job: Job) -> None:
        try:
            say(job)
        except BaseException as error:  # a failed assertion must not leave the loop waiting
            job.fail(RuntimeError(repr(error)))
            raise

    async def main() -> tuple[int, list[bytes]]:
        loop = asyncio.get_running_loop()
        job = Job(json.dumps({"messages": USER, **body}).encode(), loop, 1024)
        model = loop.run_in_executor(None, said, job)
        status = await job.status()
        chunks = [chunk async for chunk in job.chunks()]
        await model
        return status, chunks

    return asyncio.run(main())


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"finish_reason": finish_reason, "index": 0, "delta": delta}
    return json.dumps({"choices": [choice], "object": "chat.completion.chunk", **more}, separators=(",", ":")).encode()


def saying(*chunks: bytes) -> Callable[[Job], None]:
    def say(job: Job) -> None:
        job.begin(1024)
        for each in chunks:
            if job.heard(each):
                break
        assert job.end()

    return say


def test_request_without_parameters_is_greedy_capped_and_streamed() -> None:
    body = asked()
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, DEFAULT_MAX_TOKENS, True)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_own_parameters_are_kept_and_null_is_absent(name: str) -> None:
    body = asked(temperature=0.7, stop=["x"], seed=None, **{name: 9})
    assert (body["temperature"], body["stop"], body[name]) == (0.7, ["x"], 9)
    assert not {"max_tokens", "max_completion_tokens", "seed"} - {name} & body.keys()


@pytest.mark.parametrize("stream", [True, False])
def test_whatever_was_asked_for_a_stream_comes_and_is_read(stream: bool) -> None:
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "mul", "arguments": "{}"}}
    status, body = answered(
        saying(
            chunk({"role": "assistant", "content": None}),
            chunk({"tool_calls": [first]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}, second]}),
            chunk({}, "tool_calls", model="m"),
            b'{"choices":[],"usage":{"prompt_tokens":3}}',
        ),
        stream=stream,
    )
    decoder = openai_chat.decoder(Request((), stream=stream), status, {})
    answer = fold([*decoder.feed(b"".join(body)), *decoder.end()])
    assert answer.tool_calls == (ToolCall("a", "add", '{"x":1}'), ToolCall("b", "mul", "{}"))
    assert (answer.finish_reason, answer.reported_model, answer.usage) == ("tool_calls", "m", Usage(3))


def test_usage_is_asked_for_where_a_whole_answer_would_say_it() -> None:
    assert asked()["stream_options"] == {"include_usage": True}
    assert "stream_options" not in asked(stream=True)


def test_error_in_the_middle_of_a_stream_is_an_event() -> None:
    error = b'{"error":{"code":500,"message":"broke","type":"server_error"}}'
    status, body = answered(saying(chunk({"content": "a"}), error), stream=True)
    assert status == 200
    assert len(body) == 2
    assert json.loads(body[1].removeprefix(b"data: "))["error"]["message"] == "broke"


def test_error_before_anything_else_is_the_status() -> None:
    status, body = answered(
        saying(b'{"error":{"code":503,"message":"loading","type":"unavailable_error"}}'), stream=True
    )
    assert status == 503
    assert json.loads(body[0])["error"]["message"] == "loading"


def test_progress_is_not_shown_and_words_like_it_are() -> None:
    progress = chunk({"content": None}, prompt_progress={"total": 5, "processed": 5})
    _, body = answered(saying(progress, chunk({"content": '"prompt_progress":'})), stream=True)
    assert [json.loads(each.removeprefix(b"data: ")) for each in body[:-1]] == [
        json.loads(chunk({"content": '"prompt_progress":'}))
    ]


def test_larger_context_is_asked_for_once_and_never_beyond_the_trained_one() -> None:
    refusal = (
        b'{"error":{"code":400,"type":"exceed_context_size_error","message":"","n_prompt_tokens":900,"n_ctx":256}}'
    )

    def say(job: Job) -> None:
        job.begin(256)
        assert job.heard(refusal)
        assert not job.end()
        assert job.tokens == 900 + DEFAULT_MAX_TOKENS
        job.begin(1024)
        assert not job.heard(chunk({"content": "a"}))
        assert job.end()

    assert answered(say, stream=True)[0] == 200


@pytest.mark.parametrize("stopped", [True, False])
def test_answer_that_never_came_raises(stopped: bool) -> None:
    def say(job: Job) -> None:
        if stopped:
            job.cancel()
        assert job.end()

    with pytest.raises(BadResponse, match="stopped" if stopped else "no answer"):
        answered(say)


def test_prompt_that_cannot_fit_is_refused_before_its_tokens_are_counted() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(TooLong, match="context length is 1024"):
            Job(json.dumps({"messages": [{"role": "user", "content": "x" * 1024 * 32}]}).encode(), loop, 1024)
    finally:
        loop.close()
