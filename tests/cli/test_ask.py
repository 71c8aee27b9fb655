"""`ask` as its users meet it: what comes out where, exit codes, the JSON document, and the row that is left behind."""

from __future__ import annotations

import json

import pytest
from servers import DONE, FINISH, FaultServer, completion, raw, status, stream, token

from llmctl.cli import ask
from llmctl.core import catalog

from .conftest import KEY

DOCUMENT = [
    *("id", "text", "model", "served_by", "reported_model", "provider", "deployment", "finish_reason", "tool_calls"),
    *("parsed", "usage", "cost_usd", "saved_usd", "latency_ms", "first_token_ms", "overhead_ms", "waited_ms", "cache"),
    *("fallback", "attempts", "route"),
]
USAGE = [
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "estimated"),
]
ATTEMPT = [
    *("n", "deployment", "provider", "model", "role", "outcome", "status", "latency_ms", "input_tokens"),
    *("output_tokens", "cost_usd", "error"),
]
ERROR = ["type", "message", "hint", "provider", "model", "status", "retry_after", "partial_text", "attempts"]

# behaviour -> exit code, error class, state of the row, text on stdout
ENDS = {
    "ok": (stream("whole"), 0, None, "ok", b"whole\n"),
    "400": (status(400), 5, "InvalidRequest", "failed", b""),
    "401": (status(401), 4, "Unauthorized", "failed", b""),
    "403": (status(403), 4, "Unauthorized", "failed", b""),
    "404": (status(404), 5, "ModelNotFound", "failed", b""),
    "413": (status(413), 5, "ContextExceeded", "failed", b""),
    "429": (status(429), 6, "RateLimited", "failed", b""),
    "quota": (status(429, type="insufficient_quota"), 6, "QuotaExhausted", "failed", b""),
    "500": (status(500), 6, "Unavailable", "failed", b""),
    "529": (status(529), 6, "Unavailable", "failed", b""),
    "reset": ("reset", 6, "ConnectionFailed", "failed", b""),
    "refuse": ("refuse", 6, "ConnectionFailed", "failed", b""),
    "garbage": ("garbage", 6, "BadResponse", "failed", b""),
    "empty": ("empty", 6, "BadResponse", "failed", b""),
    "silent": ("silent", 7, "DeadlineExceeded", "failed", b""),
    "stall": ("stall", 8, "DeadlineExceeded", "incomplete", b"t0 t1 t2 \n"),
    "cut": ("cut", 8, "StreamTruncated", "incomplete", b"t0 t1 t2 \n"),
    "length": ("length", 8, None, "incomplete", b"a\n"),
    "filtered": ("filtered", 5, "ContentFiltered", "failed", b"a\n"),
}


@pytest.mark.parametrize(("behaviour", "code", "kind", "state", "out"), ENDS.values(), ids=ENDS.keys())
def test_each_way_to_end_has_its_exit_code_its_text_and_its_row(cli, behaviour, code, kind, state, out):
    with FaultServer(behaviour) as server:
        done = cli.to(server).ask("hi", "--timeout", "500ms" if kind == "DeadlineExceeded" else "30s")
    assert (done.code, done.out) == (code, out), done.err
    assert (done.err == "") == (code == 0)
    assert code == 0 or done.lines[0].startswith("llmctl: error: openai/m: ")
    assert len(done.lines) <= 4
    assert "Traceback" not in done.err
    assert cli.ending()[:3] == (state, code, kind)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [(b, kind) for b, code, kind, *_ in ENDS.values() if code and kind],
    ids=[name for name, end in ENDS.items() if end[1] and end[2]],
)
def test_with_json_an_error_is_one_json_line_and_stdout_is_empty(cli, behaviour, kind):
    with FaultServer(behaviour) as server:
        done = cli.to(server).ask("hi", "--json", "--timeout", "500ms" if kind == "DeadlineExceeded" else "30s")
    assert (done.out, len(done.lines)) == (b"", 1)
    error = json.loads(done.err)["error"]
    assert list(error) == ERROR
    assert error["type"] == kind
    assert error["provider"] == "openai"
    assert [list(attempt) for attempt in error["attempts"]] == [ATTEMPT] * len(error["attempts"])
    assert len(error["attempts"]) == 1


def test_a_json_error_holds_the_partial_text_and_the_row_has_it_too(cli):
    with FaultServer("cut") as server:
        done = cli.to(server).ask("hi", "--json")
    assert json.loads(done.err)["error"]["partial_text"] == "t0 t1 t2 "
    assert cli.ending() == ("incomplete", 8, "StreamTruncated", "t0 t1 t2 ")


