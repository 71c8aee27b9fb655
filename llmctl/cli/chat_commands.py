"""The slash commands of a chat, as a table: name, arguments, what it does. What they answer goes to stderr.

Whatever cannot be done is UsageError, and nothing is sent; a name that is no command is refused with a near miss.
"""

from __future__ import annotations

import glob
import json
import os
import shlex
from difflib import get_close_matches
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.cli.chat_input import Left
from llmctl.cli.notes import columns
from llmctl.cli.output import ago, one_line
from llmctl.cli.prompt import file_text
from llmctl.core.errors import UsageError
from llmctl.core.types import Params

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmctl.cli.chat_loop import Chat

NOTHING = "-"
"""What takes away the system prompt, or the files that wait."""
_KEYS = tuple(name for name in Params.__dataclass_fields__ if name != "extra")
_TYPING = (
    ("line \\", "The message goes on in the next line."),
    ('"""', "Begins a message of several lines, and ends it."),
    ("//text", "A message that begins with a slash."),
    ("Ctrl-C", "Cancels an answer, or clears the line; twice leaves."),
)


class Command(NamedTuple):
    """One command: what may follow its name, what it does, and how."""

    arguments: str
    help: str
    act: Callable[[Chat, str], None]


def act(chat: Chat, line: str) -> None:
    """Do what `line` says. Raises UsageError for what is no command, and what the command raises."""
    name, *rest = line[1:].split(maxsplit=1) or [""]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=0.6)
        hint = f"did you mean /{near[0]}? " if near else ""
        hint += "/help shows all; //... is sent as text"
        raise UsageError(f"no command /{one_line(name, 40)}; nothing was sent", hint=hint)
    command = COMMANDS[name]
    if rest and not command.arguments:
        raise UsageError(f"/{name} takes nothing more: {one_line(rest[0], 40)!r}", hint="/help shows the commands")
    command.act(chat, "".join(rest).strip())


def completions(chat: Chat, line: str) -> list[str]:
    """What the last word of `line` may be, with a space after what is whole."""
    name, space, rest = line.partition(" ")
    word = rest.rpartition(" ")[2]
    if not space:
        return [f"/{each} " for each in COMMANDS] if line.startswith("/") else []
    if name in ("/model", "/retry"):
        groups = chat.client.catalog.groups
        served = [each.served_by for group in groups.values() for each in group.deployments]
        return [f"{each} " for each in dict.fromkeys([*groups, *served])]
    if name == "/set" and word == rest:
        return [f"{each} " for each in _KEYS]
    if name == "/file":
        typed = os.path.expanduser(word)
        found = sorted(glob.glob(glob.escape(typed) + "*"))
        return [word + each[len(typed) :] + ("/" if os.path.isdir(each) else " ") for each in found]
    return []


def _model(chat: Chat, name: str) -> None:
    if name:
        chat.trial(model=name)
        chat.model = name
    chat.reply(f"{chat.model} answers: {_chain(chat)}")
    if not name:
        chat.reply(f"model groups: {', '.join(chat.client.catalog.groups)}")


def _chain(chat: Chat) -> str:
    """Who would be asked, in turn; several in one link stand in for each other."""
    links = chat.trial().plan.links
    return " -> ".join("|".join(deployment.served_by for deployment in link.deployments) for link in links)


def _system(chat: Chat, text: str) -> None:
    if text:
        chat.system = None if text == NOTHING else text
    chat.reply(f"the system prompt is: {chat.system}" if chat.system else "there is no system prompt")


def _file(chat: Chat, rest: str) -> None:
    try:
        names = [os.path.expanduser(word) for word in shlex.split(rest)]
    except ValueError as error:
        raise UsageError(f"/file {one_line(rest)}: {error}", hint="put quotes around a name with spaces") from error
    if names == [NOTHING]:
        chat.files.clear()
        names = []
    add_files(chat, names)
    waiting = ", ".join(map(one_line, chat.files))
    chat.reply(f"with the next message goes: {waiting}" if waiting else "no file goes with the next message")


def add_files(chat: Chat, names: list[str]) -> None:
    """Let the files go with the next message. Raises UsageError for one that cannot be read now."""
    for name in names:
        if name == NOTHING:
            raise UsageError("stdin is the conversation itself", hint="name a file")
        file_text(name)
    chat.files += names


