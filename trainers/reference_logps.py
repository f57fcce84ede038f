"""The reference policy: what it is, how it is scored, and its log-probs computed once and kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_align.errors import UserError
from hf_align.layout.branches import Branches

if TYPE_CHECKING:
    from hf_align.trainers.dpo import DPOTrainer


def add_reference_logps(trainer: DPOTrainer, dataset: Any) -> Any:
    """Add `ref_chosen_logps` and `ref_rejected_logps`, from the cache or computed in length-sorted batches."""
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        return {name: add_reference_logps(trainer, part) for name, part in dataset.items()}
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError("precompute_ref_log_probs doesn't work with sharded weights (FSDP, DeepSpeed); switch it off.")
    path = Path(HF_HOME) / "hf_align" / "ref_logps" / f"{_cache_key(trainer, dataset)}.safetensors"
    known = path.exists()
    trainer.accelerator.wait_for_everyone()
    logps = load_file(path)["logps"] if known else _score(trainer, dataset)
    if not known and trainer.is_world_process_zero():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({"logps": logps}, unfinished)
        os.replace(unfinished, path)
    dataset = dataset.add_column("ref_chosen_logps", logps[:, 0].tolist())
    return dataset.add_column("ref_rejected_logps", logps[:, 1].tolist())


def _cache_key(trainer: DPOTrainer, dataset: Dataset) -> str:
    """Weights, tokens and layout, and nothing else: an unrelated argument must not cost a new pass."""
    layout = f"{trainer.args.layout} {trainer.args.row_tokens} {trainer.args.per_device_eval_batch_size}"
    digest = hashlib.sha256(f"{trainer.reference.weights_key()} {layout}".encode())
    for row in _rows(dataset):
        for ids in (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]):
            digest.update(np.asarray([len(ids), *ids], np.int64).tobytes())
    return digest.hexdigest()


def _score(trainer: DPOTrainer, dataset: Dataset) -> np.ndarray:
    """Reference log-probs `[rows, 2]`, the rows shared out among the processes, long ones together."""
    policy = cast(nn.Module, trainer.model)
    sizes = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in _rows(dataset)]
    order = np.argsort(sizes, kind="stable")[::-1]
    size, rank = trainer.args.per_device_eval_batch_size, trainer.args.process_index
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    logps = torch.zeros(len(dataset), 2, device=trainer.args.device)
    training = policy.training
    policy.train()  # the mode in which the policy will be scored
    own = batches[rank :: trainer.args.world_size]
    progress = tqdm(own, desc="Reference log-probs", disable=trainer.args.disable_tqdm or rank > 0)
    for rows in progress:
        inputs: dict[str, Any] = trainer._prepare_inputs(trainer.data_collator([dataset[int(row)] for row in rows]))
        with trainer.accelerator.autocast():
            scored = trainer.reference.logps(policy, Branches(**inputs["branches"]))
        logps[torch.as_tensor(rows.copy(), device=logps.device)] = scored
    policy.train(training)
    return cast(Tensor, trainer.accelerator.reduce(logps, "sum")).cpu().numpy()


def _rows(dataset: Dataset) -> Iterable[dict[str, list[int]]]:
    return cast(Iterable[dict[str, list[int]]], dataset)
