"""The embedded model, for real: xllamacpp and its weights belong to the test set-up, so nothing here is skipped.

LLMCTL_TEST_WEIGHTS may name a directory of weights; else the user's are taken, else they are pulled into a cache.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmctl
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import BadResponse, ConfigInvalid
from llmctl.core.types import Completion, Request, fold
from llmctl.run import weights
from llmctl.run.extras import distribution
from llmctl.run.local import LocalTransport, first_token_s
from llmctl.wire import openai_chat
from llmctl.wire.base import HttpRequest

MODEL = weights.DEFAULT
LOCAL = Provider("local")
ADA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
ADA_FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": ADA | {"required": ["name", "age"]}}}
LONG = "hello " * 6000


def request(prompt: str = "hello", **body: Any) -> HttpRequest:
    whole = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **body}
    return HttpRequest("POST", "local:/chat/completions", {}, json.dumps(whole).encode())


def deployment(model: str = MODEL) -> Deployment:
    return Deployment(f"local/{model}", LOCAL, model)


async def ask(
    transport: LocalTransport, asked: HttpRequest, model: str = MODEL
) -> tuple[int, dict[str, str], list[bytes]]:
    async with transport.send(asked, deployment(model), connect_s=1.0) as response:
        return response.status, dict(response.headers), [chunk async for chunk in response.chunks()]


def events(chunks: list[bytes]) -> list[dict[str, Any]]:
    lines = b"".join(chunks).split(b"\n\n")
    assert lines[-2:] == [b"data: [DONE]", b""]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-2]]


def text_of(streamed: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in streamed if event["choices"])


def read(chunks: list[bytes]) -> Completion:
    """An answer that was not to be streamed, as the wire reads it."""
    decoder = openai_chat.decoder(Request((), stream=False), 200, {})
    return fold([*decoder.feed(b"".join(chunks)), *decoder.end()])


@pytest.fixture(scope="module")
def transport(weights_dir: Path) -> Iterator[LocalTransport]:
    made = LocalTransport(weights_dir)
    yield made
    asyncio.run(made.aclose())


def run_script(weights_dir: Path, body: str, **environ: str) -> "subprocess.Popen[str]":
    """A process of its own in which `transport`, `request` and `deployment` are there, and `main()` is `body`."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    code = f"""
import asyncio, json, os, sys, time
from pathlib import Path
from llmctl.core.catalog import Deployment, Provider
from llmctl.run import local
from llmctl.run.local import LocalTransport
from llmctl.wire.base import HttpRequest
def in_memory():
    return any(worker.alive for worker in list(local._workers))
transport = LocalTransport(Path({str(weights_dir)!r}))
deployment = Deployment("local", Provider("local"), {MODEL!r})
def request(prompt, **body):
    whole = {{"messages": [{{"role": "user", "content": prompt}}], **body}}
    return HttpRequest("POST", "", {{}}, json.dumps(whole).encode())
