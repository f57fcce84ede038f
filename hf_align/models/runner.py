"""Running a model on batches in a layout that it honours and in which it has less to compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.utils.operations import gather_object
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.layout.compare import compare_layouts, noise_bound
from hf_align.layout.cost import LayoutChoice, Lengths, choose_layout, costs_of
from hf_align.models.attention_choice import AttentionChoice, choose_attention, set_attention, supports_flex
from hf_align.models.reward import RewardModel
from hf_align.models.wrapper import BRANCH_ATTENTION, FLEX, BranchModel, attends_by_block, attention_of

logger = logging.get_logger(__name__)

CHECK_DOCUMENTS = 2
"""Documents of the first batch on which the layout is compared with plain rows."""
TRIES_FLEX = ("cuda",)
"""Types of devices on which FlexAttention is measured."""
LACKS_FLEX_BACKWARD = ("cpu",)
"""Types of devices on which FlexAttention can't train."""


class LayoutRunner:
    """Calls models on `Branches`, in the layout and with the attention that it chose for the run.

    With `layout="auto"` the first batch decides for the run: plain rows if the model's attention takes no branch mask,
    or if they are less work on such data; else branches, if the model gives the same numbers in them.

    Args:
        layout: "auto", "branch" or "separate".
        row_tokens: Tokens of the rows into which documents are packed, None where they aren't.
        sample_lengths: Gives the lengths of prompts and responses of some batches, as the run will meet them.
        accelerator: Of the run.
        in_16_bits: Models compute under autocast in bfloat16 or float16.

    Attributes:
        layout_choice: The layout that "auto" chose, and why; None before the first batch, or if the user chose.
        attention_choice: The attention of the last training, and why; None before its first batch, or if there was
            nothing to choose: no GPU, models given as objects, plain rows, selective recompute, torch_compile, sharded
            weights, a model without FlexAttention or loaded with something else than SDPA.
        uses_separate: Every prompt + response has a row of its own.
    """

    def __init__(
        self,
        layout: Literal["auto", "branch", "separate"],
        row_tokens: int | None,
        sample_lengths: Callable[[], list[list[Lengths]]],
        accelerator: Accelerator,
        *,
        in_16_bits: bool,
    ):
        self.layout_choice: LayoutChoice | None = None
        self.attention_choice: AttentionChoice | None = None
        self.uses_separate = layout == "separate"
        self._is_checked = layout != "auto"
        self._row_tokens = row_tokens
        self._sample_lengths = sample_lengths
        self._accelerator = accelerator
        self._in_16_bits = in_16_bits

    def run(self, model: nn.Module, branches: Branches, **options: Any) -> tuple[Any, Branches]:
        """Call a model on a batch in a layout that it honours.

        Args:
            model: A `BranchModel`, prepared by the accelerator or not.
            branches: The batch.
            options: More arguments of the model's `forward`.

        Returns:
            The model's output, and the batch as it was laid out.

        Raises:
            UserError: On a CPU, FlexAttention is asked for gradients.
        """
        attention = attention_of(self._accelerator.unwrap_model(model).model)
        device = self._accelerator.device.type
        if attention == FLEX and torch.is_grad_enabled() and device in LACKS_FLEX_BACKWARD:
            raise UserError(
                "attn_implementation='flex_attention' has no backward pass on a CPU; load the model with 'sdpa'."
            )
        branches = self._lay_out(model, branches)
        return _call(model, branches, **options), branches

    # ---- layout ----

    def _lay_out(self, model: nn.Module, branches: Branches) -> Branches:
        """Lay a batch out as `model` honours it; the first one decides for the run."""
        unwrapped: BranchModel = self._accelerator.unwrap_model(model)
        if not self._is_checked and self.layout_choice is None:
            self._choose_layout(unwrapped)
        if not self.uses_separate and not unwrapped.honours_branch_mask(branches):
            logger.warning_once(
                "This model's attention (its implementation, or a window shorter than a prompt + response) takes no "
                "branch mask: such batches use one row per prompt + response."
            )
            branches = branches.as_separate()
        elif not self._is_checked:
            self._check_layout(model, unwrapped, branches)
        return branches.as_separate() if self.uses_separate and not branches.separate else branches

    def _choose_layout(self, unwrapped: BranchModel) -> None:
        """Say what takes less work on the data; plain rows then need no comparison.

        It depends on the data and not on the first batch, so that a resumed run chooses the same.
        """
        attention = attention_of(unwrapped.model)
        if attention not in BRANCH_ATTENTION:
            self.layout_choice = LayoutChoice("separate", f"attn_implementation={attention!r} takes no branch mask")
        else:
            costs = costs_of(cast(Any, unwrapped.model).config.get_text_config())
            options = {"row_tokens": self._row_tokens, "by_block": attends_by_block(unwrapped)}
            self.layout_choice = choose_layout(self._sample_lengths(), costs, **options)
        self.uses_separate = self._is_checked = self.layout_choice.layout == "separate"
        if not self._accelerator.is_main_process:
            return
        reason = self.layout_choice.reason
        if self.uses_separate:
            logger.warning(f"layout='auto' uses 'separate', one row per prompt + response: {reason}.")
        else:
            logger.info(f"layout='auto' uses 'branch', a prompt with its responses in a row: {reason}.")

    @torch.no_grad()
    def _check_layout(self, model: nn.Module, unwrapped: BranchModel, branches: Branches) -> None:
        """Compare the branch layout with plain rows; the yardstick is plain rows' own noise under another padding."""
        self._is_checked = True
        difference, noise, plain = compare_layouts(
            lambda batch: _flat_numbers(model, batch),
            branches.documents(CHECK_DOCUMENTS),
            branches.input_ids.device,
        )
        if not isinstance(unwrapped, RewardModel):
            logps = _flat_numbers(model, plain, full_logits=True)
            difference = torch.maximum(difference, (logps - _flat_numbers(model, plain)).abs().mean())
        bound = noise_bound(noise, exact=self._is_exact(unwrapped))
        gathered = cast(Tensor, self._accelerator.gather(torch.stack([difference - bound, difference, bound])[None]))
        worst = gathered[gathered[:, 0].argmax()]
        if not worst[0] <= 0:  # NaN too
            self.uses_separate = True
            logger.warning(
                f"This model doesn't honour the branch layout (difference {worst[1]:.2g}, noise bound {worst[2]:.2g}): "
                "using one row per prompt + response, which is slower."
            )

    def _is_exact(self, unwrapped: BranchModel) -> bool:
        """Say whether a model computes in float32, not in 16 bits or quantised."""
        return not self._in_16_bits and getattr(unwrapped.model, "quantization_method", None) is None

    # ---- attention ----

    def may_choose_attention(self, models: Sequence[BranchModel]) -> bool:
        """Say whether FlexAttention may be tried for models that attend alike."""
        return self._accelerator.device.type in TRIES_FLEX and all(supports_flex(model) for model in models)

    def choose_attention(self, model: nn.Module, branches: Branches, models: Sequence[BranchModel]) -> None:
        """Decide by measuring a training batch whether SDPA or FlexAttention computes branches, and set it.

        Args:
            model: The trained model as the training step holds it, in train mode.
            branches: The batch.
            models: All that compute the same batches, unwrapped, the trained one first.
        """
        branches = self._lay_out(model, branches)
        policy, *others = models
        measured = None
        if not branches.separate:
            measured = choose_attention(policy, others, branches, _flat_numbers, exact=self._is_exact(policy))
        # A process may run out of memory alone: FlexAttention is for all or none.
        choices: list[AttentionChoice | None] = gather_object([measured])
        choice = next((choice for choice in choices if choice is None or choice.implementation != FLEX), choices[0])
        if choice is None:
            return
        self.attention_choice = choice
        for each in models:
            set_attention(each, choice.implementation)
        if self._accelerator.is_main_process:
            say = logger.info if choice.measured else logger.warning_once
            say(f"Attention uses '{choice.implementation}': {choice.reason}.")


def _call(model: nn.Module, branches: Branches, **options: Any) -> Any:
    return model(**branches.tensors(), separate=branches.separate, **options)


def _flat_numbers(model: nn.Module, branches: Branches, **options: Any) -> Tensor:
    """Compute the log-probs or rewards of a batch, flat, to compare layouts by."""
    output = _call(model, branches, **options)
    return (output["logps"] if isinstance(output, dict) else output).flatten()
