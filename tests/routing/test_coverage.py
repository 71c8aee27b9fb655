"""Every branch of the call machine is walked by its tests. Needs the package `coverage`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
[run]
branch = true
include = */llmctl/routing/call.py, */llmctl/routing/ending.py
[report]
exclude_also = if TYPE_CHECKING:
"""


def test_every_branch_of_the_call_machine_is_walked(tmp_path: Path, pytestconfig: pytest.Config):
    pytest.importorskip("coverage")
    (tmp_path / "rc").write_text(SETTINGS)
    files = [f"--rcfile={tmp_path / 'rc'}", f"--data-file={tmp_path / 'data'}"]

    def coverage(*words: str) -> str:
        command = [sys.executable, "-m", "coverage", words[0], *files, *words[1:]]
        done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    coverage("run", "-m", "pytest", "-p", "no:cacheprovider", "tests/routing/test_call.py")
    coverage("report", "--fail-under=100", "--show-missing")
