# Copyright the hf-align authors.
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with
# the License. You may obtain a copy of the License at
#
#     https://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on
# an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the
# specific language governing permissions and limitations under the License.
"""Reward models that load with transformers alone: this file travels with their weights.

    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder_or_hub_id, trust_remote_code=True)
    rewards = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits  # [B, 1]

hf-align takes its own heads and classes from here, so both compute the same. It needs torch and transformers 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

SECTION = "hf_align_reward"
"""Key in config.json of what a `RewardModelForSequenceClassification` computes."""
EMBEDDING = 128
"""Size of the contrastive projection's output."""
HEADS: dict[str, Callable[[int, bool], nn.Module]] = {
    "linear": lambda size, bias: nn.Linear(size, 1, bias=bias),
    "mlp": lambda size, bias: nn.Sequential(
        nn.Linear(size, size // 2), nn.ReLU(), nn.Dropout(0.1), nn.Linear(size // 2, 1, bias=bias)
    ),
}
"""Heads by name: functions of the hidden size and of a last layer's bias that make a module `[., d] -> [., 1]`."""


class RewardHead(nn.Module):
    """The reward and what else a reward model predicts, from one pooled state: `[., d]` -> `[., C]`.

    Column 0 is the reward; those of the tasks, in order, and of the projection follow.

    Args:
        size: Hidden size d.
        head: A name in `HEADS`, or "attention": a linear head on states that `attention` pools.
        columns: Columns of all tasks.
        projection: Whether to project for a contrastive loss, too.

    Attributes:
        attention: Scores a token's state for pooling, `[., d]` -> `[., 1]`; None with other heads.
        reward: `[., d]` -> `[., 1]`.
        tasks: One linear layer for all tasks; None without tasks.
        projection: `[., d]` -> `[., 128]`; None without.
    """

    def __init__(self, size: int, head: str, columns: int, projection: bool):
        super().__init__()
        attends = head == "attention"
        score = nn.Sequential(nn.Linear(size, size // 4), nn.Tanh(), nn.Linear(size // 4, 1, bias=False))
        project = nn.Sequential(nn.Linear(size, 2 * EMBEDDING), nn.ReLU(), nn.Linear(2 * EMBEDDING, EMBEDDING))
        self.attention = score if attends else None
        self.reward = HEADS["linear" if attends else head](size, False)
        self.tasks = nn.Linear(size, columns) if columns else None
        self.projection = project if projection else None

    def forward(self, states: Tensor) -> Tensor:
        """All outputs for pooled states."""
        parts = (part for part in (self.reward, self.tasks, self.projection) if part is not None)
        return torch.cat([part(states) for part in parts], dim=-1)


def make_head(size: int, head: str, columns: int, projection: bool) -> nn.Module:
    """A reward model's head: one linear layer if that is all, otherwise a `RewardHead` (see there)."""
    if head == "linear" and not columns and not projection:
        return HEADS["linear"](size, False)
    return RewardHead(size, head, columns, projection)


# ---- classifiers: a linear head `score` on a decoder ----


def find_classifier(config: Any) -> type[PreTrainedModel] | None:
    """The class of a model with a linear head `score` on the last hidden states of a decoder with this config.

    transformers' own if its head is exactly that. Others have additional layers without weights in the language model,
    so an adapter's base would be random after each loading. None: transformers has no such decoder without its LM head.
    """
    classifier: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    is_model = isinstance(classifier, type) and issubclass(classifier, PreTrainedModel)  # not this file's entry point
    if is_model and _scores_hidden_states(classifier, config):
        return classifier
    language_model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    backbone = MODEL_MAPPING.get(type(config), None)
    place = _place_of(backbone, language_model, config) if language_model and backbone else None
    return None if place is None else _new_class(language_model, backbone, place)


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


class ScoreOnBackbone(GenericForSequenceClassification):
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
    return type(name, (ScoreOnBackbone, family), settings)


# ---- reward models: any head and pooling, without hf-align ----


class PooledReward:
    """Mixin of the classes made here: a classifier whose head reads pooled states, under the name `reward_head`.

    (Under the name `score`, transformers' own classifier would load a linear head and score another state with it.)
    """

    _auto_class = "AutoModelForSequenceClassification"  # saved again, it takes this file along
    _keep_in_fp32_modules_strict = {"reward_head"}  # noqa: RUF012  # differences of scores are small

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]  # of the classifier, the next base
        model: Any = self
        settings = getattr(config, SECTION)
        self.tasks: dict[str, Any] = settings["tasks"]
        size, columns = model.score.in_features, sum(map(columns_of, self.tasks.values()))
        del model.score
        self.reward_head = make_head(size, settings["head"], columns, settings["projection"])

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return cls.__bases__[1]._can_set_attn_implementation()  # type: ignore[attr-defined]  # not by this file's text

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return cls.__bases__[1]._can_set_experts_implementation()  # type: ignore[attr-defined]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        response_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Score rows of `prompt + response`.

        Args:
            input_ids: `[B, T]`, padded on either side. A chat template's line break after the last turn doesn't belong
                to it.
            attention_mask: `[B, T]`, 0 for padding. Default: padding is the tokens `pad_token_id`.
            response_mask: `[B, T]`, 1 for the tokens of the response; read by attention heads, which pool these, and by
                a length penalty, which counts them.
                Default: what follows the last start of an assistant's turn in a row, that is, the tokens that the chat
                template's generation prompt adds. That is right for a prompt and one answer. Give the mask where an
                answer has several turns, quotes the template, or continues a begun one, and for text without template.
            return_dict: False: a tuple.
            kwargs: For the backbone.

        Returns:
            `logits`: `[B, 1]`, the raw reward with the reference set's offset (as hf-align's `score` gives it). For
            each task, `task_NAME`: a regression's value `[B]`, a binary task's logit `[B]` or n classes' logits `[B,
            n]`. With a projection, `embeddings`: `[B, 128]`.

        Raises:
            ValueError: An attention head or a length penalty finds no response in a row.
        """
        model: Any = self
        settings = getattr(model.config, SECTION)
        real = _real_tokens(input_ids, attention_mask, model.config.get_text_config().pad_token_id)
        # Positions count real tokens, as those of a row alone, which learnt position embeddings need.
        kwargs = {"position_ids": (real.long().cumsum(1) - 1).clamp(min=0), "use_cache": False} | kwargs
        penalty = settings.get("length_penalty", 0.0)
        backbone = getattr(model, model.base_model_prefix)
        states = backbone(input_ids, attention_mask=real.long(), **kwargs)[0]  # [B, T, d]
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(next(self.reward_head.parameters()).dtype)
            attention = getattr(self.reward_head, "attention", None)
            if (attention is not None or penalty) and response_mask is None:
                response_mask = _after_last(input_ids, real, settings.get("response_start"))
            chosen = real if attention is None or response_mask is None else real & response_mask.bool()
            outputs = self.reward_head(pool_rows(states, chosen, settings["pooling"], attention)).float()  # [B, C]
        rewards = outputs[:, :1] + settings["offset"]
        if penalty and response_mask is not None:
            rewards = rewards - penalty * (real & response_mask.bool()).sum(1, keepdim=True)
        result = SequenceClassifierOutput(logits=rewards)
        column = 1
        for name, kind in self.tasks.items():
            part = outputs[:, column : column + columns_of(kind)]
            result[f"task_{name}"] = part if isinstance(kind, int) else part[:, 0]
            column += columns_of(kind)
        if settings["projection"]:
            result["embeddings"] = outputs[:, column:]
        return result.to_tuple() if return_dict is False else result


def pool_rows(states: Tensor, members: Tensor, pooling: str, attention: nn.Module | None = None) -> Tensor:
    """One hidden state per row: `[B, T, d]` -> `[B, d]`.

    Args:
        states: The states.
        members: `[B, T]` bool: tokens of prompt and response, or for `attention` those of the response.
        pooling: "last", "first", "mean" or "max" of them.
        attention: Scores a state, `[., d]` -> `[., 1]`: the mean is weighted by the softmax of their scores instead.
    """
    if attention is not None:
        weights = attention(states)[..., 0].masked_fill(~members, -torch.inf).softmax(1)  # [B, T]
        return torch.einsum("bt,btd->bd", weights, states)
    rows = torch.arange(len(states), device=states.device)
    if pooling == "last":
        return states[rows, members.shape[1] - 1 - members.flip(1).int().argmax(1)]
    if pooling == "first":
        return states[rows, members.int().argmax(1)]
    if pooling == "mean":
        return (states * members[..., None]).sum(1) / members.sum(1, keepdim=True)
    return states.masked_fill(~members[..., None], -torch.inf).amax(1)


class RewardModelForSequenceClassification:
    """What `AutoModelForSequenceClassification` loads: makes the class that fits the model's family."""

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`."""
        config = AutoConfig.from_pretrained(path, trust_remote_code=False) if config is None else config
        kwargs.pop("trust_remote_code", None)  # this file is all the code there is
        return reward_class(config).from_pretrained(path, *args, config=config, trust_remote_code=False, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return reward_class(config)._from_config(config, **kwargs)  # type: ignore[attr-defined]

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Called by transformers; the classes made here know theirs."""


