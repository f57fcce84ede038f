"""The quickstart's data, from the embedded ratings: pairs, rankings, evaluation prompts, held-out sentences.

A prompt is a chat message that names the domain ("Write one sentence from a movie review.") and may give opening words.
It never says whether the sentence should be positive or negative, so the reward model and the policy learn what people
preferred, not what the prompt asked for.
"""

import logging
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

from datasets import Dataset

from hf_align.data.convert import rated_pair
from hf_align.data.duplicates import NEAR_DUPLICATE, normalise, similarity
from hf_align.data.embedded.openings import opening_of
from hf_align.data.embedded.ratings import DOMAINS, Domain, Split, load_ratings
from hf_align.errors import UserError

logger = logging.getLogger(__name__)

SHARES: Mapping[Domain, float] = {"movies": 0.3, "products": 0.3, "tweets": 0.4}
"""Default share of each domain in `make_pairs`: more tweets, where rule-based scoring is hardest to beat."""

MIN_WORDS, MAX_WORDS = 4, 40
"""Shortest and longest sentence used in a pair: shorter ones are fragments, longer ones cost time."""

_SHARED_OPENINGS = (3, 2)  # words, longest first: sentences are matched by the longest opening they share
_ROWS_PER_OPENING = 4  # otherwise "this is" would be in every fifth prompt
_PROMPT_OPENINGS = (3, 4, 5)
_WORDS_AFTER = 3  # minimum number of words after the opening
_REQUESTS: Mapping[str, Sequence[str]] = {
    "movies": (
        "Write one sentence from a movie review.",
        "Give me one sentence of a review of a film.",
        "What might someone say about a movie in one sentence?",
    ),
    "products": (
        "Write one sentence from a product review.",
        "Give me one sentence of a customer's review.",
        "What might a customer say about a product in one sentence?",
    ),
    "tweets": (
        "Write a tweet.",
        "Give me the text of a tweet.",
        "What might someone post on Twitter?",
    ),
}
_START = ("Start with: {}", "Begin with the words: {}")


class _Sentence(NamedTuple):
    text: str
    votes: list[int]
    neutral_words: int


class _Match(NamedTuple):
    a: _Sentence
    b: _Sentence
    opening: str | None


def make_pairs(
    split: Split = "train",
    n: int = 600,
    seed: int = 0,
    *,
    min_gap: float = 0.5,
    openings: float = 0.5,
    shares: Mapping[Domain, float] = SHARES,
) -> Dataset:
    """Make preference pairs of two rated sentences of one domain.

    No sentence is used twice, so n pairs show 2n sentences. Where the prompt gives opening words, both sentences begin
    with them (whatever their case) and the words say nothing about polarity. Partners are otherwise drawn at random,
    so margins vary as widely as the ratings. No pair contains near copies of one text.

    Args:
        split: which sentences to use, "train" (default), "validation" or "test".
        n: number of pairs.
        seed: determines sentences, partners, phrasings and order.
        min_gap: the two mean ratings differ by more than this, in rating points (the scale is -4 to 4).
        openings: share of each domain's pairs whose prompt gives 2 or 3 opening words, in [0, 1]; if too few sentences
            share an opening, the rest are prompts without one (with the defaults: for tweets from n = 930).
        shares: share of each domain, in any unit.

    Returns:
        Rows with `prompt` (one user message), `chosen` and `rejected` (one assistant message each), `margin` (the gap
        of the mean ratings, > min_gap), `chosen_ratings`, `rejected_ratings` (every vote), `domain` and `opening`
        (None where the prompt gives none).

    Raises:
        UserError: if the split has too few sentences for `n` pairs, or `n`, `min_gap`, `openings` or `shares` are
            invalid.
    """
    if n < 1 or min_gap < 0 or not 0 <= openings <= 1:
        raise UserError(f"need n >= 1, min_gap >= 0 and openings in [0, 1], not {n}, {min_gap} and {openings}")
    rows: list[dict[str, Any]] = []
    for domain, count in _allocate(n, shares).items():
        rng = random.Random(f"pairs/{seed}/{split}/{domain}")
        sentences = _sentences(split, domain)
        rng.shuffle(sentences)
        pairs_of = partial(_partners, min_gap=min_gap, limit=_ROWS_PER_OPENING)
        matches = [_Match(a, b, opening) for (a, b), opening in _with_openings(sentences, pairs_of, rng)]
        rng.shuffle(matches)
        del matches[round(openings * count) :]
        used = {sentence.text for match in matches for sentence in (match.a, match.b)}
        rest = [sentence for sentence in sentences if sentence.text not in used]
        matches += [_Match(a, b, None) for a, b in _partners(rest, min_gap, limit=count - len(matches))]
        if len(matches) < count:
            raise UserError(f"{split} has sentences for {len(matches)} pairs of {domain}, not {count}: ask for fewer")
        for match in matches:
            prompt = _prompt(domain, match.opening, rng)
            a, b = ((_message("assistant", each.text), each.votes) for each in (match.a, match.b))
            rows.append({**rated_pair(prompt, a, b), "domain": domain, "opening": match.opening})
    random.Random(f"pairs/{seed}/{split}").shuffle(rows)
    # A reward model could learn length instead of quality: log how the two sides differ.
    chosen, rejected = (fmean(len(row[side][0]["content"].split()) for row in rows) for side in ("chosen", "rejected"))
    logger.info("%d pairs; mean length %.1f words chosen, %.1f rejected", len(rows), chosen, rejected)
    return Dataset.from_list(rows)


