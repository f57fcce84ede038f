"""A rough guess of what a prompt is about, for prompts whose data set doesn't say."""

from __future__ import annotations

import re
from collections.abc import Callable

from hf_align.collators.rows import Side, text_of
from hf_align.data.inspection.language import NAMES, script_of
from hf_align.errors import UserError

Classifier = Callable[[Side], str]
"""Names the domain of a prompt (text or messages)."""

OTHER = "other"
_WORDS = {
    "code": (
        "code|python|javascript|typescript|java|c\\+\\+|rust|golang|sql|html|css|bash|regex|regexp|function|compiler|"
        "debug|bug|script|api|json|algorithm|program|programming|refactor|unit tests?|stack trace|traceback|git"
    ),
    "mathematics": (
        "math|maths|mathematics|equations?|solve for|calculate|compute|probability|integral|derivative|theorem|proof|"
        "prove|algebra|geometry|triangle|percent|percentage|fractions?|how many|sum of|square root|average of"
    ),
    "translation": (
        "translate|translation|in (?:french|german|spanish|italian|portuguese|chinese|japanese|korean|russian|arabic|"
        "hindi|english)"
    ),
    "summary": "summari[sz]e|summary|tl;?dr|key points|main points|shorten|condense|paraphrase|rewrite|rephrase",
    "writing": (
        "(?:write|compose|draft|tell)(?: \\w+){0,3} (?:story|poem|essay|song|lyrics|letter|email|e-mail|speech|"
        "article|blog post|haiku|dialogue|script|novel|joke|review|advert|slogan)|poem|haiku|limerick|screenplay"
    ),
    "health": (
        "doctor|symptoms?|medicine|medication|disease|pain|vaccine|therapy|diet|pregnan\\w+|depress\\w+|anxiety|"
        "headache|blood pressure|health|healthy|exercise"
    ),
    "law and money": (
        "law|lawyer|legal|illegal|court|contract|tax|taxes|invest|investing|investment|stocks?|loan|mortgage|"
        "insurance|budget|salary|inflation|bank"
    ),
    "review": "film|movie|hotel|restaurant|album|this product|i ordered|i bought|the plot|the acting|the staff",
    "science": (
        "physics|chemistry|biology|atoms?|molecules?|dna|evolution|planets?|stars?|gravity|energy|species|climate|"
        "experiment|quantum|cells?"
    ),
    "history and society": (
        "history|war|century|president|king|queen|empire|revolution|election|government|politic\\w*|country|capital of"
    ),
}
_PATTERNS = {name: re.compile(rf"\b(?:{words})(?!\w)") for name, words in _WORDS.items()}  # of lower-case text: faster
_FENCE = re.compile(r"```|^\s*(?:def|class|import|#include|SELECT) ", re.MULTILINE)
DOMAINS = (*_WORDS, "question", OTHER)
"""Domains of `guess_domain` in the Latin script; others are named by their script."""
_QUESTION = re.compile(r"\?\s*$|^\s*(?:who|what|when|where|why|how|which|is|are|do|does|can|could|should)\b", re.I)


def domain_of(prompt: Side, classify: Classifier | None) -> str:
    """The domain of a prompt by a user's classifier, or by `guess_domain` without one.

    Raises:
        UserError: The classifier fails, or names none.
    """
    if classify is None:
        return guess_domain(prompt)
    try:
        domain = classify(prompt)
    except Exception as error:  # any error of the user's function
        raise UserError(
            f"classify failed on prompt {text_of(prompt)[:60]!r}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(domain, str) or not domain:
        raise UserError(f"classify must name the domain of a prompt; it returned {domain!r}.")
    return domain


def guess_domain(prompt: Side) -> str:
    """The domain of a prompt by its script and English key words.

    Nothing is learned here: a prompt in another script than the Latin one is named by its script, code by its marks,
    everything else by the domain of which most key words occur, the first of equals. Without any, it is a "question"
    or "other". It serves to spread questions over subjects; where domains matter, give a classifier or a column.

    Args:
        prompt: Text, or messages, of which the last one counts.

    Example:
        >>> from hf_align.feedback.collection.domains import guess_domain
        >>> guess_domain("Solve for x: 3x = 12"), guess_domain("Who are you?"), guess_domain("Где Прага?")
        ('mathematics', 'question', 'Cyrillic script')
    """
    text = prompt if isinstance(prompt, str) else text_of(prompt[-1:])
    script = NAMES[script_of(text)]
    if script not in ("", "Latin"):
        return f"{script} script"
    if _FENCE.search(text):
        return "code"
    lower = text.lower()
    counts = {name: len(pattern.findall(lower)) for name, pattern in _PATTERNS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best]:
        return best
    return "question" if _QUESTION.search(text) else OTHER
