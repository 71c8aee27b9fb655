"""The completion scripts: fresh, valid, and completing in the shells that are here. bash is always here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llmctl.cli import completion
from llmctl.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPTS = {shell: ROOT / "completions" / f"llmctl.{shell}" for shell in ("bash", "zsh", "fish")}
SHELLS = [shell for shell in SCRIPTS if shutil.which(shell)]
GROUPS = {"fast", "smart", "cheap", "creative", "local", "auto"}

# the line up to the cursor -> what must be offered, what must not
OFFERED = {
    "llmctl ": ({*COMMANDS}, {"list", "fast"}),
    "llmctl le": ({"ledger"}, {"ask", "models"}),
    "llmctl --ver": ({"--version"}, {"--json"}),
    "llmctl ledger ": ({"path", "list", "show", "search", "check", "backup"}, {"ask", "ledger"}),
    "llmctl ledger list --s": ({"--since", "--state"}, {"--json"}),
    "llmctl ask --no": ({"--no-fallback", "--no-stdin", "--no-stream", "--no-log"}, {"--json"}),
    "llmctl ask -m ": (GROUPS, {"--json", "ask"}),
    "llmctl ask --fallback s": ({"smart"}, {"fast"}),
    "llmctl ask --on-break ": ({"fail", "restart"}, {"fast"}),
    "llmctl ask -f mark": ({"marker.txt"}, {"--json"}),
    "llmctl ask --json --file mark": ({"marker.txt"}, {"--json"}),
    "llmctl --config mark": ({"marker.txt"}, {"ask"}),
    "llmctl --config x.toml ask --on-break r": ({"restart"}, {"fail"}),
    "llmctl ask -s ledger --on-break r": ({"restart"}, {"list"}),
    "llmctl ledger backup mark": ({"marker.txt"}, {"list"}),
    "llmctl completion ": ({"bash", "zsh", "fish"}, {"ask"}),
    "llmctl config ": ({"init", "path", "show", "check", "schema"}, {"ask"}),
}

# Every line in every shell is for the long tier: zsh takes half a second for each.
EVERYDAY = {"zsh": {"llmctl ", "llmctl ledger list --s", "llmctl ask -m ", "llmctl ask -f mark"}}
ASKED = [
    pytest.param(shell, line, marks=() if line in EVERYDAY.get(shell, OFFERED) else pytest.mark.full)
    for shell in SHELLS
    for line in OFFERED
]

# zsh completes for a terminal only: run one inside, and let its `compadd` print what it is given. The marks are in two
# pieces, so that what the terminal shows of the typed lines is not taken for them.
ZSH = r"""
zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner 'stty -echo; PS1=; autoload -Uz compinit; compinit -D -u; source '$1
zpty -w inner 'compadd () {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
    typeset -a hits; builtin compadd -A hits "$@"; print -rl -- "<"$^hits">"; builtin compadd "$@"
}'
zpty -w inner 'leave () { print -r -- "<""END>"; exit }; zle -N leave; bindkey "^X" leave; bindkey "^I" complete-word'
zpty -w inner 'print -r -- "<""READY>"'
zpty -r inner text '*<READY>*'
zpty -w -n inner $2$'\t\x18'
zpty -r inner text '*<END>*'
for word in ${(f)text}; do [[ $word == (#b)*'<'(*)'>'* ]] && print -r -- $match[1]; done
"""


def offered(shell: str, line: str, folder: Path) -> set[str]:
    """What `shell` offers at the end of `line`, in a folder with a file `marker.txt` and nothing called llmctl."""
    script = str(SCRIPTS[shell])
    if shell == "bash":
        driver = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _llmctl; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "--norc", "-c", driver, script, *line.split(" ")]
    elif shell == "fish":
        command = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', script, line]
    else:
        command = ["zsh", "-f", "-o", "extendedglob", "-c", ZSH, "zsh", script, line]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "xterm", "LANG": "C.UTF-8"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return {row.split("\t")[0] for row in done.stdout.splitlines() if row}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_scripts_are_what_the_command_tree_says_now(shell):
    stale = f"stale: python -m llmctl completion {shell} > completions/llmctl.{shell}"
    assert SCRIPTS[shell].read_text() == completion.script(shell), stale


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script(cli, shell):
    done = cli.run("completion", shell)
    assert (done.code, done.out.decode(), done.err) == (0, SCRIPTS[shell].read_text(), "")


def test_an_unknown_shell_is_a_usage_error(cli):
    assert "tcsh" in cli.run("completion", "tcsh").refused(2)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_valid(shell):
    done = subprocess.run([shell, "-n", SCRIPTS[shell]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("shell", "line"), ASKED)
def test_the_shell_offers_what_belongs_there(shell, line, tmp_path):
    (tmp_path / "marker.txt").touch()
    wanted, unwanted = OFFERED[line]
    found = offered(shell, line, tmp_path)
    assert wanted <= found, found
    assert not unwanted & found


def test_an_equals_sign_breaks_words_in_bash_and_is_understood(tmp_path):
    (tmp_path / "marker.txt").touch()
    assert offered("bash", "llmctl ask --on-break = r", tmp_path) == {"restart"}
    assert offered("bash", "llmctl ask --on-break =", tmp_path) == {"fail", "restart"}
    assert offered("bash", "llmctl --config = ask ask --on-break r", tmp_path) == {"restart"}
    assert offered("bash", "llmctl ask --file = mark", tmp_path) == {"marker.txt"}


def test_the_scripts_start_no_process():
    for shell, path in SCRIPTS.items():
        text = path.read_text()
        assert "python" not in text
        assert not [line for line in text.splitlines() if "$(llmctl" in line or "(llmctl" in line], shell


def test_every_name_of_the_tree_is_in_every_script():
    names = {name for node in completion.tree().walk() for option in node.options for name in option.names}
    names |= {word for node in completion.tree().walk() for word in node.path}
    for shell, path in SCRIPTS.items():
        text = path.read_text()
        missing = [name for name in names if (name.lstrip("-") if shell == "fish" else name) not in text]
        assert not missing, shell


def test_the_groups_it_offers_are_the_built_in_ones():
    import tomllib

    groups = tomllib.loads((ROOT / "llmctl" / "data" / "groups.toml").read_text())
    assert set(completion.GROUPS) - {"auto"} == set(groups)
