"""Order of a run's draws: seeds, prompts, shuffled mini-batches."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch

from hf_align.trainers.rollouts.config import RolloutConfig


class Purpose(IntEnum):
    """Purpose of a seed."""

    PROMPTS = 0
    SAMPLING = 1
    ROWS = 2
    BATCHES = 3
    EVALUATION = 4


def seed_of(*numbers: int) -> int:
    """A seed that depends on all the numbers: the run's seed, the rollout, the process and the purpose.

    Rollouts draw nothing from the global generators, so a resumed run makes the same draws as an uninterrupted one.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def prompt_numbers(start: int, count: int, total: int, seed: int) -> list[int]:
    """Rows `start` ... `start + count` of an endless stream in which each pass over `total` rows has its own order."""
    first, last = start // total, (start + count - 1) // total
    passes = [
        torch.randperm(total, generator=torch.Generator().manual_seed(seed_of(seed, number)))
        for number in range(first, last + 1)
    ]
    return torch.cat(passes)[start - first * total :][:count].tolist()


def group_permutation(groups: int, size: int, seed: int) -> list[int]:
    """Shuffled numbers of `groups * size` responses, those of one prompt next to each other."""
    order: Sequence[int] = torch.randperm(groups, generator=torch.Generator().manual_seed(seed)).tolist()
    return [group * size + member for group in order for member in range(size)]


def mini_batch_of(step: int, rollout: int, args: RolloutConfig) -> int:
    """Number of the mini-batch that a rollout's step (from 0) trains on.

    Its responses stay together in all epochs: quantised and 16-bit kernels give other log-probs in other batches, which
    would move the ratio.
    """
    epoch, place = divmod(step, args.num_mini_batches)
    generator = torch.Generator().manual_seed(seed_of(args.seed, Purpose.BATCHES, rollout, epoch))
    return int(torch.randperm(args.num_mini_batches, generator=generator)[place])


def micro_batch_rows(mini_batch: int, micro: int, args: RolloutConfig) -> slice:
    """The rows of a mini-batch's micro-batch (from 0) in the rollout."""
    start = (mini_batch * args.gradient_accumulation_steps + micro) * args.per_device_train_batch_size
    return slice(start, start + args.per_device_train_batch_size)
