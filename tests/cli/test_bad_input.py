"""What people do wrong, and what the machine does to them: each ends in the promised shape, and no answer is lost."""

from __future__ import annotations

import os
import sqlite3

import pytest
from servers import FaultServer

ANSWER = b"t0 t1 t2 t3 t4 \n"

REFUSED = {
    "unknown option": (["--nope"], 2, "No such option: --nope"),
    "unknown model": (["-m", "opnai/x"], 2, "unknown model 'opnai/x'"),
    "unknown fallback": (["-m", "openai/m", "--fallback", "fsat"], 2, "unknown model 'fsat'"),
    "empty model": (["-m", ""], 2, "--model is empty"),
    "empty fallback": (["-m", "openai/m", "--fallback", " "], 2, "--fallback is empty"),
    "both fallbacks": (["--fallback", "a", "--no-fallback"], 2, "--fallback and --no-fallback exclude each other"),
    "auto": (["-m", "auto"], 2, "'auto' cannot be asked yet"),
    "temperature": (["--temperature", "2.1"], 2, "Invalid value for '--temperature'"),
    "temperature nan": (["--temperature", "nan"], 2, "--temperature nan is not a number"),
    "max tokens": (["--max-tokens", "0"], 2, "Invalid value for '--max-tokens'"),
    "max tokens text": (["--max-tokens", "many"], 2, "Invalid value for '--max-tokens'"),
    "retries": (["--retries", "-1"], 2, "Invalid value for '--retries'"),
    "many retries": (["--retries", "3"], 2, "Invalid value for '--retries'"),
    "timeout": (["--timeout", "soon"], 2, "--timeout: 'soon' is not a duration"),
    "no timeout": (["--timeout", "0s"], 2, "--timeout '0s' is no time at all"),
    "max wait": (["--max-wait", "5"], 2, "--max-wait: '5' is not a duration"),
    "on break": (["--on-break", "explode"], 2, "Invalid value for '--on-break'"),
    "tag": (["--tag", "web"], 2, "--tag 'web' is not KEY=VALUE"),
    "tag without a key": (["--tag", "=web"], 2, "--tag '=web' is not KEY=VALUE"),
    "configuration": (["--config", "gone.toml"], 3, "gone.toml: no such configuration file"),
    "a directory as configuration": (["--config", "."], 3, ".: cannot be read"),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_words_are_refused_with_a_hint_and_nothing_is_written(cli, words, code, message):
    done = cli.run("ask", "hi", *words, env={"OPENAI_API_KEY": "k" * 20})
    assert done.refused(code).startswith(message)
    assert not (cli.home / "ledger.db").exists()


@pytest.mark.parametrize(
    "words",
    [
        "cost report --model X", "cost report --session X", "cost report --by tag:X", "ledger list --model X",
        "ledger show X", "ledger search X",
    ],
)  # fmt: skip
def test_a_word_that_is_no_utf_8_is_refused_where_calls_are_looked_for(cli, words):
    with FaultServer("ok") as server:
        cli.to(server).ask("hi")
    assert "is not valid UTF-8" in cli.run(*words.replace("X", "caf\udce9").split()).refused(2)


BROKEN = {
    "broken TOML": ("[models\n", ":1: not readable as TOML"),
    "unknown key": ('version = 1\nmodle = "x"\n', ":2: modle: unknown key"),
    "wrong type": ("[retry]\nretries = 'many'\n", ":2: retry.retries: "),
    "missing group": ('[models.m]\nmodel = "openai/m"\nfallbacks = ["gone"]\n', "models.m.fallbacks"),
    "a chain that names itself": ('[models.m]\nmodel = "openai/m"\nfallbacks = ["m"]\n', "models.m.fallbacks"),
    "not UTF-8": ("# caf\udce9\n", ":1: not UTF-8"),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_configuration_is_exit_3_with_file_and_line(cli, text, message, as_json):
    cli.home.mkdir()
    (cli.home / "config.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = cli.run("ask", "hi", "-m", "openai/m", *(["--json"] if as_json else []), env={"OPENAI_API_KEY": "k" * 20})
    if as_json:
        assert (done.code, done.out, len(done.lines)) == (3, b"", 1)
        assert '"type": "ConfigInvalid"' in done.err
    else:
        assert message in done.refused(3)
        assert "config.toml" in done.err


def test_an_unreadable_configuration_is_exit_3(cli):
    (cli.home / "config.toml").mkdir(parents=True)
    assert "cannot be read" in cli.run("ask", "hi", "-m", "openai/m").refused(3)


def test_no_key_is_exit_4_and_names_the_variable(cli):
    done = cli.run("ask", "hi", "-m", "openai/m")
    assert done.refused(4) == "no key for OpenAI"
    assert "OPENAI_API_KEY" in done.lines[-1]


def test_no_key_and_no_embedded_runtime_is_exit_4_and_names_the_extra(cli):
    done = cli.run("ask", "hi", env=without("xllamacpp", cli))
    assert done.refused(4) == "no key for any provider was found"
    assert 'pip install "llmctl-cli[local]"' in done.lines[-1]


def test_a_missing_extra_is_one_error_that_names_the_install_command(cli):
    done = cli.run("ask", "hi", "-m", "local", env=without("xllamacpp", cli))
    assert done.refused(3)
    assert 'pip install "llmctl-cli[local]"' in done.lines[-1]


def test_missing_weights_are_exit_3_and_name_the_command_that_fetches_them(cli):
    pytest.importorskip("xllamacpp")
    done = cli.run("ask", "hi", "-m", "local")
    assert "weights" in done.refused(3)
    assert done.lines[-1] == "hint: run: llmctl models pull local"


def without(module: str, cli) -> dict[str, str]:
    """An environment in which `module` is not installed."""
    (folder := cli.root / "site").mkdir()
    (folder / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        f"    return None if name.partition('.')[0] == {module!r} else find(name, path, target)\n"
        "PathFinder.find_spec = find_spec\n"
    )
    return {"PYTHONPATH": f"{folder}{os.pathsep}{cli.environ['PYTHONPATH']}"}


def under_a_file(cli):
    (cli.root / "file").touch()
    return str(cli.root / "file" / "home")


def a_file(cli):
    (cli.root / "file").touch()
    return str(cli.root / "file")


def read_only(cli):
    cli.home.mkdir(mode=0o500)
    return str(cli.home)


def ledger_is_a_directory(cli):
    (cli.home / "ledger.db").mkdir(parents=True)
    return str(cli.home)


def ledger_is_garbage(cli):
    cli.home.mkdir()
    (cli.home / "ledger.db").write_bytes(os.urandom(8192))
    return str(cli.home)


def ledger_is_cut(cli):
    cli.home.mkdir()
    ledger = sqlite3.connect(cli.home / "ledger.db")
    ledger.executescript("create table t (x); insert into t select zeroblob(50000); vacuum;")
    ledger.close()
    with open(cli.home / "ledger.db", "r+b") as file:
        file.truncate(5000)
    return str(cli.home)


def no_home(cli):
    return "/dev/null/home"


def ledger_is_a_fifo(cli):
    cli.home.mkdir(parents=True)
    os.mkfifo(cli.home / "ledger.db")
    return str(cli.home)


HOMES = [under_a_file, a_file, read_only, ledger_is_a_directory, ledger_is_garbage, ledger_is_cut, no_home]


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.__name__)
def test_an_answer_is_never_lost_because_it_cannot_be_written_down(cli, home):
    with FaultServer("ok") as server:
        done = cli.to(server).ask("hi", env={"LLMCTL_HOME": home(cli)})
        quiet = cli.ask("hi", "-q", env={"LLMCTL_HOME": home(cli)} if home in (under_a_file, no_home) else {})
        as_json = cli.ask("hi", "--json", env={"LLMCTL_HOME": "/dev/null/home"})
    assert (done.code, done.out) == (0, ANSWER)
    assert len(done.lines) <= 1
    assert all(line.startswith("llmctl: warning: ") for line in done.lines)
    assert os.geteuid() == 0 or done.lines, "a person is told"
    assert (quiet.code, quiet.out, quiet.err) == (0, ANSWER, "")
    assert (as_json.code, as_json.err, as_json.json["text"]) == (0, "", "t0 t1 t2 t3 t4 ")


READERS = [ledger_is_a_directory, ledger_is_a_fifo, ledger_is_garbage, ledger_is_cut]


@pytest.mark.parametrize("home", READERS, ids=lambda home: home.__name__)
def test_a_ledger_that_cannot_be_read_is_exit_3(cli, home):
    home(cli)
    for words in (("cost", "report"), ("models", "compare")):
        assert cli.run(*words).refused(3)
    assert cli.run("ledger", "check").code == 3
    done = cli.run("ledger", "list")
    assert done.refused(3)
    as_json = cli.run("ledger", "list", "--json")
    assert (as_json.code, as_json.out, len(as_json.lines)) == (3, b"", 1)


def test_a_machine_without_a_ledger_has_an_empty_list(cli):
    done = cli.run("ledger", "list", "--json")
    assert (done.code, done.json, done.err) == (0, [], "")


def test_an_address_that_would_send_the_key_in_the_clear_is_exit_3(cli):
    env = {"OPENAI_API_KEY": "k" * 20, "OPENAI_BASE_URL": "http://example.com/v1"}
    assert "in the clear" in cli.run("ask", "hi", "-m", "openai/m", env=env).refused(3)


def test_a_key_that_is_none_is_exit_4_and_not_shown(cli):
    done = cli.run("ask", "hi", "-m", "openai/m", env={"OPENAI_API_KEY": "sk-secret value\n"})
    assert "OPENAI_API_KEY" in done.refused(4)
    assert "secret" not in done.err
