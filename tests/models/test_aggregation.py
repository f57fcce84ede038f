"""One score of several members' scores, against numpy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from hf_align.errors import UserError
from hf_align.models.aggregation import METHODS, aggregate, check_method


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 10])
def test_rules_agree_with_numpy_and_scipy_for_any_number_of_members(members: int):
    values = np.random.default_rng(members).normal(size=(members, 7))
    scores = torch.tensor(values)
    weights = np.arange(1.0, members + 1)
    expected = {
        "mean": values.mean(0),
        "median": np.median(values, 0),
        "min": values.min(0),
        "uncertainty_weighted": values.mean(0) - 0.7 * values.var(0),
    }
    for method, result in expected.items():
        np.testing.assert_allclose(aggregate(scores, method, uncertainty_coef=0.7), result, rtol=1e-12)
    np.testing.assert_allclose(
        aggregate(scores, "mean", weights=weights.tolist()), np.average(values, 0, weights), rtol=1e-12
    )
    for trim in (0.2, 0.34, 0.49):
        if int(trim * members):
            np.testing.assert_allclose(
                aggregate(scores, "trimmed_mean", trim=trim), stats.trim_mean(values, trim), rtol=1e-12
            )
    alone = torch.cat([aggregate(scores[:, n : n + 1], "mean", weights=weights.tolist()) for n in range(7)])
    assert torch.equal(alone, aggregate(scores, "mean", weights=weights.tolist()))


@pytest.mark.parametrize(
    ("method", "members", "settings", "fix"),
    [
        ("average", 2, {}, "use one of mean, median"),
        ("mean", 2, {"weights": [1.0]}, "give one for each"),
        ("mean", 2, {"weights": [1.0, -1.0]}, "finite numbers from 0"),
        ("mean", 2, {"weights": [0.0, 0.0]}, "not all 0"),
        ("min", 2, {"weights": [1.0, 1.0]}, "leave them out"),
        ("trimmed_mean", 4, {}, "cuts none at either end, which would be the mean; give trim=0.25"),
        ("trimmed_mean", 3, {}, "give trim=0.34"),
        ("trimmed_mean", 2, {"trim": 0.4}, "3 members or more"),
        ("trimmed_mean", 9, {"trim": 0.5}, "below 0.5"),
        ("uncertainty_weighted", 2, {"uncertainty_coef": -1.0}, "from 0"),
        ("mean", 0, {}, "at least one reward model"),
        ("mean", 4, {"weights": "1234"}, "weights is '1234'; give a list of numbers"),
        ("mean", 2, {"weights": 4}, "weights is 4; give a list of numbers"),
        ("mean", 2, {"weights": ["a", 1.0]}, "weights are .*; give a list of numbers"),
        ("mean", 2, {"trim": "x"}, "trim is 'x'; give a number"),
        ("mean", 2, {"uncertainty_coef": None}, "uncertainty_coef is None; give a number"),
    ],
)
def test_settings_without_meaning_are_refused_with_a_fix(method: str, members: int, settings: Any, fix: str):
    with pytest.raises(UserError, match=fix):
        check_method(method, members, **settings)


def test_methods_that_need_more_than_scores_are_no_rules():
    for method in METHODS[5:]:
        with pytest.raises(UserError, match="no rule on scores alone"):
            aggregate(torch.zeros(2, 3), method)
    with pytest.raises(ValueError, match=r"\[members, responses\]"):
        aggregate(torch.zeros(3), "mean")
