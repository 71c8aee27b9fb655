"""The library face: one client in scripts, notebooks, threads, forks and interrupts, and what it refuses."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from servers import FaultServer, tokens

import llmctl
from llmctl import Client
from llmctl.core.errors import Cancelled, ConfigInvalid, LlmctlError, MissingCredential, UsageError
from llmctl.core.types import Message, Params, Text
from llmctl.run import extras
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = {"models": {"m": {"model": "openai/x"}}}
ENVIRON = {"OPENAI_API_KEY": "k"}
FIVE = "t0 t1 t2 t3 t4 "


def doubled(*replies: Reply | LlmctlError, config: Any = None, environ: dict[str, str] | None = None) -> Client:
    """A client on doubles: `_double` is the transport, `ledger` the rows."""
    transport = ScriptedTransport(*(replies or (Reply.stream("Hel", "lo"),)))
    given = CONFIG if config is None else config
    return Client(given, environ=ENVIRON if environ is None else environ, transport=transport, ledger=MemoryLedger())


def served(server: FaultServer, **more: Any) -> dict[str, Any]:
    return {"models": {"m": {"model": "openai/x", "api_base": server.url, "api_key": "k"}}, **more}


def sent(client: Client) -> list[Any]:
    transport = client._double
    assert isinstance(transport, ScriptedTransport)
    return transport.bodies()


def rows(client: Client) -> list[Any]:
    assert isinstance(client.ledger, MemoryLedger)
    return list(client.ledger.rows.values())


def script(code: str, *words: str, home: Path, **how: Any) -> subprocess.Popen[str]:
    """A Python process that runs `code`, with a home of its own."""
    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LLMCTL_HOME": str(home), "PYTHONWARNINGS": "error",
    }  # fmt: skip
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


def output(process: subprocess.Popen[str]) -> str:
    """What a process that ends well wrote."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


def ledger_rows(home: Path) -> list[tuple[str, int | None, int]]:
    """(state, exit code, attempts) of each row of a real ledger."""
    import sqlite3

    connection = sqlite3.connect(home / "ledger.db")
    found = connection.execute("select state, exit_code, attempt_count from calls order by id").fetchall()
    connection.close()
    return found


# ---------------------------------------------------------------- the synchronous face


def test_complete_and_stream_in_a_plain_script() -> None:
    with doubled() as client:
        assert client.complete("hi", model="m").text == "Hello"
        stream = client.stream("hi", model="m")
        assert stream.answer is None
        assert [event.text for event in stream if event.text] == ["Hel", "lo"]
        assert stream.answer is not None
        assert stream.answer.text == "Hello"
    assert [row.state for row in rows(client)] == ["ok", "ok"]


def test_sync_face_works_inside_a_running_loop() -> None:
    async def notebook() -> tuple[str, str, str]:
        with doubled() as client:
            waited = (await client.acomplete("hi", model="m")).text
            streamed = "".join(event.text for event in client.stream("hi", model="m"))
            return client.complete("hi", model="m").text, streamed, waited

    assert asyncio.run(notebook()) == ("Hello", "Hello", "Hello")


def test_twenty_threads_at_once() -> None:
    with FaultServer("ok") as server, Client(served(server), environ={}, ledger=MemoryLedger()) as client:
        found: list[str] = []
        gate = threading.Barrier(20)

        def ask(n: int) -> None:
            gate.wait(30)
            if n % 2:
                found.append(client.complete("hi", model="m").text)
            else:
                found.append("".join(event.text for event in client.stream("hi", model="m")))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == [FIVE] * 20
    assert [row.state for row in rows(client)] == ["ok"] * 20


def test_one_client_in_several_event_loops_and_the_sync_face() -> None:
    with FaultServer("ok") as server, Client(served(server), environ={}, ledger=MemoryLedger()) as client:

        async def ask() -> str:
            answer = await client.acomplete("hi", model="m")
            await client.aclose()
            return answer.text

        assert [asyncio.run(ask()), client.complete("hi", model="m").text, asyncio.run(ask())] == [FIVE] * 3


def test_error_of_the_call_is_raised_in_the_callers_thread() -> None:
    with doubled(Reply.refusal(400, "bad")) as client:
        with pytest.raises(LlmctlError) as caught:
            client.complete("hi", model="m")
        assert (caught.value.kind, len(caught.value.attempts)) == ("InvalidRequest", 1)
        stream = client.stream("hi", model="m")
        with pytest.raises(LlmctlError):
            list(stream)
        assert stream.answer is None


