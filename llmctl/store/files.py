"""Files as the store keeps them: private from the first byte, replaced whole, never reached through a link.

SQLite's own locks belong to the process: closing any descriptor of a database file drops them all. So an existing
database is only ever looked at with `lstat` here, never opened.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llmctl.core.errors import LedgerUnusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre")
)
_creating = threading.Lock()


def _after_fork() -> None:
    global _creating  # noqa: PLW0603 - a lock held by another thread at the fork would never be let go
    _creating = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def private_directory(path: str) -> None:
    """Make `path`, and what is missing above it, 0700 whatever the umask; what exists is left as it is."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and parent != path:
        private_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)


def private_file(path: str) -> None:
    """Make `path` an empty 0600 file unless it is there; tighten a looser one.

    Raises LedgerUnusable for a link, a file of another user, or something that is no file.
    """
    with _creating:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(create_private(path))
            found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a file"
        raise LedgerUnusable(f"{path} is {what}", hint="move it away, or point LLMCTL_HOME at another directory")
    if found.st_uid != os.geteuid():
        raise LedgerUnusable(f"{path} belongs to another user", hint="point LLMCTL_HOME at a directory of your own")
    if found.st_mode & 0o077:
        os.chmod(path, 0o600)


def create_private(path: str) -> int:
    """A descriptor of a new 0600 file. Raises FileExistsError, also for a dangling link."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def write_private(path: str, data: bytes) -> None:
    """Replace `path` by a 0600 file holding `data`, whole or not at all, also across a power loss."""
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        descriptor = create_private(temporary)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def identity(path: str) -> tuple[int, int] | None:
    """Which file is at `path` (device and inode); None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def size(path: str) -> int:
    """The bytes of the file at `path`; 0 when there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def free_name(path: str) -> str:
    """`path`, or `path-2`, `path-3`, ... whichever is not taken."""
    name, n = path, 1
    while os.path.lexists(name):
        n += 1
        name = f"{path}-{n}"
    return name


@contextmanager
def directory_lock(directory: str, *, wait: bool = True) -> Iterator[bool]:
    """A lock between processes on a directory, let go by the kernel when its holder dies; whether it was got.

    Without `wait` another holder is not waited for. Where directories cannot be locked (some network file systems) it
    counts as held, so what it guards must be harmless when done twice.
    """
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        held = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            held = not isinstance(error, BlockingIOError)
        yield held
    finally:
        os.close(descriptor)


def mounts() -> list[str]:
    """The lines of the mount table; empty where the system has none to read."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
            return table.read().splitlines()
    except OSError:
        return []


def on_network(directory: str, table: Iterable[str]) -> str:
    """The type of the network file system that holds `directory`, "" for a local one.

    WAL needs memory shared by every writer, which two hosts have not: sqlite.org/wal.html, "Disadvantages".
    """
    best, found = "", ""
    for line in table:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = directory == point or directory.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, fields[2]
    return found if found in _NETWORK else ""
