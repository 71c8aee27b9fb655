"""The keys of a cached answer: a hard scope of all that can change it, and the last user text inside that scope.

A key is the SHA-256 of canonical JSON, so two requests have one key if and only if their canonical forms are equal.
What cannot change an answer (streaming, deadlines, tags, whose credential pays) is not in it; whatever is not known to
be harmless is. The rules about what may be kept are in `caching`, where it is kept is in `store/cache`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.types import Image, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Message, Part, Request

VERSION = 1
"""Of the keys and of the rules for texts (`canonical`, `screen`): whoever changes one raises it, so that nothing older
is answered from, and `cache why` does not take a changed rule for damage."""
_HEX = frozenset("0123456789abcdef")
_OF_A_DEPLOYMENT = ("api_version", "base_model", "max_output", "capabilities", "reasoning")


class Key(NamedTuple):
    """Where an answer is: SHA-256 digests of the scope, of the exact request and, where it has one, of the canonical.

    `canonical` is None where the text may not be compared but exactly.
    """

    scope: bytes
    exact: bytes
    canonical: bytes | None = None


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, 1.0 as 1, escaped beyond ASCII.

    Tuples are lists. Raises ValueError for what JSON has no word for: NaN, infinities, objects, keys that are no text.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value  # NaN and infinity are for `dumps` to refuse
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key that is no text")
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    raise ValueError(f"{type(value).__name__} is no JSON")


def digest(value: Any) -> bytes:
    """The SHA-256 of the canonical JSON of `value`. Raises ValueError."""
    return sha256(canonical_json(value).encode("ascii")).digest()


def content_hash(content: str | bytes) -> str:
    """The SHA-256 of a document's content, in hexadecimal: of its text, or of its bytes without a byte order mark."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return sha256(data.removeprefix(b"\xef\xbb\xbf")).hexdigest()


def document_hash(document: str) -> str:
    """The hash of a document given as its content, or as its hash already."""
    return document if len(document) == 64 and set(document) <= _HEX else content_hash(document)


def question_of(request: Request) -> tuple[str, ...]:
    """The last user text, one for each text part of the last message; none where that is not the user's."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user":
        return ()
    return tuple(part.text for part in last.parts if isinstance(part, Text))


def scope_of(
    request: Request,
    deployment: Deployment,
    address: str,
    headers: Mapping[str, str],
    documents: Sequence[str] = (),
    namespace: str = "",
    *,
    strict: bool = False,
) -> bytes:
    """The scope of asking `deployment` at `address`: everything but the last user text.

    `request` has the deployment's parameters already, `headers` are the user's own, `documents` are content hashes in
    any order. `strict` is whether a parameter that cannot be taken is refused: what was answered without it answers
    no such call. Raises ValueError for a request that no JSON can say.
    """
    provider, question = deployment.provider, bool(question_of(request))
    turns = [_turn(message) for message in request.messages]
    if question:
        turns[-1]["parts"] = [None if isinstance(p, Text) else _part(p) for p in request.messages[-1].parts]
    return digest({
        "version": VERSION,
        "namespace": namespace,
        "provider": provider.name,
        "protocol": provider.protocol,
        "dialect": provider.dialect,
        "model": deployment.model,
        "address": address,
        "headers": headers,
        **{name: getattr(deployment, name) for name in _OF_A_DEPLOYMENT},
        "messages": turns,
        "params": _values(request.params),
        "tools": [_values(tool) for tool in request.tools],
        "tool_choice": request.tool_choice,
        "response_format": request.response_format and _values(request.response_format),
        "documents": sorted(set(documents)),
        "strict": strict,
        "dimensions": request.dimensions,
    })  # fmt: skip


def key_of(scope: bytes, question: Sequence[str], canonical: str | None = None) -> Key:
    """The key of `question` inside `scope`; `canonical` is its canonical text, where it has one."""
    inside = scope.hex()
    return Key(scope, digest([inside, *question]), None if canonical is None else digest([inside, {"like": canonical}]))


def vector_key(scope: bytes, text: str) -> bytes:
    """The key of the vector of `text` inside the scope of a request to embed, which has all but the texts."""
    return sha256(scope + text.encode("utf-8", "surrogatepass")).digest()


def _turn(message: Message) -> dict[str, Any]:
    """A message without its mark for the provider's own cache, which changes no answer."""
    turn = {name: value for name, value in _values(message).items() if name != "cache"}
    return {
        **turn,
        "parts": [_part(part) for part in message.parts],
        "tool_calls": [_values(call) for call in message.tool_calls],
        "thoughts": [_values(thought) for thought in message.thoughts],
    }


def _part(part: Part) -> dict[str, Any]:
    """A part of a message; what is attached by the hash of its data."""
    values = _values(part)
    if "data" in values:
        values["data"] = content_hash(values["data"])
    return {"kind": "image" if isinstance(part, Image) else "text" if isinstance(part, Text) else "document", **values}


def _values(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in fields(item)}
