"""Prices and costs: costs are whole nano-dollars (1e-9 USD), since an embedding costs less than a micro-dollar.

A price is kept per million tokens, as vendors print it, in whole atto-dollars (1e-18 USD): some tables publish sixteen
digits. An unknown price is None all the way up: never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from llmctl.core.types import Usage

NANO = 1_000_000_000
ATTO = NANO * NANO
_MILLION = 1_000_000
CONFIGURED = "config"
"""The version of a price that the user set."""
FREE = "free"
"""The version of the price of what nobody bills."""


class Price(NamedTuple):
    """Atto-dollars per million tokens; a cached, written or reasoned price of None means that of input or output.

    `request` is what each request costs besides, in nano-dollars. `tiers` are (tokens, price): that price holds for the
    whole request when its input has more tokens; ascending. `version` says which table the price is from.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    request: int = 0
    tiers: tuple[tuple[int, Price], ...] = ()
    version: str = CONFIGURED

    @classmethod
    def per_million(
        cls,
        input: float,  # noqa: A002 - the configuration's own key
        output: float,
        cached_input: float | None = None,
        cache_write: float | None = None,
    ) -> Price:
        """A price from USD per million tokens, as written in the configuration; nano-dollars are its finest unit."""
        return cls(_atto(input), _atto(output), _maybe(cached_input), _maybe(cache_write))

    @classmethod
    def free(cls) -> Price:
        """The price of what nobody bills."""
        return cls(0, 0, version=FREE)

    def as_json(self) -> dict[str, Any]:
        """USD per million tokens and per request, as JSON has them; what has no price of its own is null."""
        amounts = {name: getattr(self, name) for name in PARTS}
        return {
            **{name: None if amount is None else amount / ATTO for name, amount in amounts.items()},
            "request": self.request / NANO,
            "tiers": [{"above_tokens": start, **tier.as_json()} for start, tier in self.tiers],
        }

    def cost_nanousd(self, usage: Usage) -> int:
        """What one request of `usage` costs, rounded half up to a whole nano-dollar."""
        price = self
        for start, tier in self.tiers:
            if usage.input_tokens > start:
                price = tier
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        spoken = max(0, usage.output_tokens - usage.reasoning_tokens)
        total = (
            plain * price.input
            + usage.cached_input_tokens * (price.input if price.cached_input is None else price.cached_input)
            + usage.cache_write_tokens * (price.input if price.cache_write is None else price.cache_write)
            + spoken * price.output
            + min(usage.reasoning_tokens, usage.output_tokens)
            * (price.output if price.reasoning is None else price.reasoning)
        )
        unit = _MILLION * NANO
        return self.request + (total + unit // 2) // unit


PARTS = Price._fields[:5]
"""What tokens have a price for."""


def usd(nanousd: int | None) -> float | None:
    """Nano-dollars as USD; None stays None."""
    return None if nanousd is None else nanousd / NANO


def nano(dollars: float) -> int:
    """USD as nano-dollars."""
    return round(dollars * NANO)  # exact for six digits before the point, and `decimal` is slow to load


def _atto(dollars: float) -> int:
    return nano(dollars) * NANO


def _maybe(dollars: float | None) -> int | None:
    return None if dollars is None else _atto(dollars)
