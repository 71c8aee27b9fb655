"""One key of a file read and changed: comments and order stay, and no change makes a good file a bad one."""

from __future__ import annotations

import stat
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.config.edit import UNSET, edited, key_path, value_of, write
from llmctl.core.catalog import dotted
from llmctl.core.errors import ConfigInvalid, LlmctlError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

STEPS = st.one_of(st.text(min_size=1, max_size=8), st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True))


@given(st.lists(STEPS, min_size=1, max_size=4), st.none() | st.integers(0, 99), STEPS)
def test_a_key_is_read_as_it_is_printed(steps, index, last):
    path = (*steps, last) if index is None else (*steps, index, last)
    if any(not char.isprintable() for step in path if isinstance(step, str) for char in step):
        return  # TOML writes those another way
    if any("=" in step for step in path if isinstance(step, str)):
        return
    assert key_path(dotted(path)) == path


@pytest.mark.parametrize("bad", ["", ".", "a.", ".a", "a b", "a = 1 #", "a[", "[0]", "a[0]b", 'a."b', "a..b", "a\nb"])
def test_what_is_no_key_is_refused(bad: str):
    with pytest.raises(UsageError):
        key_path(bad)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ("smart", "smart"),
        ('"smart"', "smart"),
        ("5s", "5s"),
        ("1\n[x]\ny = 2", "1\n[x]\ny = 2"),
        ("", ""),
        ("env:KEY", "env:KEY"),
    ],
)
def test_a_value_is_one_of_toml_or_else_a_text(text: str, value: Any):
    assert value_of(text) == value


