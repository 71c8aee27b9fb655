"""The steps of a contract probe: what each asks of a model at its provider, and how the answer is judged.

Each gives an outcome and one line on it. It judges what came and trusts nothing of it; what the call itself ends in, it
lets through. Two steps are free: `listed` and `count` ask for a document beside the answers.
"""

from __future__ import annotations

import json
import re
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from llmctl.core.errors import AnswerRejected, LlmctlError
from llmctl.core.support import supports
from llmctl.core.types import Message, Params, Request, ResponseFormat, Text, Tool
from llmctl.routing.plan import Link, Plan
from llmctl.run import aside, asking
from llmctl.run.accounts import estimate_prompt
from llmctl.run.asking import Ask
from llmctl.wire import emulate
from llmctl.wire.base import load
from llmctl.wire.values import count, objects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmctl.client import Client
    from llmctl.core.catalog import Deployment
    from llmctl.core.record import Answer
    from llmctl.core.types import Event
    from llmctl.run.aside import Question
    from llmctl.run.engine import CallRun

Outcome = Literal["ok", "failed", "skipped"]
Finding = tuple[Outcome, str]

COMMAND = "models check"
"""How the ledger names these calls; the tag `probe` says which step it was."""
NO_SUCH_MODEL = "llmctl-check-no-such-model"
MAX_TOKENS, MAX_TOKENS_REASONING = 128, 2048
TOTAL_S = 120.0
_NO_LIST = ("ModelNotFound", "InvalidRequest", "Unauthorized")
"""How a provider says that it has no such list, or that this key may not see it. A 401 is about more than the list."""
_LISTS_BASE_MODELS = ("azure",)
"""Protocols whose list holds base models, not the customer's deployments of them."""
_OBJECT = {"type": "object", "additionalProperties": False}
_PLACE = {"type": "string", "description": "A city."}
_TOOL = Tool("get_weather", "The weather in a city.", {**_OBJECT, "properties": {"city": _PLACE}, "required": ["city"]})
_CAPITAL = {
    **_OBJECT,
    "properties": {"capital": {"type": "string"}, "inhabited": {"type": "boolean"}},
    "required": ["capital", "inhabited"],
}


def _says(text: str, **more: Any) -> Request:
    return Request((Message("user", (Text(text),)),), **more)


REQUESTS: dict[str, Request] = {
    "text": _says("Reply with the single word: ready", stream=False),
    "stream": _says("Count from one to twelve in words, separated by commas."),
    "tools": _says("What is the weather in Paris? Use the tool.", tools=(_TOOL,), tool_choice="required"),
    "schema": _says(
        "What is the capital of France, and is it inhabited? Answer as JSON.",
        response_format=ResponseFormat("json_schema", _CAPITAL, name="capital"),
    ),
    "error": _says("Hello"),
}
"""What each step asks."""


@dataclass(slots=True)
class Target:
    """One step at one deployment: what is known of it before, and what is heard."""

    client: Client
    name: str
    deployment: Deployment
    step: str
    run: CallRun | None = None
    error: LlmctlError | None = None
    events: list[Event] = field(default_factory=list)

    async def answer(self, deployment: Deployment | None = None) -> Answer:
        """The answer to the step's request. Raises the error the call ended in."""
        deployment = deployment or self.deployment
        most = MAX_TOKENS_REASONING if deployment.reasoning else MAX_TOKENS
        request = replace(REQUESTS[self.step], params=Params(max_tokens=most))
        group = replace(self.client.catalog.resolve(self.name), deployments=(deployment,), fallbacks=())
        ask = Ask(
            request=request,
            plan=Plan(self.name, (Link(group, (deployment,)),)),
            policy=asking.policy_of(self.client.catalog.settings, 0, TOTAL_S, 0.0, restart=False),
            command=COMMAND,
            tags={"probe": self.step},
            keep_text=False,
        )
        self.run = self.client.engine.call(ask)
        async with aclosing(self.run.events()) as events:
            async for event in events:
                self.events.append(event)
        assert self.run.answer is not None, "a call that raised nothing has an answer"
        return self.run.answer


# ---------------------------------------------------------------- the steps


