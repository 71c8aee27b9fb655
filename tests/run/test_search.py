"""A search that runs away ends with whoever waits for it."""

from __future__ import annotations

import subprocess
import sys

CANCELLED = """
import asyncio, os
from llmctl.run.search import search

async def main():
    try:
        async with asyncio.timeout(0.5):
            await search("(a+)+$", "a" * 60 + "b", 5.0)
    except TimeoutError:
        return os.waitpid(-1, os.WNOHANG)

try:
    print(asyncio.run(main()))
except ChildProcessError:
    print("no child")
"""


def test_a_search_that_is_cancelled_leaves_no_process_behind() -> None:
    done = subprocess.run([sys.executable, "-c", CANCELLED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("no child\n", "")
