"""A transport that makes faults really happen, below the engine: each faulted request is a real HTTP exchange.

For one exchange there is one listener on loopback, the stand-in of the provider: it reads the request, then misbehaves
as the fault says (`core/faults`), in the words of the provider's protocol (`wire/scripted`). Nothing is thrown from
above. A request without a fault goes on to the real provider (live), or is answered well by the stand-in (offline).
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections import defaultdict
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from llmctl.core.faults import FAULTS, OK, SMALL_WINDOW, Fault, Schedule, schedule
from llmctl.run.clock import SystemClock
from llmctl.wire import scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from llmctl.core.catalog import Deployment
    from llmctl.run.ports import Clock, Response, Transport
    from llmctl.wire.base import HttpRequest

SENTENCE = (
    "No model was asked for this answer. It was written by a stand-in for the provider, which runs on this machine "
    "while a drill is going on. It has sixty words, each of them one token, so that a stream that ends after forty of "
    "them can be told from a whole one by anybody who counts up to sixty."
)
NOWHERE = "https://llmctl-drill.invalid."
"""It has no address (RFC 6761, 6.4), nor in a search domain; by https, as some resolvers lead such names to a page."""
_HARMLESS = ("content-type", "accept")
"""The headers that a stand-in is shown in a live drill: any other may hold a real credential."""
_ANY_HEAD = 1 << 26
_RST = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing the socket sends RST instead of FIN."""