async def _listed(target: Target) -> Finding:
    deployment = target.deployment
    if deployment.is_local:
        return "skipped", "the embedded model has no list"
    wanted = deployment.model
    if deployment.provider.protocol in _LISTS_BASE_MODELS:
        if not deployment.base_model:
            return "skipped", "its list holds base models, not deployments: set base_model to have it looked up"
        wanted = deployment.base_model
    try:
        found = await aside.document(target.client.engine, deployment, _listing(deployment))
    except LlmctlError as error:
        if error.kind in _NO_LIST and error.status != 401:
            return "skipped", f"no list to be had: HTTP {error.status}"
        raise
    names = _names(found)
    if not names:
        return "failed", "the list of models names none"
    listed = next((each for each in names if _is(each, wanted.removeprefix("models/"))), None)
    if listed is not None:
        return "ok", f"among {len(names)} models" + ("" if wanted.endswith(listed) else f", as {listed}")
    if wanted.startswith("arn:"):
        return "skipped", "the list holds no ARNs"
    if isinstance(found, dict) and (found.get("has_more") or found.get("nextPageToken")):
        return "skipped", f"not among the first {len(names)} models; the list goes on"
    return "failed", f"not among {len(names)} models: {', '.join(names[:5])}"


def _listing(deployment: Deployment) -> Question:
    return load(deployment.provider.protocol).listing


def _names(found: Any) -> list[str]:
    """The names in a list of models, as OpenAI and its like, Anthropic, Gemini and Bedrock write them."""
    rows = found
    if isinstance(found, dict):
        rows = next(
            (found[key] for key in ("data", "models", "modelSummaries") if isinstance(found.get(key), list)), []
        )
    said = [row.get("id") or row.get("modelId") or row.get("name") for row in objects(rows)]
    return [each.removeprefix("models/") for each in said if isinstance(each, str)]


def _is(listed: str, wanted: str) -> bool:
    """Whether `wanted` means the model that is listed: itself, without its date, or with Bedrock's region before it."""
    dated = re.fullmatch(re.escape(wanted.removesuffix("-latest")) + r"-[\d-]{3,}", listed)
    return wanted == listed or dated is not None or wanted.endswith(f".{listed}")


async def _text(target: Target) -> Finding:
    answer = await target.answer()
    return _judged([*_wrong_text(answer), *_wrong_usage(answer, target)], f"{answer.text.strip()!r}")


async def _stream(target: Target) -> Finding:
    answer = await target.answer()
    run = target.run
    assert run is not None, "there is an answer"
    last = run.last
    assert last is not None, "there is an answer"
    pieces = sum(event.shows for event in target.events)
    wrong = _wrong_text(answer)
    if pieces < 2:
        wrong.append("it came in one piece: this is no stream")
    elif not last.finish_said:
        wrong.append("the stream gave no finish reason: its end was inferred")
    if last.left_open:
        wrong.append("the stream was left open after its end")
    if answer.completion.skipped:
        wrong.append(f"{answer.completion.skipped} of its events were broken")
    unasked = target.deployment.provider.dialect.get("stream_usage") == "none"
    wrong += [] if unasked else _wrong_usage(answer, target)
    first, whole = run.record.first_token_ms or 0.0, run.record.latency_ms or 0.0
    end = "terminator heard" if last.terminated else "ended by its finish reason"
    return _judged(wrong, f"{pieces} pieces, the first after {first:.0f} of {whole:.0f} ms, {end}")


async def _tools(target: Target) -> Finding:
    if supports(target.deployment.provider, target.deployment.capabilities)["tools"] is False:
        return "skipped", "tools are not among what it can do"
    answer = await target.answer()
    if "tools" in answer.dropped:
        return "skipped", "the provider takes no tools"
    wrong = [] if answer.tool_calls else [f"no tool was called; it said {answer.text[:80]!r}"]
    for call in answer.tool_calls:
        if call.name != _TOOL.name:
            wrong.append(f"it called {call.name[:80]!r}, which nobody offered")
        else:
            wrong += _misfits(call.arguments, dict(_TOOL.parameters))
    if answer.finish_reason not in ("tool_calls", "stop"):
        wrong.append(f"the answer ended by {answer.finish_reason}")
    unforced = ", though tool_choice could not be sent" if "tool_choice" in answer.dropped else ""
    called = answer.tool_calls[0].arguments if answer.tool_calls else ""
    return _judged(wrong, f"{_TOOL.name}({called}){unforced}")


