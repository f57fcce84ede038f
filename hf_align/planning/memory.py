"""Memory and operations of a run, by purpose and by phase, from configs alone.

A run's memory at any moment is what stays (weights, optimizer, further models) and what the phase at that moment needs.
The phases are traced (`hf_align.planning.phases`); the largest one decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_align.acceleration.registry import Setting, decide
from hf_align.algorithms import Rows
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.layout.cost import choose_layout, costs_of
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.wrapper import BranchModel
from hf_align.numbers import shown_size
from hf_align.planning.device import Device
from hf_align.planning.lengths import is_rollout, lengths_of, longest_batch
from hf_align.planning.margin import CUBLAS
from hf_align.planning.other_models import (
    SCORING,
    SCORING_NAMES,
    Source,
    has_reference,
    reference_bytes,
    scoring_bytes,
)
from hf_align.planning.outline import Outline, frozen_bytes
from hf_align.planning.phases import Setup, TracedReward, update, wrap_policy
from hf_align.planning.rollout import rewarding_needs, sampling_needs
from hf_align.planning.work import Work, step_work
from hf_align.trainers.data import batches_of, spread_rows
from hf_align.trainers.optimizers import optimizer_memory
from hf_align.trainers.reward_setup import config_of, requested_config

GRADIENTS = "gradients"
SMOOTHED = 12
"""Bytes of a smoothed logit besides itself: its log-prob in float32 and both's gradients; measured on a CPU, 11.9."""
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Names of configs for the number of experts."""


@dataclass(frozen=True)
class Needs:
    """What a run needs.

    Attributes:
        stays: Bytes by purpose that are held throughout.
        phases: By phase its bytes by purpose, besides those.
        step_operations: Floating-point operations of one optimizer step, with its share of a rollout.
        layout: "branch" or "separate", and why.
        rows: Rows of the largest micro-batch.
        tokens: Tokens of each.
        work: Kernels by piece, as `step_work` takes them, of the largest micro-batch.
        notes: What was assumed.
    """

    stays: dict[str, float]
    phases: dict[str, dict[str, float]]
    step_operations: float
    layout: str
    rows: int
    tokens: int
    work: dict[str, Work] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    @property
    def largest(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by purpose at the peak; they add up to it."""
        return {**self.stays, **self.phases[self.largest]}

    @property
    def peak(self) -> float:
        """Bytes of all tensors at the peak."""
        return sum(self.parts.values())

    @property
    def totals(self) -> dict[str, float]:
        """Bytes of all tensors in each phase."""
        stays = sum(self.stays.values())
        return {name: stays + sum(parts.values()) for name, parts in self.phases.items()}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and figures to show: the parts at the peak, and the phases."""
        for name, size in self.parts.items():
            if size:
                yield f"memory: {name}", shown_size(size)
        for name, size in self.totals.items():
            yield f"phase: {name}", shown_size(size) + (", the peak" if name == self.largest else "")


def setup_of(args: Any, device: Device, dtype: torch.dtype) -> Setup:
    """How a run with this config computes on a device."""
    recompute: Any = getattr(args, "activation_recompute", "full" if args.recomputes else "none")
    return Setup(device.kind, dtype, args.acceleration, recompute)


def needs_of(
    kind: Rows,
    source: Source,
    args: Any,
    model: Outline,
    documents: Sequence[Document],
    device: Device,
    *,
    batch_size: int | None = None,
) -> Needs:
    """Trace a run's phases and add up what stays.

    Args:
        kind: Kind of rows that the algorithm trains on.
        source: The recipe's `model`, `quantization` and so on, its reward resolved.
        args: The trainer's config.
        model: The outline of the trained model.
        documents: The rows as token ids, all or the longest.
        device: The device planned for.
        batch_size: Rows of a micro-batch. Default: the config's.
    """
    rows_at_once: int = batch_size or args.per_device_train_batch_size
    setup = setup_of(args, device, model.dtype)
    wrapper = wrapper_of(source, args, model)
    layout = layout_of(kind, args, wrapper, documents, setup)
    batch = lay_out(args, wrapper, longest_batch(args, documents, rows_at_once), layout)
    weights = [parameter for parameter in wrapper.parameters() if parameter.requires_grad]
    optimizer = optimizer_memory(str(args.optim.value), weights, device.kind)
    gradients = 4.0 * sum(weight.numel() for weight in weights)
    notes = [optimizer.note] if optimizer.note else []
    if any(getattr(wrapper.config.get_text_config(), name, None) for name in EXPERTS):
        notes.append("every expert gets as many tokens as the others, which routers don't see to")
    stays = staying_bytes(source, args, model, wrapper, device)

    accumulates = args.gradient_accumulation_steps > 1
    full_kl = getattr(args, "kl_kind", None) == "full"
    loss = update(setup, wrapper, batch, full_kl=full_kl, accumulates=accumulates)
    activations = max(0.0, loss.peak - gradients)
    rows, tokens = batch.input_ids.shape
    phases = {"update": {GRADIENTS: gradients, f"activations of {rows} x {tokens} tokens": activations}}
    if kind == "demonstrations" and args.label_smoothing_factor:
        logits = batch.input_ids.numel() * wrapper.config.get_text_config().vocab_size
        phases["update"]["logits of all tokens (label_smoothing_factor)"] = logits * (setup.dtype.itemsize + SMOOTHED)
    phases["optimizer step"] = {GRADIENTS: gradients, "the step's intermediate results": optimizer.step}
    # A reference is as large as the policy, so its pass without gradients takes less memory than an update.
    work = {"update": loss.work, "forward": loss.forward}
    if kind != "demonstrations" and args.layout == "auto" and args.checkpoint_kind != "reward":
        phases["layouts compared"] = {"logits of the longest row alone": _logits(wrapper, documents)}
    if is_rollout(args):
        sampled, pieces = sampling_needs(setup, wrapper, args, documents)
        scored, rewards = rewarding_needs(setup, source, documents, args)
        phases |= sampled | scored
        work |= pieces | {"rewards": rewards}
    operations = sum(part.operations for part in step_work(args, work, reference=has_reference(source, args)).values())
    return Needs(stays, phases, operations, layout, rows, tokens, work, tuple(notes))


def staying_bytes(source: Source, args: Any, model: Outline, wrapper: BranchModel, device: Device) -> dict[str, float]:
    """Bytes by purpose that a run holds throughout: weights, the optimizer's state and further models."""
    weights = [parameter for parameter in wrapper.parameters() if parameter.requires_grad]
    trained = 4.0 * sum(weight.numel() for weight in weights)
    stays = {"weights": frozen_bytes(wrapper), "trained weights": trained}
    stays[f"optimizer state ({args.optim.value})"] = optimizer_memory(str(args.optim.value), weights, device.kind).state
    if device.kind == "cuda":
        stays["workspaces of matrix products (cuBLAS)"] = CUBLAS
    if args.world_size > 1:
        stays["gradient buckets of DDP"] = trained
    stays |= reference_bytes(source, args, model)
    for key in SCORING:
        if size := scoring_bytes(source.get(key), model):
            stays[SCORING_NAMES[key]] = size
    return stays


