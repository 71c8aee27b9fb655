"""Reading what Bedrock answers: a Converse body, or the binary event stream of ConverseStream.

A stream is a row of frames (length, headers, payload, two checksums), which botocore's parser takes apart:
https://smithy.io/2.0/aws/amazon-eventstream.html, read 2026-11-20. Usage comes after the message has stopped.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse, StreamTruncated
from llmctl.core.types import Event, FinishReason, ToolCallDelta, Usage
from llmctl.wire import bedrock_vectors
from llmctl.wire.bedrock_errors import in_document, in_frame, said_in
from llmctl.wire.framing import Arriving, Body, Surrogates
from llmctl.wire.values import as_json, count, loads, obj, objects, one_line, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.types import Request
    from llmctl.wire.base import Decoder

MAX_FRAME = 1 << 20
_PRELUDE = 12
_SMALLEST = 16  # a frame without headers and payload: two lengths and two checksums

FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}


def decoder(request: Request, status: int, headers: Mapping[str, str]) -> Decoder:  # noqa: ARG001 - a wire's signature
    """A decoder for an answer to `request`."""
    if request.inputs:
        return Body(partial(bedrock_vectors.read, len(request.inputs), headers))

    def choose(head: bytes, ended: bool) -> Decoder | None:
        if not head and not ended:
            return None
        # A frame begins with its length, whose first byte is 0 below 16 MiB.
        is_stream = head[0] == 0 if head else request.stream
        return Frames() if is_stream else Body(whole)

    return Arriving(choose)


class Frames:
    """A binary event stream. Complete when its message has stopped; what is wrong after that does no harm."""

    __slots__ = ("_data", "_message", "_parser", "_size", "done")

    def __init__(self) -> None:
        self.done = False
        self._data = bytearray()
        self._size = 0
        self._parser: Any = None
        self._message = Message()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events these bytes complete. Raises BadResponse for broken frames, or what an exception means."""
        if not self.done:
            self._data += data
        return self._read()

    def end(self) -> Iterator[Event]:
        """The last events. Raises StreamTruncated when the message has not stopped."""
        yield from self._read()
        if self._message.finish is None:
            raise StreamTruncated("the stream ended before the answer did", status=200)

    def _read(self) -> Iterator[Event]:
        message = self._message
        try:
            while not self.done and (frame := self._next()) is not None:
                headers, payload = frame
                kind = headers.get(":message-type")
                if kind in ("exception", "error"):
                    if message.finish is None:
                        raise _exception(headers, payload)
                    self.done = True
                    return
                document = loads(payload)
                if isinstance(document, dict):
                    event = message.piece(str(headers.get(":event-type")), document)
                else:
                    event = Event(skipped=1) if message.finish is None else None
                self.done = message.done
                if event is not None:
                    yield event
        except BadResponse:
            if message.finish is None:
                raise
            self.done = True

    def _next(self) -> tuple[Mapping[str, Any], bytes] | None:
        """Headers and payload of the next frame, None while it is not whole. Raises BadResponse.

        The parser is given one frame at a time, and its prelude first: a wrong length is found before it is waited for.
        """
        from botocore.eventstream import EventStreamBuffer, ParserError  # slow to load, and an extra

        data = self._data
        try:
            if not self._size:
                if len(data) < _PRELUDE:
                    return None
                size = int.from_bytes(data[:4])
                if not _SMALLEST <= size <= MAX_FRAME:
                    raise BadResponse(f"a frame of the stream has {size} bytes", status=200)
                self._parser = EventStreamBuffer()
                self._parser.add_data(bytes(data[:_PRELUDE]))
                for _ in self._parser:  # none yet: only the prelude's checksum is looked at
                    pass
                self._size = size
            if len(data) < self._size:
                return None
            self._parser.add_data(bytes(data[_PRELUDE : self._size]))
            del data[: self._size]
            self._size = 0
            frame = self._parser.next()
        except (ParserError, struct.error, ValueError, LookupError, StopIteration) as error:
            raise BadResponse(f"the stream has a broken frame: {one_line(str(error))[:200]}", status=200) from error
        return frame.headers, frame.payload


def _exception(headers: Mapping[str, Any], payload: bytes) -> Exception:
    """What an exception frame means (modelled, with a JSON payload) or an error frame (all in headers)."""
    named = string(headers.get(":exception-type")) or string(headers.get(":error-code"))
    said = said_in(obj(loads(payload))) or one_line(string(headers.get(":error-message")))
    return in_frame(named, said)


