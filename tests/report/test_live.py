"""Curves drawn during training."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_align import CurvesCallback
from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.report.curves import curves_of, curves_png
from tests.hub.models import make_trainer
from tests.tiny import save_tiny


class Screen:
    """A notebook that records the displayed images."""

    def __init__(self) -> None:
        self.pictures: list[list[bytes]] = []

    def display(self, image: Any, display_id: bool) -> Any:
        assert display_id
        shown = [image.data]
        self.pictures.append(shown)
        return SimpleNamespace(update=lambda image: shown.append(image.data))


@pytest.mark.parametrize("kind", ["reward", "dpo", pytest.param("ipo", marks=pytest.mark.slow), "ppo"])
def test_every_trainer_draws_its_own_curves_into_a_file(kind: str, tmp_path: Path):
    save_tiny(tmp_path / "base")
    trainer = make_trainer(kind, tmp_path / "base", tmp_path / "out", logging_steps=1, report_to="none")
    trainer.add_callback(CurvesCallback())
    trainer.train()
    assert curves_of(trainer.state.log_history) == ALGORITHMS[kind].curves
    assert (tmp_path / "out" / "training_curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob(".*"))


def test_in_a_notebook_one_picture_is_replaced_as_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import IPython.display

    screen = Screen()
    monkeypatch.setattr(IPython.display, "display", screen.display)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace(kernel=object()))
    save_tiny(tmp_path / "base")
    trainer = make_trainer(
        "dpo", tmp_path / "base", tmp_path / "out", logging_steps=1, max_steps=4, report_to="none", eval_strategy="no"
    )
    trainer.add_callback(CurvesCallback(["loss", "grad_norm"], every=0.0))
    trainer.train()
    (shown,) = screen.pictures
    assert len(set(shown)) >= 3, "from the second step on there is something to draw"
    trainer.evaluate()
    assert len(screen.pictures) == 1 and shown[-1] != shown[0]
    assert not (tmp_path / "out" / "training_curves.png").exists()
    trainer.train()
    assert len(screen.pictures) == 2, "another run gets a picture of its own"


def test_pictures_come_no_faster_than_asked(tmp_path: Path):
    history: list[dict[str, float]] = [{"step": 0, "loss": 1.0}]
    path = tmp_path / "below" / "c.png"
    callback = CurvesCallback(path=path, every=3600.0)
    state = SimpleNamespace(is_world_process_zero=True, log_history=history)
    args = SimpleNamespace(output_dir=str(tmp_path))
    callback.on_train_begin(args, state, None)  # type: ignore[arg-type]
    pictures = []
    for step in range(1, 5):
        history.append({"step": step, "loss": 1.0 / step})
        callback.on_log(args, state, None)  # type: ignore[arg-type]
        pictures.append(path.read_bytes())
    assert set(pictures) == {curves_png(history[:2], (("loss", "loss"),))}
    callback.on_train_end(args, state, None)  # type: ignore[arg-type]
    assert path.read_bytes() == curves_png(history, (("loss", "loss"),))
    path.unlink()
    state.is_world_process_zero = False
    callback.on_train_end(args, state, None)  # type: ignore[arg-type]
    assert not path.exists()


def test_what_it_cannot_do_is_said_at_once(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="'loss'; CurvesCallback takes a list"):
        CurvesCallback("loss")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"hf-align\[report\]"):
        CurvesCallback()
