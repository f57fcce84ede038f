"""The loss of online pairs, compared with the losses of DPO and IPO and with numbers worked out by hand."""

from __future__ import annotations

from math import exp, log, log1p
from typing import Any

import pytest
import torch

from hf_align.losses import dpo_loss, ipo_loss
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.loss import pair_losses
from tests.trainers.pairs import options

LOGPS = torch.tensor([[-2.0, -5.0], [-4.0, -3.0]])
REFERENCE = torch.tensor([[-3.0, -4.0], [-3.5, -3.5]])
LENGTHS = torch.tensor([[2, 4], [1, 2]])
ONE = torch.ones(2)


def losses(chances: torch.Tensor, **changes: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = OnlineDPOConfig(**options("out", **{"beta": 0.5, **changes}))
    return pair_losses(LOGPS, REFERENCE, LENGTHS, chances, config)


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
        logps = torch.stack([gap, torch.zeros(1)], 1)
        pair_losses(logps, torch.zeros(1, 2), LENGTHS[:1], torch.tensor([label]), config)[0].sum().backward()
        assert gap.grad is not None and gap.grad.abs() < 1e-6


def test_ties_don_t_count_among_the_accuracies():
    metrics = losses(torch.tensor([0.5, 0.7]), labels="soft")[1]
    assert metrics["rewards/accuracies"].tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert metrics["rewards/margins"].tolist() == [1.0, -0.5]
