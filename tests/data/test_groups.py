"""The built-in groups: valid, sourced, over providers that can be asked today."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from llmctl.config.load import catalog_of, packaged
from llmctl.config.schema import validated
from llmctl.core.catalog import MAX_LINKS, Deployment
from llmctl.core.errors import UsageError

TEXT = (Path(__file__).parents[2] / "llmctl" / "data" / "groups.toml").read_text(encoding="utf-8")
GROUPS = tomllib.loads(TEXT)
CHAINS = sorted(set(GROUPS) - {"local"})


def links(name: str) -> list[Deployment]:
    catalog = catalog_of({}, {})
    group = catalog.resolve(name)
    return [*group.deployments, *(each for link in group.fallbacks for each in catalog.resolve(link).deployments)]


def test_the_groups_of_the_contract_exist():
    assert set(GROUPS) == {"fast", "smart", "cheap", "creative", "local"}
    assert GROUPS["local"] == {"model": "local/smollm2-135m"}


def test_auto_is_not_a_group_yet():
    with pytest.raises(UsageError):
        catalog_of({}, {}).resolve("auto")


def test_they_are_what_a_user_could_have_written():
    assert validated({"models": GROUPS}) == {"models": packaged()["groups"]}
    catalog_of({"models": GROUPS}, {})  # the checks of chains, which a user's groups go through


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_has_two_to_six_links_each_at_another_provider(name: str):
    providers = [deployment.provider.name for deployment in links(name)]
    assert 2 <= 1 + len(GROUPS[name]["fallbacks"]) <= MAX_LINKS
    assert len(set(providers)) == len(providers)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_speaks_only_a_wire_that_exists_and_needs_no_server_of_ones_own(name: str):
    for deployment in links(name):
        assert deployment.provider.protocol in ("openai", "anthropic", "gemini")
        assert deployment.provider.api_base.startswith("https://")
        assert deployment.provider.key


@pytest.mark.parametrize("name", CHAINS)
def test_the_embedded_model_is_in_no_chain(name: str):
    assert not any(deployment.is_local for deployment in links(name))


@pytest.mark.parametrize("provider", ["openai", "openrouter", "mistral"])
def test_one_common_key_is_enough_for_every_chain(provider: str):
    assert all(provider in {deployment.provider.name for deployment in links(name)} for name in CHAINS)


def test_only_creative_asks_for_a_temperature():
    assert [name for name, row in GROUPS.items() if "temperature" in row] == ["creative"]


def test_the_names_have_a_source_and_a_date():
    assert "genai-prices" in TEXT
    assert "2026-11-20" in TEXT


def test_no_link_is_a_model_that_its_host_has_ended():
    ended = {"llama-3.3-70b-versatile", "llama-3.1-8b-instant"}  # Groq, 2026-08-16
    assert ended.isdisjoint(deployment.model for name in CHAINS for deployment in links(name))
