"""Writing the ledger: a row before the first byte leaves, completed at the end, whatever the end is.

Two short immediate transactions per call, through named columns; under a budget one more for each attempt, which
reserves what it may cost. A row that cannot be written waits in the spool and is merged by a later call; only `reserve`
raises for a disk that is full, locked or not ours, where a budget refuses. Reading is in `history`, sums in `spend`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from time import monotonic, sleep, time
from typing import TYPE_CHECKING

from llmctl.core.budget import Budgets
from llmctl.core.errors import BudgetExceeded, LedgerUnusable, LlmctlError, UsageError
from llmctl.store import spend
from llmctl.store.db import BUSY_TIMEOUT_S, Database
from llmctl.store.expiry import expire
from llmctl.store.patience import is_busy
from llmctl.store.rows import Rows, begun, ended
from llmctl.store.schema import STEPS, columns_of
from llmctl.store.spool import Spool
from llmctl.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from llmctl.core.record import Attempt, CallRecord
    from llmctl.store.spend import Warned
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

    def __init__(
        self,
        path: Path | str,
        spool: Path | str,
        *,
        wait_s: float = 5.0,
        budgets: Budgets = Budgets(),  # noqa: B008 - frozen, so it may be shared
        now: Callable[[], float] = time,
        retain_s: float | None = None,
    ) -> None:
        """`wait_s` bounds how long `begin` or `reserve` may delay a call, all waiting together. Touches nothing yet.

        `budgets` are what is warned about as calls end; without any, a dear day and a rush of calls are. `now` gives
        Unix seconds. Prompts and answers older than `retain_s` are removed, a few with each call that ends.
        """
        self._database = Database(path, STEPS)
        self._spool = Spool(os.fspath(spool))
        self._wait_s = wait_s
        self._budgets = budgets
        self._lookout = spend.Lookout(budgets)
        self._now = now
        self._retain_s = retain_s
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

    async def reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str = "") -> None:
        """Take `nanousd` for a call of every allowance of `budgets` instead of what it had; `run.ports.Ledger`."""
        deadline = monotonic() + self._wait_s
        await self._worker.run(lambda: self._reserve(record, budgets, nanousd, unpriced, deadline))

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

    def record_now(self, record: CallRecord, prompt: str | None, answer: str | None) -> None:
        """Write a call that was over as it began, in one transaction; for callers without an event loop."""
        entry = ended(record, (), answer, prompt)
        self._worker.call(lambda: self._complete(entry, self._wait_s, merges=True))

    def close(self) -> None:
        """Finish what was given, checkpoint and let go. A short-lived process may leave without."""
        self._worker.call(self._database.close)
        self._worker.close()

    def _begin(self, entry: Entry, deadline: float) -> None:
        if self._write(entry, deadline):
            self._merge()

    def _complete(self, entry: Entry, wait_s: float = BUSY_TIMEOUT_S, *, merges: bool = False) -> None:
        merges = merges or bool(self.trouble)
        if not self._write(entry, monotonic() + wait_s):
            return
        if merges:
            self._merge()
        if self._retain_s is not None:
            now, before = self._now(), self._now() - self._retain_s
            with suppress(*_TROUBLE):  # the next call tries again
                deadline = monotonic() + _IMPATIENT_S
                self._database.write(lambda connection: expire(connection, before, now), deadline=deadline)

    def _reserve(self, record: CallRecord, budgets: Budgets, nanousd: int, unpriced: str, deadline: float) -> None:
        """Raises BudgetExceeded; where a budget refuses and the ledger cannot be used, LedgerUnusable."""

        def work(connection: sqlite3.Connection) -> list[Warned]:
            if budgets.refuses:
                spend.check_known(self._database.path, budgets, record.started_at)
            return spend.reserve(connection, record, budgets, nanousd, self._now())

        if unpriced:
            self._say(f"unpriced {unpriced}", f"nobody knows the price of {unpriced}: no budget counts what it costs")
        if not self._patient:
            deadline = min(deadline, monotonic() + _IMPATIENT_S)
        try:
            if budgets.refuses:
                self._merge_all(deadline)
            self._tell(self._database.write(work, deadline=deadline, checkpoint=False))
        except (BudgetExceeded, UsageError):
            raise
        except _TROUBLE as error:
            self._patient = self._patient and not is_busy(error)
            if not budgets.refuses:
                return
            if isinstance(error, LedgerUnusable):
                raise
            raise LedgerUnusable(
                f"a budget refuses, and the ledger cannot be written ({error}): nothing is sent",
                hint='`llmctl ledger check` says what is wrong; on_exceed = "warn" under [budget] asks all the same',
            ) from error
        finally:
            self._take_notes()

    def _merge_all(self, deadline: float) -> None:
        """Bring in all that waits, so that what it cost is counted. Raises LedgerUnusable when it goes on waiting."""
        while waiting := self._spool.count()[0]:
            if not self._spool.merge(lambda entry: self._put_late(entry, deadline)) and monotonic() >= deadline:
                raise LedgerUnusable(
                    f"a budget refuses, and {waiting} calls in {self._spool.directory} wait to be counted",
                    hint="`llmctl ledger check` says what is wrong",
                )
            sleep(_IMPATIENT_S / 4)  # another process may be merging

    def _write(self, entry: Entry, deadline: float) -> bool:
        """Whether the entry reached the ledger; else it is in the spool."""
        if not self._patient:
            deadline = min(deadline, monotonic() + _IMPATIENT_S)
        try:
            said = self._database.write(
                lambda connection: self._put(connection, entry),
                deadline=deadline,
                hurry=lambda: self._worker.waiting and not self._budgets.refuses,  # else they could not be sent
                checkpoint=entry.final,
            )
        except _TROUBLE as error:
            self._patient = not is_busy(error)
            self.trouble = str(error)
            self._keep(entry)
            return False
        finally:
            self._take_notes()
        self._patient, self.trouble = True, ""
        self._tell(said)
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
            self._spool.merge(lambda entry: self._put_late(entry, monotonic() + _MERGE_S))
        except _TROUBLE as error:
            self._say("merge", f"rows in {self._spool.directory} still wait: {error}")

    def _put_late(self, entry: Entry, deadline: float) -> None:
        self._tell(
            self._database.write(lambda connection: self._put(connection, entry), deadline=deadline, checkpoint=False)
        )

    def _put(self, connection: sqlite3.Connection, entry: Entry) -> list[Warned]:
        """Write the entry, and with its end give back what it reserved; what a person must hear of what was spent."""
        known = self._database.version == len(STEPS)
        if self._rows is None or self._rows[0] is not connection:
            self._rows = (connection, Rows(connection, known=known, zone=self._budgets.zone))
        if not entry.final or not (known or columns_of(connection, "reservations")):
            self._rows[1].put(entry)
            return []
        before = spend.booked(connection, entry.id)
        self._rows[1].put(entry)
        spend.settle(connection, entry.id)
        with suppress(UsageError):  # a zone that this machine does not know
            return self._lookout.crossed(connection, entry, before) if known else []
        return []

    def _tell(self, said: Iterable[Warned]) -> None:
        for each in said:
            self._say(each.key, each.text)

    def _take_notes(self) -> None:
        self.warnings += self._database.notes
        self._database.notes.clear()

    def _say(self, kind: str, warning: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.warnings.append(warning)
