"""Live training curves, in a notebook cell or a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_align.errors import UserError
from hf_align.files import whole_file
from hf_align.report.curves import curves_of, curves_png
from hf_align.report.pictures import can_draw

PICTURE = "training_curves.png"


class CurvesCallback(TrainerCallback):
    """Plot a run's logs while it trains: one image that is updated in a notebook, elsewhere a file.

    Works with any `Trainer`: `XTrainer(..., callbacks=[CurvesCallback()])`. It needs matplotlib (`hf-align[report]`).
    Evaluations are drawn as dots, including those after training.

    Args:
        metrics: Logged names, such as "loss" and "grad_norm". Default: the main curves of the trainer's algorithm.
        path: The PNG. Default: none in a notebook, else `training_curves.png` in `output_dir`, which the model card
            also shows.
        every: Minimum seconds between two updates. Default: 5. Evaluations and the end of training are drawn at once.

    Raises:
        UserError: matplotlib isn't installed.

    Example:
        >>> from pathlib import Path
        >>> from hf_align import CurvesCallback, DPOConfig, DPOTrainer
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = DPOConfig("out", max_steps=2, logging_steps=1)
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = DPOTrainer(model, args=config, train_dataset=rows, callbacks=[CurvesCallback()])
        >>> trainer.train()
        >>> Path("out/training_curves.png").exists()
        True
    """

    def __init__(self, metrics: Iterable[str] | None = None, path: str | Path | None = None, every: float = 5.0):
        if isinstance(metrics, str):
            raise UserError(f"metrics is the text {metrics!r}; CurvesCallback takes a list of names.")
        self.metrics = None if metrics is None else [(name, name) for name in metrics]
        self.path = None if path is None else Path(path)
        self.every = every
        self._drawn = float("-inf")
        self._training = False
        self._display: Any = None
        if not can_draw():
            raise UserError('CurvesCallback needs matplotlib: pip install "hf-align[report]".')

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a new image in the running cell."""
        self._training, self._display = True, None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw, unless the last update is too recent."""
        if not self._training or time.monotonic() - self._drawn >= self.every:
            self._draw(args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw the evaluation."""
        self._draw(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the whole run."""
        self._training = False
        self._draw(args, state)

    def _draw(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        picture = curves_png(state.log_history, tuple(self.metrics or curves_of(state.log_history)))
        if picture is None:
            return
        self._drawn = time.monotonic()
        notebook = _in_notebook()
        if notebook:
            ipython = import_module("IPython.display")  # not a dependency: this process runs inside it
            image = ipython.Image(data=picture)
            if self._display is None:
                self._display = ipython.display(image, display_id=True)
            else:
                self._display.update(image)
        path = self.path or (None if notebook else Path(str(args.output_dir)) / PICTURE)
        if path is not None:
            with whole_file(path) as unfinished:
                unfinished.write_bytes(picture)


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel; IPython in a terminal can't show images."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None
