"""The reference policy: what it is, how it is scored, and its log-probs computed once and kept."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_align.branches import Branches
from hf_align.errors import UserError
from hf_align.models.adapters import REFERENCE_ADAPTER, active_adapter, add_frozen_copy, disable_dropout
from hf_align.models.branch_model import BranchModel
from hf_align.models.loading import keep_unpacked
from hf_align.models.policy import PolicyModel
from hf_align.trainers.preference import check_is_policy

if TYPE_CHECKING:
    from hf_align.trainers.dpo import DPOTrainer


class ScoringTrainer(Protocol):
    """What a reference needs of its trainer."""

    model: Any
    args: Any
    accelerator: Any

    def response_logps(self, model: nn.Module, branches: Branches) -> Tensor:
        """Log-probs of the responses under `model`, as the trainer uses them: a sum each, or token by token."""
        ...


class Reference:
    """The policy as it was given to the trainer, or an explicit model.

    Args:
        trainer: Whose policy it is.
        model: An explicit reference, or None.
        new_adapter: The trainer made the policy's adapter, so the reference is the base: adapters off.
        snapshot: Copy a fully trained policy's weights now. Not needed where all log-probs are computed beforehand.
    """

    def __init__(self, trainer: ScoringTrainer, model: Any, *, new_adapter: bool, snapshot: bool):
        self.trainer = trainer
        self.model: nn.Module | None = None
        self.adapter: str | None = None
        policy: BranchModel = trainer.model
        if model is not None:
            check_is_policy(model, "ref_model")
            self.model = self._frozen(model)
        elif isinstance(policy.model, PeftModel):
            if not new_adapter:
                add_frozen_copy(policy.model, "default")
                self.adapter = REFERENCE_ADAPTER
        elif snapshot:
            self.model = self._frozen(copy.deepcopy(policy.model))
        self.by_adapter = self.model is None and isinstance(policy.model, PeftModel)

    @property
    def is_kept(self) -> bool:
        """Whether it can still be scored once the policy has been trained."""
        return self.model is not None or self.by_adapter

    def _frozen(self, model: Any) -> nn.Module:
        if not isinstance(model, nn.Module):
            raise UserError(f"ref_model is a {type(model).__name__}; give a Hub id, a folder or a model.")
        keep_unpacked(model)
        disable_dropout(model)
        frozen = PolicyModel(model).requires_grad_(False)
        if getattr(model, "quantization_method", None) is None:
            frozen = frozen.to(self.trainer.args.device)
        return self.trainer.accelerator.prepare_model(frozen, evaluation_mode=True)

    @torch.no_grad()
    def logps(self, policy: nn.Module, branches: Branches) -> Tensor:
        """What the trainer's `response_logps` gives for the reference.

        Args:
            policy: The policy as the training step holds it (wrapped for DDP or FSDP, or not).
            branches: The batch that the policy is scored on, too.
        """
        with self.scored_as(policy) as model:
            return self.trainer.response_logps(model, branches)

    @contextmanager
    def scored_as(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The module that computes as the reference while this context lasts: its own, or the policy's."""
        if self.model is not None:
            # The same mode as the policy: without dropout it changes nothing but quantised kernels.
            self.model.train(policy.training)
            yield self.model
        else:
            with active_adapter(policy, self.adapter) if self.by_adapter else nullcontext():
                yield policy

    def weights_key(self) -> str:
        """A hash of the reference's weights and of how they compute."""
        trainer = self.trainer
        digest = hashlib.sha256(f"{trainer.args.bf16} {trainer.args.fp16}".encode())
        source = trainer.model if self.model is None else trainer.accelerator.unwrap_model(self.model)
        for name, tensor in sorted(source.state_dict().items()):
            parts = name.split(".")
            of_adapter = self.by_adapter and ("default" in parts or REFERENCE_ADAPTER in parts)
            if of_adapter and self.adapter not in parts:
                continue
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


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
