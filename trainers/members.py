"""Training an ensemble's members: bags of rows, one member after another on one base, skipped if finished before."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.files import whole_folder
from hf_align.models.fingerprint import rewrites_base
from hf_align.models.heads import linear_layers, new_reward_head
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.wrapper import unwrapped
from hf_align.progress import Progress, Silent
from hf_align.tracking import RunRecord
from hf_align.trainers.callbacks import evaluate, train_explained
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.checks import check_place
from hf_align.trainers.config import Callbacks
from hf_align.trainers.ensemble_config import Member
from hf_align.trainers.member_records import MemberRecord, settings_of
from hf_align.trainers.member_rows import EnsembleData, MemberRows, Preparation
from hf_align.trainers.normalizing import normalize
from hf_align.trainers.reward import RewardTrainer
from hf_align.trainers.reward_setup import check_task_options, config_of, load

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class TrainedMember:
    """A finished member.

    Attributes:
        folder: Its folder.
        results: Figures for tables: numbers of rows, metrics of its evaluation.
    """

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)


class MemberTrainer(RewardTrainer):
    """A `RewardTrainer` on rows that were checked and tokenised for all members at once."""

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Take tokenised rows as they are: a row drawn twice is no duplicate that deserves a warning."""
        if isinstance(data, Dataset) and "prompt_ids" in data.column_names:
            return data
        return super().prepare_rows(data, tokenizer, name)

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> RewardModel:
        """Load or take a model as `RewardTrainer` does; a shared base gets a head of this member's seed."""
        if isinstance(model, RewardModel) and model.head_is_new:
            head = model.head
            size, device = linear_layers(head)[0].in_features, next(head.parameters()).device
            cast(Any, model.model).score = new_reward_head(model.reward_config, size, device)
        return super().load_model(model, tokenizer, peft_config, quantization)

    def describe_rows(self) -> None:
        """Say nothing: how rows are used was said for all members."""


class Bases:
    """Models that members start from: one is loaded and takes their adapters in turn, if they leave it as it was.

    At no time are there two.
    """

    def __init__(self, quantization: Quantization) -> None:
        self.quantization: Quantization = quantization
        self._base: RewardModel | None = None
        self._key: tuple[str, RewardModelConfig] | None = None
        self._head: torch.nn.Module | None = None
        self._used = False

    def start_of(self, member: Member) -> str | RewardModel:
        """What to give to a member's trainer: the shared base with a head to start from, or its name to load it."""
        key = member.model, config_of(member.model, member.args)
        if self._key != key or not leaves_base(member.peft_config):
            self.drop()
        self._used = True
        if not leaves_base(member.peft_config):
            return member.model
        if self._base is None:
            self._base, self._key = load(*key, self.quantization), key
            self._head = unwrapped(self._base).score
        base, head = self._base, cast(torch.nn.Module, self._head)
        if isinstance(base.model, PeftModel):
            return member.model  # refused by the trainer
        cast(Any, base.model).score = copy.deepcopy(head)
        model = RewardModel(cast(Any, base.model), base.tokenizer, base.reward_config, base.normalization)
        model.head_is_new = base.head_is_new
        return model

    def take_back(self, model: RewardModel) -> None:
        """Take a trained member's adapter off the shared base."""
        if self._base is not None:
            self._base.model = cast(Any, model.model).unload()

    def drop(self) -> None:
        """Free the base that was used, ours or a trainer's: trainers and models refer to each other in circles."""
        self._base = self._key = self._head = None
        if self._used:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self._used = False


def leaves_base(config: PeftConfig | None) -> bool:
    """Whether taking an adapter off leaves its base as it was before."""
    return (
        isinstance(config, LoraConfig)
        and config.bias == "none"
        and not rewrites_base(config)
        and not config.modules_to_save
        and not config.trainable_token_indices
        and not config.layer_replication
    )


