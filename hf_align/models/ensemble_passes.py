"""The passes that compute an ensemble's members: what several share is computed once, for texts, rows or token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_preferences
from hf_align.collators.judged import read_judged
from hf_align.collators.tokenize import tokenize_preferences
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.encodings import encoding_difference
from hf_align.models.reward import RewardModel
from hf_align.models.reward_adapter import SharedHeads
from hf_align.models.scoring import Encoded, encode_texts, outputs_of
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import BranchModel, unwrapped

Rows = Dataset | list[dict[str, Any]]
Texts = tuple[Sequence[Any], Sequence[Any], Sequence[bool] | None, Sequence[Mapping[str, Any]] | None]
"""Prompts, responses, whether these are finished, and rows, as for `RewardModel.score`."""
Ids = Mapping[int, Sequence[Encoded]]
"""Prompts and responses as token ids, by encoding; 0 is that of the first member's tokenizer."""


@dataclass(frozen=True)
class Pass:
    """Members that are computed together: several heads on one backbone, or one member.

    Attributes:
        numbers: Their places among the members.
        scorer: The member, or its heads.
        tokenizer: Its tokenizer.
        encoding: Number of the way in which it encodes texts; equal for tokenizers that agree.
        takes_ids: Whether it scores token ids.
    """

    numbers: list[int]
    scorer: Any
    tokenizer: PreTrainedTokenizerBase
    encoding: int
    takes_ids: bool

    @property
    def reads_branches(self) -> bool:
        """Whether it reads texts as the tokens of `encode_texts`."""
        return isinstance(self.scorer, BranchModel)

    def score_ids(self, encoded: Sequence[Encoded]) -> Tensor:
        """Scores `[members, R]` of prompts and responses given as token ids."""
        if not encoded:
            return torch.zeros(len(self.numbers), 0)
        if not isinstance(self.scorer, SharedHeads):
            prompts, responses = zip(*encoded, strict=True)
            return torch.tensor(self.scorer.score_ids(prompts, responses))[None]
        heads = self.scorer
        with evaluation_mode(heads):
            rewards = outputs_of(heads, encoded, self.tokenizer.pad_token_id, lambda branches: [*heads(branches).cpu()])
        return torch.stack(rewards, 1)


