"""`llmctl config`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmctl.cli.config import app
from llmctl.cli.context import Context
from llmctl.config.load import catalog_of
from llmctl.core.errors import ConfigInvalid, UsageError

TEMPLATE = (Path(__file__).parents[2] / "llmctl" / "data" / "template.toml").read_text(encoding="utf-8")
SECRET = "sk-0123456789abcdef0123456789abcdef"


class Shell:
    """A home, and a way to run `llmctl config ...` in it without the entry point around."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.file = self.home / "config.toml"
        self.environ = {"LLMCTL_HOME": str(self.home)}

    def write(self, text: str) -> None:
        self.home.mkdir(exist_ok=True)
        self.file.write_text(text)
        self.file.chmod(0o600)

    def run(self, *words: str, config: tuple[str, ...] = ()) -> Result:
        return CliRunner().invoke(app, list(words), obj=Context(self.environ, config))

    def out(self, *words: str) -> str:
        result = self.run(*words)
        if result.exception:
            raise result.exception
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.out(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# --- init -----------------------------------------------------------------------------------------------------------


def uncommented(marker: str) -> str:
    return "".join(line.removeprefix(marker) for line in TEMPLATE.splitlines(keepends=True))


def test_init_writes_a_private_file_in_a_private_directory_and_prints_its_path(shell: Shell):
    assert shell.out("init") == f"{shell.file}\n"
    assert shell.file.read_text() == TEMPLATE
    assert stat.S_IMODE(shell.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(shell.home.stat().st_mode) == 0o700
    assert os.listdir(shell.home) == ["config.toml"]


def test_init_does_not_replace_a_file_unless_forced(shell: Shell):
    shell.write("# mine\n")
    result = shell.run("init")
    assert isinstance(result.exception, UsageError)
    assert "--force" in result.exception.hint
    assert shell.file.read_text() == "# mine\n"
    shell.out("init", "--force")
    assert shell.file.read_text() == TEMPLATE


def test_init_follows_a_link_instead_of_replacing_it(shell: Shell, tmp_path: Path):
    shell.home.mkdir()
    shell.file.symlink_to(tmp_path / "dotfiles.toml")
    assert isinstance(shell.run("init").exception, UsageError)
    shell.out("init", "--force")
    assert shell.file.is_symlink()
    assert (tmp_path / "dotfiles.toml").read_text() == TEMPLATE


def test_init_writes_the_file_that_config_names_and_only_one(shell: Shell, tmp_path: Path):
    named = tmp_path / "a" / "b.toml"
    assert shell.run("init", config=(str(named),)).stdout == f"{named}\n"
    assert named.exists()
    assert isinstance(shell.run("init", config=("a", "b")).exception, UsageError)


def test_init_where_nothing_can_be_written_says_so(shell: Shell, tmp_path: Path):
    (tmp_path / "file").write_text("")
    shell.environ["LLMCTL_HOME"] = str(tmp_path / "file" / "home")
    result = shell.run("init")
    assert isinstance(result.exception, ConfigInvalid)
    assert "cannot be written" in result.exception.message


def test_the_template_changes_nothing_as_it_is():
    assert tomllib.loads(TEMPLATE) == {}


@pytest.mark.parametrize("marker", ["# ", "#"])
def test_the_template_works_when_every_line_is_uncommented(shell: Shell, marker: str):
    text = uncommented(marker)
    catalog = catalog_of(tomllib.loads(text), {})
    assert {"home", "gpt-4.1"} < set(catalog.groups)
    shell.write(text)
    assert shell.out("check").startswith("ok: ")


def test_every_block_of_the_template_works_alone():
    blocks = [tree for tree in map(tomllib.loads, uncommented("# ").split("\n\n")) if tree]
    assert len(blocks) > 15
    for tree in blocks:
        catalog_of(tree, {})


def test_the_template_shows_every_table_of_the_configuration():
    from llmctl.config.schema import Config

    assert set(tomllib.loads(uncommented("# "))) == set(Config.model_fields)


DIE = """
import os, signal, sys
from pathlib import Path
from typer.testing import CliRunner
from llmctl.cli.config import app
from llmctl.cli.context import Context
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "write":
    import builtins
    real = builtins.open
    def half(file, mode="r", *args, **kwargs):
        opened = real(file, mode, *args, **kwargs)
        if isinstance(file, int):
            os.write(file, b"[half")
            die()
        return opened
    builtins.open = half
else:
    setattr(os, sys.argv[2], die)
CliRunner().invoke(app, ["init", "--force"], obj=Context({"LLMCTL_HOME": sys.argv[1]}))
"""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", [None, "# old\n"])
def test_a_kill_at_any_step_of_init_leaves_the_old_file(shell: Shell, step: str, old: str | None):
    if old is not None:
        shell.write(old)
    done = subprocess.run([sys.executable, "-c", DIE, str(shell.home), step], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (shell.file.read_text() if shell.file.exists() else None) == old
    shell.out("init", "--force")
    assert shell.file.read_text() == TEMPLATE


LOOP = """
import os, sys
from pathlib import Path
from typer.testing import CliRunner
from llmctl.cli.config import app
from llmctl.cli.context import Context
from llmctl.config.files import write_private
while True:
    write_private(Path(sys.argv[1]) / "config.toml", "# old\\n")
    CliRunner().invoke(app, ["init", "--force"], obj=Context({"LLMCTL_HOME": sys.argv[1]}))
    os.write(1, b".")
"""


@pytest.mark.parametrize("turns", [1, 7, 20])
def test_a_kill_at_any_time_leaves_old_or_new_and_never_half(shell: Shell, turns: int):
    with subprocess.Popen([sys.executable, "-c", LOOP, str(shell.home)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(turns)
        child.kill()
    assert shell.file.read_text() in {"# old\n", TEMPLATE}


# --- path, show, check, schema --------------------------------------------------------------------------------------


def test_path_prints_every_file_that_is_read(shell: Shell):
    assert shell.out("path") == f"{shell.file}\n"
    assert shell.json("path")["files"] == [{"path": str(shell.file), "exists": False}]
    two = shell.run("path", config=("/x/a.toml", "/x/b.toml"))
    assert two.stdout == "/x/a.toml\n/x/b.toml\n"


def test_show_prints_settings_that_are_toml_again(shell: Shell):
    shell.write('[models."a.b"]\nmodel = "groq/x"\nstop = ["x", "\\n"]\n[retry]\ntries = 3\n[timeout]\ntotal = "1m"\n')
    again = tomllib.loads(shell.out("show"))
    assert again["models"]["a.b"] == {"model": "groq/x", "stop": ["x", "\n"]}
    assert (again["retry"]["tries"], again["timeout"]["total"], again["timeout"]["idle"]) == (3, "1m", "30s")
    catalog_of(again, {})


def test_show_json_has_the_shape_of_the_file(shell: Shell):
    first = 'model = "groq/x"\nprice = { input = 1, output = 2 }\n'
    shell.write(f'[[models.a.deployments]]\n{first}[[models.a.deployments]]\nmodel = "groq/y"\n')
    document = shell.json("show")
    assert document["models"]["a"]["deployments"] == [
        {"model": "groq/x", "price": {"input": 1, "output": 2}},
        {"model": "groq/y"},
    ]
    catalog_of(document, {})


def test_show_origin_says_where_each_value_stands(shell: Shell):
    shell.write("[retry]\ntries = 3\n")
    shell.environ["LLMCTL_MODEL"] = "fast"
    found = {row["key"]: row for row in shell.json("show", "--origin")}
    assert found["retry.tries"] == {"key": "retry.tries", "value": 3, "origin": f"{shell.file}:2"}
    assert found["default_model"]["origin"] == "LLMCTL_MODEL"
    assert found["retry.retries"]["origin"] == "built-in"
    assert f"retry.tries = 3  # {shell.file}:2\n" in shell.out("show", "--origin")


def test_no_command_prints_a_secret(shell: Shell):
    shell.write(f'[models.a]\nmodel = "groq/x"\napi_key = "{SECRET}"\n[serve]\napi_keys = ["hunter2"]\n')
    shell.environ |= {"OPENAI_API_KEY": "hunter2", "OPENAI_BASE_URL": "https://u:hunter2@h.example/v1"}
    for words in ("show", "show --origin", "show --json", "show --origin --json", "check", "check --json", "path"):
        printed = shell.out(*words.split())
        assert SECRET not in printed
        assert "hunter2" not in printed


def test_check_lists_groups_chains_and_providers(shell: Shell):
    shell.write('default_model = "a"\n[models.a]\nmodel = "groq/x"\nfallbacks = ["cheap", "ollama/y"]\n')
    text = shell.out("check")
    assert text.startswith(f"ok: {shell.file}\n")
    assert "group a: groq/x > cheap > ollama/y\n" in text
    document = shell.json("check")
    assert (document["ok"], document["files"], document["default_model"]) == (True, [str(shell.file)], "a")
    mine = next(group for group in document["groups"] if group["group"] == "a")
    assert (mine["models"], mine["fallbacks"], mine["built_in"]) == (["groq/x"], ["cheap", "ollama/y"], False)
    assert {"groq", "ollama", "openai"} < set(document["providers"])


def test_check_without_a_file_says_that_there_is_none(shell: Shell):
    assert "no configuration file" in shell.out("check")
    assert shell.json("check")["files"] == []


def test_check_refuses_what_loading_refuses_with_file_and_line(shell: Shell):
    shell.write("[retry]\ntrys = 3\n")
    error = shell.run("check").exception
    assert isinstance(error, ConfigInvalid)
    assert error.message == f"{shell.file}:2: retry.trys: unknown key"
    assert error.hint == "did you mean 'tries'?"


def test_check_reads_the_file_and_never_the_kept_copy(shell: Shell):
    shell.out("check")
    assert not (shell.home / "catalog.json").exists()


def test_json_errors_are_asked_for_as_soon_as_json_is(shell: Shell):
    shell.write("x")
    for command in ("check", "show"):
        context = Context(shell.environ)
        CliRunner().invoke(app, [command, "--json"], obj=context)
        assert context.json_errors


def test_schema_is_one_json_schema(shell: Shell):
    document = json.loads(shell.out("schema"))
    assert document["$schema"].startswith("https://json-schema.org/")
    assert "models" in document["properties"]


# --- get, set -------------------------------------------------------------------------------------------------------


def test_set_changes_one_key_and_get_reads_it_as_a_shell_wants_it(shell: Shell):
    assert shell.out("set", "retry.tries", "3") == "retry.tries = 3\n"
    assert shell.out("set", "default_model", "smart") == 'default_model = "smart"\n'
    assert shell.out("get", "retry.tries") == "3\n"
    assert shell.out("get", "default_model") == "smart\n"
    assert shell.out("get", "timeout.total") == "300s\n"
    assert shell.out("get", "cache.ttl") == "24h\n"
    assert 'retry.patience = "5s"\n' in shell.out("get", "retry")
    assert shell.json("get", "retry")["tries"] == 3
    assert shell.json("get", "retry.tries") == 3
    assert stat.S_IMODE(shell.file.stat().st_mode) == 0o600
    assert shell.out("check").startswith("ok: ")


def test_what_is_not_set_is_nothing_and_a_key_of_no_configuration_is_refused(shell: Shell):
    assert shell.out("get", "budget.daily") == ""
    assert shell.json("get", "budget.daily") is None
    error = shell.run("get", "budget.dayly").exception
    assert isinstance(error, UsageError)
    assert error.hint == "did you mean 'budget.daily'?"
    assert isinstance(shell.run("get", "nope").exception, UsageError)


def test_a_variable_that_stands_above_what_was_set_is_named(shell: Shell):
    shell.environ["LLMCTL_MODEL"] = "fast"
    result = shell.run("set", "default_model", "smart")
    assert "LLMCTL_MODEL is set, and stands above it" in result.stderr
    assert shell.out("get", "default_model") == "fast\n"


def test_unset_takes_a_key_out_and_says_so(shell: Shell):
    shell.write("[retry]\ntries = 3\n")
    assert "no longer set" in shell.run("set", "retry.tries", "--unset").stderr
    assert "not set" in shell.run("set", "retry.tries", "--unset").stderr
    assert shell.out("get", "retry.tries") == "6\n"


@pytest.mark.parametrize("words", [("retry.tries",), ("retry.tries", "3", "--unset"), ("", "3"), ("retry.tries", "")])
def test_set_without_exactly_one_thing_to_do_is_a_usage_error(shell: Shell, words: tuple[str, ...]):
    assert isinstance(shell.run("set", *words).exception, UsageError)
    assert not shell.file.exists()


def test_set_of_several_files_is_refused(shell: Shell):
    assert isinstance(shell.run("set", "retry.tries", "3", config=("a", "b")).exception, UsageError)


def test_a_secret_is_taken_from_stdin_and_never_shown(shell: Shell):
    words, context = ["set", "providers.openai.api_key"], Context(shell.environ)
    piped = CliRunner().invoke(app, [*words, "-"], obj=context, input=f"{SECRET}\n")
    assert piped.stdout == 'providers.openai.api_key = "***"\n'
    assert piped.stderr == ""
    assert SECRET in shell.file.read_text()
    given = shell.run(*words, SECRET)
    assert "shell's history" in given.stderr
    assert SECRET not in given.output + shell.out("get", "providers.openai.api_key") + shell.out("get", "providers")
    given = shell.run("set", "models.x", f'{{ model = "openai/m", headers = {{ X-Api-Key = "{SECRET}" }} }}')
    assert "shell's history" in given.stderr
    assert SECRET not in given.output


def test_show_origin_names_the_cache_and_the_kept_keys(shell: Shell):
    from llmctl.config.keys import Keys

    Keys(shell.home / "keys.json").put("groq", SECRET)
    shell.write('[models.m]\nmodel = "openai/x"\ncache = "exact"\n')
    assert 'models.m.cache = "exact"  # config.toml:3\n' in shell.out("show", "--origin").replace(f"{shell.home}/", "")
    shell.environ["LLMCTL_CACHE"] = "off"
    found = {row["key"]: row for row in shell.json("show", "--origin")}
    assert found["cache.mode"]["origin"] == found["models.m.cache"]["origin"] == "LLMCTL_CACHE"
    assert found["models.m.cache"]["value"] == "off"
    assert found["cache.max_entries"]["origin"] == "built-in"
    assert found["providers.groq.api_key"] == {"key": "providers.groq.api_key", "value": "***", "origin": "keys"}
    shell.environ["GROQ_API_KEY"] = SECRET
    assert "# GROQ_API_KEY\n" in shell.out("show", "--origin")


def test_several_at_once_lose_no_change(shell: Shell):
    names = [f"m{n}" for n in range(6)]
    command = [sys.executable, "-m", "llmctl", "config", "set"]
    running = [
        subprocess.Popen([*command, f"models.{name}.model", "openai/x"], env=os.environ | shell.environ, stdout=-3)
        for name in names
    ]
    assert [process.wait(60) for process in running] == [0] * len(names)
    assert sorted(tomllib.loads(shell.file.read_text())["models"]) == sorted(names)


@pytest.mark.parametrize("command", ["init", "path", "show", "check", "schema", "get", "set"])
def test_help_has_one_sentence_and_examples(shell: Shell, command: str):
    text = shell.out(command, "--help")
    assert "Examples:\n" in text
    assert f"    llmctl config {command}" in text


def test_check_names_what_is_set_without_effect(shell: Shell):
    budget, log = '[budget]\ndaily = 5.0\non_exceed = "warn"\n', '[log]\nretain = "9d"\n'
    cache = '[cache]\nmode = "semantic"\nttl = "1h"\nbackend = "redis://host"\n'
    models = (
        '[models.m]\nmodel = "openai/x"\nrpm = 3\ncache = "exact"\n[models.n]\nmodel = "openai/x"\ncache = "semantic"\n'
    )
    shell.write(f"{models}{budget}{log}{cache}[serve]\nport = 1\n")
    waiting = ["serve", "cache.backend", "cache.mode", "models.n.cache"]
    assert shell.out("check").splitlines()[-1] == f"without effect in this version: {', '.join(waiting)}"
    assert shell.json("check")["without_effect"] == waiting


def test_show_origin_masks_what_may_hold_a_secret(shell: Shell):
    shell.write('[models.m]\nmodel = "openai/x"\napi_key = "cmd:pass show canary"\n')
    shell.environ["OPENAI_BASE_URL"] = "https://proxy.example/v1?key=canary"
    shown = shell.out("show", "--origin")
    assert "canary" not in shown
    assert "cmd:***" in shown
    assert "https://proxy.example/v1?***" in shown
