"""Addresses and credentials: whose word counts, what is refused before any socket, and what is never run or shown."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmctl import Client
from llmctl.config.keys import Keys
from llmctl.config.load import packaged
from llmctl.core.build import provider
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.errors import ConfigInvalid, ConnectionFailed, DeadlineExceeded, MissingCredential
from llmctl.core.redact import redact
from llmctl.run.address import is_loopback
from llmctl.run.clock import DrillClock
from llmctl.run.endpoint import Endpoints
from llmctl.testing import MemoryLedger

if TYPE_CHECKING:
    from llmctl.wire.base import Endpoint

CANARY = "canary-7f3a9c2e51d84b06"
OPENAI = Provider(
    "openai", title="OpenAI", api_base="https://api.openai.com/v1", key=("OPENAI_API_KEY", "OPENAI_KEY"),
    address=("OPENAI_BASE_URL",),
)  # fmt: skip
OLLAMA = Provider(
    "ollama", api_base="http://127.0.0.1:11434/v1", key=("OLLAMA_API_KEY",), key_optional=True,
    address=("OLLAMA_HOST",), loopback=True,
)  # fmt: skip


def deployment(provider: Provider = OPENAI, **changes: object) -> Deployment:
    return replace(Deployment("d", provider, "m"), **changes)  # type: ignore[arg-type]


def address(value: str, **changes: object) -> str:
    return Endpoints({}).address(deployment(api_base=value, **changes))


# ---------------------------------------------------------------- precedence


def test_key_of_deployment_before_provider_before_variables_in_their_order() -> None:
    endpoints = Endpoints({"OPENAI_API_KEY": "from-env", "OPENAI_KEY": "second-env"})
    provider = replace(OPENAI, api_key="from-provider")
    assert endpoints.credential(deployment(provider, api_key="from-deployment")).reveal() == "from-deployment"
    assert endpoints.credential(deployment(provider)).reveal() == "from-provider"
    assert endpoints.credential(deployment()).reveal() == "from-env"
    assert endpoints.credential(deployment()).source == "env:OPENAI_API_KEY"
    assert Endpoints({"OPENAI_API_KEY": "", "OPENAI_KEY": "second"}).credential(deployment()).reveal() == "second"


def test_address_of_deployment_before_provider_before_variables_before_built_in() -> None:
    endpoints = Endpoints({"OPENAI_BASE_URL": "https://env.example/v1", "OPENAI_API_BASE": "https://last.example"})
    provider = replace(OPENAI, api_base="https://provider.example", api_base_set=True)
    chosen = deployment(provider, api_base="https://deployment.example")
    assert endpoints.address(chosen) == "https://deployment.example"
    assert endpoints.address(deployment(provider)) == "https://provider.example"
    assert endpoints.address(deployment()) == "https://env.example/v1"
    assert Endpoints({"OPENAI_API_BASE": "https://last.example"}).address(deployment()) == "https://last.example"
    assert Endpoints({"OPENAI_BASE_URL": " "}).address(deployment()) == "https://api.openai.com/v1"


def test_provider_without_an_address_names_its_variable() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Endpoints({}).address(deployment(replace(OPENAI, api_base="", address=())))
    assert "OPENAI_API_BASE" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:4000", "http://127.0.0.1:4000/v1"),
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("localhost", "http://localhost:11434/v1"),
        (":4000", "http://127.0.0.1:4000/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:4000", "http://127.0.0.1:4000/v1"),
        ("[::1]:4000", "http://[::1]:4000/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("[::]:4000", "http://[::1]:4000/v1"),
        ("http://127.0.0.1", "http://127.0.0.1/v1"),
        ("http://127.0.0.1:4000/", "http://127.0.0.1:4000/v1"),
        ("https://gpu.example", "https://gpu.example/v1"),
        ("https://gpu.example:8443/ollama/v1", "https://gpu.example:8443/ollama/v1"),
        (' "127.0.0.1:4000" ', "http://127.0.0.1:4000/v1"),
    ],
)
def test_ollama_host_forms(host: str, expected: str) -> None:
    assert Endpoints({"OLLAMA_HOST": host}).address(deployment(OLLAMA)) == expected


@pytest.mark.parametrize(
    "host", ["127.0.0.1:99999", "127.0.0.1:port", "http://[::1", "ftp://x", "u:p@127.0.0.1", "http://u@127.0.0.1"]
)
def test_broken_ollama_host_is_refused_as_configuration(host: str) -> None:
    endpoints = Endpoints({"OLLAMA_HOST": host})
    with pytest.raises(ConfigInvalid):
        endpoints.address(deployment(OLLAMA))
    assert isinstance(endpoints.obstacle(deployment(OLLAMA)), ConfigInvalid)


def test_ollama_host_beyond_this_machine_needs_allow_http() -> None:
    endpoints = Endpoints({"OLLAMA_HOST": "192.0.2.7:11434"})
    with pytest.raises(ConfigInvalid, match="in the clear"):
        endpoints.address(deployment(OLLAMA))
    assert endpoints.address(deployment(OLLAMA, allow_http=True)) == "http://192.0.2.7:11434/v1"


# ---------------------------------------------------------------- hostile addresses


@pytest.mark.parametrize(
    "hostile",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1",
        "//evil.example",
        "evil.example",
        "https://",
        "https:///v1",
        "https://user:pw@evil.example",
        "https://user@evil.example",
        "https://@evil.example",
        "https://good.example\\@evil.example",
        "https://good.example\\.evil.example",
        "http://127.0.0.1\\.evil.example",
        "https://h.example/\r\nx-injected: 1",
        "https://h.example/a b",
        "https://h\x00.example",
        "https://h.example\x7f",
        "https://\u0430pi.openai.com/v1",  # a Cyrillic a
        "https://api.openai.com\u3002evil.example",  # an ideographic full stop is a dot to IDNA
        "https://b\u00fccher.example",
        "https://h.example/\u202egpj",
        "https://h.example:99999",
        "https://h.example:-1",
        "https://h.example:port",
        "https://[::1",
        "https://a..b",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 200 + "example",
        "https://%65vil.example",
        "http://127.0.0.1#@evil.example/",
        "http://127.0.0.1?@evil.example/",
        "https://h.example/v1?key=value",
        "http://169.254.169.254/latest",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.localhost",  # an ordinary resolver may ask the network for it
        "http://2130706433",
        "http://0.0.0.0",
        "http://[::ffff:8.8.8.8]",
    ],
)
def test_hostile_address_is_refused(hostile: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        address(hostile)
    assert caught.value.message.isprintable()
    assert caught.value.hint
    assert Endpoints({"OPENAI_API_KEY": "k"}).obstacle(deployment(api_base=hostile)) is not None


def test_password_in_an_address_is_not_repeated() -> None:
    for hostile in (f"https://user:{CANARY}@h.example", f"ftp://user:{CANARY}@h.example", f"https://u:{CANARY}@h:x"):
        with pytest.raises(ConfigInvalid) as caught:
            address(hostile)
        assert CANARY not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "fine",
    [
        "https://api.example/v1",
        "https://api.example:8443/v1/",
        "HTTPS://API.example",
        "https://xn--bcher-kva.example",
        "https://a_b.internal",
        "https://192.0.2.1:8000",
        "https://[2001:db8::1]:8000/v1",
        "http://127.0.0.1:8000",
        "http://127.8.9.10",
        "http://LOCALHOST:1",
        "http://[::1]:8000/v1",
    ],
)
def test_ordinary_address_is_taken_as_it_is(fine: str) -> None:
    assert address(fine) == fine


def test_allow_http_opens_plain_http_and_nothing_else() -> None:
    assert address("http://169.254.169.254", allow_http=True) == "http://169.254.169.254"
    with pytest.raises(ConfigInvalid):
        address("file:///etc/passwd", allow_http=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("http://localhost", True), ("https://127.1.2.3:9", True), ("http://[::1]", True), ("http://localhost.", False),
     ("http://x.localhost", False), ("http://10.0.0.1", False), ("http://", False), ("", False), ("http://[", False)],
)  # fmt: skip
def test_loopback_is_what_can_only_be_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# ---------------------------------------------------------------- references


def test_file_reference_is_read_and_stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert Endpoints({}).credential(deployment(api_key=f"file:{tmp_path / 'key'}")).reveal() == CANARY
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Endpoints({}).credential(deployment(api_key="file:~/key")).reveal() == CANARY


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"caf\xc3\xa9", b"\xff\xfe"])
def test_file_that_holds_no_key_is_missing_credential(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(MissingCredential):
        Endpoints({}).credential(deployment(api_key=f"file:{tmp_path / 'key'}"))


@pytest.mark.parametrize("name", ["absent", "."])
def test_file_that_cannot_be_read_is_missing_credential(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingCredential, match="cannot be read"):
        Endpoints({}).credential(deployment(api_key=f"file:{tmp_path / name}"))


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_file_without_an_end_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = Path(name)
    if name == "fifo":
        path = tmp_path / name
        os.mkfifo(path)
    with pytest.raises(MissingCredential):
        Endpoints({}).credential(deployment(api_key=f"file:{path}"))


def test_env_reference_wins_even_when_it_is_empty() -> None:
    endpoints = Endpoints({"OPENAI_API_KEY": "other"})
    with pytest.raises(MissingCredential, match="no key") as caught:
        endpoints.credential(deployment(api_key="env:MY_KEY"))
    assert caught.value.hint.startswith("set MY_KEY,")  # and not the variable that would not be read
    assert not endpoints.has_credential(deployment(api_key="env:MY_KEY"))
    assert Endpoints({"MY_KEY": "k"}).credential(deployment(api_key="env:MY_KEY")).reveal() == "k"


def test_literal_key_may_hold_a_colon() -> None:
    assert Endpoints({}).credential(deployment(api_key="user:pass")).reveal() == "user:pass"


def test_key_command_runs_once_without_a_shell(tmp_path: Path) -> None:
    script, runs = tmp_path / "key.py", str(tmp_path / "runs")
    script.write_text(f"open({runs!r}, 'a').write('x')\nprint({CANARY!r})")
    endpoints = Endpoints({})
    wanted = deployment(api_key=f"cmd:{sys.executable} {script} '$(exit 3)' ; false")
    assert endpoints.credential(wanted).reveal() == CANARY
    assert asyncio.run(endpoints.resolve_async(wanted)).key.reveal() == CANARY
    assert (tmp_path / "runs").read_text() == "x"


def test_output_of_a_key_command_is_kept_for_five_minutes_unless_it_was_refused(tmp_path: Path) -> None:
    script, runs, now = tmp_path / "key.py", tmp_path / "runs", 7.0
    script.write_text(f"open({str(runs)!r}, 'a').write('x')\nprint('token-' + open({str(runs)!r}).read())")
    endpoints = Endpoints({}, monotonic=lambda: now)
    wanted = deployment(api_key=f"cmd:{sys.executable} {script}")
    for later, token in ((0.0, "token-x"), (299.9, "token-x"), (0.1, "token-xx"), (299.0, "token-xx")):
        now += later
        assert endpoints.credential(wanted).reveal() == token
    endpoints.forget(deployment(api_key="cmd:other"))
    endpoints.forget(deployment(api_key="literal"))
    assert endpoints.credential(wanted).reveal() == "token-xx"
    endpoints.forget(wanted)
    assert endpoints.credential(wanted).reveal() == "token-xxx"


def test_a_key_command_that_failed_is_not_remembered(tmp_path: Path) -> None:
    endpoints, wanted = Endpoints({}), deployment(api_key=f"cmd:cat {tmp_path / 'key'}")
    with pytest.raises(MissingCredential):
        endpoints.credential(wanted)
    (tmp_path / "key").write_text(CANARY)
    assert endpoints.credential(wanted).reveal() == CANARY


def test_key_command_does_not_outlast_the_deadline(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "key")
    writer = os.open(fifo, os.O_RDWR)
    config = {"providers": {"openai": {"api_key": f"cmd:cat {fifo}"}}}
    with Client(config, environ={}, ledger=MemoryLedger(), clock=DrillClock(100)) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.complete("hi", model="openai/m", timeout=5)
        os.close(writer)
    assert caught.value.message == "openai/m: no credential came before the call's deadline"


def test_key_command_does_not_read_the_prompt_on_stdin() -> None:
    code = (
        "import sys\n"
        "from llmctl.core.catalog import Deployment, Provider\n"
        "from llmctl.run.endpoint import Endpoints\n"
        "key = Endpoints({}).credential(Deployment('d', Provider('p'), 'm', api_key='cmd:sh -c \"cat; echo key\"'))\n"
        "print(key.reveal(), sys.stdin.read())\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="prompt", capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "key prompt\n"


@pytest.mark.parametrize(
    "command",
    [
        f"{sys.executable} -c \"import sys; sys.exit('{CANARY}')\"",
        f"{sys.executable} -c \"print('{CANARY} and more')\"",
        f"{sys.executable} -c \"import sys; sys.stdout.buffer.write(b'{CANARY}\\xff')\"",
        f"/nowhere/{CANARY}",
        f"'{CANARY}",
        "",
    ],
)
def test_failing_key_command_shows_neither_output_nor_arguments(command: str) -> None:
    with pytest.raises(MissingCredential) as caught:
        Endpoints({}).credential(deployment(api_key=f"cmd:{command}"))
    assert CANARY not in caught.value.message + caught.value.hint


def test_planning_runs_no_command(tmp_path: Path) -> None:
    endpoints = Endpoints({})
    wanted = deployment(api_key=f"cmd:touch {tmp_path / 'ran'}")
    assert endpoints.has_credential(wanted)
    assert endpoints.obstacle(wanted) is None
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- whether there is a key


def test_blank_variable_is_no_key() -> None:
    endpoints = Endpoints({"OPENAI_API_KEY": " ", "BLANK": "\t"})
    assert not endpoints.has_credential(deployment())
    assert not endpoints.has_credential(deployment(api_key="env:BLANK"))
    assert isinstance(endpoints.obstacle(deployment()), MissingCredential)


def test_optional_key_is_sent_where_there_is_one() -> None:
    assert Endpoints({"OLLAMA_API_KEY": "k"}).credential(deployment(OLLAMA)).reveal() == "k"
    assert Endpoints({}).credential(deployment(OLLAMA)).reveal() == ""
    assert Endpoints({}).has_credential(deployment(OLLAMA))


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "caf\u00e9", "k\x00", "k\x7f"])
def test_key_with_characters_no_key_has_is_refused(key: str) -> None:
    with pytest.raises(MissingCredential) as caught:
        Endpoints({"OPENAI_API_KEY": key}).credential(deployment())
    assert key not in caught.value.message


def test_missing_key_names_the_variables() -> None:
    with pytest.raises(MissingCredential) as caught:
        Endpoints({}).credential(deployment())
    assert "OPENAI_API_KEY or OPENAI_KEY" in caught.value.hint


def test_protocol_that_is_not_spoken_is_an_obstacle() -> None:
    obstacle = Endpoints({"OPENAI_API_KEY": "k"}).obstacle(deployment(replace(OPENAI, protocol="smoke-signals")))
    assert isinstance(obstacle, ConfigInvalid)
    assert "openai" in obstacle.hint


def test_offline_allows_loopback_and_the_embedded_model_only() -> None:
    endpoints = Endpoints({"LLMCTL_OFFLINE": "1", "OPENAI_API_KEY": "k"})
    assert isinstance(endpoints.obstacle(deployment()), ConnectionFailed)
    assert isinstance(endpoints.obstacle(deployment(api_base="http://10.0.0.1", allow_http=True)), ConnectionFailed)
    assert endpoints.obstacle(deployment(api_base="http://127.0.0.1:1")) is None
    assert endpoints.obstacle(deployment(Provider("local", api_base="local:"))) is None
    assert Endpoints({"LLMCTL_OFFLINE": "0", "OPENAI_API_KEY": "k"}).obstacle(deployment()) is None


def test_nothing_shows_the_secret() -> None:
    endpoint = Endpoints({"OPENAI_API_KEY": CANARY}).resolve(deployment())
    assert CANARY not in f"{endpoint} {endpoint!r} {endpoint.key} {endpoint.key!r} {vars(type(endpoint.key))}"


# ---------------------------------------------------------------- how a credential and headers are sent


@pytest.mark.parametrize(
    ("of_deployment", "of_provider", "bearer"),
    [("", "", False), ("bearer", "", True), ("", "bearer", True), ("key", "bearer", False), ("bearer", "key", True)],
)
def test_the_deployment_says_before_the_provider_how_its_key_is_sent(
    of_deployment: str, of_provider: str, bearer: bool
) -> None:
    wanted = deployment(replace(OPENAI, auth=of_provider), auth=of_deployment)
    assert Endpoints({"OPENAI_API_KEY": "k"}).resolve(wanted).bearer is bearer


def test_version_of_the_deployment_before_the_variable() -> None:
    azure = Provider("azure", protocol="azure", api_base="https://r.openai.azure.com", key=("AZURE_API_KEY",))
    environ = {"AZURE_API_KEY": "k", "AZURE_API_VERSION": " 2025-04-01-preview "}
    assert Endpoints(environ).resolve(deployment(azure)).api_version == "2025-04-01-preview"
    assert Endpoints(environ).resolve(deployment(azure, api_version="2024-06-01")).api_version == "2024-06-01"
    assert Endpoints({"AZURE_API_KEY": "k"}).resolve(deployment(azure)).api_version == ""


def headed(environ: dict[str, str], of_provider: dict[str, str], of_deployment: dict[str, str]) -> Endpoint:
    wanted = deployment(replace(OPENAI, headers=of_provider), headers=of_deployment)
    return Endpoints({"OPENAI_API_KEY": "k", **environ}).resolve(wanted)


def test_headers_of_the_deployment_before_the_providers_whatever_their_case() -> None:
    endpoint = headed(
        {"V": " from env "}, {"X-A": "provider", "X-B": "env:V"}, {"x-a": "deployment", "X-C": "env:NONE"}
    )
    assert endpoint.headers == {"x-a": "deployment", "x-b": "from env"}
    assert headed({}, {"X-A": "provider"}, {"X-A": "env:NONE"}).headers == {"x-a": "provider"}


def test_the_users_headers_go_over_the_protocols_own_and_over_the_key() -> None:
    endpoint = headed({}, {}, {"Authorization": "Basic eDp5", "Accept": "text/event-stream"})
    sent = endpoint.headed(endpoint.authorization, {"x-own": "1"})
    assert (sent["authorization"], sent["accept"], sent["x-own"]) == ("Basic eDp5", "text/event-stream", "1")
    assert sent["content-type"] == "application/json"


def test_what_a_header_holds_in_secret_is_never_shown() -> None:
    endpoint = headed(
        {"TOKEN": f"Bearer {CANARY}"},
        {"x-plain": "shown", "X-Api-Key": "literal-secret"},
        {"authorization": "env:TOKEN"},
    )
    said = redact(f"shown Bearer {CANARY} and {CANARY} and literal-secret", endpoint.secrets)
    assert said == "shown *** and *** and ***"


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "caf\u00e9", "a\x00"])
def test_a_variable_that_no_header_can_hold_is_refused_unseen(value: str) -> None:
    with pytest.raises(MissingCredential, match="header x-a from env:V") as caught:
        headed({"V": value}, {"x-a": "env:V"}, {})
    assert value not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("key", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_openais_organization_and_project_are_sent_when_the_environment_has_them(key: str) -> None:
    found = provider("openai", packaged()["providers"]["openai"])
    header = {"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"}[key]
    assert Endpoints({"OPENAI_API_KEY": "k", key: "it"}).resolve(deployment(found)).headers == {header: "it"}
    assert Endpoints({"OPENAI_API_KEY": "k"}).resolve(deployment(found)).headers == {}


# ---------------------------------------------------------------- kept keys


@pytest.fixture
def kept(tmp_path) -> Keys:
    keys = Keys(tmp_path / "keys.json")
    for name in ("openai", "ollama", "bedrock", "local"):
        keys.put(name, CANARY)
    return keys


@pytest.mark.parametrize(
    ("environ", "changes", "reference", "expected"),
    [
        ({}, {}, "", CANARY),
        ({"OPENAI_KEY": "second"}, {}, "", "second"),
        ({"OPENAI_API_KEY": " "}, {}, "", CANARY),
        ({}, {"api_key": "of-provider"}, "", "of-provider"),
        ({}, {"api_key": "of-provider"}, "of-deployment", "of-deployment"),
        ({"MINE": "mine"}, {}, "env:MINE", "mine"),
    ],
)
def test_a_kept_key_stands_below_every_other_and_all_agree_on_it(kept, environ, changes, reference, expected):
    endpoints, wanted = Endpoints(environ, keys=kept), deployment(replace(OPENAI, **changes), api_key=reference)
    place = endpoints.key_place(wanted.provider, reference or wanted.provider.api_key)
    assert endpoints.credential(wanted).reveal() == endpoints.identity(wanted) == expected
    assert (place.present == "keys") is (expected == CANARY)
    assert endpoints.has_credential(wanted)
    assert endpoints.obstacle(wanted) is None
    assert endpoints.resolve(wanted).key.reveal() == expected


def test_a_reference_to_an_unset_variable_is_not_helped_out_by_a_kept_key(kept):
    wanted = deployment(api_key="env:MINE")
    assert not Endpoints({}, keys=kept).has_credential(wanted)
    with pytest.raises(MissingCredential):
        Endpoints({}, keys=kept).credential(wanted)


def test_a_kept_key_is_used_where_none_is_needed_but_never_by_the_embedded_model(kept):
    endpoints = Endpoints({}, keys=kept)
    assert endpoints.credential(deployment(OLLAMA)).reveal() == CANARY
    assert endpoints.credential(deployment(Provider("local"))).reveal() == ""


def test_the_file_of_kept_keys_is_not_looked_at_where_a_variable_has_a_key(tmp_path):
    (tmp_path / "keys.json").write_text("damaged")
    keys = Keys(tmp_path / "keys.json")
    assert Endpoints({"OPENAI_API_KEY": "k"}, keys=keys).credential(deployment()).reveal() == "k"
    assert keys.warnings == []


def test_a_damaged_file_of_kept_keys_is_named_where_a_key_is_missed(tmp_path):
    (tmp_path / "keys.json").write_text("damaged")
    (tmp_path / "keys.json").chmod(0o644)
    obstacle = Endpoints({}, keys=Keys(tmp_path / "keys.json")).obstacle(deployment())
    assert isinstance(obstacle, MissingCredential)
    assert "keys.json is damaged" in obstacle.hint
    assert "keys set openai" in obstacle.hint
