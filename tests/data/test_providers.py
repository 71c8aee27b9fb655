"""The provider table keeps its own rules: small, sourced, unambiguous, with the names the field already uses."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import date
from itertools import permutations
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llmctl.core.build import provider
from llmctl.core.catalog import Deployment
from llmctl.core.redact import Secret
from llmctl.core.types import Message, Request, Text
from llmctl.wire.base import Endpoint
from llmctl.wire.openai_chat import encode

TABLE = Path(__file__).parents[2] / "llmctl" / "data" / "providers.toml"
TEXT = TABLE.read_text(encoding="utf-8")
ROWS = tomllib.loads(TEXT)

PROTOCOLS = {"openai", "azure", "anthropic", "gemini", "bedrock"}
OWN_ADDRESS = {"azure", "bedrock", "cloudflare", "databricks"}  # one address per customer or region
LOOPBACK_HOSTS = {"127.0.0.1", "localhost"}

ROW_KEYS = {
    "title": str, "protocol": str, "api_base": str, "key": list, "key_optional": bool, "address": list, "aliases": list,
    "infer": list, "loopback": bool, "auth": str, "dialect": dict, "source": str,
    "prices": str,
}  # fmt: skip
DIALECT_KEYS = {
    "max_tokens": str, "rename": dict, "drop": list, "stream_usage": str, "tool_choice_required": str, "chat_path": str,
    "chat_base": str, "headers": dict, "json_schema": (bool, list), "json_object": (bool, list),
    "forced_tools": (bool, list), "charge": str, "vectors": str, "embeddings": bool, "embed_batch": int,
    "embed_tokens": int, "prompt_cache": str, "thoughts": str, "tool_call_ids": int, "prefill": str, "documents": str,
    "fixed_sampling": dict, "named_tools": bool, "has": list, "lacks": list,
    "shape": str, "slice_s": (int, float), "requests_per": str,
}  # fmt: skip
DEFAULTS = {"protocol": "openai", "key_optional": False, "loopback": False, "address": [], "aliases": [], "infer": []}
DIALECT_DEFAULTS = {
    "max_tokens": "max_tokens", "stream_usage": "option", "tool_choice_required": "required",
    "chat_path": "/chat/completions", "json_schema": True, "json_object": True, "forced_tools": True,
    "charge": "settled", "requests_per": "minute", "drop": [], "rename": {}, "headers": {},
}  # fmt: skip
CHOICES = {
    "stream_usage": {"option", "always", "none"},
    "charge": {"reserved", "settled", "apart", "input"},
    "shape": {"bucket", "bucket:30", "window"},
    "requests_per": {"second", "minute", "day"},
    "max_tokens": {"max_tokens", "max_completion_tokens"},
    "vectors": {"base64"},
    "prompt_cache": {"automatic", "marker"},
    "documents": {"document_url"},
}
PARAMETERS = {
    "temperature", "top_p", "top_k", "stop", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort",
    "reasoning_tokens", "parallel_tool_calls", "tool_choice", "user", "name", "dimensions",
}  # fmt: skip

each_row = pytest.mark.parametrize(("name", "row"), ROWS.items(), ids=ROWS)


def dialect(row: dict) -> dict:
    return row.get("dialect", {})


def blocks() -> dict[str, list[str]]:
    """Each table's lines as written, from its header to the blank line that ends it."""
    found = {}
    for block in re.split(r"\n{2,}", TEXT):
        lines = block.strip("\n").split("\n")
        if lines[0].startswith("["):
            found[lines[0].strip("[]")] = lines
    return found


def test_each_table_is_one_block_of_at_most_eight_lines_named_in_lower_case() -> None:
    assert list(blocks()) == list(ROWS)
    assert {name: len(lines) for name, lines in blocks().items() if len(lines) > 8} == {}
    assert [name for name in ROWS if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_at_least_thirty_six_providers_speak_the_openai_protocol() -> None:
    assert len([name for name, row in ROWS.items() if row.get("protocol", "openai") == "openai"]) >= 36


@each_row
def test_keys_are_known_of_the_right_type_and_never_spell_out_a_default(name: str, row: dict) -> None:
    for values, known, defaults in ((row, ROW_KEYS, DEFAULTS), (dialect(row), DIALECT_KEYS, DIALECT_DEFAULTS)):
        assert {key for key in values if key not in known} == set()
        assert {key for key, value in values.items() if not isinstance(value, known[key])} == set()
        assert {key for key, value in values.items() if key in defaults and value == defaults[key]} == set()
    assert row.get("protocol", "openai") in PROTOCOLS
    assert row.get("key") != [f"{name.upper()}_API_KEY"]


@each_row
def test_dialect_values_are_ones_that_a_wire_interprets(name: str, row: dict) -> None:
    values = dialect(row)
    for key, choices in CHOICES.items():
        assert key not in values or values[key] in choices
    assert set(values.get("drop", ())) <= PARAMETERS
    assert set(values.get("rename", ())) <= PARAMETERS
    assert not set(values.get("drop", ())) & set(values.get("rename", ()))
    assert set(values.get("fixed_sampling", ())) <= {"always", "by_default", "with_effort", "never"}
    has, lacks = set(values.get("has", ())), set(values.get("lacks", ()))
    assert has | lacks <= {"tools", "images", "documents", "reasoning"}
    assert not has & lacks
    assert values.get("chat_path", "/").startswith("/")


@each_row
def test_addresses_are_https_or_the_users_own_machine(name: str, row: dict) -> None:
    if name in OWN_ADDRESS or name == "local":
        assert row.get("api_base") == ("local:" if name == "local" else None)
        return
    for address in filter(None, (row["api_base"], dialect(row).get("chat_base"))):
        parts = urlsplit(address)
        if row.get("loopback"):
            assert (parts.scheme, parts.hostname in LOOPBACK_HOSTS) == ("http", True)
        else:
            assert (parts.scheme, parts.hostname in LOOPBACK_HOSTS) == ("https", False)
        assert not parts.query
        assert not parts.fragment
        assert not address.endswith("/")
        assert not re.search(r"[{}$<>\s]", address), "a placeholder is not an address"


@each_row
def test_each_row_says_where_it_was_read_and_when(name: str, row: dict) -> None:
    places, _, day = row["source"].rpartition(" ")
    assert date.fromisoformat(day) >= date(2026, 1, 1)
    if name == "local":
        assert places == "llmctl/run/local.py"
        return
    for place in places.split(" and "):
        assert re.fullmatch(r"https://[\w.-]+\.\w+/\S*|[\w.-]+/[\w.-]+:[^:]+", place), place


@each_row
def test_variables_are_names_of_environment_variables_and_listed_once(name: str, row: dict) -> None:
    for variables in (provider(name, row).key, row.get("address", [])):
        assert len(variables) == len(set(variables))
        assert [variable for variable in variables if not re.fullmatch(r"[A-Z][A-Z0-9_]+", variable)] == []
    assert f"{name.upper()}_API_BASE" not in row.get("address", []), "always read: not listed"


def test_no_name_or_alias_means_two_providers() -> None:
    names = [*ROWS, *(alias for row in ROWS.values() for alias in row.get("aliases", []))]
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if name != name.lower() or "/" in name] == []