def test_a_json_error_says_what_the_provider_asked_for(cli):
    with FaultServer(status(429, headers={"retry-after": "77"})) as server:
        error = json.loads(cli.to(server).ask("hi", "--json").err)["error"]
    assert (error["status"], error["retry_after"]) == (429, 77.0)


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("no newline", b"no newline\n"),
        ("one newline\n", b"one newline\n"),
        ("two\n\n", b"two\n\n"),
        ("  spaces\ttabs \r\n", b"  spaces\ttabs \r\n"),
        ("\x1b[31mred\x1b[0m\x07", b"\x1b[31mred\x1b[0m\x07\n"),
        ("żółć 漢字 😀 \u202e", "żółć 漢字 😀 \u202e\n".encode()),
        ("x" * 500, b"x" * 500 + b"\n"),
    ],
)
def test_stdout_is_the_text_byte_for_byte_and_a_newline_if_there_is_none(cli, said, printed):
    pieces = [said[i : i + 3] for i in range(0, len(said), 3)]
    with FaultServer(stream(*pieces)) as server:
        for words in (("--cache", "off"), ("--no-stream",), ("-q",)):  # the last one is answered from the cache
            done = cli.to(server).ask("hi", *words)
            assert (done.code, done.out, done.err) == (0, printed, "")
    assert [call["state"] for call in cli.calls()] == ["ok", "ok", "cached"]


@pytest.mark.parametrize(
    "env",
    [
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"NO_COLOR": "1"},
        {"TERM": "dumb"},
        {"FORCE_COLOR": "1"},
    ],
    ids=" ".join,
)
def test_no_locale_and_no_colour_setting_changes_a_byte_on_either_way(cli, env):
    text = "zażółć 漢 😀"
    with FaultServer(stream(text)) as server:
        done = cli.to(server).ask(text, "-s", text, "--tag", f"k={text}", stdin=text.encode(), env=env)
        assert (done.code, done.out, done.err) == (0, f"{text}\n".encode(), "")
        sent = server.requests[0].json["messages"]
    assert [message["content"] for message in sent] == [text, f"{text}\n\n{text}"]


def test_the_json_document_has_exactly_the_promised_keys(cli):
    with FaultServer("ok") as server:
        done = cli.to(server).ask("hi", "--json")
    assert (done.code, done.err) == (0, "")
    document = done.json
    assert list(document) == DOCUMENT
    assert list(document["usage"]) == USAGE
    assert [list(attempt) for attempt in document["attempts"]] == [ATTEMPT]
    assert list(document["route"]) == ["strategy", "reason", "complexity"]
    assert (document["text"], document["cost_usd"], document["reported_model"]) == (
        "t0 t1 t2 t3 t4 ",
        None,
        "served-model",
    )
    (call,) = cli.calls()
    assert (call["id"], call["answer"], call["prompt"]) == (document["id"], document["text"], "hi")


def test_an_answer_that_ended_by_length_is_printed_and_is_no_success(cli):
    with FaultServer("length") as server:
        plain, as_json = cli.to(server).ask("hi"), cli.ask("hi", "--json")
    assert (plain.code, plain.out) == (8, b"a\n")
    assert plain.lines[1] == "hint: allow more with --max-tokens"
    assert (as_json.code, as_json.err, as_json.json["finish_reason"]) == (8, "", "length")


def test_an_answer_cut_by_its_own_max_tokens_is_a_success_with_one_line(cli):
    with FaultServer("length") as server:
        cli.to(server)
        for words, err in (
            ((), "llmctl: the answer was cut where --max-tokens said\n"),
            (("-q",), ""),
            (("--no-stream",), "llmctl: the answer was cut where --max-tokens said\n"),
        ):
            done = cli.ask("hi", "--max-tokens", "1", *words)
            assert (done.code, done.out, done.err) == (0, b"a\n", err)
        done = cli.ask("hi", "--max-tokens", "1", "--json")
        assert (done.code, done.err, done.json["text"]) == (0, "", "a")
    assert {call["state"] for call in cli.calls()} == {"ok"}


def test_a_retry_is_one_line_on_stderr_that_q_silences(cli):
    with FaultServer(status(503), "ok", status(503), "ok") as server:
        loud, quiet = cli.to(server).ask("hi", "--retries", "1"), cli.ask("hi!", "--retries", "1", "-q")
    assert (loud.code, quiet.code, loud.out) == (0, 0, quiet.out)
    assert loud.err == "llmctl: retry: asking openai/m after Unavailable: HTTP 503: no\n"
    assert quiet.err == ""
    assert [call["attempt_count"] for call in cli.calls()] == [2, 2]


def test_a_fallback_is_one_line_on_stderr_and_the_row_says_who_answered(cli):
    with FaultServer(status(401), "ok") as server:
        done = cli.to(server).ask("hi", "--fallback", "mistral/n", env=_mistral(server))
    assert (done.code, done.out) == (0, b"t0 t1 t2 t3 t4 \n")
    (line,) = done.lines
    assert line.startswith("llmctl: fallback: asking mistral/n after Unauthorized: openai/m: ")
    (call,) = cli.calls()
    assert (call["served_by"], call["fallback"]) == ("mistral/n", 1)


def test_a_broken_buffered_answer_is_asked_for_whole_from_the_next(cli):
    with FaultServer("cut", "ok") as server:
        done = cli.to(server).ask("hi", "--fallback", "mistral/n", "--no-stream", env=_mistral(server))
    assert (done.code, done.out) == (0, b"t0 t1 t2 t3 t4 \n")


