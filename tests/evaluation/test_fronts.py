"""Fronts: dominance, hypervolume, weights swept over samples, policies compared by several judges."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.evaluation.fronts import (
    dominated,
    front_of_policies,
    hypervolume,
    sweep_weights,
    weight_vectors,
)


def test_a_point_is_dominated_by_one_that_is_no_worse_anywhere_and_better_somewhere() -> None:
    points = [[1.0, 3.0], [2.0, 2.0], [2.0, 1.0], [3.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
    assert dominated(points).tolist() == [False, False, True, False, False, True]  # equal points don't dominate
    rng = np.random.default_rng(0)
    table = rng.integers(0, 4, (30, 3)).astype(float)
    brute = [any((other >= point).all() and (other > point).any() for other in table) for point in table]
    assert dominated(table).tolist() == brute


def test_the_hypervolume_is_the_area_by_hand_and_the_volume_by_counting_cells() -> None:
    # Steps above (0, 0): 1 x 3, 1 x 2 more, 1 x 1 more; a point below the reference adds nothing.
    assert hypervolume([[1, 3], [2, 2], [3, 1], [5, -1]], [0, 0]) == pytest.approx(6)
    assert hypervolume([[1, 3], [2, 2]], [1, 1]) == pytest.approx(1)
    assert hypervolume([[1, 1]], [2, 2]) == 0
    rng = np.random.default_rng(1)
    for width in (2, 3, 4):
        points = rng.integers(0, 5, (7, width))
        cells = sum(any(all(p > c for p, c in zip(point, cell, strict=True)) for point in points)
                    for cell in product(range(5), repeat=width))  # fmt: skip
        assert hypervolume(points, np.zeros(width)) == pytest.approx(cells)


def test_weights_cover_the_simplex() -> None:
    assert weight_vectors(2, 4) == [[0, 1], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [1, 0]]
    three = weight_vectors(3, 4)
    assert len(three) == 15 and all(sum(each) == pytest.approx(1) for each in three)
    assert len({tuple(each) for each in three}) == 15
    with pytest.raises(UserError, match="at least 2 objectives, got 1"):
        weight_vectors(1, 4)
    with pytest.raises(UserError, match="steps is 0"):
        weight_vectors(2, 0)


def test_the_best_sample_under_each_weight_is_what_counts() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 6)), 10 * rng.normal(size=(20, 6))
    front = sweep_weights({"a": list(a), "b": list(b)}, steps=4)
    for number, (first, second) in enumerate(weight_vectors(2, 4)):
        best = (first * a / a.std() + second * b / b.std()).argmax(1)
        assert front.scores[:, number, 0] == pytest.approx(a[np.arange(20), best])
        assert front.scores[:, number, 1] == pytest.approx(b[np.arange(20), best])
    figures = front.figures(resamples=100)
    values = np.asarray([point["values"] for point in figures["points"]])
    assert values[0, 1] == pytest.approx(b.max(1).mean()) and values[-1, 0] == pytest.approx(a.max(1).mean())
    assert (np.diff(values[:, 0]) >= 0).all() and (np.diff(values[:, 1]) <= 0).all()  # one is traded for the other
    assert figures["reference"] == pytest.approx([a.mean(), b.mean()])
    assert figures["hypervolume"] == pytest.approx(hypervolume(values, [a.mean(), b.mean()]))
    low, high = figures["hypervolume_interval"]
    assert low < figures["hypervolume"] < high
    middle = figures["points"][2]
    assert middle["on_front"] and 0.5 < middle["front_share"] <= 1
    assert all(low < value < high for value, (low, high) in zip(middle["values"], middle["intervals"], strict=True))
    few = sweep_weights({"a": list(a), "b": list(b)}, [[1.0, 0.0]], n=1)
    assert few.scores[:, 0, 1] == pytest.approx(b.mean(1)), "the best of one is any"


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ({"a": [[1.0]]}, {}, "at least 2 objectives, got 1"),
        ({"a": [[1.0]], "b": [[1.0], [2.0]]}, {}, "b has scores of 2 prompts and a of 1"),
        ({"a": [[1.0]], "b": [[1.0, 2.0]]}, {}, "prompt 0 has 2 samples scored by b and 1 by a"),
        ({"a": [[1.0]], "b": [[np.nan]]}, {}, "prompt 0 has a score by b that is NaN"),
        ({"a": [[1.0]], "b": [[1.0]]}, {"weights": [[1.0]]}, r"weights\[0\] is \[1.0\]; give a finite number for each"),
        ({"a": [[1.0]], "b": [[1.0]]}, {"n": 2}, "n is 2; give a number from 1 to 1"),
    ],
)
def test_samples_that_do_not_match_are_refused(samples: dict, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_weights(samples, **options)


def test_policies_are_compared_by_several_judges_and_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    means = {"base": (0, 0), "kind": (3, 1), "short": (1, 3), "<bad>": (0.5, 0.5)}
    table = {name: rng.normal(size=(40, 2)) + mean for name, mean in means.items()}
    scores = {
        objective: {name: each[:, place].tolist() for name, each in table.items()}
        for place, objective in enumerate(("helpful", "brief"))
    }
    front = front_of_policies(scores, reference="base")
    figures = front.figures(resamples=50)
    assert [point["on_front"] for point in figures["points"]] == [False, True, True, False]
    assert figures["reference_name"] == "base" and 3 < figures["hypervolume"] < 7
    worst = front_of_policies(scores).figures(resamples=50)
    assert worst["reference"] == pytest.approx([min(table[n][:, m].mean() for n in means) for m in (0, 1)])
    text = str(front)
    assert "2 of 4 points are on the front" in text and "above base" in text and "dominated" in text
    front.save(tmp_path / "front.json")
    assert json.loads((tmp_path / "front.json").read_text())["figures"]["points"][1]["label"] == "kind"
    front.save(tmp_path / "front.html")
    page = (tmp_path / "front.html").read_text()
    assert page.count('<circle class="dot"') == 4 and page.count('class="mean"') == 1, "only the front is joined"
    assert "&lt;bad&gt;" in page and "<bad>" not in page
    three = front_of_policies({**scores, "third": scores["brief"]})
    three.save(tmp_path / "three.html")
    assert (tmp_path / "three.html").read_text().count("<svg") == 3
    heights = []
    for name, each in (("two", front), ("three", three)):
        each.save(tmp_path / f"{name}.png")
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        heights.append(int.from_bytes(picture[20:24], "big"))
    assert heights[1] == 3 * heights[0], "a chart for each two objectives"
    with pytest.raises(UserError, match="saved as"):
        front.save(tmp_path / "front.txt")


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({"a": {"x": [1.0], "y": [1.0]}}, {}, "at least 2 objectives, got 1; give several judges"),
        ({"a": {"x": [1.0]}, "b": {"x": [1.0]}}, {}, "at least 2 policies, got 1"),
        ({"a": {"x": [1.0], "y": [1.0]}, "b": {"x": [1.0], "z": [1.0]}}, {}, "different policies or prompts"),
        ({"a": {"x": [1.0], "y": [1.0]}, "b": {"x": [1.0], "y": [1.0]}}, {"reference": "z"}, "isn't one of x, y"),
        ({"a": {"x": [1.0], "y": [1.0]}, "b": {"x": [1.0], "y": [np.inf]}}, {}, "NaN or infinite"),
    ],
)
def test_policies_that_cannot_be_compared_are_refused(scores: dict, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        front_of_policies(scores, **options)
