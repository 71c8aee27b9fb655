"""`llmctl completion SHELL`: a static script out of the real command tree, for bash, zsh and fish.

The scripts hold every name, option and choice, so that completing starts no process. `completions/` keeps what this
prints; a test says when that is stale. Which values are files or model groups is told by the names in `_KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import examples
from llmctl.cli.output import write

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(rich_markup_mode=None, add_completion=False)

GROUPS = ("fast", "smart", "cheap", "creative", "local", "auto")
"""The built-in model groups: the names that `-m` completes without reading anybody's configuration."""
_KINDS = {"FILE": "files", "--from": "files", "MODEL": "models", "--model": "models"}
_KINDS |= {"PROVIDER": "providers", "TOPIC": "topics"}
_HEADER = "# {0} completion of llmctl, written by `llmctl completion {0}`: change that, not this file.\n"


class Shell(StrEnum):
    """The shells there is a script for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@app.command(
    epilog=examples(
        'eval "$(llmctl completion bash)"',
        "llmctl completion zsh > ~/.zfunc/_llmctl",
        "llmctl completion fish > ~/.config/fish/completions/llmctl.fish",
    )
)
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish: the one that reads it.")],
) -> None:
    """Print the completion script of a shell."""
    write(script(shell))


@dataclass(frozen=True)
class Param:
    """An option (`names` are its spellings) or an argument (no names), and what its value completes to."""

    names: tuple[str, ...]
    help: str
    label: str
    takes_value: bool
    repeats: bool
    is_file: bool
    values: tuple[str, ...]
    """The words its value may be, when they are known."""


@dataclass(frozen=True)
class Node:
    """A command, or a group of them; `options` are also `--help` and the global ones."""

    path: tuple[str, ...]
    help: str
    children: tuple[Node, ...]
    options: tuple[Param, ...]
    arguments: tuple[Param, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


_GLOBAL = (
    Param(("--config",), "Read this configuration (repeat; later wins).", "FILE", True, True, True, ()),
    Param(("--debug",), "Show tracebacks.", "", False, False, False, ()),
    Param(("-h", "--help"), "Show the help and exit.", "", False, False, False, ()),
)


def tree() -> Node:
    """The whole command tree as it would run now."""
    from llmctl.cli.commands import COMMANDS, command, root

    children = tuple(_node((name,), command(name), text) for name, (_, text) in COMMANDS.items())
    return Node((), "", children, (*map(_param, root().params), *_GLOBAL))


def _node(path: tuple[str, ...], command: Any, text: str = "") -> Node:
    below = getattr(command, "commands", {}).items()
    children = tuple(_node((*path, name), child) for name, child in below if not child.hidden)
    params = [_param(param) for param in command.params if not getattr(param, "hidden", False)]
    options = (*(param for param in params if param.names), *_GLOBAL)
    arguments = tuple(param for param in params if not param.names)
    return Node(path, text or command.get_short_help_str(limit=200), children, options, arguments)


def _param(param: Any) -> Param:
    is_option = param.param_type_name == "option"
    names = (*param.opts, *param.secondary_opts) if is_option else ()
    label = (param.metavar or param.name.upper()).strip("[]")
    kind = next((_KINDS[word] for word in (label, *names) if word in _KINDS), "")
    return Param(
        names=names,
        help=(getattr(param, "help", None) or "").rstrip(),
        label=label,
        takes_value=not (is_option and param.is_flag),
        repeats=is_option and param.multiple,
        is_file=kind == "files",
        values=_values(kind) or tuple(getattr(param.type, "choices", None) or ()),
    )


def _values(kind: str) -> tuple[str, ...]:
    """The words of a kind, none for one that is no list of words."""
    if kind == "providers":
        from llmctl.config.load import packaged

        return tuple(packaged()["providers"])
    if kind == "topics":
        from llmctl.cli.help import TOPICS

        return tuple(TOPICS)
    return GROUPS if kind == "models" else ()


def script(shell: str) -> str:
    """The script of `shell`: bash, zsh or fish."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](tree())


# ---------------------------------------------------------------- bash


def _bash(root: Node) -> str:
    """One function: find the command among the words before, then offer values after an option, else names."""
    nodes = list(root.walk())
    paths = " | ".join(f'"{"".join(f" {word}" for word in node.path)}"' for node in nodes if node.path)
    valued: dict[str, list[str]] = {"files": ['*" --config"']}
    words = []
    for node in nodes:
        at = "".join(f" {word}" for word in node.path)
        for option in node.options:
            if option.takes_value and option not in _GLOBAL:
                found = "files" if option.is_file else " ".join(option.values)
                valued.setdefault(found, []).extend(f'"{at} {name}"' for name in option.names)
        offered = [child.path[-1] for child in node.children] + [w for a in node.arguments for w in a.values]
        offered += [name for option in node.options for name in option.names]
        files = "_llmctl_files; " if any(argument.is_file for argument in node.arguments) else ""
        words.append(f'        "{at}") {files}words="{" ".join(offered)}" ;;\n')
    skips = " | ".join(case for cases in valued.values() for case in cases)
    values = "".join(
        f"        {' | '.join(cases)})\n            {_bash_value(found)}\n            ;;\n"
        for found, cases in valued.items()
    )
    text = _HEADER.format("bash") + _BASH
    for mark, part in {"@PATHS@": paths, "@SKIPS@": skips, "@VALUES@": values, "@WORDS@": "".join(words)}.items():
        text = text.replace(mark, part)
    return text


