"""What a drill tells others, as text: the path of a call, its timeline, a JUnit file, a table for a job's summary.

Everything is pure. Names, errors and answers are hostile input: here they lose what could break out of a line, of XML
or of Markdown; who writes to a terminal makes them safe for one too (`cli/output.safe`).
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmctl.core.record import Attempt
    from llmctl.lab.drill import Drill
    from llmctl.lab.rehearsal import Rehearsal, Told
    from llmctl.lab.verdict import Verdict
    from llmctl.run.faults import Sent

MOST_ROWS = 200
"""Rows of a summary: 1 MiB is the most that GitHub takes from a step, else it shows nothing at all
(docs.github.com/actions/reference/workflow-commands-for-github-actions, 2026-11-20)."""

# What XML 1.0 has no place for (section 2.2: C0 controls, U+FFFE, U+FFFF), and what it advises against or drives
# terminals and the order of words: DEL, C1, bidirectional controls. Carriage returns would end a line too.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# As entities they are text and no structure, in tables too (spec.commonmark.org/0.31.2, 2.5).
_MARKDOWN = {ord(char): f"&#{ord(char)};" for char in "&<>|`[]*_~\\!"}


class Played(NamedTuple):
    """A drill and what came of it; `name` is the one that it is saved under, else ""."""

    name: str
    drill: Drill
    verdicts: list[Verdict]


def path_of(rehearsal: Rehearsal) -> str:
    """Who was asked in turn and what came: `fast-1 503 x3 > cheap-1 ok`; the calls of a scenario are parted by `; `."""
    paths = [_path(told) or "nobody" for told in rehearsal.calls]
    runs = [(path, len(list(same))) for path, same in groupby(paths)]
    return "; ".join(path if n == 1 else f"{n} times ({path})" for path, n in runs)


def _path(told: Told) -> str:
    asked = [f"{attempt.deployment} {_outcome(attempt)}" for attempt in told.attempts]
    runs = [(each, len(list(same))) for each, same in groupby(asked)]
    return " > ".join(each if n == 1 else f"{each} x{n}" for each, n in runs)


def _outcome(attempt: Attempt) -> str:
    """The status that was refused with, else the class of the error, or `ok`."""
    return str(attempt.status) if attempt.outcome != "ok" and (attempt.status or 0) >= 400 else attempt.outcome


def timeline(rehearsal: Rehearsal) -> list[str]:
    """A line for each attempt and each wait, with its second since the scenario began; and how each call ended."""
    lines = []
    for n, told in enumerate(rehearsal.calls, 1):
        if len(rehearsal.calls) > 1:
            lines.append(_line(told.at_s, f"call {n}"))
        lines += [_line(at_s, what) for at_s, what in sorted(_steps(told), key=lambda step: step[0])]
    return lines


def _steps(told: Told) -> Iterator[tuple[float, str]]:
    for pause in told.pauses:
        yield told.at_s + pause.at_s, f"wait {pause.wait_s:.2f} s  {_flat(pause.why)}"
    ended = told.at_s
    for attempt, sent in zip(told.attempts, told.sent, strict=True):
        began = told.at_s + attempt.started_at - told.record.started_at
        ended = max(ended, began + (attempt.latency_ms or 0.0) / 1000)
        yield began, _attempt(attempt, sent)
    record, error = told.record, told.error
    if record.state == "ok":
        end = f"served by {record.deployment} ({record.served_by})"
    else:
        end = f"{error.kind}: {_flat(error.message)}" if error else f"{record.state}: ended by {record.finish_reason}"
    yield max(ended, told.at_s + (record.latency_ms or 0.0) / 1000), f"{end}, exit {record.exit_code or 0}"


def _attempt(attempt: Attempt, sent: Sent | None) -> str:
    whom = f"{attempt.deployment} ({attempt.provider}/{attempt.model})"
    status = f"{attempt.status} " if attempt.status and attempt.outcome != "ok" else ""
    took = "" if attempt.latency_ms is None else f"  {attempt.latency_ms:.0f} ms"
    if sent and sent.fault:
        said = f"  injected: {sent.fault._replace(times=None)}"
    else:
        said = f"  {_flat(attempt.error)}" if attempt.error else ""
    return f"attempt {attempt.n}  {whom}  {status}{attempt.outcome}{took}{said}"


def _line(at_s: float, what: str) -> str:
    return f"{at_s:8.2f} s  {what}"


def _flat(text: str, most: int = 300) -> str:
    """`text` on one line, which is not endless."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def clean(text: str) -> str:
    """`text` with nothing that XML 1.0 forbids or that drives a terminal; lone surrogates become U+FFFD."""
    return _SURROGATE.sub("\ufffd", _UNFIT.sub("", text))


