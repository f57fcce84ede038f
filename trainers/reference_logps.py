"""Reference log-probs of whole data sets, computed once and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from hf_align.files import whole_file

Row = dict[str, Any]


def add_reference_logps(
    dataset: Any, score: Callable[[list[Row]], Tensor], *, key: str, size: int, accelerator: Accelerator, quiet: bool
) -> Any:
    """Add `ref_logps`, one for each response of a row, from the cache or computed in length-sorted batches.

    Args:
        dataset: Tokenised rows, a dict of such data sets, or None.
        score: Gives the reference's log-probs of the S responses of some rows, `[S]`.
        key: Weights, precision and layout: together with the tokens, everything that the numbers depend on. Unrelated
            arguments must not cause a new pass.
        size: Rows scored together.
        accelerator: Distributes rows over its processes, long ones together.
        quiet: Show no progress.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        options: dict[str, Any] = {"key": key, "size": size, "accelerator": accelerator, "quiet": quiet}
        return {name: add_reference_logps(part, score, **options) for name, part in dataset.items()}
    digest = hashlib.sha256(key.encode())
    for row in cast(Iterable[Row], dataset):
        digest.update(np.int64(len(row["response_ids"])).tobytes())
        for ids in (row["prompt_ids"], *row["response_ids"]):
            digest.update(np.asarray([len(ids), *ids], np.int64).tobytes())
    path = Path(constants.HF_HOME) / "hf_align" / "ref_logps" / f"{digest.hexdigest()}.safetensors"
    is_cached = path.exists()
    accelerator.wait_for_everyone()
    logps = load_file(path)["logps"] if is_cached else _score(dataset, score, size, accelerator, quiet)
    if not is_cached and accelerator.is_main_process:
        with whole_file(path) as unfinished:
            save_file({"logps": logps}, unfinished)
    of_rows = np.split(logps, np.cumsum([len(responses) for responses in dataset["response_ids"]])[:-1])
    return dataset.add_column("ref_logps", [of_row.tolist() for of_row in of_rows])


def _score(
    dataset: Dataset, score: Callable[[list[Row]], Tensor], size: int, accelerator: Accelerator, quiet: bool
) -> np.ndarray:
    """Reference log-probs of all responses, row by row: `[S]`."""
    responses = dataset["response_ids"][:]
    sizes = [
        len(prompt) + sum(map(len, of_row)) for prompt, of_row in zip(dataset["prompt_ids"], responses, strict=True)
    ]
    starts = [0, *accumulate(map(len, responses))]
    order = np.argsort(sizes, kind="stable")[::-1]
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    logps = torch.zeros(starts[-1], device=accelerator.device)
    batches_here = batches[accelerator.process_index :: accelerator.num_processes]
    for numbers in tqdm(batches_here, desc="Reference log-probs", disable=quiet or not accelerator.is_main_process):
        places = [place for number in numbers for place in range(starts[number], starts[number + 1])]
        scored = score([cast(Row, dataset[int(number)]) for number in numbers])
        logps[torch.tensor(places, device=logps.device)] = scored
    return cast(Tensor, accelerator.reduce(logps, "sum")).cpu().numpy()
