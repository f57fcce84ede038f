"""The best models of a recorded run, by any metric: policy, value head and reward model that belong together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.loading import load_policy
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.sources import is_ensemble, load_tokenizer
from hf_align.models.value import PolicyWithValueHead
from hf_align.tracking import Checkpoint, best_checkpoint


@dataclass
class BestModels:
    """What `load_best` loaded.

    Attributes:
        checkpoint: The checkpoint, with its step and metrics.
        policy: The policy; None if the run trained a reward model.
        value: The policy with its value head, which holds `policy`; None if none was saved.
        reward: The reward model or ensemble that the run trained, or trained its policy on; None if that was a
            function, several rewards, or a judge.
        tokenizer: The trained model's.

    Example:
        >>> from hf_align import RewardConfig, RewardTrainer, load_best
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = RewardConfig("out", max_steps=2, save_steps=1, eval_steps=1, eval_strategy="steps")
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = RewardTrainer(model, args=config, train_dataset=rows, eval_dataset=rows)
        >>> trainer.train()
        >>> best = load_best("out", "eval_margin")
        >>> best.policy is None, len(best.reward.score(["The film was"], [" a joy."]))
        (True, 1)
    """

    checkpoint: Checkpoint
    policy: PreTrainedModel | PeftModel | None
    value: PolicyWithValueHead | None
    reward: RewardModel | RewardEnsemble | None
    tokenizer: PreTrainedTokenizerBase


def load_best(
    folder: str | os.PathLike[str],
    metric: str,
    greater_is_better: bool | None = None,
    *,
    quantization: Quantization = None,
) -> BestModels:
    """Load the models of the checkpoint with the best value of a metric, whatever the run chose its best model by.

    Args:
        folder: The folder of a run, with its record (`run.sqlite`).
        metric: Name of a metric that was measured at checkpoints, such as "eval_reward" or "eval_loss".
        greater_is_better: Default: known for the losses, accuracies, margins, rewards and judges of our algorithms.
        quantization: As in `load_policy`.

    Raises:
        UserError: There is no record, no checkpoint that is left has the metric, its direction isn't known, or a model
            can't be loaded.
    """
    checkpoint = best_checkpoint(folder, metric, greater_is_better)
    parts = {name: place.removeprefix("hub:") for name, place in checkpoint.parts.items()}
    value: PolicyWithValueHead | None = None
    policy: Any = None
    if "value" in parts:
        value = PolicyWithValueHead.from_pretrained(parts["value"], quantization=quantization)
        policy = value.model
    elif "policy" in parts:
        policy = load_policy(parts["policy"], quantization=quantization)
    reward: Any = None
    if (source := parts.get("reward")) is not None:
        if is_ensemble(source):
            reward = RewardEnsemble.from_pretrained(source, quantization=quantization)
        else:
            reward = load_reward_model(source, quantization=quantization)
    tokenizer = reward.tokenizer if policy is None else load_tokenizer(parts["policy"])
    return BestModels(checkpoint, policy, value, reward, tokenizer)
