"""Writing to people and to pipes: JSON documents, notes on stderr, tables, and making hostile text safe to show.

stdout carries what was asked for and nothing else. rich is imported only for a table on a terminal.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO

from llmctl.core.errors import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmctl.cli.markdown import Markdown
    from llmctl.core.errors import LlmctlError

# C0 but tab and newline, DEL, C1, and the bidirectional controls (Unicode TR 9): they move cursors, or lie about order.
_HOSTILE = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)},
    **{code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}


_GAP = 3  # what rich puts between two columns
_LEAST = 6


def safe(text: str) -> str:
    """`text` with its control and bidirectional-override characters written out, so that it cannot drive a terminal."""
    return text.translate(_HOSTILE)


def one_line(text: str, limit: int = 300) -> str:
    """`text` as a single safe line of at most `limit` characters, for messages."""
    line = safe(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def ago(seconds: float) -> str:
    """A time span in one unit: `42 s`, `5 min`, `3 h`, `12 days`; what is yet to come, by another clock, is `0 s`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit != "days" and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def write(text: str | bytes, stream: TextIO | None = None) -> None:
    """`text` on `stream` (stdout), flushed, as UTF-8 whatever the locale says; lone surrogates become U+FFFD.

    Raises BrokenPipeError when nobody reads any more, OutputFailed when it cannot be written for another reason.
    """
    out = sys.stdout if stream is None else stream
    if out is None:
        raise _closed()
    data = text if isinstance(text, bytes) else _utf8(text)
    binary = getattr(out, "buffer", None)
    try:
        if binary is None:
            out.write(data.decode("utf-8"))
        else:
            binary.write(data)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "stderr" if out is sys.stderr else "stdout"
        raise OutputFailed(f"{name} cannot be written: {error.strerror}", hint="check where it points to") from error


def _closed() -> OutputFailed:
    return OutputFailed("stdout is closed", hint="give it somewhere to go, such as >/dev/null")


def tell(text: str) -> None:
    """`text` on stderr; what nobody can be told is not told."""
    if sys.stderr is not None:
        with suppress(BrokenPipeError, OutputFailed):
            write(text, sys.stderr)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # only surrogates cannot be encoded
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).encode("utf-8")


def say(line: str) -> None:
    """One note on stderr, made safe."""
    tell(f"llmctl: {safe(line)}\n")


def table(
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    right: Sequence[str] = (),
    keep: Sequence[str] = (),
    spare: Sequence[str] = (),
    wrap: Sequence[str] = (),
) -> None:
    """A table on stdout: drawn by rich on a terminal, tab-separated with a header line elsewhere.

    Cells are hostile input: markup is literal and control characters are written out. `right` names number columns;
    those and the `keep` ones are never cut on a terminal; the `spare` ones are left out, in order, where room is short.
    What is too long for its column is cut, and goes on below in the `wrap` ones.
    """
    cells = [{column: _cell(row.get(column)) for column in columns} for row in rows]
    if sys.stdout is None or not sys.stdout.isatty():
        lines = [list(columns), *(list(line.values()) for line in cells)]
        write("".join("\t".join(line) + "\n" for line in lines))
        return
    _draw(columns, cells, right, (*right, *keep), list(spare), wrap)


def _draw(
    columns: Sequence[str],
    cells: list[dict[str, str]],
    right: Sequence[str],
    whole: Sequence[str],
    spare: list[str],
    wrap: Sequence[str],
) -> None:
    """The table by rich: it cuts the columns that are not `whole`, after the `spare` ones have gone."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from llmctl.cli.colour import console as terminal

    console = terminal(sys.stdout, os.environ)
    needs = {column: max(len(column), *(len(line[column]) for line in cells), 0) for column in columns}
    shown = list(columns)
    while spare and sum(needs[column] + _GAP for column in shown) > console.width:
        shown.remove(spare.pop(0))
    # Widths are given, because rich takes from every column alike, down to nothing.
    elastic = {column: needs[column] for column in shown if column not in whole}
    room = console.width - sum(needs[column] + _GAP for column in shown) + sum(elastic.values())
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in shown:
        share = room * needs[column] // max(1, sum(elastic.values()))
        width = needs[column] if column in whole else min(needs[column], max(_LEAST, share))
        justify: Literal["left", "right"] = "right" if column in right else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if column in wrap else "ellipsis"
        no_wrap = column not in wrap
        drawn.add_column(column, justify=justify, overflow=overflow, no_wrap=no_wrap, min_width=width, max_width=width)
    for line in cells:
        drawn.add_row(*(Text(line[column]) for column in shown))
    console.print(drawn, crop=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return one_line(str(value), 200) or "-"


def error_json(error: LlmctlError) -> str:
    """The error as the one JSON line that `--json` puts on stderr."""
    document = {
        "type": error.kind,
        "message": error.message,
        "hint": error.hint or None,
        "provider": error.provider or None,
        "model": error.model or None,
        "status": error.status,
        "retry_after": error.retry_after_s,
        "partial_text": error.partial_text or None,
        "attempts": [attempt.as_json() for attempt in error.attempts],
    }
    return json.dumps({"error": document}, ensure_ascii=True)


class Out:
    """The answer on stdout: unchanged bytes to a pipe, harmless text to a terminal, flushed piece by piece.

    With `markdown` it is drawn by that, which may hold some of it back until the `end`. `terminal` says that a person
    reads it, `began` that something was written, `open_line` that it did not end in a newline, and `writing`, for a
    signal handler, that the process may be blocked in a write.
    """

    def __init__(self, markdown: Markdown | None = None) -> None:
        """Raises OutputFailed when stdout is closed: better before the answer is paid for than after."""
        if sys.stdout is None:
            raise _closed()
        self.terminal = sys.stdout.isatty()
        if not os.get_blocking(sys.stdout.fileno()):  # as another program on the same pipe may have left it
            os.set_blocking(sys.stdout.fileno(), True)
        self.writing = self.began = self.open_line = False
        self._markdown = markdown

    def write(self, text: str | bytes) -> None:
        """Write a piece. Raises BrokenPipeError when nobody reads, OutputFailed when it cannot be written."""
        if isinstance(text, bytes):
            self._write(text)
        elif self._markdown is not None:
            self._write(self._markdown.feed(text))
        else:
            self._write(safe(text) if self.terminal else text)

    def _write(self, text: str | bytes) -> None:
        if not text:
            return
        self.began = self.writing = True
        self.open_line = isinstance(text, str) and not text.endswith("\n")
        try:
            write(text)
        except Exception:
            self.open_line, self._markdown = False, None  # a stdout that failed once is left alone
            raise
        finally:
            self.writing = False

    def end(self) -> None:
        """Write what was held back. Raises as `write` does."""
        if self._markdown is not None:
            self._write(self._markdown.end())

    def end_line(self) -> None:
        """End the line that is open, unless nobody empties the pipe: the call may have been stopped for that."""
        if (self.open_line or self._markdown) and select.select([], [sys.stdout], [], 0)[1]:
            self.end()
            if self.open_line:
                self._write("\n")
