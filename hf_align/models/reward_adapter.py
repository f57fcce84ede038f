"""Reward models that share a backbone: an adapter of their own on it, or none, and their own head."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError, reason_of
from hf_align.files import ADAPTER_WEIGHTS
from hf_align.layout.branches import Branches
from hf_align.models.adapter_config import sort_names
from hf_align.models.adapters import active_adapter, adapter_name, add_adapter
from hf_align.models.fingerprint import (
    Fingerprint,
    fingerprint_of,
    listed,
    read_fingerprint,
    rewrites_base,
    unrecorded,
    write_fingerprint,
)
from hf_align.models.heads import new_reward_head
from hf_align.models.normalization import Normalization
from hf_align.models.reward import RewardModel, head_outputs, merge_saved
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.reward_files import Settings, read_head
from hf_align.models.sources import adapter_config, base_of, load_tokenizer, plain_folder
from hf_align.models.vocabulary import carry_embeddings
from hf_align.models.wrapper import BranchModel, unwrapped

logger = logging.get_logger(__name__)

HEAD_PREFIX = "base_model.model.score."
HEADS_TO_SAVE = {"score", "classifier"}
"""Modules that peft trains and saves with any classifier's adapter."""


@dataclass
class RewardAdapter:
    """What a reward model has besides its base.

    Attributes:
        config: The adapter's config, as it is saved.
        base: The weights that it was trained on, if they are known.
        weights: The adapter's weights by peft's names.
        head: The head's weights.
        settings: Pooling, head and normalisation.
        tokenizer: The tokenizer.
    """

    config: PeftConfig
    base: Fingerprint | None
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    settings: Settings
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of_model(cls, reward: RewardModel) -> RewardAdapter:
        """That of a reward model with one adapter.

        Raises:
            UserError: It has none, or its head has an adapter in it.
        """
        model = reward.model
        if not isinstance(model, PeftModel) or (isinstance(reward, SharedRewardModel) and reward.adapter is None):
            raise UserError("This reward model has no LoRA adapter to put on another's base; use it as it is.")
        if any(isinstance(module, BaseTunerLayer) for module in reward.head.modules()):
            raise UserError("This reward model's head has an adapter in it (target_modules names it); merge it first.")
        if isinstance(reward, SharedRewardModel):
            name, config = cast(str, reward.adapter), reward.adapter_config
        else:
            name = adapter_name(model)
            config = model.peft_config[name]
        weights, head = _split(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
        if isinstance(reward, SharedRewardModel) or not head:
            head = reward.head.state_dict()
        settings = Settings(reward.reward_config, reward.normalization)
        return cls(copy.deepcopy(cast(Any, config)), fingerprint_of(model), weights, head, settings, reward.tokenizer)

    @classmethod
    def of_folder(cls, path_or_hub_id: str | os.PathLike[str]) -> RewardAdapter:
        """That in a folder or Hub repository; its base isn't loaded.

        Raises:
            UserError: There is no adapter, or it has no head.
        """
        path = str(path_or_hub_id)
        config = adapter_config(path)
        if config is None:
            raise UserError(f"{path} is no LoRA adapter to put on another model's base; use load_reward_model.")
        weights, head = _split(load_peft_weights(path, device="cpu"))
        settings = Settings.read(path)
        head = (None if settings is None else read_head(path)) or head
        if not head:
            raise UserError(f"The adapter in {path} has no reward head (score); train it with RewardTrainer.")
        return cls(config, read_fingerprint(path), weights, head, settings or Settings(), load_tokenizer(path))

    def put_on(self, model: PeftModel, name: str) -> str | None:
        """Add the adapter to a model that has its base; which adapter is active there stays.

        Args:
            model: The model.
            name: Name of the adapter there.

        Returns:
            Why it doesn't fit, in words; the model is then unchanged. None: it is added.
        """
        if problem := misfit(model, self.config, self.base):
            return problem
        config: Any = copy.deepcopy(self.config)
        config.task_type, config.modules_to_save, config.init_lora_weights = "CAUSAL_LM", None, True
        try:
            add_adapter(model, name, config, trainable=False)
        except ValueError as error:  # no matching layers, or another kind of adapter
            return reason_of(error)
        expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        if {n: t.shape for n, t in expected.items()} != {n: t.shape for n, t in self.weights.items()}:
            model.delete_adapter(name)
            return "its layers have other names or sizes"
        set_peft_model_state_dict(model, self.weights, name)
        return None

    def make_head(self, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
        """The head as a module that isn't trained; `dtype` default: the stored one."""
        matrix = next(tensor for tensor in self.head.values() if tensor.ndim == 2)
        head = new_reward_head(self.settings.config, matrix.shape[1], device).to(dtype or matrix.dtype)
        head.load_state_dict(self.head)
        return head.requires_grad_(False)


def _split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An adapter's weights in layers, and those of the reward head saved with it."""
    head = {name.removeprefix(HEAD_PREFIX): t for name, t in weights.items() if name.startswith(HEAD_PREFIX)}
    return {name: t for name, t in weights.items() if ".lora_" in name}, head


def misfit(model: PeftModel, config: PeftConfig, base: Fingerprint | None) -> str | None:
    """What keeps a reward adapter from computing on a model's base what it computes on its own, in words.

    Args:
        model: The model that is to get it: a policy, or another reward model.
        config: The adapter's.
        base: The weights that it was trained on, if they are known.
    """
    modules = set(getattr(config, "modules_to_save", None) or ()) - HEADS_TO_SAVE
    others = list(model.peft_config.values())
    if modules:
        return f"it has {', '.join(sorted(modules))} of its own (modules_to_save)"
    if getattr(config, "trainable_token_indices", None) is not None:
        return "it has tokens of its own (trainable_token_indices)"
    if getattr(config, "bias", "none") != "none":
        return "it has biases of its own (bias)"
    if any(getattr(other, "bias", "none") != "none" for other in others):
        return "the other model's adapter has changed biases of the base (bias)"
    if rewrites_base(config) or any(map(rewrites_base, others)):
        return "the start of one of their adapters has rewritten what it sits on (init_lora_weights)"
    if any(getattr(other, "trainable_token_indices", None) is not None for other in others):
        return "the other model has tokens of its own (trainable_token_indices), beside which peft loads no adapter"
    names = [] if base is None else base.differing(fingerprint_of(model))
    return f"it was trained on another, {listed(names)}" if names else None


class SharedRewardModel(RewardModel):
    """A reward model on another's backbone: it computes, saves and loads as it would alone.

    Args:
        model: The backbone's classifier or its PeftModel; its own head and active adapter stay as they are.
        tokenizer: This reward model's tokenizer.
        head: Its head, float32 as a rule.
        config: Its pooling and head.
        normalization: As in `RewardModel`.
        adapter: Name of its adapter in the PeftModel; None: it computes on the base.
        adapter_config: The adapter's config to save.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        head: nn.Module,
        config: RewardModelConfig,
        normalization: Normalization | None = None,
        *,
        adapter: str | None = None,
        adapter_config: PeftConfig | None = None,
    ):
        super().__init__(model, tokenizer, config, normalization)
        self.own_head, self.adapter, self.adapter_config = head, adapter, adapter_config

    @property
    def head(self) -> nn.Module:
        """Its own head."""
        return self.own_head

    def forward(self, branches: Branches, *, every_token: bool = False) -> Tensor:
        """As `RewardModel.forward`."""
        head, config, offset = self.own_head, self.reward_config, self.offset
        with active_adapter(self.model, self.adapter):
            return self.forward_to_head(
                branches,
                unwrapped(self).score,
                lambda hidden: head_outputs(hidden, branches, head, config, offset, every_token=every_token),
            )

    def save_pretrained(
        self, directory: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save it as it would be saved alone: its adapter, or with the base if it has none.

        Args:
            directory: The folder.
            state_dict: Not used: the backbone isn't sharded.
            kwargs: As in `RewardModel.save_pretrained`; without an effect on an adapter.
        """
        if self.adapter is None:
            with self._head_in_place():
                weights = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
                super().save_pretrained(directory, weights, **kwargs)
            return
        folder, model = Path(directory), cast(PeftModel, self.model)
        folder.mkdir(parents=True, exist_ok=True)
        source = RewardAdapter.of_model(self)
        config: Any = source.config
        config.inference_mode = True  # as peft saves it
        config.base_model_name_or_path = config.base_model_name_or_path or getattr(unwrapped(self), "name_or_path", "")
        config.save_pretrained(str(folder))
        sort_names(config, folder)
        with_adapter = "score" in (config.modules_to_save or ())
        saved = {f"{HEAD_PREFIX}{name}": weight for name, weight in source.head.items()} if with_adapter else {}
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in (source.weights | saved).items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS, {"format": "pt"})
        write_fingerprint(model, folder)
        carry_embeddings(model, folder)
        self.save_settings(folder, None if with_adapter else source.head)

    @contextmanager
    def _head_in_place(self) -> Iterator[None]:
        """The backbone has this head as its own."""
        model = unwrapped(self)
        theirs, model.score = model.score, self.own_head
        try:
            yield
        finally:
            model.score = theirs

    def merged(self, dtype: torch.dtype = torch.float32) -> RewardModel:
        """As `RewardModel.merged`, with the base loaded again."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return merge_saved(folder, dtype) if self.adapter else RewardModel.from_pretrained(folder, dtype=dtype)


class SharedHeads(BranchModel):
    """Reward models that are different heads on one frozen backbone, computed in one pass over it.

    Args:
        members: The first with the backbone's own head, the others put on it.
    """

    def __init__(self, members: Sequence[RewardModel]):
        super().__init__(members[0].model)
        self.members = nn.ModuleList(members)

    def forward(self, branches: Branches) -> Tensor:
        """Rewards of all responses by each of M members, `[S, M]`; each as from the member's own pass."""
        head = unwrapped(self).score
        original = head.forward

        def compute(hidden: Tensor) -> Tensor:
            rewards = []
            for member in cast(Iterable[RewardModel], self.members):
                own = original if member.head is head else None
                outputs = head_outputs(hidden, branches, member.head, member.reward_config, member.offset, own)
                rewards.append(member.split(outputs).rewards)
            return torch.stack(rewards, 1)

        return self.forward_to_head(branches, head, compute)


def shares_base(model: nn.Module, path_or_hub_id: str | os.PathLike[str]) -> bool:
    """Whether this is a LoRA adapter on the base that a model's own LoRA adapter sits on.

    Weights are compared; the name counts for an adapter without a record of its base's weights, and for a model on the
    meta device, which has none to compare (a dry run's).
    """
    model, path = unwrapped(model, keep_peft=True), str(path_or_hub_id)
    theirs = adapter_config(path)
    if not isinstance(model, PeftModel) or theirs is None:
        return False
    ours = model.peft_config[adapter_name(model)]
    if not ours.peft_type == theirs.peft_type == "LORA":
        return False
    outlined = any(parameter.is_meta for parameter in model.parameters())
    recorded = None if outlined else read_fingerprint(path)
    if problem := misfit(model, theirs, recorded):
        logger.info(f"{path} gets its own base, since it doesn't fit the other model's: {problem}.")
        return False
    if recorded is not None:
        return True
    if not ours.base_model_name_or_path or not theirs.base_model_name_or_path:
        return False
    first, second = plain_folder(ours.base_model_name_or_path), plain_folder(base_of(theirs, path))
    same = first == second or (os.path.isdir(first) and os.path.realpath(first) == os.path.realpath(second))
    if same and not outlined:
        logger.warning(unrecorded(path, f"the base in memory ({first})"))
    return same
