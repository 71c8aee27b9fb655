"""`llmctl help`: pages made of the tables that the program goes by, so that they cannot be wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmctl.cli.commands import COMMANDS
from llmctl.cli.context import Context
from llmctl.cli.help import EXIT_CODES, TOPICS, VARIABLES, app
from llmctl.config.load import VARIABLES as OWN
from llmctl.config.load import packaged
from llmctl.core.build import provider
from llmctl.core.errors import MATRIX, UsageError

ROOT = Path(__file__).parents[2]


def page(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), obj=Context({}))
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("topic", [*map(tuple, [()]), *((name,) for name in TOPICS)])
def test_every_page_fits_80_columns_and_ends_its_last_line(topic):
    text = page(*topic)
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith("\n")
    assert "  \n" not in text


def test_without_a_topic_every_topic_and_command_is_listed():
    lines = page().splitlines()
    for name in (*TOPICS, *COMMANDS):
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_every_exit_code_that_an_error_or_the_design_has_is_explained():
    codes = {rule.exit for rule in MATRIX.values()} | {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 129, 130, 141, 143}
    assert set(EXIT_CODES) == codes
    text = page("exit-codes")
    for kind, rule in MATRIX.items():
        block = re.split(r"\n(?= {1,4}\d+  )", text)
        assert any(re.match(rf"\s*{rule.exit}  ", part) and kind in part for part in block), kind


def test_the_exit_codes_are_those_of_the_page_on_ask():
    said = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|$", (ROOT / "docs" / "ask.md").read_text(), re.MULTILINE)
    assert said
    for code, _, later in said:
        ours = EXIT_CODES[int(code)][1]
        assert ours.partition(" ")[0] == later.partition(" ")[0] or not later or not ours, code


def test_every_variable_that_is_read_stands_on_the_page():
    text = page("environment")
    for name in (*VARIABLES, *OWN):
        assert name in text
    for name, row in packaged()["providers"].items():
        for variable in (*provider(name, row).key, *provider(name, row).address):
            assert variable in text, (name, variable)


def test_every_variable_of_our_own_that_the_code_reads_is_in_the_table():
    code = "\n".join(file.read_text() for file in (ROOT / "llmctl").rglob("*.py"))
    read = set(re.findall(r"""(?:environ(?:\.get\(|\[)|variable\()["'](LLMCTL_[A-Z_]+)""", code)) | set(OWN)
    assert read == {name for name in VARIABLES if name.startswith("LLMCTL_")}


def test_the_rule_of_stdin_is_the_one_that_is_followed():
    text = page("stdin")
    assert "--- NAME ---" in text
    assert "--no-stdin" in text


def test_the_help_of_a_command_is_the_one_that_it_shows_itself(cli):
    for path in ("ask", "keys set", "config set"):
        asked = cli.run("help", *path.split())
        own = cli.run(*path.split(), "--help")
        assert asked.code == 0
        assert asked.out == own.out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["exit-code"], "did you mean `llmctl help exit-codes`?"),
        (["asc"], "did you mean `llmctl help ask`?"),
        (["quantum"], "`llmctl help` lists the topics"),
        (["keys", "sett"], "`llmctl help keys` shows what there is"),
        (["stdin", "more"], "did you mean `llmctl help stdin`?"),
    ],
)
def test_what_is_neither_topic_nor_command_is_a_usage_error(words, hint):
    with pytest.raises(UsageError) as caught:
        page(*words)
    assert caught.value.hint == hint


def test_help_works_with_a_broken_configuration_and_no_home(cli):
    for topic in TOPICS:
        assert cli.run("help", topic, "--config", "/nowhere/at/all").code == 0
