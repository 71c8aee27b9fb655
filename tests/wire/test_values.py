"""JSON that nobody vouches for is read into what is wanted or into nothing, and what we send is always valid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.wire import values

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-16") | st.just("\ud800")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(anything)
def test_every_reader_gives_its_type_whatever_it_is_given(value: Any):
    assert isinstance(values.obj(value), dict)
    assert all(isinstance(each, dict) for each in values.objects(value))
    values.string(value).encode()
    number = values.count(value)
    assert number is None or (type(number) is int and 0 <= number < 2**53)
    line = values.one_line(value)
    assert "\n" not in line
    assert len(line) <= 1000


@given(st.binary())
def test_any_bytes_are_a_document_or_none_and_can_be_shown(body: bytes):
    values.loads(body)
    assert values.snippet(body).isprintable()
    assert len(values.plain(body)) <= 200


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 5000, b"", b"{", b"\xff\xff", b'{"a":' * 50_000])
def test_what_cannot_be_read_is_none(body: bytes):
    assert values.loads(body) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (7, 7), (7.0, 7), (-1, None), (1.5, None), (True, None), ("7", None), (None, None), (2**53, None),
        (float("nan"), None), (float("inf"), None), (1e300, None), (10**400, None),
    ],
)  # fmt: skip
def test_a_count_is_a_whole_number_that_can_be_believed(value: Any, expected: int | None):
    assert values.count(value) == expected


def test_what_is_passed_through_goes_over_what_is_there_object_by_object():
    body = {"a": {"x": 1, "y": [1]}, "b": 1}
    assert values.merged(body, {"a": {"y": [2], "z": {}}, "b": {"c": 1}, "d": None}) == {
        "a": {"x": 1, "y": [2], "z": {}}, "b": {"c": 1}, "d": None,
    }  # fmt: skip
    assert body == {"a": {"x": 1, "y": [1]}, "b": 1}


@given(st.dictionaries(st.text(), st.text(st.characters(codec="utf-16") | st.just("\ud800"))))
def test_what_is_written_is_ascii_and_reads_back(body: dict[str, str]):
    written = values.dump(body)
    assert written.isascii()
    assert json.loads(written) == json.loads(json.dumps(body))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1}, b"x"])
def test_what_json_cannot_hold_is_a_usage_error(value: Any):
    with pytest.raises(UsageError):
        values.dump({"x": value})


def test_a_page_is_shown_by_its_words():
    page = b"<html><style>p {}</style><script>x()</script><h1>502</h1>\n <p>Bad\n gateway</p></html>"
    assert values.plain(page) == "502 Bad gateway"