@pytest.mark.parametrize("how", ["break", "close", "collect", "raise"])
def test_stream_that_is_left_ends_in_a_cancelled_row(how: str) -> None:
    with FaultServer("stall") as server, Client(served(server), environ={}, ledger=MemoryLedger()) as client:
        events = iter(client.stream("hi", model="m"))
        assert next(events).text == "t0 "
        if how == "break":
            for _ in events:
                break
        elif how == "close":
            events.close()  # type: ignore[attr-defined]
        elif how == "raise":
            try:
                for _ in events:
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        del events
        gc.collect()
        (row,) = rows(client)
        assert (row.state, row.exit_code) == ("cancelled", 130)
        server.wait_for(1, "closed")


def test_stream_is_read_once() -> None:
    with doubled() as client:
        stream = client.stream("hi", model="m")
        list(stream)
        with pytest.raises(UsageError, match="once"):
            list(stream)
    assert len(sent(client)) == 1


# ---------------------------------------------------------------- closing


def test_close_twice_and_ask_again() -> None:
    client = doubled()
    client.close()
    client.complete("hi", model="m")
    client.close()
    client.close()
    assert client.complete("hi", model="m").text == "Hello"
    client.close()


def test_close_leaves_no_thread_and_no_connection() -> None:
    before = threading.active_count()
    with FaultServer("json") as server:
        with Client(served(server), environ={}, ledger=MemoryLedger()) as client:
            client.complete("hi", model="m")
        server.wait_for(server.connections, "closed")
    gc.collect()
    assert threading.active_count() == before


def test_client_that_is_dropped_leaves_no_thread() -> None:
    before = threading.active_count()
    client = doubled()
    client.complete("hi", model="m")
    del client
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("streams", [False, True])
def test_close_during_a_call_of_another_thread_cancels_it(streams: bool) -> None:
    with FaultServer("stall") as server, Client(served(server), environ={}, ledger=MemoryLedger()) as client:
        raised: list[BaseException] = []

        def ask() -> None:
            try:
                if streams:
                    list(client.stream("hi", model="m"))
                else:
                    client.complete("hi", model="m")
            except BaseException as error:  # noqa: BLE001 - looked at below
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        server.wait_for(1)
        client.close()
        thread.join(30)
        assert [type(error) for error in raised] == [Cancelled]
        assert [row.state for row in rows(client)] == ["cancelled"]


# ---------------------------------------------------------------- processes


SCRIPT = """
import os, sys
from llmctl import Client
config = {"models": {"m": {"model": "openai/x", "api_base": sys.argv[1], "api_key": "k"}}}
"""


def test_answer_in_a_forked_child_and_then_in_its_parent(tmp_path: Path) -> None:
    code = SCRIPT + (
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"  # 3.12 warns of forks with threads
        "client = Client(config)\n"
        "print(client.complete('hi', model='m').text, flush=True)\n"
        "pid = os.fork()\n"
        "print(client.complete('hi', model='m').text, flush=True)\n"
        "print(''.join(event.text for event in client.stream('hi', model='m')), flush=True)\n"
        "client.close()\n"
        "if pid == 0: os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "print(client.complete('hi', model='m').text, flush=True)\n"
    )
    with FaultServer("ok") as server:
        lines = output(script(code, server.url, home=tmp_path)).splitlines()
    assert lines == [FIVE] * 6
    assert ledger_rows(tmp_path) == [("ok", 0, 1)] * 6


@pytest.mark.parametrize("how", ["client.complete('hi', model='m')", "list(client.stream('hi', model='m'))"])
def test_interrupt_leaves_a_true_row(tmp_path: Path, how: str) -> None:
    code = SCRIPT + f"client = Client(config)\ntry:\n    {how}\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    with FaultServer("stall") as server:
        process = script(code, server.url, home=tmp_path)
        server.wait_for(1)
        process.send_signal(signal.SIGINT)
        assert output(process) == "interrupted\n"
        server.wait_for(1, "closed")
    assert ledger_rows(tmp_path) == [("cancelled", 130, 1)]


def test_process_that_leaves_in_the_middle_of_a_stream_leaves_a_true_row(tmp_path: Path) -> None:
    code = SCRIPT + (
        "client = Client(config)\nevents = iter(client.stream('hi', model='m'))\nprint(next(events).text, flush=True)\n"
    )
    with FaultServer("stall") as server:
        assert output(script(code, server.url, home=tmp_path)) == "t0 \n"
    assert ledger_rows(tmp_path) == [("cancelled", 130, 1)]


