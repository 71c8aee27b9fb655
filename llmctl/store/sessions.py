"""Conversations that are kept: a session by its name, and its exchanges, in the ledger's file.

An exchange is what was said in one turn, question to answer: it is kept, undone and forgotten whole, and only when its
answer is whole. Messages are OpenAI-shaped dicts, kept as they are; what they mean is not known here. Every method is
synchronous and one short transaction; looking never creates or changes the file.

    sessions = Sessions(places.ledger)
    session = sessions.open("work")                  # None: there is no such session yet
    ...ask with talk.replayed(session.exchanges) and the new turn...
    sessions.append("work", [*turn, answer.as_message()], answer.id, now, model=answer.record.model)

A session is there as long as it has an exchange. Exchanges are in the order in which they were completed. A session
that a newer llmctl wrote is refused, and so is one that cannot be read: nothing of it is lost.
"""

from __future__ import annotations

import json
import os
import sqlite3
from time import localtime, strftime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llmctl.core.errors import LedgerUnusable, UsageError
from llmctl.store.db import Database
from llmctl.store.expiry import forget_turns
from llmctl.store.history import opened
from llmctl.store.schema import SESSION_VERSION, SESSIONS, STEPS, SUMS, TURNS, columns_of, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

MAX_NAME = 200
_ALLOWED = "\u200c\u200d\u00a0\u3000"  # joiners within words of some scripts and within emoji, and their spaces
_LETTERS = "bcdfghjkmnpqrstvwxz"
_HINT = "`llmctl ledger check` says more; another --session begins anew"


class Exchange(NamedTuple):
    """One turn: the call that answered, when it was kept (Unix seconds), and its messages, the answer last."""

    call_id: str
    at: float
    messages: list[dict[str, Any]]


class Session(NamedTuple):
    """A conversation; `model`, `system` and `options` (parameters of a request) are those of its last turn.

    `saved` is False for one that is only about to be: its exchanges go to `append` as `before`.
    """

    name: str
    model: str | None
    system: str | None
    options: dict[str, Any]
    exchanges: tuple[Exchange, ...]
    saved: bool = True


class Summary(NamedTuple):
    """A session in a list; `begins` is how its first message begins, the cost None where a price is unknown."""

    name: str
    updated_at: float
    turns: int
    model: str | None
    begins: str
    cost_nanousd: int | None


class Latest(NamedTuple):
    """The newest whole answer of `ask` or `chat`: its session, or without one the texts that were kept."""

    call_id: str
    at: float
    model: str
    session: str | None
    prompt: str | None
    answer: str | None


def checked_name(name: str) -> str:
    """`name`, if a session may be called so: up to 200 characters, on one line. Raises UsageError."""
    if not name.strip():
        raise UsageError("the name of the session is empty", hint="for instance --session work")
    if len(name) > MAX_NAME or name != name.strip():
        what = f"over {MAX_NAME} characters" if len(name) > MAX_NAME else "white space at an end"
        raise UsageError(f"the name of the session has {what}", hint="for instance --session work")
    if not all(char.isprintable() or char in _ALLOWED for char in name):
        raise UsageError(f"the name of the session has control characters: {name!r}", hint="write it on one line")
    return name


