"""HTTP over httpx, and nothing else of httpx anywhere: what a swap of the library would touch is this file.

Redirects are never followed, cookies never kept, TLS is verified, bodies are capped, and every failure is one of our
errors. The clocks are the caller's, except the connect clock. Proxies: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY,
never for loopback. Certificates: SSL_CERT_FILE or SSL_CERT_DIR, else the system's hashed directory
(0.15 ms against 17 ms for loading every certificate), else what httpx ships.
"""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]
from weakref import WeakKeyDictionary

from llmctl._version import __version__
from llmctl.core.errors import HINTS, BadResponse, ConfigInvalid, ConnectionFailed, LlmctlError, TimedOut
from llmctl.run.address import is_loopback

if "httpx" not in sys.modules:
    # `import httpx` loads its own command line when click and rich are there (27 ms). It is optional to httpx itself:
    # a None entry makes that one import fail, and httpx goes on without. Nobody else ever sees the entry.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    import httpx

    del sys.modules["httpx._main"]
else:
    import httpx

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from llmctl.core.catalog import Deployment
    from llmctl.run.ports import Response
    from llmctl.wire.base import HttpRequest

    _Pools = dict[tuple[str | None, bool], httpx.AsyncHTTPTransport]

MAX_BODY = 32 << 20
USER_AGENT = f"llmctl/{__version__}"
_HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
# How many calls run at once is decided above: a call that waits here would lose its first-token time to its siblings.
# A connection serves one request: httpcore takes bytes that follow a response for the answer to the next request, so a
# server that answers twice would give one caller another's answer. A stream left at its `[DONE]` closes it anyway.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_INFLATE_STEP = 1 << 20


class HttpTransport:
    """Sends over HTTP(S), with one connection pool for each event loop and each way out: straight, or by a proxy."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` gives proxies and certificates."""
        self._environ = environ
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[Response]:
        """The response, closed at the end of the context. Raises ConnectionFailed, TimedOut or BadResponse."""
        where = deployment.served_by
        timeout = httpx.Timeout(None, connect=connect_s)
        try:
            prepared = httpx.Request(
                request.method,
                request.url,
                headers={**_HEADERS, **request.headers},
                content=request.body,
                extensions={"timeout": timeout.as_dict()},
            )
            response = await self._pool(request.url).handle_async_request(prepared)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            raise translated(error, where) from error
        try:
            yield HttpResponse(response, where)
        finally:
            await response.aclose()

    def _pool(self, url: str) -> httpx.AsyncHTTPTransport:
        """The pool for `url` on this event loop. A transport and not a client of httpx: no cookies, no redirects."""
        pools = self._pools.setdefault(asyncio.get_running_loop(), {})
        proxy, tls = proxy_of(url, self._environ), not url.lower().startswith("http:")
        if (proxy, tls) not in pools:
            verify = _certificates(self._environ) if tls else False
            try:
                pools[proxy, tls] = httpx.AsyncHTTPTransport(
                    verify=verify, trust_env=False, proxy=proxy, limits=_LIMITS
                )
            except (ValueError, httpx.InvalidURL, ImportError) as error:
                raise ConnectionFailed(
                    f"the proxy cannot be used: {type(error).__name__}",
                    hint="HTTPS_PROXY, HTTP_PROXY or ALL_PROXY holds http://HOST:PORT",
                ) from None  # its address may hold a password
        return pools[proxy, tls]

    async def aclose(self) -> None:
        """Close this loop's connections."""
        for pool in self._pools.pop(asyncio.get_running_loop(), {}).values():
            await pool.aclose()


class HttpResponse:
    """A response whose body is read within the cap."""

    def __init__(self, response: httpx.Response, where: str) -> None:
        self._response = response
        self._where = where
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The decoded body. Raises ConnectionFailed when it breaks, BadResponse over 32 MiB."""
        inflate = _inflater(self.headers.get("content-encoding", "identity").lower(), self._where)
        size = 0
        try:
            async with aclosing(cast("AsyncGenerator[bytes, None]", self._response.aiter_raw())) as raws:
                async for raw in raws:
                    for chunk in inflate(raw) if inflate else (raw,):
                        size += len(chunk)
                        if size > MAX_BODY:
                            what = f"{self._where}: the answer is over {MAX_BODY >> 20} MiB"
                            raise BadResponse(what, status=self.status)
                        yield chunk
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise translated(error, self._where) from error


def translated(error: Exception, where: str) -> LlmctlError:
    """Our error for what httpx raised."""
    if isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{where}: no connection in time", hint=HINTS["ConnectionFailed"])
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and "without sending" not in said and "closed" not in said:
        return BadResponse(f"{where}: the answer is not valid HTTP: {said}")
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)):
        return BadResponse(f"{where}: the request cannot be sent: {said}")
    return ConnectionFailed(f"{where}: {_connection(said, error)}")


def _connection(said: str, error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "gaierror":
            return "the host name cannot be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(cause, ConnectionResetError):
            return "the connection was reset"
        if "CERTIFICATE_VERIFY_FAILED" in str(cause) or type(cause).__module__ == "ssl":
            return f"TLS failed: {cause}"
        cause = cause.__cause__ or cause.__context__
    return f"the connection failed: {said}"


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """The address of the proxy for `url`, None for none. Small letters win, as with curl; loopback never has one."""

    def variable(name: str) -> str:
        # In a CGI script HTTP_PROXY is a header of the client's (CVE-2016-5385).
        loud = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
        return environ.get(name) or loud

    parts = urlsplit(url)
    proxy = variable(f"{parts.scheme}_proxy") or variable("all_proxy")
    if not proxy or is_loopback(url):
        return None
    if proxy_bypass_environment(parts.netloc, {"no": variable("no_proxy")}):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _certificates(environ: Mapping[str, str]) -> ssl.SSLContext:
    import ssl

    file, directory = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    try:
        if file or directory:
            return ssl.create_default_context(cafile=file or None, capath=directory or None)
        capath = ssl.get_default_verify_paths().capath
        if capath and _hashed(capath):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(capath=capath)
            return context
    except OSError as error:
        raise ConfigInvalid(
            f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be loaded: {error}", hint="check the variable"
        ) from error
    return httpx.create_ssl_context(trust_env=False)


def _hashed(directory: str) -> bool:
    """Whether OpenSSL can look certificates up in `directory` (it holds links named by hash)."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.name.endswith(".0") for entry in entries)
    except OSError:
        return False


def _inflater(encoding: str, where: str) -> Callable[[bytes], list[bytes]] | None:
    """A function from a compressed chunk to bounded pieces, None for an identity body. We never ask for compression."""
    if encoding in ("identity", ""):
        return None
    if encoding not in ("gzip", "deflate", "x-gzip"):
        raise BadResponse(f"{where}: the answer is compressed in a way that was not asked for ({encoding[:20]!r})")
    engine = zlib.decompressobj(47)  # gzip or zlib, by its own header

    def inflate(chunk: bytes) -> list[bytes]:
        pieces, size = [], 0
        try:
            while chunk and size <= MAX_BODY:
                piece = engine.decompress(chunk, _INFLATE_STEP)
                chunk = engine.unconsumed_tail
                size += len(piece)
                pieces.append(piece)
        except zlib.error as error:
            raise BadResponse(f"{where}: the compressed answer is broken: {error}") from error
        return pieces

    return inflate
