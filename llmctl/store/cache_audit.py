"""Why a call was answered from the cache, or was not: the decision derived again from what was kept, bit for bit.

A hit left the keys that were asked and found, and the text that was asked; the entry has its scope and its own text.
With those, today's rules must come to the same keys. What nobody kept (how a call that missed was set) is not guessed.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.core.caching import SKEW_S
from llmctl.core.canonical import canonical
from llmctl.core.errors import StateUnusable, UsageError
from llmctl.core.scope import VERSION, Key, key_of
from llmctl.core.screen import screen
from llmctl.store.cache_reading import DISPOSABLE, opened, read_entry, resolve

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llmctl.core.caching import Entry

_OFF = (
    "the cache was not used: `--cache off`, a mode of the configuration, a command that caches only when told, a"
    " temperature above 0 without a seed, or an image given by its address; which of them is not kept"
)
_NEWEST = "SELECT id FROM hits ORDER BY n DESC LIMIT 1"
_HIT: dict[str, Any] = {
    "id": str, "entry": str, "tier": str, "at": float, "age_s": float, "asked": bytes, "answered": bytes,
    "prompt": (str, NoneType), "version": int,
}  # fmt: skip


class Check(NamedTuple):
    """One condition of a decision: whether it holds today, None where that cannot be known, and in words."""

    name: str
    ok: bool | None
    detail: str


def why(path: Path | str, reference: str, call_of: Callable[[str], Mapping[str, Any]], now: float) -> dict[str, Any]:
    """The decision about a call or an entry: by its id, the beginning of one, or `last` (the newest hit).

    `decision` is hit, miss or off; `agrees` says whether today's rules decide a hit the same way, None where nobody can
    know. `call_of` is the ledger's row of an id; it raises UsageError. Raises UsageError, StateUnusable.
    """
    with opened(path) as connection:
        found = None if connection is None else resolve(connection, reference, _NEWEST)
        if found is None and reference == "last":
            raise UsageError("no call was answered from the cache yet", hint="`llmctl cache why ID` takes any call")
        if connection is not None and found is not None:
            query = f"SELECT {', '.join(_HIT)} FROM hits WHERE id = ? ORDER BY n DESC LIMIT 1"  # noqa: S608
            row = connection.execute(query, (found,)).fetchone()
            if row is not None:
                return _hit(connection, _whole(row), now)
            return _kept(connection, found, now)
        call = dict(call_of(reference))
        call["prompt"] = _question(call.get("prompt"))
        return _missed(call, [] if connection is None else _same_text(connection, call["prompt"] or "", call["id"]))


def _question(transcript: object) -> str | None:
    """The last user text of a prompt as the ledger keeps it (`run.accounts.transcript_of`)."""
    if not isinstance(transcript, str):
        return None
    spoken = transcript.startswith(("[system]\n", "[user]\n"))
    return transcript.rpartition("[user]\n")[2] if spoken else transcript


def _whole(row: tuple[Any, ...]) -> dict[str, Any]:
    """An audit row by its names. Raises StateUnusable for one that is not what was written."""
    hit = dict(zip(_HIT, row, strict=True))
    if not all(isinstance(hit[name], kind) for name, kind in _HIT.items()):
        raise StateUnusable("the audit row of this call is damaged", hint=DISPOSABLE)
    return hit


def _hit(connection: sqlite3.Connection, hit: dict[str, Any], now: float) -> dict[str, Any]:
    entry = read_entry(connection, hit["entry"])
    told: dict[str, Any] = {
        "id": hit["id"],
        "decision": "hit",
        "tier": hit["tier"],
        "at": hit["at"],
        "age_s": hit["age_s"],
        "asked": hit["prompt"] if hit["tier"] != "exact" or entry is None else entry.prompt,
        "keys": {name: hit[name].hex() for name in ("asked", "answered")},
        "rules": {"then": hit["version"], "now": VERSION},
        "entry": _entry(entry) or {"id": hit["entry"]},
    }
    checks = list(_checks(connection, hit, entry, told["asked"]))
    said = [check.ok for check in checks]
    told["agrees"] = False if False in said else None if None in said else True
    if hit["version"] != VERSION:  # other rules have other keys: nothing they kept is ever found by these
        told["agrees"] = None
    told["checks"] = [check._asdict() for check in checks]
    told["today"] = _today(connection, hit["asked"], entry, now)
    return told


def _checks(
    connection: sqlite3.Connection, hit: dict[str, Any], entry: Entry | None, text: str | None
) -> Iterator[Check]:
    """What had to hold for the hit, each by today's rules."""
    if entry is None:
        gone = connection.execute("SELECT 1 FROM entries WHERE id = ?", (hit["entry"],)).fetchone() is None
        yield Check("entry", None if gone else False, "it is gone: what was asked and answered is not known any more"
                    if gone else "it is damaged: its seal does not fit what it says")  # fmt: skip
        return
    yield Check("entry", True, "whole: its seal is over its keys, its text and its answer")
    if text is None:
        yield Check("request", None, "the text that was asked is not kept")
        return
    mine, asked = _keys(entry.key.scope, text), hit["asked"]
    same = mine.exact == asked
    if not same and hit["tier"] == "exact" and "\n" in text:
        yield Check("request", None, "the text was given in several parts, and only their sum is kept")
    else:
        word = "the" if same else "another"
        yield Check("request", same, f"this text, in the scope of the entry, has {word} key that was asked")
    if hit["tier"] == "exact":
        yield Check("key", asked == entry.key.exact, "that is the key of the entry" if asked == entry.key.exact
                    else "the entry has another key")  # fmt: skip
    else:
        kept = _keys(entry.key.scope, entry.prompt).canonical
        equal = mine.canonical is not None and mine.canonical == entry.key.canonical == kept
        means, other = canonical(text), canonical(entry.prompt)
        yield Check("canonical", equal, f"both mean {means!r}" if equal else f"asked {means!r}, kept {other!r}")
    yield _screened(text, hit["tier"])
    born = entry.created_at
    lived = born - SKEW_S <= hit["at"] < entry.expires_at and hit["age_s"] == hit["at"] - born
    yield Check("age", lived, f"it was {hit['age_s']:.0f} s old and could live for {entry.expires_at - born:.0f} s")
    pair = "SELECT at FROM forbidden WHERE asked = ? AND entry = ?"
    forbidden = connection.execute(pair, (asked, entry.key.exact)).fetchone()
    allowed = forbidden is None or forbidden[0] >= hit["at"]
    yield Check("allowed", allowed, "nobody had forbidden it" if allowed else "it had been forbidden before")


