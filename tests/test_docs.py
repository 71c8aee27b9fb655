"""The README and the pages under docs/ are executed, so that they are never wrong.

A `console` block is a session: lines after `$ ` are run, and the lines below each must be its output, where `...`
stands for anything. A `python` block is run; a `toml` block must be a valid configuration. The blocks of a page share
a home.
Blocks of `sh` set a machine up and are run by `.ci/run`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from junitparser import JUnitXml

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *kinds: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall(page.read_text()) if kind in kinds]


def steps(text: str) -> list[tuple[str, str]]:
    """(command, expected output) pairs of a console block."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, expected = found.pop()
            found.append((command, f"{expected}{line}\n"))
    return found


def matches(expected: str, got: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, got.strip(), re.DOTALL) is not None


@pytest.fixture
def shell(tmp_path: Path, weights_dir: Path):
    """Runs commands in an empty directory with an empty home that has only the weights."""
    home = tmp_path / "home"
    (home / "weights").mkdir(parents=True, mode=0o700)
    for file in weights_dir.glob("*.gguf"):
        (home / "weights" / file.name).symlink_to(file)
    (bin_dir := tmp_path / "bin").mkdir()
    (bin_dir / "llmctl").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmctl "$@"\n')
    (bin_dir / "llmctl").chmod(0o755)
    (bin_dir / "python").symlink_to(sys.executable)
    (bin_dir / "pip").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pip "$@"\n')
    (bin_dir / "pip").chmod(0o755)
    (work := tmp_path / "work").mkdir()
    environ = {
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOME": str(home),
        "LLMCTL_HOME": str(home),
        "LANG": "C.UTF-8",
    }

    def run(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environ, cwd=work, input=stdin, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def drill_config(shell, tmp_path: Path) -> Path:
    """The configuration that docs/drills.md says to save, where its commands run."""
    (_, text), *_ = blocks(ROOT / "docs" / "drills.md", "toml")
    (file := tmp_path / "work" / "llmctl.toml").write_text(text)
    return file


@pytest.mark.usefixtures("drill_config")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_console_block_of_the_page_runs_and_prints_what_it_says(page, shell):
    for _, text in blocks(page, "console"):
        for command, expected in steps(text):
            done = shell("bash", "-c", f"exec 2>&1\n{command}")
            assert matches(expected, done.stdout), f"{command}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_of_the_page_runs(page, shell):
    for _, text in blocks(page, "python"):
        done = shell(sys.executable, "-W", "error", "-c", text)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_toml_block_of_the_page_is_a_valid_configuration(page, shell, tmp_path):
    for n, (_, text) in enumerate(blocks(page, "toml")):
        (file := tmp_path / f"{n}.toml").write_text(text)
        file.chmod(0o600)
        done = shell("llmctl", "--config", str(file), "config", "check")
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_workflow_of_the_page_runs_as_it_stands_offline_and_without_a_secret(shell, drill_config, tmp_path):
    ((_, text),) = blocks(ROOT / "docs" / "drills.md", "yaml")
    (job,) = yaml.safe_load(text)["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert len(commands) == 3
    summary = tmp_path / "summary.md"
    for command in commands:  # GitHub runs a step like this: docs.github.com, "jobs.<job_id>.steps[*].shell"
        done = shell("bash", "-e", "-c", f"export GITHUB_STEP_SUMMARY={summary} LLMCTL_OFFLINE=1\n{command}")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    suites = JUnitXml.fromfile(str(drill_config.parent / "drill.xml"))
    assert suites.tests > 80
    assert suites.failures == suites.errors == 0
    assert "| pass |" in summary.read_text()


def test_the_readme_itself_can_be_piped_to_the_embedded_model(shell):
    done = shell("llmctl", "ask", "summarise", "-m", "local", stdin=(ROOT / "README.md").read_text()[:2000])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_pages_of_docs_are_all_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    for page in PAGES[1:] if PAGES[0].name == "README.md" else [p for p in PAGES if p.name != "README.md"]:
        assert f"docs/{page.name}" in readme


def test_a_session_block_that_prints_something_else_is_noticed():
    assert matches("a ... c\n", "a b c\n")
    assert not matches("a ... c\n", "a b d\n")
    assert steps("$ one\n1\n$ two\n") == [("one", "1\n"), ("two", "")]
