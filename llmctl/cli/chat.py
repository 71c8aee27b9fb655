"""`llmctl chat`: a conversation on the core of `ask`, for a person at a terminal or for the lines of a pipe."""

from __future__ import annotations

import sys
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.colour import Choice, colour
from llmctl.cli.context import of
from llmctl.cli.options import (
    CacheBy,
    Color,
    Continue,
    Fallback,
    MaxCost,
    MaxTokens,
    Model,
    NoFallback,
    Quiet,
    Render,
    System,
    Tag,
    Temperature,
    Verbose,
    examples,
    fallbacks_of,
    named_model,
    seconds,
    tags_of,
)  # fmt: skip
from llmctl.cli.output import ago, print_json, say, table
from llmctl.cli.prompt import as_text
from llmctl.core.errors import LedgerUnusable, UsageError

if TYPE_CHECKING:
    from llmctl.cli.chat_loop import Chat
    from llmctl.cli.context import Context
    from llmctl.store.sessions import Session, Sessions

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = examples(
    "llmctl chat                  # begins one; /help shows what it knows",
    "llmctl chat --session work   # begins `work`, or goes on with it",
    "llmctl chat -c               # goes on with the newest one",
    "llmctl chat --list           # shows the conversations that are kept",
    "printf 'hi\\nand you?\\n' | llmctl chat -m fast --json",
)


@app.command(epilog=EXAMPLES)
def chat(
    ctx: typer.Context,
    model: Model = None,
    system: System = None,
    file: Annotated[
        list[str] | None,
        typer.Option("-f", "--file", metavar="FILE", help="A text file before the first message (repeat)."),
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin the conversation NAME, or go on with it.")
    ] = None,
    newest: Continue = False,
    listed: Annotated[bool, typer.Option("--list", help="List the conversations that are kept, and leave.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Any other parameter of the requests (repeat)."),
    ] = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    fallback: Fallback = None,
    no_fallback: NoFallback = False,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Time allowed for each answer: 30s, 5m.")] = None,
    max_cost: MaxCost = None,
    cache: CacheBy = None,
    render: Render = None,
    color: Color = Choice.auto,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line for each answer.")] = False,
    tag: Tag = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep no text of this chat; its rows stay.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Talk with a model: a conversation that is kept, and goes on whenever you like.

    Without a terminal on stdin each line is a message, and stdout holds the answers alone.
    """
    context = of(ctx, json=as_json)
    if listed:
        _list(context, as_json=as_json)
        return
    if session is not None and newest:
        raise UsageError("--session and --continue exclude each other", hint="give one of them")
    if no_log and (session is not None or newest):
        raise UsageError("--no-log keeps no text, so no conversation goes on", hint="leave out one of them")
    from llmctl.cli.answering import Show
    from llmctl.cli.chat_commands import add_files
    from llmctl.cli.chat_loop import Chat, How

    given = {"temperature": temperature, "max_tokens": max_tokens}
    settings = _settings(option or [], {key: value for key, value in given.items() if value is not None})
    options: dict[str, Any] = {
        "fallbacks": fallbacks_of(fallback, none=no_fallback),
        "timeout": seconds("--timeout", timeout),
        "max_cost": max_cost,
        "tags": dict(tags_of(tag or [])),
        "log": not no_log,
        "cache": cache and cache.value,
        "command": "chat",
    }
    keeps = not no_log and context.catalog.settings.log_content == "full"
    found, kept = _session(context, session, newest=newest, keeps=keeps)
    found = found._replace(
        model=named_model("--model", model) or found.model,
        system=found.system if system is None else as_text(system, "--system"),
        options={**found.options, **settings},
    )
    quiet = quiet or as_json
    show = Show(streams=True, as_json=False, quiet=quiet, verbose=verbose, render=render, color=color.value)
    tells = sys.stderr is not None and sys.stderr.isatty() and not quiet
    person = sys.stdin is not None and sys.stdin.isatty()
    how = How(person, tells, as_json=as_json, show=show)
    talk = Chat(context, how, found, kept, options)
    add_files(talk, file or [])
    talk.greet()
    code = _converse(talk)
    talk.part()
    raise typer.Exit(code)


def _settings(words: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the requests. Raises UsageError."""
    if not words:
        return flags
    from llmctl.cli.request import options_of

    return {**options_of(words, list(flags)), **flags}


def _session(context: Context, name: str | None, *, newest: bool, keeps: bool) -> tuple[Session, Sessions | None]:
    """The conversation to go on with, or a new one; and where it is kept. Raises UsageError and LedgerUnusable.

    A ledger that cannot be read forbids no chat that needs nothing of it: that one is only not kept.
    """
    from llmctl.cli.sessions import continued
    from llmctl.store.sessions import Session, Sessions

    sessions = Sessions(context.places.ledger)
    if newest:
        return continued(sessions, time()), sessions if keeps else None
    if name is not None:
        return sessions.open(name) or Session(name, None, None, {}, ()), sessions if keeps else None
    try:
        return Session(sessions.fresh_name(time()), None, None, {}, ()), sessions if keeps else None
    except LedgerUnusable as error:
        say(f"warning: {error.message}")
        return Session("", None, None, {}, ()), None


def _converse(talk: Chat) -> int:
    """The exit code of the conversation, whose lines come from a person or a pipe. Raises what ends a script's."""
    from llmctl.cli.chat_input import Editor, Pipe

    if not talk.how.person:
        pipe = Pipe()
        code = talk.converse(pipe, lambda _: None)
        if not pipe.number and not code:
            raise UsageError("stdin held no message", hint="write one a line: echo hi | llmctl chat")
        return code
    from llmctl.cli.chat_commands import completions
    from llmctl.store import typed

    history = talk.context.places.home / "chat_history"
    terminal = talk.context.environ.get("TERM", "")
    bold = colour(sys.stdout, talk.context.environ, talk.how.show.color)
    editor = Editor(lambda line: completions(talk, line), terminal, typed.load(history), colour=bold)

    def remember(text: str) -> None:
        editor.remember(text)
        if talk.kept is not None:
            typed.add(history, text)

    return talk.converse(editor, remember)


def _list(context: Context, *, as_json: bool) -> None:
    from llmctl.core.money import usd
    from llmctl.store.sessions import Sessions

    found = Sessions(context.places.ledger).names(0)
    rows = [{**each._asdict(), "cost_usd": usd(each.cost_nanousd)} for each in found]
    if as_json:
        print_json(rows)
    elif rows:
        shown = [{**row, "last": f"{ago(time() - row['updated_at'])} ago"} for row in rows]
        columns = ("name", "turns", "last", "model", "cost_usd", "begins")
        table(columns, shown, right=("turns", "cost_usd"), keep=("name", "last"), spare=("cost_usd", "model"))
    else:
        say("no conversation is kept yet: `llmctl chat` begins one")
