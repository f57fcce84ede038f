"""Reward heads trained on cached features: seconds a run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import get_cosine_schedule_with_warmup, set_seed

from benchmarks.study.cache import CachedTexts
from benchmarks.study.features import Features
from benchmarks.study.objective import Objective, Outputs, tasks_of
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.models.heads import new_reward_head
from hf_align.models.modeling_hf_align_reward import RewardHead, pool_rows
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.uncertainty import DROPOUT, PASSES

LENGTH = "length_part"
"""Name of the second head's column."""
CUT = 5.0
"""Deviations from the mean at which features are cut: a few tokens have states of a hundred."""


def training_texts(cache: CachedTexts, settings: Settings) -> list[int]:
    """Places in the cache of a run's training texts, the same for every seed; a bag of them for a member."""
    places: list[int] = []
    for domain, count in zip(DOMAINS, settings.texts, strict=True):
        rows = [n for n, row in enumerate(cache.texts) if row["split"] == "train" and row["domain"] == domain]
        places += random.Random(0).sample(rows, count)
    if settings.bag < 1:
        rng = random.Random(f"{settings.seed}/{settings.member}")
        places = sorted(rng.sample(places, round(settings.bag * len(places))))
    return places


def batches(texts: Sequence[dict[str, Any]], settings: Settings) -> Iterator[tuple[bool, Tensor]]:
    """Steps of a run: whether an epoch begins, and `[R, K]` places of texts, each row of one domain."""
    rng = random.Random(f"{settings.seed}/{settings.member}/order")
    for _ in range(settings.epochs):
        rows: list[list[int]] = []
        for domain in DOMAINS:
            places = [n for n, text in enumerate(texts) if text["domain"] == domain]
            rng.shuffle(places)
            size = settings.responses
            rows += [places[start : start + size] for start in range(0, len(places) - size + 1, size)]
        rng.shuffle(rows)
        for start in range(0, len(rows) - settings.rows + 1, settings.rows):
            yield start == 0, torch.tensor(rows[start : start + settings.rows])


def reward_config(settings: Settings) -> RewardModelConfig:
    """Head, pooling and further outputs of a run's model."""
    further: dict[str, Any] = {LENGTH: "regression"} if settings.length == "head" else {}
    pooling = "last" if settings.head == "attention" else settings.pooling
    return RewardModelConfig(
        pooling, settings.head, {**tasks_of(settings), **further}, projection=settings.contrastive > 0
    )


def named(outputs: Tensor, config: RewardModelConfig, head: nn.Module, shape: tuple[int, int]) -> Outputs:
    """A model's outputs `[R * K]` or `[R * K, C]` by name."""
    parts = config.split(outputs)
    tasks = dict(parts.tasks)
    rewards, second = parts.rewards.view(shape), tasks.pop(LENGTH, None)
    if second is None:
        return Outputs(rewards, tasks, parts.embeddings)
    trained: Any = getattr(head, "modules_to_save", None)  # under peft the head's trained copy
    both = cast(RewardHead, head if trained is None else trained["default"])
    weights = cast(nn.Linear, both.reward).weight[0], cast(nn.Linear, both.tasks).weight[-1]
    overlap = cosine_similarity(*weights, dim=0)
    return Outputs(rewards, tasks, parts.embeddings, by_length=second.view(shape), overlap=overlap)


