"""A server on loopback that misbehaves on purpose: raw asyncio in a thread, so that every byte is ours to choose.

    with FaultServer("ok") as server: ...                   # by name: the keys of BEHAVIOURS
    with FaultServer(status(429, "slow down", {"retry-after": "1"})) as server: ...
    with FaultServer(["reset", status(503), "ok"]) as server: ...   # in turn, the last one for ever

`server.url` is an API base. A behaviour is an async function of one `Exchange`. Leaving the context ends whatever still
hangs.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    Behaviour = Callable[["Exchange"], Awaitable[None]]

MODEL = "served-model"
_WAIT_S = 30.0


@dataclass(frozen=True)
class Received:
    """A request as it arrived. Header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exchange:
    """One request and the connection it came on. `close` is whether the connection ends after it."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    close: bool = field(default=True)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, headers: dict[str, str] | None = None, **more: str) -> None:
        """The status line and the headers; without a length or chunks the body ends with the connection."""
        rows = {**(headers or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
        await self.write(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1"))

    async def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole response with its length; the connection stays open."""
        self.close = False
        await self.head(status, {"content-length": str(len(body)), **(headers or {})})
        await self.write(body)

    async def stream_head(self) -> None:
        await self.head(content_type="text/event-stream")

    def reset(self) -> None:
        """End the connection with a RST."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client hangs up."""
        with suppress(OSError):
            while await self.reader.read(65536):
                pass


class FaultServer:
    """Serves until the context ends. `requests` arrived whole; `connections` and `closed` count sockets."""

    def __init__(
        self, *behaviours: Behaviour | str | Sequence[Behaviour | str], tls: ssl.SSLContext | None = None
    ) -> None:
        """Behaviour number n answers request number n, and the last one all that follow."""
        chosen: list[Behaviour | str] = []
        for each in behaviours or ("ok",):
            chosen.extend(each if isinstance(each, (list, tuple)) else [each])  # type: ignore[list-item]
        self._refuses = chosen == ["refuse"]
        self._behaviours = [] if self._refuses else [BEHAVIOURS[b] if isinstance(b, str) else b for b in chosen]
        self._raw = chosen == ["tls_garbage"]
        self._tls = tls
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self.requests: list[Received] = []
        self.errors: list[BaseException] = []
        self._serving: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.closed = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """The address to give as an API base."""
        return f"{'https' if self._tls or self._raw else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        if self._refuses:  # bound and not listening: nobody else can take the port
            return self
        self._socket.listen(512)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)
        self._thread.start()
        assert self._ready.wait(_WAIT_S), "the server did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._refuses:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_WAIT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_WAIT_S)
            self._loop.close()
        self._socket.close()
        assert not self.errors, self.errors

    def wait_for(self, count: int = 1, what: str = "requests") -> None:
        """Wait until `count` of `what` (requests, connections, closed) have been seen."""

        def seen() -> bool:
            value = getattr(self, what)
            return (len(value) if isinstance(value, list) else value) >= count

        with self._changed:
            assert self._changed.wait_for(seen, _WAIT_S), f"never saw {count} {what}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._serve, sock=self._socket, ssl=self._tls, limit=1 << 20)
        self._server = self._loop.run_until_complete(starting)
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._stop())  # for a connection that was accepted while the others ended

    async def _stop(self) -> None:
        await _turns()  # half-accepted connections begin, so that they can be ended
        self._server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        await _turns()  # closed connections let go of their sockets

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count("connections")
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)  # asyncio itself holds tasks weakly
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        except Exception as error:  # noqa: BLE001 - shown when the context ends
            self.errors.append(error)
        finally:
            self._serving.discard(task)
            writer.close()
            self._count("closed")

    def _count(self, what: str) -> None:
        with self._changed:
            setattr(self, what, getattr(self, what) + 1)
            self._changed.notify_all()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if self._raw:
                await self._behaviours[0](Exchange(Received("", "", {}, b""), reader, writer))
                return
            request = await _read(reader)
            if request is None:
                return
            with self._changed:
                behaviour = self._behaviours[min(len(self.requests), len(self._behaviours) - 1)]
                self.requests.append(request)
                self._changed.notify_all()
            exchange = Exchange(request, reader, writer)
            await behaviour(exchange)
            if exchange.close:
                return


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)


