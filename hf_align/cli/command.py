"""A command of `hf-align`: its name, help texts and function, and values that flags of several commands take."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

QUANTIZATIONS = ("8bit", "4bit")


@dataclass(frozen=True)
class Command:
    """A command, or a group of them.

    Attributes:
        name: Name on the command line.
        summary: One line for the list of commands.
        description: First paragraph of `--help`.
        examples: Command lines for `--help`, indented by two.
        run: "module:function"; the function gets the parsed arguments.
        add_arguments: Adds the arguments to the parser.
        takes_fields: Whether undeclared flags are recipe keys.
        usage: Replaces argparse's usage line.
        parts: The commands of a group, which has no `run` of its own.
        one_process: Whether processes of `accelerate launch` would write the same files, each for itself.
    """

    name: str
    summary: str
    description: str
    examples: str
    run: str = ""
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None
    takes_fields: bool = False
    usage: str | None = None
    parts: tuple["Command", ...] = ()
    one_process: bool = False
