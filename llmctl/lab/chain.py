"""A chain as it is configured: who is in it, who cannot be asked, whom a drill's target means, where an error leads.

The error table and the plan's own rules say where an error leads, so that what is shown and what is expected of a drill
cannot drift from what `ask` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import CLASSES, MATRIX, LlmctlError, UsageError, exit_of_chain
from llmctl.routing.plan import Link, Plan, chain_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmctl.core.catalog import Catalog, Deployment, Group

    Obstacle = Callable[[Deployment], LlmctlError | None]


class Member(NamedTuple):
    """One deployment of a chain: its link (from 1), and why it cannot be asked, None when it can."""

    link: int
    group: Group
    deployment: Deployment
    obstacle: LlmctlError | None = None


class End(NamedTuple):
    """How a call is expected to end: served by one of these (by id), or in an error with this exit code."""

    served: frozenset[str] = frozenset()
    error: str = ""
    exit: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """All members, in order; `name` is what the user typed."""

    name: str
    members: tuple[Member, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The group of each link."""
        return tuple({member.link: member.group for member in self.members}.values())

    @property
    def plan(self) -> Plan:
        """What can be asked, as one plan; its links are empty where nobody of them can be."""
        able = {n: [m.deployment for m in self.of_link(n) if m.obstacle is None] for n in range(1, self.length + 1)}
        return Plan(self.name, tuple(Link(group, tuple(able[n])) for n, group in enumerate(self.groups, 1)))

    @property
    def length(self) -> int:
        """How many links it has."""
        return self.members[-1].link

    def of_link(self, link: int) -> list[Member]:
        """The members of that link."""
        return [member for member in self.members if member.link == link]

    def able(self) -> list[Member]:
        """Those that can be asked."""
        return [member for member in self.members if member.obstacle is None]

    def is_able(self, link: int) -> bool:
        """Whether anybody of that link can be asked."""
        return any(member.obstacle is None for member in self.of_link(link))

    def targets(self, word: str) -> list[Member]:
        """Whom a target means: `primary`, a link's number, a deployment's id, or `*`. Raises UsageError."""
        if word == "*":
            return list(self.members)
        link = 1 if word == "primary" else int(word) if word.isdecimal() and word.isascii() else 0
        found = [m for m in self.members if m.link == link] or [m for m in self.members if m.deployment.id == word]
        if not found:
            links, ids = range(1, self.length + 1), (m.deployment.id for m in self.members)
            known = ", ".join(["primary", *map(str, links), *ids])
            raise UsageError(f"the chain of {self.name!r} has no target {word[:60]!r}", hint=f"one of {known}, or *")
        return found

    def named(self, word: str) -> list[Member]:
        """Whom the word of an assertion means: a target, `provider/model`, or a link's group. Raises UsageError."""
        found = [m for m in self.members if word in (m.deployment.served_by, m.group.name)]
        return found or self.targets(word)

    def onward(self, failed: Sequence[Deployment], kind: str) -> list[Deployment]:
        """Who may still be asked, in order, when these, who could be, have failed with that class of errors."""
        rule, plan = MATRIX[kind], self.plan
        if rule.onward == "no":
            return []
        if rule.onward == "if_configured" and any(plan.link(d).group.on_content_filter != "fallback" for d in failed):
            return []
        ruled_out = set().union(*(plan.ruled_out_with(each, rule.onward) for each in failed))
        return [each for each in plan.deployments if each.id not in ruled_out]

    def end_after(self, failed: Sequence[Deployment], kind: str) -> End:
        """The end of a call when the links before `failed` are down, and these fail with that class for good.

        Where few tries are left, not all of them are asked, and those that are not rule nobody out: both may be.
        """
        link = min(member.link for member in self.members if member.deployment in failed)
        asked = [member.deployment for member in self.able() if member.deployment in failed]
        all_, *some = (
            [d for d in self.onward(each, kind) if self.link_of(d) >= link and d not in failed]
            for each in (asked, *([each] for each in asked))
        )
        last = self.link_of(all_[0]) if all_ else self.length
        served = frozenset(d.id for each in (all_, *some) for d in each if self.link_of(d) <= last)
        if all_:
            return End(served)
        kinds = ["Unavailable"] * any(self.link_of(each.deployment) < link for each in self.able()) + [kind]
        errors = [CLASSES[each]("") for each in kinds]
        return End(served, kind, exit_of_chain(errors[0], errors[1:]))

    def next_link(self, link: int, kind: str) -> int | End:
        """The link that is asked when all of `link` that can be have failed with that class; else how the call ends."""
        failed = [member.deployment for member in self.of_link(link) if member.obstacle is None]
        later = [n for each in self.onward(failed, kind) if (n := self.link_of(each)) > link]
        return later[0] if later else self.end_after(failed, kind)

    def served(self, link: int) -> End:
        """The end of a call that somebody of that link answers."""
        return End(frozenset(m.deployment.id for m in self.of_link(link) if not m.obstacle))

    def link_of(self, deployment: Deployment) -> int:
        """The number of its link."""
        return next(member.link for member in self.members if member.deployment.id == deployment.id)


