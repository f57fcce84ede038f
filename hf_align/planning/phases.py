"""The phases of a run, traced: an update, a scoring pass, and the first and last token of sampling.

Setup.trace              one phase, on fake weights, with the run's patches and recomputation
    update               loss of a micro-batch, its gradients
    score                a pass without gradients
    first_token          the prompts, which fill the cache
    last_token           one token, with the cache at its largest
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.acceleration.registry import Choice, Setting, Use, accelerated
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.policy import PolicyModel, ReferenceHead
from hf_align.models.randomness import disable_dropout
from hf_align.models.reward import head_outputs
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from hf_align.models.wrapper import BranchModel, unwrapped
from hf_align.planning.depth import extrapolate
from hf_align.planning.fakes import bits_of, faked
from hf_align.planning.trace import Measured, Trace, TracedBranches, count_quantised, new_fakes
from hf_align.rollouts.engine import SamplingRequest
from hf_align.rollouts.static import full_layers, next_logits, next_tokens

Recompute = Literal["none", "selective", "full"]
QUIET = ("bitsandbytes.autograd._functions", "torch._subclasses.fake_tensor")
"""Loggers of remarks on dtypes, and of errors that are reported in a sentence."""
Work = Callable[[Trace], Any]


class Untraceable(UserError):
    """A model doesn't run on tensors without data."""


class TracedReward(BranchModel):
    """A reward model's outline, which has no tokenizer.

    Args:
        model: The classifier, or its PeftModel.
        config: Its pooling and head.
    """

    def __init__(self, model: nn.Module, config: RewardModelConfig):
        super().__init__(model)
        self.reward_config = config

    def forward(self, branches: Branches) -> Tensor:
        """As `RewardModel.forward`."""
        head = unwrapped(self.model).score
        original, config = head.forward, self.reward_config
        return self.forward_to_head(
            branches, head, lambda hidden: head_outputs(hidden, branches, head, config, 0.0, original)
        )


@dataclass(frozen=True)
class Setup:
    """How a run computes.

    Attributes:
        device: Type of device planned for.
        dtype: Compute dtype: that of autocast, or float32 without it.
        acceleration: The run's patches.
        recompute: The run's recomputation of activations.
    """

    device: str
    dtype: torch.dtype
    acceleration: Choice
    recompute: Recompute = "none"

    def trace(self, wrapper: BranchModel, work: Work, use: Use) -> Measured:
        """What a phase takes with all layers of a model on the meta device.

        Raises:
            Untraceable: The model doesn't run without data.
        """
        disable_dropout(wrapper)
        wrapper.train()
        backbone = getattr(wrapper, "value_backbone", None)
        models = [wrapper, *([] if backbone is None else [backbone])]
        if any(bits_of(module) for module in wrapper.modules()):
            count_quantised()
        try:
            return extrapolate(models, lambda: self._trace_once(wrapper, work, use))
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            name, reason = type(unwrapped(wrapper)).__name__, str(error).strip().splitlines() or [type(error).__name__]
            raise Untraceable(
                f"model: a {name} can't be planned without its weights, since what it computes depends on values, as "
                f"with some kinds of experts ({reason[0]})"
            ) from error

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        # A CPU's autocast doesn't know all of float16, which takes as many bytes.
        return torch.autocast("cpu", torch.bfloat16, enabled=self.dtype != torch.float32)

    def _trace_once(self, wrapper: BranchModel, work: Work, use: Use) -> Measured:
        mode, trains = new_fakes(), use == "train"
        recompute: Recompute = self.recompute if trains else "none"
        setting = Setting((use,), self.device, recomputes=recompute != "none")
        with _quiet(), faked(wrapper, mode, self.device) as given, _recomputing(wrapper, recompute):
            trace = Trace(mode, given, device=self.device)
            if use == "sample":  # weights that are cast for it count
                with trace, self.autocast(), accelerated(wrapper.model, setting, self.acceleration):
                    work(trace)
            else:
                with accelerated(wrapper, setting, self.acceleration), trace:
                    work(trace)
            return trace.measured()


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in QUIET}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _recomputing(wrapper: Any, recompute: Recompute) -> Iterator[None]:
    if recompute == "none":
        yield
        return
    if recompute == "selective":
        enable_selective_recompute(wrapper)
    else:
        wrapper.activation_checkpointing_enable()
    try:
        yield
    finally:
        wrapper.activation_checkpointing_disable()


