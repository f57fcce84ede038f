"""The list of patches: where each applies, how it is switched on and undone, and whether results stay exact.

A patch replaces an implementation in transformers, peft or the C library by a faster or leaner one. Patches are on only
inside `accelerated`, which trainers, scoring and sampling use, and which custom loops may use. A patch with several
users is undone after the last.

    accelerated              context: one model's patches on, undone at its end
        Patch.reason_against, .apply -> Undo
    decide                   for each chosen patch: on, with its layers, or the reason against it
    describe                 the decisions in one line, for log, card and dry run
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from hf_align.acceleration import allocator
from hf_align.acceleration.attention import attend_by_blocks, decode_by_products, entry_is_free
from hf_align.acceleration.casts import cast_once, contiguous_states
from hf_align.acceleration.lora import computes_as_peft, fuse_lora, fusible_layers
from hf_align.acceleration.mlp import gated_mlps, keep_less_of_mlps
from hf_align.acceleration.norms import keep_less_of_norms, rms_norms
from hf_align.acceleration.shared import Undo, both
from hf_align.errors import UserError

Use = Literal["train", "score", "sample"]
Choice = str | Sequence[str]
"""Patches to use: "auto" for all that help, "none", or names, as a list or separated by commas."""


@dataclass(frozen=True)
class Setting:
    """Circumstances in which a model computes.

    Attributes:
        uses: Uses of the model: "train" (forward and backward), "score" (forward), "sample" (token by token).
        device: Type of device: "cpu", "cuda".
        sharded: The weights are sharded over processes (FSDP, DeepSpeed) and gathered where modules are called.
        recomputes: Layers, or their cheap operations, run again in the backward pass.
        quantized: The model is a stand-in for one whose linear layers will be quantised.
    """

    uses: tuple[Use, ...]
    device: str
    sharded: bool = False
    recomputes: bool = False
    quantized: bool = False

    def __post_init__(self) -> None:
        for use in self.uses:
            if use not in get_args(Use):
                raise UserError(f"A setting's uses are {', '.join(map(repr, get_args(Use)))}; there is no {use!r}.")

    @classmethod
    def of(cls, model: nn.Module, *uses: Use) -> Setting:
        """The setting of a model that is not sharded and keeps its activations, on its weights' device."""
        return cls(uses, next(model.parameters()).device.type)


@dataclass(frozen=True)
class Patch:
    """A faster or leaner implementation of something.

    Attributes:
        name: Name in `acceleration`.
        reason_against: Why it would not help or be wrong for a model in a setting, in a few words; None if it applies.
        apply: Switches it on for a model and returns the undo.
        exact: Results and gradients stay bitwise the same.
        rounding: If not exact, the difference in rounding.
        layers: The modules of a model that it changes, to be counted; None if it changes no modules.
    """

    name: str
    reason_against: Callable[[nn.Module, Setting], str | None]
    apply: Callable[[nn.Module], Undo]
    exact: bool
    rounding: str = ""
    layers: Callable[[nn.Module], Sequence[nn.Module]] | None = None


def _against_attention(model: Any, setting: Setting) -> str | None:
    config = getattr(model, "config", None)
    implementation = getattr(config and config.get_text_config(), "_attn_implementation", None)
    if setting.device != "cpu":
        return f"for CPUs, not {setting.device}"
    if implementation != "sdpa":
        return f"attn_implementation is {implementation!r}"
    return None if entry_is_free() else "'sdpa' is another library's function"


def _against_decoding(model: nn.Module, setting: Setting) -> str | None:
    return _against_attention(model, setting) if "sample" in setting.uses else "nothing is sampled"


def _against_lora(model: nn.Module, setting: Setting) -> str | None:
    if setting.sharded:
        return "weights are sharded"
    if setting.quantized or not fusible_layers(model):
        return "no LoRA on plain linear layers"
    return None if computes_as_peft() else "this peft computes LoRA otherwise"


def _against_keeping_less(setting: Setting) -> str | None:
    if "train" not in setting.uses:
        return "nothing is trained"
    if setting.sharded:
        return "weights are sharded"
    return "activations are recomputed" if setting.recomputes else None


def _against_gated_mlp(model: nn.Module, setting: Setting) -> str | None:
    return _against_keeping_less(setting) or (None if gated_mlps(model) else "no such MLPs")


def _against_rms_norm(model: nn.Module, setting: Setting) -> str | None:
    if reason := _against_keeping_less(setting):
        return reason
    norms = rms_norms(model)
    trained = any(weight.requires_grad for norm in norms for weight in norm.parameters())
    return None if trained else "frozen" if norms else "no such norms"


def _against_casts(model: nn.Module, setting: Setting) -> str | None:
    return None if "sample" in setting.uses else "nothing is sampled"


def _against_allocator(model: nn.Module, setting: Setting) -> str | None:
    return f"for CPUs, not {setting.device}" if setting.device != "cpu" else allocator.reason_against()


