"""Reading OpenAI-shaped answers: a JSON body or the chunks of a stream, both into canonical events.

A body is read as one delta, so both ways share one reading of choices, usage and finish reasons. Nothing here trusts a
type: whatever arrives, the result is events or one of our errors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse
from llmctl.core.types import Event, FinishReason, ToolCallDelta, Usage, well_formed
from llmctl.wire import framing, vectors
from llmctl.wire.framing import Surrogates
from llmctl.wire.openai_errors import error_object, in_answer, minimax_error
from llmctl.wire.values import as_json, count, obj, objects, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.types import Request
    from llmctl.wire.base import Decoder

_ENDS: dict[FinishReason, tuple[str, ...]] = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "end"),
    "length": ("length", "max_tokens", "max_output_tokens", "max_output_reached", "model_length"),
    "tool_calls": ("tool_calls", "function_call", "tool_use"),
    "content_filter": ("content_filter", "sensitive", "safety", "recitation"),
    "error": ("error", "abort", "aborted", "network_error", "insufficient_system_resource"),
}
FINISH_REASONS = {word: reason for reason, words in _ENDS.items() for word in words}

_CACHE_WRITES = ("cache_write_tokens", "cache_creation_input_tokens")
"""What OpenRouter and Alibaba call the tokens that a cache mark had them keep; one of them, never both."""


def decoder(request: Request, status: int, headers: Mapping[str, str]) -> Decoder:  # noqa: ARG001 - a wire's signature
    """A decoder for an answer to `request`."""
    if request.inputs:
        return framing.Body(partial(vectors.read, len(request.inputs)))
    return framing.decoder(ChatReading(), stream=request.stream)


class ChatReading:
    """Chunks of a stream and whole bodies, by one reading of choices, usage and finish reasons."""

    __slots__ = ("_answered", "_numbers", "_text", "_thought", "done", "finish")

    def __init__(self) -> None:
        self.done = False
        self.finish: FinishReason | None = None
        self._answered = False
        self._text = Surrogates()
        self._thought = Surrogates()
        self._numbers = CallNumbers()

    def piece(self, name: str, document: dict[str, Any]) -> Event | None:
        """The event of one chunk."""
        if self.finish is not None:
            usage = usage_of(document)
            return Event(usage=usage) if usage else None
        refused = document.get("error") or ("base_resp" in document and minimax_error(document))
        if refused or name == "error" or document.get("object") == "error":
            raise in_answer(error_object(document) or {}, "server_error")
        choice = first_choice(document)
        usage = usage_of(document, choice)
        if choice is None:
            return Event(usage=usage, **_says(document)) if usage else None
        self._answered = True
        text, reasoning, calls, refusal = message_pieces(obj(choice.get("delta", choice.get("message"))))
        self.finish = finish_reason(choice)
        last = self.finish is not None
        return Event(
            text=self._text.join(text, last=last),
            reasoning=self._thought.join(reasoning, last=last),
            tool_calls=self._numbers.of(calls) if calls else (),
            usage=usage,
            finish_reason=self.finish,
            refusal=refusal,
            **_says(document),
        )

    def rest(self) -> Event:
        """The end of a stream that says `[DONE]` and no finish reason: a plain stop, if it was an answer at all."""
        if not self._answered:
            raise BadResponse("the provider's stream held no answer", status=200)
        return Event(text=self._text.rest(), reasoning=self._thought.rest(), finish_reason="stop")

    def whole(self, document: Any) -> Iterator[Event]:
        """The events of a whole body."""
        answered = isinstance(document, dict) and document.get("choices") and not document.get("error")
        found = None if answered else error_object(document)
        if found is not None:
            raise in_answer(found)
        document = obj(document)
        choice = first_choice(document)
        message = choice.get("message") if choice else None
        usage = usage_of(document, choice)
        if choice is None or not isinstance(message, dict):
            yield Event(usage=usage, **_says(document))
            raise BadResponse("the answer has no choices", status=200)
        text, reasoning, calls, refusal = message_pieces(message)
        # A whole document has ended: where no reason is given, it is the plain one.
        self.finish = finish_reason(choice) or "stop"
        yield Event(
            text=well_formed(text),
            reasoning=well_formed(reasoning),
            # Some write the streaming index here too, and always 0.
            tool_calls=tuple(replace(call, index=n) for n, call in enumerate(calls)),
            refusal=refusal,
            usage=usage,
            finish_reason=self.finish,
            **_says(document),
        )


def first_choice(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Choice number 0: the only one that is ever asked for."""
    return next((choice for choice in objects(document.get("choices")) if not choice.get("index")), None)


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
    calls = tuple(_tool_call(n, call) for n, call in enumerate(objects(message.get("tool_calls"))))
    return text, thought if isinstance(thought, str) else "", calls, string(message.get("refusal"))


