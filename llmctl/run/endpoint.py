"""Where an attempt goes and with which key: the address and the credential of a deployment, resolved just before use.

Precedence of both (contract, section 7): deployment, `[providers.X]`, the field's environment variables, `keys set`,
built-in.
"""

from __future__ import annotations

import shlex
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmctl.config.keys import KEPT
from llmctl.core.catalog import LOCAL_PROVIDER
from llmctl.core.errors import ConfigInvalid, ConnectionFailed, LlmctlError, MissingCredential
from llmctl.core.redact import Secret, is_key, names_secret
from llmctl.run import extras
from llmctl.run.address import checked, from_host, is_loopback
from llmctl.wire import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmctl.config.keys import Keys
    from llmctl.core.catalog import Deployment, Provider
    from llmctl.wire.base import Endpoint

AMAZON = "bedrock"
"""The protocol whose requests are signed, unless there is a bearer key."""
COMMAND_TIMEOUT_S = 30.0
KEPT_S = 300.0
"""How long the output of a `cmd:` reference is used again: it may be a token that expires, such as Entra's."""
_LONGEST_KEY = 1 << 16


class KeyPlace(NamedTuple):
    """Where a key is looked for: `variables` of the environment; `present` names the place of one, never its value."""

    variables: tuple[str, ...]
    present: str | None
    needed: bool


class Endpoints:
    """Resolves endpoints from an environment; the output of a `cmd:` reference is kept for `KEPT_S`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        keys: Keys | None = None,
    ) -> None:
        """`keys` are those of `keys set`: looked into only for what has no other key."""
        self._environ = environ
        self._keys = keys
        self._monotonic = monotonic
        self._commands: dict[str, tuple[float, str]] = {}

    @property
    def warnings(self) -> list[str]:
        """What a person must hear about the kept keys."""
        return [] if self._keys is None else self._keys.warnings

    def resolve(self, deployment: Deployment) -> Endpoint:
        """The endpoint of `deployment`. Raises MissingCredential or ConfigInvalid."""
        from llmctl.wire.base import Endpoint  # not for those who only ask where it would go

        provider = deployment.provider
        headers, hidden = self.headers(deployment)
        endpoint = Endpoint(
            self.address(deployment),
            self.credential(deployment),
            bearer=(deployment.auth or provider.auth) == "bearer",
            api_version=self.api_version(deployment),
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
            from llmctl.run.background import unattended

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
            return self._missing(deployment)
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
        if reference or self.key_variable(provider) is not None:
            return True
        if provider.protocol == AMAZON:
            from llmctl.run.sign import has_clue

            return bool(self._kept(provider)) or has_clue(self._environ)
        return not provider.key or provider.key_optional or bool(self._kept(provider))

    def headers(self, deployment: Deployment) -> tuple[dict[str, str], tuple[Secret, ...]]:
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
        if not reference and present is None and self._kept(provider):
            present = KEPT
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

    def _kept(self, provider: Provider) -> str:
        """The key that `keys set` keeps for `provider`, "" where there is none or a variable stands above it."""
        return "" if self._keys is None or provider.name == LOCAL_PROVIDER else self._keys.of(provider, self._environ)

    def _missing(self, deployment: Deployment) -> MissingCredential:
        error = _missing(deployment)
        error.hint = "; ".join((*self.warnings[-1:], error.hint))
        return error

    def credential(self, deployment: Deployment) -> Secret:
        """The credential, empty where the provider needs none. Raises MissingCredential."""
        provider, reference = deployment.provider, _reference(deployment)
        if reference:
            return self._referenced(reference, deployment)
        name = self.key_variable(provider)
        if name is not None:
            return _secret(self._environ[name], f"env:{name}")
        kept = self._kept(provider)
        if kept:
            return Secret(kept, KEPT)
        if not provider.key or provider.key_optional:
            return Secret("")
        raise self._missing(deployment)

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

    def api_version(self, deployment: Deployment) -> str:
        """The version of the API that is spoken, "" for the wire's own: of the deployment, or of the environment."""
        name = f"{deployment.provider.name.upper().replace('-', '_')}_API_VERSION"
        return deployment.api_version or self._environ.get(name, "").strip()

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
        checked(address, deployment)
        return address

    def _from_environment(self, provider: Provider) -> str:
        for name in provider.address_names:
            value = self._environ.get(name, "").strip()
            if value:
                return from_host(value, provider) if name.endswith("_HOST") else value
        return provider.api_base


def _run(command: str, provider: Provider) -> str:
    """What a key command prints. Raises MissingCredential."""
    import subprocess  # few keys come from a command, and it is slow to load

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


def _content(path: Path) -> str:
    """The text of a regular file. Raises OSError or ValueError."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may have no end
        raise OSError(0, "it is not a regular file")
    with path.open(encoding="utf-8") as file:
        return file.read(_LONGEST_KEY)


def _secret(value: str, source: str) -> Secret:
    value = value.strip()
    if not is_key(value):
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
    ways = f"set {names}" if reference else f"set {names}, or run `llmctl keys set {provider.name}`"
    return MissingCredential(
        f"no key for {provider.title or provider.name}",
        hint=f"{ways}, or try the embedded model: llmctl ask -m local",
    )


def _reason(error: BaseException) -> str:
    import subprocess

    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {COMMAND_TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or type(error).__name__
