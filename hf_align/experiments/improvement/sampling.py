"""Responses of a policy to prompts, stored block by block, so that a killed run samples the same again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from hf_align.collators.rows import Side
from hf_align.data.parts import Parts
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.sources import load_tokenizer
from hf_align.progress import Progress
from hf_align.rollouts import sample_responses
from hf_align.rollouts.sampler import Sampler, seed_for


class Written(NamedTuple):
    """A sampled response: its text, its tokens with a sampled end, and whether the policy ended it."""

    text: str
    token_ids: list[int]
    finished: bool


@dataclass(frozen=True)
class Settings:
    """How responses are sampled.

    Attributes:
        num_samples: Responses to each prompt.
        max_new_tokens: Length limit of a response.
        batch_size: Responses generated at a time, rounded to whole prompts.
        seed: Seed.
        engine: Name of an engine of `hf_align.rollouts`.
        temperature: Divides the logits.
        top_p: Sample from the most likely tokens with this total probability.
    """

    num_samples: int
    max_new_tokens: int
    batch_size: int
    seed: int
    engine: str = "static"
    temperature: float = 1.0
    top_p: float = 1.0


def open_sampler(name: str, quantization: Quantization) -> Sampler:
    """A policy with its tokenizer, on the GPU if there is one."""
    return Sampler(to_gpu(load_policy(name, quantization=quantization), quantization), load_tokenizer(name))


def sample_blocks(
    sampler: Sampler,
    prompts: Sequence[Side],
    options: Sequence[Mapping[str, Any]],
    settings: Settings,
    parts: Parts,
    progress: Progress,
    label: str,
) -> list[list[Written]]:
    """Sample in blocks of prompts of similar length, each block with a seed of its own.

    A block is stored as one part: a run that goes on has the same blocks and seeds, whichever it still has to sample.
    Two policies draw a block's tokens from the same random numbers, which makes their paired difference less noisy.

    Args:
        sampler: The policy.
        prompts: `[N]` texts or messages.
        options: `[N]` options of the chat template.
        settings: How to sample.
        parts: Keeps finished blocks.
        progress: Receiver of progress.
        label: What it is shown.

    Returns:
        `[N]` lists of `num_samples` responses.
    """
    encoded, identity = sampler.encode(prompts, options), sampler.identity()
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    size = max(1, settings.batch_size // settings.num_samples)
    written: dict[int, list[Written]] = {}
    with progress.task(label, len(order)) as advance, sampler.accelerated():
        for start in range(0, len(order), size):
            block = order[start : start + size]
            ids = [encoded[row] for row in block]

            def compute(ids: list[list[int]] = ids, start: int = start) -> list[list[Any]]:
                responses = sample_responses(
                    sampler.model,
                    sampler.tokenizer,
                    ids,
                    num_samples=settings.num_samples,
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    generator_seed=seed_for(settings.seed, str(start)),
                    engine=settings.engine,
                )
                # The limit can cut a character that takes several tokens; its first bytes decode to U+FFFD.
                return [
                    [each.text.rstrip("\N{REPLACEMENT CHARACTER}"), list(each.token_ids), each.finished]
                    for each in responses
                ]

            flat = parts.get({**identity, "sampling": asdict(settings), "start": start, "ids": ids}, compute)
            for place, row in enumerate(block):
                of_row = flat[place * settings.num_samples : (place + 1) * settings.num_samples]
                written[row] = [Written(*each) for each in of_row]
            advance(len(written), "")
    return [written[row] for row in range(len(prompts))]
