"""The loss of online pairs, compared with the losses of DPO and IPO and with numbers worked out by hand."""

from __future__ import annotations

from math import exp, log, log1p
from typing import Any

import pytest
import torch

from hf_align.layout.branches import build_branches
from hf_align.losses import PREFERENCE_LOSSES, PreferenceBatch, dpo_loss, ipo_loss
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.loss import batch_of_pairs, pair_losses
from tests.trainers.pairs import options

LOGPS = torch.tensor([[-2.0, -5.0], [-4.0, -3.0]])
REFERENCE = torch.tensor([[-3.0, -4.0], [-3.5, -3.5]])
LENGTHS = torch.tensor([[2, 4], [1, 2]])
ONE = torch.ones(2)


def batch(**changes: Any) -> PreferenceBatch:
    return PreferenceBatch(*LOGPS.unbind(1), *LENGTHS.unbind(1), *REFERENCE.unbind(1), **changes)


def losses(chances: torch.Tensor, **changes: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = OnlineDPOConfig(**options("out", **{"beta": 0.5, **changes}))
    return pair_losses(batch(), chances, config)


def test_hard_labels_give_the_losses_of_dpo_and_ipo():
    columns = (*LOGPS.unbind(1), *REFERENCE.unbind(1))
    assert torch.equal(losses(ONE)[0], dpo_loss(*columns, beta=0.5))
    smoothed = losses(ONE, label_smoothing=0.1)[0]
    assert torch.equal(smoothed, dpo_loss(*columns, beta=0.5, label_smoothing=0.1))
    sums = losses(ONE, loss_type="ipo", ipo_reduction="sum", ipo_target=2.0)[0]
    assert torch.equal(sums, ipo_loss(*columns, beta=0.5, target=2.0))
    lengths = {"chosen_lengths": LENGTHS[:, 0], "rejected_lengths": LENGTHS[:, 1]}
    assert torch.equal(losses(ONE, loss_type="ipo")[0], ipo_loss(*columns, beta=0.5, **lengths))


def test_soft_labels_weigh_both_orders():
    """Log-ratios 1 and -1, so h = 2; -0.5 and 0.5, so h = -1."""
    labels = torch.tensor([0.8, 0.5])
    of_dpo = losses(labels, labels="soft")[0]
    worked_out = [0.8 * log1p(exp(-1)) + 0.2 * log1p(exp(1)), 0.5 * log1p(exp(0.5)) + 0.5 * log1p(exp(-0.5))]
    assert of_dpo.tolist() == pytest.approx(worked_out, abs=1e-6)
    of_ipo = losses(labels, labels="soft", loss_type="ipo", ipo_reduction="sum")[0]
    assert of_ipo.tolist() == pytest.approx([0.8 * 1 + 0.2 * 9, 0.5 * 4 + 0.5 * 0], abs=1e-6), "target 1"


def test_a_soft_label_is_where_its_loss_is_least():
    for label in (0.6, 0.9):
        gap = torch.tensor([log(label / (1 - label)) / 0.5], requires_grad=True)
        config = OnlineDPOConfig(**options("out", beta=0.5, labels="soft"))
        zero, one = torch.zeros(1), torch.ones(1)
        pair = PreferenceBatch(gap, zero, one, one, zero, zero)
        pair_losses(pair, torch.tensor([label]), config)[0].sum().backward()
        assert gap.grad is not None and gap.grad.abs() < 1e-6


def test_ties_don_t_count_among_the_accuracies():
    metrics = losses(torch.tensor([0.5, 0.7]), labels="soft")[1]
    assert metrics["rewards/accuracies"].tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert metrics["rewards/margins"].tolist() == [1.0, -0.5]


def test_every_loss_of_the_registry_takes_sampled_pairs_in_both_orders():
    labels = torch.tensor([0.8, 0.5])
    for name, loss in PREFERENCE_LOSSES.items():
        changes: dict[str, Any] = {"label_smoothing": 0.1} if name == "exo_pair" else {}
        config = OnlineDPOConfig(**options("out", beta=0.5, loss_type=name, **changes))
        expected = labels * loss(batch(), config) + (1 - labels) * loss(batch().flipped(), config)
        got, metrics = losses(labels, loss_type=name, labels="soft", **changes)
        assert torch.equal(got, expected), name
        rewards = LOGPS / LENGTHS if loss.reference_free else LOGPS - REFERENCE
        assert torch.equal(metrics["rewards/margins"], 0.5 * rewards[:, 0] - 0.5 * rewards[:, 1]), name


def test_a_function_gets_the_tokens_of_both_responses_of_a_pair_in_either_order():
    """Three responses of one prompt, of which the first is in two pairs."""
    responses = [[5, 6, 7], [8], [9, 4]]
    branches = build_branches([([1, 2], responses)], pad_token_id=0)
    logps = -branches.targets.float()
    pairs = batch_of_pairs(logps, 0.5 * logps, branches, torch.tensor([[0, 2], [1, 0]]), with_tokens=True)
    assert pairs.token_logps.tolist() == [[[-5, -6, -7], [-9, -4, 0]], [[-8, 0, 0], [-5, -6, -7]]]
    assert pairs.chosen_logps.tolist() == [-18, -8] and pairs.rejected_log_ratios.tolist() == [-6.5, -9]
    first = OnlineDPOConfig(**options("out", loss_type=lambda pairs, config: pairs.token_logps[:, 0, 0], labels="soft"))
    mixed, _ = pair_losses(pairs, torch.tensor([0.75, 0.5]), first)
    assert mixed.tolist() == [0.75 * -5 + 0.25 * -9, 0.5 * -8 + 0.5 * -5]
    assert batch_of_pairs(logps, logps, branches, torch.tensor([[0, 1]]), with_tokens=False).flat_token_logps is None
