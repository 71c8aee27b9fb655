"""`llmctl ask`: one answer. stdout holds the answer and nothing else; everything said about it goes to stderr."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

import typer

from llmctl.cli.colour import Choice
from llmctl.cli.context import of
from llmctl.cli.options import (
    ByStrategy,
    CacheBy,
    CacheDoc,
    Color,
    Continue,
    Fallback,
    MaxCost,
    MaxTokens,
    MaxWait,
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
from llmctl.cli.output import tell
from llmctl.cli.prompt import Composed, as_text, compose, stdin_is_piped
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
    'llmctl ask --session trip "what to see in Rome in three days?"',
)


@app.command(epilog=EXAMPLES)
def ask(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What to ask; stdin is added after a blank line.")
    ] = None,
    model: Model = None,
    system: System = None,
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
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    fallback: Fallback = None,
    no_fallback: NoFallback = False,
    strategy: ByStrategy = None,
    retries: Annotated[
        int | None, typer.Option(min=0, max=MAX_RETRIES, metavar="N", help="Retries of each target, at most 2.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Total time allowed: 30s, 5m.")] = None,
    max_wait: MaxWait = None,
    max_cost: MaxCost = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="NAME", help="Go on with the conversation NAME, or begin it.")
    ] = None,
    go_on: Continue = False,
    cache: CacheBy = None,
    cache_doc: CacheDoc = None,
    on_break: Annotated[OnBreak, typer.Option(help="When a shown answer breaks off.")] = OnBreak.fail,
    strict_params: Annotated[
        bool, typer.Option("--strict-params", help="Refuse what a target cannot take, instead of leaving it out.")
    ] = False,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Leave stdin alone.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer as it is made, or at its end.")
    ] = True,
    extract: Annotated[
        bool, typer.Option("-x", "--extract", help="Print the first code block alone; all, where there is none.")
    ] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Put on the clipboard what was printed.")] = False,
    render: Render = None,
    color: Color = Choice.auto,
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
    verbose: Verbose = False,
) -> None:
    """Ask for one answer: files, prompt and stdin are joined, and the answer is all that goes to stdout."""
    context = of(ctx, json=as_json)
    files = file or []
    if prompt is None and not files and (no_stdin or not stdin_is_piped()):
        _no_prompt(ctx, as_json=as_json)
    if no_stdin and "-" in files:
        raise UsageError("--file - and --no-stdin exclude each other", hint="give one of them")
    if extract and as_json:
        raise UsageError("--extract and --json exclude each other", hint="the document has all of the text")
    request = _request(schema, option or [], temperature=temperature, max_tokens=max_tokens)
    said = compose(prompt, files, use_stdin=not no_stdin)
    message = None if attach else said.text
    if attach:
        request["messages"] = _with_attachments(said, attach)
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
        "cache": cache and cache.value,
        "documents": [*said.documents, *(cache_doc or [])],
        "command": "ask",
        **request,
    }
    going = None
    if session is not None or go_on:
        from llmctl.cli.sessions import going_on

        going = going_on(context, session, message, options, go_on=go_on, quiet=quiet or as_json)
    if dry_run:
        if trace is not None:
            raise UsageError(
                "--dry-run and --trace exclude each other", hint="with --dry-run there is no call to trace"
            )
        from llmctl.cli.dry_run import show_plan

        if going is not None:
            message, options = None, going.planned(context, options)
        show_plan(context, message, options, as_json=as_json, quiet=quiet)
        return
    from llmctl.cli.answering import Show, answer

    shaped = "schema" in request or "response_format" in request
    show = Show(
        streams=stream and not (as_json or shaped or extract),
        as_json=as_json,
        quiet=quiet or as_json,
        verbose=verbose,
        explain=explain,
        trace=trace,
        going=going,
        render=False if shaped or extract else render,
        color=color.value,
        extract=extract,
        copy=copy,
    )
    raise typer.Exit((answer if going is None else going.answer)(context, message, options, show))


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


def _with_attachments(said: Composed, attach: list[str]) -> list[Any]:
    """The user message of text files, then attachments, then PROMPT and stdin. Raises UsageError."""
    from llmctl.cli.request import attachments_of
    from llmctl.core.types import Message, Text

    attached = attachments_of(attach)
    texts = [(Text(text),) if text else () for text in (said.before, said.after)]
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
