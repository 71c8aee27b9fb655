"""What `llmctl fallback drill` shows: notes before, progress, a table and timelines after; and what files it writes.

The texts are `lab/reports`; here they meet the terminal, and files.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from llmctl.cli.notes import columns
from llmctl.cli.output import print_json, safe, say, table, tell, write
from llmctl.core.errors import OutputFailed
from llmctl.core.money import usd
from llmctl.lab.reports import Played, junit, row_of, summary, tally, timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmctl.lab.drill import Drill
    from llmctl.lab.verdict import Verdict

_COLUMNS = ("scenario", "model", "outcome", "served_by", "attempts", "seconds", "path")


def _to_person() -> bool:
    """Whether a person reads stderr: elsewhere a plain success says nothing there."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell_before(drills: Sequence[Drill], estimated: int | None, unpriced: Sequence[str], *, quiet: bool) -> None:
    """Say what it may cost and, to a person, how fast time runs."""
    if quiet:
        return
    if any(each.live for each in drills):
        unknown = f"unknown: no price for {', '.join(unpriced)}"
        say(f"cost: {unknown if estimated is None else f'about ${estimated / 1e9:.6f} at most'}")
    for speed in dict.fromkeys(each.speed for each in drills if each.speed != 1 and _to_person()):
        say(f"time runs {speed:g} times faster; --speed 1 is real time")


class Course:
    """How far it has come: what was played, and on a person's terminal a line that says so."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total = total
        self.played: list[Played] = []
        self._draws = not quiet and _to_person() and os.environ.get("TERM") != "dumb"

    @property
    def done(self) -> int:
        """How many scenarios have ended."""
        return sum(len(each.verdicts) for each in self.played)

    def begin(self, name: str, drill: Drill) -> None:
        """Another drill begins."""
        self.played.append(Played(name, drill, []))

    def add(self, verdict: Verdict) -> None:
        """A scenario has ended."""
        self.played[-1].verdicts.append(verdict)
        if self._draws:
            line = f"{self.done} of {self.total}  {safe(verdict.rehearsal.scenario.id)}"
            tell(f"\r\x1b[2K{line[: columns() - 1]}")

    def erase(self) -> None:
        """Take the line away."""
        if self._draws:
            tell("\r\x1b[2K")


# ---------------------------------------------------------------- what is shown


def show(
    played: Sequence[Played], estimated: int | None, left_out: Sequence[str], *, as_json: bool, verbose: bool
) -> None:
    """Everything on stdout: one document, or a table, why what failed did, timelines, and how many passed."""
    verdicts = [verdict for each in played for verdict in each.verdicts]
    if as_json:
        speeds = {each.drill.speed for each in played}
        passed = sum(verdict.ok for verdict in verdicts)
        print_json(
            {
                "scenarios": [verdict.as_json() for verdict in verdicts],
                "passed": passed,
                "failed": len(verdicts) - passed,
                "speed": speeds.pop() if len(speeds) == 1 else None,
                "estimated_cost_usd": usd(estimated),
                "left_out": list(left_out),
            }
        )
        return
    rows = [row_of(verdict) for verdict in verdicts]
    columns = [name for name in _COLUMNS if name != "model" or len({row["model"] for row in rows}) > 1]
    table(columns, rows, right=("attempts", "seconds"), keep=columns[:-2], spare=("served_by", "model"), wrap=("path",))
    told = [verdict for verdict in verdicts if verbose or not verdict.ok or len(verdicts) == 1]
    lines = [line for verdict in told for line in _told(verdict)]
    write(safe("\n".join([*lines, "", tally(verdicts)])) + "\n")
    for line in left_out:
        say(line)


def _told(verdict: Verdict) -> list[str]:
    """What failed and why, and the timeline."""
    failed = [f"  {each.name}: {' '.join(each.detail.split())}" for each in verdict.assertions if not each.ok]
    heading = f"{'pass' if verdict.ok else 'FAIL'} {verdict.rehearsal.scenario.id} ({verdict.rehearsal.chain.name})"
    return ["", heading, *failed, *timeline(verdict.rehearsal)]


# ---------------------------------------------------------------- what is written


class Report:
    """The JUnit file: opened, and emptied, before anything is paid for, so that no older one outlives a stopped run."""

    def __init__(self, path: str | None) -> None:
        """Raises OutputFailed when there can be no such file."""
        self._path = path
        self._file = -1
        if path is not None:
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            except (OSError, ValueError) as error:
                raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputFailed:
        return OutputFailed(f"--junit {self._path}: {getattr(error, 'strerror', None) or error}", hint="check the path")

    def write(self, played: Sequence[Played], environ: Mapping[str, str], *, quiet: bool) -> None:
        """Write the file, and the summary of a job on GitHub, whose trouble is no failure. Raises OutputFailed."""
        where = environ.get("GITHUB_STEP_SUMMARY")
        if where:
            try:
                with open(where, "a", encoding="utf-8", errors="replace") as file:
                    file.write(summary(played))
            except OSError as error:
                if not quiet:
                    say(f"warning: GITHUB_STEP_SUMMARY {where}: {error.strerror}")
        if self._path is not None:
            try:
                with open(self._file, "wb") as file:
                    file.write(junit(played))
            except OSError as error:
                raise self._failed(error) from error
