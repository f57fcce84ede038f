"""The chart of reward and judge along KL."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hf_align.evaluation.over_optimization import best_of_n_course
from hf_align.files import finite
from hf_align.report.over_optimization import course_chart, draw_course


@pytest.mark.parametrize("prompts", [30, 3])
def test_both_curves_the_fitted_form_and_the_turning_point_are_drawn(prompts: int, tmp_path: Path) -> None:
    proxy = np.random.default_rng(0).normal(size=(prompts, 64))
    figures = finite(best_of_n_course(list(proxy), list(proxy - 0.6 * proxy**2)).figures(resamples=50))
    chart = course_chart(figures)
    assert chart.count("<path") == (5 if prompts == 30 else 3)  # two lines and a form; bands only from ten prompts
    assert [text for text in ("reward", "judge", "judge, fitted form") if f">{text}</span>" not in chart] == []
    assert figures["fit"]["turns"] and "turns at KL" in chart
    assert chart.count("<circle") == 2 * len(figures["curve"]), "the form has no dots"
    first = re.findall(r'<circle class="dot" cx="([0-9.]+)" cy="([0-9.]+)"', chart)
    assert first[0] == first[len(figures["curve"])], "both gains start at 0"
    assert draw_course(figures, tmp_path / "course.png") and (tmp_path / "course.png").stat().st_size > 10_000


def test_one_point_is_no_course(tmp_path: Path) -> None:
    figures = best_of_n_course([[1.0]], [[2.0]]).figures(resamples=5)
    assert not draw_course(figures, tmp_path / "course.png") and not (tmp_path / "course.png").exists()
