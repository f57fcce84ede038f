"""Entry point of `hf-align`: arguments, exit codes and error messages.

Nothing heavy is imported here, so that `--help` and a wrong flag answer at once; a command imports torch when it runs.
"""

import argparse
import difflib
import errno
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from hf_align.cli.commands import COMMANDS, Command
from hf_align.cli.hints import nearest_flag, with_place
from hf_align.errors import UserError

EXIT_OK, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says how to go on."""


class _Parser(argparse.ArgumentParser):
    """argparse with our one-line errors."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"argument COMMAND: invalid choice: '(\S+)' \(choose from (.*)\)", message)
        if unknown:
            commands = unknown[2].replace("'", "").split(", ")
            nearest = difflib.get_close_matches(unknown[1], commands, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(commands)}"
            message = f"there is no command {unknown[1]}; {hint}"
        raise UserError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's, after a look at the flags: it would first miss a required one that is misspelt."""
        words = list(sys.argv[1:] if args is None else args)
        if self.get_default("takes_fields") is False:
            self._refuse_unknown(words[: words.index("--")] if "--" in words else words)
        return super().parse_known_args(words, namespace)

    def _refuse_unknown(self, words: list[str]) -> None:
        known = self._option_string_actions
        command = self.prog.removeprefix("hf-align ")
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if flag not in known:
                nearest = nearest_flag(flag, known)
                hint = f"did you mean {nearest}?" if nearest else f"see {self.prog} --help"
                raise UserError(f"{command} does not know {flag}; {hint}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command."""
    parser = _Parser(
        prog="hf-align",
        description="Alignment training inside the Hugging Face Trainer.",
        epilog="`hf-align COMMAND --help` explains a command and shows examples.",
        allow_abbrev=False,
    )
    _add_commands(parser, COMMANDS, "command")
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command], dest: str) -> None:
    group = parser.add_subparsers(dest=dest, metavar="COMMAND", required=True)
    for command in commands:
        own = group.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=f"examples:\n{command.examples}",
            usage=command.usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command.parts:
            _add_commands(own, command.parts, f"{command.name}_what")
            continue
        command.add_arguments(own)
        own.set_defaults(run=_lazy(*command.run.split(":")), takes_fields=command.takes_fields)


def _lazy(module: str, name: str) -> Callable[..., None]:
    def run(options: argparse.Namespace) -> None:
        getattr(import_module(module), name)(options)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name; default `sys.argv[1:]`.

    Returns:
        The exit status: 0 for success, 2 for bad input (one line on stderr says what), 130 after Ctrl-C.
    """
    options = None
    try:
        options, fields = build_parser().parse_known_args(arguments)
        options.fields = fields
        options.arguments = list(sys.argv[1:] if arguments is None else arguments)
        if fields and not options.takes_fields:
            raise UserError(f"{options.command} does not know {fields[0]}; see hf-align {options.command} --help")
        options.run(options)
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or EXIT_OK)
    except UserError as error:
        print(f"hf-align: error: {' '.join(with_place(error, options).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Exception as error:
        if not _is_full_disk(error):
            raise
        print("hf-align: error: no space left on the disk; free some or choose another output_dir", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as stop:
        print(f"\nhf-align: interrupted. {stop}".rstrip(), file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether this came of a full disk or quota; safetensors and pyarrow wrap the system's error in their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"No space left on device|os error 28\b", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
