"""OpenAI's protocol end to end, against a server that nobody here wrote: llama.cpp serves it at /v1.

Its grammar holds even a small model to a schema, so what is asked for can be told from what comes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import Client
from llmctl.core.errors import ContextExceeded, InvalidRequest, Unauthorized
from llmctl.testing import MemoryLedger
from tests.wire.test_anthropic_real import CITY, TEMPLATE, WEATHER, talk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmctl.core.record import Answer

MODEL = "llamacpp/smollm2"


@pytest.fixture(scope="module")
def address(llama_cpp: Callable[[str, str], AbstractContextManager[str]]) -> Iterator[str]:
    """The address of the API, which answers to the key `right`."""
    with llama_cpp("right", TEMPLATE) as address:
        yield f"{address}/v1"


def answered(address: str, prompt: str | None = None, key: str = "right", **how: Any) -> Answer:
    provider = {"api_base": address, "api_key": key}
    with Client({"providers": {"llamacpp": provider}}, environ={}, ledger=MemoryLedger()) as made:
        return made.complete(prompt, model=MODEL, **{"temperature": 0, "max_tokens": 40, "seed": 1, **how})


def test_a_stream_and_a_whole_answer_say_and_count_the_same(address: str) -> None:
    asked: dict[str, Any] = {"prompt": "Say hello.", "system": "Be brief.", "max_tokens": 12}
    streamed = answered(address, **asked)
    whole = answered(address, **asked, extra={"stream": False, "stream_options": None})
    assert streamed.text == whole.text != ""
    assert streamed.finish_reason == whole.finish_reason
    assert streamed.usage == whole.usage
    assert streamed.usage.output_tokens > 1
    assert not streamed.usage.estimated
    assert streamed.completion.reported_model == "smollm2"


def test_a_schema_is_held(address: str) -> None:
    answer = answered(address, "Where is the Colosseum? Answer in JSON.", schema=CITY)
    found = json.loads(answer.text)
    assert list(found) == ["city"]
    assert isinstance(found["city"], str)


@pytest.mark.parametrize("choice", ["auto", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_conversation_with_tools_goes_there_and_comes_back(address: str, choice: Any) -> None:
    answer = answered(address, messages=talk(), tools=[WEATHER], tool_choice=choice, max_tokens=60)
    assert answer.finish_reason == "tool_calls"
    assert [(call.name, json.loads(call.arguments)) for call in answer.completion.tool_calls] == [
        ("get_weather", {"city": "Paris"})
    ]


@pytest.mark.parametrize(
    ("prompt", "how", "error"),
    [
        ("hello " * 3000, {}, ContextExceeded),
        ("hi", {"key": "wrong"}, Unauthorized),
        ("hi", {"extra": {"temperature": "warm"}}, InvalidRequest),
    ],
    ids=["too long", "wrong key", "nonsense"],
)
def test_a_refusal_has_its_class(address: str, prompt: str, how: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="llamacpp/smollm2"):
        answered(address, prompt, **how)
