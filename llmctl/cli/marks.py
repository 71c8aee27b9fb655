"""What in a text is Markdown and what is not: fences, code, links, the two ends of emphasis. Nothing is drawn here.

CommonMark 0.31.2 and GFM (spec.commonmark.org, github.github.com/gfm, read 2026-11-20) are followed where they are
sure. Emphasis begins behind no letter or digit (`2*3*4`, snake_case) and a link behind none (`f[0](x)`); `__init__` and
`COUNT(*)` stay, paths and formulas too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

REACH = 240
"""Within how many characters emphasis, code, a link or the start of a line has to become clear."""
EMPHASIS = {"*": ("3",), "_": ("3",), "**": ("1",), "__": ("1",), "***": ("1", "3"), "___": ("1", "3"), "~~": ("9",)}
"""The marks of emphasis, and how a terminal shows it (ECMA-48 SGR)."""
_NOT_BEFORE, _NOT_BEHIND = ")]}^", "/,;:)]}"
"""What stands on neither side of a mark that begins emphasis."""
_NOT_BEFORE_ONE, _NOT_BEHIND_ONE = "/", "."
"""Nor of a single mark: `src/*`, `*.py`, but **.env**."""

FENCE = r"(?P<mark>`{3,}(?=[^`\n]*(?:\n|\Z))|~{3,})[^\n]*"
_FENCE_LINE = re.compile(r"[ \t]*" + FENCE)
_QUOTES = re.compile(r"[ \t]*(?:> ?)+")
_CONTAINERS = re.compile(r"(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))*")
_LINE_END, _BREAK = re.compile(r"\n"), re.compile(r"\n(?![^\W\d_])")
"""Where a heading ends, and where a paragraph may: only a letter surely goes on with it."""
_INSIDE = re.compile(r"\\.|`+|\*+|_+|~+", re.DOTALL)
_TICKS = re.compile("`+")
_LABEL = re.compile(r"\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]", re.DOTALL)
_ADDRESS = re.compile(r"\(((?:[^\s()]|\([^\s()]*\))+(?:[ \t]+\"[^\"\n]*\")?)\)")
_DUNDER = re.compile(r"[a-z0-9_]+")


class Unclear(Exception):
    """What comes next decides what this is."""


class Fence(NamedTuple):
    """An open code block: its mark, the column where that began, and whether it is in a quote."""

    mark: str
    column: int
    quoted: bool

    def inside(self, line: str) -> int:
        """Where `line` begins behind the marks of its quote."""
        found = _QUOTES.match(line) if self.quoted else None
        return found.end() if found else 0

    def ended_before(self, line: str) -> bool:
        """Whether `line` is no more in the quote that the block is in."""
        return self.quoted and not line.lstrip(" \t").startswith(">")

    def ended_by(self, line: str) -> bool:
        """Whether `line` is the last of the block."""
        line = line[self.inside(line) :]
        bare = line.strip()
        near = len(line) - len(line.lstrip()) <= self.column + 3
        return len(bare) >= len(self.mark) and not bare.strip(self.mark[0]) and near

    def may_end(self, start: str) -> bool:
        """Whether a line that begins so may yet end the block, so or so."""
        return not start.strip(" \t" + self.mark[0] + ">" * self.quoted)


def code_block(text: str) -> str | None:
    """The inside of the first fenced code block of `text`, unchanged but for its indent; None where there is none."""
    fence, code = None, []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if fence is None:
            outer = _CONTAINERS.match(line)
            found = outer and _FENCE_LINE.match(line.rstrip(), outer.end())
            fence = found and Fence(found["mark"], found.start("mark"), ">" in line[: found.start("mark")])
        elif fence.ended_before(line) or fence.ended_by(line):
            break
        else:
            inner = line[fence.inside(line) :]
            indent = len(inner) - len(inner.lstrip(" \t"))
            code.append(inner if fence.quoted else inner[min(indent, fence.column) :])
    return None if fence is None else "".join(code)


class Reach(NamedTuple):
    """How far one may look: up to `stop`. Unless that is `final`, more may come behind it."""

    text: str
    stop: int
    final: bool

    def at(self, at: int) -> str:
        """The character at `at`, a line end where there is none. Raises Unclear when it is not known yet."""
        if at < self.stop:
            return self.text[at]
        if not self.final:
            raise Unclear
        return "\n"

    def run(self, at: int) -> str:
        """The characters from `at` on that are the same. Raises Unclear."""
        stop = at
        while self.at(stop) == self.text[at]:
            stop += 1
        return self.text[at:stop]

    def nowhere(self) -> None:
        """Nothing was found. Raises Unclear when it may yet come."""
        self.at(self.stop)


def reach(text: str, at: int, final: bool, *, one_line: bool) -> Reach:
    """From `at` to the end of the paragraph, or of the line, but not too far."""
    most = min(len(text), at + REACH)
    final = final or most == at + REACH
    found = (_LINE_END if one_line else _BREAK).search(text, at, most)
    if found and (found.end() < most or final):
        return Reach(text, found.start(), final=True)
    return Reach(text, most, final)


def ticks_end(at: int, ticks: str, seen: Reach) -> int | None:
    """Where from `at` on just so many backticks stand, None where nowhere. Raises Unclear."""
    while found := _TICKS.search(seen.text, at, seen.stop):
        if seen.run(found.start()) == ticks:
            return found.start()
        at = found.end()
    return seen.nowhere()


def link(before: str, at: int, seen: Reach) -> tuple[re.Match[str], re.Match[str]] | None:
    """The words and the address of the link that begins at `at`, if one does. Raises Unclear."""
    if _is_word(before) or seen.at(at) != "[":
        return None
    label = _LABEL.match(seen.text, at, seen.stop)
    if label is None:
        return seen.nowhere()
    if seen.at(label.end()) != "(":
        return None
    address = _ADDRESS.match(seen.text, label.end(), seen.stop)
    return (label, address) if address else seen.nowhere()


def emphasis_end(before: str, at: int, mark: str, seen: Reach) -> int | None:
    """Where the emphasis ends that `mark`, between `before` and `at`, begins; None when it begins none.

    Raises Unclear.
    """
    if not _begins(before, seen.at(at), mark):
        return None
    text, end = seen.text, at
    while found := _INSIDE.search(text, end, seen.stop):
        start, end = found.span()
        if text[start] == "\\":
            continue
        run = seen.run(start)
        if run[0] == "`":  # what is in code is passed over
            close = ticks_end(end, run, seen)
            end = end if close is None else close + len(run)
        elif _fits(run, mark) and _ends(text[start - 1], seen.at(end), mark):
            close = end - len(mark)
            return None if mark == "__" and _DUNDER.fullmatch(text, at, close) else close
    return seen.nowhere()


def _begins(before: str, after: str, mark: str) -> bool:
    """Whether emphasis may begin between these two characters (CommonMark 6.2: a left-flanking run)."""
    if mark not in EMPHASIS or _is_word(before) or before in _NOT_BEFORE or after.isspace() or after in _NOT_BEHIND:
        return False
    if mark == "_" and after == "{":
        return False
    return len(mark) > 1 or not (before in _NOT_BEFORE_ONE or after in _NOT_BEHIND_ONE)


def _fits(run: str, mark: str) -> bool:
    """Whether a run of marks may end with `mark`: three of them are one and two."""
    return run[0] == mark[0] and (len(run) == len(mark) or (len(run) == 3 and mark[0] != "~"))


def _ends(before: str, after: str, mark: str) -> bool:
    """Whether emphasis may end between these two characters (CommonMark 6.2: a right-flanking run)."""
    if before.isspace() or before in "([{" or (mark[0] == "_" and _is_word(after)):
        return False
    return before.isalnum() or not _is_word(after)


def _is_word(char: str) -> bool:
    """Whether `char` is of a word of a script that puts blanks between words: what follows it begins no emphasis."""
    return char.isalnum() and char < "\u0e00"
