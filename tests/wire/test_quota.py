"""Limits in response headers: everybody's names and ways of writing a reset, and that nothing in them can do harm."""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.snapshot import Said
from llmctl.wire.headers import LONGEST_WAIT_S
from llmctl.wire.quota import exhausted_s, limits_said

NOW = 1_767_322_800.0  # 2026-01-02T03:00:00Z
ROWS = tomllib.loads(files("llmctl.data").joinpath("providers.toml").read_text(encoding="utf-8"))


def said(text: str, provider: str = "deepseek") -> set[Said]:
    """What the header lines in `text` say, as an answer of `provider`."""
    return set(limits_said(lines(text), NOW, ROWS[provider].get("dialect", {})))


def lines(text: str) -> dict[str, str]:
    return dict(line.lstrip().split(": ", 1) for line in text.splitlines() if ":" in line)


OPENAI = """
    x-ratelimit-limit-requests: 500
    x-ratelimit-limit-tokens: 10000
    x-ratelimit-remaining-requests: 499
    x-ratelimit-remaining-tokens: 9481
    x-ratelimit-reset-requests: 120ms
    x-ratelimit-reset-tokens: 3.114s
"""
TPM = Said("tpm", 10000, 9481, 3.114)


@pytest.mark.parametrize(
    ("provider", "text", "expected"),
    [
        ("openai", OPENAI, {Said("rpm", 500, 499, 0.12), TPM}),
        ("openai", OPENAI.replace("500", "10000").replace("499", "9999").replace("120ms", "8.64s"),
         {Said("rpd", 10000, 9999, 8.64), TPM}),  # a small account's
        ("openai", OPENAI.replace("500", "200").replace("499", "197").replace("120ms", "16m17.764s"),
         {Said("rpd", 200, 197, 977.764), TPM}),
        ("deepseek", OPENAI.replace("120ms", "16m17s"), {Said("rpd", 500, 499, 977), TPM}),
        ("openai", OPENAI.replace("499", "0").replace("120ms", "30s"), {Said("rpm", 500, 0, 30), TPM}),
        ("groq", OPENAI.replace("120ms", "2m59.56s"), {Said("rpd", 500, 499, 179.56), TPM}),
        ("azure", OPENAI.replace("120ms", "1").replace("3.114s", "59"),
         {Said("rpm", 500, 499, 1), Said("tpm", 10000, 9481, 59)}),
        ("azure", "x-ratelimit-limit-tokens: -1\nx-ratelimit-remaining-tokens: -1\nx-ratelimit-reset-tokens: 0", set()),
        ("xai", "x-ratelimit-remaining-requests: 4\nx-ratelimit-reset-requests: 1767322830",
         {Said("rpm", None, 4, 30)}),
        ("openai", OPENAI + "x-ratelimit-limit-project-tokens: 9000\nx-ratelimit-remaining-project-tokens: 7",
         {Said("rpm", 500, 499, 0.12), Said("tpm", 9000, 7)}),
        ("anthropic", """
            anthropic-ratelimit-requests-limit: 1000
            anthropic-ratelimit-requests-remaining: 999
            anthropic-ratelimit-requests-reset: 2026-01-02T03:00:01Z
            anthropic-ratelimit-input-tokens-limit: 80000
            anthropic-ratelimit-input-tokens-remaining: 79000
            anthropic-ratelimit-input-tokens-reset: 2026-01-02T03:00:00Z
            anthropic-ratelimit-output-tokens-limit: 16000
            anthropic-ratelimit-output-tokens-remaining: 15000
            anthropic-ratelimit-output-tokens-reset: 2026-01-02T02:59:59Z
            anthropic-ratelimit-tokens-limit: 96000
            anthropic-ratelimit-tokens-remaining: 94000
            anthropic-ratelimit-tokens-reset: 2026-01-02T03:00:00Z
         """, {Said("rpm", 1000, 999, 1), Said("itpm", 80000, 79000, 0), Said("otpm", 16000, 15000, 0)}),
        ("anthropic", "anthropic-ratelimit-tokens-limit: 9\nanthropic-ratelimit-tokens-remaining: 8",
         {Said("tpm", 9, 8)}),
        ("mistral", """
            x-ratelimit-limit-req-minute: 60
            x-ratelimit-remaining-req-minute: 59
            x-ratelimit-limit-tokens-minute: 50000
            x-ratelimit-remaining-tokens-minute: 47196
            x-ratelimit-limit-tokens-month: 4000000
         """, {Said("rpm", 60, 59), Said("tpm", 50000, 47196)}),
        ("mistral", "x-ratelimit-limit-req-minute: 0\nx-ratelimit-remaining-req-minute: 0", set()),
        ("cerebras", """
            x-ratelimit-limit-requests-day: 14400
            x-ratelimit-limit-tokens-minute: 60000
            x-ratelimit-remaining-requests-day: 14399
            x-ratelimit-remaining-tokens-minute: 59000
            x-ratelimit-reset-requests-day: 33011.382867097855
            x-ratelimit-reset-tokens-minute: 11.382867097854614
         """, {Said("rpd", 14400, 14399, 33011.382867097855), Said("tpm", 60000, 59000, 11.382867097854614)}),
        ("sambanova", """
            x-ratelimit-limit-requests: 20
            x-ratelimit-remaining-requests: 19
            x-ratelimit-limit-requests-day: 400
            x-ratelimit-remaining-requests-day: 0
            x-ratelimit-reset-requests-day: 1767326400
         """, {Said("rpm", 20, 19), Said("rpd", 400, 0, 3600)}),
        ("digitalocean", "x-ratelimit-limit-tokens-per-day: 7\nx-ratelimit-limit-tokens-per-minute: 5",
         {Said("tpd", 7), Said("tpm", 5)}),
        ("fireworks", """
            x-ratelimit-limit-tokens-prompt: 7200000
            x-ratelimit-remaining-tokens-prompt: 7193993
            x-ratelimit-limit-tokens-generated: 72000
         """, {Said("itpm", 7200000, 7193993), Said("otpm", 72000)}),
        ("together", """
            x-ratelimit-limit: 10
            x-ratelimit-remaining: 9
            x-ratelimit-reset: 1
            x-tokenlimit-limit: 3000
            x-tokenlimit-remaining: 2900
         """, {Said("rpm", 600, 540, 1), Said("tpm", 180000)}),
        ("openrouter", "x-ratelimit-limit: 50\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1767326400000",
         {Said("rpd", None, 0, 3600)}),
        ("openrouter", "x-ratelimit-limit: 50\nx-ratelimit-remaining: 3\nx-ratelimit-reset: 1767322830000", set()),
    ],
)  # fmt: skip
def test_each_providers_headers_say_what_they_document(provider: str, text: str, expected: set[Said]):
    assert said(text, provider) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ratelimit: "burst";r=50;t=30\nratelimit-policy: "burst";q=100;w=60', {Said("rpm", 100, 50, 30)}),
        ("ratelimit: limit=100, remaining=40, reset=50\nratelimit-policy: 100;w=60", {Said("rpm", 100, 40, 50)}),
        ("ratelimit-limit: 20, 20;w=60\nratelimit-remaining: 19\nratelimit-reset: 32", {Said("rpm", 20, 19, 32)}),
        ("x-ratelimit-limit: 9, 9;window=86400\nx-ratelimit-remaining: 8", {Said("rpd", 9, 8)}),
        ("x-ratelimit-limit: 20;w=10\nx-ratelimit-remaining: 5\nx-ratelimit-reset: 4", {Said("rpm", 120, 30, 4)}),
        ("ratelimit: limit=100, remaining=0, reset=50", {Said("rpm", None, 0, 50)}),
        ("ratelimit: limit=100, remaining=1, reset=50", set()),  # of how long?
        ("ratelimit-limit: 5000;w=3600\nratelimit-remaining: 1\nratelimit-reset: 9", set()),
        ("ratelimit-limit: 5, 5;w=60, 99;w=3600\nratelimit-remaining: 1\nratelimit-reset: 9", set()),  # which?
        ('ratelimit: "a";r=0;t=3, "b";r=9;t=30', set()),
        ('ratelimit-policy: "x";q=9;w=60;qu="content-bytes"\nratelimit: "x";r=1;t=3', set()),
    ],
)
def test_a_limit_without_a_name_counts_where_its_period_is_said_or_it_is_exhausted(text: str, expected: set[Said]):
    assert said(text) == expected