# ---------------------------------------------------------------- what an answer is made of


def event(document: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def token(text: str, finish: str | None = None) -> bytes:
    """The event of one piece of text."""
    delta = {"content": text} if text else {}
    return event({"model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def usage(given: int, made: int) -> bytes:
    """The event that says how many tokens there were."""
    return event({"model": MODEL, "choices": [], "usage": {"prompt_tokens": given, "completion_tokens": made}})


def completion(text: str, **more: Any) -> bytes:
    """A whole answer as one JSON document."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    tokens = {"prompt_tokens": 7, "completion_tokens": 1}
    return json.dumps({"model": MODEL, "choices": [choice], "usage": tokens, **more}).encode()


DONE = b"data: [DONE]\n\n"
FINISH = token("", "stop")


def words(n: int) -> list[str]:
    """The pieces of an answer of n tokens: `t0 t1 ...`."""
    return [f"t{i} " for i in range(n)]


def chunked(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


# ---------------------------------------------------------------- behaviours with arguments


def stream(*pieces: str, then: Sequence[bytes] | None = None) -> Behaviour:
    """A good stream of `pieces`; `then` replaces the finish reason, usage and `[DONE]` after them."""
    end = (FINISH, usage(7, len(pieces)), DONE) if then is None else then

    async def behave(x: Exchange) -> None:
        x.close = False
        await x.head(content_type="text/event-stream", transfer_encoding="chunked")
        for piece in (*map(token, pieces), *end):
            await x.write(chunked(piece))
        await x.write(b"0\r\n\r\n")

    return behave


def tokens(n: int) -> Behaviour:
    """A good stream of n tokens, with usage."""
    return stream(*words(n))


def status(code: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Behaviour:
    """An OpenAI-shaped error; `error` adds fields such as `code`."""
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return raw(body, code, {"content-type": "application/json", **(headers or {})})


def raw(body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    """A response of these bytes."""

    async def behave(x: Exchange) -> None:
        await x.respond(code, body, headers or {"content-type": "application/json"})

    return behave


def wire(data: bytes) -> Behaviour:
    """These bytes as they are, status line and all, then the end of the connection."""

    async def behave(x: Exchange) -> None:
        await x.write(data)

    return behave


def sse(*pieces: bytes, reset: bool = False, stay: bool = False) -> Behaviour:
    """An event stream of these bytes, ended by a FIN, by a RST, or not at all."""

    async def behave(x: Exchange) -> None:
        await x.stream_head()
        for piece in pieces:
            await x.write(piece)
        if stay:
            await x.gone()
        if reset:
            x.reset()

    return behave


def cut(n: int, *, reset: bool = False) -> Behaviour:
    """A stream that breaks after n events, by a clean FIN or by a RST."""
    return sse(*map(token, words(n)), reset=reset)


def stall(n: int) -> Behaviour:
    """A stream that falls silent after n events."""
    return sse(*map(token, words(n)), stay=True)


def drip(data: bytes, gap_s: float = 0.05) -> Behaviour:
    """A JSON body, one byte each `gap_s`."""

    async def behave(x: Exchange) -> None:
        await x.head(content_type="application/json", content_length=str(len(data)))
        for n in range(len(data)):
            await x.write(data[n : n + 1])
            await asyncio.sleep(gap_s)

    return behave


def pings(gap_s: float = 0.02, *before: bytes) -> Behaviour:
    """A stream of comments for ever, after what comes `before` them."""

    async def behave(x: Exchange) -> None:
        await x.stream_head()
        for piece in before:
            await x.write(piece)
        while True:
            await x.write(b": ping\n\n")
            await asyncio.sleep(gap_s)

    return behave


def redirect(code: int, to: str) -> Behaviour:
    """A redirect, body included."""
    return raw(b"elsewhere", code, {"location": to})


def gzipped(body: bytes, content_type: str = "application/json") -> Behaviour:
    """A body that nobody asked to be compressed."""
    return raw(gzip.compress(body), 200, {"content-type": content_type, "content-encoding": "gzip"})


def endless(piece: bytes, headers: dict[str, str]) -> Behaviour:
    """A body that never ends."""

    async def behave(x: Exchange) -> None:
        await x.head(200, headers)
        while True:
            await x.write(piece)

    return behave


# ---------------------------------------------------------------- behaviours by name


async def _reset(x: Exchange) -> None:
    x.reset()


async def _close(x: Exchange) -> None:
    x.close = True


async def _silent(x: Exchange) -> None:
    await x.gone()


async def _slow_head(x: Exchange) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"y" * 10_000:
        await x.write(bytes([byte]))
        await asyncio.sleep(0.02)


async def _header_bomb(x: Exchange) -> None:
    await x.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(1_000_000):
        await x.write(b"x-%d: %s\r\n" % (n, b"y" * 1000))


async def _gzip_bomb(x: Exchange) -> None:
    import zlib

    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    await x.head(content_type="application/json", content_encoding="gzip")
    zeros = bytes(1 << 20)
    for _ in range(600):
        await x.write(squeeze.compress(zeros))
    await x.write(squeeze.flush())


async def _echo(x: Exchange) -> None:
    said = f"bad credentials: {x.request.headers.get('authorization', 'none')}"
    await status(401, said, {"x-request-id": x.request.headers.get("authorization", "")[7:]})(x)


async def _garbage_for_tls(x: Exchange) -> None:
    await x.reader.read(100)
    await x.write(b"SSH-2.0-OpenSSH_9.9\r\n" * 10)


async def _by_stream_flag(x: Exchange) -> None:
    wanted = json.loads(x.request.body or b"{}").get("stream")
    await (tokens(5) if wanted else raw(completion("".join(words(5)))))(x)


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_ANSWER = completion("whole")
_LONG = b"x" * (1 << 20)

BEHAVIOURS: dict[str, Behaviour] = {
    # whole answers
    "ok": _by_stream_flag,
    "json": raw(_ANSWER),
    "no_done": stream("a", "b", then=(FINISH,)),
    "no_usage": stream("a", "b", then=(FINISH, DONE)),
    "done_only": stream("a", "b", then=(DONE,)),
    "duplicates": sse(token("a"), token("b"), FINISH, FINISH, token("b"), DONE, DONE, token("c")),
    "crlf": sse(*(piece.replace(b"\n", b"\r\n") for piece in (token("a"), token("b"), FINISH, DONE))),
    "bom": sse(b"\xef\xbb\xbf" + token("a"), token("b"), FINISH, DONE),
    "bad_event": sse(token("a"), b"data: {broken\n\n", token("b"), FINISH, DONE),
    "length": stream("a", then=(token("", "length"), DONE)),
    "filtered": stream("a", then=(token("", "content_filter"), DONE)),
    "http10": wire(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + _ANSWER),
    "continue": wire(b"HTTP/1.1 100 Continue\r\n\r\n" + _HEAD + b"content-length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER),
    # not answers
    "garbage": raw(b"\x00\xff\x13 no json here"),
    "html": raw(b"<html><body><h1>Welcome to nginx</h1></body></html>", 200, {"content-type": "text/html"}),
    "bad_gateway": raw(b"<html><body><h1>502 Bad Gateway</h1></body></html>", 502, {"content-type": "text/html"}),
    "empty": raw(b'{"choices": []}'),
    "empty_stream": stream(then=(DONE,)),
    "nothing": raw(b"", 200, {"content-type": "text/event-stream"}),
    "no_content": wire(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "error_in_200": raw(b'{"error": {"message": "overloaded", "type": "overloaded_error"}}'),
    "error_event": stream("a", then=(event({"error": {"message": "overloaded", "type": "overloaded_error"}}),)),
    "depth": raw(b"[" * 200_000),
    "echo": _echo,
    # connections that break
    "reset": _reset,
    "close": _close,
    "reset_body": cut(0, reset=True),
    "cut": cut(3),
    "cut_reset": cut(3, reset=True),
    "cut_chunked": wire(_STREAM_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(token("a"))),
    "bad_chunks": wire(_HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n" + _ANSWER),
    "huge_chunk": wire(_HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n" + _ANSWER),
    "length_long": wire(_HEAD + b"content-length: %d\r\n\r\n" % (len(_ANSWER) + 100) + _ANSWER),
    "length_short": wire(_HEAD + b"content-length: %d\r\n\r\n" % (len(_ANSWER) - 10) + _ANSWER),
    "bad_status": wire(b"HTTP/1.1 abc Huh\r\n\r\n"),
    "not_http": wire(b"220 mail.example ESMTP\r\n" * 5),
    "switching": wire(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
    "tls_garbage": _garbage_for_tls,
    # connections that hang
    "silent": _silent,
    "slow_head": _slow_head,
    "drip": drip(_ANSWER),
    "pings": pings(),
    "stall": stall(3),
    # bombs
    "long_line": endless(_LONG, {"content-type": "text/event-stream"}),
    "endless": endless(_LONG, {"content-type": "application/json"}),
    "endless_stream": endless(token("word " * 1000), {"content-type": "text/event-stream"}),
    "endless_error": wire(b"HTTP/1.1 500 Oops\r\n\r\n" + _LONG * 8),
    "gzip_bomb": _gzip_bomb,
    "header_bomb": _header_bomb,
}
"""Name -> behaviour with no arguments. "refuse" is known besides: an address where nobody listens."""


# ---------------------------------------------------------------- a proxy, and certificates


class Proxy(FaultServer):
    """An HTTP proxy on loopback: CONNECT tunnels, and absolute addresses are answered like any request.

    `targets` are the addresses it was asked for. Every tunnel leads to `to` (a port on loopback), whatever its name.
    """

    def __init__(self, to: int | None = None, *behaviours: Behaviour | str) -> None:
        super().__init__(*behaviours)
        self.targets: list[str] = []
        self._to = to

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        assert request is not None
        self.targets.append(request.path)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        exchange = Exchange(request, reader, writer)
        if request.method != "CONNECT":
            await self._behaviours[0](exchange)
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await exchange.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            there_writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    with suppress(OSError):
        sink.write_eof()


def certificates(directory: Path) -> dict[str, Path]:
    """A throw-away authority and what it signed: `ca`, `good` (127.0.0.1, api.example), `other` (a wrong name), `self`.

    Each is a PEM file; all but `ca` hold key and certificate. Made by the `openssl` command.
    """

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=directory)

    def made(name: str, extensions: str, *signer: str) -> Path:
        subject = ("-subj", f"/CN=llmctl test {name}")
        (directory / f"{name}.ext").write_text(extensions)
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", *subject)
        signed = signer or ("-signkey", f"{name}.key")
        new = ("x509", "-req", "-in", f"{name}.csr", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        openssl(*new, *signed)
        both = directory / f"{name}.pem"
        both.write_bytes((directory / f"{name}.key").read_bytes() + (directory / f"{name}.crt").read_bytes())
        return both

    made("ca", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n")
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    leaf = "basicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectAltName="
    return {
        "ca": directory / "ca.crt",
        "good": made("good", f"{leaf}IP:127.0.0.1,DNS:localhost,DNS:api.example\n", *signer),
        "other": made("other", f"{leaf}DNS:elsewhere.example\n", *signer),
        "self": made("self", "subjectAltName=IP:127.0.0.1,DNS:localhost\n"),
    }


def tls_context(pem: Path) -> ssl.SSLContext:
    """The server's side of TLS with the key and certificate in `pem`."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def run_in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of `work` on an event loop of another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(work())))
    thread.start()
    thread.join(_WAIT_S)
    return results[0]
