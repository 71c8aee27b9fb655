"""`llmctl models`: what it tells of keys (names, never values), and the pull command around `run.weights`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from llmctl.cli.context import Context
from llmctl.cli.models import app
from llmctl.core.build import build
from llmctl.core.catalog import Provider
from llmctl.core.errors import ConfigInvalid, ConnectionFailed, UsageError
from llmctl.core.support import supports

if TYPE_CHECKING:
    from llmctl.core.catalog import Catalog

PROVIDERS = {
    "openai": {
        "title": "OpenAI",
        "api_base": "https://api.openai.com/v1",
        "key": ["OPENAI_API_KEY"],
        "address": ["OPENAI_BASE_URL"],
        "infer": ["gpt-"],
    },
    "gemini": {"title": "Gemini", "api_base": "https://gemini.test", "key": ["GEMINI_API_KEY", "GOOGLE_API_KEY"]},
    "ollama": {"title": "Ollama", "api_base": "http://127.0.0.1:11434/v1", "key": ["OLLAMA_KEY"], "key_optional": True},
    "local": {"title": "Embedded model", "api_base": "local:", "key": []},
}
CONFIG = {
    "providers": {"corp": {"protocol": "openai", "api_base": "https://llm.corp.test/v1", "api_key": "env:CORP_KEY"}},
    "models": {
        "team": {
            "fallbacks": ["gemini/flash", "mine"],
            "deployments": [
                {"id": "one", "model": "openai/gpt-4o", "api_key": "cmd:pass show openai"},
                {"id": "two", "model": "openai/gpt-4o", "api_key": "sk-literal-secret"},
                {"id": "three", "model": "openai/gpt-4o", "api_key": "file:/run/key"},
            ],
        },
        "mine": {"model": "corp/big"},
        "paid": {"model": "openai/gpt-4o", "fallbacks": ["ollama/llama"]},
    },
}
BUILT_IN = {"local": {"model": "local/smollm2-135m"}}


def run(*argv: str, home: Path, **environ: str) -> Any:
    """The parsed document with `--json`, else the text; errors are raised as the outermost wall would see them."""
    context = Context(environ={"LLMCTL_HOME": str(home), **environ})
    catalog: Catalog = build(PROVIDERS, BUILT_IN, CONFIG)
    context.__dict__["catalog"] = catalog
    result = CliRunner().invoke(app, list(argv), obj=context)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in argv else result.stdout


def group(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name)


def test_list_is_an_array_of_groups_with_their_deployments(tmp_path: Path) -> None:
    rows = run("list", "--json", home=tmp_path)
    assert [row["name"] for row in rows] == ["local", "team", "mine", "paid"]
    team = group(rows, "team")
    assert [each["id"] for each in team["deployments"]] == ["one", "two", "three"]
    assert team["fallbacks"] == ["gemini/flash", "mine"]
    assert [row["built_in"] for row in rows] == [True, False, False, False]


def test_key_is_told_by_the_name_of_its_variable(tmp_path: Path) -> None:
    missing = group(run("list", "--json", home=tmp_path), "mine")["deployments"][0]
    assert missing["key"] == {"variables": ["CORP_KEY"], "present": None, "needed": True}
    assert not missing["ready"]
    there = group(run("list", "--json", home=tmp_path, CORP_KEY="s3cret-value"), "mine")["deployments"][0]
    assert there["key"]["present"] == "CORP_KEY"
    assert there["ready"]
    assert there["obstacle"] is None


def test_empty_variable_is_no_key(tmp_path: Path) -> None:
    assert not group(run("list", "--json", home=tmp_path, CORP_KEY=""), "mine")["deployments"][0]["ready"]


@pytest.mark.parametrize("argv", [("list",), ("list", "--json"), ("list", "--providers", "--json"), ("show", "team")])
def test_no_value_of_a_key_is_ever_shown(argv: tuple[str, ...], tmp_path: Path) -> None:
    shown = json.dumps(run(*argv, home=tmp_path, CORP_KEY="s3cret-value", OPENAI_API_KEY="sk-other-secret"))
    for secret in ("s3cret-value", "sk-other-secret", "sk-literal-secret", "pass show"):
        assert secret not in shown


def test_show_says_where_keys_come_from(tmp_path: Path) -> None:
    team = run("show", "team", "--json", home=tmp_path)
    assert [each["key"]["present"] for each in team["deployments"]] == ["cmd", "configuration", "file:/run/key"]


def test_show_has_the_whole_chain_and_who_is_asked_first(tmp_path: Path) -> None:
    paid = run("show", "paid", "--json", home=tmp_path)
    assert [link["name"] for link in paid["chain"]] == ["ollama/llama"]
    assert paid["first_ready"] == "ollama/llama"
    assert paid["deployments"][0]["obstacle"]
    assert run("show", "paid", "--json", home=tmp_path, OPENAI_API_KEY="x")["first_ready"] == "openai/gpt-4o"


def test_show_resolves_a_bare_name_and_the_address_in_force(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "https://proxy.test/v1"}
    shown = run("show", "gpt-4o", "--json", home=tmp_path, **environ)
    assert shown["name"] == "openai/gpt-4o"
    assert shown["deployments"][0]["address"] == "https://proxy.test/v1"
    assert run("show", "mine", "--json", home=tmp_path)["deployments"][0]["address"] == "https://llm.corp.test/v1"


def test_show_keeps_an_unusable_address_to_itself(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "https://me:hunter2@proxy.test/v1", "OPENAI_API_KEY": "x"}
    shown = run("show", "gpt-4o", "--json", home=tmp_path, **environ)
    assert shown["deployments"][0]["address"] is None
    assert not shown["deployments"][0]["ready"]
    assert "hunter2" not in json.dumps(shown)


def test_show_of_an_unknown_name_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run("show", "opanai/gpt-4o", home=tmp_path)


def test_providers_are_listed_with_the_variables_they_read(tmp_path: Path) -> None:
    rows = run("list", "--providers", "--json", home=tmp_path, GOOGLE_API_KEY="x")
    gemini = group(rows, "gemini")
    assert gemini["key"] == {
        "variables": ["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        "present": "GOOGLE_API_KEY",
        "needed": True,
    }
    assert gemini["address_variables"] == ["GEMINI_API_BASE"]
    assert not group(rows, "ollama")["key"]["needed"]
    assert group(rows, "corp")["api_base"] == "https://llm.corp.test/v1"


def test_tables_have_a_header_and_a_line_for_each(tmp_path: Path) -> None:
    lines = run("list", home=tmp_path).splitlines()
    assert lines[0].split("\t") == ["group", "asks", "then", "asked first"]
    assert len(lines) == 5
    assert lines[-1].split("\t") == ["paid", "openai/gpt-4o", "ollama/llama", "ollama/llama"]
    assert len(run("list", "--providers", home=tmp_path).splitlines()) == 6
    links = [line.split("\t")[:3] for line in run("show", "team", home=tmp_path).splitlines()[1:]]
    assert [link[0] for link in links] == ["1", "1", "1", "2", "3"]


def test_what_a_provider_supports_is_told_with_groups_and_with_providers(tmp_path: Path) -> None:
    provider = group(run("list", "--providers", "--json", home=tmp_path), "openai")
    deployment = group(run("list", "--json", home=tmp_path), "paid")["deployments"][0]
    shown = run("show", "paid", "--json", home=tmp_path)["deployments"][0]
    assert provider["supports"] == deployment["supports"] == shown["supports"] == supports(Provider("openai"))
    header, *lines = [line.split("\t") for line in run("list", "--providers", home=tmp_path).splitlines()]
    cells = {line[0]: line[header.index("supports")] for line in lines}
    assert cells["openai"].startswith("text stream tools schema=native images?")
    assert cells["local"] == "text stream schema=native"


def test_embedded_model_is_ready_only_with_its_weights(tmp_path: Path) -> None:
    row = run("show", "local", "--json", home=tmp_path)["deployments"][0]
    assert not row["ready"]
    assert row["hint"] == "run: llmctl models pull local"


def test_pull_of_something_else_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no embedded model"):
        run("pull", "gpt-4o", home=tmp_path)


def test_pull_from_a_file_that_is_not_the_weights_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF, but another")
    with pytest.raises(UsageError, match="not the weights"):
        run("pull", "local", "--from", str(tmp_path / "other.gguf"), home=tmp_path / "home")


def test_pull_offline_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="LLMCTL_OFFLINE") as caught:
        run("pull", "local/smollm2-135m", home=tmp_path, LLMCTL_OFFLINE="1")
    assert "--from" in caught.value.hint
    assert not (tmp_path / "weights").exists()


def test_pull_into_an_unusable_place_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match="cannot put weights"):
        run("pull", "local", "--from", str(tmp_path / "file"), home=tmp_path / "file")


@pytest.mark.parametrize("command", ["list", "show", "pull"])
def test_help_has_a_sentence_and_examples(command: str, tmp_path: Path) -> None:
    text = run(command, "--help", home=tmp_path)
    assert "Examples:" in text
    assert f"llmctl models {command}" in text