class HeadOnFeatures(nn.Module):
    """A reward head on the cached features of one layer.

    Args:
        features: The features of all cached texts.
        places: Texts whose mean and deviation standardise the features.
        settings: The run's.
    """

    def __init__(self, features: Features, places: Sequence[int], settings: Settings):
        super().__init__()
        self.features, self.config = features, reward_config(settings)
        self.attends = settings.head == "attention"
        sample = self.states(places)[0] if self.attends else features.pooled[settings.pooling][list(places)]
        sample = sample.flatten(0, -2)
        sample = sample[sample.abs().sum(-1) > 0]
        self.mean, self.scale = sample.mean(0), sample.std(0).clamp(min=1e-4)
        self.head = new_reward_head(self.config, sample.shape[-1], torch.device("cpu"))
        self.pooling = settings.pooling

    def states(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token states `[n, T, d]`, 0 behind a text's last, and which are tokens `[n, T]`."""
        assert self.features.tokens is not None, "features of this layer were stored without tokens"
        parts = [self.features.tokens[self.features.starts[n] : self.features.starts[n + 1]] for n in places]
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True).float()
        lengths = torch.tensor([len(part) for part in parts])
        return padded, torch.arange(padded.shape[1])[None] < lengths[:, None]

    def standardised(self, states: Tensor) -> Tensor:
        """In deviations of the training texts."""
        return ((states - self.mean) / self.scale).clamp(-CUT, CUT)

    def pooled(self, places: Sequence[int]) -> Tensor:
        """What the head's last layers read: `[n, d]`."""
        if not self.attends:
            return self.standardised(self.features.pooled[self.pooling][list(places)])
        states, members = self.states(places)
        return pool_rows(self.standardised(states), members, "last", cast(RewardHead, self.head).attention)

    def forward(self, places: Sequence[int], mask: Tensor | None = None) -> Tensor:
        """Outputs `[n]` or `[n, C]`, of the pooled state times a mask `[d]`."""
        pooled = self.pooled(places)
        outputs = self.head(pooled if mask is None else pooled * mask)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    @torch.no_grad()
    def rewards(self, places: Sequence[int], mask: Tensor | None = None) -> Tensor:
        """Rewards `[n]`."""
        outputs = torch.cat([self(places[start : start + 256], mask) for start in range(0, len(places), 256)])
        return outputs if outputs.ndim == 1 else outputs[:, 0]

    def dropped_rewards(self, places: Sequence[int]) -> Tensor:
        """Rewards of networks drawn by dropout, `[PASSES, n]`: as `mc_dropout`, one mask for all texts of a pass."""
        generator = torch.Generator().manual_seed(0)
        masks = [(torch.rand(len(self.mean), generator=generator) >= DROPOUT) / (1 - DROPOUT) for _ in range(PASSES)]
        return torch.stack([self.rewards(places, mask) for mask in masks])


def train(
    features: Features, places: Sequence[int], texts: Sequence[dict[str, Any]], settings: Settings
) -> HeadOnFeatures:
    """Train a head.

    Args:
        features: The features of all cached texts.
        places: Places of the training texts among them.
        texts: The training texts' ratings.
        settings: The run's.
    """
    set_seed(1000 * settings.seed + settings.member)
    objective = Objective(texts, settings)
    model = HeadOnFeatures(features, places, settings).train()
    steps = list(batches(texts, settings))
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(steps) // 20, len(steps))
    mixing = random.Random(settings.seed)
    for number, (begins, index) in enumerate(steps):
        if begins:
            objective.start_epoch()
        progress = number / len(steps)
        chosen = [places[n] for n in index.flatten().tolist()]
        shape = (index.shape[0], index.shape[1])
        loss = objective.loss(index, named(model(chosen), model.config, model.head, shape), progress)
        if settings.mixup:
            loss = loss + settings.mixup * mixed_loss(model, objective, index, chosen, mixing)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def mixed_loss(
    model: HeadOnFeatures, objective: Objective, index: Tensor, chosen: Sequence[int], rng: random.Random
) -> Tensor:
    """Loss on rows mixed with other rows of the step: features, and labels as soft ones, in the same proportion."""
    shares = torch.tensor([rng.betavariate(0.4, 0.4) for _ in index])  # [R]
    other = torch.tensor(rng.sample(range(len(index)), len(index)))
    states = model.pooled(chosen).view(*index.shape, -1)  # [R, K, d]
    states = shares[:, None, None] * states + (1 - shares[:, None, None]) * states[other]
    label = objective.labels(index)
    label = shares[:, None, None] * label + (1 - shares[:, None, None]) * label[other]
    outputs = model.head(states.flatten(0, 1))[:, 0].view(index.shape)
    compared = torch.ones_like(label, dtype=torch.bool).triu(1)
    return objective.preference_loss(index, outputs, label, compared)
