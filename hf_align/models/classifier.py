"""Classes for a reward head on any decoder: transformers' own if it fits, otherwise one made for it."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_align.errors import UserError
from hf_align.models.modeling_hf_align_reward import ScoreOnBackbone, find_classifier


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The class of a model with a linear head `score` on the last hidden states of a decoder with this config.

    Raises:
        UserError: transformers has no such decoder without its LM head.
    """
    classifier = find_classifier(config)
    if classifier is None:
        raise UserError(
            f"A reward head can't be put on a model with a {type(config).__name__}: transformers has no decoder of "
            "that kind without its language-modelling head."
        )
    return classifier


def is_ours(model: nn.Module) -> bool:
    """Whether a classifier's class was made here, so that plain transformers lacks it."""
    return isinstance(model, ScoreOnBackbone)
