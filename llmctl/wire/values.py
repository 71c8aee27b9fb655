"""JSON that nobody vouches for: reading it without falling over, and writing what we send.

Whatever a provider sends, the readers here give a value of the wanted type or its absence; none of them raises.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.types import well_formed

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST_COUNT = 1 << 53
_SNIPPET = 200
_LINE = 1000


def loads(data: bytes) -> Any:
    """The JSON document in `data`, or None: nesting bombs, numbers of a million digits and bad UTF-8 included."""
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that `text` is as JSON, None for anything else, or what cannot be sent on as it is.

    That is NaN, a nesting bomb, a lone surrogate.
    """
    try:
        found = json.loads(text.encode())
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def dump(body: Mapping[str, Any]) -> bytes:
    """`body` as compact JSON in ASCII, so that a lone surrogate in a user's text is still valid. Raises UsageError."""
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        hint = "check the parameters, the tools and the schema"
        raise UsageError(f"the request cannot be written as JSON: {error}", hint=hint) from error


def merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with `extra` over it, objects within objects too: how provider-specific fields are passed through."""
    out = dict(body)
    for key, value in extra.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def as_json(value: Any) -> str:
    """`value`, which came out of JSON, as JSON again; "" where it is nested too deep to be written."""
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def obj(value: Any) -> dict[str, Any]:
    """The object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def string(value: Any) -> str:
    """The string, as UTF-8 can hold it; "" for anything else."""
    return well_formed(value) if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """A token count that can be believed: a whole number, 0 or more, below 2**53."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_COUNT else None


def one_line(said: Any) -> str:
    """What an error says, as one line of at most 1,000 characters."""
    if not isinstance(said, str):
        said = "" if said is None else as_json(said)
    return " ".join(well_formed(said[: 4 * _LINE]).split())[:_LINE]


def snippet(data: bytes) -> str:
    """The beginning of `data`, quoted, for a message."""
    return repr(" ".join(data[:_SNIPPET].decode("utf-8", "replace").split()))


def plain(body: bytes) -> str:
    """A short readable remainder of a body that is not JSON: an HTML page without its tags."""
    said = re.sub(
        r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", " ", body[:4000].decode("utf-8", "replace"), flags=re.DOTALL
    )
    return " ".join(said.split())[:200]
