"""Who is told outside of the process: what crosses the pipe, and that nobody who hears it can hold up whoever tells."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core import errors
from llmctl.core.catalog import Observers
from llmctl.core.errors import MATRIX, ConfigInvalid, LlmctlError, Unavailable
from llmctl.core.record import Attempt, CallRecord
from llmctl.run import extras
from llmctl.run.observe import AttemptEnded, CallEnded, CallStarted, Decided, Waiting
from llmctl.run.telling import MOST_WAITING, Teller, decoded, encoded, finish_all, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "tell nobody: sk-planted-0123456789abcdef"
RECORD = CallRecord("01J", 1.5, "ask", "fast", "ok", finished_at=2.5, cost_nanousd=7, tags={"team": "wéb"})
ATTEMPT = Attempt(1, "d", "groq", "m", "primary", "ok", 1.5, 200, 3.0, 9.0, 1, 2, 7, None, "req", None)
STARTED, ENDED = CallStarted(RECORD, None), CallEnded(RECORD, None, (ATTEMPT,), "embeddings")
TOLD = [STARTED, AttemptEnded(ATTEMPT, None, "01J"), ENDED]

# A module of hooks that say over a FIFO what they heard: opening it waits for the test, so that nothing sleeps.
SPY = """
import json, os, re, sys, threading
pipe = None
def spy(event):
    global pipe
    if pipe is None:
        pipe = open({fifo!r}, "w", buffering=1)
    row = event.attempt if type(event).__name__ == "AttemptEnded" else event.record
    print(json.dumps([type(event).__name__, os.getpid(), row.__class__.__name__]), file=pipe)
def raises(event): raise ValueError("mine")
def exits(event): sys.exit(3)
def hangs(event): threading.Event().wait()
def hogs(event): re.match("(a|a)+$", "a" * 60 + "b")
def prints(event): print("x" * 1_000_000); print("y" * 1_000_000, file=sys.stderr); sys.stdin.read()
def floods(event): os.write(1, b"!" * 1_000_000)
def spy_and_hangs(event): spy(event); hangs(event)
def spy_and_hogs(event): spy(event); hogs(event)
number = 7
"""


class Spy:
    """What the spy among the hooks hears."""

    def __init__(self, fifo: str) -> None:
        self._fifo = fifo
        self.pid = 0
        self._file: Any = None

    def heard(self) -> str:
        """The next event's name; waits until it is told."""
        if self._file is None:
            self._file = open(self._fifo)  # noqa: SIM115 - closed by the fixture
        line = self._file.readline()
        if not line:  # its process has ended, and another one opens the pipe
            self.close()
            return self.heard()
        name, self.pid, _ = json.loads(line)
        return str(name)

    def rest(self) -> str:
        """What it still says before its process ends."""
        return str(self._file.read())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    os.mkfifo(fifo := tmp_path / "fifo")
    (tmp_path / "spying.py").write_text(SPY.format(fifo=str(fifo)))
    monkeypatch.syspath_prepend(tmp_path)
    found = Spy(str(fifo))
    yield found
    found.close()
    with suppress(ProcessLookupError):
        if found.pid:
            found.kill()


def teller(*hooks: str) -> tuple[Teller, list[tuple[str, bool]]]:
    made, complaints = Teller(Observers(hooks=hooks), os.environ), []
    made.complain = lambda words, broken: complaints.append((words, broken))
    return made, complaints


# ---------------------------------------------------------------- what crosses the pipe


@pytest.mark.parametrize("notice", TOLD, ids=lambda each: type(each).__name__)
def test_what_is_told_is_the_same_on_the_other_side(notice):
    assert decoded(encoded(notice)) == notice


@given(st.sampled_from(sorted(MATRIX)), st.text(), st.none() | st.integers(100, 599), st.text(), st.text())
def test_an_error_crosses_as_its_class_and_numbers_whatever_is_in_it(kind, words, status, key, value):
    error: LlmctlError = getattr(errors, kind)(words, status=status)
    record = CallRecord("01J", 1.0, "ask", "m", "failed", tags={key: value})
    found = decoded(encoded(CallEnded(record, error, (ATTEMPT,))))
    assert isinstance(found, CallEnded)
    assert (found.error.kind, found.error.status, found.error.exit_code) == (kind, status, error.exit_code)
    assert encoded(found)  # and can go on from there


