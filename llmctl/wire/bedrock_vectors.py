"""Embeddings on Bedrock: InvokeModel passes each maker's own body through, so there is a form for each.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and -embed.html beside it,
https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html, all read 2026-11-20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.errors import UsageError
from llmctl.core.types import Usage
from llmctl.wire import vectors
from llmctl.wire.bedrock_errors import in_document
from llmctl.wire.values import count, merged, obj, string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmctl.core.types import Event, Request

_TOKENS = "x-amzn-bedrock-input-token-count"


def _titan(texts: tuple[str, ...], dimensions: int | None) -> dict[str, Any]:
    return {"inputText": texts[0]} | ({"dimensions": dimensions} if dimensions else {})


def _titan_image(texts: tuple[str, ...], dimensions: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"inputText": texts[0]}
    return body | ({"embeddingConfig": {"outputEmbeddingLength": dimensions}} if dimensions else {})


def _nova(texts: tuple[str, ...], dimensions: int | None) -> dict[str, Any]:
    single: dict[str, Any] = {"embeddingPurpose": "GENERIC_INDEX"}
    if dimensions:
        single["embeddingDimension"] = dimensions
    single["text"] = {"truncationMode": "NONE", "value": texts[0]}
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": single}


def _cohere(texts: tuple[str, ...], dimensions: int | None) -> dict[str, Any]:
    body = {"texts": list(texts), "input_type": "search_document"}
    return body | ({"output_dimension": dimensions} if dimensions else {})


_FORMS: tuple[tuple[str, Callable[[tuple[str, ...], int | None], dict[str, Any]], int, bool], ...] = (
    ("titan-embed-image", _titan_image, 1, True),
    ("titan-embed-text-v1", _titan, 1, False),
    ("titan-embed-g1", _titan, 1, False),
    ("titan-embed", _titan, 1, True),
    ("cohere.embed-v4", _cohere, 96, True),
    ("cohere.embed", _cohere, 96, False),
    ("nova-2-multimodal-embed", _nova, 1, True),
)
"""A part of the model's name, its form, how many inputs one request takes, and whether dimensions can be chosen."""


def body_of(request: Request, model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body, and what was dropped. Raises UsageError for a model of no known form, or too many inputs at once."""
    found = next((form for form in _FORMS if form[0] in model), None)
    if found is None:
        raise UsageError(
            f"how Amazon Bedrock embeds with {model!r} is not known", hint="Titan, Nova and Cohere embedding models are"
        )
    _, form, most, sized = found
    if len(request.inputs) > most:
        raise UsageError(f"{model} embeds at most {most} at once, not {len(request.inputs)}", hint="ask in batches")
    dropped = ("dimensions",) if request.dimensions is not None and not sized else ()
    body = form(request.inputs, None if dropped else request.dimensions)
    return merged(body, request.params.extra), dropped


def read(inputs: int, headers: Mapping[str, str], document: Any) -> Iterator[Event]:
    """The one event of an embeddings body of any form. Raises ProviderError."""
    document = obj(document)
    if "embedding" in document:
        rows: Any = [document["embedding"]]
    elif "embeddings" in document:
        rows = document["embeddings"]
        rows = rows.get("float") if isinstance(rows, dict) else rows
    else:
        raise in_document(document)
    rows = [row.get("embedding") if isinstance(row, dict) else row for row in rows] if isinstance(rows, list) else []
    tokens = count(document.get("inputTextTokenCount"))
    said = headers.get(_TOKENS, "")
    if tokens is None and said.isascii() and said.isdecimal() and len(said) < 16:
        tokens = int(said)
    yield vectors.event(rows, inputs, None if tokens is None else Usage(tokens), string(document.get("model")))
