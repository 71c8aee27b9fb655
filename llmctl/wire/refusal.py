"""A refused request as an error of our tree: what every protocol's `classify` ends in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmctl.core.errors import from_wire
from llmctl.wire.headers import LONGEST_WAIT_S, request_id, retry_after_s, should_retry
from llmctl.wire.quota import exhausted_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.errors import ProviderError

BY_STATUS = {
    401: "auth", 402: "quota", 403: "permission", 404: "not_found", 408: "timeout", 409: "conflict", 413: "too_large",
    424: "conflict", 429: "rate_limit", 498: "conflict", 499: "conflict", 503: "unavailable", 504: "timeout",
    529: "overloaded",
}  # fmt: skip
"""What a status means where the body says nothing better: the neutral class names of `core.errors.WIRE_CLASSES`."""


# A policy about what is said, not about who may go where.
_POLICY = r"(?<!network )(?<!access )(?<!organization )(?<!firewall )(?<!security )(?<!retention )polic"
BY_MESSAGE = tuple(
    (wire_class, "|".join(patterns))
    for wire_class, patterns in (
        ("context_length", (
            r"context[ _](?:length|window|size|limit)", r"maximum context", r"prompt (?:is )?too long",
            r"(?:input|prompt)(?: is| tokens?| token length)? too (?:long|large)\b",
            r"too many tokens(?!: max tokens)", r"token (?:count|length) exceeds",
            r"exceed\w* .{0,60}(?:token limit|(?:input|context|prompt|sequence) length)",
            r"exceeds? (?:the )?max(?:imum)?(?: number of| allowed)?(?: input| prompt)? (?:tokens|length)",
            r"reduce (?:the length of|your) (?:the |your )?(?:messages|prompt|input)", r"max_(?:seq|model)_len\b",
            r"tokens \+ `?max_(?:new_)?tokens`? must be", r"`inputs` must have less than", r"range of input length",
            r"maximum (?:prompt|input|model|(?:supported )?sequence) length",
            r"'(?:messages|input)[^']*': string too long", r"prompt 超长",
        )),
        ("content_filter", (
            r"content[ _](?:filter|management|policy|moderation|exists risk)", r"safety (?:system|filter|polic)",
            r"(?:flagged|blocked|rejected|refused)\b.{0,60}(?:moderation|guardrail|unsafe|sensitive|high.risk)",
            rf"(?:flagged|blocked|rejected|refused)\b.{{0,60}}{_POLICY}",
            r"(?:moderation|guardrail)\w*\b.{0,40}(?:flagged|blocked)", r"(?:input|prompt|request|output) was flagged",
            rf"violat\w+ .{{0,60}}(?:{_POLICY}|guidelines|terms of)", r"inappropriate content", r"^blocked\b",
            r"deny.?listed", r"new_sensitive", r"(?:unsafe|harmful) or sensitive|sensitive content|敏感内容",
        )),
        ("quota", (
            r"insufficient[ _](?:account )?(?:balance|quota|credits?|funds)",
            r"exceeded your (?:current |monthly )?quota", r"credit balance",
            r"(?:out of|used all|no more|exceeded your) .{0,30}\bcredits\b",
            r"\bcredits (?:are|have been) (?:depleted|exhausted)", r"payment required",
            r"(?:spend|spending|billing)(?: hard)? (?:limit|cap)\b", r"reached .{0,40}usage limit",
            r"(?:plan and|update your|enable) billing|not active.{0,30} billing",
            r"account .{0,60}(?:overdue|in arrears)", r"account is in good standing", r"limited to .{0,30}/ ?month",
            r"余额不足|欠费",
        )),
        ("auth", (
            r"(?:invalid|incorrect|missing|expired|wrong|no) api.?(?:key|token)",
            r"api.?key (?:not valid|.{0,20}expired)", r"invalid authentication|authentication (?:failed|fails)",
            r"invalid (?:access|bearer|auth) token",
        )),
        ("not_found", (
            r"not a valid model", r"invalid model(?::| name| id)", r"unknown model\b", r"no such model",
            r"model\b.{0,200}(?:does not exist|doesn't exist|not found|has been decommissioned)", r"model not exist",
            r"supported (?:api )?model names are", r"model\b.{0,200} is not supported by (?:any )?provider",
        )),
        ("rate_limit", (r"rate.?limit(?:ed| reached| exceeded)", r"too many requests")),
        ("overloaded", (r"\boverloaded\b", r"capacity[ _]exceeded|at capacity")),
    )
)  # fmt: skip
"""What the words of a message mean where no code says it: the same for every provider; the first that fits.

