"""From files to a catalog: merging, errors with file and line, the copy that is kept, and where settings come from."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from llmctl.config import load
from llmctl.config.lines import lines
from llmctl.config.load import catalog_of, load_catalog
from llmctl.config.origin import Setting, origins
from llmctl.config.places import Places
from llmctl.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from llmctl.core.catalog import Catalog

GOOD = '[models.mine]\nmodel = "groq/x"\nrpm = 10\n'
SECRET = "sk-0123456789abcdef0123456789abcdef"


class Desk:
    """A home and configuration files in it, as a user would have them."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.home.mkdir(mode=0o700)
        self.files: list[Path] = []
        self.environ: dict[str, str] = {}

    def write(self, text: str | bytes, name: str = "config.toml", mode: int = 0o600) -> Path:
        path = self.home / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        if path not in self.files:
            self.files.append(path)
        return path

    @property
    def places(self) -> Places:
        return Places(self.home, tuple(self.files) or (self.home / "config.toml",), chosen=len(self.files) > 1)

    def load(self) -> Catalog:
        return load_catalog(self.places, self.environ)

    def refused(self) -> ConfigInvalid:
        with pytest.raises(ConfigInvalid) as caught:
            self.load()
        assert caught.value.exit_code == 3
        assert caught.value.hint
        return caught.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_without_any_file_there_are_the_built_in_groups(desk: Desk):
    catalog = desk.load()
    assert {"fast", "smart", "cheap", "creative", "local"} == set(catalog.groups)
    assert all(group.built_in for group in catalog.groups.values())
    assert catalog.settings.tries == 6


def test_a_group_of_the_user_replaces_the_built_in_one_and_leaves_the_others(desk: Desk):
    desk.write('[models.fast]\nmodel = "groq/mine"\n')
    catalog = desk.load()
    assert catalog.resolve("fast").deployments[0].model == "mine"
    assert not catalog.resolve("fast").fallbacks
    assert catalog.resolve("smart").built_in


def test_a_later_file_wins_key_by_key(desk: Desk):
    desk.write('default_model = "fast"\n[models.a]\nmodel = "groq/x"\nrpm = 1\ntpm = 5\n[retry]\ntries = 3\n', "1.toml")
    desk.write('[models.a]\nrpm = 2\n[models.b]\nmodel = "groq/y"\n[retry]\nretries = 0\n', "2.toml")
    catalog = desk.load()
    limits = catalog.resolve("a").deployments[0].limits
    assert (limits.rpm, limits.tpm) == (2, 5)
    assert catalog.resolve("b").deployments[0].model == "y"
    assert (catalog.settings.tries, catalog.settings.retries) == (3, 0)
    assert catalog.default_model == "fast"


def test_a_later_file_may_turn_a_single_model_into_deployments_and_back(desk: Desk):
    desk.write('[models.a]\nmodel = "groq/x"\n', "1.toml")
    desk.write('[[models.a.deployments]]\nmodel = "groq/y"\n[[models.a.deployments]]\nmodel = "groq/z"\n', "2.toml")
    assert [each.model for each in desk.load().resolve("a").deployments] == ["y", "z"]
    desk.write('[models.a]\nmodel = "groq/w"\n', "3.toml")
    assert [each.model for each in desk.load().resolve("a").deployments] == ["w"]


def test_a_saved_drill_comes_from_the_kept_copy_as_it_came_from_the_file(desk: Desk):
    desk.write('[drills.d]\nmodel = "fast"\ninject = { primary = "503", 2 = "timeout" }\nstream = true\n')
    first, second = desk.load(), desk.load()
    assert second.drills == first.drills
    assert second.drills["d"] == {"model": "fast", "inject": ("primary=503", "2=timeout"), "stream": True}


def test_a_byte_order_mark_and_windows_line_ends_are_read(desk: Desk):
    desk.write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert desk.load().resolve("mine").deployments[0].limits.rpm == 10


def test_a_pipe_is_read_once(desk: Desk):
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())
    os.close(writer)
    places = Places(desk.home, (Path(f"/dev/fd/{reader}"),), chosen=True)
    assert load_catalog(places, {}).resolve("mine")
    os.close(reader)


