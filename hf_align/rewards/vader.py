"""VADER, a lexicon with rules, as a judge that no model of this library is trained on."""

from __future__ import annotations

from collections.abc import Sequence

from hf_align.collators.rows import Side
from hf_align.errors import UserError

VADER = "vader"
"""What recipes and command lines call it."""


def vader_scores(texts: Sequence[str]) -> list[float]:
    """VADER's compound score of every text, -1 (most negative) to 1.

    VADER is a lexicon with rules (Hutto and Gilbert, 2014). Nothing in this library trains on it, so a policy can't
    have learned to exploit it.

    Raises:
        UserError: vaderSentiment is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError('the judge needs vaderSentiment: pip install "hf-align[quickstart]"') from None
    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


def vader_judge(prompts: Sequence[Side], responses: Sequence[str]) -> list[float]:
    """VADER as a judge of responses, whatever the prompt."""
    return vader_scores(responses)
