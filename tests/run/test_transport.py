"""The real transport against a server that misbehaves in every way we know: each ends in one error of ours, in time."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers import (
    BEHAVIOURS,
    DONE,
    FINISH,
    Exchange,
    FaultServer,
    Proxy,
    completion,
    gzipped,
    pings,
    raw,
    redirect,
    sse,
    status,
    stream,
    tls_context,
    token,
    tokens,
    words,
)

from llmctl import Client
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import BadResponse, ConnectionFailed, LlmctlError, TimedOut
from llmctl.run.transport import MAX_BODY, HttpTransport, proxy_of
from llmctl.testing import MemoryLedger
from llmctl.wire.base import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

KEY = "canary-7f3a9c2e51d84b06"
PROMPT = "canary prompt 4b1f"


def client_for(url: str, environ: Mapping[str, str] | None = None, **timeouts: str) -> Client:
    config: dict[str, Any] = {
        "models": {"m": {"model": "openai/x", "api_base": url, "api_key": KEY}},
        "timeout": {"connect": "2s", "first_token": "20s", "idle": "20s", "total": "30s", **timeouts},
    }
    if url.startswith("http:") and "127.0.0.1" not in url:
        config["models"]["m"]["allow_http"] = True
    return Client(config, environ=environ or {}, ledger=MemoryLedger())


def failure(url: str, environ: Mapping[str, str] | None = None, **timeouts: str) -> LlmctlError:
    """The error that asking once ends in; nothing of it may hold the key."""
    with client_for(url, environ, **timeouts) as client:
        with pytest.raises(LlmctlError) as caught:
            client.complete(PROMPT, model="m", retries=0)
        (row,) = client.ledger.rows.values()  # type: ignore[attr-defined]
        (attempts,) = client.ledger.attempts.values()  # type: ignore[attr-defined]
    error = caught.value
    assert row.state in ("failed", "incomplete")
    assert row.exit_code == error.exit_code
    told = (error.message, error.hint, error.request_id, *error.args, *traceback.format_exception(error))
    assert KEY not in f"{told} {row} {attempts}"
    return error


def text_of(url: str, environ: Mapping[str, str] | None = None) -> str:
    with client_for(url, environ) as client:
        return client.complete(PROMPT, model="m", retries=0).text


async def body_of(transport: HttpTransport, url: str) -> tuple[int, bytes]:
    async with transport.send(HttpRequest("POST", url, {}, b"{}"), HERE, connect_s=2.0) as response:
        return response.status, b"".join([chunk async for chunk in response.chunks()])


HERE = Deployment("d", Provider("openai"), "x")


# ---------------------------------------------------------------- every fault, one error


WHOLE = {
    "ok": "t0 t1 t2 t3 t4 ",
    "json": "whole",
    "no_done": "ab",
    "no_usage": "ab",
    "done_only": "ab",
    "duplicates": "ab",
    "crlf": "ab",
    "bom": "ab",
    "bad_event": "ab",
    "http10": "whole",
    "continue": "whole",
}

FAULTS = {
    "garbage": ("BadResponse", 6),
    "html": ("BadResponse", 6),
    "empty": ("BadResponse", 6),
    "empty_stream": ("BadResponse", 6),
    "no_content": ("StreamTruncated", 8),
    "depth": ("BadResponse", 6),
    "bad_chunks": ("BadResponse", 6),
    "huge_chunk": ("BadResponse", 6),
    "length_short": ("BadResponse", 6),
    "bad_status": ("BadResponse", 6),
    "switching": ("BadResponse", 6),
    "long_line": ("BadResponse", 6),
    "endless": ("BadResponse", 6),
    "endless_stream": ("BadResponse", 6),
    "gzip_bomb": ("BadResponse", 6),
    "header_bomb": ("BadResponse", 6),
    "error_in_200": ("Unavailable", 6),
    "error_event": ("Unavailable", 6),
    "bad_gateway": ("Unavailable", 6),
    "endless_error": ("Unavailable", 6),
    "echo": ("Unauthorized", 4),
    "filtered": ("ContentFiltered", 5),
    "refuse": ("ConnectionFailed", 6),
    "reset": ("ConnectionFailed", 6),
    "close": ("ConnectionFailed", 6),
    "reset_body": ("ConnectionFailed", 6),
    "length_long": ("ConnectionFailed", 6),
    "not_http": ("ConnectionFailed", 6),
    "tls_garbage": ("ConnectionFailed", 6),
    "nothing": ("StreamTruncated", 8),
    "cut": ("StreamTruncated", 8),
    "cut_reset": ("StreamTruncated", 8),
    "cut_chunked": ("StreamTruncated", 8),
}

HANGS = {
    "silent": {"first_token": "0.3s"},
    "slow_head": {"first_token": "0.3s"},
    "drip": {"first_token": "0.3s"},
    "pings": {"first_token": "0.3s"},
    "stall": {"idle": "0.3s"},
}


def test_every_behaviour_of_the_server_is_asked_about() -> None:
    assert set(BEHAVIOURS) - {"length"} == set(WHOLE) | (set(FAULTS) - {"refuse"}) | set(HANGS)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_answer_is_an_answer(name: str) -> None:
    with FaultServer(name) as server:
        assert text_of(server.url) == WHOLE[name]
        (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("llmctl/")
    assert "cookie" not in request.headers


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_its_class_and_exit_code(name: str) -> None:
    with FaultServer(name) as server:
        error = failure(server.url)
        assert (error.kind, error.exit_code) == FAULTS[name], error.message
        assert len(server.requests) <= 1
    assert error.message.startswith("openai/x: ")
    assert error.message.isprintable()
    assert len(error.message) < 500


@pytest.mark.parametrize("name", HANGS)
def test_server_that_hangs_is_left_by_the_clock(name: str) -> None:
    with FaultServer(name) as server:
        error = failure(server.url, **HANGS[name])
        assert (error.kind, error.exit_code) == ("TimedOut", 7), error.message
        server.wait_for(1, "closed")  # and it is hung up on


@pytest.mark.parametrize("name", ["silent", "drip", "stall", "endless_stream", "pings"])
def test_total_deadline_bounds_everything(name: str) -> None:
    with FaultServer(name) as server:
        began = time.monotonic()
        error = failure(server.url, total="0.3s")
        assert time.monotonic() - began < 2
        assert (error.kind, error.exit_code) in (("DeadlineExceeded", 7), ("BadResponse", 6)), error.message


def test_comments_do_not_keep_an_answer_alive() -> None:
    with FaultServer(pings(0.02, token("a"))) as server:
        error = failure(server.url, idle="0.3s")
    assert (error.kind, error.partial_text) == ("TimedOut", "a")


def test_finish_reason_and_then_pings_for_ever_is_whole() -> None:
    with FaultServer(pings(0.02, token("a"), FINISH)) as server, client_for(server.url, idle="0.3s") as client:
        assert client.complete("hi", model="m").text == "a"


@pytest.mark.parametrize("end", [b"x" * (2 << 20), b'\n\ndata: {"error": {"message": "late"}}\n\n'])
def test_what_follows_the_finish_reason_hurts_nobody(end: bytes) -> None:
    with FaultServer(sse(token("a"), FINISH, end)) as server:
        assert text_of(server.url) == "a"


def test_reset_after_the_finish_reason_hurts_nobody() -> None:
    with FaultServer(sse(token("a"), FINISH, reset=True)) as server:
        assert text_of(server.url) == "a"


# ---------------------------------------------------------------- sizes


GROWTH = """
import resource, sys
from llmctl import Client
from llmctl.testing import MemoryLedger
config = {"models": {"m": {"model": "openai/x", "api_base": "http://127.0.0.1:1", "api_key": "k"}}}
def ask(url):
    config["models"]["m"]["api_base"] = url
    with Client(config, environ={}, ledger=MemoryLedger()) as client:
        try:
            return client.complete("hi", model="m", retries=0).text
        except Exception as error:
            return type(error).__name__