def read_chain(catalog: Catalog, name: str, obstacle: Obstacle, fallbacks: Sequence[str] | None = None) -> Chain:
    """The chain of `name`. Raises UsageError as `routing.plan.chain_of` does."""
    groups = enumerate(chain_of(catalog, name, fallbacks), 1)
    return Chain(
        name, tuple(Member(n, group, each, obstacle(each)) for n, group in groups for each in group.deployments)
    )


def weak_points(chain: Chain, credential: Callable[[Deployment], str]) -> list[str]:
    """What keeps its fallbacks from helping, in words: nobody to fall back to, a shared credential, smaller windows.

    `credential` tells one from another, "" where none is sent.
    """
    able = chain.able()
    if len(able) < 2:
        who = f"only {able[0].deployment.id} can be asked" if able else "nobody of this chain can be asked"
        return [f"{who}: there is nothing to fall back to"]
    sharing: dict[tuple[str, str], list[Member]] = {}
    for member in able:
        key = credential(member.deployment)
        if key:
            sharing.setdefault((member.deployment.provider.name, key), []).append(member)
    found = [_shared(each) for each in sharing.values() if len({member.link for member in each}) > 1]
    first, *later = [chain.of_link(n) for n in sorted({member.link for member in able})]
    return [*found, *(said for link in later if (said := _smaller(_window(first), _window(link))))]


def _shared(members: Sequence[Member]) -> str:
    who = " and ".join(f"{member.deployment.id} (link {member.link})" for member in members)
    both = "both" if len(members) == 2 else "all of them"
    return f"{who} share one credential: a refused key or an empty account takes {both} down"


def _window(members: Sequence[Member]) -> Member | None:
    """The one with the largest window of a link, None when one that can be asked does not declare any."""
    able = [member for member in members if member.obstacle is None]
    return None if any(not m.deployment.context_window for m in able) else max(able, key=_declared)


def _declared(member: Member) -> int:
    return member.deployment.context_window or 0


def _smaller(primary: Member | None, other: Member | None) -> str:
    if primary is None or other is None or _declared(other) >= _declared(primary):
        return ""
    return (
        f"{other.deployment.id} (link {other.link}) has a window of {_declared(other):,} tokens, smaller than the "
        f"{_declared(primary):,} of {primary.deployment.id}: a prompt that fits the first may not fit it"
    )


def with_chain(catalog: Catalog, chain: Chain, change: Callable[[Group], Group]) -> Catalog:
    """`catalog` with each link's group changed; a link that was a bare model is a group there."""
    names = [chain.name, *(group.name for group in chain.groups[1:])]
    changed = dict(zip(names, map(change, chain.groups), strict=True))
    changed[chain.name] = replace(changed[chain.name], fallbacks=tuple(names[1:]))
    return replace(catalog, groups={**catalog.groups, **changed})
