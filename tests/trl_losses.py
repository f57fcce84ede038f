"""The losses on pairs that TRL's own trainers compute from given log-probs."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer

Columns = list[Tensor]
"""Summed log-probs `[B]`: chosen, rejected, and both under the reference."""


def trl_loss(columns: Columns, lengths: Tensor, loss_type: str, beta: float, **options: Any) -> Tensor:
    """Mean over the pairs of the loss that TRL's DPOTrainer computes from a model with these log-probs.

    Args:
        columns: Log-probs, spread evenly over each response's tokens.
        lengths: `[B, 2]` tokens of the chosen and the rejected responses.
        loss_type: TRL's name.
        beta: Its option.
        options: Others, where they aren't at TRL's defaults.
    """
    chosen, rejected, ref_chosen, ref_rejected = columns
    width = int(lengths.max())
    mask = (torch.arange(width) < lengths.t().reshape(-1, 1)).long()  # chosen rows first, then rejected ones
    mask = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)  # one prompt token
    summed = torch.cat([chosen, rejected])
    log_probs = summed[:, None] * mask[:, 1:] / mask.sum(1, keepdim=True)
    zeros = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    class Model:
        training = True

        def __call__(self, **_: Any) -> SimpleNamespace:
            return outputs

    defaults: dict[str, Any] = {
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "label_smoothing": 0.0,
    }
    trainer = SimpleNamespace(
        **{**defaults, **options},
        model=Model(),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        loss_types=[loss_type],
        loss_weights=[1.0],
        use_weighting=False,
        beta=beta,
        args=SimpleNamespace(discopop_tau=options.get("discopop_tau", 0.05)),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    stub: Any = trainer
    return DPOTrainer._compute_loss(stub, stub.model, inputs, return_outputs=False)


def trl_simpo(chosen_means: Tensor, rejected_means: Tensor, beta: float, gamma: float, smoothing: float) -> Tensor:
    """SimPO's losses `[B]` by TRL's CPOTrainer from mean log-probs."""
    trainer: Any = SimpleNamespace(
        alpha=0.0,
        loss_type="simpo",
        simpo_gamma=gamma,
        beta=beta,
        label_smoothing=smoothing,
        accelerator=SimpleNamespace(device="cpu"),
    )
    losses, *_ = CPOTrainer.cpo_loss(trainer, chosen_means, rejected_means)  # type: ignore[arg-type]
    return losses