def test_module_functions_share_a_client(tmp_path: Path) -> None:
    code = (
        "import llmctl\n"
        "print(llmctl.complete('hi', model='openai/x').text)\n"
        "print(''.join(event.text for event in llmctl.stream('hi', model='openai/x')))\n"
        "import llmctl.client; assert llmctl.client._shared is not None\n"
    )
    with FaultServer("ok") as server:
        (tmp_path / "config.toml").write_text(
            f'[providers.openai]\napi_base = "{server.url}"\napi_key = "env:NO_SECRET"\n'
        )
        os.chmod(tmp_path / "config.toml", 0o600)
        code = "import os; os.environ['NO_SECRET'] = 'k'\n" + code
        assert output(script(code, home=tmp_path)).splitlines() == [FIVE, FIVE]
    assert ledger_rows(tmp_path) == [("ok", 0, 1)] * 2


# ---------------------------------------------------------------- configuration


def test_configuration_as_dict_mapping_path_and_list(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text('[models.m]\nmodel = "openai/x"\n[models.n]\nmodel = "openai/one"\n')
    two.write_text('[models.n]\nmodel = "openai/two"\n')
    environ = {**ENVIRON, "LLMCTL_HOME": str(tmp_path / "home")}
    for given in (CONFIG, MappingProxyType(CONFIG), str(one), one, [one], (str(one), two)):
        with doubled(config=given, environ=environ) as client:
            assert client.complete("hi", model="m").served_by == "openai/x"
    with doubled(config=[one, two], environ=environ) as client:
        assert client.complete("hi", model="n").served_by == "openai/two"


def test_configuration_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        Client(tmp_path / "absent.toml", environ={"LLMCTL_HOME": str(tmp_path)})


def test_configuration_that_is_wrong_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        Client({"modles": {}}, environ={})


def test_a_new_client_touches_no_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Client(CONFIG, environ={**ENVIRON, "LLMCTL_HOME": str(home)}).close()
    assert not home.exists()


# ---------------------------------------------------------------- what is asked


def test_messages_in_the_openai_shape_arrive_as_they_were_given() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is it?"},
                                     {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "user", "content": "sure?"},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    choice = {"type": "function", "function": {"name": "look"}}
    with doubled() as client:
        client.complete(messages=messages, tools=tools, tool_choice=choice, model="m")
        (body,) = sent(client)
    assert body["messages"] == messages
    assert (body["tools"], body["tool_choice"]) == (tools, choice)


def test_canonical_messages_are_taken_too() -> None:
    with doubled() as client:
        client.complete(messages=[Message("user", (Text("hi"),))], system="be brief", model="m")
        (body,) = sent(client)
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


def test_parameters_reach_the_provider() -> None:
    with doubled() as client:
        client.complete("hi", model="m", temperature=0.5, stop="END", seed=1, extra={"x": 1}, params=Params(top_p=0.1))
        client.complete("hi", model="m", stop=["a", "b"], temperature=None)
        first, second = sent(client)
    assert (first["temperature"], first["stop"], first["seed"], first["x"], first["top_p"]) == (0.5, ["END"], 1, 1, 0.1)
    assert second["stop"] == ["a", "b"]
    assert "temperature" not in second


def test_schema_asks_for_structured_output() -> None:
    with doubled(Reply.stream("{}")) as client:
        client.complete("hi", model="m", schema={"type": "object"})
        assert sent(client)[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either a prompt or messages"),
        ({"prompt": "hi", "messages": []}, "either a prompt or messages"),
        ({"prompt": ""}, "empty"),
        ({"prompt": b"hi"}, "not bytes"),
        ({"prompt": 3}, "not int"),
        ({"messages": []}, "empty"),
        ({"messages": "hi"}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a"}, Message("user", (Text("b"),))]}, "messages[1]"),
        ({"messages": [Message("user", (Text("b"),)), {"role": "user", "content": "a"}]}, "messages[0]"),
        ({"prompt": "hi", "tools": [{"name": "f"}]}, "tools[0]"),
        ({"prompt": "hi", "tool_choice": {}}, "tool_choice"),
        ({"prompt": "hi", "on_break": "explode"}, "on_break"),
        ({"prompt": "hi", "temprature": 1}, "temprature"),
        ({"prompt": "hi", "temperature": float("nan")}, "temperature"),
        ({"prompt": "hi", "temperature": float("inf")}, "temperature"),
        ({"prompt": "hi", "timeout": -1}, "timeout"),
        ({"prompt": "hi", "timeout": float("nan")}, "timeout"),
        ({"prompt": "hi", "timeout": "5s"}, "timeout"),
        ({"prompt": "hi", "max_wait": float("inf")}, "max_wait"),
        ({"prompt": "hi", "retries": -1}, "retries"),
        ({"prompt": "hi", "fallbacks": ["m"]}, "twice"),
        ({"prompt": "hi", "fallbacks": "fast"}, "fallbacks"),
        ({"prompt": "hi", "fallbacks": [f"openai/{n}" for n in range(6)]}, "7 links"),
        ({"prompt": "hi", "fallbacks": ["nonsense"]}, "nonsense"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(options: dict[str, Any], says: str) -> None:
    with doubled() as client:
        with pytest.raises(UsageError) as caught:
            client.complete(**{"model": "m", **options})
        assert says in caught.value.message
        assert caught.value.hint
        assert (sent(client), rows(client)) == ([], [])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("opnai/gpt-4o", "openai/gpt-4o"), ("fsat", "fast"), ("m2", "models list"), ("auto", "fast"),
     ("openai/", "models list"), ("/x", "models list")],
)  # fmt: skip
def test_unknown_name_is_a_usage_error_with_a_hint(name: str, hint: str) -> None:
    with doubled(environ={}) as client, pytest.raises(UsageError) as caught:
        client.call("hi", model=name)
    assert hint in caught.value.hint


def test_model_without_a_key_is_refused_before_anything_is_sent() -> None:
    with doubled(environ={}) as client:
        with pytest.raises(MissingCredential) as caught:
            client.complete("hi", model="m")
        assert "OPENAI_API_KEY" in caught.value.hint
        assert (sent(client), rows(client)) == ([], [])


def test_offline_opens_no_connection_abroad() -> None:
    with FaultServer("ok") as server:
        environ = {**ENVIRON, "LLMCTL_OFFLINE": "1"}
        with Client({**CONFIG, **served(server)}, environ=environ, ledger=MemoryLedger()) as client:
            assert client.complete("hi", model="m").text == FIVE
            with pytest.raises(LlmctlError) as caught:
                client.complete("hi", model="openai/x")
    assert (caught.value.kind, caught.value.exit_code) == ("ConnectionFailed", 6)


# ---------------------------------------------------------------- the model that is asked when none is named


def default(config: dict[str, Any] | None = None, **environ: str) -> str:
    return Client(config or {}, environ=environ, ledger=MemoryLedger()).default_model


def test_default_model_with_nothing_set_is_the_embedded_one() -> None:
    assert default() == "local"


def test_default_model_with_nothing_set_and_nothing_installed_says_both_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(extras.EXTRAS, "local", "no_such_module")
    with pytest.raises(MissingCredential) as caught:
        default()
    assert "OPENAI_API_KEY" in caught.value.hint
    assert extras.distribution() in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("GROQ_API_KEY", "fast"), ("OPENAI_API_KEY", "fast"), ("XAI_API_KEY", "smart"), ("DEEPSEEK_API_KEY", "cheap")],
)
def test_default_model_is_the_first_group_that_a_key_opens(variable: str, expected: str) -> None:
    assert default(**{variable: "k"}) == expected


