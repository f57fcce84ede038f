"""Training curves as one PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_align.model_cards.facts import Kind

CURVES: dict[str, tuple[tuple[str, str], ...]] = {
    "reward": (("loss", "loss"), ("accuracy", "pairs ranked right"), ("margin", "difference of rewards")),
    "dpo": (("loss", "loss"), ("rewards/accuracies", "pairs ranked right"), ("rewards/margins", "reward margin")),
    "ppo": (
        ("objective/scores", "score"),
        ("objective/kl", "KL from the reference (nats)"),
        ("kl_coef", "KL coefficient"),
    ),
}
CURVES["ipo"] = CURVES["dpo"]
HELD_OUT = {"objective/scores": "eval_reward"}
"""Where an evaluation's name of a curve isn't `eval_` and the curve's."""


def draw_curves(history: Sequence[Mapping[str, Any]], kind: Kind, path: Path) -> bool:
    """Draw what a run logged, with held-out values as dots.

    Args:
        history: `trainer.state.log_history`.
        kind: Which curves.
        path: The PNG; it appears whole or not at all.

    Returns:
        Whether there is one now: not without matplotlib, nor without two logged steps.
    """
    series = []
    for name, title in CURVES.get(kind, ()):
        logged = _points(history, name)
        if len(logged) > 1:
            series.append((title, logged, _points(history, HELD_OUT.get(name, f"eval_{name}"))))
    if not series or find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure  # without pyplot: a program's own figures and backend stay as they are

    figure = Figure(figsize=(4 * len(series), 3), dpi=120, layout="constrained")
    for axes, (title, logged, held_out) in zip(figure.subplots(1, len(series), squeeze=False)[0], series, strict=True):
        axes.plot(*zip(*logged, strict=True), color="#2f6fb0", linewidth=1.5)
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o", color="#c4572a", markersize=4, label="held out")
            axes.legend(frameon=False)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    unfinished = path.with_name(f".{path.name}.unfinished")
    figure.savefig(unfinished, format="png", metadata={"Software": None})
    os.replace(unfinished, path)
    return True


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    found = [(entry["step"], entry[name]) for entry in history if name in entry and "step" in entry]
    return [(float(step), float(value)) for step, value in found if math.isfinite(value)]
