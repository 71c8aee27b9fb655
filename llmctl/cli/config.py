"""`llmctl config`: write a commented file, change it, say where it is, show what is in force, check it, explain it.

Reading and judging is the business of `llmctl.config`; here is only how it is asked for and shown.
"""

from __future__ import annotations

import sys
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples
from llmctl.cli.output import print_json, safe, say, write
from llmctl.core.catalog import dotted
from llmctl.core.errors import ConfigInvalid, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmctl.cli.context import Context
    from llmctl.config.origin import Setting
    from llmctl.core.catalog import Catalog, Group, KeyPath

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def config() -> None:
    """Write, change, show and check the configuration."""


@app.command(epilog=examples("llmctl config init", "llmctl config init --force", "llmctl --config d.toml config init"))
def init(
    ctx: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Write a commented configuration file (0600) and print its path."""
    from llmctl.config.files import write_private
    from llmctl.config.load import packaged_text

    path = _one_file(of(ctx))
    if not force and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path} is there already", hint="`llmctl config init --force` replaces it")
    try:
        write_private(path, packaged_text("template.toml"))
    except OSError as error:
        what = f"{path}: cannot be written ({error.strerror})"
        raise ConfigInvalid(what, hint="choose another place with --config or LLMCTL_HOME") from error
    write(f"{path}\n")


@app.command(epilog=examples("llmctl config path", '"$EDITOR" "$(llmctl config path)"', "llmctl config path --json"))
def path(ctx: typer.Context, json: Json = False) -> None:
    """Print the paths of the configuration files that are read, later ones winning."""
    context = of(ctx, json=json)
    files = [Path.absolute(each) for each in context.places.config_files]
    if json:
        found = [{"path": str(each), "exists": each.exists()} for each in files]
        print_json({"files": found, "home": str(context.places.home.absolute())})
    else:
        write("".join(f"{each}\n" for each in files))


@app.command(epilog=examples("llmctl config show", "llmctl config show --origin", "llmctl config show --json"))
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    json: Json = False,
) -> None:
    """Print every setting in force, secrets masked."""
    from llmctl.config.origin import origins

    context = of(ctx, json=json)
    settings = origins(context.places, context.environ)
    if json and origin:
        print_json([{"key": each.key, "value": each.value, "origin": each.origin} for each in settings])
    elif json:
        print_json(_nested((each.path, each.value) for each in settings))
    else:
        rows = ((each.key, each.value, f"  # {each.origin}") for each in settings) if origin else _whole(settings)
        write(safe("".join(f"{key} = {_toml(value)}{note}\n" for key, value, note in rows)))


@app.command(
    epilog=examples(
        "llmctl config get default_model", "llmctl config get timeout.total", "llmctl config get retry --json"
    )
)
def get(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `config show` prints it: retry.tries")],
    json: Json = False,
) -> None:
    """Print what is in force for a key or a table, secrets masked; nothing where nothing is set."""
    from llmctl.config.edit import key_path
    from llmctl.config.origin import origins

    context = of(ctx, json=json)
    path = key_path(key)
    within = [each for each in origins(context.places, context.environ) if each.path[: len(path)] == path]
    if not within:
        _must_be_known(path)
    scalar = bool(within) and within[0].path == path
    value = within[0].value if scalar else None
    if json:
        print_json(value if scalar or not within else _nested((each.path[len(path) :], each.value) for each in within))
    elif scalar:
        write(safe(value if isinstance(value, str) else _toml(value)) + "\n")
    else:
        write(safe("".join(f"{name} = {_toml(each)}\n" for name, each, _ in _whole(within))))


@app.command(
    "set",
    epilog=examples(
        "llmctl config set default_model smart",
        'llmctl config set models.fast.fallbacks \'["cheap", "smart"]\'',
        "llmctl config set budget.daily 5.0",
        "llmctl config set budget.daily --unset",
    ),
)
def set_(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `config show` prints it: retry.tries")],
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="A value of TOML, else a text; - reads it from stdin.")
    ] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Take the key or the table out.")] = False,
) -> None:
    """Change one key of the file; comments and order stay, and nothing is written that would not be good."""
    from llmctl.config import edit
    from llmctl.config.load import VARIABLES
    from llmctl.config.origin import masked
    from llmctl.config.source import secrets
    from llmctl.store.files import directory_lock, private_directory

    context = of(ctx)
    if (value is None) != unset:
        raise UsageError("give either a VALUE or --unset", hint="for instance: llmctl config set budget.daily 5.0")
    path, file = edit.key_path(key), _one_file(context)
    text: Any = edit.UNSET if value is None else _stdin_value() if value == "-" else value
    try:
        private_directory(str(file.absolute().parent))
        with directory_lock(str(file.absolute().parent)):
            change = edit.edited(file, path, text)
            if change.changed:
                edit.write(change)
    except OSError as error:
        raise ConfigInvalid(f"{file}: {error.strerror}", hint="choose another place with --config") from error
    if unset:
        say(f"{key} is {'no longer' if change.changed else 'not'} set in {file}")
        return
    write(safe(f"{key} = {_toml(masked(path, change.value))}\n"))
    if value != "-" and any(secrets(change.value, path)):
        say("warning: a secret on the command line stays in the shell's history: `llmctl keys set` asks for it")
    for name in (name for name, where in VARIABLES.items() if where == path and context.environ.get(name)):
        say(f"{name} is set, and stands above it")


@app.command(epilog=examples("llmctl config check", "llmctl --config drills.toml config check --json"))
def check(ctx: typer.Context, json: Json = False) -> None:
    """Validate the configuration and print the groups, chains and providers that it makes (exit 3 when it is bad)."""
    from llmctl.config.files import sources
    from llmctl.config.load import assembled, fresh
    from llmctl.config.pending import pending

    context = of(ctx, json=json)
    found = sources(context.places)
    plain, _ = fresh(found)
    catalog = assembled(plain, context.environ, found)
    files = [str(each.path) for each in found]
    groups = [_group(each) for each in catalog.groups.values()]
    providers = _used(catalog, plain["config"].get("providers", {}))
    waiting, warnings = pending(plain["config"]), []
    if catalog.settings.observers.anyone:
        from llmctl.run.telling import troubles

        warnings = troubles(catalog.settings.observers, context.environ)
    if json:
        document = {"ok": True, "files": files, "default_model": catalog.default_model or None, "groups": groups}
        print_json({**document, "providers": providers, "without_effect": waiting, "warnings": warnings})
        return
    write(f"ok: {', '.join(files) or 'no configuration file, built-in settings'}\n")
    write(safe("".join(f"{_line(row)}\n" for row in groups)))
    write(f"providers: {', '.join(providers)}\n")
    if waiting:
        write(safe(f"without effect in this version: {', '.join(waiting)}\n"))
    write(safe("".join(f"warning: [observe] {each}\n" for each in warnings)))


@app.command(epilog=examples("llmctl config schema", "llmctl config schema > llmctl.schema.json"))
def schema(
    as_page: Annotated[bool, typer.Option("--markdown", help="As a page: docs/reference.md is one.")] = False,
) -> None:
    """Print the JSON Schema of a configuration file, with what each key means."""
    from llmctl.config import reference

    if as_page:
        write(reference.markdown())
    else:
        print_json(reference.json_schema())


def _one_file(context: Context) -> Path:
    """The file that is written. Raises UsageError where several are read."""
    files = context.places.config_files
    if len(files) > 1:
        raise UsageError("one file can be written", hint="give --config once")
    return files[0]


def _stdin_value() -> str:
    text = "" if sys.stdin is None else sys.stdin.readline(1 << 16).strip()
    if not text:
        raise UsageError("stdin has no value", hint="pipe one in: llmctl config set KEY - < FILE")
    return text


def _must_be_known(path: KeyPath) -> None:
    """Raise UsageError for a key that no configuration has."""
    from difflib import get_close_matches

    from llmctl.config.schema import known_keys

    for n, step in enumerate(path):
        known = known_keys(path[:n])
        if known and step not in known:
            near = get_close_matches(str(step), known, n=1, cutoff=0.5)
            hint = f"did you mean {dotted((*path[:n], near[0]))!r}?" if near else "`llmctl help config` lists the keys"
            raise UsageError(f"no configuration has the key {dotted(path)}", hint=hint)


def _group(group: Group) -> dict[str, Any]:
    return {
        "group": group.name,
        "strategy": group.strategy,
        "models": [deployment.served_by for deployment in group.deployments],
        "fallbacks": list(group.fallbacks),
        "route": dict(group.route) or None,
        "built_in": group.built_in,
    }


def _line(row: dict[str, Any]) -> str:
    route = " or ".join((row["route"] or {}).values())
    chain = "".join(f" > {link}" for link in row["fallbacks"])
    return f"{'built-in ' * row['built_in']}group {row['group']}: {' | '.join(row['models']) or route}{chain}"


def _used(catalog: Catalog, configured: Iterable[str]) -> list[str]:
    """The providers that a group or a chain leads to, or that the configuration sets, in the order of the table."""
    names = {deployment.provider.name for group in catalog.groups.values() for deployment in group.deployments}
    for group in catalog.groups.values():
        for link in group.fallbacks:
            if link not in catalog.groups:
                names.add(catalog.deployment(link).provider.name)
    names.update(configured)
    return [name for name in catalog.providers if name in names]


def _whole(settings: Iterable[Setting]) -> Iterator[tuple[str, Any, str]]:
    """The settings as lines of TOML, in which a list of tables is one value."""
    for path, several in groupby(
        settings, lambda each: tuple(takewhile(lambda step: isinstance(step, str), each.path))
    ):
        found = [(each.path[len(path) :], each.value) for each in several]
        yield dotted(path), _nested(found) if found[0][0] else found[0][1], ""


def _nested(settings: Iterable[tuple[KeyPath, Any]]) -> Any:
    """The settings as tables within tables; a list of tables is a table by number until it is whole."""
    tree: dict[Any, Any] = {}
    for path, value in settings:
        below = tree
        for step in path[:-1]:
            below = below.setdefault(step, {})
        below[path[-1]] = value
    return _listed(tree)


def _listed(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_listed(each) for each in tree.values()]
    return {key: _listed(value) for key, value in tree.items()}


def _toml(value: Any) -> str:
    import json as encoder

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{encoder.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return encoder.dumps(value, ensure_ascii=False)
