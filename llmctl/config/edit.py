"""One key of the configuration, read and changed: `config get` and `config set`.

A change keeps every comment and the order of the file. Nothing is written that is not a good configuration as a whole,
nor where the edited text says anything but the old file with that one change.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from llmctl.config.complaint import present
from llmctl.config.files import Source, decoded, read, write_private
from llmctl.config.load import assembled, packaged
from llmctl.config.source import checked, parsed, secrets
from llmctl.core.catalog import dotted
from llmctl.core.errors import ConfigInvalid, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.core.catalog import KeyPath

UNSET = object()
"""The value of a key that is to go."""
_BOM = "\ufeff"


class Edit(NamedTuple):
    """A change that may be written: the new text, whether it differs, and the value as it stands in it."""

    path: Path
    text: str
    changed: bool
    value: Any


def key_path(text: str) -> KeyPath:
    """The path of a key as `config show` prints it: `models."gpt-4.1".deployments[0].rpm`. Raises UsageError."""
    steps: list[str | int] = []
    try:
        for piece, index in _pieces(text):
            tree: Any = tomllib.loads(f"{piece} = 0")
            while isinstance(tree, dict):
                ((step, tree),) = tree.items()
                steps.append(step)
            steps += [] if index is None else [index]
    except ValueError as error:
        what = f"{text[:60]!r} is no key of a configuration"
        raise UsageError(what, hint='write retry.tries, or models."gpt-4.1".rpm') from error
    return tuple(steps)


def _pieces(text: str) -> list[tuple[str, int | None]]:
    """What stands before each `[n]`, and that n; None after the last. Raises ValueError."""
    import re

    found: list[tuple[str, int | None]] = []
    for at, piece in enumerate(re.split(r"\[(\d{1,6})\](?=\.|$)", text)):
        if at % 2 and not found:
            raise ValueError(text)
        if at % 2:
            found[-1] = (found[-1][0], int(piece))
        elif piece.removeprefix("."):
            found.append((piece.removeprefix(".") if at else piece, None))
    if not found or "\n" in text or "=" in text:
        raise ValueError(text)
    return found


def value_of(text: str) -> Any:
    """`text` as a value of TOML, or as the text that it is."""
    try:
        tree = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return tree["value"] if len(tree) == 1 else text


def edited(path: Path, key: KeyPath, text: Any) -> Edit:
    """The file at `path` with `key` set to what `text` says, or without it (`UNSET`). Nothing is written.

    Text that is a value of TOML is that value, unless only words are good there. Raises UsageError where the result is
    no good configuration, ConfigInvalid where the file itself is none.
    """
    source = Source(path, decoded(path, read(path) or b""))
    old = parsed(source)
    if text is UNSET:
        return _edit(source, old, key, UNSET)
    value = value_of(text)
    try:
        return _edit(source, old, key, value)
    except UsageError:
        if isinstance(value, str):
            raise
        try:
            return _edit(source, old, key, text)
        except UsageError:
            pass
        raise


def _edit(source: Source, old: dict[str, Any], key: KeyPath, value: Any) -> Edit:
    tree = _changed(tomllib.loads(source.text.removeprefix(_BOM)), key, value)
    _check(old, tree, key)
    _check_secret(source.path, key, value)
    text = _text(source.text, key, value)
    if _filled(tomllib.loads(text.removeprefix(_BOM))) != _filled(tree):
        hint = f"change it with an editor: {source.path}"
        raise ConfigInvalid(f"{dotted(key)}: cannot be changed without changing something else", hint=hint)
    return Edit(source.path, text, text != source.text, None if value is UNSET else value)


def write(edit: Edit) -> None:
    """Put the changed file in its place in one step, with the mode that it had; a new one is 0600."""
    mode = edit.path.stat().st_mode & 0o777 if edit.path.exists() else 0o600
    try:
        write_private(edit.path, edit.text)
        if mode != 0o600:
            edit.path.chmod(mode)
    except OSError as error:
        hint = "choose another place with --config or LLMCTL_HOME"
        raise ConfigInvalid(f"{edit.path}: cannot be written ({error.strerror})", hint=hint) from error


def _changed(tree: Any, key: KeyPath, value: Any) -> Any:
    """`tree` with one change, made in place. Works alike on plain data and on a document of tomlkit."""
    below = tree
    for n, step in enumerate(key[:-1], 1):
        if isinstance(step, str) and isinstance(below, dict) and step not in below:
            if value is UNSET:
                return tree
            below[step] = _table(below, is_last=n == len(key) - 1)
        elif present(below, (step,)) != 1:
            raise UsageError(f"there is no {dotted(key[:n])}", hint="`llmctl config show` prints every key that is set")
        below = below[step]
    if not isinstance(below, (dict, list)) or (isinstance(below, list) and present(below, key[-1:]) != 1):
        raise UsageError(f"{dotted(key[:-1])} has no {key[-1]!r}", hint="`llmctl config show` prints what it has")
    if value is not UNSET:
        below[key[-1]] = value  # type: ignore[index]
    elif present(below, key[-1:]) == 1:
        del below[key[-1]]  # type: ignore[arg-type]
    return tree


def _filled(tree: Any) -> Any:
    """`tree` without empty tables: a table whose last key is gone may go too."""
    if not isinstance(tree, dict):
        return [_filled(each) for each in tree] if isinstance(tree, list) else tree
    rows = {key: _filled(value) for key, value in tree.items()}
    return {key: value for key, value in rows.items() if value != {}}


def _table(parent: Any, *, is_last: bool) -> Any:
    """A new table within `parent`; those above the one that gets the key have no header of their own."""
    if type(parent) is dict:
        return {}
    import tomlkit
    from tomlkit.items import InlineTable

    return tomlkit.inline_table() if isinstance(parent, InlineTable) else tomlkit.table(is_super_table=not is_last)


def _text(text: str, key: KeyPath, value: Any) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    mark = _BOM if text.startswith(_BOM) else ""
    try:
        document = tomlkit.parse(text.removeprefix(_BOM))
        return mark + tomlkit.dumps(_changed(document, key, value))
    except (TOMLKitError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigInvalid(f"{dotted(key)}: cannot be changed here", hint="change it with an editor") from error


def _check(old: dict[str, Any], tree: dict[str, Any], key: KeyPath) -> None:
    """Raise UsageError where the change makes a good configuration a bad one, ConfigInvalid where it was bad before."""
    try:
        _assembled(tree)
    except ConfigInvalid as error:
        try:
            _assembled(old)
        except ConfigInvalid as before:
            raise before from error
        what = error.message if error.message.startswith(dotted(key)) else f"{dotted(key)}: then {error.message}"
        raise UsageError(what, hint=error.hint) from error


def _assembled(tree: dict[str, Any]) -> None:
    assembled({**packaged(), "config": checked(tree)}, {}, ())


def _check_secret(path: Path, key: KeyPath, value: Any) -> None:
    if any(secrets(value, key)) and path.exists() and path.stat().st_mode & 0o077:
        hint = f"chmod 600 {path}, or write env:NAME, file:PATH or cmd:COMMAND instead"
        raise ConfigInvalid(f"{dotted(key)}: a secret in a file that others may read", hint=hint)
