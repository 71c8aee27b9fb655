"""Whether a JSON Schema can be used, and whether an answer meets it. Only a call with a schema loads jsonschema.

The schema is the user's and the answer is the model's: both may be hostile, so whatever the library makes of them ends
in one of our errors. Nothing is ever fetched: a `$ref` leads into the schema itself, or to a published meta-schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import isinf
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import AnswerRejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Completion, Request, ResponseFormat

MAX_MATCHED = 10_000
"""The longest text that a `pattern` is tried on: the time of some expressions grows with a power of the length."""
_FENCED = re.compile(r"\s*```[\w+-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)
_MOST_ERRORS = 50
_MOST_SAID = 200
_HINT = "ask again, or ask a model that keeps to the schema"


@dataclass(frozen=True, slots=True)
class Conformed:
    """An answer that meets its schema: the JSON text as the model wrote it, and the document in it."""

    text: str
    document: Any


def check_schema(schema: Any) -> Mapping[str, Any]:
    """`schema`, if answers can be checked against it. Raises UsageError naming what is wrong with it."""
    if not isinstance(schema, Mapping):
        raise UsageError(f"the schema is {type(schema).__name__}, not an object", hint='such as {"type": "object"}')
    try:
        schema = json.loads(json.dumps(dict(schema), allow_nan=False))  # a copy of its own, and nothing but JSON
        _draft(schema).check_schema(schema)
        _check_references(schema)
        next(_checker(schema).iter_errors(None), None)  # a reference that leads to itself recurs at once
    except UsageError:
        raise
    except RecursionError:
        raise UsageError("the schema is nested too deeply, or refers to itself", hint="make it simpler") from None
    except Exception as error:  # the wall of a library that is given anything at all
        where = getattr(error, "json_path", "")
        said = _short(getattr(error, "message", "") or str(error))
        what = f"the schema is not valid{f' at {_short(where)}' if where else ''}: {said}"
        raise UsageError(what, hint="see https://json-schema.org/understanding-json-schema") from error
    return dict(schema)


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a provider that holds answers to closed schemas takes this one: all properties required, none beside.

    https://platform.openai.com/docs/guides/structured-outputs "Supported schemas" (read 2026-11-20).
    """
    stack: list[Any] = [schema]
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            stack += each
        if not isinstance(each, dict):
            continue
        if each.keys() & {"allOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas", "patternProperties"}:
            return False
        properties = each.get("properties")
        if properties is not None or "object" in each.get("type", ()):
            required, properties = each.get("required", ()), properties or {}
            if each.get("additionalProperties") is not False or set(required) != set(properties):
                return False
        for group in (properties, each.get("$defs"), each.get("definitions")):
            stack += list(group.values()) if isinstance(group, dict) else []
        stack += [each[key] for key in ("items", "anyOf", "prefixItems") if key in each]
    return schema.get("type") == "object" and "anyOf" not in schema