async def main():
{indented}
asyncio.run(main())
print("left the loop", flush=True)
"""
    path = str(Path(llmctl.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environ},
    )


def end(process: "subprocess.Popen[str]", timeout_s: float = 60) -> tuple[str, str]:
    """What the process wrote until its end; it is killed when that does not come."""
    try:
        return process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


@pytest.mark.parametrize("prompt", ["hello", "Count to five.", "What is 2+2?"])
def test_streamed_and_whole_answers_are_the_same_at_temperature_0(transport: LocalTransport, prompt: str) -> None:
    _, headers, streamed = asyncio.run(ask(transport, request(prompt, stream=True, max_tokens=40)))
    assert headers == {"content-type": "text/event-stream"}
    status, headers, whole = asyncio.run(ask(transport, request(prompt, max_tokens=40)))
    assert (status, headers) == (200, {"content-type": "text/event-stream"})
    assert read(whole).text == text_of(events(streamed)) != ""
    assert read(whole).finish_reason == events(streamed)[-1]["choices"][0]["finish_reason"]


def test_answer_comes_token_by_token(transport: LocalTransport) -> None:
    async def watch() -> list[float]:
        async with transport.send(request(stream=True), deployment(), connect_s=1.0) as response:
            return [time.monotonic() async for _ in response.chunks()]

    arrived = asyncio.run(watch())
    assert len(arrived) > 8
    assert arrived[-1] - arrived[1] > 0.01


def test_usage_comes_when_asked_for_and_names_the_model(transport: LocalTransport) -> None:
    plain = events(asyncio.run(ask(transport, request(stream=True)))[2])
    assert not any("usage" in event for event in plain)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    counted = events(asyncio.run(ask(transport, request(**options)))[2])
    usage = counted[-1]["usage"]
    assert counted[-1]["choices"] == []
    assert usage["prompt_tokens"] == 31
    assert usage["total_tokens"] == 31 + usage["completion_tokens"]
    assert {event["model"] for event in counted} == {MODEL}
    whole = read(asyncio.run(ask(transport, request()))[2])
    assert whole.usage is not None
    assert whole.usage.input_tokens == 31


def test_json_schema_is_enforced(transport: LocalTransport) -> None:
    asked = request("Extract name and age as JSON: Ada is 36", response_format=ADA_FORMAT, max_tokens=60)
    answer = read(asyncio.run(ask(transport, asked))[2])
    assert json.loads(answer.text) == {"name": "Ada", "age": 36}


def test_max_tokens_cuts_the_answer_and_says_length(transport: LocalTransport) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = read(asyncio.run(ask(transport, request(**{name: 3})))[2])
        assert answer.usage is not None
        assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 3)


def test_parameters_that_are_null_count_as_absent(transport: LocalTransport) -> None:
    nothing = dict.fromkeys(("temperature", "max_tokens", "seed", "stop", "response_format", "stream_options", "tools"))
    answer = read(asyncio.run(ask(transport, request(**nothing)))[2])
    assert answer.text == "Hello! How can I assist you today?"


def test_prompt_beyond_the_trained_context_is_a_context_error(transport: LocalTransport) -> None:
    status, headers, body = asyncio.run(ask(transport, request("hello " * 9000, stream=True)))
    assert (status, headers["content-type"]) == (400, "application/json")
    error = json.loads(b"".join(body))["error"]
    assert error["code"] == "context_length_exceeded"
    assert "9031 tokens" in error["message"]
    assert "8192" in error["message"]


@pytest.mark.parametrize(
    ("numbers", "answer_tokens"), [(70, 100), (150, 5)]
)  # whole, and prompt alone, too long at first
def test_prompt_of_more_tokens_than_its_size_suggests_gets_room(
    weights_dir: Path, numbers: int, answer_tokens: int
) -> None:
    async def once() -> tuple[int, dict[str, str], list[bytes]]:
        transport = LocalTransport(weights_dir)
        try:
            return await ask(transport, request("1 " * numbers, max_tokens=answer_tokens))
        finally:
            await transport.aclose()

    status, _, body = asyncio.run(once())
    answer = read(body)
    assert (status, answer.usage is not None) == (200, True)
    assert answer.usage.input_tokens > 2 * numbers
    assert answer.finish_reason == "stop" or answer.usage.output_tokens == answer_tokens


BAD_BODIES = {
    "not JSON": b"nope",
    "not an object": b"[]",
    "not UTF-8": b"\xff\xfe",
    "no messages": b"{}",
    "messages of another type": b'{"messages": "x"}',
    "a message without a role": b'{"messages": [{"content": "x"}]}',
    "a parameter of another type": b'{"stream": true, "messages": [{"role": "user", "content": "x"}], "seed": "x"}',
    "a schema that is none": request(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    ).body,
    "an image": b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_body_is_refused_with_400_and_the_next_is_answered(transport: LocalTransport, body: bytes) -> None:
    status, headers, said = asyncio.run(ask(transport, HttpRequest("POST", "", {}, body)))
    assert (status, headers) == (400, {"content-type": "application/json"})
    assert json.loads(b"".join(said))["error"]["type"] == "invalid_request_error"
    assert asyncio.run(ask(transport, request(max_tokens=1)))[0] == 200


def test_unknown_model_is_refused_with_404(transport: LocalTransport) -> None:
    status, _, said = asyncio.run(ask(transport, request(), model="gpt-9"))
    assert status == 404
    assert json.loads(b"".join(said))["error"]["code"] == "model_not_found"


def test_requests_at_the_same_time_are_all_answered(transport: LocalTransport) -> None:
    async def three() -> list[tuple[int, dict[str, str], list[bytes]]]:
        return await asyncio.gather(*(ask(transport, request(max_tokens=5)) for _ in range(3)))

    assert len({read(body).text for _, _, body in asyncio.run(three())}) == 1


def test_loop_stays_awake_while_the_model_works(transport: LocalTransport) -> None:
    async def turns() -> int:
        task = asyncio.create_task(ask(transport, request("hello " * 300, max_tokens=20)))
        taken = 0
        while not task.done():
            await asyncio.sleep(0.005)
            taken += 1
        return taken

    asyncio.run(ask(transport, request("hello " * 300, max_tokens=1)))  # a larger context is loaded now, not then
    assert asyncio.run(turns()) > 5  # one, where the model's work holds the loop


def test_leaving_early_frees_the_model_for_the_next_request(transport: LocalTransport) -> None:
    async def leave_then_ask() -> float:
        async with transport.send(request(LONG, stream=True, max_tokens=5), deployment(), connect_s=1.0) as response:
            assert response.status == 200
        started = time.monotonic()
        assert (await ask(transport, request(max_tokens=1)))[0] == 200
        return time.monotonic() - started

    assert asyncio.run(leave_then_ask()) < 10  # reading that prompt takes 40 s


def test_request_cancelled_in_the_queue_is_never_answered(transport: LocalTransport) -> None:
    async def main() -> int:
        tasks = [asyncio.create_task(ask(transport, request(LONG, max_tokens=5))) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (await ask(transport, request(max_tokens=1)))[0]

    started = time.monotonic()
    assert asyncio.run(main()) == 200
    assert time.monotonic() - started < 10


def test_closing_ends_a_waiting_request_with_an_error_and_a_later_one_loads_anew(weights_dir: Path) -> None:
    async def main() -> None:
        transport = LocalTransport(weights_dir)
        task = asyncio.create_task(ask(transport, request(LONG)))
        await asyncio.sleep(0.5)
        await transport.aclose()
        with pytest.raises(BadResponse, match="stopped"):
            await task
        assert (await ask(transport, request(max_tokens=1)))[0] == 200
        await transport.aclose()
        await transport.aclose()

    asyncio.run(main())


def test_loop_that_vanished_does_not_stop_the_worker(transport: LocalTransport) -> None:
    async def first_chunk() -> AsyncIterator[bytes]:
        sending = transport.send(request("Tell me a long story.", stream=True), deployment(), connect_s=1.0)
        kept.append(sending)
        chunks = (await sending.__aenter__()).chunks()
        await anext(chunks)
        return chunks

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    kept.append(loop.run_until_complete(first_chunk()))
    loop.close()
    assert asyncio.run(ask(transport, request(max_tokens=1)))[0] == 200
    _drop(kept)


def _drop(kept: list[Any]) -> None:
    """Close what a vanished loop left behind, by hand, as no loop is there to do it."""
    for each in kept:
        closing: Coroutine[Any, Any, Any] = each.aclose() if hasattr(each, "aclose") else each.gen.aclose()
        with pytest.raises(StopIteration):
            closing.send(None)


def test_missing_runtime_names_the_install_command(weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigInvalid, match="xllamacpp") as caught:
        asyncio.run(ask(LocalTransport(weights_dir), request()))
    assert caught.value.hint == 'pip install "llmctl-cli[local]"'
    assert distribution() == "llmctl-cli"


def test_missing_weights_name_the_pull_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        asyncio.run(ask(LocalTransport(tmp_path), request()))
    assert "llmctl models pull local" in caught.value.hint


def test_damaged_weights_are_a_configuration_error(tmp_path: Path) -> None:
    with (tmp_path / weights.MODELS[MODEL].file).open("wb") as file:
        file.write(b"GGUF")
        file.truncate(weights.MODELS[MODEL].size)
    transport = LocalTransport(tmp_path)
    with pytest.raises(ConfigInvalid, match="could not be loaded") as caught:
        asyncio.run(ask(transport, request()))
    assert "llmctl models pull local" in caught.value.hint
    asyncio.run(transport.aclose())


def test_clocks_grow_with_the_prompt_and_leave_room_over_what_was_measured() -> None:
    for prompt_tokens, measured_s in ((31, 0.2), (531, 2.1), (2031, 9.5), (6031, 43.0)):
        assert 2 * measured_s < first_token_s(prompt_tokens) < 6 * measured_s + 3
    assert first_token_s(8192) > first_token_s(4096) > first_token_s(0) > 0


def test_process_is_silent_listens_to_no_port_and_leaves_no_socket(weights_dir: Path, tmp_path: Path) -> None:
    script = """
