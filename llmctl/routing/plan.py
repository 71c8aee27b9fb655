"""What one call may use: the chain of links, with whatever cannot be asked left out and the reason kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.catalog import MAX_LINKS
from llmctl.core.errors import ContextExceeded, LlmctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.catalog import Catalog, Deployment, Group
    from llmctl.core.types import Params

    Obstacle = Callable[[Deployment], LlmctlError | None]


class Link(NamedTuple):
    """One link of a chain: a group, and those of its deployments that can be asked."""

    group: Group
    deployments: tuple[Deployment, ...]


class LeftOut(NamedTuple):
    """A deployment that cannot be asked, and why."""

    deployment: Deployment
    reason: LlmctlError


@dataclass(frozen=True, slots=True)
class Plan:
    """The links of one call, in order; never empty."""

    name: str
    links: tuple[Link, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def own(self) -> tuple[Deployment, ...]:
        """What is asked first, and answered for by the cache: never its fallbacks, which stand in for it only now."""
        return self.links[0].deployments

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """All that can be asked, in the order of the chain."""
        return tuple(deployment for link in self.links for deployment in link.deployments)

    def link_of(self, deployment: Deployment) -> int:
        """The position of the link that holds `deployment`."""
        return next(i for i, link in enumerate(self.links) if deployment in link.deployments)

    def link(self, deployment: Deployment) -> Link:
        """The link that holds `deployment`."""
        return self.links[self.link_of(deployment)]

    def ruled_out_with(self, target: Deployment, onward: str) -> set[str]:
        """The ids that need not be asked when `target` has failed, itself among them; `onward` as in the matrix."""
        if onward == "other_credential":
            return {d.id for d in self.deployments if credential_key(d) == credential_key(target)}
        if onward == "fitting_window":
            return {d.id for d in self.deployments if not _larger_window(d, target)}
        return {target.id}


def credential_key(deployment: Deployment) -> str:
    """What tells two credentials apart without reading them: the provider and the reference to its key."""
    return f"{deployment.provider.name}:{deployment.api_key or deployment.provider.api_key}"


def _larger_window(other: Deployment, than: Deployment) -> bool:
    """Whether `other` may take a prompt that `than` refused; an unknown window may."""
    if other.id == than.id:
        return False
    if other.context_window is None:
        return True
    return than.context_window is None or other.context_window > than.context_window


def make_plan(catalog: Catalog, name: str, *, fallbacks: Sequence[str] | None, obstacle: Obstacle) -> Plan:
    """The plan for asking `name`; `fallbacks` replaces the group's own chain, and an empty one removes it.

    `obstacle` says why a deployment cannot be asked at all (no credential, say), or None. Raises the primary's obstacle
    when nothing at all can be asked (of a prompt too long for it, the one of the largest window), and UsageError for a
    chain that `chain_of` refuses.
    """
    links: list[Link] = []
    left_out: list[LeftOut] = []
    for group in chain_of(catalog, name, fallbacks):
        reasons = [(deployment, obstacle(deployment)) for deployment in group.deployments]
        left_out += [LeftOut(deployment, reason) for deployment, reason in reasons if reason is not None]
        able = tuple(deployment for deployment, reason in reasons if reason is None)
        if able:
            links.append(Link(group, able))
    if not links:
        raise _first_obstacle(left_out)
    return Plan(name, tuple(links), tuple(left_out))


def _first_obstacle(left_out: Sequence[LeftOut]) -> LlmctlError:
    """The primary's obstacle; where the prompt is too long for it, that of the largest window there is."""
    if not isinstance(left_out[0].reason, ContextExceeded):
        return left_out[0].reason
    windows = [out for out in left_out if isinstance(out.reason, ContextExceeded)]
    largest = max(windows, key=lambda out: out.deployment.context_window or 0).reason
    largest.hint = f"{'it is the largest of the chain: ' if len(windows) > 1 else ''}{largest.hint}"
    return largest


def chain_of(catalog: Catalog, name: str, fallbacks: Sequence[str] | None) -> list[Group]:
    """The groups of the chain. A link that is a bare model is asked with the parameters of the group it stands in for.

    Raises UsageError for an unknown name, a repeated link or id, the embedded model as a link, or too long a chain.
    """
    group = catalog.resolve(name)
    names = group.fallbacks if fallbacks is None else tuple(fallbacks)
    if len(names) >= MAX_LINKS:
        raise UsageError(f"a chain of {len(names) + 1} links", hint=f"a chain has at most {MAX_LINKS} links")
    others = [catalog.resolve(each) for each in names]
    params = group.deployments[0].params
    others = [other if other.name in catalog.groups else _with_params(other, params) for other in others]
    for other in others:
        if any(deployment.is_local and not deployment.allow_toy for deployment in other.deployments):
            raise UsageError(
                f"{other.name!r} is the small embedded model, which is no fallback",
                hint="an outage must not end in nonsense: use a self-hosted model, or set allow_toy = true on a group",
            )
    repeated = _repeated([each.name for each in (group, *others)])
    if repeated is not None:
        raise UsageError(f"the chain names {repeated!r} twice", hint="name each link once")
    repeated = _repeated([deployment.id for each in (group, *others) for deployment in each.deployments])
    if repeated is not None:
        raise UsageError(f"two deployments of the chain have the id {repeated!r}", hint="give one of them another id")
    return [group, *others]


def _with_params(group: Group, params: Params) -> Group:
    return replace(group, deployments=tuple(replace(deployment, params=params) for deployment in group.deployments))


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)