def test_of_several_limits_of_one_kind_the_tightest_counts():
    spent = "x-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: {}\n"
    other = "x-ratelimit-remaining-project-tokens: 0\nx-ratelimit-reset-project-tokens: 9s"
    assert said(spent.format("4s") + other) == {Said("tpm", None, 0, 9)}
    assert said(spent.format("14s") + other) == {Said("tpm", None, 0, 14)}


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 7.5s", 7.5),
        ("x-ratelimit-remaining-requests: 1\nx-ratelimit-reset-requests: 7.5s", None),
        ("x-ratelimit-reset-requests: 7.5s\nx-ratelimit-limit-requests: 3", None),
        ("x-ratelimit-remaining-requests: 0", None),
        ("x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 0s", None),  # no reason to ask again at once
        ("""
            x-ratelimit-remaining-tokens: 0
            x-ratelimit-reset-tokens: 2m
            x-ratelimit-remaining-requests: 0
            x-ratelimit-reset-requests: 3s
            x-ratelimit-remaining-requests-day: 5
            x-ratelimit-reset-requests-day: 9000
         """, 120),
        ("""
            anthropic-ratelimit-output-tokens-remaining: 0
            anthropic-ratelimit-output-tokens-reset: 2026-01-02T03:00:20+00:00
         """, 20),
        ("ratelimit: limit=10, remaining=0, reset=5", 5),
        ("content-type: application/json", None),
    ],
)  # fmt: skip
def test_only_exhausted_limits_are_waited_for(text: str, wait_s: float | None):
    assert exhausted_s(lines(text), NOW) == wait_s


