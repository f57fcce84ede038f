"""Preparation of models for training: checks, adapters and tokenizers."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel, TaskType
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_align.errors import UserError
from hf_align.models.adapters import add_lora
from hf_align.models.decoders import check_decoder
from hf_align.models.kinds import check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.quantized import Quantization, keep_unpacked
from hf_align.models.reward import RewardModel
from hf_align.models.sources import load_tokenizer
from hf_align.models.wrapper import unwrapped


def tokenizer_of(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model, or the one saved with a model given by name or with an object's source."""
    if isinstance(model, RewardModel):
        return model.tokenizer
    if not isinstance(model, str):
        check_is_model(model)
        model = getattr(unwrapped(model), "name_or_path", None)
        if not model:
            raise UserError(
                "processing_class is missing, and the model doesn't say where it came from; give its tokenizer."
            )
    return load_tokenizer(model)


def trainable_policy(model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> Any:
    """A policy for training: loaded if given by name, with a new adapter if there is a `peft_config`."""
    policy = load_policy(model, quantization=quantization) if isinstance(model, str) else model
    return with_adapter(policy, peft_config, TaskType.CAUSAL_LM)


def with_adapter(model: Any, peft_config: PeftConfig | bool | None, task_type: TaskType) -> PreTrainedModel | PeftModel:
    """The user's model object, with a new adapter if there is a `peft_config`.

    Raises:
        UserError: It already has an adapter, is quantised without one, trains nothing, or is a reward model instead of
            a policy.
    """
    check_is_model(model)
    check_decoder(model, "model")
    if task_type == TaskType.CAUSAL_LM:
        check_is_policy(model, "model")
    keep_unpacked(model)
    if isinstance(model, PeftModel):
        if peft_config:
            raise UserError("model already has an adapter and peft_config asks for another; leave one of them out.")
        if model.active_adapters != ["default"]:
            raise UserError(
                f"The adapter to train must be called 'default'; the active one is {model.active_adapters}."
            )
        _check_changes_layers(model.peft_config["default"], "model's adapter")
    elif peft_config:
        if not isinstance(peft_config, PeftConfig | bool):
            raise UserError(f"peft_config is a {type(peft_config).__name__}; give a LoraConfig.")
        _check_changes_layers(peft_config, "peft_config")
        model = add_lora(model, peft_config, task_type)  # type: ignore[arg-type]
    elif getattr(model, "is_quantized", False):
        raise UserError("A quantised model trains only through an adapter; give peft_config (lora).")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "No weight of the model is trainable; load the adapter with is_trainable=True or give peft_config."
        )
    return model  # type: ignore[return-value]


def _check_changes_layers(config: PeftConfig | bool, name: str) -> None:
    """Refuse virtual tokens (prompt and prefix tuning): they can't be switched off, and shift rows and positions."""
    if isinstance(config, PeftConfig) and config.is_prompt_learning:
        raise UserError(
            f"{name} is a {type(config).__name__}, which puts virtual tokens before each row instead of changing "
            "layers, and that isn't supported; give a LoraConfig."
        )


def check_is_model(model: Any) -> None:
    """Refuse an object that isn't a module."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model is a {type(model).__name__}; give a Hub id, a folder or a transformers/peft model.")


def only_with_path(model: Any, quantization_config: Quantization) -> None:
    """Refuse to quantise an already loaded model."""
    if quantization_config is not None and not isinstance(model, str):
        raise UserError(
            "quantization_config applies to a model given by name; load yours with load_policy(..., quantization=)."
        )
