"""Requests to Anthropic: what goes into the body, what cannot, and under which API version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import UsageError
from llmctl.core.redact import Secret
from llmctl.core.types import Message, Params, Request, ResponseFormat, Text, Tool
from llmctl.wire import anthropic
from llmctl.wire.anthropic import NEWER, OLDER, counting, listing
from llmctl.wire.base import Encoded, Endpoint

HELLO = (Message("user", (Text("Say hello."),)),)
PING = Tool("ping")
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
OLD, NEW = "claude-sonnet-4-5", "claude-sonnet-5-5"


def deployed(model: str, **more: Any) -> Deployment:
    return Deployment("d", Provider("anthropic", protocol="anthropic"), model, **more)


def at(base: str = "https://api.anthropic.com", **more: Any) -> Endpoint:
    return Endpoint(base, Secret("sk-ant-test"), **more)


def encoded(model: str = NEW, endpoint: Endpoint | None = None, /, **asked: Any) -> Encoded:
    request = Request(asked.pop("messages", HELLO), asked.pop("params", Params()), stream=False, **asked)
    return anthropic.encode(request, deployed(model), endpoint or at())


def body(model: str = NEW, /, **asked: Any) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(encoded(model, **asked).http.body)
    return sent


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-2.1", OLDER), ("claude-instant-1.2", OLDER), ("claude-3-opus-20240229", OLDER), (OLD, OLDER),
        ("claude-3-7-sonnet-latest", OLDER), ("claude-opus-4-20250514", OLDER), ("claude-opus-4-6", OLDER),
        ("claude-opus-4-1@20250805", OLDER), ("anthropic/claude-sonnet-4.5", OLDER), ("claude-4-opus-20250514", OLDER),
        ("claude-opus-4-7", NEWER), ("claude-opus-5", NEWER), (NEW, NEWER), ("claude-mythos-preview", NEWER),
        ("claude-sonnet-10-20280101", NEWER), ("Claude-Next", NEWER), ("qwen3-coder", OLDER), ("gpt-5", OLDER),
    ],
)  # fmt: skip
def test_the_api_version_follows_the_model(model: str, version: str):
    headers = encoded(model).http.headers
    assert headers["anthropic-version"] == version
    assert ("x-api-key" in headers) == (version == OLDER)
    assert headers.get("authorization") == (None if version == OLDER else "Bearer sk-ant-test")


def test_a_version_that_is_set_wins_over_the_model():
    sent = encoded(OLD, at(api_version=NEWER), params=Params(temperature=0.5))
    assert (sent.http.headers["anthropic-version"], sent.dropped) == (NEWER, ("temperature",))
    assert "x-api-key" not in sent.http.headers
    sent = encoded(NEW, at(api_version=OLDER), params=Params(temperature=0.5))
    assert (json.loads(sent.http.body)["temperature"], sent.dropped) == (0.5, ())
    assert sent.http.headers["x-api-key"] == "sk-ant-test"


def test_the_model_behind_a_name_of_ones_own_decides():
    sent = anthropic.encode(Request(HELLO), deployed("prod", base_model=NEW), at()).http
    assert sent.headers["anthropic-version"] == NEWER
    assert json.loads(sent.body)["model"] == "prod"


@pytest.mark.parametrize("model", [OLD, NEW])
def test_a_bearer_token_is_one_under_either_version(model: str):
    headers = encoded(model, at(bearer=True)).http.headers
    assert headers["authorization"] == "Bearer sk-ant-test"
    assert "x-api-key" not in headers


def test_without_a_key_there_is_no_header_for_it():
    headers = encoded(OLD, Endpoint("http://127.0.0.1:1", Secret(""))).http.headers
    assert not {"x-api-key", "authorization"} & headers.keys()


@pytest.mark.parametrize("base", ["https://a.example", "https://a.example/", "https://a.example/v1"])
def test_an_address_works_with_and_without_its_v1(base: str):
    assert encoded(NEW, at(base)).http.url == "https://a.example/v1/messages"
    assert listing(deployed(NEW), at(base)).url == "https://a.example/v1/models"
    assert listing(deployed(NEW), at(base)).headers["anthropic-version"] == NEWER


def test_what_the_protocol_cannot_say_is_announced():
    params = Params(
        temperature=0.1, top_p=0.9, top_k=4, seed=1, presence_penalty=0.1, frequency_penalty=0.1,
        reasoning_effort="minimal", stop=("END", "\n\n"),
    )  # fmt: skip
    sent = encoded(NEW, params=params, response_format=ResponseFormat("json"))
    assert json.loads(sent.http.body) | {"max_tokens": 0} == {
        "model": NEW,
        "max_tokens": 0,
        "messages": [{"role": "user", "content": "Say hello."}],
        "stop_sequences": ["END"],
    }
    assert set(sent.dropped) == {
        "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort", "stop",
        "response_format",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "max_output", "asked", "sent"),
    [
        (NEW, None, Params(), 8192),
        ("claude-3-haiku-20240307", None, Params(), 4096),
        ("claude-3-5-haiku-latest", None, Params(), 8192),
        (NEW, 64000, Params(), 64000),
        (NEW, 64000, Params(max_tokens=5), 5),
        (OLD, None, Params(reasoning_tokens=2000), 10192),
        (OLD, 64000, Params(reasoning_tokens=2000), 64000),
        (OLD, None, Params(reasoning_tokens=2000, max_tokens=3000), 3000),
    ],
)
def test_max_tokens_is_always_sent_and_leaves_room_beside_the_thoughts(
    model: str, max_output: int | None, asked: Params, sent: int
):
    http = anthropic.encode(Request(HELLO, asked), deployed(model, max_output=max_output), at()).http
    assert json.loads(http.body)["max_tokens"] == sent


@pytest.mark.parametrize(
    ("params", "kept", "dropped"),
    [
        (Params(reasoning_tokens=1024, temperature=1, top_p=0.99), {"temperature": 1, "top_p": 0.99}, ()),
        (Params(reasoning_tokens=1024, temperature=0, top_p=0.5, top_k=3), {}, ("temperature", "top_p", "top_k")),
        (Params(reasoning_tokens=0, temperature=0), {"temperature": 0}, ()),
    ],
)
def test_beside_a_budget_for_thoughts_only_some_sampling_is_possible(
    params: Params, kept: dict[str, Any], dropped: tuple[str, ...]
):
    sent = encoded(OLD, params=params)
    made = json.loads(sent.http.body)
    assert {key: made[key] for key in ("temperature", "top_p", "top_k") if key in made} == kept
    assert sent.dropped == dropped
    budget = params.reasoning_tokens
    assert made["thinking"] == ({"type": "enabled", "budget_tokens": budget} if budget else {"type": "disabled"})


@pytest.mark.parametrize("choice", ["required", "ping"])
def test_a_call_that_is_forced_is_worth_more_than_a_budget_for_thoughts(choice: str):
    sent = encoded(OLD, params=Params(reasoning_tokens=1024), tools=(PING,), tool_choice=choice)
    assert "thinking" not in json.loads(sent.http.body)
    assert sent.dropped == ("reasoning_tokens",)


@pytest.mark.parametrize(
    ("model", "takes"),
    [("claude-opus-4-5", True), (OLD, False), ("claude-sonnet-4-6", True), (NEW, True), ("claude-haiku-4-5", False)],
)
def test_an_effort_goes_to_the_models_that_know_it(model: str, takes: bool):
    sent = encoded(model, params=Params(reasoning_effort="low"))
    assert json.loads(sent.http.body).get("output_config") == ({"effort": "low"} if takes else None)
    assert sent.dropped == (() if takes else ("reasoning_effort",))


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("ping", False, {"type": "tool", "name": "ping", "disable_parallel_tool_use": True}),
    ],
)
def test_one_call_at_a_time_is_said_in_the_tool_choice(choice: str | None, parallel: bool | None, sent: Any):
    made = body(NEW, tools=(PING,), tool_choice=choice, params=Params(parallel_tool_calls=parallel))
    assert made.get("tool_choice") == sent


def test_without_tools_there_is_no_choice_but_a_forced_one():
    assert "tool_choice" not in body(NEW, tool_choice="auto", params=Params(parallel_tool_calls=False))
    assert body(NEW, tool_choice="required")["tool_choice"] == {"type": "any"}


def test_a_tool_has_an_input_schema_even_when_it_takes_nothing():
    made = body(NEW, tools=(PING, Tool("p", "d", SCHEMA, strict=True)))
    assert made["tools"] == [
        {"name": "ping", "input_schema": {"type": "object", "properties": {}}},
        {"name": "p", "description": "d", "input_schema": SCHEMA, "strict": True},
    ]


def test_a_schema_and_an_effort_share_their_place_and_extras_go_beside_them():
    params = Params(
        reasoning_effort="max", user="u", extra={"output_config": {"x": 1}, "thinking": {"type": "adaptive"}}
    )
    made = body(NEW, params=params, response_format=ResponseFormat("json_schema", SCHEMA))
    form = {"type": "json_schema", "schema": SCHEMA}
    assert made["output_config"] == {"effort": "max", "format": form, "x": 1}
    assert made["metadata"] == {"user_id": "u"}
    assert made["thinking"] == {"type": "adaptive"}


def test_counting_sends_what_is_counted_and_nothing_else():
    params = Params(temperature=0.5, max_tokens=3, stop=("x",), user="u", extra={"service_tier": "auto"})
    request = Request((Message("system", (Text("Be terse."),)), *HELLO), params, tools=(PING,), tool_choice="auto")
    sent = counting(request, deployed(OLD), at())
    assert (sent.method, sent.url) == ("POST", "https://api.anthropic.com/v1/messages/count_tokens")
    assert json.loads(sent.body) == {
        "model": OLD,
        "messages": [{"role": "user", "content": "Say hello."}],
        "system": "Be terse.",
        "tools": [{"name": "ping", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto"},
    }


def test_it_makes_no_embeddings():
    with pytest.raises(UsageError, match="no embeddings"):
        anthropic.encode(Request((), inputs=("a",)), deployed(NEW), at())