class EnsembleTraining:
    """Training of an ensemble's members, one after another.

    Args:
        members: What each is trained with.
        data: The rows.
        folder: The ensemble's folder: member-0, member-1, ..., and `training` with checkpoints and records.
        bootstrap: See `EnsembleConfig`.
        quantization: Of the base.
        callbacks: Copied for each member.
        progress: Shows a bar over members and one over each one's steps; None leaves that to Trainer.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: EnsembleData,
        folder: Path,
        *,
        bootstrap: float | None,
        quantization: Quantization = None,
        callbacks: Callbacks = None,
        progress: Progress | None = None,
    ) -> None:
        self.members, self.data, self.folder, self.bootstrap = members, data, folder, bootstrap
        self.callbacks = list(callbacks or [])
        self.progress = progress
        self.preparation, self.bases = Preparation(data, bootstrap), Bases(quantization)
        others = {"bootstrap": bootstrap, "quantization": str(quantization)}
        digests = data.digests()
        self.records = [
            MemberRecord(Path(each.args.output_dir or ""), folder / each.name, settings_of(each, **others, **digests))
            for each in members
        ]

    def run(self, record: RunRecord | None = None) -> list[TrainedMember]:
        """Train the members that aren't finished yet.

        Args:
            record: The ensemble's record, in which each member is a stage.

        Raises:
            KeyboardInterrupt: After Ctrl-C; the same call goes on where this one stood.
        """
        shown = self.progress or Silent()
        finished: list[TrainedMember] = []
        try:
            with shown.task("members", len(self.members)) as advance:
                for member, settings in zip(self.members, self.records, strict=True):
                    advance(len(finished), member.name)
                    results = settings.results()
                    if results is None:
                        results = self._train(member, settings, shown, record)
                    else:
                        shown.line(f"   {member.name}: trained before")
                    finished.append(TrainedMember(settings.result, results))
        except KeyboardInterrupt:
            if self.progress is None:  # commands say how to go on
                stopped = self.members[len(finished)].name
                logger.warning(f"{stopped} was interrupted; the same call goes on with it where it stood.")
            raise
        finally:
            self.bases.drop()
        return finished

    def check(self) -> None:
        """Refuse what would only be noticed after some members.

        Raises:
            UserError: The folder has members that were trained with other settings, or can't be used.
        """
        check_place(self.folder, "output_dir")
        for member, record in zip(self.members, self.records, strict=True):
            record.check()
            check_task_options(member.args, config_of(member.model, member.args).tasks)
        n = len(self.members)
        if (self.folder / f"member-{n}").exists():
            raise UserError(
                f"output_dir: {self.folder} has more than {n} members; raise n to go on with that ensemble, or choose "
                "another output_dir."
            )

    def _train(self, member: Member, record: MemberRecord, shown: Progress, run: RunRecord | None) -> dict[str, Any]:
        rows = self.preparation.rows_of(member)
        record.begin()
        trainer = self._trainer(member, rows)
        if run is not None:
            trainer.record_in(run, member.name)
        checkpoint = last_checkpoint(record.work)
        shown.line(f"   {_described(member, rows, checkpoint)}")
        if self.progress is not None:
            train_explained(trainer, self.progress, member.name, checkpoint=checkpoint)
        else:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        metrics: dict[str, float] = {}
        if rows.evaluation is not None:
            with trainer.kept():
                metrics = evaluate(trainer, shown, f"{member.name}, held out")
        trainer.save_state()
        results = {
            "seed": member.args.seed,
            "rows": len(rows.bag.rows),
            "different_rows": rows.bag.different,
            "left_out": len(rows.bag.left_out),
            "evaluated_on": "left out" if self.data.held_out is None and metrics else "eval_dataset",
            "varied": member.varied,
            "steps": trainer.state.global_step,
            "metrics": {name.removeprefix("eval_"): value for name, value in metrics.items()},
        }
        model: RewardModel = trainer.accelerator.unwrap_model(trainer.model)
        with trainer.kept():
            normalize(model, rows.reference, rows.reference_name)
        if trainer.is_world_process_zero():
            with whole_folder(record.result) as unfinished:
                model.save_pretrained(unfinished)
                for card in unfinished.rglob("README.md"):
                    card.unlink()  # peft's card, which names a local base model by its path
            record.finish(results)
        trainer.accelerator.wait_for_everyone()
        self.bases.take_back(model)
        return results

    def _trainer(self, member: Member, rows: MemberRows) -> MemberTrainer:
        start = self.bases.start_of(member)
        trainer = MemberTrainer(
            model=cast(Any, start),
            args=member.args,
            train_dataset=rows.train,
            eval_dataset=rows.evaluation,
            peft_config=member.peft_config,
            quantization_config=self.bases.quantization if isinstance(start, str) else None,
            callbacks=copy.deepcopy(self.callbacks),
        )
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise UserError("An ensemble can't be trained with sharded weights; leave out fsdp and deepspeed.")
        trainer.owns_attention = True  # nobody else has the model
        return trainer


def _described(member: Member, rows: MemberRows, checkpoint: Path | None) -> str:
    bag = rows.bag
    parts = [f"seed {member.args.seed}", f"{len(bag.rows)} rows ({bag.different} different)"]
    parts += [f"{key} {value}" for key, value in member.varied.items()]
    parts += [] if checkpoint is None else [f"goes on from {checkpoint.name}"]
    return f"{member.name}: {', '.join(parts)}"
