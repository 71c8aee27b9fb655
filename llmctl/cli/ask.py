"""`llmctl ask`: one answer. stdout holds the answer and nothing else; everything said about it goes to stderr."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import (
    ByStrategy,
    Fallback,
    MaxCost,
    MaxWait,
    Model,
    NoFallback,
    Quiet,
    Tag,
    examples,
    fallbacks_of,
    named_model,
    seconds,
    tags_of,
)  # fmt: skip
from llmctl.cli.output import tell
from llmctl.cli.prompt import as_text, compose, compose_around, stdin_is_piped
from llmctl.core.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)

MAX_RETRIES = 2
"""As in `core.catalog`, whose import would cost `--help` 8 ms; a test compares the two."""


class OnBreak(StrEnum):
    """What to do when an answer breaks off after some of it was shown."""

    fail = "fail"
    restart = "restart"


EXAMPLES = examples(
    'llmctl ask "why is the sky blue?"',
    'git diff | llmctl ask "review this change"',
    'llmctl ask -m smart --fallback cheap -f notes.txt "summarise"',
    'llmctl ask --json --schema person.json -a card.png "who is this?"',
    'llmctl ask --dry-run -m gpt-4o "what would this cost?"',
)


@app.command(epilog=EXAMPLES)
def ask(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What to ask; stdin is added after a blank line.")
    ] = None,
    model: Model = None,
    system: Annotated[str | None, typer.Option("-s", "--system", metavar="TEXT", help="The system prompt.")] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("-f", "--file", metavar="FILE", help="A text file before the prompt (repeat); - is stdin."),
    ] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option("-a", "--attach", metavar="FILE|URL", help="An image or a PDF before the prompt (repeat)."),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="FILE|JSON", help="The answer is JSON that meets this JSON Schema, or exit code 10."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Any other parameter of the request (repeat)."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, metavar="T", help="Sampling temperature.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many output tokens.")] = None,
    fallback: Fallback = None,
    no_fallback: NoFallback = False,
    strategy: ByStrategy = None,
    retries: Annotated[
        int | None, typer.Option(min=0, max=MAX_RETRIES, metavar="N", help="Retries of each target, at most 2.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Total time allowed: 30s, 5m.")] = None,
    max_wait: MaxWait = None,
    max_cost: MaxCost = None,
    on_break: Annotated[OnBreak, typer.Option(help="When a shown answer breaks off.")] = OnBreak.fail,
    strict_params: Annotated[
        bool, typer.Option("--strict-params", help="Refuse what a target cannot take, instead of leaving it out.")
    ] = False,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Leave stdin alone.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer as it is made, or at its end.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say who was chosen, and why each other was not.")] = False,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the timeline of the call as JSON, however it ends.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show route, tokens and cost estimate; send nothing.")
    ] = False,
    tag: Tag = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep no text of this call; its row stays.")] = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say on stderr who answered, and what was left out.")
    ] = False,
) -> None:
    """Ask for one answer: files, prompt and stdin are joined, and the answer is all that goes to stdout."""
    context = of(ctx, json=as_json)
    files = file or []
    if prompt is None and not files and (no_stdin or not stdin_is_piped()):
        _no_prompt(ctx, as_json=as_json)
    if no_stdin and "-" in files:
        raise UsageError("--file - and --no-stdin exclude each other", hint="give one of them")
    request = _request(schema, option or [], temperature=temperature, max_tokens=max_tokens)
    message: str | None = None
    if attach:
        request["messages"] = _with_attachments(prompt, files, attach, use_stdin=not no_stdin)
    else:
        message = compose(prompt, files, use_stdin=not no_stdin)
    options: dict[str, Any] = {
        "model": named_model("--model", model),
        "system": None if system is None else as_text(system, "--system"),
        "temperature": _finite("--temperature", temperature),
        "max_tokens": max_tokens,
        "fallbacks": fallbacks_of(fallback, none=no_fallback),
        "strategy": strategy and strategy.value,
        "retries": retries,
        "timeout": seconds("--timeout", timeout),
        "max_wait": seconds("--max-wait", max_wait),
        "max_cost": max_cost,
        "on_break": on_break.value,
        "strict_params": strict_params,
        "tags": dict(tags_of(tag or [])),
        "log": not no_log,
        "command": "ask",
        **request,
    }
    if dry_run:
        if trace is not None:
            raise UsageError(
                "--dry-run and --trace exclude each other", hint="with --dry-run there is no call to trace"
            )
        from llmctl.cli.dry_run import show_plan

        show_plan(context, message, options, as_json=as_json, quiet=quiet)
        return
    from llmctl.cli.answering import Show, answer

    shaped = "schema" in request or "response_format" in request
    show = Show(
        streams=stream and not as_json and not shaped,
        as_json=as_json,
        quiet=quiet or as_json,
        verbose=verbose,
        explain=explain,
        trace=trace,
    )
    raise typer.Exit(answer(context, message, options, show))


def _request(schema: str | None, words: list[str], **flags: Any) -> dict[str, Any]:
    """What `--schema` and `--option` say, as options of `Client.call`. Raises UsageError."""
    if schema is None and not words:
        return {}
    from llmctl.cli.request import options_of, schema_of

    request = options_of(words, [name for name, value in flags.items() if value is not None])
    if schema is not None:
        if "response_format" in request:
            raise UsageError("--option response_format and --schema exclude each other", hint="give one of them")
        request["schema"] = schema_of(schema)
    return request


def _with_attachments(prompt: str | None, files: list[str], attach: list[str], *, use_stdin: bool) -> list[Any]:
    """The user message of text files, then attachments, then PROMPT and stdin. Raises UsageError."""
    from llmctl.cli.request import attachments_of
    from llmctl.core.types import Message, Text

    attached = attachments_of(attach)
    before, after = compose_around(prompt, files, use_stdin=use_stdin)
    texts = [(Text(text),) if text else () for text in (before, after)]
    return [Message("user", (*texts[0], *attached, *texts[1]))]


def _no_prompt(ctx: typer.Context, *, as_json: bool) -> None:
    """Short help instead of an answer. Raises Exit, or UsageError where the help would have to be JSON."""
    if as_json:
        raise UsageError("there is no prompt", hint='write: llmctl ask "..."')
    shown = EXAMPLES.removeprefix("\b\n")
    tell(f"{ctx.get_usage()}\n\n{shown}\n\n`llmctl ask --help` shows the options.\n")
    raise typer.Exit(2)


def _finite(option: str, number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise UsageError(f"{option} {number} is not a number", hint="for instance 0.7")
    return number
