"""How reports about money look: words for money, tokens and times, a table that fits its terminal, bars, a sparkline.

What is shown comes ready from `store`; nothing is added up here but a sparkline. rich is imported only for a terminal.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.cli.output import safe, table, write
from llmctl.core.money import NANO, nano

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console

GAP = 2
BARS = "bars"
"""What the bars are called among the columns that may go."""
_LEAST_KEY, _LEAST_BAR, _LONGEST_BAR, _LONGEST_SPARK = 16, 5, 24, 60
_LEAST_FACTS = 64
_FOLDS = 3
_HEIGHTS = "▁▂▃▄▅▆▇█"
_ACCENT = "magenta"


class Fact(NamedTuple):
    """A line below a table: `calls` and `nanousd` are None where they do not apply."""

    what: str
    calls: int | None
    nanousd: int | None
    note: str = ""


class Column(NamedTuple):
    """A column: the heading, and its cell for a row. `key` columns are left-aligned, and folded where room is short."""

    heading: str
    cell: Callable[[Mapping[str, Any]], str]
    key: bool = False
    style: str = ""


# ---------------------------------------------------------------- words


def money(nanousd: int | None, *, missing: str = "-", decimals: int = 0) -> str:
    """An amount to be read: cents from a dollar on, else three digits that say something, and never less than cents.

    With `decimals` just so many, whatever the amount; what is less than that can show is so told.

    >>> money(34_100), money(12_340_000_000), money(100_000_000), money(34_100, decimals=3)
    ('$0.0000341', '$12.34', '$0.10', '<$0.001')
    """
    if nanousd is None:
        return missing
    if decimals:
        rounded = round(nanousd, decimals - 9)
        least = "<" if nanousd and not rounded else ""
        return f"{least}${(rounded or 10 ** (9 - decimals) * bool(least)) / NANO:,.{decimals}f}"
    if nanousd >= NANO - NANO // 2000:
        return f"${nanousd / NANO:,.2f}"
    digits = f"{nanousd:09d}"
    first = len(digits) - len(digits.lstrip("0"))
    rounded = round(nanousd, -max(0, 6 - first))
    return "$0." + f"{rounded:09d}".rstrip("0").ljust(2, "0")


def dollars(amount: float | None, *, missing: str = "-") -> str:
    """An amount of USD, as `money` says it."""
    return money(None if amount is None else nano(amount), missing=missing)


def decimals(amounts: Iterable[int | None]) -> int:
    """How many decimals the amounts of one column have, so that their digits can be compared at a glance.

    Two digits of the least and three of the greatest are seen, of this at most seven; none more than they need.

    >>> decimals([1_334_000, 1_220_400_000]), decimals([12_340_000_000, 500_000_000]), decimals([1, 10**12])
    (4, 2, 3)
    """
    known = [amount for amount in amounts if amount]
    if not known:
        return 2
    least, greatest = len(str(min(known))), len(str(max(known)))
    places = max(2, min(9, 16 - greatest, max(11 - least, 12 - greatest)))
    while places > 2 and not any(amount % 10 ** (10 - places) for amount in known):
        places -= 1
    return places


def count(number: int) -> str:
    """A number of calls: whole as long as it is short."""
    return f"{number:,}" if number < 100_000 else short(number)


def short(number: float | None) -> str:
    """A number in at most five characters: 999, 1.2k, 120k, 1.2M."""
    if number is None:
        return "-"
    size = float(number)
    for unit in ("", "k", "M", "G"):
        if size < 999.5:
            return f"{size:.0f}{unit}" if not unit or size >= 9.95 else f"{size:.1f}{unit}"
        size /= 1000
    return f"{size:,.0f}T"


def seconds(ms: float | None) -> str:
    """A time in at most five characters: 0.21s, 12.3s, 123s."""
    if ms is None:
        return "-"
    return f"{ms / 1000:.2f}s" if ms < 9_995 else f"{ms / 1000:.1f}s" if ms < 99_950 else f"{ms / 1000:,.0f}s"


def bar(share: float, width: int, *, plain: bool) -> str:
    """A bar of `share` (0 to 1) of `width` cells, to the half of one; `plain` without a drawn line."""
    halves = round(max(0.0, min(1.0, share)) * width * 2) or (1 if share > 0 else 0)
    return "#" * ((halves + 1) // 2) if plain else "━" * (halves // 2) + "╸" * (halves % 2)


def sparkline(values: Sequence[int], width: int) -> str:
    """`values` as a line of at most `width` bars, each the sum of equally many; nothing stays on the ground."""
    each = -(-len(values) // max(1, width))
    sums = [sum(values[start : start + each]) for start in range(0, len(values), each)]
    top = max(sums, default=0)
    return "".join(_HEIGHTS[0 if not value else 1 + value * 6 // top] for value in sums)


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as RFC 4180: a header, then a line each, nothing for what is not known; amounts in full, never as 3.4e-05.

    A text that a spreadsheet would run (OWASP, "CSV Injection", read 2026-11-20) gets an apostrophe before it.
    """
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_field(name) for name in columns])
    writer.writerows([_field(row.get(name)) for name in columns] for row in rows)
    write(text.getvalue())


