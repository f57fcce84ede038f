"""KL estimators compared with exact expectations, and the controllers step by step."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses.kl import estimate_kl, full_kl
from hf_align.rl.kl_controllers import FixedKLController, ProportionalKLController, ThresholdKLController

KINDS: tuple[Any, ...] = ("k1", "k2", "k3")


def two_policies(vocab: int = 6) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(3)
    return torch.randn(vocab, generator=gen, dtype=torch.float64), torch.randn(
        vocab, generator=gen, dtype=torch.float64
    )


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    policy, reference = (torch.distributions.Categorical(logits=x) for x in (logits, ref_logits))
    return torch.distributions.kl_divergence(policy, reference)


def test_estimators_by_hand() -> None:
    logps, ref_logps = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])  # r = 0.5, -1
    assert estimate_kl(logps, ref_logps).tolist() == [0.5, -1.0]
    assert estimate_kl(logps, ref_logps, kind="k2").tolist() == [0.125, 0.5]
    expected = [math.exp(-0.5) - 0.5, math.exp(1.0) - 2.0]
    assert estimate_kl(logps, ref_logps, kind="k3").tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: Any) -> None:
    logits, ref_logits = two_policies()
    logps, ref_logps = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    # Exactly: the expectation over the vocabulary.
    expectation = (logps.exp() * estimate_kl(logps, ref_logps, kind=kind)).sum()
    torch.testing.assert_close(expectation, exact_kl(logits, ref_logits))
    # And sampled: within four standard errors.
    tokens = torch.multinomial(logps.exp(), 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    estimates = estimate_kl(logps[tokens], ref_logps[tokens], kind=kind)
    error = estimates.mean() - exact_kl(logits, ref_logits)
    assert error.abs() < 4 * estimates.std() / len(estimates) ** 0.5


def test_expected_gradients_are_as_documented() -> None:
    logits, ref_logits = two_policies()
    logits.requires_grad_()
    probs = logits.detach().softmax(-1)

    def expected_gradient(kind: Any) -> Tensor:
        estimates = estimate_kl(logits.log_softmax(-1), ref_logits.log_softmax(-1), kind=kind)
        return torch.autograd.grad(probs @ estimates, logits)[0]

    (exact,) = torch.autograd.grad(exact_kl(logits, ref_logits), logits)
    (reverse,) = torch.autograd.grad(exact_kl(ref_logits, logits), logits)
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros_like(exact))
    torch.testing.assert_close(expected_gradient("k2"), exact)
    torch.testing.assert_close(expected_gradient("k3"), reverse)


def test_estimates_keep_shape_and_are_fp32() -> None:
    logps = torch.zeros(2, 3, dtype=torch.bfloat16)
    for kind in KINDS:
        result = estimate_kl(logps, logps, kind=kind)
        assert (result.shape, result.dtype) == ((2, 3), torch.float32)
        assert not result.any()


def test_k3_of_nearly_equal_policies_does_not_cancel() -> None:
    # r = 1e-4: k3 = r^2 / 2 = 5e-9, which exp(-r) - 1 + r in fp32 rounds to 0 or 1e-8.
    result = estimate_kl(torch.tensor([1e-4]), torch.tensor([0.0]), kind="k3")
    assert result.item() == pytest.approx(5e-9, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_log_ratios_keep_gradients_finite(kind: Any) -> None:
    logps = torch.tensor([1e4, -1e4], requires_grad=True)
    result = estimate_kl(logps, torch.zeros(2), kind=kind)
    (gradient,) = torch.autograd.grad(result.sum(), logps)
    assert result.isfinite().all()
    assert gradient.isfinite().all()


def test_full_kl_equals_brute_force() -> None:
    gen = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 11, generator=gen, requires_grad=True)
    ref_logits = torch.randn(2, 3, 11, generator=gen)
    result = full_kl(logits, ref_logits)
    expected = torch.zeros(2, 3)
    probs, ref_probs = logits.detach().softmax(-1), ref_logits.softmax(-1)
    for b in range(2):
        for t in range(3):
            for p, q in zip(probs[b, t].tolist(), ref_probs[b, t].tolist(), strict=True):
                expected[b, t] += p * math.log(p / q)
    torch.testing.assert_close(result.detach(), expected, atol=1e-6, rtol=1e-5)
    actual_grad = torch.autograd.grad(result.sum(), logits)
    torch.testing.assert_close(actual_grad, torch.autograd.grad(exact_kl(logits, ref_logits).sum(), logits))


def test_full_kl_survives_underflow_and_ruled_out_tokens() -> None:
    logits = torch.tensor([[0.0, -1e4], [0.0, -math.inf], [0.0, -1e4]], requires_grad=True)
    ref_logits = torch.tensor([[0.0, 0.0], [0.0, -math.inf], [-1e4, 0.0]])
    result = full_kl(logits, ref_logits)
    torch.testing.assert_close(result.detach(), torch.tensor([math.log(2.0), 0.0, 1e4]))
    result.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert full_kl(torch.zeros(2), torch.tensor([0.0, -math.inf])).item() == math.inf


def test_unknown_estimator_and_shapes_are_refused() -> None:
    kind: Any = "k4"
    with pytest.raises(UserError, match="k4"):
        estimate_kl(torch.zeros(1), torch.zeros(1), kind=kind)
    with pytest.raises(ValueError, match="ref_logits"):
        full_kl(torch.zeros(2, 3), torch.zeros(3))


def test_fixed_controller_stays() -> None:
    controller = FixedKLController(0.05)
    assert controller.update(1e9, 64) == controller.coef == 0.05
    assert FixedKLController(0.0).update(1.0, 1) == 0.0


def test_threshold_controller_step_by_step() -> None:
    controller = ThresholdKLController(0.1, 6.0)
    # On both thresholds nothing happens; beyond them x1.5 and x0.5.
    kls = [9.0, 3.0, 9.01, 6.0, 2.99, 0.0, -1.0]
    coefs = [controller.update(kl, 64) for kl in kls]
    assert coefs == pytest.approx([0.1, 0.1, 0.15, 0.15, 0.075, 0.0375, 0.01875])


def test_threshold_controller_is_bounded() -> None:
    controller = ThresholdKLController(0.1, 6.0, factor=2.0, min_coef=0.04, max_coef=0.3)
    assert [controller.update(math.inf, 1) for _ in range(3)] == pytest.approx([0.2, 0.3, 0.3])
    assert [controller.update(0.0, 1) for _ in range(3)] == pytest.approx([0.15, 0.075, 0.04])


def test_proportional_controller_step_by_step() -> None:
    controller = ProportionalKLController(0.2, 6.0, 1000)
    # kl / target - 1 = 0, 0.1, 1 (clipped to 0.2), -1 (clipped to -0.2); n / horizon = 0.1
    coefs = [controller.update(kl, 100) for kl in (6.0, 6.6, 12.0, 0.0)]
    assert coefs == pytest.approx([0.2, 0.2 * 1.01, 0.2 * 1.01 * 1.02, 0.2 * 1.01 * 1.02 * 0.98])


def test_proportional_controller_is_bounded_even_for_rollouts_longer_than_its_horizon() -> None:
    controller = ProportionalKLController(0.2, 6.0, 10)
    assert controller.update(0.0, 1000) == controller.min_coef  # 1 - 0.2 * 100 would be negative
    assert controller.update(math.inf, 100_000_000) == controller.max_coef


def test_proportional_controller_holds_a_simulated_policy_at_its_target() -> None:
    controller = ProportionalKLController(0.2, 6.0, 2000)
    for _ in range(500):
        kl = 0.3 / controller.coef  # a policy that drifts the further the smaller the coefficient
        controller.update(kl, 100)
    assert 0.3 / controller.coef == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize(
    ("controller", "fresh"),
    [
        (FixedKLController(0.3), FixedKLController(0.1)),
        (ThresholdKLController(0.3, 5.0, 1.7, 0.6, 0.01, 2.0), ThresholdKLController(0.1, 6.0)),
        (ProportionalKLController(0.3, 5.0, 500, 0.01, 2.0), ProportionalKLController(0.1, 6.0, 1000)),
    ],
)
def test_state_survives_json_and_continues_the_same(controller: Any, fresh: Any) -> None:
    controller.update(40.0, 64)
    fresh.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    assert fresh == controller
    assert [fresh.update(kl, 64) for kl in (1.0, 30.0, 5.0)] == [controller.update(kl, 64) for kl in (1.0, 30.0, 5.0)]


def test_state_of_another_controller_is_refused() -> None:
    with pytest.raises(ValueError, match="ThresholdKLController"):
        ThresholdKLController(0.1, 6.0).load_state_dict(FixedKLController(0.1).state_dict())


def test_nan_kl_raises_and_leaves_the_coefficient() -> None:
    for controller in (
        FixedKLController(0.1),
        ThresholdKLController(0.1, 6.0),
        ProportionalKLController(0.1, 6.0, 100),
    ):
        with pytest.raises(ValueError, match="NaN"):
            controller.update(math.nan, 8)
        assert controller.coef == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedKLController(-0.1), "coefficient"),
        (lambda: FixedKLController(math.nan), "coefficient"),
        (lambda: ThresholdKLController(0.1, 0.0), "target"),
        (lambda: ThresholdKLController(0.0, 6.0), "bounds"),
        (lambda: ThresholdKLController(0.1, 6.0, factor=0.9), "factor"),
        (lambda: ThresholdKLController(0.1, 6.0, shrink=1.0), "shrink"),
        (lambda: ProportionalKLController(20.0, 6.0, 100), "bounds"),
        (lambda: ProportionalKLController(0.1, 6.0, 0), "horizon"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
