"""What the commands share: options that mean the same everywhere, and the examples below a help text."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from llmctl.cli.colour import Choice
from llmctl.cli.prompt import as_text
from llmctl.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values, with a header line.")]


class Strategy(StrEnum):
    """As in `routing.balance`, whose import would cost `--help` its quickness; a test compares the two."""

    adaptive = "adaptive"
    ordered = "ordered"
    simple_shuffle = "simple-shuffle"
    round_robin = "round-robin"
    least_busy = "least-busy"
    latency_based_routing = "latency-based-routing"
    usage_based_routing = "usage-based-routing"
    cost_based_routing = "cost-based-routing"


Model = Annotated[str | None, typer.Option("-m", "--model", metavar="MODEL", help="A model group, or provider/model.")]
System = Annotated[str | None, typer.Option("-s", "--system", metavar="TEXT", help="The system prompt.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, max=2.0, metavar="T", help="Sampling temperature.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many output tokens.")]
Continue = Annotated[bool, typer.Option("-c", "--continue", help="Go on with the newest conversation.")]
Tag = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the ledger and reports (repeat).")]
Color = Annotated[Choice, typer.Option("--color", help="Colour and drawing; auto: where there is a terminal.")]
Render = Annotated[
    bool | None, typer.Option("--render/--raw", help="Draw Markdown, or leave it as it is; on a terminal it is drawn.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say on stderr who answered, and what was left out.")]
ByStrategy = Annotated[
    Strategy | None,
    typer.Option("--strategy", metavar="NAME", help="How to choose among deployments (see route explain)."),
]
Fallback = Annotated[
    list[str] | None, typer.Option(metavar="MODEL", help="Ask this one next (repeat); replaces the group's chain.")
]
NoFallback = Annotated[bool, typer.Option("--no-fallback", help="Ask the first target only.")]


class CacheMode(StrEnum):
    """As in `core.caching`; a test compares the two."""

    off = "off"
    exact = "exact"
    canonical = "canonical"
    semantic = "semantic"
    refresh = "refresh"


CacheBy = Annotated[
    CacheMode | None, typer.Option("--cache", metavar="MODE", help="off, exact, canonical, semantic, or refresh.")
]
CacheDoc = Annotated[
    list[str] | None,
    typer.Option("--cache-doc", metavar="HASH", help="What the answer depends on beside the request (repeat)."),
]
MaxWait = Annotated[str | None, typer.Option(metavar="TIME", help="Longest wait for a target to be free: 60s.")]
MaxCost = Annotated[
    float | None,
    typer.Option(min=0.0, max=1e9, metavar="USD", help="Send nothing where the answer may cost more than that."),
]


def fallbacks_of(named: list[str] | None, *, none: bool) -> list[str] | None:
    """The chain that `--fallback` and `--no-fallback` ask for, None for the group's own. Raises UsageError."""
    if named and none:
        raise UsageError("--fallback and --no-fallback exclude each other", hint="give one of them")
    for name in named or []:
        named_model("--fallback", name)
    return [] if none else named


def not_both(as_json: bool, as_csv: bool) -> None:
    """Raises UsageError where two forms of the answer are asked for."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", hint="give one of them")


def named_model(option: str, name: str | None) -> str | None:
    """The name of a model, if one was given. Raises UsageError for an empty one."""
    if name is not None and not name.strip():
        raise UsageError(f"{option} is empty", hint="name a model, or leave the option out")
    return name


def seconds(option: str, text: str | None) -> float | None:
    """The seconds of a duration given with `option`; None where it was not given. Raises UsageError.

    Not to wait at all is an answer to how long to wait, and no time limit for anything else.
    """
    if text is None:
        return None
    from llmctl.core.when import parse_duration

    try:
        found = 0.0 if text == "0" else parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error
    if found < 0 or (found == 0 and option != "--max-wait"):
        raise UsageError(f"{option} {text!r} is no time at all", hint="write 30s or 5m")
    return found


def examples(*lines: str) -> str:
    """The examples of a command, for its `epilog`: one line each, never wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def tags_of(words: list[str]) -> list[tuple[str, str]]:
    """The (key, value) pairs of `KEY=VALUE` words. Raises UsageError."""
    return [_tag(word) for word in words]


def _tag(word: str) -> tuple[str, str]:
    key, equals, value = as_text(word, "--tag").partition("=")
    if not equals or not key:
        raise UsageError(f"--tag {word!r} is not KEY=VALUE", hint="for instance --tag team=web")
    return key, value
