"""Models without data: built from the config alone, on torch's meta device, whose tensors have shapes and no data."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from hf_align.errors import UserError
from hf_align.models.adapters import float32_trainable
from hf_align.models.classifier import classifier_class
from hf_align.models.decoders import check_decoder_config
from hf_align.models.freezing import adapter_above, freeze_layers
from hf_align.models.heads import new_reward_head
from hf_align.models.lora_targets import without_unfit
from hf_align.models.precision import compute_dtype
from hf_align.models.quantized import keep_unpacked
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import adapter_config, load_config, plain_folder
from hf_align.planning.fakes import quantise_on_meta, stored_bytes

Model = str | dict[str, Any] | PretrainedConfig
"""A Hub id, a folder, a `config.json`, its content, or a config object."""


@dataclass
class Outline:
    """A model without data.

    Attributes:
        name: Name of its class.
        total: Number of weights, including an adapter's.
        trained: Number of trained weights.
        base_bytes: Bytes of the weights as loaded, without an adapter's.
        is_adapter: Whether an adapter is trained instead of all weights.
        dtype: The compute dtype.
        model: The model on the meta device; trained weights are float32, the others as loaded.
        adapter_is_given: Whether that adapter comes with the model instead of being new.
    """

    name: str
    total: int
    trained: int
    base_bytes: float
    is_adapter: bool
    dtype: torch.dtype
    model: Any
    adapter_is_given: bool = False

    @property
    def text_config(self) -> Any:
        """The language model's config."""
        return self.model.config.get_text_config()


def read_config(model: Model) -> Any:
    """The config of a model given by name, by its `config.json` or as an object; nothing else is loaded.

    Raises:
        UserError: There is none, or it is of no type that transformers knows.
    """
    if isinstance(model, PretrainedConfig):
        return deepcopy(model)
    if isinstance(model, str) and not model.endswith(".json"):
        return deepcopy(load_config(model))
    values: Any = model
    if isinstance(model, str):
        try:
            values = json.loads(Path(model).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"model: {model} can't be read as JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict) or not isinstance(kind := values.get("model_type"), str):
        raise UserError(f"model: {_shown(model)} is no config.json of transformers: it has no model_type.")
    try:
        return AutoConfig.for_model(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"model: {_shown(model)}, of type {kind}: {str(error).splitlines()[0]}") from None


def _shown(model: Model) -> str:
    return model if isinstance(model, str) else "the config"


def outline(
    model: Model,
    *,
    reward: RewardModelConfig | bool = False,
    quantization: str | None = None,
    lora: PeftConfig | None = None,
    dtype: torch.dtype | None = None,
    fast: torch.dtype | None = None,
    frozen_layers: int = 0,
) -> Outline:
    """Build a model without data.

    Args:
        model: Hub id, folder, or adapter (with its base), or a config.
        reward: The reward head that replaces the LM head; True for the plain one.
        quantization: Quantisation on loading: "8bit", "4bit" or None.
        lora: The adapter to train. None: the adapter in `model`, or else all weights.
        dtype: The compute dtype. Default: `fast`.
        fast: The device's fast dtype, by which weights are loaded: in float32 if that is it, else as they are stored.
            Default: this machine's, or `dtype`.
        frozen_layers: Number of first layers that aren't trained.

    Raises:
        UserError: There is no config to load, no layers match `lora`, or there are fewer than `frozen_layers`.
    """
    adapter = adapter_config(plain_folder(model)) if isinstance(model, str) and not model.endswith(".json") else None
    config = read_config(model)
    check_decoder_config(config, _shown(model))
    fast = fast or dtype or compute_dtype()
    stored = torch.float32 if fast == torch.float32 else config.dtype or torch.float32  # as `load_policy` has it
    is_reward = reward is not False
    with torch.device("meta"):
        built = _build(config, reward, stored)
        if quantization is not None:
            quantise_on_meta(built, quantization, fast)
            keep_unpacked(built)
        name, base_bytes = type(built).__name__, loaded_bytes(built)
        if adapter is not None or lora is not None:
            trainable: Any = deepcopy(adapter or adapter_above(lora, built, frozen_layers))
            trainable.task_type, trainable.inference_mode = "SEQ_CLS" if is_reward else "CAUSAL_LM", False
            try:
                built = get_peft_model(built, without_unfit(trainable, built), autocast_adapter_dtype=False)
            except ValueError as error:  # no layers match
                raise UserError(f"lora: {str(error).splitlines()[0]}") from None
        if frozen_layers:
            freeze_layers(built, frozen_layers)
        float32_trainable(built)
    parameters = list(built.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    is_adapter = isinstance(built, PeftModel)
    return Outline(name, total, trained, base_bytes, is_adapter, dtype or fast, built, adapter is not None)


def _build(config: Any, reward: RewardModelConfig | bool, stored: torch.dtype) -> Any:
    if reward is False:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=stored)
    config.num_labels = 1
    if config.get_text_config().pad_token_id is None:  # a reward model gets one from its tokenizer
        config.pad_token_id = config.get_text_config().pad_token_id = 0
    model: Any = classifier_class(config)._from_config(config, dtype=stored)
    head = RewardModelConfig() if reward is True else reward
    model.score = new_reward_head(head, model.score.in_features, torch.device("meta"))
    return model


def loaded_bytes(model: nn.Module) -> float:
    """Bytes of a model's weights as they are held; tied ones count once."""
    return sum(_bytes_by_weight(model).values())


def frozen_bytes(model: nn.Module) -> float:
    """Bytes of the weights that aren't trained."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return sum(size for number, size in _bytes_by_weight(model).items() if number not in trained)


def _bytes_by_weight(model: nn.Module) -> dict[int, float]:
    return {
        id(weight): stored_bytes(module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None
    }
