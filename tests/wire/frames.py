"""Frames of Amazon's event stream, written from its description (https://smithy.io/2.0/aws/amazon-eventstream.html)."""

from __future__ import annotations

import json
import struct
from typing import Any
from zlib import crc32

STRING = 7


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame with string headers."""
    rows = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack("!BH", STRING, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    return framed(rows, payload)


def framed(rows: bytes, payload: bytes, headers_length: int | None = None) -> bytes:
    """One frame with right checksums around headers that are already encoded, or only pretend to be."""
    length = len(rows) if headers_length is None else headers_length
    whole = prelude(16 + len(rows) + len(payload), length) + rows + payload
    return whole + struct.pack("!I", crc32(whole))


def prelude(size: int, headers_length: int = 0) -> bytes:
    """The beginning of a frame, with its right checksum."""
    lengths = struct.pack("!II", size, headers_length)
    return lengths + struct.pack("!I", crc32(lengths))


def event(name: str, document: Any) -> bytes:
    """An event frame; a document that is bytes goes as it is."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, document if isinstance(document, bytes) else json.dumps(document).encode())


def exception(name: str, **document: Any) -> bytes:
    """An exception frame."""
    return frame({":exception-type": name, ":message-type": "exception"}, json.dumps(document).encode())


def delta(document: Any, index: int = 0) -> bytes:
    """A contentBlockDelta."""
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": document})


def begin_call(index: int, name: str, call_id: str, **more: Any) -> bytes:
    """A contentBlockStart of a tool call."""
    call = {"toolUseId": call_id, "name": name, **more}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": call}})


def stop(reason: str = "end_turn") -> bytes:
    """The messageStop."""
    return event("messageStop", {"stopReason": reason})


def usage(given: int, made: int, **more: Any) -> bytes:
    """The metadata that ends a stream."""
    counts = {"inputTokens": given, "outputTokens": made, "totalTokens": given + made, **more}
    return event("metadata", {"usage": counts, "metrics": {"latencyMs": 1}})


START = event("messageStart", {"role": "assistant"})
