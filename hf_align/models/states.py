"""Hidden states of responses behind some layers of a language model, pooled: what a small head is fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches
from hf_align.models.freezing import decoder_layers
from hf_align.models.pooling import pool, pool_response
from hf_align.models.wrapper import BranchModel

Place = tuple[float, Literal["last", "mean"]]
"""Share of the depth, and the pooling: the response's last token, or the mean of its tokens."""
STATES: tuple[Place, ...] = ((0.5, "mean"), (0.5, "last"), (0.6, "last"), (0.6, "mean"), (0.7, "last"))
"""Layers 15, 18 and 21 of 30, with which docs/results/feedback.md measures choices by a head's posterior."""


class StatesModel(BranchModel):
    """Wrapper of a causal language model (or its PeftModel); `forward(branches)` gives pooled states `[S, D]`.

    Prompts aren't shared by their responses: whether a model can do that is measured on what came before, and states
    that are kept must not depend on it.

    Args:
        model: The model.
        states: Which states to put side by side; those of one layer and pooling count once.

    Attributes:
        places: `(layer, pooling)` of each, layers from 1.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from hf_align.layout import build_branches
        >>> from hf_align.models.states import StatesModel
        >>> sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4}
        >>> model = StatesModel(LlamaForCausalLM(LlamaConfig(vocab_size=9, **sizes)))
        >>> model.places
        [(2, 'mean'), (2, 'last'), (3, 'last')]
        >>> model(build_branches([([5, 6], [[7, 2], [8, 4, 2]])], pad_token_id=0).as_separate()).shape
        torch.Size([2, 24])
    """

    shares_prompts = False

    def __init__(self, model: nn.Module, states: Sequence[Place] = STATES):
        super().__init__(model)
        count = len(decoder_layers(model))
        wanted = [(max(1, round(depth * count)), pooling) for depth, pooling in states]
        self.places = list(dict.fromkeys(wanted))

    def forward(self, branches: Branches) -> Tensor:
        """Pooled states of each response, in the order of `Branches.last`: `[S, D]` float32."""
        hidden: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                hidden[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        layers = decoder_layers(self.model)
        hooks = [layers[layer - 1].register_forward_hook(keep(layer)) for layer in {layer for layer, _ in self.places}]
        try:  # up to the LM head, whose logits nobody needs
            self.forward_to_head(branches, cast(Any, self.model).get_output_embeddings(), lambda states: states)
        finally:
            for each in hooks:
                each.remove()
        pooled = [
            pool_response(hidden[layer], branches)
            if pooling == "mean"
            else pool(hidden[layer], branches, pooling).float()
            for layer, pooling in self.places
        ]
        return torch.cat(pooled, 1)
