"""Supervised fine-tuning: TRL's `SFTTrainer` with this library's loading, checks and saving.

The loss is over completions, or a conversation's last message, not over the prompt. (Text without a prompt is learnt
whole.)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer import sft_config, sft_trainer

from hf_align.acceleration.registry import Use, names_of
from hf_align.data.sft.demonstrations import trained_demonstrations
from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.files import whole_files
from hf_align.model_cards import CardFacts
from hf_align.model_cards.demonstrations import collect_sft_facts
from hf_align.models.adapter_config import sort_names
from hf_align.models.adapters import float32_trainable
from hf_align.models.fingerprint import check_base, write_fingerprint
from hf_align.models.kinds import check_is_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.precision import choose_precision
from hf_align.models.quantized import Quantization
from hf_align.models.trainable import only_with_path, tokenizer_of, trainable_policy
from hf_align.models.vocabulary import check_token_ids
from hf_align.trainers.accelerated import ACCELERATION, AcceleratedTrainer
from hf_align.trainers.arguments.cells import Column
from hf_align.trainers.arguments.check import check_arguments
from hf_align.trainers.arguments.learning import follow_metric
from hf_align.trainers.best import BestModelTrainer
from hf_align.trainers.checkpoints import Kind, check_adapter
from hf_align.trainers.checks import check_evaluation, check_options, check_output_dir, check_reporters
from hf_align.trainers.config import Callbacks
from hf_align.trainers.evaluating import WholeEvaluations
from hf_align.trainers.hub import HUB_BASE
from hf_align.trainers.kept import KeptTrainer
from hf_align.trainers.nonfinite import NAN_FILTER, ON_NONFINITE, FiniteTrainer
from hf_align.trainers.recording import RECORD, RecordingTrainer
from hf_align.trainers.resuming import ResumingTrainer
from hf_align.trainers.same_run import CHANGES
from hf_align.trainers.sft_options import check_own_options, check_token_names, check_whole_conversations
from hf_align.trainers.shared_rows import warn_of_shared_rows
from hf_align.trainers.sigterm import StoppableTrainer
from hf_align.trainers.uneven import real_rows

logger = logging.getLogger(__name__)

MERGED = "merged"


@dataclass
class SFTConfig(sft_config.SFTConfig):
    """Options of `hf-align sft` beyond those of TRL's `SFTConfig`.

    Example:
        >>> from hf_align.trainers import SFTConfig
        >>> SFTConfig("out", merge=True).merge
        True
    """

    eval_metrics: ClassVar[tuple[str, ...]] = ("loss", "entropy", "mean_token_accuracy", "num_tokens", "aux_loss")
    checkpoint_kind: ClassVar[Kind] = "policy"
    column: ClassVar[Column] = "sft"
    uses: ClassVar[tuple[Use, ...]] = ("train",)

    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "Compute in bfloat16 autocast. None: if the machine is fast at it, else float16 on GPUs; "
            "False: float32. Trained weights are float32 either way."
        },
    )
    acceleration: str | list[str] = field(default="auto", metadata={"help": ACCELERATION})
    on_nonfinite: Literal["stop", "skip"] = field(default="stop", metadata={"help": ON_NONFINITE})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": NAN_FILTER})
    resume_with_changes: bool = field(default=False, metadata={"help": CHANGES})
    hub_base_model: str | None = field(default=None, metadata={"help": HUB_BASE})
    record: bool = field(default=True, metadata={"help": RECORD})
    merge: bool = field(
        default=False,
        metadata={
            "help": f"With LoRA, also save the whole model with the adapter merged, in the folder '{MERGED}' of "
            "output_dir: a base to train reward models and policies on."
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_options(self)
        names_of(self.acceleration)
        choose_precision(self)
        super().__post_init__()
        follow_metric(self)
        check_arguments(self)
        check_own_options(self)

    @property
    def recomputes(self) -> bool:
        """Whether layers run again in the backward pass."""
        return bool(self.gradient_checkpointing or self.activation_checkpointing)


class SFTTrainer(  # pyright: ignore[reportIncompatibleMethodOverride]
    ResumingTrainer,
    RecordingTrainer,
    FiniteTrainer,
    StoppableTrainer,
    BestModelTrainer,
    WholeEvaluations,
    AcceleratedTrainer,
    KeptTrainer,
    sft_trainer.SFTTrainer,
):
    """Trainer of a language model on demonstrations.

    Args:
        model: Hub id or folder of a language model or adapter, or a model object (trained in place).
        args: The options.
        train_dataset: Rows with `prompt` and `completion` (text or messages), `messages` that end with the
            assistant's, or `text`.
        eval_dataset: The same.
        peft_config: A `LoraConfig` to train an adapter.
        quantization_config: "8bit" or "4bit", for models given by name.
        callbacks: As in `Trainer`.
        processing_class: The tokenizer. Default: the model's.

    Raises:
        UserError: On unusable rows or arguments, before the model is loaded; or if no prompt leaves room for its
            completion.

    Example:
        >>> from datasets import Dataset
        >>> from peft import LoraConfig
        >>> from hf_align.trainers import SFTConfig, SFTTrainer
        >>> rows = Dataset.from_list([{"prompt": "The film was", "completion": " a joy."}])
        >>> model, lora = "HuggingFaceTB/SmolLM2-135M-Instruct", LoraConfig(task_type="CAUSAL_LM")
        >>> trainer = SFTTrainer(model, SFTConfig("out", max_steps=1), train_dataset=rows, peft_config=lora)
        >>> trainer.train()
    """

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        peft_config: PeftConfig | None = None,
        quantization_config: Quantization = None,
        callbacks: Callbacks = None,
        processing_class: PreTrainedTokenizerBase | None = None,
    ):
        check_evaluation(args, eval_dataset)
        check_reporters(args)
        check_output_dir(args)
        only_with_path(model, quantization_config)
        check_is_policy(model, "model")
        whole, given = args.assistant_only_loss, (train_dataset, eval_dataset)
        train_dataset = trained_demonstrations(train_dataset, "train_dataset", whole=whole)
        if eval_dataset is not None:
            eval_dataset = trained_demonstrations(eval_dataset, "eval_dataset", whole=whole)
        self.args = args
        if args.process_index == 0:
            warn_of_shared_rows(train_dataset, eval_dataset)
        self.describe_data(*given)
        check_whole_conversations(args, train_dataset, eval_dataset)
        tokenizer = processing_class or tokenizer_of(model)
        check_token_names(args, tokenizer)
        torch.manual_seed(args.seed)  # initial weights of the adapter
        policy = trainable_policy(model, peft_config, quantization_config)
        args._n_gpu = min(args.n_gpu, 1)  # several GPUs need `accelerate launch`
        super().__init__(
            policy,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for name, rows in (("train_dataset", self.train_dataset), ("eval_dataset", self.eval_dataset)):
            check_token_ids(policy, tokenizer, (row["input_ids"] for row in cast(Any, rows) or ()), name)
        float32_trainable(cast(nn.Module, self.model))  # TRL casts adapters on quantised weights to bfloat16
        self.remember_start()
        _say_dropped(train_dataset, self.train_dataset, "train_dataset", args)
        _say_dropped(eval_dataset, self.eval_dataset, "eval_dataset", args)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._metrics["train"].clear()  # of an earlier run, or of a try that ran out of memory
        return super()._inner_training_loop(*args, **kwargs)

    def begin_step(self) -> None:
        """Remember how many values TRL has noted."""
        self._noted = {name: len(values) for name, values in self._metrics["train"].items()}

    def void_step(self) -> None:
        """Drop those of the step that isn't taken."""
        for name, values in self._metrics["train"].items():
            if name != "num_tokens":  # a count of all tokens so far
                del values[self._noted.get(name, 0) :]

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        # Where each row of the data is a row of the batch: rows that fill up the epoch's last one count nothing.
        labels: Any = batch_samples[-1]["labels"] if batch_samples else ()
        if len(labels) == self.args.per_device_train_batch_size:
            labels[real_rows(self, len(labels)) :] = -100
        return super()._get_num_items_in_batch(batch_samples, device)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return  # the others come here, too, and would write into the same folder
        directory = Path(output_dir or cast(str, self.args.output_dir))
        with whole_files(directory, needed=self.model_bytes) as unfinished:
            super()._save(str(unfinished), state_dict)
            model = self.accelerator.unwrap_model(self.model)
            if isinstance(model, PeftModel):
                sort_names(model.peft_config["default"], unfinished)
                write_fingerprint(model, unfinished, state_dict)
            for file in (*unfinished.glob("*.bin"), *unfinished.rglob("README.md")):  # of the options; peft's
                file.unlink()

    def _facts(self, directory: Path, **options: Any) -> CardFacts:
        given = {} if self.args.hub_model_id else {"model_name": directory.resolve().name}
        given |= {**self._card_options, **options}
        renamed = {"dataset_name": "dataset_tags"}
        return collect_sft_facts(self, **{renamed.get(name, name): each for name, each in given.items()})

    def create_model_card(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write README.md and its curves into `output_dir`, unless you edited the README.md there.

        Later saves and pushes use the same arguments.

        Args:
            model_name: Default: the last part of `hub_model_id`, else the name of the folder.
            dataset_name: Hub id of the training data. Default: the id it was downloaded from.
            tags: Further tags.
        """
        given = {"model_name": model_name, "dataset_name": dataset_name, "tags": tags}
        if self.is_in_train:  # TRL asks, before each checkpoint: no model is saved yet where the card goes
            return
        self._card_options = {**self._card_options, **{name: value for name, value in given.items() if value}}
        if self.is_world_process_zero():
            folder = Path(cast(str, self.args.output_dir))
            self._save_card(folder, self._facts(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        loaded = self.model if model is None else model
        check_adapter(loaded, resume_from_checkpoint)
        if isinstance(loaded, PeftModel):
            check_base(loaded, resume_from_checkpoint, "the model to train")
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False, **options: Any) -> None:
        """Save the adapter or model with its tokenizer; with `merge`, at the end of a run also the merged model."""
        super().save_model(output_dir, _internal_call, **options)
        model = self.accelerator.unwrap_model(self.model)
        if cast(SFTConfig, self.args).merge and not _internal_call and isinstance(model, PeftModel):
            if self.args.should_save:
                directory = Path(output_dir or cast(str, self.args.output_dir))
                merge_adapter(directory, directory / MERGED, torch.float32)
            self.accelerator.wait_for_everyone()


def _say_dropped(given: Dataset | None, left: Any, name: str, args: SFTConfig) -> None:
    """Warn of rows whose prompt fills `max_length`, which TRL drops silently."""
    if given is None or args.packing or len(given) == len(left):
        return
    count = f"{len(given) - len(left)} of {len(given)} rows have"
    problem = f"{name}: {count} a prompt that fills max_length={args.max_length} and leaves nothing of the completion"
    if not len(left):
        raise UserError(f"{problem}; raise max_length.")
    logger.warning("%s: they are left out.", problem)
