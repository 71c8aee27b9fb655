"""Addresses of providers: what may be one, and what an address of a host alone comes to. Nothing is resolved."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmctl.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment, Provider

# Letters, digits and hyphens (RFC 1123, 2.1), and the underscore of internal names; what is not ASCII is written xn--.
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def is_loopback(address: str) -> bool:
    """Whether the address can only mean this machine. `x.localhost` does not: a resolver may ask the network for it."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked(address: str, deployment: Deployment) -> None:
    """Raise ConfigInvalid for an address that is not http(s), holds a password or a query, or is plain http abroad."""
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


def from_host(value: str, provider: Provider) -> str:
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
