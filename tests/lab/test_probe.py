"""The contract probe against servers on loopback: an honest one, one that lies in each way, and llama.cpp's own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from servers import DONE, FINISH, FaultServer, completion, event, raw, sse, status, stream, token, usage

from llmctl.client import Client
from llmctl.lab import probe, steps
from llmctl.run.attempt import LINGER_S
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from servers import Behaviour, Exchange

KEY = "sk-planted-0123456789abcdef"
ANSWER = '{"capital": "Paris", "inhabited": true}'
USED = usage(12, 3)


def called(name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> Behaviour:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    rows = [{"delta": {"tool_calls": [call]}, "finish_reason": None}, {"delta": {}, "finish_reason": "tool_calls"}]
    return sse(*(event({"model": "m", "choices": [{"index": 0, **row}]}) for row in rows), USED, DONE)


HONEST: dict[str, Behaviour] = {
    "listed": raw(b'{"object": "list", "data": [{"id": "m"}, {"id": "n"}]}'),
    "text": raw(completion("ready")),
    "stream": stream("one, ", "two", then=(FINISH, USED, DONE)),
    "tools": called(),
    "schema": stream(ANSWER, then=(FINISH, USED, DONE)),
    "error": status(404, "no such model", type="not_found_error"),
}


def step_of(x: Exchange) -> str:
    if x.request.method == "GET":
        return "listed"
    body = x.request.json
    if body["model"] == steps.NO_SUCH_MODEL:
        return "error"
    return (
        "tools"
        if "tools" in body
        else "schema"
        if "response_format" in body
        else "stream"
        if "stream" in body
        else "text"
    )


def provider(**lies: Behaviour) -> Behaviour:
    """Answers each step honestly, but for the `lies`."""

    async def behave(x: Exchange) -> None:
        await {**HONEST, **lies}[step_of(x)](x)

    return behave


def client_for(address: str, key: str = KEY, **more: Any) -> Client:
    config = {"models": {"m": {"model": "openai/m", "api_base": address, "api_key": key, **more}}}
    return Client(config, environ={}, ledger=MemoryLedger())


def checked(client: Client) -> probe.Check:
    async def work() -> probe.Check:
        try:
            return await probe.check(client, "m", client.catalog.resolve("m").deployments[0])
        finally:
            await client.aclose()

    with client:
        return asyncio.run(work())


def outcomes(check: probe.Check) -> dict[str, str]:
    return {each.name: each.outcome for each in check.probes}


def found(check: probe.Check, name: str) -> probe.Probe:
    return next(each for each in check.probes if each.name == name)


def test_an_honest_provider_passes_every_step() -> None:
    with FaultServer(provider()) as server:
        check = checked(client_for(server.url, price={"input": 1.0, "output": 1.0}))
    assert outcomes(check) == dict.fromkeys(HONEST, "ok") | {"count": "skipped"}, check
    assert check.refused is None
    assert found(check, "listed").detail == "among 2 models"
    assert found(check, "error").error == "ModelNotFound"
    assert found(check, "stream").cost_usd == pytest.approx(15e-6)
    assert found(check, "listed").cost_usd is None
    assert all(each.latency_ms is not None for each in check.probes[:-1])


BROKEN = sse(token("one, "), b"data: {broken\n\n", token("two"), FINISH, USED, DONE)
WORDS = ("one, ", "two")
LIES: list[tuple[str, str, Behaviour]] = [
    ("listed", "names none", raw(b'{"data": []}')),
    ("listed", "not among 1 models: other", raw(b'{"data": [{"id": "other"}]}')),
    ("listed", "not a JSON document", raw(b"<html>welcome</html>")),
    ("listed", "HTTP 503", status(503, "HTTP 503")),
    ("text", "no text", raw(completion(" "))),
    ("text", "no usage was reported", raw(completion("ready", usage=None))),
    ("text", "2 input tokens", raw(completion("ready", usage={"prompt_tokens": 2, "completion_tokens": 1}))),
    ("text", "0 output tokens", raw(completion("ready", usage={"prompt_tokens": 12, "completion_tokens": 0}))),
    ("text", "999 output tokens", raw(completion("ready", usage={"prompt_tokens": 12, "completion_tokens": 999}))),
    ("text", "not JSON", raw(b"<html>welcome</html>", 200, {"content-type": "text/html"})),
    ("text", "overloaded", raw(b'{"error": {"message": "overloaded", "type": "overloaded_error"}}')),
    ("stream", "no finish reason", stream(*WORDS, then=(USED, DONE))),
    ("stream", "no usage was reported", stream(*WORDS, then=(FINISH, DONE))),
    ("stream", "in one piece", raw(completion("one, two"))),
    ("stream", "1 of its events were broken", BROKEN),
    ("stream", "before the answer did", sse(*map(token, WORDS))),
    ("stream", "ended by pause", stream(*WORDS, then=(token("", "tired"), USED, DONE))),
    ("tools", "called 'rm_rf', which nobody offered", called("rm_rf")),
    ("tools", "not JSON", called(arguments='{"city": ')),
    ("tools", "not of the schema: 'city' is a required property", called(arguments="{}")),
    ("tools", "no tool was called; it said 'Sunny.'", stream("Sunny.", then=(FINISH, USED, DONE))),
    ("schema", "native: the answer does not meet", stream('{"capital": "Paris"}', then=(FINISH, USED, DONE))),
    ("schema", "native: the answer is not JSON", stream("Paris, of course.", then=(FINISH, USED, DONE))),
    ("schema", "native: the answer ended by length", stream('{"capital": "Pa', then=(token("", "length"), USED, DONE))),
    ("error", "does not exist, as m", raw(completion("Hello!", model="m"))),
    ("error", "comes with status 200", raw(b'{"error": {"message": "no such model", "code": "model_not_found"}}')),
    ("error", "is answered with Unavailable", status(500, "KeyError")),
    ("error", "is answered with BadResponse", raw(b"oops")),
]


@pytest.mark.parametrize(("step", "said", "lie"), LIES, ids=[f"{step}: {said}" for step, said, _ in LIES])
def test_a_lie_is_caught_by_its_own_step_and_by_no_other(step: str, said: str, lie: Behaviour) -> None:
    with FaultServer(provider(**{step: lie})) as server:
        check = checked(client_for(server.url))
    assert [each.name for each in check.probes if each.outcome == "failed"] == [step], check
    assert said in found(check, step).detail


def test_a_stream_that_stays_open_after_its_end_is_caught() -> None:
    reply = Reply.stream("one, ", "two", gap_s=LINGER_S + 1)
    config = {"models": {"m": {"model": "openai/m", "api_key": KEY}}}
    client = Client(config, environ={}, ledger=MemoryLedger(), clock=VirtualClock(), transport=ScriptedTransport(reply))
    target = steps.Target(client, "m", client.catalog.resolve("m").deployments[0], "stream")
    outcome, detail = run_virtual(steps.STEPS["stream"](target))
    assert outcome == "failed"
    assert "left open" in detail


@pytest.mark.parametrize(
    ("lie", "detail"),
    [
        (status(404, "nothing here"), "no list to be had: HTTP 404"),
        (status(403, "this key may only chat"), "no list to be had: HTTP 403"),
        (raw(b'{"data": [{"id": "other"}], "has_more": true}'), "not among the first 1 models; the list goes on"),
    ],
)
def test_a_list_that_cannot_tell_is_skipped(lie: Behaviour, detail: str) -> None:
    with FaultServer(provider(listed=lie)) as server:
        check = checked(client_for(server.url))
    assert (found(check, "listed").outcome, found(check, "listed").detail) == ("skipped", detail)
    assert found(check, "text").outcome == "ok"


def test_a_server_of_one_model_may_answer_to_any_name() -> None:
    one = raw(b'{"data": [{"id": "m"}]}')
    with FaultServer(provider(listed=one, error=raw(completion("Hello!")))) as server:
        check = checked(client_for(server.url))
    assert found(check, "error").outcome == "skipped"
    assert "answers to any name" in found(check, "error").detail


NOT_TRIED = dict.fromkeys(list(steps.STEPS)[1:], "skipped")


@pytest.mark.parametrize(
    ("behaviour", "kind", "ours"),
    [
        (status(401, "bad key"), "Unauthorized", True),
        ("refuse", "ConnectionFailed", False),
        ("reset", "ConnectionFailed", False),
    ],
)
def test_a_first_step_that_finds_no_way_in_ends_the_check(behaviour: Any, kind: str, ours: bool) -> None:
    with FaultServer(behaviour) as server:
        check = checked(client_for(server.url))
        assert len(server.requests) <= 1
    assert outcomes(check) == {"listed": "failed", **NOT_TRIED}
    assert check.probes[0].error == kind
    assert {each.detail for each in check.probes[1:]} == {f"not tried: listed failed with {kind}"}
    assert (check.refused is not None) is ours


def test_a_public_list_says_nothing_of_the_key() -> None:
    with FaultServer(HONEST["listed"], status(401, "bad key")) as server:
        check = checked(client_for(server.url))
        assert len(server.requests) == 2
    assert [each.outcome for each in check.probes] == ["ok", "failed", *["skipped"] * 5]
    assert check.refused is not None


def test_without_a_key_nothing_is_sent() -> None:
    with FaultServer(provider()) as server:
        check = checked(client_for(server.url, key="env:NOT_SET"))
        assert server.requests == []
    assert set(outcomes(check).values()) == {"skipped"}
    assert check.refused is not None
    assert check.refused.kind == "MissingCredential"


def test_the_ledger_has_a_row_for_each_call_and_no_text() -> None:
    with FaultServer(provider()) as server, client_for(server.url) as client:
        checked(client)
    ledger = client.ledger
    assert isinstance(ledger, MemoryLedger)
    rows = list(ledger.rows.values())
    assert {row.command for row in rows} == {"models check"}
    assert [row.tags["probe"] for row in rows] == ["text", "stream", "tools", "schema", "error"]
    assert [row.error for row in rows] == [None] * 4 + ["ModelNotFound"]
    assert {row.attempt_count for row in rows} == {1}
    assert set(ledger.texts.values()) == {(None, None)}


def test_what_a_provider_says_is_shown_without_the_key_and_without_control_characters() -> None:
    said = f"\x1b[2J{KEY}\u202e and \n more"
    lies = {
        "listed": raw(json.dumps({"data": [{"id": said}, {"id": "m"}, {"id": KEY}]}).encode()),
        "text": raw(completion(said)),
        "tools": called(said, "{}"),
        "error": status(500, said),
    }
    with FaultServer(provider(**lies)) as server:
        check = checked(client_for(server.url))
    for each in check.probes:
        assert each.detail.isprintable(), each
        assert KEY not in each.detail


def test_nothing_is_asked_at_an_unknown_price_under_a_budget_that_refuses() -> None:
    config = {
        "models": {"m": {"model": "openai/nobody-knows-this-one", "api_base": "http://127.0.0.1:1", "api_key": KEY}},
        "budget": {"daily": 1.0, "on_exceed": "refuse"},
    }
    client = Client(config, environ={}, ledger=MemoryLedger(), transport=ScriptedTransport(Reply.refusal(404)))
    check = checked(client)
    assert found(check, "text").error == "BudgetExceeded"


@pytest.mark.parametrize(
    "document",
    [
        {"data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}, "c", {"id": 3}],
        {"models": [{"name": "models/a", "displayName": "A"}, {"name": "models/b"}]},
        {"modelSummaries": [{"modelId": "a", "modelName": "A"}, {"modelId": "b"}]},
    ],
)
def test_names_are_found_in_every_providers_list(document: Any) -> None:
    assert steps._names(document) == ["a", "b"]


@pytest.mark.parametrize(
    ("listed", "wanted", "same"),
    [
        ("gpt-4", "gpt-4", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku-latest", True),
        ("anthropic.claude-3-haiku-20240307-v1:0", "us.anthropic.claude-3-haiku-20240307-v1:0", True),
        ("gpt-4-turbo", "gpt-4", False),
        ("gpt-4", "gpt-4o", False),
        ("mini", "gpt-4o-mini", False),
    ],
)
def test_a_listed_model_is_found_under_its_other_names(listed: str, wanted: str, same: bool) -> None:
    assert steps._is(listed, wanted) is same


@pytest.mark.parametrize("document", [{"data": 3}, {"error": "no"}, [], {"data": [3, None]}])
def test_no_names_are_found_where_there_are_none(document: Any) -> None:
    assert steps._names(document) == []


@pytest.mark.parametrize(
    ("base", "outcome"), [("", "skipped"), ("gpt-4o-2024-08-06", "ok"), ("gpt-4o", "ok"), ("o9", "failed")]
)
def test_azure_lists_base_models_so_a_deployment_is_looked_up_by_its_base_model(base: str, outcome: str) -> None:
    with FaultServer(raw(b'{"data": [{"id": "gpt-4o-2024-08-06"}]}')) as server:
        config = {"models": {"m": {"model": "azure/mine", "api_base": server.url, "api_key": KEY}}}
        client = Client(config, environ={}, ledger=MemoryLedger())
        deployment = replace(client.catalog.resolve("m").deployments[0], base_model=base)
        found, detail = asyncio.run(steps.STEPS["listed"](steps.Target(client, "m", deployment, "listed")))
        assert (found, len(server.requests)) == (outcome, 1 if base else 0), detail


@pytest.mark.parametrize(
    ("model", "said", "expected"),
    [
        ("anthropic/claude-sonnet-4-5", {"input_tokens": 40}, ("ok", "40 tokens; our estimate is ")),
        ("gemini/gemini-2.5-flash", {"totalTokens": 40}, ("ok", "40 tokens; our estimate is ")),
        ("anthropic/claude-sonnet-4-5", {"input_tokens": -1}, ("failed", "the answer holds no count")),
        ("gemini/gemini-2.5-flash", [], ("failed", "the answer holds no count")),
    ],
)
def test_a_providers_count_stands_beside_our_estimate(model: str, said: Any, expected: tuple[str, str]) -> None:
    with FaultServer(raw(json.dumps(said).encode())) as server:
        config = {"models": {"m": {"model": model, "api_base": server.url, "api_key": KEY}}}
        client = Client(config, environ={}, ledger=MemoryLedger())
        target = steps.Target(client, "m", client.catalog.resolve("m").deployments[0], "count")
        outcome, detail = asyncio.run(steps.STEPS["count"](target))
    assert (outcome, detail[: len(expected[1])]) == expected


# ---------------------------------------------------------------- a server that is not ours


@pytest.fixture(scope="module")
def partner(llama_cpp: Callable[[str], AbstractContextManager[str]]) -> Iterator[str]:
    """The address of llama.cpp's own server."""
    with llama_cpp(KEY) as address:
        yield address


@pytest.mark.parametrize(
    ("model", "path", "kept"),
    [
        ("openai/smollm2", "/v1", {"listed", "text", "stream", "schema"}),
        ("anthropic/smollm2", "", {"listed", "text", "stream", "count"}),
    ],
)
def test_llama_cpp_keeps_to_both_protocols_but_calls_no_tool_that_its_model_knows_nothing_of(
    partner: str, model: str, path: str, kept: set[str]
) -> None:
    row = {"model": model, "api_base": partner + path, "api_key": KEY, "temperature": 0.0}
    check = checked(Client({"models": {"m": row}}, environ={}, ledger=MemoryLedger()))
    assert {name for name, outcome in outcomes(check).items() if outcome == "ok"} == kept, check
    assert found(check, "tools").detail.startswith("no tool was called; it said ")
    assert "answers to any name" in found(check, "error").detail


def test_llama_cpp_refuses_another_key_and_nothing_more_is_asked(partner: str) -> None:
    check = checked(client_for(f"{partner}/v1", key="sk-another-0123456789"))
    assert outcomes(check) == {"listed": "failed", **NOT_TRIED}
    assert check.probes[0].error == "Unauthorized"
