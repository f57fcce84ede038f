"""The parser of all commands: flags and one-line errors."""

import argparse
import difflib
import re
import sys
from functools import cache
from typing import Any, NoReturn

from hf_align.cli.hints import nearest_flag
from hf_align.cli.table import COMMANDS, Command
from hf_align.errors import UserError


class _Parser(argparse.ArgumentParser):
    """argparse with our one-line errors."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"argument COMMAND: invalid choice: '(\S+)' \(choose from (.*)\)", message):
            commands = unknown[2].replace("'", "").split(", ")
            nearest = difflib.get_close_matches(unknown[1], commands, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"commands are {', '.join(commands)}"
            message = f"there is no command {unknown[1]}; {hint}"
        raise UserError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, but check flags first: it would report a misspelt required flag as missing."""
        words = list(sys.argv[1:] if args is None else args)
        if self.get_default("takes_fields") is False:
            self._refuse_unknown(words[: words.index("--")] if "--" in words else words)
        return super().parse_known_args(words, namespace)

    def _refuse_unknown(self, words: list[str]) -> None:
        flags = self._option_string_actions
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if flag not in flags:
                nearest = nearest_flag(flag, flags)
                hint = f"did you mean {nearest}?" if nearest else f"see {self.prog} --help"
                raise UserError(f"{self.prog.removeprefix('hf-align ')} does not know {flag}; {hint}")


@cache
def build_parser(commands: tuple[Command, ...] = COMMANDS) -> argparse.ArgumentParser:
    """Make the parser of all commands, once in a process."""
    parser = _Parser(
        prog="hf-align",
        description="Alignment training inside the Hugging Face Trainer.",
        epilog="`hf-align COMMAND --help` explains a command and shows examples.",
        allow_abbrev=False,
    )
    _add_commands(parser, commands, "command")
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: tuple[Command, ...], dest: str) -> None:
    group = parser.add_subparsers(dest=dest, metavar="COMMAND", required=True)
    for command in commands:
        subparser = group.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=f"examples:\n{command.examples}",
            usage=command.usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command.parts:
            _add_commands(subparser, command.parts, f"{command.name}_what")
            continue
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, takes_fields=command.takes_fields, one_process=command.one_process)
