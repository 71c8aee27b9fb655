"""Fetching the embedded model's weights with a progress line, and offering to do so when they are first missed."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from llmctl.cli.output import safe, tell, write

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.cli.context import Context
    from llmctl.routing.plan import Plan
    from llmctl.run.weights import Pulled

_REDRAW_S = 0.1
_ANSWERS = {"y": True, "yes": True, "n": False, "no": False}


def fetch(model: str, directory: Path, source: Path | None, *, shown: bool) -> Pulled:
    """The weights of `model`, put into `directory`. Raises what `run.weights.pull` does."""
    from llmctl.run import weights

    line = _ProgressLine(shown=shown)
    try:
        return weights.pull(model, directory, source=source, progress=line)
    finally:
        line.erase()


def offer(context: Context, plan: Plan) -> None:
    """Ask a person at a terminal whether to fetch the weights that `plan` needs first and that are not here.

    Elsewhere nothing is asked: the call itself fails, and its hint says the command.
    """
    deployment = plan.links[0].deployments[0]
    attended = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    if not deployment.is_local or not attended or context.environ.get("LLMCTL_OFFLINE") == "1":
        return
    from llmctl.run import extras, weights

    wanted = weights.MODELS.get(deployment.model)
    if wanted is None or not extras.installed("local") or weights.find(deployment.model, context.places.weights):
        return
    size = f"{wanted.size / 1e6:.0f} MB"
    if confirmed(f"The weights of {deployment.served_by} ({size}) are not here yet. Fetch them?"):
        fetch(deployment.model, context.places.weights, None, shown=True)


def confirmed(question: str, *, unsaid: bool = True) -> bool:
    """Whether a person says yes; just Enter means `unsaid`. Raises KeyboardInterrupt for Ctrl-C, or no more input.

    A read that is about to block does not notice a signal that has just come (PEP 475), so the signal also rings a bell
    that is waited for: `input`, and all that is built on it, would wait for an Enter.
    """
    heard, bell = os.pipe()
    os.set_blocking(bell, False)
    before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    try:
        while True:
            tell(f"{question} {'[Y/n]' if unsaid else '[y/N]'}: ")
            select.select([sys.stdin, heard], [], [])
            said = sys.stdin.readline()
            if not said:
                raise KeyboardInterrupt
            if not said.strip():
                return unsaid
            if said.strip().lower() in _ANSWERS:
                return _ANSWERS[said.strip().lower()]
    finally:
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(bell)


class _ProgressLine:
    """One line on a terminal's stderr that is drawn over and leaves nothing behind."""

    def __init__(self, *, shown: bool) -> None:
        self._terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self._phase = ""
        self._next_at = 0.0

    def __call__(self, phase: str, done: float | None) -> None:
        """Show a phase, and how much of it is done."""
        now = time.monotonic()
        if self._terminal and (phase != self._phase or now >= self._next_at):
            self._phase, self._next_at = phase, now + _REDRAW_S
            write(f"\r\x1b[K{safe(phase)}{'' if done is None else f' {done:.0%}'}", sys.stderr)

    def erase(self) -> None:
        """Clear the line, if one was drawn."""
        if self._phase:
            write("\r\x1b[K", sys.stderr)
