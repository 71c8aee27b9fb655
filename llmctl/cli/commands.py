"""The command tree as a table, and the group that imports a command's module only when that command is run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from llmctl._version import __version__
from llmctl.cli.output import tell, write
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "ask": ("llmctl.cli.ask", "Ask for one answer; stdin is joined to the prompt."),
    "chat": ("llmctl.cli.chat", "Talk with a model, in a conversation that is kept and resumes."),
    "embed": ("llmctl.cli.embed", "Turn texts into vectors, in batches."),
    "route": ("llmctl.cli.route", "Show how targets are chosen and fare; clear their cooldowns."),
    "fallback": ("llmctl.cli.fallback", "Show what a chain does when its links fail, and rehearse it."),
    "cost": ("llmctl.cli.cost", "Report what calls cost, what budgets have left, and the prices."),
    "ledger": ("llmctl.cli.ledger", "List, search, export, prune and check the calls that were made."),
    "cache": ("llmctl.cli.cache", "Show, explain and remove the answers that are kept."),
    "models": ("llmctl.cli.models", "Show and compare models; fetch the weights of the embedded one."),
    "config": ("llmctl.cli.config", "Write, change, show and check the configuration."),
    "keys": ("llmctl.cli.keys", "Keep keys of providers in a private file; list and remove them."),
    "doctor": ("llmctl.cli.doctor", "Check what is set up here, and what keeps it from working."),
    "help": ("llmctl.cli.help", "Explain exit codes, configuration, environment and stdin."),
    "completion": ("llmctl.cli.completion", "Print the shell completion script for bash, zsh or fish."),
}
"""Command -> the module whose `app` it is, and the one line of the overview."""


LATER = ("compare", "batch", "serve")
"""Commands of the design that this version does not have yet."""


class Commands(TyperGroup):
    """The root group. It knows its commands' names and help without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the group's signature
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:  # noqa: ARG002
        """The command called `name`, imported now."""
        return command(name) if name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run. Raises UsageError that says what was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown_command(args)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The overview, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_ABOUT = """\b
Anywhere on the line:
  --config FILE  Read this configuration (repeat; later wins).
  --debug        Show tracebacks.

\b
Examples:
  llmctl ask "why is the sky blue?"
  llmctl ledger list
  llmctl config init
"""


def overview(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """One interface over every language model: ask, fall back, and know what each call cost."""
    if version:
        write(f"llmctl {__version__}\n")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        tell(f"{ctx.get_help()}\n")
        raise typer.Exit(2)


def root() -> Any:
    """The whole command tree, ready to run."""
    app = typer.Typer(
        cls=Commands,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True, epilog=_ABOUT)(overview)
    return typer.main.get_command(app)


def command(name: str) -> Any:
    """The command object of `name`."""
    module, text = COMMANDS[name]
    found = typer.main.get_command(import_module(module).app)
    found.name = name
    if not found.help:
        found.help = text
    _show_whole(found)
    return found


def _show_whole(group: Any) -> None:
    """Let the overview of a group show the first sentence of each of its commands, and not only 45 characters of it."""
    for each in getattr(group, "commands", {}).values():
        each.short_help = each.get_short_help_str(limit=200)
        _show_whole(each)


def unknown_command(args: Sequence[str]) -> UsageError:
    """The error for a first word that is no command: a near miss, or a prompt without `ask`."""
    import difflib

    word = args[0]
    if word in LATER:
        return UsageError(f"`llmctl {word}` is not in this version yet", hint="`llmctl --help` shows what is")
    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.65)
    if near:
        return UsageError(f"no command {word!r}", hint=f"did you mean `llmctl {near[0]}`?")
    return UsageError(f"no command {word[:60]!r}", hint='to ask a model, write: llmctl ask "..."')
