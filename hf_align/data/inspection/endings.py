"""How texts end: properly, in the middle of something, or in a way that says nothing."""

from __future__ import annotations

import re
from enum import Enum

_CLOSERS = "\"'\u201d\u2019\u00bb\u300d\u300f)]}*_"
_STOPS = frozenset(".!?\u2026\u3002\uff01\uff1f\u061f\u06d4\u0964\uff0e")
_OPEN = frozenset(",;:([{-\u2013\u2014/&\u3001\uff0c")
_ITEM = re.compile(r"\s*(?:[-*\u2022|>#]|\d+[.)])")
_FEW = 3


class End(Enum):
    """How a text ends."""

    PROPER = "proper"
    OPEN = "open"
    OTHER = "other"


def end_of(text: str) -> End:
    """How a text ends.

    Proper is the end of a sentence, quotes and brackets closed. Open is a letter, or a sign after which more must come.
    Anything else says nothing: fewer than three words, an item of a list behind something, a link or tag, a number,
    code, emoji.
    """
    text = text.rstrip()
    last = text[-1:]
    if last in _STOPS or (last in _CLOSERS and text.rstrip(_CLOSERS)[-1:] in _STOPS):
        return End.PROPER
    if not (last.isalpha() or last in _OPEN):
        return End.OTHER
    words = text.rsplit(None, _FEW)
    few = len(words) < _FEW and text.isascii()  # others may write without spaces
    named = words[-1][:1] in "#@<`$" or "://" in words[-1] or words[-1].startswith("www.")
    before, _, line = text.rpartition("\n")
    item = before and _ITEM.match(line)
    return End.OTHER if few or named or item else End.OPEN
