"""Losses that a config names, and functions of the user's in their place."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.errors import UserError
from hf_align.losses import PREFERENCE_LOSSES, PreferenceBatch
from hf_align.trainers.direct import direct_loss, direct_metrics
from hf_align.trainers.dpo import DPOConfig, IPOConfig
from hf_align.trainers.named_losses import read_losses
from hf_align.trainers.online.config import OnlineDPOConfig
from tests.trainers.pairs import options

FILE = """
count = 0

def hinge(batch, config):
    return (1 - config.beta * (batch.chosen_log_ratios - batch.rejected_log_ratios)).relu()

def plain(batch, config):
    return batch.rejected_means - batch.chosen_means

plain.reference_free = True
"""


def config(**changes: Any) -> DPOConfig:
    return DPOConfig(**options("out", **changes))


def batch(value: float = -4.0) -> PreferenceBatch:
    lengths = torch.tensor([4, 3])
    chosen = torch.tensor([value, -5.0], requires_grad=True)
    return PreferenceBatch(chosen, torch.tensor([-9.0, -2.0]), lengths, lengths, *[torch.tensor([-5.0, -5.0])] * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": "aot"}, "loss_type is 'aot', which isn't offered: TRL's aot sorts the log-ratios of a batch"),
        ({"loss_type": "hinges"}, "loss_type is 'hinges'; did you mean 'hinge'?"),
        ({"loss_type": ["sigmoid", 3]}, "loss_type is 3; use sigmoid, sigmoid_norm, "),
        ({"loss_type": []}, "loss_type is an empty list"),
        ({"loss_type": "missing.py:loss"}, "loss_type: there is no file missing.py"),
        ({"length_normalize": True, "loss_type": "ipo"}, "length_normalize is True, which loss_type 'ipo' ignores"),
        ({"ipo_target": 1.0}, "ipo_target is 1.0, which loss_type 'sigmoid' ignores; leave it out, or use ipo."),
        ({"ipo_reduction": "sum", "loss_type": ["hinge", "sft"]}, "ipo_reduction is 'sum', which loss_type 'hinge'"),
        ({"simpo_gamma": 1.0}, "simpo_gamma is 1.0, which loss_type 'sigmoid' ignores; leave it out, or use simpo."),
        ({"discopop_tau": 0.1}, "discopop_tau is 0.1, which loss_type 'sigmoid' ignores"),
        ({"label_smoothing": 0.1, "loss_type": ["sigmoid", "ipo"]}, "label_smoothing is 0.1, which loss_type 'ipo'"),
        ({"label_smoothing": 0.1, "loss_type": "sft"}, "label_smoothing is 0.1, which loss_type 'sft' ignores"),
        ({"f_divergence_type": "forward_kl", "loss_type": ["sigmoid", "simpo"]}, "which loss_type 'simpo' ignores"),
        ({"f_divergence_type": "forward_kl", "loss_type": "apo_zero"}, "which loss_type 'apo_zero' ignores"),
        ({"f_alpha_divergence_coef": 0.1}, "which f_divergence_type 'reverse_kl' ignores"),
        ({"ld_alpha": 0.5, "loss_type": "simpo"}, "ld_alpha is 0.5, which loss_type 'simpo' ignores"),
        ({"ld_alpha": 0.5, "loss_type": ["sigmoid", "sft"]}, "ld_alpha is 0.5, which loss_type 'sft' ignores"),
        ({"loss_type": "exo_pair"}, "label_smoothing is 0, at which loss_type 'exo_pair' is infinite"),
        ({"loss_type": "simpo", "precompute_ref_log_probs": True}, "no reference is scored with loss_type 'simpo'"),
        ({"loss_type": "simpo", "sync_ref_model": True}, "sync_ref_model is given, and no reference is scored"),
        ({"ld_alpha": 1.5}, "ld_alpha is 1.5; it must be between 0 and 1"),
        ({"simpo_gamma": -1.0, "loss_type": "simpo"}, "simpo_gamma is -1.0; it must be 0 or more"),
        ({"f_divergence_type": "kl"}, "f_divergence_type is 'kl'; it must be 'reverse_kl'"),
    ],
)
def test_what_a_loss_ignores_or_lacks_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        config(**changes)
    assert message in str(error.value)


def test_what_a_loss_reads_is_taken() -> None:
    for changes in (
        {"loss_type": ["sigmoid", "sft"], "label_smoothing": 0.1, "f_divergence_type": "js_divergence"},
        {"loss_type": ["sigmoid", "ipo"], "length_normalize": True, "ipo_target": 2.0},
        {"loss_type": "exo_pair", "label_smoothing": 0.001, "ld_alpha": 0.0},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.1},
        {"loss_type": lambda batch, config: batch.chosen_logps, "simpo_gamma": 3.0, "label_smoothing": 0.2},
    ):
        assert config(**changes).losses
    assert OnlineDPOConfig(**options("out", loss_type=["sigmoid", "sft"])).loss_types == ["sigmoid", "sft"]
    with pytest.raises(UserError, match="IPOConfig fixes it"):
        IPOConfig(**options("out", loss_type=["ipo", "sft"]))


def test_losses_without_a_reference_are_known() -> None:
    assert config(loss_type=["simpo", "sft"]).reference_free and not config(loss_type=["sigmoid", "sft"]).reference_free
    assert not config(loss_type="simpo").needs_reference and config().needs_reference


def test_a_function_of_a_file_is_read_once_and_named_in_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    args = config(loss_type=[f"{file}:hinge", "sft"], loss_weights=[1.0, 0.5])
    assert args.losses is args.losses and args.loss_types == [f"{file}:hinge", "sft"]
    expected = PREFERENCE_LOSSES["hinge"](batch(), args) + 0.5 * PREFERENCE_LOSSES["sft"](batch(), args)
    torch.testing.assert_close(direct_loss(batch(), args), expected)
    assert config(loss_type=f"{file}:plain").reference_free
    assert config(loss_type="hf_align.losses.registry:_hinge").losses[0].function is not None

    def own(batch: PreferenceBatch, config: Any) -> Any:
        return batch.chosen_logps

    written = json.loads(config(loss_type=own).to_json_string())["loss_type"]
    assert written.startswith("tests.trainers.test_named_losses:") and written.endswith(".own")
    assert copy.deepcopy(config(loss_type=[own, "ipo"])).losses[0].function is own
    assert config(loss_type=PREFERENCE_LOSSES["apo_zero"]).loss_types == ["apo_zero"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda pairs: pairs.chosen_logps.mean(), r"returned [] for 2 pairs; return a tensor of one loss a pair, [2]"),
        (lambda pairs: 1.0, "returned float for 2 pairs"),
        (lambda pairs: pairs.chosen_logps.detach(), "returned losses without a gradient"),
        (lambda pairs: (-pairs.chosen_logps).exp().exp(), "returned a loss that is NaN or infinite"),
        (lambda pairs: pairs.chosen_logps + pairs.token_logps, "failed: ValueError: This batch was made without"),
    ],
)
def test_a_function_s_result_is_checked(returned: Any, message: str) -> None:
    (loss,) = read_losses(lambda pairs, config: returned(pairs))
    with pytest.raises(UserError) as error:
        loss(batch(-40.0), None)
    assert message in str(error.value) and "loss_type: tests.trainers.test_named_losses" in str(error.value)


def test_a_function_isn_t_blamed_for_a_model_s_nan_and_not_asked_about_nothing() -> None:
    (loss,) = read_losses(lambda pairs, config: pairs.chosen_logps / len(pairs.chosen_logps))
    assert loss(batch(float("nan")), None).isnan().any()
    empty = torch.zeros(0)
    assert loss(PreferenceBatch(empty, empty, empty.long(), empty.long()), None).shape == (0,)
    with torch.no_grad():
        assert loss(batch(), None).shape == (2,)


def test_no_loss_of_ours_lays_out_single_tokens() -> None:
    pairs = replace(batch(), flat_token_logps=torch.zeros(14))
    args = config(loss_type=[name for name in PREFERENCE_LOSSES if name != "exo_pair"])
    direct_loss(pairs, args)
    direct_metrics(pairs, args)
    assert not {"token_logps", "token_mask"} & {*vars(pairs)}


def test_implicit_rewards_without_a_reference_are_mean_log_probs() -> None:
    metrics = direct_metrics(batch(), config(loss_type="simpo", beta=2.0))
    assert metrics["rewards/chosen"].tolist() == pytest.approx([-2.0, -10 / 3])
    assert metrics["rewards/rejected"].tolist() == pytest.approx([-4.5, -4 / 3])
    assert metrics["rewards/accuracies"].tolist() == [1, 0]
    metrics = direct_metrics(batch(), config(loss_type=["simpo", "sigmoid"], beta=2.0))
    assert metrics["rewards/chosen"].tolist() == pytest.approx([2.0, 0.0])
