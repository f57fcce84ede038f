"""Losses of auxiliary tasks compared with numbers computed by hand; rows without a label count nothing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses import task_loss

NAN = math.nan
OUTPUTS = torch.tensor([1.0, -2.0, NAN])
THREE = torch.tensor([[0.0, math.log(2.0), 0.0], [0.0, 0.0, math.log(6.0)], [NAN, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("outputs", "labels", "kind", "expected"),
    [
        (OUTPUTS, [3.0, -2.5, NAN], "regression", [4.0, 0.25, 0.0]),
        (OUTPUTS, [1.0, 0.25, NAN], "binary", [math.log1p(math.exp(-1.0)), math.log1p(math.exp(-2.0)) + 0.5, 0.0]),
        (THREE, [1.0, 2.0, NAN], 3, [math.log(2.0), math.log(8 / 6), 0.0]),
    ],
)
def test_losses_by_hand(outputs: Tensor, labels: list[float], kind: Any, expected: list[float]) -> None:
    outputs = outputs.clone().requires_grad_()
    losses = task_loss(outputs, torch.tensor(labels), kind)
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert (gradient[2] == 0).all()  # neither its NaN output nor its missing label reach the gradient
    assert gradient[:2].isfinite().all()
    large = task_loss(outputs.detach().nan_to_num().bfloat16() * 1e4, torch.tensor(labels), kind)
    assert large.dtype == torch.float32
    assert large.isfinite().all()


def test_unusable_labels_are_refused_with_their_row() -> None:
    cases: list[tuple[Tensor, list[float], Any, str]] = [
        (torch.zeros(2), [NAN, math.inf], "regression", "finite number.*row 1"),
        (torch.zeros(2), [1.0, 2.0], "binary", "probability.*row 1"),
        (torch.zeros(2, 3), [2.0, 3.0], 3, "class from 0 to 2.*row 1"),
        (torch.zeros(2, 3), [0.5, 2.0], 3, "class from 0 to 2.*row 0"),
        (torch.zeros(2), [0.0, 0.0], 1, "A task must be"),
        (torch.zeros(2), [0.0, 0.0], "ranking", "A task must be"),
    ]
    for outputs, labels, kind, message in cases:
        with pytest.raises(UserError, match=message):
            task_loss(outputs, torch.tensor(labels), kind)
    shapes: list[tuple[Tensor, Any]] = [(torch.zeros(2, 1), "regression"), (torch.zeros(2, 4), 3), (torch.zeros(2), 3)]
    for outputs, kind in shapes:
        with pytest.raises(ValueError, match="outputs must be"):
            task_loss(outputs, torch.zeros(2), kind)
