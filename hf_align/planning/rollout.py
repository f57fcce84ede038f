"""Phases of a rollout and their kernels: responses are sampled token by token, then scored by reward models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from hf_align.layout.branches import Document, build_branches
from hf_align.models.ensemble_files import member_sources
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.scoring import BATCH_TOKENS
from hf_align.models.sources import is_ensemble
from hf_align.models.wrapper import BranchModel
from hf_align.planning.other_models import SCORING, SCORING_NAMES, Source, reward_of
from hf_align.planning.outline import outline
from hf_align.planning.phases import Setup, TracedReward, first_token, last_token, score
from hf_align.planning.trace import Measured
from hf_align.planning.work import Work
from hf_align.rewards.sources import named_models
from hf_align.rollouts.engine import SamplingRequest

LARGEST_MASK = 2**26
"""Entries of a mask that is made with data in a trace."""


def sampling_needs(
    setup: Setup, wrapper: BranchModel, args: Any, documents: Sequence[Document]
) -> tuple[dict[str, dict[str, float]], dict[str, Work]]:
    """Phases of sampling a rollout, and the kernels of its prompts and of one token of all responses.

    Passes with the shortest and with the longest cache stand for a token on average, since what reads it grows evenly.
    """
    samples, responses, request = args.num_samples, args.responses_per_rollout, sampling_request(args)
    longest = max(len(prompt) for prompt, _ in documents)
    whole = longest + args.max_new_tokens
    count = max(1, responses // samples)
    prompts = linear(lambda count: first_token(setup, wrapper, count, longest), count, LARGEST_MASK // longest**2)
    most = LARGEST_MASK // whole
    token = linear(lambda count: last_token(setup, wrapper, count, whole, request), responses, most)
    first = linear(lambda count: last_token(setup, wrapper, count, longest + 1, request), responses, most)
    phases = {
        "first tokens of the responses": {"prompts and their keys and values": prompts.peak},
        "last tokens of the responses": {"keys and values, logits": token.peak},
    }
    return phases, {"prompts": prompts.work, "token": 0.5 * (first.work + token.work)}


def sampling_request(args: Any) -> SamplingRequest:
    """How a run's responses are sampled."""
    return SamplingRequest(
        prompt_ids=[],
        num_samples=args.num_samples,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        end_ids=[],
        stop_strings=[],
        pad_token_id=0,
        tokenizer=cast(Any, None),
    )


def linear(measure: Callable[[int], Measured], count: int, most: int, few: int = 2) -> Measured:
    """What `measure(count)` gives, of work linear in `count`; above `most` told by two smaller ones."""
    if count <= max(most, 2 * few):
        return measure(count)
    low, high = measure(few), measure(2 * few)
    return low + (count - few) / few * (high - low)


def rewarding_needs(
    setup: Setup, source: Source, documents: Sequence[Document], args: Any
) -> tuple[dict[str, dict[str, float]], Work]:
    """The phases in which reward models score the responses, and the kernels of those that score each rollout."""
    phases: dict[str, dict[str, float]] = {}
    work = Work()
    for key in SCORING:
        for name in named_models(reward_of(source.get(key))):
            member = member_sources(name)[0] if is_ensemble(name) else name
            model = outline(member, reward=True, dtype=setup.dtype)
            longest = max(len(prompt) for prompt, _ in documents) + args.max_new_tokens
            rows = max(1, min(args.responses_per_rollout, BATCH_TOKENS // longest))
            documents_scored = [([1] * (longest - args.max_new_tokens), [[1] * args.max_new_tokens])] * rows
            batch = build_branches(documents_scored, pad_token_id=0).as_separate()
            wrapper = TracedReward(model.model, RewardModelConfig())
            measured = score(setup, wrapper, batch)
            phases[f"scores by {name}"] = {f"{SCORING_NAMES[key]}'s pass": measured.peak}
            if key != "eval_judge":
                passes = -(-args.responses_per_rollout // rows) * (
                    len(member_sources(name)) if is_ensemble(name) else 1
                )
                work += passes * measured.work
    return phases, work
