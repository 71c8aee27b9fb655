"""Reading Anthropic's answers: a message, or the events that build one block by block, into canonical events.

https://platform.claude.com/docs/en/build-with-claude/streaming (read 2026-11-20): new kinds of events, of blocks and
of deltas may come at any time, and are passed over. A whole message is read block by block through the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse
from llmctl.core.types import Event, FinishReason, ToolCallDelta, Usage
from llmctl.wire import framing
from llmctl.wire.anthropic_errors import in_answer
from llmctl.wire.framing import Surrogates
from llmctl.wire.values import as_json, count, obj, objects, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.types import Request
    from llmctl.wire.base import Decoder

FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
}
_TEXT, _THINKING, _TOOL = "text", "thinking", "tool_use"


def decoder(request: Request, status: int, headers: Mapping[str, str]) -> Decoder:  # noqa: ARG001 - a wire's signature
    """A decoder for an answer to `request`."""
    return framing.decoder(MessageReading(), stream=request.stream)


@dataclass(slots=True)
class _Block:
    """A block that has begun: what it is, and what is still to be said of it when it ends."""

    kind: str
    number: int = -1
    call_id: str = ""
    arguments: str | None = None
    signature: str = ""


class MessageReading:
    """A message, or the stream of one."""

    __slots__ = ("_answered", "_blocks", "_calls", "_ids", "_text", "_thought", "_usage", "done", "finish")

    def __init__(self) -> None:
        self.done = False
        self.finish: FinishReason | None = None
        self._answered = False
        self._text = Surrogates()
        self._thought = Surrogates()
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._ids: set[str] = set()
        self._usage: dict[str, Any] = {}

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        """The event of one document of a stream."""
        kind = document.get("type") or name
        if kind == "message_stop":
            self.done = True
            return None
        if self.finish is not None:
            return self._counted(document) if kind == "message_delta" else None
        if kind == "error" or document.get("error"):
            raise in_answer(document, "server_error")
        match kind:
            case "message_start":
                return self._started(obj(document.get("message")))
            case "content_block_start":
                return self._begun(_index(document), obj(document.get("content_block")))
            case "content_block_delta":
                return self._more(_index(document), obj(document.get("delta")))
            case "content_block_stop":
                return self._ended(_index(document))
            case "message_delta":
                return self._finished(document)
        return None

    def rest(self) -> Event:
        """The end of a message that stopped and gave no reason: as it looks, if it was an answer at all."""
        if not self._answered:
            raise BadResponse("the provider's stream held no answer", status=200)
        return self._last("tool_calls" if self._calls else "stop", None)

    def whole(self, document: Any) -> Iterator[Event]:
        """The events of a whole message."""
        message = obj(document)
        content = message.get("content")
        if message.get("type") == "error" or not isinstance(content, list):
            if message.get("error") or message.get("type") == "error":
                raise in_answer(message, "bad_response")
            raise BadResponse("the answer has no content", status=200)
        for n, block in enumerate(objects(content)):
            for event in (self._begun(n, block), self._ended(n)):
                if event is not None:
                    yield event
        usage = self._counted(message) or Event()
        # A whole document has ended: where no reason is given, it is the plain one.
        event = self._last(_finish_reason(message.get("stop_reason")) or "stop", usage.usage)
        yield replace(event, reported_model=string(message.get("model")))

    def _started(self, message: dict[str, Any]) -> Event:
        """The model, and what a stream that breaks off would else not tell: the input, with output still to come."""
        counted = self._counted(message)
        usage = replace(counted.usage, estimated=True) if counted and counted.usage else None
        return Event(usage=usage, reported_model=string(message.get("model")))

    def _begun(self, index: object, given: dict[str, Any]) -> Event | None:
        """A block, with what it holds from the start: nothing in a stream, all of it in a whole message."""
        kind = string(given.get("type"))
        open_block = self._blocks.get(index)
        if open_block and open_block.kind == kind and open_block.call_id == string(given.get("id")):
            return None  # said twice
        before = self._ended(index)
        block = self._blocks[index] = _Block(kind)
        self._answered = True
        event = None
        if kind == _TEXT:
            event = self._said(text=given.get("text"))
        elif kind == _THINKING:
            block.signature = string(given.get("signature"))
            event = self._said(reasoning=given.get("thinking"))
        elif kind == "redacted_thinking" and string(given.get("data")):
            event = Event(redacted=string(given.get("data")))
        elif kind == _TOOL:
            event = self._call(block, given)
        return _both(before, event)

    def _call(self, block: _Block, given: dict[str, Any]) -> Event | None:
        """The beginning of a tool call; one whose id was there before is passed over, with its arguments."""
        block.call_id = string(given.get("id"))
        if block.call_id in self._ids:
            block.kind = ""
            return None
        if block.call_id:
            self._ids.add(block.call_id)
        block.number, self._calls = self._calls, self._calls + 1
        block.arguments = as_json(obj(given.get("input")))
        return Event(tool_calls=(ToolCallDelta(block.number, block.call_id, string(given.get("name"))),))

    def _more(self, index: object, delta: dict[str, Any]) -> Event | None:
        """What a delta adds. Of a block whose beginning was lost, text and thoughts still say what they are."""
        said = string(delta.get("type"))
        kind = {"text_delta": _TEXT, "thinking_delta": _THINKING, "signature_delta": _THINKING}.get(said)
        block = self._blocks.get(index)
        if block is None:
            if kind is None:
                return Event(skipped=1) if said == "input_json_delta" else None
            block = self._blocks[index] = _Block(kind)
            self._answered = True
        if said == "input_json_delta" and block.kind == _TOOL:
            piece = delta.get("partial_json")
            if not isinstance(piece, str) or not piece:
                return None
            block.arguments = None
            return Event(tool_calls=(ToolCallDelta(block.number, arguments=piece),))
        if kind != block.kind:
            return None
        if said == "signature_delta":
            block.signature = string(delta.get("signature"))
            return None
        return self._said(text=delta.get("text")) if kind == _TEXT else self._said(reasoning=delta.get("thinking"))

    def _said(self, text: Any = "", reasoning: Any = "") -> Event | None:
        text = self._text.join(text) if isinstance(text, str) and text else ""
        reasoning = self._thought.join(reasoning) if isinstance(reasoning, str) and reasoning else ""
        return Event(text=text, reasoning=reasoning) if text or reasoning else None

    def _ended(self, index: object) -> Event | None:
        """What is only certain at the end of a block: a thought's seal, and the arguments that no delta brought."""
        block = self._blocks.pop(index, None)
        if block is None:
            return None
        if block.signature:
            return Event(reasoning=self._thought.rest(), signature=block.signature)
        if block.arguments is not None:
            return Event(tool_calls=(ToolCallDelta(block.number, arguments=block.arguments or "{}"),))
        return None

    def _finished(self, document: dict[str, Any]) -> Event | None:
        counted = self._counted(document)
        finish = _finish_reason(obj(document.get("delta")).get("stop_reason"))
        return self._last(finish, counted.usage if counted else None) if finish else counted

    def _last(self, finish: FinishReason, usage: Usage | None) -> Event:
        """The event that ends the message, with what open blocks still had to say."""
        self.finish = finish
        event: Event | None = None
        for index in list(self._blocks):
            event = _both(event, self._ended(index))
        event = event or Event()
        return replace(
            event,
            text=event.text + self._text.rest(),
            reasoning=event.reasoning + self._thought.rest(),
            usage=usage,
            finish_reason=finish,
        )

    def _counted(self, document: dict[str, Any]) -> Event | None:
        """The usage so far: counts in a stream are cumulative, and a later event repeats only some of them."""
        counts = {key: value for key, value in obj(document.get("usage")).items() if value is not None}
        self._usage |= counts
        usage = usage_of(self._usage) if counts else None
        return Event(usage=usage) if usage else None


