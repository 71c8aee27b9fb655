"""Secrets do not print themselves, and what others print is masked."""

from __future__ import annotations

import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.redact import MASK, Secret, StreamMask, redact

KEY = 'a9/b+8=c7"d6\\e5 é'
SHAPED = [
    "sk-test-openai", "sk-ant-api03-abcdefgh_-AA", "sk-proj-abc123def456", "sk_live_abcdef123", "sk-te***est",
    "gsk_abcdef123456", "xai-abcdef123456", "pplx-abcdef123456", "nvapi-abcdef123456", "hf_abcdefghij",
    "r8_abcdefghij", "csk-abcdefghij", "fw_abcdefghij", "tgp_v1_abcdefghij", "AIzaSyA-abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE",
]  # fmt: skip


def test_a_secret_shows_only_where_it_came_from():
    secret = Secret("hunter22", "env:K")
    assert f"{secret} {secret!r} {[secret]}" == "Secret(***) Secret(***) [Secret(***)]"
    assert secret.reveal() == "hunter22"
    assert secret.source == "env:K"
    assert not hasattr(secret, "__dict__")


def test_an_empty_secret_is_false():
    assert not Secret("")
    assert Secret("x")


FORMS = {
    "as it is": KEY,
    "as a bearer": f"Bearer {KEY}",
    "in a URL": quote(KEY, safe=""),
    "in a path": quote(KEY),
    "in a form": quote_plus(KEY),
    "in JSON": json.dumps(KEY)[1:-1],
    "in JSON unescaped": json.dumps(KEY, ensure_ascii=False)[1:-1],
    "in JSON of JSON": json.dumps(json.dumps(KEY)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_known_secret_is_masked_however_it_was_quoted(form: str):
    masked = redact(f"key {form} was refused", [Secret(KEY)])
    assert MASK in masked
    assert form not in masked
    assert "b+8" not in masked
    assert "b%2B8" not in masked
    assert masked.endswith("was refused")


@pytest.mark.parametrize("key", SHAPED)
@pytest.mark.parametrize(
    "around", ["{}", "key={}", '"{}"', "(provided: {}).", "OPENAI_{}", "Authorization: Bearer {}", "/x/{}/y"]
)
def test_what_looks_like_a_vendors_key_is_masked(key: str, around: str):
    masked = redact(around.format(key))
    assert MASK in masked
    assert key not in masked
    assert key[8:] not in masked


@pytest.mark.parametrize("word", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_of_any_shape_is_masked(word: str):
    assert redact(f"sent {word} deadbeef, refused") == f"sent {word} {MASK} refused"


@pytest.mark.parametrize(
    "innocent",
    [
        "task-specific-model",
        "a risk_management plan",
        "ask-anything-2026",
        "sk-1",
        "the bearer of news",
        "half_hearted_try",
        "disk-usage-high",
    ],
)
def test_ordinary_words_stay(innocent: str):
    assert redact(innocent) == innocent


def test_a_secret_that_begins_with_another_is_masked_whole():
    both = [Secret("abcd"), Secret("abcdefgh")]
    assert redact("abcdefgh abcd", both) == redact("abcdefgh abcd", both[::-1]) == f"{MASK} {MASK}"


def test_a_secret_too_short_to_tell_from_text_is_left():
    assert redact("a cab", [Secret("a"), Secret("")]) == "a cab"


secrets = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=4, max_size=12)


@given(st.lists(secrets, min_size=1, max_size=3), st.lists(st.text(max_size=5)))
def test_no_secret_survives(values: list[str], around: list[str]):
    text = "".join(f"{before} {value}" for before, value in zip(around, values * len(around), strict=False))
    masked = redact(text, [Secret(value) for value in values])
    assert not [value for value in values if value in masked]


@pytest.mark.parametrize(
    "unit",
    [
        "sk-",
        "sk-a ",
        "Bearer ",
        "bearer",
        "AIza",
        "sk",
        "-",
        "a",
        "sk_*",
        "x-sk-",
        " ",
        "AKIA",
        "gsk_hf_",
        "Bearer sk-",
        "\n",
        "é",
    ],
)
def test_a_mebibyte_of_anything_is_masked_quickly(unit: str):
    text = unit * ((1 << 20) // len(unit))
    began = time.process_time()
    redact(text, [Secret(KEY), Secret("sk-aaaaaaaaaaaa")])
    assert time.process_time() - began < 2.0


LONG = [Secret("first-secret-0123456789"), Secret("first-and-another/one+two=="), Secret("short")]


def masked_in(pieces: list[str]) -> str:
    mask = StreamMask(LONG)
    return "".join(mask.feed(piece) for piece in pieces) + mask.feed("", last=True)


@given(st.lists(st.sampled_from(["a ", "first-", " short", *(s.reveal() for s in LONG)]), max_size=6), st.data())
def test_a_text_in_pieces_is_masked_as_the_whole_is(said: list[str], data: st.DataObject):
    text = "".join(said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert masked_in(pieces) == redact(text, LONG[:2])


@pytest.mark.parametrize(("shown", "expected"), [(15, "first-secret-01"), (16, MASK), (22, MASK)])
def test_what_a_cut_leaves_of_a_secret_is_masked(shown: int, expected: str):
    assert masked_in(["so ", LONG[0].reveal()[:shown]]) == f"so {expected}"
