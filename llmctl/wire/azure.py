"""Azure OpenAI: OpenAI's bodies under Azure's addresses and headers.

Two forms. An address that ends in `/openai/v1` takes the model in the body, like OpenAI itself, with a bearer token.
Any other is a resource: the deployment stands in the path, the version in the query, and the key in `api-key`, unless
it is a token of Entra (`auth = "bearer"`).
https://learn.microsoft.com/azure/ai-services/openai/reference and .../api-version-lifecycle, read 2026-11-20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from llmctl.wire import openai_chat
from llmctl.wire.base import Encoded, HttpRequest
from llmctl.wire.openai_errors import classify
from llmctl.wire.openai_reading import decoder
from llmctl.wire.values import dump

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.types import Request
    from llmctl.wire.base import Endpoint

__all__ = ["classify", "decoder", "encode", "listing"]

API_VERSION = "2024-10-21"
"""The newest version that is generally available under deployment paths."""
_V1 = "/openai/v1"
_V1_VERSIONS = ("v1", "preview")


def encode(request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
    """The HTTP request for `request`, and the parameters that could not be put into it."""
    body, dropped = openai_chat.body_of(request, deployment)
    operation = "/embeddings" if request.inputs else "/chat/completions"
    path = operation if _is_v1(endpoint) else f"/openai/deployments/{quote(deployment.model, safe='')}{operation}"
    return Encoded(HttpRequest("POST", _url(endpoint, path), _headers(endpoint), dump(body)), dropped)


def listing(deployment: Deployment, endpoint: Endpoint) -> HttpRequest:  # noqa: ARG001 - a wire's signature
    """The request that lists the models of the resource."""
    path = "/models" if _is_v1(endpoint) else "/openai/models"
    return HttpRequest("GET", _url(endpoint, path), _headers(endpoint), b"")


def _is_v1(endpoint: Endpoint) -> bool:
    return endpoint.api_base.rstrip("/").endswith(_V1)


def _url(endpoint: Endpoint, path: str) -> str:
    base, version = endpoint.api_base.rstrip("/"), endpoint.api_version
    if _is_v1(endpoint):
        return base + path + (f"?api-version={version}" if version in _V1_VERSIONS else "")
    return f"{base.removesuffix('/openai')}{path}?api-version={quote(version or API_VERSION, safe='')}"


def _headers(endpoint: Endpoint) -> dict[str, str]:
    return endpoint.headed(endpoint.authorization if _is_v1(endpoint) else endpoint.keyed("api-key"))