class Heard(NamedTuple):
    """A request as the stand-in received it. Header names are lower-case; `at` is of the transport's clock."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Sent:
    """One request: the deployment's id, the fault it met, when it was sent (Unix seconds of the transport's clock).

    `real` says that it left this machine's stand-ins; `heard` is None where no stand-in has understood it.
    """

    deployment: str
    fault: Fault | None
    at: float
    real: bool = False
    heard: Heard | None = None


class Exchange(NamedTuple):
    """One connection to a stand-in, and all that it needs to know for its part.

    Until `hurry` is called time passes as in the world: what this machine itself needs is not to count many times over.
    """

    sent: Sent
    fault: Fault
    protocol: str
    model: str
    pieces: tuple[str, ...]
    clock: Clock
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hurry: Callable[[], None] = lambda: None

    @property
    def streams(self) -> bool:
        """Whether a stream was asked for."""
        heard = self.sent.heard
        return heard is not None and scripted.wants_stream(self.protocol, heard.path, heard.body)

    async def hear(self) -> None:
        """Read the request. Raises OSError or EOFError where the client leaves before its end."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        self.sent.heard = Heard(self.clock.now(), method, path, headers, body)

    def answer(self) -> scripted.Reply:
        """The good answer, as it was asked for; it has more events than the fault's number."""
        many = int(self.fault.number or 0) + 1 if self.fault.kind.number == "events" else 0
        pieces = tuple(islice(cycle(self.pieces), max(len(self.pieces), many)))
        script = scripted.Script(pieces, self.model, len(self.sent.heard.body) // 4 if self.sent.heard else 0)
        return scripted.answer(self.protocol, script, stream=self.streams)

    def head(self, reply: scripted.Reply, framing: tuple[str, str]) -> None:
        """Say the status and the headers; `framing` is the one that tells how the body ends."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*reply.headers.items(), framing))
        self.writer.write(f"HTTP/1.1 {reply.status} Said\r\n{lines}\r\n".encode("latin-1"))

    async def say(self, reply: scripted.Reply, only: Sequence[bytes] | None = None) -> None:
        """Say `reply`, a stream in chunks (RFC 9112, 7.1), all else with its length; with `only`, this and no end."""
        whole = (*reply.opening, *reply.events, *reply.closing, *reply.terminator)
        said = whole if only is None else only
        if len(whole) == 1:
            self.head(reply, ("content-length", str(len(whole[0]))))
        else:
            self.head(reply, ("transfer-encoding", "chunked"))
            said = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*said, b"")[: None if only is None else -1]]
        self.writer.write(b"".join(said))
        await self.writer.drain()

    async def silence(self) -> None:
        """Say nothing more until the client hangs up."""
        self.hurry()
        await self.reader.read()


async def _be_slow(x: Exchange) -> None:
    x.hurry()
    await x.clock.sleep(x.fault.number or 0.0)
    await x.say(x.answer())


async def _reset(x: Exchange) -> None:
    x.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    x.writer.transport.abort()


def _begun(x: Exchange, reply: scripted.Reply) -> tuple[bytes, ...]:
    """The events of `reply` up to the fault's number; half of what is no stream."""
    if reply.events:
        return (*reply.opening, *reply.events[: int(x.fault.number or 0)])
    return (reply.opening[0][: len(reply.opening[0]) // 2],)


async def _cut(x: Exchange) -> None:
    """The body ends with its connection: the one cut that no HTTP library can tell from a good end.

    Chunks that do not end, or half of a body with its length, are ConnectionFailed before there is a first token.
    """
    reply = x.answer()
    if reply.events:
        x.head(reply, ("connection", "close"))
        x.writer.write(b"".join(_begun(x, reply)))
    else:
        await x.say(reply, _begun(x, reply))


async def _stall(x: Exchange) -> None:
    await x.say(reply := x.answer(), _begun(x, reply))
    await x.silence()


async def _break_one(x: Exchange) -> None:
    """A broken event in the middle of the others; of a body that is one document, the last byte is missing."""
    reply = x.answer()
    half = len(reply.events) // 2
    events = (*reply.events[:half], scripted.broken(x.protocol), *reply.events[half:])
    whole = (b"".join(reply.opening)[:-1],)
    await x.say(reply._replace(events=events) if reply.events else reply._replace(opening=whole))


async def _stay(x: Exchange) -> None:
    """All but what says that nothing follows, on a connection that stays; a body with its length is whole."""
    reply = x.answer()
    await x.say(reply, (*reply.opening, *reply.events, *reply.closing))
    await x.silence()


async def _speak_plainly(x: Exchange) -> None:
    """What a port for plain http says to a TLS handshake."""
    await x.reader.read(_ANY_HEAD)
    x.writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThe request is no HTTP.\n")


class Play(NamedTuple):
    """How a fault happens: what the stand-in does, when it has heard the request where it `hears`; its address.

    With `listens` False nobody takes a connection, and the port of the address belongs to nobody else.
    """

    act: Callable[[Exchange], Awaitable[None]] = Exchange.silence
    address: str = "http://127.0.0.1:{port}"
    listens: bool = True
    hears: bool = True


WELL = Play(lambda x: x.say(x.answer()))
REFUSED = Play(lambda x: x.say(scripted.refusal(x.protocol, x.fault, stream=x.streams)))
PLAYS: dict[str, Play] = {
    **dict.fromkeys((name for name, kind in FAULTS.items() if kind.status), REFUSED),
    "timeout": Play(Exchange.silence),
    "slow": Play(_be_slow),
    "refused": Play(listens=False),
    "reset": Play(_reset),
    "dns": Play(address=NOWHERE, listens=False),
    "tls": Play(_speak_plainly, address="https://127.0.0.1:{port}", hears=False),
    "cut": Play(_cut),
    "stall": Play(_stall),
    "garbage": Play(lambda x: x.say(scripted.garbage(x.protocol))),
    "empty": Play(lambda x: x.say(scripted.empty(x.protocol))),
    "badjson": Play(_break_one),
    "nodone": Play(_stay),
}
"""Every fault of an answer, by name."""


class FaultTransport:
    """Sends each request into the fault whose turn it is. `sent` is what was sent, `text` what a stand-in answers."""

    def __init__(
        self,
        faults: Mapping[str, Schedule | str] | None = None,
        *,
        clock: Clock | None = None,
        beyond: Callable[[Deployment], Transport] | None = None,
        dice: Callable[[], float] = random.random,
        pieces: Sequence[str] = tuple(re.findall(r"\S+ ?", SENTENCE)),
    ) -> None:
        """`faults` by deployment id, `"*"` for all others; requests are counted for each deployment by itself.

        `beyond` gives the way to the real provider; without it nothing leaves this machine. Give it the clock of the
        client: with a DrillClock, real providers have real time. Raises UsageError for a fault that is not understood.
        """
        from llmctl.run.transport import HttpTransport

        self.sent: list[Sent] = []
        self.text = "".join(pieces)
        written = (faults or {}).items()
        self._schedules = {name: each if isinstance(each, Schedule) else schedule(str(each)) for name, each in written}
        self._clock = clock or SystemClock()
        self._real: Callable[[], AbstractContextManager[None]] = getattr(self._clock, "real", nullcontext)
        self._beyond, self._dice, self._pieces = beyond, dice, tuple(pieces)
        self._asked: defaultdict[str, list[float]] = defaultdict(list)
        self._http = HttpTransport({})  # no proxy may stand between us and a fault

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Response]:
        """The response of the stand-in or of the real provider. Raises as `HttpTransport.send` does."""
        sent = self._next(deployment.id)
        if sent.fault is None and self._beyond is not None:
            sent.real = True
            with self._real():
                async with self._beyond(deployment).send(request, deployment, connect_s=connect_s) as response:
                    yield response
            return
        if self._beyond is not None:
            shown = {name: value for name, value in request.headers.items() if name in _HARMLESS}
            request = request._replace(headers=shown)
        play = PLAYS[sent.fault.name] if sent.fault else WELL
        with ExitStack() as pace:
            pace.enter_context(self._real())
            async with self._stand_in(play, sent, deployment, pace.close) as address:
                parts = urlsplit(request.url)
                request = request._replace(url=f"{address}{parts.path}{parts.query and '?'}{parts.query}")
                async with self._http.send(request, deployment, connect_s=connect_s) as response:
                    yield response

    async def aclose(self) -> None:
        """Let go of what this event loop held open; of the real transports their owner takes care."""
        await self._http.aclose()

    def _next(self, name: str) -> Sent:
        """The next request to this deployment, and the fault whose turn it is."""
        now = self._clock.now()
        asked = self._asked[name]
        asked.append(now)
        found = self._schedules.get(name) or self._schedules.get("*")
        fault = found.at(len(asked) - 1, self._dice, now - asked[0]) if found else None
        self.sent.append(sent := Sent(name, None if fault and fault.name == SMALL_WINDOW else fault, now))
        return sent

    @asynccontextmanager
    async def _stand_in(
        self, play: Play, sent: Sent, deployment: Deployment, hurry: Callable[[], None]
    ) -> AsyncIterator[str]:
        """The address of a listener for one connection. Nothing of it is left at the end of the context."""
        with socket.socket() as listener:
            listener.setblocking(False)
            listener.bind(("127.0.0.1", 0))
            address = play.address.format(port=listener.getsockname()[1])
            if not play.listens:
                yield address
                return
            listener.listen()
            task = asyncio.create_task(self._serve(listener, play, sent, deployment, hurry))
            try:
                yield address
            finally:
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.result()  # raises what is our own mistake, and no provider's fault

    async def _serve(
        self, listener: socket.socket, play: Play, sent: Sent, deployment: Deployment, hurry: Callable[[], None]
    ) -> None:
        """Play the stand-in's part. A client that leaves early ends it; so does the end of the exchange."""
        loop, called = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(listener, called.set)  # `sock_accept` loses a connection that comes when it is cancelled
        try:
            await called.wait()
        finally:
            loop.remove_reader(listener)
        reader, writer = await asyncio.open_connection(sock=listener.accept()[0], limit=_ANY_HEAD)
        protocol, model = deployment.provider.protocol, deployment.base_model or deployment.model
        fault = sent.fault or Fault(OK)
        exchange = Exchange(sent, fault, protocol, model, self._pieces, self._clock, reader, writer, hurry)
        try:
            with suppress(OSError, EOFError):
                if play.hears:
                    await exchange.hear()
                await play.act(exchange)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