ask(sys.argv[1])
for url in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(ask(url), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_no_bomb_takes_more_memory_than_the_cap_allows() -> None:
    bombs = {"header_bomb": 10, "endless_error": 10, "long_line": 20, "gzip_bomb": 100, "endless": 100}
    servers = [FaultServer(name).__enter__() for name in ("ok", *bombs)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, *(server.url for server in servers)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    finally:
        for server in servers:
            server.__exit__()
    unit = 1024 if sys.platform == "darwin" else 1
    for line, (name, allowed_mb) in zip(done.stdout.splitlines(), bombs.items(), strict=True):
        kind, grown = line.split()
        assert kind == FAULTS[name][0]
        assert int(grown) / unit / 1024 <= allowed_mb, f"{name}: {line}"


def test_body_of_just_the_cap_is_read_and_one_byte_more_is_not() -> None:
    async def sizes() -> list[int | str]:
        transport, found = HttpTransport({}), list[int | str]()
        for size in (MAX_BODY, MAX_BODY + 1):
            with FaultServer(raw(bytes(size))) as server:
                try:
                    found.append(len((await body_of(transport, server.url))[1]))
                except BadResponse as error:
                    found.append(error.message)
        await transport.aclose()
        return found

    assert asyncio.run(sizes()) == [MAX_BODY, "openai/x: the answer is over 32 MiB"]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_compression_that_was_not_asked_for_is_understood(encoding: str) -> None:
    body = completion("whole")
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body)
    headers = {"content-type": "application/json", "content-encoding": encoding}
    with FaultServer(raw(packed, 200, headers)) as server:
        assert text_of(server.url) == "whole"


@pytest.mark.parametrize("extra", [-1, 0, 1, 100, 257, 258, 259, 300])
def test_no_byte_of_a_compressed_body_is_lost(extra: int) -> None:
    size = (1 << 20) + extra

    async def read() -> int:
        transport = HttpTransport({})
        with FaultServer(gzipped(bytes(size))) as server:
            found = len((await body_of(transport, server.url))[1])
        await transport.aclose()
        return found

    assert asyncio.run(read()) == size


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"x", "br"), (b"not packed", "gzip"), (gzip.compress(b"x")[:-4] + b"....", "gzip"), (b"x", "\x01")],
)
def test_body_that_cannot_be_unpacked_is_bad_response(body: bytes, encoding: str) -> None:
    with FaultServer(raw(body, 200, {"content-encoding": encoding})) as server:
        assert failure(server.url).kind == "BadResponse"


