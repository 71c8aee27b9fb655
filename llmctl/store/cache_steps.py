"""What is done to the rows of the cache, each inside a transaction of `cache`: finding, taking off, making room."""

from __future__ import annotations

import sqlite3
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from llmctl.core.caching import SKEW_S, Flight, Found, Vector
from llmctl.store.cache_rows import ENTRY, EVICTED, SPARED_S, SWEPT, entry_of, seal_of
from llmctl.store.patience import damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.caching import Tier
    from llmctl.core.scope import Key

_CHUNK = 500  # the variables of one statement, of which an older SQLite allows 999
_REMEMBERED_S, _CLEANED = 3600.0, 20


def find(
    connection: sqlite3.Connection, keys: Sequence[Key], tiers: Sequence[Tier], now: float, ttl_s: float
) -> tuple[Found | None, int]:
    """The newest live entry, or the `n` of a damaged one that stands in its place and is to be removed (else 0)."""
    exacts = [key.exact for key in keys]
    for tier in tiers:
        digests = exacts if tier == "exact" else [key.canonical for key in keys if key.canonical is not None]
        if not digests:
            continue
        sql = (
            f"{ENTRY} WHERE n = (SELECT n FROM entries AS e"  # noqa: S608 - marks only
            f" WHERE created_at - {SKEW_S} <= ? AND ? < expires_at AND ? < created_at + ?"
            f" AND {tier} IN ({_marks(digests)}) AND NOT EXISTS"
            f" (SELECT 1 FROM forbidden AS f WHERE f.entry = e.exact AND f.asked IN ({_marks(exacts)}))"
            " ORDER BY created_at DESC, n DESC LIMIT 1)"
        )
        try:
            row = connection.execute(sql, (now, now, now, ttl_s, *digests, *exacts)).fetchone()
        except sqlite3.DataError as error:
            raise damaged("a row is larger than any that is kept") from error
        if row is None:
            continue
        hashes = connection.execute("SELECT hash FROM documents WHERE entry = ? ORDER BY hash", (row[-1],))
        try:
            entry = entry_of(row, [each for (each,) in hashes])
        except (ValueError, TypeError, RecursionError):
            return None, row[-1]
        if getattr(entry.key, tier) not in digests:
            raise damaged("an index leads to another entry")
        return Found(entry, tier), 0
    return None, 0


def standing(connection: sqlite3.Connection, flight: bytes, now: float, since: float) -> Flight | None:
    """What a claim is told while somebody asks, or has given up; None when it may take off.

    A lease or an end from the future is none: the clock was set back.
    """
    sql = (
        "SELECT gave_up_at BETWEEN ? AND ?, owner IS NOT NULL AND renewed_at <= ? AND ? < expires_at"
        " FROM leases WHERE flight = ?"
    )
    gave_up, asking = connection.execute(sql, (since, now + SKEW_S, now + SKEW_S, now, flight)).fetchone() or (0, 0)
    return Flight(alone=True) if gave_up else Flight() if asking else None


def take(connection: sqlite3.Connection, flight: bytes, call_id: str, now: float, lease_s: float) -> None:
    """Take the lease, and clear away a few that nobody can be waiting for any more."""
    sql = "DELETE FROM leases WHERE flight IN (SELECT flight FROM leases WHERE expires_at < ? LIMIT ?)"
    connection.execute(sql, (now - _REMEMBERED_S, _CLEANED))
    connection.execute(
        "INSERT INTO leases (flight, owner, renewed_at, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT (flight)"
        " DO UPDATE SET owner = excluded.owner, renewed_at = excluded.renewed_at, expires_at = excluded.expires_at",
        (flight, call_id, now, now + lease_s),
    )


def totals(connection: sqlite3.Connection, *, anew: bool = False) -> dict[str, tuple[int, int]]:
    """How many entries and vectors there are, and their bytes; counted `anew` where damage shows."""
    if anew:
        connection.execute(
            "INSERT OR REPLACE INTO totals (name, count, bytes)"
            " SELECT 'entries', count(*), CAST(total(bytes) AS INTEGER) FROM entries"
            " UNION ALL SELECT 'vectors', count(*), CAST(total(bytes) AS INTEGER) FROM vectors"
        )
    found = {name: (count, size) for name, count, size in connection.execute("SELECT name, count, bytes FROM totals")}
    whole = found.keys() >= {"entries", "vectors"}
    if anew or (whole and all(type(n) is int and n >= 0 for row in found.values() for n in row)):
        return found
    return totals(connection, anew=True)


def make_room(
    connection: sqlite3.Connection,
    table: str,
    more: tuple[int, int],
    limits: tuple[int, int],
    was: tuple[int, int],
    now: float,
) -> bool:
    """Whether `more` (rows, bytes) fit: what has expired goes first, then what was used longest ago.

    A few at a time, so that no call waits. While that is not enough (the limits were lowered, or vectors are spared),
    what is kept may at least not grow beyond what it `was`.
    """
    held = totals(connection)[table]
    lack = [held[n] + more[n] - limits[n] for n in (0, 1)]
    gone: dict[int, None] = {}
    rows = "SELECT n, CAST(bytes AS INTEGER)"
    if table == "entries":
        dead = f"{rows}, 1 FROM entries WHERE expires_at <= ? ORDER BY expires_at, n"
        first, then = (dead, now), (f"{rows}, 0 FROM entries WHERE used_at >= ? ORDER BY used_at, n", -inf)
    else:  # those of the future: the clock was set back
        first = f"{rows}, 0 FROM vectors WHERE used_at < ? ORDER BY used_at, n", now - SPARED_S
        then = f"{rows}, 0 FROM vectors WHERE used_at > ? ORDER BY used_at, n", now + SKEW_S
    for n, size, expired in chain.from_iterable(connection.execute(sql, (at,)) for sql, at in (first, then)):
        if len(gone) >= EVICTED or (max(lack) <= 0 and not (expired and len(gone) < SWEPT)):
            break
        if n not in gone:
            gone[n] = None
            lack = [lack[0] - 1, lack[1] - size]
    connection.executemany(f"DELETE FROM {table} WHERE n = ?", [(n,) for n in gone])  # noqa: S608
    if table == "entries" and max(lack) > 0 and len(gone) < EVICTED:  # nothing is left, whatever the totals say
        held = totals(connection, anew=True)[table]
        lack = [held[n] + more[n] - limits[n] for n in (0, 1)]
    return all(lack[n] <= max(0, was[n] - limits[n]) for n in (0, 1))


def vectors(
    connection: sqlite3.Connection, keys: Sequence[bytes], after: float, now: float
) -> tuple[dict[bytes, Vector], list[int]]:
    """The vectors of `keys`, and the `n` of those last used outside (`after`, `now`]."""
    found: dict[bytes, Vector] = {}
    stale = []
    for at in range(0, len(keys), _CHUNK):
        some = keys[at : at + _CHUNK]
        sql = (
            "SELECT key, data, cost_nanousd, seal, n, used_at > ? AND used_at <= ?"  # noqa: S608 - marks only
            f" FROM vectors WHERE key IN ({_marks(some)})"
        )
        for key, data, cost, seal, n, fresh in connection.execute(sql, (after, now, *some)):
            if seal == seal_of(key, data, cost):
                found[key] = Vector(data, cost)
                if not fresh:
                    stale.append(n)
    return found, stale


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
