"""Commands run within this process: into a pipe, or on a terminal of so many columns."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
import typer.main
from rich.cells import cell_len

from llmctl.cli.context import Context

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@dataclass
class Drawn:
    """What a command wrote, and the code it left with."""

    code: int
    out: str
    err: str

    @property
    def screen(self) -> str:
        """What is seen of it: no escapes, no blanks at the ends of lines."""
        plain = re.sub(r"\x1b\[[\d;]*m", "", self.out)
        return "\n".join(line.rstrip() for line in plain.splitlines())

    @property
    def width(self) -> int:
        """The cells of its longest line."""
        return max((cell_len(line) for line in self.screen.splitlines()), default=0)


class _Stream(io.TextIOWrapper):
    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


class Desk:
    """Runs the commands of `app` in a home of its own; errors are raised as the outermost wall would see them."""

    def __init__(self, app: typer.Typer, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._command = typer.main.get_command(app)
        self._patch = patch

    def run(self, *words: str, columns: int = 0, encoding: str = "utf-8", **environ: str) -> Drawn:
        """With `columns` on a terminal that is so wide."""
        context = Context(environ={"LLMCTL_HOME": str(self.home)})
        streams = _Stream(encoding, terminal=columns > 0), _Stream("utf-8", terminal=False)
        with self._patch.context() as patch:
            for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
                patch.delenv(name, raising=False)
            for name, value in ({"TERM": "xterm", "COLUMNS": str(columns)} | environ).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = 0
            try:
                with self._command.make_context("llmctl", list(words), obj=context) as ctx:  # as `cli.main` does
                    self._command.invoke(ctx)
            except typer.Exit as leaving:
                code = leaving.exit_code
        return Drawn(code, *(stream.text for stream in streams))

    def refused(self, *words: str) -> Any:
        """The error of a command that must not work, and wrote nothing."""
        from llmctl.core.errors import LlmctlError

        try:
            done = self.run(*words)
        except LlmctlError as error:
            return error
        raise AssertionError(done)
