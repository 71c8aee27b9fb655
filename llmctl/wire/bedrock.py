"""Amazon Bedrock: Converse for chat, InvokeModel for embeddings. Nothing is signed here: that is `run/sign`.

One protocol for every model that Bedrock hosts; what a model's own parameters are called is in the tables below.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, and the service description in
boto/botocore:botocore/data/bedrock-runtime/2023-09-30/service-2.json (1.44.5), both read 2026-11-20. Reading is in
`bedrock_reading`, errors in `bedrock_errors`, conversations in `bedrock_turns`, embeddings in `bedrock_vectors`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmctl.core.errors import UsageError
from llmctl.core.types import Tool
from llmctl.wire import bedrock_vectors, claude
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.bedrock_errors import classify
from llmctl.wire.bedrock_reading import decoder
from llmctl.wire.bedrock_turns import turns_of
from llmctl.wire.values import dump, merged

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Params, Request, ResponseFormat
    from llmctl.wire.base import Endpoint

__all__ = ["body_of", "classify", "counting", "decoder", "encode", "listing"]

_CONFIG = {"temperature": "temperature", "top_p": "topP", "max_tokens": "maxTokens", "stop": "stopSequences"}
_NO_FORM = ("seed", "presence_penalty", "frequency_penalty")
_MAKERS = {"claude": "anthropic", "nova": "amazon", "openai.": "openai", "mistral.": "mistral", "cohere.": "cohere"}
"""A part of a model's name -> whose parameters it takes. A profile that hides its model tells it by `base_model`."""
_MORE = "additionalModelRequestFields"
_PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "top_k": {
        "anthropic": (_MORE, "top_k"),
        "mistral": (_MORE, "top_k"),
        "cohere": (_MORE, "k"),
        "amazon": (_MORE, "inferenceConfig", "topK"),
    },
    "reasoning_effort": {
        "anthropic": ("outputConfig", "effort"),
        "amazon": (_MORE, "reasoningConfig", "maxReasoningEffort"),
        "openai": (_MORE, "reasoning_effort"),
    },
    "reasoning_tokens": {},
}
"""Our parameter -> maker -> where in the body it looks for it (vercel/ai issue 11467: the bare effort is OpenAI's)."""
_EFFORTS = ("low", "medium", "high")  # of all makers but Anthropic
_CHOICES: dict[str, dict[str, Any]] = {"auto": {"auto": {}}, "required": {"any": {}}}
_USER = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}")
_COUNTED = ("messages", "system", "toolConfig", _MORE)
# The hosts of the runtime, FIPS and dual-stack included; models are listed at the same host without "-runtime".
_RUNTIME = re.compile(r"(?i)(https://bedrock)-runtime((?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)/?)")


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that Converse or this maker's models cannot take."""
    if request.inputs:
        body, dropped = bedrock_vectors.body_of(request, deployment.model)
        return Encoded(_post(deployment, endpoint, "invoke", body, accept="application/json"), dropped)
    body, dropped = body_of(request, deployment)
    operation = "converse-stream" if request.stream else "converse"
    return Encoded(_post(deployment, endpoint, operation, body), dropped)


