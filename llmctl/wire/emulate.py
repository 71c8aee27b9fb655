"""The shape of an answer, asked of a model that has no native structured output: a tool that it must call.

Pure, and above the wires: what needs it is turned into a request with one more tool before it is encoded, and a
`Reading` turns that tool's call back into text. A wire always writes the native form.
Which models lack it is data: `json_schema`, `json_object` and `forced_tools` of a provider's dialect, and the
`capabilities` of a deployment.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmctl.core.types import Event, Fold, Tool, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Request, ResponseFormat

_DESCRIPTION = "Give your whole answer by calling this tool, once, and write nothing beside it."
_KEY = "value"
_WRAPPED = re.compile(r'\s*\{\s*"value"\s*:\s*')

# What the native form of Anthropic's models refuses: "JSON Schema limitations" of
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs (read 2026-11-20).
_NARROW = {"anthropic", "bedrock"}
_TOO_WIDE = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "oneOf", "not", "if", "contains",
    "prefixItems", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "$dynamicRef",
}  # fmt: skip
_KINDS = {"type", "enum", "const", "anyOf", "allOf", "$ref"}


def needed(request: Request, deployment: Deployment) -> bool:
    """Whether the shape that `request` wants must be asked of `deployment` through a tool."""
    wanted = request.response_format
    if wanted is None:
        return False
    dialect = deployment.provider.dialect
    if wanted.kind == "json":
        return not _has(dialect.get("json_object", deployment.provider.protocol not in _NARROW), deployment)
    if deployment.capabilities and "schema" not in deployment.capabilities:
        return True
    narrow = deployment.provider.protocol in _NARROW and not _is_narrow(wanted.schema)
    # Who speaks Anthropic's protocol, is not Claude and not said to know its structured output, knows it least of all.
    said, name = dialect.get("json_schema"), deployment.base_model or deployment.model
    foreign = deployment.provider.protocol == "anthropic" and "claude" not in name and said is not True
    return foreign or narrow or not _has(True if said is None else said, deployment)


def emulated(request: Request, deployment: Deployment) -> Request:
    """`request` with the tool instead of the shape, to be called unless the caller's own choice says otherwise."""
    wanted = request.response_format
    assert wanted is not None, "there is a shape to emulate"
    answer = Tool(_name(request), _DESCRIPTION, _parameters(wanted))
    return replace(
        request,
        tools=(*request.tools, answer),
        tool_choice=_choice(request, answer.name, deployment),
        response_format=None,
    )


class Reading:
    """The answer to an emulated request, event for event: what was said and called is held until the answer ends.

    Then the tool's arguments are the text, and what was said beside them is left out; a model that answered in text
    instead has its text. Calls of other tools stay what they are.
    """

    def __init__(self, request: Request) -> None:
        """`request` is the one with the shape, not the emulated one."""
        wanted = request.response_format
        assert wanted is not None, "there is a shape to read"
        self._name = _name(request)
        self._wraps = not _is_object(wanted)
        self._held = Fold()

    def read(self, event: Event, *, last: bool = False) -> Event:
        """What `event` is to the caller; with the finish, or the `last` event, all that was held."""
        self._held.add(Event(text=event.text, tool_calls=event.tool_calls))
        event = replace(event, text="", tool_calls=())
        return self._released(event) if last or event.finish_reason else event

    def _released(self, event: Event) -> Event:
        held, self._held = self._held.completion(), Fold()
        answers = [call.arguments for call in held.tool_calls if call.name == self._name]
        others = [call for call in held.tool_calls if call.name != self._name]
        finish = event.finish_reason
        if finish == "tool_calls" and answers and not others:
            finish = "stop"
        calls = (ToolCallDelta(n, c.id, c.name, c.arguments, c.signature) for n, c in enumerate(others))
        text = self._unwrapped(answers[0]) if answers else held.text
        return replace(event, text=text, tool_calls=tuple(calls), finish_reason=finish)

    def _unwrapped(self, arguments: str) -> str:
        """The JSON text of the value in the wrapper, as it was written; what is not wrapped stays as it is."""
        begun = _WRAPPED.match(arguments) if self._wraps else None
        if begun is None:
            return arguments
        try:
            _, end = json.JSONDecoder().raw_decode(arguments, begun.end())
        except (ValueError, RecursionError):
            return arguments
        return arguments[begun.end() : end] if arguments[end:].strip() == "}" else arguments


