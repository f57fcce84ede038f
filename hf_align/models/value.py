"""A policy with a value head: log-probs and state values of response tokens in one call.

The value of response token n is that of the state before it: the prompt and the tokens before n. It comes from the
hidden state that also predicts the token, so with a shared trunk both take one pass.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_align.errors import UserError
from hf_align.files import VALUE_ADAPTER_FOLDER, VALUE_HEAD, VALUE_MODEL_FOLDER
from hf_align.layout.branches import Branches
from hf_align.models.adapter_config import sort_names
from hf_align.models.adapters import (
    VALUE_ADAPTER,
    active_adapter,
    adapter_name,
    adapter_parameters,
    add_adapter,
    float32_trainable,
)
from hf_align.models.fingerprint import check_base, fingerprint_of, listed, untuned
from hf_align.models.heads import linear_layers, new_value_head, reward_part
from hf_align.models.loading import load_policy
from hf_align.models.modeling_hf_align_reward import HEADS
from hf_align.models.policy import ReferenceHead, logps_of_full_logits, score_tokens
from hf_align.models.quantized import keep_unpacked
from hf_align.models.randomness import dropout_as_loaded
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import check_file
from hf_align.models.wrapper import BranchModel

ValueModel = Literal["shared", "adapter", "separate"]
HeadKind = Literal["linear", "mlp"]


class HeadOnAModel(Protocol):
    """The parts of a reward model, or of an adapter on the policy's base, from which a value head starts."""

    model: nn.Module
    reward_config: RewardModelConfig

    @property
    def offset(self) -> float:
        """What is added to the head's output."""
        ...

    @property
    def head(self) -> nn.Module:
        """The module that turns a hidden state into a score."""
        ...


