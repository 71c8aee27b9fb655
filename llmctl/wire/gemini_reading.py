"""Reading Gemini's answers: one GenerateContentResponse, or the many of a stream, both into canonical events.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse (read 2026-11-20). Every document has the same
shape, so a whole answer is a stream of one. Nothing here trusts a type: the result is events or one of our errors.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse, StreamTruncated
from llmctl.core.types import Event, ToolCallDelta, Usage
from llmctl.wire import framing, vectors
from llmctl.wire.framing import Surrogates
from llmctl.wire.gemini_errors import in_answer
from llmctl.wire.openai_errors import error_object
from llmctl.wire.values import as_json, count, obj, objects, one_line, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.types import FinishReason, Request
    from llmctl.wire.base import Decoder

_ENDS: dict[FinishReason, tuple[str, ...]] = {
    "stop": ("STOP",),
    "length": ("MAX_TOKENS",),
    "content_filter": (
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    ),
    "error": (
        "OTHER", "IMAGE_OTHER", "NO_IMAGE", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
    ),
}  # fmt: skip
FINISH_REASONS = {word: reason for reason, words in _ENDS.items() for word in words}
"""Its word for the end -> ours; an unknown one is a pause."""
_NO_REASON = ("", "FINISH_REASON_UNSPECIFIED")
_PART_KEYS = {"text", "thought", "thoughtSignature", "functionCall", "partMetadata", "mediaResolution", "videoMetadata"}
"""What is read of a part, and what says nothing of its own; any other key is content that cannot be shown."""


def decoder(request: Request, status: int, headers: Mapping[str, str]) -> Decoder:  # noqa: ARG001 - a wire's signature
    """A decoder for an answer to `request`."""
    if request.inputs:
        return framing.Body(partial(_vectors, len(request.inputs)))
    return framing.decoder(ContentReading(), stream=request.stream)


class ContentReading:
    """Content in any number of documents. Calls come whole, with or without an id, and end in a plain STOP."""

    __slots__ = ("_answered", "_calls", "_shown", "_text", "_thought", "_unshown", "done", "finish")

    def __init__(self) -> None:
        self.done = False
        self.finish: FinishReason | None = None
        self._answered = False
        self._calls = 0
        self._shown = False
        self._unshown: set[str] = set()
        self._text = Surrogates()
        self._thought = Surrogates()

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        """The event of one document. Raises what an error means, BadResponse for an answer that cannot be shown."""
        usage, model = usage_of(document), string(document.get("modelVersion"))
        if self.finish is not None:
            return Event(usage=usage) if usage else None
        if name == "error" or document.get("error"):
            raise in_answer(error_object(document) or {}, "server_error")
        candidate = first_candidate(document)
        if candidate is None:
            if obj(document.get("promptFeedback")).get("blockReason"):
                self.finish = "content_filter"
            elif usage is None and not model:
                return None
            return Event(usage=usage, finish_reason=self.finish, reported_model=model)
        self._answered = True
        parts = objects(obj(candidate.get("content")).get("parts"))
        thinks = [part for part in parts if part.get("thought") is True]
        speaks = [part for part in parts if part.get("thought") is not True]
        calls = tuple(self._call(part) for part in speaks if isinstance(part.get("functionCall"), dict))
        self._unshown.update(key for part in parts for key in part if key not in _PART_KEYS)
        finish = self._finish(candidate)
        text = self._text.join(_texts(speaks), last=finish is not None)
        thought = self._thought.join(_texts(thinks), last=finish is not None)
        self._shown = self._shown or bool(text or calls)
        if finish == "stop" and self._unshown and not self._shown:
            raise BadResponse(f"the answer holds nothing but {one_line(', '.join(sorted(self._unshown)))}", status=200)
        self.finish = finish
        return Event(
            text=text,
            reasoning=thought,
            tool_calls=calls,
            usage=usage,
            finish_reason=finish,
            reported_model=model,
            signature=_signature(part for part in parts if "functionCall" not in part),
        )

    def rest(self) -> Event:
        """No answer: the protocol has no terminator beside the finish reason."""
        raise StreamTruncated("the stream was terminated without a finish reason", status=200)

    def whole(self, document: Any) -> Iterator[Event]:
        """The events of one document, or of the array that a stream is where `alt=sse` was not heeded."""
        is_array = isinstance(document, list)
        for each in objects(document) if is_array else [obj(document)]:
            found = None if "candidates" in each and not each.get("error") else error_object(each)
            if found is not None and self.finish is None:
                raise in_answer(found)
            event = self.piece("", each)
            if event is not None:
                yield event
        if self.finish is not None:
            return
        if is_array and self._answered:
            raise StreamTruncated("the array ended before the answer did", status=200)
        if not self._shown:
            raise BadResponse("the answer has no candidates, or none that says anything", status=200)
        # A whole document has ended: where no reason is given, it is the plain one.
        self.finish = "tool_calls" if self._calls else "stop"
        yield Event(text=self._text.rest(), reasoning=self._thought.rest(), finish_reason=self.finish)

    def _call(self, part: Mapping[str, Any]) -> ToolCallDelta:
        call, index = obj(part.get("functionCall")), self._calls
        self._calls += 1
        name, arguments = string(call.get("name")), as_json(call.get("args") or {})
        return ToolCallDelta(index, string(call.get("id")) or f"call_{index}", name, arguments, _signature([part]))

    def _finish(self, candidate: Mapping[str, Any]) -> FinishReason | None:
        said = string(candidate.get("finishReason")).upper()
        if said in _NO_REASON:
            return None
        finish = FINISH_REASONS.get(said, "pause")
        return "tool_calls" if finish == "stop" and self._calls else finish


def first_candidate(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Candidate number 0: the others, where more were asked for, are not read."""
    return next((each for each in objects(document.get("candidates")) if not each.get("index")), None)


def usage_of(document: Mapping[str, Any]) -> Usage | None:
    """The normalised usage, None when there is none that can be believed.

    The prompt includes what was cached, but not what server-side tools put into it; thoughts are counted apart from
    candidates (https://ai.google.dev/api/generate-content#UsageMetadata).
    """
    raw = obj(document.get("usageMetadata"))
    names = ("candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount")
    given = count(raw.get("promptTokenCount"))
    made, thought, tools, cached = (count(raw.get(name) or 0) for name in names)
    if given is None or made is None:
        return None
    given, made = given + (tools or 0), made + (thought or 0)
    return Usage(given, made, min(cached or 0, given), reasoning_tokens=thought or 0)


def _texts(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _signature(parts: Iterator[dict[str, Any]] | list[Mapping[str, Any]]) -> str:
    """The last seal on `parts`: it comes with the last of them, which may hold an empty text."""
    return next((seal for part in reversed(list(parts)) if (seal := string(part.get("thoughtSignature")))), "")


def _vectors(inputs: int, document: Any) -> Iterator[Event]:
    """The one event of an answer to `batchEmbedContents`. Raises ProviderError."""
    found = None if "embeddings" in obj(document) else error_object(document)
    if found is not None:
        raise in_answer(found)
    rows = objects(obj(document).get("embeddings"))
    yield vectors.event([row.get("values") for row in rows], inputs, usage_of(obj(document)))
