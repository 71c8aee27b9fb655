"""`llmctl embed` end to end: what is read, what is written, and how it ends when it cannot go on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from array import array
from math import sqrt
from typing import TYPE_CHECKING, Any

import pytest
from servers import Exchange, FaultServer, status

from llmctl.run import weights

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = ("embed", "-m", "openai/m")


def vector(text: str) -> list[float]:
    """The vector that the server has for `text`."""
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:3]]


async def embeds(x: Exchange) -> None:
    """A good answer, in floats."""
    texts = x.request.json["input"]
    data = [{"index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
    body = json.dumps({"model": "served", "data": data, "usage": {"prompt_tokens": len(texts)}}).encode()
    await x.respond(200, body, {"content-type": "application/json"})


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(embeds) as running:
        yield running


def rows(out: bytes) -> list[tuple[Any, list[float]]]:
    """The ids and vectors of JSON lines."""
    return [(row["id"], row["vector"]) for row in map(json.loads, out.splitlines())]


def test_a_text_becomes_one_document_and_one_row(cli, server):
    done = cli.to(server).run(*MODEL, "hello", "--json", "--tag", "team=web", "--dimensions", "3")
    assert (done.code, done.err) == (0, "")
    (call,) = cli.calls()
    used = {"cached_input_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0, "estimated": False}
    assert done.json == {
        "model": "openai/m", "served_by": "openai/m", "reported_model": "served", "dimensions": 3,
        "usage": {"input_tokens": 1, "output_tokens": 0, **used}, "cost_usd": None, "saved_usd": 0.0, "cached": 0,
        "calls": [call["id"]],
        "vectors": [{"id": 0, "vector": vector("hello")}],
    }  # fmt: skip
    assert (call["command"], call["state"], call["prompt"], call["answer"]) == ("embed", "ok", "1 to embed: hello", "")
    assert server.requests[0].path == "/embeddings"
    assert server.requests[0].json["dimensions"] == 3


def test_files_are_texts_with_their_names_and_stdin_is_one_where_nothing_else_is_named(cli, server):
    (cli.root / "a.txt").write_text("one\ntwo\n")
    (cli.root / "b.txt").write_text("three")
    done = cli.to(server).run(*MODEL, "zero", "-f", "a.txt", "-f", "-", "-f", "b.txt", "--format", "jsonl", stdin=b"in")
    texts = [(0, "zero"), ("a.txt", "one\ntwo\n"), (2, "in"), ("b.txt", "three")]
    assert rows(done.out) == [(key, vector(text)) for key, text in texts]
    assert rows(cli.run(*MODEL, "--format", "jsonl", stdin=b"a\nb\n").out) == [(0, vector("a\nb\n"))]
    assert rows(cli.run(*MODEL, "x", "--format", "jsonl", stdin=b"unread").out) == [(0, vector("x"))]


def test_lines_are_texts_and_blank_ones_are_none(cli, server):
    (cli.root / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n  \ntwo")
    done = cli.to(server).run(*MODEL, "--lines", "-f", "a.txt", "-f", "-", "--format", "base64", stdin=b"three\n")
    got = [array("f", base64.b64decode(line)).tolist() for line in done.out.splitlines()]
    assert got == [vector(text) for text in ("one", "two", "three")]


def test_json_lines_bring_their_ids(cli, server):
    given = b'"one"\n\n{"text": "two", "id": "x", "more": 1}\n{"id": 9, "text": "three"}\n{"text": "four"}\n'
    done = cli.to(server).run(*MODEL, "--jsonl", "--format", "jsonl", "--batch", "1", stdin=given)
    texts = [(0, "one"), ("x", "two"), (9, "three"), (3, "four")]
    assert rows(done.out) == [(key, vector(text)) for key, text in texts]


@pytest.mark.parametrize("to", ["-o", "pipe"])
def test_a_numpy_file_goes_to_a_file_and_to_a_pipe(cli, server, to):
    words = ("-o", "x.npy") if to == "-o" else ()
    done = cli.to(server).run(*MODEL, "--lines", "--format", "npy", *words, "--batch", "2", stdin=b"a\nb\nc\n")
    assert (done.code, done.err) == (0, "")
    data = (cli.root / "x.npy").read_bytes() if words else done.out
    assert b"'shape': (3, 3)" in data
    assert array("f", data[128:]).tolist() == [number for text in "abc" for number in vector(text)]


def test_no_lines_are_no_vectors(cli, server):
    done = cli.to(server).run(*MODEL, "--lines", "--json", stdin=b"\n\n")
    assert (done.code, done.json["vectors"], done.json["dimensions"]) == (0, [], 0)
    assert cli.run(*MODEL, "--jsonl", "--format", "jsonl", stdin=b"").out == b""
    assert server.requests == []


def test_what_was_written_before_a_failure_stays_and_is_counted(cli):
    with FaultServer([embeds, embeds, status(400, "too odd")]) as server:
        done = cli.to(server).run(
            *MODEL, "--lines", "--format", "jsonl", "--batch", "2", "-j", "1", stdin=b"a\nb\nc\nd\ne\n"
        )
    assert (done.code, [key for key, _ in rows(done.out)]) == (5, [0, 1, 2, 3])
    assert done.lines[0].endswith("too odd (4 vectors were written before it)")


def test_a_hint_names_nothing_that_embed_has_not(cli):
    assert cli.run(*MODEL, "hi").lines[-1] == "hint: set OPENAI_API_KEY, or run `llmctl keys set openai`"
    with FaultServer(status(503)) as server:
        done = cli.to(server).run(*MODEL, "hi")
    assert done.lines[-1] == "hint: try again later, or name another target with -m"


@pytest.mark.parametrize("shape", ["json", "npy"])
def test_a_format_that_is_whole_or_nothing_is_nothing_after_a_failure(cli, shape):
    with FaultServer([embeds, status(400)]) as server:
        done = cli.to(server).run(*MODEL, "--lines", "--format", shape, "--batch", "1", "-j", "1", stdin=b"a\nb\n")
    assert (done.code, done.out) == (5, b"")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "is not JSON"), (b"[" * 100_000, "is not JSON"), (b"7", "holds no text"),
        (b'{"id": 1}', "holds no text"),
        (b'{"text": "x", "id": true}', "the id is neither"), (b'{"text": "x", "id": [1]}', "the id is neither"),
        (b'""', "is empty"), (b"\xff", "is not valid UTF-8"), (b'"a\x00"', "is binary"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_text_is_named_after_what_came_before_it(cli, server, line, what):
    (cli.root / "in.jsonl").write_bytes(b'"good"\n\n' + line + b'\n"late"\n')
    words = ("--jsonl", "-f", "in.jsonl", "--batch", "1", "--format", "jsonl", "-j", "1")
    done = cli.to(server).run(*MODEL, *words)
    assert (done.code, rows(done.out)) == (2, [(0, vector("good"))])
    assert f"--file in.jsonl, line 3 {what}".replace("line 3 the", "line 3: the") in done.err


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("hi", "-m", "openai/m", "--lines"), 2, "TEXT is one text"),
        (("-m", "openai/m", "--lines", "--jsonl"), 2, "exclude each other"),
        (("hi", "-m", " "), 2, "--model is empty"),
        (("hi",), 2, "no model was named"),
        (("hi", "-m", "local"), 2, "has no embeddings"),
        (("hi", "-m", "anthropic/x"), 2, "has no embeddings"),
        (("-m", "openai/m"), 2, "stdin is empty"),
        (("", "-m", "openai/m"), 2, "TEXT is empty"),
        (("-m", "openai/m", "-f", "nowhere"), 2, "No such file"),
        (("-m", "openai/m", "--lines", "-f", "."), 2, "not a regular file"),
        (("-m", "openai/m", "-f", "-", "-f", "-"), 2, "given twice"),
        (("hi", "-m", "openai/m", "--timeout", "0s"), 2, "no time at all"),
        (("hi", "-m", "openai/m", "-o", "no/where"), 2, "--output no/where: No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(cli, server, words, code, what):
    done = cli.to(server).run("embed", *words)
    assert what in done.refused(code)
    assert server.requests == []


PRICED = """
[models.m]
model = "openai/m"
price = { input = 20.0, output = 0.0 }
"""
CORPUS = b"".join(b"line %d\n" % n for n in range(500))


def test_an_unchanged_corpus_sends_nothing_and_needs_no_key(cli, server):
    cli.home.mkdir()
    (cli.home / "config.toml").write_text(PRICED)
    words = ("embed", "-m", "m", "--lines", "--format", "base64")
    first = cli.to(server).run(*words, stdin=CORPUS)
    assert (first.code, first.err, len(server.requests)) == (0, "", 2)
    del cli.environ["OPENAI_API_KEY"]
    again = cli.run(*words, stdin=CORPUS, env={"LLMCTL_OFFLINE": "1"})
    assert (again.code, again.out, again.err) == (0, first.out, "llmctl: cache hit: 500 of 500 vectors\n")
    assert cli.run(*words, "-q", stdin=CORPUS).err == ""
    document = cli.run("embed", "-m", "m", "--lines", "--json", stdin=CORPUS)
    assert (document.err, document.json["cached"], document.json["cost_usd"]) == ("", 500, 0.0)
    assert document.json["saved_usd"] == pytest.approx(0.01)
    assert len(server.requests) == 2
    *asked, hit, _, last = cli.calls()
    assert [call["state"] for call in asked] == ["ok", "ok"]
    assert (hit["state"], hit["cache"], hit["command"], hit["cost_nanousd"]) == ("cached", "exact", "embed", 0)
    assert hit["saved_nanousd"] == sum(call["cost_nanousd"] for call in asked) == 10_000_000
    assert document.json["calls"] == [last["id"]]
    changed = cli.run(*words, stdin=CORPUS + b"one more\n")
    assert "no key" in changed.err.splitlines()[-2]
    assert changed.code == 4


@pytest.mark.parametrize(
    ("words", "env", "requests"),
    [
        ((), {}, 1), (("--cache", "exact"), {"LLMCTL_CACHE": "off"}, 1), ((), {"LLMCTL_CACHE": "off"}, 2),
        (("--cache", "off"), {}, 2), (("--cache", "refresh"), {}, 2), (("--no-log",), {}, 1),
    ],
)  # fmt: skip
def test_the_cache_is_on_unless_something_says_otherwise(cli, server, words, env, requests):
    cli.to(server).run(*MODEL, "a")
    done = cli.run(*MODEL, "a", *words, "--format", "jsonl", env=env)
    assert rows(done.out) == [(0, vector("a"))]
    assert len(server.requests) == requests


@pytest.mark.parametrize(("words", "env"), [(("--no-log",), {}), ((), {"LLMCTL_LOG_CONTENT": "none"})])
def test_where_no_text_is_kept_no_vector_is(cli, server, words, env):
    for _ in range(2):
        assert cli.to(server).run(*MODEL, "a", *words, env=env).err == ""
    assert len(server.requests) == 2


@pytest.mark.parametrize("damage", [b"not a database", b""])
def test_a_cache_that_is_damaged_is_a_miss(cli, server, damage):
    cli.to(server).run(*MODEL, "a")
    for file in cli.home.glob("cache.db*"):
        file.write_bytes(damage)
    done = cli.run(*MODEL, "a", "--format", "jsonl")
    assert (done.code, rows(done.out)) == (0, [(0, vector("a"))])
    assert len(server.requests) == 2


def test_a_file_is_emptied_only_when_its_vectors_have_come(cli, server):
    (cli.root / "v").write_text("of yesterday, and longer than what comes")
    with FaultServer(status(400)) as refusing:
        assert cli.to(refusing).run(*MODEL, "a", "-o", "v", "--format", "jsonl").code == 5
    assert (cli.root / "v").read_text().startswith("of yesterday")
    for shape in ("jsonl", "npy", "json"):
        assert cli.to(server).run(*MODEL, "a", "-o", "v", "--format", shape).code == 0
        assert b"yesterday" not in (cli.root / "v").read_bytes()
    assert json.loads((cli.root / "v").read_bytes())["vectors"]


def test_json_is_one_format_and_no_other(cli):
    done = cli.run(*MODEL, "hi", "--json", "--format", "npy")
    assert (done.code, done.out) == (2, b"")
    assert "exclude each other" in json.loads(done.err)["error"]["message"]


def test_an_error_under_json_is_one_line_of_json(cli):
    with FaultServer(status(401)) as server:
        done = cli.to(server).run(*MODEL, "hi", "--json")
    assert (done.code, done.out) == (4, b"")
    assert json.loads(done.err)["error"]["type"] == "Unauthorized"


@pytest.mark.parametrize("shape", ["jsonl", "npy"])
def test_a_closed_pipe_is_silent_and_exit_141(cli, server, shape):
    many = b"".join(b"%d\n" % n for n in range(20_000))
    reader, writer = os.pipe()
    os.close(reader)
    done = cli.to(server).run(*MODEL, "--lines", "--format", shape, stdin=many, stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (141, "")
    assert {call["state"] for call in cli.calls()} <= {"ok", "cancelled"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_every_batch_that_is_open(cli, number, code):
    with FaultServer("silent") as server:
        process = cli.to(server).start(*MODEL, "--lines", "--batch", "1", "-j", "3", stdin=subprocess.PIPE)
        with process:
            process.stdin.write(b"a\nb\nc\n")
            process.stdin.flush()
            server.wait_for(3)
            process.send_signal(number)
            assert process.wait(60) == code
            assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert [(call["state"], call["exit_code"]) for call in cli.calls()] == [("cancelled", code)] * 3


def test_a_signal_while_more_lines_are_waited_for_ends_it_after_what_has_come(cli, server):
    words = ("--lines", "--format", "jsonl", "--batch", "1")
    with cli.to(server).start(*MODEL, *words, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert rows(process.stdout.readline()) == [(0, vector("a"))]  # though stdin stays open
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert [call["state"] for call in cli.calls()] == ["ok"]


def test_vectors_come_while_lines_still_go_in(cli, server):
    with cli.to(server).start(*MODEL, "--lines", "--format", "base64", stdin=subprocess.PIPE) as process:
        for k in range(20):
            process.stdin.write(b"".join(b"%d\n" % (256 * k + n) for n in range(256)))
            process.stdin.flush()
            assert len([process.stdout.readline() for _ in range(256)]) == 256
        process.stdin.close()
        assert process.wait(60) == 0
    assert len(server.requests) == 20


# ---------------------------------------------------------------- a server that is not ours

PARTNER = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.embedding = True
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.n_ctx, params.n_parallel, params.n_threads_http = 512, 1, 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup = params.fit_params = params.ui = False
params.verbosity, params.cache_ram_mib = -1, 0
params.hostnames, params.port = ["127.0.0.1"], 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_llama_cpps_own_server_gives_vectors_that_mean_something(cli, weights_dir):
    command = [sys.executable, "-c", PARTNER, str(weights.find(weights.DEFAULT, weights_dir))]
    texts = [
        "The cat sat on the mat.",
        "A cat is sitting on a mat.",
        "Quarterly revenue fell by 3%.",
        "The cat sat on the mat.",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as partner:
        assert partner.stdout is not None
        address = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": partner.stdout.readline().strip() + "/v1"}
        words = ("--lines", "--json", "--batch", "2")
        done = cli.run(*MODEL, *words, stdin="\n".join(texts).encode(), env=address)
        wrong = cli.run(*MODEL, "hi", "--dimensions", "5", env=address)
        assert partner.stdin is not None
        partner.stdin.close()  # it leaves when its stdin ends
    assert (done.code, done.err) == (0, "")
    assert done.json["dimensions"] == 576
    assert done.json["usage"]["input_tokens"] > 20
    assert done.json["usage"]["estimated"] is False
    first, like, other, same = (row["vector"] for row in done.json["vectors"])
    assert cosine(first, same) == pytest.approx(1.0, abs=1e-5)
    assert cosine(first, other) < cosine(first, like) < 0.9999
    assert "576 numbers, not 5" in wrong.refused(6)  # it leaves `dimensions` aside without a word


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / sqrt(sum(a * a for a in one) * sum(b * b for b in other))