def conformed(text: str, schema: Mapping[str, Any] | None) -> Conformed:
    """The answer in `text`, bare or in one Markdown fence, if it is JSON and meets `schema`. Raises AnswerRejected."""
    fenced = _FENCED.fullmatch(text)
    bare = fenced[1] if fenced else text
    try:
        document = json.loads(bare, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise AnswerRejected("the answer is JSON that is nested too deeply", hint=_HINT) from None
    except ValueError as error:
        what = "the answer is not JSON" + (f" ({_short(str(error))})" if text.strip() else ": it is empty")
        raise AnswerRejected(what, hint=_HINT) from error
    if schema:
        _check(document, schema)
    return Conformed(bare, document)


def judged(completion: Completion, wanted: ResponseFormat, deployment: Deployment) -> Conformed:
    """The whole answer of a deployment, if it has the shape that was wanted. Raises AnswerRejected."""
    try:
        if not completion.text:
            _must_answer(completion)
        return conformed(completion.text, {"type": "object"} if wanted.kind == "json" else wanted.schema)
    except AnswerRejected as error:
        error.message = f"{deployment.served_by}: {error.message}"
        error.provider, error.model = deployment.provider.name, deployment.model
        error.partial_text = completion.text or completion.refusal
        raise


def shaped(made: Completion, request: Request, deployment: Deployment) -> Conformed | None:
    """The answer that had to have a shape, if it is whole and has it. Raises AnswerRejected when it has not.

    Where tools were offered a call is none: also one that ended by "stop", as OpenAI ends those of a tool that the
    choice named (github.com/vllm-project/vllm/pull/25054, read 2026-11-20).
    """
    if request.response_format is None or made.finish_reason not in ("stop", "tool_calls"):
        return None
    if request.tools and (made.finish_reason == "tool_calls" or (made.tool_calls and not made.text)):
        return None
    return judged(made, request.response_format, deployment)


def _must_answer(completion: Completion) -> None:
    if completion.refusal:
        raise AnswerRejected(f"the model refused: {_short(completion.refusal)}", hint="rephrase the prompt")
    if completion.tool_calls:
        raise AnswerRejected(
            f"the model called {_short(completion.tool_calls[0].name)!r} instead of answering", hint=_HINT
        )


def _check(document: Any, schema: Mapping[str, Any]) -> None:
    try:
        from jsonschema.exceptions import best_match

        found = list(islice(_checker(schema).iter_errors(document), _MOST_ERRORS))
        worst = best_match(found)
    except RecursionError:
        raise AnswerRejected("the answer is nested too deeply to be checked", hint=_HINT) from None
    except Exception as error:  # the wall of a library that is given anything at all
        raise AnswerRejected(f"the answer cannot be checked: {_short(str(error))}", hint=_HINT) from error
    if worst is not None:
        others = f"{'at least ' if len(found) == _MOST_ERRORS else ''}{len(found) - 1}"
        more = f" (and {others} more)" if len(found) > 1 else ""
        what = f"the answer does not meet the schema at {_short(worst.json_path)}: {_short(worst.message)}{more}"
        raise AnswerRejected(what, hint=_HINT)


def _draft(schema: Mapping[str, Any]) -> Any:
    """The validator class of the draft that `$schema` names; 2020-12 where it names none. Raises UsageError."""
    library = _library()
    # Draft 7 and older are at http, which many write as https.
    said = re.sub(r"^https://(json-schema\.org/draft-0\d)", r"http://\1", str(schema.get("$schema", "")))
    found = library.validator_for({"$schema": said}, default=None) if said else library.Draft202012Validator
    if found is None:
        hint = 'such as "https://json-schema.org/draft/2020-12/schema"'
        raise UsageError(f"the schema's $schema is {_short(said)!r}, which is no known draft", hint=hint)
    return found


def _checker(schema: Mapping[str, Any]) -> Any:
    """A validator that fetches nothing, and tries no pattern on an endless text."""
    return _library().extend(_draft(schema), {"pattern": _pattern})(schema, registry=_published())


def _library() -> Any:
    from jsonschema import validators

    return validators


def _published() -> Any:
    """The meta-schemas of all drafts, which came with the library: all that a reference outside may lead to."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    return REGISTRY


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, str):
        return
    if len(instance) > MAX_MATCHED:
        yield ValidationError(f"a text of {len(instance)} characters is too long for the pattern {pattern!r}")
    elif not re.search(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _check_references(schema: Mapping[str, Any]) -> None:
    """Follow every reference once. Raises UsageError for one that leads nowhere, or to something that is no schema."""
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    draft = _draft(schema)
    root = specification_with(draft.META_SCHEMA["$schema"]).create_resource(schema)
    stack = [(_published().resolver_with_root(root), root)]
    while stack:
        resolver, part = stack.pop()
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            ref = part.contents.get(key) if isinstance(part.contents, dict) else None
            if not isinstance(ref, str):
                continue
            try:
                found = resolver.lookup(ref).contents
            except Unresolvable as error:
                hint = "put what it refers to under $defs: nothing is fetched"
                raise UsageError(f"the schema's {key} {_short(ref)!r} leads nowhere", hint=hint) from error
            draft.check_schema(found)
        stack += [(resolver.in_subresource(each), each) for each in part.subresources()]


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{_short(digits)} is too large a number")
    return number


def _short(said: str) -> str:
    """What is said, as one line of at most 200 characters."""
    line = " ".join(said[: 4 * _MOST_SAID].split())
    return line if len(line) <= _MOST_SAID else line[: _MOST_SAID - 1] + "…"
