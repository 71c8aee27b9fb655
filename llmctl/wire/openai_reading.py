"""Reading OpenAI-shaped answers: a JSON body or an event stream, both into canonical events.

A body is read as one delta, so both ways share one reading of choices, usage and finish reasons. Nothing here trusts a
type: whatever arrives, the result is events or one of our errors.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from llmctl.core.errors import BadResponse, ProviderError, StreamTruncated
from llmctl.core.types import Event, FinishReason, ToolCallDelta, Usage, well_formed
from llmctl.wire.openai_errors import as_json, error_object, in_answer, plain
from llmctl.wire.sse import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.types import Request
    from llmctl.wire.base import Decoder
    from llmctl.wire.sse import ServerEvent

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "completed": "stop",
    "end": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_output_reached": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "error": "error",
    "abort": "error",
    "aborted": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
}
_LARGEST_COUNT = 1 << 53
_SNIPPET = 200
_HEAD = 4096
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of an event stream begins."""


def decoder(request: Request, status: int, headers: Mapping[str, str]) -> Decoder:  # noqa: ARG001 - a wire's signature
    """A decoder for what really arrives: a stream that was asked for may come back as one JSON document."""
    content_type = headers.get("content-type", "").lower()
    if "event-stream" in content_type or (request.stream and "json" not in content_type):
        return StreamDecoder()
    return BodyDecoder()


class StreamDecoder:
    """An event stream. Complete at a finish reason or at `[DONE]`; what follows either of them but usage is ignored."""

    __slots__ = ("_answered", "_finish", "_head", "_numbers", "_reader", "_text", "_thought", "done")

    def __init__(self) -> None:
        self.done = False
        self._reader = Reader()
        self._finish: FinishReason | None = None
        self._answered = False
        self._head = b""
        self._text = Surrogates()
        self._thought = Surrogates()
        self._numbers = CallNumbers()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events these bytes complete. Raises BadResponse over a cap, or what an error event means."""
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        return self._read(self._reader.feed(data))

    def end(self) -> Iterator[Event]:
        """The last events. Raises StreamTruncated without an end, BadResponse when nothing of it was an answer."""
        yield from self._read(self._reader.end())
        if self._finish is None:
            if not self.done:
                raise self._cut()
            if not self._answered:
                raise BadResponse("the provider's stream held no answer", status=200)
            yield Event(text=self._text.rest(), reasoning=self._thought.rest(), finish_reason="stop")

    def _cut(self) -> ProviderError:
        head = self._head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if any(head.startswith(field) or field.startswith(head) for field in _FIELDS):
            return StreamTruncated("the stream ended before the answer did", status=200)
        found = error_object(loads(head))
        if found is not None:
            return in_answer(found)
        return BadResponse(f"the answer is not an event stream: {_snippet(head)}", status=200)

    def _read(self, server_events: Iterator[ServerEvent]) -> Iterator[Event]:
        try:
            for server_event in server_events:
                data = server_event.data
                if self.done:
                    return
                if data.strip() == b"[DONE]":
                    self.done = True
                    return
                event = self._event(server_event.name, loads(data), data)
                if event is not None:
                    yield event
        except BadResponse:
            if self._finish is None and not self.done:
                raise
            self.done = True  # what is wrong after the end does no harm

    def _event(self, name: str, document: Any, data: bytes) -> Event | None:
        if self._finish is not None:
            usage = usage_of(document) if isinstance(document, dict) else None
            return Event(usage=usage) if usage else None
        if name == "error":
            raise in_answer(error_object(document) or {"message": plain(data)}, "server_error")
        if not isinstance(document, dict):
            return Event(skipped=1)
        if document.get("error") or document.get("object") == "error":
            raise in_answer(error_object(document) or {}, "server_error")
        return self._chunk(document)

    def _chunk(self, document: dict[str, Any]) -> Event | None:
        choice = first_choice(document)
        usage = usage_of(document, choice)
        if choice is None:
            return Event(usage=usage, **_says(document)) if usage else None
        self._answered = True
        delta = choice.get("delta")
        text, reasoning, calls, refusal = message_pieces(delta if isinstance(delta, dict) else {})
        self._finish = finish_reason(choice)
        last = self._finish is not None
        return Event(
            text=self._text.join(text, last=last),
            reasoning=self._thought.join(reasoning, last=last),
            tool_calls=self._numbers.of(calls) if calls else (),
            usage=usage,
            finish_reason=self._finish,
            refusal=refusal,
            **_says(document),
        )


class BodyDecoder:
    """One JSON document."""

    __slots__ = ("_pieces", "done")

    def __init__(self) -> None:
        self.done = False
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """Keeps the bytes; a document means nothing before its end."""
        self._pieces.append(data)
        return iter(())

    def end(self) -> Iterator[Event]:
        """The whole answer. Raises BadResponse for what is not one, or what an error object in it means."""
        body = b"".join(self._pieces)
        document = loads(body)
        answered = isinstance(document, dict) and "choices" in document and not document.get("error")
        found = None if answered else error_object(document)
        if found is not None:
            raise in_answer(found)
        if not isinstance(document, dict):
            raise BadResponse(f"the answer is not JSON: {_snippet(body)}", status=200)
        choice = first_choice(document)
        message = choice.get("message") if choice else None
        usage = usage_of(document, choice)
        if choice is None or not isinstance(message, dict):
            yield Event(usage=usage, **_says(document))
            raise BadResponse("the answer has no choices", status=200)
        self.done = True
        text, reasoning, calls, refusal = message_pieces(message)
        yield Event(
            text=well_formed(text),
            reasoning=well_formed(reasoning),
            # Some write the streaming index here too, and always 0.
            tool_calls=tuple(replace(call, index=n) for n, call in enumerate(calls)),
            refusal=refusal,
            usage=usage,
            # A whole document has ended: where no reason is given, it is the plain one.
            finish_reason=finish_reason(choice) or "stop",
            **_says(document),
        )


def loads(data: bytes) -> Any:
    """The JSON document in `data`, or None: nesting bombs, numbers of a million digits and bad UTF-8 included."""
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def first_choice(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Choice number 0: the only one that is ever asked for."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def finish_reason(choice: Mapping[str, Any]) -> FinishReason | None:
    """The canonical finish reason. An unknown word is a pause: the answer has ended, and nobody knows how."""
    said = choice.get("finish_reason")
    if not isinstance(said, str) or not said:
        return None
    return FINISH_REASONS.get(said.lower(), "pause")


def message_pieces(message: Mapping[str, Any]) -> tuple[str, str, tuple[ToolCallDelta, ...], str]:
    """Text, reasoning, tool calls and refusal of a message or a delta."""
    text, thought = _content(message.get("content"))
    if not thought:
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
    raw = message.get("tool_calls")
    listed = raw if isinstance(raw, list) else ()
    calls = tuple(_tool_call(n, call) for n, call in enumerate(listed) if isinstance(call, dict))
    return text, thought if isinstance(thought, str) else "", calls, _str(message.get("refusal"))


def _content(content: Any) -> tuple[str, str]:
    """The text and the thinking in content that is a string or a list of parts."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        return "", ""
    thinking = [p.get("thinking") for p in content if isinstance(p, dict) and p.get("type") == "thinking"]
    return _texts(content), "".join(each if isinstance(each, str) else _texts(each) for each in thinking)


