"""What stands beside the prompt on the command line: schemas, options and attachments, read and refused."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest
from servers import FaultServer, raw, stream

from llmctl.cli import request
from llmctl.cli.request import MAX_ATTACHMENT, attachments_of, options_of, schema_of
from llmctl.config.schema import Params as Configured
from llmctl.core.errors import UsageError
from llmctl.core.types import Document, Image, Params
from llmctl.run.asking import EFFORTS, RANGES, params_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def fails(work: Any, *args: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        work(*args)
    assert caught.value.hint
    return caught.value


# --- options


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["temperature=0.5", "top_k=7"], {"temperature": 0.5, "top_k": 7}),
        (["seed=-1", "parallel_tool_calls=false"], {"seed": -1, "parallel_tool_calls": False}),
        (["user=42", "reasoning_effort=low"], {"user": "42", "reasoning_effort": "low"}),
        (["stop=END"], {"stop": "END"}),
        (['stop=["a", "b"]'], {"stop": ["a", "b"]}),
        (["stop=a=b"], {"stop": "a=b"}),
        (["tool_choice=required"], {"tool_choice": "required"}),
        (['tool_choice={"name": "f"}', 'tools=[{"a": 1}]'], {"tool_choice": {"name": "f"}, "tools": [{"a": 1}]}),
        (["service_tier=flex"], {"extra": {"service_tier": "flex"}}),
        (["a.b=1", "a.c.d=[2]", "e="], {"extra": {"a": {"b": 1, "c": {"d": [2]}}, "e": ""}}),
        (["top_p=hot", "parallel_tool_calls=NaN"], {"top_p": "hot", "parallel_tool_calls": "NaN"}),  # refused later
        (["x=1e999999999999"], {"extra": {"x": float("inf")}}),
    ],
    ids=range(12),
)
def test_an_option_is_a_parameter_of_ours_or_goes_to_the_provider_as_it_is(words: list[str], options: dict[str, Any]):
    assert options_of(words, ()) == options


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["temperature"], "KEY=VALUE"), (["=1"], "KEY=VALUE"), (["."], "KEY=VALUE"), ([".=1"], "KEY=VALUE"),
        (["model=x"], "protocol"), (["messages=[]"], "protocol"), (["stream=false"], "protocol"),
        (["contents.parts=1"], "protocol"), (["extra={}"], "protocol"),
        (["max_tokens=1"], "--max-tokens"), (["seed=1", "seed=2"], "twice"), (["a.b=1", "a.b=2"], "twice"),
        (["a=1", "a.b=2"], "twice"), (["a.b=1", "a=2"], "twice"), (["a..b=1"], "not a key"),
        ([".".join("x" * 30) + "=1"], "not a key"),
        (["temperature="], "empty"), (["stop=[END"], "not JSON"),
        (["tools=@nowhere.json"], "No such file"), (["tools=[" + "[" * 100_000], "nested"),
        (["tools=nope"], "not JSON"),
        (["user=\udcff"], "UTF-8"),
    ],
    ids=range(22),
)  # fmt: skip
def test_an_option_that_cannot_be_meant_is_refused(words: list[str], says: str):
    assert says in fails(options_of, words, ["max_tokens"]).message


def test_tools_may_stand_in_a_file(tmp_path):
    (tmp_path / "tools.json").write_text('[{"type": "function"}]')
    assert options_of([f"tools=@{tmp_path}/tools.json"], ()) == {"tools": [{"type": "function"}]}


def test_a_number_has_the_same_range_here_as_in_the_configuration():
    for name, (kind, least, most) in RANGES.items():
        properties = Configured.model_json_schema()["properties"][name]["anyOf"][0]
        assert properties["type"] == ("integer" if kind is int else "number")
        low = properties.get("minimum", properties.get("exclusiveMinimum", -1) + 1)
        high = properties.get("maximum", properties.get("exclusiveMaximum", 0) - 1)
        assert (low, high) == (least, most), name
        for value in (least, most):
            params_of(None, {name: value})
        for value in (least - 1, most + 1, True, "1", float("nan")):
            fails(params_of, None, {name: value})
    assert set(Configured.model_json_schema()["properties"]["reasoning_effort"]["anyOf"][0]["enum"]) == set(EFFORTS)


@pytest.mark.parametrize(
    "parameters",
    [{"stop": [1]}, {"stop": 5}, {"stop": [""]}, {"reasoning_effort": "hard"}, {"parallel_tool_calls": 1}, {"user": 5},
     {"extra": []}, {"seed": 1.5}, {"top_k": 0}],
)  # fmt: skip
def test_a_parameter_of_the_wrong_kind_is_refused(parameters: dict[str, Any]):
    assert fails(params_of, None, parameters).message.startswith(next(iter(parameters)))


def test_every_parameter_may_be_an_option():
    values = {"stop": "a", "reasoning_effort": "low", "parallel_tool_calls": "true", "user": "u"}
    words = [f"{name}={values.get(name, '1')}" for name in Params.__dataclass_fields__ if name != "extra"]
    assert len(params_of(None, options_of(words, ())).__dataclass_fields__) == len(words) + 1


# --- schemas


def test_a_schema_is_a_file_or_stands_in_the_argument(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    assert schema_of(f"{tmp_path}/s.json") == schema_of(" " + json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    ("given", "says"),
    [("", "neither"), ("true", "neither"), ("false", "neither"), ("nowhere.json", "No such file"), (".", "regular"),
     ("{", "not JSON"), ('{"a": NaN}', "not JSON"), ("{" + '"a":{' * 100_000, "nested"), ("/dev/null", "regular")],
)  # fmt: skip
def test_what_is_no_schema_is_refused(given: str, says: str):
    assert says in fails(schema_of, given).message


def test_a_schema_file_that_holds_no_object_is_refused(tmp_path):
    for text, says in (("[1]", "object"), ("true", "object"), ("", "not JSON")):
        (tmp_path / "s.json").write_text(text)
        assert says in fails(schema_of, f"{tmp_path}/s.json").message


# --- attachments


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"), (b"\xff\xd8\xff\xe0rest", "image/jpeg"), (b"GIF87a..", "image/gif"),
        (b"GIF89a..", "image/gif"), (b"RIFF\x08\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)  # fmt: skip
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path, data: bytes, media_type: str):
    (tmp_path / "x.txt").write_bytes(data)
    assert attachments_of([f"{tmp_path}/x.txt"]) == (Image(media_type, base64.b64encode(data).decode()),)


def test_a_pdf_takes_its_name_along_without_what_could_harm(tmp_path):
    name = os.fsdecode(tmp_path) + '/r\u00e9sum\u00e9 "1";\n<x>.pdf'
    with open(name, "wb") as file:
        file.write(b"%PDF-1.7\n")
    assert attachments_of([name]) == (Document("application/pdf", "JVBERi0xLjcK", "résumé _1____x_.pdf"),)


def test_an_https_address_is_for_the_provider_to_fetch():
    assert attachments_of(["https://e.example/cat"]) == (Image(url="https://e.example/cat"),)


@pytest.mark.parametrize(
    ("name", "says"),
    [("http://e.example/x", "plain http"), ("https:///x", "not an address"), ("https://e.example/a b", "address"),
     ("https://e.example/a.PDF?x=1", "PDF"), ("nowhere.png", "No such file"), (".", "regular"), ("a\0b", "null")],
)  # fmt: skip
def test_what_cannot_be_attached_is_refused(name: str, says: str):
    assert says in fails(attachments_of, [name]).message


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "empty"), (b"hello", "text"), ("%PDF".encode("utf-16"), "no image or PDF"), (b"PK\x03\x04\x00", "no image")],
)
def test_a_file_that_is_no_image_is_refused(tmp_path, data: bytes, says: str):
    (tmp_path / "x.png").write_bytes(data)
    error = fails(attachments_of, [f"{tmp_path}/x.png"])
    assert says in error.message
    assert says != "text" or "--file" in error.hint


def test_an_attachment_is_refused_when_it_is_too_large_a_pipe_or_not_readable(tmp_path, monkeypatch):
    monkeypatch.setattr(request, "MAX_ATTACHMENT", 1 << 20)
    (tmp_path / "x.png").write_bytes(PNG + bytes(1 << 20))
    assert fails(attachments_of, [f"{tmp_path}/x.png"]).message.endswith("is over 1 MiB")
    assert MAX_ATTACHMENT == 20 << 20
    os.mkfifo(tmp_path / "pipe")
    assert "regular" in fails(attachments_of, [f"{tmp_path}/pipe"]).message


# --- the whole way


def test_files_then_attachments_then_the_prompt_are_one_message(cli):
    (cli.root / "a.txt").write_text("notes\n")
    (cli.root / "a.png").write_bytes(PNG)
    with FaultServer("ok") as server:
        done = cli.to(server).ask("what?", "-f", "a.txt", "-a", "a.png", "-a", "https://e.example/x", "-s", "be terse")
        assert (done.code, done.err) == (0, "")
        system, user = server.requests[0].json["messages"]
    assert system["content"] == "be terse"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}}
    link = {"type": "image_url", "image_url": {"url": "https://e.example/x"}}
    before, after = {"type": "text", "text": "--- a.txt ---\nnotes\n\n"}, {"type": "text", "text": "what?"}
    assert user["content"] == [before, image, link, after]


def test_options_reach_the_body(cli):
    with FaultServer("ok") as server:
        words = ("-o", "top_p=0.5", "-o", "stop=END", "-o", "metadata.team=web", "-o", "n=1")
        assert cli.to(server).ask("hi", *words).code == 0
        body = server.requests[0].json
    assert (body["top_p"], body["stop"], body["metadata"], body["n"]) == (0.5, ["END"], {"team": "web"}, 1)


def test_an_option_that_the_flag_has_set_or_that_is_out_of_range_sends_nothing(cli):
    with FaultServer("ok") as server:
        cli.to(server)
        for words in (("-o", "temperature=1", "--temperature", "1"), ("-o", "top_p=2"), ("-o", "model=x")):
            assert cli.ask("hi", *words).code == 2
        assert not server.requests


def test_under_a_schema_the_json_is_printed_without_its_fence_and_parsed(cli):
    with FaultServer(stream("```json\n", '{"n": ', "1}\n", "```")) as server:
        done = cli.to(server).ask("hi", "--schema", json.dumps(SCHEMA))
        assert (done.code, done.out, done.err) == (0, b'{"n": 1}\n', "")
        document = json.loads(cli.ask("hi", "--schema", json.dumps(SCHEMA), "--json").out)
        shape = server.requests[0].json["response_format"]["json_schema"]
    assert (document["parsed"], document["text"]) == ({"n": 1}, '{"n": 1}')
    assert (shape["schema"], shape["strict"]) == (SCHEMA, True)


def test_an_answer_that_does_not_meet_the_schema_is_exit_10_and_stdout_is_empty(cli):
    with FaultServer(stream('{"n": "one"}')) as server:
        done = cli.to(server).ask("hi", "--schema", json.dumps(SCHEMA))
        assert (done.code, done.out) == (10, b"")
        assert "openai/m: the answer does not meet the schema at $.n" in done.lines[0]
        assert len(done.lines) <= 4
        error = json.loads(cli.ask("hi", "--schema", json.dumps(SCHEMA), "--json").err)["error"]
    assert (error["type"], error["partial_text"], len(error["attempts"])) == ("AnswerRejected", '{"n": "one"}', 1)
    assert [call["answer"] for call in cli.calls()] == ['{"n": "one"}'] * 2


def test_a_bad_schema_sends_nothing_and_an_answer_that_was_cut_is_incomplete(cli):
    with FaultServer("length") as server:
        assert cli.to(server).ask("hi", "--schema", '{"type": "nonsense"}').code == 2
        assert not server.requests
        done = cli.ask("hi", "--schema", json.dumps(SCHEMA), "--max-tokens", "1")
        assert (done.code, done.out) == (8, b"a\n")


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
MESSAGE = {"role": "assistant", "content": None, "tool_calls": [CALL]}
CALLS = raw(json.dumps({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"}]}).encode())


def test_tool_calls_are_named_on_stderr_and_printed_by_json(cli):
    with FaultServer(CALLS) as server:
        words = ("hi", "-o", 'tools=[{"type": "function", "function": {"name": "look"}}]')
        done = cli.to(server).ask(*words)
        assert (done.code, done.out) == (0, b"")
        assert done.lines == ["llmctl: the model calls tools, and none is run: look (--json prints the calls)"]
        document = json.loads(cli.ask(*words, "--json").out)
    assert document["tool_calls"] == [{"id": "c1", "name": "look", "arguments": '{"a": 1}'}]
    assert document["finish_reason"] == "tool_calls"


def test_a_parameter_that_the_target_cannot_take_is_said_or_refused(cli):
    with FaultServer("ok") as server:
        cli.to(server)
        done = cli.ask("hi", "-o", "top_k=5", "-o", "reasoning_tokens=9")
        assert (done.code, done.err) == (0, "llmctl: openai/m takes no top_k, reasoning_tokens: left out\n")
        strict = cli.ask("hi", "-o", "top_k=5", "--strict-params")
        assert (strict.code, len(server.requests)) == (5, 1)
        assert strict.lines[0] == "llmctl: error: openai/m takes no top_k"
        assert cli.ask("hi", "-o", "top_k=5", "--json").json["dropped"] == ["top_k"]  # where stderr must be silent
