"""`[observe]` as its users meet it: what a collector, Sentry and hooks get of a call, and that the call minds none."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from servers import FaultServer, raw, stall, status, stream

from llmctl.run.otel_names import ATTEMPT, CALL, FALLBACK, METRICS, TAG, TOKEN_TYPE

from .conftest import KEY

if TYPE_CHECKING:
    from .conftest import Cli, Done

pytestmark = pytest.mark.usefixtures("uncached")

PROMPT = "the prompt that nobody is told"
TAKEN = raw(b"", 200, {"content-type": "application/x-protobuf"})
BIG = "[models.m]\nmodel = 'openai/m'\nprice = { input = 2.0, output = 10.0 }\nfallbacks = ['second']\n"
SECOND = (
    "[models.second]\nmodel = 'corp/n'\nprice = { input = 1.0, output = 1.0 }\n[providers.corp]\nprotocol = 'openai'\n"
)


def observing(cli: Cli, *lines: str) -> Cli:
    (cli.root / "observe.toml").write_text("\n".join(("[observe]", 'wait = "60s"', *lines)))
    cli.environ |= {"LLMCTL_CONFIG": str(cli.root / "observe.toml")}
    return cli


class Collector(FaultServer):
    """An OTLP/HTTP collector, whose messages are decoded by the protocol's own library."""

    def __init__(self) -> None:
        super().__init__(TAKEN)

    def _bodies(self, path: str) -> list[bytes]:
        return [each.body for each in self.requests if each.path == path]

    def spans(self) -> list[Span]:
        messages = [ExportTraceServiceRequest.FromString(body) for body in self._bodies("/v1/traces")]
        return [span for each in messages for part in each.resource_spans for s in part.scope_spans for span in s.spans]

    def call(self) -> tuple[Span, list[Span]]:
        """The span of the only call, and those of its attempts in order."""
        spans = sorted(self.spans(), key=lambda span: span.start_time_unix_nano)
        (call,) = (span for span in spans if span.kind == Span.SPAN_KIND_CLIENT)
        below = [span for span in spans if span is not call]
        assert all(span.parent_span_id == call.span_id and span.trace_id == call.trace_id for span in below)
        return call, below

    def resource(self) -> dict[str, Any]:
        message = ExportTraceServiceRequest.FromString(self._bodies("/v1/traces")[0])
        return attributes(message.resource_spans[0].resource)

    def metrics(self) -> dict[str, list[Any]]:
        """The data points by the metric's name."""
        found: dict[str, list[Any]] = {}
        for body in self._bodies("/v1/metrics"):
            for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (each for scope in part.scope_metrics for each in scope.metrics):
                    kind = metric.WhichOneof("data")
                    data = getattr(metric, kind)
                    assert data.aggregation_temporality == 1, "delta: a short process has no sums to go on with"
                    found.setdefault(metric.name, []).extend(data.data_points)
        return found