def _content(content: Any) -> tuple[str, str]:
    """The text and the thinking in content that is a string or a list of parts."""
    if isinstance(content, str):
        return content, ""
    thinking = [part.get("thinking") for part in objects(content) if part.get("type") == "thinking"]
    return _texts(content), "".join(each if isinstance(each, str) else _texts(each) for each in thinking)


def _texts(parts: Any) -> str:
    texts = [part.get("text") for part in objects(parts) if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _tool_call(position: int, call: Mapping[str, Any]) -> ToolCallDelta:
    function = obj(call.get("function"))
    index, arguments = call.get("index"), function.get("arguments")
    if isinstance(arguments, (dict, list)):  # Ollama and some others send the object itself
        arguments = as_json(arguments)
    return ToolCallDelta(
        index if isinstance(index, int) else position,
        string(call.get("id")),
        string(function.get("name")),
        arguments if isinstance(arguments, str) else "",
    )


class CallNumbers:
    """Numbers tool calls apart: some servers give every call the index 0, or none, and only the ids differ."""

    __slots__ = ("_free", "_seen", "_used")

    def __init__(self) -> None:
        self._seen: dict[int, ToolCallDelta] = {}
        self._used: set[int] = set()
        self._free = 0  # above all that are used

    def of(self, fragments: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
        """The fragments under numbers of ours: a new id with a name begins a new call."""
        return tuple(self._numbered(fragment) for fragment in fragments)

    def _numbered(self, fragment: ToolCallDelta) -> ToolCallDelta:
        """`_seen` maps the server's index to the beginning of the call it means now, under our number."""
        now = self._seen.get(fragment.index)
        if now is None or (fragment.id and fragment.name and now.id and fragment.id != now.id):
            number = self._free if now is not None or fragment.index in self._used else fragment.index
            self._used.add(number)
            self._free = max(self._free, number + 1)
            now = self._seen[fragment.index] = replace(fragment, index=number)
        return replace(fragment, index=now.index)


def usage_of(document: Mapping[str, Any], choice: Mapping[str, Any] | None = None) -> Usage | None:
    """The normalised usage, None when there is none that can be believed.

    `prompt_tokens` includes cached tokens and `completion_tokens` includes reasoning, except where the total says that
    reasoning was counted apart (xAI). Groq streams put usage under `x_groq`, Moonshot under the choice.
    """
    places = (document.get("usage"), obj(document.get("x_groq")).get("usage"), (choice or {}).get("usage"))
    raw = next((place for place in places if isinstance(place, dict)), None)
    if raw is None:
        return None
    given, made = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens", 0))
    if given is None or made is None:
        return None
    cached = _detail(raw, "prompt_tokens_details", "cached_tokens")
    cached = cached or count(raw.get("prompt_cache_hit_tokens")) or count(raw.get("cached_tokens")) or 0
    reasoning = _detail(raw, "completion_tokens_details", "reasoning_tokens") or count(raw.get("reasoning_tokens")) or 0
    if reasoning and raw.get("total_tokens") == given + made + reasoning:
        made += reasoning
    written = sum(_detail(raw, "prompt_tokens_details", name) for name in _CACHE_WRITES)
    cached = min(cached, given)
    return Usage(given, made, cached, min(written, given - cached), reasoning_tokens=min(reasoning, made))


def _detail(raw: Mapping[str, Any], group: str, name: str) -> int:
    return count(obj(raw.get(group)).get(name)) or 0


def _says(document: Mapping[str, Any]) -> dict[str, Any]:
    model, fingerprint = string(document.get("model")), string(document.get("system_fingerprint"))
    return {"reported_model": model, "system_fingerprint": fingerprint}