class Sessions:
    """The sessions of one ledger file. One thread uses it at a time. Raises LedgerUnusable where the file cannot be."""

    def __init__(self, path: Path | str) -> None:
        """Touches nothing yet."""
        self.path = os.fspath(path)
        self._database = Database(path, STEPS)

    # ---------------------------------------------------------------- reading

    def open(self, name: str) -> Session | None:
        """The session of that name, None when there is none. Raises UsageError for what is no name."""
        checked_name(name)
        with opened(self.path) as connection:
            if connection is None or not columns_of(connection, "sessions"):
                return None
            row = connection.execute(
                "SELECT model, system, options, version FROM sessions WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                return None
            _check_version(name, row[3])
            query = "SELECT call_id, at, messages FROM turns WHERE session = ? ORDER BY at, call_id"
            turns = connection.execute(query, (name,)).fetchall()
        exchanges = tuple(Exchange(call, at, _messages(name, text)) for call, at, text in turns)
        return Session(name, row[0], row[1], _document(name, row[2] or "{}", dict), exchanges)

    def names(self, limit: int = 20) -> list[Summary]:
        """The sessions, the one last talked in first; `limit` 0 is all of them. What cannot be read begins with ""."""
        with opened(self.path) as connection:
            if connection is None or not columns_of(connection, "sessions"):
                return []
            unpriced = f"total({SUMS['unpriced_calls']}) > 0"
            query = (
                "SELECT name, updated_at, (SELECT count(*) FROM turns WHERE session = name), model, "  # noqa: S608 - ours
                "(SELECT messages FROM turns WHERE session = name ORDER BY at, call_id LIMIT 1), "
                f"(SELECT CASE WHEN {unpriced} THEN NULL ELSE sum(cost_nanousd) END FROM calls WHERE session = name) "
                # Sorted before texts are read: what is sorted is compared whole, and a turn may have 16 MiB.
                "FROM (SELECT name, updated_at, model FROM sessions ORDER BY updated_at DESC, name LIMIT ?)"
            )
            rows = sorted(connection.execute(query, (limit or -1,)), key=lambda row: (-row[1], row[0]))
        return [Summary(name, at, n, model, _beginning(first), cost) for name, at, n, model, first, cost in rows]

    def latest_call(self) -> Latest | None:
        """The newest call of `ask` or `chat` that has a whole answer; None when there is none."""
        with opened(self.path) as connection:
            if connection is None:
                return None
            row = connection.execute(
                "SELECT id, coalesce(finished_at, started_at), model, session FROM calls WHERE drill = 0 "
                "AND command IN ('ask', 'chat') AND state IN ('ok', 'cached') ORDER BY started_at DESC, id DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            texts = connection.execute("SELECT prompt, answer FROM content WHERE call_id = ?", row[:1]).fetchone()
        return Latest(*row, *(texts or (None, None)))

    def fresh_name(self, now: float) -> str:
        """A name that no session has: the date and four letters."""
        while True:
            letters = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(4))
            name = f"{strftime('%Y-%m-%d', localtime(now))}-{letters}"
            if self.open(name) is None:
                return name

    # ---------------------------------------------------------------- writing

    def append(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        call_id: str,
        at: float,
        *,
        model: str | None = None,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
        before: Sequence[Exchange] = (),
        instead_of: Collection[str] = (),
    ) -> None:
        """Keep one exchange at the end of the session, which is made if need be; all of it, or nothing.

        `messages` are the turn and its answer. `model`, `system` and `options` are remembered, None leaves them as they
        are ("" and {} take them away). `before` are exchanges that come first, where they are not there yet;
        `instead_of` are the calls whose exchanges are replaced.
        """
        checked_name(name)
        rows = [*before, Exchange(call_id, at, [dict(each) for each in messages])]
        kept = None if options is None else json.dumps(dict(options), ensure_ascii=False)
        facts = [stored("text", each) for each in (name, at, at, model, system, kept, SESSION_VERSION)]

        def work(connection: sqlite3.Connection) -> None:
            known = columns_of(connection, "sessions"), columns_of(connection, "turns")
            if not {*SESSIONS} <= {*known[0]} or not {*TURNS} <= {*known[1]}:
                raise LedgerUnusable(f"{self.path} is of a newer llmctl", hint="talk with that one")
            found = connection.execute("SELECT version FROM sessions WHERE name = ?", (name,)).fetchone()
            if found is not None:
                _check_version(name, found[0])
            connection.execute(_KEEP, facts)
            gone = [(name, each) for each in instead_of]
            connection.executemany("DELETE FROM turns WHERE session = ? AND call_id = ?", gone)
            for row in rows:
                text = stored("messages", json.dumps(row.messages, ensure_ascii=False))
                connection.execute(_ADD, {"name": name, "id": row.call_id, "at": row.at, "messages": text})

        self._write(work)

    def undo(self, name: str, call_id: str | None = None) -> list[dict[str, Any]]:
        """The messages of the exchange of that call, or of the last one, which is gone now; none when there is none."""
        session = self.open(name)
        found = [each for each in (session.exchanges if session else ()) if call_id in (None, each.call_id)]
        if not found:
            return []
        gone, which = "session = :name AND call_id = :id", {"name": name, "id": found[-1].call_id}
        self._write(lambda connection: forget_turns(connection, gone, which))
        return found[-1].messages

    def close(self) -> None:
        """Let go of the file. A short-lived process may leave without."""
        self._database.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._database.write(work)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnusable(f"cannot keep the conversation in {self.path}: {error}", hint=_HINT) from error


_KEEP = (
    f"INSERT INTO sessions ({', '.join(SESSIONS)}) VALUES ({', '.join('?' * len(SESSIONS))}) "  # noqa: S608 - our own names
    "ON CONFLICT (name) DO UPDATE SET updated_at = excluded.updated_at, model = coalesce(excluded.model, model), "
    "system = coalesce(excluded.system, system), options = coalesce(excluded.options, options)"
)
_ADD = (
    "INSERT INTO turns (session, call_id, at, messages) SELECT :name, :id, "
    # After all that is there, also when the clock was set back.
    "max(:at, coalesce((SELECT max(at) + 0.001 FROM turns WHERE session = :name), :at)), :messages "
    "WHERE NOT EXISTS (SELECT 1 FROM turns WHERE session = :name AND call_id = :id)"
)


def _check_version(name: str, version: Any) -> None:
    if version != SESSION_VERSION:
        raise LedgerUnusable(f"the session {name!r} was written by another version of llmctl ({version!r})", hint=_HINT)


def _document(name: str, text: Any, kind: type[T]) -> T:
    """The JSON that was kept. Raises LedgerUnusable where it is damaged."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerUnusable(f"the session {name!r} is damaged: {error}", hint=_HINT) from error
    if not isinstance(found, kind):
        raise LedgerUnusable(f"the session {name!r} is damaged", hint=_HINT)
    return found


def _messages(name: str, text: Any) -> list[dict[str, Any]]:
    found = _document(name, text, list)
    if not found or not all(isinstance(each, dict) for each in found):
        raise LedgerUnusable(f"the session {name!r} is damaged", hint=_HINT)
    return found


def _beginning(text: Any, most: int = 80) -> str:
    """How the first text of an exchange begins."""
    try:
        content = _messages("", text)[0].get("content")
    except LedgerUnusable:
        return ""
    parts = [{"text": content}] if isinstance(content, str) else content if isinstance(content, list) else []
    said = (part.get("text") for part in parts if isinstance(part, dict))
    return next((" ".join(text[: 4 * most].split())[:most] for text in said if isinstance(text, str)), "")
