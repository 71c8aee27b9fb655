"""Schemas and answers, well meant and hostile: each is judged, and nothing but our errors is raised."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.config.load import catalog_of
from llmctl.core.errors import AnswerRejected, UsageError
from llmctl.core.types import Completion, ResponseFormat
from llmctl.run.conform import MAX_MATCHED, check_schema, conformed, is_strict, judged

TREE = {"$ref": "#/$defs/N", "$defs": {"N": {"type": "array", "items": {"$ref": "#/$defs/N"}}}}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        TREE,
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$schema": "https://json-schema.org/draft-07/schema"},
        {"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "properties": {"a": {"$ref": "#"}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$id": "https://e.example/a", "$ref": "b", "$defs": {"b": {"$id": "b", "type": "string"}}},
    ],
)
def test_a_schema_that_can_be_used_is_taken_as_it_is(schema: dict[str, Any]):
    assert check_schema(schema) == schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (True, "not an object"), ([1], "not an object"), ("{}", "not an object"),
        ({"type": "nonsense"}, r"at \$\.type"),
        ({"properties": {"a": {"minimum": "x"}}}, r"at \$\.properties\.a\.minimum"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "#/x"}, "'#/x' leads nowhere"),
        ({"$ref": "https://e.example/x.json"}, "leads nowhere"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "leads nowhere"),
        ({"$ref": "#/title", "title": "a"}, "not valid"),
        ({"$ref": "#/x-y", "x-y": {"type": "zz"}}, "not valid"),
        ({"$ref": "#"}, "refers to itself"), ({"allOf": [{"$ref": "#/allOf/0"}]}, "refers to itself"),
        (deep(50_000), "nested too deeply"), (deep(400), "nested too deeply"),
        ({"$schema": "x:y"}, "no known draft"), ({"$schema": 7}, "no known draft"),
        ({"const": float("nan")}, "not valid"), ({"const": {1, 2}}, "not valid"),
        ({"$id": "http://[", "$ref": "a"}, "not valid"),
    ],
    ids=range(20),
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_a_usage_error_that_says_why(schema: Any, says: str):
    with pytest.raises(UsageError, match=says) as caught:
        check_schema(schema)
    assert caught.value.hint
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' {"a": 1}\n', ' {"a": 1}\n'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        (' ```JSON \r\n{"a":\n1}\r\n  ``` \n', '{"a":\n1}'),
        ('```\n{"a": "```"}```', '{"a": "```"}'),
        ('{"a": 0, "a": 1}', '{"a": 0, "a": 1}'),
    ],
)
def test_the_text_is_the_models_own_without_its_fence(text: str, bare: str):
    found = conformed(text, {"type": "object"})
    assert (found.text, found.document) == (bare, json.loads(bare))


@pytest.mark.parametrize(
    ("text", "schema", "says"),
    [
        ("", {}, "it is empty"),
        ("n is 1", {}, "not JSON"),
        ("```\n1\n``` and more", {}, "not JSON"),
        ("NaN", {}, "NaN"), ("[-Infinity]", {}, "-Infinity"),
        ("1e999", {}, "too large"), ("1" * 5000, {}, "not JSON"),
        ("[" * 100_000, {}, "too deeply"), ("[" * 900 + "]" * 900, TREE, "too deeply"),
        ("1" * 400, {"multipleOf": 0.1}, "cannot be checked"),
        ('{"a": "x"}', {"properties": {"a": {"type": "integer"}}}, r"at \$\.a: 'x' is not of type 'integer'$"),
        ("[1, 2]", {"items": {"type": "string"}}, r"at \$\[\d\]: .*\(and 1 more\)"),
        (json.dumps([0] * 500), {"items": {"type": "string"}}, "and at least 49 more"),
        ('"x\\n\\ny"', {"pattern": "^a"}, "does not match"),
        (json.dumps("a" * (MAX_MATCHED + 1)), {"pattern": "^(a+)*$"}, "too long for the pattern"),
        (json.dumps("x" * 100_000), {"type": "integer"}, "…"),
    ],
    ids=range(16),
)  # fmt: skip
def test_an_answer_that_does_not_meet_the_schema_is_rejected_in_one_short_line(text, schema, says):
    with pytest.raises(AnswerRejected, match=says) as caught:
        conformed(text, schema)
    assert len(caught.value.message) < 500
    assert "\n" not in caught.value.message
    assert caught.value.hint


_PLAIN = st.none() | st.booleans() | st.floats() | st.text()
_JSON = st.recursive(_PLAIN, lambda each: st.lists(each) | st.dictionaries(st.text(), each))
_WORDS = st.sampled_from(["type", "$ref", "items", "properties", "pattern", "enum", "anyOf", "$schema", "$id", "$defs"])


@given(st.dictionaries(_WORDS, _JSON), st.text())
def test_whatever_schema_and_answer_are_only_our_errors_come_out(schema: dict[str, Any], text: str):
    with suppress(UsageError, AnswerRejected):
        assert conformed(text, check_schema(schema)).text in text


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
        ({"type": "array", "items": {"type": "string"}}, False),
        ({"type": "object", "properties": {"a": {"type": ["object", "null"]}}, "required": ["a"],
          "additionalProperties": False}, False),
        ({"type": "object", "properties": {}, "additionalProperties": False, "$defs": {"b": {"oneOf": []}}}, False),
    ],
)  # fmt: skip
def test_a_schema_is_strict_when_it_is_closed_all_the_way_down(schema: dict[str, Any], strict: bool):
    assert is_strict(schema) is strict


def test_a_refusal_is_quoted_shortly():
    deployment = catalog_of({}, {}).deployment("openai/m")
    with pytest.raises(AnswerRejected, match="the model refused: no no") as caught:
        judged(Completion(refusal="no " * 10_000), ResponseFormat("json"), deployment)
    assert len(caught.value.message) < 300
