"""Estimated cost of each layout, and the choice between them.

Only operations in which the layouts differ are counted. Every encoded token, padding included, goes through the layers'
matrix products: two operations per weight. Attention costs four operations per pair of tokens whose score is computed,
per layer and per dimension of its heads. The LM head sees the same response tokens either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_align.layout.branches import pack_rows

Lengths = tuple[int, Sequence[int]]
"""Tokens of a document's prompt and of its K responses."""


@dataclass(frozen=True)
class Work:
    """Work of a forward pass in one layout.

    Attributes:
        tokens: Encoded tokens, padding included.
        pairs: Pairs of tokens whose attention score is computed.
    """

    tokens: int
    pairs: int

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.pairs + other.pairs)

    def operations(self, costs: Costs) -> int:
        """Operations of the forward pass; the backward pass is proportional."""
        return self.tokens * costs.token + self.pairs * costs.pair


@dataclass(frozen=True)
class Costs:
    """Operations of a model's forward pass, LM head and embeddings aside.

    Attributes:
        token: Operations per token.
        pair: Operations per pair of tokens whose attention score is computed.
    """

    token: int
    pair: int


@dataclass(frozen=True)
class LayoutChoice:
    """The layout of a run, with the reason in one sentence."""

    layout: Literal["branch", "separate"]
    reason: str


def branch_work(documents: Sequence[Lengths], *, row_tokens: int | None = None, by_block: bool = False) -> Work:
    """The work of one batch in branches.

    Args:
        documents: Of the batch.
        row_tokens: As `build_branches` takes it.
        by_block: Attention skips what the mask hides: other documents, other responses. Otherwise the mask is dense:
            every pair of a row is computed, and most are thrown away.
    """
    sizes = [prompt + sum(responses) for prompt, responses in documents]
    rows = pack_rows(sizes, max([*sizes, row_tokens])) if row_tokens else [[number] for number in range(len(sizes))]
    width = max(sum(sizes[number] for number in row) for row in rows)
    visible = sum(p * p + sum(length * (p + length) for length in responses) for p, responses in documents)
    return Work(len(rows) * width, visible if by_block else len(rows) * width**2)


def separate_work(documents: Sequence[Lengths], *, causal: bool = False) -> Work:
    """The work of one batch with a row for each prompt + response.

    Args:
        documents: Of the batch.
        causal: Attention skips padding and future tokens, as flash kernels do.
    """
    lengths = [prompt + length for prompt, responses in documents for length in responses]
    padded = len(lengths) * max(lengths)
    return Work(padded, sum(length * (length + 1) // 2 for length in lengths) if causal else padded * max(lengths))


def costs_of(config: Any) -> Costs | None:
    """Costs of a text model from its config, or None if it lacks the sizes.

    From shapes rather than parameters, which may be quantised, sharded or shared. Of a mixture's experts only the
    active ones count.
    """
    heads = getattr(config, "num_attention_heads", None)
    sizes = {
        "hidden": getattr(config, "hidden_size", None),
        "layers": getattr(config, "num_hidden_layers", None),
        "heads": heads,
        "key_heads": getattr(config, "num_key_value_heads", None) or heads,
        "experts": getattr(config, "num_experts_per_tok", None) or 1,
    }
    if not all(isinstance(size, int) for size in sizes.values()):
        return None
    hidden, layers = sizes["hidden"], sizes["layers"]
    head = getattr(config, "head_dim", None) or hidden // sizes["heads"]
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    if not isinstance(head, int) or not isinstance(inner, int):
        return None
    attention = 2 * hidden * head * (sizes["heads"] + sizes["key_heads"])
    return Costs(
        token=2 * layers * (attention + 3 * hidden * inner * sizes["experts"]), pair=4 * layers * sizes["heads"] * head
    )


def choose_layout(
    batches: Sequence[Sequence[Lengths]], costs: Costs | None, *, row_tokens: int | None = None, by_block: bool = False
) -> LayoutChoice:
    """The layout with less work on such batches; plain rows in a tie.

    Args:
        batches: Lengths of the documents computed together; a sample of the data.
        costs: Of the model; None if unknown, so that tokens alone decide.
        row_tokens: As `build_branches` takes it.
        by_block: See `branch_work`.
    """
    none, costs = Work(0, 0), costs or Costs(token=1, pair=0)
    branch = sum((branch_work(batch, row_tokens=row_tokens, by_block=by_block) for batch in batches), none)
    separate = sum((separate_work(batch) for batch in batches), none)
    share = branch.operations(costs) / separate.operations(costs)
    layout: Literal["branch", "separate"] = "branch" if share < 1 else "separate"
    return LayoutChoice(
        layout,
        f"branches would take {share:.0%} of the operations of plain rows ({branch.tokens} tokens instead of "
        f"{separate.tokens}, {branch.pairs:.2g} attention scores instead of {separate.pairs:.2g}, in a sample)",
    )
