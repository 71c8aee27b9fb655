"""The wire fixtures, as the tests want them: what a caller asked, what the provider was sent, what it answered.

Read from the folder in `LLMCTL_WIRE_FIXTURES`, by default the copy beside this file. What no wire of ours speaks yet is
not collected.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

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
from llmctl.wire import PROTOCOLS
from llmctl.wire.base import AwsKeys, Encoded, Endpoint, Wire, load
from tests.wire.native import reader_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmctl.wire.base import Decoder

FOLDER = Path(os.environ.get("LLMCTL_WIRE_FIXTURES") or Path(__file__).with_name("fixtures"))
NOW = 1_767_322_800.0  # 2026-01-02T03:00:00Z
ASKED = (Message("user", (Text("Say hello."),)),)
_PROVIDERS = Path(__file__).parents[2] / "llmctl" / "data" / "providers.toml"
_NATIVE = ("cohere",)
"""Providers whose SDK speaks another protocol than the one that their row of the table asks them in."""
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key", "authorization")
_OPERATIONS = ("list_models", "count_tokens")


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
        if entry["kind"] != kind or owner is None or owner.name in _NATIVE or owner.protocol not in PROTOCOLS:
            continue
        path = FOLDER / entry["file"]
        data = json.loads(path.read_text())
        body = path.with_name(data["body_file"]).read_bytes() if "body_file" in data else b""
        found.append(Case(entry["id"], owner, load(owner.protocol), data, body))
    return tuple(found)


def why_not(case: Case) -> str:
    """Why a request fixture is of a kind that we do not speak, "" when we do."""
    asked = case.data["canonical"]
    if "api" in asked and reader_of(case.data["sdk_call"]) is None:
        return f"the {asked['api']} API is another protocol"
    if asked.get("op", "") not in ("", *_OPERATIONS):
        return f"nobody asks for {asked['op']}"
    if "/projects/" in case.data["request"]["url"]:
        return "it names a project of the account"
    return ""


def deployment_of(case: Case) -> Deployment:
    """The deployment that a request fixture addresses."""
    asked = case.data["canonical"]
    return Deployment("d", case.provider, asked.get("model", _model_of(case.data.get("sdk_kwargs", {}))))


def _model_of(given: dict[str, Any]) -> str:
    return given.get("model", given.get("modelId", ""))


def endpoint_of(case: Case) -> Endpoint:
    """Where the SDK sent it, with the key that it was given."""
    asked, theirs = case.data["canonical"], case.data["request"]
    headers, url = theirs["headers"], urlsplit(theirs["url"])
    name = next((name for name in _KEY_HEADERS if name in headers), "")
    key = "" if "sigv4" in case.data else headers.get(name, "").removeprefix("Bearer ")
    base = case.provider.api_base
    if case.provider.protocol in ("azure", "bedrock"):
        base = f"https://{url.hostname}" + ("/openai/v1" if asked.get("azure_api") == "v1" else "")
    version = parse_qs(url.query).get("api-version", [""])[0]
    if case.provider.protocol == "gemini":
        version = url.path.split("/")[1]
    if asked.get("op") == "list_models":  # no model says which version to speak
        version = version or headers.get("anthropic-version", "")
    account = {name: value for name, value in headers.items() if name.startswith(("openai-", "anthropic-beta"))}
    token = name == "authorization" and case.provider.protocol in ("azure", "gemini", "bedrock")
    bearer = token or asked.get("anthropic_auth") == "bearer"
    return Endpoint(base, Secret(key), bearer=bearer, api_version=version, headers=account)


def aws_keys_of(case: Case) -> AwsKeys:
    """The keys that a Bedrock fixture was signed with."""
    asked, how = case.data["canonical"], case.data["sigv4"]
    token = Secret(asked.get("aws_session_token", ""))
    return AwsKeys(how["access_key"], Secret(how["secret_key"]), token, asked.get("region", "us-east-1"))


def encoded(case: Case) -> Encoded:
    """What we send for a request fixture."""
    asked, deployment, endpoint = case.data["canonical"], deployment_of(case), endpoint_of(case)
    match asked.get("op"):
        case "list_models":
            return Encoded(case.wire.listing(deployment, endpoint))
        case "count_tokens":
            counting: Any = case.wire
            return Encoded(counting.counting(request_of(case), deployment, endpoint))
    return case.wire.encode(request_of(case), deployment, endpoint)


def request_of(case: Case) -> Request:
    """Our request for the neutral call of a fixture."""
    asked = case.data["canonical"]
    if "api" in asked and (reader := reader_of(case.data["sdk_call"])):
        request = reader(case.data["sdk_kwargs"])
        return replace(request, stream=request.stream or "stream" in case.data["request"]["url"])
    wanted, given = asked.get("response_format"), asked.get("input", ())
    params = dict(asked.get("params", {}))
    params["stop"] = tuple(params.get("stop", ()))
    reasoning = asked.get("reasoning", {})
    choice = asked.get("tool_choice")
    return Request(
        messages=tuple(_message(row) for row in asked.get("messages", ())),
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
        inputs=(given,) if isinstance(given, str) else tuple(given),
        dimensions=asked.get("dimensions"),
    )


def _message(row: dict[str, Any]) -> Message:
    content = row["content"]
    parts = (Text(content),) if isinstance(content, str) else tuple(_part(part) for part in content)
    calls = tuple(ToolCall(c["id"], c["name"], json.dumps(c["arguments"])) for c in row.get("tool_calls", ()))
    return Message(
        row["role"],
        parts,
        calls,
        row.get("tool_call_id", ""),
        name=row.get("name", ""),
        is_error=row.get("is_error", False),
        cache=row.get("cache", False),
    )


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