def test_restart_prints_the_answer_again_on_a_new_line_after_a_marker(cli):
    with FaultServer("cut", "ok") as server:
        done = cli.to(server).ask("hi", "--on-break", "restart", "--fallback", "mistral/n", env=_mistral(server))
    assert (done.code, done.out) == (0, b"t0 t1 t2 \nt0 t1 t2 t3 t4 \n")
    (line,) = done.lines
    assert line.startswith("llmctl: fallback: asking mistral/n after StreamTruncated: ")
    assert line.endswith("; the answer begins again")
    with FaultServer("cut", "ok") as server:
        words = ("--on-break", "restart", "--fallback", "mistral/n", "-q")
        done = cli.to(server).ask("hi", *words, env=_mistral(server))
    assert (done.code, done.out, done.err) == (0, b"t0 t1 t2 \nt0 t1 t2 t3 t4 \n", "")


def test_verbose_says_who_answered_on_a_line_of_its_own(cli):
    with FaultServer(stream("x")) as server:
        done = cli.to(server).shell("llmctl ask -m openai/m hi -v 2>&1")
    answer, summary = done.out.decode().splitlines()
    assert answer == "x"
    assert summary.startswith("llmctl: ok openai/m: 7+1 tokens, price unknown, ")


def test_the_options_reach_the_request(cli):
    with FaultServer("ok") as server:
        words = ("-s", "be brief", "--temperature", "0.5", "--max-tokens", "9", "--tag", "team=web", "--tag", "a=b=c")
        assert cli.to(server).ask("hi", *words).code == 0
        sent = server.requests[0].json
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["temperature"] == 0.5
    assert 9 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    done = cli.run("ledger", "list", "--json")
    assert done.json[0]["tags"] == {"team": "web", "a": "b=c"}


def test_the_most_retries_are_those_of_the_catalog():
    assert ask.MAX_RETRIES == catalog.MAX_RETRIES


def test_no_log_keeps_the_row_and_no_text(cli):
    with FaultServer("ok") as server:
        assert cli.to(server).ask("secret question", "--no-log").code == 0
    (call,) = cli.calls()
    assert (call["state"], call["prompt"], call["answer"]) == ("ok", None, None)
    assert b"secret question" not in b"".join(path.read_bytes() for path in cli.home.iterdir() if path.is_file())


def test_a_stream_that_is_answered_whole_is_printed_all_the_same(cli):
    with FaultServer(raw(completion("whole"))) as server:
        done = cli.to(server).ask("hi")
    assert (done.code, done.out, done.err) == (0, b"whole\n", "")


def test_a_key_that_the_provider_echoes_is_masked_everywhere(cli):
    with FaultServer("echo") as server:
        cli.to(server)
        shown = "".join(
            done.err + done.out.decode() for done in (cli.ask("hi"), cli.ask("hi", "--json"), cli.ask("hi", "--debug"))
        )
    assert "bad credentials" in shown
    assert KEY not in shown
    assert KEY.encode() not in b"".join(path.read_bytes() for path in cli.home.iterdir() if path.is_file())


def test_each_piece_is_on_stdout_before_the_next_is_sent(cli):
    async def wait_for_the_reader(x):
        await x.stream_head()
        await x.write(token("first"))
        await x.gone()

    with FaultServer(wait_for_the_reader) as server:
        process = cli.to(server).start("ask", "-m", "openai/m", "hi")
        assert process.stdout.read(5) == b"first"
        process.terminate()
        process.communicate()


def test_a_while_read_loop_keeps_its_input_with_no_stdin(cli):
    with FaultServer(stream("x")) as server:
        script = "printf 'a\\nb\\nc\\n' | while read -r line; do llmctl ask -m openai/m --no-stdin \"$line\"; done"
        done = cli.to(server).shell(script)
        assert (done.code, done.out, done.err) == (0, b"x\nx\nx\n", "")
        assert [request.json["messages"][0]["content"] for request in server.requests] == ["a", "b", "c"]


def test_trailing_events_and_the_end_of_the_connection_change_nothing(cli):
    with FaultServer(stream("a", then=(FINISH, DONE, token("late")))) as server:
        done = cli.to(server).ask("hi")
    assert (done.code, done.out) == (0, b"a\n")


def _mistral(server: FaultServer) -> dict[str, str]:
    return {"MISTRAL_API_KEY": "another-key-0123456789", "MISTRAL_API_BASE": server.url}


def test_an_answer_from_the_cache_leaves_no_text_where_none_may_be_kept(cli):
    with FaultServer("ok") as server:
        cli.to(server).ask("why is the sky blue?")
        assert cli.ask("why is the sky blue?", "--no-log", "--json").json["cache"] == "exact"
    assert [(call["prompt"] is None, call["answer"] is None) for call in cli.calls()] == [(False,) * 2, (True,) * 2]
