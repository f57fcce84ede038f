"""A reward model as an adapter on the policy's base, without a second copy of the weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import REWARD_ADAPTER, active_adapter, adapter_name, add_adapter, evaluation_mode
from hf_align.models.classifier import classifier_class
from hf_align.models.fingerprint import (
    Fingerprint,
    fingerprint_of,
    listed,
    read_fingerprint,
    rewrites_base,
    unrecorded,
)
from hf_align.models.heads import attention_part, new_reward_head
from hf_align.models.pooling import pool
from hf_align.models.reward import RewardModel
from hf_align.models.reward_files import Settings, read_head
from hf_align.models.scoring import score_ids, score_texts
from hf_align.models.sources import adapter_config, base_of, load_tokenizer, plain_folder
from hf_align.models.wrapper import BranchModel, unwrapped

logger = logging.get_logger(__name__)

HEAD_PREFIX = "base_model.model.score."
HEADS_TO_SAVE = {"score", "classifier"}
"""Modules that peft trains and saves with any classifier's adapter."""


class AdapterReward(BranchModel):
    """A reward model's LoRA adapter and head on a policy's base; scores as the reward model does.

    The policy computes, trains and saves as before: its own adapter stays active.

    Args:
        policy: A PeftModel, or one of our wrappers around it.
        reward: The folder or Hub id of a reward model's adapter, or a `RewardModel` with one, trained on the same base.

    Raises:
        UserError: Either has no LoRA adapter, or the adapter doesn't fit the policy's base.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> from hf_align import RewardModel, load_policy
        >>> from hf_align.rewards import AdapterReward
        >>> base = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> reward_model = RewardModel.from_backbone(base, lora=LoraConfig(task_type="SEQ_CLS"))
        >>> policy = get_peft_model(load_policy(base), LoraConfig(task_type="CAUSAL_LM"))
        >>> reward = AdapterReward(policy, reward_model)
        >>> len(reward.score(["The film was"], [" a joy."]))
        1
    """

    def __init__(self, policy: nn.Module, reward: str | os.PathLike[str] | RewardModel):
        model = unwrapped(policy, keep_peft=True)
        if not isinstance(model, PeftModel):
            raise UserError(
                "A reward adapter needs a policy with LoRA; give peft_config, or load it with load_reward_model."
            )
        super().__init__(model)
        source = _Source.of_model(reward) if isinstance(reward, RewardModel) else _Source.of_folder(reward)
        if problem := misfit(model, source.config, source.base):
            raise UserError(
                f"The reward adapter doesn't fit the policy's base: {problem}; load it with its own base "
                "(load_reward_model)."
            )
        self.tokenizer, self.reward_config = source.tokenizer, source.settings.config
        self.offset = 0.0 if source.settings.normalization is None else source.settings.normalization.offset
        count = sum(name.startswith(REWARD_ADAPTER) for name in model.peft_config)
        self.adapter = f"{REWARD_ADAPTER}{count + 1}" if count else REWARD_ADAPTER
        self._add_adapter(model, source)
        size = next(tensor for tensor in source.head.values() if tensor.ndim == 2).shape[1]
        self.head = new_reward_head(self.reward_config, size, cast(torch.device, model.device))
        self.head.requires_grad_(False).load_state_dict(source.head)

    def _add_adapter(self, model: PeftModel, source: _Source) -> None:
        config: Any = source.config
        config.task_type, config.modules_to_save, config.init_lora_weights = "CAUSAL_LM", None, True
        try:
            add_adapter(model, self.adapter, config, trainable=False)
        except ValueError as error:  # no matching layers, or another kind of adapter
            raise UserError(f"The reward adapter doesn't fit the policy's base: {error}") from error
        expected = get_peft_model_state_dict(model, adapter_name=self.adapter, save_embedding_layers=False)
        if {n: t.shape for n, t in expected.items()} != {n: t.shape for n, t in source.weights.items()}:
            model.delete_adapter(self.adapter)
            raise UserError("The reward adapter doesn't fit the policy's base: its layers have other names or sizes.")
        set_peft_model_state_dict(model, source.weights, self.adapter)

    def forward(self, branches: Branches) -> Tensor:
        """Rewards of all responses: `[S]` float32, in the order of `Branches.last`."""
        policy = unwrapped(self.model)
        # A reward model's head reads the backbone's states, an LM head perhaps what another layer makes of them.
        backbone = getattr(policy, classifier_class(policy.config).base_model_prefix)
        states: list[Tensor] = []
        hook = backbone.register_forward_hook(lambda module, args, output: states.append(output[0]))
        try:
            with active_adapter(self.model, self.adapter):
                before_head = self.forward_to_head(branches, policy.get_output_embeddings(), lambda hidden: hidden)
        finally:
            hook.remove()
        hidden = states[0] if states else before_head  # OPT calls what is in its backbone, and no layer follows that
        with torch.autocast(hidden.device.type, enabled=False):
            pooled = pool(hidden, branches, self.reward_config.pooling, attention_part(self.head))
            return self.head(pooled.float())[:, 0] + self.offset

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[float]:
        """Score responses to prompts, as `RewardModel.score`."""
        with evaluation_mode(self):
            return score_texts(self, self.tokenizer, prompts, responses, finished, rows)

    def score_ids(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> list[float]:
        """Score token ids, as `RewardModel.score_ids`."""
        with evaluation_mode(self):
            return score_ids(self, list(zip(prompt_ids, response_ids, strict=True)), self.tokenizer.pad_token_id)


def shares_base(policy: nn.Module, path_or_hub_id: str | os.PathLike[str]) -> bool:
    """Whether this is a LoRA adapter on the base that the policy's own LoRA adapter sits on.

    Weights are compared; the name counts for an adapter without a record of its base's weights, and for a policy on
    the meta device, which has none to compare (a dry run's).
    """
    model, path = unwrapped(policy, keep_peft=True), str(path_or_hub_id)
    theirs = adapter_config(path)
    if not isinstance(model, PeftModel) or theirs is None:
        return False
    ours = model.peft_config[adapter_name(model)]
    if not ours.peft_type == theirs.peft_type == "LORA":
        return False
    outlined = any(parameter.is_meta for parameter in model.parameters())
    recorded = None if outlined else read_fingerprint(path)
    if problem := misfit(model, theirs, recorded):
        logger.info(f"{path} gets its own base, since it doesn't fit the policy's: {problem}.")
        return False
    if recorded is not None:
        return True
    if not ours.base_model_name_or_path or not theirs.base_model_name_or_path:
        return False
    first, second = plain_folder(ours.base_model_name_or_path), plain_folder(base_of(theirs, path))
    same = first == second or (os.path.isdir(first) and os.path.realpath(first) == os.path.realpath(second))
    if same and not outlined:
        logger.warning(unrecorded(path, "the policy's base"))
    return same


def misfit(model: PeftModel, config: PeftConfig, base: Fingerprint | None) -> str | None:
    """What keeps a reward adapter from computing on a policy's base what it computes on its own, in words.

    Args:
        model: The policy.
        config: The adapter's.
        base: The weights that it was trained on, if they are known.
    """
    modules = set(getattr(config, "modules_to_save", None) or ()) - HEADS_TO_SAVE
    if modules:
        return f"it has {', '.join(sorted(modules))} of its own (modules_to_save)"
    if getattr(config, "trainable_token_indices", None) is not None:
        return "it has tokens of its own (trainable_token_indices)"
    if getattr(config, "bias", "none") != "none":
        return "it has biases of its own (bias)"
    if rewrites_base(config) or any(map(rewrites_base, model.peft_config.values())):
        return "the start of one of their adapters has rewritten what it sits on (init_lora_weights)"
    if any(getattr(config, "trainable_token_indices", None) is not None for config in model.peft_config.values()):
        return "the policy has tokens of its own (trainable_token_indices), beside which peft loads no other adapter"
    names = [] if base is None else base.differing(fingerprint_of(model))
    return f"it was trained on another, {listed(names)}" if names else None


@dataclass
class _Source:
    """Adapter, head, pooling and tokenizer of a reward model, and the weights it was trained on if they are known."""

    config: PeftConfig
    base: Fingerprint | None
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    settings: Settings
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of_model(cls, reward: RewardModel) -> _Source:
        model = reward.model
        if not isinstance(model, PeftModel):
            raise UserError("This reward model has no LoRA adapter to put on the policy's base; use it as it is.")
        name = adapter_name(model)
        weights, head = _split(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
        config = copy.deepcopy(model.peft_config[name])
        base, head = fingerprint_of(model), head or reward.head.state_dict()
        return cls(config, base, weights, head, Settings(reward.reward_config, reward.normalization), reward.tokenizer)

    @classmethod
    def of_folder(cls, path_or_hub_id: str | os.PathLike[str]) -> _Source:
        path = str(path_or_hub_id)
        config = adapter_config(path)
        if config is None:
            raise UserError(f"{path} is no LoRA adapter to put on the policy's base; use load_reward_model.")
        weights, head = _split(load_peft_weights(path, device="cpu"))
        settings = Settings.read(path)
        head = (None if settings is None else read_head(path)) or head
        if not head:
            raise UserError(f"The adapter in {path} has no reward head (score); train it with RewardTrainer.")
        base, tokenizer = read_fingerprint(path), load_tokenizer(path)
        return cls(config, base, weights, head, settings or Settings(), tokenizer)


def _split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An adapter's weights in layers, and those of the reward head saved with it."""
    head = {name.removeprefix(HEAD_PREFIX): t for name, t in weights.items() if name.startswith(HEAD_PREFIX)}
    return {name: t for name, t in weights.items() if ".lora_" in name}, head
