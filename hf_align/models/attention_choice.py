"""Choice between FlexAttention and SDPA by measuring a batch of the run on this machine.

On a GPU SDPA computes every pair of a row's tokens under the dense branch mask; FlexAttention skips blocks without
visible pairs. The gain depends on GPU, lengths, heads and versions, so nothing is estimated: both compute the batch
forward and backward, and FlexAttention is used if it gives the same numbers in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from hf_align.layout.branches import Branches, build_branches
from hf_align.layout.compare import noise_bound
from hf_align.models.wrapper import FLEX, BranchModel, attention_of, unwrapped

Numbers = Callable[[BranchModel, Branches], Tensor]
"""Log-probs or rewards of a batch, flat, in the documents' order."""
Clock = Callable[[], float]
"""Clock in seconds, read after all work queued on a device is done."""


@dataclass(frozen=True)
class AttentionChoice:
    """The attention implementation of a run, and why.

    Attributes:
        implementation: The implementation set on its models.
        reason: The reason, as a clause.
        measured: Whether both implementations worked and agreed, so that time decided.
    """

    implementation: Literal["sdpa", "flex_attention"]
    reason: str
    measured: bool


def supports_flex(wrapper: BranchModel) -> bool:
    """Whether a wrapped model uses SDPA and supports FlexAttention."""
    return attention_of(wrapper.model) == "sdpa" and bool(getattr(_inner(wrapper), "_supports_flex_attn", False))


def set_attention(wrapper: BranchModel, implementation: str) -> None:
    """Set the attention implementation of a wrapped model.

    Raises:
        RuntimeError: The implementation doesn't change, which transformers only warns about.
        ValueError: Part of the model doesn't support it.
    """
    _inner(wrapper).set_attn_implementation(implementation)
    if attention_of(wrapper.model) != implementation:
        raise RuntimeError("the model can't change its attention")


def device_clock() -> float:
    """`perf_counter` after all work queued on the accelerator."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return perf_counter()


@contextmanager
def without_flex(wrapper: BranchModel) -> Iterator[None]:
    """Set a model with FlexAttention to SDPA for a pass over a few tokens, for which it would be compiled."""
    if attention_of(wrapper.model) != FLEX:
        yield
        return
    set_attention(wrapper, "sdpa")
    try:
        yield
    finally:
        set_attention(wrapper, FLEX)


def choose_attention(
    policy: BranchModel,
    others: Sequence[BranchModel],
    branches: Branches,
    numbers: Numbers,
    *,
    exact: bool,
    clock: Clock = device_clock,
) -> AttentionChoice:
    """Compare FlexAttention with SDPA; afterwards every model uses SDPA, whatever the result.

    Gradients, random state and modes are not changed.

    Args:
        policy: The trained model, in train mode.
        others: Models that only run forward on the same batches, such as a reference.
        branches: A training batch in the branch layout.
        numbers: Calls a model.
        exact: Whether the model computes in float32, not in 16 bits or quantised.
        clock: Read before and after a pass of each implementation.
    """
    try:
        choice = _measure(policy, others, branches, numbers, exact, clock)
    except Exception as error:  # from the compiler, a kernel or lack of memory: SDPA still works
        line = next(iter(str(error).strip().splitlines()), "no reason given").rstrip(".")
        choice = AttentionChoice(
            "sdpa", f"the comparison with '{FLEX}' failed with {type(error).__name__}: {line}", measured=False
        )
    for model in (policy, *others):
        set_attention(model, "sdpa")
    clear_device_cache(garbage_collection=True)  # memory of a failed attempt, and blocks of sizes not needed again
    return choice


def agree(choices: Sequence[AttentionChoice | None]) -> AttentionChoice | None:
    """What all processes do: one of them may run out of memory alone, and FlexAttention is for all or none."""
    return next((choice for choice in choices if choice is None or choice.implementation != FLEX), choices[0])


def _measure(
    policy: BranchModel,
    others: Sequence[BranchModel],
    branches: Branches,
    numbers: Numbers,
    exact: bool,
    clock: Clock,
) -> AttentionChoice:
    alone = build_branches(branches.documents(1), pad_token_id=0).to(branches.input_ids.device)
    values = _forward(policy, branches, numbers)
    of_alone = _forward(policy, alone, numbers)
    noise = (of_alone - values[: len(of_alone)]).abs().mean()  # from another padding, as in the comparison of layouts
    expected = [_forward(other, branches, numbers) for other in others]
    # A second set of gradients fits where Adam's state, which a new run doesn't have yet, will be.
    gradients = _pass(policy, branches, numbers)[1]
    sdpa = _seconds(policy, branches, numbers, clock)
    for model in (policy, *others):
        set_attention(model, FLEX)
    # Another width first: widths will differ, and a compile failure for any width should occur here.
    _pass(policy, alone, numbers)
    values_flex, gradients_flex = _pass(policy, branches, numbers)
    pairs = [
        (values_flex, values),
        *((_forward(other, branches, numbers), e) for other, e in zip(others, expected, strict=True)),
    ]
    difference = torch.stack([(ours - theirs).abs().mean() for ours, theirs in pairs]).max()
    bound, distance, most = (
        noise_bound(noise, exact=exact),
        _distance(gradients_flex, gradients),
        1e-3 if exact else 0.1,
    )
    if not (difference <= bound and distance <= most):  # NaN, too
        return AttentionChoice(
            "sdpa",
            f"'{FLEX}' disagrees: log-probs or rewards differ by {difference:.2g} (bound {bound:.2g}), gradients by "
            f"{distance:.2g} of their norm (bound {most})",
            measured=False,
        )
    del gradients_flex, gradients
    flex = _seconds(policy, branches, numbers, clock)
    return AttentionChoice(
        "flex_attention" if flex < sdpa else "sdpa",
        f"the first batch takes {flex:.3g} s with '{FLEX}' and {sdpa:.3g} s with 'sdpa'",
        measured=True,
    )


def _inner(wrapper: BranchModel) -> Any:
    """The transformers model, below peft."""
    return unwrapped(wrapper)


@torch.no_grad()
def _forward(model: BranchModel, branches: Branches, numbers: Numbers) -> Tensor:
    with _same_randomness(branches):
        return numbers(model, branches)


def _pass(model: BranchModel, branches: Branches, numbers: Numbers) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """A forward and backward pass: the numbers, and the gradient of their sum for each trained weight."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with _same_randomness(branches):
        values = numbers(model, branches)
        # Not `backward`: `.grad` belongs to training, and hooks of distributed training listen to it.
        return values.detach(), torch.autograd.grad(values.sum(), weights, allow_unused=True)


def _same_randomness(branches: Branches) -> Any:
    """A context that starts with the current random state and restores it, so that dropout is the same every time."""
    device = branches.input_ids.device
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device])


def _seconds(model: BranchModel, branches: Branches, numbers: Numbers, clock: Clock) -> float:
    """Seconds of a pass that isn't the first of its kind."""
    start = clock()
    _pass(model, branches, numbers)
    return clock() - start


def _distance(actual: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> Tensor:
    """Norm of the difference of two gradients, as a share of the norm of the second."""
    pairs = [
        (ours, theirs) for ours, theirs in zip(actual, expected, strict=True) if ours is not None and theirs is not None
    ]
    error = torch.stack([(ours.float() - theirs.float()).square().sum() for ours, theirs in pairs]).sum()
    return (error / torch.stack([theirs.float().square().sum() for _, theirs in pairs]).sum()).sqrt()
