"""Means and whitening over all processes of a run."""

from __future__ import annotations

from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.rl.advantages import whiten


def whiten_everywhere(x: Tensor, mask: Tensor, accelerator: Accelerator, *, shift_mean: bool = True) -> Tensor:
    """`whiten` over all processes; takes and returns `[S, T]` of this process."""
    values = gather_rows(x[mask], accelerator)
    sizes = [len(part) for part in values]
    whitened = whiten(torch.cat(values), torch.ones(sum(sizes)), shift_mean=shift_mean).split(sizes)
    return torch.zeros(mask.shape).masked_scatter(mask, whitened[accelerator.process_index])


def mean_everywhere(values: Tensor, accelerator: Accelerator) -> float:
    """The mean over this process's values `[N]` and those of the others, which may have another N."""
    total_here = float(values.cpu().double().sum())  # some GPUs have no float64
    total = cast(Tensor, accelerator.reduce(torch.tensor([total_here, len(values)], device=accelerator.device), "sum"))
    return float(total[0] / total[1])


def gather_rows(x: Tensor, accelerator: Accelerator) -> list[Tensor]:
    """The `[N, ...]` CPU tensors of all processes, which may differ in N."""
    if accelerator.num_processes == 1:
        return [x]
    sizes = cast(Tensor, accelerator.gather(torch.tensor([len(x)], device=accelerator.device)))
    padded = accelerator.pad_across_processes(x.to(accelerator.device)[None], dim=1)
    parts = cast(Tensor, accelerator.gather(padded))
    return [part[:size].cpu() for part, size in zip(parts, sizes.tolist(), strict=True)]