def _has(said: Any, deployment: Deployment) -> bool:
    """What a dialect says of a model: yes, no, or what the names that lack it begin with (or go on with after a dot).

    After a dot, because Bedrock puts a region and a vendor before the model: us.anthropic.claude-3-haiku.
    """
    if isinstance(said, bool):
        return said
    name = deployment.base_model or deployment.model
    pieces = name.split(".")
    return not any(".".join(pieces[n:]).startswith(tuple(said)) for n in range(len(pieces)))


def _choice(request: Request, name: str, deployment: Deployment) -> str:
    """Forced where that is possible; a model that thinks, or that cannot be forced, is asked in words alone."""
    params, said = request.params, request.tool_choice
    thinks = deployment.reasoning or params.reasoning_tokens or params.reasoning_effort not in (None, "none")
    if said not in (None, "none") and request.tools:
        return str(said)
    if thinks or not _has(deployment.provider.dialect.get("forced_tools", True), deployment):
        return "auto"
    return "required" if request.tools and said is None else name


def _name(request: Request) -> str:
    """The tool's name: that of the shape, with underscores until no other tool has it."""
    assert request.response_format is not None, "there is a shape"
    name = request.response_format.name
    while any(tool.name == name for tool in request.tools):
        name += "_"
    return name


def _is_object(wanted: ResponseFormat) -> bool:
    """Whether the shape can be a tool's parameters as it is: providers take an object there, and nothing beside."""
    schema = wanted.schema
    if wanted.kind == "json" or schema is None:
        return True
    return schema.get("type") == "object" and not schema.keys() & {"anyOf", "oneOf", "allOf", "$ref", "enum", "const"}


def _parameters(wanted: ResponseFormat) -> dict[str, Any]:
    if _is_object(wanted):
        return dict(wanted.schema) if wanted.schema is not None else {"type": "object"}
    value = _moved(wanted.schema, f"#/properties/{_KEY}")
    return {"type": "object", "properties": {_KEY: value}, "required": [_KEY], "additionalProperties": False}


def _moved(schema: Any, root: str) -> Any:
    """`schema` with its references to its own root pointing to where that is now (not under an `$id` of its own)."""
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    if not isinstance(schema, dict) or "$id" in schema:
        return schema
    moved = {key: _moved(value, root) for key, value in schema.items()}
    ref = schema.get("$ref")
    if isinstance(ref, str) and (ref == "#" or ref.startswith("#/")):
        moved["$ref"] = root + ref[1:]
    return moved


def _is_narrow(schema: Any) -> bool:
    """Whether the native form takes the schema: each part says what it is, objects are closed, and none recurs."""
    stack = [schema]
    while stack:
        each = stack.pop()
        if not isinstance(each, dict) or each.keys() & _TOO_WIDE or not each.keys() & _KINDS:
            return False
        is_object = "object" in each.get("type", ()) or "properties" in each
        if is_object and each.get("additionalProperties", True) is not False:
            return False
        ref = each.get("$ref")
        if ref is not None and not str(ref).startswith(("#/$defs/", "#/definitions/")):
            return False
        named = (each.get(key) for key in ("properties", "$defs", "definitions"))
        stack += [value for group in named if isinstance(group, dict) for value in group.values()]
        stack += [part for key in ("anyOf", "allOf") for part in each.get(key, ())]
        stack += [each["items"]] if "items" in each else []
    return not _recurs(schema)


def _recurs(schema: Mapping[str, Any]) -> bool:
    """Whether a definition leads back to itself."""
    leads = {
        f"#/{key}/{name}": set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(each)))
        for key in ("$defs", "definitions")
        for name, each in schema.get(key, {}).items()
    }
    while leads:
        free = {name for name, to in leads.items() if not to & leads.keys()}
        if not free:
            return True
        leads = {name: to for name, to in leads.items() if name not in free}
    return False
