"""Cleaning of short texts for the embedded data set.

Near duplicates are found in `hf_align.data.duplicates`.
"""

import html
import re

from hf_align.data.duplicates import LINK, MENTION, normalise

_LEADING_MENTIONS = re.compile(rf"^(?:\.?{MENTION}[:,]?\s+|RT:?\s+)+")
_TRAILING_LINKS = re.compile(rf"(?:\s*{LINK})+$")


def clean_text(raw: str) -> str:
    """Make a sentence from the VADER files readable, without changing a word of it.

    HTML entities are decoded (some are encoded twice: `&amp;#38;`), `''` becomes `"`, three or more spaces become dash
    they originally were, other runs of white space one space. The authors' placeholders for user names and links are
    removed from a tweet's start and end; inside a tweet they are kept, because its syntax depends on them.

    Args:
        raw: the text as in the file.

    Returns:
        The cleaned text; it may be empty.
    """
    text = html.unescape(html.unescape(raw)).replace("''", '"')
    text = re.sub(r"(?<=\S) {3,}(?=\S)", " – ", text)
    text = re.sub(r"\s+", " ", text).strip()
    return _TRAILING_LINKS.sub("", _LEADING_MENTIONS.sub("", text)).strip()


def has_words(text: str) -> bool:
    """Whether `text` contains at least one word (two letters in a row) besides placeholders."""
    return re.search(r"[^\W\d_]{2}", normalise(text)) is not None
