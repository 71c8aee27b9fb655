"""What `ask` says on stderr while it works: retries, fallbacks, waits, what was left out; on a terminal, a status line.

It is a hook of the engine: told after the fact. Without a terminal a plain success says nothing; `-q` silences it all.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from llmctl.cli.colour import colour
from llmctl.cli.output import ago, safe, say, tell
from llmctl.core.money import usd
from llmctl.run.observe import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Decided, Recalled, Waiting

if TYPE_CHECKING:
    import asyncio

    from llmctl.cli.explaining import Explained
    from llmctl.cli.output import Out
    from llmctl.client import Client
    from llmctl.core.errors import LlmctlError
    from llmctl.core.record import Answer, CallRecord
    from llmctl.core.snapshot import Snapshot
    from llmctl.routing.plan import Plan
    from llmctl.run.observe import Notice

_SILENCE_S = 1.0
_TICK_S = 0.2
_SHORTEST_WAIT_S = 0.5


class Notes:
    """Tells a person what happens. The status line appears after a second of silence and goes at the first token."""

    def __init__(
        self, out: Out, *, quiet: bool, verbose: bool, silence_s: float = _SILENCE_S, color: str = "auto"
    ) -> None:
        """`out` is where the answer goes, so that no note begins in the middle of its line."""
        self._quiet = quiet
        self._verbose = verbose and not quiet
        self._silence_s = silence_s
        self._escapes = colour(sys.stderr, os.environ, color)
        self._terminal = sys.stderr is not None and sys.stderr.isatty() and not quiet
        self.explained: Explained | None = None
        """Where `--explain` asks why each target was chosen."""
        self._drawn = ""
        self._ticking: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self.begin(out)

    def begin(self, out: Out) -> None:
        """Be told of a call, the first or another one, whose answer goes to `out`."""
        self._out = out
        self._failure: LlmctlError | None = None
        self._doing = self._waits = self._passed_over = ""
        self._plan: Plan | None = None
        self._since = time.monotonic()
        self._complaints: list[str] | None = []

    def __call__(self, notice: Notice) -> None:
        """Take one notice of the engine."""
        for line in self.explained(notice) if self.explained is not None else ():
            self._say(line)
        match notice:
            case Decided(decision, snapshot, now) if self._plan is not None and _begins_at_a_fallback(decision):
                self._passed_over = _why_not_the_first(self._plan, snapshot, now)
            case CallStarted(plan=plan):
                self._plan = plan
                for left_out in plan.left_out if self._verbose and plan else ():
                    self._say(f"left out {left_out.deployment.served_by}: {left_out.reason.message}")
            case AttemptStarted(n, role, served_by, dropped):
                self._started(n, role, served_by, dropped)
            case Waiting(wait_s, why):
                how_long = f" {wait_s:.0f} s" if wait_s else ""
                self._doing, self._since = f"waiting{how_long} ({why}):", time.monotonic()
                if wait_s >= _SHORTEST_WAIT_S and why != self._waits:
                    self._say(f"waiting {wait_s:.1f} s: {why}")
                    self._waits = why
            case Recalled(tier, age_s, served_by):
                self.erase()
                self._say(f"cache hit ({tier}): {served_by}, {ago(age_s)} old")
            case AttemptEnded(error=error):
                self._failure = error
            case CallEnded(record=record):
                self.erase()
                if self._verbose:
                    self._say(summary(record))

    def _started(self, n: int, role: str, served_by: str, dropped: tuple[str, ...]) -> None:
        self._doing, self._since = f"asking {served_by}" + (f" (attempt {n})" if n > 1 else ""), time.monotonic()
        self._waits = ""
        if n > 1 or role == "fallback":
            because = self._passed_over
            if self._failure:  # whose message begins with a name that is said here already
                because = f" after {self._failure.kind}: {self._failure.message.removeprefix(f'{served_by}: ')}"
            again = "; the answer begins again" if self._out.began else ""
            self._out.end_line()
            self._say(f"{role}: asking {served_by}{because}{again}")
        if dropped:
            self._say(f"{served_by} takes no {', '.join(dropped)}: left out")

    def chosen(self, model: str, *, configured: bool) -> None:
        """Say so when the embedded model was chosen for want of keys."""
        if model == "local" and not configured:
            self._say("no key was found: asking the small embedded model, which is for trying things out")

    def remark(self, what: str) -> None:
        """Say something about the answer that has been shown."""
        self._say(what)

    def uncached(self, why: str) -> None:
        """Say, to whoever wants to know, what keeps a call out of the cache."""
        if why and self._verbose:
            self._say(f"not cached: {why}")

    def end(self, client: Client) -> None:
        """What has to be said once, after the call: trouble with the stores, and on first use what the ledger keeps."""
        for warning in client.warnings():
            if warning not in self._told:
                self._told.add(warning)
                self._say(f"warning: {warning}")
        complaints, self._complaints = self._complaints, None
        for complaint in complaints or ():
            self._say(complaint)
        if self._terminal and client.catalog.settings.log_content == "full" and _first_use(client):
            self._say(f"calls and their text are kept in {client.places.ledger} (see `llmctl ledger --help`)")
            self._say('to keep no text: --no-log, or content = "none" under [log] in the configuration')

    def complain(self, complaint: str, broken: bool) -> None:
        """Say what ails those who are told of calls, after the answer; what may pass only to whoever asks for more."""
        if not broken and not self._verbose:
            return
        if self._complaints is None:
            self._say(f"warning: [observe] {complaint}")
        else:
            self._complaints.append(f"warning: [observe] {complaint}")

    def whole(self, answer: Answer) -> None:
        """Say so when a whole answer was cut by the caller's own limit, or asks for more than stdout shows."""
        if answer.tool_calls:
            names = ", ".join(call.name for call in answer.tool_calls)
            self._say(f"the model calls tools, and none is run: {names} (--json prints the calls)")
        if answer.finish_reason == "length":
            self._say("the answer was cut where --max-tokens said")

    # ---------------------------------------------------------------- the status line

    def watch(self) -> None:
        """Begin to draw the status line, on a terminal."""
        if self._terminal and os.environ.get("TERM") != "dumb":
            import asyncio  # not for an answer that needs no waiting

            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        import asyncio

        while True:
            elapsed = time.monotonic() - self._since
            if self._doing and elapsed >= self._silence_s:
                self._draw(f" {int(elapsed)} s")
            await asyncio.sleep(_TICK_S)

    def _draw(self, elapsed: str) -> None:
        """The status on one line, however narrow the terminal is: what wraps could not be taken away."""
        room = min(columns() - 1, 80) - len(elapsed)
        line = (_cut(safe(self._doing), room) + elapsed).lstrip()
        if line != self._drawn:
            tell(self._cleared() + line)
            self._drawn = line

    def _cleared(self) -> str:
        """What empties the line of the status; blanks where there is to be no escape byte."""
        return "\r\x1b[2K" if self._escapes else f"\r{' ' * (columns() - 1)}\r"

    def erase(self) -> None:
        """Take the status line away for good: the answer has begun, or the call has ended."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        self._wipe()

    def _wipe(self) -> None:
        if self._drawn:
            tell(self._cleared())
            self._drawn = ""

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._out.end_line()
            self._wipe()
            say(line)


def _begins_at_a_fallback(decision: object) -> bool:
    from llmctl.routing.call import Send  # an answer from the cache takes no decision

    return isinstance(decision, Send) and decision.role == "fallback" and decision.n == 1


def _why_not_the_first(plan: Plan, snapshot: Snapshot, now: float) -> str:
    """Why a call begins at a fallback: what keeps out the first target of its chain."""
    from llmctl.routing.explain import kept_out

    first = plan.links[0].deployments[0]
    return f" ({first.served_by}: {kept_out(first, snapshot, now)})"


def _first_use(client: Client) -> bool:
    """Whether nobody was told yet what the ledger keeps; from now on they were."""
    try:
        if not client.places.ledger.exists():
            return False
        os.close(os.open(client.places.home / "told", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return False
    return True


def _cut(text: str, room: int) -> str:
    """As much of `text` as goes into `room` cells; the wide characters of East Asia take two."""
    from unicodedata import east_asian_width

    for at, char in enumerate(text):
        room -= 2 if east_asian_width(char) in "WF" else 1
        if room < 0:
            return text[:at]
    return text


def columns() -> int:
    """How wide the terminal on stderr is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def summary(record: CallRecord) -> str:
    """One line on how a call went: who answered, tokens, cost, time."""
    tokens = f"{record.input_tokens}+{record.output_tokens} tokens" if record.input_tokens is not None else "no tokens"
    cost = usd(record.cost_nanousd)
    price = "price unknown" if cost is None else f"${cost:.6f}"
    about = " (estimated)" if record.tokens_estimated else ""
    took = f"{record.latency_ms or 0:.0f} ms [{record.id}]"
    return f"{record.state} {record.served_by or '-'}: {tokens}{about}, {price}, {took}"
