"""Recognition of decoders, the only models that are trained, versus bidirectional models and encoder-decoders."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.attention_choice import without_flex
from hf_align.models.wrapper import BranchModel, unwrapped

ADVICE = "hf_align trains decoders, which read prompt and response from left to right (Llama, Qwen, Gemma, Mamba, ...)."
SEEPS = {True: 1e-3, False: 5e-2}
"""Share of a token's change by which rounding may change earlier states, in float32 (True) or coarser."""


def check_decoder_config(config: Any, name: str) -> None:
    """Refuse a model that isn't a decoder according to its config and modules, without loading weights.

    Args:
        config: The model's config.
        name: The model, for messages.

    Raises:
        UserError: It is an encoder-decoder, an encoder, or not a language model.
    """
    kind = getattr(config, "model_type", type(config).__name__)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{name} is an encoder-decoder model ({kind}); {ADVICE}")
    language_model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if language_model is None:
        raise UserError(f"{name} is not a language model that writes text from left to right ({kind}); {ADVICE}")
    if getattr(config, "is_decoder", None) is False:  # a switch that some decoders leave at False and don't read
        with torch.device("meta"):
            _check_modules(cast(Any, language_model)(config), name)


def is_decoder(config: Any) -> bool:
    """Whether a model with this config reads from left to right, as `check_decoder_config` has it."""
    try:
        check_decoder_config(config, "")
    except UserError:
        return False
    return True


def check_decoder(model: nn.Module, name: str) -> None:
    """Refuse a model object that isn't a decoder."""
    model = unwrapped(model)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise UserError(f"{name} is an encoder-decoder model ({type(model).__name__}); {ADVICE}")
    _check_modules(model, name)


def _check_modules(model: nn.Module, name: str) -> None:
    """Refuse a model whose attention layers are declared not causal."""
    said = [
        vars(module)[key] for module in model.modules() for key in ("is_causal", "is_decoder") if key in vars(module)
    ]
    if said and not any(said):
        raise _reads_both_ways(name, type(model).__name__)


def positions_of(config: Any) -> int | None:
    """Maximum number of tokens of a text by a model's config; None without a limit (-1 in XLNet)."""
    count = getattr(config.get_text_config(), "max_position_embeddings", None)
    return count if count is not None and count > 0 else None


@torch.no_grad()
def check_causal(wrapper: BranchModel, head: nn.Module, name: str) -> None:
    """Refuse a model in which a later token changes the states of earlier ones: a pass over two rows of four tokens.

    Args:
        wrapper: The model, whole and on its device.
        head: Its LM head or reward head.
        name: The model, for messages.

    Raises:
        UserError: It is bidirectional.
    """
    device = cast(torch.device, wrapper.model.device)
    batch = build_branches([([1, 2], [[1, 1], [1, 2]])], pad_token_id=0).as_separate().to(device)

    def states_of(hidden: Tensor) -> Tensor:
        return hidden.float()

    with evaluation_mode(wrapper), without_flex(wrapper):
        try:
            states = wrapper.forward_to_head(batch, head, states_of)
        except (RuntimeError, ValueError, IndexError, TypeError):  # too short for the model: no result
            return
    change = (states[0] - states[1]).abs().amax(-1)  # [4]
    exact = cast(Any, wrapper.model).dtype == torch.float32
    if change[:-1].max() > SEEPS[exact] * change[-1]:
        raise _reads_both_ways(name, type(unwrapped(wrapper)).__name__)


def _reads_both_ways(name: str, kind: str) -> UserError:
    return UserError(f"{name} reads a text both ways ({kind}): earlier tokens see later ones, an encoder; {ADVICE}")
