"""What may stand in a configuration: every key of the contract, each with its bounds, and nothing else."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.config.load import catalog_of, packaged
from llmctl.config.reference import json_schema
from llmctl.config.schema import validated
from llmctl.config.source import checked
from llmctl.core.errors import ConfigInvalid

# The example of the contract, word for word, with values where it only names keys.
CONTRACT = """
version = 1
default_model = "smart"

[models.fast]                               # an alias is a model group with one deployment
model = "groq/llama-3.3-70b-versatile"
temperature = 0.7
max_tokens = 4096
fallbacks = ["cheap", "home"]

[models.home]                               # self-hosted, the last resort
model = "vllm/meta-llama/Llama-3.3-70B-Instruct"
api_base = "http://127.0.0.1:8000/v1"

[models.gpt-4o]                             # several deployments: load balancing
strategy = "adaptive"
fallbacks = ["claude-3-5-sonnet-20241022", "groq/llama-3.3-70b-versatile"]
cache = "exact"                             # off | exact | canonical | semantic
[[models.gpt-4o.deployments]]
id = "azure-eu"                             # default: derived, stable
model = "azure/gpt-4o-deployment-1"
api_base = "https://region1.openai.azure.com"
api_version = "2024-10-21"
api_key = "env:AZURE_KEY_1"                 # env:NAME | file:PATH | cmd:... | a literal (only in a 0600 file)
tpm = 100_000
rpm = 1_000
max_parallel = 20
weight = 2
base_model = "gpt-4o-2024-08-06"            # also: context_window, max_output, capabilities, reasoning, allow_http
price = { input = 2.5, output = 10.0, cached_input = 1.25 }   # USD per million tokens; overrides the table

[models.auto]                               # cost-aware routing by complexity
route = { simple = "cheap", complex = "smart" }

[models."gpt-4.1"]                          # a group name with a dot must be quoted
model = "gpt-4.1"

[providers.corp]                            # a new or overridden provider
protocol = "openai"                         # openai | anthropic | gemini | bedrock | azure
api_base = "https://llm.corp.example/v1"
api_key = "env:CORP_KEY"

