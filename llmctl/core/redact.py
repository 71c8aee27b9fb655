"""Secrets: a value that does not print itself, and the masking of what others print.

A provider may echo a key in an error; everything a provider says is masked before it is shown, stored or raised.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"
_SHORTEST = 4
_LONG = 16
# Shapes of keys that vendors publish, and bearer headers: masked even when the key is not one of ours.
_KEY_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|gsk|xai|pplx|nvapi|hf|r8|csk|fw|tgp)[-_][A-Za-z0-9_\-*]{6,}"
    r"|AIza[A-Za-z0-9_\-]{10,}"
    r"|A[KS]IA[A-Z0-9]{12,})"
    r"|(?i:(?<=bearer ))\S{4,}"
)
_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password|signature", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")


class Secret:
    """A credential. `str` and `repr` give a mask; `reveal()` is called where the header is written, nowhere else."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str = "") -> None:
        """`source` says where it came from (`env:OPENAI_API_KEY`), and may be shown."""
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    __str__ = __repr__


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """`text` with every given secret, and everything that looks like a vendor's key, masked."""
    # The longest first: one secret may be the beginning of another.
    for form in sorted({form for secret in secrets for form in _forms(secret.reveal())}, key=len, reverse=True):
        text = text.replace(form, MASK)
    return _KEY_SHAPES.sub(MASK, text)


def is_key(text: str) -> bool:
    """Whether `text` may be a key: printable ASCII without blanks, as a header can carry it."""
    return bool(text) and all(0x20 < ord(char) < 0x7F for char in text)


def names_secret(header: str) -> bool:
    """Whether the name of a header says that its value is a secret."""
    return bool(_SECRET_HEADER.search(header))


def _forms(value: str) -> tuple[str, ...]:
    """How `value` may stand in a text: as it is, quoted for a URL, escaped in JSON, or in JSON within JSON."""
    if len(value) < _SHORTEST:
        return ()
    if _PLAIN.fullmatch(value):
        return (value,)
    import json  # only a key with unusual characters needs them
    from urllib.parse import quote, quote_plus

    raw = value.encode("utf-8", "surrogatepass")
    escaped = [json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    twice = [json.dumps(each)[1:-1] for each in escaped]
    return (value, quote(raw, safe=""), quote(raw), quote_plus(raw), *escaped, *twice)


class StreamMask:
    """Masks secrets in a text that comes in pieces; an ending that may be the beginning of one is held back.

    Only secrets of at least 16 characters: shorter ones ("EMPTY", "ollama") are no secrets, and may well be words. As
    much of one is masked when the text ends within it.
    """

    __slots__ = ("_held", "_secrets")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        values = {secret.reveal() for secret in secrets}
        self._secrets = sorted((value for value in values if len(value) >= _LONG), key=len, reverse=True)
        self._held = ""

    def feed(self, piece: str, *, last: bool = False) -> str:
        """What of the text can be passed on now; all that is left when this is the `last` piece."""
        if not self._secrets:
            return piece
        text = self._held + piece
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        keep = max(_beginning(secret, text) for secret in self._secrets)
        text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if last:
            text += self._held if keep < _LONG else MASK
            self._held = ""
        return text


def _beginning(secret: str, text: str) -> int:
    """How many characters at the end of `text` may be the beginning of `secret`."""
    at = text.find(secret[0], max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[0], at + 1)
    return len(text) - at if at >= 0 else 0
