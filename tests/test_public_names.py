"""What `import llmctl` offers, and how little it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llmctl

ROOT = Path(__file__).parents[1]
CODE = "import sys; before = set(sys.modules); {work}; new = set(sys.modules) - before; print(*sorted(new))"


def loaded(work: str) -> set[str]:
    """The modules that `work` loads in a process of its own."""
    environ = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE.format(work=work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", llmctl.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(llmctl, name) is not None
    assert name in dir(llmctl)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = llmctl.nonsense  # type: ignore[attr-defined]


def test_names_of_the_contract() -> None:
    assert set(llmctl.__all__) >= {"Client", "complete", "stream", "errors"}
    assert issubclass(llmctl.errors.RateLimited, llmctl.errors.LlmctlError)


def test_star_import_gives_the_public_names() -> None:
    found: dict[str, object] = {}
    exec("from llmctl import *", found)
    assert set(llmctl.__all__) <= set(found)


def test_import_llmctl_loads_llmctl_and_nothing_else() -> None:
    assert loaded("import llmctl") <= {"llmctl", "__future__"}


def test_errors_alone_load_nothing_heavy() -> None:
    heavy = {"httpx", "pydantic", "typer", "rich", "asyncio", "sqlite3", "sqlite_utils", "xllamacpp", "ssl"}
    assert not loaded("import llmctl; llmctl.errors") & heavy


def test_client_loads_what_a_call_needs_only_when_it_is_made() -> None:
    later = {"httpx", "pydantic", "typer", "rich", "sqlite_utils", "xllamacpp", "llmctl.run.local"}
    assert not loaded("import llmctl; llmctl.Client") & later


def test_doubles_load_no_transport() -> None:
    assert not loaded("import llmctl.testing") & {"httpx", "pydantic", "typer", "rich", "sqlite3", "xllamacpp"}
