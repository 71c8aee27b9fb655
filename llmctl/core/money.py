"""Prices and costs in whole nano-dollars (1e-9 USD): an embedding costs less than a micro-dollar.

A price is kept per million tokens, as vendors print it, in nano-dollars, so that every published price is a whole
number. An unknown price is None all the way up: never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmctl.core.types import Usage

NANO = 1_000_000_000
_MILLION = 1_000_000


class Price(NamedTuple):
    """Nano-dollars per million tokens; a cached or written price of None means the input price."""

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None

    @classmethod
    def per_million(
        cls,
        input: float,  # noqa: A002 - the configuration's own key
        output: float,
        cached_input: float | None = None,
        cache_write: float | None = None,
    ) -> Price:
        """A price from USD per million tokens, as written in the configuration."""
        return cls(_nano(input), _nano(output), _maybe(cached_input), _maybe(cache_write))

    @classmethod
    def free(cls) -> Price:
        """The price of what nobody bills."""
        return cls(0, 0, 0, 0)

    def cost_nanousd(self, usage: Usage) -> int:
        """What `usage` costs, rounded half up to a whole nano-dollar."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        total = (
            plain * self.input
            + usage.cached_input_tokens * cached
            + usage.cache_write_tokens * written
            + usage.output_tokens * self.output
        )
        return (total + _MILLION // 2) // _MILLION


def usd(nanousd: int | None) -> float | None:
    """Nano-dollars as USD; None stays None."""
    return None if nanousd is None else nanousd / NANO


def _nano(dollars: float) -> int:
    return round(dollars * NANO)  # exact for six digits before the point, and `decimal` is slow to load


def _maybe(dollars: float | None) -> int | None:
    return None if dollars is None else _nano(dollars)
