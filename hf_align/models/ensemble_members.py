"""Members of an ensemble: loaded so that what they share is in memory, and computed, once."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.encodings import encoding_difference
from hf_align.models.heads import head_dtype
from hf_align.models.kinds import no_head
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.reward_adapter import RewardAdapter, SharedHeads, SharedRewardModel, shares_base
from hf_align.models.scoring import Encoded, outputs_of
from hf_align.models.sources import adapter_config, is_ensemble, plain_folder
from hf_align.models.wrapper import BranchModel

logger = logging.get_logger(__name__)

NOT_WEIGHTS = {"_name_or_path", "transformers_version", "pad_token_id", "dtype", "architectures", "problem_type"}
"""Entries of a config that say nothing about what a backbone computes."""


def load_members(
    sources: Sequence[Any],
    *,
    quantization: Quantization = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> list[Any]:
    """Load an ensemble's members, each onto the backbone of an earlier one if that is its own.

    Args:
        sources: Reward models, their folders or Hub ids, or other objects with a `score` like theirs. A reward model in
            memory becomes a member itself, or a new one on an earlier member's backbone; it isn't changed, but that
            backbone's PeftModel gets further adapters.
        quantization: As in `load_policy`, for folders.
        dtype: As in `load_policy`, for folders.
        device_map: As in `load_policy`, for folders.

    Raises:
        UserError: Something can't be loaded, or is no reward model.
    """
    members: list[Any] = []
    for number, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            settings = {"quantization": quantization, "dtype": dtype, "device_map": device_map}
            members.append(_load(str(source), members, settings))
        elif isinstance(source, RewardModel):
            members.append(_shared(source, members) or source)
        elif callable(getattr(source, "score", None)) and hasattr(source, "tokenizer"):
            members.append(source)
        else:
            raise UserError(
                f"members[{number}] is a {type(source).__name__}; give reward models, their folders or their Hub ids."
            )
    return members


def _load(path: str, members: Sequence[Any], settings: dict[str, Any]) -> RewardModel:
    """A folder's reward model, on an earlier member's backbone if possible."""
    if is_ensemble(path):
        raise UserError(f"{path} is an ensemble itself; give its members, as in {path}/member-0.")
    if adapter_config(plain_folder(path)) is not None:
        for trunk in _trunks(members):
            if shares_base(trunk.model, path):
                source = RewardAdapter.of_folder(path)
                if member := _put_on(trunk, source, head_dtype(trunk.head)):
                    return member
    loaded = RewardModel.from_pretrained(path, **settings)
    if loaded.head_is_new:
        raise no_head(path)
    return _shared(loaded, members) or loaded


def _shared(reward: RewardModel, members: Sequence[Any]) -> RewardModel | None:
    """A reward model on an earlier member's backbone, or None if none is its own."""
    if any(reward is member for member in members):
        raise UserError("One reward model is in members twice; give each once, or weights.")
    if isinstance(reward, SharedRewardModel) and any(reward.model is member.model for member in _trunks(members)):
        return None  # it is there already
    for trunk in _trunks(members):
        if isinstance(trunk.model, PeftModel) and isinstance(reward.model, PeftModel):
            try:
                source = RewardAdapter.of_model(reward)
            except UserError:
                return None
            if member := _put_on(trunk, source, None):
                return member
        elif not isinstance(reward.model, PeftModel) and _same_backbone(trunk, reward):
            head, model = copy.deepcopy(reward.head), cast(PreTrainedModel, trunk.model)
            return SharedRewardModel(model, reward.tokenizer, head, reward.reward_config, reward.normalization)
    return None


def _trunks(members: Sequence[Any]) -> list[RewardModel]:
    """The members whose backbone others may sit on, each backbone once."""
    models: dict[int, RewardModel] = {}
    for member in members:
        if isinstance(member, RewardModel):
            models.setdefault(id(member.model), member)
    return list(models.values())


def _put_on(trunk: RewardModel, source: RewardAdapter, dtype: torch.dtype | None) -> RewardModel | None:
    """An adapter and its head as a reward model on a trunk's base; None if they don't fit there."""
    model = cast(PeftModel, trunk.model)
    name = f"member-{len(model.peft_config)}"
    if problem := source.put_on(model, name):
        logger.info(f"A member gets its own base, since it doesn't fit the one of an earlier member: {problem}.")
        return None
    head, settings = source.make_head(cast(torch.device, model.device), dtype), source.settings
    options: dict[str, Any] = {"adapter": name, "adapter_config": source.config}
    return SharedRewardModel(model, source.tokenizer, head, settings.config, settings.normalization, **options)


