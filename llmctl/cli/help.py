"""`llmctl help`: the pages that belong to no one command, made of the tables that the program itself goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import examples
from llmctl.cli.output import write
from llmctl.core.errors import MATRIX, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_WIDTH = 80

EXIT_CODES: dict[int, tuple[str, str]] = {
    0: ("the whole answer; what was asked for is done", ""),
    1: ("a bug in llmctl, or output that cannot be written", "no"),
    2: ("the command line cannot be meant", "no"),
    3: ("the configuration or the ledger cannot be used", "no"),
    4: ("a key is missing, or was refused", "no"),
    5: ("the provider refuses the request", "no"),
    6: ("no provider could answer, after retries and fallbacks", "yes"),
    7: ("a deadline or one of the clocks ran out", "yes"),
    8: ("the answer is incomplete: it broke off, or met a length limit", "yes"),
    9: ("a budget or --max-cost forbids it", "when it begins anew"),
    10: ("the answer does not meet --schema or --verify", "perhaps"),
    100: ("a drill, a check or an assertion failed", ""),
    129: ("the terminal was closed", ""),
    130: ("Ctrl-C", ""),
    141: ("nobody read the output any more: a closed pipe", ""),
    143: ("SIGTERM", ""),
}
"""Exit code -> its meaning, and whether the same command may succeed later."""
VARIABLES: dict[str, str] = {
    "LLMCTL_CONFIG": "The configuration file.",
    "LLMCTL_HOME": "The directory of ledger, state, cache, keys and weights.",
    "LLMCTL_MODEL": "The model that is asked when -m names none.",
    "LLMCTL_CACHE": "The cache's mode, above that of the configuration.",
    "LLMCTL_LOG_CONTENT": "full or none: whether the ledger keeps texts.",
    "LLMCTL_OFFLINE": "1: no address beyond this machine is asked.",
    "NO_COLOR": "Not empty: no colour.",
    "FORCE_COLOR": "Not empty: colour, also with NO_COLOR or on a dumb terminal.",
    "TERM": "dumb: no colour, and no line that is drawn over.",
    "COLUMNS": "How wide tables are drawn.",
    "HTTPS_PROXY": "The proxy; HTTP_PROXY, ALL_PROXY, NO_PROXY likewise.",
    "SSL_CERT_FILE": "The certificates to trust; SSL_CERT_DIR likewise.",
    "SENTRY_DSN": "Where errors are reported, with [observe] sentry = true.",
    "AWS_ACCESS_KEY_ID": "Amazon's keys, and AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.",
    "AWS_PROFILE": "Amazon's profile; AWS_DEFAULT_PROFILE likewise.",
    "AWS_REGION": "Amazon's region; AWS_REGION_NAME, AWS_DEFAULT_REGION likewise.",
}
"""Variable -> what it does; those of single providers are in the provider table."""
_STDIN = """\
How the message is put together

  1. each --file, in its order: a line `--- NAME ---`, its text, a blank line
  2. the PROMPT
  3. a blank line and stdin, when stdin is not a terminal

Stdin alone is the message. `-f -` reads stdin as a file, under the name stdin.
--no-stdin leaves it alone: a loop such as `while read line` would lose its own.
No prompt and no pipe: exit code 2. What is no UTF-8 text is refused.

  git diff | llmctl ask "write a commit message"
  llmctl ask -f report.md "summarise this"
  while read -r q; do llmctl ask --no-stdin "$q"; done < questions.txt