[retry]
retries = 2
tries = 6
patience = "5s"
[timeout]
connect = "5s"
first_token = "30s"
idle = "30s"
total = "300s"
[budget]
per_call = 0.50
daily = 5.0
monthly = 50.0
on_exceed = "refuse"
timezone = "local"
[budget.tags."team=web"]
daily = 1.0
[cache]
mode = "exact"
ttl = "24h"
backend = "sqlite"
[cache.semantic]
max_wrong = 0.005
[state]
backend = "redis://localhost:6379/0"
[log]
content = "full"
retain = "90d"
[observe]
otel = "http://localhost:4318"
sentry = true
hooks = ["module:function", "my-audit"]
wait = "5s"
[drills.outage]
model = "fast"
[serve]
host = "127.0.0.1"
port = 8080
api_keys = ["env:SERVE_KEY"]
"""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
TABLES = ["models", "providers", "retry", "timeout", "budget", "cache", "state", "log", "observe", "drills", "serve"]


def refusal(tree: dict[str, Any]) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        checked(tree)
    return caught.value


def group(**keys: Any) -> dict[str, Any]:
    return {"models": {"g": {"model": "groq/x", **keys}}}


def test_the_contracts_example_validates_and_builds():
    catalog = catalog_of(tomllib.loads(CONTRACT), {})
    azure = catalog.resolve("gpt-4o").deployments[0]
    assert (azure.id, azure.limits.rpm, azure.weight, azure.served_by) == (
        "azure-eu",
        1000,
        2,
        "azure/gpt-4o-deployment-1",
    )
    assert azure.price is not None
    assert azure.price.cached_input == 1_250_000_000 * 10**9
    assert catalog.resolve("fast").fallbacks == ("cheap", "home")
    assert catalog.settings.log_retain_s == 90 * 86400
    assert catalog.resolve("gpt-4.1").deployments[0].served_by == "openai/gpt-4.1"


def test_only_the_keys_that_were_set_leave_and_durations_are_seconds():
    plain = validated(tomllib.loads('[retry]\npatience = "1m30s"\n[models.g]\nmodel = "groq/x"\nttl = "2h"'))
    assert plain == {"retry": {"patience": 90.0}, "models": {"g": {"model": "groq/x", "ttl": 7200.0}}}


def test_validated_data_is_plain_json():
    plain = validated(tomllib.loads(CONTRACT))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_shares_are_numbers_or_percentages():
    assert validated({"cache": {"semantic": {"shadow": "2 %", "max_wrong": 0.005}}}) == {
        "cache": {"semantic": {"shadow": 0.02, "max_wrong": 0.005}}
    }


@pytest.mark.parametrize(
    ("tree", "key", "hint"),
    [
        ({"model": {}}, "model", "'models'"),
        ({"models": {"g": {"model": "groq/x", "temprature": 1}}}, "models.g.temprature", "'temperature'"),
        ({"timeout": {"conect": "5s"}}, "timeout.conect", "'connect'"),
        ({"retry": {"zzz": 1}}, "retry.zzz", "retries, tries, patience, max_wait"),
        ({"models": {"g": {"deployments": [{"model": "groq/x", "rpmm": 1}]}}}, "models.g.deployments[0].rpmm", "'rpm'"),
        ({"cache": {"semantic": {"shadw": 1}}}, "cache.semantic.shadw", "'shadow'"),
        ({"budget": {"tags": {"team=web": {"dayly": 1}}}}, 'budget.tags."team=web".dayly', "'daily'"),
        ({"drills": {"d": {"expect_pth": []}}}, "drills.d.expect_pth", "'expect_path'"),
        (group(price={"inputs": 1, "input": 1, "output": 1}), "models.g.price.inputs", "'input'"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_key(tree: dict[str, Any], key: str, hint: str):
    error = refusal(tree)
    assert error.message == f"{key}: unknown key"
    assert hint in error.hint


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        (group(temperature="hot"), "models.g.temperature"),
        (group(temperature=2.1), "models.g.temperature"),
        (group(temperature=-0.1), "models.g.temperature"),
        (group(temperature=float("nan")), "models.g.temperature"),
        (group(temperature=True), "models.g.temperature"),
        (group(max_tokens=0), "models.g.max_tokens"),
        (group(max_tokens=1.5), "models.g.max_tokens"),
        (group(top_p=1.1), "models.g.top_p"),
        (group(top_k=0), "models.g.top_k"),
        (group(seed="7"), "models.g.seed"),
        (group(stop=[1]), "models.g.stop"),
        (group(stop=""), "models.g.stop"),
        (group(presence_penalty=-3), "models.g.presence_penalty"),
        (group(frequency_penalty=3), "models.g.frequency_penalty"),
        (group(reasoning_effort="hgih"), "models.g.reasoning_effort"),
        (group(extra={"x": float("inf")}), "models.g.extra.x"),
        (group(rpm=0), "models.g.rpm"),
        (group(rpm="100"), "models.g.rpm"),
        (group(tpm=-1), "models.g.tpm"),
        (group(tpm=10**30), "models.g.tpm"),
        (group(max_parallel=0), "models.g.max_parallel"),
        (group(weight=0), "models.g.weight"),
        (group(context_window=0), "models.g.context_window"),
        (group(price={"input": -1, "output": 1}), "models.g.price.input"),
        (group(price={"input": 1}), "models.g.price.output"),
        (group(price=1), "models.g.price"),
        (group(id="a,b"), "models.g.id"),
        (group(id="1"), "models.g.id"),
        (group(api_base="llm.example/v1"), "models.g.api_base"),
        (group(api_base="ftp://llm.example"), "models.g.api_base"),
        (group(api_base="https://me:pw@llm.example"), "models.g.api_base"),
        (group(api_key=""), "models.g.api_key"),
        (group(api_key="env:"), "models.g.api_key"),
        (group(api_key="$OPENAI_API_KEY"), "models.g.api_key"),
        (group(fallbacks="cheap"), "models.g.fallbacks"),
        (group(strategy="adaptve"), "models.g.strategy"),
        (group(cache="on"), "models.g.cache"),
        (group(ttl="0s"), "models.g.ttl"),
        (group(ttl=5), "models.g.ttl"),
        (group(on_content_filter="ignore"), "models.g.on_content_filter"),
        (group(allow_http="yes"), "models.g.allow_http"),
        (group(deployments=[{"model": "groq/x"}]), "models.g"),
        (group(route={"simple": "a", "complex": "b"}), "models.g"),
        ({"models": {"g": {}}}, "models.g"),
        ({"models": {"g": {"temperature": 1}}}, "models.g"),
        ({"models": {"g": {"deployments": []}}}, "models.g.deployments"),
        ({"models": {"g": {"deployments": [{"rpm": 1}]}}}, "models.g"),
        ({"models": {"g": {"id": "x", "deployments": [{"model": "groq/x"}]}}}, "models.g"),
        ({"models": {"g": {"route": {"simple": "cheap"}}}}, "models.g.route.complex"),
        ({"models": {"two words": {"model": "groq/x"}}}, 'models."two words"'),
        ({"models": {"": {"model": "groq/x"}}}, 'models.""'),
        ({"models": []}, "models"),
        ({"providers": {"corp": {"protocol": "soap"}}}, "providers.corp.protocol"),
        ({"providers": {"corp": {"headers": {"a b": "x"}}}}, 'providers.corp.headers."a b"'),
        ({"providers": {"corp": {"headers": {"x": "cmd:pass show x"}}}}, "providers.corp.headers.x"),
        (group(headers={"x": "file:/key"}), "models.g.headers.x"),
        (group(headers={"x": "a\nb"}), "models.g.headers.x"),
        (group(headers={"Content-Length": "3"}), "models.g.headers.Content-Length"),
        (group(capabilities=["schemas"]), "models.g.capabilities[0]"),
        (group(auth="basic"), "models.g.auth"),
        ({"providers": {"corp": {"dialect": {"dorp": ["top_k"]}}}}, "providers.corp.dialect.dorp"),
        ({"providers": {"corp": {"dialect": {"drop": "top_k"}}}}, "providers.corp.dialect.drop"),
        (
            {"providers": {"corp": {"dialect": {"fixed_sampling": {"often": []}}}}},
            "providers.corp.dialect.fixed_sampling.often",
        ),
        ({"providers": {"corp": {"dialect": {"tool_call_ids": 9.5}}}}, "providers.corp.dialect.tool_call_ids"),
        ({"providers": {"corp": {"dialect": {"json_schema": "old-"}}}}, "providers.corp.dialect.json_schema"),
        ({"providers": {"corp": {"dialect": {"charge": "total"}}}}, "providers.corp.dialect.charge"),
        ({"providers": {"corp": {"dialect": {"shape": "bucket:0"}}}}, "providers.corp.dialect.shape"),
        ({"providers": {"corp": {"dialect": {"shape": "sieve"}}}}, "providers.corp.dialect.shape"),
        ({"providers": {"corp": {"dialect": {"slice_s": 61}}}}, "providers.corp.dialect.slice_s"),
        ({"providers": {"corp": {"dialect": {"slice_s": 0}}}}, "providers.corp.dialect.slice_s"),
        ({"providers": {"corp": {"dialect": {"requests_per": "hour"}}}}, "providers.corp.dialect.requests_per"),
        ({"providers": {"a/b": {"api_base": "https://x.example"}}}, 'providers."a/b"'),
        ({"retry": {"retries": -1}}, "retry.retries"),
        ({"retry": {"tries": 0}}, "retry.tries"),
        ({"retry": {"tries": 7}}, "retry.tries"),
        ({"retry": {"patience": "soon"}}, "retry.patience"),
        ({"timeout": {"total": "0s"}}, "timeout.total"),
        ({"timeout": {"total": 300}}, "timeout.total"),
        ({"budget": {"daily": -1}}, "budget.daily"),
        ({"budget": {"on_exceed": "shout"}}, "budget.on_exceed"),
        ({"budget": {"timezone": "Europe/Berlim"}}, "budget.timezone"),
        ({"budget": {"tags": {"web": {"daily": 1}}}}, "budget.tags.web"),
        ({"cache": {"mode": "fuzzy"}}, "cache.mode"),
        ({"cache": {"backend": "memcached://x"}}, "cache.backend"),
        ({"cache": {"semantic": {"shadow": "x %"}}}, "cache.semantic.shadow"),
        ({"cache": {"semantic": {"max_wrong": 1.5}}}, "cache.semantic.max_wrong"),
        ({"state": {"backend": "mysql"}}, "state.backend"),
        ({"log": {"content": "some"}}, "log.content"),
        ({"log": {"retain": "90"}}, "log.retain"),
        ({"observe": {"hooks": ["module.function"]}}, "observe.hooks[0]"),
        ({"drills": {"d": {"inject": ["primary"]}}}, "drills.d.inject"),
        ({"drills": {"d": {"expect_path": []}}}, "drills.d.expect_path"),
        ({"drills": {"d": {"stream": "yes"}}}, "drills.d.stream"),
        ({"serve": {"port": 70000}}, "serve.port"),
        ({"serve": {"api_keys": "x"}}, "serve.api_keys"),
        ({"default_model": 1}, "default_model"),
        ({"default_model": ""}, "default_model"),
        ({"version": 2}, "version"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_a_suggestion(tree: dict[str, Any], key: str):
    error = refusal(tree)
    assert error.exit_code == 3
    assert error.message.startswith(f"{key}: "), error.message
    assert error.hint


def test_a_dialect_goes_over_the_rows_key_by_key_and_a_new_provider_has_its_protocols():
    tree = {
        "openai": {"dialect": {"drop": ["seed"]}, "headers": {"x": "1"}},
        "corp-azure": {"protocol": "azure", "api_base": "https://a.example"},
        "corp": {"api_base": "https://c.example", "dialect": {"headers": {"x-app": "a"}}},
    }
    found = catalog_of({"providers": tree}, {}).providers
    row = packaged()["providers"]["openai"]["dialect"]
    assert found["openai"].dialect == {**row, "drop": ["seed"]}
    assert found["openai"].headers == {**row["headers"], "x": "1"}
    assert found["corp-azure"].dialect == packaged()["providers"]["azure"]["dialect"]
    assert found["corp"].dialect == {"headers": {"x-app": "a"}}
    assert found["corp"].headers == {"x-app": "a"}


def test_a_users_dialect_may_say_all_that_the_provider_table_says():
    for name, row in packaged()["providers"].items():
        dialect = {"dialect": row.get("dialect", {}), "api_base": "https://llm.example"}
        assert validated({"providers": {name: dialect}}) == {"providers": {name: dialect}}


@pytest.mark.parametrize("seconds", [0, 1.5])
def test_the_bounds_themselves_are_allowed(seconds: float):
    validated(group(temperature=0, top_p=0, presence_penalty=2, weight=0.1, rpm=1, price={"input": 0, "output": 0}))
    validated(group(temperature=2, top_p=1, frequency_penalty=-2))
    assert validated({"retry": {"retries": 0, "tries": 1, "max_wait": f"{seconds}s"}})["retry"]["max_wait"] == seconds


def test_a_wrong_choice_names_the_nearest_one():
    assert refusal(group(strategy="adaptve")).hint == "did you mean 'adaptive'?"


def test_a_variable_written_as_in_a_shell_shows_the_reference_to_write():
    assert refusal(group(api_key="${OPENAI_API_KEY}")).hint == 'write "env:OPENAI_API_KEY"'


def test_an_unquoted_dotted_name_shows_the_quotes():
    error = refusal(tomllib.loads('[models.gpt-4.1]\nmodel = "gpt-4.1"'))
    assert error.message.startswith("models.gpt-4.1: ")
    assert '[models."gpt-4.1"]' in error.hint


def test_an_unquoted_dotted_name_with_two_dots_shows_the_quotes():
    error = refusal(tomllib.loads('[[models.gpt-4.1.deployments]]\nmodel = "gpt-4.1"'))
    assert '[models."gpt-4.1"]' in error.hint


def test_several_errors_say_how_many_more_and_count_a_key_once():
    assert refusal(group(rpm=0, tpm=0)).message.endswith("(and 1 more)")
    assert "more" not in refusal(group(stop=3)).message


def test_a_refused_key_is_not_quoted_anywhere():
    secret = "sk-verysecretverysecret\n"
    error = refusal({"models": {"g": {"model": 1, "api_key": secret, "api_kee": secret}}})
    assert "verysecret" not in f"{error.message} {error.hint} {error!r} {error.__cause__!r}"


def test_features_that_come_later_are_checked_and_accepted_now():
    tree = tomllib.loads(CONTRACT)
    tree["serve"]["host"] = "::1"
    catalog_of(tree, {})


def drilled(**keys: Any) -> Any:
    return catalog_of({"drills": {"d": keys}}, {}).drills["d"]


def test_a_saved_drill_is_kept_as_it_is_written():
    keys = {"model": "fast", "mode": "offline", "speed": 50.0, "stream": True, "expect_path": ["1", "2"]}
    assert drilled(**keys, judge="smart") == {**keys, "judge": "smart"}
    assert not catalog_of({}, {}).drills


@pytest.mark.parametrize(
    "inject", [{"primary": "429@2s*1,503", "*": "slow@5"}, ["primary=429@2s*1,503", "*=slow@5"]], ids=["table", "list"]
)
def test_what_a_saved_drill_injects_is_a_list_of_words_however_it_is_written(inject: Any):
    assert drilled(inject=inject)["inject"] == ("primary=429@2s*1,503", "*=slow@5")


@pytest.mark.parametrize(
    ("keys", "key", "what", "hint"),
    [
        ({"inject": {"2": "429", "primary": "timout"}}, "drills.d.inject.primary", "no fault 'timout'", "timeout?"),
        ({"inject": ["primary=429", "2=slow"]}, "drills.d.inject[1]", "slow needs its seconds", "slow@5"),
        ({"inject": {"1": "429@x"}}, "drills.d.inject.1", "429@x", ""),
        ({"model": "fsat"}, "drills.d.model", "unknown model 'fsat'", "'fast'"),
        ({"judge": "smrat"}, "drills.d.judge", "unknown model 'smrat'", "'smart'"),
    ],
)
def test_a_saved_drill_of_unknown_faults_or_models_is_refused(keys: dict[str, Any], key: str, what: str, hint: str):
    with pytest.raises(ConfigInvalid) as caught:
        drilled(**keys)
    assert caught.value.message.startswith(f"{key}: ")
    assert what in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_the_json_schema_is_one_document_that_forbids_unknown_keys():
    schema = json.loads(json.dumps(json_schema()))
    assert schema["additionalProperties"] is False
    assert set(TABLES) < set(schema["properties"])


def test_the_json_schema_accepts_the_contracts_example():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(tomllib.loads(CONTRACT), json_schema())


@given(st.dictionaries(st.sampled_from([*TABLES, "version", "default_model", "x"]), JSON, max_size=5))
@example({"models": {"g": {"extra": {"a": [None]}}}})
@example({"": {"": {}}})
def test_any_json_like_dict_is_accepted_or_refused_as_config_invalid(tree: dict[str, Any]):
    error = None
    try:
        checked(tree)
    except ConfigInvalid as refused:
        error = refused
    assert error is None or (error.message and error.hint)


KEYS = st.sampled_from(
    ["model", "deployments", "route", "id", "rpm", "price", "stop", "extra", "fallbacks", "ttl", "api_key", "api_base"]
)


@given(st.dictionaries(st.text(max_size=5), st.dictionaries(KEYS, JSON, max_size=5), max_size=3))
def test_any_model_group_is_accepted_or_refused_as_config_invalid(models: dict[str, Any]):
    error = None
    try:
        catalog_of({"models": models}, {})
    except ConfigInvalid as refused:
        error = refused
    assert error is None or (error.message and error.hint)


def test_a_dict_nested_without_end_is_refused():
    tree: dict[str, Any] = {}
    tree["models"] = tree
    assert "too deeply" in refusal(tree).message
