"""PPO's loss on handmade experience, compared with numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.loss import ppo_loss
from hf_align.trainers.ppo.rollout import Rollout
from tests.trainers.pairs import options

ROWS = slice(0, 2)


def rollout_by_hand() -> Rollout:
    """Two responses, of two tokens and of one."""
    rollout = Rollout(
        prompt_ids=[[1], [1]],
        response_ids=[[2, 3], [4]],
        finished=torch.tensor([True, True]),
        scores=torch.tensor([1.0, 0.0]),
        num_samples=1,
        kl_coef=0.3,
    )
    for name, flat in {
        "old_logps": [math.log(0.5), math.log(0.2), math.log(0.4)],
        "ref_logps": [math.log(0.75) - 0.2, math.log(0.2), math.log(0.2) + 0.4],
        "values": [0.0, 0.0, 0.0],
        "advantages": [1.0, 2.0, -1.0],
        "returns": [1.0, 1.0, 0.0],
    }.items():
        rollout.tokens[name] = rollout.spread(torch.tensor(flat))
    return rollout


def loss_of(out: Path, **changes: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, metrics and the policy's output, whose ratios to the rollout's policy are 1.5, 1 and 0.5."""
    rollout = rollout_by_hand()
    output = {
        "logps": torch.tensor([0.75, 0.2, 0.2]).log(),
        "values": torch.tensor([0.1, 1.0, -0.5]),
        "entropy": torch.tensor([1.0, 2.0, 3.0]),
        "kl": torch.tensor([0.5, 0.5, 2.0]),
    }
    output = {name: tensor.requires_grad_() for name, tensor in output.items()}
    old = {name: rollout.flat(name, ROWS) for name in rollout.tokens}
    config = PPOConfig(**options(out, clip_range=0.2, value_clip_range=0.2, value_coef=0.5, **changes))
    loss, metrics = ppo_loss(output, old, config, rollout.kl_coef)
    return loss, metrics, output


# min(r A, clip(r) A): min(1.5, 1.2) = 1.2, 2, min(-0.5, -0.8) = -0.8; their mean is 0.8.
POLICY = -0.8
# max of (V - R)^2 and with V held within 0.2 of 0: max(.81, .81), max(0, .64), max(.25, .04); half their mean.
VALUE = 0.5 * (0.81 + 0.64 + 0.25) / 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, POLICY + 0.5 * VALUE),
        ({"entropy_coef": 0.1}, POLICY + 0.5 * VALUE - 0.1 * 2),
        # k2 is half the squared log-ratio to the reference: 0.02, 0, 0.08.
        ({"kl_in": "loss"}, POLICY + 0.5 * VALUE + 0.3 * 0.1 / 3),
        ({"kl_in": "loss", "kl_estimator": "full"}, POLICY + 0.5 * VALUE + 0.3 * 1.0),
        (
            {"policy_loss": "reinforce"},
            -(math.log(0.75) * 1 + math.log(0.2) * 2 - math.log(0.2) * 1) / 3 + 0.5 * VALUE,
        ),
    ],
    ids=["clip", "entropy", "k2", "full", "reinforce"],
)
def test_the_loss_is_that_worked_out_by_hand(tmp_path: Path, changes: dict[str, Any], expected: float):
    loss, metrics, _ = loss_of(tmp_path, **changes)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["loss/value_avg"].tolist() == pytest.approx([VALUE] * 3)
    assert metrics["val/ratio"].tolist() == pytest.approx([1.5, 1.0, 0.5])
    assert metrics["policy/clipfrac_avg"].tolist() == [1.0, 0.0, 1.0]
    squares = [0.5 * math.log(ratio) ** 2 for ratio in (1.5, 1.0, 0.5)]
    assert metrics["policy/approxkl_avg"].tolist() == pytest.approx(squares)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_only_tokens_within_the_clip_range_move_the_policy(tmp_path: Path):
    loss, _, output = loss_of(tmp_path)
    loss.backward()
    # The second token has r A = 2; the others are clipped. A value clipped away from its return has no gradient.
    assert output["logps"].grad is not None and output["values"].grad is not None
    assert output["logps"].grad.tolist() == pytest.approx([0.0, -2 / 3, 0.0])
    assert output["values"].grad.tolist() == pytest.approx([0.5 * -0.9 / 3, 0.0, 0.5 * -0.5 / 3])