async def _schema(target: Target) -> Finding:
    way = "emulated" if emulate.needed(REQUESTS["schema"], target.deployment) else "native"
    try:
        answer = await target.answer()
    except AnswerRejected as error:
        error.message = error.message.replace(target.deployment.served_by, way, 1)
        raise
    wrong = _misfits(answer.text, _CAPITAL)
    if answer.finish_reason != "stop":
        wrong.insert(0, f"the answer ended by {answer.finish_reason}")
    outcome, said = _judged(wrong, answer.text.strip())
    return outcome, f"{way}: {said}"


async def _error(target: Target) -> Finding:
    """A model that does not exist must be refused, and in a way we understand."""
    wrong_model = replace(target.deployment, model=NO_SUCH_MODEL)
    try:
        answer = await target.answer(wrong_model)
    except LlmctlError as error:
        target.error = error
        status = error.status or 0
        if error.rule.blame not in ("request", "credential"):
            return "failed", f"an unknown model is answered with {error.kind}: {error.message}"
        if 200 <= status < 300:
            return "failed", f"the refusal of an unknown model comes with status {status}: {error.message}"
        return "ok", f"{error.kind}, HTTP {status}"
    names: list[str] = []
    with suppress(LlmctlError):
        names = _names(await aside.document(target.client.engine, target.deployment, _listing(target.deployment)))
    if len(names) == 1:
        return "skipped", f"the server has one model, {names[0]}, and answers to any name"
    return "failed", f"it answers for a model that does not exist, as {answer.reported_model or 'nobody'}"


async def _count(target: Target) -> Finding:
    deployment, request = target.deployment, REQUESTS["tools"]
    counting = getattr(load(deployment.provider.protocol), "counting", None)
    if counting is None:
        return "skipped", "the provider counts no tokens in advance"
    try:
        found = await aside.document(target.client.engine, deployment, lambda *where: counting(request, *where))
    except LlmctlError as error:
        if error.kind in _NO_LIST:
            return "skipped", f"no count to be had: HTTP {error.status}"
        raise
    keys = ("input_tokens", "totalTokens", "inputTokens")
    counted = next((count(found.get(key)) for key in keys if key in found), None) if isinstance(found, dict) else None
    if counted is None:
        return "failed", "the answer holds no count"
    ours = estimate_prompt(request)
    return "ok", f"{counted} tokens; our estimate is {ours} ({(ours - counted) / max(1, counted):+.0%})"


STEPS: dict[str, Callable[[Target], Awaitable[Finding]]] = {
    "listed": _listed,
    "text": _text,
    "stream": _stream,
    "tools": _tools,
    "schema": _schema,
    "error": _error,
    "count": _count,
}
"""The steps, in the order in which they are tried."""


# ---------------------------------------------------------------- judging


def _judged(wrong: list[str], detail: str) -> Finding:
    return ("failed", "; ".join(wrong)) if wrong else ("ok", detail)


def _wrong_text(answer: Answer) -> list[str]:
    wrong = []
    if answer.finish_reason not in ("stop", "length"):
        wrong.append(f"the answer ended by {answer.finish_reason}")
    if not answer.text.strip():
        thought = answer.completion.reasoning or answer.usage.reasoning_tokens
        wrong.append("no text: it only reasoned; set reasoning = true for it" if thought else "no text")
    return wrong


def _wrong_usage(answer: Answer, target: Target) -> list[str]:
    usage = answer.usage
    if usage.estimated:
        return ["no usage was reported"]
    assert target.run is not None
    most = target.run.ask.request.params.max_tokens or 0
    estimated = estimate_prompt(target.run.ask.request)
    wrong = []
    # A chat template adds some tokens, a hidden system prompt hundreds; a cap is kept to within a token or two.
    if not estimated / 4 <= usage.input_tokens <= 4 * estimated + 2000:
        wrong.append(f"{usage.input_tokens} input tokens were reported for about {estimated}")
    if not 1 <= usage.output_tokens <= most + 8:
        wrong.append(f"{usage.output_tokens} output tokens were reported, at most {most} were asked for")
    return wrong


def _misfits(text: str, schema: dict[str, Any]) -> list[str]:
    """What is wrong with `text` as JSON of this schema."""
    import jsonschema

    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return [f"not JSON: {text[:80]!r}"]
    error = next(iter(jsonschema.Draft202012Validator(schema).iter_errors(document)), None)
    return [] if error is None else [f"not of the schema: {error.message[:200]}"]