def counting(request: Request, deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
    """The request that counts the tokens of `request`; it costs nothing."""
    body, _ = body_of(request, deployment)
    counted = {key: body[key] for key in _COUNTED if key in body}
    return _post(deployment, endpoint, "count-tokens", {"input": {"converse": counted}})


def listing(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:  # noqa: ARG001 - a wire's signature
    """The request that lists the models of the region."""
    found = _RUNTIME.fullmatch(endpoint.api_base)
    base = found[1] + found[2] if found else endpoint.api_base
    headers = {**endpoint.authorization, **endpoint.headers}
    return HttpRequest("GET", base.rstrip("/") + "/foundation-models", headers, b"")


def _post(deployment: Deployment, endpoint: Endpoint, operation: str, body: dict[str, Any], **own: str) -> HttpRequest:
    """A request with what Amazon's own SDK signs: no `accept` on Converse, so that proxies may change it."""
    url = f"{endpoint.api_base.rstrip('/')}/model/{quote(deployment.model, safe='')}/{operation}"
    headers = {"content-type": "application/json", **own, **endpoint.authorization, **endpoint.headers}
    return HttpRequest("POST", url, headers, dump(body))


def body_of(request: Request, deployment: Deployment) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The Converse body for `request`, and what could not be put into it. Raises UsageError for what it cannot hold."""
    maker = _maker(deployment)
    dropped: list[str] = []
    system, turns = turns_of(request.messages, dropped, sealed=maker == "anthropic")
    body: dict[str, Any] = {"messages": turns}
    if system:
        body["system"] = system
    params = request.params
    if maker == "anthropic":
        params = claude.taken(request, deployment, dropped, sampled=claude.samples(deployment))
        if thinking := claude.thinking(params):
            _put(body, (_MORE, "thinking"), thinking)
            params = replace(params, reasoning_tokens=None)
    _add_params(body, params, maker, dropped)
    _add_tools(body, request, dropped)
    if request.response_format is not None:
        _add_format(body, request.response_format, dropped)
    return merged(body, request.params.extra), tuple(dict.fromkeys(dropped))


def _maker(deployment: Deployment) -> str:
    name = f"{deployment.base_model} {deployment.model}".lower()
    return next((maker for part, maker in _MAKERS.items() if part in name), "")


def _put(body: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *way, last = path
    for step in way:
        body = body.setdefault(step, {})
    body[last] = value


def _add_params(body: dict[str, Any], params: Params, maker: str, dropped: list[str]) -> None:
    for name, field in _CONFIG.items():
        value = getattr(params, name)
        if name == "temperature" and (value or 0) > claude.HOTTEST:
            dropped.append(name)
        elif value is not None and value != ():
            _put(body, ("inferenceConfig", field), list(value) if name == "stop" else value)
    for name, places in _PLACES.items():
        value = getattr(params, name)
        if value is None:
            continue
        unknown = name == "reasoning_effort" and maker != "anthropic" and value not in _EFFORTS
        if unknown or maker not in places:
            dropped.append(name)
            continue
        if (name, maker) == ("reasoning_effort", "amazon"):
            _put(body, (_MORE, "reasoningConfig", "type"), "enabled")
        _put(body, places[maker], value)
    if params.user is not None:
        if _USER.fullmatch(params.user):
            body["requestMetadata"] = {"user": params.user}
        else:
            dropped.append("user")
    if params.parallel_tool_calls is False:  # True is what every model does by itself
        dropped.append("parallel_tool_calls")
    dropped += [name for name in _NO_FORM if getattr(params, name) is not None]


def _add_format(body: dict[str, Any], wanted: ResponseFormat, dropped: list[str]) -> None:
    if wanted.kind == "json":
        dropped.append("response_format")
        return
    try:
        schema = json.dumps(wanted.schema, allow_nan=False)  # a string, written as Amazon's SDK writes JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the schema cannot be written as JSON: {error}", hint="check the schema") from error
    structure = {"jsonSchema": {"name": wanted.name, "schema": schema}}
    _put(body, ("outputConfig", "textFormat"), {"type": "json_schema", "structure": structure})


# --- tools ----------------------------------------------------------------------------------------------------------


def _add_tools(body: dict[str, Any], request: Request, dropped: list[str]) -> None:
    """Put the tools in. Earlier calls need them: Converse refuses tool turns without a `toolConfig`.

    "none" has no form, so it leaves the tools out where it can, and is said where it cannot.
    """
    called = dict.fromkeys(call.name for message in request.messages for call in message.tool_calls)
    tools, choice = request.tools, request.tool_choice
    if choice == "none":
        if called and tools:
            dropped.append("tool_choice")
        tools, choice = tools if called else (), None
    if called and not tools:
        tools = tuple(Tool(name, "Not available any more.") for name in called)
        choice = None
    if tools:
        body["toolConfig"] = {"tools": [{"toolSpec": _tool(tool)} for tool in tools]}
        if choice is not None:
            body["toolConfig"]["toolChoice"] = _CHOICES.get(choice) or {"tool": {"name": choice}}


def _tool(tool: Tool) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    spec["inputSchema"] = {"json": tool.parameters or {"type": "object", "properties": {}}}
    if tool.strict is not None:
        spec["strict"] = tool.strict
    return spec