FILE = """\
# the head
default_model = "fast"   # the usual one

[retry]  # tries
tries = 3   # not more

[[models.m.deployments]]
model = "openai/a"
# the second
[[models.m.deployments]]
model = "openai/b"
price = { input = 1, output = 2 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path := tmp_path / "config.toml").write_text(FILE)
    path.chmod(0o600)
    return path


def change(file: Path, key: str, value: Any) -> str:
    write(edited(file, key_path(key), value))
    return file.read_text()


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("retry.tries", "5", "tries = 3   #", "tries = 5   #"),
        ("default_model", "smart", 'default_model = "fast"', 'default_model = "smart"'),
        ("models.m.deployments[1].model", "openai/c", '"openai/b"', '"openai/c"'),
        ("models.m.deployments[1].price.input", "3", "input = 1", "input = 3"),
        ("retry.retries", "0", "tries = 3   # not more\n", "tries = 3   # not more\nretries = 0\n"),
        ("retry.tries", UNSET, "tries = 3   # not more\n", ""),
        ("retry", UNSET, "[retry]  # tries\ntries = 3   # not more\n\n", ""),
    ],
)
def test_a_change_leaves_every_other_byte_as_it_is(file: Path, key: str, value: Any, old: str, new: str):
    assert old in FILE
    assert change(file, key, value) == FILE.replace(old, new)


def test_a_new_table_of_a_new_file_is_written_with_its_header(tmp_path: Path):
    file = tmp_path / "home" / "config.toml"
    assert change(file, "budget.daily", "5.0") == "[budget]\ndaily = 5.0\n"
    assert change(file, "default_model", "smart").startswith('default_model = "smart"\n')
    assert tomllib.loads(change(file, 'models."gpt-4.1".model', "openai/gpt-4.1")) == {
        "default_model": "smart",
        "budget": {"daily": 5.0},
        "models": {"gpt-4.1": {"model": "openai/gpt-4.1"}},
    }
    assert '[models."gpt-4.1"]\n' in file.read_text()
    assert "[models]" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_new_table_within_one_that_is_inline_is_inline_too(tmp_path: Path):
    (file := tmp_path / "config.toml").write_text("models = {}\n")
    assert change(file, "models.m.model", "openai/x") == 'models = {m = {model = "openai/x"}}\n'


def test_a_text_that_looks_like_another_value_is_a_text_where_only_that_is_good(file: Path):
    assert 'api_version = "2024-10-21"' in change(file, "models.m.deployments[0].api_version", "2024-10-21")
    assert 'namespace = "7"' in change(file, "cache.namespace", "7")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("retry.tries", "many", "retry.tries: must be a whole number"),
        ("retry.tries", "7", "retry.tries: must be"),
        ("retry.trys", "3", "retry.trys: unknown key"),
        ("nope", "3", "nope: unknown key"),
        ("cache.namespace", '""', "cache.namespace: "),
        ("default_model", "ghost", "default_model: "),
        ("models.m.fallbacks", '["m"]', "models.m.fallbacks"),
        ("models.m.deployments[7].model", "openai/c", "there is no models.m.deployments[7]"),
        ("default_model.x", "1", "default_model"),
        ("models.m.deployments[0].model", UNSET, "says no model"),
    ],
)
def test_a_change_that_would_not_be_good_is_refused_and_nothing_is_written(file: Path, key, value, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        change(file, key, value)
    assert file.read_text() == FILE


def test_a_whole_group_can_be_taken_out(file: Path):
    assert "models" not in tomllib.loads(change(file, "models.m", UNSET)).get("models", {})
    assert file.read_text().startswith(FILE.partition("[[")[0])


def test_a_file_that_was_bad_before_can_be_mended_but_not_made_worse(file: Path):
    file.write_text("[retry]\ntrys = 3\n")
    with pytest.raises(ConfigInvalid, match="trys"):
        change(file, "retry.tries", "3")
    assert change(file, "retry.trys", UNSET) == "[retry]\n"
    file.write_text("[retry\n")
    with pytest.raises(ConfigInvalid, match=r"config.toml:1: not readable as TOML"):
        change(file, "retry.tries", "3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("providers.openai.api_key", "{}"),
        ("providers.openai", '{{ api_key = "{}" }}'),
        ("providers.openai.headers", '{{ X-Api-Key = "{}" }}'),
        ("serve.api_keys", '["env:MY_KEY", "{}"]'),
    ],
)
def test_a_secret_is_not_written_where_others_can_read_it(file: Path, key: str, value: str):
    secret = "sk-0123456789abcdef0123456789abcdef"
    file.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="a secret in a file that others may read"):
        change(file, key, value.format(secret))
    assert secret not in file.read_text()
    change(file, "providers.openai.api_key", "env:MY_KEY")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.chmod(0o600)
    assert secret in change(file, "providers.openai.api_key", secret)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_byte_order_mark_and_line_ends_of_windows_stay(file: Path):
    file.write_bytes(b"\xef\xbb\xbf[retry]\r\ntries = 3\r\n")
    write(edited(file, key_path("retry.tries"), "4"))
    assert file.read_bytes() == b"\xef\xbb\xbf[retry]\r\ntries = 4\r\n"


def test_a_file_in_another_encoding_is_left_alone(file: Path):
    file.write_bytes(b"# caf\xe9\n[retry]\n")
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        change(file, "retry.tries", "3")
    assert file.read_bytes() == b"# caf\xe9\n[retry]\n"


KEYS = ["retry.tries", "default_model", "budget.daily", "log.retain", "models.m.deployments[0].rpm", "models.new.model"]


@settings(deadline=None, max_examples=40)  # each is a whole validation
@given(st.sampled_from(KEYS), st.text(max_size=12) | st.sampled_from(["3", "5.0", "7d", "openai/x", "fast", '["a"]']))
def test_whatever_is_set_the_file_is_the_old_one_or_holds_exactly_that_change(tmp_path_factory, key: str, value: str):
    file = tmp_path_factory.mktemp("edit") / "config.toml"
    file.write_text(FILE)
    file.chmod(0o600)
    try:
        done = edited(file, key_path(key), value)
    except LlmctlError:
        assert file.read_text() == FILE
        return
    tree = tomllib.loads(done.text)
    for step in key_path(key):
        tree = tree[step]
    assert tree == done.value
    assert all(line in done.text for line in FILE.splitlines() if line.startswith("#"))