def test_no_bare_model_name_is_inferred_to_two_providers() -> None:
    prefixes = [(name, prefix) for name, row in ROWS.items() for prefix in row.get("infer", [])]
    clashes = [(a, b) for a, b in permutations(prefixes, 2) if a[1].startswith(b[1])]
    assert clashes == []


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("o3-mini", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-3-5-sonnet-20241022", "anthropic"),
        ("gemini-1.5-pro", "gemini"),
        ("mistral-large-latest", "mistral"),
        ("codestral-2501", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("grok-4", "xai"),
        ("command-r-plus", "cohere"),
        ("llama-3.3-70b", None),
        ("qwen3-32b", None),
        ("text-embedding-004", None),
    ],
)
def test_well_known_bare_names_mean_their_maker_and_shared_ones_nobody(model: str, provider: str | None) -> None:
    found = [name for name, row in ROWS.items() if model.startswith(tuple(row.get("infer", ())))]
    assert found == ([provider] if provider else [])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("openai", ["OPENAI_API_KEY"]),
        ("anthropic", ["ANTHROPIC_API_KEY"]),
        ("gemini", ["GEMINI_API_KEY", "GOOGLE_API_KEY"]),
        ("groq", ["GROQ_API_KEY"]),
        ("together", ["TOGETHER_API_KEY", "TOGETHERAI_API_KEY"]),
        ("azure", ["AZURE_API_KEY"]),
        ("bedrock", ["AWS_BEARER_TOKEN_BEDROCK"]),
        ("local", []),
    ],
)
def test_keys_have_the_names_that_the_documentation_promises(name: str, key: list[str]) -> None:
    assert list(provider(name, ROWS[name]).key) == key


@pytest.mark.parametrize(
    ("provider", "address"),
    [("openai", "OPENAI_BASE_URL"), ("anthropic", "ANTHROPIC_BASE_URL"), ("ollama", "OLLAMA_HOST")],
)
def test_addresses_have_the_variables_that_the_documentation_promises(provider: str, address: str) -> None:
    assert ROWS[provider]["address"] == [address]


def test_limits_are_charged_and_refilled_as_each_provider_documents() -> None:
    limits = ("charge", "shape", "slice_s", "requests_per")
    said = {name: tuple(dialect(row).get(key) for key in limits) for name, row in ROWS.items()}
    assert {name: each for name, each in said.items() if any(each)} == {
        "openai": ("reserved", "bucket", None, None), "azure": ("reserved", "window", 10, None),
        "anthropic": ("apart", "bucket:30", 15, None), "gemini": ("input", "window", None, None),
        "bedrock": (None, "bucket", None, None), "groq": ("reserved", "window", None, "day"),
        "together": (None, None, None, "second"), "cerebras": ("reserved", None, None, None),
    }  # fmt: skip


def test_servers_that_may_ask_for_no_key_are_asked_without_one() -> None:
    made = {name: provider(name, row) for name, row in ROWS.items()}
    assert [name for name, each in made.items() if each.loopback and not each.key_optional] == []


def test_a_new_compatible_provider_is_a_table_of_data_that_a_wire_speaks_to() -> None:
    row = tomllib.loads('api_base = "https://llm.example/v1"\nkey = ["EXAMPLE_KEY"]')
    deployment = Deployment("d", provider("example", row), "m")
    sent = encode(Request((Message("user", (Text("hi"),)),)), deployment, Endpoint(row["api_base"], Secret("k"))).http
    assert (sent.url, json.loads(sent.body)["model"]) == ("https://llm.example/v1/chat/completions", "m")
