"""What is set up on this machine, and what keeps it from working: a table of checks, none of which asks anybody.

Each check looks at one thing of the `Machine` and finds something; whatever is broken is a finding and never an error.
Nothing is changed but the mode of a key file that others could read. Those who are asked are in `lab/reach`.
"""

from __future__ import annotations

import platform
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmctl._version import __version__
from llmctl.config.files import sources
from llmctl.config.keys import Keys
from llmctl.config.load import assembled, fresh, packaged
from llmctl.config.pending import pending
from llmctl.core.catalog import LOCAL_PROVIDER
from llmctl.core.errors import ConfigInvalid, LlmctlError
from llmctl.lab import files, pins
from llmctl.lab.files import UNUSABLE, Finding
from llmctl.run import extras
from llmctl.run.endpoint import Endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmctl.config.places import Places
    from llmctl.core.catalog import Catalog, Deployment, Group

_OLD_PRICES_DAYS = 60
_MOST = 6
_WHEN = {"ledger": "which it was last", "table": "which it was when this llmctl was made"}
_PYTHONS = ((3, 11), (3, 13))


@dataclass
class Machine:
    """What is looked at, each part once; `now` and `began` are the wall and the monotonic clock at the beginning."""

    places: Places
    environ: Mapping[str, str]
    now: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)

    @cached_property
    def trouble(self) -> ConfigInvalid | None:
        """Why the configuration cannot be used."""
        return self._loaded[2]

    @property
    def catalog(self) -> Catalog:
        """The catalog in force; the built-in one where the configuration cannot be used."""
        return self._loaded[0]

    @property
    def config(self) -> dict[str, Any]:
        """The validated configuration."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Catalog, dict[str, Any], ConfigInvalid | None]:
        try:
            found = sources(self.places)
            plain, _ = fresh(found)
            return assembled(plain, self.environ, found), plain["config"], None
        except ConfigInvalid as error:
            return assembled({**packaged(), "config": {}}, {}, ()), {}, error

    @cached_property
    def keys(self) -> Keys:
        """The kept keys."""
        return Keys(self.places.keys)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Where calls would go, and with which keys."""
        return Endpoints(self.environ, keys=self.keys)

    @cached_property
    def present(self) -> dict[str, str]:
        """Provider -> where its key is: a variable, `keys`, or a reference of the configuration."""
        providers = self.catalog.providers.values()
        found = ((each.name, self.endpoints.key_place(each, each.api_key).present) for each in providers)
        return {name: place for name, place in found if place}


def examine(machine: Machine) -> Iterator[Finding]:
    """What every check finds, in their order."""
    for name, check in CHECKS.items():
        try:
            yield from check(machine)
        except (OSError, LlmctlError, sqlite3.Error) as error:
            yield Finding(name, "fail", f"cannot be checked: {getattr(error, 'message', error)}")


def _program(machine: Machine) -> Iterator[Finding]:  # noqa: ARG001 - a check's signature
    what = f"llmctl {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    known = _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]
    yield Finding("program", "ok" if known else "warn", what, "" if known else "it is tried on Python 3.11 to 3.13")


def _configuration(machine: Machine) -> Iterator[Finding]:
    error = machine.trouble
    if error is not None:
        yield Finding("configuration", "fail", error.message, error.hint)
    for path in machine.places.config_files:
        what = files.looseness(path)
        if what:
            yield Finding("configuration", "warn", f"{path}: {what}", f"chmod go-w {path}")
    if error is None:
        there = [str(path) for path in machine.places.config_files if path.exists()]
        count = len(machine.config.get("models", {}))
        groups = f", {count} group{'s' * (count != 1)} of its own" if there else ""
        yield Finding("configuration", "ok", (", ".join(there) or "no file: built-in settings") + groups)
        waiting = pending(machine.config)
        if waiting:
            what = f"without effect in this version: {', '.join(waiting)}"
            yield Finding("configuration", "warn", what, "a later release reads them")
        yield from _observers(machine)


def _observers(machine: Machine) -> Iterator[Finding]:
    if machine.catalog.settings.observers.anyone:
        from llmctl.run.telling import troubles

        try:
            found = [(each, "") for each in troubles(machine.catalog.settings.observers, machine.environ)]
        except ConfigInvalid as error:
            found = [(error.message, error.hint)]
        for what, hint in found:
            yield Finding("observers", "warn", what, hint)


def _keys(machine: Machine) -> Iterator[Finding]:
    shown = [f"{name} ({'keys set' if place == 'keys' else place})" for name, place in machine.present.items()]
    if shown:
        yield Finding("keys", "ok", _some(shown))
    else:
        hint = "set a variable such as GROQ_API_KEY, or run `llmctl keys set groq`"
        yield Finding("keys", "warn", "no provider has a key", hint)
    kept = machine.keys.rows()
    for warning in machine.keys.warnings:
        yield Finding(
            "key file", "warn", warning, f"`llmctl keys list` says what is used of {machine.places.keys.name}"
        )
    if kept and not machine.keys.warnings:
        yield Finding("key file", "ok", f"{machine.places.keys}: {len(kept)}, readable by you alone")
    unknown = [name for name in kept if name not in machine.catalog.providers]
    if unknown and machine.trouble is None:
        what = f"keys of unknown providers: {_some(unknown)}"
        yield Finding("key file", "warn", what, f"`llmctl keys rm {unknown[0]}` forgets one")


