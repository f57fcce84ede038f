"""Training reward models on pairs and rankings of responses: Bradley-Terry, hinge and Plackett-Luce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from peft import PeftConfig, TaskType
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_align.collators import PreferenceCollator, find_pad_token_id
from hf_align.collators.labels import Tasks
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.losses import contrastive_loss
from hf_align.losses.contrastive import is_anchor
from hf_align.models.freezing import adapter_above, freeze_layers
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig, RewardOutputs
from hf_align.models.trainable import with_adapter
from hf_align.trainers.arguments.cells import Column
from hf_align.trainers.checkpoints import Kind
from hf_align.trainers.curriculum import check_with_curriculum, read_curriculum
from hf_align.trainers.data import most_responses, parts_of
from hf_align.trainers.evaluating import PREDICTIONS
from hf_align.trainers.judged import Drawn, Judged, draw_votes, judge
from hf_align.trainers.normalizing import (
    check_length_set,
    check_reference_sets,
    drop_measured,
    normalize,
    penalize_length,
)
from hf_align.trainers.pairs import PreferenceConfig, PreferenceTrainer
from hf_align.trainers.reward_losses import (
    centering,
    preference_losses,
    rank_agreement,
    ranking_metrics,
    task_metrics,
)
from hf_align.trainers.reward_setup import (
    check_options,
    check_task_options,
    config_of,
    describe_use,
    load,
    loss_problem,
    prepare_comparisons,
)
from hf_align.trainers.staged import StagedTrainer

logger = logging.get_logger(__name__)

CONTRASTIVE = "contrastive/loss"


@dataclass
class RewardConfig(PreferenceConfig):
    """Options of `RewardTrainer` beyond `TrainingArguments`.

    Example:
        >>> from hf_align import RewardConfig
        >>> RewardConfig("out", margin_mode="weight", center_rewards_coefficient=0.01).margin_mode
        'weight'
    """

    eval_metrics: ClassVar[tuple[str, ...]] = (
        "loss",
        "chosen_reward",
        "rejected_reward",
        "accuracy",
        "margin",
        "mean_reward",
        "min_reward",
        "max_reward",
    )
    further_metrics: ClassVar[tuple[str, ...]] = ("tau",)
    checkpoint_kind: ClassVar[Kind] = "reward"
    column: ClassVar[Column] = "reward"
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate; 1e-4 suits LoRA."})
    plain_pairs: ClassVar[bool] = False
    loss_type: Literal["bradley_terry", "hinge", "plackett_luce"] = field(
        default="bradley_terry",
        metadata={
            "help": "'bradley_terry' -logsigmoid(d), d the difference of two rewards, or 'hinge' relu(margin - d), of "
            "a ranking the mean over all its pairs; 'plackett_luce': the likelihood of the whole ranking."
        },
    )
    margin_mode: Literal["weight", "scale", "shift", "none"] = field(
        default="weight",
        metadata={
            "help": "Loss of a pair with margin m (of two scored responses the difference): 'weight' "
            "-m*logsigmoid(d), 'scale' -logsigmoid(m*d), 'shift' -logsigmoid(d - m), as in TRL; 'none' -logsigmoid(d). "
            "The margin of the hinge is m, or 1 with 'none' or where there is no margin."
        },
    )
    label_mode: Literal["share", "draw"] = field(
        default="share",
        metadata={
            "help": "Label of rows with votes or ratings: 'share' of the votes for the first response, or 'draw': a "
            "single vote (one rating of each response), drawn anew each epoch. Evaluations use shares."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"range": "[0, 0.5)", "help": "Assumed share of pairs with the wrong response preferred."},
    )
    center_rewards_coefficient: float | None = field(
        default=None,
        metadata={
            "range": "[0, inf)",
            "help": "Add this times (r_chosen + r_rejected)^2, of a ranking (2 * mean reward)^2, which keeps rewards "
            "around 0. None: off. Try 0.01.",
        },
    )
    pooling: Literal["last", "mean", "max", "first"] = field(
        default="last",
        metadata={"help": "Hidden state that a new head scores; see `RewardModelConfig`."},
    )
    head: Literal["linear", "mlp", "attention"] = field(
        default="linear", metadata={"help": "New head of a model given by name; see `RewardModelConfig`."}
    )
    tasks: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Auxiliary tasks of a new head by name: 'regression', 'binary' or a number of classes. The rows "
            "have a column of that name with a label for each response (null: none), or in pairs chosen_NAME and "
            "rejected_NAME."
        },
    )
    task_weights: dict[str, float] | None = field(
        default=None,
        metadata={"help": "Weight in the loss of each auxiliary task's mean over its labels. Default: 1 for all."},
    )
    contrastive_coefficient: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "Add this times the supervised contrastive loss of projected states. A response is compared with "
            "those of its micro-batch alone: per_device_train_batch_size rows of one process; accumulation and more "
            "processes add none. None: off.",
        },
    )
    contrastive_temperature: float = field(
        default=0.1, metadata={"range": "(0, inf)", "help": "Temperature of the contrastive loss."}
    )
    contrastive_labels: str | None = field(
        default=None,
        metadata={
            "help": "Responses that the contrastive loss pulls together: those to the same prompt (None or 'prompt'), "
            "or those with the same label of this task."
        },
    )
    freeze_layers: int = field(
        default=0,
        metadata={
            "range": "[0, inf)",
            "help": "Train neither the model's first layers, this many, nor its embeddings; a new adapter leaves them "
            "out.",
        },
    )
    length_penalty_on: Literal["train", "eval"] | None = field(
        default=None,
        metadata={
            "help": "After training, subtract from the reward, for each token of a response, what length adds to it at "
            "equal judgement on this set: for labels that favour long responses. Prefer a carefully judged 'eval'; "
            "checkpoints don't have it yet."
        },
    )
    curriculum: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Train in `stages` (3), stage s of S on the easiest s/S of the rows by `difficulty`: a column, "
            "'margin' (default; small = hard), 'length', or in Python a function of a row or a reward model. For each "
            "stage or all: `epochs` (1), `batch` (per_device_train_batch_size); `lr_decay` (1) multiplies the learning "
            "rate from stage to stage, `fresh_optimizer` (false) drops the optimizer's state. None: all rows."
        },
    )
    normalize_on: Literal["train", "eval"] | None = field(
        default=None,
        metadata={
            "help": "After training, give the rewards of this set's responses mean 0 and standard deviation 1: a gain "
            "in the head and an offset in reward_config.json. Order stays the same; checkpoints don't have it yet."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self)
        if self.curriculum is not None:
            check_with_curriculum(self)
        self.eval_metrics = evaluated(self, self.tasks or {})  # type: ignore[misc]

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments`, with the name of a difficulty that JSON can't hold."""
        values = super().to_dict()
        if self.curriculum is not None and "difficulty" in self.curriculum:
            read = read_curriculum(self.curriculum, batch=self.per_device_train_batch_size).to_json()
            values["curriculum"] = {**self.curriculum, "difficulty": read["difficulty"]}
        return values


