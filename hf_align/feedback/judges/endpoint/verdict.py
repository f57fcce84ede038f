"""What an answer says about two responses, A and B: by the log-probs of the letters, or by its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from hf_align.feedback.judges.endpoint.completion import Completion, Token
from hf_align.rewards.judges import TIE, Opinion

_SIDE = r"(?P<{0}>A|B|[Tt]ie|TIE)"
_NOUN = r"(?i:\b(?:verdict|answer|winner|choice|decision|preference|(?:better|best)(?: response)?)\b)"
_MARKS = r"(?:[^\w\n:]|_)*"
VERDICT = re.compile(
    "|".join(
        (
            r"\[\[\s*" + _SIDE.format("boxed") + r"\s*\]\]",
            _NOUN + r"[*_\"'\s]*(?::|(?i:\bis\b))[*_\"'\s(]*(?:(?i:response|an?)\s+)?" + _SIDE.format("said") + r"\b",
            rf"\A{_MARKS}{_SIDE.format('opening')}{_MARKS}$",
            rf"^{_MARKS}(?:(?i:response)\s+)?{_SIDE.format('closing')}{_MARKS}\Z",
        )
    ),
    re.MULTILINE,
)
"""A verdict in a text: [[A]], "the better response is A", or A alone on its first or last line; not a heading."""
THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL)
MARKS = " \t\n\r[]()*_.:,\"'`<>▁ĠĊ"
"""What may cling to a letter in a token."""


def read_verdict(text: str, *, cut: bool = False) -> Opinion:
    """The verdict of an answer's text: 1 for A, 0 for B, 1/2 for a tie, None where there is none.

    The last verdict counts: what comes before may weigh one side and the other. Thoughts in tags don't count.

    Args:
        text: The answer.
        cut: Whether its end is missing; then only a verdict at its beginning counts.

    Example:
        >>> from hf_align.feedback.judges.endpoint.verdict import read_verdict
        >>> read_verdict("Verdict: A. On second thought, the answer is B."), read_verdict("A nice question!")
        (0.0, None)
    """
    written = THOUGHT.sub("", text).strip()
    matches = list(VERDICT.finditer(written))
    if cut and (not matches or matches[0].start() > 0):
        return None
    if not matches:
        return None
    side = next(value for value in matches[0 if cut else -1].groupdict().values() if value)
    return {"a": 1.0, "b": 0.0}.get(side.lower(), TIE)


def opinion_of(completion: Completion) -> tuple[Opinion, bool]:
    """Probability of A against B that an answer gives, and whether it is by log-probs."""
    verdict = read_verdict(completion.text, cut=completion.finish_reason == "length")
    if verdict is None or verdict == TIE or completion.tokens is None:
        return verdict, False
    probability = letter_probability(completion.tokens, "A" if verdict == 1 else "B")
    return (verdict, False) if probability is None else (probability, True)


def letter_probability(tokens: Sequence[Token], said: str) -> float | None:
    """P(A) / (P(A) + P(B)) at the last place where the answer has the letter that it says.

    Args:
        tokens: The answer's tokens.
        said: The verdict in its text, A or B.

    Returns:
        None where no token is that letter alone, or no likely tokens are told for it. A letter that isn't among the
        likely tokens gets the most that it can have: the probability of the least likely one told, or what all of them
        leave, whichever is less.
    """
    place = next((token for token in reversed(tokens) if token.text.strip(MARKS) == said), None)
    if place is None or not place.top:
        return None
    told = dict([(place.text, place.logprob), *place.top])
    first, second = (_sum(p for text, p in told.items() if text.strip(MARKS) == letter) for letter in "AB")
    unseen = max(0.0, min(math.exp(min(told.values())), 1 - _sum(told.values())))
    first, second = first or unseen, second or unseen
    return first / (first + second)


def _sum(logprobs: Iterable[float]) -> float:
    return math.fsum(map(math.exp, logprobs))