def test_a_home_that_cannot_be_written_still_loads(tmp_path: Path):
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    catalog = load_catalog(Places(home, (home / "config.toml",)), {})
    assert "fast" in catalog.groups


def test_a_named_file_that_is_missing_is_refused_with_how_to_make_it(desk: Desk):
    with pytest.raises(ConfigInvalid) as caught:
        load_catalog(Places(desk.home, (desk.home / "no.toml",), chosen=True), {})
    assert str(desk.home / "no.toml") in caught.value.message
    assert "llmctl config init" in caught.value.hint


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("a = \n", 1, "not readable as TOML", "quotes"),
        ('[models.a]\nmodel = "x\n', 2, "not readable as TOML", "quotes"),
        ("\n\nfast = yes\n", 3, "not readable as TOML", "quotes"),
        ("[retry]\ntries = 1\n[retry]\n", 3, "not readable as TOML", "quotes"),
        ("a = [", 1, "not readable as TOML", "quotes"),
        ("a = " + "[" * 3000, 1, "nested too deeply", "quotes"),
        ("a" + ".a" * 60 + " = 1", 1, "nested too deeply", "quotes"),
        ("\nversion = 2\nnew_key = 1\n", 2, "version: this llmctl reads version 1", "version = 1"),
        ('version = "1"\n', 1, "version: this llmctl reads version 1", "version = 1"),
        ("# x\n\n[modles.a]\n", 3, "modles: unknown key", "'models'"),
        (GOOD + "temprature = 1\n", 4, "models.mine.temprature: unknown key", "'temperature'"),
        (GOOD + '"temprature" = 1\n', 4, "models.mine.temprature: unknown key", "'temperature'"),
        ('models.a = { model = "groq/x", rmp = 1 }\n', 1, "models.a.rmp: unknown key", "'rpm'"),
        ('[models."a.b"]\nmodel = "groq/x"\n"rpm" = "1"\n', 3, 'models."a.b".rpm: must be a whole number', "100"),
        (
            '[models.a]\nmodel = "groq/x"\nstop = """\nrpm = 0\n"""\nrpm = 0\n',
            6,
            "models.a.rpm: must be greater",
            "schema",
        ),
        (
            '[[models.a.deployments]]\nmodel = "groq/x"\n[[models.a.deployments]]\nmodel = "groq/y"\nrpm = 0\n',
            5,
            "models.a.deployments[1].rpm: must be greater",
            "schema",
        ),
        (
            '[[models.a.deployments]]\nmodel = "groq/x"\n[models.a.deployments.price]\ninput = 1\n',
            3,
            "models.a.deployments[0].price.output: is missing",
            "add it",
        ),
        ('[models.gpt-4.1]\nmodel = "gpt-4.1"\n', 1, "models.gpt-4.1: ", '[models."gpt-4.1"]'),
        ('[models.a]\nmodel = "gorq/x"\n', 2, "models.a.model: unknown model", "'groq/x'"),
        ('[models.a]\nmodel = "fast"\n', 2, "models.a.model: unknown model", "provider/model"),
        (GOOD + 'fallbacks = ["mine"]\n', 4, "models.mine.fallbacks[0]: the chain names itself", "remove"),
        (
            GOOD + 'fallbacks = [\n  "fast",\n  "fast"]\n',
            4,
            "models.mine.fallbacks[1]: the chain names 'fast' twice",
            "remove",
        ),
        (GOOD + 'fallbacks = ["fsat"]\n', 4, "models.mine.fallbacks[0]: unknown model", "'fast'"),
        ('\ndefault_model = "smrt"\n', 2, "default_model: unknown model", "'smart'"),
        ("[providers.groqq]\n", 1, "providers.groqq: an unknown provider", "'groq'"),
        (
            '[models.auto]\nroute = { simple = "cheep", complex = "smart" }\n',
            2,
            "models.auto.route.simple: ",
            "'cheap'",
        ),
        ('[drills.d]\nmodel = "fsat"\n', 2, "drills.d.model: unknown model", "'fast'"),
        ('[drills.d]\ninject = ["1=429", "2=50"]\n', 2, "drills.d.inject[1]: no fault '50'", "503"),
        ('[drills.d.inject]\n1 = "429"\n2 = "50"\n', 3, "drills.d.inject.2: no fault '50'", "503"),
    ],
)
def test_an_error_names_file_line_key_and_what_to_do(desk: Desk, text: str, line: int, key: str, hint: str):
    path = desk.write(text)
    error = desk.refused()
    assert error.message.startswith(f"{path}:{line}: "), error.message
    assert key in error.message
    assert hint in error.hint


