"""Who may embed: a group of deployments of one model that has vectors. What cannot work is refused beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.support import supports
from llmctl.routing.plan import make_plan

if TYPE_CHECKING:
    from llmctl.core.catalog import Catalog, Deployment, Group
    from llmctl.routing.plan import Obstacle, Plan

GROUP = "embed"
"""The model group that embeds when no model is named; a chat model is no default for vectors."""
_ABLE = (
    "ask one that has: openai/text-embedding-3-small, gemini/gemini-embedding-001, mistral/mistral-embed, ollama/..."
)


def group_of(catalog: Catalog, name: str, dimensions: int | None) -> Group:
    """The group called `name`: of one model, that has vectors. Raises UsageError."""
    if name == GROUP and GROUP not in catalog.groups:
        raise UsageError(
            "no model was named to embed with",
            hint=f"name one, such as text-embedding-3-small or gemini-embedding-001, or configure [models.{GROUP}]",
        )
    group = catalog.resolve(name)
    for each in group.deployments:
        _must_embed(each, dimensions)
    models = {each.base_model or each.model for each in group.deployments}
    if len(models) > 1:
        raise UsageError(
            f"the deployments of {name!r} are of several models: {', '.join(sorted(models))}",
            hint="vectors of two models cannot be compared: name one, or say with base_model that they are the same",
        )
    return group


def plan_of(catalog: Catalog, name: str, obstacle: Obstacle, *, anyway: bool) -> tuple[Plan, LlmctlError | None]:
    """The plan of one link, and why nobody in it can be asked: that is raised, unless the cache may do `anyway`."""
    try:
        return make_plan(catalog, name, fallbacks=(), obstacle=obstacle), None
    except LlmctlError as error:
        if not anyway:
            raise
        return make_plan(catalog, name, fallbacks=(), obstacle=lambda _: None), error


def _must_embed(deployment: Deployment, dimensions: int | None) -> None:
    """Raises UsageError where it is known beforehand that `deployment` cannot give such vectors."""
    provider = deployment.provider
    if supports(provider)["embeddings"] is False:
        raise UsageError(f"{deployment.served_by}: {provider.title or provider.name} has no embeddings", hint=_ABLE)
    if dimensions is not None and "dimensions" in provider.dialect.get("drop", ()):
        raise UsageError(
            f"{deployment.served_by}: its vectors cannot be cut to {dimensions} numbers", hint="leave dimensions out"
        )
