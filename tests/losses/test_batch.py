"""Pairs as losses get them."""

from dataclasses import replace

import pytest
import torch

from hf_align.losses import PreferenceBatch

LENGTHS = torch.tensor([[2, 3], [1, 1]])
TOKENS = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0])


def batch() -> PreferenceBatch:
    return PreferenceBatch(
        chosen_logps=torch.tensor([-3.0, -6.0]),
        rejected_logps=torch.tensor([-12.0, -7.0]),
        chosen_lengths=LENGTHS[:, 0],
        rejected_lengths=LENGTHS[:, 1],
        ref_chosen_logps=torch.tensor([-4.0, -6.5]),
        ref_rejected_logps=torch.tensor([-10.0, -7.0]),
        flat_token_logps=TOKENS,
    )


def test_tokens_stand_beside_their_responses_and_have_gradients() -> None:
    flat = TOKENS.clone().requires_grad_()
    pairs = replace(batch(), flat_token_logps=flat)
    assert pairs.token_logps.tolist() == [[[-1, -2, 0], [-3, -4, -5]], [[-6, 0, 0], [-7, 0, 0]]]
    assert pairs.token_mask.tolist() == [[[True, True, False], [True] * 3], [[True, False, False]] * 2]
    assert pairs.token_logps.sum(2).tolist() == [[-3, -12], [-6, -7]]
    (gradient,) = torch.autograd.grad((pairs.token_logps * torch.arange(3)).sum(), flat)
    assert gradient.tolist() == [0, 1, 0, 1, 2, 0, 0]


def test_flipped_swaps_all_that_belongs_to_a_response() -> None:
    pairs, other = batch(), batch().flipped()
    assert other.chosen_log_ratios.tolist() == pairs.rejected_log_ratios.tolist() == [-2, 0]
    assert other.rejected_means.tolist() == pairs.chosen_means.tolist() == [-1.5, -6]
    assert other.flat_token_logps is not None
    assert other.flat_token_logps.tolist() == [-3, -4, -5, -1, -2, -7, -6]
    assert torch.equal(other.flipped().token_logps, pairs.token_logps)
    assert replace(pairs, flat_token_logps=None).flipped().flat_token_logps is None


def test_what_is_missing_or_of_another_shape_is_said() -> None:
    alone = replace(batch(), ref_chosen_logps=None, ref_rejected_logps=None, flat_token_logps=None)
    with pytest.raises(ValueError, match="no log-probs of a reference"):
        _ = alone.chosen_log_ratios
    with pytest.raises(ValueError, match="without flat_token_logps"):
        _ = alone.token_logps
    with pytest.raises(ValueError, match=r"chosen_logps \[2\], rejected_logps \[2, 1\]"):
        replace(alone, rejected_logps=torch.zeros(2, 1))


def test_sixteen_bit_log_probs_become_float32_and_a_batch_may_be_empty() -> None:
    empty = torch.zeros(0)
    pairs = PreferenceBatch(empty.bfloat16(), empty.bfloat16(), empty.long(), empty.long(), flat_token_logps=empty)
    assert pairs.chosen_logps.dtype == torch.float32 and pairs.token_logps.shape == (0, 2, 0)
