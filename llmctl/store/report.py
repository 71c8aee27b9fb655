"""The cost report: what calls cost and how they went, grouped, over a span of time, to the nano-dollar.

Whole days and quarters of an hour come from the rollups, the rest from the rows, all in one read transaction, so that
a million calls are as quick as a thousand. A question about two labels (tags, the session) is answered from the rows
alone. A reader: it changes nothing, but for rolling up what an older llmctl left when that is much.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmctl.core import days
from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.core.money import usd
from llmctl.core.sketch import percentile, quantile
from llmctl.store.db import uri
from llmctl.store.history import opened
from llmctl.store.reading import COLUMNS, COUNTS, TIMES, Group, Reading, is_label
from llmctl.store.rollup import catch_up_alone
from llmctl.store.schema import STEPS

if TYPE_CHECKING:
    from pathlib import Path

_LEAST_LEFT = 2_000
_CATCH_UP_S = 2.0
_SHOWN = {name: name for name in COUNTS if not name.endswith("_nanousd") and name not in ("cached", "priced_calls")}
_SHOWN["cache_hits"] = "cached"
_AMOUNTS = ("fallback_cost", "saved_by_cache", "saved_by_routing", "wasted")
_PERCENTILES = {"p50_ms": (0, 50), "p95_ms": (0, 95), "first_token_p50_ms": (1, 50), "first_token_p95_ms": (1, 95)}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: `by` are day, week, month, model, provider, group, deployment, session and tag:KEY, in any mix.

    From `since` to before `until` (Unix seconds; None: from the first call, until now); `model` as typed or as served;
    with all `tags`. `exact` percentiles are read from every row, others are within 5 %.
    """

    by: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    zone: str = days.LOCAL
    model: str | None = None
    session: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    drills: bool = False
    exact: bool = False

    @property
    def filters(self) -> list[tuple[str, str]]:
        """The labels that a call must have."""
        return [(f"tag:{key}", value) for key, value in self.tags] + [("session", self.session or "")] * (
            self.session is not None
        )

    @property
    def labels(self) -> list[str]:
        """All labels that it is about."""
        names = [*(name for name, _ in self.filters), *(name for name in self.by if is_label(name))]
        return list(dict.fromkeys(names))


class Reports:
    """The reports of one ledger file."""

    def __init__(self, path: Path | str) -> None:
        """Touches nothing."""
        self.path = os.fspath(path)

    def report(self, question: Question, now: float) -> dict[str, Any]:
        """The document of `cost report --json`: rows in order of time, then the dearest first.

        `since` and `until` are ISO 8601, null where nothing was asked for and there is no call. Raises LedgerUnusable
        for a file that cannot be read or is a newer llmctl's, UsageError for a zone or a grouping that nobody knows.
        """
        _check(question)
        groups: dict[tuple[str | None, ...], Group] = {}
        since = question.since
        with opened(self.path) as connection:
            if connection is not None:
                self._prepare(connection)
                connection.execute("BEGIN")
                reading = Reading(connection, question, now)
                groups, since = reading.groups(), reading.begin()
        whole = Group()
        for group in groups.values():
            whole.include(group)
        rows = [
            {"key": {name: each and str(each) for name, each in zip(question.by, key, strict=True)}, **_numbers(group)}
            for key, group in groups.items()
        ]
        until = question.until if question.until is not None or since is None else now
        return {
            "since": _iso(since, question.zone),
            "until": _iso(until, question.zone),
            "zone": question.zone,
            "currency": "USD",
            "total": _numbers(whole),
            "rows": sorted(rows, key=_order),
        }

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Refuse what is not ours to read; roll up what was left in such a number that reading it takes its time."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            hint = "`llmctl ledger check` says more"
            raise LedgerUnusable(f"cannot read the ledger {self.path}: a newer llmctl made it", hint=hint)
        if version == len(STEPS):
            left = "SELECT count(*) FROM (SELECT 1 FROM calls WHERE rolled = 0 AND state <> 'started' LIMIT ?)"
            if connection.execute(left, (_LEAST_LEFT,)).fetchone()[0] == _LEAST_LEFT:
                with suppress(sqlite3.Error):
                    _catch_up(self.path)


def _numbers(group: Group) -> dict[str, Any]:
    """The numbers of one row of the report."""
    held = dict(zip(COUNTS, group.sums, strict=True))
    known = held["priced_calls"] or not held["unpriced_calls"]
    cost = held["cost_nanousd"] if known else None
    row: dict[str, Any] = {shown: held[name] for shown, name in _SHOWN.items()}
    row |= {"cost_usd": usd(cost), "cost_nanousd": cost}
    row |= {f"{name}_usd": usd(held[f"{name}_nanousd"]) for name in _AMOUNTS}
    return row | {name: _percentile(group, *which) for name, which in _PERCENTILES.items()}


def _percentile(group: Group, clock: int, percent: int) -> float | None:
    exact = percentile(group.values[clock], percent, 3)
    told = quantile(group.sketches[clock], percent) if exact is None else exact
    return None if told is None else round(told, 3)


def _check(question: Question) -> None:
    """Raises UsageError."""
    days.zone_info(question.zone)
    for name in question.by:
        if name not in TIMES and name not in COLUMNS and (not is_label(name) or name == "tag:"):
            from difflib import get_close_matches

            known = (*TIMES, *COLUMNS, "session", "tag:KEY")
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean --by {near[0]}?" if near else f"one of: {', '.join(known)}"
            raise UsageError(f"--by {name[:40]!r} is nothing to group by", hint=hint)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """By time, then the dearest first, then by name."""
    key = row["key"]
    times = tuple(key[name] or "" for name in key if name in TIMES)
    return (times, -(row["cost_nanousd"] or 0), tuple((value is None, str(value)) for value in key.values()))


def _iso(instant: float | None, zone: str) -> str | None:
    if instant is None:
        return None
    with suppress(ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(instant, days.zone_info(zone))
        return (moment if moment.tzinfo else moment.astimezone()).isoformat()
    return None


def _catch_up(path: str) -> None:
    """Roll up what was left, for a bounded time, giving way to writers; what is left then is read from the rows."""
    with closing(sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None, timeout=0.2)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        catch_up_alone(connection, until=monotonic() + _CATCH_UP_S)
