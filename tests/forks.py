"""Many runs of llmctl in little time: a process that has imported it forks for each of them.

Nothing of a run is shared with the next one, as with processes of their own. What a start costs is not seen here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60
PARENT = """
import asyncio, json, os, sys, time
import httpx, sqlite_utils, typer
import llmctl.cli.main, llmctl.client, llmctl.config.load, llmctl.run.engine, llmctl.run.transport
from llmctl.cli import commands
for name in commands.COMMANDS:
    commands.command(name)
read, write = map(int, sys.argv[1:3])
with os.fdopen(read) as jobs, os.fdopen(write, "w") as ends:
    for line in jobs:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(job["cwd"])
            os.environ.clear()
            os.environ.update(job["environ"])
            time.tzset()
            for number, (path, flags) in enumerate(job["streams"]):
                os.dup2(os.open(path, flags), number)
            jobs.close(), ends.close()
            sys.argv = ["llmctl", *job["words"]]
            llmctl.cli.main.main()
        ends.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n")
        ends.flush()
"""


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Forks:
    """Runs llmctl with an environment and a directory; a context that ends the parent of the runs."""

    def __init__(self) -> None:
        job_read, self._jobs = os.pipe()
        self._ends, end_write = os.pipe()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._parent = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PARENT, str(job_read), str(end_write)],
            pass_fds=(job_read, end_write),
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        os.close(job_read)
        os.close(end_write)
        self._said = os.fdopen(self._ends)

    def run(self, words: list[str], environ: Mapping[str, str], cwd: Path, stdin: bytes | None = None) -> Ran:
        """Run `llmctl WORDS`; without `stdin` there is nothing to read."""
        code, out, err = self.ended(words, environ, cwd, stdin)
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def ended(
        self, words: list[str], environ: Mapping[str, str], cwd: Path, stdin: bytes | None = None
    ) -> tuple[int, bytes, bytes]:
        """As `run`: the exit code, and the bytes on stdout and stderr."""
        with tempfile.TemporaryDirectory() as name:
            given, out, err = (Path(name) / each for each in ("in", "out", "err"))
            given.write_bytes(stdin or b"")
            new = os.O_WRONLY | os.O_CREAT
            streams = [(os.devnull if stdin is None else str(given), os.O_RDONLY), (str(out), new), (str(err), new)]
            job = {"words": words, "environ": dict(environ), "cwd": str(cwd), "streams": streams}
            os.write(self._jobs, json.dumps(job).encode() + b"\n")
            if not select.select([self._said], [], [], PATIENCE_S)[0]:
                os.killpg(self._parent.pid, signal.SIGKILL)
                raise TimeoutError(f"llmctl {words} has not ended within {PATIENCE_S} s")
            return int(self._said.readline()), out.read_bytes(), err.read_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._jobs)
        self._parent.wait(30)
        self._said.close()