_ORDER = "sums in another order, and in 16 bits probabilities are rounded elsewhere"
PATCHES = (
    Patch("attention", _against_attention, attend_by_blocks, exact=False, rounding=_ORDER),
    Patch("decoding", _against_decoding, decode_by_products, exact=False, rounding=_ORDER),
    Patch(
        "lora",
        _against_lora,
        fuse_lora,
        exact=False,
        rounding="the adapter's product is added before the sum is rounded: two roundings fewer in 16 bits",
        layers=fusible_layers,
    ),
    Patch("gated_mlp", _against_gated_mlp, keep_less_of_mlps, exact=True, layers=gated_mlps),
    Patch("rms_norm", _against_rms_norm, keep_less_of_norms, exact=True, layers=rms_norms),
    Patch("casts", _against_casts, lambda model: both(cast_once(model), contiguous_states(model)), exact=True),
    Patch("allocator", _against_allocator, lambda model: allocator.keep_freed_memory(), exact=True),
)
NAMES = tuple(patch.name for patch in PATCHES)
_surrounding: ContextVar[Choice] = ContextVar("acceleration", default="auto")


@contextmanager
def accelerated(model: nn.Module, setting: Setting, choice: Choice | None = None) -> Iterator[None]:
    """Let `model` compute with patches inside this context.

    Args:
        model: A transformers or PEFT model, or a wrapper of one.
        setting: How and where the model is used.
        choice: "auto", "none" or names. Default: that of the enclosing `accelerated`, else "auto".

    Example:
        >>> from hf_align.acceleration.registry import Setting, accelerated
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=9, **sizes))
        >>> with accelerated(model, Setting.of(model, "train"), ["gated_mlp"]):
        ...     "forward" in vars(model.model.layers[0].mlp)
        True
        >>> "forward" in vars(model.model.layers[0].mlp)
        False
    """
    choice = _surrounding.get() if choice is None else choice
    with ExitStack() as stack:
        stack.callback(_surrounding.reset, _surrounding.set(choice))
        for patch in _chosen(choice):
            if patch.reason_against(model, setting) is None:
                stack.callback(patch.apply(model))
        yield


@dataclass(frozen=True)
class Decision:
    """A chosen patch, and whether it is on.

    Attributes:
        patch: The patch.
        reason: Why it is off; None if it is on.
        layers: Number of layers that it changes; None if it is off or changes no layers.
    """

    patch: Patch
    reason: str | None
    layers: int | None


def decide(model: nn.Module, setting: Setting, choice: Choice) -> list[Decision]:
    """Decide for each chosen patch whether a model uses it in a setting, and why not."""
    decisions = []
    for patch in _chosen(choice):
        reason = patch.reason_against(model, setting)
        layers = None if reason is not None or patch.layers is None else len(patch.layers(model))
        decisions.append(Decision(patch, reason, layers))
    return decisions


def _chosen(choice: Choice) -> list[Patch]:
    names = names_of(choice)
    return [patch for patch in PATCHES if patch.name in names]


def describe(decisions: Sequence[Decision]) -> str:
    """Put the decisions in one line: "attention, lora 210 layers, gated_mlp 30; rms_norm off (frozen)"."""
    on = [decision for decision in decisions if decision.reason is None]
    counted = next((decision for decision in on if decision.layers is not None), None)  # says what is counted
    words = []
    for decision in on:
        unit = "" if decision is not counted else " layer" if decision.layers == 1 else " layers"
        words.append(decision.patch.name + ("" if decision.layers is None else f" {decision.layers}{unit}"))
    off: dict[str, list[str]] = {}
    for decision in decisions:
        if decision.reason is not None:
            off.setdefault(decision.reason, []).append(decision.patch.name)
    return "; ".join(
        [", ".join(words) or "none", *(f"{', '.join(names)} off ({reason})" for reason, names in off.items())]
    )


def names_of(choice: Choice) -> tuple[str, ...]:
    """The names of a choice's patches.

    Raises:
        UserError: A name is unknown; the message suggests the nearest one.
    """
    if choice in ("auto", "none"):
        return NAMES if choice == "auto" else ()
    if not isinstance(choice, str | list | tuple):
        raise UserError(f"acceleration is {choice!r}; use 'auto', 'none' or a list of {', '.join(NAMES)}.")
    names = [name.strip() for name in choice.split(",")] if isinstance(choice, str) else list(choice)
    for name in names:
        if name in ("auto", "none"):
            raise UserError(f"acceleration: {name!r} stands alone, not in a list with others.")
        if name not in NAMES:
            nearest = difflib.get_close_matches(str(name).lower(), ("auto", "none", *NAMES), n=1, cutoff=0.5)
            meant = f"did you mean {nearest[0]!r}?" if nearest else f"use 'auto', 'none' or some of {', '.join(NAMES)}."
            raise UserError(f"acceleration: there is no {name!r}; {meant}")
    return tuple(names)
