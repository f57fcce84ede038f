"""Loading what a reward model consists of: a classifier or its adapter with a head, and a tokenizer."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel, TaskType
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.files import REWARD_CONFIG, REWARD_HEAD
from hf_align.models.adapters import Lora, add_lora
from hf_align.models.classifier import classifier_class
from hf_align.models.decoders import check_decoder_config
from hf_align.models.fingerprint import check_base
from hf_align.models.finite import check_loaded, saved_weights
from hf_align.models.heads import new_reward_head
from hf_align.models.kinds import is_classifier
from hf_align.models.loading import loading_arguments
from hf_align.models.quantized import Quantization, check_quantized, keep_unpacked
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import adapter_config, base_of, find_file, from_pretrained, load_tokenizer, plain_folder
from hf_align.models.vocabulary import fit_vocabulary

logger = logging.get_logger(__name__)


class Loaded(NamedTuple):
    """A reward model's parts."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    head_is_new: bool


def saved_config(path_or_hub_id: str | os.PathLike[str]) -> RewardModelConfig | None:
    """The head and pooling that were saved with a reward model that only hf_align loads; None for any other model."""
    file = find_file(plain_folder(path_or_hub_id), REWARD_CONFIG)
    return None if file is None else RewardModelConfig(**json.loads(file.read_text()))


def load_parts(
    path: str,
    config: RewardModelConfig,
    *,
    new_head: bool,
    quantization: Quantization = None,
    lora: Lora = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> Loaded:
    """Load a reward model's parts; see `RewardModel.from_pretrained`.

    Args:
        path: Folder or Hub id of a language model, classifier or adapter.
        config: Head and pooling.
        new_head: Whether to put a new head on a language model.
        quantization: As in `load_policy`.
        lora: As in `load_policy`.
        dtype: As in `load_policy`.
        device_map: As in `load_policy`.
    """
    path = plain_folder(path)
    adapter = adapter_config(path)
    if adapter is not None and lora:
        raise UserError(f"{path} is already an adapter; leave out lora (peft_config), or merge it into its base first.")
    if adapter is not None and adapter.task_type != TaskType.SEQ_CLS and not find_file(path, REWARD_HEAD):
        raise UserError(f"The adapter in {path} has no reward head (score); train it with RewardTrainer.")
    base = plain_folder(base_of(adapter, path)) if adapter is not None else path
    settings = from_pretrained(AutoConfig, base, num_labels=1)
    check_decoder_config(settings, base)
    model, info = from_pretrained(
        classifier_class(settings),
        base,
        config=settings,
        output_loading_info=True,
        **loading_arguments(quantization, dtype, device_map),
    )
    keep_unpacked(model)
    if quantization is not None:
        check_quantized(model)
    fresh = new_head or "score.weight" in info["missing_keys"]
    if fresh or not config.has_plain_head:
        model.score = new_reward_head(config, model.score.in_features, model.device)
    head_file = None if config.is_plain else find_file(path, REWARD_HEAD)
    if head_file is not None:
        model.score.load_state_dict(load_file(head_file))
    head_is_new = fresh and head_file is None and adapter is None
    if head_is_new and not new_head and is_classifier(path):
        raise UserError(
            f"{path} is a {', '.join(settings.architectures)} whose head isn't a linear layer 'score' on the last "
            "hidden states; give a reward model that RewardTrainer or transformers' usual classifiers saved."
        )
    if head_is_new and not new_head:
        logger.warning(
            f"{path} has no reward head: a new one was initialised, so its scores mean nothing until it is trained."
        )
    tokenizer = load_tokenizer(path)
    if adapter is not None:
        check_base(model, path, base, any_vocabulary=True)
        fit_vocabulary(model, path, adapter)
        model = PeftModel.from_pretrained(model, path, is_trainable=True)
        check_loaded(saved_weights(model), path)
    elif lora:
        model = add_lora(model, lora, TaskType.SEQ_CLS)
    return Loaded(cast(PreTrainedModel, model), tokenizer, head_is_new)
