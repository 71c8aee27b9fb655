"""From the text of configuration files to plain, validated data, and from a key back to the line where it stands.

This is the slow way (tomllib, pydantic); `config/load` goes it only when a text has changed. Every error is a
ConfigInvalid with file, line, key and a suggestion, and quotes no value that could be a secret.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from llmctl.config.complaint import Refused
from llmctl.config.lines import lines
from llmctl.core.catalog import REFERENCES, dotted
from llmctl.core.errors import ConfigInvalid
from llmctl.core.redact import names_secret, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmctl.config.files import Source
    from llmctl.core.catalog import KeyPath

Tree = dict[str, Any]
_FORMS = ("model", "deployments", "route")
_LITERAL = re.compile(r"""api_keys?["']?\s*=\s*\[?\s*["'](?!env:|file:|cmd:)""")
_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")
# The shapes of keys that vendors publish, long enough not to be a name.
_OPAQUE = re.compile(r"(?:\b[Bb]earer |\b(?:sk|gsk|xai|hf|nvapi)[-_]|\bAIza)[A-Za-z0-9_-]{16,}")
_DEEPEST = 32


def parsed(source: Source) -> Tree:
    """The tables of one file. Raises ConfigInvalid for a syntax error or a version of another llmctl."""
    try:
        tree = tomllib.loads(_text(source))
        _check_depth(tree)
    except (ValueError, RecursionError) as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line = at[1] if at else source.text.count("\n") + 1
        what = str(error).partition(" (at ")[0] if isinstance(error, ValueError) else "nested too deeply"
        hint = 'text stands in quotes, and so does a group name with a dot: [models."gpt-4.1"]'
        raise ConfigInvalid(f"{source.path}:{line}: not readable as TOML: {redact(what)}", hint=hint) from error
    version = tree.get("version", 1)
    if version != 1 or isinstance(version, bool):
        hint = "write version = 1, or use the llmctl that this file was written for"
        raise ConfigInvalid(f"{where([source], ('version',))}: this llmctl reads version 1", hint=hint)
    return tree


def validated(sources: Sequence[Source]) -> tuple[Tree, bool]:
    """The configuration that `sources` add up to as plain data, and whether a copy may be kept. Raises ConfigInvalid.

    A copy may not be kept of a file that holds a secret, be it in a comment.
    """
    keep = True
    for source in sources:
        keep = keep and not any(shape.search(source.text) for shape in (_LITERAL, _PASSWORD, _OPAQUE))
        for path in secrets(parsed(source)):
            _check_private(source, path)
            keep = False
    return checked(written(sources), sources), keep


def written(sources: Sequence[Source]) -> Tree:
    """What the files say, as they say it, later ones laid over earlier ones. Raises ConfigInvalid."""
    whole: Tree = {}
    for source in sources:
        whole = merged(whole, parsed(source))
    return whole


def checked(tree: Mapping[str, Any], sources: Sequence[Source] = ()) -> Tree:
    """`tree` validated, as plain data; `sources` are where it was read from. Raises ConfigInvalid."""
    if not tree:
        return {}  # no file yet: nothing to validate, and pydantic is slow to load
    from llmctl.config import schema

    try:
        _check_depth(tree)
        return schema.validated(tree)
    except RecursionError as error:
        raise ConfigInvalid("the configuration is nested too deeply", hint="is this a configuration?") from error
    except Refused as refused:
        complaints = refused.complaints
    places = [(locate(sources, each.path) or (-1, 0), i) for i, each in enumerate(complaints)]
    first = complaints[min(places)[1]]
    rest = len({each.path for each in complaints}) - 1
    more = f" (and {rest} more)" if rest else ""
    raise ConfigInvalid(f"{where(sources, first.path)}: {first.what}{more}", hint=first.hint)


def merged(old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...] = ()) -> Tree:
    """`old` with `new` laid over it, table by table. A model group that changes its form forgets the old one."""
    whole = dict(old)
    if len(path) == 2 and path[0] == "models" and any(form in new for form in _FORMS):
        whole = {key: value for key, value in whole.items() if key not in _FORMS}
    for key, value in new.items():
        below = whole.get(key)
        tables = isinstance(below, dict) and isinstance(value, dict)
        whole[key] = merged(below or {}, value, (*path, key)) if tables else value
    return whole


def secrets(tree: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all values that are secrets themselves, and not references to one."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from secrets(value, (*path, name))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from secrets(value, (*path, i))
    elif isinstance(tree, str) and is_secret(path, tree):
        yield path


def is_secret(path: KeyPath, value: str) -> bool:
    """Whether `value`, set at `path`, is a secret and not a reference to one."""
    *tables, key = [step for step in path if isinstance(step, str)]
    literal = key in {"api_key", "api_keys"} or (tables[-1:] == ["headers"] and names_secret(key))
    return (literal and not value.startswith(REFERENCES)) or bool(_PASSWORD.search(value) or _OPAQUE.search(value))


def _check_depth(tree: Any, left: int = _DEEPEST) -> None:
    """Raise RecursionError for tables nested deeper than any configuration is; what walks them later need not mind."""
    if not left:
        raise RecursionError
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _check_depth(value, left - 1)


def _check_private(source: Source, path: KeyPath) -> None:
    try:
        mode = source.path.stat().st_mode
    except OSError:
        return  # it was read a moment ago, so it is gone or was a pipe: nothing is left that others could read
    if mode & 0o077:
        hint = f"chmod 600 {source.path} (or write env:NAME, file:PATH or cmd:COMMAND instead)"
        raise ConfigInvalid(f"{where([source], path)}: a secret in a file that others may read", hint=hint)


def where(sources: Sequence[Source], path: KeyPath) -> str:
    """`FILE:LINE: key.path` for the last file that sets `path`; the key alone when no file does."""
    found = locate(sources, path)
    return f"{sources[found[0]].path}:{found[1]}: {dotted(path)}" if found else dotted(path)


def locate(sources: Sequence[Source], path: KeyPath) -> tuple[int, int] | None:
    """Which source sets `path`, or else the nearest table around it, and in which line; None when none does."""
    for length in range(len(path), 0, -1):
        for i in reversed(range(len(sources))):
            line = lines(_text(sources[i])).get(path[:length])
            if line:
                return i, line
    return None


def _text(source: Source) -> str:
    return source.text.removeprefix("\ufeff")  # some editors begin a UTF-8 file with a byte order mark
