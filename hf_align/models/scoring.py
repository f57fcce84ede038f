"""Scoring texts with a reward model: a prompt shared by many responses is encoded once for several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from transformers import PreTrainedTokenizerBase

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.collators.checks import read_rows
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, Document, build_branches, row_length
from hf_align.layout.compare import compare_layouts, cut, longest_documents, noise_bound
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import BranchModel, unwrapped

Encoded = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of one response."""
Result = TypeVar("Result")

BATCH_TOKENS = 4096
"""Maximum padded tokens per batch."""
MOST_BRANCHES = 8
"""Maximum responses per prompt in one document: with more, masked attention across branches costs more."""


def score_texts(
    model: BranchModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    finished: Sequence[bool] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> list[float]:
    """Score texts as `RewardModel.score` does, with any module whose `forward(branches)` gives rewards `[S]`."""
    return score_ids(model, encode_texts(model, tokenizer, prompts, responses, finished, rows), tokenizer.pad_token_id)


def encode_texts(
    model: BranchModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    finished: Sequence[bool] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> list[Encoded]:
    """Token ids of prompts and responses, given as to `RewardModel.score`, with which `model` can score them."""
    if isinstance(prompts, str) or isinstance(responses, str):
        raise UserError("score takes a list of prompts and a list of responses, not a single text; put it into a list.")
    if rows is not None and len(rows) != len(prompts):
        raise UserError(f"score got {len(prompts)} prompts, and rows has {len(rows)} entries; give one each.")
    if len(prompts) != len(responses):
        raise UserError(f"score got {len(prompts)} prompts and {len(responses)} responses; give as many of each.")
    finished = [True] * len(responses) if finished is None else finished
    if len(finished) != len(responses):
        raise UserError(
            f"score got {len(responses)} responses, and finished has {len(finished)} entries; give one each."
        )
    encoder = PairEncoder(tokenizer)

    def encode(sample: tuple[Any, Any, bool, Mapping[str, Any]]) -> Encoded:
        prompt, response, ended, row = sample
        for name, side in (("prompt", prompt), ("response", response)):
            if not isinstance(side, str | list):
                raise RowProblem(f"a {name} that is neither text nor a list of messages")
        prompt_ids, ids = encoder.prompt_and_response(prompt, response, dict(row))
        conversational = isinstance(prompt, list) or isinstance(response, list)
        return prompt_ids, ids if ended else encoder.unended(ids, conversational=conversational)

    samples = zip(prompts, responses, finished, rows or [{}] * len(prompts), strict=True)
    encoded = read_rows(samples, encode, "score")
    check_token_ids(unwrapped(model), tokenizer, ([*prompt_ids, *ids] for prompt_ids, ids in encoded), "score")
    return encoded


def score_ids(model: BranchModel, encoded: Sequence[Encoded], pad_token_id: Any) -> list[float]:
    """Score prompts with one response each, given as token ids; nothing is added."""
    return outputs_of(model, encoded, pad_token_id, lambda branches: model(branches).tolist())


@torch.no_grad()
def outputs_of(
    model: BranchModel,
    encoded: Sequence[Encoded],
    pad_token_id: Any,
    compute: Callable[[Branches], Sequence[Result]],
) -> list[Result]:
    """Compute something for prompts with one response each, in batches in which responses share their prompt.

    Args:
        model: The model.
        encoded: Prompts and responses; nothing is added.
        pad_token_id: Fills rows.
        compute: Calls the model on a batch; returns one result per response.
    """
    results: dict[int, Result] = {}
    groups = _groups(encoded)

    def document(members: Sequence[int]) -> Document:
        return encoded[members[0]][0], [encoded[n][1] for n in members]

    with accelerated(model, Setting.of(model, "score")):
        shares = _shares_prompts(model, [document(members) for members in groups if len(members) > 1])
        for numbers in _batches(groups, encoded):
            branches = build_branches([document(members) for members in numbers], pad_token_id=pad_token_id)
            branches = branches.to(model.device)
            shared = shares and max(branches.num_responses) > 1
            if not shared or not model.honours_branch_mask(branches, model.compared_width):
                branches = branches.as_separate()
            results.update(zip([n for members in numbers for n in members], compute(branches), strict=True))
    return [results[number] for number in range(len(encoded))]


def _shares_prompts(model: BranchModel, documents: Sequence[Document]) -> bool:
    """Whether documents of several responses may be branches: compared on the longest, and again when longer come."""
    if not documents or model.shares_prompts is False:
        return False
    longest = max(map(row_length, documents))
    if model.shares_prompts is None or longest > model.compared_tokens:
        device = cast(torch.device, model.device)
        documents = longest_documents(documents)
        documents = documents if model.window is None else cut(documents, model.window)  # others are plain rows
        differences = compare_layouts(model, documents, device)
        quantised = getattr(model.model, "quantization_method", None) is not None
        exact = not quantised and not torch.is_autocast_enabled(device.type) and model.dtype == torch.float32
        model.shares_prompts = bool(differences.branch <= noise_bound(differences.plain, exact=exact))
        model.compared_tokens, model.compared_width = longest, differences.width
    return model.shares_prompts


def _groups(encoded: Sequence[Encoded]) -> list[list[int]]:
    """Indices of the pairs, grouped by prompt into up to MOST_BRANCHES of similar length."""
    by_prompt: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (prompt, _) in enumerate(encoded):
        by_prompt[tuple(prompt)].append(number)
    groups: list[list[int]] = []
    for numbers in by_prompt.values():
        numbers.sort(key=lambda n: len(encoded[n][1]))
        groups += [numbers[start : start + MOST_BRANCHES] for start in range(0, len(numbers), MOST_BRANCHES)]
    return groups


def _batches(groups: Sequence[list[int]], encoded: Sequence[Encoded]) -> Iterator[list[list[int]]]:
    """Batches of groups of one size, short ones first, of at most BATCH_TOKENS padded tokens."""

    def tokens(group: list[int]) -> int:
        return len(encoded[group[0]][0]) + sum(len(encoded[n][1]) for n in group)

    batch: list[list[int]] = []
    for group in sorted(groups, key=lambda group: (len(group), tokens(group))):
        if batch and (len(group) != len(batch[0]) or (len(batch) + 1) * tokens(group) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch
