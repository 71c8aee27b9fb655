"""`llmctl cache purge | bad`: kept answers removed, by what they are or because one was wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmctl.cli import output
from llmctl.cli.context import of
from llmctl.cli.ledger_upkeep import agreed
from llmctl.cli.options import Json, examples, seconds
from llmctl.cli.prompt import as_text, decoded, file_bytes
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.store.cache_upkeep import Choice

PURGE = examples(
    "llmctl cache purge",
    "llmctl cache purge --older-than 7d --model fast --dry-run",
    "llmctl cache purge --document handbook.md --yes",
    "llmctl cache purge --all --yes --json",
)
BAD = examples("llmctl cache bad last", "llmctl cache bad 01J9ZK --json")
_MOST_BYTES = 1 << 30
_HASH = 64


def purge(
    ctx: typer.Context,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Kept for longer than: 7d, 12h.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Asked as MODEL, or answered by it.")] = None,
    kind: Annotated[
        Literal["exact", "canonical", "semantic", "vectors"] | None,
        typer.Option(help="What this tier can answer from; every answer is exact."),
    ] = None,
    document: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answers that depend on this file, or on a SHA-256.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With this text in the prompt or the answer.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove kept answers and vectors for ever: those that all options fit; without any, what has expired.

    The text is overwritten in the cache and its journal, not in copies made of it, nor in the ledger. What was called
    bad stays forbidden. Running calls go on; at worst they do without the cache meanwhile.
    """
    from llmctl.store.cache_upkeep import Choice
    from llmctl.store.cache_upkeep import purge as remove

    path, now, age = of(ctx, json=json).places.cache, time(), seconds("--older-than", older_than)
    choice = Choice(
        None if age is None else now - age, _said("--model", model), kind, _documents(path, document),
        _said("--match", match), everything,
    )  # fmt: skip
    _check(choice)
    if not choice.expired_only and not dry_run and not yes:
        found = remove(path, choice, now, dry_run=True)
        if not found["matched"] or not agreed(_what(found), yes=False):
            _tell(found | {"dry_run": False}, json=json)
            return
    _tell(remove(path, choice, now, dry_run=dry_run), json=json)


def bad(
    ctx: typer.Context,
    id: Annotated[  # noqa: A002
        str, typer.Argument(metavar="ID", help="An id of `cache list`, or of a call that was answered; or: last.")
    ],
    json: Json = False,
) -> None:
    """Say that an answer from the cache was wrong: it is removed, and never given to that question again."""
    from llmctl.store.cache_upkeep import forbid

    told = forbid(of(ctx, json=json).places.cache, as_text(id, "ID"), time())
    if json:
        output.print_json(told)
        return
    removed = "removed" if told["removed"] else "gone already"
    new = "is forbidden for ever" if told["forbidden"] else "was forbidden before"
    output.say(f"the answer of {told['entry']} is {removed}; to answer this question by it {new}")
    _warn(told["also_in"])


def _said(option: str, value: str | None) -> str | None:
    """The text of an option. Raises UsageError for an empty one, which would be in everything."""
    if value is not None and not value.strip():
        raise UsageError(f"{option} is empty", hint="say what it is, or leave the option out")
    return None if value is None else as_text(value, option)


def _check(choice: Choice) -> None:
    """Raises UsageError for a choice that nothing can ever fit."""
    if choice.kind == "vectors" and (choice.text is not None or choice.documents):
        raise UsageError(
            "vectors have neither text nor documents to be chosen by", hint="choose them by --older-than or --model"
        )


def _documents(path: Path, named: str | None) -> tuple[str, ...]:
    """The hashes that a document may have been kept under: of its bytes, and of its text. Raises UsageError."""
    from llmctl.core.scope import content_hash, document_hash
    from llmctl.store.cache_upkeep import knows_document

    if named is None:
        return ()
    file = "/dev/stdin" if named == "-" else named
    if os.path.exists(file):
        data = file_bytes(file, "--document", _MOST_BYTES)
        hashes = {content_hash(data)}
        with suppress(UsageError):  # no text
            hashes.add(content_hash(decoded(data, "--document")))
        return tuple(sorted(hashes))
    name = _said("--document", named) or ""
    given = document_hash(name.lower() if len(name) == _HASH else name)
    if given != name.lower() and not knows_document(path, given):
        raise UsageError(
            f"--document {name!r} is neither a file here nor the SHA-256 of a document",
            hint="`llmctl cache show ID` shows the hashes that an answer depends on",
        )
    return (given,)


def _what(found: dict[str, Any]) -> str:
    """What was found, in words."""
    kinds = found["kinds"]
    parts = [
        f"{kinds[kind]} {word}{'s' * (kinds[kind] != 1)}"
        for kind, word in (("exact", "answer"), ("vectors", "vector"))
        if kinds[kind] or (kind == "exact" and not kinds["vectors"])
    ]
    return " and ".join(parts)


def _tell(found: dict[str, Any], *, json: bool) -> None:
    if json:
        output.print_json(found)
        return
    removed = f"{found['deleted']} removed, {found['bytes_freed']} bytes freed"
    output.say(f"{_what(found)}: {removed if found['deleted'] else 'nothing removed'}")
    if not found["dry_run"]:
        _warn(found["also_in"])


def _warn(left: list[str]) -> None:
    if left:
        output.say(f"these may hold what was removed, since they are in use or were moved aside: {', '.join(left)}")
