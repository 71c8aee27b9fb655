"""Vectors: what is read of an OpenAI-shaped answer, and what is no answer to so many texts."""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadResponse, ProviderError
from llmctl.core.types import Completion, Event, Request, Usage
from llmctl.wire.openai_reading import decoder
from llmctl.wire.vectors import event
from tests.wire.fixtures import bytewise, read


def coded(*numbers: float) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


def row(vector: Any, **more: Any) -> dict[str, Any]:
    return {"object": "embedding", "embedding": vector, **more}


def answer(document: Any, inputs: int = 2) -> tuple[Completion, Exception | None]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read(decoder(Request((), inputs=("x",) * inputs), 200, {}), [body])


def error(document: Any, inputs: int = 2) -> Exception:
    got, found = answer(document, inputs)
    assert found is not None, got
    assert got.vectors == ()
    return found


@pytest.mark.parametrize("write", [lambda *numbers: list(numbers), coded], ids=["numbers", "base64"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_vectors_come_in_the_order_of_the_texts_whatever_order_they_are_sent_in(write: Any, order: tuple[int, int]):
    rows = {0: row(write(0.5, -1.0), index=0), 1: row(write(2.0, 0.25), index=1)}
    got, found = answer({"data": [rows[n] for n in order], "model": "m", "usage": {"prompt_tokens": 9}})
    assert found is None
    assert [list(vector) for vector in got.vectors] == [[0.5, -1.0], [2.0, 0.25]]
    assert (got.usage, got.reported_model, got.finish_reason) == (Usage(9), "m", "stop")


def test_a_server_that_numbers_nothing_is_taken_at_its_order_and_one_without_usage_says_none():
    for more in ({}, {"index": 0}):
        got, _ = answer({"data": [row([1.0], **more), row([2.0], **more)]})
        assert [list(vector) for vector in got.vectors] == [[1.0], [2.0]]
        assert got.usage is None


def test_a_count_under_another_name_is_read():
    assert answer({"data": [row([1.0])], "usage": {"total_tokens": 3}}, 1)[0].usage == Usage(3)


@pytest.mark.parametrize(
    "rows",
    [
        [row([1.0])], [row([1.0])] * 3, [row([1.0]), row([1.0, 2.0])], [row([]), row([])], [row(""), row("")],
        [row([1.0], index=1), row([1.0], index=1)], [row([1.0], index=1), row([1.0], index=2)],
        [row([1.0]), row("not base64!")], [row([1.0]), row("QUI=")], [row([1.0]), row(None)], [row([1.0]), row({})],
        [row([1.0]), row(["1"])], [row([1.0]), row([[1.0]])], [row([1.0]), row([None])], [row([1.0]), 7], None, {}, "x",
        [row([1.0]), row([float("nan")])], [row([1.0]), row([float("inf")])], [row([1.0]), row([1e39])],
        [row(coded(1.0)), row(coded(float("nan")))], [row(coded(1.0)), row(coded(float("-inf")))],
        [row([1.0]), row([10**400])],
    ],
)  # fmt: skip
def test_what_is_not_one_finite_vector_of_one_size_for_each_text_is_a_bad_response(rows: Any):
    assert isinstance(error({"data": rows}), BadResponse)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"error": {"code": "insufficient_quota", "message": "m"}}, "QuotaExhausted"),
        ({"data": None, "error": {"code": 429, "message": "m"}}, "RateLimited"),
        ({"data": [], "error": {"message": "maximum context length"}}, "ContextExceeded"),
        ({"detail": "nope"}, "BadResponse"),
        ([], "BadResponse"),
        (b"<html>200</html>", "BadResponse"),
        (b"", "BadResponse"),
        (b'{"data":' + b"[" * 100_000, "BadResponse"),
    ],
)
def test_an_error_or_a_page_in_place_of_vectors_is_that_error(document: Any, kind: str):
    found = error(document)
    assert isinstance(found, ProviderError)
    assert found.kind == kind


def test_the_body_may_come_byte_by_byte_with_a_byte_order_mark():
    body = b"\xef\xbb\xbf" + json.dumps({"data": [row([1.0])]}).encode()
    got, found = read(decoder(Request((), inputs=("x",)), 200, {}), bytewise(body))
    assert (found, [list(vector) for vector in got.vectors]) == (None, [[1.0]])


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(1, 4).flatmap(lambda size: st.lists(st.lists(finite, min_size=size, max_size=size), min_size=1)))
def test_both_ways_of_writing_vectors_give_the_same_numbers(vectors: list[list[float]]):
    for write in (list, lambda numbers: coded(*numbers)):
        made = event([write(vector) for vector in vectors], len(vectors), None)
        assert made == Event(vectors=tuple(array("f", vector) for vector in vectors), finish_reason="stop")


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["data", "embedding", "index", "usage", "prompt_tokens", "error", "message"]), inner
            )
        ),
    )
)
def test_no_document_makes_reading_fail_otherwise(document: Any):
    _, found = answer(document, 1)
    assert found is None or isinstance(found, ProviderError)