def make_rankings(
    split: Split = "train",
    n: int = 200,
    k: int = 4,
    seed: int = 0,
    *,
    openings: float = 0.0,
    shares: Mapping[Domain, float] = SHARES,
) -> Dataset:
    """Make prompts with k rated sentences of one domain each.

    No sentence is used twice, and no row holds near copies of one text. Sentences and their order are drawn at random.

    Args:
        split: which sentences to use, "train" (default), "validation" or "test".
        n: number of rows.
        k: sentences in a row, at least 2.
        seed: determines sentences, phrasings and order.
        openings: share of each domain's rows whose prompt gives the 2 or 3 words that all its sentences begin with, in
            [0, 1]; fewer if too few sentences share an opening (with k = 8, 14 rows of training tweets).
        shares: share of each domain, in any unit.

    Returns:
        Rows with `prompt` (one user message), `responses` (k times one assistant message), `ratings` (every vote on
        each), `domain`, `opening` (None where the prompt gives none), and for auxiliary tasks one value per response:
        `mean_rating`, and `liked`, the share of its votes above 0.

    Raises:
        UserError: if the split has too few sentences, or `n`, `k`, `openings` or `shares` are invalid.
    """
    if n < 1 or k < 2 or not 0 <= openings <= 1:
        raise UserError(f"need n >= 1, k >= 2 and openings in [0, 1], not {n}, {k} and {openings}")
    rows: list[dict[str, Any]] = []
    for domain, count in _allocate(n, shares).items():
        rng = random.Random(f"rankings/{seed}/{split}/{domain}")
        sentences = _sentences(split, domain)
        rng.shuffle(sentences)
        groups_of = partial(_groups, k=k, limit=_ROWS_PER_OPENING)
        groups = list(_with_openings(sentences, groups_of, rng)) if openings else []
        rng.shuffle(groups)
        del groups[round(openings * count) :]
        used = {sentence.text for group, _ in groups for sentence in group}
        rest = [sentence for sentence in sentences if sentence.text not in used]
        groups += [(group, None) for group in _groups(rest, k, limit=count - len(groups))]
        if len(groups) < count:
            raise UserError(f"{split} has sentences for {len(groups)} rows of {domain}, not {count}: ask for fewer")
        for group, opening in groups:
            votes = [sentence.votes for sentence in group]
            row = {"prompt": _prompt(domain, opening, rng), "responses": [_message("assistant", s.text) for s in group]}
            row |= {"ratings": votes, "mean_rating": list(map(fmean, votes))}
            row |= {"liked": [fmean(vote > 0 for vote in each) for each in votes]}
            rows.append({**row, "domain": domain, "opening": opening})
    random.Random(f"rankings/{seed}/{split}").shuffle(rows)
    return Dataset.from_list(rows)