@pytest.mark.parametrize("kind", [kind for kind in MATRIX if kind not in ("MissingCredential", "BudgetExceeded")])
def test_no_word_of_a_provider_crosses(kind):
    error = getattr(errors, kind)(f"openai/m: you said: {SECRET}", status=400)
    error.provider, error.model = "openai", "m"
    attempt = Attempt(1, "d", "openai", "m", "primary", kind, 1.0, error=error.message)
    for notice in (AttemptEnded(attempt, error, "01J"), CallEnded(RECORD, error, (attempt,))):
        line = encoded(notice)
        assert b"nobody" not in line
        assert b"sk-planted" not in line
        assert f"openai/m: {kind} (HTTP 400)".encode() in line


def test_our_own_words_cross_without_a_key():
    line = encoded(AttemptEnded(ATTEMPT, errors.ConnectionFailed(f"cannot reach http://h:1: {SECRET}"), "01J"))
    assert b"cannot reach http://h:1" in line
    assert b"sk-planted" not in line


def test_a_call_that_was_cancelled_or_crashed_crosses_as_one():
    for error in (KeyboardInterrupt(), RuntimeError(SECRET)):
        found = decoded(encoded(CallEnded(RECORD, error)))
        assert found.error.kind == "Cancelled"


# ---------------------------------------------------------------- who hears it


def test_a_hook_hears_of_a_call_in_order_and_nothing_else(spy):
    made, complaints = teller("spying:spy")
    for notice in (STARTED, Waiting(1.0, "why"), *TOLD[1:]):
        made(notice)
    assert [spy.heard() for _ in range(3)] == ["CallStarted", "AttemptEnded", "CallEnded"]
    assert spy.pid != os.getpid()
    made.finish(30)
    assert complaints == []
    with pytest.raises(ProcessLookupError):  # it was waited for, and is gone
        spy.kill(0)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("spying:raises", "ValueError: mine"),
        ("spying:exits", "SystemExit: 3"),
        ("spying:hangs", None),
        ("spying:prints", None),
        ("spying:floods", None),
        ("spying:number", "TypeError: it cannot be called"),
        ("spying:nothing", "AttributeError"),
        ("no.such.module:f", "ModuleNotFoundError"),
        ("no-such-entry", "LookupError"),
    ],
)
def test_a_broken_hook_keeps_nobody_else_from_hearing_and_is_complained_of_once(spy, hook, said):
    made, complaints = teller(hook, "spying:spy")
    for notice in TOLD:
        made(notice)
    assert [spy.heard() for _ in range(3)] == ["CallStarted", "AttemptEnded", "CallEnded"]
    made.finish(0.0 if hook == "spying:hangs" else 30)
    about = [words for words, _ in complaints if words.startswith(f"hook {hook}: ")]
    assert len(about) == len(complaints) == (said is not None)
    assert all(said in words for words in about)


def test_what_is_set_up_wrongly_is_told_apart_from_what_went_wrong(spy):
    made, complaints = teller("no.such.module:f", "spying:raises")
    made(STARTED)
    made.finish(30)
    assert sorted(broken for _, broken in complaints) == [False, True]


def test_an_entry_point_is_a_hook_by_its_bare_name(spy, tmp_path):
    (info := tmp_path / "spying-1.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spying\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llmctl.hooks]\nmy-spy = spying:spy\n")
    assert troubles(Observers(hooks=("my-spy", "spying:spy")), {}) == []
    made, complaints = teller("my-spy")
    made(ENDED)
    assert spy.heard() == "CallEnded"
    made.finish(30)
    assert complaints == []


