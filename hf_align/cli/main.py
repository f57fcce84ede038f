"""Entry point of `hf-align`: arguments, exit codes and error messages.

Nothing heavy is imported here, so that `--help` and flag errors are immediate; a command imports torch when it runs.
"""

import gc
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from hf_align.cli.hints import with_place
from hf_align.cli.parser import build_parser
from hf_align.cli.table import COMMANDS, Command
from hf_align.errors import UserError
from hf_align.full_disk import full_disk_error
from hf_align.printable import printable
from hf_align.unusable_paths import unusable_path_error

SHOWN = 300
"""Most characters of a word in an error, such as a name or value of somebody's."""
_LONG = re.compile(rf"\S{{{SHOWN + 4},}}")
EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; default `sys.argv[1:]`.
        commands: Those that there are.

    Returns:
        The exit status: 0 for success, 2 for bad input, also a path that the system refuses, and 1 for a full disk
        (explained in one line on stderr), 130
        after Ctrl-C.
    """
    options = None
    _untold_usage()  # of what this process did before
    try:
        options, fields = build_parser(tuple(commands)).parse_known_args(arguments)
        options.fields = fields
        options.arguments = list(sys.argv[1:] if arguments is None else arguments)
        if fields and not options.takes_fields:
            raise UserError(f"{options.command} does not know {fields[0]}; see hf-align {options.command} --help")
        processes = os.environ.get("WORLD_SIZE", "1")  # of `accelerate launch` or torchrun
        if options.one_process and processes != "1":
            raise UserError(
                f"{options.command} is one process, and {processes} were started, which would write the same files; "
                "start it without accelerate launch or torchrun"
            )
        module, _, function = options.run.partition(":")
        run = getattr(_imported(module), function)
        run(options)
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or EXIT_OK)
    except Exception as error:  # told in one line if it is the user's to mend, else raised
        full = full_disk_error(error)
        told = full or unusable_path_error(error) or error
        if not isinstance(told, UserError):
            raise
        message = _LONG.sub(lambda word: f"{word[0][:SHOWN]}...", with_place(told, options))
        print(printable(f"hf-align: error: {' '.join(message.split())}"), file=sys.stderr)
        return EXIT_BAD_INPUT if full is None else EXIT_FAILED
    except KeyboardInterrupt as stop:
        print(printable(f"\nhf-align: interrupted. {stop}".rstrip()), file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        for line in _untold_usage():
            print(printable(line), file=sys.stderr)
    return EXIT_OK


def _untold_usage() -> list[str]:
    """Lines on what endpoints were asked since the last call."""
    usage = sys.modules.get("hf_align.feedback.judges.endpoint.usage")  # imported where a model was named
    return usage.untold_usage() if usage else []


def _imported(name: str) -> ModuleType:
    """Import a command's module without garbage collections, and leave what it imported out of later ones.

    Imports create no garbage, and torch's alone create half a million objects; `Trainer.train` collects twice.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        module = import_module(name)
        gc.freeze()
    finally:
        gc.enable()
    return module