def test_the_first_error_of_the_file_is_reported_and_the_others_counted(desk: Desk):
    path = desk.write('[timeout]\ntotal = "5x"\n[retry]\ntries = 9\nretries = -1\n')
    assert desk.refused().message.startswith(f"{path}:2: timeout.total: ")
    assert desk.refused().message.endswith("(and 2 more)")


def test_an_error_names_the_file_that_sets_the_key_last(desk: Desk):
    desk.write("[retry]\ntries = 3\n", "1.toml")
    second = desk.write("# here\n[retry]\ntries = 9\n", "2.toml")
    assert desk.refused().message.startswith(f"{second}:3: retry.tries: ")


def test_text_that_is_not_utf8_is_refused_with_its_line(desk: Desk):
    path = desk.write(b"# ok\n# caf\xe9\n")
    assert desk.refused().message == f"{path}:2: not UTF-8"


def test_a_directory_is_refused(desk: Desk):
    (desk.home / "config.toml").mkdir()
    assert "cannot be read" in desk.refused().message


def test_a_file_without_permission_is_refused(desk: Desk):
    desk.write("a = ")
    desk.refused()  # everything is imported now, for a user who may read nothing of ours
    desk.write(GOOD, mode=0o000)
    root = os.geteuid() == 0  # who may read everything
    if root:
        os.seteuid(65534)
    try:
        assert "cannot be read" in desk.refused().message
    finally:
        if root:
            os.seteuid(0)


def test_a_file_without_end_is_refused():
    with pytest.raises(ConfigInvalid, match="more than"):
        load_catalog(Places(Path("/nowhere"), (Path("/dev/zero"),), chosen=True), {})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_in_a_file_that_others_may_read_is_refused_and_not_shown(desk: Desk, mode: int):
    path = desk.write(GOOD + f'api_key = "{SECRET}"\n', mode=mode)
    error = desk.refused()
    assert error.message.startswith(f"{path}:4: models.mine.api_key: ")
    assert f"chmod 600 {path}" in error.hint
    assert SECRET not in f"{error.message}{error.hint}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[serve]\napi_keys = ["abc"]\n', "serve.api_keys[0]"),
        ('[state]\nbackend = "redis://:pw@host"\n', "state.backend"),
        ('[models.m]\nmodel = "groq/x"\nheaders = { x-app = "a", X-Api-Key = "abc" }\n', "models.m.headers.X-Api-Key"),
        ('[providers.groq.headers]\nAuthorization = "Basic abc"\n', "providers.groq.headers.Authorization"),
        (
            f'[providers.corp]\napi_base = "https://c.example"\ndialect = {{ headers = {{ x = "{SECRET}" }} }}\n',
            "headers.x",
        ),
    ],
)
def test_other_secrets_want_a_private_file_too(desk: Desk, text: str, key: str):
    desk.write(text, mode=0o644)
    assert key in desk.refused().message


def test_a_reference_to_a_key_may_stand_in_any_file(desk: Desk):
    desk.write(GOOD + 'api_key = "env:X"\n', mode=0o644)
    assert desk.load().resolve("mine").deployments[0].api_key == "env:X"


def test_a_key_in_a_private_file_is_used(desk: Desk):
    desk.write(GOOD + f'api_key = "{SECRET}"\n')
    assert desk.load().resolve("mine").deployments[0].api_key == SECRET


# --- the environment ------------------------------------------------------------------------------------------------


