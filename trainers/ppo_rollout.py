"""A rollout: responses of one process with everything their updates need, kept between steps and in checkpoints.

Notation: S responses, T tokens of the longest response, B responses a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_align.advantages import RunningMeanStd, gae, whiten
from hf_align.branches import Branches, build_branches
from hf_align.kl import estimate_kl
from hf_align.trainers.ppo_config import PPOConfig

PER_TOKEN = ("old_logps", "ref_logps", "values", "entropy", "advantages", "returns")


class Purpose(IntEnum):
    """What a seed is for."""

    PROMPTS = 0
    SAMPLING = 1
    ROWS = 2
    BATCHES = 3
    EVALUATION = 4


def seed_of(*numbers: int) -> int:
    """A seed that depends on all the numbers: on the run's seed, the rollout, the process and what it is for.

    Nothing that is drawn for rollouts comes from the global generators, so a resumed run draws what it would have.
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


@dataclass
class Rollout:
    """Responses in the order in which micro-batches take them, prompt by prompt, and what was computed for each token.

    Attributes:
        prompt_ids: S prompts, repeated for each of their responses.
        response_ids: S responses.
        finished: `[S]` whether the policy ended the response; else the length limit did.
        scores: `[S]` raw scores of the reward.
        num_samples: Responses that stand next to each other for the same prompt.
        kl_coef: The KL coefficient that holds for this rollout.
        stopped: Whether its updates were stopped early.
        tokens: `[S, T]` each, 0 behind a response's end: old_logps (of the policy that made the rollout), ref_logps,
            values, entropy, advantages, returns.
        first_output: The policy's `logps` and `values` of the micro-batch that training begins with, as scoring left
            them for the backward pass, until training takes them. Not saved: checkpoints are written after steps.
    """

    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    finished: Tensor
    scores: Tensor
    num_samples: int
    kl_coef: float
    stopped: bool = False
    tokens: dict[str, Tensor] = field(default_factory=dict)
    first_output: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def lengths(self) -> Tensor:
        """`[S]` tokens of each response."""
        return torch.tensor([len(ids) for ids in self.response_ids])

    @property
    def mask(self) -> Tensor:
        """`[S, T]` bool, true at response tokens."""
        lengths = self.lengths
        return torch.arange(int(lengths.max())) < lengths[:, None]

    def branches(self, rows: slice, *, pad_token_id: int, row_tokens: int | None) -> Branches:
        """The rows' responses laid out for the model; those of one prompt that stand in `rows` share it."""
        prompts, responses = self.prompt_ids[rows], self.response_ids[rows]
        together = math.gcd(len(responses), self.num_samples)
        documents = [
            (prompts[start], responses[start : start + together]) for start in range(0, len(responses), together)
        ]
        return build_branches(documents, pad_token_id=pad_token_id, row_tokens=row_tokens)

    def flat(self, name: str, rows: slice) -> Tensor:
        """What was computed for the rows' N tokens: `[N]`, in the order of `Branches.targets`."""
        return self.tokens[name][rows][self.mask[rows]]

    def spread(self, flat: Tensor) -> Tensor:
        """`[S, T]` from the values of all tokens in order."""
        mask = self.mask
        return torch.zeros(mask.shape).masked_scatter(mask, flat.float().cpu())

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file."""
        tensors = {"finished": self.finished, "scores": self.scores, **self.tokens}
        for name, ids in (("prompt", self.prompt_ids), ("response", self.response_ids)):
            tensors[f"{name}_lengths"] = torch.tensor([len(row) for row in ids])
            tensors[f"{name}_ids"] = torch.tensor([token for row in ids for token in row])
        tensors["kl_coef"] = torch.tensor(self.kl_coef, dtype=torch.float64)
        tensors["num_samples"], tensors["stopped"] = torch.tensor(self.num_samples), torch.tensor(self.stopped)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Rollout:
        """Read what `save` wrote."""
        tensors = load_file(path)
        ids = {}
        for name in ("prompt", "response"):
            parts = tensors[f"{name}_ids"].split(tensors[f"{name}_lengths"].tolist())
            ids[name] = [part.tolist() for part in parts]
        return cls(
            prompt_ids=ids["prompt"],
            response_ids=ids["response"],
            finished=tensors["finished"],
            scores=tensors["scores"],
            num_samples=int(tensors["num_samples"]),
            kl_coef=float(tensors["kl_coef"]),
            stopped=bool(tensors["stopped"]),
            tokens={name: tensors[name] for name in PER_TOKEN},
        )


def shape_scores(scores: Tensor, finished: Tensor, args: PPOConfig, running: RunningMeanStd) -> Tensor:
    """Scores `[S]` as they enter the rewards: scaled by the running deviation, clipped, cut responses penalised."""
    if args.scale_rewards:
        scores = scores / running.std
    if args.reward_clip is not None:
        scores = scores.clamp(-args.reward_clip, args.reward_clip)
    if args.missing_eos_penalty is not None:
        scores = scores - args.missing_eos_penalty * (~finished)
    return scores


def add_advantages(rollout: Rollout, scores: Tensor, args: PPOConfig, accelerator: Accelerator) -> Tensor:
    """Add `advantages` and `returns` to a rollout that has been scored.

    Args:
        rollout: With old_logps, ref_logps and values.
        scores: `[S]`, shaped; each goes to its response's last token, whether EOS or where the limit cut it.
        args: The trainer's options.
        accelerator: Whitening is over all its processes.

    Returns:
        The tokens' rewards, KL penalty included, before whitening: `[S, T]`.
    """
    mask = rollout.mask
    rewards = torch.zeros(mask.shape).scatter(1, rollout.lengths[:, None] - 1, scores[:, None])
    if args.kl_in == "reward":
        kind = args.kl_kind
        assert kind != "full"
        rewards = rewards - rollout.kl_coef * estimate_kl(
            rollout.tokens["old_logps"], rollout.tokens["ref_logps"], kind=kind
        )
    whitened = whiten_everywhere(rewards, mask, accelerator, shift_mean=False) if args.whiten_rewards else rewards
    advantages, returns = gae(whitened, rollout.tokens["values"], mask, gamma=args.gamma, lam=args.lam)
    if args.whiten_advantages:
        advantages = whiten_everywhere(advantages, mask, accelerator)
    rollout.tokens["advantages"], rollout.tokens["returns"] = advantages, returns
    return rewards


def whiten_everywhere(x: Tensor, mask: Tensor, accelerator: Accelerator, *, shift_mean: bool = True) -> Tensor:
    """`whiten` over all processes; `[S, T]` of this process in and out."""
    values = gather_rows(x[mask], accelerator)
    sizes = [len(part) for part in values]
    whitened = whiten(torch.cat(values), torch.ones(sum(sizes)), shift_mean=shift_mean).split(sizes)
    return torch.zeros(mask.shape).masked_scatter(mask, whitened[accelerator.process_index])


def mean_everywhere(values: Tensor, accelerator: Accelerator) -> float:
    """The mean over this process's values `[N]` and those of the others, which may have another N."""
    values = values.double()
    total = torch.stack([values.sum(), torch.tensor(float(len(values)), device=values.device).double()])
    total = cast(Tensor, accelerator.reduce(total.float(), "sum"))
    return float(total[0] / total[1])


