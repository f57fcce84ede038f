"""The unavoidable matrix products of a training step, counted from shapes: the floor of its time.

Counted: each prompt once with its responses as branches, attention between tokens that see each other, the LM head at
response tokens only, no gradients of frozen weights, nothing recomputed. Not counted: norms, activations, softmax,
optimizer, and everything around the products.

Notation: d hidden size, V vocabulary, r LoRA rank, T tokens (no padding), N response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = 1, 0, 2
"""Operands of a linear layer's products as autograd has them: x @ W.T, dy @ W, dy.T @ x."""


@dataclass(frozen=True)
class Gemm:
    """`count` products of `batch` matrices `[m, k] @ [k, n]`.

    Attributes:
        part: Part of the model: "linear", "lora", "attention" or "head".
        share: Needed share of the product: attention needs only pairs that see each other.
        transposed: Which operand is stored transposed: 0 none, 1 the second, 2 the first.
    """

    part: str
    m: int
    k: int
    n: int
    count: float = 1.0
    batch: int = 1
    share: float = 1.0
    transposed: int = 0

    @property
    def flops(self) -> float:
        """2 operations per multiplication."""
        return 2.0 * self.batch * self.m * self.k * self.n * self.count * self.share


@dataclass(frozen=True)
class Shape:
    """A Llama-like model's sizes; `rank` is LoRA's, 0 for full fine-tuning."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    rank: int

    @classmethod
    def of(cls, config: Any, rank: int) -> Shape:
        """The sizes from a transformers config."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=head_dim,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
            rank=rank,
        )

    def linears(self) -> list[tuple[int, int, bool]]:
        """Inputs and outputs of a layer's linear layers, and whether it reads the layer's own input."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, queries, True), (self.hidden, keys, True), (self.hidden, keys, True)]
        mlp = [(self.hidden, self.inner, False), (self.hidden, self.inner, False), (self.inner, self.hidden, False)]
        return [*attention, (queries, self.hidden, False), *mlp]


@dataclass(frozen=True)
class Layout:
    """Sizes of a batch that the products depend on.

    Attributes:
        rows: Rows of the batch.
        width: Tokens per row, padding included.
        tokens: T, tokens that aren't padding.
        pairs: Pairs of tokens where one sees the other (or itself), over all rows.
        responses: N, response tokens, which go through the LM head.
    """

    rows: int
    width: int
    tokens: int
    pairs: int
    responses: int


def forward_gemms(shape: Shape, layout: Layout, *, lora: bool, head: bool) -> list[Gemm]:
    """Products of one forward pass over a batch."""
    layers, m = shape.layers, layout.tokens
    gemms = [Gemm("linear", m, k, n, layers, transposed=FORWARD) for k, n, _ in shape.linears()]
    if lora and shape.rank:
        for k, n, _ in shape.linears():
            gemms.append(Gemm("lora", m, k, shape.rank, layers, transposed=FORWARD))
            gemms.append(Gemm("lora", m, shape.rank, n, layers, transposed=FORWARD))
    gemms += _attention(shape, layout, products=2)
    if head:
        gemms.append(Gemm("head", layout.responses, shape.hidden, shape.vocabulary, transposed=FORWARD))
    return gemms


def backward_gemms(shape: Shape, layout: Layout, *, head: bool) -> list[Gemm]:
    """Products of the backward pass: under LoRA for the adapters only, otherwise for all weights.

    Under LoRA nothing below the first layer is trained, so its q, k and v projections need no input gradient; under
    full fine-tuning the embeddings need one.
    """
    m, rank, gemms = layout.tokens, shape.rank, []
    for k, n, reads_input in shape.linears():
        layers = shape.layers - 1 if rank and reads_input else shape.layers
        gemms.append(Gemm("linear", m, n, k, layers, transposed=INPUT_GRADIENT))
        if rank:
            gemms.append(Gemm("lora", m, n, rank, shape.layers, transposed=INPUT_GRADIENT))
            gemms.append(Gemm("lora", m, rank, k, layers, transposed=INPUT_GRADIENT))
            gemms.append(Gemm("lora", n, m, rank, shape.layers, transposed=WEIGHT_GRADIENT))
            gemms.append(Gemm("lora", rank, m, k, shape.layers, transposed=WEIGHT_GRADIENT))
        else:
            gemms.append(Gemm("linear", n, m, k, shape.layers, transposed=WEIGHT_GRADIENT))
    gemms += _attention(shape, layout, products=4)
    if head:
        gemms.append(Gemm("head", layout.responses, shape.vocabulary, shape.hidden, transposed=INPUT_GRADIENT))
        if not rank:
            gemms.append(Gemm("head", shape.vocabulary, layout.responses, shape.hidden, transposed=WEIGHT_GRADIENT))
    return gemms


def generation_gemms(shape: Shape, prompts: Layout, new_tokens: int, samples: int = 1) -> list[Gemm]:
    """Products of sampling with a KV cache: the prompts once, then one token of each response at a time.

    Args:
        shape: The model.
        prompts: One row per prompt; `responses` is the number of prompts.
        new_tokens: Tokens of each response; the last isn't processed again.
        samples: Responses per prompt.
    """
    steps, sequences = new_tokens - 1, prompts.rows * samples
    context = round(prompts.tokens / prompts.rows + new_tokens / 2)
    one = Layout(rows=sequences, width=1, tokens=sequences, pairs=sequences, responses=sequences)
    step = [gemm for gemm in forward_gemms(shape, one, lora=True, head=True) if gemm.part != "attention"]
    batch = sequences * shape.heads
    for m, k, n in ((1, shape.head_dim, context), (1, context, shape.head_dim)):
        step.append(Gemm("attention", m, k, n, shape.layers, batch))
    return forward_gemms(shape, prompts, lora=True, head=True) + times(steps, step)


def preference_gemms(shape: Shape, layout: Layout, *, task: str) -> list[Gemm]:
    """Products of a DPO step (reference pass, policy pass, gradient) or a reward model's (no reference, no LM head)."""
    head = task == "dpo"
    gemms = forward_gemms(shape, layout, lora=True, head=head) + backward_gemms(shape, layout, head=head)
    return gemms + forward_gemms(shape, layout, lora=False, head=True) if head else gemms


def ppo_gemms(
    shape: Shape, prompts: Layout, layout: Layout, new_tokens: int, epochs: int, samples: int = 1
) -> list[Gemm]:
    """Products of a rollout and its updates: sampling, scoring by reference and reward model, `epochs` updates on all.

    The policy scores in the first update's forward pass.
    """
    update = forward_gemms(shape, layout, lora=True, head=True) + backward_gemms(shape, layout, head=True)
    scoring = [gemm for head in (True, False) for gemm in forward_gemms(shape, layout, lora=False, head=head)]
    return generation_gemms(shape, prompts, new_tokens, samples) + scoring + times(epochs, update)


def times(factor: float, gemms: Sequence[Gemm]) -> list[Gemm]:
    """Scale the counts by `factor`."""
    return [replace(gemm, count=gemm.count * factor) for gemm in gemms]


def _attention(shape: Shape, layout: Layout, *, products: int) -> list[Gemm]:
    """Products between queries, keys and values: 2 forward, 4 for the gradient (of scores, values, queries, keys)."""
    share = layout.pairs / (layout.rows * layout.width**2)
    batch, width, size = layout.rows * shape.heads, layout.width, shape.head_dim
    scores = Gemm("attention", width, size, width, shape.layers * products / 2, batch, share, FORWARD)
    values = Gemm("attention", width, width, size, shape.layers * products / 2, batch, share)
    return [scores, values]
