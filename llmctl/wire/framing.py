"""How an answer arrives: one JSON document, or an event stream, cut into the documents that a protocol reads.

What really comes decides, not what was asked for or how it is labelled: a stream that was asked for may come back as
one document, and either may carry the other's content type. A protocol brings a `Reading`; caps, broken pieces and
early ends are judged here, the same for every protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from llmctl.core.errors import BadResponse, StreamTruncated
from llmctl.core.types import Event, well_formed
from llmctl.wire.sse import Reader
from llmctl.wire.values import loads, plain, snippet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmctl.core.types import FinishReason
    from llmctl.wire.base import Decoder
    from llmctl.wire.sse import ServerEvent

_HEAD = 4096
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of an event stream begins."""


class Reading(Protocol):
    """What one protocol makes of the documents of one answer. Raises only ProviderError."""

    finish: FinishReason | None
    """The finish reason, once it was heard."""
    done: bool
    """Whether the provider has said that nothing follows."""

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        """The event that a document of a stream means, None for one that says nothing; raises what an error means.

        After the finish it is asked for what may still come, such as usage.
        """

    def rest(self) -> Event:
        """The last event, when the stream was terminated without a finish reason. BadResponse when it held nothing."""

    def whole(self, document: Any) -> Iterator[Event]:
        """The events of an answer that is one JSON document. Raises what an error means, BadResponse for no answer."""


def decoder(reading: Reading, *, stream: bool) -> Decoder:
    """A decoder for what really arrives; `stream` says what was asked for, where the first byte does not tell."""

    def choose(head: bytes, ended: bool) -> Decoder | None:
        is_stream = stream
        if not ended:
            first = head.removeprefix(_BOM).lstrip()[:1]
            if not first or _BOM.startswith(head):  # nothing yet, or a byte order mark that may go on
                return None
            is_stream = first not in (b"{", b"[") and (stream or first in {field[:1] for field in _FIELDS})
        return Stream(reading) if is_stream else Body(reading.whole)

    return Arriving(choose)


class Arriving:
    """Decides at the first bytes that say something."""

    __slots__ = ("_choose", "_chosen", "_head")

    def __init__(self, choose: Callable[[bytes, bool], Decoder | None]) -> None:
        """`choose` gives the decoder for a beginning, None where it does not tell yet and has not `ended`."""
        self._choose = choose
        self._head = b""
        self._chosen: Decoder | None = None

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        return self._chosen is not None and self._chosen.done

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events these bytes complete."""
        if self._chosen is None:
            data = self._head = (self._head + data).lstrip()
            self._chosen = self._choose(data, False)
            if self._chosen is None:
                return iter(())
            self._head = b""
        return self._chosen.feed(data)

    def end(self) -> Iterator[Event]:
        """The last events."""
        self._chosen = self._chosen or self._choose(self._head, True)
        return self._chosen.end() if self._chosen else iter(())


class Stream:
    """An event stream. Complete at a finish reason or at its terminator; what is wrong after either does no harm."""

    __slots__ = ("_head", "_reader", "_reading")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._reader = Reader()
        self._head = b""

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        return self._reading.done

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events these bytes complete. Raises BadResponse over a cap, or what an error event means."""
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        return self._read(self._reader.feed(data))

    def end(self) -> Iterator[Event]:
        """The last events. Raises StreamTruncated without an end, BadResponse when nothing of it was an answer."""
        yield from self._read(self._reader.end())
        if self._reading.finish is None:
            if not self._reading.done:
                head = self._head.removeprefix(_BOM).lstrip()
                if any(head.startswith(field) or field.startswith(head) for field in _FIELDS):
                    raise StreamTruncated("the stream ended before the answer did", status=200)
                raise BadResponse(f"the answer is not an event stream: {snippet(head)}", status=200)
            yield self._reading.rest()

    def _read(self, server_events: Iterator[ServerEvent]) -> Iterator[Event]:
        reading = self._reading
        try:
            for server_event in server_events:
                if reading.done:
                    return
                data = server_event.data.strip()
                if data == b"[DONE]":
                    reading.done = True
                    return
                document = loads(data)
                if isinstance(document, dict):
                    event = reading.piece(server_event.name, document)
                elif server_event.name == "error":
                    event = reading.piece("error", {"error": {"message": plain(data)}})
                else:  # one without data only keeps the connection open
                    event = Event(skipped=1) if data and reading.finish is None else None
                if event is not None:
                    yield event
        except BadResponse:
            if reading.finish is None and not reading.done:
                raise
            reading.done = True


class Body:
    """One JSON document."""

    __slots__ = ("_pieces", "_whole", "done")

    def __init__(self, whole: Callable[[Any], Iterator[Event]]) -> None:
        """`whole` gives the events of the document; it raises what an error in it means, BadResponse for no answer."""
        self.done = False
        self._whole = whole
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """Keeps the bytes; a document means nothing before its end."""
        self._pieces.append(data)
        return iter(())

    def end(self) -> Iterator[Event]:
        """The whole answer. Raises BadResponse for what is not one, or what an error object in it means."""
        body = b"".join(self._pieces)
        document = loads(body.lstrip().removeprefix(_BOM))
        if not isinstance(document, (dict, list)):
            raise BadResponse(f"the answer is not JSON: {snippet(body)}", status=200)
        yield from self._whole(document)
        self.done = True


class Surrogates:
    """Joins a surrogate pair that was split between two deltas (servers that cut UTF-16 do that)."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str, *, last: bool = False) -> str:
        """`text` after what was held back; a trailing high surrogate is held unless this is the `last` piece."""
        if not self._held and text.isascii():
            return text
        text = self._held + text
        self._held = ""
        if text and not last and "\ud800" <= text[-1] <= "\udbff":
            self._held, text = text[-1], text[:-1]
        return well_formed(text)

    def rest(self) -> str:
        """What is still held back, at the end."""
        return self.join("", last=True)
