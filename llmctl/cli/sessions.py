"""`ask --session` and `ask --continue`: one more turn of a conversation that is kept. `chat` shares `continued`.

A turn is kept when its answer is whole, and only then: whatever else happens, the session is as it was.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

from llmctl.cli.output import say
from llmctl.cli.prompt import as_text
from llmctl.core.errors import ConfigInvalid, ContextExceeded, LedgerUnusable, UsageError
from llmctl.core.types import Params
from llmctl.run.talk import fitted, more_left_out, parted, user_row
from llmctl.store.sessions import Exchange, Session, Sessions

if TYPE_CHECKING:
    from llmctl.cli.answering import Show
    from llmctl.cli.context import Context
    from llmctl.client import Client
    from llmctl.core.record import Answer
    from llmctl.run.asking import Ask

_BEGIN = "--session NAME begins a conversation that is kept"
_KEPT = "`llmctl chat --list` shows those that are; --session NAME goes on with one"


class Going:
    """One turn of a session: what goes before it, and how it is kept with its answer."""

    def __init__(
        self, sessions: Sessions, session: Session, turn: list[dict[str, Any]], system: str | None, *, quiet: bool
    ) -> None:
        """`turn` is the user's; `system` is remembered. Quietly, nothing is said on stderr."""
        self._sessions = sessions
        self._session = session
        self._turn = turn
        self._system = system
        self._quiet = quiet
        self._exchanges = [each.messages for each in session.exchanges]
        self._least = self._left_out = 0

    def ask(self, client: Client, options: dict[str, Any]) -> Ask:
        """The call, with as much of the conversation as fits; what is left out is said."""
        self._left_out = len(self._exchanges)
        ask, self._left_out = fitted(
            lambda messages: client.ask(messages=messages, **options), self._exchanges, self._turn, self._least
        )
        if self._left_out and not self._quiet:
            what = "oldest exchange is" if self._left_out == 1 else f"{self._left_out} oldest exchanges are"
            say(f"the conversation outgrows the model's window: its {what} left out")
        return ask

    def planned(self, context: Context, options: dict[str, Any]) -> dict[str, Any]:
        """The options of the call that would be made, with all of its messages."""
        from llmctl.cli.explaining import onlooker

        messages = self.ask(onlooker(context), options).request.messages
        return options | {"messages": messages, "system": None}

    def answer(self, context: Context, _: str | None, options: dict[str, Any], show: Show) -> int:
        """As `answering.answer`; after a provider's own refusal of too long a prompt, asks with less."""
        from llmctl.cli.answering import answer

        while True:
            try:
                return answer(context, None, dict(options), show)
            except ContextExceeded as error:
                self._least = more_left_out(len(self._exchanges), self._left_out, error)

    def keep(self, answer: Answer) -> dict[str, Any]:
        """Keep the turn, if its answer is whole; what `--json` says: the session's name, null where it is not kept."""
        name, kept = self._session.name, not answer.record.exit_code
        if kept:
            said = [*self._turn, answer.as_message()]
            before = () if self._session.saved else self._session.exchanges
            facts: dict[str, Any] = {"model": answer.record.model, "system": self._system, "before": before}
            try:
                self._sessions.append(name, said, answer.id, time(), **facts)
            except LedgerUnusable as error:
                kept = False
                if not self._quiet:
                    say(f"warning: this turn is not in the session {name!r}: {error.message}")
        return {"session": name if kept else None, "left_out_turns": self._left_out}


def going_on(
    context: Context, name: str | None, message: str | None, options: dict[str, Any], *, go_on: bool, quiet: bool
) -> Going:
    """The session `name`, or the newest conversation, with what is said now; `options` are completed from it.

    Raises UsageError, ConfigInvalid and LedgerUnusable where the turn could not be kept.
    """
    if go_on and name is not None:
        raise UsageError("--continue and --session exclude each other", hint="give one of them")
    if not options["log"]:
        raise UsageError(
            "--no-log keeps no text, so no conversation goes on", hint="leave out --no-log, or the session"
        )
    if context.catalog.settings.log_content == "none":
        raise ConfigInvalid(
            'content = "none" under [log] keeps no text, so no conversation goes on',
            hint='ask without a session, or set content = "full"',
        )
    sessions = Sessions(context.places.ledger)
    name = None if name is None else as_text(name, "--session")
    if name is None:
        session = continued(sessions, time())
    else:
        session = sessions.open(name) or Session(name, None, None, {}, (), saved=False)
    turn = [user_row(options.pop("messages", [message])[0])]
    system = session.system if options["system"] is None else options["system"]
    own = {"session": session.name, "model": options["model"] or session.model, "system": system}
    options.update(with_options(session, options) | own)
    return Going(sessions, session, turn, system, quiet=quiet)


def continued(sessions: Sessions, now: float) -> Session:
    """The conversation of the newest whole answer; one without a session gets one, made of what was kept of it.

    Raises UsageError where there is nothing to go on from.
    """
    latest = sessions.latest_call()
    if latest is None:
        raise UsageError("there is no conversation to continue yet", hint=_BEGIN)
    if latest.session is not None:
        session = sessions.open(latest.session)
        if session is None:
            raise UsageError(f"the newest conversation, {latest.session!r}, is not kept", hint=_KEPT)
        return session
    if not latest.prompt or not latest.answer:
        raise UsageError("no text is kept of the newest answer, so it cannot be continued", hint=_BEGIN)
    system, said = parted(latest.prompt)
    messages = [user_row(said), {"role": "assistant", "content": latest.answer}]
    made = (Exchange(latest.call_id, latest.at, messages),)
    return Session(sessions.fresh_name(now), latest.model, system, {}, made, saved=False)


def with_options(session: Session, given: dict[str, Any]) -> dict[str, Any]:
    """The session's own parameters where `given` has none. Raises UsageError for what is no parameter."""
    unknown = session.options.keys() - Params.__dataclass_fields__.keys()
    if unknown:
        what = f"the session {session.name!r} has an option of another version: {min(unknown)!r}"
        raise UsageError(what, hint="/set in `llmctl chat` changes its options")
    return {key: value for key, value in session.options.items() if given.get(key) is None}
