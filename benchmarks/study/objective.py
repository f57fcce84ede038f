"""What a run of the study learns: pairs of a step's rows, their labels, and the loss.

Notation: R rows of K texts, N training texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks.study.figures import vote_shares
from benchmarks.study.settings import RATING_SCALE, Settings
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.data.strengths import fit_strengths
from hf_align.losses import bradley_terry_loss, contrastive_loss
from hf_align.losses.contrastive import is_anchor

CLEAR = 0.5
"""Gap of two means above which a pair counts where people's order must be clear."""
STAGES = (2.0, 1.0, 0.0)
"""Least gaps of the pairs in a curriculum's stages."""
MARGINS = {"clear": "none", "margin": "weight", "scale": "scale", "shift": "shift"}


@dataclass(frozen=True)
class Outputs:
    """What a model predicts for a step's texts.

    Attributes:
        rewards: `[R, K]`.
        tasks: By name, `[R * K]` or `[R * K, classes]`.
        embeddings: `[R * K, e]` for the contrastive loss.
        by_length: `[R, K]` the second head's part of the rewards, which takes length out.
        overlap: Cosine of the two heads' weights.
    """

    rewards: Tensor
    tasks: dict[str, Tensor]
    embeddings: Tensor | None = None
    by_length: Tensor | None = None
    overlap: Tensor | None = None


def tasks_of(settings: Settings) -> dict[str, Any]:
    """A run's auxiliary tasks, as in `RewardModelConfig`."""
    kinds: dict[str, Any] = {"rating": "regression", "domain": len(DOMAINS)}
    return {name: kind for name, kind in kinds.items() if settings.task in (name, "both")}


class Objective:
    """Labels and loss of a run.

    Args:
        texts: N training texts with `ratings`, `mean`, `domain` and `ids`.
        settings: The run's.
    """

    def __init__(self, texts: Sequence[dict[str, Any]], settings: Settings):
        self.settings = settings
        self.means = torch.tensor([text["mean"] for text in texts])  # [N]
        self.shares = torch.tensor(vote_shares([text["ratings"] for text in texts]), dtype=torch.float32)  # [N, N]
        self.lengths = torch.tensor([float(len(text["ids"])) for text in texts])
        self.domains = torch.tensor([DOMAINS.index(text["domain"]) for text in texts])
        self.ratings = [text["ratings"] for text in texts]
        # What is wrong with a pair's label depends on the seed and the pair, not on the model or the step.
        rng = np.random.default_rng([settings.seed, 1])
        size = len(texts)
        drawn = torch.from_numpy(np.triu(rng.random((size, size), dtype=np.float32), 1))
        drawn = drawn + drawn.T
        self.flipped = drawn < settings.flips
        self.by_length = (drawn >= settings.flips) & (drawn < settings.flips + settings.longer_wins)
        self.votes = self.means
        self._rng = np.random.default_rng([settings.seed, 2])

    def start_epoch(self) -> None:
        """Draw a vote for each text."""
        self.votes = torch.tensor([float(self._rng.choice(each)) for each in self.ratings])

    def labels(self, index: Tensor) -> Tensor:
        """P(i better than j) of the texts `[R, K]` of rows: `[R, K, K]`."""
        i, j = index[:, :, None], index[:, None, :]
        if self.settings.labels == "soft":
            label = self.shares[i, j]
        else:
            values = self.votes if self.settings.labels == "draw" else self.means
            label = _order(values[i] - values[j])
        label = torch.where(self.flipped[i, j], 1 - label, label)
        label = torch.where(self.by_length[i, j], _order(self.lengths[i] - self.lengths[j]), label)
        if self.settings.observed == "interpolation":
            return interpolated_labels(label)
        return implied_labels(label) if self.settings.observed == "closure" else label

    def compared(self, index: Tensor, label: Tensor, progress: float) -> Tensor:
        """Which pairs count, each once: `[R, K, K]` booleans.

        Args:
            index: `[R, K]` texts of the rows.
            label: `[R, K, K]` their labels.
            progress: Share of the run that is done.
        """
        gaps = (self.means[index][:, :, None] - self.means[index][:, None, :]).abs()
        counts = torch.ones_like(gaps, dtype=torch.bool).triu(1)
        if self.settings.observed in ("chain", "closure"):
            counts = in_chain(label, closure=self.settings.observed == "closure")
        if self.settings.labels in MARGINS:
            counts = counts & (gaps > CLEAR)
        if self.settings.curriculum:
            easy = counts & (gaps > STAGES[min(int(progress * len(STAGES)), len(STAGES) - 1)])
            counts = easy if easy.any() else counts
        return counts

    def loss(self, index: Tensor, outputs: Outputs, progress: float) -> Tensor:
        """The step's loss: mean over its pairs, and over its texts for the other terms.

        Args:
            index: `[R, K]` texts of the rows.
            outputs: The model's for them.
            progress: Share of the run that is done.
        """
        texts = index.flatten()
        if self.settings.labels == "rating":
            loss = mse_loss(outputs.rewards.flatten(), self.means[texts] / RATING_SCALE)
        else:
            rewards = outputs.rewards if outputs.by_length is None else outputs.rewards + outputs.by_length
            label = self.labels(index)
            loss = self.preference_loss(index, rewards, label, self.compared(index, label, progress))
        for name, predicted in outputs.tasks.items():
            if name == "rating":
                loss = loss + mse_loss(predicted, self.means[texts] / RATING_SCALE)
            else:
                loss = loss + cross_entropy(predicted, self.domains[texts])
        if outputs.embeddings is not None:
            kinds = (self.means[texts] > CLEAR).long() - (self.means[texts] < -CLEAR).long() + 1
            terms = contrastive_loss(outputs.embeddings, kinds)
            loss = loss + self.settings.contrastive * terms.sum() / is_anchor(kinds).sum().clamp(min=1)
        if outputs.by_length is not None and outputs.overlap is not None:
            # Within rows: only responses to one prompt compete.
            lengths, *parts = (
                (part - part.mean(1, keepdim=True)).flatten()
                for part in (self.lengths[index], outputs.rewards, outputs.by_length)
            )
            quality, other = (correlation(part, lengths) for part in parts)
            loss = loss + quality.abs() - other + outputs.overlap.abs()
        return loss

    def preference_loss(self, index: Tensor, rewards: Tensor, label: Tensor, compared: Tensor) -> Tensor:
        """Mean of Bradley-Terry over the pairs that count."""
        row, i, j = compared.nonzero(as_tuple=True)
        gaps = (self.means[index[row, i]] - self.means[index[row, j]]).abs()
        mode: Any = MARGINS.get(self.settings.labels)
        return bradley_terry_loss(
            rewards[row, i],
            rewards[row, j],
            margin=None if mode is None else gaps,
            margin_mode=mode or "none",
            label=label[row, i, j],
            label_smoothing=self.settings.smoothing,
        ).mean()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two `[n]`; 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-6)


