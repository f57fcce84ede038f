"""Collation of tokenised rows, prompts with their responses, into a batch in the branch layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from hf_align.collators.rankings import preferences_of
from hf_align.errors import UserError
from hf_align.layout.branches import build_branches


@dataclass
class PreferenceCollator:
    """Collate rows of `tokenize_preferences`: each prompt once, its responses as branches in the row's order.

    Args:
        pad_token_id: Fills the rows' ends; may equal EOS, since padding is identified by position.
        row_tokens: Pack several prompts into rows of this many tokens. Default: one prompt per row.
        tasks: Names of auxiliary tasks, whose labels the rows may have.
        contrast: Which responses are alike for a contrastive loss: "prompt", those to one prompt, or the name of a
            task, those with the same label.
        draws: Whether to add votes to draw from, where rows have any.

    Example:
        >>> from hf_align.collators import PreferenceCollator
        >>> collate = PreferenceCollator(pad_token_id=0)
        >>> batch = collate([{"prompt_ids": [5, 6], "response_ids": [[7, 2], [8, 9, 2]]}])
        >>> batch["branches"].input_ids
        tensor([[5, 6, 7, 2, 8, 9, 2]])
    """

    pad_token_id: int
    row_tokens: int | None = None
    tasks: Sequence[str] = ()
    contrast: str | None = None
    draws: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Build a batch of B rows with S responses in all, and P pairs of responses to one prompt.

        Args:
            rows: Rows with `prompt_ids` and `response_ids`, the ids of one or more responses; all or none of them with
                the other columns of `tokenize_preferences`, `index`, and `ref_logps`, one per response.

        Returns:
            `weight` `[B]` (1 unless rows have one), then where rows have them: `margin` `[P]`; `label` `[P]`, P(first
            better) for the pairs i < j of each row (NaN: not compared); `ranks` `[S]`; `ref_logps` `[S]`; `index`
            `[B]`; with `draws`, `votes`: of each row its index, and a pair's votes or the ratings of each response;
            with `tasks` their labels by name, `[S]`, NaN where a response has none; with `contrast` a whole number for
            each response, `[S]`, -1 for none; then `branches`, an `hf_align.layout.branches.Branches`.
        """
        first = rows[0]
        # `weight` comes first: accelerate reads the batch size from the first entry.
        batch: dict[str, Any] = {"weight": torch.tensor([float(row.get("weight", 1.0)) for row in rows])}
        batch |= _ranked(rows) if "ranks" in first else _paired(rows)
        if "ref_logps" in first:
            batch["ref_logps"] = torch.tensor([float(logp) for row in rows for logp in row["ref_logps"]])
        if "index" in first:
            batch["index"] = torch.tensor([int(row["index"]) for row in rows])
        if self.draws and "index" in first:
            name = "ratings" if "ratings" in first else "votes"
            batch["votes"] = [(row["index"], row[name]) for row in rows if name in row]
        if self.tasks:
            batch["tasks"] = {name: _task_labels(rows, name) for name in self.tasks}
        if self.contrast is not None:
            by_prompt = self.contrast == "prompt"
            batch["contrast"] = _alike(rows) if by_prompt else batch["tasks"][self.contrast].nan_to_num(-1.0).long()
        documents = [(row["prompt_ids"], row["response_ids"]) for row in rows]
        branches = build_branches(documents, pad_token_id=self.pad_token_id, row_tokens=self.row_tokens)
        return batch | {"branches": branches}


def _paired(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Margins and soft labels of pairs."""
    return {name: torch.tensor([float(row[name]) for row in rows]) for name in ("margin", "label") if name in rows[0]}


def _ranked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ranks, preferences and margins (differences of scores that aren't means of ratings) of rankings."""
    shares = (share for row in rows for share in preferences_of(row["ranks"], row.get("ratings")))
    batch: dict[str, Any] = {
        "label": torch.tensor([float(share) for share in shares]),
        "ranks": torch.tensor([rank for row in rows for rank in row["ranks"]]),
    }
    if "scores" in rows[0] and "ratings" not in rows[0]:
        gaps = (abs(a - b) for row in rows for a, b in combinations(row["scores"], 2))
        batch["margin"] = torch.tensor([float(gap) for gap in gaps])
    return batch


def _task_labels(rows: list[dict[str, Any]], name: str) -> torch.Tensor:
    labels = (row.get(name) or [float("nan")] * len(row["response_ids"]) for row in rows)
    return torch.tensor([float(label) for of_row in labels for label in of_row])


def _alike(rows: list[dict[str, Any]]) -> torch.Tensor:
    """For each response the number of the first row with its prompt."""
    first: dict[tuple[int, ...], int] = {}
    numbers = [first.setdefault(tuple(row["prompt_ids"]), number) for number, row in enumerate(rows)]
    return torch.tensor(numbers).repeat_interleave(torch.tensor([len(row["response_ids"]) for row in rows]))


def find_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad token, or EOS if it has none.

    Raises:
        UserError: The tokenizer has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return cast(int, token)
    raise UserError("The tokenizer has neither a pad nor an EOS token: set tokenizer.pad_token.")
