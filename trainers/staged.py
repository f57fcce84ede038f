"""Training in the stages of a curriculum: one dataloader over all of them, one loop, one schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.trainers.checkpoints import RESUME, check_checkpoint
from hf_align.trainers.curriculum import Curriculum, CurriculumSampler, Schedule, make_schedule, read_curriculum
from hf_align.trainers.difficulty import COLUMN, easiest_first
from hf_align.trainers.stream import RowStream

logger = logging.get_logger(__name__)


class StagedTrainer(Trainer):
    """A Trainer that follows `args.curriculum`, if there is one; its training rows have a column `difficulty`.

    To Trainer all stages are one epoch, so its loop, checkpoints and resuming apply as they are.
    """

    schedule: Schedule | None = None

    def set_up_stages(self) -> None:
        """Lay out the stages, after Trainer's constructor."""
        args, rows = self.args, self.train_dataset
        if args.curriculum is None or rows is None:  # type: ignore[attr-defined]
            return
        self.curriculum = read_curriculum(args.curriculum, batch=args.per_device_train_batch_size)  # type: ignore[attr-defined]
        self.schedule = make_schedule(
            self.curriculum,
            len(rows),  # type: ignore[arg-type]
            accumulation=args.gradient_accumulation_steps,
            processes=self.accelerator.num_processes,
        )
        self.remove_callback(StagesCallback)  # of a trial before
        self.add_callback(StagesCallback(self.schedule, self.curriculum))
        logger.info(f"curriculum: {self.describe_curriculum()}")

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's, or with a curriculum one over the batches of all its stages for this process."""
        if self.schedule is None:
            return super().get_train_dataloader()
        args, rows = self.args, self.train_dataset
        order = easiest_first(rows[COLUMN][:])  # type: ignore[index]
        seed: int = args.order_seed  # type: ignore[attr-defined]
        sampler = CurriculumSampler(self.schedule, order, process=args.process_index, seed=seed)
        # Not prepared by accelerate, which would divide the batches among processes once more.
        return DataLoader(
            rows,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )

    def num_examples(self, dataloader: DataLoader) -> int:
        """Rows that an epoch trains on; of a curriculum each as often as it does."""
        sampler = dataloader.batch_sampler
        return (
            sampler.schedule.rows_drawn if isinstance(sampler, CurriculumSampler) else super().num_examples(dataloader)
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Trainer's schedule over the whole run, times the curriculum's decay for each stage."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.schedule is None or self.curriculum.lr_decay == 1:
            return scheduler
        if not isinstance(scheduler, LambdaLR):
            raise UserError(
                f"lr_decay of the curriculum doesn't go with a {type(scheduler).__name__}; leave it out, or use a "
                "schedule by steps, such as 'linear'."
            )
        schedule, decay = self.schedule, self.curriculum.lr_decay

        def decayed(rate: Any) -> Any:
            return lambda step: rate(step) * decay ** schedule.stage_of(step)

        if self._created_lr_scheduler:
            scheduler.lr_lambdas = [decayed(rate) for rate in scheduler.lr_lambdas]
        return scheduler

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does; a run is resumed with the curriculum that it had.

        Raises:
            UserError: The checkpoint's run had another curriculum, one where this run has none, or none.
        """
        if resume_from_checkpoint not in (None, False):
            ours = None if self.schedule is None else self.curriculum.to_json()
            folder = check_checkpoint(resume_from_checkpoint, self.args)
            _check_resumed(folder, ours)
            resume_from_checkpoint = str(folder)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def describe_curriculum(self) -> str:
        """The stages in words, "" without a curriculum."""
        if self.schedule is None:
            return ""
        shown, stages = self.curriculum.to_json(), self.schedule.stages
        parts = [f"by {shown['difficulty']}", *(f"{each.steps} steps on {each.rows} rows" for each in stages)]
        if shown["lr_decay"] != 1:
            parts.append(f"learning rate times {shown['lr_decay']:g} from stage to stage")
        if shown["fresh_optimizer"]:
            parts.append("a fresh optimizer in each")
        return f"{len(stages)} stage{'s' if len(stages) > 1 else ''} {', '.join(parts)}"

    def current_pass(self) -> int:
        """Number of the pass over the rows that the current step is in, from 0."""
        if isinstance(self.train_dataset, RowStream):
            return 0  # its rows' numbers go on from pass to pass
        return int(self.state.epoch or 0) if self.schedule is None else self.schedule.pass_of(self.state.global_step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, with the stage (from 1) of the latest step."""
        if self.schedule is not None and "loss" in logs:
            logs["stage"] = self.schedule.stage_of(self.state.global_step - 1) + 1
        super().log(logs, start_time)


class StagesCallback(TrainerCallback, ExportableState):
    """What happens where a stage begins or ends; checkpoints hold the curriculum.

    Args:
        schedule: The run's.
        curriculum: That it was made of.
    """

    def __init__(self, schedule: Schedule, curriculum: Curriculum) -> None:
        self.curriculum, self.fresh_optimizer = curriculum, curriculum.fresh_optimizer
        self.firsts = [stage.first for stage in schedule.stages]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"args": {}, "attributes": {"curriculum": self.curriculum.to_json()}}

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Forget the optimizer's state at the first step of a stage, if that is asked for."""
        if self.fresh_optimizer and state.global_step in self.firsts[1:]:
            optimizer.state.clear()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log, evaluate and save by "epoch" at the end of every stage; Trainer does so at the end of the last."""
        if state.global_step in self.firsts[1:]:
            control.should_log |= args.logging_strategy == "epoch"
            control.should_evaluate |= args.eval_strategy == "epoch"
            control.should_save |= args.save_strategy == "epoch"


def _check_resumed(folder: Path, ours: dict[str, Any] | None) -> None:
    """Refuse a checkpoint of a run with another curriculum than `ours`."""
    saved = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8")).get("stateful_callbacks") or {}
    state = saved.get(StagesCallback.__name__)
    theirs = None if state is None else state["attributes"]["curriculum"]
    if (theirs is None) != (ours is None):
        has, other = ("no curriculum", "has one") if theirs is None else ("a curriculum", "has none")
        raise UserError(f"{RESUME}: the run of {folder} had {has}, and this one {other}; resume with its options.")
    for name, value in (ours or {}).items():
        if theirs is not None and theirs[name] != value:
            raise UserError(
                f"{RESUME}: the curriculum of {folder} has {name}={theirs[name]!r}, and this run's {value!r}; resume "
                "with the curriculum that it was trained with."
            )
