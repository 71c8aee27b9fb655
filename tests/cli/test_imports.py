"""Cold start is a feature: which modules each command may load. A new one here is a decision, not an accident."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from servers import FaultServer

if TYPE_CHECKING:
    from pathlib import Path

# Runs llmctl as its console script does, and writes what was loaded to a file on the way out.
LOADED = """
import os, sys
before, leave, target = set(sys.modules), os._exit, sys.argv.pop(1)
def note(code):
    with open(target, "w") as file:
        file.write("\\n".join(set(sys.modules) - before))
    leave(code)
os._exit = note
from llmctl.cli.main import main
main()
"""
HEAVY = {
    "pydantic",
    "rich",
    "sqlite_utils",
    "platformdirs",
    "tomllib",
    "tomlkit",
    "yaml",
    "click",
    "importlib.metadata",
}
NETWORK = {"httpx", "httpcore", "anyio", "ssl", "asyncio", "socket"}
STORE = {"sqlite3"}


@pytest.fixture
def loaded(cli):
    def run(*words: str, code: int = 0) -> set[str]:
        note = cli.root / "modules"
        done = subprocess.run(
            [sys.executable, "-c", LOADED, note, *words],
            env=cli.environ,
            cwd=cli.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        modules = set(note.read_text().split())
        return modules | {name.partition(".")[0] for name in modules}

    return run


def test_the_version_loads_nothing_but_where_it_is_written(loaded):
    assert loaded("--version") <= {"llmctl", "llmctl.cli", "llmctl.cli.main", "llmctl._version", "__future__"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["ask", "--help"], ["route", "test", "--help"], ["fallback", "show", "--help"], ["nope"]],
    ids=" ".join,
)
def test_help_and_usage_errors_load_no_engine(loaded, words):
    modules = loaded(*words, code=2 if words == ["nope"] else 0)
    assert not modules & (HEAVY | NETWORK | STORE)
    assert not modules & {"llmctl.client", "llmctl.run", "llmctl.wire", "llmctl.store", "llmctl.core.catalog"}


def test_a_call_over_http_loads_no_heavy_library(cli, loaded):
    with FaultServer("ok") as server:
        cli.to(server)
        assert loaded("ask", "-m", "openai/m", "cold") & {"tomllib"}
        modules = loaded("ask", "-m", "openai/m", "warm")
    assert not modules & HEAVY
    assert {"httpx", "sqlite3", "asyncio"} <= modules
    assert not modules & {"llmctl.run.local", "llmctl.config.schema", "llmctl.config.source", "llmctl.cli.dry_run"}
    assert not modules & {"multiprocessing", "unittest", "llmctl.testing", "llmctl.cli.ledger"}
    assert not modules & {"llmctl.routing.explain", "llmctl.cli.explaining", "llmctl.lab", "llmctl.cli.route"}
    assert not modules & {"llmctl.run.telling", "llmctl.cli.tracing", "opentelemetry", "sentry_sdk"}


@pytest.mark.parametrize("words", [[], ["--json"], ["--no-stream"], ["-v"]], ids=" ".join)
def test_an_answer_from_the_cache_needs_neither_an_event_loop_nor_a_connection(cli, loaded, words):
    cli.environ["LLMCTL_CACHE"] = "exact"
    with FaultServer("ok") as server:
        cli.to(server)
        assert loaded("ask", "-m", "openai/m", "what is a mutex?") >= {"httpx", "asyncio", "socket"}
        modules = loaded("ask", "-m", "openai/m", "what is a mutex?", *words)
        assert server.connections == 1
    assert "sqlite3" in modules
    assert not modules & (HEAVY | NETWORK | {"logging", "tempfile", "concurrent"})
    assert not modules & {"llmctl.run.engine", "llmctl.wire.base", "llmctl.store.state", "llmctl.core.canonical"}


def test_a_call_of_the_embedded_model_loads_no_http(cli, loaded, weights_dir: Path):
    (cli.home / "weights").mkdir(parents=True, mode=0o700)
    for file in weights_dir.glob("*.gguf"):
        (cli.home / "weights" / file.name).symlink_to(file)
    assert loaded("ask", "-m", "local", "hello")
    modules = loaded("ask", "-m", "local", "hello")
    assert not modules & (HEAVY | {"httpx", "httpcore", "anyio", "numpy"})


@pytest.mark.parametrize("words", [["ledger", "list"], ["ledger", "list", "--json"], ["ledger", "path"]], ids=" ".join)
def test_the_ledger_is_listed_without_network_and_heavy_libraries(loaded, words):
    assert not loaded(*words) & (HEAVY | NETWORK)


def test_the_rules_of_routing_are_printed_without_network_and_store(loaded):
    assert loaded("route", "explain")
    assert not loaded("route", "explain") & (NETWORK | STORE | HEAVY)


def test_a_chain_is_shown_without_http_and_heavy_libraries(loaded):
    assert loaded("fallback", "show", "openai/m")
    assert not loaded("fallback", "show", "openai/m") & (HEAVY | {"httpx", "httpcore", "anyio"})


def test_the_package_itself_loads_nothing(cli):
    code = "import sys; before = set(sys.modules); import llmctl; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], env=cli.environ, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"llmctl", "__future__"}


def test_the_first_prompt_of_a_chat_needs_neither_an_event_loop_nor_a_connection(cli, loaded):
    cli.environ["OPENAI_API_KEY"] = "k"
    loaded("chat", "-m", "openai/m", code=2)
    modules = loaded("chat", "-m", "openai/m", code=2)  # with the catalog warm
    assert "llmctl.cli.chat_loop" in modules
    assert not modules & (HEAVY | NETWORK)
