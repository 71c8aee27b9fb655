"""The user message out of files, the PROMPT argument and stdin, joined by one documented rule (contract, section 11).

Each `--file` is a block: a line `--- NAME ---`, its text, a blank line. Then come the attachments, then PROMPT, then,
when stdin is not a terminal, a blank line and stdin. Whatever is not text is refused here, before anything is sent.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from llmctl.cli.output import one_line, say
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_INPUT = 16 << 20
"""The most that is read from one file or from stdin: four million tokens, above every model's window."""
SILENCE_S = 1.0


class Composed(NamedTuple):
    """The two halves of the user message, before and after its attachments: the files, and what is said of them.

    `documents` are the SHA-256 of the files' contents.
    """

    before: str
    after: str
    documents: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole message."""
        return self.before + self.after


def compose(prompt: str | None, files: Sequence[str], *, use_stdin: bool, default: str = "") -> Composed:
    """The user message; `default` stands where nothing was said.

    Raises UsageError when there is none, or when a part is not text.
    """
    if list(files).count("-") > 1:
        raise UsageError("--file - was given twice", hint="stdin can be read once")
    prompt = None if prompt is None else as_text(prompt, "the prompt")
    texts = [(name, file_text(name)) for name in files]
    piped = _stdin_text() if use_stdin and "-" not in files and stdin_is_piped() else ""
    if not any(text.strip() for text in (prompt or "", piped, *(text for _, text in texts))):
        if default:
            return Composed("", default)
        raise UsageError("the prompt is empty", hint='write: llmctl ask "..." (or pipe text in)')
    body = "\n\n".join(part for part in (prompt, piped) if part)
    return Composed("".join(_block(name, text) for name, text in texts), body, _hashes(texts))


def _hashes(texts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    if not texts:
        return ()
    from llmctl.core.scope import content_hash  # `--help` needs none of it

    return tuple(content_hash(text) for _, text in texts)


def _block(name: str, text: str) -> str:
    end = "" if text.endswith("\n") else "\n"
    return f"--- {one_line('stdin' if name == '-' else name)} ---\n{text}{end}\n"


def as_text(argument: str, where: str) -> str:
    """A command-line argument as text, whatever the locale decoded it with. Raises UsageError when it is not UTF-8."""
    if argument.isascii() or not any("\udc80" <= char <= "\udcff" for char in argument):
        return argument
    return decoded(os.fsencode(argument), where)


def file_text(name: str) -> str:
    """The text of a file of at most MAX_INPUT, or of stdin (`-`). Raises UsageError."""
    if name == "-":
        return _stdin_text()
    return decoded(file_bytes(name), f"--file {name}")


def file_bytes(name: str, option: str = "--file", most: int = MAX_INPUT) -> bytes:
    """The bytes of a file of at most `most`, which `option` named. Raises UsageError."""
    descriptor = opened(name, option)
    try:
        return _until_end(descriptor, f"{option} {one_line(name)}", most)
    finally:
        os.close(descriptor)


def opened(name: str, option: str = "--file") -> int:
    """The descriptor of a regular file, or of the shell's `<(command)`. Raises UsageError."""
    where = f"{option} {one_line(name)}"
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO without a writer must not hang
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{where}: {reason}", hint="check the path") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and name.startswith("/dev/")):
        os.close(descriptor)
        hint = "use `-f -` to read a pipe" if option == "--file" else "give a file"
        raise UsageError(f"{where}: not a regular file", hint=hint)
    return descriptor


def _until_end(descriptor: int, where: str, most: int = MAX_INPUT) -> bytes:
    """All bytes up to the end, also of a pipe that somebody made non-blocking: a part of a prompt is no prompt."""
    data = bytearray()
    while len(data) <= most:
        try:
            piece = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            select.select([descriptor], [], [])
            continue
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}", hint="it must be something that can be read") from error
        if not piece:
            return bytes(data)
        data += piece
    hint = "no model's window holds that: cut it, or ask about parts of it"
    raise UsageError(f"{where} is over {most >> 20} MiB", hint=hint)


def decoded(data: bytes, where: str) -> str:
    """`data` as text; `where` names it in the error. Raises UsageError when it is not UTF-8."""
    if b"\x00" in data:
        raise UsageError(f"{one_line(where)} is binary, not text", hint="a prompt is text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{one_line(where)} is not valid UTF-8 (byte {error.start})",
            hint="convert it first, for instance with iconv",
        ) from error


def _stdin_text() -> str:
    if sys.stdin is None or sys.stdin.closed:
        return ""
    _announce_silence()
    return decoded(_until_end(sys.stdin.fileno(), "stdin"), "stdin")


def _announce_silence(after_s: float = SILENCE_S) -> None:
    """On a terminal, say what is being waited for when a pipe stays open and silent."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    try:
        ready, _, _ = select.select([sys.stdin], [], [], after_s)
    except (OSError, ValueError):
        return  # not something that can be waited for: reading it will tell
    if not ready:
        say("reading stdin until it ends (--no-stdin leaves it alone)")


def stdin_is_piped() -> bool:
    """Whether stdin may hold a part of the prompt: it is a pipe or a file, and neither a terminal nor closed."""
    return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()
