"""Judges that a recipe names, and judgements that are kept."""

from pathlib import Path
from typing import Any

import pytest

from hf_align.collators.rows import Side
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.experiments.improvement.evaluate import compare_texts
from hf_align.experiments.improvement.judging import RecipeJudge, StoredJudge, check_held_out
from hf_align.progress import Silent
from hf_align.rewards.judges import Judgement


class Counting:
    """A judge that prefers the longer text, flips on equal lengths, has no opinion of "?", and counts pairs."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def compare(self, prompts: Any, firsts: Any, seconds: Any) -> list[Judgement]:
        self.asked += len(prompts)
        return [self._one(first, second) for first, second in zip(firsts, seconds, strict=True)]

    def _one(self, first: Side, second: Side) -> Judgement:
        if "?" in (first, second):
            return Judgement(None)
        if len(first) == len(second):
            return Judgement(0.5, (1.0, 0.0))
        preference = float(len(first) > len(second))
        return Judgement(preference, (preference, preference))


def kept(judge: Counting, folder: Path, size: int = 2) -> StoredJudge:
    return StoredJudge("counting", judge, Parts(folder), size, Silent(), "judging")


def test_no_pair_is_judged_twice_and_what_comes_back_is_the_same(tmp_path: Path) -> None:
    prompts, firsts, seconds = ["p"] * 3, ["aa", "b", "?"], ["a", "c", "d"]
    first, again = Counting(), Counting()
    stored = kept(first, tmp_path)
    judged = stored.compare(prompts, firsts, seconds)
    assert [each.preference for each in judged] == [1.0, 0.5, None] and judged[1].flipped
    assert kept(again, tmp_path).compare(prompts, firsts, seconds) == judged
    assert (first.asked, again.asked) == (3, 0)
    figures = {"judgements": 3, "no_opinion": 1, "ties": 1, "tie_share": 0.5, "flipped": 1, "flip_share": 0.5}
    assert stored.figures() == figures
    kept(again, tmp_path).compare(prompts, firsts, ["a", "c", "other"])
    assert again.asked == 1, "a block without changes is found"


def test_equal_and_empty_texts_are_decided_without_the_judge() -> None:
    judge = Counting()
    new, old = ["same", "", "a", " ", "long", "?"], ["same", "b", "", "", "a", "b"]
    outcomes, no_opinion = compare_texts(judge, ["p"] * 6, new, old)
    assert outcomes == [0.5, 0.0, 1.0, 0.5, 1.0, 0.5] and no_opinion == 1 and judge.asked == 2


def test_a_judge_is_named_after_what_it_is_made_of_and_self_is_each_rounds_policy(tmp_path: Path) -> None:
    policy = RecipeJudge({"model": "self", "principle": "kindness"}, "judge", "4bit")
    assert policy.is_policy and policy.name == "self"
    assert policy.resolved("out/1") == {"quantization": "4bit", "principle": "kindness", "model": "out/1"}
    assert RecipeJudge("self", "judge").sources("org/m") == {"org/m"}
    weighted = RecipeJudge([{"reward": "org/a", "weight": 2}, "org/b"], "judge")
    assert weighted.name == "org/a, org/b" and not weighted.is_policy
    assert RecipeJudge({"endpoint": "gpt"}, "judge").name == "gpt"


@pytest.mark.parametrize(
    ("judge", "held_out", "message"),
    [
        ("org/a", "org/a", "held_out_judge has org/a, which judges the training's pairs, too"),
        ("org/a", {"reward": "org/a"}, "org/a"),
        (["org/b", {"reward": "org/a"}], {"reward": ["org/a"]}, "org/a"),
        ("./folder", "folder/", "folder"),
        ("judge.py:f", {"function": "./judge.py:f"}, "judge.py:f"),
        ("self", "start", "start"),
        ("vader", "self", "held_out_judge is the policy itself"),
        ("vader", {"model": "self"}, "held_out_judge is the policy itself"),
    ],
)
def test_a_held_out_judge_that_the_training_sees_is_refused(
    judge: Any, held_out: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("judge.py").write_text("")
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        check_held_out(RecipeJudge(judge, "judge"), RecipeJudge(held_out, "held_out_judge"), "start")


@pytest.mark.parametrize(("judge", "held_out"), [("vader", "org/a"), ("judge.py:f", "judge.py:g"), ("self", "vader")])
def test_two_different_judges_are_accepted(
    judge: str, held_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.py").write_text("")
    check_held_out(RecipeJudge(judge, "judge"), RecipeJudge(held_out, "held_out_judge"), "start")
