"""Searching hostile text with an expression that may run away on it.

It is done in a process of its own: nothing else can end it, because `re` holds the interpreter's lock all the while.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE

_SEARCH = "import json, re, sys; sys.exit(0 if re.search(*json.load(sys.stdin)) else 3)"
_FOUND: dict[int | None, bool] = {0: True, 3: False}


async def search(regex: str, text: str, most_s: float) -> bool | None:
    """Whether `regex` is found in `text`; None when that is not known after `most_s` seconds, or not at all."""
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    given = json.dumps([regex, text]).encode()
    try:
        async with asyncio.timeout(most_s):
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
            try:
                await process.communicate(given)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    except OSError:  # which TimeoutError is
        return None
    return _FOUND.get(process.returncode)
