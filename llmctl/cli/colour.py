"""Whether a stream may be written to with escape sequences, and whether an answer is drawn. Nothing else decides it.

Each stream by itself: what is asked for on the command line, then `FORCE_COLOR`, then `NO_COLOR` and a dumb terminal,
then whether it is a terminal (no-color.org, force-color.org, read 2026-11-20; an empty variable is none).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from llmctl.cli.markdown import Markdown


class Choice(StrEnum):
    """When there is colour."""

    auto = "auto"
    always = "always"
    never = "never"


def colour(stream: TextIO | None, environ: Mapping[str, str], choice: str = "auto") -> bool:
    """Whether escape sequences may be written to `stream`."""
    return _allowed(environ, choice, terminal=stream is not None and stream.isatty())


def markdown(
    stream: TextIO | None, environ: Mapping[str, str], choice: str = "auto", *, render: bool | None = None
) -> Markdown | None:
    """What draws an answer on `stream`, None where it is written as it is: bytes in a pipe are nobody's to change.

    Without `render` it is drawn for a person only; with it also elsewhere, unless there is to be no colour.
    """
    terminal = stream is not None and stream.isatty()
    if render is False or not (terminal or render) or not _allowed(environ, choice, terminal=True):
        return None
    from llmctl.cli.markdown import Markdown

    return Markdown()


def _allowed(environ: Mapping[str, str], choice: str, *, terminal: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if environ.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def console(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """The terminal that `stream` is, for rich: without colour there is not a single escape byte."""
    from rich.console import Console

    allowed = colour(stream, environ)
    how: dict[str, Any] = {"color_system": "standard" if allowed else None, "no_color": not allowed}
    return Console(file=stream, highlight=False, markup=False, **how)
