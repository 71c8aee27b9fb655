"""Markdown drawn as it streams. What is Markdown and what is not is decided in `marks`.

Every character is written once: nothing is moved, wrapped or drawn again, so neither a resize nor a break can harm what
is on the screen. Held back is only what may still become markup, for `REACH` characters; what turns out to be none is
written as it came, and tables stay as they are. Styles are the terminal's own attributes and cyan, which can be read on
light and on dark, and none goes on past its line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmctl.cli import marks
from llmctl.cli.marks import EMPHASIS, FENCE, REACH, Fence, Unclear
from llmctl.cli.output import safe

if TYPE_CHECKING:
    from collections.abc import Callable

_BULLET, _BAR, _RULE = "•", "│ ", "─" * 16
_DIM, _UNDERLINED, _CYAN = ("2",), ("4",), ("36",)
_HEADINGS = (("1", "4"), ("1",), ("1", "3"))
_ESCAPED = "*_`~#"

# What a line may begin with, tried in this order, and whether all of the line is needed to know.
_STARTS = tuple(
    (kind, whole, re.compile(rf"(?P<indent>[ \t]*){pattern}" + r"(?=\n?\Z)" * whole))
    for kind, whole, pattern in (
        ("blank", True, ""),
        ("rule", True, r"(?P<mark>([-*_])(?:[ \t]*\3){2,}[ \t]*)"),
        ("fence", True, FENCE),
        ("columns", True, r"(?P<mark>\|[ \t:|-]*-[ \t:|-]*)"),
        ("heading", False, r"(?P<mark>#{1,6})[ \t]"),
        ("item", False, r"(?P<mark>[-+*]|\d{1,9}[.)])(?=[ \t])"),
        ("quote", False, r"(?P<mark>>(?!>>) ?)"),  # `>>>` is a prompt of Python
    )
)
# The beginning of a line that may still become another one of these.
_OPEN_START = re.compile(
    r"[ \t]*(?:#{1,6}|\+|\d{1,9}[.)]?|>{1,2}|`{1,2}|`{3,}[^`\n]*|~{1,2}|~{3,}[^\n]*|\|[ \t:|-]*"
    r"|(?P<sign>[-*_])(?:[ \t]|(?P=sign))*)?\Z"
)
_INDENTED = re.compile(r" {4}| {0,3}\t")
_SPECIAL = re.compile(r"[\\`*_~\[!\n]")

Style = tuple[str, ...]


class Markdown:
    """Draws Markdown piece by piece: `feed` and `end` return what to write, the same however the text is cut."""

    def __init__(self) -> None:
        """At the beginning of an answer."""
        self._held = self._return = ""
        self._before = "\n"
        self._out: list[str] = []
        self._style: Style = ()
        self._base: Style = ()
        self._step: Callable[[str, int, bool], int] = self._start
        self._fence: Fence | None = None
        self._column = 0
        self._blank = True
        self._quoted = self._listed = self._indented = False

    def feed(self, text: str) -> str:
        """What to write now that `text` has come: line ends are newlines, other control characters are written out."""
        text = self._return + text
        self._return = "\r" if text.endswith("\r") else ""
        return self._drawn(safe(text.removesuffix("\r").replace("\r\n", "\n")), final=False)

    def end(self) -> str:
        """What was held back, and the end of every style; then another text may begin."""
        drawn = self._drawn(safe(self._return), final=True) + "\x1b[0m" * bool(self._style)
        Markdown.__init__(self)
        return drawn

    def _drawn(self, text: str, *, final: bool) -> str:
        text, at = self._held + text, 0
        try:
            while at < len(text):
                at = self._step(text, at, final)
        except Unclear:
            pass
        self._before = text[at - 1] if at else self._before
        self._held = text[at:]
        drawn = "".join(self._out)
        self._out.clear()
        return drawn

    def _put(self, text: str, style: Style = ()) -> None:
        if text:
            self._to(style)
            self._out.append(text)

    def _to(self, style: Style) -> None:
        if style != self._style:
            self._out.append("\x1b[0m" * bool(self._style) + (f"\x1b[{';'.join(style)}m" if style else ""))
            self._style = style

    # ---------------------------------------------------------------- lines: each step returns how far it came

    def _start(self, text: str, at: int, final: bool) -> int:
        """The start of a line, or of what stands in a list item or a quote."""
        line, ends = _line(text, at, final)
        if not ends and len(line) < REACH and _OPEN_START.match(line):
            raise Unclear
        found, kind = None, "text"
        for name, whole, pattern in _STARTS:
            if (ends or not whole) and (found := pattern.match(line)):
                kind = name
                break
        if kind != "blank" and not self._column:
            if line[0] not in " \t" and (self._blank or kind != "text"):
                self._listed = kind == "item"
            self._indented = (self._blank or self._indented) and not self._listed and bool(_INDENTED.match(line))
        self._blank = kind == "blank"
        if found is None or self._indented:
            self._step = self._verbatim if self._indented else self._words
            return at
        self._begin(kind, found)
        self._column += found.end()
        return at + found.end()

    def _begin(self, kind: str, found: re.Match[str]) -> None:
        """Draw what a line of that kind begins with. In an item and in a quote it begins anew."""
        indent = found["indent"]
        self._put(indent)
        if kind not in ("item", "quote"):
            self._step = self._words
        match kind:
            case "rule":
                self._mark(_RULE)
            case "columns":
                self._mark(found["mark"])
            case "fence":
                self._mark(found[0][len(indent) :])
                self._fence = Fence(found["mark"], self._column + len(indent), self._quoted)
            case "heading":
                self._base = _HEADINGS[min(len(found["mark"]), 3) - 1]
            case "item":
                self._listed = True
                self._put(found["mark"] if found["mark"][0].isdigit() else _BULLET)
            case "quote":
                self._quoted = True
                self._mark(_BAR)

    def _mark(self, mark: str) -> None:
        self._put(mark, _DIM)
        self._to(())

    def _fenced(self, text: str, at: int, final: bool) -> int:
        """The start of a line in a fenced code block."""
        fence = self._fence
        assert fence is not None, "only within a fence"
        line, ends = _line(text, at, final)
        if not ends and len(line) < REACH and fence.may_end(line):
            raise Unclear
        if fence.ended_before(line):
            self._fence, self._step = None, self._start
            return at
        inside = fence.inside(line)
        if inside:
            self._mark(_BAR)
        if not ends or not fence.ended_by(line):
            self._step = self._verbatim
            return at + inside
        last = line[inside:].rstrip("\n")
        self._mark(last)
        self._fence, self._step = None, self._words
        return at + inside + len(last)

    def _verbatim(self, text: str, at: int, final: bool) -> int:  # noqa: ARG002 - one of the steps
        """The rest of a line of code."""
        stop = text.find("\n", at)
        self._put(text[at:] if stop < 0 else text[at:stop])
        if stop < 0:
            return len(text)
        self._step = self._words
        return stop

    def _words(self, text: str, at: int, final: bool) -> int:
        """A piece of a line of text, or its end."""
        if text[at] != "\n":
            at = self._piece(text, at, final, self._base)
            if self._style != self._base:
                self._to(())
            return at
        self._put("\n")
        self._base, self._column, self._quoted = (), 0, False
        self._step = self._fenced if self._fence else self._start
        return at + 1

    # ---------------------------------------------------------------- within a line

    def _piece(self, text: str, at: int, final: bool, style: Style) -> int:
        """A run of plain characters, or something marked, or a mark that marks nothing. Raises Unclear."""
        found = _SPECIAL.search(text, at)
        if found is None or found.start() > at:
            stop = found.start() if found else len(text)
            self._put(text[at:stop], style)
            return stop
        seen = marks.reach(text, at, final, one_line=bool(self._base))
        match text[at]:
            case "\n":
                self._put("\n")
                return at + 1
            case "\\":
                escaped = seen.at(at + 1).strip("\n")
                self._put(escaped if escaped and escaped in _ESCAPED else "\\" + escaped, style)
                return at + 1 + len(escaped)
            case "[" | "!":
                return self._link(at, seen, style)
            case "`":
                return self._code(at, seen, style)
            case _:
                return self._emphasis(at, seen, style)

    def _whole(self, text: str, style: Style) -> None:
        """All of `text`, which stands between marks."""
        at, before, self._before = 0, self._before, " "
        while at < len(text):
            at = self._piece(text, at, True, style)
        self._before = before

    def _code(self, at: int, seen: marks.Reach, style: Style) -> int:
        ticks = seen.run(at)
        begins = at + len(ticks)
        end = marks.ticks_end(begins, ticks, seen)
        if end is None:
            self._put(ticks, style)
            return begins
        code = seen.text[begins:end]
        if code.strip() and code[0] == code[-1] == " ":
            code = code[1:-1]
        for line in re.findall(r"\n|[^\n]+", code):
            self._put(line, () if line == "\n" else (*style, *_CYAN))
        return end + len(ticks)

    def _link(self, at: int, seen: marks.Reach, style: Style) -> int:
        """A link or an image: its words and its address."""
        begins = at + (seen.text[at] == "!")
        found = marks.link("!" if begins > at else self._left_of(seen.text, at), begins, seen)
        if found is None:
            self._put(seen.text[at], style)
            return at + 1
        words, address = found[0][1], found[1][1]
        self._whole(words, (*style, *_UNDERLINED))
        if not words.startswith("http") or words != address:
            self._put(" (", style)
            self._put(address, (*style, *_DIM))
            self._put(")", style)
        return found[1].end()

    def _emphasis(self, at: int, seen: marks.Reach, style: Style) -> int:
        mark = seen.run(at)
        begins = at + len(mark)
        end = marks.emphasis_end(self._left_of(seen.text, at), begins, mark, seen)
        if end is None:
            self._put(mark, style)
            return begins
        kept = mark if mark == "~~" else ""  # where a terminal cannot strike out, a word must not look like any other
        style = (*style, *EMPHASIS[mark])
        self._put(kept, style)
        self._whole(seen.text[begins:end], style)
        self._put(kept, style)
        return end + len(mark)

    def _left_of(self, text: str, at: int) -> str:
        return text[at - 1] if at else self._before


def _line(text: str, at: int, final: bool) -> tuple[str, bool]:
    """The line that begins at `at`, as far as it is looked at, and whether it ends there."""
    stop = text.find("\n", at, at + REACH)
    if stop >= 0:
        return text[at : stop + 1], True
    line = text[at : at + REACH]
    return line, final and at + len(line) == len(text)
