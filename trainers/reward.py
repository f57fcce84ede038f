"""Training reward models on pairs of responses: margin-weighted Bradley-Terry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from datasets import Dataset
from peft import PeftConfig, TaskType
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.losses import bradley_terry_loss
from hf_align.models.freezing import adapter_above, freeze_layers
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.trainable import with_adapter
from hf_align.trainers.checkpoints import Kind
from hf_align.trainers.pairs import PreferenceConfig, PreferenceTrainer

logger = logging.get_logger(__name__)

MARGIN_MEANING = {
    "weight": "it multiplies the loss, -m * logsigmoid(r_chosen - r_rejected)",
    "scale": "it multiplies the difference, -logsigmoid(m * (r_chosen - r_rejected))",
    "shift": "it is subtracted from the difference, -logsigmoid(r_chosen - r_rejected - m)",
}


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
    checkpoint_kind: ClassVar[Kind] = "reward"
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate; 1e-4 suits LoRA."})
    margin_mode: Literal["weight", "scale", "shift"] = field(
        default="weight",
        metadata={
            "help": "Loss of a row with margin m, where d is the difference of rewards: 'weight' -m*logsigmoid(d), "
            "'scale' -logsigmoid(m*d), 'shift' -logsigmoid(d - m), as in TRL."
        },
    )
    center_rewards_coefficient: float | None = field(
        default=None,
        metadata={
            "range": "[0, inf)",
            "help": "Add this times (r_chosen + r_rejected)^2, which keeps rewards around 0. None: off. Try 0.01.",
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


class RewardTrainer(PreferenceTrainer):
    """Trains a reward model so that P(chosen > rejected) = sigmoid(r_chosen - r_rejected) (Bradley and Terry, 1952).

    Args:
        model: Hub id or folder of a language model or reward model, a `RewardModel`, or a sequence-classification
            model with `num_labels=1` (trained in place).
        ref_model: Must be None: reward models have no reference. Kept for a common signature of all trainers.
        args: Default: `RewardConfig("trainer_output")`.
        data_collator: Default: `PreferenceCollator`.
        train_dataset: Rows with `chosen` and `rejected`, usually `prompt`, and optionally `margin` (>= 0) and `weight`.
        eval_dataset: The same, or a dict of such data sets.
        processing_class: The tokenizer. Default: the model's.
        compute_metrics: Gets predictions `[rows, 2]`, the rewards of chosen and rejected.
        callbacks: As in `Trainer`.
        optimizers, optimizer_cls_and_kwargs: As in `Trainer`. An optimizer made beforehand lacks the adapter or head
            that is made here, which is an error: give its class.
        peft_config: A `LoraConfig` to train an adapter and the head instead of all weights.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for a model given by name.

    Raises:
        UserError: On unusable rows or arguments, before anything is loaded or trained.

    Logs, besides Trainer's: `accuracy`, `margin` (mean difference), `mean_reward`, `min_reward`, `max_reward`.

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
        """Refuse a reference."""
        if ref_model is not None:
            raise UserError("ref_model must be None: a reward model is trained without a reference.")

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> RewardModel:
        """A reward model."""
        loaded = load_reward_model(model, quantization=quantization) if isinstance(model, str) else model
        wrapped = loaded if isinstance(loaded, RewardModel) else RewardModel(loaded, tokenizer)
        peft_config = adapter_above(peft_config, wrapped.model, self.args.freeze_layers)
        wrapped.model = with_adapter(wrapped.model, peft_config, TaskType.SEQ_CLS)
        self._freeze(wrapped)
        return wrapped

    def _freeze(self, model: RewardModel) -> None:
        if self.args.freeze_layers:
            freeze_layers(model.model, self.args.freeze_layers)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(*args, **kwargs)
        self._freeze(self.accelerator.unwrap_model(self.model))  # peft trains all of an adapter that it loads

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
        rows = cast(Dataset | None, self.train_dataset)
        if rows is not None and "margin" in rows.column_names:
            mode = self.args.margin_mode
            logger.warning(f"The rows have a margin m: with margin_mode='{mode}' {MARGIN_MEANING[mode]}.")

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Bradley-Terry loss with margins, plus the centering term."""
        rewards, _ = self.runner.run(model, branches)
        rewards = rewards.view(-1, 2)  # [B, 2]
        chosen, rejected = rewards.unbind(1)
        losses = bradley_terry_loss(chosen, rejected, margin=inputs.get("margin"), margin_mode=self.args.margin_mode)
        if self.args.center_rewards_coefficient is not None:
            losses = losses + self.args.center_rewards_coefficient * (chosen + rejected).square()
        return losses, {
            "chosen_reward": chosen,
            "rejected_reward": rejected,
            "accuracy": (chosen > rejected).float(),
            "margin": chosen - rejected,
            "mean_reward": rewards.mean(1),
            "min_reward": rewards.amin(1),
            "max_reward": rewards.amax(1),
        }
