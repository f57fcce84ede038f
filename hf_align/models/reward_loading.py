"""Loading what a reward model consists of: a classifier or its adapter with a head, and a tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel, TaskType
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import LoadError, UserError
from hf_align.files import REWARD_CONFIG, REWARD_HEAD
from hf_align.models.adapters import Lora, add_lora
from hf_align.models.classifier import classifier_class
from hf_align.models.decoders import check_decoder_config
from hf_align.models.fingerprint import check_base
from hf_align.models.finite import check_loaded, saved_weights
from hf_align.models.heads import new_reward_head
from hf_align.models.kinds import is_classifier
from hf_align.models.loading import loading_arguments
from hf_align.models.quantized import Quantization, settle
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.reward_files import fill_head, without_code
from hf_align.models.sources import adapter_config, base_of, from_pretrained, load_tokenizer, plain_folder
from hf_align.models.vocabulary import fit_vocabulary

logger = logging.get_logger(__name__)


class Loaded(NamedTuple):
    """A reward model's parts."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    head_is_new: bool


def load_parts(
    path: str,
    config: RewardModelConfig,
    *,
    head: dict[str, Tensor] | None = None,
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
        head: Weights of the head, if it has a file of its own.
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
    if adapter is not None and adapter.task_type != TaskType.SEQ_CLS and head is None:
        raise UserError(f"The adapter in {path} has no reward head (score); train it with RewardTrainer.")
    base = plain_folder(base_of(adapter, path)) if adapter is not None else path
    settings = from_pretrained(AutoConfig, base, num_labels=1)
    check_decoder_config(settings, base)
    without_code(settings)
    classifier, replaced = classifier_class(settings), new_head or head is not None or not config.has_plain_head
    model, info = from_pretrained(
        _headless(classifier) if replaced else classifier,
        base,
        config=settings,
        output_loading_info=True,
        **loading_arguments(quantization, dtype, device_map),
    )
    settle(model, quantization)
    fresh = replaced or "score.weight" in info["missing_keys"]
    if fresh:
        model.score = new_reward_head(config, model.score.in_features, model.device)
    else:  # a mapped file may start anywhere, and products of unaligned vectors differ in the last bit
        model.score.weight.data = model.score.weight.data.clone()
    if head is not None:
        fill_head(model.score, head, path)
    head_is_new = fresh and head is None and adapter is None
    if head_is_new and not new_head:
        _warn_of_new_head(path, settings, config)
    tokenizer = load_tokenizer(path)
    if adapter is not None:
        check_base(model, path, base, any_vocabulary=True)
        fit_vocabulary(model, path, adapter)
        model = PeftModel.from_pretrained(model, path, is_trainable=True)
        check_loaded(saved_weights(model), path)
    elif lora:
        model = add_lora(model, lora, TaskType.SEQ_CLS)
    return Loaded(cast(PreTrainedModel, model), tokenizer, head_is_new)


@cache
def _headless(classifier: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A classifier of which transformers doesn't report that its head isn't among the weights: it is replaced."""
    missing, unexpected = "_keys_to_ignore_on_load_missing", "_keys_to_ignore_on_load_unexpected"
    settings = {
        missing: [*(getattr(classifier, missing) or ()), r"^score\."],
        unexpected: [*(getattr(classifier, unexpected) or ()), r"^(score|reward_head)\."],
        "__module__": classifier.__module__,
    }
    return type(classifier.__name__, (classifier,), settings)


def _warn_of_new_head(path: str, settings: Any, config: RewardModelConfig) -> None:
    """Say that a source has no head, or refuse it if it should have one."""
    if not config.is_plain:
        raise LoadError(f"{path} has a {REWARD_CONFIG} and no {REWARD_HEAD}; download or save the model again.", path)
    if is_classifier(path):
        raise UserError(
            f"{path} is a {', '.join(settings.architectures)} whose head isn't a linear layer 'score' on the last "
            "hidden states; give a reward model that RewardTrainer or transformers' usual classifiers saved."
        )
    logger.warning(
        f"{path} has no reward head: a new one was initialised, so its scores mean nothing until it is trained."
    )
