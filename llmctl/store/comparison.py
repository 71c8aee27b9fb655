"""How each model has done, from the attempts of the ledger: speed, errors and what was really paid, side by side.

Drills, answers of the cache and the probes of `models check` (one of which must fail) say nothing of a model: they are
left out. A reader: it never creates or changes the file. Prices and windows are none of the ledger's.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmctl.core.money import usd
from llmctl.core.sketch import percentile
from llmctl.store.history import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ATTEMPTS = """
SELECT a.provider || '/' || a.model, a.provider, a.call_id, a.outcome, a.started_at, a.first_token_ms, a.latency_ms,
       a.input_tokens, a.output_tokens, a.cost_nanousd
FROM calls AS c JOIN attempts AS a ON a.call_id = c.id
WHERE c.drill = 0 AND c.state <> 'cached' AND c.command <> 'models check' AND c.started_at >= ?
"""
_LEAST_SPOKEN_MS = 20.0
"""An answer that came in less after its first token came in one piece: how fast it was made, nobody saw."""


@dataclass(slots=True)
class Record:
    """What is known of one `provider/model`. `calls` are those that asked it, `errors` attempts by error class.

    `paid_nanousd` is the cost of all its attempts with a known price, failed ones too; `priced_ok` and `priced_output`
    are the answers and output tokens that were had for it.
    """

    model: str
    provider: str = ""
    calls: int = 0
    attempts: int = 0
    ok: int = 0
    cancelled: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    priced: int = 0
    unpriced: int = 0
    paid_nanousd: int = 0
    priced_ok: int = 0
    priced_output: int = 0
    last_used: float | None = None
    first_token_ms: array[float] = field(default_factory=lambda: array("d"))
    latency_ms: array[float] = field(default_factory=lambda: array("d"))
    tokens_per_s: array[float] = field(default_factory=lambda: array("d"))
    _last_call: str = ""

    def add(self, row: Sequence[Any]) -> None:
        """Count one attempt: a row of the query. Those of one call come one after the other."""
        _, self.provider, call, outcome, started_at, first_ms, latency_ms, read, spoken, cost = row
        self.attempts += 1
        self.calls += call != self._last_call
        self._last_call = call
        self.last_used = max(started_at, self.last_used or started_at)
        self.input_tokens += read or 0
        self.output_tokens += spoken or 0
        if cost is not None:
            self.priced += 1
            self.paid_nanousd += cost
            self.priced_output += spoken or 0
        elif read is not None:
            self.unpriced += 1
        if outcome == "Cancelled":
            self.cancelled += 1
        elif outcome != "ok":
            self.errors[outcome] = self.errors.get(outcome, 0) + 1
        else:
            self._answered(first_ms, latency_ms, spoken or 0, priced=cost is not None)

    def _answered(self, first_ms: float | None, latency_ms: float | None, spoken: int, *, priced: bool) -> None:
        self.ok += 1
        self.priced_ok += priced
        if latency_ms is None:
            return
        self.latency_ms.append(latency_ms)
        if first_ms is None:
            return
        self.first_token_ms.append(first_ms)
        if spoken and latency_ms - first_ms >= _LEAST_SPOKEN_MS:
            self.tokens_per_s.append(spoken / (latency_ms - first_ms) * 1000)

    def as_json(self) -> dict[str, Any]:
        """The record as `models compare --json` shows it. What was cancelled was no error of the model's."""
        judged = self.attempts - self.cancelled
        per_output = self.paid_nanousd / self.priced_output / 1000 if self.priced_output else None
        return {
            "model": self.model,
            "provider": self.provider or self.model.partition("/")[0],
            "calls": self.calls,
            "attempts": self.attempts,
            "ok": self.ok,
            "cancelled": self.cancelled,
            "errors": dict(sorted(self.errors.items())),
            "error_rate": sum(self.errors.values()) / judged if judged else None,
            "first_token_p50_ms": percentile(self.first_token_ms, 50, 1),
            "first_token_p95_ms": percentile(self.first_token_ms, 95, 1),
            "tokens_per_second_p50": percentile(self.tokens_per_s, 50, 1),
            "latency_p50_ms": percentile(self.latency_ms, 50, 1),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": usd(self.paid_nanousd) if self.priced or not self.unpriced else None,
            "cost_per_call_usd": usd(round(self.paid_nanousd / self.priced_ok)) if self.priced_ok else None,
            "cost_per_million_output_usd": per_output,
            "unpriced_attempts": self.unpriced,
            "last_used": self.last_used,
        }


def records(path: Path | str, since: float = 0.0) -> dict[str, Record]:
    """What the calls begun since then say of each model that was asked, by `provider/model`.

    A file that is not there has none. Raises LedgerUnusable.
    """
    found: dict[str, Record] = {}
    with opened(os.fspath(path)) as connection:
        for row in connection.execute(_ATTEMPTS, (since,)) if connection is not None else ():
            record = found.get(row[0])
            if record is None:
                record = found[row[0]] = Record(row[0])
            record.add(row)
    return found
