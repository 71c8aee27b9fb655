"""The wire fixtures, as the tests want them: what a caller asked, what the provider was sent, what it answered.

Read from the folder in `LLMCTL_WIRE_FIXTURES`, by default the copy beside this file. What no wire of ours speaks yet is
not collected.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.build import provider
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.redact import Secret
from llmctl.core.types import (
    Completion,
    Document,
    Fold,
    Image,
    Message,
    Params,
    Part,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
)
from llmctl.wire.base import PROTOCOLS, Endpoint, Wire, load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmctl.wire.base import Decoder

FOLDER = Path(os.environ.get("LLMCTL_WIRE_FIXTURES") or Path(__file__).with_name("fixtures"))
NOW = 1_767_322_800.0  # 2026-01-02T03:00:00Z
ASKED = (Message("user", (Text("Say hello."),)),)
_PROVIDERS = Path(__file__).parents[2] / "llmctl" / "data" / "providers.toml"
_READ_AS = {"azure": "openai"}  # replies of the same shape, until a wire of its own speaks to it
_NATIVE = {"cohere": "cohere"}  # whose SDK speaks another protocol than the one its row of the table has
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


@dataclass(frozen=True, slots=True)
class Case:
    """One fixture. `wire` speaks the provider's protocol, or reads what it answers."""

    id: str
    provider: Provider
    wire: Wire
    data: dict[str, Any]
    body: bytes = b""

    def __repr__(self) -> str:
        return self.id

    @property
    def headers(self) -> dict[str, str]:
        """The response headers, with dates that depend on the clock filled in."""
        soon = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=7)
        date = soon.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return {name: value.replace("{{HTTP-date now+7s}}", date) for name, value in self.data["headers"].items()}

    def decoder(self) -> Decoder:
        """A decoder for this reply."""
        request = Request(ASKED, stream=self.data["stream"])
        return self.wire.decoder(request, self.data["status"], self.headers)


@cache
def providers() -> dict[str, Provider]:
    """The provider table."""
    return {name: provider(name, row) for name, row in tomllib.loads(_PROVIDERS.read_text()).items()}


@cache
def cases(kind: str) -> tuple[Case, ...]:
    """The fixtures of a kind (requests, responses, errors) that our wires speak."""
    found = []
    for entry in json.loads((FOLDER / "index.json").read_text()):
        owner = providers().get(entry["provider"].partition("@")[0])
        if entry["kind"] != kind or owner is None:
            continue
        protocol = _NATIVE.get(owner.name, owner.protocol)
        if kind != "requests" and protocol not in PROTOCOLS:
            protocol = _READ_AS.get(protocol, protocol)
        if protocol not in PROTOCOLS:
            continue
        path = FOLDER / entry["file"]
        data = json.loads(path.read_text())
        body = path.with_name(data["body_file"]).read_bytes() if "body_file" in data else b""
        found.append(Case(entry["id"], owner, load(protocol), data, body))
    return tuple(found)


def is_chat(case: Case) -> bool:
    """Whether a request fixture is of the kind the wires encode: chat, by its own API and without account headers."""
    asked = case.data["canonical"]
    return "messages" in asked and not {"api", "organization", "project"} & asked.keys()


def deployment_of(case: Case) -> Deployment:
    """The deployment that a request fixture addresses."""
    return Deployment("d", case.provider, case.data["canonical"]["model"])


def endpoint_of(case: Case) -> Endpoint:
    """The provider's own address, with the key that the SDK was given."""
    headers = case.data["request"]["headers"]
    key = next((headers[name] for name in _KEY_HEADERS if name in headers), "")
    return Endpoint(case.provider.api_base, Secret(key.removeprefix("Bearer ")))


def request_of(asked: dict[str, Any]) -> Request:
    """Our request for the neutral call of a fixture."""
    wanted = asked.get("response_format")
    params = dict(asked.get("params", {}))
    params["stop"] = tuple(params.get("stop", ()))
    reasoning = asked.get("reasoning", {})
    choice = asked.get("tool_choice")
    return Request(
        messages=tuple(_message(row) for row in asked["messages"]),
        params=Params(
            **params,
            reasoning_effort=reasoning.get("effort"),
            reasoning_tokens=reasoning.get("budget_tokens"),
            parallel_tool_calls=asked.get("parallel_tool_calls"),
            user=asked.get("user"),
        ),
        tools=tuple(Tool(t["name"], t.get("description", ""), t.get("parameters", {})) for t in asked.get("tools", ())),
        tool_choice=choice["name"] if isinstance(choice, dict) else choice,
        response_format=_response_format(wanted) if wanted else None,
        stream=asked.get("stream", False),
    )


def _message(row: dict[str, Any]) -> Message:
    content = row["content"]
    parts = (Text(content),) if isinstance(content, str) else tuple(_part(part) for part in content)
    calls = tuple(ToolCall(c["id"], c["name"], json.dumps(c["arguments"])) for c in row.get("tool_calls", ()))
    return Message(row["role"], parts, calls, row.get("tool_call_id", ""))


def _part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "text":
            return Text(part["text"])
        case "image":
            return Image(part["media_type"], part["data"])
        case "image_url":
            return Image(url=part["url"])
        case "document":
            return Document(part["media_type"], part["data"], part.get("name", ""))
        case other:
            raise ValueError(other)


def _response_format(wanted: dict[str, Any]) -> ResponseFormat:
    if wanted["type"] != "json_schema":
        return ResponseFormat("json")
    return ResponseFormat("json_schema", wanted["schema"], wanted["name"], wanted["strict"])


def read(decoder: Decoder, chunks: Iterable[bytes], *, to_end: bool = True) -> tuple[Completion, Exception | None]:
    """What the decoder made of `chunks`, and what it raised; without `to_end` the body breaks off instead of ending."""
    fold = Fold()
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                fold.add(event)
            if decoder.done:
                break
        if to_end:
            for event in decoder.end():
                fold.add(event)
    except Exception as error:  # noqa: BLE001 - the tests say which ones are allowed
        return fold.completion(), error
    return fold.completion(), None


def bytewise(body: bytes) -> list[bytes]:
    """One byte a chunk."""
    return [body[i : i + 1] for i in range(len(body))]