def evaluated(args: RewardConfig, tasks: Tasks) -> tuple[str, ...]:
    """Names of an evaluation's metrics, with those of auxiliary tasks and the contrastive loss."""
    measures = [(name, "mae" if kind == "regression" else "accuracy") for name, kind in tasks.items()]
    of_tasks = [f"{name}/{metric}" for name, measure in measures for metric in ("loss", measure)]
    return (*type(args).eval_metrics, *of_tasks, *([CONTRASTIVE] if args.contrastive_coefficient is not None else []))


class RewardTrainer(StagedTrainer, PreferenceTrainer):
    """Trains a reward model on pairs or rankings of responses.

    By default P(chosen > rejected) = sigmoid(r_chosen - r_rejected) (Bradley and Terry, 1952). A ranking trains as one
    prompt with all its responses; see `RewardConfig.loss_type`. Auxiliary tasks and a contrastive loss of the model's
    states may be learnt along: `loss = preferences + sum(task_weight * task's loss) + coefficient * contrastive loss`,
    each term a mean over what has a label, in the accumulated batch of all processes.

    Args:
        model: Hub id or folder of a language model or reward model, a `RewardModel`, or a sequence-classification
            model with `num_labels=1` (trained in place).
        ref_model: Must be None: reward models have no reference. Kept for a common signature of all trainers.
        args: Default: `RewardConfig("trainer_output")`.
        data_collator: Default: `PreferenceCollator`.
        train_dataset: Pairs, `chosen` and `rejected`, usually with `prompt`; optionally `margin` (>= 0) and `label` or
            `preference` (P(chosen better)) or `votes` (single 0, .5, 1). Or rankings: `prompt`, `responses` and one of
            `ranking` (0 = best, None or -1 = shown, below all ranked), `scores` (higher is better; None = not scored)
            and `ratings` (of each response the list of single ratings). Both optionally with `weight` and labels of
            tasks (`RewardConfig.tasks`).
        eval_dataset: Pairs or rankings, or a dict of such data sets.
        processing_class: The tokenizer. Default: the model's.
        compute_metrics: Gets predictions `[rows, K]`, each row's rewards with the best-ranked response first (of pairs
            chosen, rejected), NaN where a row has fewer responses than another.
        callbacks: As in `Trainer`.
        model_init: In place of `model`, a function that returns one, for `hyperparameter_search`: each training starts
            anew, with a new adapter and head. It may take the trial.
        optimizers, optimizer_cls_and_kwargs: As in `Trainer`. An optimizer made beforehand lacks the adapter or head
            that is made here, which is an error: give its class.
        peft_config: A `LoraConfig` to train an adapter and the head instead of all weights.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for a model given by name.

    Raises:
        UserError: On unusable rows or arguments, before anything is loaded or trained.

    Logs, besides Trainer's, over pairs of which one response is better, `accuracy` (equal rewards count half), `margin`
    (mean difference), `chosen_reward` and `rejected_reward`; over responses `mean_reward`, `min_reward`, `max_reward`;
    over rankings `tau` (mean of Kendall's tau-b, where it is defined); for each task `NAME/loss` and `NAME/mae` or
    `NAME/accuracy`, and `contrastive/loss`.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import RewardConfig, RewardTrainer
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = RewardConfig("out", max_steps=1)
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = RewardTrainer(model, args=config, train_dataset=rows, peft_config=LoraConfig(task_type="SEQ_CLS"))
        >>> trainer.train()
        >>> len(trainer.model.score(["The film was"], [" a joy."]))
        1
    """

    args: RewardConfig  # type: ignore[assignment]
    config_class = RewardConfig
    model: RewardModel  # type: ignore[assignment]

    def check_arguments(self, model: Any, ref_model: Any, data_collator: Any) -> None:
        """Refuse a reference, and heads and tasks that the model doesn't have."""
        if ref_model is not None:
            raise UserError("ref_model must be None: a reward model is trained without a reference.")
        self.reward_config: RewardModelConfig = config_of(model, self.args)
        check_task_options(self.args, self.reward_config.tasks)
        self.args.eval_metrics = evaluated(self.args, self.reward_config.tasks)  # type: ignore[misc]
        self._most_responses = 2

    @property
    def task_weights(self) -> dict[str, float]:
        """Weight of each of the model's auxiliary tasks."""
        return dict.fromkeys(self.reward_config.tasks, 1.0) | (self.args.task_weights or {})

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise pairs or rankings, also whether the loss can be taken from them."""
        check_reference_sets(self.args, data, name)
        rows = prepare_comparisons(data, tokenizer, self.args, name, self.reward_config.tasks)
        if rows is not None and name == "train_dataset" and self.args.label_mode == "draw":
            return rows.add_column("index", list(range(len(rows))))
        return rows

    @property
    def tasks_of_rows(self) -> Tasks:
        """The model's auxiliary tasks."""
        return self.reward_config.tasks

    def row_problem(self, row: Mapping[str, Any]) -> str:
        """Say why the loss can't be taken from a tokenised row."""
        return loss_problem(row, self.args)

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> PreferenceCollator:
        """A collator of pairs or rankings."""
        args = self.args
        return PreferenceCollator(
            pad_token_id=find_pad_token_id(tokenizer),
            row_tokens=args.row_tokens,
            tasks=tuple(self.reward_config.tasks),
            contrast=None if args.contrastive_coefficient is None else args.contrastive_labels or "prompt",
            draws=args.label_mode == "draw",
        )

    def check_responses(self, place: str, count: int, *, ranked: bool) -> None:
        """Refuse rows without ranks that aren't pairs, and rankings of one response."""
        if not ranked or count < 2:
            super().check_responses(place, count, ranked=ranked)

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> RewardModel:
        """A reward model."""
        loaded = load(model, self.reward_config, quantization) if isinstance(model, str) else model
        wrapped = loaded if isinstance(loaded, RewardModel) else RewardModel(loaded, tokenizer)
        peft_config = adapter_above(peft_config, wrapped.model, self.args.freeze_layers)
        wrapped.model = with_adapter(wrapped.model, peft_config, TaskType.SEQ_CLS)
        if self.args.freeze_layers:
            freeze_layers(wrapped.model, self.args.freeze_layers)
        return wrapped

    def head_of(self, model: RewardModel) -> nn.Module:  # type: ignore[override]
        """The reward head."""
        return model.head

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Check that the head is trained, and log how margins are used."""
        head: Any = self.model.head
        saved = getattr(head, "modules_to_save", None)  # under peft the head's trained copy
        if not all(each.requires_grad for each in (saved["default"] if saved is not None else head).parameters()):
            raise UserError(
                "The reward head is frozen; its adapter was made without task_type SEQ_CLS, so train a new one."
            )
        self.terms = {f"{name}/loss": weight for name, weight in self.task_weights.items() if weight}
        if self.args.contrastive_coefficient is not None:
            self.terms[CONTRASTIVE] = self.args.contrastive_coefficient
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            for option, method in (("normalize_on", "normalize"), ("length_penalty_on", "penalize_length")):
                if getattr(self.args, option) is not None:
                    raise UserError(
                        f"{option} doesn't support sharded weights; load the saved model and call its {method} method."
                    )
        self.set_up_stages()
        self.describe_rows()

    def describe_rows(self) -> None:
        """Log how margins, votes and ties of the training rows are used."""
        for rows in parts_of([self.train_dataset]):
            for sentence in describe_use(rows, self.args):
                logger.warning(sentence)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, then penalise length and normalise the rewards where options say so."""
        if self.args.length_penalty_on is not None:
            name = f"{self.args.length_penalty_on}_dataset"
            check_length_set(getattr(self, name), name)
        result = super().train(*args, **kwargs)
        model: RewardModel = self.accelerator.unwrap_model(self.model)
        with self.kept():
            if self.args.length_penalty_on is not None:
                name = f"{self.args.length_penalty_on}_dataset"
                penalize_length(model, getattr(self, name), name)
            if self.args.normalize_on is not None:
                name = f"{self.args.normalize_on}_dataset"
                normalize(model, getattr(self, name), name)
        return result

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        drop_measured(self.accelerator.unwrap_model(self.model))
        return super()._inner_training_loop(*args, **kwargs)

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss in `loss_type`, plus the centering term."""
        outputs, _ = self.runner.run(model, branches)
        predicted = self.reward_config.split(outputs)
        judged = judge(inputs, branches.num_responses, outputs.device, self._drawn(model, inputs))
        rewards = judged.lay_out(predicted.rewards)
        losses = preference_losses(rewards, judged, self.args)
        if self.args.center_rewards_coefficient is not None:
            losses = losses + self.args.center_rewards_coefficient * centering(rewards, judged)
        metrics = ranking_metrics(rewards, judged) | self._further_terms(predicted, inputs, judged)
        if "ranks" in inputs:
            metrics["tau"] = rank_agreement(rewards, judged)
        if not model.training:  # of an evaluation
            metrics[PREDICTIONS] = judged.best_first(rewards, self._most_responses)
        return losses, metrics

    def _drawn(self, model: nn.Module, inputs: dict[str, Any]) -> Drawn | None:
        if not model.training or "votes" not in inputs:
            return None
        return draw_votes(inputs["votes"], seed=self.args.seed, epoch=self.current_pass())

    def _further_terms(self, predicted: RewardOutputs, inputs: dict[str, Any], judged: Judged) -> dict[str, Tensor]:
        """Losses and metrics of tasks, and the contrastive loss, by name."""
        weight, metrics = inputs["weight"], {}
        for name, kind in self.reward_config.tasks.items():
            labels = inputs["tasks"][name]
            metrics |= task_metrics(name, predicted.tasks[name], labels, kind, judged, weight)
        if self.args.contrastive_coefficient is not None:
            alike = _alike(inputs)
            losses = contrastive_loss(
                cast(Tensor, predicted.embeddings), alike, temperature=self.args.contrastive_temperature
            )
            sums = [judged.lay_out(values).sum(1) for values in (losses, is_anchor(alike).to(losses.dtype))]
            metrics[CONTRASTIVE] = weight[:, None] * torch.stack(sums, dim=1)
        return metrics

    def term_counts(self, batch: dict[str, Any]) -> list[Tensor]:
        """Weights of the labelled responses of each trained task, and of those with another that is alike."""
        weight = _by_response(batch["weight"], batch)
        counts = [(weight * ~batch["tasks"][name].isnan()).sum() for name, each in self.task_weights.items() if each]
        if self.args.contrastive_coefficient is not None:
            counts.append((weight * is_anchor(_alike(batch))).sum())
        return counts

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as `BranchTrainer` does."""
        self._most_responses = most_responses(dataloader.dataset)  # of all batches, for `compute_metrics`
        return super().evaluation_loop(dataloader, *args, **kwargs)


def _by_response(values: Tensor, batch: dict[str, Any]) -> Tensor:
    """Values of rows `[B]` for each of their responses `[S]`."""
    counts = batch["branches"].num_responses
    # The size given, a GPU needn't be waited for.
    return values.repeat_interleave(torch.tensor(counts, device=values.device), output_size=sum(counts))


def _alike(batch: dict[str, Any]) -> Tensor:
    """Labels of the contrastive loss `[S]`; rows of weight 0, such as padding rows, have no part in it."""
    return batch["contrast"].masked_fill(_by_response(batch["weight"] == 0, batch), -1)
