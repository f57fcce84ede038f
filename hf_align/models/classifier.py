"""Classes for a reward head on any decoder: transformers' own if it fits, otherwise one made here."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_align.errors import UserError


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The class of a model with a linear head `score` on the last hidden states of a decoder with this config.

    transformers' own if its head is exactly that. Others have additional layers without weights in the language model,
    so an adapter's base would be random after each loading.

    Raises:
        UserError: transformers has no such decoder without its LM head.
    """
    classifier: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if isinstance(classifier, type) and _scores_hidden_states(classifier, config):
        return classifier
    language_model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    backbone = MODEL_MAPPING.get(type(config), None)
    place = _place_of(backbone, language_model, config) if language_model and backbone else None
    if place is None:
        raise UserError(
            f"A reward head can't be put on a model with a {type(config).__name__}: transformers has no decoder of "
            "that kind without its language-modelling head."
        )
    return _new_class(language_model, backbone, place)


def is_ours(model: nn.Module) -> bool:
    """Whether a classifier's class was made here, so that plain transformers lacks it."""
    return isinstance(model, _ScoreOnBackbone)


def _scores_hidden_states(classifier: type[PreTrainedModel], config: Any) -> bool:
    if issubclass(classifier, GenericForSequenceClassification):
        return True
    with torch.device("meta"):
        return isinstance(getattr(classifier(config), "score", None), nn.Linear)


def _place_of(backbone: Any, language_model: Any, config: Any) -> str | None:
    """The language model's attribute for its backbone, so that saved weights match."""
    with torch.device("meta"):
        children = language_model(config).named_children()
    return next((name for name, child in children if type(child) is backbone), None)


class _ScoreOnBackbone(GenericForSequenceClassification):
    """Mixin of the classes made here: as transformers' own, for backbones with any signature and output."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scores `[B, num_labels]` of each row's last token that isn't padding."""
        model: Any = self
        states = getattr(model, model.base_model_prefix)(input_ids, attention_mask=attention_mask, **kwargs)[0]
        scores = model.score(states)  # [B, T, num_labels]
        rows, columns = (torch.arange(size, device=scores.device) for size in input_ids.shape)
        last = (columns * (input_ids != model.config.get_text_config().pad_token_id)).argmax(-1)
        return SequenceClassifierOutput(logits=scores[rows, last])


@cache
def _new_class(language_model: Any, backbone: Any, place: str) -> type[PreTrainedModel]:
    family = next(base for base in backbone.__mro__ if issubclass(language_model, base))  # its PreTrainedModel
    # The name shows the origin; its suffix identifies a classifier's folder. The module is the family's, since
    # transformers inspects its source for the model's features.
    name = f"HfAlign{backbone.__name__.removesuffix('Model')}ForSequenceClassification"
    settings = {"base_model_prefix": place, "__module__": backbone.__module__}
    return type(name, (_ScoreOnBackbone, family), settings)