Compiled when an error needs them, so that an answer does not pay for them.
"""

_AGAIN_IN = (
    r"(?:try again in|retry (?:after|in)) (?=\d)(?:(\d{1,9}) ?h[a-z]* ?)?(?:(\d{1,9}) ?m(?!s|illi)[a-z]* ?)?"
    r"(?:(\d{1,9}(?:\.\d{1,9})?) ?s)?(?:(\d{1,9}(?:\.\d{1,9})?) ?m(?:s|illi))?"
)
_UNCLEAR = (400, 412, 422, 498, 500)
"""Statuses behind which several meanings hide: 412 is Fireworks' for an unpaid account, 498 Cohere's and Groq's own."""
_BEHIND_403 = ("context_length", "content_filter", "quota")
"""What a 403 may mean: Together's for a long prompt, OpenRouter's for a flagged one, Moonshot's for no balance."""


def meaning(status: int, named: str | None, said: str) -> str:
    """The neutral class of a refusal: what its code is `named` for, else what its message says, else its status.

    Some statuses hide several meanings, and 429 hides an empty account ("too many tokens" is no long prompt there).
    Elsewhere the status decides: a 403 that names a missing model is still a refusal.
    """
    plainly = by_status(status)
    if status in _UNCLEAR:
        return named or by_message(said) or plainly
    if status == 403:
        return next((each for each in (named, by_message(said)) if each in _BEHIND_403), plainly)
    if status == 429:
        return named or ("quota" if by_message(said) == "quota" else plainly)
    return plainly


def by_message(said: str) -> str | None:
    """The neutral class that the words of a message give away, None when they say nothing known."""
    return next((name for name, pattern in BY_MESSAGE if re.search(pattern, said, re.IGNORECASE)), None)


def by_status(status: int) -> str:
    """The neutral class of a status of 400 or more; of any other, that it is neither an answer nor a refusal."""
    if status < 400:
        return "bad_response"
    return BY_STATUS.get(status) or ("server_error" if status >= 500 else "bad_request")


def refused(
    wire_class: str, status: int, headers: Mapping[str, str], said: str, now: float, *, wait_s: float | None = None
) -> ProviderError:
    """The error of neutral class `wire_class`; `wait_s` is what the body asked to wait, where the headers do not.

    Where nobody asks, a limit that is exhausted is waited for: it may let one request pass before it is whole again.
    """
    asked_s = retry_after_s(headers, now)
    if wire_class == "rate_limit" and asked_s is None and wait_s is None:
        wait_s = _said_wait_s(said)
        if wait_s is None:
            wait_s = exhausted_s(headers, now)
    return from_wire(wire_class)(
        f"HTTP {status}" + (f": {said}" if said else ""),
        status=status,
        retry_after_s=wait_s if asked_s is None else asked_s,
        request_id=request_id(headers),
        should_retry=should_retry(headers),
    )


def _said_wait_s(said: str) -> float | None:
    """The wait in `Please try again in 7m12.5s` (OpenAI, Groq) or `retry after 9 seconds` (Azure); None without one."""
    found = re.search(_AGAIN_IN, said, re.IGNORECASE)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(each or 0) for each in found.groups())
    return min(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000, LONGEST_WAIT_S)


def in_answer(wire_class: str, said: str, status: int | None = None) -> ProviderError:
    """The error of neutral class `wire_class` that was reported inside an answer."""
    return from_wire(wire_class)(
        f"the provider reported an error in its answer: {said or 'no message'}", status=status or 200
    )
