"""Policies compared with the reference by a judge of pairs."""

from typing import Any

from hf_align.evaluation.pairwise import CHUNK, compare_with_reference
from hf_align.progress import Silent
from hf_align.rewards import Judgement, judge_orders


class Longer:
    """Prefers the longer response; always the first shown where they are of one length; None for no response."""

    name = "longer"

    def __init__(self):
        self.asked: list[int] = []

    def compare(self, prompts, firsts, seconds) -> list[Judgement]:
        self.asked.append(len(prompts))

        def ask(_: Any, shown_first: Any, shown_second: Any) -> list[float | None]:
            pairs = zip(shown_first, shown_second, strict=True)
            return [None if "" in (one, two) else 0.9 if len(one) >= len(two) else 0.2 for one, two in pairs]

        return judge_orders(ask, prompts, firsts, seconds)


def test_a_score_is_the_preference_over_the_references_response():
    texts = {"base": ["aa", "bb", "cc", "dd"], "new": ["aaa", "bb", "xx", ""], "old": ["a", "b", "c", "d"]}
    scores, counts = compare_with_reference(Longer(), ["p"] * 4, texts, "base", Silent(), "judging")
    assert scores["base"] == [0.5] * 4
    assert [round(score, 9) for score in scores["new"]] == [0.85, 0.5, 0.5, 0.5]
    assert [round(score, 9) for score in scores["old"]] == [0.15] * 4
    assert counts.to_json() == {"judged": 7, "flipped": 1, "no_opinion": 1}


def test_pairs_are_judged_in_parts_and_in_order():
    judge, count = Longer(), CHUNK + 3
    texts = {"base": ["aaa"] * count, "new": ["aa" if row % 3 else "aaaa" for row in range(count)]}
    scores, _ = compare_with_reference(judge, ["p"] * count, texts, "base", Silent(), "judging")
    assert [score > 0.5 for score in scores["new"]] == [row % 3 == 0 for row in range(count)]
    assert judge.asked == [CHUNK, 3]