def test_status_of_a_packed_refusal_still_counts() -> None:
    with FaultServer(raw(b"x", 429, {"content-encoding": "br", "retry-after": "7"})) as server:
        error = failure(server.url)
    assert (error.kind, error.status, error.retry_after_s) == ("RateLimited", 429, 7.0)


# ---------------------------------------------------------------- where it goes


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_is_never_followed(code: int) -> None:
    with FaultServer("ok") as other, FaultServer(redirect(code, f"{other.url}/chat/completions")) as server:
        error = failure(server.url)
        assert (error.kind, error.status) == ("BadResponse", code)
        assert other.url in error.message
        assert (other.connections, len(server.requests)) == (0, 1)


@pytest.mark.parametrize("room", [0, 170, 185, 190, 195, 199])
def test_key_in_a_redirect_is_masked_wherever_it_is_cut(room: int) -> None:
    with FaultServer(redirect(302, f"https://x.example/{'p' * room}{KEY}")) as server:
        error = failure(server.url)
    assert KEY[:8] not in error.message


@pytest.mark.parametrize("room", [0, 170, 185, 190, 195])
@pytest.mark.parametrize("kind", ["html", "plain200", "json", "plain500"])
def test_key_in_a_body_is_masked_wherever_it_is_cut(kind: str, room: int) -> None:
    said = ("p" * room + KEY).encode()
    behaviours = {
        "html": raw(b"<html>" + said, 200, {"content-type": "text/html"}),
        "plain200": raw(said),
        "json": status(500, said.decode()),
        "plain500": raw(said, 500, {"content-type": "text/plain"}),
    }
    with FaultServer(behaviours[kind]) as server:
        error = failure(server.url)
    assert KEY[:8] not in error.message