def reward_class(config: Any) -> type[PreTrainedModel]:
    """The class of a reward model with this config.

    Raises:
        ValueError: The config isn't one that hf-align saved, or transformers lacks the decoder.
    """
    if not isinstance(getattr(config, SECTION, None), Mapping):
        raise ValueError(f"config.json has no {SECTION}: hf-align didn't save this model as a reward model.")
    classifier = find_classifier(config)
    if classifier is None:
        raise ValueError(f"transformers has no decoder for a {type(config).__name__} without its LM head.")
    return _reward_class(classifier)


@cache
def _reward_class(classifier: type[PreTrainedModel]) -> type[PreTrainedModel]:
    # Its name and module are those under which the auto class finds it again when it is saved again.
    name = RewardModelForSequenceClassification.__name__
    return type(name, (PooledReward, classifier), {"__module__": __name__})


def columns_of(task: Any) -> int:
    """Columns of a task: its number of classes, otherwise 1."""
    return task if isinstance(task, int) else 1


def _real_tokens(input_ids: Tensor, attention_mask: Tensor | None, pad_token_id: int | None) -> Tensor:
    """Which tokens aren't padding: `[B, T]` bool."""
    if attention_mask is not None:
        return attention_mask.bool()
    if pad_token_id is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad_token_id


def _after_last(input_ids: Tensor, real: Tensor, start: Sequence[int] | None) -> Tensor:
    """The real tokens after the last place of the ids `start` in each row: `[B, T]` bool."""
    advice = "pass response_mask, 1 for the tokens of the response."
    if not start:
        raise ValueError(f"This model reads the response's tokens, and it has no chat template to find them: {advice}")
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    if input_ids.shape[1] < len(start):
        raise ValueError(f"Rows of {input_ids.shape[1]} tokens hold no assistant's turn: {advice}")
    wanted = torch.tensor(list(start), device=input_ids.device)
    windows = input_ids.unfold(1, len(start), 1)  # [B, T - n + 1, n]
    places = (windows == wanted).all(-1) * (columns[: windows.shape[1]] + 1)  # 1 + column where it begins, or 0
    last = places.amax(1)  # [B]
    response = real & (columns >= (last - 1 + len(start))[:, None])
    if missing := ((last == 0) | ~response.any(1)).nonzero().flatten().tolist():
        raise ValueError(f"Row {missing[0]} holds no answer after the start of an assistant's turn: {advice}")
    return response
