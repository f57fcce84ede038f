import numpy as np
import pytest

from hf_align.evaluation.preferred import best_and_worst, measure_domains, with_gain
from hf_align.statistics import Resampling

SCORES = {"base": [0.0, 0.0, 0.0, 0.0], "dpo": [3.0, 0.0, -1.0, 2.0]}


def test_the_gain_is_paired_by_prompt() -> None:
    resampling, unit = Resampling(4, resamples=200), np.arange(4)
    shifted = [value + 1 for value in SCORES["dpo"]]
    figures = with_gain("score", shifted, SCORES["dpo"], resampling, unit)
    assert figures["score"] == 2 and figures["gain_interval"] == pytest.approx([1, 1], abs=1e-6)
    assert "gain" not in with_gain("score", shifted, None, resampling, unit)


def test_every_part_of_the_data_has_its_win_rate() -> None:
    resampling, unit = Resampling(3, resamples=50), np.array([0, 1, 2, 2])
    figures = measure_domains(SCORES, "base", ["a", "a", "b", "b"], resampling, unit)
    assert figures is not None
    assert figures["a"]["policies"]["dpo"]["win_rate"] == 0.75 and figures["a"]["prompts"] == 2
    assert (figures["b"]["policies"]["dpo"]["gain"], figures["b"]["prompts"]) == (0.5, 1)
    assert measure_domains(SCORES, "base", ["all"] * 4, resampling, unit) is None


def test_prompts_are_listed_by_the_difference_of_scores_and_equal_ones_in_neither_list() -> None:
    texts = {name: [f"{name} {row}" for row in range(4)] for name in SCORES}
    lists = best_and_worst(["p", "q", [{"role": "user", "content": "r"}], "s"], texts, SCORES, ["all"] * 4, "base", 1)
    assert [row["row"] for row in lists["dpo"]["best"]] == [0] and list(lists) == ["dpo"]
    (worst,) = lists["dpo"]["worst"]
    assert (worst["prompt"], worst["response"], worst["reference_response"]) == ("r", "dpo 2", "base 2")
    assert (worst["score"], worst["reference_score"]) == (-1.0, 0.0)