async with transport.send(request("hello"), deployment, connect_s=1) as response:
    body = [chunk async for chunk in response.chunks()]
inodes = set()
for fd in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
    try:
        inodes.add(os.readlink(f"/proc/self/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
    except OSError:
        pass
for table in ("tcp", "tcp6") if sys.platform == "linux" else ():
    for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
        assert line.split()[9] not in inodes, line
assert os.listdir(os.environ["TMPDIR"]) == []
assert in_memory()
await transport.aclose()
"""
    process = run_script(weights_dir, script, TMPDIR=str(tmp_path))
    assert end(process) == ("left the loop\n", "")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("base", ["/" + "long" * 40, "/nowhere"])
def test_temporary_directory_that_cannot_hold_a_socket_is_passed_over(weights_dir: Path, base: str) -> None:
    script = """
async with transport.send(request("hello", max_tokens=1), deployment, connect_s=1) as response:
    print(response.status)
"""
    process = run_script(weights_dir, script, TMPDIR=base)
    assert end(process) == ("200\nleft the loop\n", "")


WAYS_OUT = {
    "as soon as it is loaded": "pass",
    "in the middle of the prompt": "await asyncio.sleep(0.3)",
    "after the first token": "await anext(aiter(response.chunks()))",
    "by an error": "raise SystemExit(0)",
}


def test_model_that_was_never_asked_is_let_go_without_hanging(weights_dir: Path) -> None:
    script = """
from llmctl.run import local, weights
worker = local._Worker(weights.MODELS["smollm2-135m"], transport._weights_dir / weights.MODELS["smollm2-135m"].file)
for _ in range(10):
    worker._load(256)
    worker._unload()
"""
    assert end(run_script(weights_dir, script)) == ("left the loop\n", "")


@pytest.mark.parametrize("way", WAYS_OUT.values(), ids=WAYS_OUT.keys())
def test_ordinary_exit_never_hangs(weights_dir: Path, way: str) -> None:
    prompt = "hello " * (300 if "anext" in way else 3000)
    script = f"""
async with transport.send(request({prompt!r}, stream=True), deployment, connect_s=1) as response:
    {way}
"""
    process = run_script(weights_dir, script)
    _, said = end(process)
    assert (process.returncode, said) == (0, "")


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS_OUT.values(), ids=WAYS_OUT.keys())
def test_ordinary_exit_never_hangs_in_forty_runs(weights_dir: Path, way: str) -> None:
    for _ in range(40):
        test_ordinary_exit_never_hangs(weights_dir, way)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_loop_while_the_model_reads(weights_dir: Path, number: signal.Signals) -> None:
    script = """
import signal
stopped = asyncio.Event()
asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
async with transport.send(request("hello " * 3000, stream=True), deployment, connect_s=1) as response:
    print("reading", flush=True)
    await stopped.wait()
    print("heard", flush=True)
    os._exit(3)
"""
    process = run_script(weights_dir, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(number)
    started = time.monotonic()
    assert process.stdout.readline() == "heard\n"
    assert time.monotonic() - started < 0.5
    end(process)
    assert process.returncode == 3


def test_keyboard_interrupt_cancels_the_call(weights_dir: Path) -> None:
    script = """
try:
    async with transport.send(request("hello " * 3000, stream=True), deployment, connect_s=1) as response:
        print("reading", flush=True)
        async for chunk in response.chunks():
            pass
except asyncio.CancelledError:
    print("cancelled", flush=True)
    raise
"""
    process = run_script(weights_dir, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cancelled\n"
    _, said = end(process)
    assert "KeyboardInterrupt" in said
    assert process.returncode == -signal.SIGINT


def test_a_model_is_in_memory_from_its_first_request_until_the_transport_is_closed(weights_dir: Path) -> None:
    script = """
print(in_memory())
async with transport.send(request("hello", max_tokens=1), deployment, connect_s=1) as response:
    print(in_memory())
await transport.aclose()
while in_memory():
    await asyncio.sleep(0.01)
"""
    said, _ = end(run_script(weights_dir, script))
    assert said.splitlines() == ["False", "True", "left the loop"]


def test_forked_child_loads_a_model_of_its_own(weights_dir: Path) -> None:
    script = """
async with transport.send(request("hello", max_tokens=1), deployment, connect_s=1) as response:
    print(response.status, flush=True)
child = os.fork()
if child == 0:
    try:
        asyncio.events._set_running_loop(None)
        async def again():
            async with transport.send(request("hello", max_tokens=1), deployment, connect_s=1) as response:
                os._exit(7)
        asyncio.run(again())
    finally:
        os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert end(run_script(weights_dir, script))[0] == "200\n7\nleft the loop\n"