def _index(document: dict[str, Any]) -> int | None:
    index = document.get("index")
    return index if isinstance(index, int) else None


def _both(first: Event | None, second: Event | None) -> Event | None:
    """Two events as one, where both say something; they belong to different blocks."""
    if first is None or second is None:
        return second if first is None else first
    return replace(
        first,
        text=first.text + second.text,
        reasoning=first.reasoning + second.reasoning,
        tool_calls=first.tool_calls + second.tool_calls,
        signature=first.signature or second.signature,
        redacted=first.redacted or second.redacted,
    )


def _finish_reason(said: Any) -> FinishReason | None:
    """The canonical finish reason. An unknown word is a pause: the answer has ended, and nobody knows how."""
    return FINISH_REASONS.get(said, "pause") if isinstance(said, str) and said else None


def usage_of(raw: Mapping[str, Any]) -> Usage | None:
    """The normalised usage, None when it cannot be believed: `input_tokens` leaves out what a cache read or wrote."""
    given, made = count(raw.get("input_tokens")), count(raw.get("output_tokens", 0))
    if given is None or made is None:
        return None
    read, written = (count(raw.get(f"cache_{did}_input_tokens")) or 0 for did in ("read", "creation"))
    thought = count(obj(raw.get("output_tokens_details")).get("thinking_tokens")) or 0
    return Usage(given + read + written, made, read, written, min(thought, made))
