"""The kinds of values that a configuration holds: durations, limits, money, names, credentials, addresses.

Each is a type for a field of `config/schema`. What cannot be meant is refused here, with what to write instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from llmctl.core import support
from llmctl.core.catalog import REFERENCES
from llmctl.core.errors import UsageError
from llmctl.core.when import parse_duration

_CENTURY_S = 100 * 365.25 * 86400
_HOP_BY_HOP = ("connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade")
MOST = 10**12  # no limit, window or count is larger; a longer number is a slip, and would not fit SQLite either


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        raise PydanticCustomError("duration", 'must be a duration in quotes with its unit: "30s", "5m", "24h", "7d"')
    try:
        return float(parse_duration(value))
    except UsageError as error:
        raise PydanticCustomError("duration", "{what}", {"what": error.message, "hint": error.hint}) from None


def _share(value: Any) -> Any:
    if isinstance(value, str) and value.rstrip().endswith("%"):
        try:
            return float(value.rstrip()[:-1]) / 100
        except ValueError:
            raise PydanticCustomError("share", 'must be a share: 0.02, or "2 %"') from None
    return value


def _credential(value: str) -> str:
    kind = next((each for each in REFERENCES if value.startswith(each)), None)
    if not value.strip() or (kind and not value.removeprefix(kind).strip()):
        hint = 'write "env:NAME", "file:PATH" or "cmd:COMMAND"'
        raise PydanticCustomError("credential", "names no credential", {"hint": hint})
    if value.startswith("$"):
        hint = f'write "env:{value.strip("${}")}"'
        raise PydanticCustomError("credential", "variables are not expanded here", {"hint": hint})
    if any(ord(char) < 0x20 for char in value):
        raise PydanticCustomError("credential", "holds a control character")
    return value


def _header(value: str) -> str:
    if value.startswith(("file:", "cmd:")):
        hint = 'put a token of a command or a file into api_key, with auth = "bearer" where it needs that'
        raise PydanticCustomError("header", 'takes text or "env:NAME" only', {"hint": hint})
    return value


def _header_name(name: str) -> str:
    if name.lower() in _HOP_BY_HOP:
        raise PydanticCustomError("header", "says how a request is sent, which llmctl does", {"hint": "leave it out"})
    return name


def _address(value: str) -> str:
    scheme, found, rest = value.partition("://")
    if not found or scheme not in {"http", "https"} or not rest.strip("/") or any(char.isspace() for char in value):
        raise PydanticCustomError("address", "must be an address", {"hint": 'such as "https://llm.example/v1"'})
    if "@" in rest.partition("/")[0]:
        hint = "put the credential into api_key"
        raise PydanticCustomError("address", "holds a user name or a password", {"hint": hint})
    return value


def _zone(value: str) -> str:
    import zoneinfo

    if value in {"local", "UTC"}:
        return value
    try:
        zoneinfo.ZoneInfo(value)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        if zoneinfo.available_timezones():  # a machine without a zone database cannot tell
            hint = 'such as "Europe/Berlin", or "local"'
            raise PydanticCustomError("timezone", "is not a time zone", {"hint": hint}) from None
    return value


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):  # noqa: PLR0124 - NaN is not itself
        raise PydanticCustomError("finite", "must be a finite number")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _plain(each)
    return value


SHAPES = {
    r"^[^\s,=\x00-\x1f\x7f]+$": "a name has no spaces, commas or =",
    r"^[A-Za-z][A-Za-z0-9._:@/-]*$": "an id begins with a letter and goes on with letters, digits and . _ : @ / -",
    r"^[A-Za-z0-9][A-Za-z0-9_-]*$": "a provider's name has letters, digits, _ and - only",
    r"^(sqlite|(redis|rediss|unix)://\S+)$": 'write "sqlite" or "redis://HOST:PORT/DB"',
    r"^[^=\s]+=.+$": 'write KEY=VALUE: [budget.tags."team=web"]',
    r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*|[A-Za-z_][\w-]*)$": (
        'write "package.module:function", or the name of an entry point in the group llmctl.hooks'
    ),
    r"^[^=\s]+=\S+$": 'write "TARGET=FAULT", such as "primary=429"',
}
"""What each pattern asks for, in words."""
_NAME, _ID, _PROVIDER, _BACKEND, _TAG, _HOOK, _INJECT = SHAPES
_AS_TEXT = WithJsonSchema({"type": "string", "description": "a duration", "examples": ["30s", "5m", "24h", "7d"]})
_Any = Annotated[float, BeforeValidator(_seconds), _AS_TEXT]
Duration = Annotated[_Any, Field(ge=0, le=_CENTURY_S)]
Wait = Annotated[_Any, Field(gt=0, le=_CENTURY_S)]
Count = Annotated[int, Field(gt=0, le=MOST)]
Usd = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Name = Annotated[str, Field(pattern=_NAME, max_length=200)]
DeploymentId = Annotated[str, Field(pattern=_ID, max_length=100)]
ProviderName = Annotated[str, Field(pattern=_PROVIDER, max_length=100)]
Credential = Annotated[str, Field(max_length=10_000), AfterValidator(_credential)]
Address = Annotated[str, Field(max_length=2_000), AfterValidator(_address)]
Capability = support.Capability
Feature = Literal["tools", "images", "documents", "reasoning"]
Auth = Literal["bearer", "key"]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=100), AfterValidator(_header_name)]
HeaderValue = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=10_000), AfterValidator(_header)]
Backend = Annotated[str, Field(pattern=_BACKEND, max_length=2_000)]
Tag = Annotated[str, Field(pattern=_TAG)]
Hook = Annotated[str, Field(pattern=_HOOK)]
Injection = Annotated[str, Field(pattern=_INJECT)]
Zone = Annotated[str, AfterValidator(_zone)]
Anything = Annotated[JsonValue, AfterValidator(_plain)]
CacheMode = Literal["off", "exact", "canonical", "semantic"]
Strategy = Literal[
    "adaptive", "ordered", "simple-shuffle", "round-robin", "least-busy", "latency-based-routing",
    "usage-based-routing", "cost-based-routing",
]  # fmt: skip
