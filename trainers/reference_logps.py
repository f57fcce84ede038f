"""Reference log-probs of whole data sets, computed once and kept in the cache."""

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

Row = dict[str, Any]


def add_reference_logps(
    dataset: Any, score: Callable[[list[Row]], Tensor], *, key: str, size: int, accelerator: Accelerator, quiet: bool
) -> Any:
    """Add `ref_chosen_logps` and `ref_rejected_logps`, from the cache or computed in length-sorted batches.

    Args:
        dataset: Tokenised pairs, a dict of such data sets, or None.
        score: Gives the reference's log-probs `[B, 2]` of a batch of rows.
        key: Weights, precision and layout: with the tokens all that the numbers depend on. An unrelated argument must
            not cost a new pass.
        size: Rows scored together.
        accelerator: Rows are shared out among its processes, long ones together.
        quiet: Show no progress.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        options: dict[str, Any] = {"key": key, "size": size, "accelerator": accelerator, "quiet": quiet}
        return {name: add_reference_logps(part, score, **options) for name, part in dataset.items()}
    digest = hashlib.sha256(key.encode())
    for row in cast(Iterable[Row], dataset):
        for ids in (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]):
            digest.update(np.asarray([len(ids), *ids], np.int64).tobytes())
    path = Path(HF_HOME) / "hf_align" / "ref_logps" / f"{digest.hexdigest()}.safetensors"
    known = path.exists()
    accelerator.wait_for_everyone()
    logps = load_file(path)["logps"] if known else _score(dataset, score, size, accelerator, quiet)
    if not known and accelerator.is_main_process:
        with whole_file(path) as unfinished:
            save_file({"logps": logps}, unfinished)
    dataset = dataset.add_column("ref_chosen_logps", logps[:, 0].tolist())
    return dataset.add_column("ref_rejected_logps", logps[:, 1].tolist())


def _score(
    dataset: Dataset, score: Callable[[list[Row]], Tensor], size: int, accelerator: Accelerator, quiet: bool
) -> np.ndarray:
    """Reference log-probs `[rows, 2]`."""
    columns = (dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"])
    sizes = [sum(map(len, row)) for row in zip(*columns, strict=True)]
    order = np.argsort(sizes, kind="stable")[::-1]
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    logps = torch.zeros(len(dataset), 2, device=accelerator.device)
    own = batches[accelerator.process_index :: accelerator.num_processes]
    for numbers in tqdm(own, desc="Reference log-probs", disable=quiet or not accelerator.is_main_process):
        scored = score([cast(Row, dataset[int(number)]) for number in numbers])
        logps[torch.as_tensor(numbers.copy(), device=logps.device)] = scored
    return cast(Tensor, accelerator.reduce(logps, "sum")).cpu().numpy()
