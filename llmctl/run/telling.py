"""Those who are told outside of this process: how news of calls gets there without a call ever waiting for it.

All that `[observe]` names lives in one child process (`run/teller`), in a session of its own, which is started when the
first call begins, so that its imports run while the provider thinks. Notices go through a bounded queue to a thread,
and from there as JSON lines through a pipe; where there is no room they are dropped and counted. What comes back, a
line each, is what ails those who are told. No prompt, no answer and no provider's own words go this way: a hook that
wants them reads the ledger by the call's id, or is one of `Client(hooks=...)`, which are told in the process itself.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmctl._version import __version__
from llmctl.core import errors
from llmctl.core.record import Attempt, CallRecord
from llmctl.core.redact import redact
from llmctl.run import extras
from llmctl.run.observe import AttemptEnded, CallEnded, CallStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import Observers
    from llmctl.run.observe import Notice

    Told = CallStarted | AttemptEnded | CallEnded

MOST_WAITING = 1000
_MOST_STARTS = 3
_LONGEST = 300
ENTRY_POINTS = "llmctl.hooks"
BROKEN, FAILING, UNHEARD = "!", "-", "~"
"""How a complaint begins: something is set up wrongly, has failed this time, or cannot be reached at the moment."""
_OF_THOSE_TOLD = ("OTEL_", "SENTRY_", "TRACE")
"""How the variables begin that the child gets from a client's own environment: what else is there may be keys."""
_OWN_WORDS = ("ConnectionFailed", "TimedOut", "MissingCredential", "BudgetExceeded")
# Without -P the current directory would come first on the path. stdin becomes the null device for whatever a hook runs.
# What is read here has no buffer, in which the rest of the news would be out of sight.
_BOOT = """
import json, os, sys
news = os.fdopen(os.dup(0), "rb", 0)
os.dup2(os.open(os.devnull, os.O_RDWR), 0)
head = json.loads(news.readline())
sys.path[:] = head.pop("path")
from llmctl.run.teller import main
main(news, **head)
"""


class Teller:
    """A hook that passes news of calls on to those whom the configuration names."""

    def __init__(self, observers: Observers, environ: Mapping[str, str]) -> None:
        """Raises ConfigInvalid when an extra is missing that the configuration needs."""
        for extra, wanted in (("otel", observers.otel), ("sentry", observers.sentry)):
            if wanted and not extras.installed(extra):
                raise extras.missing(extra, f"[observe] {extra}")
        self.dropped, self.wait_s = 0, observers.wait_s
        self.complain: Callable[[str, bool], object] = _log
        """Who hears what is wrong, and whether that is so for good: it was set up wrongly."""
        self._observers = observers
        self._environ = {
            name: value
            for name, value in environ.items()
            if os.environ.get(name) == value or name.startswith(_OF_THOSE_TOLD)
        }
        self.news: queue.Queue[Told | None] = queue.Queue(MOST_WAITING)
        self._over = threading.Event()
        """All was told, or there is no use in waiting for it."""
        self._pid = 0

    def __call__(self, notice: Notice) -> None:
        """Take a notice, at once."""
        if not isinstance(notice, (CallStarted, AttemptEnded, CallEnded)):
            return
        if self._pid != os.getpid():  # the first one, also of a forked child: that has no threads
            self._begin()
        try:
            self.news.put_nowait(notice)
        except queue.Full:
            self.dropped += 1

    def finish(self, wait_s: float | None = None) -> None:
        """Wait until all was told, or it is known that it cannot be now, at most `wait_s`, or what is configured.

        Then those who are told are left to finish alone.
        """
        wait_s = self.wait_s if wait_s is None else wait_s
        if self._pid != os.getpid():
            return
        if self in _telling:
            _telling.remove(self)
        until = monotonic() + wait_s
        try:
            self.news.put(None, timeout=wait_s)
            self._over.wait(max(0.0, until - monotonic()))
        except queue.Full:  # nobody takes anything: room is made for the end
            with suppress(queue.Empty, queue.Full):
                self.news.get_nowait()
                self.dropped += 1
                self.news.put_nowait(None)
        self._pid = 0
        if self.dropped:
            self._heard(f"{FAILING}{self.dropped} notices were dropped: nobody took them in time")

    def _begin(self) -> None:
        with _beginning:
            if self._pid == os.getpid():
                return
            self.news, self._over, self.dropped = queue.Queue(MOST_WAITING), threading.Event(), 0
            self._pid = os.getpid()
            given = (self.news, self._over)
            _telling.append(self)
            threading.Thread(target=self._pass_on, args=given, name="llmctl-tell", daemon=True).start()

    def _pass_on(self, news: queue.Queue[Told | None], over: threading.Event) -> None:
        """Tell a child what comes; one that ends early is followed by another, a few times."""
        child: subprocess.Popen[bytes] | None = None
        starts = 0
        listening: threading.Thread | None = None
        while (notice := news.get()) is not None:
            line = encoded(notice)
            while child is not None or (starts < _MOST_STARTS and self._pid and self.news is news):
                try:
                    if child is None:
                        starts += 1
                        child = self._child()
                        listening = threading.Thread(target=self._listen, args=(child, over), daemon=True)
                        listening.start()
                    _write(child, line)
                    break
                except OSError as error:
                    if starts == _MOST_STARTS:
                        self._heard(f"{FAILING}nobody is told any more: {error}")
                    _no_more(child)
                    child = None
        _no_more(child)
        if listening is not None:
            listening.join()
        over.set()

    def _child(self) -> subprocess.Popen[bytes]:
        """A child that has been told whom to tell. Raises OSError."""
        otel, sentry, hooks, _ = self._observers
        head = {"otel": otel, "sentry": sentry, "hooks": hooks, "path": sys.path}
        child = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            start_new_session=True,
        )
        with suppress(OSError):  # then the next line says so
            _write(child, json.dumps(head).encode() + b"\n")
        return child

    def _listen(self, child: subprocess.Popen[bytes], over: threading.Event) -> None:
        """Hear what the child complains of until it ends; then nothing is left of it."""
        assert child.stdout is not None
        with child.stdout as complaints:
            for line in complaints:
                self._heard(line.decode("utf-8", "replace"))
                if line.startswith(UNHEARD.encode()):
                    over.set()
        child.wait()

    def _heard(self, complaint: str) -> None:
        with suppress(Exception):  # whoever hears it may do anything
            self.complain(" ".join(complaint[1:].split())[:_LONGEST], complaint.startswith(BROKEN))


