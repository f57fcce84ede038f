"""Curves as pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_align.algorithms import ALGORITHMS
from hf_align.report.curves import draw_curves

HISTORY = [{"step": step, "loss": 1 / step, "rewards/margins": float("nan")} for step in (1, 2, 3)]


def test_curves_are_a_picture_where_there_is_something_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "curves.png"
    assert not draw_curves(HISTORY[:1], ALGORITHMS["dpo"].curves, path) and not draw_curves(
        HISTORY, ALGORITHMS["ppo"].curves, path
    )
    assert not path.exists()
    assert draw_curves([*HISTORY, {"step": 3, "eval_loss": 0.4}], ALGORITHMS["dpo"].curves, path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000
    judged = [{"step": n, "eval_reward": n, "eval_judge": -n, "eval_objective/kl": n / 2} for n in (0, 2)]
    assert draw_curves([*HISTORY, *judged], ALGORITHMS["dpo"].curves, tmp_path / "judged.png")
    assert (tmp_path / "judged.png").stat().st_size > path.stat().st_size
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert not draw_curves(HISTORY, ALGORITHMS["dpo"].curves, tmp_path / "other.png")


def test_drawing_leaves_a_program_s_own_figures_alone(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from hf_align.report.curves import draw_curves; "
        "history = [dict(step=step, loss=1.0) for step in (1, 2)]; "
        f"draw_curves(history, [('loss', 'loss')], Path({str(tmp_path / 'x.png')!r})); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
