"""The house rules, checked by their own tools: the floors, the types, the lint, and what must stand in no file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TOOLS = {
    "the floors hold": ["lint-imports"],
    "the types hold": ["mypy"],
    "nothing is left to lint": ["ruff", "check", "."],
    "every file is formatted": ["ruff", "format", "--check", "."],
}


@pytest.mark.parametrize("command", TOOLS.values(), ids=TOOLS.keys())
def test_house_rule(command):
    tool, *rest = command
    done = subprocess.run([BIN / tool, *rest], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    return [file for file in files if file.is_file()] or sorted((ROOT / "llmctl").rglob("*.py"))


def test_no_file_names_a_registry_host_or_an_absolute_path_of_somebodys_machine():
    hosts = re.compile(
        rb"files\.pythonhosted|pypi\.org/simple|registry\.npmjs|(?<![\w}])/(?:home|Users|root|work)/[a-z]+/"
    )
    this = Path(__file__)
    assert not [file for file in tracked() if file != this and hosts.search(file.read_bytes())]


def test_the_version_is_written_once():
    assert [file for file in tracked() if b"__version__ = " in file.read_bytes() and file != Path(__file__)] == [
        ROOT / "llmctl" / "_version.py"
    ]


def test_every_module_says_what_lives_in_it():
    silent = [
        file
        for file in (ROOT / "llmctl").rglob("*.py")
        if not file.read_text().lstrip("# \n").startswith(('"""', 'r"""'))
    ]
    assert not silent


def test_the_readme_commands_are_what_continuous_integration_runs():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert readme.count("```sh\n") == 2
    assert "README.md" in script


def test_no_statement_numbers_its_parameters():
    """Python 3.12 warns where a sequence is bound to `?1`, and 3.14 refuses it (docs.python.org, sqlite3)."""
    assert not [file for file in (ROOT / "llmctl").rglob("*.py") if re.search(r"[ (]\?\d", file.read_text())]
