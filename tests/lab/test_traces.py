"""What a simulation is fed with: good traces, every kind of bad one, the ledger's rows, and measured speeds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmctl.core.errors import UsageError
from llmctl.lab.providers import Speed
from llmctl.lab.traces import Row, denser, past, read_trace, speeds_of

HEAD = "t,in_tokens,out_tokens\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "5,7,3\n5.5,1,0\n",
        "\ufefft,in_tokens,out_tokens\r\n5,7,3\r\n\r\n5.5,1,0",
        'who,out_tokens,"t",in_tokens\n"a,b",3,5,7\n,0,5.5,1\n',
        '{"t": 5, "in_tokens": 7, "out_tokens": 3}\n\n{"out_tokens": 0, "t": 5.5, "in_tokens": 1.0, "x": null}\n',
    ],
    ids=["csv", "windows", "other columns", "json lines"],
)
def test_a_trace_begins_with_its_first_request(tmp_path, text):
    (tmp_path / "t").write_text(text, newline="")
    assert read_trace(tmp_path / "t") == [Row(0.0, 7, 3), Row(0.5, 1, 0)]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", "", "no request"),
        (HEAD, "", "no request"),
        ("t,in_tokens\n1,2\n", ":1", "no out_tokens"),
        (HEAD + "0,1,1\n1,2\n", ":3", "column is missing"),
        (HEAD + "0,1,1\n1,-2,1\n", ":3", "in_tokens '-2'"),
        (HEAD + "nan,1,1\n", ":2", "t 'nan'"),
        (HEAD + "inf,1,1\n", ":2", "t 'inf'"),
        (HEAD + "0,1,many\n", ":2", "out_tokens 'many'"),
        (HEAD + "0,1.5,1\n", ":2", "whole"),
        (HEAD + "0,1,1\n2,1,1\n1,1,1\n", ":4", "comes after"),
        (HEAD + "0,1,1\n2e8,1,1\n", ":3", "at most"),
        (HEAD + "0,1,1" + "0" * 70_000 + "\n", ":2", "so long"),
        (HEAD + "0,1,1\n\x00\xff\n", ":3", ""),
        ('{"t": 0, "in_tokens": 1}\n', ":1", "no out_tokens"),
        ('{"t": 0, "in_tokens": 1, "out_tokens": 1}\n[1]\n', ":2", "no t,"),
        ('{"t": 0, "in_tokens": 1, "out_tokens": 1}\n{"t"\n', ":2", "not JSON"),
        ('{"t": true, "in_tokens": 1, "out_tokens": 1}\n', ":1", "t 'True'"),
        ('{"t": 0, "in_tokens": 1, "out_tokens": NaN}\n', ":1", "'nan'"),
        ('{"t": 0, "in_tokens": 1' + "0" * 400 + ', "out_tokens": 1}\n', ":1", "in_tokens"),
        ("{" + '"a":[' * 9000 + "\n", ":1", "not JSON"),
    ],
)
def test_a_bad_trace_is_refused_with_its_file_and_line(tmp_path, text, line, word):
    (tmp_path / "day.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_trace(tmp_path / "day.csv")
    assert f"day.csv{line}: " in caught.value.message
    assert word in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["absent", "."])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=str(tmp_path)):
        read_trace(tmp_path / name)


def test_denser_traffic_keeps_its_requests_and_shortens_its_gaps():
    assert denser([Row(0, 1, 2), Row(10, 3, 4)], 2) == [Row(0, 1, 2), Row(5, 3, 4)]


def call(at: float, prompt: int | None, output: int | None, state: str = "ok", **more: object) -> dict[str, object]:
    row = {"started_at": at, "input_tokens": prompt, "output_tokens": output, "state": state, "drill": 0}
    return {**row, "attempts": [], **more}


def test_the_past_is_in_order_and_what_was_not_counted_is_taken_to_be_usual():
    calls = [call(30, None, None, "failed"), call(10, 6, 2), call(20, 8, 4), call(25, 10, 6), call(5, 99, 9, "cached")]
    calls += [call(1, 9, 9, "refused"), call(2, 9, 9, drill=1)]
    assert past(calls) == ([Row(0, 6, 2), Row(10, 8, 4), Row(15, 10, 6), Row(20, 8, 4)], 1)


@pytest.mark.parametrize("calls", [[], [call(1, None, None, "failed")], [call(1, 5, 5, "cached")]])
def test_a_past_without_a_counted_request_is_refused(calls):
    with pytest.raises(UsageError, match="counted"):
        past(calls)


def answer(deployment: str = "d", **more: object) -> dict[str, object]:
    row = {"deployment": deployment, "provider": "p", "model": "m", "outcome": "ok", "input_tokens": 8000}
    return {**row, "output_tokens": 10, "first_token_ms": 1500.0, "latency_ms": 2500.0, **more}


def test_speeds_are_those_of_the_state_then_of_the_ledger_then_assumed():
    deployments = [SimpleNamespace(id=name, provider=SimpleNamespace(name="p"), model="m") for name in "abcd"]
    attempts = [answer("b"), answer("b", first_token_ms=1700.0), answer("b", first_token_ms=1600.0, latency_ms=2600.0)]
    attempts += [
        answer("c", outcome="TimedOut"),
        answer("c", model="other"),
        answer("a"),
        answer("d", latency_ms=1500.0),
    ]
    speeds = speeds_of(deployments, {"a": [0.4, 0.01, 1e9]}, [call(1, 1, 1, attempts=attempts)])
    assert speeds["a"] == Speed(0.4, 0.01, "state")
    assert speeds["b"].first_token_s == pytest.approx(0.6)
    assert speeds["b"].per_token_s == pytest.approx(0.1)
    assert speeds["c"] == Speed(1.0, 0.02)
    assert speeds["d"] == Speed(0.5, 1e-5, "ledger"), "an answer in one piece has no pace"
