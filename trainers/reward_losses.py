"""Losses and metrics of a reward model on a batch of pairs or rankings.

Notation as in `hf_align.trainers.judged`; r = rewards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_align.losses import bradley_terry_loss, plackett_luce_loss, ranking_loss
from hf_align.losses.tasks import TaskKind, task_loss
from hf_align.trainers.judged import LAST, Judged


def preference_losses(rewards: Tensor, judged: Judged, args: Any) -> Tensor:
    """Loss of each row: Plackett-Luce, or the mean of a pairwise loss over the row's pairs (Ouyang et al. 2022, eq. 1).

    Args:
        rewards: `[B, K]`.
        judged: What is known about them.
        args: A `RewardConfig`.

    Returns:
        `[B]` losses.
    """
    if args.loss_type == "plackett_luce":
        return plackett_luce_loss(rewards, judged.ranks, mask=judged.present, ties="average")
    shape = judged.compared.shape
    first, second = rewards[:, :, None].expand(shape), rewards[:, None, :].expand(shape)
    options: dict[str, Any] = {"label": judged.label, "label_smoothing": args.label_smoothing}
    if args.loss_type == "hinge":
        margin = 1.0 if judged.margin is None or args.margin_mode == "none" else judged.margin
        losses = ranking_loss(first, second, margin=margin, **options)
    else:
        losses = bradley_terry_loss(first, second, margin=judged.margin, margin_mode=args.margin_mode, **options)
    share = judged.compared / judged.compared.sum((1, 2), keepdim=True).clamp(min=1)
    return (losses * share).sum((1, 2))


def centering(rewards: Tensor, judged: Judged) -> Tensor:
    """`(2 * mean reward)^2` of each row, `(r_chosen + r_rejected)^2` of a pair (Eisenstein et al. 2023): `[B]`."""
    return (2 * rewards.sum(1) / judged.present.sum(1)).square()


def ranking_metrics(rewards: Tensor, judged: Judged) -> dict[str, Tensor]:
    """Metrics of rewards `[B, K]`; those of ordered pairs as sums and counts `[B, 2]`, the others `[B]`.

    Equal rewards count half in the accuracy, as in a reward report.
    """
    label = torch.ones_like(judged.compared, dtype=rewards.dtype) if judged.label is None else judged.label
    turned = (label < 0.5)[..., None]
    both = torch.stack([rewards[:, :, None].expand_as(label), rewards[:, None, :].expand_as(label)], dim=-1)
    better, worse = torch.where(turned, both.flip(-1), both).unbind(-1)
    ordered = judged.compared & (label != 0.5)

    def over_ordered(values: Tensor) -> Tensor:
        return torch.stack([(values * ordered).sum((1, 2)), ordered.sum((1, 2)).to(values.dtype)], dim=1)

    return {
        "chosen_reward": over_ordered(better),
        "rejected_reward": over_ordered(worse),
        "accuracy": over_ordered(((better > worse).to(rewards.dtype) + (better >= worse).to(rewards.dtype)) / 2),
        "margin": over_ordered(better - worse),
        "mean_reward": rewards.sum(1) / judged.present.sum(1),
        "min_reward": rewards.masked_fill(~judged.present, torch.inf).amin(1),
        "max_reward": rewards.masked_fill(~judged.present, -torch.inf).amax(1),
    }


def rank_agreement(rewards: Tensor, judged: Judged) -> Tensor:
    """Kendall's tau-b of rewards `[B, K]` and people's ranks in each row, and 1 (or 0 if it has none): `[B, 2]`.

    Responses below all ranked ones tie with each other. A row in which all ranks or all rewards are equal has no tau.
    """
    both = (judged.present[:, :, None] & judged.present[:, None, :]).triu(1)
    ranks = torch.where(judged.ranks < 0, LAST, judged.ranks)
    by_people = (ranks[:, None, :] - ranks[:, :, None]).sign() * both  # 1: the first is better
    by_model = (rewards[:, :, None] - rewards[:, None, :]).sign() * both
    norm = (by_people.abs().sum((1, 2)) * by_model.abs().sum((1, 2))).sqrt()
    defined = norm > 0
    tau = torch.where(defined, (by_people * by_model).sum((1, 2)) / norm, 0.0)
    return torch.stack([tau, defined.to(tau.dtype)], dim=1)


def task_metrics(name: str, outputs: Tensor, labels: Tensor, kind: TaskKind, judged: Judged, weight: Tensor) -> Any:
    """Loss and error or accuracy of an auxiliary task over labelled responses, as sums and counts `[B, 2]` by name.

    Args:
        name: The task's name.
        outputs: `[S]`, or `[S, classes]`.
        labels: `[S]`, NaN where a response has none.
        kind: "regression", "binary" or a number of classes.
        judged: Places of the responses.
        weight: `[B]` weights of the rows, which the loss contains and the metric doesn't.
    """
    labelled = ~labels.isnan()
    losses = judged.lay_out(task_loss(outputs, labels, kind))
    counts = judged.lay_out(labelled.to(losses.dtype))
    target = labels.nan_to_num()
    if kind == "regression":
        metric, values = "mae", (outputs.float() - target).abs()
    elif kind == "binary":
        metric, values = "accuracy", ((outputs > 0) == (target > 0.5)).float()
    else:
        metric, values = "accuracy", (outputs.argmax(-1) == target.long()).float()
    right = judged.lay_out(values.where(labelled, 0.0))
    return {
        f"{name}/loss": weight[:, None] * torch.stack([losses.sum(1), counts.sum(1)], dim=1),
        f"{name}/{metric}": torch.stack([right.sum(1), counts.sum(1)], dim=1),
    }
