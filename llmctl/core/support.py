"""What can be asked of a provider: what its protocol carries, and what the provider table knows besides.

A model may do less. None is not known: nobody wrote it down, and trying costs one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from llmctl.core.catalog import LOCAL_PROVIDER
from llmctl.core.errors import ContextExceeded, InvalidRequest
from llmctl.core.types import Document, Image

if TYPE_CHECKING:
    from collections.abc import Collection

    from llmctl.core.catalog import Deployment, Provider
    from llmctl.core.types import Request

Support = dict[str, bool | str | None]

Capability = Literal[
    "text", "stream", "tools", "schema", "images", "documents", "embeddings", "reasoning", "prompt_cache",
]  # fmt: skip
FEATURES: tuple[str, ...] = get_args(Capability)
"""The keys of every answer. `schema` is "native" or "emulated", `prompt_cache` "automatic" or "marker"."""

_OF_MODELS = {"tools", "images", "documents", "embeddings", "reasoning"}

_OPENAI: Support = {"text": True, "stream": True, "tools": True, "schema": "native"}
_PROTOCOLS: dict[str, Support] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "anthropic": _OPENAI
    | {"images": True, "documents": True, "embeddings": False, "reasoning": True, "prompt_cache": "marker"},
    "gemini": _OPENAI
    | {"images": True, "documents": True, "embeddings": True, "reasoning": True, "prompt_cache": "automatic"},
    "bedrock": _OPENAI
    | {"images": True, "documents": True, "embeddings": True, "reasoning": True, "prompt_cache": "marker"},
}
_OVER = 1.1
"""How far above a window an estimate must be before it is believed: the provider counts otherwise than we estimate."""
_EMBEDDED: Support = {name: name in ("text", "stream") for name in FEATURES} | {"schema": "native"}


def supports(provider: Provider, capabilities: Collection[str] = ()) -> Support:
    """What `provider` supports, by the name of the feature; no more than `capabilities` where those are listed."""
    if provider.name == LOCAL_PROVIDER:
        return dict(_EMBEDDED)
    dialect = provider.dialect
    found = dict.fromkeys(FEATURES, None) | _PROTOCOLS.get(provider.protocol, {})
    found |= {key: dialect[key] for key in ("embeddings", "prompt_cache") if key in dialect}
    if dialect.get("json_schema") is False:
        found["schema"] = "emulated"
    found |= dict.fromkeys(dialect.get("has", ()), True) | dict.fromkeys(dialect.get("lacks", ()), False)
    if capabilities:
        found |= dict.fromkeys(_OF_MODELS - set(capabilities), False)
        found["schema"] = found["schema"] if "schema" in capabilities else "emulated"
    return found


def lacking(request: Request, deployment: Deployment) -> InvalidRequest | None:
    """Why `deployment` is known not to take what `request` holds, None when it may."""
    parts = {type(part) for message in request.messages for part in message.parts}
    needs = {"images": Image in parts, "documents": Document in parts, "tools": bool(request.tools)}
    known = supports(deployment.provider, deployment.capabilities)
    lacks = [name for name, needed in needs.items() if needed and known[name] is False]
    if not lacks:
        return None
    return InvalidRequest(
        f"{deployment.served_by} takes no {' and no '.join(lacks)}",
        hint="ask another model: `llmctl models list --providers` says what each provider supports",
    )


def too_long(prompt_tokens: int, deployment: Deployment) -> ContextExceeded | None:
    """Why a prompt of about so many tokens does not fit the window of `deployment`; None when it may."""
    window = deployment.context_window
    if window is None or prompt_tokens <= window * _OVER:
        return None
    return ContextExceeded(
        f"{deployment.served_by}: its window of {window:,} tokens is too small for about {prompt_tokens:,}"
    )
