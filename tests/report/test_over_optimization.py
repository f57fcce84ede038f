"""The picture of reward and judge along KL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hf_align.evaluation.over_optimization import best_of_n_course
from hf_align.files import finite
from hf_align.report.over_optimization import draw_course


@pytest.mark.parametrize("prompts", [30, 3])  # bands only from ten prompts
def test_both_curves_and_the_fitted_form_are_drawn(prompts: int, tmp_path: Path) -> None:
    proxy = np.random.default_rng(0).normal(size=(prompts, 64))
    figures = finite(best_of_n_course(list(proxy), list(proxy - 0.6 * proxy**2)).figures(resamples=50))
    assert figures["fit"]["turns"]
    assert draw_course(figures, tmp_path / "course.png") and (tmp_path / "course.png").stat().st_size > 10_000


def test_one_point_is_no_course(tmp_path: Path) -> None:
    figures = best_of_n_course([[1.0]], [[2.0]]).figures(resamples=5)
    assert not draw_course(figures, tmp_path / "course.png") and not (tmp_path / "course.png").exists()
