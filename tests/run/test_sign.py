"""Calls to Bedrock as Amazon would see them: addresses, keys of every source, signatures, and real binary streams.

Amazon itself is never asked. Instance metadata, SSO and container credentials are stubs on loopback which answer in the
documented shapes; the Bedrock of these tests is a loopback server that checks each signature with a signer of its own,
written from https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from servers import FaultServer

from llmctl import Client
from llmctl.core.catalog import Deployment
from llmctl.core.errors import ConfigInvalid, MissingCredential, StreamTruncated, Unauthorized
from llmctl.core.redact import Secret
from llmctl.run import sign
from llmctl.run.endpoint import Endpoints
from llmctl.testing import MemoryLedger
from llmctl.wire.base import AwsKeys, Endpoint, HttpRequest
from tests.wire import frames
from tests.wire.fixtures import cases, providers

if TYPE_CHECKING:
    from servers import Behaviour, Exchange, Received

pytest.importorskip("botocore")

MODEL = "arn:aws:bedrock:eu-west-1:1:inference-profile/us.anthropic.claude-x-v1:0"
ACCESS, SECRET, TOKEN = "AKIACANARY7F3A9C2E51", "s3cr3t/Canary+84b06d15e2c9f7a3", "FwoG/canary+token+91e5d27c06=="
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
ANSWER = (
    frames.START + frames.delta({"text": "Hel"}) + frames.delta({"text": "lo"}) + frames.stop() + frames.usage(12, 5)
)
SIGNED = [case for case in cases("requests") if "sigv4" in case.data]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which the chain finds nothing, and no service but the stubs."""
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONWARNINGS": "error",
        "HOME": str(tmp_path), "LLMCTL_HOME": str(tmp_path / "llmctl"), "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }  # fmt: skip


def deployment(model: str = MODEL, **changes: Any) -> Deployment:
    return replace(Deployment("d", providers()["bedrock"], model), **changes)


# --- the signature --------------------------------------------------------------------------------------------------


def signature(request: Received, secret: str, region: str) -> str:
    """The signature that `request` should have."""
    names = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])
    assert names is not None
    rows = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names[1].split(";"))
    body = hashlib.sha256(request.body).hexdigest()
    path = quote(request.path, safe="/-_.~")
    canonical = "\n".join([request.method, path, "", rows, names[1], body])
    date = request.headers["x-amz-date"]
    scope = f"{date[:8]}/{region}/bedrock/aws4_request"
    key = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(key, text.encode(), "sha256").hex()


def bedrock(region: str = "eu-west-1", secret: str = SECRET, answer: bytes = ANSWER) -> Behaviour:
    """A Bedrock that streams `answer` to whoever signed with these keys, and refuses all others, as Amazon words it."""

    async def behave(x: Exchange) -> None:
        said = x.request.headers.get("authorization", "")
        if said.endswith("Signature=" + signature(x.request, secret, region)):
            await x.respond(200, answer, {"content-type": "application/vnd.amazon.eventstream"})
            return
        headers = {"x-amzn-errortype": "InvalidSignatureException:http://internal.amazon.com/"}
        message = f"The Canonical String should have been {x.request.headers}, key {SECRET} {ACCESS}"
        await x.respond(403, json.dumps({"message": message}).encode(), headers)

    return behave


@pytest.mark.parametrize("case", SIGNED, ids=repr)
def test_a_signature_is_the_sdks_own(case: Any):
    how, theirs = case.data["sigv4"], case.data["request"]
    asked = case.data["canonical"]
    keys = AwsKeys(
        how["access_key"], Secret(how["secret_key"]), Secret(asked.get("aws_session_token", "")),
        asked.get("region", "us-east-1"),
    )  # fmt: skip
    own = {k: v for k, v in theirs["headers"].items() if k in ("content-type", "accept")}
    http = HttpRequest(theirs["method"], theirs["url"], own, (theirs["body_text"] or "").encode())
    assert dict(sign.signed(http, keys, 1_767_323_045.0).headers) == theirs["headers"]  # 2026-01-02T03:04:05Z


