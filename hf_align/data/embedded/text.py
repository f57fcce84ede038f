"""Cleaning and comparing short texts: what the embedded data set is built with, and what keeps copies of a text apart.

Near duplicates are found exactly, not by sampling hashes: two texts are near duplicates when the Jaccard similarity of
their character 5-gram sets reaches a threshold, and prefix filtering (Bayardo et al., 2007, "Scaling Up All Pairs
Similarity Search") makes sure that no such pair is missed while only about one in two hundred pairs is looked at.
"""

import html
import re

from hf_align.data.duplicates import LINK, MENTION, normalise

_LEADING_MENTIONS = re.compile(rf"^(?:\.?{MENTION}[:,]?\s+|RT:?\s+)+")
_TRAILING_LINKS = re.compile(rf"(?:\s*{LINK})+$")


def clean_text(raw: str) -> str:
    """Make a sentence from the VADER files readable, without changing a word of it.

    HTML entities are decoded (some are encoded twice: `&amp;#38;`), `''` becomes `"`, three or more spaces become the
    dash that they were before the files were made, other runs of white space one space. The placeholders that the
    authors put for user names and links are removed from a tweet's start and end; inside a tweet they stay, because
    its syntax leans on them.

    Args:
        raw: the text as it stands in the file.

    Returns:
        The cleaned text; it may be empty.
    """
    text = html.unescape(html.unescape(raw)).replace("''", '"')
    text = re.sub(r"(?<=\S) {3,}(?=\S)", " – ", text)
    text = re.sub(r"\s+", " ", text).strip()
    return _TRAILING_LINKS.sub("", _LEADING_MENTIONS.sub("", text)).strip()


def has_words(text: str) -> bool:
    """Whether `text` holds at least one word (two letters in a row) besides placeholders."""
    return re.search(r"[^\W\d_]{2}", normalise(text)) is not None
