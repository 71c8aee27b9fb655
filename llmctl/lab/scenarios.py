"""Scenarios: what one rehearsal injects, and how the error table says that it must end.

A fault may lie behind others: whoever comes before its link and has none of its own is down, so that the call comes to
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import MATRIX, UsageError
from llmctl.core.faults import DOWN, FAULTS, OK, SMALL_WINDOW, Schedule, injection, schedule
from llmctl.lab.chain import End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llmctl.core.catalog import Deployment, Settings
    from llmctl.core.faults import Fault
    from llmctl.lab.chain import Chain
    from llmctl.lab.rehearsal import Rehearsal
    from llmctl.lab.verdict import Assertion

    Check = Callable[[Rehearsal], Assertion]

NOT_IN_MATRIX = (OK, "down")
"""What makes no difference to a single call, or none that another fault does not make."""
FLAKY_CALLS = 5
DEFAULT = "primary=503"
"""What is injected where nothing is said: the primary is down."""


class Scenario(NamedTuple):
    """One rehearsal: `calls` calls, `every_s` apart, while targets do what `injections` say.

    `injections` are (target as written, schedule). `end` is how the error table says that each call ends, None where
    any whole answer will do. `streamed`: the answer is shown as it is made; else it comes whole. `alone`: without the
    chain's fallbacks. `checks` are further assertions.
    """

    id: str
    injections: tuple[tuple[str, Schedule], ...]
    end: End | None = None
    calls: int = 1
    every_s: float = 0.0
    streamed: bool = False
    alone: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def faults(self) -> list[str]:
        """The injections as they are written."""
        return [f"{target}={schedule}" for target, schedule in self.injections]


def schedules(chain: Chain, scenario: Scenario) -> Mapping[str, Schedule]:
    """The schedule of each deployment, by id: what is injected, and DOWN for who is only in the way of a deeper fault.

    Where several targets mean it, the one that means fewest. Raises UsageError for a target that is not in the chain.
    """
    found: dict[str, Schedule] = {}
    deepest = 1
    for target, what in sorted(scenario.injections, key=lambda each: -len(chain.targets(each[0]))):
        members = chain.targets(target)
        found |= {member.deployment.id: what for member in members}
        deepest = max(deepest, *(member.link for member in members))
    return {member.deployment.id: DOWN for member in chain.members if member.link < deepest} | found


def injected(words: Iterable[str], *, streamed: bool = False) -> Scenario:
    """The scenario of these injections together. Raises UsageError."""
    injections = tuple(injection(word) for word in words)
    names = [target for target, _ in injections]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two faults for {twice!r}", hint="write them as one sequence: 429*1,500*2")
    flaky = any(fault.name == "flaky" for _, what in injections for fault in what.faults)
    name = " ".join(f"{target}={what}" for target, what in injections)
    return Scenario(name, injections, calls=FLAKY_CALLS if flaky else 1, streamed=streamed)


def matrix(chain: Chain, settings: Settings, *, streamed: bool = False) -> list[Scenario]:
    """One scenario for each link and fault, with the end that the error table says."""
    found = []
    for link in range(1, chain.length + 1):
        for name, kind in FAULTS.items():
            if name in NOT_IN_MATRIX:
                continue
            what = schedule(kind.usual or name)
            end = expected(chain, link, what.faults[0], settings, streamed=streamed)
            calls = FLAKY_CALLS if name == "flaky" else 1
            found.append(Scenario(f"{link}={what}", ((str(link), what),), end, calls, streamed=streamed))
    return found


def expected(chain: Chain, link: int, fault: Fault, settings: Settings, *, streamed: bool = False) -> End | None:
    """How a call ends whose `link` has that fault for ever, and the links before it are down.

    None where nobody of the link can be asked, so that it never fires.
    """
    members = chain.of_link(link)
    failed = [member.deployment for member in members]
    if all(member.obstacle for member in members):
        return None
    if fault.name == SMALL_WINDOW:
        return _without(chain, link)
    if fault.name == "flaky":
        after = chain.end_after(failed, fault.kind.becomes)
        # In five calls at once the next link may use up its requests of a minute: then the one after it answers.
        return after._replace(served=frozenset(m.deployment.id for m in chain.able() if m.link >= link))
    failed = [each for each in failed if class_of(fault, each, settings)]
    if not failed:
        return chain.served(link)
    becomes = class_of(fault, failed[0], settings)
    if streamed and fault.kind.number == "events" and fault.number:
        return End(error=becomes, exit=MATRIX["AnswerIncomplete"].exit)
    return chain.end_after(failed, becomes)


def class_of(fault: Fault, target: Deployment, settings: Settings) -> str:
    """The class of errors that `fault` is at this target, "" where it answers all the same."""
    if fault.name != "slow":
        return fault.kind.becomes
    return "TimedOut" if (fault.number or 0.0) >= settings.first_token_of(target) else ""


def _without(chain: Chain, link: int) -> End:
    """How a call ends when that link is left out, and those before it are down."""
    later = [member.link for member in chain.able() if member.link > link]
    if later:
        return chain.served(later[0])
    kind = "Unavailable" if any(member.link < link for member in chain.able()) else "ContextExceeded"
    return End(error=kind, exit=MATRIX[kind].exit)
