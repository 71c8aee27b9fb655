"""Where an attempt goes and with which key: the address and the credential of a deployment, resolved just before use.

Precedence of both (contract, section 7): deployment, `[providers.X]`, the field's environment variables, built-in.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from llmctl.core.errors import ConfigInvalid, ConnectionFailed, LlmctlError, MissingCredential
from llmctl.core.redact import Secret, names_secret
from llmctl.run import extras
from llmctl.run.background import unattended
from llmctl.wire.base import PROTOCOLS, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.core.catalog import Deployment, Provider

AMAZON = "bedrock"
"""The protocol whose requests are signed, unless there is a bearer key."""
COMMAND_TIMEOUT_S = 30.0
KEPT_S = 300.0
"""How long the output of a `cmd:` reference is used again: it may be a token that expires, such as Entra's."""
_LONGEST_KEY = 1 << 16
# Letters, digits and hyphens (RFC 1123, 2.1), and the underscore of internal names; what is not ASCII is written xn--.
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


class KeyPlace(NamedTuple):
    """Where a key is looked for: `variables` of the environment; `present` names the place of one, never its value."""

    variables: tuple[str, ...]
    present: str | None
    needed: bool


class Endpoints:
    """Resolves endpoints from an environment; the output of a `cmd:` reference is kept for `KEPT_S`."""

    def __init__(self, environ: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._environ = environ
        self._monotonic = monotonic
        self._commands: dict[str, tuple[float, str]] = {}

    def resolve(self, deployment: Deployment) -> Endpoint:
        """The endpoint of `deployment`. Raises MissingCredential or ConfigInvalid."""
        provider = deployment.provider
        headers, hidden = self._headers(deployment)
        endpoint = Endpoint(
            self.address(deployment),
            self.credential(deployment),
            bearer=(deployment.auth or provider.auth) == "bearer",
            api_version=deployment.api_version
            or self._environ.get(f"{provider.name.upper().replace('-', '_')}_API_VERSION", "").strip(),
            headers=headers,
            hidden=hidden,
        )
        if provider.protocol != AMAZON or endpoint.key:
            return endpoint
        from llmctl.run.sign import with_aws_keys

        return with_aws_keys(endpoint, self._environ, deployment.model)

    async def resolve_async(self, deployment: Deployment) -> Endpoint:
        """As `resolve`; a `cmd:` reference or Amazon's credential chain blocks no event loop, nor who has given up."""
        if deployment.provider.protocol == AMAZON or _reference(deployment).startswith("cmd:"):
            return await unattended(lambda: self.resolve(deployment))
        return self.resolve(deployment)

    def forget(self, deployment: Deployment) -> None:
        """Ask the `cmd:` reference of `deployment` again the next time: what it gave was refused."""
        self._commands.pop(_reference(deployment).removeprefix("cmd:"), None)

    def obstacle(self, deployment: Deployment) -> LlmctlError | None:
        """Why `deployment` cannot be asked at all, None when it can. Runs no command and opens no socket."""
        provider = deployment.provider
        if provider.protocol not in PROTOCOLS:
            return ConfigInvalid(
                f"{deployment.served_by}: protocol {provider.protocol!r} is not spoken by this version",
                hint=f"it speaks: {', '.join(sorted(PROTOCOLS))}",
            )
        if provider.protocol == AMAZON and not extras.installed("bedrock"):
            return extras.missing("bedrock", "Amazon Bedrock")
        if not self.has_credential(deployment):
            return _missing(deployment)
        try:
            address = self.address(deployment)
        except ConfigInvalid as error:
            return error
        if self._environ.get("LLMCTL_OFFLINE") == "1" and not deployment.is_local and not is_loopback(address):
            return ConnectionFailed(
                f"{deployment.served_by}: LLMCTL_OFFLINE=1 allows no address beyond this machine",
                hint="unset LLMCTL_OFFLINE, or ask a model on this machine",
            )
        return None

    def identity(self, deployment: Deployment) -> str:
        """What tells this deployment's credential from others: itself, or how a command or Amazon's chain finds it."""
        if deployment.provider.protocol == AMAZON or _reference(deployment).startswith("cmd:"):
            return _reference(deployment) or AMAZON
        try:
            return self.credential(deployment).reveal()
        except LlmctlError:
            return _reference(deployment)

    def has_credential(self, deployment: Deployment) -> bool:
        """Whether a credential is set for `deployment`, or none is needed."""
        provider, reference = deployment.provider, _reference(deployment)
        if reference.startswith("env:"):
            return bool(self._environ.get(reference[4:], "").strip())
        if provider.protocol == AMAZON and not reference and self.key_variable(provider) is None:
            from llmctl.run.sign import has_clue

            return has_clue(self._environ)
        return bool(reference) or not provider.key or provider.key_optional or self.key_variable(provider) is not None

    def _headers(self, deployment: Deployment) -> tuple[dict[str, str], tuple[Secret, ...]]:
        """The user's own headers, the deployment's before the provider's, and their values that must not be shown.

        A secret is what came from the environment, and what stands under a name that says so. Raises MissingCredential.
        """
        headers: dict[str, str] = {}
        hidden: list[Secret] = []
        for name, written in (*deployment.provider.headers.items(), *deployment.headers.items()):
            value = self._environ.get(written[4:], "").strip() if written.startswith("env:") else written
            if not value:
                continue
            if not (value.isascii() and value.isprintable()):
                hint = "check for line breaks and quotes"
                raise MissingCredential(f"the header {name} from {written} holds characters no header has", hint=hint)
            headers[name.lower()] = value
            if value != written or names_secret(name):
                hidden += (Secret(value), Secret(value.rpartition(" ")[2]))  # a scheme, such as Bearer, is no secret
        return headers, tuple(hidden)

    def key_place(self, provider: Provider, reference: str) -> KeyPlace:
        """Where the key of `provider` or of a `reference` would be looked for, and where one is."""
        variables, present = provider.key, self.key_variable(provider)
        if reference.startswith("env:"):
            name = reference.removeprefix("env:")
            variables, present = (name,), name if self._environ.get(name) else None
        elif reference.startswith("cmd:"):
            present = "cmd"  # and no argument of it, which may hold the secret
        elif reference:
            present = reference if reference.startswith("file:") else "configuration"
        return KeyPlace(variables, present, bool(reference) or bool(provider.key and not provider.key_optional))

    def key_variable(self, provider: Provider) -> str | None:
        """The name of the environment variable that holds the provider's key now."""
        return next((name for name in provider.key if self._environ.get(name, "").strip()), None)

    def credential(self, deployment: Deployment) -> Secret:
        """The credential, empty where the provider needs none. Raises MissingCredential."""
        provider, reference = deployment.provider, _reference(deployment)
        if reference:
            return self._referenced(reference, deployment)
        name = self.key_variable(provider)
        if name is not None:
            return _secret(self._environ[name], f"env:{name}")
        if not provider.key or provider.key_optional:
            return Secret("")
        raise _missing(deployment)

    def _referenced(self, reference: str, deployment: Deployment) -> Secret:
        provider = deployment.provider
        kind, _, rest = reference.partition(":")
        if kind == "env":
            value = self._environ.get(rest, "")
            if not value:
                raise _missing(deployment)
            return _secret(value, reference)
        if kind == "file":
            try:
                return _secret(_content(Path(rest).expanduser()), reference)
            except (OSError, ValueError, RuntimeError) as error:
                raise MissingCredential(
                    f"{provider.name}: the key file {rest} cannot be read: {_reason(error)}",
                    hint="check the path of the api_key reference",
                ) from error
        if kind == "cmd":
            return _secret(self._output(rest, provider), "cmd")
        return _secret(reference, "configuration")

    def _output(self, command: str, provider: Provider) -> str:
        began = self._monotonic()
        kept_at, output = self._commands.get(command, (-KEPT_S, ""))
        if began - kept_at >= KEPT_S:
            output = _run(command, provider)
            self._commands[command] = began, output
        return output

    def address(self, deployment: Deployment) -> str:
        """The API base. Raises ConfigInvalid for one that is not http(s), holds a password, or is plain http abroad."""
        provider = deployment.provider
        address = deployment.api_base or (
            provider.api_base if provider.api_base_set else self._from_environment(provider)
        )
        if deployment.is_local:
            return provider.api_base
        if not address and provider.protocol == AMAZON:
            from llmctl.run.sign import address_of

            address = address_of(deployment.model, self._environ)
        if not address:
            name = provider.address_names[-1]
            raise ConfigInvalid(f"{provider.name} has no address", hint=f"set api_base in the configuration, or {name}")
        _check(address, deployment)
        return address

    def _from_environment(self, provider: Provider) -> str:
        for name in provider.address_names:
            value = self._environ.get(name, "").strip()
            if value:
                return _from_host(value, provider) if name.endswith("_HOST") else value
        return provider.api_base


def _run(command: str, provider: Provider) -> str:
    """What a key command prints. Raises MissingCredential."""
    try:
        done = subprocess.run(
            shlex.split(command) or [""],
            stdin=subprocess.DEVNULL,  # stdin is the prompt
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
            text=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # Neither the command's output nor its arguments are shown: both may hold the secret.
        raise MissingCredential(
            f"{provider.name}: the key command failed: {_reason(error)}",
            hint="run the command of the api_key reference by hand",
        ) from error
    return done.stdout


def _reference(deployment: Deployment) -> str:
    return deployment.api_key or deployment.provider.api_key


def is_loopback(address: str) -> bool:
    """Whether the address can only mean this machine. `x.localhost` does not: a resolver may ask the network for it."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(address: str, deployment: Deployment) -> None:
    where = deployment.served_by
    if "@" in address.partition("//")[2].partition("/")[0]:
        raise ConfigInvalid(f"{where}: the address holds a user name", hint="put the credential into api_key")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
        readable = parts.scheme in ("http", "https") and bool(_HOST.fullmatch(host) or ipaddress.IPv6Address(host))
    except ValueError:
        readable = False
    if not readable or not address.isascii() or not address.isprintable() or " " in address:
        raise ConfigInvalid(
            f"{where}: {address[:100]!a} is not an http(s) address",
            hint="write https://HOST/PATH; a name that is not ASCII as xn--...",
        )
    if "?" in address or "#" in address:
        raise ConfigInvalid(f"{where}: the address has a ? or # part", hint="an address ends with its path")
    if parts.scheme == "http" and not deployment.allow_http and not is_loopback(address):
        raise ConfigInvalid(
            f"{where}: plain http to {host} would send the prompt and the key in the clear",
            hint="use https, or set allow_http = true on the deployment",
        )


def _from_host(value: str, provider: Provider) -> str:
    """An address of `host[:port]`, as OLLAMA_HOST has it: scheme, port and path come from the built-in address.

    Quotes are taken off, as Ollama does (ollama/ollama:envconfig/config.go). What cannot be read is left as it is, for
    the check of addresses to refuse.
    """
    value = value.strip("\"' ")
    if ":" in value.partition(":")[2] and "//" not in value and not value.startswith("["):
        value = f"[{value}]"  # a bare IPv6 address
    built_in = urlsplit(provider.api_base)
    try:
        parts = urlsplit(value if "//" in value else f"//{value}")
        host, port = parts.hostname or built_in.hostname or "", parts.port
    except ValueError:
        return value
    if "@" in parts.netloc:
        return value if parts.scheme else f"{built_in.scheme}://{value}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - addresses to listen on, not to ask
    host = f"[{host}]" if ":" in host else host
    port = port if parts.scheme else port or built_in.port
    path = parts.path if parts.path not in ("", "/") else built_in.path
    return f"{parts.scheme or built_in.scheme}://{host}{f':{port}' if port else ''}{path}"


def _content(path: Path) -> str:
    """The text of a regular file. Raises OSError or ValueError."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may have no end
        raise OSError(0, "it is not a regular file")
    with path.open(encoding="utf-8") as file:
        return file.read(_LONGEST_KEY)


def _secret(value: str, source: str) -> Secret:
    value = value.strip()
    if not value or any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in value):
        raise MissingCredential(
            f"the key from {source} is empty or holds characters no key has", hint="check for line breaks and quotes"
        )
    return Secret(value, source)


def _missing(deployment: Deployment) -> MissingCredential:
    provider, reference = deployment.provider, _reference(deployment)
    if provider.protocol == AMAZON and not reference:
        from llmctl.run.sign import missing

        return missing()
    named = (reference.removeprefix("env:"),) if reference.startswith("env:") else provider.key
    names = " or ".join(named) or f"api_key of [providers.{provider.name}]"
    return MissingCredential(
        f"no key for {provider.title or provider.name}",
        hint=f"set {names}, or try the embedded model: llmctl ask -m local",
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {COMMAND_TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or type(error).__name__