def gather_rows(x: Tensor, accelerator: Accelerator) -> list[Tensor]:
    """The `[N, ...]` CPU tensors of all processes, which may differ in N."""
    if accelerator.num_processes == 1:
        return [x]
    sizes = cast(Tensor, accelerator.gather(torch.tensor([len(x)], device=accelerator.device)))
    padded = accelerator.pad_across_processes(x.to(accelerator.device)[None], dim=1)
    parts = cast(Tensor, accelerator.gather(padded))
    return [part[:size].cpu() for part, size in zip(parts, sizes.tolist(), strict=True)]


def group_permutation(groups: int, size: int, seed: int) -> list[int]:
    """Shuffled numbers of `groups * size` responses, those of one prompt next to each other."""
    order: Sequence[int] = torch.randperm(groups, generator=torch.Generator().manual_seed(seed)).tolist()
    return [group * size + member for group in order for member in range(size)]


def mini_batch_of(step: int, rollout: int, args: PPOConfig) -> int:
    """Which mini-batch a rollout's step (from 0) trains on.

    What is in one stays together in all epochs: quantised and 16-bit kernels give other log-probs in other company,
    which would move the ratio.
    """
    epoch, place = divmod(step, args.num_mini_batches)
    generator = torch.Generator().manual_seed(seed_of(args.seed, Purpose.BATCHES, rollout, epoch))
    return int(torch.randperm(args.num_mini_batches, generator=generator)[place])


def micro_batch_rows(mini_batch: int, micro: int, args: PPOConfig) -> slice:
    """The rows of a mini-batch's micro-batch (from 0) in the rollout."""
    start = (mini_batch * args.gradient_accumulation_steps + micro) * args.per_device_train_batch_size
    return slice(start, start + args.per_device_train_batch_size)