def _set(chat: Chat, rest: str) -> None:
    from llmctl.cli.request import options_of

    key, value = (*rest.replace("=", " ", 1).split(maxsplit=1), "", "")[:2]
    settings = dict(chat.settings)
    extra = dict(settings.pop("extra", {}))
    if not key:
        shown = [f"{name}={json.dumps(each, ensure_ascii=False)}" for name, each in {**settings, **extra}.items()]
        chat.reply(", ".join(shown) or f"nothing is set: {', '.join(_KEYS)}, or a provider's own")
        return
    if value:
        new = options_of([f"{key}={value}"], ())
        extra |= new.pop("extra", {})
        settings |= new
    elif key not in settings and key not in extra:
        raise UsageError(f"{one_line(key)} is not set", hint="/set KEY VALUE sets it, /set shows what is set")
    else:
        settings.pop(key, None)
        extra.pop(key, None)
    settings |= {"extra": extra} if extra else {}
    before, chat.settings = chat.settings, settings
    try:
        chat.trial()
    except UsageError:
        chat.settings = before
        raise


def _cost(chat: Chat, rest: str) -> None:  # noqa: ARG001
    bill = chat.bill()
    for row in bill["rows"]:
        name, calls = row["key"]["model"] or "no answer", row["calls"]
        chat.reply(f"{name}: {calls} call{'s' * (calls != 1)}, {spent_in(row)}")
    chat.reply(f"this session: {spent_in(bill['total'])}")


def spent(given: int, made: int, cost: float | None, unpriced: int) -> str:
    """Tokens and money, as a person reads them; what has no known price is said."""
    money = "" if cost is None else f"${cost:.6f}"
    unknown = "price unknown" if cost is None else f"{unpriced} of unknown price" if unpriced else ""
    return f"{given}+{made} tokens, {' + '.join(filter(None, [money, unknown]))}"


def spent_in(row: dict[str, Any]) -> str:
    """As `spent`, of a row of the cost report."""
    return spent(row["input_tokens"], row["output_tokens"], row["cost_usd"], row["unpriced_calls"])


def _route(chat: Chat, rest: str) -> None:  # noqa: ARG001
    if chat.last is not None:
        chat.reply(f"{chat.last.served_by} answered: {chat.last.route.get('reason', 'from the cache')}")
    chat.reply(f"next: {_chain(chat)}")
    for out in chat.trial().plan.left_out:
        chat.reply(f"left out {out.deployment.served_by}: {out.reason.message}")


def _sessions(chat: Chat, rest: str) -> None:  # noqa: ARG001
    from llmctl.store.sessions import Sessions

    found = Sessions(chat.context.places.ledger).names()
    for each in found:
        turns = f"{each.turns} turn{'s' * (each.turns != 1)}, {ago(time() - each.updated_at)} ago"
        chat.reply(f"{each.name}: {turns}: {each.begins}")
    if not found:
        chat.reply("no conversation is kept yet")


def _help(chat: Chat, rest: str) -> None:  # noqa: ARG001
    rows = [(f"/{name} {each.arguments}".rstrip(), each.help) for name, each in COMMANDS.items()]
    wide = columns() >= 75
    for left, right in (*rows, *_TYPING):
        chat.reply(f"  {left:20} {right}" if wide else f"{left}\n  {right}")


def _exit(chat: Chat, rest: str) -> None:  # noqa: ARG001
    raise Left


COMMANDS = {
    "model": Command("[NAME]", "Shows who answers, or chooses a model group or a model.", _model),
    "system": Command("[TEXT]", "Shows or sets the system prompt; - takes it away.", _system),
    "file": Command("PATH...", "Text files for the next message; - takes them back.", _file),
    "retry": Command("[MODEL]", "Asks again for a better answer, of MODEL this once.", lambda c, m: c.again(m or None)),
    "undo": Command(
        "", "Takes back the last question and its answer.", lambda c, _: c.reply(f"taken back: {c.undo()}")
    ),
    "set": Command("[KEY [VALUE]]", "Shows, sets or unsets a parameter: temperature 0.2.", _set),
    "cost": Command("", "Tokens and money of this session, by model.", _cost),
    "route": Command("", "Who answered and why, and who comes next.", _route),
    "sessions": Command("", "The conversations that are kept.", _sessions),
    "help": Command("", "Shows this.", _help),
    "exit": Command("", "Leaves. So does Ctrl-D.", _exit),
}
