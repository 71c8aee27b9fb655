"""What may be answered from the cache, and what may be kept in it: the rules, pure, and the values they speak of.

Five modes: `off`; `exact`, `canonical` and `semantic`, each including those before it; `refresh`, which keeps the
answer and never looks. Whatever goes wrong is a miss: nobody fails, or is told something else, because of the cache.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmctl.core.errors import UsageError
from llmctl.core.types import Completion, Thought, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.scope import Key
    from llmctl.core.types import Request

Tier = Literal["exact", "canonical"]
MODES = ("off", "exact", "canonical", "semantic", "refresh")
TIERS: dict[str, tuple[Tier, ...]] = {
    "off": (),
    "exact": ("exact",),
    "canonical": ("exact", "canonical"),
    "refresh": (),
}
"""What each mode looks into, in this order."""
DEFAULTS = {"ask": "exact", "batch": "exact", "embed": "exact"}
"""The mode of commands that cache without being asked to; all others do when told."""
LARGEST = 4 << 20
"""The most bytes of one entry: a larger answer is not kept."""
SKEW_S = 5.0
"""By how much an entry may seem to come from the future: where a clock was set back by more, it is a miss."""
JITTER = 0.1
"""The share of a time to live that chance takes away, so that what was asked at once is not forgotten at once."""


class Settings(NamedTuple):
    """The `[cache]` table: `mode` None where it says none; times in seconds, sizes in bytes."""

    mode: str | None = None
    ttl_s: float = 86_400.0
    namespace: str = ""
    backend: str = "sqlite"
    max_entries: int = 100_000
    max_bytes: int = 512 << 20


class Use(NamedTuple):
    """How one call uses the cache: the tiers it looks into, whether its answer may be kept, and for how long.

    `why` says what keeps it out, "" where nothing does. `screened` is False where the caller has said that a prompt
    which is live, personal, back-referring or random may be answered from the cache all the same: exactly, never alike.
    """

    mode: str = "off"
    tiers: tuple[Tier, ...] = ()
    keeps: bool = False
    ttl_s: float = 86_400.0
    namespace: str = ""
    documents: tuple[str, ...] = ()
    screened: bool = True
    why: str = ""

    @property
    def off(self) -> bool:
        """Whether the cache has no part in the call."""
        return not self.tiers and not self.keeps


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept answer: `id` is that of the call it was given to. Times are Unix seconds.

    `prompt` is the last user text, `answer` the completion as plain data (`packed`), `group` the name that was asked,
    `cost_nanousd` what it cost (None: unknown), `documents` the content hashes it depends on.
    """

    id: str
    key: Key
    created_at: float
    expires_at: float
    group: str
    served_by: str
    provider: str
    deployment: str
    prompt: str
    answer: Mapping[str, Any]
    cost_nanousd: int | None = None
    documents: tuple[str, ...] = ()


class Found(NamedTuple):
    """An entry that answers a request, and the tier it was found in."""

    entry: Entry
    tier: Tier


class Asked(NamedTuple):
    """Who looks: the id of a call, "" without one, and its text where one may be kept (for the audit of hits)."""

    call_id: str
    prompt: str | None


class Flight(NamedTuple):
    """The answer to a claim on a request that may be under way already.

    `found` is an answer that has come meanwhile. Else `leads` says that this call is to ask, and others wait for it;
    `alone` that the one who was waited for has no answer to share. Neither: another call is asking.
    """

    leads: bool = False
    alone: bool = False
    found: Found | None = None


class Vector(NamedTuple):
    """A kept vector as 32-bit floats in the machine's order, and what it cost (None: unknown)."""

    data: bytes
    cost_nanousd: int | None = None


