"""What may stand in a configuration file, table by table: with `config/values`, all that imports pydantic.

`validated` gives back plain data (dicts, lists, numbers, text): only the keys that the user set, durations in seconds.
Parts whose feature comes later are checked all the same, so that a file which is good today stays good. Files, lines
and merging are the business of `config/source`; what a name means is the business of `core/catalog`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from llmctl.config.complaint import Refused, complaint
from llmctl.config.values import (
    MOST,
    SHAPES,
    Address,
    Anything,
    Auth,
    Backend,
    CacheMode,
    Capability,
    Count,
    Credential,
    DeploymentId,
    Duration,
    Feature,
    HeaderName,
    HeaderValue,
    Hook,
    Injection,
    Name,
    ProviderName,
    Share,
    Strategy,
    Tag,
    Text,
    Usd,
    Wait,
    Zone,
)
from llmctl.core.catalog import MAX_RETRIES
from llmctl.core.faults import FASTEST


class Table(BaseModel):
    """A table of the file: unknown keys and lenient types are refused, and errors never quote what they refuse."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Price(Table):
    """USD per million tokens."""

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    cache_write: Usd | None = None


class Params(Table):
    """What a request may say about sampling and length."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Count | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Count | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    reasoning_tokens: Annotated[int, Field(ge=0, le=MOST)] | None = None
    parallel_tool_calls: bool | None = None
    user: Text | None = None
    extra: dict[str, Anything] | None = None


class Deployment(Params):
    """One provider + model + credential + limits."""

    id: DeploymentId | None = None
    model: Text | None = None
    api_base: Address | None = None
    api_version: Text | None = None
    api_key: Credential | None = None
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderValue] | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    itpm: Count | None = None
    otpm: Count | None = None
    max_parallel: Count | None = None
    weight: Annotated[float, Field(gt=0, le=1e6)] | None = None
    base_model: Text | None = None
    context_window: Count | None = None
    max_output: Count | None = None
    capabilities: list[Capability] | None = None
    reasoning: bool | None = None
    allow_http: bool | None = None
    allow_toy: bool | None = None
    price: Price | None = None


class Route(Table):
    """Cost-aware routing by complexity: which group answers what is simple, which what is complex."""

    simple: Name
    complex: Name


class Group(Deployment):
    """A model group: one `model`, or `deployments` (which inherit every key of the group), or a `route`."""

    deployments: Annotated[list[Deployment], Field(min_length=1)] | None = None
    route: Route | None = None
    strategy: Strategy | None = None
    fallbacks: list[Name] | None = None
    cache: CacheMode | None = None
    ttl: Wait | None = None
    on_content_filter: Literal["fail", "fallback"] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Group:
        forms = [key for key in ("model", "deployments", "route") if getattr(self, key) is not None]
        if not forms:
            raise PydanticCustomError("form", "says no model", {"hint": 'add model = "provider/model"'})
        if len(forms) > 1:
            hint = "keep one of them; a second model is a second [[...deployments]] table"
            raise PydanticCustomError("form", "has both {a} and {b}", {"a": forms[0], "b": forms[1], "hint": hint})
        if self.deployments and self.id is not None:
            hint = "an id belongs to one of its deployments"
            raise PydanticCustomError("form", "has an id of its own", {"hint": hint})
        for n, each in enumerate(self.deployments or ()):
            if each.model is None:
                what = {"n": n, "hint": 'add model = "provider/model" to each of them'}
                raise PydanticCustomError("form", "deployments[{n}] says no model", what)
        return self


class Dialect(Table):
    """Where a provider differs from its protocol: the keys are explained at the head of `data/providers.toml`."""

    max_tokens: Name | None = None
    headers: dict[HeaderName, HeaderValue] | None = None
    rename: dict[Name, Name] | None = None
    drop: list[Name] | None = None
    fixed_sampling: dict[Literal["always", "by_default", "with_effort", "never"], list[Name]] | None = None
    stream_usage: Literal["option", "always", "none"] | None = None
    tool_choice_required: Name | None = None
    named_tools: bool | None = None
    chat_path: Annotated[str, Field(pattern=r"^/[!-~]+$", max_length=200)] | None = None
    chat_base: Address | None = None
    vectors: Literal["base64"] | None = None
    embeddings: bool | None = None
    embed_batch: Count | None = None
    embed_tokens: Count | None = None
    prompt_cache: Literal["automatic", "marker"] | None = None
    thoughts: Name | None = None
    tool_call_ids: Annotated[int, Field(gt=0, le=50)] | None = None
    prefill: Name | None = None
    documents: Literal["document_url"] | None = None
    json_schema: bool | list[Name] | None = None
    json_object: bool | list[Name] | None = None
    forced_tools: bool | list[Name] | None = None
    has: list[Feature] | None = None
    lacks: list[Feature] | None = None
    charge: Literal["reserved", "settled", "apart", "input"] | None = None
    shape: Annotated[str, Field(pattern=r"^(?:window|bucket(?::[1-9][0-9]{0,3})?)$")] | None = None
    slice_s: Annotated[float, Field(gt=0, le=60)] | None = None
    requests_per: Literal["second", "minute", "day"] | None = None


class Provider(Table):
    """A new or overridden provider."""

    protocol: Literal["openai", "anthropic", "gemini", "bedrock", "azure"] | None = None
    api_base: Address | None = None
    api_key: Credential | None = None
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderValue] | None = None
    dialect: Dialect | None = None
    prices: Annotated[str, Field(pattern=r"^[a-z0-9_.*-]*$", max_length=80)] | None = None


class Retry(Table):
    """Tries and patience."""

    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] | None = None
    tries: Annotated[int, Field(ge=1, le=6)] | None = None
    patience: Duration | None = None
    max_wait: Duration | None = None


class Timeout(Table):
    """The clocks of a call."""

    connect: Wait | None = None
    first_token: Wait | None = None
    idle: Wait | None = None
    total: Wait | None = None


class Allowance(Table):
    """What may be spent, in USD."""

    per_call: Usd | None = None
    daily: Usd | None = None
    monthly: Usd | None = None
    on_exceed: Literal["refuse", "warn"] | None = None


class Budget(Allowance):
    """What may be spent in all, under a tag, and by calls of a model group; who may be asked without a known price."""

    timezone: Zone | None = None
    tags: dict[Tag, Allowance] | None = None
    models: dict[Name, Allowance] | None = None
    allow_unpriced: list[Name] | None = None


class Semantic(Table):
    """The semantic tier of the cache."""

    encoder: Name | None = None
    threshold: Share | None = None
    shadow: Share | None = None
    max_wrong: Share | None = None


class Cache(Table):
    """What is remembered of answers."""

    mode: CacheMode | None = None
    ttl: Wait | None = None
    backend: Backend | None = None
    namespace: Name | None = None
    max_entries: Count | None = None
    max_bytes: Count | None = None
    semantic: Semantic | None = None


class State(Table):
    """Where windows, cooldowns and reservations live."""

    backend: Backend | None = None


class Log(Table):
    """What the ledger keeps of texts, and how long."""

    content: Literal["full", "none"] | None = None
    retain: Wait | None = None


class Observe(Table):
    """Who is told about calls."""

    otel: Address | None = None
    sentry: bool | None = None
    hooks: list[Hook] | None = None
    wait: Duration | None = None


class Drill(Table):
    """A saved drill: the options of `llmctl fallback drill`, with underscores."""

    model: Name | None = None
    prompt: Text | None = None
    inject: dict[Text, Text] | list[Injection] | None = None
    matrix: bool | None = None
    suite: Literal["standard"] | None = None
    mode: Literal["offline", "live"] | None = None
    speed: Annotated[float, Field(ge=1, le=FASTEST)] | None = None
    seed: int | None = None
    stream: bool | None = None
    max_cost: Usd | None = None
    expect_served_by: Text | None = None
    expect_path: Annotated[list[Text], Field(min_length=1)] | None = None
    expect_regex: Text | None = None
    expect_json: Text | None = None
    min_chars: Count | None = None
    max_seconds: Annotated[float, Field(gt=0, le=1e6)] | None = None
    judge: Name | None = None


class Serve(Table):
    """The OpenAI-compatible endpoint."""

    host: Text | None = None
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    api_keys: list[Credential] | None = None


class Config(Table):
    """The whole configuration file."""

    version: Literal[1] | None = None
    default_model: Name | None = None
    models: dict[Name, Group] | None = None
    providers: dict[ProviderName, Provider] | None = None
    retry: Retry | None = None
    timeout: Timeout | None = None
    budget: Budget | None = None
    cache: Cache | None = None
    state: State | None = None
    log: Log | None = None
    observe: Observe | None = None
    drills: dict[Name, Drill] | None = None
    serve: Serve | None = None


def validated(data: Any) -> dict[str, Any]:
    """`data` checked, as plain data: the keys that were set, durations in seconds. Raises Refused."""
    try:
        return Config.model_validate(data).model_dump(exclude_unset=True, exclude_none=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise Refused([complaint(each, data, known_keys, SHAPES) for each in found]) from None


def known_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the table at `path`; empty where any may, or none."""
    kind: Any = Config
    for step in path:
        kind = _step(kind, step)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _step(kind: Any, step: str | int) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(step))
        return _bare(field.annotation) if field else None
    return _bare(get_args(kind)[-1]) if get_origin(kind) in {dict, list} else None


def _bare(kind: Any) -> Any:
    """`kind` without None and without annotations."""
    while True:
        origin, args = get_origin(kind), [arg for arg in get_args(kind) if arg is not type(None)]
        if origin is Annotated or (origin not in {dict, list, Literal} and args):
            kind = args[0]
        else:
            return kind
