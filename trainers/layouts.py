"""Running a model on batches in a layout that it honours and in which it has less to compute."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.branches import Branches
from hf_align.errors import UserError
from hf_align.models.branch_model import BRANCH_ATTENTION, FLEX, BranchModel, attends_by_block, attention_of
from hf_align.models.layout import (
    LayoutChoice,
    Lengths,
    choose_layout,
    compare_layouts,
    costs_of,
    noise_bound,
)
from hf_align.models.reward_model import RewardModel
from hf_align.trainers.hub import HubTrainer

logger = logging.get_logger(__name__)

CHECK_DOCUMENTS = 2
"""Documents of the first batch on which the layout is compared with plain rows."""
SAMPLE_ROWS = 512
"""Rows of the data whose lengths the choice of a layout looks at."""


class LayoutTrainer(HubTrainer):
    """A Trainer whose batches are `Branches`, with `run_model` to call the model on them.

    With `args.layout="auto"` the first batch decides for the run: plain rows if the model's attention takes no branch
    mask, or if they are less work on such data; else branches, if the model gives the same numbers in them.

    Attributes:
        layout_choice: What "auto" chose, and why; None before the first batch, or if the choice was the user's.
    """

    args: Any

    def __init__(self, model: BranchModel, args: Any, **kwargs: Any):
        self.layout_choice: LayoutChoice | None = None
        self._layout_checked = args.layout != "auto"
        self._use_separate = args.layout == "separate"
        super().__init__(model=model, args=args, **kwargs)

    def sample_lengths(self) -> list[list[Lengths]]:
        """Lengths of prompts and responses of some batches, as training (or else evaluation) will meet them."""
        raise NotImplementedError

    def run_model(self, model: nn.Module, branches: Branches, **options: Any) -> tuple[Any, Branches]:
        """Call `model` on the batch in a layout it honours; its output, and the batch as it was laid out.

        `options` are what else its `forward` takes.
        """
        unwrapped: BranchModel = self.accelerator.unwrap_model(model)
        if torch.is_grad_enabled() and self.args.device.type == "cpu" and attention_of(unwrapped.model) == FLEX:
            raise UserError(
                "attn_implementation='flex_attention' has no backward pass on a CPU; load the model with 'sdpa'."
            )
        if not self._layout_checked and self.layout_choice is None:
            self._choose_layout(unwrapped)
        if not self._use_separate and not unwrapped.honours_branch_mask(branches):
            logger.warning_once(
                "This model's attention (its implementation, or a window shorter than a prompt + response) takes no "
                "branch mask: such batches use one row per prompt + response."
            )
            branches = branches.as_separate()
        elif not self._layout_checked:
            self._check_layout(model, unwrapped, branches)
        if self._use_separate and not branches.separate:
            branches = branches.as_separate()
        return self._call(model, branches, **options), branches

    @staticmethod
    def _call(model: nn.Module, branches: Branches, **options: Any) -> Any:
        return model(**branches.tensors(), separate=branches.separate, **options)

    def _numbers(self, model: nn.Module, branches: Branches, **options: Any) -> Tensor:
        """What layouts are compared by: the log-probs or rewards of the batch, flat."""
        output = self._call(model, branches, **options)
        return (output["logps"] if isinstance(output, dict) else output).flatten()

    def _choose_layout(self, unwrapped: BranchModel) -> None:
        """Say what takes less work on the data; plain rows then need no comparison.

        It depends on the data and not on the first batch, so that a resumed run chooses the same.
        """
        attention = attention_of(unwrapped.model)
        if attention not in BRANCH_ATTENTION:
            self.layout_choice = LayoutChoice("separate", f"attn_implementation={attention!r} takes no branch mask")
        else:
            costs = costs_of(cast(Any, unwrapped.model).config.get_text_config())
            options = {"row_tokens": self.args.row_tokens, "by_block": attends_by_block(unwrapped)}
            self.layout_choice = choose_layout(self.sample_lengths(), costs, **options)
        self._use_separate = self._layout_checked = self.layout_choice.layout == "separate"
        if not self.is_world_process_zero():
            return
        reason = self.layout_choice.reason
        if self._use_separate:
            logger.warning(f"layout='auto' uses 'separate', one row per prompt + response: {reason}.")
        else:
            logger.info(f"layout='auto' uses 'branch', a prompt with its responses in a row: {reason}.")

    @torch.no_grad()
    def _check_layout(self, model: nn.Module, unwrapped: BranchModel, branches: Branches) -> None:
        """Compare the branch layout with plain rows; the yardstick is plain rows' own noise under another padding."""
        self._layout_checked = True
        difference, noise, plain = compare_layouts(
            lambda batch: self._numbers(model, batch),
            branches.documents(CHECK_DOCUMENTS),
            branches.input_ids.device,
        )
        if not isinstance(unwrapped, RewardModel):
            own = self._numbers(model, plain, full_logits=True)
            difference = torch.maximum(difference, (own - self._numbers(model, plain)).abs().mean())
        exact = not (self.args.bf16 or self.args.fp16) and getattr(unwrapped.model, "quantization_method", None) is None
        bound = noise_bound(noise, exact=exact)
        worst = self.accelerator.gather(torch.stack([difference - bound, difference, bound])[None])
        worst = worst[worst[:, 0].argmax()]
        if not worst[0] <= 0:  # NaN too
            self._use_separate = True
            logger.warning(
                f"This model doesn't honour the branch layout (difference {worst[1]:.2g}, noise bound {worst[2]:.2g}): "
                "using one row per prompt + response, which is slower."
            )


def spread_rows(count: int, most: int = SAMPLE_ROWS) -> range:
    """At most `most` of `count` rows, evenly spaced: data may be sorted."""
    return range(0, count, -(-count // most) or 1)


def batches_of(documents: list[Lengths], size: int) -> list[list[Lengths]]:
    """The documents `size` at a time."""
    return [documents[start : start + size] for start in range(0, len(documents), size)]