def test_variables_win_over_the_file(desk: Desk):
    desk.write('default_model = "fast"\n[log]\ncontent = "full"\nretain = "1d"\n')
    desk.environ = {"LLMCTL_MODEL": "smart", "LLMCTL_LOG_CONTENT": "none"}
    for _ in ("fresh", "kept"):
        catalog = desk.load()
        assert catalog.default_model == "smart"
        assert (catalog.settings.log_content, catalog.settings.log_retain_s) == ("none", 86400)
    desk.environ = {"LLMCTL_MODEL": "", "LLMCTL_LOG_CONTENT": ""}
    assert (desk.load().default_model, desk.load().settings.log_content) == ("fast", "full")


@pytest.mark.parametrize(
    ("variable", "value", "hint"),
    [
        ("LLMCTL_MODEL", "smrt", "'smart'"),
        ("LLMCTL_LOG_CONTENT", "some", "full or none"),
        ("LLMCTL_CACHE", "all", "refresh"),
    ],
)
def test_a_bad_variable_is_named(desk: Desk, variable: str, value: str, hint: str):
    desk.write('default_model = "fast"\n[log]\ncontent = "full"\n')
    desk.load()
    desk.environ = {variable: value}
    error = desk.refused()
    assert error.message.startswith(f"{variable}: ")
    assert hint in error.hint


# --- the kept copy --------------------------------------------------------------------------------------------------


def kept(desk: Desk) -> Path:
    return desk.places.catalog


def test_the_kept_catalog_equals_the_fresh_one(desk: Desk):
    desk.write((load.DATA / "template.toml").read_text().replace("\n# ", "\n"))
    fresh = desk.load()
    assert kept(desk).exists()
    assert desk.load() == fresh


