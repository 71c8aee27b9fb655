"""One provider's prices: which row a model's name means, and what it costs at an instant. Reads no file.

A provider is one JSON line: {"provider": id, "fallback": [ids], "models": [rows, in the order they are tried]}. A row
has an `id` and, where there is something to say, `match`, `window` (the most input tokens), `old` (1: deprecated),
`price`, and for a row of our own `source` and `date`. The clauses of `match` are texts whose first character says how
they compare: "=" the whole name, "^" its beginning, "$" its end, "~" a part, "/" a regular expression found in it; a
list is "or", {"and": [...]} is "and"; without `match` it is the row's id.

A price is a text of USD: per million tokens of input, output, cached input, written cache and reasoning, then per
request; "-" for what has no price of its own; the last ones may be absent. {"": text, "200000": text} has tiers: with
more input tokens than that, the whole request costs that. [[when, price], ...] is dated: "" always, "2025-01-31" from
that day on, "16:30-00:30" between these times of each day (UTC). Without a price, or with "", nobody knows.

Names are matched and dates decided as genai-prices does (pydantic/genai-prices `types.py`, release 0.2.3, 2026-11-20).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.money import ATTO, NANO, Price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_DAY_S = 86_400
_EPOCH = 719_163  # the ordinal of 1970-01-01
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
_COMPACT_DATE = r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)"  # not compiled before a name may have one


class Dated(NamedTuple):
    """A price, None for an unknown one, and when it holds: between two instants of the world, or of each day."""

    when: str
    price: Price | None
    since: float = float("-inf")
    daily: tuple[float, float] | None = None

    def active(self, at: float) -> bool:
        """Whether it holds at `at` (Unix seconds)."""
        if self.daily is None:
            return at >= self.since
        (begin, end), now = self.daily, at % _DAY_S
        return begin <= now < end if begin <= end else now >= begin or now < end


class Model(NamedTuple):
    """A row of the table: all its prices, the last that holds wins; `version` says which table it is from."""

    id: str
    provider: str
    version: str
    prices: tuple[Dated, ...]
    context_window: int | None = None
    deprecated: bool = False
    source: str = ""

    def in_force(self, at: float) -> Dated | None:
        """What it costs at `at`, the first price where none holds; None where it has none at all."""
        return next((each for each in reversed(self.prices) if each.active(at)), next(iter(self.prices), None))

    def price(self, at: float) -> Price | None:
        """What it costs at `at` (Unix seconds), None when that is unknown."""
        found = self.in_force(at)
        return found and found.price


class Line(NamedTuple):
    """The line of one provider, parsed; its rows are not yet looked at."""

    provider: str
    fallback: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


def parsed(text: str | bytes) -> Line:
    """The line of a provider. Raises ValueError for a damaged one."""
    try:
        row = json.loads(text)
        return Line(row["provider"], tuple(row.get("fallback", ())), tuple(row["models"]))
    except _DAMAGE as error:
        raise _damaged("line", error) from error


def find(line_of: Callable[[str], Line | None], provider: str, name: str, version: str, *, exact: bool) -> Model | None:
    """The row of `provider` that `name` means, or that of a provider whose models it hosts; None when there is none.

    `exact` takes rows only whose name is the whole of it. Raises ValueError for a damaged line.
    """
    own = line_of(provider)
    if own is None:
        return None
    name = name.lower()
    dashed = re.sub(_COMPACT_DATE, _dashed, name) if "-20" in name else name
    for spelled in dict.fromkeys((name, dashed)):
        for line in (own, *filter(None, map(line_of, own.fallback))):
            for row in line.rows:
                if _means(row, spelled, exact=exact):
                    return model(row, line.provider, version)
    return None


def model(row: Mapping[str, Any], provider: str, version: str) -> Model:
    """A row of the table. Raises ValueError for a damaged one."""
    try:
        name, window, source = str(row["id"]), row.get("window"), str(row.get("source", ""))
        if type(window) not in (int, type(None)):
            raise TypeError("window")
        if source:
            version = f"llmctl {row['date']}"
        prices = tuple(_dated(row.get("price"), version))
        return Model(name, provider, version, prices, window, bool(row.get("old")), source)
    except _DAMAGE as error:
        raise _damaged("row", error) from error


def names(row: Mapping[str, Any]) -> list[str]:
    """The names that the row's clauses spell out, in lower case."""
    return [each[1:] for each in _leaves(row.get("match", f"={row['id'].lower()}")) if each[0] == "="]