def make_prompts(split: Split = "test", n: int = 200, seed: int = 0) -> Dataset:
    """Make distinct prompts with opening words, to sample a policy with.

    The opening words are the first 3 to 5 of the split's sentences, as written. They say nothing about polarity. Those
    of a held-out split start no sentence of the training split, so no training prompt or response contains them.

    Args:
        split: where the openings come from: "test" (default) or "validation" to judge a policy, "train" for PPO.
        n: number of prompts, equally many per domain as far as its sentences allow.
        seed: determines sentences, number of opening words, phrasings and order.

    Returns:
        Rows with `prompt` (one user message), `domain` and `opening`; no two openings are equal, whatever their case.

    Raises:
        UserError: if the split has too few openings; the message says how many it has.
    """
    training = [] if split == "train" else sorted(f"{normalise(text)} " for text in load_ratings("train")["text"][:])
    candidates: dict[Domain, list[str]] = {}
    taken: set[str] = set()
    for domain in DOMAINS:
        rng = random.Random(f"prompts/{seed}/{split}/{domain}")
        sentences = _sentences(split, domain)
        rng.shuffle(sentences)
        candidates[domain] = []
        for sentence in sentences:
            for words in rng.sample(_PROMPT_OPENINGS, len(_PROMPT_OPENINGS)):
                opening = _opening(sentence, words)
                if opening and normalise(opening) not in taken and not _begins_one(training, opening):
                    taken.add(normalise(opening))
                    candidates[domain].append(opening)
                    break  # one opening per sentence
    available = sum(map(len, candidates.values()))
    if not 1 <= n <= available:
        raise UserError(f"{split} has {available} different openings, so n must be in 1..{available}, not {n}")
    rows: list[tuple[Domain, str]] = []
    while len(rows) < n:
        not_empty: list[Domain] = [domain for domain in DOMAINS if candidates[domain]]
        rows.extend((domain, candidates[domain].pop()) for domain in not_empty[: n - len(rows)])
    rng = random.Random(f"prompts/{seed}/{split}")
    rng.shuffle(rows)
    return Dataset.from_list(
        [{"prompt": _prompt(domain, opening, rng), "domain": domain, "opening": opening} for domain, opening in rows]
    )


def heldout_sentences(split: Split = "test", domain: Domain | None = None) -> Dataset:
    """All rated sentences of a split, each with a fitting prompt, to evaluate a reward model.

    Args:
        split: "test" (default), "validation" or "train".
        domain: "movies", "products" or "tweets"; None (default) for all.

    Returns:
        Rows with `prompt` (one user message without opening words), `response` (one assistant message), `text` (its
        content), `domain`, `mean` (people's mean rating), `ratings` (every vote) and `source_id`.

    Raises:
        UserError: if `split` or `domain` is unknown.
    """
    rows = load_ratings(split, domain)
    columns = {name: rows[name][:] for name in ("text", "domain", "mean", "ratings", "source_id")}
    prompts = [_message("user", _REQUESTS[domain][0]) for domain in columns["domain"]]
    return Dataset.from_dict(
        {"prompt": prompts, "response": [_message("assistant", text) for text in columns["text"]], **columns}
    )


def _sentences(split: Split, domain: Domain) -> list[_Sentence]:
    rows = load_ratings(split, domain)
    columns = (rows[name][:] for name in ("text", "ratings", "neutral_words"))
    by_text = {each.text: each for each in map(_Sentence, *columns)}  # a few texts were rated twice
    return [each for each in by_text.values() if MIN_WORDS <= len(each.text.split()) <= MAX_WORDS]


