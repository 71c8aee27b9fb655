"""`llmctl embed`: a vector for each text, and nothing else, on stdout or in a file."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.context import of
from llmctl.cli.options import ByStrategy, Quiet, Tag, examples, named_model, seconds, tags_of
from llmctl.cli.prompt import stdin_is_piped
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.cli.texts import Item

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Format(StrEnum):
    """How vectors are written."""

    json = "json"
    jsonl = "jsonl"
    base64 = "base64"
    npy = "npy"


class Cache(StrEnum):
    """What the cache is for: `core.caching.MODES`, of which vectors know the exact ones."""

    off = "off"
    exact = "exact"
    refresh = "refresh"


@app.command(
    epilog=examples(
        'llmctl embed -m text-embedding-3-small "a text"',
        "llmctl embed -m gemini-embedding-001 -f a.txt -f b.txt -o vectors.json",
        "cat lines.txt | llmctl embed -m text-embedding-3-small --lines -o v.json",
        "llmctl embed -m gemini-embedding-001 --jsonl -f c.jsonl --format npy > c.npy",
    )
)
def embed(
    ctx: typer.Context,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="What to embed.")] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="provider/model, or a group; else the group `embed`."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("-f", "--file", metavar="FILE", help="A file is a text (repeat); - is stdin, as is none at all."),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line that is not blank is a text.")] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help='Each line is a JSON string, or {"id": ..., "text": ...}.')
    ] = False,
    dimensions: Annotated[int | None, typer.Option(min=1, metavar="N", help="Cut vectors to N numbers.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N texts a request: 256.")] = None,
    parallel: Annotated[
        int, typer.Option("-j", "--parallel", min=1, max=256, metavar="N", help="Requests at once.")
    ] = 4,
    shape: Annotated[Format, typer.Option("--format", help="How to write the vectors.")] = Format.json,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE, not to stdout.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; errors as JSON too.")] = False,
    cache: Annotated[
        Cache | None, typer.Option("--cache", help="What is kept is not sent (exact, the default); refresh: keep anew.")
    ] = None,
    tag: Tag = None,
    strategy: ByStrategy = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Time allowed for each request: 30s, 5m.")] = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep no text of these calls; their rows stay.")] = False,
    quiet: Quiet = False,
) -> None:
    """Turn texts into vectors: TEXT, files, or stdin, in batches, in their order."""
    context = of(ctx, json=as_json)
    if as_json and shape is not Format.json:
        raise UsageError(f"--json and --format {shape.value} exclude each other", hint="give one of them")
    from llmctl.cli.embedding import write_vectors

    options = {
        "model": named_model("--model", model),
        "dimensions": dimensions,
        "batch": batch,
        "parallel": parallel,
        "strategy": strategy and strategy.value,
        "timeout": seconds("--timeout", timeout),
        "tags": dict(tags_of(tag or [])),
        "log": not no_log,
        "cache": cache and cache.value,
        "command": "embed",
    }
    items = _items(text, file or [], lines=lines, jsonl=jsonl)
    raise typer.Exit(write_vectors(context, items, options, shape.value, output, quiet=quiet or as_json))


def _items(text: str | None, files: list[str], *, lines: bool, jsonl: bool) -> Iterator[Item]:
    """The texts, not yet read. Raises UsageError when there can be none, or a file cannot be opened."""
    from llmctl.cli import texts

    if lines and jsonl:
        raise UsageError("--lines and --jsonl exclude each other", hint="give one of them")
    if text is not None and (lines or jsonl):
        raise UsageError("TEXT is one text, and no lines", hint="pipe the lines in, or name a file with -f")
    if text is None and not files:
        if not stdin_is_piped():
            raise UsageError("there is no text", hint='write: llmctl embed -m MODEL "..." (or pipe text in)')
        files = ["-"]
    texts.check(files)
    return texts.lines(files, as_json=jsonl) if lines or jsonl else texts.whole(text, files)
