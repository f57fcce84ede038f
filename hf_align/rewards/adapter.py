"""A reward model as an adapter on the policy's base, without a second copy of the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import REWARD_ADAPTER, active_adapter, evaluation_mode
from hf_align.models.classifier import classifier_class
from hf_align.models.reward import RewardModel, head_outputs
from hf_align.models.reward_adapter import RewardAdapter
from hf_align.models.scoring import score_ids, score_texts
from hf_align.models.wrapper import BranchModel, unwrapped


class AdapterReward(BranchModel):
    """A reward model's LoRA adapter and head on a policy's base; scores as the reward model does.

    The policy computes, trains and saves as before: its own adapter stays active.

    Args:
        policy: A PeftModel, or one of our wrappers around it.
        reward: The folder or Hub id of a reward model's adapter, a `RewardModel` with one, or the adapter itself,
            trained on the same base.
        averages: Number of reward models whose weights it averages; 0: it is none's but its own.

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

    def __init__(
        self, policy: nn.Module, reward: str | os.PathLike[str] | RewardModel | RewardAdapter, *, averages: int = 0
    ):
        model = unwrapped(policy, keep_peft=True)
        if not isinstance(model, PeftModel):
            raise UserError(
                "A reward adapter needs a policy with LoRA; give peft_config, or load it with load_reward_model."
            )
        super().__init__(model)
        if isinstance(reward, RewardAdapter):
            source = reward
        else:
            source = (
                RewardAdapter.of_model(reward) if isinstance(reward, RewardModel) else RewardAdapter.of_folder(reward)
            )
        self.averages = averages
        self.tokenizer, self.reward_config = source.tokenizer, source.settings.config
        self.normalization = source.settings.normalization
        self.offset = 0.0 if self.normalization is None else self.normalization.offset
        count = sum(name.startswith(REWARD_ADAPTER) for name in model.peft_config)
        self.adapter = f"{REWARD_ADAPTER}{count + 1}" if count else REWARD_ADAPTER
        if problem := source.put_on(model, self.adapter):
            raise UserError(
                f"The reward adapter doesn't fit the policy's base: {problem}; load it with its own base "
                "(load_reward_model)."
            )
        self.head = source.make_head(cast(torch.device, model.device), torch.float32)

    def forward(self, branches: Branches) -> Tensor:
        """Rewards of all responses: `[S]` float32, in the order of `Branches.last`."""
        hidden = self._states(branches, self.adapter)
        outputs = head_outputs(hidden, branches, self.head, self.reward_config, self.offset)
        return self.reward_config.split(outputs).rewards

    def base_states(self, branches: Branches) -> Tensor:
        """As `RewardModel.base_states`."""
        return self._states(branches, None)

    def _states(self, branches: Branches, adapter: str | None) -> Tensor:
        """What the backbone gives `[R, T, d]`, which an LM head perhaps reads through a further layer."""
        policy = unwrapped(self.model)
        backbone = getattr(policy, classifier_class(policy.config).base_model_prefix)
        states: list[Tensor] = []
        hook = backbone.register_forward_hook(lambda module, args, output: states.append(output[0]))
        try:
            with active_adapter(self.model, adapter):
                before_head = self.forward_to_head(branches, policy.get_output_embeddings(), lambda hidden: hidden)
        finally:
            hook.remove()
        return states[0] if states else before_head  # OPT calls what is in its backbone, and no layer follows that

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