def _texts(parts: Any) -> str:
    if not isinstance(parts, list):
        return ""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _tool_call(position: int, call: Mapping[str, Any]) -> ToolCallDelta:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    index, arguments = call.get("index"), function.get("arguments")
    if isinstance(arguments, (dict, list)):  # Ollama and some others send the object itself
        arguments = as_json(arguments)
    return ToolCallDelta(
        index if isinstance(index, int) else position,
        _str(call.get("id")),
        _str(function.get("name")),
        arguments if isinstance(arguments, str) else "",
    )


class CallNumbers:
    """Numbers tool calls apart: some servers give every call the index 0, or none, and only the ids differ."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, ToolCallDelta] = {}

    def of(self, fragments: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
        """The fragments under numbers of ours: a new id with a name begins a new call."""
        return tuple(self._numbered(fragment) for fragment in fragments)

    def _numbered(self, fragment: ToolCallDelta) -> ToolCallDelta:
        """`_seen` maps the server's index to the beginning of the call it means now, under our number."""
        now = self._seen.get(fragment.index)
        if now is None or (fragment.id and fragment.name and now.id and fragment.id != now.id):
            used = [call.index for call in self._seen.values()]
            number = max(used) + 1 if now is not None or fragment.index in used else fragment.index
            now = self._seen[fragment.index] = replace(fragment, index=number)
        return replace(fragment, index=now.index)


def usage_of(document: Mapping[str, Any], choice: Mapping[str, Any] | None = None) -> Usage | None:
    """The normalised usage, None when there is none that can be believed.

    `prompt_tokens` includes cached tokens and `completion_tokens` includes reasoning, except where the total says that
    reasoning was counted apart (xAI). Groq streams put usage under `x_groq`, Moonshot under the choice.
    """
    groq = document.get("x_groq")
    places = (document.get("usage"), groq.get("usage") if isinstance(groq, dict) else None, (choice or {}).get("usage"))
    raw = next((place for place in places if isinstance(place, dict)), None)
    if raw is None:
        return None
    given, made = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens", 0))
    if given is None or made is None:
        return None
    cached = _detail(raw, "prompt_tokens_details", "cached_tokens")
    cached = cached or _count(raw.get("prompt_cache_hit_tokens")) or _count(raw.get("cached_tokens")) or 0
    reasoning = (
        _detail(raw, "completion_tokens_details", "reasoning_tokens") or _count(raw.get("reasoning_tokens")) or 0
    )
    if reasoning and raw.get("total_tokens") == given + made + reasoning:
        made += reasoning
    return Usage(given, made, min(cached, given), reasoning_tokens=min(reasoning, made))


def _detail(raw: Mapping[str, Any], group: str, name: str) -> int:
    details = raw.get(group)
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _count(value: Any) -> int | None:
    """A token count that can be believed: a whole number, 0 or more, below 2**53."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_COUNT else None


class _Says(TypedDict):
    reported_model: str
    system_fingerprint: str


def _says(document: Mapping[str, Any]) -> _Says:
    return {
        "reported_model": _str(document.get("model")),
        "system_fingerprint": _str(document.get("system_fingerprint")),
    }


def _str(value: Any) -> str:
    return well_formed(value) if isinstance(value, str) else ""


def _snippet(data: bytes) -> str:
    return repr(" ".join(data[:_SNIPPET].decode("utf-8", "replace").split()))


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
