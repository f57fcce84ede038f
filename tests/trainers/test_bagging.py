"""Bags of rows: what is drawn, and that no prompt is on both sides."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from hf_align.trainers.bagging import FEWEST_PROMPTS, draw_bag, row_groups, rows_by_prompt


def test_a_bag_is_a_draw_with_replacement_by_its_seed():
    groups = [[number] for number in range(2000)]
    bag = draw_bag(groups, 0.8, seed=3)
    assert bag.unit == "rows" and len(bag.rows) == 1600 and bag.rows == sorted(bag.rows)
    assert sorted({*bag.rows, *bag.left_out}) == list(range(2000)) and not {*bag.rows} & {*bag.left_out}
    # A row is drawn k times with the probability of a Poisson variable of mean .8, up to 1/2000.
    times = Counter(Counter(bag.rows).values())
    assert len(bag.left_out) / 2000 == pytest.approx(math.exp(-0.8), abs=0.03)
    assert times[2] / 2000 == pytest.approx(0.32 * math.exp(-0.8), abs=0.03)
    assert draw_bag(groups, 0.8, seed=3) == bag and draw_bag(groups, 0.8, seed=4).rows != bag.rows
    everything = draw_bag(groups, None, seed=3)
    assert everything.rows == list(range(2000)) and everything.left_out == []


def test_rows_of_a_prompt_stay_together_unless_there_are_few():
    prompts = [number % FEWEST_PROMPTS for number in range(3 * FEWEST_PROMPTS)]
    bag = draw_bag(row_groups(prompts), 0.8, seed=0)
    assert bag.unit == "prompts" and len(bag.rows) == 3 * round(0.8 * FEWEST_PROMPTS)
    assert not {prompts[row] for row in bag.rows} & {prompts[row] for row in bag.left_out}
    assert row_groups(["a", "b", "a"]) == [[0], [1], [2]], "a bag of two prompts may lack one of them"
    assert rows_by_prompt(["a", "b", "a"]) == [[0, 2], [1]]
    assert draw_bag([[0], [1]], 0.1, seed=0).rows in ([0], [1]), "something is drawn"
