"""Searching hostile text with an expression that may run away on it.

It is done in a process of its own: nothing else can end it, because `re` holds the interpreter's lock all the while.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

_SEARCH = "import json, re, sys; sys.exit(0 if re.search(*json.load(sys.stdin)) else 3)"
_FOUND = {0: True, 3: False}


async def search(regex: str, text: str, most_s: float) -> bool | None:
    """Whether `regex` is found in `text`; None when that is not known after `most_s` seconds, or not at all."""
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    given = json.dumps([regex, text]).encode()
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, input=given, capture_output=True, timeout=most_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _FOUND.get(done.returncode)