def mode_of(given: str | None, configured: str | None, table: str | None, command: str) -> tuple[str, bool]:
    """The mode of a call, and whether the caller said it: their word, the group's, the table's, the command's default.

    The `[cache]` table speaks to the commands that cache without being asked. Where a configuration says semantic, that
    which it includes is done. Raises UsageError where the caller says so, or names no mode.
    """
    if given is not None and given not in MODES:
        raise UsageError(f"unknown cache mode {given!r}", hint=f"one of {', '.join(MODES)}")
    default = DEFAULTS.get(command)
    mode = given or configured or (default and (table or default)) or "off"
    if given == "semantic":
        raise UsageError(
            "the semantic cache is not set up: this version has no encoder to find alike prompts with",
            hint="use exact, or canonical, which knows two wordings of one question",
        )
    return "canonical" if mode == "semantic" else mode, given is not None


def use_of(
    mode: str,
    request: Request,
    settings: Settings,
    *,
    said: bool,
    keeps_text: bool,
    ttl_s: float | None = None,
    documents: tuple[str, ...] = (),
) -> Use:
    """How a call in `mode` uses the cache; `said` when the caller named the mode, `ttl_s` is the group's own.

    A temperature above 0 that the caller set, without a seed, asks for chance: only `exact`, said, caches it.
    """
    why, insists = "", said and mode in ("exact", "refresh")
    sent = {"temperature": request.params.temperature, "seed": request.params.seed, **request.params.extra}
    if mode == "off":
        why = "the cache is off"
    elif not insists and sent["temperature"] and sent["seed"] is None:
        why = "a temperature above 0 without a seed asks for chance"
    if why:
        return Use(mode=mode, why=why, documents=documents)
    return Use(
        mode=mode,
        tiers=TIERS[mode],
        keeps=keeps_text,
        ttl_s=settings.ttl_s if ttl_s is None else ttl_s,
        namespace=settings.namespace,
        documents=documents,
        screened=not insists,
        why="" if keeps_text else "no text of this call is kept",
    )


def unfit(completion: Completion) -> str:
    """Why an answer is never kept, "" for one that may be: whole, not empty, not refused, nothing of it passed over."""
    if completion.finish_reason not in ("stop", "tool_calls"):
        return f"it ended by {completion.finish_reason or 'nothing'}"
    if completion.refusal:
        return "the model refused"
    if completion.skipped:
        return "some of it could not be read"
    if not completion.text.strip() and not completion.tool_calls:
        return "it is empty"
    return ""


def is_live(entry: Entry, now: float, ttl_s: float) -> bool:
    """Whether `entry` may answer now, under the time to live that holds today; not where it comes from the future."""
    return entry.created_at - SKEW_S <= now < min(entry.expires_at, entry.created_at + ttl_s)


def expires_at(now: float, ttl_s: float, chance: float) -> float:
    """When an entry made now is forgotten; `chance` is in [0, 1)."""
    return now + ttl_s * (1 - JITTER * chance)


_TEXTS = ("text", "reasoning", "reported_model", "system_fingerprint")


def packed(completion: Completion, parsed: Any = None, maker: str = "") -> dict[str, Any]:
    """An answer as plain data; `parsed` is its document under a schema, `maker` whose seals are on its thoughts."""
    return {
        **{name: getattr(completion, name) for name in _TEXTS},
        "finish_reason": completion.finish_reason,
        "tool_calls": [asdict(call) for call in completion.tool_calls],
        "thoughts": [asdict(thought) for thought in completion.thoughts],
        "usage": completion.usage and asdict(completion.usage),
        "parsed": parsed,
        "maker": maker,
    }


def unpacked(answer: Mapping[str, Any]) -> Completion:
    """The completion of `packed`, without its usage: a kept answer uses no tokens. Raises ValueError."""
    try:
        texts = {name: answer[name] for name in _TEXTS}
        calls = tuple(ToolCall(**call) for call in answer["tool_calls"])
        thoughts = tuple(Thought(**thought) for thought in answer["thoughts"])
        made = Completion(**texts, finish_reason=answer["finish_reason"], tool_calls=calls, thoughts=thoughts)
        words = [*texts.values(), *(each for call in calls for each in asdict(call).values())]
        words += [each for thought in thoughts for each in asdict(thought).values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("an entry of another shape") from error
    if not all(isinstance(word, str) for word in words) or unfit(made):
        raise ValueError("an entry that is no whole answer")
    return made