@pytest.mark.parametrize("junk", ["", "-1", "nan", "inf", "1e999", "1" * 400, "30,000", "1_000", "many", "9" * 16])
def test_a_number_that_nobody_can_mean_is_as_if_unsaid(junk: str):
    assert said(f"x-ratelimit-limit-tokens: {junk}\nx-ratelimit-remaining-tokens: {junk}") == set()
    assert said(f"x-ratelimit-limit-tokens: {junk}\nx-ratelimit-remaining-tokens: 5") == {Said("tpm", None, 5)}


names = st.builds(
    str.format,
    st.sampled_from(
        [
            "x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", "x-ratelimit-{}-requests-day", "x-ratelimit-{}",
            "x-tokenlimit-{}", "ratelimit-{}", "anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}",
        ]
    ),
    st.sampled_from(["limit", "remaining", "reset"]),
) | st.sampled_from(["ratelimit", "ratelimit-policy"])  # fmt: skip
values = (
    st.text(max_size=40)
    | st.from_regex(r"[0-9]{0,20}[.:eE_,;=+-]?[0-9]{0,20}(ms|s|m|h|d|Z)?", fullmatch=True)
    | st.from_regex(r"(limit|remaining|reset|[qrtw])=[0-9]{0,20}[,;](w|r|reset)=[0-9]{0,9}", fullmatch=True)
    | st.datetimes().map(lambda at: at.isoformat() + "Z")
)
dialects = st.fixed_dictionaries(
    {}, optional={"shape": st.sampled_from(["bucket", "window"]), "requests_per": st.sampled_from(["second", "day"])}
)


@given(st.dictionaries(names, values, max_size=12), dialects)
def test_no_header_makes_us_fail_or_believe_the_absurd(headers: dict[str, str], dialect: dict[str, str]):
    found = limits_said(headers, NOW, dialect)
    assert len({each.meter for each in found}) == len(found)
    for each in found:
        assert each.meter in {"rpm", "tpm", "itpm", "otpm", "rpd", "tpd"}
        assert each.limit is None or each.limit > 0
        assert all(value is None or 0 <= value < math.inf for value in (each.limit, each.remaining, each.reset_s))
        assert (each.reset_s or 0) <= LONGEST_WAIT_S
    wait_s = exhausted_s(headers, NOW)
    assert wait_s is None or 0 < wait_s <= LONGEST_WAIT_S