def test_an_authorization_that_was_there_is_replaced_and_the_body_stays():
    http = HttpRequest("POST", "https://h/x", {"authorization": "Bearer x", "a": "b"}, b"{}")
    signed = sign.signed(http, AwsKeys("AKIA", Secret("s"), Secret(""), "us-east-1"), 0.0)
    assert signed.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/19700101/us-east-1/bedrock/")
    assert (signed.headers["x-amz-date"], signed.body) == ("19700101T000000Z", b"{}")


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "model", "address"),
    [
        ({"AWS_REGION_NAME": "eu-west-1", "AWS_REGION": "us-east-2"}, "m", "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ({"AWS_REGION": " eu-west-2 ", "AWS_DEFAULT_REGION": "us-east-2"}, "m", "https://bedrock-runtime.eu-west-2.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "us-gov-west-1"}, "m", "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ({"AWS_REGION": "us-east-1"}, MODEL, "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ({"AWS_REGION": "cn-north-1"}, "m", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"}, "m", "https://bedrock-runtime-fips.us-east-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "https://vpc.example"}, "m", "https://vpc.example"),
        ({"BEDROCK_API_BASE": "https://a.example", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "https://b.example"}, "m", "https://a.example"),
    ],
)  # fmt: skip
def test_an_address_comes_from_the_region_unless_one_is_said(
    environ: dict[str, str], variables: dict[str, str], model: str, address: str
):
    assert Endpoints(environ | variables).address(deployment(model)) == address


def test_the_region_of_the_profile_counts_last(environ: dict[str, str]):
    Path(environ["AWS_CONFIG_FILE"]).write_text("[profile dev]\nregion = ap-south-1\n[default]\nregion = us-west-2\n")
    address = "https://bedrock-runtime.{}.amazonaws.com".format
    assert Endpoints(environ).address(deployment("m")) == address("us-west-2")
    assert Endpoints(environ | {"AWS_PROFILE": "dev"}).address(deployment("m")) == address("ap-south-1")
    assert Endpoints(environ | {"AWS_PROFILE": "dev", "AWS_REGION": "eu-north-1"}).address(deployment("m")) == address(
        "eu-north-1"
    )


@pytest.mark.parametrize("region", ["", "evil.example/", "us_east_1", "us-east-1.evil.example", "x" * 300])
def test_no_region_and_no_region_of_amazons_is_said_before_anything_is_sent(environ: dict[str, str], region: str):
    endpoints = Endpoints(environ | KEYS | {"AWS_REGION": region})
    with pytest.raises(ConfigInvalid):
        endpoints.address(deployment("m"))
    assert isinstance(endpoints.obstacle(deployment("m")), ConfigInvalid)


