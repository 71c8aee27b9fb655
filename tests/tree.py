"""The whole command tree of llmctl, walked: a new command is in it from its first day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator


def _walked(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from _walked((*path, name), each)


TREE = dict(pair for name in commands.COMMANDS for pair in _walked((name,), commands.command(name)))
"""The words of a command, or of a group of them -> what the parser has for it."""
