"""The price table: which of its files is read, one provider's line of it at a time, and who is priced by it.

llmctl ships a table (`data/prices.jsonl`); the user's own, written by `llmctl cost prices update`, is used instead when
it is not older. The first line says what the table is, the others are described in `core/prices`. A call reads the file
and parses the lines of the providers it asks: a damaged one of the user's is left aside, with one warning.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from llmctl.config.files import read, write_private
from llmctl.core.errors import ConfigInvalid
from llmctl.core.prices import Line, find, model, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmctl.config.places import Places
    from llmctl.core.catalog import Deployment
    from llmctl.core.money import Price
    from llmctl.core.prices import Model

FORMAT = 1
SHIPPED = Path(__file__).parent.parent / "data" / "prices.jsonl"
OWN = SHIPPED.with_name("prices_own.toml")
STAYS = "the table in use stays as it is"
_ASK_AGAIN = "`llmctl cost prices update` writes it anew"
T = TypeVar("T")


class Table:
    """One file's table: `source` is whose data, `date` the day as of which it holds, `version` what ledger rows say.

    Raises ConfigInvalid for one that is no table of this format.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        """Reads the header only."""
        from datetime import date

        self.path = path
        self._data = data
        self._lines: dict[str, Line | None] = {}
        try:
            header = json.loads(data.partition(b"\n")[0])
            if header["format"] != FORMAT:
                raise ConfigInvalid(f"{path}: a price table of another format", hint=_ASK_AGAIN)
            self.source, self.release, self.date = (str(header[key])[:80] for key in ("source", "version", "date"))
            date.fromisoformat(self.date)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigInvalid(f"{path}: not a price table", hint=_ASK_AGAIN) from error
        self.version = f"{self.source} {self.release} {self.date}"

    def line(self, provider: str) -> Line | None:
        """The line of `provider`, None when there is none. Raises ValueError for a damaged one."""
        if provider not in self._lines:
            begin = self._data.find(b'\n{"provider":%s' % json.dumps(provider).encode())
            end = self._data.find(b"\n", begin + 1)
            self._lines[provider] = (
                None if begin < 0 else parsed(self._data[begin:] if end < 0 else self._data[begin:end])
            )
        return self._lines[provider]

    def lines(self) -> Iterator[Line]:
        """Every line. Raises ValueError for a damaged one."""
        for text in self._data.split(b"\n")[1:]:
            if text:
                yield parsed(text)

    def find(self, provider: str, name: str, *, exact: bool = False) -> Model | None:
        """The row that `name` means at `provider`. Raises ValueError for a damaged line."""
        return find(self.line, provider, name, self.version, exact=exact)

    def models(self) -> Iterator[Model]:
        """Every row, as it is listed. Raises ValueError for a damaged line."""
        for line in self.lines():
            for row in line.rows:
                yield model(row, line.provider, self.version)


class Sought(NamedTuple):
    """What a deployment is looked up by: the table's provider, the name, and whether only the whole name counts."""

    provider: str
    name: str
    exact: bool


def sought(deployment: Deployment) -> Sought | None:
    """What `deployment` is looked up by; None where the table cannot know what it costs, such as a server of one's own.

    An Azure deployment has a name that its customer made up. A `*` in the provider's key stands for what follows the
    last colon of the model's name: the host that a router was told to ask.
    """
    provider, name = deployment.provider, deployment.base_model or deployment.model
    where = provider.prices
    if "*" in where:
        name, _, host = name.rpartition(":")
        where = where.replace("*", host)
    return Sought(where, name, provider.protocol == "azure" and not deployment.base_model) if where and name else None


class PriceTable:
    """The table in force: the user's own when it is not older than the one that llmctl ships.

    `table` is the one that is read; `warnings` collects what a person must hear, once.
    """

    def __init__(self, own: Path | None, shipped: Path = SHIPPED) -> None:
        """Reads both headers; only a damaged file of the user's own is forgiven."""
        self.warnings: list[str] = []
        self._found: dict[Sought, Model | None] = {}
        data = read(shipped)
        assert data is not None, "the price table is part of the package"
        self._shipped = self.table = Table(data, shipped)
        try:
            mine = None if own is None else read(own)
            if own is not None and mine is not None:
                table = Table(mine, own)
                self.table = table if table.date >= self._shipped.date else self._shipped
        except ConfigInvalid as error:
            self._leave(f"{error.message}; {error.hint}")

    def find(self, deployment: Deployment) -> Model | None:
        """The row of `deployment`, None when the table has none."""
        key = sought(deployment)
        if key is None:
            return None
        if key not in self._found:
            self._found[key] = self._read(lambda table: table.find(key.provider, key.name, exact=key.exact))
        return self._found[key]

    def models(self) -> list[Model]:
        """Every row, as it is listed: all of the table has been read."""
        return self._read(lambda table: list(table.models()))

    def _read(self, what: Callable[[Table], T]) -> T:
        try:
            return what(self.table)
        except ValueError as error:
            if self.table is self._shipped:
                raise
            self._leave(f"{self.table.path}: {error}; {_ASK_AGAIN}")
            return what(self.table)

    def price(self, deployment: Deployment, at: float) -> Price | None:
        """What `deployment` costs at `at` (Unix seconds), None when that is unknown."""
        found = self.find(deployment)
        return found and found.price(at)

    def _leave(self, why: str) -> None:
        self.table = self._shipped
        self._found.clear()
        self.warnings.append(f"the price table that llmctl came with is used: {why}")


class Quotes:
    """What a deployment costs at this moment of a clock. The table is looked for when the first price is asked for."""

    def __init__(self, places: Places | None, now: Callable[[], float]) -> None:
        self._places = places
        self._now = now

    def __call__(self, deployment: Deployment) -> Price | None:
        """The price of `deployment` now, None when it is unknown."""
        return price_table(self._places).price(deployment, self._now())

    @property
    def warnings(self) -> list[str]:
        """What a person must hear about the table."""
        return price_table(self._places).warnings


def price_table(places: Places | None) -> PriceTable:
    """The price table of `places`, read once for the process. Without places it is the one that llmctl ships."""
    return _opened(None if places is None else places.prices)


@lru_cache(maxsize=8)
def _opened(own: Path | None) -> PriceTable:
    return PriceTable(own)


def checked(text: str, what: str = "the new price table") -> str:
    """`text`, when every row of it can be read. Raises ConfigInvalid."""
    try:
        table = Table(text.encode("utf-8"), Path(what))
        for line in table.lines():
            table.find(line.provider, "\0")  # a name that no row has, so that every clause is looked at
            for row in line.rows:
                model(row, line.provider, table.version)
    except ConfigInvalid as error:
        raise ConfigInvalid(error.message, hint=STAYS) from error
    except ValueError as error:
        raise ConfigInvalid(f"{what}: {error}", hint=STAYS) from error
    return text


def save(path: Path, text: str) -> None:
    """Put a table at `path` in one step. Raises ConfigInvalid when it cannot be written."""
    try:
        write_private(path, text)
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}", hint="choose a place that can be written with --to") from error
    _opened.cache_clear()
