"""Judges named on the command line, for reports that take scores as well as comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_align.evaluation.policy_judges import judge_name
from hf_align.experiments.recipe import read_value
from hf_align.feedback.judges.named import NamedJudge, check_judge
from hf_align.rewards.named import read_reward
from hf_align.rewards.vader import VADER


def read_judge(text: str, place: str = "judge") -> NamedJudge:
    """A judge written as a flag: a name, or a mapping as in a recipe, `{model: ORG/MODEL, calibrate: pairs.jsonl}`.

    Raises:
        UserError: As `check_judge`.
    """
    return check_judge(read_value(text, place) if text.lstrip().startswith("{") else text, place)


def judges_of_report(texts: Sequence[str]) -> dict[str, Any]:
    """Judges of `policy_report` by what the report calls them.

    A reward is given as it is: it scores each response, also that of a single policy. Any other judge, and a reward
    with a band of ties, compares pairs.

    Args:
        texts: Each as in `read_judge`.

    Raises:
        UserError: As `read_judge`.
    """
    named = [read_judge(text) for text in texts]
    labels = [judge_name(each.name) for each in named]
    if len(set(labels)) < len(set(texts)):
        labels = list(texts)
    return {label: scores_or_judge(each) for label, each in zip(labels, named, strict=True)}


def scores_or_judge(judge: NamedJudge) -> Any:
    """A judge's scores where it has some, `VADER` or a reward as `read_reward` gives it; else the judge of pairs."""
    if judge.kind != "reward" or judge.values.get("tie_band") is not None:
        return judge
    reward = judge.values["reward"]
    return VADER if reward == VADER else read_reward(reward, judge.place)
