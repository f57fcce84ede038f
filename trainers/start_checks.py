"""Checks at the start of training of conditions without which numbers would be silently wrong.

- Every trainable parameter is in the optimizer.
- Two passes over a batch agree: nothing is random unless requested.
- Policy and reference agree, so that the first loss is log 2 (IPO: the square of its target); in PPO the update's
  log-probs equal the rollout's, so that the first ratio is 1.
- A layout gives the same numbers as the model row by row: see `hf_align.models.runner`, which lays out batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.layout.branches import Branches, build_branches
from hf_align.layout.compare import to_compare
from hf_align.models.randomness import random_state_kept, without_noise
from hf_align.models.runner import SHARE, LayoutRunner, numbers_of

logger = logging.get_logger(__name__)

SAME_ON_CPU = 1e-5
"""Mean difference in nats or reward of two passes that isn't randomness on a CPU, where both compute the same bits."""


def agreement_bound(*, exact: bool) -> float:
    """Mean difference per token, in nats, that the order of additions in kernels may cause between equal computations.

    Args:
        exact: Whether the model computes in float32, not in 16 bits or quantised.
    """
    return 1e-3 if exact else 0.02


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that leaves out parameters that require gradients.

    Raises:
        UserError: Parameters are missing; the message names them and the remedy.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = [name for name, parameter in trained.items() if id(parameter) not in held]
    if not missing:
        return
    names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    raise UserError(
        f"optimizers: {len(missing)} of {len(trained)} trainable parameters are not in the optimizer and would never "
        f"be trained: {names}. The trainer makes adapters and heads after your optimizer; give the class instead, "
        "optimizer_cls_and_kwargs=(torch.optim.AdamW, {'lr': 1e-4}), or set trainer.optimizer to an optimizer of "
        "trainer.model.parameters()."
    )


def check_passes(runner: LayoutRunner, models: Sequence[nn.Module], branches: Branches) -> None:
    """Refuse to train if two passes of a model over the same batch, in its current mode, differ.

    NEFTune's noise is excluded, and generators are restored. Short runs compare less than the batch.

    Args:
        runner: Calls the models.
        models: The trained model and, if it is another model, the reference.
        branches: The first batch.

    Raises:
        UserError: The passes differ; the message gives the difference.
    """
    documents = branches.documents(branches.num_documents)
    compared = to_compare(documents, int(SHARE * runner.data.tokens() / (2 * len(models))))
    if compared != documents:
        branches = build_branches(compared, pad_token_id=0).to(branches.input_ids.device)
    on_cpu = branches.input_ids.device.type == "cpu"
    for model in models:
        gap = worst(difference_of_passes(runner, model, branches), runner.accelerator)
        if gap > (SAME_ON_CPU if on_cpu else agreement_bound(exact=runner.is_exact(model))):
            raise UserError(
                f"Two passes of the model over one batch differ by {gap:.2g} per token, although dropout is off: "
                "something else in it is random in training (a router that samples, noise, skipped layers), so numbers "
                "can't be compared; switch it off in the model's config, or set disable_dropout=False to train with it."
            )
        logger.info(f"start-up check: two passes over one batch agree (they differ by {gap:.2g}).")


@torch.no_grad()
def difference_of_passes(runner: LayoutRunner, model: nn.Module, branches: Branches) -> Tensor:
    """Mean difference of two passes of a model over the same batch, in its current mode: a scalar, 0 on a CPU."""
    with random_state_kept(branches.input_ids.device), without_noise(model):
        first, second = (numbers_of(runner.run(model, branches)[0]) for _ in range(2))
    return (first - second).abs().mean()


def check_first_loss(logps: Tensor, ref_logps: Tensor, lengths: Tensor, bound: float, accelerator: Accelerator) -> None:
    """Refuse to train if a reference that should equal the initial policy doesn't before the first step.

    Args:
        logps: The policy's `[B, 2]` log-probs, sums over tokens.
        ref_logps: The reference's `[B, 2]` log-probs.
        lengths: `[B, 2]` numbers of tokens.
        bound: Allowed difference per token.
        accelerator: Connection of the processes, which all fail if one exceeds the bound.

    Raises:
        UserError: They differ; the message gives the difference.
    """
    gap = worst(((logps - ref_logps) / lengths).abs().mean(), accelerator)
    if gap > bound:
        raise UserError(
            f"Policy and reference differ by {gap:.2g} nats per token before the first step, so the first loss isn't "
            "log 2 (IPO: the square of its target). The reference is the policy as given to the trainer: an adapter "
            "that doesn't start at zero (init_lora_weights), a weight changed since or noise in one of them would "
            "be mistaken for training; undo that, or name the reference yourself (ref_model)."
        )


def check_first_ratio(logps: Tensor, old_logps: Tensor, bound: float, accelerator: Accelerator) -> None:
    """Refuse to train if a fresh pass over the first micro-batch doesn't give the rollout's log-probs `[N]`.

    Raises:
        UserError: They differ; the message gives the difference.
    """
    gap = worst((logps - old_logps).abs().mean(), accelerator)
    if gap > bound:
        raise UserError(
            f"The first update's log-probs of the policy differ by {gap:.2g} nats per token from the rollout's, "
            "before any step, so ratios don't start at 1: something in the model is random or depends on its batch; "
            "switch it off in the model's config, or set disable_dropout=False to train with it."
        )
    logger.info(
        f"start-up check: a fresh pass agrees with the first rollout (they differ by {gap:.2g} nats per token)."
    )


def worst(difference: Tensor, accelerator: Accelerator) -> float:
    """The maximum of the processes' scalar differences; NaN counts as 0, since other code reports it."""
    gathered = cast(Tensor, accelerator.gather(difference.detach().float().reshape(1)))
    return gathered.nan_to_num(0.0).max().item()