def test_key_in_a_header_of_a_good_answer_reaches_no_row() -> None:
    headers = {"content-type": "application/json", "x-request-id": f"req-{KEY}"}
    body = completion("fine", system_fingerprint=f"fp-{KEY}").replace(b"served-model", f"m-{KEY}".encode())
    with FaultServer(raw(body, 200, headers)) as server, client_for(server.url) as client:
        answer = client.complete("hi", model="m")
    assert KEY not in f"{answer.record} {answer.attempts} {answer.as_json()}"
    assert answer.attempts[0].request_id == "req-***"


def test_key_in_a_broken_header_is_masked_in_the_traceback_too() -> None:
    from servers import wire

    with FaultServer(wire(b"HTTP/1.1 200 OK\r\nx-echo : " + KEY.encode() + b"\r\n\r\n")) as server:
        assert failure(server.url).kind == "BadResponse"


def test_cookies_of_one_answer_are_not_sent_with_the_next() -> None:
    headers = {"content-type": "application/json", "set-cookie": "session=1; Path=/"}
    with FaultServer(raw(completion("a"), 200, headers)) as server, client_for(server.url) as client:
        for _ in range(2):
            client.complete("hi", model="m")
        assert not any("cookie" in request.headers for request in server.requests)


def test_name_that_cannot_be_looked_up_is_connection_failed() -> None:
    async def ask() -> None:
        transport = HttpTransport({})
        try:
            await body_of(transport, "http://" + "a" * 70 + ".invalid/")
        finally:
            await transport.aclose()

    with pytest.raises(ConnectionFailed):
        asyncio.run(ask())


@pytest.mark.parametrize("header", ["caf\u00e9", "line\r\nx-injected: 1", "\x00"])
def test_header_that_cannot_be_sent_is_refused_and_not_sent(header: str) -> None:
    async def ask() -> None:
        transport = HttpTransport({})
        try:
            async with transport.send(HttpRequest("POST", server.url, {"x": header}, b"{}"), HERE, connect_s=2.0):
                pass
        finally:
            await transport.aclose()

    with FaultServer("ok") as server:
        with pytest.raises(LlmctlError):
            asyncio.run(ask())
        assert server.requests == []


def test_connection_that_is_never_made_is_timed_out() -> None:
    with FaultServer("silent") as server:
        error = failure(server.url.replace("http", "https"), connect="0.3s")
    assert error.kind == "TimedOut"
    assert "no connection in time" in error.message


def test_many_calls_at_once_do_not_wait_for_each_other() -> None:
    async def ask(client: Client) -> list[BaseException | None]:
        calls = [client.acomplete("hi", model="m", retries=0) for _ in range(150)]
        gathered = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(server.wait_for, 150)
        gathered.cancel()
        await asyncio.gather(gathered, return_exceptions=True)
        await client.aclose()
        return []

    with FaultServer("silent") as server, client_for(server.url) as client:
        asyncio.run(ask(client))
        assert len(server.requests) == 150


def test_cancelled_call_hangs_up() -> None:
    async def ask(client: Client) -> None:
        task = asyncio.create_task(client.acomplete("hi", model="m"))
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_for, 1, "closed")
        await client.aclose()

    with FaultServer("stall") as server, client_for(server.url) as client:
        asyncio.run(ask(client))


# ---------------------------------------------------------------- TLS


