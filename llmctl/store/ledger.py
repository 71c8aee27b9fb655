"""Writing the ledger: a row before the first byte leaves, completed at the end, whatever the end is.

Two short immediate transactions per call, through named columns. A row that cannot be written waits in the spool and
is merged by a later call; nothing here raises for a disk that is full, locked or not ours. Reading is in `history`.
"""

from __future__ import annotations

import os
import sqlite3
from time import monotonic
from typing import TYPE_CHECKING

from llmctl.core.errors import LlmctlError
from llmctl.store.db import BUSY_TIMEOUT_S, Database, is_busy
from llmctl.store.rows import Rows, begun, ended
from llmctl.store.schema import STEPS
from llmctl.store.spool import Spool
from llmctl.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmctl.core.record import Attempt, CallRecord
    from llmctl.store.spool import Entry

_IMPATIENT_S = 0.02
"""How long a write waits after one before it has waited in vain: many calls share the one thread."""
_MERGE_S = 0.2
_TROUBLE = (sqlite3.Error, OSError, LlmctlError)


class SqliteLedger:
    """The ledger of one file (`run.ports.Ledger`); any thread or event loop may use it.

    `warnings` collects what a person must hear, each thing once. `trouble` is why the last write did not reach the
    ledger, or "".
    """

    def __init__(self, path: Path | str, spool: Path | str, *, wait_s: float = 5.0) -> None:
        """`wait_s` bounds how long `begin` may delay a call, all waiting together. Touches nothing yet."""
        self._database = Database(path, STEPS)
        self._spool = Spool(os.fspath(spool))
        self._wait_s = wait_s
        self._worker = Worker("llmctl-ledger", holds=self._database)
        self._rows: tuple[sqlite3.Connection, Rows] | None = None
        self._patient = True
        self._said: set[str] = set()
        self.warnings: list[str] = []
        self.trouble = ""

    async def begin(self, record: CallRecord, prompt: str | None) -> None:
        """Write the row before the first byte leaves; `prompt` None keeps no text."""
        entry, deadline = begun(record, prompt), monotonic() + self._wait_s
        await self._worker.run(lambda: self._begin(entry, deadline))

    async def complete(self, record: CallRecord, attempts: Sequence[Attempt], answer: str | None) -> None:
        """Complete the row at the end of the call, whatever the end is; done even if the wait is cancelled."""
        entry = ended(record, attempts, answer)
        await self._worker.run(lambda: self._complete(entry), to_the_end=True)

    def begin_now(self, record: CallRecord, prompt: str | None) -> None:
        """`begin`, for callers without an event loop."""
        entry, deadline = begun(record, prompt), monotonic() + self._wait_s
        self._worker.call(lambda: self._begin(entry, deadline))

    def complete_now(self, record: CallRecord, attempts: Sequence[Attempt], answer: str | None) -> None:
        """`complete`, for callers without an event loop."""
        entry = ended(record, attempts, answer)
        self._worker.call(lambda: self._complete(entry))

    def close(self) -> None:
        """Finish what was given, checkpoint and let go. A short-lived process may leave without."""
        self._worker.call(self._database.close)
        self._worker.close()

    def _begin(self, entry: Entry, deadline: float) -> None:
        if self._write(entry, deadline):
            self._merge()

    def _complete(self, entry: Entry) -> None:
        spooled = bool(self.trouble)
        if self._write(entry, monotonic() + BUSY_TIMEOUT_S) and spooled:
            self._merge()

    def _write(self, entry: Entry, deadline: float) -> bool:
        """Whether the entry reached the ledger; else it is in the spool."""
        if not self._patient:
            deadline = min(deadline, monotonic() + _IMPATIENT_S)
        try:
            self._database.write(
                lambda connection: self._put(connection, entry),
                deadline=deadline,
                hurry=lambda: self._worker.waiting,
                checkpoint=entry.final,
            )
        except _TROUBLE as error:
            self._patient = not is_busy(error)
            self.trouble = str(error)
            self._keep(entry)
            return False
        finally:
            self.warnings += self._database.notes
            self._database.notes.clear()
        self._patient, self.trouble = True, ""
        return True

    def _keep(self, entry: Entry) -> None:
        where, why = self._spool.directory, self.trouble
        try:
            self._spool.add(entry)
        except OSError as error:
            self._say("lost", f"this call is not recorded: the ledger cannot be written ({why}), nor {where} ({error})")
        else:
            self._say("kept", f"the ledger cannot be written ({why}): this call waits in {where} and is merged later")

    def _merge(self) -> None:
        """Bring in what waits in the spool, a bounded part at a time; what fails keeps waiting."""
        try:
            self._spool.merge(self._put_late)
        except _TROUBLE as error:
            self._say("merge", f"rows in {self._spool.directory} still wait: {error}")

    def _put_late(self, entry: Entry) -> None:
        deadline = monotonic() + _MERGE_S
        self._database.write(lambda connection: self._put(connection, entry), deadline=deadline, checkpoint=False)

    def _put(self, connection: sqlite3.Connection, entry: Entry) -> None:
        if self._rows is None or self._rows[0] is not connection:
            self._rows = (connection, Rows(connection, known=self._database.version == len(STEPS)))
        self._rows[1].put(entry)

    def _say(self, kind: str, warning: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.warnings.append(warning)