def update(
    setup: Setup, wrapper: BranchModel, branches: Branches, *, full_kl: bool = False, accumulates: bool = False
) -> Measured:
    """What the loss of a micro-batch and its gradients take. The gradients, made here, count.

    The loss is the sum of the model's outputs: what the real one does with one number per token or response is small.

    Args:
        setup: How the run computes.
        wrapper: The trained model.
        branches: The micro-batch.
        full_kl: Whether the exact KL from the reference is part of the loss.
        accumulates: Whether there are gradients of an earlier micro-batch already, which count, too.
    """

    def work(trace: Trace) -> None:
        if accumulates:
            for weight in wrapper.parameters():
                weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        batch = TracedBranches.of(branches, trace.fakes)
        options: dict[str, Any] = {}
        if isinstance(wrapper, PolicyWithValueHead):
            options["return_entropy"] = True
        if full_kl:
            with torch.no_grad(), setup.autocast():
                states = wrapper(batch, return_states=True)
            states = states["states"] if isinstance(states, dict) else states
            options["reference"] = ReferenceHead(states, None)
        with setup.autocast():
            output = wrapper(batch, **options)
        trace.mark_forward()
        parts = output.values() if isinstance(output, dict) else [output]
        torch.stack([part.sum() for part in parts if part.requires_grad]).sum().backward()

    return setup.trace(wrapper, work, "train")


def score(setup: Setup, wrapper: BranchModel, branches: Branches) -> Measured:
    """What a pass without gradients takes."""

    def work(trace: Trace) -> None:
        with torch.no_grad(), setup.autocast():
            wrapper(TracedBranches.of(branches, trace.fakes))

    return setup.trace(wrapper, work, "score")


def first_token(setup: Setup, wrapper: BranchModel, prompts: int, tokens: int) -> Measured:
    """What a pass over the prompts and their cache take."""

    def work(trace: Trace) -> None:
        ids = torch.ones(prompts, tokens, dtype=torch.long)
        model: Any = wrapper.model
        with torch.no_grad(), evaluation_mode(wrapper):
            cache = DynamicCache(config=unwrapped(model).config)
            next_logits(model, ids, torch.ones_like(ids), ids.cumsum(-1) - 1, cache)

    return setup.trace(wrapper, work, "sample")


def last_token(setup: Setup, wrapper: BranchModel, responses: int, tokens: int, request: SamplingRequest) -> Measured:
    """What the last token of all responses takes, with the cache of those before."""
    dtype = setup.dtype

    def work(trace: Trace) -> None:
        model: Any = wrapper.model
        config = unwrapped(model).config
        cached = torch.bfloat16 if dtype != torch.float32 else next(iter(wrapper.parameters())).dtype
        with torch.no_grad(), evaluation_mode(wrapper):
            cache = DynamicCache(config=config)
            with trace.fakes:
                full_layers(cache, config.get_text_config(), responses, tokens - 1, cached)
            ids = torch.ones(responses, 1, dtype=torch.long)
            mask = torch.ones(responses, tokens, dtype=torch.long)
            logits = next_logits(model, ids, mask, ids * (tokens - 1), cache)
            next_tokens(logits, request, torch.rand(responses, dtype=torch.float64))

    return setup.trace(wrapper, work, "sample")


def wrap_policy(model: nn.Module, args: Any) -> BranchModel:
    """A policy's outline as its trainer wraps it: with a value head, if its config has one."""
    if getattr(args, "value_model", None) is None or getattr(args, "baseline", "value") != "value":
        return PolicyModel(model)
    with torch.device("meta"):
        return PolicyWithValueHead(
            model,  # type: ignore[arg-type]
            value_model=args.value_model,
            head=args.value_head,
            detach_value_trunk=args.detach_value_trunk,
        )
