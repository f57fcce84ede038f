"""Krippendorff's alpha against the package `krippendorff` (GPL: a test's oracle only) and cases by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import krippendorff
import numpy as np
import pytest

from hf_align.data import Domain, load_ratings
from hf_align.data.agreement import UndefinedAgreement
from hf_align.data.answers import LEVELS, Level
from hf_align.errors import UserError
from hf_align.feedback import krippendorff_alpha, measure_agreement

NAN = math.nan


def random_table(seed: int, smallest: int = 0) -> np.ndarray:
    """2 to 8 raters, 3 to 40 units, 2 to 9 values, up to 60% gaps; no degenerate one."""
    rng = np.random.default_rng(seed)
    while True:
        shape = (int(rng.integers(2, 9)), int(rng.integers(3, 41)))
        truth = rng.integers(smallest, smallest + rng.integers(2, 10), shape[1])
        table = np.where(rng.random(shape) < rng.random(), truth, rng.permuted(np.tile(truth, (shape[0], 1)), axis=1))
        table = np.where(rng.random(shape) < rng.uniform(0, 0.6), NAN, table * rng.choice([1.0, 0.25]))
        paired = (~np.isnan(table)).sum(axis=0) > 1
        values = table[:, paired]
        if paired.sum() > 1 and len(np.unique(values[~np.isnan(values)])) > 1:
            return table


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_equals_the_reference_package(level: Level) -> None:
    for seed in range(200):
        table = random_table(seed, smallest=0 if level == "ratio" else -3)
        expected = krippendorff.alpha(table, level_of_measurement=level)
        assert krippendorff_alpha(table, level=level) == pytest.approx(expected, abs=1e-12), seed


@pytest.mark.parametrize("level", LEVELS)
def test_all_forms_of_a_table_give_one_alpha(level: Level) -> None:
    table = random_table(7)
    as_list = [[None if value != value else value for value in row] for row in table.tolist()]
    by_unit = {n: [value for value in column if value == value] for n, column in enumerate(table.T.tolist())}
    by_name = {f"unit {n}": {f"r{r}": v for r, v in enumerate(column)} for n, column in enumerate(table.T.tolist())}
    one = krippendorff_alpha(table, level=level)
    forms: list[Any] = [as_list, table.astype(object), by_unit, by_name]
    assert [krippendorff_alpha(form, level=level) for form in forms] == pytest.approx([one] * 4, abs=1e-14)


def test_labels_of_any_type_are_nominal_values() -> None:
    table = [["good", "bad", None, ("a", 1)], ["good", "good", "bad", ("a", 1)], ["good", "bad", "bad", ("a", 1)]]
    numbers = [[1, 0, None, 2], [1, 1, 0, 2], [1, 0, 0, 2]]
    assert krippendorff_alpha(table) == krippendorff_alpha(numbers)


def test_alpha_of_a_table_by_hand() -> None:
    # Values 1 1 | 0 1 | 0 0: 6 values, three of each. Observed: 2 of 6 ordered pairs differ. Expected: 18 of 30.
    result = measure_agreement([[1, 0, 0], [1, 1, 0]], "nominal", annotators=["anna", "ben"])
    assert result.alpha == pytest.approx(1 - (2 / 6) / (18 / 30))
    assert (result.raw, result.units, result.values, result.single) == (pytest.approx(2 / 3), 3, 6, 0)
    assert result.annotators["anna"].alpha == result.annotators["ben"].alpha == pytest.approx(result.alpha)


@pytest.mark.parametrize(
    ("domain", "alpha", "low", "high"),
    [("movies", 0.798, 0.795, 0.801), ("products", 0.821, 0.814, 0.827), ("tweets", 0.784, 0.775, 0.790)],
)
def test_alpha_of_the_embedded_ratings(domain: Domain, alpha: float, low: float, high: float) -> None:
    ratings = dict(enumerate(load_ratings(domain=domain)["ratings"]))
    result = measure_agreement(ratings, "interval")
    assert round(result.alpha, 3) == alpha
    assert result.interval == pytest.approx([low, high], abs=0.0025)


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_the_mean_over_annotators_by_values(level: Level) -> None:
    result = measure_agreement(random_table(3), level)
    of = [one for one in result.annotators.values() if one.values]
    for name in ("alpha", "raw"):
        mean = sum(getattr(one, name) * one.values for one in of) / sum(one.values for one in of)
        assert mean == pytest.approx(getattr(result, name), abs=1e-12)


def test_an_annotator_against_the_others_by_hand() -> None:
    # Carl contradicts everybody. Anna's values: 1 (others 1, 0), 0 (others 0, 1): half of the others' are the same.
    answers = {"a": {"anna": 1, "ben": 1, "carl": 0}, "b": {"anna": 0, "ben": 0, "carl": 1}, "c": {"anna": 1}}
    result = measure_agreement(answers, "nominal")
    assert [result.annotators[name].raw for name in ("anna", "ben", "carl")] == [0.5, 0.5, 0.0]
    # Expected: 3 ones and 3 zeros, 18 of 30 ordered pairs differ.
    assert result.annotators["carl"].alpha == pytest.approx(1 - 1 / 0.6)
    assert result.annotators["anna"].alpha == pytest.approx(1 - 0.5 / 0.6)
    assert (result.annotators["anna"].values, result.single) == (2, 1)


def test_agreement_within_a_group_is_that_of_its_units_alone() -> None:
    table = random_table(11)
    groups = ["even" if n % 2 == 0 else "odd" for n in range(table.shape[1])]
    result = measure_agreement(table, "interval", groups=groups)
    assert result.groups["even"].alpha == krippendorff_alpha(table[:, ::2], level="interval")
    assert result.groups["odd"].interval == measure_agreement(table[:, 1::2], "interval").interval


@pytest.mark.parametrize("level", LEVELS)
def test_the_interval_holds_alphas_of_resampled_units(level: Level) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 60)
    table = np.clip(truth + rng.integers(-1, 2, (4, 60)), 0, 5).astype(float)
    table[rng.random(table.shape) < 0.2] = NAN
    drawn = [krippendorff_alpha(table[:, rng.integers(0, 60, 60)], level=level) for _ in range(400)]
    assert measure_agreement(table, level).interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.025)


def test_bundles_of_many_units_give_the_interval_of_the_units() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, 12_000)
    table = (truth + rng.integers(-1, 2, (3, 12_000))).astype(float)
    low, high = measure_agreement(table, "interval").interval
    # By the central limit: the standard error from alphas of 60 parts of 200 units.
    parts = [krippendorff_alpha(table[:, n::60], level="interval") for n in range(60)]
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(parts) / np.sqrt(60), rel=0.3)


DEGENERATE: dict[str, tuple[Any, str, float]] = {
    "no table": ([], "no values", NAN),
    "only gaps": ([[None, NAN], [None, None]], "no values", NAN),
    "one rater": ([[1, 2, 3]], "only one rater", NAN),
    "one rater with values": ([[1, 2, 3], [None, None, None]], "only one rater", NAN),
    "no unit with two": ([[1, None], [None, 2]], "no unit has two values", NAN),
    "lists of one": ({"a": [1], "b": [2], "c": []}, "no unit has two values", NAN),
    "one value": ([[3, 3, 3], [3, 3, None]], "all 4 values that can be compared are the same", 1.0),
    "one value where compared": ([[3, 3, 1], [3, 3, None]], "all 4 values", 1.0),
    "one unit": ([[1], [2], [1]], "only one unit", 1 / 3),
    "one unit compared": ({"a": [1, 2], "b": [2]}, "only one unit", 0.0),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("level", LEVELS)
def test_a_degenerate_table_is_answered_with_a_sentence(case: str, level: Level) -> None:
    table, reason, raw = DEGENERATE[case]
    with pytest.warns(UndefinedAgreement, match=reason) as warned:
        assert math.isnan(krippendorff_alpha(table, level=level))
    assert len(warned) == 1
    result = measure_agreement(table, level)
    assert math.isnan(result.alpha) and all(map(math.isnan, result.interval))
    assert result.raw == pytest.approx(raw, nan_ok=True)
    assert result.sentence.startswith("alpha is undefined: ") and result.to_dict()["alpha"] is None
    if raw == raw:
        assert f"raw agreement is {raw:.3f}" in result.sentence


def test_a_skewed_table_has_alpha_0_and_its_raw_agreement_beside_it() -> None:
    table = [[1] * 50, [1] * 49 + [0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert krippendorff_alpha(table) == pytest.approx(0, abs=1e-12)
    result = measure_agreement(table)
    assert result.raw == pytest.approx(0.98)
    assert "99% of the values are the same" in result.sentence and "raw agreement is 0.980" in result.sentence


@pytest.mark.parametrize(
    ("table", "level", "message"),
    [
        ([1, 2, 3], "nominal", "raters x units"),
        (np.zeros(3), "nominal", "raters x units"),
        ([[1, 2], [1]], "nominal", "mapping from each unit to its list of values"),
        ([["low", "high"], ["low", "low"]], "ordinal", "number the categories in their order"),
        ([[1, 2], [1, math.inf]], "interval", "rater 1, unit 1: inf is NaN or infinite"),
        (np.array([[1, 2], [1, math.inf]]), "interval", "rater 1, unit 1: inf is NaN or infinite"),
        ([[1, 2], [1, -2]], "ratio", "rater 1, unit 1: -2 is below 0"),
        ([[1, 2], [1, [2]]], "nominal", "no label"),
        ({"a": [1, 2], "b": 3}, "interval", "unit 'b' has int 3, not a list of values"),
        ([[1, 2], [1, 2]], "cardinal", "level is 'cardinal'; use one of nominal, ordinal, interval, ratio"),
    ],
)
def test_a_malformed_table_is_refused(table: Any, level: Any, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        krippendorff_alpha(table, level=level)


def test_names_and_groups_that_do_not_fit_are_refused() -> None:
    table = [[1, 2], [1, 2]]
    with pytest.raises(UserError, match="annotators has 1 names"):
        measure_agreement(table, annotators=["anna"])
    with pytest.raises(UserError, match="no label for unit 1"):
        measure_agreement(table, groups=["x"])


def test_alpha_does_not_depend_on_the_order_of_raters_and_units_or_the_unit_of_numbers() -> None:
    table = random_table(5)
    one = measure_agreement(table, "interval")
    for change in (table[::-1], table[:, ::-1], 10 * table + 4):
        assert krippendorff_alpha(change, level="interval") == pytest.approx(one.alpha, abs=1e-12)
    assert krippendorff_alpha(np.exp(table), level="ordinal") == pytest.approx(
        krippendorff_alpha(table, level="ordinal"), abs=1e-12
    )
