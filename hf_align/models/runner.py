"""Running a model on batches in a layout that it honours and in which it has less to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils.operations import gather_object
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.acceleration.flex import can_train
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.layout.compare import compare_layouts, noise_bound
from hf_align.layout.cost import LayoutChoice, Lengths, choose_layout, costs_of
from hf_align.models.attention_choice import (
    AttentionChoice,
    agree,
    choose_attention,
    device_clock,
    set_attention,
    supports_flex,
)
from hf_align.models.reward import RewardModel
from hf_align.models.wrapper import BRANCH_ATTENTION, FLEX, BranchModel, attends_by_block, attention_of

logger = logging.get_logger(__name__)

CHECK_DOCUMENTS = 2
"""Documents of the first batch on which the layout is compared with plain rows."""


class LayoutRunner:
    """Calls a model on `Branches` in a layout that it honours, the one in which it has less to compute.

    With `args.layout="auto"` the first batch decides for the run: plain rows if the model's attention takes no branch
    mask, or if they are less work on such data; else branches, if the model gives the same numbers in them.

    On a GPU the first training batch also decides, by measuring, whether SDPA or FlexAttention computes the branches.
    FlexAttention is for the time of a training: afterwards the models attend as they were loaded.

    Args:
        args: Config the run goes by: `layout`, `row_tokens`, `device`, precision, compile and recompute options.
        accelerator: Of the run; unwraps models and gathers what processes decide together.
        sample_lengths: Gives the lengths of prompts and responses of some batches, as the run will meet them.
        models: Gives the models that compute the same batches, which must attend alike; the trained one first.
        sharded: Weights are sharded over processes (FSDP, DeepSpeed).

    Attributes:
        layout_choice: What "auto" chose, and why; None before the first batch, or if the choice was the user's.
        attention_choice: The attention of the last training, and why; None before its first batch, or if there was
            nothing to choose: no GPU, models given as objects, plain rows, selective recompute, torch_compile, sharded
            weights, a model without FlexAttention or loaded with something else than SDPA.
        separate: Every batch is laid out in plain rows.
        measures_flex: Whether a training measures FlexAttention: on CUDA.
        clock: What it is measured by.
    """

    def __init__(
        self,
        args: Any,
        accelerator: Accelerator,
        sample_lengths: Callable[[], list[list[Lengths]]],
        models: Callable[[], list[BranchModel]],
        *,
        sharded: bool,
    ):
        self.args, self.accelerator, self.sharded = args, accelerator, sharded
        self.sample_lengths, self.models = sample_lengths, models
        self.layout_choice: LayoutChoice | None = None
        self.attention_choice: AttentionChoice | None = None
        self.separate = args.layout == "separate"
        self.measures_flex, self.clock = args.device.type == "cuda", device_clock
        self._layout_checked = args.layout != "auto"
        self._attention_open = False

    def run(self, model: nn.Module, branches: Branches, **options: Any) -> tuple[Any, Branches]:
        """Call a model on a batch in a layout that it honours.

        Args:
            model: A `BranchModel`, prepared by the accelerator or not.
            branches: The batch.
            options: More arguments of the model's `forward`.

        Returns:
            The model's output, and the batch as it was laid out.

        Raises:
            UserError: FlexAttention should compute gradients on a CPU.
        """
        attention = attention_of(self._unwrap(model).model)
        if attention == FLEX and torch.is_grad_enabled() and not can_train(self.args.device):
            raise UserError(
                "attn_implementation='flex_attention' has no backward pass on a CPU; load the model with 'sdpa'."
            )
        branches = self._lay_out(model, branches)
        return model(branches, **options), branches

    def _unwrap(self, model: nn.Module) -> BranchModel:
        """Model that the accelerator prepared, without its wrappers.

        Accelerate looks through all modules for compiled ones. Four times a step, as it was, that took 9% of a small
        model's step on a GPU, which waits for Python (under a profiler).
        """
        if isinstance(model, BranchModel) and "_orig_mod" not in vars(model):
            return model
        return cast(BranchModel, self.accelerator.unwrap_model(model))

    def _lay_out(self, model: nn.Module, branches: Branches) -> Branches:
        """Lay a batch out as `model` honours it; the first one decides for the run."""
        unwrapped = self._unwrap(model)
        if not self._layout_checked and self.layout_choice is None:
            self._choose_layout(unwrapped)
        if not self.separate and not unwrapped.honours_branch_mask(branches):
            logger.warning_once(
                "This model's attention (its implementation, or a window shorter than a prompt + response) takes no "
                "branch mask: such batches use one row per prompt + response."
            )
            branches = branches.as_separate()
        elif not self._layout_checked:
            self._check_layout(model, unwrapped, branches)
        return branches.as_separate() if self.separate and not branches.separate else branches

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
        self.separate = self._layout_checked = self.layout_choice.layout == "separate"
        reason = self.layout_choice.reason
        if self.separate and self.accelerator.is_main_process:
            logger.warning(f"layout='auto' uses 'separate', one row per prompt + response: {reason}.")
        elif self.accelerator.is_main_process:
            logger.info(f"layout='auto' uses 'branch', a prompt with its responses in a row: {reason}.")

    @torch.no_grad()
    def _check_layout(self, model: nn.Module, unwrapped: BranchModel, branches: Branches) -> None:
        """Compare the branch layout with plain rows; the yardstick is plain rows' own noise under another padding."""
        self._layout_checked = True
        difference, noise, plain = compare_layouts(
            lambda batch: _flat_numbers(model, batch),
            branches.documents(CHECK_DOCUMENTS),
            branches.input_ids.device,
        )
        if not isinstance(unwrapped, RewardModel):
            logps = _flat_numbers(model, plain, full_logits=True)
            difference = torch.maximum(difference, (logps - _flat_numbers(model, plain)).abs().mean())
        bound = noise_bound(noise, exact=self._is_exact(unwrapped))
        worst = self.accelerator.gather(torch.stack([difference - bound, difference, bound])[None])
        worst = worst[worst[:, 0].argmax()]
        if not worst[0] <= 0:  # NaN too
            self.separate = True
            logger.warning(
                f"This model doesn't honour the branch layout (difference {worst[1]:.2g}, noise bound {worst[2]:.2g}): "
                "using one row per prompt + response, which is slower."
            )

    def _is_exact(self, unwrapped: BranchModel) -> bool:
        """Say whether a model computes in float32, not in 16 bits or quantised."""
        quantized = getattr(unwrapped.model, "quantization_method", None) is not None
        return not (self.args.bf16 or self.args.fp16 or quantized)

    # ---- attention ----

    @contextmanager
    def training(self, *, may_choose: bool) -> Iterator[None]:
        """Surround a training whose first batch chooses the attention if it may; then models attend as before."""
        args = self.args
        self.attention_choice = None
        self._attention_open = (
            may_choose
            and self.measures_flex
            and not (args.torch_compile or self.sharded)
            and args.activation_recompute != "selective"
            and all(supports_flex(model) for model in self.models())
        )
        try:
            yield
        finally:
            self._attention_open = False
            if self.attention_choice is not None:
                for model in self.models():  # a user may go on with sampling, which is SDPA's domain
                    set_attention(model, "sdpa")

    def choose_attention(self, model: nn.Module, batch: Callable[[], Branches]) -> None:
        """Before a training's first step, choose the attention on its batch; at later steps do nothing."""
        if self._attention_open:
            self._attention_open = False
            model.train()
            self._choose_attention(model, batch())

    def _choose_attention(self, model: nn.Module, branches: Branches) -> None:
        branches = self._lay_out(model, branches)
        policy, *others = self.models()
        measured = None
        if not branches.separate:
            exact = self._is_exact(policy)
            measured = choose_attention(policy, others, branches, _flat_numbers, exact=exact, clock=self.clock)
        choice = agree(gather_object([measured]))
        if choice is None:
            return
        self.attention_choice = choice
        for each in (policy, *others):
            set_attention(each, choice.implementation)
        if self.accelerator.is_main_process:
            say = logger.info if choice.measured else logger.warning_once
            say(f"Attention uses '{choice.implementation}': {choice.reason}.")


def _flat_numbers(model: nn.Module, branches: Branches, **options: Any) -> Tensor:
    """Compute the log-probs or rewards of a batch, flat, to compare layouts by."""
    output = model(branches, **options)
    return (output["logps"] if isinstance(output, dict) else output).flatten()
