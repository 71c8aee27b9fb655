"""The file of kept keys: private, whole or ignored, and below every variable of the environment."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from llmctl.config.keys import Keys
from llmctl.core.catalog import Provider
from llmctl.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

GROQ = Provider("groq", key=("GROQ_API_KEY", "GROQ_KEY"))
BEDROCK = Provider("bedrock", protocol="bedrock", key=("AWS_BEARER_TOKEN_BEDROCK",))
KEY = "gsk-planted-0123456789"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "home" / "keys.json")


def write(keys: Keys, data: bytes, mode: int = 0o600) -> None:
    keys.path.parent.mkdir(exist_ok=True)
    keys.path.write_bytes(data)
    keys.path.chmod(mode)


WHOLE = json.dumps({"version": 1, "keys": {"groq": KEY}}).encode()


def test_a_kept_key_is_found_again_and_its_file_is_private(keys: Keys):
    assert keys.put("groq", KEY) is False
    assert keys.put("openai", "sk-2") is False
    assert keys.put("groq", KEY + "x") is True
    assert Keys(keys.path).rows() == {"groq": KEY + "x", "openai": "sk-2"}
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700
    assert os.listdir(keys.path.parent) == ["keys.json"]


def test_a_removed_key_is_gone_from_the_file_and_others_stay(keys: Keys):
    keys.put("groq", KEY)
    keys.put("openai", "sk-2")
    assert keys.remove("groq") is True
    assert keys.remove("groq") is False
    assert KEY not in keys.path.read_text()
    assert keys.rows() == {"openai": "sk-2"}


def test_a_change_by_another_process_is_seen(keys: Keys):
    assert keys.rows() == {}
    Keys(keys.path).put("groq", KEY)
    assert keys.rows() == {"groq": KEY}
    Keys(keys.path).put("groq", "other")
    assert keys.rows() == {"groq": "other"}


@pytest.mark.parametrize(
    ("provider", "environ", "expected"),
    [
        (GROQ, {}, KEY),
        (GROQ, {"GROQ_API_KEY": " "}, KEY),
        (GROQ, {"GROQ_KEY": "k"}, ""),
        (BEDROCK, {}, KEY),
        (BEDROCK, {"AWS_PROFILE": "dev"}, ""),
        (BEDROCK, {"AWS_ACCESS_KEY_ID": "k"}, ""),
        (Provider("nobody"), {}, ""),
    ],
)
def test_a_variable_of_the_environment_stands_above_a_kept_key(keys: Keys, provider, environ, expected):
    keys.put("groq", KEY)
    keys.put("bedrock", KEY)
    assert keys.of(provider, environ) == expected


def test_a_missing_file_is_no_key_and_nothing_is_made(keys: Keys):
    assert (keys.rows(), keys.warnings) == ({}, [])
    assert not keys.path.parent.exists()


def test_a_file_that_others_can_read_is_used_tightened_and_said_once(keys: Keys):
    write(keys, WHOLE, 0o644)
    assert keys.rows() == {"groq": KEY}
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert len(keys.warnings) == 1
    assert "0644" in keys.warnings[0]
    keys.rows()
    later = Keys(keys.path)
    assert (later.rows(), later.warnings, len(keys.warnings)) == ({"groq": KEY}, [], 1)


def as_link(keys: Keys) -> None:
    keys.path.with_name("real").write_bytes(WHOLE)
    keys.path.symlink_to(keys.path.with_name("real"))


UNUSABLE = {
    "a link": (as_link, "symbolic link"),
    "a directory": (lambda keys: keys.path.mkdir(), "not a file"),
    "a FIFO": (lambda keys: os.mkfifo(keys.path), "not a file"),
    "no JSON": (lambda keys: write(keys, b'{"keys": {"groq": "' + KEY.encode()), "not JSON"),
    "deep JSON": (lambda keys: write(keys, b"[" * 100_000), "not JSON"),
    "no UTF-8": (lambda keys: write(keys, b"\xff\xfe\x00"), "not JSON"),
    "another shape": (lambda keys: write(keys, b'["groq"]'), "no table"),
    "keys that are a list": (lambda keys: write(keys, b'{"keys": [1]}'), "no table"),
    "too large": (lambda keys: write(keys, b" " * ((1 << 20) + 1)), "too large"),
}


@pytest.mark.parametrize(("make", "why"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_that_cannot_be_used_is_no_key_with_one_warning_and_is_not_written_over(keys: Keys, make, why):
    keys.path.parent.mkdir()
    make(keys)
    assert keys.of(GROQ, {}) == ""
    assert keys.of(GROQ, {}) == ""
    (warning,) = keys.warnings
    assert why in warning
    assert KEY not in warning
    before = os.lstat(keys.path)[:6]
    with pytest.raises(ConfigInvalid, match=why) as caught:
        keys.put("groq", "new")
    assert KEY not in caught.value.message
    assert os.lstat(keys.path)[:6] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_used(keys: Keys):
    write(keys, WHOLE)
    os.chown(keys.path, 12345, -1)
    assert keys.rows() == {}
    assert "another user" in keys.warnings[0]


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "ключ", 7, None, {"a": 1}])
def test_a_value_that_is_no_key_is_left_out_and_never_quoted(keys: Keys, value):
    write(keys, json.dumps({"keys": {"groq": KEY, "bad": value}}).encode())
    assert keys.rows() == {"groq": KEY}
    assert "'bad'" in keys.warnings[0]
    assert "two words" not in keys.warnings[0]


def test_a_change_complains_no_more_of_what_was_complained_of_before(keys: Keys):
    write(keys, b'{"keys": {"groq": "no key"}}')
    assert keys.rows() == {}
    assert not keys.put("openai", "sk-0123456789")
    assert len(keys.warnings) == 1


def test_a_home_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match="cannot be"):
        Keys(tmp_path / "file" / "keys.json").put("groq", KEY)
