"""Server-sent events, read incrementally and tolerantly (WHATWG HTML, section 9.2.6, "Interpreting an event stream").

Lines end in CR LF, LF or CR, split anywhere; nothing else ends a line, so U+2028 inside a JSON string stays where it
is. Comments are passed over, the blank after the colon is optional, a byte order mark at the start is ignored. One line
of at most 1 MiB, one event of at most 1 MiB. What the bytes mean is the wire's business, not this reader's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import BadResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One dispatched event: its name ("" when unnamed) and its data lines joined by LF."""

    name: str
    data: bytes


class Reader:
    """Bytes in, whole events out; lazily, so that the events before an error are not lost with it."""

    __slots__ = ("_after_cr", "_data", "_event_size", "_name", "_partial", "_size", "_started")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._event_size = 0
        self._name = ""
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that `chunk` completes, to be taken before the next chunk.

        Raises BadResponse for a line or an event over 1 MiB.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:  # the LF of a CR LF that was split
                chunk = chunk[1:]
        if not chunk:
            return
        self._after_cr = chunk[-1] == 0x0D
        lines = chunk.splitlines()
        rest = b"" if chunk[-1] in b"\r\n" else lines.pop()
        if lines:
            if self._partial:
                self._keep(lines[0])
                lines[0] = b"".join(self._partial)
                self._partial = []
                self._size = 0
            yield from self._lines(lines)
        if rest:
            self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_LINE:
            raise _too_much("a line")
        self._partial.append(piece)

    def _lines(self, lines: list[bytes]) -> Iterator[ServerEvent]:
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if len(line) > MAX_LINE:
                raise _too_much("a line")
            if line.startswith(b"data:"):
                self._add_data(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._data:
                    event = ServerEvent(self._name, b"\n".join(self._data))
                    self._data = []
                    self._event_size = 0
                    yield event
                self._name = ""
            elif line.startswith(b"event:"):
                self._name = line[6:].strip().decode("utf-8", "replace")
            elif line == b"event":
                self._name = ""
            elif line == b"data":
                self._add_data(b"")

    def _add_data(self, data: bytes) -> None:
        self._data.append(data)
        self._event_size += len(data) + 1
        if self._event_size > MAX_LINE + 1:
            raise _too_much("an event")

    def end(self) -> Iterator[ServerEvent]:
        """What stands unfinished at the end of the body, as if a blank line had followed: some servers leave it out."""
        lines = [b"".join(self._partial), b""] if self._partial else [b""]
        self._partial = []
        return self._lines(lines)


def _too_much(what: str) -> BadResponse:
    return BadResponse(f"the provider sent {what} of over 1 MiB in its event stream")
