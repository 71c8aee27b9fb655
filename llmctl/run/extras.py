"""Optional dependencies: whether one is there, and the one error that says how to install it."""

from __future__ import annotations

from importlib.util import find_spec

from llmctl.core.errors import ConfigInvalid

EXTRAS: dict[str, str] = {
    "local": "xllamacpp",
    "bedrock": "botocore",
    "prices": "genai_prices",
    "otel": "opentelemetry.exporter.otlp.proto.http",
    "sentry": "sentry_sdk",
}
"""The name of an extra -> the module whose presence shows that it is installed."""

_SOURCE_TREE = "llmctl-cli"


def installed(extra: str) -> bool:
    """Whether the extra's module is there, without importing it."""
    try:
        return find_spec(EXTRAS[extra]) is not None
    except ModuleNotFoundError:  # a package around it is missing
        return False


def missing(extra: str, what: str) -> ConfigInvalid:
    """The error for `what` (a noun phrase) that needs an extra which is not installed."""
    return ConfigInvalid(
        f"{what} needs {EXTRAS[extra]}, which is not installed",
        hint=f'pip install "{distribution()}[{extra}]"',
    )


def distribution() -> str:
    """The name this package was installed under, from its own metadata.

    The distribution is the one whose console script leads into this package; a stranger's distribution called like the
    package is not it. Without metadata (a source tree) it is the name in pyproject.toml. Takes some 10 ms: for errors.
    """
    from importlib.metadata import entry_points

    for script in entry_points(group="console_scripts"):
        if script.module.startswith("llmctl.cli.") and script.dist is not None:
            return str(script.dist.name)
    return _SOURCE_TREE
