"""Anthropic's protocol end to end, against a server that nobody here wrote: llama.cpp serves it at /v1/messages.

The weights know no tools, so the server gets a chat template that does, and the model two examples to follow.
"""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import ContextExceeded, InvalidRequest, Unauthorized
from llmctl.core.redact import Secret
from llmctl.core.types import Message, Params, Request, Text, fold
from llmctl.testing import MemoryLedger
from llmctl.wire import anthropic
from llmctl.wire.base import Endpoint, HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmctl.core.record import Answer

MODEL = "smol/smollm2"
TEMPLATE = (
    "{%- for m in [{'role': 'system', 'content': 'Tools: ' + tools | tojson}] + messages if tools else messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}"
    "{%- for call in m.tool_calls %}"
    '{{- \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}


def talk() -> list[dict[str, Any]]:
    """A conversation that asks for a tool call: the weights know no tools, so it holds two examples to follow."""
    messages: list[dict[str, Any]] = []
    for n, city in enumerate(("Rome", "Oslo")):
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        messages += [
            {"role": "user", "content": f"Weather in {city}?"},
            {"role": "assistant", "tool_calls": [{"id": f"call_{n}", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": f"call_{n}", "content": "18"},
            {"role": "assistant", "content": "18"},
        ]
    return [*messages, {"role": "user", "content": "Weather in Paris?"}]


@pytest.fixture(scope="module")
def address(llama_cpp: Callable[[str, str], AbstractContextManager[str]]) -> Iterator[str]:
    """The address of the server, which answers to the key `right`."""
    with llama_cpp("right", TEMPLATE) as address:
        yield address


def fetched(sent: HttpRequest) -> bytes:
    """What the server answers to a request that the client did not send."""
    request = urllib.request.Request(sent.url, sent.body, dict(sent.headers))
    with urllib.request.urlopen(request, timeout=30) as response:
        body: bytes = response.read()
    return body


def client(address: str, key: str = "right") -> Client:
    provider = {"protocol": "anthropic", "api_base": address, "api_key": key}
    return Client({"providers": {"smol": provider}}, environ={}, ledger=MemoryLedger())


def answered(address: str, prompt: str | None = None, key: str = "right", **how: Any) -> Answer:
    with client(address, key) as made:
        return made.complete(prompt, model=MODEL, **{"temperature": 0, "max_tokens": 12, **how})


def test_a_stream_and_a_whole_answer_say_and_count_the_same(address: str):
    with client(address) as made:
        stream = made.stream("Say hello.", model=MODEL, system="Be brief.", temperature=0, max_tokens=12)
        pieces = [piece.text for piece in stream if piece.text]
        streamed = stream.answer
    assert streamed is not None
    messages = (Message("system", (Text("Be brief."),)), Message("user", (Text("Say hello."),)))
    request = Request(messages, Params(temperature=0, max_tokens=12), stream=False)
    deployment, endpoint = Deployment("d", Provider("smol"), "smollm2"), Endpoint(address, Secret("right"))
    made_of = anthropic.decoder(request, 200, {})
    sent = anthropic.encode(request, deployment, endpoint)
    whole = fold([*made_of.feed(fetched(sent.http)), *made_of.end()])
    assert sent.dropped == ()
    assert len(pieces) > 1
    assert "".join(pieces) == streamed.text == whole.text
    assert streamed.finish_reason == whole.finish_reason
    assert streamed.completion.reported_model == whole.reported_model == "smollm2"
    assert whole.usage is not None
    assert not streamed.usage.estimated
    counted = json.loads(fetched(anthropic.counting(request, deployment, endpoint)))["input_tokens"]
    assert streamed.usage.input_tokens == whole.usage.input_tokens == counted
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 1


def test_a_conversation_with_tools_goes_there_and_comes_back(address: str):
    answer = answered(address, messages=talk(), tools=[WEATHER], max_tokens=60)
    assert answer.finish_reason == "tool_calls"
    assert [call.name for call in answer.completion.tool_calls] == ["get_weather"]
    assert json.loads(answer.completion.tool_calls[0].arguments) == {"city": "Paris"}


@pytest.mark.parametrize(
    ("prompt", "how", "error"),
    [
        ("hello " * 3000, {}, ContextExceeded),
        ("hi", {"key": "wrong"}, Unauthorized),
        ("hi", {"extra": {"temperature": "warm"}}, InvalidRequest),
    ],
    ids=["too long", "wrong key", "nonsense"],
)
def test_a_refusal_has_its_class(address: str, prompt: str, how: dict[str, Any], error: type[Exception]):
    with pytest.raises(error, match="smol/smollm2"):
        answered(address, prompt, **how)