class Passes:
    """The passes that compute all of an ensemble's members.

    Args:
        members: The members, as `load_members` gives them.
    """

    def __init__(self, members: Sequence[Any]):
        self._passes = _passes_of(members)
        self._count = len(members)

    @property
    def takes_ids(self) -> bool:
        """Whether all members read the same token ids."""
        return all(each.takes_ids and each.encoding == 0 for each in self._passes)

    def encode(self, texts: Texts) -> Ids:
        """Token ids of texts by encoding, for the members that read ids."""
        encoded: dict[int, list[Encoded]] = {}
        for each in self._passes:
            if each.reads_branches and each.encoding not in encoded:
                encoded[each.encoding] = encode_texts(each.scorer, each.tokenizer, *texts)
        return encoded

    def encoded(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> Ids:
        """Token ids that all members read.

        Raises:
            UserError: They don't read the same.
        """
        if not self.takes_ids:
            raise UserError("The members of this ensemble have different tokenizers; score texts (score), not ids.")
        return {0: list(zip(prompt_ids, response_ids, strict=True))}

    def read(self, dataset: Rows) -> tuple[Dataset, Ids, Texts | None]:
        """Pairs or rankings in the first member's tokens, all their responses in each encoding, and as texts.

        Texts are None where no member reads them.

        Raises:
            UserError: A row can't be used.
        """
        if isinstance(dataset, Dataset) and "response_ids" in dataset.column_names:
            if not self.takes_ids:
                raise UserError("The members have different tokenizers; give rows of texts, not tokenised ones.")
            return dataset, {0: _responses(dataset)}, None
        by_encoding: dict[int, Dataset] = {}
        for each in self._passes:
            if each.encoding not in by_encoding and (each.reads_branches or each.encoding == 0):
                rows = by_encoding[each.encoding] = tokenize_preferences(dataset, each.tokenizer, name="dataset")
                ids = ([*prompt, *response] for prompt, response in _responses(rows))
                check_token_ids(unwrapped(each.scorer), each.tokenizer, ids, "dataset")
        encoded = {number: _responses(rows) for number, rows in by_encoding.items()}
        if all(each.reads_branches for each in self._passes):
            return by_encoding[0], encoded, None
        read = [(read_judged(row, {})[0], row) for row in as_preferences(dataset, "dataset").to_list()]
        samples = [(each.prompt, response, row) for each, row in read for response in each.responses]
        prompts, responses, of_rows = (list(column) for column in zip(*samples, strict=True))
        return by_encoding[0], encoded, (prompts, responses, None, of_rows)

    def scores(self, encoded: Ids, texts: Texts | None = None) -> Tensor:
        """Scores `[M, R]` of R responses, of their texts for members that read them in another way."""
        scores: dict[int, Tensor] = {}
        for each in self._passes:
            if texts is None or each.reads_branches:
                of_members = each.score_ids(encoded[each.encoding])
            else:
                of_members = torch.tensor(each.scorer.score(*texts))[None]
            scores.update(zip(each.numbers, of_members, strict=True))
        return torch.stack([scores[number] for number in range(self._count)])


def _passes_of(members: Sequence[Any]) -> list[Pass]:
    """The passes that compute all members."""
    tokenizers: list[PreTrainedTokenizerBase] = []
    encodings: list[int] = []
    for member in members:
        same = next((n for n, each in enumerate(tokenizers) if not encoding_difference(each, member.tokenizer)), None)
        encodings.append(len(tokenizers) if same is None else same)
        if same is None:
            tokenizers.append(member.tokenizer)
    together: dict[Any, list[int]] = {}
    for number, member in enumerate(members):
        heads = isinstance(member, RewardModel) and not isinstance(member.model, PeftModel)
        together.setdefault((id(member.model), encodings[number]) if heads else number, []).append(number)
    passes = []
    for numbers in together.values():
        member = members[numbers[0]]
        scorer = SharedHeads([members[n] for n in numbers]) if len(numbers) > 1 else member
        takes_ids = isinstance(member, BranchModel) or (
            hasattr(member, "score_ids") and getattr(member, "reads_end", True)
        )
        passes.append(Pass(numbers, scorer, member.tokenizer, encodings[numbers[0]], takes_ids))
    return passes


def _responses(rows: Dataset) -> list[Encoded]:
    """All responses of tokenised rows, each with its prompt."""
    columns = zip(rows["prompt_ids"], rows["response_ids"], strict=True)
    return [(prompt, response) for prompt, responses in columns for response in responses]


class PromptStates(BranchModel):
    """The last hidden state of each prompt, of the backbone without adapter of a reward model.

    Args:
        member: A reward model, or one on a policy's base.
    """

    def __init__(self, member: Any):
        super().__init__(member.model)
        self.member = member

    def forward(self, branches: Branches) -> Tensor:
        """`[S, d]`, where each of S prompts has one response."""
        return self.member.base_states(branches).flatten(0, 1)[branches.last - 1]


def prompt_states(states: PromptStates, tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded]) -> Tensor:
    """States `[R, d]` of the prompts of R responses; each prompt is computed once."""
    prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in encoded))
    number = {prompt: n for n, prompt in enumerate(prompts)}
    with evaluation_mode(states):
        # A token after the prompt, whose state doesn't depend on it.
        rows = [(prompt, prompt[-1:]) for prompt in prompts]
        found = outputs_of(states, rows, tokenizer.pad_token_id, lambda branches: [*states(branches).float().cpu()])
    return torch.stack(found)[[number[tuple(prompt)] for prompt, _ in encoded]]
