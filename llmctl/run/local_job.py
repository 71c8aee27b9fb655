"""One request to the embedded model: prepared for llama.cpp, heard chunk by chunk in its thread, read in the loop.

The two threads meet in one queue. The model's side calls `begin`, `heard`, `end`, `refuse` and `fail`; the loop's side
awaits `status` and iterates `chunks`; either may see `cancelled`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse, LlmctlError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DEFAULT_MAX_TOKENS = 1024
"""The cap on the answer when the request has none: a model this small may never stop by itself."""

_GREEDY = {"temperature": 0}
_NO_CIRCLES = {"repeat_penalty": 1.1, "repeat_last_n": 64}
"""Greedy decoding makes a model this small go round in circles: of 12 everyday prompts 7 never came to an end. The
penalty is llama.cpp's classic one; it is left out under a grammar, whose repeated punctuation it would punish."""

_BYTES_PER_TOKEN = 3
_MOST_BYTES_PER_TOKEN = 32
_TEMPLATE_TOKENS = 64
_MESSAGE_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal in the shape of OpenAI's errors."""

    status: int
    message: str
    code: str = ""

    @property
    def body(self) -> bytes:
        """The JSON body of the error."""
        error = {"message": self.message[:_MESSAGE_LIMIT], "type": "invalid_request_error", "param": None}
        return json.dumps({"error": error | {"code": self.code or None}}).encode()


class TooLong(ValueError):
    """A prompt that cannot fit, seen before anybody has counted its tokens: counting 16 MiB takes 20 s."""


class Job:
    """One request under way.

    The model is always asked to stream, because only then does it call back often enough to be stopped, and always
    answers so: decoders read what really comes (`wire/framing`).
    """

    def __init__(self, body: bytes, loop: asyncio.AbstractEventLoop, context: int) -> None:
        """`context` is the largest the model can have. Raises TooLong, or ValueError for no chat request."""
        request = json.loads(body)
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
            raise ValueError("`messages` must be an array")  # noqa: TRY004 - one class for whatever is wrong with it
        if len(body) > context * _MOST_BYTES_PER_TOKEN:
            raise TooLong(f"the prompt has {len(body)} bytes, and the model's context length is {context} tokens")
        request = {key: value for key, value in request.items() if value is not None}
        self._answer_tokens = _answer_tokens(request)
        self.tokens = _estimate(request["messages"]) + self._answer_tokens
        self.body = _prepared(request)
        self.cancelled = False
        self._context = context
        self._loop = loop
        self._items: asyncio.Queue[int | bytes | Exception | None] = asyncio.Queue()
        self._n_ctx = 0
        self._retry = False
        self._headed = False
        self._ended = False

    # The loop's side.

    async def status(self) -> int:
        """The answer's status, as soon as the model has begun to read the prompt. Raises what made that impossible."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        assert isinstance(item, int)
        return item

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it is made."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            assert isinstance(item, bytes)
            yield item

    def cancel(self) -> None:
        """Stop generating at the next batch or token; from any thread, any number of times."""
        self.cancelled = True

    # The model's side.

    def begin(self, n_ctx: int) -> None:
        """A context of `n_ctx` tokens is there, and the model will be asked now."""
        self._n_ctx = n_ctx
        self._retry = False

    def heard(self, chunk: bytes) -> bool:
        """Take a chunk of the stream; True tells the model to stop."""
        if self.cancelled or self._retry:
            return True
        if chunk.startswith(b'{"error"'):
            self._heard_error(json.loads(chunk)["error"])
            return True
        # Inside a JSON string the quotes would be escaped, so these bytes can only be the member itself.
        if b'"prompt_progress":' in chunk:
            return self._heard_progress(chunk)
        self._head(200)
        self._put(b"data: " + chunk + b"\n\n")
        return self.cancelled

    def _heard_progress(self, chunk: bytes) -> bool:
        if not self._headed:
            need = json.loads(chunk)["prompt_progress"]["total"] + self._answer_tokens
            if self._grows(need):
                return True
            self._head(200)
        return self.cancelled

    def _heard_error(self, error: dict[str, Any]) -> None:
        if error.get("type") != "exceed_context_size_error":
            self.refuse(Refused(int(error.get("code", 500)), str(error.get("message", "unknown error"))))
            return
        prompt_tokens = int(error["n_prompt_tokens"])
        if prompt_tokens >= self._context or not self._grows(prompt_tokens + self._answer_tokens):
            message = f"the prompt has {prompt_tokens} tokens, and the model's context length is {self._context}"
            self.refuse(Refused(400, message, "context_length_exceeded"))

    def _grows(self, need: int) -> bool:
        """Whether a larger context must be loaded to hold `need` tokens: then `tokens` says so, and `end` is False."""
        self._retry = self._n_ctx < min(need, self._context)
        if self._retry:
            self.tokens = need
        return self._retry

    def end(self) -> bool:
        """The model has stopped calling back; False when it must be asked again with room for `tokens`."""
        if self._retry and not self.cancelled:
            return False
        if self._ended:
            return True
        if self.cancelled or not self._headed:
            self.fail(BadResponse(f"the embedded model {'was stopped' if self.cancelled else 'gave no answer'}"))
            return True
        self._put(b"data: [DONE]\n\n")
        self._put(None)
        return True

    def refuse(self, refused: Refused) -> None:
        """Answer with an error; inside a stream that has begun, as an event."""
        within_stream = self._headed
        self._head(refused.status)
        self._put(b"data: " + refused.body + b"\n\n" if within_stream else refused.body)
        self._put(None)
        self._ended = True

    def fail(self, error: Exception) -> None:
        """Raise `error` in the loop; what is not ours becomes BadResponse."""
        if isinstance(error, LlmctlError):
            self._put(error)
        else:
            wrapped = BadResponse(f"the embedded model failed: {error!r}")
            wrapped.__cause__ = error
            self._put(wrapped)
        self._ended = True

    def _head(self, status: int) -> None:
        if not self._headed:
            self._headed = True
            self._put(status)

    def _put(self, item: int | bytes | Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop has been closed: nobody listens any more
            self.cancelled = True


def _prepared(request: dict[str, Any]) -> bytes:
    """The body the model gets: greedy and capped unless the request says otherwise, and always streamed."""
    circles = {} if "response_format" in request else _NO_CIRCLES
    body = _GREEDY | circles | request | {"stream": True, "return_progress": True}
    if "max_tokens" not in body and "max_completion_tokens" not in body:
        body["max_tokens"] = DEFAULT_MAX_TOKENS
    if not request.get("stream"):  # a whole answer says what it took
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def _answer_tokens(request: dict[str, Any]) -> int:
    value = request.get("max_completion_tokens", request.get("max_tokens"))
    return value if isinstance(value, int) and value > 0 else DEFAULT_MAX_TOKENS


def _estimate(messages: list[Any]) -> int:
    """Roughly the tokens of a prompt; the model counts them before it reads, so a wrong guess costs only a reload."""
    return (
        len(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace")) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS
    )