class Message:
    """The events of one streamed message."""

    __slots__ = ("_called", "_calls", "_text", "_thought", "done", "finish")

    def __init__(self) -> None:
        self.done = False
        self.finish: FinishReason | None = None
        self._text = Surrogates()
        self._thought = Surrogates()
        self._calls: dict[int, ToolCallDelta | None] = {}
        self._called = 0

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        """The event that a document means, None for one that says nothing; after the stop only usage matters."""
        if name == "metadata":
            self.done = self.finish is not None
            usage = usage_of(document)
            return Event(usage=usage) if usage else None
        if self.finish is not None:
            return None
        if name == "contentBlockStart":
            return self._start(document)
        if name == "contentBlockDelta":
            return self._delta(_index(document), obj(document.get("delta")))
        if name == "messageStop":
            self.finish = finish_reason(document, called=self._called > 0) or "pause"
            return Event(text=self._text.rest(), reasoning=self._thought.rest(), finish_reason=self.finish)
        return None

    def _start(self, document: dict[str, Any]) -> Event | None:
        """`_calls` maps the index of a block to the beginning of its call under our number, None for a server's own."""
        index, call = _index(document), obj(obj(document.get("start")).get("toolUse"))
        if not _is_ours(call):
            self._calls[index] = None
            return None
        begun = ToolCallDelta(self._called, string(call.get("toolUseId")), string(call.get("name")))
        old = self._calls.get(index)
        if old is None or old.id != begun.id:
            self._calls[index] = begun
            self._called += 1
            return Event(tool_calls=(begun,))
        return None

    def _delta(self, index: int, delta: dict[str, Any]) -> Event | None:
        if "toolUse" in delta:
            call = self._calls.get(index)
            if call is None:
                return None if index in self._calls else Event(skipped=1)  # a block that never began
            arguments = obj(delta["toolUse"]).get("input")
            arguments = arguments if isinstance(arguments, str) else as_json(arguments) if arguments else ""
            return Event(tool_calls=(ToolCallDelta(call.index, arguments=arguments),))
        text, thought = delta.get("text"), obj(delta.get("reasoningContent"))
        event = Event(
            text=self._text.join(text) if isinstance(text, str) else "",
            reasoning=self._thought.join(thought["text"]) if isinstance(thought.get("text"), str) else "",
            signature=string(thought.get("signature")),
            redacted=string(thought.get("redactedContent")),
        )
        return event if event != Event() else None


def whole(document: Any) -> Iterator[Event]:
    """The events of a Converse body. Raises what an error in it means, BadResponse when it holds no message."""
    document = obj(document)
    message = obj(document.get("output")).get("message")
    usage = usage_of(document)
    if not isinstance(message, dict):
        yield Event(usage=usage)
        raise in_document(document)
    calls = 0
    for block in objects(message.get("content")):
        if _is_ours(obj(block.get("toolUse"))):
            yield Event(tool_calls=(_call(calls, block["toolUse"]),))
            calls += 1
        else:
            yield _said(block)
    # A whole document has ended: where no reason is given, it is the plain one.
    yield Event(usage=usage, finish_reason=finish_reason(document, called=bool(calls)) or "stop")


def _said(block: Mapping[str, Any]) -> Event:
    """Text, text with citations, or a thought. Each thought is an event of its own, so that its seal stays its own."""
    thought = obj(block.get("reasoningContent"))
    sealed = obj(thought.get("reasoningText"))
    cited = objects(obj(block.get("citationsContent")).get("content"))
    return Event(
        text=string(block.get("text")) + "".join(string(each.get("text")) for each in cited),
        reasoning=string(sealed.get("text")),
        signature=string(sealed.get("signature")),
        redacted=string(thought.get("redactedContent")),
    )


def _call(number: int, call: Mapping[str, Any]) -> ToolCallDelta:
    arguments = call.get("input")
    arguments = "" if arguments is None else as_json(arguments)
    return ToolCallDelta(number, string(call.get("toolUseId")), string(call.get("name")), arguments)


def _is_ours(call: Mapping[str, Any]) -> bool:
    """Whether it is a call for the caller to make; a server's own tools have a type."""
    return bool(call) and not call.get("type")


def _index(document: Mapping[str, Any]) -> int:
    return count(document.get("contentBlockIndex")) or 0


def finish_reason(document: Mapping[str, Any], *, called: bool) -> FinishReason | None:
    """The canonical finish reason. An unknown word is a pause, and so are tool calls that never came."""
    said = document.get("stopReason")
    if not isinstance(said, str) or not said:
        return None
    finish = FINISH_REASONS.get(said, "pause")
    return "pause" if finish == "tool_calls" and not called else finish


def usage_of(document: Mapping[str, Any]) -> Usage | None:
    """The normalised usage: what was read from and written to the cache is counted apart from `inputTokens`."""
    raw = obj(document.get("usage"))
    given, made = count(raw.get("inputTokens")), count(raw.get("outputTokens", 0))
    if given is None or made is None:
        return None
    cached = count(raw.get("cacheReadInputTokens")) or 0
    written = count(raw.get("cacheWriteInputTokens")) or 0
    return Usage(given + cached + written, made, cached, written)