def test_self_signed_certificate_is_refused(certificates: Mapping[str, Path]) -> None:
    with FaultServer("ok", tls=tls_context(certificates["self"])) as server:
        error = failure(server.url)
        assert (error.kind, server.requests) == ("ConnectionFailed", [])
    assert "TLS failed" in error.message


def test_certificate_of_an_unknown_authority_is_refused(certificates: Mapping[str, Path]) -> None:
    with FaultServer("ok", tls=tls_context(certificates["good"])) as server:
        assert failure(server.url).kind == "ConnectionFailed"
        assert server.requests == []


def test_authority_of_ssl_cert_file_is_trusted(certificates: Mapping[str, Path]) -> None:
    environ = {"SSL_CERT_FILE": str(certificates["ca"])}
    with FaultServer("ok", tls=tls_context(certificates["good"])) as server:
        assert text_of(server.url, environ) == "t0 t1 t2 t3 t4 "


def test_certificate_for_another_name_is_refused(certificates: Mapping[str, Path]) -> None:
    environ = {"SSL_CERT_FILE": str(certificates["ca"])}
    with FaultServer("ok", tls=tls_context(certificates["other"])) as server:
        assert failure(server.url, environ).kind == "ConnectionFailed"
        assert server.requests == []


def test_ssl_cert_file_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    for path in (tmp_path / "absent", tmp_path / "ca.crt", tmp_path):
        error = failure("https://127.0.0.1:1", {"SSL_CERT_FILE": str(path)})
        assert error.kind == "ConfigInvalid"
        assert "SSL_CERT_FILE" in error.message


# ---------------------------------------------------------------- proxies


def test_https_goes_through_a_tunnel_that_sees_neither_prompt_nor_key(certificates: Mapping[str, Path]) -> None:
    with FaultServer("ok", tls=tls_context(certificates["good"])) as server, Proxy(server.port) as proxy:
        environ = {"SSL_CERT_FILE": str(certificates["ca"]), "HTTPS_PROXY": proxy.url}
        assert text_of("https://api.example/v1", environ) == "t0 t1 t2 t3 t4 "
        assert proxy.targets == ["api.example:443"]
        assert KEY not in str(proxy.requests)
        assert PROMPT in server.requests[0].json["messages"][0]["content"]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_plain_http_abroad_goes_through_the_proxy(variable: str) -> None:
    with Proxy(None, "ok") as proxy:
        assert text_of("http://api.example/v1", {variable: proxy.url}) == "t0 t1 t2 t3 t4 "
        assert proxy.targets == ["http://api.example/v1/chat/completions"]


def test_credentials_of_a_proxy_go_to_it_and_into_no_error() -> None:
    with Proxy(None, status(407)) as proxy:
        environ = {"HTTP_PROXY": proxy.url.replace("//", f"//user:{KEY}@")}
        failure("http://api.example/v1", environ)
        assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")
    failure("https://api.example/v1", {"HTTPS_PROXY": f"http://user:{KEY}@127.0.0.1:1"})


@pytest.mark.parametrize("first_abroad", [True, False])
def test_loopback_never_goes_through_a_proxy(certificates: Mapping[str, Path], first_abroad: bool) -> None:
    with FaultServer("ok", tls=tls_context(certificates["good"])) as server, Proxy(server.port) as proxy:
        environ = {
            "SSL_CERT_FILE": str(certificates["ca"]), "HTTPS_PROXY": proxy.url, "HTTP_PROXY": proxy.url,
        }  # fmt: skip

        async def ask() -> None:
            transport = HttpTransport(environ)
            for url in ("https://api.example/", server.url)[:: 1 if first_abroad else -1]:
                await body_of(transport, url)
            await transport.aclose()

        asyncio.run(ask())
        assert proxy.targets == ["api.example:443"]
        with FaultServer("ok") as plain:
            text_of(plain.url, environ)
        assert proxy.targets == ["api.example:443"]


