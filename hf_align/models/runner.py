"""Running a model on batches in a layout that it honours and that takes less work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils.operations import gather_object
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.acceleration.flex import can_train
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, Document, row_length
from hf_align.layout.compare import (
    compare_layouts,
    cut,
    longest_documents,
    noise_bound,
    plain_tokens,
    to_compare,
)
from hf_align.layout.cost import LayoutChoice, Lengths, choose_layout, costs_of
from hf_align.models.adapters import evaluation_mode
from hf_align.models.attention_choice import (
    AttentionChoice,
    agree,
    choose_attention,
    device_clock,
    set_attention,
    supports_flex,
)
from hf_align.models.randomness import random_state_kept
from hf_align.models.reward import RewardModel
from hf_align.models.wrapper import BRANCH_ATTENTION, FLEX, BranchModel, attends_by_block, attention_of

logger = logging.get_logger(__name__)

SHARE = 0.01
"""Of a run's time, what comparing layouts may take; on short runs `compare.LEAST_TOKENS` are compared all the same."""
COMPARED_PASSES = 4
"""Passes over the compared documents: row by row, in plain rows, in branches, and there with other tokens."""


@dataclass(frozen=True)
class RunData:
    """A runner's access to its run's data, used from the first batch on.

    Attributes:
        lengths: Returns the lengths of prompts and responses of some batches of the run.
        longest: Returns the documents with the longest rows, the same on every process.
        tokens: Returns the tokens that the run passes through the model in plain rows; a backward pass counts as two.
    """

    lengths: Callable[[], list[list[Lengths]]]
    longest: Callable[[], list[Document]]
    tokens: Callable[[], int]


@dataclass(frozen=True)
class Compared:
    """The rows on which a model's layouts were compared.

    Attributes:
        tokens: Tokens of the longest `prompt + response`, before any was cut.
        width: Tokens per row in branches, as computed.
    """

    tokens: int
    width: int


