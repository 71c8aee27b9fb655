"""The canonical request, its answer in pieces (events), and the fold of those pieces (a completion).

Every wire translates to and from these values, so nothing here knows a provider. Content is what a person or a model
said; how it travels is `llmctl.wire`'s business. Validation of user input belongs to the edges, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause", "error"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text content."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image: either base64 `data` with its `media_type`, or a `url` the provider fetches itself.

    `detail` is OpenAI's word for how closely to look: low, high or auto.
    """

    media_type: str = ""
    data: str = ""
    url: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document (PDF) as base64 `data`."""

    media_type: str
    data: str
    name: str = ""


Part = Text | Image | Document


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is the JSON text as the model wrote it, which may be invalid.

    `signature` is the provider's seal on the thought behind the call (Gemini): it must be sent back unchanged.
    """

    id: str
    name: str
    arguments: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of a model's reasoning, to be sent back unchanged with the turn it belongs to.

    `signature` is the provider's seal on `text`; `redacted` is a thought that only the provider can read.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool_calls` and `thoughts` only on assistant turns, `tool_call_id` and `is_error` only on tool turns.

    `name` is a tool's on a tool turn, a participant's elsewhere. `cache` marks the end of a beginning that the provider
    is asked to keep: the prompt up to and with this message. `maker` says whose seals are on the thoughts and calls,
    where that is known: nobody else can read them.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    thoughts: tuple[Thought, ...] = ()
    name: str = ""
    is_error: bool = False
    cache: bool = False
    maker: str = ""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


def readable_by(maker: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """`messages` without the thoughts and seals of other makers, who would refuse a whole request for one of them."""
    return tuple(
        replace(each, thoughts=(), tool_calls=tuple(replace(call, signature="") for call in each.tool_calls))
        if each.maker not in ("", maker)
        else each
        for each in messages
    )


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON Schema, which `strict` asks the provider to hold it to."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What shape the answer must have: any JSON object, or one that meets a JSON Schema."""

    kind: Literal["json", "json_schema"]
    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Params:
    """Sampling and length parameters; None means the provider's default. `extra` is passed through untouched."""

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    reasoning_tokens: int | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """The canonical ask. It names no model: a plan decides that, once per attempt.

    `tool_choice` is "auto", "none", "required" or a tool's name; `stream` asks for events as they are made. A request
    to embed has `inputs` and no messages: its answer is a vector for each, of `dimensions` numbers where that is said.
    """

    messages: tuple[Message, ...]
    params: Params = Params()
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    response_format: ResponseFormat | None = None
    stream: bool = True
    inputs: tuple[str, ...] = ()
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer.

    `input_tokens` is all input (cached and cache-written included), `output_tokens` all output (reasoning included);
    the others are parts of those two.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of tool call number `index`: id and name once, argument text in any number of pieces.

    A piece may end within a surrogate pair, as servers that cut UTF-16 send it; the fold joins what was split.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A canonical piece of an answer. One class, so that `event.text` is always there to be printed.

    A piece carries any of: text, reasoning text, tool call fragments, usage (the last one wins), a finish reason, and
    what the server says of itself. `signature` seals the reasoning so far, `redacted` is a thought that only the
    provider can read. `skipped` counts broken provider events that were passed over. `vectors` are the answer to
    `Request.inputs`: 32-bit floats.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    reported_model: str = ""
    system_fingerprint: str = ""
    refusal: str = ""
    skipped: int = 0
    signature: str = ""
    redacted: str = ""
    vectors: tuple[array[float], ...] = ()

    @property
    def shows(self) -> bool:
        """Whether the piece carries something of the answer itself, so that the first-token clock may stop.

        Vectors come all at once: they have no first token.
        """
        return bool(self.text or self.reasoning or self.tool_calls or self.refusal)


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: the fold of its events. `finish_reason` None means that the provider never said it had ended."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reported_model: str = ""
    system_fingerprint: str = ""
    skipped: int = 0
    thoughts: tuple[Thought, ...] = ()
    vectors: tuple[array[float], ...] = ()


@dataclass(slots=True, eq=False)
class Fold:
    """Adds events up into a completion; cheap enough to run beside the stream (one list append an event)."""

    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _sealed: int = 0  # how many pieces of it belong to the thoughts below
    _refusal: list[str] = field(default_factory=list)
    _calls: dict[int, ToolCallDelta] = field(default_factory=dict)
    _arguments: dict[int, list[str]] = field(default_factory=dict)
    _model: str = ""
    _fingerprint: str = ""
    _skipped: int = 0
    _thoughts: list[Thought] = field(default_factory=list)
    _vectors: tuple[array[float], ...] = ()

    def add(self, event: Event) -> None:
        """Take one event in."""
        if event.text:
            self._text.append(event.text)
        if event.reasoning:
            self._reasoning.append(event.reasoning)
        if event.refusal:
            self._refusal.append(event.refusal)
        for delta in event.tool_calls:
            self._add_call(delta)
        if event.usage is not None:
            self.usage = event.usage
        if event.finish_reason is not None:
            self.finish_reason = event.finish_reason
        self._model = event.reported_model or self._model
        self._fingerprint = event.system_fingerprint or self._fingerprint
        self._skipped += event.skipped
        if event.signature or event.redacted:
            self._thoughts += self._unsealed(event.signature)
            self._sealed = len(self._reasoning)
            if event.redacted:
                self._thoughts.append(Thought(redacted=event.redacted))
        self._vectors = event.vectors or self._vectors

    def _unsealed(self, signature: str = "") -> tuple[Thought, ...]:
        """What was thought since the last seal, as a thought of its own under `signature`."""
        thought = "".join(self._reasoning[self._sealed :])
        return (Thought(thought, signature),) if thought or signature else ()

    def _add_call(self, delta: ToolCallDelta) -> None:
        old = self._calls.get(delta.index)
        if old is None:
            self._calls[delta.index] = delta
            self._arguments[delta.index] = [delta.arguments]
            return
        self._arguments[delta.index].append(delta.arguments)
        if delta.id or delta.name or delta.signature:
            self._calls[delta.index] = ToolCallDelta(
                delta.index, old.id or delta.id, old.name or delta.name, signature=old.signature or delta.signature
            )

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    def completion(self) -> Completion:
        """The completion so far; whole once a finish reason has been heard. A whole call without arguments has `{}`."""
        none = "{}" if self.finish_reason in ("stop", "tool_calls") else ""
        return Completion(
            text=self.text,
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            tool_calls=tuple(
                ToolCall(call.id, call.name, well_formed("".join(self._arguments[index])) or none, call.signature)
                for index, call in sorted(self._calls.items())
            ),
            finish_reason=self.finish_reason,
            usage=self.usage,
            reported_model=self._model,
            system_fingerprint=self._fingerprint,
            skipped=self._skipped,
            thoughts=(*self._thoughts, *self._unsealed()),
            vectors=self._vectors,
        )


def fold(events: Sequence[Event]) -> Completion:
    """The completion that `events` add up to."""
    folder = Fold()
    for event in events:
        folder.add(event)
    return folder.completion()


def well_formed(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD, and paired ones joined: what can be written as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
