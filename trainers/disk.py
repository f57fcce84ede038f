"""What a run writes: its checkpoints, the saved model and the run's record, and the most that lies there at a time."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from hf_align.errors import UserError
from hf_align.numbers import plural, shown_size
from hf_align.trainers.optimizers import optimizer_memory

TOKENIZER = 135
"""Bytes of `tokenizer.json` an entry of the vocabulary: Llama 3's and Gemma 2's have so many, SmolLM2's 72."""
SMALL_FILES = 2**17
"""Bytes of the configs, card, generators and schedule, and of an empty record; each at most."""
LOGGED = {"checkpoint": 40.0, "record": 100.0}
"""Bytes of a logged number in `trainer_state.json` and in `run.sqlite`."""
NUMBERS = {"pairs": 20, "rollouts": 30}
"""Numbers that a log has: of a preference or reward trainer, and of one that samples."""
PER_TOKEN = 8 + 6 * 4
"""Bytes of a sampled token in a saved rollout: its id, and six numbers."""


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes that a run writes into its `output_dir`.

    Attributes:
        checkpoint: One checkpoint: weights, optimizer, tokenizer and state.
        kept: Checkpoints that are kept in the end.
        most: Checkpoints that there are at a time: one more while the oldest makes room for the newest.
        model: The model saved at the end.
        record: `run.sqlite`.
        others: What members trained before have left, of an ensemble.
    """

    checkpoint: float
    kept: int
    most: int
    model: float
    record: float
    others: float = 0.0

    @property
    def peak(self) -> float:
        """The most that lies there at a time."""
        return self.others + self.record + max(self.most * self.checkpoint, self.kept * self.checkpoint + self.model)

    @property
    def left(self) -> float:
        """What stays there after the run."""
        return self.others + self.record + self.kept * self.checkpoint + self.model

    def of_members(self, count: int) -> DiskNeeds:
        """What an ensemble of so many models trained one after another writes: checkpoints of all stay."""
        return replace(self, others=(count - 1) * self.left)

    def describe(self) -> str:
        """The figures in words."""
        saved = f"the saved model {shown_size(self.model)}, the record {shown_size(self.record)}"
        saved += f", members before {shown_size(self.others)}" if self.others else ""
        if not self.most:
            return f"no checkpoints; {saved}"
        rotated = ", one more while they rotate" if self.most > self.kept else ""
        return f"{plural(self.kept, 'checkpoint')} of {shown_size(self.checkpoint)}{rotated}; {saved}"

    def problem(self, free: float) -> str | None:
        """Why the run doesn't fit into so many free bytes, with what to change; None if it does."""
        if self.peak <= free:
            return None
        wanted = f"this writes about {shown_size(self.peak)} ({self.describe()}), and {shown_size(free)} are free"
        return f"output_dir: {wanted}; set save_total_limit or save_only_model, or choose another folder"

    def check(self, free: float) -> None:
        """Refuse a run that doesn't fit into so many free bytes.

        Raises:
            UserError: It doesn't.
        """
        if (problem := self.problem(free)) is not None:
            raise UserError(problem)


def disk_needs(args: Any, model: nn.Module, steps: int | None, *, epochs: float | None = None) -> DiskNeeds:
    """What a run will write into its `output_dir`.

    A checkpoint has the weights that `save_model` writes (an adapter alone, or every weight), the optimizer's state by
    the name in `optim`, a moving reference, and of trainers that sample a rollout. At most `save_total_limit` are
    kept, two if the best one is kept besides the last, and one more until the new one is whole.

    Args:
        args: The trainer's config.
        model: The model to train, wrapped or not, with its adapter; may be on the meta device.
        steps: Optimizer steps of the run (`TrainerState.max_steps`). None: unknown, but enough to reach
            `save_total_limit`; without a limit one checkpoint is counted, and no logs.
        epochs: Its epochs, for `save_strategy="epoch"`. Default: `num_train_epochs`.

    Example:
        >>> from torch import nn
        >>> from hf_align.trainers import DPOConfig
        >>> from hf_align.trainers.disk import disk_needs
        >>> args = DPOConfig(output_dir="out", save_steps=10, save_total_limit=2, bf16=False)
        >>> needs = disk_needs(args, nn.Linear(1000, 1000), steps=100)
        >>> needs.kept, needs.most, round(needs.checkpoint / 1e6)  # the weights, and AdamW's two moments
        (2, 3, 12)
    """
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    is_adapter = any(isinstance(module, PeftModel) for module in model.modules())
    weights = float(sum(each.numel() * each.itemsize for each in (trained if is_adapter else parameters)))
    saved = weights + SMALL_FILES + TOKENIZER * _vocabulary(model)
    logs = steps / _interval(args.logging_steps, steps) if steps and args.logging_strategy != "no" else 0.0
    samples = hasattr(args, "responses_per_rollout")
    logged = logs * NUMBERS["rollouts" if samples else "pairs"]
    whole = saved + LOGGED["checkpoint"] * logged
    if not args.save_only_model:
        whole += optimizer_memory(str(args.optim.value), trained, args.device.type).state
    if getattr(args, "sync_ref_model", False):
        whole += 4.0 * sum(each.numel() for each in trained)
    if samples:
        tokens = args.max_new_tokens + (args.max_prompt_length or args.max_new_tokens) / 4
        whole += args.responses_per_rollout * args.world_size * tokens * PER_TOKEN
    limit = args.save_total_limit or 0
    written = limit + 1 if steps is None and args.save_strategy != "no" else _checkpoints(args, steps or 0, epochs)
    kept = written
    if limit:
        keeps_best = args.metric_for_best_model is not None or args.load_best_model_at_end
        kept = min(written, max(limit, 2 if keeps_best else 1))
    record = SMALL_FILES + LOGGED["record"] * logged
    return DiskNeeds(whole, kept, min(written, kept + 1), saved, record)


def free_bytes(folder: str | Path) -> int:
    """Free bytes where a folder is or would be."""
    place = Path(folder).absolute()
    return shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free


def _vocabulary(model: nn.Module) -> int:
    config: Any = getattr(model, "config", None)
    return getattr(config.get_text_config(), "vocab_size", 0) if hasattr(config, "get_text_config") else 0


def _checkpoints(args: Any, steps: int, epochs: float | None) -> int:
    """Checkpoints that a run writes if it saves all that it may; the last step of those saved by steps is one."""
    strategy, every = args.save_strategy.value, args.save_steps
    if strategy == "best":  # each evaluation may be the best so far
        strategy, every = args.eval_strategy.value, args.eval_steps or args.logging_steps
    if strategy == "no":
        return 0
    if strategy == "epoch":
        return min(steps, math.ceil(args.num_train_epochs if epochs is None else epochs))
    return math.ceil(steps / _interval(every, steps))


def _interval(every: float, steps: int) -> int:
    """Steps from one to the next, where below 1 a share of all."""
    return max(1, math.ceil(every * steps) if every < 1 else int(every))
