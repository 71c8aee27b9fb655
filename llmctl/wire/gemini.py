"""Gemini: generateContent of the Generative Language API, with its embeddings, its list of models and its token count.

https://ai.google.dev/api/generate-content, .../embeddings, .../tokens and docs/api-versions (read 2026-11-20): v1 is
the stable version, v1beta has what is new; fields are written in the documented spelling, of which protocol buffers
take the other one too. Reading is in `gemini_reading`, errors are in `gemini_errors`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmctl.core.types import Document, Image, Text
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.gemini_errors import classify
from llmctl.wire.gemini_reading import decoder
from llmctl.wire.values import dump, json_object, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Message, Params, Part, Request, Thought, Tool, ToolCall
    from llmctl.wire.base import Endpoint

__all__ = ["classify", "counting", "decoder", "encode", "listing"]

API_VERSION = "v1"
_VERSION = re.compile(r"/v\d+(?:alpha|beta)?\d*$")
_COLLECTIONS = ("models/", "tunedModels/")
_FIELDS = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "max_tokens": "maxOutputTokens",
    "stop": "stopSequences", "seed": "seed", "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
"""Our parameter -> the field of generationConfig."""
_PROMPT = ("contents", "systemInstruction", "tools", "toolConfig", "cachedContent")
"""The fields of a request that are tokens of the prompt."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

_THINKS_BY_BUDGET = re.compile(r"gemini-[a-z-]*[12]\.")
"""The generations before 3: they take a budget, later ones a level: https://ai.google.dev/gemini-api/docs/thinking."""
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""What Google itself makes of an effort: https://ai.google.dev/gemini-api/docs/openai#thinking."""

_UNSIGNED = "skip_thought_signature_validator"
"""What stands for the seal of a call that another model made: generation 3 refuses a turn whose first call has none
(https://ai.google.dev/gemini-api/docs/thought-signatures, "FAQs")."""
_MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif",
}  # fmt: skip


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that the API cannot take."""
    if request.inputs:
        return Encoded(_post(deployment, endpoint, "batchEmbedContents", _vectors_body(request, deployment)))
    body, dropped = _body(request, deployment)
    method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
    return Encoded(_post(deployment, endpoint, method, merged(body, request.params.extra)), dropped)


def counting(request: Request, deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
    """The request that counts the tokens of `request`: `totalTokens` of its answer; it costs nothing."""
    body = merged(_body(request, deployment)[0], request.params.extra)
    prompt = {key: body[key] for key in _PROMPT if key in body}
    prompt["contents"] = prompt["contents"] or [_embedded(text) for text in request.inputs]
    if len(prompt) > 1:  # what stands beside the contents is counted only as part of a whole request
        prompt = {"generateContentRequest": {"model": _named(deployment.model), **prompt}}
    return _post(deployment, endpoint, "countTokens", prompt)


def listing(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:  # noqa: ARG001 - a wire's signature
    """The request that lists the models."""
    return HttpRequest("GET", f"{_base(endpoint)}/models", _headers(endpoint), b"")


# --- where it goes --------------------------------------------------------------------------------------------------


def _post(deployment: Deployment, endpoint: Endpoint, method: str, body: dict[str, Any]) -> HttpRequest:
    url = f"{_base(endpoint)}/{quote(_named(deployment.model), safe='/@')}:{method}"
    return HttpRequest("POST", url, _headers(endpoint), dump(body))


def _base(endpoint: Endpoint) -> str:
    base = endpoint.api_base.rstrip("/")
    return base if _VERSION.search(base) else f"{base}/{quote(endpoint.api_version or API_VERSION, safe='')}"


def _named(model: str) -> str:
    return model if model.startswith(_COLLECTIONS) else f"models/{model}"


def _headers(endpoint: Endpoint) -> dict[str, str]:
    return endpoint.headed(endpoint.keyed("x-goog-api-key"))


# --- the body -------------------------------------------------------------------------------------------------------


def _vectors_body(request: Request, deployment: Deployment) -> dict[str, Any]:
    """A request for each text; what is passed through (`taskType`) belongs to each of them."""
    common: dict[str, Any] = {"model": _named(deployment.model)}
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    common = merged(common, request.params.extra)
    return {"requests": [{"content": _embedded(text), **common} for text in request.inputs]}


def _embedded(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text}]}


def _body(request: Request, deployment: Deployment) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `request`, without what is passed through, and the parameters that could not be put into it."""
    model = deployment.base_model or deployment.model
    dropped: list[str] = []
    system = [message for message in request.messages if message.role == "system"]
    body: dict[str, Any] = {"contents": _contents(request.messages, model, dropped)}
    if system:
        body["systemInstruction"] = {"parts": [part for each in system for part in _parts(each.parts, dropped)]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
        # A schema is a promise only in the modes that constrain the model.
        if any(tool.strict for tool in request.tools) and request.tool_choice in (None, "auto"):
            dropped.append("strict")
    if request.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _tool_choice(request.tool_choice)}
    config = _config(request, model, dropped)
    if config:
        body["generationConfig"] = config
    unknown = {
        "user": request.params.user,
        "parallel_tool_calls": request.params.parallel_tool_calls is False,
        "name": any(message.name for message in request.messages if message.role != "tool"),
        "thoughts": any(thought.redacted for message in request.messages for thought in message.thoughts),
    }
    dropped += [name for name, wanted in unknown.items() if wanted]
    return body, tuple(dict.fromkeys(dropped))


