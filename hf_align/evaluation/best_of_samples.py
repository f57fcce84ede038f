"""A policy's samples to each prompt, in blocks that a killed job finds again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hf_align.collators.rows import Side
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.sources import load_tokenizer
from hf_align.progress import Progress
from hf_align.rollouts.sampler import Sample, Sampler, seed_for


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        n: Samples per prompt, at least 2.
        max_new_tokens: Length limit of a sample, in tokens.
        temperature: Divides the logits.
        top_p: Sample from the most likely tokens with this total probability.
        batch_size: Samples generated at a time, rounded to whole prompts.
        seed: Seed of the sampling.

    Example:
        >>> from hf_align.evaluation import Sampling
        >>> Sampling(n=8, max_new_tokens=64)
        Sampling(n=8, max_new_tokens=64, temperature=1.0, top_p=1.0, batch_size=64, seed=0)
    """

    n: int
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2:
            raise UserError(f"best_of is {self.n}; give at least 2 samples per prompt")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give a number from 1")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}; give a number above 0, or all samples are the same")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; give a probability above 0, up to 1")


def sample_prompts(
    policy: str,
    prompts: Sequence[Side],
    options: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    quantization: Quantization,
    parts: Parts,
    progress: Progress,
) -> list[list[Sample]]:
    """Samples to each prompt, in blocks of prompts of similar length with seeds of their own."""
    sampler = Sampler(to_gpu(load_policy(policy, quantization=quantization), quantization), load_tokenizer(policy))
    encoded, model_key = sampler.encode(prompts, options), sampler.identity()
    order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
    size = max(1, sampling.batch_size // sampling.n)
    samples: dict[int, list[Sample]] = {}
    with progress.task("sampling", len(order)) as advance, sampler.accelerated():
        for start in range(0, len(order), size):
            block = order[start : start + size]
            ids = [encoded[number] for number in block]

            def compute(ids: list[list[int]] = ids, start: int = start) -> list[list[Sample]]:
                return sampler.sample(
                    ids,
                    num_samples=sampling.n,
                    max_new_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=seed_for(sampling.seed, str(start)),
                )

            written = parts.get({**model_key, "sampling": asdict(sampling), "start": start, "ids": ids}, compute)
            for number, each in zip(block, written, strict=True):
                samples[number] = [Sample(*sample) for sample in each]
            advance(len(samples), "")
    return [samples[number] for number in range(len(prompts))]