def test_the_copy_is_private_and_its_directory_too(tmp_path: Path):
    home = tmp_path / "new"
    load_catalog(Places(home, (home / "config.toml",)), {})
    assert stat.S_IMODE((home / "catalog.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [each.name for each in home.iterdir()] == ["catalog.json"]


def test_a_hit_is_served_from_the_copy(desk: Desk):
    desk.write(GOOD)
    desk.load()
    document = json.loads(kept(desk).read_text())
    document["plain"]["config"]["models"]["mine"]["rpm"] = 77
    kept(desk).write_text(json.dumps(document))
    assert desk.load().resolve("mine").deployments[0].limits.rpm == 77


def test_a_changed_byte_is_a_miss_even_with_the_same_size_and_times(desk: Desk):
    path = desk.write(GOOD)
    desk.load()
    times = path.stat()
    path.write_text(GOOD.replace("10", "20"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert desk.load().resolve("mine").deployments[0].limits.rpm == 20


def test_another_version_is_a_miss(desk: Desk):
    desk.write(GOOD)
    desk.load()
    document = json.loads(kept(desk).read_text())
    kept(desk).write_text(json.dumps(document | {"version": "0.0.0", "plain": {}}))
    assert desk.load().resolve("mine")
    assert json.loads(kept(desk).read_text()) == document


def test_files_in_another_order_are_a_miss(desk: Desk):
    desk.write("[retry]\ntries = 3\n", "1.toml")
    desk.write("[retry]\ntries = 4\n", "2.toml")
    assert desk.load().settings.tries == 4
    desk.files.reverse()
    assert desk.load().settings.tries == 3


def damaged(text: str) -> list[str]:
    document = json.loads(text)
    plain = document["plain"]
    return [
        "",
        "null",
        "[]",
        "[" * 100_000,
        text[: len(text) // 2],
        "\udcff",
        json.dumps(document | {"plain": None}),
        json.dumps(document | {"plain": {}}),
        json.dumps(document | {"plain": plain | {"providers": 5}}),
        json.dumps(document | {"plain": plain | {"groups": {"fast": {"model": "nobody/x"}}}}),
        json.dumps(document | {"plain": plain | {"config": {"models": {"mine": {"model": 3}}}}}),
    ]


@pytest.mark.parametrize("n", range(11))
def test_a_damaged_copy_is_passed_over_and_written_again(desk: Desk, n: int):
    desk.write(GOOD)
    fresh = desk.load()
    good = kept(desk).read_text()
    kept(desk).write_bytes(damaged(good)[n].encode("utf-8", "surrogateescape"))
    assert desk.load() == fresh
    assert kept(desk).read_text() == good


def test_a_directory_where_the_copy_should_be_does_no_harm(desk: Desk):
    kept(desk).mkdir()
    assert "fast" in desk.load().groups


@pytest.mark.parametrize(
    "text",
    [
        f'[models.mine]\nmodel = "groq/x"\napi_key = "{SECRET}"\n',
        '[models.mine]\nmodel = "groq/x"\napi_key = "plain"\n',
        f'# api_key = "{SECRET}"\n' + GOOD,
        "# api_key = 'plain'\n" + GOOD,
        f"# {SECRET}\n" + GOOD,
        '[models.mine]\nmodel = "groq/x"\n"api_\\u006bey" = "plain"\n',
        '[serve]\napi_keys = ["plain"]\n',
        '[cache]\nbackend = "redis://me:plain@host"\n',
    ],
)
def test_no_copy_is_kept_of_a_secret(desk: Desk, text: str):
    desk.write(text)
    desk.load()
    assert not kept(desk).exists()


def test_references_do_not_stop_the_copy(desk: Desk):
    desk.write(GOOD + "api_key = 'env:X'\n[serve]\napi_keys = ['file:/x', 'cmd:pass show x']\n")
    desk.load()
    assert kept(desk).exists()


def test_a_refused_configuration_is_not_kept(desk: Desk):
    desk.write(GOOD + 'fallbacks = ["mine"]\n')
    desk.refused()
    assert not kept(desk).exists()


def test_a_hit_imports_nothing_slow(desk: Desk):
    desk.write((load.DATA / "template.toml").read_text().replace("\n# ", "\n"))
    desk.load()
    code = (
        "import sys; from pathlib import Path; from llmctl.config.places import Places;"
        "from llmctl.config.load import load_catalog; home = Path(sys.argv[1]);"
        "catalog = load_catalog(Places(home, (home / 'config.toml',)), {'LLMCTL_MODEL': 'home'});"
        "assert catalog.default_model == 'home';"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(desk.home)], capture_output=True, text=True, check=True)
    slow = {
        "pydantic",
        "pydantic_core",
        "tomllib",
        "hashlib",
        "_hashlib",
        "httpx",
        "rich",
        "asyncio",
        "difflib",
        "tempfile",
    }
    assert slow.isdisjoint(done.stdout.split())


# --- a configuration given as a dict --------------------------------------------------------------------------------


def test_a_dict_builds_the_same_catalog_as_the_file(desk: Desk):
    desk.write(GOOD)
    assert catalog_of({"models": {"mine": {"model": "groq/x", "rpm": 10}}}, {}) == desk.load()


def test_a_dict_may_hold_a_key_and_its_errors_name_the_key_path():
    config = {"models": {"mine": {"model": "groq/x", "api_key": SECRET}}}
    assert catalog_of(config, {}).resolve("mine").deployments[0].api_key == SECRET
    with pytest.raises(ConfigInvalid, match=r"^models\.mine\.rpm: must be a whole number"):
        catalog_of({"models": {"mine": {"model": "groq/x", "rpm": "x"}}}, {})


# --- lines ----------------------------------------------------------------------------------------------------------


def test_lines_know_tables_arrays_dotted_keys_and_values_over_several_lines():
    found = lines(
        "a.b = 1\n"  # 1
        "c = [\n  { d = 1 },\n\n  { e = 2 },\n]\n"  # 2-6
        "# comment\n"  # 7
        "[t.u]\n"  # 8
        'v = """\n[not.a.table]\n"""\n'  # 9-11
        "[[t.w]]\nx = 1\n[[t.w]]\nx = 2\n"  # 12-15
        "[t.w.y]\nz = 3\n"  # 16-17
        "['q.r']"  # 18
    )
    wanted: dict[Any, int] = {
        ("a", "b"): 1, ("c",): 2, ("c", 1, "e"): 2, ("t",): 8, ("t", "u", "v"): 9, ("t", "w", 0): 12,
        ("t", "w", 0, "x"): 13, ("t", "w", 1, "x"): 15, ("t", "w", 1, "y"): 16, ("t", "w", 1, "y", "z"): 17,
        ("q.r",): 18,
    }  # fmt: skip
    assert {path: found.get(path) for path in wanted} == wanted
    assert ("not",) not in found


NAMES = st.text("ab.-=#\"' []", min_size=1, max_size=4)
VALUES = st.integers() | st.text('x\n"[=', max_size=6) | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3), max_size=4))
def test_every_key_of_a_written_document_is_found_on_its_line(tree: dict[str, Any]):
    text = tomli_w.dumps(tree, multiline_strings=True)
    rows, found = text.split("\n"), lines(text)
    for table, row in tree.items():
        for key in row:
            as_written = tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
            assert rows[found[table, key] - 1].startswith(f"{as_written} = ")


# --- origins --------------------------------------------------------------------------------------------------------


def told(desk: Desk) -> dict[str, Setting]:
    return {setting.key: setting for setting in origins(desk.places, desk.environ)}


def test_each_setting_names_its_file_and_line_variable_or_built_in(desk: Desk):
    first = desk.write("[retry]\ntries = 3\nretries = 1\n", "1.toml")
    second = desk.write('[retry]\ntries = 4\n[models."a.b"]\nmodel = "groq/x"\n', "2.toml")
    desk.environ = {"LLMCTL_MODEL": "fast"}
    found = told(desk)
    assert (found["retry.tries"].value, found["retry.tries"].origin) == (4, f"{second}:2")
    assert (found["retry.retries"].value, found["retry.retries"].origin) == (1, f"{first}:3")
    assert (found["timeout.total"].value, found["timeout.total"].origin) == ("300s", "built-in")
    assert (found["default_model"].value, found["default_model"].origin) == ("fast", "LLMCTL_MODEL")
    assert found['models."a.b".model'].origin == f"{second}:4"
    assert found["models.smart.model"].origin == "built-in"


def test_a_providers_key_and_address_name_the_place_that_won(desk: Desk):
    path = desk.write('[providers.groq]\napi_key = "env:OTHER"\n')
    desk.environ = {
        "GROQ_API_KEY": SECRET,
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": "https://me:pw@proxy.example/v1",
    }
    found = told(desk)
    assert (found["providers.groq.api_key"].value, found["providers.groq.api_key"].origin) == ("env:OTHER", f"{path}:2")
    assert (found["providers.openai.api_key"].value, found["providers.openai.api_key"].origin) == (
        "***",
        "OPENAI_API_KEY",
    )
    assert found["providers.openai.api_base"].origin == "OPENAI_BASE_URL"


def test_no_secret_is_told(desk: Desk):
    desk.write(
        f'[models.m]\nmodel = "groq/x"\napi_key = "{SECRET}"\n[serve]\napi_keys = ["hunter2", "env:X"]\n'
        '[providers.groq]\nheaders = { X-Auth-Token = "hunter2", x-app = "shown", cookie = "env:X" }\n'
        f'[state]\nbackend = "redis://u:hunter2@h"\n[models.n]\nmodel = "groq/x"\nextra = {{ h = "Bearer {SECRET}" }}\n'
    )
    desk.environ = {"OPENAI_API_KEY": "hunter2", "OPENAI_BASE_URL": "https://u:hunter2@h/v1"}
    text = repr(origins(desk.places, desk.environ))
    assert SECRET not in text
    assert "hunter2" not in text
    assert told(desk)["serve.api_keys"].value == ["***", "env:X"]
    headers = {key: each.value for key, each in told(desk).items() if ".headers." in key}
    assert list(headers.values()) == ["***", "shown", "env:X"]


def test_origins_refuse_what_loading_refuses(desk: Desk):
    desk.write("[retry]\ntries = 9\n")
    with pytest.raises(ConfigInvalid):
        origins(desk.places, {})
