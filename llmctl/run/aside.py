"""Asking a provider for a document beside its answers: the list of its models, the count of a prompt's tokens.

It goes the way of an attempt (address, credential, signature, clocks, caps, errors, masking) with another request and a
plainer reading. It costs nothing, so it has no row in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadResponse
from llmctl.core.types import Event, Request
from llmctl.run.attempt import AttemptRun, Limits
from llmctl.wire.base import Encoded, load
from llmctl.wire.values import loads, snippet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.core.errors import ProviderError
    from llmctl.run.engine import Engine
    from llmctl.wire.base import Endpoint, HttpRequest, Wire

    Question = Callable[[Deployment, Endpoint], HttpRequest]
    Heard = Callable[[Mapping[str, str]], None]

TOTAL_S = 30.0


async def document(
    engine: Engine, deployment: Deployment, question: Question, heard: Heard = lambda _: None
) -> dict[str, Any] | list[Any]:
    """The JSON object or array that answers `question`; `heard` is told the headers of whatever answer comes.

    Raises what a call does: no credential, a refusal, a clock.
    """
    obstacle = engine.endpoints.obstacle(deployment)
    if obstacle is not None:
        raise obstacle
    endpoint = await engine.endpoints.resolve_async(deployment)
    settings = engine.settings
    limits = Limits(settings.connect_s, settings.first_token_s, settings.idle_s, TOTAL_S)
    wire = _Plain(load(deployment.provider.protocol), question, heard)
    run = AttemptRun(deployment, Request(()), endpoint, limits, wire)
    async for _ in run.events(engine.transport(deployment), engine.clock):
        pass
    body = run.fold.text.encode("utf-8", "replace")
    found = loads(body)
    if not isinstance(found, (dict, list)):
        raise BadResponse(f"{deployment.served_by}: not a JSON document: {snippet(body)}", status=run.status)
    return found


class _Plain:
    """A wire that sends the question and reads the body as one text; refusals mean what they mean to `wire`."""

    def __init__(self, wire: Wire, question: Question, heard: Heard) -> None:
        self._wire = wire
        self._question = question
        self._heard = heard

    def encode(self, request: Request, deployment: Deployment, endpoint: Endpoint) -> Encoded:  # noqa: ARG002
        """The question."""
        return Encoded(self._question(deployment, endpoint))

    def decoder(self, request: Request, status: int, headers: Mapping[str, str]) -> _Whole:  # noqa: ARG002
        """A decoder that keeps the text."""
        self._heard(headers)
        return _Whole()

    def listing(self, deployment: Deployment, endpoint: Endpoint) -> HttpRequest:
        """As the wire's."""
        return self._wire.listing(deployment, endpoint)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """As the wire's."""
        self._heard(headers)
        return self._wire.classify(status, headers, body, now)


class _Whole:
    """The body, as the text of one event."""

    done = False

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Keeps the bytes."""
        self._body += data
        return iter(())

    def end(self) -> Iterator[Event]:
        """All of it."""
        yield Event(text=self._body.decode("utf-8", "replace"), finish_reason="stop")
