"""Collation of tokenised rows, prompts with their responses, into a batch in the branch layout."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches


@dataclass
class PreferenceCollator:
    """Collate rows of `tokenize_preferences`: each prompt once, its responses as branches in the row's order.

    Args:
        pad_token_id: Fills the rows' ends; may equal EOS, since padding is identified by position.
        row_tokens: Pack several prompts into rows of this many tokens. Default: one prompt per row.

    Example:
        >>> from hf_align.collators import PreferenceCollator
        >>> collate = PreferenceCollator(pad_token_id=0)
        >>> batch = collate([{"prompt_ids": [5, 6], "response_ids": [[7, 2], [8, 9, 2]]}])
        >>> batch["branches"].input_ids
        tensor([[5, 6, 7, 2, 8, 9, 2]])
    """

    pad_token_id: int
    row_tokens: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Build a batch of B rows with S responses in all.

        Args:
            rows: Rows with `prompt_ids` and `response_ids`, the ids of one or more responses; all or none of them with
                `margin`, `weight`, `index`, and `ref_logps`, one per response.

        Returns:
            `weight` `[B]` (1 unless rows have one), then where rows have them `margin` `[B]`, `ref_logps` `[S]` and
            `index` `[B]`, then `branches`, an `hf_align.layout.branches.Branches`.
        """
        first = rows[0]
        # `weight` comes first: accelerate reads the batch size from the first entry.
        batch: dict[str, Any] = {"weight": torch.tensor([float(row.get("weight", 1.0)) for row in rows])}
        if "margin" in first:
            batch["margin"] = torch.tensor([float(row["margin"]) for row in rows])
        if "ref_logps" in first:
            batch["ref_logps"] = torch.tensor([float(logp) for row in rows for logp in row["ref_logps"]])
        if "index" in first:
            batch["index"] = torch.tensor([int(row["index"]) for row in rows])
        documents = [(row["prompt_ids"], row["response_ids"]) for row in rows]
        branches = build_branches(documents, pad_token_id=self.pad_token_id, row_tokens=self.row_tokens)
        return batch | {"branches": branches}


def find_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad token, or EOS if it has none.

    Raises:
        UserError: The tokenizer has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return cast(int, token)
    raise UserError("The tokenizer has neither a pad nor an EOS token: set tokenizer.pad_token.")
