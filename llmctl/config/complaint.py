"""What is wrong with a configuration, in our words: each complaint has a key, a sentence and a suggestion.

The errors that come in are pydantic's, as plain dicts. No value is quoted unless it stood where only fixed words may.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.catalog import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import KeyPath

_ASK_SCHEMA = "`llmctl config schema` prints every key and what it takes"
_NAMED = ("models", "providers", "drills")  # tables whose keys are names that the user makes up
# pydantic's error type -> what must stand there, and what to write (pydantic 2.14, docs "Validation Errors").
_TYPES: dict[str, tuple[str, str]] = {
    "string_type": ("must be text", 'put it in quotes: "..."'),
    "int_type": ("must be a whole number", "write it without quotes and without a fraction: 100"),
    "int_from_float": ("must be a whole number", "write it without a fraction: 100"),
    "float_type": ("must be a number", "write it without quotes: 0.5"),
    "bool_type": ("must be true or false", "write true or false, without quotes"),
    "list_type": ("must be a list", 'write it in brackets: ["one", "two"]'),
    "dict_type": ("must be a table", "write it under its own [header], or in braces: { key = value }"),
    "model_type": ("must be a table", "write it under its own [header], or in braces: { key = value }"),
    "finite_number": ("must be a finite number", "leave the key out where there is no limit"),
    "missing": ("is missing", "add it"),
    "too_short": ("must not be empty", "leave the key out, or fill it"),
    "string_too_short": ("must not be empty", "leave the key out, or fill it"),
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong, where, and what to do about it."""

    path: KeyPath
    what: str
    hint: str


class Refused(Exception):
    """A configuration was refused, for these reasons (at least one)."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__(complaints[0].what)
        self.complaints = complaints


def complaint(
    error: Mapping[str, Any], tree: Any, known_keys: Callable[[KeyPath], list[str]], shapes: Mapping[str, str]
) -> Complaint:
    """What one of pydantic's errors about `tree` comes to. `shapes` says in words what a pattern asks for."""
    kind, context = error["type"], error.get("ctx", {})
    path = tuple(error["loc"])
    if kind != "missing":
        path = path[: present(tree, path)]  # pydantic adds steps of its own, such as the branch of a union
    if kind == "extra_forbidden":
        return _unknown(path, error["input"], known_keys(path[:-1]))
    if kind == "literal_error":
        return _no_choice(path, error["input"], re.findall(r"'([^']*)'|\b(\d+)\b", context["expected"]))
    if kind == "string_pattern_mismatch":
        return Complaint(path, "has the wrong form", shapes.get(context["pattern"], _ASK_SCHEMA))
    if kind in _TYPES:
        return Complaint(path, *_TYPES[kind])
    words = error["msg"].replace("Input should be", "must be").replace("Input should", "must")
    return Complaint(path, words, context.get("hint") or _ASK_SCHEMA)


def _unknown(path: KeyPath, value: Any, known: list[str]) -> Complaint:
    key = str(path[-1]) if path else ""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if near:
        return Complaint(path, "unknown key", f"did you mean {near[0]!r}?")
    if len(path) > 2 and path[0] in _NAMED and isinstance(value, dict):
        name = ".".join(map(str, path[1:]))
        hint = f"a name with a dot stands in quotes: [{dotted((path[0], name))}]"
        return Complaint(path, "an unquoted dot makes two tables of this name", hint)
    loose = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return Complaint(path, "unknown key", f"did you mean {loose[0]!r}?" if loose else _keys(known))


def _keys(known: list[str]) -> str:
    return f"known here: {', '.join(known)}" if 0 < len(known) <= 15 else _ASK_SCHEMA


def _no_choice(path: KeyPath, value: Any, found: list[tuple[str, str]]) -> Complaint:
    choices = [word or number for word, number in found]
    near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    what = f"must be {' or '.join(choices)}" if len(choices) < 3 else f"must be one of {', '.join(choices)}"
    return Complaint(path, what, f"did you mean {near[0]!r}?" if near else _ASK_SCHEMA)


def present(tree: Any, path: KeyPath) -> int:
    """How many steps of `path` exist in `tree`."""
    for n, step in enumerate(path):
        in_list = isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        if not in_list and not (isinstance(tree, dict) and step in tree):
            return n
        tree = tree[step]
    return len(path)
