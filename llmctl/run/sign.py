"""Requests to Amazon: the region, the keys of Amazon's credential chain, and the signature, made by botocore.

botocore is an extra and slow to load, so it is imported where it is needed. It is asked for what it alone knows: the
chain (profiles, SSO, containers, instance metadata) and Signature Version 4. Keys in the given environment are found
without the chain; the chain itself reads the process's own environment, which differs from a library caller's `environ`
in all but the profile and the two files.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmctl.core.errors import ConfigInvalid, MissingCredential
from llmctl.core.redact import Secret
from llmctl.run import extras
from llmctl.wire.base import AwsKeys, HttpRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.wire.base import Endpoint

SERVICE = "bedrock"
_REGIONS = ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")
_REGION = r"[a-z]{2,}(?:-[a-z]+)+-\d{1,2}"
_HOST = re.compile(
    rf"(?:.*\.)?bedrock(?:-runtime)?(?:-fips)?\.({_REGION})\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)\.?"
)
_ARN = re.compile(rf"arn:aws[a-z-]*:(?:bedrock|sagemaker):({_REGION}):")
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_FILES = {
    "config_file": ("AWS_CONFIG_FILE", "~/.aws/config"),
    "credentials_file": ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
}
_CLUES = (
    "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT", *_PROFILES,
)  # fmt: skip
# Where Linux tells that it is an instance of EC2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
_EC2 = (("/sys/devices/virtual/dmi/id/sys_vendor", "amazon ec2"), ("/sys/hypervisor/uuid", "ec2"))
_REMOTE = ("assume-role", "assume-role-with-web-identity", "sso", "login", "container-role", "iam-role")
"""The links of the chain that ask another machine: left out under LLMCTL_OFFLINE=1."""
_HINT = (
    "set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "or try the embedded model: llmctl ask -m local"
)
_HINTS = {
    "ProfileNotFound": "check AWS_PROFILE and the file ~/.aws/config",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together",
    "SSOTokenLoadError": "run `aws sso login`",
    "UnauthorizedSSOTokenError": "run `aws sso login`",
    "TokenRetrievalError": "run `aws sso login`",
    "LoginTokenLoadError": "run `aws login`",
    "LoginRefreshRequired": "run `aws login`",
}
_renewing: dict[tuple[tuple[str, str], ...], Any] = {}
"""Credentials that renew themselves, by the variables they were found with; others are read anew for each call."""


def address_of(model: str, environ: Mapping[str, str]) -> str:
    """The address of Bedrock's runtime for `model`. Raises ConfigInvalid without a region."""
    said = environ.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "").strip()
    if said:
        return said
    region = region_of(model, environ)
    fips = "-fips" if environ.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true" else ""
    return f"https://bedrock-runtime{fips}.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def region_of(model: str, environ: Mapping[str, str]) -> str:
    """The region of an ARN in `model`, else of the environment, else of the profile. Raises ConfigInvalid."""
    arn = _ARN.match(model)
    if arn:
        return arn[1]
    region = next((said for name in _REGIONS if (said := environ.get(name, "").strip())), "")
    region = region or _region_of_profile(environ)
    if not region:
        raise ConfigInvalid(
            "Amazon Bedrock has no region", hint="set AWS_REGION, or api_base in the configuration, or use an ARN"
        )
    if not re.fullmatch(_REGION, region):
        raise ConfigInvalid(f"{region[:60]!a} is no region of Amazon's", hint="write it like us-east-1")
    return region


def has_clue(environ: Mapping[str, str]) -> bool:
    """Whether the credential chain has somewhere to look. Opens no socket; instance metadata counts on EC2 only."""
    if any(environ.get(name, "").strip() for name in _CLUES) or any(_file(name, environ).is_file() for name in _FILES):
        return True
    if environ.get("LLMCTL_OFFLINE") == "1" or environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    return any(_beginning(path).startswith(word) for path, word in _EC2)


def missing() -> MissingCredential:
    """The error when the chain finds nothing."""
    return MissingCredential("no key for Amazon Bedrock", hint=_HINT)


