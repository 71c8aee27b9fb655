"""What a name means, and which configurations cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.config.load import catalog_of, packaged
from llmctl.core.build import build, provider
from llmctl.core.catalog import CLOSED, MAX_LINKS, Catalog, dotted
from llmctl.core.errors import ConfigInvalid, UsageError
from llmctl.core.money import Price
from llmctl.core.types import Params

PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {
        "title": "OpenAI",
        "api_base": "https://api.openai.com/v1",
        "key": ["OPENAI_API_KEY"],
        "infer": ["gpt-", "o3"],
    },
    "groq": {"api_base": "https://api.groq.com/openai/v1", "key": ["GROQ_API_KEY"]},
    "together": {"aliases": ["together_ai"], "api_base": "https://api.together.ai/v1", "key": ["TOGETHER_API_KEY"]},
    "vllm": {"api_base": "http://127.0.0.1:8000/v1", "key": [], "key_optional": True, "loopback": True},
    "local": {"api_base": "local:", "key": []},
}
BUILT_IN: dict[str, Any] = {
    "fast": {"model": "groq/l"},
    "cheap": {"model": "gpt-c"},
    "local": {"model": "local/smollm2-135m"},
}


def made(**config: Any) -> Catalog:
    return build(PROVIDERS, BUILT_IN, config)


def with_models(**models: Any) -> Catalog:
    return made(models=models)


def refused(**models: Any) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        with_models(**models)
    assert caught.value.hint
    return caught.value


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "served_by"),
    [
        ("groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
        ("together_ai/meta-llama/X", "together/meta-llama/X"),
        ("gpt-4o", "openai/gpt-4o"),
        ("gpt-999-retired", "openai/gpt-999-retired"),
        ("vllm/meta-llama/Llama", "vllm/meta-llama/Llama"),
        ("local/smollm2-135m", "local/smollm2-135m"),
    ],
)
def test_a_model_name_resolves_to_one_deployment(name: str, served_by: str):
    group = made().resolve(name)
    assert [each.served_by for each in group.deployments] == [served_by]
    assert not group.fallbacks


def test_a_groups_name_wins_over_a_models_name():
    assert with_models(**{"gpt-4o": {"model": "groq/x"}}).resolve("gpt-4o").deployments[0].served_by == "groq/x"


def test_a_model_inside_a_group_never_means_a_group():
    error = refused(a={"model": "fast"})
    assert error.message.startswith("models.a.model: unknown model 'fast'")
    catalog = with_models(**{"gpt-a": {"model": "groq/x"}, "b": {"model": "gpt-a"}})
    assert catalog.resolve("b").deployments[0].served_by == "openai/gpt-a"


@pytest.mark.parametrize(
    ("name", "near"), [("gorq/x", "'groq/x'"), ("fats", "'fast'"), ("zzz", "provider/model"), ("/x", "")]
)
def test_an_unknown_name_is_a_usage_error_with_a_suggestion(name: str, near: str):
    with pytest.raises(UsageError) as caught:
        made().resolve(name)
    assert near in caught.value.hint
    assert "models list" in caught.value.hint


def test_auto_is_reserved_until_it_exists():
    with pytest.raises(UsageError) as caught:
        made().resolve("auto")
    assert caught.value.exit_code == 2
    assert "later release" in caught.value.hint


def test_a_route_is_accepted_in_the_configuration_and_cannot_be_asked_yet():
    catalog = made(models={"auto": {"route": {"simple": "cheap", "complex": "fast"}}}, default_model="auto")
    with pytest.raises(UsageError, match="cannot be asked yet"):
        catalog.resolve("auto")


@given(st.text(max_size=20))
def test_any_name_resolves_or_is_a_usage_error(name: str):
    try:
        assert made().resolve(name).deployments
    except UsageError as error:
        caught = error
        assert caught.exit_code == 2


# --- groups and deployments -----------------------------------------------------------------------------------------


def test_a_deployment_carries_what_the_group_says():
    row = {
        "model": "groq/x",
        "temperature": 0.5,
        "stop": "END",
        "rpm": 3,
        "api_key": "env:K",
        "price": {"input": 1, "output": 2},
    }
    deployment = with_models(a=row).resolve("a").deployments[0]
    assert deployment.params == Params(temperature=0.5, stop=("END",))
    assert (deployment.limits.rpm, deployment.limits.tpm, deployment.api_key) == (3, None, "env:K")
    assert deployment.price == Price(10**18, 2 * 10**18)


def test_deployments_inherit_the_groups_keys_and_may_override_them():
    rows = [{"model": "groq/x"}, {"model": "groq/y", "temperature": 0.1, "id": "mine"}]
    group = with_models(a={"temperature": 0.9, "rpm": 5, "deployments": rows}).resolve("a")
    assert [(each.id, each.params.temperature, each.limits.rpm) for each in group.deployments] == [
        ("a-1", 0.9, 5),
        ("mine", 0.1, 5),
    ]


@pytest.mark.parametrize("ids", [("x", "x"), ("a-2", None)])
def test_an_id_is_unique_in_its_group(ids: tuple[str | None, ...]):
    rows = [{"model": "groq/x"} | ({"id": each} if each else {}) for each in ids]
    error = refused(a={"deployments": rows})
    assert error.message.startswith("models.a.deployments[1].id: ")


def test_an_id_is_unique_in_its_chain():
    error = refused(a={"model": "groq/x", "id": "i", "fallbacks": ["b"]}, b={"model": "groq/y", "id": "i"})
    assert error.message.startswith("models.a.fallbacks[0]: ")
    with_models(a={"model": "groq/x", "id": "i"}, b={"model": "groq/y", "id": "i"})


def test_the_embedded_model_is_free():
    assert made().resolve("local").deployments[0].price == Price.free()


def test_a_providers_title_is_its_name_with_a_capital_by_default():
    assert provider("ollama", {}).title == "Ollama"


def test_a_new_provider_needs_no_key_and_an_overridden_one_keeps_its_row():
    rows = {"corp": {"api_base": "https://c.example"}, "groq": {"api_base": "https://proxy.example"}}
    catalog = made(providers=rows)
    corp, groq = catalog.providers["corp"], catalog.providers["groq"]
    assert (corp.key_optional, corp.key, corp.protocol) == (True, ("CORP_API_KEY",), "openai")
    assert (groq.api_base, groq.api_base_set, groq.key, groq.key_optional) == (
        "https://proxy.example",
        True,
        ("GROQ_API_KEY",),
        False,
    )
    assert catalog.resolve("corp/m").deployments[0].provider is corp


def test_a_provider_overridden_by_its_alias_is_the_same_provider():
    catalog = made(providers={"together_ai": {"api_key": "env:T"}})
    assert catalog.resolve("together/m").deployments[0].provider.api_key == "env:T"
    assert "together_ai" not in catalog.providers


def test_a_new_provider_without_an_address_is_refused_with_the_nearest_known():
    with pytest.raises(ConfigInvalid) as caught:
        made(providers={"grok": {"api_key": "env:X"}})
    assert "'groq'" in caught.value.hint


def test_settings_keep_their_defaults_where_nothing_is_said():
    settings = made(retry={"tries": 3}, timeout={"first_token": 9.0}, log={"retain": 60.0}).settings
    assert (settings.tries, settings.retries) == (3, 2)
    assert (settings.first_token_s, settings.first_token_reasoning_s, settings.total_s) == (9.0, 9.0, 300.0)
    assert (settings.log_content, settings.log_retain_s) == ("full", 60.0)


# --- chains ---------------------------------------------------------------------------------------------------------


def test_a_chain_may_name_groups_and_models():
    catalog = with_models(a={"model": "groq/x", "fallbacks": ["cheap", "vllm/y", "gpt-4o"]})
    assert catalog.resolve("a").fallbacks == ("cheap", "vllm/y", "gpt-4o")


def test_two_groups_may_fall_back_on_each_other():
    with_models(a={"model": "groq/x", "fallbacks": ["b"]}, b={"model": "groq/y", "fallbacks": ["a"]})


@pytest.mark.parametrize(
    ("fallbacks", "place", "what"),
    [
        (["a"], "models.a.fallbacks[0]", "names itself"),
        (["cheap", "a"], "models.a.fallbacks[1]", "names itself"),
        (["cheap", "cheap"], "models.a.fallbacks[1]", "twice"),
        (["gpt-4o", "openai/gpt-4o"], "models.a.fallbacks[1]", "twice"),
        (["together/m", "together_ai/m"], "models.a.fallbacks[1]", "twice"),
        (["chaep"], "models.a.fallbacks[0]", "unknown model"),
        (["auto"], "models.a.fallbacks[0]", "cannot be a link yet"),
        (["local"], "models.a.fallbacks[0]", "embedded model"),
        (["cheap", "local/smollm2-135m"], "models.a.fallbacks[1]", "embedded model"),
    ],
)
def test_a_bad_link_is_refused_where_it_stands(fallbacks: list[str], place: str, what: str):
    error = refused(a={"model": "groq/x", "fallbacks": fallbacks})
    assert error.message.startswith(f"{place}: ")
    assert what in error.message


def test_a_chain_has_at_most_six_links_with_the_group_itself():
    links = [f"groq/{n}" for n in range(MAX_LINKS)]
    with_models(a={"model": "groq/x", "fallbacks": links[:5]})
    assert "at most 6 links" in refused(a={"model": "groq/x", "fallbacks": links}).hint


def test_the_embedded_model_may_be_a_link_when_it_says_so():
    with_models(a={"model": "groq/x", "fallbacks": ["toy"]}, toy={"model": "local/smollm2-135m", "allow_toy": True})


def test_the_embedded_model_may_stand_alone_but_not_beside_others():
    with_models(a={"model": "local/smollm2-135m"})
    rows = [{"model": "groq/x"}, {"model": "local/smollm2-135m"}]
    assert "embedded" in refused(a={"deployments": rows}).message


@pytest.mark.parametrize("target", ["auto", "auto2", "missing"])
def test_a_route_leads_to_a_group_that_can_answer(target: str):
    with pytest.raises(ConfigInvalid, match=r"^models\.auto\.route\.complex: "):
        with_models(
            auto={"route": {"simple": "cheap", "complex": target}},
            auto2={"route": {"simple": "cheap", "complex": "fast"}},
        )


def test_a_default_model_must_mean_something():
    assert made(default_model="fast").default_model == "fast"
    with pytest.raises(ConfigInvalid, match=r"^default_model: unknown model"):
        made(default_model="fsat")


def test_where_says_how_an_error_names_its_place():
    with pytest.raises(ConfigInvalid, match=r"^file:7: unknown model"):
        build(PROVIDERS, BUILT_IN, {"models": {"a": {"model": "zz/x"}}}, lambda path: f"file:{len(path) + 4}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((), ""),
        (("models", "fast", "rpm"), "models.fast.rpm"),
        (("models", "gpt-4.1", "deployments", 0, "rpm"), 'models."gpt-4.1".deployments[0].rpm'),
        (("a b", 'c"d', ""), '"a b"."c\\"d".""'),
    ],
)
def test_a_key_path_is_written_as_in_toml(path: tuple[str | int, ...], words: str):
    assert dotted(path) == words


@pytest.mark.parametrize("name", CLOSED)
def test_a_provider_that_has_closed_is_said_to_have(name: str):
    assert name not in packaged()["providers"]
    with pytest.raises(UsageError) as caught:
        catalog_of({}, {}).resolve(f"{name}/some-model")
    assert caught.value.hint == CLOSED[name]
