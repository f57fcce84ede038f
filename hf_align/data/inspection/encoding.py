"""Texts that were decoded wrongly or never decoded: mojibake, replacement and control characters, HTML entities.

UTF-8 that was read as Windows-1252 or Latin-1 shows as sequences such as "Ã©" and "â€™": a lead byte of UTF-8 and as
many continuation bytes as it asks for. Read back, they are one character. Such a sequence is hardly ever meant, except
for two characters of which the second is typographic: in "CAFÉ™" and "„Ä“" it ends or quotes a word.
"""

from __future__ import annotations

import html
import re
import unicodedata

REPLACEMENT = "\ufffd"

_CP1252 = {bytes([code]).decode("cp1252", "ignore") or chr(code): code for code in range(0x80, 0xA0)}
_BYTES = {chr(code): code for code in range(0x80, 0x100)} | _CP1252
_REST = "".join(map(re.escape, sorted(char for char, code in _BYTES.items() if code < 0xC0)))
_SEQUENCE = re.compile(f"[\u00c2-\u00df][{_REST}]|[\u00e0-\u00ef][{_REST}]{{2}}|[\u00f0-\u00f4][{_REST}]{{3}}")
_TYPOGRAPHIC = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u2013\u2014\u2122\u2039\u203a\u00ab\u00bb\u00ae")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]|^\ufeff")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|hellip|mdash|ndash|[lr]squo|[lr]dquo|#\d{2,6}|#x[0-9a-fA-F]{2,5});")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|`|html|xml", re.IGNORECASE)
_DEPTH = 3
"""Texts were decoded wrongly up to three times."""


def is_broken(text: str) -> bool:
    """Whether a text shows signs of a wrong encoding.

    Entities count in texts without markup or code, which don't speak of HTML or XML.
    """
    if not text.isascii() and (REPLACEMENT in text or _reread(text) != text):
        return True
    control = not text.isprintable() and _CONTROL.search(text) is not None  # the first test is the faster one
    return control or has_entities(text)


def has_entities(text: str) -> bool:
    """Whether it has HTML entities that nothing in it explains."""
    return "&" in text and _ENTITY.search(text) is not None and _MARKUP.search(text) is None


def mended(text: str) -> str:
    """The text with mojibake read back, entities decoded and without control characters.

    What can't be known, as behind a replacement character, stays.

    Example:
        >>> from hf_align.data.inspection.encoding import mended
        >>> mended("The cafÃ© wasnâ€™t open &amp; I left.")
        'The café wasn’t open & I left.'
    """
    text = without_mojibake(text)
    if has_entities(text):
        text = html.unescape(html.unescape(text))
    return _CONTROL.sub(_written, text)


def without_mojibake(text: str) -> str:
    """The text with mojibake read back, as often as it was decoded wrongly."""
    for _ in range(_DEPTH):
        again = _reread(text)
        if again == text:
            break
        text = again
    return text


def _reread(text: str) -> str:
    """The text with each sequence of UTF-8 bytes shown as characters read back, if one of them can't be meant."""
    if text.isascii() or all(_decoded(match) is None or _may_be_meant(match) for match in _SEQUENCE.finditer(text)):
        return text
    return _SEQUENCE.sub(lambda match: _decoded(match) or match[0], text)


def _may_be_meant(match: re.Match[str]) -> bool:
    """Whether a sequence may be a letter with a sign behind it; of two common ones only at the end of capitals."""
    sequence = match[0]
    capitals = match.string[: match.start()][-1:].isupper()
    return len(sequence) == 2 and sequence[1] in _TYPOGRAPHIC and (capitals or sequence[0] not in "\u00c2\u00c3")


def _decoded(match: re.Match[str]) -> str | None:
    """The character that a sequence stands for, if there is one."""
    try:
        character = bytes(_BYTES[each] for each in match[0]).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return character if unicodedata.category(character) not in ("Cn", "Co", "Cs") else None


def _written(match: re.Match[str]) -> str:
    """A control character as Windows-1252 has it, if it does; "" otherwise."""
    code = match[0].encode("latin-1", "ignore")
    return code.decode("cp1252", "ignore") if code >= b"\x80" else ""