def _bash_value(found: str) -> str:
    if found == "files":
        return "_llmctl_files && return 0"
    return f'words="{found}"' if found else "return 0"


_BASH = r"""
_llmctl_files() {
    [[ $cur == -* ]] || compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$cur"))
}

_llmctl() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at="" skip="" words="" word i
    COMPREPLY=()
    # "=" breaks words: `--file=na` comes as three of them.
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ $word == "=" ]]; then
            skip=1
            continue
        elif [[ -n $skip ]]; then
            skip=""
            continue
        fi
        case "$at $word" in
        @PATHS@)
            at="$at $word"
            ;;
        @SKIPS@)
            skip=1
            ;;
        esac
    done
    case "$at $prev" in
@VALUES@        *)
            case "$at" in
@WORDS@            esac
            ;;
    esac
    for word in $words; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
    return 0
}

complete -F _llmctl llmctl
"""

# ---------------------------------------------------------------- zsh


def _zsh(root: Node) -> str:
    """One function for each command, each a list of `_arguments` specifications (zshcompsys, Utility Functions)."""
    functions = "\n".join(_zsh_function(node) for node in root.walk())
    end = 'if [[ $funcstack[1] == _llmctl ]]; then\n    _llmctl "$@"\nelse\n    compdef _llmctl llmctl\nfi\n'
    return f"#compdef llmctl\n{_HEADER.format('zsh')}\n{functions}\n{end}"


def _zsh_function(node: Node) -> str:
    name = "_".join(("_llmctl", *node.path))
    specs = [spec for option in node.options for spec in _zsh_option(option)]
    if not node.children:
        specs += [_quoted(f"{n}:{a.label}:{_zsh_action(a)}") for n, a in enumerate(node.arguments, 1)]
        return f"{name}() {{\n    _arguments -s -S{_lines(specs)}\n}}\n"
    offered = " ".join(f'{child.path[-1]}\\:"{_zsh_text(child.help)}"' for child in node.children)
    specs += [_quoted(f"1:command:(({offered}))"), "'*::arg:->args'"]
    cases = "".join(f"        {c.path[-1]}) {'_'.join(('_llmctl', *c.path))} ;;\n" for c in node.children)
    return (
        f"{name}() {{\n    local context state state_descr line\n    typeset -A opt_args\n"
        f"    _arguments -C{_lines(specs)}\n"
        f"    [[ $state == args ]] && case $line[1] in\n{cases}    esac\n}}\n"
    )


def _zsh_option(option: Param) -> list[str]:
    others = "*" if option.repeats else f"({' '.join(option.names)})"
    value = f":{option.label}:{_zsh_action(option)}" if option.takes_value else ""
    return [_quoted(f"{others}{name}[{_zsh_text(option.help)}]{value}") for name in option.names]


def _zsh_action(param: Param) -> str:
    if param.is_file:
        return "_files"
    return f"({' '.join(param.values)})" if param.values else " "


def _zsh_text(text: str) -> str:
    """Help inside a specification, where brackets, colons, double quotes and backquotes mean something."""
    return "".join(f"\\{char}" if char in "[]:" else char for char in text.replace('"', "").replace("`", ""))


def _lines(specs: list[str]) -> str:
    return "".join(f" \\\n        {spec}" for spec in specs)


# ---------------------------------------------------------------- fish


def _fish(root: Node) -> str:
    """One `complete` line for each name; `__llmctl_at` says which command the line is about."""
    nodes = list(root.walk())
    paths = " ".join(_quoted(" ".join(node.path)) for node in nodes if node.path)
    valued = sorted({n for node in nodes for o in node.options if o.takes_value for n in o.names})
    lines = [_HEADER.format("fish"), _FISH.replace("@PATHS@", paths).replace("@VALUED@", " ".join(valued))]
    for node in nodes:
        at = f"""complete -c llmctl -n '__llmctl_at "{" ".join(node.path)}"'"""
        lines += [f"{at} -a {child.path[-1]} -d {_quoted(child.help)}\n" for child in node.children]
        for argument in node.arguments:
            files = " -F" if argument.is_file else ""
            values = f" -a {_quoted(' '.join(argument.values))}" if argument.values else ""
            lines += [f"{at}{files}{values}\n"] if files or values else []
        lines += [f"{at} {_fish_option(option)}\n" for option in node.options]
    return "".join(lines)


def _fish_option(option: Param) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    if not option.takes_value:
        value = ""
    elif option.is_file:
        value = " -r -F"
    else:
        value = f" -x -a {_quoted(' '.join(option.values))}" if option.values else " -x"
    return f"{names}{value} -d {_quoted(option.help)}"


_FISH = """
function __llmctl_at --description 'Whether the words so far are these commands'
    set -l at
    set -l skip
    for word in (commandline -opc)[2..-1]
        if test -n "$skip"
            set skip
        else if contains -- $word @VALUED@
            set skip 1
        else if contains -- (string join ' ' $at $word) @PATHS@
            set -a at $word
        end
    end
    test "$at" = "$argv[1]"
end

complete -c llmctl -f
"""


def _quoted(text: str) -> str:
    """`text` in single quotes, for all three shells' sake without any inside."""
    return "'" + text.replace("'", "’") + "'"