def wrapper_of(source: Source, args: Any, model: Outline) -> BranchModel:
    """The model as its trainer wraps it."""
    if args.checkpoint_kind != "reward":
        return wrap_policy(model.model, args)
    return TracedReward(model.model, reward_config_of(source["model"], args))


def trained_weights(source: Source, args: Any, model: Outline) -> int:
    """Number of trained weights, with a value head's or a value model's."""
    return sum(each.numel() for each in wrapper_of(source, args, model).parameters() if each.requires_grad)


def _logits(wrapper: BranchModel, documents: Sequence[Document]) -> float:
    """Bytes of a response's logits and log-probs in float32, by which the first batch checks the layouts.

    A short run compares fewer tokens.
    """
    longest = max(len(response) for _, responses in documents for response in responses)
    return 8.0 * longest * wrapper.config.get_text_config().vocab_size


def reward_config_of(model: Any, args: Any) -> RewardModelConfig:
    """The head that a reward model gets, or has already."""
    named = isinstance(model, str) and not model.endswith(".json")
    return config_of(model, args) if named else requested_config(args)


def layout_of(kind: Rows, args: Any, wrapper: BranchModel, documents: Sequence[Document], setup: Setup) -> str:
    """The layout that the run will take, as far as work decides it."""
    if kind == "demonstrations" or args.layout == "separate":
        return "separate"
    if args.layout == "branch":
        return "branch"
    setting = Setting(args.uses, setup.device, recomputes=setup.recompute != "none")
    decisions = decide(wrapper, setting, args.acceleration)
    by_block = any(each.patch.name == "attention" and each.reason is None for each in decisions)
    some = [documents[number] for number in spread_rows(len(documents))]
    together = max(1, args.per_device_train_batch_size // getattr(args, "num_samples", 1))
    batches = batches_of(lengths_of(some), together)
    costs = costs_of(wrapper.config.get_text_config())
    return choose_layout(batches, costs, row_tokens=args.row_tokens, by_block=by_block).layout


def lay_out(args: Any, wrapper: BranchModel, documents: Sequence[Document], layout: str) -> Branches:
    """A micro-batch of these rows as the run lays it out."""
    if getattr(args, "packing", False):
        documents = [([1], [[1] * (args.max_length - 1)])] * args.per_device_train_batch_size
    branches = build_branches(documents, pad_token_id=0, row_tokens=getattr(args, "row_tokens", None))
    if layout == "separate" or not wrapper.honours_branch_mask(branches, branches.input_ids.shape[1]):
        return branches.as_separate()
    return branches