def test_proxies_of_the_process_do_not_count_where_an_environment_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(None, "ok") as proxy, FaultServer("ok") as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        # 0.0.0.0 is not loopback by name, and yet reaches this machine.
        assert text_of(server.url.replace("127.0.0.1", "0.0.0.0"), {"PATH": "/bin"}) == "t0 t1 t2 t3 t4 "
        assert proxy.targets == []


def test_no_proxy_goes_straight() -> None:
    with Proxy(None, "ok") as proxy, FaultServer("ok") as server:
        environ = {"HTTP_PROXY": proxy.url, "NO_PROXY": "0.0.0.0"}
        assert text_of(server.url.replace("127.0.0.1", "0.0.0.0"), environ) == "t0 t1 t2 t3 t4 "
        assert proxy.targets == []


@pytest.mark.parametrize(
    "value", ["gopher://127.0.0.1:1", "http://[::1", "http://127.0.0.1:port", "socks5://127.0.0.1:1"]
)
def test_proxy_that_cannot_be_used_is_said(value: str) -> None:
    error = failure("https://api.example/v1", {"HTTPS_PROXY": value})
    assert error.kind == "ConnectionFailed"
    assert "HTTPS_PROXY" in error.message + error.hint


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://a.example/", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ("https://a.example/", {"HTTPS_PROXY": "", "ALL_PROXY": "http://all:1"}, "http://all:1"),
        ("https://a.example/", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://a.example/", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),  # httpoxy, CVE-2016-5385
        ("http://a.example/", {"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example"}, None),
        ("https://x.a.example/", {"HTTPS_PROXY": "http://p:1", "no_proxy": "b.example, .a.example"}, None),
        ("https://xa.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("https://a.example:8443/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:8443"}, None),
        ("http://127.0.0.1:1/", {"ALL_PROXY": "http://p:1"}, None),
        ("https://localhost/", {"ALL_PROXY": "http://p:1"}, None),
    ],
)
def test_which_proxy(url: str, environ: dict[str, str], expected: str | None) -> None:
    assert proxy_of(url, environ) == expected


# ---------------------------------------------------------------- event loops


def test_one_transport_serves_several_event_loops() -> None:
    with FaultServer("json") as server:
        transport = HttpTransport({})

        async def twice() -> None:
            for _ in range(2):
                await body_of(transport, server.url)
            await transport.aclose()

        asyncio.run(twice())
        asyncio.run(twice())
        assert len(server.requests) == 4


def test_answer_of_another_request_is_never_given() -> None:
    async def twice(x: Exchange) -> None:
        x.close = False
        for text in ("first", "stale"):
            body = completion(text)
            await x.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            await x.write(b"content-length: %d\r\n\r\n" % len(body) + body)

    with FaultServer(twice, raw(completion("second"))) as server, client_for(server.url) as client:
        assert [client.complete("hi", model="m").text for _ in range(2)] == ["first", "second"]


def test_response_left_in_the_middle_closes_the_connection() -> None:
    async def leave() -> None:
        transport = HttpTransport({})
        async with transport.send(HttpRequest("POST", server.url, {}, b"{}"), HERE, connect_s=2.0) as response:
            async for _ in response.chunks():
                break
        await asyncio.to_thread(server.wait_for, 1, "closed")
        await transport.aclose()

    with FaultServer("endless_stream") as server:
        asyncio.run(leave())


def test_handshake_that_never_ends_is_ended_by_the_connect_timeout() -> None:
    async def connect() -> None:
        transport = HttpTransport({})
        request = HttpRequest("POST", server.url.replace("http", "https"), {}, b"{}")
        try:
            async with asyncio.timeout(5), transport.send(request, HERE, connect_s=0.2):
                pass
        finally:
            await transport.aclose()

    with FaultServer("silent") as server, pytest.raises(TimedOut):
        asyncio.run(connect())


