"""What a simulation is fed with: the requests of a trace file or of the ledger's past, and the speeds measured there.

A trace is CSV with the header `t,in_tokens,out_tokens`, or JSON lines with these keys: seconds, and whole tokens. Its
beginning is its first instant. Both sources are hostile input: what cannot be a request is refused with its line.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from llmctl.core.errors import UsageError
from llmctl.lab.providers import Speed
from llmctl.routing.health import PREFILL_TOKENS_PER_S, PRIOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llmctl.core.catalog import Deployment

KEYS = ("t", "in_tokens", "out_tokens")
MOST_ROWS, MOST_S = 1_000_000, 1e8
_MOST = (1e12, 1e9, 1e9)
_LONGEST_LINE = 1 << 16
_HINT = f"a trace is CSV with the header {','.join(KEYS)}, or JSON lines with these keys, ordered by t (seconds)"
_LEAST_S = (0.01, 1e-5)
_NOT_SENT = ("cached", "refused")


@dataclass(frozen=True, slots=True)
class Row:
    """One request: seconds since the beginning, and what it really took."""

    at: float
    input_tokens: int
    output_tokens: int


def read_trace(path: Path | str) -> list[Row]:
    """The requests of a trace file. Raises UsageError that names the file and the line."""
    rows: list[Row] = []
    first = last = 0.0
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            for where, values in _records(file, path):
                at, prompt, output = (_number(where, *each) for each in zip(KEYS, values, _MOST, strict=True))
                if prompt % 1 or output % 1:
                    raise UsageError(f"{where}: tokens are whole numbers", hint=_HINT)
                first = first if rows else at
                if rows and at < last:
                    raise UsageError(f"{where}: t {at:g} comes after t {last:g}", hint="sort the trace by t")
                if len(rows) == MOST_ROWS or at - first > MOST_S:
                    most = f"{MOST_ROWS} requests within {MOST_S:g} s"
                    raise UsageError(f"{where}: a trace has at most {most}", hint="replay a part of it")
                rows.append(Row(at - first, int(prompt), int(output)))
                last = at
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint=_HINT) from error
    if not rows:
        raise UsageError(f"{path}: no request is in it", hint=_HINT)
    return rows


def past(calls: Iterable[Mapping[str, Any]]) -> tuple[list[Row], int]:
    """The requests of ledger rows that asked a provider, in order, and of how many the tokens had to be guessed.

    A call without an answer was a request all the same: what was not counted is taken to be the median of the others.
    Raises UsageError when there are none, or none whose tokens were counted.
    """
    asked = [call for call in calls if call["state"] not in _NOT_SENT and not call["drill"]]
    asked.sort(key=lambda call: call["started_at"])
    typical = [median([call[name] for call in asked if call[name] is not None] or [0]) for name in _LEDGER]
    if not any(call["input_tokens"] for call in asked):
        raise UsageError("the ledger has no such call whose tokens were counted", hint="--since goes further back")
    rows = []
    for call in asked:
        tokens = [
            int(usual if call[name] is None else call[name]) for name, usual in zip(_LEDGER, typical, strict=True)
        ]
        rows.append(Row(max(0.0, call["started_at"] - asked[0]["started_at"]), *tokens))
    return rows, sum(1 for call in asked if None in (call["input_tokens"], call["output_tokens"]))


_LEDGER = ("input_tokens", "output_tokens")


def denser(rows: Sequence[Row], times: float) -> list[Row]:
    """The same requests with gaps that many times shorter."""
    return [Row(row.at / times, row.input_tokens, row.output_tokens) for row in rows]


def speeds_of(
    deployments: Iterable[Deployment], measured: Mapping[str, Sequence[float]], calls: Iterable[Mapping[str, Any]]
) -> dict[str, Speed]:
    """How fast each is: as `measured` (by id, from the shared state), as its answers in the ledger, or assumed."""
    samples: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for attempt in (attempt for call in calls for attempt in call["attempts"]):
        if attempt["outcome"] == "ok" and attempt["latency_ms"] and attempt["first_token_ms"] is not None:
            key = (attempt["deployment"], attempt["provider"], attempt["model"])
            samples.setdefault(key, []).append(_sample(attempt))
    speeds = {}
    for each in deployments:
        known = samples.get((each.id, each.provider.name, each.model))
        if each.id in measured:
            first, pace, *_ = measured[each.id]
            speeds[each.id] = Speed(first, pace, "state")
        elif known:
            first, pace = (
                max(least, median(part)) for least, part in zip(_LEAST_S, zip(*known, strict=True), strict=True)
            )
            speeds[each.id] = Speed(first, pace, "ledger")
        else:
            speeds[each.id] = Speed(*PRIOR)
    return speeds


def _sample(attempt: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to the first token, less the reading of the prompt, and for each token of an answer."""
    first_s = attempt["first_token_ms"] / 1000
    making_s = attempt["latency_ms"] / 1000 - first_s
    return first_s - (attempt["input_tokens"] or 0) / PREFILL_TOKENS_PER_S, making_s / max(
        1, attempt["output_tokens"] or 1
    )


def _records(file: TextIO, path: Path | str) -> Iterator[tuple[str, list[Any]]]:
    """(where it stands, its three values) of every record."""
    lines = _lines(file, path)
    opening = next(lines, None)
    if opening is None:
        return
    if opening.lstrip().startswith("{"):
        yield f"{path}:1", _fields(opening, f"{path}:1")
        for n, line in enumerate(lines, 2):
            if line.strip():
                yield f"{path}:{n}", _fields(line, f"{path}:{n}")
        return
    header = [name.strip() for name in next(csv.reader([opening]), [])]
    missing = [key for key in KEYS if key not in header]
    if missing:
        raise UsageError(f"{path}:1: the header has no {', '.join(missing)}", hint=_HINT)
    places = [header.index(key) for key in KEYS]
    reader = csv.reader(lines)
    try:
        for fields in reader:
            where = f"{path}:{reader.line_num + 1}"
            if fields and max(places) >= len(fields):
                raise UsageError(f"{where}: a column is missing", hint=_HINT)
            if fields:
                yield where, [fields[place] for place in places]
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num + 1}: {error}", hint=_HINT) from error


def _lines(file: TextIO, path: Path | str) -> Iterator[str]:
    n = 0
    while line := file.readline(_LONGEST_LINE):
        n += 1
        if len(line) == _LONGEST_LINE:
            raise UsageError(f"{path}:{n}: no request has so long a line", hint=_HINT)
        yield line


def _fields(line: str, where: str) -> list[Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: this is not JSON", hint=_HINT) from error
    missing = [key for key in KEYS if not isinstance(document, dict) or key not in document]
    if missing:
        raise UsageError(f"{where}: it has no {', '.join(missing)}", hint=_HINT)
    return [document[key] for key in KEYS]


def _number(where: str, name: str, value: Any, most: float) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not isfinite(number) or not 0 <= number <= most:
        raise UsageError(f"{where}: {name} {str(value)[:40]!r} is not a number from 0 to {most:g}", hint=_HINT)
    return number
