"""A conversation that goes on: what is sent of it, and how one that outgrows the window is made to fit, visibly.

Pure: what is asked, and how, is given as `make`. Messages are OpenAI-shaped dicts, an exchange is those of one turn,
the answer last. Where they are kept is not known here (`store.sessions`).

    def make(messages):                                # Client.ask raises ContextExceeded before anything is sent
        return client.ask(messages=messages, model=..., system=..., session=name)

    least, turn = 0, [user_row(text)]
    while True:
        ask, left_out = fitted(make, exchanges, turn, least)
        try:
            ...show what client.engine.call(ask) gives...
            break
        except ContextExceeded as error:               # the provider's own word, before any of the answer was shown
            least = more_left_out(len(exchanges), left_out, error)
    if not answer.record.exit_code: ...keep [*turn, answer.as_message()]...
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.errors import ContextExceeded, UsageError
from llmctl.wire.values import obj

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmctl.core.types import Message

    Row = Mapping[str, Any]

T = TypeVar("T")

MAX_TURN = 16 << 20
"""The most bytes that one turn of a session may be, attachments as base64: it is kept, and sent again each turn."""
_NEXT = "\n\n[user]\n"


def user_row(said: str | Message) -> dict[str, Any]:
    """The user's turn as it is kept and sent. Raises UsageError for one that is too large to be kept."""
    content: Any = said
    if not isinstance(said, str):
        from llmctl.wire.openai_chat import content_of

        content = content_of(said.parts, {})
    texts = [content] if isinstance(content, str) else [text for part in content for text in _texts(part)]
    if sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts) > MAX_TURN:
        raise UsageError(
            f"this turn is over {MAX_TURN >> 20} MiB, which is the most that a session keeps",
            hint="attach or say less, or ask without a session",
        )
    return {"role": "user", "content": content}


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def replayed(exchanges: Sequence[Sequence[Row]]) -> list[Row]:
    """The messages of past exchanges as they can be sent again: a tool call that nobody ran becomes words.

    Providers refuse a call without a result, and some refuse both where no tools are offered.
    """
    rows = [row for exchange in exchanges for row in exchange]
    run = [row.get("tool_call_id") for row in rows if row.get("role") == "tool"]
    return [_closed(row, run) if isinstance(row.get("tool_calls"), list) else row for row in rows]


def _closed(row: Row, run: list[Any]) -> Row:
    calls = [obj(call) for call in row["tool_calls"]]
    if all(call.get("id") in run for call in calls):
        return row
    functions = [obj(call.get("function")) for call in calls]
    words = [f"(I called {each.get('name')} with {each.get('arguments')}; it was not run.)" for each in functions]
    said = row.get("content")
    return {"role": "assistant", "content": "\n\n".join([*([said] if isinstance(said, str) and said else ()), *words])}


def fitted(
    make: Callable[[list[Row]], T], exchanges: Sequence[Sequence[Row]], turn: Sequence[Row], least: int = 0
) -> tuple[T, int]:
    """What `make(messages)` gives for the most of the conversation that fits, and how many exchanges were left out.

    The oldest ones are left out, whole, at least `least`; never the turn itself. `make` raises ContextExceeded for
    what does not fit; so does this when the turn alone does not.
    """

    def trial(left_out: int) -> T:
        return make([*replayed(exchanges[left_out:]), *turn])

    with suppress(ContextExceeded):
        return trial(least), least
    least, most = least + 1, len(exchanges)
    best = trial(most)
    while least < most:  # the fewer messages, the fewer tokens
        middle = (least + most) // 2
        try:
            best, most = trial(middle), middle
        except ContextExceeded:
            least = middle + 1
    return best, most


def more_left_out(count: int, left_out: int, refusal: ContextExceeded) -> int:
    """How many of `count` exchanges to leave out after a provider's own refusal: half of the rest, so it ends soon.

    Raises `refusal` where none is left to leave out, or some of the answer was shown already.
    """
    if left_out >= count or refusal.partial_text:
        raise refusal
    return left_out + (count - left_out + 1) // 2


def parted(transcript: str) -> tuple[str | None, str]:
    """The system prompt and the user's message of a call, out of the prompt that the ledger keeps of it.

    See `accounts.transcript_of`. Raises UsageError where that could be two things.
    """
    if transcript.startswith("[user]\n"):
        return None, transcript.removeprefix("[user]\n")
    system, found, said = transcript.removeprefix("[system]\n").partition(_NEXT)
    if not transcript.startswith("[system]\n") or not found:
        return None, transcript
    if _NEXT in said:
        raise UsageError(
            "what was said in the newest call cannot be told apart", hint="begin with --session NAME, and name it again"
        )
    return system, said
