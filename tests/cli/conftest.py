"""`llmctl` as a process of its own, in a home of its own, with an environment that holds nothing but what is set.

Where nothing of the interpreter's own start matters, it is forked from one that has imported all (`tests/forks.py`):
that takes a tenth of the time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from forks import Forks
    from servers import FaultServer

ROOT = Path(__file__).parents[2]
KEY = "sk-planted-0123456789abcdef"
PATIENCE_S = 60
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()

    def refused(self, code: int) -> str:
        """The message of an error of the promised shape, with this exit code and a hint."""
        assert (self.code, self.out) == (code, b""), self
        assert self.lines[-2].startswith("llmctl: error: "), self.err
        assert self.lines[-1].startswith("hint: "), self.err
        assert len(self.lines) <= 4
        assert "Traceback" not in self.err
        return self.lines[-2].removeprefix("llmctl: error: ")


class Cli:
    """Runs `python -m llmctl` in `home`; `environ` is all that its processes see."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.root = root
        self._forks = forks
        self.home = root / "home"
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONWARNINGS": "error",
            "LLMCTL_HOME": str(self.home),
        }
        self._start = _of_the_start(self.environ)

    def to(self, server: FaultServer) -> Cli:
        """Itself, with the provider `openai` at `server`."""
        self.environ |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        return self

    def start(self, *words: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        command = [sys.executable, "-m", "llmctl", *words]
        return subprocess.Popen(command, env=self.environ | (env or {}), cwd=self.root, **how)

    def run(self, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None, **how: Any) -> Done:
        environ = self.environ | (env or {})
        alone = threading.current_thread() is threading.main_thread()  # else it is to run beside another
        if not how and alone and _of_the_start(environ) == self._start:
            code, said, told = self._forks.ended(list(words), environ, self.root, stdin)
            return Done(code, said, told.decode())
        how |= {"stdin": subprocess.PIPE} if stdin is not None else {}
        with self.start(*words, env=env, **how) as process:
            try:
                out, err = process.communicate(stdin, PATIENCE_S)
            finally:
                process.kill()
        return Done(process.returncode, out or b"", (err or b"").decode())

    def ask(self, *words: str, **how: Any) -> Done:
        """Ask the provider `openai`, which is asked once unless the words say otherwise."""
        retries = () if "--retries" in words else ("--retries", "0")
        return self.run("ask", "-m", "openai/m", *retries, *words, **how)

    def shell(self, script: str, **env: str) -> Done:
        """A bash script in which `llmctl` is a function."""
        function = f'llmctl() {{ "{sys.executable}" -m llmctl "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", function + script],
            env=self.environ | env,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def calls(self) -> list[dict[str, Any]]:
        """The rows of the ledger with their texts, oldest first."""
        ledger = sqlite3.connect(self.home / "ledger.db")
        try:
            ledger.row_factory = sqlite3.Row
            rows = ledger.execute(
                "select c.*, t.prompt, t.answer from calls c left join content t on t.call_id = c.id order by c.id"
            ).fetchall()
        finally:
            ledger.close()
        return [dict(row) for row in rows]

    def ending(self) -> tuple[Any, ...]:
        """How the only call ended: state, exit code, error, answer."""
        (call,) = self.calls()
        return call["state"], call["exit_code"], call["error"], call["answer"]


def _of_the_start(environ: dict[str, str]) -> dict[str, str]:
    """What an interpreter looks at when it starts."""
    return {key: value for key, value in environ.items() if key.startswith(("PYTHON", "LC_", "LANG", "COVERAGE"))}


@pytest.fixture
def cli(tmp_path: Path, forks: Forks) -> Cli:
    return Cli(tmp_path, forks)


@pytest.fixture
def uncached(cli: Cli) -> None:
    """Equal calls are each made: for tests of what calls do, not of what is kept of them."""
    cli.environ["LLMCTL_CACHE"] = "off"