def test_a_child_that_is_killed_is_followed_by_another_that_hears_the_rest(spy):
    made, _ = teller("spying:spy")
    made(STARTED)
    assert spy.heard() == "CallStarted"
    first = spy.pid
    spy.kill()
    with suppress(ProcessLookupError):
        while True:  # until it is gone: what is written to a dying process is lost
            os.kill(first, 0)
    made(ENDED)
    assert spy.heard() == "CallEnded"
    assert spy.pid != first
    made.finish(30)


def test_whoever_takes_nothing_holds_up_nobody_and_what_is_dropped_is_counted(spy):
    made, complaints = teller("spying:spy")
    made(STARTED)
    spy.heard()
    spy.kill(signal.SIGSTOP)
    for _ in range(20 * MOST_WAITING):  # more than the pipe and the queue hold
        made(ENDED)
    assert made.dropped > MOST_WAITING
    made.finish(0.0)
    assert complaints == [(f"{made.dropped} notices were dropped: nobody took them in time", False)]


@pytest.mark.full
@pytest.mark.parametrize("hook", ["hangs", "hogs"])
def test_a_child_whose_hook_does_not_end_gives_up_by_itself(spy, hook):
    made, _ = teller(f"spying:spy_and_{hook}")
    made(STARTED)
    assert spy.heard() == "CallStarted"
    made.finish(0.0)
    assert spy.rest() == ""  # which it says by leaving


def test_many_who_hear_nothing_are_waited_for_together_when_a_process_ends(spy):
    asked: list[float] = []
    for _ in range(3):
        made = Teller(Observers(hooks=("spying:hangs",), wait_s=0.2), dict(os.environ))
        made(STARTED)
        made.finish = lambda wait_s, own=made.finish: (asked.append(wait_s), own(wait_s))  # type: ignore[method-assign]
    finish_all()
    assert sum(asked) < 0.5
    assert len(asked) == 3


def test_the_child_of_a_client_with_an_environment_of_its_own_is_given_no_key_of_it(spy):
    own = {"OPENAI_API_KEY": SECRET, "OTEL_SERVICE_NAME": "us", "TRACEPARENT": "00-1-2-00", "HOME": os.environ["HOME"]}
    made = Teller(Observers(hooks=("spying:spy",)), own)
    made(STARTED)
    assert spy.heard() == "CallStarted"
    given = dict(row.split("=", 1) for row in Path(f"/proc/{spy.pid}/environ").read_text().split("\0") if row)
    made.finish(30)
    assert SECRET not in given.values()
    assert given.items() >= {key: own[key] for key in ("OTEL_SERVICE_NAME", "TRACEPARENT", "HOME")}.items()


def test_nothing_is_started_before_a_call_is(spy):
    made, complaints = teller("spying:spy")
    made(Waiting(1.0, "why"))
    made(Decided(None, None, 0.0))
    made.finish(30)
    assert complaints == []
    assert spy.pid == 0


def test_a_teller_that_has_finished_begins_again_with_the_next_call(spy):
    made, _ = teller("spying:spy")
    for _ in range(2):
        made(STARTED)
        assert spy.heard() == "CallStarted"
        made.finish(30)


@pytest.mark.parametrize(("extra", "value"), [("otel", "http://127.0.0.1:4318"), ("sentry", True)])
def test_a_missing_extra_is_said_with_the_command_that_installs_it(extra, value, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, extra, "no_such_package.nor_module")
    with pytest.raises(ConfigInvalid, match=f"\\[observe\\] {extra} needs ") as caught:
        Teller(Observers(**{extra: value}), {})
    assert caught.value.hint.startswith("pip install ")
    assert f"[{extra}]" in caught.value.hint


def test_what_would_not_be_told_is_known_without_trying(spy):
    observers = Observers(sentry=True, hooks=("spying:spy", "no_such:f", "no-such-entry"))
    assert [each.partition(":")[0] for each in troubles(observers, {})] == [
        "sentry",
        "hook no_such",
        "hook no-such-entry",
    ]
    assert len(troubles(observers, {"SENTRY_DSN": "http://k@127.0.0.1/1"})) == 2


def test_an_error_without_a_provider_still_has_words():
    found = decoded(encoded(CallEnded(RECORD, Unavailable("x"))))
    assert found.error.message == "Unavailable"
