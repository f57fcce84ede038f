"""Cleaning of texts without changing what they say."""

from __future__ import annotations

import html.entities
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hf_align.collators.rows import Message, Side
from hf_align.data.inspection.encoding import without_mojibake
from hf_align.data.sft.layouts import Demonstration

ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")
CODE = re.compile(r"[<>`]|&(?!\#?\w+;)|\b(?:x?html|xml|svg|entit(?:y|ies)|markup|escap\w*|unescap\w*)\b", re.IGNORECASE)
"""Signs that a text is about HTML, or that its entities aren't the trace of an export: it is left as it is."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""Codes that colour a terminal."""
BREAKS = re.compile(r"\r\n?|[\u2028\u2029]")
WINDOWS = re.compile(r"[\x80-\x9f]")
"""Characters of Windows-1252 that were read as Latin-1, where they are control characters."""
INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ufffe\uffff]")
"""Control characters, soft hyphens, zero-width spaces and byte order marks; joiners of emoji and scripts stay."""
LINE_ENDS = re.compile(r"[ \t]+(?=\n)")
BLANK_LINES = re.compile(r"\n{4,}")
SPACE = "line ends and white space"
PASSES = 4  # an entity may be escaped twice, and hold what the other steps clean

Ends = Literal["both", "left", "right"]


@dataclass(frozen=True)
class Cleaned:
    """A row after cleaning.

    Attributes:
        row: The row.
        changes: What was changed, in words.
    """

    row: Demonstration
    changes: tuple[str, ...]


def clean_row(row: Demonstration) -> Cleaned:
    """Clean all texts of a row.

    Spaces where a text prompt and its completion meet are kept, since a token may begin with one.

    Args:
        row: The row.
    """
    decode = ENTITY.search(row.text) is not None and not CODE.search(row.text)
    changes: dict[str, None] = dict.fromkeys(row.changes)

    def clean(text: str, ends: Ends = "both") -> str:
        cleaned, names = clean_text(text, ends, entities=decode)
        changes.update(dict.fromkeys(names))
        return cleaned

    seam = row.form == "continued text"
    prompt = _clean_side(row.prompt, lambda text: clean(text, "left" if seam else "both"))
    completion = _clean_side(row.completion, lambda text: clean(text, "right" if seam else "both"))
    return Cleaned(Demonstration(row.form, prompt, completion), tuple(changes))


def _clean_side(side: Side, clean: Callable[[str], str]) -> Side:
    return clean(side) if isinstance(side, str) else [_clean_message(message, clean) for message in side]


def _clean_message(message: Message, clean: Callable[[str], str]) -> Message:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": clean(content)}
    if isinstance(content, list):
        return {**message, "content": [{**part, "text": clean(part["text"])} for part in content]}
    return message


def clean_text(text: str, ends: Ends = "both", *, entities: bool = False) -> tuple[str, list[str]]:
    """Clean a text.

    Args:
        text: The text.
        ends: Where white space is stripped.
        entities: Whether HTML entities are decoded.

    Returns:
        The text and what was changed, in words. Cleaning it again changes nothing.

    Example:
        >>> from hf_align.data.sft.cleaning import clean_text
        >>> clean_text("Tom &amp; Jerry \\r\\n", entities=True)
        ('Tom & Jerry', ['HTML entities decoded', 'line ends and white space'])
    """
    steps: list[tuple[str, Callable[[str], str]]] = [
        ("HTML entities decoded", lambda text: ENTITY.sub(_decoded, text) if entities else text),
        ("wrongly decoded characters", lambda text: WINDOWS.sub(_from_windows, without_mojibake(text))),
        ("composed characters (Unicode NFC)", lambda text: unicodedata.normalize("NFC", text)),
        (SPACE, lambda text: BREAKS.sub("\n", text)),
        ("control and invisible characters removed", lambda text: INVISIBLE.sub("", ESCAPES.sub("", text))),
        (SPACE, lambda text: _strip(BLANK_LINES.sub("\n\n\n", LINE_ENDS.sub("", text)), ends)),
    ]
    changes: dict[str, None] = {}
    for _ in range(PASSES):
        before = text
        for name, step in steps:
            cleaned = step(text)
            if cleaned != text:
                changes[name], text = None, cleaned
        if text == before:
            break
    return text, list(changes)


def _decoded(entity: re.Match[str]) -> str:
    """What an entity stands for; itself if it is none, which `html.unescape` would take for a shorter one."""
    known = entity[0][1] == "#" or entity[0][1:] in html.entities.html5
    character = html.unescape(entity[0]) if known else ""
    return entity[0] if character in ("", "\ufffd") else character


def _from_windows(character: re.Match[str]) -> str:
    return character[0].encode("latin-1").decode("cp1252", "ignore")


def _strip(text: str, ends: Ends) -> str:
    return {"both": text.strip, "left": text.lstrip, "right": text.rstrip}[ends]()