def _config(request: Request, model: str, dropped: list[str]) -> dict[str, Any]:
    values = {field: getattr(request.params, name) for name, field in _FIELDS.items()}
    config = {field: value for field, value in values.items() if value is not None and value != ()}
    if request.response_format is not None:
        config["responseMimeType"] = "application/json"
        if request.response_format.kind == "json_schema":
            config["responseJsonSchema"] = request.response_format.schema
    thinking = _thinking(request.params, model, dropped)
    return config | ({"thinkingConfig": thinking} if thinking else {})


def _thinking(params: Params, model: str, dropped: list[str]) -> dict[str, Any]:
    """How much to think, and that the thoughts be told. A budget and a level together are refused: the budget wins."""
    effort = params.reasoning_effort
    by_budget = _THINKS_BY_BUDGET.search(model) is not None
    known = _BUDGETS if by_budget else _LEVELS
    if effort is not None and (params.reasoning_tokens is not None or effort not in known):
        dropped.append("reasoning_effort")
        effort = None
    if params.reasoning_tokens is not None:
        config: dict[str, Any] = {"thinkingBudget": params.reasoning_tokens}
    elif effort is not None:
        config = {"thinkingBudget": _BUDGETS[effort]} if by_budget else {"thinkingLevel": _LEVELS[effort]}
    else:
        return {}
    return config if config.get("thinkingBudget") == 0 else config | {"includeThoughts": True}


def _tool(tool: Tool) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    if tool.parameters:
        declared["parameters_json_schema"] = tool.parameters  # as Google's own SDK spells it
    return declared


def _tool_choice(choice: str) -> dict[str, Any]:
    return {"mode": _MODES[choice]} if choice in _MODES else {"mode": "ANY", "allowedFunctionNames": [choice]}


# --- the conversation -----------------------------------------------------------------------------------------------


def _contents(messages: Sequence[Message], model: str, dropped: list[str]) -> list[dict[str, Any]]:
    """The turns. The results of one turn's calls are one turn; turns of a user or a model stay as many as they are."""
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    before = ""
    for message in messages:
        if message.role == "system":
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool":
            result = _result(message, names, dropped)
            if before == "tool":
                contents[-1]["parts"].append(result)
            else:
                contents.append({"role": "user", "parts": [result]})
        elif message.role == "assistant":
            contents.append({"role": "model", "parts": _said(message, model, dropped)})
        else:
            contents.append({"role": "user", "parts": _parts(message.parts, dropped)})
        before = message.role
    return contents


def _said(message: Message, model: str, dropped: list[str]) -> list[dict[str, Any]]:
    """The parts of a model's turn: thoughts, text, calls. A seal without a thought closes the text, as it came."""
    thoughts = [_thought(thought) for thought in message.thoughts if thought.text]
    bare = [thought.signature for thought in message.thoughts if thought.signature and not thought.text]
    seals = [{"text": "", "thoughtSignature": seal} for seal in bare]
    spoken = [part for part in message.parts if part != Text("")]
    calls = [_call(call) for call in message.tool_calls]
    if calls and not _THINKS_BY_BUDGET.search(model):
        calls[0].setdefault("thoughtSignature", _UNSIGNED)
    return [*thoughts, *_parts(spoken, dropped), *seals, *calls] or [{"text": ""}]


def _thought(thought: Thought) -> dict[str, Any]:
    seal = {"thoughtSignature": thought.signature} if thought.signature else {}
    return {"text": thought.text, "thought": True} | seal


def _call(call: ToolCall) -> dict[str, Any]:
    args = json_object(call.arguments or "{}")
    made = {"name": call.name, "args": {"arguments": call.arguments} if args is None else args}
    seal = {"thoughtSignature": call.signature} if call.signature else {}
    return {"functionCall": made | ({"id": call.id} if call.id else {})} | seal


def _result(message: Message, names: dict[str, str], dropped: list[str]) -> dict[str, Any]:
    """A tool's result, under the name of the call that it answers; what is no object is wrapped, as the SDK does."""
    said = json_object(message.text)
    if message.is_error:
        said = {"error": message.text if said is None else said}
    result: dict[str, Any] = {
        "name": message.name or names.get(message.tool_call_id) or message.tool_call_id,
        "response": {"result": message.text} if said is None else said,
    }
    if message.tool_call_id:
        result["id"] = message.tool_call_id
    media = [part for part in message.parts if not isinstance(part, Text)]
    if media:
        result["parts"] = _parts(media, dropped)
    return {"functionResponse": result}


def _parts(parts: Sequence[Part], dropped: list[str]) -> list[dict[str, Any]]:
    if any(isinstance(part, Image) and part.detail not in ("", "auto") for part in parts):
        dropped.append("detail")
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"text": text}
        case Document(media_type, data):
            return {"inlineData": {"mimeType": media_type, "data": data}}
        case Image(media_type, data, url):
            if not url:
                return {"inlineData": {"mimeType": media_type, "data": data}}
            # The API fetches it itself: https://ai.google.dev/gemini-api/docs/file-input-methods, "External URLs".
            known = media_type or _MEDIA_TYPES.get(url.partition("?")[0].rpartition(".")[2].lower(), "")
            return {"fileData": {"fileUri": url} | ({"mimeType": known} if known else {})}
