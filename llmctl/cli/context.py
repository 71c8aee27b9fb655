"""What every command shares: the environment, the places, the global options. It travels as `ctx.obj`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llmctl.config.places import Places, places

if TYPE_CHECKING:
    from collections.abc import Mapping

    import typer

    from llmctl.core.catalog import Catalog


@dataclass
class Context:
    """The global options and what they lead to; `environ` is read once, at the entry."""

    environ: Mapping[str, str]
    config_flags: tuple[str, ...] = ()
    debug: bool = False
    json_errors: bool | None = None
    """Whether the command was asked for `--json`, so that errors take that shape; None until it says so."""

    @cached_property
    def places(self) -> Places:
        """Where files are."""
        return places(self.environ, self.config_flags)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog of the configuration in force. Raises ConfigInvalid."""
        from llmctl.config.load import load_catalog

        return load_catalog(self.places, self.environ)


def of(ctx: typer.Context, *, json: bool | None = None) -> Context:
    """The shared context of a running command, which has learned whether it was asked for `--json`."""
    context = ctx.find_object(Context)
    assert context is not None, "commands run under cli.main"
    context.json_errors = json
    return context