def print_plain(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows for a pipe: tab-separated, with a header; amounts in full."""
    table(columns, [{name: _number(row.get(name)) for name in columns} for row in rows])


def _number(value: Any) -> Any:
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return str(_number(value))
    text = safe(str(value))
    return "'" + text if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t")) else text


# ---------------------------------------------------------------- a table that fits


def terminal() -> Console | None:
    """The terminal that stdout is, None when it is none. Without colour there is not a single escape byte."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from llmctl.cli.colour import console

    return console(sys.stdout, os.environ)


def draw(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    spare: Sequence[str],
    total: Mapping[str, Any] | None = None,
    shares: Sequence[float] = (),
) -> None:
    """The table on the terminal, never wider than it: first `spare` columns go, in order, then keys fold.

    `shares` are bars, one for each row, behind the last column that is no time; `total` is the line at the end.
    """
    from rich.box import SIMPLE
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    lines = _cells(columns, rows)
    foot = {each.heading: each.cell(total) for each in columns if not each.key} if total else {}
    if total:
        foot |= {each.heading: "total" if each is columns[0] else "" for each in columns if each.key}
        lines.append(foot)
    needs = {
        each.heading: max(cell_len(each.heading), *(cell_len(line[each.heading]) for line in lines), 1)
        for each in columns
    }
    widths, bars = _fit(console.width, columns, needs, list(spare), bars=any(shares))
    drawn = Table(
        box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_footer=total is not None
    )
    for each in columns:
        if each.heading not in widths:
            continue
        width = widths[each.heading]
        last = Text(fold(foot[each.heading], width), style="bold") if total else ""
        drawn.add_column(
            each.heading, last, justify="left" if each.key else "right", style=each.style, width=width, no_wrap=True
        )
        if each.heading == "cost" and bars:
            drawn.add_column("", style=_ACCENT, width=bars, no_wrap=True)
    top = max(shares, default=0) or 1
    for line, share in zip(lines, shares or [0.0] * len(rows), strict=False):
        cells = [Text(fold(line[name], width)) for name, width in widths.items()]
        if bars:
            cells.insert(list(widths).index("cost") + 1, Text(bar(share / top, bars, plain=is_plain(console))))
        drawn.add_row(*cells)
    paint(console, drawn)


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The cells of each row; leading keys that are those of the row above stay empty."""
    lines: list[dict[str, str]] = []
    above: list[str] = []
    for row in rows:
        line = {each.heading: each.cell(row) for each in columns}
        keys = [line[each.heading] for each in columns if each.key]
        for each, key, before in zip(columns, keys[:-1], above, strict=False):
            if key != before:
                break
            line[each.heading] = ""
        above = keys
        lines.append(line)
    return lines


def _fit(
    width: int, columns: Sequence[Column], needs: Mapping[str, int], spare: list[str], *, bars: bool
) -> tuple[dict[str, int], int]:
    """How wide each column that is shown may be, and how wide the bars."""
    shown = {each.heading: needs[each.heading] for each in columns}
    keys = [each.heading for each in columns if each.key]
    least = {name: min(needs[name], _LEAST_KEY) for name in keys}

    def room() -> int:
        return width - sum(need + GAP for name, need in shown.items() if name not in least) - GAP * (len(least) - 1)

    while spare and room() - (_LEAST_BAR + GAP) * bars < sum(least.values()):
        name = spare.pop(0)
        shown.pop(name, None)
        bars = bars and name != BARS
    left = room() - (_LEAST_BAR + GAP) * bars
    for name in sorted(keys, key=needs.__getitem__):  # the shortest are served first, so that dates stay whole
        rest = len([each for each in keys if needs[each] > needs[name] or each == name])
        shown[name] = max(1, min(needs[name], left // max(1, rest) if rest > 1 else left))
        left -= shown[name]
    return shown, min(_LONGEST_BAR, _LEAST_BAR + max(0, left)) * bars


def fold(text: str, width: int) -> str:
    """`text` on lines of `width` cells, broken after a separator where one is near; cut after a few lines."""
    from rich.cells import cell_len, chop_cells

    lines: list[str] = []
    while cell_len(text) > width:
        piece = chop_cells(text, width)[0]
        if len(lines) == _FOLDS - 1:
            return "\n".join([*lines, piece[:-1] + "…"])
        near = max(piece.rfind(mark) + 1 for mark in "/-:_. ")
        piece = piece[:near] if near > len(piece) // 2 else piece
        lines.append(piece)
        text = text[len(piece) :]
    return "\n".join([*lines, text])


def paint(console: Console, *pieces: Any) -> None:
    """`pieces` on the terminal, each on lines of its own, as UTF-8 whatever the locale."""
    with console.capture() as drawn:
        for piece in pieces:
            console.print(piece, crop=False)
    write(drawn.get())


def draw_line(console: Console, values: Sequence[int], words: str) -> None:
    """A sparkline of `values`, one for a day, and what it says, beside it or, where there is no room, below."""
    from rich.cells import cell_len
    from rich.text import Text

    each = -(-len(values) // min(console.width, _LONGEST_SPARK))
    words += f"; a bar is {each} days" if each > 1 else ""
    line = "" if is_plain(console) else sparkline(values, min(console.width, _LONGEST_SPARK))
    gap = "  " if len(line) + 2 + cell_len(words) <= console.width else "\n"
    paint(console, Text.assemble((line, _ACCENT), gap if line else "", words))


def draw_facts(console: Console, facts: Sequence[Fact]) -> None:
    """The facts below a table, their notes folded at words, or below them where there is no room beside."""
    from rich.table import Table
    from rich.text import Text

    if console.width < _LEAST_FACTS:
        paint(console, *(Text(_in_words(each)) for each in facts))
        return
    drawn = Table.grid(padding=(0, GAP, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(justify="right", no_wrap=True)
    drawn.add_column(justify="right", no_wrap=True)
    drawn.add_column(style="dim")
    places = decimals(each.nanousd for each in facts)
    for each in facts:
        calls = "" if each.calls is None else count(each.calls)
        drawn.add_row(each.what, calls, money(each.nanousd, missing="", decimals=places), Text(each.note))
    paint(console, drawn)


def _in_words(fact: Fact) -> str:
    amounts = (
        f"{count(fact.calls)} call{'s' * (fact.calls != 1)}" if fact.calls else "",
        money(fact.nanousd, missing=""),
    )
    return f"{fact.what}: {', '.join(filter(None, amounts))}" + (f" ({fact.note})" if fact.note else "")


def is_plain(console: Console) -> bool:
    """Whether the terminal may have no characters for blocks."""
    return not console.encoding.lower().startswith("utf")