def attributes(thing: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in thing.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def ask(cli: Cli, *words: str, **how: Any) -> Done:
    return cli.run("ask", *(() if "-m" in words else ("-m", "openai/m")), "--retries", "0", PROMPT, *words, **how)


# ---------------------------------------------------------------- OpenTelemetry


def test_a_collector_gets_one_span_of_a_call_and_one_of_its_attempt_with_the_names_of_the_table(cli):
    with FaultServer(stream("Hel", "lo")) as provider, Collector() as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"', BIG.replace("fallbacks = ['second']\n", ""))
        done = ask(cli, "-m", "m", "--tag", "team=web")
        assert (done.code, done.out, done.err) == (0, b"Hello\n", "")
        collector.wait_for(2)
        call, (attempt,) = collector.call()
        (row,) = cli.calls()
        told = attributes(call)
        assert call.name == "chat m"
        assert {name for name in told if name not in CALL} == {f"{TAG}team"}
        assert told.items() >= {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.response.model": "served-model",
            "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2, "gen_ai.usage.cost": 34e-6,
            "llmctl.call.id": row["id"], "llmctl.cost_usd": 34e-6, "llmctl.group": "m", "llmctl.served_by": "openai/m",
            "llmctl.command": "ask", f"{TAG}team": "web", "llmctl.fallback": False, "llmctl.state": "ok",
        }.items()  # fmt: skip
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        assert told["gen_ai.response.time_to_first_chunk"] * 1000 == pytest.approx(row["first_token_ms"])
        assert call.end_time_unix_nano - call.start_time_unix_nano == pytest.approx(row["latency_ms"] * 1e6, abs=1e4)
        assert attempt.name == "attempt openai/m"
        assert set(attributes(attempt)) <= set(ATTEMPT)
        assert call.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano
        assert call.status.code == attempt.status.code == Status.STATUS_CODE_UNSET
        points = collector.metrics()
        assert set(points) == set(METRICS) - {"llmctl.saved"}
        assert [p.sum * 1000 for p in points["gen_ai.client.operation.duration"]] == [pytest.approx(row["latency_ms"])]
        assert {attributes(p)[TOKEN_TYPE]: p.sum for p in points["gen_ai.client.token.usage"]} == {
            "input": 7,
            "output": 2,
        }
        assert [p.as_double for p in points["llmctl.cost"]] == [34e-6]
        known = {*CALL, *ATTEMPT, TOKEN_TYPE}
        assert {name for each in points.values() for point in each for name in attributes(point)} <= known
        assert collector.resource().items() >= {"service.name": "llmctl"}.items()
        said = b"".join(each.body for each in collector.requests)
        assert not [word for word in (PROMPT, "Hello", KEY) if word.encode() in said]


def test_a_fallback_is_seen_in_its_spans(cli):
    with FaultServer(status(503)) as first, FaultServer(stream("x")) as second, Collector() as collector:
        cli.to(first)
        observing(cli, f'otel = "{collector.url}"', BIG, SECOND, f"api_base = '{second.url}'\napi_key = 'env:CORP'")
        done = ask(cli, "-m", "m", env={"CORP": "another-key-012345"})
        assert (done.code, done.out) == (0, b"x\n"), done.err
        collector.wait_for(2)
        call, attempts = collector.call()
        assert [attributes(each)["llmctl.attempt.outcome"] for each in attempts] == ["Unavailable", "ok"]
        assert [attributes(each)["llmctl.attempt.role"] for each in attempts] == ["primary", "fallback"]
        assert [each.status.code for each in attempts] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
        (event,) = call.events
        assert (event.name, event.time_unix_nano) == (FALLBACK, attempts[1].start_time_unix_nano)
        assert attributes(call)["llmctl.fallback"] is True
        assert attributes(call)["gen_ai.request.model"] == "n"
        assert call.status.code == Status.STATUS_CODE_UNSET


def test_a_failed_call_is_an_error_span_without_the_words_of_the_provider(cli):
    with FaultServer(status(500, f"you said {PROMPT}")) as provider, Collector() as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        assert ask(cli).code == 6
        collector.wait_for(2)
        call, (attempt,) = collector.call()
        for span in (call, attempt):
            assert (span.status.code, attributes(span)["error.type"]) == (Status.STATUS_CODE_ERROR, "Unavailable")
        assert attributes(attempt)["http.response.status_code"] == 500
        assert b"nobody" not in b"".join(each.body for each in collector.requests)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_call_that_is_stopped_is_told_too_as_the_child_hears_no_signal_of_the_terminal(cli, number):
    with FaultServer(stall(2)) as provider, Collector() as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        process = cli.start("ask", "-m", "openai/m", PROMPT, start_new_session=True)
        assert process.stdout.read(6) == b"t0 t1 "
        os.killpg(process.pid, number)  # as a terminal does: all of the group
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (128 + number, b"\n", b"")
        collector.wait_for(2)
        call, (attempt,) = collector.call()
        assert attributes(call)["error.type"] == attributes(attempt)["error.type"] == "Cancelled"
        assert attributes(call)["llmctl.exit_code"] == 128 + number


def test_vectors_are_embeddings_and_what_the_environment_says_holds(cli):
    answer = raw(json.dumps({"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 3}}).encode())
    with FaultServer(answer) as provider, Collector() as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        cli.environ |= {
            "OTEL_SERVICE_NAME": "nightly",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=ci",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20cGs6c2s=",
            "OTEL_METRICS_EXPORTER": "none",
            "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        done = cli.run("embed", "-m", "openai/text-embedding-3-small", "hi")
        assert done.code == 0, done.err
        collector.wait_for(1)
        spans = collector.spans()
        (call,) = (span for span in spans if span.kind == Span.SPAN_KIND_CLIENT)
        assert call.name == "embeddings text-embedding-3-small"
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (
            "0af7651916cd43dd8448eb211c80319c",
            "b7ad6b7169203331",
        )
        wanted = {"service.name": "nightly", "deployment.environment.name": "ci"}
        assert collector.resource().items() >= wanted.items()
        assert [each.headers["authorization"] for each in collector.requests] == ["Basic cGs6c2s="]


BEHAVIOURS = ["refuse", "reset", "garbage", "500", "404"]


@pytest.mark.parametrize("behaviour", ["refuse", "reset", "garbage", status(500), status(404)], ids=BEHAVIOURS)
def test_a_collector_that_does_not_take_it_changes_nothing(cli, behaviour):
    with FaultServer(stream("whole"), status(429)) as provider, FaultServer(behaviour) as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        done = ask(cli)
        assert (done.code, done.out, done.err) == (0, b"whole\n", "")
        assert cli.ending()[:3] == ("ok", 0, None)
        done = ask(cli)
        assert done.code == 6
        assert done.lines[0].startswith("llmctl: error: openai/m: ")


def test_the_answer_is_out_while_a_collector_still_ponders(cli):
    with FaultServer(stream("whole")) as provider, FaultServer("silent") as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        process = cli.start("ask", "-m", "openai/m", PROMPT)
        assert process.stdout.read(6) == b"whole\n"
        collector.wait_for(1)
        process.send_signal(signal.SIGINT)  # whoever has the answer need not wait for others to be told
        assert process.wait(30) == 0
        process.stdout.close()
        process.stderr.close()
        assert cli.ending()[:2] == ("ok", 0)


def test_a_collector_that_never_answers_is_left_alone(cli):
    with FaultServer(stream("whole")) as provider, FaultServer("silent") as collector:
        observing(cli.to(provider), f'otel = "{collector.url}"')
        (cli.root / "observe.toml").write_text((cli.root / "observe.toml").read_text().replace("60s", "100ms"))
        done = ask(cli)
        assert (done.code, done.out, done.err) == (0, b"whole\n", "")
        collector.wait_for(1)  # though nobody is left to wait for it


# ---------------------------------------------------------------- Sentry


def test_sentry_gets_one_envelope_for_a_failed_call_and_none_for_a_good_one(cli):
    with FaultServer(stream("x"), status(503, f"{PROMPT} {KEY}")) as provider, FaultServer(raw(b"{}")) as sentry:
        observing(cli.to(provider), "sentry = true")
        dsn = sentry.url.replace("http://", "http://public@") + "/7"
        assert ask(cli, env={"SENTRY_DSN": dsn}).code == 0
        assert ask(cli, "--tag", "a=b", env={"SENTRY_DSN": dsn}).code == 6
        sentry.wait_for(1)
        (request,) = sentry.requests
        assert request.path == "/api/7/envelope/"
        packed = request.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(request.body) if packed else request.body
        _, head, event, *_ = (json.loads(line) for line in body.splitlines() if line.startswith(b"{"))
        assert head["type"] == "event"
        (found,) = event["exception"]["values"]
        assert (found["type"], found["value"]) == ("Unavailable", "openai/m: Unavailable (HTTP 503)")
        labels = {"provider": "openai", "model": "m", "deployment": "openai/m", "status": "503", "group": "openai/m"}
        assert event["tags"].items() >= labels.items()
        assert event["tags"]["call"] == cli.calls()[-1]["id"]
        assert event["release"].startswith("llmctl@")
        assert not [word for word in (PROMPT, KEY, "nobody") if word.encode() in body]


@pytest.mark.parametrize(
    ("behaviour", "said"), [("refuse", "network"), (status(404), "status_404")], ids=["refuse", "404"]
)
def test_a_sentry_that_does_not_take_it_is_said_to_whoever_asks(cli, behaviour, said):
    with FaultServer(status(503)) as provider, FaultServer(behaviour) as sentry:
        observing(cli.to(provider), "sentry = true")
        dsn = sentry.url.replace("http://", "http://public@") + "/7"
        done = cli.ask("hi", "-v", env={"SENTRY_DSN": dsn})
    assert [line for line in done.lines if "[observe]" in line] == [
        f"llmctl: warning: [observe] sentry_sdk: an event could not be sent: {said}"
    ]


def test_sentry_without_an_address_is_one_warning(cli):
    with FaultServer(stream("x")) as provider:
        observing(cli.to(provider), "sentry = true")
        done = ask(cli)
    assert (done.code, done.out) == (0, b"x\n")
    assert done.lines == ["llmctl: warning: [observe] sentry: LookupError: SENTRY_DSN is not set: nothing is sent"]


# ---------------------------------------------------------------- hooks

HOOKS = """
import os, sys
def prints(event): print("noise"); print("noise", file=sys.stderr); os.write(1, b"noise")
def leaves(event): os._exit(9)
def raises(event): raise ValueError("mine")
def keeps(event):
    with open("heard", "a") as file:
        file.write(f"{type(event).__name__} {getattr(event, 'record', event).__class__.__name__}\\n")
        file.write("".join(f"{name}={value}\\n" for name, value in os.environ.items() if name == "OPENAI_BASE_URL"))
"""


def test_a_hook_writes_where_it_likes_and_stdout_stays_clean(cli):
    (cli.root / "mine.py").write_text(HOOKS)
    with FaultServer(stream("x")) as provider:
        observing(cli.to(provider), 'hooks = ["mine:prints", "mine:raises", "mine:keeps"]')
        done = ask(cli)
    assert (done.code, done.out, done.err) == (0, b"x\n", "")
    heard = (cli.root / "heard").read_text().splitlines()
    assert [line.split()[0] for line in heard if "=" not in line] == ["CallStarted", "AttemptEnded", "CallEnded"]


def test_a_hook_that_ends_the_process_ends_only_its_own(cli):
    (cli.root / "mine.py").write_text(HOOKS)
    with FaultServer(stream("x")) as provider:
        done = ask(observing(cli.to(provider), 'hooks = ["mine:leaves"]'))
    assert (done.code, done.out, done.err) == (0, b"x\n", "")


@pytest.mark.parametrize(
    ("words", "warned"), [((), ["nope"]), (("-v",), ["mine", "nope"]), (("-q",), []), (("--json",), [])], ids=str
)
def test_a_hook_that_is_not_there_is_warned_of_and_one_that_fails_only_to_whoever_asks(cli, words, warned):
    (cli.root / "mine.py").write_text(HOOKS)
    with FaultServer(stream("x")) as provider:
        done = ask(observing(cli.to(provider), 'hooks = ["mine:raises", "nope:f"]'), *words)
    assert done.code == 0
    lines = [line for line in done.lines if "warning: [observe] hook" in line]
    assert sorted({line.partition(" hook ")[2].partition(":")[0] for line in lines}) == warned


def test_the_warning_comes_after_the_words_of_a_call_that_failed(cli):
    with FaultServer(status(400)) as provider:
        done = ask(observing(cli.to(provider), 'hooks = ["nope:f"]'))
    assert done.code == 5
    assert sum("warning: [observe] hook nope:f" in line for line in done.lines) == 1


PROGRAM = """
import llmctl
print(llmctl.Client("observe.toml").complete("hi", model="openai/m").text)
"""


def test_a_program_that_closes_nothing_has_told_all_when_it_ends(cli):
    (cli.root / "mine.py").write_text(HOOKS)
    with FaultServer(stream("x")) as provider:
        observing(cli.to(provider), 'hooks = ["mine:raises", "mine:keeps", "nope:f"]')
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=cli.environ, cwd=cli.root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "x\n"), done.stderr
    assert done.stderr == "hook nope:f: ModuleNotFoundError: No module named 'nope'\n"
    assert "CallEnded" in (cli.root / "heard").read_text()


# ---------------------------------------------------------------- the configuration

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("sentry_sdk", "opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize(("line", "extra"), [('otel = "http://127.0.0.1:9"', "otel"), ("sentry = true", "sentry")])
def test_an_extra_that_is_missing_is_one_error_with_the_command_that_installs_it(cli, line, extra):
    (cli.root / "hide").mkdir()
    (cli.root / "hide" / "sitecustomize.py").write_text(HIDE)
    cli.environ["PYTHONPATH"] = f"{cli.root / 'hide'}{os.pathsep}{cli.environ['PYTHONPATH']}"
    with FaultServer("ok") as provider:
        observing(cli.to(provider), line)
        for done in (ask(cli), cli.run("config", "check")):
            assert done.refused(3).startswith(f"[observe] {extra} needs ")
            assert done.lines[-1].endswith(f'[{extra}]"')
        assert provider.requests == []


def test_config_check_warns_of_hooks_that_are_not_there(cli):
    observing(cli, 'hooks = ["nope:f", "no-entry", "json:loads"]', "sentry = true")
    done = cli.run("config", "check")
    assert done.code == 0
    assert [line.split(": ")[1] for line in done.out.decode().splitlines() if line.startswith("warning")] == [
        "[observe] sentry",
        "[observe] hook nope:f",
        "[observe] hook no-entry",
    ]
    assert len(cli.run("config", "check", "--json").json["warnings"]) == 3


def test_a_drill_that_sends_nothing_tells_nobody(cli):
    with Collector() as collector:
        observing(cli, f'otel = "{collector.url}"', BIG.replace("'second'", "'groq/x'"))
        done = cli.run("fallback", "drill", "m", "--offline", "--inject", "primary=503")
        assert done.code == 0, done.err
        assert collector.connections == 0
