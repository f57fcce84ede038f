import numpy as np
import pytest
import torch

from hf_align.data.strengths import fit_strengths


def test_one_comparison_has_the_strengths_of_its_closed_form() -> None:
    # sigmoid(-2x) = 2 sigmoid(x) - 1 for strengths x and -x, so t = exp(x) solves t^3 - t^2 - 2 = 0.
    t = max(root.real for root in np.roots([1, -1, 0, -2]) if abs(root.imag) < 1e-9)
    assert fit_strengths(2, [0], [1], [1.0]) == pytest.approx([np.log(t), -np.log(t)], abs=1e-6)
    assert fit_strengths(3, [0], [1], [0.5]) == pytest.approx([0, 0, 0], abs=1e-6)


def test_no_strengths_are_more_likely() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    label, weight = rng.random(30), rng.random(30) * 3
    s = torch.tensor(fit_strengths(6, one, two, label, weight), requires_grad=True)
    d, p = s[one] - s[two], torch.tensor(label)
    likelihood = p * torch.nn.functional.logsigmoid(d) + (1 - p) * torch.nn.functional.logsigmoid(-d)
    against_zero = torch.nn.functional.logsigmoid(s) + torch.nn.functional.logsigmoid(-s)
    ((torch.tensor(weight) * likelihood).sum() + against_zero.sum()).backward()
    assert s.grad is not None and s.grad.abs().max() < 1e-6  # the likelihood is concave
