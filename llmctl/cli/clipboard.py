"""Putting an answer on the clipboard: by the program that is there for it, else by asking the terminal."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys

from llmctl.cli.output import tell

_PATIENCE_S = 3.0
_PROGRAMS = (
    ("", ("pbcopy",)),
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
)
"""What puts its stdin on the clipboard, and the variable without which it has none to put it on."""
_MOST = 74_994
"""Bytes that a terminal is asked to take: with base64 a sequence of 100,000, as hterm's `osc52.sh` has it."""

_NONE = "there is no pbcopy, wl-copy, xclip or xsel with a clipboard, and no terminal"


def copy(text: str) -> tuple[bool, str]:
    """Whether `text` was given to a clipboard, and what has to be said about that."""
    data = text.encode("utf-8", "replace")
    failed = []
    for variable, command in _PROGRAMS:
        program = shutil.which(command[0])
        if program is None or (variable and not os.environ.get(variable)):
            continue
        why = _given(data, [program, *command[1:]])
        if not why:
            return True, ""
        failed.append(f"{command[0]} {why}")
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return False, "; ".join(failed) or _NONE
    if len(data) > _MOST:
        return False, f"it has {len(data):,} bytes, and a terminal is given {_MOST:,} at most"
    # XTerm Control Sequences, "OSC Ps ; Pt": 52, selection c (invisible-island.net/xterm/ctlseqs, read 2026-11-20).
    tell(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
    return True, "the terminal was asked to copy it; whether it does is in its settings (OSC 52)"


def _given(data: bytes, command: list[str]) -> str:
    """Why `command` did not take the data. What it leaves running holds no pipe of ours."""
    try:
        # llmctl runs no shell, and nothing of the answer is an argument.
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {_PATIENCE_S:.0f} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    return "" if done.returncode == 0 else f"ended with exit code {done.returncode}"
