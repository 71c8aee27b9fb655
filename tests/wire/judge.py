"""Whether we send, read and classify as a fixture says: the one judge of the tests and of `benchmarks/wire_table.py`.

Each function gives what is wrong, in words; nothing when all is well.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import WIRE_CLASSES, from_wire
from llmctl.run.sign import signed
from llmctl.wire.base import HttpRequest
from tests.wire.differences import DIFFERENCES, without
from tests.wire.fixtures import NOW, aws_keys_of, deployment_of, encoded, endpoint_of

if TYPE_CHECKING:
    from llmctl.core.types import Completion
    from tests.wire.differences import Difference
    from tests.wire.fixtures import Case

_SIGNED = ("authorization", "x-amz-date", "x-amz-security-token")


def expected_body(case: Case, differences: tuple[Difference, ...] = DIFFERENCES) -> Any:
    """The body of the SDK's request, but for the differences that are deliberate."""
    body = case.data["request"]["body"]
    for difference in differences:
        if case.provider.name in difference.providers and body is not None:
            body = difference.ours(body, case.data["canonical"])
    return body


def request_problems(case: Case) -> list[str]:
    """What is wrong with our request, beside the SDK's."""
    sent, theirs = encoded(case), case.data["request"]
    problems = []
    if (sent.http.method, sent.http.url) != (theirs["method"], theirs["url"]):
        problems.append(f"sent to {sent.http.method} {sent.http.url}, not {theirs['method']} {theirs['url']}")
    # We always ask for JSON and read what comes; a signature's own headers are judged with the signature.
    own = ("accept", *_SIGNED) if "sigv4" in case.data else ("accept",)
    headers, expected = without(dict(sent.http.headers), *own), without(theirs["headers"], *own)
    if "api-key" in expected:
        expected.pop("authorization", None)  # an older generation of Azure's SDK says the key twice
    if theirs["body"] is None:  # what nothing is of is said by one SDK and not by another
        headers, expected = without(headers, "content-type"), without(expected, "content-type")
    if headers != expected:
        problems.append(f"headers {headers}, not {expected}")
    body = json.loads(sent.http.body) if sent.http.body else None
    if _read(body) != _read(expected_body(case)):
        problems.append(f"body {body}, not {expected_body(case)}")
    # What has no form is left out by the SDK as well, which does not say so; what nobody asked for cannot be missing.
    if unasked := [name for name in sent.dropped if name not in _asked(case.data["canonical"])]:
        problems.append(f"dropped {', '.join(unasked)}")
    return problems


def _read(body: Any) -> Any:
    """`body` with the JSON that it holds as text (the arguments of a call) as values."""
    if isinstance(body, list):
        return [_read(each) for each in body]
    if not isinstance(body, dict):
        return body
    return {
        key: _arguments(each) if key == "arguments" and isinstance(each, str) else _read(each)
        for key, each in body.items()
    }


def _asked(canonical: dict[str, Any]) -> set[str]:
    """What a neutral call asks for, in our names."""
    reasoning = {"effort": "reasoning_effort", "budget_tokens": "reasoning_tokens"}
    names = {reasoning[key] for key in canonical.get("reasoning", ())} | set(canonical.get("params", ()))
    cached = any(message.get("cache") for message in canonical.get("messages", ()))
    return names | set(canonical) | ({"cache"} if cached else set())


def signature_problems(case: Case) -> list[str]:
    """What is wrong with our signature of the very bytes that the SDK signed."""
    theirs, how = case.data["request"], case.data["sigv4"]
    at = datetime.strptime(how["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    headers = without(theirs["headers"], *_SIGNED)
    plain = HttpRequest(theirs["method"], theirs["url"], headers, theirs["body_text"].encode())
    ours = signed(plain, aws_keys_of(case), at.timestamp()).headers
    return [
        f"{name} {ours.get(name)}, not {theirs['headers'][name]}"
        for name in _SIGNED
        if name in theirs["headers"] and ours.get(name) != theirs["headers"][name]
    ]


def as_expected(got: Completion) -> dict[str, Any]:
    """A completion as a fixture writes its expectation."""
    calls = [{"id": c.id, "name": c.name, "arguments": _arguments(c.arguments)} for c in got.tool_calls]
    usage = got.usage and {
        "input_tokens": got.usage.input_tokens,
        "output_tokens": got.usage.output_tokens,
        "cached_input_tokens": got.usage.cached_input_tokens,
        "cache_write_tokens": got.usage.cache_write_tokens,
        "reasoning_tokens": got.usage.reasoning_tokens,
    }
    return {
        "text": got.text,
        "reasoning": got.reasoning,
        "tool_calls": calls,
        "finish_reason": got.finish_reason,
        "usage": usage,
    }


def _arguments(raw: str) -> Any:
    try:
        return json.loads(raw or "{}")
    except ValueError:
        return {"__invalid_json__": raw}


def reply_problems(case: Case, got: Completion, error: Exception | None) -> list[str]:
    """What is wrong with our reading of a reply."""
    name = case.data.get("expected_error")
    problems = []
    if type(error) is not (from_wire(name) if name else type(None)):
        problems.append(f"ended in {error!r}, not {name}")
    expected = dict(case.data.get("expected") or as_expected(got))
    refusal = expected.pop("refusal", "")
    if got.refusal != refusal:
        problems.append(f"refusal {got.refusal!r}, not {refusal!r}")
    if name and expected["usage"] is None:
        del expected["usage"]  # what was counted before an error is worth keeping, also where the SDK forgets it
    elif expected["usage"]:
        expected["usage"] = without(expected["usage"], "total_tokens")
    ours = as_expected(got)
    # Where the provider gave a call no id, the adapter has to make one.
    nameless = {n for n, call in enumerate(expected["tool_calls"]) if call["id"] is None}
    calls = enumerate(ours["tool_calls"])
    ours["tool_calls"] = [call | {"id": None} if n in nameless and call["id"] else call for n, call in calls]
    problems += [f"{key} {ours[key]!r}, not {value!r}" for key, value in expected.items() if ours[key] != value]
    return problems


def refusal_problems(case: Case) -> list[str]:
    """What is wrong with the error that we make of a refused request."""
    error = case.wire.classify(case.data["status"], case.headers, case.body, NOW)
    expected = WIRE_CLASSES[case.data["expected"]["class"]]
    problems = [] if error.kind == expected else [f"classified {error.kind}, not {expected}"]
    return problems + ([] if error.status == case.data["status"] else [f"status {error.status}"])


__all__ = [
    "as_expected",
    "deployment_of",
    "endpoint_of",
    "expected_body",
    "refusal_problems",
    "reply_problems",
    "request_problems",
    "signature_problems",
]
