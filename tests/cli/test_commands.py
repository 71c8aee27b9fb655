"""The command tree and its help: one sentence, examples that are accepted, 80 columns, no guessing."""

from __future__ import annotations

import re
import shlex
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


def examples(found: Any) -> list[str]:
    """The command lines after `Example:` or `Examples:`, on lines of their own or on one, parted by `; `."""
    text = f"{found.help or ''}\n{found.epilog or ''}"
    lines: list[str] = []
    for start in re.finditer(r"Examples?:", text):
        rest = text[start.end() :]
        block = rest.lstrip("\n") if rest.startswith("\n") else rest.partition("\n")[0].replace("; ", "\n")
        for line in block.splitlines():
            if not line.strip():
                break
            lines.append(line.strip())
    return lines


def llmctl_words(line: str) -> list[list[str]]:
    """The words after each `llmctl` in a shell line, up to a pipe, a redirection or the end of a substitution."""
    inner = re.findall(r"\$\(llmctl ([^)]*)\)", line)
    outer = [re.split(r"\s[|>]", part)[0] for part in re.split(r"(?:^|\| )llmctl ", line)[1:]]
    return [shlex.split(part) for part in (*inner, *outer)]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_is_an_app_with_that_name(name):
    module, text = COMMANDS[name]
    assert import_module(module).app
    assert command(name).name == name
    assert text.endswith(".")
    assert len(text) <= 66


@pytest.mark.parametrize("path", PAGES)
def test_help_is_one_sentence_and_fits_80_columns(cli, path):
    done = cli.run(*path.split(), "--help", env={"COLUMNS": "200"})
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.decode().splitlines())) <= 80
    sentence = (PAGES[path].help or "").split("\n\n")[0].split("\x08")[0].strip()
    assert sentence.endswith(".")
    assert not re.search(r"\. [A-Z]", sentence), sentence


@pytest.mark.parametrize("path", LEAVES)
def test_each_command_has_one_to_five_examples_that_the_parser_accepts(path):
    lines = examples(LEAVES[path])
    assert 1 <= len(lines) <= 5, lines
    for line in lines:
        assert llmctl_words(line), line
        for words in llmctl_words(line):
            parse(words)


def parse(words: list[str]) -> None:
    """Parse `words` down to the command they name, and run nothing."""
    from llmctl.cli.main import _global_options

    rest, *_ = _global_options(words)
    depth = next(n for n in range(len(rest), 0, -1) if " ".join(rest[:n]) in PAGES)
    path = " ".join(rest[:depth])
    assert path in LEAVES, words
    context = LEAVES[path].make_context(path, rest[depth:], resilient_parsing=False)
    context.close()


def test_the_examples_of_ask_are_accepted_as_a_dry_run(cli):
    (cli.root / "notes.txt").write_text("notes")
    (cli.root / "person.json").write_text('{"type": "object"}')
    (cli.root / "card.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    env = {"OPENAI_API_KEY": "k" * 20}
    for line in examples(LEAVES["ask"]):
        (words,) = llmctl_words(line)
        done = cli.run(*words, "--dry-run", stdin=b"piped", env=env)
        assert done.code == 0, (line, done.err)


def test_the_words_of_an_example_are_found_in_pipes_and_substitutions():
    assert llmctl_words('git diff | llmctl ask "a b" | cat') == [["ask", "a b"]]
    assert llmctl_words('edit "$(llmctl config path)"') == [["config", "path"]]
    assert llmctl_words("llmctl config schema > x.json") == [["config", "schema"]]
    assert llmctl_words("ls") == []


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
