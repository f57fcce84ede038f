"""Training curves while training goes on: in a notebook's cell, or in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_align.errors import UserError
from hf_align.files import whole_file
from hf_align.report.curves import curves_of, curves_png

PICTURE = "training_curves.png"


class CurvesCallback(TrainerCallback):
    """Draw what a run logs, again and again: one picture in a notebook that is replaced, elsewhere a file.

    Any `Trainer` takes it: `XTrainer(..., callbacks=[CurvesCallback()])`. It needs matplotlib (`hf-align[report]`).
    Evaluations show as dots, also those after training.

    Args:
        metrics: Names in the log, such as "loss" and "grad_norm". Default: those that matter for the trainer.
        path: The PNG. Default: none in a notebook, else `training_curves.png` in `output_dir`, which is also what the
            model card shows.
        every: Seconds between two pictures at least. Default: 5. Training's end and evaluations don't wait.

    Raises:
        UserError: Without matplotlib.

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
        if find_spec("matplotlib") is None:
            raise UserError('CurvesCallback needs matplotlib: pip install "hf-align[report]".')

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a new picture in the cell that runs now."""
        self._training, self._display = True, None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw, unless that was done just now."""
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
            ipython = import_module("IPython.display")  # no dependency: this process runs in it
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
    """Whether this process is a notebook's kernel: a terminal's IPython can't show pictures."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None
