"""Reading and writing the small private files of the configuration. What their text means is not known here."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.config.places import Places

_MAX_BYTES = 4 * 1024 * 1024


class Source(NamedTuple):
    """One configuration file: where it is, and its exact text."""

    path: Path
    text: str


def sources(places: Places) -> tuple[Source, ...]:
    """The configuration files that exist, in their order.

    Raises ConfigInvalid for a file that cannot be read, and for one that the user named and that is not there.
    """
    found = []
    for path in places.config_files:
        data = read(path)
        if data is not None:
            found.append(Source(path, decoded(path, data)))
        elif places.chosen:
            hint = "`llmctl config init`, with the same --config or LLMCTL_CONFIG, writes a commented one"
            raise ConfigInvalid(f"{path}: no such configuration file", hint=hint)
    return tuple(found)


def read(path: Path) -> bytes | None:
    """The bytes of `path`; None when there is no such file. Raises ConfigInvalid when it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigInvalid(f"{path}: cannot be read ({reason})", hint="it must be a file that you may read") from error
    if len(data) > _MAX_BYTES:
        raise ConfigInvalid(f"{path}: more than {_MAX_BYTES} bytes", hint="is it the file that you mean?")
    return data


def decoded(path: Path, data: bytes) -> str:
    """The text of a configuration file. Raises ConfigInvalid for what is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{path}:{line}: not UTF-8", hint="save the file with the encoding UTF-8") from error


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path` in one step (old or new, never half), readable by its owner only.

    The directory is made when it is missing; a symbolic link is followed, so that a file kept elsewhere stays there.
    Raises OSError.
    """
    import tempfile

    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", dir=folder)  # 0600 from the start
    try:
        with open(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
