"""`hf-align completion bash | zsh | fish`: a script that completes commands, flags and the values of choices.

The script contains all words, so the shell never starts Python to complete one.
"""

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args, get_origin

from hf_align.algorithms import ALGORITHMS
from hf_align.cli.command import QUANTIZATIONS
from hf_align.cli.parser import build_parser
from hf_align.cli.table import TRAINING
from hf_align.errors import UserError
from hf_align.experiments.collection import KEYS
from hf_align.experiments.constitution import CONSTITUTION_KEYS
from hf_align.experiments.recipe import field_hints, source_keys
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.constitution.config import ConstitutionConfig


@dataclass
class Words:
    """Words that can follow a command.

    Attributes:
        commands: Commands of a group, with their summaries, or the choices of an argument.
        flags: Flags with their possible values; an empty list means any, such as a file.
    """

    commands: dict[str, str] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)


def run_completion(options: argparse.Namespace) -> None:
    """Print the script for `options.shell`."""
    print(SCRIPTS[options.shell](commands=collect_words()), end="")


def collect_words() -> dict[str, Words]:
    """Words by command path: "" for `hf-align` itself, "evaluate reward" for a command of a group."""
    commands: dict[str, Words] = {}
    _collect(build_parser(), "", commands)
    for command in TRAINING:
        try:
            algorithm = ALGORITHMS[command.name]
            hints = {**source_keys(algorithm.needs, algorithm.rows), **field_hints(algorithm.load()[1])}
        except UserError:  # another package's that can't be imported: `hf-align algorithms` says why
            continue
        for key, hint in hints.items():
            commands[command.name].flags[f"--{key}"] = [*QUANTIZATIONS] if key == "quantization" else _choices(hint)
    for name, hints in (
        ("collect", {**KEYS, **field_hints(CollectionConfig)}),
        ("constitution", {**CONSTITUTION_KEYS, **field_hints(ConstitutionConfig)}),
    ):
        commands[name].flags |= {f"--{key}": _choices(hint) for key, hint in hints.items()}
    return commands


def _collect(parser: argparse.ArgumentParser, path: str, commands: dict[str, Words]) -> None:
    words = commands.setdefault(path, Words())
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words.commands |= {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, part in action.choices.items():
                _collect(part, f"{path} {name}".strip(), commands)
        elif action.option_strings:
            choices = [str(choice) for choice in action.choices or ()]
            words.flags.update({flag: choices for flag in action.option_strings if flag.startswith("--")})
        else:
            words.commands.update({str(choice): "" for choice in action.choices or ()})


def _choices(hint: Any) -> list[str]:
    """Values of a `Literal` or a bool; an empty list for other types."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    choices = [choice for option in get_args(hint) if option is not hint for choice in _choices(option)]
    return list(dict.fromkeys(choices))


# Each script walks the words before the cursor and extends the command path by words that name a command.

BASH = """# bash completion for hf-align; written by `hf-align completion bash`
_hf_align() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" path="" word words=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path/$word" in
            {paths}) path="${{path:+$path }}$word" ;;
        esac
    done
    case "$path/$previous" in
{values}
    esac
    if [[ -z $words ]]; then
        case "$path" in
{words}
        esac
        if [[ $previous == --* && $current != --* ]]; then
            words=""
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ ${{#COMPREPLY[@]}} -eq 0 && $current != --* ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _hf_align hf-align
"""

ZSH = """#compdef hf-align
# zsh completion for hf-align; written by `hf-align completion zsh`
_hf_align() {{
    local current_word="${{words[CURRENT]}}" previous="${{words[CURRENT-1]}}" command_path="" word
    local -a offered
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$command_path/$word" in
            {paths}) command_path="${{command_path:+$command_path }}$word" ;;
        esac
    done
    case "$command_path/$previous" in
{values}
    esac
    if (( ! $#offered )) && [[ $previous != --* || $current_word == --* ]]; then
        case "$command_path" in
{words}
        esac
    fi
    if (( $#offered )); then
        compadd -a offered
    fi
    if (( ! $#offered )) || [[ $previous == --* && $current_word != --* ]]; then
        _files
    fi
}}
if [[ $funcstack[1] == _hf-align ]]; then
    _hf_align "$@"
else
    compdef _hf_align hf-align
fi
"""


def case_script(commands: Mapping[str, Words], template: str, assign: str) -> str:
    """Fill a template of `case` branches, which `assign` the words; patterns are quoted: paths have spaces."""
    steps = [f'"{path}/{command}"' for path, words in commands.items() for command in words.commands]
    values = [
        f'        "{path}/{flag}") {assign.format(" ".join(map(shlex.quote, choices)))} ;;'
        for path, words in commands.items()
        for flag, choices in words.flags.items()
        if choices
    ]
    offered = [
        f'        "{path}") {assign.format(" ".join([*words.commands, *words.flags]))} ;;'
        for path, words in commands.items()
    ]
    return template.format(paths="|".join(steps), values="\n".join(values), words="\n".join(offered))


def fish_script(commands: Mapping[str, Words]) -> str:
    """Write the script for fish."""
    lines = ["# fish completion for hf-align; written by `hf-align completion fish`"]
    for path, words in commands.items():
        seen = [f"__fish_seen_subcommand_from {command}" for command in path.split()]
        if words.commands:
            seen.append(f"not __fish_seen_subcommand_from {' '.join(words.commands)}")
        condition = _fish_quote("; and ".join(seen)) if seen else "true"
        for command, summary in words.commands.items():
            lines.append(f"complete -c hf-align -f -n {condition} -a {command} -d {_fish_quote(summary)}")
        for flag, choices in words.flags.items():
            values = f" -xa {_fish_quote(' '.join(choices))}" if choices else "" if flag == "--help" else " -r"
            lines.append(f"complete -c hf-align -n {condition} -l {flag.removeprefix('--')}{values}")
    return "\n".join(lines) + "\n"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[..., str]] = {
    "bash": partial(case_script, template=BASH, assign='words="{}"'),
    "zsh": partial(case_script, template=ZSH, assign="offered=({})"),
    "fish": fish_script,
}
