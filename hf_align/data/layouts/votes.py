"""Single votes on two responses: the words they are given in, and all votes on a pair in one row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from hf_align.data.layouts.layout import Made, Tally, Unusable

TIE, BOTH_BAD, SKIPPED = "tie", "both bad", "skipped"
_FILLER = set("model assistant response answer option output completion text reply candidate summary".split())
_FILLER |= set("conversation is was are the wins won win winner better best preferred prefer chosen much".split())
_FILLER |= {"slightly", "vote"}
_FIRST, _SECOND = {"a", "left", "first", "1", "leftvote"}, {"b", "right", "second", "2", "rightvote"}
_TIES = {
    "tie",
    "ties",
    "tied",
    "tievote",
    "draw",
    "equal",
    "equally",
    "same",
    "both",
    "neither",
    "either",
    "preference",
}
_BAD = {"bad", "bothbad", "worse", "neither"}
_SKIPPED = {"skip", "skipped", "unsure", "unclear", "none", "null"}
_SIGNS = re.compile(r"\W*(?:a\s*(>+|<+|=+)\s*b|b\s*(>+|<+|=+)\s*a)\W*")


def verdict_of(word: Any) -> float | str | None:
    """What a vote in words says.

    Returns:
        1.0 for the first response, 0.0 for the second, `TIE`, `BOTH_BAD`, `SKIPPED`; None if it says none of these.

    Example:
        >>> from hf_align.data.layouts.votes import verdict_of
        >>> [verdict_of(word) for word in ("model_a", "Response B is better", "A<<B", "tie (bothbad)", "green")]
        [1.0, 0.0, 0.0, 'both bad', None]
    """
    if word is None or (isinstance(word, str) and not word.strip()):
        return SKIPPED
    if not isinstance(word, str):
        return None
    text = word.lower()
    if match := _SIGNS.fullmatch(text):
        sign = match[1] or match[2]
        return TIE if "=" in sign else float((">" in sign) == bool(match[1]))
    words = set(re.findall(r"[a-z0-9]+", text)) - _FILLER
    if words & _BAD and words & (_TIES | {"bothbad"}) and words <= _BAD | _TIES:
        return BOTH_BAD
    if words & _TIES and words <= _TIES | {"good", "no"} and words != {"preference"}:
        return TIE
    if words and (words <= _SKIPPED or re.fullmatch(r"n\W?a", text.strip())):
        return SKIPPED
    return 1.0 if words and words <= _FIRST else 0.0 if words and words <= _SECOND else None


@dataclass(frozen=True)
class Vote:
    """One person's answer to which of two responses is better.

    Attributes:
        prompt: Of both responses.
        first: A response.
        second: The other.
        verdict: 1 for the first, 0 for the second, `TIE`, `BOTH_BAD` or `SKIPPED`.
        annotator: Who voted; None if that isn't known.
        others: Other columns.
        each: Values of the two responses by name, as in `Tally.compare`.
    """

    prompt: Any
    first: Any
    second: Any
    verdict: float | str
    annotator: str | None = None
    others: Made = field(default_factory=dict)
    each: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.annotator is not None and not isinstance(self.annotator, str | int | float):
            raise Unusable("an annotator that is neither text nor number")


def read_verdict(word: Any, name: str) -> float | str:
    """`verdict_of` a column's value.

    Raises:
        Unusable: It says nothing of two responses.
    """
    verdict = verdict_of(word)
    if verdict is None:
        raise Unusable(f"a {name} that names neither response nor a tie")
    return verdict


def decide(vote: Vote, tally: Tally) -> list[Made]:
    """Pairs of a vote that stands for itself; see `Tally.compare`."""
    if vote.verdict == SKIPPED:
        tally.drop("comparisons without an answer")
        return []
    if vote.verdict == BOTH_BAD and tally.ties == "drop" and vote.first != vote.second:
        tally.drop("ties with both responses bad")
        return []
    preference = 0.5 if isinstance(vote.verdict, str) else vote.verdict
    return tally.compare(vote.prompt, vote.first, vote.second, preference, vote.others, each=vote.each)


def count(
    tally: Tally, vote: Vote, votes: Sequence[float], annotators: Sequence[str | None] | None, others: Made
) -> Iterator[Made]:
    """Pairs of all votes on two responses, the one that more people prefer first, with `votes` of this order.

    Args:
        tally: Counts what is left out.
        vote: Prompt, responses and their values.
        votes: 1 for the first response, 0 for the second, 0.5 for a tie.
        annotators: Who gave them; None if that isn't known of any.
        others: Other columns.
    """
    share = fmean(votes)
    made = tally.compare(vote.prompt, vote.first, vote.second, share, others, each=vote.each)
    for pair, forward in zip(made, [share >= 0.5, False], strict=False):
        oriented = [float(each if forward else 1 - each) for each in votes]
        yield {**pair, "votes": oriented} | ({} if annotators is None else {"annotators": list(annotators)})


def gather(votes: Iterable[Vote], tally: Tally) -> Iterator[Made]:
    """One row for each pair of responses, with `votes` and `annotators`, in the order of the pairs' first votes.

    The order of the two responses doesn't matter. Of several votes of one annotator on a pair the last counts. Other
    columns that differ between the votes on a pair become lists, in the order of the votes. Without annotators and
    with one vote on each pair, the rows are pairs without `votes`.
    """
    pairs: dict[str, dict[Any, Vote]] = {}
    for number, vote in enumerate(votes):
        if vote.verdict == SKIPPED:
            tally.drop("comparisons without an answer")
            continue
        by_annotator = pairs.setdefault(_key(vote), {})
        annotator = number if vote.annotator is None else vote.annotator
        tally.drop("earlier votes of the same annotator on the same pair", annotator in by_annotator)
        by_annotator.pop(annotator, None)
        by_annotator[annotator] = vote
    groups = [list(group.values()) for group in pairs.values()]
    listed = {name for group in groups for name in group[0].others if _differs(name, group)}
    named = any(vote.annotator is not None for group in groups for vote in group)
    plain = not named and max(map(len, groups), default=0) < 2
    for group in groups:
        first = group[0]
        if plain:
            yield from decide(first, tally)
            continue
        if len(group) == 1 and first.verdict == BOTH_BAD and tally.ties == "drop":
            tally.drop("ties with both responses bad")
            continue
        others = {
            name: [vote.others.get(name) for vote in group] if name in listed else value
            for name, value in first.others.items()
        }
        numbers = [_number(vote.verdict, vote.first == first.first) for vote in group]
        yield from count(tally, first, numbers, [vote.annotator for vote in group] if named else None, others)


def _key(vote: Vote) -> str:
    sides = sorted(json.dumps(side, sort_keys=True, default=str) for side in (vote.first, vote.second))
    return json.dumps([vote.prompt, *sides], sort_keys=True, default=str)


def _number(verdict: float | str, forward: bool) -> float:
    if isinstance(verdict, str):
        return 0.5
    return verdict if forward else 1 - verdict


def _differs(name: str, group: Sequence[Vote]) -> bool:
    return any(vote.others.get(name) != group[0].others.get(name) for vote in group)
