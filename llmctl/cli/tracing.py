"""`--trace FILE`: the timeline of one call as a JSON document; docs/observability.md describes it.

It is a hook of the engine. The file is written whole or not at all, 0600, however the call ends. It holds numbers and
reasons, never the prompt, the answer or a provider's words: those are in the ledger, under the same id.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from llmctl.core.errors import UsageError
from llmctl.core.money import usd
from llmctl.routing.call import Fail, Send, Wait
from llmctl.routing.explain import explain
from llmctl.run.observe import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Decided, Recalled, Waiting

if TYPE_CHECKING:
    from llmctl.core.record import Attempt, CallRecord
    from llmctl.routing.plan import Plan
    from llmctl.run.observe import Notice

VERSION = 1
_ROW = (
    *("id", "command", "model", "session", "state", "served_by", "provider", "deployment", "fallback", "cache"),
    *("reported_model", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "tokens_estimated", "price_version", "latency_ms", "first_token_ms", "overhead_ms"),
    *("finish_reason", "error", "exit_code"),
)


class Trace:
    """Keeps what the engine tells of one call; a context, at whose end the file is written if a call was begun."""

    def __init__(self, path: str, strategy: str | None) -> None:
        """`strategy` is the call's own, if it has one. Raises UsageError when there can be no such file."""
        from llmctl.config.files import write_private

        if path == "-":
            raise UsageError("--trace needs a file", hint="stdout holds the answer; name a file: --trace call.json")
        self.failure = ""
        """Why the file could not be written in the end."""
        self._path = Path(path)
        self._write = write_private
        self._strategy = strategy
        self._steps: list[dict[str, Any]] = []
        self._failed: dict[str, str] = {}
        self._plan: Plan | None = None
        self._record: CallRecord | None = None
        self._attempts: tuple[Attempt, ...] = ()
        self._began = 0.0
        _must_be_writable(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._record is None:
            return
        import json

        try:
            self._write(self._path, json.dumps(self.document(), indent=2) + "\n")
        except OSError as error:
            self.failure = f"--trace {self._path}: {error.strerror or error}"

    def __call__(self, notice: Notice) -> None:
        """Take one notice of the engine."""
        match notice:
            case CallStarted(record, plan):
                self._record, self._plan, self._began = record, plan, monotonic()
            case Recalled(tier, age_s, served_by):
                self._step("recalled", tier=tier, age_s=round(age_s, 1), served_by=served_by)
            case Decided():
                self._step("decided", **self._decided(notice))
            case Waiting(wait_s, why):
                self._step("waiting", wait_ms=_ms(wait_s * 1000), why=why)
            case AttemptStarted(n, role, served_by, dropped, restarts):
                self._step("sent", n=n, role=role, served_by=served_by, dropped=list(dropped), restarts=restarts)
            case AttemptEnded(attempt, error):
                if error is not None:
                    self._failed[attempt.deployment] = error.kind
                self._step("attempt_ended", n=attempt.n, outcome=attempt.outcome, cost_usd=usd(attempt.cost_nanousd))
            case CallEnded(record, attempts=attempts):
                self._record, self._attempts = record, attempts
                self._step("ended", state=record.state, error=record.error, exit_code=record.exit_code)

    def _step(self, what: str, **more: Any) -> None:
        self._steps.append({"at_ms": _ms(1000 * (monotonic() - self._began)), "event": what, **more})

    def _decided(self, told: Decided) -> dict[str, Any]:
        """What was decided, and why each candidate was chosen or was not, with the headroom it had."""
        decision = told.decision
        row: dict[str, Any] = {"decision": type(decision).__name__.lower()}
        if isinstance(decision, Send):
            row |= {"deployment": decision.deployment.id, "n": decision.n, "role": decision.role}
            row |= {"reason": decision.reason, "remaining_ms": _ms(decision.remaining_s * 1000)}
        elif isinstance(decision, Wait):
            row |= {"deployment": decision.target.id, "reason": decision.why}
        elif isinstance(decision, Fail):
            row |= {"error": decision.error.kind, "exit_code": decision.exit}
        if self._plan is None or not isinstance(decision, (Send, Wait, Fail)):
            return row
        found = explain(self._plan, told.snapshot, told.now, decision, self._strategy, self._failed)
        return row | {"candidates": [each.as_json() | {"link": each.link} for each in found]}

    def document(self) -> dict[str, Any]:
        """The whole timeline; times are milliseconds since the call began."""
        assert self._record is not None, "there is a record once a call was begun"
        record = self._record
        return {
            "version": VERSION,
            **{name: getattr(record, name) for name in _ROW},
            "started_at": record.started_at,
            "finished_at": record.finished_at,
            "cost_usd": usd(record.cost_nanousd),
            "saved_usd": usd(record.saved_nanousd),
            "tags": dict(record.tags),
            "timeline": self._steps,
            "attempts": [self._attempt(each) for each in self._attempts],
        }

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        row = replace(attempt, error=None).as_json()  # a provider's message may quote the prompt
        del row["error"]
        assert self._record is not None, "there is a record once a call was begun"
        return row | {
            "started_ms": _ms(1000 * (attempt.started_at - self._record.started_at)),
            "first_token_ms": _ms(attempt.first_token_ms),
            "retry_after_s": attempt.retry_after_s,
            "request_id": attempt.request_id or None,
        }


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _must_be_writable(path: Path) -> None:
    """Raises UsageError where `path` cannot be replaced by a file: before anything is sent, not after it was paid."""
    target = Path(os.path.realpath(path))
    what = ""
    if target.exists() and not target.is_file():
        what = "is not a file"
    elif target.exists() and any(os.path.samestat(target.stat(), os.fstat(stream)) for stream in (1, 2)):
        what = "holds what this command prints"
    elif not target.parent.is_dir():
        what = "its directory does not exist"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        what = "its directory cannot be written"
    if what:
        raise UsageError(f"--trace {path}: {what}", hint="name a file in a directory of yours")