def test_blank_key_opens_nothing() -> None:
    config = {"models": {"mine": {"model": "vllm/x", "api_base": "http://127.0.0.1:1"}}}
    assert default(config, OPENAI_API_KEY=" ") == "mine"


def test_default_model_of_the_configuration_and_of_the_environment() -> None:
    assert default({"default_model": "smart"}, GROQ_API_KEY="k") == "smart"
    assert default({"default_model": "smart"}, LLMCTL_MODEL="cheap") == "cheap"


def test_group_that_cannot_be_asked_yet_is_passed_over() -> None:
    config = {"models": {"fast": {"route": {"simple": "cheap", "complex": "smart"}}, "mine": {"model": "openai/x"}}}
    assert default(config, OPENAI_API_KEY="k") != "fast"


def test_default_model_is_asked() -> None:
    with doubled(config={**CONFIG, "default_model": "m"}) as client:
        assert client.complete("hi").record.model == "m"


# ---------------------------------------------------------------- what llmctl costs to import


def test_answer_as_json_is_one_document() -> None:
    with doubled() as client:
        document = json.loads(json.dumps(client.complete("hi", model="m").as_json()))
    assert document["text"] == "Hello"
    assert list(document["attempts"][0]) == [
        "n", "deployment", "provider", "model", "role", "outcome", "status", "latency_ms", "input_tokens",
        "output_tokens", "cost_usd", "error",
    ]  # fmt: skip


def test_stream_hands_over_each_event_as_it_comes() -> None:
    with FaultServer(tokens(200)) as server, Client(served(server), environ={}, ledger=MemoryLedger()) as client:
        assert sum(1 for event in client.stream("hi", model="m") if event.text) == 200


def test_many_sync_clients_leave_nothing_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    def ask() -> None:
        with Client(served(server), environ={}, ledger=MemoryLedger()) as client:
            client.complete("hi", model="m")

    with FaultServer("ok") as server:
        ask()
        before = descriptors()
        for _ in range(20):
            ask()
        server.wait_for(21, "closed")
        assert descriptors() <= before + 2


def test_version_is_said() -> None:
    assert llmctl.__version__.count(".") >= 1