@pytest.mark.parametrize(
    ("base", "region"),
    [
        ("https://bedrock-runtime.ap-south-1.amazonaws.com", "ap-south-1"),
        ("https://bedrock-runtime-fips.us-gov-east-1.amazonaws.com/", "us-gov-east-1"),
        ("https://vpce-1.bedrock-runtime.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ("https://bedrock-runtime.us-east-2.api.aws", "us-east-2"),
        ("https://bedrock-runtime.us-east-2.amazonaws.com.evil.example", "eu-west-1"),
        ("https://proxy.example/bedrock", "eu-west-1"),
    ],
)
def test_a_request_is_signed_for_the_region_of_its_host(environ: dict[str, str], base: str, region: str):
    found = sign.with_aws_keys(Endpoint(base, Secret("")), environ | KEYS, MODEL)
    assert found.aws is not None
    assert found.aws.region == region


def test_a_profile_that_is_not_there_and_a_missing_botocore_are_obstacles(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    Path(environ["AWS_CONFIG_FILE"]).write_text("[default]\nregion = us-west-2\n")
    error = Endpoints(environ | {"AWS_PROFILE": "nobody"}).obstacle(deployment("m"))
    assert isinstance(error, ConfigInvalid)
    assert "AWS_PROFILE" in error.hint
    monkeypatch.setitem(sys.modules, "botocore", None)
    endpoints = Endpoints(environ | KEYS)
    assert "[bedrock]" in getattr(endpoints.obstacle(deployment("m")), "hint", "")
    for ask in (endpoints.address, endpoints.resolve):
        with pytest.raises(ConfigInvalid):
            ask(deployment("m"))


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_bearer_key_is_sent_as_it_is_and_nothing_is_signed(environ: dict[str, str]):
    bearer = {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key-canary"}
    for given, chosen in (
        (environ | KEYS | bearer, deployment()),
        (environ, deployment(api_key="bedrock-api-key-canary")),
    ):
        endpoints = Endpoints(given)
        assert endpoints.obstacle(chosen) is None
        found = endpoints.resolve(chosen)
        assert (found.aws, found.authorization) == (None, {"authorization": "Bearer bedrock-api-key-canary"})


def test_nothing_to_look_for_is_a_missing_key_and_any_source_may_hold_one(environ: dict[str, str], tmp_path: Path):
    assert isinstance(error := Endpoints(environ).obstacle(deployment()), MissingCredential)
    assert "AWS_PROFILE" in error.hint
    for name in ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        assert Endpoints(environ | {name: "x"}).obstacle(deployment()) is None
    (tmp_path / "credentials").write_text("[default]\n")
    assert Endpoints(environ).obstacle(deployment()) is None
    with pytest.raises(MissingCredential):  # the chain itself looks into the file
        Endpoints(environ | {"LLMCTL_OFFLINE": "1"}).resolve(deployment())


def test_keys_of_the_environment_come_before_those_of_a_profile(environ: dict[str, str], tmp_path: Path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = d\n"
        "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = e\naws_session_token = t\n"
    )

    def key(**more: str) -> Any:
        return Endpoints(environ | more).resolve(deployment()).aws

    assert key().access_key == "AKIADEFAULT"
    assert (key(AWS_PROFILE="dev").access_key, key(AWS_PROFILE="dev").session_token.reveal()) == ("AKIADEV", "t")
    assert key(AWS_PROFILE="dev", **KEYS).access_key == ACCESS
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = d\n")
    assert key().access_key == "AKIANEW"  # plain keys are read anew


@pytest.mark.parametrize(
    ("variables", "config"),
    [
        ({"AWS_ACCESS_KEY_ID": ACCESS}, ""),
        ({"AWS_PROFILE": "nobody"}, ""),
        ({}, "[default\n"),
        ({}, "[default]\ncredential_process = /bin/sh -c 'echo SECRETCANARY >&2; exit 3'\n"),
        ({}, "[default]\ncredential_process = /nonexistent\n"),
        ({}, "[default]\ncredential_process = echo SECRETCANARY\n"),
        ({}, "[default]\nsso_account_id = 1\nsso_role_name = r\nsso_region = us-east-1\nsso_start_url = https://x\n"),
        ({}, "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n"),
        (KEYS | {"AWS_SECRET_ACCESS_KEY": "two\nlines"}, ""),
        (KEYS | {"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}, ""),
        (KEYS | {"AWS_CREDENTIAL_EXPIRATION": "whenever"}, ""),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/"}, ""),
    ],
)
def test_whatever_goes_wrong_in_the_chain_is_a_missing_key_without_its_words(
    environ: dict[str, str], variables: dict[str, str], config: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    Path(environ["AWS_CONFIG_FILE"]).write_text(config)
    given = environ | variables
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingCredential) as caught:
        Endpoints(given).resolve(deployment())
    told = repr(caught.value) + caught.value.message + caught.value.hint
    assert "CANARY" not in told.upper().replace(ACCESS, "")
    assert caught.value.__cause__ is None
    assert capfd.readouterr() == ("", "")


# --- calls ----------------------------------------------------------------------------------------------------------


def client(server: FaultServer, environ: dict[str, str], **more: Any) -> Client:
    config = {"models": {"m": {"model": f"bedrock/{MODEL}", "api_base": server.url, **more}}}
    return Client(config | {"retry": {"retries": 0}}, environ=environ, ledger=MemoryLedger())


def test_a_signed_call_streams_a_binary_answer(environ: dict[str, str]):
    with FaultServer(bedrock()) as server, client(server, environ | KEYS) as asking:
        stream = asking.stream("hi", model="m")
        assert [event.text for event in stream if event.text] == ["Hel", "lo"]
        answer = asking.complete("hi", model="m")
    assert (answer.text, answer.finish_reason, answer.usage.input_tokens) == ("Hello", "stop", 12)
    sent = server.requests[0]
    assert sent.path == f"/model/{quote(MODEL, safe='')}/converse-stream"
    assert sent.headers["x-amz-security-token"] == TOKEN
    assert "accept" not in sent.headers


def test_a_refused_signature_is_unauthorized_and_shows_no_secret(environ: dict[str, str]):
    refusing = FaultServer(bedrock(secret="another"))
    with refusing as server, client(server, environ | KEYS) as asking, pytest.raises(Unauthorized) as caught:
        asking.complete("hi", model="m")
    told = caught.value.message + caught.value.hint + repr(caught.value.attempts)
    assert "Canonical String" in told
    for secret in (ACCESS, SECRET, TOKEN):
        assert secret not in told


def test_a_stream_that_breaks_in_a_frame_is_no_answer(environ: dict[str, str]):
    whole = frames.START + frames.delta({"text": "Hel"})
    for cut in (len(whole), len(whole) - 5):
        breaking = FaultServer(bedrock(answer=ANSWER[:cut]))
        with breaking as server, client(server, environ | KEYS) as asking, pytest.raises(StreamTruncated):
            asking.complete("hi", model="m")


# --- identity services, on loopback ---------------------------------------------------------------------------------

ASK = """
import sys, llmctl
config = {"models": {"m": {"model": sys.argv[1], "api_base": sys.argv[2]}}}
with llmctl.Client(config) as client:
    for _ in range(2):
        print(client.complete("hi", model="m").text)
"""


def ask(environ: dict[str, str], server: FaultServer) -> tuple[str, str]:
    """What two calls in a process of its own wrote: its environment is what botocore reads."""
    command = [sys.executable, "-c", ASK, f"bedrock/{MODEL}", server.url]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout, done.stderr


def issued(**names: str) -> dict[str, Any]:
    return {names["access"]: ACCESS, names["secret"]: SECRET, names["token"]: TOKEN}


def service(routes: dict[tuple[str, str], bytes], header: str, value: str, free: str = "") -> Behaviour:
    """A stub that answers `routes` to who shows `value` in `header`; `free` is the path that asks for no header."""

    async def behave(x: Exchange) -> None:
        path = x.request.path.partition("?")[0]
        shown = x.request.headers.get(header) == value or path == free
        body = routes.get((x.request.method, path)) if shown else None
        await x.respond(200 if body else 401, body or b"no", {"content-type": "application/json"})

    return behave


def test_instance_metadata_gives_keys_after_its_token(environ: dict[str, str]):
    keys = issued(access="AccessKeyId", secret="SecretAccessKey", token="Token")
    keys |= {"Code": "Success", "Expiration": "2099-01-01T00:00:00Z"}
    roles = "/latest/meta-data/iam/security-credentials/"
    routes = {
        ("PUT", "/latest/api/token"): b"imds-token",
        ("GET", roles): b"role",
        ("GET", roles + "role"): json.dumps(keys).encode(),
    }
    stub = service(routes, "x-aws-ec2-metadata-token", "imds-token", free="/latest/api/token")
    with FaultServer(stub) as metadata, FaultServer(bedrock()) as server:
        environ |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_EC2_METADATA_DISABLED": "false"}
        assert ask(environ, server) == ("Hello\nHello\n", "")
        assert len(metadata.requests) == 3  # keys that last are kept
        assert len(server.requests) == 2
        out, err = ask(environ | {"LLMCTL_OFFLINE": "1"}, server)
        assert (out, len(metadata.requests)) == ("", 3)
        assert "MissingCredential" in err


def test_keys_that_soon_expire_are_renewed_for_each_call(environ: dict[str, str]):
    keys = issued(access="AccessKeyId", secret="SecretAccessKey", token="Token")
    keys |= {"Expiration": (datetime.now(UTC) + timedelta(minutes=2)).isoformat()}
    stub = service({("GET", "/k"): json.dumps(keys).encode()}, "authorization", "let-me")
    with FaultServer(stub) as container, FaultServer(bedrock()) as server:
        environ |= {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + "/k", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let-me",
        }  # fmt: skip
        assert ask(environ, server) == ("Hello\nHello\n", "")
    assert len(container.requests) == 3


def test_a_container_gives_keys_to_who_shows_its_token(environ: dict[str, str]):
    keys = issued(access="AccessKeyId", secret="SecretAccessKey", token="Token")
    keys |= {"Expiration": "2099-01-01T00:00:00Z"}
    stub = service({("GET", "/v2/keys"): json.dumps(keys).encode()}, "authorization", "let-me")
    with FaultServer(stub) as container, FaultServer(bedrock()) as server:
        environ |= {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + "/v2/keys",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let-me",
        }
        assert ask(environ, server) == ("Hello\nHello\n", "")


def test_a_login_by_sso_gives_keys_for_its_cached_token(environ: dict[str, str], tmp_path: Path):
    start = "https://corp.awsapps.example/start"
    Path(environ["AWS_CONFIG_FILE"]).write_text(
        f"[profile dev]\nsso_start_url = {start}\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "sso-token", "expiresAt": "2099-01-01T00:00:00Z", "startUrl": start}
    (cache / (hashlib.sha1(start.encode()).hexdigest() + ".json")).write_text(json.dumps(token))
    keys = issued(access="accessKeyId", secret="secretAccessKey", token="sessionToken") | {"expiration": 4070908800000}
    routes = {("GET", "/federation/credentials"): json.dumps({"roleCredentials": keys}).encode()}
    with FaultServer(service(routes, "x-amz-sso_bearer_token", "sso-token")) as sso, FaultServer(bedrock()) as server:
        environ |= {"AWS_ENDPOINT_URL_SSO": sso.url, "AWS_PROFILE": "dev"}
        assert ask(environ, server) == ("Hello\nHello\n", "")
