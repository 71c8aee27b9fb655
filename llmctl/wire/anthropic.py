"""The Anthropic Messages protocol, under both of its API versions; several other servers speak the older one.

https://platform.claude.com/docs/en/api/messages and .../api/migration-2026-10-21 (read 2026-11-20), and the types of
anthropics/anthropic-sdk-python. Which model takes what stands in the table of generations below; whatever is not in it
(a budget for a model that thinks as it likes, a prefill for one that takes none) is sent, and the API's own refusal
says what to do. Turns are in `anthropic_turns`, reading in `anthropic_reading`, errors in `anthropic_errors`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
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

# Generations of Claude, as their names say them: (4, 5) for claude-sonnet-4-5-20250929.
_NAMED = re.compile(r"claude-(?:[a-z]+-)*v?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_UNNUMBERED = (99, 0)  # claude-mythos-preview: newer than the habit of numbering
_NEWER_SINCE = (4, 7)  # which refuse sampling parameters under either version
_EFFORT_SINCE = (4, 6)  # and Claude Opus 4.5: https://platform.claude.com/docs/en/build-with-claude/effort
_SHORT_UNTIL = (3, 5)  # Claude 3 and older write 4,096 tokens at most; asking for more is refused
_EFFORTS = ("low", "medium", "high", "xhigh", "max")

_DEFAULT_MAX_TOKENS = 8192
_SHORT_MAX_TOKENS = 4096
_NEVER = ("seed", "presence_penalty", "frequency_penalty")
_SAMPLING = ("temperature", "top_p", "top_k")
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
    if endpoint.bearer or version >= NEWER or not endpoint.key:
        key: Mapping[str, str] = endpoint.authorization
    else:
        key = {"x-api-key": endpoint.key.reveal()}
    return HttpRequest(method, f"{base}/v1{path}", endpoint.headed(key, {"anthropic-version": version}), body)


def _version(deployment: Deployment, endpoint: Endpoint) -> str:
    """The API version: the one that is set, else by the model. What is no Claude is on a server that has the older."""
    made = _generation(deployment)
    return endpoint.api_version or (NEWER if made and made >= _NEWER_SINCE else OLDER)


def _generation(deployment: Deployment) -> tuple[int, int] | None:
    """The generation that the name of a Claude says, the newest where it says none; None for any other model."""
    name = _name(deployment)
    if found := _NAMED.search(name):
        return int(found[1]), int(found[2] or 0)
    return _UNNUMBERED if "claude" in name else None


def _name(deployment: Deployment) -> str:
    return (deployment.base_model or deployment.model).lower()


def _body(request: Request, deployment: Deployment, endpoint: Endpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `request`, and what could not be put into it."""
    params, dropped = request.params, [name for name in _NEVER if getattr(request.params, name) is not None]
    system, messages = turns(request.messages, dropped)
    thinking = _thinking(request, dropped)
    body: dict[str, Any] = {"model": deployment.model, "max_tokens": _max_tokens(params, deployment, thinking)}
    body["messages"] = messages
    if system:
        body["system"] = system
    if thinking:
        body["thinking"] = thinking
    _add_sampling(body, params, dropped, taken=_version(deployment, endpoint) < NEWER)
    _add_stop(body, params, dropped)
    if params.user is not None:
        body["metadata"] = {"user_id": params.user}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if choice := _tool_choice(request):
        body["tool_choice"] = choice
    if form := _output_config(request, deployment, dropped):
        body["output_config"] = form
    if request.stream:
        body["stream"] = True
    return merged(body, params.extra), tuple(dict.fromkeys(dropped))


def _max_tokens(params: Params, deployment: Deployment, thinking: Mapping[str, Any]) -> int:
    """The cap on the answer, which the API requires; where nobody set one, a budget for thoughts comes on top of it."""
    if params.max_tokens is not None:
        return params.max_tokens
    made = _generation(deployment) or _UNNUMBERED
    family = _SHORT_MAX_TOKENS if made < _SHORT_UNTIL else _DEFAULT_MAX_TOKENS
    return deployment.max_output or family + int(thinking.get("budget_tokens", 0))


def _thinking(request: Request, dropped: list[str]) -> dict[str, Any]:
    """How to think; a tool that must be called excludes it, and is worth more: somebody waits for that call."""
    budget = request.params.reasoning_tokens
    if budget is None:
        return {}
    if request.tools and request.tool_choice not in (None, "auto", "none"):
        dropped.append("reasoning_tokens")
        return {}
    return {"type": "enabled", "budget_tokens": budget} if budget > 0 else {"type": "disabled"}


def _add_sampling(body: dict[str, Any], params: Params, dropped: list[str], *, taken: bool) -> None:
    """Put the sampling parameters into `body`, or into `dropped`: beside a budget for thoughts most are refused.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "Feature compatibility": no temperature
    but 1, no top_k, and top_p from 0.95 to 1.
    """
    thinks = "budget_tokens" in body.get("thinking", {})
    for name in _SAMPLING:
        value = getattr(params, name)
        fits = not thinks or (name == "temperature" and value == 1) or (name == "top_p" and value and value >= 0.95)
        if value is None:
            continue
        if taken and fits:
            body[name] = value
        else:
            dropped.append(name)


def _add_stop(body: dict[str, Any], params: Params, dropped: list[str]) -> None:
    """Put the stop sequences into `body`; one of nothing but white space is refused, so it goes into `dropped`."""
    stop = [each for each in params.stop if each.strip()]
    if stop:
        body["stop_sequences"] = stop
    if len(stop) < len(params.stop):
        dropped.append("stop")


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


def _output_config(request: Request, deployment: Deployment, dropped: list[str]) -> dict[str, Any]:
    """The shape of the answer and the effort that goes into it.

    Any JSON has no form here: a schema that closes no object is refused, and one that closes it admits only `{}`. An
    older model knows no effort, and a budget in its place would be a guess at the caller's money.
    """
    out: dict[str, Any] = {}
    wanted, effort = request.response_format, request.params.reasoning_effort
    if effort is not None:
        made = _generation(deployment) or _UNNUMBERED
        knows = made >= _EFFORT_SINCE or (made == (4, 5) and "opus" in _name(deployment))
        if knows and effort in _EFFORTS:
            out["effort"] = effort
        else:
            dropped.append("reasoning_effort")
    if wanted is not None:
        if wanted.kind == "json_schema" and wanted.schema is not None:
            out["format"] = {"type": "json_schema", "schema": wanted.schema}
        else:
            dropped.append("response_format")
    return out