def test_stream_arrives_piece_by_piece() -> None:
    """The first event is in the caller's hands while the server still holds the second back."""

    async def behave(x: Any) -> None:
        await x.stream_head()
        await x.write(token("a"))
        await asyncio.to_thread(held.wait, 20)
        for piece in (token("b"), FINISH, DONE):
            await x.write(piece)

    held = threading.Event()

    async def read(client: Client) -> str:
        text = ""
        async for event in client.astream("hi", model="m"):
            text += event.text
            held.set()
        await client.aclose()
        return text

    with FaultServer(behave) as server, client_for(server.url) as client:
        assert asyncio.run(read(client)) == "ab"


def test_large_prompt_reaches_the_server_whole() -> None:
    prompt = "\u20ac word " * 300_000
    with FaultServer(tokens(1)) as server, client_for(server.url) as client:
        client.complete(prompt, model="m")
        assert server.requests[0].json["messages"][0]["content"] == prompt


def test_server_that_answers_before_reading_the_prompt_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            body = b'{"error": {"message": "too large"}}'
            connection.sendall(b"HTTP/1.1 413 No\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            while connection.recv(1 << 20):
                pass
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with client_for(url) as client, pytest.raises(LlmctlError) as caught:
            client.complete("word " * 100_000, model="m", retries=0)
        thread.join()
    assert caught.value.kind == "ContextExceeded"


def test_words_of_the_server_are_those_we_read() -> None:
    with FaultServer(stream(*words(50))) as server:
        assert text_of(server.url) == "".join(words(50))


# ---------------------------------------------------------------- a server that is not ours


@pytest.fixture(scope="module")
def partner(llama_cpp: Callable[[str], AbstractContextManager[str]]) -> Iterator[str]:
    """The API base of llama.cpp's own server."""
    with llama_cpp(KEY) as address:
        yield f"{address}/v1"


def test_llama_cpp_streams_with_usage(partner: str) -> None:
    with client_for(partner) as client:
        stream = client.stream("Say hi.", model="m", max_tokens=8, temperature=0.0)
        texts = [event.text for event in stream if event.text]
    answer = stream.answer
    assert answer is not None
    assert (answer.text, len(texts) > 1) == ("".join(texts), True)
    assert (answer.usage.output_tokens, answer.usage.estimated) == (8, False)
    assert answer.usage.input_tokens > 0
    assert (answer.finish_reason, answer.record.exit_code) == ("length", 0)
    assert answer.reported_model == "smollm2"


def test_llama_cpp_answers_with_a_json_object(partner: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with client_for(partner) as client:
        answer = client.complete("Give n as JSON.", model="m", schema=schema, max_tokens=30, temperature=0.0)
    assert answer.text.lstrip().startswith("{")


def test_llama_cpp_without_streaming_is_read_too(partner: str) -> None:
    with client_for(partner) as client:
        answer = client.complete("Say hi.", model="m", max_tokens=4, extra={"stream": False, "stream_options": None})
    assert answer.text
    assert (answer.usage.output_tokens, answer.usage.estimated) == (4, False)


@pytest.mark.parametrize(
    ("change", "kind", "exit_code"),
    [
        ({"key": "wrong"}, "Unauthorized", 4),
        ({"path": "/nowhere"}, "ModelNotFound", 5),
        ({"prompt": "word " * 3000}, "ContextExceeded", 5),
        ({"extra": {"messages": "none"}}, "InvalidRequest", 5),
    ],
)
def test_llama_cpp_refuses_as_our_classes_say(partner: str, change: Any, kind: str, exit_code: int) -> None:
    address, key = partner + change.get("path", ""), change.get("key", KEY)
    config = {"models": {"m": {"model": "openai/x", "api_base": address, "api_key": key}}}
    with Client(config, environ={}, ledger=MemoryLedger()) as client, pytest.raises(LlmctlError) as caught:
        client.complete(change.get("prompt", "hi"), model="m", extra=change.get("extra", {}), max_tokens=4)
    assert (caught.value.kind, caught.value.exit_code) == (kind, exit_code), caught.value.message
    assert len(caught.value.attempts) == 1