def _same_backbone(first: RewardModel, second: RewardModel) -> bool:
    """Whether two classifiers without adapters have the same config and, bit for bit, the same weights but the head."""
    if isinstance(first.model, PeftModel) or type(first.model).__name__ != type(second.model).__name__:
        return False
    configs = [{n: v for n, v in each.config.to_dict().items() if n not in NOT_WEIGHTS} for each in (first, second)]
    weights = [
        {n: t for n, t in each.model.state_dict().items() if not n.startswith("score.")} for each in (first, second)
    ]
    return (
        configs[0] == configs[1]
        and weights[0].keys() == weights[1].keys()
        and all(
            (t.device, t.dtype) == (weights[1][name].device, weights[1][name].dtype)
            and torch.equal(t, weights[1][name])
            for name, t in weights[0].items()
        )
    )


@dataclass(frozen=True)
class Pass:
    """Members that are computed together: several heads on one backbone, or one member.

    Attributes:
        numbers: Their places among the members.
        scorer: The member, or its heads.
        tokenizer: Its tokenizer.
        encoding: Number of the way in which it encodes texts; equal for tokenizers that agree.
        takes_ids: Whether it scores token ids.
    """

    numbers: list[int]
    scorer: Any
    tokenizer: PreTrainedTokenizerBase
    encoding: int
    takes_ids: bool

    @property
    def reads_branches(self) -> bool:
        """Whether it reads texts as the tokens of `encode_texts`."""
        return isinstance(self.scorer, BranchModel)

    def score_ids(self, encoded: Sequence[Encoded]) -> Tensor:
        """Scores `[members, R]` of prompts and responses given as token ids."""
        if not encoded:
            return torch.zeros(len(self.numbers), 0)
        if not isinstance(self.scorer, SharedHeads):
            prompts, responses = zip(*encoded, strict=True)
            return torch.tensor(self.scorer.score_ids(prompts, responses))[None]
        heads = self.scorer
        with evaluation_mode(heads):
            rewards = outputs_of(heads, encoded, self.tokenizer.pad_token_id, lambda branches: [*heads(branches).cpu()])
        return torch.stack(rewards, 1)


def passes_of(members: Sequence[Any]) -> list[Pass]:
    """The passes that compute all members."""
    tokenizers: list[PreTrainedTokenizerBase] = []
    encodings: list[int] = []
    for member in members:
        same = next((n for n, each in enumerate(tokenizers) if not encoding_difference(each, member.tokenizer)), None)
        encodings.append(len(tokenizers) if same is None else same)
        if same is None:
            tokenizers.append(member.tokenizer)
    together: dict[Any, list[int]] = {}
    for number, member in enumerate(members):
        heads = isinstance(member, RewardModel) and not isinstance(member.model, PeftModel)
        together.setdefault((id(member.model), encodings[number]) if heads else number, []).append(number)
    passes = []
    for numbers in together.values():
        member = members[numbers[0]]
        scorer = SharedHeads([members[n] for n in numbers]) if len(numbers) > 1 else member
        takes_ids = isinstance(member, BranchModel) or (
            hasattr(member, "score_ids") and getattr(member, "reads_end", True)
        )
        passes.append(Pass(numbers, scorer, member.tokenizer, encodings[numbers[0]], takes_ids))
    return passes


class PromptStates(BranchModel):
    """The last hidden state of each prompt, of the backbone without adapter of a reward model.

    Args:
        member: A reward model, or one on a policy's base.
    """

    def __init__(self, member: Any):
        super().__init__(member.model)
        self.member = member

    def forward(self, branches: Branches) -> Tensor:
        """`[S, d]`, where each of S prompts has one response."""
        return self.member.base_states(branches).flatten(0, 1)[branches.last - 1]


def prompt_states(states: PromptStates, tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded]) -> Tensor:
    """States `[R, d]` of the prompts of R responses; each prompt is computed once."""
    prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in encoded))
    number = {prompt: n for n, prompt in enumerate(prompts)}
    with evaluation_mode(states):
        # A token after the prompt, whose state doesn't depend on it.
        rows = [(prompt, prompt[-1:]) for prompt in prompts]
        found = outputs_of(states, rows, tokenizer.pad_token_id, lambda branches: [*states(branches).float().cpu()])
    return torch.stack(found)[[number[tuple(prompt)] for prompt, _ in encoded]]
