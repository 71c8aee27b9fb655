"""What every wire protocol offers.

A wire is a module of functions: `encode` (canonical request -> HTTP request parts), `decoder` (bytes -> canonical
events), `classify` (status + headers + body -> an error of our tree), and `listing` (the request that lists models). A
decoder never raises anything but our errors, whatever bytes arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from llmctl.core.errors import ConfigInvalid
from llmctl.wire import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import ProviderError
    from llmctl.core.redact import Secret
    from llmctl.core.types import Event, Request


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """What signs a request to Amazon: three values that belong together, and the region they are used in."""

    access_key: str = field(repr=False)
    secret_key: Secret
    session_token: Secret
    region: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an attempt goes and with which credential; all of it is resolved just before sending.

    `bearer` says that the key is a token for `Authorization`, whatever header the protocol has for keys. `headers` are
    the user's own. With `aws`, the encoded request is signed and `key` is empty. `hidden` are further secrets.
    """

    api_base: str
    key: Secret
    bearer: bool = False
    api_version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    aws: AwsKeys | None = None
    hidden: tuple[Secret, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All that must never be shown."""
        return (self.key, *self.hidden)

    @property
    def authorization(self) -> dict[str, str]:
        """The header of a bearer token; none without a key."""
        return {"authorization": f"Bearer {self.key.reveal()}"} if self.key else {}

    def keyed(self, header: str) -> dict[str, str]:
        """The header of the key: the protocol's own one, unless the key is a bearer token; none without a key."""
        return {header: self.key.reveal()} if self.key and not self.bearer else self.authorization

    def headed(self, *own: Mapping[str, str]) -> dict[str, str]:
        """The headers of a JSON request: ours, the protocol's `own`, then the user's."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        for each in (*own, self.headers):
            headers |= each
        return headers


class HttpRequest(NamedTuple):
    """One HTTP request, whole. Header names are lower-case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Encoded(NamedTuple):
    """An encoded request, and the parameters this provider cannot take (each to be announced, never silently lost)."""

    http: HttpRequest
    dropped: tuple[str, ...] = ()


class Decoder(Protocol):
    """An answer being read: bytes in, events out."""

    @property
    def done(self) -> bool:
        """Whether the provider has said that nothing follows."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete; lazily, so that what came before an error is not lost with it.

        Raises only ProviderError.
        """

    def end(self) -> Iterator[Event]:
        """The last events, at the end of the body. Raises StreamTruncated when the answer was not whole."""


class Wire(Protocol):
    """The functions of a wire module."""

    def encode(self, request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:
        """The HTTP request for `request` at `deployment`. Raises UsageError for what it cannot hold."""

    def decoder(self, request: Request, status: int, headers: Mapping[str, str]) -> Decoder:
        """A decoder for a successful response with these (lower-case) headers."""

    def listing(self, deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
        """The request that lists the models which this credential may ask; it costs nothing."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """The error a refused request means; `now` (Unix seconds) turns dates in headers into waits."""


def load(protocol: str) -> Wire:
    """The wire that speaks `protocol`. Raises ConfigInvalid for one that this version does not speak."""
    if protocol not in PROTOCOLS:
        raise ConfigInvalid(
            f"protocol {protocol!r} is not spoken by this version", hint=f"it speaks: {', '.join(sorted(PROTOCOLS))}"
        )
    return cast("Wire", import_module(PROTOCOLS[protocol]))
