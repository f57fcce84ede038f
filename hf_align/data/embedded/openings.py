"""Opening words of a sentence that a prompt may contain: they must say nothing about the sentence's polarity."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

MAX_OPENING = 5
"""Longest opening, in words."""

# Words of negation and lack change the polarity of what follows without being rated themselves.
_TURNING = frozenset(
    "not no never nor neither without hardly barely scarcely too only less lack lacks lacking despite unfortunately"
    " even nothing none nobody cannot dont doesnt didnt isnt wasnt cant wont".split()
)
_KNOWN = 10  # a word in fewer training sentences is too rare to be called neutral
_LEAN = 0.6  # rating points between the average sentence with the word and the average of its domain
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_TOKEN = re.compile(rf"#?(?:{_WORD.pattern})[,:]?")


class OpeningFilter:
    """Count the neutral words at a text's start.

    A word is neutral when it is none of: an entry of the lexicon (people rated it by itself as positive or negative), a
    negation, a word whose training sentences are rated well above or below their domain's average, an unknown word
    (unless it is a name, a number or a hashtag after the first word).

    Args:
        lexicon: words with a rated polarity, lower case.
        rows: `(text, domain, mean rating)` of the training split; other splits must not be passed.
    """

    def __init__(self, lexicon: Iterable[str], rows: Iterable[tuple[str, str, float]]) -> None:
        self.lexicon = frozenset(lexicon)
        rows = list(rows)
        per_domain: dict[str, list[float]] = {}
        for _, domain, mean in rows:
            per_domain.setdefault(domain, []).append(mean)
        average = {domain: sum(means) / len(means) for domain, means in per_domain.items()}
        self.count: Counter[str] = Counter()
        total: defaultdict[str, float] = defaultdict(float)
        for text, domain, mean in rows:
            for word in set(_WORD.findall(text.lower())):
                self.count[word] += 1
                total[word] += mean - average[domain]
        # Shrunk towards 0, so that a word in few sentences isn't far from 0 by chance.
        self.lean = {word: total[word] / (self.count[word] + _KNOWN / 2) for word in self.count}

    def neutral_words(self, text: str) -> int:
        """Number of words, at most `MAX_OPENING`, that open `text` and are all neutral."""
        tokens = text.split()[:MAX_OPENING]
        telling = (n for n, token in enumerate(tokens) if not self._neutral(token, first=n == 0))
        return next(telling, len(tokens))

    def _neutral(self, token: str, *, first: bool) -> bool:
        if not _TOKEN.fullmatch(token) or token.lower() in self.lexicon:
            return False
        word = _WORD.findall(token.lower())[0]
        parts = {word, word.removesuffix("'s"), *re.split(r"[-'’]", word)}
        if not parts.isdisjoint(self.lexicon) or not parts.isdisjoint(_TURNING) or word.endswith(("n't", "n’t")):
            return False
        if first and not word[0].isalpha():  # the number of a list's item
            return False
        if self.count[word] >= _KNOWN:
            return abs(self.lean[word]) <= _LEAN
        return not first and (token[0].isupper() or token[0].isdigit() or token[0] == "#")


def opening_of(text: str, words: int) -> str:
    """The first `words` words of `text` as written, without the comma or colon after the last."""
    return " ".join(text.split()[:words]).rstrip(",:")
