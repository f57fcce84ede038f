"""The listwise loss of reward models: Plackett-Luce, for full and partial rankings of K responses.

Notation: B prompts, K responses of each (the longest row's number), r = rewards.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses.inputs import prepare

# 2^12 subsets of one group of tied responses are 16 KB a prompt; 2^20 would be 4 MB and two seconds.
MAX_TIED = 12


def plackett_luce_loss(
    rewards: Tensor,
    ranks: Tensor,
    *,
    mask: Tensor | None = None,
    ties: Literal["refuse", "average"] = "refuse",
) -> Tensor:
    """Negative log-likelihood of rankings under Plackett-Luce (Plackett 1975; Luce 1959), per prompt.

    A ranking is drawn best first: each place goes to one of the responses that are left, with probability softmax(r)
    over them. So the loss is the sum, over the ranked responses i, of `logsumexp(r of i and all below it) - r_i`. For
    K = 2 it is Bradley-Terry's. In a partial ranking, responses that were shown but not ranked are below all ranked
    ones, in no order: they stand in every denominator and take no place. A prompt without any order (nothing ranked,
    or one response) has loss 0.

    Args:
        rewards: `[B, K]`.
        ranks: `[B, K]` integers: 0 is the best, larger is worse (numbers may be left out); -1: shown, and below all
            ranked responses.
        mask: `[B, K]`, false (or 0) where the row has no such response: whatever stands there has no influence. None: K
            responses everywhere.
        ties: What to do where responses of a prompt share a rank. "refuse" them, or take the "average" of the losses
            over all orders of the tied ones. (It pulls their rewards together, like the label 0.5 of a pair. Up to 12
            responses may share a rank.)

    Returns:
        `[B]` losses. They are sums: a ranking of K responses makes K - 1 choices and weighs as much.

    Raises:
        UserError: Ranks that aren't whole numbers from -1, ties that are refused or too many, or unknown `ties`.
        ValueError: Shapes differ, or are not `[B, K]`.

    Example:
        >>> import torch
        >>> from hf_align.losses import plackett_luce_loss
        >>> plackett_luce_loss(torch.zeros(1, 3), torch.tensor([[0, 1, 2]]))  # log 3!
        tensor([1.7918])
    """
    if ties not in ("refuse", "average"):
        raise UserError(f'ties must be "refuse" or "average", got {ties!r}.')
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [B, K], got {list(rewards.shape)}.")
    present = torch.ones_like(ranks, dtype=torch.bool) if mask is None else mask.bool()
    (r, _, _) = prepare(rewards=rewards, ranks=ranks, mask=present)
    _check_ranks(ranks, present)
    lowest = torch.finfo(r.dtype).min  # in place of -inf, whose differences are NaN in gradients
    r = r.masked_fill(~present, 0.0)  # a NaN there would reach the gradients
    ranked = present & (ranks >= 0)
    place = ranks.masked_fill(~ranked, torch.iinfo(ranks.dtype).max)  # unranked: below all
    below = present[:, None, :] & (place[:, None, :] > place[:, :, None])  # [B, K, K]: j is below i
    tied = ranked[:, None, :] & ranked[:, :, None] & (place[:, None, :] == place[:, :, None])  # with itself, too
    groups = tied.sum(-1)  # [B, K] responses that share i's place; 0 for unranked ones
    left = torch.where(below | tied, r[:, None, :], lowest).logsumexp(-1)
    losses = torch.where(groups == 1, left - r, 0.0).sum(-1)
    if not (groups > 1).any():
        return losses
    _check_ties(ties, groups)
    rest = torch.where(below, r[:, None, :], lowest).logsumexp(-1)
    first = (groups > 1) & ~tied.tril(-1).any(-1)  # one response for each group
    for size in groups[first].unique().tolist():
        row, i = (first & (groups == size)).nonzero(as_tuple=True)  # N groups
        members = r[row][tied[row, i]].view(-1, size)  # [N, size]
        losses = losses.index_add(0, row, _average_over_orders(members, rest[row, i]))
    return losses


def _average_over_orders(members: Tensor, rest: Tensor) -> Tensor:
    """Mean of the loss of N groups of tied responses over all their orders: `[N, size]`, `[N] -> [N]`.

    `rest` is the logsumexp of what is below the group. When s members are left, each subset of s is as likely as any
    other over the orders, so the mean needs 2^size logsumexps, not size! orders.

    Each step of the loop adds a member to all subsets of those before it.
    """
    size = members.shape[1]
    left, count = rest[:, None], members.new_zeros(1)  # the empty subset
    for member in members.unbind(1):
        left = torch.cat([left, torch.logaddexp(left, member[:, None])], 1)  # [N, subsets so far]
        count = torch.cat([count, count + 1])
    weights = members.new_tensor([0.0, *(1 / math.comb(size, s) for s in range(1, size + 1))])[count[1:].long()]
    return left[:, 1:] @ weights - members.sum(1)


def _check_ranks(ranks: Tensor, present: Tensor) -> None:
    if ranks.is_floating_point() or ranks.is_complex() or ranks.dtype == torch.bool:
        raise UserError(f"ranks must be whole numbers (an integer tensor), got {ranks.dtype}.")
    bad = (present & (ranks < -1)).nonzero()
    if bad.numel() > 0:
        row, response = bad[0].tolist()
        raise UserError(
            f"ranks must be 0 (best) or more, or -1 for a response below all ranked ones, but row {row} of the batch "
            f"has {ranks[row, response].item()}."
        )


def _check_ties(ties: str, groups: Tensor) -> None:
    row = int((groups > 1).any(-1).nonzero()[0])
    if ties == "refuse":
        raise UserError(
            f"Responses of row {row} of the batch share a rank: give each its own, or average over their orders with "
            'ties="average".'
        )
    largest = int(groups.max())
    if largest > MAX_TIED:
        row = int((groups == largest).any(-1).nonzero()[0])
        raise UserError(
            f"{largest} responses of row {row} of the batch share a rank, and orders can be averaged over at most "
            f"{MAX_TIED}: give responses at the end the rank -1 (below all ranked ones), or drop some."
        )
