"""What the commands share: options that mean the same everywhere, and the examples below a help text."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.prompt import as_text
from llmctl.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def seconds(option: str, text: str | None) -> float | None:
    """The seconds of a duration given with `option`; None where it was not given. Raises UsageError."""
    if text is None:
        return None
    from llmctl.core.when import parse_duration

    try:
        found = parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error
    if found <= 0:
        raise UsageError(f"{option} {text!r} is no time at all", hint="write 30s or 5m")
    return found


def examples(*lines: str) -> str:
    """The examples of a command, for its `epilog`: one line each, never wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def tags_of(words: list[str]) -> list[tuple[str, str]]:
    """The (key, value) pairs of `KEY=VALUE` words. Raises UsageError."""
    return [_tag(word) for word in words]


def _tag(word: str) -> tuple[str, str]:
    key, equals, value = as_text(word, "--tag").partition("=")
    if not equals or not key:
        raise UsageError(f"--tag {word!r} is not KEY=VALUE", hint="for instance --tag team=web")
    return key, value