def _groups(machine: Machine) -> Iterator[Finding]:
    catalog, ready = machine.catalog, []
    for group in catalog.groups.values():
        obstacle = _obstacle(machine, group)
        if obstacle is None:
            ready.append(group.name)
        elif group.deployments and (not group.built_in or group.name == catalog.default_model):
            yield Finding("groups", "warn", f"{group.name} cannot be asked: {obstacle.message}", obstacle.hint)
    if ready:
        yield Finding("groups", "ok", f"can be asked: {', '.join(ready)}")
    else:
        yield Finding("groups", "warn", "no group can be asked", "`llmctl models list` says why not")


def _obstacle(machine: Machine, group: Group) -> LlmctlError | None:
    """Why nothing of the group's chain can be asked; None when something can."""
    first: LlmctlError | None = None
    for link in (group, *(machine.catalog.groups.get(name) for name in group.fallbacks)):
        for deployment in link.deployments if link else ():
            obstacle = _local(machine, deployment) if deployment.is_local else machine.endpoints.obstacle(deployment)
            if obstacle is None:
                return None
            first = first or obstacle
    for name in group.fallbacks:
        if name not in machine.catalog.groups and machine.endpoints.obstacle(machine.catalog.deployment(name)) is None:
            return None
    return first or ConfigInvalid("it has no model")


def _local(machine: Machine, deployment: Deployment) -> LlmctlError | None:
    if not extras.installed(LOCAL_PROVIDER):
        return extras.missing(LOCAL_PROVIDER, "the embedded model")
    from llmctl.run import weights

    try:
        weights.require(deployment.model, machine.places.weights)
    except (ConfigInvalid, KeyError) as error:
        return error if isinstance(error, ConfigInvalid) else ConfigInvalid(f"no embedded model {deployment.model}")
    return None


def _files(machine: Machine) -> Iterator[Finding]:
    yield from files.findings(machine.places, machine.now, machine.began)


def _prices(machine: Machine) -> Iterator[Finding]:
    from datetime import UTC, date, datetime

    from llmctl.config.prices import price_table

    table = price_table(machine.places)
    for warning in table.warnings:
        yield Finding("prices", "warn", warning)
    day = table.table.date
    days = (datetime.fromtimestamp(machine.now, UTC).date() - date.fromisoformat(day)).days
    old = days > _OLD_PRICES_DAYS
    what = f"the price table is of {day}" + (f", {days} days ago" if days > 0 else "")
    yield Finding("prices", "warn" if old else "ok", what, "`llmctl cost prices update` renews it" if old else "")
    if days < -1:
        hint = "set the clock: budgets, caches and limits go by it"
        yield Finding("clock", "warn", f"this machine's clock is before {day}, the day of the price table", hint)


def _extras(machine: Machine) -> Iterator[Finding]:
    there = [name for name in extras.EXTRAS if extras.installed(name)]
    absent = [name for name in extras.EXTRAS if name not in there]
    rest = f"; not installed: {', '.join(absent)}" if absent else ""
    yield Finding("extras", "ok", f"installed: {', '.join(there) or 'none'}{rest}")
    if LOCAL_PROVIDER in there:
        deployment = machine.catalog.groups[LOCAL_PROVIDER].deployments[0]
        trouble = _local(machine, deployment)
        what = f"the weights of {deployment.served_by} are here" if trouble is None else trouble.message
        yield Finding("weights", "ok", what, trouble.hint if trouble else "")


def _pins(machine: Machine) -> Iterator[Finding]:
    found = pins.unpinned(machine.catalog, pins.reported(machine.places.ledger))
    for each in (each for each in found if each.groups):
        what = f"{', '.join(each.groups)}: {each.served_by} has no date: it may become another model"
        pin, when = f"{each.served_by.partition('/')[0]}/{each.version}", _WHEN.get(each.source, "")
        hint = f"to keep it write {pin}, {when}" if each.version else "its provider's list of models has dated names"
        yield Finding("model names", "warn", what, hint)
    used = [f"{each.served_by} ({each.version or 'version unknown'})" for each in found if not each.groups]
    if used:
        yield Finding("model names", "ok", f"asked lately by a name without a date: {_some(used)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


CHECKS: dict[str, Callable[[Machine], Iterator[Finding]]] = {
    "program": _program,
    "configuration": _configuration,
    "keys": _keys,
    "groups": _groups,
    "files": _files,
    "prices": _prices,
    "extras": _extras,
    "model names": _pins,
}
"""The checks, in the order in which they are shown; each gives at least one finding, or none where all is said."""


def exit_code(findings: list[Finding]) -> int:
    """0 when nothing failed, 3 where configuration or ledger cannot be used, else the code of the first failure."""
    codes = [each.exit for each in findings if each.status == "fail"]
    return UNUSABLE if UNUSABLE in codes else next(iter(codes), 0)