def _damaged(what: str, error: Exception) -> ValueError:
    return ValueError(f"a damaged {what} of prices: {error!r:.120}")


def _means(row: Mapping[str, Any], name: str, *, exact: bool) -> bool:
    try:
        match = row.get("match")
        if match is None:
            return bool(row["id"].lower() == name)
        return name in names(row) if exact else _holds(match, name)
    except (*_DAMAGE, re.error) as error:
        raise _damaged("row", error) from error


def _holds(clause: Any, name: str) -> bool:
    if isinstance(clause, list):
        return any(_holds(each, name) for each in clause)
    if isinstance(clause, dict):
        return all(_holds(each, name) for each in clause["and"])
    kind, text = clause[0], clause[1:]
    match kind:
        case "=":
            return bool(name == text)
        case "^":
            return name.startswith(text)
        case "$":
            return name.endswith(text)
        case "~":
            return text in name
        case "/":
            return re.search(text, name) is not None
    raise ValueError(f"{kind!r} begins no clause")


def _leaves(clause: Any) -> Iterator[str]:
    if isinstance(clause, str):
        yield clause
    for each in clause if isinstance(clause, list) else ():
        yield from _leaves(each)


def _dashed(found: re.Match[str]) -> str:
    """`-20241022` as `-2024-10-22`, where there is such a day."""
    try:
        _midnight("-".join(found.groups()))
    except ValueError:
        return found[0]
    return "-" + "-".join(found.groups())


def _dated(price: Any, version: str) -> Iterator[Dated]:
    if price is None:
        return
    for when, each in price if isinstance(price, list) else [("", price)]:
        cost = _price(each, version)
        if not when:
            yield Dated(when, cost)
        elif ":" in when:
            begin, end = when.split("-")
            yield Dated(when, cost, daily=(_second(begin), _second(end)))
        else:
            yield Dated(when, cost, since=_midnight(when))


def _price(given: Any, version: str) -> Price | None:
    if isinstance(given, str):
        return _flat(given, version) if given else None
    tiers = sorted((int(start), _flat(text, version)) for start, text in given.items() if start)
    return _flat(given[""], version)._replace(tiers=tuple(tiers))


def _flat(text: str, version: str) -> Price:
    amounts: list[int | None] = [None if word == "-" else _atto(word) for word in text.split()]
    plain, made, cached, written, thought, request = amounts + [None] * (6 - len(amounts))
    if plain is None or made is None:
        raise ValueError("no price of input or output")
    return Price(plain, made, cached, written, thought, (request or 0) // NANO, version=version)


def _atto(text: str) -> int:
    """USD as atto-dollars, without `decimal`, which is slow to load."""
    whole, point, part = text.partition(".")
    digits = text.isascii() and whole.isdigit() and (part.isdigit() or not point)
    if not digits or len(whole) > 13 or len(part) > 18:
        raise ValueError("no amount")
    return int(whole) * ATTO + int(part.ljust(18, "0"))


def _midnight(day: str) -> float:
    from datetime import date  # few rows are dated

    return (date.fromisoformat(day).toordinal() - _EPOCH) * float(_DAY_S)


def _second(text: str) -> float:
    hours, minutes, *seconds = map(int, text.split(":"))
    return hours * 3600.0 + minutes * 60 + sum(seconds)