_telling: list[Teller] = []
_beginning = threading.Lock()


def _after_fork() -> None:
    global _beginning  # noqa: PLW0603 - a lock held by another thread at the fork would never be let go
    _beginning = threading.Lock()
    _telling.clear()


os.register_at_fork(after_in_child=_after_fork)


def finish_all() -> None:
    """Wait for all who are still told, for as long as the most patient one: not for one after the other."""
    began, all_ = monotonic(), [*_telling]
    for each in all_:
        with suppress(queue.Full):
            each.news.put_nowait(None)
    for each in all_:
        each.finish(max(0.0, each.wait_s - (monotonic() - began)))


atexit.register(finish_all)


def troubles(observers: Observers, environ: Mapping[str, str]) -> list[str]:
    """Why some of those who are to be told would not be, as far as it is known without trying; nothing is imported.

    Raises ConfigInvalid when an extra is missing.
    """
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    Teller(observers, environ)
    mute = observers.sentry and not environ.get("SENTRY_DSN")
    found = ["sentry: SENTRY_DSN is not set: nothing is sent"] if mute else []
    for name in observers.hooks:
        module, colon, _ = name.partition(":")
        top = module.partition(".")[0]
        if colon and find_spec(top) is None:
            found.append(f"hook {name}: there is no module {top!r} on the path")
        elif not colon and not entry_points(group=ENTRY_POINTS, name=name):
            found.append(f"hook {name}: no installed package has an entry point of this name in {ENTRY_POINTS}")
    return found


def _log(complaint: str, broken: bool) -> None:
    import logging

    logging.getLogger("llmctl").log(logging.WARNING if broken else logging.INFO, "%s", complaint)


def _no_more(child: subprocess.Popen[bytes] | None) -> None:
    """Let a child know that nothing more comes."""
    if child is not None and child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()


def _write(child: subprocess.Popen[bytes], line: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()


# ---------------------------------------------------------------- what goes over the pipe


def encoded(notice: Told) -> bytes:
    """A notice as a line of JSON, without anybody's words."""
    row: dict[str, Any] = {"event": type(notice).__name__}
    if isinstance(notice, AttemptEnded):
        row |= {"attempt": _row(notice.attempt), "error": _failure(notice.error), "call_id": notice.call_id}
    else:
        row["record"] = _row(notice.record)
    if isinstance(notice, CallEnded):
        row |= {"attempts": [_row(each) for each in notice.attempts], "error": _failure(notice.error)}
        row["operation"] = notice.operation
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def decoded(line: bytes) -> Told:
    """The notice that a line of `encoded` was. Its error has the class and the numbers of the original."""
    row = json.loads(line)
    kind, error = row.pop("event"), _error(row.pop("error", None))
    if kind == "AttemptEnded":
        return AttemptEnded(Attempt(**row["attempt"]), error, row["call_id"])
    record = CallRecord(**row["record"])
    if kind == "CallStarted":
        return CallStarted(record, None)
    return CallEnded(record, error, tuple(Attempt(**each) for each in row["attempts"]), row["operation"])


def _row(row: Attempt | CallRecord) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in row.__dataclass_fields__}
    if isinstance(row, Attempt):
        return found | {"error": None}  # a provider's message may quote the prompt
    return found | {"tags": dict(row.tags)}


def _failure(error: BaseException | None) -> dict[str, Any] | None:
    """An error as what it was, with its words only where they are ours: a provider's may quote the prompt."""
    if error is None:
        return None
    if not isinstance(error, errors.LlmctlError):
        return {"kind": "Cancelled", "message": "the call was cancelled"}
    numbers = {"status": error.status, "retry_after_s": error.retry_after_s, "chain_exit": error.chain_exit}
    ours = error.kind in _OWN_WORDS and error.status is None
    where = "/".join(filter(None, (error.provider, error.model)))
    summary = error.kind if error.status is None else f"{error.kind} (HTTP {error.status})"
    message = redact(error.message) if ours else f"{where}: {summary}" if where else summary
    return {"kind": error.kind, "message": message, "provider": error.provider, "model": error.model, **numbers}


def _error(row: dict[str, Any] | None) -> errors.LlmctlError | None:
    if row is None:
        return None
    kind: type[errors.LlmctlError] = getattr(errors, row["kind"])
    error = kind(row["message"], status=row.get("status"), retry_after_s=row.get("retry_after_s"))
    error.provider, error.model = row.get("provider", ""), row.get("model", "")
    error.chain_exit = row.get("chain_exit")
    return error


RELEASE = f"llmctl@{__version__}"
