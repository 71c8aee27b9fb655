"""Where llmctl keeps things: the configuration files it reads and the directory it writes.

Nothing is read from the current directory unasked. Nothing here touches the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

APP = "llmctl"


class Places(NamedTuple):
    """The data directory and the configuration files, later ones winning. `chosen` when the user named the files."""

    home: Path
    config_files: tuple[Path, ...]
    chosen: bool = False

    @property
    def ledger(self) -> Path:
        """The durable database of calls."""
        return self.home / "ledger.db"

    @property
    def state(self) -> Path:
        """What all calls of one user share: limits in use, cooldowns, latencies. Disposable."""
        return self.home / "state.db"

    @property
    def cache(self) -> Path:
        """Answers kept for equal requests. Disposable."""
        return self.home / "cache.db"

    @property
    def spool(self) -> Path:
        """Where ledger rows wait when the ledger cannot be written."""
        return self.home / "spool"

    @property
    def keys(self) -> Path:
        """The keys of `llmctl keys set`."""
        return self.home / "keys.json"

    @property
    def catalog(self) -> Path:
        """The validated configuration, kept so that a start need not validate again. Disposable."""
        return self.home / "catalog.json"

    @property
    def prices(self) -> Path:
        """The user's own price table, newer than the one that llmctl ships."""
        return self.home / "prices.jsonl"

    @property
    def weights(self) -> Path:
        """The directory of downloaded model weights."""
        return self.home / "weights"


def places(environ: Mapping[str, str], config_flags: Sequence[str] = ()) -> Places:
    """The places that the environment and any `--config` flags choose."""
    home = _home(environ)
    if config_flags:
        return Places(home, tuple(Path(flag).expanduser() for flag in config_flags), chosen=True)
    if environ.get("LLMCTL_CONFIG"):
        return Places(home, (Path(environ["LLMCTL_CONFIG"]).expanduser(),), chosen=True)
    if environ.get("LLMCTL_HOME"):
        return Places(home, (home / "config.toml",))
    import platformdirs

    return Places(home, (Path(platformdirs.user_config_dir(APP, appauthor=False)) / "config.toml",))


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("LLMCTL_HOME"):
        return Path(environ["LLMCTL_HOME"]).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir(APP, appauthor=False))