def _screened(text: str, tier: str) -> Check:
    reason = screen(text)
    if not reason:
        return Check("screen", True, "nothing in it is live, personal, back-referring or random")
    if tier == "exact":  # whoever says `--cache exact` is not screened, and nobody wrote down whether it was said
        return Check("screen", True, f"it is {reason}: only `--cache exact`, when said, answers such a prompt")
    return Check("screen", False, f"it is {reason}: no other wording may answer such a prompt")


def _keys(scope: bytes, text: str) -> Key:
    """The keys of a text inside a scope, as a call has them whose question is this text alone."""
    return key_of(scope, (text,), canonical(text))


def _today(connection: sqlite3.Connection, asked: bytes, entry: Entry | None, now: float) -> dict[str, Any]:
    """Whether the same call would be answered by the same entry now."""
    reason = ""
    pair = "SELECT 1 FROM forbidden WHERE asked = ? AND entry = ?"
    if entry is None:
        reason = "the entry is gone"
    elif connection.execute(pair, (asked, entry.key.exact)).fetchone():
        reason = "it has been forbidden"
    elif entry.expires_at <= now:
        reason = "the entry has expired"
    return {"answers": not reason, "reason": reason}


def _kept(connection: sqlite3.Connection, call_id: str, now: float) -> dict[str, Any]:
    """Of a call that missed, and whose answer is kept."""
    entry = read_entry(connection, call_id)
    reasons = ["when it was asked, nothing that lives was kept under its keys", "its own answer is kept since"]
    told = {"id": call_id, "decision": "miss", "tier": None, "agrees": None, "entry": _entry(entry) or {"id": call_id}}
    others = [] if entry is None else _same_text(connection, entry.prompt, call_id)
    today = _today(connection, entry.key.exact if entry else b"", entry, now)
    if entry is None:
        today["reason"] = "the entry is damaged"
    tiers = [] if entry is None else ["exact"] if entry.key.canonical is None else ["exact", "canonical"]
    if entry is not None and entry.key.canonical is None:
        reason = screen(entry.prompt)
        reasons.append("only the same text finds it: " + (f"it is {reason}" if reason else "no other means the same"))
    return told | {"reasons": reasons, "tiers": tiers, "others": others, "today": today}


def _missed(call: Mapping[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a call of which the cache has nothing: as far as its row in the ledger tells."""
    column, prompt = str(call["cache"]), call.get("prompt")
    told = {"id": call["id"], "tier": None, "agrees": None, "entry": None, "others": others}
    reason = screen(prompt) if prompt else ""
    if column == "off":
        word = f"the prompt is {reason}: such ones are kept out, unless `--cache exact` is said" if reason else _OFF
        return told | {"decision": "off", "reasons": ["drills do without the cache" if call.get("drill") else word]}
    if column != "miss":
        words = [f"it was answered from the cache ({column}), and its audit row is gone: only the newest are kept"]
        return told | {"decision": "hit", "tier": column, "reasons": words}
    words = ["when it was asked, nothing that lives was kept under its keys"]
    if call["state"] != "ok":
        words.append(f"its answer was not kept: the call is {call['state']}, and only whole answers are")
    elif prompt is None:
        words.append("its answer was not kept: no text of this call may be (`--no-log`, or content none)")
    else:
        words.append("its answer is not kept now: it expired, was removed or replaced, was too large or forbidden")
    return told | {"decision": "miss", "reasons": words}


def _same_text(connection: sqlite3.Connection, prompt: str, call_id: str) -> list[dict[str, Any]]:
    """Entries of the same text in other scopes: another model, address, system prompt, parameter or document."""
    if not prompt:
        return []
    rows = connection.execute(
        "SELECT id, model, served_by, created_at FROM entries JOIN texts ON entry = n"
        " WHERE length(prompt) = ? AND prompt = ? AND id <> ? ORDER BY created_at DESC LIMIT 5",
        (len(prompt), prompt, call_id),
    )
    return [dict(zip(("id", "model", "served_by", "created_at"), row, strict=True)) for row in rows]


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "id": entry.id,
        "model": entry.group,
        "served_by": entry.served_by,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
        "prompt": entry.prompt,
        "canonical": canonical(entry.prompt) if entry.key.canonical is not None else None,
        "documents": list(entry.documents),
        "keys": {
            "scope": entry.key.scope.hex(),
            "exact": entry.key.exact.hex(),
            "canonical": entry.key.canonical and entry.key.canonical.hex(),
        },
    }
