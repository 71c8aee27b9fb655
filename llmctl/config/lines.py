"""Which line of a TOML text sets which key. The parser does not say, so each statement is parsed again by itself."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.catalog import KeyPath


@lru_cache(maxsize=8)
def lines(text: str) -> Mapping[KeyPath, int]:
    """The line (from 1) that first sets each key and table of a valid TOML text."""
    found: dict[KeyPath, int] = {}
    lengths: dict[KeyPath, int] = {}  # of the arrays of tables so far
    table: KeyPath = ()
    for line, statement in _statements(text):
        tree = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(tree, lengths, array=statement.lstrip().startswith("[["))
            for n in range(1, len(table) + 1):
                found.setdefault(table[:n], line)
        else:
            for path in _paths(tree, table):
                found.setdefault(path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with its first line: as many lines as it takes until they parse."""
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        try:
            tomllib.loads(statement)
        except ValueError:  # a text or a list that goes on
            continue
        yield first, statement
        statement, first = "", number + 1


def _header(tree: Any, lengths: dict[KeyPath, int], *, array: bool) -> KeyPath:
    """The path of the table that a header opens; a step through an array of tables means its last one."""
    path: KeyPath = ()
    while tree:
        if isinstance(tree, list):  # the innermost of [[...]]: one table, empty
            break
        key, tree = next(iter(tree.items()))
        path = (*path, key)
        if array and isinstance(tree, list):
            lengths[path] = lengths.get(path, 0) + 1
        if path in lengths:
            path = (*path, lengths[path] - 1)
    return path


def _paths(tree: Any, path: KeyPath) -> Iterator[KeyPath]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, value in below:
        yield (*path, step)
        yield from _paths(value, (*path, step))
