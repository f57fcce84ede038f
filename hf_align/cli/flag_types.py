"""Types of numbers on the command line. Imports nothing heavy."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def seed(text: str) -> int:
    """A seed that Python, numpy and torch all take."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 2**32:
        raise ArgumentTypeError(f"{text!r} is no seed; give a whole number from 0 to {2**32 - 1}")
    return int(text)


def at_most(most: int) -> Callable[[str], int]:
    """A type of whole numbers that are refused where they can only be a slip; ranges are the library's to check."""

    def whole(text: str) -> int:
        if (number := int(text)) > most:
            raise ArgumentTypeError(f"{text} is more than {most}")
        return number

    whole.__name__ = "int"  # argparse says: invalid int value
    return whole
