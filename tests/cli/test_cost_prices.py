"""`llmctl cost prices`: what is listed, why a name costs what it costs, and that a refused update changes nothing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer

from llmctl.config.prices import SHIPPED

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

NEWER = '{"format":1,"source":"me","version":"2","date":"2099-01-01"}\n'
CONFIG = """
[models.priced]
model = "gpt-4o"
[models.mine]
model = "gpt-4o"
price = { input = 1.5, output = 3 }
[models.eu]
model = "azure/eu-1"
[models.eu2]
model = "azure/eu-1"
base_model = "gpt-4o"
[models.old]
model = "baseten/zai-org/GLM-4.7"
[models.home]
model = "vllm/x"
"""


def configured(cli: Cli) -> Cli:
    cli.home.mkdir(exist_ok=True, mode=0o700)
    (cli.home / "config.toml").write_text(CONFIG)
    return cli


def test_the_list_is_filtered_by_name_and_provider_and_says_where_each_price_is_from(cli: Cli):
    rows = cli.run("cost", "prices", "list", "GPT-4o", "--provider", "openai", "--json").json
    by_name = {row["model"]: row for row in rows}
    assert all("gpt-4o" in row["model"].lower() and row["provider"] == "openai" for row in rows)
    row = by_name["gpt-4o"]
    assert (row["input"], row["output"], row["cached_input"], row["cache_write"], row["context_window"]) == (
        2.5,
        10,
        1.25,
        None,
        128_000,
    )
    assert row["version"].startswith("genai-prices 0.2.3 ")
    (tiered,) = (row for row in cli.run("cost", "prices", "list", "gemini/gemini-1.5-pro", "--json").json)
    assert (tiered["provider"], tiered["tiers"][0]["above_tokens"], tiered["tiers"][0]["input"]) == (
        "gemini",
        128_000,
        2.5,
    )
    by_alias, by_theirs, ours = (
        cli.run("cost", "prices", "list", "--provider", name, "--json").json for name in ("x_ai", "x-ai", "sambanova")
    )
    assert by_alias == by_theirs != []
    assert all(row["source"].startswith("https://") for row in ours)


def test_what_no_table_knows_is_listed_as_unknown_and_not_as_zero(cli: Cli):
    (row,) = cli.run("cost", "prices", "list", "groq/whisper-large-v3-turbo", "--json").json
    assert (row["input"], row["output"], row["request"]) == (None, None, None)
    done = cli.run("cost", "prices", "list", "nothing-is-called-this")
    assert (done.code, done.out) == (0, b"")
    assert "unknown" in done.err


def test_how_a_name_comes_to_its_price_is_shown(cli: Cli):
    configured(cli)
    for name, version, why in [
        ("priced", "genai-prices", "'gpt-4o' is openai/gpt-4o of the table"),
        ("mine", "config", "the configuration's own price wins"),
        ("eu", None, "`base_model` says what it is"),
        ("eu2", "genai-prices", "'gpt-4o' is openai/gpt-4o of the table"),
        ("home", None, "no table knows what this server costs"),
        ("local", "free", "nobody bills it"),
        ("openai/gpt-99", None, "the table has no 'gpt-99' of openai"),
    ]:
        document = cli.run("cost", "prices", "show", name, "--json").json
        (found,) = document["deployments"]
        assert why in found["why"]
        assert (found["version"] and found["version"].split(" ")[0]) == version
        assert (found["price"] is None) is (version is None)
    text = cli.run("cost", "prices", "show", "mine").out.decode()
    assert "openai" not in text.splitlines()[0]
    assert "yes" not in text


def test_all_prices_are_shown_and_which_one_holds_on_a_day(cli: Cli):
    cli.home.mkdir(mode=0o700)
    dated = '{"provider":"openai","models":[{"id":"gpt-4o","price":[["","5 15"],["2024-10-02","2.5 10"]]}]}\n'
    (cli.home / "prices.jsonl").write_text(NEWER + dated)
    for day, plain, held in [("2024-09-01", 5, [True, False]), ("2024-10-02", 2.5, [False, True])]:
        (found,) = cli.run("cost", "prices", "show", "gpt-4o", "--at", day, "--json").json["deployments"]
        assert found["price"]["input"] == plain
        assert [row["in_force"] for row in found["prices"]] == held
    lines = cli.run("cost", "prices", "show", "gpt-4o", "--at", "2024-09-01").out.decode().splitlines()
    assert [line.split("\t")[-1] for line in lines[1:]] == ["in_force", "yes", "-"]
    assert "neither" in cli.run("cost", "prices", "show", "gpt-4o", "--at", "soon").refused(2)


@pytest.mark.parametrize(
    ("at", "year"), [("99999999999999d", "1970"), ("0001-01-01", "1970"), ("9999-12-31T23:59:59-12:00", "9999")]
)
def test_an_instant_beyond_all_calendars_is_the_first_or_last_one(cli: Cli, at: str, year: str):
    assert cli.run("cost", "prices", "show", "openai/gpt-4o", "--at", at, "--json").json["at"].startswith(year)


def test_the_check_names_what_is_unpriced_and_how_old_the_table_is(cli: Cli):
    document = configured(cli).run("cost", "prices", "check", "--json").json
    assert document["unpriced"] == ["azure/eu-1", "vllm/x"]
    assert {row["group"] for row in document["deployments"] if row["version"] == "config"} == {"mine"}
    assert [row["group"] for row in document["deployments"] if row["deprecated"]] == ["old"]
    assert document["table"]["version"] == "0.2.3"
    assert document["installed"] == {"version": "0.2.3", "disagreements": []}
    lines = cli.run("cost", "prices", "check").out.decode().splitlines()
    assert "unpriced: azure/eu-1, vllm/x" in lines


def test_the_check_tells_what_the_installed_genai_prices_says_otherwise(cli: Cli):
    cli.home.mkdir(mode=0o700)
    text = SHIPPED.read_text().replace('{"id":"gpt-4o-mini","match"', '{"id":"gpt-4o-maxi","match"', 1)
    (cli.home / "prices.jsonl").write_text(text)
    found = cli.run("cost", "prices", "check", "--json").json["installed"]["disagreements"]
    assert {(row["what"], row["model"]) for row in found} == {("gone", "gpt-4o-maxi"), ("new", "gpt-4o-mini")}
    assert "2 rows differ" in cli.run("cost", "prices", "check").out.decode()


def test_an_update_from_the_installed_package_or_a_file_is_used_from_then_on(cli: Cli):
    document = cli.run("cost", "prices", "update", "--json").json
    assert document["path"] == str(cli.home / "prices.jsonl")
    assert document["models"] > 2000
    assert (cli.home / "prices.jsonl").stat().st_mode & 0o777 == 0o600
    (cli.root / "mine.jsonl").write_text(NEWER + '{"provider":"openai","models":[{"id":"m","price":"3 4"}]}\n')
    assert cli.run("cost", "prices", "update", "--from", "mine.jsonl").code == 0
    with FaultServer() as server:
        assert cli.to(server).ask("hi").code == 0
    (call,) = cli.calls()
    assert call["price_version"] == "me 2 2099-01-01"
    assert call["cost_nanousd"] == call["input_tokens"] * 3000 + call["output_tokens"] * 4000


def test_a_refused_update_leaves_the_table_as_it_was(cli: Cli):
    cli.home.mkdir(mode=0o700)
    shutil.copy(SHIPPED, before := cli.home / "prices.jsonl")
    for text in (
        "hello",
        "[]x",
        NEWER.replace("2099", "2020"),
        NEWER + '{"provider":"p","models":[{"id":"m","price":"1"}]}',
    ):
        (cli.root / "bad").write_text(text)
        cli.run("cost", "prices", "update", "--from", "bad").refused(3)
        assert before.read_bytes() == SHIPPED.read_bytes()
    assert "no such file" in cli.run("cost", "prices", "update", "--from", "none").refused(3)
    cli.run("cost", "prices", "update", "--to", "/dev/null/x").refused(3)
    error = json.loads(cli.run("cost", "prices", "update", "--from", "none", "--json").err)
    assert error["error"]["type"] == "ConfigInvalid"


def test_the_maintainers_own_command_makes_the_shipped_table(cli: Cli):
    shutil.copy(SHIPPED, cli.root / "made.jsonl")
    assert cli.run("cost", "prices", "update", "--to", "made.jsonl").code == 0
    made, shipped = ((path).read_text().splitlines() for path in (cli.root / "made.jsonl", SHIPPED))
    assert made[1:] == shipped[1:]
    assert not (cli.home / "prices.jsonl").exists()


def test_without_the_package_one_line_names_the_extra(cli: Cli, tmp_path: Path):
    hidden = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "genai_prices" else found(name, *rest)
"""
    (tmp_path / "sitecustomize.py").write_text(hidden)
    env = {"PYTHONPATH": f"{tmp_path}:{cli.environ['PYTHONPATH']}"}
    done = cli.run("cost", "prices", "update", env=env)
    assert "genai_prices" in done.refused(3)
    assert "[prices]" in done.lines[-1]
    assert cli.run("cost", "prices", "check", "--json", env=env).json["installed"] is None


def test_a_damaged_table_is_one_warning_and_never_a_failed_call(cli: Cli):
    cli.home.mkdir(mode=0o700)
    (cli.home / "prices.jsonl").write_text(NEWER + '{"provider":"openai","models":[{"id":"\\u001b[31m"')
    with FaultServer() as server:
        done = cli.to(server).ask("hi")
    assert done.code == 0
    warnings = [line for line in done.lines if "warning" in line]
    assert len(warnings) == 1
    assert "prices.jsonl" in warnings[0]
    assert "\x1b" not in done.err
    for words in (("list", "gpt-4o"), ("show", "groq/llama-3.3-70b-versatile"), ("check",)):
        done = cli.run("cost", "prices", *words)
        assert (done.code, len(done.lines)) == (0, 1), words
        assert "prices.jsonl" in done.err
        assert b"genai-prices" in done.out
    assert cli.run("cost", "prices", "list", "--json").err == ""


@pytest.mark.parametrize("words", [("list",), ("show",), ("update",), ("check",), ()])
def test_every_help_has_examples(cli: Cli, words: tuple[str, ...]):
    done = cli.run("cost", "prices", *words, "--help")
    assert done.code == 0
    assert not words or b"Examples:" in done.out
