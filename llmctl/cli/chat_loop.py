"""A conversation under way: what was said, who is asked; and the loop that goes on until one leaves.

A person's chat says an error and goes on, and the message waits for /retry; a script's chat ends with the first error,
as that call would. Slash commands are in `chat_commands`, lines in `chat_input`; the event loop is imported with the
first message, so that the prompt is there at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from shlex import quote
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.cli.answering import Show, shown
from llmctl.cli.chat_commands import act, spent, spent_in
from llmctl.cli.chat_input import Cleared, Left, Said, message, ticking, unraised
from llmctl.cli.colour import colour, markdown
from llmctl.cli.main import EXIT_BUG, EXIT_INTERRUPTED, failed
from llmctl.cli.notes import Notes
from llmctl.cli.output import Out, ago, one_line, safe, say, tell, write
from llmctl.cli.prompt import compose
from llmctl.client import Client
from llmctl.core.errors import ContextExceeded, LedgerUnusable, LlmctlError, OutputFailed, UsageError
from llmctl.core.money import usd
from llmctl.core.types import Params
from llmctl.run.talk import fitted, more_left_out, user_row
from llmctl.store.sessions import Exchange

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from llmctl.cli.chat_input import Lines
    from llmctl.cli.context import Context
    from llmctl.core.record import Answer
    from llmctl.run.asking import Ask
    from llmctl.store.sessions import Session, Sessions

_LEAVING = {signal.SIGTERM: 143, signal.SIGHUP: 129}


class How(NamedTuple):
    """How a chat behaves: whether a `person` sits at stdin, and whether stderr is a terminal that `tells` things.

    `show` is how each answer is shown that is no JSON document.
    """

    person: bool
    tells: bool
    as_json: bool
    show: Show


class Unanswered(NamedTuple):
    """A message to be answered, and the hashes of the documents in it."""

    turn: dict[str, Any]
    documents: tuple[str, ...] = ()


class Chat:
    """One conversation. `options` are those of `Client.ask` that stay; `settings`, its parameters, are /set's."""

    def __init__(
        self, context: Context, how: How, session: Session, kept: Sessions | None, options: dict[str, Any]
    ) -> None:
        """`kept` is where the exchanges go, None where nothing is kept. Raises what a first call would raise."""
        self.context, self.how, self.kept, self.options = context, how, kept, options
        self._notes = Notes(Out(), quiet=how.show.quiet, verbose=how.show.verbose, color=how.show.color)
        self.client = Client(context.config_flags or None, environ=context.environ, hooks=[self._notes])
        if self.client.teller is not None:
            self.client.teller.complain = self._notes.complain
        self.name, self.system, self.settings = session.name, session.system, session.options
        self.model: str = session.model or self.client.default_model
        self.exchanges = list(session.exchanges)
        self.files: list[str] = []
        self.last: Answer | None = None
        self.unanswered: Unanswered | None = None
        """The message that has no answer: /retry asks it again."""
        self._defaulted = not session.model
        self._unkept = set() if session.saved else {each.call_id for each in session.exchanges}
        self._replaced: list[str] = []  # by answers that are not kept yet
        self._leaving = False
        self._left_out = self._told_to_leave = 0
        self._runner: asyncio.Runner | None = None
        self.trial()

    # ---------------------------------------------------------------- the loop

    def converse(self, lines: Lines, remember: Callable[[str], None]) -> int:
        """The exit code, once one has left; `remember` takes what was said. Raises the error that ends a script's."""
        heeded = [number for number in _LEAVING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, _leave) for number in heeded}
        try:
            with unraised() as missed:
                while True:
                    self._step(lines, remember, missed)
        except Left as left:
            return left.code
        except EOFError:
            return 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _step(self, lines: Lines, remember: Callable[[str], None], missed: list[BaseException]) -> None:
        """Take one message or command; what keeps a person from an answer is said."""
        try:
            if missed or self._told_to_leave:
                raise missed.pop() if missed else Left(self._told_to_leave)
            with ticking():
                said = message(lines, self.prompt)
            if said.text.strip():
                remember(said.text)
                self._take(said)
            self._leaving = False
        except Cleared as cleared:
            tell(str(cleared))
            self._leaving = False
        except KeyboardInterrupt:
            if self._leaving or not self.how.person:
                raise Left(0 if self._leaving else EXIT_INTERRUPTED) from None
            self._leaving = True
            say("Ctrl-C once more, Ctrl-D or /exit leaves")
        except LlmctlError as error:
            if isinstance(error, OutputFailed) or not self.how.person:
                raise
            failed(error, as_json=self.how.as_json)
            if self.unanswered and not isinstance(error, UsageError) and not self.how.show.quiet:
                say("/retry asks it again, /retry MODEL another one")

    @property
    def prompt(self) -> str:
        """What stands before a line that is typed: whom it goes to."""
        return one_line(self.model.rpartition("/")[2], 24) + "> "

    def _take(self, said: Said) -> None:
        """Do what was said: a slash command, or a message to be answered."""
        text = said.text
        if said.typed and text.startswith("/") and not text.startswith("//"):
            act(self, text)
            return
        composed = compose(text[1:] if said.typed and text.startswith("//") else text, self.files, use_stdin=False)
        self.unanswered = Unanswered(user_row(composed.text), composed.documents)
        self.files.clear()
        self._exchange({})

    # ---------------------------------------------------------------- asking

    def trial(self, **changes: Any) -> Ask:
        """A call as the next one will be, which is not made. Raises what that would raise before it is sent."""
        return self.client.ask(messages=[{"role": "user", "content": "hi"}], **self._asking(changes))

    def _asking(self, changes: dict[str, Any]) -> dict[str, Any]:
        now = {"model": self.model, "system": self.system, "session": self.name or None, "buffered": self.how.as_json}
        return {**self.options, **self.settings, **now, **changes}

    def again(self, model: str | None) -> None:
        """Ask the last message again; the new answer takes the place of the old one. Raises UsageError."""
        changes = {"model": model} if model else {}
        changes["cache"] = "refresh" if self.trial(**changes).cache.tiers else "off"
        if self.unanswered is not None:
            self._exchange(changes)
            return
        if not self.exchanges:
            raise UsageError("nothing was asked yet", hint="write a message")
        self.unanswered = Unanswered(self.exchanges[-1].messages[0])
        try:
            self._exchange(changes, self.exchanges[-1])
        finally:
            self.unanswered = None

    def _exchange(self, changes: dict[str, Any], replaced: Exchange | None = None) -> None:
        """Have `unanswered` answered, and keep both; a `replaced` exchange goes when the answer is there, and whole."""
        assert self.unanswered is not None, "there is something to ask"
        turn, documents = self.unanswered
        past = [each for each in self.exchanges if each is not replaced]
        answer, show, out = self._answered(turn, past, self._asking({"documents": documents, **changes}))
        self.last = answer
        if not answer.record.exit_code:
            self.unanswered = None
            self._keep(past, Exchange(answer.id, time(), [turn, answer.as_message()]), replaced)
        if self.how.as_json:
            kept = self.kept is not None and answer.id not in self._unkept and not answer.record.exit_code
            document = answer.as_json() | {"session": self.name if kept else None, "left_out_turns": self._left_out}
            write(json.dumps(document, ensure_ascii=False) + "\n")
            code = 0 if self.how.person else answer.record.exit_code or 0
        else:
            try:
                code = shown(answer, show, self._notes, out)
            finally:
                self._status(answer)
        if code:
            raise Left(code)

    def _answered(self, turn: dict[str, Any], past: list[Exchange], options: dict[str, Any]) -> Any:
        """The answer, and what it is shown with. A provider's own refusal of too long a prompt leaves out more."""
        least, rows = 0, [each.messages for each in past]
        while True:
            ask, left_out = fitted(lambda messages: self.client.ask(messages=messages, **options), rows, [turn], least)
            if left_out > self._left_out and not self.how.show.quiet:
                turns = "oldest turn" if left_out == 1 else f"{left_out} oldest turns"
                say(f"left out the {turns}: the conversation outgrows the window of the model")
            self._left_out = left_out
            try:
                return self._made(ask)
            except ContextExceeded as error:
                least = more_left_out(len(rows), left_out, error)

    def _made(self, ask: Ask) -> tuple[Answer, Show, Out]:
        """The answer of one call, from the cache or the model. Raises the error it ended in, Left and Cleared."""
        show = self.how.show._replace(streams=not ask.buffered)
        out = Out(markdown(sys.stdout, os.environ, show.color, render=show.render))
        self._notes.begin(out)
        if self._defaulted:
            self._notes.chosen(self.model, configured=bool(self.client.catalog.default_model))
            self._defaulted = False
        try:
            kept = self.client.recalled(ask)
            made = self._called(ask, out, streams=show.streams) if kept is None else kept
        finally:
            self._notes.end(self.client)
        if not isinstance(made, int):
            return made, show._replace(streams=show.streams and kept is None), out
        if made != EXIT_INTERRUPTED or not self.how.person:
            raise Left(made)
        raise Cleared("llmctl: cancelled: this exchange is not kept, and /retry asks it again\n")

    def _called(self, ask: Ask, out: Out, *, streams: bool) -> Answer | int:
        import asyncio

        from llmctl.cli.fetching import offer
        from llmctl.cli.running import run_to_end

        if self.how.person:
            offer(self.context, ask.plan)
        self._runner = self._runner or asyncio.Runner()
        run = self.client.engine.call(ask)
        self._notes.uncached(run.uncached if ask.cache.mode != "off" else "")
        run.exit_if_stopped = EXIT_BUG  # unless somebody says otherwise
        made = self._runner.run(run_to_end(run, self._notes, out, streams=streams, goes_on=True))
        if run.exit_if_stopped != EXIT_BUG and not (run.exit_if_stopped == EXIT_INTERRUPTED and self.how.person):
            self._told_to_leave = run.exit_if_stopped  # by a signal, perhaps too late to cancel anything
        return made

    # ---------------------------------------------------------------- what is kept

    def _keep(self, past: list[Exchange], exchange: Exchange, replaced: Exchange | None) -> None:
        """Whatever keeps it from being kept now, a Ctrl-C too: the next turn keeps it as well, or `part` does."""
        self.exchanges = [*past, exchange]
        self._unkept.add(exchange.call_id)
        self._replaced += [replaced.call_id] if replaced else []
        if (error := self._unsaved()) is not None:
            say(f"warning: this turn is not kept yet: {error.message}")

    def _unsaved(self) -> LedgerUnusable | None:
        """Why what is not kept yet cannot be kept; None where all is."""
        unkept = [each for each in self.exchanges if each.call_id in self._unkept]
        if self.kept is None or not unkept:
            return None
        *before, last = unkept
        settings = {key: value for key, value in self.settings.items() if key in Params.__dataclass_fields__}
        about: dict[str, Any] = {"model": self.model, "system": self.system or "", "options": settings}
        about |= {"before": before, "instead_of": self._replaced}
        try:
            self.kept.append(self.name, last.messages, last.call_id, last.at, **about)
        except LedgerUnusable as error:
            return error
        self._unkept.clear()
        self._replaced.clear()
        return None

    def undo(self) -> str:
        """Take back the last exchange, or the message that has no answer; how it began. Raises UsageError."""
        if self.unanswered is not None:
            (turn, _), self.unanswered = self.unanswered, None
        elif not self.exchanges:
            raise UsageError("there is nothing to undo", hint="nothing was answered yet")
        else:
            for call in (*self._replaced, self.exchanges[-1].call_id):
                if self.kept is not None:
                    self.kept.undo(self.name, call)  # by its id: another chat may have said something since
            self._replaced.clear()
            turn, *_ = self.exchanges.pop().messages
            self._left_out = 0
        return one_line(str(turn.get("content")), 60)

    # ---------------------------------------------------------------- what is told

    def reply(self, line: str) -> None:
        """What a command answers. It is never on stdout, and beside a script's JSON nobody wants it."""
        if self.how.person or not self.how.as_json:
            tell(f"{safe(line)}\n")

    def bill(self) -> dict[str, Any]:
        """The cost report of this session by model, with all that earlier chats came to. Raises LedgerUnusable."""
        from llmctl.store import report

        question = report.Question(by=("model",), session=self.name)
        return report.Reports(self.context.places.ledger).report(question, time())

    def _status(self, answer: Answer) -> None:
        """One line below an answer: its tokens and cost, and those of the session so far."""
        if not self.how.tells:
            return
        made = answer.record
        who = f"{made.served_by}: " if made.fallback or made.model != self.model else ""
        tokens = (made.input_tokens or 0, made.output_tokens or 0)
        line = who + spent(*tokens, usd(made.cost_nanousd), made.cost_nanousd is None)
        with suppress(LedgerUnusable):
            whole = self.bill()["total"]
            line += f" · so far {spent_in(whole)}" if whole["calls"] > 1 else ""
        self._dim(line)

    def _dim(self, line: str) -> None:
        """A line on stderr that stands back."""
        plain = not colour(sys.stderr, os.environ, self.how.show.color)
        tell(f"{line}\n" if plain else f"\x1b[2m{line}\x1b[0m\n")

    def greet(self) -> None:
        """Say what goes on, what is kept, and how to leave."""
        if not self.how.person or not self.how.tells:
            return
        if self.exchanges:
            count, last = len(self.exchanges), ago(time() - self.exchanges[-1].at)
            say(f"resumed {self.name}: {count} turn{'s' * (count > 1)}, last {last} ago, model {self.model}")
        if self.kept is None:
            say("this chat is not kept: its text is gone when you leave")
        self._dim(f"{safe(self.model)} answers; /help shows the commands, Ctrl-D leaves")

    def part(self) -> None:
        """Keep what is not kept yet; say what the session came to, and how it goes on."""
        if self._unkept and self.last is not None and (error := self._unsaved()) is not None:
            say(f"warning: the last of this chat is not kept: {error.message}")
            return
        if not self.how.tells or self.last is None:
            return
        with suppress(LedgerUnusable):
            say(f"this session: {spent_in(self.bill()['total'])}")
        if self.kept is not None and self.exchanges:
            say(f"`llmctl chat --session {quote(self.name)}` resumes it")


def _leave(number: int, frame: object) -> None:  # noqa: ARG001 - a signal handler
    raise Left(_LEAVING[signal.Signals(number)])
