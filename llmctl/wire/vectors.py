"""Embeddings: the checks that vectors of every protocol pass, and the reading of OpenAI-shaped ones."""

from __future__ import annotations

import base64
import binascii
from array import array
from math import isfinite
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse
from llmctl.core.types import Event, Usage
from llmctl.wire import openai_errors
from llmctl.wire.values import count, obj, objects, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def read(inputs: int, document: Any) -> Iterator[Event]:
    """The one event of an OpenAI-shaped embeddings body, for a request with so many `inputs`. Raises ProviderError."""
    rows = objects(obj(document).get("data"))
    found = None if rows else openai_errors.error_object(document)
    if found is not None:
        raise openai_errors.in_answer(found)
    document = obj(document)
    said = obj(document.get("usage"))
    tokens = count(said.get("prompt_tokens", said.get("total_tokens")))
    usage = None if tokens is None else Usage(tokens)
    yield event([row.get("embedding") for row in _ordered(rows)], inputs, usage, string(document.get("model")))


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in the order of the inputs. Raises BadResponse for numbers that are neither an order nor absent."""
    numbers = [count(row.get("index")) or 0 for row in rows]
    if not any(numbers):  # some servers number nothing
        return rows
    if sorted(numbers) != list(range(len(rows))):
        raise BadResponse("the vectors are not numbered as the inputs are", status=200)
    return [row for _, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0])]


def event(raw: Sequence[Any], inputs: int, usage: Usage | None, model: str = "") -> Event:
    """The event that holds the vectors. Raises BadResponse unless there is one for each input, all finite, one size."""
    vectors = tuple(_vector(each) for each in raw)
    if len(vectors) != inputs:
        raise BadResponse(f"{len(vectors)} vectors came for {inputs} inputs", status=200)
    if len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        raise BadResponse("the vectors are empty, or of several sizes", status=200)
    return Event(vectors=vectors, usage=usage, finish_reason="stop", reported_model=model)


def _vector(raw: Any) -> array[float]:
    """32-bit floats of a list of numbers, or of their little-endian bytes in base64, as OpenAI sends either."""
    vector = array("f")
    try:
        if isinstance(raw, str):
            vector.frombytes(base64.b64decode(raw, validate=True))
            if _BIG_ENDIAN:
                vector.byteswap()
        elif isinstance(raw, list):
            vector.extend(raw)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise BadResponse("a vector is no list of numbers", status=200) from error
    if not all(map(isfinite, vector)):
        raise BadResponse("a vector holds a number that is not finite", status=200)
    return vector


_BIG_ENDIAN = array("H", [1]).tobytes() == b"\0\1"
