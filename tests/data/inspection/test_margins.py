import math
from typing import Any

import numpy as np
import pytest

from hf_align.data.inspection.inspect import inspect_preferences
from hf_align.data.inspection.margin import Margin
from hf_align.data.inspection.margins import Margins
from tests.data.inspection.checking import by_kind, found_by


def pair(**columns: Any) -> dict[str, Any]:
    return {"prompt": "p", "chosen": "a", "rejected": "b", **columns}


def test_rows_with_less_than_the_least_margin_are_listed() -> None:
    rows = [pair(margin=margin) for margin in (0.5, 0.19, 0.2, 0.0, None, -1.0, 3.0)]
    found = found_by(Margins, rows)
    finding = by_kind(found)["small_margin"]
    assert (list(finding.rows), finding.severity) == ([1, 3], "warning")
    assert finding.message == "2 of 5 rows have a margin below 0.2 (margin; median 0.2)."
    assert list(by_kind(found_by(Margins, rows, min_margin=1.0))["small_margin"].rows) == [0, 1, 2, 3]


def test_margins_are_described_with_bins_that_count_all_of_them() -> None:
    values = np.random.default_rng(0).exponential(size=300)
    margins = found_by(Margins, [pair(margin=value) for value in values]).metrics["margins"]
    assert margins["mean"] == pytest.approx(values.mean()) and margins["std"] == pytest.approx(values.std())
    assert margins["quartiles"] == pytest.approx(np.percentile(values, [25, 50, 75]).tolist())
    assert margins["clear_share"] == pytest.approx((values >= 0.2).mean())
    histogram = margins["histogram"]
    assert len(histogram["edges"]) == len(histogram["counts"][0]) + 1 and sum(histogram["counts"][0]) == 300
    assert found_by(Margins, [pair(margin=2.0)]).metrics["margins"]["histogram"]["counts"][0].count(1) == 1


@pytest.mark.parametrize(
    ("row", "margin", "source"),
    [
        (pair(margin=2, chosen_score=5, rejected_score=4.9), 2.0, "margin"),
        (pair(chosen_score=5, rejected_score=4.5), 0.5, "lead in chosen_score/rejected_score"),
        (pair(chosen_score=5, rejected_score=4.5, label=0.1), math.nan, "lead in chosen_score/rejected_score"),
        (pair(chosen_score=4, rejected_score=4.5, label=0.1), 0.5, "lead in chosen_score/rejected_score"),
        (pair(chosen_tokens=4, rejected_tokens=3, label=0.4), 0.2, "distance of label from a tie"),
        (pair(votes=[1.0, 1.0, 0.0, 0.5]), 0.25, "distance of votes from a tie"),
        (pair(), math.nan, ""),
        ({"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 4, 3.5]}, 3.0, "lead in scores"),
        ({"prompt": "p", "responses": ["a", "b"], "ratings": [[1, 2], [2, 4]]}, 1.5, "lead in ratings"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [0, 1]}, math.nan, ""),
    ],
)
def test_a_margin_is_what_the_rows_have_of_one(row: dict[str, Any], margin: float, source: str) -> None:
    assert Margin(list(row)).source == source
    found = found_by(Margins, [row])
    if math.isnan(margin):
        assert found.metrics == {"margins": None} and not found.findings
    else:
        assert found.metrics["margins"]["mean"] == pytest.approx(margin)


def test_the_least_margin_may_be_above_1() -> None:
    rows = [{"prompt": f"p {n}", "chosen": f"a {n}", "rejected": f"b {n}", "margin": float(n)} for n in range(4)]
    inspection = inspect_preferences(rows, min_margin=1.5)
    assert [list(each.rows) for each in inspection.findings if each.kind == "small_margin"] == [[0, 1]]