"""


@app.command(
    "help", epilog=examples("llmctl help", "llmctl help exit-codes", "llmctl help environment", "llmctl help ask")
)
def help_(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[TOPIC]", help="A topic, or a command.")] = None,
) -> None:
    """Explain a topic, or show the help of a command."""
    if not words:
        write("".join(_topics()))
    elif len(words) == 1 and words[0] in TOPICS:
        write("".join(TOPICS[words[0]][1]()))
    else:
        write(_of_command(ctx, words))


def _topics() -> Iterator[str]:
    from llmctl.cli.commands import COMMANDS

    yield "llmctl help TOPIC explains one of these:\n\n"
    yield from _rows((name, text) for name, (text, _) in TOPICS.items())
    yield "\nllmctl help COMMAND shows the help of one of these:\n\n"
    yield from _rows((name, text) for name, (_, text) in COMMANDS.items())


def exit_codes() -> Iterator[str]:
    """Each code with its meaning, and the classes of errors that end in it."""
    yield "Exit codes, and whether the same command may succeed later\n\n"
    for code, (meaning, later) in EXIT_CODES.items():
        yield f"{code:>5}  {meaning}\n"
        kinds = [kind for kind, rule in MATRIX.items() if rule.exit == code]
        yield from _filled(", ".join(kinds), "       ") if code and kinds else ()
        yield f"       later: {later}\n" if later else ""
    yield "\nA chain that fails in several ways ends in 6 where one of them may pass, else\n"
    yield "as its first target did. `llmctl route explain` shows what each error leads to.\n"


def environment() -> Iterator[str]:
    """Every variable that is read: our own, those of all programs, and each provider's."""
    from llmctl.config.load import packaged
    from llmctl.core.build import provider

    yield "Variables of llmctl and of the system\n\n"
    yield from _rows(VARIABLES.items())
    yield "\nVariables of providers: the first one that is set is the key\n\n"
    table = [provider(name, row) for name, row in packaged()["providers"].items()]
    yield from _rows((each.name, " or ".join(each.key)) for each in table if each.key)
    named = [(each.name, " or ".join(each.address)) for each in table if each.address]
    yield "\nAddresses: PROVIDER_API_BASE for each of them, and\n\n"
    yield from _rows(named)


def configuration() -> Iterator[str]:
    """Where the configuration is, what wins, and its tables with their keys."""
    from llmctl.config.reference import tables

    yield "The configuration\n\n"
    yield "  llmctl config init            writes a commented file\n"
    yield "  llmctl config set KEY VALUE   changes one key of it\n"
    yield "  llmctl config show --origin   says what is in force, and why\n"
    yield "  llmctl config check           says whether it is good\n"
    yield "  llmctl config --help          shows all commands for it\n\n"
    yield "Settings: flag, then LLMCTL_*, then the file, then built-in. A key or an address\n"
    yield "of a provider: deployment, then [providers.X], then variables, then `llmctl keys\n"
    yield 'set`, then built-in. Durations are "30s", "5m", "24h", "7d"; money is USD.\n'
    for table in tables():
        yield "\n"
        yield from _filled(f"{table.header or 'At the top'}: {table.about}", "")
        yield "\n"
        yield from _rows((row.key, row.meaning) for row in table.rows)


TOPICS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "exit-codes": ("What each exit code means, and whether to try again.", exit_codes),
    "config": ("Where the configuration is, what wins, and every key.", configuration),
    "environment": ("Every variable that is read.", environment),
    "stdin": ("How PROMPT, --file and stdin become one message.", lambda: iter((_STDIN,))),
}
"""Topic -> what it is about, and the lines of its page."""


def _of_command(ctx: typer.Context, words: list[str]) -> str:
    """The help of the command that `words` name. Raises UsageError for one that is none."""
    from difflib import get_close_matches

    from llmctl.cli.commands import COMMANDS, command, unknown_command

    if words[0] not in COMMANDS:
        near = get_close_matches(words[0], [*TOPICS, *COMMANDS], n=1)
        if near:
            raise UsageError(f"no topic {words[0][:60]!r}", hint=f"did you mean `llmctl help {near[0]}`?")
        error = unknown_command(words)
        raise UsageError(error.message, hint="`llmctl help` lists the topics")
    found, parent = command(words[0]), ctx.parent
    for word in words[1:]:
        below = getattr(found, "commands", {})
        if word not in below:
            raise UsageError(f"no command {word[:60]!r} there", hint=f"`llmctl help {words[0]}` shows what there is")
        parent, found = found.context_class(found, info_name=found.name, parent=parent), below[word]
    page: str = found.get_help(found.context_class(found, info_name=words[-1], parent=parent))
    return f"{page}\n"


def _rows(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Two columns, the second one wrapped."""
    rows = list(pairs)
    width = min(max((len(name) for name, _ in rows), default=0), 24)
    for name, text in rows:
        lines = list(_filled(text, " " * (width + 4)))
        first = lines[0][width + 4 :] if lines else "\n"
        if len(name) > width:
            yield f"  {name}\n"
            yield from lines
        else:
            yield f"  {name:<{width}}  {first}"
            yield from lines[1:]


def _filled(text: str, indent: str) -> Iterator[str]:
    import textwrap

    for line in textwrap.wrap(text, _WIDTH - len(indent), break_on_hyphens=False):
        yield f"{indent}{line}\n"
