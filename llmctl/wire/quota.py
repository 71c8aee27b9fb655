"""What providers say in response headers about limits: how much there is, what remains, when it is whole again.

One table of header names for everybody, since nobody uses another's name for something else; only what a bare limit of
requests is for differs, and the dialect says it (`requests_per`). Whatever a header holds, nothing here raises.
DeepSeek, Gemini and Bedrock say nothing in headers. Who waits for what is the business of routing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmctl.core.snapshot import Said
from llmctl.wire.headers import number, seconds_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MINUTE_S, _DAY_S = 60.0, 86400.0
_SECONDS = {"second": 1.0, "minute": _MINUTE_S, "day": _DAY_S}
_MOST = 1e15  # a larger number means "unlimited"
_SURELY_NO_MINUTE_S = 2 * _MINUTE_S  # until a minute's limit is whole, however wrong our clock is
_PACE = 0.4  # of a day's pace: counts in headers are rounded, and a minute's pace is 1/1440 of it

_SAID = ("limit", "remaining", "reset")
_BARE = tuple(
    tuple(name.format(said) for said in _SAID) for name in ("x-ratelimit-{}", "x-ratelimit-{}-dynamic", "ratelimit-{}")
)
_NAMED = {  # what is counted, over how many seconds (None: what `requests_per` says) -> the names of its headers
    ("rp", None): ("x-ratelimit-{}-requests",),  # OpenAI and most others: https://developers.openai.com/api/docs/guides/rate-limits
    ("rp", _MINUTE_S): (
        "anthropic-ratelimit-requests-{}",  # https://platform.claude.com/docs/en/api/rate-limits
        "x-ratelimit-{}-requests-minute",  # beside the day's
        "x-ratelimit-{}-req-minute",  # Mistral: not documented, seen in its answers of 2026
    ),
    ("tp", _MINUTE_S): (
        "x-ratelimit-{}-tokens",
        "x-ratelimit-{}-tokens_usage_based",  # OpenAI: https://community.openai.com/t/1268905
        "x-ratelimit-{}-project-tokens",  # OpenAI, where the project has a limit of its own
        "x-ratelimit-{}-tokens-minute",  # Cerebras, Mistral: https://inference-docs.cerebras.ai/support/rate-limits
        "x-ratelimit-{}-tokens-per-minute",  # https://docs.digitalocean.com/products/inference/reference/quota-specific-response-headers
        "anthropic-ratelimit-tokens-{}",
    ),
    ("itp", _MINUTE_S): (
        "anthropic-ratelimit-input-tokens-{}",
        "x-ratelimit-{}-input-tokens",  # Baidu Qianfan
        "x-ratelimit-{}-tokens-prompt",  # https://docs.fireworks.ai/serverless/rate-limits
    ),
    ("otp", _MINUTE_S): (
        "anthropic-ratelimit-output-tokens-{}",
        "x-ratelimit-{}-output-tokens",
        "x-ratelimit-{}-tokens-generated",
    ),
    ("rp", _DAY_S): ("x-ratelimit-{}-requests-day",),  # Cerebras, https://docs.sambanova.ai/docs/en/models/rate-limits
    ("tp", _DAY_S): ("x-ratelimit-{}-tokens-day", "x-ratelimit-{}-tokens-per-day"),
    ("tp", 1.0): ("x-tokenlimit-{}", "x-tokenlimit-{}-dynamic"),  # https://docs.together.ai/docs/rate-limits
}  # fmt: skip
_ROWS = tuple(
    (unit, window_s, tuple(name.format(said) for said in _SAID))
    for (unit, window_s), names in _NAMED.items()
    for name in names
)
_MOST_RESTRICTIVE = "anthropic-ratelimit-tokens-limit"  # repeats one of the others, or both together


def limits_said(headers: Mapping[str, str], now: float, dialect: Mapping[str, Any]) -> tuple[Said, ...]:
    """What the headers of a response say of limits, at most once per meter: where several do, the tightest.

    A limit of 0 is left out (Mistral's for a plan without the model): no wait helps there.
    """
    found: dict[str, Said] = {}
    for said in (*_named(headers, now, dialect), *_unnamed(headers, now, dialect)):
        if said.meter not in found or _tightness(said) < _tightness(found[said.meter]):
            found[said.meter] = said
    if _MOST_RESTRICTIVE in headers and found.keys() & {"itpm", "otpm"}:
        found.pop("tpm", None)
    return tuple(found.values())


def exhausted_s(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds until the last of the exhausted limits is whole again; None where no header says of any.

    What is left of the others delays nobody, and the meters' periods change nothing: no dialect is needed.
    """
    waits = (said.reset_s for said in limits_said(headers, now, {}) if said.remaining == 0)
    return max((wait_s for wait_s in waits if wait_s), default=None)


def _tightness(said: Said) -> tuple[float, float]:
    return (float("inf") if said.remaining is None else said.remaining, -(said.reset_s or 0.0))


def _named(headers: Mapping[str, str], now: float, dialect: Mapping[str, Any]) -> Iterator[Said]:
    for unit, window_s, names in _ROWS:
        if names[0] in headers or names[1] in headers:
            values = _values([headers.get(name, "") for name in names], now)
            seconds = window_s or _SECONDS.get(dialect.get("requests_per", "")) or _requests_per_s(values, dialect)
            yield from _meter(unit, seconds, *values)


def _unnamed(headers: Mapping[str, str], now: float, dialect: Mapping[str, Any]) -> Iterator[Said]:
    """The limit of requests that stands without a name: `x-ratelimit-limit` (Together, OpenRouter) and its like.

    RateLimit fields are https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers: several headers until
    06, one with `limit=, remaining=, reset=` in 07, `"name";r=;t=` since 08. What is not about one limit is left.
    """
    policy = _pairs(headers.get("ratelimit-policy", ""))
    combined = policy | _pairs(headers.get("ratelimit", ""))
    texts = [[headers.get(name, "") for name in names] for names in _BARE]
    texts.append([combined.get(each, "") for each in _SAID])
    for limit, remaining, reset in texts:
        if limit or remaining:
            plain, _, window = limit.partition(";")
            seconds = number((_pairs(window) or policy).get("window")) or _SECONDS.get(dialect.get("requests_per", ""))
            yield from _meter("rp", seconds, *_values([plain.partition(",")[0], remaining, reset], now))


_SHORT = {"q": "limit", "r": "remaining", "t": "reset", "w": "window"}


def _pairs(text: str) -> dict[str, str]:
    """The numbers of a RateLimit field by name; none where it speaks of several limits, or of no requests."""
    pairs = re.findall(r"\b(limit|remaining|reset|window|[qrtw])=(\d{1,15})\b", text[:1000], re.ASCII)
    found = {_SHORT.get(name, name): value for name, value in pairs}
    return found if len(found) == len(pairs) and "qu=" not in text else {}


_Values = tuple[float | None, float | None, float | None]


def _values(texts: Sequence[str], now: float) -> _Values:
    limit, remaining, reset = texts
    return (_count(limit), _count(remaining), seconds_until(reset, now))


def _count(text: str) -> float | None:
    found = number(text)
    return found if found is not None and found <= _MOST else None


def _requests_per_s(values: _Values, dialect: Mapping[str, Any]) -> float:
    """The seconds that a bare limit of requests is for: a minute, unless it is refilled at a day's pace.

    OpenAI shows small accounts the day's limit under this name: 9999 of 10000 remain, and it is whole in 8.64 s.
    """
    limit, remaining, reset_s = values
    days = reset_s is not None and reset_s > _SURELY_NO_MINUTE_S
    if dialect.get("shape") == "bucket" and limit and remaining is not None and reset_s is not None:
        days = days or reset_s > _PACE * _DAY_S * max(1 - remaining / limit, 1 / limit)
    return _DAY_S if days else _MINUTE_S


def _meter(
    unit: str, window_s: float | None, limit: float | None, remaining: float | None, reset_s: float | None
) -> Iterator[Said]:
    """What is said of one limit, as a meter of ours; of a window we have none for, only that it is exhausted.

    A shorter window counts as the minute's share: what remains of a second is as much of the second's limit.
    """
    if limit == 0 or (limit is None and remaining is None):
        return
    if window_s == _DAY_S:
        yield Said(f"{unit}d", limit, remaining, reset_s)
    elif window_s == _MINUTE_S:
        yield Said(f"{unit}m", limit, remaining, reset_s)
    elif window_s and 1 <= window_s < _MINUTE_S:
        scale = _MINUTE_S / window_s
        if reset_s is None:
            remaining = None  # what is left of a second without its end would be taken for the minute's
        if limit is not None or remaining is not None:
            yield Said(f"{unit}m", limit and limit * scale, remaining and remaining * scale, reset_s)
    elif remaining == 0 and reset_s is not None:
        yield Said(f"{unit}{'m' if reset_s <= _MINUTE_S else 'd'}", None, remaining, reset_s)
