"""Texts of data, models and other people as a terminal may be given them."""

import re

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of text around, and halves of characters."""


def printable(text: str) -> str:
    r"""The text with characters that a terminal obeys, or can't show, written as JSON has them.

    A row, a name or a model's answer may hold sequences that clear the screen, rename the window or write over what
    stands there, and names of files may hold bytes that are no UTF-8, which can't be printed.

    Example:
        >>> from hf_align.printable import printable
        >>> printable("\x1b[2Jall is well\tsaid\na row")
        '\\u001b[2Jall is well\tsaid\na row'
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
