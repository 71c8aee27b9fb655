"""The keys of `llmctl keys set`: a 0600 file in the data directory, from the name of a provider to its key.

It stands below the environment's own variables, so it is read only when those have no key. A file that is not whole or
not ours is complained of once and counts as if there were none, a loose one is made private: no call fails for it.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from llmctl.config.files import write_private
from llmctl.core.errors import ConfigInvalid
from llmctl.core.redact import is_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmctl.core.catalog import Provider

KEPT = "keys"
"""What is said of a key that comes from here, where the name of a variable would stand."""
_LARGEST = 1 << 20
# Amazon's chain has its own variables for keys: they are the environment's, so they stand above what is kept here.
_CHAINS = {"bedrock": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")}


class Keys:
    """The kept keys, read anew when the file has become another. `warnings` collects what a person must hear, once."""

    def __init__(self, path: Path) -> None:
        """Touches nothing."""
        self.path = path
        self.warnings: list[str] = []
        self._rows: dict[str, str] = {}
        self._read: tuple[int, int, int] | None = None

    def of(self, provider: Provider, environ: Mapping[str, str]) -> str:
        """The key kept for `provider`; "" for none, and where a variable of the environment stands above it."""
        above = (*provider.key, *_CHAINS.get(provider.protocol, ()))
        return "" if any(environ.get(name, "").strip() for name in above) else self.rows().get(provider.name, "")

    def rows(self) -> Mapping[str, str]:
        """Every kept key by its provider's name; none where the file cannot be used."""
        try:
            found = os.lstat(self.path)
        except OSError as error:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                self._complain(f"cannot be looked at ({error.strerror}): its keys are not used")
            return {}
        mark = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        if mark != self._read:
            try:
                self._rows = self._parsed(self._data())
            except (OSError, ValueError) as error:
                self._rows = {}
                self._complain(f"{_why(error)}: its keys are not used")
            found = os.lstat(self.path)  # tightening it has changed it
            self._read = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        return self._rows

    def put(self, provider: str, key: str) -> bool:
        """Keep `key`; whether it replaced another. Raises ConfigInvalid where the file cannot be read or written."""
        rows = self._to_change()
        replaced = provider in rows
        self._write({**rows, provider: key})
        return replaced

    def remove(self, provider: str) -> bool:
        """Forget a key; whether there was one. Raises ConfigInvalid where the file cannot be read or written."""
        rows = self._to_change()
        if provider not in rows:
            return False
        self._write({name: key for name, key in rows.items() if name != provider})
        return True

    def _to_change(self) -> dict[str, str]:
        """The rows of a file that is whole: one that is not may hold what its owner still wants."""
        try:
            return self._parsed(self._data())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"{self.path} {_why(error)}", hint="mend it or move it away") from error

    def _write(self, rows: Mapping[str, str]) -> None:
        text = json.dumps({"version": 1, "keys": dict(sorted(rows.items()))}, indent=1) + "\n"
        try:
            write_private(self.path, text)
        except OSError as error:
            hint = "point LLMCTL_HOME at a directory that you may write"
            raise ConfigInvalid(f"{self.path}: cannot be written ({error.strerror})", hint=hint) from error

    def _data(self) -> bytes:
        """What the file holds, from now on readable by its owner only. Raises OSError or ValueError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("is not a file")
            if found.st_uid != os.geteuid():
                raise ValueError("belongs to another user")
            if found.st_mode & 0o077:
                self._tighten(descriptor, stat.S_IMODE(found.st_mode))
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(_LARGEST + 1)
        finally:
            os.close(descriptor)
        if len(data) > _LARGEST:
            raise ValueError("is too large for a file of keys")
        return data

    def _tighten(self, descriptor: int, mode: int) -> None:
        was = f"others could read it (mode {mode:04o})"
        try:
            os.fchmod(descriptor, 0o600)
            self._complain(f"{was}: it is 0600 now; renew the keys if others may have seen them")
        except OSError as error:
            self._complain(f"{was}, and it cannot be made 0600 ({error.strerror})")

    def _parsed(self, data: bytes) -> dict[str, str]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):  # whose text would quote the file
            raise ValueError("is damaged: it is not JSON") from None
        rows = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(rows, dict):
            raise ValueError('is damaged: it has no table "keys"')  # noqa: TRY004 - of a file, not of a caller
        bad = [name for name, key in rows.items() if not isinstance(key, str) or not is_key(key)]
        if bad:
            self._complain(f"what it has for {', '.join(bad)[:100]!a} is no key: `llmctl keys set` replaces it")
        return {name: key for name, key in rows.items() if name not in bad}

    def _complain(self, what: str) -> None:
        line = f"{self.path} {what}" if not what.startswith(("others", "what")) else f"{self.path}: {what}"
        if line not in self.warnings:
            self.warnings.append(line)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        link = os.path.islink(error.filename) if error.filename else False
        return "is a symbolic link" if link else f"cannot be read ({error.strerror})"
    return str(error)
