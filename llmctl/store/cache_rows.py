"""What a row of the cache says: entries and vectors packed, sealed, and read again without believing a damaged file.

A seal is a hash over all that is answered, the keys included, so that a spoilt byte makes a miss: never a wrong answer,
nor another request's. It is no signature: whoever may write the file may write what it answers.
"""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from llmctl.core.caching import LARGEST, Entry, unpacked
from llmctl.core.scope import Key
from llmctl.store.schema import stored

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from llmctl.core.caching import Vector

COLUMNS = (
    "id", "scope", "exact", "canonical", "created_at", "expires_at", "model", "served_by", "provider", "deployment",
    "cost_nanousd",
)  # fmt: skip
"""Of `entries`, what is answered: together with the texts, what the seal is over."""
OVERHEAD, OVERHEAD_OF_A_VECTOR, OVERHEAD_OF_A_DOCUMENT = 700, 150, 150
"""The bytes that each takes in the file beside its texts or data, its share of the indexes included (measured)."""
SWEPT, EVICTED = 8, 500
"""The most expired entries that go with every one that is kept, and the most of all that make room for one."""
DAY_S = 86_400.0
SPARED_S = 2 * DAY_S
"""Vectors make room only so long after their last use, which is noted to the day: a corpus larger than their share,
read in one order, would else throw out each of its vectors just before it is looked for."""
ENTRY = f"SELECT {', '.join(COLUMNS)}, prompt, answer, seal, n FROM entries JOIN texts ON entry = n"  # noqa: S608
"""The row that `entry_of` reads."""
ADD_VECTOR = (
    "INSERT INTO vectors (bytes, key, model, created_at, used_at, cost_nanousd, seal, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
"""Keeps a `vector_row`."""


def seal_of(*values: Any) -> bytes:
    """The hash over values that SQLite gives back as they were: each with its type and its length."""
    sealed = blake2b(digest_size=16)
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        sealed.update(b"%s%d:" % (type(value).__name__.encode(), len(data)))
        sealed.update(data)
    return sealed.digest()


def row_of(entry: Entry) -> tuple[tuple[Any, ...], str, bytes] | None:
    """The values of COLUMNS, the prompt and the answer as they are kept; None for one that cannot be kept whole.

    That is one too large or no JSON, or a prompt that is no UTF-8: from another text no key could be derived again.
    """
    try:
        answer = json.dumps(entry.answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        prompt = entry.prompt.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    if len(answer) + len(prompt) > LARGEST:
        return None
    names = (stored("", name) for name in (entry.group, entry.served_by, entry.provider, entry.deployment))
    times = float(entry.created_at), float(entry.expires_at)  # as SQLite will give them back
    values = (entry.id, *entry.key, *times, *names, entry.cost_nanousd)
    return values, entry.prompt, zlib.compress(answer)


def entry_size(prompt: str, answer: bytes, documents: Collection[str]) -> int:
    """The bytes that an entry counts for."""
    return len(prompt.encode()) + len(answer) + OVERHEAD + OVERHEAD_OF_A_DOCUMENT * len(documents)


def vector_row(key: bytes, vector: Vector, model: str, now: float) -> tuple[Any, ...]:
    """The values of a row of `vectors`, its size first."""
    data, cost = vector
    return len(data) + OVERHEAD_OF_A_VECTOR, key, model, now, now, cost, seal_of(key, data, cost), data


def entry_of(row: Sequence[Any], documents: Sequence[str]) -> Entry:
    """The entry of a row of ENTRY. Raises ValueError for one that is damaged, or no whole answer."""
    *values, prompt, answer, seal, _ = row
    if seal != seal_of(*values, prompt, answer):
        raise ValueError("a damaged entry")
    call, scope, exact, canonical, made, until, group, served_by, provider, deployment, cost = values
    held = json.loads(inflated(answer))
    unpacked(held)
    key = Key(scope, exact, canonical)
    return Entry(
        call, key, made, until, group, served_by, provider, deployment, prompt, held, cost, tuple(documents)
    )  # fmt: skip


def inflated(data: bytes) -> bytes:
    """What was compressed, unless it is more than an entry may be: a few bytes can stand for gigabytes."""
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(data, LARGEST)
    except zlib.error as error:
        raise ValueError("a damaged entry") from error
    if not inflating.eof:
        raise ValueError("an entry that is cut, or too large")
    return text