def with_aws_keys(endpoint: Endpoint, environ: Mapping[str, str], model: str = "") -> Endpoint:
    """`endpoint` with the keys of Amazon's credential chain, current ones, and the region of its host or of `model`.

    Raises MissingCredential, whatever goes wrong in the chain, and ConfigInvalid without a region or without botocore.
    """
    if not extras.installed("bedrock"):
        raise extras.missing("bedrock", "Amazon Bedrock")
    host = _HOST.fullmatch(urlsplit(endpoint.api_base).hostname or "")
    region = host[1] if host else region_of(model, environ)
    with _told():
        found = _credentials(environ)
        frozen = found and found.get_frozen_credentials()
    if not frozen or not frozen.access_key or not frozen.secret_key:
        raise missing()
    values = [(value or "").strip() for value in (frozen.access_key, frozen.secret_key, frozen.token)]
    if any(not 0x20 < ord(c) < 0x7F for value in values for c in value):
        raise MissingCredential("Amazon's keys hold characters no key has", hint="check for line breaks and quotes")
    access, secret, token = (Secret(value, found.method) for value in values)
    keys = AwsKeys(values[0], secret, token, region)
    return replace(endpoint, aws=keys, hidden=(*endpoint.hidden, access, secret, token))


def signed(http: HttpRequest, keys: AwsKeys, now: float) -> HttpRequest:
    """`http` with its signature (Signature Version 4), made at `now` (Unix seconds).

    The signer's public steps and not its `add_auth`, which takes the machine's clock and logs what it signs.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, read 2026-11-20.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    token = keys.session_token.reveal()
    headers = {name: value for name, value in http.headers.items() if name != "authorization"}
    headers["x-amz-date"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    if token:
        headers["x-amz-security-token"] = token
    request = AWSRequest(method=http.method, url=http.url, headers=headers, data=http.body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(keys.access_key, keys.secret_key.reveal(), token or None), SERVICE, keys.region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )
    return HttpRequest(http.method, http.url, headers, http.body)


def _credentials(environ: Mapping[str, str]) -> Any:
    """What the chain finds first, None when it finds nothing."""
    from botocore.credentials import CredentialResolver, EnvProvider, RefreshableCredentials

    found = EnvProvider(environ).load()
    if found is not None:
        return found
    offline = environ.get("LLMCTL_OFFLINE") == "1"
    asked = tuple(sorted((k, v) for k, v in environ.items() if k.startswith("AWS_") or k in ("HOME", "LLMCTL_OFFLINE")))
    if asked not in _renewing:
        chain = _session(environ).get_component("credential_provider").providers
        skipped = ("env", *(_REMOTE if offline else ()))
        found = CredentialResolver([each for each in chain if each.METHOD not in skipped]).load_credentials()
        if not isinstance(found, RefreshableCredentials):
            return found
        _renewing[asked] = found
    return _renewing[asked]


def _session(environ: Mapping[str, str]) -> Any:
    from botocore.session import Session

    session = Session(profile=next((said for name in _PROFILES if (said := environ.get(name))), None))
    for variable, (name, _) in _FILES.items():
        if environ.get(name):
            session.set_config_variable(variable, environ[name])
    return session


def _region_of_profile(environ: Mapping[str, str]) -> str:
    if not extras.installed("bedrock") or not any(_file(name, environ).is_file() for name in _FILES):
        return ""
    try:
        with _told():
            region = _session(environ).get_scoped_config().get("region")
    except MissingCredential as error:
        raise ConfigInvalid(f"the region of the profile: {error.message}", hint=error.hint) from None
    return region.strip() if isinstance(region, str) else ""


@contextmanager
def _told() -> Iterator[None]:
    """Whatever botocore raises as MissingCredential. Its own words are not shown: they may hold a command's output."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (
        BotoCoreError, ClientError, OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
        RuntimeError, ImportError,
    ) as error:  # fmt: skip
        name = type(error).__name__
        raise MissingCredential(
            f"Amazon's credential chain failed: {name}", hint=_HINTS.get(name, "run `aws sts get-caller-identity`")
        ) from None


def _file(name: str, environ: Mapping[str, str]) -> Path:
    variable, default = _FILES[name]
    try:
        return Path(environ.get(variable) or default).expanduser()
    except RuntimeError:  # no home
        return Path(default)


def _beginning(path: str) -> str:
    try:
        return Path(path).read_bytes()[:32].decode("ascii", "replace").strip().lower()
    except OSError:
        return ""
