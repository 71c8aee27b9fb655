"""`llmctl keys`: keys of providers in a private file, for those who want none in their environment.

A key comes from a hidden prompt or from stdin, never from an argument: those stand in the shell's history and in the
list of processes. No key, nor a part of one, is ever printed.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.context import of
from llmctl.cli.options import Json, examples
from llmctl.cli.output import print_json, safe, say, table, tell, write
from llmctl.core.catalog import LOCAL_PROVIDER, near_name
from llmctl.core.errors import ConfigInvalid, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.cli.context import Context
    from llmctl.config.keys import Keys
    from llmctl.core.catalog import Provider

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Named = Annotated[str, typer.Argument(metavar="PROVIDER", help="A provider's name: groq, openai, ...")]
_LONGEST = 1 << 16
_LONGEST_NAME = 20
_FROM = "on a terminal it is asked for; elsewhere: llmctl keys set {0} < FILE"


@app.callback()
def keys() -> None:
    """Keep keys of providers in a private file; list and remove them."""


@app.command(
    "set",
    context_settings={"allow_extra_args": True},  # a key among them is refused without being quoted
    epilog=examples("llmctl keys set groq", "pass show groq | llmctl keys set groq"),
)
def set_(
    ctx: typer.Context,
    provider: Named,
    as_json: Json = False,
) -> None:
    """Keep a provider's key: from a hidden prompt, or the first line of stdin.

    It counts where neither the configuration nor a variable of the environment has a key of that provider.
    """
    context = of(ctx, json=as_json)
    if ctx.args:
        hint = _FROM.format("PROVIDER")
        raise UsageError("a key is no argument: it would stand in the history and in the process list", hint=hint)
    found = _provider(context, provider)
    key = _asked(found)
    with _kept(context) as store:
        replaced = store.put(found.name, key)
    above = _place(context, found, store)
    above = None if above == "keys" else above
    if as_json:
        print_json({"provider": found.name, "path": str(store.path), "replaced": replaced, "above": above})
        return
    write(safe(f"{found.name}: {'replaced' if replaced else 'kept'} in {store.path}\n"))
    if above:
        say(f"{above} has a key of {found.name} too, and stands above it")


@app.command("list", epilog=examples("llmctl keys list", "llmctl keys list --all --json"))
def list_(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Providers without a key too.")] = False,
    as_json: Json = False,
) -> None:
    """List the providers that have a key, and where it comes from: a variable, `keys set`, or the configuration."""
    context = of(ctx, json=as_json)
    store = _store(context)
    providers = context.catalog.providers
    rows = [_row(context, each, store) for each in providers.values() if each.name != LOCAL_PROVIDER]
    strangers = [name for name in store.rows() if name not in providers]
    rows += [{"provider": name, "source": None, "kept": True, "variables": []} for name in strangers]
    rows = [row for row in rows if every or row["source"] or row["kept"]]
    if as_json:
        print_json(rows)
    else:
        cells = [{**row, "key from": _source(row), "variables": " ".join(row["variables"])} for row in rows]
        table(["provider", "key from", "variables"], cells, keep=["provider"], spare=["variables"])
        if not rows:
            say("no provider has a key yet: `llmctl keys set PROVIDER` keeps one")
        for warning in store.warnings:
            say(f"warning: {warning}")


@app.command("rm", epilog=examples("llmctl keys rm groq", "llmctl keys rm openai --json"))
def rm(ctx: typer.Context, provider: Named, as_json: Json = False) -> None:
    """Forget a key that `keys set` keeps."""
    context = of(ctx, json=as_json)
    with _kept(context) as store:
        name = provider if provider in store.rows() else _canonical(context, provider)
        if not store.remove(name):
            raise UsageError(f"no key of {_quoted(provider)} is kept", hint="`llmctl keys list` shows what there is")
    if as_json:
        print_json({"provider": name, "path": str(store.path), "removed": True})
    else:
        write(safe(f"{name}: removed from {store.path}\n"))


def _store(context: Context) -> Keys:
    from llmctl.config.keys import Keys

    return Keys(context.places.keys)


@contextmanager
def _kept(context: Context) -> Iterator[Keys]:
    """The kept keys, which no other process changes meanwhile. Raises ConfigInvalid for a home that cannot be made."""
    from llmctl.store.files import directory_lock, private_directory

    store = _store(context)
    try:
        private_directory(str(store.path.parent))
        with directory_lock(str(store.path.parent)):
            yield store
    except OSError as error:
        hint = "point LLMCTL_HOME at a directory that you may write"
        raise ConfigInvalid(f"{store.path.parent}: {error.strerror}", hint=hint) from error


def _asked(provider: Provider) -> str:
    """The key that is typed or piped. Raises UsageError where it is none."""
    from llmctl.core.redact import is_key

    hint = _FROM.format(provider.name)
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass

        try:
            text = getpass(f"Key of {provider.title or provider.name} (not shown): ")
        except EOFError:
            text = ""
        except KeyboardInterrupt:
            tell("\n")  # else the shell's prompt stands behind the question
            raise
    else:
        line = b"" if sys.stdin is None else sys.stdin.buffer.readline(_LONGEST + 1)
        text = line.decode("utf-8", "replace")
    key = text.strip()
    if not key:
        raise UsageError("no key was given", hint=hint)
    if not is_key(key) or len(key) > _LONGEST:
        raise UsageError("what was given holds characters no key has", hint="check for blanks, line breaks and quotes")
    return key


def _provider(context: Context, name: str) -> Provider:
    """The provider called `name`. Raises UsageError, which quotes nothing that may be a key."""
    providers = context.catalog.providers
    canonical = _canonical(context, name)
    if canonical == LOCAL_PROVIDER:
        raise UsageError("the embedded model needs no key", hint="`llmctl models pull local` fetches its weights")
    if canonical not in providers:
        near = near_name(name, providers).partition(" (")[0]
        hint = near or "`llmctl models list --providers` shows what there is"
        raise UsageError(f"no provider is called {_quoted(name)}", hint=hint)
    return providers[canonical]


def _canonical(context: Context, name: str) -> str:
    return next((each.name for each in context.catalog.providers.values() if name in each.aliases), name)


def _quoted(name: str) -> str:
    return repr(name) if len(name) <= _LONGEST_NAME else "that"


def _place(context: Context, provider: Provider, store: Keys) -> str | None:
    """Where the key comes from that a call would use: a variable, "keys", a reference; None without one."""
    from llmctl.run.endpoint import Endpoints

    return Endpoints(context.environ, keys=store).key_place(provider, provider.api_key).present


def _row(context: Context, provider: Provider, store: Keys) -> dict[str, Any]:
    return {
        "provider": provider.name,
        "source": _place(context, provider, store),
        "kept": provider.name in store.rows(),
        "variables": list(provider.key),
    }


def _source(row: dict[str, Any]) -> str:
    source = "keys set" if row["source"] == "keys" else row["source"] or "none"
    unused = " (keys set is not used)" if row["kept"] and row["source"] != "keys" else ""
    return f"{source}{unused}"