def junit(played: Sequence[Played]) -> bytes:
    """The JUnit file: a testsuite for each drill, a testcase for each scenario; times are seconds of the drill's clock.

    It is what the common readers agree on (github.com/testmoapp/junitxml, 2026-11-20): there is no standard.
    """
    from xml.etree import ElementTree as ET

    root = ET.Element("testsuites")
    for each in played:
        suite = ET.SubElement(root, "testsuite", _counts(each.verdicts, each.name or each.drill.model))
        properties = ET.SubElement(suite, "properties")
        mode = "live" if each.drill.live else "offline"
        for name, value in (("mode", mode), ("speed", f"{each.drill.speed:g}"), ("seed", str(each.drill.seed))):
            ET.SubElement(properties, "property", {"name": name, "value": value})
        for verdict in each.verdicts:
            rehearsal = verdict.rehearsal
            names = {"classname": rehearsal.chain.name, "name": rehearsal.scenario.id}
            about = {key: clean(value) for key, value in names.items()} | {"time": f"{rehearsal.elapsed_s:.3f}"}
            case = ET.SubElement(suite, "testcase", about)
            if not verdict.ok:
                why = clean(_flat(verdict.why))
                failure = ET.SubElement(case, "failure", {"message": why, "type": "drill"})
                failure.text = clean("\n".join([*verdict.why.split("\n"), *timeline(rehearsal)]))
    root.attrib.update(_counts([verdict for each in played for verdict in each.verdicts], "llmctl fallback drill"))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _counts(verdicts: Sequence[Verdict], name: str) -> dict[str, str]:
    failed = sum(not verdict.ok for verdict in verdicts)
    time_s = sum(verdict.rehearsal.elapsed_s for verdict in verdicts)
    numbers = {"tests": len(verdicts), "failures": failed, "errors": 0, "skipped": 0}
    return {"name": clean(name), **{key: str(n) for key, n in numbers.items()}, "time": f"{time_s:.3f}"}


def summary(played: Sequence[Played]) -> str:
    """A Markdown table of the scenarios, the failed ones first and at most `MOST_ROWS`, as GitHub shows it."""
    verdicts = sorted((verdict for each in played for verdict in each.verdicts), key=lambda verdict: verdict.ok)
    lines = [
        f"### Fallback drill: {tally(verdicts)}",
        "",
        "| scenario | model | outcome | served by | attempts | seconds | what happened |",
        "|---|---|---|---|--:|--:|---|",
    ]
    for verdict in verdicts[:MOST_ROWS]:
        cells = row_of(verdict)
        happened = cells.pop("path") if verdict.ok else f"{verdict.why} ({cells.pop('path')})"
        shown = [*(_markdown(cell, 100) for cell in cells.values()), _markdown(happened, 300)]
        lines.append(f"| {' | '.join(shown)} |")
    if len(verdicts) > MOST_ROWS:
        lines += ["", f"and {len(verdicts) - MOST_ROWS} more"]
    return "\n".join(lines) + "\n\n"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many passed and how many failed, in words."""
    passed = sum(verdict.ok for verdict in verdicts)
    return f"{passed} passed, {len(verdicts) - passed} failed"


def row_of(verdict: Verdict) -> dict[str, str]:
    """A scenario as one row of a table."""
    rehearsal = verdict.rehearsal
    return {
        "scenario": rehearsal.scenario.id,
        "model": rehearsal.chain.name,
        "outcome": "pass" if verdict.ok else "FAIL",
        "served_by": verdict.served_by or "-",
        "attempts": str(sum(len(told.attempts) for told in rehearsal.calls)),
        "seconds": f"{rehearsal.elapsed_s:.2f}",
        "path": path_of(rehearsal) or "-",
    }


def _markdown(text: str, most: int) -> str:
    return clean(_flat(text, most)).translate(_MARKDOWN)
