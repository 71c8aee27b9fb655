"""What the checks find on a machine that is fresh, well, broken, read-only, or out of time."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from llmctl.config.keys import Keys
from llmctl.config.load import catalog_of
from llmctl.config.places import places
from llmctl.lab.doctor import CHECKS, Machine, examine, exit_code
from llmctl.lab.pins import reported, unpinned

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.lab.files import Finding

NOW = time.time()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (home := tmp_path / "home").mkdir(mode=0o700)
    return home


def found(home: Path, environ: dict[str, str] | None = None, **more: float) -> list[Finding]:
    environ = {"LLMCTL_HOME": str(home)} | (environ or {})
    return list(examine(Machine(places(environ), environ, **more)))


def bad(findings: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in findings if each.status != "ok"}


def config(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)
    (home / "config.toml").chmod(0o600)


def ledger(home: Path, *rows: dict[str, object]) -> None:
    """A ledger with these calls."""
    from llmctl.store.schema import STEPS

    connection = sqlite3.connect(home / "ledger.db", isolation_level=None)
    for step in STEPS:
        step(connection)
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    needed = [row[1] for row in connection.execute("PRAGMA table_info(calls)") if row[3] and row[4] is None]
    for n, row in enumerate(rows):
        whole = dict.fromkeys(needed, 0) | {"id": f"{n}", "state": "ok", "started_at": NOW, "drill": 0} | row
        values = f"({', '.join(whole)}) VALUES ({', '.join('?' * len(whole))})"
        connection.execute(f"INSERT INTO calls {values}", list(whole.values()))
    connection.close()
    (home / "ledger.db").chmod(0o600)


def test_a_fresh_machine_has_no_failure_and_nothing_is_made_on_it(tmp_path):
    findings = found(tmp_path / "home")
    assert {each.status for each in findings} == {"ok", "warn"}
    assert bad(findings).keys() <= {"keys", "groups"}
    assert "keys set" in bad(findings)["keys"].hint
    assert exit_code(findings) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_is_well_says_so_in_every_check(home):
    Keys(home / "keys.json").put("groq", "k")
    ledger(home, {})
    findings = found(home)
    assert not bad(findings)
    said = " ".join(each.what for each in findings)
    assert "groq (keys set)" in said
    assert "fast" in said
    assert "whole" in said


def test_every_finding_is_one_line_and_every_trouble_has_something_to_do(home):
    config(home, "nonsense")
    (home / "keys.json").write_text("x")
    (home / "ledger.db").write_text("x" * 100)
    (home / "state.db").mkdir()
    for each in found(home):
        assert "\n" not in each.what + each.hint
        assert each.hint or each.status == "ok" or each.check in ("state", "ledger"), each


BROKEN = {
    "a syntax error": (lambda home: config(home, "x"), "configuration", "not readable as TOML"),
    "a chain that names itself": (
        lambda home: config(home, '[models.m]\nmodel = "openai/m"\nfallbacks = ["m"]\n'),
        "configuration",
        "names itself",
    ),
    "a ledger that is none": (lambda home: (home / "ledger.db").write_text("x" * 4096), "ledger", "cannot be read"),
    "a ledger that is a link": (lambda home: (home / "ledger.db").symlink_to("/etc/passwd"), "ledger", "link"),
    "a ledger that is a directory": (lambda home: (home / "ledger.db").mkdir(), "ledger", "no file"),
    "a ledger that is a FIFO": (lambda home: os.mkfifo(home / "ledger.db"), "ledger", "no file"),
}


@pytest.mark.parametrize(("make", "check", "what"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_used_is_a_failure_with_exit_3_and_the_other_checks_go_on(home, make, check, what):
    make(home)
    findings = found(home)
    failures = [each for each in findings if each.status == "fail"]
    assert {each.check for each in failures} == {check}
    assert any(what in each.what for each in failures)
    assert exit_code(findings) == 3
    assert {"program", "keys", "prices", "extras", "disk"} <= {each.check for each in findings}


def test_a_home_that_is_a_file_is_a_failure_and_no_traceback(tmp_path):
    (tmp_path / "home").write_text("")
    findings = found(tmp_path / "home")
    assert bad(findings)["home"].status == "fail"
    assert exit_code(findings) == 3


WARNED = {
    "a home that others see": (lambda home: home.chmod(0o755), "home", "mode 0755"),
    "a key file that others see": (
        lambda home: (Keys(home / "keys.json").put("groq", "k"), (home / "keys.json").chmod(0o640)),
        "key file",
        "mode 0640",
    ),
    "a damaged key file": (lambda home: (home / "keys.json").write_text("x"), "key file", "damaged"),
    "keys of nobody": (lambda home: Keys(home / "keys.json").put("nobody", "k"), "key file", "nobody"),
    "a configuration that others change": (
        lambda home: (config(home, ""), (home / "config.toml").chmod(0o666)),
        "configuration",
        "mode 0666",
    ),
    "a key without effect": (
        lambda home: config(home, "[serve]\nport = 1\n"),
        "configuration",
        "without effect: serve",
    ),
    "a group without a key": (lambda home: config(home, '[models.m]\nmodel = "openai/m-2024-01-01"\n'), "groups", "m "),
    "a damaged cache": (lambda home: (home / "cache.db").write_text("x" * 4096), "cache", "cannot be read"),
    "a damaged state": (lambda home: (home / "state.db").write_text("x" * 4096), "state", "cannot be read"),
    "a call from the future": (lambda home: ledger(home, {"started_at": NOW + 7200}), "clock", "minutes in the future"),
    "calls that wait": (
        lambda home: ((home / "spool").mkdir(), (home / "spool" / "01J0000000000000000000000A.json").write_text("{}")),
        "spool",
        "wait",
    ),
    "a ledger set aside": (lambda home: (home / "ledger.db.corrupt-1").write_text(""), "ledger", "set aside"),
}


@pytest.mark.parametrize(("make", "check", "what"), WARNED.values(), ids=WARNED.keys())
def test_what_needs_a_look_is_a_warning_and_fails_nothing(home, make, check, what):
    Keys(home / "keys.json").put("groq", "k")
    make(home)
    findings = found(home)
    warned = [each for each in findings if each.status == "warn" and each.check == check]
    assert any(what in each.what.replace(" in this version", "") for each in warned), findings
    assert exit_code(findings) == 0


@pytest.mark.parametrize(("now", "check"), [(0.0, "clock"), (NOW + 400 * 86400, "prices"), (NOW - 3600, "clock")])
def test_a_clock_that_is_wrong_or_a_table_that_is_old_is_noticed(home, now, check):
    assert check in bad(found(home, now=now))


def test_no_check_prints_a_key(home):
    secret = "sk-0123456789abcdef0123456789abcdef"
    config(
        home,
        f'[providers.openai]\napi_key = "{secret}"\n[models.m]\nmodel = "openai/m"\napi_key = "cmd:echo {secret}"\n',
    )
    Keys(home / "keys.json").put("groq", secret)
    assert secret[8:20] not in repr(found(home, {"ANTHROPIC_API_KEY": secret}))


def test_the_checks_are_a_table():
    assert list(CHECKS)[:2] == ["program", "configuration"]


# ---------------------------------------------------------------- names without a date


def group(*models: str, **more: object):
    rows = {f"g{n}": {"model": model} | more for n, model in enumerate(models)}
    return catalog_of({"models": rows}, {})


@pytest.mark.parametrize(
    ("model", "said", "version", "source"),
    [
        ("openai/gpt-4o", "", "gpt-4o-2024-08-06", "table"),
        ("openai/gpt-4o", "gpt-4o-2025-01-02", "gpt-4o-2025-01-02", "ledger"),
        ("openai/gpt-4o", "gpt-4o", "gpt-4o-2024-08-06", "table"),
        ("openai/gpt-4o", "gpt-4o-2025\x1b[31m", "gpt-4o-2024-08-06", "table"),
        ("openai/gpt-4o", "something-else", "gpt-4o-2024-08-06", "table"),
        ("mistral/mistral-small-latest", "mistral-small-2603", "mistral-small-2603", "ledger"),
        ("mistral/mistral-small-latest", "mistral-small-latest", "", ""),
        ("gemini/gemini-flash-latest", "models/gemini-3.8-flash", "gemini-3.8-flash", "ledger"),
        ("openai/gpt-6-luna", "gpt-6-luna-2026-09-22", "gpt-6-luna-2026-09-22", "ledger"),
    ],
)
def test_a_name_without_a_date_comes_with_the_version_to_pin(model, said, version, source):
    (name,) = unpinned(group(model), {model: said} if said else {})
    assert name == (model, ("g0",), version, source)


@pytest.mark.parametrize("model", ["openai/gpt-4o-2024-08-06", "groq/openai/gpt-oss-120b", "local/smollm2-135m"])
def test_a_name_with_a_date_and_one_of_open_weights_is_left_alone(model):
    assert unpinned(group(model, **({"allow_toy": True} if "local" in model else {})), {}) == []


def test_links_of_a_chain_count_and_what_was_asked_without_a_group_is_told_apart():
    catalog = catalog_of({"models": {"m": {"model": "groq/x", "fallbacks": ["openai/o3"]}}}, {})
    seen = {"openai/gpt-4.1": "gpt-4.1-2025-04-14"}
    assert [(each.served_by, each.groups) for each in unpinned(catalog, seen)] == [
        ("openai/gpt-4.1", ()),
        ("openai/o3", ("m",)),
    ]


def test_what_a_server_called_itself_last_is_read_from_the_ledger_and_drills_do_not_count(home):
    assert reported(home / "ledger.db") == {}
    said = [("gpt-4o-2024-05-13", 0), ("gpt-4o-2024-08-06", 0), ("gpt-4o-1", 1)]
    rows = [{"reported_model": name, "drill": drill, "started_at": NOW + n} for n, (name, drill) in enumerate(said)]
    ledger(home, *({"served_by": "openai/gpt-4o"} | row for row in rows))
    assert reported(home / "ledger.db") == {"openai/gpt-4o": "gpt-4o-2024-08-06"}
    config(home, '[models.m]\nmodel = "openai/gpt-4o"\n')
    (names,) = [each for each in found(home) if each.check == "model names"]
    assert names.hint == "to keep it write openai/gpt-4o-2024-08-06, which it was last"
