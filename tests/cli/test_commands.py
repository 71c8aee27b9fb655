"""The command tree: each command is where the table says, its options are explained, and nothing is guessed.

Its help texts and their examples are tested in `test_help_examples`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.cli.commands import COMMANDS, LATER, command, root, unknown_command

if TYPE_CHECKING:
    from collections.abc import Iterator


def tree() -> Iterator[tuple[str, Any]]:
    """Every command by its path, groups too."""
    yield "", root()
    for name in COMMANDS:
        yield from below(name, command(name))


def below(path: str, found: Any) -> Iterator[tuple[str, Any]]:
    yield path, found
    for name, child in getattr(found, "commands", {}).items():
        yield from below(f"{path} {name}", child)


PAGES = dict(tree())
LEAVES = {path: found for path, found in PAGES.items() if not hasattr(found, "commands")}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_is_an_app_with_that_name(name):
    module, text = COMMANDS[name]
    assert import_module(module).app
    assert command(name).name == name
    assert text.endswith(".")
    assert len(text) <= 66


def test_the_overview_of_a_group_cuts_no_sentence():
    for path, found in PAGES.items():
        assert " " not in path or not found.get_short_help_str().endswith("..."), path


def test_options_have_a_help_text_and_no_command_hides_behind_another():
    for path, found in LEAVES.items():
        for param in found.params:
            if param.param_type_name == "option":
                assert param.help, (path, param.name)
                assert param.help.endswith((".", ")")), (path, param.name, param.help)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["aks"], "no command 'aks'", "did you mean `llmctl ask`?"),
        (["ledgers"], "no command 'ledgers'", "did you mean `llmctl ledger`?"),
        (["x" * 100], f"no command '{'x' * 60}'", 'to ask a model, write: llmctl ask "..."'),
        ([""], "no command ''", 'to ask a model, write: llmctl ask "..."'),
    ],
)
def test_an_unknown_command_is_refused_with_what_was_probably_meant(words, message, hint):
    error = unknown_command(words)
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize("name", LATER)
def test_a_command_of_a_later_version_is_said_to_be_one(name: str):
    assert name not in COMMANDS
    assert "not in this version" in unknown_command([name]).message
