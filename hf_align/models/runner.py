"""Running a model on batches in a layout that it honours and in which it has less to compute."""

from __future__ import annotations

from typing import Any, cast

import torch
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
from hf_align.trainers.hub import HubTrainer

logger = logging.get_logger(__name__)

CHECK_DOCUMENTS = 2
"""Documents of the first batch on which the layout is compared with plain rows."""


class LayoutTrainer(HubTrainer):
    """A Trainer whose batches are `Branches`, with `run_model` to call the model on them.

    With `args.layout="auto"` the first batch decides for the run: plain rows if the model's attention takes no branch
    mask, or if they are less work on such data; else branches, if the model gives the same numbers in them.

    On a GPU the first training batch also decides, by measuring, whether SDPA or FlexAttention computes the branches,
    if `owns_attention`. FlexAttention is for the time of `train`: afterwards the models attend as they were loaded.

    Attributes:
        layout_choice: What "auto" chose, and why; None before the first batch, or if the choice was the user's.
        attention_choice: The attention of the last training, and why; None before its first batch, or if there was
            nothing to choose: no GPU, models given as objects, plain rows, selective recompute, torch_compile, sharded
            weights, a model without FlexAttention or loaded with something else than SDPA.
        owns_attention: Whether the trainer loaded its models itself, by name, and may change how they attend. Objects
            keep what their owner loaded.
    """

    args: Any
    owns_attention = False

    def __init__(self, model: BranchModel, args: Any, **kwargs: Any):
        self.layout_choice: LayoutChoice | None = None
        self.attention_choice: AttentionChoice | None = None
        self._attention_open = False
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
        attention = attention_of(self.accelerator.unwrap_model(model).model)
        if attention == FLEX and torch.is_grad_enabled() and _lacks_flex_backward(self.args.device):
            raise UserError(
                "attn_implementation='flex_attention' has no backward pass on a CPU; load the model with 'sdpa'."
            )
        branches = self._lay_out(model, branches)
        return self._call(model, branches, **options), branches

    def _lay_out(self, model: nn.Module, branches: Branches) -> Branches:
        """The batch in a layout that `model` honours; the first one decides for the run."""
        unwrapped: BranchModel = self.accelerator.unwrap_model(model)
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
        return branches.as_separate() if self._use_separate and not branches.separate else branches

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
        bound = noise_bound(noise, exact=self._is_exact(unwrapped))
        worst = self.accelerator.gather(torch.stack([difference - bound, difference, bound])[None])
        worst = worst[worst[:, 0].argmax()]
        if not worst[0] <= 0:  # NaN too
            self._use_separate = True
            logger.warning(
                f"This model doesn't honour the branch layout (difference {worst[1]:.2g}, noise bound {worst[2]:.2g}): "
                "using one row per prompt + response, which is slower."
            )

    def _is_exact(self, unwrapped: BranchModel) -> bool:
        """Whether a model computes in float32, not in 16 bits or quantised."""
        in_16_bits = self.args.bf16 or self.args.fp16
        return not in_16_bits and getattr(unwrapped.model, "quantization_method", None) is None

    # ---- attention ----

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's; see the class for what attention it uses."""
        self.attention_choice, self._attention_open = None, self._is_attention_open()
        try:
            return super().train(*args, **kwargs)
        finally:
            self._attention_open = False
            if self.attention_choice is not None:
                for model in self.branch_models():  # a user may go on with sampling, which is SDPA's domain
                    set_attention(model, "sdpa")

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's; before the first one attention is chosen."""
        if self._attention_open:
            self._attention_open = False
            model.train()
            prepared: dict[str, Any] = self._prepare_inputs(inputs)
            self._choose_attention(model, Branches(**prepared["branches"]))
        return super().training_step(model, inputs, *args, **kwargs)

    def branch_models(self) -> list[BranchModel]:
        """The models that compute the same batches, which must attend alike; the trained one first."""
        return [self.accelerator.unwrap_model(self.model)]

    def _is_attention_open(self) -> bool:
        args = self.args
        return (
            self.owns_attention
            and _may_choose_attention(args.device)
            and not (args.torch_compile or self.is_fsdp_enabled or self.is_deepspeed_enabled)
            and args.activation_recompute != "selective"
            and all(supports_flex(model) for model in self.branch_models())
        )

    def _choose_attention(self, model: nn.Module, branches: Branches) -> None:
        branches = self._lay_out(model, branches)
        policy, *others = self.branch_models()
        own = None
        if not branches.separate:
            own = choose_attention(policy, others, branches, self._numbers, exact=self._is_exact(policy))
        # A process may run out of memory alone: FlexAttention is for all or none.
        choices: list[AttentionChoice | None] = gather_object([own])
        choice = next((choice for choice in choices if choice is None or choice.implementation != FLEX), choices[0])
        if choice is None:
            return
        self.attention_choice = choice
        for each in (policy, *others):
            set_attention(each, choice.implementation)
        if self.is_world_process_zero():
            say = logger.info if choice.measured else logger.warning_once
            say(f"Attention uses '{choice.implementation}': {choice.reason}.")


def _may_choose_attention(device: torch.device) -> bool:
    """Whether FlexAttention may be tried there; the choice is made for CUDA."""
    return device.type == "cuda"


def _lacks_flex_backward(device: torch.device) -> bool:
    return device.type == "cpu"
