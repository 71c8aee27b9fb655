"""What a person has typed into a chat: a private file of one JSON text a line, bounded, that any number may add to.

It is a convenience: a file that cannot be read or written is no error, and a line that is damaged is passed over.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from llmctl.core.errors import LedgerUnusable
from llmctl.store.files import private_directory, private_file, write_private

if TYPE_CHECKING:
    from pathlib import Path

MOST = 1000
"""How many texts are kept: twice as many are in the file at most, before it is made anew."""
LONGEST = 20_000
"""The most characters of one text that is kept: what is longer was pasted."""


def load(path: Path) -> list[str]:
    """The last texts, oldest first."""
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else []  # a pipe in its place has no end
    except OSError:
        return []
    texts = [text for line in lines[-MOST:] if isinstance(text := _parsed(line), str)]
    if len(lines) > 2 * MOST:
        with suppress(OSError):
            write_private(str(path), b"".join(map(_line, texts)))
    return texts


def add(path: Path, text: str) -> None:
    """Keep `text` as the newest one."""
    if len(text) > LONGEST:
        return
    with suppress(OSError, LedgerUnusable):
        private_directory(str(path.parent))
        private_file(str(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, _line(text))  # one write, so that two chats cannot tear each other's lines
        finally:
            os.close(descriptor)


def _line(text: str) -> bytes:
    return json.dumps(text).encode() + b"\n"


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