class LayoutRunner:
    """Calls a model on `Branches` in the layout with less work that it honours.

    With `args.layout="auto"` the first batch decides for the run: plain rows if the model's attention takes no branch
    mask, or if they are less work on such data; otherwise branches, if the model gives the same numbers in them as for
    each row alone. This is compared on the longest rows of the data, and again on longer ones.

    On a GPU the first training batch also decides, by measuring, whether SDPA or FlexAttention computes the branches.
    FlexAttention is used only during training: afterwards the models attend as loaded.

    Args:
        args: Config of the run: `layout`, `row_tokens`, `device`, precision, compile and recompute options.
        accelerator: The run's accelerator; unwraps models and gathers values for joint decisions.
        data: Lengths and sizes of the run's data.
        models: Returns the models that compute the same batches, which must attend alike; the trained one first.
        sharded: Whether weights are sharded over processes (FSDP, DeepSpeed).

    Attributes:
        layout_choice: The choice of "auto" with its reason; None before the first batch, or if the user chose.
        attention_choice: The attention of the last training with its reason; None before its first batch, or if there
            was no choice: no GPU, models given as objects, plain rows, selective recompute, torch_compile, sharded
            weights, a model without FlexAttention or not loaded with SDPA.
        separate: Whether every batch is laid out in plain rows.
        share: Maximum share of the run's time for comparing layouts: 1%.
        measures_flex: Whether training measures FlexAttention: on CUDA.
        clock: Clock of the measurement.
    """

    def __init__(
        self,
        args: Any,
        accelerator: Accelerator,
        data: RunData,
        models: Callable[[], list[BranchModel]],
        *,
        sharded: bool,
    ):
        self.args, self.accelerator, self.sharded = args, accelerator, sharded
        self.data, self.models = data, models
        self.layout_choice: LayoutChoice | None = None
        self.attention_choice: AttentionChoice | None = None
        self.separate = args.layout == "separate"
        self.share = SHARE
        self.measures_flex, self.clock = args.device.type == "cuda", device_clock
        self._compared: dict[int, Compared] = {}  # by the id of a model without wrappers
        self._expected: Sequence[Document] = ()
        self._attention_open = False

    def run(self, model: nn.Module, branches: Branches, **options: Any) -> tuple[Any, Branches]:
        """Call a model on a batch in a layout that it honours.

        Args:
            model: A `BranchModel`, prepared by the accelerator or not.
            branches: The batch.
            options: Further arguments of the model's `forward`.

        Returns:
            The model's output, and the batch in the layout used.

        Raises:
            UserError: FlexAttention should compute gradients on a CPU, or the model doesn't honour the layout.
        """
        attention = attention_of(self._unwrap(model).model)
        if attention == FLEX and torch.is_grad_enabled() and not can_train(self.args.device):
            raise UserError(
                "attn_implementation='flex_attention' has no backward pass on a CPU; load the model with 'sdpa'."
            )
        branches = self._lay_out(model, branches)
        return model(branches, **options), branches

    def _unwrap(self, model: nn.Module) -> BranchModel:
        """The model prepared by the accelerator, without its wrappers.

        accelerate searches all modules for compiled ones. Four times per step, as before, this took 9% of a small
        model's step on a GPU, which waits for Python (under a profiler).
        """
        if isinstance(model, BranchModel) and "_orig_mod" not in vars(model):
            return model
        return cast(BranchModel, self.accelerator.unwrap_model(model))

    def _lay_out(self, model: nn.Module, branches: Branches) -> Branches:
        """Lay out a batch for `model`; the first one decides for the run."""
        unwrapped = self._unwrap(model)
        if self.args.layout == "auto" and self.layout_choice is None:
            self._choose_layout(unwrapped)
        if documents := self._to_compare(unwrapped, branches):
            self._check_layout(model, unwrapped, documents, branches.input_ids.device)
        compared = self._compared[id(unwrapped)]
        if not self.separate and not unwrapped.honours_branch_mask(branches, compared.width):
            logger.warning_once(
                "This model's attention (its implementation, or a window shorter than a prompt + response) takes no "
                "branch mask: such batches use one row per prompt + response."
            )
            branches = branches.as_separate()
        return branches.as_separate() if self.separate and not branches.separate else branches

    def expect(self, documents: Sequence[Document]) -> None:
        """Announce the longest documents of batches to come, the same on every process.

        If their rows are longer than what layouts were compared on, the next batch compares again.
        """
        self._expected = documents

    def _choose_layout(self, unwrapped: BranchModel) -> None:
        """Say what takes less work on the data.

        The choice depends on the data, not on the first batch, so that a resumed run chooses the same.
        """
        attention = attention_of(unwrapped.model)
        if attention not in BRANCH_ATTENTION:
            self.layout_choice = LayoutChoice("separate", f"attn_implementation={attention!r} takes no branch mask")
        else:
            costs = costs_of(cast(Any, unwrapped.model).config.get_text_config())
            options = {"row_tokens": self.args.row_tokens, "by_block": attends_by_block(unwrapped)}
            self.layout_choice = choose_layout(self.data.lengths(), costs, **options)
        self.separate = self.layout_choice.layout == "separate"
        reason = self.layout_choice.reason
        if self.separate and self.accelerator.is_main_process:
            logger.warning(f"layout='auto' uses 'separate', one row per prompt + response: {reason}.")
        elif self.accelerator.is_main_process:
            logger.info(f"layout='auto' uses 'branch', a prompt with its responses in a row: {reason}.")

    def _to_compare(self, unwrapped: BranchModel, branches: Branches) -> Sequence[Document]:
        """Documents on which a model's layouts have to be compared before this batch; none if they have been."""
        compared = self._compared.get(id(unwrapped))
        if compared is None:
            return self.data.longest() or branches.documents(2)
        if self.separate:  # plain rows differ from those by themselves in their padding, which has no length
            return ()
        longer = [document for document in self._expected if row_length(document) > compared.tokens]
        if not longer and branches.longest > compared.tokens and self.accelerator.num_processes == 1:
            return branches.documents(branches.num_documents)
        return longer

    @torch.no_grad()
    def _check_layout(
        self, model: nn.Module, unwrapped: BranchModel, documents: Sequence[Document], device: torch.device
    ) -> None:
        """Compare the layouts with the model's own numbers for each row, for at most 1% of the run's time."""
        longest = max(map(row_length, documents))
        documents = longest_documents(documents, count=4)
        if unwrapped.window is not None:  # batches with longer rows are plain ones
            documents = cut(documents, unwrapped.window)
        whole = max(map(row_length, documents))
        planned = self.data.tokens()
        documents = to_compare(documents, int(self.share * planned / COMPARED_PASSES))
        branch = not self.separate and attention_of(unwrapped.model) in BRANCH_ATTENTION
        alone = None if isinstance(unwrapped, RewardModel) else partial(compared_numbers, model, full_logits=True)
        with evaluation_mode(unwrapped), random_state_kept(device):
            differences = compare_layouts(
                partial(compared_numbers, model),
                documents,
                device,
                alone=alone,
                row_tokens=self.args.row_tokens,
                branch=branch,
            )
        self._compared[id(unwrapped)] = Compared(longest, differences.width)
        exact = self.is_exact(unwrapped)
        bounds = (
            noise_bound(torch.zeros_like(differences.plain), exact=exact),
            noise_bound(differences.plain, exact=exact),
        )
        # Too much on one process is too much for all.
        table = self.accelerator.gather(
            torch.stack([differences.plain, differences.branch, *bounds])[None]
        )  # [processes, 4]
        plain, in_branches, most, bound = table[(table[:, 1] - table[:, 3]).nan_to_num(torch.inf).argmax()].tolist()
        if math.isnan(plain):  # the model's own numbers: no matter of layouts
            return
        self._judge_plain(plain, most, exact)
        if branch and not in_branches <= bound:  # NaN too
            self._leave_branches(in_branches, bound)
        share = COMPARED_PASSES * plain_tokens(documents) / max(1, planned)
        self._say_compared(max(map(row_length, documents)), whole, share)

    def _judge_plain(self, difference: float, bound: float, exact: bool) -> None:
        if difference > bound and exact:
            raise UserError(
                f"This model's numbers for padded rows differ from those of each row alone by {difference:.2g} on "
                f"average (bound {bound:.2g}), so what it learns would depend on padding; it can't be trained here."
            )
        if difference > bound:
            logger.warning(
                f"This model's numbers for padded rows differ from those of each row alone by {difference:.2g} on "
                f"average (bound {bound:.2g}): rounding to 16 or fewer bits, or the model depends on its batch; a run "
                "with bf16=False would show which."
            )

    def _leave_branches(self, difference: float, bound: float) -> None:
        """Continue with plain rows, unless the user requested branches."""
        if self.args.layout == "branch":
            raise UserError(
                f"layout is 'branch', and this model doesn't honour the branch layout (difference {difference:.2g}, "
                f"noise bound {bound:.2g}), so its numbers would be wrong; use layout='auto' or 'separate'."
            )
        self.separate = True
        logger.warning(
            f"This model doesn't honour the branch layout (difference {difference:.2g}, noise bound {bound:.2g}): "
            "using one row per prompt + response, which is slower."
        )

    def _say_compared(self, compared: int, whole: int, share: float) -> None:
        """Log the length of the compared rows, and whether the longest were cut for that."""
        if not self.accelerator.is_main_process:
            return
        if self.separate or compared == whole:
            logger.info(
                f"The layout was compared with single rows of up to {compared} tokens ({share:.1%} of the run)."
            )
        else:
            logger.warning(
                f"The branch layout was checked on {compared} of the longest row's {whole} tokens: more would take over"
                f" {self.share:.0%} of this run. If something in the model changes at a longer distance and its config "
                "doesn't say so, use layout='separate'."
            )

    def is_exact(self, model: nn.Module) -> bool:
        """Whether a model computes in float32, not in 16 bits or quantised."""
        unwrapped = self._unwrap(model).model
        quantized = getattr(unwrapped, "quantization_method", None) is not None
        halves = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in unwrapped.parameters())
        return not (self.args.bf16 or self.args.fp16 or quantized or halves)

    # ---- attention ----

    @contextmanager
    def training(self, *, may_choose: bool) -> Iterator[None]:
        """Context of a training whose first batch may choose the attention; afterwards models attend as before."""
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
                for model in self.models():  # sampling, which may follow, needs SDPA
                    set_attention(model, "sdpa")

    def choose_attention(self, model: nn.Module, batch: Callable[[], Branches]) -> None:
        """Choose the attention on the batch of a training's first step; do nothing at later steps."""
        if self._attention_open:
            self._attention_open = False
            model.train()
            self._choose_attention(model, batch())

    def _choose_attention(self, model: nn.Module, branches: Branches) -> None:
        branches = self._lay_out(model, branches)
        policy, *others = self.models()
        for (
            other
        ) in others:  # compares layouts before the choice: plain rows would have FlexAttention compiled for each
            self._lay_out(other, branches)
        measured = None
        if not (self.separate or branches.separate):
            exact = self.is_exact(policy)
            measured = choose_attention(policy, others, branches, compared_numbers, exact=exact, clock=self.clock)
        choice = agree(gather_object([measured]))
        if choice is None:
            return
        self.attention_choice = choice
        for each in (policy, *others):
            set_attention(each, choice.implementation)
        if self.accelerator.is_main_process:
            say = logger.info if choice.measured else logger.warning_once
            say(f"Attention uses '{choice.implementation}': {choice.reason}.")


def compared_numbers(model: nn.Module, branches: Branches, **options: Any) -> Tensor:
    """Log-probs `[N]` or rewards `[S]` of a batch, used to compare layouts; `[S, C]` with further outputs."""
    return numbers_of(model(branches, **options))


def numbers_of(output: Any) -> Tensor:
    """The log-probs, or rewards with further outputs, of a model's output."""
    return output["logps"] if isinstance(output, dict) else output
