"""The Anthropic Messages protocol, under both of its API versions; several other servers speak the older one.

https://platform.claude.com/docs/en/api/messages and .../api/migration-2026-10-21 (read 2026-11-20), and the types of
anthropics/anthropic-sdk-python. Which model takes what is in `claude`, turns are in `anthropic_turns`, reading in
`anthropic_reading`, errors in `anthropic_errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.wire import claude
from llmctl.wire.anthropic_errors import classify
from llmctl.wire.anthropic_reading import decoder
from llmctl.wire.anthropic_turns import turns
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.values import dump, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Params, Request, Tool
    from llmctl.wire.base import Endpoint

__all__ = ["classify", "counting", "decoder", "encode", "listing"]

NEWER = "2026-10-21"
"""The API version with bearer keys and without sampling parameters, which it refuses even at their defaults."""
OLDER = "2023-06-01"

_DEFAULT_MAX_TOKENS = 8192
_SHORT_MAX_TOKENS = 4096
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control")
"""What counting takes of a request: https://platform.claude.com/docs/en/api/messages/count_tokens."""


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that could not be put into it."""
    if request.inputs:
        raise UsageError(f"{deployment.served_by} makes no embeddings", hint="ask a model that is made for them")
    body, dropped = _body(request, deployment, endpoint)
    return Encoded(_http("POST", "/messages", deployment, endpoint, dump(body)), dropped)


def counting(request: Request, deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
    """The request that counts the input tokens of `request`; it costs nothing, and answers `input_tokens`."""
    body, _ = _body(request, deployment, endpoint)
    counted = {key: body[key] for key in _COUNTED if key in body}
    return _http("POST", "/messages/count_tokens", deployment, endpoint, dump(counted))


def listing(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
    """The request that lists the models."""
    return _http("GET", "/models", deployment, endpoint, b"")


def _http(method: str, path: str, deployment: Deployment, endpoint: Endpoint, body: bytes) -> HttpRequest:
    base = endpoint.api_base.rstrip("/").removesuffix("/v1")
    version = _version(deployment, endpoint)
    key = endpoint.authorization if version >= NEWER else endpoint.keyed("x-api-key")
    return HttpRequest(method, f"{base}/v1{path}", endpoint.headed(key, {"anthropic-version": version}), body)


def _version(deployment: Deployment, endpoint: Endpoint) -> str:
    """The API version: the one that is set, else by the model. What is no Claude is on a server that has the older."""
    return endpoint.api_version or (OLDER if claude.samples(deployment) else NEWER)


def _body(request: Request, deployment: Deployment, endpoint: Endpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `request`, and what could not be put into it."""
    dropped: list[str] = []
    params = claude.taken(request, deployment, dropped, sampled=_version(deployment, endpoint) < NEWER)
    system, messages = turns(request.messages, dropped)
    thinking = claude.thinking(params)
    body: dict[str, Any] = {"model": deployment.model, "max_tokens": _max_tokens(params, deployment, thinking)}
    body["messages"] = messages
    if system:
        body["system"] = system
    if thinking:
        body["thinking"] = thinking
    body |= {name: value for name in claude.SAMPLING if (value := getattr(params, name)) is not None}
    if params.stop:
        body["stop_sequences"] = list(params.stop)
    if params.user is not None:
        body["metadata"] = {"user_id": params.user}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if choice := _tool_choice(request):
        body["tool_choice"] = choice
    if form := _output_config(request, params, dropped):
        body["output_config"] = form
    if request.stream:
        body["stream"] = True
    return merged(body, params.extra), tuple(dict.fromkeys(dropped))


def _max_tokens(params: Params, deployment: Deployment, thinking: Mapping[str, Any]) -> int:
    """The cap on the answer, which the API requires; where nobody set one, a budget for thoughts comes on top of it."""
    if params.max_tokens is not None:
        return params.max_tokens
    family = _SHORT_MAX_TOKENS if claude.writes_little(deployment) else _DEFAULT_MAX_TOKENS
    return deployment.max_output or family + int(thinking.get("budget_tokens", 0))


def _tool(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["input_schema"] = dict(tool.parameters) or {"type": "object", "properties": {}}
    if tool.strict is not None:
        out["strict"] = tool.strict
    return out


def _tool_choice(request: Request) -> dict[str, Any]:
    """The choice of tools; without tools only a choice that forces one is sent, for the API to refuse it."""
    said, params = request.tool_choice, request.params
    if not request.tools and said in (None, "auto", "none"):
        return {}
    at_most_one = {"disable_parallel_tool_use": True} if params.parallel_tool_calls is False else {}
    match said:
        case None:
            return {"type": "auto"} | at_most_one if at_most_one else {}
        case "none":
            return {"type": "none"}
        case "auto":
            return {"type": "auto"} | at_most_one
        case "required":
            return {"type": "any"} | at_most_one
        case name:
            return {"type": "tool", "name": name} | at_most_one


def _output_config(request: Request, params: Params, dropped: list[str]) -> dict[str, Any]:
    """The shape of the answer and the effort that goes into it.

    Any JSON has no form here: a schema that closes no object is refused, and one that closes it admits only `{}`.
    """
    out: dict[str, Any] = {}
    wanted = request.response_format
    if params.reasoning_effort is not None:
        out["effort"] = params.reasoning_effort
    if wanted is not None:
        if wanted.kind == "json_schema" and wanted.schema is not None:
            out["format"] = {"type": "json_schema", "schema": wanted.schema}
        else:
            dropped.append("response_format")
    return out
