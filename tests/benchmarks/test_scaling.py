from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import Point, measure
from benchmarks.scaling import draw, exponents


def curve(power: float) -> list[dict[str, float]]:
    return [{"x": x, "seconds": 3 * x**power, "bytes": 5.0 * x, "operations": 7.0 * x**2} for x in (1, 2, 4, 8)]


def test_exponents_of_powers():
    assert exponents(curve(1.5)) == pytest.approx({"seconds": 1.5, "bytes": 1.0, "operations": 2.0})


def test_the_plot_is_a_png(tmp_path: Path):
    curves = {"tokens": curve(2), "vocabulary": curve(1)}
    path = tmp_path / "images" / "growth.png"
    draw(curves, {axis: exponents(points) for axis, points in curves.items()}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_point_is_measured_and_counts_its_tokens():
    point = Point(prompt=8, response=4, branches=3, documents=2, vocabulary=64, hidden=16, layers=1)
    result = measure(point)
    assert result["tokens"] == 2 * (8 + 3 * 4)
    assert result["seconds"] > 0 and isinstance(result["bytes"], int)
    head = 2 * 2 * (2 * 3 * 4) * 16 * 64  # forward and backward, 24 response tokens, hidden size times vocabulary
    larger = measure(replace(point, vocabulary=128))
    assert larger["operations"] - result["operations"] == head
