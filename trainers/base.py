"""Base of all trainers: a `transformers.Trainer` whose model takes batches of branches.

What it is made of: the loss of weighted rows (`weighted`), the reference (`reference`), what the layout is chosen by
(`run_data`), and what every Trainer here has: `trials`, `resuming`, `recording`, `nonfinite`, `sigterm`, `best`,
`evaluating`, `accelerated`, `saving`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.data.augment import count_made
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import float32_trainable
from hf_align.models.decoders import check_causal
from hf_align.models.quantized import Quantization
from hf_align.models.randomness import disable_dropout
from hf_align.models.reference import Reference
from hf_align.models.runner import LayoutRunner, RunData
from hf_align.models.trainable import only_with_path, tokenizer_of
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.accelerated import AcceleratedTrainer
from hf_align.trainers.best import BestModelTrainer, with_early_stopping
from hf_align.trainers.checkpoints import check_checkpoint, check_is_not_start
from hf_align.trainers.checks import (
    check_best_metric,
    check_config_class,
    check_evaluation,
    check_metrics,
    check_output_dir,
    check_reporters,
)
from hf_align.trainers.config import AlignmentConfig, Callbacks
from hf_align.trainers.data import check_tokens
from hf_align.trainers.evaluating import EvaluatingTrainer
from hf_align.trainers.moving_reference import (
    check_moved_checkpoint,
    check_moves,
)
from hf_align.trainers.nonfinite import FiniteTrainer
from hf_align.trainers.recording import RecordingTrainer
from hf_align.trainers.reference import ReferenceTrainer
from hf_align.trainers.resuming import ResumingTrainer
from hf_align.trainers.run_data import RunDataTrainer
from hf_align.trainers.saving import SavingTrainer
from hf_align.trainers.shared_rows import warn_of_shared_rows
from hf_align.trainers.sigterm import StoppableTrainer
from hf_align.trainers.start_checks import check_passes
from hf_align.trainers.stream import Stream
from hf_align.trainers.trials import ModelInit, TrialTrainer, first_model
from hf_align.trainers.weighted import WeightedTrainer

logger = logging.get_logger(__name__)


class BranchTrainer(
    WeightedTrainer,
    ReferenceTrainer,
    RunDataTrainer,
    TrialTrainer,
    ResumingTrainer,
    RecordingTrainer,
    FiniteTrainer,
    StoppableTrainer,
    BestModelTrainer,
    EvaluatingTrainer,
    AcceleratedTrainer,
    SavingTrainer,
):
    """A Trainer over rows that are a prompt with its responses.

    The constructor has the same steps for all: check the arguments, tokenise the rows, load the model, call Trainer's.
    A subclass fills in `check_arguments`, `check_data`, `prepare_rows`, `load_model`, `check_room`, `default_collator`
    and `set_up`, which are called in this order.

    A subclass also defines `row_losses`; rows are weighted by their `weight` (1 by default), over the whole accumulated
    batch and all processes: `loss = sum(weight * row_loss) / sum(weight)`. It may name further `terms`, each the mean
    of a metric over what it counts, such as the labels of an auxiliary task.

    Attributes:
        terms: Metrics of `row_losses` that are terms of the loss, with their coefficients; sums and counts `[B, 2]`
            that contain the rows' weights.
        runner: Calls models on batches; tells the layout and attention used, with the reasons.
        owns_attention: Whether the trainer loaded its models by name, and may change their attention. Model objects
            keep theirs.
    """

    config_class: type[Any] = AlignmentConfig
    columns = ""
    """Required columns of the rows, for a message."""
    owns_attention = False

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel | BranchModel | None = None,
        ref_model: str | PreTrainedModel | PeftModel | None = None,
        args: AlignmentConfig | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | Stream | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Callbacks = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: PeftConfig | None = None,
        quantization_config: Quantization = None,
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        *,
        model_init: ModelInit | None = None,
    ):
        args = args or cast(AlignmentConfig, self.config_class("trainer_output"))
        self.args = args  # for the steps below
        check_config_class(args, self.config_class)
        callbacks = with_early_stopping(callbacks, args)
        check_evaluation(args, eval_dataset)
        check_metrics(args, compute_metrics)
        check_reporters(args)
        model = first_model(model, model_init, optimizers)
        only_with_path(model, quantization_config)
        self.check_arguments(model, ref_model, data_collator)
        check_moves(args, model, ref_model, peft_config, watched=getattr(self, "eval_judge", None) is not None)
        if train_dataset is None and eval_dataset is None:
            raise UserError(f"train_dataset is missing; give a Dataset with {self.columns}.")
        self.check_data(train_dataset)
        check_output_dir(args)
        if args.n_gpu > 1:
            logger.warning("Only one GPU is used by this process; start with `accelerate launch` to use all of them.")
            args._n_gpu = 1
        if compute_metrics is None and type(self).__module__.startswith("hf_align."):  # others may return more
            check_best_metric(args, eval_dataset, (*args.eval_metrics, *args.further_metrics))

        self.made_rows = count_made(train_dataset)
        tokenizer = processing_class or tokenizer_of(model)
        with PartialState().main_process_first():
            train_rows = self.prepare_training(train_dataset, tokenizer)
            eval_rows = self.prepare_rows(eval_dataset, tokenizer, "eval_dataset")
        if args.process_index == 0:
            warn_of_shared_rows(train_rows, eval_rows)
        self.describe_data(train_dataset, eval_dataset)

        self._beside_model = ref_model, peft_config, quantization_config
        wrapped = self._wrapped(model, tokenizer)
        self.check_room(wrapped, train_rows, eval_rows)
        check_tokens(wrapped, tokenizer, train_dataset=train_rows, eval_dataset=eval_rows)

        self._at_start = self._is_fresh = False
        self._user_metrics = compute_metrics
        super().__init__(
            model=wrapped,
            args=args,
            data_collator=data_collator or self.default_collator(tokenizer),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            processing_class=tokenizer,
            compute_metrics=self._eval_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.model_init = model_init
        self.remember(model)
        self._make_ready(model)

    def _wrapped(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> BranchModel:
        """Load or take the model, and prepare it for training."""
        _, peft_config, quantization = self._beside_model
        torch.manual_seed(self.args.seed)  # initial weights of adapters and heads
        wrapped = self.load_model(model, tokenizer, peft_config, quantization)
        if self.args.disable_dropout:
            disable_dropout(wrapped)
        float32_trainable(wrapped)
        return wrapped

    def _make_ready(self, model: Any) -> None:
        """Make what the trainer needs besides its model, which it made of the given `model`."""
        args, wrapped = self.args, cast(BranchModel, self.model)
        ref_model, peft_config, quantization = self._beside_model
        self.owns_attention = isinstance(model, str) and isinstance(ref_model, str | None)
        self._has_trained = False
        self._reference_from = model if isinstance(model, str) and ref_model is None else None
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        data = RunData(self.sample_lengths, self.longest_documents, self.planned_tokens)
        self.runner = LayoutRunner(args, self.accelerator, data, self.branch_models, sharded=sharded)
        if args.activation_recompute == "selective":
            if sharded:
                raise UserError("activation_recompute='selective' doesn't support sharded weights; use 'full'.")
            enable_selective_recompute(wrapped)
        if not sharded:
            check_causal(wrapped, self.head_of(wrapped), "model")
        self.set_up(ref_model, peft_config, quantization)
        self.remember_start()

    def renew(self, model: Any) -> None:
        """Train this model next, with all that the constructor makes of one."""
        ref_model, _, quantization = self._beside_model
        vars(self).pop("reference", None)
        only_with_path(model, quantization)
        self.check_arguments(model, ref_model, None)
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        self.model = wrapped = self._wrapped(model, tokenizer)
        self.check_room(wrapped, self.train_dataset, self.eval_dataset)
        check_tokens(wrapped, tokenizer, train_dataset=self.train_dataset, eval_dataset=self.eval_dataset)
        if self.place_model_on_device and getattr(wrapped, "quantization_method", None) is None:
            self._move_model_to_device(wrapped, self.args.device)
        self.model_wrapped = wrapped
        self._make_ready(model)

    # ---- steps that subclasses fill in ----

    def check_arguments(self, model: Any, ref_model: Any, data_collator: Any) -> None:
        """Refuse invalid arguments before anything is loaded."""

    def check_data(self, train_dataset: Any) -> None:
        """Refuse training data that the options don't go with, before any of it is read."""

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise a data set, or a dict of them, called `name` in messages; None stays None."""
        raise NotImplementedError

    def prepare_training(self, data: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Check and tokenise the data set to train on; None stays None."""
        return self.prepare_rows(data, tokenizer, "train_dataset")

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Any]], Any]:
        """The collator to use by default."""
        raise NotImplementedError

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> BranchModel:
        """Load or take the model, with a new adapter if requested, and wrap it for training on branches.

        The generators have been seeded. Dropout and precision of trained weights are set afterwards.
        """
        raise NotImplementedError

    def check_room(self, model: BranchModel, *datasets: Any) -> None:
        """Refuse rows with more tokens than the model has positions."""
        raise NotImplementedError

    def head_of(self, model: BranchModel) -> nn.Module:
        """The head on the trained model's hidden states."""
        return cast(Any, model.model).get_output_embeddings()

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Make what the trainer needs besides its model, after Trainer has moved the model to its device."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does, with patches and, on a GPU, with the attention chosen on the first batch.

        Raises:
            UserError: There is no checkpoint of such a trainer to resume from.
        """
        self.begin_trial(kwargs.get("trial", args[0] if args else None))
        resumes = resume_from_checkpoint not in (None, False)
        if resumes:
            folder = check_checkpoint(resume_from_checkpoint, self.args)
            if hasattr(self, "reference") and self._reference_from:
                check_is_not_start(folder, self._reference_from)
            check_moved_checkpoint(folder, self.args)
            resume_from_checkpoint = str(folder)
        self._at_start, self._is_fresh = True, not (resumes or self._has_trained)
        with self.runner.training(may_choose=self.owns_attention):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's; before the first one attention is chosen, and what must hold is checked."""
        self.runner.choose_attention(model, lambda: cast(Any, self._prepare_inputs(inputs))["branches"])
        if self._at_start:
            self._at_start = False
            model.train()
            self.check_start(model, cast(Any, self._prepare_inputs(inputs)))
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._has_trained = True
        if self.args.include_num_input_tokens_seen != "no":
            self._count_tokens(inputs["branches"])
        return loss

    def _count_tokens(self, branches: Branches) -> None:
        """Add a batch's tokens to the state's: each prompt once for all its responses, whatever the layout."""
        padded = self.args.include_num_input_tokens_seen == "all"
        count = branches.input_ids.numel() if padded else int((branches.doc_ids >= 0).sum())
        counts = cast(Tensor, self.accelerator.gather(torch.tensor(count, device=self.args.device)))
        self.state.num_input_tokens_seen += int(counts.sum())

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Do nothing: `training_step` has the batch, which in PPO isn't the dataloader's."""

    def check_start(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """Refuse to train if two passes over the first batch differ, in policy or reference."""
        if not self.args.disable_dropout:
            logger.info("start-up check: disable_dropout=False keeps dropout, so two passes are not compared.")
            return
        reference: Reference | None = getattr(self, "reference", None)
        others = [] if reference is None or reference.model is None else [reference.model.train()]
        check_passes(self.runner, [model, *others], inputs["branches"])

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as `EvaluatingTrainer` does, in a layout that the rows allow."""
        self._evaluated = dataloader.dataset
        self.runner.expect(self.longest_of(self._evaluated))
        return super().evaluation_loop(dataloader, *args, **kwargs)
