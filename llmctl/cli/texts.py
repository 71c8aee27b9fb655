"""The texts to embed, each with its id: from the command line, whole files, lines, or JSON lines; read as needed."""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from llmctl.cli.output import one_line
from llmctl.cli.prompt import MAX_INPUT, as_text, decoded, file_text, opened
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Id = str | int | None
    Item = tuple[Id, str]


def whole(text: str | None, files: Sequence[str]) -> Iterator[Item]:
    """TEXT, then each file as one text, called by its name. Raises UsageError for one that is empty or no text."""
    if text is not None:
        yield None, _filled(as_text(text, "TEXT"), "TEXT")
    for name in files:
        yield (None if name == "-" else name), _filled(file_text(name), _called(name))


def lines(files: Sequence[str], *, as_json: bool) -> Iterator[Item]:
    """Each line that is not blank of each file: a text, or a JSON document that holds one. Raises UsageError."""
    for name in files:
        with _stream(name) as stream:
            n = 0
            while line := stream.readline(MAX_INPUT + 1):
                n += 1
                where = f"{_called(name)}, line {n}"
                if len(line) > MAX_INPUT:
                    raise UsageError(f"{where} is over {MAX_INPUT >> 20} MiB", hint="no model's window holds that")
                text = decoded(line.rstrip(b"\r\n"), where)
                if text.strip():
                    yield _json_item(text, where) if as_json else (None, text)


def check(files: Sequence[str]) -> None:
    """Raises UsageError for a file that cannot be opened, before anything is paid for. Pipes are left alone."""
    if list(files).count("-") > 1:
        raise UsageError("--file - was given twice", hint="stdin can be read once")
    for name in files:
        if name != "-" and not _is_pipe(name):
            os.close(opened(name))


def _is_pipe(name: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def _called(name: str) -> str:
    return "stdin" if name == "-" else f"--file {one_line(name)}"


def _filled(text: str, where: str) -> str:
    if not text.strip():
        raise UsageError(f"{where} is empty", hint="providers refuse an empty text: leave it out")
    return text


@contextmanager
def _stream(name: str) -> Iterator[BinaryIO]:
    """The bytes of a file, or of stdin, which stays open."""
    if name == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("stdin is closed", hint="name files with -f")
        os.set_blocking(sys.stdin.fileno(), True)  # as another program on the same pipe may not have left it
        yield sys.stdin.buffer
        return
    descriptor = opened(name)
    os.set_blocking(descriptor, True)
    with open(descriptor, "rb") as stream:
        yield stream


def _json_item(line: str, where: str) -> Item:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is not JSON", hint='write "..." or {"id": ..., "text": "..."} on each line'
        ) from error
    text, key = (document.get("text"), document.get("id")) if isinstance(document, dict) else (document, None)
    if not isinstance(text, str):
        raise UsageError(f"{where} holds no text", hint='write "..." or {"id": ..., "text": "..."} on each line')
    if isinstance(key, bool) or not isinstance(key, (str, int, type(None))):
        raise UsageError(f"{where}: the id is neither a text nor a whole number", hint="leave it out, or change it")
    return key, _filled(text, where)
