"""Log-probs of the reference policy, computed once for a data set and kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from hf_align.files import whole_file

Score = Callable[[list[dict[str, Any]]], Tensor]
"""Gives the reference's log-probs `[B, 2]` of rows."""


def add_reference_logps(
    data: Any, score: Score, *, key: str, batch_size: int, accelerator: Accelerator, quiet: bool = False
) -> Any:
    """Add `ref_chosen_logps` and `ref_rejected_logps`, from the cache or computed in length-sorted batches.

    Args:
        data: A tokenised data set, or a dict of them; None stays None.
        score: Scores a batch of rows.
        key: All that the numbers depend on besides the rows' tokens.
        batch_size: Rows scored at a time.
        accelerator: The rows are shared out among its processes.
        quiet: Show no progress bar.
    """
    if data is None:
        return None
    options: dict[str, Any] = {"batch_size": batch_size, "accelerator": accelerator, "quiet": quiet}
    if isinstance(data, dict):
        return {name: add_reference_logps(part, score, key=key, **options) for name, part in data.items()}
    path = Path(HF_HOME) / "hf_align" / "ref_logps" / f"{_cache_key(key, data)}.safetensors"
    is_cached = path.exists()
    accelerator.wait_for_everyone()
    logps = load_file(path)["logps"] if is_cached else _score_all(data, score, **options)
    if not is_cached and accelerator.is_main_process:
        with whole_file(path) as unfinished:
            save_file({"logps": logps}, unfinished)
    data = data.add_column("ref_chosen_logps", logps[:, 0].tolist())
    return data.add_column("ref_rejected_logps", logps[:, 1].tolist())


def _cache_key(key: str, dataset: Dataset) -> str:
    digest = hashlib.sha256(key.encode())
    for row in _rows(dataset):
        for ids in (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]):
            digest.update(np.asarray([len(ids), *ids], np.int64).tobytes())
    return digest.hexdigest()


def _score_all(dataset: Dataset, score: Score, batch_size: int, accelerator: Accelerator, quiet: bool) -> np.ndarray:
    """Score all rows, shared out among the processes, long ones together: `[rows, 2]`."""
    sizes = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in _rows(dataset)]
    order = np.argsort(sizes, kind="stable")[::-1]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    logps = torch.zeros(len(dataset), 2, device=accelerator.device)
    share = batches[accelerator.process_index :: accelerator.num_processes]
    for rows in tqdm(share, desc="Reference log-probs", disable=quiet or not accelerator.is_main_process):
        scored = score([dataset[int(row)] for row in rows])
        logps[torch.as_tensor(rows.copy(), device=logps.device)] = scored
    return cast(Tensor, accelerator.reduce(logps, "sum")).cpu().numpy()


def _rows(dataset: Dataset) -> Iterable[dict[str, list[int]]]:
    return cast(Iterable[dict[str, list[int]]], dataset)
