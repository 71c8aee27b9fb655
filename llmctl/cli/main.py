"""The entry point and the outermost wall: global options, the one place where errors become words and exit codes.

`main` never returns: it flushes and leaves at once, because tearing the interpreter down costs more than it gives and
the embedded model's runtime may not be torn down at all.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing costs 5 ms, which `--version` does not have
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from llmctl.cli.context import Context

EXIT_BUG, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 141


def main() -> NoReturn:
    """Run the command of `sys.argv` and leave with its exit code. Whatever writes has flushed."""
    try:
        _fill_closed()
        code = run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    _let_tell(code)
    os._exit(code)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code of running `argv`; everything is written to the process's own streams."""
    debug, context = "--debug" in argv, None
    try:
        if list(argv) == ["--version"]:
            from llmctl._version import __version__

            print(f"llmctl {__version__}", flush=True)
            return 0
        from llmctl.cli.context import Context

        rest, flags, debug = _global_options(argv)
        context = Context(environ=environ, config_flags=tuple(flags), debug=debug)
        return _dispatch(rest, context)
    except BrokenPipeError:
        return EXIT_PIPE
    except Exception as error:  # noqa: BLE001 - the outermost wall
        if debug:
            import traceback

            traceback.print_exc()
        return failed(error, as_json=_wants_json(argv, context))


def _let_tell(code: int) -> None:
    """Give those who are told of calls a moment: all that was asked for has been written. A signal cuts it short."""
    telling = sys.modules.get("llmctl.run.telling")
    if telling is not None:
        import signal

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(code))
        telling.finish_all()


def _dispatch(argv: list[str], context: Context) -> int:
    import typer

    from llmctl.cli.commands import root
    from llmctl.cli.output import tell
    from llmctl.core.errors import UsageError

    try:
        # Not `.main()`, which turns a closed pipe into exit code 1.
        with root().make_context("llmctl", argv, obj=context) as ctx:
            ctx.command.invoke(ctx)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        return EXIT_INTERRUPTED
    except typer.TyperException as error:
        # The usage errors of the vendored parser; their public base has no more than these two.
        what = getattr(error, "format_message", error.__str__)()
        if type(error).__name__ == "NoArgsIsHelpError":
            tell(f"{what}\n")
            return EXIT_USAGE
        raise UsageError(what.rstrip("."), hint=_help_hint(error, what, argv)) from error
    return 0


def _help_hint(error: Exception, what: str, argv: list[str]) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else " ".join(["llmctl", *argv[:1]])
    if path == "llmctl ask" and "unexpected extra argument" in what:
        return 'put the prompt in quotes: llmctl ask "..."'
    return f"`{path} --help` shows what there is"


def _global_options(argv: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """`argv` without the global options, the `--config` files, and whether to debug; nothing after `--` is touched.

    Raises UsageError.
    """
    rest: list[str] = []
    flags: list[str] = []
    debug = False
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--debug":
            debug = True
        elif word == "--config" or word.startswith("--config="):
            flags.append(word.partition("=")[2] or ("" if "=" in word else next(words, "")))
        else:
            rest.append(word)
    if "" in flags:
        from llmctl.core.errors import UsageError

        raise UsageError("--config needs a file", hint="for instance --config ./llmctl.toml")
    return rest, flags, debug


def _wants_json(argv: Sequence[str], context: Context | None) -> bool:
    """Whether an error is told as JSON: the command's own word, or a guess where parsing did not reach it."""
    if context is not None and context.json_errors is not None:
        return context.json_errors
    return "--json" in argv[: argv.index("--") if "--" in argv else None]


def failed(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong; its exit code. What is none of our errors and not the system's either is a bug."""
    from llmctl.cli.output import error_json, one_line, tell
    from llmctl.core.errors import LlmctlError, OutputFailed

    if isinstance(error, LlmctlError):
        known = error
    elif isinstance(error, OSError):
        where = error.filename or "stdout"
        known = OutputFailed(f"{where}: {error.strerror or error}", hint="check where it points to")
    else:
        known = LlmctlError(
            f"this is a bug in llmctl: {type(error).__name__}: {error}",
            hint="run it again with --debug and report what it prints",
        )
    if as_json:
        tell(error_json(known) + "\n")
    else:
        tell(f"llmctl: error: {one_line(known.message, 600)}\n")
        tell(f"hint: {one_line(known.hint)}\n" if known.hint else "")
    return known.exit_code if known is error or isinstance(known, OutputFailed) else EXIT_BUG


def _fill_closed() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no file or socket of ours comes to stand there."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