class PolicyWithValueHead(BranchModel):
    """Wrapper of a causal language model (or its PeftModel) with a value head.

    Args:
        model: The policy.
        value_model: Source of the valued hidden states. "shared" (default): the policy. "adapter": the same base with a
            separate LoRA adapter, shaped like the policy's, in a second pass. "separate": another model.
        head: "linear" (default), or "mlp" (d -> d/2, ReLU, dropout 0.1, -> 1). Float32. All values start
            at 0.
        detach_value_trunk: The value loss trains only the head, not the policy's trunk; only for "shared".
        value_backbone: For "separate": a causal language model or its PeftModel, trained in place. Default: a copy of
            the policy.

    Raises:
        UserError: An unknown name, an adapter without a PeftModel, or an argument that doesn't apply to the value
            model.

    Example:
        >>> from hf_align import PolicyWithValueHead, load_policy
        >>> policy = PolicyWithValueHead(load_policy("HuggingFaceTB/SmolLM2-135M-Instruct"), head="mlp")
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        value_model: ValueModel = "shared",
        head: HeadKind = "linear",
        detach_value_trunk: bool = False,
        value_backbone: PreTrainedModel | PeftModel | None = None,
    ):
        super().__init__(model)
        if value_model not in ("shared", "adapter", "separate"):
            raise UserError(f"value_model is {value_model!r}; use 'shared', 'adapter' or 'separate'.")
        if head not in HEADS:
            raise UserError(f"The value head is {head!r}; use 'linear' or 'mlp'.")
        if value_model != "shared" and detach_value_trunk:
            raise UserError(f"detach_value_trunk is for value_model='shared'; {value_model!r} has a separate trunk.")
        if value_model != "separate" and value_backbone is not None:
            raise UserError(f"value_backbone is for value_model='separate', not for {value_model!r}.")
        self.value_model, self.head_kind, self.detach_value_trunk = value_model, head, detach_value_trunk
        keep_unpacked(model)
        self.value_backbone: BranchModel | None = None
        if value_model == "adapter":
            self._add_value_adapter()
        elif value_model == "separate":
            backbone: Any = copy.deepcopy(model) if value_backbone is None else value_backbone
            keep_unpacked(backbone)
            float32_trainable(backbone)
            lm_head = backbone.get_output_embeddings()
            if untuned(lm_head).weight is not untuned(backbone.get_input_embeddings()).weight:
                lm_head.requires_grad_(False)  # values don't use it, and an unused trained weight would stop DDP
            self.value_backbone = BranchModel(backbone)
        lm_head = cast(
            Any, (self.value_backbone or self).model
        ).get_output_embeddings()  # values are computed from its inputs
        self.value_head = new_value_head(head, untuned(lm_head).in_features, cast(torch.device, model.device))

    def _add_value_adapter(self) -> None:
        if not isinstance(self.model, PeftModel):
            raise UserError(
                "value_model='adapter' needs a policy with LoRA: give lora (peft_config), or use 'shared' or "
                "'separate'."
            )
        if VALUE_ADAPTER not in self.model.peft_config:
            config: Any = copy.deepcopy(self.model.peft_config[adapter_name(self.model)])
            config.init_lora_weights, config.modules_to_save = (
                True,
                None,
            )  # other values would change the base's weights
            add_adapter(self.model, VALUE_ADAPTER, config, trainable=True)
        _train_adapter(self.model)

    # ---- forward ----

    def forward(
        self,
        branches: Branches,
        *,
        temperature: float = 1.0,
        return_entropy: bool = False,
        entropy_grad: bool = False,
        return_values: bool = True,
        return_states: bool = False,
        reference: ReferenceHead | None = None,
        full_logits: bool = False,
    ) -> dict[str, Tensor]:
        """Log-probs, values and entropies of all response tokens.

        Args:
            branches: The prompts and responses.
            temperature: Sampling temperature that log-probs and entropy refer to.
            return_entropy: Also return the entropy of each token's distribution.
            entropy_grad: Whether the entropy is differentiable (an entropy bonus) or only logged.
            return_values: False leaves out the values, which a reference lacks.
            return_states: Also return the hidden states `[N, d]` before the LM head, for a `ReferenceHead`.
            reference: Also return the exact KL from it.
            full_logits: Only log-probs, from the model's own `[R, T, vocab]` logits: slow, as a check.

        Returns:
            `logps`, `values` and, if requested, `entropy`, `kl` and `states`: `[N]` float32 (states `[N, d]`), in the
            order of `Branches.targets`.
        """
        if full_logits:
            return {"logps": logps_of_full_logits(self, branches)}
        scores = score_tokens(
            self,
            branches,
            temperature=temperature,
            return_entropy=return_entropy,
            entropy_grad=entropy_grad,
            reference=reference,
        )
        result = {"logps": scores.logps}
        if return_values:
            states = self._value_states(branches, scores.states)
            with torch.autocast(states.device.type, enabled=False):
                result["values"] = self.value_head(states.float())[:, 0]
        others = {"entropy": scores.entropy, "kl": scores.kl, "states": scores.states if return_states else None}
        return result | {name: tensor for name, tensor in others.items() if tensor is not None}

    def _value_states(self, branches: Branches, policy_states: Tensor) -> Tensor:
        """The hidden states to compute values from: `[N, d]`."""
        if self.value_model == "shared":
            return policy_states.detach() if self.detach_value_trunk else policy_states
        if self.value_model == "adapter":
            with active_adapter(self.model, VALUE_ADAPTER):
                return _predicting_states(self, branches)
        return _predicting_states(cast(BranchModel, self.value_backbone), branches)

    # ---- parameters ----

    def value_parameters(self) -> list[nn.Parameter]:
        """Parameters trained only for the values: the head, with the value adapter or the separate model."""
        backbone = () if self.value_backbone is None else self.value_backbone.parameters()
        parts = [*self.value_head.parameters(), *adapter_parameters(self.model, VALUE_ADAPTER), *backbone]
        return [parameter for parameter in parts if parameter.requires_grad]

    def init_from_reward(self, reward_model: HeadOnAModel, adapter: str | None = None) -> None:
        """Start from a reward model's head instead of zero.

        A value adapter also copies the reward model's adapter if it has the same shape; initial values are then the
        reward model's scores of the unfinished responses.

        Args:
            reward_model: A reward model with a head of this kind and size that scores the last token.
            adapter: The name of its adapter. Default: the active one.

        Raises:
            UserError: Its head, size or pooling differs, or it has a length penalty.
        """
        config = reward_model.reward_config
        if config.pooling != "last" or config.head != self.head_kind:
            raise UserError(
                f"A {self.head_kind} value head can't start from a reward model with a {config.head} head and "
                f"{config.pooling!r} pooling."
            )
        if config.length_penalty:
            raise UserError("The reward model has a length penalty, which a value head can't hold; start from zero.")
        sources = linear_layers(reward_part(reward_model.head))
        for linear, source in zip(linear_layers(self.value_head), sources, strict=True):
            if linear.weight.shape != source.weight.shape:
                raise UserError(
                    f"The reward model's hidden size is {source.in_features}, the value model's {linear.in_features}."
                )
            with torch.no_grad():
                linear.weight.copy_(source.weight)
                linear.bias.zero_()
                if source.bias is not None:
                    linear.bias.copy_(source.bias)
        linear_layers(self.value_head)[-1].bias.data += reward_model.offset
        if self.value_model == "adapter" and isinstance(reward_model.model, PeftModel):
            _copy_adapter(reward_model.model, adapter or adapter_name(reward_model.model), cast(PeftModel, self.model))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None, **kwargs: Any) -> None:
        """Recompute activations in the backward pass: of the policy, and of a separate value model."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: Any = None, **kwargs: Any) -> None:
        """Recompute activations in the backward pass: of the policy, and of a separate value model."""
        for wrapper in self._wrappers():
            cast(Any, wrapper.model).activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self.activation_checkpointing_disable()

    def activation_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        for wrapper in self._wrappers():
            cast(Any, wrapper.model).activation_checkpointing_disable()

    def _wrappers(self) -> Sequence[BranchModel]:
        return [self] if self.value_backbone is None else [self, self.value_backbone]

    # ---- saving ----

    def save_pretrained(
        self, directory: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save the policy as plain transformers or peft would, and the value head beside it.

        The folder loads with `AutoModelForCausalLM` or peft. `value_head.safetensors` holds the head; a value adapter
        is in the subfolder `value`, a separate value model in `value_model`.
        """
        directory = Path(directory)
        weights = None if state_dict is None else {n: t for n, t in state_dict.items() if n.startswith("model.")}
        super().save_pretrained(directory, weights, **kwargs)
        head = _below(state_dict, "value_head.") or self.value_head.state_dict()
        settings = {"value_model": self.value_model, "head": self.head_kind, "detach": str(self.detach_value_trunk)}
        save_file({name: tensor.contiguous() for name, tensor in head.items()}, directory / VALUE_HEAD, settings)
        if self.value_model == "adapter":
            weights, model = _below(state_dict, "model."), cast(PeftModel, self.model)
            model.save_pretrained(str(directory), selected_adapters=[VALUE_ADAPTER], state_dict=weights)
            sort_names(model.peft_config[VALUE_ADAPTER], directory / VALUE_ADAPTER_FOLDER)
        elif self.value_backbone is not None:
            with dropout_as_loaded(self):  # of the whole, which knows what the backbone's config said
                self.value_backbone.save_pretrained(
                    directory / VALUE_MODEL_FOLDER, _below(state_dict, "value_backbone.")
                )

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | os.PathLike[str], **kwargs: Any) -> PolicyWithValueHead:
        """Load a policy saved by `save_pretrained`.

        Args:
            path_or_hub_id: The folder, or a Hub id.
            kwargs: `quantization`, `dtype`, `device_map` as in `load_policy`.

        Raises:
            UserError: There is no value head.
        """
        folder = Path(path_or_hub_id)
        if not folder.is_dir():
            wanted = [VALUE_HEAD, f"{VALUE_ADAPTER_FOLDER}/*", f"{VALUE_MODEL_FOLDER}/*"]
            folder = Path(snapshot_download(str(path_or_hub_id), allow_patterns=wanted))
        settings = _settings(folder)
        separate = settings["value_model"] == "separate"
        model = cls(
            load_policy(path_or_hub_id, **kwargs),
            value_model=cast(ValueModel, settings["value_model"]),
            head=cast(HeadKind, settings["head"]),
            detach_value_trunk=settings["detach"] == "True",
            value_backbone=load_policy(folder / VALUE_MODEL_FOLDER, **kwargs) if separate else None,
        )
        model.value_head.load_state_dict(load_file(folder / VALUE_HEAD))
        if settings["value_model"] == "adapter":
            _load_adapter(cast(PeftModel, model.model), folder / VALUE_ADAPTER_FOLDER)
        return model

    def load_value(self, directory: str | os.PathLike[str]) -> None:
        """Load the weights of a saved value head, with its adapter or separate model; the policy isn't changed.

        Raises:
            UserError: The folder has no value head, or one of another kind.
        """
        folder = Path(directory)
        settings = _settings(folder)
        if (settings["value_model"], settings["head"]) != (self.value_model, self.head_kind):
            raise UserError(
                f"The value head in {folder} is {settings['head']}, {settings['value_model']}; this one is "
                f"{self.head_kind}, {self.value_model}."
            )
        self.value_head.load_state_dict(load_file(folder / VALUE_HEAD))
        if self.value_model == "adapter":
            _load_adapter(cast(PeftModel, self.model), folder / VALUE_ADAPTER_FOLDER)
        elif self.value_backbone is not None and isinstance(self.value_backbone.model, PeftModel):
            model = self.value_backbone.model
            check_base(model, folder / VALUE_MODEL_FOLDER, "the value model")
            set_peft_model_state_dict(model, load_peft_weights(str(folder / VALUE_MODEL_FOLDER)), adapter_name(model))
        elif self.value_backbone is not None:
            saved = load_policy(folder / VALUE_MODEL_FOLDER, dtype=torch.float32)
            self.value_backbone.model.load_state_dict(saved.state_dict())


def _predicting_states(wrapper: BranchModel, batch: Branches) -> Tensor:
    """The hidden states `[N, d]` before a wrapped model's LM head that predict the response tokens."""
    head = cast(Any, wrapper.model).get_output_embeddings()
    return wrapper.forward_to_head(batch, head, lambda hidden: hidden.flatten(0, 1)[batch.predictors])


def _copy_adapter(source: PeftModel, name: str, target: PeftModel) -> None:
    """Copy the adapter `name` of `source` to the value adapter of `target`, if they have the same shape."""
    weights = get_peft_model_state_dict(source, adapter_name=name)
    weights = {name: tensor for name, tensor in weights.items() if ".lora_" in name}
    expected = get_peft_model_state_dict(target, adapter_name=VALUE_ADAPTER)
    if {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }:
        if names := fingerprint_of(source).differing(fingerprint_of(target)):
            raise UserError(
                f"Values can't start from this reward model: it was trained on another base than the policy's, "
                f"{listed(names)}; set value_init to 'zero'."
            )
        set_peft_model_state_dict(target, weights, VALUE_ADAPTER)


def _load_adapter(model: PeftModel, folder: Path) -> None:
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), VALUE_ADAPTER)
    _train_adapter(model)


def _train_adapter(model: PeftModel) -> None:
    for parameter in adapter_parameters(model, VALUE_ADAPTER):
        parameter.requires_grad_(True)
    for parameter in adapter_parameters(cast(Any, model).get_output_embeddings(), VALUE_ADAPTER):
        parameter.requires_grad_(False)  # values don't use the LM head


def _settings(folder: Path) -> dict[str, str]:
    if not (folder / VALUE_HEAD).exists():
        raise UserError(
            f"{folder} has no {VALUE_HEAD}; PolicyWithValueHead(load_policy(...)) adds a new head to a policy."
        )
    check_file(folder / VALUE_HEAD, str(folder))
    with safe_open(folder / VALUE_HEAD, "pt") as file:
        return file.metadata()


def _below(state_dict: dict[str, Tensor] | None, prefix: str) -> Any:
    """The entries whose names begin with `prefix`, without it."""
    return state_dict and {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