def _allocate(n: int, shares: Mapping[Domain, float]) -> dict[Domain, int]:
    """Split `n` in proportion to `shares`, largest remainders first."""
    if unknown := set(shares) - set(DOMAINS):
        raise UserError(f"unknown domain {sorted(unknown)[0]!r} in shares: use {', '.join(DOMAINS)}")
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise UserError(f"shares must be >= 0 and not all 0, not {dict(shares)}")
    exact: dict[Domain, float] = {domain: n * share / total for domain, share in shares.items()}
    counts: dict[Domain, int] = {domain: int(value) for domain, value in exact.items()}
    by_remainder = sorted(shares, key=lambda domain: counts[domain] - exact[domain])
    for domain in by_remainder[: n - sum(counts.values())]:
        counts[domain] += 1
    return counts


def _opening(sentence: _Sentence, words: int) -> str | None:
    """The sentence's first `words` words, if they are neutral and enough of the sentence follows."""
    allowed = sentence.neutral_words >= words and len(sentence.text.split()) >= words + _WORDS_AFTER
    return opening_of(sentence.text, words) if allowed else None


def _with_openings(
    sentences: Sequence[_Sentence],
    groups_of: Callable[[Sequence[_Sentence]], Iterator[Sequence[_Sentence]]],
    rng: random.Random,
) -> Iterator[tuple[Sequence[_Sentence], str | None]]:
    """Groups, by `groups_of`, of sentences that share an opening, and the opening; no sentence is used twice."""
    used: set[str] = set()
    for words in _SHARED_OPENINGS:
        sharing: defaultdict[str, list[_Sentence]] = defaultdict(list)
        for sentence in sentences:
            if sentence.text not in used and (opening := _opening(sentence, words)):
                sharing[opening.casefold()].append(sentence)
        for sharers in sharing.values():
            for group in groups_of(sharers):
                used |= {sentence.text for sentence in group}
                # As written in one of them at random: its capitals must not reveal the better one.
                yield group, _opening(rng.choice(group), words)


def _partners(sentences: Sequence[_Sentence], min_gap: float, *, limit: int) -> Iterator[tuple[_Sentence, _Sentence]]:
    """Up to `limit` pairs of sentences that differ by more than `min_gap`, none used twice, in the given order."""
    waiting = list(reversed(sentences))
    while waiting and limit > 0:
        a = waiting.pop()
        for i in reversed(range(len(waiting))):
            b = waiting[i]
            if abs(fmean(a.votes) - fmean(b.votes)) > min_gap and similarity(a.text, b.text) < NEAR_DUPLICATE:
                yield a, waiting.pop(i)
                limit -= 1
                break


def _groups(sentences: Sequence[_Sentence], k: int, *, limit: int) -> Iterator[list[_Sentence]]:
    """Up to `limit` groups of k sentences, none used twice and no near copies in one, in the given order."""
    waiting = list(reversed(sentences))
    while len(waiting) >= k and limit > 0:
        group = [waiting.pop()]
        for i in reversed(range(len(waiting))):
            if all(similarity(waiting[i].text, other.text) < NEAR_DUPLICATE for other in group):
                group.append(waiting.pop(i))
            if len(group) == k:
                yield group
                limit -= 1
                break


def _prompt(domain: Domain, opening: str | None, rng: random.Random) -> list[dict[str, str]]:
    request, start = rng.choice(_REQUESTS[domain]), rng.choice(_START)
    return _message("user", request if opening is None else f"{request} {start.format(opening)}")


def _message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def _begins_one(texts: Sequence[str], opening: str) -> bool:
    """Whether one of the texts (normalised, a space after each, sorted) begins with the words of `opening`."""
    words = f"{normalise(opening)} "
    position = bisect_left(texts, words)
    return position < len(texts) and texts[position].startswith(words)