def in_chain(label: Tensor, *, closure: bool) -> Tensor:
    """Pairs of neighbours in a row, or also those whose order follows from them: `[R, K, K]` labels to booleans.

    The order of i and k follows if all neighbours between them are ordered alike.
    """
    size = label.shape[-1]
    place = torch.arange(size)
    distance = place[None, :] - place[:, None]
    chain = (distance == 1).expand_as(label)
    if not closure:
        return chain
    up = label.diagonal(1, -2, -1) > 0.5  # [R, K - 1] whether text k is better than k + 1
    changes = torch.nn.functional.pad((up[:, 1:] != up[:, :-1]).long().cumsum(1), (1, 0))  # [R, K - 1]
    same_run = changes[:, :, None] == changes[:, None, :]  # [R, K - 1, K - 1] of neighbours
    implied = torch.zeros_like(chain)
    implied[:, : size - 1, 1:] = same_run
    return implied & (distance >= 1)


def implied_labels(label: Tensor) -> Tensor:
    """Labels of a chain's closure: that of the first neighbours on the way from i to k, `[R, K, K]`."""
    first = label.diagonal(1, -2, -1)  # [R, K - 1]
    first = torch.nn.functional.pad(first, (0, 1), value=0.5)
    return first[:, :, None].expand_as(label)


def interpolated_labels(label: Tensor) -> Tensor:
    """Labels of a chain's pairs, and of the others by strengths that are fitted to the chain: `[R, K, K]`."""
    wins = (label.diagonal(1, -2, -1) > 0.5).tolist()  # R rows of K - 1
    strengths = torch.tensor([strengths_of(tuple(row)) for row in wins])  # [R, K]
    place = torch.arange(label.shape[-1])
    neighbours = (place[:, None] - place).abs() == 1
    return torch.where(neighbours, label, (strengths[:, :, None] - strengths[:, None]).sigmoid())


@cache
def strengths_of(wins: tuple[bool, ...]) -> list[float]:
    """Strengths of a chain's items, by whether each beats the next."""
    first = list(range(len(wins)))
    second = [place + 1 for place in first]
    return fit_strengths(len(wins) + 1, first, second, list(map(float, wins))).tolist()


def _order(difference: Tensor) -> Tensor:
    return (difference.sign() + 1) / 2
